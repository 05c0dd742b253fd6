"""The floor: the messages of a bridge ADD, CHECK and DEL, from one process of root that runs already.

No process is started, nothing is confined, no address is reserved, no input parsed. What remains is the kernel's work
and the encoding of messages, which no plugin that is written in this language can do without.

Arguments: path of the pod's netns, and of those of many pods. Words on standard input: SCENARIO VERB.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from answering import answer

from cnisandbox.boundary.namespaces import enter_netns
from cnisandbox.netlink.addresses import ensure_addresses, list_addresses
from cnisandbox.netlink.bridge import BridgeSetup, ensure_bridge, get_port
from cnisandbox.netlink.interface import (
    InterfaceAddress,
    InterfaceSetup,
    announce_addresses,
    check_interface,
    configure_interface,
)
from cnisandbox.netlink.links import (
    get_link,
    get_link_by_index,
    link_header,
    set_up,
    wait_for_operstate_up,
)
from cnisandbox.netlink.routes import Route
from cnisandbox.netlink.tables.link import RTM_DELLINK
from cnisandbox.netlink.transport import NetlinkSocket, Request, close_route_socket
from cnisandbox.netlink.veth import VethSetup, create_veth
from cnisandbox.nft.masquerade import add_masquerade, delete_masquerade, has_masquerade
from cnisandbox.sysctl import write_sysctl

CONTAINER_END = "eth0"
OWNER = ("floor", "floor", CONTAINER_END)
GATEWAY = "10.19.0.1"
OPERSTATE_TIMEOUT_MS = 2500
LOOK_AGAIN_S = 0.0002


class Place:
    """A netns, and entering it: the messages that follow go there.

    Args:
        path: Of the netns.
    """

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Stand in it; the socket of the functions belongs to the other one, so the next one is opened here."""
        close_route_socket()
        enter_netns(self.fd)


class Floor:
    """An attachment, made, checked and taken away by messages alone.

    Args:
        host: The netns of the bridge.
        pod: That of the container.
        number: Of the host's end and its MAC, and of the container's address, from 2.
    """

    def __init__(self, host: Place, pod: Place, number: int = 2) -> None:
        self._host = host
        self._pod = pod
        self._host_end = f"floor{number}"
        self._mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        self._address = f"10.19.{number >> 8}.{number & 255}/16"
        self._setup = InterfaceSetup(
            CONTAINER_END, [InterfaceAddress(self._address, GATEWAY)], [Route("0.0.0.0/0", gw=GATEWAY)]
        )

    def add(self) -> None:
        """Send what our bridge plugin sends."""
        self._pod.enter()
        get_link(CONTAINER_END)
        self._host.enter()
        bridge = ensure_bridge(BridgeSetup("floor0", "02:00:00:00:00:01")).link
        pair = VethSetup(self._host_end, CONTAINER_END, self._pod.fd, master=bridge.ifindex, mac=self._mac)
        host_end = create_veth(pair._replace(alias="floor"))
        ensure_addresses(bridge.ifindex, bridge.ifname, [f"{GATEWAY}/16"], False, True)
        write_sysctl("net/ipv4/ip_forward", "1")
        self._pod.enter()
        container_end = configure_interface(self._setup)
        self._host.enter()
        wait_for_operstate_up(host_end.ifindex, OPERSTATE_TIMEOUT_MS)
        self._pod.enter()
        announce_addresses(container_end.ifindex, container_end.mac)
        self._host.enter()

    def check(self) -> None:
        """Look at what is there."""
        get_link("floor0")
        host_end = get_link(self._host_end)
        if host_end is not None:
            get_port(host_end.ifindex)
        self._pod.enter()
        check_interface(self._setup)
        self._host.enter()

    def delete(self) -> Callable[[], None]:
        """Delete the pair, and look until it is gone.

        Returns:
            What waits for the kernel's answer, which comes some 16 ms later: a plugin does not wait for it either.
        """
        self._pod.enter()
        link = get_link(CONTAINER_END)
        asking = threading.Thread(target=_delete, args=(link.ifindex if link else 0,))
        asking.start()  # in the netns where this thread stands
        self._host.enter()
        while link is not None and get_link_by_index(link.peer) is not None:
            time.sleep(LOOK_AGAIN_S)
        return asking.join

    def add_masqueraded(self) -> None:
        """ADD with ipMasq."""
        self.add()
        add_masquerade(*OWNER, [self._address])

    def check_masqueraded(self) -> None:
        """CHECK with ipMasq."""
        self.check()
        has_masquerade(*OWNER, [self._address])

    def delete_masqueraded(self) -> Callable[[], None]:
        """DEL with ipMasq."""
        afterwards = self.delete()
        delete_masquerade(*OWNER)
        return afterwards


class Crowd:
    """An attachment of each of many pods, one after the other.

    Args:
        host: The netns of the bridge.
        pods: Paths of those of the containers, which need not be there before the first verb.
    """

    def __init__(self, host: Place, pods: Sequence[str]) -> None:
        self._host = host
        self._pods = pods
        self._floors: list[Floor] = []

    def add(self) -> None:
        """ADD for each."""
        if not self._floors:
            self._floors = [Floor(self._host, Place(pod), number) for number, pod in enumerate(self._pods, 2)]
        for floor in self._floors:
            floor.add()

    def check(self) -> None:
        """CHECK for each."""
        for floor in self._floors:
            floor.check()

    def delete(self) -> Callable[[], None]:
        """DEL for each; returns what waits for the kernel's answers."""
        asking = [floor.delete() for floor in self._floors]

        def join() -> None:
            for wait in asking:
                wait()

        return join


class Loopback:
    """What the loopback plugin does.

    Args:
        host: The netns to come back to.
        pod: That of the container.
    """

    def __init__(self, host: Place, pod: Place) -> None:
        self._host = host
        self._pod = pod

    def add(self) -> None:
        """Set lo up and list its addresses."""
        self._pod.enter()
        list_addresses(set_up("lo", True).ifindex)
        self._host.enter()

    def check(self) -> None:
        """Look at lo."""
        self._pod.enter()
        get_link("lo")
        self._host.enter()

    def delete(self) -> None:
        """Set lo down."""
        self._pod.enter()
        set_up("lo", False)
        self._host.enter()


def _delete(ifindex: int) -> None:
    socket = NetlinkSocket()
    socket.execute([Request("delete link", CONTAINER_END, RTM_DELLINK, link_header(ifindex), {})])
    socket.close()


def main() -> None:
    """Answer."""
    host, pod = Place("/proc/self/ns/net"), Place(sys.argv[1])
    floor, loopback, crowd = Floor(host, pod), Loopback(host, pod), Crowd(host, sys.argv[2:])
    answer(
        {
            "loopback ADD": loopback.add,
            "loopback CHECK": loopback.check,
            "loopback DEL": loopback.delete,
            "plain ADD": floor.add,
            "plain CHECK": floor.check,
            "plain DEL": floor.delete,
            "masqueraded ADD": floor.add_masqueraded,
            "masqueraded CHECK": floor.check_masqueraded,
            "masqueraded DEL": floor.delete_masqueraded,
            "crowd ADD": crowd.add,
            "crowd CHECK": crowd.check,
            "crowd DEL": crowd.delete,
        }
    )


if __name__ == "__main__":
    main()

"""What the judge is told about the kernel's state.

host        v0 (veth, alias) · br0 (bridge) · lo
netns blue  eth0, v0's peer
"""

import os
import socket

import pytest

from cnisandbox.monitor.world import KernelWorld, link_request
from cnisandbox.netlink.codec import CodecError
from cnisandbox.netlink.datagram import NETLINK_ROUTE, encode_datagram
from cnisandbox.netlink.message import NLM_F_REQUEST, Message
from cnisandbox.policy.judge import LinkFacts
from tests.world import World

GETLINK = 18
LONG = "a-name-longer-than-15-bytes"


def kernel_world() -> KernelWorld:
    def open_socket(_netns: str, protocol: int) -> int:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).detach()

    return KernelWorld(open_socket, {"host": -1}, "eth0", lambda _: None)


@pytest.mark.parametrize(("ifindex", "ifname"), [(7, ""), (7, "lo"), (0, "eth0"), (0, "a" * 15)])
def test_a_look_is_written_as_the_codec_writes_it(ifindex: int, ifname: str) -> None:
    header = {"family": 0, "type": 0, "ifindex": ifindex, "flags": 0, "change": 0}
    attributes = {"ext_mask": 8} if ifindex else {"ext_mask": 8, "ifname": ifname}
    request = Message(GETLINK, NLM_F_REQUEST, 9, 0, header, attributes)
    assert link_request(9, ifindex, ifname) == encode_datagram(NETLINK_ROUTE, [request])


@pytest.mark.parametrize("ifname", ["a" * 128, "a\0b"])
def test_nothing_is_asked_about_what_is_no_name(ifname: str) -> None:
    with pytest.raises(CodecError):
        link_request(1, 0, ifname)


def test_a_link_is_found_by_number_and_by_every_name(world: World) -> None:
    world.netns("blue")
    world.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "blue"])
    world.run(["ip", "link", "set", "v0", "alias", "marked"])
    world.run(["ip", "link", "property", "add", "dev", "v0", "altname", "short", "altname", LONG])
    world.run(["ip", "link", "add", "br0", "type", "bridge"])
    index = {name: int(world.link(name)["ifindex"]) for name in ("lo", "br0", "v0")}
    peer = int(world.link("eth0", netns="blue")["ifindex"])

    def facts() -> list[LinkFacts | None]:
        kernel = kernel_world()
        wanted = [(index["v0"], ""), (0, "v0"), (0, "short"), (0, LONG), (0, "br0"), (index["lo"], ""), (0, "eth0")]
        return [kernel.link("host", *which) for which in (*wanted, (99, ""))]

    pair = LinkFacts(index["v0"], "v0", "veth", peer, 0, "marked")
    bridge, loopback = LinkFacts(index["br0"], "br0", "bridge", 0, None), LinkFacts(index["lo"], "lo", "", 0, None)
    assert world.call(facts) == [pair, pair, pair, pair, bridge, loopback, None, None]


def test_answers_of_other_processes_are_no_answers(world: World) -> None:
    """Any process of the netns may send to our port, with the number of our next question."""

    def facts() -> LinkFacts | None:
        opened: list[socket.socket] = []

        def open_socket(_netns: str, protocol: int) -> int:
            opened.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))
            return os.dup(opened[0].fileno())

        kernel = KernelWorld(open_socket, {"host": -1}, "eth0", lambda _: None)
        assert kernel.link("host", 0, "lo") == LinkFacts(1, "lo", "", 0, None)
        forger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        header = {"family": 0, "type": 0, "ifindex": 1, "flags": 0, "change": 0}
        answer = Message(16, 0, 2, 0, header, {"ifname": "forged"})
        forger.sendto(encode_datagram(NETLINK_ROUTE, [answer]), (opened[0].getsockname()[0], 0))
        return kernel.link("host", 0, "lo")

    assert world.call(facts) == LinkFacts(1, "lo", "", 0, None)

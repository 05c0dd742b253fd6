"""A hostile engine at level mediated: what the gates of our own plugins let it do.

    test (as the engine) ── frames ──▶ gate in the host's netns        victim (bridge) · uplink (bridge) · eth9 (veth)
                         ── frames ──▶ gate in the container's netns   lo · eth0, whose peer vethh is

The gates are the real ones, forked and confined as the entry does it, for the plugin `bridge`, with the names that a
netconf would give. Each message is also sent as root, without a gate, where the kernel does what it says.
"""

import errno
import json
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cnisandbox.boundary import namespaces
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, network_worker, service_user, spawn
from cnisandbox.boundary.wire import Channel
from cnisandbox.monitor import gate
from cnisandbox.monitor.client import NFTABLES, WRITE_SYSCTL, Gate, GateSocket
from tests.escape.hostile_plugin import (
    CREATE,
    DELLINK,
    EXCL,
    IFNAME,
    LINK,
    LINK_NETNSID,
    MTU,
    NET_NS_FD,
    NET_NS_PID,
    NEWLINK,
    SETLINK,
    TARGET_NETNSID,
    answer_to,
    attribute,
    info,
    link,
    number,
    peer,
    text,
)
from tests.world import World

NAMES = {"bridge": ["cni0"], "host": ["veth11111111"]}
MAKE = CREATE | EXCL


class _Endpoint:
    """A gate's socket with the two methods that `answer_to` uses."""

    def __init__(self, through: Gate) -> None:
        self._socket = GateSocket(through, NETLINK_ROUTE)

    def send(self, data: bytes) -> int:
        return self._socket.sendto(data, (0, 0))

    def recv(self, size: int) -> bytes:
        return self._socket.recvmsg(size)[0]


def prepare(world: World) -> None:
    for name in ("cni0", "victim", "uplink"):
        world.run(["ip", "link", "add", name, "type", "bridge"])
    world.netns("blue")
    world.run(["ip", "link", "add", "vethh", "type", "veth", "peer", "name", "eth0", "netns", "blue"])


@contextmanager
def gate_of(role: str) -> Iterator[Gate]:
    """Fork a worker and have it be a gate."""
    netns = namespaces.open_netns("/run/netns/blue")
    protocols = (NETLINK_ROUTE, NETLINK_NETFILTER) if role == "host worker" else (NETLINK_ROUTE,)
    wanted = network_worker(role, Level.HARDENED, service_user(), None if role == "host worker" else netns, protocols)

    def become(channel: Channel, names: dict[str, list[str]]) -> Any:
        gate.serve(channel, role, "bridge", "eth0", names)

    given = netns.fd if role == "host worker" else None
    inode = None if role == "host worker" else netns.inode
    worker = spawn(wanted, namespaces.inodes(), given, inode, None, "", become)
    found: list[Gate] = []

    def connect(channel: Channel) -> Callable[..., Any]:
        found.append(Gate(channel))
        return lambda *_: None

    worker.become_gate(NAMES, connect)
    try:
        yield found[0]
    finally:
        worker.close()
        namespaces.close_netns(netns)


def outcome(role: str, message: bytes, is_through_gate: bool) -> int:
    """Send a message through a gate, or as root; returns the errno of the kernel's answer."""
    if is_through_gate:
        with gate_of(role) as through:
            try:
                return answer_to(_Endpoint(through), message)  # type: ignore[arg-type]
            except OSError as error:
                return error.errno or errno.EIO
    if role != "host worker":
        netns = namespaces.open_netns("/run/netns/blue")
        namespaces.enter_netns(netns.fd)
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    endpoint.bind((0, 0))
    return answer_to(endpoint, message)


HOST, CONTAINER = "host worker", "container worker"
NSID = attribute(TARGET_NETNSID, number(0))
MESSAGES: dict[str, Callable[[dict[str, int]], tuple[str, bytes]]] = {
    "make-a-link-of-the-host-by-nsid": lambda _: (
        CONTAINER,
        link(NEWLINK, NSID, attribute(IFNAME, text("xbr0")), info("bridge"), flags=MAKE),
    ),
    "delete-a-link-of-the-host-by-nsid": lambda at: (CONTAINER, link(DELLINK, NSID, ifindex=at["victim"])),
    "stack-a-macvlan-on-the-uplink": lambda at: (
        CONTAINER,
        link(
            NEWLINK,
            attribute(IFNAME, text("xmac0")),
            attribute(LINK, number(at["uplink"])),
            attribute(LINK_NETNSID, number(0)),
            info("macvlan"),
            flags=MAKE,
        ),
    ),
    "move-the-attachment-by-a-pid": lambda at: (
        CONTAINER,
        link(SETLINK, attribute(NET_NS_PID, number(at["pid"])), ifindex=at["eth0"]),
    ),
    "delete-a-bridge-that-is-not-named": lambda at: (HOST, link(DELLINK, ifindex=at["victim"])),
    "delete-a-link-of-another-by-name": lambda _: (HOST, link(DELLINK, attribute(IFNAME, text("vethh")))),
    "set-a-link-of-another": lambda at: (HOST, link(SETLINK, attribute(MTU, number(1300)), ifindex=at["uplink"])),
    "make-a-link-of-another-name": lambda _: (
        HOST,
        link(NEWLINK, attribute(IFNAME, text("xbr1")), info("bridge"), flags=MAKE),
    ),
    "make-a-link-of-another-kind": lambda _: (
        HOST,
        link(NEWLINK, attribute(IFNAME, text("veth11111111")), info("ifb"), flags=MAKE),
    ),
    "make-a-peer-of-another-name": lambda _: (
        HOST,
        link(
            NEWLINK,
            attribute(IFNAME, text("veth11111111")),
            info("veth", peer(attribute(IFNAME, text("xpeer0")))),
            flags=MAKE,
        ),
    ),
    "hide-one-behind-a-permitted-one": lambda at: (
        HOST,
        link(SETLINK, attribute(MTU, number(1400)), ifindex=at["cni0"]) + link(DELLINK, ifindex=at["victim"]),
    ),
}


def state_of(world: World) -> list[Any]:
    links = [world.ip("link", netns=netns) for netns in (None, "blue")]
    return [[{key: item[key] for key in ("ifname", "mtu", "flags")} for item in of] for of in links]


def indexes(world: World) -> dict[str, int]:
    found = {name: int(world.link(name)["ifindex"]) for name in ("cni0", "victim", "uplink")}
    return {**found, "eth0": int(world.link("eth0", netns="blue")["ifindex"]), "pid": world.pid}


@pytest.mark.parametrize("name", MESSAGES)
def test_cannot(world: World, name: str) -> None:
    prepare(world)
    role, message = MESSAGES[name](indexes(world))
    before = state_of(world)
    assert world.call(outcome, role, message, True) == errno.EPERM
    assert state_of(world) == before


@pytest.mark.parametrize("name", MESSAGES)
def test_root_without_a_gate_can(world: World, name: str) -> None:
    """The control."""
    prepare(world)
    role, message = MESSAGES[name](indexes(world))
    before = state_of(world)
    assert world.call(outcome, role, message, False) == 0
    assert state_of(world) != before


def test_what_the_plugin_needs_passes(world: World) -> None:
    prepare(world)
    assert (
        world.call(outcome, HOST, link(SETLINK, attribute(MTU, number(1400)), ifindex=indexes(world)["cni0"]), True)
        == 0
    )
    assert world.link("cni0")["mtu"] == 1400


def test_a_descriptor_of_anything_else_names_no_netns(world: World) -> None:
    prepare(world)
    for descriptor in (0, 1, 4, 5, 6, -1):
        other = peer(attribute(IFNAME, text("eth7")), attribute(NET_NS_FD, struct.pack("=i", descriptor)))
        message = link(NEWLINK, attribute(IFNAME, text("veth11111111")), info("veth", other), flags=MAKE)
        assert world.call(outcome, HOST, message, True) == errno.EPERM


def ask(role: str, *request: object) -> int:
    """Ask a gate for something; returns the errno of its refusal, 0 when it does it, -1 when it ends instead."""
    from cnisandbox.errors import BoundaryViolation

    with gate_of(role) as through:
        try:
            through.ask(*request)
        except OSError as error:
            return error.errno or errno.EIO
        except BoundaryViolation:
            return -1
    return 0


def commands(*items: dict[str, Any]) -> str:
    return json.dumps({"nftables": list(items)})


def test_settings_of_others_are_refused(world: World) -> None:
    prepare(world)
    assert world.call(ask, HOST, WRITE_SYSCTL, "ipv6/conf/uplink/accept_ra", b"0") == errno.EACCES
    assert world.call(ask, HOST, WRITE_SYSCTL, "../kernel/core_pattern", b"x") == errno.EACCES
    assert world.call(ask, HOST, WRITE_SYSCTL, "ipv4/ip_forward", b"1") == 0


TABLE = {"family": "ip", "name": "filter"}


@pytest.mark.parametrize(
    "items",
    [
        [{"flush": {"ruleset": None}}],
        [{"add": {"table": TABLE}}],
        [{"delete": {"table": {"family": "ip", "name": "nat"}}}],
        [{"flush": {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING"}}}],
        [{"add": {"table": {"family": "inet", "name": "cnisandbox_masquerade"}}}, {"add": {"table": TABLE}}],
    ],
)
def test_tables_of_others_are_refused(world: World, items: list[dict[str, Any]]) -> None:
    prepare(world)
    assert world.call(ask, HOST, NFTABLES, commands(*items)) == errno.EPERM
    assert world.nft_ruleset() == [] or "filter" not in str(world.nft_ruleset())


def test_a_rule_of_others_in_a_shared_chain_stays(world: World) -> None:
    prepare(world)
    world.run(["nft", "add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }"])
    world.run(["nft", "add chain ip nat CNI-1; add rule ip nat POSTROUTING masquerade"])
    world.run(["nft", "add rule ip nat POSTROUTING ip saddr 10.0.0.1 jump CNI-1"])
    rules = [item["rule"] for item in world.nft_ruleset() if "rule" in item]
    others, ours = (rule["handle"] for rule in rules if rule["chain"] == "POSTROUTING")
    at = {"family": "ip", "table": "nat", "chain": "POSTROUTING"}
    assert world.call(ask, HOST, NFTABLES, commands({"delete": {"rule": {**at, "handle": others}}})) == errno.EPERM
    assert world.call(ask, HOST, NFTABLES, commands({"delete": {"rule": {**at, "handle": ours}}})) == 0
    left = [item["rule"]["handle"] for item in world.nft_ruleset() if "rule" in item]
    assert left == [others]


def test_tables_of_ours_are_made(world: World) -> None:
    """The control."""
    prepare(world)
    table = {"family": "inet", "name": "cnisandbox_masquerade"}
    assert world.call(ask, HOST, NFTABLES, commands({"add": {"table": table}})) == 0
    assert "cnisandbox_masquerade" in str(world.nft_ruleset())


@pytest.mark.parametrize("request_", [[], [99], ["exec", "id"], [1, 0], [1, "0", b""], [5, 5], [2, 12]])
def test_a_breach_of_the_protocol_ends_the_gate(world: World, request_: list[object]) -> None:
    prepare(world)
    assert world.call(ask, HOST, *request_) == -1


def test_the_containers_gate_speaks_no_nftables(world: World) -> None:
    prepare(world)
    assert world.call(ask, CONTAINER, NFTABLES, commands()) == -1

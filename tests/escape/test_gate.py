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
from unittest import mock

import pytest

from cnisandbox import late  # noqa: F401 - before the drop, as without a bundle
from cnisandbox.audit.log import AuditLog
from cnisandbox.boundary import namespaces
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, network_worker, service_user, spawn
from cnisandbox.boundary.wire import Channel
from cnisandbox.errors import BoundaryViolation
from cnisandbox.monitor import gate
from cnisandbox.monitor.client import CHANGE_SYSCTL, NFTABLES, OPEN, SEND, WRITE_SYSCTL, Gate, GateSocket
from cnisandbox.netlink.links import delete_link_by_index
from cnisandbox.policy.judge import Verdict
from tests.escape.hostile_plugin import (
    CREATE,
    DELLINK,
    EXCL,
    GETLINK,
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
ADDRESS, ALIAS = 1, 20
MAC = bytes.fromhex("020000000005")


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
def gate_of(role: str, names: dict[str, list[str]] = NAMES) -> Iterator[Gate]:
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

    worker.become_gate(names, connect)
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
        link(SETLINK, attribute(ADDRESS, MAC), ifindex=at["cni0"]) + link(DELLINK, ifindex=at["victim"]),
    ),
    "shrink-the-bridge-that-the-netconf-names": lambda at: (
        HOST,
        link(SETLINK, attribute(MTU, number(1400)), ifindex=at["cni0"]),
    ),
    "delete-the-bridge-that-the-netconf-names": lambda at: (HOST, link(DELLINK, ifindex=at["cni0"])),
    "mark-the-bridge-that-the-netconf-names-as-ours": lambda at: (
        HOST,
        link(SETLINK, attribute(ALIAS, text("cnisandbox network x")), ifindex=at["cni0"]),
    ),
}


def state_of(world: World) -> list[Any]:
    links = [world.ip("link", netns=netns) for netns in (None, "blue")]
    keys = ("ifname", "mtu", "flags", "ifalias")
    return [[{key: item.get(key) for key in keys} for item in of] for of in links]


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
    message = link(SETLINK, attribute(ADDRESS, MAC), ifindex=indexes(world)["cni0"])
    assert world.call(outcome, HOST, message, True) == 0
    assert world.link("cni0")["address"] == "02:00:00:00:00:05"


def test_a_link_that_is_gone_is_gone_and_not_forbidden(world: World) -> None:
    prepare(world)
    gone = indexes(world)["victim"]
    world.run(["ip", "link", "delete", "victim"])
    assert world.call(outcome, HOST, link(DELLINK, ifindex=gone), True) == errno.ENODEV


def test_a_descriptor_of_anything_else_names_no_netns(world: World) -> None:
    prepare(world)
    for descriptor in (0, 1, 4, 5, 6, -1):
        other = peer(attribute(IFNAME, text("eth7")), attribute(NET_NS_FD, struct.pack("=i", descriptor)))
        message = link(NEWLINK, attribute(IFNAME, text("veth11111111")), info("veth", other), flags=MAKE)
        assert world.call(outcome, HOST, message, True) == errno.EPERM


TWO_BRIDGES = {"bridge": ["cni0", "cni1"], "host": []}
PEER = peer(attribute(IFNAME, text("eth0")), attribute(NET_NS_FD, number(3)))
MAKE_CNI1 = link(NEWLINK, attribute(IFNAME, text("cni1")), info("bridge"), flags=MAKE)


def answers_to_deletion_behind(message: bytes, ifindex: int) -> list[int]:
    """Send a datagram through a gate, then the deletion of cni1, which has that number if it is not a new one."""
    with gate_of(HOST, TWO_BRIDGES) as through:
        endpoint: Any = _Endpoint(through)
        first = answer_to(endpoint, message)
        return [first, answer_to(endpoint, link(DELLINK, ifindex=ifindex or socket.if_nametoindex("cni1")))]


def test_a_link_that_was_made_can_be_deleted(world: World) -> None:
    """The control of the next one."""
    prepare(world)
    assert world.call(answers_to_deletion_behind, MAKE_CNI1, 0) == [0, 0]
    assert "cni1" not in world.ifnames()


def test_a_link_that_is_given_the_name_of_one_to_be_made_was_not_made(world: World) -> None:
    prepare(world)
    ifindex = indexes(world)["cni0"]
    rename = link(SETLINK, attribute(IFNAME, text("cni1")), ifindex=ifindex)
    assert world.call(answers_to_deletion_behind, rename + MAKE_CNI1, ifindex) == [0, errno.EPERM]
    assert "cni1" in world.ifnames()


def outcomes_of_deletion(makes_it_first: bool) -> list[int]:
    """Ask a gate in this process for a link, which somebody else may make when the judge has looked; then delete it."""
    served = gate.Gatekeeper(HOST, "bridge", "eth0", TWO_BRIDGES, AuditLog(-1, "bridge", "", "eth0"))
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    deliver = gate.deliver

    def deliver_late(fd: int, verdict: Verdict, effective: int) -> None:
        if makes_it_first:
            answer_to(endpoint, MAKE_CNI1)
        deliver(fd, verdict, effective)

    def outcome_of(message: bytes) -> int:
        _, answers = served.take([SEND, NETLINK_ROUTE, message, 0])
        assert isinstance(answers, bytes)
        return -int(struct.unpack_from("=i", answers, 16)[0])

    served.take([OPEN, NETLINK_ROUTE, None, 0])
    with mock.patch.object(gate, "deliver", deliver_late):
        first = outcome_of(MAKE_CNI1)
    return [first, outcome_of(link(DELLINK, ifindex=socket.if_nametoindex("cni1")))]


@pytest.mark.parametrize(("makes_it_first", "expected"), [(False, [0, 0]), (True, [errno.EEXIST, errno.EPERM])])
def test_a_link_that_somebody_else_has_made_meanwhile_was_not_made(
    world: World, makes_it_first: bool, expected: list[int]
) -> None:
    prepare(world)
    assert world.call(outcomes_of_deletion, makes_it_first) == expected


def test_no_link_is_made_while_answers_are_unread(world: World) -> None:
    """There is no room for the kernel to say that it has failed; and what is there could be taken for its answer."""
    prepare(world)
    looks = link(GETLINK, attribute(IFNAME, text("cni0"))) * 100
    too_many = [OPEN, NETLINK_ROUTE, None, 0, SEND, NETLINK_ROUTE, looks, errno.ENOBUFS]
    make = link(NEWLINK, attribute(IFNAME, text("veth11111111")), info("veth", PEER), flags=MAKE)
    outcomes = world.call(outcomes_of, HOST, [*too_many, SEND, NETLINK_ROUTE, make, 0])
    assert outcomes[2:] == [errno.ENOBUFS, "No buffer space available", errno.EBUSY, "answers have not been read"]


def ask(role: str, operation: int, where: object, data: bytes | None = None) -> int:
    """Ask a gate for something; returns the errno of its refusal, 0 when it does it, -1 when it ends instead."""
    with gate_of(role) as through:
        try:
            through.ask(operation, where, data)
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


def test_what_stands_twice_in_a_command_is_what_was_judged(world: World) -> None:
    prepare(world)
    ours, others = '{"family": "inet", "name": "cnisandbox_masquerade"}', '{"family": "ip", "name": "filter"}'
    for first, second, expected in ((ours, others, errno.EPERM), (others, ours, 0)):
        text = f'{{"nftables": [{{"add": {{"table": {first}, "table": {second}}}}}]}}'
        assert world.call(ask, HOST, NFTABLES, text) == expected
    assert [item["table"]["name"] for item in world.nft_ruleset() if "table" in item] == ["cnisandbox_masquerade"]


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


MASQUERADE = {"family": "inet", "table": "cnisandbox_masquerade"}
SKELETON = [
    {"add": {"table": {"family": "inet", "name": "cnisandbox_masquerade"}}},
    {"add": {"chain": {**MASQUERADE, "name": "masq"}}},
    {"add": {"chain": {**MASQUERADE, "name": "cni-1"}}},
    {
        "add": {
            "chain": {
                **MASQUERADE,
                "name": "postrouting",
                "type": "nat",
                "hook": "postrouting",
                "prio": 100,
                "policy": "accept",
            }
        }
    },
]


def compared(field: str, right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"payload": {"protocol": "ip", "field": field}}, "right": right}}


NET = {"prefix": {"addr": "10.0.0.0", "len": 8}}
GOES = {"goto": {"target": "masq"}}
ALL = {"prefix": {"addr": "0.0.0.0", "len": 0}}


@pytest.mark.parametrize(
    ("chain", "body", "expected"),
    [
        ("masq", [{"masquerade": None}], 0),
        ("cni-1", [compared("saddr", "10.0.0.2"), compared("daddr", NET, "!="), GOES], 0),
        ("postrouting", [{"masquerade": None}], errno.EPERM),
        ("postrouting", [compared("saddr", "10.0.0.2"), GOES], errno.EPERM),
        ("postrouting", [{"drop": None}], errno.EPERM),
        ("masq", [{"drop": None}], errno.EPERM),
        ("cni-1", [{"masquerade": None}], errno.EPERM),
        ("cni-1", [GOES], errno.EPERM),
        ("cni-1", [compared("saddr", ALL), compared("daddr", NET, "!="), GOES], errno.EPERM),
        (
            "cni-1",
            [compared("saddr", {"range": ["0.0.0.0", "9.9.9.9"]}), compared("daddr", NET, "!="), GOES],
            errno.EPERM,
        ),
        ("other", [{"masquerade": None}], errno.EPERM),
    ],
)
def test_only_rules_as_our_plugin_writes_them_stand_in_the_way_of_all_packets(
    world: World, chain: str, body: list[dict[str, Any]], expected: int
) -> None:
    prepare(world)
    assert world.call(ask, HOST, NFTABLES, commands(*SKELETON)) == 0
    rule = {"add": {"rule": {**MASQUERADE, "chain": chain, "expr": body}}}
    assert world.call(ask, HOST, NFTABLES, commands(rule)) == expected
    assert sum("rule" in item for item in world.nft_ruleset()) == (expected == 0)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("iifname", "veth11111111", 0),
        ("iifname", "veth*", errno.EPERM),
        ("iifname", "", errno.EPERM),
        ("iifname", {"set": ["veth1", "veth2"]}, errno.EPERM),
        ("oifname", "veth11111111", errno.EPERM),
        ("", "", errno.EPERM),
    ],
)
def test_a_spoof_check_is_about_one_port(world: World, left: str, right: object, expected: int) -> None:
    prepare(world)
    base = {"type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}
    made = [
        {"add": {"table": {"family": "bridge", "name": "nat"}}},
        {"add": {"chain": {"family": "bridge", "table": "nat", "name": "PREROUTING", **base}}},
        {"add": {"chain": {"family": "bridge", "table": "nat", "name": "cni-br-iface-1"}}},
    ]
    assert world.call(ask, HOST, NFTABLES, commands(*made)) == 0
    jump = {"jump": {"target": "cni-br-iface-1"}}
    body = [{"match": {"op": "==", "left": {"meta": {"key": left}}, "right": right}}, jump] if left else [jump]
    rule = {"add": {"rule": {"family": "bridge", "table": "nat", "chain": "PREROUTING", "expr": body}}}
    assert world.call(ask, HOST, NFTABLES, commands(rule)) == expected


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


@pytest.mark.parametrize(
    "step",
    [
        [99, 0, None],
        ["exec", "id", None],
        [1, 0, None],
        [1, 0, "x"],
        [1, "0", b""],
        [3, "ipv4/ip_forward", b""],
        [5, 5, None],
        [5, "{}", b""],
        [2, 12, None],
        [6, "x", None],
        [6, 0, b"x"],
    ],
)
def test_a_breach_of_the_protocol_ends_the_gate(world: World, step: list[object]) -> None:
    prepare(world)
    assert world.call(outcomes_of, HOST, [*step, 0]) is None


def outcomes_of(role: str, request: object) -> object:
    """Send a request as it is; returns the answer, or None if the gate has ended."""
    with gate_of(role) as through:
        through._channel.send(request)
        try:
            return through._channel.receive()
        except BoundaryViolation:
            return None


FOREIGN, FORWARDING = [WRITE_SYSCTL, "ipv6/conf/victim/accept_ra", b"0"], "ipv4/ip_forward"
FORWARD = [WRITE_SYSCTL, FORWARDING, b"1"]


@pytest.mark.parametrize("operation", [WRITE_SYSCTL, CHANGE_SYSCTL])
def test_each_step_of_a_request_is_judged(world: World, operation: int) -> None:
    prepare(world)
    foreign = [operation, *FOREIGN[1:]]
    refused = [errno.EACCES, "net/ipv6/conf/victim/accept_ra: no permit for it"]
    assert world.call(outcomes_of, HOST, [*FORWARD, 0, *foreign, 0]) == [0, 1, *refused]
    assert world.run(["cat", "/proc/sys/net/ipv6/conf/victim/accept_ra"]).stdout == b"1\n"


@pytest.mark.parametrize(("tolerated", "count"), [(0, 1), (errno.ENOENT, 1), (errno.EACCES, 2), ([errno.EACCES], 1)])
def test_step_behind_one_that_failed_is_taken_only_if_that_was_said(
    world: World, tolerated: object, count: int
) -> None:
    prepare(world)
    outcomes = world.call(outcomes_of, HOST, [*FOREIGN, tolerated, *FORWARD, 0])
    assert len(outcomes) == 2 * count
    assert world.run(["cat", f"/proc/sys/net/{FORWARDING}"]).stdout == b"%d\n" % (count - 1)


def test_setting_that_has_the_value_is_not_written(world: World) -> None:
    prepare(world)
    outcomes = world.call(outcomes_of, HOST, [CHANGE_SYSCTL, FORWARDING, b" 0 ", 0])
    assert outcomes == [0, 3]
    assert world.call(outcomes_of, HOST, [CHANGE_SYSCTL, FORWARDING, b"1", 0]) == [0, 1]
    assert world.run(["cat", f"/proc/sys/net/{FORWARDING}"]).stdout == b"1\n"


@pytest.mark.parametrize(
    "request_",
    [None, "x", {}, FORWARD, [[*FORWARD, 0]], [*FORWARD, 0, 0], [*FORWARD, 0, "x"], [0, *FORWARD], [FORWARD] * 4],
)
def test_a_request_that_is_no_list_of_steps_ends_the_gate(world: World, request_: object) -> None:
    prepare(world)
    assert world.call(outcomes_of, HOST, request_) is None


def test_the_containers_gate_speaks_no_nftables(world: World) -> None:
    prepare(world)
    assert world.call(ask, CONTAINER, NFTABLES, commands()) == -1


OURS = {"family": "inet", "name": "cnisandbox_masquerade"}
NAT = {"family": "ip", "table": "nat"}


def chain_of_ours(**base: object) -> dict[str, Any]:
    return {"add": {"chain": {"family": "inet", "table": OURS["name"], "name": "x", **base}}}


def rule_of_ours(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"add": {"rule": {"family": "inet", "table": OURS["name"], "chain": "x", "expr": list(statements)}}}


HOSTILE_COMMANDS: dict[str, list[dict[str, Any]]] = {
    "drop-all-that-comes-in": [chain_of_ours(type="filter", hook="input", prio=-300, policy="drop")],
    "send-the-hosts-traffic-elsewhere": [
        chain_of_ours(type="nat", hook="prerouting", prio=-100, policy="accept"),
        rule_of_ours({"dnat": {"family": "ip", "addr": "192.0.2.1"}}),
    ],
    "drop-in-a-chain-of-ours": [chain_of_ours(), rule_of_ours({"drop": None})],
    "base-chain-under-a-name-of-ours": [
        {"add": {"chain": {**NAT, "name": "CNI-y", "type": "filter", "hook": "output", "prio": 0, "policy": "drop"}}}
    ],
    "jump-from-a-chain-of-another": [
        {"add": {"chain": {**NAT, "name": "CNI-x"}}},
        {"add": {"rule": {**NAT, "chain": "CNI-x", "expr": [{"dnat": {"addr": "192.0.2.1"}}]}}},
        {"insert": {"rule": {**NAT, "chain": "OTHER", "expr": [{"jump": {"target": "CNI-x"}}]}}},
    ],
}


def add_rules_of_another(world: World, statement: str) -> int:
    """Make a base chain of somebody else's, with one rule; returns the number of the rule."""
    script = "add table ip nat; add chain ip nat CNI-x;"
    script += " add chain ip nat OTHER { type nat hook prerouting priority -100; };"
    world.run(["nft", f"{script} add rule ip nat OTHER tcp dport 443 {statement}"])
    (rule,) = [entry["rule"] for entry in world.nft_ruleset() if "rule" in entry]
    return int(rule["handle"])


@pytest.mark.parametrize("name", HOSTILE_COMMANDS)
def test_rules_for_the_traffic_of_others_are_refused(world: World, name: str) -> None:
    prepare(world)
    add_rules_of_another(world, "dnat to 192.0.2.7")
    world.run(["nft", "add table inet cnisandbox_masquerade"])
    before = world.nft_ruleset()
    assert world.call(ask, HOST, NFTABLES, commands(*HOSTILE_COMMANDS[name])) == errno.EPERM
    assert world.nft_ruleset() == before


@pytest.mark.parametrize("name", HOSTILE_COMMANDS)
def test_root_can_make_them(world: World, name: str) -> None:
    """The control."""
    prepare(world)
    add_rules_of_another(world, "dnat to 192.0.2.7")
    world.run(["nft", "add table inet cnisandbox_masquerade"])
    before = world.nft_ruleset()
    world.run(["nft", "-j", "-f", "-"], stdin=commands(*HOSTILE_COMMANDS[name]).encode())
    assert world.nft_ruleset() != before


@pytest.mark.parametrize(("statement", "expected"), [("dnat to 192.0.2.7", errno.EPERM), ("jump CNI-x", 0)])
def test_rule_of_another_is_deleted_only_if_it_jumps_to_a_chain_of_ours(
    world: World, statement: str, expected: int
) -> None:
    prepare(world)
    handle = add_rules_of_another(world, statement)
    delete = commands({"delete": {"rule": {**NAT, "chain": "OTHER", "handle": handle}}})
    assert world.call(ask, HOST, NFTABLES, delete) == expected
    assert any("rule" in entry for entry in world.nft_ruleset()) == bool(expected)


def test_rule_that_is_not_there_is_not_there(world: World) -> None:
    prepare(world)
    delete = {"delete": {"rule": {**NAT, "chain": "OTHER", "handle": add_rules_of_another(world, "accept") + 9}}}
    assert world.call(ask, HOST, NFTABLES, commands(delete)) == errno.ENOENT


def ask_with_the_name(name: str) -> int:
    NAMES["bridge"].append(name)  # in a child of the test
    return ask(HOST, WRITE_SYSCTL, f"ipv6/conf/{name}/accept_ra", b"0")


@pytest.mark.parametrize(("name", "expected"), [("all", errno.EACCES), ("default", errno.EACCES), ("uplink", 0)])
def test_name_that_stands_for_every_link_is_no_name(world: World, name: str, expected: int) -> None:
    prepare(world)
    assert world.call(ask_with_the_name, name) == expected


def delete_before_it_is_a_gate(ifindex: int, is_gate_only: bool) -> bool:
    """Ask the host's worker for a function first; returns whether it was run."""
    wanted = network_worker(HOST, Level.HARDENED, service_user(), None, (NETLINK_ROUTE,))

    def become(channel: Channel, names: dict[str, list[str]]) -> Any:
        gate.serve(channel, HOST, "bridge", "eth0", names)

    worker = spawn(wanted, namespaces.inodes(), None, None, None, "", become, is_gate_only=is_gate_only)
    try:
        return worker.call(delete_link_by_index, ifindex)
    except BoundaryViolation:
        return False
    finally:
        worker.close()


@pytest.mark.parametrize("is_gate_only", [False, True])
def test_worker_of_a_call_at_mediated_runs_no_function(world: World, is_gate_only: bool) -> None:
    """Where the netconf names the level, its reader may still ask; where the caller does, it may not."""
    prepare(world)
    assert world.call(delete_before_it_is_a_gate, indexes(world)["victim"], is_gate_only) is not is_gate_only
    assert any(item["ifname"] == "victim" for item in world.ip("link")) is is_gate_only

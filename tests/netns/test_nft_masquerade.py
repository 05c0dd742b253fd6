"""Masquerading: what stands in the kernel, what another host sees, and what remains when processes race.

pod 10.1.2.3/24, fd00:1::3/64 ── host .1 / 192.0.2.1, fd00:2::1 ── outside 192.0.2.2, fd00:2::2
                                                                   and, in the pod's subnet, 10.1.2.77, fd00:1::77
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.nft import connection, masquerade, reference
from cnisandbox.nft.masquerade import Owner, add_masquerade, delete_masquerade, gc_masquerade, has_masquerade
from tests.world import World, requires_feature

ADDRESSES = ["10.1.2.3/24", "fd00:1::3/64"]
CNI_BIN = "/usr/lib/cni"
PROCESSES = 16

Chains = dict[str, list[Any]]


def tables(world: World) -> list[str]:
    return [f"{o['table']['family']} {o['table']['name']}" for o in world.nft_ruleset() if "table" in o]


def chains(world: World) -> Chains:
    """Map each chain to the bodies of its rules, in order."""
    found: Chains = {o["chain"]["name"]: [] for o in world.nft_ruleset() if "chain" in o}
    for entry in world.nft_ruleset():
        if "rule" in entry:
            found[entry["rule"]["chain"]].append(entry["rule"]["expr"])
    return found


def attachment(network: str, container_id: str, ifname: str = "eth0") -> str:
    return "cni-" + masquerade._key(network, container_id, ifname)


def owners(world: World) -> dict[str, str]:
    """Map each masqueraded address to the chain that it is pointed at."""
    found = {}
    for entry in world.nft_ruleset():
        for key, verdict in entry.get("map", {}).get("elem", []):
            found[key] = verdict["goto"]["target"]
    return found


# What stands in the kernel


def test_add_makes_the_documented_table(world: World) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    chain = attachment("net", "id1")
    assert world.run(["nft", "list", "ruleset"]).stdout.decode() == (
        f"""table inet cnisandbox_masquerade {{
	map sources4 {{
		type ipv4_addr : verdict
		elements = {{ 10.1.2.3 : goto {chain} }}
	}}

	map sources6 {{
		type ipv6_addr : verdict
		elements = {{ fd00:1::3 : goto {chain} }}
	}}

	chain masq {{
		masquerade
	}}

	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		ip saddr vmap @sources4
		ip6 saddr vmap @sources6
	}}

	chain {chain} {{
		ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 goto masq comment "{chain[4:]}, net: net, if: eth0, id: id1"
		ip6 saddr fd00:1::3 ip6 daddr != fd00:1::/64 goto masq comment "{chain[4:]}, net: net, if: eth0, id: id1"
	}}
}}
"""
    )


def test_what_nft_lists_it_can_read_back(world: World) -> None:
    world.call(add_masquerade, 'n"et', "é" * 200, 'e"th*0', ["10.1.2.3/24", "10.1.2.4/32", "::ffff:10.1.2.5/128"])
    listing = world.run(["nft", "list", "ruleset"]).stdout
    world.run(["nft", "flush", "ruleset"])
    world.run(["nft", "-f", "-"], stdin=listing)
    assert world.run(["nft", "list", "ruleset"]).stdout == listing


def test_delete_leaves_nothing(world: World) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    world.call(delete_masquerade, "net", "id1", "eth0")
    assert tables(world) == []


def test_delete_is_silent_when_there_is_nothing(world: World) -> None:
    world.call(delete_masquerade, "net", "id1", "eth0")
    world.call(delete_masquerade, "net", "id1", "eth0")
    assert tables(world) == []


def test_delete_touches_no_other_attachment(world: World) -> None:
    def work() -> None:
        add_masquerade("net", "id1", "eth0", ["10.1.2.3/24"])
        add_masquerade("net", "id1", "eth1", ["10.1.2.4/24"])
        add_masquerade("other", "id1", "eth0", ["10.1.3.3/24"])
        add_masquerade("net", "id2", "eth0", ["10.1.2.5/24"])
        delete_masquerade("net", "id1", "eth0")

    world.call(work)
    assert owners(world) == {
        "10.1.2.4": attachment("net", "id1", "eth1"),
        "10.1.3.3": attachment("other", "id1"),
        "10.1.2.5": attachment("net", "id2"),
    }
    assert attachment("net", "id1") not in chains(world)


def test_add_twice_is_add_once(world: World) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    before = chains(world), owners(world)
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert (chains(world), owners(world)) == before


def test_add_replaces_what_the_same_attachment_had(world: World) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    world.call(add_masquerade, "net", "id1", "eth0", ["10.1.2.9/16"])
    chain = attachment("net", "id1")
    assert owners(world) == {"10.1.2.9": chain}
    assert [json.dumps(body[1]["match"]["right"]) for body in chains(world)[chain]] == [
        '{"prefix": {"addr": "10.1.0.0", "len": 16}}'
    ]


def test_add_takes_over_the_address_of_a_dead_attachment(world: World) -> None:
    world.call(add_masquerade, "net", "dead", "eth0", ["10.1.2.3/24", "10.1.2.4/24"])
    world.call(add_masquerade, "net", "new", "eth0", ["10.1.2.3/24"])
    assert owners(world) == {"10.1.2.3": attachment("net", "new"), "10.1.2.4": attachment("net", "dead")}
    assert len(chains(world)[attachment("net", "dead")]) == 1
    world.call(add_masquerade, "net", "new2", "eth0", ["10.1.2.4/24"])
    assert attachment("net", "dead") not in chains(world)
    world.call(delete_masquerade, "net", "dead", "eth0")
    assert owners(world) == {"10.1.2.3": attachment("net", "new"), "10.1.2.4": attachment("net", "new2")}


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet cnisandbox_masquerade postrouting",
        "delete chain inet cnisandbox_masquerade postrouting",
        "insert rule inet cnisandbox_masquerade postrouting accept",
    ],
)
def test_add_repairs_what_attachments_share(world: World, damage: str) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    whole = chains(world)["postrouting"]
    world.run(["nft", *damage.split()])
    assert not world.call(has_masquerade, "net", "id1", "eth0", ADDRESSES)
    world.call(add_masquerade, "net", "id2", "eth0", ["10.1.2.9/24"])
    assert chains(world)["postrouting"] == whole
    assert world.call(has_masquerade, "net", "id1", "eth0", ADDRESSES)


@pytest.mark.parametrize(
    "damage",
    [
        "flush map inet cnisandbox_masquerade sources4",
        "flush chain inet cnisandbox_masquerade {chain}",
        "add element inet cnisandbox_masquerade sources4 { 10.9.9.9 : goto {chain} }",
        'add element inet cnisandbox_masquerade sources4 { 10.9.9.9 comment "x" : goto {chain} }',
        "add element inet cnisandbox_masquerade sources4 { 10.9.9.9 : accept }",
        "add rule inet cnisandbox_masquerade {chain} ip saddr 10.0.0.0/8 accept",
    ],
)
def test_delete_copes_with_what_others_have_damaged(world: World, damage: str) -> None:
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    world.run(["nft", damage.replace("{chain}", attachment("net", "id1"))])
    world.call(delete_masquerade, "net", "id1", "eth0")
    assert tables(world) == []


def test_has_is_true_for_exactly_what_add_was_asked_for(world: World) -> None:
    def work() -> list[bool]:
        answers = [has_masquerade("net", "id1", "eth0", ADDRESSES)]
        add_masquerade("net", "id1", "eth0", ADDRESSES)
        add_masquerade("net", "id2", "eth0", ["::ffff:10.1.2.3/128"])
        answers += [
            has_masquerade("net", "id1", "eth0", ADDRESSES),
            has_masquerade("net", "id2", "eth0", ["::ffff:10.1.2.3/128"]),
            has_masquerade("net", "id1", "eth0", ADDRESSES[:1]),
            has_masquerade("net", "id1", "eth0", ["10.1.2.3/25", "fd00:1::3/64"]),
            has_masquerade("net", "id1", "eth1", ADDRESSES),
        ]
        delete_masquerade("net", "id1", "eth0")
        return [*answers, has_masquerade("net", "id1", "eth0", ADDRESSES)]

    assert world.call(work) == [False, True, True, False, False, False, False]


def test_gc_keeps_the_valid_attachments_and_other_networks(world: World) -> None:
    def work() -> None:
        for number in range(4):
            add_masquerade("net", f"id{number}", "eth0", [f"10.1.2.{number}/24"])
        add_masquerade("other", "id1", "eth0", ["10.1.3.1/24"])
        gc_masquerade("net", [Owner("id2", "eth0"), Owner("id3", "eth1"), Owner("unknown", "eth0")])

    world.call(work)
    assert owners(world) == {"10.1.2.2": attachment("net", "id2"), "10.1.3.1": attachment("other", "id1")}


def test_gc_with_an_empty_list_leaves_nothing(world: World) -> None:
    def work() -> None:
        add_masquerade("net", "id1", "eth0", ADDRESSES)
        add_masquerade("net", "id2", "eth0", ["10.1.2.4/24"])
        gc_masquerade("net", [])

    world.call(work)
    assert tables(world) == []


def test_rules_of_others_are_neither_listed_nor_touched(world: World) -> None:
    foreign = "table inet foreign { set s { type ipv4_addr; }; chain c { ip saddr @s drop; }; }"
    world.run(["nft", "-f", "-"], stdin=foreign.replace("; ", "\n").replace("{ ", "{\n").encode())
    listing = world.run(["nft", "list", "ruleset"]).stdout

    def work() -> list[Any]:
        asked: list[Any] = []
        original = connection.run

        def recording_run(commands: list[Any], *args: Any) -> list[Any]:
            asked.extend(command["list"] for command in commands if "list" in command)
            return original(commands, *args)

        connection.run = recording_run  # type: ignore[assignment]
        add_masquerade("net", "id1", "eth0", ADDRESSES)
        delete_masquerade("net", "id1", "eth0")
        return asked

    asked = world.call(work)
    assert asked
    assert all(next(iter(what)) in ("chain", "chains", "map") for what in asked)
    assert not any("foreign" in json.dumps(what) for what in asked)
    assert world.run(["nft", "list", "ruleset"]).stdout == listing


# What another host sees

_SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 4000))
print("ready", flush=True)
print(server.recvfrom(100)[1][0], flush=True)
"""


def connect(world: World) -> None:
    """Lay the wires that the module's docstring draws."""
    world.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"], expect=None)
    for name in ("pod", "outside"):
        world.netns(name)
        world.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"], netns=name, expect=None)
        world.run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name])
        world.run(["ip", "link", "set", name, "up"])
        world.run(["ip", "link", "set", "eth0", "up"], netns=name)
    world.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"])
    for netns, ifname, address in [
        (None, "pod", "10.1.2.1/24"),
        (None, "pod", "fd00:1::1/64"),
        (None, "outside", "192.0.2.1/24"),
        (None, "outside", "fd00:2::1/64"),
        ("pod", "eth0", "10.1.2.3/24"),
        ("pod", "eth0", "fd00:1::3/64"),
        ("outside", "eth0", "192.0.2.2/24"),
        ("outside", "eth0", "fd00:2::2/64"),
        ("outside", "eth0", "10.1.2.77/32"),
        ("outside", "eth0", "fd00:1::77/128"),
    ]:
        nodad = ["nodad"] if ":" in address else []
        world.run(["ip", "address", "add", address, "dev", ifname, *nodad], netns=netns)
    for netns, route in [
        (None, "10.1.2.77 dev outside"),
        (None, "fd00:1::77 dev outside"),
        ("pod", "default via 10.1.2.1"),
        ("pod", "default via fd00:1::1"),
        ("pod", "10.1.2.77 via 10.1.2.1"),
        ("pod", "fd00:1::77 via fd00:1::1"),
    ]:
        family = "-6" if ":" in route else "-4"
        world.run(["ip", family, "route", "add", *route.split()], netns=netns)


def source_seen(world: World, destination: str) -> str:
    """Send a datagram from the pod to `destination` outside, and return the source address that arrives."""
    server = world.popen([sys.executable, "-c", _SERVER, destination], netns="outside")
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    send = (
        "import socket, sys; "
        "socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)"
        ".sendto(b'x', (sys.argv[1], 4000))"
    )
    world.run([sys.executable, "-W", "ignore", "-c", send, destination], netns="pod")
    source = server.stdout.readline().decode().strip()
    server.wait(timeout=5)
    return source


@requires_feature("nft-inet-nat")
@requires_feature("ipv6")
def test_traffic_to_another_subnet_leaves_with_the_address_of_the_host(world: World) -> None:
    connect(world)
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert source_seen(world, "192.0.2.2") == "192.0.2.1"
    assert source_seen(world, "fd00:2::2") == "fd00:2::1"


@requires_feature("nft-inet-nat")
@requires_feature("ipv6")
def test_traffic_inside_the_own_subnet_keeps_its_address(world: World) -> None:
    connect(world)
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert source_seen(world, "10.1.2.77") == "10.1.2.3"
    assert source_seen(world, "fd00:1::77") == "fd00:1::3"


@requires_feature("nft-inet-nat")
def test_traffic_keeps_its_address_after_delete_and_that_of_others_always(world: World) -> None:
    connect(world)
    world.run(["ip", "route", "add", "10.1.2.0/24", "via", "192.0.2.1"], netns="outside")
    world.call(add_masquerade, "net", "other", "eth0", ["10.1.2.4/24"])
    assert source_seen(world, "192.0.2.2") == "10.1.2.3"
    world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert source_seen(world, "192.0.2.2") == "192.0.2.1"
    world.call(delete_masquerade, "net", "id1", "eth0")
    assert source_seen(world, "192.0.2.2") == "10.1.2.3"


# What remains when processes race


def in_parallel(work: Callable[[int], None]) -> None:
    """Run `work(number)` in as many forks as there are PROCESSES; all of them must succeed."""
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(number)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * PROCESSES


def test_parallel_adds_and_deletes_lose_nothing(world: World) -> None:
    def work(number: int) -> None:
        wanted = [f"10.1.{number}.1/16", f"fd00::{number + 1:x}/64"]
        for _ in range(4):
            add_masquerade("net", f"id{number}", "eth0", wanted)
            assert has_masquerade("net", f"id{number}", "eth0", wanted)
            delete_masquerade("net", f"id{number}", "eth0")
            assert not has_masquerade("net", f"id{number}", "eth0", wanted)
        if number % 2:
            add_masquerade("net", f"id{number}", "eth0", wanted)

    world.call(in_parallel, work, timeout=90)
    kept = [number for number in range(PROCESSES) if number % 2]
    assert owners(world) == {f"10.1.{number}.1": attachment("net", f"id{number}") for number in kept} | {
        f"fd00::{number + 1:x}": attachment("net", f"id{number}") for number in kept
    }
    assert set(chains(world)) == {"masq", "postrouting", *(attachment("net", f"id{number}") for number in kept)}


def test_parallel_deletes_of_everything_leave_nothing(world: World) -> None:
    def prepare() -> None:
        for number in range(PROCESSES):
            add_masquerade("net", f"id{number}", "eth0", [f"10.1.{number}.1/16"])

    def work(number: int) -> None:
        delete_masquerade("net", f"id{number}", "eth0")
        delete_masquerade("net", f"id{(number + 1) % PROCESSES}", "eth0")

    world.call(prepare)
    world.call(in_parallel, work, timeout=60)
    assert tables(world) == []


def test_parallel_adds_of_one_address_leave_one_owner(world: World) -> None:
    def work(number: int) -> None:
        add_masquerade("net", f"id{number}", "eth0", ["10.1.2.3/24"])

    world.call(in_parallel, work, timeout=60)
    [(address, owner)] = owners(world).items()
    assert address == "10.1.2.3"
    assert set(chains(world)) == {"masq", "postrouting", owner}
    assert len(chains(world)[owner]) == 1


def interloper(change: Callable[[], None], before: str = "") -> Callable[[], None]:
    """Let another process do `change` between what the next transaction has read and what it sends.

    Args:
        change: What the other process does.
        before: Part of the transaction that is meant; the first one by default.

    Returns:
        A function that asserts that it has happened.
    """
    original = connection.run
    pending = [change]

    def run(commands: list[Any], *args: Any) -> list[Any]:
        if pending and "list" not in commands[0] and before in json.dumps(commands):
            pending.pop()
            child = os.fork()
            if child == 0:
                try:
                    change()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
        return original(commands, *args)

    connection.run = run  # type: ignore[assignment]

    def check() -> None:
        assert not pending, "the other process never ran"

    return check


@pytest.mark.parametrize("kept", [[], ["10.1.2.5/24"]])
def test_a_late_delete_does_not_take_the_address_from_its_new_owner(world: World, kept: list[str]) -> None:
    def work() -> None:
        add_masquerade("net", "old", "eth0", ["10.1.2.3/24", *kept])
        add_masquerade("net", "bystander", "eth0", ["10.1.2.4/24"])
        check = interloper(lambda: add_masquerade("net", "new", "eth0", ["10.1.2.3/24"]))
        delete_masquerade("net", "old", "eth0")
        check()

    world.call(work)
    assert owners(world) == {"10.1.2.3": attachment("net", "new"), "10.1.2.4": attachment("net", "bystander")}
    assert attachment("net", "old") not in chains(world)


@pytest.mark.parametrize("before", ["", '"delete": {"table"'])
def test_the_last_delete_does_not_take_the_table_from_a_new_attachment(world: World, before: str) -> None:
    def work() -> None:
        add_masquerade("net", "old", "eth0", ["10.1.2.3/24"])
        check = interloper(lambda: add_masquerade("net", "new", "eth0", ["10.1.2.4/24"]), before)
        delete_masquerade("net", "old", "eth0")
        check()

    world.call(work)
    assert owners(world) == {"10.1.2.4": attachment("net", "new")}
    assert attachment("net", "old") not in chains(world)


def test_the_last_two_deletes_together_leave_nothing(world: World) -> None:
    def work() -> None:
        add_masquerade("net", "id1", "eth0", ["10.1.2.3/24"])
        add_masquerade("net", "id2", "eth0", ["10.1.2.4/24"])
        check = interloper(lambda: delete_masquerade("net", "id2", "eth0"))
        delete_masquerade("net", "id1", "eth0")
        check()

    world.call(work)
    assert tables(world) == []


def test_add_makes_the_table_again_when_the_last_delete_was_faster(world: World) -> None:
    def work() -> None:
        add_masquerade("net", "old", "eth0", ["10.1.2.3/24"])
        check = interloper(lambda: delete_masquerade("net", "old", "eth0"))
        add_masquerade("net", "new", "eth0", ["10.1.2.4/24"])
        check()

    world.call(work)
    assert world.call(has_masquerade, "net", "new", "eth0", ["10.1.2.4/24"])


def test_two_deletes_of_one_attachment_both_succeed(world: World) -> None:
    def work() -> None:
        add_masquerade("net", "id1", "eth0", ADDRESSES)
        check = interloper(lambda: delete_masquerade("net", "id1", "eth0"))
        delete_masquerade("net", "id1", "eth0")
        check()

    world.call(work)
    assert tables(world) == []


def test_a_refused_add_changes_nothing(world: World) -> None:
    world.run(["nft", "add", "table", "inet", "cnisandbox_masquerade"])
    world.run(["nft", "add", "map", "inet", "cnisandbox_masquerade", "sources4", "{ type ipv4_addr : ipv4_addr; }"])
    listing = world.run(["nft", "list", "ruleset"]).stdout
    with pytest.raises(KernelRefused, match="add masquerade of 'id1' 'eth0' in 'net'"):
        world.call(add_masquerade, "net", "id1", "eth0", ADDRESSES)
    assert world.run(["nft", "list", "ruleset"]).stdout == listing


# What a reference plugin left


def reference_bridge(world: World, verb: str, **keys: Any) -> None:
    netconf = {
        "cniVersion": "0.4.0",
        "name": "net",
        "type": "bridge",
        "bridge": "br0",
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "fd00:1::/64"}]]},
        **keys,
    }
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "id1",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": CNI_BIN,
    }
    world.run([f"{CNI_BIN}/bridge"], stdin=json.dumps(netconf).encode(), env=environment, timeout=30)


@requires_feature("iptables-nft")
@requires_feature("ip6tables-nft")
def test_delete_removes_the_iptables_rules_of_the_reference_plugin(world: World) -> None:
    world.netns("pod")
    reference_bridge(world, "ADD", ipMasq=True)
    chain = reference.iptables_chain("net", "id1")
    nat = [o["chain"] for o in world.nft_ruleset() if "chain" in o]
    assert [c["family"] for c in nat if c["name"] == chain] == ["ip", "ip6"]
    world.run(["iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "10.9.9.9", "-j", "RETURN"])

    world.call(delete_masquerade, "net", "id1", "eth0")

    assert set(chains(world)) == {"POSTROUTING"}
    assert world.run(["iptables-nft", "-t", "nat", "-S"]).stdout.decode().splitlines()[-1] == (
        "-A POSTROUTING -s 10.9.9.9/32 -j RETURN"
    )
    assert len(chains(world)["POSTROUTING"]) == 1


_REFERENCE_NFTABLES = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 masquerade comment "KEY1, net: net, if: eth0, id: id1"
        ip6 saddr fd00::3 ip6 daddr != fd00::/64 masquerade comment "KEY1, net: net, if: eth0, id: id1"
        ip saddr 10.1.2.4 ip daddr != 10.1.2.0/24 masquerade comment "KEY2, net: net, if: eth0, id: id2"
        ip saddr 10.1.3.4 ip daddr != 10.1.3.0/24 masquerade comment "KEY3, net: other, if: eth0, id: id1"
        ip saddr 10.1.4.4 masquerade
    }
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        goto masq_checks
    }
}
"""


def lay_reference_nftables(world: World) -> None:
    rules = _REFERENCE_NFTABLES
    for number, names in enumerate([("net", "id1"), ("net", "id2"), ("other", "id1")], start=1):
        rules = rules.replace(f"KEY{number}", masquerade._key(*names, "eth0"))
    world.run(["nft", "-f", "-"], stdin=rules.encode())


def reference_comments(world: World) -> list[str]:
    rules = [entry["rule"] for entry in world.nft_ruleset() if "rule" in entry]
    return [rule.get("comment", "").partition(", ")[2] for rule in rules if rule["chain"] == "masq_checks"]


def test_delete_removes_the_nftables_rules_of_the_reference_plugin(world: World) -> None:
    lay_reference_nftables(world)
    world.call(delete_masquerade, "net", "id1", "eth0")
    assert reference_comments(world) == ["net: net, if: eth0, id: id2", "net: other, if: eth0, id: id1", ""]


def test_gc_removes_the_nftables_rules_of_the_reference_plugin(world: World) -> None:
    lay_reference_nftables(world)
    world.call(gc_masquerade, "net", [Owner("id1", "eth0")])
    assert reference_comments(world) == [
        "net: net, if: eth0, id: id1",
        "net: net, if: eth0, id: id1",
        "net: other, if: eth0, id: id1",
        "",
    ]

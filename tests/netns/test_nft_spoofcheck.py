"""macspoofchk: the reference plugin's rules to the letter, and the frames that they let pass.

a (02:00:00:00:00:0a) ── veth-a ── br0 ── veth-b ── b
"""

import errno
import json
import os
import socket
import struct
from typing import Any

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink.links import get_link
from cnisandbox.nft.spoofcheck import (
    SpoofcheckJump,
    add_spoofcheck,
    delete_spoofcheck,
    delete_spoofcheck_jumps,
    has_spoofcheck,
    list_spoofcheck_jumps,
)
from tests.netns.test_nft_masquerade import reference_bridge
from tests.world import CLONE_NEWNET, World, requires_feature, setns, wait_until

pytestmark = requires_feature("nft-bridge")

MAC = "02:00:00:00:00:0a"
ETHERTYPE = 0x88B5  # IEEE 802: for local experiments


def objects(world: World) -> list[str]:
    """List the rules and chains of `bridge nat`, without handles, in an order that does not depend on who was first."""
    found = []
    for entry in world.nft_ruleset():
        [(kind, content)] = entry.items()
        if kind in ("chain", "rule") and content["family"] == "bridge":
            content.pop("handle")
            found.append(json.dumps({kind: content}, sort_keys=True))
    return sorted(found)


BASE_ONLY = [
    '{"chain": {"family": "bridge", "hook": "prerouting", "name": "PREROUTING", "policy": "accept", "prio": -300, '
    '"table": "nat", "type": "filter"}}'
]


def test_delete_leaves_what_the_reference_leaves(world: World) -> None:
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    world.call(delete_spoofcheck, "id1", "eth0")
    assert objects(world) == BASE_ONLY
    world.call(delete_spoofcheck, "id1", "eth0")
    assert objects(world) == BASE_ONLY


def test_delete_is_silent_when_there_is_nothing(world: World) -> None:
    world.call(delete_spoofcheck, "id1", "eth0")
    assert world.nft_ruleset()[1:] == []


def test_add_replaces_what_the_same_attachment_had(world: World) -> None:
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    once = objects(world)
    world.call(add_spoofcheck, "id1", "eth0", "veth-old", "02:00:00:00:00:0b")
    assert objects(world) != once
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    assert objects(world) == once


def test_delete_touches_no_other_attachment(world: World) -> None:
    world.call(add_spoofcheck, "id1", "eth1", "veth-b", MAC)
    world.call(add_spoofcheck, "id2", "eth0", "veth-c", MAC)
    others = objects(world)
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    world.call(delete_spoofcheck, "id1", "eth0")
    assert objects(world) == others


def test_has_is_true_for_exactly_what_add_was_asked_for(world: World) -> None:
    def work() -> list[bool]:
        answers = [has_spoofcheck("id1", "eth0", "veth-a", MAC)]
        add_spoofcheck("id1", "eth0", "veth-a", MAC)
        add_spoofcheck("id1", "eth1", "veth-b", MAC)
        answers += [
            has_spoofcheck("id1", "eth0", "veth-a", MAC),
            has_spoofcheck("id1", "eth0", "veth-b", MAC),
            has_spoofcheck("id1", "eth0", "veth-a", "02:00:00:00:00:0b"),
            has_spoofcheck("id2", "eth0", "veth-a", MAC),
        ]
        delete_spoofcheck("id1", "eth0")
        return [*answers, has_spoofcheck("id1", "eth0", "veth-a", MAC)]

    assert world.call(work) == [False, True, False, False, False, False]


def test_a_name_that_is_too_long_is_refused_and_changes_nothing(world: World) -> None:
    with pytest.raises(KernelRefused) as caught:
        world.call(add_spoofcheck, "x" * 300, "eth0", "veth-a", MAC)
    assert caught.value.msg == "add spoof check of '" + "x" * 119 + "... 'eth0': refused"
    assert "name too long" in caught.value.details
    assert objects(world) == []


# A base chain of that name that somebody else has made

MISFITS = {
    "type filter hook input priority -300": "'type filter hook input priority -300'",
    "type filter hook prerouting priority 0": "'type filter hook prerouting priority 0'",
    "": "a chain without hook",
}


@pytest.mark.parametrize("base", MISFITS)
def test_add_fails_where_the_rules_would_have_no_effect(world: World, base: str) -> None:
    world.run(["nft", f"add table bridge nat; add chain bridge nat PREROUTING {{ {base + ';' if base else ''} }}"])
    before = objects(world)
    with pytest.raises(KernelRefused) as caught:
        world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    assert (caught.value.errno, caught.value.msg) == (errno.EEXIST, "add spoof check of 'id1' 'eth0': file exists")
    assert f"chain bridge nat PREROUTING is {MISFITS[base]}, where rules" in caught.value.details
    assert "has to be 'type filter hook prerouting priority -300': rename it" in caught.value.details
    assert objects(world) == before
    world.call(delete_spoofcheck, "id1", "eth0")

    world.run(["nft", "rename", "chain", "bridge", "nat", "PREROUTING", "theirs"])
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    assert world.call(has_spoofcheck, "id1", "eth0", "veth-a", MAC)


@pytest.mark.parametrize("base", MISFITS)
def test_rules_that_no_frame_passes_do_not_count(world: World, base: str) -> None:
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    listing = world.run(["nft", "list", "table", "bridge", "nat"]).stdout.decode()
    [line] = [line for line in listing.splitlines() if "hook" in line]
    moved = listing.replace(line, f"{base}; policy accept;" if base else "")
    world.run(["nft", "-f", "-"], stdin=f"delete table bridge nat; {moved}".encode())
    assert len(world.call(list_spoofcheck_jumps)) == 1
    assert not world.call(has_spoofcheck, "id1", "eth0", "veth-a", MAC)


@pytest.mark.parametrize("policy", ["accept", "drop"])
def test_policy_of_a_chain_that_is_there_stays(world: World, policy: str) -> None:
    base = f"type filter hook prerouting priority -300; policy {policy};"
    world.run(["nft", f"add table bridge nat; add chain bridge nat PREROUTING {{ {base} }}"])
    before = objects(world)
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    assert world.call(has_spoofcheck, "id1", "eth0", "veth-a", MAC)
    world.call(delete_spoofcheck, "id1", "eth0")
    assert objects(world) == before


# Garbage


def garbage() -> list[SpoofcheckJump]:
    return [entry for entry in list_spoofcheck_jumps() if get_link(entry.host_ifname) is None]


def test_what_has_lost_its_link_goes_and_the_rest_stays(world: World) -> None:
    world.run(["ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"])
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    world.call(add_spoofcheck, "id1", "eth1", "veth-b", MAC)
    living = objects(world)
    world.call(add_spoofcheck, "id2", "eth0", "veth-c", MAC)
    world.call(add_spoofcheck, "id1", "eth2", "veth-d", MAC)
    found = world.call(garbage)
    assert [(entry.host_ifname, entry.chain) for entry in found] == [
        ("veth-c", "cni-br-iface-id2-eth0"),
        ("veth-d", "cni-br-iface-id1-eth2"),
    ]
    world.call(delete_spoofcheck_jumps, found)
    assert objects(world) == living


def test_garbage_is_deleted_once(world: World) -> None:
    world.call(delete_spoofcheck_jumps, world.call(garbage))
    assert world.nft_ruleset()[1:] == []
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    found = world.call(garbage)
    for _ in range(2):
        world.call(delete_spoofcheck_jumps, found)
        assert objects(world) == BASE_ONLY


def test_attachment_that_was_made_again_since_is_not_garbage(world: World) -> None:
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    found = world.call(garbage)
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    before = objects(world)
    world.call(delete_spoofcheck_jumps, found)
    assert objects(world) == before


def test_chain_that_another_rule_jumps_to_stays(world: World) -> None:
    world.run(["ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"])
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    before = objects(world)
    rule = 'iifname "veth-old" jump cni-br-iface-id1-eth0 comment "macspoofchk-id1-eth0"'
    world.run(["nft", f"insert rule bridge nat PREROUTING {rule}"])
    found = world.call(garbage)
    assert [entry.host_ifname for entry in found] == ["veth-old"]
    world.call(delete_spoofcheck_jumps, found)
    assert objects(world) == before


def test_rule_of_somebody_else_is_not_listed(world: World) -> None:
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    jump, comment = "jump cni-br-iface-id1-eth0", 'comment "macspoofchk-id1-eth0"'
    for rule in (
        f'iifname "veth-b" {jump}',
        f'iifname "veth-b" {jump} comment "macspoofchk-id1-eth1"',
        f'iifname "veth*" {jump} {comment}',
        f'iifname != "veth-b" {jump} {comment}',
        f'oifname "veth-b" {jump} {comment}',
        f'iifname {{ "veth-b", "veth-c" }} {jump} {comment}',
        f'iifname "veth-b" counter {jump} {comment}',
        f'iifname "veth-b" drop {comment}',
        f"counter {comment}",
        'iifname "veth-b" accept',
    ):
        world.run(["nft", f"add rule bridge nat PREROUTING {rule}"])
    assert [entry.host_ifname for entry in world.call(list_spoofcheck_jumps)] == ["veth-a"]


def test_nothing_is_deleted_that_is_not_a_spoof_check(world: World) -> None:
    """The caller is not believed: what it names is looked for among what is listed."""
    world.run(["nft", "add table bridge nat; add chain bridge nat PREROUTING; add chain bridge nat other"])
    world.run(["nft", "add rule bridge nat PREROUTING iifname veth-b jump other"])
    [handle] = [entry["rule"]["handle"] for entry in world.nft_ruleset() if "rule" in entry]
    before = objects(world)
    world.call(delete_spoofcheck_jumps, [SpoofcheckJump(handle, "veth-b", "other")])
    assert objects(world) == before


# Either implementation can remove what the other has made


def port_and_mac(world: World) -> tuple[str, str]:
    """Find the port of br0 and the MAC address of eth0 in the netns "pod"."""
    [port] = [link["ifname"] for link in world.ip("link", "show", "master", "br0")]
    return port, world.link("eth0", netns="pod")["address"]


def test_rules_are_those_of_the_reference_plugin(world: World) -> None:
    world.netns("pod")
    reference_bridge(world, "ADD", macspoofchk=True)
    theirs = objects(world)
    port, mac = port_and_mac(world)
    assert world.call(has_spoofcheck, "id1", "eth0", port, mac)

    world.call(delete_spoofcheck, "id1", "eth0")
    assert objects(world) == BASE_ONLY

    world.call(add_spoofcheck, "id1", "eth0", port, mac)
    assert objects(world) == theirs
    reference_bridge(world, "DEL", macspoofchk=True)
    assert objects(world) == BASE_ONLY


# Frames


def connect(world: World) -> None:
    world.run(["ip", "link", "add", "br0", "type", "bridge"])
    world.run(["ip", "link", "set", "br0", "up"])
    for name in ("a", "b"):
        world.netns(name)
        world.run(["ip", "link", "add", f"veth-{name}", "type", "veth", "peer", "name", "eth0", "netns", name])
        world.run(["ip", "link", "set", f"veth-{name}", "master", "br0", "up"])
        world.run(["ip", "link", "set", "eth0", "up"], netns=name)


def first_frame_seen(world: World, sources: list[str]) -> Any:
    """Send one broadcast frame from each source address in a, and return the source of the first that b sees."""
    wait_until(lambda: all(world.link(f"veth-{name}")["operstate"] == "UP" for name in ("a", "b")))
    a_fd = world.open_netns("a")

    def work() -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as listener:  # stays in b, where it was made
            listener.bind(("eth0", ETHERTYPE))
            listener.settimeout(5)
            setns(a_fd, CLONE_NEWNET)
            send_frames(sources)
            return listener.recv(100)[6:12].hex(":")

    try:
        return world.call(work, netns="b")
    finally:
        os.close(a_fd)


def send_frames(sources: list[str]) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0))
        for source in sources:
            mac = bytes.fromhex(source.replace(":", ""))
            sender.send(b"\xff" * 6 + mac + struct.pack("!H", ETHERTYPE) + b"x" * 46)


SPOOFED = "02:00:00:00:00:66"


def test_a_spoofed_frame_is_dropped_and_a_right_one_passes(world: World) -> None:
    connect(world)
    assert first_frame_seen(world, [SPOOFED, MAC]) == SPOOFED  # the control
    world.call(add_spoofcheck, "id1", "eth0", "veth-a", MAC)
    assert first_frame_seen(world, [SPOOFED, MAC]) == MAC
    world.call(delete_spoofcheck, "id1", "eth0")
    assert first_frame_seen(world, [SPOOFED, MAC]) == SPOOFED


def test_other_ports_are_not_checked(world: World) -> None:
    connect(world)
    world.call(add_spoofcheck, "id2", "eth0", "veth-b", MAC)
    assert first_frame_seen(world, [SPOOFED]) == SPOOFED

"""A node changes from the reference plugins to ours, or back, while containers run.

reference ADD ──▶ our CHECK, our DEL          our ADD ──▶ reference CHECK, reference DEL
"""

import json
from typing import Any, NamedTuple

import pytest

from tests.interop.differential_cases import BRIDGE, DUAL
from tests.interop.observe import masquerade_facts, spoofcheck_facts, store
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins, changed, with_prev_result
from tests.world import World

NETWORK = changed(BRIDGE, ipam__ranges=DUAL)
GUARDED = changed(NETWORK, ipMasq=True, macspoofchk=True)
BOTH = [("reference", "ours"), ("ours", "reference")]


class Pair(NamedTuple):
    """Both implementations in one world."""

    reference: Plugins
    ours: Plugins

    def named(self, name: str) -> Plugins:
        return self.reference if name == "reference" else self.ours


@pytest.fixture
def pair(world: World, plugin_dir: str) -> Pair:
    for name in ("blue", "red", "green"):
        world.netns(name)
    return Pair(Plugins(world, REFERENCE_DIR), Plugins(world, plugin_dir))


def reservations(world: World) -> set[str]:
    paths = (path.rpartition("/") for path in store(world))
    return {name for directory, _, name in paths if directory.endswith("/lab") and name[0] in "1f"}


def host_ends(world: World) -> set[str]:
    return {name for name in world.ifnames() if name.startswith("veth")}


def left(world: World) -> dict[str, Any]:
    return {
        "links": host_ends(world),
        "container": world.ifnames("blue") - {"lo"},
        "addresses": reservations(world),
        "masquerade": masquerade_facts(world),
        "spoofcheck": spoofcheck_facts(world),
    }


NOTHING: dict[str, Any] = {
    "links": set(), "container": set(), "addresses": set(), "masquerade": [], "spoofcheck": []
}  # fmt: skip


@pytest.mark.parametrize(("adder", "deleter"), BOTH)
@pytest.mark.parametrize("has_prev_result", [True, False])
def test_one_checks_and_deletes_what_the_other_added(
    pair: Pair, adder: str, deleter: str, has_prev_result: bool
) -> None:
    world = pair.ours.world
    result = pair.named(adder).add(NETWORK)
    assert reservations(world) == {"10.9.0.2", "fd09::2"}
    pair.named(deleter).check(NETWORK, result)
    pair.named(deleter).delete(NETWORK, result if has_prev_result else None)
    assert left(world) == NOTHING


@pytest.mark.parametrize("netns", ["blue", "", "/run/netns/gone"])
@pytest.mark.parametrize("has_prev_result", [True, False])
def test_ours_deletes_every_rule_that_the_reference_added(pair: Pair, netns: str, has_prev_result: bool) -> None:
    """Also without a netns, when the reference itself leaves its rules behind; the link goes with the netns."""
    world = pair.ours.world
    result = pair.reference.add(GUARDED)
    assert masquerade_facts(world) == ["10.9.0.2 -> not 10.9.0.0/24, not 224.0.0.0/4", *ip6_facts(world)]
    assert spoofcheck_facts(world) != []
    if netns != "blue":
        world.run(["ip", "-n", "blue", "link", "delete", "eth0"])
    pair.ours.delete(GUARDED, result if has_prev_result else None, netns=netns)
    assert left(world) == NOTHING
    assert b"CNI-" not in world.run(["nft", "list", "ruleset"]).stdout


def ip6_facts(world: World) -> list[str]:
    """What ip6tables shows; this version of it cannot print the masquerading that it made on every kernel."""
    return [fact for fact in masquerade_facts(world) if fact.startswith("fd09::2")]


def test_what_the_reference_leaves_of_ours_goes_with_our_gc_or_the_next_owner(pair: Pair) -> None:
    """The reference knows nothing of our table; what is left there harms nobody and does not stay."""
    world = pair.ours.world
    reference_deletes(pair, pair.ours.add(GUARDED))
    stale = ["10.9.0.2 -> not 10.9.0.0/24, not 224.0.0.0/4", "fd09::2 -> not fd09::/64, not ff00::/8"]
    assert left(world) == {**NOTHING, "masquerade": stale}

    world.run(["sh", "-c", "cd /var/lib/cni/networks/lab && rm last_reserved_ip.*"])
    again = pair.ours.add(GUARDED, container_id="c2", netns="red")
    assert [ip["address"] for ip in again["ips"]] == ["10.9.0.2/24", "fd09::2/64"]
    assert masquerade_facts(world) == stale
    pair.ours.delete(GUARDED, again, container_id="c2", netns="red")
    assert left(world) == NOTHING

    reference_deletes(pair, pair.ours.add(GUARDED))
    assert masquerade_facts(world) != []
    pair.ours.call("GC", {**GUARDED, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []})
    assert left(world) == NOTHING


def reference_deletes(pair: Pair, result: Any) -> None:
    """Have the reference delete what ours added with ipMasq; it misses its own chain; asked again, it is content."""
    first = pair.reference.call("DEL", with_prev_result(GUARDED, result), expect=1)
    assert "Chain 'CNI-7938659e68193485ee23da4c' does not exist" in first.document["msg"]
    pair.reference.delete(GUARDED, result)


def test_addresses_are_given_in_turn_whoever_gives_them(pair: Pair) -> None:
    given = []
    for plugins, container_id, netns in (
        (pair.reference, "c1", "blue"),
        (pair.ours, "c2", "red"),
        (pair.reference, "c3", "green"),
    ):
        result = plugins.add(NETWORK, container_id=container_id, netns=netns)
        given.append([ip["address"] for ip in result["ips"]])
    assert given == [[f"10.9.0.{n}/24", f"fd09::{n}/64"] for n in (2, 3, 4)]
    for first, second in (("blue", "10.9.0.3"), ("red", "10.9.0.4"), ("green", "fd09::2")):
        pair.ours.world.run(["ping", "-c1", "-W2", second], netns=first)


@pytest.mark.parametrize("adder", ["reference", "ours"])
def test_neither_gives_an_address_twice(pair: Pair, adder: str) -> None:
    small = changed(NETWORK, ipam__ranges=[[{"subnet": "10.9.0.0/30"}]])
    pair.named(adder).add(small)
    for plugins, netns in ((pair.ours, "red"), (pair.reference, "green")):
        answer = plugins.call("ADD", small, container_id=netns, netns=netns, expect=1)
        assert "10.9.0.1-10.9.0.2" in answer.document["msg"]
    assert reservations(pair.ours.world) == {"10.9.0.2"}


@pytest.mark.parametrize(("adder", "deleter"), BOTH)
def test_one_releases_only_what_the_attachment_has(pair: Pair, adder: str, deleter: str) -> None:
    world = pair.ours.world
    for container_id, ifname, netns in (("c1", "eth0", "blue"), ("c1", "eth1", "blue"), ("c11", "eth0", "red")):
        pair.named(adder).add(NETWORK, container_id=container_id, ifname=ifname, netns=netns)
    pair.named(deleter).delete(NETWORK)
    assert reservations(world) == {"10.9.0.3", "10.9.0.4", "fd09::3", "fd09::4"}
    assert (world.ifnames("blue"), world.ifnames("red")) == ({"lo", "eth1"}, {"lo", "eth0"})


@pytest.mark.parametrize(("adder", "deleter"), BOTH)
def test_host_local_by_itself_releases_what_the_other_gave(pair: Pair, adder: str, deleter: str) -> None:
    netconf: JsonObject = {**changed(NETWORK, type="host-local")}
    result = pair.named(adder).add(netconf)
    assert reservations(pair.ours.world) == {"10.9.0.2", "fd09::2"}
    pair.named(deleter).check(netconf, result)
    pair.named(deleter).delete(netconf, result)
    assert reservations(pair.ours.world) == set()
    again = pair.named(deleter).add(netconf)
    assert json.dumps(again["ips"]).count("::3/64") == 1

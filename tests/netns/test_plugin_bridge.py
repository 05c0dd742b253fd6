"""ADD of the bridge plugin with host-local: what containers can do afterwards, and what a failed ADD leaves.

world ("host")                            blue                     outside
  lab0 10.9.0.1 ── veth… ═══════════════ eth0 10.9.0.2
  up0 192.0.2.1 ════════════════════════════════════════════════ up0 192.0.2.9
"""

import functools
import json
import os
import re
import subprocess
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from cnisandbox.bridge_config import parse_config
from cnisandbox.cni.netconf import Attachment, parse_netconf
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.names import host_ifname
from cnisandbox.netlink import vlan_gateway
from cnisandbox.plugin import UndoStack
from cnisandbox.plugins import bridge
from tests.interop.differential_cases import BRIDGE, DUAL, LAYER2
from tests.interop.observe import differences, masquerade_facts, observe, store
from tests.interop.plugin_calls import JsonObject, Plugins, changed
from tests.interop.test_differential import MAY_REMAIN
from tests.world import World, kernel_has, requires_feature, wait_until

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NETCONF = changed(BRIDGE, cniVersion="1.1.0", isDefaultGateway=True, ipam__ranges=DUAL)
REACHABLE = ("10.9.0.1", "fd09::1")


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    for name in ("blue", "red"):
        world.netns(name)
    return Plugins(world, plugin_dir)


def ping(world: World, address: str, netns: str | None = None, expect: int = 0) -> None:
    """One packet, at once: whoever is not reachable yet is not reachable."""
    world.run(["ping", "-c", "1", "-W", "1", address], netns=netns, expect=expect)


def make_outside(world: World) -> None:
    """A host elsewhere that knows no route back to the containers."""
    world.netns("outside")
    world.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", "outside"])
    for netns, host in ((None, 1), ("outside", 9)):
        script = (
            "echo 0 > /proc/sys/net/ipv6/conf/up0/accept_dad; ip link set up0 up;"
            f" ip addr add 192.0.2.{host}/24 dev up0; ip addr add 2001:db8::{host}/64 dev up0 nodad"
        )
        world.run(["sh", "-ec", script], netns=netns)
    for address in ("192.0.2.9", "2001:db8::9"):
        wait_until(functools.partial(answers, world, address))


def answers(world: World, address: str) -> bool:
    return world.run(["ping", "-c1", "-W1", address], expect=None).returncode == 0


class TestVersions:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_every_version_is_spoken_from_add_to_delete(self, plugins: Plugins, version: str) -> None:
        world, netconf = plugins.world, changed(NETCONF, cniVersion=version, ipMasq=True)
        result = plugins.add(netconf)
        assert result["cniVersion"] == version
        if version < "0.3.0":
            assert result["ip4"] == {
                "ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
            }  # fmt: skip
            assert result["ip6"]["ip"] == "fd09::2/64"
            assert "interfaces" not in result
        else:
            ips = [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 2}]
            ips += [{"address": "fd09::2/64", "gateway": "fd09::1", "interface": 2}]
            if version < "1.0.0":
                ips = [{**ip, "version": family} for ip, family in zip(ips, ("4", "6"), strict=True)]
            assert result["ips"] == ips
            assert [interface["name"] for interface in result["interfaces"]] == ["lab0", *host_ends(world), "eth0"]
        for address in REACHABLE:
            ping(world, address, "blue")
        if version >= "0.4.0":
            plugins.check(netconf, result)
        else:
            assert plugins.fail("CHECK", {**netconf, "prevResult": result})["code"] == 1
        plugins.delete(netconf, result if version >= "0.4.0" else None)
        assert (host_ends(world), masquerade_facts(world), reservations(world)) == ([], [], set())

    @pytest.mark.parametrize("verb", ["GC", "STATUS"])
    def test_younger_verbs_need_their_version(self, plugins: Plugins, verb: str) -> None:
        netconf = {**changed(NETCONF, cniVersion="1.0.0"), "cni.dev/valid-attachments": []}
        assert plugins.fail(verb, netconf)["code"] == 1
        plugins.call(verb, {**netconf, "cniVersion": "1.1.0"})

    @pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
    def test_result_that_a_version_cannot_express_is_refused_before_anything_is_done(
        self, plugins: Plugins, version: str
    ) -> None:
        before = observe(plugins.world, "blue").state
        plugins.fail("ADD", changed(LAYER2, cniVersion=version))
        assert changed_since(before, plugins.world) == []


class TestResult:
    def test_macs_are_those_of_the_kernel_and_differ(self, plugins: Plugins) -> None:
        bridge, port, container = plugins.add(NETCONF)["interfaces"]
        assert container["sandbox"] == "/run/netns/blue"
        assert "sandbox" not in bridge.keys() | port.keys()
        assert bridge["mac"] == plugins.world.link("lab0")["address"]
        assert port["mac"] == plugins.world.link(port["name"])["address"]
        assert container["mac"] == plugins.world.link("eth0", "blue")["address"]
        macs = {bridge["mac"], port["mac"], container["mac"]}
        assert {len(mac) for mac in macs} == {17}
        assert len(macs) == 3

    @pytest.mark.parametrize("netconf", [NETCONF, LAYER2], ids=["gateway", "layer2"])
    def test_mac_of_the_bridge_stays_when_ports_come_and_go(self, plugins: Plugins, netconf: JsonObject) -> None:
        first = plugins.add(netconf)
        mac = first["interfaces"][0]["mac"]
        for number in range(3):
            plugins.add(netconf, container_id="c2", netns="red", ifname=f"eth{number}")
            plugins.check(changed(netconf, cniVersion="1.0.0"), {**first, "cniVersion": "1.0.0"})
        for number in range(3):
            plugins.delete(netconf, container_id="c2", netns="red", ifname=f"eth{number}")
        plugins.delete(netconf)
        assert plugins.world.link("lab0")["address"] == mac
        assert plugins.add(netconf)["interfaces"][0]["mac"] == mac

    def test_bridge_that_was_there_keeps_its_address_and_is_named_rightly(self, plugins: Plugins) -> None:
        plugins.world.run(["ip", "link", "add", "lab0", "up", "type", "bridge"])
        index = plugins.world.link("lab0")["ifindex"]
        results = [plugins.add(NETCONF, container_id=netns, netns=netns) for netns in ("blue", "red")]
        link = plugins.world.link("lab0")
        assert link["ifindex"] == index
        assert {result["interfaces"][0]["mac"] for result in results} == {link["address"]}
        plugins.check(NETCONF, results[0], container_id="blue")

    def test_bridge_without_an_address_is_given_one(self, plugins: Plugins) -> None:
        """What is left when the last port goes from a bridge whose address was never set."""
        plugins.world.run(["ip", "link", "add", "lab0", "up", "type", "bridge"])
        plugins.world.run(["ip", "link", "add", "p0", "type", "veth", "peer", "name", "p1"])
        plugins.world.run(["ip", "link", "set", "p0", "master", "lab0"])
        plugins.world.run(["ip", "link", "delete", "p0"])
        assert plugins.world.link("lab0")["address"] == "00:00:00:00:00:00"
        result = plugins.add(NETCONF)
        assert result["interfaces"][0]["mac"] == plugins.world.link("lab0")["address"] != "00:00:00:00:00:00"
        ping(plugins.world, "10.9.0.1", "blue")


class TestConnection:
    def test_containers_reach_each_other_and_the_host_at_once(self, plugins: Plugins) -> None:
        world = plugins.world
        began = time.monotonic()
        plugins.add(NETCONF)
        plugins.add(NETCONF, container_id="c2", netns="red")
        duration_s = time.monotonic() - began
        for address in ("10.9.0.3", "fd09::3", *REACHABLE):
            ping(world, address, "blue")
        for address in ("10.9.0.2", "fd09::2"):
            ping(world, address)
        assert not any(
            "tentative" in item for item in world.ip("addr", "show", "dev", "eth0", netns="blue")[0]["addr_info"]
        )
        assert duration_s < 2, "duplicate address detection would take as long"

    @pytest.mark.parametrize("masquerades", [True, False])
    def test_outside_is_reached_with_the_address_of_the_host(self, plugins: Plugins, masquerades: bool) -> None:
        make_outside(plugins.world)
        plugins.add(changed(NETCONF, ipMasq=masquerades))
        for address in ("192.0.2.9", "2001:db8::9"):
            ping(plugins.world, address, "blue", expect=0 if masquerades else 1)

    def test_containers_of_one_network_see_each_others_own_address(self, plugins: Plugins) -> None:
        """ipMasq leaves alone what stays in the subnet."""
        netconf, world = changed(NETCONF, ipMasq=True), plugins.world
        plugins.add(netconf)
        plugins.add(netconf, container_id="c2", netns="red")
        world.run(["ip", "route", "add", "prohibit", "10.9.0.1"], netns="red")
        ping(world, "10.9.0.3", "blue")

    @pytest.mark.parametrize("is_isolated", [True, False])
    def test_isolated_ports_reach_the_gateway_only(self, plugins: Plugins, is_isolated: bool) -> None:
        netconf = changed(NETCONF, portIsolation=is_isolated)
        plugins.add(netconf)
        plugins.add(netconf, container_id="c2", netns="red")
        for address in ("10.9.0.3", "fd09::3"):
            ping(plugins.world, address, "blue", expect=1 if is_isolated else 0)
        for address in REACHABLE:
            ping(plugins.world, address, "blue")
        ports = [
            plugins.world.link(name)["linkinfo"]["info_slave_data"]["isolated"] for name in host_ends(plugins.world)
        ]
        assert ports == [is_isolated, is_isolated]

    @pytest.mark.parametrize("is_checked", [True, False])
    def test_container_with_another_mac_is_not_heard(self, plugins: Plugins, is_checked: bool) -> None:
        plugins.add(changed(NETCONF, macspoofchk=is_checked))
        ping(plugins.world, "10.9.0.1", "blue")
        plugins.world.run(["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"], netns="blue")
        ping(plugins.world, "10.9.0.1", "blue", expect=1 if is_checked else 0)

    def test_hairpin_lets_a_port_hear_itself(self, plugins: Plugins) -> None:
        plugins.add(changed(NETCONF, hairpinMode=True))
        assert plugins.world.link(*host_ends(plugins.world))["linkinfo"]["info_slave_data"]["hairpin"] is True

    def test_container_does_not_configure_the_host_by_router_advertisements(self, plugins: Plugins) -> None:
        for setup in (None, "ip link add lab0 up type bridge"):
            if setup:
                plugins.delete(NETCONF)
                plugins.world.run(["ip", "link", "delete", "lab0"])
                plugins.world.run(["sh", "-c", setup])
            plugins.add(NETCONF)
            for name in ("lab0", *host_ends(plugins.world)):
                assert plugins.world.run(["cat", f"/proc/sys/net/ipv6/conf/{name}/accept_ra"]).stdout == b"0\n"


class TestAddresses:
    def test_bridge_gets_the_gateway_of_every_range(self, plugins: Plugins) -> None:
        subnets = ("10.9.0.0/24", "10.10.0.0/24", "fd09::/64", "fd0a::/64")
        netconf = changed(NETCONF, ipam__ranges=[[{"subnet": subnet}] for subnet in subnets])
        result = plugins.add(netconf)
        assert addresses(plugins.world, "lab0") == {"10.9.0.1/24", "10.10.0.1/24", "fd09::1/64", "fd0a::1/64"}
        assert [route["gw"] for route in result["routes"]] == ["10.9.0.1", "fd09::1"]
        for gateway in ("10.9.0.1", "10.10.0.1", "fd09::1", "fd0a::1"):
            ping(plugins.world, gateway, "blue")
        plugins.check(netconf, result)

    def test_gateway_follows_from_the_subnet_where_the_address_plugin_names_none(
        self, plugins: Plugins, plugin_dir: str
    ) -> None:
        reference = Plugins(plugins.world, plugin_dir, path="/usr/lib/cni")
        ipam = {"type": "static", "addresses": [{"address": "10.9.0.7/24"}, {"address": "fd09::7/64"}]}
        result = reference.add(changed(NETCONF, cniVersion="1.0.0", ipam=ipam))
        assert [ip["gateway"] for ip in result["ips"]] == ["10.9.0.1", "fd09::1"]
        for address in REACHABLE:
            ping(plugins.world, address, "blue")

    def test_routes_carry_every_attribute(self, plugins: Plugins) -> None:
        routes = [
            {"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200, "priority": 7},
            {"dst": "198.51.100.0/24", "gw": "10.9.0.9", "table": 200},
            {"dst": "10.77.0.0/16", "scope": 253},
            {"dst": "2001:db8::/32", "priority": 9, "mtu": 1400},
        ]
        netconf = changed(NETCONF, isDefaultGateway=False, ipam__routes=routes)
        result = plugins.add(netconf)
        assert result["routes"] == routes
        shown = {route["dst"]: route for route in plugins.world.ip("route", "show", "table", "all", netns="blue")}
        first = shown["192.0.2.0/24"]
        assert (first["gateway"], first["metric"], first["metrics"]) == ("10.9.0.1", 7, [{"mtu": 1300, "advmss": 1200}])
        assert (shown["198.51.100.0/24"]["gateway"], shown["198.51.100.0/24"]["table"]) == ("10.9.0.9", "200")
        assert (shown["10.77.0.0/16"].get("gateway"), shown["10.77.0.0/16"]["scope"]) == (None, "link")
        (sixth,) = plugins.world.ip("-6", "route", "show", "2001:db8::/32", netns="blue")
        assert (sixth["gateway"], sixth["metric"], sixth["metrics"]) == ("fd09::1", 9, [{"mtu": 1400}])
        plugins.check(netconf, result)

    def test_two_next_hops_of_one_destination_are_both_used(self, plugins: Plugins) -> None:
        routes = [{"dst": "192.0.2.0/24", "gw": f"10.9.0.{host}"} for host in (8, 9)]
        netconf = changed(NETCONF, ipam__routes=routes)
        result = plugins.add(netconf)
        shown = plugins.world.ip("route", "show", "192.0.2.0/24", netns="blue")
        assert {route["gateway"] for route in shown} == {"10.9.0.8", "10.9.0.9"}
        plugins.check(netconf, result)

    def test_default_route_of_the_address_plugin_is_enough(self, plugins: Plugins) -> None:
        netconf = changed(NETCONF, ipam__routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])
        result = plugins.add(netconf)
        for family, gateway in (("-4", "10.9.0.1"), ("-6", "fd09::1")):
            (route,) = plugins.world.ip(family, "route", "show", "default", netns="blue")
            assert route["gateway"] == gateway
        plugins.check(netconf, result)

    def test_addresses_stay_when_the_link_goes_down(self, plugins: Plugins) -> None:
        plugins.add(NETCONF)
        plugins.world.run(["ip", "link", "set", "eth0", "down"], netns="blue")
        assert "fd09::2/64" in addresses(plugins.world, "eth0", "blue")


class TestLayer2:
    def test_port_is_up_and_nothing_is_configured(self, plugins: Plugins) -> None:
        result = plugins.add(LAYER2)
        assert "ips" not in result
        link = plugins.world.link("eth0", "blue")
        assert (link["operstate"], addresses(plugins.world, "eth0", "blue")) == ("UP", set())
        plugins.check(LAYER2, result)

    def test_container_interface_is_left_down(self, plugins: Plugins) -> None:
        netconf = changed(LAYER2, disableContainerInterface=True)
        result = plugins.add(netconf)
        assert "UP" not in plugins.world.link("eth0", "blue")["flags"]
        assert plugins.world.link(*host_ends(plugins.world))["operstate"] != "UP"
        plugins.check(netconf, result)
        plugins.delete(netconf, result)
        assert host_ends(plugins.world) == []

    def test_interface_cannot_be_left_down_with_addresses(self, plugins: Plugins) -> None:
        error = plugins.fail("ADD", changed(NETCONF, disableContainerInterface=True))
        assert error["code"] == 7
        assert "disableContainerInterface" in error["msg"]
        assert "ipam" in error["msg"]


class TestNames:
    def test_name_of_the_host_end_that_somebody_has_is_avoided_and_left_alone(self, plugins: Plugins) -> None:
        taken = host_ifname("lab", Attachment("c1", "eth0"))
        plugins.world.run(["ip", "link", "add", taken, "type", "bridge"])
        result = plugins.add(NETCONF)
        assert result["interfaces"][1]["name"] != taken
        plugins.check(NETCONF, result)
        plugins.delete(NETCONF, netns="")
        assert plugins.world.ifnames() == {"lo", "lab0", taken}
        assert plugins.world.ifnames("blue") == {"lo"}

    @pytest.mark.parametrize("name", ["a" * 15, "br.100-x_y", "@bridge", "lab+0"])
    def test_bridge_may_have_any_name_that_a_link_can_have(self, plugins: Plugins, name: str) -> None:
        netconf = changed(NETCONF, bridge=name, ipMasq=True, macspoofchk=True)
        result = plugins.add(netconf)
        assert result["interfaces"][0]["name"] == name
        plugins.check(netconf, result)
        plugins.delete(netconf, result)

    @pytest.mark.parametrize("name", ["a" * 16, "a/b", "..", "a b", "br%d", "a:b", "ä" * 8])
    def test_bridge_cannot_have_another_name(self, plugins: Plugins, name: str) -> None:
        error = plugins.fail("ADD", changed(NETCONF, bridge=name))
        assert (error["code"], error["msg"].partition(":")[0]) == (7, "bridge")


FAILURES: dict[str, tuple[JsonObject, str, int]] = {
    "pool-is-full": (changed(NETCONF, ipam__ranges=[[{"subnet": "10.9.0.0/30", "rangeEnd": "10.9.0.1"}]]), "", 0),
    "route-is-unreachable": (changed(NETCONF, ipam__routes=[{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]), "", 101),
    "route-is-invalid": (changed(NETCONF, ipam__routes=[{"dst": "192.0.2.0"}]), "", 7),
    "address-plugin-is-missing": (changed(NETCONF, ipam={"type": "nowhere"}), "", 7),
    "ifname-is-taken": (NETCONF, "ip -n blue link add eth0 type bridge", 101),
    "bridge-is-something-else": (NETCONF, "ip link add lab0 type veth peer name lab1", 101),
    "gateway-is-in-the-way": (
        changed(NETCONF, ipMasq=True, macspoofchk=True),
        "ip link add lab0 address 02:00:00:00:00:77 up type bridge; ip addr add 10.77.0.1/24 dev lab0",
        101,
    ),
    "spoof-check-is-impossible": (
        changed(NETCONF, ipMasq=True, macspoofchk=True),
        "nft 'add table bridge nat; add chain bridge nat cni-br-iface-c1-eth0; add chain bridge nat other;"
        " add rule bridge nat other jump cni-br-iface-c1-eth0'",
        101,
    ),
    "masquerading-is-impossible": (
        changed(NETCONF, ipMasq=True, macspoofchk=True),
        "nft 'add table inet cnisandbox_masquerade;"
        " add map inet cnisandbox_masquerade sources4 { type ipv4_addr : mark; }'",
        101,
    ),
    "mtu-is-impossible": (changed(NETCONF, mtu=67), "", 101),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failed_add_leaves_nothing(plugins: Plugins, name: str) -> None:
    netconf, setup, code = FAILURES[name]
    if setup:
        plugins.world.run(["sh", "-ec", setup])
    before, rules = observe(plugins.world, "blue").state, rule_names(plugins.world)
    error = plugins.fail("ADD", netconf)
    if code:
        assert error["code"] == code
    is_busy = name == "spoof-check-is-impossible"  # then the undoing is refused too, and says so
    assert ("left behind" in error.get("details", "")) == is_busy
    assert changed_since(before, plugins.world) == []
    assert rule_names(plugins.world) - rules <= {"nat", "PREROUTING"}


def changed_since(before: JsonObject, world: World) -> list[str]:
    """List what has changed, but for what a failed ADD may leave."""
    changes = differences(before, observe(world, "blue").state)
    return [path for path in changes if not re.fullmatch(MAY_REMAIN, path)]


class TestVlans:
    @pytest.mark.parametrize(
        "keys", [{"vlan": 100}, {"vlanTrunk": [{"id": 5}]}, {"vlan": 9, "vlanTrunk": [{"minID": 2, "maxID": 4}]}]
    )
    def test_kernel_without_vlan_filtering_is_named(self, plugins: Plugins, keys: JsonObject) -> None:
        if kernel_has("feature", "bridge-vlan-filtering"):
            plugins.add({**NETCONF, **keys})
            return
        before = observe(plugins.world, "blue").state
        error = plugins.fail("ADD", {**NETCONF, **keys})
        assert error["code"] == 101
        assert "CONFIG_BRIDGE_VLAN_FILTERING" in error["details"]
        assert changed_since(before, plugins.world) == []

    @pytest.mark.parametrize(
        ("keys", "path"),
        [
            ({"vlan": 4095}, "vlan"),
            ({"vlan": -1}, "vlan"),
            ({"vlanTrunk": [{"id": 0}]}, "vlanTrunk[0].id"),
            ({"vlanTrunk": [{"id": 4095}]}, "vlanTrunk[0].id"),
            ({"vlanTrunk": [{"id": 1}, {"minID": 5}]}, "vlanTrunk[1]"),
            ({"vlanTrunk": [{"maxID": 5}]}, "vlanTrunk[0]"),
            ({"vlanTrunk": [{"minID": 6, "maxID": 5}]}, "vlanTrunk[0]"),
            ({"vlanTrunk": [{"minID": -1, "maxID": 5}]}, "vlanTrunk[0].minID"),
            ({"vlanTrunk": [{"minID": 1, "maxID": 4095}]}, "vlanTrunk[0].maxID"),
            ({"vlanTrunk": [{}]}, "vlanTrunk[0]"),
        ],
    )
    def test_impossible_vlans_are_refused_by_path(self, plugins: Plugins, keys: JsonObject, path: str) -> None:
        error = plugins.fail("ADD", {**NETCONF, **keys})
        assert (error["code"], error["msg"].partition(": ")[0]) == (7, path)

    @requires_feature("bridge-vlan-filtering")
    @pytest.mark.parametrize(
        ("keys", "expected"),
        [
            ({"vlan": 100}, {100: {"PVID", "Egress Untagged"}}),
            ({"vlan": 100, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 100: {"PVID", "Egress Untagged"}}),
            (
                {"vlanTrunk": [{"minID": 5, "maxID": 6}, {"id": 9}]},
                {1: {"PVID", "Egress Untagged"}, 5: set(), 6: set(), 9: set()},
            ),
            ({"vlan": 7, "vlanTrunk": [{"id": 5}]}, {5: set(), 7: {"PVID", "Egress Untagged"}}),
        ],
    )
    def test_port_is_in_the_vlans_and_in_no_others(
        self, plugins: Plugins, keys: JsonObject, expected: dict[int, set[str]]
    ) -> None:
        netconf = changed({**LAYER2, **keys})
        result = plugins.add(netconf)
        (port,) = host_ends(plugins.world)
        assert plugins.world.link("lab0")["linkinfo"]["info_data"]["vlan_filtering"] == 1
        assert vlans(plugins.world, port) == expected
        plugins.check(netconf, result)
        plugins.delete(netconf, result)
        assert host_ends(plugins.world) == []

    @requires_feature("bridge-vlan-filtering")
    def test_bridge_without_filtering_that_was_there_gets_it(self, plugins: Plugins) -> None:
        plugins.world.run(["ip", "link", "add", "lab0", "up", "type", "bridge"])
        plugins.add(changed(LAYER2, vlan=100))
        assert plugins.world.link("lab0")["linkinfo"]["info_data"]["vlan_filtering"] == 1

    @requires_feature("bridge-vlan-filtering")
    def test_gateway_of_a_vlan_is_an_interface_of_its_own(self, plugins: Plugins) -> None:
        netconf = changed(NETCONF, vlan=100)
        results = [plugins.add(netconf, container_id=netns, netns=netns) for netns in ("blue", "red")]
        assert [len(result["interfaces"]) for result in results] == [4, 4]
        assert {result["interfaces"][3]["name"] for result in results} == {"lab0.100"}
        assert addresses(plugins.world, "lab0.100") == {"10.9.0.1/24", "fd09::1/64"}
        for address in (*REACHABLE, "10.9.0.3"):
            ping(plugins.world, address, "blue")
        other = changed(NETCONF, vlan=200, name="other", ipam__ranges=[[{"subnet": "10.10.0.0/24"}]])
        plugins.add(other, container_id="c3", ifname="eth1", netns="red")
        plugins.world.run(["ip", "addr", "add", "10.9.0.9/24", "dev", "eth1"], netns="red")
        plugins.world.run(["ip", "link", "set", "eth0", "down"], netns="red")
        ping(plugins.world, "10.9.0.9", "blue", expect=1)

    @pytest.mark.parametrize("is_used", [False, True])
    def test_failing_add_takes_back_the_gateway_that_nobody_else_uses(
        self, plugins: Plugins, monkeypatch: pytest.MonkeyPatch, is_used: bool
    ) -> None:
        """All but the VLANs themselves, for kernels without them."""
        world = plugins.world
        monkeypatch.setattr(vlan_gateway, "set_vlans", lambda *_, **__: None)
        netns_fd = world.open_netns("blue")
        monkeypatch.setattr(bridge, "GIVEN_FD", netns_fd)
        netconf = parse_netconf(json.dumps(changed(LAYER2, cniVersion="1.1.0")).encode(), "ADD", SUPPORTED)
        config = parse_config(netconf, "")._replace(vlan=100)
        host = SimpleNamespace(call=lambda function, *args: function(*args), start=functools.partial)
        attachment, undo = Attachment("c1", "eth0"), UndoStack()
        call: Any = SimpleNamespace(
            host=host,
            ipam=SimpleNamespace(is_configured=False),
            locked=lambda _name: nullcontext(),
            request=SimpleNamespace(netconf=netconf, attachment=attachment, ifname="eth0"),
            undo=undo,
        )

        def fail() -> list[str]:
            _, port = bridge._connect(call, config, "02:00:00:00:00:0a", is_ipam_ours=False)
            bridge._ensure_vlan_gateway(call, config, port)
            if is_used:
                subprocess.run(["ip", "link", "set", "port", "master", "lab0"], check=True)
            return undo.unwind()

        world.run(["ip", "link", "add", "port", "type", "veth", "peer", "name", "other"])
        failures = world.call(fail)
        os.close(netns_fd)
        assert failures == []
        of_gateway = {"lab0", "lab0.100", host_ifname("lab", attachment, bridge._NAME_ATTEMPTS)}
        assert world.ifnames() == {"lo", "port", "other"} | (of_gateway if is_used else set())


def host_ends(world: World) -> list[str]:
    return sorted(name for name in world.ifnames() if name.startswith("veth"))


def reservations(world: World) -> set[str]:
    names = (path.rpartition("/") for path in store(world))
    return {name for directory, _, name in names if directory.endswith("/lab") and name[0] in "1f"}


def addresses(world: World, ifname: str, netns: str | None = None) -> set[str]:
    (link,) = world.ip("addr", "show", "dev", ifname, netns=netns)
    items = (f"{item['local']}/{item['prefixlen']}" for item in link["addr_info"])
    return {item for item in items if not item.startswith("fe80:")}


def vlans(world: World, port: str) -> dict[int, set[str]]:
    (shown,) = world.bridge("vlan", "show", "dev", port)
    return {
        tag: set(item.get("flags", []))
        for item in shown["vlans"]
        for tag in range(item["vlan"], item.get("vlanEnd", item["vlan"]) + 1)
    }


def rule_names(world: World) -> set[str]:
    """Names of every table, chain and map."""
    kinds = ("table", "chain", "map")
    return {item[kind]["name"] for item in world.nft_ruleset() for kind in kinds if kind in item}

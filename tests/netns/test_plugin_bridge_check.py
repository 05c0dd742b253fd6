"""CHECK of the bridge plugin: it is content with what ADD made, finds each kind of damage, and changes nothing.

world ("host")                      blue
  lab0 ─── veth… ═══════════════════ eth0
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.differential_cases import BRIDGE, DUAL, LAYER2
from tests.interop.observe import differences, observe
from tests.interop.plugin_calls import JsonObject, Plugins, changed, with_prev_result
from tests.world import World

NETCONF = changed(
    BRIDGE,
    isDefaultGateway=True,
    ipMasq=True,
    macspoofchk=True,
    promiscMode=True,
    portIsolation=True,
    ipam__ranges=DUAL,
    ipam__routes=[
        {"dst": "192.0.2.0/24", "gw": "10.9.0.9"},
        {"dst": "198.51.100.0/24", "table": 200},
        {"dst": "2001:db8::/32"},
    ],
)
CHECK_FAILED = 105


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    world.netns("blue")
    world.netns("red")
    return Plugins(world, plugin_dir)


# name -> (command in the host's netns, part of the message); {port} is the host's end, blue the container's netns
DAMAGE: dict[str, tuple[str, str]] = {
    "ipv4-address-deleted": ("ip -n blue addr del 10.9.0.2/24 dev eth0", "10.9.0.2/24"),
    "ipv6-address-deleted": ("ip -n blue addr del fd09::2/64 dev eth0", "fd09::2/64"),
    "prefix-changed": (
        "ip -n blue addr del 10.9.0.2/24 dev eth0; ip -n blue addr add 10.9.0.2/16 dev eth0",
        "10.9.0.2/24",
    ),
    "default-route-deleted": ("ip -n blue route del default", "0.0.0.0/0"),
    "ipv6-default-route-deleted": ("ip -n blue -6 route del default", "::/0"),
    "route-deleted": ("ip -n blue route del 192.0.2.0/24", "192.0.2.0/24"),
    "route-leads-elsewhere": ("ip -n blue route replace 192.0.2.0/24 via 10.9.0.8", "192.0.2.0/24"),
    "route-of-table-deleted": ("ip -n blue route flush table 200", "198.51.100.0/24"),
    "link-down": ("ip -n blue link set eth0 down", "eth0: it is down"),
    "link-deleted": ("ip -n blue link del eth0", "eth0"),
    "link-replaced": ("ip -n blue link del eth0; ip -n blue link add eth0 type bridge", "eth0"),
    "mac-changed": ("ip -n blue link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
    "port-not-enslaved": ("ip link set {port} nomaster", "lab0"),
    "port-of-another-bridge": ("ip link add lab9 type bridge; ip link set {port} master lab9", "lab0"),
    "port-down": ("ip link set {port} down", "{port}: it is down"),
    "port-renamed": ("ip link set {port} down; ip link set {port} name lost0", "eth0"),
    "port-not-isolated": ("bridge link set dev {port} isolated off", "isolation"),
    "port-hairpin": ("bridge link set dev {port} hairpin on", "hairpin"),
    "bridge-deleted": ("ip link del lab0", "lab0"),
    "bridge-replaced": ("ip link del lab0; ip link add lab0 type veth peer name other", "lab0"),
    "bridge-down": ("ip link set lab0 down", "lab0: it is down"),
    "bridge-mac-changed": ("ip link set lab0 address 02:00:00:00:00:98", "02:00:00:00:00:98"),
    "bridge-not-promiscuous": ("ip link set lab0 promisc off", "promiscuous"),
    "gateway-deleted": ("ip addr del 10.9.0.1/24 dev lab0", "gateway 10.9.0.1 is missing"),
    "ipv6-gateway-deleted": ("ip addr del fd09::1/64 dev lab0", "gateway fd09::1 is missing"),
    "masquerading-deleted": ("nft delete table inet cnisandbox_masquerade", "masquerad"),
    "masquerading-rules-deleted": ("nft flush chain inet cnisandbox_masquerade {masquerade}", "masquerad"),
    "masquerading-never-asked": ("nft flush chain inet cnisandbox_masquerade postrouting", "masquerad"),
    "masquerading-of-one-deleted": (
        "nft delete element inet cnisandbox_masquerade sources4 '{{ 10.9.0.2 }}'",
        "masquerad",
    ),
    "spoof-check-deleted": ("nft flush table bridge nat", "macspoofchk"),
    "spoof-check-of-no-mac": ("nft flush chain bridge nat cni-br-iface-c1-eth0-mac", "macspoofchk"),
    "reservation-deleted": ("rm /var/lib/cni/networks/lab/10.9.0.2 /var/lib/cni/networks/lab/fd09::2", "c1"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(plugins: Plugins, name: str) -> None:
    command, part = DAMAGE[name]
    result = plugins.add(NETCONF)
    plugins.check(NETCONF, result)
    port = result["interfaces"][1]["name"]
    plugins.world.run(["sh", "-ec", command.format(port=port, masquerade=own_chain(plugins.world))])
    error = plugins.fail("CHECK", with_prev_result(NETCONF, result))
    assert error["code"] == CHECK_FAILED
    assert part.format(port=port) in error["msg"]


def own_chain(world: World) -> str:
    chains: list[str] = [item["chain"]["name"] for item in world.nft_ruleset() if "chain" in item]
    return next(name for name in chains if name.startswith("cni-") and "iface" not in name)


WRONG: dict[str, Callable[[Any], Any]] = {
    "container-not-listed": lambda result: {**result, "interfaces": result["interfaces"][:2], "ips": []},
    "port-not-listed": lambda result: {**result, "interfaces": result["interfaces"][::2], "ips": []},
    "other-sandbox": lambda result: replaced(result, 2, sandbox="/run/netns/red"),
    "other-mac": lambda result: replaced(result, 2, mac="02:00:00:00:00:97"),
    "other-mac-of-bridge": lambda result: replaced(result, 0, mac="02:00:00:00:00:97"),
    "address-that-is-not-there": lambda result: {
        **result, "ips": [*result["ips"], {"address": "10.9.0.99/24", "interface": 2}]
    },
    "route-that-is-not-there": lambda result: {**result, "routes": [*result["routes"], {"dst": "203.0.113.0/24"}]},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_other_result_than_that_of_add_is_found(plugins: Plugins, name: str) -> None:
    result = plugins.add(NETCONF)
    error = plugins.fail("CHECK", with_prev_result(NETCONF, WRONG[name](result)))
    assert error["code"] == CHECK_FAILED


def replaced(result: JsonObject, index: int, **fields: str) -> JsonObject:
    interfaces = list(result["interfaces"])
    interfaces[index] = {**interfaces[index], **fields}
    return {**result, "interfaces": interfaces}


FINE: dict[str, JsonObject] = {
    "everything": NETCONF,
    "layer2": LAYER2,
    "layer2-left-down": changed(LAYER2, disableContainerInterface=True),
    "no-gateway": changed(BRIDGE, isGateway=False),
    "host-prefix": changed(BRIDGE, isGateway=False, ipam={"type": "static", "addresses": [{"address": "10.9.0.5/32"}]}),
    "host-prefix-ipv6": changed(
        BRIDGE, isGateway=False, ipam={"type": "static", "addresses": [{"address": "fd09::5/128"}]}
    ),
    "routes-without-gw": changed(BRIDGE, ipam__routes=[{"dst": "192.0.2.0/24"}, {"dst": "0.0.0.0/0"}]),
    "routes-on-link": changed(BRIDGE, ipam__routes=[{"dst": "192.0.2.0/24", "scope": 253}]),
    "routes-with-metrics": changed(
        BRIDGE, ipam__routes=[{"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1000, "priority": 5}]
    ),
    "routes-with-host-bits": changed(BRIDGE, ipam__routes=[{"dst": "192.0.2.7/24"}]),
    "mac-in-capitals": changed(BRIDGE, runtimeConfig={"mac": "C2:B0:57:49:47:F1"}),
}


@pytest.mark.parametrize("name", FINE)
def test_what_add_made_is_right_and_stays_as_it_is(plugins: Plugins, plugin_dir: str, name: str) -> None:
    world = plugins.world
    with_static = Plugins(world, plugin_dir, path=f"{plugin_dir}:/usr/lib/cni")
    netconf = FINE[name]
    result = with_static.add(netconf)
    before = observe(world, "blue").state
    with_static.check(netconf, result)
    assert differences(before, observe(world, "blue").state) == {}


def test_result_that_a_later_plugin_has_added_to_is_right(plugins: Plugins) -> None:
    """A runtime passes the last plugin's result: with other interfaces, addresses of theirs, and routes via both."""
    result = plugins.add(NETCONF)
    result["interfaces"] += [{"name": "bwp0"}, {"name": "net1", "sandbox": "/run/netns/blue"}]
    result["ips"] += [{"address": "172.16.0.2/24", "interface": 4}, {"address": "172.17.0.2/24", "interface": 3}]
    plugins.check(NETCONF, result)


def test_check_needs_a_result_and_a_netns(plugins: Plugins) -> None:
    result = plugins.add(NETCONF)
    assert plugins.fail("CHECK", NETCONF)["code"] == 7
    assert plugins.fail("CHECK", with_prev_result(NETCONF, result), netns="")["code"] == 4
    assert plugins.fail("CHECK", with_prev_result(NETCONF, result), netns="/run/netns/none")["code"] == 8
    assert plugins.fail("CHECK", with_prev_result(NETCONF, result), netns="red")["code"] == CHECK_FAILED

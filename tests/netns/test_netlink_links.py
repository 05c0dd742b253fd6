"""Links, veth pairs, bridges and ports, made by the netlink package and looked at with iproute2.

world ("host")   cni0 ── vethtest ─┐
netns "blue"                 eth0 ─┘
"""

import errno
import os

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink import vlan_gateway
from cnisandbox.netlink.bridge import (
    BridgePort,
    BridgeSetup,
    Vlan,
    ensure_bridge,
    get_port,
    list_vlans,
    set_port,
    set_vlans,
)
from cnisandbox.netlink.links import (
    Link,
    LinkChange,
    delete_link_by_index,
    get_link,
    get_link_by_index,
    set_link,
    set_up,
    wait_for_operstate_up,
)
from cnisandbox.netlink.veth import VethSetup, create_veth, get_peer
from cnisandbox.netlink.vlan_gateway import VlanGatewaySetup, ensure_vlan_gateway
from tests.world import kernel_has, requires_feature

BRIDGE = BridgeSetup("cni0", "02:00:00:00:00:01")


@pytest.fixture
def blue(world):
    """A container netns, as a descriptor."""
    world.netns("blue")
    fd = world.open_netns("blue")
    yield fd
    os.close(fd)


def gateway_of(bridge, setup):
    return ensure_vlan_gateway(bridge.ifindex, bridge.ifname, setup)


def test_link_is_described_as_the_kernel_has_it(world):
    world.run(["ip", "link", "add", "v0", "mtu", "1400", "type", "veth", "peer", "name", "v1"])
    world.run(["ip", "link", "set", "v0", "up", "alias", "made by hand", "promisc", "on", "txqueuelen", "77"])
    link = world.call(get_link, "v0")
    shown = world.link("v0")
    assert link == Link(
        ifindex=shown["ifindex"],
        ifname="v0",
        kind="veth",
        mac=shown["address"],
        mtu=1400,
        flags=link.flags,
        operstate="lowerlayerdown",
        master=0,
        peer=world.link("v1")["ifindex"],
        link_netnsid=None,
        alias="made by hand",
        promiscuity=1,
        txqlen=77,
        is_vlan_filtering=None,
    )
    assert (link.is_up, link.is_promisc, link.is_allmulti) == (True, True, False)
    assert world.call(get_link_by_index, link.ifindex) == link
    assert world.call(get_peer, "v0").ifname == "v1"


def test_lo_has_no_kind(world):
    link = world.call(get_link, "lo")
    assert (link.ifindex, link.kind, link.mac, link.operstate) == (1, "", "00:00:00:00:00:00", "unknown")


def test_missing_link_is_none(world):
    assert world.call(get_link, "nosuch0") is None
    assert world.call(get_link_by_index, 4711) is None
    assert world.call(get_peer, "nosuch0") is None


@pytest.mark.parametrize("ifname", ["", "a" * 16, "a/b", "..", "a b", "a:b", "a\x1bb", "\udcff" * 16])
def test_name_that_no_link_can_have_is_refused_before_the_kernel_is_asked(world, ifname):
    with pytest.raises(KernelRefused, match="invalid argument"):
        world.call(set_up, ifname, True)


def test_link_changes_in_one_message(world):
    world.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
    change = LinkChange(
        is_up=True, mac="02:00:00:00:00:09", mtu=1300, is_promisc=True, is_allmulti=True, alias="x", txqlen=5
    )
    link = world.call(lambda: set_link(get_link("v0").ifindex, change))
    shown = world.link("v0")
    assert {"UP", "PROMISC", "ALLMULTI"} <= set(shown["flags"])
    assert (shown["address"], shown["mtu"], shown["ifalias"], shown["txqlen"]) == ("02:00:00:00:00:09", 1300, "x", 5)
    assert (link.mac, link.mtu, link.alias, link.is_promisc) == ("02:00:00:00:00:09", 1300, "x", True)
    link = world.call(set_link, link.ifindex, LinkChange(is_up=False, is_promisc=False, alias="", ifname="renamed"))
    shown = world.link("renamed")
    assert not {"UP", "PROMISC"} & set(shown["flags"])
    assert "ifalias" not in shown


def test_change_of_a_missing_link_names_it(world):
    with pytest.raises(KernelRefused, match="change link with index 4711: no such device"):
        world.call(set_link, 4711, LinkChange(is_up=True))


def test_lo_goes_up_and_down_by_name(world):
    world.netns("blue")
    assert world.call(set_up, "lo", True, netns="blue").is_up
    assert "UP" in world.link("lo", "blue")["flags"]
    assert not world.call(set_up, "lo", False, netns="blue").is_up
    assert "UP" not in world.link("lo", "blue")["flags"]


def test_delete_is_silent_when_the_link_is_gone(world):
    world.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"])
    ifindex = world.link("v0")["ifindex"]
    assert world.call(delete_link_by_index, ifindex)
    assert world.ifnames() == {"lo"}
    assert not world.call(delete_link_by_index, ifindex)


def test_wait_for_operstate_up_sees_the_carrier_come(world):
    world.run(["ip", "link", "add", "v0", "up", "type", "veth", "peer", "name", "v1"])
    ifindex = world.link("v0")["ifindex"]
    assert world.call(wait_for_operstate_up, ifindex, 30) == "lowerlayerdown"
    child = world.popen(["ip", "link", "set", "v1", "up"])
    assert world.call(wait_for_operstate_up, ifindex, 5000) == "up"
    child.wait(timeout=10)
    with pytest.raises(KernelRefused, match="no such device"):
        world.call(wait_for_operstate_up, 4711, 1000)


def test_veth_ends_are_born_where_they_belong(world, blue):
    setup = VethSetup("vethtest", "eth0", blue, mtu=1410, mac="02:00:00:00:00:0a", peer_mac="02:00:00:00:00:0b")
    link = world.call(create_veth, setup)
    host, container = world.link("vethtest"), world.link("eth0", "blue")
    assert (host["mtu"], host["address"]) == (1410, "02:00:00:00:00:0a")
    assert (container["mtu"], container["address"]) == (1410, "02:00:00:00:00:0b")
    assert (link.peer, host["link_index"]) == (container["ifindex"], container["ifindex"])
    assert link.link_netnsid == host["link_netnsid"]
    assert "UP" in host["flags"]
    assert "UP" not in container["flags"]
    assert world.ifnames() == {"lo", "vethtest"}
    assert world.run(["cat", "/proc/sys/net/ipv6/conf/vethtest/accept_ra"]).stdout == b"0\n"
    assert world.call(get_peer, "vethtest") is None


def test_veth_end_is_a_bridge_port_at_once(world, blue):
    def make():
        bridge = ensure_bridge(BRIDGE).link
        setup = VethSetup(
            "vethtest", "eth0", blue, master=bridge.ifindex, is_hairpin=True, is_isolated=True, alias="cni x eth0"
        )
        return bridge, create_veth(setup)

    bridge, link = world.call(make)
    shown = world.link("vethtest")
    assert (shown["master"], shown["ifalias"]) == ("cni0", "cni x eth0")
    port = shown["linkinfo"]["info_slave_data"]
    assert (port["hairpin"], port["isolated"]) == (True, True)
    assert (link.master, link.alias, link.is_up) == (bridge.ifindex, "cni x eth0", True)
    assert world.call(get_port, link.ifindex) == BridgePort(bridge.ifindex, True, True)
    world.call(set_port, link.ifindex, False, None)
    assert world.call(get_port, link.ifindex) == BridgePort(bridge.ifindex, False, True)
    assert world.call(get_port, bridge.ifindex) is None


@pytest.mark.parametrize("taken", ["vethtest", "eth0"])
def test_veth_says_which_name_is_taken(world, blue, taken):
    world.run(["ip", "link", "add", taken, "type", "bridge"], netns=None if taken == "vethtest" else "blue")
    before = world.ifnames(), world.ifnames("blue")
    with pytest.raises(KernelRefused, match=f"create veth {taken}: file exists") as caught:
        world.call(create_veth, VethSetup("vethtest", "eth0", blue))
    assert (caught.value.errno, caught.value.target) == (errno.EEXIST, taken)
    assert '"vethtest" and "eth0"' in caught.value.details
    assert (world.ifnames(), world.ifnames("blue")) == before


def test_veth_that_cannot_be_finished_leaves_nothing(world, blue):
    with pytest.raises(KernelRefused, match="set up veth vethtest"):
        world.call(create_veth, VethSetup("vethtest", "eth0", blue, is_hairpin=True))  # not a port
    assert world.ifnames() == world.ifnames("blue") == {"lo"}


@pytest.mark.parametrize(
    "change", [{"master": 4711}, {"mac": "ff:ff:ff:ff:ff:ff"}, {"peer_mac": "nonsense"}, {"mtu": 7}]
)
def test_veth_that_the_kernel_refuses_leaves_nothing(world, blue, change):
    with pytest.raises(KernelRefused):
        world.call(create_veth, VethSetup("vethtest", "eth0", blue)._replace(**change))
    assert world.ifnames() == world.ifnames("blue") == {"lo"}


def test_bridge_is_made_with_its_own_address_and_keeps_it(world, blue):
    setup = BRIDGE._replace(mtu=1450, alias="ours", is_promisc=True)
    made = world.call(ensure_bridge, setup)
    shown = world.link("cni0")
    assert made.is_created
    assert (shown["address"], shown["mtu"], shown["ifalias"]) == ("02:00:00:00:00:01", 1450, "ours")
    assert {"UP", "PROMISC"} <= set(shown["flags"])
    assert world.run(["cat", "/proc/sys/net/ipv6/conf/cni0/accept_ra"]).stdout == b"0\n"
    port = world.call(
        create_veth, VethSetup("vethtest", "eth0", blue, mac="00:00:00:00:00:02", master=made.link.ifindex)
    )
    world.call(delete_link_by_index, port.ifindex)
    assert world.link("cni0")["address"] == "02:00:00:00:00:01"


def test_bridge_that_is_there_is_used_as_it_is(world):
    world.run(["ip", "link", "add", "cni0", "address", "02:00:00:00:00:77", "mtu", "1333", "type", "bridge"])
    found = world.call(ensure_bridge, BRIDGE._replace(mtu=1450, alias="ours"))
    shown = world.link("cni0")
    assert not found.is_created
    assert found.link.ifindex == shown["ifindex"]
    assert (shown["address"], shown["mtu"], shown.get("ifalias")) == ("02:00:00:00:00:77", 1333, None)
    assert "UP" in shown["flags"]
    again = world.call(ensure_bridge, BRIDGE._replace(is_promisc=True))
    assert (again.is_created, again.link.is_promisc) == (False, True)
    assert world.call(ensure_bridge, BRIDGE).link.is_promisc


def test_bridge_that_lost_its_address_with_its_last_port_gets_one(world):
    world.run(["ip", "link", "add", "cni0", "type", "bridge"])
    world.run(["ip", "link", "add", "v0", "master", "cni0", "type", "veth", "peer", "name", "v1"])
    world.run(["ip", "link", "delete", "v0"])
    assert world.link("cni0")["address"] == "00:00:00:00:00:00"
    assert world.call(ensure_bridge, BRIDGE).link.mac == "02:00:00:00:00:01"
    assert world.link("cni0")["address"] == "02:00:00:00:00:01"


def test_name_of_another_kind_of_link_is_no_bridge(world):
    world.run(["ip", "link", "add", "cni0", "type", "veth", "peer", "name", "v1"])
    with pytest.raises(KernelRefused) as caught:
        world.call(ensure_bridge, BRIDGE)
    assert caught.value.errno == errno.EEXIST
    assert caught.value.details == '"cni0" already exists but is not a bridge'


def test_vlan_filtering_is_had_or_refused_by_name(world):
    wanted = BRIDGE._replace(wants_vlan_filtering=True)
    if kernel_has("feature", "bridge-vlan-filtering"):
        assert world.call(ensure_bridge, wanted).link.is_vlan_filtering
        return

    def gateway():
        return gateway_of(ensure_bridge(BRIDGE).link, VlanGatewaySetup(100, "vethgw"))

    for attempt, left in ((lambda: ensure_bridge(wanted), {"lo"}), (gateway, {"lo", "cni0"})):
        with pytest.raises(KernelRefused, match="operation not supported") as caught:
            world.call(attempt)
        assert "CONFIG_BRIDGE_VLAN_FILTERING" in caught.value.details
        assert world.ifnames() == left
    with pytest.raises(KernelRefused, match="enable VLAN filtering cni0: operation not supported"):
        world.call(ensure_bridge, wanted)


@requires_feature("bridge-vlan-filtering")
def test_port_has_the_vlans_it_is_given(world, blue):
    def make():
        bridge = ensure_bridge(BRIDGE._replace(wants_vlan_filtering=True)).link
        port = create_veth(VethSetup("vethtest", "eth0", blue, master=bridge.ifindex))
        set_vlans(port.ifindex, [Vlan(100, 100, True, True), Vlan(200, 210)], is_exclusive=True)
        return bridge, port, list_vlans(port.ifindex)

    bridge, port, vlans = world.call(make)
    assert bridge.is_vlan_filtering
    assert vlans == [Vlan(100, 100, True, True), Vlan(200, 210)]
    (shown,) = world.bridge("vlan", "show", "dev", "vethtest")
    assert {entry["vlan"] for entry in shown["vlans"]} == {100, 200}
    world.call(set_vlans, port.ifindex, [Vlan(300, 300)], False)
    assert world.call(list_vlans, port.ifindex) == [*vlans, Vlan(300, 300)]


@requires_feature("bridge-vlan-filtering")
def test_filtering_is_turned_on_on_a_bridge_that_is_there(world):
    world.run(["ip", "link", "add", "cni0", "type", "bridge"])
    found = world.call(ensure_bridge, BRIDGE._replace(wants_vlan_filtering=True))
    assert (found.is_created, found.link.is_vlan_filtering) == (False, True)


@requires_feature("bridge-vlan-filtering")
def test_vlan_gateway_is_made_once(world):
    def make():
        bridge = ensure_bridge(BRIDGE._replace(wants_vlan_filtering=True)).link
        setup = VlanGatewaySetup(100, "vethgw", mac="02:00:00:00:00:64", mtu=1440, alias="gw")
        return gateway_of(bridge, setup), gateway_of(bridge, setup._replace(port_ifname="other"))

    made, found = world.call(make)
    assert (made.is_created, found.is_created) == (True, False)
    assert made.link.ifindex == found.link.ifindex
    shown = world.link("cni0.100")
    assert (shown["address"], shown["mtu"], shown["ifalias"]) == ("02:00:00:00:00:64", 1440, "gw")
    assert "UP" in shown["flags"]
    assert world.link("vethgw")["master"] == "cni0"
    (port,) = world.bridge("vlan", "show", "dev", "vethgw")
    assert [(entry["vlan"], set(entry["flags"])) for entry in port["vlans"]] == [(100, {"PVID", "Egress Untagged"})]


def test_vlan_gateway_name_of_another_link_is_refused(world):
    world.run(["ip", "link", "add", "cni0.100", "type", "veth", "peer", "name", "v1"])
    with pytest.raises(KernelRefused) as caught:
        world.call(lambda: gateway_of(ensure_bridge(BRIDGE).link, VlanGatewaySetup(100, "vethgw")))
    assert caught.value.errno == errno.EEXIST
    assert "not a veth whose other end is a port of" in caught.value.details


def test_vlan_gateway_is_a_pair_on_the_bridge_also_where_vlans_cannot_be_tested(world, monkeypatch):
    """All but the VLANs themselves, for kernels without them."""
    asked = []
    monkeypatch.setattr(vlan_gateway, "set_vlans", lambda *args, **options: asked.append((args[1:], options)))

    def make():
        bridge = ensure_bridge(BRIDGE).link
        setup = VlanGatewaySetup(100, "vethgw", mac="02:00:00:00:00:64", mtu=1440, alias="gw")
        made = gateway_of(bridge, setup), gateway_of(bridge, setup._replace(port_ifname="other"))
        return *made, asked

    made, found, asked = world.call(make)
    assert (made.is_created, found.is_created) == (True, False)
    assert made.link.ifindex == found.link.ifindex == world.link("cni0.100")["ifindex"]
    shown = world.link("cni0.100")
    assert (shown["address"], shown["mtu"], shown["ifalias"]) == ("02:00:00:00:00:64", 1440, "gw")
    assert "UP" in shown["flags"]
    assert world.link("vethgw")["master"] == "cni0"
    assert world.run(["cat", "/proc/sys/net/ipv6/conf/cni0.100/accept_ra"]).stdout == b"0\n"
    access = [Vlan(100, 100, True, True)]
    assert asked == [((access,), {"is_exclusive": True}), ((access,), {"is_exclusive": False})]

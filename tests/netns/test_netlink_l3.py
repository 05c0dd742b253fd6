"""Addresses, routes and the configuration of a container's interface, looked at with iproute2.

world ("host")   cni0 10.1.2.1/24, fd00:1::1/64 ── vethtest ─┐
netns "blue"                                           eth0 ─┘
"""

import errno
import os
import subprocess

import prctl
import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink import addresses
from cnisandbox.netlink.addresses import (
    AddressChange,
    LinkAddress,
    add_address,
    delete_address,
    ensure_addresses,
    list_addresses,
)
from cnisandbox.netlink.bridge import BridgeSetup, ensure_bridge
from cnisandbox.netlink.interface import (
    InterfaceAddress,
    InterfaceSetup,
    announce_addresses,
    check_interface,
    configure_interface,
)
from cnisandbox.netlink.links import get_link, wait_for_operstate_up
from cnisandbox.netlink.routes import Route, add_route, delete_route, list_routes, missing_routes
from cnisandbox.netlink.veth import VethSetup, create_veth
from tests.world import wait_until

V4 = InterfaceAddress("10.1.2.3/24", "10.1.2.1")
V6 = InterfaceAddress("fd00:1::3/64", "fd00:1::1")


@pytest.fixture
def pod(world):
    """The topology above, without addresses in blue; eth0 is down."""
    world.netns("blue")
    netns_fd = world.open_netns("blue")

    def make():
        bridge = ensure_bridge(BridgeSetup("cni0", "02:00:00:00:00:01")).link
        ensure_addresses(bridge.ifindex, "cni0", ["10.1.2.1/24", "fd00:1::1/64"], False, True)
        return create_veth(VethSetup("vethtest", "eth0", netns_fd, master=bridge.ifindex)).peer

    world.eth0 = world.call(make)
    os.close(netns_fd)
    return world


def addresses_of(world, ifname, netns=None):
    return [
        f"{info['local']}/{info['prefixlen']}"
        for info in world.ip("address", "show", "dev", ifname, netns=netns)[0]["addr_info"]
        if info["scope"] == "global"
    ]


def sysctl(world, key, netns="blue"):
    return world.run(["cat", f"/proc/sys/net/{key}"], netns=netns).stdout.decode().strip()


def routes_of(world, *what, family="-4"):
    return world.ip(family, "route", "show", *what, netns="blue")


def test_address_has_the_broadcast_address_of_its_prefix(pod):
    for address in ("10.1.2.3/24", "10.2.0.1/31", "10.3.0.1/32", "fd00:1::3/64"):
        pod.call(add_address, pod.eth0, address, True, netns="blue")
    shown = pod.ip("address", "show", "dev", "eth0", netns="blue")[0]["addr_info"]
    assert [(info["local"], info.get("broadcast")) for info in shown] == [
        ("10.1.2.3", "10.1.2.255"),
        ("10.2.0.1", None),
        ("10.3.0.1", None),
        ("fd00:1::3", None),
    ]
    assert [info.get("nodad") for info in shown] == [None, None, None, True]
    assert pod.call(list_addresses, pod.eth0, netns="blue") == [
        LinkAddress(address, 0, False, False)
        for address in ("10.1.2.3/24", "10.2.0.1/31", "10.3.0.1/32", "fd00:1::3/64")
    ]


def test_addresses_of_one_link_only_are_listed(pod):
    listed = pod.call(lambda: list_addresses(get_link("cni0").ifindex))
    assert [address.address for address in listed if address.scope == 0] == ["10.1.2.1/24", "fd00:1::1/64"]
    assert [address.address for address in pod.call(list_addresses, 1)] == ["127.0.0.1/8", "::1/128"]
    assert pod.call(list_addresses, 4711) == []


def test_address_that_is_there_is_refused_and_one_that_is_not_is_deleted_silently(pod):
    pod.call(add_address, pod.eth0, "10.1.2.3/24", True, netns="blue")
    with pytest.raises(KernelRefused, match=r"add address 10\.1\.2\.3/24 to link \d+: file exists") as caught:
        pod.call(add_address, pod.eth0, "10.1.2.3/24", True, netns="blue")
    assert caught.value.errno == errno.EEXIST
    assert pod.call(delete_address, pod.eth0, "10.1.2.3/24", netns="blue")
    assert not pod.call(delete_address, pod.eth0, "10.1.2.3/24", netns="blue")
    assert not pod.call(delete_address, 4711, "fd00::1/64", netns="blue")
    assert addresses_of(pod, "eth0", "blue") == []


@pytest.mark.parametrize(
    "text", ["", "10.1.2.3", "10.1.2.3/33", "10.1.2/24", "fd00::/129", "1.2.3.4/+1", "a\0/1", "1/٣"]
)
def test_text_that_is_no_address_is_refused(world, text):
    with pytest.raises(KernelRefused, match="invalid argument"):
        world.call(add_address, 1, text, True)


@pytest.mark.parametrize(
    ("there", "wanted", "removed"),
    [
        ([], ["10.1.2.1/24", "fd00:1::1/64"], []),
        (["10.1.2.1/24"], ["10.1.2.1/24"], []),
        (["fd00:2::1/64"], ["fd00:1::1/64", "10.1.2.1/24"], []),
        ([], ["10.1.2.1/24", "10.1.3.1/24"], []),
        (["10.9.9.1/24"], ["10.1.2.1/24"], ["10.9.9.1/24"]),
        (["10.1.2.1/16"], ["10.1.2.1/24"], ["10.1.2.1/16"]),
        (["fd00:1::2/64", "fd00:3::1/64"], ["fd00:1::1/64"], ["fd00:1::2/64"]),
        (["fd00::1/16"], ["fd00:1::1/64"], ["fd00::1/16"]),
    ],
)
def test_gateway_addresses_of_a_bridge(world, there, wanted, removed):
    world.run(["ip", "link", "add", "cni0", "up", "type", "bridge"])
    for address in there:
        world.run(["ip", "address", "add", address, "dev", "cni0", "nodad"])
    ifindex = world.link("cni0")["ifindex"]
    if removed:
        with pytest.raises(KernelRefused) as caught:
            world.call(ensure_addresses, ifindex, "cni0", wanted, False, True)
        assert f'"cni0" already has an IP address different from {wanted[0]}' in caught.value.details
        assert set(addresses_of(world, "cni0")) == set(there)
    change = world.call(ensure_addresses, ifindex, "cni0", wanted, True, True)
    assert change == AddressChange([address for address in wanted if address not in there], removed)
    assert set(addresses_of(world, "cni0")) == (set(there) | set(wanted)) - set(removed)
    assert world.call(ensure_addresses, ifindex, "cni0", wanted, False, True) == AddressChange([], [])


GATEWAYS = ["10.1.2.1/24", "fd00:1::1/64"]


def ensured_while_another_acts(world, monkeypatch, *turns):
    """Give cni0 its addresses; another process acts before each look, and between it and the change."""
    world.run(["ip", "link", "add", "cni0", "up", "type", "bridge"])
    ifindex = world.link("cni0")["ifindex"]
    pending = list(turns)

    def look(ifindex):
        before, after = pending.pop(0) if pending else ("", "")
        subprocess.run(["ip", "-batch", "-"], input=before, text=True, check=True)
        listed = dump_addresses(ifindex)
        subprocess.run(["ip", "-batch", "-"], input=after, text=True, check=True)
        return listed

    dump_addresses = addresses._dump_addresses
    monkeypatch.setattr(addresses, "_dump_addresses", look)
    return world.call(ensure_addresses, ifindex, "cni0", GATEWAYS, False, True)


@pytest.mark.parametrize("there", [GATEWAYS[:1], GATEWAYS[1:], GATEWAYS])
def test_gateway_address_that_another_adds_at_the_same_time_is_kept(world, monkeypatch, there):
    commands = "".join(f"address add {address} dev cni0 nodad\n" for address in there)
    change = ensured_while_another_acts(world, monkeypatch, ("", commands))
    assert change == AddressChange([address for address in GATEWAYS if address not in there], [])
    assert addresses_of(world, "cni0") == GATEWAYS


ADD_GATEWAY, DELETE_GATEWAY = (f"address {verb} {GATEWAYS[0]} dev cni0" for verb in ("add", "delete"))


def test_gateway_address_that_another_removes_again_is_added(world, monkeypatch):
    change = ensured_while_another_acts(world, monkeypatch, ("", ADD_GATEWAY), (DELETE_GATEWAY, ""))
    assert change == AddressChange([GATEWAYS[1], GATEWAYS[0]], [])
    assert set(addresses_of(world, "cni0")) == set(GATEWAYS)


def test_address_in_the_way_that_another_adds_at_the_same_time_is_named(world, monkeypatch):
    with pytest.raises(KernelRefused, match="add address fd00:1::1/64 to cni0: file exists") as caught:
        ensured_while_another_acts(world, monkeypatch, ("", "address add fd00:1::1/80 dev cni0 nodad"))
    assert caught.value.details.endswith("different from fd00:1::1/64: fd00:1::1/80")


def test_addresses_that_change_faster_than_they_are_read_end_the_attempt(world, monkeypatch):
    turns = [("", ADD_GATEWAY), *[(DELETE_GATEWAY, ADD_GATEWAY)] * addresses.MAX_TRIES]
    with pytest.raises(KernelRefused, match=r"add address 10\.1\.2\.1/24 to cni0: file exists") as caught:
        ensured_while_another_acts(world, monkeypatch, *turns)
    assert "faster than they are read" in caught.value.details


def test_interface_is_configured_in_one_call(pod):
    routes = [Route("0.0.0.0/0"), Route("::/0"), Route("192.168.0.0/16", "10.1.2.9", mtu=1300, advmss=1200, priority=7)]
    setup = InterfaceSetup("eth0", [V4, V6], routes, alias="cni x eth0")
    link = pod.call(configure_interface, setup, netns="blue")
    shown = pod.link("eth0", "blue")
    assert (link.mac, link.is_up, link.alias) == (shown["address"], True, "cni x eth0")
    assert (shown["ifalias"], "UP" in shown["flags"]) == ("cni x eth0", True)
    assert addresses_of(pod, "eth0", "blue") == ["10.1.2.3/24", "fd00:1::3/64"]
    assert not any(info.get("tentative") for info in pod.ip("address", netns="blue")[0]["addr_info"])
    (default,) = routes_of(pod, "default")
    assert (default["gateway"], default["protocol"]) == ("10.1.2.1", "boot")
    (default6,) = routes_of(pod, "default", family="-6")
    assert default6["gateway"] == "fd00:1::1"
    (special,) = routes_of(pod, "192.168.0.0/16")
    assert (special["gateway"], special["metric"], special["metrics"]) == (
        "10.1.2.9", 7, [{"mtu": 1300, "advmss": 1200}]
    )  # fmt: skip
    assert [
        sysctl(pod, key)
        for key in ("ipv6/conf/eth0/accept_dad", "ipv6/conf/eth0/keep_addr_on_down", "ipv4/conf/eth0/arp_notify")
    ] == ["0", "1", "1"]
    for address in ("10.1.2.1", "fd00:1::1"):
        pod.run(["ping", "-c", "1", "-W", "2", address], netns="blue")
    state = pod.call(check_interface, setup, netns="blue")
    assert (state.link, state.missing_addresses, state.missing_routes) == (link._replace(operstate="up"), [], [])


def test_check_finds_what_is_missing_and_nothing_else(pod):
    routes = [
        Route("0.0.0.0/0"),
        Route("10.8.0.0/16", table=200),
        Route("10.9.0.0/16", "10.1.2.7", mtu=1300),
        Route("fd09::/16", priority=5),
        Route("10.10.0.7/32", scope=253),
    ]
    setup = InterfaceSetup("eth0", [V4, V6, InterfaceAddress("10.7.7.7/32")], routes)
    pod.call(configure_interface, setup, netns="blue")
    assert pod.call(check_interface, setup, netns="blue")[2:] == ([], [])
    pod.run(["ip", "address", "delete", "10.7.7.7/32", "dev", "eth0"], netns="blue")
    pod.run(["ip", "route", "delete", "10.8.0.0/16", "table", "200"], netns="blue")
    pod.run(["ip", "route", "change", "10.9.0.0/16", "via", "10.1.2.7", "mtu", "1400"], netns="blue")
    pod.run(["ip", "-6", "route", "delete", "fd09::/16"], netns="blue")
    state = pod.call(check_interface, setup, netns="blue")
    assert state.missing_addresses == ["10.7.7.7/32"]
    assert state.missing_routes == [
        Route("10.8.0.0/16", "10.1.2.1", table=200),
        Route("10.9.0.0/16", "10.1.2.7", mtu=1300),
        Route("fd09::/16", "fd00:1::1", priority=5),
    ]
    assert pod.call(check_interface, setup._replace(ifname="nosuch0"), netns="blue") is None


def test_check_changes_nothing(pod):
    setup = InterfaceSetup("eth0", [V4, V6], [Route("0.0.0.0/0")])
    before = pod.ip("address", netns="blue")
    state = pod.call(check_interface, setup, netns="blue")
    assert (state.missing_addresses, len(state.missing_routes)) == (["10.1.2.3/24", "fd00:1::3/64"], 1)
    assert pod.ip("address", netns="blue") == before


def test_route_on_the_link_gets_no_gateway(pod):
    routes = [Route("10.8.0.0/16", scope=253), Route("10.9.0.0/16", scope=0)]
    pod.call(configure_interface, InterfaceSetup("eth0", [V4], routes), netns="blue")
    assert routes_of(pod, "10.8.0.0/16")[0].get("gateway") is None
    assert routes_of(pod, "10.8.0.0/16")[0]["scope"] == "link"
    assert routes_of(pod, "10.9.0.0/16")[0]["gateway"] == "10.1.2.1"


def test_gateway_outside_every_prefix_is_reached_over_a_route_on_the_link(pod):
    routes = [Route("10.1.2.1/32"), Route("0.0.0.0/0", "10.1.2.1")]
    setup = InterfaceSetup("eth0", [InterfaceAddress("10.1.2.3/32")], routes)
    pod.call(configure_interface, setup, netns="blue")
    pod.run(["ip", "route", "add", "10.1.2.3/32", "dev", "cni0"])
    pod.run(["ping", "-c", "1", "-W", "2", "10.1.2.1"], netns="blue")
    assert pod.call(check_interface, setup, netns="blue")[2:] == ([], [])


def test_same_route_twice_is_one_and_another_gateway_is_a_second(pod):
    routes = [Route("10.8.0.0/16"), Route("10.8.0.0/16", "10.1.2.1"), Route("10.8.0.0/16", "10.1.2.7")]
    routes += [Route("fd08::/16"), Route("fd08::/16", "fd00:1::1"), Route("fd08::/16", "fd00:1::7")]
    setup = InterfaceSetup("eth0", [V4, V6], routes)
    pod.call(configure_interface, setup, netns="blue")
    assert [route["gateway"] for route in routes_of(pod, "10.8.0.0/16")] == ["10.1.2.7", "10.1.2.1"]
    assert pod.call(check_interface, setup, netns="blue").missing_routes == []


def test_unreachable_gateway_is_refused_with_the_kernels_words(pod):
    setup = InterfaceSetup("eth0", [V4], [Route("0.0.0.0/0", "172.16.0.1")])
    with pytest.raises(KernelRefused) as caught:
        pod.call(configure_interface, setup, netns="blue")
    assert caught.value.errno == errno.ENETUNREACH
    assert caught.value.target.startswith("0.0.0.0/0 via 172.16.0.1")
    assert "Nexthop has invalid gateway" in caught.value.details


def test_interface_that_is_not_there_is_refused(world):
    with pytest.raises(KernelRefused, match="get link eth0: no such device"):
        world.call(configure_interface, InterfaceSetup("eth0", [], []))


def test_interface_can_be_left_down(pod):
    link = pod.call(configure_interface, InterfaceSetup("eth0", [], [], is_up=False), netns="blue")
    assert not link.is_up
    assert "UP" not in pod.link("eth0", "blue")["flags"]


def test_ipv6_that_was_turned_off_is_turned_on_where_it_is_needed(pod):
    for name in ("lo", "eth0"):
        pod.run(["sh", "-c", f"echo 1 > /proc/sys/net/ipv6/conf/{name}/disable_ipv6"], netns="blue")
    pod.call(configure_interface, InterfaceSetup("eth0", [V4], []), netns="blue")
    assert sysctl(pod, "ipv6/conf/eth0/disable_ipv6") == "1"
    pod.call(configure_interface, InterfaceSetup("eth0", [V6], []), netns="blue")
    assert [sysctl(pod, f"ipv6/conf/{name}/disable_ipv6") for name in ("lo", "eth0")] == ["0", "0"]
    assert addresses_of(pod, "eth0", "blue") == ["10.1.2.3/24", "fd00:1::3/64"]


def test_ipv6_addresses_stay_when_the_link_goes_down(pod):
    pod.call(configure_interface, InterfaceSetup("eth0", [V6], []), netns="blue")
    pod.run(["ip", "link", "set", "eth0", "down"], netns="blue")
    assert addresses_of(pod, "eth0", "blue") == ["fd00:1::3/64"]


def test_duplicate_address_is_found_when_wanted(pod):
    pod.run(["ip", "address", "add", V6.address, "dev", "cni0", "nodad"])
    setup = InterfaceSetup("eth0", [V6], [], wants_dad=True)
    with pytest.raises(KernelRefused, match=r"add address fd00:1::3/64 to eth0: address already in use"):
        pod.call(configure_interface, setup, netns="blue")
    assert sysctl(pod, "ipv6/conf/eth0/enhanced_dad") == "1"


def test_wanted_detection_is_waited_for(pod):
    setup = InterfaceSetup("eth0", [V4, V6], [Route("::/0")], wants_dad=True)
    pod.call(configure_interface, setup, netns="blue")
    info = pod.ip("-6", "address", "show", "dev", "eth0", "scope", "global", netns="blue")[0]["addr_info"]
    assert not any(address.get("tentative") for address in info)
    assert pod.call(check_interface, setup, netns="blue")[2:] == ([], [])


@pytest.mark.parametrize("item", [V4, V6])
def test_neighbours_that_know_another_owner_are_told(pod, item):
    address = item.address.partition("/")[0]
    stale = ["lladdr", "02:00:00:00:00:ee", "dev", "cni0", "nud", "stale"]
    pod.run(["ip", "neighbour", "add", address, *stale])
    link = pod.call(configure_interface, InterfaceSetup("eth0", [item], []), netns="blue")
    assert pod.call(lambda: wait_for_operstate_up(get_link("vethtest").ifindex, 5000)) == "up"
    pod.call(announce_addresses, link.ifindex, link.mac, netns="blue")
    wait_until(lambda: [n["lladdr"] for n in pod.ip("neighbour", "show", address, "dev", "cni0")] == [link.mac])


def test_routes_are_added_listed_and_deleted(pod):
    pod.call(configure_interface, InterfaceSetup("eth0", [V4, V6], []), netns="blue")
    wanted = [
        Route("10.8.1.9/16", "10.1.2.1", mtu=1300, advmss=1200, priority=3, table=1000),
        Route("fd08::/16", "fd00:1::1", table=1000),
    ]
    for route in wanted:
        assert pod.call(add_route, pod.eth0, route, netns="blue")
        assert not pod.call(add_route, pod.eth0, route, netns="blue")
    listed = pod.call(list_routes, pod.eth0, 1000, netns="blue")
    assert [(route.dst, route.gw, route.mtu, route.advmss, route.priority, route.table) for route in listed] == [
        ("10.8.0.0/16", "10.1.2.1", 1300, 1200, 3, 1000),
        ("fd08::/16", "fd00:1::1", 0, 0, 1024, 1000),
    ]
    assert {route.table for route in pod.call(list_routes, pod.eth0, 0, netns="blue")} == {254, 255, 1000}
    assert pod.call(list_routes, pod.eth0, 77, netns="blue") == []
    assert pod.call(missing_routes, pod.eth0, wanted, netns="blue") == []
    assert pod.call(missing_routes, 1, wanted, netns="blue") == wanted
    for route in wanted:
        assert pod.call(delete_route, pod.eth0, route, netns="blue")
        assert not pod.call(delete_route, pod.eth0, route, netns="blue")
    assert pod.call(missing_routes, pod.eth0, wanted, netns="blue") == wanted


def test_everything_works_without_uid_0_with_cap_net_admin_alone(world):
    world.netns("blue")
    netns_fd = world.open_netns("blue")

    def as_service_user(function, *args):
        prctl.securebits.keep_caps = True
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        prctl.cap_permitted.limit(prctl.CAP_NET_ADMIN)
        prctl.cap_effective.net_admin = True
        return function(*args)

    def host():
        bridge = ensure_bridge(BridgeSetup("cni0", "02:00:00:00:00:01", is_promisc=True)).link
        ensure_addresses(bridge.ifindex, "cni0", ["10.1.2.1/24", "fd00:1::1/64"], False, True)
        setup = VethSetup("vethtest", "eth0", netns_fd, master=bridge.ifindex, is_isolated=True, alias="x")
        return create_veth(setup).alias, os.getuid()

    setup = InterfaceSetup("eth0", [V4, V6], [Route("0.0.0.0/0"), Route("::/0")])
    try:
        assert world.call(as_service_user, host) == ("x", 65534)
    finally:
        os.close(netns_fd)
    assert world.call(as_service_user, configure_interface, setup, netns="blue").is_up
    assert world.call(as_service_user, check_interface, setup, netns="blue")[2:] == ([], [])
    world.run(["ping", "-c", "1", "-W", "2", "fd00:1::1"], netns="blue")

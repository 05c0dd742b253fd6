"""Requests byte by byte, for what the machine's kernel may lack, and the cost of the package's import."""

import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink import bridge
from cnisandbox.netlink.bridge import Vlan, port_attributes, vlan_request, vlans_of
from cnisandbox.netlink.interface import InterfaceAddress, InterfaceSetup, resolve_gateways
from cnisandbox.netlink.links import link_header
from cnisandbox.netlink.message import Message, decode_messages, encode_message
from cnisandbox.netlink.prefix import parse_prefix
from cnisandbox.netlink.routes import InstalledRoute, Route, is_same
from cnisandbox.netlink.tables import ROUTE_TABLES
from cnisandbox.netlink.tables.link import RTM_DELLINK, RTM_NEWLINK, RTM_SETLINK
from cnisandbox.netlink.tables.vlan import RTM_GETVLAN, RTM_NEWVLAN

NLA_F_NESTED = 0x8000


def attribute(type_, payload):
    """An attribute, made with nothing of the package."""
    return struct.pack("=HH", 4 + len(payload), type_) + payload + b"\0" * (-len(payload) % 4)


def ifinfomsg(family, ifindex):
    return struct.pack("=BBHiII", family, 0, 0, ifindex, 0, 0)


def message(type_, body):
    return struct.pack("=IHHII", 16 + len(body), type_, 1, 7, 0) + body


def encoded(request):
    return encode_message(Message(request.type, 1, 7, 0, request.header, request.attributes), ROUTE_TABLES)


@pytest.mark.parametrize(("type_"), [RTM_SETLINK, RTM_DELLINK])
def test_vlans_of_a_port_are_asked_for_as_the_kernel_reads_them(type_):
    request = vlan_request(type_, 3, [Vlan(100, 100, is_pvid=True, is_untagged=True), Vlan(200, 210), Vlan(300, 300)])
    infos = [(0x2 | 0x4, 100), (0x8, 200), (0x10, 210), (0, 300)]
    spec = b"".join(attribute(2, struct.pack("=HH", *info)) for info in infos)
    assert encoded(request) == message(type_, ifinfomsg(7, 3) + attribute(26 | NLA_F_NESTED, spec))


@pytest.mark.parametrize("is_exclusive", [False, True])
def test_old_vlans_are_removed_before_new_ones_are_added(monkeypatch, is_exclusive):
    sent = []
    monkeypatch.setattr(bridge, "list_vlans", lambda ifindex: [Vlan(1, 1, True, True), Vlan(5, 9)])
    monkeypatch.setattr(bridge, "route_socket", lambda: SimpleNamespace(execute=sent.extend))
    bridge.set_vlans(3, [Vlan(100, 100, True, True)], is_exclusive)
    assert sent[-1] == vlan_request(RTM_SETLINK, 3, [Vlan(100, 100, True, True)])
    assert sent[:-1] == [vlan_request(RTM_DELLINK, 3, [Vlan(1, 1, True, True), Vlan(5, 9)])] * is_exclusive


def test_vlans_of_one_port_are_dumped_as_the_kernel_reads_them():
    request = Message(RTM_GETVLAN, 1, 7, 0, {"family": 7, "ifindex": 3}, {})
    assert encode_message(request, ROUTE_TABLES) == message(RTM_GETVLAN, struct.pack("=BBHI", 7, 0, 0, 3))


def test_vlans_of_a_port_are_read_as_the_kernel_writes_them():
    entries = [
        attribute(1, struct.pack("=HH", 0x2 | 0x4, 100)) + attribute(3, b"\x03"),
        attribute(1, struct.pack("=HH", 0, 200)) + attribute(2, struct.pack("=H", 210)) + attribute(3, b"\x03"),
    ]
    body = struct.pack("=BBHI", 7, 0, 0, 3) + b"".join(attribute(1 | NLA_F_NESTED, entry) for entry in entries)
    (decoded,) = decode_messages(message(RTM_NEWVLAN, body), ROUTE_TABLES)
    assert list(vlans_of(decoded)) == [Vlan(100, 100, is_pvid=True, is_untagged=True), Vlan(200, 210)]


def test_port_settings_are_asked_for_as_the_kernel_reads_them():
    request = Message(RTM_NEWLINK, 1, 7, 0, link_header(3), port_attributes(True, False))
    data = attribute(4, b"\x01") + attribute(33, b"\x00")
    info = attribute(4, b"bridge\0") + attribute(5 | NLA_F_NESTED, data)
    body = ifinfomsg(0, 3) + attribute(18 | NLA_F_NESTED, info)
    assert encode_message(request, ROUTE_TABLES) == message(RTM_NEWLINK, body)
    assert port_attributes(None, None) == {}


def test_vlan_filtering_is_asked_for_as_the_kernel_reads_it():
    attributes = {"ifname": "cni0", "linkinfo": {"kind": "bridge", "data": {"vlan_filtering": 1}}}
    info = attribute(1, b"bridge\0") + attribute(2 | NLA_F_NESTED, attribute(7, b"\x01"))
    body = ifinfomsg(0, 0) + attribute(3, b"cni0\0") + attribute(18 | NLA_F_NESTED, info)
    assert encode_message(Message(RTM_NEWLINK, 1, 7, 0, link_header(), attributes), ROUTE_TABLES) == message(
        RTM_NEWLINK, body
    )


def test_routes_without_next_hop_get_the_first_gateway_of_their_family():
    addresses = [
        InterfaceAddress("10.0.0.1/8"),
        InterfaceAddress("10.1.2.3/24", "10.1.2.1"),
        InterfaceAddress("10.1.3.3/24", "10.1.3.1"),
        InterfaceAddress("fd00::3/64", "fd00::1"),
    ]
    routes = [
        Route("0.0.0.0/0"),
        Route("::/0", scope=0),
        Route("10.9.0.0/16", "10.1.2.9"),
        Route("10.8.0.0/16", scope=253),
    ]
    resolved = resolve_gateways(InterfaceSetup("eth0", addresses, routes))
    assert [route.gw for route in resolved] == ["10.1.2.1", "fd00::1", "10.1.2.9", ""]
    assert [route.gw for route in resolve_gateways(InterfaceSetup("eth0", [], routes))] == ["", "", "10.1.2.9", ""]


FOUND = InstalledRoute("10.8.0.0/16", "10.1.2.1", 3, 1300, 1200, 7, 254, 0, 3, 1)


@pytest.mark.parametrize(
    ("wanted", "is_it"),
    [
        (Route("10.8.0.0/16", "10.1.2.1"), True),
        (Route("10.8.9.9/16", "10.1.2.1", 1300, 1200, 7, 254, 0), True),
        (Route("10.8.0.0/17", "10.1.2.1"), False),
        (Route("10.8.0.0/16"), False),
        (Route("10.8.0.0/16", "10.1.2.2"), False),
        (Route("10.8.0.0/16", "10.1.2.1", mtu=1400), False),
        (Route("10.8.0.0/16", "10.1.2.1", advmss=1), False),
        (Route("10.8.0.0/16", "10.1.2.1", priority=8), False),
        (Route("10.8.0.0/16", "10.1.2.1", table=100), False),
        (Route("10.8.0.0/16", "10.1.2.1", scope=253), False),
    ],
)
def test_installed_route_is_the_wanted_one(wanted, is_it):
    assert is_same(wanted, FOUND) is is_it
    assert not is_same(wanted, FOUND._replace(type=2))


@pytest.mark.parametrize(
    ("one", "other", "contains", "overlaps"),
    [
        ("10.1.2.3/24", "10.1.2.200/32", True, True),
        ("10.1.2.3/32", "10.1.2.200/24", False, True),
        ("10.1.2.3/24", "10.1.3.3/24", False, False),
        ("0.0.0.0/0", "10.1.3.3/24", True, True),
        ("::/0", "10.1.3.3/24", False, False),
        ("fd00::1/64", "fd00::ffff/128", True, True),
    ],
)
def test_prefixes_contain_and_overlap(one, other, contains, overlaps):
    first, second = parse_prefix(one, "test"), parse_prefix(other, "test")
    assert (first.contains(second), first.overlaps(second), second.overlaps(first)) == (contains, overlaps, overlaps)


def test_text_of_an_address_becomes_canonical():
    assert str(parse_prefix("FD00:0:0::0001/064", "test")) == "fd00::1/64"
    with pytest.raises(KernelRefused):
        parse_prefix("010.1.2.3/24", "test")


IMPORT = """
import struct, sys, typing
import cnisandbox.boundary.calls
before = set(sys.modules)
from cnisandbox.netlink import addresses, bridge, interface, links, routes, veth, vlan_gateway
print(*sorted(set(sys.modules) - before))
"""


def test_import_pulls_in_nothing_heavy_and_is_quick(tmp_path):
    environment = {"PYTHONPATH": os.getcwd(), "PYTHONPYCACHEPREFIX": str(tmp_path)}
    for _ in range(2):  # the first run compiles
        run = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", IMPORT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    others = {name for name in run.stdout.split() if not name.startswith(("cnisandbox.netlink", "cnisandbox.sysctl"))}
    gate = {"cnisandbox.monitor", "cnisandbox.monitor.client"}
    assert others <= {"_socket", "errno", "time", "cnisandbox.errors", *gate}
    own_us = sum(
        int(line.removeprefix("import time:").split("|")[0])
        for line in run.stderr.splitlines()
        if line.rpartition("|")[2].strip().startswith(("cnisandbox.netlink", "cnisandbox.sysctl"))
    )
    assert 0 < own_us < 30_000  # about 4 ms on a quiet machine; so much more means that something else got in

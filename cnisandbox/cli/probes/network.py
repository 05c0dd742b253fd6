"""What the kernel offers for networks: link kinds, nftables, traffic control."""

import fcntl
import importlib
import os
import struct
from collections.abc import Callable
from typing import Any

import pyroute2

from cnisandbox.boundary.syscalls import CLONE_NEWNET
from cnisandbox.cli.probes import Probe, Seen, attempt

_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_PROBE = "probe0"

_NAT = "add table inet t; add chain inet t c { type nat hook postrouting priority srcnat; };"
_CONCATENATED = (
    "add table inet t; add set inet t s { type ipv4_addr . ipv4_addr; flags interval; };"
    " add element inet t s { 10.0.0.0/8 . 10.1.0.1-10.1.0.9 };"
)


def _link(kind: str, **options: object) -> Callable[[], Seen]:
    def create() -> None:
        with pyroute2.IPRoute() as route:
            route.link("add", ifname=_PROBE, kind=kind, **options)

    return lambda: attempt(CLONE_NEWNET, create)


def _link_on_parent(kind: str, **options: object) -> Callable[[], Seen]:
    def create() -> None:
        with pyroute2.IPRoute() as route:
            route.link("add", ifname=_PROBE, kind=kind, link=_veth(route), **options)

    return lambda: attempt(CLONE_NEWNET, create)


def _qdisc(kind: str, **options: object) -> Callable[[], Seen]:
    def create() -> None:
        with pyroute2.IPRoute() as route:
            route.tc("add", kind, _veth(route), **options)

    return lambda: attempt(CLONE_NEWNET, create)


def _veth(route: Any) -> int:
    route.link("add", ifname="parent0", kind="veth", peer="parent1")
    return int(route.link_lookup(ifname="parent0")[0])


def _tun() -> Seen:
    def create() -> None:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", _PROBE.encode(), _IFF_TUN | _IFF_NO_PI))

    return attempt(CLONE_NEWNET, create)


def _nft(commands: str) -> Callable[[], Seen]:
    def run() -> None:
        nftables: Any = importlib.import_module("cnisandbox._nftables")  # in here, for doctor's very job is to miss it
        context = nftables.lib.nft_ctx_new(nftables.lib.NFT_CTX_DEFAULT)
        if context == nftables.ffi.NULL:
            raise OSError("libnftables gives no context")
        nftables.lib.nft_ctx_buffer_output(context)
        nftables.lib.nft_ctx_buffer_error(context)
        if nftables.lib.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
            answer = nftables.ffi.string(nftables.lib.nft_ctx_get_error_buffer(context)).decode(errors="replace")
            raise OSError(answer.partition("\n")[0].removeprefix("Error: "))

    return lambda: attempt(CLONE_NEWNET, run)


def _module(name: str) -> str:
    return f"modprobe {name}; on Debian and Ubuntu it is in the kernel's package (linux-modules-extra on some clouds)"


PROBES = (
    Probe("bridge", "plugin bridge", _module("bridge"), _link("bridge")),
    Probe("veth", "plugins bridge and ptp", _module("veth"), _link("veth", peer="probe1")),
    Probe(
        "bridge VLAN filtering",
        "plugin bridge with vlan or vlanTrunk",
        "a kernel with CONFIG_BRIDGE_VLAN_FILTERING",
        _link("bridge", br_vlan_filtering=1),
    ),
    Probe("macvlan", "plugin macvlan", _module("macvlan"), _link_on_parent("macvlan", macvlan_mode="bridge")),
    Probe("ipvlan", "plugin ipvlan", _module("ipvlan"), _link_on_parent("ipvlan", ipvlan_mode=0)),
    Probe("vlan", "plugin vlan; bridge with a VLAN gateway", _module("8021q"), _link_on_parent("vlan", vlan_id=5)),
    Probe("vrf", "plugin vrf", _module("vrf"), _link("vrf", vrf_table=10)),
    Probe("dummy", "plugin dummy", _module("dummy"), _link("dummy")),
    Probe("ifb", "plugin bandwidth, incoming traffic", _module("ifb"), _link("ifb")),
    Probe("tun", "plugin tap", _module("tun"), _tun),
    Probe("nftables", "ipMasq, portmap, firewall", _module("nf_tables"), _nft("add table inet t;")),
    Probe("nftables nat", "ipMasq, portmap", _module("nft_chain_nat"), _nft(_NAT)),
    Probe(
        "nftables masquerade",
        "ipMasq",
        _module("nft_masq"),
        _nft(_NAT + "add rule inet t c ip saddr 10.0.0.1 masquerade;"),
    ),
    Probe(
        "nftables bridge family",
        "macspoofchk",
        _module("nf_tables_bridge"),
        _nft("add table bridge t; add chain bridge t c { type filter hook prerouting priority -300; };"),
    ),
    Probe("nftables interval sets", "ipMasq with many attachments", _module("nf_tables"), _nft(_CONCATENATED)),
    Probe(
        "qdisc tbf",
        "plugin bandwidth",
        _module("sch_tbf"),
        _qdisc("tbf", rate="1mbit", latency="50ms", burst=20000),
    ),
    Probe("qdisc ingress", "plugin bandwidth", _module("sch_ingress"), _qdisc("ingress")),
)

"""The gateway of one VLAN on a bridge, "cni0.100": a veth pair, one end with the address, the other a port in the VLAN.

    container ── veth ──┐
                        cni0 ── port (PVID 100) ═══ cni0.100 10.1.2.1/24
    container ── veth ──┘

A VLAN link on the bridge would be simpler; the pair is what the reference plugin makes, and each must find the other's.

Privilege: CAP_NET_ADMIN in the netns.
"""

import errno

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.bridge import EnsuredLink, Vlan, set_vlans
from cnisandbox.netlink.links import (
    Link,
    LinkChange,
    checked_ifname,
    delete_link_by_index,
    get_link,
    get_link_by_index,
    set_link,
)
from cnisandbox.netlink.veth import VethSetup, create_veth
from cnisandbox.sysctl import ignore_router_advertisements


class VlanGatewaySetup(NamedTuple):
    """What the gateway of a VLAN is to be.

    Attributes:
        vlan: 1 to 4094.
        port_ifname: Name of the end that becomes a port, if the pair has to be made.
        mac: Of the end with the address, for a new pair; "" for a random one.
        mtu: Bytes, of both ends of a new pair; 0 for the kernel's default.
        alias: Of the end with the address, for a new pair; "" for none.
    """

    vlan: int
    port_ifname: str
    mac: str = ""
    mtu: int = 0
    alias: str = ""


@declared
def ensure_vlan_gateway(bridge: int, bridge_ifname: str, setup: VlanGatewaySetup) -> EnsuredLink:
    """Make "<bridge>.<vlan>" and set it up, or use the one that is there.

    Args:
        bridge: ifindex of a bridge with VLAN filtering.
        bridge_ifname: Its name.
        setup: What it is to be.

    Returns:
        The end with the address.

    Raises:
        KernelRefused: EEXIST if a link of that name is something else; EOPNOTSUPP if the kernel has no VLAN filtering.
            A pair that this call made is gone then.
    """
    ifname = checked_ifname("create VLAN gateway", f"{bridge_ifname}.{setup.vlan}")
    link = get_link(ifname)
    if link is not None:
        return EnsuredLink(_adapted(link, bridge, bridge_ifname, setup.vlan), is_created=False)
    pair = VethSetup(setup.port_ifname, ifname, mtu=setup.mtu, peer_mac=setup.mac, master=bridge)
    try:
        return EnsuredLink(_created(pair, setup), is_created=True)
    except KernelRefused as error:
        link = get_link(ifname) if (error.errno, error.target) == (errno.EEXIST, ifname) else None
        if link is None:
            raise  # else another call has made it meanwhile
    return EnsuredLink(_adapted(link, bridge, bridge_ifname, setup.vlan), is_created=False)


def _created(pair: VethSetup, setup: VlanGatewaySetup) -> Link:
    port = create_veth(pair)
    try:
        set_vlans(port.ifindex, [_access(setup.vlan)], is_exclusive=True)
        ignore_router_advertisements(pair.peer_ifname)
        return set_link(port.peer, LinkChange(is_up=True, alias=setup.alias or None))
    except BaseException:
        delete_link_by_index(port.ifindex)
        raise


def _adapted(link: Link, bridge: int, bridge_ifname: str, vlan: int) -> Link:
    """Insist that a link is the gateway of the VLAN, and set it up."""
    port = get_link_by_index(link.peer) if link.kind == "veth" and link.link_netnsid is None else None
    if port is None or port.master != bridge:
        details = f'"{link.ifname}" already exists but is not a veth whose other end is a port of "{bridge_ifname}"'
        raise KernelRefused("create VLAN gateway", link.ifname, errno.EEXIST, details)
    set_vlans(port.ifindex, [_access(vlan)], is_exclusive=False)
    return link if link.is_up else set_link(link.ifindex, LinkChange(is_up=True))


def _access(vlan: int) -> Vlan:
    return Vlan(vlan, vlan, is_pvid=True, is_untagged=True)

"""The host's half of the bridge plugin: a bridge, a pair that connects the container to it, and what leads beyond it.

One function per step of ADD, so that the host worker is asked once for each.

Privilege: CAP_NET_ADMIN in the netns, and in the one that the container's end is for.
"""

import errno

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.addresses import ensure_addresses
from cnisandbox.netlink.bridge import BridgeSetup, ensure_bridge
from cnisandbox.netlink.links import Link, delete_link_by_index, list_ports, wait_for_operstate_up
from cnisandbox.netlink.veth import VethSetup, create_veth
from cnisandbox.nft.masquerade import add_masquerade
from cnisandbox.sysctl import write_sysctl

_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


class Port(NamedTuple):
    """What `connect` made, as far as somebody asks: each further word of a link is encoded here and checked there.

    Attributes:
        bridge: ifindex of the bridge.
        bridge_ifname: Its name.
        bridge_mac: Its address.
        is_bridge_created: Whether it was not there before, so that undoing means to delete it.
        ifindex: The end of the pair that is a port of it.
        ifname: Its name.
        mac: Its address.
        peer: ifindex of the other end, in its netns.
    """

    bridge: int
    bridge_ifname: str
    bridge_mac: str
    is_bridge_created: bool
    ifindex: int
    ifname: str
    mac: str
    peer: int


@declared
def connect(bridge: BridgeSetup, pair: VethSetup, ifnames: list[str]) -> Port:
    """Make a bridge, when it is not there, and a pair whose one end is a port of it.

    Args:
        bridge: What the bridge is to be.
        pair: What the pair is to be; `ifname` and `master` are filled in here.
        ifnames: Names for this end: the first that is not taken.

    Raises:
        KernelRefused: As `ensure_bridge` and `create_veth`; what this call made is gone then.

    Order: under the bridge's lock, without which somebody could remove it before it has the port.
    """
    link, is_created = ensure_bridge(bridge)
    try:
        end = _create_pair(pair._replace(master=link.ifindex), ifnames)
    except BaseException:
        if is_created and not list_ports(link.ifindex):
            delete_link_by_index(link.ifindex)
        raise
    return Port(link.ifindex, link.ifname, link.mac, is_created, end.ifindex, end.ifname, end.mac, end.peer)


def _create_pair(pair: VethSetup, ifnames: list[str]) -> Link:
    for ifname in ifnames[:-1]:
        try:
            return create_veth(pair._replace(ifname=ifname))
        except KernelRefused as error:
            if (error.errno, error.target) != (errno.EEXIST, ifname):
                raise
    return create_veth(pair._replace(ifname=ifnames[-1]))


class Masquerade(NamedTuple):
    """Whose packets are to be masqueraded; as the arguments of `add_masquerade`."""

    network: str
    container_id: str
    ifname: str
    addresses: list[str]


class Gateway(NamedTuple):
    """What the host is to be for the attachments of a network.

    Attributes:
        ifindex: The bridge, or the interface of one of its VLANs.
        ifname: Its name, for the message.
        addresses: All that it is to have, with prefix lengths.
        is_forced: Remove what is in the way, instead of failing.
    """

    ifindex: int
    ifname: str
    addresses: list[str]
    is_forced: bool


@declared
def serve_port(ifindex: int, gateway: Gateway | None, masquerade: Masquerade | None, patience_ms: int) -> str:
    """Have the host be the gateway, and masquerade; then wait until a port passes packets.

    Args:
        ifindex: The port.
        gateway: None for none.
        masquerade: None for none.
        patience_ms: How long to wait; 0 looks once, a negative number does not look.

    Returns:
        The port's operational state: "up", or another one if the time ran out; "" if nobody looked.

    Raises:
        InvalidConfig: As `add_masquerade`.
        KernelRefused: As `ensure_addresses`, `write_sysctl`, `add_masquerade` and `wait_for_operstate_up`.
    """
    if gateway is not None:
        ensure_addresses(gateway.ifindex, gateway.ifname, gateway.addresses, gateway.is_forced, True)
        for version in sorted({6 if ":" in address else 4 for address in gateway.addresses}):
            write_sysctl(_FORWARDING[version], "1")
    if masquerade is not None:
        add_masquerade(*masquerade)
    return wait_for_operstate_up(ifindex, patience_ms) if patience_ms >= 0 else ""

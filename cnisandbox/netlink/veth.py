"""Pairs of veth links.

Privilege: CAP_NET_ADMIN in this netns and in the one that the other end is for.
"""

import errno

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.bridge import port_attributes
from cnisandbox.netlink.codec import HEADER, Attributes
from cnisandbox.netlink.links import (
    Link,
    checked_ifname,
    delete_link_by_index,
    delete_unanswered,
    get_link,
    get_link_by_index,
    get_request,
    link_header,
    required_link,
)
from cnisandbox.netlink.message import NLM_F_CREATE, NLM_F_EXCL
from cnisandbox.netlink.tables.link import IFF_UP, RTM_NEWLINK
from cnisandbox.netlink.transport import Request, refusal, route_socket
from cnisandbox.sysctl import ignore_router_advertisements


class VethSetup(NamedTuple):
    """What a pair is to be.

    Attributes:
        ifname: Name of this end, in the netns of the process.
        peer_ifname: Name of the other end.
        peer_netns_fd: Netns that the other end is born in; None for the same.
        mtu: Bytes, of both ends; 0 for the kernel's default.
        mac: Of this end; "" for the kernel to choose, and then a pair whose making was not answered cannot be known.
        peer_mac: Of the other end; "" for a random one.
        master: ifindex of a bridge that this end becomes a port of; 0 for none.
        is_up: Whether this end is set up. The other one stays down: it is for whoever owns its netns.
        is_hairpin: Of the bridge port: may send packets back where they came from; None leaves the default.
        is_isolated: Of the bridge port: reaches only ports that are not isolated; None leaves the default.
        alias: Of this end; "" for none.
    """

    ifname: str
    peer_ifname: str
    peer_netns_fd: int | None = None
    mtu: int = 0
    mac: str = ""
    peer_mac: str = ""
    master: int = 0
    is_up: bool = True
    is_hairpin: bool | None = None
    is_isolated: bool | None = None
    alias: str = ""


@declared
def create_veth(setup: VethSetup) -> Link:
    """Make a pair, each end in its netns from the start.

    One message makes both, with master and up; what a new link cannot be told with it (alias, bridge port settings)
    follows in a second one. This end ignores router advertisements; the other one is still down, so none came before.

    Returns:
        This end; `peer` and `link_netnsid` of it name the other one.

    Raises:
        KernelRefused: EEXIST if one of the names is taken: `target` is that name, and the details say on which side.
            After any failure there is no pair.
    """
    create, look = _create_request(setup), get_request(ifname=setup.ifname)
    try:
        answers = route_socket().exchange([create, look])
    except KernelRefused:
        delete_unanswered(setup.ifname, setup.mac)
        raise
    if answers[0].errno == errno.EEXIST:
        raise _name_taken(setup, is_on_this_side=bool(answers[1].messages))
    if answers[0].errno:
        raise refusal(create, answers[0])
    link = required_link(look, answers[1])
    try:
        ignore_router_advertisements(setup.ifname)
        return _finish(link, setup)
    except BaseException:
        delete_link_by_index(link.ifindex)
        raise


@declared
def get_peer(ifname: str) -> Link | None:
    """Look at the other end of a pair that is in this netns as a whole.

    Returns:
        None if there is no such link, it is no veth, or its other end is in another netns.
    """
    link = get_link(ifname)
    if link is None or link.kind != "veth" or link.link_netnsid is not None or not link.peer:
        return None
    return get_link_by_index(link.peer)


def _create_request(setup: VethSetup) -> Request:
    common: Attributes = {"mtu": setup.mtu} if setup.mtu else {}
    peer: Attributes = {HEADER: link_header(), "ifname": checked_ifname("create veth", setup.peer_ifname), **common}
    if setup.peer_mac:
        peer["address"] = setup.peer_mac
    if setup.peer_netns_fd is not None:
        peer["net_ns_fd"] = setup.peer_netns_fd
    attributes: Attributes = {"ifname": checked_ifname("create veth", setup.ifname), **common}
    if setup.mac:
        attributes["address"] = setup.mac
    if setup.master:
        attributes["master"] = setup.master
    attributes["linkinfo"] = {"kind": "veth", "data": {"peer": peer}}
    flags = IFF_UP if setup.is_up else 0  # KERNEL: in the peer's header IFF_UP is refused with ENOTCONN
    target = f"{setup.ifname} with peer {setup.peer_ifname}"
    return Request(
        "create veth", target, RTM_NEWLINK, link_header(0, flags, flags), attributes, NLM_F_CREATE | NLM_F_EXCL
    )


def _name_taken(setup: VethSetup, is_on_this_side: bool) -> KernelRefused:
    taken, side = (setup.ifname, "first") if is_on_this_side else (setup.peer_ifname, "second")
    details = f'of the pair "{setup.ifname}" and "{setup.peer_ifname}", the {side} name is taken in its netns'
    return KernelRefused("create veth", taken, errno.EEXIST, details)


def _finish(link: Link, setup: VethSetup) -> Link:
    attributes = port_attributes(setup.is_hairpin, setup.is_isolated)
    if setup.alias:
        attributes["ifalias"] = setup.alias
    if not attributes:
        return link
    request = Request("set up veth", setup.ifname, RTM_NEWLINK, link_header(link.ifindex), attributes)
    route_socket().execute([request])
    return link._replace(alias=setup.alias)

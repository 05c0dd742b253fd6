"""Bridges, their ports and the VLANs of these.

Privilege: CAP_NET_ADMIN in the netns for what changes something, none for looking.
"""

import errno
from collections.abc import Iterable, Iterator

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.codec import Attributes
from cnisandbox.netlink.links import (
    NO_MAC,
    Link,
    LinkChange,
    change_request,
    checked_ifname,
    delete_link_by_index,
    delete_unanswered,
    execute_and_look,
    get_link,
    get_request,
    link_header,
    required_link,
)
from cnisandbox.netlink.message import NLM_F_CREATE, NLM_F_EXCL, Message
from cnisandbox.netlink.tables.link import (
    AF_BRIDGE,
    BRIDGE_VLAN_INFO_PVID,
    BRIDGE_VLAN_INFO_RANGE_BEGIN,
    BRIDGE_VLAN_INFO_RANGE_END,
    BRIDGE_VLAN_INFO_UNTAGGED,
    RTM_DELLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    SEEN_AS_PORT,
)
from cnisandbox.netlink.tables.vlan import RTM_GETVLAN
from cnisandbox.netlink.transport import Request, refusal, route_socket
from cnisandbox.sysctl import ignore_router_advertisements

NO_VLAN_FILTERING = "the kernel has no bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)"


class BridgeSetup(NamedTuple):
    """What a bridge is to be.

    Attributes:
        ifname: Its name.
        mac: Its address. A bridge without one of its own takes the lowest of its ports', changes it when they change,
            and is left with zeros when the last one goes.
        mtu: Bytes, 0 for the kernel's default; only for a new bridge.
        alias: Only for a new bridge; "" for none.
        is_promisc: True sets IFF_PROMISC, False leaves it as it is.
        wants_vlan_filtering: True turns it on, False leaves it as it is.
    """

    ifname: str
    mac: str
    mtu: int = 0
    alias: str = ""
    is_promisc: bool = False
    wants_vlan_filtering: bool = False


class EnsuredLink(NamedTuple):
    """A link that had to be there.

    Attributes:
        link: As it is now.
        is_created: Whether it was not there before, so that undoing means to delete it.
    """

    link: Link
    is_created: bool


class BridgePort(NamedTuple):
    """Settings of a bridge port.

    Attributes:
        master: ifindex of the bridge.
        is_hairpin: It may send packets back where they came from.
        is_isolated: It reaches only ports that are not isolated.
    """

    master: int
    is_hairpin: bool
    is_isolated: bool


class Vlan(NamedTuple):
    """VLANs of a bridge port: one, or a range with the same flags.

    Attributes:
        first: 1 to 4094.
        last: The same for a single one.
        is_pvid: What comes in without a tag belongs to it; not for a range.
        is_untagged: Goes out without a tag.
    """

    first: int
    last: int
    is_pvid: bool = False
    is_untagged: bool = False


@declared
def ensure_bridge(setup: BridgeSetup) -> EnsuredLink:
    """Make a bridge and set it up, or use the one that has the name.

    Of one that was there, only what the setup asks for is changed; and it is kept from being configured by what a
    container sends, and its address from changing with its ports. Zeros, which no bridge can use, are replaced.

    Raises:
        KernelRefused: EEXIST if the name belongs to another kind of link; EOPNOTSUPP if VLAN filtering is wanted and
            the kernel has none. A bridge that this call made is gone then.
    """
    link = get_link(setup.ifname)
    if link is not None:
        return EnsuredLink(_adapted(link, setup, is_new=False), is_created=False)
    create = _create_request(setup)
    look = get_request(ifname=setup.ifname)
    try:
        answers = route_socket().exchange([create, look])
    except KernelRefused:
        delete_unanswered(setup.ifname, setup.mac)
        raise
    if answers[0].errno not in {0, errno.EEXIST}:
        raise _named_gap(refusal(create, answers[0]), setup.wants_vlan_filtering)
    is_created = answers[0].errno == 0  # or somebody else has been faster
    link = required_link(look, answers[1])
    try:
        return EnsuredLink(_adapted(link, setup, is_new=is_created), is_created)
    except BaseException:
        if is_created:
            delete_link_by_index(link.ifindex)
        raise


@declared
def get_port(ifindex: int) -> BridgePort | None:
    """Look at a bridge port.

    Returns:
        None if there is no such link, or it is not a port of a bridge.
    """
    messages = route_socket().execute([get_request(ifindex=ifindex)], {RTM_NEWLINK: SEEN_AS_PORT})[0].messages
    linkinfo = messages[0].attributes.get("linkinfo", {}) if messages else {}
    if linkinfo.get("slave_kind") != "bridge":
        return None
    data = linkinfo.get("slave_data", {})
    return BridgePort(
        master=messages[0].attributes.get("master", 0),
        is_hairpin=bool(data.get("hairpin")),
        is_isolated=bool(data.get("isolated")),
    )


@declared
def set_port(ifindex: int, is_hairpin: bool | None, is_isolated: bool | None) -> None:
    """Change settings of a bridge port; None leaves one as it is.

    Raises:
        KernelRefused: EINVAL if it is not a port; ENODEV if there is no such link.
    """
    attributes = port_attributes(is_hairpin, is_isolated)
    target = f"with index {ifindex}"
    route_socket().execute([Request("set bridge port", target, RTM_NEWLINK, link_header(ifindex), attributes)])


@declared
def list_vlans(ifindex: int) -> list[Vlan]:
    """List the VLANs of one bridge port, as ranges, in ascending order.

    Raises:
        KernelRefused: EOPNOTSUPP if the kernel has no VLAN filtering; EINVAL if the link is not a bridge or port.
    """
    header = {"family": AF_BRIDGE, "ifindex": ifindex}
    request = Request("list VLANs", f"of bridge port {ifindex}", RTM_GETVLAN, header, {})
    try:
        messages = route_socket().dump(request)
    except KernelRefused as error:
        raise _named_gap(error, is_about_vlans=True) from None
    return [vlan for message in messages for vlan in vlans_of(message)]


@declared
def set_vlans(ifindex: int, vlans: list[Vlan], is_exclusive: bool) -> None:
    """Make a bridge port a member of VLANs.

    Args:
        ifindex: The port.
        vlans: What to add; those that are there already get the flags that are given here.
        is_exclusive: Remove first what it is a member of, such as the bridge's default VLAN.

    Raises:
        KernelRefused: EOPNOTSUPP if the kernel has no VLAN filtering; EINVAL if the link is not a port.
    """
    requests = [vlan_request(RTM_DELLINK, ifindex, list_vlans(ifindex))] if is_exclusive else []
    requests.append(vlan_request(RTM_SETLINK, ifindex, vlans))
    try:
        route_socket().execute([request for request in requests if request.attributes["af_spec"]])
    except KernelRefused as error:
        raise _named_gap(error, is_about_vlans=True) from None


def port_attributes(is_hairpin: bool | None, is_isolated: bool | None) -> Attributes:
    """Make the attributes of an RTM_NEWLINK that change a bridge port; none if there is nothing to change."""
    wanted = (("hairpin", is_hairpin), ("isolated", is_isolated))
    data = {name: int(value) for name, value in wanted if value is not None}
    return {"linkinfo": {"slave_kind": "bridge", "slave_data": data}} if data else {}


def vlan_request(type_: int, ifindex: int, vlans: Iterable[Vlan]) -> Request:
    """Make the message that adds (RTM_SETLINK) or removes (RTM_DELLINK) VLANs of a port."""
    infos = [info for vlan in vlans for info in _vlan_infos(vlan)]
    attributes: Attributes = {"af_spec": {"vlan_info": infos} if infos else {}}
    operation = "add VLANs" if type_ == RTM_SETLINK else "remove VLANs"
    return Request(operation, f"of bridge port {ifindex}", type_, link_header(ifindex, family=AF_BRIDGE), attributes)


def vlans_of(message: Message) -> Iterator[Vlan]:
    """Read the VLANs out of an RTM_NEWVLAN."""
    for entry in message.attributes.get("entry", []):
        info = entry["info"]
        yield Vlan(
            first=info["vid"],
            last=entry.get("range_end", info["vid"]),
            is_pvid=bool(info["flags"] & BRIDGE_VLAN_INFO_PVID),
            is_untagged=bool(info["flags"] & BRIDGE_VLAN_INFO_UNTAGGED),
        )


def _vlan_infos(vlan: Vlan) -> Iterator[dict[str, int]]:
    flags = BRIDGE_VLAN_INFO_PVID * vlan.is_pvid | BRIDGE_VLAN_INFO_UNTAGGED * vlan.is_untagged
    if vlan.first == vlan.last:
        yield {"flags": flags, "vid": vlan.first}
    else:
        yield {"flags": flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, "vid": vlan.first}
        yield {"flags": flags | BRIDGE_VLAN_INFO_RANGE_END, "vid": vlan.last}


def _create_request(setup: BridgeSetup) -> Request:
    data = {"vlan_filtering": 1} if setup.wants_vlan_filtering else {}
    attributes: Attributes = {"ifname": checked_ifname("create bridge", setup.ifname), "address": setup.mac}
    if setup.mtu:
        attributes["mtu"] = setup.mtu
    attributes["linkinfo"] = {"kind": "bridge", "data": data}
    return Request("create bridge", setup.ifname, RTM_NEWLINK, link_header(), attributes, NLM_F_CREATE | NLM_F_EXCL)


def _adapted(link: Link, setup: BridgeSetup, is_new: bool) -> Link:
    """Give a bridge what the setup asks for and it does not have."""
    if link.kind != "bridge":
        details = f'"{setup.ifname}" already exists but is not a bridge'
        raise KernelRefused("create bridge", setup.ifname, errno.EEXIST, details)
    ignore_router_advertisements(setup.ifname)  # ORDER: before it is up and could receive one
    # KERNEL: setting the address to what it is fixes it, but makes the neighbours of the bridge be forgotten (6.18)
    is_fixed = is_new or bool(setup.alias and link.alias == setup.alias)
    change = LinkChange(
        is_up=None if link.is_up else True,
        is_promisc=True if setup.is_promisc and not link.is_promisc else None,
        mac=setup.mac if link.mac == NO_MAC else None if is_fixed else link.mac,
        alias=setup.alias if setup.alias and is_new else None,
    )
    requests = [change_request(link.ifindex, change)] if change != LinkChange() else []
    if setup.wants_vlan_filtering and not link.is_vlan_filtering:
        requests.append(_vlan_filtering_request(link))
    if not requests:
        return link
    try:
        return execute_and_look(requests, ifindex=link.ifindex)
    except KernelRefused as error:
        raise _named_gap(error, setup.wants_vlan_filtering) from None


def _vlan_filtering_request(link: Link) -> Request:
    attributes = {"linkinfo": {"kind": "bridge", "data": {"vlan_filtering": 1}}}
    return Request("enable VLAN filtering", link.ifname, RTM_NEWLINK, link_header(link.ifindex), attributes)


def _named_gap(error: KernelRefused, is_about_vlans: bool) -> KernelRefused:
    """Say what is missing when the kernel only says that it does not support it."""
    if error.errno != errno.EOPNOTSUPP or error.details or not is_about_vlans:
        return error
    return KernelRefused(error.operation, error.target, error.errno, NO_VLAN_FILTERING)

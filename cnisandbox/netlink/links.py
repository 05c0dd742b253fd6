"""Links of any kind: look at them, change them, delete them, wait for them.

Privilege: CAP_NET_ADMIN in the netns for what changes something, none for looking.
"""

import errno
import time

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused, quoted
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.netlink.codec import Attributes
from cnisandbox.netlink.message import Message
from cnisandbox.netlink.tables.link import (
    AF_UNSPEC,
    IFF_ALLMULTI,
    IFF_PROMISC,
    IFF_UP,
    OPERSTATES,
    RTEXT_FILTER_SKIP_STATS,
    RTM_DELLINK,
    RTM_GETLINK,
    RTM_NEWLINK,
    RTM_SETLINK,
    SEEN_STATE,
)
from cnisandbox.netlink.transport import Answer, Request, route_socket

IFNAME_BYTES = 15  # LIMIT: IFNAMSIZ of include/uapi/linux/if.h, with its NUL
# LIMIT: seconds between looks whether a link is gone, which takes 0.7 ms.
_LOOK_AGAIN_S = 0.0002
_NOT_IN_NAMES = frozenset("/: ")
NO_MAC = "00:00:00:00:00:00"


class Link(NamedTuple):
    """A network device, as RTM_GETLINK shows it.

    Attributes:
        ifindex: 1 to 2**31 - 1.
        ifname: Its name.
        kind: "veth", "bridge", ...; "" for one that has none, such as lo.
        mac: "02:00:00:00:00:01", or "" if it has no address.
        mtu: Bytes.
        flags: IFF_*, see netdevice(7).
        operstate: A word of RFC 2863, such as "up", "down", "lowerlayerdown", "unknown" (lo).
        master: ifindex of the bridge or other device it is enslaved to, 0 if it is not.
        peer: ifindex of a veth's other end, or of the device it stands on, in the netns `link_netnsid`; 0 for none.
        link_netnsid: Number of the netns that `peer` is in, or None when that is the link's own.
        alias: IFLA_IFALIAS, "" for none.
        promiscuity: How many users want it to receive everything; above 0 also when it is a bridge port.
        txqlen: Packets.
        is_vlan_filtering: Of a bridge; None if it is none.
    """

    ifindex: int
    ifname: str
    kind: str
    mac: str
    mtu: int
    flags: int
    operstate: str
    master: int
    peer: int
    link_netnsid: int | None
    alias: str
    promiscuity: int
    txqlen: int
    is_vlan_filtering: bool | None

    @property
    def is_up(self) -> bool:
        """Whether it was set up (IFF_UP), which does not say that it has a carrier."""
        return bool(self.flags & IFF_UP)

    @property
    def is_promisc(self) -> bool:
        """Whether it was set promiscuous (IFF_PROMISC), other than by a bridge it is a port of."""
        return bool(self.flags & IFF_PROMISC)

    @property
    def is_allmulti(self) -> bool:
        """Whether it was set to receive all multicast packets (IFF_ALLMULTI)."""
        return bool(self.flags & IFF_ALLMULTI)


class LinkChange(NamedTuple):
    """What to change about a link; None leaves a thing as it is.

    Attributes:
        is_up: Up or down.
        mac: "02:00:00:00:00:01".
        mtu: Bytes.
        is_promisc: IFF_PROMISC.
        is_allmulti: IFF_ALLMULTI.
        alias: At most 255 bytes; "" removes it.
        ifname: A new name.
        master: ifindex of a new master; 0 takes it out of the one it has.
        txqlen: Packets.
    """

    is_up: bool | None = None
    mac: str | None = None
    mtu: int | None = None
    is_promisc: bool | None = None
    is_allmulti: bool | None = None
    alias: str | None = None
    ifname: str | None = None
    master: int | None = None
    txqlen: int | None = None


@declared
def get_link(ifname: str) -> Link | None:
    """Look at a link by name.

    Returns:
        None if there is no link of that name.
    """
    return _look(get_request(ifname=ifname))


@declared
def get_link_by_index(ifindex: int) -> Link | None:
    """Look at a link by index.

    Returns:
        None if there is no link of that index.
    """
    return _look(get_request(ifindex=ifindex))


@declared
def get_links(ifnames: list[str], ifindexes: list[int]) -> list[Link | None]:
    """Look at several links at once.

    Returns:
        One per name, then one per index; None where there is no such link.
    """
    requests = [get_request(ifname=ifname) for ifname in ifnames]
    requests += [get_request(ifindex=ifindex) for ifindex in ifindexes]
    return [found_link(answer) for answer in route_socket().execute(requests)]


@declared
def list_ports(master: int) -> list[Link]:
    """List the links that are enslaved to one.

    Args:
        master: ifindex of the bridge or other master.
    """
    attributes: Attributes = {"ext_mask": RTEXT_FILTER_SKIP_STATS, "master": master}
    request = Request("list links", f"of master {master}", RTM_GETLINK, link_header(), attributes)
    # KERNEL: the filter is a hint, ignored for a master that does not exist, so it is applied again
    links = [link_of(message) for message in route_socket().dump(request)]
    return [link for link in links if link.master == master]


@declared
def set_link(ifindex: int, change: LinkChange) -> Link:
    """Change a link, in one message.

    Returns:
        The link as it is afterwards.

    Raises:
        KernelRefused: ENODEV if it does not exist; what came before the refused part is done.
    """
    request = change_request(ifindex, change)
    return execute_and_look([request], ifindex=ifindex)


@declared
def set_up(ifname: str, is_up: bool) -> Link:
    """Set a link of this name up or down, such as "lo".

    Returns:
        The link as it is afterwards.

    Raises:
        KernelRefused: ENODEV if it does not exist.
    """
    header = link_header(0, IFF_UP if is_up else 0, IFF_UP)
    attributes = {"ifname": checked_ifname("set link", ifname)}
    request = Request("set link up" if is_up else "set link down", ifname, RTM_SETLINK, header, attributes)
    return execute_and_look([request], ifname=ifname)


def delete_unanswered(ifname: str, mac: str) -> None:
    """Delete a link if it was made by a request whose answer was lost.

    Args:
        ifname: The name that was asked for.
        mac: The address that was asked for, random: by it the link is told from somebody else's. "" tells nothing, and
            the link stays.

    Raises:
        KernelRefused: The kernel could not be asked, or refused.
    """
    link = get_link(ifname)
    if mac and link is not None and link.mac == mac:
        delete_link_by_index(link.ifindex)


@declared
def delete_link_by_index(ifindex: int) -> bool:
    """Delete the link that was created or looked at under this index.

    A veth is gone after 0.7 ms, but the sender waits in rcu_barrier for up to 20 ms until it gets the answer (6.18).

    Returns:
        False if it is gone already.
    """
    request = Request("delete link", f"with index {ifindex}", RTM_DELLINK, link_header(ifindex), {}, 0, (errno.ENODEV,))
    return route_socket().execute([request])[0].errno == 0


@declared
def wait_until_gone(ifindex: int, timeout_ms: int) -> bool:
    """Wait until there is no link of this index.

    Returns:
        False if there still is one when the time has run out; 0 looks once.
    """
    deadline = time.monotonic() + timeout_ms / 1000
    while _operstate(ifindex) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


@declared
def wait_for_operstate_up(ifindex: int, timeout_ms: int) -> str:
    """Wait until a link's operational state is "up".

    Returns:
        The last state seen: "up", or another one if the time ran out.

    Raises:
        KernelRefused: ENODEV if the link does not exist (any more).
    """
    begun = time.monotonic()
    while True:
        operstate = _operstate(ifindex)
        if operstate is None:
            raise KernelRefused("wait for link", f"with index {ifindex}", errno.ENODEV)
        elapsed_s = time.monotonic() - begun
        left_s = timeout_ms / 1000 - elapsed_s
        if operstate == "up" or left_s <= 0:
            return operstate
        # At most an eighth too late, and that many looks that no other process of the host suffers from.
        time.sleep(min(max(elapsed_s / 8, _LOOK_AGAIN_S / 2), 0.05, left_s))


def execute_and_look(requests: list[Request], ifname: str = "", ifindex: int = 0) -> Link:
    """Send requests and look at the link that they were about, in the same batch.

    Returns:
        The link as it is afterwards.

    Raises:
        KernelRefused: The first of them that failed; ENODEV if the link is not there after them.
    """
    look = get_request(ifname, ifindex)._replace(tolerated=())
    answers = route_socket().execute([*requests, look])
    return required_link(look, answers[-1])


def get_request(ifname: str = "", ifindex: int = 0) -> Request:
    """Ask for one link, by name or by index; ENODEV is an answer."""
    attributes: Attributes = {"ext_mask": RTEXT_FILTER_SKIP_STATS}
    if ifname:
        attributes["ifname"] = checked_ifname("get link", ifname)
    target = ifname or f"with index {ifindex}"
    return Request("get link", target, RTM_GETLINK, link_header(ifindex), attributes, 0, (errno.ENODEV,))


def change_request(ifindex: int, change: LinkChange) -> Request:
    """Make the message that changes a link."""
    wanted = {
        "address": change.mac,
        "mtu": change.mtu,
        "ifalias": change.alias,
        "ifname": change.ifname and checked_ifname("rename link", change.ifname),
        "master": change.master,
        "txqlen": change.txqlen,
    }
    flags = mask = 0
    for flag, is_set in ((IFF_UP, change.is_up), (IFF_PROMISC, change.is_promisc), (IFF_ALLMULTI, change.is_allmulti)):
        if is_set is not None:
            mask |= flag
            flags |= flag if is_set else 0
    attributes = {name: value for name, value in wanted.items() if value is not None}
    return Request("change link", f"with index {ifindex}", RTM_SETLINK, link_header(ifindex, flags, mask), attributes)


def link_header(ifindex: int = 0, flags: int = 0, change: int = 0, family: int = AF_UNSPEC) -> dict[str, int]:
    """Make the ifinfomsg of a request: `flags` says what the bits of `change` are to be."""
    return {"family": family, "type": 0, "ifindex": ifindex, "flags": flags, "change": change}


def link_of(message: Message) -> Link:
    """Read the link out of an RTM_NEWLINK."""
    header, attributes = message.header, message.attributes
    linkinfo = attributes.get("linkinfo", {})
    kind = linkinfo.get("kind", "")
    return Link(  # in the order of its fields: by name it would take many times the byte codes
        header["ifindex"],
        attributes.get("ifname", ""),
        kind,
        attributes.get("address", ""),
        attributes.get("mtu", 0),
        header["flags"],
        _operstate_of(attributes),
        attributes.get("master", 0),
        attributes.get("link", 0),
        attributes.get("link_netnsid"),
        attributes.get("ifalias", ""),
        attributes.get("promiscuity", 0),
        attributes.get("txqlen", 0),
        _is_vlan_filtering(kind, linkinfo.get("data")),
    )


def found_link(answer: Answer) -> Link | None:
    """Read the link out of the answer to `get_request`."""
    return link_of(answer.messages[0]) if answer.messages else None


def required_link(request: Request, answer: Answer) -> Link:
    """Read the link out of the answer to `get_request`; that there is none is a failure.

    Raises:
        KernelRefused: ENODEV.
    """
    link = found_link(answer)
    if link is None:
        raise KernelRefused(request.operation, request.target, errno.ENODEV)
    return link


def checked_ifname(operation: str, ifname: str) -> str:
    """Insist on a name that the kernel accepts and that is safe to print.

    Raises:
        KernelRefused: EINVAL.

    Source: dev_valid_name in net/core/dev.c, Linux 6.1, without its names that no terminal shows.
    """
    is_short = 0 < len(ifname.encode("utf-8", "surrogateescape")) <= IFNAME_BYTES
    if not is_short or ifname in {".", ".."} or not ifname.isprintable() or not _NOT_IN_NAMES.isdisjoint(ifname):
        raise KernelRefused(operation, quoted(ifname), errno.EINVAL, "not a name that a link can have")
    return ifname


def _look(request: Request) -> Link | None:
    return found_link(route_socket().execute([request])[0])


def _operstate(ifindex: int) -> str | None:
    """Look at a link's operational state alone; None if there is no such link."""
    (answer,) = route_socket().execute([get_request(ifindex=ifindex)], {RTM_NEWLINK: SEEN_STATE})
    return _operstate_of(answer.messages[0].attributes) if answer.messages else None


def _operstate_of(attributes: Attributes) -> str:
    number = attributes.get("operstate", 0)
    return OPERSTATES[number] if number < len(OPERSTATES) else "unknown"


def _is_vlan_filtering(kind: str, data: Any) -> bool | None:
    if kind != "bridge" or not isinstance(data, dict) or "vlan_filtering" not in data:
        return None
    return bool(data["vlan_filtering"])

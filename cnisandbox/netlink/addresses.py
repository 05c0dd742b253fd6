"""Addresses of links.

Privilege: CAP_NET_ADMIN in the netns for what changes something, none for looking.
"""

import errno
from _socket import AF_INET6
from collections.abc import Iterator

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.codec import Attributes
from cnisandbox.netlink.message import NLM_F_CREATE, NLM_F_EXCL, Message
from cnisandbox.netlink.prefix import Prefix, parse_prefix
from cnisandbox.netlink.tables.address import (
    IFA_F_DADFAILED,
    IFA_F_NODAD,
    IFA_F_TENTATIVE,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
)
from cnisandbox.netlink.transport import Request, route_socket

RT_SCOPE_UNIVERSE = 0
MAX_TRIES = 8  # LIMIT: each further try takes another process that has added an address since the look


class LinkAddress(NamedTuple):
    """An address of a link, as RTM_GETADDR shows it.

    Attributes:
        address: With prefix length and host bits, in canonical form: "10.1.2.3/24".
        scope: 0 global, 253 link, 254 host.
        is_tentative: IPv6: duplicate address detection has not ended.
        is_duplicate: IPv6: another host has it (IFA_F_DADFAILED).
    """

    address: str
    scope: int
    is_tentative: bool
    is_duplicate: bool


class AddressChange(NamedTuple):
    """What `ensure_addresses` did, for its undoing.

    Attributes:
        added: Addresses that were not there.
        removed: Addresses that were in the way.
    """

    added: list[str]
    removed: list[str]


@declared
def list_addresses(ifindex: int) -> list[LinkAddress]:
    """List the addresses of one link, of both families and all scopes.

    Returns:
        In the kernel's order, IPv4 first; none if the link does not exist.
    """
    return [_address_of(message) for message in _dump_addresses(ifindex)]


@declared
def add_address(ifindex: int, address: str, is_nodad: bool) -> None:
    """Add an address.

    Args:
        ifindex: The link.
        address: "10.1.2.3/24"; IPv4 gets the broadcast address of its prefix, except for /31 and /32.
        is_nodad: IPv6: use it at once, without duplicate address detection.

    Raises:
        KernelRefused: EEXIST if the link has it; ENODEV if there is no such link.
    """
    route_socket().execute([add_request(ifindex, address, is_nodad)])


@declared
def delete_address(ifindex: int, address: str) -> bool:
    """Delete an address.

    Returns:
        False if the link did not have it, or is gone itself.
    """
    prefix = parse_prefix(address, "delete address")
    request = Request(
        f"delete address {prefix}",
        f"of link {ifindex}",
        RTM_DELADDR,
        _header(ifindex, prefix),
        {"local": prefix.address, "address": prefix.address},
        0,
        (errno.EADDRNOTAVAIL, errno.ENODEV),
    )
    return route_socket().execute([request])[0].errno == 0


@declared
def ensure_addresses(ifindex: int, ifname: str, addresses: list[str], is_forced: bool, is_nodad: bool) -> AddressChange:
    """Give a bridge its gateway addresses, if nothing speaks against it.

    An address that is there with the same prefix length is kept. In the way are: of IPv4, every address that is not
    wanted too; of IPv6, those that overlap with a wanted one.

    Args:
        ifindex: The link.
        ifname: Its name, for the message.
        addresses: All that it is to have, with prefix lengths.
        is_forced: Remove what is in the way, instead of failing.
        is_nodad: IPv6: without duplicate address detection.

    Raises:
        KernelRefused: EEXIST if something is in the way; nothing was changed then, unless others change the same
            addresses at the same time.

    Order: no lock is held. Between the look and the change another ADD may give the bridge the same addresses, which is
    as good; or remove them, or add one that is in the way. So whoever is told that an address is there looks again.
    """
    wanted = [parse_prefix(address, "add address") for address in addresses]
    change = AddressChange([], [])
    missing = wanted
    for _ in range(MAX_TRIES):
        present = [_prefix_of(message) for message in _dump_addresses(ifindex)]
        missing = list(dict.fromkeys(prefix for prefix in wanted if prefix not in present))
        removed = [str(prefix) for prefix in _in_the_way(wanted, missing, present)]
        if removed and not is_forced:
            details = f'"{ifname}" already has an IP address different from {missing[0]}: {", ".join(removed)}'
            raise KernelRefused("add address", f"{missing[0]} to {ifname}", errno.EEXIST, details)
        for address in removed:
            delete_address(ifindex, address)
        change.removed.extend(removed)
        requests = [add_request(ifindex, str(prefix), is_nodad, (errno.EEXIST,)) for prefix in missing]
        answers = route_socket().execute(requests)
        change.added.extend(str(prefix) for prefix, answer in zip(missing, answers, strict=True) if not answer.errno)
        if not any(answer.errno for answer in answers):
            return change
    details = "somebody else changes the addresses faster than they are read"
    raise KernelRefused("add address", f"{missing[0]} to {ifname}", errno.EEXIST, details)


def add_request(ifindex: int, address: str, is_nodad: bool, tolerated: tuple[int, ...] = ()) -> Request:
    """Make the message that adds an address; the errnos that are tolerated are an answer to it."""
    prefix = parse_prefix(address, "add address")
    local, broadcast = prefix.address, prefix.broadcast
    attributes: Attributes = {"local": local, "address": local}
    if broadcast is not None:
        attributes["broadcast"] = broadcast
    if is_nodad and prefix.family == AF_INET6:
        attributes["flags"] = IFA_F_NODAD
    return Request(
        "add address",
        f"{local}/{prefix.length} to link {ifindex}",
        RTM_NEWADDR,
        _header(ifindex, prefix),
        attributes,
        NLM_F_CREATE | NLM_F_EXCL,
        tolerated,
    )


def _in_the_way(wanted: list[Prefix], missing: list[Prefix], present: list[Prefix]) -> Iterator[Prefix]:
    """Find what speaks against adding those of `wanted` that are missing."""
    for prefix in present:
        if prefix not in wanted and any(_collides(prefix, other) for other in missing):
            yield prefix


def _collides(present: Prefix, wanted: Prefix) -> bool:
    if present.family != wanted.family:
        return False
    return present.family != AF_INET6 or present.overlaps(wanted)


def _header(ifindex: int, prefix: Prefix) -> dict[str, int]:
    return {
        "family": prefix.family,
        "prefixlen": prefix.length,
        "flags": 0,  # KERNEL: 8 bits only; the attribute "flags" overrides them
        "scope": RT_SCOPE_UNIVERSE,
        "ifindex": ifindex,
    }


def _dump_addresses(ifindex: int) -> list[Message]:
    header = {"family": 0, "prefixlen": 0, "flags": 0, "scope": 0, "ifindex": ifindex}
    request = Request("list addresses", f"of link {ifindex}", RTM_GETADDR, header, {}, 0, (errno.ENODEV,))
    return [message for message in route_socket().dump(request) if message.header["ifindex"] == ifindex]


def _prefix_of(message: Message) -> Prefix:
    attributes = message.attributes
    text = attributes.get("local") or attributes.get("address", "")  # KERNEL: with a peer, "address" is the peer's
    return parse_prefix(f"{text}/{message.header['prefixlen']}", "list addresses")


def _address_of(message: Message) -> LinkAddress:
    flags = message.attributes.get("flags", message.header["flags"])
    return LinkAddress(
        address=str(_prefix_of(message)),
        scope=message.header["scope"],
        is_tentative=bool(flags & IFA_F_TENTATIVE),
        is_duplicate=bool(flags & IFA_F_DADFAILED),
    )

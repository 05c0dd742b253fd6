"""Routes.

Privilege: CAP_NET_ADMIN in the netns for what changes something, none for looking.
"""

import errno
from _socket import AF_INET, AF_INET6
from collections.abc import Iterator

from cnisandbox.boundary.calls import declared
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.codec import HEADER, Attributes
from cnisandbox.netlink.message import NLM_F_CREATE, Message
from cnisandbox.netlink.prefix import Prefix, parse_address, parse_prefix
from cnisandbox.netlink.tables.route import (
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RT_TABLE_UNSPEC,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_BOOT,
)
from cnisandbox.netlink.transport import Request, route_socket

RT_SCOPE_NOWHERE = 255
_ANY = {AF_INET: "0.0.0.0", AF_INET6: "::"}  # noqa: S104 - the destination of a default route, nothing is bound


class Route(NamedTuple):
    """A route that somebody wants.

    Attributes:
        dst: Destination, "10.0.0.0/8"; host bits are cleared.
        gw: Next hop, or "": the destination is on the link.
        mtu: Bytes; 0 leaves it to the link, as for advmss.
        priority: Metric; 0 is the kernel's default (IPv6: 1024).
        table: Number of the table; None: main.
        scope: 0 global, 253 link, 254 host; None: global with a next hop, link without. IPv4 only.
    """

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class InstalledRoute(NamedTuple):
    """One next hop of a route that the kernel has.

    Attributes:
        dst: Destination; "0.0.0.0/0" or "::/0" for a default route.
        gw: Next hop, "" for none.
        ifindex: The link it leads to.
        mtu: Bytes, 0 for none of its own; as for advmss.
        priority: Metric.
        table: Number of the table.
        scope: 0 global, 253 link, 254 host.
        protocol: Who made it: 2 the kernel, 3 boot (also CNI plugins), 4 static.
        type: RTN_*: 1 unicast, 2 local, 3 broadcast, 5 multicast.
    """

    dst: str
    gw: str
    ifindex: int
    mtu: int
    advmss: int
    priority: int
    table: int
    scope: int
    protocol: int
    type: int


@declared
def add_route(ifindex: int, route: Route) -> bool:
    """Add a route out of a link.

    A route to the same destination over another next hop is added beside (IPv4: in front, IPv6: as a second path), as
    the reference plugins do.

    Returns:
        False if the very same route was there already.

    Raises:
        KernelRefused: ENETUNREACH or EINVAL if the next hop cannot be reached; ENODEV if there is no such link.
    """
    return route_socket().execute([add_request(ifindex, route)])[0].errno == 0


@declared
def delete_route(ifindex: int, route: Route) -> bool:
    """Delete a route out of a link.

    Returns:
        False if there was none.
    """
    request = add_request(ifindex, route)
    request = request._replace(
        operation="delete route", type=RTM_DELROUTE, flags=0, tolerated=(errno.ESRCH, errno.ENODEV)
    )
    if route.scope is None:
        request.header["scope"] = RT_SCOPE_NOWHERE  # KERNEL: matches every scope (fib_table_delete)
    return route_socket().execute([request])[0].errno == 0


@declared
def list_routes(ifindex: int, table: int) -> list[InstalledRoute]:
    """List the routes that lead to one link, of both families and all types.

    Args:
        ifindex: The link.
        table: Number of a table, or 0 for all of them.
    """
    return [route for family in (AF_INET, AF_INET6) for route in _dump(family, ifindex, table)]


@declared
def missing_routes(ifindex: int, routes: list[Route]) -> list[Route]:
    """Find the routes that the kernel does not have, for CHECK.

    Destination, next hop, link and table have to be the same, and metric, mtu, advmss and scope where the wanted route
    says them.

    Returns:
        Those of `routes` that are missing, in their order.
    """
    installed: dict[tuple[int, int], list[InstalledRoute]] = {}
    missing = []
    for route in routes:
        family = parse_prefix(route.dst, "check route").family
        place = (family, table_of(route))
        if place not in installed:
            installed[place] = list(_dump(family, ifindex, table_of(route)))
        if not any(is_same(route, found) for found in installed[place]):
            missing.append(route)
    return missing


def is_same(wanted: Route, found: InstalledRoute) -> bool:
    """Whether an installed route is what was wanted; zeros and None in `wanted` fit everything."""
    dst = parse_prefix(wanted.dst, "check route")
    is_ipv4 = dst.family == AF_INET
    return (
        str(dst.network) == found.dst
        and (parse_address(wanted.gw, "check route").address if wanted.gw else "") == found.gw
        and table_of(wanted) == found.table
        and wanted.mtu in {0, found.mtu}
        and wanted.advmss in {0, found.advmss}
        and wanted.priority in {0, found.priority}
        and (wanted.scope is None or not is_ipv4 or wanted.scope == found.scope)
        and found.type == RTN_UNICAST
    )


def table_of(route: Route) -> int:
    """Number of the table that a wanted route is for."""
    return route.table or RT_TABLE_MAIN


def add_request(ifindex: int, route: Route) -> Request:
    """Make the message that adds a route; EEXIST is an answer: without NLM_F_EXCL it means the very same route."""
    dst = parse_prefix(route.dst, "add route")
    attributes: Attributes = {"oif": ifindex, "table": table_of(route)}
    if dst.length:
        attributes["dst"] = dst.network.address
    if route.gw:
        attributes["gateway"] = parse_address(route.gw, "add route").address
    if route.priority:
        attributes["priority"] = route.priority
    metrics = {name: value for name, value in (("mtu", route.mtu), ("advmss", route.advmss)) if value}
    if metrics:
        attributes["metrics"] = metrics
    scope = route.scope if route.scope is not None else RT_SCOPE_UNIVERSE if route.gw else RT_SCOPE_LINK
    header = _header(dst, scope if dst.family == AF_INET else RT_SCOPE_UNIVERSE)
    via = f" via {route.gw}" if route.gw else ""
    target = f"{dst.network}{via} to link {ifindex}"
    return Request("add route", target, RTM_NEWROUTE, header, attributes, NLM_F_CREATE, (errno.EEXIST,))


def _header(dst: Prefix, scope: int) -> dict[str, int]:
    return {
        "family": dst.family,
        "dst_len": dst.length,
        "src_len": 0,
        "tos": 0,
        "table": RT_TABLE_UNSPEC,  # KERNEL: 8 bits only; the attribute "table" overrides them
        "protocol": RTPROT_BOOT,
        "scope": scope,
        "type": RTN_UNICAST,
        "flags": 0,
    }


def _dump(family: int, ifindex: int, table: int) -> Iterator[InstalledRoute]:
    header = dict.fromkeys(("dst_len", "src_len", "tos", "table", "protocol", "scope", "type", "flags"), 0)
    attributes: Attributes = {"oif": ifindex}
    if table:
        attributes["table"] = table
    # KERNEL: ENOENT when no route ever was in the table, EOPNOTSUPP when the kernel does not have the family
    absent = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP, errno.EAFNOSUPPORT)
    target = f"of link {ifindex}"
    request = Request("list routes", target, RTM_GETROUTE, {"family": family, **header}, attributes, 0, absent)
    for message in route_socket().dump(request):
        for route in _routes_of(message):
            if route.ifindex == ifindex and table in {0, route.table}:
                yield route


def _routes_of(message: Message) -> Iterator[InstalledRoute]:
    """Read a route, one per next hop."""
    header, attributes = message.header, message.attributes
    if header["family"] not in _ANY:
        return
    metrics = attributes.get("metrics", {})
    for ifindex, gateway in _next_hops(attributes):
        yield InstalledRoute(
            dst=f"{attributes.get('dst', _ANY[header['family']])}/{header['dst_len']}",
            gw=gateway,
            ifindex=ifindex,
            mtu=metrics.get("mtu", 0),
            advmss=metrics.get("advmss", 0),
            priority=attributes.get("priority", 0),
            table=attributes.get("table", header["table"]),
            scope=header["scope"],
            protocol=header["protocol"],
            type=header["type"],
        )


def _next_hops(attributes: Attributes) -> Iterator[tuple[int, str]]:
    if "multipath" not in attributes:
        yield attributes.get("oif", 0), attributes.get("gateway", "")
    for hop in attributes.get("multipath", []):
        yield hop[HEADER]["ifindex"], hop.get("gateway", "")

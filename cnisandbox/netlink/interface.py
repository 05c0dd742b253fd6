"""The configuration of a container's interface: settings, addresses, link up, routes; and the look at it for CHECK.

It is one function each, so that the container worker is asked once, and few messages carry it all.

Privilege: CAP_NET_ADMIN in the container's netns for configuring, none for looking.
"""

import errno
import time

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink import addresses as addresses_
from cnisandbox.netlink import routes as routes_
from cnisandbox.netlink.addresses import LinkAddress, list_addresses
from cnisandbox.netlink.links import Link, LinkChange, change_request, execute_and_look, get_link
from cnisandbox.netlink.prefix import parse_prefix
from cnisandbox.netlink.routes import Route, missing_routes
from cnisandbox.netlink.tables.route import RT_SCOPE_LINK
from cnisandbox.netlink.transport import route_socket
from cnisandbox.sysctl import interface_key, set_sysctl, write_if_present, write_sysctl

DAD_DEADLINE_S = 5.0  # LIMIT: one probe takes a second, with random delay two
DAD_INTERVAL_S = 0.05


class InterfaceAddress(NamedTuple):
    """An address for the interface.

    Attributes:
        address: With prefix length: "10.1.2.3/24".
        gateway: Next hop of routes of its family that name none; "" for none.
    """

    address: str
    gateway: str = ""


class InterfaceSetup(NamedTuple):
    """What an interface is to have.

    Attributes:
        ifname: Its name; the link exists.
        addresses: In the order in which they are added.
        routes: In the order in which they are added, after the addresses.
        wants_dad: Look whether another host has an IPv6 address before it is used, which takes about two seconds.
        is_up: Whether the link is set up; False leaves it as it is, and without routes.
        alias: Of the link, by which DEL knows it; "" for none.
    """

    ifname: str
    addresses: list[InterfaceAddress]
    routes: list[Route]
    wants_dad: bool = False
    is_up: bool = True
    alias: str = ""


class InterfaceState(NamedTuple):
    """What an interface has, against what it is to have.

    Attributes:
        link: The link.
        addresses: All of its addresses.
        missing_addresses: Those of the setup that it does not have, in their order.
        missing_routes: Those of the setup that it does not have, in their order and with the gateway they resolve to.
    """

    link: Link
    addresses: list[LinkAddress]
    missing_addresses: list[str]
    missing_routes: list[Route]


@declared
def configure_interface(setup: InterfaceSetup) -> Link:
    """Configure a container's interface.

    Returns:
        The link as it is afterwards, with its address.

    Raises:
        KernelRefused: ENODEV if there is no such link; EEXIST for an address that it has; ENETUNREACH for a route
            whose gateway is not reachable; EADDRINUSE if another host has an IPv6 address. What was done before stays:
            whoever made the link deletes it.
    """
    ifindex = execute_and_look([], ifname=setup.ifname).ifindex
    configure_new_interface(ifindex, setup)
    return execute_and_look([], ifindex=ifindex)


@declared
def configure_new_interface(ifindex: int, setup: InterfaceSetup) -> None:
    """Configure a container's interface whose index is known, without a look at it.

    Raises:
        KernelRefused: As `configure_interface`.
    """
    _write_settings(setup)
    adding = [addresses_.add_request(ifindex, item.address, not setup.wants_dad) for item in setup.addresses]
    change = LinkChange(is_up=setup.is_up or None, alias=setup.alias or None)
    adding += [change_request(ifindex, change)] if change != LinkChange() else []
    routing = [routes_.add_request(ifindex, route) for route in resolve_gateways(setup)] if setup.is_up else []
    if setup.wants_dad and setup.is_up:
        route_socket().execute(adding)
        _await_dad(ifindex, setup)
        adding = []
    route_socket().execute([*adding, *routing])


@declared
def announce_addresses(ifindex: int, mac: str) -> None:
    """Tell the neighbours whose addresses these are, so that nobody sends to the interface that had them before.

    Order: after `configure_interface`, when the host's end is operationally up. The kernel announces too when the link
    comes up, but a bridge drops that: its port forwards only after linkwatch has run (6.18).

    Args:
        ifindex: The link.
        mac: The address that it has.

    Raises:
        KernelRefused: ENODEV if there is no such link.
    """
    # KERNEL: setting the link's address to what it is announces again, with arp_notify and ndisc_notify (6.18)
    route_socket().execute([change_request(ifindex, LinkChange(mac=mac))])


@declared
def check_interface(setup: InterfaceSetup) -> InterfaceState | None:
    """Compare an interface with what `configure_interface` would have made of it; changes nothing.

    Returns:
        None if there is no such link.
    """
    link = get_link(setup.ifname)
    if link is None:
        return None
    present = list_addresses(link.ifindex)
    has = {address.address for address in present}
    wanted = [str(parse_prefix(item.address, "check address")) for item in setup.addresses]
    return InterfaceState(
        link=link,
        addresses=present,
        missing_addresses=[address for address in wanted if address not in has],
        missing_routes=missing_routes(link.ifindex, resolve_gateways(setup)),
    )


def resolve_gateways(setup: InterfaceSetup) -> list[Route]:
    """Give routes without a next hop the first gateway of their family.

    A route whose scope says that its destination is on the link (or nearer) gets none.
    """
    gateways: dict[bool, str] = {}
    for item in setup.addresses:
        if item.gateway:
            gateways.setdefault(":" in item.gateway, item.gateway)
    return [
        route if route.gw or _is_on_link(route) else route._replace(gw=gateways.get(":" in route.dst, ""))
        for route in setup.routes
    ]


def _is_on_link(route: Route) -> bool:
    return route.scope is not None and route.scope >= RT_SCOPE_LINK


def _write_settings(setup: InterfaceSetup) -> None:
    if not setup.addresses:
        return  # what addresses it will have, and how they are to be looked after, is then not ours to say
    # ORDER: before the link comes up, when IPv6 takes its link-local address and IPv4 announces its own (arp_notify)
    if setup.wants_dad:
        write_if_present(interface_key("ipv6", setup.ifname, "enhanced_dad"), "1")
    write_if_present(interface_key("ipv6", setup.ifname, "accept_dad"), "1" if setup.wants_dad else "0")
    set_sysctl(interface_key("ipv4", setup.ifname, "arp_notify"), "1")
    if any(_is_ipv6(item) for item in setup.addresses):
        write_sysctl(interface_key("ipv6", "lo", "disable_ipv6"), "0")
        write_sysctl(interface_key("ipv6", setup.ifname, "disable_ipv6"), "0")
        write_sysctl(interface_key("ipv6", setup.ifname, "keep_addr_on_down"), "1")
        write_if_present(interface_key("ipv6", setup.ifname, "ndisc_notify"), "1")


def _await_dad(ifindex: int, setup: InterfaceSetup) -> None:
    """Wait until no IPv6 address of the setup is tentative.

    Without a carrier nothing is ever detected; that is no failure, as the reference plugins have it.
    """
    wanted = {str(parse_prefix(item.address, "add address")) for item in setup.addresses if _is_ipv6(item)}
    deadline = time.monotonic() + DAD_DEADLINE_S
    while wanted:
        present = [address for address in list_addresses(ifindex) if address.address in wanted]
        for address in present:
            if address.is_duplicate:
                raise _address_refused(address, setup, errno.EADDRINUSE, "another host answers for it")
        tentative = [address for address in present if address.is_tentative]
        if not tentative:
            return
        if time.monotonic() > deadline:
            link = get_link(setup.ifname)
            if link is None or link.operstate == "up":
                raise _address_refused(tentative[0], setup, errno.ETIMEDOUT, "duplicate address detection did not end")
            return
        time.sleep(DAD_INTERVAL_S)


def _address_refused(address: LinkAddress, setup: InterfaceSetup, number: int, details: str) -> KernelRefused:
    return KernelRefused("add address", f"{address.address} to {setup.ifname}", number, details)


def _is_ipv6(item: InterfaceAddress) -> bool:
    return ":" in item.address

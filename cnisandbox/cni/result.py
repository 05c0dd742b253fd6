"""Results: what ADD returns, what comes back as prevResult, what an IPAM plugin answers, in every published version.

One form inside (that of 1.1.0), three shapes outside:

    0.1.0, 0.2.0         ip4, ip6: one address of each family with its routes; no interfaces
    0.3.0, 0.3.1, 0.4.0  interfaces, ips with the number of their IP version, routes
    1.0.0, 1.1.0         interfaces, ips, routes

Privilege: none.

Source: CNI specification 1.1.0, section 5; libcni pkg/types/{020,040,100,create}, v1.3.0.
"""

from cnisandbox.cni.value import Value, decode
from cnisandbox.cni.versions import CURRENT, ONE_ADDRESS_PER_FAMILY, SUPPORTED, family
from cnisandbox.errors import InvalidConfig, UndecodableInput, quoted
from cnisandbox.hints import NamedTuple

_UINT32_MAX = 2**32 - 1
_UINT8_MAX = 2**8 - 1
_INT32_MAX = 2**31 - 1


class Interface(NamedTuple):
    """An interface that the plugins made.

    Attributes:
        sandbox: CNI_NETNS for one inside the container, empty for one on the host.
        mtu: In bytes; 0 means unsaid.
    """

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = ""


class Address(NamedTuple):
    """An address that was assigned.

    Attributes:
        address: With its prefix length; bits behind the prefix are kept.
        gateway: Default gateway of that subnet, or empty.
        interface: Index into the result's interfaces, not checked against their number; None when unsaid.
    """

    address: str
    gateway: str = ""
    interface: int | None = None


class Route(NamedTuple):
    """A route.

    Attributes:
        dst: Destination with its prefix length; bits behind the prefix are kept.
        gw: Next hop; when empty, `Result.gateway_of` may find one.
        mtu: In bytes; 0 means unsaid, as for advmss and priority.
        scope: 0 global, 253 link, 254 host; None when unsaid.
    """

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None


class Dns(NamedTuple):
    """What could be written to a resolv.conf; the texts are the plugin's, unchecked."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class Result(NamedTuple):
    """What a chain of plugins has done so far."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()

    def gateway_of(self, route: Route) -> str:
        """Return a route's next hop: its own, else that of the first address of its family that has one, else ""."""
        gateways = (ip.gateway for ip in self.ips if ip.gateway and _is_ipv6(ip.address) == _is_ipv6(route.dst))
        return route.gw or next(gateways, "")


def parse_result(data: bytes, version: str) -> Result:
    """Read what a delegated plugin printed.

    Args:
        data: Its stdout.
        version: The netconf's version; it holds if the result does not name one.

    Returns:
        The result; `null` is an empty one. Its shape follows the version that it names itself, as in libcni.

    Raises:
        UndecodableInput: data is not one JSON object.
        IncompatibleVersion: version is not published.
        InvalidConfig: A field has a wrong type or value (cniVersion: is not published); paths begin with "result".
    """
    value = decode(data, "result", "result")
    if value.is_present and not isinstance(value.raw, dict):
        raise UndecodableInput(f"decode result: expected an object, got {quoted(value.raw)}")
    own_version = value["cniVersion"].string()
    return result_from(value, own_version if own_version in SUPPORTED else version)


def result_from(value: Value, version: str) -> Result:
    """Read a result of a known version.

    Args:
        value: prevResult, or what stands in its place; an absent one is an empty result.
        version: The netconf's version; the result may name another one of the same family.

    Returns:
        The result. Addresses are in canonical text; an interface index of -1 has become None.

    Raises:
        IncompatibleVersion: version is not published.
        InvalidConfig: The result is of another family of versions, or a field has a wrong type or value.
    """
    versions = family(version)
    own_version = value["cniVersion"].string() or version
    if own_version not in versions:
        raise value["cniVersion"].error(
            f"result type supports {', '.join(versions)} but unmarshalled CNIVersion is {quoted(own_version)}",
            f"config is {version}; a result of another family of versions cannot be read with it",
        )
    if versions is ONE_ADDRESS_PER_FAMILY:
        return _from_one_per_family(value)
    return Result(
        interfaces=tuple(_interface_from(element) for element in value["interfaces"]),
        ips=tuple(_address_from(element) for element in value["ips"]),
        routes=tuple(route_from(element) for element in value["routes"]),
        dns=dns_from(value["dns"]),
    )


def dns_from(value: Value) -> Dns:
    """Read a `dns` object of a result or a netconf.

    Raises:
        InvalidConfig: A field has a wrong type.
    """
    if not value.is_present:
        return Dns()
    return Dns(
        nameservers=tuple(value["nameservers"].strings()),
        domain=value["domain"].string(),
        search=tuple(value["search"].strings()),
        options=tuple(value["options"].strings()),
    )


def route_from(value: Value) -> Route:
    """Read one element of `routes`, of a result or of an IPAM configuration.

    Returns:
        The route, its addresses in canonical text.

    Raises:
        InvalidConfig: A field has a wrong type or value, or there is no dst.
    """
    table, scope = value["table"], value["scope"]
    return Route(
        dst=_prefix(value["dst"]),
        gw=_optional_address(value["gw"]),
        mtu=value["mtu"].integer(minimum=0, maximum=_UINT32_MAX),
        advmss=value["advmss"].integer(minimum=0, maximum=_UINT32_MAX),
        priority=value["priority"].integer(minimum=0, maximum=_UINT32_MAX),
        table=table.integer(minimum=0, maximum=_UINT32_MAX) if table.is_present else None,
        scope=scope.integer(minimum=0, maximum=_UINT8_MAX) if scope.is_present else None,
    )


def _from_one_per_family(value: Value) -> Result:
    ips: list[Address] = []
    routes: list[Route] = []
    for key, wants_ipv6 in (("ip4", False), ("ip6", True)):
        config = value[key]
        if not config.is_present:
            continue
        address = _prefix(config["ip"])
        if _is_ipv6(address) != wants_ipv6:
            raise config["ip"].error(f"{quoted(address)} is of the other IP version")
        ips.append(Address(address, _optional_address(config["gateway"])))
        routes += [Route(_prefix(route["dst"]), _optional_address(route["gw"])) for route in config["routes"]]
    return Result(ips=tuple(ips), routes=tuple(routes), dns=dns_from(value["dns"]))


def _interface_from(value: Value) -> Interface:
    return Interface(
        name=value["name"].string(),
        mac=value["mac"].string(),
        mtu=value["mtu"].integer(minimum=0, maximum=_UINT32_MAX),
        sandbox=value["sandbox"].string(),
        socket_path=value["socketPath"].string(),
        pci_id=value["pciID"].string(),
    )


def _address_from(value: Value) -> Address:
    index = value["interface"].integer(-1, minimum=-1, maximum=_INT32_MAX)
    return Address(
        address=_prefix(value["address"]),
        gateway=_optional_address(value["gateway"]),
        interface=None if index < 0 else index,
    )


def _prefix(value: Value) -> str:
    address, prefixlen = value.network()
    return f"{address}/{prefixlen}"


def _optional_address(value: Value) -> str:
    return str(value.address()) if value.string() else ""


def require_expressible(version: str, *, has_addresses: bool) -> None:
    """Refuse a version whose results cannot say what a plugin is about to do; to be asked before it does it.

    Args:
        version: The netconf's version.
        has_addresses: Whether the result will have an address.

    Raises:
        IncompatibleVersion: version is not published.
        InvalidConfig: A result of that version needs an address, and there will be none.

    Source: libcni pkg/types/020/types.go, v1.3.0, "cannot convert: no valid IP addresses".
    """
    if family(version) is ONE_ADDRESS_PER_FAMILY and not has_addresses:
        raise InvalidConfig(
            f"cniVersion: {version} cannot express a result without addresses",
            "cannot convert: no valid IP addresses; use cniVersion 0.3.0 or later, or configure ipam",
        )


def result_to(result: Result, version: str) -> dict[str, object]:
    """Write a result in a version's shape. What the shape has no place for is left out.

    Args:
        result: The result.
        version: The netconf's version.

    Returns:
        A JSON object.

    Raises:
        IncompatibleVersion: version is not published.
        InvalidConfig: The version cannot express the result; see `require_expressible`.
    """
    require_expressible(version, has_addresses=bool(result.ips))
    versions = family(version)
    if versions is ONE_ADDRESS_PER_FAMILY:
        return {"cniVersion": version, **_one_per_family_to(result), "dns": _dns_to(result.dns)}
    is_current = versions is CURRENT
    sections: dict[str, object] = {
        "interfaces": [_interface_to(interface, is_current) for interface in result.interfaces],
        "ips": [_address_to(address, is_current) for address in result.ips],
        "routes": [_route_to(route) for route in result.routes],
    }
    document = {"cniVersion": version, **_without_empty(sections), "dns": _dns_to(result.dns)}
    if is_current and not document["dns"]:
        del document["dns"]
    return document


def _one_per_family_to(result: Result) -> dict[str, object]:
    document: dict[str, object] = {}
    for key, wants_ipv6 in (("ip4", False), ("ip6", True)):
        addresses = [address for address in result.ips if _is_ipv6(address.address) == wants_ipv6]
        if addresses:
            routes = [route for route in result.routes if _is_ipv6(route.dst) == wants_ipv6]
            document[key] = _without_empty(
                {
                    "ip": addresses[0].address,
                    "gateway": addresses[0].gateway,
                    "routes": [_without_empty({"dst": route.dst, "gw": route.gw}) for route in routes],
                }
            )
    return document


def _interface_to(interface: Interface, is_current: bool) -> dict[str, object]:
    document: dict[str, object] = {"mac": interface.mac, "sandbox": interface.sandbox}
    if is_current:
        document |= {"mtu": interface.mtu, "socketPath": interface.socket_path, "pciID": interface.pci_id}
    return {"name": interface.name, **_without_empty(document)}


def _address_to(address: Address, is_current: bool) -> dict[str, object]:
    document: dict[str, object] = {}
    if not is_current:
        document["version"] = "6" if _is_ipv6(address.address) else "4"
    if address.interface is not None:
        document["interface"] = address.interface
    return {**document, **_without_empty({"address": address.address, "gateway": address.gateway})}


def _route_to(route: Route) -> dict[str, object]:
    document = _without_empty(
        {
            "dst": route.dst,
            "gw": route.gw,
            "mtu": route.mtu,
            "advmss": route.advmss,
            "priority": route.priority,
        }
    )
    numbers = {"table": route.table, "scope": route.scope}
    return {**document, **{key: number for key, number in numbers.items() if number is not None}}


def _dns_to(dns: Dns) -> dict[str, object]:
    return _without_empty(
        {
            "nameservers": list(dns.nameservers),
            "domain": dns.domain,
            "search": list(dns.search),
            "options": list(dns.options),
        }
    )


def _without_empty(document: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in document.items() if value}


def _is_ipv6(text: str) -> bool:
    return ":" in text

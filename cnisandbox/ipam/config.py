"""The `ipam` section of a netconf, for `host-local`.

Privilege: none.

Source: containernetworking/plugins v1.9.1, plugins/ipam/host-local/backend/allocator/config.go.
"""

from cnisandbox.cni.args import parse_args
from cnisandbox.cni.netconf import NetConf
from cnisandbox.cni.result import Route, route_from
from cnisandbox.cni.value import Value
from cnisandbox.cni.versions import ONE_ADDRESS_PER_FAMILY
from cnisandbox.errors import InvalidConfig, InvalidEnvironment
from cnisandbox.hints import NamedTuple
from cnisandbox.ip import Address
from cnisandbox.ipam.ranges import RangeSet, parse_range, parse_range_set, require_disjoint

DEFAULT_DATA_DIR = "/var/lib/cni/networks"

# MAC is for the plugin that delegates to this one and hands its own CNI_ARGS on.
_CNI_ARGS = ("IP", "MAC")


class Requested(NamedTuple):
    """An address that the runtime asks for.

    Attributes:
        address: The address.
        source: Where it asks, for messages.
    """

    address: Address
    source: str


class IpamConfig(NamedTuple):
    """What ADD needs to know.

    Attributes:
        range_sets: One address comes from each; no two overlap.
        requested: Addresses to be among them.
        routes: To be copied into the result.
        resolv_conf: Path of the file that becomes the result's dns; empty for none.
    """

    range_sets: tuple[RangeSet, ...]
    requested: tuple[Requested, ...]
    routes: tuple[Route, ...]
    resolv_conf: str


def parse_config(netconf: NetConf, args: str, *, needs_ranges: bool = True) -> IpamConfig:
    """Read everything that ADD needs.

    Args:
        netconf: The netconf, be it of `host-local` itself or of the plugin that delegates to it.
        args: CNI_ARGS.
        needs_ranges: Whether ranges that the runtime is to send with ADD (capability ipRanges) must be there already.

    Raises:
        InvalidConfig: A field is missing or has a value that it cannot have.
        InvalidEnvironment: CNI_ARGS is malformed, or its IP is no address.
    """
    ipam = _section(netconf)
    return IpamConfig(
        range_sets=_range_sets(netconf, ipam, needs_ranges=needs_ranges),
        requested=_requested(netconf.config, args),
        routes=tuple(route_from(route) for route in ipam["routes"]),
        resolv_conf=ipam["resolvConf"].string(),
    )


def parse_data_dir(netconf: NetConf) -> str:
    """Read the path of the state directory: all that DEL, CHECK and GC need.

    Raises:
        InvalidConfig: It is not a string, or there is no ipam section.
    """
    return _section(netconf)["dataDir"].string() or DEFAULT_DATA_DIR


def _section(netconf: NetConf) -> Value:
    ipam = netconf.config["ipam"]
    if not ipam.is_present:
        raise ipam.error("is missing")
    return ipam


def _range_sets(netconf: NetConf, ipam: Value, *, needs_ranges: bool) -> tuple[RangeSet, ...]:
    """Read the range sets: those of the runtime, then the one in the old style, then `ranges`."""
    named = [(value, parse_range_set(value)) for value in netconf.config["runtimeConfig"]["ipRanges"]]
    if ipam["subnet"].is_present:
        named.append((ipam, (parse_range(ipam),)))
    named += [(value, parse_range_set(value)) for value in ipam["ranges"]]
    if not named and (needs_ranges or not netconf.config["capabilities"]["ipRanges"].boolean()):
        raise ipam["ranges"].error("no IP ranges specified")
    _require_expressible(netconf.version, named)
    require_disjoint([(value, part) for value, range_set in named for part in range_set])
    return tuple(range_set for _, range_set in named)


def _require_expressible(version: str, named: list[tuple[Value, RangeSet]]) -> None:
    seen = set()
    for value, range_set in named:
        ip_version = range_set[0].version
        if ip_version in seen and version in ONE_ADDRESS_PER_FAMILY:
            raise value.error(f"CNI version {version} does not support more than 1 address per family")
        seen.add(ip_version)


def _requested(config: Value, args: str) -> tuple[Requested, ...]:
    values = [*config["args"]["cni"]["ips"], *config["runtimeConfig"]["ips"]]
    return (*_requested_by_args(args), *(Requested(_address(value), value.path) for value in values))


def _requested_by_args(args: str) -> tuple[Requested, ...]:
    text = parse_args(args, _CNI_ARGS).get("IP", "")
    if not text:
        return ()
    value = Value(text, "CNI_ARGS: IP")
    try:
        return (Requested(_address(value), value.path),)
    except InvalidConfig as error:
        raise InvalidEnvironment(error.msg, error.details) from error


def _address(value: Value) -> Address:
    """Read an address that may have a prefix length; which one it gets is the range's business."""
    return value.interface().ip if "/" in value.string() else value.address()

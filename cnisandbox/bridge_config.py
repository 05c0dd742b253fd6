"""The netconf of the bridge plugin, as typed values.

Privilege: none.

Source: the reference plugin's documentation; docs/plugins/bridge.md says where we differ.
"""

from collections.abc import Iterator

from cnisandbox.cni.args import parse_args
from cnisandbox.cni.netconf import NetConf
from cnisandbox.cni.result import Dns, dns_from
from cnisandbox.cni.value import Value
from cnisandbox.errors import quoted
from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.bridge import Vlan
from cnisandbox.netlink.links import NO_MAC

_MAX_VLAN = 4094
_MAX_MTU = 65535
_DEFAULT_NAME = "cni0"
_NATIVE_VLAN = 1
_FORBIDDEN_IN_IFNAME = frozenset("/:%\0")  # and whitespace


class BridgeConfig(NamedTuple):
    """What the netconf asks for.

    Attributes:
        bridge: Name of the bridge.
        is_gateway: The bridge has the gateway's address and the host forwards.
        is_default_gateway: Also: the container's default route leads there.
        is_forced: `forceAddress`: replace an address of the bridge that differs.
        wants_masquerade: `ipMasq`.
        mtu: Bytes; 0 for the kernel's default.
        is_hairpin, is_isolated: Settings of the bridge port.
        is_promisc: The bridge is promiscuous.
        vlan: VLAN of the container; 0 for none.
        vlans: Memberships of the bridge port; empty when VLANs are not used.
        keeps_default_vlan: `preserveDefaultVlan`.
        wants_spoofcheck: `macspoofchk`.
        wants_dad: `enabledad`.
        is_left_down: `disableContainerInterface`.
        mac: Of the container's interface; empty for any.
        dns: What overrides the address plugin's; None for nothing.
    """

    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    is_forced: bool
    wants_masquerade: bool
    mtu: int
    is_hairpin: bool
    is_isolated: bool
    is_promisc: bool
    vlan: int
    vlans: list[Vlan]
    keeps_default_vlan: bool
    wants_spoofcheck: bool
    wants_dad: bool
    is_left_down: bool
    mac: str
    dns: Dns | None


def parse_config(netconf: NetConf, args: str) -> BridgeConfig:
    """Read and check the netconf.

    Args:
        netconf: The netconf.
        args: CNI_ARGS.

    Raises:
        InvalidConfig: a field has a value that it cannot have, or two of them contradict each other.
        InvalidEnvironment: CNI_ARGS is malformed.
    """
    config = netconf.config
    vlan = config["vlan"].integer(0, minimum=0, maximum=_MAX_VLAN)
    is_default_gateway = config["isDefaultGateway"].boolean()
    parsed = BridgeConfig(
        bridge=_ifname(config["bridge"]),
        is_gateway=config["isGateway"].boolean() or is_default_gateway,
        is_default_gateway=is_default_gateway,
        is_forced=config["forceAddress"].boolean(),
        wants_masquerade=config["ipMasq"].boolean(),
        mtu=config["mtu"].integer(0, minimum=0, maximum=_MAX_MTU),
        is_hairpin=config["hairpinMode"].boolean(),
        is_isolated=config["portIsolation"].boolean(),
        is_promisc=config["promiscMode"].boolean(),
        vlan=vlan,
        vlans=_memberships(vlan, config["vlanTrunk"]),
        keeps_default_vlan=config["preserveDefaultVlan"].boolean(),
        wants_spoofcheck=config["macspoofchk"].boolean(),
        wants_dad=config["enabledad"].boolean(),
        is_left_down=config["disableContainerInterface"].boolean(),
        mac=_mac(config, args),
        dns=_dns(config["dns"]),
    )
    _require_consistent(config, parsed)
    return parsed


def _require_consistent(config: Value, parsed: BridgeConfig) -> None:
    if parsed.is_hairpin and parsed.is_promisc:
        raise config["promiscMode"].error("cannot be set together with hairpinMode")
    if parsed.is_left_down and config["ipam"]["type"].string():
        raise config["disableContainerInterface"].error("cannot be set together with ipam")
    backend = config["ipMasqBackend"]
    # Both give the same masquerading; ours is made of nftables either way.
    if backend.string() not in ("", "iptables", "nftables"):
        raise backend.error(f'{quoted(backend.string())} is neither "iptables" nor "nftables"')


def _ifname(value: Value) -> str:
    name = value.string(_DEFAULT_NAME) or _DEFAULT_NAME
    is_possible = len(name.encode()) < 16 and name not in (".", "..")
    if not is_possible or name.split() != [name] or not _FORBIDDEN_IN_IFNAME.isdisjoint(name):
        raise value.error(f"{quoted(name)} is not a name that a link can have", "at most 15 bytes, such as cni0")
    return name


def _mac(config: Value, args: str) -> str:
    """The capability wins over `args.cni`, which wins over CNI_ARGS."""
    from_environment = parse_args(args, ("MAC",)).get("MAC", "")
    candidates = (
        config["runtimeConfig"]["mac"],
        config["args"]["cni"]["mac"],
        Value(from_environment or None, "CNI_ARGS.MAC"),
    )
    for value in candidates:
        if value.string():
            return _mac_of_one(value)
    return ""


def _mac_of_one(value: Value) -> str:
    mac = value.mac()
    # KERNEL: a link has neither a group's address nor none; it says "cannot assign requested address", and not of what.
    if mac == NO_MAC or int(mac[1], 16) & 1:
        raise value.error(f"{quoted(mac)} is not the address of one interface", "the first octet must be even, as 02")
    return mac


def _dns(value: Value) -> Dns | None:
    """A field that is there overrides the address plugin's, even an empty list."""
    if value.is_present and any(value[key].is_present for key in ("nameservers", "domain", "search", "options")):
        return dns_from(value)
    return None


def _memberships(vlan: int, trunk: Value) -> list[Vlan]:
    trunk_vlans = sorted(set(_trunk(trunk)))
    if not vlan and not trunk_vlans:
        return []
    native = vlan or _NATIVE_VLAN
    native_membership = Vlan(native, native, is_pvid=True, is_untagged=True)
    return [native_membership, *(Vlan(tag, tag) for tag in trunk_vlans if tag != native)]


def _trunk(trunk: Value) -> Iterator[int]:
    for item in trunk:
        bounds = item["minID"], item["maxID"]
        if bounds[0].is_present != bounds[1].is_present:
            raise item.error("minID and maxID must be given together")
        if bounds[0].is_present:
            first, last = (bound.integer(minimum=1, maximum=_MAX_VLAN) for bound in bounds)
            if first > last:
                raise item.error(f"minID {first} is greater than maxID {last}")
            yield from range(first, last + 1)
        if item["id"].is_present:
            yield item["id"].integer(minimum=1, maximum=_MAX_VLAN)
        elif not bounds[0].is_present:
            raise item.error("needs id, or minID and maxID")

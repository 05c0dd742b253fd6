"""What our own plugins may do at level mediated: permits as data.

Names that a permit takes from the netconf: "bridge", the bridge and the gateway of its VLAN; "host", the names that the
host's end of the attachment may have.

Privilege: none.
"""

import json
from collections.abc import Callable

from cnisandbox.policy.patterns import matches_any
from cnisandbox.policy.permit import Permit, SysctlPermit

RuleAt = Callable[[str, str, str, int], object]

_HOST, _CONTAINER = ("host",), ("container",)
_BRIDGE, _PORT = "netconf:bridge", "netconf:host"
# What names.attachment_alias marks: GC deletes links of attachments whose names nobody knows any more.
_MARKED = "alias:cnisandbox attachment *"
_OF_BRIDGE = ("bridge", "veth")  # the gateway of a VLAN is a veth
_LOOKING = ("RTM_GETLINK", "RTM_GETADDR", "RTM_GETROUTE", "RTM_GETRULE", "RTM_GETVLAN")
_LOOKING_ATTRIBUTES = ("ifname", "ext_mask", "master", "oif", "table", "dst", "dump_flags")
_ADDRESS = ("local", "address", "broadcast", "flags")
_VETH = tuple(f"linkinfo.data.peer.{name}" for name in ("ifname", "mtu", "address", "net_ns_fd"))

_LOOK = (
    Permit("look", (*_HOST, *_CONTAINER), _LOOKING, links=("any",), attributes=_LOOKING_ATTRIBUTES),
    Permit("list", (*_HOST, *_CONTAINER), _LOOKING, attributes=_LOOKING_ATTRIBUTES),
)
_INTERFACE = (
    Permit(
        "interface: set",
        _CONTAINER,
        ("RTM_NEWLINK", "RTM_SETLINK"),
        links=("attachment",),
        attributes=("ifname", "address", "mtu", "txqlen"),
    ),
    Permit("interface: delete", _CONTAINER, ("RTM_DELLINK",), links=("attachment",), attributes=("ifname",)),
    Permit(
        "interface: addresses", _CONTAINER, ("RTM_NEWADDR", "RTM_DELADDR"), links=("attachment",), attributes=_ADDRESS
    ),
    Permit(
        "interface: routes",
        _CONTAINER,
        ("RTM_NEWROUTE", "RTM_DELROUTE"),
        links=("attachment",),
        attributes=("dst", "gateway", "oif", "prefsrc", "priority", "table", "metrics.*"),
    ),
)
_HOST_HALF = (
    Permit(
        "bridge: create",
        _HOST,
        ("RTM_NEWLINK",),
        links=(_BRIDGE,),
        kinds=("bridge",),
        attributes=("ifname", "address", "mtu", "linkinfo.kind", "linkinfo.data.*"),
    ),
    Permit(
        "bridge: set",
        _HOST,
        ("RTM_NEWLINK", "RTM_SETLINK"),
        links=(_BRIDGE,),
        kinds=_OF_BRIDGE,
        attributes=("ifname", "ifalias", "address", "mtu", "linkinfo.kind", "linkinfo.data.*"),
    ),
    Permit("bridge: delete", _HOST, ("RTM_DELLINK",), links=(_BRIDGE,), kinds=_OF_BRIDGE),
    Permit(
        "bridge: addresses",
        _HOST,
        ("RTM_NEWADDR", "RTM_DELADDR"),
        links=(_BRIDGE,),
        kinds=_OF_BRIDGE,
        attributes=_ADDRESS,
    ),
    Permit(
        "pair: create",
        _HOST,
        ("RTM_NEWLINK",),
        links=(_PORT,),
        kinds=("veth",),
        related=(_BRIDGE, "attachment"),
        attributes=("ifname", "address", "mtu", "master", "linkinfo.kind", *_VETH),
    ),
    Permit(
        "port: set",
        _HOST,
        ("RTM_NEWLINK", "RTM_SETLINK"),
        links=(_PORT,),
        kinds=("veth",),
        related=(_BRIDGE,),
        attributes=("ifalias", "master", "linkinfo.slave_kind", "linkinfo.slave_data.*", "af_spec.**"),
    ),
    Permit("port: VLANs", _HOST, ("RTM_DELLINK",), links=(_PORT,), kinds=("veth",), attributes=("af_spec.**",)),
    Permit("port: delete", _HOST, ("RTM_DELLINK",), links=(_PORT, _MARKED), kinds=("veth",)),
)
_LOOPBACK = (
    Permit("loopback: set", _CONTAINER, ("RTM_NEWLINK", "RTM_SETLINK"), links=("loopback",), attributes=("ifname",)),
)

_PERMITS = {"bridge": (*_LOOK, *_HOST_HALF, *_INTERFACE), "loopback": (*_LOOK, *_LOOPBACK)}

_INTERFACE_SETTINGS = (
    "net/ipv4/conf/{attachment}/arp_notify",
    "net/ipv6/conf/{attachment}/accept_dad",
    "net/ipv6/conf/{attachment}/enhanced_dad",
    "net/ipv6/conf/{attachment}/disable_ipv6",
    "net/ipv6/conf/{attachment}/keep_addr_on_down",
    "net/ipv6/conf/{attachment}/ndisc_notify",
    "net/ipv6/conf/{lo}/disable_ipv6",
)
_HOST_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/{netconf:bridge}/accept_ra",
    "net/ipv6/conf/{netconf:host}/accept_ra",
)
_SYSCTLS = {
    "bridge": (
        *(SysctlPermit("bridge: settings", _HOST, key, "write") for key in _HOST_SETTINGS),
        *(SysctlPermit("interface: settings", _CONTAINER, key, "write") for key in _INTERFACE_SETTINGS),
    )
}

# Tables, and the chains in them that are the plugins' own; in others a rule may only be deleted by its handle, or be a
# jump to one of these.
_CHAINS = {
    ("inet", "cnisandbox_masquerade"): ("*",),
    ("bridge", "nat"): ("cni-br-iface-*",),
    ("inet", "cni_plugins_masquerade"): ("masq_checks",),
    ("ip", "nat"): ("CNI-*",),
    ("ip6", "nat"): ("CNI-*",),
}
_BASE_CHAINS = {("bridge", "nat"): ("PREROUTING",)}
# What a rule may hold besides its jump: libnftables calls an extension of iptables "xt", such as its comment.
_LOOKING_EXPRESSIONS = ("match", "counter", "xt")
_CHANGES = ("add", "create", "delete", "flush", "insert", "replace", "destroy")


def permits_of(plugin: str) -> tuple[Permit, ...]:
    """Return what a plugin of ours may send; nothing for one that needs no network."""
    return _PERMITS.get(plugin, ())


def sysctls_of(plugin: str) -> tuple[SysctlPermit, ...]:
    """Return which settings a plugin of ours may open."""
    return _SYSCTLS.get(plugin, ())


def complaint_about_commands(text: str, rule_at: RuleAt) -> str:
    """Say what of some nf_tables commands is not for our plugins; empty for nothing.

    Args:
        text: As libnftables-json(5) describes; any text.
        rule_at: Looks at what stands in a rule, by family, table, chain and handle; None for no rule.
    """
    try:
        commands = json.loads(text)["nftables"]
        found = [_complaint(verb, kind, what, rule_at) for command in commands for verb, kind, what in _parts(command)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "these are no commands"
    return next((complaint for complaint in found if complaint), "")


def _parts(command: dict[str, dict[str, dict[str, object]]]) -> list[tuple[str, str, dict[str, object]]]:
    return [(verb, kind, what) for verb, objects in command.items() for kind, what in objects.items()]


def _complaint(verb: str, kind: str, what: dict[str, object], rule_at: RuleAt) -> str:
    if verb == "list":
        return "" if kind in ("chain", "chains", "map", "table") else f"list {kind}"
    if verb not in _CHANGES or kind not in ("table", "chain", "rule", "map", "set", "element"):
        return f"{verb} {kind}"
    family, table = what.get("family"), what.get("name" if kind == "table" else "table")
    key = (str(family), str(table))
    if key not in _CHAINS:
        return f"table {family} {table}"
    is_ours = _CHAINS[key] == ("*",)
    if is_ours or (kind == "table" and verb == "add"):
        return ""
    chain = str(what.get("name" if kind == "chain" else "chain", ""))
    if kind in ("chain", "rule") and matches_any(chain, _CHAINS[key]):
        return ""
    if kind == "chain" and verb == "add" and chain in _BASE_CHAINS.get(key, ()):
        return "" if what.get("policy", "accept") == "accept" else f"policy {what['policy']}"
    handle = what.get("handle")
    if kind == "rule" and verb == "delete" and isinstance(handle, int):
        there = rule_at(*key, chain, handle)  # where none is, the kernel says so
        return "" if there is None or _only_jumps(there, _CHAINS[key]) else f"rule {handle} of chain {chain}"
    if kind == "rule" and verb in ("add", "insert") and _only_jumps(what.get("expr"), _CHAINS[key]):
        return ""
    return f"{verb} {kind} {chain} of table {family} {table}"


def _only_jumps(expressions: object, chains: tuple[str, ...]) -> bool:
    if not isinstance(expressions, list):
        return False
    targets = []
    for expression in expressions:
        for name, content in expression.items():
            if name == "jump":
                targets.append(str(content.get("target", "")))
            elif name not in _LOOKING_EXPRESSIONS:
                return False
    return len(targets) == 1 and matches_any(targets[0], chains)

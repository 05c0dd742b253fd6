"""What our own plugins may do at level mediated: permits as data.

Names that a permit takes from the netconf: "bridge", the bridge and the gateway of its VLAN; "host", the names that the
host's end of the attachment may have.

Privilege: none.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
from collections.abc import Callable

from cnisandbox.nft.shared import MAPS, rule_of_attachment, shared_rules
from cnisandbox.policy.patterns import matches_any
from cnisandbox.policy.permit import Permit, SysctlPermit

RuleAt = Callable[[str, str, str, int], object]

_HOST, _CONTAINER = ("host",), ("container",)
_BRIDGE, _PORT = "netconf:bridge", "netconf:host"
# What names.attachment_alias marks: GC deletes links of attachments whose names nobody knows any more.
_MARKED = "alias:cnisandbox attachment *"
_MARKED_BRIDGE = "alias:cnisandbox network *"  # of names.network_alias: a bridge that a plugin of ours has made
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
        "bridge: finish",
        _HOST,
        ("RTM_NEWLINK", "RTM_SETLINK"),
        links=("created",),
        kinds=_OF_BRIDGE,
        attributes=("ifname", "ifalias", "address", "mtu", "linkinfo.kind", "linkinfo.data.*"),
    ),
    Permit(
        "bridge: use",
        _HOST,
        ("RTM_NEWLINK", "RTM_SETLINK"),
        links=(_BRIDGE,),
        kinds=_OF_BRIDGE,
        attributes=("ifname", "address", "linkinfo.kind", "linkinfo.data.*"),
    ),
    Permit("bridge: delete", _HOST, ("RTM_DELLINK",), links=("created", _MARKED_BRIDGE), kinds=_OF_BRIDGE),
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
        links=("created",),
        kinds=("veth",),
        related=(_BRIDGE,),
        attributes=("ifalias", "master", "linkinfo.slave_kind", "linkinfo.slave_data.*", "af_spec.**"),
    ),
    Permit("port: VLANs", _HOST, ("RTM_DELLINK",), links=("created",), kinds=("veth",), attributes=("af_spec.**",)),
    Permit("port: delete", _HOST, ("RTM_DELLINK",), links=("created", _MARKED), kinds=("veth",)),
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

# Tables, and the chains in them that are the plugins' own; in others a rule may be deleted only if it jumps to one of
# these, and be made only so.
_MASQUERADE = ("inet", "cnisandbox_masquerade")
_CHAINS = {
    _MASQUERADE: ("*",),
    ("bridge", "nat"): ("cni-br-iface-*",),
    ("inet", "cni_plugins_masquerade"): ("masq_checks",),
    ("ip", "nat"): ("CNI-*",),
    ("ip6", "nat"): ("CNI-*",),
}
# What a rule may do in a chain of an attachment, by table. In tables that are not listed (the reference's) nothing is
# made, only deleted.
_STATEMENTS = {
    _MASQUERADE: (),
    ("bridge", "nat"): ("match", "return", "jump", "drop"),
}
# Base chains, exactly as they are made: another hook or policy would be for the traffic of the whole host.
_BASE_CHAINS: dict[tuple[str, str], dict[str, object]] = {
    _MASQUERADE: {
        "name": "postrouting", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"
    },
    ("bridge", "nat"): {
        "name": "PREROUTING", "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"
    },
}  # fmt: skip
_NAMED = {
    "table": {"family", "name"},
    "chain": {"family", "table", "name"},
    "rule": {"family", "table", "chain", "expr", "comment", "handle"},
    "map": {"family", "table", "name", "type", "map"},
    "element": {"family", "table", "name", "elem"},
}
# What a rule may hold besides its jump: libnftables calls an extension of iptables "xt", such as its comment.
_LOOKING_EXPRESSIONS = ("match", "counter", "xt")
_MAKES = ("add", "create", "insert")


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
        rule_at: Looks at what stands in a rule, by family, table, chain and handle; what it raises is passed on.
    """
    import json  # noqa: PLC0415 - see cnisandbox/late.py

    try:
        commands = json.loads(text)["nftables"]
        found = [
            _complaint(verb, kind, what, rule_at)
            for command in commands
            for verb, objects in command.items()
            for kind, what in objects.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "these are no commands"
    return next((complaint for complaint in found if complaint), "")


def _complaint(verb: str, kind: str, what: dict[str, object], rule_at: RuleAt) -> str:
    if verb == "list":
        return "" if kind in ("chain", "chains", "map", "table") else f"list {kind}"
    if verb not in (*_MAKES, "delete", "flush") or kind not in _NAMED:
        return f"{verb} {kind}"
    family, table = str(what.get("family")), str(what.get("name" if kind == "table" else "table"))
    key = (family, table)
    where = f"{verb} {kind} of table {family} {table}"
    if key not in _CHAINS or (verb == "flush" and kind != "chain"):
        return where
    base = {name: value for name, value in what.items() if name not in ("family", "table")}
    if kind == "chain" and verb == "add" and base == _BASE_CHAINS.get(key):
        return ""
    if what.keys() - _NAMED[kind]:
        return f"{where}: {min(what.keys() - _NAMED[kind])}"
    if verb in _MAKES and key not in _STATEMENTS:
        return where
    is_ours = _CHAINS[key] == ("*",)
    if kind in ("table", "map", "element"):
        is_plain = kind != "element" or verb not in _MAKES or _only_goes(what.get("elem"))
        return "" if (is_ours or (kind == "table" and verb == "add")) and is_plain else where
    chain = what.get("name" if kind == "chain" else "chain")
    if not isinstance(chain, str):
        return where
    if kind == "chain":
        return "" if matches_any(chain, _CHAINS[key]) else f"{where}: {chain}"
    return "" if _is_rule_passed(verb, what, key, chain, rule_at) else f"{where}: a rule of {chain}"


def _is_rule_passed(verb: str, what: dict[str, object], key: tuple[str, str], chain: str, rule_at: RuleAt) -> bool:
    is_own_chain = matches_any(chain, _CHAINS[key])
    handle = what.get("handle")
    if verb in _MAKES and key == _MASQUERADE:
        return handle is None and what.get("expr") in _rules_of_masquerade(chain, what.get("expr"))
    if verb == "delete":
        if not isinstance(handle, int):
            return False
        return is_own_chain or _only_jumps(rule_at(*key, chain, handle), key)
    if handle is not None or "expr" not in what:
        return False
    if not is_own_chain:
        return _only_jumps(what["expr"], key) and _is_about_one_port(what["expr"])
    return all(_is_statement_passed(name, content, _STATEMENTS[key], key) for name, content in _pairs(what["expr"]))


def _is_about_one_port(body: object) -> bool:
    """Say whether a rule of the chain that all frames pass begins with the name of one link: see nft/spoofcheck.py."""
    match body:
        case [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": str(name)}}, {"jump": _}]:
            return bool(name) and not set(name) & set("*\\@")
    return False


def _rules_of_masquerade(chain: str, body: object) -> list[object]:
    """List the rules that may be made in a chain; of those of an attachment, the one with the addresses of this one.

    Whatever stands in the chains that all packets pass is for the traffic of the whole host: only what is always there.
    """
    shared: list[object] = list(shared_rules().get(chain, []))
    if shared or not chain.startswith("cni-"):
        return shared
    match body:
        case [{"match": {"right": source}}, {"match": {"right": subnet}}, _]:
            return [rule_of_attachment(protocol, source, subnet) for protocol in MAPS if _is_address(protocol, source)]
    return []


def _is_address(protocol: str, operand: object) -> bool:
    """Say whether a rule is about one address, not a range or a set of them."""
    try:
        _socket.inet_pton(_socket.AF_INET if protocol == "ip" else _socket.AF_INET6, str(operand))
    except (OSError, ValueError):
        return False
    return isinstance(operand, str)


def _only_jumps(statements: object, key: tuple[str, str]) -> bool:
    """Say whether a rule does no more than to go on in a chain of ours."""
    acting = [pair for pair in _pairs(statements) if pair[0] not in _LOOKING_EXPRESSIONS]
    return len(acting) == 1 and acting[0][0] == "jump" and _leads_to_ours(acting[0][1], key)


def _is_statement_passed(name: str, content: object, permitted: tuple[str, ...], key: tuple[str, str]) -> bool:
    if name not in permitted:
        return False
    return name not in ("jump", "goto") or _leads_to_ours(content, key)


def _leads_to_ours(content: object, key: tuple[str, str]) -> bool:
    return isinstance(content, dict) and matches_any(str(content.get("target", "")), _CHAINS[key])


def _pairs(statements: object) -> list[tuple[str, object]]:
    """List the statements of a rule.

    Raises:
        TypeError: it has no list of them.
    """
    if not isinstance(statements, list) or not all(isinstance(statement, dict) for statement in statements):
        raise TypeError
    return [pair for statement in statements for pair in statement.items()]


def _only_goes(elements: object) -> bool:
    """Say whether elements of a map lead to chains and nowhere else."""
    if not isinstance(elements, list):
        return False
    return all(
        isinstance(element, list) and len(element) == 2 and isinstance(element[1], dict) and set(element[1]) == {"goto"}
        for element in elements
    )

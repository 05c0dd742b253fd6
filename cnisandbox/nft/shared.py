"""The rules of masquerading that all attachments share, and the shape of an attachment's own: written and judged by it.

Loads nothing: the gates of every plugin have it (cnisandbox/policy/own.py).

Privilege: none.
"""

from cnisandbox.hints import Any

MAPS = {"ip": "sources4", "ip6": "sources6"}
POSTROUTING = "postrouting"
MASQ = "masq"
_MULTICAST = (("ip", "224.0.0.0", 4), ("ip6", "ff00::", 8))


def shared_rules() -> dict[str, list[list[dict[str, Any]]]]:
    """List the rules of the chains that all packets pass, by chain, as libnftables lists them."""
    multicast: list[list[dict[str, Any]]] = [
        [_compare(protocol, "daddr", "==", {"prefix": {"addr": address, "len": length}}), {"return": None}]
        for protocol, address, length in _MULTICAST
    ]
    lookups: list[list[dict[str, Any]]] = [
        [{"vmap": {"key": _field(protocol, "saddr"), "data": f"@{name}"}}] for protocol, name in MAPS.items()
    ]
    return {MASQ: [[{"masquerade": None}]], POSTROUTING: multicast + lookups}


def rule_of_attachment(protocol: str, source: Any, subnet: Any) -> list[dict[str, Any]]:
    """Write the rule of an address: masquerade what goes from it to another subnet.

    Args:
        protocol: "ip" or "ip6".
        source: The address.
        subnet: Its subnet, as libnftables lists it.
    """
    return [
        _compare(protocol, "saddr", "==", source),
        _compare(protocol, "daddr", "!=", subnet),
        {"goto": {"target": MASQ}},
    ]


def _field(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _compare(protocol: str, field: str, op: str, right: Any) -> dict[str, Any]:
    return {"match": {"op": op, "left": _field(protocol, field), "right": right}}

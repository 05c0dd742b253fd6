"""The JSON of rules: what statements are made of, and how a rule, a chain or an element is named in a command.

Source: libnftables-json(5), nftables 1.0.6.
"""

from _socket import AF_INET, AF_INET6, inet_ntop

from cnisandbox.hints import Any
from cnisandbox.ip import Address, Network
from cnisandbox.nft.connection import Command

Statement = dict[str, Any]


def payload(protocol: str, field: str) -> Statement:
    """Name a header field, such as `ip saddr`."""
    return {"payload": {"protocol": protocol, "field": field}}


def match(left: Statement, right: Any, op: str = "==") -> Statement:
    """Compare; the rule ends here for a packet that differs."""
    return {"match": {"op": op, "left": left, "right": right}}


def protocol_of(address: Address | Network) -> str:
    """Return the protocol whose header holds such an address: "ip" or "ip6"."""
    return "ip" if address.version == 4 else "ip6"


def text_of(address: Address) -> str:
    """Write an address as libnftables lists it: as inet_ntop(3) does, where Python writes ::ffff:1.2.3.4 otherwise."""
    return inet_ntop(AF_INET if address.version == 4 else AF_INET6, address.packed)


def network_operand(network: Network) -> Any:
    """Write a network as libnftables lists it: a prefix, or one address when it is no more than that."""
    address = text_of(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return address
    return {"prefix": {"addr": address, "len": network.prefixlen}}


def jump(chain: str) -> Statement:
    """Go on in another chain, and come back."""
    return {"jump": {"target": chain}}


def goto(chain: str) -> Statement:
    """Go on in another chain; at its end, go on where this chain was called."""
    return {"goto": {"target": chain}}


class Table:
    """The objects of one table, as commands name them.

    Args:
        family: "inet", "bridge", "ip", ...
        name: Name of the table.
    """

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name

    def itself(self) -> Command:
        """Name the table."""
        return {"table": {"family": self.family, "name": self.name}}

    def chain(self, name: str, **base: Any) -> Command:
        """Name a chain; `base` holds type, hook, prio and policy of a base chain that is to be made."""
        return {"chain": {"family": self.family, "table": self.name, "name": name, **base}}

    def rule(self, chain: str, **content: Any) -> Command:
        """Name a rule: by `handle`, or, if it is to be made, by its `expr` and `comment`."""
        return {"rule": {"family": self.family, "table": self.name, "chain": chain, **content}}

    def map(self, name: str, **content: Any) -> Command:
        """Name a map; `type` and `map` say what it maps to what, if it is to be made."""
        return {"map": {"family": self.family, "table": self.name, "name": name, **content}}

    def element(self, name: str, element: Any) -> Command:
        """Name one element of the set or map `name`."""
        return {"element": {"family": self.family, "table": self.name, "name": name, "elem": [element]}}

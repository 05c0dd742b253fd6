"""What the masquerading of the reference plugins leaves for an attachment, and its removal.

A node changes over to these plugins with containers running, so DEL has to clean up after the plugin that did the ADD.
Three things are found, each by a name that follows from network and container alone:

    iptables (nft variant)  chain CNI-<24 hex> in `ip nat` and `ip6 nat`, and the rules of POSTROUTING that jump to it
    nftables                rules of `inet cni_plugins_masquerade` chain masq_checks, by the beginning of their comment

Rules of iptables-legacy are out of reach: its kernel interface wants CAP_NET_RAW, which no worker has. The tables and
base chains stay, as the reference plugins leave them too.

Privilege: CAP_NET_ADMIN in the netns of the host.
Source: containernetworking/plugins 3d27709f, pkg/ip/ipmasq_iptables_linux.go, pkg/ip/ipmasq_nftables_linux.go,
pkg/utils/utils.go.
"""

from collections.abc import Callable

from cnisandbox.digest import sha512_hex
from cnisandbox.errors import quoted
from cnisandbox.nft.connection import Command, rules_of, transact
from cnisandbox.nft.statements import Table, jump

_NFTABLES = Table("inet", "cni_plugins_masquerade")
_NFTABLES_CHAIN = "masq_checks"
_IPTABLES = (Table("ip", "nat"), Table("ip6", "nat"))
_IPTABLES_CHAIN = "POSTROUTING"


def iptables_chain(network: str, container_id: str) -> str:
    """Name the chain of an attachment, as the reference does; the interface's name is not part of it."""
    return "CNI-" + sha512_hex((network + container_id).encode())[:24]


def delete_iptables_rules(network: str, container_id: str) -> None:
    """Delete the chain of a container in a network, and every rule that jumps to it.

    A container with two interfaces in one network has one chain for both: it goes with the first. (Which rule of
    POSTROUTING belongs to which interface can only be told by addresses, and DEL need not know any.)
    """
    for table in _IPTABLES:
        _delete_iptables_chain(table, iptables_chain(network, container_id), quoted(container_id))


def _delete_iptables_chain(table: Table, chain: str, target: str) -> None:
    def prepare(_attempt: int) -> list[Command]:
        if rules_of(table.family, table.name, chain) is None:
            return []
        jumps: list[Command] = [
            {"delete": table.rule(_IPTABLES_CHAIN, handle=rule["handle"])}
            for rule in rules_of(table.family, table.name, _IPTABLES_CHAIN) or []
            if jump(chain) in rule["expr"]
        ]
        return [*jumps, {"flush": table.chain(chain)}, {"delete": table.chain(chain)}]

    transact(prepare, "delete reference rules of", target)


def delete_nftables_rules(is_wanted: Callable[[str], bool], operation: str, target: str) -> None:
    """Delete the rules whose comment says so.

    Args:
        is_wanted: Gets a comment, "<16 hex>-<16 hex>, net: ...", and says whether its rule is to go.
        operation: Verb for the message of a refusal.
        target: Object for the message of a refusal.
    """

    def prepare(_attempt: int) -> list[Command]:
        return [
            {"delete": _NFTABLES.rule(_NFTABLES_CHAIN, handle=rule["handle"])}
            for rule in rules_of(_NFTABLES.family, _NFTABLES.name, _NFTABLES_CHAIN) or []
            if is_wanted(rule.get("comment", ""))
        ]

    transact(prepare, operation, target)

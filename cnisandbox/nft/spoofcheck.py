"""The rules of macspoofchk: what enters the bridge at an attachment's port with another MAC address is dropped.

    table bridge nat {
        chain PREROUTING {
            type filter hook prerouting priority dstnat; policy accept;
            iifname "veth0a1b2c3d" jump cni-br-iface-<id>-<ifname> comment "macspoofchk-<id>-<ifname>"
        }
        chain cni-br-iface-<id>-<ifname> { jump cni-br-iface-<id>-<ifname>-mac comment ... }
        chain cni-br-iface-<id>-<ifname>-mac {
            ether saddr 02:00:00:00:00:01 return comment ...
            drop comment ...
        }
    }

Names, comments and rules are the reference plugin's to the letter, so that either can remove what the other has made.
The network is not part of them: an attachment of the same container and ifname in another network would share them
(CNI forbids that: one ifname, one attachment), and garbage collection by network is not possible.

The table and its base chain stay when the last attachment goes, as with the reference: nothing in the kernel would
refuse to delete a base chain to which another plugin has just added a rule.

Privilege: CAP_NET_ADMIN in the netns of the host. The caller chooses names, which are part of the names of chains and
of comments, a link and a MAC address; the effect stays inside `bridge nat`, on chains named cni-br-iface-..., and on
rules with a macspoofchk- comment. A hostile caller can filter a port of its choice: that is what it may ask for.

Source: containernetworking/plugins 3d27709f, pkg/link/spoofcheck.go.
"""

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import InvalidConfig, quoted
from cnisandbox.nft.connection import Command, chains_of, rules_of, transact
from cnisandbox.nft.statements import Statement, Table, jump, match, payload

_TABLE = Table("bridge", "nat")
_PREROUTING = "PREROUTING"
_DSTNAT_PRIORITY = -300  # of the bridge family


@declared
def add_spoofcheck(container_id: str, ifname: str, host_ifname: str, mac: str) -> None:
    """Let frames of one MAC address only pass from a port into its bridge.

    Whatever the same attachment had before is replaced, in the same transaction.

    Args:
        container_id: CNI_CONTAINERID.
        ifname: CNI_IFNAME.
        host_ifname: The link at the bridge, such as "veth0a1b2c3d".
        mac: The address that is allowed, "02:00:00:00:00:01".

    Raises:
        InvalidConfig: The name of the link means something else than itself to nftables.
        KernelRefused: The kernel refused the rules; among them names that are too long for it.
    """
    _require_plain(host_ifname)
    bodies = _bodies(container_id, ifname, host_ifname, mac)

    def prepare(_attempt: int) -> list[Command]:
        chains = chains_of(_TABLE.family, _TABLE.name)
        commands = [] if _PREROUTING in chains else _base()
        commands += _withdrawal(container_id, ifname, chains)
        # ORDER: a chain before the rules that jump to it.
        commands += [{"add": _TABLE.chain(chain)} for chain in reversed(_chains(container_id, ifname))]
        comment = _comment(container_id, ifname)
        for chain, body in bodies:
            commands.append({"add": _TABLE.rule(chain, expr=body, comment=comment)})
        return commands

    transact(prepare, "add spoof check of", _named(container_id, ifname))


@declared
def delete_spoofcheck(container_id: str, ifname: str) -> None:
    """Delete the spoof check of an attachment; nothing happens where nothing is left.

    Raises:
        KernelRefused: The kernel refused, for another reason than that something is missing.
    """

    def prepare(_attempt: int) -> list[Command]:
        return _withdrawal(container_id, ifname, chains_of(_TABLE.family, _TABLE.name))

    transact(prepare, "delete spoof check of", _named(container_id, ifname))


@declared
def has_spoofcheck(container_id: str, ifname: str, host_ifname: str, mac: str) -> bool:
    """Say whether an attachment has the rules that `add_spoofcheck` with the same arguments makes, and no others."""
    comment = _comment(container_id, ifname)
    found = [
        (chain, rule["expr"])
        for chain in (_PREROUTING, *_chains(container_id, ifname))
        for rule in rules_of(_TABLE.family, _TABLE.name, chain) or []
        if chain != _PREROUTING or rule.get("comment") == comment
    ]
    return found == _bodies(container_id, ifname, host_ifname, mac)


def _chains(container_id: str, ifname: str) -> tuple[str, str]:
    """Name the chain of an attachment, and the one of its MAC addresses."""
    chain = f"cni-br-iface-{container_id}-{ifname}"
    return chain, f"{chain}-mac"


def _comment(container_id: str, ifname: str) -> str:
    return f"macspoofchk-{container_id}-{ifname}"


def _named(container_id: str, ifname: str) -> str:
    return f"{quoted(container_id)} {quoted(ifname)}"


def _require_plain(host_ifname: str) -> None:
    """Refuse names that libnftables would read as a pattern ("veth*") or as the name of a set ("@x")."""
    if not host_ifname or host_ifname.startswith("@") or "*" in host_ifname or "\\" in host_ifname:
        raise InvalidConfig(f"spoof check {quoted(host_ifname)}: cannot be matched by name in nftables")


def _base() -> list[Command]:
    base = _TABLE.chain(_PREROUTING, type="filter", hook="prerouting", prio=_DSTNAT_PRIORITY, policy="accept")
    return [{"add": _TABLE.itself()}, {"add": base}]


def _bodies(container_id: str, ifname: str, host_ifname: str, mac: str) -> list[tuple[str, list[Statement]]]:
    """Write the rules of an attachment: chain and statements, in the order of the packet's way."""
    attachment, macs = _chains(container_id, ifname)
    return [
        (_PREROUTING, [match({"meta": {"key": "iifname"}}, host_ifname), jump(attachment)]),
        (attachment, [jump(macs)]),
        (macs, [match(payload("ether", "saddr"), mac), {"return": None}]),
        (macs, [{"drop": None}]),
    ]


def _withdrawal(container_id: str, ifname: str, chains: frozenset[str]) -> list[Command]:
    """Delete what an attachment has, in the order in which nothing refers to what goes."""
    comment = _comment(container_id, ifname)
    commands: list[Command] = [
        {"delete": _TABLE.rule(_PREROUTING, handle=rule["handle"])}
        for rule in rules_of(_TABLE.family, _TABLE.name, _PREROUTING) or []
        if rule.get("comment") == comment
    ]
    for chain in _chains(container_id, ifname):
        if chain in chains:
            commands += [{"flush": _TABLE.chain(chain)}, {"delete": _TABLE.chain(chain)}]
    return commands

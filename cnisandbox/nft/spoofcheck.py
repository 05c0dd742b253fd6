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
(CNI forbids that: one ifname, one attachment), and garbage is not found by network, but by the link, which has gone.

The table and its base chain stay when the last attachment goes, as with the reference: nothing in the kernel would
refuse to delete a base chain to which another plugin has just added a rule. A chain of that name that is attached
elsewhere is somebody else's: the rules would be there and filter nothing, so that ADD fails.

Privilege: CAP_NET_ADMIN in the netns of the host. The caller chooses names, which are part of the names of chains and
of comments, a link and a MAC address; the effect stays inside `bridge nat`, on chains named cni-br-iface-..., and on
rules with a macspoofchk- comment. A hostile caller can filter a port of its choice, or stop filtering one: that is
what it may ask for.

Source: containernetworking/plugins 3d27709f, pkg/link/spoofcheck.go.
"""

import errno
from collections.abc import Collection

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import InvalidConfig, KernelRefused, quoted
from cnisandbox.hints import NamedTuple
from cnisandbox.nft.connection import Command, chains_of, rules_of, transact
from cnisandbox.nft.statements import Statement, Table, jump, match, payload

_TABLE = Table("bridge", "nat")
_PREROUTING = "PREROUTING"
_DSTNAT_PRIORITY = -300  # of the bridge family
_BASE: Command = {"type": "filter", "hook": "prerouting", "prio": _DSTNAT_PRIORITY}
_CHAIN_PREFIX = "cni-br-iface-"
_COMMENT_PREFIX = "macspoofchk-"
_IIFNAME: Statement = {"meta": {"key": "iifname"}}


class SpoofcheckJump(NamedTuple):
    """The rule that sends what enters the bridge at one link through the chains of an attachment.

    Attributes:
        handle: Of the rule, in its table; none is given twice.
        host_ifname: The link at the bridge, which may have gone.
        chain: "cni-br-iface-<id>-<ifname>".
    """

    handle: int
    host_ifname: str
    chain: str


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
        KernelRefused: The kernel refused the rules; among them names that are too long for it. With EEXIST: the base
            chain is there, and is attached elsewhere.
    """
    if not _is_plain(host_ifname):
        raise InvalidConfig(f"spoof check {quoted(host_ifname)}: cannot be matched by name in nftables")
    bodies = _bodies(container_id, ifname, host_ifname, mac)
    operation, target = "add spoof check of", _named(container_id, ifname)

    def prepare(_attempt: int) -> list[Command]:
        chains = chains_of(_TABLE.family, _TABLE.name)
        misfit = _misfit(chains)
        if misfit:
            raise KernelRefused(operation, target, errno.EEXIST, misfit)
        # Adding it in any case would have the kernel look, and cost 10 ms: it waits for RCU after what it has updated.
        commands = [] if _PREROUTING in chains else _base()
        commands += _withdrawal(container_id, ifname, chains)
        # ORDER: a chain before the rules that jump to it.
        commands += [{"add": _TABLE.chain(chain)} for chain in reversed(_chains(container_id, ifname))]
        comment = _comment(container_id, ifname)
        for chain, body in bodies:
            commands.append({"add": _TABLE.rule(chain, expr=body, comment=comment)})
        return commands

    transact(prepare, operation, target)


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
    """Say whether an attachment has the rules that `add_spoofcheck` with the same arguments makes, and no others.

    Rules below a base chain that is attached elsewhere do not count: no packet comes there.
    """
    if _misfit(chains_of(_TABLE.family, _TABLE.name)):
        return False
    comment = _comment(container_id, ifname)
    found = [
        (chain, rule["expr"])
        for chain in (_PREROUTING, *_chains(container_id, ifname))
        for rule in rules_of(_TABLE.family, _TABLE.name, chain) or []
        if chain != _PREROUTING or rule.get("comment") == comment
    ]
    return found == _bodies(container_id, ifname, host_ifname, mac)


@declared
def list_spoofcheck_jumps() -> list[SpoofcheckJump]:
    """List the rule of every attachment, of whatever network, that has a spoof check of ours or of the reference.

    Order: before anybody looks which links are there, or an attachment that is being made is taken for garbage.
    """
    return _jumps(rules_of(_TABLE.family, _TABLE.name, _PREROUTING) or [])


@declared
def delete_spoofcheck_jumps(jumps: list[SpoofcheckJump]) -> None:
    """Delete spoof checks by their rules, with the chains that no other spoof check uses.

    An attachment that was made again since has another rule, with another handle, and keeps it with its chains.

    Args:
        jumps: Some of what `list_spoofcheck_jumps` returned; what is no longer there is passed over.

    Raises:
        KernelRefused: The kernel refused, for another reason than that something is missing; EBUSY: somebody else's
            rule leads to one of the chains.
    """

    def prepare(_attempt: int) -> list[Command]:
        present = list_spoofcheck_jumps()
        chains = chains_of(_TABLE.family, _TABLE.name)
        garbage = [entry for entry in present if entry in jumps]
        # Two rules share a chain if the reference has made an attachment twice.
        used = {chain for entry in present if entry not in jumps for chain in _with_macs(entry.chain)}
        # ORDER: all rules before any chain. The handles make sure that the kernel refuses all of this, chains included,
        # if one of the rules has been replaced meanwhile; then the new one is `present` at the next attempt.
        commands: list[Command] = [{"delete": _TABLE.rule(_PREROUTING, handle=entry.handle)} for entry in garbage]
        for name in sorted({entry.chain for entry in garbage}):
            commands += _removal([chain for chain in _with_macs(name) if chain in chains and chain not in used])
        return commands

    transact(prepare, "collect spoof checks in", f"{_TABLE.family} {_TABLE.name}")


def _chains(container_id: str, ifname: str) -> tuple[str, str]:
    """Name the chain of an attachment, and the one of its MAC addresses."""
    return _with_macs(f"{_CHAIN_PREFIX}{container_id}-{ifname}")


def _with_macs(chain: str) -> tuple[str, str]:
    return chain, f"{chain}-mac"


def _comment(container_id: str, ifname: str) -> str:
    return f"{_COMMENT_PREFIX}{container_id}-{ifname}"


def _named(container_id: str, ifname: str) -> str:
    return f"{quoted(container_id)} {quoted(ifname)}"


def _is_plain(host_ifname: str) -> bool:
    """Tell names from what libnftables would read as a pattern ("veth*") or as the name of a set ("@x")."""
    return bool(host_ifname) and not host_ifname.startswith("@") and "*" not in host_ifname and "\\" not in host_ifname


def _base() -> list[Command]:
    return [{"add": _TABLE.itself()}, {"add": _TABLE.chain(_PREROUTING, **_BASE, policy="accept")}]


def _misfit(chains: dict[str, Command]) -> str:
    """Tell people what the base chain is, if what enters a bridge does not pass it; empty if it does, or is missing."""
    chain = chains.get(_PREROUTING, _BASE)
    if {key: chain.get(key) for key in _BASE} == _BASE:
        return ""
    name = f"{_TABLE.family} {_TABLE.name} {_PREROUTING}"
    return (
        f"chain {name} is {_described(chain)}, where rules of macspoofchk have no effect; it has to be "
        f"{_described(_BASE)}: rename it (nft rename chain {name} ...) or delete it, and the next ADD makes it"
    )


def _described(chain: Command) -> str:
    """Write what a chain is attached to as nft(8) does."""
    if "hook" not in chain:
        return "a chain without hook"
    return f"'type {chain.get('type')} hook {chain['hook']} priority {chain.get('prio')}'"


def _jumps(rules: list[Command]) -> list[SpoofcheckJump]:
    """Pick those rules of the base chain that `_bodies` writes."""
    found = []
    for rule in rules:
        # TRUST: others write into this chain what they like.
        comment: str = rule.get("comment", "")
        chain = _CHAIN_PREFIX + comment.removeprefix(_COMMENT_PREFIX)
        host_ifname = _compared(rule["expr"])
        is_ours = comment.startswith(_COMMENT_PREFIX) and rule["expr"] == _entrance(host_ifname, chain)
        if is_ours and host_ifname:
            found.append(SpoofcheckJump(rule["handle"], host_ifname, chain))
    return found


def _compared(body: list[Statement]) -> str:
    """Find the link that a rule is about; empty if it does not begin with the name of exactly one."""
    right = body[0].get("match", {}).get("right") if body else None
    # Listing replaces bytes that are not UTF-8, after which the link would not be found by its name.
    return right if isinstance(right, str) and _is_plain(right) and right.isascii() else ""


def _entrance(host_ifname: str, chain: str) -> list[Statement]:
    return [match(_IIFNAME, host_ifname), jump(chain)]


def _bodies(container_id: str, ifname: str, host_ifname: str, mac: str) -> list[tuple[str, list[Statement]]]:
    """Write the rules of an attachment: chain and statements, in the order of the packet's way."""
    attachment, macs = _chains(container_id, ifname)
    return [
        (_PREROUTING, _entrance(host_ifname, attachment)),
        (attachment, [jump(macs)]),
        (macs, [match(payload("ether", "saddr"), mac), {"return": None}]),
        (macs, [{"drop": None}]),
    ]


def _withdrawal(container_id: str, ifname: str, chains: Collection[str]) -> list[Command]:
    """Delete what an attachment has, in the order in which nothing refers to what goes."""
    comment = _comment(container_id, ifname)
    commands: list[Command] = [
        {"delete": _TABLE.rule(_PREROUTING, handle=rule["handle"])}
        for rule in rules_of(_TABLE.family, _TABLE.name, _PREROUTING) or []
        if rule.get("comment") == comment
    ]
    return commands + _removal([chain for chain in _chains(container_id, ifname) if chain in chains])


def _removal(chains: list[str]) -> list[Command]:
    """Delete chains, of which each refers to later ones only."""
    return [{verb: _TABLE.chain(chain)} for chain in chains for verb in ("flush", "delete")]

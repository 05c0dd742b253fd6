"""The rules of ipMasq: what an attachment sends to anywhere but its own subnet leaves with the address of the host.

    table inet cnisandbox_masquerade {
        map sources4 {                                      # one element per address of an attachment
            type ipv4_addr : verdict
            elements = { 10.1.2.3 : goto cni-0011223344556677-8899aabbccddeeff }
        }
        map sources6 { type ipv6_addr : verdict }
        chain masq { masquerade }
        chain postrouting {
            type nat hook postrouting priority srcnat; policy accept;
            ip daddr 224.0.0.0/4 return
            ip6 daddr ff00::/8 return
            ip saddr vmap @sources4
            ip6 saddr vmap @sources6
        }
        chain cni-0011223344556677-8899aabbccddeeff {       # one chain per attachment
            ip saddr 10.1.2.3 ip daddr != 10.1.2.0/24 goto masq comment "0011223344556677-..., net: N, if: I, id: C"
        }
    }

Why so. A packet costs one hash look-up, however many attachments there are (the reference goes through a list of
rules). The chain's name follows from network, container and ifname, so DEL needs neither a netns nor addresses. And
the kernel's own reference counts and rule handles decide every race, without a lock, which a worker could not take (it
has no file):

- The table goes with the last attachment, and never with a living one: a transaction that deletes it deletes `masq`
  first, which the kernel refuses (EBUSY) as long as the rule of any attachment refers to it.
- A late DEL cannot take an address away from its new owner: whoever takes over an address deletes the rule of the
  former owner by its handle, and a DEL deletes its rules by their handles too, so the second one is refused (ENOENT).
- Two ADDs cannot both have an address or a chain: they are created, not added (EEXIST).

A refused transaction changes nothing; `connection.transact` reads again and decides again.

Why a chain per attachment and not only an element: deleting an element names nothing but its key, so a late DEL could
not be told from a right one; and reading one chain back costs a quarter of reading all elements.

Privilege: CAP_NET_ADMIN in the netns of the host. The caller chooses names and addresses: that is safe as far as the
names of chains are made of digests, texts go into comments only, addresses are parsed, and every change is in the one
table, but for the two removals of `cnisandbox.nft.reference`, whose targets are named by digests as well. A hostile
caller can masquerade an address that is not its own, or stop masquerading one: that is what it may ask for.
"""

from collections.abc import Collection

from cnisandbox.boundary.calls import declared
from cnisandbox.digest import sha512_hex
from cnisandbox.errors import InvalidConfig, quoted
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.ip import Address, Network, ip_address, ip_interface
from cnisandbox.nft import reference
from cnisandbox.nft.connection import Command, chains_of, listed, rules_of, transact
from cnisandbox.nft.shared import MAPS, MASQ, POSTROUTING, rule_of_attachment, shared_rules
from cnisandbox.nft.statements import Statement, Table, goto, network_operand, payload, protocol_of, text_of

_TABLE = Table("inet", "cnisandbox_masquerade")
_MAP_TYPES = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}
_SRCNAT_PRIORITY = 100
_ATTACHMENT_PREFIX = "cni-"  # a name that nft(8) can read back begins with a letter
_COMMENT_LIMIT = 128  # LIMIT: bytes; NFTNL_UDATA_COMMENT_MAXLEN, include/nftables.h of nftables 1.0.6

_Sources = dict[Address, Network]
_Owners = dict[Address, str]


class Owner(NamedTuple):
    """An attachment whose rules are to stay."""

    container_id: str
    ifname: str


@declared
def add_masquerade(network: str, container_id: str, ifname: str, addresses: list[str]) -> None:
    """Masquerade what an attachment sends from these addresses to another subnet.

    Whatever the same attachment had before is replaced, and an address that another attachment had (one that is dead,
    since its address was given away) is taken over. One transaction; the table is made when it is not there.

    Args:
        network: Name of the network.
        container_id: CNI_CONTAINERID.
        ifname: CNI_IFNAME.
        addresses: "10.1.2.3/24", "fd00::3/64": address and prefix of its own subnet.

    Raises:
        InvalidConfig: One of them is not an address with a prefix.
        KernelRefused: The kernel refused the rules.
    """
    key = _key(network, container_id, ifname)
    chain = _ATTACHMENT_PREFIX + key
    sources = _parsed(addresses)
    comment = _comment(key, network, container_id, ifname)
    target = _named(network, container_id, ifname)

    def prepare(attempt: int) -> list[Command]:
        if attempt == 0:  # nearly always the only one: nobody had the chain or an address, and what is shared is there
            return [] if _is_intact() else _skeleton()
        owners = _owners()
        commands = _skeleton() + _withdrawal(chain, owners)
        for former in sorted({owners[address] for address in sources if address in owners} - {chain}):
            commands += _withdrawal(former, owners, sources)
        return commands

    transact(lambda attempt: prepare(attempt) + _installation(chain, sources, comment), "add masquerade of", target)


@declared
def delete_masquerade(network: str, container_id: str, ifname: str) -> None:
    """Stop masquerading an attachment; nothing happens where nothing is left.

    The table goes with the last attachment. What a reference plugin left for the same attachment goes too.

    Args:
        network: Name of the network.
        container_id: CNI_CONTAINERID.
        ifname: CNI_IFNAME.

    Raises:
        KernelRefused: The kernel refused, for another reason than that something is missing.
    """
    key = _key(network, container_id, ifname)
    target = _named(network, container_id, ifname)
    _delete_chain(_ATTACHMENT_PREFIX + key, target)
    reference.delete_iptables_rules(network, container_id)
    reference.delete_nftables_rules(lambda comment: comment.startswith(key), "delete reference rules of", target)


@declared
def has_masquerade(network: str, container_id: str, ifname: str, addresses: list[str]) -> bool:
    """Say whether an attachment is masqueraded as `add_masquerade` with the same arguments would have it."""
    key = _key(network, container_id, ifname)
    chain = _ATTACHMENT_PREFIX + key
    sources = _parsed(addresses)
    rules = rules_of(_TABLE.family, _TABLE.name, chain)
    if rules is None or not _is_intact():
        return False
    found = [rule["expr"] for rule in rules]
    wanted = [_rule_body(address, subnet) for address, subnet in sources.items()]
    owned = {address for address, owner in _owners().items() if owner == chain}
    return found == wanted and owned == set(sources)


@declared
def gc_masquerade(network: str, valid: list[Owner]) -> None:
    """Stop masquerading every attachment of a network but these, also by the nftables rules of a reference plugin.

    Args:
        network: Name of the network; attachments of others are not touched.
        valid: The attachments that exist (cni.dev/valid-attachments); an empty list means that there are none.

    Raises:
        KernelRefused: The kernel refused, for another reason than that something is missing.
    """
    prefix = _digest(network) + "-"
    keys = {_key(network, owner.container_id, owner.ifname) for owner in valid}
    for chain in sorted(chains_of(_TABLE.family, _TABLE.name)):
        if chain.startswith(_ATTACHMENT_PREFIX + prefix) and chain.removeprefix(_ATTACHMENT_PREFIX) not in keys:
            _delete_chain(chain, chain)
    reference.delete_nftables_rules(
        lambda comment: comment.startswith(prefix) and comment.partition(",")[0] not in keys,
        "collect reference rules of",
        quoted(network),
    )


def _digest(text: str) -> str:
    return sha512_hex(text.encode())[:16]


def _key(network: str, container_id: str, ifname: str) -> str:
    """Name an attachment as the reference's nftables comments do, in 33 characters."""
    return f"{_digest(network)}-{_digest(f'{ifname}:{container_id}')}"


def _named(network: str, container_id: str, ifname: str) -> str:
    return f"{quoted(container_id)} {quoted(ifname)} in {quoted(network)}"


def _comment(key: str, network: str, container_id: str, ifname: str) -> str:
    """Tell people whose rule this is; nft(8) can read back neither quotes nor more than 128 bytes."""
    text = f"{key}, net: {network}, if: {ifname}, id: {container_id}".replace('"', "")
    return text.encode()[:_COMMENT_LIMIT].decode(errors="ignore")


def _parsed(addresses: list[str]) -> _Sources:
    """Parse "10.1.2.3/24" to address and subnet; with /0 everything is the own subnet and nothing is masqueraded."""
    try:
        interfaces = [ip_interface(text) for text in addresses]
    except ValueError as error:
        raise InvalidConfig(f"masquerade {quoted(addresses)}: {error}") from error
    return {interface.ip: interface.network for interface in interfaces if interface.network.prefixlen > 0}


def _skeleton() -> list[Command]:
    """Make what all attachments share, whatever is there already."""
    commands: list[Command] = [{"add": _TABLE.itself()}]
    commands += [{"add": _TABLE.map(MAPS[p], type=_MAP_TYPES[p], map="verdict")} for p in MAPS]
    commands += _rewritten(_TABLE.chain(MASQ), MASQ, shared_rules()[MASQ])
    base = _TABLE.chain(POSTROUTING, type="nat", hook="postrouting", prio=_SRCNAT_PRIORITY, policy="accept")
    return commands + _rewritten(base, POSTROUTING, shared_rules()[POSTROUTING])


def _rewritten(definition: Command, chain: str, bodies: list[list[Statement]]) -> list[Command]:
    rules: list[Command] = [{"add": _TABLE.rule(chain, expr=body)} for body in bodies]
    return [{"add": definition}, {"flush": _TABLE.chain(chain)}, *rules]


def _is_intact() -> bool:
    """Say whether the chain that all attachments share is as `_skeleton` writes it.

    Rewriting it at every ADD would be as right, but what a transaction replaces costs an RCU grace period at the exit.
    """
    rules = rules_of(_TABLE.family, _TABLE.name, POSTROUTING) or []
    return [rule["expr"] for rule in rules] == shared_rules()[POSTROUTING]


def _rule_body(address: Address, subnet: Network) -> list[Statement]:
    return rule_of_attachment(protocol_of(address), text_of(address), network_operand(subnet))


def _element(address: Address, value: Statement | None = None) -> Command:
    """Name the element of an address, with its verdict if it is to be made."""
    key = text_of(address)
    return _TABLE.element(MAPS[protocol_of(address)], key if value is None else [key, value])


def _installation(chain: str, sources: _Sources, comment: str) -> list[Command]:
    """Make the chain of an attachment, and point its addresses there."""
    commands: list[Command] = [{"create": _TABLE.chain(chain)}]
    for address, subnet in sources.items():
        commands.append({"add": _TABLE.rule(chain, expr=_rule_body(address, subnet), comment=comment)})
        commands.append({"create": _element(address, goto(chain))})
    return commands


def _withdrawal(chain: str, owners: _Owners | None, addresses: Collection[Address] | None = None) -> list[Command]:
    """Take addresses away from an attachment, and with the last one its chain.

    Args:
        chain: The chain of the attachment.
        owners: What the maps hold, or None to believe the rules of the chain: they differ only when somebody else
            has been at work, and reading the maps costs four times as much.
        addresses: Which addresses; None: all.
    """
    listing = rules_of(_TABLE.family, _TABLE.name, chain)
    if listing is None:
        return []
    rules = [(_source(rule), rule["handle"]) for rule in listing]
    gone = [(source, handle) for source, handle in rules if addresses is None or source in addresses]
    if owners is None:
        keys = [source for source, _ in gone if source is not None]
    else:
        keys = [source for source, o in owners.items() if o == chain and (addresses is None or source in addresses)]
    commands: list[Command] = [{"delete": _element(source)} for source in keys]
    # ORDER: the handles make sure that the kernel refuses all of this if another process has been faster.
    commands += [{"delete": _TABLE.rule(chain, handle=handle)} for _, handle in gone]
    if len(gone) == len(rules):
        commands.append({"delete": _TABLE.chain(chain)})
    return commands


def _source(rule: Command) -> Address | None:
    """Find the source address that a rule of an attachment is about; None for a rule that is not ours."""
    for statement in rule["expr"]:
        comparison: dict[str, Any] = statement.get("match", {})
        if comparison.get("left") in (payload("ip", "saddr"), payload("ip6", "saddr")):
            return _address(comparison["right"])
    return None


def _owners() -> _Owners:
    """Read from the maps which chain each address is pointed at."""
    owners: _Owners = {}
    for name in MAPS.values():
        selector = {"family": _TABLE.family, "table": _TABLE.name, "name": name}
        for entry in listed("map", selector) or []:
            for key, verdict in entry["map"].get("elem", []):
                address = _address(key["elem"]["val"] if isinstance(key, dict) else key)
                if address is not None:
                    owners[address] = verdict.get("goto", {}).get("target", "")
    return owners


def _address(operand: Any) -> Address | None:
    """Parse an address that the kernel has listed; None for anything else, which somebody else has written there."""
    try:
        return ip_address(operand) if isinstance(operand, str) else None
    except ValueError:
        return None


def _delete_chain(chain: str, target: str) -> None:
    """Delete the chain of an attachment with its elements; after the last one, the table."""
    operation = "delete masquerade of"
    transact(lambda attempt: _withdrawal(chain, _owners() if attempt > 0 else None), operation, target)
    # ORDER: looked for only now, so that of two DELs that are the last ones together the later one finds nobody left.
    transact(lambda _: _dismantling(), operation, target)


def _dismantling() -> list[Command]:
    """Delete the table if no attachment is left.

    ORDER: deleting a table never asks what is in it, deleting a chain does: while any attachment refers to `masq`, also
    one that came after we looked, the kernel answers EBUSY and nothing of the transaction happens.
    """
    chains = chains_of(_TABLE.family, _TABLE.name)
    if MASQ not in chains or any(name.startswith(_ATTACHMENT_PREFIX) for name in chains):
        return []
    return [{"flush": _TABLE.chain(MASQ)}, {"delete": _TABLE.chain(MASQ)}, {"delete": _TABLE.itself()}]

"""What a plugin without any capability may have done for it: the permits, as data.

Default is refusal: what no permit names is refused.

Privilege: none.
"""

from cnisandbox.hints import NamedTuple


class Permit(NamedTuple):
    """Netlink messages that may be sent.

    Attributes:
        name: For the log, such as "bridge:3".
        netns: Where: some of "host" and "container".
        messages: Names of message types, such as "RTM_NEWLINK".
        links: Which link the message is about; none: it is about no link. Words: "attachment" (CNI_IFNAME in the
            container), "peer" (the host's end of the attachment's veth), "created" (made in this session),
            "netconf:KEY" (named by the netconf), "default-route" (the link of the first default route),
            "name:PATTERN" (with * and ?), "loopback", "any".
        kinds: What kind of link may be made or changed.
        related: The same words, for links that attributes point to.
        attributes: Dotted paths of attributes; the last component may be "*" (any name) or "**" (any depth).
        tables: nf_tables: patterns "family name".
        chains: nf_tables: patterns of chains that may be changed, by rules that look, translate, accept or go on.
        jumps: nf_tables: in any other chain of the tables a rule may be added or deleted only if its only verdict is a
            jump or goto to a chain of these patterns.
        hooks: nf_tables: where the kernel may enter a chain that is made: a type and a hook, such as "nat postrouting".
        verdicts: nf_tables: what rules may decide besides to accept and to go on in another chain: "drop".
        reason: Why the plugin needs it.
    """

    name: str
    netns: tuple[str, ...]
    messages: tuple[str, ...]
    links: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    chains: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    reason: str = ""


class SysctlPermit(NamedTuple):
    """A setting below /proc/sys that may be opened.

    Attributes:
        name: For the log.
        netns: Where: some of "host" and "container".
        key: Path below /proc/sys, such as "net/ipv4/conf/{attachment}/arp_notify"; {peer}, {created}, {netconf:KEY} and
            {lo} stand for links, "*" for one component.
        access: "read", or "write", which contains it.
        reason: Why the plugin needs it.
    """

    name: str
    netns: tuple[str, ...]
    key: str
    access: str
    reason: str = ""

"""What a permit says about a message of nf_tables.

Privilege: none.

A change has to name its table, and a change of a chain or a rule its chain. In the chains that the permit gives to the
plugin it may do what the permit's attributes allow, with rules that look, change addresses, accept or go on elsewhere:
what drops packets has to be named. In any other chain of the permit's tables, such as POSTROUTING, which everybody
shares, it may only add, and take away again, a rule that does nothing but jump to a chain of its own.
"""

from cnisandbox.hints import Any
from cnisandbox.netlink.codec import Attributes
from cnisandbox.netlink.message import Message
from cnisandbox.policy.links import World
from cnisandbox.policy.patterns import matches_any
from cnisandbox.policy.permit import Permit

_FAMILIES = {0: "unspec", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_JUMPS = (-3, -4)  # NFT_JUMP, NFT_GOTO
_ACCEPT = 1
# NFT_RETURN, NFT_GOTO, NFT_JUMP, NFT_BREAK, NFT_CONTINUE
_GOING_ON = (_ACCEPT, -1, -2, -3, -4, -5)
_DROP = 0
# KERNEL: include/uapi/linux/netfilter.h; of ip, ip6, inet and bridge.
_HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting"}
_HOOKED_FAMILIES = ("inet", "ip", "ip6", "bridge")
# Expressions that only look at a packet; those that can also write into it do so with an "sreg" in place of a "dreg".
_LOOKING = frozenset(
    (
        "bitwise",
        "byteorder",
        "cmp",
        "counter",
        "ct",
        "fib",
        "hash",
        "limit",
        "lookup",
        "match",
        "meta",
        "payload",
        "range",
    )
)
# Expressions that do something to a packet, besides those that only look: addresses, ports, and extensions of iptables.
_TRANSLATING = frozenset(("immediate", "masq", "nat", "redir", "target"))
# KERNEL: names of xtables' targets; a packet that they have treated goes on to the next rule, or is accepted.
_TARGETS = frozenset(("DNAT", "MARK", "MASQUERADE", "SNAT"))
_OF_A_TABLE = ("NFT_MSG_NEWTABLE", "NFT_MSG_DELTABLE", "NFT_MSG_DESTROYTABLE")
_OF_A_CHAIN = ("NFT_MSG_NEWCHAIN", "NFT_MSG_DELCHAIN", "NFT_MSG_DESTROYCHAIN")
_OF_A_RULE = ("NFT_MSG_NEWRULE", "NFT_MSG_DELRULE", "NFT_MSG_DESTROYRULE")


def is_change(name: str) -> bool:
    """Say whether a message changes nf_tables."""
    return name.startswith("NFT_MSG_") and not name.startswith("NFT_MSG_GET")


def complaint(netns: str, name: str, message: Message, permit: Permit, world: World) -> str:
    """Say why a permit does not cover a change; empty when it does."""
    attributes = message.attributes
    family = _FAMILIES.get(message.header["family"], "unknown")
    table = attributes.get("name" if name in _OF_A_TABLE else "table")
    if not table:
        return "it names no table"
    if not matches_any(f"{family} {table}", permit.tables):
        return f"table {family} {table}"
    if name == "NFT_MSG_NEWTABLE":
        return "a table that is switched off or owned" if attributes.get("flags") else ""
    if name in _OF_A_RULE:
        return _complaint_about_rule(netns, name, message, permit, world)
    if name in _OF_A_CHAIN:
        return _complaint_about_chain(netns, message, permit, world)
    # KERNEL: of a name and a number, the number counts.
    return "a number instead of a name" if "handle" in attributes else ""


def _complaint_about_chain(netns: str, message: Message, permit: Permit, world: World) -> str:
    attributes = message.attributes
    chain = attributes.get("name")
    if not chain:
        return "it names no chain"
    if not matches_any(chain, permit.chains):
        return f"chain {chain}"
    if "handle" in attributes:
        # KERNEL: of a name and a number, the number counts: it would delete, or rename, another chain.
        there = world.chain_handle(netns, message.header["family"], attributes["table"], chain)
        if there != attributes["handle"]:
            return f"chain {attributes['handle']}, which is not {chain}"
    entered = entered_at(message)
    if entered and entered not in permit.hooks:
        return f"a chain that the kernel enters at {entered}"
    # A base chain is everybody's: what its policy drops, the plugin would drop for the whole host.
    return f"policy {attributes['policy']}" if attributes.get("policy", _ACCEPT) != _ACCEPT else ""


def entered_at(message: Message) -> str:
    """Say where the kernel enters a chain that a message makes: type and hook; empty for a chain without."""
    attributes = message.attributes
    if "type" not in attributes and "hook" not in attributes:
        return ""
    is_known = _FAMILIES.get(message.header["family"]) in _HOOKED_FAMILIES
    hook = _HOOKS.get(attributes.get("hook", {}).get("hooknum"), "unknown") if is_known else "unknown"
    return f"{attributes.get('type')} {hook}"


def decision_of(expression: Attributes) -> str:
    """Say what an expression decides about a packet: "drop", or something unknown; empty for one that lets it go on."""
    verdict = _verdict_of(expression.get("data", {})) if expression.get("name") == "immediate" else None
    if verdict is None or verdict.get("code") in _GOING_ON:
        return ""
    return "drop" if verdict.get("code") == _DROP else "do something unknown"


def _complaint_about_rule(netns: str, name: str, message: Message, permit: Permit, world: World) -> str:
    attributes = message.attributes
    chain = attributes.get("chain")
    if not chain:
        return "it names no chain"
    if matches_any(chain, permit.chains):
        return _complaint_about_expressions(attributes, permit)
    if not permit.jumps:
        return f"chain {chain}"
    if name == "NFT_MSG_NEWRULE" and not _only_jumps(attributes, permit):
        return f"a rule of chain {chain} that does more than jump to a chain of the plugin's"
    handle = attributes.get("handle")
    if handle is not None:
        there = world.rule(netns, message.header["family"], attributes["table"], chain, handle)
        if there is not None and not _only_jumps(there, permit):
            return f"rule {handle} of chain {chain}, which is not the plugin's"
        return "" if there is not None else f"rule {handle} of chain {chain}, which is not there"
    return "" if name == "NFT_MSG_NEWRULE" else f"rules of chain {chain} without a handle"


def _complaint_about_expressions(rule: Attributes, permit: Permit) -> str:
    for expression in rule.get("expressions", []):
        name, data = expression.get("name"), expression.get("data", {})
        decision = decision_of(expression)
        if decision and decision not in permit.verdicts:
            return f"a rule that decides to {decision}"
        if name == "target" and (not isinstance(data, dict) or data.get("name") not in _TARGETS):
            return f"target {data.get('name') if isinstance(data, dict) else 'unknown'}"
        if name not in _LOOKING | _TRANSLATING or (name == "payload" and "sreg" in data):
            return f"a rule with {name}"
    return ""


def _only_jumps(rule: Attributes, permit: Permit) -> bool:
    targets = []
    for expression in rule.get("expressions", []):
        name, data = expression.get("name"), expression.get("data", {})
        if name == "immediate":
            verdict = _verdict_of(data)
            if verdict is None:
                continue  # a value to compare with
            if verdict.get("code") not in _JUMPS or not verdict.get("chain") or "chain_id" in verdict:
                return False
            targets.append(verdict["chain"])
        elif name not in _LOOKING or (name in ("ct", "meta", "payload") and "sreg" in data):
            return False
    return len(targets) == 1 and matches_any(targets[0], permit.jumps)


def _verdict_of(data: Any) -> dict[str, Any] | None:
    inner = data.get("data", {}) if isinstance(data, dict) else {}
    verdict = inner.get("verdict") if isinstance(inner, dict) else None
    return verdict if isinstance(verdict, dict) else None

"""Netlink messages and settings in the words of profiles: what a permit for each would have to say.

Privilege: none.
"""

import errno
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cnisandbox.laboratory.learning.activity import ELSEWHERE, SETTINGS, Activity, Opened, Sent
from cnisandbox.laboratory.learning.facts import Facts
from cnisandbox.laboratory.learning.world import HOST
from cnisandbox.netlink.codec import CodecError
from cnisandbox.netlink.datagram import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    message_name,
    unknown_paths,
)
from cnisandbox.netlink.message import NLM_F_CREATE, NLM_F_EXCL, Message
from cnisandbox.policy import judge, nftables
from cnisandbox.policy.patterns import paths_of
from cnisandbox.profile import words

Words = tuple[str, ...]

_JUMPS = (-3, -4)  # NFT_JUMP, NFT_GOTO
_WITH_LINK_DIRECTORY = ("conf", "neigh")


class Observed(NamedTuple):
    """A netlink message that the plugin sent.

    Attributes:
        verb: CNI_COMMAND of the call.
        netns: "host" or "container".
        message: Name of its type.
        links: For each link that it is about, the words that mean it, the narrowest first; none: about no link.
        related: Likewise for links that attributes point to.
        kind: Of a link that it makes; "" for none.
        attributes: Their paths.
        table: nf_tables: "family name"; "" for none.
        chain: nf_tables: the chain that it is about.
        hook: Where the kernel enters a chain that it makes, such as "nat postrouting".
        jumps: nf_tables: the chains that a rule jumps to.
        does_more: Whether a rule does more than jump.
        verdicts: What a rule decides besides to accept and to go on elsewhere: "drop".
    """

    verb: str
    netns: str
    message: str
    links: tuple[Words, ...] = ()
    related: tuple[Words, ...] = ()
    kind: str = ""
    attributes: Words = ()
    table: str = ""
    chain: str = ""
    hook: str = ""
    jumps: Words = ()
    does_more: bool = False
    verdicts: Words = ()


class ObservedSetting(NamedTuple):
    """A setting that the plugin opened.

    Attributes:
        keys: The same key with each word that means the link in it, the narrowest first.
    """

    verb: str
    netns: str
    keys: Words
    is_write: bool


class Observations(NamedTuple):
    """What a call did, in the words of profiles.

    Attributes:
        messages, settings: In order, each once.
        unspeakable: What no profile can permit.
    """

    messages: list[Observed]
    settings: list[ObservedSetting]
    unspeakable: list[str]


def observe(activity: Activity, facts: Facts) -> Observations:
    """Put the messages and settings of a call into words."""
    found = Observations([], [], list(activity.unspeakable))
    for sent in activity.sent:
        if sent.netns == ELSEWHERE or sent.protocol < 0:
            continue  # said already
        for item in _messages(activity, sent, facts):
            if isinstance(item, str):
                _add(found.unspeakable, item)
            else:
                _add(found.messages, item)
    for opened in activity.opened:
        if opened.path.startswith(SETTINGS):
            setting = _setting(activity, opened, facts)
            if isinstance(setting, str):
                _add(found.unspeakable, setting)
            elif setting is not None:
                _add(found.settings, setting)
    return found


def _add(items: list[Any], item: Any) -> None:
    if item not in items:
        items.append(item)


def _messages(activity: Activity, sent: Sent, facts: Facts) -> Iterator[Observed | str]:
    try:
        messages = decode_datagram(sent.protocol, sent.data)
    except CodecError as error:
        yield f"a datagram of netlink protocol {sent.protocol} that the monitor cannot decode: {error}"
        return
    for message in messages:
        name = message_name(sent.protocol, message)
        complaint = _complaint(name, message)
        if complaint:
            yield f"{name}: {complaint}"
            continue
        refused = sent.errors.get(message.sequence, 0)
        base = Observed(activity.verb, sent.netns, name, attributes=_attributes(message))
        if sent.protocol == NETLINK_NETFILTER:
            yield _about_nftables(base, message) if nftables.is_change(name) else base
        elif sent.protocol == NETLINK_ROUTE:
            about = _About(activity.number, sent, facts, message, refused)
            found = about.put(base)
            if found is not None:
                yield found
        else:
            yield base


def _complaint(name: str, message: Message) -> str:
    """Say why no permit passes a message; "" if one can."""
    if name in words.NEVER_MESSAGES:
        return "is never permitted"
    never = [path for path in paths_of(message.attributes) if path.rpartition(".")[2] in words.NEVER_ATTRIBUTES]
    unknown = unknown_paths(message)
    if unknown:
        return f"attribute {unknown[0]} is not known"
    return f"attribute {never[0]} is never permitted" if never and name.startswith("RTM_") else ""


def _attributes(message: Message) -> Words:
    return tuple(dict.fromkeys(path for path in paths_of(message.attributes)))


class _About:
    """Which links a message of rtnetlink is about."""

    def __init__(self, call: int, sent: Sent, facts: Facts, message: Message, error: int) -> None:
        self._call = call
        self._sent = sent
        self._facts = facts
        self._message = message
        self._error = error

    def put(self, base: Observed) -> Observed | str | None:
        """Say what a permit for it needs; a text if there can be none, None if it needs none."""
        if base.message in judge._ABOUT_LINK:
            return self._put_link(base)
        return self._put_indexes(base)

    def _put_link(self, base: Observed) -> Observed | str | None:
        attributes = self._message.attributes
        ifindex = self._message.header["ifindex"]
        ifname = attributes.get("ifname") or attributes.get("alt_ifname") or ""
        if not ifindex and not ifname:
            is_dump = base.message == "RTM_GETLINK"
            return base if is_dump else f"{base.message} that names no link"
        kind = attributes.get("linkinfo", {}).get("kind", "")
        is_birth = base.message == "RTM_NEWLINK" and self._message.flags & NLM_F_CREATE and not ifindex
        if is_birth and (self._message.flags & NLM_F_EXCL or not self._facts.kind(self._sent.netns, 0, ifname)):
            return self._put_birth(base, ifname, kind)
        if self._error == errno.ENODEV:
            # By its number it needs no permit: that it is not there is no secret from who has seen it.
            return None if ifindex else base._replace(links=(self._by_name(self._sent.netns, ifname),))
        links = (self._facts.words_of_link(self._call, self._sent.netns, ifindex, "" if ifindex else ifname),)
        related = self._targets()
        if ifindex and ifname and base.message != "RTM_GETLINK":
            related = (*related, self._by_name(self._sent.netns, ifname))
            if not self._error:
                self._facts.note_name(self._sent.netns, ifindex, ifname)
        return base._replace(links=links, related=related, kind=kind)

    def _put_birth(self, base: Observed, ifname: str, kind: str) -> Observed:
        attributes = self._message.attributes
        place = self._place(attributes)
        links, related = [self._by_name(place, ifname)], list(self._targets())
        births = [(place, ifname)]
        peer = attributes.get("linkinfo", {}).get("data", {}).get("peer")
        if isinstance(peer, dict) and peer.get("ifname"):
            there = self._place(peer)
            related.append(self._by_name(there, peer["ifname"]))
            births.append((there, peer["ifname"]))
        if not self._error:
            for netns, name in births:
                self._facts.note_birth(self._call, netns, name)
        return base._replace(links=tuple(links), related=tuple(related), kind=kind)

    def _put_indexes(self, base: Observed) -> Observed:
        if "_GET" in base.message:
            return base
        indexes = [index for index in judge._indexes(self._message) if index]
        further = [index for index in judge._indexes_below(self._message.attributes.get("options")) if index]
        return base._replace(links=self._all_of(indexes), related=self._all_of(further))

    def _targets(self) -> tuple[Words, ...]:
        return self._all_of([self._message.attributes.get(name, 0) for name in ("link", "master")])

    def _all_of(self, indexes: Sequence[int]) -> tuple[Words, ...]:
        netns = self._sent.netns
        found = [self._facts.words_of_link(self._call, netns, index, "") for index in indexes if index]
        return tuple(dict.fromkeys(one for one in found if one))

    def _by_name(self, netns: str, ifname: str) -> Words:
        return self._facts.words_of_name(self._call, netns, ifname)

    def _place(self, attributes: dict[str, Any]) -> str:
        """Say in which netns a link is to be made."""
        if "net_ns_fd" not in attributes:
            return self._sent.netns
        return self._sent.netns_of_fds.get(attributes["net_ns_fd"], HOST)


def _about_nftables(base: Observed, message: Message) -> Observed:
    attributes = message.attributes
    family = nftables._FAMILIES.get(message.header["family"], "unknown")
    is_table = base.message in nftables._OF_A_TABLE
    table = attributes.get("name" if is_table else "table", "")
    found = base._replace(table=f"{family} {table}" if table else "")
    if base.message in nftables._OF_A_CHAIN:
        return found._replace(chain=attributes.get("name", ""), hook=nftables.entered_at(message))
    if base.message in nftables._OF_A_RULE:
        jumps, does_more = _verdicts(attributes.get("expressions", []))
        verdicts = tuple(
            {decision for one in attributes.get("expressions", []) if (decision := nftables.decision_of(one))}
        )
        return found._replace(chain=attributes.get("chain", ""), jumps=jumps, does_more=does_more, verdicts=verdicts)
    return found


def _verdicts(expressions: Sequence[Any]) -> tuple[Words, bool]:
    """Find the chains that a rule jumps to, and whether it does anything else than look and jump."""
    jumps, does_more = [], False
    for expression in expressions:
        name, data = expression.get("name"), expression.get("data", {})
        verdict = nftables._verdict_of(data) if name == "immediate" else None
        if verdict is not None and verdict.get("code") in _JUMPS and verdict.get("chain"):
            jumps.append(verdict["chain"])
        elif verdict is not None or (name != "immediate" and name not in nftables._LOOKING):
            does_more = True
    return tuple(jumps), does_more


def _setting(activity: Activity, opened: Opened, facts: Facts) -> ObservedSetting | str | None:
    key = opened.path.removeprefix(SETTINGS)
    parts = key.split("/")
    if opened.netns == ELSEWHERE:
        return None
    if parts[0] != "net" or len(parts) < 3:
        return f"setting {key}: only those below net/ can be permitted" if opened.is_write else None
    keys: list[str] = [key]
    if len(parts) == 5 and parts[2] in _WITH_LINK_DIRECTORY and parts[3] not in ("all", "default"):
        means = facts.words_of_link(activity.number, opened.netns, 0, parts[3])
        keys = ["/".join((*parts[:3], _placeholder(word), parts[4])) for word in means if word != "default-route"]
    return ObservedSetting(activity.verb, opened.netns, tuple(keys), opened.is_write)


def _placeholder(word: str) -> str:
    """Write a word for a link as it stands in the key of a setting."""
    if word.startswith("name:"):
        return re.sub(r"[*?].*", "*", word.removeprefix("name:"))
    return "{lo}" if word == "loopback" else f"{{{word}}}"

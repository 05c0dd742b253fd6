"""The netlink policy engine: decides about each message of a process that has no capability.

A datagram is decoded strictly, every message of it is held against the permits, and what is to be sent is encoded again
from what was decoded: the kernel never sees a byte that was not understood. One refused message refuses its datagram.

What no permit can pass: a number of another netns (IFLA_TARGET_NETNSID, IFLA_LINK_NETNSID, ...), IFLA_NET_NS_PID,
RTM_NEWNSID, attributes that no table knows, a kind of link or queue that the permit does not name (the kernel would
load a module for it). IFLA_NET_NS_FD passes for the host's and the container's netns only, with a descriptor of ours
in it.

Privilege: none; no input and no output.

Source: rtnetlink(7); net/core/rtnetlink.c, net/netfilter/nf_tables_api.c, Linux 6.1.
"""

import errno
from collections.abc import Iterator, Sequence

from cnisandbox.hints import Any, NamedTuple
from cnisandbox.netlink.codec import HEADER, UNKNOWN, Attributes, CodecError
from cnisandbox.netlink.datagram import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
    message_name,
    unknown_paths,
)
from cnisandbox.netlink.message import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, Message
from cnisandbox.policy import nftables
from cnisandbox.policy.links import LinkFacts, Links, Session, Snapshot, World
from cnisandbox.policy.patterns import matches, paths_of, surplus_of
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.policy.refusal import look_for, stand_in
from cnisandbox.policy.words import described

__all__ = ["Judge", "LinkFacts", "Record", "Session", "Verdict", "World"]

_NEVER_ATTRIBUTES = frozenset(("net_ns_pid", "target_netnsid", "link_netnsid", "new_netnsid"))
_NEVER_MESSAGES = frozenset(("RTM_NEWNSID", "RTM_DELNSID"))
_ABOUT_LINK = ("RTM_NEWLINK", "RTM_SETLINK", "RTM_DELLINK", "RTM_GETLINK", "RTM_NEWLINKPROP", "RTM_DELLINKPROP")
_CREATING = ("RTM_NEWLINK",)
# Queues and filters that the kernel has; for another name it would load a module.
_TRAFFIC_KINDS = frozenset(
    ("tbf", "ingress", "clsact", "htb", "fq_codel", "u32", "matchall", "basic", "mirred", "gact")
)
_SYSCTL_ROOT = "net"
_NO_COMPONENTS = frozenset(("", ".", ".."))
_MAX_IFINDEX = (1 << 31) - 1
# KERNEL: a deletion that names no connection deletes them all (net/netfilter/nf_conntrack_netlink.c).
_NAMING_A_CONNECTION = {"IPCTNL_MSG_CT_DELETE": ("tuple_orig", "tuple_reply")}


class Record(NamedTuple):
    """One judgement, for the audit log.

    Attributes:
        netns: "host" or "container".
        subject: What was judged: name of its type and the netlink message, or anything else in words.
        permit: Name of the permit that matched; empty if it was refused.
        reason: Why it was refused.
    """

    netns: str
    subject: tuple[str, Message] | dict[str, Any]
    permit: str
    reason: str

    @property
    def message(self) -> dict[str, Any]:
        """What was judged, in rtnetlink's words; found when the log asks for them, which is off by default."""
        return described(*self.subject) if isinstance(self.subject, tuple) else self.subject


class Verdict(NamedTuple):
    """What is to be done with a datagram.

    Attributes:
        is_permitted: Whether `datagram` is sent with the capability; else without it, so that the kernel refuses.
        datagram: What is sent.
        errno: If not 0, nothing is sent, and sending fails with it.
        records: For the audit log.
    """

    is_permitted: bool
    datagram: bytes
    errno: int
    records: tuple[Record, ...]


class _Birth(NamedTuple):
    """A link that a message would make."""

    netns: str
    ifname: str


class Judge:
    """Judges the messages of one session.

    Args:
        permits: What may be sent.
        sysctls: What may be opened.
        session: Whose messages.
        world: The kernel's state.
    """

    def __init__(
        self, permits: Sequence[Permit], sysctls: Sequence[SysctlPermit], session: Session, world: World
    ) -> None:
        self._permits = permits
        self._sysctls = sysctls
        self._world = world
        self._snapshot = Snapshot(world)
        self._links = Links(session, self._snapshot)
        # The permits for a netns and a type of message, when there was one.
        self._fitting: dict[tuple[str, str], list[Permit]] = {}
        self._births: list[_Birth] = []
        # Whether the datagram also changes a link that is there.
        self._is_changing = False
        # The link that a message names, which the sender may know of and which is not there: number and name.
        self._gone: tuple[int, str] | None = None

    def judge(self, netns: str, protocol: int, datagram: bytes) -> Verdict:
        """Judge a datagram.

        Args:
            netns: The netns of the socket that it is sent on: "host" or "container".
            protocol: The socket's netlink protocol.
            datagram: What the sender wrote; any bytes.
        """
        self._births = []
        self._is_changing = False
        self._gone = None
        self._snapshot.renew()
        try:
            messages = decode_datagram(protocol, datagram)
        except CodecError as error:
            return _malformed(netns, datagram, error)
        records = tuple([self._record(netns, protocol, message) for message in messages])
        if not all(record.permit for record in records):
            if self._gone is not None and len(messages) == 1:
                instead = look_for(*self._gone, messages[0])
            else:
                instead = stand_in(protocol, messages)
            return Verdict(False, instead, 0 if instead else errno.EPERM, records)
        translated = [self._translated(message) for message in messages]
        try:
            encoded = encode_datagram(protocol, translated)
        except CodecError as error:  # with what it has left out, such as the NUL behind a name, it is too long
            return _malformed(netns, datagram, error)
        if self._is_changing:
            self._births = []
        return Verdict(True, encoded, 0, records)

    @property
    def is_making(self) -> bool:
        """Whether the datagram that was judged last would make links, which `after_send` looks for."""
        return bool(self._births)

    def after_send(self, verdict: Verdict) -> None:
        """Learn which links a datagram that was sent has made.

        A link counts as made in this session if none of its name was there when the message was judged, and one is now:
        the kernel is asked anew. None of a datagram counts that also changes a link: that one may have been given the
        name, or moved to where the name was free, and then the kernel has made none.
        """
        if not verdict.is_permitted:
            return
        for birth in self._births:
            facts = self._world.link(birth.netns, 0, birth.ifname)
            if facts is not None:
                self._links.note_created(birth.netns, facts.ifindex)
        self._births = []  # not before the kernel has answered for all of them: who asks may try once more

    def judge_sysctl(self, netns: str, key: str, is_write: bool) -> Record:
        """Judge the opening of a sysctl.

        Args:
            netns: Whose.
            key: Path below /proc/sys.
            is_write: Whether it is opened for writing.
        """
        what = {"type": "sysctl", "key": key[:256], "access": "write" if is_write else "read"}
        self._snapshot.renew()
        components = key.split("/")
        if components[0] != _SYSCTL_ROOT or not _NO_COMPONENTS.isdisjoint(components):
            return Record(netns, what, "", "not a setting of the network")
        for permit in self._sysctls:
            if netns in permit.netns and (not is_write or permit.access == "write"):
                patterns = permit.key.split("/")
                if len(patterns) == len(components) and self._is_key_covered(netns, components, patterns):
                    return Record(netns, what, permit.name, "")
        return Record(netns, what, "", "no permit for it")

    def _is_key_covered(self, netns: str, components: list[str], patterns: list[str]) -> bool:
        for part, pattern in zip(components, patterns, strict=True):
            if pattern.startswith("{"):
                if part not in self._links.names_of(netns, pattern[1:-1]):
                    return False
            elif part != pattern and not matches(part, pattern):
                return False
        return True

    # One message.

    def _record(self, netns: str, protocol: int, message: Message) -> Record:
        name = message_name(protocol, message)
        permit, reason = self._decide(netns, protocol, name, message)
        return Record(netns, (name, message), permit, reason)

    def _decide(self, netns: str, protocol: int, name: str, message: Message) -> tuple[str, str]:
        """Find the permit that covers a message.

        Returns:
            Its name and "", or "" and why there is none.
        """
        paths = paths_of(message.attributes)
        forbidden = _forbidden(protocol, name, message, paths)
        if forbidden:
            return "", forbidden
        first_surplus = last_complaint = ""
        for permit in self._permits_for(netns, name):
            surplus = surplus_of(paths, permit.attributes)
            if not surplus:
                complaint = self._complaint(netns, protocol, name, message, permit)
                if not complaint:
                    return permit.name, ""
                last_complaint = f"{permit.name} does not cover {complaint}"
            elif not first_surplus:
                first_surplus = f"{permit.name} does not cover attribute {surplus}"
        # That of the permit that came closest: one that covers all attributes, where there is such a one.
        return "", last_complaint or first_surplus or f"no permit for {name} in the {netns}'s netns"

    def _permits_for(self, netns: str, name: str) -> list[Permit]:
        key = (netns, name)
        if key not in self._fitting:
            self._fitting[key] = [item for item in self._permits if name in item.messages and netns in item.netns]
        return self._fitting[key]

    def _complaint(self, netns: str, protocol: int, name: str, message: Message, permit: Permit) -> str:
        if protocol == NETLINK_NETFILTER:
            is_change = nftables.is_change(name)
            return nftables.complaint(netns, name, message, permit, self._world) if is_change else ""
        if protocol != NETLINK_ROUTE:
            return ""
        if name in _ABOUT_LINK:
            return self._complaint_about_link(netns, name, message, permit)
        return self._complaint_about_index(netns, name, message, permit)

    def _complaint_about_link(self, netns: str, name: str, message: Message, permit: Permit) -> str:
        attributes = message.attributes
        ifindex = message.header["ifindex"]
        ifname = attributes.get("ifname") or attributes.get("alt_ifname") or ""
        if ifindex < 0:
            return f"ifindex {ifindex}"
        if not ifindex and not ifname:
            is_dump = name == "RTM_GETLINK" and message.flags & NLM_F_DUMP == NLM_F_DUMP
            is_covered = is_dump and (not permit.links or "any" in permit.links)
            return "" if is_covered else "a message that names no link"
        if name == "RTM_GETLINK" and "any" in permit.links:
            return ""  # there is no need to look: that a link is not there may be seen, too, and the kernel says so
        facts = self._snapshot.link(netns, ifindex, ifname)
        # With NLM_F_EXCL the kernel makes a link or nothing, so it is judged as one that is made whether there is one.
        is_birth = name in _CREATING and message.flags & NLM_F_CREATE and not ifindex
        if is_birth and (facts is None or message.flags & NLM_F_EXCL):
            return self._complaint_about_birth(netns, ifname, message, permit)
        if facts is None:
            return self._complaint_about_nothing(netns, name, message, permit)
        if not self._links.is_covered(netns, facts, permit.links):
            return f"link {facts.ifname}"
        self._links.note_seen(netns, facts.ifindex)
        if name == "RTM_GETLINK":
            return ""
        self._is_changing = True
        if permit.kinds and facts.kind not in permit.kinds:
            return f"link {facts.ifname} of kind {facts.kind or 'none'}"
        kind = attributes.get("linkinfo", {}).get("kind")
        if kind is not None and (kind not in permit.kinds or kind != facts.kind):
            return f"kind {kind}"
        return self._complaint_about_new_name(netns, facts, ifname, permit) or self._complaint_about_targets(
            netns, attributes, permit
        )

    def _complaint_about_nothing(self, netns: str, name: str, message: Message, permit: Permit) -> str:
        """Look at a message about a link that is not there: it may be looked for, nothing else.

        KERNEL: RTM_NEWLINK with NLM_F_CREATE would make it, under the number that the sender has chosen; and what is
        there of another kind when the message arrives would be changed.
        """
        ifindex = message.header["ifindex"]
        ifname = message.attributes.get("ifname") or message.attributes.get("alt_ifname") or ""
        is_named = "any" in permit.links or self._links.is_name_covered(netns, ifname, permit.links)
        if ifname and is_named and name == "RTM_GETLINK":
            return ""
        # That it is not there is no secret if it had been seen, if every link of the netns may be, or any of its name.
        may_see_all = any(
            netns in other.netns and "RTM_GETLINK" in other.messages and "any" in other.links for other in self._permits
        )
        if may_see_all or self._links.is_seen(netns, ifindex) or (not ifindex and is_named):
            self._gone = ifindex, ifname
        return f"link {ifname or ifindex}, which is not there"

    def _complaint_about_new_name(self, netns: str, facts: LinkFacts, ifname: str, permit: Permit) -> str:
        """A message by index that also has a name renames; the new name has to be covered as well."""
        if not ifname or ifname == facts.ifname:
            return ""
        words = (*permit.links, *permit.related, "attachment")
        return "" if self._links.is_name_covered(netns, ifname, words) else f"new name {ifname}"

    def _complaint_about_birth(self, netns: str, ifname: str, message: Message, permit: Permit) -> str:
        attributes = message.attributes
        info = attributes.get("linkinfo", {})
        if info.get("kind") not in permit.kinds:
            return f"kind {info.get('kind')}"
        place = netns
        if "net_ns_fd" in attributes:
            named = self._snapshot.netns_of(attributes["net_ns_fd"])
            if named is None:
                return "a netns that may not be named"
            place = named
        births = [_Birth(place, ifname)]
        if not self._links.is_name_covered(place, ifname, permit.links) or "%" in ifname:
            return f"a new link {ifname} in the {place}'s netns"
        peer = info.get("data", {}).get("peer")
        if peer is not None:
            birth = self._birth_of_peer(netns, peer)
            if isinstance(birth, str):
                return birth
            words = (*permit.related, *permit.links)
            if not self._links.is_name_covered(birth.netns, birth.ifname, words) or "%" in birth.ifname:
                return f"a new peer {birth.ifname} in the {birth.netns}'s netns"
            births.append(birth)
        found = self._complaint_about_targets(netns, attributes, permit, is_birth=True)
        if not found:
            self._births += [birth for birth in births if self._snapshot.link(birth.netns, 0, birth.ifname) is None]
        return found

    def _birth_of_peer(self, netns: str, peer: Attributes) -> _Birth | str:
        if peer.get(HEADER, {}).get("ifindex"):
            return "a peer of a chosen number"
        ifname = peer.get("ifname", "")
        if not ifname:
            return "a peer without a name"
        place = self._snapshot.netns_of(peer["net_ns_fd"]) if "net_ns_fd" in peer else netns
        return "a netns that may not be named" if place is None else _Birth(place, ifname)

    def _complaint_about_targets(
        self, netns: str, attributes: Attributes, permit: Permit, *, is_birth: bool = False
    ) -> str:
        """Look at what attributes point to: other links, and a netns to move to."""
        for name in ("link", "master"):
            ifindex = attributes.get(name, 0)
            if ifindex and not self._is_related(netns, ifindex, permit):
                return f"{name} {ifindex}"
        if "net_ns_fd" in attributes and not is_birth and self._snapshot.netns_of(attributes["net_ns_fd"]) is None:
            return "a netns that may not be named"
        return ""

    def _is_related(self, netns: str, ifindex: int, permit: Permit) -> bool:
        facts = self._link_of_number(netns, ifindex)
        return facts is not None and self._links.is_covered(netns, facts, permit.related)

    def _complaint_about_index(self, netns: str, name: str, message: Message, permit: Permit) -> str:
        """Look at the links of a message that names them by number: addresses, routes, neighbours, queues."""
        kind = message.attributes.get("kind")
        if "tc" in name.lower() or "QDISC" in name or "TFILTER" in name:
            foreign = [word for word in _kinds_below(message.attributes) if word not in _TRAFFIC_KINDS]
            if foreign:
                return f"kind {foreign[0]}"
        if kind is not None and permit.kinds and kind not in permit.kinds:
            return f"kind {kind}"
        is_get = "_GET" in name
        indexes = [index for index in _indexes(message) if index]
        if not indexes and permit.links and "any" not in permit.links and not is_get:
            return "a message that names no link"
        if indexes and not permit.links and not is_get:
            return f"link {indexes[0]}"
        for index in indexes:
            if permit.links and not self._is_target(netns, index, permit, is_get=is_get, is_of_kind=kind is None):
                return f"link {index}"
        for index in _indexes_below(message.attributes.get("options")):
            if index and not self._is_related(netns, index, permit):
                return f"link {index}"
        return ""

    def _is_target(self, netns: str, ifindex: int, permit: Permit, *, is_get: bool, is_of_kind: bool) -> bool:
        if is_get and "any" in permit.links and not permit.kinds:
            return 0 < ifindex <= _MAX_IFINDEX  # as with RTM_GETLINK
        facts = self._link_of_number(netns, ifindex)
        if facts is not None and is_of_kind and permit.kinds and facts.kind not in permit.kinds:
            return False
        return facts is not None and self._links.is_covered(netns, facts, permit.links)

    def _link_of_number(self, netns: str, ifindex: int) -> LinkFacts | None:
        """Look at a link whose number stands in an attribute, which may hold numbers that are none (TC_BLOCK)."""
        return self._snapshot.link(netns, ifindex, "") if 0 < ifindex <= _MAX_IFINDEX else None

    def _translated(self, message: Message) -> Message:
        """Put descriptors of ours in place of the sender's."""
        attributes = message.attributes
        translated: Attributes = {}
        if "net_ns_fd" in attributes:
            translated["net_ns_fd"] = self._own_descriptor(attributes["net_ns_fd"])
        info = attributes.get("linkinfo", {})
        data = info.get("data", {})
        if isinstance(data, dict) and "net_ns_fd" in data.get("peer", {}):
            peer = {**data["peer"], "net_ns_fd": self._own_descriptor(data["peer"]["net_ns_fd"])}
            translated["linkinfo"] = {**info, "data": {**data, "peer": peer}}
        return message._replace(attributes={**attributes, **translated}) if translated else message

    def _own_descriptor(self, descriptor: int) -> int:
        netns = self._snapshot.netns_of(descriptor)  # what it meant when it was judged, whatever it is now
        return -1 & 0xFFFFFFFF if netns is None else self._world.descriptor_of(netns)


def _malformed(netns: str, datagram: bytes, error: CodecError) -> Verdict:
    what = {"type": "undecodable", "bytes": len(datagram), "begins": datagram[:32].hex()}
    return Verdict(False, b"", errno.EPERM, (Record(netns, what, "", f"malformed: {error}"),))


def _forbidden(protocol: int, name: str, message: Message, paths: list[str]) -> str:
    """Say what of a message no permit can pass; empty for nothing."""
    if name in _NEVER_MESSAGES:
        return f"{name} is never permitted"
    if not message.flags & NLM_F_REQUEST:
        return "it is not a request"
    needed = _NAMING_A_CONNECTION.get(name, ())
    if needed and not any(message.attributes.get(attribute) for attribute in needed):
        return "it names no connection, which means all"
    names = [path.rpartition(".")[2] for path in paths]
    if UNKNOWN in names:
        return f"attribute {unknown_paths(message)[0]} is not known"
    if protocol == NETLINK_ROUTE and not _NEVER_ATTRIBUTES.isdisjoint(names):
        never = next(path for path, last in zip(paths, names, strict=True) if last in _NEVER_ATTRIBUTES)
        return f"attribute {never} is never permitted"
    return ""


def _indexes(message: Message) -> Iterator[int]:
    """List the numbers of links that a message is about."""
    yield message.header.get("ifindex", 0)
    for name in ("oif", "iif", "ifindex"):
        value = message.attributes.get(name, 0)
        if isinstance(value, int):
            yield value
    for hop in message.attributes.get("multipath", []):
        yield hop.get(HEADER, {}).get("ifindex", 0)


def _indexes_below(value: Any) -> Iterator[int]:
    """List every "ifindex" within the options of a filter, such as where mirred sends packets to."""
    if isinstance(value, list):
        for item in value:
            yield from _indexes_below(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "ifindex" and isinstance(item, int):
                yield item
            else:
                yield from _indexes_below(item)


def _kinds_below(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _kinds_below(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "kind" and isinstance(item, str):
                yield item
            else:
                yield from _kinds_below(item)

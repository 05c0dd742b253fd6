"""Which link a message is about, and whether the words of a permit cover it.

Privilege: none; what the kernel knows is asked through `World`.
"""

from collections.abc import Callable, Mapping, Sequence

from cnisandbox.hints import NamedTuple, Protocol
from cnisandbox.netlink.codec import Attributes
from cnisandbox.policy.patterns import matches


class LinkFacts(NamedTuple):
    """A link, as the kernel shows it.

    Attributes:
        ifindex, ifname, kind: Its number, name and kind; "" for a link of no kind.
        peer: ifindex of what it is connected to or stands on; 0 for none.
        link_netnsid: Number of the netns that `peer` is in; None when that is the link's own.
        alias: What somebody has marked it with; "" for nothing.
    """

    ifindex: int
    ifname: str
    kind: str
    peer: int
    link_netnsid: int | None
    alias: str = ""


Look = Callable[[str, int, str], LinkFacts | None]
"""Looks at a link of a netns, by index if that is not 0, else by name."""


class World(Protocol):
    """What the judge asks about the kernel's state."""

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        """Look at a link, by index if that is not 0, else by name."""

    def peer(self, look: Look, /) -> LinkFacts | None:
        """Find the host's end of the attachment's veth by looking at links."""

    def default_route_links(self, netns: str) -> tuple[int, ...]:
        """List the links of the default routes."""

    def netns_of(self, descriptor: int, /) -> str | None:
        """Say which netns a descriptor of the sender means: "host", "container", or none that may be named."""

    def descriptor_of(self, netns: str) -> int:
        """Say which descriptor of ours means a netns."""

    def chain_handle(self, netns: str, family: int, table: str, chain: str) -> int | None:
        """Say what number a chain of nf_tables has."""

    def rule(self, netns: str, family: int, table: str, chain: str, handle: int) -> Attributes | None:
        """Look at a rule of nf_tables."""


class Session(NamedTuple):
    """Whose messages are judged.

    Attributes:
        plugin: Its name, for the log.
        attachment: CNI_IFNAME.
        variables: Key of the netconf to the names of links that it gives.
    """

    plugin: str
    attachment: str
    variables: Mapping[str, tuple[str, ...]]


class Snapshot:
    """The kernel's state as it was when it was first looked at, for as long as one datagram is judged.

    A datagram is judged by one state then, however often it names a link. What is known gets no older by that than it
    may be anyway: the kernel begins with the first message when the last one has been judged, so who wants a long time
    between look and deed has always been free to put many messages behind his first. The next datagram is judged by
    new looks.

    Args:
        world: What is asked.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.renew()

    def renew(self) -> None:
        """Forget everything."""
        self._links: dict[tuple[str, int | str], LinkFacts | None] = {}
        self._peer: list[LinkFacts | None] = []
        self._default_routes: dict[str, tuple[int, ...]] = {}
        self._netns: dict[int, str | None] = {}

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        """Look at a link, by index if that is not 0, else by name."""
        key = (netns, ifindex or ifname)
        if key not in self._links:
            facts = self._links[key] = self._world.link(netns, ifindex, ifname)
            if facts is not None:
                self._links[netns, facts.ifindex] = self._links[netns, facts.ifname] = facts
        return self._links[key]

    def peer(self) -> LinkFacts | None:
        """Find the host's end of the attachment's veth."""
        if not self._peer:
            self._peer.append(self._world.peer(self.link))
        return self._peer[0]

    def default_route_links(self, netns: str) -> tuple[int, ...]:
        """List the links of the default routes."""
        if netns not in self._default_routes:
            self._default_routes[netns] = self._world.default_route_links(netns)
        return self._default_routes[netns]

    def netns_of(self, descriptor: int) -> str | None:
        """Say which netns a descriptor of the sender means."""
        if descriptor not in self._netns:
            self._netns[descriptor] = self._world.netns_of(descriptor)
        return self._netns[descriptor]


class Links:
    """Tells links by the words of permits.

    Args:
        session: Whose messages.
        world: The kernel's state, when the message was judged.
    """

    def __init__(self, session: Session, world: Snapshot) -> None:
        self._session = session
        self._world = world
        self._created: set[tuple[str, int]] = set()
        self._seen: set[tuple[str, int]] = set()

    def note_created(self, netns: str, ifindex: int) -> None:
        """Note that a link was made in this session; its number is not used again while the netns lives."""
        self._created.add((netns, ifindex))
        self.note_seen(netns, ifindex)

    def note_seen(self, netns: str, ifindex: int) -> None:
        """Note that a message of the session about this link was covered by a permit."""
        self._seen.add((netns, ifindex))

    def is_seen(self, netns: str, ifindex: int) -> bool:
        """Say whether the session knows that there was such a link."""
        return (netns, ifindex) in self._seen

    def is_covered(self, netns: str, facts: LinkFacts, words: Sequence[str]) -> bool:
        """Say whether a link that is there is one of those that the words mean."""
        if "any" in words or ("created" in words and (netns, facts.ifindex) in self._created):
            return True
        if self.is_name_covered(netns, facts.ifname, words):
            return True
        if any(word.startswith("alias:") and matches(facts.alias, word[6:]) for word in words):
            return True
        if "default-route" in words and facts.ifindex in self._world.default_route_links(netns):
            return True
        if "peer" in words and netns == "host":
            peer = self._world.peer()
            return peer is not None and peer.ifindex == facts.ifindex
        return False

    def is_name_covered(self, netns: str, name: str, words: Sequence[str]) -> bool:
        """Say whether a link of this name, there or yet to be made, is one of those that the words mean by name."""
        for word in words:
            kind, _, rest = word.partition(":")
            if kind == "name" and matches(name, rest):
                return True
            if kind == "netconf" and name in self._session.variables.get(rest, ()):
                return True
            if word == "attachment" and netns == "container" and name == self._session.attachment:
                return True
            if word == "loopback" and name == "lo":
                return True
        return False

    def names_of(self, netns: str, word: str) -> tuple[str, ...]:
        """List the names that a placeholder of a sysctl stands for."""
        kind, _, rest = word.partition(":")
        if kind == "netconf":
            return tuple(self._session.variables.get(rest, ()))
        if word == "attachment":
            return (self._session.attachment,) if netns == "container" else ()
        if word == "lo":
            return ("lo",)
        if word == "peer" and netns == "host":
            peer = self._world.peer()
            return (peer.ifname,) if peer else ()
        if word == "created":
            found = [self._world.link(netns, ifindex, "") for place, ifindex in self._created if place == netns]
            return tuple(facts.ifname for facts in found if facts is not None)
        return ()

"""The links of an episode, and the words that profiles have for each of them.

Numbers of links are not used again while a netns lives, so what the kernel said about one at any time tells which link
a message was about. What name it had at that time follows from the messages in between.

Privilege: none.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from cnisandbox.laboratory.learning.episode import Episode, LinkEvent
from cnisandbox.laboratory.learning.world import CONTAINER, HOST

PREV_RESULT = "prevResult"
_NO_LINK_KEYS = ("name", "type", "cniVersion")
_LOOPBACK = "lo"


class Link(NamedTuple):
    """A link, over its whole life.

    Attributes:
        names: Those that it has had, in order.
        kind: "" for none.
        peer: ifindex of what it is connected to or stands on; 0 for none.
        is_peer_elsewhere: Whether that is in another netns.
        first_call: Index of the call that made it; -1 for none.
    """

    names: tuple[str, ...]
    kind: str
    peer: int
    is_peer_elsewhere: bool
    first_call: int


class Facts:
    """What is known of the links of an episode.

    Args:
        episode: Whose.
    """

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._links: dict[tuple[str, int], Link] = {}
        for event in episode.links:
            key = (event.netns, event.ifindex)
            self._links[key] = _later(self._links.get(key), event)
        for netns in (HOST, CONTAINER):
            self._links.setdefault((netns, 1), Link((_LOOPBACK,), "", 0, False, -1))
        self._current = {key: link.names[0] for key, link in self._links.items() if link.names}
        self._births: dict[int, set[tuple[str, str]]] = {}

    def note_birth(self, call: int, netns: str, ifname: str) -> None:
        """Note that a message would make a link."""
        self._births.setdefault(call, set()).add((netns, ifname))

    def note_name(self, netns: str, ifindex: int, ifname: str) -> None:
        """Note that a message gave a link another name."""
        self._current[netns, ifindex] = ifname

    def kind(self, netns: str, ifindex: int, ifname: str) -> str:
        """Say of what kind a link is; "" if that is not known."""
        key = (netns, ifindex or self._index(netns, ifname))
        return self._links[key].kind if key in self._links else ""

    def made_up_names(self) -> dict[str, str]:
        """Name the links whose names nobody has chosen, each with a word for it that is the same in each episode."""
        chosen = {_LOOPBACK, self._episode.subject.ifname}
        words: dict[str, str] = {}
        counts: dict[str, int] = {}
        for link in self._links.values():
            for name in link.names:
                is_chosen = name in chosen or self._keys(0, name, is_prev_result=False)
                if link.kind and not is_chosen and name not in words and _is_random(name):
                    counts[link.kind] = counts.get(link.kind, 0) + 1
                    words[name] = f"{link.kind}-{counts[link.kind]}"
        return words

    def words_of_name(self, call: int, netns: str, ifname: str) -> tuple[str, ...]:
        """List the words that mean a link by its name, whether it is there or not; the narrowest first."""
        words = []
        if netns == CONTAINER and ifname == self._episode.subject.ifname:
            words.append("attachment")
        if ifname == _LOOPBACK:
            words.append("loopback")
        words += [f"netconf:{key}" for key in self._keys(call, ifname, is_prev_result=False)]
        words += [f"netconf:{key}" for key in self._keys(call, ifname, is_prev_result=True)]
        return (*words, f"name:{ifname}")

    def words_of_link(self, call: int, netns: str, ifindex: int, ifname: str) -> tuple[str, ...]:
        """List the words that mean a link that is there, by number or name; the narrowest first."""
        key = (netns, ifindex or self._index(netns, ifname))
        link = self._links.get(key)
        if link is None:
            return self.words_of_name(call, netns, ifname) if ifname else ()
        name = self._current.get(key, ifname)
        by_name = self.words_of_name(call, netns, name)
        words = [word for word in by_name if word in ("attachment", "loopback")]
        if self._is_peer(netns, link):
            words.append("peer")
        words += [word for word in by_name if word.startswith("netconf:") and not word.startswith("netconf:prevResult")]
        if link.first_call == call and any((netns, one) in self._births.get(call, ()) for one in link.names):
            words.append("created")
        if netns == HOST and call >= 0 and key[1] in self._episode.calls[call].default_route:
            words.append("default-route")
        return tuple(dict.fromkeys([*words, *by_name]))

    def _index(self, netns: str, ifname: str) -> int:
        """Find the number of the youngest link that has had a name; 0 for none."""
        return max((key[1] for key, link in self._links.items() if key[0] == netns and ifname in link.names), default=0)

    def _is_peer(self, netns: str, link: Link) -> bool:
        other = self._links.get((CONTAINER, link.peer))
        is_pair = netns == HOST and link.kind == "veth" and link.is_peer_elsewhere
        return is_pair and other is not None and self._episode.subject.ifname in other.names

    def _keys(self, call: int, ifname: str, *, is_prev_result: bool) -> list[str]:
        """List the keys of the netconf, or of its prevResult, whose value is a name; the shortest first."""
        given = self._prev_result(call) if is_prev_result else self._episode.subject.netconf
        found = []
        for path, value in _texts(given, PREV_RESULT if is_prev_result else ""):
            is_ours = is_prev_result or not path.startswith(f"{PREV_RESULT}.")
            if value == ifname and is_ours and path not in _NO_LINK_KEYS and not path.startswith(("ipam.", "dns.")):
                found.append(path)
        return sorted(dict.fromkeys(found), key=lambda key: (key.count("."), key))

    def _prev_result(self, call: int) -> Any:
        if call <= 0 or self._episode.calls[0].status:
            return self._episode.prev_result
        return json.loads(self._episode.calls[0].stdout or "null") or self._episode.prev_result


def _later(link: Link | None, event: LinkEvent) -> Link:
    """Add what an event says to what is known."""
    names = link.names if link else ()
    if event.ifname and event.ifname not in names:
        names = (*names, event.ifname)
    return Link(
        names,
        event.kind or (link.kind if link else ""),
        event.peer or (link.peer if link else 0),
        event.is_peer_elsewhere or (link.is_peer_elsewhere if link else False),
        link.first_call if link else event.call,
    )


def _is_random(name: str) -> bool:
    return sum(character in "0123456789abcdef" for character in name) >= 4


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """List every text of a netconf with its dotted path, in which lists take no part."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)

"""Makes a profile of what was seen: as narrow as its vocabulary allows, one permit for each kind of message.

Messages that differ in nothing but their attributes become one permit; permits that differ in one list are joined,
which permits nothing that was not seen.

Privilege: none.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnisandbox.boundary.levels import Level
from cnisandbox.laboratory.learning import observed, patterns
from cnisandbox.laboratory.learning.activity import Activity
from cnisandbox.laboratory.learning.episode import Subject
from cnisandbox.laboratory.learning.facts import PREV_RESULT
from cnisandbox.laboratory.learning.observed import Observed, ObservedSetting, Words
from cnisandbox.netlink.datagram import has_path
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile import words
from cnisandbox.profile.schema import DEFAULT_TIME_LIMIT_S, ExtraCapability, Profile, Variable
from cnisandbox.runner import plan

_WORLD = ("/proc", "/tmp", "/run/netns", "/dev/shm")
_FILES_OF_VIEW = (*plan._DYNAMIC_LINKER, *plan._DEVICES)
_SPREADING = re.compile(r"(?P<above>.*\bexpressions)\..*")
# A directory that others keep their files in as well is not given to the plugin for one file of its own.
_SHARED_DIRECTORIES = (
    "/",
    "/etc",
    "/run",
    "/srv",
    "/opt",
    "/home",
    "/root",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/lib/cni",
)

_OBJECTS = {
    "LINK": "links",
    "LINKPROP": "other names of links",
    "ADDR": "addresses",
    "ROUTE": "routes",
    "RULE": "routing rules",
    "NEIGH": "neighbours",
    "QDISC": "queues",
    "TCLASS": "classes of queues",
    "TFILTER": "filters of queues",
    "VLAN": "VLANs",
    "NSID": "numbers of network namespaces",
    "NETCONF": "settings of links",
}
_NFT_OBJECTS = {"GEN": "the generation of the ruleset"}
_OF_THE_ATTACHMENT = ("attachment", "peer", "loopback")
_DEEDS = (("NEW", "makes or changes"), ("SET", "changes"), ("GET", "asks for"), ("DEL", "takes away"))


class Watched(NamedTuple):
    """What was seen in one episode.

    Attributes:
        subject: Who.
        activities, observations: Of each call.
    """

    subject: Subject
    activities: list[Activity]
    observations: list[observed.Observations]


class Names(NamedTuple):
    """Patterns for names that differ from run to run.

    Attributes:
        links: Name of a link to the pattern of such names.
        chains: Likewise for chains, and tables, of nf_tables.
    """

    links: Mapping[str, str]
    chains: Mapping[str, str]


def names_of(episodes: Sequence[Watched]) -> Names:
    """Find patterns for what is different in each episode."""
    known = [text for one in episodes for text in (one.subject.container_id, one.subject.ifname)]
    known += [str(one.subject.netconf.get("name", "")) for one in episodes]
    links = [{name for message in _messages(one) for name in _raw_names(message)} for one in episodes]
    links = [
        names | {name for item in _settings(one) for name in _raw_components(item)}
        for names, one in zip(links, episodes, strict=True)
    ]
    chains = [
        {name for message in _messages(one) for name in (message.chain, *message.jumps) if name} for one in episodes
    ]
    return Names(patterns.patterns_of(links, known), patterns.patterns_of(chains, known))


def _messages(one: Watched) -> list[Observed]:
    return [message for found in one.observations for message in found.messages]


def _settings(one: Watched) -> list[ObservedSetting]:
    return [setting for found in one.observations for setting in found.settings]


def _raw_names(message: Observed) -> Iterable[str]:
    for means in (*message.links, *message.related):
        yield from (word.removeprefix("name:") for word in means if word.startswith("name:"))


def _raw_components(setting: ObservedSetting) -> Iterable[str]:
    if len(setting.keys) > 1:
        yield setting.keys[-1].split("/")[3]


def draft(episodes: Sequence[Watched], names: Names, generous: Collection[tuple[str, str]] = ()) -> Profile:
    """Make the profile.

    Args:
        episodes: What was seen.
        names: Patterns for names.
        generous: (netns, name of a message): where every word that means a link is taken, not the narrowest alone.
    """
    subject = episodes[0].subject
    name = subject.plugin.rpartition("/")[2]
    messages = [(one, message) for one in episodes for message in _messages(one)]
    defaults = _defaults(messages)
    permits = _permits([message for _, message in messages], names, defaults, generous)
    sysctls = _sysctls([setting for one in episodes for setting in _settings(one)], names, defaults)
    activities = [activity for one in episodes for activity in one.activities]
    files = _files(episodes)
    capabilities = {key: value for activity in activities for key, value in activity.capabilities.items()}
    return Profile(
        name=name,
        summary=f"What {name} was seen to do",
        source="learned",
        level=Level.HARDENED if "CAP_NET_ADMIN" in capabilities else Level.MEDIATED,
        variables=_variables(permits, sysctls, defaults),
        permits=tuple(permits),
        sysctls=tuple(sysctls),
        **files,
        programs=_programs(subject, activities),
        raw_sockets=tuple(sorted({word for activity in activities for word in activity.raw_sockets})),
        unix_sockets=tuple(sorted({path for activity in activities for path in activity.connected})),
        capabilities=tuple(ExtraCapability(*item) for item in sorted(capabilities.items())),
        time_limit_s=DEFAULT_TIME_LIMIT_S,
    )


# Links.


def _defaults(messages: Sequence[tuple[Watched, Observed]]) -> dict[str, str]:
    """Find what a key of the netconf means where it is missing: a name that is treated as the key's value elsewhere.

    Returns:
        Key to name.
    """
    by_key: dict[str, set[Any]] = {}
    by_name: dict[str, set[Any]] = {}
    given: dict[str, set[str]] = {}
    for one, message in messages:
        for means in message.links:
            kind, _, rest = means[0].partition(":")
            deed = (message.netns, message.message, message.kind)
            if kind == "netconf" and not rest.startswith(f"{PREV_RESULT}."):
                by_key.setdefault(rest, set()).add(deed)
            elif means[0] not in _OF_THE_ATTACHMENT:
                name = means[-1].removeprefix("name:")
                by_name.setdefault(name, set()).add(deed)
                given.setdefault(name, set()).update(one.subject.netconf)
    found = {}
    for key, deeds in by_key.items():
        for name, others in by_name.items():
            is_missing = key.split(".")[0] not in given[name]
            if is_missing and len(deeds & others) * 2 >= len(deeds):
                found[key] = name
    return found


def _word(word: str, names: Names, defaults: Mapping[str, str]) -> str:
    kind, _, rest = word.partition(":")
    if kind != "name":
        return word
    for key, name in defaults.items():
        if rest == name:
            return f"netconf:{key}"
    return f"name:{names.links.get(rest, rest)}"


def _chosen(means: Sequence[Words], names: Names, defaults: Mapping[str, str], *, is_generous: bool) -> Words:
    """Choose the words for links, sorted: the narrowest of each."""
    found = [word for one in means for word in (one if is_generous else _narrowest(one, defaults))]
    return tuple(sorted(dict.fromkeys(_word(word, names, defaults) for word in found)))


def _narrowest(means: Words, defaults: Mapping[str, str]) -> Words:
    name = means[-1].removeprefix("name:")
    is_default = name in defaults.values() and means[0] not in _OF_THE_ATTACHMENT
    return means[-1:] if is_default else means[:1]


def _variables(
    permits: Sequence[Permit], sysctls: Sequence[SysctlPermit], defaults: Mapping[str, str]
) -> tuple[Variable, ...]:
    used = [word for permit in permits for word in (*permit.links, *permit.related)] + [item.key for item in sysctls]
    keys = sorted({key for word in used for key in words.netconf_keys_of(word)})
    return tuple(Variable(key, defaults.get(key, "")) for key in keys)


# Messages.


def _permits(
    messages: Sequence[Observed],
    names: Names,
    defaults: Mapping[str, str],
    generous: Collection[tuple[str, str]],
) -> list[Permit]:
    chains = _Chains(messages, names)
    attributes: dict[Permit, list[str]] = {}
    verbs: dict[Permit, list[str]] = {}
    for message in messages:
        is_generous = (message.netns, message.message) in generous
        bare = Permit(
            "",
            (message.netns,),
            (message.message,),
            _chosen(message.links, names, defaults, is_generous=is_generous),
            (message.kind,) if message.kind and message.message == "RTM_NEWLINK" else (),
            _chosen(message.related, names, defaults, is_generous=is_generous),
            (),
            (message.table,) if message.table else (),
            *chains.of(message),
            hooks=(message.hook,) if message.hook else (),
            verdicts=message.verdicts,
        )
        attributes.setdefault(bare, [])
        attributes[bare] = list(
            dict.fromkeys([*attributes[bare], *(attribute_word(path, message.message) for path in message.attributes)])
        )
        verbs.setdefault(bare, [])
        verbs[bare] += [message.verb] if message.verb not in verbs[bare] else []
    permits = [bare._replace(attributes=tuple(attributes[bare]), reason=" ".join(verbs[bare])) for bare in attributes]
    permits = _joined(permits)
    permits = [one for one in permits if not any(_contains(other, one) for other in permits if other is not one)]
    permits.sort(key=lambda permit: (permit.messages[0].startswith("RTM_") is False, permit.netns))
    return [
        permit._replace(name=f"learned:{number}", reason=_reason(permit)) for number, permit in enumerate(permits, 1)
    ]


def attribute_word(path: str, message: str) -> str:
    """Write the path of an attribute as it stands in a permit: what a rule of nf_tables consists of is one word.

    Args:
        path: As `paths_of` has it.
        message: Name of the message that has it.
    """
    match = _SPREADING.fullmatch(path)
    if match:
        return f"{match['above']}.**"
    word = f"{path}*" if path.endswith(".") else path
    above = word
    # Fields of a list within a struct have no word of their own (netlink/datagram.py, has_path).
    while not has_path(message, word) and "." in above:
        above = above.rpartition(".")[0]
        word = f"{above}.**"
    return word


class _Chains:
    """Which chains of nf_tables are the plugin's, and which are everybody's."""

    def __init__(self, messages: Sequence[Observed], names: Names) -> None:
        self._names = names.chains
        made = [message for message in messages if message.chain and message.message == "NFT_MSG_NEWCHAIN"]
        self._own = {(one.table, self._name(one.chain)) for one in made if not one.hook}
        self._jumps: dict[tuple[str, str], Words] = {}
        for message in messages:
            place = (message.table, self._name(message.chain))
            known = self._jumps.get(place, ())
            self._jumps[place] = tuple(dict.fromkeys([*known, *map(self._name, message.jumps)]))
        self._more = {(one.table, self._name(one.chain)) for one in messages if one.does_more}

    def _name(self, chain: str) -> str:
        return self._names.get(chain, chain)

    def of(self, message: Observed) -> tuple[Words, Words]:
        """Say which chains and which jumps a permit for a message names."""
        if not message.chain:
            return (), ()
        place = (message.table, self._name(message.chain))
        is_rule = message.message.endswith("RULE")
        if is_rule and place not in self._own and place not in self._more and self._jumps[place]:
            return (), self._jumps[place]
        return (place[1],), ()


_JOINABLE = ("netns", "messages", "links", "kinds", "tables", "chains", "jumps", "hooks", "verdicts")


def _joined(permits: Sequence[Permit]) -> list[Permit]:
    """Join permits that differ in one list."""
    found = list(permits)
    for field in _JOINABLE:
        groups: dict[Any, list[Permit]] = {}
        for permit in found:
            empty: dict[str, Any] = {field: ()}
            rest = permit._replace(reason="", attributes=tuple(sorted(permit.attributes)), **empty)
            family = _family(permit.messages[0]) if field == "messages" else ""
            groups.setdefault((rest, bool(getattr(permit, field)), family), []).append(permit)
        found = [_union(group, field) for group in groups.values()]
    return found


def _family(message: str) -> str:
    """Say which messages one permit may have together with another: those about the same, read apart from changed."""
    if message.startswith("NFT_MSG_GET"):
        return "NFT_MSG_GET"
    is_reading = "_GET" in message
    return f"{is_reading} {re.sub('(?<=_)(NEW|SET|DEL|GET)', '', message)}"


def _union(group: Sequence[Permit], field: str) -> Permit:
    values: dict[str, Any] = {field: tuple(dict.fromkeys(value for one in group for value in getattr(one, field)))}
    verbs = dict.fromkeys(verb for permit in group for verb in permit.reason.split())
    return group[0]._replace(reason=" ".join(verbs), **values)


def _contains(outer: Permit, inner: Permit) -> bool:
    """Say whether a permit passes all that another one passes."""
    if outer.kinds != inner.kinds or bool(outer.links) != bool(inner.links):
        return False
    fields = ("netns", "messages", "links", "related", "attributes", "tables", "chains", "jumps", "hooks", "verdicts")
    return outer != inner and all(set(getattr(inner, field)) <= set(getattr(outer, field)) for field in fields)


def _reason(permit: Permit) -> str:
    deeds = dict.fromkeys(_deed(message, permit) for message in permit.messages)
    return f"{', '.join(deeds)} ({', '.join(permit.reason.split())})"


def _deed(message: str, permit: Permit) -> str:
    if "BATCH" in message:
        return "begins and ends transactions of nf_tables"
    if message == "NFNL_MSG_COMPAT_GET":
        return "asks which extensions of iptables the kernel has"
    if message.startswith("IPCTNL"):
        return f"{'ends' if 'DELETE' in message else 'looks at'} tracked connections"
    subject = message.removeprefix("RTM_").removeprefix("NFT_MSG_")
    for prefix, verb in _DEEDS:
        if subject.startswith(prefix):
            thing = subject.removeprefix(prefix)
            known = _OBJECTS.get(thing) if message.startswith("RTM_") else None
            what = known or _NFT_OBJECTS.get(thing) or f"{thing.lower()}s of nf_tables"
            if permit.kinds and prefix == "NEW":
                return f"makes links of kind {' or '.join(permit.kinds)}"
            return f"{verb} {what}"
    return message


# Settings.


def _sysctls(settings: Sequence[ObservedSetting], names: Names, defaults: Mapping[str, str]) -> list[SysctlPermit]:
    seen: dict[tuple[str, str], tuple[bool, list[str]]] = {}
    for setting in settings:
        place = (setting.netns, _key(setting.keys, names, defaults))
        is_write, verbs = seen.get(place, (False, []))
        verbs = [*verbs, setting.verb] if setting.verb not in verbs else verbs
        seen[place] = (is_write or setting.is_write, verbs)
    found = []
    for number, ((netns, key), (is_write, verbs)) in enumerate(seen.items(), 1):
        access = "write" if is_write else "read"
        reason = f"{'writes' if is_write else 'reads'} it ({', '.join(verbs)})"
        found.append(SysctlPermit(f"learned:sysctl:{number}", (netns,), key, access, reason))
    return found


def _key(keys: Words, names: Names, defaults: Mapping[str, str]) -> str:
    """Choose the narrowest of the keys; the last of them has the link's name in it."""
    parts = keys[-1].split("/")
    if len(parts) != 5:
        return keys[0]
    for variable, name in defaults.items():
        if parts[3] == name:
            return "/".join((*parts[:3], f"{{netconf:{variable}}}", parts[4]))
    if "{" in keys[0]:
        return keys[0]
    pattern = names.links.get(parts[3], parts[3])
    return "/".join((*parts[:3], "*" if "?" in pattern or "*" in pattern else parts[3], parts[4]))


# Files and programs.


def _files(episodes: Sequence[Watched]) -> dict[str, Words]:
    readable: set[str] = set()
    state: set[str] = set()
    devices: set[str] = set()
    for one in episodes:
        made = {path for activity in one.activities for path in activity.made}
        for activity in one.activities:
            for opened in activity.opened:
                if is_in_view(opened.path, one.subject):
                    continue
                if opened.path.startswith("/dev/"):
                    devices.add(opened.path)
                elif opened.is_write:
                    state.add(_directory(opened.path, made))
                else:
                    readable.add(opened.path)
    state.discard("")  # what nothing can be done about: `cannot_keep`
    state = {path for path in state if not _is_below_any(path, state)}
    readable = {path for path in readable if not _is_below_any(path, {*state, *readable}) and path not in state}
    return {
        "readable": tuple(sorted(readable)),
        "writable": (),
        "state": tuple(sorted(state)),
        "devices": tuple(sorted(devices)),
    }


def is_in_view(path: str, subject: Subject) -> bool:
    """Say whether every plugin sees a path, whatever its profile says."""
    places = [*plan._SYSTEM, *_WORLD, *subject.cni_path.split(":"), subject.plugin.rpartition("/")[0]]
    return path in _FILES_OF_VIEW or any(path == place or path.startswith(f"{place}/") for place in places if place)


def cannot_keep(episodes: Sequence[Watched]) -> list[str]:
    """List files that are written where no profile lets a plugin write."""
    found = []
    for one in episodes:
        made = {path for activity in one.activities for path in activity.made}
        for activity in one.activities:
            for opened in activity.opened:
                is_state = opened.is_write and not is_in_view(opened.path, one.subject)
                if is_state and not opened.path.startswith("/dev/") and not _directory(opened.path, made):
                    found.append(f"writes {opened.path}: it needs a directory of its own")
    return list(dict.fromkeys(found))


def _directory(path: str, made: Collection[str]) -> str:
    """Say which directory has to be the plugin's for it to write a file: the outermost that it made, or the file's."""
    parts = path.split("/")
    outer = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
    for directory in outer:
        if directory in made:
            return directory
    parent = outer[-2] if len(outer) > 1 else "/"
    return "" if parent in _SHARED_DIRECTORIES or parent.startswith(("/sys", "/proc")) else parent


def _is_below_any(path: str, others: Iterable[str]) -> bool:
    return any(path != other and path.startswith(f"{other}/") for other in others)


def _programs(subject: Subject, activities: Sequence[Activity]) -> Words:
    directories = [*subject.cni_path.split(":"), subject.plugin.rpartition("/")[0]]
    found = set()
    for activity in activities:
        for path in activity.programs:
            directory, _, name = path.rpartition("/")
            found.add(f"cni:{name}" if directory in directories else path)
    return tuple(sorted(found))

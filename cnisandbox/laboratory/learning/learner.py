"""Learns a profile, in order: watch, draft, check, run confined, leave out, compare.

Privilege: root; see world.py.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cnisandbox.boundary import seccomp
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason
from cnisandbox.laboratory.learning import activity, compare, draft, episode, observed, toml, trace, trial
from cnisandbox.laboratory.learning.draft import Watched
from cnisandbox.laboratory.learning.episode import Episode, Subject
from cnisandbox.laboratory.learning.facts import Facts
from cnisandbox.laboratory.learning.trial import Expected, Part
from cnisandbox.laboratory.learning.world import HIDDEN_DIRECTORIES
from cnisandbox.profile import packaged
from cnisandbox.profile.schema import Profile, from_plain
from cnisandbox.profile.source import as_error, examine_profile

_IDS = ("learn1", "learn2")
_IFNAMES = ("eth0", "net1")
_MAX_ROUNDS = 3


class Request(NamedTuple):
    """What is to be learned.

    Attributes:
        plugin: Path of the plugin.
        netconfs: Files: a netconf, or a list of plugins of which it is one.
        cni_path: CNI_PATH; empty: the plugin's directory.
        setup: Shell commands that prepare the world.
        is_quick: Whether to leave out the trials of each part.
        is_minimal: Whether to leave out of the profile what is only read and not needed, not paths alone.
    """

    plugin: str
    netconfs: tuple[str, ...]
    cni_path: str = ""
    setup: tuple[str, ...] = ()
    is_quick: bool = False
    is_minimal: bool = False


class Lesson(NamedTuple):
    """What was learned.

    Attributes:
        profile: The profile.
        text: It, as TOML.
        differences: What is different from root with it; none: it works.
        refusals: What was refused with it.
        parts: What came of each part; none if that was not tried.
        written: The package's profile of the plugin's name; None if there is none.
        comparison: With that one; None if there is none.
        unspeakable: What was seen and no profile can permit.
        system_calls: Those that were used.
        refused_calls: Those of them that the runner's filter does not have.
        notes: What a person should know.
    """

    profile: Profile
    text: str
    differences: list[str]
    refusals: list[str]
    parts: list[Part]
    written: Profile | None
    comparison: compare.Comparison | None
    unspeakable: list[str]
    system_calls: list[str]
    refused_calls: list[str]
    notes: list[str]


def learn(request: Request, report: Callable[[str], None]) -> Lesson:
    """Learn the profile of a plugin.

    Args:
        request: Which, and with what.
        report: Is told what is done.

    Raises:
        CniError: It cannot be watched, or nothing that works was found.
    """
    plugin = _plugin(request.plugin)
    cni_path = request.cni_path or os.path.dirname(plugin)
    chains = [_chain(path, os.path.basename(plugin)) for path in request.netconfs]
    watched: list[Watched] = []
    expected: list[Expected] = []
    notes: list[str] = []
    for path, (before, netconf) in zip(request.netconfs, chains, strict=True):
        for number in range(len(_IDS)):
            report(f"watch {os.path.basename(plugin)} as root, {path}, attachment {number + 1} of {len(_IDS)}")
            subject = _subject(plugin, cni_path, before, netconf, request.setup, number)
            seen = episode.run(subject, is_watched=True)
            watched.append(_watched(seen))
            if number == 0:
                report(f"run {os.path.basename(plugin)} as root, {path}")
                expected.append(trial.expect(episode.run(subject), seen))
                notes += _failures(path, seen)
    names = draft.names_of(watched)
    profile, differences, refusals = _fitting(watched, names, expected, report)
    parts: list[Part] = []
    if not differences and not request.is_quick:
        profile, parts = trial.ablate(profile, expected, report, is_minimal=request.is_minimal)
        report("run it with what is left")
        differences, refusals = _all_differences(expected, profile)
    written = _written(os.path.basename(plugin))
    comparison = compare.compare(watched, names, profile, written) if written else None
    unspeakable = [text for one in watched for found in one.observations for text in found.unspeakable]
    unspeakable += draft.cannot_keep(watched)
    used = {name for one in watched for item in one.activities for name in item.system_calls}
    return Lesson(
        profile,
        toml.to_toml(profile, _head(request, parts)),
        differences,
        refusals,
        parts,
        written,
        comparison,
        list(dict.fromkeys(unspeakable)),
        sorted(used),
        sorted(used - _filtered_calls()),
        notes,
    )


def _filtered_calls() -> set[str]:
    """Name the system calls that the runner lets a plugin make, with some arguments at least."""
    lists = (
        *(seccomp._RUNTIME, seccomp._FILES_FOR_READING, seccomp._STATE_CALLS, seccomp._PROGRAM_CALLS),
        *(seccomp._FOREIGN_CALLS, seccomp._DESCRIPTOR_CALLS, seccomp._COPYING_CALLS, seccomp._MODE_CALLS),
        *(seccomp._PROGRAM_MODE_CALLS, seccomp._OPEN_CALLS),
    )
    # Those with conditions, those that the monitor answers, and those that are refused so that another one is made.
    others = {
        "clone",
        "clone3",
        "ioctl",
        "mmap",
        "mprotect",
        "prctl",
        "prlimit64",
        "setns",
        "setsockopt",
        "socket",
        "tgkill",
    }
    return others.union(*lists)


def _plugin(path: str) -> str:
    full = os.path.abspath(path)
    if not os.path.isfile(full) or not os.access(full, os.X_OK):
        raise InvalidConfig(f"learn {quoted(path)}: it is not a program", "name the file of a CNI plugin")
    hidden = [place for place in HIDDEN_DIRECTORIES if full.startswith(f"{place}/")]
    if hidden:
        raise InvalidConfig(
            f"learn {quoted(path)}: {hidden[0]} is empty where plugins are watched", "copy it to another directory"
        )
    return full


def _chain(path: str, name: str) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Read a netconf, or a list of plugins.

    Returns:
        The netconfs of the plugins that run before, and the plugin's own.
    """
    try:
        with open(path, "rb") as file:
            document = json.load(file)
    except OSError as error:
        raise IoFailure(f"read netconf {quoted(path)}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"read netconf {quoted(path)}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidConfig(f"read netconf {quoted(path)}: it is not an object")
    plugins = document.get("plugins", [document])
    if not isinstance(plugins, list) or not all(isinstance(plugin, dict) for plugin in plugins):
        raise InvalidConfig(f"read netconf {quoted(path)}: plugins: it is not a list of objects")
    common = {key: document[key] for key in ("cniVersion", "name") if key in document}
    netconfs = [plugin | common for plugin in plugins]
    if len(netconfs) == 1:
        return (), netconfs[0]
    places = [place for place, netconf in enumerate(netconfs) if netconf.get("type") == name]
    if not places:
        raise InvalidConfig(
            f"read netconf {quoted(path)}: plugins: none is of type {name}", "the list has to name the plugin"
        )
    return tuple(netconfs[: places[0]]), netconfs[places[0]]


def _subject(
    plugin: str,
    cni_path: str,
    before: tuple[dict[str, Any], ...],
    netconf: dict[str, Any],
    setup: tuple[str, ...],
    number: int,
) -> Subject:
    """Make up an attachment; the second one differs in everything that may differ, to show what is made of that."""
    is_named = json.dumps(_IFNAMES[0]) in json.dumps(netconf) or f".{_IFNAMES[0]}." in json.dumps(netconf)
    ifname = "lo" if netconf.get("type") == "loopback" else _IFNAMES[0 if is_named else number]
    if number and "name" in netconf:
        netconf = netconf | {"name": f"{netconf['name']}{number + 1}"}
        before = tuple(one | {"name": netconf["name"]} for one in before)
    return Subject(plugin, cni_path, netconf, before, setup, _IDS[number], ifname)


def _watched(seen: Episode) -> Watched:
    facts = Facts(seen)
    activities = [
        activity.read(call.verb, number, trace.parse(call.trace), seen.inodes, seen.netns_path)
        for number, call in enumerate(seen.calls)
    ]
    return Watched(seen.subject, activities, [observed.observe(one, facts) for one in activities])


def _failures(path: str, seen: Episode) -> list[str]:
    return [
        f"{path}: {call.verb} as root ended with status {call.status}: {' '.join(call.stdout.split())[:200]}"
        for call in seen.calls
        if call.status
    ]


def _fitting(
    watched: Sequence[Watched], names: draft.Names, expected: Sequence[Expected], report: Callable[[str], None]
) -> tuple[Profile, list[str], list[str]]:
    """Draft a profile, and again with more words where it does not work, until it does.

    Returns:
        The profile, what is different from root with it, and what was refused.
    """
    generous: set[tuple[str, str]] = set()
    for turn in range(1, _MAX_ROUNDS + 1):
        profile = draft.draft(watched, names, generous)
        _require_valid(profile)
        report(f"run it with the profile that was learned, round {turn}")
        differences, refusals = _all_differences(expected, profile, generous)
        if not differences:
            break
    return profile, differences, refusals


def _all_differences(
    expected: Iterable[Expected], profile: Profile, refused: set[tuple[str, str]] | None = None
) -> tuple[list[str], list[str]]:
    differences: list[str] = []
    texts: list[str] = []
    for one in expected:
        found, lines = trial.confined(one, profile)
        differences += found
        for line in lines:
            message = line.get("message")
            name = str(message.get("type")) if isinstance(message, dict) else ""
            texts.append(f"{name} in the {line.get('netns')}'s netns: {line.get('refused')}")
            if refused is not None:
                refused.add((str(line.get("netns")), name))
    return list(dict.fromkeys(differences)), list(dict.fromkeys(texts))


def _require_valid(profile: Profile) -> None:
    """Have the compiler of profiles check what was learned."""
    _, problems = examine_profile(toml.to_toml(profile), profile.name, "learned profile", "learned")
    if problems:
        raise as_error(problems)


def _written(name: str) -> Profile | None:
    """Load the package's profile of a plugin, whatever an administrator has put in its place."""
    return from_plain(packaged.PROFILES[name]) if name in packaged.PROFILES else None


def _head(request: Request, parts: Sequence[Part]) -> list[str]:
    """Say at the head of the file where it is from, and what is not in it."""
    lines = [
        f"Learned by `cnisandbox learn {request.plugin}` from {', '.join(map(os.path.basename, request.netconfs))}:"
    ]
    lines.append("what these netconfs do not ask for is not permitted.")
    left_out = [part.text for part in parts if not part.is_kept]
    if left_out:
        lines.append("Seen, but nothing is different without it:")
        lines += [f"  {text}" for text in left_out]
    return lines

"""Which part of a profile is needed: the plugin runs again without it, and what it leaves behind is compared.

What two runs as root leave behind differently is not looked at. A part that only reads and whose loss shows nowhere is
left out of the profile; one that changes something stays in, because not every change can be seen from here.

Privilege: root, in worlds.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from cnisandbox.laboratory.learning import episode, state, toml
from cnisandbox.laboratory.learning.episode import Call, Episode, Subject
from cnisandbox.laboratory.learning.facts import Facts
from cnisandbox.profile.schema import Profile

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
# Part of the name of a temporary file.
_LONG_NUMBER = re.compile(r"\d{6,}")
# Fields of a profile whose entries are tried one by one, in this order; what the others have no eye can see.
_TRIED = ("readable", "permits", "sysctls", "programs", "state", "devices")
_READING = re.compile(r"\w+_GET\w*|NFNL_MSG_BATCH_\w+")


class Expected(NamedTuple):
    """How the plugin is as root.

    Attributes:
        subject: Who, with what.
        calls: What came of each call, normalised.
        unsteady: Keys of the state, and calls' standard errors, that are not the same in two runs as root.
    """

    subject: Subject
    calls: list[Call]
    unsteady: frozenset[str]


class Part(NamedTuple):
    """One entry of a profile.

    Attributes:
        field: The field of Profile.
        place: Which entry of it.
        text: What it is, for people.
        is_needed: Whether something is different without it.
        is_kept: Whether it stays in the profile.
        says: The first thing that is different without it.
    """

    field: str
    place: int
    text: str
    is_needed: bool
    is_kept: bool
    says: str


def expect(first: Episode, second: Episode) -> Expected:
    """Say how a plugin is as root, from two runs with the same netconf and attachment."""
    one, other = normalised(first), normalised(second)
    unsteady = {
        key
        for here, there in zip(one, other, strict=True)
        for key in here.state.keys() | there.state.keys()
        if here.state.get(key) != there.state.get(key)
    }
    pairs = enumerate(zip(one, other, strict=True))
    unsteady |= {_standard_error(number) for number, (here, there) in pairs if here.stderr != there.stderr}
    return Expected(first.subject, one, frozenset(unsteady))


def _standard_error(number: int) -> str:
    """Name what a call writes there among the keys of the state."""
    return f"standard error of call {number}"


def normalised(found: Episode) -> list[Call]:
    """Take what is made up in each run out of what came of the calls."""
    names = Facts(found).made_up_names()
    macs = _MAC.findall(json.dumps(found.subject.netconf))

    def clean(text: str) -> str:
        return state.normalised(text, names, macs)

    return [
        call._replace(
            stdout=clean(call.stdout),
            stderr=_LONG_NUMBER.sub("NUMBER", clean(call.stderr)),
            state={clean(key): clean(value) for key, value in call.state.items()},
            trace={},
        )
        for call in found.calls
    ]


def differences(expected: Expected, found: Episode, state_dirs: Sequence[str]) -> Iterator[str]:
    """Say what came out otherwise than as root, call by call.

    Args:
        expected: How it is as root.
        found: Another run.
        state_dirs: Directories that are made before the plugin runs, whether it then needs them or not.
    """
    calls = normalised(found)
    made = {f"directory {path[:end]}" for path in state_dirs for end in _ends_of_components(path)}
    for number, (wanted, call) in enumerate(zip(expected.calls, calls, strict=False)):
        if wanted.status != call.status:
            said = " ".join((call.stdout + call.stderr).split())[:_SHOWN_CHARACTERS]
            yield f"{call.verb}: status {call.status}, not {wanted.status}: {said}"
        elif wanted.stdout != call.stdout:
            yield f"{call.verb}: another result"
        elif wanted.stderr != call.stderr and _standard_error(number) not in expected.unsteady:
            yield f"{call.verb}: on standard error {call.stderr.strip()[:200]!r}, not {wanted.stderr.strip()[:200]!r}"
        for key in sorted((wanted.state.keys() | call.state.keys()) - expected.unsteady - made):
            if wanted.state.get(key) != call.state.get(key):
                yield f"{call.verb}: {key}: {_said(call, key)}, not {_said(wanted, key)}"


def _ends_of_components(path: str) -> list[int]:
    return [end for end in range(1, len(path) + 1) if path[end : end + 1] in ("/", "")]


def _said(call: Call, key: str) -> str:
    return repr(call.state[key].strip()[:120]) if key in call.state else "missing"


def confined(expected: Expected, profile: Profile) -> tuple[list[str], list[dict[str, object]]]:
    """Run the plugin with a profile.

    Returns:
        What is different from root, and what the audit log has about refusals.
    """
    statuses = [call.status for call in expected.calls]
    found = episode.run(expected.subject, profile=toml.to_toml(profile), statuses=statuses)
    return list(differences(expected, found, profile.state)), [line for call in found.calls for line in call.refused]


def parts_of(profile: Profile) -> Iterator[tuple[str, int, str]]:
    """List the entries of a profile that can be tried: field, index, and what it is."""
    for field in _TRIED:
        for index, entry in enumerate(getattr(profile, field)):
            yield field, index, f"{_TITLES[field]} {entry}" if isinstance(entry, str) else _described(entry)


_SHOWN_ATTRIBUTES = 3
_SHOWN_CHARACTERS = 200
_TITLES = {"readable": "readable", "programs": "program", "state": "state directory", "devices": "device"}


def _described(entry: tuple[object, ...]) -> str:
    members = entry._asdict()  # type: ignore[attr-defined]
    where = " and ".join(members["netns"])
    if "key" in members:
        return f"setting {members['key']} ({members['access']}) in {where}"
    lists = [
        members[name] for name in ("links", "kinds", "tables", "chains", "jumps", "hooks", "verdicts") if members[name]
    ]
    about = "; ".join(", ".join(one) for one in lists)
    attributes = members["attributes"][:_SHOWN_ATTRIBUTES] if members["messages"][0].startswith("RTM_") else ()
    dots = ", ..." if len(members["attributes"]) > _SHOWN_ATTRIBUTES else ""
    what = f" ({', '.join(attributes)}{dots})" if attributes else ""
    return f"{', '.join(members['messages'])}{what}{f' of {about}' if about else ''} in {where}"


def only_reads(profile: Profile, field: str, index: int) -> bool:
    """Say whether an entry lets the plugin change nothing."""
    if field == "permits":
        return all(_READING.fullmatch(message) for message in profile.permits[index].messages)
    return field == "readable" or (field == "sysctls" and profile.sysctls[index].access == "read")


def ablate(
    profile: Profile, expected: Sequence[Expected], report: Callable[[str], None], *, is_minimal: bool
) -> tuple[Profile, list[Part]]:
    """Try a profile without each of its parts, and leave out what only reads and is not needed.

    A message that is refused stands in the audit log, where it would be taken for an attack; so messages and settings
    that are only read are left out on request alone.

    Args:
        profile: It works.
        expected: How the plugin is as root, with each netconf.
        report: Is told what is done.
        is_minimal: Whether to leave out messages and settings as well, not paths alone.

    Returns:
        The smaller profile, which works too, and what came of each part.
    """
    found: list[Part] = []
    gone: dict[str, set[int]] = {}
    order = list(expected)
    parts = list(parts_of(profile))
    for number, (field, index, text) in enumerate(parts, 1):
        report(f"without part {number} of {len(parts)}: {text}")
        smaller = _without(profile, {**gone, field: gone.get(field, set()) | _alike(profile, field, index)})
        says = ""
        for one in list(order):
            says = next(iter(confined(one, smaller)[0]), "")
            if says:
                # What is needed with this netconf is likely to be so with the next part as well.
                order.remove(one)
                order.insert(0, one)
                break
        is_kept = bool(says) or not only_reads(profile, field, index) or (field != "readable" and not is_minimal)
        if not is_kept:
            gone.setdefault(field, set()).add(index)
        found.append(Part(field, index, text, bool(says), is_kept, says))
    return _without(profile, gone), found


def _alike(profile: Profile, field: str, index: int) -> set[int]:
    """List a part with the others that give the same: names of one file are executed as one (Landlock)."""
    if field != "programs":
        return {index}
    real = [os.path.realpath(program) for program in profile.programs]
    return {other for other, path in enumerate(real) if path == real[index]}


def _without(profile: Profile, gone: dict[str, set[int]]) -> Profile:
    changes: dict[str, Any] = {
        field: tuple(entry for index, entry in enumerate(getattr(profile, field)) if index not in indexes)
        for field, indexes in gone.items()
    }
    smaller = profile._replace(**changes)
    used = " ".join([*(word for item in smaller.permits for word in (*item.links, *item.related))])
    used += " ".join(item.key for item in smaller.sysctls)
    return smaller._replace(variables=tuple(one for one in profile.variables if f"netconf:{one.key}" in used))

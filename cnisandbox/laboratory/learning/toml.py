"""Writes a profile as TOML, in the order and the vocabulary of docs/profiles.md.

Privilege: none.

Source: TOML 1.0.0, where a basic string is written as one of JSON.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from cnisandbox.profile.schema import DEFAULT_TIME_LIMIT_S, Profile

_WIDTH = 120
_LISTS = ("readable", "writable", "state", "programs", "raw_sockets", "devices", "unix_sockets")
_PERMIT_LISTS = (
    "netns",
    "messages",
    "links",
    "kinds",
    "related",
    "attributes",
    "tables",
    "chains",
    "jumps",
    "hooks",
    "verdicts",
)


def to_toml(profile: Profile, comments: Iterable[str] = ()) -> str:
    """Write a profile; includes are written out.

    Args:
        profile: The profile.
        comments: Lines for the head of the file, without the "#".

    Returns:
        A text that `cnisandbox.profile.source.read_profile` reads as the same profile, but for the names of permits.
    """
    return "\n".join(_lines(profile, comments)) + "\n"


def _lines(profile: Profile, comments: Iterable[str]) -> Iterator[str]:
    for comment in comments:
        yield f"# {' '.join(comment.split())}".rstrip()
    yield f"summary = {_text(profile.summary)}"
    yield f"level = {_text(profile.level.value)}"
    if profile.time_limit_s != DEFAULT_TIME_LIMIT_S:
        yield f"time_limit_s = {profile.time_limit_s:g}"
    lists = [(name, getattr(profile, name)) for name in _LISTS if getattr(profile, name)]
    if lists:
        yield ""
        yield from (_list(name, values) for name, values in lists)
    if profile.variables:
        yield ""
        yield "[netconf]"
        yield from (f"{variable.key} = {_text(variable.default)}" for variable in profile.variables)
    for permit in profile.permits:
        yield from ("", "[[permit]]", f"reason = {_text(permit.reason)}")
        yield from (_list(name, getattr(permit, name)) for name in _PERMIT_LISTS if getattr(permit, name))
    for setting in profile.sysctls:
        yield from ("", "[[sysctl]]", f"reason = {_text(setting.reason)}", _list("netns", setting.netns))
        yield from (f"key = {_text(setting.key)}", f"access = {_text(setting.access)}")
    for capability in profile.capabilities:
        yield from ("", "[[capability]]", f"name = {_text(capability.name)}", f"reason = {_text(capability.reason)}")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(name: str, values: Sequence[str]) -> str:
    line = f"{name} = [{', '.join(map(_text, values))}]"
    if len(line) <= _WIDTH:
        return line
    return "\n".join((f"{name} = [", *(f"    {_text(value)}," for value in values), "]"))

"""How a learned profile differs from one that was written by hand, and why.

What was seen is held against the written profile, not one text against the other: that would take two words for the
same link, or two ways to join permits, for a difference.

Privilege: none.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from cnisandbox.laboratory.learning.draft import Names, Watched, attribute_word
from cnisandbox.laboratory.learning.observed import Observed, ObservedSetting, Words
from cnisandbox.policy.patterns import is_path_in, matches, matches_any
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile.schema import Profile

_PATH_FIELDS = ("readable", "writable", "state", "programs", "raw_sockets", "devices", "unix_sockets")


class Difference(NamedTuple):
    """Something that one of two profiles has.

    Attributes:
        what: What it is.
        why: Why the other one does not have it.
    """

    what: str
    why: str


class Comparison(NamedTuple):
    """Both directions.

    Attributes:
        learned_only: What was seen and the written profile does not permit.
        written_only: What the written profile permits and was not seen.
    """

    learned_only: list[Difference]
    written_only: list[Difference]


def compare(episodes: Sequence[Watched], names: Names, learned: Profile, written: Profile) -> Comparison:
    """Compare a learned profile with a written one.

    Args:
        episodes: What was seen.
        names: Patterns for names.
        learned: The profile that was learned, without what is not needed.
        written: The profile that was written.
    """
    messages = list(dict.fromkeys(one for item in episodes for found in item.observations for one in found.messages))
    settings = list(dict.fromkeys(one for item in episodes for found in item.observations for one in found.settings))
    only_learned = [*_uncovered(messages, settings, names, written), *_paths_only_learned(learned, written)]
    only_written = [*_unused(messages, settings, names, written), *_paths_only_written(learned, written)]
    return Comparison(list(dict.fromkeys(only_learned)), list(dict.fromkeys(only_written)))


def _uncovered(
    messages: Sequence[Observed], settings: Sequence[ObservedSetting], names: Names, written: Profile
) -> Iterator[Difference]:
    for message in messages:
        reasons = [_complaint(message, permit, names, written) for permit in written.permits]
        if "" not in reasons:
            near = [text for text in reasons if text and text != _OTHER]
            why = near[-1] if near else "no permit for it"
            about = ", ".join(one[0] for one in message.links) or message.chain or message.table
            yield Difference(f"{message.message}{f' of {about}' if about else ''} in the {message.netns}'s netns", why)
    for setting in settings:
        if not any(_covers_setting(permit, setting, written) for permit in written.sysctls):
            access = "write" if setting.is_write else "read"
            yield Difference(
                f"setting {setting.keys[0]} ({access}) in the {setting.netns}'s netns", "no [[sysctl]] for it"
            )


_OTHER = "another message"


def _complaint(message: Observed, permit: Permit, names: Names, written: Profile) -> str:
    """Say why a permit of the written profile does not cover a message; "" if it does."""
    if message.netns not in permit.netns or message.message not in permit.messages:
        return _OTHER
    surplus = [path for path in message.attributes if not is_path_in(path, permit.attributes)]
    if surplus:
        return f"{permit.name} does not have attribute {surplus[0].rstrip('.')}"
    is_dump = not message.links and message.message.startswith("RTM_GETLINK") and permit.links
    if is_dump and "any" not in permit.links:
        return f"{permit.name} is about links that are named"
    for means, permitted in (
        *((one, permit.links) for one in message.links),
        *((one, (*permit.related, *permit.links, "attachment")) for one in message.related),
    ):
        if not _is_meant(means, permitted, written):
            return f"{permit.name} does not mean link {means[0]}"
    if message.kind and message.message == "RTM_NEWLINK" and message.kind not in permit.kinds:
        return f"{permit.name} does not have kind {message.kind}"
    return _complaint_about_nftables(message, permit, names)


def _complaint_about_nftables(message: Observed, permit: Permit, names: Names) -> str:
    if message.table and not matches_any(message.table, permit.tables):
        return f"{permit.name} does not have table {message.table}"
    if message.chain and not matches_any(message.chain, permit.chains):
        may_jump = (
            message.jumps and not message.does_more and all(matches_any(one, permit.jumps) for one in message.jumps)
        )
        is_deletion = message.message == "NFT_MSG_DELRULE" and not message.does_more and permit.jumps
        if not may_jump and not is_deletion:
            return f"{permit.name} does not have chain {names.chains.get(message.chain, message.chain)}"
    for kind, word, given in (
        ("hook", message.hook, permit.hooks),
        *(("verdict", one, permit.verdicts) for one in message.verdicts),
    ):
        if word and word not in given:
            return f"{permit.name} does not have {kind} {word}"
    return ""


def _is_meant(means: Words, permitted: Iterable[str], written: Profile) -> bool:
    """Say whether one of the words that mean a link is among those of a permit."""
    defaults = {variable.key: variable.default for variable in written.variables}
    for word in permitted:
        if word == "any" or word in means:
            return True
        kind, _, pattern = word.partition(":")
        if kind == "name" and any(matches(one[5:], pattern) for one in means if one.startswith("name:")):
            return True
        if kind == "netconf" and defaults.get(pattern) and f"name:{defaults[pattern]}" in means:
            return True
    return False


def _covers_setting(permit: SysctlPermit, setting: ObservedSetting, written: Profile) -> bool:
    defaults = {f"{{netconf:{variable.key}}}": variable.default for variable in written.variables}
    if setting.netns not in permit.netns or (setting.is_write and permit.access != "write"):
        return False
    patterns = permit.key.split("/")
    for key in setting.keys:
        parts = key.split("/")
        if len(parts) == len(patterns) and all(
            part in (pattern, defaults.get(pattern)) or (not pattern.startswith("{") and matches(part, pattern))
            for part, pattern in zip(parts, patterns, strict=True)
        ):
            return True
    return False


def _unused(
    messages: Sequence[Observed], settings: Sequence[ObservedSetting], names: Names, written: Profile
) -> Iterator[Difference]:
    for permit in written.permits:
        covered = [message for message in messages if not _complaint(message, permit, names, written)]
        title = f"{permit.name}: {', '.join(permit.messages)} in {' and '.join(permit.netns)}"
        if not covered:
            yield Difference(title, f"none of these netconfs has it do that: {permit.reason}")
            continue
        surplus = dict(_surplus(permit, covered))
        if surplus:
            text = "; ".join(f"{key} {', '.join(values)}" for key, values in surplus.items())
            yield Difference(f"{permit.name}: {text}", f"seen without: {permit.reason}")
    for item in written.sysctls:
        covering = [setting for setting in settings if _covers_setting(item, setting, written)]
        if not covering:
            yield Difference(
                f"{item.name}: setting {item.key} ({item.access})",
                f"none of these netconfs has it do that: {item.reason}",
            )
        elif "*" in item.key:
            keys = ", ".join(dict.fromkeys(setting.keys[0] for setting in covering))
            yield Difference(f"{item.name}: setting {item.key} ({item.access})", f"seen of it: {keys}")


def _surplus(permit: Permit, covered: Sequence[Observed]) -> Iterator[tuple[str, list[str]]]:
    """List the words of a permit that no message needed."""
    paths = [path for message in covered for path in message.attributes]
    words = {attribute_word(path, message.message) for message in covered for path in message.attributes}
    tests: dict[str, Callable[[str], bool]] = {
        "netns": lambda word: any(message.netns == word for message in covered),
        "messages": lambda word: any(message.message == word for message in covered),
        "kinds": lambda word: any(message.kind == word for message in covered),
        "attributes": lambda word: word in words or any(is_path_in(path, (word,)) for path in paths),
        "tables": lambda word: any(matches(message.table, word) for message in covered),
        "chains": lambda word: any(matches(message.chain, word) for message in covered),
        "hooks": lambda word: any(message.hook == word for message in covered),
        "verdicts": lambda word: any(word in message.verdicts for message in covered),
        "jumps": lambda word: any(matches(jump, word) for message in covered for jump in message.jumps),
    }
    for field, is_used in tests.items():
        unused = [word for word in getattr(permit, field) if not is_used(word)]
        if unused:
            yield field, unused


def _paths_only_learned(learned: Profile, written: Profile) -> Iterator[Difference]:
    for field in _PATH_FIELDS:
        for path in getattr(learned, field):
            if not _is_given(field, path, written):
                yield Difference(f"{field} {path}", "it is not in the written profile")
    for capability in learned.capabilities:
        if capability.name not in [one.name for one in written.capabilities]:
            yield Difference(f"capability {capability.name}", capability.reason)


def _paths_only_written(learned: Profile, written: Profile) -> Iterator[Difference]:
    for field in _PATH_FIELDS:
        paths = [
            path
            for path in getattr(written, field)
            if not any(_is_alike(field, one, path) for one in getattr(learned, field))
        ]
        if paths:
            why = "not there, not used with these netconfs, or nothing is different without it"
            yield Difference(f"{field} {', '.join(paths)}", why)
    for capability in written.capabilities:
        if capability.name not in [one.name for one in learned.capabilities]:
            yield Difference(
                f"capability {capability.name}", f"nothing was seen that shows the need: {capability.reason}"
            )


def _is_given(field: str, path: str, written: Profile) -> bool:
    fields = {"readable": ("readable", "state", "writable"), "state": ("state", "writable")}.get(field, (field,))
    return any(_is_alike(field, path, other) for name in fields for other in getattr(written, name))


def _is_alike(field: str, path: str, other: str) -> bool:
    """Say whether a path of a written profile gives another one."""
    if field == "programs":
        return matches(path, other)
    return path == other or path.startswith(f"{other}/")

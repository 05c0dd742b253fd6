"""Show the profiles by which plugins are confined, and check those that somebody wrote.

A profile is what a plugin may have and do: netlink messages, settings, paths, programs. Files of
/etc/cnisandbox/profiles.d replace the package's profiles. docs/profiles.md says how one is written.
"""

import argparse
import os
import textwrap
from collections.abc import Iterable, Sequence
from shutil import get_terminal_size

from cnisandbox.cli import output
from cnisandbox.errors import CniError, ProfileError
from cnisandbox.hints import NamedTuple
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile import load, source
from cnisandbox.profile.schema import DEFAULT_ROUTE, Profile
from cnisandbox.profile.source import Problem

_MIN_WIDTH = 60
_PERMIT_LISTS = ("links", "kinds", "related", "attributes", "tables", "chains", "jumps", "hooks", "verdicts")
_PATH_LISTS = {
    "readable": "may read",
    "writable": "may write to",
    "state": "keeps state in",
    "programs": "may execute",
    "raw_sockets": "raw sockets",
    "devices": "devices",
    "unix_sockets": "talks to",
}


class _Checked(NamedTuple):
    """What a check found: the file, and what is wrong with it."""

    name: str
    path: str
    problems: list[Problem]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=type(parser))
    for name, run_verb, summary in (
        ("list", _list, "list the profiles"),
        ("show", _show, "show what a plugin may have and do"),
        ("check", _check, "say everything that is wrong with profiles, file by file and line by line"),
    ):
        verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        verb.add_argument("--json", action="store_true", help="print for programs")
        verb.set_defaults(run_verb=run_verb)
        if name == "show":
            verb.add_argument("profile", metavar="NAME|FILE", help="a name, or a file if there is a slash in it")
        if name == "check":
            verb.add_argument("profiles", nargs="*", metavar="NAME|FILE", help="all that there are by default")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    status: int = arguments.run_verb(arguments)
    return status


def _list(arguments: argparse.Namespace) -> int:
    rows = [(name, *_loaded(name.name)) for name in load.profile_names()]
    if arguments.json:
        output.print_json([_list_members(name, profile, error) for name, profile, error in rows])
    else:
        lines = [
            (name.name, profile.level.value if profile else "-", name.path or "package", _summary(name, profile, error))
            for name, profile, error in rows
        ]
        styles = ["" if profile else "red" for _, profile, _ in rows]
        print(output.table(("profile", "level", "source", "summary"), lines, styles))
    return 1 if any(error for _, _, error in rows) else 0


def _loaded(name: str) -> tuple[Profile | None, CniError | None]:
    try:
        return load.load_profile(name), None
    except ProfileError as error:
        return None, error


def _summary(name: load.ProfileName, profile: Profile | None, error: CniError | None) -> str:
    if profile is None:
        return f"cannot be used: {error}"
    return profile.summary + (" (replaces the package's)" if name.is_replaced else "")


def _list_members(name: load.ProfileName, profile: Profile | None, error: CniError | None) -> dict[str, object]:
    members: dict[str, object] = {"name": name.name, "source": name.path or "package", "replaces": name.is_replaced}
    if profile is not None:
        members |= {"level": profile.level.value, "summary": profile.summary}
    return members | ({"error": output.error_members(error)} if error else {})


def _show(arguments: argparse.Namespace) -> int:
    profile = load.load_profile(arguments.profile)
    if arguments.json:
        output.print_json(_members(profile))
    else:
        print("\n".join(_description(profile)))
    return 0


def _members(profile: Profile) -> dict[str, object]:
    """The profile as JSON: the fields of the records, permits with those that say something."""
    members: dict[str, object] = profile._asdict() | {"level": profile.level.value}
    for key in ("variables", "permits", "sysctls", "capabilities"):
        members[key] = [
            {field: value for field, value in record._asdict().items() if value != ()}
            for record in getattr(profile, key)
        ]
    return members


def _description(profile: Profile) -> Iterable[str]:
    yield f"{output.paint(profile.name, 'bold')}  {output.printable(profile.summary)}"
    yield from _pairs([("source", profile.source), ("level", profile.level.value)])
    yield from _pairs([("time limit", f"{profile.time_limit_s:g} s")])
    for title, lines in (
        ("names of links, from the netconf", _variable_lines(profile)),
        ("what it sees and uses", _path_lines(profile)),
        ("netlink messages", [line for permit in profile.permits for line in _permit_lines(permit)]),
        ("settings", [line for permit in profile.sysctls for line in _sysctl_lines(permit)]),
    ):
        if lines:
            yield ""
            yield output.paint(title, "bold")
            yield from lines


def _variable_lines(profile: Profile) -> list[str]:
    defaults = {"": "no link", DEFAULT_ROUTE: "the link of the default route"}
    return list(_pairs([(item.key, f"else {defaults.get(item.default, item.default)}") for item in profile.variables]))


def _path_lines(profile: Profile) -> list[str]:
    pairs = [(title, ", ".join(getattr(profile, key))) for key, title in _PATH_LISTS.items() if getattr(profile, key)]
    pairs += [("keeps " + item.name, item.reason) for item in profile.capabilities]
    return list(_pairs(pairs))


def _permit_lines(permit: Permit) -> list[str]:
    lists = [(key, ", ".join(getattr(permit, key))) for key in _PERMIT_LISTS if getattr(permit, key)]
    return [
        f"  {permit.name}  {output.printable(permit.reason)}",
        *_pairs([("in", " and ".join(permit.netns)), ("messages", ", ".join(permit.messages)), *lists], indent=6),
    ]


def _sysctl_lines(permit: SysctlPermit) -> list[str]:
    return [
        f"  {permit.name}  {output.printable(permit.reason)}",
        *_pairs([("in", " and ".join(permit.netns)), (permit.access, permit.key)], indent=6),
    ]


def _pairs(pairs: Sequence[tuple[str, str]], indent: int = 2) -> Iterable[str]:
    """Lay out titles and texts, the texts wrapped where they begin."""
    columns = max(_MIN_WIDTH, get_terminal_size().columns)
    width = max((len(title) for title, _ in pairs), default=0)
    for title, text in pairs:
        head = f"{' ' * indent}{title.ljust(width)}  "
        yield textwrap.fill(
            output.printable(text),
            columns,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _check(arguments: argparse.Namespace) -> int:
    checked = [_examined(word) for word in arguments.profiles or [name.name for name in load.profile_names()]]
    bad = [item for item in checked if item.problems]
    if arguments.json:
        output.print_json([_check_members(item) for item in checked])
        return 1 if bad else 0
    for item in bad:
        for problem in item.problems:
            print(output.printable(str(problem)))
    good = len(checked) - len(bad)
    if bad:
        print(f"{output.paint(f'{len(bad)} cannot be used', 'red')}, {good} can")
    else:
        print(f"{output.paint('nothing is wrong', 'green')} with {', '.join(item.name for item in checked)}")
    return 1 if bad else 0


def _examined(word: str) -> _Checked:
    """Examine the text of a profile, the package's too: it is read from its file, not taken compiled."""
    path = word if "/" in word else _path_of(word)
    name = os.path.basename(path).removesuffix(load.SUFFIX)
    try:
        text = source.read_text(path) if path.startswith(source.PROFILES) else load.read_roots_file(path)
    except ProfileError as error:
        return _Checked(name, path, [Problem(path, 0, "", error.msg)])
    _, problems = source.examine_profile(text, name, path, path)
    return _Checked(name, path, problems)


def _path_of(word: str) -> str:
    for name in load.profile_names():
        if name.name == word:
            return name.path or os.path.join(source.PROFILES, word + load.SUFFIX)
    load.load_profile(word)  # says that there is none
    raise ProfileError(f"check profile {word}: it has gone meanwhile")


def _check_members(item: _Checked) -> dict[str, object]:
    problems = [problem._asdict() for problem in item.problems]
    return {"name": item.name, "path": item.path, "problems": problems}

"""Learn the profile of a plugin: watch what it does as root, write that down, and leave out what is not needed.

ADD, CHECK, DEL and DEL again run in namespaces and on a file system that are thrown away, each netconf with two
attachments. What was seen becomes a profile, the plugin runs confined by it, and without each of its parts: what it
leaves behind has to be what it leaves behind as root. docs/profiles.md says more.

A file has a netconf, or a list of plugins ("plugins": [...]); those before PLUGIN in the list run first, as root.

Without --out the profile goes to standard output, and what there is to say about it to standard error.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from cnisandbox.cli import output
from cnisandbox.errors import IoFailure, PrivilegeNotDropped, quoted, reason
from cnisandbox.laboratory.learning import learner
from cnisandbox.laboratory.learning.compare import Comparison, Difference
from cnisandbox.laboratory.learning.learner import Lesson, Request
from cnisandbox.laboratory.learning.trial import Part


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("plugin", metavar="PLUGIN", help="the plugin's file")
    parser.add_argument(
        "--netconf",
        required=True,
        nargs="+",
        action="extend",
        metavar="FILE",
        help="what it gets; several together show more of what it does",
    )
    parser.add_argument("--out", metavar="FILE", help="where the profile is written to")
    parser.add_argument("--json", action="store_true", help="print everything for programs, the profile included")
    parser.add_argument("--cni-path", default="", metavar="DIRS", help="CNI_PATH; by default the plugin's directory")
    parser.add_argument(
        "--setup",
        action="append",
        default=[],
        metavar="COMMAND",
        help="a shell command that prepares the throw-away host, such as 'ip link add up0 type dummy'",
    )
    parser.add_argument(
        "--minimal",
        action="store_true",
        help="leave out messages and settings that are only read and not needed: the log will have them as refused",
    )
    parser.add_argument("--quick", action="store_true", help="do not try which parts are needed")


def run(arguments: argparse.Namespace) -> int:
    """Learn, and say what was learned."""
    if os.geteuid() != 0:
        raise PrivilegeNotDropped("learn profile: only root can watch a plugin", "run it with sudo")
    request = Request(
        arguments.plugin,
        tuple(arguments.netconf),
        arguments.cni_path,
        tuple(arguments.setup),
        is_quick=arguments.quick,
        is_minimal=arguments.minimal,
    )
    progress = output.Progress()
    try:
        lesson = learner.learn(request, progress.show)
    finally:
        progress.clear()
    if arguments.out:
        _write(arguments.out, lesson.text)
    if arguments.json:
        output.print_json(_members(lesson))
    else:
        stream = sys.stdout if arguments.out else sys.stderr
        for line in _description(lesson, arguments.out or "", stream):
            print(output.printable(line) if "\033" not in line else line, file=stream)
        if not arguments.out:
            print(lesson.text, end="")
    return 1 if lesson.differences else 0


def _write(path: str, text: str) -> None:
    try:
        # Not more than its owner may write to it: another profile would be refused (profile/load.py).
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise IoFailure(f"write profile {quoted(path)}: {reason(error)}") from error


def _members(lesson: Lesson) -> dict[str, object]:
    members: dict[str, object] = {
        "plugin": lesson.profile.name,
        "level": lesson.profile.level.value,
        "works": not lesson.differences,
        "profile": lesson.text,
        "differences": lesson.differences,
        "refusals": lesson.refusals,
        "parts": [part._asdict() for part in lesson.parts],
        "unspeakable": lesson.unspeakable,
        "system_calls": lesson.system_calls,
        "refused_calls": lesson.refused_calls,
        "notes": lesson.notes,
    }
    if lesson.comparison is not None:
        members["learned_only"] = [item._asdict() for item in lesson.comparison.learned_only]
        members["written_only"] = [item._asdict() for item in lesson.comparison.written_only]
    return members


def _description(lesson: Lesson, path: str, stream: TextIO) -> Iterator[str]:
    profile = lesson.profile
    yield f"{output.paint(profile.name, 'bold', stream)}: level {profile.level.value}{f', in {path}' if path else ''}"
    yield (
        f"  {len(profile.permits)} permits, {len(profile.sysctls)} settings, {len(profile.programs)} programs, "
        f"{len(profile.state) + len(profile.readable)} paths; {len(lesson.system_calls)} different system calls seen"
    )
    if lesson.differences:
        yield output.paint("confined by it, it does not do what it does as root:", "red", stream)
        yield from _listed(lesson.differences)
        yield from _listed([f"refused: {text}" for text in lesson.refusals])
    else:
        yield output.paint("confined by it, it does what it does as root: ADD, CHECK, DEL, DEL", "green", stream)
    for title, lines in (
        ("as root:", lesson.notes),
        ("seen, and no profile can permit it:", lesson.unspeakable),
        ("system calls that the filter refuses:", [", ".join(lesson.refused_calls)] if lesson.refused_calls else []),
        ("refused, and nothing is different for it:", [] if lesson.differences else lesson.refusals),
    ):
        if lines:
            yield title
            yield from _listed(lines)
    if lesson.parts:
        yield from _parts(lesson.parts)
    if lesson.comparison is not None:
        yield from _comparison(lesson.comparison)


def _parts(parts: Sequence[Part]) -> Iterator[str]:
    for title, chosen in (
        ("needed:", [f"{part.text}\n      {part.says}" for part in parts if part.is_needed]),
        (
            "nothing is different without it, and it stays in: what it does may not be seen from here:",
            [part.text for part in parts if part.is_kept and not part.is_needed],
        ),
        ("nothing is different without it, and it is left out:", [part.text for part in parts if not part.is_kept]),
    ):
        if chosen:
            yield title
            yield from _listed(chosen)


def _comparison(comparison: Comparison) -> Iterator[str]:
    if not comparison.learned_only and not comparison.written_only:
        yield "the same as the package's profile"
    for title, differences in (
        ("seen, and not permitted by the package's profile:", comparison.learned_only),
        ("permitted by the package's profile, and not learned:", comparison.written_only),
    ):
        if differences:
            yield title
            yield from _listed(map(_line, differences))


def _line(difference: Difference) -> str:
    return f"{difference.what}\n      {difference.why}"


def _listed(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from f"  - {text}".splitlines()

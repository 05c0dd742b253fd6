"""Measure what the calls of a plugin expose: capabilities held, used and needed, for how long, and what is read then.

The plugin is called as a runtime calls it, ADD, CHECK and DEL, in namespaces that are thrown away afterwards; as it is,
with the kernel's tracepoints on, followed system call by system call, and again without each capability that it used.
A plugin that is measured as root can do what root can, so measure no plugin that you would not run.

  cnisandbox audit plugin /usr/lib/cni/bridge --netconf net.conf
  cnisandbox audit plugin /usr/lib/cni/bridge --netconf net.conf --column runner
  cnisandbox audit plugin bridge --netconf net.conf --column hardened --json

PLUGIN is a path; or the name of one of our plugins, for a column that is one of our levels; or of an installed one.
FILE is what the plugin is given; or a list of plugins that has it: then those before it are called as well, unmeasured.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cnisandbox.cli import output
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason
from cnisandbox.laboratory.exposure.measure import COLUMNS, DEFAULT_ROUNDS, VERBS, measure

_MAX_BYTES = 1 << 20
_BAR_WIDTH = 24
_SHOWN_FILES = 6
_SAYS_WIDTH = 60


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("plugin", metavar="PLUGIN", help="path or name of the plugin")
    parser.add_argument("--netconf", metavar="FILE", required=True, help="network configuration, or a list of plugins")
    parser.add_argument(
        "--verb",
        metavar="VERB",
        action="append",
        choices=VERBS,
        help="ADD, CHECK or DEL; may be repeated; default: all",
    )
    parser.add_argument(
        "--column", choices=COLUMNS, default="root", help="how the plugin is run; default: root, as runtimes do"
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, default=DEFAULT_ROUNDS, help="how often each call is timed; default: 5"
    )
    parser.add_argument("--json", action="store_true", help="print the whole document, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print."""
    netconf = _read(arguments.netconf)
    line = output.Progress()

    def progress(done: int, total: int, what: str) -> None:
        filled = _BAR_WIDTH * done // max(total, 1)
        line.show(f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {100 * done // max(total, 1):3d} %  {what}")

    try:
        document = measure(
            arguments.plugin,
            netconf,
            arguments.column,
            arguments.verb or VERBS,
            arguments.rounds,
            progress,
            has_details=True,
        )
    finally:
        line.clear()
    if arguments.json:
        output.print_json(document)
    else:
        print(text(document))
    return 0


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise IoFailure(f"read netconf {quoted(path)}: {reason(error)}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidConfig(f"read netconf {quoted(path)}: longer than {_MAX_BYTES} bytes")
    try:
        members = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"read netconf {quoted(path)}: not JSON: {error}") from error
    if not isinstance(members, dict):
        raise InvalidConfig(f"read netconf {quoted(path)}: not an object")
    return members


def text(document: Mapping[str, Any]) -> str:
    """Show an exposure document, with details, to a person."""
    parts = [
        output.paint(
            f"{output.printable(document['plugin'])} · {document['column']} · {document['rounds']} rounds", "bold"
        )
        + f"\n{output.printable(document['path'])}  sha256 {document['sha256'][:16]}…"
    ]
    for verb, members in document["verbs"].items():
        parts += [_verb(verb, members)]
    parts.append("\n".join([output.paint("What this cannot see", "bold"), *_listed(document["cannot_see"])]))
    return "\n\n".join(parts)


def _verb(verb: str, members: Mapping[str, Any]) -> str:
    duration, sets, calls = members["duration_ms"], members["capabilities"], members["syscalls"]
    allowed = (
        "no filter" if calls["allowed"] is None else f"{calls['allowed']} of {calls['total']} allowed by the filter"
    )
    written = members["files"]["written"]
    lines = [
        output.paint(verb, "bold")
        + f"  {duration['median']:.1f} ms (quartiles {duration['q1']:.1f} to {duration['q3']:.1f};"
        + f" {members['details']['traced_ms']['median']:.1f} traced)",
        f"held {len(sets['held'])} capabilities, used {len(sets['exercised'])}, needed {len(sets['needed'])};"
        f" {len(calls['used'])} system calls made, {allowed}",
        _capabilities(members),
        _processes(members["processes"]),
        f"files: {len(members['files']['opened'])} opened, {len(written)} written"
        + "".join(f"\n  {output.printable(path)}" for path in written[:_SHOWN_FILES])
        + (f"\n  and {len(written) - _SHOWN_FILES} more" if len(written) > _SHOWN_FILES else ""),
        "ways into network namespaces after untrusted input was read:"
        + ("".join(f"\n  {output.printable(each)}" for each in members["netns_handles"]) or " none"),
    ]
    return "\n".join(lines)


def _capabilities(members: Mapping[str, Any]) -> str:
    """A row for each capability that was used, and one for all that were only held."""
    sets, held = members["capabilities"], members["held_ms"]
    rows = []
    for name, ablation in sets["ablation"].items():
        checks = str(sets["exercised"].get(name, 0))
        needed, says = ("no", "") if ablation["works"] else ("yes", ablation["says"][:_SAYS_WIDTH])
        rows.append((name, needed, checks, *_held(members, name), says))
    idle = [name for name in sets["held"] if name not in sets["ablation"]]
    for share in sorted({held[name]["share"] for name in idle}, reverse=True):
        names = [name for name in idle if held[name]["share"] == share]
        label = names[0] if len(names) == 1 else f"{len(names)} others"
        rows.append((label, "-", "0", *_held(members, names[0]), ""))
    headers = ("capability", "needed", "checks", "held for", "of the call", "untrusted bytes", "without it")
    return output.table(headers, rows)


def _held(members: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    held = members["held_ms"].get(name)
    if held is None:
        return "-", "-", "0"
    return f"{held['median']:.1f} ms", f"{100 * held['share']:.0f} %", str(members["untrusted_bytes"].get(name, 0))


def _processes(processes: Sequence[Mapping[str, Any]]) -> str:
    """A row for each process; those in a row that differ in nothing but their time share one."""
    rows: list[list[str]] = []
    for number, process in enumerate(processes):
        begin, end = process["lived_ms"]
        parent = "" if process["parent"] is None else str(process["parent"])
        what = [parent, process["role"], process["program"], *_drop(process["credentials"])]
        if rows and rows[-1][2:] == what:
            rows[-1][:2] = f"{rows[-1][0].split('-')[0]}-{number}", f"{rows[-1][1].split(' ')[0]} - {end:.1f} ms"
        else:
            rows.append([str(number), f"{begin:.1f} - {end:.1f} ms", *what])
    return output.table(("#", "lived", "by", "role", "program", "began with", "dropped to"), rows)


def _drop(credentials: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Say what a process began with and what it ended up with, if that is something else."""
    if not credentials:
        return "?", ""
    first, last = _credential(credentials[0]), _credential(credentials[-1])
    return first, "" if first == last else f"{last} from {credentials[-1]['at_ms']:.1f} ms on"


def _credential(credential: Mapping[str, Any]) -> str:
    names = credential["effective"]
    what = "none" if not names else names[0] if len(names) == 1 else f"{len(names)} capabilities"
    return f"uid {credential['uid']}, {what}"


def _listed(texts: Sequence[str]) -> list[str]:
    return [f"- {output.printable(each)}" for each in texts]

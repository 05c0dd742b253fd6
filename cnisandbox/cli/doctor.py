"""Say what this machine can do, feature by feature, and what to do about the rest.

Each feature is tried, in a child or a namespace that is thrown away. Directories of plugins are looked at, too: whether
those that were wrapped still are, and whether a zygote answers for those of ours. Status 0: everything that level
hardened needs is there. 1: something is missing.
"""

import argparse
import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size

from cnisandbox.cli import output
from cnisandbox.cli.install import require_root
from cnisandbox.cli.probes import (
    DEGRADED,
    MISSING,
    OK,
    Probe,
    Seen,
    kernel,
    machine,
    network,
    runner,
    words,
    wrapped,
    zygote,
)

_GROUPS = (
    ("isolation", kernel.PROBES),
    ("runner", runner.PROBES),
    ("network", network.PROBES),
    ("machine", machine.PROBES),
)
_STYLES = {OK: "green", DEGRADED: "yellow", MISSING: "red"}
_MIN_WIDTH = 60

Findings = list[tuple[str, Probe, Seen]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print for programs")
    parser.add_argument(
        "--bin-dir", metavar="DIR", action="append", default=[], help="look at the plugins there, too; repeatable"
    )


def run(arguments: argparse.Namespace) -> int:
    """Probe everything and report."""
    require_root("doctor")
    directories = list(machine.plugin_dirs())
    groups = [
        *_GROUPS,
        ("warm", zygote.probes(directories, arguments.bin_dir)),
        ("wrapped", wrapped.probes(directories, arguments.bin_dir)),
    ]
    findings = _examine([(name, probes) for name, probes in groups if probes])
    lacking = [probe.feature for _, probe, seen in findings if probe.is_required and seen.state == MISSING]
    besides = [probe.feature for _, probe, seen in findings if probe.is_for_mediated and seen.state == MISSING]
    if arguments.json:
        features = [_members(group, probe, seen) for group, probe, seen in findings]
        output.print_json({"hardened": not lacking, "mediated": not lacking + besides, "features": features})
    else:
        _print(findings)
        _print_verdict("level hardened", lacking)
        _print_verdict("level mediated", lacking + besides)
    return 1 if lacking else 0


def _examine(groups: Sequence[tuple[str, Sequence[Probe]]]) -> Findings:
    progress = output.Progress()
    findings: Findings = []
    try:
        for group, probes in groups:
            for probe in probes:
                progress.show(f"looking at {probe.feature}")
                findings.append((group, probe, _look(probe)))
    finally:
        progress.clear()
    return findings


def _look(probe: Probe) -> Seen:
    try:
        return probe.look()
    except OSError as error:
        return Seen(MISSING, words(error))


def _print(findings: Findings) -> None:
    width = max(len(probe.feature) for _, probe, _ in findings)
    for group in dict.fromkeys(group for group, _, _ in findings):
        print(output.paint(group, "bold"))
        for found_in, probe, seen in findings:
            if found_in == group:
                print("\n".join(_lines(probe, seen, width)))
        print()


def _print_verdict(level: str, lacking: list[str]) -> None:
    if lacking:
        print(f"{output.paint(f'{level} is not available', 'red')}: missing {', '.join(lacking)}")
    else:
        print(f"{output.paint(f'{level} is available', 'green')}: everything it needs is there")


def _lines(probe: Probe, seen: Seen, width: int) -> list[str]:
    """One line for a feature that is there; below it, for one that is not, what needs it and what to do."""
    state = output.paint(seen.state.ljust(len(DEGRADED)), _STYLES[seen.state])
    lines = [f"  {state}  {probe.feature.ljust(width)}  {output.printable(seen.detail)}".rstrip()]
    if seen.state != OK:
        indent = " " * (2 + len(DEGRADED) + 2)
        columns = max(_MIN_WIDTH, get_terminal_size().columns)
        for text in (f"needed for {probe.needed_for}", f"to do: {probe.remedy}"):
            lines.append(
                output.paint(textwrap.fill(text, columns, initial_indent=indent, subsequent_indent=indent), "dim")
            )
    return lines


def _members(group: str, probe: Probe, seen: Seen) -> dict[str, object]:
    return {
        "group": group,
        "feature": probe.feature,
        "state": seen.state,
        "detail": seen.detail,
        "neededFor": probe.needed_for,
        "requiredForHardened": probe.is_required,
        "requiredForMediated": probe.is_required or probe.is_for_mediated,
        "remedy": "" if seen.state == OK else probe.remedy,
    }

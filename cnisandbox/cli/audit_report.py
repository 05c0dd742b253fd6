"""Measure what a hostile plugin could do on this machine, and write a report.

Makes the attempts of `audit vectors` in every column, measures the calls of a set of plugins as `audit plugin` does,
replays known vulnerabilities, and writes into the directory:

  audit.html          one page, with figures; it refers to nothing outside itself
  audit.json          everything that was measured (docs/audit-schema.md); `audit compare` compares two of them
  audit.csv           one line for each attempt and column
  audit-exposure.csv  one line for each plugin, column and verb
  audit.txt           what is printed as well

It takes some minutes, in namespaces of its own; nothing of the machine is changed.
"""

import argparse
import sys
import time

from cnisandbox.cli import output
from cnisandbox.cli.install import require_root
from cnisandbox.laboratory.columns import COLUMNS
from cnisandbox.laboratory.exposure.measure import MAX_ROUNDS
from cnisandbox.laboratory.report import figures, forms, schema, terminal
from cnisandbox.laboratory.report.subjects import SUBJECTS

_BAR_WIDTH = 24
_TEXT_WIDTH = 44


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--out", metavar="DIR", required=True, help="where to write; made if it is not there")
    parser.add_argument("--quick", action="store_true", help="a few attempts, plugins and rounds, in a minute")
    parser.add_argument(
        "--columns", metavar="C", nargs="+", choices=COLUMNS, default=[], help="only these and root, the control"
    )
    parser.add_argument(
        "--plugins", metavar="P", nargs="+", choices=names, default=[], help=f"only these of {', '.join(names)}"
    )
    parser.add_argument(
        "--rounds", metavar="N", type=_rounds, help=f"how often each call is timed and traced, 1 to {MAX_ROUNDS}"
    )
    parser.add_argument(
        "--from", metavar="FILE", dest="source", help="measure nothing: write the report of this audit.json again"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, and write everything."""
    if arguments.source is None:
        require_root("audit report")
    figures.require()
    forms.make_directory(arguments.out)
    document = schema.read(arguments.source) if arguments.source is not None else _measured(arguments)
    written = forms.write(arguments.out, forms.render(document, figures.draw(document)))
    print(terminal.render(document, output.paint), end="")
    print()
    for path in written:
        print(output.printable(f"written: {path}"))
    return 0


def _measured(arguments: argparse.Namespace) -> schema.Document:
    from cnisandbox.laboratory.report import collect  # noqa: PLC0415 - with everything that measures

    bar = _Bar()
    try:
        wanted = collect.plan(arguments.columns, arguments.plugins, arguments.rounds, is_quick=arguments.quick)
        return collect.collect(wanted, _command(arguments), bar.show)
    finally:
        bar.clear()


def _command(arguments: argparse.Namespace) -> list[str]:
    """Write the command line down that does the same."""
    words = ["cnisandbox", "audit", "report", "--out", arguments.out]
    words += ["--quick"] if arguments.quick else []
    words += ["--columns", *arguments.columns] if arguments.columns else []
    words += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    return words + (["--plugins", *arguments.plugins] if arguments.plugins else [])


def _rounds(text: str) -> int:
    rounds = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= rounds <= MAX_ROUNDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_ROUNDS}")
    return rounds


class _Bar:
    """The progress bar: how far, how long, and what is being done; on no terminal a line for each part of the work."""

    def __init__(self) -> None:
        self._progress = output.Progress()
        self._since = time.monotonic()
        self._part = ""

    def show(self, fraction: float, text: str) -> None:
        """Replace the line."""
        passed_s = int(time.monotonic() - self._since)
        clock = f"{passed_s // 60}:{passed_s % 60:02}"
        full = int(fraction * _BAR_WIDTH)
        bar = "█" * full + "░" * (_BAR_WIDTH - full)
        self._progress.show(f"{bar} {fraction:4.0%} {clock}  {text[:_TEXT_WIDTH]}")
        part, _, _ = text.partition(":")
        if part != self._part and not sys.stderr.isatty():
            print(output.printable(f"{clock} {part}"), file=sys.stderr)
        self._part = part

    def clear(self) -> None:
        """Take the line away."""
        self._progress.clear()

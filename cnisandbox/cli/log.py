"""Show what confined plugins have asked of the kernel, message by message, and what was refused.

Reads what `--log FILE`, `--log journald` or CNISANDBOX_LOG had written. One line is one message, in rtnetlink's words.
Times are of the local time zone.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, NamedTuple

from cnisandbox.audit.log import SYSLOG_IDENTIFIER
from cnisandbox.audit.read import Line, parse_line
from cnisandbox.audit.words import line_of
from cnisandbox.boundary.sandbox import service_user
from cnisandbox.cli import output
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason

DEFAULT_FILE = "/var/log/cnisandbox.log"

# LIMIT: as many as a person reads; the rest is counted.
_NAMED_BAD_LINES = 5
_POLL_S = 0.2
# LIMIT: a line of the log is shorter (audit.log.LINE_BYTES); what is longer is none of it.
_MAX_LINE_BYTES = 1 << 16
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_HEADERS = ("time", "plugin", "attachment", "netns", "permit", "message")
_VERDICT = _HEADERS.index("permit")
_CONTAINER_CHARACTERS = 12


class Source(NamedTuple):
    """A line as it was read, and where it stands."""

    text: bytes
    place: str


class _Bad:
    """Counts lines that are none of the log's, and remembers the first."""

    def __init__(self) -> None:
        self._count = 0
        self._named: list[str] = []

    def add(self, source: Source, error: ValueError) -> None:
        self._count += 1
        if len(self._named) < _NAMED_BAD_LINES:
            self._named.append(f"{source.place} ({error})")

    def warn(self) -> None:
        if self._count:
            more = "" if self._count == len(self._named) else ", ..."
            what = "1 is no line" if self._count == 1 else f"{self._count} are no lines"
            output.print_warning(f"{what} of the log: {', '.join(self._named)}{more}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help=f"by default {DEFAULT_FILE}")
    parser.add_argument("--journald", action="store_true", help="read the journal in place of a file")
    parser.add_argument("--refused", action="store_true", help="only what was refused or is missing")
    parser.add_argument("--plugin", metavar="NAME", help="only messages of this plugin")
    parser.add_argument("--container", metavar="ID", help="only this container; the beginning of its id will do")
    parser.add_argument("--since", metavar="TIME", help='such as 10m, 2h, 1d or "2026-01-31 12:00"')
    parser.add_argument("--follow", action="store_true", help="wait for more, as `tail -F` does")
    parser.add_argument("--json", action="store_true", help="print the lines as they are, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Read and print."""
    since = _since(arguments.since) if arguments.since else None
    if arguments.journald and arguments.file:
        raise InvalidConfig("read log: a file and the journal at once", "leave FILE or --journald out")
    bad = _Bad()
    try:
        if arguments.journald:
            sources = _journal(since, follow=arguments.follow)
        else:
            sources = _file(arguments.file or DEFAULT_FILE, follow=arguments.follow)
        _print(_wanted(sources, arguments, since, bad), is_json=arguments.json)
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
    finally:
        bad.warn()
    return 0


def _since(text: str) -> datetime:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if found:
        return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidConfig(
            f"read time {quoted(text)}: it is none", 'such as 10m, 2h, 1d or "2026-01-31 12:00"'
        ) from None


# Where lines come from: None stands where no more is to be had for now.


def _file(path: str, *, follow: bool) -> Iterator[Source | None]:
    """Read a file; with `follow` also what is added, and the file that takes its place when it is rotated."""
    while True:
        try:
            with open(path, "rb") as file:
                yield from _lines(file, path, follow=follow)
        except OSError as error:
            raise IoFailure(
                f"read log {quoted(path)}: {reason(error)}", "nothing is logged unless --log or CNISANDBOX_LOG says so"
            ) from error
        if not follow:
            return


def _lines(file: BinaryIO, path: str, *, follow: bool) -> Iterator[Source | None]:
    number, begun = 1, b""
    while True:
        piece = file.readline(_MAX_LINE_BYTES)
        begun += piece
        if begun.endswith(b"\n") or len(begun) >= _MAX_LINE_BYTES or (begun and not piece and not follow):
            yield Source(begun, f"line {number}")
            number, begun = number + 1, b""
        elif not piece:
            yield None
            if not follow or not _has_more(file, path):
                return


def _has_more(file: BinaryIO, path: str) -> bool:
    """Wait until the file has grown; False if there is another one of its name, or it was emptied."""
    while True:
        status = os.fstat(file.fileno())
        if status.st_size > file.tell():
            return True
        with contextlib.suppress(FileNotFoundError):  # between two files: somebody will write the next one
            now = os.stat(path)
            if not os.path.samestat(now, status) or now.st_size < file.tell():
                return False
        time.sleep(_POLL_S)


def _journal(since: datetime | None, *, follow: bool) -> Iterator[Source | None]:
    """Read the journal, as far as it was written by root or by the service user; others may use our name, too."""
    command = ["journalctl", "--output=json", "--all", "--quiet", f"--identifier={SYSLOG_IDENTIFIER}"]
    command += ["--follow", "--no-tail"] if follow else ["--no-pager"]
    command += [f"--since=@{since.timestamp():.0f}"] if since else []
    writers = {"0", str(service_user().uid)}
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603
    except OSError as error:
        raise IoFailure(
            f"execute journalctl: {reason(error)}", "read a file instead, if it was logged to one"
        ) from error
    with child:
        assert child.stdout is not None
        try:
            for number, text in enumerate(child.stdout, 1):
                yield _entry(text, number, writers)
                if follow:
                    yield None
        finally:
            if child.poll() is None:
                child.terminate()
    if child.returncode > 0:
        raise IoFailure(f"read journal: journalctl ended with status {child.returncode}")
    yield None


def _entry(text: bytes, number: int, writers: set[str]) -> Source:
    """Take our line out of an entry of the journal; nothing is left of one that was written by somebody else."""
    try:
        entry = json.loads(text)
        if str(entry.get("_UID")) not in writers:
            return Source(b"", f"entry {number} of uid {entry.get('_UID')}")
        return Source(str(entry.get("CNISANDBOX_RECORD", "")).encode(), f"entry {number}")
    except (ValueError, AttributeError):
        return Source(b"", f"entry {number}")


def _wanted(
    sources: Iterable[Source | None], arguments: argparse.Namespace, since: datetime | None, bad: _Bad
) -> "Iterator[tuple[bytes, Line] | None]":
    for source in sources:
        if source is None:
            yield None
            continue
        try:
            line = parse_line(source.text)
        except ValueError as error:
            bad.add(source, error)
            continue
        if _is_wanted(line, arguments, since):
            yield source.text, line


def _is_wanted(line: Line, arguments: argparse.Namespace, since: datetime | None) -> bool:
    return (
        (not arguments.refused or not line.permit)
        and arguments.plugin in (None, line.plugin)
        and line.container.startswith(arguments.container or "")
        and (since is None or line.time >= since)
    )


# What is printed.


def _print(lines: "Iterable[tuple[bytes, Line] | None]", *, is_json: bool) -> None:
    if is_json:
        for item in lines:
            if item is not None:
                print(item[0].decode("utf-8", "replace").rstrip("\n"), flush=True)
        return
    widths = [len(header) for header in _HEADERS[:-1]]
    rows: list[list[str]] = []
    is_begun = False
    for item in lines:
        if item is not None:
            rows.append(_row(item[1]))
        elif rows:
            widths = [max(width, *(len(row[column]) for row in rows)) for column, width in enumerate(widths)]
            if not is_begun:
                header = _padded([header.upper() for header in _HEADERS], widths)
                print(output.paint("  ".join(header), "dim"))
            is_begun = True
            for row in rows:
                _print_row(row, widths)
            rows = []
            sys.stdout.flush()
    if not is_begun:
        print("nothing in the log is about that")


def _row(line: Line) -> list[str]:
    moment = line.time.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    attachment = f"{line.container[:_CONTAINER_CHARACTERS]}/{line.ifname}".strip("/")
    if line.dropped:
        verdict, text = "dropped", f"{line.dropped} or more messages are missing: {line.refused}"
    elif line.permit:
        verdict, text = line.permit, line_of(line.message)
    else:
        verdict, text = "refused", f"{line_of(line.message)}: {line.refused}"
    return [
        output.printable(cell.replace("\n", "\\n"))
        for cell in (moment, line.plugin, attachment, line.netns, verdict, text)
    ]


def _print_row(row: list[str], widths: list[int]) -> None:
    style = {"refused": "red", "dropped": "yellow"}.get(row[_VERDICT], "green")
    cells = _padded(row, widths)
    cells[_VERDICT] = output.paint(cells[_VERDICT], style)
    print("  ".join(cells).rstrip())


def _padded(cells: list[str], widths: list[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)] + cells[len(widths) :]

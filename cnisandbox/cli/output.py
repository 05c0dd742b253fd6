"""What the command line writes: tables, colours where a person looks, errors that say what to do.

Standard output is for results, standard error for everything else. A colour is used only on a terminal, and never when
NO_COLOR is set (https://no-color.org).
"""

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import TextIO

from cnisandbox.errors import CniError

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_LOST = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\n")}
_MIN_WIDTH = 60


def has_colour(stream: TextIO) -> bool:
    """Say whether to colour what goes to this stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Put a style around a text, if the stream (standard output by default) takes it.

    Args:
        text: The text.
        style: "bold", "dim", "red", "green" or "yellow".
        stream: Where it will be written.
    """
    if not has_colour(stream or sys.stdout):
        return text
    return f"\033[{_STYLES[style]}m{text}\033[0m"


def printable(text: str) -> str:
    """Escape control characters: what a plugin or a file says must not drive the terminal."""
    return text.translate(_LOST)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> str:
    """Lay out a table: columns as wide as their content, two spaces apart, headers in capitals.

    Args:
        headers: One per column; a column that is empty in every row is left out.
        rows: Cells, as many as headers.
        styles: The style of each row's first cell; "" for none. Empty for no styles at all.
    """
    used = [index for index in range(len(headers)) if any(row[index] for row in rows)]
    lines = [[headers[index].upper() for index in used]]
    lines += [[printable(row[index]) for index in used] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    for line, style in zip(padded[1:], styles, strict=False):
        if style:
            line[0] = paint(line[0], style)
    header, *body = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([paint(header, "dim"), *body])


def print_json(document: object) -> None:
    """Print a document for programs."""
    print(json.dumps(document, indent=4, ensure_ascii=False).encode("utf-8", "replace").decode())


def print_error(error: CniError, prefix: str = "cnisandbox") -> None:
    """Print an error for a person: operation, object and what happened on the first line, what to do about it below."""
    code = f" (code {error.code})" if error.code < 100 else ""
    head = paint(f"{prefix}:", "red", sys.stderr)
    print(f"{head} {printable(error.msg)}{code}", file=sys.stderr)
    width = max(_MIN_WIDTH, get_terminal_size().columns)
    for part in error.details.splitlines():
        print(textwrap.fill(printable(part), width, initial_indent="  ", subsequent_indent="  "), file=sys.stderr)


def print_warning(text: str) -> None:
    """Print what a person should know although the command goes on."""
    print(f"{paint('warning:', 'yellow', sys.stderr)} {printable(text)}", file=sys.stderr)


def error_members(error: CniError) -> dict[str, object]:
    """The members of an error object as the specification has them, without cniVersion."""
    members: dict[str, object] = {"code": error.code, "msg": error.msg}
    return members | {"details": error.details} if error.details else members


class Progress:
    """One line on a terminal that says what is being done, gone when it is done; silent when nobody looks.

    Args:
        stream: Standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_shown = self._stream.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._is_shown:
            self._stream.write(f"\r\033[K{paint(printable(text), 'dim', self._stream)}")
            self._stream.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            self._stream.write("\r\033[K")
            self._stream.flush()

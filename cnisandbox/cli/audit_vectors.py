"""Make the attempts of an attacker in every column of the blast-radius matrix, and show what came of each.

  root      as a process of root with everything: how plugins run today, and the control
  netadmin  in each process of a call of our own plugin `bridge` at that level; the cell is how far he came at best
  hardened  likewise
  mediated  likewise
  runner    as somebody else's plugin under `cnisandbox exec`, at level mediated, with the profile of bridge

Each attempt is made in namespaces of its own; nothing of the machine is changed by one that fails, and what works as
root is undone. Status 0: every attempt was made, or does not apply to this kernel. 1: some could not be made.
"""

import argparse
import time
from collections.abc import Sequence

from cnisandbox.cli import output
from cnisandbox.cli.install import require_root
from cnisandbox.errors import InvalidConfig, quoted
from cnisandbox.laboratory import matrix
from cnisandbox.laboratory.columns import COLUMNS
from cnisandbox.laboratory.vector import (
    CATEGORIES,
    NO_EFFECT,
    NOT_APPLICABLE,
    REFUSED,
    UNTESTED,
    WORKED,
    Cell,
    Vector,
)
from cnisandbox.laboratory.vectors import VECTORS, VERSION

_STYLES = {WORKED: "red", REFUSED: "green", NO_EFFECT: "green", NOT_APPLICABLE: "dim", UNTESTED: "yellow"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    letters = ", ".join(f"{letter}: {title}" for letter, title in CATEGORIES.items())
    parser.add_argument(
        "--category", metavar="X", action="append", choices=CATEGORIES, default=[], help=f"{letters}; repeatable"
    )
    parser.add_argument(
        "--column", metavar="C", action="append", choices=COLUMNS, default=[], help="only in these columns; repeatable"
    )
    parser.add_argument("--only", metavar="ID", nargs="+", default=[], help="only these attempts")
    parser.add_argument("--list", action="store_true", help="list the attempts, and make none")
    parser.add_argument("--json", action="store_true", help="print for programs")


def run(arguments: argparse.Namespace) -> int:
    """Make the attempts and show the matrix."""
    vectors = _chosen(arguments.category, arguments.only)
    if arguments.list:
        _list(vectors, is_json=arguments.json)
        return 0
    require_root("audit vectors")
    columns = [column for column in COLUMNS if column in arguments.column] or list(COLUMNS)
    progress = output.Progress()
    made = 0

    def show(text: str) -> None:
        nonlocal made
        made += 1
        progress.show(text)

    since = time.monotonic()
    try:
        found = matrix.run(vectors, columns, show)
    finally:
        progress.clear()
    if arguments.json:
        cells = {name: {column: cell._asdict() for column, cell in row.items()} for name, row in found.items()}
        output.print_json({"version": VERSION, "columns": columns, "cells": cells})
    else:
        _print(vectors, columns, found)
        duration_s = time.monotonic() - since
        each_ms = 1000 * duration_s / max(made, 1)
        print(f"\n{len(vectors)} attempts, made {made} times in {duration_s:.0f} s, {each_ms:.0f} ms each")
    return 1 if any(cell.verdict == UNTESTED for row in found.values() for cell in row.values()) else 0


def _chosen(categories: Sequence[str], only: Sequence[str]) -> list[Vector]:
    unknown = sorted(set(only) - {vector.id for vector in VECTORS})
    if unknown:
        raise InvalidConfig(f"choose attempt {quoted(unknown[0])}: there is none", "--list shows all of them")
    chosen = [
        vector
        for vector in VECTORS
        if (not categories or vector.category in categories) and (not only or vector.id in only)
    ]
    if not chosen:
        raise InvalidConfig("choose attempts: there is none in all that was named")
    return chosen


def _list(vectors: Sequence[Vector], *, is_json: bool) -> None:
    if is_json:
        fields = ("id", "category", "tries", "source", "capability", "advice", "where")
        listed = [{field: getattr(vector, field) for field in fields} for vector in vectors]
        output.print_json({"version": VERSION, "list": listed})
        return
    rows = [(vector.id, vector.tries, vector.source) for vector in vectors]
    print(output.table(("attempt", "tries to", "known from"), rows))


def _print(vectors: Sequence[Vector], columns: Sequence[str], found: matrix.Matrix) -> None:
    rows = [[vector.id, *(_shown(found[vector.id][column]) for column in columns)] for vector in vectors]
    print(output.table(["attempt", *columns], rows))
    notes = [
        f"{vector.id} {column}: {note}"
        for vector in vectors
        for column in columns
        for note in _notes(found[vector.id][column])
    ]
    if notes:
        print()
    for note in dict.fromkeys(notes):
        print(output.printable(note))


def _shown(cell: Cell) -> str:
    why = cell.errno or cell.signal
    mark = " *" if cell.outside else ""
    return f"{why if cell.verdict == REFUSED else cell.verdict}{mark}"


def _notes(cell: Cell) -> list[str]:
    who = f" ({cell.process})" if cell.process else ""
    return [f"outside: {change}{who}" for change in cell.outside] + ([cell.reason] if cell.reason else [])

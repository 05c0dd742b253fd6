"""Sums over an audit document, from which the table, the page and its figures are made.

Privilege: none.
"""

from typing import NamedTuple

from cnisandbox.laboratory.report.schema import CellMembers, Document, Exposure, VectorRow, Verb
from cnisandbox.laboratory.report.wording import CONTROL, columns_of, main_verb, name_of
from cnisandbox.laboratory.vector import CATEGORIES, WORKED


class Category(NamedTuple):
    """One category of attempts: its letter, its title, and its attempts with their cells by column."""

    letter: str
    title: str
    rows: list[tuple[VectorRow, dict[str, CellMembers]]]


class Sum(NamedTuple):
    """Of the attempts in a column: how many work, how many of all changed something outside, and how many were made."""

    worked: int
    outside: int
    made: int


def categories(document: Document) -> list[Category]:
    """Group the attempts by category, in the order of the list; a category without attempts is left out."""
    cells = document["matrix"]["cells"]
    grouped = {letter: Category(letter, title, []) for letter, title in CATEGORIES.items()}
    for row in document["vectors"]["list"]:
        grouped[row["category"]].rows.append((row, cells[row["id"]]))
    return [category for category in grouped.values() if category.rows]


def sums(rows: list[tuple[VectorRow, dict[str, CellMembers]]], column: str) -> Sum:
    """Sum a column up."""
    cells = [cells[column] for _, cells in rows]
    made = sum(cell["verdict"] not in {"not applicable", "untested"} for cell in cells)
    return Sum(sum(cell["verdict"] == WORKED for cell in cells), sum(bool(cell["outside"]) for cell in cells), made)


def totals(document: Document) -> dict[str, Sum]:
    """Sum every column up."""
    rows = [row for category in categories(document) for row in category.rows]
    return {column: sums(rows, column) for column in columns_of(document)}


def still_working(document: Document) -> list[tuple[VectorRow, dict[str, CellMembers]]]:
    """The attempts that work, or change something outside, in a column other than the control."""
    return [
        (row, cells)
        for category in categories(document)
        for row, cells in category.rows
        if any(column != CONTROL and (cell["verdict"] == WORKED or cell["outside"]) for column, cell in cells.items())
    ]


def measured(document: Document) -> list[tuple[Exposure, Verb]]:
    """The exposures with the verb that stands for each; those without any verb are left out."""
    return [(exposure, exposure["verbs"][main_verb(exposure)]) for exposure in document["plugins"] if exposure["verbs"]]


def by_name(document: Document) -> dict[str, list[tuple[Exposure, Verb]]]:
    """Group what `measured` returns by what was measured."""
    grouped: dict[str, list[tuple[Exposure, Verb]]] = {}
    for exposure, verb in measured(document):
        grouped.setdefault(name_of(exposure), []).append((exposure, verb))
    return grouped


def duration_ratio(document: Document, exposure: Exposure, verb: str) -> float | None:
    """Say how many times longer a call takes than that of the same plugin and network as root.

    Returns:
        The ratio of the medians; None where that was not measured.
    """
    for other in document["plugins"]:
        if other["column"] == CONTROL and name_of(other) == name_of(exposure) and verb in other["verbs"]:
            base = other["verbs"][verb]["duration_ms"]["median"]
            return exposure["verbs"][verb]["duration_ms"]["median"] / base if base > 0 else None
    return None

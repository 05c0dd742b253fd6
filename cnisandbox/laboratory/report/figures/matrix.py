"""The figure of attempts against columns: a grid, by category.

Privilege: none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.figures.board import (
    INK,
    MUTED,
    NOT_HERE,
    NOTHING,
    OUTSIDE,
    REFUSES,
    UNKNOWN,
    WIDTH,
    WORKS,
    Figure,
    board,
    box,
    finished,
    text_colour,
    write,
)
from cnisandbox.laboratory.report.schema import CellMembers, Document, VectorRow
from cnisandbox.laboratory.report.wording import LETTERS, OUTSIDE_MARK, amount, clean, columns_of, cut
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CELL_COLOURS = {
    WORKED: WORKS,
    REFUSED: REFUSES,
    NO_EFFECT: NOTHING,
    NOT_APPLICABLE: NOT_HERE,
    UNTESTED: UNKNOWN,
}

_PANELS = 3
_ROW, _CELL, _GAP = 11.5, 22.0, 20.0
_LEGEND, _HEAD, _TITLE = 26.0, 40.0, 22.0
_LEAN = 14.0  # how far the last heading leans out of its panel
_LEAST_ROWS = 3  # below a title, before the next newspaper column


class _Line(NamedTuple):
    """A line of the grid: a heading, or an attempt with its cells."""

    title: str
    row: VectorRow | None = None
    cells: dict[str, CellMembers] | None = None


def draw(document: Document) -> Figure:
    """Draw the grid."""
    columns = columns_of(document)
    stacks = _stacked(document)
    drawing, axes = board(_LEGEND + _HEAD + max(map(_height, stacks)) + 2)
    _draw_legend(axes)
    panel = (WIDTH - _LEAN - _GAP * (_PANELS - 1)) / _PANELS
    cell = min(_CELL, panel * 0.6 / len(columns))
    for number, stack in enumerate(stacks):
        _draw_stack(axes, number * (panel + _GAP), panel, cell, stack, columns)
    totals = tally.totals(document)
    working = ", ".join(f"{clean(column)} {total.worked}" for column, total in totals.items())
    outside = ", ".join(f"{clean(column)} {total.outside}" for column, total in totals.items())
    made = amount(len(document["vectors"]["list"]), "attempt")
    return finished(
        "matrix",
        drawing,
        f"Each of {made} in each column. W: it worked. R: it was refused, by an error or by the end of the process. "
        f"0: nothing was refused, and it had no effect. {OUTSIDE_MARK}: something outside the container's network "
        "namespace was changed. -: it does not apply to this kernel. ?: it did not work as root either.",
        f"Grid of {made} by category against the columns {', '.join(map(clean, columns))}. "
        f"Attempts that worked: {working}. Attempts that changed something outside: {outside}. "
        "The table of all attempts has the same as text.",
    )


def _stacked(document: Document) -> list[list[_Line]]:
    """Deal headings and attempts out to newspaper columns of about the same height."""
    lines: list[_Line] = []
    for category in tally.categories(document):
        lines.append(_Line(f"{category.letter}  {category.title}"))
        lines += [_Line("", row, cells) for row, cells in category.rows]
    share = _height(lines) / _PANELS + _TITLE
    stacks: list[list[_Line]] = [[]]
    title = ""
    for index, line in enumerate(lines):
        title = line.title or title
        rest = lines[index + 1 : index + 1 + _LEAST_ROWS] if line.title else []
        if len(stacks) < _PANELS and stacks[-1] and _height([*stacks[-1], line, *rest]) > share:
            stacks.append([] if line.title else [_Line(f"{title} (continued)")])
        stacks[-1].append(line)
    return stacks


def _height(lines: Sequence[_Line]) -> float:
    return sum(_TITLE if line.title else _ROW for line in lines)


def _draw_legend(axes: "Axes") -> None:
    x = 0.0
    for colour, letter, text in (
        (WORKS, LETTERS[WORKED], "worked"),
        (OUTSIDE, LETTERS[WORKED] + OUTSIDE_MARK, "worked, and changed something outside"),
        (REFUSES, LETTERS[REFUSED], "refused"),
        (NOTHING, LETTERS[NO_EFFECT], "no effect"),
        (NOT_HERE, LETTERS[NOT_APPLICABLE], "not applicable"),
        (UNKNOWN, LETTERS[UNTESTED], "untested"),
    ):
        box(axes, x, 2, _CELL - 2, _ROW - 1, colour)
        write(axes, x + (_CELL - 2) / 2, 2 + _ROW / 2, letter, text_colour(colour), 7, "center", is_bold=True)
        write(axes, x + _CELL + 2, 2 + _ROW / 2, text, MUTED)
        x += _CELL + 18 + 4.4 * len(text)


def _draw_stack(
    axes: "Axes", x: float, width: float, cell: float, stack: Sequence[_Line], columns: Sequence[str]
) -> None:
    left = x + width - cell * len(columns)
    y = _LEGEND + _HEAD
    for number, column in enumerate(columns):
        write(axes, left + cell * (number + 0.5) + 2, y + _TITLE - _ROW, cut(column, 9), MUTED, 6.8, rotation=40)
    for line in stack:
        if line.row is None or line.cells is None:
            # The first title stands above the headings of the columns, the others below the rows before them.
            above = _HEAD - 4 if y == _LEGEND + _HEAD else 0
            write(axes, x, y + _TITLE - _ROW - above, cut(line.title, int(width / 4.4)), INK, 8, is_bold=True)
            y += _TITLE
            continue
        write(axes, x, y + _ROW / 2, cut(line.row["id"], int((left - x) / 3.75)), INK, 6.8)
        for number, column in enumerate(columns):
            _draw_cell(axes, left + cell * number, y, cell, line.cells[column])
        y += _ROW


def _draw_cell(axes: "Axes", x: float, y: float, width: float, cell: CellMembers) -> None:
    colour, letter = _CELL_COLOURS[cell["verdict"]], LETTERS[cell["verdict"]]
    edge = "none"
    if cell["outside"]:
        letter += OUTSIDE_MARK
        colour, edge = (OUTSIDE, "none") if cell["verdict"] == WORKED else (colour, OUTSIDE)
    box(axes, x + 0.6, y + 0.6, width - 1.2, _ROW - 1.2, colour, edge)
    is_bold = cell["verdict"] == WORKED or bool(cell["outside"])
    write(axes, x + width / 2, y + _ROW / 2, letter, text_colour(colour), 6.8, "center", is_bold=is_bold)

"""The figure of latency beside security gain.

Privilege: none.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.figures.board import (
    INK,
    MUTED,
    OUTSIDE,
    SERIES,
    WIDTH,
    WORKS,
    Figure,
    board,
    box,
    finished,
    write,
)
from cnisandbox.laboratory.report.schema import Document
from cnisandbox.laboratory.report.wording import CONTROL, amount, cut, main_verb


class _Bar(NamedTuple):
    """What stands in a row: a plugin in a column, its time against root, and what the column lets through."""

    title: str
    is_first: bool
    ratio: float
    worked: int
    outside: int


def draw(document: Document) -> Figure | None:
    """Draw durations beside what still works; nothing where no plugin was measured as root and in another column."""
    totals = tally.totals(document)
    bars: list[_Bar] = []
    for name, exposures in tally.by_name(document).items():
        rated = [(exposure, tally.duration_ratio(document, exposure, main_verb(exposure))) for exposure, _ in exposures]
        known = [(each, ratio) for each, ratio in rated if ratio is not None and each["column"] in totals]
        for number, (each, ratio) in enumerate(known if len(known) > 1 else []):
            total = totals[each["column"]]
            title = f"{cut(name, 18)}  {cut(each['column'], 10)}"
            bars.append(_Bar(title, number == 0, ratio, total.worked, total.outside))
    return _draw_bars(document, bars) if bars else None


def _draw_bars(document: Document, bars: Sequence[_Bar]) -> Figure:
    lane, top = 14.0, 36.0
    height = top + len(bars) * lane + sum(bar.is_first for bar in bars) * 8 + 6
    drawing, axes = board(height)
    middle, label_width, number_width = 440.0, 150.0, 34.0
    slowest = max(bar.ratio for bar in bars) or 1.0
    most = max(1, *(bar.worked for bar in bars), *(bar.outside for bar in bars))
    write(axes, label_width, 8, "time of a call", INK, 8.5, is_bold=True)
    write(axes, label_width, 22, f"against {CONTROL}, of medians", MUTED)
    write(axes, middle, 8, "what an attacker still can do", INK, 8.5, is_bold=True)
    box(axes, middle, 19, 14, 6, WORKS)
    write(axes, middle + 18, 22, "attempts that work", MUTED)
    box(axes, middle + 118, 20.5, 14, 3, OUTSIDE)
    write(axes, middle + 136, 22, "that change something outside", MUTED)
    y = top
    for bar in bars:
        y += 8 if bar.is_first else 0
        centre = y + lane / 2
        write(axes, label_width - 8, centre, bar.title, INK, 7.5, "right")
        length = (middle - label_width - number_width - 16) * bar.ratio / slowest
        box(axes, label_width, centre - 4, max(length, 0.4), 8, SERIES)
        write(axes, label_width + length + 4, centre, f"{bar.ratio:.1f}×" if bar.ratio < 100 else f"{bar.ratio:.0f}×")  # noqa: RUF001
        room = WIDTH - middle - 2 * number_width
        box(axes, middle, centre - 4, max(room * bar.worked / most, 0.4), 5, WORKS)
        box(axes, middle, centre + 1, max(room * bar.outside / most, 0.4), 3, OUTSIDE)
        write(axes, middle + room * max(bar.worked, bar.outside) / most + 4, centre, f"{bar.worked}, {bar.outside}")
        y += lane
    spoken = "; ".join(
        f"{' '.join(bar.title.split())}: {bar.ratio:.1f} times the duration, {bar.worked} attempts work, "
        f"{bar.outside} change something outside"
        for bar in bars
    )
    made = amount(len(document["vectors"]["list"]), "attempt")
    return finished(
        "price",
        drawing,
        "What protection costs beside what it brings: the duration of a call against that of the reference plugin of "
        f"that name as root, and how many of {made} still work in the column, and change something outside.",
        f"Pairs of bars. {spoken}.",
    )

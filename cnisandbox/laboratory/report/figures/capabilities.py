"""The figure of capabilities held, exercised and needed.

Privilege: none.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.figures.board import (
    INK,
    MUTED,
    NOT_HERE,
    SERIES,
    UNKNOWN,
    WIDTH,
    Figure,
    board,
    box,
    finished,
    rule,
    text_colour,
    write,
)
from cnisandbox.laboratory.report.schema import Document, Verb
from cnisandbox.laboratory.report.wording import clean, cut, label, listed, untrusted_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SQUARE, _BETWEEN = 16.0, 5.0
_LEFT, _TOP = 150.0, 116.0
_NEEDED, _EXERCISED, _HELD = "N", "E", "H"
_MEANINGS = {_NEEDED: "needed", _EXERCISED: "exercised, works without", _HELD: "held, never exercised"}
_MANY = 20  # capabilities; who holds so many holds what root has
_SUMS = (
    "others held, never exercised",
    "held together",
    "held at a time, mean",
    "exercised",
    "needed",
    "untrusted bytes read, at most",
    "with how many of them",
)
_SQUARE_COLOURS = {_NEEDED: SERIES, _EXERCISED: UNKNOWN, _HELD: NOT_HERE}


def draw(document: Document) -> Figure:
    """Draw the grid of capabilities against plugins and columns."""
    groups = list(tally.by_name(document).values())
    exposures = [each for group in groups for each in group]
    rows = _capability_rows([verb for _, verb in exposures])
    square = min(30.0, (WIDTH - _LEFT - 50 - _BETWEEN * (len(groups) - 1)) / len(exposures))
    drawing, axes = board(_TOP + (len(rows) + len(_SUMS)) * _SQUARE + 2)
    _draw_legend(axes)
    x = _LEFT
    for group in groups:
        for exposure, verb in group:
            write(axes, x + square / 2 + 3, _TOP - 5, cut(label(exposure), 26), INK, 7, rotation=45)
            for index, capability in enumerate(rows):
                _draw_square(axes, x, _TOP + index * _SQUARE, square, verb, capability)
            for index, count in enumerate(_sums(verb, rows)):
                y = _TOP + (len(rows) + index + 0.5) * _SQUARE
                write(axes, x + square / 2, y, count or "·", INK if count else MUTED, 6.8, "center")
            x += square
        x += _BETWEEN
    for index, capability in enumerate(rows):
        write(axes, _LEFT - 8, _TOP + (index + 0.5) * _SQUARE, cut(capability, 30), INK, 7.2, "right")
    rule(axes, (0, x - _BETWEEN), (_TOP + len(rows) * _SQUARE,) * 2)
    for index, title in enumerate(_SUMS):
        write(axes, _LEFT - 8, _TOP + (len(rows) + index + 0.5) * _SQUARE, title, MUTED, 7.2, "right")
    spoken = "; ".join(f"{clean(label(exposure))}: {_spoken_sets(verb)}" for exposure, verb in exposures)
    return finished(
        "capabilities",
        drawing,
        "Capabilities that the processes of a call held (H), of those the ones that the kernel checked on their behalf "
        "(E), and of those the ones without which the call fails (N, by ablation). Empty: not held. The bar at the "
        "foot of a square is the share of the call's duration during which some process held the capability; the mean "
        "is how many were held at a time, and untrusted bytes are those that others wrote and that were read while any "
        "one of them was held.",
        f"Grid of capabilities against plugins and columns. {spoken}.",
    )


def _draw_legend(axes: "Axes") -> None:
    x = _LEFT
    for letter, text in _MEANINGS.items():
        box(axes, x, 2, _SQUARE, 11, _SQUARE_COLOURS[letter])
        write(axes, x + _SQUARE / 2, 7.5, letter, text_colour(_SQUARE_COLOURS[letter]), 7, "center", is_bold=True)
        write(axes, x + _SQUARE + 5, 7.5, text, MUTED)
        x += 40 + 4.6 * len(text)


def _sums(verb: Verb, rows: Sequence[str]) -> list[str]:
    """What stands below the grid, in the order of _SUMS; empty for nothing."""
    sets = verb["capabilities"]
    others = sum(name not in rows for name in sets["held"])
    mean = sum(min(each["share"], 1.0) for each in verb["held_ms"].values())
    counts = [str(count) if count else "" for count in (others, len(sets["held"]))]
    counts += [f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}" if mean else ""]
    counts += [str(len(names)) if names else "" for names in (sets["exercised"], sets["needed"])]
    untrusted = [count for count in verb["untrusted_bytes"].values() if count]
    most = max(untrusted, default=0)
    return [*counts, f"{most // 1000}k" if most >= 10_000 else str(most or ""), str(len(untrusted) or "")]


def _capability_rows(verbs: Sequence[Verb]) -> list[str]:
    """The capabilities that somebody exercised or needed, and those that a confined process held."""
    rows: set[str] = set()
    for verb in verbs:
        sets = verb["capabilities"]
        rows |= set(sets["needed"]) | set(sets["exercised"])
        rows |= set(sets["held"]) if len(sets["held"]) < _MANY else set()
    return sorted(rows)


def _capability_letter(verb: Verb, capability: str) -> str:
    sets = verb["capabilities"]
    if capability in sets["needed"]:
        return _NEEDED
    if capability in sets["exercised"]:
        return _EXERCISED
    return _HELD if capability in sets["held"] else ""


def _draw_square(axes: "Axes", x: float, y: float, width: float, verb: Verb, capability: str) -> None:
    letter = _capability_letter(verb, capability)
    if not letter:
        write(axes, x + width / 2, y + _SQUARE / 2, "·", MUTED, 7, "center")
        return
    colour = _SQUARE_COLOURS[letter]
    box(axes, x + 0.8, y + 0.8, width - 1.6, _SQUARE - 1.6, colour)
    is_needed = letter == _NEEDED
    write(axes, x + width / 2, y + _SQUARE / 2 - 1, letter, text_colour(colour), 7, "center", is_bold=is_needed)
    share = verb["held_ms"][capability]["share"] if capability in verb["held_ms"] else 0.0
    box(axes, x + 0.8, y + _SQUARE - 2.8, (width - 1.6) * min(share, 1.0), 2.0, INK)


def _spoken_sets(verb: Verb) -> str:
    sets = verb["capabilities"]
    needed = listed(map(clean, sets["needed"]), 8) if sets["needed"] else "none"
    counts = f"{len(sets['held'])} held, {len(sets['exercised'])} exercised"
    return f"{counts}, needed: {needed}, untrusted: {untrusted_words(verb)}"

"""The plot: one row for each call, one mark for each subject, milliseconds on a logarithmic axis.

Written by hand, so that nothing has to be installed; its colours can be read on white as well as on black.
"""

import math
from collections.abc import Iterator
from html import escape
from typing import Any

SHOWN = ("loopback", "bridge + host-local")
COLOURS = {
    "reference": "#8a8a8a",
    "warm": "#1f9e6e",
    "warm, mediated": "#3b82c4",
    "cold": "#d9822b",
    "cold, mediated": "#c4507a",
    "floor": "#a08a5a",
}
_INK, _RULE = "#808080", "#80808055"
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 230, 20, 44, 26
_RADIUS = 4.5


def draw(document: dict[str, Any]) -> str:
    """Draw the calls of a run.

    Returns:
        An SVG document.
    """
    rows = [
        (f"{title}: {verb}", {name: figures for name, figures in subjects.items() if name in COLOURS})
        for title, verbs in document["scenarios"].items()
        if title.startswith(SHOWN)
        for verb, subjects in verbs.items()
    ]
    height = _TOP + _ROW * len(rows) + 30
    figures = [each for _, subjects in rows for each in subjects.values()]
    axis = _Axis([figure[key] for figure in figures for key in ("median_ms", "p95_ms")] or [1.0])
    body = [*_legend(), *axis.draw(height - 30)]
    for number, (label, subjects) in enumerate(rows):
        body += _row(label, subjects, _TOP + _ROW * (number + 0.5), axis)
    alternative = "Milliseconds of each call for each subject: a dot at the median, a line to the 95th percentile"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" font-family="sans-serif"'
        f' font-size="12" fill="{_INK}">\n<title>{alternative}</title>\n' + "\n".join(body) + "\n</svg>\n"
    )


class _Axis:
    """Milliseconds to places.

    Args:
        values: All that must have one.
    """

    def __init__(self, values: list[float]) -> None:
        self._low = math.floor(math.log10(max(min(values), 0.01)))
        self._high = max(math.log10(max(values)), self._low + 1)

    def place(self, milliseconds: float) -> float:
        part = (math.log10(max(milliseconds, 0.01)) - self._low) / (self._high - self._low)
        return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

    def draw(self, bottom: float) -> Iterator[str]:
        decades = range(self._low, math.ceil(self._high) + 1)
        for tick in (step * 10.0**decade for decade in decades for step in (1, 2, 5)):
            x = self.place(tick)
            if x <= _WIDTH - _RIGHT:
                yield f'<path d="M{x} {_TOP}V{bottom}" stroke="{_RULE}"/>'
                yield _text(x, bottom + 16, f"{tick:g}" + (" ms" if tick == 10.0**self._low else ""), "middle")


def _legend() -> Iterator[str]:
    x = 10.0
    for name, colour in COLOURS.items():
        yield f'<circle cx="{x:g}" cy="16" r="{_RADIUS}" fill="{colour}"/>'
        yield _text(x + 9, 20, name)
        x += 30 + 6.6 * len(name)


def _row(label: str, subjects: dict[str, Any], y: float, axis: _Axis) -> Iterator[str]:
    yield _text(_LEFT - 12, y + 4, label, "end")
    for name, figures in subjects.items():
        colour, x = COLOURS[name], axis.place(figures["median_ms"])
        yield f'<path d="M{x} {y}H{axis.place(figures["p95_ms"])}" stroke="{colour}" stroke-width="2"/>'
        yield f'<circle cx="{x}" cy="{y}" r="{_RADIUS}" fill="{colour}"><title>{escape(name)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'

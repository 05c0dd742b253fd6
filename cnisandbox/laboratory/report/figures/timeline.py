"""The figures of exposure over time: the processes of a call, and how many capabilities each holds when.

Privilege: none.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnisandbox.laboratory.report.figures.board import (
    INK,
    MUTED,
    ON_STRONG,
    OUTSIDE,
    SERIES,
    WIDTH,
    WORKS,
    Figure,
    board,
    box,
    finished,
    rule,
    write,
)
from cnisandbox.laboratory.report.schema import Exposure, Process, Verb
from cnisandbox.laboratory.report.wording import amount, capability_name, clean, cut, listed, main_verb, milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LANE, _LANE_HEAD, _LANE_LABEL = 14.0, 22.0, 150.0
_SCALE_TICKS = 6
_MANY = 20  # capabilities; who holds so many holds what root has


class _Class(NamedTuple):
    """How a time with so many effective capabilities is drawn."""

    least: int
    text: str
    colour: str
    thickness: float


_CLASSES = (
    _Class(_MANY, f"{_MANY} or more capabilities", OUTSIDE, 11.0),
    _Class(2, "2 or more", WORKS, 8.0),
    _Class(1, "one", SERIES, 5.0),
    _Class(0, "none", MUTED, 1.6),
)


class _Lane(NamedTuple):
    """What is drawn in one line: a process, or several of one kind, each of which begins after the end of the other."""

    title: str
    processes: list[Process]


def draw(name: str, exposures: Sequence[tuple[Exposure, Verb]]) -> Figure:
    """Draw the processes of a plugin's calls, column by column.

    Args:
        name: What was measured.
        exposures: Its exposures, with the verb of each that is to be drawn.
    """
    lanes = [_lanes(exposure["plugin"], verb["processes"]) for exposure, verb in exposures]
    height = 30 + sum(map(len, lanes)) * _LANE + len(exposures) * _LANE_HEAD + 30
    drawing, axes = board(height)
    longest = max((verb["duration_ms"]["median"] for _, verb in exposures), default=0.0)
    longest = max([longest, *(process["lived_ms"][1] for _, verb in exposures for process in verb["processes"]), 0.001])
    scale = (WIDTH - _LANE_LABEL - 20) / longest

    def place(moment: float) -> float:
        return _LANE_LABEL + min(max(moment, 0.0), longest) * scale

    _draw_time_legend(axes)
    y = 30.0
    for (exposure, verb), drawn in zip(exposures, lanes, strict=True):
        duration = milliseconds(verb["duration_ms"]["median"])
        write(axes, 0, y + 14, cut(exposure["column"], 24), INK, 8.5, is_bold=True)
        write(axes, _LANE_LABEL, y + 14, f"median {duration} ms", MUTED)
        y += _LANE_HEAD
        for lane in drawn:
            write(axes, 8, y + _LANE / 2, cut(lane.title, 34), INK, 7)
            for process in lane.processes:
                _draw_process(axes, y + _LANE / 2, process, place)
            y += _LANE
    _draw_scale(axes, y + 8, longest, place)
    spoken = "; ".join(
        f"{clean(exposure['column'])}: {milliseconds(verb['duration_ms']['median'])} ms, "
        + listed([_spoken(lane) for lane in drawn], 8)
        for (exposure, verb), drawn in zip(exposures, lanes, strict=True)
    )
    return finished(
        f"time-{_slug(name)}",
        drawing,
        f"{cut(name, 60)}, {cut(main_verb(exposures[0][0]), 12)}: each process of the median of the rounds that were "
        "traced, from its start to its end, in milliseconds; beside the column the median of those that were not. "
        "The thicker a bar, the more capabilities the process holds effectively; the number is how many.",
        f"Processes over time. {spoken}.",
    )


def _slug(name: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else f"-{ord(each):x}" for each in name)


def _lanes(plugin: str, processes: Sequence[Process]) -> list[_Lane]:
    lanes: list[_Lane] = []
    last: dict[tuple[str, int | None], list[Process]] = {}
    for process in processes:
        key = _process_title(plugin, process), process["parent"]
        if key in last and last[key][-1]["lived_ms"][1] <= process["lived_ms"][0]:
            last[key].append(process)
            continue
        last[key] = [process]
        lanes.append(_Lane(key[0], last[key]))
    return [
        lane._replace(title=f"{lane.title} ({len(lane.processes)} times)") if len(lane.processes) > 1 else lane
        for lane in lanes
    ]


def _process_title(plugin: str, process: Process) -> str:
    """Name a process by its role where it executes the plugin, else by its program."""
    if process["name"] == plugin and process["role"]:
        return process["role"]
    return f"{process['name']}, delegate" if process["role"] == "delegate" else process["name"]


def _spoken(lane: _Lane) -> str:
    held = (len(each["effective"]) for process in lane.processes for each in process["credentials"])
    return f"{cut(lane.title, 40)} with at most {amount(max(held, default=0), 'capability', 'capabilities')}"


def _draw_time_legend(axes: "Axes") -> None:
    x = _LANE_LABEL
    for item in _CLASSES:
        box(axes, x, 8 - item.thickness / 2, 26, item.thickness, item.colour)
        write(axes, x + 31, 8, item.text, MUTED)
        x += 50 + 4.6 * len(item.text)


def _draw_process(axes: "Axes", y: float, process: Process, place: Callable[[float], float]) -> None:
    began, ended = process["lived_ms"]
    changes = sorted(process["credentials"], key=lambda credentials: credentials["at_ms"])
    moments = [max(began, change["at_ms"]) for change in changes] + [ended]
    for change, since, until in zip(changes, moments, moments[1:], strict=False):
        count = len(change["effective"])
        item = next(item for item in _CLASSES if count >= item.least)
        left, right = place(since), place(until)
        box(axes, left, y - item.thickness / 2, max(right - left, 0.4), item.thickness, item.colour)
        words = capability_name(change["effective"][0]) if count == 1 else str(count)
        if count and right - left > 4.6 * len(words) + 6:
            is_inside = item.thickness > 7
            write(
                axes,
                (left + right) / 2,
                y if is_inside else y - 5.4,
                words,
                ON_STRONG if is_inside else MUTED,
                6.5,
                "center",
                is_bold=is_inside,
            )


def _draw_scale(axes: "Axes", y: float, longest: float, place: Callable[[float], float]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    rule(axes, (place(0), place(longest)), (y, y))
    for tick in MaxNLocator(_SCALE_TICKS).tick_values(0, longest):
        if 0 <= tick <= longest:
            rule(axes, (place(tick), place(tick)), (y, y + 3))
            write(axes, place(tick), y + 10, f"{tick:g}", MUTED, 7, "center")
    write(axes, WIDTH - 16, y + 10, "ms", MUTED, 7)

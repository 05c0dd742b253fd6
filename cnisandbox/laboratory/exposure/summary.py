"""Statistics of a few rounds, and of intervals of time. Pure."""

import statistics
from collections.abc import Iterable, Sequence

Interval = tuple[int, int]
"""From, to; in nanoseconds, the end not included."""


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Give lower quartile, median and upper quartile; of a single value, three times that value.

    Quartiles lie between the values that there are, never outside (the inclusive method).
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


def median_index(values: Sequence[float]) -> int:
    """Say which round is the median one: of an even number the lower of the two."""
    return sorted(range(len(values)), key=lambda index: values[index])[(len(values) - 1) // 2]


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """Unite intervals: sorted, without overlap, and none that is empty."""
    united: list[Interval] = []
    for start, end in sorted(intervals):
        if end <= start:
            continue
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], end))
        else:
            united.append((start, end))
    return united


def length(intervals: Iterable[Interval]) -> int:
    """Say how long the union of intervals is."""
    return sum(end - start for start, end in merged(intervals))


def milliseconds(nanoseconds: float) -> float:
    """Convert, to the microsecond."""
    return round(nanoseconds / 1e6, 3)

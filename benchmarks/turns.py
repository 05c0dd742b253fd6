"""Taking turns: who is measured when, and how often."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from accounting import Cgroup, watched_memory
from measuring import Sample
from subjects import Workload


class Measured(NamedTuple):
    """What one subject has taken for one verb.

    Attributes:
        samples: One for each round.
        peaks_mib: Memory above what there was before the call.
    """

    samples: list[Sample]
    peaks_mib: list[float]


_OFTEN_S, _SELDOM_S = 0.0002, 0.005

Results = dict[str, dict[str, Measured]]  # by verb and subject


class Rounds(NamedTuple):
    """How often everything is done, one kind after the other.

    Attributes:
        warm_up: Not counted.
        measured: With a clock.
        watched: With a look at the memory again and again, and so without a clock.
    """

    warm_up: int
    measured: int
    watched: int

    def times(self, share: float) -> "Rounds":
        """A part of them, but at least one of each kind that there is."""
        return Rounds(*(math.ceil(count * share) for count in self))


def interleaved(workloads: Mapping[str, Workload], verbs: tuple[str, ...], rounds: Rounds, group: Cgroup) -> Results:
    """Run a scenario: A B C, then C B A, then B C A ...: each verb by everybody before the next verb.

    Args:
        workloads: What each subject does.
        verbs: In their order.
        rounds: How often.
        group: Where the memory of all is counted.
    """
    results = _empty(workloads, verbs)
    for number in range(rounds.warm_up + rounds.measured + rounds.watched):
        for verb in verbs:
            for name in turn(tuple(workloads), number):
                measured = results[verb][name]
                if number < rounds.warm_up:
                    workloads[name].run(verb)
                elif number < rounds.warm_up + rounds.measured:
                    measured.samples.append(workloads[name].run(verb))
                else:
                    with watched_memory(group, _OFTEN_S) as peak:
                        workloads[name].run(verb)
                    measured.peaks_mib.append(peak.mib)
    return results


def one_after_another(
    workloads: Mapping[str, Workload], verbs: tuple[str, ...], rounds: Rounds, group: Cgroup
) -> Results:
    """Run a scenario of many calls: all verbs by one subject before the next one, who needs the same pods.

    What takes seconds can be watched and measured at the same time, so there are measured rounds only.
    """
    results = _empty(workloads, verbs)
    for number in range(rounds.measured):
        for name in turn(tuple(workloads), number):
            for verb in verbs:
                with watched_memory(group, _SELDOM_S) as peak:
                    results[verb][name].samples.append(workloads[name].run(verb))
                results[verb][name].peaks_mib.append(peak.mib)
    return results


def _empty(workloads: Mapping[str, Workload], verbs: tuple[str, ...]) -> Results:
    return {verb: {name: Measured([], []) for name in workloads} for verb in verbs}


def turn(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The order of one round, so that nobody is always first, or always after the same one."""
    start = number // 2 % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if number % 2 else rotated

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


def interleaved(
    workloads: Mapping[str, Workload],
    verbs: tuple[str, ...],
    rounds: Rounds,
    group: Cgroup,
    *,
    shares_pods: bool = False,
) -> Results:
    """Run a scenario: A B C, then C B A, then B C A ...: each verb by everybody before the next verb.

    Args:
        workloads: What each subject does.
        verbs: In their order.
        rounds: How often.
        group: Where the memory of all is counted.
        shares_pods: All verbs by one subject before the next one, because both need the same pods.
    """
    results: Results = {verb: {name: Measured([], []) for name in workloads} for verb in verbs}
    for number in range(rounds.warm_up + rounds.measured + rounds.watched):
        names = turn(tuple(workloads), number)
        by_verb = ((verb, name) for verb in verbs for name in names)
        by_name = ((verb, name) for name in names for verb in verbs)
        for verb, name in by_name if shares_pods else by_verb:
            measured = results[verb][name]
            if number < rounds.warm_up:
                workloads[name].run(verb)
            elif number < rounds.warm_up + rounds.measured:
                measured.samples.append(workloads[name].run(verb))
            else:
                with watched_memory(group) as peak:
                    workloads[name].run(verb)
                measured.peaks_mib.append(peak.mib)
    return results


def turn(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The order of one round, so that nobody is always first, or always after the same one."""
    start = number // 2 % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if number % 2 else rotated

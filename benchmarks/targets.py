"""What is to be reached, and whether it was: ratios of medians of one run, on the same machine."""

from collections.abc import Callable
from typing import Any, NamedTuple

from scenarios import BRIDGE, MASQUERADED, RESERVATIONS, RUNNER, Sizes, crowd_title

# LIMIT: a cold ADD that takes so many times what the reference takes is a defect.
REGRESSION = 6.0
COLD_ADD = "cold ADD"


class Target(NamedTuple):
    """One of them.

    Attributes:
        title: What is compared.
        limit: It is met up to this value.
        value: Finds the measured value in a document; KeyError if that was not measured.
        unit: Of both; "" for a ratio.
    """

    title: str
    limit: float
    value: Callable[[dict[str, Any]], float]
    unit: str = ""

    def shown(self, value: float | None) -> str:
        """Write a value."""
        if value is None:
            return "-"
        return f"{value:.1f} {self.unit}" if self.unit else f"{value:.2f}"


class Verdict(NamedTuple):
    """What became of a target; the value is None if it was not measured."""

    target: Target
    value: float | None

    @property
    def text(self) -> str:
        """In words."""
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.target.limit else "not met"


def _ratio(scenario: str, verb: str, subject: str) -> Callable[[dict[str, Any]], float]:
    return lambda document: float(document["scenarios"][scenario][verb][subject]["ratio"])


def _growth(document: dict[str, Any]) -> float:
    return float(document["scenarios"][RESERVATIONS][str(Sizes().reservations[-1])]["warm"]["growth"])


def _zygote_memory(document: dict[str, Any]) -> float:
    return float(document["zygote"]["pss_mib"])


_CROWD = crowd_title(Sizes().pods, 32)
TARGETS = (
    Target("warm, bridge + host-local ADD, hardened", 0.6, _ratio(BRIDGE, "ADD", "warm")),
    Target("warm, bridge + host-local ADD, mediated", 0.75, _ratio(BRIDGE, "ADD", "warm, mediated")),
    Target("warm, with ipMasq: ADD", 0.3, _ratio(MASQUERADED, "ADD", "warm")),
    Target("warm, with ipMasq: DEL", 0.15, _ratio(MASQUERADED, "DEL", "warm")),
    Target("warm DEL", 0.4, _ratio(BRIDGE, "DEL", "warm")),
    Target(COLD_ADD, 3.0, _ratio(BRIDGE, "ADD", "cold")),
    Target("runner at mediated, warm, bridge ADD", 1.2, _ratio(f"{RUNNER}{BRIDGE}", "ADD", "confined, warm")),
    Target("200 pods, 32 at a time, warm, total time of ADD", 0.8, _ratio(_CROWD, "ADD", "warm")),
    Target("host-local ADD at 50,000 reservations, warm, against its own at 10", 1.2, _growth),
    Target("zygote memory, idle, all children, PSS", 60.0, _zygote_memory, "MiB"),
)


def verdicts(document: dict[str, Any]) -> list[Verdict]:
    """Compare a document with the targets."""
    return [Verdict(target, _measured(target, document)) for target in TARGETS]


def _measured(target: Target, document: dict[str, Any]) -> float | None:
    try:
        return target.value(document)
    except KeyError:
        return None

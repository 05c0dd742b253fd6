"""What is measured, by whom, and how often."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from accounting import Cgroup
from answering import Answerer
from measuring import Call, Meter
from netconfs import LOOPBACK, bridge, chain, host_local, reserve
from starting import COMMANDS, LIBRARY
from subjects import FLOOR, Asked, Attachments, NetConf, Program, Refilled, Subject, Subjects, Workload
from turns import Results, Rounds, interleaved, one_after_another

VERBS = ("ADD", "CHECK", "DEL")
BRIDGE, MASQUERADED = "bridge + host-local", "bridge + host-local, ipMasq"
CHAIN = "bridge + portmap + firewall + tuning + bandwidth"
RUNNER = "runner: "
RESERVATIONS = "host-local ADD, reservations"
# Whose time is looked into with --profile.
PROFILED = {
    BRIDGE: ("warm", "warm, mediated"),
    MASQUERADED: ("warm",),
    f"{RUNNER}{BRIDGE}": ("confined, warm",),
}

Prepare = Callable[[], Mapping[str, Workload]]
Turns = Callable[[Mapping[str, Workload], tuple[str, ...], Rounds, Cgroup], Results]


class Sizes(NamedTuple):
    """How much of it.

    Attributes:
        rounds: Of a scenario that does not take long.
        pods: In a crowd.
        reservations: Of host-local, the fewest first.
    """

    rounds: Rounds = Rounds(3, 30, 3)
    pods: int = 200
    reservations: tuple[int, ...] = (10, 1_000, 10_000, 50_000)


class Scenario(NamedTuple):
    """Verbs that are run in this order; the last one undoes the first.

    Attributes:
        title: What it is called.
        verbs: What is measured.
        prepare: Makes what each subject does, by the subject's name; ratios are those to the first one.
        rounds: How often.
        turns: In which order.
    """

    title: str
    verbs: tuple[str, ...]
    prepare: Prepare
    rounds: Rounds
    turns: Turns = interleaved


class Stage(NamedTuple):
    """Who takes part.

    Attributes:
        meter: Runs programs.
        subjects: Whose plugins.
        floor: floor.py.
        starting: starting.py.
    """

    meter: Meter
    subjects: Subjects
    floor: Answerer
    starting: Answerer


def scenarios(stage: Stage, sizes: Sizes) -> list[Scenario]:
    """List them."""
    everybody, rounds = stage.subjects, sizes.rounds
    ours = everybody[:5]
    chained = (everybody.reference, everybody.chained, everybody.chained_confined, everybody.chained_confined_cold)
    runner = (everybody.reference, everybody.runner_warm, everybody.runner_cold, everybody.runner_floor)
    few = (everybody.reference, everybody.warm, everybody.cold)
    single = partial(_single, stage)
    calls = {
        "loopback": single(ours, _loopback, ifname="lo", floor="loopback"),
        BRIDGE: single(ours, _plain, floor="plain"),
        MASQUERADED: single(ours, _masqueraded, floor="masqueraded"),
        f"{RUNNER}loopback": single(runner, _loopback, ifname="lo"),
        f"{RUNNER}{BRIDGE}": single(runner, _plain),
        f"{RUNNER}{MASQUERADED}": single(runner, _masqueraded),
    }
    reservations = tuple(map(str, sizes.reservations))
    return [
        Scenario("VERSION", ("VERSION",), lambda: _starts(stage, ours), rounds),
        Scenario(f"{RUNNER}VERSION", ("VERSION",), single(runner, _loopback), rounds),
        *(Scenario(title, VERBS, prepare, rounds) for title, prepare in calls.items()),
        # Without CHECK: that of portmap 1.1.1 fails, since it looks for IPv6 rules that ADD never made.
        Scenario(CHAIN, ("ADD", "DEL"), single(chained, chain, floor="plain"), rounds.times(0.3)),
        Scenario(RESERVATIONS, reservations, lambda: _reserved(stage, sizes, few), rounds.times(0.3)),
        Scenario("call a function confined", ("start",), lambda: _libraries(stage), rounds),
        # One pass is 200 calls, and its own warm-up; cold calls, one at a time, are above.
        _crowd(stage, sizes, 1, few[:2], Rounds(0, 1, 0)),
        _crowd(stage, sizes, 8, few, Rounds(0, 1, 0)),
        _crowd(stage, sizes, 32, (*few, everybody.warm_mediated), Rounds(0, 2, 0)),
    ]


def crowd_title(pods: int, at_a_time: int) -> str:
    """What the scenario with many pods is called."""
    return f"pods: {pods}, {at_a_time} at a time"


def crowd_pods(sizes: Sizes) -> list[str]:
    """The netns of the many pods; the subjects use them one after the other."""
    return [f"crowd{number}" for number in range(sizes.pods)]


def _single(
    stage: Stage,
    subjects: Sequence[Subject],
    netconfs: Callable[[Subject], list[NetConf]],
    *,
    ifname: str = "eth0",
    floor: str = "",
) -> Prepare:
    """One attachment of one pod."""

    def prepare() -> dict[str, Workload]:
        workloads: dict[str, Workload] = {
            subject.name: Attachments(stage.meter, subject, netconfs(subject), [subject.pod], ifname)
            for subject in subjects
        }
        return workloads | ({FLOOR: Asked(stage.floor, f"{floor} {{}}")} if floor else {})

    return prepare


def _crowd(stage: Stage, sizes: Sizes, at_a_time: int, subjects: Sequence[Subject], rounds: Rounds) -> Scenario:
    """One attachment of each of many pods."""

    def prepare() -> dict[str, Workload]:
        pods = crowd_pods(sizes)
        workloads: dict[str, Workload] = {
            subject.name: Attachments(stage.meter, subject, [bridge(subject, "crowd")], pods, "eth0", at_a_time)
            for subject in subjects
        }
        return workloads | {FLOOR: Asked(stage.floor, "crowd {}")}

    return Scenario(crowd_title(sizes.pods, at_a_time), VERBS, prepare, rounds, one_after_another)


def _starts(stage: Stage, subjects: Sequence[Subject]) -> dict[str, Workload]:
    """A call that does nothing, and the interpreter by itself."""
    return {**_single(stage, subjects, _loopback)(), FLOOR: _interpreter(stage)}


def _interpreter(stage: Stage) -> Program:
    """The floor of what sends no message to the kernel."""
    return Program(stage.meter, Call(sys.executable, {"PATH": os.environ["PATH"]}, b"", ("-I", "-S", "-c", "pass")))


def _reserved(stage: Stage, sizes: Sizes, subjects: Sequence[Subject]) -> dict[str, Workload]:
    """One network for each number of reservations."""

    def network(subject: Subject, reservations: int) -> Attachments:
        reserve(subject, reservations)
        return Attachments(stage.meter, subject, [host_local(subject, reservations)], [subject.pod])

    workloads: dict[str, Workload] = {
        subject.name: Refilled({str(number): network(subject, number) for number in sizes.reservations})
        for subject in subjects
    }
    return workloads | {FLOOR: _interpreter(stage)}


def _libraries(stage: Stage) -> dict[str, Workload]:
    return {name: Asked(stage.starting, name) for name in (*COMMANDS, LIBRARY, FLOOR)}


def _loopback(_subject: Subject) -> list[NetConf]:
    return [LOOPBACK]


def _plain(subject: Subject) -> list[NetConf]:
    return [bridge(subject, "plain")]


def _masqueraded(subject: Subject) -> list[NetConf]:
    return [bridge(subject, "masq")]

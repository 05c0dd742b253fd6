"""Measures what the calls of a plugin expose: the exposure document.

Each round is two lives of a container: one whose calls are only timed, and one whose calls are traced. One more life is
followed system call by system call, and for what is needed there is one for each capability (ablation.py). How long
calls take is from the first kind; who held what for how long from the second; all that has no time from the third.

A process of its own does it all. When that ends, for whatever reason, its stations end with it, and its trace instance
is removed.

Privilege: everything.
"""

import contextlib
import json
import os
import select
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import prctl

from cnisandbox import errors
from cnisandbox.errors import CniError, EnvironmentFailure, InvalidConfig, InvalidEnvironment, IoFailure, quoted
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.exposure import bpf, course, state, summary, sysnames, tracing
from cnisandbox.laboratory.exposure.ablation import Ablated, ablate
from cnisandbox.laboratory.exposure.capability import NAMES, name_of
from cnisandbox.laboratory.exposure.course import Course, ProcessKey, Step, TaskKey
from cnisandbox.laboratory.exposure.observing import Observation, observe
from cnisandbox.laboratory.exposure.station import Outcome, Started
from cnisandbox.laboratory.exposure.subject import COLUMNS, PLUGIN_DIRECTORIES, VERBS, Subject, prepare, subject
from cnisandbox.laboratory.exposure.trial import Trial, complaint, trial

__all__ = ["COLUMNS", "DEFAULT_ROUNDS", "VERBS", "Progress", "measure"]

DEFAULT_ROUNDS = 5
MAX_ROUNDS = 1000

Progress = Callable[[int, int, str], None]
"""Steps done, steps in all as far as is known, and what is done next."""

_CLONE_NEWNS = 0x00020000
_MS_PRIVATE_RECURSIVE = (1 << 18) | (1 << 14)
_TIME_LIMIT_S = 600.0
# How many samples of what a call leaves show what is different each time.
_STATES = 3

CANNOT_SEE = (
    "what another netconf, another verb, or a failure would have the plugin do: only what these calls do is measured",
    "capabilities that are looked at without the kernel's cap_capable(), such as in the sets that an exec computes",
    "whether a check was decisive: the kernel counts CAP_SYS_ADMIN for memory that it would give to everybody; "
    "`needed`, by ablation, is not misled by that",
    "needs that two capabilities can each satisfy: without one of them the call works",
    "input that comes as environment variables or arguments, by a socket, a file mapping or splice(): not counted",
    "what a process has learned in another way from one that has read untrusted input",
    "files that are opened without a system call of the call's own processes, such as an interpreter by the kernel",
    "network namespaces through sockets that belong to them, and through processes of the same user",
    "what the kernel does on nobody's behalf: timers, workqueues, the receive path",
)


class _Traced(NamedTuple):
    """A call with times."""

    course: Course
    outcome: Outcome


class _Rounds(NamedTuple):
    """What was recorded of a verb."""

    timed: list[Outcome]
    traced: list[_Traced]
    states: list[dict[str, str]]
    observations: list[Observation]


def measure(
    plugin_path: str,
    netconf: Mapping[str, Any],
    column: str,
    verbs: Sequence[str] = VERBS,
    rounds: int = DEFAULT_ROUNDS,
    progress: Progress | None = None,
    *,
    has_details: bool = False,
) -> dict[str, Any]:
    """Measure a plugin in a column.

    Args:
        plugin_path: Path of the plugin, or its name.
        netconf: What it is given; or a list of plugins that has it, of which those before it are called as well.
        column: "root", "netadmin", "hardened", "mediated" or "runner".
        verbs: Out of "ADD", "CHECK", "DEL"; one that the netconf's version does not have is left out.
        rounds: How often each call is timed, and how often traced.
        progress: Is told what is done.
        has_details: Whether each verb has "details": durations under trace, input by source, filters by process.

    Returns:
        The exposure document.

    Raises:
        CniError: the plugin cannot be measured, or its calls fail as they are.
    """
    if os.geteuid() != 0:
        raise InvalidEnvironment("measure plugin: only root can", "use sudo")
    if not 1 <= rounds <= MAX_ROUNDS:
        raise InvalidConfig(f"measure {rounds} rounds: must be 1 to {MAX_ROUNDS}")
    wanted = subject(plugin_path, netconf, column)
    chosen = wanted.verbs(verbs)
    if not chosen:
        raise InvalidConfig(f"measure {quoted(wanted.name)}: cniVersion {wanted.version} has none of these verbs")
    note = prepare(wanted)
    answer = _in_process(lambda report: _verbs(wanted, chosen, rounds, report), progress or (lambda *_: None))
    measured: dict[str, Any] = answer["verbs"]
    cannot_see = [*CANNOT_SEE, *answer["remarks"], *([note] if note else [])]
    for verb, members in measured.items():
        ratio = members["details"]["traced_ms"]["median"] / max(members["duration_ms"]["median"], 0.001)
        cannot_see.append(
            f"{verb}: the time that tracing takes: by the medians a traced call lasts {ratio:.2f} times as long"
        )
        if not has_details:
            del members["details"]
    return {
        "plugin": wanted.name,
        "path": wanted.path,
        "sha256": wanted.sha256,
        "column": column,
        "netconf": dict(netconf),
        "rounds": rounds,
        "verbs": measured,
        "cannot_see": cannot_see,
    }


# The process that measures


def _in_process(work: Callable[[Progress], object], progress: Progress) -> Any:
    """Have a process of its own work, which may enter namespaces and die as it likes."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _work(writer, work)
    os.close(writer)
    answer: Any = None
    try:
        for line in _lines(reader):
            said = json.loads(line)
            if "progress" in said:
                progress(*said["progress"])
            else:
                answer = said
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        _sweep(pid)
    if answer is None:
        raise IoFailure("measure plugin: the process that measures has died, or takes too long")
    if "error" in answer:
        name, msg, details = answer["error"]
        kind = getattr(errors, name)
        # some have fields of their own, which nobody asks for here
        raise kind(msg, details) if kind.__init__ is CniError.__init__ else CniError(msg, details)
    return answer["value"]


def _lines(fd: int) -> Iterator[bytes]:
    """Read lines until the end, or until there is none for too long."""
    begun = b""
    while select.select([fd], [], [], _TIME_LIMIT_S)[0] and (piece := os.read(fd, 1 << 16)):
        *whole, begun = (begun + piece).split(b"\n")
        yield from whole


def _work(writer: int, work: Callable[[Progress], object]) -> NoReturn:
    def say(said: object) -> None:
        data = memoryview(json.dumps(said).encode() + b"\n")
        while data:
            data = data[os.write(writer, data) :]

    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us is asked, and ends us
        raw.syscall("unshare", _CLONE_NEWNS)
        raw.syscall("mount", b"none\0", b"/\0", b"\0", _MS_PRIVATE_RECURSIVE, b"\0")
        say({"value": work(lambda done, total, what: say({"progress": [done, total, what]}))})
    except CniError as error:
        say({"error": [type(error).__name__, error.msg, error.details]})
    except Exception as error:
        if os.environ.get("CNISANDBOX_TRACEBACK"):
            raise
        say(
            {
                "error": [
                    "CniError",
                    f"measure plugin: {type(error).__name__}: {error}",
                    "this is a defect of cnisandbox",
                ]
            }
        )
    finally:
        os._exit(0)


def _sweep(owner: int) -> None:
    """Remove what a process that was killed has left in tracefs."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(Exception):
            raw.syscall("unshare", _CLONE_NEWNS)
            raw.syscall("mount", b"none\0", b"/\0", b"\0", _MS_PRIVATE_RECURSIVE, b"\0")
            tracing.sweep(owner)
        os._exit(0)
    os.waitpid(pid, 0)


def _verbs(wanted: Subject, verbs: list[str], rounds: int, progress: Progress) -> dict[str, object]:
    recorded = {verb: _Rounds([], [], [], []) for verb in verbs}
    remarks: list[str] = []
    steps = 2 * rounds + 1
    subject_text = (
        f"{wanted.name} as {wanted.column}" if wanted.column != "runner" else f"{wanted.name} under the runner"
    )
    with tracing.instance(os.getpid()) as instance:
        with trial(wanted) as made:
            progress(0, steps, f"{subject_text}: system calls")
            remarks += _life(made, recorded, _observed)
        for number in range(rounds):
            progress(1 + 2 * number, steps, f"{subject_text}: round {number + 1} of {rounds}")
            with trial(wanted) as made:
                remarks += _life(made, recorded, _timed)
            with instance.armed(), trial(wanted) as made:
                progress(2 + 2 * number, steps, f"{subject_text}: round {number + 1} of {rounds}, traced")
                remarks += _life(made, recorded, lambda made, verb, rounds_of: _traced(made, verb, rounds_of, instance))
    exercised = {verb: _exercised(of_verb) for verb, of_verb in recorded.items()}
    tried = {verb: {*names, *_kept(recorded[verb])} for verb, names in exercised.items()}
    capabilities = set().union(*tried.values())
    done = [steps]

    def told(what: str) -> None:
        progress(done[0], steps + len(capabilities), f"{subject_text}: {what}")
        done[0] += 1

    expected = {verb: state.Expected(of_verb.states) for verb, of_verb in recorded.items()}
    ablated = ablate(wanted, tried, expected, told)
    if not instance.has_capability_checks:
        remarks.append("capability checks: this kernel has no tracepoint for them (Linux 6.13 has)")
    measured = {
        verb: _document(wanted.name, verb, recorded[verb], exercised[verb], ablated[verb], remarks) for verb in recorded
    }
    return {"verbs": measured, "remarks": remarks}


Look = Callable[[Trial, str, _Rounds | None], Outcome]


def _life(made: Trial, recorded: dict[str, _Rounds], look: Look) -> list[str]:
    """Make the calls of a life; those that are not measured only as far as others need them.

    Args:
        made: The container.
        recorded: What is measured. A CHECK that fails is taken out: some plugins' never succeeds.
        look: Makes a call and records it.

    Returns:
        What a reader should know.

    Raises:
        EnvironmentFailure: one of them fails.
    """
    remarks: list[str] = []
    last = [verb for verb in VERBS if verb in recorded][-1]
    for verb in VERBS[: VERBS.index(last) + 1]:
        if verb == "CHECK" and verb not in recorded:
            continue
        rounds_of = recorded.get(verb)
        outcome = made.call(verb) if rounds_of is None else look(made, verb, rounds_of)
        if outcome.status and verb == "CHECK" and len(recorded) > 1:
            del recorded[verb]
            remarks.append(f"CHECK: the call fails as it is, and was not measured: {complaint(outcome)}")
        elif outcome.status:
            raise EnvironmentFailure(
                f"measure {verb}: the call fails as it is: {complaint(outcome)}",
                "it is made as root in namespaces of its own, which have only the links that the netconf names",
            )
    return remarks


def _timed(made: Trial, verb: str, rounds_of: _Rounds | None) -> Outcome:
    assert rounds_of is not None
    outcome = made.call(verb)
    rounds_of.timed.append(outcome)
    if len(rounds_of.states) < _STATES and outcome.status == 0:
        rounds_of.states.append(made.state())
    return outcome


def _traced(made: Trial, verb: str, rounds_of: _Rounds | None, instance: tracing.Instance) -> Outcome:
    assert rounds_of is not None

    def look(started: Started) -> tuple[Course, Outcome]:
        with instance.following(started.pid) as finish:
            started.go()
            outcome = started.wait()
            made.station.settle()
            return Course(finish(), started.pid), outcome

    seen, outcome = made.watch(verb, look)
    rounds_of.traced.append(_Traced(seen, outcome))
    return outcome


def _observed(made: Trial, verb: str, rounds_of: _Rounds | None) -> Outcome:
    assert rounds_of is not None

    def look(started: Started) -> tuple[Observation, Outcome]:
        seen = observe(made.station, started)
        return seen, seen.outcome

    seen, outcome = made.watch(verb, look)
    rounds_of.observations.append(seen)
    rounds_of.states.append(made.state())
    return outcome


# The document


def _exercised(rounds_of: _Rounds) -> dict[str, int]:
    """Count the checks for each capability: the median of the rounds, but at least one if there ever was one."""
    counts: dict[str, list[int]] = {}
    for index, each in enumerate(rounds_of.traced):
        for task in each.course.tasks:
            for number, count in task.exercised.items():
                counts.setdefault(name_of(number), [0] * len(rounds_of.traced))[index] += count
    return {name: max(1, int(statistics.median(counts[name]))) for name in sorted(counts, key=NAMES.index)}


def _kept(rounds_of: _Rounds) -> set[str]:
    """Name the capabilities that a process kept when it gave up others: it means to use them."""
    (seen,) = rounds_of.observations
    credentials = [entry.credential for entries in seen.known.values() for entry in entries]
    most = credentials[0].effective
    return {name for each in credentials if each.effective != most for name in course.effective(each)}


def _document(
    name: str,
    verb: str,
    rounds_of: _Rounds,
    exercised: Mapping[str, int],
    ablated: Mapping[str, Ablated],
    remarks: list[str],
) -> dict[str, object]:
    (seen,) = rounds_of.observations
    timelines, unmatched = [], 0
    for each in rounds_of.traced:
        timeline, count = course.steps(each.course, seen.known)
        timelines.append(timeline)
        unmatched = max(unmatched, count)
    if unmatched:
        remarks.append(f"{verb}: {unmatched} changes of credentials that were timed but not read")
    held = [_held(each, timeline) for each, timeline in zip(rounds_of.traced, timelines, strict=True)]
    held_names = sorted({name for each in held for name in each}, key=NAMES.index)
    durations = [each.duration_ns for each in rounds_of.timed]
    traced = [each.course.end_ns - each.course.start_ns for each in rounds_of.traced]
    median = summary.median_index(traced)
    used = set(seen.used).union(*(task.used for each in rounds_of.traced for task in each.course.tasks))
    return {
        "duration_ms": _spread(durations),
        "processes": _processes(rounds_of.traced[median].course, timelines[median], seen, name),
        "capabilities": {
            "held": held_names,
            "exercised": dict(exercised),
            "needed": [name for name, each in ablated.items() if not each.works],
            "ablation": {name: each._asdict() for name, each in ablated.items()},
        },
        "held_ms": {name: _held_spread([each.get(name, 0) for each in held], traced) for name in held_names},
        "untrusted_bytes": {name: sum(seen.untrusted.get(name, {}).values()) for name in held_names},
        "syscalls": _syscalls(used, seen),
        "files": {"opened": sorted(seen.opened), "written": sorted(seen.written)},
        "netns_handles": sorted(seen.handles),
        "details": {
            "traced_ms": _spread([each.outcome.duration_ns for each in rounds_of.traced]),
            "held_ms_values": {name: [summary.milliseconds(each.get(name, 0)) for each in held] for name in held_names},
            "untrusted_sources": {name: dict(counts) for name, counts in seen.untrusted.items()},
            "filters": _filters(seen),
        },
    }


def _held(each: _Traced, timeline: Mapping[TaskKey, Sequence[Step]]) -> dict[str, int]:
    return {name: summary.length(intervals) for name, intervals in course.held(each.course, timeline).items()}


def _spread(values_ns: Sequence[int]) -> dict[str, object]:
    values = [summary.milliseconds(value) for value in values_ns]
    q1, median, q3 = (round(value, 3) for value in summary.quartiles(values))
    return {"median": median, "q1": q1, "q3": q3, "values": values}


def _held_spread(values_ns: Sequence[int], durations_ns: Sequence[int]) -> dict[str, object]:
    members = _spread(values_ns)
    del members["values"]
    shares = [value / max(duration, 1) for value, duration in zip(values_ns, durations_ns, strict=True)]
    return members | {"share": round(min(1.0, summary.quartiles(shares)[1]), 4)}


def _processes(
    of: Course, timeline: Mapping[TaskKey, Sequence[Step]], seen: Observation, name: str
) -> list[dict[str, object]]:
    keys = of.processes()
    programs: dict[ProcessKey, str] = {}
    found: list[dict[str, object]] = []
    for key in keys:
        tasks = of.tasks_of(key)
        programs[key] = tasks[0].programs[-1][1] if tasks[0].programs else programs.get(key[:-1], "")
        role = seen.processes[key].role if key in seen.processes else ""
        found.append(
            {
                "name": os.path.basename(programs[key]),
                "role": role or _role(programs[key], name, is_executed=bool(tasks[0].programs)),
                "parent": keys.index(key[:-1]) if key else None,
                "program": programs[key],
                "lived_ms": [
                    summary.milliseconds(min(task.start_ns for task in tasks) - of.start_ns),
                    summary.milliseconds(max(task.end_ns or of.end_ns for task in tasks) - of.start_ns),
                ],
                "credentials": _credentials(of, key, timeline),
            }
        )
    return found


def _role(program: str, name: str, *, is_executed: bool) -> str:
    """Say what a process is for that does not say so itself.

    Args:
        program: What it executes.
        name: Of the plugin.
        is_executed: Whether it has executed that itself.
    """
    if not is_executed:
        return "forked"
    if os.path.basename(program) == name:
        return "plugin"
    return "delegate" if os.path.dirname(program) in PLUGIN_DIRECTORIES else "program"


def _credentials(of: Course, key: ProcessKey, timeline: Mapping[TaskKey, Sequence[Step]]) -> list[dict[str, object]]:
    """List what a process held from when on; of its threads only what they change."""
    steps: list[Step] = []
    for task in of.tasks_of(key):
        own = timeline[task.key]
        steps += own if task.key[1] == 0 else [step for step in own if step.event != course.START]
    return [
        {
            "at_ms": summary.milliseconds(step.at_ns - of.start_ns),
            "event": step.event,
            "uid": step.credential.uid,
            "effective": course.effective(step.credential),
            "bounding_count": step.credential.bounding.bit_count(),
        }
        for step in _without_repetitions(sorted(steps, key=lambda step: step.at_ns))
    ]


def _without_repetitions(steps: Sequence[Step]) -> list[Step]:
    """Of the same event several times in a row, such as one capability after the other leaving a set, keep the last."""
    return [
        step for step, after in zip(steps, [*steps[1:], None], strict=True) if not after or step.event != after.event
    ]


def _syscalls(used: set[int], seen: Observation) -> dict[str, object]:
    """Count what the filters of the processes that have read untrusted input allow: of the one that may most."""
    readers = [each for each in seen.processes.values() if each.has_read]
    counts = [_allowed(each.filters) for each in readers]
    allowed = None if not counts or None in counts else max(count for count in counts if count is not None)
    names = sorted(sysnames.name_of(number) for number in used)
    return {"used": names, "allowed": allowed, "total": len(sysnames.all_names())}


def _allowed(filters: tuple[bytes, ...]) -> int | None:
    if not filters:
        return None
    programs = [bpf.decode(each) for each in filters]
    return sum(bpf.can_pass(programs, number, sysnames.arch()) for number in sysnames.all_names())


def _filters(seen: Observation) -> list[dict[str, object]]:
    return [
        {
            "process": list(key),
            "role": each.role,
            "has_read_untrusted": each.has_read,
            "allowed": _allowed(each.filters),
        }
        for key, each in seen.processes.items()
    ]

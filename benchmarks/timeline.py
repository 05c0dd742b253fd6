"""Where the time of a warm ADD goes, by process: who runs when, for how long, and for whom everybody waits."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from measuring import median
from subjects import FLOOR, Workload
from tracer import Event, Tracer

RUNS = 21
_SENDS = {44, 46} if os.uname().machine == "x86_64" else {206, 211}  # sendto, sendmsg
_SHOWN_MS = 0.05
# What children are called that are forked while somebody looks.
_CHILDREN = {"zygote": "the next slot", "the next slot": "its processes"}


class Share(NamedTuple):
    """What one process has of a call; milliseconds, but for the last two.

    Attributes:
        begins, ends: When it first and last runs, from the start of the launcher.
        runs: How long it has a processor.
        alone: Of that, while nobody else of the call has one.
        in_kernel: Of `runs`, in system calls.
        in_sends: Of that, in sendto() and sendmsg(): for a worker, what the kernel does for its netlink messages.
        calls: System calls.
        faults: Page faults.
    """

    begins: float
    ends: float
    runs: float
    alone: float
    in_kernel: float
    in_sends: float
    calls: float
    faults: float


class Timeline(NamedTuple):
    """A call.

    Attributes:
        total_ms: From the start of the launcher to its end.
        shares: By what a process is.
        idle_ms: How long nobody of the call had a processor.
        afterwards: What each process does from then on, until everything waits again: it ends, or makes the next slot.
    """

    total_ms: float
    shares: dict[str, Share]
    idle_ms: float
    afterwards: dict[str, Share]


class _Sums:
    """What is added up in one part of the events."""

    def __init__(self, began: float) -> None:
        self.idle_ms = 0.0
        self._began = self._last = began
        self._spans: dict[str, list[float]] = defaultdict(list)
        self._fields: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, event: Event, names: dict[int, str], running: dict[int, int], in_call: dict[int, int]) -> None:
        """Count what has happened up to an event, and the event."""
        step = max(0.0, event.at_ms - self._last)
        busy = [pid for pid in running.values() if pid in names]
        self.idle_ms += step if not busy else 0.0
        for pid in busy if step else ():
            fields = self._fields[names[pid]]
            fields["runs"] += step
            fields["alone"] += step if len(busy) == 1 else 0.0
            fields["in_kernel"] += step if pid in in_call else 0.0
            fields["in_sends"] += step if in_call.get(pid) in _SENDS else 0.0
            self._spans[names[pid]] += (self._last - self._began, event.at_ms - self._began)
        self._last = max(self._last, event.at_ms)
        if event.at_ms >= self._began and event.pid in names:
            self._fields[names[event.pid]]["calls"] += event.name == "sys_enter"
            self._fields[names[event.pid]]["faults"] += event.name == "page_fault_user"

    def shares(self) -> dict[str, Share]:
        """Say what each process has, of those that have something."""
        return {
            name: Share(
                min(self._spans[name]),
                max(self._spans[name]),
                *(fields[field] for field in Share._fields[2:]),
            )
            for name, fields in self._fields.items()
            if fields["runs"] >= _SHOWN_MS
        }


def timeline(events: Sequence[Event], roles: dict[int, str], harness: int) -> Timeline:
    """Fold events into what each process has of a call.

    Args:
        events: In the order of time.
        roles: What processes are that were there before.
        harness: Who starts the launcher: thread id in the first pid namespace.
    """
    names = dict(roles)
    launcher = next(e.number("child_pid") for e in events if e.name == "sched_process_fork" and e.pid == harness)
    names[launcher] = "launcher"
    began = next(e.at_ms for e in events if e.name == "sched_process_fork" and e.pid == harness)
    ended = next(e.at_ms for e in events if e.name == "sched_process_exit" and e.pid == launcher)
    running: dict[int, int] = {}
    in_call: dict[int, int] = {}
    call, rest = _Sums(began), _Sums(ended)
    for event in events:
        (call if event.at_ms <= ended else rest).add(event, names, running, in_call)
        _follow(event, names, running, in_call)
    return Timeline(ended - began, call.shares(), call.idle_ms, rest.shares())


def _follow(event: Event, names: dict[int, str], running: dict[int, int], in_call: dict[int, int]) -> None:
    """Note who runs where after an event, what it does, and what new processes are."""
    running[event.cpu] = event.pid
    match event.name:
        case "sched_switch":
            running[event.cpu] = event.number("next_pid")
        case "sys_enter":
            in_call[event.pid] = int(event.text.split()[1])
        case "sys_exit":
            in_call.pop(event.pid, None)
        case "sched_process_fork" if event.pid in names:
            name = names[event.pid]
            names.setdefault(event.number("child_pid"), _CHILDREN.get(name, name))
        case "sched_process_exec" if names.get(event.pid, "launcher") != "launcher":
            names[event.pid] = os.path.basename(event.text.partition("filename=")[2].split()[0])


def print_timelines(
    title: str,
    workloads: Mapping[str, Workload],
    subjects: Sequence[str],
    tracer: Tracer,
    waiting: Callable[[], list[int]],
) -> None:
    """Have ADDs made, traced and not, each of them undone, and print what each process has of them.

    Args:
        title: What is called.
        workloads: Who does what.
        subjects: Whose calls.
        tracer: What notes.
        waiting: Lists the processes that wait for calls.
    """
    for name in subjects:
        traced, untraced = [], []
        for _ in range(RUNS):
            traced.append(_traced(workloads[name], tracer, waiting()))
            untraced.append(workloads[name].run("ADD").wall_ms)
            workloads[name].run("DEL")
        total, idle = (median([getattr(found, field) for found in traced]) for field in ("total_ms", "idle_ms"))
        print(
            f"\n{title}, {name}: ADD, medians of {RUNS}, ms\n"
            f"{total:.1f} with the tracer, {median(untraced):.1f} without; nobody runs: {idle:.1f}; "
            f"floor: {_floor(workloads)}\n"
            f"{'':24} from  until   runs  alone  in the kernel  in sends  calls  faults"
        )
        for process, share in _medians([found.shares for found in traced]).items():
            print(
                f"{process:22} {share.begins:6.1f} {share.ends:6.1f} {share.runs:6.2f} {share.alone:6.2f}"
                f" {share.in_kernel:14.2f} {share.in_sends:9.2f} {share.calls:6.0f} {share.faults:7.0f}"
            )
        print("afterwards, until everything waits again:")
        for process, share in _medians([found.afterwards for found in traced]).items():
            print(f"{process:36} {share.runs:6.2f} {'':6} {share.in_kernel:14.2f} {'':9} {'':6} {share.faults:7.0f}")


def _floor(workloads: Mapping[str, Workload]) -> str:
    if FLOOR not in workloads:
        return "not measured"
    samples = []
    for _ in range(RUNS):
        samples.append(workloads[FLOOR].run("ADD").wall_ms)
        workloads[FLOOR].run("DEL")
    return f"{median(samples):.1f}"


def _traced(workload: Workload, tracer: Tracer, waiting: Sequence[int]) -> Timeline:
    pids = [os.getpid(), *waiting]
    roles = [_role(pid) for pid in pids]
    with tracer.noting(pids) as events:
        workload.run("ADD")
    workload.run("DEL")
    numbers = [event.number("pid") for event in events if event.name == "oom_score_adj_update"]
    return timeline(events, dict(zip(numbers[1:], roles[1:], strict=False)), numbers[0])


def _role(pid: int) -> str:
    """Say what a process calls itself: "cnisandbox: host worker [waiting]"."""
    title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").strip("\0")
    return title.partition(": ")[2].partition(" [")[0].replace("slot", "slot, then engine")


def _medians(calls: Sequence[Mapping[str, Share]]) -> dict[str, Share]:
    """Fold calls into one, of the processes that most of them have; the first to begin comes first."""
    shares = {}
    for name in {name: None for call in calls for name in call}:
        found = [call[name] for call in calls if name in call]
        if len(found) > RUNS // 2:
            shares[name] = Share(*map(median, zip(*found, strict=True)))
    return dict(sorted(shares.items(), key=lambda item: item[1].begins))

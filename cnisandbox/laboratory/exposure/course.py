"""The course of a call: its processes and threads, when each lived, and when which changed its credential. Pure.

A task is known by how it came about: its process is the third that the first one made, it is the second thread of that
process. So tasks of two runs of the same call can be compared although their numbers differ.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cnisandbox.laboratory.exposure import sysnames
from cnisandbox.laboratory.exposure.capability import Credential, names_of
from cnisandbox.laboratory.exposure.ringbuffer import Record
from cnisandbox.laboratory.exposure.summary import Interval

ProcessKey = tuple[int, ...]
"""From the call's first process on: of the processes that each has made, which one."""
TaskKey = tuple[ProcessKey, int]
"""A process, and which of its threads."""

EXEC = "exec"
START = "start"


class Known(NamedTuple):
    """What is known of a task from the run in which credentials were read: what happened, and the credential after."""

    event: str
    credential: Credential


class Task:
    """One thread.

    Attributes:
        key: Which.
        start_ns, end_ns: When it lived; the end is None while it does.
        creator: Whose credential it began with, and how many events that one had had by then; None for the first.
        events: When what happened to its credential.
        program: What its process executes, from when on.
        exercised: Capabilities that the kernel asked for and found, by number.
        used: Numbers of system calls.
    """

    def __init__(self, key: TaskKey, start_ns: int, creator: "tuple[Task, int] | None") -> None:
        self.key = key
        self.start_ns = start_ns
        self.end_ns: int | None = None
        self.creator = creator
        self.events: list[tuple[int, str]] = []
        self.programs: list[tuple[int, str]] = []
        self.exercised: collections.Counter[int] = collections.Counter()
        self.used: set[int] = set()


class Course:
    """What the trace of a call says.

    Attributes:
        tasks: In the order in which they came about.
        start_ns: When the plugin was executed.
        end_ns: When the last process ended.
    """

    def __init__(self, records: Iterable[Record], first_pid: int) -> None:
        self.tasks: list[Task] = []
        self._by_pid: dict[int, Task] = {}
        self._children: collections.Counter[ProcessKey] = collections.Counter()
        self._threads: collections.Counter[ProcessKey] = collections.Counter()
        self._calls: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._first_pid = first_pid
        last_ns = 0
        for record in records:
            self._take(record)
            last_ns = record.time_ns
        self.start_ns = self.tasks[0].start_ns if self.tasks else 0
        for task in self.tasks:
            task.end_ns = last_ns if task.end_ns is None else task.end_ns
        self.end_ns = max((task.end_ns or 0 for task in self.tasks), default=0)

    def _take(self, record: Record) -> None:
        values = record.values
        if record.name == "sched_process_exec":
            self._executed(record, int(str(values["old_pid"])), str(values["filename"]))
            return
        task = self._by_pid.get(record.pid)
        if task is None:
            return
        if record.name == "task_newtask":
            self._made(task, record.time_ns, int(str(values["pid"])), int(str(values["clone_flags"])))
        elif record.name == "sched_process_exit":
            task.end_ns = record.time_ns
        elif record.name == "sys_enter":
            arguments = values["args"]
            assert isinstance(arguments, tuple)
            number = int(str(values["id"]))
            task.used.add(number)
            self._calls[record.pid] = number, arguments
        elif record.name == "sys_exit":
            self._returned(task, record)
        elif record.name == "cap_capable" and values["ret"] == 0:
            task.exercised[int(str(values["cap"]))] += 1

    def _executed(self, record: Record, old_pid: int, program: str) -> None:
        task = self._by_pid.get(old_pid)
        if task is None:
            if record.pid != self._first_pid or self.tasks:
                return
            task = Task(((), 0), record.time_ns, None)
            self.tasks.append(task)
        # KERNEL: a thread that executes takes over the number of its process; the other threads are gone
        self._by_pid[record.pid] = task
        task.events.append((record.time_ns, EXEC))
        task.programs.append((record.time_ns, program))

    def _made(self, creator: Task, time_ns: int, pid: int, flags: int) -> None:
        process = creator.key[0]
        if flags & sysnames.CLONE_THREAD:
            self._threads[process] += 1
            key = process, self._threads[process]
        else:
            key = (*process, self._children[process]), 0
            self._children[process] += 1
        task = Task(key, time_ns, (creator, len(creator.events)))
        self._by_pid[pid] = task
        self.tasks.append(task)

    def _returned(self, task: Task, record: Record) -> None:
        number, arguments = self._calls.pop(record.pid, (-1, ()))
        result = int(str(record.values["ret"]))
        if number != record.values["id"] or result < 0:
            return
        event = sysnames.credential_event(number, arguments)
        if event:
            task.events.append((record.time_ns, event))

    def processes(self) -> list[ProcessKey]:
        """List the processes in the order in which they came about."""
        return list(dict.fromkeys(task.key[0] for task in self.tasks))

    def tasks_of(self, process: ProcessKey) -> list[Task]:
        """List the threads of a process."""
        return [task for task in self.tasks if task.key[0] == process]


class Step(NamedTuple):
    """A credential, from a moment on."""

    at_ns: int
    event: str
    credential: Credential


def steps(course: Course, known: Mapping[TaskKey, Sequence[Known]]) -> tuple[dict[TaskKey, list[Step]], int]:
    """Put the credentials that were read in one run at the times at which they changed in another.

    Args:
        course: The run with times.
        known: The run in which credentials were read, by task; for the first task with one entry for the exec that the
            plugin began with.

    Returns:
        For each task what it held from when on; and how many changes have no counterpart in the other run: what was
        held before is taken to be held on.
    """
    found: dict[TaskKey, list[Step]] = {}
    unmatched = 0
    for task in course.tasks:
        own = list(known.get(task.key, ()))
        timeline: list[Step] = []
        if task.creator is not None:
            creator, count = task.creator
            of_creator = found[creator.key]
            # the creator's list begins with its start unless it is the first task, whose list begins with its exec
            at = count if creator.creator is not None else count - 1
            if of_creator:
                timeline.append(Step(task.start_ns, START, of_creator[min(at, len(of_creator) - 1)].credential))
        for at_ns, event in task.events:
            position = next((index for index, entry in enumerate(own) if entry.event == event), None)
            if position is None:
                unmatched += 1
                if timeline:
                    timeline.append(Step(at_ns, event, timeline[-1].credential))
                continue
            timeline.append(Step(at_ns, event, own[position].credential))
            del own[: position + 1]
        found[task.key] = timeline
    return found, unmatched


def held(
    course: Course, timelines: Mapping[TaskKey, Sequence[Step]], process: ProcessKey | None = None
) -> dict[str, list[Interval]]:
    """Say when some thread held which capability effectively, over the machine's user namespace.

    Args:
        course: The run.
        timelines: As `steps` gives them.
        process: Only of this process; None for all.

    Returns:
        Name of a capability to intervals, which may overlap.
    """
    intervals: dict[str, list[Interval]] = {}
    for task in course.tasks:
        if process is not None and task.key[0] != process:
            continue
        timeline = timelines[task.key]
        ends = [step.at_ns for step in timeline[1:]] + [task.end_ns or course.end_ns]
        for step, end_ns in zip(timeline, ends, strict=True):
            for name in effective(step.credential):
                intervals.setdefault(name, []).append((step.at_ns, end_ns))
    return intervals


def effective(credential: Credential) -> list[str]:
    """Name the effective capabilities that count on the machine; in a user namespace of its own a task has none."""
    return [] if credential.has_own_userns else names_of(credential.effective)

"""Start programs, and measure them, at the same small cost whatever the program is.

A program is started with posix_spawn(3), which shares this process's memory until the exec, so that the size of the
harness costs nothing. The clock runs from before the spawn until the program has ended, which is what a runtime waits
for. What is left of a call is waited for after that, outside of the clock: orphans become children of this process, the
first of its pid namespace, and the zygote fills its pool. So the next measurement begins on a machine that is quiet
again, and the processor time of a call has all that it has caused.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from accounting import Cgroup


class Sample(NamedTuple):
    """What was measured.

    Attributes:
        wall_ms: From before the first spawn until the end of the last program.
        cpu_ms: User and system time of everything that they started, or had the zygote do.
    """

    wall_ms: float
    cpu_ms: float


class Call(NamedTuple):
    """A program to be run.

    Attributes:
        program: Its absolute path.
        environment: All of its environment.
        stdin: What it reads.
        arguments: After its name.
    """

    program: str
    environment: Mapping[str, str]
    stdin: bytes = b""
    arguments: tuple[str, ...] = ()


class CallFailed(Exception):
    """A measured call did not end well, so its time means nothing."""


class Resident(Protocol):
    """What serves calls, and is there between them."""

    def cpu_s(self) -> float:
        """Processor time until now, of it and of all of its children."""

    def wait_until_ready(self) -> None:
        """Wait until it is as it was before the last call."""


class Meter:
    """Runs programs with input from files and output to files.

    Args:
        directory: Where the files are: a tmpfs.
        group: The cgroup of this process, of what it starts, and, inside of it, of the zygote.
        resident: The zygote.
        staying: Children of this process that are no part of a call.
    """

    def __init__(self, directory: str, group: Cgroup, resident: Resident, staying: Collection[int]) -> None:
        self._directory = directory
        self._group = group
        self._resident = resident
        self._staying = staying
        self._wall_ns = 0

    def sample(self, action: Callable[[], object]) -> Sample:
        """Measure the programs that an action runs, and wait until nothing of them is left."""
        self._wall_ns = 0
        before_s, resident_before_s = self._others_cpu_s(), self._resident.cpu_s()
        action()
        while self._strays():
            self._wait()
        if self._resident.cpu_s() != resident_before_s:
            self._resident.wait_until_ready()
        return Sample(self._wall_ns / 1e6, (self._others_cpu_s() - before_s) * 1e3)

    def run(self, calls: Sequence[Call], at_a_time: int = 1) -> list[bytes]:
        """Run programs, the next one as soon as one has ended; only this is on the clock.

        Returns:
            What each has written, in order.

        Raises:
            CallFailed: One has ended with another status than 0.
        """
        paths = [f"{self._directory}/{number}" for number in range(len(calls))]
        for path, call in zip(paths, calls, strict=True):
            Path(f"{path}.in").write_bytes(call.stdin)
        statuses: dict[int, int] = {}
        underway: dict[int, int] = {}
        waiting = iter(enumerate(zip(paths, calls, strict=True)))
        started = time.perf_counter_ns()
        while len(statuses) < len(calls):
            for number, (path, call) in islice(waiting, at_a_time - len(underway)):
                underway[_spawn(path, call)] = number
            pid, status = self._wait()
            if pid in underway:
                statuses[underway.pop(pid)] = status
        self._wall_ns += time.perf_counter_ns() - started
        outputs = [Path(f"{path}.out").read_bytes() for path in paths]
        for number, call in enumerate(calls):
            if statuses[number] != 0:
                said = outputs[number].decode(errors="replace")
                raise CallFailed(f"{call.environment.get('CNI_COMMAND')} of {call.program}: {statuses[number]}: {said}")
        return outputs

    def _wait(self) -> tuple[int, int]:
        """Wait for any child, of a call or an orphan of the zygote's."""
        pid, status = os.wait()
        if pid in self._staying:
            raise CallFailed(f"process {pid} of the harness, or the zygote, has ended: wait status {status}")
        return pid, status

    def _others_cpu_s(self) -> float:
        """Processor time of the cgroup but for this process, whose own is asked first: that has the kernel add it."""
        own_s = time.process_time()
        return self._group.cpu_s() - own_s

    def _strays(self) -> set[int]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return {int(pid) for pid in children} - set(self._staying)


def _spawn(path: str, call: Call) -> int:
    files = [
        (os.POSIX_SPAWN_OPEN, 0, f"{path}.in", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, f"{path}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    return os.posix_spawn(call.program, (call.program, *call.arguments), call.environment, file_actions=files)


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    return percentile(values, 50)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of them lie, between two of them by proportion."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

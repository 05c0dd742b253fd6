"""Start a program, and measure it, at the same small cost whatever the program is.

A program is started with posix_spawn(3), which shares this process's memory until the exec, so that the size of the
harness costs nothing. The clock runs from before the spawn until the program has ended, which is what a runtime waits
for. What the program leaves running is waited for after that, outside of the clock: this process is the first of its
pid namespace, so orphans become its children, and the next measurement begins on a machine that is quiet again.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Sample(NamedTuple):
    """One run of a program.

    Attributes:
        wall_ms: From before the spawn until its end.
        settled_ms: From before the spawn until everything that it started has ended.
        cpu_ms: User and system time of it and of everything that it started.
    """

    wall_ms: float
    settled_ms: float
    cpu_ms: float


class Ended(NamedTuple):
    """What came of a run."""

    sample: Sample
    status: int
    stdout: bytes


class Launcher:
    """Starts programs with input from a file and output to a file.

    Args:
        directory: Where the two files are: a tmpfs.
    """

    def __init__(self, directory: str) -> None:
        self._stdin = os.path.join(directory, "stdin")
        self._stdout = os.path.join(directory, "stdout")
        with open(self._stdin, "wb"):
            pass

    def run(self, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Ended:
        """Run a program to its end, and wait until nothing of it is left.

        Args:
            argv: Absolute path and arguments.
            environment: All of its environment.
            stdin: What it reads.
        """
        with open(self._stdin, "wb") as file:
            file.write(stdin)
        files = [
            (os.POSIX_SPAWN_OPEN, 0, self._stdin, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self._stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        started = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=files)
        _, status, usage = os.wait4(pid, 0)
        ended = time.perf_counter_ns()
        cpu_s = usage.ru_utime + usage.ru_stime + _reap_orphans()
        settled = time.perf_counter_ns()
        with open(self._stdout, "rb") as file:
            stdout = file.read()
        sample = Sample((ended - started) / 1e6, (settled - started) / 1e6, cpu_s * 1e3)
        return Ended(sample, os.waitstatus_to_exitcode(status), stdout)


def _reap_orphans() -> float:
    """Wait until no child is left; returns the seconds of processor time that they have taken."""
    seconds = 0.0
    while True:
        try:
            _, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime


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

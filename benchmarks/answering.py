"""Programs that measure themselves: one line with a word in, one line with two numbers out.

For what has no program of its own that could be started and waited for: a function of a process that is running.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

from measuring import CallFailed, Sample


class Answerer:
    """A program of this directory that answers.

    Args:
        name: Of its file.
        *arguments: For it.
    """

    def __init__(self, name: str, *arguments: str) -> None:
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
        self._process = subprocess.Popen(
            [sys.executable, program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, word: str) -> Sample:
        """Have it do something.

        Raises:
            CallFailed: It has ended, and said why on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if len(answer) != 2:
            raise CallFailed(f"ask {self._process.args!r} for {word}: it has ended")
        return Sample(float(answer[0]), float(answer[1]))


def answer(actions: Mapping[str, Callable[[], Callable[[], object] | None]]) -> None:
    """Be such a program, until standard input ends.

    Args:
        actions: What to do for each word; what one returns is called after it, outside of the clock.
    """
    for line in sys.stdin:
        action = actions[line.strip()]
        cpu_s, started = _cpu_s(), time.perf_counter_ns()
        afterwards = action()
        wall_ns = time.perf_counter_ns() - started
        if afterwards is not None:
            afterwards()
        print(wall_ns / 1e6, (_cpu_s() - cpu_s) * 1e3, flush=True)


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

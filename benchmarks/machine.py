"""What machine it is, and what the steps cost there that set our plugins apart from a program in one process.

A call of ours is four processes that are forked, copy the pages that they write to, and send each other messages. What
that costs depends on the machine more than anything else, and on a virtual one on how its memory is virtualized. So the
ratios of two machines differ, and these figures tell why.
"""

import mmap
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import median

_PAGE = 4096
_PAGES = 4096  # 16 MiB, about what a zygote has of its own
_CALLS = 20_000
_TRIPS = 2_000
_RUNS = 5


def describe() -> dict[str, Any]:
    """Say what machine this is; takes a second."""
    return {
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "model": _model(),
        "python": f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
        "load_before": round(os.getloadavg()[2], 2),
        "costs_us": costs_us(),
    }


def costs_us() -> dict[str, float]:
    """Measure the steps.

    Returns:
        Microseconds, medians of some runs: of a system call that does next to nothing; of a message to another process
        and the answer; of a fork of a process with 16 MiB of its own, its end, and waiting for it; of a page that is
        written to after a fork.
    """
    memory = mmap.mmap(-1, _PAGES * _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    _write_to_each(memory)
    steps: dict[str, Callable[[], float]] = {
        "system call": _system_call,
        "message and answer": _message_and_answer,
        "fork and end": lambda: _in_child(lambda: None)[0],
        "copied page": lambda: _in_child(lambda: _write_to_each(memory))[1] / _PAGES,
    }
    found = {name: round(median([step() for _ in range(_RUNS)]), 2) for name, step in steps.items()}
    memory.close()
    return found


def _write_to_each(memory: mmap.mmap) -> None:
    for at in range(0, len(memory), _PAGE):
        memory[at] = 1


def _system_call() -> float:
    started = time.perf_counter_ns()
    for _ in range(_CALLS):
        os.getppid()
    return (time.perf_counter_ns() - started) / 1e3 / _CALLS


def _in_child(action: Callable[[], None]) -> tuple[float, float]:
    """Do something in a fork; returns microseconds of it all, and those that the child says it has taken."""
    read_fd, write_fd = os.pipe()
    began = time.perf_counter_ns()
    pid = os.fork()
    if pid == 0:
        started = time.perf_counter_ns()
        action()
        os.write(write_fd, str(time.perf_counter_ns() - started).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    all_ns = time.perf_counter_ns() - began
    child_ns = int(os.read(read_fd, 32))
    os.close(read_fd)
    os.close(write_fd)
    return all_ns / 1e3, child_ns / 1e3


def _message_and_answer() -> float:
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        for _ in range(_TRIPS):
            os.write(their_write, os.read(their_read, 1))
        os._exit(0)
    started = time.perf_counter_ns()
    for _ in range(_TRIPS):
        os.write(our_write, b".")
        os.read(our_read, 1)
    all_ns = time.perf_counter_ns() - started
    os.waitpid(pid, 0)
    for fd in (their_read, our_write, our_read, their_write):
        os.close(fd)
    return all_ns / 1e3 / _TRIPS


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())

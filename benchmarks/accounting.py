"""What a group of processes takes, as the kernel counts it: cgroups, of version 1 or 2.

A zygote's children are not ours, so no rusage(2) of ours has their time; and a peak of rusage is that of one process,
not of all of a call. The harness runs in one cgroup, with everything that it starts; the zygote in one inside of that.

Source: Documentation/admin-guide/cgroup-v1/cpuacct.rst and memory.rst, cgroup-v2.rst, Linux 6.1.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_REMOVE_TRIES = 100


class NoCgroup(Exception):
    """The machine has no cgroup that this process may make."""


class Cgroup(NamedTuple):
    """A cgroup: a directory for each controller, the same one at version 2.

    Attributes:
        cpu: Where processor time is counted.
        memory: Where memory is counted.
    """

    cpu: Path
    memory: Path

    @classmethod
    def make(cls, name: str) -> "Cgroup":
        """Make a cgroup below the roots of the mounted hierarchies.

        Raises:
            NoCgroup: There are none, they are read-only, or they do not count memory.
        """
        group = cls(_root("cpuacct") / name, _root("memory") / name)
        try:
            group.inside(".")
        except OSError as error:
            raise NoCgroup(f"make cgroup {error.filename}: {error.strerror}") from error
        if not (group.memory / group._memory_file).exists():
            raise NoCgroup(f"use cgroup {group.memory}: it does not count memory; enable the controller above it")
        return group

    def inside(self, name: str) -> "Cgroup":
        """Make a cgroup in this one."""
        group = Cgroup(self.cpu / name, self.memory / name)
        for directory in group:
            directory.mkdir(exist_ok=True)
        return group

    def remove(self) -> None:
        """Remove it with those in it; its processes must have been killed."""
        for directory in set(self):
            for inner in (*(path for path in directory.iterdir() if path.is_dir()), directory):
                _remove(inner)

    def enter(self) -> None:
        """Move this process into it; what it starts from now on begins there."""
        for directory in set(self):
            (directory / "cgroup.procs").write_text(f"{os.getpid()}")

    def pids(self) -> list[int]:
        """The processes in it, but not those in cgroups inside of it."""
        return [int(word) for word in (self.memory / "cgroup.procs").read_text().split()]

    def cpu_s(self) -> float:
        """Seconds of processor time of all that have ever been in it."""
        if (self.cpu / "cpuacct.usage").exists():
            return int((self.cpu / "cpuacct.usage").read_text()) / 1e9
        return int((self.cpu / "cpu.stat").read_text().split()[1]) / 1e6

    def memory_mib(self) -> float:
        """What is charged to it: memory of processes and, for them, of the kernel; files where it was the first."""
        return int((self.memory / self._memory_file).read_text()) / 2**20

    @property
    def _memory_file(self) -> str:
        name = "memory.usage_in_bytes"
        return name if (self.memory / name).exists() else "memory.current"


class Peak:
    """The highest value so far, above what there was at the beginning; MiB."""

    mib = 0.0


@contextmanager
def watched_memory(group: Cgroup, every_s: float) -> Iterator[Peak]:
    """Look at a cgroup's memory again and again; each look takes some 20 us of processor time."""
    peak, is_over, before = Peak(), threading.Event(), group.memory_mib()

    def look() -> None:
        while not is_over.is_set():
            peak.mib = max(peak.mib, group.memory_mib() - before)
            time.sleep(every_s)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        is_over.set()
        thread.join()


def _root(controller: str) -> Path:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    first = [path for _, path, kind, options, *_ in mounts if kind == "cgroup" and controller in options.split(",")]
    second = [path for _, path, kind, *_ in mounts if kind == "cgroup2"]
    if not first + second:
        raise NoCgroup(f"count {controller}: no cgroup hierarchy is mounted")
    return Path((first + second)[0])


def _remove(directory: Path) -> None:
    for _ in range(_REMOVE_TRIES):
        try:
            directory.rmdir()
        except OSError:  # who was killed a moment ago is in it until it is dead
            time.sleep(0.05)
        else:
            return

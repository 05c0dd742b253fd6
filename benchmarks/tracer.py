"""What every process does in a while, by the kernel's own tracer.

No program is changed or slowed down by a debugger: the kernel notes who gets a processor, which system calls begin and
end, and which pages are faulted in.

Source: Documentation/trace/events.rst, Linux 6.1.
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_TRACING = Path("/sys/kernel/tracing")
_INSTANCE = _TRACING / "instances" / "cnisandbox-bench"
_EVENTS = (
    "sched/sched_switch",
    "sched/sched_process_fork",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "oom/oom_score_adj_update",
)
# Only some architectures tell of page faults.
_OPTIONAL_EVENTS = ("exceptions/page_fault_user",)
_BUFFER_KIB = 4096
_LINE = re.compile(r" *.+?-(\d+) +\[(\d+)\] +\S+ +(\d+\.\d+): (\w+): (.*)")
_FIELD = re.compile(r"(\w+)=(\S+)")


class NoTracer(Exception):
    """The kernel has no tracer, or does not give it to us."""


class Event(NamedTuple):
    """What was noted.

    Attributes:
        pid: Of the thread that ran, in the first pid namespace.
        cpu: Where.
        at_ms: When.
        name: Such as "sched_switch".
        text: The rest of the line.
    """

    pid: int
    cpu: int
    at_ms: float
    name: str
    text: str

    def number(self, field: str) -> int:
        """Say what stands in a field."""
        return int(dict(_FIELD.findall(self.text))[field])


class Tracer:
    """Notes what happens while something is done; to be had of `tracer`."""

    def __init__(self) -> None:
        self._set("trace_clock", "mono")
        self._set("buffer_size_kb", str(_BUFFER_KIB))
        for event in _EVENTS:
            self._set(f"events/{event}/enable", "1")
        for event in _OPTIONAL_EVENTS:
            if (_INSTANCE / "events" / event).exists():
                self._set(f"events/{event}/enable", "1")

    @contextmanager
    def noting(self, pids: Sequence[int]) -> Iterator[list[Event]]:
        """Note what happens in the block.

        Args:
            pids: Processes whose numbers in the first pid namespace are asked for: the n-th "oom_score_adj_update" is
                about the n-th of them.

        Yields:
            A list that has the events when the block has ended.
        """
        events: list[Event] = []
        self._set("trace", "")
        self._set("tracing_on", "1")
        for pid in pids:
            # What stands there already: that changes nothing, and the kernel notes about whom it was.
            path = Path(f"/proc/{pid}/oom_score_adj")
            path.write_text(path.read_text())
        yield events
        self._set("tracing_on", "0")
        lines = (_INSTANCE / "trace").read_text(errors="replace").splitlines()
        matches = filter(None, map(_LINE.fullmatch, lines))
        events += (Event(int(m[1]), int(m[2]), float(m[3]) * 1000, m[4], m[5]) for m in matches)

    @staticmethod
    def _set(name: str, value: str) -> None:
        try:
            (_INSTANCE / name).write_text(value)
        except OSError as error:
            raise NoTracer(f"{_INSTANCE}/{name}: {error.strerror}") from error


@contextmanager
def tracer() -> Iterator[Tracer]:
    """Make a tracer of our own beside those of others.

    Raises:
        NoTracer: There is none.
    """
    if not _INSTANCE.parent.is_dir():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", str(_TRACING)], check=False)  # in our own mount namespace
    try:
        os.mkdir(_INSTANCE)
    except OSError as error:
        raise NoTracer(f"make {_INSTANCE}: {error.strerror}; does the kernel have CONFIG_FTRACE?") from error
    try:
        yield Tracer()
    finally:
        os.rmdir(_INSTANCE)

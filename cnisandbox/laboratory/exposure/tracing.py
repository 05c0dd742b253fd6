"""Times and capability checks, from the kernel's tracepoints, in a trace instance of our own.

What is traced: capability:cap_capable, raw_syscalls:sys_enter and sys_exit, task:task_newtask, sched:sched_process_exec
and sched_process_exit, of one process and of those that it makes (set_event_pid, event-fork). The instance has buffers
of its own, so nobody else's tracing is disturbed, and nothing of it stays: it is removed at the end, and an instance
whose maker was killed is removed by the next one who comes (`sweep`).

tracefs is mounted where only we see it, and not even we for longer than it takes to open the instance: a plugin finds
none. Numbers of processes in it are the initial pid namespace's, so we have to be in that.

Privilege: CAP_SYS_ADMIN for the mount; tracefs is root's.

Source: Documentation/trace/ftrace.rst, events.rst.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator

from cnisandbox.errors import EnvironmentFailure, IsolationUnavailable, reason
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.exposure.ringbuffer import Format, Record, parse_format, records

MOUNT_POINT = "/sys/kernel/tracing"
PREFIX = "cnisandbox-"

_CAPABILITY_EVENT = "capability/cap_capable"
_EVENTS = (
    _CAPABILITY_EVENT,
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "task/task_newtask",
    "sched/sched_process_exec",
    "sched/sched_process_exit",
)
# LIMIT: of each processor; a call of a plugin in Python fills half a MiB, ptp, which polls, up to ten
_BUFFER_KIB = 65536
_PAGE_BYTES = 1 << 16  # what a read asks for; the kernel's pages are smaller
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO
_MNT_DETACH = 2
_SWEEP_TIME_LIMIT_S = 5.0
_NAME = re.compile(rf"{PREFIX}(\d+)")


class Instance:
    """A trace instance.

    Attributes:
        has_capability_checks: Whether the kernel has the tracepoint for them (Linux 6.13).
    """

    def __init__(self, directory_fd: int) -> None:
        self._directory_fd = directory_fd
        self._formats: dict[int, Format] = {}
        self._page_bytes = 4096
        self.has_capability_checks = self._exists(f"events/{_CAPABILITY_EVENT}")
        self._set("tracing_on", "0")
        self._set("trace_clock", "mono")
        self._set("options/event-fork", "1")
        self._set("buffer_size_kb", str(_BUFFER_KIB))
        if self._exists("buffer_subbuf_size_kb"):
            self._page_bytes = int(self._get("buffer_subbuf_size_kb")) * 1024
        for event in _EVENTS:
            if event != _CAPABILITY_EVENT or self.has_capability_checks:
                description = parse_format(self._get(f"events/{event}/format"))
                self._formats[description.number] = description

    def _exists(self, path: str) -> bool:
        try:
            os.stat(path, dir_fd=self._directory_fd)
        except FileNotFoundError:
            return False
        return True

    def _open(self, path: str, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=self._directory_fd)

    def _set(self, path: str, value: str) -> None:
        fd = self._open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def _get(self, path: str) -> str:
        with open(self._open(path, os.O_RDONLY), encoding="utf-8") as file:
            return file.read()

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Switch the events on, which slows every process of the machine down a little, and off again."""
        names = [event for event in _EVENTS if event != _CAPABILITY_EVENT or self.has_capability_checks]
        try:
            for event in names:
                self._set(f"events/{event}/enable", "1")
            yield
        finally:
            for event in names:
                self._set(f"events/{event}/enable", "0")
            self._set("set_event_pid", "")

    @contextlib.contextmanager
    def following(self, pid: int) -> Iterator[Callable[[], list[Record]]]:
        """Trace a process and those that it makes.

        Yields:
            Ends the trace, and gives what was recorded, in order of time.
        """
        self._set("trace", "")
        self._set("set_event_pid", str(pid))
        self._set("tracing_on", "1")
        try:
            yield self._finish
        finally:
            self._set("tracing_on", "0")

    def _finish(self) -> list[Record]:
        self._set("tracing_on", "0")
        found: list[Record] = []
        per_cpu_fd = self._open("per_cpu", os.O_RDONLY | os.O_DIRECTORY)
        try:
            names = sorted(os.listdir(per_cpu_fd))
        finally:
            os.close(per_cpu_fd)
        for name in names:
            for page in self._pages(f"per_cpu/{name}/trace_pipe_raw"):
                try:
                    found += records(page, self._formats)
                except ValueError as error:
                    raise EnvironmentFailure(
                        f"trace a call: {error}",
                        f"it makes more system calls than {_BUFFER_KIB >> 10} MiB for each processor hold",
                    ) from error
        found.sort(key=lambda record: record.time_ns)
        return found

    def _pages(self, path: str) -> Iterator[bytes]:
        fd = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:
                try:
                    page = os.read(fd, self._page_bytes)
                except BlockingIOError:
                    return
                if not page:
                    return
                yield page
        finally:
            os.close(fd)


@contextlib.contextmanager
def instance(owner: int) -> Iterator[Instance]:
    """Make a trace instance, and remove it afterwards.

    Args:
        owner: Who answers for it: the process whose number is in its name.

    Raises:
        IsolationUnavailable: The kernel has no tracefs, or lacks an event.

    Order: in a mount namespace of our own.
    """
    if os.stat("/proc/self/ns/pid").st_ino != _INITIAL_PID_NAMESPACE:
        raise IsolationUnavailable(
            "trace a call: this is not the initial pid namespace",
            "run it on the machine itself, not in a container: the kernel traces by its own process numbers",
        )
    instances_fd = _open_instances()
    name = f"{PREFIX}{owner}"
    try:
        _remove_stale(instances_fd)
        os.mkdir(name, dir_fd=instances_fd)
        try:
            directory_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=instances_fd)
            try:
                yield Instance(directory_fd)
            finally:
                os.close(directory_fd)
        finally:
            os.rmdir(name, dir_fd=instances_fd)
    except FileNotFoundError as error:
        raise IsolationUnavailable(
            f"trace a call: tracefs has no {error.filename}",
            "the kernel needs CONFIG_FTRACE, CONFIG_FTRACE_SYSCALLS and CONFIG_SCHED_TRACER's events",
        ) from error
    finally:
        os.close(instances_fd)


def _open_instances() -> int:
    """Mount tracefs, open the directory of instances, and take the mount out of view again."""
    # KERNEL: the same file system cannot be mounted on itself. On most machines it is there already; what we take away
    # is missing in our own mount namespace only.
    with contextlib.suppress(OSError):
        raw.syscall("umount2", MOUNT_POINT.encode(), _MNT_DETACH)
    try:
        raw.syscall("mount", b"tracefs", MOUNT_POINT.encode(), b"tracefs", 0, b"")
    except OSError as error:
        raise IsolationUnavailable(
            f"mount tracefs: {reason(error)}", "the kernel needs CONFIG_FTRACE, and must not be locked down"
        ) from error
    try:
        return os.open(f"{MOUNT_POINT}/instances", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        raw.syscall("umount2", MOUNT_POINT.encode(), _MNT_DETACH)


def _remove_stale(instances_fd: int) -> None:
    for name in os.listdir(instances_fd):
        match = _NAME.fullmatch(name)
        if match and not os.path.exists(f"/proc/{match[1]}"):
            with contextlib.suppress(OSError):  # its maker's children may be about to end
                os.rmdir(name, dir_fd=instances_fd)


def sweep(owner: int) -> None:
    """Remove the instance of an owner who could not do it, and those whose owners are gone.

    Order: in a mount namespace of our own; the owner has ended.
    """
    instances_fd = _open_instances()
    deadline = time.monotonic() + _SWEEP_TIME_LIMIT_S
    try:
        while True:
            try:
                os.rmdir(f"{PREFIX}{owner}", dir_fd=instances_fd)
            except FileNotFoundError:
                break
            except OSError:  # the owner's children end after it, and have it open
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
        _remove_stale(instances_fd)
    finally:
        os.close(instances_fd)

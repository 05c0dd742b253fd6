"""What the runner and level mediated need besides: a monitor that sees and answers a program's system calls.

The probes do what the monitor does, as the monitor does it: without any capability, and with nothing in common with the
program but its user id and that it is its parent. What a hardening such as Yama forbids is seen by that.
"""

import os
import select
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import prctl

from cnisandbox.boundary import syscalls
from cnisandbox.boundary.syscalls import checked, ffi, lib
from cnisandbox.cli.probes import DEGRADED, OK, Probe, Seen, attempt

_NOBODY = 65534
_TIMEOUT_MS = 5000
_GIVEN_NUMBER = 1000
_RET_NOTIFY, _RET_ALLOW = 0x7FC00000, 0x7FFF0000
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
# What each value of it says, and whether a parent may still look at its child.
_YAMA_SCOPES = {
    "0": ("whoever has the same uid", True),
    "1": ("parents only", True),
    "2": ("only with CAP_SYS_PTRACE", False),
    "3": ("nobody", False),
}
_YAMA_REMEDY = "sysctl kernel.yama.ptrace_scope=1, which is its default"


def _notify_of(name: bytes) -> bytes:
    """Make a filter that asks about one system call and allows every other one."""
    instructions = (
        (0x20, 0, 0, 0),  # BPF_LD | BPF_W | BPF_ABS: the number of the call
        (0x15, 0, 1, lib.seccomp_syscall_resolve_name(name)),  # BPF_JMP | BPF_JEQ | BPF_K
        (0x06, 0, 0, _RET_NOTIFY),  # BPF_RET | BPF_K
        (0x06, 0, 0, _RET_ALLOW),
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _with_child(behave: Callable[[int], None], examine: Callable[[int, int], str | None]) -> Seen:
    """Look at a child of the same user, without a capability.

    Args:
        behave: What the child does; it is given where to write a line.
        examine: What is tried with it; it is given the child's pid and where the line can be read.
    """

    def work() -> str:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _live(behave, writer)
        os.close(writer)
        try:
            return examine(child, reader) or ""
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    return attempt(0, work)


def _live(behave: Callable[[int], None], writer: int) -> None:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        prctl.set_dumpable(True)  # as a program is that has been executed
        behave(writer)
        signal.pause()
    finally:
        os._exit(1)


def _line(reader: int) -> str:
    """Wait for the line; what the child says in place of a number is what went wrong."""
    if not select.select([reader], [], [], _TIMEOUT_MS / 1000)[0]:
        raise OSError("the child does not answer")
    line = os.read(reader, 100).decode()
    if not line:
        raise OSError("the child died")
    if line.startswith("-"):
        checked(int(line))
    return line


def _listen(writer: int) -> None:
    """Ask about getppid(2), say which descriptor the listener is, call it, and say what it returned."""
    prctl.set_no_new_privs(1)
    program = _notify_of(b"getppid")
    listener = lib.native_seccomp_listen(ffi.from_buffer(program), len(program) // 8)
    os.write(writer, b"%d\n" % listener)
    os.write(writer, b"%d\n" % os.getppid())


def _listener_of(child: int, reader: int) -> int:
    """Fetch the listener out of the child."""
    number = int(_line(reader))
    process = checked(lib.native_pidfd_open(child), "pidfd")
    return checked(lib.native_pidfd_getfd(process, number), "pidfd_getfd")


def _question(listener: int) -> int:
    """Wait for the child's call; its number."""
    call = ffi.new("struct native_notification *")
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not poll.poll(_TIMEOUT_MS) or not checked(
        lib.native_notify_next(listener, ffi.new("int[]", [-1]), b"\0", call), "notification"
    ):
        raise OSError("no notification came")
    return int(call.id)


def _notification() -> Seen:
    def examine(child: int, reader: int) -> None:
        listener = _listener_of(child, reader)
        checked(lib.native_notify_answer(listener, _question(listener), 12345, 0, 0), "answer")
        if int(_line(reader)) != 12345:
            raise OSError("the answer did not arrive")

    return _with_child(_listen, examine)


def _gift() -> Seen:
    def examine(child: int, reader: int) -> None:
        listener = _listener_of(child, reader)
        gift = checked(lib.native_notify_give(listener, _question(listener), 0, _GIVEN_NUMBER, os.O_CLOEXEC), "give")
        if gift != _GIVEN_NUMBER or int(_line(reader)) != _GIVEN_NUMBER:
            raise OSError("the descriptor did not arrive")

    return _with_child(_listen, examine)


def _memory() -> Seen:
    shared = ffi.new("char[]", b"before")

    def behave(writer: int) -> None:
        shared[0:6] = b"behind"
        os.write(writer, b"1\n")

    def examine(child: int, reader: int) -> None:
        _line(reader)
        seen = ffi.new("char[]", 6)
        address = int(ffi.cast("uintptr_t", shared))
        if checked(lib.native_read_memory(child, address, seen, 6), "process_vm_readv") != 6:
            raise OSError("less was read than is there")
        if bytes(ffi.buffer(seen, 6)) != b"behind":
            raise OSError("something else was read")

    return _with_child(behave, examine)


def _nested_pid_namespaces() -> Seen:
    def nest() -> None:
        checked(lib.native_unshare(syscalls.CLONE_NEWPID))
        _wait_for_fork(_require_first)

    # The first fork is process 1 of the outer namespace, the second one of the inner.
    return attempt(syscalls.CLONE_NEWPID, lambda: _wait_for_fork(nest))


def _wait_for_fork(work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(status, os.strerror(status) if status > 0 else "killed")


def _require_first() -> None:
    if os.getpid() != 1:
        raise OSError("not the first process of a pid namespace")


def _chosen_number() -> Seen:
    def fork() -> None:
        child = checked(lib.native_fork_as(4321), "clone3")
        if child == 0:
            os._exit(0 if os.getpid() == 4321 else 1)
        if os.waitpid(child, 0)[1]:
            raise OSError("another number than the one that was asked for")

    return attempt(syscalls.CLONE_NEWPID, lambda: _wait_for_fork(fork))


def _yama() -> Seen:
    try:
        scope = _YAMA.read_text().strip()
    except FileNotFoundError:
        return Seen(OK, "not there, and not needed")
    text, is_enough = _YAMA_SCOPES.get(scope, ("unknown", False))
    return Seen(OK if is_enough else DEGRADED, f"ptrace_scope {scope}: {text}")


PROBES = (
    Probe(
        "answering system calls",
        "level mediated, the runner: setns, socket and sending are the monitor's to judge",
        "Linux 5.19 or later, with CONFIG_SECCOMP_FILTER",
        _notification,
        is_for_mediated=True,
    ),
    Probe(
        "giving descriptors",
        "level mediated, the runner: the sockets that a plugin uses are the monitor's",
        "Linux 5.14 or later",
        _gift,
        is_for_mediated=True,
    ),
    Probe(
        "reading a child's memory",
        "level mediated, the runner: the messages that a plugin sends",
        f"Linux with CONFIG_CROSS_MEMORY_ATTACH; {_YAMA_REMEDY}",
        _memory,
        is_for_mediated=True,
    ),
    Probe("ptrace scope", "the two above", _YAMA_REMEDY, _yama),
    Probe(
        "nested pid namespaces",
        "level mediated, the runner: a plugin that cannot name its monitor",
        "sysctl user.max_pid_namespaces must not be 0; a container around us may be too deep",
        _nested_pid_namespaces,
        is_for_mediated=True,
    ),
    Probe(
        "chosen process numbers",
        "the runner, where CNI_NETNS is /proc/PID/ns/net",
        "Linux 5.5 or later",
        _chosen_number,
    ),
)

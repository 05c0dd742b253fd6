"""The system calls of a process and of all that it makes, stop by stop (ptrace).

Whoever is followed notices it only in that it is slow. It is killed when we end.

Privilege: CAP_SYS_PTRACE.

Source: ptrace(2); include/uapi/linux/ptrace.h, Linux 5.3 and later for PTRACE_GET_SYSCALL_INFO.
"""

import ctypes  # noqa: TID251 - measures plugins; no plugin imports it
import os
import signal
import struct
import time
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from cnisandbox.errors import IoFailure

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.restype = ctypes.c_long
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

_SYSCALL, _SEIZE, _LISTEN, _GETEVENTMSG, _GET_SYSCALL_INFO = 24, 0x4206, 0x4208, 0x4201, 0x420E
_OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x100000  # SYSGOOD FORK VFORK CLONE EXEC EXIT EXITKILL
_EVENT_FORK, _EVENT_VFORK, _EVENT_CLONE, _EVENT_EXEC, _EVENT_EXIT, _EVENT_STOP = 1, 2, 3, 4, 6, 128
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_INFO = struct.Struct("=B3xIQQ7Q")
_INFO_ENTRY, _INFO_EXIT = 1, 2
_WALL = 0x40000000
_SLICE_S = 0.05


class Kind(Enum):
    """What a stop is about."""

    ENTRY = auto()
    EXIT = auto()
    MADE = auto()
    EXEC = auto()
    ENDING = auto()
    ENDED = auto()


class Stop(NamedTuple):
    """A thread that waits until it is let on; for Kind.ENDED, one that is gone.

    Attributes:
        kind: Why.
        pid: Which.
        number: ENTRY: the system call. EXIT: what it returned. MADE: the new thread. EXEC: what its number was before.
            ENDED: its status, as waitpid gives it.
        arguments: ENTRY: of the system call.
    """

    kind: Kind
    pid: int
    number: int
    arguments: tuple[int, ...] = ()


class Followed:
    """A process that is followed, from its next execution of a program on.

    Args:
        pid: A child of ours that has not got there yet.
    """

    def __init__(self, pid: int) -> None:
        self._first = pid
        self._alive = {pid}
        self._early: set[int] = set()
        self._buffer = ctypes.create_string_buffer(_INFO.size)
        _ptrace(_SEIZE, pid, 0, _OPTIONS)

    def stops(self, time_limit_s: float, afterwards_s: float) -> Iterator[Stop]:
        """Go from stop to stop; each thread is let on when the next stop is asked for.

        Args:
            time_limit_s: For the first process.
            afterwards_s: For the others, once the first has ended; they are killed then.

        Raises:
            IoFailure: The first process takes too long.
        """
        deadline = time.monotonic() + time_limit_s
        has_first = True
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            while self._alive:
                if time.monotonic() > deadline:
                    if has_first:
                        raise IoFailure(f"follow plugin: no end after {time_limit_s:.0f} s")
                    self._kill()
                    deadline += time_limit_s
                pid, status = os.waitpid(-1, os.WNOHANG | _WALL)
                if pid == 0:
                    signal.sigtimedwait({signal.SIGCHLD}, _SLICE_S)
                    continue
                if has_first and pid == self._first and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                    has_first = False
                    deadline = time.monotonic() + afterwards_s
                yield from self._stop(pid, status)
        finally:
            self._kill()
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _kill(self) -> None:
        for pid in self._alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _stop(self, pid: int, status: int) -> Iterator[Stop]:
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if pid in self._alive:
                self._alive.discard(pid)
                yield Stop(Kind.ENDED, pid, status)
            return
        if pid not in self._alive:
            self._early.add(pid)  # it stopped before its maker has told of it
            return
        number, event = os.WSTOPSIG(status), status >> 16
        if number == _SYSCALL_STOP:
            yield from self._system_call(pid)
            self._let_on(pid)
        elif event == _EVENT_STOP:
            self._let_on(pid, request=_LISTEN if number in _STOPPING else _SYSCALL)
        elif event in (_EVENT_FORK, _EVENT_VFORK, _EVENT_CLONE):
            made = self._message(pid)
            self._alive.add(made)
            yield Stop(Kind.MADE, pid, made)
            self._let_on(pid)
            if made in self._early:
                self._early.discard(made)
                self._let_on(made)
        elif event == _EVENT_EXEC:
            former = self._message(pid)
            if former != pid:
                self._alive.discard(former)
            yield Stop(Kind.EXEC, pid, former)
            self._let_on(pid)
        elif event == _EVENT_EXIT:
            yield Stop(Kind.ENDING, pid, 0)
            self._let_on(pid)
        else:
            self._let_on(pid, number)

    def _system_call(self, pid: int) -> Iterator[Stop]:
        try:
            _ptrace(_GET_SYSCALL_INFO, pid, _INFO.size, ctypes.addressof(self._buffer))
        except ProcessLookupError:  # killed meanwhile
            return
        kind, _, _, _, first, *rest = _INFO.unpack(self._buffer)
        if kind == _INFO_ENTRY:
            yield Stop(Kind.ENTRY, pid, first, tuple(rest))
        elif kind == _INFO_EXIT:
            yield Stop(Kind.EXIT, pid, first - (1 << 64) if first >> 63 else first)

    def _message(self, pid: int) -> int:
        message = ctypes.c_ulong()
        _ptrace(_GETEVENTMSG, pid, 0, ctypes.addressof(message))
        return message.value

    @staticmethod
    def _let_on(pid: int, signal_number: int = 0, request: int = _SYSCALL) -> None:
        try:
            _ptrace(request, pid, 0, signal_number)
        except ProcessLookupError:  # killed meanwhile; its end will be told
            return


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _LIBC.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

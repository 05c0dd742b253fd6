"""What a foreign program asks by system calls, and how it is answered: seccomp user notification.

Privilege: none for answering; reading the program's memory and descriptors takes the same uid and being its ancestor.

The number of a question is checked after whatever was read in its name and before anything is done: a thread that was
killed meanwhile gets nothing, and a process that took over its number is asked for nothing. All processes that can be
meant are the program's own anyway, because the monitor's pid namespace holds no others.

Source: seccomp_unotify(2), pidfd_getfd(2), process_vm_readv(2).
"""

import errno
import os

from cnisandbox.boundary.syscalls import checked, ffi, lib
from cnisandbox.hints import NamedTuple

_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_INT = 0xFFFFFFFF


class Question(NamedTuple):
    """A system call that waits for an answer.

    Attributes:
        id: The kernel's number of the question.
        tid: The thread that asks, in our pid namespace.
        number: The system call's number.
        args: Its six arguments, unsigned 64 bit; whoever wrote them may be hostile.
    """

    id: int
    tid: int
    number: int
    args: tuple[int, ...]

    def integer(self, index: int) -> int:
        """Read an argument as the kernel reads an int: the lower 32 bits, signed."""
        value = self.args[index] & _INT
        return value - (1 << 32) if value >> 31 else value


class Gone(Exception):
    """Whoever asked has been killed: there is nobody to answer, and nothing may be done."""


class Listener:
    """The monitor's end.

    Args:
        fd: What loading the filter returned.
        prefixes: Paths; opening a file whose path begins with none of them is let go on at once.
    """

    def __init__(self, fd: int, prefixes: tuple[str, ...]) -> None:
        self.fd = fd
        self._others = ffi.new("int[]", [-1])
        self._prefixes = ffi.new("char[]", b"".join(prefix.encode() + b"\0" for prefix in prefixes) + b"\0")
        self._call = ffi.new("struct native_notification *")
        lib.native_notify_wake_on_this_cpu(fd)  # Linux 6.6; without it, answers only take longer

    def watch(self, *others: int) -> None:
        """Set which descriptors are waited for beside questions, at most three; what they say comes first."""
        self._others = ffi.new("int[]", [*others, -1])

    def next(self) -> Question | None:
        """Wait for the next question.

        Returns:
            None when one of those that are watched has something to say.

        Raises:
            BrokenPipeError: nobody is left who could ask.
        """
        if not checked(lib.native_notify_next(self.fd, self._others, self._prefixes, self._call), "notification"):
            return None
        call = self._call
        return Question(call.id, call.pid, call.nr, tuple(ffi.unpack(call.args, 6)))

    def require_valid(self, question: Question) -> None:
        """Insist that the question is still open.

        Raises:
            Gone: it is not.
        """
        if not lib.native_notify_is_valid(self.fd, question.id):
            raise Gone

    def answer(self, question: Question, value: int = 0, error: int = 0) -> None:
        """Have the call return a value, or fail with an errno."""
        lib.native_notify_answer(self.fd, question.id, value, error, 0)

    def go_on(self, question: Question) -> None:
        """Have the kernel carry the call out after all.

        The kernel reads memory and descriptors again, and the program may have exchanged both: only for calls that it
        then judges by the program's own credentials, which are empty. Each caller says why that holds.
        """
        lib.native_notify_answer(self.fd, question.id, 0, 0, _CONTINUE)

    def give(self, question: Question, fd: int, number: int, *, is_inherited: bool) -> int:
        """Put a copy of a descriptor of ours into the program, as what the call returns.

        Args:
            question: The question.
            fd: Our descriptor.
            number: Which number it gets; 0 for the lowest that is free.
            is_inherited: Whether a program that is executed keeps it.

        Raises:
            OSError: the program cannot have it.
        """
        flags = 0 if is_inherited else os.O_CLOEXEC
        return checked(lib.native_notify_give(self.fd, question.id, fd, number, flags), "give descriptor")


def read_memory(question: Question, address: int, size: int) -> bytes:
    """Copy memory of the program, once.

    Raises:
        OSError: EFAULT, where it has none.
    """
    if not size:
        return b""
    buffer = ffi.new("char[]", size)
    count = checked(lib.native_read_memory(question.tid, address, buffer, size), "memory")
    if count != size:
        raise OSError(errno.EFAULT, "memory")
    data: bytes = ffi.unpack(buffer, size)
    return data


def read_path(question: Question, address: int) -> str:
    """Copy a path that the program wrote down.

    Raises:
        OSError: EFAULT, or ENAMETOOLONG above 255 bytes: what the monitor opens has shorter names.
    """
    buffer = ffi.new("char[]", 256)
    length = checked(lib.native_read_string(question.tid, address, buffer, 256), "path")
    return os.fsdecode(ffi.unpack(buffer, length))


def open_process(tgid: int) -> int:
    """Open a process, to ask it for descriptors."""
    return checked(lib.native_pidfd_open(tgid), "pidfd")


def copy_descriptor(process_fd: int, fd: int) -> int:
    """Get a copy of a program's descriptor: the same open file.

    Raises:
        OSError: EBADF, if it has none of that number.
    """
    return checked(lib.native_pidfd_getfd(process_fd, fd), "descriptor")

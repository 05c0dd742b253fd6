"""Plant a weakness: have the kernel refuse a system call, or skip it and say that it succeeded.

A seccomp filter that is in place before the code under test begins does this to every process of a call, by number and
by argument: SECCOMP_RET_ERRNO with an errno fails the call, and with 0 it returns success without having done anything.
Nothing of the code under test is replaced.

Source: seccomp(2); include/uapi/linux/filter.h.
"""

import struct
from typing import NamedTuple

from cnisandbox import _native

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_ARGUMENTS_AT = 16

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47


class Filter(NamedTuple):
    """A system call that is not what it seems.

    Attributes:
        name: Of the system call.
        errno: What it fails with; 0 makes it a success that does nothing.
        arguments: Index and value of arguments (their low 32 bits) that the call must have to be meant.
    """

    name: str
    errno: int = 0
    arguments: tuple[tuple[int, int], ...] = ()

    def program(self) -> bytes:
        """Compile to an array of struct sock_filter."""
        number = _native.lib.seccomp_syscall_resolve_name(self.name.encode())
        assert number >= 0, self.name
        tests = [(0, number), *((_ARGUMENTS_AT + 8 * index, value) for index, value in self.arguments)]
        lines = []
        for position, (offset, value) in enumerate(tests):
            to_the_end = 2 * (len(tests) - position) - 1  # past the tests that follow, and past the return of the errno
            lines.append((_LOAD_WORD, 0, 0, offset))
            lines.append((_JUMP_IF_EQUAL, 0, to_the_end, value & 0xFFFFFFFF))
        lines.append((_RETURN, 0, 0, _ERRNO | self.errno))
        lines.append((_RETURN, 0, 0, _ALLOW))
        return b"".join(struct.pack("=HBBI", *line) for line in lines)

    def load(self) -> None:
        """Put this process under the filter, for good; it has to have CAP_SYS_ADMIN."""
        program = self.program()
        result = _native.lib.native_seccomp_load(_native.ffi.from_buffer(program), len(program) // 8, 0)
        assert result == 0, result

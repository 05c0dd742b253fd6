"""System calls by name and number, and which of them change a credential.

Source: seccomp_syscall_resolve_num_arch(3); capabilities(7), "Effect of user ID changes on capabilities".
"""

import ctypes  # noqa: TID251 - measures plugins; no plugin imports it
import functools
from collections.abc import Sequence

_SECCOMP = ctypes.CDLL("libseccomp.so.2")
_LIBC = ctypes.CDLL(None)
_SECCOMP.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
_SECCOMP.seccomp_arch_native.restype = ctypes.c_uint32
# LIMIT: 64-bit architectures number from 0, without gaps to speak of; Linux 6.18 has not reached 480
_NUMBERS = range(1024)

CLONE_THREAD, CLONE_NEWUSER = 0x00010000, 0x10000000

SET_IDS = frozenset(
    "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups".split()  # noqa: SIM905 - a table
)
_PRCTL_OPTIONS = {8: "keepcaps", 24: "bounding", 28: "securebits", 47: "ambient"}
_PR_CAP_AMBIENT_IS_SET = 1


def arch() -> int:
    """AUDIT_ARCH_* of this machine."""
    return int(_SECCOMP.seccomp_arch_native())


@functools.cache
def all_names() -> dict[int, str]:
    """Name every system call of this architecture, as far as libseccomp knows it."""
    found = {}
    for number in _NUMBERS:
        pointer = _SECCOMP.seccomp_syscall_resolve_num_arch(arch(), number)
        if pointer:
            found[number] = ctypes.string_at(pointer).decode()
            _LIBC.free(ctypes.c_void_p(pointer))
    return found


def name_of(number: int) -> str:
    """Name a system call."""
    return all_names().get(number, f"syscall_{number}")


@functools.cache
def _setters() -> frozenset[int]:
    wanted = SET_IDS | {"capset", "prctl", "setns", "unshare"}
    return frozenset(number for number, name in all_names().items() if name in wanted)


def may_change_credential(number: int) -> bool:
    """Say whether a system call changes a credential for some arguments."""
    return number in _setters()


def credential_event(number: int, arguments: Sequence[int]) -> str:
    """Say what a system call, if it succeeds, does to the credential of the thread that makes it.

    Returns:
        The system call's name, for prctl also what it sets; empty if it does nothing to it.
    """
    if number not in _setters():
        return ""
    name = name_of(number)
    if name == "prctl":
        if arguments[0] not in _PRCTL_OPTIONS or (arguments[0] == 47 and arguments[1] == _PR_CAP_AMBIENT_IS_SET):
            return ""
        return f"prctl {_PRCTL_OPTIONS[arguments[0]]}"
    if name == "setns":
        return name if arguments[1] & CLONE_NEWUSER else ""
    if name == "unshare":
        return name if arguments[0] & CLONE_NEWUSER else ""
    return name

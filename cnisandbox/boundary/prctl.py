"""The promises of prctl(2) that processes make about themselves, and what they are read back with.

The names are those of python-prctl, which has all of prctl(2) and takes a millisecond to load.

Privilege: none.

Source: prctl(2) of Linux 6.1; include/uapi/linux/prctl.h, securebits.h, capability.h.
"""

from cnisandbox.boundary.syscalls import checked, lib

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21

SECBIT_NOROOT = 1 << 0
SECBIT_NOROOT_LOCKED = 1 << 1
SECBIT_NO_SETUID_FIXUP = 1 << 2
SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3
SECBIT_KEEP_CAPS_LOCKED = 1 << 5
SECBIT_NO_CAP_AMBIENT_RAISE = 1 << 6
SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 1 << 7

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_GET_SECUREBITS = 27
_PR_SET_NO_NEW_PRIVS = 38


def set_pdeathsig(signal_number: int) -> None:
    """Be sent a signal when the thread that made this process ends; 0 for none."""
    checked(lib.native_prctl(_PR_SET_PDEATHSIG, signal_number), "parent-death signal")


def get_pdeathsig() -> int:
    """Say which signal that is."""
    return checked(lib.native_parent_death_signal(), "parent-death signal")


def set_dumpable(is_dumpable: bool) -> None:
    """Let other processes of the same user look into this one, or not."""
    checked(lib.native_prctl(_PR_SET_DUMPABLE, is_dumpable), "dumpable")


def get_dumpable() -> bool:
    """Say whether they may."""
    return checked(lib.native_prctl(_PR_GET_DUMPABLE, 0), "dumpable") != 0


def set_no_new_privs() -> None:
    """Gain no privilege by executing a program, for good."""
    checked(lib.native_prctl(_PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")


def get_securebits() -> int:
    """Say what root may not do any more."""
    return checked(lib.native_prctl(_PR_GET_SECUREBITS, 0), "securebits")

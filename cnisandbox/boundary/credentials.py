"""User and group ids, capability sets, securebits, and the promises that hold a process to them.

Privilege: CAP_SETPCAP, CAP_SETUID and CAP_SETGID before `drop_credentials`, what was asked for after it.

Source: capabilities(7); prctl(2) of Linux 6.1.
"""

import os

from cnisandbox.boundary import prctl
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.light import signal

CAP_NET_ADMIN, CAP_SYS_ADMIN = prctl.CAP_NET_ADMIN, prctl.CAP_SYS_ADMIN

# Each right with its lock: uid 0 gains nothing, a change of uid moves nothing, nothing is kept, nothing turns ambient.
LOCKED_SECUREBITS = (
    prctl.SECBIT_NOROOT
    | prctl.SECBIT_NOROOT_LOCKED
    | prctl.SECBIT_NO_SETUID_FIXUP
    | prctl.SECBIT_NO_SETUID_FIXUP_LOCKED
    | prctl.SECBIT_KEEP_CAPS_LOCKED
    | prctl.SECBIT_NO_CAP_AMBIENT_RAISE
    | prctl.SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED
)


def lock_credentials() -> None:
    """Give up what an exec, or a change of uid, could give back; what is permitted now stays so.

    Raises:
        OSError: the kernel refused a step.
    """
    _empty_bounding_set()
    # ORDER: NO_SETUID_FIXUP makes setresuid leave the sets alone, so nothing depends on PR_SET_KEEPCAPS.
    checked(lib.native_set_securebits(LOCKED_SECUREBITS), "securebits")


def save_uid(uid: int) -> None:
    """Have a saved uid that stays, where `drop_credentials` is told so; uid and effective uid do not change.

    KERNEL: whoever is that user may send a signal, and the parent-death signal is sent as by the parent (kill(2)). In a
    user namespace that does not map it, nobody can change to it.
    """
    os.setresuid(-1, -1, uid)


def drop_credentials(
    uid: int,
    gid: int,
    capabilities: tuple[int, ...],
    *,
    is_locked: bool = False,
    has_saved_uid: bool = False,
    is_kept_over_exec: bool = False,
) -> None:
    """Become `uid` and `gid` with no groups and exactly `capabilities`, for good.

    Args:
        uid: User id in the current user namespace.
        gid: Group id in the current user namespace.
        capabilities: Numbers of the capabilities that stay permitted and effective.
        is_locked: Whether `lock_credentials` has been called, in this user namespace.
        has_saved_uid: Whether `save_uid` has been called.
        is_kept_over_exec: Whether they also stay inheritable and ambient, as they already are, for a program that is
            executed.

    Raises:
        OSError: the kernel refused a step.

    Order: after everything that needs another capability.
    """
    # ORDER: PR_CAPBSET_DROP and PR_SET_SECUREBITS ask for CAP_SETPCAP, which `_cut_sets` takes away.
    if not is_locked:
        lock_credentials()
    leave_groups()
    os.setresgid(gid, gid, gid)
    # The uid is not cosmetic: uid 0 without a single capability may open /proc/sys/kernel/core_pattern for writing.
    os.setresuid(uid, uid, -1 if has_saved_uid else uid)
    if not is_kept_over_exec:
        checked(lib.native_clear_ambient(), "ambient set")
    _cut_sets(capabilities, capabilities if is_kept_over_exec else ())


def _empty_bounding_set() -> None:
    checked(lib.native_empty_bounding_set(), "bounding set")


def _cut_sets(held: tuple[int, ...], inheritable: tuple[int, ...]) -> None:
    checked(lib.native_cut_capabilities(mask_of(held), mask_of(inheritable)), "capability sets")


def mask_of(capabilities: tuple[int, ...]) -> int:
    """Say capabilities as the kernel does: a bit for each."""
    return sum(1 << capability for capability in capabilities)


def leave_groups() -> None:
    """Leave all supplementary groups; nothing is asked of the kernel when there are none."""
    if os.getgroups():
        os.setgroups([])


def leave_process_group() -> None:
    """Begin a session, and with it a process group, of one's own; nothing is done when there is one."""
    # KERNEL: kill(0) reaches the whole process group, out of a pid namespace too, and a runtime's plugins are one group
    # of one user; before Landlock had scopes (Linux 6.12) nothing else kept calls from ending each other.
    if os.getpgid(0) != os.getpid():
        os.setsid()


def bind_lifetime(dies_with_parent: bool) -> None:
    """Promise never to gain privilege, to hide memory from other processes, to let nobody else write to what is made,
    and to die with the parent.

    Args:
        dies_with_parent: False for the engine, whose parent is the runtime: an ADD that is under way when the
            runtime restarts has to end as a whole.

    Raises:
        OSError: the kernel refused a step.

    Order: after `drop_credentials`; a change of uid clears the parent-death signal and the dumpable flag's meaning.
    """
    if dies_with_parent:
        prctl.set_pdeathsig(signal.SIGKILL)
        leave_process_group()
    # What is written to state is root's on disk: nobody else may be let in, whatever the runtime's umask is.
    os.umask(os.umask(0o077) | 0o022)
    prctl.set_dumpable(False)
    prctl.set_no_new_privs()

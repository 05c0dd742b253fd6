"""Who runs where: who is woken to work beside us runs on another processor.

KERNEL: who writes to a socket or a pipe is taken to be about to wait for an answer, so the one that it wakes gets its
processor, at once, though another one has nothing to do.

Privilege: CAP_SYS_NICE over processes of other users; without it they run where they would.
"""

import os

from cnisandbox.boundary.syscalls import lib
from cnisandbox.light import suppress


def keep_off_ours(pid: int) -> None:
    """Keep a process off the processor that we are on, unless it is the only one.

    Args:
        pid: The process, which is one of ours and has not been reaped.
    """
    others = os.sched_getaffinity(0) - {lib.native_getcpu()}
    if others:
        with suppress(OSError):  # without CAP_SYS_NICE
            os.sched_setaffinity(pid, others)


def own_processors() -> set[int]:
    """Say where this process may run whom nobody has kept off a processor, for `allow`.

    Returns:
        Every processor, of which the kernel takes those of the cpuset, whatever that is then; or where somebody has
        said that this process is to run.
    """
    now = os.sched_getaffinity(0)
    every = now | set(range(os.sysconf("SC_NPROCESSORS_CONF")))
    try:
        os.sched_setaffinity(0, every)
        if os.sched_getaffinity(0) == now:
            return every
        os.sched_setaffinity(0, now)
    except OSError:  # a filter of system calls
        pass
    return now


def allow(processors: set[int]) -> None:
    """Let this process run on these processors, as before somebody kept it off one.

    Args:
        processors: What `own_processors` said then.
    """
    # A cpuset may have none of them left; the kernel would let us run anywhere in it then.
    for wanted in (processors, set(range(os.sysconf("SC_NPROCESSORS_CONF")))):
        with suppress(OSError):
            os.sched_setaffinity(0, wanted)
            return

"""Who runs where: who is woken to work beside us runs on another processor.

KERNEL: who writes to a socket or a pipe is taken to be about to wait for an answer, so the one that it wakes gets its
processor, at once, though another one has nothing to do.

Privilege: CAP_SYS_NICE over processes of other users; without it they run where they would.
"""

import os

from cnisandbox.boundary.syscalls import lib
from cnisandbox.light import suppress


def keep_off_ours(pid: int) -> None:
    """Keep a process off the processor that we are on, unless it is the only one; it is ours, and has not been reaped.

    Args:
        pid: The process.
    """
    others = os.sched_getaffinity(0) - {lib.native_getcpu()}
    if others:
        with suppress(OSError):  # all that depends on it is time
            os.sched_setaffinity(pid, others)


def allow(processors: set[int]) -> None:
    """Let this process run on these processors, as before somebody kept it off one.

    Args:
        processors: What os.sched_getaffinity said then.
    """
    with suppress(OSError):  # a cpuset leaves none of them: the kernel has chosen others already
        os.sched_setaffinity(0, processors)

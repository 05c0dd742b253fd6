"""What the process list shows.

Privilege: none.
"""

import os

import prctl


def _had_environment() -> bool:
    try:
        fd = os.open("/proc/self/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # without /proc nothing else works, and says so
        return False
    try:
        return bool(os.read(fd, 1))
    finally:
        os.close(fd)


# prctl looks for the command line in front of the first variable that the process was started with, and follows
# whatever pointer it finds where there was none.
_IS_SAFE = _had_environment()


def set_title(text: str) -> None:
    """Show a text in the process list in place of the command line, where there is room for it."""
    if _IS_SAFE:
        prctl.set_proctitle(text)

"""What the process list shows.

Privilege: none.
"""

import os

import prctl

# LIMIT: of the first variable; one that is longer is taken for one that has been changed.
_VARIABLE_BYTES = 4096

# Whether there is a place for a title; not known before somebody has one.
_has_place: bool | None = None


def _is_environment_as_it_began() -> bool:
    """Say whether the first variable that the process was started with is what it was."""
    try:
        fd = os.open("/proc/self/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # without /proc nothing else works, and says so
        return False
    try:
        name, equals, value = os.read(fd, _VARIABLE_BYTES).partition(b"\0")[0].partition(b"=")
    finally:
        os.close(fd)
    return bool(equals) and os.environb.get(name) == value


def set_title(text: str) -> None:
    """Show a text in the process list in place of the command line, where there is room for it.

    Order: the first time before the environment changes.
    """
    global _has_place  # noqa: PLW0603 - prctl, too, looks for the place once, and keeps it
    # prctl finds the command line in front of the first variable, and follows whatever pointer it finds where that was.
    if _has_place is None:
        _has_place = _is_environment_as_it_began()
    if _has_place:
        prctl.set_proctitle(text)

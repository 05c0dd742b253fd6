"""Python's side of `native/`: -errno becomes OSError, and nothing else happens here."""

import os

from cnisandbox import _native
from cnisandbox.hints import Any

lib: Any = _native.lib
ffi: Any = _native.ffi

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000


def checked(result: int, subject: str = "") -> int:
    """Turn -errno into OSError.

    Args:
        result: What a function of `lib` returned.
        subject: Path or name for the message.

    Returns:
        `result`, when it is not negative.

    Raises:
        OSError: `result` is negative.
    """
    if result < 0:
        raise OSError(-result, os.strerror(-result), subject or None)
    return result

"""What the process list shows.

Privilege: none.
"""

import os
import sys

from cnisandbox.boundary.syscalls import lib

# What stands in the place of the command line; nothing when that was not found there.
_shown = b"".join(os.fsencode(argument) + b"\0" for argument in sys.orig_argv)


def set_title(text: str) -> None:
    """Show a text in the process list in place of the command line, where there is room for it."""
    global _shown  # noqa: PLW0603 - there is one command line
    # The last byte stays zero: of one that is not, the kernel thinks that the text goes on in the environment.
    wanted = text.encode("utf-8", "replace")[: max(len(_shown) - 1, 0)].ljust(len(_shown), b"\0")
    # TRUST: the place is one that the C library keeps; written to only if exactly what should be there is there.
    if lib.native_set_title(_shown, wanted, len(_shown)) != 0:
        wanted = b""
    _shown = wanted

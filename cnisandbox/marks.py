"""The lines by which the files that cnisandbox puts into a plugin directory are told from other people's.

a launcher    a program whose last line is "# cnisandbox plugin: NAME"; a script of which it is the second line was
              one, too, and is brought up to date by the next install
a shim        a script whose second line is "# cnisandbox shim: NAME"
"""

import os

PLUGIN = b"# cnisandbox plugin: "
SHIM = b"# cnisandbox shim: "

_PROGRAM = b"\x7fELF"
_SCRIPT = b"#!"
# LIMIT: a first line has 255 bytes at most, and a plugin's name 64 (cnisandbox/cli/launcher.py).
_BYTES = 512


class Ends:
    """The beginning and the end of a file, by which it is known.

    Args:
        fd: Of a regular file; its position is not used.

    Attributes:
        plugin: Whose launcher it is; empty for none.
        is_shim: Whether it is a shim.
    """

    def __init__(self, fd: int) -> None:
        head = os.pread(fd, _BYTES, 0)
        lines = head.split(b"\n", 2)
        second = lines[1] if head.startswith(_SCRIPT) and len(lines) == 3 else b""
        self.is_shim = second.startswith(SHIM)
        self.plugin = _plugin_in(second)
        if head.startswith(_PROGRAM):
            self.plugin = plugin_at_end(os.pread(fd, _BYTES, max(0, os.fstat(fd).st_size - _BYTES)))


def plugin_at_end(tail: bytes) -> str:
    """Say which plugin's launcher it is that ends so; empty for none."""
    lines = tail.rsplit(b"\n", 2)
    return _plugin_in(lines[-2]) if len(lines) > 1 and not lines[-1] else ""


def _plugin_in(line: bytes) -> str:
    return line[len(PLUGIN) :].decode("ascii", "replace").strip() if line.startswith(PLUGIN) else ""

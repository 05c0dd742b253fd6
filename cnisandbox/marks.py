"""The lines by which the files that cnisandbox puts into a plugin directory are told from other people's.

a launcher    a program whose last line is "# cnisandbox plugin: NAME"
a shim        the same program, and its last line is "# cnisandbox shim: NAME"

A script that has it as its second line was the same, too, and is brought up to date by the next install or wrap.
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
        line = lines[1] if head.startswith(_SCRIPT) and len(lines) == 3 else b""
        if head.startswith(_PROGRAM):
            line = _last_line(os.pread(fd, _BYTES, max(0, os.fstat(fd).st_size - _BYTES)))
        self.is_shim = line.startswith(SHIM)
        self.plugin = _plugin_in(line)


def plugin_at_end(tail: bytes) -> str:
    """Say which plugin's launcher it is that ends so; empty for none."""
    return _plugin_in(_last_line(tail))


def _last_line(tail: bytes) -> bytes:
    lines = tail.rsplit(b"\n", 2)
    return lines[-2] if len(lines) > 1 and not lines[-1] else b""


def _plugin_in(line: bytes) -> str:
    return line[len(PLUGIN) :].decode("ascii", "replace").strip() if line.startswith(PLUGIN) else ""

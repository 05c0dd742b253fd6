"""Who may work at the same time: one verb per container at once, any containers side by side, GC alone.

The specification asks this of the runtime (section 3, "Lifecycle & Ordering"), and libcni leaves it to its callers.
Everything is in one file: byte 0 is shared by ADD, CHECK and DEL and exclusive to GC, and each container has one of
the bytes after it. Two containers that meet on a byte wait for each other, which costs time and nothing else.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from cnisandbox.errors import IoFailure, quoted, reason

_GC_BYTE = 0
_SLOTS = 1 << 30


@contextmanager
def container_locked(path: str, container_id: str) -> Iterator[None]:
    """Hold off GC, and everybody else who works on this container.

    Args:
        path: The lock file; made if it is missing.
        container_id: Any text.
    """
    with _opened(path) as fd:
        _lock(fd, fcntl.F_RDLCK, _GC_BYTE)
        _lock(fd, fcntl.F_WRLCK, 1 + zlib.crc32(container_id.encode("utf-8", "replace")) % _SLOTS)
        yield


@contextmanager
def everything_locked(path: str) -> Iterator[None]:
    """Hold off everybody, for GC."""
    with _opened(path) as fd:
        _lock(fd, fcntl.F_WRLCK, _GC_BYTE)
        yield


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise IoFailure(
            f"open lock {quoted(path)}: {reason(error)}",
            "run it as root, or choose another cache directory with --cache-dir",
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, kind: int, byte: int) -> None:
    # KERNEL: an open-file-description lock belongs to the descriptor, not to the process: threads exclude each other,
    # and closing some other descriptor of the file does not drop it (fcntl(2), Linux 3.15).
    fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))

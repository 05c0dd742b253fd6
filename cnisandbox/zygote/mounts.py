"""A mount namespace with little in it, for slots to copy in place of ours.

Each process that gets a view of its own copies all mounts, and then lets go of all but what is in view: on a node with
hundreds of them that is a millisecond, three times for a slot.

    zygote ── fork ▶ child    copies our mount namespace, takes out what no view needs; ends when the zygote has it open

Privilege: CAP_SYS_ADMIN. What is in it is in ours as well, and nobody stays in it: views are made of copies.
"""

import os
import signal

from cnisandbox.boundary import namespaces, prctl, view
from cnisandbox.errors import CniError

# LIMIT: of the list of mounts; a line has some 150 bytes.
_LIST_BYTES = 4 << 20
# What is left, and what is below /proc: a runtime may have made sysctls read-only by a mount.
_NEEDED = (b"/", b"/dev", b"/proc")


def open_small_namespace() -> int:
    """Make a mount namespace like ours, with the root, /dev and /proc.

    Returns:
        A descriptor of it, owned by the caller.

    Raises:
        ChildProcessError: it cannot be made; why was said.
    """
    ready_fd, tell_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            prctl.set_pdeathsig(signal.SIGKILL)
            _take_out()
            os.write(tell_fd, b".")
            signal.pause()
        except (CniError, OSError) as error:
            os.write(2, f"cnisandbox: serve: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(1)
    os.close(tell_fd)
    try:
        if not os.read(ready_fd, 1):
            raise ChildProcessError("make mount namespace")
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _take_out() -> None:
    namespaces.enter_own_namespaces()
    view.make_private()
    for path in _others():
        view.detach(path)


def _others() -> list[bytes]:
    """List where something is mounted that no view needs; the kernel shows what is above before what is below."""
    fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    try:
        while len(text) < _LIST_BYTES and (piece := os.read(fd, _LIST_BYTES)):
            text += piece
    finally:
        os.close(fd)
    paths = [_unescaped(line.split(b" ", 5)[4]) for line in text.splitlines() if line.count(b" ") > 4]
    return [path for path in paths if path not in _NEEDED and not path.startswith(b"/proc/")]


def _unescaped(path: bytes) -> bytes:
    # Source: mangle() in fs/proc_namespace.c.
    for code in (b" ", b"\t", b"\n", b"#", b"\\"):
        path = path.replace(b"\\%03o" % ord(code), code)
    return path

"""What a runtime asks about a network namespace before it lets plugins work on it.

Privilege: CAP_SYS_ADMIN for `has_link`, which enters the namespace with a thread of its own.
"""

import os
import socket
import threading

from cnisandbox import _native
from cnisandbox.errors import InvalidNetns, KernelRefused, quoted, reason

_CLONE_NEWNET = 0x40000000


def open_netns(path: str) -> int:
    """Open a network namespace.

    Returns:
        A descriptor that the caller closes.

    Raises:
        InvalidNetns: There is nothing at the path, or something else than a network namespace.
    """
    try:
        # O_NONBLOCK: a FIFO at this path must not make us wait
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InvalidNetns(f"open netns {quoted(path)}: {why}", "`ip netns add NAME` makes one") from error
    if _native.lib.native_ns_get_nstype(fd) != _CLONE_NEWNET:
        os.close(fd)
        raise InvalidNetns(
            f"open netns {quoted(path)}: not a network namespace",
            "give a path such as /run/netns/NAME or /proc/PID/ns/net",
        )
    return fd


def is_alive(path: str) -> bool:
    """Say whether there is a network namespace at the path."""
    try:
        os.close(open_netns(path))
    except InvalidNetns:
        return False
    return True


def has_link(path: str, ifname: str) -> bool:
    """Say whether a network namespace has a link of this name.

    Raises:
        InvalidNetns: There is no network namespace at the path.
        KernelRefused: It cannot be entered.
    """
    fd = open_netns(path)
    answers: list[bool | KernelRefused] = []

    def look() -> None:
        # KERNEL: setns() moves the calling thread only; this one ends with its namespace
        result = _native.lib.native_setns(fd, _CLONE_NEWNET)
        answers.append(_link_exists(ifname) if result == 0 else KernelRefused("enter netns", quoted(path), -result))

    thread = threading.Thread(target=look)
    try:
        thread.start()
        thread.join()
    finally:
        os.close(fd)
    if isinstance(answers[0], KernelRefused):
        raise answers[0]
    return answers[0]


def _link_exists(ifname: str) -> bool:
    try:
        socket.if_nametoindex(ifname)
    except OSError:
        return False
    return True

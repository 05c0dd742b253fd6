"""How a judge sees what the kernel holds: the state of a network namespace, and the sockets of the attacked process.

Privilege: all, outside of the attacked process; nothing here is used by an attempt.
"""

import contextlib
import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cnisandbox.laboratory.attacker import raw

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

T = TypeVar("T")

HOST, CONTAINER, VICTIM = "", "blue", "victim"

_SIOCGSKNS = 0x894C
_WAIT_S = 2.0
_WAIT_AFTER_REFUSAL_S = 0.1


class LinkState(NamedTuple):
    """A link as RTM_GETLINK shows it."""

    ifindex: int
    flags: int
    attributes: dict[int, bytes]

    def number(self, kind: int) -> int:
        """Decode an attribute of 32 bits."""
        return raw.integer(self.attributes[kind])


def within(arena: "Arena", netns: str, function: Callable[[], T]) -> T:
    """Run a function in a netns of the arena, HOST being the arena's own."""
    return arena.inside(netns, function) if netns else function()


def link(arena: "Arena", ifname: str, netns: str = CONTAINER) -> LinkState | None:
    """Look a link up; None when there is none."""
    wanted = ifname.encode() + b"\0"
    for body in dump(arena, raw.RTM_GETLINK, raw.link_body(), netns):
        ifindex, flags = struct.unpack_from("=iI", body, 4)
        found = LinkState(ifindex, flags, raw.attributes(body[16:]))
        if found.attributes[raw.IFLA_IFNAME] == wanted:
            return found
    return None


def dump(arena: "Arena", kind: int, body: bytes, netns: str = CONTAINER, protocol: int = 0) -> list[bytes]:
    """Ask a netns for a list by netlink.

    Returns:
        The body of each message.
    """

    def ask() -> list[bytes]:
        channel = raw.Netlink(protocol)
        try:
            return [answer for _, answer in channel.request(kind, body, raw.NLM_F_DUMP)]
        finally:
            channel.close()

    return within(arena, netns, ask)


def read(arena: "Arena", path: str, netns: str = CONTAINER) -> str:
    """Read a file below /proc/net or /proc/sys/net as it is in a netns."""

    def read_here() -> str:
        with open(path) as file:
            return file.read()

    return within(arena, netns, read_here)


def sockets(arena: "Arena", netns: str = CONTAINER) -> Iterator[socket.socket]:
    """Take the sockets of the attacked process, by pidfd_getfd(), that belong to a netns."""
    with contextlib.suppress(OSError):  # it has been killed, and holds nothing
        pidfd = os.pidfd_open(arena.pid)
        inode = within(arena, netns, lambda: os.stat("/proc/self/ns/net").st_ino)
        for number in _socket_numbers(arena):
            with socket.socket(fileno=raw.syscall("pidfd_getfd", pidfd, number, 0)) as taken:
                if _netns_inode(taken) == inode:
                    yield taken
        os.close(pidfd)


def _socket_numbers(arena: "Arena") -> list[int]:
    return [number for number, target in arena.descriptors().items() if target.startswith("socket:")]


def _netns_inode(taken: socket.socket) -> int:
    netns_fd = fcntl.ioctl(taken.fileno(), _SIOCGSKNS)
    try:
        return os.fstat(netns_fd).st_ino
    finally:
        os.close(netns_fd)


def packets(arena: "Arena") -> Iterator[bytes]:
    """Read what the scene's packet socket has received so far, link-layer header included."""
    assert arena.listener is not None
    arena.listener.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield arena.listener.recv(2048)


def eventually(arena: "Arena", is_so: Callable[[], bool]) -> bool:
    """Wait for what the kernel does in its own time; not long when the attempt was refused."""
    deadline = time.monotonic() + (_WAIT_AFTER_REFUSAL_S if arena.said.errno else _WAIT_S)
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True

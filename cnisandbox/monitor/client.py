"""The other side of a gate: netlink sockets and sysctls for code that may open none.

At level mediated the declared functions of our own plugins run in the engine, which has no capability and no socket().
While one runs, the gate of the worker that would have run it is the current one, and what the function does with
netlink, sysctls and nf_tables goes there.

Privilege: none.
"""

import errno
import os
from collections.abc import Callable, Iterator

from cnisandbox.boundary.wire import Channel, check
from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import Any
from cnisandbox.light import contextmanager, suppress

OPEN, SEND, RECEIVE, READ_SYSCTL, WRITE_SYSCTL, NFTABLES = range(6)

# LIMIT: seconds for an answer; the kernel's own wait for a datagram is 10.
_TIMEOUT_S = 60.0

_current: list["Gate"] = []


class _Posted(Exception):
    """What a function wanted to send is on its way."""


class Gate:
    """A worker that has become a gate.

    Args:
        channel: Our end of its pipes.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._posts = False

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a function here; what it wants of the kernel goes through the gate."""
        with through(self):
            return function(*args)

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """Run a function until it has sent something; nothing is asked of the gate after that."""
        self._posts = True
        with suppress(_Posted):
            self.call(function, *args)

    def send(self, protocol: int, data: bytes) -> list[bytes]:
        """Have the gate send a datagram.

        Returns:
            Datagrams that the kernel has answered with by then.

        Raises:
            OSError: it refused, or the kernel did.
        """
        if self._posts:
            self._channel.send([SEND, protocol, data], _TIMEOUT_S)
            raise _Posted
        answers: list[bytes] = check(self.ask(SEND, protocol, data), list[bytes], "answers of gate")
        return answers

    def ask(self, *request: object) -> object:
        """Ask the gate for something.

        Raises:
            OSError: it refused, or the kernel did.
            BoundaryViolation: it has ended, or its answer has no known shape.
        """
        self._channel.send(list(request), _TIMEOUT_S)
        match self._channel.receive(_TIMEOUT_S):
            case [0, answer]:
                return answer
            case [int(number), str(text)] if 0 < number < 4096:
                raise OSError(number, text)
        raise BoundaryViolation("ask gate: the answer has no known shape")


class GateSocket:
    """What stands in for a netlink socket: the few methods that netlink/transport.py uses.

    Args:
        gate: Where it goes.
        protocol: Which netlink protocol.
    """

    def __init__(self, gate: Gate, protocol: int) -> None:
        self._gate = gate
        self._protocol = protocol
        self._port = gate.ask(OPEN, protocol)
        self._is_open = True
        self._received: list[bytes] = []

    def sendto(self, data: bytes, _address: tuple[int, int]) -> int:
        """Send a datagram to the kernel; the gate judges it."""
        self._require_open()
        self._received += self._gate.send(self._protocol, data)
        return len(data)

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """Receive a datagram of the kernel's: data, nothing ancillary, no flags, the kernel's port."""
        self._require_open()
        data = self._received.pop(0) if self._received else self._gate.ask(RECEIVE, self._protocol)
        if not isinstance(data, bytes):
            raise BoundaryViolation("receive from gate: it is no datagram")
        return data, [], 0, (0, 0)

    def getsockname(self) -> tuple[int, int]:
        """Say which port the gate's socket has."""
        return int(self._port) if isinstance(self._port, int) else 0, 0

    def fileno(self) -> int:
        """Say whether it is open; it has no descriptor."""
        return 0 if self._is_open else -1

    def close(self) -> None:
        """Close it."""
        self._is_open = False

    def _require_open(self) -> None:
        if not self._is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def current() -> Gate | None:
    """Return the gate through which this process reaches the kernel; None when it does so by itself."""
    return _current[-1] if _current else None


@contextmanager
def through(gate: Gate) -> Iterator[None]:
    """Have everything in the block go through a gate."""
    _current.append(gate)
    try:
        yield
    finally:
        _current.pop()

"""The other side of a gate: netlink sockets and sysctls for code that may open none.

At level mediated the declared functions of our own plugins run in the engine, which has no capability and no socket().
While one runs, the gate of the worker that would have run it is the current one, and what the function does with
netlink, sysctls and nf_tables goes there.

One request carries several steps where only the last one's answer is waited for: a socket is opened with its first
datagram, a setting is written with what is asked next. The gate takes them in order, judges each, and stops at the
first that fails; so whatever depends on a step is not done without it.

Privilege: none.
"""

import errno
import os
from collections.abc import Callable, Iterator

from cnisandbox.boundary.wire import Channel, check
from cnisandbox.errors import BoundaryViolation, CniError, KernelRefused
from cnisandbox.hints import Any
from cnisandbox.light import contextmanager, suppress

OPEN, SEND, RECEIVE, READ_SYSCTL, WRITE_SYSCTL, NFTABLES, CHANGE_SYSCTL = range(7)

# LIMIT: seconds for an answer; the kernel's own wait for a datagram is 10.
_TIMEOUT_S = 60.0

_current: list["Gate | None"] = []


Settle = Callable[[int, object], object]
"""Told a step's errno, or 0, and its answer, or what the errno is about; raises, if that is not tolerated."""


class _Posted(Exception):
    """What a function wants an answer to is on its way."""


class Gate:
    """A worker that has become a gate.

    Args:
        channel: Our end of its pipes.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # Of each step: operation, what it is done with, data, tolerated errno.
        self._steps: list[object] = []
        self._settles: list[Settle] = []
        self._posts = False
        self._posted: list[object] | None = None

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a function here; what it wants of the kernel goes through the gate."""
        with through(self):
            try:
                result = function(*args)
                if self._steps:
                    self._exchange()
            finally:
                self._steps, self._settles = [], []
        return result

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """Run a function until it needs an answer; what it asks for is sent."""
        self._posts = True
        try:
            with suppress(_Posted):
                self.call(function, *args)
        finally:
            self._posts = False

    def start(self, function: Callable[..., Any], *args: object) -> Callable[[], Any]:
        """Begin a function, and run it from the beginning when its result is wanted: it finds its first answer then.

        Until it has asked for something, a declared function has done nothing; so it may be run once more.

        Returns:
            What runs it, to be called before the gate is asked anything else.
        """
        try:
            self.begin(function, *args)
        except BoundaryViolation:
            raise
        except CniError:
            pass  # raised again, to whoever wants the result
        return lambda: self.call(function, *args)

    def later(self, operation: int, where: object, data: bytes | None, settle: Settle, tolerated: int = 0) -> None:
        """Have something be done before what is asked next, or before the function is over.

        Args:
            operation: Its number.
            where: The protocol of a socket, the path of a setting, or commands.
            data: What is sent or written.
            settle: Told what came of it; if that is a failure, nothing behind it was done.
            tolerated: An errno that is none; 0 for none of them.
        """
        self._steps += (operation, where, data, tolerated)
        self._settles.append(settle)

    def ask(self, operation: int, where: object, data: bytes | None = None) -> object:
        """Ask the gate for something; the arguments are those of `later`.

        Raises:
            OSError: it refused, or the kernel did.
            BoundaryViolation: it has ended, or its answer has no known shape.
            CniError: something that was to be done before failed.
        """
        self.later(operation, where, data, _answer)
        return self._exchange()

    def _exchange(self) -> object:
        """Have the gate take the steps, in one request, and settle them in order; returns what the last one came to."""
        request, settles = self._steps, self._settles
        self._steps, self._settles = [], []
        if self._posted is None:
            self._channel.send(request, _TIMEOUT_S)
            self._posted = request
        elif self._posted != request and not self._posts:
            raise BoundaryViolation("ask gate: what it was asked before has not been answered")
        if self._posts:
            raise _Posted
        answers = self._channel.receive(_TIMEOUT_S)
        self._posted = None
        if not isinstance(answers, list) or len(answers) % 2 or not 0 < len(answers) <= 2 * len(settles):
            raise BoundaryViolation("ask gate: the answer has no known shape")
        settled: object = None
        for settle, number, answer in zip(settles, answers[::2], answers[1::2], strict=False):
            if type(number) is not int or not 0 <= number < 4096 or (number and not isinstance(answer, str)):
                raise BoundaryViolation("ask gate: the answer has no known shape")
            settled = settle(number, answer)
        if len(answers) < 2 * len(settles):
            raise BoundaryViolation("ask gate: the answer is not whole")
        return settled


def _answer(number: int, answer: object) -> object:
    if number:
        raise OSError(number, answer)
    return answer


class GateSocket:
    """What stands in for a netlink socket: the few methods that netlink/transport.py uses.

    Args:
        gate: Where it goes.
        protocol: Which netlink protocol.
    """

    def __init__(self, gate: Gate, protocol: int) -> None:
        self._gate = gate
        self._protocol = protocol
        self._port = 0
        self._is_open = True
        self._received = b""

    def sendto(self, data: bytes, _address: tuple[int, int]) -> int:
        """Send a datagram to the kernel; the gate judges it, and opens the socket first."""
        self._require_open()
        if not self._port:
            self._gate.later(OPEN, self._protocol, None, self._set_port)
        self._received += check(self._gate.ask(SEND, self._protocol, data), bytes, "answers of gate")
        return len(data)

    def _set_port(self, number: int, port: object) -> None:
        if number:
            self.close()
            raise KernelRefused("open socket", "netlink route", number)
        self._port = check(port, int, "port of gate")

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """Receive a datagram of the kernel's: data, nothing ancillary, no flags, the kernel's port."""
        self._require_open()
        data = self._received or check(self._gate.ask(RECEIVE, self._protocol), bytes, "datagram of gate")
        self._received = b""
        return data, [], 0, (0, 0)

    def getsockname(self) -> tuple[int, int]:
        """Say which port the gate's socket has; 0 until something was sent."""
        return self._port, 0

    def fileno(self) -> int:
        """Say whether it is open; it has no descriptor."""
        return 0 if self._is_open else -1

    def close(self) -> None:
        """Close it."""
        self._is_open = False

    def detach(self) -> int:
        """Close it, which has no descriptor to be left open."""
        self.close()
        return -1

    def _require_open(self) -> None:
        if not self._is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def current() -> Gate | None:
    """Return the gate through which this process reaches the kernel; None when it does so by itself."""
    return _current[-1] if _current else None


@contextmanager
def through(gate: Gate | None) -> Iterator[None]:
    """Have everything in the block go through a gate; None: through none, whatever is around it."""
    _current.append(gate)
    try:
        yield
    finally:
        _current.pop()

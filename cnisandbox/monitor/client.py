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
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.light import contextmanager, suppress

OPEN, SEND, RECEIVE, READ_SYSCTL, WRITE_SYSCTL, NFTABLES, CHANGE_SYSCTL = range(7)

# LIMIT: seconds for an answer; the kernel's own wait for a datagram is 10.
_TIMEOUT_S = 60.0

_current: list["Gate"] = []


Outcome = Callable[[], object]
"""What a step has come to: returns the gate's answer, or raises OSError: the gate refused, or the kernel did."""

Settle = Callable[[Outcome], object]
"""Makes of an outcome what is made of it; raises, if the step failed and that is not tolerated."""


class _Posted(Exception):
    """What a function wants an answer to is on its way."""


class _Step(NamedTuple):
    """One thing that a gate is asked for.

    Attributes:
        request: Number of the operation, and its arguments.
        settle: Told what came of it.
        tolerated: Errnos after which the gate goes on.
    """

    request: list[object]
    settle: Settle
    tolerated: list[int]


class Gate:
    """A worker that has become a gate.

    Args:
        channel: Our end of its pipes.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._later: list[_Step] = []
        self._posts = False
        self._posted: list[object] | None = None

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a function here; what it wants of the kernel goes through the gate."""
        with through(self):
            try:
                result = function(*args)
                if self._later:
                    self._exchange(self._later)
            finally:
                self._later = []
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

    def later(self, request: list[object], settle: Settle, tolerated: tuple[int, ...] = ()) -> None:
        """Have something be done before what is asked next, or before the function is over.

        Args:
            request: Number of the operation, and its arguments.
            settle: Told what came of it; if that is a failure, nothing behind it was done.
            tolerated: Errnos that are none.
        """
        self._later.append(_Step(request, settle, list(tolerated)))

    def ask(self, *request: object) -> object:
        """Ask the gate for something.

        Raises:
            OSError: it refused, or the kernel did.
            BoundaryViolation: it has ended, or its answer has no known shape.
            CniError: something that was to be done before failed.
        """
        return self._exchange([*self._later, _Step(list(request), lambda outcome: outcome(), [])])

    def _exchange(self, steps: list[_Step]) -> object:
        """Have the gate take steps, in one request, and settle them in order; returns what the last one came to."""
        self._later = []
        request: list[object] = [[step.tolerated, step.request] for step in steps]
        if self._posted is None:
            self._channel.send(request, _TIMEOUT_S)
            self._posted = request
        elif self._posted != request and not self._posts:
            raise BoundaryViolation("ask gate: what it was asked before has not been answered")
        if self._posts:
            raise _Posted
        answers = self._channel.receive(_TIMEOUT_S)
        self._posted = None
        if not isinstance(answers, list) or not 0 < len(answers) <= len(steps):
            raise BoundaryViolation("ask gate: the answer has no known shape")
        settled: object = None
        for step, answer in zip(steps, answers, strict=False):
            settled = step.settle(_outcome(answer))
        if len(answers) < len(steps):
            raise BoundaryViolation("ask gate: the answer is not whole")
        return settled


def _outcome(answer: object) -> Outcome:
    def outcome() -> object:
        match answer:
            case [0, value]:
                return value
            case [int(number), str(text)] if 0 < number < 4096:
                raise OSError(number, text)
        raise BoundaryViolation("ask gate: the answer has no known shape")

    return outcome


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
        self._received: list[object] = []  # `recvmsg` looks at what they are

    def sendto(self, data: bytes, _address: tuple[int, int]) -> int:
        """Send a datagram to the kernel; the gate judges it, and opens the socket first."""
        self._require_open()
        if not self._port:
            self._gate.later([OPEN, self._protocol], self._set_port)
        answers = self._gate.ask(SEND, self._protocol, data)
        if not isinstance(answers, list):
            raise BoundaryViolation("send through gate: the answers have no known shape")
        self._received += answers
        return len(data)

    def _set_port(self, outcome: Outcome) -> None:
        try:
            port = outcome()
        except OSError as error:
            self.close()
            raise KernelRefused("open socket", "netlink route", error.errno or 0) from None
        self._port = check(port, int, "port of gate")

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        """Receive a datagram of the kernel's: data, nothing ancillary, no flags, the kernel's port."""
        self._require_open()
        data = self._received.pop(0) if self._received else self._gate.ask(RECEIVE, self._protocol)
        if not isinstance(data, bytes):
            raise BoundaryViolation("receive from gate: it is no datagram")
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

"""Answering calls: the loop of a worker, and the errors that cross the boundary.

Privilege: whatever the worker has left; nothing is ever retried with more.
"""

import os
from collections.abc import Callable

from cnisandbox import errors
from cnisandbox.boundary.attestation import Attestation
from cnisandbox.boundary.calls import TABLE, is_permitted
from cnisandbox.boundary.wire import Channel, check, check_each
from cnisandbox.errors import BoundaryViolation, CniError, DelegateFailed, KernelRefused
from cnisandbox.hints import Any, NoReturn

# What a worker may report, by position. The receiver picks the class from its own table; the wire carries a number.
_ERROR_CLASSES: tuple[type[CniError], ...] = (
    errors.InvalidConfig,
    errors.InvalidEnvironment,
    errors.InvalidNetns,
    errors.UnsupportedField,
    errors.UnknownContainer,
    errors.IoFailure,
    errors.TryAgain,
    errors.NotAvailable,
    errors.LimitedConnectivity,
    errors.KernelRefused,
    errors.CheckFailed,
    errors.DelegateFailed,
    errors.PrivilegeNotDropped,
    errors.IsolationUnavailable,
    errors.BoundaryViolation,
)
_OK, _ERROR = 0, 1

# LIMIT: characters of a text that a worker puts into an error; people read it.
_TEXT_LIMIT = 4096


BecomeGate = Callable[[Channel, dict[str, list[str]]], NoReturn]
"""What a worker does that is told to be a gate: with its channel, and names of links that the netconf gives."""

_GATE = "gate"


def serve(
    channel: Channel, *, is_delegate: bool, become_gate: BecomeGate | None = None, is_gate_only: bool = False
) -> NoReturn:
    """Answer calls until the other end is closed; any breach of the protocol ends the process.

    Args:
        channel: Our end.
        is_delegate: Whether this is the delegate worker, which has other functions than all others.
        become_gate: What to do when the first request says that this is to be a gate, for good.
        is_gate_only: Whether the first request must say so: no function is ever run.

    The peer asks for a position in a table that both sides have had since the fork, with values that are checked
    against the annotations here; there is no other request.
    """
    is_first = True
    while True:
        try:
            request = channel.receive()
        except BoundaryViolation:
            os._exit(0)
        match request:
            case [str(word), dict(names)] if is_first and word == _GATE and become_gate is not None:
                become_gate(channel, check(names, dict[str, list[str]], "names"))
        # TRUST: a peer that was taken over while it read the netconf would not ask for a gate.
        if is_gate_only:
            os._exit(2)
        is_first = False
        index, arguments = checked_request(request, is_delegate=is_delegate)
        try:
            answer = answer_of(TABLE[index], arguments)
        except Exception as error:  # noqa: BLE001 - a defect of ours: said once, then the process ends
            channel.send(
                describe_error(BoundaryViolation(f"run {TABLE[index].__name__}: {type(error).__name__}: {error}"))
            )
            os._exit(1)
        channel.send(answer)


def checked_request(request: object, *, is_delegate: bool) -> tuple[int, list[Any]]:
    """Check a request against the table; a breach of the protocol ends the process.

    Returns:
        The function's position, and its arguments with the types that its annotations name.
    """
    match request:
        case [int(index), list(arguments)] if type(index) is int and is_permitted(index, is_delegate=is_delegate):
            annotations = dict(TABLE[index].__annotations__)
            del annotations["return"]
            if len(annotations) == len(arguments):
                return index, check_each(arguments, annotations, "argument")
    os._exit(2)


def answer_of(function: Callable[..., Any], arguments: list[Any]) -> list[object]:
    """Run a function; returns the answer, also if that is an error."""
    try:
        return [_OK, function(*arguments)]
    except CniError as error:
        return describe_error(error)


def ask_for_gate(channel: Channel, names: dict[str, list[str]], timeout_s: float) -> None:
    """Tell the other end to be a gate from now on; one that does not become it ends.

    Raises:
        BoundaryViolation: it has ended.
    """
    channel.send([_GATE, names], timeout_s)


def describe_error(error: CniError) -> list[object]:
    """Turn an error into a message."""
    kind = type(error) if type(error) in _ERROR_CLASSES else errors.IoFailure
    index = _ERROR_CLASSES.index(kind)
    operation, target, number = ("", "", 0)
    if isinstance(error, KernelRefused):
        operation, target, number = error.operation, error.target, error.errno
    if isinstance(error, DelegateFailed):
        number = error.code
    return [_ERROR, index, error.msg, error.details, operation, target, number]


def post(channel: Channel, function: Callable[..., Any], arguments: tuple[object, ...], timeout_s: float) -> None:
    """Ask the other end to run a declared function, without waiting for the answer.

    Args:
        channel: Our end.
        function: A function that was declared before the fork.
        arguments: Its arguments.
        timeout_s: Seconds until the request must be on its way.

    Raises:
        BoundaryViolation: the other end has gone or does not read, or does not know the function.
    """
    try:
        index = TABLE.index(function)
    except ValueError as error:
        raise BoundaryViolation(f"call {function.__name__}: it was not declared before the worker began") from error
    channel.send([index, list(arguments)], timeout_s)


def collect(channel: Channel, function: Callable[..., Any], timeout_s: float) -> Any:
    """Wait for the answer to what was posted.

    Args:
        channel: Our end.
        function: What was posted.
        timeout_s: Seconds to wait.

    Returns:
        The result, checked against the function's annotation here: the answer comes from a process that may be hostile.

    Raises:
        CniError: what the function raised.
        BoundaryViolation: the answer is late, malformed or of the wrong type, or the process has ended.
    """
    answer = channel.receive(timeout_s)
    match answer:
        case [int(kind), value] if kind == _OK:
            return check(value, function.__annotations__["return"], f"result of {function.__name__}")
        case [int(kind), *rest] if kind == _ERROR:
            raise rebuild_error(rest)
    raise BoundaryViolation(f"call {function.__name__}: the answer has no known shape")


def rebuild_error(fields: list[object]) -> CniError:
    """Turn the fields of an error message back into the error; a malformed one becomes a BoundaryViolation."""
    match fields:
        case [int(index), str(msg), str(details), str(operation), str(target), int(number)]:
            msg, details, operation, target = (text[:_TEXT_LIMIT] for text in (msg, details, operation, target))
            if 0 <= index < len(_ERROR_CLASSES):
                kind = _ERROR_CLASSES[index]
                if kind is KernelRefused and 0 <= number < 4096:
                    return KernelRefused(operation, target, number, details)
                if kind is DelegateFailed:
                    return DelegateFailed(number, msg, details)
                if kind is not KernelRefused:
                    return kind(msg, details)
    return BoundaryViolation("rebuild error: the message has no known shape")


def receive_attestation(channel: Channel, role: str, timeout_s: float) -> Attestation:
    """Receive the first message of a worker.

    Raises:
        IsolationError: the worker could not be confined; it says at which stage.
    """
    message = channel.receive(timeout_s)
    match message:
        case [int(kind), value] if kind == _OK:
            attestation: Attestation = check(value, Attestation, f"attestation of {role}")
            return attestation
        case [int(kind), *rest] if kind == _ERROR:
            raise rebuild_error(rest)
    raise BoundaryViolation(f"attest {role}: the message has no known shape")


def send_attestation(channel: Channel, attestation: Attestation) -> None:
    """Send the first message."""
    channel.send([_OK, attestation])


def receive_changes(channel: Channel, before: Attestation, timeout_s: float) -> Attestation:
    """Receive the second message of a worker that was forked ahead: what of its attestation differs from the first.

    Returns:
        The whole attestation.

    Raises:
        IsolationError: the worker could not be confined; it says at which stage.
    """
    # TRUST: whoever would say that nothing has changed could say as well that all of it is as it should be.
    match channel.receive(timeout_s):
        case [int(kind), dict(changes)] if kind == _OK and changes.keys() <= Attestation.__annotations__.keys():
            return before._replace(**{name: _changed(before, name, value) for name, value in changes.items()})
        case [int(kind), *rest] if kind == _ERROR:
            raise rebuild_error(rest)
    raise BoundaryViolation(f"attest {before.role}: the message has no known shape")


def _changed(before: Attestation, name: str, value: object) -> Any:
    now = check(value, Attestation.__annotations__[name], f"attestation of {before.role}")
    return {**getattr(before, name), **now} if isinstance(now, dict) else now


def send_changes(channel: Channel, before: Attestation, attestation: Attestation) -> None:
    """Send the second message; of a dictionary, the keys whose values differ."""
    pairs = zip(Attestation._fields, before, attestation, strict=True)
    channel.send([_OK, {name: _difference(then, now) for name, then, now in pairs if now != then}])


def _difference(then: object, now: object) -> object:
    if isinstance(then, dict) and isinstance(now, dict):
        return {key: value for key, value in now.items() if then.get(key) != value}
    return now

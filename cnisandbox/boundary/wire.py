"""The messages that cross the boundary: typed values, length-prefixed, over pipes.

A frame is a 4-byte big-endian length and one value. A value is a tag byte and its body:

    N  T  F         null, true, false
    I               8 bytes, signed, big-endian
    S  B            4-byte length, then UTF-8 text (lone surrogates pass) or bytes
    L               4-byte count, then that many values
    M               4-byte count, then that many pairs of S-body key and value

There is no tag for anything executable: no class, no name to import, no code. Which Python type a value becomes is
decided by the annotation that the *receiver* holds, never by the sender.

Anything that does not parse, exceeds a limit or does not fit the annotation raises BoundaryViolation; the session is
then over, because a peer that sends it is broken or hostile.
"""

import os
import select
import struct
import time

from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import Any, cast

# LIMIT: a netconf is at most 1 MiB, so no honest message is longer than one netconf and its envelope.
MAX_MESSAGE_BYTES = 2 << 20
# LIMIT: the deepest declared type is a record in a list in a record; JSON itself crosses as bytes.
MAX_DEPTH = 16

# As the module `types` has them, which is made of much else.
_NoneType, _Union, _Container = type(None), type(int | None), type(list[int])

_LENGTH = struct.Struct(">I")
_INTEGER = struct.Struct(">q")
# Most values are one of these: inside of others they are compared at once, for a name is made for a message only.
_SCALARS = frozenset((bool, int, str, bytes))


def encode(value: object) -> bytes:
    """Encode one value as a frame.

    Raises:
        BoundaryViolation: the value is of a type that does not cross, too deep or too long.
    """
    body = encode_body(value)
    return _LENGTH.pack(len(body)) + body


def encode_body(value: object) -> bytes:
    """Encode one value as the body of a frame; raises as `encode` does."""
    parts: list[bytes] = []
    _encode_value(value, parts, 0)
    body = b"".join(parts)
    if len(body) > MAX_MESSAGE_BYTES:
        raise BoundaryViolation(f"encode message: {len(body)} bytes are more than {MAX_MESSAGE_BYTES}")
    return body


def _encode_value(value: object, parts: list[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BoundaryViolation(f"encode message: nested deeper than {MAX_DEPTH}")
    match value:
        case None:
            parts.append(b"N")
        case bool():
            parts.append(b"T" if value else b"F")
        case int():
            if not -(1 << 63) <= value < 1 << 63:
                raise BoundaryViolation("encode message: integer does not fit in 64 bits")
            parts.append(b"I" + _INTEGER.pack(value))
        case str():
            text = value.encode("utf-8", "surrogatepass")
            parts.append(b"S" + _LENGTH.pack(len(text)) + text)
        case bytes():
            parts.append(b"B" + _LENGTH.pack(len(value)) + value)
        case list() | tuple():
            parts.append(b"L" + _LENGTH.pack(len(value)))
            for element in value:
                _encode_value(element, parts, depth + 1)
        case dict():
            parts.append(b"M" + _LENGTH.pack(len(value)))
            for key, element in value.items():
                text = str(key).encode("utf-8", "surrogatepass")
                parts.append(_LENGTH.pack(len(text)) + text)
                _encode_value(element, parts, depth + 1)
        case _:
            raise BoundaryViolation(f"encode message: a {type(value).__name__} does not cross the boundary")


def decode(body: bytes) -> object:
    """Decode the body of one frame.

    Returns:
        None, bool, int, str, bytes, list or dict (string keys), nested.

    Raises:
        BoundaryViolation: it is not exactly one value within the limits.
    """
    try:
        value, end = _value(body, 0, 0)
    except (IndexError, struct.error) as error:
        raise BoundaryViolation("decode message: it ends in the middle of a value") from error
    if end != len(body):
        raise BoundaryViolation("decode message: bytes follow the value")
    return value


def _value(body: bytes, at: int, depth: int) -> tuple[object, int]:
    """Decode the value that begins at an offset.

    Returns:
        The value, and where it ends.

    Raises:
        IndexError, struct.error: the body ends before.
    """
    if depth > MAX_DEPTH:
        raise BoundaryViolation(f"decode message: nested deeper than {MAX_DEPTH}")
    tag = body[at : at + 1]
    at += 1
    match tag:
        case b"I":
            return _INTEGER.unpack_from(body, at)[0], at + _INTEGER.size
        case b"S":
            return _text(body, at)
        case b"N":
            return None, at
        case b"T":
            return True, at
        case b"F":
            return False, at
        case b"B":
            return _piece(body, at)
        case b"L":
            return _list(body, at, depth + 1)
        case b"M":
            return _mapping(body, at, depth + 1)
        case b"":
            raise IndexError
    raise BoundaryViolation(f"decode message: unknown tag {tag!r}")


def _piece(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + _LENGTH.size + _LENGTH.unpack_from(body, at)[0]
    if end > len(body):
        raise IndexError
    return body[at + _LENGTH.size : end], end


def _text(body: bytes, at: int) -> tuple[str, int]:
    piece, end = _piece(body, at)
    try:
        return piece.decode("utf-8", "surrogatepass"), end
    except UnicodeDecodeError as error:
        raise BoundaryViolation("decode message: text is not UTF-8") from error


def _count(body: bytes, at: int) -> tuple[int, int]:
    count, at = _LENGTH.unpack_from(body, at)[0], at + _LENGTH.size
    # Every element takes a byte at least, so a count beyond the rest of the body is a lie.
    if count > len(body) - at:
        raise BoundaryViolation(f"decode message: a count of {count} exceeds the message")
    return count, at


def _list(body: bytes, at: int, depth: int) -> tuple[list[object], int]:
    count, at = _count(body, at)
    values = []
    for _ in range(count):
        value, at = _value(body, at, depth)
        values.append(value)
    return values, at


def _mapping(body: bytes, at: int, depth: int) -> tuple[dict[str, object], int]:
    count, at = _count(body, at)
    pairs = {}
    for _ in range(count):
        key, at = _text(body, at)
        pairs[key], at = _value(body, at, depth)
    return pairs, at


def check(value: object, annotation: Any, where: str) -> Any:
    """Give a decoded value the type that the receiver's annotation names.

    Args:
        value: What `decode` returned.
        annotation: None, bool, int, str, bytes, list[T], dict[str, T], T | None, or a NamedTuple class of those.
        where: Name of the value, for the message.

    Returns:
        The value; where the annotation is a NamedTuple class, an instance of it (it travels as a list of its fields).

    Raises:
        BoundaryViolation: the value does not fit.
    """
    if annotation is None or annotation is _NoneType:
        if value is None:
            return None
    elif annotation in _SCALARS:
        if type(value) is annotation:
            return value
    elif isinstance(annotation, _Union):
        return _check_union(value, annotation, where)
    elif isinstance(annotation, _Container):
        return _check_container(value, annotation, where)
    elif hasattr(annotation, "_fields"):
        return _check_record(value, annotation, where)
    raise BoundaryViolation(f"check {where}: {_name(annotation)} was declared, {type(value).__name__} came")


def _check_union(value: object, annotation: Any, where: str) -> Any:
    if value is None and _NoneType in annotation.__args__:
        return None
    (member,) = [arg for arg in annotation.__args__ if arg is not _NoneType]
    return check(value, member, where)


def _check_container(value: object, annotation: Any, where: str) -> Any:
    if annotation.__origin__ is list and isinstance(value, list | tuple):
        (element,) = annotation.__args__
        if element in _SCALARS and all(type(item) is element for item in value):
            return list(value)
        return [check(item, element, f"{where}[{index}]") for index, item in enumerate(value)]
    if annotation.__origin__ is dict and isinstance(value, dict):
        _, element = annotation.__args__
        return {check(key, str, where): check(item, element, f"{where}.{key}") for key, item in value.items()}
    raise BoundaryViolation(f"check {where}: {_name(annotation)} was declared, {type(value).__name__} came")


def _check_record(value: object, annotation: Any, where: str) -> Any:
    fields: dict[str, Any] = annotation.__annotations__
    if not isinstance(value, list | tuple) or len(value) != len(fields):
        raise BoundaryViolation(f"check {where}: not the {len(fields)} fields of {_name(annotation)}")
    values = [
        item if type(item) is kind and kind in _SCALARS else check(item, kind, f"{where}.{name}")
        for item, (name, kind) in zip(value, fields.items(), strict=True)
    ]
    return annotation(*values)


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


class Channel:
    """One end of a pair of pipes.

    Pipes, not a socket: ioctl(SIOCGSKNS) on a socket that was made in the host's netns returns a descriptor of it.

    Args:
        read_fd: Descriptor to read from; the channel owns and closes it.
        write_fd: Descriptor to write to; the channel owns and closes it.
        peer: Name of the peer, for messages.
    """

    def __init__(self, read_fd: int, write_fd: int, peer: str) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._peer = peer

    def send(self, value: object, timeout_s: float | None = None) -> None:
        """Send one value.

        Args:
            value: What `encode` takes.
            timeout_s: Seconds until the whole value must be on its way; None waits for ever.

        Raises:
            BoundaryViolation: the value cannot cross, or the peer has gone or does not read.
        """
        data = memoryview(encode(value))
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while data:
                if deadline is not None:
                    self._wait(self.write_fd, select.POLLOUT, deadline)
                # KERNEL: a pipe that polls writable takes PIPE_BUF bytes without blocking, and need not take more.
                data = data[os.write(self.write_fd, data[: select.PIPE_BUF]) :]
        except BrokenPipeError as error:
            raise BoundaryViolation(f"send to {self._peer}: it has ended") from error

    def receive(self, timeout_s: float | None = None) -> object:
        """Receive one value.

        Args:
            timeout_s: Seconds until the whole value must be here; None waits for ever.

        Raises:
            BoundaryViolation: the peer has gone, is late, or sent what does not decode.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        (length,) = cast("tuple[int]", _LENGTH.unpack(self._read_exactly(4, deadline)))
        if length > MAX_MESSAGE_BYTES:
            raise BoundaryViolation(f"receive from {self._peer}: a message of {length} bytes")
        return decode(self._read_exactly(length, deadline))

    def _read_exactly(self, count: int, deadline: float | None) -> bytes:
        pieces: list[bytes] = []
        while count:
            if deadline is not None:
                self._wait(self.read_fd, select.POLLIN, deadline)
            piece = os.read(self.read_fd, min(count, 1 << 16))
            if not piece:
                raise BoundaryViolation(f"receive from {self._peer}: it has ended")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if event == select.POLLIN:
                raise BoundaryViolation(f"receive from {self._peer}: no answer in time")
            raise BoundaryViolation(f"send to {self._peer}: it does not read in time")

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.read_fd)
        os.close(self.write_fd)


def channel_pair(peer_of_first: str, peer_of_second: str) -> tuple[Channel, Channel]:
    """Make two connected channels.

    Returns:
        The parent's end and the worker's end.
    """
    first_read, second_write = os.pipe2(os.O_CLOEXEC)
    second_read, first_write = os.pipe2(os.O_CLOEXEC)
    return Channel(first_read, first_write, peer_of_first), Channel(second_read, second_write, peer_of_second)

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

import operator
import os
import select
import struct
import time
from collections.abc import Iterable, Sequence
from itertools import compress

from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import Any

# LIMIT: a netconf is at most 1 MiB, so no honest message is longer than one netconf and its envelope.
MAX_MESSAGE_BYTES = 2 << 20
# LIMIT: the deepest declared type is a record in a list in a record; JSON itself crosses as bytes.
MAX_DEPTH = 16
# LIMIT: what a pipe holds.
_READ_BYTES = 1 << 16

# As the module `types` has them, which is made of much else.
_NoneType, _Union, _Container = type(None), type(int | None), type(list[int])

_LENGTH = struct.Struct(">I")
_TAG_AND_LENGTH = struct.Struct(">BI")
_TAG_AND_INTEGER = struct.Struct(">Bq")
_LENGTH_AT = _LENGTH.unpack_from
_INTEGER_AT = struct.Struct(">q").unpack_from
_INTEGER, _TEXT, _BYTES, _LIST, _MAPPING = b"ISBLM"
_CONSTANTS = dict(zip(b"NTF", (None, True, False), strict=True))

# The pairs of a value's type and an annotation where nothing else is to be looked at.
_FITTING = frozenset((kind, kind) for kind in (bool, int, str, bytes))
_SCALARS = frozenset((bool, int, str, bytes))
# The lists that have nothing but one type in them.
_PLAIN_LISTS: dict[Any, frozenset[type]] = {
    list[bool]: frozenset((bool,)),
    list[int]: frozenset((int,)),
    list[str]: frozenset((str,)),
    list[bytes]: frozenset((bytes,)),
}


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
    try:
        _encode_values((value,), parts, 0)
    except struct.error as error:
        raise BoundaryViolation("encode message: integer does not fit in 64 bits") from error
    body = b"".join(parts)
    if len(body) > MAX_MESSAGE_BYTES:
        raise BoundaryViolation(f"encode message: {len(body)} bytes are more than {MAX_MESSAGE_BYTES}")
    return body


def _encode_values(values: Iterable[Any], parts: list[bytes], depth: int) -> None:
    for value in values:
        if depth > MAX_DEPTH:
            raise BoundaryViolation(f"encode message: nested deeper than {MAX_DEPTH}")
        # The frequent ones first; what is made of one of the interpreter's types crosses as that.
        if isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass")
            parts.append(_TAG_AND_LENGTH.pack(_TEXT, len(text)))
            parts.append(text)
        elif value is None:
            parts.append(b"N")
        elif isinstance(value, int):
            if value is True or value is False:
                parts.append(b"T" if value else b"F")
            else:
                parts.append(_TAG_AND_INTEGER.pack(_INTEGER, value))
        elif isinstance(value, (list, tuple)):
            parts.append(_TAG_AND_LENGTH.pack(_LIST, len(value)))
            _encode_values(value, parts, depth + 1)
        elif isinstance(value, bytes):
            parts.append(_TAG_AND_LENGTH.pack(_BYTES, len(value)))
            parts.append(value)
        elif isinstance(value, dict):
            parts.append(_TAG_AND_LENGTH.pack(_MAPPING, len(value)))
            for key, element in value.items():
                text = str(key).encode("utf-8", "surrogatepass")
                parts.append(_LENGTH.pack(len(text)))
                parts.append(text)
                _encode_values((element,), parts, depth + 1)
        else:
            raise BoundaryViolation(f"encode message: a {type(value).__name__} does not cross the boundary")


def decode(body: bytes) -> object:
    """Decode the body of one frame.

    Returns:
        None, bool, int, str, bytes, list or dict (string keys), nested.

    Raises:
        BoundaryViolation: it is not exactly one value within the limits.
    """
    try:
        (value,), end = _values(body, 0, 1, 0)
    except (IndexError, struct.error) as error:
        raise BoundaryViolation("decode message: it ends in the middle of a value") from error
    except UnicodeDecodeError as error:
        raise BoundaryViolation("decode message: text is not UTF-8") from error
    if end != len(body):
        raise BoundaryViolation("decode message: bytes follow the value")
    return value


def _values(body: bytes, at: int, count: int, depth: int) -> tuple[list[Any], int]:
    """Decode so many values, the first of which begins at an offset.

    Returns:
        The values, and where the last one ends.

    Raises:
        IndexError, struct.error: the body ends before.
        UnicodeDecodeError: a text is none.
    """
    # Every value takes a byte at least, so a count beyond the rest of the body is a lie.
    if count > len(body) - at:
        raise BoundaryViolation(f"decode message: a count of {count} exceeds the message")
    if count and depth > MAX_DEPTH:
        raise BoundaryViolation(f"decode message: nested deeper than {MAX_DEPTH}")
    values: list[Any] = []
    for _ in range(count):
        tag = body[at]
        at += 1
        if tag == _INTEGER:
            values.append(_INTEGER_AT(body, at)[0])
            at += 8
        elif tag == _TEXT:
            begin = at + 4
            at = begin + _LENGTH_AT(body, at)[0]
            values.append(str(body[begin:at], "utf-8", "surrogatepass"))
        elif tag == _LIST:
            inside, at = _values(body, at + 4, _LENGTH_AT(body, at)[0], depth + 1)
            values.append(inside)
        elif tag in _CONSTANTS:
            values.append(_CONSTANTS[tag])
        elif tag == _BYTES:
            begin = at + 4
            at = begin + _LENGTH_AT(body, at)[0]
            values.append(body[begin:at])
        elif tag == _MAPPING:
            pairs, at = _mapping(body, at, depth + 1)
            values.append(pairs)
        else:
            raise BoundaryViolation(f"decode message: unknown tag {tag:#x}")
    # A piece that is cut short ends behind the body.
    if at > len(body):
        raise IndexError
    return values, at


def _mapping(body: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    count, at = _LENGTH_AT(body, at)[0], at + 4
    if count > len(body) - at:
        raise BoundaryViolation(f"decode message: a count of {count} exceeds the message")
    pairs = {}
    for _ in range(count):
        begin = at + 4
        at = begin + _LENGTH_AT(body, at)[0]
        key = str(body[begin:at], "utf-8", "surrogatepass")
        (pairs[key],), at = _values(body, at, 1, depth)
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
    if (type(value), annotation) in _FITTING:
        return value
    elements = _PLAIN_LISTS.get(annotation)
    if elements is not None and type(value) is list and elements.issuperset(map(type, value)):
        return value
    kind = type(annotation)
    if kind is _Container:
        return _check_container(value, annotation, where)
    if annotation is None or annotation is _NoneType:
        if value is None:
            return None
    elif kind is _Union:
        return _check_union(value, annotation, where)
    elif hasattr(annotation, "_fields"):
        fields: dict[str, Any] = annotation.__annotations__
        if not isinstance(value, (list, tuple)) or len(value) != len(fields):
            raise BoundaryViolation(f"check {where}: not the {len(fields)} fields of {_name(annotation)}")
        return annotation(*check_each(value, fields, where))
    raise BoundaryViolation(f"check {where}: {_name(annotation)} was declared, {type(value).__name__} came")


def check_each(values: Sequence[object], annotations: dict[str, Any], where: str) -> list[Any]:
    """Give each of several values the type that its annotation names.

    Args:
        values: As many as annotations.
        annotations: By name.
        where: Name of what they are part of, for the message.

    Returns:
        The values, as `check` returns them.

    Raises:
        BoundaryViolation: one does not fit.
    """
    checked = list(values)
    is_fitting = map(_FITTING.__contains__, zip(map(type, values), annotations.values(), strict=True))
    for index, (name, annotation) in compress(enumerate(annotations.items()), map(operator.not_, is_fitting)):
        checked[index] = check(values[index], annotation, f"{where}.{name}")
    return checked


def _check_union(value: object, annotation: Any, where: str) -> Any:
    if value is None and _NoneType in annotation.__args__:
        return None
    (member,) = [arg for arg in annotation.__args__ if arg is not _NoneType]
    return check(value, member, where)


def _check_container(value: object, annotation: Any, where: str) -> Any:
    element = annotation.__args__[-1]
    if annotation.__origin__ is list and isinstance(value, (list, tuple)):
        return [check(item, element, f"{where}[{index}]") for index, item in enumerate(value)]
    if annotation.__origin__ is dict and isinstance(value, dict):
        kinds = {*map(type, value.values())}
        if {str}.issuperset(map(type, value)) and kinds <= {element} <= _SCALARS:
            return value
        return {check(key, str, where): check(item, element, f"{where}.{key}") for key, item in value.items()}
    raise BoundaryViolation(f"check {where}: {_name(annotation)} was declared, {type(value).__name__} came")


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", str(annotation))


class Channel:
    """One end of a pair of pipes.

    Pipes, not a socket: ioctl(SIOCGSKNS) on a socket that was made in the host's netns returns a descriptor of it.

    Args:
        read_fd: Descriptor to read from; the channel owns and closes it.
        write_fd: Descriptor to write to; the channel owns and closes it.
        peer: Name of the peer, for messages.
        reads_ahead: Whether it reads what is there behind a message along with it; not where somebody waits for
            messages by the descriptor.
    """

    def __init__(self, read_fd: int, write_fd: int, peer: str, *, reads_ahead: bool = False) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self._peer = peer
        self._reads_ahead = reads_ahead
        self._ahead = b""
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(read_fd, select.POLLIN)
        self._writable.register(write_fd, select.POLLOUT)

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
                if deadline is not None and not self._writable.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise BoundaryViolation(f"send to {self._peer}: it does not read in time")
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
        data = self._ahead
        while len(data) < _LENGTH.size:
            data += self._read(_LENGTH.size - len(data), deadline)
        length: int = _LENGTH.unpack_from(data)[0]
        if length > MAX_MESSAGE_BYTES:
            raise BoundaryViolation(f"receive from {self._peer}: a message of {length} bytes")
        end = _LENGTH.size + length
        if len(data) < end:
            data = self._completed(data, end, deadline)
        self._ahead = data[end:]
        return decode(data[_LENGTH.size : end])

    def has_message(self) -> bool:
        """Say whether there is something to be received, or the peer has ended."""
        return bool(self._ahead) or bool(self._readable.poll(0))

    def _completed(self, data: bytes, end: int, deadline: float | None) -> bytes:
        missing, pieces = end - len(data), [data]
        while missing > 0:
            piece = self._read(min(missing, _READ_BYTES), deadline)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _read(self, most: int, deadline: float | None) -> bytes:
        if deadline is not None and not self._readable.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise BoundaryViolation(f"receive from {self._peer}: no answer in time")
        piece = os.read(self.read_fd, _READ_BYTES if self._reads_ahead else most)
        if not piece:
            raise BoundaryViolation(f"receive from {self._peer}: it has ended")
        return piece

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self.read_fd)
        os.close(self.write_fd)


def channel_pair(peer_of_first: str, peer_of_second: str, *, reads_ahead: bool = False) -> tuple[Channel, Channel]:
    """Make two connected channels.

    Args:
        peer_of_first: Name of the second.
        peer_of_second: Name of the first.
        reads_ahead: As for `Channel`.

    Returns:
        The parent's end and the worker's end.
    """
    first_read, second_write = os.pipe2(os.O_CLOEXEC)
    second_read, first_write = os.pipe2(os.O_CLOEXEC)
    return (
        Channel(first_read, first_write, peer_of_first, reads_ahead=reads_ahead),
        Channel(second_read, second_write, peer_of_second, reads_ahead=reads_ahead),
    )

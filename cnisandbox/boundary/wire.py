"""The messages that cross the boundary: typed values, length-prefixed, over pipes.

A frame is a 4-byte big-endian length and one value: it and all that is inside of it, level by level, in columns.

    count           4 bytes: how many values there are
    tags            a byte for each: the value, then its elements, then theirs, ...
    sizes           4 bytes for each list and dictionary, then for each text (in characters), then for each bytes
    integers        8 bytes each, signed, big-endian
    truths          a byte each
    texts           all in one, UTF-8 (lone surrogates pass)
    bytes           all in one

    N T I S B       null, true or false, integer, text, bytes
    L               list: the next values of the level below are its elements
    M               dictionary: the next values of the level below are its keys, each a text, then what they stand for

There is no tag for anything executable: no class, no name to import, no code. Which Python type a value becomes is
decided by the annotation that the *receiver* holds, never by the sender.

Columns, because one call of the interpreter's own then encodes or decodes all integers or all texts of a message. There
is no recursion: what a message costs is in proportion to its length, whoever wrote it.

Anything that does not parse, exceeds a limit or does not fit the annotation raises BoundaryViolation; the session is
then over, because a peer that sends it is broken or hostile.
"""

import operator
import os
import select
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, compress, repeat

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
_TAGS = b"LMSBITN"
_LIST, _MAPPING, _TEXT, _BYTES, _INTEGER, _TRUTH, _NULL = _TAGS

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


class _TagOfType(dict[type, int]):
    """The tag of values of a type; of types that are made of others, as they come."""

    def __missing__(self, kind: type) -> int:
        base = kind.__base__
        if base in (None, object):
            raise BoundaryViolation(f"encode message: a {kind.__name__} does not cross the boundary")
        tag = self[kind] = self[base]
        return tag


_TAG_OF_TYPE = _TagOfType(
    {
        type(None): _NULL,
        bool: _TRUTH,
        int: _INTEGER,
        str: _TEXT,
        bytes: _BYTES,
        list: _LIST,
        tuple: _LIST,
        dict: _MAPPING,
    }
)


def _selecting(*chosen: int) -> bytes:
    """Make the table by which `bytes.translate` makes selectors for `compress` of tags."""
    table = bytearray(256)
    for tag in chosen:
        table[tag] = 1
    return bytes(table)


_CONTAINERS, _TEXTS, _PIECES, _INTEGERS, _TRUTHS = (
    _selecting(_LIST, _MAPPING),
    *map(_selecting, (_TEXT, _BYTES, _INTEGER, _TRUTH)),
)


def encode(value: object) -> bytes:
    """Encode one value as a frame.

    Raises:
        BoundaryViolation: the value is of a type that does not cross, too deep or too long.
    """
    body = encode_body(value)
    return _LENGTH.pack(len(body)) + body


def encode_body(value: object) -> bytes:
    """Encode one value as the body of a frame; raises as `encode` does."""
    tags, values, sizes = _flattened(value)
    texts = [*compress(values, tags.translate(_TEXTS))]
    pieces = [*compress(values, tags.translate(_PIECES))]
    integers = [*compress(values, tags.translate(_INTEGERS))]
    truths = [*compress(values, tags.translate(_TRUTHS))]
    sizes += map(len, texts)
    sizes += map(len, pieces)
    try:
        numbers = struct.pack(f">{len(sizes)}I{len(integers)}q{len(truths)}?", *sizes, *integers, *truths)
    except struct.error as error:
        raise BoundaryViolation("encode message: integer does not fit in 64 bits") from error
    text = "".join(texts).encode("utf-8", "surrogatepass")
    body = b"".join((_LENGTH.pack(len(tags)), tags, numbers, text, *pieces))
    if len(body) > MAX_MESSAGE_BYTES:
        raise BoundaryViolation(f"encode message: {len(body)} bytes are more than {MAX_MESSAGE_BYTES}")
    return body


def _flattened(value: object) -> tuple[bytes, list[Any], list[int]]:
    """Lay a value out level by level.

    Returns:
        Tag of each value; each value; size of each list and dictionary.
    """
    tags = b""
    level: list[Any] = [value]
    values: list[Any] = []
    sizes: list[int] = []
    for _ in range(MAX_DEPTH + 1):
        its_tags = bytes(map(_TAG_OF_TYPE.__getitem__, map(type, level)))
        tags += its_tags
        values += level
        containers = [*compress(level, its_tags.translate(_CONTAINERS))]
        sizes += map(len, containers)
        level = [*chain.from_iterable(map(_inside, containers) if _MAPPING in its_tags else containers)]
        if not level:
            return tags, values, sizes
    raise BoundaryViolation(f"encode message: nested deeper than {MAX_DEPTH}")


def _inside(container: Any) -> Iterable[Any]:
    return [*map(str, container), *container.values()] if isinstance(container, dict) else container


def decode(body: bytes) -> object:
    """Decode the body of one frame.

    Returns:
        None, bool, int, str, bytes, list or dict (string keys), nested.

    Raises:
        BoundaryViolation: it is not exactly one value within the limits.
    """
    try:
        (total,) = _LENGTH.unpack_from(body)
        tags = body[_LENGTH.size : _LENGTH.size + total]
        lists, mappings, texts, pieces, integers, truths, nulls = map(tags.count, _TAGS)
        containers = lists + mappings
        # Nothing below is longer than the tags, and these are not longer than the body, whatever it says.
        if not 0 < total == containers + texts + pieces + integers + truths + nulls:
            raise BoundaryViolation("decode message: a tag is unknown, or their count exceeds the message")
        first_piece, first_integer = containers + texts, containers + texts + pieces
        first_truth = first_integer + integers
        numbers = struct.unpack_from(f">{first_integer}I{integers}q{truths}?", body, _LENGTH.size + total)
    except struct.error as error:
        raise BoundaryViolation("decode message: it ends in the middle of a value") from error
    text_at = _LENGTH.size + total + 4 * first_integer + 8 * integers + truths
    pieces_at = len(body) - sum(numbers[first_piece:first_integer])
    text = _text(body[text_at : max(text_at, pieces_at)])
    if pieces_at < text_at or len(text) != sum(numbers[containers:first_piece]):
        raise BoundaryViolation("decode message: its texts and bytes are not as long as it says")
    columns: dict[int, Iterator[Any]] = {
        _TEXT: _cut(text, numbers[containers:first_piece]),
        _BYTES: _cut(body[pieces_at:], numbers[first_piece:first_integer]),
        _INTEGER: iter(numbers[first_integer:first_truth]),
        _TRUTH: iter(numbers[first_truth:]),
        _NULL: repeat(None),
        _LIST: map(list, repeat(())),
        _MAPPING: map(dict, repeat(())),
    }
    # Every column has as many values as there are tags for it.
    values = [*map(next, map(columns.__getitem__, tags))]
    _fill(values, tags, numbers[:containers])
    return values[0]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise BoundaryViolation("decode message: text is not UTF-8") from error


def _cut(whole: Any, sizes: Iterable[int]) -> Iterator[Any]:
    """Cut a text, or bytes, into pieces of these sizes."""
    ends = [*accumulate(sizes)]
    return map(whole.__getitem__, map(slice, [0, *ends], ends))


def _fill(values: list[Any], tags: bytes, sizes: tuple[int, ...]) -> None:
    """Put what is inside of lists and dictionaries into them, which are empty.

    Args:
        values: All values, level by level.
        tags: The tag of each.
        sizes: How many elements each list and dictionary has.
    """
    depth, begin, level_end = 0, 1, 1
    for at, size in zip(compress(range(len(tags)), tags.translate(_CONTAINERS)), sizes, strict=True):
        if at >= level_end:
            # ORDER: what has this one inside was filled before; so none is inside of itself.
            depth, level_end = depth + 1, begin
            if at >= begin:
                raise BoundaryViolation("decode message: a value is inside of none")
        end = begin + size
        if tags[at] == _LIST:
            values[at].extend(values[begin:end])
        else:
            if tags.count(_TEXT, begin, end) != size:
                raise BoundaryViolation("decode message: a key is not text")
            values[at].update(zip(values[begin:end], values[end : end + size], strict=False))
            end += size
        begin = end
    if begin != len(tags):
        raise BoundaryViolation("decode message: lists and dictionaries have more or less inside than it has")
    if depth + (begin > level_end) > MAX_DEPTH:
        raise BoundaryViolation(f"decode message: nested deeper than {MAX_DEPTH}")


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

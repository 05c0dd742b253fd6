"""Strict encoding and decoding of netlink messages, driven by tables.

A table says which header a message has and, per attribute number, its name and kind. A decoded message holds a dict
from names to values:

    {"ifname": "eth0", "mtu": 1500, "linkinfo": {"kind": "veth", "data": {...}}, "unknown": [(57, b"...")]}

- Known attributes are decoded by their kind; one that occurs twice is malformed, unless its kind is `Many`. (The kernel
  would take the last one: two readers must not see two messages.)
- Unknown ones are kept in "unknown", in order, as (type with its flag bits, payload).
- Encoding is canonical: known attributes in the order of the dict, then unknown ones; padding is zero; nested
  attributes carry NLA_F_NESTED. `decode(encode(x)) == x`.
- A flag bit that does not belong to a known attribute is malformed: NLA_F_NET_BYTEORDER on any, NLA_F_NESTED on one
  whose kind is neither nested nor `Raw`. Nested ones are read with and without NLA_F_NESTED.
- Every length, offset and nesting depth is checked before it is used; what is wrong raises `CodecError`, and
  nothing else does, for any bytes and any values.

Source: include/uapi/linux/netlink.h, lib/nlattr.c, Linux 6.1; netlink(7).
"""

import struct
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton  # the C module: `socket` takes 3 ms to make its enums
from collections.abc import Callable, Iterable, Iterator, Mapping

from cnisandbox.boundary.syscalls import ffi, lib
from cnisandbox.hints import Any

NLA_F_NESTED = 0x8000
NLA_F_NET_BYTEORDER = 0x4000
NLA_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

MAX_DEPTH = 8  # LIMIT: the deepest that rtnetlink has is veth: linkinfo, data, peer, af_spec, inet6, conf
MAX_LLADDR = 32  # LIMIT: MAX_ADDR_LEN of include/linux/netdevice.h

UNKNOWN = "unknown"
HEADER = "header"

_ATTRIBUTE = struct.Struct("=HH")
_TYPE = struct.Struct("=H")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by the last two bits of a length
_INTEGERS = frozenset([int])

Attributes = dict[str, Any]
Context = Mapping[str, Any]


def aligned(length: int) -> int:
    """Round a length up to 4 bytes, as NLMSG_ALIGN and NLA_ALIGN do."""
    return (length + 3) & ~3


class CodecError(ValueError):
    """Bytes that are no message of the table, or values that no message can hold; begins with the attribute's path."""


class Kind:
    """How the payload of an attribute is read and written."""

    nested = False

    def encode(self, value: Any, context: Context, depth: int, /) -> bytes:
        """Write a value.

        Args:
            value: What `decode` returns.
            context: Below "header", the fields of the header in front of the attribute; for `NestedBy` also the
                attributes beside it.
            depth: How many attributes are around this one.

        Raises:
            CodecError: The attribute cannot hold the value.
        """
        raise NotImplementedError

    def decode(self, data: bytes, context: Context, depth: int, /) -> Any:
        """Read a payload.

        Raises:
            CodecError: It does not have the form.
        """
        raise NotImplementedError


class Leaf(Kind):
    """A payload that depends on nothing around it."""

    def pack(self, value: Any) -> bytes:
        """Write a value, as `encode` does."""
        raise NotImplementedError

    def unpack(self, data: bytes) -> Any:
        """Read a payload, as `decode` does."""
        raise NotImplementedError

    def encode(self, value: Any, _context: Context, _depth: int, /) -> bytes:
        return self.pack(value)

    def decode(self, data: bytes, _context: Context, _depth: int, /) -> Any:
        return self.unpack(data)


class Scalar(Leaf):
    """An integer; the format is one letter of `struct` with its byte order."""

    def __init__(self, format_: str) -> None:
        self._struct = struct.Struct(format_)

    def pack(self, value: Any) -> bytes:
        if type(value) is not int:
            raise CodecError(f"not an integer: {value!r:.40}")
        try:
            return self._struct.pack(value)
        except struct.error as error:
            raise CodecError(str(error)) from None

    def unpack(self, data: bytes) -> int:
        try:
            value: int = self._struct.unpack(data)[0]
        except struct.error:
            raise CodecError(f"{len(data)} bytes where {self._struct.size} belong") from None
        return value


class Text(Leaf):
    """A string that ends with NUL; bytes that are not UTF-8 are kept as surrogates, as os.fsdecode does.

    Args:
        limit: Most bytes, without the NUL.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit

    def pack(self, value: Any) -> bytes:
        if type(value) is not str:
            raise CodecError(f"not a string: {value!r:.40}")
        try:
            data = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise CodecError(str(error)) from None
        if 0 in data or len(data) > self._limit or data.decode("utf-8", "surrogateescape") != value:
            raise CodecError(f"not a string of at most {self._limit} bytes: {value!r:.40}")
        return data + b"\0"

    def unpack(self, data: bytes) -> str:
        text = data.removesuffix(b"\0")
        if 0 in text or len(text) > self._limit:
            raise CodecError(f"not a string of at most {self._limit} bytes")
        return text.decode("utf-8", "surrogateescape")


class Raw(Leaf):
    """Bytes as they are."""

    def pack(self, value: Any) -> bytes:
        if type(value) is not bytes:
            raise CodecError(f"not bytes: {value!r:.40}")
        return value

    def unpack(self, data: bytes) -> bytes:
        return data


class Flag(Leaf):
    """An attribute without payload; its value is True."""

    def pack(self, value: Any) -> bytes:
        if value is not True:
            raise CodecError("a flag is True or absent")
        return b""

    def unpack(self, data: bytes) -> bool:
        if data:
            raise CodecError(f"{len(data)} bytes in a flag")
        return True


class Address(Leaf):
    """An IPv4 or IPv6 address, as text; its length tells which."""

    def pack(self, value: Any) -> bytes:
        try:
            return inet_pton(AF_INET6 if ":" in value else AF_INET, value)
        except (OSError, TypeError, ValueError):
            raise CodecError(f"not an address: {value!r:.60}") from None

    def unpack(self, data: bytes) -> str:
        if len(data) not in (4, 16):
            raise CodecError(f"{len(data)} bytes where an address belongs")
        return inet_ntop(AF_INET if len(data) == 4 else AF_INET6, data)


class LinkLayerAddress(Leaf):
    """An address such as "02:00:00:00:00:01": lower-case hex; 6 bytes for Ethernet, 0 to 32 elsewhere."""

    def pack(self, value: Any) -> bytes:
        try:
            data = bytes.fromhex(value.replace(":", ""))
        except (AttributeError, TypeError, ValueError):
            raise CodecError(f"not a link-layer address: {value!r:.60}") from None
        if len(data) > MAX_LLADDR or data.hex(":") != value:
            raise CodecError(f"not a link-layer address: {value!r:.60}")
        return data

    def unpack(self, data: bytes) -> str:
        if len(data) > MAX_LLADDR:
            raise CodecError(f"{len(data)} bytes where a link-layer address belongs")
        return data.hex(":")


class Header(Leaf):
    """A fixed struct; its value is a dict of all its fields.

    Args:
        format_: For `struct`, with byte order; padding as "x".
        fields: Names, in order.
    """

    def __init__(self, format_: str, fields: tuple[str, ...]) -> None:
        self._struct = struct.Struct(format_)
        self.fields = fields
        self._names = frozenset(fields)
        self.size = self._struct.size
        self.aligned_size = aligned(self.size)

    def pack(self, value: Any) -> bytes:
        if type(value) is not dict or value.keys() != self._names:
            raise CodecError(f"the fields are not {', '.join(self.fields)}")
        values = [*map(value.__getitem__, self.fields)]
        if not _INTEGERS.issuperset(map(type, values)):
            raise CodecError("a field is not an integer")
        try:
            return self._struct.pack(*values)
        except struct.error as error:
            raise CodecError(str(error)) from None

    def unpack(self, data: bytes) -> dict[str, int]:
        try:
            values = self._struct.unpack(data)
        except struct.error:
            raise CodecError(f"{len(data)} bytes where {self.size} belong") from None
        return dict(zip(self.fields, values, strict=True))


def numbers_of_attributes(numbers: Iterable[int]) -> Any:
    """Make what `find_attributes` wants, once for many times."""
    return ffi.new("uint16_t[]", [*numbers])


class Table:
    """The attributes that may stand in one place.

    Args:
        attributes: Number to (name, kind).
        header: The struct in front of them, if there is one.
        is_partial: Whether attributes that are not among these are passed over, instead of kept below "unknown": for
            answers of the kernel, of which little is read; none of these is a `Many`. A message that goes on to the
            kernel never has such a table.
    """

    def __init__(
        self, attributes: dict[int, tuple[str, Kind]], header: Header | None = None, *, is_partial: bool = False
    ) -> None:
        self.header = header
        self.is_partial = is_partial
        self.by_number = attributes
        self.by_name = {name: (number, kind) for number, (name, kind) in attributes.items()}
        self.wanted = numbers_of_attributes(attributes) if is_partial else None


class Nested(Kind):
    """Attributes within an attribute; a table with a header puts its fields below "header"."""

    nested = True

    def __init__(self, table: Table) -> None:
        self.table = table

    def encode(self, value: Any, context: Context, depth: int, /) -> bytes:
        return encode_body(self.table, value, context, depth + 1)

    def decode(self, data: bytes, context: Context, depth: int, /) -> Attributes:
        return decode_body(self.table, data, context, depth + 1)


class NestedBy(Kind):
    """Attributes whose table depends on what stands beside them; bytes where it names no table.

    Args:
        selector: Name of the attribute beside, or ".<field>" of the header in front.
        tables: Its value to the table; None where it is missing.
        default: The table for any other value, instead of bytes.
    """

    nested = True

    def __init__(self, selector: str, tables: Mapping[Any, Table], default: Table | None = None) -> None:
        self.selector = selector
        self._field = selector[1:] if selector.startswith(".") else ""
        self.tables = tables
        self.default = default

    def encode(self, value: Any, context: Context, depth: int, /) -> bytes:
        table = self._chosen(context)
        # ORDER: the context ends here, or an attribute further in would be selected by what stands further out.
        return RAW.pack(value) if table is None else encode_body(table, value, {}, depth + 1)

    def decode(self, data: bytes, context: Context, depth: int, /) -> Attributes | bytes:
        table = self._chosen(context)
        return data if table is None else decode_body(table, data, {}, depth + 1)

    def _chosen(self, context: Context) -> Table | None:
        value = context.get(HEADER, {}).get(self._field) if self._field else context.get(self.selector)
        return self.tables.get(value, self.default) if isinstance(value, str | int | None) else self.default


class Many(Kind):
    """An attribute that may occur more than once; its value is the list of what it holds, never empty."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.nested = kind.nested


class Sequence(Kind):
    """Structs that begin with their own length, each followed by attributes, as in RTA_MULTIPATH.

    Args:
        table: Its header's first field must be the 16 bit length; it is left out of the values.
    """

    def __init__(self, table: Table, length_field: str) -> None:
        if table.header is None:
            raise TypeError("a sequence needs a header")
        self.table = table
        self._header = table.header
        self._length = length_field

    def encode(self, value: Any, context: Context, depth: int, /) -> bytes:
        if type(value) is not list:
            raise CodecError("not a list")
        return b"".join(self._encode_item(item, context, depth + 1) for item in value)

    def _encode_item(self, item: Any, context: Context, depth: int) -> bytes:
        if type(item) is not dict or type(item.get(HEADER)) is not dict:
            raise CodecError("an item without a header")
        attributes = encode_attributes(self.table, {k: v for k, v in item.items() if k != HEADER}, context, depth)
        header = {**item[HEADER], self._length: self._header.size + len(attributes)}
        return self._header.pack(header) + attributes

    def decode(self, data: bytes, context: Context, depth: int, /) -> list[Attributes]:
        items = []
        offset = 0
        while offset < len(data):
            left = len(data) - offset
            if left < self._header.size:
                raise CodecError(f"{left} bytes where an item begins")
            start = offset + self._header.size
            header = self._header.unpack(data[offset:start])
            length = header.pop(self._length)
            if not self._header.size <= length <= left:
                raise CodecError(f"an item of {length} bytes where {left} are left")
            attributes = decode_attributes(self.table, data[start : offset + length], context, depth + 1)
            items.append({HEADER: header, **attributes})
            offset += aligned(length)
        return items


U8 = Scalar("=B")
U16 = Scalar("=H")
U32 = Scalar("=I")
U64 = Scalar("=Q")
S32 = Scalar("=i")
BE16 = Scalar(">H")
BE32 = Scalar(">I")
IFNAME = Text(15)  # LIMIT: IFNAMSIZ with its NUL
TEXT = Text()
RAW = Raw()
FLAG = Flag()
ADDRESS = Address()
LLADDR = LinkLayerAddress()


def encode_body(table: Table, value: Any, context: Context, depth: int) -> bytes:
    """Encode the table's header, if it has one, and attributes.

    Raises:
        CodecError: The table cannot express the value, or it is nested deeper than MAX_DEPTH.
    """
    if type(value) is not dict:
        raise CodecError("not a dict of attributes")
    if table.header is None:
        return encode_attributes(table, value, context, depth)
    rest = dict(value)
    return encode_parts(table, rest.pop(HEADER, None), rest, depth)


def encode_parts(table: Table, header: Any, attributes: Attributes, depth: int) -> bytes:
    """Encode a header, of a table that has one, and the attributes behind it; otherwise as `encode_body`."""
    if table.header is None:
        raise CodecError(f"{HEADER}: no such attribute")
    data: bytes = located(HEADER, table.header.pack, header)
    behind = encode_attributes(table, attributes, {HEADER: header}, depth)
    return data.ljust(table.header.aligned_size, b"\0") + behind


def encode_attributes(table: Table, attributes: Attributes, context: Context, depth: int) -> bytes:
    """Encode attributes, the known ones in the order of the dict, each padded to 4 bytes.

    Raises:
        CodecError: A name is not in the table, its kind cannot hold the value, or it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH}")
    chunks: list[bytes] = []
    for name, value in attributes.items():
        if name == UNKNOWN:
            continue
        try:
            number, kind = table.by_name[name]
        except (KeyError, TypeError):
            raise CodecError(f"{name!r:.40}: no such attribute") from None
        try:
            if isinstance(kind, Leaf):
                chunks.append(pack_attribute(number, kind.pack(value)))
            elif isinstance(kind, Many):
                chunks += _encode_many(number, kind.kind, value, context, depth)
            else:
                beside = {**context, **attributes} if isinstance(kind, NestedBy) else context
                type_ = number | NLA_F_NESTED if kind.nested else number
                chunks.append(pack_attribute(type_, kind.encode(value, beside, depth)))
        except CodecError as error:
            raise CodecError(f"{name}: {error}") from None
    if UNKNOWN in attributes:
        chunks += _encode_unknown(table, attributes[UNKNOWN])
    return b"".join(chunks)


def _encode_many(number: int, kind: Kind, values: Any, context: Context, depth: int) -> Iterator[bytes]:
    if type(values) is not list or not values:
        raise CodecError("not a list of at least one value")
    type_ = number | NLA_F_NESTED if kind.nested else number
    for value in values:
        yield pack_attribute(type_, kind.encode(value, context, depth))


def _encode_unknown(table: Table, unknown: Any) -> Iterable[bytes]:
    if type(unknown) is not list or not unknown:
        raise CodecError("unknown: not a list of at least one (type, bytes)")
    for item in unknown:
        if type(item) is not tuple or [type(part) for part in item] != [int, bytes]:
            raise CodecError("unknown: not a list of (type, bytes)")
        if not 0 <= item[0] <= 0xFFFF or item[0] & NLA_TYPE_MASK in table.by_number:
            raise CodecError(f"unknown: {item[0]} is no type that the table does not know")
        yield pack_attribute(item[0], item[1])


def pack_attribute(type_: int, data: bytes) -> bytes:
    """Put one attribute together.

    Args:
        type_: With its flag bits.
        data: At most 65531 bytes.

    Raises:
        CodecError: It is longer.
    """
    length = len(data) + 4
    if length > 0xFFFF:
        raise CodecError(f"{len(data)} bytes do not fit into an attribute")
    return _ATTRIBUTE.pack(length, type_) + data + _PADDING[length & 3]


def decode_body(table: Table, data: bytes, context: Context, depth: int) -> Attributes:
    """Decode the table's header, if it has one, and the attributes behind it.

    Raises:
        CodecError: It is not that, or it is nested deeper than MAX_DEPTH.
    """
    if table.header is None:
        return decode_attributes(table, data, context, depth)
    header, attributes = decode_parts(table, data, depth)
    return {HEADER: header, **attributes}


def decode_parts(table: Table, data: bytes, depth: int) -> tuple[dict[str, int], Attributes]:
    """Decode header and attributes as `decode_body` does, and return them apart; a header without fields for none."""
    header = table.header
    if header is None:
        return {}, decode_attributes(table, data, {}, depth)
    if len(data) < header.size:
        raise CodecError(f"{HEADER}: {len(data)} bytes where {header.size} belong")
    fields = header.unpack(data[: header.size])
    behind = data[header.aligned_size :]
    return fields, decode_attributes(table, behind, {HEADER: fields}, depth) if behind else {}


def decode_attributes(table: Table, data: bytes, context: Context, depth: int) -> Attributes:
    """Decode attributes up to the end of the data.

    Raises:
        CodecError: A length is wrong, a known attribute occurs twice, or its payload is not of its kind.
    """
    if depth > MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH}")
    decoded: Attributes = {}
    unknown: list[tuple[int, bytes]] = []
    late: list[tuple[str, Kind, bytes]] = []
    entry_of = table.by_number.get
    for type_, payload in _wanted_attributes(data, table.wanted) if table.is_partial else split_attributes(data):
        entry = entry_of(type_) or _flagged(entry_of(type_ & NLA_TYPE_MASK), type_)
        if entry is None:
            unknown.append((type_, payload))
            continue
        name, kind = entry
        if name in decoded and not isinstance(kind, Many):
            raise CodecError(f"{name}: occurs twice")
        try:
            if isinstance(kind, Leaf):
                decoded[name] = kind.unpack(payload)
            elif isinstance(kind, NestedBy):
                late.append((name, kind, payload))
                decoded[name] = None  # keeps the order of the message
            elif isinstance(kind, Many):
                decoded.setdefault(name, []).append(kind.kind.decode(payload, context, depth))
            else:
                decoded[name] = kind.decode(payload, context, depth)
        except CodecError as error:
            raise CodecError(f"{name}: {error}") from None
    if late:
        around = {**context, **decoded}  # ORDER: what they are selected by is decoded now
        decoded.update([(name, located(name, kind.decode, payload, around, depth)) for name, kind, payload in late])
    if unknown:
        decoded[UNKNOWN] = unknown
    return decoded


def _flagged(entry: tuple[str, Kind] | None, type_: int) -> tuple[str, Kind] | None:
    """Insist that a known attribute has no flag bit that does not belong to it."""
    if entry is not None:
        name, kind = entry
        if type_ & NLA_F_NET_BYTEORDER:
            raise CodecError(f"{name}: NLA_F_NET_BYTEORDER, which this attribute never has")
        payload = kind.kind if isinstance(kind, Many) else kind
        if not payload.nested and not isinstance(payload, Raw):
            raise CodecError(f"{name}: NLA_F_NESTED on an attribute that is not nested")
    return entry


def split_attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Split data into (type with its flag bits, payload); the padding of the last one may be missing.

    Raises:
        CodecError: A length is wrong.
    """
    unpack = _ATTRIBUTE.unpack_from
    found: list[tuple[int, bytes]] = []
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 4:
            raise CodecError(f"{end - offset} bytes where an attribute begins")
        length, type_ = unpack(data, offset)
        following = offset + length
        if length < 4 or following > end:
            raise CodecError(f"an attribute of {length} bytes where {end - offset} are left")
        found.append((type_, data[offset + 4 : following]))
        offset = following + 3 & ~3
    return found


def find_attributes(data: bytes, start: int, numbers: Any) -> list[int]:
    """Find attributes of an answer of the kernel, whatever their flag bits are.

    Args:
        data: They go on to its end.
        start: Where they begin.
        numbers: Those that are wanted, as `numbers_of_attributes` makes them.

    Returns:
        Begin and end of each one's payload, in the order of `numbers`; 0 and 0 if it is not there.

    Raises:
        CodecError: A length is wrong, or one that is wanted occurs twice.
    """
    count = len(numbers)
    places = ffi.new("uint32_t[]", 2 * count)
    if lib.native_find_attributes(data, start, len(data), numbers, count, places) < 0:
        raise CodecError("attributes that do not fit, or occur twice")
    found: list[int] = ffi.unpack(places, 2 * count)
    return found


def _wanted_attributes(data: bytes, numbers: Any) -> list[tuple[int, bytes]]:
    """Split data as `split_attributes` does, but give only what a partial table has, in the order of the table.

    A link has sixty attributes, of which ten are read; a bridge as many again, of which one is read.

    Raises:
        CodecError: As `find_attributes`.
    """
    places = find_attributes(data, 0, numbers)
    type_at = _TYPE.unpack_from
    return [(type_at(data, at - 2)[0], data[at:end]) for at, end in zip(places[::2], places[1::2], strict=True) if at]


def located(name: str, step: Callable[..., Any], *args: Any) -> Any:
    """Run a kind's encode or decode; what it raises gets the attribute's name in front."""
    try:
        return step(*args)
    except CodecError as error:
        raise CodecError(f"{name}: {error}") from None

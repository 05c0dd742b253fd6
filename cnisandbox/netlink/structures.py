"""Kinds of payloads that only the messages of foreign programs have: lists, numbered lists, structs with a tail.

They stand apart from cnisandbox.netlink.codec because the package's own plugins need none of them.

Source: include/uapi/linux/netfilter/nf_tables.h (NFTA_LIST_ELEM), pkt_cls.h (tc_u32_sel), Linux 6.1.
"""

from cnisandbox.hints import Any
from cnisandbox.netlink.codec import (
    MAX_DEPTH,
    NLA_F_NESTED,
    NLA_F_NET_BYTEORDER,
    NLA_TYPE_MASK,
    CodecError,
    Context,
    Header,
    Kind,
    Leaf,
    Raw,
    Text,
    located,
    pack_attribute,
    split_attributes,
)


class List(Kind):
    """Attributes of one number within an attribute; the value is the list of what they hold, which may be empty.

    Args:
        kind: Of each element.
        number: Theirs; NFTA_LIST_ELEM if nothing else is said.
        is_numbered: They may have any other number, which the kernel does not look at.
    """

    nested = True

    def __init__(self, kind: Kind, number: int = 1, is_numbered: bool = False) -> None:
        self.kind = kind
        self._number = number
        self._is_numbered = is_numbered

    def encode(self, value: Any, _context: Context, depth: int, /) -> bytes:
        _check_depth(depth)
        if type(value) is not list:
            raise CodecError("not a list")
        return b"".join(_pack_element(self.kind, self._number, item, depth) for item in value)

    def decode(self, data: bytes, _context: Context, depth: int, /) -> list[Any]:
        _check_depth(depth)
        return [self._decode_element(type_, item, depth) for type_, item in split_attributes(data)]

    def _decode_element(self, type_: int, data: bytes, depth: int) -> Any:
        number = type_ & NLA_TYPE_MASK if self._is_numbered else self._number
        return _decode_element(self.kind, number, type_, data, depth)


class Consecutive(Kind):
    """Attributes whose numbers are 1, 2, 3 ... in this order; the value is the list of what they hold.

    The kernel goes through them by number and stops at the first gap, so nothing else has the same meaning for every
    reader.

    Args:
        kind: Of each element.
        limit: Most of them.
    """

    nested = True

    def __init__(self, kind: Kind, limit: int) -> None:
        self.kind = kind
        self._limit = limit

    def encode(self, value: Any, _context: Context, depth: int, /) -> bytes:
        _check_depth(depth)
        if type(value) is not list or len(value) > self._limit:
            raise CodecError(f"not a list of at most {self._limit}")
        return b"".join(_pack_element(self.kind, number, item, depth) for number, item in enumerate(value, 1))

    def decode(self, data: bytes, _context: Context, depth: int, /) -> list[Any]:
        _check_depth(depth)
        values = []
        for number, element in enumerate(split_attributes(data), 1):
            if number > self._limit:
                raise CodecError(f"more than {self._limit}")
            values.append(_decode_element(self.kind, number, *element, depth))
        return values


class Mixed(Header):
    """A struct whose fields have different byte orders.

    Args:
        parts: (format, fields) as `Header` has them, one after the other; none of them may need alignment.
    """

    def __init__(self, *parts: tuple[str, tuple[str, ...]]) -> None:
        self._parts = [Header(*part) for part in parts]
        size = sum(part.size for part in self._parts)
        super().__init__(f"{size}x", ())
        self.fields = tuple(field for part in self._parts for field in part.fields)

    def pack(self, value: Any) -> bytes:
        if type(value) is not dict or value.keys() != set(self.fields):
            raise CodecError(f"the fields are not {', '.join(self.fields)}")
        return b"".join(part.pack({field: value[field] for field in part.fields}) for part in self._parts)

    def unpack(self, data: bytes) -> dict[str, int]:
        if len(data) != self.size:
            raise CodecError(f"{len(data)} bytes where {self.size} belong")
        values: dict[str, int] = {}
        offset = 0
        for part in self._parts:
            values.update(part.unpack(data[offset : offset + part.size]))
            offset += part.size
        return values


class Counted(Leaf):
    """A struct, then as many of another one as a field of it says; the value is a dict with a list.

    Args:
        head: The first.
        item: Those behind it.
        count: The field of the head that counts them; left out of the value.
        name: Under which the value has the list.
    """

    def __init__(self, head: Header, item: Header, count: str, name: str) -> None:
        self._head = head
        self._item = item
        self._count = count
        self.name = name
        self.fields = tuple(field for field in head.fields if field != count)

    def pack(self, value: Any) -> bytes:
        if type(value) is not dict or type(value.get(self.name)) is not list:
            raise CodecError(f"not a dict with a list of {self.name}")
        items = value[self.name]
        head = {**value, self._count: len(items)}
        del head[self.name]
        return self._head.pack(head) + b"".join(located(self.name, self._item.pack, item) for item in items)

    def unpack(self, data: bytes) -> dict[str, Any]:
        value: dict[str, Any] = dict(self._head.unpack(data[: self._head.size]))
        rest = data[self._head.size :]
        size = self._item.size
        if len(rest) != value.pop(self._count) * size:
            raise CodecError(f"{len(rest)} bytes of {self.name}, which is not as many as it says")
        value[self.name] = [self._item.unpack(rest[at : at + size]) for at in range(0, len(rest), size)]
        return value


class Unterminated(Text):
    """A string that is written without NUL, because the kernel takes the attribute's length for the string's."""

    def pack(self, value: Any) -> bytes:
        return super().pack(value)[:-1]


BIT_FIELD = Header("=II", ("value", "selector"))
"""`struct nla_bitfield32`."""


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise CodecError(f"nested deeper than {MAX_DEPTH}")


def _pack_element(kind: Kind, number: int, item: Any, depth: int) -> bytes:
    return pack_attribute(number | NLA_F_NESTED if kind.nested else number, kind.encode(item, {}, depth + 1))


def _decode_element(kind: Kind, number: int, type_: int, data: bytes, depth: int) -> Any:
    is_flagged = type_ & NLA_F_NET_BYTEORDER or (type_ & NLA_F_NESTED and not kind.nested and not isinstance(kind, Raw))
    if type_ & NLA_TYPE_MASK != number or is_flagged:
        raise CodecError(f"an element of type {type_} where {number} belongs")
    return kind.decode(data, {}, depth + 1)

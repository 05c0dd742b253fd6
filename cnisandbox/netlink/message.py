"""Netlink messages as they stand in a datagram: nlmsghdr, the family's header, attributes.

Source: include/uapi/linux/netlink.h, net/netlink/af_netlink.c (netlink_ack), Linux 6.1; netlink(7).
"""

import struct
from collections.abc import Iterator, Mapping

from cnisandbox.hints import NamedTuple
from cnisandbox.netlink.codec import (
    RAW,
    TEXT,
    U32,
    Attributes,
    CodecError,
    Header,
    Table,
    aligned,
    decode_parts,
    encode_parts,
)

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSG_OVERRUN = 4

NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

_NLMSGHDR = struct.Struct("=IHHII")

_ERROR_HEADER = Header("=iIHHII", ("error", "length", "type", "flags", "sequence", "port"))
_CONTROL_TABLES = {
    NLMSG_ERROR: Table(
        {
            1: ("message", TEXT),
            2: ("offset", U32),
            3: ("cookie", RAW),
            5: ("missing_type", U32),
            6: ("missing_nest", U32),
        },
        _ERROR_HEADER,
    ),
    NLMSG_DONE: Table({1: ("message", TEXT)}, Header("=i", ("error",))),
}


class Message(NamedTuple):
    """One netlink message.

    Attributes:
        type: Such as RTM_NEWLINK.
        flags: NLM_F_*.
        sequence: Chosen by the requester, repeated in every answer.
        port: The requester's netlink port, 0 in what the kernel sends by itself.
        header: Fields of the family's fixed header, all of them; of NLMSG_ERROR and NLMSG_DONE, "error" is the negative
            errno, or 0.
        attributes: By name, see cnisandbox.netlink.codec.
    """

    type: int
    flags: int
    sequence: int
    port: int
    header: dict[str, int]
    attributes: Attributes


Envelope = tuple[int, int, int, int]
"""Type, flags, sequence number and port of a message."""


def encode_message(message: Message, tables: Mapping[int, Table]) -> bytes:
    """Encode a message.

    Args:
        message: Its `header` must have every field of the family's header.
        tables: Message type to table.

    Returns:
        One `struct nlmsghdr` (16 bytes, native order), the family's header, the attributes; a multiple of 4 bytes.

    Raises:
        CodecError: The table cannot express it.
    """
    return encode_as(message, _table_of(message.type, tables))


def encode_as(message: Message, table: Table) -> bytes:
    """Encode a message by this table, whatever its type; otherwise as `encode_message`."""
    return _encode_fields(*message, table)


def encode_request(
    type_: int, flags: int, sequence: int, header: dict[str, int], attributes: Attributes, tables: Mapping[int, Table]
) -> bytes:
    """Encode a message to the kernel, given by its fields, as `encode_message` does."""
    return _encode_fields(type_, flags, sequence, 0, header, attributes, _table_of(type_, tables))


def _encode_fields(
    type_: int,
    flags: int,
    sequence: int,
    port: int,
    header: dict[str, int],
    attributes: Attributes,
    table: Table,
) -> bytes:
    body = encode_parts(table, header, attributes, 0)
    try:
        return _NLMSGHDR.pack(16 + len(body), type_, flags, sequence, port) + body
    except struct.error as error:
        raise CodecError(f"header of the message: {error}") from None


def decode_messages(datagram: bytes, tables: Mapping[int, Table]) -> list[Message]:
    """Decode every message of a datagram.

    Raises:
        CodecError: A byte of it does not belong where it stands, or no table knows a type.
    """
    messages: list[Message] = []
    for envelope, body in split_messages(datagram):
        type_, flags, _, _ = envelope
        table = _table_of(type_, tables)
        messages.append(decode_as(envelope, _without_echo(flags, body) if type_ == NLMSG_ERROR else body, table))
    return messages


def split_messages(datagram: bytes) -> Iterator[tuple[Envelope, bytes]]:
    """Split a datagram into the first four fields of each message, and its body.

    Raises:
        CodecError: A length is wrong; raised when the iteration comes to it.
    """
    unpack = _NLMSGHDR.unpack_from
    offset, end = 0, len(datagram)
    while offset < end:
        try:
            length, type_, flags, sequence, port = unpack(datagram, offset)
        except struct.error:
            raise CodecError(f"{end - offset} bytes where a message begins") from None
        following = offset + length
        if length < 16 or following > end:
            raise CodecError(f"a message of {length} bytes where {end - offset} are left")
        yield (type_, flags, sequence, port), datagram[offset + 16 : following]
        offset = following + 3 & ~3


def decode_as(envelope: Envelope, body: bytes, table: Table) -> Message:
    """Decode the body of a message that `split_messages` gave, by this table.

    Raises:
        CodecError: A byte of it does not belong where it stands.
    """
    return Message(*envelope, *decode_parts(table, body, 0))


def _without_echo(flags: int, body: bytes) -> bytes:
    """Cut the repeated request out of an NLMSG_ERROR, so that its attributes follow its header."""
    size = _ERROR_HEADER.size
    if not flags & NLM_F_ACK_TLVS or len(body) < size:
        return body[:size]
    if flags & NLM_F_CAPPED:
        return body
    request_length = _ERROR_HEADER.unpack(body[:size])["length"]
    return body[:size] + body[max(size, 4 + aligned(request_length)) :]


def _table_of(type_: int, tables: Mapping[int, Table]) -> Table:
    table = _CONTROL_TABLES.get(type_) or tables.get(type_)
    if table is None:
        raise CodecError(f"unknown message type {type_}")
    return table

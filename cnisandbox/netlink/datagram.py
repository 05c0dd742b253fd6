"""Datagrams of foreign programs: decoded to be judged, encoded to be sent in their place.

Stricter than the kernel: what two readers could understand differently is malformed. What is encoded again has the
kernel's own layout: padding is zero, flags are those that the tables say, nothing stands where nothing is expected.

    decode_datagram(encode_datagram(decode_datagram(x))) == decode_datagram(x)

Source: net/netlink/af_netlink.c (netlink_rcv_skb), net/core/rtnetlink.c (rtnetlink_rcv_msg),
net/netfilter/nfnetlink.c (nfnetlink_rcv_batch), net/netlink/genetlink.c, Linux 6.1.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence

from cnisandbox.hints import Any
from cnisandbox.netlink import codec, structures
from cnisandbox.netlink.codec import NLA_TYPE_MASK, UNKNOWN, CodecError, Kind, Table
from cnisandbox.netlink.message import NLM_F_DUMP, Envelope, Message, decode_as, encode_as, split_messages
from cnisandbox.netlink.tables import generic
from cnisandbox.netlink.tables.monitored import NETFILTER_NAMES, NETFILTER_TABLES, ROUTE_NAMES, ROUTE_TABLES
from cnisandbox.netlink.tables.netfilter import NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16

MAX_DATAGRAM = 1 << 20  # LIMIT: iptables-restore sends a whole rule set in one; decoding this much takes below a second
MAX_MESSAGES = 1 << 14  # LIMIT: a rule is a message of 100 bytes and more

_GET = 2  # rtnetlink: the last two bits of a type
_IFINFOMSG_SIZE = 16
_NLMSGHDR_SIZE = 16

Families = Mapping[int, str]
"""Number of a generic netlink family, in the running kernel, to its name; the controller is known without."""

_NO_FAMILIES: Families = {}
_GENERIC = {name: table for commands in generic.FAMILIES.values() for name, table in commands.values()}
_ENTRIES: dict[int, dict[int, tuple[str, Table]]] = {
    NETLINK_ROUTE: {type_: (name, ROUTE_TABLES[type_]) for type_, name in ROUTE_NAMES.items()},
    NETLINK_NETFILTER: {type_: (name, NETFILTER_TABLES[type_]) for type_, name in NETFILTER_NAMES.items()},
}
_BY_NAME: dict[str, tuple[int, Table]] = {
    **{name: (protocol, table) for protocol, entries in _ENTRIES.items() for name, table in entries.values()},
    **{name: (NETLINK_GENERIC, table) for name, table in _GENERIC.items()},
}

MESSAGE_NAMES = frozenset(_BY_NAME)
"""Every message that a table knows, by the name that `message_name` gives it."""


def decode_datagram(protocol: int, data: bytes, families: Families = _NO_FAMILIES) -> list[Message]:
    """Decode what a program sends to the kernel.

    Args:
        protocol: NETLINK_ROUTE, NETLINK_NETFILTER or NETLINK_GENERIC.
        data: One datagram.
        families: Of generic netlink.

    Returns:
        At least one message. Attributes that no table knows stand below "unknown", at any depth; see `unknown_paths`.

    Raises:
        CodecError: A byte of it does not belong where it stands, no table knows a message, or there is too much of it.
    """
    if not 0 < len(data) <= MAX_DATAGRAM:
        raise CodecError(f"a datagram of {len(data)} bytes")
    messages: list[Message] = []
    for envelope, body in split_messages(_without_tail(data)):
        if len(messages) == MAX_MESSAGES:
            raise CodecError(f"more than {MAX_MESSAGES} messages")
        _, table = _entry(protocol, envelope[0], body[:1], families)
        messages.append(decode_as(envelope, _with_own_header(protocol, envelope, body, table), table))
    if protocol == NETLINK_NETFILTER:
        _check_batch(messages)
    return messages


def encode_datagram(protocol: int, messages: Sequence[Message], families: Families = _NO_FAMILIES) -> bytes:
    """Encode messages as one datagram.

    Args:
        protocol: As in `decode_datagram`.
        messages: As it returns them.
        families: Of generic netlink.

    Raises:
        CodecError: A table cannot express one, or they are more than `decode_datagram` takes.
    """
    if protocol == NETLINK_NETFILTER:
        _check_batch(messages)
    data = b"".join(encode_as(message, _entry_of(protocol, message, families)[1]) for message in messages)
    if not 0 < len(data) <= MAX_DATAGRAM or len(messages) > MAX_MESSAGES:
        raise CodecError(f"a datagram of {len(messages)} messages, {len(data)} bytes")
    return data


def message_name(protocol: int, message: Message, families: Families = _NO_FAMILIES) -> str:
    """Name a message as the kernel's headers do: "RTM_NEWLINK", "NFT_MSG_NEWRULE", "CTRL_CMD_GETFAMILY".

    Raises:
        CodecError: No table knows it.
    """
    return _entry_of(protocol, message, families)[0]


def protocol_of(name: str) -> int:
    """Say in which protocol a message of MESSAGE_NAMES is sent.

    Raises:
        KeyError: There is no such message.
    """
    return _BY_NAME[name][0]


def has_path(name: str, path: str) -> bool:
    """Say whether a message can have an attribute.

    Args:
        name: One of MESSAGE_NAMES.
        path: Names with dots between, such as "linkinfo.data.peer.mtu"; lists take no part in it. The last one may be
            "*" or "**": then there has to be anything below the rest.

    Raises:
        KeyError: There is no such message.
    """
    *above, last = path.split(".")
    tables = [_BY_NAME[name][1]]
    fields: set[str] = set()
    for component in above:
        kinds = [table.by_name[component][1] for table in tables if component in table.by_name]
        tables = [table for kind in kinds for table in _tables_of(kind)]
        fields = {field for kind in kinds for field in _fields_of(kind)}
    names = fields.union(*(table.by_name for table in tables))
    return bool(names) if last in ("*", "**") else last in names


def _tables_of(kind: Kind) -> list[Table]:
    """Find the tables of what an attribute may hold."""
    if isinstance(kind, codec.Many | structures.List | structures.Consecutive):
        return _tables_of(kind.kind)
    if isinstance(kind, codec.Nested | codec.Sequence):
        return [kind.table]
    if isinstance(kind, codec.NestedBy):
        return [*kind.tables.values(), *([kind.default] if kind.default else [])]
    return []


def _fields_of(kind: Kind) -> tuple[str, ...]:
    """Name the fields of an attribute that is a struct."""
    if isinstance(kind, codec.Many | structures.List | structures.Consecutive):
        return _fields_of(kind.kind)
    if isinstance(kind, structures.Counted):
        return (*kind.fields, kind.name)
    return kind.fields if isinstance(kind, codec.Header) else ()


def unknown_paths(message: Message) -> list[str]:
    """Find what no table could decode.

    Returns:
        Dotted paths with the attribute's number at the end, such as "linkinfo.data.unknown.57"; none if all is
        understood.
    """
    return list(_unknown_below("", message.attributes))


def _unknown_below(prefix: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _unknown_below(prefix, item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == UNKNOWN:
                yield from (f"{prefix}{UNKNOWN}.{type_ & NLA_TYPE_MASK}" for type_, _ in item)
            else:
                yield from _unknown_below(f"{prefix}{name}.", item)


def _entry_of(protocol: int, message: Message, families: Families) -> tuple[str, Table]:
    if protocol != NETLINK_GENERIC:
        return _entry(protocol, message.type, b"", families)
    command = message.header.get("command", 0)
    if type(command) is not int or not 0 <= command <= 0xFF:
        raise CodecError(f"no command: {command!r:.40}")
    return _entry(protocol, message.type, bytes([command]), families)


def _entry(protocol: int, type_: int, command: bytes, families: Families) -> tuple[str, Table]:
    """Find name and table; a generic netlink message is told by its family and its first byte."""
    if protocol == NETLINK_GENERIC:
        family = generic.CONTROLLER if type_ == generic.GENL_ID_CTRL else families.get(type_, "")
        entry = generic.FAMILIES.get(family, {}).get(command[0] if command else -1)
        if entry is None:
            raise CodecError(f"unknown command {command.hex()} of family {family or type_}")
        return entry
    entry = _ENTRIES.get(protocol, {}).get(type_)
    if entry is None:
        raise CodecError(f"unknown message type {type_} of protocol {protocol}")
    return entry


def _without_tail(data: bytes) -> bytes:
    """Cut zeros from behind the last message.

    KERNEL: it stops at a length of 0, and iproute2 sends the whole of a buffer whose front is a message.
    """
    offset, end = 0, len(data)
    while offset < end:
        length = int.from_bytes(data[offset : offset + 4], sys.byteorder)
        if length < _NLMSGHDR_SIZE:
            break
        offset += length + 3 & ~3
    return data if offset == 0 or any(data[offset:]) else data[:offset]


def _with_own_header(protocol: int, envelope: Envelope, body: bytes, table: Table) -> bytes:
    """Give a dump request that says nothing but a family the header that its type has.

    KERNEL: a dump takes rtgenmsg (1 byte) and ifinfomsg for every type, as long as the socket does not ask for strict
    checking; Go's standard library and github.com/vishvananda/netlink send these.
    """
    type_, flags, _, _ = envelope
    if protocol != NETLINK_ROUTE or type_ & 3 != _GET or not flags & NLM_F_DUMP:
        return body
    if not 0 < len(body) <= _IFINFOMSG_SIZE or any(body[1:]) or table.header is None:
        return body
    return body[:1] + bytes(table.header.size - 1)


_BATCH_MARKS = (NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END)


def _check_batch(messages: Sequence[Message]) -> None:
    """Check that a batch is one from the datagram's first message to its last.

    KERNEL: what stands behind the end of a batch is left out without an answer, and what stands in it is handed to the
    subsystem that the beginning names. A batch without its end is undone, which is how `nft --check` tries one.
    """
    marks = [place for place, message in enumerate(messages) if message.type in _BATCH_MARKS]
    if not marks:
        return
    is_begun = messages[0].type == NFNL_MSG_BATCH_BEGIN and messages[0].header.get("res_id") == NFNL_SUBSYS_NFTABLES
    is_ended = marks == [0, len(messages) - 1] and messages[-1].type == NFNL_MSG_BATCH_END
    if not is_begun or not (is_ended or marks == [0]):
        raise CodecError("a batch that is not one of nf_tables, from the first message to the last")
    for message in messages[1:]:
        if message.type >> 8 != NFNL_SUBSYS_NFTABLES and message.type not in _BATCH_MARKS:
            raise CodecError(f"message type {message.type} in a batch of nf_tables")

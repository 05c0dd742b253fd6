"""Datagrams of foreign programs: whatever they send, a value or the documented error, in bounded time."""

import contextlib
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnisandbox.netlink.codec import HEADER, CodecError
from cnisandbox.netlink.datagram import (
    MAX_DATAGRAM,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
    message_name,
    unknown_paths,
)
from cnisandbox.netlink.message import Message
from cnisandbox.netlink.tables import generic
from cnisandbox.netlink.tables.monitored import NETFILTER_TABLES, ROUTE_TABLES
from tests.property.netlink_values import bodies
from tests.unit.netlink_corpus import recorded

FAMILIES = {22: "ethtool"}
PROTOCOLS = [NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC]
BATCH_MARKS = (16, 17)
CORPUS = [(one.protocol, one.data) for name in ("plugins", "tools") for one in recorded(name)]
U32 = st.integers(0, 2**32 - 1)
TABLES = [
    *((NETLINK_ROUTE, type_, -1, table) for type_, table in ROUTE_TABLES.items()),
    *((NETLINK_NETFILTER, type_, -1, table) for type_, table in NETFILTER_TABLES.items() if type_ not in BATCH_MARKS),
    *(
        (NETLINK_GENERIC, type_, command, table)
        for type_, family in ((16, "nlctrl"), (22, "ethtool"))
        for command, (_, table) in generic.FAMILIES[family].items()
    ),
]
# Generating a large message is slow; the time that decoding takes is bounded in a test of its own.
UNHURRIED = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


@st.composite
def datagrams(draw):
    """One message of any type, as (protocol, [message])."""
    protocol, type_, command, table = draw(st.sampled_from(TABLES))
    body = draw(bodies(table))
    header = body.pop(HEADER)
    if command >= 0:
        header["command"] = command
    flags = draw(st.integers(0, 0xFFFF))
    return protocol, [Message(type_, flags, draw(U32), draw(U32), header, body)]


def assert_canonical(protocol, data):
    """Decode; what was understood can be said again, is understood the same, and is then said in the same words."""
    decoded = decode_datagram(protocol, data, FAMILIES)
    again = encode_datagram(protocol, decoded, FAMILIES)
    assert decode_datagram(protocol, again, FAMILIES) == decoded
    assert encode_datagram(protocol, decode_datagram(protocol, again, FAMILIES), FAMILIES) == again
    for message in decoded:
        assert message_name(protocol, message, FAMILIES)
        assert all(path.split(".")[-2] == "unknown" for path in unknown_paths(message))


@given(datagrams())
@UNHURRIED
def test_what_was_encoded_is_decoded(datagram):
    protocol, messages = datagram
    data = encode_datagram(protocol, messages, FAMILIES)
    assert decode_datagram(protocol, data, FAMILIES) == messages
    assert_canonical(protocol, data)


@given(st.sampled_from(CORPUS), st.data())
@settings(UNHURRIED, max_examples=400)
def test_mutated_datagrams_give_messages_or_the_documented_error(datagram, data):
    protocol, encoded = datagram[0], bytearray(datagram[1])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(encoded) - 1))
        change = data.draw(st.sampled_from(["byte", "bit", "insert", "delete", "repeat", "zero"]))
        if change == "byte":
            encoded[at] = data.draw(st.integers(0, 255))
        elif change == "bit":
            encoded[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "insert":
            encoded[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif change == "repeat":
            encoded[at:at] = encoded[at : at + 4 * data.draw(st.integers(1, 8))]
        elif change == "zero":
            encoded[at : at + 4] = bytes(len(encoded[at : at + 4]))
        elif len(encoded) > 1:
            del encoded[at]
    for attempt in (bytes(encoded), bytes(encoded[: data.draw(st.integers(0, len(encoded)))])):
        with contextlib.suppress(CodecError):
            assert_canonical(protocol, attempt)


@given(st.sampled_from(PROTOCOLS), st.binary(max_size=400), st.data())
@settings(UNHURRIED, max_examples=300)
def test_any_bytes_give_messages_or_the_documented_error(protocol, body, data):
    types = [type_ for owner, type_, _, _ in TABLES if owner == protocol] + [0, 3, 9999]
    type_, flags = data.draw(st.sampled_from(types)), data.draw(st.integers(0, 0xFFFF))
    head = struct.pack("=IHHII", 16 + len(body), type_, flags, 1, 2)
    for attempt in (body, head + body):
        with contextlib.suppress(CodecError):
            assert_canonical(protocol, attempt)


@given(st.sampled_from([*PROTOCOLS, 4, 6, -1]), st.lists(datagrams(), max_size=3), st.data())
@UNHURRIED
def test_any_messages_are_encoded_or_give_the_documented_error(protocol, parts, data):
    messages = [message for _, part in parts for message in part]
    junk = st.none() | st.integers() | st.text(max_size=3) | st.binary(max_size=3) | st.lists(st.integers(), max_size=2)
    for index, message in enumerate(messages):
        if message.attributes and data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(message.attributes)))
            messages[index] = message._replace(attributes={**message.attributes, name: data.draw(junk)})
    try:
        encoded = encode_datagram(protocol, messages, FAMILIES)
    except CodecError:
        return
    decode_datagram(protocol, encoded, FAMILIES)


def link_message(body):
    return struct.pack("=IHHII", 16 + len(body), 16, 0, 1, 2) + body


def attribute(type_, payload):
    return struct.pack("=HH", 4 + len(payload), type_) + payload + bytes(-len(payload) % 4)


def nested(levels, payload):
    """Peers of veths within peers of veths, around a payload."""
    for _ in range(levels):
        peer = attribute(1, bytes(16) + payload)
        payload = attribute(18, attribute(1, b"veth\0") + attribute(2, peer))
        if len(payload) > 60_000:
            break
    return payload


EMPTY = attribute(200, b"")  # of a number without name
LARGEST = {
    "empty-messages": link_message(bytes(16)) * (MAX_DATAGRAM // 32),
    "empty-attributes": link_message(bytes(16) + EMPTY * ((MAX_DATAGRAM - 32) // 4)),
    "headers-only": struct.pack("=IHHII", 16, 16, 0, 1, 2) * (MAX_DATAGRAM // 16),
    "unknown-everywhere": link_message(bytes(16) + nested(2, EMPTY * 15_000) + EMPTY * 200_000),
    "zeros": bytes(MAX_DATAGRAM),
    "zeros-behind": link_message(bytes(16)) + bytes(MAX_DATAGRAM - 32),
    "tiny-lengths": b"\1" * MAX_DATAGRAM,
    "peers": link_message(bytes(16) + nested(2, EMPTY * 15_000)) * 17,
    "many-vlans": link_message(b"\7" + bytes(15) + attribute(26, attribute(2, bytes(4)) * 8000)).replace(
        b"\x10\0", b"\x13\0", 1
    ) * 16,
    "expressions": struct.pack("=IHHII", 20 + 60_004, 10 << 8 | 6, 0, 1, 2)
    + bytes(4)
    + attribute(4, attribute(1, attribute(1, b"counter\0") + attribute(2, b"")) * 3000)[:60_004],
}  # fmt: skip


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_datagram_takes_bounded_time(name):
    started = time.process_time()
    for protocol in (NETLINK_ROUTE, NETLINK_NETFILTER):
        with contextlib.suppress(CodecError):
            decode_datagram(protocol, LARGEST[name][:MAX_DATAGRAM], FAMILIES)
    assert time.process_time() - started < 5  # a second or less, on two slow cores

"""The messages that cross the boundary: whatever bytes come, a value comes out or BoundaryViolation, nothing else."""

import os
import select
import struct
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cnisandbox.boundary import wire
from cnisandbox.errors import BoundaryViolation

integers = st.integers(-(1 << 63), (1 << 63) - 1)
# Lone surrogates are how Python spells bytes of a file name that are not UTF-8.
texts = st.text(st.characters(blacklist_categories=()), max_size=40)
leaves = st.none() | st.booleans() | integers | texts | st.binary(max_size=40)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=30
)


class Inner(NamedTuple):
    """A record in a record."""

    name: str
    size: int | None


class Outer(NamedTuple):
    """A record of everything."""

    flag: bool
    count: int
    text: str
    data: bytes
    inner: Inner
    many: list[Inner]
    table: dict[str, list[int]]
    maybe: Inner | None


inners = st.builds(Inner, texts, st.none() | integers)
outers = st.builds(
    Outer,
    st.booleans(),
    integers,
    texts,
    st.binary(max_size=20),
    inners,
    st.lists(inners, max_size=3),
    st.dictionaries(texts, st.lists(integers, max_size=3), max_size=3),
    st.none() | inners,
)


def body_of(value: object) -> bytes:
    frame = wire.encode(value)
    assert struct.unpack(">I", frame[:4])[0] == len(frame) - 4
    return frame[4:]


def decoded(body: bytes) -> object:
    """Decode; BoundaryViolation is the only thing that may be raised."""
    try:
        return wire.decode(body)
    except BoundaryViolation:
        return BoundaryViolation


def is_plain(value: object) -> bool:
    match value:
        case None | bool() | int() | str() | bytes():
            return type(value) in (type(None), bool, int, str, bytes)
        case list():
            return all(is_plain(item) for item in value)
        case dict():
            return all(type(key) is str and is_plain(item) for key, item in value.items())
    return False


@given(values)
def test_a_value_comes_back_as_it_was_with_the_types_that_it_had(value: object) -> None:
    back = wire.decode(body_of(value))
    assert repr(back) == repr(value)  # == alone takes True for 1


@given(values, st.data())
def test_a_mutated_byte_gives_a_value_or_a_violation(value: object, data: st.DataObject) -> None:
    body = bytearray(body_of(value))
    position = data.draw(st.integers(0, len(body) - 1))
    body[position] ^= data.draw(st.integers(1, 255))
    back = decoded(bytes(body))
    assert back is BoundaryViolation or is_plain(back)


@given(values, st.data())
def test_a_truncated_body_is_a_violation(value: object, data: st.DataObject) -> None:
    body = body_of(value)
    assert decoded(body[: data.draw(st.integers(0, len(body) - 1))]) is BoundaryViolation


@given(values, st.binary(min_size=1, max_size=8))
def test_bytes_behind_the_value_are_a_violation(value: object, more: bytes) -> None:
    assert decoded(body_of(value) + more) is BoundaryViolation


@given(st.binary(max_size=200))
@example(b"")
@example(b"L" + b"\xff" * 4)
@example(b"M\x00\x00\x00\x01\x00\x00\x00\x01kN")
@example(b"S\x00\x00\x00\x01\xff")
@example(b"I" + b"\x00" * 7)
def test_any_bytes_give_a_value_or_a_violation(body: bytes) -> None:
    back = decoded(body)
    assert back is BoundaryViolation or is_plain(back)


@given(st.integers(0, 255))
def test_an_unknown_tag_is_a_violation(tag: int) -> None:
    back = decoded(bytes([tag]))
    assert back in (None, True, False) if bytes([tag]) in b"NTF" else back is BoundaryViolation


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_nesting_has_a_limit_in_both_directions() -> None:
    deepest = nested(wire.MAX_DEPTH + 1)
    assert wire.decode(body_of(deepest)) == deepest
    with pytest.raises(BoundaryViolation, match="nested deeper"):
        wire.encode([deepest])
    one_more = b"L\0\0\0\1" + body_of(deepest)
    assert decoded(one_more) is BoundaryViolation
    assert decoded(b"L\0\0\0\1" * 100_000) is BoundaryViolation


@pytest.mark.parametrize("tag", [b"L", b"M", b"S", b"B"])
@pytest.mark.parametrize("count", [1, 1 << 16, (1 << 32) - 1])
def test_a_count_that_the_message_cannot_hold_is_a_violation_at_once(tag: bytes, count: int) -> None:
    assert decoded(tag + struct.pack(">I", count)) is BoundaryViolation


@pytest.mark.parametrize(
    "value",
    [1 << 63, -(1 << 63) - 1, 1.5, {1, 2}, object(), print, Inner, bytearray(b"x"), [1, [2j]], {"a": range(3)}],
    ids=repr,
)
def test_what_has_no_tag_does_not_cross(value: object) -> None:
    with pytest.raises(BoundaryViolation):
        wire.encode(value)


def test_a_message_has_a_greatest_length() -> None:
    room = wire.MAX_MESSAGE_BYTES - 5
    assert len(wire.encode(b"x" * room)) == wire.MAX_MESSAGE_BYTES + 4
    with pytest.raises(BoundaryViolation, match="bytes are more than"):
        wire.encode(b"x" * (room + 1))


@given(outers)
def test_a_record_comes_back_as_a_record(record: Outer) -> None:
    back = wire.check(wire.decode(body_of(record)), Outer, "it")
    assert repr(back) == repr(record)


@given(outers, st.data())
@settings(max_examples=200)
def test_a_mutated_record_is_a_record_of_the_same_types_or_a_violation(record: Outer, data: st.DataObject) -> None:
    body = bytearray(body_of(record))
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        back = wire.check(wire.decode(bytes(body)), Outer, "it")
    except BoundaryViolation:
        return
    assert [type(field) for field in back] == [bool, int, str, bytes, Inner, list, dict, type(back.maybe)]
    assert isinstance(back.maybe, Inner | None)
    assert all(type(item) is Inner and type(item.name) is str for item in back.many)
    assert all(type(number) is int for numbers in back.table.values() for number in numbers)


ANNOTATIONS: list[Any] = [
    None,
    bool,
    int,
    str,
    bytes,
    list[int],
    list[list[str]],
    dict[str, int],
    dict[str, list[bool]],
    int | None,
    Inner | None,
    Inner,
    list[Inner],
]


def conforms(value: object, annotation: Any) -> bool:
    """Say independently of wire.check whether a decoded value is of an annotated type."""
    if annotation is None:
        return value is None
    if annotation in (bool, int, str, bytes):
        return type(value) is annotation
    if annotation in (int | None, Inner | None):
        return value is None or conforms(value, int if annotation == (int | None) else Inner)
    if annotation is Inner:
        return type(value) is list and len(value) == 2 and conforms(value[0], str) and conforms(value[1], int | None)
    if annotation.__origin__ is list:
        return type(value) is list and all(conforms(item, annotation.__args__[0]) for item in value)
    return type(value) is dict and all(conforms(item, annotation.__args__[1]) for item in value.values())


@given(values, st.sampled_from(ANNOTATIONS))
@settings(max_examples=300)
@example([True], list[int])
@example(True, int)
@example(1, bool)
@example([], Inner)
@example(["x", None, 1], Inner)
@example(["x", None], Inner)
@example("ab", list[str])
@example({}, list[int])
def test_check_lets_through_what_is_of_the_type_and_nothing_else(value: object, annotation: Any) -> None:
    try:
        wire.check(value, annotation, "it")
    except BoundaryViolation as error:
        assert not conforms(value, annotation)
        assert error.msg.startswith("check it")  # noqa: PT017 - only where it is raised
    else:
        assert conforms(value, annotation)


def test_what_is_not_an_annotation_lets_nothing_through() -> None:
    for annotation in (object, Any, float, tuple[int, int], set[int], "int"):
        with pytest.raises(BoundaryViolation):
            wire.check(1, annotation, "it")


@given(st.lists(values, max_size=6), st.booleans())
def test_a_channel_keeps_messages_apart_and_in_order(sent: list[object], reads_ahead: bool) -> None:
    ours, theirs = wire.channel_pair("them", "us", reads_ahead=reads_ahead)
    try:
        for value in sent:
            ours.send(value)
        received = []
        while theirs.has_message():
            received.append(theirs.receive(1))
        assert repr(received) == repr(sent)
    finally:
        ours.close()
        theirs.close()


@given(st.lists(values, min_size=1, max_size=4), st.booleans(), st.integers(1, 40))
def test_a_message_may_come_in_any_pieces(sent: list[object], reads_ahead: bool, size: int) -> None:
    ours, theirs = wire.channel_pair("them", "us", reads_ahead=reads_ahead)
    whole_read = os.read
    try:
        for value in sent:
            ours.send(value)
        with mock.patch.object(os, "read", lambda fd, count: whole_read(fd, min(count, size))):
            assert repr([theirs.receive(1) for _ in sent]) == repr(sent)
    finally:
        ours.close()
        theirs.close()


def test_a_channel_that_does_not_read_ahead_leaves_the_next_message_to_be_seen() -> None:
    ours, theirs = wire.channel_pair("them", "us")
    try:
        ours.send(1)
        ours.send(2)
        assert theirs.receive(1) == 1
        assert select.select([theirs.read_fd], [], [], 0)[0]
    finally:
        ours.close()
        theirs.close()


@given(st.binary(max_size=64))
def test_any_bytes_on_a_pipe_give_a_value_or_a_violation(data: bytes) -> None:
    ours, theirs = wire.channel_pair("them", "us")
    os.write(theirs.write_fd, data)
    theirs.close()
    try:
        assert is_plain(ours.receive(1))
    except BoundaryViolation:
        pass
    finally:
        ours.close()

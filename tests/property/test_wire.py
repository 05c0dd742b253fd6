"""The messages that cross the boundary: whatever bytes come, a value comes out or BoundaryViolation, nothing else."""

import os
import select
import struct
import time
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


def body(tags: str, sizes: list[int], rest: bytes = b"") -> bytes:
    """What somebody may write who is not us."""
    return struct.pack(f">I{len(tags)}s{len(sizes)}I", len(tags), tags.encode("latin-1"), *sizes) + rest


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
@example(bytes(4))
@example(b"\xff" * 4)
@example(body("S", [1], b"\xff"))
@example(body("S", [2], b"x"))
@example(body("B", [2], b"x"))
@example(body("I", [], bytes(7)))
def test_any_bytes_give_a_value_or_a_violation(body: bytes) -> None:
    back = decoded(body)
    assert back is BoundaryViolation or is_plain(back)


@given(st.integers(0, 255))
def test_an_unknown_tag_is_a_violation(tag: int) -> None:
    known = {"N": (None, b""), "T": (True, b"\1"), "I": (1, b"\0\0\0\0\0\0\0\1")}
    value, rest = known.get(chr(tag), (BoundaryViolation, b""))
    sizes = [0] if chr(tag) in "LMSB" else []
    back = decoded(body(chr(tag), sizes, rest))
    assert back in ([], {}, "", b"") if sizes else back is value or back == value


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Columns that fit their tags, whatever is inside of what."""
    tags = draw(st.text(st.sampled_from("LLLMMSSBITN"), min_size=1, max_size=12))
    numbers = draw(st.lists(st.integers(0, 4), min_size=len(tags), max_size=len(tags)))
    sizes = {tag: [size for size, its in zip(numbers, tags, strict=True) if its in tag] for tag in ("LM", "S", "B")}
    rest = bytes(8 * tags.count("I") + tags.count("T")) + b"t" * sum(sizes["S"]) + b"b" * sum(sizes["B"])
    return body(tags, [*sizes["LM"], *sizes["S"], *sizes["B"]], rest)


@given(bodies())
@settings(max_examples=1000)
@example(body("N", []))
@example(body("NN", []))
@example(body("LN", [0]))
@example(body("LN", [2]))
@example(body("LL", [1, 1]))
@example(body("LLL", [0, 1, 1]))
@example(body("LNL", [2, 1]))
@example(body("LM", [1, 1]))
@example(body("MN", [1]))
@example(body("MSN", [1, 0]))
@example(body("MNN", [1]))
@example(body("MSSNN", [2, 0, 0]))
@example(body("L", [(1 << 32) - 1]))
@example(body("MS", [(1 << 32) - 1, 0]))
def test_values_are_inside_of_one_other_each_and_of_none_twice(columns: bytes) -> None:
    """What comes back is a tree: sent again, it takes as many values."""
    back = decoded(columns)
    if back is BoundaryViolation:
        return
    assert is_plain(back)
    has_equal_keys = columns[4 : 4 + columns[3]].count(b"M") > 0
    assert has_equal_keys or body_of(back) == columns


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
    for depth in (1, 2, 100_000):
        more = wire.MAX_DEPTH + depth
        assert decoded(body("L" * more + "N", [1] * more)) is BoundaryViolation
    as_deep = body("L" * wire.MAX_DEPTH + "N", [1] * wire.MAX_DEPTH)
    assert is_plain(decoded(as_deep))


def test_what_a_message_costs_is_in_proportion_to_its_length() -> None:
    """The longest one, of what takes most: for its square it would take hours."""
    count = wire.MAX_MESSAGE_BYTES // 6
    many = [
        body("L" * count + "N", [1] * count),
        body("L" + "L" * count, [count] + [0] * count),
        body("L" + "M" * count, [count] + [0] * count),
        body("L" + "S" * count, [count] + [0] * count),
        body("M" + "S" * count + "N" * count, [count] + [0] * count),
        body("L" * count, [(1 << 32) - 1] * count),
        body("M" * count, [(1 << 32) - 1] * count),
    ]
    begin = time.process_time()
    for one in many:
        decoded(one)
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("tag", "LMSB")
@pytest.mark.parametrize("count", [1, 1 << 16, (1 << 32) - 1])
def test_a_size_or_count_that_the_message_cannot_hold_is_a_violation(tag: str, count: int) -> None:
    assert decoded(body(tag, [count])) is BoundaryViolation
    assert decoded(struct.pack(">I", max(2, count)) + tag.encode() + bytes(4)) is BoundaryViolation


@pytest.mark.parametrize(
    "value",
    [1 << 63, -(1 << 63) - 1, 1.5, {1, 2}, object(), print, Inner, bytearray(b"x"), [1, [2j]], {"a": range(3)}],
    ids=repr,
)
def test_what_has_no_tag_does_not_cross(value: object) -> None:
    with pytest.raises(BoundaryViolation):
        wire.encode(value)


def test_a_message_has_a_greatest_length() -> None:
    room = wire.MAX_MESSAGE_BYTES - 9
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

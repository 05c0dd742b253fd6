"""What is found in the kernel's answers by the C is what stands there when they are split."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnisandbox.netlink.codec import (
    NLA_TYPE_MASK,
    CodecError,
    find_attributes,
    numbers_of_attributes,
    pack_attribute,
    split_attributes,
)

WANTED = [3, 1, 40]
TYPES = st.sampled_from([0, 1, 3, 3 | 0x8000, 40, 0x4001, 7, 0x3FFF])
ATTRIBUTES = st.lists(st.builds(pack_attribute, TYPES, st.binary(max_size=9)), max_size=6).map(b"".join)


@st.composite
def attributes(draw: st.DrawFn) -> tuple[bytes, int]:
    """Attributes behind a header of some length, a byte of them changed or the end cut off."""
    data = bytearray(draw(ATTRIBUTES))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    start = draw(st.sampled_from([0, 4, 32]))
    return bytes(start) + bytes(data[: draw(st.integers(0, len(data)))]), start


def found_by_splitting(data: bytes, start: int) -> list[bytes]:
    found: dict[int, bytes] = {}
    for type_, payload in split_attributes(data[start:]):
        if type_ & NLA_TYPE_MASK in WANTED and type_ & NLA_TYPE_MASK in found:
            raise CodecError("twice")
        found[type_ & NLA_TYPE_MASK] = payload
    return [found.get(type_, b"") for type_ in WANTED]


@given(attributes())
@example((b"\0\0\0\0", 0))
@example((b"\3\0\0\0", 0))
@example((b"\5\0\3\0x", 0))
@example((b"\xff\xff\3\0", 0))
def test_attributes_are_found_where_they_are_when_all_are_split(case: tuple[bytes, int]) -> None:
    data, start = case
    wanted = numbers_of_attributes(WANTED)
    try:
        expected = found_by_splitting(data, start)
    except CodecError:
        with pytest.raises(CodecError):
            find_attributes(data, start, wanted)
    else:
        places = find_attributes(data, start, wanted)
        assert [data[begin:end] for begin, end in zip(places[::2], places[1::2], strict=True)] == expected

"""The kernel's trace buffer as bytes: pages of events, and the descriptions of their fields. Pure.

The binary form, not the text: a plugin that is measured chooses the names of its threads and of what it executes, and
with a line feed in one of them it could write lines of its own into the text.

    page     u64 time · commit (bytes used, and flags) · events
    event    u32 type_len:5 time_delta:27 · u32 array[] · data
    data     what the event's `format` file says; begins with u16 common_type, and has s32 common_pid

Source: Documentation/trace/ring-buffer-map.rst, events/header_page and header_event; include/linux/ring_buffer.h.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_TIME_SHIFT = 27
_TIME_MASK = (1 << _TIME_SHIFT) - 1
_SIZE_MASK = (1 << 20) - 1
_MISSED = 1 << 31
_PAGE_HEADER = struct.Struct("=QQ")
_FIELD = re.compile(r"\tfield:(.+?) (\w+)(?:\[[^]]*\])?;\toffset:(\d+);\tsize:(\d+);\tsigned:([01]);")
_INTEGERS = {1: "Bb", 2: "Hh", 4: "Ii", 8: "Qq"}
_STAMP_BITS = 59


class Field(NamedTuple):
    """One field of an event.

    Attributes:
        offset: Where it is, in bytes.
        size: How long it is.
        code: For `struct`; empty if it is no number.
        is_dynamic: Whether it says where a text is (__data_loc).
    """

    offset: int
    size: int
    code: str
    is_dynamic: bool


class Format(NamedTuple):
    """What an event consists of."""

    name: str
    number: int
    fields: dict[str, Field]


class Record(NamedTuple):
    """One event.

    Attributes:
        time_ns: Of the buffer's clock.
        pid: The thread in which it happened.
        name: Of the event.
        values: Of its fields: numbers, texts, and tuples of numbers.
    """

    time_ns: int
    pid: int
    name: str
    values: dict[str, "int | str | tuple[int, ...]"]


def parse_format(text: str) -> Format:
    """Read the `format` file of an event.

    Raises:
        ValueError: It is none.
    """
    name, number = re.search(r"^name: (\w+)$", text, re.M), re.search(r"^ID: (\d+)$", text, re.M)
    if name is None or number is None:
        raise ValueError("no description of an event")
    fields = {}
    for kind, field, offset, size, is_signed in _FIELD.findall(text):
        is_dynamic = kind.startswith("__data_loc")
        code = "I" if is_dynamic else _INTEGERS.get(int(size), "")[int(is_signed) :][:1]
        if not is_dynamic and int(size) > 8 and "long" in kind:
            code = f"{int(size) // 8}Q"
        fields[field] = Field(int(offset), int(size), code, is_dynamic)
    return Format(name[1], int(number[1]), fields)


def records(page: bytes, formats: dict[int, Format]) -> Iterator[Record]:
    """Read the events of a page; those that `formats` does not have are left out.

    Args:
        page: As a read of trace_pipe_raw gives it.
        formats: By number.

    Raises:
        ValueError: The page says that events were lost, or is no page.
    """
    if len(page) < _PAGE_HEADER.size:
        raise ValueError("too short for a page")
    time_ns, commit = _PAGE_HEADER.unpack_from(page)
    if commit & _MISSED:
        raise ValueError("events were lost")
    at, end = _PAGE_HEADER.size, _PAGE_HEADER.size + (commit & _SIZE_MASK)
    while at + 4 <= end:
        (word,) = struct.unpack_from("=I", page, at)
        kind, delta = word & 0x1F, word >> 5
        at += 4
        if kind == _TIME_EXTEND:
            time_ns += (struct.unpack_from("=I", page, at)[0] << _TIME_SHIFT) + delta
            at += 4
        elif kind == _TIME_STAMP:
            stamp = (struct.unpack_from("=I", page, at)[0] << _TIME_SHIFT) + delta
            # KERNEL: the upper five bits do not fit and are those of the page's time
            time_ns = stamp | (time_ns >> _STAMP_BITS << _STAMP_BITS)
            at += 4
        elif kind == _PADDING:
            if delta == 0:
                return
            at += struct.unpack_from("=I", page, at)[0]
        else:
            time_ns += delta
            length = 4 * kind
            if kind == 0:
                length = struct.unpack_from("=I", page, at)[0] - 4
                at += 4
            record = _record(time_ns, page[at : at + length], formats)
            if record is not None:
                yield record
            at += length


def _record(time_ns: int, data: bytes, formats: dict[int, Format]) -> Record | None:
    (number,) = struct.unpack_from("=H", data)
    if number not in formats:
        return None
    event = formats[number]
    values = {name: _value(data, field) for name, field in event.fields.items() if not name.startswith("common_")}
    (pid,) = struct.unpack_from("=i", data, event.fields["common_pid"].offset)
    return Record(time_ns, pid, event.name, values)


def _value(data: bytes, field: Field) -> "int | str | tuple[int, ...]":
    if field.is_dynamic:
        (place,) = struct.unpack_from("=I", data, field.offset)
        return _text(data[place & 0xFFFF : (place & 0xFFFF) + (place >> 16)])
    if not field.code:
        return _text(data[field.offset : field.offset + field.size])
    numbers = struct.unpack_from(f"={field.code}", data, field.offset)
    return numbers[0] if len(numbers) == 1 else numbers


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")

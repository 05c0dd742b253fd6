"""Strategies for netlink messages: values and bodies that a table can hold."""

from hypothesis import strategies as st

from cnisandbox.netlink import codec
from cnisandbox.netlink.codec import (
    HEADER,
    NLA_TYPE_MASK,
    UNKNOWN,
    Flag,
    Header,
    Many,
    Nested,
    NestedBy,
    Raw,
    Scalar,
    Sequence,
    Text,
)
from cnisandbox.netlink.structures import Consecutive, Counted, List, Mixed

IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.binary(min_size=16, max_size=16).map(codec.ADDRESS.unpack)
MAX_NESTING = 3  # how deep generated values go; veth's peer is a link again


def values(kind, siblings, depth):
    """Values that a kind can hold."""
    if isinstance(kind, Scalar):
        size = kind._struct.size * 8
        is_signed = kind._struct.format[-1].islower()
        return st.integers(-(2 ** (size - 1)), 2 ** (size - 1) - 1) if is_signed else st.integers(0, 2**size - 1)
    if isinstance(kind, Text):
        return st.binary(max_size=min(kind._limit, 20)).map(
            lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape")
        )
    if isinstance(kind, Raw):
        return st.binary(max_size=40)
    if isinstance(kind, Flag):
        return st.just(True)
    if isinstance(kind, codec.Address):
        return IPV4 | IPV6
    if isinstance(kind, codec.LinkLayerAddress):
        return st.binary(max_size=32).map(lambda raw: raw.hex(":"))
    if isinstance(kind, Header):
        return fields(kind)
    if isinstance(kind, Counted):
        items = st.lists(fields(kind._item), max_size=3)
        return st.builds(lambda head, rest: {**without(kind._count, head), kind.name: rest}, fields(kind._head), items)
    if isinstance(kind, Many):
        return st.lists(values(kind.kind, siblings, depth), min_size=1, max_size=4)
    if isinstance(kind, List | Consecutive):
        return st.lists(values(kind.kind, {}, depth + 1), max_size=3)
    if isinstance(kind, Sequence):
        item = bodies(kind.table, depth + 1).map(lambda body: {**body, HEADER: without(kind._length, body[HEADER])})
        return st.lists(item, max_size=3)
    if isinstance(kind, Nested):
        return bodies(kind.table, depth + 1)
    assert isinstance(kind, NestedBy)
    table = kind.tables.get(siblings.get(kind.selector), kind.default)
    return st.binary(max_size=20) if table is None else bodies(table, depth + 1)


def without(name, struct):
    return {field: value for field, value in struct.items() if field != name}


def fields(header):
    """Values of a struct."""
    if isinstance(header, Mixed):
        return st.tuples(*map(fields, header._parts)).map(
            lambda parts: {k: v for part in parts for k, v in part.items()}
        )
    limits = {letter: (0, 2**bits - 1) for letter, bits in (("B", 8), ("H", 16), ("I", 32), ("Q", 64))}
    limits |= {letter: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for letter, bits in (("b", 8), ("h", 16), ("i", 32))}
    letters = header._struct.format[1:].replace("16B", "B" * 16).replace("6I", "I" * 6)
    formats = [letter for letter in letters if letter != "x"]
    return st.fixed_dictionaries(
        {name: st.integers(*limits[letter]) for name, letter in zip(header.fields, formats, strict=True)}
    )


@st.composite
def bodies(draw, table, depth=0, context=None):
    """Header and attributes that a table can hold."""
    body = {}
    siblings = dict(context or {})
    selections = {kind.selector: kind.tables for _, kind in table.by_name.values() if isinstance(kind, NestedBy)}
    if table.header is not None:
        body[HEADER] = draw(fields(table.header))
        if ".family" in selections and draw(st.booleans()):
            body[HEADER]["family"] = draw(st.sampled_from([0, *selections[".family"]]))
        siblings = {f".{name}": value for name, value in body[HEADER].items()}
    names = sorted(table.by_name)
    chosen = draw(st.lists(st.sampled_from(names), unique=True, max_size=6)) if names else []
    if depth >= MAX_NESTING:
        chosen = [name for name in chosen if not table.by_name[name][1].nested]
    for name in sorted(chosen, key=lambda name: isinstance(table.by_name[name][1], NestedBy)):
        kind = table.by_name[name][1]
        if name in selections and draw(st.booleans()):
            body[name] = draw(st.sampled_from([key for key in selections[name] if key is not None]))
        else:
            body[name] = draw(values(kind, {**siblings, **body}, depth))
    free = st.integers(0, 0xFFFF).filter(lambda number: number & NLA_TYPE_MASK not in table.by_number)
    unknown = draw(st.lists(st.tuples(free, st.binary(max_size=20)), max_size=2))
    if unknown:
        body[UNKNOWN] = unknown
    return body

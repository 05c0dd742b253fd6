"""Patterns of names and paths of attributes: each form beside what it does not cover."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.policy.patterns import is_path_in, matches, paths_of, surplus_of


@given(st.text("ab*?-", max_size=6), st.text("ab*?-", max_size=6))
def test_a_pattern_says_what_the_same_regular_expression_says(name: str, pattern: str) -> None:
    signs = {"*": ".*", "?": "."}
    expression = "".join(signs.get(character) or re.escape(character) for character in pattern)
    assert matches(name, pattern) == bool(re.fullmatch(expression, name))


@pytest.mark.parametrize(
    ("path", "permitted", "is_covered"),
    [
        ("mtu", ("ifname", "mtu"), True),
        ("mtu", ("ifname",), False),
        ("mtu", ("*",), True),
        ("mtu", ("**",), False),
        ("a.b", ("a.*",), True),
        ("a.b", ("a",), False),
        ("a.b", ("*",), False),
        ("a.b.c", ("a.*",), False),
        ("a.b.c", ("a.**",), True),
        ("a.b.c", ("a.b.**",), True),
        ("ab.c", ("a.**",), False),
        ("a", ("a.**",), False),
        ("a.", ("a.b",), True),
        ("a.", ("a.*",), True),
        ("a.", ("a.**",), True),
        ("a.", ("a",), False),
        ("a.", ("ab.c",), False),
        ("a.b.", ("a.b.c.d",), True),
    ],
)
def test_a_path_is_covered_by_itself_its_level_or_what_is_above(
    path: str, permitted: tuple[str, ...], is_covered: bool
) -> None:
    assert is_path_in(path, permitted) is is_covered
    assert surplus_of(["x", path], ("x", *permitted)) == ("" if is_covered else path)


def test_paths_of_a_message_leave_headers_out_and_name_what_is_empty() -> None:
    attributes = {"mtu": 1, "info": {"header": {"index": 2}, "kind": "veth", "data": {}}, "hops": [{"oif": 1}, {}]}
    assert paths_of(attributes) == ["mtu", "info.kind", "info.data.", "hops.oif", "hops."]

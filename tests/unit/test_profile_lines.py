"""The line of every key and element of a TOML text is found, whatever it is written like."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.profile.lines import Path, find_lines

DOCUMENT = '''\
# a comment with key = "value" in it
plain = "text # no comment"
dotted.one."two words" = 1   # and one behind
'literal [key]' = """
several = 1
[lines] \\
"""
after = [ "a",
  # between
  "b", ["c",
  "d"], ]
inline = { x = 1, y.z = [1, 2] }
quotes = """ends with two quotes"""""
literal = \'\'\'one \\\' two
three\'\'\'
escaped = "\\"]#[\\\\"

[table]  # header
key = true

[[array]]
name = "first"
[array.sub]
deep = 1
[[array]]
name = "second"
[[array.nested]]
value = 1.5
[[array.nested]]
value = 1979-05-27T07:32:00Z
[ table . "other" ]
key = -inf
'''
EXPECTED: dict[Path, int] = {
    (): 1,
    ("plain",): 2,
    ("dotted",): 3,
    ("dotted", "one"): 3,
    ("dotted", "one", "two words"): 3,
    ("literal [key]",): 4,
    ("after",): 8,
    ("after", 0): 8,
    ("after", 1): 10,
    ("after", 2): 10,
    ("after", 2, 0): 10,
    ("after", 2, 1): 11,
    ("inline",): 12,
    ("inline", "x"): 12,
    ("inline", "y"): 12,
    ("inline", "y", "z"): 12,
    ("inline", "y", "z", 0): 12,
    ("inline", "y", "z", 1): 12,
    ("quotes",): 13,
    ("literal",): 14,
    ("escaped",): 16,
    ("table",): 18,
    ("table", "key"): 19,
    ("array",): 21,
    ("array", 0): 21,
    ("array", 0, "name"): 22,
    ("array", 0, "sub"): 23,
    ("array", 0, "sub", "deep"): 24,
    ("array", 1): 25,
    ("array", 1, "name"): 26,
    ("array", 1, "nested"): 27,
    ("array", 1, "nested", 0): 27,
    ("array", 1, "nested", 0, "value"): 28,
    ("array", 1, "nested", 1): 29,
    ("array", 1, "nested", 1, "value"): 30,
    ("table", "other"): 31,
    ("table", "other", "key"): 32,
}


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every path that leads somewhere in a document."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return {path}.union(*(paths(item, (*path, key)) for key, item in items))


def test_every_key_is_found_in_its_line() -> None:
    assert find_lines(DOCUMENT) == EXPECTED


def test_the_expectation_is_the_whole_document() -> None:
    assert EXPECTED.keys() == paths(tomllib.loads(DOCUMENT))


def test_line_ends_of_windows_count_once() -> None:
    assert find_lines(DOCUMENT.replace("\n", "\r\n")) == EXPECTED


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "a = 1", "[a]", "[[a]]", "a.b.c = {}", "a = []"])
def test_small_texts(text: str) -> None:
    assert find_lines(text).keys() == paths(tomllib.loads(text))


_STRINGS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)
_VALUES = st.recursive(
    st.integers(-9, 9) | st.booleans() | _STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_STRINGS, inner, max_size=3),
    max_leaves=8,
)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _written(value: Any, *, is_inline: bool) -> str:
    """Write a value as TOML; arrays go over several lines where they may."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_quoted(key)} = {_written(item, is_inline=True)}" for key, item in value.items()) + "}"
        )
    between = ", " if is_inline else ",  # ] a comment\n"
    return "[" + between.join(_written(item, is_inline=is_inline) for item in value) + "]"


@given(st.dictionaries(_STRINGS, _VALUES, max_size=4))
def test_whatever_toml_can_say_every_path_has_a_line(document: dict[str, Any]) -> None:
    text = "\n".join(f"{_quoted(key)} = {_written(value, is_inline=False)}" for key, value in document.items())
    assert tomllib.loads(text) == document
    assert find_lines(text).keys() == paths(document)

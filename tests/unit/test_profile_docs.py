"""docs/profiles.md: its examples are profiles, and its tables name what the code knows."""

import os
import re
from pathlib import Path

import pytest

from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile import source, words
from cnisandbox.profile.schema import ExtraCapability

PAGE = Path(__file__).parents[2] / "docs" / "profiles.md"


def section(name: str) -> str:
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /", PAGE.read_text(), re.DOTALL)
    assert found, name
    return found[1]


def first_cells(name: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", section(name), re.MULTILINE)


def example(name: str) -> str:
    return section(f"example: {name}").removeprefix("```toml\n").removesuffix("```\n")


@pytest.mark.parametrize("name", ["override", "plugin"])
def test_examples_are_profiles(name: str) -> None:
    assert source.examine_profile(example(name), name, "/x", "/x")[1] == []


def test_every_toml_block_is_an_example() -> None:
    assert PAGE.read_text().count("```toml") == PAGE.read_text().count("<!-- example: ") == 2


def test_keys_are_those_that_are_read() -> None:
    assert first_cells("keys: top") == [
        *("summary", "level", "include", "time_limit_s", "readable", "writable", "state", "programs", "raw_sockets"),
        *("devices", "unix_sockets", "netconf", "permit", "sysctl", "capability"),
    ]
    _, (problem,) = source.examine_profile('summary = "s"\nlevel = "root"\nx = 1\n', "x", "/x", "/x")
    known = problem.text.removeprefix("there is no such key; there are ").split(", ")
    assert sorted(first_cells("keys: top")) == known


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("permit", set(Permit._fields) - {"name"}),
        ("sysctl", set(SysctlPermit._fields) - {"name"}),
        ("capability", set(ExtraCapability._fields)),
    ],
)
def test_keys_of_the_tables_are_the_fields_of_the_records(name: str, fields: set[str]) -> None:
    assert set(first_cells(f"keys: {name}")) == fields


def test_words_for_links_are_those_that_are_read() -> None:
    assert set(first_cells("words: links")) == {*words.LINK_WORDS, "netconf:KEY", "name:PATTERN"}


def test_fragments_are_those_that_there_are() -> None:
    files = sorted(file.removesuffix(source.SUFFIX) for file in os.listdir(source.FRAGMENTS))
    assert first_cells("fragments") == files
    for name in files:
        text = source.read_text(os.path.join(source.FRAGMENTS, f"{name}.toml"))
        included = re.search(r"^include = \[(.*)\]$", text, re.MULTILINE)
        (row,) = (line for line in section("fragments").splitlines() if line.startswith(f"| `{name}` |"))
        wanted = re.findall(r'"(\w+)"', included[1]) if included else []
        assert [word for word in re.findall(r"`(\w+)`", row)[1:] if word in files] == wanted


def test_capabilities_are_those_that_may_be_kept() -> None:
    named = re.findall(r"CAP_\w+", section("keys: capability"))
    assert sorted(named) == sorted([*words.CAPABILITIES, *words.CAPABILITIES_BELOW_MEDIATED])

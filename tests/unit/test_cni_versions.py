"""V-1 to V-5: which versions there are, how they are written, which verb needs which."""

import pytest

from cnisandbox.cni.versions import (
    CURRENT,
    NUMBERED_ADDRESSES,
    ONE_ADDRESS_PER_FAMILY,
    SUPPORTED,
    family,
    parse_version,
    require,
)
from cnisandbox.errors import IncompatibleVersion, UndecodableInput


def test_v1_the_published_versions_are_supported_oldest_first():
    assert SUPPORTED == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def test_every_version_is_of_one_family():
    assert ONE_ADDRESS_PER_FAMILY + NUMBERED_ADDRESSES + CURRENT == SUPPORTED
    assert [family(version) for version in ("0.2.0", "0.3.0", "1.1.0")] == [
        ONE_ADDRESS_PER_FAMILY,
        NUMBERED_ADDRESSES,
        CURRENT,
    ]
    with pytest.raises(IncompatibleVersion):
        family("0.5.0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.1.0", (1, 1, 0)),
        ("1.2", (1, 2, 0)),
        ("3", (3, 0, 0)),
        ("", (0, 1, 0)),
        ("01.002.3", (1, 2, 3)),
        ("10.20.30", (10, 20, 30)),
    ],
)
def test_v5_a_version_is_one_to_three_numbers(text, expected):
    assert parse_version(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "1.1.0.0",
        "1..0",
        "1.",
        ".1",
        "v1.0.0",
        "1.0.0-rc1",
        "+1.0.0",
        "-1.0",
        " 1.0.0",
        "1.0.0\n",
        "1_0",
        "\u0661.0.0",
        "x",
        "1" * 5000,
    ],
)
def test_v5_anything_else_is_not_decodable(text):
    with pytest.raises(UndecodableInput, match=r"^decode cniVersion '.*: not a version$"):
        parse_version(text)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("version", SUPPORTED)
def test_add_and_delete_are_in_every_version(verb, version):
    require(verb, version)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
@pytest.mark.parametrize("version", ["1.0", "1.0.2", "0.1", "1.2.0", "9.9.9", "garbage", " 1.0.0", "", "1.1.0.0"])
def test_v2_a_version_is_compared_by_exact_text(verb, version):
    with pytest.raises(IncompatibleVersion) as error:
        require(verb, version)
    assert error.value.msg == "incompatible CNI versions"
    assert error.value.details == f"config is {version!r}, plugin supports {', '.join(SUPPORTED)}"


def test_v2_a_plugin_may_support_fewer():
    with pytest.raises(IncompatibleVersion) as error:
        require("ADD", "0.2.0", ("0.3.0", "0.3.1"))
    assert error.value.details == "config is '0.2.0', plugin supports 0.3.0, 0.3.1"


ALLOWED = {"CHECK": {"0.4.0", "1.0.0", "1.1.0"}, "GC": {"1.1.0"}, "STATUS": {"1.1.0"}}


@pytest.mark.parametrize("verb", ALLOWED)
@pytest.mark.parametrize("version", SUPPORTED)
def test_v4_a_verb_is_allowed_from_its_version_on(verb, version):
    if version in ALLOWED[verb]:
        require(verb, version)
        return
    with pytest.raises(IncompatibleVersion) as error:
        require(verb, version)
    assert error.value.msg == f"config version does not allow {verb}"


@pytest.mark.parametrize("verb", ALLOWED)
def test_v4_the_plugin_has_to_have_a_version_that_is_as_new_as_the_config(verb):
    with pytest.raises(IncompatibleVersion) as error:
        require(verb, "1.1.0", ("0.3.0", "1.0.0"))
    assert error.value.msg == f"plugin version does not allow {verb}"
    with pytest.raises(IncompatibleVersion, match=r"^incompatible CNI versions$"):
        require(verb, "1.1.0", ("1.0.0", "2.0.0"))


@pytest.mark.parametrize("verb", ALLOWED)
def test_v5_a_version_that_is_none_is_not_decodable_for_a_verb_that_needs_one(verb):
    with pytest.raises(UndecodableInput):
        require(verb, "garbage")

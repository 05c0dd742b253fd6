"""The CNI_* variables, as the entry validates them while it is root."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.boundary.environment import read_environment
from cnisandbox.boundary.levels import Level
from cnisandbox.errors import InvalidEnvironment

COMPLETE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/blue",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}


def refusal(**changes: str) -> InvalidEnvironment:
    with pytest.raises(InvalidEnvironment) as raised:
        read_environment({name: value for name, value in {**COMPLETE, **changes}.items() if value != "(unset)"})
    return raised.value


def test_a_complete_environment_is_read() -> None:
    environment = read_environment(COMPLETE)
    assert environment.verb == "ADD"
    assert environment.container_id == "c1"
    assert environment.netns_path == "/run/netns/blue"
    assert environment.ifname == "eth0"
    assert environment.plugin_dirs == ("/opt/cni/bin", "/usr/lib/cni")
    assert environment.level is Level.HARDENED
    assert not environment.may_share_netns
    assert environment.attest_path == ""


@pytest.mark.parametrize("verb", ["", "add", "ADD ", "LIST", "ADD\n"])
def test_an_unknown_verb_is_refused(verb: str) -> None:
    assert refusal(CNI_COMMAND=verb).msg == f"unknown CNI_COMMAND: {verb!r}"


@pytest.mark.parametrize(
    ("verb", "required"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", ["CNI_PATH"]),
        ("STATUS", []),
        ("VERSION", []),
    ],
)
def test_everything_that_a_verb_requires_is_missed_at_once(verb: str, required: list[str]) -> None:
    nothing = {name: "(unset)" for name in COMPLETE if name != "CNI_COMMAND"}
    if required:
        assert refusal(CNI_COMMAND=verb, **nothing).msg == f"required env variables [{','.join(required)}] missing"
    else:
        assert read_environment({"CNI_COMMAND": verb}).verb == verb


def test_verbs_without_an_attachment_do_not_look_at_one() -> None:
    environment = read_environment({**COMPLETE, "CNI_COMMAND": "GC", "CNI_IFNAME": "../..", "CNI_CONTAINERID": "/"})
    assert (environment.container_id, environment.ifname, environment.netns_path) == ("", "", "")


@pytest.mark.parametrize("value", ["-a", ".a", "_a", "a/b", "a b", "a\n", "é", "a\udcff", "../../etc"])
def test_a_container_id_of_other_characters_is_refused(value: str) -> None:
    assert refusal(CNI_CONTAINERID=value).msg == "invalid characters in containerID"


@pytest.mark.parametrize("value", ["a", "0", "A-b_c.d", "f" * 64])
def test_a_container_id_of_the_right_characters_is_read(value: str) -> None:
    assert read_environment({**COMPLETE, "CNI_CONTAINERID": value}).container_id == value


@pytest.mark.parametrize(
    "value", [".", "..", "a/b", "a:1", "a b", "a\t", "eth%d", "x" * 16, "é" * 8, "\udcff" * 16, "a\u2003b"]
)
def test_an_ifname_that_the_kernel_would_not_take_as_it_is_is_refused(value: str) -> None:
    assert "interface name" in refusal(CNI_IFNAME=value).msg


@pytest.mark.parametrize("value", ["eth0", "x" * 15, "é" * 7, "a.b-c_d", "..."])
def test_an_ifname_that_the_kernel_takes_is_read(value: str) -> None:
    assert read_environment({**COMPLETE, "CNI_IFNAME": value}).ifname == value


@pytest.mark.parametrize("value", ["MEDIATED", "ROOT", "none", "hardened ", "0"])
def test_an_unknown_level_is_refused_and_not_lowered(value: str) -> None:
    levels = "root, netadmin, hardened, mediated"
    assert refusal(CNISANDBOX_LEVEL=value).msg == f"CNISANDBOX_LEVEL: {value!r} is not one of {levels}"


@pytest.mark.parametrize("level", list(Level))
def test_a_known_level_is_read(level: Level) -> None:
    assert read_environment({**COMPLETE, "CNISANDBOX_LEVEL": level.value}).level is level


@given(st.dictionaries(st.sampled_from([*COMPLETE, "CNISANDBOX_LEVEL", "CNI_NETNS_OVERRIDE"]), st.text(max_size=30)))
def test_any_environment_is_read_or_refused(variables: dict[str, str]) -> None:
    try:
        environment = read_environment({**COMPLETE, **variables})
    except InvalidEnvironment:
        return
    assert isinstance(environment.level, Level)
    assert len(environment.ifname.encode("utf-8", "surrogateescape")) <= 15
    assert not set(environment.container_id) & set("/ \0\n")

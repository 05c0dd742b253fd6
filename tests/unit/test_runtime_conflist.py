"""Network configuration files are found and read as libcni finds and reads them (C-1 to C-8, C-11)."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.errors import CniError, InvalidConfig, IoFailure
from cnisandbox.runtime import conflist

ONE = {"type": "bridge"}


def write(directory: Path, name: str, content: Any) -> str:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def network(**members: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "lab", "plugins": [ONE]} | members


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in network().items() if name != key}


def test_the_name_inside_the_file_decides(tmp_path: Path) -> None:
    write(tmp_path, "10-lab.conflist", network(name="other"))
    path = write(tmp_path, "20-whatever.conflist", network())
    assert conflist.load_network(str(tmp_path), "lab").source == path


def test_first_file_by_name_wins(tmp_path: Path) -> None:
    write(tmp_path, "20.conflist", network(plugins=[{"type": "second"}]))
    write(tmp_path, "10.conflist", network(plugins=[{"type": "first"}]))
    assert conflist.load_network(str(tmp_path), "lab").plugins[0].type == "first"


@pytest.mark.parametrize("suffix", ["conf", "json"])
def test_conflist_is_preferred_to_a_single_plugin_file(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"10.{suffix}", {"name": "lab", "type": "single"})
    write(tmp_path, "20.conflist", network())
    assert conflist.load_network(str(tmp_path), "lab").plugins[0].type == "bridge"


@pytest.mark.parametrize("suffix", ["conf", "json"])
def test_single_plugin_file_becomes_a_list_of_one(tmp_path: Path, suffix: str) -> None:
    config = {"cniVersion": "0.4.0", "name": "old", "type": "ptp", "mtu": 1400}
    write(tmp_path, f"10.{suffix}", config)
    found = conflist.load_network(str(tmp_path), "old")
    assert (found.name, found.version, [entry.config for entry in found.plugins]) == ("old", "0.4.0", [config])
    assert json.loads(found.raw) == {"cniVersion": "0.4.0", "name": "old", "plugins": [config]}


def test_nested_directories_and_other_suffixes_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "sub/10.conflist", network())
    write(tmp_path, "10.conflist.bak", "garbage")
    (tmp_path / "20.conflist").mkdir()
    with pytest.raises(InvalidConfig, match="there is no network configuration"):
        conflist.load_network(str(tmp_path), "lab")


def test_only_the_part_after_the_last_dot_is_the_suffix(tmp_path: Path) -> None:
    write(tmp_path, "10.conf.conflist", network())
    write(tmp_path, "20.conflist.conf", {"name": "single", "type": "ptp"})
    assert conflist.load_network(str(tmp_path), "lab").name == "lab"
    assert conflist.load_network(str(tmp_path), "single").plugins[0].type == "ptp"


def test_malformed_file_on_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, "10.conflist", "{")
    write(tmp_path, "20.conflist", network())
    with pytest.raises(InvalidConfig, match=path):
        conflist.load_network(str(tmp_path), "lab")


def test_malformed_file_behind_the_wanted_one_does_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "10.conflist", network())
    write(tmp_path, "20.conflist", "{")
    assert conflist.load_network(str(tmp_path), "lab").name == "lab"


def test_unknown_network_names_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, "10.conflist", network())
    with pytest.raises(InvalidConfig, match="not in") as caught:
        conflist.load_network(str(tmp_path), "nope")
    assert "networks there: lab" in caught.value.details


def test_missing_directory_is_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="there is no network configuration") as caught:
        conflist.load_network(str(tmp_path / "missing"), "lab")
    assert "--conf-dir" in caught.value.details


def test_directory_that_is_a_file_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(IoFailure, match="not a directory"):
        conflist.load_network(write(tmp_path, "file", ""), "lab")


def test_load_directory_gives_networks_and_errors(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "10.conflist", network()), write(tmp_path, "20.conflist", "[]")
    single = write(tmp_path, "05.conf", {"name": "old", "type": "ptp"})
    found = conflist.load_directory(str(tmp_path))
    assert [path for path, _ in found] == [good, bad, single]
    assert [isinstance(entry, CniError) for _, entry in found] == [False, True, False]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, "1.0.0"),
        ({"cniVersion": ""}, "0.1.0"),
        ({"cniVersion": "0.3.1", "cniVersions": []}, "0.3.1"),
        ({"cniVersion": "0.3.1", "cniVersions": ["0.4.0", "1.0.0", "0.2.0"]}, "1.0.0"),
        ({"cniVersion": "1.1.0", "cniVersions": ["1.0.0"]}, "1.1.0"),
        ({"cniVersion": "0.4.0", "cniVersions": ["1.2.0", "1.0.0", "99.0"]}, "1.0.0"),
        ({"cniVersion": "1.0.0", "cniVersions": ["2.0.0"]}, "1.0.0"),
        ({"cniVersion": "2.1.0", "cniVersions": ["2.0.0"]}, "2.1.0"),
        ({"cniVersion": "0.3.1", "cniVersions": ["0.10.0", "0.9.0"]}, "0.10.0"),
    ],
)
def test_highest_version_that_we_speak_is_chosen(members: dict[str, Any], expected: str) -> None:
    assert conflist.parse_list(json.dumps(network(**members)).encode(), "test").version == expected


def test_missing_version_is_the_oldest() -> None:
    assert conflist.parse_list(json.dumps(without("cniVersion")).encode(), "test").version == "0.1.0"


@pytest.mark.parametrize("key", ["disableCheck", "disableGC"])
@pytest.mark.parametrize(
    ("written", "expected"), [(True, True), (False, False), ("true", True), ("TRUE", True), ("False", False)]
)
def test_switches_may_be_written_as_strings(key: str, written: object, expected: bool) -> None:
    found = conflist.parse_list(json.dumps(network(**{key: written})).encode(), "test")
    assert {"disableCheck": found.disable_check, "disableGC": found.disable_gc}[key] is expected


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"null", "expected a JSON object"),
        (b"[]", "expected a JSON object"),
        (b'{"name": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (without("name"), "name: missing"),
        (network(name=5), "name: expected a string"),
        (network(cniVersion=1), "cniVersion: expected a string"),
        (network(cniVersions="1.0.0"), "cniVersions: expected an array"),
        (network(cniVersions=[1]), r"cniVersions\[0\]: expected a string"),
        (network(cniVersions=["1.0.0.0"]), "'1.0.0.0' is not a version"),
        (network(cniVersion="x", cniVersions=["1.0.0"]), "'x' is not a version"),
        (network(disableCheck=1), "disableCheck: expected true or false"),
        (network(disableGC="yes"), "disableGC: expected true or false"),
        (network(loadOnlyInlinedPlugins=None), "loadOnlyInlinedPlugins: expected true or false"),
        (network(plugins={}), "plugins: expected an array"),
        (network(plugins=[]), "plugins: the array is empty"),
        (network(plugins=["bridge"]), r"plugins\[0\]: expected an object"),
        (network(plugins=[ONE, {}]), r"plugins\[1\].type: missing"),
        (network(plugins=[{"type": 5}]), r"plugins\[0\].type: expected a string"),
        (network(plugins=[{"type": "../bridge"}]), r"plugins\[0\].type: '../bridge' is a path"),
        (network(plugins=[ONE | {"capabilities": []}]), r"plugins\[0\].capabilities: expected an object"),
        (
            network(plugins=[ONE | {"capabilities": {"ips": 1}}]),
            r"plugins\[0\].capabilities.ips: expected true or false",
        ),
        (without("plugins"), "plugins: none"),
        (without("plugins") | {"loadOnlyInlinedPlugins": True}, "there is no key plugins"),
    ],
)
def test_malformed_list_is_refused_with_file_and_field(document: Any, field: str) -> None:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(InvalidConfig, match=f"load 'some.conflist': .*{field}") as caught:
        conflist.parse_list(raw, "some.conflist")
    assert caught.value.details, "says what to do"


def test_plugin_keys_are_matched_in_any_case() -> None:
    raw = json.dumps(network(plugins=[{"TYPE": "bridge", "Capabilities": {"ips": True, "mac": False}}])).encode()
    (entry,) = conflist.parse_list(raw, "test").plugins
    assert (entry.type, entry.capabilities) == ("bridge", frozenset({"ips"}))


class TestPluginsBesideTheList:
    """The matrix of loadOnlyInlinedPlugins: plugins in the file, plugins in the directory beside it."""

    @pytest.mark.parametrize(
        ("inlined", "beside", "only_inlined", "expected"),
        [
            (["a"], [], False, ["a"]),
            (["a"], ["x", "y"], False, ["a", "x", "y"]),
            (["a"], ["x"], True, ["a"]),
            (None, ["x"], False, ["x"]),
            (None, ["x"], True, None),
            (None, [], False, None),
        ],
    )
    def test_matrix(
        self,
        tmp_path: Path,
        inlined: list[str] | None,
        beside: list[str],
        only_inlined: bool,
        expected: list[str] | None,
    ) -> None:
        members = without("plugins") | {"loadOnlyInlinedPlugins": only_inlined}
        if inlined is not None:
            members["plugins"] = [{"type": name} for name in inlined]
        path = write(tmp_path, "10.conflist", members)
        for name in beside:
            write(tmp_path, f"lab/{name}.conf", {"type": name})
        if expected is None:
            with pytest.raises(InvalidConfig, match=path):
                conflist.load_file(path)
        else:
            assert [entry.type for entry in conflist.load_file(path).plugins] == expected

    def test_only_conf_files_directly_in_the_directory_count(self, tmp_path: Path) -> None:
        path = write(tmp_path, "10.conflist", network())
        for name in ("lab/x.json", "lab/y.conflist", "lab/sub/z.conf", "other/w.conf"):
            write(tmp_path, name, {"type": "unexpected"})
        assert [entry.type for entry in conflist.load_file(path).plugins] == ["bridge"]

    def test_malformed_one_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        path = write(tmp_path, "10.conflist", network())
        beside = write(tmp_path, "lab/x.conf", {"mtu": 5})
        with pytest.raises(InvalidConfig, match=f"{beside}.*type: missing"):
            conflist.load_file(path)

    def test_name_cannot_lead_out_of_the_directory(self, tmp_path: Path) -> None:
        write(tmp_path, "x.conf", {"type": "unexpected"})
        path = write(tmp_path, "net.d/10.conflist", network(name=".."))
        assert [entry.type for entry in conflist.load_file(path).plugins] == ["bridge"]

    def test_raw_form_says_everything_by_itself(self, tmp_path: Path) -> None:
        path = write(tmp_path, "10.conflist", network())
        write(tmp_path, "lab/x.conf", {"type": "x", "mtu": 5})
        found = conflist.parse_list(conflist.load_file(path).raw, "cache")
        assert [entry.config for entry in found.plugins] == [ONE, {"type": "x", "mtu": 5}]


def test_raw_form_of_a_file_is_the_file(tmp_path: Path) -> None:
    text = '{ "cniVersion": "1.0.0",\n "name": "lab", "plugins": [{"type": "bridge"}] }\n'
    assert conflist.load_file(write(tmp_path, "10.conflist", text)).raw == text.encode()


@pytest.mark.parametrize("name", ["", "-lab", "a/b", "lab\n", "läb", "a b"])
def test_name_that_cni_does_not_allow_is_refused_when_it_is_used(name: str) -> None:
    found = conflist.parse_list(json.dumps(network(name=name)).encode(), "test")
    with pytest.raises(InvalidConfig, match="characters that CNI does not allow"):
        found.check_name()

"""`cnisandbox profile` shows what there is, and says everything that is wrong, for people and for programs."""

import json
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cli.main import main
from cnisandbox.profile import load, packaged
from cnisandbox.profile.schema import from_plain, to_plain

MINE = 'summary = "Mine \\u001b[31m"\nlevel = "hardened"\n'


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "profiles.d"
    path.mkdir()
    monkeypatch.setattr(load, "DIRECTORY", str(path))
    monkeypatch.setattr(load, "_CACHE", str(tmp_path / "cache"))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> str:
    assert main(["profile", *arguments]) == expect
    return capsys.readouterr().out


def test_list_names_each_profile_with_level_and_source(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "bridge.toml").write_text(MINE)
    lines = run(capsys, "list").splitlines()
    assert lines[0].split() == ["PROFILE", "LEVEL", "SOURCE", "SUMMARY"]
    found = {line.split()[0]: line for line in lines[1:]}
    assert found.keys() == packaged.PROFILES.keys()
    assert found["ptp"].split()[1:3] == ["mediated", "package"]
    assert found["bridge"].split()[1:3] == ["hardened", str(directory / "bridge.toml")]
    assert "Mine \\x1b[31m (replaces the package's)" in found["bridge"]


def test_list_goes_on_behind_a_profile_that_cannot_be_used(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "aaa.toml").write_text("x = 1\n")
    lines = run(capsys, "list", expect=1).splitlines()
    assert lines[1].startswith("aaa")
    assert "cannot be used: read profile" in lines[1]
    assert len(lines) == 2 + len(packaged.PROFILES)


def test_list_for_programs(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "aaa.toml").write_text("x = 1\n")
    document = {entry["name"]: entry for entry in json.loads(run(capsys, "list", "--json", expect=1))}
    assert document["aaa"]["error"]["code"] == 106
    assert document["bridge"] == {
        "name": "bridge",
        "source": "package",
        "replaces": False,
        "level": "mediated",
        "summary": "Connects the container to a bridge of the host by a veth pair",
    }


@pytest.mark.parametrize("name", sorted(packaged.PROFILES))
def test_show_says_everything_of_a_profile(directory: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "show", name)
    words = " ".join(shown.split())
    profile = load.load_profile(name)
    for permit in profile.permits:
        assert f"{permit.name} {permit.reason}" in words
        for values in permit[1:-1]:
            assert all(value in words for value in values)
    for sysctl in profile.sysctls:
        assert f"{sysctl.name} {sysctl.reason} in {' and '.join(sysctl.netns)} {sysctl.access} {sysctl.key}" in words
    for values in (profile.programs, profile.state, profile.readable, profile.writable, profile.devices):
        assert all(value in words for value in values)
    for capability in profile.capabilities:
        assert f"keeps {capability.name} {capability.reason}" in words


def test_show_for_programs_has_every_field(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document: dict[str, Any] = json.loads(run(capsys, "show", "--json", "bridge"))
    profile = load.load_profile("bridge")
    assert list(document) == list(profile._fields)
    assert document["permits"][0] == {
        "name": "container:1",
        "netns": ["container"],
        "messages": ["RTM_GETLINK"],
        "links": ["any"],
        "attributes": ["ifname", "alt_ifname", "ext_mask"],
        "reason": "finds links of the container, by name or all of them",
    }
    assert from_plain(to_plain(profile)) == profile


def test_show_of_an_unknown_one_fails(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "show", "nothing"]) == 1
    assert "load profile 'nothing': there is no profile of that name" in capsys.readouterr().err


def test_check_reads_every_profile(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check").strip() == f"nothing is wrong with {', '.join(sorted(packaged.PROFILES))}"


def test_check_says_everything_that_is_wrong(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "bridge.toml"
    path.write_text(MINE + 'typo = 1\nreadable = ["x"]\n')
    lines = run(capsys, "check", expect=1).splitlines()
    assert lines[0].startswith(f"{path}: line 3: typo: there is no such key; there are ")
    assert lines[1] == f"{path}: line 4: readable[0]: 'x' is not an absolute path in its shortest form"
    assert lines[2] == f"1 cannot be used, {len(packaged.PROFILES) - 1} can"


def test_check_takes_names_and_files(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.toml"
    path.write_text(MINE)
    assert run(capsys, "check", "ptp", str(path)).strip() == "nothing is wrong with ptp, other"
    path.chmod(0o666)
    (found,) = json.loads(run(capsys, "check", "--json", str(path), expect=1))
    assert found["problems"][0]["text"].endswith("somebody else than root may write to it")


def test_check_for_programs(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "mine.toml"
    path.write_text(MINE + "typo = 1\n")
    (found,) = json.loads(run(capsys, "check", "--json", "mine", expect=1))
    assert (found["name"], found["path"]) == ("mine", str(path))
    (problem,) = found["problems"]
    assert (problem["path"], problem["line"], problem["key"]) == (str(path), 3, "typo")


def test_check_of_a_file_that_is_not_there_names_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    assert run(capsys, "check", str(path), expect=1).splitlines() == [
        f"load profile {str(path)!r}: no such file or directory",
        "1 cannot be used, 0 can",
    ]


def test_check_of_an_unknown_one_fails(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "check", "nothing"]) == 1
    assert "there is no profile of that name" in capsys.readouterr().err

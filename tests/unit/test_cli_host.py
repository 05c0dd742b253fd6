"""What install changes on the machine besides the plugin directory."""

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnisandbox.cli import host, install
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cnisandbox"
    monkeypatch.setattr(host, "CONFIG_DIRECTORY", directory)
    monkeypatch.setattr(host, "STATE_DIRS_FILE", directory / "state-dirs")
    return directory


class TestServiceUser:
    def pretend(self, monkeypatch: pytest.MonkeyPatch, *answers: object) -> None:
        remaining = list(answers)

        def getpwnam(_name: str) -> object:
            answer = remaining.pop(0)
            if answer is None:
                raise KeyError
            return answer

        monkeypatch.setattr(pwd, "getpwnam", getpwnam)

    def test_existing_one_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretend(monkeypatch, SimpleNamespace(pw_uid=999, pw_gid=999))
        assert host.ensure_service_user() == ("unchanged", "user cnisandbox", "uid 999")

    @pytest.mark.parametrize(("uid", "gid"), [(0, 999), (999, 0)])
    def test_root_by_another_name_is_refused(self, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int) -> None:
        self.pretend(monkeypatch, SimpleNamespace(pw_uid=uid, pw_gid=gid))
        with pytest.raises(InvalidConfig, match="uid or gid is 0"):
            host.ensure_service_user()

    def test_missing_one_is_made_as_a_system_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretend(monkeypatch, None, SimpleNamespace(pw_uid=998, pw_gid=998))
        commands: list[list[str]] = []

        def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        assert host.ensure_service_user().what == "made"
        assert {"--system", "--user-group", "--shell=/usr/sbin/nologin", "cnisandbox"} <= set(commands[0])

    def test_failure_of_useradd_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretend(monkeypatch, None)
        answer = subprocess.CompletedProcess([], 1, "", "useradd: cannot lock /etc/passwd; try again later.\n")
        monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: answer)
        with pytest.raises(IoFailure, match="cannot lock /etc/passwd"):
            host.ensure_service_user()

    def test_missing_useradd_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pretend(monkeypatch, None)
        monkeypatch.setattr(shutil, "which", lambda _name: None)
        with pytest.raises(IoFailure, match="there is no useradd"):
            host.ensure_service_user()


class TestStateDirs:
    def test_lines_are_added_once_and_others_stay(self, config: Path) -> None:
        host.ensure_config_directory()
        (config / "state-dirs").write_text("# ours\n/srv/a  # why\n\n")
        new = str(config.parent / "deep" / "new")
        changes = host.add_state_dirs(["/srv/a", new, new])
        assert [(change.what, change.name) for change in changes] == [("unchanged", "/srv/a"), ("allowed", new)]
        assert (config / "state-dirs").read_text() == f"# ours\n/srv/a  # why\n{new}\n"
        assert host.read_state_dirs() == ["/srv/a", new]
        assert os.listdir(config) == ["state-dirs"]
        assert os.path.isdir(new)

    def test_file_does_not_grow_beyond_what_the_entry_reads(self, config: Path) -> None:
        host.ensure_config_directory()
        with pytest.raises(InvalidConfig, match="longer than 4096 bytes"):
            host.add_state_dirs([str(config / f"{number:0200}") for number in range(20)])
        assert not (config / "state-dirs").exists()

    def test_new_file_says_what_it_is_for(self, config: Path) -> None:
        host.ensure_config_directory()
        host.add_state_dirs([str(config.parent)])
        assert (config / "state-dirs").read_text().startswith("# Directories in which host-local may keep its state")
        assert stat.S_IMODE((config / "state-dirs").stat().st_mode) == 0o644

    def test_nothing_to_add_makes_no_file(self, config: Path) -> None:
        host.ensure_config_directory()
        assert host.add_state_dirs([]) == []
        assert os.listdir(config) == []
        assert host.read_state_dirs() == []

    @pytest.mark.parametrize("path", ["relative", "/", "//", "/a/../b", "/a/", "/a#b", "/a\nb", "/a ", ""])
    def test_path_that_the_file_cannot_hold_is_refused(self, config: Path, path: str) -> None:
        host.ensure_config_directory()
        with pytest.raises(InvalidConfig, match="allow state directory"):
            host.add_state_dirs(["/srv/ok", path])
        assert os.listdir(config) == []


def test_config_directory_is_readable_by_all_whatever_the_umask(config: Path) -> None:
    old = os.umask(0o077)
    try:
        assert host.ensure_config_directory().what == "made"
    finally:
        os.umask(old)
    assert stat.S_IMODE(config.stat().st_mode) == 0o755
    assert host.ensure_config_directory().what == "unchanged"


def test_package_is_compiled_with_its_plugins() -> None:
    change = host.compile_package()
    assert change.what == "compiled"
    plugins = Path(change.name) / "plugins"
    assert list(plugins.resolve().glob("__pycache__/host_local.*.pyc"))


@pytest.mark.parametrize("operation", ["install", "uninstall", "doctor"])
def test_without_root_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, lambda: 1000)
    with pytest.raises(InvalidEnvironment, match=f"{operation}: not root") as caught:
        install.require_root(operation)
    assert "sudo" in caught.value.details


def test_rights_lent_by_a_setuid_program_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(InvalidEnvironment, match="setuid"):
        install.require_root("install")

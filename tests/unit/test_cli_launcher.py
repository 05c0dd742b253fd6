"""Launchers get into a directory and out of it without losing anybody's file."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnisandbox.cli import build, launcher
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure

FOREIGN = b"\x7fELF somebody else's plugin"
SAVED = "bridge" + launcher.SAVED_SUFFIX


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "bin"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def directory_fd(directory: Path) -> Iterator[int]:
    with launcher.opened(str(directory)) as fd:
        yield fd


def install(directory_fd: int, name: str = "bridge", *, force: bool = False) -> launcher.Change:
    launcher.require_installable(directory_fd, name, force=force)
    return launcher.install(directory_fd, name, "bridge")


def foreign(directory: Path, content: bytes = FOREIGN, mode: int = 0o755) -> Path:
    path = directory / "bridge"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_plugins_are_the_files_of_the_package() -> None:
    names = launcher.plugin_names()
    assert "host-local" in names
    assert names == sorted(names)
    assert not any(name.startswith("_") for name in names)


def started(path: Path, environment: dict[str, str], *arguments: str, cwd: Path | None = None) -> str:
    path.chmod(0o755)
    done = subprocess.run(
        [path, *arguments], check=True, capture_output=True, text=True, cwd=cwd, env=environment, timeout=30
    )
    return done.stdout


class TestContent:
    def test_it_is_a_program_that_starts_this_interpreter_isolated_and_without_site(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shown = "import sys; print(sys.executable, sys.flags.isolated, sys.flags.no_site, *sys.argv)"
        monkeypatch.setattr(launcher, "script", lambda _plugin: shown)
        path = tmp_path / "bridge"
        path.write_bytes(launcher.render("bridge"))
        assert path.read_bytes().startswith(b"\x7fELF")
        assert path.read_bytes().endswith(b"\n# cnisandbox plugin: bridge\n")
        assert started(path, {}, "a", "b c") == f"{os.path.realpath(sys.executable)} 1 1 -c a b c\n"

    def test_it_finds_the_package_and_its_extensions_and_nothing_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = launcher.script("bridge")
        text = text.replace("from cnisandbox.plugins.bridge import main", "import _cffi_backend, cnisandbox")
        text = text.replace("\nmain()", "\nprint(sys.path, sys.flags.isolated, sys.flags.no_site)")
        monkeypatch.setattr(launcher, "script", lambda _plugin: text)
        path = tmp_path / "bridge"
        path.write_bytes(launcher.render("bridge"))
        (tmp_path / "_cffi_backend.py").write_text("raise SystemExit('imported from the working directory')")
        shown = started(path, {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
        assert shown.endswith("1 1\n")
        assert str(tmp_path) not in shown

    def test_the_standard_library_comes_before_the_packages_directory(self) -> None:
        assert b"\nsys.path += [" in launcher.render("bridge")

    def test_it_gets_the_environment_of_its_caller(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launcher, "script", lambda _plugin: "import os; print(sorted(os.environ.items()))")
        path = tmp_path / "bridge"
        path.write_bytes(launcher.render("bridge"))
        given = {"CNI_COMMAND": "ADD", "CNISANDBOX_COLD": "1", "LC_ALL": "C"}
        assert started(path, given) == f"{sorted(given.items())}\n"

    def test_settings_are_those_of_this_build(self, directory_fd: int, directory: Path) -> None:
        install(directory_fd)
        build_id = build.build_id(str(launcher.package_directory()))
        expected = launcher.Settings("bridge", build_id, "/run/cnisandbox/zygote/bridge")
        assert launcher.settings_of(directory_fd, "bridge") == expected
        foreign(directory)
        assert launcher.settings_of(directory_fd, "bridge") is None

    def test_build_is_the_same_by_every_name_of_the_interpreter_and_another_in_another_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        ids = []
        for name in ("first/python", "first/python3", "second/python"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).symlink_to("/usr/bin/python3")
            monkeypatch.setattr(sys, "executable", str(tmp_path / name))
            ids.append(build.build_id(str(tmp_path)))
        assert ids[0] == ids[1] != ids[2]

    def test_build_is_another_when_any_file_of_code_is(self, tmp_path: Path) -> None:
        (tmp_path / "part").mkdir()
        before = {build.build_id(str(tmp_path))}
        for name, text in (("a.py", "1"), ("a.py", "2"), ("part/b.so", "1"), ("part/c.py", "1")):
            (tmp_path / name).write_text(text)
            assert build.build_id(str(tmp_path)) not in before
            before.add(build.build_id(str(tmp_path)))
        (tmp_path / "note.txt").write_text("1")
        assert build.build_id(str(tmp_path)) in before

    @pytest.mark.parametrize("interpreter", ["python3", "", "./python3", "/" + "x" * 511, "/opt/a\0b/python"])
    def test_interpreter_that_no_launcher_can_start_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, interpreter: str
    ) -> None:
        monkeypatch.setattr(sys, "executable", interpreter)
        with pytest.raises(InvalidEnvironment, match=r"no absolute path of an interpreter|does not fit into 512 bytes"):
            launcher.render("bridge")

    @pytest.mark.parametrize("length", [0, 511])
    def test_interpreter_is_started_whatever_its_path_up_to_the_longest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
    ) -> None:
        parent = tmp_path / "a b"
        while len(str(parent / "echo")) < length:
            parent /= "d" * min(200, length - len(str(parent)) - len("//echo"))
        parent.mkdir(parents=True)
        (parent / "echo").symlink_to("/bin/echo")
        assert len(str(parent / "echo")) == length or not length
        monkeypatch.setattr(sys, "executable", str(parent / "echo"))
        monkeypatch.setattr(launcher, "script", lambda _plugin: "the script")
        path = tmp_path / "bridge"
        path.write_bytes(launcher.render("bridge"))
        assert started(path, {}, "an argument") == "-IS -c the script an argument\n"

    def test_program_that_was_not_built_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(launcher, "package_directory", lambda: tmp_path)
        with pytest.raises(InvalidEnvironment, match=r"write launcher 'bridge': .*launcher: no such file") as caught:
            launcher.render("bridge")
        assert "make setup" in caught.value.details


class TestInstall:
    def test_launcher_is_executable_and_belongs_to_root(self, directory: Path, directory_fd: int) -> None:
        assert install(directory_fd).what == "installed"
        status = (directory / "bridge").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
        assert os.listdir(directory) == ["bridge"]

    def test_umask_does_not_matter(self, directory: Path, directory_fd: int) -> None:
        old = os.umask(0o077)
        try:
            install(directory_fd)
        finally:
            os.umask(old)
        assert stat.S_IMODE((directory / "bridge").stat().st_mode) == 0o755

    def test_second_install_changes_nothing(self, directory: Path, directory_fd: int) -> None:
        install(directory_fd)
        before = (directory / "bridge").stat()
        assert install(directory_fd).what == "unchanged"
        assert (directory / "bridge").stat().st_ino == before.st_ino

    @pytest.mark.parametrize("spoil", ["content", "mode"])
    def test_launcher_of_another_time_is_updated(self, directory: Path, directory_fd: int, spoil: str) -> None:
        install(directory_fd)
        path = directory / "bridge"
        if spoil == "content":
            build_id = build.build_id(str(launcher.package_directory()))
            path.write_bytes(path.read_bytes().replace(build_id, b"x" * len(build_id)))
        else:
            path.chmod(0o700)
        assert install(directory_fd).what == "updated"
        assert path.read_bytes() == launcher.render("bridge")
        assert stat.S_IMODE(path.stat().st_mode) == 0o755

    def test_launcher_that_is_a_script_is_updated(self, directory: Path, directory_fd: int) -> None:
        path = foreign(directory, b"#!/opt/python -IS\n# cnisandbox plugin: bridge\nimport sys\n")
        assert launcher.plugin_of(directory_fd, "bridge") == "bridge"
        assert install(directory_fd).what == "updated"
        assert path.read_bytes() == launcher.render("bridge")
        assert os.listdir(directory) == ["bridge"]

    def test_foreign_file_is_not_touched(self, directory: Path, directory_fd: int) -> None:
        path = foreign(directory)
        with pytest.raises(InvalidEnvironment, match="a file of that name which cnisandbox did not make") as caught:
            install(directory_fd)
        assert "--force" in caught.value.details
        assert path.read_bytes() == FOREIGN

    def test_foreign_file_is_kept_aside_with_force(self, directory: Path, directory_fd: int) -> None:
        inode = foreign(directory).stat().st_ino
        assert install(directory_fd, force=True).what == "replaced"
        assert sorted(os.listdir(directory)) == ["bridge", SAVED]
        assert (directory / SAVED).stat().st_ino == inode

    def test_force_again_does_not_save_the_launcher(self, directory: Path, directory_fd: int) -> None:
        foreign(directory)
        install(directory_fd, force=True)
        install(directory_fd, force=True)
        assert (directory / SAVED).read_bytes() == FOREIGN

    def test_newer_foreign_file_replaces_the_saved_one(self, directory: Path, directory_fd: int) -> None:
        foreign(directory, b"old")
        install(directory_fd, force=True)
        (directory / "bridge").unlink()
        foreign(directory, b"new, from the package manager")
        install(directory_fd, force=True)
        assert (directory / SAVED).read_bytes() == b"new, from the package manager"

    @pytest.mark.parametrize("mode", [0o4755, 0o2755])
    def test_setuid_file_is_refused_even_with_force(self, directory: Path, directory_fd: int, mode: int) -> None:
        foreign(directory, mode=mode)
        with pytest.raises(InvalidEnvironment, match="a setuid file"):
            install(directory_fd, force=True)

    def test_directory_is_refused_even_with_force(self, directory: Path, directory_fd: int) -> None:
        (directory / "bridge").mkdir()
        with pytest.raises(InvalidEnvironment, match="a directory"):
            install(directory_fd, force=True)

    def test_link_is_kept_aside_as_a_link(self, directory: Path, directory_fd: int) -> None:
        target = directory / "target"
        target.write_bytes(FOREIGN)
        (directory / "bridge").symlink_to("target")
        install(directory_fd, force=True)
        assert os.readlink(directory / SAVED) == "target"
        assert target.read_bytes() == FOREIGN
        launcher.uninstall(directory_fd, "bridge")
        assert os.readlink(directory / "bridge") == "target"

    def test_failure_leaves_what_was_there(
        self, directory: Path, directory_fd: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = foreign(directory)

        def fail(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            install(directory_fd, force=True)
        assert path.read_bytes() == FOREIGN

    @pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
    def test_directory_that_others_may_write_is_refused(self, directory: Path, mode: int) -> None:
        directory.chmod(mode)
        with pytest.raises(InvalidEnvironment, match="others than root may write") as caught:
            launcher.require_safe_directory(str(directory))
        assert "chmod go-w" in caught.value.details

    def test_directory_below_one_that_others_may_write_is_refused(self, directory: Path) -> None:
        directory.parent.chmod(0o777)
        with pytest.raises(InvalidEnvironment, match=str(directory.parent)):
            launcher.require_safe_directory(str(directory))
        directory.parent.chmod(0o1777)
        launcher.require_safe_directory(str(directory))

    def test_directory_of_another_owner_is_refused(self, directory: Path) -> None:
        os.chown(directory, 65534, 65534)
        with pytest.raises(InvalidEnvironment, match="others than root may write"):
            launcher.require_safe_directory(str(directory))

    @pytest.mark.parametrize("prefix", ["../", "a/", "-x", "A", " ", "x\n"])
    def test_prefix_that_is_no_name_is_refused(self, prefix: str) -> None:
        with pytest.raises(InvalidConfig, match="use prefix"):
            launcher.check_prefix(prefix)

    @pytest.mark.parametrize("prefix", ["", "safe-", "x1_"])
    def test_prefix_that_is_a_name_is_accepted(self, prefix: str) -> None:
        launcher.check_prefix(prefix)


class TestUninstall:
    def test_launcher_is_removed(self, directory: Path, directory_fd: int) -> None:
        install(directory_fd)
        assert launcher.uninstall(directory_fd, "bridge").what == "removed"
        assert os.listdir(directory) == []

    def test_saved_file_comes_back(self, directory: Path, directory_fd: int) -> None:
        inode = foreign(directory, mode=0o711).stat().st_ino
        install(directory_fd, force=True)
        assert launcher.uninstall(directory_fd, "bridge").what == "restored"
        assert os.listdir(directory) == ["bridge"]
        status = (directory / "bridge").stat()
        assert (status.st_ino, stat.S_IMODE(status.st_mode)) == (inode, 0o711)

    def test_foreign_file_is_kept(self, directory: Path, directory_fd: int) -> None:
        path = foreign(directory)
        assert launcher.uninstall(directory_fd, "bridge").what == "kept"
        assert path.read_bytes() == FOREIGN

    def test_foreign_file_that_took_the_launchers_place_is_kept_beside_the_saved_one(
        self, directory: Path, directory_fd: int
    ) -> None:
        foreign(directory, b"old")
        install(directory_fd, force=True)
        (directory / "bridge").unlink()
        foreign(directory, b"new")
        change = launcher.uninstall(directory_fd, "bridge")
        assert (change.what, (directory / "bridge").read_bytes(), (directory / SAVED).read_bytes()) == (
            "kept",
            b"new",
            b"old",
        )
        assert SAVED in change.note

    def test_saved_file_comes_back_even_if_the_launcher_is_gone(self, directory: Path, directory_fd: int) -> None:
        foreign(directory)
        install(directory_fd, force=True)
        (directory / "bridge").unlink()
        assert launcher.launchers(directory_fd) == ["bridge"]
        assert launcher.uninstall(directory_fd, "bridge").what == "restored"

    def test_nothing_is_no_failure(self, directory_fd: int) -> None:
        assert launcher.uninstall(directory_fd, "bridge").what == "absent"
        assert launcher.launchers(directory_fd) == []

    def test_only_launchers_are_listed(self, directory: Path, directory_fd: int) -> None:
        install(directory_fd, "safe-bridge")
        foreign(directory)
        (directory / "note").write_text("# cnisandbox plugin: bridge\n")
        (directory / "script").write_text("#!/bin/sh\n# a comment\n# cnisandbox plugin: bridge\n")
        (directory / "program").write_bytes(b"\x7fELF\n# cnisandbox plugin: bridge\nand more")
        (directory / "unfinished").write_bytes(b"\x7fELF\n# cnisandbox plugin: bridge")
        (directory / "empty").touch()
        (directory / "link").symlink_to("safe-bridge")
        os.mkfifo(directory / "fifo")
        assert launcher.launchers(directory_fd) == ["safe-bridge"]


def test_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IoFailure, match="no such file"), launcher.opened(str(tmp_path / "missing")):
        pass

"""Launchers get into a directory and out of it without losing anybody's file."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnisandbox.cli import launcher
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


class TestContent:
    def test_it_is_a_script_for_this_interpreter_isolated_and_without_site(self) -> None:
        assert launcher.render("bridge").split(b"\n")[:2] == [
            f"#!{sys.executable} -IS".encode(),
            b"# cnisandbox plugin: bridge",
        ]

    def test_it_finds_the_package_and_its_extensions_and_nothing_of_the_environment(self, tmp_path: Path) -> None:
        text = launcher.render("bridge").decode()
        text = text.replace("from cnisandbox.plugins.bridge import main", "import _cffi_backend, prctl, cnisandbox")
        text = text.replace("\nmain()", "\nprint(sys.path, sys.flags.isolated, sys.flags.no_site)")
        path = tmp_path / "bridge"
        path.write_text(text)
        path.chmod(0o755)
        (tmp_path / "prctl.py").write_text("raise SystemExit('imported from the working directory')")
        done = subprocess.run(
            [path], check=True, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
        )
        assert done.stdout.endswith("1 1\n")
        assert str(tmp_path) not in done.stdout

    def test_the_standard_library_comes_before_the_packages_directory(self) -> None:
        assert b"\nsys.path += [" in launcher.render("bridge")

    @pytest.mark.parametrize("interpreter", ["/opt/a b/python", "python3", "/" + "x" * 250, "", "/opt/a\nb/python"])
    def test_interpreter_that_no_script_can_start_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, interpreter: str
    ) -> None:
        monkeypatch.setattr(sys, "executable", interpreter)
        with pytest.raises(InvalidEnvironment, match="cannot stand in the first line of a script"):
            launcher.render("bridge")

    def test_longest_interpreter_that_is_accepted_is_started_by_the_kernel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        length = launcher._SHEBANG_BYTES - len("#! -IS\n")
        parent = tmp_path / ("d" * (length - len(str(tmp_path)) - len("/") - len("/sh")))
        parent.mkdir()
        interpreter = parent / "sh"
        interpreter.write_text("")
        assert len(str(interpreter)) == length
        interpreter.unlink()
        interpreter.symlink_to("/bin/echo")
        monkeypatch.setattr(sys, "executable", str(interpreter))
        path = tmp_path / "bridge"
        path.write_bytes(launcher.render("bridge"))
        path.chmod(0o755)
        assert subprocess.run([path], check=True, capture_output=True).stdout == f"-IS {path}\n".encode()


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
            path.write_bytes(path.read_bytes() + b"# older\n")
        else:
            path.chmod(0o700)
        assert install(directory_fd).what == "updated"
        assert path.read_bytes() == launcher.render("bridge")
        assert stat.S_IMODE(path.stat().st_mode) == 0o755

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
        (directory / "link").symlink_to("safe-bridge")
        os.mkfifo(directory / "fifo")
        assert launcher.launchers(directory_fd) == ["safe-bridge"]


def test_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IoFailure, match="no such file"), launcher.opened(str(tmp_path / "missing")):
        pass

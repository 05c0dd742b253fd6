"""Wrapping a directory of plugins: nobody's file is lost, there is always a plugin, and unwrapping leaves no trace."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cli import launcher, main, shim, wrapping
from cnisandbox.cli.wrapping import INTERRUPTED, LOST, OVERWRITTEN, REMOVED, WRAPPED, How
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure, TryAgain
from cnisandbox.zygote import protocol

HOW = How("", "generic", "")
CONTENT = '#!/bin/sh\necho "$0|$*|$CNI_IFNAME"; cat; exit 3\n'
# The audit events of Python's functions that change a file system, and of those that may.
CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.utime", "open"}
NEWER = "#!/bin/sh\necho newer\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with one plugin, whose owner, mode and times are unlike any other's."""
    made = tmp_path / "bin"
    made.mkdir(mode=0o755)
    plugin(made / "bridge")
    return made


def plugin(path: Path, content: str = CONTENT) -> None:
    path.write_text(content)
    os.chown(path, 0, 7)
    path.chmod(0o751)
    os.utime(path, ns=(10**18 + 1, 10**18 + 2))


def facts(directory: Path) -> dict[str, Any]:
    """Everything that there is in a directory, and what tells each from others."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (
            status.st_ino,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns if not path.is_dir() else 0,
            content,
        )
    return found


def wrap(place: Path, name: str = "bridge", how: How = HOW) -> launcher.Change:
    with wrapping.opened(str(place)) as directory:
        directory.require_wrappable(name)
        return directory.wrap(name, how)


def unwrap(place: Path, name: str = "bridge") -> launcher.Change:
    with wrapping.opened(str(place)) as directory:
        change = directory.unwrap(name)
        directory.clear()
        return change


def state(place: Path, name: str = "bridge") -> str:
    return {each.name: each.state for each in wrapping.inspect(str(place))}[name]


def execute(path: Path, *arguments: str, uid: int = 0, **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Execute a plugin; as another user, who may read everything, wherever this project is."""
    capabilities = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    credentials = ["setpriv", f"--reuid={uid}", "--clear-groups", *capabilities]
    command = [*(credentials if uid else []), str(path), *arguments]
    return subprocess.run(command, input=b"netconf", env=variables, capture_output=True, check=False, timeout=30)


class TestWrap:
    def test_shim_takes_the_place_and_the_plugin_itself_is_aside(self, place: Path) -> None:
        inode = (place / "bridge").stat().st_ino
        assert wrap(place).what == "wrapped"
        assert shim.is_shim(f"{place}/bridge")
        assert (place / ".cnisandbox" / "bridge").stat().st_ino == inode
        status = (place / "bridge").stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
        assert sorted(os.listdir(place)) == [".cnisandbox", "bridge"]
        assert sorted(os.listdir(place / ".cnisandbox")) == [".manifest.json", "bridge"]
        assert state(place) == WRAPPED

    def test_again_changes_nothing(self, place: Path) -> None:
        wrap(place)
        before = facts(place)
        assert wrap(place).what == "unchanged"
        assert facts(place) == before

    @pytest.mark.parametrize("how", [How("root", "generic", ""), How("", "other", ""), How("", "generic", "journald")])
    def test_other_options_make_another_shim(self, place: Path, how: How) -> None:
        wrap(place)
        before = facts(place)[".cnisandbox/bridge"]
        assert wrap(place, how=how).what == "updated"
        assert facts(place)[".cnisandbox/bridge"] == before
        assert wrapping.inspect(str(place))[0].how == how
        content = (place / "bridge").read_bytes()
        assert repr(tuple(how))[1:-1].encode() in content
        assert "\x1f".join((f"{place}/bridge", *how)).encode() in content

    def test_shim_of_another_time_is_updated(self, place: Path) -> None:
        wrap(place)
        current = (place / "bridge").read_bytes()
        for older in (
            current.replace(b"gc.disable()", b"gc.enable() "),
            b"#!/usr/bin/python3 -IS\n# cnisandbox shim: bridge\n",
        ):
            (place / "bridge").write_bytes(older)
            assert state(place) == WRAPPED
            assert wrap(place).what == "updated"
            assert (place / "bridge").read_bytes() == current

    def test_newer_plugin_over_the_shim_is_wrapped_anew(self, place: Path) -> None:
        wrap(place)
        (place / "bridge").unlink()
        plugin(place / "bridge", NEWER)
        assert state(place) == OVERWRITTEN
        change = wrap(place)
        assert change.what == "wrapped"
        assert "newer" in change.note
        assert (place / ".cnisandbox" / "bridge").read_text() == NEWER
        assert state(place) == WRAPPED

    def test_package_that_writes_into_the_file_writes_into_the_shim_only(self, place: Path) -> None:
        """`cp` over a plugin, as some installers of daemon sets do: it keeps the inode."""
        wrap(place)
        (place / "bridge").write_text(NEWER)
        assert state(place) == OVERWRITTEN
        wrap(place)
        assert (place / ".cnisandbox" / "bridge").read_text() == NEWER
        assert unwrap(place).what == "restored"
        assert (place / "bridge").read_text() == NEWER

    def test_manifest_says_what_was_there_and_what_was_put_there(self, place: Path) -> None:
        wrap(place)
        manifest = json.loads((place / ".cnisandbox" / ".manifest.json").read_text())
        assert manifest["plugins"]["bridge"]["original"]["mode"] == "100751"
        assert manifest["plugins"]["bridge"]["original"]["mtime_ns"] == 10**18 + 2
        sums = subprocess.run(
            ["sha256sum", place / ".cnisandbox" / "bridge", place / "bridge"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        assert manifest["plugins"]["bridge"]["original"]["sha256"] == sums[0]
        assert manifest["plugins"]["bridge"]["shim"] == sums[2]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"plugins": 1}', '{"plugins": {"bridge": {}}}'])
    def test_nothing_depends_on_the_manifest(self, place: Path, text: str) -> None:
        before = facts(place)
        wrap(place)
        (place / ".cnisandbox" / ".manifest.json").write_text(text)
        assert state(place) == WRAPPED
        assert wrap(place).what == "unchanged"
        (place / ".cnisandbox" / ".manifest.json").write_text(text)
        assert unwrap(place).what == "restored"
        assert facts(place) == before

    def test_plugin_that_was_exchanged_aside_is_noticed(self, place: Path) -> None:
        wrap(place)
        assert not wrapping.inspect(str(place))[0].is_changed
        (place / ".cnisandbox" / "bridge").write_text(NEWER)
        assert wrapping.inspect(str(place))[0].is_changed
        assert unwrap(place).note == "it is not as it was when wrapped"

    @pytest.mark.parametrize(
        ("name", "spoil", "what"),
        [
            ("missing", None, "no plugin of that name"),
            ("../bin/bridge", None, "no plugin of that name"),
            (".cnisandbox", None, "no plugin of that name"),
            ("bridge", lambda path: path.chmod(0o644), "no plugin of that name"),
            ("bridge", lambda path: (path.unlink(), path.mkdir()), "no plugin of that name"),
            ("bridge", lambda path: (path.unlink(), path.symlink_to("gone")), "no plugin of that name"),
            ("bridge", lambda path: path.chmod(0o4755), "a setuid file"),
            ("bridge", lambda path: path.write_bytes(launcher.render("bridge")), "a plugin of cnisandbox"),
        ],
    )
    def test_what_cannot_be_wrapped_is_refused(
        self, place: Path, name: str, spoil: Callable[[Path], object] | None, what: str
    ) -> None:
        if spoil:
            spoil(place / name)
        before = facts(place)
        with pytest.raises((InvalidConfig, InvalidEnvironment), match=what):
            wrap(place, name)
        assert facts(place) == before

    def test_shim_that_lost_its_plugin_is_refused(self, place: Path) -> None:
        wrap(place)
        (place / ".cnisandbox" / "bridge").unlink()
        assert state(place) == LOST
        with pytest.raises(InvalidEnvironment, match="the plugin is gone"):
            wrap(place)

    def test_only_one_works_at_a_time(self, place: Path) -> None:
        fd = os.open(place, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(TryAgain, match="at work"):
            wrap(place)
        os.close(fd)
        assert wrap(place).what == "wrapped"

    def test_place_of_the_originals_that_is_somebody_elses_is_refused(self, place: Path) -> None:
        (place / ".cnisandbox").mkdir()
        (place / ".cnisandbox").chmod(0o777)
        with pytest.raises(InvalidEnvironment, match="others than root may write"):
            wrap(place)

    def test_place_of_the_originals_that_is_a_link_is_refused(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (place / ".cnisandbox").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(IoFailure):
            wrap(place)
        assert os.listdir(tmp_path / "elsewhere") == []

    def test_directory_that_cannot_stand_in_a_script_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidConfig, match="cannot stand in a script"), wrapping.opened(f"{tmp_path}/a\nb"):
            pass

    def test_candidates_are_the_executables_of_others(self, place: Path) -> None:
        plugin(place / "host-local")
        plugin(place / "a+b_1.2")
        plugin(place / "bridge.dpkg-new")
        plugin(place / f"bridge{launcher.SAVED_SUFFIX}")
        plugin(place / ".hidden")
        plugin(place / "with space")
        (place / "README").write_text("x")
        (place / "directory").mkdir()
        (place / "gone").symlink_to("nowhere")
        (place / "aaa").symlink_to("bridge")
        (place / "ours").write_bytes(launcher.render("bridge"))
        (place / "ours").chmod(0o755)
        with wrapping.opened(str(place)) as directory:
            assert directory.candidates() == ["a+b_1.2", "bridge", "host-local", "aaa"]
            wrap_all = [directory.wrap(name, HOW).what for name in directory.candidates()]
            assert wrap_all == ["wrapped"] * 4
            assert directory.candidates() == ["a+b_1.2", "aaa", "bridge", "host-local"]


class TestUnwrap:
    def test_everything_is_as_it_was(self, place: Path) -> None:
        before = facts(place)
        wrap(place)
        assert unwrap(place).what == "restored"
        assert facts(place) == before

    def test_again_is_no_failure(self, place: Path) -> None:
        before = facts(place)
        wrap(place)
        unwrap(place)
        assert unwrap(place).what == "not wrapped"
        assert facts(place) == before

    def test_one_of_two_leaves_the_other(self, place: Path) -> None:
        plugin(place / "ptp")
        wrap(place)
        wrap(place, "ptp")
        assert unwrap(place).what == "restored"
        assert state(place, "ptp") == WRAPPED
        assert [each.name for each in wrapping.inspect(str(place))] == ["ptp"]

    def test_newer_plugin_over_the_shim_stays_and_the_older_one_goes(self, place: Path) -> None:
        wrap(place)
        (place / "bridge").unlink()
        plugin(place / "bridge", NEWER)
        before = facts(place)["bridge"]
        assert unwrap(place).what == "left"
        assert facts(place) == {"bridge": before}

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda path: (path.unlink(), path.mkdir()),
            lambda path: (path.unlink(), path.write_text("not executable")),
            lambda path: (plugin(path, NEWER), path.chmod(0o777)),
            lambda path: (plugin(path, NEWER), os.chown(path, 65534, 0)),
            lambda path: path.write_bytes(launcher.render("bridge")),
        ],
    )
    def test_anything_else_in_the_place_is_left_alone(self, place: Path, spoil: Callable[[Path], object]) -> None:
        wrap(place)
        spoil(place / "bridge")
        before = facts(place)
        change = unwrap(place)
        assert (change.what, ".cnisandbox/bridge" in change.note) == ("kept", True)
        assert facts(place) == before

    def test_plugin_comes_back_even_if_the_shim_is_gone(self, place: Path) -> None:
        before = facts(place)
        wrap(place)
        (place / "bridge").unlink()
        assert state(place) == REMOVED
        assert unwrap(place) == launcher.Change("restored", "bridge", "the shim was gone")
        assert facts(place) == before

    def test_shim_without_its_plugin_stays(self, place: Path) -> None:
        wrap(place)
        shutil.rmtree(place / ".cnisandbox")
        assert [(each.name, each.state) for each in wrapping.inspect(str(place))] == [("bridge", LOST)]
        change = unwrap(place)
        assert (change.what, "install it again" in change.note) == ("kept", True)
        assert shim.is_shim(f"{place}/bridge")


def test_directory_in_which_nothing_is_wrapped_has_nothing_to_tell(place: Path) -> None:
    assert wrapping.inspect(str(place)) == []


class TestLinks:
    """Several plugins in one file, each a link to it that the program tells by its name."""

    @pytest.fixture
    def multi(self, place: Path) -> Path:
        plugin(place / "cni")
        (place / "bridge").unlink()
        (place / "bridge").symlink_to("cni")
        (place / "ptp").symlink_to(place / "bridge")
        return place

    def test_link_comes_back_as_it_was(self, multi: Path) -> None:
        before = facts(multi)
        for name in ("cni", "bridge", "ptp"):
            assert wrap(multi, name).what == "wrapped"
        for name in ("bridge", "cni", "ptp"):
            assert unwrap(multi, name).what == "restored"
        assert facts(multi) == before

    @pytest.mark.parametrize("names", [["cni", "bridge", "ptp"], ["bridge"], ["ptp"], ["bridge", "ptp"]])
    def test_program_behind_a_link_is_found_whatever_is_wrapped(self, multi: Path, names: list[str]) -> None:
        for name in names:
            wrap(multi, name)
        program = str(multi / ".cnisandbox" / "cni" if "cni" in names else multi / "cni")
        for name in ("cni", "bridge", "ptp"):
            assert shim.program_of(f"{multi}/{name}") == program

    def test_shim_of_a_link_runs_the_program(self, multi: Path) -> None:
        for name in ("cni", "bridge", "ptp"):
            wrap(multi, name)
        done = execute(multi / "ptp", uid=65534)
        assert done.stdout.startswith(f"{multi}/.cnisandbox/cni|".encode())


class TestShim:
    def test_who_is_not_root_gets_the_plugin(self, place: Path) -> None:
        """A script sees the path that the kernel hands to its interpreter; a program sees argv[0]."""
        wrap(place)
        done = execute(place / "bridge", "a", "b", uid=65534, CNI_IFNAME="eth0")
        assert done.stdout == f"{place}/.cnisandbox/bridge|a b|eth0\nnetconf".encode()
        assert done.returncode == 3

    def test_program_sees_the_name_that_it_was_called_by(self, place: Path) -> None:
        shutil.copy("/bin/cat", place / "cat")
        wrap(place, "cat", How("root", "", ""))
        done = execute(place / "cat", "/proc/self/cmdline")
        assert done.stdout == f"{place}/cat\0/proc/self/cmdline\0".encode()

    @pytest.mark.parametrize("variables", [{}, {"CNI_COMMAND": "ADD", "CNISANDBOX_LEVEL": "root"}])
    def test_daemon_and_level_root_are_the_plugin_as_it_is(self, place: Path, variables: dict[str, str]) -> None:
        wrap(place)
        done = execute(place / "bridge", "daemon", **variables)
        assert (done.stdout, done.returncode) == (f"{place}/.cnisandbox/bridge|daemon|\nnetconf".encode(), 3)

    def test_shim_that_lost_its_plugin_says_so_to_the_runtime(self, place: Path) -> None:
        wrap(place)
        (place / ".cnisandbox" / "bridge").unlink()
        done = execute(place / "bridge", CNI_COMMAND="ADD")
        document = json.loads(done.stdout)
        assert done.returncode == 1
        assert document["code"] == 5
        assert "is gone" in document["msg"]
        assert "install the plugin again" in document["details"]

    def test_installation_that_is_gone_is_an_error_object_that_says_what_to_do(self, place: Path) -> None:
        wrap(place)
        content = (place / "bridge").read_bytes()
        (place / "bridge").write_bytes(content.replace(b"/bundle.py", b"/nothing.p"))
        done = execute(place / "bridge", CNI_COMMAND="ADD")
        document = json.loads(done.stdout)
        assert (document["code"], done.returncode, done.stderr) == (103, 1, b"")
        assert document["msg"].startswith("run bridge: ")
        assert document["details"].endswith(f"mv {place}/.cnisandbox/* {place}/")
        subprocess.run(["sh", "-c", document["details"].partition("back: ")[2]], check=True)
        assert (place / "bridge").read_text() == CONTENT

    def test_level_and_log_of_the_environment_come_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[shim.Request] = []
        monkeypatch.setattr(shim, "start", lambda request, **_: asked.append(request))
        monkeypatch.setattr(sys, "argv", ["/x/bridge"])
        shim.main("/x/bridge", "hardened", "p", "/l")
        variables = {"CNISANDBOX_LEVEL": "netadmin", "CNISANDBOX_LOG": "journald", "CNISANDBOX_ATTEST": "/a"}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        shim.main("/x/bridge", "hardened", "p", "/l")
        assert asked == [
            shim.Request("/x/bridge", (), "hardened", "p", "", "/l"),
            shim.Request("/x/bridge", (), "netadmin", "p", "/a", "journald"),
        ]

    def test_shim_is_a_launcher_that_looks_for_the_runner(self, place: Path) -> None:
        wrap(place)
        content = (place / "bridge").read_bytes()
        assert content.endswith(b"\n# cnisandbox shim: bridge\n")
        assert protocol.socket_path(protocol.RUNNER).encode() in content
        wrap(place, how=How("root", "", ""))
        assert protocol.DIRECTORY.encode() not in (place / "bridge").read_bytes()


class TestOverlays:
    def test_every_wrapped_plugin_stands_at_its_name(self, place: Path) -> None:
        for name in ("host-local", "tuning", "portmap"):
            plugin(place / name)
        for name in ("bridge", "host-local", "tuning"):
            wrap(place, name)
        (place / "tuning").unlink()
        plugin(place / "tuning", NEWER)
        assert shim.overlays([str(place)]) == (
            (f"{place}/bridge", f"{place}/.cnisandbox/bridge"),
            (f"{place}/host-local", f"{place}/.cnisandbox/host-local"),
        )

    def test_directory_is_meant_by_both_of_its_paths(self, place: Path, tmp_path: Path) -> None:
        wrap(place)
        (tmp_path / "link").symlink_to(place)
        assert shim.overlays([f"{tmp_path}/link/", str(place)]) == (
            (f"{place}/bridge", f"{place}/.cnisandbox/bridge"),
            (f"{tmp_path}/link/bridge", f"{place}/.cnisandbox/bridge"),
        )

    def test_directories_without_wrapped_plugins_add_nothing(self, place: Path, tmp_path: Path) -> None:
        assert shim.overlays([str(place), f"{tmp_path}/missing", ""]) == ()

    def test_shim_that_lost_its_plugin_is_left_out(self, place: Path) -> None:
        wrap(place)
        (place / ".cnisandbox" / "bridge").unlink()
        assert shim.overlays([str(place)]) == ()


class TestCrash:
    """Killed before any of the things that it does, a wrap or an unwrap leaves a plugin or a shim that has one."""

    @staticmethod
    def killed_at(number: int, work: Callable[[], object]) -> bool:
        """Do it in a child which is killed before the n-th change to the file system; whether that came to pass."""
        child = os.fork()
        if child == 0:
            left = number

            def count(event: str, _arguments: object) -> None:
                nonlocal left
                if event in {
                    "os.link",
                    "os.rename",
                    "os.remove",
                    "os.mkdir",
                    "os.rmdir",
                    "os.chmod",
                    "os.chown",
                    "open",
                }:
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), 9)

            try:
                sys.addaudithook(count)
                work()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -9)
        return os.WIFSIGNALED(status)

    @staticmethod
    def require_plugin(place: Path, content: str = CONTENT) -> None:
        if shim.is_shim(f"{place}/bridge"):
            assert (place / ".cnisandbox" / "bridge").read_text() == content
        else:
            assert (place / "bridge").read_text() == content
        assert os.access(place / "bridge", os.X_OK)

    def cases(self, place: Path, prepare: Callable[[], None], work: Callable[[], object]) -> Iterator[int]:
        """Kill it at each of its steps; the directory is left as the kill left it."""
        for number in range(1000):
            shutil.rmtree(place)
            place.mkdir(mode=0o755)
            prepare()
            if not self.killed_at(number, work):
                assert number > 3
                return
            yield number
        raise AssertionError("it never came to its end")

    @pytest.mark.parametrize("then", ["wrap", "unwrap"])
    def test_wrap(self, place: Path, then: str) -> None:
        original: dict[str, Any] = {}

        def prepare() -> None:
            plugin(place / "bridge")
            original.clear()
            original.update(facts(place))

        for _ in self.cases(place, prepare, lambda: wrap(place)):
            self.require_plugin(place)
            if then == "wrap":
                wrap(place)
                assert state(place) == WRAPPED
            unwrap(place)
            assert facts(place) == original

    @pytest.mark.parametrize("then", ["wrap", "unwrap"])
    def test_unwrap(self, place: Path, then: str) -> None:
        original: dict[str, Any] = {}

        def prepare() -> None:
            plugin(place / "bridge")
            original.clear()
            original.update(facts(place))
            wrap(place)

        for _ in self.cases(place, prepare, lambda: unwrap(place)):
            self.require_plugin(place)
            if then == "wrap":
                wrap(place)
                assert state(place) == WRAPPED
            unwrap(place)
            assert facts(place) == original

    def test_wrap_of_a_newer_plugin(self, place: Path) -> None:
        newer: dict[str, Any] = {}

        def prepare() -> None:
            plugin(place / "bridge")
            wrap(place)
            (place / "bridge").unlink()
            plugin(place / "bridge", NEWER)
            newer.clear()
            newer.update({"bridge": facts(place)["bridge"]})

        for _ in self.cases(place, prepare, lambda: wrap(place)):
            self.require_plugin(place, NEWER)
            unwrap(place)
            assert facts(place) == newer

    def test_interrupted_wrap_is_seen(self, place: Path) -> None:
        (place / ".cnisandbox").mkdir(mode=0o755)
        os.link(place / "bridge", place / ".cnisandbox" / "bridge")
        assert state(place) == INTERRUPTED
        assert unwrap(place).what == "unchanged"
        assert os.listdir(place) == ["bridge"]


def test_there_is_never_a_moment_without_a_plugin(place: Path) -> None:
    is_over = threading.Event()
    missing = []

    def watch() -> None:
        while not is_over.is_set():
            if not os.access(place / "bridge", os.X_OK):
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(100):
            wrap(place)
            unwrap(place)
    finally:
        is_over.set()
        watcher.join()
    assert missing == []


class TestCommand:
    def test_unwrap_tells_what_it_did(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        plugin(place / "ptp")
        wrap(place)
        wrap(place, "ptp")
        (place / "ptp").unlink()
        (place / "ptp").mkdir()
        assert main.main(["unwrap", "--bin-dir", str(place)]) == 1
        rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
        assert rows == [["WHAT", "PLUGIN"], ["restored", "bridge"], ["kept", "ptp"]]
        assert main.main(["unwrap", "--bin-dir", str(place), "bridge"]) == 0
        assert "not wrapped  bridge" in capsys.readouterr().out

    def test_unwrap_of_nothing_is_done(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main.main(["unwrap", "--bin-dir", str(place)]) == 0
        assert capsys.readouterr().out == f"nothing is wrapped in {place}\n"

    @pytest.mark.parametrize("command", ["wrap", "unwrap"])
    def test_without_root_it_says_so(
        self, command: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "getuid", lambda: 1000)
        assert main.main([command, "--bin-dir", str(place)]) == 1
        assert f"{command}: not root" in capsys.readouterr().err

"""The units of the zygote: written, updated and taken away, and what systemctl is asked to do; systemctl is a fake."""

import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cnisandbox.cli import bytecode, host, launcher, main, systemd
from cnisandbox.cli.systemd import SERVICE, SOCKET
from cnisandbox.errors import InvalidEnvironment, IoFailure
from cnisandbox.zygote import protocol, server

DEPLOY = Path(__file__).parents[2] / "deploy" / "systemd"
SYSTEMCTL = """\
#!/bin/sh
echo "$@" >> {log}
case "$*" in *{refused}*) echo "Failed: it is refused" >&2; exit 4;; esac
"""


class Machine:
    """A directory for units, and a systemctl that writes down what it is asked.

    Attributes:
        units: The directory.
    """

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.units = place / "etc" / "systemd" / "system"
        self._place = place
        self._log = place / "log"
        (place / "programs").mkdir()
        (place / "running").mkdir()
        self.refuse("nothing")
        monkeypatch.setattr(systemd, "DIRECTORY", self.units)
        monkeypatch.setattr(systemd, "_RUNNING", place / "running")
        monkeypatch.setenv("PATH", f"{place / 'programs'}:{os.environ['PATH']}")

    def refuse(self, what: str) -> None:
        program = self._place / "programs" / "systemctl"
        program.write_text(SYSTEMCTL.format(log=self._log, refused=what))
        program.chmod(0o755)

    def stop_systemd(self) -> None:
        (self._place / "running").rmdir()

    def asked(self) -> list[str]:
        """What systemctl was asked since the last time."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines

    def contents(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.units.iterdir()}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def words(changes: list[launcher.Change]) -> list[tuple[str, str]]:
    return [(change.what, os.path.basename(change.name)) for change in changes]


def parsed(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


BIN_DIR = "/opt/cni/bin"


class TestTexts:
    def test_copies_in_deploy_are_what_install_writes(self) -> None:
        texts = systemd.units("/opt/cnisandbox/.venv/bin/python", launcher.served_names())
        assert {path.name: path.read_text() for path in DEPLOY.iterdir()} == texts

    def test_there_is_a_socket_for_each_plugin_where_its_launcher_looks_and_one_for_shims(self, tmp_path: Path) -> None:
        text = systemd.units(sys.executable, launcher.served_names())[SOCKET]
        listened = re.findall(r"^ListenSequentialPacket=(.*)$", text, re.MULTILINE)
        with launcher.opened(str(tmp_path)) as fd:
            for name in launcher.plugin_names():
                launcher.install(fd, name, name)
            settings = [launcher.settings_of(fd, name) for name in launcher.plugin_names()]
        assert [*(each.socket for each in settings if each), protocol.socket_path(protocol.RUNNER)] == listened
        assert parsed(text)["Socket"] | {"SocketMode": "0600", "DirectoryMode": "0700"} == parsed(text)["Socket"]

    def test_service_starts_this_installation_and_stops_as_the_zygote_does(self) -> None:
        service = parsed(systemd.units(sys.executable, ["bridge"])[SERVICE])["Service"]
        assert service["ExecStart"] == f"{sys.executable} -I -m cnisandbox.cli.main serve --idle-exit 600"
        assert (service["KillMode"], service["ExecReload"]) == ("mixed", "kill -HUP $MAINPID")
        assert int(service["TimeoutStopSec"]) > server._DRAIN_S
        assert int(service["TasksMax"]) > server._BUSY * 4

    def test_service_is_told_where_plugins_are_that_are_not_the_systems(self) -> None:
        service = parsed(systemd.units(sys.executable, ["bridge"], ("/srv/cni", "/data/bin"))[SERVICE])["Service"]
        assert service["ExecStart"].endswith(" serve --idle-exit 600 --plugin-dir /srv/cni --plugin-dir /data/bin")

    def test_service_has_nothing_that_makes_it_another_than_its_callers(self) -> None:
        """Each of these gives a namespace, a root or a restriction that `slot` compares, and the service none of it."""
        service = parsed(systemd.units(sys.executable, ["bridge"])[SERVICE])["Service"]
        beginnings = ("Private", "Protect", "Restrict", "ReadOnly", "ReadWrite", "Inaccessible", "Bind", "Temporary")
        others = ("Root", "Dynamic", "User", "Group", "Capability", "Ambient", "NoNew", "SystemCall", "Mount", "Lock")
        assert [key for key in service if key.startswith((*beginnings, *others, "Network", "Exec"))] == [
            "ExecStart",
            "ExecReload",
        ]

    def test_systemd_understands_them(self, tmp_path: Path) -> None:
        program = shutil.which("systemd-analyze")
        if program is None:
            pytest.skip("there is no systemd-analyze")
        for name, text in systemd.units(sys.executable, launcher.served_names()).items():
            (tmp_path / name).write_text(text)
        command = [program, "verify", "--man=no", str(tmp_path / SOCKET), str(tmp_path / SERVICE)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_systemd_does_not_understand_everything(self, tmp_path: Path) -> None:
        """The control."""
        program = shutil.which("systemd-analyze")
        if program is None:
            pytest.skip("there is no systemd-analyze")
        for name, text in systemd.units(sys.executable, launcher.served_names()).items():
            (tmp_path / name).write_text(text.replace("ListenSequentialPacket", "ListenSequential"))
        command = [program, "verify", "--man=no", str(tmp_path / SOCKET)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert "ListenSequential" in done.stderr


class TestInstall:
    def test_units_are_written_and_the_socket_is_enabled(self, machine: Machine) -> None:
        systemd.require_installable(BIN_DIR)
        changes = systemd.install(BIN_DIR, is_update=True)
        assert words(changes) == [("installed", SOCKET), ("installed", SERVICE), ("enabled", SOCKET)]
        assert machine.contents() == systemd.units(sys.executable, launcher.served_names())
        assert {stat.S_IMODE(path.stat().st_mode) for path in machine.units.iterdir()} == {0o644}
        assert machine.asked() == ["daemon-reload", f"try-reload-or-restart {SERVICE}", f"enable --now {SOCKET}"]

    def test_second_install_changes_nothing(self, machine: Machine) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.asked()
        before = {path.name: path.stat().st_ino for path in machine.units.iterdir()}
        systemd.require_installable(BIN_DIR)
        changes = systemd.install(BIN_DIR, is_update=False)
        assert words(changes) == [("unchanged", SOCKET), ("unchanged", SERVICE), ("enabled", SOCKET)]
        assert {path.name: path.stat().st_ino for path in machine.units.iterdir()} == before
        assert machine.asked() == [f"enable --now {SOCKET}"]

    def test_zygote_starts_anew_when_only_the_code_has_changed(self, machine: Machine) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.asked()
        systemd.install(BIN_DIR, is_update=True)
        assert machine.asked() == [f"try-reload-or-restart {SERVICE}", f"enable --now {SOCKET}"]

    @pytest.mark.parametrize(("name", "stopped"), [(SOCKET, f"stop {SERVICE} {SOCKET}"), (SERVICE, f"stop {SERVICE}")])
    def test_older_unit_is_updated_and_used(self, machine: Machine, name: str, stopped: str) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.asked()
        (machine.units / name).write_text(systemd._MARK + "[Unit]\n")
        systemd.require_installable(BIN_DIR)
        assert ("updated", name) in words(systemd.install(BIN_DIR, is_update=True))
        assert machine.contents() == systemd.units(sys.executable, launcher.served_names())
        assert machine.asked() == ["daemon-reload", stopped, f"enable --now {SOCKET}"]

    def test_without_systemd_it_says_what_to_do(self, machine: Machine) -> None:
        machine.stop_systemd()
        changes = systemd.install(BIN_DIR, is_update=True)
        assert words(changes) == [("installed", SOCKET), ("installed", SERVICE), ("not started", SOCKET)]
        assert f"systemctl enable --now {SOCKET}" in changes[-1].note
        assert machine.asked() == []

    @pytest.mark.parametrize("name", [SOCKET, SERVICE])
    def test_unit_of_somebody_else_is_refused(self, machine: Machine, name: str) -> None:
        machine.units.mkdir(parents=True)
        (machine.units / name).write_text("[Unit]\n")
        with pytest.raises(InvalidEnvironment, match="cnisandbox did not make it"):
            systemd.require_installable(BIN_DIR)

    def test_masked_unit_is_refused(self, machine: Machine) -> None:
        machine.units.mkdir(parents=True)
        (machine.units / SOCKET).symlink_to("/dev/null")
        with pytest.raises(InvalidEnvironment, match="cnisandbox did not make it") as caught:
            systemd.require_installable(BIN_DIR)
        assert f"systemctl unmask {SOCKET}" in caught.value.details

    @pytest.mark.parametrize("interpreter", ["/opt/a b/python", "/opt/%i/python", "python3", '/opt/"/python'])
    def test_interpreter_that_no_unit_can_have_is_refused(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, interpreter: str
    ) -> None:
        monkeypatch.setattr(sys, "executable", interpreter)
        with pytest.raises(InvalidEnvironment, match="cannot stand in a unit"):
            systemd.require_installable(BIN_DIR)

    @pytest.mark.parametrize("bin_dir", ["/srv/a b", "/srv/%i", "/srv/a:b"])
    def test_directory_that_no_unit_can_have_is_refused(self, machine: Machine, bin_dir: str) -> None:
        with pytest.raises(InvalidEnvironment, match="cannot stand in a unit"):
            systemd.require_installable(bin_dir)

    def test_unit_names_a_directory_that_is_not_the_systems(self, machine: Machine, tmp_path: Path) -> None:
        systemd.install("/opt/cni/bin", is_update=False)
        assert "--plugin-dir" not in machine.contents()[SERVICE]
        systemd.install(str(tmp_path), is_update=False)
        assert f"--plugin-dir {tmp_path}\n" in machine.contents()[SERVICE]

    def test_unit_keeps_the_directories_of_earlier_installs_that_are_still_there(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        first, gone, second = (tmp_path / name for name in ("first", "gone", "second"))
        for directory in (first, gone, second):
            directory.mkdir()
            systemd.install(str(directory), is_update=False)
        assert f"--plugin-dir {gone}" in machine.contents()[SERVICE]
        gone.rmdir()
        systemd.install(str(second), is_update=False)
        started = next(line for line in machine.contents()[SERVICE].splitlines() if line.startswith("ExecStart="))
        assert started.endswith(f" --plugin-dir {first} --plugin-dir {second}")

    def test_interpreter_that_finds_another_package_is_refused(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(launcher, "package_directory", lambda: tmp_path)
        with pytest.raises(InvalidEnvironment, match="does not find the package"):
            systemd.require_installable(BIN_DIR)

    def test_what_systemd_refuses_is_told(self, machine: Machine) -> None:
        machine.refuse("enable")
        with pytest.raises(IoFailure, match=f"run systemctl enable --now {SOCKET}: Failed: it is refused"):
            systemd.install(BIN_DIR, is_update=True)

    def test_directory_that_others_may_write_is_refused(self, machine: Machine) -> None:
        machine.units.mkdir(parents=True)
        machine.units.chmod(0o777)
        with pytest.raises(InvalidEnvironment, match="others than root may write"):
            systemd.install(BIN_DIR, is_update=True)
        assert list(machine.units.iterdir()) == []

    def test_failure_leaves_the_older_unit(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine.units.mkdir(parents=True)
        (machine.units / SOCKET).write_text(systemd._MARK)

        def fail(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(IoFailure, match="no space left on device"):
            systemd.install(BIN_DIR, is_update=True)
        assert (machine.units / SOCKET).read_text() == systemd._MARK
        assert machine.asked() == []


class TestUninstall:
    def test_units_are_stopped_and_removed(self, machine: Machine) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.asked()
        assert words(systemd.uninstall()) == [("removed", SOCKET), ("removed", SERVICE)]
        assert machine.contents() == {}
        assert machine.asked() == [f"disable --now {SOCKET}", f"stop {SOCKET} {SERVICE}", "daemon-reload"]

    def test_nothing_is_no_failure(self, machine: Machine) -> None:
        assert words(systemd.uninstall()) == [("absent", SOCKET)]
        assert machine.asked() == []

    def test_without_systemd_what_was_enabled_is_removed_as_well(self, machine: Machine) -> None:
        machine.stop_systemd()
        systemd.install(BIN_DIR, is_update=True)
        wants = machine.units / "sockets.target.wants"
        wants.mkdir()
        (wants / SOCKET).symlink_to(machine.units / SOCKET)
        systemd.uninstall()
        assert list(wants.iterdir()) == []
        assert list(machine.units.iterdir()) == [wants]
        assert machine.asked() == []

    def test_unit_of_somebody_else_is_kept(self, machine: Machine) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.asked()
        (machine.units / SERVICE).write_text("[Unit]\n")
        assert words(systemd.uninstall()) == [("removed", SOCKET), ("kept", SERVICE)]
        assert machine.contents() == {SERVICE: "[Unit]\n"}

    def test_what_systemd_refuses_leaves_the_units(self, machine: Machine) -> None:
        systemd.install(BIN_DIR, is_update=True)
        machine.refuse("disable")
        with pytest.raises(IoFailure, match="it is refused"):
            systemd.uninstall()
        assert set(machine.contents()) == {SOCKET, SERVICE}


class TestCommand:
    @pytest.fixture(autouse=True)
    def quiet_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The service user, /etc and byte code are other tests'."""
        unchanged = launcher.Change("unchanged", "something")
        for name in ("ensure_service_user", "ensure_config_directory", "compile_package"):
            monkeypatch.setattr(host, name, lambda: unchanged)
        monkeypatch.setattr(bytecode, "write_bundles", lambda: unchanged)

    def test_install_and_uninstall(self, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bin_dir = str(tmp_path / "bin")
        assert main.main(["install", "--bin-dir", bin_dir, "--systemd"]) == 0
        assert f"enabled    {SOCKET}" in capsys.readouterr().out
        assert machine.asked() == ["daemon-reload", f"try-reload-or-restart {SERVICE}", f"enable --now {SOCKET}"]
        assert main.main(["install", "--bin-dir", bin_dir, "--systemd"]) == 0
        assert machine.asked() == [f"enable --now {SOCKET}"]
        assert main.main(["uninstall", "--systemd"]) == 0
        assert machine.contents() == {}
        assert sorted(os.listdir(bin_dir)) == launcher.plugin_names()
        assert main.main(["uninstall", "--systemd", "--bin-dir", bin_dir]) == 0
        assert os.listdir(bin_dir) == []

    def test_refusal_comes_before_the_first_change(
        self, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.units.mkdir(parents=True)
        (machine.units / SERVICE).write_text("[Unit]\n")
        assert main.main(["install", "--bin-dir", str(tmp_path / "bin"), "--systemd"]) == 1
        assert not (tmp_path / "bin").exists()
        assert machine.contents() == {SERVICE: "[Unit]\n"}

    def test_upgrade_without_the_option_says_that_the_zygote_is_older(
        self, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["install", "--bin-dir", str(tmp_path / "bin")]
        main.main([*command, "--systemd"])
        assert "systemctl reload" not in capsys.readouterr().err
        main.main(command)
        assert "systemctl reload" not in capsys.readouterr().err
        (tmp_path / "bin" / "bridge").unlink()
        main.main(command)
        assert f"systemctl reload {SERVICE}" in capsys.readouterr().err

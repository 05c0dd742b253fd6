"""`cnisandbox doctor` tries things, reports each, and decides by what level hardened needs."""

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cnisandbox.cli import build, doctor, install, launcher, wrapping
from cnisandbox.cli.main import main
from cnisandbox.cli.probes import DEGRADED, MISSING, OK, Probe, Seen, attempt, machine, runner, zygote
from cnisandbox.cli.wrapping import How
from cnisandbox.zygote import protocol


def probe(state: str, *, is_required: bool = False, is_for_mediated: bool = False, feature: str = "thing") -> Probe:
    return Probe(feature, "some plugin", "mend it", lambda: Seen(state, "a detail"), is_required, is_for_mediated)


def run(monkeypatch: pytest.MonkeyPatch, *probes: Probe, options: tuple[str, ...] = ()) -> int:
    monkeypatch.setattr(doctor, "_GROUPS", (("group", probes),))
    monkeypatch.setattr(doctor, "require_root", lambda _operation: None)
    monkeypatch.setattr(machine, "plugin_dirs", tuple)
    return main(["doctor", *options])


@pytest.mark.parametrize(
    ("state", "is_required", "status"),
    [(OK, True, 0), (DEGRADED, True, 0), (MISSING, True, 1), (MISSING, False, 0), (DEGRADED, False, 0)],
)
def test_status_goes_by_what_level_hardened_needs(
    monkeypatch: pytest.MonkeyPatch, state: str, is_required: bool, status: int
) -> None:
    assert run(monkeypatch, probe(state, is_required=is_required)) == status


def test_what_is_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, probe(OK))
    assert capsys.readouterr().out.splitlines() == [
        "group",
        "  ok        thing  a detail",
        "",
        "level hardened is available: everything it needs is there",
        "level mediated is available: everything it needs is there",
    ]


def test_what_is_missing_says_what_needs_it_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, probe(OK, feature="other"), probe(MISSING, is_required=True))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  missing   thing  a detail",
        "            needed for some plugin",
        "            to do: mend it",
        "",
        "level hardened is not available: missing thing",
        "level mediated is not available: missing thing",
    ]


def test_level_mediated_needs_more(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, probe(MISSING, is_for_mediated=True)) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "level hardened is available: everything it needs is there",
        "level mediated is not available: missing thing",
    ]


def test_json_has_every_feature(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, probe(OK), probe(MISSING, is_required=True), options=("--json",))
    assert json.loads(capsys.readouterr().out) == {
        "hardened": False,
        "mediated": False,
        "features": [
            {
                "group": "group",
                "feature": "thing",
                "state": "ok",
                "detail": "a detail",
                "neededFor": "some plugin",
                "requiredForHardened": False,
                "requiredForMediated": False,
                "remedy": "",
            },
            {
                "group": "group",
                "feature": "thing",
                "state": "missing",
                "detail": "a detail",
                "neededFor": "some plugin",
                "requiredForHardened": True,
                "requiredForMediated": True,
                "remedy": "mend it",
            },
        ],
    }


def test_probe_that_fails_in_itself_is_a_missing_feature(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look() -> Seen:
        raise PermissionError(13, "Permission denied")

    assert run(monkeypatch, Probe("thing", "x", "y", look, is_required=True)) == 1
    assert "missing   thing  permission denied" in capsys.readouterr().out


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert main(["doctor"]) == 1
    assert "doctor: not root" in capsys.readouterr().err


class TestAttempt:
    def test_what_the_child_returns_is_the_detail(self) -> None:
        assert attempt(0, lambda: f"pid is ours: {os.getpid() == PARENT}") == (OK, "pid is ours: False")

    def test_error_of_the_kernel_is_told_in_its_words(self) -> None:
        def fail() -> None:
            raise OSError(95, "whatever")

        assert attempt(0, fail) == (MISSING, "operation not supported")

    def test_flags_that_the_kernel_refuses_are_a_missing_feature(self) -> None:
        assert attempt(1, lambda: None) == (MISSING, "invalid argument")

    def test_death_of_the_child_is_a_missing_feature(self) -> None:
        assert attempt(0, lambda: os._exit(3)) == (MISSING, "the probe died with status 3")


PARENT = os.getpid()


class TestRunner:
    @pytest.mark.parametrize("look", [runner._notification, runner._gift, runner._memory])
    def test_what_the_monitor_does_is_possible_here_and_not_with_who_may_not_be_looked_at(
        self, monkeypatch: pytest.MonkeyPatch, look: Callable[[], Seen]
    ) -> None:
        assert look() == (OK, "")
        monkeypatch.setattr(runner.prctl, "set_dumpable", lambda _value: None)
        assert look() == (MISSING, "operation not permitted")

    @pytest.mark.parametrize("look", [runner._nested_pid_namespaces, runner._chosen_number])
    def test_pid_namespaces_are_as_the_runner_needs_them(self, look: Callable[[], Seen]) -> None:
        assert look() == (OK, "")

    @pytest.mark.parametrize(
        ("scope", "state"), [("0", OK), ("1", OK), ("2", DEGRADED), ("3", DEGRADED), ("9", DEGRADED)]
    )
    def test_ptrace_scope_is_told(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scope: str, state: str
    ) -> None:
        (tmp_path / "scope").write_text(f"{scope}\n")
        monkeypatch.setattr(runner, "_YAMA", tmp_path / "scope")
        assert runner._yama().state == (OK if scope in "01" else DEGRADED)
        monkeypatch.setattr(runner, "_YAMA", tmp_path / "missing")
        assert runner._yama() == (OK, "not there, and not needed")


class TestWrapped:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """A directory with three wrapped plugins."""
        place = tmp_path / "bin"
        place.mkdir(mode=0o755)
        with wrapping.opened(str(place)) as directory:
            for name in ("bridge", "ptp", "other"):
                (place / name).write_text("#!/bin/sh\n")
                (place / name).chmod(0o755)
                directory.wrap(name, How("", "generic" if name == "other" else name, ""))
        return place

    @staticmethod
    def row(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path, *options: str
    ) -> list[str]:
        monkeypatch.setattr(doctor, "_GROUPS", (("group", (probe(OK),)),))
        monkeypatch.setattr(machine, "plugin_dirs", lambda: () if options else (str(place), "/nonexistent"))
        main(["doctor", *options])
        lines = capsys.readouterr().out.splitlines()
        return lines[lines.index("wrapped") + 1].split(None, 2) if "wrapped" in lines else []

    def test_wrapped_directory_is_found_where_runtimes_look(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = ["ok", str(place), "3 plugins are wrapped; with the profile generic: other"]
        assert self.row(monkeypatch, capsys, place) == expected
        assert self.row(monkeypatch, capsys, place, "--bin-dir", str(place)) == expected

    def test_directory_without_wrapped_plugins_is_told_of_only_if_it_was_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.row(monkeypatch, capsys, tmp_path) == []
        expected = ["degraded", str(tmp_path), "nothing is wrapped there"]
        assert self.row(monkeypatch, capsys, tmp_path, "--bin-dir", str(tmp_path)) == expected

    @pytest.mark.parametrize(
        ("spoil", "state", "words"),
        [
            (
                lambda place: write_anew(place / "ptp"),
                "degraded",
                "overwritten by something newer, which runs as root: ptp",
            ),
            (lambda place: (place / "ptp").unlink(), "degraded", "gone, with the plugin kept aside: ptp"),
            (lambda place: (place / ".cnisandbox" / "ptp").unlink(), "missing", "shims whose plugin is gone: ptp"),
            (
                lambda place: os.replace(place / ".cnisandbox" / "ptp", place / "ptp"),
                "degraded",
                "not wrapped to the end, and run as root: ptp",
            ),
            (
                lambda place: (place / ".cnisandbox" / "ptp").write_text("other"),
                "degraded",
                "not the plugins that were wrapped: ptp",
            ),
            (lambda place: (place / ".cnisandbox").chmod(0o777), "missing", "others than root may write"),
        ],
    )
    def test_plugin_that_is_not_confined_any_more_is_named(
        self,
        place: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        spoil: Callable[[Path], object],
        state: str,
        words: str,
    ) -> None:
        spoil(place)
        row = self.row(monkeypatch, capsys, place)
        assert row[0] == state
        assert words in row[2]


class Zygote:
    """Listens where a launcher looks, and says what a zygote, or something else, would.

    Args:
        path: Of its socket.
        hello: What it says to each that connects; None: nothing, and the connection stays open.
    """

    def __init__(self, path: Path, hello: bytes | None) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._hello = hello
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            if self._hello:
                connection.send(self._hello)
            if self._hello is None:
                connection.recv(1)  # until the other has gone

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


class TestWarm:
    BUILD_ID = build.build_id(str(launcher.package_directory()))

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A directory with a launcher of ours, which looks for a zygote at tmp_path/bridge."""
        place = tmp_path / "bin"
        place.mkdir(mode=0o755)
        monkeypatch.setattr(protocol, "socket_path", lambda plugin: f"{tmp_path}/{plugin}")
        self.install(place)
        return place

    @staticmethod
    def install(place: Path) -> None:
        with launcher.opened(str(place)) as fd:
            launcher.install(fd, "safe-bridge", "bridge")

    @staticmethod
    def hello(build_id: bytes, spoken: bytes = protocol.PROTOCOL) -> bytes:
        return protocol.HELLO.pack(spoken, build_id, bytes(protocol.NONCE_BYTES))

    @staticmethod
    def row(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path) -> tuple[str, str]:
        monkeypatch.setattr(doctor, "_GROUPS", (("group", (probe(OK),)),))
        monkeypatch.setattr(machine, "plugin_dirs", tuple)
        assert main(["doctor", "--json", "--bin-dir", str(place)]) == 0
        features = json.loads(capsys.readouterr().out)["features"]
        (found,) = [feature for feature in features if feature["group"] != "group"]
        assert (found["group"], found["feature"]) == ("warm", f"{place}, warm")
        assert f"cnisandbox install --bin-dir {place} --systemd" in found["remedy"] or found["state"] == OK
        return found["state"], found["detail"]

    def test_zygote_of_the_same_build_is_well(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
    ) -> None:
        with Zygote(place.parent / "bridge", self.hello(self.BUILD_ID)):
            seen = self.row(monkeypatch, capsys, place)
        assert seen == (OK, "a zygote of the same build answers for safe-bridge")

    def test_no_zygote_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
    ) -> None:
        seen = self.row(monkeypatch, capsys, place)
        assert seen == (DEGRADED, "no zygote; each call starts an interpreter: safe-bridge")

    @pytest.mark.parametrize(
        ("hello", "words"),
        [
            (b"h", "something else than a zygote answers: safe-bridge"),
            (b"", "something else than a zygote answers: safe-bridge"),
            (None, "a zygote does not answer, and every call waits for it first: safe-bridge"),
        ],
    )
    def test_what_is_no_zygote_is_told(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        place: Path,
        hello: bytes | None,
        words: str,
    ) -> None:
        monkeypatch.setattr(zygote, "_TIMEOUT_S", 0.2)
        with Zygote(place.parent / "bridge", hello):
            seen = self.row(monkeypatch, capsys, place)
        assert seen == (DEGRADED, words)

    def test_other_protocol_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
    ) -> None:
        other = b"x" * len(protocol.PROTOCOL)
        with Zygote(place.parent / "bridge", self.hello(self.BUILD_ID, other)):
            seen = self.row(monkeypatch, capsys, place)
        assert seen == (DEGRADED, "something else than a zygote answers: safe-bridge")

    def test_zygote_of_another_build_is_told(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
    ) -> None:
        with Zygote(place.parent / "bridge", self.hello(bytes(32))):
            seen = self.row(monkeypatch, capsys, place)
        assert seen == (
            DEGRADED,
            "a zygote of another build answers, which serves no call of these: safe-bridge",
        )

    def test_launcher_of_another_build_is_told_even_if_its_zygote_answers(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
    ) -> None:
        (place / "safe-bridge").unlink()
        with monkeypatch.context() as older:
            older.setattr(build, "build_id", lambda _package: b"o" * 32)
            self.install(place)
        with Zygote(place.parent / "bridge", self.hello(b"o" * 32)):
            seen = self.row(monkeypatch, capsys, place)
        assert seen == (DEGRADED, "installed with another build than this: safe-bridge")

    def test_directory_without_launchers_is_not_told_of(self, tmp_path: Path) -> None:
        assert zygote.probes([str(tmp_path), "/nonexistent"], [str(tmp_path)]) == ()

    def test_directory_that_is_named_twice_is_told_of_once(self, place: Path) -> None:
        assert len(zygote.probes([str(place)], [f"{place}/."])) == 1


def write_anew(path: Path) -> None:
    path.unlink()
    path.write_text("#!/bin/sh\necho newer\n")
    path.chmod(0o755)


def test_every_probe_says_what_it_is_for_and_what_to_do() -> None:
    probes = [probe for _, group in doctor._GROUPS for probe in group]
    assert all(probe.needed_for and probe.remedy for probe in probes)
    assert len({probe.feature for probe in probes}) == len(probes)
    assert install.require_root is doctor.require_root

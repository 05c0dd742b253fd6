"""`cnisandbox log` shows what is in the log, and says what is not of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.audit import log as audit
from cnisandbox.cli.main import main
from tests.world import wait_until

MESSAGE = {"type": "RTM_NEWLINK", "ifname": "cni0"}


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def line(**changes: Any) -> str:
    document = {
        "time": "2026-01-31T12:00:00.123456Z",
        "plugin": "bridge",
        "container": "0123456789abcdef",
        "ifname": "eth0",
        "netns": "host",
        "message": MESSAGE,
        "permit": "bridge:1",
        **changes,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None}) + "\n"


REFUSED = line(plugin="ptp", permit=None, refused="no permit matches", netns="container")
DROPPED = line(container="c2", netns=None, message=None, permit=None, dropped=7, reason="no space left on device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "log"
    made.write_text(line() + REFUSED + DROPPED)
    return made


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["log", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_each_message_is_a_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(path)) == [
        "TIME                     PLUGIN  ATTACHMENT         NETNS      PERMIT    MESSAGE",
        "2026-01-31 12:00:00.123  bridge  0123456789ab/eth0  host       bridge:1  RTM_NEWLINK ifname=cni0",
        "2026-01-31 12:00:00.123  ptp     0123456789ab/eth0  container  refused   RTM_NEWLINK ifname=cni0: "
        "no permit matches",
        "2026-01-31 12:00:00.123  bridge  c2/eth0                       dropped   7 or more messages are missing: "
        "no space left on device",
    ]


@pytest.mark.parametrize(
    ("options", "plugins"),
    [
        (["--refused"], ["ptp", "bridge"]),
        (["--plugin", "ptp"], ["ptp"]),
        (["--plugin", "bridge", "--refused"], ["bridge"]),
        (["--container", "0123"], ["bridge", "ptp"]),
        (["--container", "c2"], ["bridge"]),
        (["--since", "2026-01-31 12:00"], ["bridge", "ptp", "bridge"]),
        (["--since", "2026-01-31T13:00:00+01:00"], ["bridge", "ptp", "bridge"]),
    ],
)
def test_part_of_it_can_be_chosen(
    path: Path, capsys: pytest.CaptureFixture[str], options: list[str], plugins: list[str]
) -> None:
    assert [row.split()[2] for row in shown(capsys, str(path), *options)[1:]] == plugins


@pytest.mark.parametrize("options", [["--plugin", "x"], ["--container", "x"], ["--since", "2026-02-01"]])
def test_nothing_of_it_is_said_so(path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert shown(capsys, str(path), *options) == ["nothing in the log is about that"]


@pytest.mark.parametrize(("ago", "is_shown"), [("59m", False), ("61m", True), ("1d", True), ("5s", False)])
def test_time_can_be_counted_from_now(
    path: Path, capsys: pytest.CaptureFixture[str], ago: str, *, is_shown: bool
) -> None:
    path.write_text(line(time=(datetime.now(UTC) - timedelta(hours=1)).isoformat()))
    assert (len(shown(capsys, str(path), "--since", ago)) == 2) == is_shown


@pytest.mark.parametrize("text", ["yesterday", "10", "m", "10w", "-5m", "2026-13-01"])
def test_time_that_is_none_is_refused(path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["log", str(path), f"--since={text}"]) == 1
    assert f"read time '{text}': it is none" in capsys.readouterr().err


def test_json_is_what_was_written(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(path), "--json", "--refused") == (REFUSED + DROPPED).splitlines()


def test_what_is_no_line_is_counted_and_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(b"{\n" + line().encode() + b"\xff\xfe\n[]\n\n{}\n{}\n{}\n" + line().encode() + b'{"time":')
    assert main(["log", str(path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err == (
        "warning: 8 are no lines of the log: line 1 (not JSON), line 3 (not JSON), line 4 (not an object), "
        "line 5 (not JSON), line 6 (neither permitted nor refused), ...\n"
    )


def test_endless_line_is_none(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(b"x" * 300_000 + b"\n" + line().encode())
    assert main(["log", str(path)]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert "are no lines of the log" in captured.err


@pytest.mark.parametrize("hostile", ["\x1b]0;title\x07", "\r", "\x9b31m", "a\nb"])
def test_what_a_plugin_names_cannot_drive_the_terminal(
    path: Path, capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    names = {"plugin": hostile, "container": hostile, "ifname": hostile, "netns": hostile}
    path.write_text(
        line(**names, message={"type": hostile, hostile: hostile}, permit=hostile)
        + line(**names, permit=None, refused=hostile)
        + line(permit=None, dropped=1, reason=hostile)
    )
    rows = shown(capsys, str(path))
    assert len(rows) == 4
    assert all(row.isprintable() for row in rows)


def test_log_that_is_missing_says_how_to_have_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(tmp_path / "missing")]) == 1
    shown = capsys.readouterr().err
    assert "no such file or directory" in shown
    assert "--log or CNISANDBOX_LOG" in shown


def test_file_and_journal_at_once_are_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", str(path), "--journald"]) == 1
    assert "at once" in capsys.readouterr().err


@contextmanager
def following(path: Path, tmp_path: Path) -> Iterator[Path]:
    """Follow the log; gives the file with what was printed."""
    printed = tmp_path / "printed"
    command = [sys.executable, "-m", "cnisandbox.cli.main", "log", str(path), "--follow", "--refused"]
    with printed.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as child:
        try:
            yield printed
        finally:
            child.terminate()


def refusals(printed: Path) -> list[str]:
    return [row.split()[2] for row in printed.read_text().splitlines()[1:]]


def test_what_is_added_is_followed_through_rotation(path: Path, tmp_path: Path) -> None:
    path.write_text(line() + REFUSED)
    with following(path, tmp_path) as printed:
        wait_until(lambda: refusals(printed) == ["ptp"], timeout=20)
        with path.open("a") as file:
            file.write(line(plugin="half", permit=None, refused="r")[:20])
            file.flush()
            file.write(line(plugin="half", permit=None, refused="r")[20:] + line())
        wait_until(lambda: refusals(printed) == ["ptp", "half"])
        path.rename(tmp_path / "log.1")
        path.write_text(line(plugin="new", permit=None, refused="r"))
        wait_until(lambda: refusals(printed) == ["ptp", "half", "new"])
        path.write_text("")
        wait_until(lambda: path.stat().st_size == 0)
        with path.open("a") as file:
            file.write(line(plugin="x", permit=None, refused="r"))
        wait_until(lambda: refusals(printed) == ["ptp", "half", "new", "x"])


def test_interruption_of_following_is_no_error(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnisandbox.cli.main", "log", str(path), "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline().startswith(b"TIME")
        child.send_signal(2)
        assert child.wait(timeout=20) == 0
        assert child.stderr.read() == b""


class TestJournal:
    """`journalctl` is a script here; tests/netns/test_audit_journald.py has the real one."""

    @pytest.fixture
    def journalctl(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        script = tmp_path / "bin" / "journalctl"
        script.parent.mkdir()
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        return script

    @staticmethod
    def print_entries(script: Path, *entries: object) -> None:
        texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        (script.parent / "entries").write_text("\n".join(texts) + "\n")
        script.write_text(f'#!/bin/sh\necho "$@" >{script.parent}/arguments\ncat {script.parent}/entries\n')
        script.chmod(0o755)

    def test_records_of_the_journal_are_shown(self, journalctl: Path, capsys: pytest.CaptureFixture[str]) -> None:
        entry = {"_UID": "0", "CNISANDBOX_RECORD": line()}
        self.print_entries(journalctl, entry, {**entry, "CNISANDBOX_RECORD": REFUSED})
        rows = shown(capsys, "--journald", "--since", "2026-01-31 12:00")
        assert [row.split()[2] for row in rows[1:]] == ["bridge", "ptp"]
        arguments = (journalctl.parent / "arguments").read_text()
        assert f"--identifier={audit.SYSLOG_IDENTIFIER}" in arguments
        assert "--since=@1769860800" in arguments

    def test_what_others_wrote_under_our_name_is_named(
        self, journalctl: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        forged = {"_UID": "1000", "CNISANDBOX_RECORD": line()}
        self.print_entries(journalctl, forged, "not JSON", "[]", {"_UID": "0", "MESSAGE": "said by a shell"})
        assert main(["log", "--journald"]) == 0
        captured = capsys.readouterr()
        assert captured.out == "nothing in the log is about that\n"
        assert "4 are no lines of the log: entry 1 of uid 1000 (not JSON), entry 2" in captured.err

    def test_failure_of_journalctl_is_an_error(self, journalctl: Path, capsys: pytest.CaptureFixture[str]) -> None:
        journalctl.write_text("#!/bin/sh\nexit 3\n")
        journalctl.chmod(0o755)
        assert main(["log", "--journald"]) == 1
        assert "journalctl ended with status 3" in capsys.readouterr().err

    def test_without_journalctl_it_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert main(["log", "--journald"]) == 1
        assert "execute journalctl: no such file or directory" in capsys.readouterr().err

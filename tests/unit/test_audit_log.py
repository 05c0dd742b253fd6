"""The audit log has one line for each record, has its bounds, and never stands in anybody's way."""

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cnisandbox.audit import AuditLog, log, open_log
from cnisandbox.audit.read import parse_line
from cnisandbox.errors import IoFailure


class Record(NamedTuple):
    """As cnisandbox.policy.judge.Record."""

    netns: str
    message: dict[str, Any]
    permit: str
    reason: str


MESSAGE = {"type": "RTM_NEWLINK", "ifname": "cni0", "linkinfo": {"kind": "bridge"}}
PERMITTED = Record("host", MESSAGE, "bridge:1", "")
REFUSED = Record("container", {"type": "RTM_DELLINK", "ifname": "eth1"}, "", "no permit matches")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def logs_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A log ends with the process of its session; here one process has many sessions."""
    descriptors = []

    def remembered(target: str) -> log.LogTarget | None:
        found = log.open_log(target)
        if found is not None:
            descriptors.append(found.fd)
        return found

    monkeypatch.setattr(sys.modules[__name__], "open_log", remembered)
    yield
    for fd in descriptors:
        os.close(fd)


def opened(path: Path) -> AuditLog:
    target = open_log(str(path))
    assert target is not None
    return AuditLog(target.fd, "bridge", "c1", "eth0", target.kind)


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


class TestLine:
    def test_permitted_message_is_written_with_its_permit(self, path: Path) -> None:
        opened(path).write(PERMITTED)
        (line,) = lines(path)
        line.pop("time")
        assert line == {
            "plugin": "bridge",
            "container": "c1",
            "ifname": "eth0",
            "netns": "host",
            "message": MESSAGE,
            "permit": "bridge:1",
        }

    def test_refused_message_is_written_with_the_reason(self, path: Path) -> None:
        opened(path).write(REFUSED)
        (line,) = lines(path)
        assert line["refused"] == "no permit matches"
        assert "permit" not in line

    def test_time_is_that_of_the_message_in_utc_with_microseconds(self, path: Path) -> None:
        before = datetime.now(UTC)
        opened(path).write(PERMITTED)
        text = lines(path)[0]["time"]
        assert text.endswith("Z")
        assert len(text) == len("2026-01-31T12:00:00.000000Z")
        assert before - timedelta(microseconds=1) <= datetime.fromisoformat(text) <= datetime.now(UTC)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(same, same) for same in ("\n", '"', "\\", "\x00\x1b[31m", "\udcff", "\u2028", "é", None, True, 2**70)]
        + [(b"\x00\xff", "00ff"), ((1, "a"), [1, "a"]), ({1: 2}, {"1": 2})],
    )
    def test_any_value_is_one_line_of_ascii(self, path: Path, value: Any, expected: Any) -> None:
        opened(path).write(Record("host", {"type": "RTM_NEWLINK", "x": value}, "p", ""))
        data = path.read_bytes()
        assert data.count(b"\n") == 1
        assert all(0x20 <= byte < 0x7F for byte in data[:-1])
        written = lines(path)[0]["message"]["x"]
        assert written == expected

    def test_what_a_plugin_names_cannot_add_a_field(self, path: Path) -> None:
        opened(path).write(Record("host", {"type": "x", 'a":1},"permit":"all","b': 1}, "", "no"))
        (line,) = lines(path)
        assert "permit" not in line

    def test_value_that_is_no_value_is_written_as_text(self, path: Path) -> None:
        opened(path).write(Record("host", {"type": "x", "thing": 1.5}, "p", ""))
        assert lines(path)[0]["message"]["thing"] == "1.5"

    def test_deep_message_is_cut(self, path: Path) -> None:
        deep: Any = "bottom"
        for _ in range(5000):
            deep = [deep]
        opened(path).write(Record("host", {"type": "x", "deep": deep}, "p", ""))
        assert "..." in path.read_text()

    def test_message_that_prints_itself_badly_is_dropped_and_ends_nothing(self, path: Path) -> None:
        class Spiteful:
            def __str__(self) -> str:
                raise RuntimeError("no")

        audit = opened(path)
        audit.write(Record("host", {"type": "x", "thing": Spiteful()}, "p", ""))
        audit.write(PERMITTED)
        assert [line.get("permit", line.get("dropped")) for line in lines(path)] == [1, "bridge:1"]
        assert audit.dropped == 1

    @pytest.mark.parametrize("size", [log.LINE_BYTES - 100, log.LINE_BYTES, 70_000])
    @pytest.mark.parametrize("letter", ["a", '"', "\x00", "é"])
    def test_long_line_is_cut_to_its_bound_and_stays_json(self, path: Path, size: int, letter: str) -> None:
        opened(path).write(Record("host", {"type": "RTM_NEWLINK", "x": letter * size}, "p", ""))
        assert len(path.read_bytes()) <= log.LINE_BYTES
        assert lines(path)[0]["message"]["type"] == "RTM_NEWLINK"
        assert "x" in lines(path)[0]["message"]["cut"]

    def test_longest_names_and_reason_leave_room_for_the_message(self, path: Path) -> None:
        target = open_log(str(path))
        assert target is not None
        audit = AuditLog(target.fd, "\x00" * 999, "\x00" * 999, "\x00" * 999, target.kind)
        audit.write(Record("\x00" * 999, {"type": "\x00" * 999, "x": "\x00" * 9999}, "", "\x00" * 9999))
        assert len(path.read_bytes()) <= log.LINE_BYTES
        assert lines(path)[0]["message"]["cut"]
        assert audit.dropped == 0

    def test_what_is_written_can_be_read(self, path: Path) -> None:
        audit = opened(path)
        audit.write(PERMITTED)
        audit.write(REFUSED)
        permitted, refused = [parse_line(text) for text in path.read_bytes().splitlines()]
        assert (permitted.permit, permitted.message, permitted.netns) == ("bridge:1", MESSAGE, "host")
        assert (refused.refused, refused.plugin, refused.container, refused.ifname) == (
            "no permit matches",
            "bridge",
            "c1",
            "eth0",
        )


class TestBounds:
    def test_session_has_its_lines_and_the_last_says_how_many_are_missing(self, path: Path) -> None:
        audit = opened(path)
        for _ in range(log.SESSION_LINES + 7):
            audit.write(PERMITTED)
        said = audit.close()
        written = lines(path)
        assert len(written) == log.SESSION_LINES + 2
        assert [line["dropped"] for line in written[-2:]] == [1, 7]
        assert "more in one session" in written[-1]["reason"]
        assert said.startswith("audit log: 7 messages of this call are not in it: there are more")

    def test_session_has_its_bytes(self, path: Path) -> None:
        audit = opened(path)
        for _ in range(log.SESSION_BYTES // 7000 + 50):
            audit.write(Record("host", {"type": "x", "y": "z" * 7000}, "p", ""))
        assert audit.dropped > 0
        assert path.stat().st_size <= log.SESSION_BYTES + 2 * log.LINE_BYTES

    def test_session_without_loss_says_nothing(self, path: Path) -> None:
        audit = opened(path)
        audit.write(PERMITTED)
        assert audit.close() == ""
        assert len(lines(path)) == 1

    def test_file_is_never_longer_than_its_bound(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path.touch(mode=0o600)
        os.truncate(path, log.FILE_BYTES - 500)
        audit = opened(path)
        for _ in range(20):
            audit.write(PERMITTED)
        assert log.FILE_BYTES - 500 < path.stat().st_size < log.FILE_BYTES
        assert "full size" in audit.close()
        os.truncate(path, log.FILE_BYTES)
        assert capfd.readouterr().err == ""
        opened(path).write(PERMITTED)
        assert path.stat().st_size == log.FILE_BYTES
        assert "is full (64 MiB); nothing is added until it is rotated" in capfd.readouterr().err

    def test_full_disk_is_a_dropped_line_and_the_next_line_is_whole(self, tmp_path: Path) -> None:
        """On a file system of a few pages: some of the lines fit, one is cut, the rest are dropped."""
        script = f"""
            mount -t tmpfs -o size=8k test {tmp_path}
            exec {sys.executable} -c '
import os
from tests.unit.test_audit_log import PERMITTED, opened
from pathlib import Path
path = Path("{tmp_path}/log")
audit = opened(path)
for _ in range(100):
    audit.write(PERMITTED)
assert 0 < audit.dropped < 100, audit.dropped
written = path.read_bytes()
assert not written.endswith(b"\\n")
os.truncate(path, 0)
audit.write(PERMITTED)
os.write(1, path.read_bytes())
'"""
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", script], capture_output=True, check=False, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        assert [bool(line) for line in done.stdout.splitlines()] == [False, True]
        assert json.loads(done.stdout)["permit"] == "bridge:1"

    def test_limit_on_file_sizes_kills_nobody(self, path: Path) -> None:
        program = (
            "import resource; from pathlib import Path; from tests.unit.test_audit_log import *;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300));"
            f"audit = opened(Path({str(path)!r})); [audit.write(PERMITTED) for _ in range(5)]; print(audit.dropped)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=30)
        assert int(done.stdout) in (3, 4)

    def test_without_a_log_nothing_happens(self) -> None:
        audit = AuditLog(-1, "bridge", "c1", "eth0")
        audit.write(PERMITTED)
        assert (audit.dropped, audit.close()) == (0, "")

    def test_closed_descriptor_ends_nothing(self) -> None:
        closed = os.open(os.devnull, os.O_WRONLY)
        os.close(closed)
        audit = AuditLog(closed, "bridge", "c1", "eth0")
        audit.write(PERMITTED)
        assert audit.dropped == 1
        assert "bad file descriptor" in audit.close()

    def test_sessions_side_by_side_do_not_mix_their_lines(self, path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from tests.unit.test_audit_log import *;"
            f"audit = opened(Path({str(path)!r}));"
            "record = PERMITTED._replace(permit=sys.argv[1], message={'type': 'x', 'y': sys.argv[1] * 3000});"
            "[audit.write(record) for _ in range(500)]; sys.exit(audit.dropped)"
        )
        command = [sys.executable, "-c", program]
        children = [subprocess.Popen([*command, letter]) for letter in "abcd"]
        assert [child.wait(timeout=60) for child in children] == [0, 0, 0, 0]
        written = lines(path)
        assert len(written) == 4 * 500
        assert all(line["message"]["y"] == line["permit"] * 3000 for line in written)


class TestOpen:
    def test_nothing_asked_for_is_no_log(self) -> None:
        assert open_log("") is None

    def test_file_is_made_for_root_alone(self, path: Path) -> None:
        old = os.umask(0)
        try:
            target = open_log(str(path))
        finally:
            os.umask(old)
        assert target is not None
        assert target.kind == "file"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not os.get_inheritable(target.fd)

    def test_what_is_in_the_file_stays(self, path: Path) -> None:
        opened(path).write(PERMITTED)
        opened(path).write(REFUSED)
        assert len(lines(path)) == 2

    def test_link_is_refused(self, path: Path) -> None:
        path.symlink_to(path.parent / "elsewhere")
        with pytest.raises(IoFailure, match="too many levels"):
            open_log(str(path))
        assert not (path.parent / "elsewhere").exists()

    @pytest.mark.parametrize("spoil", ["owner", "mode", "fifo", "device"])
    def test_file_that_is_not_roots_alone_is_refused(self, path: Path, spoil: str) -> None:
        if spoil == "fifo":
            os.mkfifo(path, 0o600)
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        else:
            path.touch(mode=0o600)
            reader = -1
        if spoil == "owner":
            os.chown(path, 65534, 0)
        if spoil == "mode":
            path.chmod(0o620)
        with pytest.raises(IoFailure, match="not a file that root alone may write to"):
            open_log("/dev/null" if spoil == "device" else str(path))
        if reader >= 0:
            os.close(reader)

    def test_fifo_without_a_reader_holds_nobody_up(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        begun = time.monotonic()
        with pytest.raises(IoFailure):
            open_log(str(path))
        assert time.monotonic() - begun < 5

    def test_directory_that_is_missing_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(IoFailure, match="no such file or directory") as caught:
            open_log(str(tmp_path / "missing" / "log"))
        assert "directory that exists" in caught.value.details


class TestJournald:
    """A socket in journald's place receives what journald would."""

    @pytest.fixture
    def journal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        place = str(tmp_path / "socket")
        monkeypatch.setattr(log, "JOURNALD_SOCKET", place)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(place)
            receiver.settimeout(5)
            yield receiver

    @staticmethod
    def opened() -> AuditLog:
        target = open_log("journald")
        assert target is not None
        assert not os.get_blocking(target.fd)
        assert not os.get_inheritable(target.fd)
        return AuditLog(target.fd, "bridge", "c1", "eth0", target.kind)

    @staticmethod
    def fields(journal: socket.socket) -> dict[str, str]:
        text = journal.recv(1 << 16).decode()
        assert text.endswith("\n")
        pairs = [line.partition("=") for line in text.splitlines()]
        assert len(pairs) == len({name for name, _, _ in pairs})
        return {name: value for name, _, value in pairs}

    def test_permitted_message_is_information(self, journal: socket.socket) -> None:
        self.opened().write(PERMITTED)
        fields = self.fields(journal)
        record = json.loads(fields.pop("CNISANDBOX_RECORD"))
        assert record["permit"] == "bridge:1"
        assert fields == {
            "MESSAGE": "bridge c1/eth0 permitted by bridge:1: RTM_NEWLINK ifname=cni0 linkinfo.kind=bridge",
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "cnisandbox",
            "CNISANDBOX_PLUGIN": "bridge",
            "CNISANDBOX_CONTAINER": "c1",
            "CNISANDBOX_IFNAME": "eth0",
            "CNISANDBOX_NETNS": "host",
            "CNISANDBOX_PERMIT": "bridge:1",
        }

    def test_refused_message_is_a_warning(self, journal: socket.socket) -> None:
        self.opened().write(REFUSED)
        fields = self.fields(journal)
        assert (fields["PRIORITY"], fields["CNISANDBOX_REFUSED"]) == ("4", "no permit matches")

    def test_newline_of_the_plugins_begins_no_field(self, journal: socket.socket) -> None:
        hostile = {"type": "RTM_NEWLINK", "ifalias": "x\nPRIORITY=0\n_UID=0"}
        self.opened().write(Record("host", hostile, "", "no\nSYSLOG_IDENTIFIER=sshd"))
        fields = self.fields(journal)
        assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("4", "cnisandbox")
        assert "_UID" not in fields

    def test_journal_that_does_not_read_holds_nobody_up(self, journal: socket.socket) -> None:
        audit = self.opened()
        begun = time.monotonic()
        for _ in range(2000):
            audit.write(PERMITTED)
        assert time.monotonic() - begun < 10
        assert 0 < audit.dropped < 2000
        for _ in range(2000 - audit.dropped):
            self.fields(journal)
        audit.close()
        assert f"{audit.dropped} messages are not in the log" in self.fields(journal)["MESSAGE"]

    def test_without_journald_it_is_an_error_that_names_the_socket(self, tmp_path: Path) -> None:
        with pytest.raises(IoFailure, match="journald") as caught:
            open_log("journald")
        assert log.JOURNALD_SOCKET in caught.value.msg


def test_writing_imports_nothing_that_takes_time() -> None:
    program = "import sys; before = set(sys.modules); import cnisandbox.audit.log; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=30)
    assert not {"json", "logging", "datetime", "socket", "re", "typing"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not an object"),
        ("{}", "neither permitted nor refused"),
        ('{"permit": 1}', "'permit' is no str"),
        ('{"permit": "p"}', "no 'time'"),
        ('{"permit": "p", "time": "yesterday"}', "'time' is no time"),
        ('{"permit": "p", "time": "2026-01-31T12:00:00Z", "plugin": "x", "container": "", "ifname": ""}', "no 'netns'"),
        ('{"dropped": "many", "reason": "r", "time": "2026-01-31T12:00:00Z", "plugin": "x"}', "no 'container'"),
    ],
)
def test_what_is_no_line_is_said_to_be_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{why}$"):
        parse_line(text)

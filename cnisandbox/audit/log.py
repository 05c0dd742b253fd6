"""Opens the audit log, and writes it from inside a monitor: bounded, without waiting for anybody, without failing.

Whatever happens to the log happens to the log alone: a line that cannot be written now is counted and left out, and the
count is the session's last line. A call of a plugin neither waits nor fails because of it.

Privilege: `open_log` the caller's, who is root; `AuditLog` none but its descriptor. What it does there is write(2),
fstat(2) and reading the clock.

Source: systemd.journal-fields(7); https://systemd.io/JOURNAL_NATIVE_PROTOCOL (one datagram, KEY=VALUE lines).
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import os
import stat
import time

from cnisandbox.audit.encode import encode
from cnisandbox.audit.words import line_of
from cnisandbox.errors import IoFailure, quoted, reason
from cnisandbox.hints import Any, NamedTuple, Protocol
from cnisandbox.light import suppress

JOURNALD = "journald"
FILE = "file"
JOURNALD_SOCKET = "/run/systemd/journal/socket"
SYSLOG_IDENTIFIER = "cnisandbox"

# LIMIT: an ADD of the longest chain takes 300 messages; who sends more than this has something else in mind.
SESSION_LINES = 4096
SESSION_BYTES = 4 << 20
# LIMIT: longer than any message that a reference plugin sends, and in one write.
LINE_BYTES = 8192
# LIMIT: of a file, for all sessions together; logrotate begins a new one (docs/runner.md).
FILE_BYTES = 64 << 20

_NAME_CHARACTERS = 128
_REASON_CHARACTERS = 512
_PRIORITY_INFO, _PRIORITY_WARNING = 6, 4


class Entry(Protocol):
    """What is written: a record of the policy engine.

    Attributes:
        netns: "host" or "container".
        message: The decoded message.
        permit: Name of the permit that matched; empty if the message was refused.
        reason: Why it was refused.
    """

    @property
    def netns(self) -> str:
        """In which netns."""

    @property
    def message(self) -> dict[str, Any]:
        """The decoded message."""

    @property
    def permit(self) -> str:
        """The permit."""

    @property
    def reason(self) -> str:
        """The reason of a refusal."""


class LogTarget(NamedTuple):
    """An open log.

    Attributes:
        fd: Its descriptor, which the caller owns.
        kind: "file" or "journald".
    """

    fd: int
    kind: str


def open_log(target: str) -> LogTarget | None:
    """Open the log.

    Args:
        target: "journald", the path of a file, or nothing for no log.

    Returns:
        The log; None if nobody asked for one. A file that is full is opened too; nothing will be added to it, which a
        line on standard error says.

    Raises:
        IoFailure: It cannot be opened, or it is not a file of root's alone. Somebody asked for a log of what happens;
            that nothing happens without one is theirs to change.

    Privilege: the caller's, who is root.
    """
    if not target:
        return None
    return LogTarget(_connect(), JOURNALD) if target == JOURNALD else LogTarget(_open_file(target), FILE)


def _open_file(path: str) -> int:
    # TRUST: the path is the caller's, who is root; O_NOFOLLOW and the owner keep others from choosing the file where it
    # stands in a directory that is not root's alone, and O_NONBLOCK keeps a FIFO from holding us up.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        raise IoFailure(
            f"open audit log {quoted(path)}: {reason(error)}", "name a file in a directory that exists, or journald"
        ) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(fd)
        raise IoFailure(
            f"open audit log {quoted(path)}: not a file that root alone may write to",
            "name another, or: chown root, chmod go-w; pipes and devices cannot be used",
        )
    if status.st_size >= FILE_BYTES:
        _tell(f"audit log {quoted(path)} is full ({FILE_BYTES >> 20} MiB); nothing is added until it is rotated")
    return fd


def _connect() -> int:
    kind = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    connection = _socket.socket(_socket.AF_UNIX, kind)
    try:
        connection.connect(JOURNALD_SOCKET)
    except OSError as error:
        connection.close()
        raise IoFailure(
            f"open audit log journald: {reason(error)} ({JOURNALD_SOCKET})",
            "is systemd-journald running here? a file can be named instead",
        ) from error
    return int(connection.detach())


def _tell(text: str) -> None:
    with suppress(OSError):  # who has closed standard error does not want to know
        os.write(2, f"cnisandbox: {text}\n".encode("utf-8", "replace"))


class AuditLog:
    """Writes the records of one session.

    Args:
        fd: Of an open log (`open_log`); negative for none: then nothing is written, and nothing counted.
        plugin: Name of the plugin.
        container_id: The attachment's container; empty where there is no attachment, as its ifname.
        ifname: The attachment's interface.
        kind: "file" or "journald".

    Attributes:
        dropped: How many records are not in the log.
    """

    def __init__(self, fd: int, plugin: str, container_id: str, ifname: str, kind: str = FILE) -> None:
        self.dropped = 0
        self._fd = fd
        self._is_journald = kind == JOURNALD
        self._names = {"plugin": plugin, "container": container_id, "ifname": ifname}
        self._names = {name: value[:_NAME_CHARACTERS] for name, value in self._names.items()}
        self._opening = encode(self._names)[1:-1] if fd >= 0 else ""
        self._lines = 0
        self._bytes = 0
        self._why_dropped = ""
        self._is_torn = False

    def write(self, record: Entry) -> None:
        """Write a record, or count it as dropped; raises nothing."""
        if self._fd < 0:
            return
        try:
            if self._has_room():
                self._put(self._line(record), record)
            else:
                self._drop("there are more in one session than the log takes")
        except OSError as error:
            self._drop(reason(error))
        except Exception as error:  # noqa: BLE001 - a record that cannot be written ends no call
            self._drop(type(error).__name__)

    def close(self) -> str:
        """Write how many records were dropped, if any were; the descriptor stays open.

        Returns:
            The same as a sentence for standard error; empty if the log has everything.
        """
        if not self.dropped:
            return ""
        with suppress(OSError):  # what is returned says it, too
            self._put(self._dropped_line(), None)
        return f"audit log: {self.dropped} messages of this call are not in it: {self._why_dropped}"

    def _has_room(self) -> bool:
        return self._lines < SESSION_LINES and self._bytes + LINE_BYTES <= SESSION_BYTES

    def _drop(self, why: str) -> None:
        self.dropped += 1
        self._why_dropped = self._why_dropped or why
        if self.dropped == 1:
            # ORDER: now, because a session that is killed writes no last line.
            with suppress(OSError):
                self._put(self._dropped_line(), None)

    def _line(self, record: Entry) -> str:
        """Make the line of a record, no longer than LINE_BYTES with its newline."""
        verdict = {"permit": record.permit[:_NAME_CHARACTERS]}
        if not record.permit:
            verdict = {"refused": (record.reason or "no permit matches")[:_REASON_CHARACTERS]}
        head = f'{self._head()},"netns":{encode(record.netns[:_NAME_CHARACTERS])},"message":'
        tail = f",{encode(verdict)[1:]}"
        message = encode(record.message)
        room = LINE_BYTES - len(head) - len(tail) - 1
        if len(message) > room:
            # Each character of the text, which is printable ASCII, becomes two at most.
            shown = encode(message[: max(0, (room - 128) // 2)])
            message = f'{{"type":{encode(str(record.message.get("type", ""))[:32])},"cut":{shown}}}'
        return f"{head}{message}{tail}"

    def _head(self) -> str:
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return f'{{"time":"{moment}.{nanoseconds // 1000:06}Z",{self._opening}'

    def _dropped_line(self) -> str:
        return f"{self._head()},{encode({'dropped': self.dropped, 'reason': self._why_dropped})[1:]}"

    def _put(self, line: str, record: Entry | None) -> None:
        """Write a line at once and whole.

        Raises:
            OSError: It could not be written.
        """
        if self._is_journald:
            data = self._datagram(line, record)
        else:
            if os.fstat(self._fd).st_size + len(line) >= FILE_BYTES:
                raise OSError(0, "the file has reached its full size")
            # A line that was cut off, as a disk that fills up does it, must not spoil the one after it.
            data = ("\n" * self._is_torn + line + "\n").encode("ascii")
        # KERNEL: with O_APPEND a write goes to the end as one piece, whoever else is writing.
        written = os.write(self._fd, data)
        self._is_torn = written < len(data)
        self._lines += 1
        self._bytes += written
        if self._is_torn:
            raise OSError(0, "no space left on device")

    def _datagram(self, line: str, record: Entry | None) -> bytes:
        """Make the entry of the journal; no value has a newline, so each field is one line."""
        fields = {f"CNISANDBOX_{name.upper()}": value for name, value in self._names.items()}
        if record is None:
            text = f"{self.dropped} messages are not in the log: {self._why_dropped}"
        elif record.permit:
            text = f"permitted by {record.permit}: {line_of(record.message)}"
            fields |= {"CNISANDBOX_NETNS": record.netns, "CNISANDBOX_PERMIT": record.permit}
        else:
            text = f"refused ({record.reason}): {line_of(record.message)}"
            fields |= {"CNISANDBOX_NETNS": record.netns, "CNISANDBOX_REFUSED": record.reason}
        is_warning = record is None or not record.permit
        fields |= {
            "MESSAGE": f"{self._names['plugin']} {self._names['container']}/{self._names['ifname']} {text}",
            "PRIORITY": str(_PRIORITY_WARNING if is_warning else _PRIORITY_INFO),
            "SYSLOG_IDENTIFIER": SYSLOG_IDENTIFIER,
            "CNISANDBOX_RECORD": line,
        }
        return "".join(f"{name}={_one_line(value)}\n" for name, value in fields.items()).encode("utf-8", "replace")


def _one_line(value: str) -> str:
    # TRUST: a name may be the plugin's; a newline in it would begin a field of its choice.
    return value[:LINE_BYTES].replace("\n", "\\n")

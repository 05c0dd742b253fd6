"""What strace wrote, one file for each thread, as system calls in the order of time.

    1795248504.601785874 sendto(3<socket:[21318368]>, ""..., 64, 0, 0xc00001c190, 12) = 64
     | 00000  40 00 00 00 10 00 05 06  01 00 00 00 00 00 00 00  @............... |

Bytes that were sent or received follow the call; a string within one is left out, except paths.

Privilege: none.

Source: strace(1), version 6.1.
"""

import re
from collections.abc import Iterator, Mapping
from posixpath import normpath
from typing import NamedTuple

_CALL = re.compile(
    r"(?P<time>\d+\.\d+) (?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+|0x[0-9a-f]+|\?)"
    r"(?:<(?P<object>[^>]*)>)?(?P<rest>.*)"
)
_BYTES = re.compile(r" \| [0-9a-f]{5,}  (?P<bytes>(?:[0-9a-f]{2} {1,2})+)")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<directory>[^>]*)>, )?"(?P<path>(?:[^"\\]|\\.)*)"')
_DESCRIPTOR = re.compile(r"(?P<fd>\d+)<(?P<object>[^>]*)>")
_ESCAPE = re.compile(r"\\(?:(?P<octal>[0-7]{1,3})|x(?P<hex>[0-9a-f]{2})|(?P<letter>.))")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f"}


class SystemCall(NamedTuple):
    """A system call that has come back.

    Attributes:
        time_ns: When it began, since the epoch.
        thread: Its number.
        name: Such as "openat".
        arguments: As strace writes them.
        result: What it returned; negative: it failed.
        object: What a descriptor that it returned means: a path, "socket:[INODE]", "net:[INODE]"; "" for none.
        error: Name of the errno, such as "ENOENT"; "" for none.
        data: Bytes that were sent or received.
    """

    time_ns: int
    thread: int
    name: str
    arguments: str
    result: int
    object: str
    error: str
    data: bytes

    def paths(self, directory: str) -> list[str]:
        """List the paths among the arguments.

        Args:
            directory: What a path is relative to where strace does not say.
        """
        found = []
        for match in _PATH.finditer(self.arguments):
            path = unescaped(match["path"])
            if path and not path.startswith("/"):
                path = f"{(match['directory'] or directory).rstrip('/')}/{path}"
            found.append(normpath(path) if path else path)
        return found

    def descriptor(self) -> tuple[int, str]:
        """Say which descriptor the first argument is, and what it means; -1 and "" if it is none."""
        match = _DESCRIPTOR.match(self.arguments)
        return (int(match["fd"]), match["object"]) if match else (-1, "")


def parse(files: Mapping[str, str]) -> list[SystemCall]:
    """Parse what strace wrote.

    Args:
        files: Number of a thread, as text, to what was written about it.

    Returns:
        The calls that have come back, in the order in which they began.
    """
    calls = [call for thread, text in files.items() for call in _calls(int(thread), text)]
    return sorted(calls, key=lambda call: call.time_ns)


def unescaped(text: str) -> str:
    """Read a string as C writes it."""
    return _ESCAPE.sub(_character, text)


def _character(match: "re.Match[str]") -> str:
    if match["octal"]:
        return chr(int(match["octal"], 8))
    if match["hex"]:
        return chr(int(match["hex"], 16))
    return _LETTERS.get(match["letter"], match["letter"])


def _calls(thread: int, text: str) -> Iterator[SystemCall]:
    current: SystemCall | None = None
    data = bytearray()
    for line in text.splitlines():
        shown = _BYTES.match(line)
        if shown:
            data += bytes.fromhex(shown["bytes"])
            continue
        match = _CALL.fullmatch(line)
        if match is None:
            continue
        if current is not None:
            yield current._replace(data=bytes(data))
        data.clear()
        current = _call(thread, match)
    if current is not None:
        yield current._replace(data=bytes(data))


def _call(thread: int, match: "re.Match[str]") -> SystemCall:
    seconds, _, nanoseconds = match["time"].partition(".")
    result = _number(match["result"])
    error = match["rest"].split()[0] if match["result"] == "-1" and match["rest"].strip() else ""
    time_ns = int(seconds) * 10**9 + int(nanoseconds.ljust(9, "0")[:9])
    return SystemCall(time_ns, thread, match["name"], match["arguments"], result, match["object"] or "", error, b"")


def _number(text: str) -> int:
    """Read what a call returned: "?" for one that never did, octal for umask."""
    if text == "?":
        return -1
    is_octal = len(text) > 1 and text.startswith("0") and text.isdecimal()
    return int(text, 8 if is_octal else 0)

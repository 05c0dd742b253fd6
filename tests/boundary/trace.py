"""A call of a plugin under strace, as a list of system calls, with what each process had dropped by then."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.world import World

_DROPS = ("setresuid", "capset", "seccomp")
_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?([a-z0-9_]+)(?: resumed>|\()(.*)")
_FORKS = ("clone", "clone3", "fork", "vfork")
NETCONF_PATH = "/run/netconf.json"
_TRACE_PATH = "/run/trace"


class SystemCall(NamedTuple):
    """One line of a trace.

    Attributes:
        pid: Who made it.
        name: Of the call.
        text: Arguments and result; descriptors carry their paths.
        dropped: What the process had dropped before: names out of setresuid, capset, seccomp.
    """

    pid: int
    name: str
    text: str
    dropped: frozenset[str]

    @property
    def is_privileged(self) -> bool:
        """Whether the process had not finished its drop."""
        return len(self.dropped) < len(_DROPS)


def trace(world: World, argv: list[str], env: dict[str, str], netconf: bytes) -> tuple[list[SystemCall], bytes]:
    """Run a plugin under strace, with a file that one can recognise as its standard input.

    Returns:
        Every system call on files, descriptors and credentials, of every process; and what was written to stdout.
    """
    world.outside_path(NETCONF_PATH).write_bytes(netconf)
    calls = ",".join(("%desc", "%file", *_DROPS, *_FORKS))
    strace = f"strace -f -y -s 64 -e signal=none -e trace={calls} -o {_TRACE_PATH}"
    done = world.run(["sh", "-c", f'exec {strace} "$@" <{NETCONF_PATH}', "sh", *argv], env=env, expect=None, timeout=60)
    text = world.read(_TRACE_PATH).decode(errors="replace")
    return list(_parse(text)), done.stdout


def _parse(text: str) -> Iterator[SystemCall]:
    dropped: dict[int, frozenset[str]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        pid, name, rest = int(match[1]), match[2], match[3]
        own = dropped.setdefault(pid, frozenset())
        if "resumed>" not in line:
            yield SystemCall(pid, name, rest, own)
        result = re.search(r"\) += (\d+)(?:<.*>)?$", rest)
        if result is None:
            continue
        if name in _DROPS and result[1] == "0":
            dropped[pid] = own | {name}
        if name in _FORKS:
            dropped.setdefault(int(result[1]), own)

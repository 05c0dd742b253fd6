"""A zygote in a world, and calls of which one can say who has served them."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tests.interop.plugin_calls import JsonObject, Plugins
from tests.world import Completed, World, wait_until

DIRECTORY = "/run/cnisandbox/zygote"
PLUGINS = ("bridge", "host-local", "loopback", "runner")
NETCONF: JsonObject = {
    "cniVersion": "1.1.0",
    "name": "warm",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd00:77::/64"}]]},
}
LOOPBACK: JsonObject = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
# /proc/PID/syscall begins with the number of accept4.
_ACCEPT = {"x86_64": "288 ", "aarch64": "242 "}[platform.machine()]
_VETH = re.compile(rb"\bveth[0-9a-f]{8}\b")
_MAC = re.compile(rb"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b")


class Process(NamedTuple):
    """A process, as the process list shows it."""

    pid: int
    title: str


class Call(NamedTuple):
    """A call that is over.

    Attributes:
        answer: What it wrote, and its status.
        attestations: What its processes have attested, by role; empty when it did not come to that.
        launcher: The process that was executed.
    """

    answer: Completed
    attestations: dict[str, JsonObject]
    launcher: int

    @property
    def engine_parent(self) -> int:
        """The parent of the process that has served the call."""
        return int(self.attestations["engine"]["ppid"])


class Zygote:
    """`cnisandbox serve` in a world, and the plugins that find it there.

    Args:
        world: Where it runs; the netns "blue" is made.
        plugin_dir: Where the launchers are.
        *arguments: Of `cnisandbox serve`.
        start: Whether to start it at once.
    """

    def __init__(self, world: World, plugin_dir: str, *arguments: str, start: bool = True) -> None:
        self.world = world
        self.plugins = Plugins(world, plugin_dir)
        self._arguments = arguments
        self._calls = 0
        self._process: subprocess.Popen[bytes] | None = None
        world.netns("blue")
        if start:
            self.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(
        self,
        stderr: int | None = None,
        *,
        prefix: tuple[str, ...] = (),
        slots: Mapping[str, int] | None = None,
    ) -> None:
        """Start it, or another one; returns when every slot waits for a call.

        Args:
            stderr: A descriptor for what it says, instead of the log.
            prefix: A command to execute it with, which becomes it.
            slots: How many wait, where `--pool` does not say so.
        """
        command = [*prefix, sys.executable, "-I", "-m", "cnisandbox.cli.main", "serve", *self._arguments]
        log = os.open(self.world.outside_path("/run/zygote.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = self.world.popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=stderr or log)
        finally:
            os.close(log)
        self.wait_until_ready(slots)

    @property
    def log(self) -> str:
        """What it has said."""
        return self.world.read("/run/zygote.log").decode()

    def children(self) -> list[Process]:
        """What it has made: slots, and engines."""
        return children(self.pid)

    def slots(self, plugin: str = "bridge") -> list[int]:
        """The slots of a plugin that wait for a call."""
        return [pid for pid, title in self.children() if title == f"cnisandbox: slot [{plugin}]" and is_waiting(pid)]

    def wait_until_ready(self, slots: Mapping[str, int] | None = None) -> None:
        """Wait until each pool is full."""
        wanted = slots or dict.fromkeys(PLUGINS, self._pool_size())

        def is_full() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            return all(len(self.slots(plugin)) == count for plugin, count in wanted.items()) and len(
                self.children()
            ) == sum(wanted.values())

        wait_until(is_full, timeout=20)

    def _pool_size(self) -> int:
        return int(self._arguments[self._arguments.index("--pool") + 1])

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for its end; its status."""
        assert self._process is not None
        return self._process.wait(timeout=20)

    def begin(
        self, verb: str, netconf: JsonObject = NETCONF, *, prefix: tuple[str, ...] = (), **which: Any
    ) -> "Underway":
        """Start a call; it waits for its netconf.

        Args:
            verb: Value of CNI_COMMAND.
            netconf: What it gets on standard input, in the end.
            prefix: A command to execute the launcher with.
            **which: `env`, and what `Plugins.environment` takes.
        """
        self._calls += 1
        path = f"/run/attested-{self._calls}"
        env = {"CNISANDBOX_ATTEST": path, **(which.pop("env", None) or {})}
        variables = {**self.plugins.environment(verb, **which), **env}
        child = self.world.popen([*prefix, f"{self.plugins.directory}/{netconf['type']}"], env=variables)
        return Underway(self, child, json.dumps(netconf).encode(), path)

    def call(self, verb: str, netconf: JsonObject = NETCONF, *, expect: int | None = 0, **which: Any) -> Call:
        """Make a call."""
        return self.begin(verb, netconf, **which).finish(expect=expect)

    def warm(self, verb: str, netconf: JsonObject = NETCONF, **which: Any) -> Call:
        """Make a call that a slot must serve."""
        call = self.call(verb, netconf, **which)
        assert call.engine_parent == self.pid, (call, self.log)
        return call

    def cold(self, verb: str, netconf: JsonObject = NETCONF, **which: Any) -> Call:
        """Make a call that no slot may serve."""
        title = f"cnisandbox: slot [{netconf['type']}]"
        before = {pid for pid, shown in self.children() if shown == title}
        call = self.call(verb, netconf, **which)
        assert call.attestations["engine"]["pid"] == call.launcher, (call, self.log)
        if self._process is not None and self._process.poll() is None:
            assert before <= {pid for pid, shown in self.children() if shown == title}, self.log
        return call

    def delete(self, **which: Any) -> None:
        """Have DEL clean up, however it is served."""
        self.call("DEL", **which)


class Underway:
    """A call that was started.

    Attributes:
        child: The launcher.
    """

    def __init__(self, zygote: Zygote, child: "subprocess.Popen[bytes]", netconf: bytes, path: str) -> None:
        self.child = child
        self._world = zygote.world
        self._zygote = zygote
        self._netconf = netconf
        self._path = path

    @property
    def engine(self) -> int:
        """The process that waits for the netconf, a slot that has taken the call."""

        def taken() -> int:
            found = [pid for pid, title in self._zygote.children() if "engine" in title and is_reading(pid)]
            return found[0] if found else 0

        return int(wait_until(taken))

    def give_netconf(self) -> None:
        """Write the netconf; to be called at most once, before `finish`."""
        stdin = self.child.stdin
        if stdin is not None:
            with suppress(BrokenPipeError):
                stdin.write(self._netconf)
                stdin.close()
            self.child.stdin = None

    def finish(self, expect: int | None = 0, timeout: float = 20) -> Call:
        """Give it its netconf, if it has none yet, and wait for its end."""
        self.give_netconf()
        stdout, stderr = self.child.communicate(timeout=timeout)
        answer = Completed(stdout, stderr, self.child.returncode)
        if expect is not None:
            assert answer.returncode == expect, (answer, self._zygote.log)
        return Call(answer, self._attested(), self.child.pid)

    def _attested(self) -> dict[str, JsonObject]:
        with suppress(FileNotFoundError):
            lines = self._world.read(self._path).splitlines()
            return {record["role"]: record for record in map(json.loads, lines)}
        return {}


def children(pid: int) -> list[Process]:
    """The children of a process, with their titles."""
    found = []
    with suppress(OSError):
        for word in _text(f"/proc/{pid}/task/{pid}/children").split():
            with suppress(OSError):  # it has ended meanwhile
                found.append(Process(int(word), title_of(int(word))))
    return found


def title_of(pid: int) -> str:
    """What the process list shows."""
    return _text(f"/proc/{pid}/cmdline").rstrip("\0")


def is_alive(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        return ") Z " not in _text(f"/proc/{pid}/stat")
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Say whether a process is there and stopped, by a signal or a tracer."""
    try:
        return status_of(pid)["State"][0] in "Tt"
    except OSError:
        return False


def is_waiting(slot: int) -> bool:
    """Say whether a slot waits for a connection."""
    return _does(slot, _ACCEPT)


def is_reading(pid: int) -> bool:
    """Say whether a process waits for what comes on its standard input."""
    return _does(pid, "0 0x0 ")


def _does(pid: int, beginning: str) -> bool:
    try:
        return _text(f"/proc/{pid}/syscall").startswith(beginning)
    except OSError:
        return False


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    pairs = (line.split(":", 1) for line in _text(f"/proc/{pid}/status").splitlines())
    return {name: value.strip() for name, value in pairs}


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def without_macs(text: bytes) -> bytes:
    """Number the MAC addresses of a text, which are random, by their first appearance."""
    return _numbered(_MAC, b"mac", text)


def without_veths(text: bytes) -> bytes:
    """Number the names of veths that the reference bridge makes up, likewise."""
    return _numbered(_VETH, b"veth-", text)


def _numbered(pattern: "re.Pattern[bytes]", word: bytes, text: bytes) -> bytes:
    numbers: dict[bytes, int] = {}

    def number(found: "re.Match[bytes]") -> bytes:
        return b"%s%d" % (word, numbers.setdefault(found.group(), len(numbers)))

    return pattern.sub(number, text)


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs."""
    found = [child.pid for child in children(pid)]
    return [*found, *(below for child in found for below in descendants(child))]


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function.

    Returns:
        What it returned, and how many seconds it took.
    """
    before = time.monotonic()
    value = function()
    return value, time.monotonic() - before

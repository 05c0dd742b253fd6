"""The columns of the matrix: how a plugin is run, and which of its processes the attacker has.

    root       a process of root with everything: how plugins run today
    netadmin   our own plugin at that level; each process of a call is attacked, as at hardened
    hardened   likewise
    mediated   likewise: the engine, which has its gates, and the delegate worker
    runner     a plugin that is not ours under `cnisandbox exec`, at level mediated with the profile of bridge

Every process is made as the product makes it, out of a fork of the arena that carries the attempt; under the runner the
attacker's modules are a program, which is executed.

Privilege: everything; the processes end up with what their column says.
"""

import contextlib
import errno
import io
import json
import os
import py_compile
import socket
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from cnisandbox import late  # noqa: F401 - before the drop, as without a bundle
from cnisandbox import plugin as plugins
from cnisandbox.boundary import entry, namespaces
from cnisandbox.boundary.attestation import verify
from cnisandbox.boundary.calls import declared, declared_for_delegate
from cnisandbox.boundary.delegate import delegate_worker
from cnisandbox.boundary.entry import Session
from cnisandbox.boundary.environment import read_environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    Sandbox,
    ServiceUser,
    Worker,
    network_worker,
    spawn,
)
from cnisandbox.boundary.state import open_state_dirs
from cnisandbox.boundary.wire import Channel
from cnisandbox.boundary.workers import Needs
from cnisandbox.cli import execute
from cnisandbox.cni.netconf import Attachment
from cnisandbox.errors import BoundaryViolation, IsolationUnavailable
from cnisandbox.laboratory.attacker import __main__ as attacker
from cnisandbox.laboratory.attacker import knowledge, raw
from cnisandbox.laboratory.attacker.knowledge import ATTEST_FILE, PLUGIN_DIRECTORY, Facts, Said
from cnisandbox.monitor import client
from cnisandbox.monitor.client import Gate
from cnisandbox.names import host_ifname
from cnisandbox.plugins.bridge import Bridge

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

CONTAINER_WORKER, HOST_WORKER, ENGINE, DELEGATE_WORKER, LIBRARY, PLUGIN = (
    "container worker",
    "host worker",
    "engine",
    "delegate worker",
    "library sandbox",
    "plugin",
)

ROOT, NETADMIN, HARDENED, MEDIATED, RUNNER = "root", "netadmin", "hardened", "mediated", "runner"

# Column to the processes that are attacked in it, each in an arena of its own.
PROCESSES = {
    ROOT: (PLUGIN,),
    NETADMIN: (ENGINE, CONTAINER_WORKER, HOST_WORKER, DELEGATE_WORKER),
    HARDENED: (ENGINE, CONTAINER_WORKER, HOST_WORKER, DELEGATE_WORKER),
    MEDIATED: (ENGINE, DELEGATE_WORKER),
    RUNNER: (PLUGIN,),
}
COLUMNS = tuple(PROCESSES)

ATTEMPTS: dict[str, Callable[[Facts], Said | None]] = {}

_NETWORK, _CONTAINER_ID, _IFNAME, _BRIDGE = "laboratory", "laboratory", "eth0", "cni0"
_PROGRAM = f"{PLUGIN_DIRECTORY}/bridge"
_INTERPRETER = "/usr/bin/python3"
_ANSWER_BYTES = 1 << 16


class Attacked(NamedTuple):
    """A process that the attacker has.

    Attributes:
        pid: Its number in the arena.
        attempt: Has it make the attempt; returns what it says, and which signal has ended it, 0 if it lives.
        poke: Says something to it.
    """

    pid: int
    attempt: Callable[[], tuple[Said, int]]
    poke: Callable[[], object]


def place(arena: "Arena", column: str, process: str, attempt: str, where: str) -> Attacked:
    """Put the attacker in place.

    Args:
        arena: The host.
        column: Key of PROCESSES.
        process: One of its processes.
        attempt: Key of ATTEMPTS.
        where: Whose netns he speaks to, where he can choose: "container" or "host".
    """
    if column == RUNNER:
        return _foreign_plugin(arena, attempt, where)
    if column == ROOT:
        return _piped(arena, lambda facts: _be_root(arena, attempt, where, facts))
    level = Level(column)
    if process == ENGINE:
        return engine(arena, level, attempt, where)
    return worker(arena, process, level, attempt)


# Workers


@declared
def attempt_as_worker(name: str, facts: Facts) -> Said:
    """Make an attempt in the process that is attacked."""
    return knowledge.make(ATTEMPTS[name], facts)


@declared_for_delegate
def attempt_as_delegate(name: str, facts: Facts) -> Said:
    """Make an attempt in the delegate worker, which may not be asked for anybody else's functions."""
    return knowledge.make(ATTEMPTS[name], facts)


def worker(arena: "Arena", role: str, level: Level, attempt: str) -> Attacked:
    """Fork a worker as the entry does, or a sandbox of the library."""
    made = _in_library(level) if role == LIBRARY else _spawned(arena, role, level)
    made.attest()

    def call() -> tuple[Said, int]:
        function = attempt_as_delegate if role == DELEGATE_WORKER else attempt_as_worker
        try:
            return made.call(function, attempt, arena.facts), 0
        except BoundaryViolation:
            killed_by = _killed_by(made.pid)
            if not killed_by:  # it left by itself: a defect of the attempt
                raise
            return Said(0), killed_by

    return Attacked(made.pid, call, lambda: os.write(made.descriptors[1], b"x"))


def _in_library(level: Level) -> Worker:
    return Sandbox("/run/netns/blue", level).__enter__()._entered()


def _spawned(arena: "Arena", role: str, level: Level) -> Worker:
    own_namespaces = namespaces.inodes()
    netns = namespaces.open_netns("/run/netns/blue")
    pid_namespaces = namespaces.NewPidNamespaces()
    title = f"[bridge {_IFNAME}]"
    if role == CONTAINER_WORKER:
        wanted = network_worker(role, level, arena.service, netns)
        return spawn(wanted, own_namespaces, None, netns.inode, pid_namespaces, title)
    if role == HOST_WORKER:
        protocols = (NETLINK_ROUTE, NETLINK_NETFILTER) if Bridge.needs.is_nft_user else (NETLINK_ROUTE,)
        wanted = network_worker(role, level, arena.service, None, protocols)
        return spawn(wanted, own_namespaces, netns.fd, None, pid_namespaces, title)
    user = ServiceUser(0, 0) if level is Level.ROOT else arena.service
    own_level = Level.ROOT if level is Level.ROOT else Level.HARDENED
    wanted = delegate_worker(own_level, user, open_state_dirs(*user), (PLUGIN_DIRECTORY,))
    return spawn(wanted, own_namespaces, None, None, pid_namespaces, title)


def _killed_by(pid: int) -> int:
    """Say which signal ended a process; 0 when it left by itself."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return 0 if ended is None or ended.si_code == os.CLD_EXITED else int(ended.si_status)


# A process of root, and the engine: they are spoken to through standard input and output.


def _piped(arena: "Arena", be: Callable[[Facts], NoReturn]) -> Attacked:
    """Fork a process that says when it is in place, makes its attempt when it is told to, and says what came of it.

    Args:
        arena: The host.
        be: Lives as that process; it is given what the attacker knows.
    """
    from_attacked, to_arena = os.pipe()
    from_arena, to_attacked = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(from_arena, 0)
        os.dup2(to_arena, 1)
        for fd in (from_attacked, to_arena, from_arena, to_attacked):
            os.close(fd)
        _live(be, arena.facts._replace(input_fd=0))
    os.close(to_arena)
    os.close(from_arena)
    confined = os.read(from_attacked, _ANSWER_BYTES)
    if confined != b"ready":
        raise AssertionError(confined.decode() or "the attacked process was not confined")

    def attempt() -> tuple[Said, int]:
        os.write(to_attacked, b"x")
        answer = os.read(from_attacked, _ANSWER_BYTES)
        if answer:
            return Said(*json.loads(answer)), 0
        killed_by = _killed_by(pid)
        if not killed_by:
            raise AssertionError("the attacked process left without an answer")
        return Said(0), killed_by

    return Attacked(pid, attempt, lambda: os.write(to_attacked, b"x"))


def _live(be: Callable[[Facts], NoReturn], facts: Facts) -> NoReturn:
    try:
        be(facts)
    except BaseException as error:
        os.write(1, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:_ANSWER_BYTES])
    finally:
        os._exit(0)


def _serve(name: str, facts: Facts) -> NoReturn:
    """Say that we are in place, make the attempt when poked, say what came of it, wait."""
    os.write(1, b"ready")
    os.read(facts.input_fd, 1)
    os.write(1, json.dumps(knowledge.make(ATTEMPTS[name], facts)).encode())
    while os.read(facts.input_fd, 1):
        pass
    os._exit(0)


def _be_root(arena: "Arena", name: str, where: str, facts: Facts) -> NoReturn:
    if where == "container":
        arena.enter("blue")
    attest_fd = entry.open_attest_file(ATTEST_FILE)
    _serve(name, facts._replace(attest_fd=-1 if attest_fd is None else attest_fd))


def engine(arena: "Arena", level: Level, attempt: str, where: str) -> Attacked:
    """Fork a process that becomes the engine of a call of bridge, with everybody else who belongs to the call."""
    return _piped(arena, lambda facts: _be_engine(level, attempt, where, facts))


def _be_engine(level: Level, name: str, where: str, facts: Facts) -> NoReturn:
    variables = {**_variables(), "CNISANDBOX_LEVEL": level.value, "CNISANDBOX_ATTEST": ATTEST_FILE}
    needs = Bridge.needs._replace(gate=lambda *call: plugins._gate(Bridge.name, *call))
    if level is Level.ROOT:  # a plugin is what a reference plugin is: alone, and it opens directories by their paths
        needs = Needs()
    session = entry._prepare(Bridge.name, needs, read_environment(variables))
    verify(session.attestation, session.expectation, allows_degraded=True)
    for made in (session.host, session.container, session.delegate):
        if made is not None:
            made.attest()
    if level is Level.MEDIATED:
        raw.take(_roads_through_gates(session, where))
    state_fd = session.state_dirs[0].fd if session.state_dirs else -1
    _serve(name, facts._replace(state_fd=state_fd, attest_fd=-1 if session.attest_fd is None else session.attest_fd))


def _variables() -> dict[str, str]:
    return {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": _CONTAINER_ID,
        "CNI_NETNS": "/run/netns/blue",
        "CNI_IFNAME": _IFNAME,
        "CNI_PATH": f"{PLUGIN_DIRECTORY}:/usr/lib/cni",
        "PATH": os.defpath,
    }


def _roads_through_gates(session: Session, where: str) -> raw.Roads:
    """Have what a hostile engine wants of the network go through its gates, which is the only way it has.

    The gates are told what the netconf names when something is first asked, so that an attempt may lie about it.
    """
    attachment = Attachment(_CONTAINER_ID, _IFNAME)
    names = {"bridge": [_BRIDGE], "host": [host_ifname(_NETWORK, attachment, attempt) for attempt in range(4)]}

    @cache
    def gates() -> dict[str, Gate]:
        found: list[Gate] = []

        def connect(channel: Channel) -> Gate:
            found.append(Gate(channel))
            return found[-1]

        for made in (session.host, session.container):
            assert made is not None
            made.become_gate(names, connect)
        return dict(zip(("host", "container"), found, strict=True))

    def write_setting(name: str, value: bytes) -> None:
        _ask(gates()[where], client.WRITE_SYSCTL, name.removeprefix("net/"), value)

    return raw.Roads(
        open_netlink=lambda protocol: cast(socket.socket, _GateSocket(gates()[where], protocol)),
        write_setting=write_setting,
        run_nftables=lambda commands: str(_ask(gates()["host"], client.NFTABLES, commands)),
        name_links=names.__setitem__,
    )


def _ask(gate: Gate, operation: int, where: object, data: bytes | None = None) -> object:
    """Ask a gate; one that ends instead has refused."""
    try:
        return gate.ask(operation, where, data)
    except BoundaryViolation as violation:
        raise OSError(errno.EPROTO, str(violation)) from violation


class _GateSocket:
    """What an attempt gets for a netlink socket where it has to go through a gate."""

    def __init__(self, gate: Gate, protocol: int) -> None:
        self._gate = gate
        self._protocol = protocol
        self._received = b""
        _ask(gate, client.OPEN, protocol)

    def send(self, data: bytes) -> int:
        """Send a datagram."""
        self._received += cast(bytes, _ask(self._gate, client.SEND, self._protocol, data))
        return len(data)

    def sendto(self, data: bytes, address: tuple[int, int]) -> int:
        """Send a datagram to the kernel; a gate has no word for anybody else."""
        if address != (0, 0):
            raise PermissionError(errno.EPERM, "the gate sends to the kernel")
        return self.send(data)

    def recv(self, _size: int) -> bytes:
        """Receive a datagram; most have come with the answer to what was sent."""
        data = self._received or cast(bytes, _ask(self._gate, client.RECEIVE, self._protocol))
        self._received = b""
        return data

    def setsockopt(self, level: int, option: int, value: object) -> None:
        """A gate has set what is useful, and knows no request for anything else."""
        is_set = level == raw.SOL_NETLINK and option in (10, 11, raw.NETLINK_GET_STRICT_CHK) and value == 1
        if not is_set:
            raise PermissionError(errno.EPERM, "the gate knows no such request")

    def bind(self, address: tuple[int, int]) -> None:
        """It is bound, and to no group."""
        if address != (0, 0):
            raise PermissionError(errno.EPERM, "the gate knows no such request")

    def settimeout(self, _timeout_s: float | None) -> None:
        """A gate has a timeout of its own."""

    def close(self) -> None:
        """The gate keeps it."""

    def __getattr__(self, name: str) -> object:
        """Whatever else a socket can do, nobody can ask a gate for it."""
        raise PermissionError(errno.EPERM, f"the gate knows no {name}")


# Somebody else's plugin


def _foreign_plugin(arena: "Arena", attempt: str, where: str) -> Attacked:
    """Execute the attacker's program under the runner; it waits for its netconf."""
    with open(_PROGRAM, "wb", opener=lambda path, flags: os.open(path, flags, 0o755)) as file:
        file.write(packed_attacker())
    stdin_read, stdin_write = os.pipe()
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        _execute((stdin_read, stdout_write, stderr_write))
    for fd in (stdin_read, stdout_write, stderr_write):
        os.close(fd)
    lines = os.fdopen(stderr_read, "r", errors="replace")

    def awaited(mark: str) -> str:
        said: list[str] = []
        for line in lines:
            if line.startswith(mark):
                return line.removeprefix(mark)
            said.append(line)
        os.set_blocking(stdout_read, False)
        with contextlib.suppress(BlockingIOError):
            said.append(os.read(stdout_read, _ANSWER_BYTES).decode("utf-8", "replace"))
        raise EOFError(" ".join("".join(said).split()))

    try:
        awaited(attacker.READY)
    except EOFError as error:
        raise AssertionError(f"the runner did not execute the attacker: {error}") from error
    netconf = {
        "cniVersion": "1.0.0",
        "name": _NETWORK,
        "type": "bridge",
        "bridge": _BRIDGE,
        "attack": {
            **attacker.address_of(ATTEMPTS[attempt]),
            "where": where,
            "facts": attacker.facts_as_values(arena.facts),
        },
    }

    def call() -> tuple[Said, int]:
        os.write(stdin_write, json.dumps(netconf).encode())
        os.close(stdin_write)
        try:
            return Said(*json.loads(awaited(attacker.SAID))), 0
        except EOFError as error:
            killed_by = _killed_by(keeper)  # which ends as the plugin did
            if not killed_by:
                raise AssertionError(f"the attacker left without an answer: {error}") from error
            return Said(0), killed_by

    return Attacked(_pid_of_program(), call, lambda: None)


def _execute(standard: tuple[int, int, int]) -> NoReturn:
    """Be `cnisandbox exec`."""
    try:
        for number, fd in enumerate(standard):
            os.dup2(fd, number)
        for fd in standard:
            os.close(fd)
        os.environ.clear()
        os.environ.update(_variables())
        execute.main(["--level", Level.MEDIATED.value, "--", _PROGRAM])
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(70)


def _pid_of_program() -> int:
    """Find the process that executes the attacker's program: the interpreter, with the program as its argument."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[0].startswith(b"/usr/bin/python") and _PROGRAM.encode() in words[1:3]:
                return int(name)
    raise AssertionError("the attacker's program is not there")


@cache
def packed_attacker() -> bytes:
    """Pack the attacker's modules into one executable file, with their byte code.

    Raises:
        IsolationUnavailable: there is no interpreter that a plugin under the runner can see.
    """
    if not os.access(_INTERPRETER, os.X_OK):
        raise IsolationUnavailable(f"execute {_INTERPRETER}: it is not there", "install the package python3")
    package = Path(attacker.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, tempfile.TemporaryDirectory() as directory:
        for folder in ("cnisandbox", "cnisandbox/laboratory"):
            archive.writestr(f"{folder}/__init__.py", "")
        for source in sorted(package.glob("*.py")):
            name = f"cnisandbox/laboratory/attacker/{source.stem}"
            archive.writestr(f"{name}.py", source.read_bytes())
            compiled = f"{directory}/{source.stem}.pyc"
            py_compile.compile(
                str(source),
                compiled,
                name + ".py",
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
            archive.writestr(f"{name}.pyc", Path(compiled).read_bytes())
        archive.writestr("__main__.py", "from cnisandbox.laboratory.attacker.__main__ import main\n\nmain()\n")
    return f"#!{_INTERPRETER} -ISB\n".encode() + buffer.getvalue()

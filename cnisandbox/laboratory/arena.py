"""Where an attempt is made: a machine in small, with the attacked process in it, judged from outside of that process.

    world ── arena: process 1 of its own pid namespace, in fresh network and mount namespaces: "the host"
               │  links of the host     hostbr0 (deletable), uplink0 ── uplink1, veth0, and one with a name made up
               │                        after the worker was forked
               │  files of the host     /run, /var/lib/cni: empty tmpfs; /run/open is writable for everybody
               ├── /run/netns/blue      the container: eth0 ── veth0 of the host
               ├── /run/netns/victim    a container of somebody else
               ├── bystander            a process of root
               ├── neighbour            one of the service user, like the engine of another call
               └── the attacked process: container worker, host worker, engine or delegate worker

A fork carries the attempts into the attacked process; what came of one is read from the kernel's state by the arena.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

import prctl

from cnisandbox.boundary import entry, namespaces
from cnisandbox.boundary.calls import declared, declared_for_delegate
from cnisandbox.boundary.delegate import delegate_worker
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import Sandbox, ServiceUser, Worker, network_worker, service_user, spawn
from cnisandbox.boundary.state import open_state_dirs
from cnisandbox.errors import BoundaryViolation
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import (
    ATTEST_FILE,
    HOST_DIRECTORY_FD,
    HOST_NETLINK_FD,
    HOST_NETNS_FD,
    HOST_SOCKET_FD,
    HOST_SYSCTL_FD,
    OPEN_DIRECTORY,
    PLUGIN_DIRECTORY,
    SECRET_FILE,
    STATE_DIRECTORY,
    Facts,
    Said,
)

T = TypeVar("T")

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
MS_PRIVATE_RECURSIVE = (1 << 18) | (1 << 14)

CONTAINER_WORKER, HOST_WORKER, ENGINE, DELEGATE_WORKER, LIBRARY = (
    "container worker",
    "host worker",
    "engine",
    "delegate worker",
    "library sandbox",
)

_TOPOLOGY = """\
netns add blue
netns add victim
link add hostbr0 type bridge
link add uplink0 type veth peer name uplink1
link add veth0 type veth peer name eth0 netns blue
"""


class Outcome(NamedTuple):
    """What came of an attempt.

    Attributes:
        has_effect: Whether the kernel's state outside is what the attacker wanted.
        errno: What the attacked process was told.
        signal: What ended it; 0 when it lived on.
    """

    has_effect: bool
    errno: int
    signal: int


ATTEMPTS: dict[str, Callable[[Facts], Said | None]] = {}


@declared
def attempt(name: str, facts: Facts) -> Said:
    """Make an attempt in the process that is attacked."""
    try:
        return ATTEMPTS[name](facts) or Said(0)
    except OSError as error:
        return Said(error.errno or -1)


@declared_for_delegate
def attempt_as_delegate(name: str, facts: Facts) -> Said:
    """Make an attempt in the delegate worker, which may not be asked for anybody else's functions."""
    return attempt(name, facts)


class Arena:
    """The host, with one attacked process.

    Attributes:
        pid: The attacked process.
        said: What the attempt said.
        hidden: A name that nobody could know when the process was forked; a link of the host has it.
        secret: Likewise; it stands in SECRET_FILE and in the bystander's memory.
        facts: What the attacker knows.
        listener: A socket that a scene listens on.
        poke: Says something to the attacked process.
        service: The service user.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.said = Said(0)
        self.hidden = ""
        self.secret = ""
        self.facts = Facts({"host": 1, "bystander": 0, "neighbour": 0, "victim": 0})
        self.listener: socket.socket | None = None
        self.poke: Callable[[], object] = lambda: None
        self.service = service_user()
        self._bystander_memory = raw.buffer(64)
        self._bystander_pipe = -1
        self._make_files()
        _ip(_TOPOLOGY)
        self._keep_descriptors()
        self._make_processes()

    def _make_files(self) -> None:
        for directory, mode in (
            ("/run/private", 0o700),
            (OPEN_DIRECTORY, 0o1777),
            (PLUGIN_DIRECTORY, 0o755),
            (STATE_DIRECTORY, 0o755),
        ):
            os.makedirs(directory)
            os.chmod(directory, mode)
        with open(SECRET_FILE, "w", opener=_private) as file:
            file.write("nothing yet")
        with open(ATTEST_FILE, "w", opener=_private) as file:
            file.write("evidence of an earlier call\n")

    def _make_processes(self) -> None:
        reader, writer = os.pipe()
        self._bystander_pipe = reader

        def remember_secret() -> None:
            self._bystander_memory.value = secrets.token_hex(8).encode()
            os.write(writer, self._bystander_memory.value)

        def be_neighbour() -> None:
            os.setresgid(self.service.gid, self.service.gid, self.service.gid)
            os.setresuid(self.service.uid, self.service.uid, self.service.uid)
            prctl.set_dumpable(False)

        pids = {
            "host": 1,
            "bystander": _forked(remember_secret),
            "neighbour": _forked(be_neighbour),
            "victim": _forked(lambda: enter("victim")),
        }
        self.facts = self.facts._replace(pids=pids, address=raw.address(self._bystander_memory))

    def _keep_descriptors(self) -> None:
        kept = {
            HOST_NETNS_FD: os.open("/proc/self/ns/net", os.O_RDONLY),
            HOST_SOCKET_FD: socket.socket(socket.AF_UNIX).detach(),
            HOST_NETLINK_FD: raw.Netlink().socket.detach(),
            HOST_DIRECTORY_FD: os.open(OPEN_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY),
            HOST_SYSCTL_FD: os.open("/proc/sys/net/ipv4/conf/veth0/forwarding", os.O_RDWR),
        }
        for number, fd in kept.items():
            os.dup2(fd, number)
            os.close(fd)
        self.facts = self.facts._replace(
            handle=_file_handle(SECRET_FILE), netns_handle=_file_handle("/proc/self/ns/net")
        )

    def hide(self) -> None:
        """Make up what the attacked process cannot know."""
        self.hidden = "h" + secrets.token_hex(4)
        self.secret = os.read(self._bystander_pipe, 64).decode()
        with open(SECRET_FILE, "w") as file:
            file.write(self.secret)
        link = raw.Netlink()
        link.create(raw.attribute(raw.IFLA_IFNAME, self.hidden), raw.link_info("bridge"))
        link.close()

    def links(self, netns: str | None = None) -> dict[str, dict[int, bytes]]:
        """List the links of the host, or of a netns by name."""

        def list_links() -> dict[str, dict[int, bytes]]:
            link = raw.Netlink()
            try:
                return link.links()
            finally:
                link.close()

        return list_links() if netns is None else self.inside(netns, list_links)

    def inside(self, netns: str, function: Callable[[], T]) -> T:
        """Run a function with the arena in a container's netns."""
        enter(netns)
        try:
            return function()
        finally:
            raw.syscall("setns", HOST_NETNS_FD, CLONE_NEWNET)

    def nsid_in_container(self, netns_fd: int) -> int:
        """Ask by which number the container knows a netns; -1: by none."""

        def ask() -> int:
            link = raw.Netlink()
            body = b"\0\0\0\0" + raw.attribute(raw.NETNSA_FD, netns_fd)
            ((_, answer),) = link.request(raw.RTM_GETNSID, body)
            link.close()
            return raw.integer(raw.attributes(answer[4:])[raw.NETNSA_NSID])

        return self.inside("blue", ask)

    def status(self, field: str, pid: int = 0) -> str:
        """Read a field of a process's status, by default of the attacked one."""
        with open(f"/proc/{pid or self.pid}/status") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(field + ":"))

    def descriptors(self) -> dict[int, str]:
        """Say what the attacked process has open."""
        directory = f"/proc/{self.pid}/fd"
        return {int(number): os.readlink(f"{directory}/{number}") for number in os.listdir(directory)}

    def namespace(self, name: str, pid: int = 0) -> str:
        """Say in which namespace a process is, by default the attacked one."""
        return os.readlink(f"/proc/{pid or self.pid}/ns/{name}")

    def has_ended(self, name: str) -> bool:
        """Say whether one of the processes has been killed."""
        pid = self.facts.pids[name]
        deadline = time.monotonic() + (0.5 if self.said.errno == 0 else 0)
        while True:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
            if time.monotonic() > deadline:
                return False
            os.sched_yield()


def enter(netns: str) -> None:
    """Enter a container's netns."""
    fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
    raw.syscall("setns", fd, CLONE_NEWNET)
    os.close(fd)


def attack(
    subject: str,
    level: Level,
    name: str,
    judge: Callable[[Arena], bool],
    scene: Callable[[Arena], None] | None = None,
) -> Outcome:
    """Make one attempt in an arena of its own; to be run inside a world.

    Args:
        subject: Which process is the attacker's.
        level: How it is confined.
        name: Key of ATTEMPTS.
        judge: Says, from outside, whether the attacker has got what he wanted; the process is still there then.
        scene: Prepares the arena before the process is forked.
    """
    reader, writer = os.pipe()
    raw.syscall("unshare", CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET)
    child = os.fork()
    if child == 0:
        _be_arena(writer, subject, level, name, judge, scene)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = json.loads(pipe.read() or b'["the arena died"]')
    os.waitpid(child, 0)
    if len(answer) == 1:
        raise AssertionError(answer[0])
    return Outcome(*answer)


def _be_arena(
    writer: int,
    subject: str,
    level: Level,
    name: str,
    judge: Callable[[Arena], bool],
    scene: Callable[[Arena], None] | None,
) -> None:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        raw.syscall("mount", b"none", b"/", b"", MS_PRIVATE_RECURSIVE, b"")
        for kind, target in ((b"proc", b"/proc"), (b"tmpfs", b"/run"), (b"tmpfs", b"/var/lib/cni")):
            raw.syscall("mount", kind, target, kind, 0, b"mode=755" if kind == b"tmpfs" else b"")
        arena = Arena()
        if scene is not None:
            scene(arena)
        if subject == ENGINE:
            outcome = _attack_engine(arena, level, name, judge)
        else:
            outcome = _attack_worker(arena, subject, level, name, judge)
        os.write(writer, json.dumps(outcome).encode())
    except BaseException:
        os.write(writer, json.dumps([traceback.format_exc()]).encode())
    finally:
        os._exit(0)  # process 1: everything else in the arena dies with it


def _attack_worker(
    arena: Arena, subject: str, level: Level, name: str, judge: Callable[[Arena], bool]
) -> Outcome:
    if subject == LIBRARY:
        box = Sandbox("/run/netns/blue", level).__enter__()
        worker = box._entered()
    else:
        worker = _spawned(arena, subject, level)
    worker.attest()
    arena.pid = worker.pid
    arena.poke = lambda: os.write(worker.descriptors[1], b"x")
    arena.hide()
    try:
        arena.said = worker.call(attempt_as_delegate if subject == DELEGATE_WORKER else attempt, name, arena.facts)
    except BoundaryViolation:
        killed_by = _killed_by(worker.pid)
        if not killed_by:  # it left by itself: a defect of the attempt
            raise
        return Outcome(judge(arena), 0, killed_by)
    return Outcome(judge(arena), arena.said.errno, 0)


def _killed_by(pid: int) -> int:
    """Say which signal ended a process; 0 when it left by itself."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return 0 if ended is None or ended.si_code == os.CLD_EXITED else int(ended.si_status)


def _spawned(arena: Arena, subject: str, level: Level) -> Worker:
    """Fork a worker exactly as the entry does."""
    own_namespaces = namespaces.inodes()
    netns = namespaces.open_netns("/run/netns/blue")
    pid_namespaces = namespaces.NewPidNamespaces()
    if subject == CONTAINER_WORKER:
        wanted = network_worker(subject, level, arena.service, netns)
        return spawn(wanted, own_namespaces, None, netns.inode, pid_namespaces, "[bridge eth0]")
    if subject == HOST_WORKER:
        wanted = network_worker(subject, level, arena.service, None)
        return spawn(wanted, own_namespaces, netns.fd, None, pid_namespaces, "[bridge eth0]")
    own_level, user = entry._level_without_network(level), _user(arena, level)
    wanted = delegate_worker(own_level, user, open_state_dirs(*user), (PLUGIN_DIRECTORY,))
    return spawn(wanted, own_namespaces, None, None, pid_namespaces, "[bridge eth0]")


def _user(arena: Arena, level: Level) -> ServiceUser:
    return ServiceUser(0, 0) if level is Level.ROOT else arena.service


def _attack_engine(arena: Arena, level: Level, name: str, judge: Callable[[Arena], bool]) -> Outcome:
    """Confine a fork exactly as the entry confines itself, and make the attempt there."""
    from_engine, to_arena = os.pipe()
    from_arena, to_engine = os.pipe()
    arena.facts = arena.facts._replace(input_fd=from_arena)
    arena.pid = os.fork()
    if arena.pid == 0:
        os.close(to_engine)
        _be_engine(arena, level, name, to_arena)
    os.close(to_arena)
    confined = os.read(from_engine, 1 << 16)
    if confined != b"[]":
        raise AssertionError(json.loads(confined)[0] if confined else "the engine was not confined")
    arena.poke = lambda: os.write(to_engine, b"x")
    arena.hide()
    arena.poke()
    answer = os.read(from_engine, 1 << 16)
    if not answer:
        return Outcome(judge(arena), 0, _killed_by(arena.pid))
    fields = json.loads(answer)
    if len(fields) == 1:
        raise AssertionError(fields[0])
    arena.said = Said(*fields)
    return Outcome(judge(arena), arena.said.errno, 0)


def _be_engine(arena: Arena, level: Level, name: str, to_arena: int) -> NoReturn:
    """Live as the engine: say that we are confined, make the attempt when poked, say what came of it, wait."""
    try:
        user = _user(arena, level)
        state_dirs = () if level is Level.ROOT else open_state_dirs(*user)
        attest_fd = entry.open_attest_file(ATTEST_FILE)
        assert attest_fd is not None
        # At level root a plugin is what a reference plugin is: it opens the directory by its path.
        state_fd = -1 if level is Level.ROOT else state_dirs[0].fd
        facts = arena.facts._replace(state_fd=state_fd, attest_fd=attest_fd)
        kept = {0, 1, 2, to_arena, facts.input_fd, attest_fd, *(state_dir.fd for state_dir in state_dirs)}
        entry._drop(level, user, state_dirs, kept, namespaces.inodes())
        os.write(to_arena, b"[]")
        os.read(facts.input_fd, 1)
        os.write(to_arena, json.dumps(attempt(name, facts)).encode())
        while os.read(facts.input_fd, 1):
            pass
    except BaseException:
        os.write(to_arena, json.dumps([traceback.format_exc()]).encode())
    finally:
        os._exit(0)


def _forked(prepare: Callable[[], None]) -> int:
    """Fork a process that prepares itself, says so, and waits for its end."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            os.write(writer, b"r")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"r"
    os.close(reader)
    return pid


def _file_handle(path: str) -> bytes:
    """Make the `struct file_handle` by which open_by_handle_at knows a file; empty where there is none."""
    handle = raw.buffer((128).to_bytes(4, "little") + b"\0" * 132)
    mount_id = raw.buffer(4)
    at_fdcwd, at_symlink_follow = -100, 0x400
    try:
        raw.syscall("name_to_handle_at", at_fdcwd, path.encode() + b"\0", handle, mount_id, at_symlink_follow)
    except OSError:
        return b""
    return handle.raw[: 8 + int.from_bytes(handle.raw[:4], "little")]


def _ip(commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input=commands.encode(), check=True, timeout=10)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

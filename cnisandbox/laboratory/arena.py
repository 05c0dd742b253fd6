"""Where an attempt is made: a machine in small, with the attacked process in it, judged from outside of that process.

    arena: process 1 of its own pid namespace, in fresh network, mount, ipc and uts namespaces: "the host"
      │  links of the host     hostbr0 (deletable), uplink0 ── uplink1, veth0, and one with a name made up
      │                        after the attacked process was forked
      │  files of the host     /run, /var/lib/cni: empty tmpfs; /run/open is writable for everybody; all else is
      │                        the machine's
      ├── /run/netns/blue      the container: eth0 ── veth0 of the host
      ├── /run/netns/victim    a container of somebody else
      ├── bystander            a process of root
      ├── neighbour            one of the service user, like the engine of another call
      └── the attacked process (columns.py)

A fork carries the attempts into the attacked process; what came of one is read from the kernel's state by the arena.

Privilege: everything; nothing of the machine's network or of its processes can be reached from inside.
"""

import contextlib
import json
import os
import resource
import secrets
import select
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

import prctl

from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import service_user
from cnisandbox.boundary.title import set_title
from cnisandbox.errors import IoFailure, reason
from cnisandbox.laboratory import columns
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
from cnisandbox.laboratory.columns import ATTEMPTS, CONTAINER_WORKER, DELEGATE_WORKER, ENGINE, HOST_WORKER, LIBRARY

__all__ = [
    "ATTEMPTS",
    "CONTAINER_WORKER",
    "DELEGATE_WORKER",
    "ENGINE",
    "HOST_WORKER",
    "LIBRARY",
    "Arena",
    "Outcome",
    "answer_of",
    "attack",
    "begin",
    "end",
]

T = TypeVar("T")

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x20000000,
    0x40000000,
)
MS_PRIVATE_RECURSIVE, MS_BIND = (1 << 18) | (1 << 14), 1 << 12

# Covered by an empty tmpfs; what the machine lacks of the second group is left out.
PRIVATE_DIRECTORIES = ("/run", "/var/lib/cni")
_HIDDEN_DIRECTORIES = ("/etc/cni", "/etc/cnisandbox")
# Above the numbers of the descriptors that a careless runtime leaves open.
_ANSWER_FD = 60
# LIMIT: seconds for a scene, an attempt and its judge; most take a tenth of one.
ATTEMPT_TIMEOUT_S = 20.0

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
        company: The processes that were there before the attempt.
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
        self.company: frozenset[int] = frozenset()
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
            "bystander": self.fork(remember_secret),
            "neighbour": self.fork(be_neighbour),
            "victim": self.fork(lambda: self.enter("victim")),
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

    def receive(self, attacked: columns.Attacked) -> None:
        """Have the attacked process in the arena, and make up what it cannot know."""
        self.pid, self.poke = attacked.pid, attacked.poke
        self.company = frozenset(processes())
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
        self.enter(netns)
        try:
            return function()
        finally:
            raw.syscall("setns", HOST_NETNS_FD, CLONE_NEWNET)

    @staticmethod
    def fork(prepare: Callable[[], None]) -> int:
        """Fork a process that prepares itself, says so, and stays to the end of the arena."""
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
        is_ready = os.read(reader, 1) == b"r"
        os.close(reader)
        if not is_ready:
            raise RuntimeError("prepare process: it ended")
        return pid

    def enter(self, netns: str) -> None:
        """Enter a container's netns, for good."""
        fd = os.open(f"/run/netns/{netns}", os.O_RDONLY | os.O_CLOEXEC)
        raw.syscall("setns", fd, CLONE_NEWNET)
        os.close(fd)

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


class Running(NamedTuple):
    """An arena at work.

    Attributes:
        pid: The process whose end is its end.
        answer_fd: Where what its work returns is read from, as JSON: {"value": ...}, or {"defect": what went wrong}.
    """

    pid: int
    answer_fd: int


def begin(work: Callable[[Arena], object]) -> Running:
    """Make an arena and have it work.

    Args:
        work: Runs in the arena's first process; returns what JSON knows.

    Raises:
        IoFailure: there is no process to be had.
    """
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        raise IoFailure(f"fork arena: {reason(error)}") from error
    if pid == 0:
        try:
            os.close(reader)
            prctl.set_pdeathsig(signal.SIGKILL)
            flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
            raw.syscall("unshare", flags)
            child = os.fork()
            if child == 0:
                _be_arena(writer, work)
            os.close(writer)
            os.waitpid(child, 0)
        except BaseException:
            os.write(writer, json.dumps({"defect": traceback.format_exc()}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    return Running(pid, reader)


def _be_arena(writer: int, work: Callable[[Arena], object]) -> NoReturn:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        # ORDER: python-prctl looks for the title's place once, and finds none when the environment has been replaced.
        set_title("cnisandbox: laboratory")
        _leave_terminal(writer)
        raw.syscall("mount", b"none", b"/", b"", MS_PRIVATE_RECURSIVE, b"")
        raw.syscall("mount", b"proc", b"/proc", b"proc", 0, b"")
        for target in PRIVATE_DIRECTORIES:
            _make_mount_point(target)
        for target in (*PRIVATE_DIRECTORIES, *_HIDDEN_DIRECTORIES):
            if os.path.isdir(target):
                _mount_tmpfs(target)
        answer: dict[str, object] = {"value": work(Arena())}
    except BaseException:
        answer = {"defect": traceback.format_exc()}
    try:
        with open(_ANSWER_FD, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)  # process 1: everything else in the arena dies with it


def _leave_terminal(writer: int) -> None:
    """Keep nothing of whoever has made the arena: no descriptor but the one for the answer, and no terminal."""
    os.dup2(writer, _ANSWER_FD)
    os.closerange(3, _ANSWER_FD)
    os.closerange(_ANSWER_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    null_fd = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    os.close(null_fd)
    os.setsid()


def _make_mount_point(directory: str) -> None:
    """Make a directory that the machine lacks, on a tmpfs that shows all that is beside it."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    _make_mount_point(parent)
    beside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in os.scandir(parent)]
    parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    _mount_tmpfs(parent)
    for name, is_directory in beside:
        path, original = f"{parent}/{name}", f"/proc/self/fd/{parent_fd}/{name}"
        if os.path.islink(original):
            os.symlink(os.readlink(original), path)
            continue
        if is_directory:
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_CREAT, 0o600))
        raw.syscall("mount", original.encode() + b"\0", path.encode() + b"\0", b"", MS_BIND, b"")
    os.close(parent_fd)
    os.mkdir(directory, 0o755)


def _mount_tmpfs(target: str) -> None:
    raw.syscall("mount", b"arena", target.encode() + b"\0", b"tmpfs", 0, b"mode=755")


def end(running: Running) -> None:
    """End an arena, whatever it is doing."""
    os.close(running.answer_fd)
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)


def answer_of(running: Running, timeout_s: float) -> Any:
    """Wait for what an arena answers, and end it.

    Raises:
        TimeoutError: it does not in time.
        AssertionError: something went wrong in it.
    """
    deadline = time.monotonic() + timeout_s
    pieces: list[bytes] = []
    try:
        while True:
            ready, _, _ = select.select([running.answer_fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            piece = os.read(running.answer_fd, 1 << 16)
            if not piece:
                break
            pieces.append(piece)
    finally:
        end(running)
    answer = json.loads(b"".join(pieces) or b'{"defect": "the arena died"}')
    if "defect" in answer:
        raise AssertionError(answer["defect"])
    return answer["value"]


def attack(
    subject: str,
    level: Level,
    name: str,
    judge: Callable[[Arena], bool],
    scene: Callable[[Arena], None] | None = None,
) -> Outcome:
    """Make one attempt in an arena of its own, in one process at one level.

    Args:
        subject: Which process is the attacker's.
        level: How it is confined.
        name: Key of ATTEMPTS.
        judge: Says, from outside, whether the attacker has got what he wanted; the process is still there then.
        scene: Prepares the arena before the process is forked.
    """

    def work(arena: Arena) -> Outcome:
        if scene is not None:
            scene(arena)
        if subject == ENGINE:
            attacked = columns.engine(arena, level, name, "host")
        else:
            attacked = columns.worker(arena, subject, level, name)
        arena.receive(attacked)
        arena.said, killed_by = attacked.attempt()
        if arena.said.errno < 0:
            raise AssertionError(arena.said.text)
        return Outcome(judge(arena), arena.said.errno, killed_by)

    return Outcome(*answer_of(begin(work), ATTEMPT_TIMEOUT_S))


def processes() -> Iterator[int]:
    """List the processes of our pid namespace."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


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

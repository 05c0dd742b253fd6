"""A machine in small that is thrown away: what a plugin changes there is gone with its last process.

    world: process 1 of its own pid namespace, in fresh network, mount, ipc and uts namespaces: "the host"
      │  files     the machine's, through an overlay whose upper layer is memory; /run, /var/lib/cni and /tmp are empty
      │            but for /run/cni, /run/lock and /run/netns; what is mounted elsewhere is read-only
      └── /run/netns/learn-…   the container, with nothing but lo (down)

Privilege: everything; nothing of the machine's network, files or processes can be changed from inside, except through
devices and the kernel's own settings.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import prctl

import cnisandbox
from cnisandbox.boundary.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS
from cnisandbox.errors import IoFailure, IsolationUnavailable, reason
from cnisandbox.laboratory.attacker import raw

HOST, CONTAINER = "host", "container"
EMPTY_DIRECTORIES = ("/run", "/var/lib/cni")
HIDDEN_DIRECTORIES = (*EMPTY_DIRECTORIES, "/tmp", "/dev/shm")
PREPARED_DIRECTORIES = ("/run/cni", "/run/lock", "/run/netns")

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2
_OWN = ("/proc", "/sys", "/dev", "/tmp", *EMPTY_DIRECTORIES)
_ANSWER_FD = 9


class World:
    """The host, as its first process sees it.

    Args:
        netns_name: Name of the container's netns.

    Attributes:
        netns_path: Where the container's netns is.
        inodes: Inode number of each netns to "host" or "container".
        changed_files: Directory in which the overlay keeps what was changed.
    """

    def __init__(self, netns_name: str) -> None:
        upper_fd = _enter_overlay()
        self.changed_files = f"/proc/self/fd/{upper_fd}"
        self.netns_path = f"/run/netns/{netns_name}"
        self._fds = {HOST: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)}
        os.close(os.open(self.netns_path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        raw.syscall("unshare", CLONE_NEWNET)
        _mount("/proc/self/ns/net", self.netns_path, "", _MS_BIND)
        self._fds[CONTAINER] = os.open(self.netns_path, os.O_RDONLY | os.O_CLOEXEC)
        raw.syscall("setns", self._fds[HOST], CLONE_NEWNET)
        self.inodes = {os.fstat(fd).st_ino: netns for netns, fd in self._fds.items()}

    @contextlib.contextmanager
    def inside(self, netns: str) -> Iterator[None]:
        """Stand in a netns for a while."""
        raw.syscall("setns", self._fds[netns], CLONE_NEWNET)
        try:
            yield
        finally:
            raw.syscall("setns", self._fds[HOST], CLONE_NEWNET)


def in_world(netns_name: str, work: Callable[[World], object], timeout_s: float) -> Any:
    """Have something done in a world of its own.

    Args:
        netns_name: Name of the container's netns.
        work: Runs in the world's first process; returns what JSON knows.
        timeout_s: After which the world is ended.

    Raises:
        IsolationUnavailable: no such world can be made here.
        IoFailure: the work failed, or took too long.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _begin(writer, netns_name, work)
    os.close(writer)
    try:
        data = _read_all(reader, time.monotonic() + timeout_s)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    answer = json.loads(data or b'{"defect": "it died"}')
    if "unavailable" in answer:
        raise IsolationUnavailable(*answer["unavailable"])
    if "defect" in answer:
        raise IoFailure(f"watch plugin: {answer['defect']}")
    return answer["value"]


def _read_all(fd: int, deadline: float) -> bytes:
    pieces: list[bytes] = []
    while True:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise IoFailure("watch plugin: it takes too long", "it was ended with everything that it has started")
        piece = os.read(fd, 1 << 20)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _begin(writer: int, netns_name: str, work: Callable[[World], object]) -> NoReturn:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        _enter_namespaces()
        child = os.fork()
        if child == 0:
            _be_first(writer, netns_name, work)
        os.close(writer)
        os.waitpid(child, 0)
    except BaseException as error:
        os.write(writer, json.dumps(_failure(error)).encode())
    finally:
        os._exit(0)


def _enter_namespaces() -> None:
    try:
        raw.syscall("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
    except OSError as error:
        raise IsolationUnavailable(f"make namespaces: {reason(error)}", "only root can: run it with sudo") from error


def _be_first(writer: int, netns_name: str, work: Callable[[World], object]) -> NoReturn:
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        os.dup2(writer, _ANSWER_FD, inheritable=False)
        os.closerange(3, _ANSWER_FD)
        os.closerange(_ANSWER_FD + 1, 1 << 16)
        os.setsid()
        answer: dict[str, object] = {"value": work(World(netns_name))}
    except BaseException as error:
        answer = _failure(error)
    try:
        with open(_ANSWER_FD, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)  # process 1: everything else in the world dies with it


def _failure(error: BaseException) -> dict[str, object]:
    if isinstance(error, IsolationUnavailable):
        return {"unavailable": [error.msg, error.details]}
    place = traceback.extract_tb(error.__traceback__)[-1]
    return {"defect": f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}, line {place.lineno})"}


def _enter_overlay() -> int:
    """Replace the root by an overlay over it.

    Returns:
        A descriptor of the directory in which the overlay keeps what was changed.
    """
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    elsewhere = _mount_points()
    installation = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in _hidden_installation()}
    _mount("learn", "/tmp", "tmpfs", 0, "mode=755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"/tmp/{name}")
    upper_fd = os.open("/tmp/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _mount("learn", "/tmp/root", "overlay", 0, "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work")
    except OSError as error:
        raise IsolationUnavailable(
            f"mount overlay over /: {reason(error)}", "the kernel needs overlayfs: `modprobe overlay`"
        ) from error
    for path in elsewhere:
        _show_read_only(path)
    _mount("/dev", "/tmp/root/dev", "", _MS_BIND | _MS_REC)
    if os.path.isdir("/dev/shm"):
        _mount("learn", "/tmp/root/dev/shm", "tmpfs", 0, "mode=1777")
    _mount("proc", "/tmp/root/proc", "proc", 0)
    _mount("sysfs", "/tmp/root/sys", "sysfs", 0)
    for directory, mode in (*((path, "755") for path in EMPTY_DIRECTORIES), ("/tmp", "1777")):
        os.makedirs(f"/tmp/root{directory}", exist_ok=True)
        _mount("learn", f"/tmp/root{directory}", "tmpfs", 0, f"mode={mode}")
    for directory in PREPARED_DIRECTORIES:
        os.mkdir(f"/tmp/root{directory}")
    for path, fd in installation.items():
        os.makedirs(f"/tmp/root{path}", exist_ok=True)
        _bind_read_only(f"/proc/self/fd/{fd}", f"/tmp/root{path}")
        os.close(fd)
    os.chdir("/tmp/root")
    raw.syscall("pivot_root", b".\0", b".\0")
    raw.syscall("umount2", b".\0", _MNT_DETACH)
    os.chdir("/")
    return upper_fd


def _mount_points() -> list[str]:
    """List what is mounted besides the root and what a world has of its own, outer ones first."""
    with open("/proc/self/mountinfo", "rb") as file:
        fields = [line.split(b" ")[4] for line in file]
    paths = {field.decode("unicode_escape", "surrogateescape") for field in fields} - {"/"}
    return sorted(path for path in paths if not any(path == own or path.startswith(f"{own}/") for own in _OWN))


def _show_read_only(path: str) -> None:
    target = f"/tmp/root{path}"
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    with contextlib.suppress(OSError):  # a mount of somebody else's, such as FUSE: it is left out
        _bind_read_only(path, target)


def _hidden_installation() -> list[str]:
    """List where this program itself is installed, of what the world would hide: it runs the plugin confined."""
    package = Path(cnisandbox.__file__).resolve().parents[1]
    paths = {os.path.abspath(sys.prefix), *map(str, [package, *map(os.path.abspath, sys.path)])}
    found = sorted(path for path in paths if os.path.isdir(path) and _is_hidden(path))
    return [path for path in found if not any(path.startswith(f"{outer}/") for outer in found)]


def _is_hidden(path: str) -> bool:
    return any(path.startswith(f"{directory}/") for directory in HIDDEN_DIRECTORIES)


def _bind_read_only(source: str, target: str) -> None:
    _mount(source, target, "", _MS_BIND)
    _mount("none", target, "", _MS_REMOUNT | _MS_BIND | _MS_RDONLY)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = [os.fsencode(text) + b"\0" for text in (source, target, kind, options)]
    raw.syscall("mount", words[0], words[1], words[2], flags, words[3])

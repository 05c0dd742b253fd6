"""Attempts to take more of the machine than a call needs, each up to a stated bound; with its judge.

An attempt has worked when the bound is passed: then nothing of the attacker's own stands between him and the whole
machine. It stops there, and what it took goes when its process does.
"""

import _thread
import contextlib
import errno
import fcntl
import mmap
import os
import resource
import signal
import struct
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import processes, raw
from cnisandbox.laboratory.attacker.knowledge import STATE_DIRECTORY, Facts

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

MIB = 1 << 20

# LIMIT: a plugin in Go has about twenty threads and executes three or four programs.
PROCESSES = THREADS = 128
# LIMIT: the largest of the usual plugins has 40 MiB resident.
MEMORY_BYTES = 1 << 30
# LIMIT: what one process may have by default on most machines.
DESCRIPTORS = 1024
# LIMIT: state files have some hundred bytes, and there is one for each address or attachment.
STATE_BYTES = 64 * MIB
# LIMIT: memory that is in no address space, as of files without a name.
HIDDEN_BYTES = 64 * MIB
# LIMIT: a container has two or three links.
LINKS = 16
# LIMIT: half of what a user of the machine has for all processes together.
INOTIFY_INSTANCES = 64

_PIECE_BYTES, _FILE_BYTES = 8 * MIB, 13 * MIB
_TAKEN: list[mmap.mmap] = []
_SHARED_KEY, _IPC_CREAT = 0x4712, 0o1000
_LOCK = f"{STATE_DIRECTORY}/other/lock"


# Processes and threads


def fork_many(facts: Facts) -> None:
    for _ in range(PROCESSES + 1):
        if os.fork() == 0:
            while True:
                signal.pause()


def has_many_processes(arena: "Arena") -> bool:
    return len(processes.children(arena)) > PROCESSES


def start_many_threads(facts: Facts) -> None:
    gate = _thread.allocate_lock()
    gate.acquire()
    for _ in range(THREADS + 1):
        try:
            _thread.start_new_thread(gate.acquire, ())
        except RuntimeError as error:  # the interpreter keeps to itself what it was told
            raise OSError(errno.EAGAIN, str(error)) from error


def has_many_threads(arena: "Arena") -> bool:
    return len(os.listdir(f"/proc/{arena.pid}/task")) > THREADS


def use_processor_without_end(facts: Facts) -> None:
    _set_limit(resource.RLIMIT_CPU, resource.RLIM_INFINITY)


def _set_limit(kind: int, wanted: int) -> None:
    both = wanted & 0xFFFFFFFFFFFFFFFF
    raw.syscall("prlimit64", 0, kind, raw.buffer(struct.pack("=QQ", both, both)), 0)


def has_no_end_of_processor_time(arena: "Arena") -> bool:
    return _limits(arena, "Max cpu time") == ["unlimited", "unlimited"]


def _limits(arena: "Arena", name: str) -> list[str]:
    with open(f"/proc/{arena.pid}/limits") as file:
        (words,) = [line.removeprefix(name).split() for line in file if line.startswith(name)]
    return words[:2]


# Memory


def fill_memory(facts: Facts) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    try:
        while len(_TAKEN) * _PIECE_BYTES <= MEMORY_BYTES:
            _TAKEN.append(mmap.mmap(-1, _PIECE_BYTES, flags=flags))
    except OSError:
        _TAKEN.clear()
        raise


def has_much_memory(arena: "Arena") -> bool:
    """Say how much is resident; the arena is asked at once, and the process does not live long."""
    with contextlib.suppress(StopIteration):  # a process that was killed has none
        return int(arena.status("VmRSS").split()[0]) * 1024 > MEMORY_BYTES
    return False


def lacks_memory() -> str:
    with open("/proc/meminfo") as file:
        available = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return "" if available > 4 * MEMORY_BYTES else "4 GiB of free memory"


def fill_hidden_memory(facts: Facts) -> None:
    for number in range(HIDDEN_BYTES // _PIECE_BYTES + 1):
        os.write(os.memfd_create(f"escape{number}"), bytes(_PIECE_BYTES))


def has_much_hidden_memory(arena: "Arena") -> bool:
    files = [fd for fd, target in processes.descriptors(arena).items() if target.startswith("/memfd:escape")]
    return sum(os.stat(f"/proc/{arena.pid}/fd/{fd}").st_blocks * 512 for fd in files) > HIDDEN_BYTES


def leave_shared_memory(facts: Facts) -> None:
    raw.syscall("shmget", _SHARED_KEY, _PIECE_BYTES, _IPC_CREAT | 0o600)


def shared_memory_stays(arena: "Arena") -> bool:
    """End the process, and see whether the host keeps what it left."""
    processes.end(arena)
    with open("/proc/sysvipc/shm") as file:
        return any(int(line.split()[0]) == _SHARED_KEY for line in file.readlines()[1:])


def lacks_shared_memory() -> str:
    return "" if os.path.exists("/proc/sysvipc/shm") else "CONFIG_SYSVIPC"


# Descriptors


def open_many_descriptors(facts: Facts) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError):
        _set_limit(resource.RLIMIT_NOFILE, hard)
    for _ in range(DESCRIPTORS + 1):
        os.dup(0)


def has_many_descriptors(arena: "Arena") -> bool:
    return len(processes.descriptors(arena)) > DESCRIPTORS


def watch_much(facts: Facts) -> None:
    for _ in range(INOTIFY_INSTANCES + 1):
        raw.syscall("inotify_init1", 0)


def watches_much(arena: "Arena") -> bool:
    found = list(processes.descriptors(arena).values())
    return found.count("anon_inode:inotify") > INOTIFY_INSTANCES


def lacks_inotify() -> str:
    return "" if os.path.exists("/proc/sys/fs/inotify/max_user_instances") else "CONFIG_INOTIFY_USER"


# Files


def fill_state_directory(facts: Facts) -> None:
    """Write several files, none of them large."""
    for number in range(STATE_BYTES // _FILE_BYTES + 1):
        fd = _new_state_file(facts, number)
        try:
            os.write(fd, bytes(_FILE_BYTES))
        finally:
            os.close(fd)


def state_directory_is_full(arena: "Arena") -> bool:
    with os.scandir(STATE_DIRECTORY) as entries:
        return sum(entry.stat().st_blocks * 512 for entry in entries) > STATE_BYTES


def _new_state_file(facts: Facts, number: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    if facts.state_fd >= 0:
        return os.open(f"escape{number}", flags, 0o600, dir_fd=facts.state_fd)
    return os.open(f"{STATE_DIRECTORY}/escape{number}", flags, 0o600)


def hold_lock(facts: Facts) -> None:
    """Take the lock that host-local waits for in every call of the network, and keep it."""
    if facts.state_fd >= 0:
        fd = os.open("other/lock", os.O_RDONLY, dir_fd=facts.state_fd)
    else:
        fd = os.open(_LOCK, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def leave_lock(arena: "Arena") -> None:
    """Scene: another network has its state there, with the file that host-local locks."""
    os.mkdir(os.path.dirname(_LOCK))
    with open(_LOCK, "w", opener=lambda path, flags: os.open(path, flags, 0o644)):
        pass


def lock_is_held(arena: "Arena") -> bool:
    with open(_LOCK) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# Links


def make_many_links(facts: Facts) -> None:
    link = raw.Netlink()
    for number in range(LINKS // 2 + 1):
        peer = raw.link_body(raw.attribute(raw.IFLA_IFNAME, f"esp{number}"))
        info = raw.link_info("veth", raw.attribute(raw.VETH_INFO_PEER, peer))
        link.create(raw.attribute(raw.IFLA_IFNAME, f"esc{number}"), info)


def netns_has_many_links(arena: "Arena") -> bool:
    return max(len(arena.links("blue")), len(arena.links())) > LINKS

"""What a call does that has no time: credentials as they are after each change, what is read while which is held,
files, filters, ways into network namespaces. Seen by following it system call by system call.

Untrusted input is standard input, files of state, and what comes by a pipe, or out of the memory, of a process that has
read such input itself. It counts when it is read: as much as was read, for each capability that the reading thread held
effectively.

Privilege: CAP_SYS_PTRACE, CAP_SYS_ADMIN.
"""

import contextlib
import os
import re
import stat
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.exposure import sysnames
from cnisandbox.laboratory.exposure.capability import Credential, names_of, parse_status
from cnisandbox.laboratory.exposure.course import EXEC, Known, ProcessKey, TaskKey
from cnisandbox.laboratory.exposure.ptracing import Followed, Kind, Stop
from cnisandbox.laboratory.exposure.state import stable
from cnisandbox.laboratory.exposure.station import CALL_TIME_LIMIT_S, STATE_DIRECTORIES, Outcome, Started, Station

STDIN, STATE, PEER = "standard input", "state files", "other processes"

_AFTERWARDS_TIME_LIMIT_S = 1.0
_CAP_NET_ADMIN, _CAP_SYS_PTRACE = 12, 19
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_AT_FDCWD = -100
_PATH_BYTES = 4096
_CLONE_NEWNET = 0x40000000
_TITLE = re.compile(r"cnisandbox: ([a-z ]+?)(?: \[.*|: .*)?$")
_NUMBERED = re.compile(r"/proc/(?:\d+|self|thread-self)(?=/|$)(?:/task/\d+)?")
# In a mount of procfs that has no path.
_DETACHED = re.compile(r"^/\d+(?=/|$)")

# Paths that are changed: (argument with the directory's descriptor or None, argument with the path).
_CHANGES: dict[str, tuple[tuple[int | None, int], ...]] = {
    "unlink": ((None, 0),),
    "unlinkat": ((0, 1),),
    "rmdir": ((None, 0),),
    "mkdir": ((None, 0),),
    "mkdirat": ((0, 1),),
    "rename": ((None, 0), (None, 1)),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "link": ((None, 1),),
    "linkat": ((2, 3),),
    "symlink": ((None, 1),),
    "symlinkat": ((1, 2),),
    "mknod": ((None, 0),),
    "mknodat": ((0, 1),),
    "chmod": ((None, 0),),
    "fchmodat": ((0, 1),),
    "chown": ((None, 0),),
    "lchown": ((None, 0),),
    "fchownat": ((0, 1),),
    "truncate": ((None, 0),),
}
_READS = frozenset({"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg"})
_WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2"})
_OPENS = {"open": 1, "openat": 2, "openat2": -1, "creat": -1}


class Seen(NamedTuple):
    """What was seen of a process.

    Attributes:
        role: What it is called in the list of processes, where it is one of ours; may be empty.
        filters: Its system call filters, in the order in which they were loaded.
        has_read: Whether it has read untrusted input.
    """

    role: str
    filters: tuple[bytes, ...]
    has_read: bool


class Observation(NamedTuple):
    """What was seen of a call.

    Attributes:
        outcome: What came of it.
        known: Credentials by thread, after each change.
        processes: By key.
        untrusted: Capability to source to bytes.
        used: Numbers of system calls.
        opened: Paths.
        written: Paths of files that were written to, made, removed or renamed.
        handles: Ways into network namespaces that processes which had read untrusted input had.
    """

    outcome: Outcome
    known: dict[TaskKey, list[Known]]
    processes: dict[ProcessKey, Seen]
    untrusted: dict[str, Counter[str]]
    used: set[int]
    opened: set[str]
    written: set[str]
    handles: set[str]


class _Thread:
    def __init__(self, pid: int, key: TaskKey, credential: Credential, filters: tuple[bytes, ...]) -> None:
        self.pid = pid
        self.key = key
        self.credential = credential
        self.filters = filters
        self.number = -1
        self.arguments: tuple[int, ...] = ()
        self.paths: list[str] = []
        self.program = b""


class _Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.role = ""
        self.program = ""
        self.has_read = False
        self.filters: tuple[bytes, ...] = ()
        self.children = 0
        self.threads = 0


class _Observer:
    def __init__(self, station: Station, started: Started) -> None:
        self._started = started
        self._devices = station.devices()
        self._netns_names = station.netns_names()
        self._root = f"/proc/{station.pid}/root"
        self._mounted_devices = station.mounted_devices()
        self._threads: dict[int, _Thread] = {}
        self._processes: dict[ProcessKey, _Process] = {}
        self._writers: dict[int, set[ProcessKey]] = {}
        self._own_userns = os.stat("/proc/self/ns/user").st_ino
        self.known: dict[TaskKey, list[Known]] = {}
        self.untrusted: dict[str, Counter[str]] = {}
        self.used: set[int] = set()
        self.opened: set[str] = set()
        self.written: set[str] = set()
        self.handles: set[str] = set()
        self._entries: dict[int, Callable[[_Thread], None]] = {}
        self._exits: dict[int, Callable[[_Thread, int], None]] = {}
        self._assign()

    def _assign(self) -> None:
        for number, name in sysnames.all_names().items():
            if name in _READS:
                self._exits[number] = self._has_read
            elif name in _WRITES:
                self._entries[number] = self._writes
            elif name in _OPENS:
                self._exits[number] = self._has_opened
            elif name in _CHANGES:
                self._entries[number] = self._changes
                self._exits[number] = self._has_changed
            elif name == "process_vm_readv":
                self._exits[number] = self._has_read_memory
            elif name == "seccomp":
                self._entries[number] = self._loads_filter
                self._exits[number] = self._has_loaded_filter
            elif name == "prctl":
                self._entries[number] = self._loads_filter
                self._exits[number] = self._has_called_prctl
            elif sysnames.may_change_credential(number):
                self._exits[number] = self._has_changed_credential

    def take(self, stop: Stop) -> None:
        """Take note of a stop."""
        if stop.kind is Kind.EXEC:
            self._executed(stop.pid, stop.number)
            return
        thread = self._threads.get(stop.pid)
        if thread is None:
            return
        if stop.kind is Kind.ENTRY:
            thread.number, thread.arguments = stop.number, stop.arguments
            self.used.add(stop.number)
            if stop.number in self._entries:
                self._entries[stop.number](thread)
        elif stop.kind is Kind.EXIT:
            if stop.number >= 0 and thread.number in self._exits:
                self._exits[thread.number](thread, stop.number)
        elif stop.kind is Kind.MADE:
            self._made(thread, stop.number)
        elif stop.kind is Kind.ENDING:
            self._ends(thread)
        elif stop.kind is Kind.ENDED:
            del self._threads[stop.pid]

    def seen(self) -> dict[ProcessKey, Seen]:
        """Say what was seen of each process."""
        return {key: Seen(each.role, each.filters, each.has_read) for key, each in self._processes.items()}

    # Threads and credentials

    def _executed(self, pid: int, former: int) -> None:
        thread = self._threads.pop(former, None)
        if thread is None:
            if pid != self._started.pid:
                return
            thread = _Thread(pid, ((), 0), self._credential(pid), ())
            self._processes[()] = _Process(pid)
        self._threads[pid] = thread
        thread.pid = pid
        process = self._processes[thread.key[0]]
        process.role = ""
        with contextlib.suppress(OSError):
            process.program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        self._note(thread, EXEC)

    def _made(self, maker: _Thread, pid: int) -> None:
        key = maker.key[0]
        process = self._processes[key]
        if _group_of(pid) == _group_of(maker.pid):
            process.threads += 1
            made = key, process.threads
        else:
            made = (*key, process.children), 0
            process.children += 1
            child = self._processes[made[0]] = _Process(pid)
            child.program, child.role, child.filters = process.program, process.role, maker.filters
            child.has_read = process.has_read
        self._threads[pid] = _Thread(pid, made, maker.credential, maker.filters)

    def _note(self, thread: _Thread, event: str) -> None:
        thread.credential = self._credential(thread.pid)
        self.known.setdefault(thread.key, []).append(Known(event, thread.credential))
        self._look_at_title(thread)

    def _credential(self, pid: int) -> Credential:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            credential = parse_status(file.read())
        has_own_userns = os.stat(f"/proc/{pid}/ns/user").st_ino != self._own_userns
        return credential._replace(has_own_userns=has_own_userns)

    def _look_at_title(self, thread: _Thread) -> None:
        process = self._processes[thread.key[0]]
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/cmdline", "rb") as file:
            title = file.read(_PATH_BYTES).split(b"\0", 1)[0].decode(errors="replace")
            match = _TITLE.fullmatch(title)
            process.role = match[1] if match else process.role

    def _ends(self, thread: _Thread) -> None:
        if thread.key[1] == 0:
            self._look_at_title(thread)
            if self._processes[thread.key[0]].has_read:
                self._look_for_netns(thread)

    def _has_changed_credential(self, thread: _Thread, _result: int) -> None:
        event = sysnames.credential_event(thread.number, thread.arguments)
        if event:
            self._note(thread, event)

    # Filters

    def _loads_filter(self, thread: _Thread) -> None:
        thread.program = b""
        name, arguments = sysnames.name_of(thread.number), thread.arguments
        is_filter = (
            arguments[0] == _SECCOMP_SET_MODE_FILTER
            if name == "seccomp"
            else arguments[:2] == (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER)
        )
        if is_filter:
            with contextlib.suppress(OSError, struct.error):
                length, address = struct.unpack("=HxxxxxxQ", _memory(thread.pid, arguments[2], 16))
                thread.program = _memory(thread.pid, address, 8 * length)

    def _has_loaded_filter(self, thread: _Thread, _result: int) -> None:
        if not thread.program:
            return
        thread.filters = (*thread.filters, thread.program)
        self._processes[thread.key[0]].filters = thread.filters
        if sysnames.name_of(thread.number) == "seccomp" and thread.arguments[1] & _SECCOMP_FILTER_FLAG_TSYNC:
            for other in self._threads.values():
                if other.key[0] == thread.key[0]:
                    other.filters = thread.filters

    def _has_called_prctl(self, thread: _Thread, result: int) -> None:
        self._has_loaded_filter(thread, result)
        self._has_changed_credential(thread, result)

    # Input

    def _has_read(self, thread: _Thread, result: int) -> None:
        if not result:
            return
        try:
            status = os.stat(f"/proc/{thread.pid}/fd/{thread.arguments[0]}")
        except OSError:
            return
        if stat.S_ISFIFO(status.st_mode):
            if status.st_ino == self._started.stdin_inode:
                self._count(thread, STDIN, result)
            elif self._writers.get(status.st_ino, set()) - {thread.key[0]}:
                self._count(thread, PEER, result)
        elif stat.S_ISREG(status.st_mode) and status.st_dev in self._devices:
            self._count(thread, STATE, result)

    def _has_read_memory(self, thread: _Thread, result: int) -> None:
        self._count(thread, PEER, result)

    def _count(self, thread: _Thread, source: str, count: int) -> None:
        if not thread.credential.has_own_userns:
            for name in names_of(thread.credential.effective):
                self.untrusted.setdefault(name, Counter())[source] += count
        process = self._processes[thread.key[0]]
        if not process.has_read:
            process.has_read = True
            self._look_at_title(thread)
            self._look_for_netns(thread)

    def _writes(self, thread: _Thread) -> None:
        path = f"/proc/{thread.pid}/fd/{thread.arguments[0]}"
        try:
            status = os.stat(path)
        except OSError:
            return
        if stat.S_ISFIFO(status.st_mode):
            if self._processes[thread.key[0]].has_read:
                self._writers.setdefault(status.st_ino, set()).add(thread.key[0])
        elif stat.S_ISREG(status.st_mode):
            self._writes_file(os.readlink(path), status)

    # Files

    def _writes_file(self, path: str, status: os.stat_result) -> None:
        if path.startswith("/") and not path.startswith("/memfd:"):
            self.written.add(self._place(path, status))

    def _has_opened(self, thread: _Thread, result: int) -> None:
        link = f"/proc/{thread.pid}/fd/{result}"
        path, status = os.readlink(link), os.stat(link)
        if path.startswith("/"):
            place = self._place(path, status)
            self.opened.add(place)
            is_left = status.st_dev in self._mounted_devices
            flags_at = _OPENS[sysnames.name_of(thread.number)]
            if flags_at >= 0 and thread.arguments[flags_at] & os.O_CREAT and is_left and stat.S_ISREG(status.st_mode):
                self.written.add(place)

    def _changes(self, thread: _Thread) -> None:
        thread.paths = []
        for directory_at, path_at in _CHANGES[sysnames.name_of(thread.number)]:
            with contextlib.suppress(OSError):
                path = _text(thread.pid, thread.arguments[path_at])
                fd = _AT_FDCWD if directory_at is None else _signed(thread.arguments[directory_at])
                beginning = f"/proc/{thread.pid}/{'cwd' if fd == _AT_FDCWD else f'fd/{fd}'}"
                shown = os.path.normpath(os.path.join(os.readlink(beginning), path))
                way = f"/proc/{thread.pid}/root{path}" if path.startswith("/") else f"{beginning}/{path}"
                status = os.stat(os.path.dirname(way))
                # what is made for a mount namespace of somebody's own is nothing that he leaves
                if status.st_dev in self._mounted_devices:
                    directory = self._place(os.path.dirname(shown), status)
                    thread.paths.append(os.path.join(directory, os.path.basename(shown)))

    def _has_changed(self, thread: _Thread, _result: int) -> None:
        self.written |= set(thread.paths)

    # Network namespaces

    def _look_for_netns(self, thread: _Thread) -> None:
        process = self._processes[thread.key[0]]
        who = process.role or process.program
        with contextlib.suppress(OSError):
            own = os.stat(f"/proc/{thread.pid}/ns/net").st_ino
            for what in self._ways(thread, own):
                self.handles.add(f"{who}: {what}")

    def _ways(self, thread: _Thread, own: int) -> Iterator[str]:
        yield from self._descriptors(thread.pid, own)
        yield from self._mounted(thread.pid, own)
        if thread.credential.effective >> _CAP_SYS_PTRACE & 1:
            yield from self._by_process(thread.pid, own)
        if thread.credential.effective >> _CAP_NET_ADMIN & 1:
            yield from _nsids(thread.pid)

    def _netns(self, inode: int) -> str:
        return self._netns_names.get(inode, "another netns")

    def _place(self, path: str, status: os.stat_result) -> str:
        """Give a file the path that it has on the host, where it is seen through a mount that has none."""
        if status.st_dev in self._devices and not path.startswith(STATE_DIRECTORIES):
            for directory in (*STATE_DIRECTORIES, *(f"{each}/networks" for each in STATE_DIRECTORIES)):
                with contextlib.suppress(OSError):
                    there = os.stat(f"{self._root}{directory}{path}", follow_symlinks=False)
                    if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                        return os.path.normpath(directory + path)
        return _without_numbers(path)

    def _descriptors(self, pid: int, own: int) -> Iterator[str]:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("net:[") and int(target[5:-1]) != own:
                    yield f"a descriptor of {self._netns(int(target[5:-1]))}"

    def _mounted(self, pid: int, own: int) -> Iterator[str]:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split()
                if fields[3].startswith("net:[") and int(fields[3][5:-1]) != own:
                    yield f"the path {fields[4]} of {self._netns(int(fields[3][5:-1]))}"

    def _by_process(self, pid: int, own: int) -> Iterator[str]:
        root = f"/proc/{pid}/root/proc"
        for name in os.listdir(root):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    inode = os.stat(f"{root}/{name}/ns/net").st_ino
                    if inode != own:
                        yield f"a process in {self._netns(inode)}"


def observe(station: Station, started: Started) -> Observation:
    """Follow a call to its end.

    Args:
        station: Where it happens.
        started: It waits for the word.
    """
    observer = _Observer(station, started)
    followed = Followed(started.pid)
    started.go()
    status = 0
    for stop in followed.stops(CALL_TIME_LIMIT_S, _AFTERWARDS_TIME_LIMIT_S):
        if stop.kind is Kind.ENDED and stop.pid == started.pid:
            status = stop.number
        # a thread may be killed while it is looked at
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            observer.take(stop)
    return Observation(
        outcome=started.finish(status),
        known=observer.known,
        processes=observer.seen(),
        untrusted=observer.untrusted,
        used=observer.used,
        opened=observer.opened,
        written=observer.written,
        handles=observer.handles,
    )


def _group_of(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))


def _memory(pid: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def _text(pid: int, address: int) -> str:
    """Read a text from the memory of a thread: up to its end, which may be near that of a page."""
    first = _memory(pid, address, 4096 - address % 4096)
    data = first if b"\0" in first else first + _memory(pid, address + len(first), _PATH_BYTES)
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def _signed(word: int) -> int:
    return (word & 0xFFFFFFFF) - (1 << 32) if word & 0x80000000 else word & 0xFFFFFFFF


def _without_numbers(path: str) -> str:
    return stable(_DETACHED.sub("/proc/PID", _NUMBERED.sub("/proc/PID", path)))


def _nsids(pid: int) -> Iterator[str]:
    """List the numbers by which other netns are known in that of a process."""
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw.syscall("setns", fd, _CLONE_NEWNET)
        finally:
            os.close(fd)
        try:
            link = raw.Netlink()
            try:
                answers = link.request(raw.RTM_GETNSID, bytes(4), raw.NLM_F_DUMP)
            finally:
                link.close()
        finally:
            raw.syscall("setns", own_fd, _CLONE_NEWNET)
    finally:
        os.close(own_fd)
    for _, body in answers:
        yield f"the number {raw.integer(raw.attributes(body[4:])[raw.NETNSA_NSID])} of a netns"

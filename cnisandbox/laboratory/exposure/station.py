"""Where calls are measured: namespaces to throw away, with a container, and the start of a plugin in them.

    station: process 1 of its own pid namespace, in fresh network, mount, ipc and uts namespaces: "the host"
      │  files    everything is read-only; /etc, /var and /tmp are copied when written to; /run and /var/lib/cni are
      │           empty, and so is each other directory that a plugin keeps state in
      │  links    those that the netconf says are there already: ends of pairs
      └── /run/netns/container

Whoever measures stays outside, in the initial pid namespace, whose process numbers are the kernel's own.

Privilege: everything. A plugin that is measured as root can do what root can, but for files and the network.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import prctl

from cnisandbox.boundary.namespaces import NewPidNamespaces
from cnisandbox.boundary.syscalls import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS
from cnisandbox.errors import IoFailure, IsolationUnavailable, quoted, reason
from cnisandbox.laboratory.attacker import raw

NETNS_PATH = "/run/netns/container"
OWN_DIRECTORY = "/run/laboratory"
# What plugins keep from one call to the next, by what netconf and reference plugins call it.
STATE_DIRECTORIES = ("/var/lib/cni", "/run/cni")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CALL_TIME_LIMIT_S = 60.0
_AFTERWARDS_TIME_LIMIT_S = 2.0
_COMMAND_TIME_LIMIT_S = 20.0
_PIPE_BYTES = 1 << 20
_MAX_NETCONF_BYTES = _PIPE_BYTES
_MAX_OUTPUT_BYTES = 16 << 20

_COPIED_DIRECTORIES = ("/etc", "/var", "/tmp")
_EMPTY_DIRECTORIES = ("/run", "/dev/shm", "/var/lib/cni")
_NAMESPACES = {"mnt": CLONE_NEWNS, "net": CLONE_NEWNET, "uts": CLONE_NEWUTS, "ipc": CLONE_NEWIPC}
_MS_BIND, _MS_PRIVATE_RECURSIVE = 1 << 12, (1 << 18) | (1 << 14)
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


class Command(NamedTuple):
    """What is executed.

    Attributes:
        argv: The program's path, and its arguments.
        environment: All of it.
        stdin: What it reads; at most 1 MiB.
    """

    argv: tuple[str, ...]
    environment: dict[str, str]
    stdin: bytes


class Outcome(NamedTuple):
    """What came of a call.

    Attributes:
        status: Exit status; -N for an end by signal N.
        stdout: What it wrote.
        stderr: What it complained about.
        duration_ns: From its execution until it had ended and nobody could write to its output any more.
    """

    status: int
    stdout: bytes
    stderr: bytes
    duration_ns: int


class Started:
    """A process that is about to execute a program, and waits for the word.

    Attributes:
        pid: In the initial pid namespace.
        stdin_inode: The pipe that is its standard input.
    """

    def __init__(self, pid: int, go_fd: int, stdin_inode: int, output_fds: tuple[int, int]) -> None:
        self.pid = pid
        self.stdin_inode = stdin_inode
        self._go_fd = go_fd
        self._output_fds = output_fds
        self._begin_ns = 0
        self._pieces: dict[int, list[bytes]] = {fd: [] for fd in output_fds}
        self._open = set(output_fds)

    def go(self) -> None:
        """Have it execute the program."""
        self._begin_ns = time.perf_counter_ns()
        os.write(self._go_fd, b"x")
        os.close(self._go_fd)

    def wait(self) -> Outcome:
        """Wait for its end.

        Raises:
            IoFailure: It takes too long.
        """
        pidfd = os.pidfd_open(self.pid)
        deadline = time.monotonic() + CALL_TIME_LIMIT_S
        has_ended = False
        try:
            while not has_ended or self._output_fds[0] in self._open:
                waited = [*self._open] if has_ended else [*self._open, pidfd]
                ready, _, _ = select.select(waited, [], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise IoFailure(f"run plugin: no end after {CALL_TIME_LIMIT_S:.0f} s")
                has_ended = has_ended or pidfd in ready
                for fd in set(ready) - {pidfd}:
                    self._receive(fd)
            duration_ns = time.perf_counter_ns() - self._begin_ns
        finally:
            os.close(pidfd)
        _, status = os.waitpid(self.pid, 0)
        return self._outcome(status, duration_ns)

    def finish(self, status: int) -> Outcome:
        """Say what came of it when somebody else has waited for its end.

        Args:
            status: As waitpid gives it.
        """
        duration_ns = time.perf_counter_ns() - self._begin_ns
        for fd in self._output_fds:
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while fd in self._open:
                    self._receive(fd)
        return self._outcome(status, duration_ns)

    def _receive(self, fd: int) -> None:
        piece = os.read(fd, 1 << 16)
        if not piece or sum(map(len, self._pieces[fd])) > _MAX_OUTPUT_BYTES:
            self._open.discard(fd)
        self._pieces[fd].append(piece)

    def _outcome(self, status: int, duration_ns: int) -> Outcome:
        stdout, stderr = (b"".join(self._pieces[fd]) for fd in self._output_fds)
        for fd in self._output_fds:
            os.close(fd)
        return Outcome(os.waitstatus_to_exitcode(status), stdout, stderr, duration_ns)


class Station:
    """The host.

    Args:
        furnish: Puts files into OWN_DIRECTORY; runs inside.
        links: Names of links that are there already.
        shown: A directory that has to stay in view although /run is empty.

    Raises:
        IsolationUnavailable: It cannot be made.

    Attributes:
        pid: Its first process, whose end is the end of every process in it.
    """

    def __init__(self, furnish: Callable[[], None], links: Sequence[str], shown: str) -> None:
        reader, writer = os.pipe()
        self._pid_namespaces = NewPidNamespaces()
        self._pid_namespaces.before_fork()
        self.pid = os.fork()
        if self.pid == 0:
            _hold(writer, furnish, links, shown)
        self._pid_namespaces.after_fork()
        os.close(writer)
        with open(reader, "rb") as pipe:
            said = pipe.readline()
        self._fds = {name: os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY) for name in (*_NAMESPACES, "pid")}
        if said != b"ready\n":
            self.close()
            raise IsolationUnavailable(
                f"make namespaces to measure in: {said.decode(errors='replace').strip() or 'they are gone'}",
                "it takes root with all capabilities; `cnisandbox doctor` says what is missing",
            )

    def close(self) -> None:
        """End every process in it, and with them the namespaces."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # whoever waited for all may have been told already
            os.waitpid(self.pid, 0)
        self._pid_namespaces.close()
        for fd in self._fds.values():
            os.close(fd)

    def start(self, command: Command, without: int | None = None) -> Started:
        """Make a process that will execute a program.

        Args:
            command: What.
            without: A capability that it, and everything that it makes, can never have.

        Raises:
            IoFailure: the netconf is too long.
        """
        if len(command.stdin) > _MAX_NETCONF_BYTES:
            raise IoFailure(f"write standard input: longer than {_MAX_NETCONF_BYTES} bytes")
        stdin_reader, stdin_writer = os.pipe()
        go_reader, go_writer = os.pipe()
        outputs = os.pipe(), os.pipe()
        for reader, _ in (*outputs, (stdin_reader, 0)):
            with contextlib.suppress(PermissionError):  # without CAP_SYS_RESOURCE there is a limit for all pipes
                fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        stdin_inode = os.fstat(stdin_reader).st_ino
        raw.syscall("setns", self._fds["pid"], CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                self._execute(command, (stdin_reader, outputs[0][1], outputs[1][1]), go_reader, without)
        finally:
            self._pid_namespaces.after_fork()
        for fd in (stdin_reader, go_reader, outputs[0][1], outputs[1][1]):
            os.close(fd)
        os.set_blocking(stdin_writer, False)
        try:
            if os.write(stdin_writer, command.stdin) < len(command.stdin):
                raise IoFailure("write standard input: the pipe is full")
        finally:
            os.close(stdin_writer)
        return Started(pid, go_writer, stdin_inode, (outputs[0][0], outputs[1][0]))

    def run(self, command: Command, without: int | None = None) -> Outcome:
        """Execute a program and wait for its end, and for that of what it leaves behind."""
        started = self.start(command, without)
        started.go()
        outcome = started.wait()
        self.settle()
        return outcome

    def _execute(self, command: Command, standard: tuple[int, int, int], go_fd: int, without: int | None) -> NoReturn:
        try:
            os.setsid()
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for each in (signal.SIGINT, signal.SIGPIPE):
                signal.signal(each, signal.SIG_DFL)
            self._enter()
            os.umask(0o022)
            for number, fd in enumerate(standard):
                os.dup2(fd, number)
            if without is not None:
                _give_up(without)
            os.read(go_fd, 1)
            os.execve(command.argv[0], command.argv, command.environment)
        except OSError as error:
            os.write(2, f"execute {command.argv[0]}: {reason(error)}\n".encode())
        finally:
            os._exit(127)

    def _enter(self) -> None:
        for name, kind in _NAMESPACES.items():
            raw.syscall("setns", self._fds[name], kind)
        os.chdir("/")

    def inside(self, function: Callable[[], object]) -> object:
        """Run a function in a process of its own on the host.

        Returns:
            What it returned, as JSON knows it.

        Raises:
            IoFailure: it failed.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._answer(writer, function)
        os.close(writer)
        with open(reader, encoding="utf-8") as answers:
            answer = answers.read()
        os.waitpid(pid, 0)
        said = json.loads(answer or '{"error": "it died"}')
        if "error" in said:
            raise IoFailure(f"look at the measured host: {said['error']}")
        return said["value"]

    def _answer(self, writer: int, function: Callable[[], object]) -> NoReturn:
        try:
            prctl.set_pdeathsig(signal.SIGKILL)
            self._enter()
            answer = json.dumps({"value": function()})
        except Exception as error:
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        try:
            with open(writer, "w", encoding="utf-8") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)

    def settle(self) -> None:
        """Wait until the first process is alone; what still lives after two seconds is a daemon and lives on."""
        deadline = time.monotonic() + _AFTERWARDS_TIME_LIMIT_S
        while self.others() and time.monotonic() < deadline:
            time.sleep(0.001)

    def others(self) -> list[str]:
        """List the processes but the first, by their numbers in here."""
        return [name for name in os.listdir(f"/proc/{self.pid}/root/proc") if name.isdigit() and name != "1"]

    def devices(self) -> frozenset[int]:
        """Say by which device numbers files of state are known, whatever the path somebody has to them."""
        root = f"/proc/{self.pid}/root"
        return frozenset(os.stat(root + path).st_dev for path in STATE_DIRECTORIES)

    def mounted_devices(self) -> frozenset[int]:
        """Say by which device numbers everything that is mounted is known."""
        with open(f"/proc/{self.pid}/mountinfo", encoding="utf-8", errors="replace") as file:
            numbers = [line.split()[2].split(":") for line in file]
        return frozenset(os.makedev(int(major), int(minor)) for major, minor in numbers)

    def netns_names(self) -> dict[int, str]:
        """Name the network namespaces, by inode."""
        root = f"/proc/{self.pid}"
        return {
            os.stat(f"{root}/ns/net").st_ino: "the host's netns",
            os.stat(f"{root}/root{NETNS_PATH}").st_ino: "the container's netns",
        }


def _hold(writer: int, furnish: Callable[[], None], links: Sequence[str], shown: str) -> NoReturn:
    """Live as the first process."""
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        raw.syscall("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
        _arrange_files(shown)
        furnish()
        _arrange_network(links)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody else waits for orphans
        os.write(writer, b"ready\n")
        os.close(writer)
        while True:
            signal.pause()
    except subprocess.CalledProcessError as error:
        os.write(writer, f"{error.cmd[0]}: {error.stderr.decode(errors='replace').strip()}\n".encode())
    except Exception as error:
        os.write(writer, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    raw.syscall("mount", *(text.encode() + b"\0" for text in (source, target, kind)), flags, options.encode() + b"\0")


def _arrange_files(shown: str) -> None:
    raw.syscall("mount", b"none\0", b"/\0", b"\0", _MS_PRIVATE_RECURSIVE, b"\0")
    shown_fd = os.open(shown, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    attributes = struct.pack("=4Q", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    raw.syscall("mount_setattr", _AT_FDCWD, b"/\0", _AT_RECURSIVE, attributes, len(attributes))
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    _mount("laboratory", "/run", "tmpfs")
    for directory in _COPIED_DIRECTORIES:
        upper, work = f"/run{directory}-upper", f"/run{directory}-work"
        os.mkdir(upper)
        os.mkdir(work)
        os.chmod(upper, os.stat(directory).st_mode & 0o7777)
        with contextlib.suppress(OSError):  # where it cannot be copied it stays read-only
            _mount("laboratory", directory, "overlay", 0, f"lowerdir={directory},upperdir={upper},workdir={work}")
    raw.syscall("umount2", b"/run\0", _MNT_DETACH)
    for directory in _EMPTY_DIRECTORIES:
        if not os.path.isdir(directory):
            os.makedirs(directory)
        _mount("laboratory", directory, "tmpfs", 0, "mode=1777" if directory == "/dev/shm" else "mode=755")
    os.mkdir("/run/cni")
    _mount("laboratory", "/run/cni", "tmpfs", 0, "mode=755")
    os.mkdir(OWN_DIRECTORY)
    if not os.path.isdir(shown):
        os.makedirs(shown)
        _mount(f"/proc/self/fd/{shown_fd}", shown, "none", _MS_BIND)
    os.close(shown_fd)


def _arrange_network(links: Sequence[str]) -> None:
    commands = ["link set lo up", f"netns add {os.path.basename(NETNS_PATH)}"]
    for number, name in enumerate(links):
        commands += [f"link add {name} type veth peer name wire{number}", f"link set {name} up"]
        commands += [f"link set wire{number} up"]
    subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands).encode(),
        check=True,
        capture_output=True,
        timeout=_COMMAND_TIME_LIMIT_S,
        env={"PATH": PATH},
    )


def _give_up(capability: int) -> None:
    """Take a capability out of every set of ours: a program of root that is executed does not get it back."""
    raw.syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    raw.syscall("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = raw.buffer(24)
    raw.syscall("capget", header, sets)
    words = list(struct.unpack("=6I", sets.raw))
    for index in (0, 1, 2):
        words[index + 3 * (capability // 32)] &= ~(1 << capability % 32)
    raw.syscall("capset", header, struct.pack("=6I", *words))


def require_program(path: str) -> None:
    """Refuse what cannot be a plugin.

    Raises:
        IoFailure: there is no executable file.
    """
    if not os.path.isfile(path):
        raise IoFailure(f"measure plugin {quoted(path)}: there is no such file", "name the plugin by its path")
    if not os.access(path, os.X_OK):
        raise IoFailure(f"measure plugin {quoted(path)}: it cannot be executed", f"chmod +x {path}")

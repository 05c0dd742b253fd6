"""A machine to throw away: what a case is replayed on, in one column.

    host      process 1 of its own pid namespace, in fresh network and mount namespaces; /run, /var/lib/cni and the
              configuration of CNI are empty tmpfs
      ├── /run/netns/blue      a container
      ├── /run/netns/victim    a container of somebody else, with a process in it
      ├── /run/replay/bin      the vulnerable plugin, under the names of plugins
      ├── /run/replay/ours     our plugins
      ├── /run/replay/outside  programs that are no plugins
      └── /run/replay/private  root's alone, with a secret in it

Privilege: everything root has, as the runtime. Settings of the kernel that have no namespace are the machine's.
"""

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import prctl

from cnisandbox.boundary.levels import Level
from cnisandbox.cli import launcher
from cnisandbox.errors import CniError, IoFailure, quoted, reason
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.replays import vulnerable
from cnisandbox.laboratory.replays.case import OURS, ROOT, RUNNER, Outcome, without_outcome
from cnisandbox.laboratory.vector import UNTESTED

T = TypeVar("T")

REFERENCE_DIR = "/usr/lib/cni"
_BASE = "/run/replay"
VULNERABLE_DIR, OUR_DIR, OUTSIDE_DIR, PRIVATE_DIR, OPEN_DIR = (
    f"{_BASE}/{name}" for name in ("bin", "ours", "outside", "private", "open")
)
SECRET_FILE = f"{PRIVATE_DIR}/secret"
BLUE, VICTIM = "/run/netns/blue", "/run/netns/victim"

_COVERED = ("/run", "/var/lib/cni", "/etc/cni", "/etc/cnisandbox")
_NAMES = ("bridge", "portmap", "tuning")
_VARIABLES_OF_CALLS = ("CNI_", "CNISANDBOX_")
# What our bridge adds to an error: it has undone what it could.
_AFTERWARDS = ": left behind: "
_ADDRESS_PLUGIN = "replayed-ipam"
# The delegate worker refuses ioctl, with which the interpreter opens a program that it is given by name.
_PROGRAM = f'exec(compile(open("{VULNERABLE_DIR}/bridge").read(), "replayed", "exec"))'
_START = f"#!/bin/sh\nexec /usr/bin/python3 -I -c '{_PROGRAM}'\n"
_VULNERABLE_COMMANDS = (f"/usr/bin/python3 {VULNERABLE_DIR}/", f"/usr/bin/python3 -I -c {_PROGRAM}")
_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
_MS_PRIVATE_RECURSIVE = (1 << 18) | (1 << 14)
RUNNER_LEVEL = "mediated"
_COMMAND_TIME_LIMIT_S = 20.0
_CASE_TIME_LIMIT_S = 60.0


class Answer(NamedTuple):
    """What a call of a plugin answered.

    Attributes:
        status: Exit status; minus the signal that ended it.
        stdout: What it wrote.
        said: The message of its error, or what the vulnerable program was told; empty when nothing was refused.
    """

    status: int
    stdout: str
    said: str


class Host:
    """The machine.

    Attributes:
        column: How plugins run here: ROOT, OURS or RUNNER.
        level: The level of ours.
        secret: What stands in SECRET_FILE.
        victim_pid: A process in the netns of the other container.
    """

    def __init__(self, column: str, level: Level) -> None:
        self.column = column
        self.level = level
        self.secret = secrets.token_hex(8)
        for directory, mode in (
            (VULNERABLE_DIR, 0o755),
            (OUR_DIR, 0o755),
            (OUTSIDE_DIR, 0o755),
            (PRIVATE_DIR, 0o700),
            (OPEN_DIR, 0o1777),
            ("/run/netns", 0o755),
            ("/run/lock", 0o755),
            ("/var/lib/cni/networks", 0o755),
        ):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, mode)
        for name in _NAMES:
            shutil.copyfile(vulnerable.__file__, f"{VULNERABLE_DIR}/{name}")
        with open(f"{VULNERABLE_DIR}/{_ADDRESS_PLUGIN}", "w") as file:
            file.write(_START)
        for name in os.listdir(VULNERABLE_DIR):
            os.chmod(f"{VULNERABLE_DIR}/{name}", 0o755)
        with open(SECRET_FILE, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(f"nameserver 192.0.2.53\nsearch {self.secret}\n")
        self.run("ip", "link", "set", "lo", "up")
        for name in ("blue", "victim"):
            self.run("ip", "netns", "add", name)
        self.victim_pid = self._forked_in(VICTIM)
        if column == OURS:
            with launcher.opened(OUR_DIR) as directory_fd:
                for name in launcher.plugin_names():
                    launcher.install(directory_fd, name, name)

    def run(self, *argv: str, stdin: str = "", is_checked: bool = True) -> str:
        """Run a program of the system to its end; its output.

        Raises:
            IoFailure: it is missing, fails, or takes too long.
        """
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, check=False, timeout=_COMMAND_TIME_LIMIT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = reason(error) if isinstance(error, OSError) else f"not done after {_COMMAND_TIME_LIMIT_S:g} s"
            raise IoFailure(f"execute {quoted(' '.join(argv))}: {why}") from error
        if is_checked and done.returncode != 0:
            raise IoFailure(f"execute {quoted(' '.join(argv))}: status {done.returncode}", done.stderr or done.stdout)
        return done.stdout

    def ip(self, *arguments: str) -> Any:
        """Run `ip -json`; what it printed."""
        return json.loads(self.run("ip", "-json", *arguments) or "[]")

    def links(self, netns: str = "") -> set[str]:
        """Name the links of the host, or of a netns by name."""
        place = ["-n", netns] if netns else []
        return {link["ifname"] for link in self.ip(*place, "link")}

    def call(
        self,
        program: str,
        netconf: dict[str, Any],
        verb: str = "ADD",
        *,
        container: str = "c1",
        netns: str = BLUE,
        profile: str = "",
        kept_fds: Sequence[int] = (),
        during: Callable[[], bool] | None = None,
        wrapper: Sequence[str] = (),
    ) -> Answer:
        """Call a plugin as this column does.

        Args:
            program: Path of the plugin.
            netconf: What it reads.
            verb: Value of CNI_COMMAND.
            container: Value of CNI_CONTAINERID.
            netns: Value of CNI_NETNS.
            profile: Profile for the runner; by default the one with the plugin's name.
            kept_fds: Descriptors that the runtime leaves open.
            during: Asked again and again while it runs, until it says True.
            wrapper: Program and arguments that execute the plugin, in column ROOT.
        """
        argv = [*wrapper, program]
        if self.column == RUNNER:
            options = ["--level", RUNNER_LEVEL, *(["--profile", profile] if profile else [])]
            argv = [sys.executable, "-m", "cnisandbox.cli.main", "exec", *options, "--", program]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_VARIABLES_OF_CALLS)}
        environment |= {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{os.path.dirname(program)}:{VULNERABLE_DIR}:{REFERENCE_DIR}",
        }
        if self.column == OURS:
            environment["CNISANDBOX_LEVEL"] = self.level.value
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            pass_fds=kept_fds,
        ) as child:
            assert child.stdin is not None
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(netconf))
                child.stdin.close()
            child.stdin = None
            while during is not None and child.poll() is None and not during():
                time.sleep(0.002)
            try:
                stdout, stderr = child.communicate(timeout=_COMMAND_TIME_LIMIT_S)
            except subprocess.TimeoutExpired as error:
                child.kill()
                raise IoFailure(f"execute {quoted(program)}: not done after {_COMMAND_TIME_LIMIT_S:g} s") from error
        return Answer(child.returncode, stdout, "" if child.returncode == 0 else _message(stdout, stderr))

    def call_vulnerable(self, name: str, defect: str, with_what: dict[str, Any] | None = None, **kwargs: Any) -> Answer:
        """Have the vulnerable program run: as plugin `name`; where ours run, as their address plugin.

        Raises:
            CniError: it has not said what came of it.
        """
        replay = {"defect": defect, **(with_what or {})}
        netconf = {"cniVersion": "1.0.0", "name": "net", "type": name, "replay": replay}
        if self.column == OURS:
            netconf |= {"type": "bridge", "ipam": {"type": _ADDRESS_PLUGIN}}
        program = f"{OUR_DIR}/bridge" if self.column == OURS else f"{VULNERABLE_DIR}/{name}"
        answer = self.call(program, netconf, **kwargs)
        if vulnerable.SAYS not in answer.stdout:
            raise CniError(f"replay {defect}: the vulnerable program did not come so far", answer.said)
        return answer

    @property
    def vulnerable_subject(self) -> str:
        """Say who runs the vulnerable program."""
        return {
            ROOT: "re-enactment, as root",
            OURS: "re-enactment, as the address plugin of our bridge",
            RUNNER: "re-enactment, under `cnisandbox exec`",
        }[self.column]

    def inside(self, netns: str, function: Callable[[], T]) -> T:
        """Run a function with this process in a netns."""
        own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _enter(netns)
        try:
            return function()
        finally:
            raw.syscall("setns", own_fd, _CLONE_NEWNET)
            os.close(own_fd)

    def processes(self) -> Iterator[tuple[int, str]]:
        """List the processes of the machine: pid and command line."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as file:
                yield int(entry), file.read().replace(b"\0", b" ").decode(errors="replace")

    def vulnerable_processes(self) -> list[int]:
        """List the processes that run the vulnerable program, and none that is about to execute it."""
        return [pid for pid, line in self.processes() if line.startswith(_VULNERABLE_COMMANDS)]

    def status(self, pid: int, field: str) -> str:
        """Read a field of a process's status."""
        with open(f"/proc/{pid}/status") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(f"{field}:"))

    def _forked_in(self, netns: str) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _enter(netns)
                os.write(writer, b"r")
                signal.pause()
            finally:
                os._exit(1)
        os.close(writer)
        os.read(reader, 1)
        os.close(reader)
        return pid


def _message(stdout: str, stderr: str) -> str:
    try:
        document = json.loads(stdout)
        text = ": ".join(str(document[key]) for key in ("msg", "details") if document.get(key))
    except (ValueError, AttributeError):
        text = stderr or stdout
    text = text.partition(_AFTERWARDS)[0].strip()[:500] or "it failed without a word"
    said = text.rpartition(vulnerable.SAYS)[2]
    return "" if said == vulnerable.DONE else said


def _enter(netns: str) -> None:
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    raw.syscall("setns", fd, _CLONE_NEWNET)
    os.close(fd)


def on_a_host(column: str, level: Level, replay: Callable[[Host], Outcome]) -> dict[str, Any]:
    """Make a machine, replay a case on it, and throw it away.

    Args:
        column: How plugins run there.
        level: The level of ours.
        replay: The case.

    Returns:
        What stands in the document. It is untested where the machine could not be made, a program of the system
        failed, or the case took too long.

    Raises:
        CniError: there is no process to be had, or the case has a defect.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.fork()
    except OSError as error:
        raise IoFailure(f"fork machine: {reason(error)}") from error
    if child == 0:
        os.close(reader)
        _become_first_process(writer, column, level, replay)
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.waitpid(child, 0)
    if "verdict" not in answer:
        raise CniError(f"replay in column {column}: {answer['msg']}", answer["details"])
    return answer


def _read(reader: int) -> dict[str, Any]:
    pieces = []
    deadline = time.monotonic() + _CASE_TIME_LIMIT_S
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return without_outcome(UNTESTED, f"it was not done after {_CASE_TIME_LIMIT_S:g} s")
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        pieces.append(piece)
    answer: dict[str, Any] = json.loads(b"".join(pieces) or b'{"msg": "the machine died", "details": ""}')
    return answer


def _become_first_process(writer: int, column: str, level: Level, replay: Callable[[Host], Outcome]) -> None:
    """Make the namespaces, and in them the machine; never returns."""
    try:
        prctl.set_pdeathsig(signal.SIGKILL)
        raw.syscall("unshare", _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET)
        pid = os.fork()
        if pid:
            os.close(writer)
            os.waitpid(pid, 0)
            os._exit(0)
        prctl.set_pdeathsig(signal.SIGKILL)
        _cover()
        _tell(writer, replay(Host(column, level)).document())
    except CniError as error:
        _tell(writer, without_outcome(UNTESTED, ": ".join(filter(None, (error.msg, error.details)))))
    except OSError as error:
        _tell(writer, without_outcome(UNTESTED, f"{quoted(error.filename)}: {reason(error)}"))
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        details = f"{os.path.basename(where.filename)}, line {where.lineno}"
        _tell(writer, {"msg": f"{type(error).__name__}: {error}", "details": details})
    finally:
        os._exit(0)  # of the first process: every other one ends with it


def _tell(writer: int, answer: dict[str, Any]) -> None:
    with open(writer, "w", closefd=False) as file:
        json.dump(answer, file)


def _cover() -> None:
    raw.syscall("mount", b"none", b"/", b"", _MS_PRIVATE_RECURSIVE, b"")
    raw.syscall("mount", b"proc", b"/proc", b"proc", 0, b"")
    for directory in _COVERED:
        place = directory if os.path.isdir(directory) else os.path.dirname(directory)
        if place != "/etc":  # what is not there needs no cover, and /etc is needed
            raw.syscall("mount", b"tmpfs", place.encode(), b"tmpfs", 0, b"mode=755")
            os.makedirs(directory, exist_ok=True)

"""Looking at a call of a plugin from outside: hold it still, and read /proc.

The engine reads standard input after everything was dropped, and the workers wait for the engine. So a call whose
standard input is held open stands still with every process confined, for as long as a test wants to look.
"""

import contextlib
import json
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests.boundary.planted import Filter
from tests.world import CLONE_NEWNET, CLONE_NEWNS, Completed, World, setns, wait_until

SERVICE_UID = pwd.getpwnam("cnisandbox").pw_uid
SERVICE_GID = pwd.getpwnam("cnisandbox").pw_gid

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_READ_OF_STDIN = ("0 0x0", "63 0x0")  # read(0, ...) on x86-64 and on arm64

NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "observed",
    "bridge": "cni0",
    "isGateway": True,
    "ipMasq": True,
    "cni.dev/valid-attachments": [],
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
}


class Mounted(NamedTuple):
    """One line of /proc/PID/mountinfo."""

    point: str
    kind: str
    options: frozenset[str]


class Process(NamedTuple):
    """What /proc says about a process, in the words of the process that reads it: ids are the kernel's own."""

    pid: int
    ppid: int
    group: int
    title: str
    uids: list[int]
    gids: list[int]
    groups: list[int]
    capabilities: dict[str, int]
    no_new_privs: int
    seccomp: int
    namespaces: dict[str, int]
    descriptors: dict[int, str]
    limits: dict[str, int]
    mounts: list[Mounted]


def observe(pid: int) -> Process:
    """Read everything about a process."""
    status = status_of(pid)
    return Process(
        pid=pid,
        ppid=int(status["PPid"]),
        group=os.getpgid(pid),
        title=_read(pid, "cmdline").replace("\0", " ").strip(),
        uids=[int(word) for word in status["Uid"].split()],
        gids=[int(word) for word in status["Gid"].split()],
        groups=[int(word) for word in status["Groups"].split()],
        capabilities={name: int(status["Cap" + name], 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        no_new_privs=int(status["NoNewPrivs"]),
        seccomp=int(status["Seccomp"]),
        namespaces={name: os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in NAMESPACES},
        descriptors={int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")},
        limits=_limits(pid),
        mounts=[_mounted(line) for line in _read(pid, "mountinfo").splitlines()],
    )


def status_of(pid: int) -> dict[str, str]:
    """Parse /proc/PID/status."""
    pairs = (line.split(":\t", 1) for line in _read(pid, "status").splitlines() if ":\t" in line)
    return {name: value.strip() for name, value in pairs}


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def _limits(pid: int) -> dict[str, int]:
    """Hard limits by the names that the attestation uses."""
    names = {
        "Max address space": "as",
        "Max core file size": "core",
        "Max cpu time": "cpu",
        "Max file size": "fsize",
        "Max open files": "nofile",
        "Max processes": "nproc",
    }
    found = {}
    for line in _read(pid, "limits").splitlines():
        name = line[:26].strip()
        if name in names:
            hard = line[26:].split()[1]
            found[names[name]] = -1 if hard == "unlimited" else int(hard)
    return found


def _mounted(line: str) -> Mounted:
    fields, _, rest = line.partition(" - ")
    return Mounted(fields.split()[4], rest.split()[0], frozenset(fields.split()[5].split(",")))


def children(pid: int) -> list[int]:
    """List the children of a process."""
    return [int(word) for word in _read(pid, f"task/{pid}/children").split()]


def waits_for_input(pid: int) -> bool:
    """Say whether a process stands in read(0)."""
    with contextlib.suppress(OSError):
        return _read(pid, "syscall").startswith(_READ_OF_STDIN)
    return False


class Call(NamedTuple):
    """A call of a plugin under way.

    Attributes:
        process: The process that was started: the entry, and later the engine.
        engine: What /proc says about it while it waits for standard input.
        workers: Likewise, by role.
    """

    process: subprocess.Popen[bytes]
    engine: Process
    workers: dict[str, Process]


def variables(plugin_dir: str, verb: str, netns: str = "/run/netns/blue", **more: str) -> dict[str, str]:
    """Make the environment of a call."""
    fixed = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_PATH": plugin_dir}
    return {**fixed, "CNI_NETNS": netns, **more}


def document(plugin: str, **more: object) -> bytes:
    """Make a netconf."""
    return json.dumps({**NETCONF, "type": plugin, **more}).encode()


def start(
    world: World, argv: list[str], env: Mapping[str, str], *, planted: Filter | None = None
) -> subprocess.Popen[bytes]:
    """Start a plugin in the world directly, without another program in between, which is killed with the world.

    Args:
        world: Where.
        argv: Program and arguments.
        env: Variables added to the environment.
        planted: A filter that it is put under before it is executed.
    """
    mnt_fd, net_fd = os.open(f"/proc/{world.pid}/ns/mnt", os.O_RDONLY), world.open_netns()

    def enter() -> None:
        setns(mnt_fd, CLONE_NEWNS)
        setns(net_fd, CLONE_NEWNET)
        os.chdir("/")
        os.setgroups([4, 24])  # a runtime may have some
        if planted is not None:
            planted.load()

    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            preexec_fn=enter,  # noqa: PLW1509 - this test run has one thread
            start_new_session=True,
        )
    finally:
        os.close(mnt_fd)
        os.close(net_fd)
    world._started.append(child)
    return child


def finish(child: subprocess.Popen[bytes], stdin: bytes, timeout: float = 20) -> Completed:
    """Feed a plugin and wait for it."""
    stdout, stderr = child.communicate(stdin, timeout=timeout)
    return Completed(stdout, stderr, child.returncode)


def run(
    world: World, argv: list[str], env: Mapping[str, str], stdin: bytes = b"", *, planted: Filter | None = None
) -> Completed:
    """Run a plugin to its end."""
    child = start(world, argv, env, planted=planted)
    try:
        return finish(child, stdin)
    finally:
        world._started.remove(child)


def error_of(completed: Completed) -> dict[str, Any]:
    """Return the one JSON document of a call that has failed."""
    assert completed.returncode == 1, completed
    parsed: dict[str, Any] = json.loads(completed.stdout)
    assert {"code", "msg"} <= parsed.keys()
    assert b"Traceback" not in completed.stderr
    return parsed


@contextlib.contextmanager
def held(
    world: World, argv: list[str], env: Mapping[str, str], *, workers: int, planted: Filter | None = None
) -> Iterator[Call]:
    """Start a plugin, and hold it still once all of its processes wait.

    Args:
        world: Where.
        argv: Program and arguments.
        env: Variables added to the environment.
        workers: How many workers it makes.
        planted: A filter that it is put under before it is executed.
    """
    child = start(world, argv, env, planted=planted)
    try:
        wait_until(lambda: _is_still(child, workers), timeout=20, interval=0.005)
        processes = [observe(pid) for pid in children(child.pid)]
        yield Call(child, observe(child.pid), {_role(process): process for process in processes})
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()
        child.wait(timeout=10)
        world._started.remove(child)


def _is_still(child: subprocess.Popen[bytes], workers: int) -> bool:
    if child.poll() is not None:
        assert child.stdout is not None
        raise AssertionError(f"it has ended: {child.stdout.read()!r}")
    return (
        waits_for_input(child.pid)
        and len(children(child.pid)) == workers
        and all(waits_for_input(pid) for pid in children(child.pid))
    )


def _role(process: Process) -> str:
    """Take "container worker" out of "cnisandbox: container worker [bridge eth0]"."""
    return process.title.removeprefix("cnisandbox: ").partition(" [")[0]


def is_gone(pid: int) -> Callable[[], bool]:
    """Make a condition: the process has ended (it may be a zombie that nobody has reaped yet)."""

    def condition() -> bool:
        try:
            return status_of(pid)["State"].startswith("Z")
        except OSError:
            return True

    return condition

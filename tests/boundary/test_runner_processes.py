"""The runner, looked at from outside while the reference bridge plugin waits for its netconf.

    cnisandbox exec ──▶ keeper      no capability
                          └─ monitor    CAP_NET_ADMIN, the host's netns; first process of a pid namespace
                               ├─ opener    CAP_NET_ADMIN, the container's netns
                               └─ worker    the plugin: no capability, an empty netns, a pid namespace of its own

The values are written out by hand; nothing of them is taken from the package.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.boundary.observe import (
    SERVICE_GID,
    SERVICE_UID,
    Process,
    children,
    finish,
    is_gone,
    observe,
    start,
    variables,
)
from tests.world import World, wait_until

REFERENCE = "/usr/lib/cni"
EXEC = [str(Path(sys.executable).parent / "cnisandbox"), "exec"]
CAP_NET_ADMIN = 1 << 12
SECCOMP_FILTER = 2
NETCONF = {
    "cniVersion": "1.0.0",
    "name": "ran",
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}


class Run(NamedTuple):
    """A run under way, and who takes part in it."""

    process: subprocess.Popen[bytes]
    keeper: Process
    monitor: Process
    opener: Process
    worker: Process


@contextlib.contextmanager
def running(world: World, *options: str, plugin: str = f"{REFERENCE}/bridge", verb: str = "ADD") -> Iterator[Run]:
    """Start the runner and hold it: the plugin reads standard input, which stays open."""
    child = start(world, [*EXEC, *options, "--", plugin], variables(REFERENCE, verb))
    try:
        wait_until(lambda: _executes(child, plugin), timeout=20)
        (monitor,) = children(child.pid)
        found = [observe(pid) for pid in children(monitor)]
        (opener,) = [process for process in found if "opener" in process.title]
        (worker,) = [process for process in found if "opener" not in process.title]
        yield Run(child, observe(child.pid), observe(monitor), opener, worker)
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None and not pipe.closed:
                pipe.close()
        child.wait(timeout=10)
        world._started.remove(child)


def _executes(child: subprocess.Popen[bytes], plugin: str) -> bool:
    assert child.poll() is None, child.stdout.read() if child.stdout else b""
    with contextlib.suppress(OSError, ValueError):
        (monitor,) = children(child.pid)
        return any(os.readlink(f"/proc/{pid}/exe") == plugin for pid in children(monitor))
    return False


@pytest.fixture
def blue(world: World) -> World:
    """A world with a container's netns."""
    world.netns("blue")
    return world


def assert_is_confined(process: Process, capabilities: int) -> None:
    """What holds for everybody who takes part."""
    assert process.uids == [SERVICE_UID] * 4
    assert process.gids == [SERVICE_GID] * 4
    assert process.groups == []
    assert process.capabilities == {"Inh": 0, "Prm": capabilities, "Eff": capabilities, "Bnd": 0, "Amb": 0}
    assert process.no_new_privs == 1
    assert process.seccomp == SECCOMP_FILTER


def test_nobody_is_in_the_process_group_of_the_runtimes_other_plugins(blue: World) -> None:
    """kill(0) reaches a whole group; before Linux 6.12 nothing else keeps calls of one user from ending each other."""
    with running(blue) as run:
        for process in (run.monitor, run.opener, run.worker):
            assert process.group not in (os.getpgid(0), os.getpgid(run.process.pid))


def test_the_plugin_has_no_capability_and_stands_in_an_empty_netns(blue: World) -> None:
    with running(blue) as run:
        assert_is_confined(run.worker, 0)
        mine = {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in ("mnt", "pid", "ipc", "uts", "cgroup")}
        assert all(run.worker.namespaces[name] != inode for name, inode in mine.items())
        others = {run.monitor.namespaces["net"], run.opener.namespaces["net"], os.stat("/proc/self/ns/net").st_ino}
        assert run.worker.namespaces["net"] not in others
        assert sorted(run.worker.descriptors)[:3] == [0, 1, 2]
        assert all(target.startswith("pipe:") for fd, target in run.worker.descriptors.items() if fd < 3)
        assert not [target for target in run.worker.descriptors.values() if "net:" in target or "socket:" in target]


def test_the_plugin_sees_only_what_its_profile_names(blue: World) -> None:
    with running(blue) as run:
        root = Path(f"/proc/{run.worker.pid}/root")
        assert not (root / "root").exists()
        assert not (root / "etc/shadow").exists()
        assert not (root / "run/podman").exists()
        writable = {m.point for m in run.worker.mounts if "rw" in m.options and not m.point.startswith("/dev/")}
        assert writable == {"/tmp", "/var/lib/cni/networks"} | {
            m.point for m in run.worker.mounts if "dhcp.sock" in m.point
        }


@pytest.mark.parametrize("role", ["monitor", "opener"])
def test_who_acts_for_the_plugin_keeps_one_capability_and_is_not_root(blue: World, role: str) -> None:
    with running(blue) as run:
        process: Process = getattr(run, role)
        assert_is_confined(process, CAP_NET_ADMIN)
        assert sorted(mount.point for mount in process.mounts) == ["/", "/proc"]
        assert os.stat(f"/proc/{process.pid}/status").st_uid == 0  # not dumpable: the file is root's
        netns = "blue" if role == "opener" else None
        assert process.namespaces["net"] == os.fstat(blue.open_netns(netns)).st_ino


def test_the_keeper_has_nothing(blue: World) -> None:
    with running(blue) as run:
        assert_is_confined(run.keeper, 0)
        assert [mount.point for mount in run.keeper.mounts] == ["/"]


def test_the_plugin_cannot_name_the_monitor(blue: World) -> None:
    with running(blue) as run:
        assert run.worker.namespaces["pid"] != run.monitor.namespaces["pid"]
        numbers = [name for name in os.listdir(f"/proc/{run.worker.pid}/root/proc") if name.isdecimal()]
        assert numbers == ["1"]


def test_the_monitor_ends_with_the_keeper_whatever_it_is_doing(blue: World) -> None:
    """One that is stopped does not see its channel end: the kernel ends it, and with it everybody below."""
    with running(blue) as run:
        os.kill(run.monitor.pid, signal.SIGSTOP)
        os.kill(run.process.pid, signal.SIGKILL)
        for process in (run.monitor, run.opener, run.worker):
            wait_until(is_gone(process.pid), timeout=5)


@pytest.mark.parametrize("victim", ["process", "monitor"])
def test_everybody_ends_with_the_keeper_and_with_the_monitor(blue: World, victim: str) -> None:
    with running(blue) as run:
        os.kill(getattr(run, victim).pid, signal.SIGKILL)
        for process in (run.monitor, run.opener, run.worker):
            wait_until(is_gone(process.pid), timeout=5)


def test_a_monitor_that_was_killed_is_an_error_object(blue: World) -> None:
    with running(blue) as run:
        os.kill(run.monitor.pid, signal.SIGKILL)
        completed = finish(run.process, b"{}")
        assert completed.returncode == 1
        assert json.loads(completed.stdout)["code"] == 104


def test_a_plugin_that_is_killed_shows_its_signal(blue: World) -> None:
    with running(blue) as run:
        os.kill(run.worker.pid, signal.SIGKILL)
        assert finish(run.process, b"").returncode == -signal.SIGKILL


def test_the_evidence_is_kept(blue: World, tmp_path: Path) -> None:
    file = tmp_path / "attest"
    with running(blue, "--attest", str(file)) as run:
        records = {record["role"]: record for record in map(json.loads, file.read_text().splitlines())}
        assert set(records) == {"monitor", "opener", "keeper", "worker"}
        assert records["worker"]["namespaces"]["net"] == run.worker.namespaces["net"]
        assert records["worker"]["permitted"] == 0
        assert records["monitor"]["permitted"] == CAP_NET_ADMIN


def test_a_netns_below_proc_is_found_by_its_path(blue: World) -> None:
    """As containerd's ctr names it; the plugin's own pid namespace gets a process of that number."""
    sleeper = blue.popen(["sleep", "60"], netns="blue")
    wait_until(lambda: os.readlink(f"/proc/{sleeper.pid}/exe").endswith("sleep"))
    path = f"/proc/{sleeper.pid}/ns/net"
    child = start(blue, [*EXEC, "--", f"{REFERENCE}/bridge"], {**variables(REFERENCE, "ADD"), "CNI_NETNS": path})
    completed = finish(child, json.dumps(NETCONF).encode())
    assert completed.returncode == 0, completed
    assert json.loads(completed.stdout)["interfaces"][2]["sandbox"] == path
    assert blue.link("eth0", netns="blue")["operstate"] == "UP"


def test_a_socket_as_standard_input_does_not_reach_the_plugin(blue: World) -> None:
    """A socket of the host's netns would lead to that netns (SIOCGSKNS)."""
    import socket

    ours, theirs = socket.socketpair()
    child = blue.popen([*EXEC, "--", f"{REFERENCE}/bridge"], stdin=theirs.fileno(), env=variables(REFERENCE, "ADD"))
    theirs.close()
    worker = wait_until(lambda: next((pid for pid in _grandchildren(child.pid) if _is_plugin(pid)), 0), timeout=20)
    assert not [t for t in observe(worker).descriptors.values() if t.startswith("socket:")]
    ours.sendall(json.dumps(NETCONF).encode())
    ours.shutdown(socket.SHUT_WR)
    stdout, _ = child.communicate(timeout=20)
    assert json.loads(stdout)["ips"]
    ours.close()


def _grandchildren(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # one has ended meanwhile
        return [grandchild for child in children(pid) for grandchild in children(child)]
    return []


def _is_plugin(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe") == f"{REFERENCE}/bridge"
    return False


def test_a_plugin_that_takes_too_long_is_ended(blue: World, tmp_path: Path) -> None:
    profile = tmp_path / "short.toml"
    profile.write_text('summary = "a second"\nlevel = "mediated"\ntime_limit_s = 1\n')
    profile.chmod(0o644)
    child = start(blue, [*EXEC, "--profile", str(profile), "--", f"{REFERENCE}/bridge"], variables(REFERENCE, "ADD"))
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], 20)
    assert ready
    answer = json.loads(child.stdout.read())
    assert answer["code"] == 11
    assert "took longer than 1 s" in answer["msg"]
    assert child.wait(timeout=10) == 1

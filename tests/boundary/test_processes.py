"""Invariant 2: every process of a call is what the table of levels says, read from /proc by another process.

    test ── reads /proc/PID/{status,ns,fd,limits,mountinfo,cmdline} of ──▶ engine, and its workers

The table below is written out by hand from docs/design.md, section "Levels"; nothing of it is taken from the package.
"""

import json
import os
import signal
from typing import NamedTuple

import pytest

from tests.boundary.observe import (
    NAMESPACES,
    SERVICE_GID,
    SERVICE_UID,
    Call,
    Mounted,
    Process,
    document,
    finish,
    held,
    is_gone,
    observe,
    variables,
)
from tests.world import World, wait_until

CAP_NET_ADMIN = 1 << 12
# SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP, SECBIT_NO_CAP_AMBIENT_RAISE, and the locks of these and of SECBIT_KEEP_CAPS
LOCKED_SECUREBITS = 0b11101111
SECCOMP_FILTER = 2

# Who is there, by plugin and by whether the verb is about an attachment.
WORKERS = {
    ("bridge", True): {"host worker", "container worker", "delegate worker"},
    ("bridge", False): {"host worker", "delegate worker"},
    ("host-local", True): {"delegate worker"},
    ("host-local", False): {"delegate worker"},
    ("loopback", True): {"container worker"},
    ("loopback", False): set(),
}
HAS_NET_ADMIN = {"host worker", "container worker"}
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
LEVELS = ("root", "netadmin", "hardened", "mediated")


class Limits(NamedTuple):
    """The resource limits of a role at level hardened."""

    address_space: int
    file_bytes: int
    processes: int


LIMITS = {
    "engine": Limits(1 << 30, 16 << 20, 0),
    "host worker": Limits(1 << 30, 0, 0),
    "container worker": Limits(1 << 30, 0, 0),
    "delegate worker": Limits(16 << 30, 16 << 20, 2048),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_every_process_is_what_its_level_says(
    shared_world: World, plugin_dir: str, plugin: str, verb: str, level: str
) -> None:
    attest_path = "/run/attestations"
    env = variables(plugin_dir, verb, CNISANDBOX_LEVEL=level, CNISANDBOX_ATTEST=attest_path)
    expected = WORKERS[plugin, verb in ("ADD", "DEL", "CHECK")]
    outside = observe(shared_world.pid)
    with held(shared_world, [f"{plugin_dir}/{plugin}"], env, workers=len(expected)) as call:
        assert set(call.workers) == expected
        for role, process in {"engine": call.engine, **call.workers}.items():
            own_level = level if level == "root" or (role in HAS_NET_ADMIN and level == "netadmin") else "hardened"
            _assert_is_what_the_table_says(process, role, own_level, outside)
        blue = os.stat(shared_world.outside_path("/run/netns/blue")).st_ino
        _assert_is_where_it_belongs(call, level, outside, blue)
        _assert_holds_only_what_it_was_given(call, level, attest_path)
        finish(call.process, document(plugin, isGateway=False, ipMasq=False))
    said = [json.loads(line) for line in shared_world.read(attest_path).splitlines()]
    shared_world.outside_path(attest_path).unlink()
    assert [record["role"] for record in said] == ["engine", *(role for role in sorted_roles() if role in expected)]
    for record in said:
        _assert_testifies_what_was_seen(record, {"engine": call.engine, **call.workers}[record["role"]])


def sorted_roles() -> list[str]:
    return ["host worker", "container worker", "delegate worker"]


def _assert_is_what_the_table_says(process: Process, role: str, level: str, outside: Process) -> None:
    assert process.title.startswith(f"cnisandbox: {role} [")
    if level == "root":
        assert process.uids == [0] * 4
        assert process.capabilities["Eff"] == outside.capabilities["Eff"]
        assert process.seccomp == 0
        assert process.no_new_privs == 0
        return
    assert process.group == process.pid or role == "engine"  # kill(0) reaches a group; the engine's is the runtime's
    kept = CAP_NET_ADMIN if role in HAS_NET_ADMIN else 0
    assert process.uids == [SERVICE_UID] * 4
    assert process.gids == [SERVICE_GID] * 4
    assert process.groups == []
    assert process.capabilities == {"Inh": 0, "Prm": kept, "Eff": kept, "Bnd": 0, "Amb": 0}
    assert process.no_new_privs == 1
    shares = {name for name in NAMESPACES if process.namespaces[name] == outside.namespaces[name]}
    if level == "netadmin":
        assert process.seccomp == 0
        assert shares >= {"mnt", "pid", "ipc", "uts", "cgroup", "user"}
        return
    assert process.seccomp == SECCOMP_FILTER
    assert shares - {"net"} == ({"user", "pid"} if role == "engine" else {"user"})
    _assert_has_limits(process, LIMITS[role])
    _assert_sees_only_its_view(process, role)


def _assert_has_limits(process: Process, limits: Limits) -> None:
    assert process.limits == {
        "as": limits.address_space,
        "core": 0,
        "cpu": 60,
        "fsize": limits.file_bytes,
        "nofile": 64,
        "nproc": limits.processes,
    }


def _assert_sees_only_its_view(process: Process, role: str) -> None:
    if role == "delegate worker":
        writable = [mount.point for mount in process.mounts if "ro" not in mount.options]
        assert set(writable) <= {"/var/lib/cni/networks", "/run/cni/networks"}
        assert all("nosuid" in mount.options for mount in process.mounts)
        assert {mount.point for mount in process.mounts if "nodev" not in mount.options} == {"/dev/null"}
        return
    root = Mounted("/", "tmpfs", frozenset({"ro", "nosuid", "nodev", "noexec", "relatime"}))
    if role == "engine":
        assert process.mounts == [root]
    else:
        first, sysctl = sorted(process.mounts, key=lambda mount: mount.point)
        assert first == root
        assert (sysctl.point, sysctl.kind) == ("/proc/sys/net", "proc")
        assert {"nosuid", "nodev", "noexec"} <= sysctl.options
    assert os.listdir(f"/proc/{process.pid}/root") == ([] if role == "engine" else ["proc"])


def _assert_is_where_it_belongs(call: Call, level: str, outside: Process, netns_inode: int) -> None:
    """Both netns are the workers'; what runs the plugin's code at mediated is in a third one, where nothing is."""
    if level == "mediated":
        assert call.engine.namespaces["net"] not in (outside.namespaces["net"], netns_inode)
        assert links_of(call.engine.pid) == ["lo"]
    else:
        assert call.engine.namespaces["net"] == outside.namespaces["net"]
    for role, process in call.workers.items():
        assert process.ppid == call.engine.pid
        assert process.namespaces["net"] == (netns_inode if role == "container worker" else outside.namespaces["net"])


def links_of(pid: int) -> list[str]:
    """List the links of the netns that a process is in, as /proc shows them."""
    with open(f"/proc/{pid}/net/dev") as file:
        return [line.split(":")[0].strip() for line in file if ":" in line]


def _assert_holds_only_what_it_was_given(call: Call, level: str, attest_path: str) -> None:
    """Pipes, /dev/null, the netns of the host worker; the engine: also the state directory and the attestation file."""
    if level == "root":
        return
    for role, process in call.workers.items():
        given = {fd: target for fd, target in process.descriptors.items() if fd > 2}
        assert process.descriptors[0].startswith("pipe:")
        assert process.descriptors[1].startswith("pipe:")
        assert process.descriptors[2] == "/dev/null"
        if role == "host worker" and "container worker" in call.workers:
            assert list(given) == [3]
            assert os.stat(f"/proc/{process.pid}/fd/3").st_ino == call.workers["container worker"].namespaces["net"]
        else:
            assert given == {}
    others = {fd: to for fd, to in call.engine.descriptors.items() if not to.startswith("pipe:")}
    directories = [fd for fd, to in others.items() if to != attest_path]
    assert list(others.values()).count(attest_path) == 1
    assert len(directories) == (1 if "delegate worker" in call.workers else 0)
    for fd in directories:
        through_it = os.stat(f"/proc/{call.engine.pid}/fd/{fd}")
        assert (through_it.st_uid, through_it.st_gid) == (SERVICE_UID, SERVICE_GID)


def _assert_testifies_what_was_seen(said: dict[str, object], seen: Process) -> None:
    assert said["pid"] == seen.pid
    assert said["uids"] == seen.uids
    assert said["gids"] == seen.gids
    assert said["groups"] == seen.groups
    names = {"inheritable": "Inh", "permitted": "Prm", "effective": "Eff", "bounding": "Bnd", "ambient": "Amb"}
    assert {name: said[name] for name in names} == {name: seen.capabilities[key] for name, key in names.items()}
    assert said["no_new_privs"] == bool(seen.no_new_privs)
    assert said["seccomp"] == seen.seccomp
    assert said["namespaces"] == seen.namespaces
    assert said["limits"] == seen.limits
    assert said["descriptors"] == sorted(seen.descriptors)
    if said["level"] == "hardened":
        assert said["is_root_read_only"] is True
        assert said["added_filters"] == 1
        if said["role"] != "delegate worker":
            assert said["mounts"] == sorted(mount.point for mount in seen.mounts)
    if said["level"] != "root":
        # What /proc does not show is at least what the table says; the planted weaknesses prove that it is measured.
        assert said["securebits"] == LOCKED_SECUREBITS
        assert said["is_dumpable"] is False
        assert said["parent_death_signal"] == (0 if said["role"] == "engine" else signal.SIGKILL)


def test_the_state_directory_is_roots_on_disk_and_the_service_users_through_the_engines_descriptor(
    shared_world: World, plugin_dir: str
) -> None:
    with held(shared_world, [f"{plugin_dir}/host-local"], variables(plugin_dir, "ADD"), workers=1):
        on_disk = os.stat(shared_world.outside_path("/var/lib/cni/networks"))
    assert (on_disk.st_uid, on_disk.st_mode & 0o777) == (0, 0o755)


@pytest.mark.parametrize("level", LEVELS)
def test_killing_the_entry_ends_its_workers_at_once(shared_world: World, plugin_dir: str, level: str) -> None:
    env = variables(plugin_dir, "ADD", CNISANDBOX_LEVEL=level)
    with held(shared_world, [f"{plugin_dir}/bridge"], env, workers=3) as call:
        os.kill(call.engine.pid, signal.SIGKILL)
        for process in call.workers.values():
            wait_until(is_gone(process.pid), timeout=2)


@pytest.mark.parametrize("level", LEVELS)
def test_a_call_that_ends_leaves_no_process(shared_world: World, plugin_dir: str, level: str) -> None:
    env = variables(plugin_dir, "STATUS", CNISANDBOX_LEVEL=level)
    with held(shared_world, [f"{plugin_dir}/bridge"], env, workers=2) as call:
        finish(call.process, document("bridge"))
        for process in call.workers.values():
            wait_until(is_gone(process.pid), timeout=2)


def test_capabilities_that_the_runtime_made_ambient_do_not_stay(shared_world: World, plugin_dir: str) -> None:
    argv = ["setpriv", "--inh-caps", "+sys_admin", "--ambient-caps", "+sys_admin", f"{plugin_dir}/bridge"]
    with held(shared_world, argv, variables(plugin_dir, "ADD"), workers=3) as call:
        for process in (call.engine, *call.workers.values()):
            assert process.capabilities["Amb"] == process.capabilities["Inh"] == process.capabilities["Bnd"] == 0


def test_groups_and_descriptors_of_the_runtime_do_not_stay(shared_world: World, plugin_dir: str) -> None:
    argv = ["setpriv", "--groups", "4,24", "sh", "-c", f"exec {plugin_dir}/bridge 7</etc/hostname 9</"]
    with held(shared_world, argv, variables(plugin_dir, "ADD"), workers=3) as call:
        for process in (call.engine, *call.workers.values()):
            assert process.groups == []
            assert "/etc/hostname" not in process.descriptors.values()
        assert [to for to in call.engine.descriptors.values() if not to.startswith("pipe:")] == ["/"]

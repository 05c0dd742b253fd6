"""A netns that belongs to another user namespace, as that of a rootless container or of a pod with hostUsers: false.

    machine's user namespace ── entry, engine, host worker, delegate worker: uid of the service user
      └── the container's    ── container worker: an id of the container's map, never the kernel's uid 0

Whoever is the kernel's uid 0 may write core_pattern, without a single capability; that is what must not happen.
"""

import json
import os
import signal
import subprocess

import pytest

from cnisandbox import CniError, Level, PrivilegeNotDropped, Sandbox, declared
from tests.boundary.observe import SERVICE_UID, document, error_of, finish, held, is_gone, run, variables
from tests.world import World, wait_until

# Maps as root writes them: what containers are given by runtimes. Kubernetes; a user of the machine; rootless podman.
MAPS = {
    "65536 ids": "0 1000000 65536",
    "one id": "0 65534 1",
    "own id and more": "0 65534 1\n1 1000000 65536",
    "root and more": "0 0 1\n1 1000000 65536",
}
ROOT_ALONE = "0 0 1"


class Pod:
    """A process in user and network namespaces of its own.

    Attributes:
        path: Of its netns.
        process: The process.
    """

    def __init__(self, world: World, id_map: str) -> None:
        self.process: subprocess.Popen[bytes] = world.popen(["unshare", "--user", "--net", "sleep", "300"])
        pid = self.process.pid
        own = os.stat("/proc/self/ns/user").st_ino
        wait_until(lambda: os.stat(f"/proc/{pid}/ns/user").st_ino != own)
        wait_until(lambda: os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat(f"/proc/{world.pid}/ns/net").st_ino)
        for name in ("uid_map", "gid_map"):
            if id_map:
                with open(f"/proc/{pid}/{name}", "w") as file:
                    file.write(id_map + "\n")
        self.path = f"/proc/{pid}/ns/net"

    def inode(self, name: str) -> int:
        """Identify one of its namespaces."""
        return os.stat(f"/proc/{self.process.pid}/ns/{name}").st_ino

    def links(self, world: World) -> set[str]:
        """Name the links in it."""
        text = world.run(["nsenter", f"--net={self.path}", "ip", "-json", "link"]).stdout
        return {link["ifname"] for link in json.loads(text)}


@pytest.fixture(params=MAPS.values(), ids=MAPS)
def pod(world: World, request: pytest.FixtureRequest) -> Pod:
    return Pod(world, request.param)


@declared
def write_core_pattern() -> str:
    try:
        fd = os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)
    except OSError as error:
        return os.strerror(error.errno)
    os.close(fd)
    return "opened for writing"


@declared
def make_up() -> list[int]:
    """Read and write a sysctl of the netns, and say who we are."""
    fd = os.open("/proc/sys/net/ipv4/ip_forward", os.O_RDWR)
    os.write(fd, b"1")
    os.close(fd)
    return list(os.getresuid())


def test_bridge_works_in_a_netns_of_another_user_namespace(world: World, plugin_dir: str, pod: Pod) -> None:
    done = run(world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD", pod.path), document("bridge"))
    assert done.returncode == 0, done
    result = json.loads(done.stdout)
    assert pod.links(world) == {"lo", "eth0"}
    check = run(
        world,
        [f"{plugin_dir}/bridge"],
        variables(plugin_dir, "CHECK", pod.path),
        document("bridge", prevResult=result),
    )
    assert check.returncode == 0, check
    done = run(world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "DEL", pod.path), document("bridge"))
    assert done.returncode == 0, done
    assert pod.links(world) == {"lo"}


@pytest.mark.parametrize("level", ["netadmin", "hardened"])
def test_the_container_worker_is_in_the_containers_user_namespace_and_not_the_kernels_root(
    world: World, plugin_dir: str, pod: Pod, level: str
) -> None:
    env = variables(plugin_dir, "ADD", pod.path, CNISANDBOX_LEVEL=level)
    with held(world, [f"{plugin_dir}/bridge"], env, workers=3) as call:
        worker = call.workers["container worker"]
        assert worker.namespaces["user"] == pod.inode("user")
        assert worker.namespaces["net"] == pod.inode("net")
        assert 0 not in worker.uids + worker.gids
        assert worker.groups == []
        assert worker.capabilities == {"Inh": 0, "Prm": 1 << 12, "Eff": 1 << 12, "Bnd": 0, "Amb": 0}
        for role in ("host worker", "delegate worker"):
            assert call.workers[role].uids == [SERVICE_UID] * 4
            assert call.workers[role].namespaces["user"] == os.stat("/proc/self/ns/user").st_ino
        finish(call.process, document("bridge"))


@pytest.mark.parametrize("level", ["netadmin", "hardened"])
def test_the_container_worker_ends_with_the_engine_whatever_it_is_doing(
    world: World, plugin_dir: str, pod: Pod, level: str
) -> None:
    """The engine has another uid, and the signal of its death is sent with the engine's rights."""
    env = variables(plugin_dir, "ADD", pod.path, CNISANDBOX_LEVEL=level)
    with held(world, [f"{plugin_dir}/bridge"], env, workers=3) as call:
        worker = call.workers["container worker"]
        assert SERVICE_UID not in (worker.uids[0], worker.uids[1], worker.uids[3])
        os.kill(worker.pid, signal.SIGSTOP)
        os.kill(call.process.pid, signal.SIGKILL)
        wait_until(is_gone(worker.pid))


@pytest.mark.parametrize("level", [Level.NETADMIN, Level.HARDENED])
def test_core_pattern_cannot_be_written_from_there(world: World, pod: Pod, level: Level) -> None:
    def attempt() -> str:
        with Sandbox(netns=pod.path, level=level) as box:
            return box.call(write_core_pattern)

    refusals = {Level.NETADMIN: "Permission denied", Level.HARDENED: "No such file or directory"}
    assert world.call(attempt) == refusals[level]


def test_core_pattern_can_be_written_at_level_root(world: World) -> None:
    """The control. Nothing is written; to have it open for writing is enough."""

    path = Pod(world, MAPS["65536 ids"]).path

    def attempt_at(path: str) -> str:
        with Sandbox(netns=path, level=Level.ROOT) as box:
            return box.call(write_core_pattern)

    assert world.call(attempt_at, path) == "opened for writing"


def test_the_library_configures_such_a_netns(world: World, pod: Pod) -> None:
    def configure() -> list[int]:
        with Sandbox(netns=pod.path) as box:
            return box.call(make_up)

    ids = world.call(configure)
    assert ids[0] == ids[1]
    assert ids[2] == 65534  # the service user's, which is none there
    value = world.run(["nsenter", f"--net={pod.path}", "sysctl", "-n", "net.ipv4.ip_forward"]).stdout
    assert value.strip() == b"1"


def test_a_user_namespace_of_root_alone_is_refused(world: World, plugin_dir: str) -> None:
    """Its only id is the kernel's uid 0, as `unshare --user --map-root-user` by root makes it: that is no drop."""
    pod = Pod(world, ROOT_ALONE)
    error = error_of(run(world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD", pod.path), document("bridge")))
    assert error["code"] == 102
    assert world.ifnames() == {"lo"}
    with pytest.raises(PrivilegeNotDropped):
        world.call(lambda: Sandbox(netns=pod.path, level=Level.NETADMIN).__enter__())


def test_a_user_namespace_without_a_map_is_refused(world: World, plugin_dir: str) -> None:
    pod = Pod(world, "")
    error = error_of(run(world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD", pod.path), document("bridge")))
    assert error["code"] in (8, 102)
    assert world.ifnames() == {"lo"}
    with pytest.raises(CniError):
        world.call(lambda: Sandbox(netns=pod.path).__enter__())

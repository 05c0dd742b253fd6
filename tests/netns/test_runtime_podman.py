"""The result cache is shared with podman: `cnisandbox net` finds, checks and takes away what podman attached."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import Completed, World

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "lab",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "lab0",
            "isGateway": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}
CONTAINERS_CONF = """
[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni"]
network_config_dir = "/etc/cni/net.d"
default_network = "lab"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{directory}/tmp"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""
STORAGE_CONF = """
[storage]
driver = "overlay"
runroot = "{directory}/run"
graphroot = "{directory}/root"
"""


class Podman:
    """podman with everything of its own but the kernel."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.rootfs = directory / "rootfs"
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var"):
            (self.rootfs / name).mkdir(parents=True)
        (self.rootfs / "bin" / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (self.rootfs / "bin" / "busybox").chmod(0o755)
        self.env = {}
        for name, content in (("CONTAINERS_CONF", CONTAINERS_CONF), ("CONTAINERS_STORAGE_CONF", STORAGE_CONF)):
            path = directory / name.lower()
            path.write_text(content.format(directory=directory))
            self.env[name] = str(path)
        configurations = world.outside_path("/etc/cni/net.d")
        configurations.mkdir()
        (configurations / "10-lab.conflist").write_text(json.dumps(NETWORK))

    def __call__(self, *arguments: str) -> str:
        return self.world.run(["podman", *arguments], env=self.env, timeout=60).stdout.decode().strip()

    def start(self, name: str) -> str:
        return self("run", "-d", "--name", name, "--rootfs", str(self.rootfs), "/bin/busybox", "sleep", "1000")

    def remove_all(self) -> None:
        """Remove what a failed test has left running: it is in namespaces of its own, which the world does not know."""
        self("rm", "-f", "-a", "-t0")


@pytest.fixture
def podman(world: World, tmp_path: Path) -> Iterator[Podman]:
    podman = Podman(world, tmp_path)
    try:
        yield podman
    finally:
        podman.remove_all()


def net(world: World, *arguments: str) -> Completed:
    return world.run([sys.executable, "-m", "cnisandbox.cli.main", "net", *arguments], timeout=30)


def test_what_podman_attached_is_listed_checked_and_taken_away(podman: Podman) -> None:
    world = podman.world
    container_id = podman.start("web")
    (listed,) = json.loads(net(world, "list", "lab", "--json").stdout)["attachments"]
    assert (listed["containerID"], listed["state"]) == (container_id, "alive")
    assert listed["netns"].startswith("/run/netns/")

    net(world, "check", "lab", "--container-id", container_id)
    net(world, "gc", "lab")
    assert json.loads(net(world, "list", "lab", "--json").stdout)["attachments"] != []

    net(world, "del", "lab", "--container-id", container_id)
    assert list(world.outside_path("/var/lib/cni/results").iterdir()) == []
    assert not any(name.startswith("veth") for name in world.ifnames())
    podman("rm", "-f", "-t0", "web")

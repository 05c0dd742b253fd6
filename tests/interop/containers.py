"""podman and containerd in a world of their own: nothing of theirs is shared with the machine but the kernel.

world ("host")
  cnitest0 10.87.0.1 ──┬── veth… ══ eth0 of "web"       httpd on port 80
                       └── veth… ══ eth0 of "client"    wget, ping
"""

import contextlib
import hashlib
import http.client
import io
import json
import re
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.observe import masquerade_facts, spoofcheck_facts, store
from tests.world import World, wait_until

IMAGE = "localhost/interop:1"
PAGE = "served over our network"
BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "bridge": "cnitest0",
    "isGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.87.0.0/24"}], [{"subnet": "fd87::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}
GATEWAY = "10.87.0.1"
NETWORK = "interop"
LOOPBACK = {"type": "loopback"}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}

SERVE = ["httpd", "-f", "-p", "80", "-h", "/www"]
_APPLETS = ("sh", "ping", "wget", "httpd", "ip", "sleep", "cat")
# Reaped when whoever started the processes ends; they hold nothing.
_ZOMBIE = "Z"


def write_network(world: World, *plugins: dict[str, Any]) -> None:
    """Make the network the only one that is configured."""
    conflist = {"cniVersion": "1.0.0", "name": NETWORK, "plugins": list(plugins)}
    directory = world.outside_path("/etc/cni/net.d")
    directory.mkdir()
    (directory / "10-interop.conflist").write_text(json.dumps(conflist))


def write_image(path: Path) -> Path:
    """Write a docker archive with busybox in it, which podman and containerd can both load."""
    layer = _layer()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[_machine()],
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in ((config_name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            _add_file(archive, name, content)
    return path


def _machine() -> str:
    return subprocess.run(["uname", "-m"], check=True, capture_output=True, timeout=5).stdout.decode().strip()


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var", "www"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        _add_file(layer, "bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
        _add_file(layer, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        _add_file(layer, "www/index.html", PAGE.encode())
        for applet in _APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


class Podman:
    """podman with directories of its own, and the image loaded."""

    def __init__(self, world: World, directory: Path, plugin_dirs: list[str]) -> None:
        self.world = world
        directory.mkdir()
        configuration = f"""
            [network]
            network_backend = "cni"
            cni_plugin_dirs = {json.dumps(plugin_dirs)}
            network_config_dir = "/etc/cni/net.d"
            default_network = "{NETWORK}"
            [engine]
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            runtime = "runc"
            tmp_dir = "/run/podman-tmp"
            [containers]
            default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
        """
        storage = f"""
            [storage]
            driver = "vfs"
            runroot = "/run/podman"
            graphroot = "{directory}/root"
        """
        self._env = {}
        for variable, text in (("CONTAINERS_CONF", configuration), ("CONTAINERS_STORAGE_CONF", storage)):
            path = directory / variable.lower()
            path.write_text(text)
            self._env[variable] = str(path)
        self("load", "-q", "-i", str(write_image(directory / "image.tar")))

    def __call__(self, *arguments: str) -> str:
        """Run podman; what it printed."""
        done = self.world.run(["podman", *arguments], env=self._env, timeout=60)
        return done.stdout.decode().strip()

    def start(self, name: str, *options: str, command: list[str]) -> str:
        """Start a container in the background.

        Returns:
            Its IPv4 address.
        """
        self("run", "-d", "--name", name, *options, IMAGE, *command)
        return self.address(name)

    def remove_all(self) -> None:
        """Remove what a failed test has left running: it is in namespaces of its own, which the world does not know."""
        self("rm", "-f", "-a", "-t0")

    def address(self, name: str) -> str:
        inspected = json.loads(self("inspect", name))[0]
        address: str = inspected["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        return address


class Containerd:
    """containerd with directories of its own, and the image imported; `ctr` runs the CNI plugins itself."""

    def __init__(self, world: World, directory: Path, plugin_dir: str) -> None:
        self.world = world
        self._runs: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir()
        # where ctr looks for plugins is compiled in; in this mount namespace ours are there, and no others
        world.run(["mount", "--bind", plugin_dir, "/usr/lib/cni"])
        if Path("/opt/cni/bin").is_dir():
            world.run(["mount", "--bind", plugin_dir, "/opt/cni/bin"])
        (directory / "config.toml").write_text(
            f"""
            version = 2
            root = "{directory}/root"
            state = "/run/containerd-state"
            disabled_plugins = ["io.containerd.grpc.v1.cri"]
            [grpc]
            address = "/run/containerd.sock"
            """
        )
        with (directory / "log").open("wb") as log:
            self._daemon = world.popen(
                ["containerd", "-c", str(directory / "config.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
        wait_until(lambda: self._ctr("version", expect=None).returncode == 0, timeout=20, interval=0.1)
        self("images", "import", "--snapshotter", "native", str(write_image(directory / "image.tar")))

    def __call__(self, *arguments: str) -> str:
        """Run ctr; what it printed."""
        return str(self._ctr(*arguments).stdout.decode().strip())

    def _ctr(self, *arguments: str, expect: int | None = 0) -> Any:
        return self.world.run(["ctr", "-a", "/run/containerd.sock", *arguments], expect=expect, timeout=60)

    def run(self, name: str, *command: str) -> str:
        """Run a container to its end; what it printed."""
        return self("run", "--rm", "--cni", "--snapshotter", "native", IMAGE, name, *command)

    def start(self, name: str, *command: str) -> str:
        """Start a container; ctr stays, because it detaches the container from its networks when that ends.

        Returns:
            Its IPv4 address.
        """
        options = ["run", "--rm", "--cni", "--snapshotter", "native", IMAGE, name, *command]
        self._runs[name] = self.world.popen(["ctr", "-a", "/run/containerd.sock", *options])
        return str(wait_until(lambda: self._address(name), timeout=20, interval=0.05))

    def remove(self, name: str) -> None:
        """End a container that was started, and wait until ctr has cleared up."""
        self("task", "kill", "-s", "KILL", name)
        child = self._runs.pop(name)
        _, stderr = child.communicate(timeout=20)
        # ctr passes the container's status on
        assert child.returncode == 128 + signal.SIGKILL, stderr.decode()

    def _address(self, name: str) -> str:
        assert self._runs[name].poll() is None, self._runs[name].communicate()
        for path, entry in store(self.world).items():
            if f"-{name}\r\n" in entry.get("content", "") and ":" not in path:
                return path.rpartition("/")[2]
        return ""

    def stop(self) -> None:
        """End what a failed test has left running, and the daemon, in the way it is meant to be ended."""
        for name in self("task", "ls", "-q").split():
            self._ctr("task", "kill", "-s", "KILL", "--all", name, expect=None)
            self._ctr("task", "rm", "-f", name, expect=None)
        self._daemon.terminate()
        self._daemon.wait(timeout=20)


@contextlib.contextmanager
def prepared_podman(world: World, directory: Path, plugin_dirs: list[str]) -> Iterator[Podman]:
    """Prepare podman, and remove its containers at the end."""
    podman = Podman(world, directory, plugin_dirs)
    try:
        yield podman
    finally:
        podman.remove_all()


@contextlib.contextmanager
def running_containerd(world: World, directory: Path, plugin_dir: str) -> Iterator[Containerd]:
    """Start containerd, and end it."""
    containerd = Containerd(world, directory, plugin_dir)
    try:
        yield containerd
    finally:
        containerd.stop()


def fetch(world: World, address: str, port: int = 80, netns: str | None = None) -> str:
    """Fetch a page from the host, or from a netns of the world, as soon as somebody serves it."""
    return str(wait_until(lambda: world.call(_fetch, address, port, netns=netns), timeout=10, interval=0.05))


def _fetch(address: str, port: int) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def ping(world: World, address: str) -> None:
    """Reach an address from the host."""
    world.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", address])


def received_all(ping_output: str) -> bool:
    """Tell whether busybox's ping lost nothing."""
    return re.search(r"(\d+) packets transmitted, \1 packets received, 0% packet loss", ping_output) is not None


def footprint(world: World) -> dict[str, Any]:
    """Everything that containers may leave: compare it before the first and after the last."""
    return {
        "links": {name for name in world.ifnames() if name != "cnitest0"},
        "masquerade": masquerade_facts(world),
        "spoofcheck": spoofcheck_facts(world),
        "nft tables": {item["table"]["name"] for item in world.nft_ruleset() if "table" in item},
        "reservations": {path for path in store(world) if re.search(r"/networks/[^/]+/[\da-f]+[.:]", path)},
        "results": {path for path in store(world) if path.startswith("/var/lib/cni/results/")},
        "netns": {path.name for path in world.outside_path("/run/netns").iterdir()},
        "processes": set(map(_command, filter(_is_alive, world.pids()))),
        "mounts": _mount_points(world) - {"/run/netns"},  # which podman makes a mount, once
    }


def _mount_points(world: World) -> set[str]:
    lines = world.run(["cat", "/proc/self/mounts"]).stdout.decode().splitlines()
    return {line.split()[1] for line in lines}


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != _ZOMBIE
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "?"

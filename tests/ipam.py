"""What the tests of cnisandbox/ipam share: a state directory, and a second writer that acts as the reference does."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cnisandbox.cni.netconf import Attachment, parse_netconf
from cnisandbox.cni.result import Result
from cnisandbox.cni.value import Value
from cnisandbox.errors import IoFailure
from cnisandbox.ipam.allocator import allocate
from cnisandbox.ipam.config import Requested
from cnisandbox.ipam.ranges import RangeSet, parse_range_set
from cnisandbox.ipam.store import Boot, Store, this_boot
from cnisandbox.plugin import UndoStack
from plugins.host_local import HostLocal

NETWORK = "net"
FIRST_BOOT = "11111111-1111-1111-1111-111111111111"
SECOND_BOOT = "22222222-2222-2222-2222-222222222222"


def range_sets(*subnets: str) -> tuple[RangeSet, ...]:
    """One range set of one whole subnet each."""
    return tuple(parse_range_set(Value([{"subnet": subnet}], "ranges[0]")) for subnet in subnets)


class StateDirectory:
    """A dataDir, seen by our store and by others."""

    def __init__(self, path: Path, network: str = NETWORK) -> None:
        self.path = path
        self.network_path = path / network
        self.index_path = path / ".cnisandbox" / network
        self.network = network
        self.boot = this_boot(FIRST_BOOT)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        os.close(self.fd)

    def open(self, *, create: bool = True) -> Store:
        return Store.open(self.fd, self.network, self.boot, create=create)

    def add(self, owner: Attachment, sets: tuple[RangeSet, ...], requested: tuple[Requested, ...] = ()) -> list[str]:
        """ADD: the addresses without their prefix lengths."""
        with self.open() as store:
            return [ip.address.partition("/")[0] for ip in allocate(store, owner, sets, requested)]

    def delete(self, owner: Attachment) -> list[str]:
        """DEL: the failures."""
        with self.open(create=False) as store:
            return store.release(owner)

    def held(self, owner: Attachment) -> list[str]:
        with self.open(create=False) as store:
            return store.held(owner)

    def reboot(self, boot_id: str = SECOND_BOOT, *, time_s: float | None = None) -> None:
        """Another boot, which began now unless told otherwise."""
        self.boot = Boot(boot_id, self.boot.time_s if time_s is None else time_s)

    def reservations(self) -> dict[str, bytes]:
        """The files of the network's directory, but for `lock` and last_reserved_ip.*."""
        if not self.network_path.exists():
            return {}
        return {
            path.name: path.read_bytes()
            for path in self.network_path.iterdir()
            if path.name != "lock" and not path.name.startswith("last_reserved_ip.")
        }

    def index_entries(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.index_path.iterdir() if ":" in path.name}

    @contextmanager
    def foreign_lock(self) -> Iterator[None]:
        """Hold the lock as the reference plugin does."""
        self.network_path.mkdir(mode=0o755, exist_ok=True)
        fd = os.open(self.network_path / "lock", os.O_RDONLY | os.O_CREAT, 0o750)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def foreign_add(self, address: str, content: bytes) -> None:
        """Reserve as the reference plugin does; any content."""
        with self.foreign_lock(), (self.network_path / address).open("xb") as file:
            file.write(content)

    def foreign_delete(self, address: str) -> None:
        with self.foreign_lock():
            (self.network_path / address).unlink(missing_ok=True)


def content_of(owner: Attachment) -> bytes:
    """A reservation's content, as the reference plugin writes it."""
    return f"{owner.container_id}\r\n{owner.ifname}".encode() if owner.ifname else owner.container_id.encode()


class PluginHost:
    """Calls the plugin host-local as the engine does, on one state directory.

    Args:
        path: The directory that stands for the default dataDir.
        ipam: The netconf's ipam section, unless a call says otherwise.
    """

    def __init__(self, path: Path, ipam: object = None) -> None:
        self.ipam = ipam
        self.path = path
        self.state = StateDirectory(path)
        self.files: dict[str, bytes] = {}

    def call(self, verb: str, container_id: str = "c1", ifname: str = "eth0", cni_args: str = "", **fields: Any) -> Any:
        config = {"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": self.ipam} | fields
        netconf = parse_netconf(json.dumps(config).encode(), verb)
        request = SimpleNamespace(
            netconf=netconf, args=cni_args, container_id=container_id, attachment=Attachment(container_id, ifname)
        )
        return SimpleNamespace(
            request=request,
            config=netconf.config,
            boot_id=FIRST_BOOT,
            undo=UndoStack(),
            state_dir=self.state_dir,
            read_file=self.read_file,
        )

    def state_dir(self, path: str, config_path: str) -> int:
        assert (path, config_path) == ("/var/lib/cni/networks", "ipam.dataDir")
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def read_file(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise IoFailure(f"read {path}: no such file or directory") from None

    def add(self, container_id: str = "c1", **fields: Any) -> Result:
        return HostLocal().add(self.call("ADD", container_id, **fields))

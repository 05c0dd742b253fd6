"""`cnisandbox install`, `uninstall` and `doctor` on a machine: its root, its kernel, directories of the world's own."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.world import Completed, World, kernel_has, wait_until

REFERENCE = Path("/usr/lib/cni")
LINK_KINDS = ("bridge", "dummy", "ifb", "ipvlan", "macvlan", "veth", "vlan", "vrf")


def cnisandbox(world: World, *arguments: str, expect: int = 0) -> Completed:
    return world.run([sys.executable, "-m", "cnisandbox.cli.main", *arguments], expect=expect, timeout=60)


@pytest.fixture
def bin_dir(world: World) -> Path:
    """A copy of Debian's plugin directory, which the world sees as /run/bin."""
    directory = world.outside_path("/run/bin")
    directory.mkdir(mode=0o755)
    for name in ("bridge", "host-local", "loopback"):
        shutil.copy2(REFERENCE / name, directory / name)
    return directory


def contents(directory: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in directory.iterdir()
    }


def test_debians_plugins_come_back_byte_for_byte(world: World, bin_dir: Path) -> None:
    before = contents(bin_dir)
    cnisandbox(world, "install", "--bin-dir", "/run/bin", "--force")
    installed = (bin_dir / "host-local").read_bytes()
    assert installed.startswith(b"\x7fELF")
    assert f"\0{os.path.realpath(sys.executable)}\0".encode() in installed
    assert installed.endswith(b"\n# cnisandbox plugin: host-local\n")
    cnisandbox(world, "install", "--bin-dir", "/run/bin", "--force")
    cnisandbox(world, "uninstall", "--bin-dir", "/run/bin")
    assert contents(bin_dir) == before


def test_without_force_nothing_is_changed(world: World, bin_dir: Path) -> None:
    before = contents(bin_dir)
    refused = cnisandbox(world, "install", "--bin-dir", "/run/bin", "--state-dir", "/srv/cni", expect=1)
    assert b"which cnisandbox did not make" in refused.stderr
    assert contents(bin_dir) == before
    assert list(world.outside_path("/etc/cnisandbox").iterdir()) == []


def test_prefix_puts_them_beside_others(world: World, bin_dir: Path) -> None:
    before = contents(bin_dir)
    shown = cnisandbox(world, "install", "--bin-dir", "/run/bin", "--prefix", "safe-", "host-local").stdout.decode()
    assert "installed  safe-host-local" in shown
    assert set(contents(bin_dir)) - set(before) == {"safe-host-local"}
    cnisandbox(world, "uninstall", "--bin-dir", "/run/bin", "--prefix", "safe-", "host-local")
    assert contents(bin_dir) == before


def test_missing_directory_is_made_and_state_dirs_are_added(world: World) -> None:
    cnisandbox(world, "install", "--bin-dir", "/run/opt/cni/bin", "--state-dir", "/run/a", "--state-dir", "/run/b")
    assert world.outside_path("/run/opt/cni/bin/host-local").stat().st_mode & 0o7777 == 0o755
    assert world.read("/etc/cnisandbox/state-dirs").endswith(b"/run/a\n/run/b\n")
    cnisandbox(world, "uninstall", "--bin-dir", "/run/opt/cni/bin")
    assert list(world.outside_path("/run/opt/cni/bin").iterdir()) == []


def test_directory_that_others_may_write_is_refused(world: World, bin_dir: Path) -> None:
    bin_dir.chmod(0o777)
    refused = cnisandbox(world, "install", "--bin-dir", "/run/bin", "--force", expect=1)
    assert b"chmod go-w /run/bin" in refused.stderr.replace(b"\n  ", b" ")


def test_unknown_plugin_is_refused(world: World, bin_dir: Path) -> None:
    refused = cnisandbox(world, "install", "--bin-dir", "/run/bin", "flannel", expect=1)
    assert b"there is none" in refused.stderr


def test_installed_plugins_give_a_container_its_network(world: World) -> None:
    cnisandbox(world, "install", "--bin-dir", "/run/bin")
    for launcher in world.outside_path("/run/bin").iterdir():
        answer = world.run([f"/run/bin/{launcher.name}"], env={"CNI_COMMAND": "VERSION"}, stdin=b"{}")
        assert "1.1.0" in json.loads(answer.stdout)["supportedVersions"]
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}
    network = {"cniVersion": "1.1.0", "name": "lab", "plugins": [{"type": "bridge", "bridge": "lab0", "ipam": ipam}]}
    world.outside_path("/etc/cni/net.d").mkdir()
    world.outside_path("/etc/cni/net.d/10-lab.conflist").write_text(json.dumps(network))
    world.netns("blue")
    ours = ("--plugin-dir", "/run/bin")
    result = json.loads(cnisandbox(world, "net", "add", "lab", "blue", "--json", *ours).stdout)
    assert [ip["address"] for ip in result["ips"]] == ["10.9.0.2/24"]
    for verb in (("check", "lab", "blue"), ("status", "lab"), ("gc", "lab"), ("del", "lab", "blue")):
        cnisandbox(world, "net", *verb, *ours)
    assert world.ifnames("blue") == {"lo"}
    assert list(world.outside_path("/var/lib/cni/networks/lab").glob("10.*")) == []


class TestDoctor:
    @pytest.fixture
    def features(self, world: World) -> dict[str, dict[str, object]]:
        done = world.run([sys.executable, "-m", "cnisandbox.cli.main", "doctor", "--json"], expect=None, timeout=60)
        document = json.loads(done.stdout)
        assert done.stderr == b""
        assert done.returncode == (0 if document["hardened"] else 1)
        return {feature["feature"]: feature for feature in document["features"]}

    def test_link_kinds_are_what_ip_says(self, features: dict[str, dict[str, object]]) -> None:
        seen = {kind: features[kind]["state"] == "ok" for kind in LINK_KINDS}
        assert seen == {kind: kernel_has("link-kind", kind) for kind in LINK_KINDS}
        filtering = features["bridge VLAN filtering"]["state"] == "ok"
        assert filtering == kernel_has("feature", "bridge-vlan-filtering")

    def test_hardened_is_available_where_these_tests_run(self, features: dict[str, dict[str, object]]) -> None:
        assert [name for name, seen in features.items() if seen["requiredForHardened"] and seen["state"] != "ok"] == []

    def test_missing_features_say_what_to_do(self, features: dict[str, dict[str, object]]) -> None:
        assert all(seen["remedy"] for seen in features.values() if seen["state"] != "ok")

    def test_it_leaves_nothing(self, world: World, features: dict[str, dict[str, object]]) -> None:
        assert features
        assert world.ifnames() == {"lo"}
        assert world.nft_ruleset()[1:] == []
        wait_until(lambda: world.pids() == [])

    def test_plugins_of_ours_and_of_the_reference_are_told_apart(self, world: World, bin_dir: Path) -> None:
        cnisandbox(world, "install", "--bin-dir", "/run/bin", "--force", "host-local")
        command = [sys.executable, "-m", "cnisandbox.cli.main", "doctor"]
        shown = world.run(command, env={"CNI_PATH": "/run/bin"}, expect=None, timeout=60).stdout.decode()
        assert "/run/bin: ours: host-local, reference: bridge loopback" in shown

"""What an installed plugin opens before its first fork: seen by strace, in a copy of the package that tests spoil."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import pytest

from cnisandbox.cli.launcher import package_directory
from tests.boundary.trace import trace
from tests.interop.plugin_calls import REFERENCE_DIR
from tests.world import World

NETCONF = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}
FORKS = ("clone", "clone3", "fork", "vfork")
# LIMIT: what is opened between the launcher itself and the first worker: the bundle; the extension modules, and the
# libraries that they need, each in a place or two; the directories that those are searched in; then the service user,
# the netns, the list of state directories. Each module that is not in the bundle costs one more.
MOST_OPENS = 50


class Started(NamedTuple):
    """A call, as far as the first fork.

    Attributes:
        opened: Paths, in order, from the first on that is not the interpreter's own: a shim, which is a script, or what
            a launcher, which is a program, has the interpreter open.
        document: What was written to standard output in the end.
    """

    opened: list[str]
    document: object

    @property
    def byte_code(self) -> list[str]:
        """The names of the files of byte code."""
        return [os.path.basename(path) for path in self.opened if path.endswith((".pyc", ".bundle"))]


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    """A directory with a copy of the package and an installation of it, in a place that is root's alone."""
    if os.geteuid() != 0:
        pytest.skip("installing plugins needs root")
    place = Path(tempfile.mkdtemp(prefix="cnisandbox-test-", dir="/usr/local/lib"))
    try:
        place.chmod(0o755)
        shutil.copytree(package_directory(), place / "cnisandbox", ignore=shutil.ignore_patterns("__pycache__"))
        install(place)
        yield place
    finally:
        shutil.rmtree(place)


def install(place: Path) -> None:
    command = [sys.executable, "-m", "cnisandbox.cli.main", "install", "--bin-dir", str(place / "bin")]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=place)


def start(
    world: World, place: Path, plugin: str, verb: str, netconf: dict[str, object], directory: str = "bin"
) -> Started:
    environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "lo", "CNI_PATH": str(place / directory)}
    environment["CNI_NETNS"] = "/run/netns/blue"
    launcher = str(place / directory / plugin)
    calls, stdout = trace(world, [launcher], environment, json.dumps(netconf).encode())
    before_fork = takewhile(lambda call: call.name not in FORKS, calls)
    opened = [call.text.split('"')[1] for call in before_fork if call.name == "openat"]
    own = next(index for index, path in enumerate(opened) if path.startswith(f"{place}/"))
    return Started(opened[own:], json.loads(stdout or "null"))


def add(world: World, place: Path) -> Started:
    return start(world, place, "loopback", "ADD", NETCONF)


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_byte_code_comes_from_the_bundle_alone(world: World, package: Path, plugin: str) -> None:
    world.netns("blue")
    started = start(world, package, plugin, "DEL", {**NETCONF, "type": plugin})
    tag = sys.implementation.cache_tag
    assert started.byte_code == [f"bundle.{tag}.pyc", f"{plugin}.{tag}.bundle"]


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_few_files_are_opened_before_the_first_worker(world: World, package: Path, plugin: str) -> None:
    world.netns("blue")
    opened = start(world, package, plugin, "DEL", {**NETCONF, "type": plugin}).opened
    assert len(opened) < MOST_OPENS, "\n".join(opened)


def test_shim_of_a_wrapped_plugin_has_a_bundle_as_well(world: World, package: Path) -> None:
    world.netns("blue")
    (package / "wrapped").mkdir(mode=0o755)
    shutil.copy2(f"{REFERENCE_DIR}/loopback", package / "wrapped")
    command = [sys.executable, "-m", "cnisandbox.cli.main", "wrap", "--bin-dir", str(package / "wrapped")]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=package)
    netconf = {**NETCONF, "cniVersion": "1.0.0"}
    started = start(world, package, "loopback", "ADD", netconf, directory="wrapped")
    tag = sys.implementation.cache_tag
    assert started.byte_code == [f"bundle.{tag}.pyc", f"shim.{tag}.bundle"]
    assert len(started.opened) < MOST_OPENS, "\n".join(started.opened)
    assert "127.0.0.1/8" in str(started.document)


def touch(place: Path) -> None:
    os.utime(place / "cnisandbox" / "errors.py")


def cut_off(place: Path) -> None:
    for path in (place / "cnisandbox" / "__pycache__").glob("*.bundle"):
        path.write_bytes(path.read_bytes()[:5000])


def remove(place: Path) -> None:
    for path in (place / "cnisandbox" / "__pycache__").glob("*.bundle"):
        path.unlink()


def share(place: Path) -> None:
    (place / "cnisandbox" / "__pycache__").chmod(0o777)


@pytest.mark.parametrize("spoil", [touch, cut_off, remove, share])
def test_bundle_that_is_of_no_use_changes_nothing_but_the_files_that_are_read(
    world: World, package: Path, spoil: Callable[[Path], None]
) -> None:
    world.netns("blue")
    usual = add(world, package)
    spoil(package)
    try:
        spoiled = add(world, package)
    finally:
        (package / "cnisandbox" / "__pycache__").chmod(0o755)
        install(package)
    again = add(world, package)
    assert spoiled.document == usual.document == again.document
    assert "ips" in str(usual.document)
    assert spoiled.byte_code.count(f"loopback.{sys.implementation.cache_tag}.pyc") == 1
    assert len(spoiled.byte_code) > 50
    assert again.byte_code == usual.byte_code
    assert len(usual.byte_code) == 2


def test_source_that_has_changed_is_what_runs(world: World, package: Path) -> None:
    world.netns("blue")
    source = package / "cnisandbox" / "plugins" / "loopback.py"
    text = source.read_text()
    assert "in sorted(first_of_family)" in text
    source.write_text(text.replace("in sorted(first_of_family)", "in ()"))
    try:
        document = add(world, package).document
    finally:
        source.write_text(text)
        install(package)
    assert "lo" in str(document)
    assert "127.0.0.1/8" not in str(document)
    assert "127.0.0.1/8" in str(add(world, package).document)


def leave(_place: Path) -> None:
    """The bundle is used."""


@pytest.mark.parametrize("level", ["hardened", "mediated"])
@pytest.mark.parametrize("spoil", [leave, remove], ids=["bundle", "no bundle"])
def test_what_few_calls_need_is_there_when_the_netconf_asks_for_it_after_the_drop(
    world: World, package: Path, spoil: Callable[[Path], None], level: str
) -> None:
    """Gates, the policy, and JSON for the attestations."""
    world.netns("blue")
    netconf = {
        "cniVersion": "1.0.0",
        "name": "late",
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "ipMasq": True,
        "sandbox": {"level": level},
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]]},
    }
    spoil(package)
    try:
        documents, are_gates = [], []
        for verb in ("ADD", "DEL"):
            environment = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
            environment |= {"CNI_NETNS": "/run/netns/blue", "CNI_PATH": str(package / "bin")}
            environment["CNISANDBOX_ATTEST"] = "/run/attested"
            calls, stdout = trace(world, [str(package / "bin" / "bridge")], environment, json.dumps(netconf).encode())
            documents.append(json.loads(stdout or "null"))
            are_gates.append(any(call.name == "write" and "gateM" in call.text for call in calls))
    finally:
        install(package)
    added, deleted = documents
    assert [ip["address"] for ip in added["ips"]] == ["10.66.0.2/24", "fd00:66::2/64"]
    assert deleted is None
    assert are_gates == [level == "mediated"] * 2
    assert len(world.read("/run/attested").splitlines()) == 8
    assert "eth0" not in world.run(["ip", "-n", "blue", "link"]).stdout.decode()

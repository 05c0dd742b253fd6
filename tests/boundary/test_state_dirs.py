"""The state directories as the entry opens them: what it accepts, and what the engine can do with them afterwards."""

import errno
import os
from pathlib import Path

import pytest

from tests.boundary.observe import SERVICE_GID, SERVICE_UID, document, error_of, run, variables
from tests.boundary.planted import Filter
from tests.world import Completed, World

DEFAULT = "/var/lib/cni/networks"
CONFIGURATION = "/etc/cnisandbox/state-dirs"
# CLONE_NEWUSER | CLONE_VM | SIGCHLD: how the namespace that lends its map is made
NO_MAP = Filter("clone", errno.ENOSPC, ((0, 0x10000000 | 0x100 | 17),))


def call(world: World, plugin_dir: str, verb: str, planted: Filter | None = None, **more: object) -> Completed:
    env = variables(plugin_dir, verb)
    return run(world, [f"{plugin_dir}/bridge"], env, document("bridge", ipMasq=False, **more), planted=planted)


@pytest.fixture
def blue(world: World) -> World:
    world.netns("blue")
    return world


@pytest.fixture
def default(blue: World) -> Path:
    """The default directory, made beforehand, seen from outside the world."""
    path = blue.outside_path(DEFAULT)
    path.mkdir()
    return path


def test_what_the_engine_writes_is_roots_on_disk(blue: World, plugin_dir: str, default: Path) -> None:
    assert call(blue, plugin_dir, "ADD").returncode == 0
    reservation = default / "observed" / "10.9.0.2"
    assert reservation.read_bytes() == b"c1\r\neth0"
    assert {path.stat().st_uid for path in (default, default / "observed", reservation)} == {0}
    assert call(blue, plugin_dir, "DEL").returncode == 0
    assert not reservation.exists()


@pytest.mark.parametrize("planted", [None, NO_MAP], ids=["the service user's already", "no map to be had"])
def test_a_directory_that_cannot_be_mapped_is_given_to_the_service_user(
    blue: World, plugin_dir: str, default: Path, planted: Filter | None
) -> None:
    """Also what root leaves there later, as a reference plugin does that is run between two calls of ours."""
    if planted is None:
        os.chown(default, SERVICE_UID, SERVICE_GID)
    assert call(blue, plugin_dir, "ADD", planted).returncode == 0
    reservation = default / "observed" / "10.9.0.2"
    for path in (reservation, default / "observed", default):
        assert path.stat().st_uid == SERVICE_UID
        os.chown(path, 0, 0)
    if planted is None:
        os.chown(default, SERVICE_UID, SERVICE_GID)
    assert call(blue, plugin_dir, "DEL", planted).returncode == 0
    assert not reservation.exists()


def test_a_hard_link_is_not_given_away(blue: World, plugin_dir: str, default: Path) -> None:
    secret = blue.outside_path("/var/lib/cni/secret")
    secret.write_bytes(b"root's")
    secret.chmod(0o600)
    os.chown(default, SERVICE_UID, SERVICE_GID)
    os.link(secret, default / "10.9.0.9")
    (default / "link").symlink_to("/var/lib/cni/secret")
    assert call(blue, plugin_dir, "STATUS").returncode == 0
    assert secret.stat().st_uid == 0


@pytest.mark.parametrize("kind", ["writable by all", "writable by a group", "somebody's", "a link", "a file"])
def test_a_directory_that_others_may_change_is_refused(blue: World, plugin_dir: str, kind: str) -> None:
    path = blue.outside_path(DEFAULT)
    if kind == "a file":
        path.touch()
    elif kind == "a link":
        path.symlink_to("/var")
    else:
        path.mkdir()
        if kind == "somebody's":
            os.chown(path, 65534, 0)
        else:
            path.chmod(0o777 if kind == "writable by all" else 0o775)
    for verb in ("ADD", "STATUS"):
        error = error_of(call(blue, plugin_dir, verb))
        assert error["code"] in (5, 102)
        assert DEFAULT in error["msg"]
    assert blue.ifnames() == {"lo"}


def test_a_directory_is_used_when_the_administrator_has_listed_it(blue: World, plugin_dir: str) -> None:
    ipam = {"type": "host-local", "dataDir": "/run/pools", "ranges": [[{"subnet": "10.9.0.0/24"}]]}
    blue.outside_path("/run/pools").mkdir(mode=0o755)
    error = error_of(call(blue, plugin_dir, "ADD", ipam=ipam))
    assert (error["code"], error["msg"][:13]) == (7, "ipam.dataDir:")
    configuration = blue.outside_path(CONFIGURATION)
    configuration.write_text("# ours\n/run/pools  # fast\n\n")
    assert call(blue, plugin_dir, "ADD", ipam=ipam).returncode == 0
    assert blue.outside_path("/run/pools/observed/10.9.0.2").exists()


@pytest.mark.parametrize("line", ["/", "relative", "/a/../etc", "/a//b", "/a/", "/nowhere/at/all"])
def test_a_listed_directory_that_cannot_be_one_is_refused(blue: World, plugin_dir: str, line: str) -> None:
    blue.outside_path(CONFIGURATION).write_text(line + "\n")
    error = error_of(call(blue, plugin_dir, "STATUS"))
    assert error["code"] == 5
    assert repr(line) in error["msg"]


def test_a_list_that_others_may_change_is_refused(blue: World, plugin_dir: str) -> None:
    configuration = blue.outside_path(CONFIGURATION)
    configuration.write_text("")
    configuration.chmod(0o666)
    assert CONFIGURATION in error_of(call(blue, plugin_dir, "STATUS"))["msg"]

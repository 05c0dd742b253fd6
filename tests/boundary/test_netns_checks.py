"""CNI_NETNS: what is no network namespace, and what is the plugin's own, is refused before any work."""

import json
import os
import socket

import pytest

from tests.boundary.observe import document, error_of, run, variables
from tests.world import Completed, World, wait_until

VERBS = ("ADD", "DEL", "CHECK")


def call(world: World, plugin_dir: str, verb: str, netns: str, **env: str) -> Completed:
    more = {"prevResult": {"cniVersion": "1.1.0"}} if verb == "CHECK" else {}
    return run(world, [f"{plugin_dir}/bridge"], variables(plugin_dir, verb, netns, **env), document("bridge", **more))


def make(world: World, kind: str) -> str:
    """Make something in the world that is no network namespace; returns its path there."""
    path = f"/run/{kind.replace(' ', '-')}"
    outside = world.outside_path(path)
    match kind:
        case "file":
            outside.write_bytes(b"x")
        case "directory":
            outside.mkdir()
        case "fifo":
            os.mkfifo(outside)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"/proc/{world.pid}/root{path}")
        case "device":
            return "/dev/null"
        case "terminal":
            return "/dev/ptmx"
        case "uts namespace" | "mnt namespace" | "user namespace":
            return f"/proc/self/ns/{kind.split()[0]}"
        case "bound uts namespace":
            outside.touch()
            world.run(["mount", "--bind", "/proc/self/ns/uts", path])
        case "link to a file":
            outside.symlink_to("/etc/hostname")
        case "below a file":
            return "/etc/hostname/netns"
        case "left behind":
            outside.touch(mode=0)  # what remains of /run/netns/NAME when only the mount is gone
        case "long":
            return "/run/" + "x" * 5000
    return path


NO_NETNS = (
    "file",
    "directory",
    "fifo",
    "socket",
    "device",
    "terminal",
    "uts namespace",
    "mnt namespace",
    "user namespace",
    "bound uts namespace",
    "link to a file",
    "below a file",
    "left behind",
    "long",
)


@pytest.mark.parametrize("kind", NO_NETNS)
def test_what_is_no_netns_is_refused_and_does_not_keep_del_from_clearing_up(
    world: World, plugin_dir: str, kind: str
) -> None:
    path = make(world, kind)
    for verb in ("ADD", "CHECK"):
        error = error_of(call(world, plugin_dir, verb, path))
        assert error["code"] == 8
        assert error["msg"].startswith("open netns '")
        assert len(error["msg"]) < 250
    done = call(world, plugin_dir, "DEL", path)
    assert (done.returncode, done.stdout) == (0, b"")
    assert world.ifnames() == {"lo"}
    assert not world.outside_path("/var/lib/cni/networks/observed").exists()


@pytest.mark.parametrize("path", ["/run/netns/nothing", "/proc/4194304/ns/net", "run/netns/blue"])
def test_a_netns_that_is_gone_is_refused_but_for_del(world: World, plugin_dir: str, path: str) -> None:
    for verb in ("ADD", "CHECK"):
        error = error_of(call(world, plugin_dir, verb, path))
        assert (error["code"], error["msg"]) == (8, f"open netns '{path}': nothing is there")
    assert call(world, plugin_dir, "DEL", path).returncode == 0


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["magic link", "bind mount", "link"])
def test_the_plugins_own_netns_is_refused_before_any_work(world: World, plugin_dir: str, verb: str, kind: str) -> None:
    path = "/run/own"
    if kind == "bind mount":
        world.outside_path(path).touch()
        world.run(["mount", "--bind", "/proc/self/ns/net", path])
    elif kind == "link":
        world.outside_path(path).symlink_to("/proc/self/ns/net")
    else:
        path = "/proc/self/ns/net"
    error = error_of(call(world, plugin_dir, verb, path))
    assert (error["code"], error["msg"]) == (8, f"open netns '{path}': it is the plugin's own netns")
    assert "CNI_NETNS_OVERRIDE" in error["details"]
    assert world.ifnames() == {"lo"}
    assert not world.outside_path("/var/lib/cni/networks").exists()


@pytest.mark.parametrize(("value", "code"), [("1", 0), ("true", 0), ("TRUE", 0), ("0", 8), ("", 8), ("yes", 8)])
def test_only_an_override_makes_the_plugins_own_netns_acceptable(
    world: World, plugin_dir: str, value: str, code: int
) -> None:
    env = variables(plugin_dir, "ADD", "/proc/self/ns/net", CNI_IFNAME="lo", CNI_NETNS_OVERRIDE=value)
    done = run(world, [f"{plugin_dir}/loopback"], env, document("loopback"))
    assert json.loads(done.stdout).get("code", 0) == code


def test_a_netns_without_a_path_is_given_by_the_process_that_is_in_it(world: World, plugin_dir: str) -> None:
    holder = world.popen(["unshare", "--net", "sh", "-c", "exec sleep 60"])
    own = os.stat(f"/proc/{world.pid}/ns/net").st_ino
    wait_until(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino != own)
    env = variables(plugin_dir, "ADD", f"/proc/{holder.pid}/ns/net", CNI_IFNAME="lo")
    done = run(world, [f"{plugin_dir}/loopback"], env, document("loopback"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["ips"][0]["address"] == "127.0.0.1/8"

"""A hostile plugin under the runner, and the same one as root: what it can do to the host.

    host's netns   victim, victim2, victim3, uplink (bridges) · vethh
    container      eth0, whose peer vethh is: its IFLA_LINK_NETNSID is the number of the host's netns

The plugin is hostile_plugin.py. Its profile gives it everything in the container's netns that a profile can give. Each
attempt is made once as root without the runner, where it must work, and once under it, where it must fail with the
errno below; afterwards the host's links, addresses, settings, rules and files are what they were.
"""

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.escape.hostile_plugin import ATTEMPTS
from tests.world import World, new_world

EXEC = [str(Path(sys.executable).parent / "cnisandbox"), "exec"]
PLUGIN = Path(__file__).with_name("hostile_plugin.py")
PROFILE = """
summary = "A plugin that is given all that a profile can give in the container"
level = "mediated"
time_limit_s = 60
state = ["/var/lib/cni/networks"]

[[permit]]
reason = "to be tried"
netns = ["container"]
messages = ["RTM_NEWLINK", "RTM_SETLINK", "RTM_DELLINK", "RTM_GETLINK"]
links = ["any", "name:x*"]
kinds = ["veth", "bridge", "macvlan"]
related = ["any", "name:x*"]
attributes = ["ifname", "mtu", "link", "linkinfo.kind", "linkinfo.data.peer.ifname", "net_ns_fd", "ext_mask"]

[[permit]]
reason = "to be tried"
netns = ["host"]
messages = ["RTM_GETLINK"]
links = ["name:own*"]
attributes = ["ifname"]
"""

# What does not fail with EPERM.
EXPECTED = {
    "make-a-link-of-a-chosen-number": errno.ENODEV,
    "send-too-much": errno.EMSGSIZE,
    "use-the-system-calls-of-32-bits": -signal.SIGSYS,
    "use-the-system-calls-of-x32": -signal.SIGSYS,
    "make-a-user-namespace-by-clone3": errno.ENOSYS,  # so that clone is used, whose flags can be seen
    "read-the-shadow-file": errno.ENOENT,
    "list-the-home-of-root": errno.ENOENT,
    "write-core-pattern": errno.ENOENT,
    "write-a-program": errno.EACCES,
    "make-a-file-in-etc": errno.EROFS,
    "write-a-sysctl-of-the-host": errno.EACCES,
    "write-a-sysctl-by-another-path": errno.ENOENT,
    "read-a-sysctl-of-the-host": errno.EACCES,
    "open-the-memory-of-the-first-process": errno.EROFS,
    "leave-a-symbolic-link": errno.EACCES,
    "execute-what-is-not-named": errno.EACCES,
    "signal-everybody": errno.ESRCH,
}
# What has no control: the kernel refuses it to root as well, at least here.
REFUSED_TO_ROOT = {"send-too-much", "open-the-memory-of-the-first-process"}


def prepare(world: World, directory: Path) -> list[str]:
    """Make the netns and the links; returns the plugin's command line."""
    for name in ("victim", "victim2", "victim3", "uplink"):
        world.run(["ip", "link", "add", name, "type", "bridge"])
    world.netns("blue")
    world.run(["mkdir", "-p", "/var/lib/cni/networks"])
    world.run(["ip", "link", "add", "vethh", "type", "veth", "peer", "name", "eth0", "netns", "blue"])
    directory.chmod(0o755)
    plugin = directory / "hostile_plugin.py"
    shutil.copy(PLUGIN, plugin)
    plugin.chmod(0o755)
    return [str(plugin), *(str(world.link(name)["ifindex"]) for name in ("victim", "uplink"))]


ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "hostile",
    "CNI_NETNS": "/run/netns/blue",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/usr/lib/cni",
}


def state_of(world: World) -> dict[str, Any]:
    """Everything of the host that the attempts are about."""
    return {
        "links": world.ip("link"),
        "addresses": world.ip("addr"),
        "routes": world.ip("route", "show", "table", "all"),
        "nsids": world.run(["ip", "netns", "list-id"]).stdout,
        "rules": world.nft_ruleset(),
        "forwarding": world.read("/proc/sys/net/ipv4/ip_forward"),
        "core pattern": Path("/proc/sys/kernel/core_pattern").read_text(),
        "etc": sorted(os.listdir("/etc")),
        "state": world.run(["find", "/var/lib/cni"]).stdout,
        "hostname": os.uname().nodename,
    }


@pytest.fixture(scope="module")
def confined() -> Iterator[tuple[dict[str, int], dict[str, Any], dict[str, Any]]]:
    """Let the plugin try everything under the runner; the outcomes, and the host before and after."""
    directory = Path(f"/usr/local/lib/cnisandbox-hostile-{os.getpid()}")
    directory.mkdir(mode=0o755)
    try:
        with new_world() as world:
            command = prepare(world, directory)
            profile = directory / "hostile.toml"
            profile.write_text(PROFILE)
            profile.chmod(0o644)
            before = state_of(world)
            # A runtime without a umask: what is let in then is let in by the plugin.
            shell = ["sh", "-c", 'umask 000; exec "$@"', "sh"]
            done = world.run([*shell, *EXEC, "--profile", str(profile), "--", *command], env=ENVIRONMENT, timeout=90)
            yield json.loads(done.stdout), before, state_of(world)
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_cannot(confined: tuple[dict[str, int], dict[str, Any], dict[str, Any]], name: str) -> None:
    outcomes, _, _ = confined
    assert outcomes[name] == EXPECTED.get(name, errno.EPERM)


def test_nothing_of_the_host_has_changed(
    confined: tuple[dict[str, int], dict[str, Any], dict[str, Any]],
) -> None:
    _, before, after = confined
    for what, state in before.items():
        assert after[what] == state, what


@pytest.mark.parametrize("name", sorted(set(ATTEMPTS) - REFUSED_TO_ROOT))
def test_root_without_the_runner_can(world: World, tmp_path: Path, name: str) -> None:
    """The control: each attempt is one that works."""
    done = world.run([sys.executable, *prepare(world, tmp_path), name], env=ENVIRONMENT, timeout=30)
    assert json.loads(done.stdout) == {name: 0}


CLIMB = """#!/usr/bin/python3
import json, os
found = {}
for path in ("self/status", "self/maps", "self/mem", "self/ns/net", "self/cmdline", "sys/kernel/core_pattern"):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(f"/proc/sys/net/../../{path}", flags))
            found[f"{path} {flags}"] = 0
        except OSError as error:
            found[f"{path} {flags}"] = error.errno
with open("/proc/sys/net/ipv4/conf/lo/forwarding") as file:
    found["control"] = file.read()
print(json.dumps(found))
"""


def test_a_path_through_the_sysctls_leads_nowhere_else(world: World) -> None:
    """At hardened no permit looks at it, and who opens it has a procfs in view where it stands itself."""
    directory = Path(f"/usr/local/lib/cnisandbox-climb-{os.getpid()}")
    directory.mkdir(mode=0o755)
    try:
        world.netns("blue")
        plugin = directory / "climb"
        plugin.write_text(CLIMB)
        plugin.chmod(0o755)
        done = world.run([*EXEC, "--profile", "generic", "--", str(plugin)], env=ENVIRONMENT, timeout=30)
    finally:
        shutil.rmtree(directory)
    found = json.loads(done.stdout)
    assert found.pop("control") in ("0\n", "1\n")
    assert set(found.values()) == {errno.EACCES}

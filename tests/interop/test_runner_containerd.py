"""containerd's `ctr run --cni`, unmodified, calls unmodified reference plugins that are wrapped."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnisandbox.boundary.sandbox import SERVICE_USER
from tests.interop import containers
from tests.interop.containers import BRIDGE, GATEWAY, LOOPBACK, PAGE, SERVE, fetch, footprint, ping, running_containerd
from tests.interop.test_runner_podman import BANDWIDTH, FIREWALL, IPTABLES, PORTMAP, TUNING
from tests.interop.wrapped import cnisandbox, reference_plugins, require_unprivileged, watched
from tests.world import World, wait_until

CHAIN = (BRIDGE, PORTMAP, FIREWALL, TUNING, BANDWIDTH, LOOPBACK)
PROGRAMS = [plugin["type"] for plugin in CHAIN] + ["host-local"]


@pytest.fixture(scope="module")
def wrapped() -> Iterator[str]:
    with reference_plugins() as directory:
        cnisandbox("wrap", "--bin-dir", directory)
        yield directory


def test_chain_of_plugins_serves_containers_without_any_privilege(world: World, tmp_path: Path, wrapped: str) -> None:
    """The directory is mounted where ctr looks, so that the shims stand at another path than they were made for."""
    containers.write_network(world, *CHAIN)
    programs = [f"{wrapped}/.cnisandbox/{name}" for name in PROGRAMS]
    with (
        running_containerd(world, tmp_path / "containerd", wrapped) as containerd,
        watched(*programs, shared=[IPTABLES]) as watch,
    ):
        before = footprint(world)
        address = containerd.start("web", *SERVE)

        assert fetch(world, address) == PAGE
        ping(world, address)
        assert containerd.run("client", "wget", "-qO-", f"http://{address}/") == PAGE
        targets = [address, GATEWAY, "fd87::2", "127.0.0.1"]
        script = "; ".join(f"ping -c 2 -i 0.2 {target}" for target in targets)
        assert containerd.run("pinger", "sh", "-c", script).count(", 0% packet loss") == len(targets)

        containerd.remove("web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        after = footprint(world)
        # ctr's DEL has no netns; what the reference plugins cannot find then stays for ever, wrapped or not
        for kind in ("masquerade", "nft tables"):
            assert after.pop(kind) != before.pop(kind)
        assert after == before

    require_unprivileged(watch, pwd.getpwnam(SERVICE_USER).pw_uid)
    seen = {(each.program, each.verb) for each in watch.executions}
    assert seen >= {(name, verb) for name in PROGRAMS for verb in ("ADD", "DEL")}
    assert os.path.basename(IPTABLES) in {name for name, _ in seen}

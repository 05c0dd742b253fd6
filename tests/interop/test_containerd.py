"""containerd with runc, unmodified, by `ctr run --cni`; and together with podman on one network."""

from pathlib import Path

import pytest

from tests.interop import containers
from tests.interop.containers import (
    BRIDGE,
    GATEWAY,
    LOOPBACK,
    PAGE,
    SERVE,
    fetch,
    footprint,
    ping,
    prepared_podman,
    received_all,
    running_containerd,
)
from tests.interop.observe import masquerade_facts
from tests.interop.plugin_calls import REFERENCE_DIR
from tests.world import World, wait_until


@pytest.mark.parametrize("implementation", ["reference", "ours"])
def test_containers_reach_each_other_and_the_host(
    world: World, tmp_path: Path, plugin_dir: str, implementation: str
) -> None:
    containers.write_network(world, BRIDGE, LOOPBACK)
    directory = plugin_dir if implementation == "ours" else REFERENCE_DIR
    with running_containerd(world, tmp_path / "containerd", directory) as containerd:
        before = footprint(world)
        address = containerd.start("web", *SERVE)

        assert fetch(world, address) == PAGE
        ping(world, address)
        assert containerd.run("client", "wget", "-qO-", f"http://{address}/") == PAGE
        targets = [address, GATEWAY, "fd87::2", "127.0.0.1"]
        script = "; ".join(f"ping -c 2 -i 0.2 {target}" for target in targets)
        assert containerd.run("pinger", "sh", "-c", script).count(", 0% packet loss") == len(targets)
        masqueraded = [fact.split()[0] for fact in masquerade_facts(world)]

        containerd.remove("web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        after = footprint(world)
        if implementation == "reference":
            # its rules stay for ever, because ctr's DEL has no netns
            assert after.pop("masquerade") != before.pop("masquerade")
            assert after.pop("nft tables") != before.pop("nft tables")
        else:
            assert masqueraded == [address, "fd87::2"]
        assert after == before


def test_containers_of_podman_and_of_containerd_share_a_network(world: World, tmp_path: Path, plugin_dir: str) -> None:
    containers.write_network(world, BRIDGE)
    with (
        prepared_podman(world, tmp_path / "podman", [plugin_dir]) as podman,
        running_containerd(world, tmp_path / "containerd", plugin_dir) as containerd,
    ):
        before = footprint(world)
        by_podman = podman.start("web", command=SERVE)
        by_ctr = containerd.start("web", *SERVE)
        assert by_podman != by_ctr
        for address in (by_podman, by_ctr):
            assert fetch(world, address) == PAGE
        assert podman("exec", "web", "wget", "-qO-", f"http://{by_ctr}/") == PAGE
        assert containerd.run("client", "wget", "-qO-", f"http://{by_podman}/") == PAGE
        assert received_all(containerd.run("pinger", "ping", "-c", "2", "-i", "0.2", by_podman))
        containerd.remove("web")
        podman("rm", "-f", "-t0", "web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        assert footprint(world) == before

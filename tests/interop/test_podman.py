"""podman, unmodified, gets its container networks from our plugins."""

import json
from pathlib import Path

import pytest

from tests.interop import containers
from tests.interop.containers import (
    BRIDGE,
    GATEWAY,
    PAGE,
    PORTMAP,
    SERVE,
    fetch,
    footprint,
    ping,
    prepared_podman,
    received_all,
)
from tests.interop.observe import masquerade_facts
from tests.interop.plugin_calls import REFERENCE_DIR
from tests.world import World, wait_until


@pytest.mark.parametrize("implementation", ["reference", "ours"])
def test_containers_reach_each_other_and_the_host(
    world: World, tmp_path: Path, plugin_dir: str, implementation: str
) -> None:
    containers.write_network(world, BRIDGE)
    with prepared_podman(
        world, tmp_path / "podman", [plugin_dir if implementation == "ours" else REFERENCE_DIR]
    ) as podman:
        before = footprint(world)
        address = podman.start("web", command=SERVE)

        assert fetch(world, address) == PAGE
        ping(world, address)
        assert podman("run", "--rm", containers.IMAGE, "wget", "-qO-", f"http://{address}/") == PAGE
        for target in (address, GATEWAY, "fd87::2", "fd87::1"):
            assert received_all(podman("run", "--rm", containers.IMAGE, "ping", "-c", "2", "-i", "0.2", target))
        if implementation == "ours":
            assert [fact.split()[0] for fact in masquerade_facts(world)] == [address, "fd87::2"]

        podman("rm", "-f", "-t0", "web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        after = footprint(world)
        if implementation == "reference":
            after["nft tables"] -= {"nat"}  # iptables made it, and it is empty
        assert after == before


def test_two_networks_of_one_container_are_two_attachments(world: World, tmp_path: Path, plugin_dir: str) -> None:
    containers.write_network(world, BRIDGE)
    other = {
        **BRIDGE,
        "bridge": "cnitest1",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.86.0.0/24"}]]},
    }
    conflist = {"cniVersion": "0.4.0", "name": "other", "plugins": [other]}
    (world.outside_path("/etc/cni/net.d") / "20-other.conflist").write_text(json.dumps(conflist))
    with prepared_podman(world, tmp_path / "podman", [plugin_dir]) as podman:
        before = footprint(world)
        podman.start("web", "--network", f"{containers.NETWORK},other", command=SERVE)
        for address in ("10.87.0.2", "10.86.0.2"):
            assert fetch(world, address) == PAGE
        podman("rm", "-f", "-t0", "web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        after = footprint(world)
        after["links"] -= {"cnitest1"}
        assert after == before


def test_static_address_and_mac_are_honoured(world: World, tmp_path: Path, plugin_dir: str) -> None:
    containers.write_network(world, {**BRIDGE, "capabilities": {"ips": True}})
    with prepared_podman(world, tmp_path / "podman", [plugin_dir]) as podman:
        mac = "44:33:22:11:00:99"
        address = podman.start("web", "--ip", "10.87.0.77", "--mac-address", mac, command=SERVE)
        assert address == "10.87.0.77"
        assert fetch(world, address) == PAGE
        assert mac in podman("exec", "web", "ip", "link", "show", "dev", "eth0")
        podman("rm", "-f", "-t0", "web")


def test_published_port_goes_through_the_reference_portmap_behind_our_bridge(
    world: World, tmp_path: Path, plugin_dir: str
) -> None:
    containers.write_network(world, BRIDGE, PORTMAP)
    with prepared_podman(world, tmp_path / "podman", [plugin_dir, REFERENCE_DIR]) as podman:
        address = podman.start("web", "-p", "18080:80", command=SERVE)
        world.netns("outside")
        world.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", "outside"])
        for command in (
            "ip addr add 192.0.2.1/24 dev up0; ip link set up0 up",
            "ip -n outside addr add 192.0.2.9/24 dev up0; ip -n outside link set up0 up",
        ):
            world.run(["sh", "-ec", command])

        assert fetch(world, address) == PAGE
        assert fetch(world, "127.0.0.1", 18080) == PAGE
        assert fetch(world, "192.0.2.1", 18080, netns="outside") == PAGE

        podman("rm", "-f", "-t0", "web")
        assert address.encode() not in world.run(["nft", "list", "ruleset"]).stdout
        assert not any(name.startswith("veth") for name in world.ifnames())

"""podman, unmodified, calls unmodified reference plugins that are wrapped: none of them has a privilege any more."""

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.boundary.sandbox import SERVICE_USER
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
from tests.interop.wrapped import cnisandbox, reference_plugins, require_unprivileged, watched
from tests.world import World, wait_until

FIREWALL = {"type": "firewall"}
TUNING = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400}
BANDWIDTH = {"type": "bandwidth", "ingressRate": 100_000_000, "ingressBurst": 10_000_000}
CHAIN: tuple[dict[str, Any], ...] = (BRIDGE, PORTMAP, FIREWALL, TUNING, BANDWIDTH)
PROGRAMS = [plugin["type"] for plugin in CHAIN] + ["host-local"]
IPTABLES = os.path.realpath("/usr/sbin/iptables")


@pytest.fixture(scope="module")
def wrapped() -> Iterator[str]:
    with reference_plugins() as directory:
        cnisandbox("wrap", "--bin-dir", directory, "--log", f"{directory}/audit.log", *PROGRAMS)
        yield directory


def test_chain_of_plugins_serves_containers_without_any_privilege(world: World, tmp_path: Path, wrapped: str) -> None:
    containers.write_network(world, *CHAIN)
    programs = [f"{wrapped}/.cnisandbox/{name}" for name in PROGRAMS]
    with (
        prepared_podman(world, tmp_path / "podman", [wrapped]) as podman,
        watched(*programs, shared=[IPTABLES]) as watch,
    ):
        before = footprint(world)
        address = podman.start("web", "-p", "8080:80", command=SERVE)

        assert fetch(world, address) == PAGE
        assert fetch(world, GATEWAY, 8080) == PAGE
        ping(world, address)
        assert podman("run", "--rm", containers.IMAGE, "wget", "-qO-", f"http://{address}/") == PAGE
        for target in (address, GATEWAY, "fd87::2", "fd87::1"):
            assert received_all(podman("run", "--rm", containers.IMAGE, "ping", "-c", "2", "-i", "0.2", target))
        assert podman("exec", "web", "cat", "/proc/sys/net/ipv4/conf/eth0/arp_filter") == "1"
        assert podman("exec", "web", "cat", "/sys/class/net/eth0/mtu") == "1400"
        qdiscs = json.loads(world.run(["tc", "-json", "qdisc"]).stdout)
        assert "tbf" in {qdisc["kind"] for qdisc in qdiscs}

        podman("rm", "-f", "-t0", "web")
        wait_until(lambda: footprint(world)["processes"] == before["processes"])
        after = footprint(world)
        after["nft tables"] -= {"nat", "filter"}  # iptables made them; the plugins leave their empty chains
        # The jump to portmap's own chain serves every network; the plugin leaves it, as root or not.
    after["masquerade"] = [rule for rule in after["masquerade"] if "CNI-HOSTPORT-MASQ" not in rule]
    assert after == before

    require_unprivileged(watch, pwd.getpwnam(SERVICE_USER).pw_uid)
    seen = {(each.program, each.verb) for each in watch.executions}
    assert seen >= {(name, verb) for name in PROGRAMS for verb in ("ADD", "DEL")}
    assert os.path.basename(IPTABLES) in {name for name, _ in seen}

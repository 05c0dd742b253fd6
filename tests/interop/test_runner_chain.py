"""A chain of reference plugins through `cnisandbox net`, as root and wrapped: the same, step by step.

    world ── lab0 (bridge) ── veth… ── eth0 in the netns "blue"
             portmap, firewall, tuning and bandwidth after it

The runtime stays root; of its plugins, those behind shims have no capability.
"""

import json
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.boundary.sandbox import SERVICE_USER
from tests.interop.observe import store
from tests.interop.plugin_calls import REFERENCE_DIR
from tests.interop.steps import Step, look, require_no_refusal
from tests.interop.wrapped import cnisandbox, reference_plugins, require_unprivileged, watched
from tests.world import new_world

IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
CHAIN: tuple[dict[str, Any], ...] = (
    {"type": "bridge", "bridge": "lab0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": IPAM},
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1400},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
)
PROGRAMS = [plugin["type"] for plugin in CHAIN] + ["host-local"]
MAPPINGS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
RATES = {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 2 * 10**6, "egressBurst": 2 * 10**6}


@pytest.fixture(scope="module")
def wrapped() -> Iterator[str]:
    with reference_plugins() as directory:
        cnisandbox("wrap", "--bin-dir", directory, "--log", f"{directory}/audit.log", *PROGRAMS)
        yield directory


def _sequence(directory: str, log: Path, capabilities: dict[str, Any]) -> tuple[list[Step], list[Any]]:
    steps, stores = [], []
    with new_world() as world:
        world.netns("blue")
        configured = world.outside_path("/etc/cni/net.d/10-lab.conflist")
        configured.parent.mkdir(exist_ok=True)
        configured.write_text(json.dumps({"cniVersion": "1.0.0", "name": "lab", "plugins": CHAIN}))
        for verb in ("add", "check", "del", "del"):
            options = ["--container-id", "c1", "--plugin-dir", directory, "--json"]
            options += ["--capabilities", json.dumps(capabilities)] if verb == "add" else []
            command = [sys.executable, "-m", "cnisandbox.cli.main", "net", verb, "lab", "blue", *options]
            done = world.run(command, expect=None, timeout=60)
            require_no_refusal(log, f"{verb}: {done}")
            steps.append(look(world, verb, done))
            stores.append(_comparable(store(world)))
    return steps, stores


def _comparable(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Leave out the runtime's results, which name random veths, and the mode that tuning's directories have by mistake.

    It makes them 0600, so that only CAP_DAC_OVERRIDE lets anybody use them.
    """
    kept = {path: entry for path, entry in found.items() if not path.startswith("/var/lib/cni/results/")}
    return {path: {**entry, "mode": ""} if path.startswith("/run/cni") else entry for path, entry in kept.items()}


@pytest.mark.parametrize(
    ("mappings", "statuses"),
    [([], [0, 0, 0, 0]), (MAPPINGS, [0, 1, 0, 0])],  # CHECK of portmap 1.1.1 looks for IPv6 rules that ADD never made
    ids=["bandwidth", "ports-and-bandwidth"],
)
def test_a_wrapped_chain_does_what_it_does_as_root(wrapped: str, mappings: list[Any], statuses: list[int]) -> None:
    log = Path(wrapped) / "audit.log"
    capabilities = {"bandwidth": RATES, **({"portMappings": mappings} if mappings else {})}
    expected, expected_stores = _sequence(REFERENCE_DIR, log, capabilities)
    programs = [f"{wrapped}/.cnisandbox/{name}" for name in PROGRAMS]
    with watched(*programs) as watch:
        found, found_stores = _sequence(wrapped, log, capabilities)

    assert [step.returncode for step in expected] == statuses
    for step, wanted in zip(found, expected, strict=True):
        assert step == wanted, step.verb
    for found_store, wanted_store in zip(found_stores, expected_stores, strict=True):
        assert found_store == wanted_store
    require_unprivileged(watch, pwd.getpwnam(SERVICE_USER).pw_uid)
    assert {each.program for each in watch.executions} == set(PROGRAMS)
    passed = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["plugin"] for line in passed if "permit" in line} >= {"bridge", "tuning", "bandwidth"}

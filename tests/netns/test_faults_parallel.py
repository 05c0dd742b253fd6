"""Sixteen ADDs at a time, some of them killed at a moment that nobody chose: who is left has all of its network.

world ── cni0 ──┬── veth… ══ eth0 ── pod0
                ├── …
                └── veth… ══ eth0 ── pod15        one attachment each, dual stack, masqueraded
"""

import json
import random
import subprocess
import time
from typing import Any

import pytest

from tests.netns import faults
from tests.netns.faults import IFNAME, NETCONF, NETWORK
from tests.world import World

pytestmark = pytest.mark.timeout(240)

PODS = [f"pod{number}" for number in range(16)]
KILLED = 6
# How long sixteen cold calls take on two processors, about: kills are spread over it.
KILLS_WITHIN_S = 0.6


def start(world: World, plugin_dir: str, verb: str, pod: str) -> "subprocess.Popen[bytes]":
    variables = faults.environment(verb, plugin_dir, container_id=f"id-{pod}", netns=pod)
    child = world.popen([f"{plugin_dir}/bridge"], env=variables)
    assert child.stdin is not None
    child.stdin.write(json.dumps(NETCONF).encode())
    child.stdin.close()
    child.stdin = None
    return child


def finish(child: "subprocess.Popen[bytes]") -> tuple[int, bytes, bytes]:
    stdout, stderr = child.communicate(timeout=60)
    return child.returncode, stdout, stderr


def kill_some(children: dict[str, "subprocess.Popen[bytes]"], chance: random.Random) -> None:
    began = time.monotonic()
    moments = sorted((chance.uniform(0, KILLS_WITHIN_S), pod) for pod in chance.sample(PODS, KILLED))
    for moment, pod in moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))  # not a wait for something: the moment is the test
        faults.kill_group(children[pod])


def require_network(world: World, pod: str, result: dict[str, Any]) -> None:
    """Insist that a pod has what its result says."""
    here = world.ip("address", "show", "dev", IFNAME, netns=pod)[0]
    has = {f"{item['local']}/{item['prefixlen']}" for item in here["addr_info"] if item["scope"] == "global"}
    assert has == {ip["address"] for ip in result["ips"]}
    host_end = world.link(result["interfaces"][1]["name"])
    assert host_end["master"] == "cni0"
    assert f" id-{pod} " in host_end["ifalias"]
    gateway = result["ips"][0]["gateway"]
    world.run(["ping", "-c", "1", "-W", "2", gateway], netns=pod)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_survivors_of_a_massacre_are_whole(world: World, plugin_dir: str, seed: int) -> None:
    for pod in PODS:
        world.netns(pod)
    finish(start(world, plugin_dir, "ADD", PODS[0]))
    finish(start(world, plugin_dir, "DEL", PODS[0]))
    ready = faults.state(world)

    children = {pod: start(world, plugin_dir, "ADD", pod) for pod in PODS}
    kill_some(children, random.Random(seed))
    ended = {pod: finish(child) for pod, child in children.items()}
    results = {pod: json.loads(stdout) for pod, (status, stdout, _) in ended.items() if status == 0}
    dead = [pod for pod in PODS if pod not in results]
    assert all(ended[pod][0] == -9 for pod in dead), ended
    assert len(results) >= len(PODS) - KILLED

    for child in [start(world, plugin_dir, "DEL", pod) for pod in dead]:
        assert finish(child)[0] == 0
    given = [ip["address"] for result in results.values() for ip in result["ips"]]
    assert len(given) == len(set(given)) == 2 * len(results)
    directory = world.outside_path(f"/var/lib/cni/networks/{NETWORK}")
    reserved = {path.name for path in directory.iterdir()} - {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}
    assert reserved == {address.partition("/")[0] for address in given}
    for pod, result in results.items():
        require_network(world, pod, result)
    check_all(world, plugin_dir, results)

    for child in [start(world, plugin_dir, "DEL", pod) for pod in results]:
        assert finish(child)[0] == 0
    faults.require_state(world, ready, "the DEL of all")


def check_all(world: World, plugin_dir: str, results: dict[str, dict[str, Any]]) -> None:
    for pod, result in list(results.items())[:4]:
        netconf = {**NETCONF, "prevResult": result}
        faults.call(world, plugin_dir, "CHECK", netconf, container_id=f"id-{pod}", netns=pod)

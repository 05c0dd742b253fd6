"""What the zygote practises: code is adapted by it, and nothing else is changed."""

import json
import sys
from typing import Any

import pytest

from tests.world import World

# What a call executes, in each of its processes, at each level; and one function that no call does.
FUNCTIONS = {
    "plugins.bridge": ["Bridge.add", "Bridge.check", "Bridge.delete"],
    "plugins.host_local": ["HostLocal.add"],
    "bridge_host": ["connect", "serve_port"],
    "boundary.wire": ["_values", "_encode_values", "check_each"],
    "boundary.attestation": ["verify"],
    "boundary.service": ["receive_changes", "run_declared"],
    "netlink.interface": ["configure_new_interface"],
    "netlink.transport": ["NetlinkSocket.execute"],
    "monitor.gate": ["Gatekeeper.take"],
    "policy.judge": ["Judge.judge"],
    "nft.masquerade": ["add_masquerade"],
    "cni.output": ["result_document"],
}
IDLE = ("plugins.bridge", "Bridge.gc")

# In an interpreter of its own: the functions are new there. What is at the number of the container's netns is a file.
SCRIPT = """
import json, operator, os, sys
from importlib import import_module
from cnisandbox import late
from cnisandbox.boundary.limits import open_descriptors
from cnisandbox.plugins.bridge import Bridge
from cnisandbox.zygote import practice
from cnisandbox.zygote.rehearsal import NETCONFS

functions, netconfs, spoilt = json.loads(sys.argv[1])
netconfs = [NETCONFS["bridge"][netconf] if isinstance(netconf, int) else netconf for netconf in netconfs]
os.dup2(os.open("/dev/null", os.O_RDONLY), 3)

def code():
    return {
        f"{module}.{name}": operator.attrgetter(name)(import_module(f"cnisandbox.{module}")).__code__._co_code_adaptive
        for module, names in functions.items() for name in names
    }

def place():
    opened = {number: os.fstat(number)[:3] for number in open_descriptors(1024)}
    with open("/proc/self/status") as status:
        capabilities = [line for line in status if line.startswith("Cap")]
    return [opened, os.readlink("/proc/self/ns/net"), os.listdir("/var/lib/cni"), os.getcwd(), capabilities]

if spoilt == "return":
    serve = practice._serve_calls
    def serve_and_close(plugin, netconf, own_fd):
        serve(plugin, netconf, own_fd)
        os.close(own_fd)
    practice._serve_calls = serve_and_close
if spoilt == "permission":
    Bridge.link_names = classmethod(lambda *_: {"bridge": ["cni0"]})
then, before, warnings = code(), place(), []
practice.practise(Bridge, tuple(netconfs), print if spoilt == "return" else warnings.append)
now, after = code(), place()
adapted = [name for name in then if then[name] != now[name]]
print(json.dumps({"adapted": adapted, "same": before == after, "warnings": warnings}))
"""


def practised(
    world: World, *netconfs: int | str, functions: dict[str, list[str]] | None = None, spoilt: str = ""
) -> dict[str, Any]:
    """Practise with netconfs of the zygote's, by number, or with others."""
    argument = json.dumps([functions or {}, netconfs, spoilt])
    said: dict[str, Any] = json.loads(world.run([sys.executable, "-I", "-c", SCRIPT, argument]).stdout)
    return said


def kernel_state(world: World) -> tuple[Any, ...]:
    forwarding = world.run(["cat", "/proc/sys/net/ipv4/ip_forward"])
    return world.ip("link"), world.ip("address"), world.run(["nft", "list", "ruleset"]), forwarding


def test_interpreter_has_adapted_what_calls_execute(world: World) -> None:
    before = kernel_state(world)
    functions = {module: [*names] for module, names in FUNCTIONS.items()}
    functions[IDLE[0]] = [*functions[IDLE[0]], IDLE[1]]
    said = practised(world, 0, functions=functions)
    assert (said["same"], said["warnings"]) == (True, [])
    assert set(said["adapted"]) == {f"{module}.{name}" for module, names in FUNCTIONS.items() for name in names}
    assert kernel_state(world) == before


def test_what_one_kernel_refuses_is_practised_without(world: World) -> None:
    said = practised(world, '{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "bridge": "lo"}', 1)
    assert said == {"adapted": [], "same": True, "warnings": []}


@pytest.mark.parametrize(
    ("netconf", "why"),
    [
        ('{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "bridge": "lo"}', "KernelRefused: create bridge lo"),
        ('{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "mtu": "high"}', "InvalidConfig: mtu"),
        ("nothing", "UndecodableInput"),
    ],
)
def test_practice_that_fails_is_told_and_leaves_everything_as_it_was(world: World, netconf: str, why: str) -> None:
    said = practised(world, netconf)
    assert said["same"]
    (warning,) = said["warnings"]
    assert warning.startswith(f"practise bridge: {why}")
    assert warning.endswith("; calls will take longer")


def test_gate_that_refuses_leaves_the_zygote_its_capabilities(world: World) -> None:
    said = practised(world, 1, spoilt="permission")
    assert said["same"]
    (warning,) = said["warnings"]
    assert "operation not permitted" in warning


def test_zygote_that_cannot_go_back_ends(world: World) -> None:
    argument = json.dumps([{}, [1], "return"])
    ended = world.popen([sys.executable, "-I", "-u", "-c", SCRIPT, argument])
    said, _ = ended.communicate(timeout=60)
    assert ended.returncode == 1
    assert said.decode() == (
        "practise bridge: go back to the netns of before: bad file descriptor; no call will be served\n"
    )

"""What the zygote practises: code is adapted by it, and nothing else is changed."""

import json
import os
import socket
import sys
from typing import Any

import pytest

from cnisandbox.zygote.server import Pool, Server
from cnisandbox.zygote.slot import Served
from tests.netns.zygotes import Zygote
from tests.world import World

# What a call executes, in each of its processes, at each level; and one function that no call does.
FUNCTIONS = {
    "plugins.bridge": ["Bridge.add", "Bridge.check", "Bridge.delete"],
    "plugins.host_local": ["HostLocal.add"],
    "bridge_host": ["connect", "serve_port"],
    "boundary.wire": ["_values", "_encode_values", "check_each"],
    "boundary.attestation": ["verify"],
    "boundary.service": ["receive_changes", "answer_of"],
    "netlink.interface": ["configure_new_interface"],
    "netlink.transport": ["NetlinkSocket.execute"],
    "monitor.gate": ["Gatekeeper.take"],
    "policy.judge": ["Judge.judge"],
    "nft.masquerade": ["add_masquerade"],
    "cni.output": ["result_document"],
}
ALL = {f"{module}.{name}" for module, names in FUNCTIONS.items() for name in names}
IDLE = ("plugins.bridge", "Bridge.gc")

# In an interpreter of its own: the functions are new there. What is at the number of the container's netns is a file.
SCRIPT = """
import json, operator, os, sys, time
from importlib import import_module
from cnisandbox import late
from cnisandbox.plugins.bridge import Bridge
from cnisandbox.zygote import practice, rehearsal
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
    names = os.listdir("/proc/self/fd")
    opened = {name: os.fstat(int(name))[:3] for name in names if os.path.lexists(f"/proc/self/fd/{name}")}
    with open("/proc/self/status") as status:
        capabilities = [line for line in status if line.startswith("Cap")]
    return [opened, os.readlink("/proc/self/ns/net"), os.listdir("/var/lib/cni"), os.getcwd(), capabilities]

if spoilt == "return":
    serve = practice._serve_calls
    def serve_and_close(plugin, netconf, rounds):
        serve(plugin, netconf, rounds)
        if rounds > 1:
            os.closerange(4, 12)
    practice._serve_calls = serve_and_close
if spoilt == "library":
    for number in range(1100):
        os.open("/dev/null", os.O_RDONLY)
if spoilt == "hang":
    practice._serve_calls = lambda *_: time.sleep(60)
    rehearsal._TIME_LIMIT_S = 0.2
if spoilt == "permission":
    here, names = os.getpid(), Bridge.link_names
    Bridge.link_names = classmethod(lambda _, *call: {"bridge": ["cni0"]} if os.getpid() == here else names(*call))
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
    assert set(said["adapted"]) == ALL
    assert kernel_state(world) == before


REFUSED = '{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "bridge": "lo"}'


@pytest.mark.parametrize(("netconfs", "spoilt"), [((REFUSED, 1), ""), ((0, 1), "library")])
def test_what_cannot_be_practised_here_is_left_out(world: World, netconfs: tuple[int | str, ...], spoilt: str) -> None:
    """Such as nf_tables: libnftables ends a process with descriptors beyond those of select(2)."""
    said = practised(world, *netconfs, functions=FUNCTIONS, spoilt=spoilt)
    assert (said["same"], said["warnings"]) == (True, [])
    assert set(said["adapted"]) == ALL - {"nft.masquerade.add_masquerade"}


def test_practice_that_hangs_is_ended(world: World) -> None:
    said = practised(world, 0, 1, spoilt="hang")
    why = "; ".join(["a try has ended, or takes too long"] * 2)
    assert said == {"adapted": [], "same": True, "warnings": [f"practise bridge: {why}; calls will take longer"]}


def test_no_program_is_executed(world: World) -> None:
    """A reference plugin where the netconf's is looked for."""
    world.run(["mkdir", "/run/programs", "/run/upper", "/run/work"])
    world.run(["sh", "-c", "printf '#!/bin/sh\\ntouch /run/executed\\n' > /run/upper/host-local"])
    world.run(["chmod", "755", "/run/upper/host-local"])
    options = "lowerdir=/usr/bin,upperdir=/run/upper,workdir=/run/work"
    world.run(["mount", "-t", "overlay", "overlay", "-o", options, "/usr/bin"])
    said = practised(world, 0, functions=FUNCTIONS)
    assert (set(said["adapted"]), said["warnings"]) == (ALL, [])
    assert "executed" not in world.run(["ls", "/run"]).stdout.split()


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


def test_zygote_practises_and_serves_all_the_same_when_that_fails(world: World, plugin_dir: str) -> None:
    world.run(["mount", "-o", "bind,ro", "/proc/sys", "/proc/sys"])
    zygote = Zygote(world, plugin_dir, "--pool", "1")
    zygote.warm("STATUS")
    assert "cnisandbox: practise bridge: KernelRefused: write sysctl" in zygote.log
    zygote.kill()


class Practised(Exception):
    """The practice has begun."""


@pytest.mark.parametrize("waiting", [0, 1])
def test_launcher_that_waits_gets_a_slot_before_the_practice(world: World, waiting: int) -> None:
    def slots_made_before() -> int:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind("")
        listener.listen()
        launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if waiting:
            launcher.connect(listener.getsockname())

        def practise(_warn: object) -> None:
            raise Practised

        served = Served("bridge", prepare=lambda *_: os._exit(0), begin=lambda *_: os._exit(0), practise=practise)
        pool = Pool(served, listener, 1)
        with pytest.raises(Practised):
            Server([pool], bytes(32), os.open("/proc/self/ns/mnt", os.O_RDONLY), print).run()
        return len(pool.idle)

    assert world.call(slots_made_before) == waiting

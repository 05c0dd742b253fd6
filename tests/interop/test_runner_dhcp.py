"""The reference dhcp plugin through `cnisandbox exec`: its daemon gets an address, and the plugin needs no privilege.

    world ── lab0 (bridge) ── dnsmasq, which gives out 10.9.0.100 to 10.9.0.120
      │        └── veth… ── eth0 in the netns "blue"
      ├── dhcp daemon                root; listens on /run/cni/dhcp.sock
      └── cnisandbox exec ▶ bridge ▶ dhcp    confined; connects to that socket

The daemon is outside of the confinement: it serves every netns of the node for as long as leases last, and needs
packet sockets in each. It opens the path of CNI_NETNS itself, which is the same inside the view and outside.

Its socket is root's alone to connect to (0755), so the service user's group has to be let in: the tests do what
docs/runner.md tells the administrator to.
"""

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.boundary.observe import SERVICE_GID, Process, children, finish, observe, start
from tests.boundary.test_runner_processes import assert_is_confined
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins
from tests.world import World, new_world, wait_until

EXEC = (str(Path(sys.executable).parent / "cnisandbox"), "exec", "--log", "/run/log", "--")
PREFIXES = {"root": (), "confined": EXEC}
SOCKET = "/run/cni/dhcp.sock"
FIRST, LAST = ipaddress.IPv4Address("10.9.0.100"), ipaddress.IPv4Address("10.9.0.120")
HOST = (
    "ip link add lab0 type bridge",
    "ip address add 10.9.0.1/24 dev lab0",
    "ip link set lab0 up",
)
PAIR = (
    "ip link add up0 type veth peer name eth0 netns blue",
    "ip link set up0 up master lab0",
    "ip -n blue link set eth0 up",
)
BRIDGE = {"cniVersion": "1.0.0", "name": "lab", "type": "bridge", "bridge": "lab0", "ipam": {"type": "dhcp"}}
ALONE = {"cniVersion": "1.0.0", "name": "lab", "type": "x", "ipam": {"type": "dhcp"}}
TIMEOUT_S = 40  # the daemon sets the link up, finds it not ready, and tries again after some seconds


class Served(NamedTuple):
    """A world with both servers in it.

    Attributes:
        world: The world.
        daemon: The plugin's daemon.
        leases: What dnsmasq has given out.
        log: What the daemon says.
    """

    world: World
    daemon: subprocess.Popen[bytes]
    leases: Path
    log: Path

    def start(self, verb: str, plugin: str, prefix: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Start a call, which waits for its netconf."""
        env = Plugins(self.world, REFERENCE_DIR).environment(verb)
        return start(self.world, [*prefix, f"{REFERENCE_DIR}/{plugin}"], env)

    def call(self, verb: str, plugin: str, netconf: JsonObject, prefix: tuple[str, ...]) -> Any:
        """Make a call that succeeds; its result, with what is different each time made equal."""
        return self.answer_of(self.start(verb, plugin, prefix), netconf)

    def answer_of(self, child: subprocess.Popen[bytes], netconf: JsonObject) -> Any:
        """Give a call its netconf; its result."""
        done = finish(child, json.dumps(netconf).encode(), timeout=TIMEOUT_S)
        assert done.returncode == 0, f"{done.stdout!r} {done.stderr!r}\n{self.log.read_text()}"
        assert self.refusals() == []
        return json.loads(done.stdout) if done.stdout else None

    def refusals(self) -> list[str]:
        """List what the audit log has of them."""
        log = self.world.outside_path("/run/log")
        return [line for line in log.read_text().splitlines() if "refused" in json.loads(line)] if log.exists() else []

    def leased(self) -> list[str]:
        """List the addresses that dnsmasq counts as given out."""
        return [line.split()[2] for line in self.leases.read_text().splitlines()] if self.leases.exists() else []


@contextlib.contextmanager
def served(directory: Path) -> Iterator[Served]:
    """Make a world with dnsmasq and the daemon in it."""
    with new_world() as world, (directory / "daemon.log").open("ab") as log:
        world.netns("blue")
        for command in HOST:
            world.run(command.split())
        leases = directory / "leases"
        leases.unlink(missing_ok=True)
        dnsmasq = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--group=root"]
        dnsmasq += ["--interface=lab0", "--except-interface=lo", "--bind-interfaces", f"--dhcp-leasefile={leases}"]
        dnsmasq += [f"--dhcp-range={FIRST},{LAST},255.255.255.0,1h"]
        world.popen(dnsmasq, stdout=log.fileno(), stderr=log.fileno())
        world.run(["mkdir", "-p", os.path.dirname(SOCKET)])
        daemon = world.popen([f"{REFERENCE_DIR}/dhcp", "daemon"], stdout=log.fileno(), stderr=log.fileno())
        wait_until(world.outside_path(SOCKET).exists)
        wait_until(lambda: b":0043 " in world.run(["cat", "/proc/self/net/udp"]).stdout)  # dnsmasq has port 67
        yield Served(world, daemon, leases, directory / "daemon.log")


def let_service_group_in(world: World) -> None:
    """Do what docs/runner.md says."""
    world.run(["chgrp", str(SERVICE_GID), SOCKET])
    world.run(["chmod", "0660", SOCKET])


def _address_in_kernel(world: World) -> list[str]:
    shown = world.ip("-4", "address", "show", "dev", "eth0", netns="blue")
    return [f"{item['local']}/{item['prefixlen']}" for link in shown for item in link["addr_info"]]


def _of_range(result: Any) -> str:
    """Return the one address of a result; it has to be one that dnsmasq gives out."""
    (item,) = result["ips"]
    assert FIRST <= ipaddress.IPv4Interface(item["address"]).ip <= LAST
    return str(item["address"])


def _alike(result: Any) -> Any:
    """Make equal what is different each time: the address, the hardware addresses and the name of the veth."""
    result = json.loads(json.dumps(result))
    for item in result["ips"]:
        item["address"] = f"ADDRESS/{item['address'].partition('/')[2]}"
    for interface in result.get("interfaces", []):
        interface["mac"] = "MAC"
        interface["name"] = "veth" if interface["name"].startswith("veth") else interface["name"]
    return result


def _bridge(server: Served, prefix: tuple[str, ...]) -> Any:
    """ADD, DEL and DEL again by the bridge plugin."""
    result = server.call("ADD", "bridge", BRIDGE, prefix)
    address = _of_range(result)
    assert _address_in_kernel(server.world) == [address]
    assert server.leased() == [address.partition("/")[0]]
    server.call("DEL", "bridge", BRIDGE, prefix)
    assert server.world.ifnames("blue") == {"lo"}
    wait_until(lambda: "c1/lab/eth0: releasing lease" in server.log.read_text())
    server.call("DEL", "bridge", BRIDGE, prefix)
    return _alike(result)


def _alone(server: Served, prefix: tuple[str, ...]) -> Any:
    """ADD, DEL and DEL again by the dhcp plugin; it tells the address, and does not set it."""
    for command in PAIR:
        server.world.run(command.split())
    result = server.call("ADD", "dhcp", ALONE, prefix)
    address = _of_range(result)
    assert server.leased() == [address.partition("/")[0]]
    assert _address_in_kernel(server.world) == []
    server.call("DEL", "dhcp", ALONE, prefix)
    wait_until(lambda: not server.leased())
    server.call("DEL", "dhcp", ALONE, prefix)
    return _alike(result)


@pytest.mark.parametrize("sequence", [_bridge, _alone], ids=["bridge", "dhcp"])
def test_an_address_comes_from_the_server_as_it_does_for_root(sequence: Any, tmp_path: Path) -> None:
    results = {}
    for name, prefix in PREFIXES.items():
        (tmp_path / name).mkdir()
        with served(tmp_path / name) as server:
            let_service_group_in(server.world)
            results[name] = sequence(server, prefix)
    assert results["confined"] == results["root"]


def test_who_talks_to_the_daemon_has_no_capability(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        let_service_group_in(server.world)
        server.daemon.send_signal(signal.SIGSTOP)  # the call is in the socket's queue, and the plugin waits
        child = server.start("ADD", "bridge", EXEC)
        assert child.stdin is not None
        child.stdin.write(json.dumps(BRIDGE).encode())
        child.stdin.close()
        child.stdin = None
        plugins = wait_until(lambda: _plugins_below(child), timeout=20)
        for process in plugins.values():
            assert_is_confined(process, 0)
        assert "socket:" in " ".join(plugins["dhcp"].descriptors.values())
        server.daemon.send_signal(signal.SIGCONT)
        stdout, stderr = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0, (stdout, stderr)
        assert _address_in_kernel(server.world) == [_of_range(json.loads(stdout))]


def _plugins_below(child: subprocess.Popen[bytes]) -> dict[str, Process]:
    """Find both plugins, once the one has connected."""
    assert child.poll() is None, child.communicate()
    found: dict[str, Process] = {}
    with contextlib.suppress(OSError, ValueError, KeyError):
        (monitor,) = children(child.pid)
        for worker in children(monitor):
            for pid in (worker, *children(worker)):
                program = os.readlink(f"/proc/{pid}/exe")
                if os.path.dirname(program) == REFERENCE_DIR:
                    found[os.path.basename(program)] = observe(pid)
        is_connected = any(target.startswith("socket:") for target in found["dhcp"].descriptors.values())
        return found if {"bridge", "dhcp"} <= found.keys() and is_connected else {}
    return {}


def test_a_socket_that_is_roots_alone_is_refused_by_the_kernel(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        done = finish(server.start("ADD", "bridge", EXEC), json.dumps(BRIDGE).encode(), timeout=TIMEOUT_S)
        assert done.returncode == 1
        assert "dhcp.sock: connect: permission denied" in json.loads(done.stdout)["msg"]
        assert _address_in_kernel(server.world) == []
        assert server.leased() == []
        assert "acquiring" not in server.log.read_text()

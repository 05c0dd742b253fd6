"""`cnisandbox net` drives the reference plugins, in a world of its own.

world (host netns)                      netns blue
  lab0 10.88.0.1/16 ── veth ─────────── eth0 10.88.0.2/16

"""

import json
import sys
from typing import Any

import pytest

from tests.world import Completed, World, wait_until

REFERENCE = "/usr/lib/cni"
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "lab",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "lab0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.88.0.0/16"}]],
            },
        },
        {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}},
        {"type": "tuning", "capabilities": {"mac": True}},
    ],
}
MAC = "02:00:00:00:00:42"
CAPABILITIES = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "mac": MAC})
BROKEN = """#!/bin/sh
if [ "$CNI_COMMAND" = ADD ]; then echo '{"code": 11, "msg": "broken on purpose"}'; exit 1; fi
"""


class Host:
    """A world with the network configured."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.path = world.netns("blue")
        self.configure(NETWORK)

    def configure(self, network: object) -> None:
        directory = self.world.outside_path("/etc/cni/net.d")
        directory.mkdir(exist_ok=True)
        (directory / "10-lab.conflist").write_text(json.dumps(network))

    def net(self, *arguments: str, expect: int = 0) -> Completed:
        command = [sys.executable, "-m", "cnisandbox.cli.main", "net", *arguments, "--plugin-dir", "/run/bin"]
        done = self.world.run([*command, "--plugin-dir", REFERENCE], expect=None, timeout=30)
        assert done.returncode == expect, done
        assert b"Traceback" not in done.stderr
        return done

    def add(self, *arguments: str) -> Any:
        return json.loads(self.net("add", "lab", "blue", "--json", *arguments).stdout)

    def plugin(self, name: str, body: str) -> None:
        path = self.world.outside_path(f"/run/bin/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)
        path.chmod(0o755)

    def reservations(self) -> list[str]:
        directory = self.world.outside_path("/var/lib/cni/networks/lab")
        return sorted(path.name for path in directory.glob("10.*"))

    def nat_chains(self) -> list[str]:
        rules = self.world.run(["iptables", "-t", "nat", "-S"], expect=None).stdout.decode().splitlines()
        return [rule for rule in rules if rule.startswith("-N CNI-DN-")]

    def cached(self) -> list[str]:
        return sorted(path.name for path in self.world.outside_path("/var/lib/cni/results").glob("*"))


@pytest.fixture
def host(world: World) -> Host:
    return Host(world)


def test_attachment_is_made_and_taken_away(host: Host) -> None:
    result = host.add("--capabilities", CAPABILITIES, "--container-id", "c1")
    address = result["ips"][0]["address"]
    link = host.world.link("eth0", netns="blue")
    assert link["address"] == MAC
    assert f"{host.world.ip('addr', 'show', 'dev', 'eth0', netns='blue')[0]['addr_info'][0]['local']}/16" == address
    assert len(host.nat_chains()) == 1
    assert host.cached() == ["lab-c1-eth0"]

    host.net("del", "lab", "blue", "--container-id", "c1")
    assert host.world.ifnames("blue") == {"lo"}
    assert (host.reservations(), host.nat_chains(), host.cached()) == ([], [], [])
    host.net("del", "lab", "blue", "--container-id", "c1")


def test_check_succeeds_until_the_address_is_gone(host: Host) -> None:
    host.add()  # without port mappings: CHECK of the reference portmap 1.1.1 looks for IPv6 rules that it never made
    host.net("check", "lab", "blue")
    host.world.run(["ip", "addr", "flush", "dev", "eth0"], netns="blue")
    assert b"plugin 'bridge' (1 of 3)" in host.net("check", "lab", "blue", expect=1).stderr


def test_netns_may_be_named_by_a_process(host: Host) -> None:
    with_netns = host.world.popen(["sleep", "1000"], netns="blue")
    host.world.run(["sh", "-c", "until ip netns pids blue | grep -q .; do :; done"])
    pid = host.world.run(["ip", "netns", "pids", "blue"]).stdout.split()[0].decode()
    host.net("add", "lab", f"/proc/{pid}/ns/net")
    assert "eth0" in host.world.ifnames("blue")
    with_netns.kill()
    with_netns.wait()


def test_failed_add_leaves_nothing(host: Host) -> None:
    host.plugin("broken", BROKEN)
    host.configure(NETWORK | {"plugins": [*NETWORK["plugins"], {"type": "broken"}]})  # type: ignore[misc]
    failed = host.net("add", "lab", "blue", "--capabilities", CAPABILITIES, expect=1)
    assert b"plugin 'broken' (4 of 4): broken on purpose (code 11)" in failed.stderr
    assert b"undone with DEL" in failed.stderr
    assert host.world.ifnames("blue") == {"lo"}
    assert (host.reservations(), host.nat_chains(), host.cached()) == ([], [], [])


def test_failed_add_leaves_what_it_leaves_when_that_is_asked_for(host: Host) -> None:
    host.plugin("broken", BROKEN)
    host.configure(NETWORK | {"plugins": [*NETWORK["plugins"], {"type": "broken"}]})  # type: ignore[misc]
    host.net("add", "lab", "blue", "--no-undo", expect=1)
    assert "eth0" in host.world.ifnames("blue")
    assert len(host.reservations()) == 1


def test_failed_add_does_not_take_away_an_interface_that_was_there(host: Host) -> None:
    host.world.run(["ip", "link", "add", "eth0", "type", "bridge"], netns="blue")
    failed = host.net("add", "lab", "blue", expect=1)
    assert b"'eth0' had been there before" in failed.stderr.replace(b"\n  ", b" ")
    assert host.world.ifnames("blue") == {"lo", "eth0"}
    assert host.reservations() == []


def test_add_that_is_terminated_leaves_nothing(host: Host) -> None:
    host.plugin("slow", '#!/bin/sh\ncase "$CNI_COMMAND" in ADD) touch /run/waiting; exec sleep 1000 ;; esac\n')
    host.configure(NETWORK | {"plugins": [*NETWORK["plugins"], {"type": "slow"}]})  # type: ignore[misc]
    command = [sys.executable, "-m", "cnisandbox.cli.main", "net", "add", "lab", "blue", "--plugin-dir", "/run/bin"]
    child = host.world.popen([*command, "--plugin-dir", REFERENCE])
    wait_until(host.world.outside_path("/run/waiting").exists)
    assert len(host.reservations()) == 1
    child.terminate()
    _, stderr = child.communicate(timeout=30)
    assert (child.returncode, stderr.decode()) == (130, "\ncnisandbox: interrupted\n  undone with DEL\n")
    assert host.world.ifnames("blue") == {"lo"}
    assert (host.reservations(), host.cached()) == ([], [])


def test_gc_takes_away_what_a_vanished_container_held(host: Host) -> None:
    host.add("--container-id", "gone", "--capabilities", CAPABILITIES)
    host.world.netns("red")
    host.net("add", "lab", "red", "--container-id", "stays")
    host.world.delete_netns("blue")
    shown = host.net("gc", "lab").stdout.decode()
    assert "kept     stays" in shown
    assert "deleted  gone" in shown
    assert host.cached() == ["lab-stays-eth0"]
    assert len(host.reservations()) == 1
    assert host.nat_chains() == []


def test_del_succeeds_when_the_netns_is_gone(host: Host) -> None:
    host.add()
    host.world.delete_netns("blue")
    host.net("del", "lab", "blue")
    assert (host.reservations(), host.cached()) == ([], [])


@pytest.mark.parametrize("path", ["/run/netns/missing", "/etc/hostname", "/proc/self/ns/uts", "/run"])
def test_what_is_no_netns_is_refused_before_anything_runs(host: Host, path: str) -> None:
    failed = host.net("add", "lab", path, expect=1)
    assert b"(code 8)" in failed.stderr
    assert host.reservations() == []


def test_two_containers_at_once_and_one_container_one_after_the_other(host: Host) -> None:
    host.world.netns("red")
    command = [sys.executable, "-m", "cnisandbox.cli.main", "net", "add", "lab"]
    started = [
        host.world.popen([*command, netns, "--ifname", ifname, "--plugin-dir", REFERENCE, "--json"])
        for netns in ("blue", "red")
        for ifname in ("eth0", "eth1")
    ]
    results = [json.loads(child.communicate(timeout=30)[0]) for child in started]
    assert len({result["ips"][0]["address"] for result in results}) == 4
    assert len(host.cached()) == 4

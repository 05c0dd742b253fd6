"""DEL, GC and STATUS of the bridge plugin: what goes, what stays, and who is asked.

world ("host")                      blue, red, green
  lab0 ──┬── veth… ═════════════════ eth0 of network "lab"
         └── veth… ═════════════════ eth0 or eth1 of network "other"
"""

import json
import re
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cnisandbox.names import network_alias
from cnisandbox.nft.spoofcheck import add_spoofcheck, has_spoofcheck
from cnisandbox.plugin import Call
from cnisandbox.plugins import bridge
from tests.interop.differential_cases import BRIDGE, DUAL
from tests.interop.observe import masquerade_facts, spoofcheck_facts, store
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins, changed
from tests.world import World

NETCONF = changed(BRIDGE, cniVersion="1.1.0", isDefaultGateway=True, ipMasq=True, macspoofchk=True, ipam__ranges=DUAL)
OTHER = changed(
    NETCONF, name="other", isDefaultGateway=False, isGateway=False, ipam__ranges=[[{"subnet": "10.19.0.0/24"}]]
)
PARALLEL = 16


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    for name in ("blue", "red", "green"):
        world.netns(name)
    return Plugins(world, plugin_dir)


def left(world: World) -> dict[str, Any]:
    """Everything that an attachment has outside its netns."""
    return {
        "ports": sorted(name for name in world.ifnames() if name.startswith("veth")),
        "masquerade": [fact.split()[0] for fact in masquerade_facts(world)],
        "masquerade table": "cnisandbox_masquerade" in json.dumps(world.nft_ruleset()),
        "spoof check": sorted({rule.partition(":")[0] for rule in spoofcheck_facts(world)}),
        "addresses": reservations(world),
    }


NOTHING: dict[str, Any] = {
    "ports": [], "masquerade": [], "masquerade table": False, "spoof check": [], "addresses": []
}  # fmt: skip


def reservations(world: World) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in store(world) if re.search(r"/networks/[^/]+/[\da-f]+[.:]", path))


def spoof_checked(world: World) -> set[str]:
    """The attachments that have a spoof check, as "<container id>-<ifname>"."""
    facts = "\n".join(spoofcheck_facts(world))
    entered = set(re.findall(r"^PREROUTING: .* jump cni-br-iface-(\S+)", facts, re.MULTILINE))
    chains = set(re.findall(r"^cni-br-iface-(\S+?)(?:-mac)?:", facts, re.MULTILINE))
    assert entered == chains
    return entered


def ping(world: World, address: str, netns: str) -> None:
    world.run(["ping", "-c", "1", "-W", "1", address], netns=netns)


class TestDelete:
    @pytest.mark.parametrize("has_prev_result", [True, False])
    @pytest.mark.parametrize("where", ["netns", "no netns", "netns gone", "file left at its path", "directory there"])
    def test_nothing_is_left_wherever_the_netns_is(self, plugins: Plugins, where: str, has_prev_result: bool) -> None:
        world = plugins.world
        result = plugins.add(NETCONF)
        assert [*map(bool, left(world).values())] == [True] * 5
        netns = {"netns": "blue", "no netns": ""}.get(where, "/run/netns/blue")
        if where in {"netns gone", "file left at its path", "directory there"}:
            world.delete_netns("blue")
        if where == "file left at its path":
            world.outside_path(netns).touch()
        if where == "directory there":
            world.outside_path(netns).mkdir()
        for _ in range(2):
            plugins.delete(NETCONF, result if has_prev_result else None, netns=netns)
            assert left(world) == NOTHING
        if where in {"netns", "no netns"}:
            assert world.ifnames("blue") == {"lo"}
        assert "lab0" in world.ifnames()

    @pytest.mark.parametrize("netns", ["blue", "", "/run/netns/none"])
    def test_what_never_was_is_deleted(self, plugins: Plugins, netns: str) -> None:
        plugins.delete(NETCONF, netns=netns)
        assert left(plugins.world) == NOTHING

    def test_only_what_the_attachment_has_goes(self, plugins: Plugins) -> None:
        world = plugins.world
        plugins.add(NETCONF)
        plugins.add(NETCONF, ifname="eth1")
        plugins.add(NETCONF, container_id="c11", netns="red")
        plugins.delete(NETCONF, netns="")
        assert reservations(world) == ["10.9.0.3", "10.9.0.4", "fd09::3", "fd09::4"]
        assert left(world)["masquerade"] == ["10.9.0.3", "10.9.0.4", "fd09::3", "fd09::4"]
        assert (world.ifnames("blue"), world.ifnames("red")) == ({"lo", "eth1"}, {"lo", "eth0"})
        ping(world, "10.9.0.1", "red")

    def test_late_delete_does_not_take_the_address_from_its_next_owner(self, plugins: Plugins) -> None:
        netconf = changed(NETCONF, ipam__ranges=[[{"subnet": "10.9.0.0/30"}]])
        first = plugins.add(netconf)
        plugins.delete(netconf, first, netns="")
        plugins.add(netconf, container_id="c2", netns="red")
        before = left(plugins.world)
        plugins.delete(netconf, first, netns="")
        assert left(plugins.world) == before
        ping(plugins.world, "10.9.0.1", "red")

    @pytest.mark.parametrize("prev_result", [{"cniVersion": "0.4.0", "ips": []}, {"ips": [{"address": "?"}]}, "?"])
    def test_nothing_is_left_when_the_result_cannot_be_read(self, plugins: Plugins, prev_result: Any) -> None:
        plugins.add(NETCONF)
        plugins.delete(NETCONF, prev_result)
        assert left(plugins.world) == NOTHING

    def test_netconf_that_add_refuses_is_deleted(self, plugins: Plugins) -> None:
        """The runtime asks for DEL after a failed ADD, with the same netconf."""
        plugins.add(NETCONF)
        broken = changed(NETCONF, bridge="a/b", mtu="x", runtimeConfig={"mac": "?"}, ipam__ranges=[], ipam__routes=[{}])
        plugins.delete(broken, args="COLOUR=blue")
        assert left(plugins.world) == NOTHING

    def test_address_is_free_only_when_the_link_has_gone(self, plugins: Plugins) -> None:
        """The address plugin sees that its container has no link any more."""
        world = plugins.world
        world.run(["mkdir", "/run/plugins"])
        seen = "$(ip -br link | grep -c veth)"
        script = f"""#!/bin/sh
            [ "$CNI_COMMAND" = ADD ] && echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.9.0.5/24"}}]}}'
            [ "$CNI_COMMAND" = DEL ] && echo "links: {seen}" >&2
            exit 0
            """
        world.outside_path("/run/plugins/scripted").write_text(script)
        world.run(["chmod", "755", "/run/plugins/scripted"])
        scripted = Plugins(world, plugins.directory, path="/run/plugins")
        netconf = changed(NETCONF, cniVersion="1.0.0", ipam={"type": "scripted"})
        result = scripted.add(netconf)
        assert "scripted: links: 0\n" in scripted.call("DEL", {**netconf, "prevResult": result}).stderr


class TestGarbage:
    def test_only_what_is_stale_and_of_this_network_goes(self, plugins: Plugins) -> None:
        world = plugins.world
        plugins.add(NETCONF)
        plugins.add(NETCONF, container_id="c2", netns="red")
        plugins.add(NETCONF, container_id="c3", netns="green", ifname="eth1")
        plugins.add(OTHER, container_id="c2", netns="red", ifname="eth1")
        before = left(world)

        collect(plugins, NETCONF, ("c1", "eth0"), ("c2", "eth0"), ("c3", "eth1"))
        assert left(world) == before

        collect(plugins, NETCONF, ("c1", "eth0"), ("c3", "eth0"))
        assert reservations(world) == ["10.19.0.2", "10.9.0.2", "fd09::2"]
        assert left(world)["masquerade"] == ["10.19.0.2", "10.9.0.2", "fd09::2"]
        assert len(left(world)["ports"]) == 2
        assert [world.ifnames(name) for name in ("blue", "red", "green")] == [{"lo", "eth0"}, {"lo", "eth1"}, {"lo"}]
        assert spoof_checked(world) == {"c1-eth0", "c2-eth1"}
        ping(world, "10.9.0.1", "blue")

        collect(plugins, NETCONF)
        assert reservations(world) == ["10.19.0.2"]
        assert "lab0" in world.ifnames()  # the other network uses it
        collect(plugins, OTHER)
        collect(plugins, NETCONF)
        assert left(world) == NOTHING
        assert world.ifnames() == {"lo"}

    def test_spoof_check_of_a_link_that_has_gone_goes_whatever_its_network(self, plugins: Plugins) -> None:
        world = plugins.world
        plugins.add(NETCONF)
        plugins.add(OTHER, ifname="eth1")
        Plugins(world, REFERENCE_DIR).add(changed(NETCONF, cniVersion="1.0.0"), container_id="c2", netns="red")
        plugins.add(OTHER, container_id="c3", netns="green")
        world.run(["ip", "link", "del", "eth1"], netns="blue")
        world.run(["ip", "link", "del", "eth0"], netns="red")

        collect(plugins, changed(NETCONF, macspoofchk=False), ("c1", "eth0"))
        assert spoof_checked(world) == {"c1-eth0", "c1-eth1", "c2-eth0", "c3-eth0"}
        collect(plugins, NETCONF, ("c1", "eth0"))
        assert spoof_checked(world) == {"c1-eth0", "c3-eth0"}
        ping(world, "10.9.0.1", "blue")

    def test_attachment_made_while_garbage_is_looked_for_keeps_its_filter(self, world: World) -> None:
        """Another ADD makes link and rule between the two questions that GC asks first."""
        attachment = ("c1", "eth0", "veth-a", "02:00:00:00:00:0a")
        add_link = ["ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"]

        class Host:
            asked = 0

            def call(self, function: Callable[..., Any], *args: object) -> Any:
                answer = function(*args)
                self.asked += 1
                if self.asked == 1:
                    subprocess.run(add_link, check=True, timeout=10)
                    add_spoofcheck(*attachment)
                return answer

        def work() -> bool:
            add_spoofcheck("c2", "eth0", "veth-c", "02:00:00:00:00:0b")
            bridge._collect_spoofchecks(cast(Call, SimpleNamespace(host=Host())))
            return has_spoofcheck(*attachment)

        assert world.call(work)
        assert spoof_checked(world) == {"c1-eth0"}

    def test_bridge_that_was_there_before_stays(self, plugins: Plugins) -> None:
        plugins.world.run(["ip", "link", "add", "lab0", "up", "type", "bridge"])
        plugins.add(NETCONF)
        collect(plugins, NETCONF)
        assert plugins.world.ifnames() == {"lo", "lab0"}

    def test_bridge_with_a_port_of_somebody_else_stays(self, plugins: Plugins) -> None:
        """The other end of that port has, in its netns, the index that the bridge has here."""
        world = plugins.world
        plugins.add(NETCONF)
        plugins.delete(NETCONF)
        index = str(world.link("lab0")["ifindex"])
        peer = ["peer", "name", "x", "index", index, "netns", "red"]
        world.run(["ip", "link", "add", "foreign", "master", "lab0", "type", "veth", *peer])
        assert str(world.link("x", "red")["ifindex"]) == index
        collect(plugins, NETCONF)
        assert world.ifnames() == {"lo", "lab0", "foreign"}
        assert world.link("foreign")["master"] == "lab0"

    @pytest.mark.parametrize("sandbox", [{}, {"level": "mediated"}], ids=["", "mediated"])
    def test_gateway_of_a_vlan_goes_with_the_last_attachment(self, plugins: Plugins, sandbox: JsonObject) -> None:
        """Made by hand, because few kernels of tests can have VLANs."""
        world = plugins.world
        netconf = {**NETCONF, "sandbox": sandbox}
        plugins.delete(netconf, plugins.add(netconf))
        world.run(["ip", "link", "add", "port", "master", "lab0", "type", "veth", "peer", "name", "lab0.100"])
        world.run(["ip", "link", "set", "lab0.100", "alias", network_alias("lab")])
        collect(plugins, netconf, ("c1", "eth0"))
        assert world.ifnames() == {"lo", "lab0", "lab0.100", "port"}
        collect(plugins, {**netconf, "vlan": 100})
        assert world.ifnames() == {"lo"}

    def test_nothing_to_collect_is_no_error(self, plugins: Plugins) -> None:
        collect(plugins, NETCONF)
        assert left(plugins.world) == NOTHING

    def test_collecting_needs_to_be_told_what_is_valid(self, plugins: Plugins) -> None:
        plugins.add(NETCONF)
        before = left(plugins.world)
        assert plugins.fail("GC", NETCONF)["code"] == 7
        assert left(plugins.world) == before


class TestStatus:
    def test_full_range_cannot_serve_an_add(self, plugins: Plugins) -> None:
        netconf = changed(NETCONF, ipam__ranges=[[{"subnet": "10.9.0.0/30"}]])
        plugins.call("STATUS", netconf)
        plugins.add(netconf)
        error = plugins.fail("STATUS", netconf)
        assert error["code"] == 50
        assert "10.9.0.1-10.9.0.2" in error["msg"]
        plugins.delete(netconf)
        plugins.call("STATUS", netconf)

    def test_status_changes_nothing(self, plugins: Plugins) -> None:
        plugins.call("STATUS", NETCONF)
        assert plugins.world.ifnames() == {"lo"}
        assert left(plugins.world) == NOTHING

    def test_name_of_another_kind_of_link_cannot_serve_an_add(self, plugins: Plugins) -> None:
        plugins.world.run(["ip", "link", "add", "lab0", "type", "veth", "peer", "name", "other"])
        assert plugins.fail("STATUS", NETCONF)["code"] == 50

    def test_without_addresses_the_bridge_is_always_ready(self, plugins: Plugins) -> None:
        plugins.call("STATUS", changed(NETCONF, ipam=None))


def test_sixteen_adds_and_deletes_at_once(world: World, plugin_dir: str) -> None:
    plugins = Plugins(world, plugin_dir)
    for number in range(PARALLEL):
        world.netns(f"n{number}")
    calls = [plugins.start("ADD", NETCONF, container_id=f"c{number}", netns=f"n{number}") for number in range(PARALLEL)]
    results = [json.loads(finished(call)) for call in calls]

    given = [ip["address"] for result in results for ip in result["ips"]]
    assert len(set(given)) == 2 * PARALLEL
    assert {result["interfaces"][0]["mac"] for result in results} == {world.link("lab0")["address"]}
    assert len(left(world)["ports"]) == PARALLEL
    assert len(left(world)["masquerade"]) == 2 * PARALLEL
    assert len(left(world)["spoof check"]) == 2 * PARALLEL + 1
    for number, result in enumerate(results):
        plugins.check(NETCONF, result, container_id=f"c{number}", netns=f"n{number}")
        own = result["ips"][0]["address"].partition("/")[0]
        ping(world, own, f"n{(number + 1) % PARALLEL}")

    deletions = []
    for number, result in enumerate(results):
        netconf: JsonObject = {**NETCONF, "prevResult": result}
        deletions.append(plugins.start("DEL", netconf, container_id=f"c{number}", netns=f"n{number}"))
    for call in deletions:
        assert finished(call) == b""
    assert left(world) == NOTHING
    assert {name for number in range(PARALLEL) for name in world.ifnames(f"n{number}")} == {"lo"}


def test_two_networks_failing_adds_and_gc_at_once_on_one_bridge(world: World, plugin_dir: str) -> None:
    """Whoever made the bridge: a failing ADD takes back what is its own, and GC nothing that is valid."""
    plugins = Plugins(world, plugin_dir)
    ranges, routes = [[{"subnet": "10.29.0.0/24"}]], [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]
    failing = changed(OTHER, name="failing", ipam__ranges=ranges, ipam__routes=routes)
    netconfs = [failing, NETCONF, OTHER] * 4
    numbered = [(netconf, f"c{number}", f"n{number}") for number, netconf in enumerate(netconfs)]
    for _, _, netns in numbered:
        world.netns(netns)
    valid = [{"containerID": container_id, "ifname": "eth0"} for _, container_id, _ in numbered]

    def start(verb: str, netconf: JsonObject, container_id: str, netns: str) -> "subprocess.Popen[bytes]":
        return plugins.start(verb, netconf, container_id=container_id, netns=netns)

    calls = [start("ADD", *which) for which in numbered]
    collections = [start("GC", {**netconf, "cni.dev/valid-attachments": valid}, "", "") for netconf in netconfs[:3]]
    for call in collections:
        assert finished(call) == b""
    living = []
    for call, (netconf, container_id, netns) in zip(calls, numbered, strict=True):
        if netconf is failing:
            assert json.loads(call.communicate(timeout=60)[0])["msg"].startswith("add route 192.0.2.0/24")
        else:
            living.append(({**netconf, "prevResult": json.loads(finished(call))}, container_id, netns))

    assert len(left(world)["ports"]) == len(living)
    assert len(left(world)["masquerade"]) == len(reservations(world)) == 4 * 2 + 4
    assert spoof_checked(world) == {f"{container_id}-eth0" for _, container_id, _ in living}
    for call in [start("CHECK", *which) for which in living]:
        assert finished(call) == b""
    again = [start("ADD", *which) for which in numbered if which[0] is failing]
    for call in [start("DEL", *which) for which in living]:
        assert finished(call) == b""
    for call in again:
        assert call.wait(timeout=60) == 1
    assert left(world) == NOTHING


def finished(call: "subprocess.Popen[bytes]") -> bytes:
    stdout, stderr = call.communicate(timeout=60)
    assert (call.returncode, stderr) == (0, b""), stdout.decode()
    return stdout


def collect(plugins: Plugins, netconf: JsonObject, *valid: tuple[str, str]) -> None:
    listed = [{"containerID": container_id, "ifname": ifname} for container_id, ifname in valid]
    answer = plugins.call("GC", {**netconf, "cni.dev/valid-attachments": listed})
    assert answer.document is None

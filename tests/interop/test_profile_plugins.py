"""The profiles of the package are enough: each reference plugin does through `cnisandbox exec` what it does as root.

    world ── up0 ── up1 (a veth pair in the host: the link to stand on, or to move)
      │
      └── lab0 (bridge) ── veth… ── eth0 in the netns "blue", where a chained plugin finds it

Each sequence is ADD, CHECK, DEL, and DEL again. After each step output, links, settings and rulesets are compared, and
the log must have no refusal in it. A plugin whose kind of link the kernel lacks has to fail in the same way.
"""

import json
import re
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from cnisandbox.profile import load
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins, with_prev_result
from tests.interop.steps import Step, look, require_no_refusal
from tests.world import World, new_world

EXEC = (sys.executable, "-m", "cnisandbox.cli.main", "exec")
LOG = "/run/log"
VERBS = ("ADD", "CHECK", "DEL", "DEL")

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
DUAL = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
STATIC = {
    "type": "static",
    "addresses": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
}
MAC = "02:00:00:00:00:05"
UPLINK = (
    "ip link add up0 type veth peer name up1",
    "ip link set up0 up",
    "ip link set up1 up",
    "ip address add 192.0.2.1/24 dev up0",
    "ip route add default via 192.0.2.2 dev up0",
)
MAPPINGS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
    {"hostPort": 8081, "containerPort": 81, "protocol": "tcp", "hostIP": "127.0.0.1"},
]


def netconf(plugin: str, **members: Any) -> JsonObject:
    return {"cniVersion": "1.0.0", "name": "lab", "type": plugin, **members}


BRIDGE = netconf("bridge", bridge="lab0", isGateway=True, ipam=DUAL)


class Case(NamedTuple):
    """A plugin with a netconf.

    Attributes:
        netconf: The netconf.
        setup: Commands in the world before.
        before: Netconf of the plugin that ran before it in the chain.
        plugin: Its name, if the netconf's type is another.
        attachment: What is not usual: the ifname.
        adds: Whether ADD succeeds; only where the kernel lacks something it may not.
    """

    netconf: JsonObject
    setup: tuple[str, ...] = ()
    before: JsonObject | None = None
    plugin: str = ""
    attachment: Any = MappingProxyType({})
    adds: bool | None = True


CASES = {
    "bridge-layer2": Case(netconf("bridge", bridge="lab0")),
    "bridge-default-name": Case(netconf("bridge", isGateway=True, ipam=HOST_LOCAL)),
    "bridge-masquerade-hairpin-mac-mtu": Case(
        {**BRIDGE, "ipMasq": True, "hairpinMode": True, "mtu": 1400, "runtimeConfig": {"mac": MAC}}
    ),
    "bridge-promiscuous": Case({**BRIDGE, "promiscMode": True}),
    "bridge-other-address": Case(
        {**BRIDGE, "forceAddress": True},
        ("ip link add lab0 type bridge", "ip address add 10.9.0.77/24 dev lab0", "ip address add fd09::77/64 dev lab0"),
    ),
    "bridge-macspoofchk": Case({**BRIDGE, "macspoofchk": True}),
    "bridge-vlan": Case(netconf("bridge", bridge="lab0", vlan=100), adds=None),
    "bridge-static": Case({**BRIDGE, "ipam": STATIC}),
    "ptp": Case(netconf("ptp", ipMasq=True, mtu=1400, ipam=DUAL)),
    "ptp-without-masquerade": Case(netconf("ptp", ipam=HOST_LOCAL)),
    "macvlan": Case(netconf("macvlan", master="up0", mtu=1400, ipam=DUAL), UPLINK),
    "macvlan-default-route": Case(netconf("macvlan", ipam=HOST_LOCAL, runtimeConfig={"mac": MAC}), UPLINK),
    "macvlan-layer2": Case(netconf("macvlan", master="up0", mode="private"), UPLINK),
    "ipvlan": Case(netconf("ipvlan", master="up0", ipam=HOST_LOCAL), UPLINK, adds=None),
    "vlan": Case(netconf("vlan", master="up0", vlanId=5, ipam=HOST_LOCAL), UPLINK, adds=None),
    "host-device": Case(netconf("host-device", device="up0", ipam=DUAL), UPLINK[:1]),
    "host-device-layer2": Case(netconf("host-device", device="up0"), UPLINK[:1]),
    "loopback": Case(netconf("loopback"), attachment={"ifname": "lo"}),
    "host-local": Case(netconf("x", ipam=DUAL), plugin="host-local"),
    "static": Case(netconf("x", ipam=STATIC), plugin="static"),
    "dhcp-without-daemon": Case(netconf("x", ipam={"type": "dhcp"}), plugin="dhcp", adds=False),
    "portmap": Case(netconf("portmap", runtimeConfig={"portMappings": MAPPINGS}), before=BRIDGE),
    "portmap-without-snat": Case(
        netconf("portmap", snat=False, runtimeConfig={"portMappings": MAPPINGS}), before=BRIDGE
    ),
    "portmap-on-ptp": Case(
        netconf("portmap", runtimeConfig={"portMappings": MAPPINGS[:1]}), before=netconf("ptp", ipam=HOST_LOCAL)
    ),
    "firewall": Case(netconf("firewall", backend="iptables"), before=BRIDGE),
    "firewall-by-itself": Case(netconf("firewall"), before=BRIDGE),
    "firewall-same-bridge": Case(netconf("firewall", ingressPolicy="same-bridge"), before=BRIDGE),
    "bandwidth": Case(
        netconf("bandwidth", ingressRate=10**6, ingressBurst=10**6, egressRate=2 * 10**6, egressBurst=2 * 10**6),
        before=BRIDGE,
    ),
    "tuning": Case(
        netconf(
            "tuning",
            sysctl={"net.core.somaxconn": "500", "net.ipv4.conf.eth0.arp_filter": "1"},
            mac=MAC,
            promisc=True,
            mtu=1300,
            allmulti=True,
        ),
        before=BRIDGE,
    ),
    "sbr": Case(netconf("sbr"), before=BRIDGE),
    "vrf": Case(netconf("vrf", vrfname="red"), before=BRIDGE, adds=None),
}


def _sequence(case: Case, prefix: tuple[str, ...], after: Callable[[World, str], None]) -> list[Step]:
    steps = []
    with new_world() as world:
        world.netns("blue")
        for command in case.setup:
            world.run(command.split())
        plugins = Plugins(world, REFERENCE_DIR)
        result = plugins.add(case.before) if case.before else None
        name = case.plugin or case.netconf["type"]
        for verb in VERBS:
            done = world.run(
                [*prefix, f"{REFERENCE_DIR}/{name}"],
                stdin=json.dumps(with_prev_result(case.netconf, result)).encode(),
                env=plugins.environment(verb, **case.attachment),
                expect=None,
                timeout=60,
            )
            after(world, f"{verb}: {done.stdout.decode()} {done.stderr.decode()}")
            result = json.loads(done.stdout) if verb == "ADD" and done.returncode == 0 and done.stdout else result
            steps.append(look(world, verb, done))
    return steps


def _no_refusal(world: World, call: str) -> None:
    require_no_refusal(world.outside_path(LOG), call)


@pytest.mark.usefixtures("plugin_dir")
@pytest.mark.parametrize("name", CASES)
def test_a_confined_reference_plugin_does_what_it_does_as_root(name: str) -> None:
    case = CASES[name]
    plugin = case.plugin or case.netconf["type"]
    assert load.load_profile(plugin).level.value == "mediated"
    expected = _sequence(case, (), lambda _world, _call: None)
    found = _sequence(case, (*EXEC, "--log", LOG, "--"), _no_refusal)
    if case.adds is not None:
        assert (expected[0].returncode == 0) == case.adds, expected[0]
    for step, wanted in zip(found, expected, strict=True):
        assert step == wanted, step.verb


@pytest.mark.usefixtures("plugin_dir")
@pytest.mark.parametrize("name", ["bridge-masquerade-hairpin-mac-mtu", "ptp", "loopback"])
def test_a_plugin_that_nobody_has_profiled_works_with_the_generic_profile(name: str) -> None:
    case = CASES[name]
    expected = _sequence(case, (), lambda _world, _call: None)
    found = _sequence(case, (*EXEC, "--profile", "generic", "--"), lambda _world, _call: None)
    for step, wanted in zip(found, expected, strict=True):
        assert step == wanted, step.verb


@pytest.mark.usefixtures("plugin_dir")
@pytest.mark.parametrize("prefix", [(), (*EXEC, "--log", LOG, "--")], ids=["root", "confined"])
def test_portmap_ends_connections_of_its_port_and_no_others(world: World, prefix: tuple[str, ...]) -> None:
    mappings = {"portMappings": MAPPINGS[1:2]}
    world.netns("blue")
    plugins = Plugins(world, REFERENCE_DIR)
    result = plugins.add(netconf("ptp", ipam=HOST_LOCAL))
    for command in ("table ip t", "chain ip t c { type filter hook output priority 0; }", "rule ip t c ct state new"):
        world.run(["nft", f"add {command}"])  # a rule that looks at connections has the kernel track them
    for port in (5353, 5354):
        send = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('10.9.0.1', {port}))"
        world.run([sys.executable, "-c", send])
    assert _connections(world) == {5353, 5354}

    done = world.run(
        [*prefix, f"{REFERENCE_DIR}/portmap"],
        stdin=json.dumps(with_prev_result(netconf("portmap", snat=False, runtimeConfig=mappings), result)).encode(),
        env=plugins.environment("ADD"),
        expect=None,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout
    _no_refusal(world, "ADD")
    assert _connections(world) == {5354}


def _connections(world: World) -> set[int]:
    """The ports that tracked connections were opened to: each line has them first, and those of the answer behind."""
    lines = world.run(["cat", "/proc/self/net/nf_conntrack"]).stdout.decode().splitlines()
    return {int(found[1]) for line in lines if (found := re.search(r"dport=(\d+)", line))}

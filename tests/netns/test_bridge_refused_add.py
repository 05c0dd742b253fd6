"""An ADD that is refused takes nothing away from the attachment that was there before.

world ("host")                 blue
  cnisandbox0 ── veth… ═══════ eth0    of container c1, network "first"
"""

from typing import Any

import pytest

from tests.interop.plugin_calls import Plugins
from tests.world import World


def _netconf(network: str, subnet: str) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    return {"cniVersion": "1.0.0", "name": network, "type": "bridge", "bridge": f"br-{network}", "ipam": ipam}


FIRST = _netconf("first", "10.31.0.0/24")
SECOND = _netconf("second", "10.32.0.0/24")
LAYER2 = {"cniVersion": "1.0.0", "name": "first", "type": "bridge", "bridge": "br-first"}


def _seen(world: World) -> tuple[set[str], list[str], str]:
    addresses = world.run(["sh", "-c", "cd /var/lib/cni/networks && ls -1 first second 2>/dev/null; true"]).stdout
    here = world.run(["ip", "-4", "-o", "address", "show", "dev", "eth0"], netns="blue").stdout
    return world.ifnames(), [line for line in addresses.decode().splitlines() if line.startswith("10.")], here.decode()


@pytest.mark.parametrize(
    ("netconf", "code"), [(FIRST, 101), (SECOND, 101)], ids=["same-attachment", "other-network-same-ifname"]
)
def test_refused_add_leaves_the_attachment_that_was_there(
    world: World, plugin_dir: str, netconf: dict[str, Any], code: int
) -> None:
    world.netns("blue")
    plugins = Plugins(world, plugin_dir)
    plugins.call("ADD", FIRST)
    before = _seen(world)

    answer = plugins.call("ADD", netconf, expect=1)

    assert answer.document["code"] == code
    assert _seen(world) == before


def test_refused_add_without_addresses_leaves_the_link_that_was_there(world: World, plugin_dir: str) -> None:
    world.netns("blue")
    plugins = Plugins(world, plugin_dir)
    plugins.call("ADD", LAYER2)
    before = _seen(world)

    plugins.call("ADD", LAYER2, expect=1)

    assert _seen(world) == before


def test_refused_add_leaves_what_an_executed_address_plugin_gave(world: World, plugin_dir: str) -> None:
    world.netns("blue")
    plugins = Plugins(world, plugin_dir, path="/usr/lib/cni")
    plugins.call("ADD", FIRST)
    before = _seen(world)

    plugins.call("ADD", FIRST, expect=1)

    assert _seen(world) == before

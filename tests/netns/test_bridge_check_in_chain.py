"""CHECK of a bridge in a list with other plugins: what they added to prevResult is not the bridge's."""

from tests.interop.plugin_calls import Plugins
from tests.world import World

NETCONF = {
    "cniVersion": "1.1.0",
    "name": "chained",
    "type": "bridge",
    "bridge": "br-chained",
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.33.0.0/24"}]]},
}


def test_check_ignores_addresses_of_another_plugins_interface(world: World, plugin_dir: str) -> None:
    world.netns("blue")
    plugins = Plugins(world, plugin_dir)
    result = plugins.call("ADD", NETCONF).document
    result["interfaces"].append({"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/blue"})
    result["ips"].append({"address": "10.99.0.5/24", "interface": 3})

    # host-local lists what it gave; the address of net1 is none of its business either.
    plugins.call("CHECK", {**NETCONF, "prevResult": result})


def test_status_says_not_available_when_the_name_is_no_bridges(world: World, plugin_dir: str) -> None:
    world.run(["ip", "link", "add", "br-chained", "type", "veth", "peer", "name", "other"])

    error = Plugins(world, plugin_dir).call("STATUS", NETCONF, expect=1).document

    assert error["code"] == 50

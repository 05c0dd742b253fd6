"""The loopback plugin, in each version of the protocol."""

from typing import Any

import pytest

from tests.interop.differential_cases import BRIDGE
from tests.interop.observe import differences, observe
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins
from tests.world import World

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    world.netns("blue")
    return Plugins(world, plugin_dir)


def netconf(version: str = "1.1.0") -> JsonObject:
    return {"cniVersion": version, "name": "cni-loopback", "type": "loopback"}


def is_up(world: World) -> bool:
    return "UP" in world.link("lo", "blue")["flags"]


def expected(version: str) -> Any:
    """The result, in the shape of the version."""
    if version < "0.3.0":
        return {"cniVersion": version, "ip4": {"ip": "127.0.0.1/8"}, "ip6": {"ip": "::1/128"}}
    ips = [("4", "127.0.0.1/8"), ("6", "::1/128")]
    families = [{"version": family} if version < "1.0.0" else {} for family, _ in ips]
    return {
        "cniVersion": version,
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/run/netns/blue"}],
        "ips": [{**extra, "address": ip, "interface": 0} for extra, (_, ip) in zip(families, ips, strict=True)],
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_lo_is_up_after_add_and_down_after_delete(plugins: Plugins, version: str) -> None:
    world = plugins.world
    result = plugins.add(netconf(version), ifname="lo")
    assert {key: value for key, value in result.items() if key != "dns" or value} == expected(version)
    assert is_up(world)
    world.run(["ping", "-c1", "-W1", "127.0.0.1"], netns="blue")
    if version >= "0.4.0":
        plugins.check(netconf(version), result, ifname="lo")
    for _ in range(2):
        plugins.delete(netconf(version), ifname="lo")
        assert not is_up(world)


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0"])
def test_kernel_is_left_as_by_the_reference(plugins: Plugins, version: str) -> None:
    world = plugins.world
    world.netns("red")
    Plugins(world, REFERENCE_DIR).add(netconf(version), netns="red", ifname="lo")
    plugins.add(netconf(version), ifname="lo")
    assert differences(observe(world, "red").state["container"], observe(world, "blue").state["container"]) == {}


def test_add_twice_is_as_good_as_once(plugins: Plugins) -> None:
    assert plugins.add(netconf(), ifname="lo") == plugins.add(netconf(), ifname="lo")


def test_check_finds_that_lo_is_down(plugins: Plugins) -> None:
    result = plugins.add(netconf(), ifname="lo")
    plugins.world.run(["ip", "link", "set", "lo", "down"], netns="blue")
    error = plugins.fail("CHECK", {**netconf(), "prevResult": result}, ifname="lo")
    assert (error["code"], "lo" in error["msg"]) == (105, True)


@pytest.mark.parametrize("path", ["", "/run/netns/none", "/run/netns/file"])
def test_delete_is_silent_when_the_netns_is_gone(plugins: Plugins, path: str) -> None:
    plugins.world.outside_path("/run/netns/file").touch()
    answer = plugins.call("DEL", netconf(), ifname="lo", netns=path)
    assert (answer.document, answer.stderr) == (None, "")


@pytest.mark.parametrize("version", ["0.3.1", "1.0.0", "1.1.0"])
def test_result_of_the_plugin_before_is_passed_on(plugins: Plugins, version: str) -> None:
    plugins.world.netns("red")
    before = plugins.call("ADD", {**BRIDGE, "cniVersion": version}, netns="red").document
    assert plugins.add({**netconf(version), "prevResult": before}, ifname="eth0") == before
    assert is_up(plugins.world)


def test_address_that_is_not_local_is_refused(plugins: Plugins) -> None:
    plugins.world.run(["ip", "addr", "add", "10.9.0.1/32", "dev", "lo"], netns="blue")
    error = plugins.fail("ADD", netconf(), ifname="lo")
    assert "10.9.0.1/32" in error["msg"]


def test_younger_verbs(plugins: Plugins) -> None:
    for verb in ("GC", "STATUS"):
        plugins.call(verb, {**netconf(), "cni.dev/valid-attachments": []})
        assert plugins.fail(verb, netconf("1.0.0"))["code"] == 1


def test_keys_of_other_plugins_and_cni_args_are_ignored(plugins: Plugins) -> None:
    plugins.add({**netconf("0.3.1"), "ipam": {"type": "x"}, "bridge": 7}, ifname="lo", args="A=b;MAC=nonsense")
    assert is_up(plugins.world)

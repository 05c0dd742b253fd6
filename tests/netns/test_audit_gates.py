"""The audit log of our own plugins: at mediated their gates write down what they judge."""

import json
from typing import Any

import pytest

from tests.interop.plugin_calls import JsonObject, Plugins
from tests.world import World

LOG = "/run/audit.log"
NETCONF: JsonObject = {
    "cniVersion": "1.1.0",
    "name": "lab",
    "type": "bridge",
    "bridge": "lab0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}


@pytest.fixture
def plugins(world: World, plugin_dir: str) -> Plugins:
    world.netns("blue")
    return Plugins(world, plugin_dir)


def add(plugins: Plugins, monkeypatch: pytest.MonkeyPatch, level: str, netconf: JsonObject = NETCONF) -> None:
    monkeypatch.setenv("CNISANDBOX_LEVEL", level)
    monkeypatch.setenv("CNISANDBOX_LOG", LOG)
    plugins.add(netconf)


def test_both_gates_write_what_they_judge(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    add(plugins, monkeypatch, "mediated")
    records: list[dict[str, Any]] = [json.loads(line) for line in plugins.world.read(LOG).splitlines()]
    assert {(record["plugin"], record["container"], record["ifname"]) for record in records} == {
        ("bridge", "c1", "eth0")
    }
    assert [record for record in records if "refused" in record] == []
    found = {(record["netns"], record["message"]["type"]) for record in records}
    assert found >= {
        ("host", "RTM_NEWLINK"),
        ("host", "RTM_NEWADDR"),
        ("host", "sysctl"),
        ("host", "nf_tables"),
        ("container", "RTM_NEWADDR"),
    }
    assert plugins.world.outside_path(LOG).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("level", ["hardened", "netadmin"])
def test_a_worker_that_runs_code_of_a_plugin_has_no_log(
    plugins: Plugins, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    """It judges nothing, and what it wrote would prove nothing."""
    add(plugins, monkeypatch, level)
    assert not plugins.world.outside_path(LOG).exists()


def test_log_that_cannot_be_opened_ends_the_call(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNISANDBOX_LEVEL", "mediated")
    monkeypatch.setenv("CNISANDBOX_LOG", "/run/none/audit.log")
    error = plugins.fail("ADD", NETCONF)
    assert error["msg"].startswith("open audit log '/run/none/audit.log'")
    assert plugins.world.ifnames("blue") == {"lo"}

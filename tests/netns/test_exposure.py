"""What `audit plugin` measures, held against plugins whose behaviour is known: planted ones, the reference's, and ours.

test ── measure ── station (namespaces of its own) ── planted plugin: reads its netconf as root, then drops
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.errors import CniError, EnvironmentFailure, InvalidConfig
from cnisandbox.laboratory.exposure import tracing
from cnisandbox.laboratory.exposure.measure import measure
from tests.world import World, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="measuring needs root")

NETCONF = {"cniVersion": "1.0.0", "name": "planted", "type": "planted"}
BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"},
}
# Where systemd runs, and where somebody has traced before, it is there already.
MOUNT_TRACEFS = f"{{ mountpoint -q {tracing.MOUNT_POINT} || mount -t tracefs tracefs {tracing.MOUNT_POINT}; }}"
REFERENCE_BRIDGE = "/usr/lib/cni/bridge"
RESULT = '{"cniVersion": "1.0.0", "interfaces": [], "ips": []}'
PLANTED = f"""#!/usr/bin/python3 -IS
import os
netconf = os.read(0, 100000)
verb = os.environ["CNI_COMMAND"]
if verb == "ADD":
    with open("/var/lib/cni/kept", "w") as file:
        file.write("12345")
    os.chown("/var/lib/cni/kept", 65534, 65534)  # CAP_CHOWN
    try:
        os.nice(-5)  # CAP_SYS_NICE, which it can do without
    except OSError:
        pass
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
with open("/var/lib/cni/kept") as file:
    file.read()
if verb == "ADD":
    print('{RESULT}')
"""
WAITING = """#!/bin/sh
exec sleep 600
"""
FAILING = """#!/bin/sh
echo '{"cniVersion": "1.0.0", "code": 100, "msg": "the moon is full"}'
exit 1
"""


def write_plugin(directory: Path, name: str, content: str) -> str:
    path = directory / name
    path.write_text(content)
    path.chmod(0o755)
    return str(path)


def instances() -> list[str]:
    script = f"{MOUNT_TRACEFS} && ls {tracing.MOUNT_POINT}/instances"
    listed = subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, capture_output=True, timeout=10)
    return [name for name in listed.stdout.decode().split() if name.startswith("cnisandbox-")]


def machine() -> tuple[bytes, list[str], list[str]]:
    links = subprocess.run(["ip", "-json", "link"], check=True, capture_output=True, timeout=10).stdout
    names = sorted(link["ifname"] for link in json.loads(links))
    directory = "/var/lib/cni"
    return json.dumps(names).encode(), sorted(os.listdir("/run")), sorted(os.listdir(directory))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = write_plugin(tmp_path_factory.mktemp("bin"), "planted", PLANTED)
    return measure(path, NETCONF, "root", rounds=2, has_details=True)


@pytest.fixture(scope="module")
def reference() -> Iterator[dict[str, Any]]:
    before = machine()
    yield measure(REFERENCE_BRIDGE, BRIDGE, "root", rounds=1)
    assert machine() == before


@pytest.fixture(scope="module")
def hardened() -> dict[str, Any]:
    return measure("bridge", BRIDGE, "hardened", ("ADD",), rounds=1, has_details=True)


@pytest.fixture(scope="module")
def under_runner() -> dict[str, Any]:
    return measure(REFERENCE_BRIDGE, BRIDGE, "runner", ("ADD",), rounds=1)


def test_a_capability_that_is_used_is_not_always_needed(planted: dict[str, Any]) -> None:
    sets = planted["verbs"]["ADD"]["capabilities"]
    assert {"CAP_CHOWN", "CAP_SYS_NICE", "CAP_SETUID", "CAP_SETGID"} <= sets["exercised"].keys()
    assert sets["needed"] == ["CAP_CHOWN", "CAP_SETGID", "CAP_SETUID"]
    assert sets["ablation"]["CAP_SYS_NICE"] == {"works": True, "says": ""}
    assert "PermissionError" in sets["ablation"]["CAP_CHOWN"]["says"]
    assert planted["verbs"]["DEL"]["capabilities"]["needed"] == ["CAP_SETGID", "CAP_SETUID"]


def test_input_counts_for_what_is_held_when_it_is_read(planted: dict[str, Any]) -> None:
    add, delete = planted["verbs"]["ADD"], planted["verbs"]["DEL"]
    netconf = len(json.dumps({"cniVersion": "1.0.0", "name": "planted", "type": "planted"}))
    assert add["untrusted_bytes"]["CAP_SYS_ADMIN"] == netconf
    assert add["details"]["untrusted_sources"]["CAP_SYS_ADMIN"] == {"standard input": netconf}
    # DEL is given the result as well; its state it reads when it holds nothing any more
    assert delete["details"]["untrusted_sources"]["CAP_SYS_ADMIN"].keys() == {"standard input"}
    assert delete["untrusted_bytes"]["CAP_SYS_ADMIN"] > netconf


def test_a_drop_shows_with_its_time(planted: dict[str, Any]) -> None:
    (process,) = planted["verbs"]["ADD"]["processes"]
    first, *_, last = process["credentials"]
    assert (first["event"], first["uid"], first["at_ms"]) == ("exec", 0, 0)
    assert (last["event"], last["uid"], last["effective"]) == ("setresuid", 65534, [])
    assert 0 < last["at_ms"] < process["lived_ms"][1]
    held = planted["verbs"]["ADD"]["held_ms"]["CAP_SYS_ADMIN"]
    assert 0 < held["share"] < 1
    assert 0 < held["q1"] <= held["median"] <= held["q3"]


def test_files_are_listed(planted: dict[str, Any]) -> None:
    files = planted["verbs"]["ADD"]["files"]
    assert files["written"] == ["/var/lib/cni/kept"]
    assert {"/var/lib/cni/kept", "/etc/ld.so.cache"} <= set(files["opened"])


def test_each_round_is_reported(planted: dict[str, Any]) -> None:
    assert planted["rounds"] == 2
    for verb in ("ADD", "CHECK", "DEL"):
        assert len(planted["verbs"][verb]["duration_ms"]["values"]) == 2
        assert any(text.startswith(f"{verb}: the time that tracing takes") for text in planted["cannot_see"])


def test_the_reference_bridge_holds_everything_and_needs_two(reference: dict[str, Any]) -> None:
    add = reference["verbs"]["ADD"]
    assert len(add["capabilities"]["held"]) > 30
    assert add["capabilities"]["needed"] == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    assert {each["share"] for each in add["held_ms"].values()} == {1.0}
    assert add["syscalls"]["allowed"] is None
    assert {"setns", "openat", "execve"} <= set(add["syscalls"]["used"])
    assert "bridge: the path /run/netns/container of the container's netns" in add["netns_handles"]
    roles = [(process["role"], process["name"], process["parent"]) for process in add["processes"]]
    assert roles == [("plugin", "bridge", None), ("delegate", "host-local", 0)]


def test_our_bridge_reads_nothing_while_it_holds_more_than_net_admin(hardened: dict[str, Any]) -> None:
    add = hardened["verbs"]["ADD"]
    assert {name for name, count in add["untrusted_bytes"].items() if count} == {"CAP_NET_ADMIN"}
    assert add["details"]["untrusted_sources"]["CAP_NET_ADMIN"].keys() == {"other processes"}
    assert 0 < add["held_ms"]["CAP_SYS_ADMIN"]["share"] < add["held_ms"]["CAP_NET_ADMIN"]["share"]
    last = {process["role"]: process["credentials"][-1]["effective"] for process in add["processes"]}
    assert last["engine"] == last["delegate worker"] == []
    assert last["host worker"] == last["container worker"] == ["CAP_NET_ADMIN"]
    assert 0 < add["syscalls"]["allowed"] < add["syscalls"]["total"]


def test_under_the_runner_the_plugin_holds_nothing(under_runner: dict[str, Any]) -> None:
    add = under_runner["verbs"]["ADD"]
    (plugin,) = (process for process in add["processes"] if process["role"] == "plugin")
    at_exec = next(step for step in plugin["credentials"] if step["event"] == "exec")
    assert at_exec["effective"] == []
    assert at_exec["bounding_count"] == 0
    assert {name for name, count in add["untrusted_bytes"].items() if count} == {"CAP_NET_ADMIN"}
    assert 0 < add["syscalls"]["allowed"] < add["syscalls"]["total"]


def test_plugins_before_it_in_a_list_run_unmeasured() -> None:
    tuning = {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}}
    network = {"cniVersion": "1.0.0", "name": "net", "plugins": [{**BRIDGE}, tuning]}
    found = measure("/usr/lib/cni/tuning", network, "root", ("ADD",), rounds=1)
    (process,) = found["verbs"]["ADD"]["processes"]
    assert process["program"] == "/usr/lib/cni/tuning"
    assert found["verbs"]["ADD"]["files"]["written"] == ["/proc/sys/net/core/somaxconn"]


def test_nothing_of_the_trace_is_left_when_a_call_fails(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, "failing", FAILING)
    with pytest.raises(EnvironmentFailure, match="the moon is full"):
        measure(path, NETCONF, "root", rounds=1)
    assert f"cnisandbox-{os.getpid()}" not in instances()


def test_nothing_is_left_when_the_measuring_is_killed(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, "waiting", WAITING)
    script = "import sys; from cnisandbox.laboratory.exposure.measure import measure\nmeasure(sys.argv[1], {}, 'root')"
    child = subprocess.Popen([sys.executable, "-c", script, path])

    def sleeping() -> list[str]:
        listed = subprocess.run(["pgrep", "-f", "^sleep 600$"], check=False, capture_output=True, timeout=10)
        return listed.stdout.decode().split()

    wait_until(sleeping, timeout=20)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=10)
    wait_until(lambda: not sleeping(), timeout=10)
    # whoever measures next takes away what the killed one could not
    write_plugin(tmp_path, "failing", FAILING)
    with pytest.raises(EnvironmentFailure):
        measure(str(tmp_path / "failing"), NETCONF, "root", rounds=1)
    deadline = time.monotonic() + 10
    while any(not os.path.exists(f"/proc/{name.rpartition('-')[2]}") for name in instances()):
        assert time.monotonic() < deadline


@pytest.mark.parametrize("after_s", [0.5, 1.0, 1.5])
def test_an_interrupt_leaves_no_process_and_no_instance(tmp_path: Path, after_s: float) -> None:
    script = (
        "import json, sys; from cnisandbox.laboratory.exposure.measure import measure\n"
        "measure(sys.argv[1], json.loads(sys.argv[2]), 'root', rounds=50)"
    )
    before = set(instances())
    child = subprocess.Popen(
        [sys.executable, "-c", script, REFERENCE_BRIDGE, json.dumps(BRIDGE)], stderr=subprocess.DEVNULL
    )
    time.sleep(after_s)  # what is interrupted is another step each time
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) != 0

    def left() -> list[str]:
        listed = subprocess.run(
            ["pgrep", "-f", "exposure.measure import measure"], check=False, capture_output=True, timeout=10
        )
        return listed.stdout.decode().split()

    wait_until(lambda: not left(), timeout=10)
    # others may measure at the same time; theirs have owners
    mine = [name for name in set(instances()) - before if not os.path.exists(f"/proc/{name.rpartition('-')[2]}")]
    assert mine == []


@pytest.mark.parametrize(
    ("plugin", "column", "says"),
    [
        (REFERENCE_BRIDGE, "hardened", "not a plugin of cnisandbox"),
        ("/nowhere/bridge", "root", "there is no such file"),
        ("nothing", "root", "there is none of that name"),
        (REFERENCE_BRIDGE, "moon", "not one of root"),
    ],
)
def test_what_does_not_go_together_is_refused(plugin: str, column: str, says: str) -> None:
    with pytest.raises(CniError, match=says):
        measure(plugin, BRIDGE, column, rounds=1)


def test_a_version_without_check_has_none(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, "planted", PLANTED)
    with pytest.raises(InvalidConfig, match="none of these verbs"):
        measure(path, {**NETCONF, "cniVersion": "0.3.1"}, "root", ("CHECK",), rounds=1)


def test_the_command_shows_a_table_and_the_document(tmp_path: Path) -> None:
    path = write_plugin(tmp_path, "planted", PLANTED)
    (tmp_path / "net.conf").write_text(json.dumps(NETCONF))
    script = (
        "import sys; from cnisandbox.cli import subcommand; from cnisandbox.cli.main import Command\n"
        "sys.exit(subcommand.run([Command('plugin', 'cnisandbox.cli.audit_plugin', '')], sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "plugin", path, "--netconf", str(tmp_path / "net.conf")]
    command += ["--verb", "ADD", "--rounds", "1"]
    shown = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode()
    assert "CAP_CHOWN" in shown
    assert "What this cannot see" in shown
    printed = subprocess.run([*command, "--json"], check=True, capture_output=True, timeout=60).stdout
    assert json.loads(printed)["verbs"]["ADD"]["capabilities"]["needed"] == ["CAP_CHOWN", "CAP_SETGID", "CAP_SETUID"]


def test_tracefs_may_be_mounted_already(world: World) -> None:
    world.run(["sh", "-c", MOUNT_TRACEFS])
    world.call(tracing.sweep, os.getpid())

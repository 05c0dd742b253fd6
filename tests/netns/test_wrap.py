"""A directory of reference plugins is wrapped by the command, and unwrapped again; in between, they do the same."""

import filecmp
import json
import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.boundary.sandbox import SERVICE_USER
from tests.interop.plugin_calls import REFERENCE_DIR, Plugins
from tests.interop.wrapped import cnisandbox, reference_plugins, require_unprivileged, watched
from tests.world import World, wait_until

NETCONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "wrapped",
    "type": "bridge",
    "bridge": "cnitest0",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.87.0.0/24"}], [{"subnet": "fd87::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    },
}
IPTABLES = os.path.realpath("/usr/sbin/iptables")
RUNNER = Path(__file__).parents[2] / "docs" / "runner.md"


@pytest.fixture(scope="module")
def wrapped() -> Iterator[str]:
    with reference_plugins() as directory:
        assert cnisandbox("wrap", "--bin-dir", directory).count("\nwrapped ") == len(os.listdir(REFERENCE_DIR))
        yield directory
        cnisandbox("unwrap", "--bin-dir", directory)
        assert filecmp.dircmp(directory, REFERENCE_DIR).diff_files == []
        assert sorted(os.listdir(directory)) == sorted(os.listdir(REFERENCE_DIR))


@pytest.fixture
def blue(world: World) -> World:
    world.netns("blue")
    return world


def uid() -> int:
    return pwd.getpwnam(SERVICE_USER).pw_uid


def without_chance(value: Any) -> Any:
    """Leave out of a result what is another each time: MAC addresses and names of veths."""
    text = json.dumps(value)
    for interface in value["interfaces"]:
        text = text.replace(interface["mac"], "MAC")
        if interface["name"].startswith("veth"):
            text = text.replace(interface["name"], "veth")
    return json.loads(text)


def test_plugin_behind_a_shim_gives_the_result_that_it_gives_itself(blue: World, wrapped: str) -> None:
    answers = []
    for directory in (REFERENCE_DIR, wrapped):
        plugins = Plugins(blue, directory)
        result = plugins.add(NETCONF)
        plugins.check(NETCONF, result)
        assert blue.link("eth0", netns="blue")["operstate"] == "UP"
        for _ in range(2):
            plugins.delete(NETCONF, result)
        assert blue.ifnames("blue") == {"lo"}
        blue.run(["ip", "link", "delete", "cnitest0"])
        blue.run(["rm", "-r", "/var/lib/cni/networks/wrapped"])
        answers.append(without_chance(result))
    assert answers[0] == answers[1]


def test_every_program_of_a_call_runs_without_any_privilege(blue: World, wrapped: str) -> None:
    """The delegated host-local and the iptables below bridge as well as bridge itself."""
    plugins = Plugins(blue, wrapped)
    programs = [f"{wrapped}/.cnisandbox/{name}" for name in ("bridge", "host-local")]
    with watched(*programs, shared=[IPTABLES]) as watch:
        plugins.delete(NETCONF, plugins.add(NETCONF))
    require_unprivileged(watch, uid())
    seen = {(each.program, each.verb) for each in watch.executions}
    assert seen >= {(name, verb) for name in ("bridge", "host-local") for verb in ("ADD", "DEL")}
    assert os.path.basename(IPTABLES) in {name for name, _ in seen}


def test_the_watch_sees_a_privilege_where_there_is_one(blue: World) -> None:
    """The control: the same plugin, not wrapped."""
    with reference_plugins() as directory, watched(f"{directory}/host-local") as watch:
        Plugins(blue, directory).call("VERSION", NETCONF, plugin="host-local")
    (seen,) = watch.executions
    assert (seen.program, seen.verb, seen.uids, seen.no_new_privs) == ("host-local", "VERSION", (0,) * 4, 0)
    assert seen.capabilities["CapEff"] != 0


@pytest.mark.parametrize("verb", ["VERSION", "ADD"])
def test_answers_are_the_plugins_own(blue: World, wrapped: str, verb: str) -> None:
    netconf = {**NETCONF, "mtu": "large"}
    answers = [Plugins(blue, place).call(verb, netconf, expect=None) for place in (REFERENCE_DIR, wrapped)]
    assert answers[0] == answers[1]
    assert answers[0].returncode == (0 if verb == "VERSION" else 1)


def test_audit_log_has_what_the_plugin_did(blue: World, wrapped: str) -> None:
    plugins = Plugins(blue, wrapped)
    variables = {"CNISANDBOX_LOG": "/run/audit.log", "CNISANDBOX_ATTEST": "/run/attestations"}
    result = plugins.call("ADD", NETCONF, env=variables).document
    lines = [json.loads(line) for line in blue.read("/run/audit.log").splitlines()]
    assert {(line["plugin"], line["container"], line["ifname"]) for line in lines} == {("bridge", "c1", "eth0")}
    created = [line for line in lines if line["message"].get("type") == "RTM_NEWLINK"]
    assert "cnitest0" in str(created[0]["message"])
    assert all(line.get("permit") for line in created)
    roles = [json.loads(line).get("role") for line in blue.read("/run/attestations").splitlines()]
    assert "monitor" in roles
    plugins.delete(NETCONF, result)


@pytest.mark.parametrize("how", ["daemon", "by hand"])
def test_plugin_that_no_runtime_calls(world: World, wrapped: str, how: str) -> None:
    """`dhcp daemon` serves the node as it did before; a plugin that is started by hand only says its version."""
    if how == "by hand":
        done = world.run([f"{wrapped}/bridge"], expect=None)
        assert b"CNI bridge plugin" in done.stdout + done.stderr
        return
    daemon = world.popen([f"{wrapped}/dhcp", "daemon"], stdin=subprocess.DEVNULL)
    wait_until(lambda: world.outside_path("/run/cni/dhcp.sock").exists(), timeout=20)
    assert os.readlink(f"/proc/{daemon.pid}/exe") == f"{wrapped}/.cnisandbox/dhcp"
    assert Path(f"/proc/{daemon.pid}/cmdline").read_bytes() == f"{wrapped}/dhcp\0daemon\0".encode()
    daemon.terminate()
    daemon.wait(timeout=10)


def documented(example: str) -> list[list[str]]:
    """The commands of an example of docs/runner.md."""
    _, _, rest = RUNNER.read_text().partition(f"<!-- example: {example} -->\n```console\n")
    commands = [shlex.split(line) for line in rest.partition("```")[0].splitlines()]
    assert commands
    assert all(words[:2] == ["#", "cnisandbox"] for words in commands)
    return [words[2:] for words in commands]


def test_node_is_confined_by_the_commands_of_the_document(blue: World) -> None:
    with reference_plugins() as directory:

        def run(example: str) -> str:
            here = {"/opt/cni/bin": directory, "/var/log/cnisandbox.log": f"{directory}/log"}
            return "".join(cnisandbox(*(here.get(word, word) for word in words)) for words in documented(example))

        assert f"ok        {directory}  16 plugins are wrapped" in run("node")
        plugins = Plugins(blue, directory)
        plugins.delete(NETCONF, plugins.add(NETCONF))
        assert "RTM_NEWLINK" in cnisandbox("log", f"{directory}/log")
        assert run("undo").count("restored ") == len(os.listdir(REFERENCE_DIR))


class TestCommand:
    """What the command says, in a directory that each test may spoil."""

    @pytest.fixture
    def place(self) -> Iterator[str]:
        with reference_plugins() as directory:
            for name in os.listdir(directory):
                if name not in ("loopback", "host-local"):
                    os.unlink(f"{directory}/{name}")
            yield directory

    @staticmethod
    def rows(text: str) -> dict[str, str]:
        """The first word of each row, by the object of the row."""
        words = [line.split() for line in text.splitlines()]
        return {row[1]: row[0] for row in words if len(row) > 1}

    def test_each_plugin_is_wrapped_and_unwrapped(self, place: str) -> None:
        wrapped = self.rows(cnisandbox("wrap", "--bin-dir", place))
        assert (wrapped["loopback"], wrapped["host-local"]) == ("wrapped", "wrapped")
        assert self.rows(cnisandbox("wrap", "--bin-dir", place))["loopback"] == "unchanged"
        updated = self.rows(cnisandbox("wrap", "--bin-dir", place, "--level", "hardened", "loopback"))
        assert updated["loopback"] == "updated"
        assert "wrapped\n  ok        " + place in cnisandbox("doctor", "--bin-dir", place)
        assert self.rows(cnisandbox("unwrap", "--bin-dir", place)) == {
            "PLUGIN": "WHAT",
            "host-local": "restored",
            "loopback": "restored",
        }
        assert sorted(os.listdir(place)) == ["host-local", "loopback"]

    def test_upgrade_of_the_package_is_named_and_wrapped_anew(self, place: str) -> None:
        cnisandbox("wrap", "--bin-dir", place)
        Path(f"{place}/.new").write_bytes(Path(f"{REFERENCE_DIR}/loopback").read_bytes())
        Path(f"{place}/.new").chmod(0o755)
        os.rename(f"{place}/.new", f"{place}/loopback")
        assert "overwritten by something newer, which runs as root: loopback" in cnisandbox(
            "doctor", "--bin-dir", place
        )
        rows = self.rows(cnisandbox("wrap", "--bin-dir", place))
        assert (rows["loopback"], rows["host-local"]) == ("wrapped", "unchanged")
        assert f"ok        {place}" in cnisandbox("doctor", "--bin-dir", place)

    def test_plugin_that_does_not_answer_is_left_as_it_is(self, place: str) -> None:
        path = Path(f"{place}/helper")
        path.write_text("#!/bin/sh\necho no plugin >&2\nexit 2\n")
        path.chmod(0o755)
        text = cnisandbox("wrap", "--bin-dir", place)
        assert self.rows(text)["helper"] == "skipped"
        assert "try helper, confined: no plugin" in text
        assert path.read_text().startswith("#!/bin/sh")
        cnisandbox("wrap", "--bin-dir", place, "helper", expect=1)

    def test_plugin_without_a_profile_is_said_to_have_the_generic_one(self, place: str) -> None:
        os.rename(f"{place}/loopback", f"{place}/unknown")
        (row,) = [
            line for line in cnisandbox("wrap", "--bin-dir", place, "unknown").splitlines() if " unknown " in line
        ]
        assert row.split()[:3] == ["wrapped", "unknown", "generic"]
        assert row.endswith("no profile of its own, keeps CAP_NET_ADMIN")

    @pytest.mark.parametrize(
        ("level", "note"), [("mediated", ""), ("hardened", "keeps CAP_NET_ADMIN"), ("root", "keeps everything")]
    )
    def test_level_that_keeps_something_is_said_to(self, place: str, level: str, note: str) -> None:
        told = cnisandbox("wrap", "--bin-dir", place, "--level", level, "loopback").splitlines()
        (row,) = [line for line in told if line.split()[1] == "loopback"]
        assert row.split(None, 3)[3:] == ([note] if note else [])

    def test_working_directory_has_no_say_in_what_runs_as_root(self, place: str, tmp_path: Path) -> None:
        for name in ("cnisandbox", "json", "prctl"):
            (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
        program = Path(sys.executable).parent / "cnisandbox"
        subprocess.run([program, "wrap", "--bin-dir", place], cwd=tmp_path, check=True, capture_output=True, timeout=60)
        done = subprocess.run(
            [f"{place}/loopback"], cwd=tmp_path, env={"CNI_COMMAND": "VERSION"}, check=False, timeout=30
        )
        assert done.returncode == 0
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("option", ["--level=safe", "--profile=missing", "--profile=/missing.toml"])
    def test_option_that_would_break_every_call_is_refused(self, place: str, option: str) -> None:
        cnisandbox("wrap", "--bin-dir", place, option, "loopback", expect=1)
        assert sorted(os.listdir(place)) == ["host-local", "loopback"]

    def test_directory_that_others_may_write_is_refused(self, place: str) -> None:
        os.chmod(place, 0o777)
        cnisandbox("wrap", "--bin-dir", place, expect=1)
        assert sorted(os.listdir(place)) == ["host-local", "loopback"]

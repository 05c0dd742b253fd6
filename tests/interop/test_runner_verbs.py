"""`cnisandbox exec` as a runtime meets it: the six verbs, what passes through unchanged, and its own failures."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.observe import store
from tests.interop.plugin_calls import REFERENCE_DIR, Plugins, with_prev_result
from tests.world import Completed, World

EXEC = (sys.executable, "-m", "cnisandbox.cli.main", "exec")
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
NETCONF = {"cniVersion": "1.0.0", "name": "lab", "type": "bridge", "bridge": "lab0", "isGateway": True, "ipam": IPAM}
TUNING = {"cniVersion": "1.0.0", "name": "lab", "type": "tuning", "mtu": 1300}
PLUGINS = ("bridge", "ptp", "macvlan", "loopback", "host-local", "static", "portmap", "firewall", "tuning", "sbr")
# A plugin as somebody writes one in an afternoon: the shell, jq's work done by hand, and another plugin for addresses.
SCRIPT = """#!/bin/sh
netconf=$(cat)
case $CNI_COMMAND in
VERSION) echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}' ;;
ADD | DEL | CHECK) printf '%s' "$netconf" | /usr/lib/cni/host-local ;;
STATUS | GC) echo "asked for $CNI_COMMAND" >&2 ;;
esac
"""
TALKER = """#!/bin/sh
cat
echo "$1, $2" >&2
exit 42
"""


@pytest.fixture
def blue(world: World) -> World:
    world.netns("blue")
    return world


@pytest.fixture
def script(tmp_path: Path) -> str:
    return _program(tmp_path / "addresses", SCRIPT)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    file = tmp_path / "addresses.toml"
    file.write_text(
        'summary = "a script"\nlevel = "mediated"\ninclude = ["ipam"]\n'
        'programs = ["/bin/sh", "/bin/cat", "/usr/bin/dash", "/usr/bin/cat", "/usr/lib/cni/host-local"]\n'
    )
    file.chmod(0o644)
    return str(file)


def _program(path: Path, text: str) -> str:
    for directory in list(path.parents)[:-2]:
        directory.chmod(0o755)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def _run(world: World, prefix: tuple[str, ...], plugin: str, verb: str, netconf: Any, **changes: str) -> Completed:
    environment = {**Plugins(world, REFERENCE_DIR).environment(verb), **changes}
    return world.run([*prefix, plugin], stdin=json.dumps(netconf).encode(), env=environment, expect=None, timeout=60)


# --- verbs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugin", PLUGINS)
def test_version_is_what_root_is_told(blue: World, plugin: str) -> None:
    for netconf in ({"cniVersion": "1.0.0"}, {}):
        expected, found = (
            _run(blue, prefix, f"{REFERENCE_DIR}/{plugin}", "VERSION", netconf) for prefix in ((), (*EXEC, "--"))
        )
        assert expected.returncode == 0
        assert "1.0.0" in json.loads(expected.stdout)["supportedVersions"]
        assert found == expected


@pytest.mark.parametrize("verb", ["STATUS", "GC"])
def test_a_verb_that_the_plugin_does_not_know_yet_is_answered_by_the_plugin(blue: World, verb: str) -> None:
    netconf = {**NETCONF, "cniVersion": "1.1.0", "cni.dev/valid-attachments": []}
    changes = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}
    expected, found = (
        _run(blue, prefix, f"{REFERENCE_DIR}/bridge", verb, netconf, **changes) for prefix in ((), (*EXEC, "--"))
    )
    assert expected.returncode == 1  # 1.1.1 is older than the verbs
    assert found == expected


@pytest.mark.parametrize("verb", ["STATUS", "GC"])
@pytest.mark.parametrize("level", ["mediated", "hardened"])
def test_a_verb_that_the_plugin_knows_reaches_it(blue: World, script: str, profile: str, level: str, verb: str) -> None:
    netconf = {"cniVersion": "1.1.0", "name": "lab", "type": "addresses", "cni.dev/valid-attachments": []}
    prefix = (*EXEC, "--level", level, "--profile", profile if level == "mediated" else "generic", "--")
    done = _run(blue, prefix, script, verb, netconf, CNI_CONTAINERID="", CNI_NETNS="", CNI_IFNAME="")
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"", f"asked for {verb}\n")


@pytest.mark.parametrize("level", ["mediated", "hardened"])
def test_a_shell_script_delegates_to_another_plugin(blue: World, script: str, profile: str, level: str) -> None:
    chosen = profile if level == "mediated" else "generic"
    netconf = {"cniVersion": "1.0.0", "name": "lab", "type": "addresses", "ipam": IPAM}
    seen = []
    for prefix in ((), (*EXEC, "--level", level, "--profile", chosen, "--")):
        for verb in ("ADD", "CHECK", "DEL", "DEL"):
            done = _run(blue, prefix, script, verb, netconf)
            seen.append((done, store(blue)))
        blue.run(["rm", "-r", "/var/lib/cni/networks"])
    assert [done.returncode for done, _ in seen[:4]] == [0] * 4
    assert seen[4:] == seen[:4]


# --- what passes through ---------------------------------------------------------------------------------------------


def test_output_arguments_and_status_are_the_plugins(blue: World, tmp_path: Path) -> None:
    talker = _program(tmp_path / "talker", TALKER)
    prefix = (*EXEC, "--profile", "generic", "--", talker, "first word")
    done = _run(blue, prefix, "second", "ADD", {"any": ["thing", "\u00fc"]})
    assert (done.returncode, done.stdout) == (42, json.dumps({"any": ["thing", "\u00fc"]}).encode())
    assert done.stderr == b"first word, second\n"


@pytest.mark.parametrize("umask", ["000", "077"])
def test_the_umask_of_the_runtime_is_no_obstacle(blue: World, plugin_dir: str, umask: str) -> None:
    for program in ((*EXEC, "--", f"{REFERENCE_DIR}/bridge"), (f"{plugin_dir}/bridge",)):
        shell = ("sh", "-c", f'umask {umask}; exec "$@"', "sh", *program)
        for verb in ("ADD", "DEL"):
            done = _run(blue, shell[:-1], shell[-1], verb, NETCONF)
            assert done.returncode == 0, done
        assert blue.ifnames("blue") == {"lo"}


# --- state -----------------------------------------------------------------------------------------------------------


def _call(world: World, is_confined: bool, verb: str, netconf: Any) -> Any:
    prefix = (*EXEC, "--") if is_confined else ()
    done = _run(world, prefix, f"{REFERENCE_DIR}/{netconf['type']}", verb, netconf)
    assert done.returncode == 0, done
    return json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("is_confined", [False, True], ids=["root-first", "runner-first"])
def test_what_one_has_attached_the_other_detaches(blue: World, is_confined: bool) -> None:
    result = _call(blue, is_confined, "ADD", NETCONF)
    _call(blue, not is_confined, "CHECK", with_prev_result(NETCONF, result))
    tuned = _call(blue, is_confined, "ADD", with_prev_result(TUNING, result))
    assert blue.link("eth0", netns="blue")["mtu"] == 1300
    _call(blue, not is_confined, "CHECK", with_prev_result(TUNING, tuned))

    _call(blue, not is_confined, "DEL", with_prev_result(TUNING, tuned))
    assert blue.link("eth0", netns="blue")["mtu"] == 1500
    _call(blue, not is_confined, "DEL", with_prev_result(NETCONF, result))
    assert blue.ifnames("blue") == {"lo"}
    files = {path: entry for path, entry in store(blue).items() if not entry["mode"].startswith("d")}
    assert set(files) == {f"/var/lib/cni/networks/lab/{name}" for name in ("lock", "last_reserved_ip.0")}
    assert {entry["owner"] for entry in store(blue).values()} == {"0:0"}


def test_addresses_are_handed_out_in_turn_whoever_asks(blue: World) -> None:
    netconf = {"cniVersion": "1.0.0", "name": "lab", "type": "host-local", "ipam": IPAM}
    given = []
    for number, is_confined in enumerate((False, True, True, False)):
        prefix = (*EXEC, "--") if is_confined else ()
        done = _run(blue, prefix, f"{REFERENCE_DIR}/host-local", "ADD", netconf, CNI_CONTAINERID=f"c{number}")
        given.append(json.loads(done.stdout)["ips"][0]["address"])
    assert given == ["10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24", "10.9.0.5/24"]


# --- its own failures ------------------------------------------------------------------------------------------------


def _fail(world: World, *arguments: str, plugin: str = f"{REFERENCE_DIR}/bridge", **changes: str) -> Any:
    before = world.ifnames()
    done = _run(world, (*EXEC, *arguments, "--"), plugin, "ADD", NETCONF, **changes)
    assert done.returncode == 1
    assert done.stderr == b""
    assert world.ifnames() == before
    assert world.ifnames("blue") == {"lo"}
    return json.loads(done.stdout)


def test_a_missing_plugin_is_named(blue: World) -> None:
    error = _fail(blue, plugin="/usr/lib/cni/no-such-plugin")
    assert "/usr/lib/cni/no-such-plugin" in error["msg"]


@pytest.mark.parametrize("level", ["netadmin", "none"])
def test_a_level_that_there_is_not_is_named_with_those_that_there_are(blue: World, level: str) -> None:
    error = _fail(blue, "--level", level)
    text = error["msg"] + error.get("details", "")
    assert level in text
    assert "mediated" in text


def test_a_broken_profile_names_file_line_and_key(blue: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('summary = "one"\nlevel = "mediated"\n\n[[permit]]\nreason = "x"\nnetns = ["mars"]\n')
    broken.chmod(0o644)
    error = _fail(blue, "--profile", str(broken))
    text = error["msg"] + error.get("details", "")
    assert f"{broken}: line 6: permit[0].netns[0]" in text


@pytest.mark.parametrize("name", ["CNI_NETNS", "CNI_CONTAINERID", "CNI_IFNAME"])
def test_a_missing_variable_is_an_error_with_the_specifications_code(blue: World, name: str) -> None:
    error = _fail(blue, **{name: ""})
    assert error["code"] == 4
    assert name in error["msg"]


def test_a_plugin_without_any_variable_says_what_it_says_to_root(blue: World) -> None:
    plugin = f"{REFERENCE_DIR}/bridge"
    expected, found = (blue.run(["/usr/bin/env", "-i", *prefix, plugin], expect=None) for prefix in ((), (*EXEC, "--")))
    assert b"CNI protocol versions supported" in expected.stderr
    assert found == expected

"""`cnisandbox learn`: a plugin confined by the profile that was learned from it does what it does as root.

The reference plugins are held against the same cases, and with the same comparison, as the package's profiles are
(tests/interop/test_profile_plugins.py). A plugin of the test's own shows what is needed, what is not, and what cannot
be permitted; and that nothing of it reaches the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.profile import load
from tests.interop import test_profile_plugins as runner
from tests.interop.plugin_calls import REFERENCE_DIR

LEARN = (sys.executable, "-m", "cnisandbox.cli.main", "learn")

# Sets lo up, writes a setting and a file; reads what it has no use for; with "harm" it does what no profile permits.
PLUGIN = """\
#!/usr/bin/python3
import ctypes, json, os, socket, struct, sys

netconf = json.load(sys.stdin)
with open("/etc/hostname") as file:
    file.read()
verb, directory = os.environ["CNI_COMMAND"], "/var/lib/cni/lo-up"
container = os.open(os.environ["CNI_NETNS"], os.O_RDONLY)
libc = ctypes.CDLL(None)


def ask(kind, flags, body):
    rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    rtnetlink.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    rtnetlink.recv(1 << 16)


if netconf.get("harm"):
    with open("/etc/lo-up", "w") as file:
        file.write("was here")
    libc.unshare(0x40000000)
assert libc.setns(container, 0x40000000) == 0
ask(34, 0x301, bytes(12))  # RTM_GETRULE
if verb in ("ADD", "DEL"):
    ask(16, 0x5, struct.pack("=BxHiII", 0, 0, 1, verb == "ADD", 1))  # RTM_NEWLINK of lo: IFF_UP
if verb == "ADD":
    with open("/proc/sys/net/core/somaxconn", "w") as file:
        file.write("700")
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/{os.environ['CNI_CONTAINERID']}", "w") as file:
        file.write("up")
    print(json.dumps({"cniVersion": netconf["cniVersion"]}))
"""


@pytest.fixture
def plugin() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    with tempfile.TemporaryDirectory(prefix="cnisandbox-test-", dir="/usr/local/lib") as directory:
        path = Path(directory) / "lo-up"
        path.write_text(PLUGIN)
        path.chmod(0o755)
        path.parent.chmod(0o755)
        yield path


def learn(plugin: str, *arguments: str | Path, expect: int = 0) -> Any:
    """Have a profile learned; what is said about it."""
    command = [*LEARN, plugin, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=280)
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout)


def written(path: Path, netconf: Any) -> Path:
    path.write_text(json.dumps(netconf))
    return path


def chain_of(case: runner.Case) -> Any:
    """A case as a file for `learn`: the netconf, behind that of the plugin before it."""
    if case.before is None:
        return case.netconf
    return {"cniVersion": "1.0.0", "name": "lab", "plugins": [case.before, case.netconf]}


REFERENCE = {
    "bridge": ("bridge-layer2", "bridge-default-name", "bridge-masquerade-hairpin-mac-mtu", "bridge-macspoofchk"),
    "bridge-with-address": ("bridge-other-address",),
    "portmap": ("portmap", "portmap-without-snat", "portmap-on-ptp"),
    "tuning": ("tuning",),
}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("plugin_dir")
@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_plugin_does_with_the_learned_profile_what_it_does_as_root(name: str, tmp_path: Path) -> None:
    cases = [runner.CASES[case] for case in REFERENCE[name]]
    plugin = name.partition("-")[0]
    files = [written(tmp_path / f"{number}.json", chain_of(case)) for number, case in enumerate(cases)]
    setup = [word for command in cases[0].setup for word in ("--setup", command)]
    profile = tmp_path / f"{plugin}.toml"

    lesson = learn(f"{REFERENCE_DIR}/{plugin}", "--netconf", *files, *setup, "--out", profile, "--quick")

    assert lesson["works"]
    assert lesson["unspeakable"] == []
    assert lesson["refused_calls"] == []
    assert [item["what"] for item in lesson["learned_only"] if "/sys/kernel/mm" not in item["what"]] == []
    assert load.load_file(str(profile)).level.value == "mediated"
    for case in cases:
        expected = runner._sequence(case, (), lambda _world, _call: None)
        confined = (*runner.EXEC, "--profile", str(profile), "--log", runner.LOG, "--")
        found = runner._sequence(case, confined, runner._no_refusal)
        for step, wanted in zip(found, expected, strict=True):
            assert step == wanted, step.verb


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("plugin_dir")
def test_names_that_are_made_up_become_patterns_and_a_missing_key_its_default(tmp_path: Path) -> None:
    named = {
        "cniVersion": "1.0.0",
        "name": "lab",
        "type": "bridge",
        "bridge": "lab0",
        "ipMasq": True,
        "isGateway": True,
    }
    named["ipam"] = runner.HOST_LOCAL
    unnamed = {key: value for key, value in named.items() if key != "bridge"}
    files = [written(tmp_path / "named.json", named), written(tmp_path / "unnamed.json", unnamed)]
    out = tmp_path / "bridge.toml"

    learn(f"{REFERENCE_DIR}/bridge", "--netconf", *files, "--quick", "--out", out)

    profile = load.load_file(str(out))
    assert [tuple(variable) for variable in profile.variables] == [("bridge", "cni0")]
    assert {word for permit in profile.permits for word in permit.links} == {"attachment", "peer", "netconf:bridge"}
    assert {word for permit in profile.permits for word in permit.related} == {"name:veth????????", "netconf:bridge"}
    assert {chain for permit in profile.permits for chain in permit.jumps} == {"CNI-" + 24 * "?"}
    assert profile.state == ("/var/lib/cni/networks",)
    assert "cni:host-local" in profile.programs


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("plugin_dir")
@pytest.mark.parametrize("options", [(), ("--minimal",)], ids=["default", "minimal"])
def test_it_says_which_part_is_needed(plugin: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    netconf = written(tmp_path / "netconf.json", {"cniVersion": "1.0.0", "name": "lab", "type": "lo-up"})
    out = tmp_path / "lo-up.toml"

    lesson = learn(str(plugin), "--netconf", netconf, "--out", out, *options)

    needed = {part["text"]: part["is_needed"] for part in lesson["parts"]}
    expected = {
        "readable /etc/hostname": True,  # without it, it fails
        "RTM_GETRULE in container": False,
        "RTM_NEWLINK of loopback in container": True,
        "setting net/core/somaxconn (write) in container": True,
        "state directory /var/lib/cni/lo-up": True,
    }
    assert expected.items() <= needed.items()
    assert load.load_file(str(out)).readable == ("/etc/hostname",)
    messages = {message for permit in load.load_file(str(out)).permits for message in permit.messages}
    assert messages == ({"RTM_NEWLINK"} if options else {"RTM_NEWLINK", "RTM_GETRULE"})
    assert "learned_only" not in lesson
    assert not Path("/var/lib/cni/lo-up").exists()


@pytest.mark.usefixtures("plugin_dir")
def test_what_no_profile_can_permit_is_named_and_does_not_reach_the_machine(plugin: Path, tmp_path: Path) -> None:
    netconf = written(tmp_path / "netconf.json", {"cniVersion": "1.0.0", "type": "lo-up", "harm": True})

    lesson = learn(str(plugin), "--netconf", netconf, expect=1)

    assert not lesson["works"]
    assert lesson["unspeakable"] == [
        "unshare: enters a network namespace that is neither the host's nor the container's",
        "writes /etc/lo-up: it needs a directory of its own",
    ]
    assert lesson["refused_calls"] == ["unshare"]
    assert not Path("/etc/lo-up").exists()

"""Whatever is on standard input and in the environment: an error object, exit 1, nothing changed, never a traceback.

The calls are made from a process inside the world, two at a time, through the installed executable.
"""

import concurrent.futures
import contextlib
import json
import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnisandbox.bridge_config import parse_config
from cnisandbox.cni.netconf import parse_netconf
from cnisandbox.errors import CniError
from cnisandbox.ipam import config as ipam_config
from tests.interop.differential_cases import BRIDGE, DUAL
from tests.interop.observe import differences, observe
from tests.interop.plugin_calls import JsonObject, Plugins, changed
from tests.world import World

NETCONF = changed(BRIDGE, cniVersion="1.1.0", ipMasq=True, macspoofchk=True, ipam__ranges=DUAL)
THROUGH_THE_BINARY = 300
# what ours are, and the codes of the specification
CODES = {1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 101, 105, 999}

KEYS = [*NETCONF, "vlan", "vlanTrunk", "mtu", "dns", "runtimeConfig", "args", "prevResult", "hairpinMode", "sandbox"]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**63),
    st.floats(),
    st.text(),
    st.sampled_from(["", "1.0.0", "999.0.0", "10.0.0.0/8", "::/0", "../..", "/etc/passwd", "a" * 5000, "\0", "\ud800"]),
    st.lists(st.integers(), max_size=3),
    st.recursive(st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=20),
    st.dictionaries(
        st.sampled_from(["type", "ranges", "cni", "ips", "nameservers", "id", ""]), st.integers(), max_size=3
    ),
)


@st.composite
def broken_netconfs(draw: st.DrawFn) -> bytes:
    """Draw anything from noise to a netconf with one odd value."""
    kind = draw(st.sampled_from(["noise", "cut", "flipped", "odd", "odd-ipam", "value"]))
    whole = json.dumps(NETCONF).encode()
    if kind == "noise":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return whole[: draw(st.integers(0, len(whole) - 1))]
    if kind == "flipped":
        at = draw(st.integers(0, len(whole) - 1))
        return whole[:at] + draw(st.binary(min_size=1, max_size=3)) + whole[at + 1 :]
    if kind == "value":
        return json.dumps(draw(ODD)).encode()
    if kind == "odd":
        return json.dumps({**NETCONF, draw(st.sampled_from(KEYS)): draw(ODD)}).encode()
    keys = st.sampled_from(["type", "ranges", "routes", "resolvConf", "dataDir", "subnet", "rangeStart", "gateway"])
    return json.dumps({**NETCONF, "ipam": {**NETCONF["ipam"], draw(keys): draw(ODD)}}).encode()


def examples(strategy: st.SearchStrategy[bytes], count: int) -> list[bytes]:
    """Draw that many different examples."""
    drawn: dict[bytes, None] = {}

    @settings(max_examples=count * 2, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def draw(example: bytes) -> None:
        drawn[example] = None

    draw()
    return list(drawn)[:count]


def call_each(executable: str, variables: dict[str, str], inputs: list[bytes]) -> list[tuple[int, bytes, bytes]]:
    """ADD each, and DEL those that succeed; called inside the world.

    Returns:
        Status, standard output and standard error of each ADD.
    """

    def run(command: str, number: int) -> Any:
        env = {**os.environ, **variables, "CNI_COMMAND": command, "CNI_CONTAINERID": f"c{number}"}
        return subprocess.run([executable], check=False, input=inputs[number], env=env, capture_output=True, timeout=60)

    def add(number: int) -> tuple[int, bytes, bytes]:
        done = run("ADD", number)
        if done.returncode == 0:
            run("DEL", number)
        return done.returncode, done.stdout, done.stderr

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(add, range(len(inputs))))


def assert_answer(data: bytes, answer: tuple[int, bytes, bytes]) -> None:
    status, stdout, stderr = answer
    assert b"Traceback" not in stderr, data
    document = json.loads(stdout)
    if status == 0:
        assert "interfaces" in document or "ip4" in document or "ip6" in document, (data, document)
        return
    assert status == 1, (data, answer)
    assert {"cniVersion", "code", "msg"} <= document.keys(), data
    assert document["code"] in CODES, (data, document)
    assert "defect of cnisandbox" not in document.get("details", ""), (data, document)
    assert "left behind" not in document.get("details", ""), (data, document)


def test_three_hundred_inputs_give_errors_and_change_nothing(world: World, plugin_dir: str) -> None:
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    before = observe(world, "blue").state
    inputs = examples(broken_netconfs(), THROUGH_THE_BINARY)
    variables = plugins.environment("ADD")
    answers = world.call(call_each, f"{plugin_dir}/bridge", variables, inputs, timeout=110)
    for data, answer in zip(inputs, answers, strict=True):
        assert_answer(data, tuple(answer))
    assert sum(answer[0] == 1 for answer in answers) > THROUGH_THE_BINARY / 2
    after = observe(world, "blue").state
    # bridges of those that were right after all stay, with their addresses
    for part in ("container", "masquerade", "spoofcheck"):
        assert differences(before[part], after[part]) == {}
    assert not any(link["kind"] == "veth" for link in after["host"]["links"].values())
    assert not any(re.search(r"/networks/[^/]+/[\da-f]+[.:]", path) for path in after["store"])


@settings(max_examples=1500, database=None, deadline=None)
@given(broken_netconfs())
def test_parsing_gives_a_value_or_an_error_of_the_tree(data: bytes) -> None:
    """In this process, and therefore many more."""
    with contextlib.suppress(CniError):
        netconf = parse_netconf(data, "ADD")
        parse_config(netconf, "")
        ipam_config.parse_config(netconf, "")


ENVIRONMENTS: dict[str, tuple[dict[str, str], int]] = {
    "verb-unknown": ({"CNI_COMMAND": "FLY"}, 4),
    "verb-in-small-letters": ({"CNI_COMMAND": "add"}, 4),
    "nothing-given": ({"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}, 4),
    "no-netns": ({"CNI_NETNS": ""}, 4),
    "container-id-is-a-path": ({"CNI_CONTAINERID": "../../etc"}, 4),
    "container-id-begins-with-a-dot": ({"CNI_CONTAINERID": ".c"}, 4),
    "container-id-with-newline": ({"CNI_CONTAINERID": "c\neth0"}, 4),
    "ifname-too-long": ({"CNI_IFNAME": "e" * 16}, 4),
    "ifname-is-dots": ({"CNI_IFNAME": ".."}, 4),
    "ifname-is-a-path": ({"CNI_IFNAME": "a/b"}, 4),
    "ifname-with-blank": ({"CNI_IFNAME": "a b"}, 4),
    "ifname-with-tab": ({"CNI_IFNAME": "a\tb"}, 4),
    "ifname-is-a-template": ({"CNI_IFNAME": "eth%d"}, 4),
    "netns-missing": ({"CNI_NETNS": "/run/netns/none"}, 8),
    "netns-is-a-file": ({"CNI_NETNS": "/etc/passwd"}, 8),
    "netns-is-a-directory": ({"CNI_NETNS": "/run/netns"}, 8),
    "netns-is-a-fifo": ({"CNI_NETNS": "/run/fifo"}, 8),
    "netns-is-a-device": ({"CNI_NETNS": "/dev/zero"}, 8),
    "netns-is-another-namespace": ({"CNI_NETNS": "/proc/self/ns/mnt"}, 8),
    "netns-is-the-hosts": ({"CNI_NETNS": "/proc/self/ns/net"}, 8),
    "netns-is-relative": ({"CNI_NETNS": "run/netns/blue"}, 8),
    "args-malformed": ({"CNI_ARGS": "a"}, 4),
    "args-unknown": ({"CNI_ARGS": "COLOUR=blue"}, 4),
    "args-endless": ({"CNI_ARGS": "A=b;" * 30000}, 4),
    "args-with-bad-mac": ({"CNI_ARGS": "IgnoreUnknown=1;MAC=zz"}, 7),
    "args-with-bad-address": ({"CNI_ARGS": "IgnoreUnknown=1;IP=zz"}, 0),
    "path-empty": ({"CNI_PATH": ""}, 0),
    "path-odd": ({"CNI_PATH": ":::/none:relative:\udcff"}, 0),
    "level-unknown": ({"CNISANDBOX_LEVEL": "free"}, 4),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_gives_an_error_and_changes_nothing(world: World, plugin_dir: str, name: str) -> None:
    variables, code = ENVIRONMENTS[name]
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    world.run(["mkfifo", "/run/fifo"])
    before = observe(world, "blue").state
    answer = plugins.call("ADD", NETCONF, env=variables, expect=None, timeout=10)
    assert "Traceback" not in answer.stderr
    if not name.startswith("path-"):
        assert answer.returncode == 1
        assert "defect of cnisandbox" not in answer.document.get("details", "")
        assert code in (0, answer.document["code"]), answer.document
        changes = differences(before, observe(world, "blue").state)
        assert [path for path in changes if not path.startswith("store|")] == []


@pytest.mark.parametrize(
    "args",
    [
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=0123abcd;K8S_POD_UID=6f1d-9",
        "K8S_POD_UID=6f1d;K8S_POD_INFRA_CONTAINER_ID=0123abcd;K8S_POD_NAME=web-0;IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system",
        "IgnoreUnknown=true;K8S_POD_NAME=a",
        "K8S_POD_NAME=a;IgnoreUnknown=True",
    ],
)
def test_args_of_kubernetes_are_taken_in_any_order(world: World, plugin_dir: str, args: str) -> None:
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    result = plugins.add(NETCONF, args=args)
    plugins.call("CHECK", {**NETCONF, "prevResult": result}, args=args)
    plugins.call("DEL", {**NETCONF, "prevResult": result}, args=args)


def test_missing_variables_are_named_together(world: World, plugin_dir: str) -> None:
    empty = {"CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}
    answer = Plugins(world, plugin_dir).call("ADD", NETCONF, env=empty, expect=1)
    assert "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME" in answer.document["msg"]


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_without_a_command_it_says_what_it_is(world: World, plugin_dir: str, plugin: str) -> None:
    done = world.run([f"{plugin_dir}/{plugin}"], env={"CNI_COMMAND": ""})
    assert (done.stdout, plugin in done.stderr.decode()) == (b"", True)
    assert "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in done.stderr.decode()


@pytest.mark.parametrize("plugin", ["bridge", "host-local", "loopback"])
def test_version_is_answered_without_reading_standard_input(world: World, plugin_dir: str, plugin: str) -> None:
    env = {
        "CNI_COMMAND": "VERSION",
        "CNI_NETNS": "dummy",
        "CNI_IFNAME": "dummy",
        "CNI_PATH": "dummy",
        "CNI_CONTAINERID": "",
    }
    child = world.popen([f"{plugin_dir}/{plugin}"], env=env)  # nobody closes its standard input before it has answered
    assert child.stdout is not None
    document: JsonObject = json.loads(child.stdout.read())
    assert document["supportedVersions"] == ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
    assert child.wait(timeout=5) == 0


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_descriptor_is_survived(world: World, plugin_dir: str, closed: int) -> None:
    """A runtime may start a plugin without one; no state file must be taken for it."""
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    env = plugins.environment("ADD")
    script = f"exec {closed}>&-; exec {plugin_dir}/bridge"
    done = world.run(["sh", "-c", script], stdin=json.dumps(NETCONF).encode(), env=env, expect=None)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (0 if closed == 2 else 1)
    assert world.ifnames("blue") == ({"lo", "eth0"} if closed == 2 else {"lo"})
    if closed == 0:
        assert json.loads(done.stdout)["code"] in CODES


def test_an_add_whose_result_nobody_reads_leaves_nothing(world: World, plugin_dir: str) -> None:
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    world.run(["mkfifo", "/run/result"])
    # The reader has gone before anything is written.
    script = f"exec 3<>/run/result 4>/run/result 3<&-; exec {plugin_dir}/bridge >&4"
    done = world.run(["sh", "-c", script], stdin=json.dumps(NETCONF).encode(), env=plugins.environment("ADD"), expect=1)
    assert b"write standard output: broken pipe" in done.stderr
    assert world.ifnames() == {"lo"}
    assert world.ifnames("blue") == {"lo"}


def test_python_of_the_environment_is_not_used(world: World, plugin_dir: str) -> None:
    world.run(["mkdir", "/run/evil"])
    for name in ("json", "os", "sitecustomize", "cnisandbox"):
        (world.outside_path("/run/evil") / f"{name}.py").write_text("raise SystemExit(77)\n")
    env = {
        "PYTHONPATH": "/run/evil",
        "PYTHONHOME": "/run/evil",
        "PYTHONSTARTUP": "/run/evil/os.py",
        "PYTHONINSPECT": "1",
    }
    world.netns("blue")
    Plugins(world, plugin_dir).call("ADD", NETCONF, env=env)


def test_netconf_larger_than_the_limit_is_refused(world: World, plugin_dir: str) -> None:
    plugins = Plugins(world, plugin_dir)
    world.netns("blue")
    plugins.call("ADD", {**NETCONF, "filler": "x" * 900_000})
    error = plugins.fail("ADD", {**NETCONF, "filler": "x" * 3_000_000}, container_id="c2", ifname="eth1")
    assert error["code"] in {6, 7}

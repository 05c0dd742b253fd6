"""host-local against the reference plugin: same netconfs, same sequences, one directory for both.

The reference is the binary of Debian's containernetworking-plugins, version 1.1.1. It runs as root on a temporary
directory and touches nothing else.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnisandbox.cni.output import result_document
from cnisandbox.errors import CniError
from plugins.host_local import HostLocal
from tests.ipam import PluginHost

REFERENCE = "/usr/lib/cni/host-local"


class Outcome(NamedTuple):
    """What a call came to: the result of ADD, or the error's message."""

    result: Any = None
    error: str = ""


class Reference:
    """The reference plugin on one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, verb: str, container_id: str, ifname: str, args: str, config: dict[str, Any]) -> Outcome:
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/not/used",
            "CNI_PATH": "/usr/lib/cni",
            "CNI_ARGS": args,
        }
        ipam = {"dataDir": str(self.path), **config["ipam"]}
        process = subprocess.run(
            [REFERENCE],
            input=json.dumps({**config, "ipam": ipam}).encode(),
            env=environment,
            capture_output=True,
            timeout=20,
            check=False,
        )
        if process.returncode:
            return Outcome(error=json.loads(process.stdout)["msg"])
        return Outcome(result=without_empty_dns(process.stdout) if verb == "ADD" else None)


class Ours:
    """Our plugin on one directory."""

    def __init__(self, path: Path) -> None:
        self.host = PluginHost(path)

    def __call__(self, verb: str, container_id: str, ifname: str, args: str, config: dict[str, Any]) -> Outcome:
        call = self.host.call(verb, container_id, ifname, args, **config)
        plugin = HostLocal()
        try:
            if verb == "ADD":
                return Outcome(result=without_empty_dns(result_document(plugin.add(call), config["cniVersion"])))
            (plugin.check if verb == "CHECK" else plugin.delete)(call)
        except CniError as error:
            return Outcome(error=error.msg)
        return Outcome()


def without_empty_dns(document: bytes) -> dict[str, Any]:
    """Read a result; the reference writes `"dns": {}` also where it says nothing."""
    result: dict[str, Any] = json.loads(document)
    return {key: value for key, value in result.items() if key != "dns" or value}


def reservations(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in _files(path).items() if not name.startswith(("lock", "last_reserved_ip."))}


def last_reserved(path: Path) -> dict[str, bytes]:
    return {name: data for name, data in _files(path).items() if name.startswith("last_reserved_ip.")}


def _files(path: Path) -> dict[str, bytes]:
    directory = path / "net"
    return {file.name: file.read_bytes() for file in directory.iterdir()} if directory.exists() else {}


def assert_same_files(ours: Path, reference: Path, verb: str, outcome: Outcome) -> None:
    """Compare the two; an ADD that fails moves the reference's cursors of earlier range sets on, and none of ours."""
    assert reservations(ours) == reservations(reference)
    if verb == "ADD" and outcome.result:
        assert last_reserved(ours) == last_reserved(reference)


def netconf(ipam: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": {"type": "host-local", **ipam}, **fields}


V4 = {"subnet": "10.1.2.0/29"}
V6 = {"subnet": "2001:db8::/64"}
SMALL_V6 = {"subnet": "2001:db8::/126"}
NARROW = {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.11", "gateway": "10.1.2.10"}
TWO_PARTS = [NARROW, {"subnet": "10.9.0.0/30"}]
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.1.2.1"}, {"dst": "2001:db8:1::/48"}]

GOOD = {
    "ipv4": (netconf({"ranges": [[V4]]}), ""),
    "ipv6": (netconf({"ranges": [[SMALL_V6]]}), ""),
    "dual-stack": (netconf({"ranges": [[V4], [V6]]}), ""),
    "ipv6-first": (netconf({"ranges": [[SMALL_V6], [V4]]}), ""),
    "old-style": (netconf(V4), ""),
    "old-style-with-all-keys": (netconf(NARROW), ""),
    "old-style-and-ranges": (netconf({**V4, "ranges": [[V6]]}), ""),
    "two-parts": (netconf({"ranges": [TWO_PARTS]}), ""),
    "two-parts-and-ipv6": (netconf({"ranges": [TWO_PARTS, [V6]]}), ""),
    "two-ipv4-sets": (netconf({"ranges": [[V4], [{"subnet": "10.7.0.0/24"}]]}), ""),
    "ranges-of-the-runtime": (netconf({"ranges": [[V4]]}, runtimeConfig={"ipRanges": [[SMALL_V6]]}), ""),
    "start-at-the-network-address": (netconf({**V4, "rangeStart": "10.1.2.0"}), ""),
    "end-at-the-broadcast-address": (netconf({**V4, "rangeEnd": "10.1.2.7"}), ""),
    "gateway-in-the-middle": (netconf({**V4, "gateway": "10.1.2.4"}), ""),
    "gateway-elsewhere": (netconf({**V4, "gateway": "10.9.9.9"}), ""),
    "gateway-last": (netconf({**V4, "gateway": "10.1.2.6"}), ""),
    "only-the-gateway": (netconf({**V4, "rangeStart": "10.1.2.1", "rangeEnd": "10.1.2.1"}), ""),
    "ipv6-with-zeros": (netconf({"subnet": "2001:db8:0:0:1::/80", "rangeStart": "2001:db8:0:0:1:0:0:fffe"}), ""),
    "ipv6-text-with-ipv4": (netconf({"subnet": "2001:db8::10.1.2.0/124"}), ""),
    "routes": (netconf({"ranges": [[V4], [V6]], "routes": ROUTES}), ""),
    "version-0.1.0": (netconf({"ranges": [[V4], [V6]], "routes": ROUTES}, cniVersion="0.1.0"), ""),
    "version-0.2.0": (netconf({"ranges": [[V6]]}, cniVersion="0.2.0"), ""),
    "version-0.3.1": (netconf({"ranges": [[V4], [V6]], "routes": ROUTES}, cniVersion="0.3.1"), ""),
    "version-0.4.0": (netconf({"ranges": [[V4]]}, cniVersion="0.4.0"), ""),
    "keys-in-any-case": (netconf({"RANGES": [[{"SubNet": "10.1.2.0/29", "rangestart": "10.1.2.4"}]]}), ""),
    "requested-by-cni-args": (netconf({"ranges": [[V4]]}), "IP=10.1.2.5"),
    "requested-by-cni-args-among-others": (netconf({"ranges": [[V4]]}), "IgnoreUnknown=1;FOO=bar;IP=10.1.2.5"),
    "requested-by-args": (netconf({"ranges": [[V4]]}, args={"cni": {"ips": ["10.1.2.6"]}}), ""),
    "requested-by-runtime": (netconf({"ranges": [[V4]]}, runtimeConfig={"ips": ["10.1.2.6/29"]}), ""),
    "requested-for-both": (netconf({"ranges": [[V4], [V6]]}, args={"cni": {"ips": ["2001:db8::3", "10.1.2.3"]}}), ""),
    "requested-for-one-of-two": (netconf({"ranges": [[V6], [V4]]}, runtimeConfig={"ips": ["2001:db8::3"]}), ""),
    "requested-twice": (netconf({"ranges": [[V4]]}, args={"cni": {"ips": ["10.1.2.6"]}}), "IP=10.1.2.6"),
    "requested-in-the-second-part": (netconf({"ranges": [TWO_PARTS]}), "IP=10.9.0.2"),
    "requested-gateway": (netconf({"ranges": [[V4]]}), "IP=10.1.2.1"),
    "requested-outside": (netconf({"ranges": [[V4]]}), "IP=192.0.2.1"),
    "requested-outside-besides": (netconf({"ranges": [[V4]]}, args={"cni": {"ips": ["192.0.2.1"]}}), "IP=10.1.2.3"),
}

STEPS = [
    ("ADD", "c1", "eth0"),
    ("CHECK", "c1", "eth0"),
    ("ADD", "c1", "eth1"),
    ("ADD", "c2", "eth0"),
    ("ADD", "c1", "eth0"),
    ("DEL", "c1", "eth0"),
    ("CHECK", "c1", "eth0"),
    ("DEL", "c1", "eth0"),
    ("ADD", "c3", "eth0"),
    ("ADD", "c4", "eth0"),
    ("ADD", "c5", "eth0"),
    ("ADD", "c6", "eth0"),
    ("DEL", "c1", "eth1"),
    ("DEL", "c2", "eth0"),
    ("DEL", "nobody", "eth0"),
    ("ADD", "c6", "eth0"),
]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    (tmp_path / "reference").mkdir()
    return Reference(tmp_path / "reference")


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    (tmp_path / "ours").mkdir()
    plugin = Ours(tmp_path / "ours")
    yield plugin
    plugin.host.state.close()


def without_case(error: str) -> str:
    """Our messages begin in lower case throughout."""
    return re.sub("Failed to find", "failed to find", error)


@pytest.mark.parametrize("name", GOOD)
def test_same_steps_come_to_the_same(name: str, reference: Reference, ours: Ours) -> None:
    config, args = GOOD[name]
    for verb, container_id, ifname in STEPS:
        if verb == "CHECK" and config["cniVersion"] < "0.4.0":
            continue
        fields = {**config, "prevResult": {}} if verb == "CHECK" else config
        expected = reference(verb, container_id, ifname, args, fields)
        got = ours(verb, container_id, ifname, args, fields)
        assert got == expected._replace(error=without_case(expected.error)), (verb, container_id, ifname)
        assert_same_files(ours.host.path, reference.path, verb, expected)


BAD = {
    "no-ranges": netconf({}),
    "empty-ranges": netconf({"ranges": []}),
    "empty-set": netconf({"ranges": [[]]}),
    "no-subnet": netconf({"ranges": [[{"rangeStart": "10.1.2.1"}]]}),
    "subnet-without-prefix": netconf({"ranges": [[{"subnet": "10.1.2.0"}]]}),
    "ipv4-too-small": netconf({"ranges": [[{"subnet": "10.1.2.0/31"}]]}),
    "ipv6-too-small": netconf({"ranges": [[{"subnet": "2001:db8::/127"}]]}),
    "mapped-ipv4": netconf({"ranges": [[{"subnet": "::ffff:10.1.2.0/120"}]]}),
    "host-bits": netconf({"ranges": [[{"subnet": "10.1.2.77/24"}]]}),
    "start-elsewhere": netconf({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}]]}),
    "end-elsewhere": netconf({"ranges": [[{"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.1"}]]}),
    "start-of-another-family": netconf({"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "2001:db8::1"}]]}),
    "end-before-start": netconf(
        {"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"}]]}
    ),
    "mixed-families": netconf({"ranges": [[V4, V6]]}),
    "overlap-in-a-set": netconf({"ranges": [[V4, {"subnet": "10.1.0.0/16"}]]}),
    "overlap-of-sets": netconf({"ranges": [[V4], [{"subnet": "10.1.0.0/16"}]]}),
    "two-ipv4-for-0.2.0": netconf({"ranges": [[V4], [{"subnet": "10.7.0.0/24"}]]}, cniVersion="0.2.0"),
    "requested-is-no-address": netconf({"ranges": [[V4]]}, args={"cni": {"ips": ["nine"]}}),
    "ranges-is-an-object": netconf({"ranges": {}}),
    "route-without-prefix": netconf({"ranges": [[V4]], "routes": [{"dst": "10.0.0.0"}]}),
    "missing-resolv-conf": netconf({"ranges": [[V4]], "resolvConf": "/not/there"}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_reference_refuses_is_refused(name: str, reference: Reference, ours: Ours) -> None:
    assert reference("ADD", "c1", "eth0", "", BAD[name]).error
    assert ours("ADD", "c1", "eth0", "", BAD[name]).error
    assert ours.host.state.reservations() == {}


def test_resolv_conf_becomes_the_same_dns(tmp_path: Path, reference: Reference, ours: Ours) -> None:
    text = (
        b"# a comment\n; another\ndomain first.example\n  nameserver 192.0.2.1 junk\nnameserver 2001:db8::53\n"
        b"search a.example b.example\nsearch c.example\noptions ndots:5\trotate\nsortlist 1\nnameserver\n"
        b"domain d.example"
    )
    path = tmp_path / "resolv.conf"
    path.write_bytes(text)
    ours.host.files[str(path)] = text
    config = netconf({"ranges": [[V4]], "resolvConf": str(path)})
    expected = reference("ADD", "c1", "eth0", "", config)
    assert ours("ADD", "c1", "eth0", "", config) == expected
    assert expected.result["dns"]["nameservers"] == ["192.0.2.1", "2001:db8::53"]


def test_delete_without_ranges_frees_where_the_reference_fails(reference: Reference, ours: Ours) -> None:
    assert "no IP ranges" in reference("DEL", "c1", "eth0", "", netconf({})).error
    ours("ADD", "c1", "eth0", "", netconf({"ranges": [[V4]]}))
    assert ours("DEL", "c1", "eth0", "", netconf({})) == Outcome()
    assert ours.host.state.reservations() == {}


steps = st.tuples(
    st.sampled_from(["ours", "reference"]),
    st.sampled_from(["ADD", "ADD", "DEL"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["eth0", "net1"]),
)


@settings(max_examples=30, deadline=None, database=None)
@given(st.sampled_from(["ipv4", "dual-stack", "two-parts-and-ipv6"]), st.lists(steps, min_size=4, max_size=16))
def test_both_on_one_directory_do_what_the_reference_does_alone(
    name: str, sequence: list[tuple[str, str, str, str]]
) -> None:
    """One directory is used by both in turn, another by the reference only; nobody could tell them apart."""
    config, _ = GOOD[name]
    with TemporaryDirectory() as shared_name, TemporaryDirectory() as alone_name:
        shared, alone = Path(shared_name), Path(alone_name)
        ours = Ours(shared)
        actors = {"ours": ours, "reference": Reference(shared)}
        for actor, verb, container_id, ifname in sequence:
            expected = Reference(alone)(verb, container_id, ifname, "", config)
            assert actors[actor](verb, container_id, ifname, "", config) == expected
            assert_same_files(shared, alone, verb, expected)
        ours.host.state.close()


def test_both_at_once_give_no_address_twice(tmp_path: Path, ours: Ours) -> None:
    config = netconf({"ranges": [[{"subnet": "10.1.0.0/22"}]]})
    reference = Reference(ours.host.path)
    children = [fork_adding(ours, worker, config) for worker in range(4)]
    got = [reference("ADD", f"r{number}", "eth0", "", config).result["ips"][0]["address"] for number in range(40)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    owners = ours.host.state.reservations()
    assert len(owners) == len(set(owners.values())) == 4 * 40 + 40
    assert len(set(got)) == 40
    for number in range(40):
        assert ours("CHECK", f"r{number}", "eth0", "", {**config, "prevResult": {}}) == Outcome()
        assert reference("DEL", f"w0-{number}", "eth0", "", config) == Outcome()
        assert ours("CHECK", f"w0-{number}", "eth0", "", {**config, "prevResult": {}}).error
    assert len(ours.host.state.reservations()) == 4 * 40


def fork_adding(ours: Ours, worker: int, config: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            for number in range(40):
                assert ours("ADD", f"w{worker}-{number}", "eth0", "", config).result
            os._exit(0)
        finally:
            os._exit(1)
    return child

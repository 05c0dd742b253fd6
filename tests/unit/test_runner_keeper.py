"""What the keeper finds in a netconf for the monitor: names of links, and nothing that is none."""

import json

import pytest

from cnisandbox.runner.keeper import variables_of
from cnisandbox.runner.plan import process_of_path


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"bridge": "br0"}, ["br0"]),
        ({"bridge": ["br0", "br1"]}, ["br0", "br1"]),
        ({}, ["cni0"]),
        ({"bridge": ""}, ["cni0"]),
        ({"bridge": 7}, ["cni0"]),
        ({"bridge": "a/b"}, ["cni0"]),
        ({"bridge": "sixteen-bytes-xx"}, ["cni0"]),
        ({"bridge": ".."}, ["cni0"]),
        ({"bridge": "a\nb"}, ["cni0"]),
        ({"bridge": {"name": "br0"}}, ["cni0"]),
        ([], ["cni0"]),
    ],
)
def test_a_netconf_gives_names_that_links_can_have(document: object, names: list[str]) -> None:
    assert variables_of(json.dumps(document).encode(), {"bridge": "cni0"}) == {"bridge": names}


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"bridge": "br0"}' + b" " * (1 << 20)])
def test_what_is_no_netconf_gives_the_defaults(data: bytes) -> None:
    assert variables_of(data, {"bridge": "cni0", "master": ""}) == {"bridge": ["cni0"], "master": []}


def test_a_key_can_lie_deeper() -> None:
    assert variables_of(b'{"args": {"cni": {"master": "eth9"}}}', {"args.cni.master": ""}) == {
        "args.cni.master": ["eth9"]
    }


def test_a_path_goes_through_lists_and_leaves_the_containers_links_out() -> None:
    interfaces = [{"name": "br7"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}]
    document = json.dumps({"prevResult": {"interfaces": interfaces}}).encode()
    key = "prevResult.interfaces.name"
    assert variables_of(document, {key: ""}) == {key: ["br7", "veth1"]}


@pytest.mark.parametrize(
    ("path", "pid"),
    [
        ("/proc/12/ns/net", 12),
        ("/proc/12/task/13/ns/net", 12),
        ("/proc/self/ns/net", 0),
        ("/proc/12", 0),
        ("/proc/123456789/ns/net", 0),
        ("/proc/\u0661/ns/net", 0),
        ("/run/netns/proc", 0),
        ("proc/12/ns/net", 0),
    ],
)
def test_a_netns_path_below_proc_names_a_process(path: str, pid: int) -> None:
    assert process_of_path(path) == pid

"""The parts of the demonstration that judge: what a process may hold, what two snapshots have in common."""

import json

import pytest

from cnisandbox.cli import demo
from cnisandbox.cli.demonstration import processes, snapshot

NONE, NET_ADMIN = "0000000000000000", "0000000000001000"


def process(role: str = "host worker", netns: str = "host", **status: str) -> processes.Process:
    capabilities = NET_ADMIN if role in ("host worker", "container worker") else NONE
    good = {
        "Uid": "999 999 999 999", "Gid": "995 995 995 995", "Groups": "", "CapInh": NONE, "CapPrm": capabilities,
        "CapEff": capabilities, "CapBnd": NONE, "CapAmb": NONE, "NoNewPrivs": "1", "Seccomp": "2",
    }  # fmt: skip
    return processes.Process(role, 7, netns, good | status)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (NONE, "none"),
        (NET_ADMIN, "cap_net_admin"),
        ("0000000000003000", "cap_net_admin cap_net_raw"),
        ("000001ffffffffff", " ".join(f"cap_{name}" for name in processes.CAPABILITIES)),
        ("0000020000000000", "unknown 1"),
    ],
)
def test_capabilities_are_named_as_libcap_names_them(mask: str, words: str):
    assert processes.capability_names(mask) == words


@pytest.mark.parametrize(
    ("role", "netns"),
    [("engine", "host"), ("host worker", "host"), ("container worker", "pod"), ("delegate worker", "host")],
)
def test_a_process_as_it_has_to_be_has_no_fault(role: str, netns: str):
    assert process(role, netns).faults(999, 995) == []


@pytest.mark.parametrize(
    ("role", "status"),
    [
        ("engine", {"CapEff": NET_ADMIN}),
        ("delegate worker", {"CapPrm": NET_ADMIN}),
        ("host worker", {"CapPrm": "0000000000003000"}),
        ("host worker", {"CapBnd": NET_ADMIN}),
        ("host worker", {"CapInh": NET_ADMIN}),
        ("host worker", {"CapAmb": NET_ADMIN}),
        ("host worker", {"Uid": "999 0 999 999"}),
        ("host worker", {"Gid": "0 0 0 0"}),
        ("host worker", {"Groups": "0"}),
        ("host worker", {"NoNewPrivs": "0"}),
        ("host worker", {"Seccomp": "0"}),
    ],
)
def test_every_surplus_is_a_fault_that_names_process_and_field(role: str, status: dict[str, str]):
    (fault,) = process(role, **status).faults(999, 995)
    assert fault.startswith(f"{role}: {next(iter(status))} is ")


def test_a_worker_in_the_wrong_netns_is_a_fault():
    assert process("container worker", "host").faults(999, 995) == [
        "container worker: it is in the netns of host, not of pod"
    ]


def test_a_difference_says_what_has_come_and_what_has_gone():
    before = {"links": frozenset({"lo", "a"}), "files": frozenset({"x"})}
    after = {"links": frozenset({"lo", "b"}), "files": frozenset({"x"})}
    assert snapshot.difference(before, after) == {"links": ["- a", "+ b"]}


def test_a_difference_that_goes_away_in_time_is_none():
    states = iter([frozenset({"lo", "veth"}), frozenset({"lo"})])
    taken = snapshot.settled_difference({"links": frozenset({"lo"})}, lambda: {"links": next(states)}, lambda _: False)
    assert taken == {}


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("+ /proc/sys/net/ipv4/ip_forward:1", True),
        ("- /proc/sys/net/ipv6/conf/lo/forwarding:0", True),
        ("+ /proc/sys/net/netfilter/nf_conntrack_max:262144", True),
        ("- /proc/sys/net/netfilter/nf_conntrack_max:262144", False),
        ("+ /proc/sys/net/ipv4/conf/all/rp_filter:0", False),
        ("+ /proc/sys/net/ipv4/conf/veth1/forwarding:1", True),
        ("+ /proc/sys/net/core/somaxconn:1", False),
    ],
)
def test_only_forwarding_may_stay_switched_on(line: str, stays: bool):
    assert bool(demo._STAYING_SYSCTLS.match(line)) is stays


def test_a_problem_makes_the_document_say_so(capsys: pytest.CaptureFixture[str]):
    report = demo.Report(is_json=True)
    report.outcome("links: no difference", is_good=True)
    report.outcome("files: + /x", is_good=False, problem="files differ: + /x")
    report.finish()
    assert json.loads(capsys.readouterr().out) == {"problems": ["files differ: + /x"]}


def test_a_problem_is_listed_for_a_person(capsys: pytest.CaptureFixture[str]):
    report = demo.Report(is_json=False)
    report.outcome("files: + /x", is_good=False)
    report.finish()
    captured = capsys.readouterr()
    assert "WRONG  files: + /x" in captured.out
    assert "files: + /x" in captured.err

"""Known vulnerabilities, replayed: what each leads to as root, with our plugins and under the runner, and no other way.

The replays make machines of their own; each verdict is what the kernel's state shows there.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import InvalidConfig
from cnisandbox.laboratory import replays
from cnisandbox.laboratory.replays import host
from cnisandbox.laboratory.replays.case import Outcome
from cnisandbox.laboratory.replays.replay import given_back
from cnisandbox.laboratory.report import schema
from tests.unit import report_documents

WORKED, PARTLY, REFUSED, NOTHING = "worked", "partly worked", "refused", "no effect"
NOT_HERE, NOT_RUN = "not applicable", "not run"
# Case: as root, ours at level hardened, ours at level mediated, under the runner; contained.
EXPECTED = {
    "path-traversal": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "set-uid-leftover": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "leaked-descriptor": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "file-of-root": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "sysctl-injection": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "abstract-socket": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "kernel-surface": (WORKED, PARTLY, REFUSED, REFUSED, "partly"),
    "router-advertisement": (WORKED, NOTHING, NOTHING, WORKED, "partly"),
    "rule-order": (WORKED, NOT_HERE, NOT_HERE, WORKED, "no"),
    "any-destination": (WORKED, NOT_HERE, NOT_HERE, WORKED, "no"),
    "wrong-netns": (WORKED, PARTLY, PARTLY, PARTLY, "partly"),
    "settings-of-the-host": (WORKED, NOT_HERE, NOT_HERE, REFUSED, "yes"),
    "delete-by-name": (WORKED, NOTHING, NOTHING, PARTLY, "partly"),
    "netns-of-another": (WORKED, REFUSED, REFUSED, REFUSED, "yes"),
    "calico-floating-ip": (NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN, "no"),
    "cilium-socket": (NOT_RUN, NOT_RUN, NOT_RUN, NOT_RUN, "no"),
}
# What ours, and the plugin under the runner, are told; so that each is refused for the reason that the case is about.
SAID = {
    "path-traversal": ("ipam.type: '../../../run/replay/outside/evil' cannot be the name", "No such file or directory"),
    "set-uid-leftover": ("Operation not permitted; Read-only file", "Operation not permitted; Read-only file"),
    "leaked-descriptor": ("Bad file descriptor", "Bad file descriptor"),
    "file-of-root": ("read file '/run/replay/private/secret': permission denied", "no such file or directory"),
    "sysctl-injection": ("write sysctl 'kernel/core_uses_pid': invalid argument", "Permission denied"),
    "abstract-socket": ("Operation not permitted", "Connection refused"),
    "kernel-surface": ("unshare: Operation not permitted", "unshare: Operation not permitted"),
    "router-advertisement": ("", ""),
    "rule-order": ("", ""),
    "any-destination": ("", ""),
    "wrong-netns": ("it is the plugin's own netns", "it is the plugin's own netns"),
    "settings-of-the-host": ("", "it is the plugin's own netns"),
    "delete-by-name": ("", "Operation not permitted"),
    "netns-of-another": ("Permission denied", "No such file or directory"),
}
# At level root our plugins refuse this all the same, because of what they are: the name of a program or a netns is
# looked at, a link is known by its mark, accept_ra is written.
REFUSED_BY_THE_PLUGIN = {"path-traversal", "wrong-netns", "delete-by-name", "router-advertisement"}
# As root the reference bridge writes accept_ra itself.
REPAIRED_IN_THE_REFERENCE = {"router-advertisement"}
SETTING = Path("/proc/sys/kernel/core_uses_pid")
CASES = {case.id: case for case in replays.CASES}
ON_OUR_PLUGINS = [
    name
    for name, (root, ours, *_) in EXPECTED.items()
    if root == WORKED and ours != NOT_HERE and name not in REFUSED_BY_THE_PLUGIN and not CASES[name].setting
]
UNDER_THE_RUNNER = [
    name
    for name, (root, *_, runner, _) in EXPECTED.items()
    if runner not in (WORKED, NOT_RUN) and name not in REPAIRED_IN_THE_REFERENCE
]


@pytest.fixture(scope="module", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")


def state_of_the_machine() -> dict[str, Any]:
    """What a replay could leave behind if it were not on a machine of its own."""
    places = ("/run/netns", "/run/replay", "/var/lib/cni", "/var/lib/cni/networks", "/etc/cnisandbox", "/usr/lib/cni")
    return {
        "links": sorted(os.listdir("/sys/class/net")),
        "files": {place: sorted(os.listdir(place)) for place in places if os.path.isdir(place)},
        "setting": SETTING.read_text(),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


@pytest.fixture(scope="module")
def replayed(_root: None) -> Iterator[dict[str, dict[str, Any]]]:
    """Every case, replayed once; the machine is as it was."""
    before = state_of_the_machine()
    yield {entry["id"]: entry for entry in replays.run()}
    assert state_of_the_machine() == before


def test_every_case_is_expected(replayed: dict[str, dict[str, Any]]) -> None:
    assert list(replayed) == [case.id for case in replays.CASES] == list(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_replay(replayed: dict[str, dict[str, Any]], name: str) -> None:
    entry = replayed[name]
    columns = entry["columns"]
    ours = columns["cnisandbox"]
    found = (columns["root"], ours, ours.get("mediated", ours), columns["runner"])
    assert (*(column["verdict"] for column in found), entry["contained"]) == EXPECTED[name], entry


def test_the_document_has_the_replays(replayed: dict[str, dict[str, Any]]) -> None:
    document: Any = {**report_documents.document(), "replays": list(replayed.values())}
    assert schema.check(document, "replays", is_closed=True)["replays"] == list(replayed.values())


@pytest.mark.parametrize("name", SAID)
def test_is_refused_for_its_own_reason(replayed: dict[str, dict[str, Any]], name: str) -> None:
    columns = replayed[name]["columns"]
    for column, said in zip(("cnisandbox", "runner"), SAID[name], strict=True):
        if said:
            assert said in columns[column]["said"]
        else:
            assert columns[column]["said"] == ""
    assert columns["root"]["said"] == ""


@pytest.mark.parametrize("name", [name for name, (root, *_) in EXPECTED.items() if root == NOT_RUN])
def test_what_is_not_run_says_why(replayed: dict[str, dict[str, Any]], name: str) -> None:
    assert all(column["reason"] for column in replayed[name]["columns"].values())


@pytest.mark.parametrize("name", UNDER_THE_RUNNER)
def test_works_under_a_runner_that_takes_nothing_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "RUNNER_LEVEL", "root")
    with given_back(CASES[name].setting):
        outcome = host.on_a_host("runner", Level.HARDENED, CASES[name].replay)
    assert outcome["verdict"] == WORKED, outcome


@pytest.mark.parametrize("name", ON_OUR_PLUGINS)
def test_works_on_our_plugins_at_level_root(name: str) -> None:
    outcome = host.on_a_host("cnisandbox", Level.ROOT, CASES[name].replay)
    assert outcome["verdict"] == WORKED, outcome


def test_two_runs_say_the_same() -> None:
    first, second = (replays.run(only=["leaked-descriptor", "wrong-netns"]) for _ in range(2))
    assert first == second


def test_a_setting_of_the_machine_is_given_back_when_a_run_is_broken_off() -> None:
    before = SETTING.read_text()
    steps = []

    def break_off(step: str) -> None:
        steps.append(step)
        if "runner" in step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replays.run(break_off, ["CVE-2022-0811"])
    assert steps[:2] == ["ordinary calls", "CVE-2022-0811: root"]
    assert SETTING.read_text() == before


def test_is_untested_where_the_machine_lacks_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    (entry,) = replays.run(only=["wrong-netns"])
    columns = entry["columns"]
    assert {column["verdict"] for column in columns.values()} == {"untested"}
    assert "no such file" in columns["root"]["reason"]
    assert (entry["contained"], entry["why"]) == (
        "no",
        "Not shown: root is 'untested', cnisandbox is 'untested', runner is 'untested'.",
    )


def test_is_untested_where_the_runner_works_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "RUNNER_LEVEL", "no-such-level")
    (entry,) = replays.run(only=["settings-of-the-host"])
    assert [column["verdict"] for column in entry["columns"].values()] == [WORKED, NOT_HERE, "untested"]
    assert "it does not work here" in entry["columns"]["runner"]["reason"]
    assert entry["contained"] == "no"


def test_a_case_that_hangs_is_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_CASE_TIME_LIMIT_S", 0.5)

    def hang(machine: host.Host) -> Outcome:
        machine.run("sleep", "30")
        return Outcome("")

    outcome = host.on_a_host("root", Level.HARDENED, hang)
    assert (outcome["verdict"], outcome["reason"]) == ("untested", "it was not done after 0.5 s")


def test_a_case_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="replay 'CVE-0': there is no such case"):
        replays.run(only=["CVE-0"])

"""`audit report`: what it is told to do, how far it says that it is, and what it writes."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from cnisandbox.cli import audit_report, subcommand
from cnisandbox.cli.main import Command
from cnisandbox.errors import CniError, InvalidEnvironment
from cnisandbox.laboratory import replays
from cnisandbox.laboratory.columns import COLUMNS
from cnisandbox.laboratory.report import collect, machine, schema, subjects
from cnisandbox.laboratory.vector import CATEGORIES
from cnisandbox.laboratory.vectors import VECTORS
from cnisandbox.runtime.conflist import parse_list
from tests.unit.report_documents import document

COMMANDS = (Command("report", audit_report.__name__, ""),)


def report(*words: str) -> int:
    return subcommand.run(COMMANDS, ["report", *words], "cnisandbox audit")


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "given.json"
    path.write_text(json.dumps(document()))
    return str(path)


def test_a_report_is_made_again_from_its_document(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert report("--out", str(out), "--from", source) == 0
    assert schema.read(f"{out}/audit.json") == document()
    shown = capsys.readouterr().out
    assert shown.startswith((out / "audit.txt").read_text())
    assert f"written: {out}/audit.html" in shown


def test_what_is_no_document_makes_no_report(tmp_path: Path) -> None:
    with pytest.raises(CniError, match="read audit document"):
        report("--out", str(tmp_path), "--from", __file__)
    assert list(tmp_path.iterdir()) == []


def test_measuring_takes_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(InvalidEnvironment, match="audit report: not root"):
        report("--out", str(tmp_path / "out"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--out"],
        ["--out", "x", "--columns", "no"],
        ["--out", "x", "--plugins", "no"],
        ["--out", "x", "--rounds", "0"],
        ["--out", "x", "--rounds", "1001"],
        ["--out", "x", "--rounds", "²"],
        ["--out", "x", "--no"],
        ["x"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        report(*words)
    assert ended.value.code == 2


def test_everything_is_planned_unless_told_otherwise() -> None:
    wanted = collect.plan()
    assert (wanted.vectors, wanted.columns, wanted.subjects) == (VECTORS, COLUMNS, subjects.SUBJECTS)
    assert wanted.replayed is None
    assert wanted.gaps == ()


def test_the_control_is_always_planned() -> None:
    assert collect.plan(columns=["runner"]).columns == ("root", "runner")


def test_a_quick_report_has_something_of_everything_and_says_that_it_is_quick() -> None:
    wanted = collect.plan(is_quick=True)
    assert {vector.category for vector in wanted.vectors} == set(CATEGORIES)
    assert len(wanted.vectors) < len(VECTORS) / 2
    assert [subject.name for subject in wanted.subjects] == list(subjects.QUICK)
    assert wanted.gaps[0]["what"].startswith(f"{len(wanted.vectors)} of {len(VECTORS)}")
    assert [each.name for each in collect.plan(names=["tuning"], is_quick=True).subjects] == ["tuning"]


def test_netconfs_are_lists_or_plugins() -> None:
    for subject in subjects.SUBJECTS:
        netconf = subject.netconf
        assert subject.name.startswith(subject.plugin)
        whole = netconf if "plugins" in netconf else {**netconf, "plugins": list(subject.plugins)}
        assert parse_list(json.dumps(whole).encode(), "netconf").plugins[-1].type == subject.plugin
    assert len({subject.name for subject in subjects.SUBJECTS}) == len(subjects.SUBJECTS)


def test_the_digest_changes_with_the_list() -> None:
    assert collect.digest(VECTORS) == collect.digest(VECTORS)
    assert len({collect.digest(VECTORS), collect.digest(VECTORS[1:]), collect.digest(VECTORS[::-1])}) == 3


def test_progress_never_goes_back() -> None:
    told: list[float] = []
    wanted = collect.plan(is_quick=True)
    course = collect._Course(wanted, lambda fraction, _: told.append(fraction))
    course.begin("attempts", 10.0, 3)
    for _ in range(5):
        course.step("x")
    for _ in range(2):
        course.begin("bridge root", 5.0)
        for made in range(4):
            course.step_of(made, 3 + made * made, "x")
    assert told == sorted(told)
    assert 0 <= told[0] < told[-1] <= 1


def test_progress_is_a_line_for_each_part_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    bar = audit_report._Bar()
    for fraction, text in ((0.0, "attempts"), (0.1, "attempts: b-mtu"), (0.2, "attempts: b-tos"), (0.3, "replays")):
        bar.show(fraction, text)
    bar.clear()
    assert re.sub(r"\d+:\d\d", "T", capsys.readouterr().err) == "T attempts\nT replays\n"


def test_options_of_the_kernel_are_told_and_none_where_nobody_knows() -> None:
    chosen = machine.chosen_options(
        'CONFIG_MODULES=y\n# CONFIG_KEXEC is not set\nCONFIG_LSM="landlock"\nCONFIG_TUN=m\n'
    )
    assert chosen["CONFIG_MODULES"] == "y"
    assert chosen["CONFIG_KEXEC"] == "n"
    assert chosen["CONFIG_TUN"] == "m"
    assert machine.chosen_options("") == {}


def test_packages_are_those_that_are_installed() -> None:
    status = (
        "Package: runc\nStatus: install ok installed\nVersion: 1.1.5\nDescription: x\n Version: no\n\n"
        "Package: crun\nStatus: deinstall ok config-files\nVersion: 1.8\n\n"
    )
    assert machine.package_versions(status, ("runc", "crun", "podman")) == {"runc": "1.1.5", "crun": "", "podman": ""}
    assert machine.package_versions("") == dict.fromkeys(machine.PACKAGES, "")


def test_this_machine_can_be_described() -> None:
    made = document()
    made["machine"] = machine.describe()
    assert schema.check(made, "x", is_closed=True)["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_replay_can_be_chosen_by_its_name() -> None:
    wanted = collect.plan(is_quick=True)
    assert wanted.replayed is not None
    assert set(wanted.replayed) <= {case.id for case in replays.CASES}

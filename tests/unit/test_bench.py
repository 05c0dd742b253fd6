"""What the benchmark makes of its samples, and what the documents quote of it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
ISSUE = {
    "warm, bridge + host-local ADD, hardened": 0.6,
    "warm, bridge + host-local ADD, mediated": 0.75,
    "warm, with ipMasq: ADD": 0.3,
    "warm, with ipMasq: DEL": 0.15,
    "warm DEL": 0.4,
    "cold ADD": 3.0,
    "runner at mediated, warm, bridge ADD": 1.2,
    "200 pods, 32 at a time, warm, total time of ADD": 0.8,
    "host-local ADD at 50,000 reservations, warm, against its own at 10": 1.2,
    "zygote memory, idle, all children, PSS": 60.0,
}


def _module(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return __import__(name)


@pytest.fixture(scope="module")
def quoted() -> dict:
    return json.loads((ROOT / "docs" / "performance" / "bench.json").read_text())


def test_the_documents_quote_the_run_that_lies_beside_them(monkeypatch: pytest.MonkeyPatch, quoted: dict) -> None:
    report = _module(monkeypatch, "report")
    assert report.full_table(quoted) == (report.QUOTED / "bench.txt").read_text()
    for document in report.DOCUMENTS:
        text = document.read_text()
        assert "<!-- bench: " in text
        assert report.with_tables(text, quoted) == text, document


def test_the_targets_are_those_that_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = _module(monkeypatch, "targets")
    assert {target.title: target.limit for target in targets.TARGETS} == ISSUE


def test_a_target_is_met_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = _module(monkeypatch, "targets")
    target = targets.Target("nothing", 0.6, lambda document: document["value"])
    values = {"met": 0.6, "not met": 0.601, "not measured": None}
    assert {text: targets.Verdict(target, value).text for text, value in values.items()} == {key: key for key in values}


def test_what_was_not_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, report = _module(monkeypatch, "targets"), _module(monkeypatch, "report")
    found = targets.verdicts({"scenarios": {}, "zygote": {"pss_mib": 61.0}})
    assert [verdict.text for verdict in found] == ["not measured"] * 9 + ["not met"]
    assert report.target_table(found).splitlines()[-1].endswith(" 61.0 MiB  ≤ 60.0 MiB       not met")


def test_a_ratio_is_that_of_the_medians_and_its_spread_that_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    document, turns = _module(monkeypatch, "document"), _module(monkeypatch, "turns")
    sample = _module(monkeypatch, "measuring").Sample
    reference = turns.Measured([sample(wall, 1.0) for wall in (10.0, 20.0, 40.0)], [])
    ours = turns.Measured([sample(wall, 2.0) for wall in (20.0, 10.0, 40.0)], [3.0, 5.0, 4.0])
    made = document.scenario({"ADD": {"reference": reference, "warm": ours}, "DEL": {"reference": ours, "warm": ours}})
    figures = made["ADD"]["warm"]
    assert (figures["ratio"], figures["middle_half"]) == (1.0, [0.75, 1.5])
    assert (figures["median_ms"], figures["p95_ms"], figures["cpu_ms"], figures["peak_mib"]) == (20.0, 38.0, 2.0, 4.0)
    assert "peak_mib" not in made["ADD"]["reference"]
    assert made["DEL"]["reference"]["growth"] == 1.0


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_nobody_is_favoured_by_the_turns(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    turns = _module(monkeypatch, "turns")
    names = tuple("abcdef"[:count])
    rounds = [turns.turn(names, number) for number in range(2 * count)]
    assert all(sorted(order) == sorted(names) for order in rounds)
    for place in (0, -1):
        assert {name: sum(order[place] == name for order in rounds) for name in names} == dict.fromkeys(names, 2)


def test_a_part_of_the_rounds_has_some_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = _module(monkeypatch, "turns")
    assert turns.Rounds(3, 30, 3).times(0.1) == turns.Rounds(1, 3, 1)
    assert turns.Rounds(0, 1, 0).times(0.1) == turns.Rounds(0, 1, 0)


def test_the_plot_has_a_mark_for_each_figure(monkeypatch: pytest.MonkeyPatch, quoted: dict) -> None:
    plot = _module(monkeypatch, "plot")
    drawn = ElementTree.fromstring(plot.draw(quoted))
    shown = [verbs for title, verbs in quoted["scenarios"].items() if title.startswith(plot.SHOWN)]
    marks = sum(len(subjects) for verbs in shown for subjects in verbs.values())
    assert len(drawn.findall(".//{*}circle")) == marks + len(plot.COLOURS)


METER = """
import resource
import sys
import time

from measuring import Call, CallFailed, Meter


class Group:
    def cpu_s(self):
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime


class Nobody:
    def cpu_s(self): return 0.0
    def wait_until_ready(self): pass


meter = Meter(sys.argv[1], Group(), Nobody(), set())
calls = [Call("/bin/cat", {}, b"%d" % number) for number in range(5)]
outputs = []
sample = meter.sample(lambda: outputs.extend(meter.run(calls, 3)))
assert outputs == [b"0", b"1", b"2", b"3", b"4"], outputs
assert 0.0 < sample.cpu_ms and 0.0 < sample.wall_ms
try:
    meter.run([Call("/bin/false", {"CNI_COMMAND": "ADD"})])
except CallFailed as error:
    print(error)
"""


def test_programs_are_run_some_at_a_time_and_a_failure_is_no_figure(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-c", METER, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=30)
    assert done.stdout == "ADD of /bin/false: 256: \n", done.stderr


def test_the_floor_of_the_runner_is_asked_and_has_its_programs_status(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = str(tmp_path / "notified")
    _module(monkeypatch, "subjects").compile_notified(program)
    command = ["/bin/sh", "-c", "sed -n 's/^Seccomp_filters:.//p' /proc/self/status; exit 3"]
    itself, through = (
        subprocess.run([*before, *command], check=False, capture_output=True, text=True, timeout=30)
        for before in ((), (program,))
    )
    assert (itself.returncode, through.returncode, through.stderr) == (3, 3, "")
    assert int(through.stdout) == int(itself.stdout) + 1


def test_the_steps_of_a_call_cost_something(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _module(monkeypatch, "machine")
    for name, size in {"_PAGES": 64, "_CALLS": 100, "_TRIPS": 100, "_RUNS": 1}.items():
        monkeypatch.setattr(machine, name, size)
    found = machine.costs_us()
    assert set(found) == {"system call", "message and answer", "fork and end", "copied page"}
    assert 0 < found["system call"] < found["fork and end"]
    assert found["message and answer"] > 0 < found["copied page"]


def test_the_time_of_a_call_is_shared_out_among_those_who_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher of 10 ms: a worker runs beside it for 2 of them, 1 of these in sendto(), and nobody does for 3."""
    tracer, timeline = _module(monkeypatch, "tracer"), _module(monkeypatch, "timeline")
    harness, launcher, worker, idle, other = 10, 11, 12, 0, 99
    sendto = min(timeline._SENDS)

    def switch(cpu: int, at_ms: float, before: int, after: int) -> object:
        return tracer.Event(
            before, cpu, at_ms, "sched_switch", f"prev_comm=a prev_pid={before} ==> next_comm=b next_pid={after}"
        )

    events = [
        switch(1, 0.5, other, idle),
        tracer.Event(harness, 0, 1.0, "sched_process_fork", f"comm=a pid={harness} child_comm=a child_pid={launcher}"),
        switch(0, 1.0, harness, launcher),
        switch(1, 3.0, idle, worker),
        tracer.Event(worker, 1, 3.5, "sys_enter", f"NR {sendto} (3, 0)"),
        tracer.Event(worker, 1, 4.5, "sys_exit", f"NR {sendto} = 1"),
        tracer.Event(worker, 1, 4.7, "page_fault_user", "address=0x0"),
        switch(1, 5.0, worker, other),
        switch(0, 6.0, launcher, idle),
        switch(0, 9.0, idle, launcher),
        tracer.Event(launcher, 0, 11.0, "sched_process_exit", "comm=a"),
        switch(0, 11.0, launcher, idle),
        switch(1, 12.0, other, worker),
        switch(1, 12.5, worker, other),
    ]
    found = timeline.timeline(events, {worker: "worker"}, harness)
    assert found == (
        10.0,
        {
            "launcher": timeline.Share(0.0, 10.0, 7.0, 5.0, 0.0, 0.0, 0, 0),
            "worker": timeline.Share(2.0, 4.0, 2.0, 0.0, 1.0, 1.0, 1, 1),
        },
        3.0,
        {"worker": timeline.Share(1.0, 1.5, 0.5, 0.5, 0.0, 0.0, 0, 0)},
    )

"""A report, from what is measured to what is written, of a small part of everything."""

import os
from pathlib import Path

import pytest

from cnisandbox.laboratory.replays import CASES
from cnisandbox.laboratory.report import collect, figures, forms, schema
from cnisandbox.laboratory.report.compare import WORSE, compare
from cnisandbox.laboratory.report.subjects import SUBJECTS
from cnisandbox.laboratory.vectors import VECTORS

WANTED = ("a-dac-override-write-file", "b-link-down")


@pytest.fixture(scope="module")
def measured() -> schema.Document:
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    told: list[tuple[float, str]] = []
    plan = collect.Plan(
        vectors=tuple(vector for vector in VECTORS if vector.id in WANTED),
        columns=("root", "mediated"),
        subjects=tuple(subject for subject in SUBJECTS if subject.name in {"loopback", "ptp"}),
        verbs=("ADD",),
        rounds=1,
        replayed=(CASES[0].id,),
    )
    made = collect.collect(plan, ["cnisandbox", "audit", "report"], lambda *step: told.append(step))
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    return made


@pytest.mark.timeout(300)
def test_what_is_measured_is_a_document(measured: schema.Document) -> None:
    assert schema.check(measured, "measured", is_closed=True) == measured
    cells = measured["matrix"]["cells"]
    assert set(cells) == set(WANTED)
    assert {row["root"]["verdict"] for row in cells.values()} == {"worked"}
    assert cells["a-dac-override-write-file"]["mediated"]["verdict"] == "refused"


def test_each_plugin_is_measured_or_a_gap(measured: schema.Document) -> None:
    made = {f"{each['netconf']['name']} at {each['column']}" for each in measured["plugins"]}
    assert made | {gap["what"] for gap in measured["gaps"]} == {
        "loopback at root",
        "loopback at mediated",
        "ptp at root",
    }
    assert {"loopback at root", "loopback at mediated"} <= made


def test_a_replay_is_contained(measured: schema.Document) -> None:
    (replay,) = measured["replays"]
    assert (replay["id"], replay["contained"]) == (CASES[0].id, "yes")


def test_it_is_written_and_read_again_without_a_difference(measured: schema.Document, tmp_path: Path) -> None:
    forms.write(str(tmp_path), forms.render(measured, figures.draw(measured)))
    again = schema.read(f"{tmp_path}/audit.json")
    assert again == measured
    assert [finding for finding in compare(measured, again) if finding.kind == WORSE] == []
    assert "b-link-down" in (tmp_path / "audit.html").read_text()

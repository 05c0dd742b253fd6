"""The table of a report is readable, honest and harmless."""

import csv
import io

import pytest

from cnisandbox.laboratory.report import spreadsheet, tally, terminal, wording
from tests.unit.report_documents import cell, document, hostile

HOSTILE = "\033]0;x\007<script>\r\x9b31m\u202e\n=1+1"


def test_the_sums_stand_at_the_end() -> None:
    lines = terminal.render(document()).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("ATTEMPTS THAT WORK"))
    assert lines[at].split()[-6:] == ["OF", "ROOT", "NETADMIN", "HARDENED", "MEDIATED", "RUNNER"]
    assert lines[at + 6].split() == ["together", "6", "4", "3", "2", "0", "0"]
    assert lines[at + 7].split() == ["change", "something", "outside", "6", "2", "2", "0", "0", "0"]


def test_what_still_works_is_named() -> None:
    shown = terminal.render(document())
    assert "still works, or changes something, at hardened: a-net-admin-address, b-mtu\n" in shown
    assert "at mediated" not in shown


def test_a_cell_says_what_came_of_it() -> None:
    row = next(line for line in terminal.render(document()).splitlines() if line.startswith("d-core-pattern"))
    assert row.split() == ["d-core-pattern", "works!", "EACCES!", "EPERM", "EPERM", "EPERM"]


def test_lines_fit_into_the_width() -> None:
    assert max(map(len, terminal.render(document()).splitlines())) <= terminal.WIDTH


def test_nothing_drives_the_terminal() -> None:
    shown = terminal.render(hostile(HOSTILE))
    assert shown.replace("\n", "").isprintable()


def test_colour_does_not_change_the_text() -> None:
    styles = set()

    def paint(text: str, style: str) -> str:
        styles.add(style)
        return text

    assert terminal.render(document(), paint) == terminal.render(document())
    assert styles == {"bold", "dim", "red", "green", "yellow"}


def test_an_empty_document_has_a_heading() -> None:
    made = document()
    made["vectors"]["list"], made["matrix"]["cells"], made["matrix"]["columns"] = [], {}, []
    made["plugins"], made["replays"], made["gaps"] = [], [], []
    assert terminal.render(made).startswith("Blast radius")


def test_attempts_that_do_not_apply_are_not_counted_as_made() -> None:
    assert tally.totals(document())["root"] == tally.Sum(worked=4, outside=2, made=4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (cell("worked"), "worked, in the engine"),
        (cell("refused", "EPERM"), "refused (EPERM)"),
        (cell("not applicable", reason="CONFIG_KEXEC"), "not applicable, CONFIG_KEXEC"),
    ],
)
def test_a_sentence_says_it_in_full(given: wording.CellMembers, said: str) -> None:
    assert wording.sentence(given) == said


@pytest.mark.parametrize(("value", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 20, "3.0 MiB")])
def test_sizes_are_short(value: int, said: str) -> None:
    assert wording.size(value) == said


@pytest.mark.parametrize(("value", "said"), [(0.001, "0.00"), (9.876, "9.88"), (98.76, "98.8"), (1234.5, "1234")])
def test_durations_have_three_digits(value: float, said: str) -> None:
    assert wording.milliseconds(value) == said


def test_the_csv_has_a_line_for_each_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(spreadsheet.matrix(document()))))
    assert len(rows) == 6 * 5
    assert rows[-9] | {"tries": ""} == {
        "id": "d-core-pattern",
        "category": "d",
        "tries": "",
        "source": "by hand",
        "capability": "",
        "where": "container",
        "column": "netadmin",
        "verdict": "refused",
        "errno": "EACCES",
        "signal": "",
        "process": "engine",
        "outside": "file /run/open/x",
        "reason": "",
    }


def test_the_csv_of_exposure_has_a_line_for_each_verb() -> None:
    rows = list(csv.DictReader(io.StringIO(spreadsheet.exposure(document()))))
    assert [(row["plugin"], row["column"], row["verb"], row["times_root"]) for row in rows] == [
        ("bridge", "root", "ADD", "1.00"),
        ("bridge", "hardened", "ADD", "6.00"),
        ("bridge", "runner", "ADD", "8.00"),
        ("bridge", "runner", "DEL", ""),
        ("ptp", "root", "ADD", "1.00"),
    ]
    assert rows[0]["held_count"] == "41"
    assert rows[1]["syscalls_allowed"] == "57"


@pytest.mark.parametrize("text", ["=1+1", "@x", "-1", "+1", "\t=1"])
def test_no_field_is_a_formula(text: str) -> None:
    for made in (spreadsheet.matrix(hostile(text)), spreadsheet.exposure(hostile(text))):
        for row in csv.reader(io.StringIO(made)):
            assert not [field for field in row if field[:1] in {"=", "@", "+", "-", "\t"}]

"""The audit document as CSV: one line for each attempt and column, and one for each plugin, column and verb.

Privilege: none.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.schema import Document, Exposure, Verb
from cnisandbox.laboratory.report.wording import columns_of, name_of

MATRIX_FIELDS = (
    "id",
    "category",
    "tries",
    "source",
    "capability",
    "where",
    "column",
    "verdict",
    "errno",
    "signal",
    "process",
    "outside",
    "reason",
)
EXPOSURE_FIELDS = (
    "plugin",
    "network",
    "column",
    "verb",
    "rounds",
    "median_ms",
    "q1_ms",
    "q3_ms",
    "times_root",
    "processes",
    "held_count",
    "held",
    "exercised",
    "needed",
    "untrusted_bytes_max",
    "syscalls_used",
    "syscalls_allowed",
    "syscalls_total",
    "files_opened",
    "files_written",
    "netns_handles",
)


def matrix(document: Document) -> str:
    """Write a line for each attempt and column."""
    rows = (
        [
            *(row["id"], row["category"], row["tries"], row["source"], row["capability"], row["where"], column),
            *(cell["verdict"], cell["errno"], cell["signal"], cell["process"]),
            *("; ".join(cell["outside"]), cell["reason"]),
        ]
        for category in tally.categories(document)
        for row, cells in category.rows
        for column, cell in ((column, cells[column]) for column in columns_of(document))
    )
    return _written(MATRIX_FIELDS, rows)


def exposure(document: Document) -> str:
    """Write a line for each plugin, column and verb; several names in a field are separated by spaces."""
    rows = (
        _exposure_row(document, each, name, verb)
        for each in document["plugins"]
        for name, verb in each["verbs"].items()
    )
    return _written(EXPOSURE_FIELDS, rows)


def _exposure_row(document: Document, each: Exposure, name: str, verb: Verb) -> list[object]:
    duration, sets, calls = verb["duration_ms"], verb["capabilities"], verb["syscalls"]
    ratio = tally.duration_ratio(document, each, name)
    return [
        *(each["plugin"], name_of(each), each["column"], name, each["rounds"]),
        *(f"{duration[key]:.3f}" for key in ("median", "q1", "q3")),
        "" if ratio is None else f"{ratio:.2f}",
        len(verb["processes"]),
        len(sets["held"]),
        *(" ".join(names) for names in (sets["held"], sets["exercised"], sets["needed"])),
        max(verb["untrusted_bytes"].values(), default=0),
        len(calls["used"]),
        "" if calls["allowed"] is None else calls["allowed"],
        calls["total"],
        *(len(verb["files"]["opened"]), len(verb["files"]["written"]), len(verb["netns_handles"])),
    ]


def _written(fields: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_harmless(value) for value in row] for row in rows)
    return buffer.getvalue()


def _harmless(value: object) -> object:
    """Keep a text from being a formula for the program that opens the file."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value

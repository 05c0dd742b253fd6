"""The audit document as text, 100 columns wide: what is printed, and what audit.txt holds.

Privilege: none.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.schema import CellMembers, Document, Exposure, Machine, Verb
from cnisandbox.laboratory.report.wording import (
    CONTROL,
    OUTSIDE_MARK,
    amount,
    capability_name,
    clean,
    columns_of,
    cut,
    filter_words,
    listed,
    milliseconds,
    name_of,
    short,
    untrusted_words,
)
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

WIDTH = 100
# Puts a style ("bold", "dim", "red", "green", "yellow") around a text.
Paint = Callable[[str, str], str]

_STYLES = {WORKED: "red", REFUSED: "green", NO_EFFECT: "green", NOT_APPLICABLE: "dim", UNTESTED: "yellow"}
_CONTAINED = {"yes": "green", "partly": "yellow", "no": "red"}
_LEAST_FIRST = 12


class _Cell(NamedTuple):
    text: str
    style: str = ""


class _Column(NamedTuple):
    """A heading, and whether what stands below it is a number."""

    title: str
    is_number: bool = False


def plain(text: str, _: str) -> str:
    """Leave a text as it is."""
    return text


def render(document: Document, paint: Paint = plain) -> str:
    """Write the document down, the summary last, where a terminal shows it.

    Args:
        document: What was measured.
        paint: Puts colour to it; none by default.
    """
    parts = [
        _heading(document, paint),
        _matrix(document, paint),
        _exposures(document, paint),
        _replays(document, paint),
        _gaps(document, paint),
        _summary(document, paint),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def machine_line(machine: Machine) -> str:
    """Say in a line what the machine is."""
    modules = f", {' '.join(machine['lsm'])}" if machine["lsm"] else ""
    return clean(f"{machine['kernel']} {machine['architecture']}, {amount(machine['cpus'], 'processor')}{modules}")


def packages_line(machine: Machine) -> str:
    """List the packages that are installed."""
    return ", ".join(clean(f"{name} {version}") for name, version in machine["packages"].items() if version) or "-"


def vectors_line(document: Document) -> str:
    """Say which list of attempts it was."""
    vectors = document["vectors"]
    made = amount(len(vectors["list"]), "attempt")
    return clean(f"list {vectors['version']}, {made}, sha256 {vectors['sha256'][:16]}")


def _heading(document: Document, paint: Paint) -> str:
    report, machine = document["report"], document["machine"]
    pairs = [
        ("kernel", machine_line(machine)),
        ("packages", packages_line(machine)),
        ("vectors", vectors_line(document)),
        ("measured", clean(f"{report['date']}, in {report['duration_s']:.0f} s, by cnisandbox {report['cnisandbox']}")),
        ("command", clean(" ".join(report["command"]))),
    ]
    lines = [_wrapped(f"  {title:<10}", text) for title, text in pairs]
    return "\n".join([paint("Blast radius: what a hostile plugin could do", "bold"), *lines])


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _table(columns: Sequence[_Column], rows: Sequence[Sequence[_Cell]], paint: Paint) -> list[str]:
    """Lay out a table: headings in capitals, columns two spaces apart; the first gives way where the width ends."""
    widths = [
        max(len(column.title), *(len(row[index].text) for row in rows)) if rows else len(column.title)
        for index, column in enumerate(columns)
    ]
    room = WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1)
    widths[0] = max(_LEAST_FIRST, min(widths[0], room))
    header = [_Cell(column.title.upper(), "dim") for column in columns]
    return [_line(cells, columns, widths, paint) for cells in (header, *rows)]


def _line(cells: Sequence[_Cell], columns: Sequence[_Column], widths: Sequence[int], paint: Paint) -> str:
    shown = []
    for index, (cell, column, width) in enumerate(zip(cells, columns, widths, strict=True)):
        text = cut(cell.text, width)
        is_last = index == len(cells) - 1
        text = text.rjust(width) if column.is_number else text if is_last else text.ljust(width)
        shown.append(paint(text, cell.style) if cell.style and text.strip() else text)
    return "  ".join(shown).rstrip()


def _matrix(document: Document, paint: Paint) -> str:
    names = columns_of(document)
    columns = [_Column("attempt"), *(_Column(clean(name)) for name in names)]
    categories = tally.categories(document)
    if not categories:
        return ""
    # One layout for all categories, so that their columns stand below each other.
    rows = [
        [_Cell(row["id"]), *(_matrix_cell(cells[name]) for name in names)]
        for category in categories
        for row, cells in category.rows
    ]
    header, *lines = _table(columns, rows, paint)
    shown, begin = [header], 0
    for category in categories:
        shown += ["", paint(f"{category.letter}  {category.title}", "bold")]
        shown += lines[begin : begin + len(category.rows)]
        begin += len(category.rows)
    shown += ["", paint(f"{OUTSIDE_MARK} changed something outside the container's network namespace", "dim")]
    return "\n".join(shown)


def _matrix_cell(cell: CellMembers) -> _Cell:
    return _Cell(short(cell), "red" if cell["outside"] else _STYLES[cell["verdict"]])


def _exposures(document: Document, paint: Paint) -> str:
    columns = [
        _Column("exposure"),
        _Column("column"),
        _Column("verb"),
        _Column("ms", is_number=True),
        _Column("iqr"),
        _Column("held", is_number=True),
        _Column("used", is_number=True),
        _Column("syscalls", is_number=True),
        _Column("untrusted", is_number=True),
        _Column("needed"),
    ]
    rows = [
        _exposure_row(exposure, name, verb)
        for exposure in document["plugins"]
        for name, verb in exposure["verbs"].items()
    ]
    if not rows:
        return ""
    notes = (
        "held, used: capabilities that some process of the call held, and that the kernel checked on its behalf; "
        "syscalls: what the filter of the most privileged process allows; untrusted: the most that was read of what "
        "others wrote while any one capability was held, and how many were; needed: by running again without."
    )
    return "\n".join([*_table(columns, rows, paint), paint(textwrap.fill(notes, WIDTH), "dim")])


def _exposure_row(exposure: Exposure, name: str, verb: Verb) -> list[_Cell]:
    sets, duration = verb["capabilities"], verb["duration_ms"]
    needed = listed(map(capability_name, sets["needed"]), 1)
    untrusted = untrusted_words(verb)
    return [
        _Cell(cut(name_of(exposure), 18)),
        _Cell(cut(exposure["column"], 10)),
        _Cell(cut(name, 6)),
        _Cell(milliseconds(duration["median"])),
        _Cell(f"{milliseconds(duration['q1'])}-{milliseconds(duration['q3'])}"),
        _Cell(str(len(sets["held"])), _style_of_count(len(sets["held"]))),
        _Cell(str(len(sets["exercised"]))),
        _Cell(filter_words(verb)),
        _Cell(untrusted, "red" if any(verb["untrusted_bytes"].values()) else "green"),
        _Cell(cut(needed, 22)),
    ]


def _style_of_count(count: int) -> str:
    return "green" if count == 0 else "yellow" if count == 1 else "red"


def _replays(document: Document, paint: Paint) -> str:
    replays = document["replays"]
    if not replays:
        return ""
    names = list(dict.fromkeys(column for replay in replays for column in replay["columns"]))
    columns = [_Column("replay"), _Column("contained"), *(_Column(cut(name, 12)) for name in names), _Column("what")]
    rows = [
        [
            _Cell(cut(replay["cve"], 22)),
            _Cell(replay["contained"], _CONTAINED[replay["contained"]]),
            *(_Cell(replay["columns"][name]["verdict"] if name in replay["columns"] else "-") for name in names),
        ]
        for replay in replays
    ]
    used = sum(
        max(len(column.title), *(len(row[index].text) for row in rows)) + 2 for index, column in enumerate(columns[:-1])
    )
    for row, replay in zip(rows, replays, strict=True):
        row.append(_Cell(cut(replay["title"], max(WIDTH - used, _LEAST_FIRST))))
    return "\n".join(_table(columns, rows, paint))


def _gaps(document: Document, paint: Paint) -> str:
    if not document["gaps"]:
        return ""
    lines = [_wrapped("  ", clean(f"{gap['what']}: {gap['why']}")) for gap in document["gaps"]]
    return "\n".join([paint("not measured", "bold"), *lines])


def _summary(document: Document, paint: Paint) -> str:
    names = columns_of(document)
    categories = tally.categories(document)
    if not categories:
        return ""
    columns = [
        _Column("attempts that work"),
        _Column("of", is_number=True),
        *(_Column(clean(name), is_number=True) for name in names),
    ]
    rows = [
        [
            _Cell(f"{category.letter}  {category.title}"),
            _Cell(str(len(category.rows))),
            *(_count(tally.sums(category.rows, name).worked, name) for name in names),
        ]
        for category in categories
    ]
    totals = tally.totals(document)
    every = _Cell(str(len(document["vectors"]["list"])))
    rows.append([_Cell("together", "bold"), every, *(_count(totals[name].worked, name) for name in names)])
    rows.append([_Cell("change something outside"), every, *(_count(totals[name].outside, name) for name in names)])
    return "\n".join([*_table(columns, rows, paint), *_still_working(document)])


def _count(count: int, column: str) -> _Cell:
    return _Cell(str(count), "" if column == CONTROL else "red" if count else "green")


def _still_working(document: Document) -> Iterator[str]:
    """Name, from the strictest column on, what still works there, as long as that are few."""
    for name in reversed(columns_of(document)):
        if name == CONTROL:
            continue
        ids = [
            row["id"]
            for row, cells in tally.still_working(document)
            if cells[name]["verdict"] == WORKED or cells[name]["outside"]
        ]
        if 0 < len(ids) <= 8:
            yield _wrapped(clean(f"still works, or changes something, at {name}: "), clean(", ".join(ids)))

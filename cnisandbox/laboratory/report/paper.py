"""The audit document as pieces for a paper or a page of documentation: tables in Markdown, figures that stand alone.

Privilege: none.
"""

from collections.abc import Iterator, Sequence

from cnisandbox.laboratory.report import tally, terminal
from cnisandbox.laboratory.report.figures.board import Figure
from cnisandbox.laboratory.report.page import style
from cnisandbox.laboratory.report.schema import Document, Verb
from cnisandbox.laboratory.report.wording import (
    capability_name,
    clean,
    columns_of,
    filter_words,
    milliseconds,
    name_of,
    size,
)
from cnisandbox.laboratory.vector import WORKED

_CONFINED = ("mediated", "runner")
_SHOWN_HELD = ("CAP_SYS_ADMIN", "CAP_NET_ADMIN")


def tables(document: Document) -> str:
    """Write the tables."""
    parts = [
        ("Machine", _machine(document)),
        ("Attempts that work", _attempts(document)),
        ("What still works without a capability", _remaining(document)),
        ("Exposure of an ADD", _exposures(document)),
        ("Defects of the past", _replays(document)),
    ]
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts if table)


def figure(drawn: Figure) -> str:
    """Make a file of a figure: with the page's colours, light or dark as its reader has it."""
    head, rest = drawn.svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style.FIGURE_STYLE}</style>{rest}\n'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: range = range(0)) -> str:
    rule = ["---:" if index in numbers else "---" for index in range(len(heads))]
    return "".join(f"| {' | '.join(_cell(text) for text in row)} |\n" for row in (heads, rule, *rows))


def _cell(text: str) -> str:
    return clean(text).replace("|", "\\|")


def _machine(document: Document) -> str:
    report = document["report"]
    rows = [
        ["kernel", terminal.machine_line(document["machine"])],
        ["packages", terminal.packages_line(document["machine"])],
        ["attempts", terminal.vectors_line(document)],
        ["measured", f"{report['date']}, in {report['duration_s']:.0f} s, by cnisandbox {report['cnisandbox']}"],
    ]
    return _table(["", ""], rows)


def _attempts(document: Document) -> str:
    names = columns_of(document)
    rows = []
    for category in tally.categories(document):
        sums = [tally.sums(category.rows, name) for name in names]
        made = max((total.made for total in sums), default=0)
        rows.append([f"{category.letter}: {category.title}", str(made), *(str(total.worked) for total in sums)])
    totals = tally.totals(document)
    most = str(max((total.made for total in totals.values()), default=0))
    rows.append(["together", most, *(str(totals[name].worked) for name in names)])
    rows.append(["change something outside", most, *(str(totals[name].outside) for name in names)])
    return _table(["category", "tried", *names], rows, range(1, len(names) + 2))


def _remaining(document: Document) -> str:
    names = [name for name in _CONFINED if name in columns_of(document)]
    rows = []
    for row, cells in tally.still_working(document):
        told = [_remainder(cells[name]["verdict"] == WORKED, cells[name]["outside"]) for name in names]
        if any(told):
            rows.append([f"`{row['id']}`", row["tries"], *told])
    return _table(["attempt", "what is tried", *names], rows) if rows else ""


def _remainder(has_worked: bool, outside: Sequence[str]) -> str:
    return ("works" if has_worked else "") + (" and is seen outside" if outside else "")


def _exposures(document: Document) -> str:
    heads = [
        *("plugin", "column", "ms", "capabilities needed", "SYS_ADMIN held", "NET_ADMIN held"),
        *("bytes read with SYS_ADMIN", "with NET_ADMIN", "system calls", "netns in reach"),
    ]
    rows = []
    for exposure, verb in tally.measured(document):
        shares = [_share(verb, name) for name in _SHOWN_HELD]
        read = [size(verb["untrusted_bytes"].get(name, 0)) for name in _SHOWN_HELD]
        needed = ", ".join(map(capability_name, verb["capabilities"]["needed"])) or "none"
        duration = milliseconds(verb["duration_ms"]["median"])
        rows.append(
            [
                *(name_of(exposure), exposure["column"], duration, needed, *shares, *read),
                *(filter_words(verb), str(len(verb["netns_handles"]))),
            ]
        )
    return _table(heads, rows, range(2, 3)) if rows else ""


def _share(verb: Verb, capability: str) -> str:
    held = verb["held_ms"].get(capability)
    return f"{held['share']:.0%}" if held else "0%"


def _replays(document: Document) -> str:
    replays = document["replays"]
    if not replays:
        return ""
    names = list(dict.fromkeys(column for replay in replays for column in replay["columns"]))
    rows = [
        [
            *(replay["cve"], replay["title"]),
            *(replay["columns"][name]["verdict"] if name in replay["columns"] else "-" for name in names),
            replay["contained"],
        ]
        for replay in replays
    ]
    return _table(["defect", "what", *names, "contained"], rows)


def files(document: Document, figures: Sequence[Figure]) -> Iterator[tuple[str, str]]:
    """Name the files, with their content."""
    yield "audit.md", tables(document)
    for drawn in figures:
        yield f"figure-{drawn.name.replace('-2d', '-')}.svg", figure(drawn)

"""The attempts on the page: sums, and every cell as a table.

Privilege: none.
"""

from collections.abc import Sequence

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.page.markup import Column, Markup, code, element, folded, html, joined, table
from cnisandbox.laboratory.report.schema import CellMembers, Document
from cnisandbox.laboratory.report.wording import COLUMN_TITLES, CONTROL, OUTSIDE_MARK, columns_of, short
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

CLASSES = {
    WORKED: "works",
    REFUSED: "refuses",
    NO_EFFECT: "nothing",
    NOT_APPLICABLE: "not-here",
    UNTESTED: "unknown",
}


def attempts(document: Document, figure: Markup) -> Markup:
    """Show the attempts around their figure."""
    categories = tally.categories(document)
    if not categories:
        return Markup()
    names = columns_of(document)
    rows = [
        [
            html(f"{category.letter}  {category.title}"),
            str(len(category.rows)),
            *(_sum_words(tally.sums(category.rows, name)) for name in names),
        ]
        for category in categories
    ]
    totals = tally.totals(document)
    rows.append(["together", str(len(document["vectors"]["list"])), *(_sum_words(totals[name]) for name in names)])
    columns = [Column("category"), Column("attempts", True), *(Column(name, True) for name in names)]
    caption = f"How many attempts work, and with {OUTSIDE_MARK} how many change something outside"
    return joined(
        [
            element("p", _columns_explained(names)),
            table(caption, columns, rows, last_is_total=True),
            figure,
            _still_working(document, names),
            folded(
                f"All {len(document['vectors']['list'])} attempts as tables",
                *(_category_table(category, names) for category in categories),
            ),
        ]
    )


def _columns_explained(names: Sequence[str]) -> str:
    known = [f"{name}: {COLUMN_TITLES[name]}" for name in names if name in COLUMN_TITLES]
    return "The same attempts in each column. " + "; ".join(known) + "."


def _sum_words(total: tally.Sum) -> str:
    return f"{total.worked}, {total.outside}{OUTSIDE_MARK}" if total.outside else str(total.worked)


def _still_working(document: Document, names: Sequence[str]) -> Markup:
    working = tally.still_working(document)
    confined = [name for name in names if name != CONTROL]
    if not confined:
        return Markup()
    title = element("h3", "What a confined process still can do")
    if not working:
        return joined([title, element("p", "Nothing of the list works in any column but the control.")])
    rows = [
        [code(row["id"]), html(row["tries"]), *(_cell(cells[name]) for name in confined), _outside(cells, confined)]
        for row, cells in working
    ]
    columns = [Column("attempt"), Column("tries"), *map(Column, confined), Column("changed outside")]
    return joined(
        [title, table("Attempts that work, or change something outside, in a confined column", columns, rows)]
    )


def _category_table(category: tally.Category, names: Sequence[str]) -> Markup:
    has_advice = any(row["advice"] or row["capability"] for row, _ in category.rows)
    columns = [
        Column("attempt"),
        Column("tries"),
        *([Column("advice")] if has_advice else []),
        *map(Column, names),
        Column("where, what changed outside"),
        Column("source"),
    ]
    rows = [
        [
            code(row["id"]),
            html(row["tries"]),
            *([html(row["advice"])] if has_advice else []),
            *(_cell(cells[name]) for name in names),
            _details(cells, names),
            html(row["source"]),
        ]
        for row, cells in category.rows
    ]
    return table(f"{category.letter}  {category.title}", columns, rows)


def _cell(cell: CellMembers) -> Markup:
    kind = "outside" if cell["outside"] and cell["verdict"] == WORKED else CLASSES[cell["verdict"]]
    return element("span", short(cell), class_=f"cell {kind}")


def _details(cells: dict[str, CellMembers], names: Sequence[str]) -> Markup:
    """Say what the short word of a cell leaves out: why, in which process, and what changed outside."""
    told: dict[str, list[str]] = {}
    for name in names:
        cell = cells[name]
        if cell["reason"]:
            told.setdefault(cell["reason"], []).append(name)
        if cell["verdict"] == WORKED and name != CONTROL:
            told.setdefault(f"in the {cell['process']}", []).append(name)
    lines = [html(f"{', '.join(columns)}: {text}") for text, columns in told.items()]
    outside = _outside(cells, names)
    return Markup("<br>".join(lines + ([outside] if outside else [])))


def _outside(cells: dict[str, CellMembers], names: Sequence[str]) -> Markup:
    changed: dict[str, list[str]] = {}
    for name in names:
        if cells[name]["outside"]:
            changed.setdefault("; ".join(cells[name]["outside"]), []).append(name)
    return Markup("<br>".join(html(f"{', '.join(columns)}: {text}") for text, columns in changed.items()))

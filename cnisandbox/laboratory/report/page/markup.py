"""The few elements of HTML that the page is made of; whatever is text is escaped here.

Privilege: none.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from cnisandbox.laboratory.report.wording import clean


class Markup(str):
    """HTML, as against a text that is yet to be escaped."""

    __slots__ = ()


DASH = Markup("&ndash;")


class Column(NamedTuple):
    """A heading of a table, and whether what stands below it is a number."""

    title: str
    is_number: bool = False


def html(part: str) -> Markup:
    """Escape a text; HTML is left as it is."""
    return part if isinstance(part, Markup) else Markup(escape(clean(part)))


def joined(parts: Iterable[str]) -> Markup:
    """Put parts one after the other."""
    return Markup("".join(html(part) for part in parts))


def element(tag: str, *parts: str, **attributes: str) -> Markup:
    """Make an element; attributes whose names are words of Python end in an underscore."""
    given = "".join(f' {name.rstrip("_").replace("_", "-")}="{html(text)}"' for name, text in attributes.items())
    return Markup(f"<{tag}{given}>{joined(parts)}</{tag}>")


def section(anchor: str, title: str, *parts: str) -> Markup:
    """Make a section; none where there is nothing in it."""
    if not any(parts):
        return Markup()
    heading = element("h2", title, id=f"{anchor}-title")
    return element("section", heading, *parts, id=anchor, aria_labelledby=f"{anchor}-title")


def table(
    caption: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], last_is_total: bool = False
) -> Markup:
    """Make a table whose first column heads the rows; none where there are no rows.

    Args:
        caption: What it shows.
        columns: One for each cell of a row.
        rows: Texts or HTML.
        last_is_total: Whether the last row sums the others up.
    """
    if not rows:
        return Markup()
    kinds = [{"class_": "n"} if column.is_number else {} for column in columns]
    head = [element("th", column.title, scope="col", **kind) for column, kind in zip(columns, kinds, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        first, *rest = row
        cells = [element("td", cell, **kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        is_total = last_is_total and number == len(rows) - 1
        lines.append(
            element("tr", element("th", first, scope="row"), *cells, **({"class_": "total"} if is_total else {}))
        )
    body = element("thead", element("tr", *head)) + element("tbody", *lines)
    inner = element("table", element("caption", caption), Markup(body))
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def pairs(entries: Iterable[tuple[str, str]]) -> Markup:
    """Make a list of names and what they are."""
    return element(
        "dl", *(joined((element("dt", name), element("dd", text))) for name, text in entries), class_="facts"
    )


def folded(summary: str, *parts: str) -> Markup:
    """Make something that opens when it is asked for; nothing where there is nothing in it."""
    return element("details", element("summary", summary), *parts) if any(parts) else Markup()


def code(text: str) -> Markup:
    """Set a text as code."""
    return element("code", text)


def codes(names: Iterable[str]) -> Markup:
    """Set names as code, with commas between; a dash for none."""
    return Markup(", ".join(code(name) for name in names)) or DASH


def lines(texts: Iterable[str]) -> Markup:
    """Put texts below each other; a dash for none."""
    return Markup("<br>".join(html(text) for text in texts)) or DASH

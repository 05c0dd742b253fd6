"""The audit document as one page of HTML that refers to nothing outside itself: figures, and the same as tables.

Privilege: none.
"""

from collections.abc import Sequence

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.figures.board import Figure
from cnisandbox.laboratory.report.page import remainder
from cnisandbox.laboratory.report.page.attempts import attempts
from cnisandbox.laboratory.report.page.exposure import exposures, raw_sets
from cnisandbox.laboratory.report.page.markup import Markup, code, element, html, joined, pairs, section
from cnisandbox.laboratory.report.page.style import STYLE
from cnisandbox.laboratory.report.schema import Document
from cnisandbox.laboratory.report.terminal import machine_line, packages_line, vectors_line
from cnisandbox.laboratory.report.wording import COLUMN_TITLES, amount

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render(document: Document, figures: Sequence[Figure]) -> str:
    """Write the page.

    Args:
        document: What was measured.
        figures: As `figures.draw` makes them of the same document.
    """
    drawn = {figure.name: _figure(figure) for figure in figures}
    courses = joined(each for name, each in drawn.items() if name.startswith("time-"))
    sections = [
        ("attempts", "What an attacker gets", attempts(document, drawn.get("matrix", Markup()))),
        ("time", "Exposure over time", _with_lede(_TIME, courses, exposures(document))),
        (
            "capabilities",
            "Held, exercised, needed",
            _with_lede(_HELD, drawn.get("capabilities", Markup()), raw_sets(document)),
        ),
        ("price", "What it costs", _with_lede(_PRICE, drawn.get("price", Markup()))),
        ("replays", "Defects of the past, replayed", remainder.replays(document)),
        ("limits", "What this does not show", remainder.limits(document)),
        ("provenance", "Where it was measured", remainder.provenance(document)),
    ]
    shown = [(anchor, title, content) for anchor, title, content in sections if content]
    contents = element(
        "nav",
        element("ul", *(element("li", element("a", title, href=f"#{anchor}")) for anchor, title, _ in shown)),
        aria_label="Contents",
    )
    body = joined(
        [
            element("a", "Skip to the results", class_="skip", href="#results"),
            element("header", _heading(document), contents),
            element("main", *(section(*each) for each in shown), id="results"),
            element("footer", html(f"Written by cnisandbox {document['report']['cnisandbox']} from audit.json.")),
        ]
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{html(_POLICY)}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>Blast radius: {html(document['machine']['kernel'])}</title><style>\n{STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


_TIME = (
    "Each process of the call whose duration is the median one, from its start to its end. Whoever takes over a "
    "process has what it holds from that moment on."
)
_HELD = (
    "A capability that is held and not needed is an opportunity for nobody but an attacker. What is needed was found "
    "by ablation: the call is made again without the capability, and has to lead to the same result."
)
_PRICE = "Protection that makes calls slow is switched off. Both stand side by side here."


def _with_lede(lede: str, *parts: Markup) -> Markup:
    return joined([element("p", lede), *parts]) if any(parts) else Markup()


def _figure(figure: Figure) -> Markup:
    return element("figure", Markup(figure.svg), element("figcaption", figure.caption))


def _heading(document: Document) -> Markup:
    report, machine = document["report"], document["machine"]
    facts = [
        ("Kernel", html(machine_line(machine))),
        ("Packages", html(packages_line(machine))),
        ("Attempts", html(vectors_line(document))),
        ("Measured", html(f"{report['date']}, in {report['duration_s']:.0f} s")),
        ("Command", code(" ".join(report["command"]))),
    ]
    lede = (
        "What somebody who has taken over a network plugin of a container runtime can do to the machine, for each way "
        "to run the plugin. Whether an attempt worked was read from the kernel's state, outside the attacked process."
    )
    tiles = [_tile(column, total) for column, total in tally.totals(document).items() if document["vectors"]["list"]]
    return joined(
        [
            element("h1", "Blast radius"),
            element("p", lede, class_="lede"),
            element("ul", *tiles, class_="tiles") if tiles else Markup(),
            pairs(facts),
        ]
    )


def _tile(column: str, total: tally.Sum) -> Markup:
    return element(
        "li",
        element("span", column, class_="name"),
        element("span", str(total.worked), class_="number"),
        element(
            "span",
            f"of {amount(total.made, 'attempt')} work, {total.outside} change something outside the container's "
            "network namespace",
            class_="note",
        ),
        element("span", COLUMN_TITLES.get(column, ""), class_="note"),
    )

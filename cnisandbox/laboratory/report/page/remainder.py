"""The end of the page: defects of the past, what was not measured, and where it was measured.

Privilege: none.
"""

from collections.abc import Iterable

from cnisandbox.laboratory.report.page.attempts import CLASSES
from cnisandbox.laboratory.report.page.markup import (
    DASH,
    Column,
    Markup,
    code,
    element,
    folded,
    html,
    joined,
    lines,
    pairs,
    table,
)
from cnisandbox.laboratory.report.schema import Document, Replay, ReplayOutcome
from cnisandbox.laboratory.report.wording import label

_OUTCOMES = {**CLASSES, "partly worked": "works", "not run": "not-here"}
_CONTAINED = {"yes": "refuses", "partly": "unknown", "no": "works"}


def replays(document: Document) -> Markup:
    """Show what came of the replays."""
    if not document["replays"]:
        return Markup()
    names = list(dict.fromkeys(column for replay in document["replays"] for column in replay["columns"]))
    columns = [Column("defect"), Column("contained"), *map(Column, names), Column("why")]
    rows = [
        [
            joined([element("strong", replay["cve"]), Markup("<br>"), html(replay["title"])]),
            element("span", replay["contained"], class_=f"cell {_CONTAINED[replay['contained']]}"),
            *(_replay_cell(replay, name) for name in names),
            html(replay["why"]),
        ]
        for replay in document["replays"]
    ]
    details = [
        folded(f"{replay['cve']}: what was tried and seen", _replay_details(replay)) for replay in document["replays"]
    ]
    return joined([table("Known vulnerabilities, brought back", columns, rows), *details])


def _replay_cell(replay: Replay, column: str) -> Markup:
    if column not in replay["columns"]:
        return DASH
    outcome = replay["columns"][column]
    shown = [element("span", outcome["verdict"], class_=f"cell {_OUTCOMES[outcome['verdict']]}")]
    if "mediated" in outcome:
        mediated = outcome["mediated"]["verdict"]
        shown.append(element("span", f"mediated: {mediated}", class_=f"cell {_OUTCOMES[mediated]}"))
    return Markup("<br>".join(shown))


def _replay_details(replay: Replay) -> Markup:
    entries = [("tries", html(replay["tries"]))]
    for name, cell in replay["columns"].items():
        entries.append((name, _outcome(cell)))
        if "mediated" in cell:
            entries.append((f"{name}, level mediated", _outcome(cell["mediated"])))
    return pairs(entries)


def _outcome(outcome: ReplayOutcome) -> Markup:
    effects = [
        f"{'happened' if effect['happened'] else 'did not happen'}: {effect['effect']} ({effect['seen']})"
        for effect in outcome["effects"]
    ]
    said = [f"said: {outcome['said']}"] if outcome["said"] else []
    reason = [outcome["reason"]] if outcome["reason"] else []
    return lines([f"{outcome['verdict']}: {outcome['subject']}", *effects, *said, *reason])


def limits(document: Document) -> Markup:
    """Say what the document does not show."""
    exposures = document["plugins"]
    unseen = [text for text in _unseen(document) if all(text in exposure["cannot_see"] for exposure in exposures)]
    gaps = [f"{gap['what']}: {gap['why']}" for gap in document["gaps"]]
    parts = [
        element(
            "p", "An attempt that is refused shows that this attempt is refused, and nothing about what nobody tried."
        ),
    ]
    for title, texts in (("What the method cannot see", unseen), ("What was not measured", gaps)):
        if texts:
            parts += [element("h3", title), _list(texts)]
    for exposure in exposures:
        own = [text for text in exposure["cannot_see"] if text not in unseen]
        parts.append(folded(f"{label(exposure)}: remarks", *([_list(own)] if own else [])))
    return joined(parts)


def _unseen(document: Document) -> Iterable[str]:
    return dict.fromkeys(text for exposure in document["plugins"] for text in exposure["cannot_see"])


def _list(texts: Iterable[str]) -> Markup:
    return element("ul", *(element("li", text) for text in texts))


def provenance(document: Document) -> Markup:
    """Say on what machine, with what programs and what list it was measured."""
    machine, vectors = document["machine"], document["vectors"]
    facts = [
        ("List of attempts", joined(["version ", vectors["version"], ", sha256 ", code(vectors["sha256"])])),
        ("Kernel configuration", joined(["sha256 ", code(machine["config_sha256"] or "unknown")])),
        ("Python", html(machine["python"])),
        ("Processors", str(machine["cpus"])),
        ("Security modules", html(" ".join(machine["lsm"]) or "unknown")),
    ]
    programs = {(exposure["path"], exposure["sha256"]) for exposure in document["plugins"]}
    return joined(
        [
            pairs(facts),
            table(
                "Programs",
                [Column("path"), Column("sha256")],
                [[code(path), code(sha)] for path, sha in sorted(programs)],
            ),
            folded("Packages, kernel options and settings", *_configuration(document)),
        ]
    )


def _configuration(document: Document) -> Iterable[Markup]:
    machine = document["machine"]
    named = (
        ("Packages", "package", {name: version or "not installed" for name, version in machine["packages"].items()}),
        ("Kernel options that matter here", "option", machine["config"]),
        ("Settings that matter here", "setting", machine["sysctls"]),
    )
    for caption, title, values in named:
        yield table(
            caption, [Column(title), Column("value")], [[code(name), code(text)] for name, text in values.items()]
        )

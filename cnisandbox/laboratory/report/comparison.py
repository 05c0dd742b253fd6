"""What a comparison found, for a person and for a program.

Privilege: none.
"""

from collections.abc import Sequence

from cnisandbox.laboratory.report.compare import BETTER, CHANGED, KINDS, LOST, NEW, WORSE, Finding, summary
from cnisandbox.laboratory.report.terminal import Paint, plain
from cnisandbox.laboratory.report.wording import clean, cut

SCHEMA = "cnisandbox-audit-compare/1"
_STYLES = {WORSE: "red", LOST: "yellow", BETTER: "green", NEW: "yellow", CHANGED: "dim"}
_MOST_WHERE, _MOST_VALUE = 60, 160


def render(findings: Sequence[Finding], paint: Paint = plain) -> str:
    """Write the findings down: the worse ones first, the sum last.

    Args:
        findings: As `compare` gives them.
        paint: Puts colour to it; none by default.
    """
    parts = [_listed(kind, [each for each in findings if each.kind == kind], paint) for kind in KINDS]
    return "\n\n".join([*(part for part in parts if part), summary(findings)]) + "\n"


def members(findings: Sequence[Finding], is_worse: bool) -> dict[str, object]:
    """Make the JSON document of a comparison.

    Args:
        findings: As `compare` gives them.
        is_worse: Whether they add up to "worse".
    """
    counts = {kind: sum(each.kind == kind for each in findings) for kind in KINDS}
    return {
        "schema": SCHEMA,
        "worse": is_worse,
        "counts": counts,
        "findings": [{**each._asdict(), "where": list(each.where)} for each in findings],
    }


def _listed(kind: str, findings: Sequence[Finding], paint: Paint) -> str:
    if not findings:
        return ""
    titles = [cut(" ".join(finding.where), _MOST_WHERE) for finding in findings]
    width = max(map(len, titles))
    lines = [
        f"  {title.ljust(width)}  {_change(finding)}".rstrip() for title, finding in zip(titles, findings, strict=True)
    ]
    return "\n".join([paint(clean(kind), _STYLES[kind]), *lines])


def _change(finding: Finding) -> str:
    before, after = (cut(text, _MOST_VALUE) for text in (finding.before, finding.after))
    if before and after:
        return f"{before} -> {after}"
    return f"+ {after}" if after else f"- {before}" if before else ""

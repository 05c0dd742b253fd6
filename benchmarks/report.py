"""What a run is shown as: files in benchmarks/results/, tables in docs/performance.md."""

import json
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plot
from targets import Verdict, verdicts

RESULTS = Path(__file__).parent / "results"
# The run that is quoted.
QUOTED = Path(__file__).parents[1] / "docs" / "performance"
DOCUMENTS = (QUOTED.with_suffix(".md"), QUOTED.parents[1] / "README.md")
FILES = ("bench.json", "bench.txt", "bench.svg")
# By the beginning of their scenarios' titles.
_SECTIONS = {
    "calls": ("VERSION", "loopback", "bridge + host-local"),
    "chain": ("bridge + portmap",),
    "crowd": ("pods:",),
    "runner": ("runner:",),
    "reservations": ("host-local",),
    "start": ("call a function",),
}
_WIDTH = 118
_MARKED = re.compile(r"(<!-- bench: ([^>\n]*) -->\n).*?(<!-- /bench -->\n)", re.DOTALL)

Cell = Callable[[dict[str, Any] | None, bool], str]  # of a subject's figures, and whether it is the first one


def write_results(document: dict[str, Any]) -> None:
    """Write the files of a run."""
    texts = (json.dumps(document, indent=1) + "\n", full_table(document), plot.draw(document))
    for name, text in zip(FILES, texts, strict=True):
        (RESULTS / name).write_text(text)


def write_document() -> None:
    """Copy the last run's files to docs/performance/, and its tables into the documents that quote it."""
    for name in FILES:
        shutil.copyfile(RESULTS / name, QUOTED / name)
    document = json.loads((QUOTED / "bench.json").read_text())
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text(), document))


def with_tables(text: str, document: dict[str, Any]) -> str:
    """Replace what stands between the marks of a text."""
    tables = sections(document)
    return _MARKED.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", text)


def sections(document: dict[str, Any]) -> dict[str, str]:
    """Make the tables for a document, by the names of their marks."""
    made = {"machine": _machine(document), "targets": _markdown(*_targets(verdicts(document)))}
    costs = document["machine"]["costs_us"]
    made["costs"] = _markdown(["", "microseconds"], [[step, f"{cost:.1f}"] for step, cost in costs.items()])
    for section, prefixes in _SECTIONS.items():
        chosen = {title: verbs for title, verbs in document["scenarios"].items() if title.startswith(prefixes)}
        made[section] = _markdown(*_rows(chosen, _time))
        made[f"{section}, cost"] = _markdown(*_rows(chosen, _cost))
    return made


def target_table(found: Sequence[Verdict]) -> str:
    """Write the table of targets for a terminal."""
    heads, rows = _targets(found)
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    text = ""
    for first, *others in (heads, *rows):
        cells = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        text += "  ".join(cells).rstrip() + "\n"
    return text


def full_table(document: dict[str, Any]) -> str:
    """Write every figure for a terminal."""
    machine = document["machine"]
    lines = [
        f"{document['command']} at {document['measured_at']}, {document['seconds']} s",
        f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}, "
        f"Python {machine['python']}; reference {document['reference_version']} in {document['reference']}",
        f"zygote, idle: {document['zygote']['processes']} processes, {document['zygote']['pss_mib']} MiB (PSS)",
        ", ".join(f"{step}: {cost} us" for step, cost in machine["costs_us"].items()),
        "",
        target_table(verdicts(document)),
        f"{'ms':32}  {'median':>8}  {'p95':>8}  {'ratio':>6}  {'middle half':>13}  {'CPU':>8}  {'peak MiB':>8}  rounds",
    ]
    for title, verbs in document["scenarios"].items():
        for verb, subjects in verbs.items():
            lines.append(f"\n{title}: {verb}")
            lines += [_line(name, figures) for name, figures in subjects.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, figures: dict[str, Any]) -> str:
    low, high = figures["middle_half"]
    return (
        f"  {name:30}  {figures['median_ms']:8.2f}  {figures['p95_ms']:8.2f}  {figures['ratio']:6.2f}"
        f"  {f'{low:.2f}-{high:.2f}':>13}  {figures['cpu_ms']:8.2f}  {figures.get('peak_mib', ''):>8}"
        f"  {figures['rounds']:6}"
    )


def _targets(found: Sequence[Verdict]) -> tuple[list[str], list[list[str]]]:
    heads = ["against the reference plugin, medians", "measured", "target", ""]
    return heads, [
        [target.title, target.shown(verdict.value), f"≤ {target.shown(target.limit)}", verdict.text]
        for verdict in found
        for target in (verdict.target,)
    ]


def _machine(document: dict[str, Any]) -> str:
    machine = document["machine"]
    text = (
        f"`{document['command']}` took {document['seconds']} s on {machine['processors']} processors "
        f"({machine['model']}), Linux {machine['kernel']}, Python {machine['python'].partition(' ')[0]}, "
        f"on {document['measured_at'][:10]}; the reference is {document['reference_version']}."
    )
    return textwrap.fill(text, _WIDTH) + "\n"


def _rows(scenarios: dict[str, Any], cell: Cell) -> tuple[list[str], list[list[str]]]:
    every = [subjects for verbs in scenarios.values() for subjects in verbs.values()]
    names = list(dict.fromkeys(name for subjects in every for name in subjects))
    rows = [
        [f"{title}: {verb}", *(cell(subjects.get(name), index == 0) for index, name in enumerate(names))]
        for title, verbs in scenarios.items()
        for verb, subjects in verbs.items()
    ]
    return ["", *names], rows


def _time(figures: dict[str, Any] | None, is_first: bool) -> str:
    if figures is None:
        return ""
    return f"{figures['median_ms']:.1f}" + ("" if is_first else f" ({figures['ratio']:.2f})")


def _cost(figures: dict[str, Any] | None, _is_first: bool) -> str:
    if figures is None:
        return ""
    return f"{figures['cpu_ms']:.1f}" + (f"; {figures['peak_mib']:.0f}" if "peak_mib" in figures else "")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in heads[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *rows))

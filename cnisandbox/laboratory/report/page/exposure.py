"""What calls expose, on the page: one table, and the raw sets of each call.

Privilege: none.
"""

from collections.abc import Iterable

from cnisandbox.laboratory.report import tally
from cnisandbox.laboratory.report.page.markup import DASH, Column, Markup, codes, folded, joined, lines, pairs, table
from cnisandbox.laboratory.report.schema import Document, Exposure, Verb
from cnisandbox.laboratory.report.wording import capability_name, filter_words, label, milliseconds, untrusted_words


def exposures(document: Document) -> Markup:
    """Tabulate the calls."""
    columns = [
        Column("call"),
        Column("median ms", True),
        Column("quartiles", True),
        Column("rounds", True),
        Column("times root", True),
        Column("processes", True),
        Column("capabilities held", True),
        Column("longest held", True),
        Column("untrusted bytes, with capabilities", True),
        Column("system calls used", True),
        Column("allowed", True),
        Column("files opened, written", True),
        Column("netns handles", True),
    ]
    rows = [
        _exposure_row(document, exposure, name, verb)
        for exposure in document["plugins"]
        for name, verb in exposure["verbs"].items()
    ]
    return table("What each call exposes; median of the rounds, and quartiles", columns, rows)


def _exposure_row(document: Document, exposure: Exposure, name: str, verb: Verb) -> list[str]:
    duration, held = verb["duration_ms"], verb["held_ms"]
    ratio = tally.duration_ratio(document, exposure, name)
    longest = max(held, key=lambda each: held[each]["share"], default="")
    return [
        f"{label(exposure)} {name}",
        milliseconds(duration["median"]),
        f"{milliseconds(duration['q1'])} to {milliseconds(duration['q3'])}",
        str(exposure["rounds"]),
        f"{ratio:.1f}" if ratio is not None else DASH,
        str(len(verb["processes"])),
        str(len(verb["capabilities"]["held"])),
        _held_words(verb, longest) if longest else DASH,
        untrusted_words(verb),
        str(len(verb["syscalls"]["used"])),
        filter_words(verb),
        f"{len(verb['files']['opened'])}, {len(verb['files']['written'])}",
        str(len(verb["netns_handles"])),
    ]


def _held_words(verb: Verb, longest: str) -> str:
    held = verb["held_ms"]
    share = held[longest]["share"]
    as_long = sum(each["share"] == share for each in held.values())
    name = capability_name(longest) + (f" and {as_long - 1} more" if as_long > 1 else "")
    return f"{min(share, 1):.0%} {name}"


def raw_sets(document: Document) -> Markup:
    """Show for each call everything that was seen, each folded away."""
    parts = [
        folded(
            f"{label(exposure)} {name}: everything that was seen",
            pairs(_raw_sets(verb)),
        )
        for exposure in document["plugins"]
        for name, verb in exposure["verbs"].items()
    ]
    return joined(parts)


def _raw_sets(verb: Verb) -> Iterable[tuple[str, str]]:
    sets = verb["capabilities"]
    exercised = (f"{name} {count}" for name, count in sets["exercised"].items())
    ablated = (
        f"{name}: {'works' if tried['works'] else 'fails'} without" + (f", {tried['says']}" if tried["says"] else "")
        for name, tried in sets["ablation"].items()
    )
    held = (
        f"{name} {milliseconds(time['median'])} ms ({milliseconds(time['q1'])} to {milliseconds(time['q3'])}), "
        f"{time['share']:.0%}"
        for name, time in verb["held_ms"].items()
    )
    untrusted = (f"{name} {count}" for name, count in verb["untrusted_bytes"].items())
    yield "held", codes(sets["held"])
    yield "for how long", lines(held)
    yield "exercised, times", codes(exercised)
    yield "needed", codes(sets["needed"])
    yield "ablation", lines(ablated)
    yield "untrusted bytes read meanwhile", codes(untrusted)
    yield "system calls used", codes(verb["syscalls"]["used"])
    yield "files opened", codes(verb["files"]["opened"])
    yield "files written", codes(verb["files"]["written"])
    yield "netns handles", codes(verb["netns_handles"])
    yield "milliseconds of each round", codes(map(milliseconds, verb["duration_ms"]["values"]))

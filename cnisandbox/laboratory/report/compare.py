"""Two audit documents compared: what got worse, what got better, what is no longer known, and what is merely different.

Column "root" is the control: there is nothing in it that could get worse. Durations are told, and never worse: they
are the machine's as much as the program's.

Privilege: none.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from cnisandbox.laboratory.report.schema import CellMembers, Document, Duration, Exposure, Replay, ReplayOutcome, Verb
from cnisandbox.laboratory.report.wording import CONTROL, columns_of, listed, milliseconds, name_of, sentence, size
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

WORSE, BETTER, LOST, NEW, CHANGED = "worse", "better", "no longer known", "new", "changed"
KINDS = (WORSE, LOST, BETTER, NEW, CHANGED)

_HELD_OFF = {REFUSED, NO_EFFECT}
_UNKNOWN = {NOT_APPLICABLE, UNTESTED, "not run"}
_PARTLY_WORKED = "partly worked"
_CONTAINED = ("yes", "partly", "no")
_NOTICEABLE_RATIO = 1.25
_NOTICEABLE_SHARE = 0.1

_Value = TypeVar("_Value")


class Finding(NamedTuple):
    """One difference.

    Attributes:
        kind: One of KINDS.
        part: Of the document: "machine", "vectors", "matrix", "plugins" or "replays".
        where: What it is about, from the general to the particular, such as ("b-mtu", "hardened").
        before, after: In words; empty for what is not there.
    """

    kind: str
    part: str
    where: tuple[str, ...]
    before: str
    after: str


def compare(before: Document, after: Document) -> list[Finding]:
    """Compare two documents.

    Returns:
        The differences, part by part.
    """
    parts = (_machines, _vectors, _matrices, _plugins, _replays)
    return [finding for part in parts for finding in part(before, after)]


def _machines(before: Document, after: Document) -> Iterator[Finding]:
    old, new = before["machine"], after["machine"]
    facts = (
        ("kernel", old["kernel"], new["kernel"]),
        ("configuration", old["config_sha256"], new["config_sha256"]),
        ("architecture", old["architecture"], new["architecture"]),
        ("processors", str(old["cpus"]), str(new["cpus"])),
        ("security modules", " ".join(old["lsm"]), " ".join(new["lsm"])),
        ("python", old["python"], new["python"]),
    )
    yield from (Finding(CHANGED, "machine", (name,), was, is_) for name, was, is_ in facts if was != is_)
    for title, were, are in (
        ("package", old["packages"], new["packages"]),
        ("option", old["config"], new["config"]),
        ("setting", old["sysctls"], new["sysctls"]),
    ):
        for name, (one, other) in _paired(were, are):
            if one != other:
                yield Finding(CHANGED, "machine", (title, name), one or "", other or "")


def _vectors(before: Document, after: Document) -> Iterator[Finding]:
    old, new = before["vectors"], after["vectors"]
    for key, was, is_ in (("version", old["version"], new["version"]), ("sha256", old["sha256"], new["sha256"])):
        if was != is_:
            yield Finding(CHANGED, "vectors", (key,), was, is_)


# Matrix


def _matrices(before: Document, after: Document) -> Iterator[Finding]:
    old, new = before["matrix"]["cells"], after["matrix"]["cells"]
    for id_, (was, is_) in _paired(old, new):
        columns = dict.fromkeys([*columns_of(before), *columns_of(after)])
        for column in columns:
            yield from _cells((id_, column), (was or {}).get(column), (is_ or {}).get(column))


def _cells(where: tuple[str, str], was: CellMembers | None, is_: CellMembers | None) -> Iterator[Finding]:
    is_control = where[1] == CONTROL
    if was is None or is_ is None:
        if is_ is not None:
            yield Finding(NEW, "matrix", where, "", sentence(is_))
        elif was is not None:
            yield Finding(LOST, "matrix", where, sentence(was), "")
        return
    kind = _kind_of_verdicts(was["verdict"], is_["verdict"], is_control)
    if kind or (was["errno"], was["signal"]) != (is_["errno"], is_["signal"]):
        yield Finding(kind or CHANGED, "matrix", where, sentence(was), sentence(is_))
    gone, come = _difference(was["outside"], is_["outside"])
    if come:
        yield Finding(CHANGED if is_control else WORSE, "matrix", (*where, "outside"), "", "; ".join(come))
    if gone:
        is_known = is_["verdict"] not in _UNKNOWN
        kind = CHANGED if is_control else BETTER if is_known and not come else CHANGED
        yield Finding(kind, "matrix", (*where, "outside"), "; ".join(gone), "")


def _kind_of_verdicts(was: str, is_: str, is_control: bool) -> str:
    """Say what a change of verdicts is; empty where they are the same."""
    if was == is_:
        return ""
    if is_ in _UNKNOWN:
        return CHANGED if was in _UNKNOWN else LOST
    if is_control:
        return CHANGED
    if is_ in {WORKED, _PARTLY_WORKED}:
        return BETTER if was == WORKED else WORSE
    if was in {WORKED, _PARTLY_WORKED}:
        return BETTER
    return NEW if was in _UNKNOWN else CHANGED


# Exposure


def _plugins(before: Document, after: Document) -> Iterator[Finding]:
    for where, (was, is_) in _paired(_calls(before), _calls(after)):
        if was is None or is_ is None:
            yield Finding(LOST if is_ is None else NEW, "plugins", where, "", "")
        else:
            yield from _exposure(where, was[0], is_[0])
            yield from _verbs(where, was[1], is_[1])


def _calls(document: Document) -> dict[tuple[str, ...], tuple[Exposure, Verb]]:
    return {
        (name_of(exposure), exposure["column"], name): (exposure, verb)
        for exposure in document["plugins"]
        for name, verb in exposure["verbs"].items()
    }


def _exposure(where: tuple[str, ...], was: Exposure, is_: Exposure) -> Iterator[Finding]:
    if was["sha256"] != is_["sha256"]:
        yield Finding(CHANGED, "plugins", (*where, "program"), was["sha256"], is_["sha256"])
    if was["netconf"] != is_["netconf"]:
        yield Finding(CHANGED, "plugins", (*where, "netconf"), "one", "another")


def _verbs(where: tuple[str, ...], was: Verb, is_: Verb) -> Iterator[Finding]:
    is_control = where[1] == CONTROL
    old, new = was["capabilities"], is_["capabilities"]
    yield from _names((*where, "held"), old["held"], new["held"], is_control)
    yield from _names((*where, "needed"), old["needed"], new["needed"], True)
    yield from _names((*where, "exercised"), old["exercised"], new["exercised"], True)
    yield from _untrusted((*where, "untrusted bytes"), was, is_, is_control)
    yield from _allowed((*where, "system calls allowed"), was, is_, is_control)
    handles = len(was["netns_handles"]), len(is_["netns_handles"])
    yield from _counts((*where, "netns handles"), *handles, is_control)
    yield from _shares((*where, "share of time held"), was, is_)
    yield from _durations((*where, "duration"), was["duration_ms"], is_["duration_ms"])


def _names(where: tuple[str, ...], was: Iterable[str], is_: Iterable[str], is_told_only: bool) -> Iterator[Finding]:
    gone, come = _difference(was, is_)
    if come:
        yield Finding(CHANGED if is_told_only else WORSE, "plugins", where, "", ", ".join(come))
    if gone:
        yield Finding(CHANGED if is_told_only else BETTER, "plugins", where, ", ".join(gone), "")


def _untrusted(where: tuple[str, ...], was: Verb, is_: Verb, is_control: bool) -> Iterator[Finding]:
    changes = []
    for name, (one, other) in _paired(was["untrusted_bytes"], is_["untrusted_bytes"]):
        old, new = one or 0, other or 0
        if bool(old) != bool(new):
            kind = CHANGED if is_control else WORSE if new else BETTER
            changes.append((name, kind, size(old), size(new)))
        elif max(old, new) > min(old, new) * _NOTICEABLE_RATIO:
            changes.append((name, CHANGED, size(old), size(new)))
    yield from _together(where, changes)


def _shares(where: tuple[str, ...], was: Verb, is_: Verb) -> Iterator[Finding]:
    changes = [
        (name, CHANGED, f"{one['share']:.0%}", f"{other['share']:.0%}")
        for name, (one, other) in _paired(was["held_ms"], is_["held_ms"])
        if one and other and abs(one["share"] - other["share"]) >= _NOTICEABLE_SHARE
    ]
    yield from _together(where, changes)


def _together(where: tuple[str, ...], changes: Iterable[tuple[str, str, str, str]]) -> Iterator[Finding]:
    """Tell once what is the same of several capabilities.

    Args:
        where: What it is about, but for the capability.
        changes: Capability, kind, before, after.
    """
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for name, *change in changes:
        grouped.setdefault((change[0], change[1], change[2]), []).append(name)
    for (kind, old, new), names in grouped.items():
        yield Finding(kind, "plugins", (*where, listed(names, 3)), old, new)


def _durations(where: tuple[str, ...], was: Duration, is_: Duration) -> Iterator[Finding]:
    is_apart = was["q3"] < is_["q1"] or is_["q3"] < was["q1"]
    least, most = sorted((was["median"], is_["median"]))
    if is_apart and most > least * _NOTICEABLE_RATIO:
        old, new = (f"{milliseconds(each['median'])} ms" for each in (was, is_))
        yield Finding(CHANGED, "plugins", where, old, new)


def _allowed(where: tuple[str, ...], was: Verb, is_: Verb, is_control: bool) -> Iterator[Finding]:
    old, new = was["syscalls"]["allowed"], is_["syscalls"]["allowed"]
    if old == new:
        return
    words = ["all" if each is None else str(each) for each in (old, new)]
    is_wider = new is None or (old is not None and new > old)
    yield Finding(CHANGED if is_control else WORSE if is_wider else BETTER, "plugins", where, *words)


def _counts(where: tuple[str, ...], was: int, is_: int, is_control: bool) -> Iterator[Finding]:
    if was != is_:
        kind = WORSE if is_ > was else BETTER
        yield Finding(CHANGED if is_control else kind, "plugins", where, str(was), str(is_))


# Replays


def _replays(before: Document, after: Document) -> Iterator[Finding]:
    old = {replay["id"]: replay for replay in before["replays"]}
    new = {replay["id"]: replay for replay in after["replays"]}
    for id_, (was, is_) in _paired(old, new):
        if was is None or is_ is None:
            yield Finding(LOST if is_ is None else NEW, "replays", (id_,), _contained(was), _contained(is_))
            continue
        for where, (one, other) in _paired(_outcomes(was, is_), _outcomes(is_, was)):
            yield from _outcome((id_, *where), one, other)
        if was["contained"] != is_["contained"]:
            is_worse = _CONTAINED.index(is_["contained"]) > _CONTAINED.index(was["contained"])
            is_known = is_["columns"].keys() >= was["columns"].keys()
            kind = (WORSE if is_worse else BETTER) if is_known else CHANGED
            yield Finding(kind, "replays", (id_,), _contained(was), _contained(is_))


def _contained(replay: Replay | None) -> str:
    return f"contained: {replay['contained']}" if replay else ""


def _outcomes(replay: Replay, other: Replay) -> dict[tuple[str, ...], ReplayOutcome]:
    """Name what came of a replay by column, and at level mediated where one of two documents has that apart."""
    found: dict[tuple[str, ...], ReplayOutcome] = {}
    for column, cell in replay["columns"].items():
        found[column,] = cell
        if any("mediated" in each["columns"].get(column, cell) for each in (replay, other)):
            found[column, "mediated"] = cell.get("mediated", cell)
    return found


def _outcome(where: tuple[str, ...], was: ReplayOutcome | None, is_: ReplayOutcome | None) -> Iterator[Finding]:
    if was is None or is_ is None:
        yield Finding(
            LOST if is_ is None else NEW, "replays", where, was["verdict"] if was else "", is_["verdict"] if is_ else ""
        )
        return
    kind = _kind_of_verdicts(was["verdict"], is_["verdict"], where[1] == CONTROL)
    if kind:
        yield Finding(kind, "replays", where, was["verdict"], is_["verdict"])


# Words


def _paired(
    was: Mapping[Any, _Value], is_: Mapping[Any, _Value]
) -> Iterator[tuple[Any, tuple[_Value | None, _Value | None]]]:
    """Go through the keys of both, each with what stands there before and after."""
    for key in dict.fromkeys([*was, *is_]):
        yield key, (was.get(key), is_.get(key))


def _difference(was: Iterable[str], is_: Iterable[str]) -> tuple[list[str], list[str]]:
    old, new = list(was), list(is_)
    return [each for each in old if each not in new], [each for each in new if each not in old]


def summary(findings: Iterable[Finding]) -> str:
    """Count the findings in a line."""
    kinds = [finding.kind for finding in findings]
    counted = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
    return ", ".join(counted) or "no difference"

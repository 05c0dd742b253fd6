"""What a replayed CVE is, what came of it, and what follows from that."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED

if TYPE_CHECKING:
    from cnisandbox.laboratory.replays.host import Host

PARTLY_WORKED, NOT_RUN = "partly worked", "not run"
ROOT, OURS, RUNNER = "root", "cnisandbox", "runner"
COLUMNS = (ROOT, OURS, RUNNER)
YES, PARTLY, NO = "yes", "partly", "no"


class Effect(NamedTuple):
    """One thing that the attacker wants.

    Attributes:
        effect: What it is.
        happened: Whether he has got it, by the kernel's state outside.
        seen: What was looked at, and what was there.
    """

    effect: str
    happened: bool
    seen: str


class Outcome(NamedTuple):
    """What came of a case in a column.

    Attributes:
        subject: What was run.
        effects: What it was to lead to.
        said: What the attacked program was told, or said, when something was refused; empty when nothing was.
        reason: Why the case does not apply to this column; empty when it does.
    """

    subject: str
    effects: tuple[Effect, ...] = ()
    said: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """Say what came of it, in the words of the matrix."""
        happened = [effect.happened for effect in self.effects]
        if not happened:
            return NOT_APPLICABLE
        if any(happened):
            return WORKED if all(happened) else PARTLY_WORKED
        return REFUSED if self.said else NO_EFFECT

    def document(self) -> dict[str, Any]:
        """Make what stands in the document."""
        effects = [effect._asdict() for effect in self.effects]
        found = {"verdict": self.verdict, "subject": self.subject, "effects": effects, "said": self.said}
        return {**found, "reason": self.reason}


class Case(NamedTuple):
    """A CVE, and how it is replayed.

    Attributes:
        id: Name of the case; never given to another one.
        cve: Its number, or where it was reported.
        title: Whose defect it was, and which.
        tries: What the replay does.
        replay: Does it on a host of its own; None for what cannot be run.
        why: What contains it, or why it is not contained.
        reason: Why it is not run.
        setting: A setting of the whole machine that the replay may change, below /proc/sys; it is given back.
    """

    id: str
    cve: str
    title: str
    tries: str
    replay: "Callable[[Host], Outcome] | None"
    why: str
    reason: str = ""
    setting: str = ""


def conclude(case: Case, columns: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put together what stands in the document.

    Args:
        case: The case.
        columns: Column to `Outcome.document`; that of ours at level mediated, where it differs, as `mediated` in it.

    Returns:
        The case's entry. `contained` follows from the columns of ours and of the runner: "yes" when nothing that the
        control got was got there, "no" when everything was, or when it was not shown, else "partly".
    """
    entry = {"id": case.id, "cve": case.cve, "title": case.title, "tries": case.tries, "columns": columns}
    control = columns[ROOT]["verdict"]
    if control not in (WORKED, NOT_RUN):
        for name in (OURS, RUNNER):
            columns[name]["verdict"] = UNTESTED
    verdicts = {columns[name]["verdict"] for name in (OURS, RUNNER)} - {NOT_APPLICABLE}
    if UNTESTED in verdicts:
        reasons = [f"{name} is {columns[name]['verdict']!r}" for name in COLUMNS]
        return {**entry, "contained": NO, "why": f"Not shown: {', '.join(reasons)}."}
    contained = YES if verdicts <= {REFUSED, NO_EFFECT} else NO if verdicts <= {WORKED, NOT_RUN} else PARTLY
    return {**entry, "contained": contained, "why": case.why}


def not_run(case: Case) -> dict[str, Any]:
    """Make the entry of a case that cannot be run."""
    return conclude(case, {name: without_outcome(NOT_RUN, case.reason) for name in COLUMNS})


def without_outcome(verdict: str, reason: str) -> dict[str, Any]:
    """Make what stands in a column in which nothing was run, or nothing can be said."""
    return {"verdict": verdict, "subject": "", "effects": [], "said": "", "reason": reason}

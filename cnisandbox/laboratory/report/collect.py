"""Have everything measured that a report tells: attempts, calls of plugins, and defects of the past.

Privilege: everything; what is measured runs in namespaces of its own.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import NamedTuple, cast

from cnisandbox.errors import CniError
from cnisandbox.laboratory import matrix, replays
from cnisandbox.laboratory.columns import COLUMNS, PROCESSES, ROOT
from cnisandbox.laboratory.exposure.measure import measure
from cnisandbox.laboratory.exposure.subject import VERBS
from cnisandbox.laboratory.report import machine, subjects
from cnisandbox.laboratory.report.schema import (
    SCHEMA,
    CellMembers,
    Document,
    Exposure,
    Gap,
    Matrix,
    Replay,
    VectorRow,
    check,
)
from cnisandbox.laboratory.report.subjects import SUBJECTS, Subject
from cnisandbox.laboratory.report.wording import amount
from cnisandbox.laboratory.vector import CATEGORIES, Cell, Vector
from cnisandbox.laboratory.vectors import VECTORS, VERSION

# Told how far it has come, from 0 to 1, and what is being done.
Progress = Callable[[float, str], object]

# What the parts take, in seconds, on a slow machine; only the progress bar is made of it.
_TRIAL_S, _CALL_S, _REPLAY_S = 0.07, 0.3, 1.5
_CALLS_PER_ROUND, _ABLATIONS = 4, 6
_REPLAY_STEPS = 4


class Plan(NamedTuple):
    """What is to be measured.

    Attributes:
        vectors: The attempts.
        columns: Where; "root" is among them, because it is the control.
        subjects: The calls.
        verbs: Their verbs.
        rounds: How often each call is made.
        replayed: The replays, by their ids; None for all.
        gaps: What is left out on purpose.
    """

    vectors: tuple[Vector, ...]
    columns: tuple[str, ...]
    subjects: tuple[Subject, ...]
    verbs: tuple[str, ...]
    rounds: int
    replayed: tuple[str, ...] | None
    gaps: tuple[Gap, ...] = ()


ROUNDS, QUICK_ROUNDS = 5, 3
_QUICK_VERBS = ("ADD", "DEL")
_QUICK_VECTORS_PER_CATEGORY = 2


def plan(
    columns: Sequence[str] = (), names: Sequence[str] = (), rounds: int | None = None, *, is_quick: bool = False
) -> Plan:
    """Decide what is measured.

    Args:
        columns: Only these, and the control; all where there is none.
        names: Only these of SUBJECTS; all where there is none, or those that a quick report has.
        rounds: How often each call is made; None for what is usual.
        is_quick: Whether a small part of everything is enough.
    """
    wanted = tuple(column for column in COLUMNS if column == ROOT or not columns or column in columns)
    chosen = tuple(each for each in SUBJECTS if each.name in (names or (subjects.QUICK if is_quick else [each.name])))
    if not is_quick:
        return Plan(VECTORS, wanted, chosen, VERBS, rounds or ROUNDS, None)
    few = [
        vector
        for letter in CATEGORIES
        for vector in [each for each in VECTORS if each.category == letter][:_QUICK_VECTORS_PER_CATEGORY]
    ]
    replayed = tuple(case.id for case in replays.CASES[:1])
    why = "--quick makes a small part of everything"
    gaps = (Gap(what=f"{len(few)} of {amount(len(VECTORS), 'attempt')} were made", why=why),)
    return Plan(tuple(few), wanted, chosen, _QUICK_VERBS, rounds or QUICK_ROUNDS, replayed, gaps)


def collect(wanted: Plan, command: Sequence[str], progress: Progress) -> Document:
    """Measure.

    Args:
        wanted: What.
        command: The command line, for the document.
        progress: Told how far it has come.

    Returns:
        The document. What could not be measured is among its gaps.

    Raises:
        CniError: attempts or replays could not be made at all.

    Privilege: the caller must be root.
    """
    since = time.monotonic()
    course = _Course(wanted, progress)
    date = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    cells = _matrix(wanted, course)
    exposures, gaps = _exposures(wanted, course)
    course.begin("replays", _replay_seconds(wanted), _replay_steps(wanted))
    replayed = replays.run(course.step, wanted.replayed)
    document: Document = {
        "schema": SCHEMA,
        "report": {
            "command": list(command),
            "date": date,
            "duration_s": round(time.monotonic() - since, 1),
            "cnisandbox": _version(),
        },
        "machine": machine.describe(),
        "vectors": {"version": VERSION, "sha256": digest(VECTORS), "list": [_row(vector) for vector in wanted.vectors]},
        "matrix": cells,
        "plugins": exposures,
        "replays": cast(list[Replay], replayed),
        "gaps": [*wanted.gaps, *gaps],
    }
    return check(document, "this report", is_closed=True)


def _matrix(wanted: Plan, course: "_Course") -> Matrix:
    trials = len(wanted.vectors) * sum(len(PROCESSES[column]) for column in wanted.columns)
    course.begin("attempts", trials * _TRIAL_S, trials)
    found = matrix.run(wanted.vectors, wanted.columns, course.step)
    return {
        "columns": list(wanted.columns),
        "cells": {id_: {column: _cell(cell) for column, cell in row.items()} for id_, row in found.items()},
    }


def _cell(cell: Cell) -> CellMembers:
    return cast(CellMembers, {**cell._asdict(), "outside": list(cell.outside)})


def _row(vector: Vector) -> VectorRow:
    return cast(VectorRow, {key: getattr(vector, key) for key in VectorRow.__annotations__})


def digest(vectors: Sequence[Vector]) -> str:
    """Digest a list of attempts: SHA-256 of its rows as they are published, in canonical JSON."""
    rows = json.dumps([_row(vector) for vector in vectors], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(rows.encode()).hexdigest()


def _exposures(wanted: Plan, course: "_Course") -> tuple[list[Exposure], list[Gap]]:
    exposures: list[Exposure] = []
    gaps: list[Gap] = []
    for subject in wanted.subjects:
        for column in subject.columns:
            if column not in wanted.columns:
                continue
            course.begin(f"{subject.name} {column}", _exposure_seconds(wanted))
            try:
                measured = measure(subject.plugin, subject.netconf, column, wanted.verbs, wanted.rounds, course.step_of)
            except CniError as error:
                gaps.append({"what": f"{subject.name} at {column}", "why": error.msg})
            else:
                exposures.append(cast(Exposure, measured))
    return exposures, gaps


def _exposure_seconds(wanted: Plan) -> float:
    return (wanted.rounds + _ABLATIONS) * len(wanted.verbs) * _CALL_S


def _replay_steps(wanted: Plan) -> int:
    return _REPLAY_STEPS * (len(replays.CASES) if wanted.replayed is None else len(wanted.replayed))


def _replay_seconds(wanted: Plan) -> float:
    return _replay_steps(wanted) * _REPLAY_S


class _Course:
    """How far a run has come, part by part."""

    def __init__(self, wanted: Plan, progress: Progress) -> None:
        calls = sum(column in wanted.columns for subject in wanted.subjects for column in subject.columns)
        trials = len(wanted.vectors) * sum(len(PROCESSES[column]) for column in wanted.columns)
        self._total_s = trials * _TRIAL_S + calls * _exposure_seconds(wanted) + _replay_seconds(wanted) or 1.0
        self._progress = progress
        self._done_s = self._fraction = 0.0
        self._part, self._part_s, self._steps, self._made = "", 0.0, 0, 0

    def begin(self, part: str, part_s: float, steps: int = 0) -> None:
        """Begin a part that should take so long, and has so many steps if that is known."""
        self._done_s += self._part_s
        self._part, self._part_s, self._steps, self._made = part, part_s, steps, 0
        self._tell("")

    def step(self, text: str) -> None:
        """Be told what happens."""
        self._made += 1
        self._tell(text)

    def step_of(self, made: int, steps: int, text: str) -> None:
        """Be told what happens, and how many steps there are."""
        self._made, self._steps = made, steps
        self._tell(text)

    def _tell(self, text: str) -> None:
        within = self._made / self._steps if self._steps else 0.0
        fraction = (self._done_s + self._part_s * min(within, 1.0)) / self._total_s
        # More steps may come to light: then it stands still.
        self._fraction = max(self._fraction, min(fraction, 1.0))
        self._progress(self._fraction, f"{self._part}: {text}" if text else self._part)


def _version() -> str:
    try:
        return metadata.version("cnisandbox")
    except metadata.PackageNotFoundError:
        return ""

"""The blast-radius matrix: every attempt in every column, each cell from an arena of its own.

The control comes first: the attempt as a process of root. One that does not work there proves nothing, and is not made
anywhere else. Then everybody of the other columns is attacked, each in an arena of its own; the cell is the one who
came furthest.

Two arenas run at a time. What attempts of one of them change of the whole machine, such as a file in /proc/sys/kernel,
another would see; so attempts that do, or that use up what all share, are made again at the end, one by one.

Privilege: everything, in the arenas; forking them takes root.
"""

import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from cnisandbox.boundary.sandbox import service_user
from cnisandbox.errors import PrivilegeNotDropped
from cnisandbox.laboratory import arena as arenas
from cnisandbox.laboratory import columns as places
from cnisandbox.laboratory import outside
from cnisandbox.laboratory.arena import Arena
from cnisandbox.laboratory.attacker.knowledge import DEFECT
from cnisandbox.laboratory.columns import COLUMNS, PROCESSES, ROOT
from cnisandbox.laboratory.vector import NO_EFFECT, NOT_APPLICABLE, REFUSED, UNTESTED, WORKED, Cell, Vector

Matrix = dict[str, dict[str, Cell]]
"""Id of each vector to the name of each column to its cell."""

# Attempts on what all processes of a user, or of the machine, share.
_SHARED_CATEGORY = "g"
_ARENAS = 2
_REASON_LENGTH = 300


class Trial(NamedTuple):
    """An attempt in one process of a column.

    Attributes:
        vector: The attempt.
        column: Key of PROCESSES.
        process: One of its processes.
    """

    vector: Vector
    column: str
    process: str


class Result(NamedTuple):
    """What came of a trial.

    Attributes:
        cell: What would stand in the cell if nobody else of the column were attacked.
        is_machine_wide: Whether something has changed that other arenas see.
        duration_s: How long the arena lived.
    """

    cell: Cell
    is_machine_wide: bool
    duration_s: float


def run(
    vectors: Sequence[Vector],
    columns: Sequence[str] = COLUMNS,
    progress: Callable[[str], object] = lambda _: None,
) -> Matrix:
    """Make attempts.

    Args:
        vectors: Which.
        columns: Where; the control is made in any case.
        progress: Told what has been done, such as "b-mtu: hardened, 120 of 2400".

    Returns:
        Id of each vector to the name of each column to its cell.

    Raises:
        IsolationUnavailable: there is no service user.
        PrivilegeNotDropped: the caller is not root.

    Privilege: the caller must be root.
    """
    if os.geteuid() != 0:
        raise PrivilegeNotDropped("make arenas: only root can", "run it with sudo")
    service_user()
    outside.prepare()
    if places.RUNNER in columns:
        places.packed_attacker()  # here, so that every arena has it
    return _Run(vectors, columns, progress).matrix()


class _Run:
    """A run of the matrix.

    Attributes:
        results: What came of each trial so far.
    """

    def __init__(self, vectors: Sequence[Vector], columns: Sequence[str], progress: Callable[[str], object]) -> None:
        self.results: dict[Trial, Result] = {}
        self._vectors = vectors
        self._columns = columns
        self._progress = progress
        self._total = sum(len(PROCESSES[column]) for column in {ROOT, *columns}) * len(vectors)

    def matrix(self) -> Matrix:
        """Make the attempts and put the cells together."""
        alone = [vector for vector in self._vectors if vector.category == _SHARED_CATEGORY]
        together = [vector for vector in self._vectors if vector.category != _SHARED_CATEGORY]
        self._make(together, _ARENAS)
        alone += [vector for vector in together if self._is_machine_wide(vector)]
        self._make(alone, 1)
        return {vector.id: self._row(vector) for vector in self._vectors}

    def _make(self, vectors: Sequence[Vector], arenas_at_a_time: int) -> None:
        controls = [Trial(vector, ROOT, process) for vector in vectors for process in PROCESSES[ROOT]]
        self._try(controls, arenas_at_a_time)
        wanted = [
            Trial(vector, column, process)
            for vector in vectors
            if self._control(vector).verdict == WORKED
            # ORDER: what is made again one by one anyway is not made beside others, who would see it.
            and not (arenas_at_a_time > 1 and self._is_machine_wide(vector))
            for column in self._columns
            if column != ROOT
            for process in PROCESSES[column]
        ]
        self._try(wanted, arenas_at_a_time)

    def _try(self, trials: Sequence[Trial], arenas_at_a_time: int) -> None:
        for trial, result in in_arenas(trials, arenas_at_a_time):
            self.results[trial] = result
            self._progress(f"{trial.vector.id}: {trial.column}, {len(self.results)} of {self._total}")

    def _is_machine_wide(self, vector: Vector) -> bool:
        return any(result.is_machine_wide for trial, result in self.results.items() if trial.vector is vector)

    def _control(self, vector: Vector) -> Cell:
        return self.results[Trial(vector, ROOT, places.PLUGIN)].cell

    def _row(self, vector: Vector) -> dict[str, Cell]:
        control = self._control(vector)
        if control.verdict == NOT_APPLICABLE:
            return dict.fromkeys(self._columns, control)
        if control.verdict != WORKED:
            reason = control.reason or f"as root: {_told(control)}"
            return {column: Cell(UNTESTED, reason=reason) for column in self._columns}
        return {column: self._cell(vector, column) for column in self._columns}

    def _cell(self, vector: Vector, column: str) -> Cell:
        cells = [self.results[Trial(vector, column, process)].cell for process in PROCESSES[column]]
        furthest = max(cells, key=_distance)  # of several, the first
        changes = dict.fromkeys(change for cell in cells for change in cell.outside)
        return furthest._replace(outside=tuple(changes))


def _distance(cell: Cell) -> tuple[int, bool]:
    """Say how far the attacker came; somebody of whom it is not known may have come anywhere."""
    return [REFUSED, NO_EFFECT, UNTESTED, WORKED].index(cell.verdict), bool(cell.outside)


def _told(cell: Cell) -> str:
    return cell.errno or cell.signal or cell.verdict


def in_arenas(
    trials: Iterable[Trial], arenas_at_a_time: int, prepare: Callable[[], object] = lambda: None
) -> Iterator[tuple[Trial, Result]]:
    """Make attempts, each in an arena of its own.

    Args:
        trials: Which.
        arenas_at_a_time: How many arenas there may be.
        prepare: What each arena does first.

    Yields:
        Each trial with what came of it, as it ends.
    """
    waiting = iter(trials)
    running: dict[int, tuple[Trial, arenas.Running, float]] = {}
    try:
        while True:
            while len(running) < arenas_at_a_time and (trial := next(waiting, None)) is not None:
                places.ATTEMPTS[trial.vector.id] = trial.vector.attempt
                begun = arenas.begin(partial(_try, trial, prepare))
                running[begun.answer_fd] = (trial, begun, time.monotonic())
            if not running:
                return
            earliest = min(since for _, _, since in running.values()) + arenas.ATTEMPT_TIMEOUT_S
            ready, _, _ = select.select([*running], [], [], max(0.0, earliest - time.monotonic()))
            for fd in ready or [min(running, key=lambda fd: running[fd][2])]:
                trial, begun, since = running.pop(fd)
                result = _result(trial, begun, since)
                yield trial, result
    finally:
        for _, begun, _ in running.values():
            arenas.end(begun)


def _try(trial: Trial, prepare: Callable[[], object], arena: Arena) -> list[Any]:
    """Make an attempt, in the arena's first process.

    Returns:
        The verdict, what refused by name (errno, signal), what changed outside, whether other arenas see that, and why
        it was not tried.
    """
    prepare()
    vector = trial.vector
    lacking = vector.needs() if trial.column == ROOT else ""
    if lacking:
        return [NOT_APPLICABLE, "", "", [], False, lacking]
    if vector.scene is not None:
        vector.scene(arena)
    attacked = places.place(arena, trial.column, trial.process, vector.id, vector.where)
    arena.receive(attacked)
    before = outside.take(arena)
    arena.said, killed_by = attacked.attempt()
    if arena.said.errno == DEFECT:
        return [UNTESTED, "", "", [], False, arena.said.text]
    # ORDER: a judge may undo what the attempt has done, or end the attacked process.
    after = outside.take(arena)
    own, shared = outside.difference(before, after, arena.hidden)
    has_worked = _judged(arena, vector, killed_by)
    is_refused = bool(arena.said.errno or killed_by)
    return [
        WORKED if has_worked else REFUSED if is_refused else NO_EFFECT,
        errno.errorcode.get(arena.said.errno, str(arena.said.errno)) if arena.said.errno else "",
        signal.Signals(killed_by).name if killed_by else "",
        [*own, *shared],
        bool(shared),
        "",
    ]


def _judged(arena: Arena, vector: Vector, killed_by: int) -> bool:
    try:
        return bool(vector.judge(arena))
    except OSError:
        if killed_by:  # it holds nothing any more that one could look at
            return False
        raise


def _result(trial: Trial, begun: arenas.Running, since: float) -> Result:
    left_s = since + arenas.ATTEMPT_TIMEOUT_S - time.monotonic()
    is_machine_wide = False
    try:
        verdict, error_name, signal_name, changes, is_machine_wide, reason = arenas.answer_of(begun, left_s)
        cell = Cell(verdict, error_name, signal_name, outside=tuple(changes), reason=reason)
    except TimeoutError:
        cell = Cell(UNTESTED, reason=f"no answer within {arenas.ATTEMPT_TIMEOUT_S:.0f} s")
    except AssertionError as error:
        cell = Cell(UNTESTED, reason=str(error).strip().splitlines()[-1][:_REASON_LENGTH])
    cell = cell._replace(process=trial.process)
    return Result(cell, is_machine_wide, time.monotonic() - since)

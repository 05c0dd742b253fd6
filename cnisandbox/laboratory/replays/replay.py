"""Replay every case in every column."""

import fcntl
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import InvalidConfig
from cnisandbox.laboratory.replays.case import COLUMNS, OURS, ROOT, RUNNER, Case, conclude, not_run
from cnisandbox.laboratory.replays.elsewhere import CASES as _ELSEWHERE
from cnisandbox.laboratory.replays.host import on_a_host
from cnisandbox.laboratory.replays.kernel import CASES as _KERNEL
from cnisandbox.laboratory.replays.network import CASES as _NETWORK
from cnisandbox.laboratory.replays.network import ordinary_call
from cnisandbox.laboratory.replays.programs import CASES as _PROGRAMS
from cnisandbox.laboratory.vector import UNTESTED

# Each column with the level of ours in it; ours have two.
_PLACES = ((ROOT, Level.HARDENED), (OURS, Level.HARDENED), (OURS, Level.MEDIATED), (RUNNER, Level.HARDENED))

CASES: tuple[Case, ...] = (*_PROGRAMS, *_KERNEL, *_NETWORK, *_ELSEWHERE)


def run(progress: Callable[[str], object] | None = None, only: Collection[str] | None = None) -> list[dict[str, Any]]:
    """Replay the cases, each in each column on a machine of its own.

    Args:
        progress: Told what comes next, such as "CVE-2021-20206: runner".
        only: Names or CVE numbers of cases; None for all.

    Returns:
        For each case an entry of the document: id, cve, title, tries, columns, contained, why. Column "cnisandbox" is
        level hardened; `mediated` in it is that level, where it differs. A column in which an ordinary call fails, or
        the replay cannot be made, because the machine lacks a program or a part of the kernel, is "untested", with the
        reason.

    Raises:
        InvalidConfig: `only` names what is no case.
        CniError: a case has a defect.

    Privilege: the caller must be root.
    """
    known = {word for case in CASES for word in (case.id, case.cve)}
    unknown = sorted(set(only or ()) - known)
    if unknown:
        raise InvalidConfig(f"replay {unknown[0]!r}: there is no such case", "; ".join(case.id for case in CASES))
    wanted = [case for case in CASES if only is None or case.id in only or case.cve in only]
    return list(_replayed(wanted, progress or (lambda _: None)))


def _replayed(cases: Sequence[Case], progress: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    broken = {}
    if any(case.replay is not None for case in cases):
        progress("ordinary calls")
        calls = {place: on_a_host(*place, ordinary_call) for place in _PLACES}
        broken = {place: outcome for place, outcome in calls.items() if outcome["verdict"] == UNTESTED}
    for case in cases:
        if case.replay is None:
            yield not_run(case)
            continue
        columns = {}
        with given_back(case.setting):
            for place in _PLACES:
                progress(f"{case.cve}: {_label(*place)}")
                columns[place] = dict(broken[place]) if place in broken else on_a_host(*place, case.replay)
        yield conclude(case, _by_column(columns))


def _label(column: str, level: Level) -> str:
    return f"{column} at level {level.value}" if column == OURS else column


def _by_column(outcomes: dict[tuple[str, Level], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    columns = {column: outcomes[column, Level.HARDENED] for column in COLUMNS}
    mediated = outcomes[OURS, Level.MEDIATED]
    if _happened(mediated) != _happened(columns[OURS]):
        columns[OURS]["mediated"] = mediated
    return columns


def _happened(outcome: dict[str, Any]) -> tuple[str, list[bool]]:
    return outcome["verdict"], [effect["happened"] for effect in outcome["effects"]]


@contextmanager
def given_back(setting: str) -> Iterator[None]:
    """Give a setting of the machine back, however this ends; one replay at a time may have it.

    Args:
        setting: Below /proc/sys; empty for none.
    """
    if not setting:
        yield
        return
    path = f"/proc/sys/{setting}"
    with open(__file__) as lock:  # a file that every replay of this installation finds, whatever it has mounted
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path) as file:
            before = file.read()
        try:
            yield
        finally:
            with open(path, "w") as file:
                file.write(before)

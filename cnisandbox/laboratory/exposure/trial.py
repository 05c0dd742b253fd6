"""One life of a container, call by call: ADD, CHECK and DEL in a station of their own.

Privilege: everything.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cnisandbox.errors import EnvironmentFailure, quoted
from cnisandbox.laboratory.exposure import state
from cnisandbox.laboratory.exposure.station import Outcome, Started, Station
from cnisandbox.laboratory.exposure.subject import Subject

T = TypeVar("T")

_SHOWN_CHARACTERS = 300


class Trial:
    """A container, for which the plugins before the measured one have been called.

    Args:
        subject: The plugin that is measured.
        station: Where.

    Raises:
        EnvironmentFailure: one of the plugins before it fails.
    """

    def __init__(self, subject: Subject, station: Station) -> None:
        self.station = station
        self._subject = subject
        self._prev_result: object = subject.config.get("prevResult")
        for entry in subject.before:
            outcome = station.run(subject.command_before(entry, "ADD", self._prev_result))
            if outcome.status:
                raise EnvironmentFailure(
                    f"run plugin {quoted(entry.type)} before {quoted(subject.name)}: {complaint(outcome)}"
                )
            self._prev_result = _document(outcome)

    def call(self, verb: str, without: int | None = None) -> Outcome:
        """Call the plugin."""
        outcome = self.station.run(self._subject.command(verb, self._prev_result), without)
        return self._ended(verb, outcome)

    def watch(self, verb: str, look: Callable[[Started], tuple[T, Outcome]]) -> tuple[T, Outcome]:
        """Call the plugin while somebody looks.

        Args:
            verb: The call.
            look: Gives the word, and looks until the end.
        """
        started = self.station.start(self._subject.command(verb, self._prev_result))
        seen, outcome = look(started)
        self.station.settle()
        return seen, self._ended(verb, outcome)

    def _ended(self, verb: str, outcome: Outcome) -> Outcome:
        if verb == "ADD" and outcome.status == 0:
            self._prev_result = _document(outcome)
        return outcome

    def state(self) -> dict[str, str]:
        """Describe what there is now (state.py)."""
        found: dict[str, str] = self.station.inside(state.look)  # type: ignore[assignment]
        return found


@contextmanager
def trial(subject: Subject) -> Iterator[Trial]:
    """Make a container, and take everything away afterwards."""
    station = Station(subject.furnish, subject.links, subject.plugin_dirs[0])
    try:
        yield Trial(subject, station)
    finally:
        station.close()


def complaint(outcome: Outcome) -> str:
    """Say why a call failed, in the plugin's own words."""
    document = _document(outcome)
    words = (
        [str(document[key]) for key in ("msg", "details") if document.get(key)] if isinstance(document, dict) else []
    )
    if not words:
        words = [(outcome.stderr or outcome.stdout).decode(errors="replace").strip()]
    said = " ".join(": ".join(words).split())[:_SHOWN_CHARACTERS]
    how = f"signal {-outcome.status}" if outcome.status < 0 else f"status {outcome.status}"
    return f"{said} ({how})" if said else how


def _document(outcome: Outcome) -> object:
    # TRUST: the plugin wrote it.
    try:
        return json.loads(outcome.stdout or b"null")
    except (ValueError, RecursionError):
        return None

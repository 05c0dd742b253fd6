"""Which capabilities a call needs: it is made again without each of those that the kernel was seen to ask for.

Without means: taken out of the bounding set, and of every other set, of the process that executes the plugin. So nobody
in the call has it. The call works when it succeeds and leaves what the complete call leaves.

Privilege: everything.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cnisandbox.laboratory.exposure.capability import NAMES
from cnisandbox.laboratory.exposure.state import Expected
from cnisandbox.laboratory.exposure.subject import VERBS, Subject
from cnisandbox.laboratory.exposure.trial import Trial, complaint, trial


class Ablated(NamedTuple):
    """What a call did without a capability.

    Attributes:
        works: Whether it did what the complete call does.
        says: What was different; empty when nothing was.
    """

    works: bool
    says: str


def ablate(
    subject: Subject,
    exercised: Mapping[str, Iterable[str]],
    expected: Mapping[str, Expected],
    progress: Callable[[str], None],
) -> dict[str, dict[str, Ablated]]:
    """Make calls without capabilities.

    Args:
        subject: What is called.
        exercised: Verb to the capabilities that it is called without, one at a time.
        expected: Verb to what it leaves.
        progress: Is told before each capability.

    Returns:
        Verb to capability to what came of it.
    """
    found: dict[str, dict[str, Ablated]] = {verb: {} for verb in exercised}
    for name in sorted({name for names in exercised.values() for name in names}, key=NAMES.index):
        progress(f"without {name}")
        waiting = [verb for verb in VERBS if verb in exercised and name in exercised[verb]]
        while waiting:
            # one life for as many verbs as get along without it; after a failure the next one gets a life of its own
            with trial(subject) as made:
                done = _live(made, waiting, NAMES.index(name), expected)
            for verb, ablated in done.items():
                found[verb][name] = ablated
            waiting = [verb for verb in waiting if verb not in done]
    return found


def _live(made: Trial, waiting: list[str], capability: int, expected: Mapping[str, Expected]) -> dict[str, Ablated]:
    done: dict[str, Ablated] = {}
    for verb in VERBS[: VERBS.index(waiting[-1]) + 1]:
        if verb not in waiting:
            if verb != "CHECK":
                made.call(verb)
            continue
        outcome = made.call(verb, capability)
        says = complaint(outcome) if outcome.status else expected[verb].difference(made.state())
        done[verb] = Ablated(not says, says)
        if says and verb == "ADD":  # CHECK leaves for DEL what it has found
            break
    return done

"""What a row of the blast-radius matrix is, and what stands in its cells."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cnisandbox.laboratory.attacker.knowledge import Facts, Said

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

CATEGORIES = {
    "a": "every capability of capabilities(7)",
    "b": "every operation that CAP_NET_ADMIN allows",
    "c": "reaching another network namespace",
    "d": "files: secrets, persistence, sockets of the runtime",
    "e": "processes: ptrace, signals, memory, descriptors",
    "f": "kernel surface",
    "g": "resources: processes, memory, descriptors, disk",
}

WORKED, REFUSED, NO_EFFECT, NOT_APPLICABLE, UNTESTED = (
    "worked",
    "refused",
    "no effect",
    "not applicable",
    "untested",
)


def always() -> str:
    """Say that the kernel lacks nothing."""
    return ""


class Vector(NamedTuple):
    """One attempt.

    Attributes:
        id: Letter of its category and a name; never given to another attempt.
        category: Key of CATEGORIES.
        tries: What the attacker wants.
        attempt: What he does, in the attacked process; raises OSError when it is refused.
        judge: Whether he has got it, seen from outside while the attacked process lives.
        source: Where the attempt is known from.
        scene: Prepares the host.
        where: Whose network namespace his netlink messages are for: "container" or "host".
        needs: Names what the kernel lacks for it; empty when it lacks nothing.
        capability: The capability that it is an attempt of, in category a.
        advice: What the catalogue of capabilities advises, in category a.
    """

    id: str
    category: str
    tries: str
    attempt: Callable[[Facts], Said | None]
    judge: "Callable[[Arena], bool]"
    source: str
    scene: "Callable[[Arena], None] | None" = None
    where: str = "container"
    needs: Callable[[], str] = always
    capability: str = ""
    advice: str = ""


class Cell(NamedTuple):
    """What came of an attempt in a column.

    Attributes:
        verdict: One of WORKED, REFUSED, NO_EFFECT, NOT_APPLICABLE, UNTESTED.
        errno: What the attacked process was told, by name; empty when nothing was refused.
        signal: What ended it, by name; empty when it lived on.
        process: The process that was attacked; of several, the one in which the attacker came furthest.
        outside: What changed outside the container's network namespace.
        reason: Why it is not applicable or untested.
    """

    verdict: str
    errno: str = ""
    signal: str = ""
    process: str = ""
    outside: tuple[str, ...] = ()
    reason: str = ""

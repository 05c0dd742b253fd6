"""Category a of the blast-radius matrix: each attempt is decided by the capability that it is listed under.

The attempt is made twice as root: with everything it has to work, without that one capability it must not.
"""

import struct
from collections.abc import Callable

import pytest

from cnisandbox.boundary.levels import Level
from cnisandbox.cli.demonstration.processes import CAPABILITIES
from cnisandbox.laboratory import arena as arenas
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import Facts, Said
from cnisandbox.laboratory.vector import Vector
from cnisandbox.laboratory.vectors.capabilities import ADVICE, VECTORS
from tests.conftest import KERNEL_GAP
from tests.world import World

# The kernel takes an older capability for a younger or a narrower one: without both it must not work.
WIDER = {
    "CAP_DAC_READ_SEARCH": "CAP_DAC_OVERRIDE",
    "CAP_SYSLOG": "CAP_SYS_ADMIN",
    "CAP_PERFMON": "CAP_SYS_ADMIN",
    "CAP_BPF": "CAP_SYS_ADMIN",
    "CAP_CHECKPOINT_RESTORE": "CAP_SYS_ADMIN",
}
NAMES = [f"CAP_{name.upper()}" for name in CAPABILITIES]


def test_every_capability_has_advice_and_an_attempt() -> None:
    assert list(ADVICE) == NAMES
    assert {vector.capability for vector in VECTORS} == set(NAMES)


def test_ids_are_unique_and_name_the_capability() -> None:
    assert len({vector.id for vector in VECTORS}) == len(VECTORS)
    for vector in VECTORS:
        assert vector.id.startswith("a-" + vector.capability.removeprefix("CAP_").lower().replace("_", "-") + "-")


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.id) for vector in VECTORS])
def test_capability_decides(outer_world: World, vector: Vector) -> None:
    lacking = outer_world.call(_needs, vector, timeout=30)
    if lacking:
        pytest.skip(f"{KERNEL_GAP}{lacking}")
    with_everything = _attack(outer_world, vector, vector.attempt)
    assert with_everything == arenas.Outcome(True, 0, 0)
    capabilities = [vector.capability, *filter(None, [WIDER.get(vector.capability)])]
    assert not _attack(outer_world, vector, _without(capabilities, vector.attempt)).has_effect


def _needs(vector: Vector) -> str:
    return str(arenas.answer_of(arenas.begin(lambda _: vector.needs()), 20))


def _attack(world: World, vector: Vector, attempt: Callable[[Facts], Said | None]) -> arenas.Outcome:
    arenas.ATTEMPTS[vector.id] = attempt
    attacked = arenas.CONTAINER_WORKER, Level.ROOT, vector.id, vector.judge, vector.scene
    outcome: arenas.Outcome = world.call(arenas.attack, *attacked, timeout=30)
    return outcome


def _without(capabilities: list[str], attempt: Callable[[Facts], Said | None]) -> Callable[[Facts], Said | None]:
    """Have an attempt made by root without some capabilities."""

    def drop_and_attempt(facts: Facts) -> Said | None:
        version_3, effective, permitted, inheritable = 0x20080522, 0, 1, 2
        header, sets = raw.buffer(struct.pack("=Ii", version_3, 0)), raw.buffer(24)
        raw.syscall("capget", header, sets)
        words = list(struct.unpack("=6I", sets.raw))
        for number in map(NAMES.index, capabilities):
            for which in (effective, permitted, inheritable):
                words[number // 32 * 3 + which] &= ~(1 << number % 32)
        raw.syscall("capset", header, raw.buffer(struct.pack("=6I", *words)))
        return attempt(facts)

    return drop_and_attempt

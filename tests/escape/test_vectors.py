"""Every attempt of the escape matrix, at every level, in one run.

The control comes first: at level root the same attempt must have its effect, or what follows proves nothing. An outcome
is what the host's kernel shows afterwards, together with the exact errno or signal.
"""

from typing import Any

import pytest

from cnisandbox.boundary.levels import Level
from cnisandbox.laboratory.arena import Outcome, attack
from tests.escape.vectors import LEVELS, VECTORS, Vector, describe, markdown
from tests.world import World, requires_feature

MEASURED: dict[str, dict[Level, Outcome]] = {}


def _parameters(*, is_contained: bool) -> list[Any]:
    return [
        pytest.param(vector, id=vector.name, marks=[requires_feature(vector.needs)] if vector.needs else [])
        for vector in VECTORS
        if vector.is_contained == is_contained
    ]


@pytest.mark.parametrize("vector", _parameters(is_contained=True))
def test_cannot(outer_world: World, vector: Vector) -> None:
    _make_attempts(outer_world, vector)


@pytest.mark.parametrize("vector", _parameters(is_contained=False))
def test_is_not_contained(outer_world: World, vector: Vector) -> None:
    """What the level hardened lets happen; the day it does not, this fails and the documentation has to change."""
    _make_attempts(outer_world, vector)


def _make_attempts(world: World, vector: Vector) -> None:
    for level in LEVELS:
        outcome = world.call(attack, vector.subject, level, vector.id, vector.judge, vector.scene, timeout=20)
        MEASURED.setdefault(vector.id, {})[level] = outcome
        expected = vector.expected(level)
        assert outcome == expected, (
            f"{vector.id} {vector.name} at {level.value}: {describe(outcome)}, not {describe(expected)}"
        )


def test_ids_and_names_are_unique() -> None:
    assert len({vector.id for vector in VECTORS}) == len({vector.name for vector in VECTORS}) == len(VECTORS)


def test_every_control_works_but_those_that_say_why() -> None:
    controls_without_effect = {vector.id: vector.root for vector in VECTORS if not vector.root.has_effect}
    # A kernel with the x32 calls switched on is not one that we know of; the filter kills before it is asked.
    assert set(controls_without_effect) == {"m04"}


def test_what_is_not_contained_says_why() -> None:
    assert {vector.id for vector in VECTORS if bool(vector.reason) == vector.is_contained} == set()


def test_print_matrix() -> None:
    """Shown by `pytest -s`: what was measured above, in the form of the document."""
    print("\n" + markdown(MEASURED))

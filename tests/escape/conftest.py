"""One world for all attempts: each makes its own machine inside it (cnisandbox/laboratory/arena.py)."""

import os
from collections.abc import Iterator

import pytest

from tests.world import World, new_world


@pytest.fixture(scope="session")
def outer_world() -> Iterator[World]:
    """A world in which arenas are made."""
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    with new_world() as made:
        yield made

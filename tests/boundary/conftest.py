"""A world that a module's tests share, for tests that only look."""

import os
from collections.abc import Iterator

import pytest

from tests.world import World, new_world


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    """A world with a container netns "blue"; a test leaves in it nothing that another could notice."""
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    with new_world() as made:
        made.netns("blue")
        yield made

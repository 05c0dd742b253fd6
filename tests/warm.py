"""The warm mode of the tests: with CNISANDBOX_WARM=1 every world has a zygote, and plugins are served by it.

    world ── cnisandbox serve --pool 1
               └── slot                 another one at the end of the test: it has served

`Counts` says how many worlds had calls that were served warm; a run in which few had is a failure (tests/conftest.py).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.netns.zygotes import children, is_waiting
from tests.world import wait_until

if TYPE_CHECKING:
    from tests.world import World

VARIABLE = "CNISANDBOX_WARM"
_SERVE = (sys.executable, "-I", "-m", "cnisandbox.cli.main", "serve", "--pool", "1", "--plugin-dir", "/run/plugins")
_SLOTS = 4


class Counts:
    """How many worlds there were, and in how many a slot has served."""

    worlds = 0
    served = 0


def is_wanted() -> bool:
    """Say whether the tests run in the warm mode."""
    return os.environ.get(VARIABLE) == "1"


@contextmanager
def zygote_in(world: "World") -> Iterator[None]:
    """Start a zygote in a world; it ends with the world."""
    log = os.open(world.outside_path("/run/zygote.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = world.popen(_SERVE, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    os.close(log)

    def slots() -> set[int]:
        assert process.poll() is None, world.read("/run/zygote.log")
        return {pid for pid, title in children(process.pid) if title.startswith("cnisandbox: slot") and is_waiting(pid)}

    before = wait_until(lambda: found if len(found := slots()) == _SLOTS else None, timeout=20)
    yield
    Counts.worlds += 1
    Counts.served += not before <= slots()

"""What a foreign plugin finds when the delegate worker executes it: three pipes, and no way to the worker."""

import os

from cnisandbox.boundary.delegate import Finished, delegate_worker, run_plugin
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.namespaces import NewPidNamespaces, inodes
from cnisandbox.boundary.sandbox import service_user, spawn
from cnisandbox.boundary.state import open_state_dirs
from tests.world import World

DIRECTORY = "/run/plugins"


def _run_script(script: str, level: Level) -> Finished:
    """Have a delegate worker execute a script as a plugin; to be run inside a world."""
    os.makedirs(DIRECTORY, exist_ok=True)
    with open(f"{DIRECTORY}/foreign", "w") as file:
        file.write(f"#!/bin/bash\n{script}\n")
        os.fchmod(file.fileno(), 0o755)
    left_open = os.dup2(0, 40)  # what a careless runtime leaves; inherited
    user = service_user()
    wanted = delegate_worker(level, user, open_state_dirs(*user), (DIRECTORY,))
    worker = spawn(wanted, inodes(), None, None, NewPidNamespaces())
    try:
        return worker.call(run_plugin, f"{DIRECTORY}/foreign", dict(os.environ), b"{}")
    finally:
        worker.close()
        os.close(left_open)


_LIST_DESCRIPTORS = 'for fd in {0..63}; do if eval "true <&$fd || true >&$fd"; then echo $fd; fi; done'


def test_program_finds_only_its_three_pipes_open(outer_world: World) -> None:
    open_at_root = outer_world.call(_run_script, _LIST_DESCRIPTORS, Level.ROOT).stdout.split()
    open_confined = outer_world.call(_run_script, _LIST_DESCRIPTORS, Level.HARDENED).stdout.split()
    assert b"40" in open_at_root
    assert open_confined == [b"0", b"1", b"2"]


def test_program_may_use_no_device_but_null(outer_world: World) -> None:
    script = "echo > /dev/null < /dev/null && echo null; head -c 1 /dev/zero || echo refused"
    assert outer_world.call(_run_script, script, Level.HARDENED).stdout == b"null\nrefused\n"


def test_program_cannot_kill_stop_or_see_the_worker(outer_world: World) -> None:
    script = "kill -KILL $PPID; kill -STOP $PPID; cat /proc/$PPID/environ || echo refused"
    finished = outer_world.call(_run_script, script, Level.HARDENED)
    assert (finished.status, finished.stdout) == (0, b"refused\n")


def test_program_that_floods_its_output_is_ended(outer_world: World) -> None:
    def flood() -> str:
        try:
            _run_script("exec yes", Level.HARDENED)
        except Exception as error:
            return str(error)
        return "it was let"

    assert "it wrote more than" in outer_world.call(flood)

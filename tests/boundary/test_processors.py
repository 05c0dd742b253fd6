"""Who is kept off a processor, and who is not."""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from cnisandbox.boundary.processors import allow, keep_off_ours, own_processors
from tests.boundary.observe import SERVICE_UID

ALL = os.sched_getaffinity(0)


@pytest.fixture
def child() -> Iterator[int]:
    """A process that sleeps."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def in_a_fork(function: Callable[[], None]) -> int:
    """Call a function in a fork; returns the exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_one_processor_is_left_to_us(child: int) -> None:
    keep_off_ours(child)
    assert len(ALL - os.sched_getaffinity(child)) == (len(ALL) > 1)


def test_where_there_is_one_only_nobody_is_kept_off_it(child: int) -> None:
    def alone() -> None:
        os.sched_setaffinity(0, {min(ALL)})
        keep_off_ours(child)

    assert in_a_fork(alone) == 0
    assert os.sched_getaffinity(child) == ALL


def test_who_may_not_goes_on(child: int) -> None:
    def as_another_user() -> None:
        os.setresuid(SERVICE_UID, SERVICE_UID, SERVICE_UID)
        keep_off_ours(child)

    assert in_a_fork(as_another_user) == 0
    assert os.sched_getaffinity(child) == ALL


def test_who_has_ended_is_nobody() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    keep_off_ours(process.pid)


def test_who_was_kept_off_is_let_back() -> None:
    def come_back() -> None:
        anywhere = own_processors()
        assert anywhere >= ALL
        keep_off_ours(os.getpid())
        assert len(os.sched_getaffinity(0)) == max(1, len(ALL) - 1)
        allow(anywhere)
        assert os.sched_getaffinity(0) == ALL

    assert in_a_fork(come_back) == 0


def test_where_somebody_has_said_that_it_runs_it_stays() -> None:
    one = {min(ALL)}

    def come_back() -> None:
        os.sched_setaffinity(0, one)
        if len(ALL) > 1:
            assert own_processors() == one
        assert os.sched_getaffinity(0) == one
        allow(one)
        assert os.sched_getaffinity(0) == one

    assert in_a_fork(come_back) == 0


def test_with_none_left_of_those_that_it_had_it_runs_anywhere() -> None:
    """As the kernel has it when a cpuset loses all of them."""

    def come_back() -> None:
        os.sched_setaffinity(0, {min(ALL)})
        allow({1023})
        assert os.sched_getaffinity(0) == ALL

    assert in_a_fork(come_back) == 0

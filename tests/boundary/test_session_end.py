"""A worker that is not what its level asks for, or that breaks the protocol once, is not asked again."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from cnisandbox import BoundaryViolation, PrivilegeNotDropped, declared
from cnisandbox.boundary import namespaces, sandbox
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import Worker, network_worker, service_user, spawn


@declared
def answer_late(pause_s: int) -> str:
    time.sleep(pause_s)
    return "late"


@declared
def answer() -> str:
    return "on time"


@pytest.fixture
def netns() -> Iterator[namespaces.Netns]:
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        opened = namespaces.open_netns(f"/proc/{holder.pid}/ns/net")
        yield opened
        namespaces.close_netns(opened)
        holder.kill()


def _spawned(netns: namespaces.Netns, inode: int) -> Worker:
    wanted = network_worker("container worker", Level.NETADMIN, service_user(), netns)
    return spawn(wanted, namespaces.inodes(), netns_inode=inode)


def test_cannot_call_after_an_attestation_that_differs(netns: namespaces.Netns) -> None:
    worker = _spawned(netns, inode=netns.inode + 1)
    try:
        with pytest.raises(PrivilegeNotDropped, match="netns is"):
            worker.call(answer)
        with pytest.raises(BoundaryViolation, match="the session is over"):
            worker.call(answer)
    finally:
        worker.close()


def test_late_answer_is_not_taken_for_the_next_one(netns: namespaces.Netns, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = _spawned(netns, inode=netns.inode)
    try:
        worker.attest()
        monkeypatch.setattr(sandbox, "CALL_TIMEOUT_S", 0.05)
        with pytest.raises(BoundaryViolation, match="in time"):
            worker.call(answer_late, 1)
        monkeypatch.setattr(sandbox, "CALL_TIMEOUT_S", 10)
        with pytest.raises(BoundaryViolation, match="the session is over"):
            worker.call(answer)
    finally:
        worker.close()


def test_after_something_was_begun_nothing_is_asked(netns: namespaces.Netns) -> None:
    worker = _spawned(netns, inode=netns.inode)
    try:
        begun_at = time.monotonic()
        worker.begin(answer_late, 1)
        assert time.monotonic() - begun_at < 1
        assert not worker.has_answered()
        with pytest.raises(BoundaryViolation, match="the session is over"):
            worker.call(answer)
        time.sleep(1.2)
        assert worker.has_answered()
    finally:
        worker.close()

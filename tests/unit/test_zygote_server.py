"""What the zygote does once: what none of its children has to do again, and the end of a call."""

import array
import os
import signal
import socket
import time

import pytest

from cnisandbox.boundary import seccomp
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, ServiceUser, network_worker
from cnisandbox.boundary.workers import plan_engine
from cnisandbox.zygote import protocol, runner, server

USER = ServiceUser(1, 1)


def test_a_slot_compiles_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: dict[str, bytes] = {}
    monkeypatch.setattr(seccomp, "PROGRAMS", programs)
    server._do_once()
    compiled = set(programs)
    assert len(compiled) >= 4
    plan_engine(Level.HARDENED, USER, {"net": 1}, None)
    for protocols in ((NETLINK_ROUTE,), (NETLINK_ROUTE, NETLINK_NETFILTER)):
        network_worker("host worker", Level.HARDENED, USER, None, protocols)
    assert set(programs) == compiled


def test_who_was_killed_is_left_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher goes before its engine has: the server sleeps until that has ended."""
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append((pid, number)))
    monkeypatch.setattr(os, "waitpid", lambda *_: (0, 0))
    zygote = server.Server([], bytes(32), -1, lambda _: None)
    connection, launcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote._busy[1] = server.Busy(connection, time.monotonic() + 100)
    launcher.close()
    waits = []
    for _ in range(2):
        started = time.monotonic()
        zygote._wait(0.05)
        waits.append(time.monotonic() - started)
    connection.close()
    close(zygote)
    assert kills == [(1, signal.SIGKILL)]
    assert waits[0] < 0.05 <= waits[1]


def test_slots_that_have_taken_a_call_go_on_when_the_others_are_dismissed() -> None:
    """Watched, or not for want of a descriptor: to be stopped is not the end of a call."""
    pool = server.Pool(runner.SERVED, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), 3)
    zygote = server.Server([pool], bytes(32), -1, lambda _: None)
    connection, launcher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    watched, unwatched, waiting = slots = [fork_sleeper() for _ in range(3)]
    pool.idle.update(slots)
    try:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))]
        zygote._control.sendmsg([protocol.STATUS.pack(watched)], rights)
        zygote._control.sendmsg([protocol.STATUS.pack(unwatched)])
        zygote._dismiss()
        assert pool.idle == {waiting}
        assert os.waitid(os.P_PID, waiting, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
        for pid in (watched, unwatched):
            _, status = os.waitpid(pid, os.WCONTINUED)
            assert os.WIFCONTINUED(status)
    finally:
        for pid in slots:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for end in (connection, launcher, pool.listener, zygote._busy[watched].connection):
            end.close()
        close(zygote)


def fork_sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


def close(zygote: server.Server) -> None:
    for end in (zygote._told, zygote._control):
        end.close()
    for fd in (zygote._wake_fd, zygote._alarm_fd):
        os.close(fd)

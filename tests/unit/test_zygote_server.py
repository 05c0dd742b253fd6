"""What the zygote does once: what none of its children has to do again, and the end of a call."""

import os
import signal
import socket
import time

import pytest

from cnisandbox.boundary import seccomp
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, ServiceUser, network_worker
from cnisandbox.boundary.workers import plan_engine
from cnisandbox.zygote import server

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
    for end in (connection, zygote._told, zygote._control):
        end.close()
    for fd in (zygote._wake_fd, zygote._alarm_fd):
        os.close(fd)
    assert kills == [(1, signal.SIGKILL)]
    assert waits[0] < 0.05 <= waits[1]

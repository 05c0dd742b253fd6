"""The audit log in the real journal: a journald of the world's own, which reads nothing of the machine."""

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cnisandbox.audit import AuditLog, open_log
from cnisandbox.cli.main import main
from tests.unit.test_audit_log import PERMITTED, REFUSED, Record
from tests.world import World, wait_until

JOURNALD = "/usr/lib/systemd/systemd-journald"
CONFIGURATION = "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToWall=no\n"


@pytest.fixture
def journald(world: World) -> Iterator["subprocess.Popen[bytes]"]:
    for directory in ("/etc/systemd", "/var/log"):
        world.run(["mount", "-t", "tmpfs", "test", directory])
    world.outside_path("/etc/systemd/journald.conf").write_text(CONFIGURATION)
    daemon = world.popen([JOURNALD], stdin=subprocess.DEVNULL)
    wait_until(lambda: world.outside_path("/run/systemd/journal/socket").exists(), timeout=20)
    yield daemon
    daemon.terminate()
    assert daemon.wait(timeout=20) == 0


def write(*records: Record) -> int:
    target = open_log("journald")
    assert target is not None
    audit = AuditLog(target.fd, "bridge", "c1", "eth0", target.kind)
    for record in records:
        audit.write(record)
    audit.close()
    return audit.dropped


def entries(world: World) -> list[dict[str, Any]]:
    done = world.run(["journalctl", "-o", "json", "--all", "--quiet", "CNISANDBOX_CONTAINER=c1"], expect=None)
    return [json.loads(text) for text in done.stdout.splitlines()]


def shown(world: World, capfd: pytest.CaptureFixture[str], *options: str) -> list[str]:
    world.call(lambda: main(["log", "--journald", *options]), timeout=30)
    return [row.split()[5] for row in capfd.readouterr().out.splitlines()[1:]]


def test_records_are_found_by_their_fields_and_shown(
    world: World, journald: object, capfd: pytest.CaptureFixture[str]
) -> None:
    long = Record("host", {"type": "RTM_NEWLINK", "ifalias": "x" * 7000}, "bridge:2", "")
    assert world.call(write, PERMITTED, REFUSED, long) == 0
    found = wait_until(lambda: (got := entries(world)) and len(got) == 3 and got, timeout=20, interval=0.1)
    assert [entry["PRIORITY"] for entry in found] == ["6", "4", "6"]
    assert {entry["SYSLOG_IDENTIFIER"] for entry in found} == {"cnisandbox"}
    assert json.loads(found[2]["CNISANDBOX_RECORD"])["message"]["ifalias"] == "x" * 7000
    assert shown(world, capfd) == ["bridge:1", "refused", "bridge:2"]
    assert shown(world, capfd, "--refused", "--since", "1h") == ["refused"]


def test_somebody_else_cannot_write_in_our_name(
    world: World, journald: object, capfd: pytest.CaptureFixture[str]
) -> None:
    def forge() -> int:
        os.setuid(65534)
        return write(PERMITTED)

    assert world.call(forge) == 0
    assert world.call(write, REFUSED) == 0
    wait_until(lambda: len(entries(world)) == 2, timeout=20, interval=0.1)
    world.call(lambda: main(["log", "--journald"]), timeout=30)
    captured = capfd.readouterr()
    assert [row.split()[5] for row in captured.out.splitlines()[1:]] == ["refused"]
    assert "of uid 65534" in captured.err


def test_journald_that_ends_in_the_middle_costs_lines_and_nothing_else(world: World, journald: Any) -> None:
    def write_around() -> int:
        target = open_log("journald")
        assert target is not None
        audit = AuditLog(target.fd, "bridge", "c1", "eth0", target.kind)
        audit.write(PERMITTED)
        os.kill(journald_pid, 15)
        wait_until(lambda: not os.path.exists(f"/proc/{journald_pid}/exe"), timeout=20)
        audit.write(PERMITTED)
        assert "connection refused" in audit.close()
        return audit.dropped

    journald_pid = journald.pid
    assert world.call(write_around, timeout=30) == 1

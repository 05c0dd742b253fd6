"""`cnisandbox demo`, as a person and as a program run it: it touches nothing, and it says what is wrong.

machine ── demo's own namespaces ── demo0 ── blue, red
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.world import wait_until

DEMO = [sys.executable, "-m", "cnisandbox.cli.main", "demo"]
pytestmark = pytest.mark.timeout(180)


def machine() -> str:
    """What the demonstration could touch of this machine: links, rules, its directories, its processes."""
    links = sorted(os.listdir("/sys/class/net"))
    files = [str(path) for top in ("/var/lib/cni", "/etc/cni", "/etc/cnisandbox", "/run/netns") for path in tree(top)]
    return json.dumps([links, files, scenes()])


def tree(top: str) -> list[Path]:
    return sorted(Path(top).rglob("*")) if os.path.isdir(top) else []


def scenes() -> list[int]:
    """Processes in a mount namespace where the demonstration has covered directories."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if "cnisandbox-demo" in Path(f"/proc/{name}/mounts").read_text():
                found.append(int(name))
        except OSError:
            continue
    return found


def test_it_shows_everything_and_finds_it_right():
    before = machine()
    done = subprocess.run(DEMO, check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    for part in ("CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "cap_net_admin", "host worker".upper()):
        assert part in done.stdout
    for kind in ("links", "addresses", "routes", "nft rules", "sysctls", "files", "processes", "netns references"):
        assert f"ok  {kind}: no difference" in done.stdout
    assert done.stdout.count(": 3 of 3 came back") == 12
    assert "WRONG" not in done.stdout
    assert machine() == before


def test_it_says_the_same_as_one_document():
    done = subprocess.run([*DEMO, "--json"], check=False, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr + done.stdout
    document = json.loads(done.stdout)
    assert document["problems"] == []
    roles = {process["role"] for process in document["processes"]["bridge"]}
    assert roles == {"engine", "host worker", "container worker", "delegate worker"}
    assert all(process["status"]["CapEff"][-4:] in ("0000", "1000") for process in document["processes"]["bridge"])
    assert all(ping["sent"] == ping["received"] == 3 for ping in document["pings"])
    assert not any(document["after_del"][kind] for kind in ("links", "routes", "nft rules", "files", "processes"))
    assert set(document["answers"].values()) == {"ok"}


def test_it_fails_and_says_what_is_missing_at_a_level_below_hardened():
    environment = {**os.environ, "CNISANDBOX_LEVEL": "netadmin"}
    done = subprocess.run(DEMO, check=False, capture_output=True, text=True, timeout=150, env=environment)
    assert done.returncode == 1, done.stdout
    assert "host worker: Seccomp is '0', not '2'" in done.stderr


def test_everything_that_it_started_ends_with_it():
    child = subprocess.Popen(DEMO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(scenes, timeout=20)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=10)
    wait_until(lambda: not scenes(), timeout=10)

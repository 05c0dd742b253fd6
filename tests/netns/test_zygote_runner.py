"""A wrapped plugin that finds the runner waiting: the same answers, records and refusals as one that starts it.

shim ── /run/cnisandbox/zygote/runner ── slot ═ keeper ── monitor ── opener, worker ═ plugin
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.boundary.observe import SERVICE_UID
from tests.interop.plugin_calls import JsonObject, with_prev_result
from tests.interop.wrapped import cnisandbox, reference_plugins
from tests.netns import zygotes
from tests.netns.zygotes import DIRECTORY, Call, Zygote, descendants, status_of, timed, title_of
from tests.world import World, new_world, wait_until

pytestmark = pytest.mark.timeout(120)

# IPv4 only: for an address of IPv6 the plugin asks until it may be used, how often depends on the time.
NETCONF: JsonObject = {
    **zygotes.NETCONF,
    "cniVersion": "1.0.0",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/16"}]]},
}
COLD = {"CNISANDBOX_COLD": "1"}
LOG = "/run/audit.log"
# LIMIT: seconds that a zygote which does not answer may add to a call: three times the launcher's patience.
BOUND_S = 1.5
# What differs between two calls of one kind.
OWN = ("pid", "ppid", "pids", "namespaces", "descriptors")


@pytest.fixture(scope="module")
def wrapped() -> Iterator[str]:
    """A directory in which bridge, host-local and loopback are wrapped."""
    with reference_plugins() as directory:
        cnisandbox("wrap", "--bin-dir", directory, "bridge", "host-local", "loopback")
        yield directory


@pytest.fixture
def zygote(world: World, wrapped: str) -> Zygote:
    return Zygote(world, wrapped, "--pool", "1")


def is_warm(call: Call) -> bool:
    return bool(call.attestations["keeper"]["pid"] != call.launcher)


def transcript(directory: str, env: dict[str, str], make: Any) -> tuple[list[Call], list[JsonObject]]:
    """Make calls in a world of their own; what they answered, and the audit log."""
    with new_world() as world:
        zygote = Zygote(world, directory, "--pool", "1")

        def call(verb: str, netconf: JsonObject = NETCONF, **which: Any) -> Call:
            zygote.wait_until_ready()
            more = which.pop("env", {})
            return zygote.call(verb, netconf, env={"CNISANDBOX_LOG": LOG, **env, **more}, **which)

        calls = list(make(call))
        lines = world.read(LOG).splitlines() if os.path.exists(world.outside_path(LOG)) else []
        return calls, [json.loads(line) for line in lines]


def attachment(call: Any) -> Iterator[Call]:
    added = call("ADD")
    yield added
    netconf = with_prev_result(NETCONF, json.loads(added.answer.stdout))
    for verb in ("CHECK", "DEL", "DEL"):
        yield call(verb, netconf)


def refusals(call: Any) -> Iterator[Call]:
    yield call("ADD", netns="/run/netns/nowhere", expect=1)
    yield call("ADD", netns="/run/zygote.log", expect=1)
    yield call("ADD", ifname="a/b", expect=1)
    yield call("ADD", env={"CNI_CONTAINERID": ""}, expect=1)
    yield call("ADD", {**NETCONF, "ipam": {"type": "nothing"}}, expect=1)
    yield call("ADD", {**NETCONF, "cniVersion": "9.9.9"}, expect=1)
    yield call("ADD", env={"CNISANDBOX_LOG": "/run/nowhere/log"}, expect=1)


def visible(call: Call) -> tuple[bytes, bytes, int]:
    stdout, stderr, status = call.answer
    return without_chance(stdout), without_chance(stderr), status


def without_chance(text: bytes) -> bytes:
    """Number MAC addresses and names of veths, which are random, by their first appearance."""
    return zygotes.without_macs(zygotes.without_veths(text))


def settled(call: Call) -> dict[str, JsonObject]:
    """Attestations without what is another one in each call; how many descriptors, but the slot's for its status."""
    alike = {}
    for role, record in call.attestations.items():
        count = len(record["descriptors"]) - (role == "keeper" and is_warm(call))
        alike[role] = {**record, **dict.fromkeys(OWN), "count": count, "named": sorted(record["namespaces"])}
    return alike


def test_answers_attestations_and_records_are_those_of_a_cold_call(wrapped: str) -> None:
    (warm, warm_log), (cold, cold_log) = (transcript(wrapped, env, attachment) for env in ({}, COLD))
    assert all(map(is_warm, warm))
    assert not any(map(is_warm, cold))
    assert [visible(call) for call in warm] == [visible(call) for call in cold]
    assert [settled(call) for call in warm] == [settled(call) for call in cold]
    assert {"keeper", "monitor", "opener", "worker"} == warm[0].attestations.keys()
    types = [
        [(line["message"]["type"], line.get("permit"), line["netns"]) for line in log] for log in (warm_log, cold_log)
    ]
    assert types[0] == types[1]
    assert len(types[0]) > 20


def test_refusals_are_those_of_a_cold_call(wrapped: str) -> None:
    (warm, _), (cold, _) = (transcript(wrapped, env, refusals) for env in ({}, COLD))
    assert [visible(call) for call in warm] == [visible(call) for call in cold]
    assert [call.answer.returncode for call in warm] == [1] * 7


# CAP_NET_ADMIN; to enter a netns CAP_SYS_ADMIN, and CAP_NET_RAW for a profile with packet sockets.
NET_ADMIN, NET_RAW, SYS_ADMIN = 1 << 12, 1 << 13, 1 << 21
HELD = {"monitor": NET_ADMIN, "opener": NET_ADMIN | NET_RAW | SYS_ADMIN}


@pytest.mark.parametrize("role", HELD)
def test_monitor_and_opener_wait_without_what_they_do_not_need(zygote: Zygote, role: str) -> None:
    waiting = waiting_as(zygote, role)
    status = wait_until(lambda: lowered(waiting))
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == HELD[role]
    assert {status[name] for name in ("CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["Uid"].split() == [str(SERVICE_UID)] * 4
    assert os.readlink(f"/proc/{waiting}/root") == "/"
    assert len(mount_points(waiting)) == 2
    attested = zygote.call("ADD", NETCONF).attestations[role]
    assert attested["pid"] == waiting
    assert (attested["permitted"], attested["seccomp"]) == (NET_ADMIN, 2)
    zygote.call("DEL", NETCONF)


def waiting_as(zygote: Zygote, role: str) -> int:
    (slot,) = zygote.slots("runner")
    title = f"cnisandbox: {role} [waiting]"
    found: int = wait_until(lambda: next((pid for pid in descendants(slot) if title_of(pid) == title), 0))
    return found


def lowered(pid: int) -> dict[str, str]:
    """What the kernel says of a process that gives up what it had, when it is through with that."""
    status = status_of(pid)
    return status if status["NoNewPrivs"] == "1" else {}


def mount_points(pid: int) -> list[str]:
    return [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def test_level_of_the_call_counts(zygote: Zygote) -> None:
    call = zygote.call("ADD", NETCONF, env={"CNISANDBOX_LEVEL": "hardened"})
    assert is_warm(call)
    assert call.attestations["worker"]["level"] == "hardened"
    zygote.call("DEL", NETCONF)


def test_level_root_is_cold(zygote: Zygote) -> None:
    slots = zygote.slots("runner")
    assert zygote.call("ADD", NETCONF, env={"CNISANDBOX_LEVEL": "root"}).attestations == {}
    assert zygote.slots("runner") == slots


def test_profile_that_changes_is_used_by_the_next_call(zygote: Zygote) -> None:
    assert is_warm(zygote.call("ADD", NETCONF))
    zygote.wait_until_ready()
    text = b'summary = "nothing"\nlevel = "mediated"\n'
    zygote.world.run(["mount", "-t", "tmpfs", "none", "/etc/cnisandbox"])
    zygote.world.run(["mkdir", "/etc/cnisandbox/profiles.d"])
    zygote.world.run(["sh", "-c", "cat > /etc/cnisandbox/profiles.d/bridge.toml"], stdin=text)
    call = zygote.call("DEL", NETCONF, expect=None)
    assert is_warm(call)
    assert b"not permitted" in call.answer.stdout


@contextmanager
def exchanged_loopback(wrapped: str, *commands: str) -> Iterator[None]:
    """A script in the place of a wrapped plugin."""
    answer = """echo '{"cniVersion": "1.0.0", "ips": []}'"""
    aside = f"{wrapped}/.cnisandbox/loopback"
    os.rename(aside, f"{aside}.old")
    try:
        Path(aside).write_text("\n".join(["#!/bin/sh", "cat > /dev/null", *commands, answer, ""]), encoding="ascii")
        os.chmod(aside, 0o755)
        yield
    finally:
        os.rename(f"{aside}.old", aside)


def test_plugin_that_was_exchanged_is_what_runs(world: World, wrapped: str) -> None:
    zygote = Zygote(world, wrapped, "--pool", "1")
    with exchanged_loopback(wrapped):
        call = zygote.call("ADD", {**NETCONF, "type": "loopback"})
    assert json.loads(call.answer.stdout) == {"cniVersion": "1.0.0", "ips": []}
    assert is_warm(call)


@pytest.mark.parametrize("env", [{}, COLD], ids=["warm", "cold"])
def test_shim_does_not_wait_for_what_a_plugin_at_root_leaves_behind(zygote: Zygote, env: dict[str, str]) -> None:
    slots = zygote.slots("runner")
    text = b'summary = "nothing"\nlevel = "root"\n'
    zygote.world.run(["mkdir", "/etc/cnisandbox/profiles.d"])
    zygote.world.run(["sh", "-c", "cat > /etc/cnisandbox/profiles.d/loopback.toml"], stdin=text)
    with exchanged_loopback(zygote.plugins.directory, "sleep 60 < /dev/null > /dev/null 2>&1 &", "echo $! > /run/left"):
        call, took_s = timed(lambda: zygote.call("ADD", {**NETCONF, "type": "loopback"}, env=env))
    assert json.loads(call.answer.stdout) == {"cniVersion": "1.0.0", "ips": []}
    assert took_s < 20
    assert zygotes.title_of(int(zygote.world.read("/run/left"))).startswith("sleep")
    assert (zygote.slots("runner") == slots) == (env == COLD)


def test_call_is_cold_when_the_zygote_is_stopped_and_takes_a_bounded_time(zygote: Zygote) -> None:
    _, usual_s = timed(lambda: zygote.call("ADD", NETCONF, env=COLD))
    zygote.call("DEL", NETCONF, env=COLD)
    (slot,) = zygote.slots("runner")
    os.kill(slot, signal.SIGSTOP)
    try:
        call, took_s = timed(lambda: zygote.call("ADD", NETCONF))
    finally:
        os.kill(slot, signal.SIGCONT)
    assert not is_warm(call)
    assert took_s < usual_s + BOUND_S


def test_call_is_cold_without_a_zygote(zygote: Zygote) -> None:
    slots = [child.pid for child in zygote.children()]
    zygote.kill()
    wait_until(lambda: not any(map(zygotes.is_alive, slots)))
    assert not is_warm(zygote.call("ADD", NETCONF))


def test_plugin_that_is_killed_ends_the_shim_as_it_ends_a_cold_one(zygote: Zygote) -> None:
    underway = zygote.begin("ADD", NETCONF)
    keeper = int(wait_until(lambda: keeper_of(zygote)))
    below = wait_until(lambda: zygotes.descendants(keeper))
    os.kill(keeper, signal.SIGKILL)
    assert underway.finish(expect=-signal.SIGKILL).answer.stdout == b""
    wait_until(lambda: not any(map(zygotes.is_alive, below)))


def test_everything_ends_with_the_shim(zygote: Zygote) -> None:
    underway = zygote.begin("ADD", NETCONF)
    keeper = int(wait_until(lambda: keeper_of(zygote)))
    processes = [keeper, *wait_until(lambda: zygotes.descendants(keeper))]
    underway.child.kill()
    wait_until(lambda: not any(map(zygotes.is_alive, processes)))


@pytest.mark.parametrize(
    "subject", [b"", b"/usr/lib/cni/bridge", b"\x1f\x1f\x1f", b"/usr/lib/cni/nothing\x1f\x1fbridge\x1f"]
)
def test_subject_that_names_no_plugin_is_an_error_of_the_call(zygote: Zygote, subject: bytes) -> None:
    """Whoever can say such a thing is root and fits; it must not end in anything but an error."""
    launcher = f"{zygote.plugins.directory}/bridge"
    data = zygote.world.read(launcher)
    own = f"{launcher}\x1f\x1fbridge\x1f".encode()
    assert own in data
    zygote.world.run(["sh", "-c", "cat > /run/odd"], stdin=data.replace(own, subject.ljust(len(own), b"\0")))
    zygote.world.run(["chmod", "755", "/run/odd"])
    done = zygote.world.popen(["/run/odd"], env=zygote.plugins.environment("VERSION"))
    stdout, _ = done.communicate(b"{}", timeout=20)
    assert done.returncode == 1
    assert stdout == b"" or "code" in json.loads(stdout)


def test_socket_is_roots_alone(zygote: Zygote) -> None:
    path = zygote.world.outside_path(f"{DIRECTORY}/runner")
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_plugin_may_end_before_its_netconf_has_come(zygote: Zygote) -> None:
    underway = zygote.begin("VERSION", NETCONF)
    underway.child.wait(timeout=10)
    assert b"supportedVersions" in underway.finish().answer.stdout


def keeper_of(zygote: Zygote) -> int:
    """The slot that has become a keeper; 0 for none."""
    return next((child.pid for child in zygote.children() if "keeper" in child.title), 0)


@pytest.mark.parametrize("env", [{}, COLD], ids=["warm", "cold"])
def test_nothing_is_mounted_on_the_host(world: World, wrapped: str, env: dict[str, str]) -> None:
    """Where its mounts are shared, as systemd has them: a plugin over its shim there would run unconfined."""
    world.run(["mount", "--make-rshared", "/"])
    zygote = Zygote(world, wrapped, "--pool", "1")
    before = world.run(["findmnt", "--list", "--output", "TARGET,SOURCE"]).stdout
    for verb in ("ADD", "DEL"):
        call = zygote.call(verb, NETCONF, env=env)
        assert "worker" in call.attestations
        assert world.run(["findmnt", "--list", "--output", "TARGET,SOURCE"]).stdout == before
        zygote.wait_until_ready()

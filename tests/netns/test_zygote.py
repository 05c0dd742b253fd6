"""The warm path: the same answers and confinement as the cold one, and nothing that happens to a zygote fails a call.

launcher ── /run/cnisandbox/zygote/bridge ── slot ═ engine ── workers
                                              │
                                            server            killed, stopped, filled, replaced, lied to
"""

import array
import functools
import json
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cnisandbox.boundary import seccomp
from cnisandbox.boundary.sandbox import service_user
from cnisandbox.cli import build
from cnisandbox.zygote import protocol
from tests.interop.plugin_calls import JsonObject, changed, with_prev_result
from tests.netns import silent_root, zygotes
from tests.netns.zygotes import DIRECTORY, LOOPBACK, NETCONF, Call, Zygote, timed
from tests.world import World, new_world, wait_until

pytestmark = pytest.mark.timeout(120)

COLD = {"CNISANDBOX_COLD": "1"}
MEDIATED = {"CNISANDBOX_LEVEL": "mediated"}
NOBODY = 65534
# LIMIT: seconds that a zygote which does not answer may add to a call: the launcher's patience, and half as much.
BOUND_S = 1.5
# LIMIT: seconds that a launcher waits while others are served before it.
QUEUE_S = 10.0
# Where a slot is before it has taken a call: a system call, and which one of its name, from the connection on.
TAKING = (
    ("sendto", 1),  # hello
    ("recvmsg", 1),  # the request
    ("pidfd_getfd", 1),  # the end of the launcher's pipe
    ("sendmsg", 1),  # the zygote is told
    ("fchdir", 1),  # the launcher's working directory
    ("pidfd_getfd", 2),  # standard input
    ("pidfd_getfd", 4),  # standard error
    ("prctl", 1),  # it does not end with the zygote any more
)
# What differs between two calls of one kind: who they are, and the namespaces that were made for them.
OWN_NAMESPACES = ("cgroup", "ipc", "mnt", "pid", "uts")


@pytest.fixture
def zygote(world: World, plugin_dir: str) -> Zygote:
    """A zygote with two slots for each plugin."""
    return Zygote(world, plugin_dir, "--pool", "2")


@pytest.fixture
def single(world: World, plugin_dir: str) -> Zygote:
    """A zygote with one slot for each plugin: it is known who will serve the next call."""
    return Zygote(world, plugin_dir, "--pool", "1")


class TestSameAsCold:
    """What a runtime sees, and what the kernel says about the processes."""

    @pytest.mark.parametrize("level", [{}, MEDIATED], ids=["hardened", "mediated"])
    def test_bridge_answers_byte_for_byte(self, plugin_dir: str, level: dict[str, str]) -> None:
        warm, cold = (transcript(plugin_dir, attachment, {**level, **mode}) for mode in ({}, COLD))
        assert [visible(call) for call in warm] == [visible(call) for call in cold]
        assert warm[0].answer.stdout.count(b"10.77.0.2/16") == 1
        for ours, theirs in zip(warm, cold, strict=True):
            assert ours.attestations.keys() == theirs.attestations.keys()
            assert ours.attestations.keys() >= {"engine", "host worker", "delegate worker"}
            assert settled(ours) == settled(theirs)

    @pytest.mark.parametrize("level", [{}, MEDIATED], ids=["hardened", "mediated"])
    def test_loopback_answers_byte_for_byte(self, plugin_dir: str, level: dict[str, str]) -> None:
        warm, cold = (transcript(plugin_dir, loopback, {**level, **mode}) for mode in ({}, COLD))
        assert [visible(call) for call in warm] == [visible(call) for call in cold]
        assert [settled(call) for call in warm] == [settled(call) for call in cold]

    def test_refusals_answer_byte_for_byte(self, plugin_dir: str) -> None:
        warm, cold = (transcript(plugin_dir, refusals, mode, is_attested=False) for mode in ({}, COLD))
        assert [visible(call) for call in warm] == [visible(call) for call in cold]
        assert [call.answer.returncode for call in warm] == [1] * 7 + [0] * 2

    @pytest.mark.parametrize("umask", ["022", "000"])
    def test_files_have_the_same_modes_whatever_the_umask(self, plugin_dir: str, umask: str) -> None:
        prefix = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
        modes = []
        for mode in ({}, COLD):
            with new_world() as world:
                zygote = Zygote(world, plugin_dir, "--pool", "1")
                zygote.call("ADD", prefix=prefix, env=mode)
                listing = ["find", "/var/lib/cni", "/run/cni", "-printf", "%p %y %m %U\\n"]
                modes.append(sorted(world.run(listing, expect=None).stdout.splitlines()))
        assert modes[0] == modes[1]
        assert len(modes[0]) > 4

    def test_relative_paths_are_relative_to_the_caller(self, zygote: Zygote) -> None:
        zygote.warm("ADD", prefix=("sh", "-c", 'cd /run/netns; exec "$@"', "sh"), env={"CNI_NETNS": "./blue"})
        zygote.delete()

    def test_path_of_a_descriptor_means_what_the_caller_has_open(self, single: Zygote) -> None:
        """Even where a slot has a netns open at that number; other paths below /proc/self are the same for both."""
        (slot,) = single.slots()
        links = {number: os.readlink(f"/proc/{slot}/fd/{number}") for number in os.listdir(f"/proc/{slot}/fd")}
        (number,) = (number for number, link in links.items() if link.startswith("net:"))
        prefix = ("sh", "-c", f'exec {number}< /run/netns/blue; exec "$@"', "sh")
        for ifname, place in (("eth0", f"/proc/self/fd/{number}"), ("eth1", f"/dev/fd/{number}")):
            single.cold("ADD", prefix=prefix, env={"CNI_NETNS": place}, ifname=ifname)
            assert single.world.run(["ip", "link", "show", ifname], netns="blue").returncode == 0
        single.warm("ADD", env={"CNI_NETNS": "/proc/self/root/run/netns/blue"}, ifname="eth2")

    def test_state_that_root_has_added_meanwhile_is_used(self, world: World, plugin_dir: str) -> None:
        """Where the file system cannot be idmapped, what is root's is given away, at every call."""
        user = service_user()
        world.run(["install", "-d", "-o", str(user.uid), "-g", str(user.gid), "/var/lib/cni/networks"])
        zygote = Zygote(world, plugin_dir, "--pool", "1")
        script = "umask 077; cd /var/lib/cni/networks; mkdir warm; printf 10.77.0.7 > warm/last_reserved_ip.0"
        world.run(["sh", "-ec", script])
        assert b"10.77.0.8/16" in zygote.warm("ADD").answer.stdout

    def test_state_that_was_given_away_meanwhile_is_used(self, single: Zygote) -> None:
        user = service_user()
        single.world.run(["chown", f"{user.uid}:{user.gid}", "/var/lib/cni/networks"])
        assert b"10.77.0.2/16" in single.warm("ADD").answer.stdout

    def test_signals_are_not_blocked(self, single: Zygote) -> None:
        underway = single.begin("ADD")
        warm = zygotes.status_of(underway.engine)
        workers = [zygotes.status_of(worker.pid) for worker in zygotes.children(underway.engine)]
        underway.finish()
        underway = single.begin("ADD", env=COLD, ifname="eth1")
        wait_until(lambda: zygotes.is_reading(underway.child.pid))
        cold = zygotes.status_of(underway.child.pid)
        underway.finish()
        for field in ("SigBlk", "SigIgn", "SigCgt"):
            assert warm[field] == cold[field], field
        assert {worker["SigBlk"] for worker in workers} == {cold["SigBlk"]}

    @pytest.mark.parametrize("entry", ["=x=y", "nothing", "CNI_IFNAME=eth9", "CNISANDBOX_LEVEL=root"])
    def test_odd_environment_means_the_same(self, zygote: Zygote, entry: str) -> None:
        """A name that is empty, an entry without a value, and one that comes twice, of which the first one counts."""
        env = {"CNISANDBOX_LEVEL": "hardened"}
        odd = ("python3", "-c", EXECUTE_WITH, entry)
        warm = zygote.warm("ADD", prefix=odd, env=env)
        result = warm.answer.stdout
        assert b'"eth0"' in result
        zygote.delete()
        zygote.cold("ADD", prefix=odd, env={**env, **COLD})


# Executes a program with one more entry behind its environment.
EXECUTE_WITH = """
import ctypes, os, sys
more, path = sys.argv[1:]
entries = [os.fsencode(f"{name}={value}") for name, value in os.environ.items()] + [os.fsencode(more), None]
libc = ctypes.CDLL(None)
argv = [os.fsencode(path), None]
libc.execve(argv[0], (ctypes.c_char_p * 2)(*argv), (ctypes.c_char_p * len(entries))(*entries))
"""


def transcript(
    plugin_dir: str,
    calls: Callable[[Callable[..., Call]], Iterator[Call]],
    env: dict[str, str],
    *,
    is_attested: bool = True,
) -> list[Call]:
    """Make calls in a world of their own: warm, unless `env` says otherwise."""
    with new_world() as world:
        zygote = Zygote(world, plugin_dir, "--pool", "2")
        is_cold = COLD.items() <= env.items()
        make = zygote.cold if is_cold else zygote.warm
        if not is_attested:
            make = zygote.call if is_cold else functools.partial(use_a_slot, zygote)

        def call(verb: str, netconf: JsonObject = NETCONF, **which: Any) -> Call:
            return make(verb, netconf, **{**which, "env": {**env, **which.get("env", {})}})

        return list(calls(call))


def use_a_slot(zygote: Zygote, *args: Any, **which: Any) -> Call:
    """Make a call that attests nothing, and see a slot end."""
    zygote.wait_until_ready()
    slots = zygote.slots()
    call = zygote.call(*args, **which)
    wait_until(lambda: not all(map(zygotes.is_alive, slots)))
    return call


def attachment(call: Callable[..., Call]) -> Iterator[Call]:
    added = call("ADD")
    yield added
    netconf = with_prev_result(NETCONF, parsed(added))
    for verb in ("CHECK", "DEL", "DEL"):
        yield call(verb, netconf)
    yield call("DEL", netconf, netns="")


def loopback(call: Callable[..., Call]) -> Iterator[Call]:
    added = call("ADD", LOOPBACK, ifname="lo")
    yield added
    netconf = with_prev_result(LOOPBACK, parsed(added))
    for verb in ("CHECK", "DEL", "DEL"):
        yield call(verb, netconf, ifname="lo")


def refusals(call: Callable[..., Call]) -> Iterator[Call]:
    yield call("ADD", netns="/run/netns/nowhere", expect=1)
    yield call("ADD", netns="/run/zygote.log", expect=1)
    yield call("ADD", ifname="a/b", expect=1)
    yield call("ADD", env={"CNI_CONTAINERID": ""}, expect=1)
    yield call("ADD", changed(NETCONF, ipam__ranges=[]), expect=1)
    yield call("ADD", changed(NETCONF, cniVersion="9.9.9"), expect=1)
    yield call("CHECK", expect=1)
    yield call("VERSION")
    yield call("STATUS")


def parsed(call: Call) -> Any:
    return json.loads(call.answer.stdout)


def visible(call: Call) -> tuple[bytes, bytes, int]:
    stdout, stderr, status = call.answer
    return zygotes.without_macs(stdout), zygotes.without_macs(stderr), status


def settled(call: Call) -> dict[str, JsonObject]:
    """Attestations without what is another one in each call."""
    alike = {}
    for role, record in call.attestations.items():
        own = {name: number for name, number in record["namespaces"].items() if name not in OWN_NAMESPACES}
        alike[role] = {**record, "pid": 0, "ppid": 0, "namespaces": sorted(record["namespaces"]), "shared": sorted(own)}
    # Its descriptors have the numbers that were free; a slot has one more, for its status.
    has_slot = call.attestations["engine"]["pid"] != call.launcher
    alike["engine"]["descriptors"] = len(alike["engine"]["descriptors"]) - has_slot
    return alike


class TestDeath:
    """Whatever dies, whenever."""

    def test_call_is_cold_when_the_zygote_was_killed(self, zygote: Zygote) -> None:
        slots = [child.pid for child in zygote.children()]
        zygote.kill()
        wait_until(lambda: not any(map(zygotes.is_alive, slots)))
        zygote.cold("ADD")
        zygote.delete()
        zygote.start()
        zygote.warm("ADD")

    # Where a slot is when its zygote is killed: a system call, and which one of its name, from the connection on.
    POINTS = (
        ("getsockopt", 3),  # who is it?
        ("sendto", 1),  # hello
        ("recvmsg", 1),  # the request
        ("pidfd_getfd", 1),  # the end of the launcher's pipe
        ("sendmsg", 1),  # the zygote is told
        ("pidfd_getfd", 3),  # standard output
        ("prctl", 1),  # it does not end with the zygote any more
        ("sendto", 2),  # taken
        ("dup2", 3),
        ("openat", 4),  # the netns
        ("setns", 1),
        ("setresuid", 1),
        ("landlock_restrict_self", 1),
        ("seccomp", 1),
        ("linkat", 1),  # the address is reserved
    )

    @pytest.mark.parametrize(("syscall", "when"), POINTS, ids=str)
    def test_add_succeeds_when_the_zygote_is_killed_in_the_middle_of_it(
        self, single: Zygote, syscall: str, when: int
    ) -> None:
        (slot,) = single.slots()
        with stopped_at(slot, syscall, when) as wait_until_stopped:
            underway = single.begin("ADD")
            underway.give_netconf()
            wait_until_stopped()
            single.kill()
        call = underway.finish()
        assert b"10.77.0.2/16" in call.answer.stdout
        wait_until(lambda: not zygotes.is_alive(slot))
        single.delete()

    def test_add_goes_on_when_the_zygote_is_killed_while_the_engine_waits(self, single: Zygote) -> None:
        underway = single.begin("ADD")
        engine, zygote = underway.engine, single.pid
        single.kill()
        call = underway.finish()
        assert call.attestations["engine"]["pid"] == engine
        assert call.engine_parent == zygote
        single.delete()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSYS])
    def test_launcher_ends_as_its_engine_does(self, single: Zygote, number: int) -> None:
        underway = single.begin("ADD")
        os.kill(underway.engine, number)
        assert underway.finish(expect=-number).answer.stdout == b""
        single.wait_until_ready()
        single.warm("ADD")

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_engine_and_workers_end_with_the_launcher(self, single: Zygote, number: int) -> None:
        underway = single.begin("ADD")
        engine = underway.engine
        processes = [engine, *(worker.pid for worker in zygotes.children(engine))]
        assert len(processes) == 4
        underway.child.send_signal(number)
        wait_until(lambda: not any(map(zygotes.is_alive, processes)), timeout=2)
        single.wait_until_ready()
        single.warm("ADD")

    def test_slot_that_dies_is_replaced(self, single: Zygote) -> None:
        for _ in range(2):
            (slot,) = single.slots()
            os.kill(slot, signal.SIGKILL)
            wait_until(lambda: slot not in single.slots())  # noqa: B023 - waited for at once
            single.delete()  # no slot for a second, to whom nothing is left to say
            single.wait_until_ready()
        single.warm("ADD")

    def test_zygote_that_cannot_fork_lives_on(self, single: Zygote) -> None:
        """As at TasksMax, in a burst of calls; with systemd its end would be that of all calls under way."""
        with injected(single.pid, "clone", "error=EAGAIN:when=1") as wait_until_told:
            single.warm("ADD")
            wait_until_told(b"INJECTED")
            single.wait_until_ready()
        assert single.log == "cnisandbox: fork slot: resource temporarily unavailable\n"
        assert int(zygotes.status_of(single.pid)["SigBlk"], 16) == 0
        single.warm("DEL")

    def test_call_is_cold_where_its_slot_may_not_be(self, single: Zygote) -> None:
        """Root may stand in a directory that it could not enter: one of a user's FUSE, after sudo."""
        (slot,) = single.slots()
        with injected(slot, "fchdir", "error=EACCES") as wait_until_told:
            call = single.call("ADD")
            wait_until_told(b"INJECTED")
        assert call.attestations["engine"]["pid"] == call.launcher
        single.wait_until_ready()
        single.warm("DEL")

    def test_slot_and_engine_are_killed_before_the_zygote_when_memory_is_used_up(self, single: Zygote) -> None:
        def score(pid: int) -> int:
            return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

        underway = single.begin("ADD")
        calls = [*single.slots("runner"), underway.engine, *zygotes.descendants(underway.engine)]
        assert {score(pid) for pid in calls} == {score(single.pid) + 1}
        underway.finish()

    def test_nothing_is_left_of_a_slot_that_dies(self, single: Zygote) -> None:
        (slot,) = single.slots()
        workers = [worker.pid for worker in zygotes.children(slot)]
        assert len(workers) == 3
        os.kill(slot, signal.SIGKILL)
        wait_until(lambda: not any(map(zygotes.is_alive, workers)))


@contextmanager
def stopped_at(pid: int, syscall: str, when: int) -> Iterator[Callable[[], None]]:
    """Stop a process at one of its system calls; it goes on at the end.

    Args:
        pid: The process.
        syscall: Name of the call.
        when: Which call of that name, from 1.

    Yields:
        Waits until it has come so far.
    """
    with injected(pid, syscall, f"signal=STOP:when={when}") as wait_until_told:
        try:
            yield lambda: wait_until_told(b"stopped by SIGSTOP")
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def injected(pid: int, syscall: str, what: str) -> Iterator[Callable[[bytes], None]]:
    """Have something happen at system calls of a process.

    Args:
        pid: The process.
        syscall: Name of the call.
        what: As strace(1) has it.

    Yields:
        Waits until it has come to pass, and strace has said so in these words.
    """
    argv = ["strace", "-p", str(pid), "-e", f"trace={syscall}", "-e", f"inject={syscall}:{what}"]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def wait_until_told(words: bytes) -> None:
        assert tracer.stderr is not None
        seen = b""
        while words not in seen:
            ready, _, _ = select.select([tracer.stderr], [], [], 5)
            piece = os.read(tracer.stderr.fileno(), 1 << 16) if ready else b""
            assert piece, f"{syscall}, {what}: it did not come to pass: {seen!r}"
            seen += piece

    try:
        wait_until_told(b"attached")
        yield wait_until_told
    finally:
        tracer.terminate()
        tracer.communicate(timeout=10)


class TestDelay:
    """What hangs costs little, and the call is served without it; the time is that until the end of the output."""

    @pytest.mark.parametrize("which", ["server and slots", "slots"])
    def test_stopped_zygote_costs_a_bounded_time(self, single: Zygote, which: str) -> None:
        usual = timed(lambda: single.cold("ADD", env=COLD))[1]
        stopped = [*single.slots(), *([single.pid] if which == "server and slots" else [])]
        with signalled(stopped, signal.SIGSTOP, signal.SIGCONT):
            _, took = timed(lambda: single.cold("DEL"))
        assert took < usual + BOUND_S
        single.warm("ADD")

    def test_empty_pool_costs_a_bounded_time(self, single: Zygote) -> None:
        with signalled([single.pid], signal.SIGSTOP, signal.SIGCONT):
            first = single.begin("ADD", ifname="eth1")
            assert first.engine
            assert single.slots() == []
            _, took = timed(lambda: single.cold("ADD"))
            assert took < 2 * BOUND_S
            assert first.finish().engine_parent == single.pid
        single.wait_until_ready()
        single.warm("DEL")

    def test_socket_says_when_a_call_was_taken(self, single: Zygote) -> None:
        path = single.world.outside_path(f"{DIRECTORY}/bridge")
        before = path.stat().st_mtime_ns
        single.cold("ADD", env=COLD)
        assert path.stat().st_mtime_ns == before
        single.warm("DEL")
        wait_until(lambda: path.stat().st_mtime_ns > before)

    def test_queue_that_moves_is_waited_in(self, single: Zygote) -> None:
        """For longer than a zygote is waited for that serves nobody."""
        with signalled(single.slots(), signal.SIGSTOP, signal.SIGCONT):
            underway = single.begin("ADD")
            self.show_progress(single, 2 * BOUND_S)
        assert underway.finish().engine_parent == single.pid

    def test_queue_that_moves_costs_a_bounded_time(self, single: Zygote) -> None:
        with signalled(single.slots(), signal.SIGSTOP, signal.SIGCONT):
            underway = single.begin("ADD")
            self.show_progress(single, QUEUE_S + BOUND_S)
            assert zygotes.is_reading(underway.child.pid)
        assert underway.finish().attestations["engine"]["pid"] == underway.child.pid

    @staticmethod
    def show_progress(zygote: Zygote, duration_s: float) -> None:
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            os.utime(zygote.world.outside_path(f"{DIRECTORY}/bridge"))
            time.sleep(0.1)

    def test_full_backlog_costs_a_bounded_time(self, single: Zygote) -> None:
        with signalled([single.pid, *single.slots()], signal.SIGSTOP, signal.SIGCONT):
            single.world.call(fill_backlog_and_call, single, timeout=20)
        single.wait_until_ready()
        single.warm("DEL")

    @pytest.mark.parametrize(("syscall", "when"), TAKING, ids=str)
    def test_slot_that_stops_in_the_middle_costs_a_bounded_time(self, single: Zygote, syscall: str, when: int) -> None:
        (slot,) = single.slots()
        with stopped_at(slot, syscall, when) as wait_until_stopped:
            underway = single.begin("ADD")
            wait_until_stopped()
            call, took = timed(underway.finish)
            assert took < 2 * BOUND_S
        assert call.attestations["engine"]["pid"] == underway.child.pid
        single.wait_until_ready()
        single.warm("DEL")

    def test_signal_that_interrupts_a_launcher_fails_nothing(self, single: Zygote) -> None:
        underway = single.begin("ADD")
        assert underway.engine
        for number in (signal.SIGSTOP, signal.SIGCONT):
            underway.child.send_signal(number)
        assert underway.finish().engine_parent == single.pid


@contextmanager
def signalled(pids: list[int], before: int, after: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, before)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, after)


def fill_backlog_and_call(zygote: Zygote) -> None:
    waiting = []
    for _ in range(1000):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        waiting.append(client)
        try:
            client.connect(f"{DIRECTORY}/bridge")
        except BlockingIOError:
            break
    assert len(waiting) < 1000
    before = time.monotonic()
    variables = {**os.environ, **zygote.plugins.environment("ADD")}
    stdin = json.dumps(NETCONF).encode()
    argv = [f"{zygote.plugins.directory}/bridge"]
    subprocess.run(argv, input=stdin, env=variables, check=True, capture_output=True, timeout=10)
    assert time.monotonic() - before < 2 * BOUND_S


class TestFit:
    """Who is served warm: whoever could have executed the plugin to the same effect, and nobody else."""

    UNFIT: ClassVar = {
        "another mount namespace": ("unshare", "--mount"),
        "another network namespace": ("unshare", "--net"),
        "fewer capabilities": ("setpriv", "--bounding-set", "-sys_time"),
        "fewer capabilities, capsh": ("capsh", "--drop=cap_sys_module", "--", "-c", 'exec "$@"', "sh"),
        "no_new_privs": ("setpriv", "--no-new-privs"),
        "chroot": ("sh", "-c", 'mkdir /run/r; mount --rbind / /run/r; exec chroot /run/r "$@"', "sh"),
    }
    # What cannot serve a call without the zygote either, at least not here.
    HELPLESS: ClassVar = {
        "another user namespace": ("unshare", "--user", "--map-root-user"),
        "another pid namespace": ("unshare", "--pid", "--fork"),
        "another user": ("setpriv", "--reuid", str(NOBODY), "--clear-groups", "--inh-caps=-all"),
    }

    @pytest.mark.parametrize("prefix", UNFIT.values(), ids=UNFIT)
    def test_unfit_is_served_cold(self, single: Zygote, prefix: tuple[str, ...]) -> None:
        single.cold("ADD", prefix=prefix)
        single.warm("ADD", ifname="eth1")

    @pytest.mark.parametrize("prefix", HELPLESS.values(), ids=HELPLESS)
    def test_unfit_is_not_served_warm(self, single: Zygote, prefix: tuple[str, ...]) -> None:
        slots = single.slots()
        single.call("ADD", prefix=prefix, expect=None)
        assert single.slots() == slots
        single.warm("ADD")

    def test_system_call_filter_is_unfit(self, single: Zygote) -> None:
        permits_all = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
        slots = single.slots()

        def call_under_filter() -> None:
            seccomp.load(permits_all)
            argv, variables = [f"{single.plugins.directory}/bridge"], single.plugins.environment("ADD")
            stdin = json.dumps(NETCONF).encode()
            subprocess.run(argv, input=stdin, env={**os.environ, **variables}, check=True, timeout=10)

        single.world.call(call_under_filter)
        assert single.slots() == slots
        single.warm("DEL")

    @pytest.mark.parametrize("level", ["root", "netadmin"])
    def test_level_that_no_slot_is_for_is_served_cold(self, single: Zygote, level: str) -> None:
        env = {"CNISANDBOX_LEVEL": level}
        assert single.cold("ADD", env=env).attestations["host worker"]["level"] == level
        single.cold("DEL", env=env)
        single.warm("ADD")

    def test_older_zygote_is_served_cold(self, single: Zygote) -> None:
        """Another build id among the launcher's settings, behind its mark and the plugin's name."""
        launcher = bytearray(Path(single.plugins.directory, "bridge").read_bytes())
        place = launcher.index(b"cnisandbox launcher settings:") + 32 + 64
        assert launcher[place : place + 32] == build.build_id(str(Path(seccomp.__file__).parents[1]))
        launcher[place] ^= 1
        newer = single.world.outside_path("/run/newer")
        newer.write_bytes(launcher)
        newer.chmod(0o755)
        prefix = ("sh", "-c", "exec /run/newer", "sh")
        _, took = timed(lambda: single.cold("ADD", prefix=prefix))
        assert took < BOUND_S
        single.warm("DEL")

    def test_launcher_that_is_asked_for_help_does_not_trouble_the_zygote(self, single: Zygote) -> None:
        slots = single.slots()
        for env in ({}, {"CNI_COMMAND": ""}):
            done = single.world.run([f"{single.plugins.directory}/bridge"], env=env)
            assert b"CNI protocol versions supported" in done.stderr
        assert single.slots() == slots


class Peer:
    """Somebody who speaks to a slot, in a process of the world."""

    def __init__(self, plugin: str = "bridge") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(5)
        self.socket.connect(f"{DIRECTORY}/{plugin}")

    def hello(self) -> bytes:
        """Receive the hello; the nonce."""
        data = self.socket.recv(1000)
        if not data:
            return b""
        name, _, nonce = protocol.HELLO.unpack(data)
        assert name == protocol.PROTOCOL
        return bytes(nonce)

    def answer(self) -> bytes:
        """What the slot says to a request; nothing when it has hung up."""
        try:
            return self.socket.recv(1000)
        except ConnectionResetError:  # it has not read everything
            return b""

    def send(self, data: bytes, descriptors: int = 0, pid: int | None = None) -> None:
        """Send a datagram with descriptors, and with credentials when a process is named."""
        with open(os.devnull, "rb") as null:
            rights = array.array("i", [null.fileno()] * descriptors)
            ancillary: list[tuple[int, int, Any]] = []
            if descriptors:
                ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights))
            if pid is not None:
                credentials = protocol.CREDENTIALS.pack(pid, 0, 0)
                ancillary.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials))
            self.socket.sendmsg([data], ancillary)


ENVIRONMENT = b"CNI_COMMAND=VERSION\0"


def request(
    nonce: bytes,
    environment: bytes = ENVIRONMENT,
    name: bytes = protocol.PROTOCOL,
    length: int = -1,
    status_fd: int = 0,
) -> bytes:
    length = len(environment) if length < 0 else length
    return protocol.REQUEST.pack(name, nonce, status_fd, length) + environment


def send_from_another_process(peer: Peer, data: bytes) -> None:
    child = os.fork()
    if child == 0:
        peer.send(data)
        os._exit(0)
    os.waitpid(child, 0)


GARBAGE: dict[str, Callable[[Peer, bytes], None]] = {
    "random bytes": lambda peer, _: peer.send(os.urandom(500)),
    "random bytes, descriptors": lambda peer, _: peer.send(os.urandom(500), 4),
    "nothing": lambda peer, _: peer.send(b""),
    "truncated header": lambda peer, nonce: peer.send(request(nonce)[:30]),
    "wrong nonce": lambda peer, _: peer.send(request(bytes(16))),
    "wrong protocol": lambda peer, nonce: peer.send(request(nonce, name=b"cnisandbox zygote 0\0")),
    "wrong length": lambda peer, nonce: peer.send(request(nonce, length=len(ENVIRONMENT) + 1)),
    "huge length": lambda peer, nonce: peer.send(request(nonce, length=0xFFFFFFFF)),
    "a descriptor": lambda peer, nonce: peer.send(request(nonce), 1),
    "most descriptors": lambda peer, nonce: peer.send(request(nonce), 253),
    "descriptors and credentials": lambda peer, nonce: peer.send(request(nonce), 4, os.getpid()),
    "huge environment": lambda peer, nonce: peer.send(
        request(nonce, ENVIRONMENT + b"A" * protocol.MAX_ENVIRONMENT_BYTES)
    ),
    "empty environment": lambda peer, nonce: peer.send(request(nonce, b"")),
    "environment without a variable": lambda peer, nonce: peer.send(request(nonce, b"\0=\0A\0\xff\0" * 99)),
    "status: not open": lambda peer, nonce: peer.send(request(nonce, status_fd=999)),
    "status: no number": lambda peer, nonce: peer.send(request(nonce, status_fd=-1)),
    "another process's credentials": lambda peer, nonce: peer.send(request(nonce), pid=1),
    "another process": lambda peer, nonce: send_from_another_process(peer, request(nonce)),
    "a connection that ends": lambda peer, _: peer.socket.shutdown(socket.SHUT_RDWR),
    "half of a connection": lambda peer, _: peer.socket.shutdown(socket.SHUT_WR),
}

# What a slot answers: it is well-formed, and nothing that can be served.
REFUSED = ("empty environment", "environment without a variable", "status: not open", "status: no number")


class TestGarbage:
    """Whatever somebody sends who can connect: nothing is served, and everybody lives on."""

    def test_garbage_is_not_answered(self, single: Zygote) -> None:
        before, descriptors = self.processes(single), open_descriptors(single.slots()[0])

        def speak(send: Callable[[Peer, bytes], None]) -> bytes:
            peer = Peer()
            send(peer, peer.hello())
            return peer.answer()

        for name, send in GARBAGE.items():
            answer = single.world.call(speak, send)
            assert answer == (protocol.COLD if name in REFUSED else b""), name
        wait_until(single.slots)
        assert self.processes(single) == before, single.log
        assert open_descriptors(single.slots()[0]) == descriptors
        assert single.log == ""
        single.warm("ADD")

    def test_silence_costs_others_a_bounded_time(self, single: Zygote) -> None:
        (slot,) = single.slots()

        def hold_and_call() -> None:
            peer = Peer()
            peer.hello()
            argv, variables = [f"{single.plugins.directory}/bridge"], single.plugins.environment("ADD")
            stdin = json.dumps(NETCONF).encode()
            started = time.monotonic()
            subprocess.run(argv, input=stdin, env={**os.environ, **variables}, check=True, capture_output=True)
            assert time.monotonic() - started < 2 * BOUND_S
            assert peer.answer() == b""

        single.world.call(hold_and_call)
        assert slot not in single.slots()  # it has served the call, when the silent one's time was over
        single.wait_until_ready()
        single.warm("DEL")

    def test_root_that_never_answers_costs_others_no_more_than_silence(self, single: Zygote) -> None:
        """Whoever is in a container and may mount can have one; a slot must not look into it."""
        (slot,) = single.slots()
        program = ["unshare", "--mount", sys.executable, silent_root.__file__, DIRECTORY, "bridge"]
        peer = single.world.popen(program, stdin=subprocess.DEVNULL)
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"connected\n", peer.communicate()
        time.sleep(0.1)  # the slot has accepted
        wait_until(lambda: single.slots() == [slot], timeout=2 * BOUND_S)
        single.warm("ADD")
        peer.kill()
        peer.communicate()

    def test_other_users_cannot_connect(self, single: Zygote) -> None:
        with pytest.raises(PermissionError):
            single.world.call(as_nobody, Peer)

    def test_other_users_are_refused_where_they_can_connect(self, single: Zygote) -> None:
        before = self.processes(single)
        single.world.outside_path(DIRECTORY).chmod(0o755)
        single.world.outside_path(f"{DIRECTORY}/bridge").chmod(0o666)
        assert single.world.call(as_nobody, lambda: Peer().answer()) == b""
        assert self.processes(single) == before
        prefix = ("setpriv", "--reuid", str(NOBODY), "--clear-groups", "--inh-caps=-all")
        single.call("ADD", prefix=prefix, expect=1)
        assert self.processes(single) == before
        single.warm("ADD")

    def test_sockets_are_roots_alone(self, single: Zygote) -> None:
        directory = single.world.outside_path(DIRECTORY)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}
        assert modes == {"zygote": 0o700, **dict.fromkeys(zygotes.PLUGINS, 0o600)}

    @pytest.mark.parametrize("size", [1000, 100_000, 130_000])
    def test_large_environment_fails_no_call(self, single: Zygote, size: int) -> None:
        assert size + 10_000 < protocol.MAX_ENVIRONMENT_BYTES or size > 100_000
        call = single.call("ADD", env={"LARGE": "x" * size})
        assert call.answer.returncode == 0
        assert (call.engine_parent == single.pid) == (size < 130_000)

    @staticmethod
    def processes(zygote: Zygote) -> list[int]:
        return sorted(child.pid for child in zygote.children())


def as_nobody(function: Callable[[], Any]) -> Any:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return function()


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class TestEnd:
    """SIGTERM and SIGHUP: calls under way go on, and nobody is told that a call is taken which is not."""

    def test_sigterm_lets_a_call_finish_and_takes_no_other(self, zygote: Zygote) -> None:
        underway = zygote.begin("ADD")
        engine, parent = underway.engine, zygote.pid
        zygote.signal(signal.SIGTERM)
        wait_until(lambda: [child.pid for child in zygote.children()] == [engine])
        _, took = timed(lambda: zygote.cold("ADD", ifname="eth1"))
        assert took < 2 * BOUND_S
        assert underway.finish().engine_parent == parent
        assert zygote.wait() == 0
        assert zygote.log == ""
        _, took = timed(lambda: zygote.cold("DEL"))
        assert took < BOUND_S

    @pytest.mark.parametrize(("syscall", "when"), [*TAKING, ("sendto", 2)], ids=str)
    def test_sigterm_fails_no_call_that_is_being_taken(self, single: Zygote, syscall: str, when: int) -> None:
        (slot,) = single.slots()
        with stopped_at(slot, syscall, when) as wait_until_stopped:
            underway = single.begin("ADD")
            wait_until_stopped()
            single.signal(signal.SIGTERM)
            if (syscall, when) in TAKING:  # the zygote has ended it, or its launcher has turned away, before it goes on
                wait_until(lambda: not zygotes.is_stopped(slot))
        assert b"10.77.0.2/16" in underway.finish().answer.stdout
        assert single.wait() == 0

    def test_sighup_starts_anew_behind_the_same_sockets(self, zygote: Zygote) -> None:
        before, pid = {child.pid for child in zygote.children()}, zygote.pid
        sockets = self.sockets(zygote)
        underway = zygote.begin("ADD")
        assert underway.engine
        zygote.signal(signal.SIGHUP)
        zygote.signal(signal.SIGHUP)
        wait_until(lambda: len(zygote.children()) == 1)
        assert underway.finish().engine_parent == pid
        zygote.wait_until_ready()
        assert before.isdisjoint(child.pid for child in zygote.children())
        assert self.sockets(zygote) == sockets
        assert zygote.warm("DEL").engine_parent == pid
        assert zygote.log == ""

    def test_no_call_fails_while_the_zygote_starts_anew(self, zygote: Zygote) -> None:
        done = threading.Event()

        def start_anew_again_and_again() -> None:
            while not done.wait(0.05):
                zygote.signal(signal.SIGHUP)

        thread = threading.Thread(target=start_anew_again_and_again)
        thread.start()
        try:
            for _ in range(5):
                zygote.call("ADD")
                zygote.call("DEL")
        finally:
            done.set()
            thread.join()
        zygote.wait_until_ready()
        zygote.warm("ADD")

    def test_second_zygote_is_refused_and_the_first_serves_on(self, single: Zygote) -> None:
        sockets = self.sockets(single)
        assert b"there is a zygote already" in self.refused(single)
        with signalled([single.pid, *single.slots()], signal.SIGSTOP, signal.SIGCONT):
            assert b"there is a zygote already" in self.refused(single)
        assert self.sockets(single) == sockets
        wait_until(single.slots)
        single.warm("ADD")

    @staticmethod
    def refused(zygote: Zygote) -> bytes:
        """What a second zygote says when it may not start."""
        command = [sys.executable, "-I", "-m", "cnisandbox.cli.main", "serve"]
        return zygote.world.run(command, expect=1).stderr

    def test_idle_zygote_ends_when_it_is_told_to(self, world: World, plugin_dir: str) -> None:
        zygote = Zygote(world, plugin_dir, "--pool", "1", "--idle-exit", "1")
        zygote.warm("ADD")
        assert zygote.wait() == 0
        zygote.cold("DEL")

    def test_zygote_lives_on_when_nobody_reads_what_it_says(self, world: World, plugin_dir: str) -> None:
        zygote = Zygote(world, plugin_dir, "--pool", "1", start=False)
        reader, writer = os.pipe()
        zygote.start(stderr=writer)
        os.close(writer)
        os.close(reader)
        os.kill(zygote.slots()[0], signal.SIGKILL)
        wait_until(lambda: not zygote.slots())
        zygote.wait_until_ready()
        zygote.warm("ADD")

    @staticmethod
    def sockets(zygote: Zygote) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in zygote.world.outside_path(DIRECTORY).iterdir()}


class TestSoak:
    """What stays the same however many calls are served. CNISANDBOX_SOAK says for how many pairs of them."""

    PAIRS = int(os.environ.get("CNISANDBOX_SOAK", "1000"))
    # LIMIT: KiB; a page here and there.
    GROWTH = 256

    @pytest.mark.timeout(60 + PAIRS)
    def test_calls_leave_nothing(self, world: World, plugin_dir: str) -> None:
        zygote = Zygote(world, plugin_dir, "--pool", "4")
        self.make(zygote, 20)
        before = self.weigh(zygote)
        warm = self.make(zygote, self.PAIRS)
        after = self.weigh(zygote)
        assert after[:-1] == before[:-1]
        assert after[-1] - before[-1] < self.GROWTH
        assert warm > self.PAIRS * 0.95
        assert zygote.log == ""

    @staticmethod
    def make(zygote: Zygote, pairs: int) -> int:
        """Make pairs of calls; how many of the ADDs were served warm."""
        warm = 0
        for _ in range(pairs):
            added = zygote.call("ADD")
            warm += added.engine_parent == zygote.pid
            zygote.call("DEL")
        return warm

    @staticmethod
    def weigh(zygote: Zygote) -> tuple[int, int, list[int], set[str], int]:
        """Count descriptors, processes, descriptors of each slot, links; memory of the server in KiB."""
        zygote.wait_until_ready()
        memory = int(zygotes.status_of(zygote.pid)["RssAnon"].split()[0])
        slots = sorted(open_descriptors(slot) for slot in zygote.slots())
        return open_descriptors(zygote.pid), len(zygote.world.pids()), slots, zygote.world.ifnames(), memory

"""SIGKILL at every step: whatever dies wherever, the DEL that follows cleans up, and the next ADD works.

world ── cni0 ── veth… ══ eth0 ── blue          one attachment, dual stack, masqueraded, over and over
"""

import json
import os
import signal

import pytest

from tests.netns import faults
from tests.netns.faults import CONTAINER, DELEGATE, ENGINE, HOST, Fault
from tests.netns.zygotes import is_alive, is_stopped
from tests.world import World, wait_until

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def ready(world: World, plugin_dir: str) -> str:
    """The state of a world in which an attachment has come and gone: the bridge stays, as with the reference plugin."""
    world.netns("blue")
    faults.call(world, plugin_dir, "ADD")
    faults.call(world, plugin_dir, "DEL")
    return faults.state(world)


def kill_and_clean(world: World, plugin_dir: str, ready: str, fault: Fault, verb: str = "ADD") -> bool:
    """Make a call that is killed, and clean up as a runtime does; False when there is nothing more to be killed."""
    if verb != "ADD":
        faults.call(world, plugin_dir, "ADD")
    outcome = faults.call_with(world, plugin_dir, verb, fault)
    if outcome.was_hit and fault.role == ENGINE:
        assert outcome.status == -9, (str(fault), outcome)
    if outcome.was_hit and fault.role != ENGINE and outcome.status != 0:
        faults.require_one_error_object(outcome, fault)
    if not outcome.was_hit:
        assert outcome.status == 0, (str(fault), outcome)
    faults.call(world, plugin_dir, "DEL")
    faults.require_state(world, ready, fault)
    return outcome.was_hit


def works(world: World, plugin_dir: str, ready: str) -> None:
    added = json.loads(faults.call(world, plugin_dir, "ADD").stdout)
    assert len(added["ips"]) == 2
    assert world.link(faults.IFNAME, netns="blue")["operstate"] == "UP"
    faults.call(world, plugin_dir, "DEL")
    faults.require_state(world, ready, "an ADD and a DEL after all that")


# Every call that changes the kernel or the disk, and who makes it; a stride where there are many that change nothing.
STEPS = [
    (HOST, "sendto", 1),
    (HOST, "sendmsg", 1),
    (HOST, "write", 1),
    (HOST, "openat", 4),
    (HOST, "recvmsg", 6),
    (CONTAINER, "sendto", 1),
    (CONTAINER, "write", 1),
    (ENGINE, "linkat", 1),
    (ENGINE, "unlinkat", 1),
    (ENGINE, "pwrite64", 1),
    (ENGINE, "write", 1),
    (ENGINE, "openat", 4),
    (ENGINE, "utimensat", 1),
    (ENGINE, "flock", 1),
    (DELEGATE, "write", 1),
]


@pytest.mark.parametrize(("role", "syscall", "stride"), STEPS, ids=lambda value: str(value).replace(" ", "-"))
def test_del_cleans_up_after_an_add_that_was_killed(
    world: World, plugin_dir: str, ready: str, role: str, syscall: str, stride: int
) -> None:
    hits = 0
    for fault in faults.faults(role, syscall, "signal=KILL", stride):
        if not kill_and_clean(world, plugin_dir, ready, fault):
            break
        hits += 1
    assert hits > 0, "the call was never made: the test tests nothing"
    works(world, plugin_dir, ready)


# The host worker's first sends are about the link; libnftables then asks the kernel for much before it changes little.
DEL_STEPS = [
    (HOST, "sendto", 5),
    (HOST, "sendmsg", 1),
    (CONTAINER, "sendto", 1),
    (ENGINE, "write", 1),
    (ENGINE, "unlinkat", 1),
    (ENGINE, "utimensat", 1),
]


@pytest.mark.parametrize(("role", "syscall", "stride"), DEL_STEPS, ids=lambda value: str(value).replace(" ", "-"))
def test_del_can_be_repeated_after_a_del_that_was_killed(
    world: World, plugin_dir: str, ready: str, role: str, syscall: str, stride: int
) -> None:
    hits = 0
    for fault in faults.faults(role, syscall, "signal=KILL", stride):
        if not kill_and_clean(world, plugin_dir, ready, fault, "DEL"):
            break
        hits += 1
    assert hits > 0, "the call was never made: the test tests nothing"


@pytest.mark.parametrize("role", [HOST, CONTAINER, DELEGATE])
def test_a_worker_ends_with_the_engine_whatever_it_is_doing(world: World, plugin_dir: str, role: str) -> None:
    """One that is stopped does not see its channel end, as one that is hostile does not look: the kernel ends it."""
    world.netns("blue")
    child, parked = faults.park(world, plugin_dir, "ADD")
    os.kill(parked[role], signal.SIGSTOP)
    wait_until(lambda: is_stopped(parked[role]))
    os.kill(parked[ENGINE], signal.SIGKILL)
    wait_until(lambda: not is_alive(parked[role]))
    assert child.wait(timeout=10) == -signal.SIGKILL


# What the entry and its children do while they confine themselves: nothing has been changed that could be left.
DROPS = ["clone", "unshare", "setns", "mount_setattr", "pivot_root", "setresuid", "capset", "landlock_restrict_self"]


@pytest.mark.parametrize("syscall", DROPS)
def test_nothing_is_left_when_a_process_is_killed_while_it_drops_its_privileges(
    world: World, plugin_dir: str, ready: str, syscall: str
) -> None:
    for when in range(1, 8):
        outcome = faults.call_from_the_start_with(world, plugin_dir, "ADD", f"{syscall}:signal=KILL:when={when}")
        if not outcome.was_hit:
            assert outcome.status == 0, outcome
            faults.call(world, plugin_dir, "DEL")
        elif outcome.status == 1:
            faults.require_one_error_object(outcome, (syscall, when))
        else:
            assert outcome.status in (-9, 137), outcome
        faults.require_state(world, ready, (syscall, when))
        if not outcome.was_hit:
            assert when > 1, "the call was never made: the test tests nothing"
            return


@pytest.mark.parametrize("map_file", ["uid_map", "gid_map"])
def test_a_runtimes_pipes_end_with_an_entry_that_is_killed_while_it_maps_users(
    world: World, plugin_dir: str, ready: str, map_file: str
) -> None:
    """A runtime reads to their end; whoever of the call still has them open keeps it waiting for ever."""
    # An entry's first writes are those: a process of the new user namespace, which state directories need, waits.
    when = ["uid_map", "gid_map"].index(map_file) + 1
    outcome = faults.call_from_the_start_with(world, plugin_dir, "ADD", f"write:signal=KILL:when={when}")
    assert outcome.was_hit
    assert outcome.status in (-9, 137), outcome
    assert outcome.stdout == b""
    faults.require_state(world, ready, map_file)

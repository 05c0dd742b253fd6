"""Invariant 4, fail closed: what happens when the kernel refuses a step of the drop, or skips it and says nothing.

    test ── plants a filter on ──▶ the system call of one step ──▶ error 102 with the name of the stage, or of the fact

A refused step carries its stage's name. A step that is skipped in silence is seen by nobody but the attestation: each
test below breaks one protection, and would pass unnoticed if the attestation did not look at that one.
"""

import errno
import json
import os

import pytest

from cnisandbox import Level, PrivilegeNotDropped
from tests.boundary.observe import document, error_of, finish, held, run, start, status_of, variables
from tests.boundary.planted import (
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    Filter,
)
from tests.boundary.roles import ROLES, attest
from tests.world import CLONE_NEWNET, CLONE_NEWNS, World, wait_until

CLONE_NEWPID = 0x20000000
CLONE_NEWIPC_UTS_CGROUP = 0x0E000000
SECCOMP_SET_MODE_FILTER = 1
RLIMITS = {"cpu": 0, "fsize": 1, "core": 4, "nproc": 6, "nofile": 7, "as": 9}
NETWORK_ROLES = ("host worker", "container worker")


def refused(name: str, *arguments: tuple[int, int]) -> Filter:
    return Filter(name, errno.EPERM, arguments)


def skipped(name: str, *arguments: tuple[int, int]) -> Filter:
    return Filter(name, 0, arguments)


def unlimited(kind: int) -> Filter:
    """prlimit64 that sets a limit (and does not ask for the old one) without doing so."""
    return skipped("prlimit64", (1, kind), (3, 0))


OWN_NAMESPACES = (0, CLONE_NEWNS | CLONE_NEWIPC_UTS_CGROUP)

# What each role has to say of a call that fails: the stage that the call is part of.
REFUSED = {
    "pipes": ("channel", refused("pipe2"), ROLES),
    "pid-namespace": ("fork", refused("unshare", (0, CLONE_NEWPID)), ROLES),
    "fork": ("fork", refused("clone"), ROLES),
    "descriptors": ("fork", refused("close_range"), ROLES),
    "enter-netns": ("namespaces", refused("setns", (1, CLONE_NEWNET)), ("container worker",)),
    "own-namespaces": ("namespaces", refused("unshare", OWN_NAMESPACES), ROLES),
    "tmpfs": ("namespaces", refused("fsopen"), NETWORK_ROLES),
    "mount": ("namespaces", refused("move_mount"), ROLES),
    "read-only": ("namespaces", refused("mount_setattr", (2, 0x8000)), ROLES),
    "pivot": ("namespaces", refused("pivot_root"), NETWORK_ROLES),
    "old-root": ("namespaces", refused("umount2"), NETWORK_ROLES),
    "bounding-set": ("credentials", refused("prctl", (0, PR_CAPBSET_DROP)), ROLES),
    "securebits": ("credentials", refused("prctl", (0, PR_SET_SECUREBITS)), ROLES),
    "groups": ("credentials", refused("setgroups"), ROLES),
    "gid": ("credentials", refused("setresgid"), ROLES),
    "uid": ("credentials", refused("setresuid"), ROLES),
    "ambient-set": ("credentials", refused("prctl", (0, PR_CAP_AMBIENT)), ROLES),
    "capability-sets": ("credentials", refused("capset"), ROLES),
    "dumpable": ("lifetime", refused("prctl", (0, PR_SET_DUMPABLE)), ROLES),
    "no-new-privs": ("lifetime", refused("prctl", (0, PR_SET_NO_NEW_PRIVS)), ROLES),
    "core-limit": ("lifetime", Filter("prlimit64", errno.EPERM, ((1, RLIMITS["core"]), (3, 0))), ROLES),
    "landlock-rule": ("filters", refused("landlock_add_rule"), ROLES),
    "landlock": ("filters", refused("landlock_restrict_self"), ROLES),
    "seccomp": ("filters", refused("seccomp", (0, SECCOMP_SET_MODE_FILTER), (1, 0)), ROLES),
}


def of_any_worker(stage: str) -> tuple[str, ...]:
    """The beginnings of a message about whichever worker it was that met it first."""
    return tuple(f"{stage} {role}: " for role in ROLES)


# What the engine, or the entry before it, has to say of the same.
REFUSED_IN_A_CALL = {
    "mounts": (("open entry: ",), refused("open_tree")),
    "pipes": (of_any_worker("channel"), refused("pipe2")),
    "pid-namespace": (of_any_worker("fork"), refused("unshare", (0, CLONE_NEWPID))),
    "own-pid-namespace": (of_any_worker("fork"), refused("setns", (1, CLONE_NEWPID))),
    "enter-netns": (("namespaces container worker: ",), refused("setns", (1, CLONE_NEWNET))),
    "worker-lifetime": (of_any_worker("fork"), refused("prctl", (0, PR_SET_PDEATHSIG))),
    **{
        name: ((f"{stage} engine: ",), planted)
        for name, (stage, planted, roles) in REFUSED.items()
        if stage in ("namespaces", "credentials", "lifetime", "filters") and name not in ("enter-netns", "read-only")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_step_of_a_worker_is_reported_with_its_stage(shared_world: World, name: str) -> None:
    stage, planted, roles = REFUSED[name]
    for role in roles:
        with pytest.raises(PrivilegeNotDropped) as raised:
            attest(shared_world, role, Level.HARDENED, planted)
        assert raised.value.msg.startswith(f"{stage} {role}: ")
        assert raised.value.msg.endswith("operation not permitted")


@pytest.mark.parametrize("name", REFUSED_IN_A_CALL)
def test_a_refused_step_ends_the_call_before_anything_is_done(shared_world: World, plugin_dir: str, name: str) -> None:
    begins, planted = REFUSED_IN_A_CALL[name]
    done = run(
        shared_world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD"), document("bridge"), planted=planted
    )
    error = error_of(done)
    assert error["code"] == 102
    assert error["msg"].startswith(begins)
    _assert_untouched(shared_world)


def test_a_failure_that_nobody_foresaw_is_one_document_without_a_traceback_too(
    shared_world: World, plugin_dir: str
) -> None:
    planted = Filter("pread64", 0, ((2, 8192),))  # the state of the process reads as nothing
    done = run(
        shared_world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD"), document("bridge"), planted=planted
    )
    error = error_of(done)
    assert (error["code"], error["msg"]) == (102, "confine bridge: ValueError: /proc/PID/status has no Seccomp_filters")
    _assert_untouched(shared_world)


def _assert_untouched(world: World) -> None:
    assert world.ifnames() == {"lo"}
    assert world.ifnames("blue") == {"lo"}
    assert "UP" not in world.link("lo", "blue")["flags"]
    assert not world.outside_path("/var/lib/cni/networks/observed").exists()
    assert [item for item in world.nft_ruleset() if "table" in item] == []


# What the attestation has to say of a step that was skipped: the name of the fact.
SKIPPED = {
    "groups": ("groups is", skipped("setgroups"), ROLES),
    "gid": ("gids is [0, 0, 0, 0]", skipped("setresgid"), ROLES),
    "uid": ("uids is [0, 0, 0, 0]", skipped("setresuid"), ROLES),
    "capability-sets": ("permitted is", skipped("capset"), ROLES),
    "bounding-set": ("bounding is", skipped("prctl", (0, PR_CAPBSET_DROP)), ROLES),
    "securebits": ("securebits is 0", skipped("prctl", (0, PR_SET_SECUREBITS)), ROLES),
    "parent-death-signal": ("parent-death signal is 0", skipped("prctl", (0, PR_SET_PDEATHSIG)), ROLES),
    "descriptors": ("descriptors is [0, 1, 2,", skipped("close_range"), ROLES),
    "landlock": ("view confined by landlock is False", skipped("landlock_restrict_self"), ROLES),
    "netns": ("netns is", skipped("setns", (1, CLONE_NEWNET)), ("container worker",)),
    "pid-namespace": ("pid namespace of its own is False", skipped("unshare", (0, CLONE_NEWPID)), ROLES),
    "own-namespaces": ("mnt namespace of its own is False", skipped("unshare", OWN_NAMESPACES), ROLES),
    **{f"{name}-limit": ("limits is", unlimited(kind), ROLES) for name, kind in RLIMITS.items()},
    "pivot": ("mounts in view is", skipped("pivot_root"), NETWORK_ROLES),
    "old-root": ("mounts in view is", skipped("umount2"), NETWORK_ROLES),
    "read-only": ("root read-only is False", skipped("mount_setattr"), ROLES),
    "seccomp": ("filters added is 0", skipped("seccomp", (0, SECCOMP_SET_MODE_FILTER), (1, 0)), ROLES),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_the_attestation_sees_a_step_that_was_skipped_in_silence(shared_world: World, name: str) -> None:
    fact, planted, roles = SKIPPED[name]
    for role in roles:
        with pytest.raises(PrivilegeNotDropped) as raised:
            attest(shared_world, role, Level.HARDENED, planted)
        assert raised.value.msg.startswith(f"attest {role}: ")
        assert fact in raised.value.msg


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("level", [Level.NETADMIN, Level.HARDENED])
def test_nothing_planted_nothing_seen(shared_world: World, role: str, level: Level) -> None:
    """The control of the test above."""
    assert attest(shared_world, role, level).role == role


@pytest.mark.parametrize("role", NETWORK_ROLES)
def test_the_attestation_sees_that_no_new_privs_was_skipped(shared_world: World, role: str) -> None:
    planted = skipped("prctl", (0, PR_SET_NO_NEW_PRIVS))
    with pytest.raises(PrivilegeNotDropped, match="no_new_privs is False"):
        attest(shared_world, role, Level.NETADMIN, planted)
    # At level hardened it does not come that far: Landlock and seccomp want it.
    with pytest.raises(PrivilegeNotDropped, match=f"filters {role}: landlock operation not permitted"):
        attest(shared_world, role, Level.HARDENED, planted)


@pytest.mark.parametrize("role", ROLES)
def test_the_attestation_sees_that_the_process_stayed_dumpable(shared_world: World, role: str) -> None:
    """A change of uid or gid takes the flag too, so these have to be skipped as well."""
    planted = (skipped("prctl", (0, PR_SET_DUMPABLE)), skipped("setresuid"), skipped("setresgid"))
    with pytest.raises(PrivilegeNotDropped, match="dumpable is True and must be False"):
        attest(shared_world, role, Level.HARDENED, *planted)


def test_the_attestation_sees_that_the_system_call_filter_was_skipped(world: World, plugin_dir: str) -> None:
    """By strace, because a planted filter would itself be what the kernel reports.

    The load is the engine's last call of seccomp(2); those before are libseccomp's, which asks what the kernel can do.
    """
    world.netns("blue")
    counted = ["strace", "-o", "/run/trace", "-e", "trace=seccomp", "-e", "signal=none"]
    env = variables(plugin_dir, "ADD", CNI_IFNAME="lo")
    world.run([*counted, f"{plugin_dir}/loopback"], env=env, stdin=document("loopback"))
    last = sum(line.startswith(b"seccomp(") for line in world.read("/run/trace").splitlines())
    world.delete_netns("blue")
    world.netns("blue")
    planted = ["strace", "-o", "/dev/null", "-e", "trace=seccomp", "-e", f"inject=seccomp:retval=0:when={last}"]
    error = error_of(run(world, [*planted, f"{plugin_dir}/loopback"], env, document("loopback")))
    assert (error["code"], error["msg"]) == (
        102,
        "attest engine: seccomp is 0 and must be 2; filters added is 0 and must be 1",
    )
    _assert_untouched(world)


SKIPPED_IN_A_CALL = {
    name: SKIPPED[name]
    for name in SKIPPED
    if name not in ("descriptors", "netns", "pid-namespace", "parent-death-signal", "own-namespaces", "read-only")
}


@pytest.mark.parametrize("name", SKIPPED_IN_A_CALL)
def test_an_engine_that_skipped_a_step_does_not_even_read_its_input(
    shared_world: World, plugin_dir: str, name: str
) -> None:
    fact, planted, _ = SKIPPED_IN_A_CALL[name]
    child = start(shared_world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD"), planted=planted)
    child.wait(timeout=20)  # standard input is open and empty: who waits for it does not end
    error = error_of(finish(child, b""))
    assert error["code"] == 102
    assert error["msg"].startswith("attest engine: ")
    assert fact in error["msg"]
    _assert_untouched(shared_world)


@pytest.mark.parametrize("name", ["netns", "pid-namespace", "parent-death-signal"])
def test_a_worker_that_skipped_a_step_ends_the_call(shared_world: World, plugin_dir: str, name: str) -> None:
    fact, planted, roles = SKIPPED[name]
    done = run(
        shared_world, [f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD"), document("bridge"), planted=planted
    )
    error = error_of(done)
    assert error["code"] == 102
    assert error["msg"].startswith(tuple(f"attest {role}: " for role in roles))
    assert fact in error["msg"]
    _assert_untouched(shared_world)


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
def test_every_verb_fails_closed(shared_world: World, plugin_dir: str, verb: str) -> None:
    planted = skipped("setresuid")
    done = run(shared_world, [f"{plugin_dir}/bridge"], variables(plugin_dir, verb), document("bridge"), planted=planted)
    assert error_of(done)["code"] == 102


def test_an_error_is_printed_after_the_drop_too(shared_world: World, plugin_dir: str) -> None:
    """A call that is refused by the entry ends as the service user: its document goes to a pipe that we do not read."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    env = variables(plugin_dir, "ADD", netns="/nowhere")
    with shared_world.popen([f"{plugin_dir}/bridge"], env=env, stdout=writer) as child:
        os.close(writer)
        wait_until(lambda: status_of(child.pid)["Seccomp"] == "2")
        status = status_of(child.pid)
        text = b""
        while piece := os.read(reader, 1 << 16):
            text += piece
    os.close(reader)
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0" * 16
    assert "0" not in status["Uid"].split()
    assert json.loads(text.lstrip(b"x"))["code"] == 8
    shared_world._started.remove(child)


def test_a_call_as_another_user_than_root_is_refused(shared_world: World, plugin_dir: str) -> None:
    reader = "+dac_read_search"  # the interpreter may be where only root can look
    user = ["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", reader, "--ambient-caps", reader]
    done = run(shared_world, [*user, f"{plugin_dir}/bridge"], variables(plugin_dir, "ADD"), document("bridge"))
    error = error_of(done)
    assert (error["code"], error["msg"]) == (102, "confine plugin: only root can")


def test_held_calls_are_under_the_planted_filter(shared_world: World, plugin_dir: str) -> None:
    """The control of the planting: a filter that nothing asks for changes nothing but the count of filters."""
    planted = refused("personality")
    with held(
        shared_world, [f"{plugin_dir}/loopback"], variables(plugin_dir, "ADD"), workers=1, planted=planted
    ) as call:
        assert status_of(call.engine.pid)["Seccomp_filters"] == "2"

"""A system call that fails at every step: an ADD that fails by itself leaves nothing at once, and says one thing.

world ── cni0 ── veth… ══ eth0 ── blue          one attachment, dual stack, masqueraded, over and over
"""

import pytest

from cnisandbox.errors import BoundaryViolation
from tests.netns import faults
from tests.netns.faults import CONTAINER, DELEGATE, ENGINE, HOST, NETCONF, Fault
from tests.world import World

pytestmark = pytest.mark.timeout(240)

# Who talks to the kernel or the disk, with what, and how that fails when the host is busy, full or broken.
REFUSALS = [
    (HOST, "socket", "error=EMFILE", 1),
    (HOST, "sendto", "error=ENOBUFS", 1),
    (HOST, "recvmsg", "error=ENOBUFS", 1),
    (HOST, "sendmsg", "error=ENOMEM", 1),
    (HOST, "openat", "error=EMFILE", 3),
    (CONTAINER, "socket", "error=ENFILE", 1),
    (CONTAINER, "sendto", "error=ENOMEM", 1),
    (CONTAINER, "recvmsg", "error=ENOBUFS", 1),
    (CONTAINER, "openat", "error=EMFILE", 3),
    (ENGINE, "openat", "error=EMFILE", 1),
    (ENGINE, "linkat", "error=EDQUOT", 1),
    (ENGINE, "pwrite64", "error=EIO", 1),
    (ENGINE, "unlinkat", "error=EIO", 1),
    (ENGINE, "newfstatat", "error=EIO", 2),
    (ENGINE, "utimensat", "error=EIO", 1),
    (ENGINE, "flock", "error=ENOLCK", 1),
    (DELEGATE, "newfstatat", "error=EIO", 1),
]


# LIMIT: libnftables 1.0.6 ends its process when it cannot open its socket or learn the generation of the rules; then
# nothing can be undone by that process. The DEL that follows cleans up; so many steps of an ADD may be of that kind.
STEPS_THAT_END_A_WORKER = 2


@pytest.fixture
def ready(world: World, plugin_dir: str) -> str:
    """The state of a world in which an attachment has come and gone."""
    world.netns("blue")
    faults.call(world, plugin_dir, "ADD")
    faults.call(world, plugin_dir, "DEL")
    return faults.state(world)


def refuse(world: World, plugin_dir: str, ready: str, fault: Fault, ends: list[Fault]) -> bool:
    """Make an ADD with a fault, noted in `ends` if it ends a worker; False when there is no such call any more."""
    outcome = faults.call_with(world, plugin_dir, "ADD", fault)
    if outcome.status == 0:
        faults.call(world, plugin_dir, "CHECK", {**NETCONF, "prevResult": outcome.document()})
        faults.call(world, plugin_dir, "DEL")
    elif outcome.document()["code"] == BoundaryViolation.code:
        ends.append(fault)
        assert faults.require_one_error_object(outcome, fault)["msg"] == "receive from host worker: it has ended"
        faults.call(world, plugin_dir, "DEL")
    else:
        assert outcome.was_hit, (str(fault), outcome)
        document = faults.require_one_error_object(outcome, fault)
        assert "left behind" not in document.get("details", ""), (str(fault), document)
        assert "defect" not in document.get("details", ""), (str(fault), document)
    faults.require_state(world, ready, (str(fault), outcome))
    return outcome.was_hit


@pytest.mark.parametrize(
    ("role", "syscall", "action", "stride"), REFUSALS, ids=lambda value: str(value).replace(" ", "-")
)
def test_an_add_that_fails_leaves_nothing_at_once(
    world: World, plugin_dir: str, ready: str, role: str, syscall: str, action: str, stride: int
) -> None:
    hits = 0
    ends: list[Fault] = []
    for fault in faults.faults(role, syscall, action, stride):
        if not refuse(world, plugin_dir, ready, fault, ends):
            break
        hits += 1
    assert hits > 0, "the call was never made: the test tests nothing"
    assert len(ends) <= STEPS_THAT_END_A_WORKER, list(map(str, ends))


@pytest.mark.parametrize("syscall", ["sendto", "recvmsg"])
def test_a_first_add_that_fails_leaves_no_bridge_either(world: World, plugin_dir: str, syscall: str) -> None:
    world.netns("blue")
    for fault in faults.faults(HOST, syscall, "error=ENOBUFS"):
        outcome = faults.call_with(world, plugin_dir, "ADD", fault)
        if not outcome.was_hit:
            break
        # A gate looks once more at what it could not see; libnftables ends its process, see above.
        if outcome.status == 0 or outcome.document()["code"] == BoundaryViolation.code:
            faults.call(world, plugin_dir, "DEL")
            world.ip("link", "delete", "cni0")
        else:
            faults.require_one_error_object(outcome, fault)
        assert world.ifnames() == {"lo"}, str(fault)
    assert fault.when > 5, "the faults were too few to matter"


@pytest.mark.parametrize("action", ["error=EPERM", "signal=KILL", "delay_enter=8s"])
def test_del_takes_our_end_away_whatever_becomes_of_who_deletes_the_other(
    world: World, plugin_dir: str, ready: str, action: str
) -> None:
    """The container worker's second request deletes the pair; the host worker has to do it where that one does not."""
    faults.call(world, plugin_dir, "ADD")
    outcome = faults.call_with(world, plugin_dir, "DEL", Fault(CONTAINER, "sendto", action, 2))
    assert outcome.status == 0, outcome
    faults.require_state(world, ready, outcome)


def test_del_takes_our_end_away_when_the_container_worker_says_nothing(
    world: World, plugin_dir: str, ready: str
) -> None:
    faults.call(world, plugin_dir, "ADD")
    outcome = faults.call_with(world, plugin_dir, "DEL", Fault(CONTAINER, "sendto", "signal=KILL", 1))
    assert outcome.document()["code"] == BoundaryViolation.code
    assert not [name for name in world.ifnames() if name.startswith("veth")]
    faults.call(world, plugin_dir, "DEL")  # addresses are not given back by a DEL that could not look for the link
    faults.require_state(world, ready, outcome)

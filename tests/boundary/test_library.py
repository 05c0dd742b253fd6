"""The library: a sandbox in a few lines, at each level, and what happens when things go wrong in it."""

import gc
import os
import signal
import socket
from typing import NamedTuple

import pytest

import cnisandbox
from cnisandbox import (
    BoundaryViolation,
    CheckFailed,
    CniError,
    InvalidNetns,
    IsolationUnavailable,
    KernelRefused,
    Level,
    PrivilegeNotDropped,
    Sandbox,
    declared,
)
from cnisandbox.netlink.links import Link, get_link, set_up
from tests.boundary.observe import children, status_of
from tests.boundary.planted import Filter
from tests.world import World, wait_until

LEVELS = [level for level in Level if level is not Level.MEDIATED]


class Identity(NamedTuple):
    """Who a worker is."""

    uid: int
    pid: int
    groups: list[int]
    names: dict[str, bytes]


@declared
def who_am_i(greeting: str, times: int | None) -> Identity:
    return Identity(os.getuid(), os.getpid(), os.getgroups(), {"greeting": (greeting * (times or 1)).encode()})


@declared
def refuse(kind: str) -> None:
    if kind == "kernel":
        raise KernelRefused("create link", "eth0", 17, "there is one")
    if kind == "check":
        raise CheckFailed("check link eth0: it is not up", "set it up")
    raise PrivilegeNotDropped("credentials worker: no")


@declared
def stumble() -> None:
    raise ValueError("a defect\nin two lines")


@declared
def lie() -> int:
    return "not a number"  # type: ignore[return-value]


@declared
def die() -> None:
    os._exit(7)


@declared
def make_a_socket(family: int) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        return made.fileno()


@declared
def list_root() -> list[str]:
    return os.listdir("/")


@declared
def echo(data: bytes) -> bytes:
    return data


def undeclared() -> None:
    raise AssertionError("nobody runs it")


@pytest.mark.parametrize("level", LEVELS)
def test_ten_lines(shared_world: World, level: Level) -> None:
    def ten_lines() -> tuple[bool, str]:
        with Sandbox(netns="/run/netns/blue", level=level) as box:
            before: Link | None = box.call(get_link, "lo")
            after = box.call(set_up, "lo", before is None)
            assert box.attestation.level == level.value
            return after.is_up, after.ifname

    assert shared_world.call(ten_lines) == (False, "lo")


@pytest.mark.parametrize("level", LEVELS)
def test_the_worker_is_in_the_netns_and_not_in_the_callers(shared_world: World, level: Level) -> None:
    def inodes() -> tuple[int, int, int]:
        with Sandbox(netns="/run/netns/blue", level=level) as inside, Sandbox(level=level) as outside:
            return (
                inside.attestation.namespaces["net"],
                outside.attestation.namespaces["net"],
                os.stat("/proc/self/ns/net").st_ino,
            )

    inside, outside, own = shared_world.call(inodes)
    assert inside == os.stat(shared_world.outside_path("/run/netns/blue")).st_ino
    assert outside == own == os.stat(f"/proc/{shared_world.pid}/ns/net").st_ino


def test_values_cross_as_their_types(shared_world: World) -> None:
    def ask() -> Identity:
        with Sandbox() as box:
            return box.call(who_am_i, "hé\udcff"[:2], 3)

    identity = shared_world.call(ask)
    assert isinstance(identity, Identity)
    assert identity.uid != 0
    assert identity.pid == 1
    assert identity.groups == []
    assert identity.names == {"greeting": "héhéhé".encode()}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("kernel", KernelRefused("create link", "eth0", 17, "there is one")),
        ("check", CheckFailed("check link eth0: it is not up", "set it up")),
        ("other", PrivilegeNotDropped("credentials worker: no")),
    ],
)
def test_an_error_crosses_with_its_class_and_fields_and_the_session_goes_on(
    shared_world: World, kind: str, expected: CniError
) -> None:
    def ask() -> bytes:
        with Sandbox() as box:
            with pytest.raises(type(expected)) as raised:
                box.call(refuse, kind)
            assert vars(raised.value) == vars(expected)
            assert raised.value.__cause__ is None
            return box.call(echo, b"still there")

    assert shared_world.call(ask) == b"still there"


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        (stumble, (), "run stumble: ValueError: a defect"),
        (lie, (), "result of lie"),
        (die, (), "receive from host worker: it has ended"),
        (undeclared, (), "call undeclared: it was not declared before the worker began"),
    ],
)
def test_a_breach_is_a_boundary_violation_and_not_retried(
    shared_world: World, function: object, arguments: tuple[object, ...], says: str
) -> None:
    def ask() -> None:
        with Sandbox() as box:
            with pytest.raises(BoundaryViolation) as raised:
                box.call(function, *arguments)
            assert says in raised.value.msg
            assert "Traceback" not in raised.value.msg + raised.value.details
            with pytest.raises(BoundaryViolation):
                box.call(stumble)

    shared_world.call(ask)


def test_a_function_that_is_declared_too_late_cannot_be_asked_for(shared_world: World) -> None:
    def ask() -> None:
        with Sandbox() as box:

            @declared
            def late() -> int:
                return 1

            with pytest.raises(BoundaryViolation):
                box.call(late)

    shared_world.call(ask)


@pytest.mark.parametrize("arguments", [(), (b"x", b"y"), ("text",), (None,), (1,)])
def test_wrong_arguments_are_refused_and_nothing_is_run(shared_world: World, arguments: tuple[object, ...]) -> None:
    def ask() -> None:
        with Sandbox() as box, pytest.raises(BoundaryViolation):
            box.call(echo, *arguments)

    shared_world.call(ask)


def test_arguments_have_no_names(shared_world: World) -> None:
    def ask() -> bytes:
        with Sandbox() as box:
            with pytest.raises(TypeError, match="by position"):
                box.call(echo, data=b"x")
            return box.call(echo, b"still there")

    assert shared_world.call(ask) == b"still there"


def test_megabytes_cross_and_more_is_refused(shared_world: World) -> None:
    def ask() -> int:
        with Sandbox() as box:
            data = os.urandom(1 << 20)
            assert box.call(echo, data) == data
            with pytest.raises(BoundaryViolation, match="bytes are more than"):
                box.call(echo, bytes(2 << 20))
            return 1

    assert shared_world.call(ask) == 1


def test_a_sandbox_is_used_inside_its_block(shared_world: World) -> None:
    def ask() -> None:
        box = Sandbox()
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            box.call(echo, b"")
        with box:
            pass
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            box.call(echo, b"")

    shared_world.call(ask)


@pytest.mark.parametrize("path", ["/run/netns/nothing", "/etc/hostname", "/proc/self/ns/uts", "/dev/null", "/"])
def test_a_missing_netns_is_an_error_that_names_it(shared_world: World, path: str) -> None:
    def ask() -> None:
        with pytest.raises(InvalidNetns) as raised:
            Sandbox(netns=path).__enter__()
        assert raised.value.msg.startswith(f"open netns '{path}': ")

    shared_world.call(ask)


@pytest.mark.parametrize("level", [Level.NETADMIN, Level.HARDENED])
def test_only_root_can_make_one(shared_world: World, level: Level) -> None:
    def ask() -> int:
        os.setresuid(65534, 65534, 65534)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(PrivilegeNotDropped):
            Sandbox(level=level).__enter__()
        return len(os.listdir("/proc/self/fd")) - len(before)

    assert shared_world.call(ask) == 0


def test_a_missing_facility_may_be_accepted(shared_world: World) -> None:
    def ask() -> int:
        Filter("landlock_create_ruleset", 38).load()
        with pytest.raises(IsolationUnavailable, match="the kernel lacks landlock"):
            Sandbox().__enter__()
        with Sandbox(allows_degraded=True) as box:
            return box.attestation.landlock_abi

    assert shared_world.call(ask) == 0


def test_hardened_has_neither_sockets_nor_files_and_root_has_both(shared_world: World) -> None:
    def ask() -> None:
        with Sandbox() as box, pytest.raises(BoundaryViolation, match="PermissionError"):
            box.call(list_root)
        with Sandbox() as box, pytest.raises(BoundaryViolation, match="PermissionError"):
            box.call(make_a_socket, 2)
        with Sandbox(level=Level.ROOT) as box:
            assert "etc" in box.call(list_root)
            assert box.call(make_a_socket, 2) > 0

    shared_world.call(ask)


def test_fifty_sandboxes_leak_nothing(shared_world: World) -> None:
    def many() -> tuple[int, list[int]]:
        before = len(os.listdir("/proc/self/fd"))
        for index in range(50):
            with Sandbox(netns="/run/netns/blue" if index % 2 else None) as box:
                box.call(echo, b"x")
        gc.collect()
        return len(os.listdir("/proc/self/fd")) - before, children(os.getpid())

    assert shared_world.call(many, timeout=30) == (0, [])


@pytest.mark.parametrize(
    ("planted", "netns", "error"),
    [
        (None, "/etc/hostname", InvalidNetns),
        (Filter("seccomp", 1, ((0, 1), (1, 0))), "/run/netns/blue", PrivilegeNotDropped),
        (Filter("clone", 11), "/run/netns/blue", PrivilegeNotDropped),
        (Filter("unshare", 1), None, PrivilegeNotDropped),
    ],
    ids=["no-netns", "no-filter", "no-fork", "no-namespaces"],
)
def test_sandboxes_that_cannot_be_made_leak_nothing(
    shared_world: World, planted: Filter | None, netns: str | None, error: type[CniError]
) -> None:
    def many() -> tuple[int, list[int]]:
        if planted is not None:
            planted.load()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(error):
                Sandbox(netns=netns).__enter__()
        return len(os.listdir("/proc/self/fd")) - before, children(os.getpid())

    assert shared_world.call(many) == (0, [])


def test_a_fork_that_fails_does_not_change_where_later_children_are_born(shared_world: World) -> None:
    def ask() -> bool:
        own = os.stat("/proc/self/ns/pid_for_children").st_ino
        Filter("clone", 11).load()
        with pytest.raises(PrivilegeNotDropped):
            Sandbox().__enter__()
        return os.stat("/proc/self/ns/pid_for_children").st_ino == own

    assert shared_world.call(ask)


def test_an_exception_in_the_block_ends_the_worker(shared_world: World) -> None:
    def ask() -> list[int]:
        def fail() -> None:
            with Sandbox() as box:
                box.call(echo, b"x")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        return children(os.getpid())

    assert shared_world.call(ask) == []


def test_a_worker_dies_with_its_parent_at_every_level(shared_world: World) -> None:
    def worker_of_the_dead() -> list[int]:
        pids = []
        for level in LEVELS:
            reader, writer = os.pipe()
            if os.fork() == 0:
                with Sandbox(level=level) as box:
                    os.write(writer, str(box.attestation.pid).encode())
                    os.kill(os.getpid(), signal.SIGKILL)
            os.wait()
            pids.append(int(os.read(reader, 32)))
        return pids

    for pid in shared_world.call(worker_of_the_dead):

        def is_gone(pid: int = pid) -> bool:
            try:
                return status_of(pid)["State"].startswith("Z")
            except OSError:
                return True

        wait_until(is_gone, timeout=2)


def test_the_public_names_are_there() -> None:
    assert {"Sandbox", "Level", "declared", "CniError"} <= set(cnisandbox.__all__)


def test_mediated_is_refused_because_there_are_no_permits(shared_world: World) -> None:
    """Not entered at a level that would be hardened under another name."""
    with pytest.raises(IsolationUnavailable, match="no permits"):
        Sandbox(level=Level.MEDIATED).__enter__()

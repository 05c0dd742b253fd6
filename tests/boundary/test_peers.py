"""Peers that break the protocol, in both directions.

    engine ── real ──▶ worker that lies, is silent, or goes          the engine gets a BoundaryViolation, in time
    engine that sends what it must not ──▶ worker, real, confined    the worker ends, and nothing has happened

Nothing here is replaced: the hostile side is a process that writes bytes to the pipe that it was given.
"""

import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from cnisandbox import BoundaryViolation, KernelRefused, Level, PrivilegeNotDropped, Sandbox, declared
from cnisandbox.boundary import service, wire
from cnisandbox.boundary.attestation import Attestation, Expectation
from cnisandbox.boundary.calls import TABLE
from cnisandbox.boundary.delegate import run_plugin
from cnisandbox.boundary.sandbox import Worker
from cnisandbox.netlink.links import set_up
from tests.world import World

TIMEOUT_S = 0.3


class Answer(NamedTuple):
    """What an honest worker answers."""

    name: str
    sizes: list[int]


@declared
def question(data: bytes) -> Answer:
    raise AssertionError(f"no worker of this module is honest: {data!r}")


Behaviour = Callable[[wire.Channel], object]


def ask(channel: wire.Channel, data: bytes) -> Answer:
    service.post(channel, question, (data,), TIMEOUT_S)
    answer: Answer = service.collect(channel, question, TIMEOUT_S)
    return answer


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


def says(data: bytes) -> Behaviour:
    """Write these bytes and wait."""
    return lambda channel: os.write(channel.write_fd, data)


def says_and_goes(data: bytes) -> Behaviour:
    """Write these bytes and end."""

    def behave(channel: wire.Channel) -> None:
        os.write(channel.write_fd, data)
        os._exit(0)

    return behave


def answers(value: object) -> Behaviour:
    """Send this value."""
    return lambda channel: channel.send(value)


def drips(channel: wire.Channel) -> None:
    """Send one byte at a time, each before any limit for a single byte, and never all of them."""
    os.write(channel.write_fd, struct.pack(">I", 1000))
    while True:
        os.write(channel.write_fd, b"N")
        select.select([], [], [], TIMEOUT_S / 10)


def error_message(*changes: tuple[int, object]) -> list[object]:
    """An error as a worker sends it, with some of its fields changed."""
    message = service.describe_error(KernelRefused("create link", "eth0", 17, "d"))
    for position, value in changes:
        message[position] = value
    return message


HOSTILE: dict[str, Behaviour] = {
    "garbage": says(frame(b"\xde\xad\xbe\xef")),
    "empty frame": says(frame(b"")),
    "two values in a frame": says(frame(b"NN")),
    "huge length": says(b"\xff\xff\xff\xff"),
    "length over the limit": says(struct.pack(">I", wire.MAX_MESSAGE_BYTES + 1)),
    "huge count": says(frame(b"L\xff\xff\xff\xff")),
    "deep nesting": says(frame(b"L\0\0\0\1" * 5000 + b"N")),
    "truncated length": says_and_goes(b"\0\0"),
    "truncated frame": says_and_goes(frame(b"N" * 50)[:20]),
    "truncated frame and silence": says(frame(b"N" * 50)[:20]),
    "silence": lambda _: None,
    "goes": says_and_goes(b""),
    "drips": drips,
    "no list": answers(7),
    "nothing in it": answers([]),
    "no value": answers([0]),
    "two values": answers([0, ["n", [1]], 3]),
    "unknown kind": answers([2, ["n", [1]]]),
    "kind is text": answers(["0", ["n", [1]]]),
    "result is another type": answers([0, "n"]),
    "result lacks a field": answers([0, ["n"]]),
    "result has a field too many": answers([0, ["n", [1], 2]]),
    "field is another type": answers([0, ["n", ["1"]]]),
    "bool for an int": answers([0, ["n", [True]]]),
    "none": answers([0, None]),
    "error without fields": answers([1]),
    "error of an unknown class": answers(error_message((1, 99))),
    "error of a negative class": answers(error_message((1, -1))),
    "class is a name": answers(error_message((1, "OSError"))),
    "message is no text": answers(error_message((2, 7))),
    "errno is negative": answers(error_message((6, -1))),
    "errno is huge": answers(error_message((6, 1 << 40))),
    "errno is text": answers(error_message((6, "17"))),
}


@pytest.fixture
def fork() -> Iterator[Callable[[Behaviour], tuple[int, wire.Channel]]]:
    """Fork hostile workers, which end at the end of the test."""
    made: list[tuple[int, wire.Channel]] = []

    def fork_one(behave: Behaviour) -> tuple[int, wire.Channel]:
        ours, theirs = wire.channel_pair("worker", "engine")
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                behave(theirs)
                signal.pause()
            finally:
                os._exit(0)
        theirs.close()
        made.append((pid, ours))
        return pid, ours

    yield fork_one
    for pid, channel in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        channel.close()


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_answer_is_a_violation_in_time(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]], behave: Behaviour
) -> None:
    def answer_first_question(channel: wire.Channel) -> None:
        channel.receive()
        behave(channel)

    _, channel = fork(answer_first_question)
    begun = time.monotonic()
    with pytest.raises(BoundaryViolation):
        ask(channel, b"x")
    assert time.monotonic() - begun < 10 * TIMEOUT_S


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_first_message_is_a_violation_in_time(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]], behave: Behaviour
) -> None:
    _, channel = fork(behave)
    with pytest.raises(BoundaryViolation):
        service.receive_attestation(channel, "host worker", TIMEOUT_S)


def test_a_worker_that_does_not_read_holds_nobody_up(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]],
) -> None:
    _, channel = fork(lambda _: None)
    with pytest.raises(BoundaryViolation, match="send to worker"):
        ask(channel, bytes(1 << 20))


def test_a_text_in_an_error_is_cut(fork: Callable[[Behaviour], tuple[int, wire.Channel]]) -> None:
    _, channel = fork(answers(error_message((3, "x" * (1 << 20)), (4, "y" * (1 << 20 - 1)))))
    with pytest.raises(KernelRefused) as raised:
        service.receive_attestation(channel, "host worker", 5)
    assert len(raised.value.details) == len(raised.value.operation) == 4096


def expectation(parent_pid: int) -> Expectation:
    """What a worker at level root has to be: no more than who it says it is, and where."""
    return Expectation(
        role="host worker",
        level=Level.ROOT,
        uid=0,
        gid=0,
        capabilities=0,
        has_own_pid_namespace=False,
        own_namespaces={"net": 1},
        netns_inode=1,
        parent_pid=parent_pid,
        descriptors=(0, 1, 2),
        dies_with_parent=True,
        limits={},
        mounts=None,
    )


def honest_attestation() -> Attestation:
    defaults: dict[Any, Any] = {str: "", int: 0, bool: False, list[int]: [], list[str]: [], dict[str, int]: {}}
    empty = Attestation(*(defaults[kind] for kind in Attestation.__annotations__.values()))
    return empty._replace(role="host worker", level="root", ppid=os.getpid(), namespaces={"net": 1})


@pytest.mark.parametrize("behave", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_second_message_of_one_that_waited_is_a_violation_in_time(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]], behave: Behaviour
) -> None:
    _, channel = fork(behave)
    with pytest.raises(BoundaryViolation):
        service.receive_changes(channel, honest_attestation(), TIMEOUT_S)


@pytest.mark.parametrize(
    "changes", [{"uids": [0], "replaced": 1}, {"_fields": []}, {"uids": "root"}, {"limits": {"core": []}}, {"": None}]
)
def test_a_change_of_what_is_not_attested_is_a_violation(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]], changes: dict[str, object]
) -> None:
    _, channel = fork(answers([0, changes]))
    with pytest.raises(BoundaryViolation):
        service.receive_changes(channel, honest_attestation(), TIMEOUT_S)


def test_of_one_that_waited_what_has_changed_is_compared_with_the_rest(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]],
) -> None:
    before = honest_attestation()._replace(seccomp=0, permitted=1 << 21, limits={"core": 0, "fsize": 7})
    after = before._replace(seccomp=2, permitted=0, limits={"core": 0, "fsize": 0})

    def behave(channel: wire.Channel) -> None:
        service.send_changes(channel, before, after)
        channel.receive()

    pid, channel = fork(behave)
    assert Worker(pid, channel, expectation(os.getpid()), before).attest() == after


def test_one_that_waited_and_says_that_nothing_has_changed_is_not_believed(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]],
) -> None:
    before = honest_attestation()._replace(ppid=1)

    def behave(channel: wire.Channel) -> None:
        service.send_changes(channel, before, before)
        channel.receive()

    pid, channel = fork(behave)
    with pytest.raises(PrivilegeNotDropped, match="parent is 1"):
        Worker(pid, channel, expectation(os.getpid()), before).attest()


def test_a_worker_that_has_broken_the_protocol_once_is_not_asked_again(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]],
) -> None:
    attestation = honest_attestation()

    def behave(channel: wire.Channel) -> None:
        service.send_attestation(channel, attestation)
        channel.receive()
        channel.send([0, "no answer"])
        channel.receive()
        channel.send([0, ["late", []]])

    pid, channel = fork(behave)
    worker = Worker(pid, channel, expectation(os.getpid()))
    assert worker.attest() == attestation
    with pytest.raises(BoundaryViolation, match="result of question"):
        worker.call(question, b"")
    with pytest.raises(BoundaryViolation, match="the session is over"):
        worker.call(question, b"")


@pytest.mark.parametrize("message", [error_message(), [0, "no attestation"]], ids=["an error", "nonsense"])
def test_what_is_heard_before_a_call_and_is_no_attestation_is_raised(
    fork: Callable[[Behaviour], tuple[int, wire.Channel]], message: list[object]
) -> None:
    def behave(channel: wire.Channel) -> None:
        channel.send(message)
        channel.receive()

    pid, channel = fork(behave)
    worker = Worker(pid, channel, expectation(os.getpid()))
    with pytest.raises((KernelRefused, BoundaryViolation)):
        worker.hear()


# --- The other direction -----------------------------------------------------------------------------------------

SET_UP = TABLE.index(set_up)

HOSTILE_REQUESTS: dict[str, bytes] = {
    "garbage": frame(b"\xde\xad"),
    "empty frame": frame(b""),
    "huge length": b"\xff\xff\xff\xff",
    **{
        name: wire.encode(value)
        for name, value in {
            "nothing": None,
            "no list": SET_UP,
            "a mapping": {"function": SET_UP, "arguments": ["lo", True]},
            "no arguments": [SET_UP],
            "three parts": [SET_UP, ["lo", True], 1],
            "unknown index": [1 << 20, ["lo", True]],
            "negative index": [SET_UP - len(TABLE), ["lo", True]],
            "index is a name": ["set_up", ["lo", True]],
            "index is a path": ["cnisandbox.netlink.links:set_up", ["lo", True]],
            "index is true": [True, ["lo", True]],
            "arguments are a mapping": [SET_UP, {"ifname": "lo"}],
            "too few": [SET_UP, ["lo"]],
            "too many": [SET_UP, ["lo", True, True]],
            "bytes for text": [SET_UP, [b"lo", True]],
            "int for bool": [SET_UP, ["lo", 1]],
            "none": [SET_UP, ["lo", None]],
            "list for text": [SET_UP, [["lo"], True]],
            "function of the delegate worker": [TABLE.index(run_plugin), ["/bin/sh", {}, b""]],
        }.items()
    },
}


@pytest.mark.parametrize("request_bytes", HOSTILE_REQUESTS.values(), ids=HOSTILE_REQUESTS)
def test_a_worker_that_gets_a_bad_request_ends_and_does_nothing(shared_world: World, request_bytes: bytes) -> None:
    def attempt() -> tuple[bytes, bool]:
        with Sandbox(netns="/run/netns/blue") as box:
            assert box._worker is not None
            pid, channel = box._worker.pid, box._worker._channel
            os.write(channel.write_fd, request_bytes)
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            return os.read(channel.read_fd, 4096), ended.si_code == os.CLD_EXITED

    answer, has_exited = shared_world.call(attempt, timeout=5)
    assert answer == b""
    assert has_exited
    assert "UP" not in shared_world.link("lo", "blue")["flags"]


def test_a_good_request_in_the_same_words_is_served(world: World) -> None:
    """The control of the test above."""
    world.netns("blue")

    def attempt() -> object:
        with Sandbox(netns="/run/netns/blue") as box:
            assert box._worker is not None
            os.write(box._worker._channel.write_fd, wire.encode([SET_UP, ["lo", True]]))
            return box._worker._channel.receive(5)

    answer = world.call(attempt)
    assert answer[0] == 0
    assert "UP" in world.link("lo", "blue")["flags"]


def test_a_worker_ends_with_its_channel(shared_world: World) -> None:
    def attempt() -> int:
        with Sandbox() as box:
            assert box._worker is not None
            os.dup2(os.open("/dev/null", os.O_RDWR), box._worker._channel.write_fd)
            ended = os.waitid(os.P_PID, box._worker.pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            return ended.si_status

    assert shared_world.call(attempt, timeout=5) == 0

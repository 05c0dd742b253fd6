"""The client of a gate: what is asked in one request, what is sent ahead, and what an error stops."""

import errno
from collections.abc import Iterable
from typing import Any, cast

import pytest

from cnisandbox.boundary.wire import Channel
from cnisandbox.errors import BoundaryViolation, KernelRefused
from cnisandbox.monitor.client import (
    CHANGE_SYSCTL,
    NFTABLES,
    OPEN,
    READ_SYSCTL,
    RECEIVE,
    SEND,
    WRITE_SYSCTL,
    Gate,
    GateSocket,
    current,
)
from cnisandbox.netlink.links import get_link
from cnisandbox.sysctl import read_sysctl, set_sysctl, write_if_present, write_sysctl

KEY, PATH = "net/ipv4/conf/eth0/arp_notify", "ipv4/conf/eth0/arp_notify"


class Peer:
    """The channel to a gate that gives prepared answers, one per request."""

    def __init__(self, answers: Iterable[object] = ()) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []

    def send(self, value: object, _timeout_s: float) -> None:
        self.requests.append(value)

    def receive(self, _timeout_s: float) -> object:
        return self.answers.pop(0)


def gate_with(*answers: object) -> tuple[Gate, Peer]:
    peer = Peer(answers)
    return Gate(cast(Channel, peer)), peer


def write_two_and_read() -> str:
    set_sysctl(KEY, "1")
    write_if_present(KEY, "2")
    return read_sysctl(KEY)


def test_what_needs_no_answer_goes_with_what_is_asked_next() -> None:
    gate, peer = gate_with([0, 2, 0, 2, 0, b"7\n"])
    assert gate.call(write_two_and_read) == "7"
    steps = [(WRITE_SYSCTL, PATH, b"1\n", 0), (WRITE_SYSCTL, PATH, b"2\n", errno.ENOENT), (READ_SYSCTL, PATH, None, 0)]
    assert peer.requests == [[field for step in steps for field in step]]


def test_what_was_left_for_later_is_done_when_the_function_ends() -> None:
    gate, peer = gate_with([0, 2])
    gate.call(write_sysctl, KEY, "1")
    assert peer.requests == [[CHANGE_SYSCTL, PATH, b"1\n", 0]]


def test_what_fails_says_what_it_was_and_not_what_stood_behind_it() -> None:
    gate, _ = gate_with([errno.EACCES, "no permit"])
    with pytest.raises(KernelRefused, match="write sysctl net/ipv4/conf/eth0/arp_notify: permission denied") as caught:
        gate.call(write_two_and_read)
    assert caught.value.details == "value '1'"


def test_what_is_tolerated_stops_nothing() -> None:
    gate, _ = gate_with([0, 2, errno.ENOENT, "no such file", 0, b"7\n"])
    assert gate.call(write_two_and_read) == "7"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        None,
        [0, 2],
        [0, 2, errno.ENOENT, "no such file"],
        [0, 2, 0, 2, 0, b"7", 0, 0],
        [0, 2, 0, 2, 0],
        [0, 2, 0, 2, -1, "text"],
        [0, 2, 0, 2, 4096, "text"],
        [0, 2, 0, 2, False, b"7"],
        [0, 2, 0, 2, 1, 2],
    ],
)
def test_answer_that_is_not_whole_ends_the_session(answer: object) -> None:
    gate, _ = gate_with(answer)
    with pytest.raises(BoundaryViolation, match="ask gate"):
        gate.call(write_two_and_read)


def test_function_that_fails_leaves_nothing_for_later() -> None:
    def fail() -> None:
        set_sysctl(KEY, "1")
        raise KernelRefused("do", "this", errno.EIO)

    gate, peer = gate_with([0, b"7"])
    with pytest.raises(KernelRefused, match="do this"):
        gate.call(fail)
    gate.call(read_sysctl, KEY)
    assert peer.requests == [[READ_SYSCTL, PATH, None, 0]]
    assert current() is None


def test_function_that_is_started_has_asked_before_its_result_is_wanted() -> None:
    gate, peer = gate_with([0, 2, 0, 2, 0, b"7\n"])
    finish = gate.start(write_two_and_read)
    assert len(peer.requests) == 1
    assert len(peer.requests[0]) == 3 * 4
    assert len(peer.answers) == 1
    assert finish() == "7"
    assert len(peer.requests) == 1


def test_socket_is_opened_once_though_its_function_is_run_twice() -> None:
    gate, peer = gate_with([0, 77, 0, b""], [errno.EIO, "broken"])
    finish = gate.start(get_link, "eth0")
    assert peer.requests[0][::4] == [OPEN, SEND]
    with pytest.raises(KernelRefused, match="get link eth0"):
        finish()
    assert [request[::4] for request in peer.requests] == [[OPEN, SEND], [RECEIVE]]


def test_started_function_that_fails_by_itself_says_so_when_its_result_is_wanted() -> None:
    gate, peer = gate_with()
    finish = gate.start(read_sysctl, "kernel/core_pattern")
    with pytest.raises(KernelRefused, match="invalid argument"):
        finish()
    assert peer.requests == []


def test_nothing_else_is_asked_before_the_first_answer_was_taken() -> None:
    gate, peer = gate_with([0, b"7"])
    gate.start(read_sysctl, KEY)
    with pytest.raises(BoundaryViolation, match="has not been answered"):
        gate.ask(NFTABLES, "{}")
    assert len(peer.requests) == 1


def test_function_that_is_begun_is_left_where_it_needs_an_answer() -> None:
    gate, peer = gate_with()
    gate.begin(write_two_and_read)
    assert len(peer.requests) == 1
    assert current() is None


def test_socket_that_cannot_be_opened_is_named() -> None:
    gate, _ = gate_with([errno.EMFILE, "too many"])
    endpoint = GateSocket(gate, 0)
    with pytest.raises(KernelRefused, match="open socket netlink route: too many open files"):
        endpoint.sendto(b"", (0, 0))
    assert endpoint.fileno() < 0

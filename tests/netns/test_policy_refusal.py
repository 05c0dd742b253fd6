"""What is sent in place of a refused message: the kernel refuses it itself, with the number of the program's message.

test, without effective capability ── stand-in ──▶ kernel ── NLMSG_ERROR: EPERM, same number ──▶ the same socket
"""

import errno
import struct

import pytest

from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.netlink.datagram import NETLINK_NETFILTER, NETLINK_ROUTE
from cnisandbox.netlink.message import Message
from cnisandbox.policy.refusal import stand_in
from tests.world import World

NEWLINK, GETLINK, NEWTABLE = 16, 18, 0x0A00


def answers(protocol: int, type_: int, has_capability: bool) -> list[tuple[int, int]]:
    """Send what stands in for two messages, numbers 7 and 8; returns (errno, number) of each answer."""
    import socket

    messages = [Message(type_, 0x5, number, 0, {}, {}) for number in (7, 8)]
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    endpoint.bind((0, 0))
    endpoint.settimeout(5)
    data = stand_in(protocol, messages)
    with open("/proc/self/status") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    if not has_capability:
        checked(lib.native_set_effective(0), "capset")
    try:
        endpoint.sendto(data, (0, 0))
    finally:
        checked(lib.native_set_effective(effective), "capset")
    found = []
    for _ in messages if protocol == NETLINK_ROUTE else messages[:1]:
        answer = endpoint.recv(4096)
        _, kind, _, number, _ = struct.unpack_from("=IHHII", answer)
        assert kind == 2  # NLMSG_ERROR
        found.append((-struct.unpack_from("=i", answer, 16)[0], number))
    endpoint.close()
    return found


@pytest.mark.parametrize("type_", [NEWLINK, GETLINK])
def test_the_kernel_refuses_each_stand_in_of_rtnetlink_by_its_number(world: World, type_: int) -> None:
    assert world.call(answers, NETLINK_ROUTE, type_, False) == [(errno.EPERM, 7), (errno.EPERM, 8)]


def test_the_kernel_refuses_a_batch_by_the_number_of_its_beginning(world: World) -> None:
    assert world.call(answers, NETLINK_NETFILTER, NEWTABLE, False) == [(errno.EPERM, 7)]


def test_with_the_capability_it_is_another_answer(world: World) -> None:
    """The control: what refuses is the kernel's look at the sender's capability, and nothing in the message."""
    assert errno.EPERM not in {number for number, _ in world.call(answers, NETLINK_ROUTE, NEWLINK, True)}

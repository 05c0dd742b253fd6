"""How many byte codes the steps of a call execute that are taken again and again: more is an argument to be had.

The time of a call that a zygote serves goes with them, for nothing else is left to be loaded or fetched. Unlike a time
their number is the same on every machine, with the same version of Python.
"""

import json
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from cnisandbox.boundary import wire
from cnisandbox.boundary.attestation import Attestation, Witness
from cnisandbox.boundary.levels import Level
from cnisandbox.bridge_config import parse_config
from cnisandbox.cni.netconf import parse_netconf
from cnisandbox.monitor.world import link_request
from cnisandbox.netlink.datagram import NETLINK_ROUTE
from cnisandbox.netlink.links import get_link
from cnisandbox.policy.judge import Judge, Session
from cnisandbox.policy.own import permits_of, sysctls_of

NETCONF = {
    "cniVersion": "1.0.0",
    "name": "n",
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]},
}


def counted(step: Callable[[], object]) -> int:
    """Count the byte codes of a step, in all functions that it calls."""
    count = 0

    def one(*_where: object) -> None:
        nonlocal count
        count += 1

    if sys.version_info >= (3, 12):  # where sys.settrace leaves out what has run without it before
        tool, event = sys.monitoring.PROFILER_ID, sys.monitoring.events.INSTRUCTION
        sys.monitoring.use_tool_id(tool, "byte codes")
        sys.monitoring.register_callback(tool, event, one)
        sys.monitoring.set_events(tool, event)
        try:
            step()
        finally:
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
        return count

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., object]:
        if event == "opcode":
            one()
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step()
    finally:
        sys.settrace(before)
    return count


def attestation() -> Attestation:
    witness = Witness()
    witness.see_view()
    witness.see_namespaces()
    said = witness.testify("engine", Level.HARDENED, 0)
    return said._replace(groups=[], descriptors=[0, 1, 2, 3], mounts=["/", "/proc"])


def send_an_attestation() -> Callable[[], object]:
    said = attestation()
    return lambda: wire.encode(said)


def receive_an_attestation() -> Callable[[], object]:
    body = wire.encode_body(attestation())
    return lambda: wire.check(wire.decode(body), Attestation, "attestation")


def read_a_netconf() -> Callable[[], object]:
    data = json.dumps(NETCONF).encode()
    return lambda: parse_config(parse_netconf(data), "")


def look_at_a_link() -> Callable[[], object]:
    return lambda: get_link("lo")


class NoLinks:
    """A world in which there is nothing."""

    def link(self, _netns: str, _ifindex: int, _ifname: str) -> None:
        return None


def judge_a_question() -> Callable[[], object]:
    judge = Judge(permits_of("bridge"), sysctls_of("bridge"), Session("bridge", "eth0", {}), NoLinks())  # type: ignore[arg-type]
    datagram = link_request(1, 0, "eth0")
    return lambda: judge.judge("container", NETLINK_ROUTE, datagram)


# LIMIT: a tenth more than they are with Python 3.11.
LIMITS = {
    send_an_attestation: 3240,
    receive_an_attestation: 4230,
    read_a_netconf: 2560,
    look_at_a_link: 3590,
    judge_a_question: 1720,
}


@pytest.mark.parametrize("prepare", LIMITS, ids=lambda prepare: prepare.__name__)
def test_step_executes_no_more_byte_codes_than_it_did(prepare: Callable[[], Callable[[], object]]) -> None:
    step = prepare()
    step()
    assert counted(step) < LIMITS[prepare]


def test_byte_codes_of_what_is_called_are_counted() -> None:
    """The control."""

    def once() -> int:
        return 1

    one, many = counted(once), counted(lambda: [once() for _ in range(100)])
    assert one < 20
    assert many > one + 300

"""Trace buffers, the course of a call, and what is calculated from it: from bytes and records made by hand."""

import struct

import pytest

from cnisandbox.laboratory.exposure import course, summary, sysnames
from cnisandbox.laboratory.exposure.capability import Credential, names_of, parse_status
from cnisandbox.laboratory.exposure.course import Course, Known
from cnisandbox.laboratory.exposure.ringbuffer import Record, parse_format, records
from cnisandbox.laboratory.exposure.state import Expected, stable

FORMAT = """name: cap_capable
ID: 2073
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int cap;\toffset:8;\tsize:4;\tsigned:1;
\tfield:int ret;\toffset:12;\tsize:4;\tsigned:1;
"""
NUMBERS = {name: number for number, name in sysnames.all_names().items()}
ALL = (1 << 41) - 1
NET_ADMIN = 1 << 12


def credential(effective: int, uid: int = 0) -> Credential:
    return Credential(uid, effective, effective, effective)


def event(cap: int, ret: int, pid: int = 7) -> bytes:
    return struct.pack("=HBBiii", 2073, 0, 0, pid, cap, ret)


def page(*events: tuple[int, bytes], flags: int = 0) -> bytes:
    data = b"".join(struct.pack("=I", delta << 5 | len(each) // 4) + each for delta, each in events)
    return struct.pack("=QQ", 1000, len(data) | flags) + data


def test_events_are_read_with_their_times() -> None:
    formats = {2073: parse_format(FORMAT)}
    found = list(records(page((5, event(12, 0)), (6, event(21, -1))), formats))
    assert found == [
        Record(1005, 7, "cap_capable", {"cap": 12, "ret": 0}),
        Record(1011, 7, "cap_capable", {"cap": 21, "ret": -1}),
    ]


def test_a_large_time_and_a_long_event_are_read() -> None:
    extend = struct.pack("=II", 3 << 5 | 30, 2)
    long_event = struct.pack("=II", 0, 4 + 16) + event(1, 0)
    data = extend + long_event
    (found,) = records(struct.pack("=QQ", 0, len(data)) + data, {2073: parse_format(FORMAT)})
    assert found.time_ns == (2 << 27) + 3


def test_lost_events_are_not_passed_over() -> None:
    with pytest.raises(ValueError, match="lost"):
        list(records(page((5, event(12, 0)), flags=1 << 31), {2073: parse_format(FORMAT)}))


def call(time_ns: int, pid: int, name: str, *arguments: int, ret: int = 0) -> list[Record]:
    words = (*arguments, *([0] * (6 - len(arguments))))
    return [
        Record(time_ns, pid, "sys_enter", {"id": NUMBERS[name], "args": words}),
        Record(time_ns + 1, pid, "sys_exit", {"id": NUMBERS[name], "ret": ret}),
    ]


def made(time_ns: int, pid: int, child: int, flags: int = 0) -> Record:
    return Record(time_ns, pid, "task_newtask", {"pid": child, "clone_flags": flags})


def executed(time_ns: int, pid: int, program: str) -> Record:
    return Record(time_ns, pid, "sched_process_exec", {"old_pid": pid, "pid": pid, "filename": program})


def ended(time_ns: int, pid: int) -> Record:
    return Record(time_ns, pid, "sched_process_exit", {})


def test_a_call_runs_its_course() -> None:
    first, child = ((), 0), ((0,), 0)
    found = Course(
        [
            executed(100, 10, "/bin/plugin"),
            made(110, 10, 11),
            *call(119, 10, "capset"),
            Record(130, 11, "cap_capable", {"cap": 12, "ret": 0}),
            Record(131, 11, "cap_capable", {"cap": 21, "ret": -1}),
            ended(150, 11),
            ended(200, 10),
        ],
        10,
    )
    known = {first: [Known("exec", credential(ALL)), Known("capset", credential(NET_ADMIN))]}
    timelines, unmatched = course.steps(found, known)
    assert unmatched == 0
    assert [task.key for task in found.tasks] == [first, child]
    assert found.tasks[1].exercised == {12: 1}
    held = course.held(found, timelines)
    assert summary.length(held["CAP_NET_ADMIN"]) == 100
    # the child was made before the drop, and keeps what it began with
    assert summary.length(held["CAP_SYS_ADMIN"]) == 50
    assert course.held(found, timelines, ()).keys() == held.keys()


def test_a_change_that_failed_is_none() -> None:
    found = Course([executed(100, 10, "/p"), *call(110, 10, "setresuid", 1, 1, 1, ret=-1), ended(200, 10)], 10)
    assert [name for _, name in found.tasks[0].events] == ["exec"]


def test_a_change_that_was_not_read_is_counted() -> None:
    found = Course([executed(100, 10, "/p"), *call(110, 10, "setresuid", 1, 1, 1), ended(200, 10)], 10)
    timelines, unmatched = course.steps(found, {((), 0): [Known("exec", credential(ALL))]})
    assert unmatched == 1
    assert [step.credential for step in timelines[((), 0)]] == [credential(ALL)] * 2


def test_a_thread_belongs_to_its_process() -> None:
    found = Course([executed(100, 10, "/p"), made(110, 10, 11, sysnames.CLONE_THREAD), ended(200, 10)], 10)
    assert [task.key for task in found.tasks] == [((), 0), ((), 1)]
    assert found.processes() == [()]


def test_what_happens_before_the_plugin_is_executed_does_not_count() -> None:
    found = Course(
        [*call(90, 10, "setresuid"), executed(100, 10, "/p"), executed(101, 12, "/other"), ended(200, 10)], 10
    )
    assert (found.start_ns, found.end_ns, len(found.tasks)) == (100, 200, 1)


@pytest.mark.parametrize(
    ("name", "arguments", "event"),
    [
        ("setresuid", (1, 1, 1), "setresuid"),
        ("prctl", (24, 5), "prctl bounding"),
        ("prctl", (15, 0), ""),
        ("prctl", (47, 1, 3), ""),
        ("setns", (3, 0x40000000), ""),
        ("unshare", (0x10000000,), "unshare"),
        ("read", (0, 0, 0), ""),
    ],
)
def test_which_system_calls_change_a_credential(name: str, arguments: tuple[int, ...], event: str) -> None:
    assert sysnames.credential_event(NUMBERS[name], arguments) == event


def test_quartiles_lie_between_the_values() -> None:
    assert summary.quartiles([5]) == (5, 5, 5)
    assert summary.quartiles([1, 2, 3, 4, 5]) == (2, 3, 4)
    assert summary.median_index([30, 10, 20]) == 2
    assert summary.median_index([40, 10, 20, 30]) == 2


def test_intervals_are_united() -> None:
    assert summary.merged([(5, 9), (1, 3), (2, 6), (12, 12)]) == [(1, 9)]
    assert summary.length([(0, 10), (5, 15), (20, 21)]) == 16


def test_capabilities_have_names() -> None:
    assert names_of(1 << 12 | 1 << 21) == ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
    assert names_of(1 << 60) == ["CAP_60"]


def test_a_credential_is_read_from_status() -> None:
    text = "Name:\tx\nUid:\t0\t999\t0\t0\nCapInh:\t0\nCapPrm:\t1000\nCapEff:\t1000\nCapBnd:\tff\nCapAmb:\t0\n"
    assert parse_status(text) == Credential(999, 0x1000, 0x1000, 0xFF)


def test_what_is_different_each_time_does_not_matter() -> None:
    expected = Expected([{"link a": "up", "file seal": "1"}, {"link a": "up", "file seal": "2", "sometimes": ""}])
    assert expected.difference({"link a": "up", "file seal": "3"}) == ""
    assert expected.difference({"link a": "down", "file seal": "3"}) == "link a is 'down' and not 'up'"
    assert expected.difference({"link a": "up", "x": ""}) == "file seal is missing; x is there as well"


def test_names_that_are_made_up_are_left_out() -> None:
    assert stable("vethaf4bbfbb of eth0") == "veth* of eth0"
    assert stable("veth0") == "veth0"

"""What a filter is said to let through, held against hand-made programs and against the kernel that has loaded one."""

import errno
import json
import os
import struct

import prctl
import pytest

from cnisandbox.boundary import seccomp
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.exposure import bpf, sysnames

ALLOW, EPERM = bpf.ALLOW, bpf.ERRNO | errno.EPERM
LOAD, JEQ, JGE, JSET, RETURN, RETURN_A, AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x16, 0x54
NR, ARCH, ARGUMENT = 0, 4, 16
NUMBERS = {name: number for number, name in sysnames.all_names().items()}


def program(*instructions: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def actions(data: bytes, number: int, arch: int = 1) -> frozenset[int]:
    return bpf.actions(bpf.decode(data), number, arch)


def test_a_number_decides() -> None:
    data = program((LOAD, 0, 0, NR), (JEQ, 0, 1, 39), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM))
    assert actions(data, 39) == {bpf.ALLOW}
    assert actions(data, 40) == {bpf.ERRNO}


def test_an_argument_may_be_anything() -> None:
    data = program((LOAD, 0, 0, ARGUMENT), (JEQ, 0, 1, 7), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM))
    assert actions(data, 1) == {bpf.ALLOW, bpf.ERRNO}


def test_what_was_compared_is_known_on_the_way_of_equality() -> None:
    data = program(
        (LOAD, 0, 0, ARGUMENT),
        (JEQ, 0, 3, 7),
        (JGE, 0, 1, 8),  # 7 is not
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, bpf.LOG),
        (RETURN, 0, 0, EPERM),
    )
    assert actions(data, 1) == {bpf.LOG, bpf.ERRNO}


def test_bits_are_calculated() -> None:
    data = program((LOAD, 0, 0, NR), (AND, 0, 0, 1), (JSET, 0, 1, 1), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM))
    assert actions(data, 3) == {bpf.ALLOW}
    assert actions(data, 2) == {bpf.ERRNO}


@pytest.mark.parametrize(
    "data", [b"", b"1234567", program((LOAD, 0, 0, NR)), program((LOAD, 0, 0, 3), (RETURN, 0, 0, ALLOW))]
)
def test_what_the_kernel_would_not_take_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"instructions|end|loads"):
        actions(data, 1)


def test_the_strictest_of_several_filters_decides() -> None:
    everything = bpf.decode(program((RETURN, 0, 0, ALLOW)))
    nothing = bpf.decode(program((RETURN, 0, 0, EPERM)))
    asks = bpf.decode(program((RETURN, 0, 0, bpf.USER_NOTIF)))
    assert bpf.can_pass([everything, everything], 1, 1)
    assert not bpf.can_pass([everything, nothing], 1, 1)
    assert not bpf.can_pass([everything, asks], 1, 1)


def test_the_kernel_agrees() -> None:
    names = [
        "getpid",
        "getuid",
        "ptrace",
        "bpf",
        "setns",
        "unshare",
        "mount",
        "umount2",
        "keyctl",
        "add_key",
        "perf_event_open",
        "io_uring_setup",
        "pidfd_getfd",
        "userfaultfd",
        "read",
        "close",
        "lseek",
        "dup",
        "getdents64",
        "kexec_load",
        "init_module",
        "chroot",
        "pivot_root",
        "fsync",
    ]
    data = seccomp.engine_filter()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prctl.set_no_new_privs(1)
            seccomp.load(data)
            os.write(writer, json.dumps({name: refused_with(name) for name in names}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answers = json.load(pipe)
    os.waitpid(pid, 0)
    decoded = [bpf.decode(data)]
    said = {name: bpf.can_pass(decoded, NUMBERS[name], sysnames.arch()) for name in names}
    assert said == {name: number != errno.EPERM for name, number in answers.items()}
    assert set(said.values()) == {True, False}


def refused_with(name: str) -> int:
    """Make a system call with arguments that are of no use; EPERM is then the filter's."""
    try:
        raw.syscall(name, -1, 0, 0, 0, 0, 0)
    except OSError as error:
        return error.errno
    return 0

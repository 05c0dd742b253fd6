"""The blast-radius matrix: its cells are the same in two runs, its controls work, and it notices what is missing.

For the last of these a protection is switched off in the arena, where it is forked: the attempts that work then, and
did not before, are exactly those that are named here, of a list that is the same for every protection.
"""

import functools
import os
import signal
import socket
import subprocess
import types
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from cnisandbox.boundary import credentials, landlock, limits, namespaces, sandbox, seccomp, view
from cnisandbox.boundary.syscalls import CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWUTS, lib
from cnisandbox.boundary.wire import Channel
from cnisandbox.laboratory import columns, matrix
from cnisandbox.laboratory.arena import Arena
from cnisandbox.laboratory.attacker import processes, raw
from cnisandbox.laboratory.attacker.knowledge import PLUGIN_DIRECTORY, Facts
from cnisandbox.laboratory.columns import (
    COLUMNS,
    CONTAINER_WORKER,
    DELEGATE_WORKER,
    ENGINE,
    HARDENED,
    MEDIATED,
    NETADMIN,
    PLUGIN,
    ROOT,
    RUNNER,
)
from cnisandbox.laboratory.vector import NOT_APPLICABLE, UNTESTED, WORKED, Vector
from cnisandbox.laboratory.vectors import VECTORS
from cnisandbox.monitor import gate
from cnisandbox.policy.judge import Judge, Record, Verdict
from cnisandbox.runner import keeper, worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making namespaces needs root")

# LIMIT: seconds for the whole list in three columns, on a machine that does something else besides.
_WHOLE_TIMEOUT_S = 900

# A program that the kernel would give a capability, if it may have one: the bounding set says so.
_CAPABLE_PROGRAM, _TOUCHED = f"{PLUGIN_DIRECTORY}/touch-with-capability", "/run/private/touched"
# struct vfs_cap_data, revision 2: CAP_DAC_OVERRIDE, permitted and effective.
_CAP_DAC_OVERRIDE = bytes.fromhex("0100000202000000000000000000000000000000")


def plant_program_with_capability(arena: Arena) -> None:
    with open("/usr/bin/touch", "rb") as original, open(_CAPABLE_PROGRAM, "wb") as copy:
        copy.write(original.read())
    os.chmod(_CAPABLE_PROGRAM, 0o755)
    os.setxattr(_CAPABLE_PROGRAM, "security.capability", _CAP_DAC_OVERRIDE)


def execute_program_with_capability(facts: Facts) -> None:
    processes.execute(_CAPABLE_PROGRAM, "touch", _TOUCHED)


_PROGRAM_WITH_CAPABILITY = Vector(
    "execute-program-with-capability",
    "e",
    "execve() of a program that has CAP_DAC_OVERRIDE",
    execute_program_with_capability,
    lambda arena: os.path.exists(_TOUCHED),
    "capabilities(7)",
    scene=plant_program_with_capability,
)

BY_ID = {vector.id: vector for vector in (*VECTORS, _PROGRAM_WITH_CAPABILITY)}

SMALL = (
    "a-sys-admin-set-hostname",
    "b-mtu",
    "c-create-link-by-nsid",
    "c-setns-by-path",
    "d-read-shadow",
    "d-write-open-directory",
    "e-kill-other-call",
    "e-execute-set-uid-program",
    "f-unshare-user-namespace",
    "g-many-descriptors",
)


@pytest.fixture(scope="module")
def small() -> matrix.Matrix:
    """A few attempts in every column."""
    return matrix.run([BY_ID[name] for name in SMALL])


@pytest.fixture(scope="module")
def whole() -> matrix.Matrix:
    """Every attempt, where no process has both a capability and code of a plugin."""
    return matrix.run(VECTORS, (ROOT, MEDIATED, RUNNER))


def test_two_runs_are_equal(small: matrix.Matrix) -> None:
    assert matrix.run([BY_ID[name] for name in SMALL]) == small


def test_controls_work(small: matrix.Matrix) -> None:
    assert {name: row[ROOT].verdict for name, row in small.items()} == dict.fromkeys(SMALL, WORKED)


def test_every_cell_is_there_and_says_who_was_attacked(small: matrix.Matrix) -> None:
    for row in small.values():
        assert tuple(row) == COLUMNS
        assert all(cell.process in columns.PROCESSES[column] for column, cell in row.items())


def test_what_changes_outside_is_told(small: matrix.Matrix) -> None:
    assert small["a-sys-admin-set-hostname"][ROOT].outside[0].startswith("host: name ")
    assert small["c-create-link-by-nsid"][HARDENED].outside == ("link esc1 is new",)
    assert small["c-create-link-by-nsid"][MEDIATED].outside == ()
    assert small["e-kill-other-call"][NETADMIN].outside == ("process neighbour is gone",)


@pytest.mark.timeout(_WHOLE_TIMEOUT_S)
def test_every_attempt_was_made_or_says_what_the_kernel_lacks(whole: matrix.Matrix) -> None:
    cells = {(name, column): cell for name, row in whole.items() for column, cell in row.items()}
    assert {key: cell.reason for key, cell in cells.items() if cell.verdict == UNTESTED} == {}
    assert all(cell.reason for cell in cells.values() if cell.verdict == NOT_APPLICABLE)


_STATE = "a plugin of addresses keeps its files there"
_NAMED = "the netconf names the link; an engine that was taken over says what the netconf names"
_ATTACHMENT = "the host's end of the attachment goes with the container's"
_MASQUERADE = "what bridge makes in nf_tables"
_FORWARDING = "bridge has the host forward, where it is a gateway"

# What works of categories c, d and e where no process has both a capability and code of a plugin, and why.
WORKS = {
    MEDIATED: {
        "c-read-nsid": "the attachment may be looked at, and the number stands there; no message may have it",
        "d-read-public-file": "the delegate worker executes programs, which need the system's files",
        "d-walk-up-from-own-state": "the same: it sees that a directory is there, and may not open it",
        "d-free-address-of-other-container": _STATE,
    },
    RUNNER: {
        "c-read-nsid": "as at mediated",
        "d-free-address-of-other-container": _STATE,
    },
}
# What changes outside there, and why.
CHANGES = {
    MEDIATED: {
        "b-delete-link": _ATTACHMENT,
        "b-delete-link-outside": _ATTACHMENT,
        "b-create-link-outside": _NAMED,
        "b-address-outside": _NAMED,
        "b-promiscuous-outside": _NAMED,
        "b-sysctl-outside": _FORWARDING,
        "d-free-address-of-other-container": _STATE,
        "g-fill-disk": _STATE,
    },
    RUNNER: {
        "b-delete-link": _ATTACHMENT,
        "b-delete-link-outside": _ATTACHMENT,
        "b-sysctl-outside": _FORWARDING,
        "b-masquerade-outside": _MASQUERADE,
        "d-free-address-of-other-container": _STATE,
        "g-fill-disk": _STATE,
    },
}


@pytest.mark.timeout(_WHOLE_TIMEOUT_S)
@pytest.mark.parametrize("column", [MEDIATED, RUNNER])
def test_no_attempt_on_other_netns_files_or_processes_works(whole: matrix.Matrix, column: str) -> None:
    working = {name for name, row in whole.items() if name[0] in "cde" and row[column].verdict == WORKED}
    assert working == set(WORKS[column])


@pytest.mark.timeout(_WHOLE_TIMEOUT_S)
@pytest.mark.parametrize("column", [MEDIATED, RUNNER])
def test_nothing_changes_outside(whole: matrix.Matrix, column: str) -> None:
    changes = {name: row[column].outside for name, row in whole.items() if row[column].outside}
    assert set(changes) == set(CHANGES[column]), changes


# Planted weaknesses


def _nothing(*_: object, **__: object) -> None:
    return None


def _put(module: types.ModuleType, name: str, **members: object) -> None:
    """Have a module see another module with some members exchanged; nobody else does."""
    setattr(module, name, types.SimpleNamespace(**{**vars(getattr(module, name)), **members}))


def without_filter() -> None:
    seccomp.load = _nothing


def without_landlock() -> None:
    landlock.enter_domain = lambda _, *, holds_back_signals=True: 0


def without_mount_namespace() -> None:
    view.enter_empty_root = view.enter_read_only_root = _nothing
    flags = CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    namespaces.enter_own_namespaces = lambda: lib.native_unshare(flags)


def without_pid_namespace() -> None:
    namespaces.NewPidNamespaces.before_fork = _nothing
    namespaces.NewPidNamespaces.after_fork = _nothing


def without_no_new_privs() -> None:
    _put(credentials, "prctl", set_no_new_privs=_nothing)


def without_bounding_set_emptied() -> None:
    credentials._empty_bounding_set = _nothing


def without_change_of_user() -> None:
    _put(credentials, "os", setresuid=_nothing, setresgid=_nothing)


def without_capabilities_cut() -> None:
    credentials._cut_sets = _nothing


def without_limits() -> None:
    limits.lower_limits = _nothing


def without_closing_descriptors() -> None:
    limits.close_all_but = _nothing


def with_sockets_as_channel() -> None:
    def pair(peer_of_first: str, peer_of_second: str, *, reads_ahead: bool = False) -> tuple[Channel, Channel]:
        first, second = (end.detach() for end in socket.socketpair())
        return (
            Channel(first, os.dup(first), peer_of_first, reads_ahead=reads_ahead),
            Channel(second, os.dup(second), peer_of_second, reads_ahead=reads_ahead),
        )

    sandbox.channel_pair = pair


def with_judge_that_permits_everything() -> None:
    def judge(self: Judge, netns: str, protocol: int, datagram: bytes) -> Verdict:
        return Verdict(True, datagram, 0, ())

    Judge.judge = judge
    Judge.judge_sysctl = lambda self, netns, path, is_write: Record(netns, {}, "everything", "")
    Judge.after_send = _nothing
    gate.complaint_about_commands = lambda *_: ""


def without_empty_netns() -> None:
    _put(worker, "namespaces", enter_empty_netns=_nothing)


def without_user_namespace() -> None:
    original = namespaces.open_netns
    namespaces.open_netns = lambda path: original(path)._replace(userns_fd=None)


def container_of_foreign_user_namespace() -> None:
    """Give the container a netns that belongs to another user namespace, as that of a rootless container does."""
    clone_newuser, clone_newnet, mnt_detach, ms_bind = 0x10000000, 0x40000000, 2, 4096
    said, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        raw.syscall("unshare", clone_newuser | clone_newnet)
        os.write(says, b"r")
        signal.pause()
    os.read(said, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write("0 100000 65536")
    subprocess.run(["ip", "-n", "blue", "link", "set", "eth0", "netns", str(pid)], check=True, timeout=10)
    raw.syscall("umount2", b"/run/netns/blue\0", mnt_detach)
    raw.syscall("mount", f"/proc/{pid}/ns/net\0".encode(), b"/run/netns/blue\0", b"", ms_bind, b"")


class Weakness(NamedTuple):
    """A protection that is switched off.

    Attributes:
        switch_off: Does it, in the arena.
        column, process: Who is attacked.
        caught: What works then and does not with the protection.
        setting: What is so in any case: other protections that would be in the way are switched off, too.
    """

    switch_off: Callable[[], object]
    column: str
    process: str
    caught: Iterable[str]
    setting: tuple[Callable[[], object], ...] = ()


FIXED = (
    "b-mtu",
    "c-create-link-by-nsid",
    "c-list-netns-paths",
    "c-read-links-in-proc",
    "c-veth-peer-by-left-descriptor",
    "c-veth-peer-by-netns-of-socket",
    "c-veth-peer-by-pid",
    "c-write-left-sysctl",
    "d-open-core-pattern",
    "d-plant-link",
    "d-read-public-file",
    "d-read-shadow",
    "d-write-directory-of-root",
    "d-write-open-directory",
    "e-become-root",
    "e-execute-set-uid-program",
    "e-kill-other-call",
    "e-kill-process-of-root",
    "e-outlive-the-call",
    "e-ptrace-other-call",
    "e-raise-capability",
    "f-add-key",
    "f-execute-other-program",
    "f-map-executable-memory",
    "f-mount",
    "f-unshare-user-namespace",
    "g-huge-file",
    "g-many-descriptors",
    _PROGRAM_WITH_CAPABILITY.id,
)

WEAKNESSES = {
    "filter": Weakness(
        without_filter,
        HARDENED,
        CONTAINER_WORKER,
        ("f-add-key", "f-map-executable-memory", "f-unshare-user-namespace"),
    ),
    "landlock": Weakness(without_landlock, RUNNER, PLUGIN, ("d-plant-link", "f-execute-other-program")),
    "landlock of the delegate worker": Weakness(
        without_landlock, HARDENED, DELEGATE_WORKER, ("c-list-netns-paths", "c-read-links-in-proc")
    ),
    "mount namespace": Weakness(
        without_mount_namespace,
        HARDENED,
        CONTAINER_WORKER,
        ("c-list-netns-paths", "c-read-links-in-proc", "d-read-public-file", "d-write-open-directory"),
        setting=(without_landlock,),
    ),
    "pid namespace": Weakness(without_pid_namespace, HARDENED, CONTAINER_WORKER, ("c-veth-peer-by-pid",)),
    "pid namespace of the runner": Weakness(
        without_pid_namespace, RUNNER, PLUGIN, ("c-read-links-in-proc", "e-outlive-the-call")
    ),
    "user namespace": Weakness(
        without_user_namespace,
        HARDENED,
        CONTAINER_WORKER,
        ("c-create-link-by-nsid",),
        setting=(container_of_foreign_user_namespace,),
    ),
    "no_new_privs": Weakness(without_no_new_privs, NETADMIN, CONTAINER_WORKER, ("e-execute-set-uid-program",)),
    "bounding set": Weakness(
        without_bounding_set_emptied,
        NETADMIN,
        CONTAINER_WORKER,
        (_PROGRAM_WITH_CAPABILITY.id,),
        setting=(without_no_new_privs,),
    ),
    "change of user": Weakness(
        without_change_of_user,
        NETADMIN,
        CONTAINER_WORKER,
        (
            "d-open-core-pattern",
            "d-plant-link",
            "d-read-shadow",
            "d-write-directory-of-root",
            "e-become-root",
            "e-execute-set-uid-program",
            "e-kill-process-of-root",
            "g-huge-file",
        ),
    ),
    "capability sets": Weakness(
        without_capabilities_cut,
        NETADMIN,
        CONTAINER_WORKER,
        (
            "d-plant-link",
            "d-read-shadow",
            "d-write-directory-of-root",
            "e-become-root",
            "e-kill-process-of-root",
            "e-ptrace-other-call",
            "e-raise-capability",
            "f-mount",
            "g-huge-file",
        ),
    ),
    "limits": Weakness(without_limits, HARDENED, ENGINE, ("g-huge-file", "g-many-descriptors")),
    "closed descriptors": Weakness(
        without_closing_descriptors,
        HARDENED,
        CONTAINER_WORKER,
        ("c-veth-peer-by-left-descriptor", "c-write-left-sysctl"),
    ),
    "pipes": Weakness(with_sockets_as_channel, NETADMIN, CONTAINER_WORKER, ("c-veth-peer-by-netns-of-socket",)),
    "judge of the monitor": Weakness(
        with_judge_that_permits_everything, RUNNER, PLUGIN, ("b-mtu", "c-create-link-by-nsid")
    ),
    "judge of the gates": Weakness(with_judge_that_permits_everything, MEDIATED, ENGINE, ("c-create-link-by-nsid",)),
    "empty netns": Weakness(without_empty_netns, RUNNER, PLUGIN, ("c-read-links-in-proc",)),
}


def working(column: str, process: str, *switches: Callable[[], object]) -> set[str]:
    """Say which attempts of the fixed list work in a process whose protections are weaker than they should be."""

    def weaken() -> None:
        if switches:  # or the product itself notices, and refuses to go on
            sandbox.verify = keeper.verify = columns.verify = lambda *_, **__: ()
            keeper.verify_worker = _nothing
        for switch in switches:
            switch()

    # Under the runner the attacker is a program, which has the attempts of the published list.
    names = [name for name in FIXED if column != RUNNER or BY_ID[name] is not _PROGRAM_WITH_CAPABILITY]
    trials = [matrix.Trial(BY_ID[name], column, process) for name in names]
    results = {trial.vector.id: result.cell for trial, result in matrix.in_arenas(trials, 2, weaken)}
    assert {name: cell.reason for name, cell in results.items() if cell.verdict == UNTESTED} == {}
    return {name for name, cell in results.items() if cell.verdict == WORKED}


@functools.cache
def _working_before(column: str, process: str, setting: tuple[Callable[[], object], ...]) -> set[str]:
    return working(column, process, *setting)


@pytest.mark.parametrize("name", WEAKNESSES)
def test_a_protection_that_is_missing_is_noticed(name: str) -> None:
    weakness = WEAKNESSES[name]
    before = _working_before(weakness.column, weakness.process, weakness.setting)
    now = working(weakness.column, weakness.process, *weakness.setting, weakness.switch_off)
    assert now - before == set(weakness.caught)


def test_controls_of_the_fixed_list_work() -> None:
    assert working(ROOT, PLUGIN) == set(FIXED)

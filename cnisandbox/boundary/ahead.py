"""Processes forked ahead of the call that they are for: they have namespaces and a view, and wait.

    waiting    everything that root has; in a view of its own; reads two messages, which its parent sends
    after them what `spawn` makes: the netns, the drop and the attestation are those of the call

Nothing of a call is known when they are forked, and each serves one and ends: nothing of one call can reach another.

Privilege: everything, until the message comes. Its sender is the parent, root as well, before it has read a request of
anybody else's making than root's.
"""

import os
from collections.abc import Callable

from cnisandbox.boundary import namespaces, service
from cnisandbox.boundary.confinement import Confinement, Ground, complete, prepare, stage
from cnisandbox.boundary.environment import Environment, read_environment
from cnisandbox.boundary.sandbox import (
    CHANNEL_FDS,
    GIVEN_FD,
    LOG_FD,
    LOG_FILE_BYTES,
    Becoming,
    Worker,
    arrange_descriptors,
    expectation,
    fork_into,
    live,
)
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.wire import Channel, channel_pair, check
from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import NamedTuple

# LIMIT: seconds to take a message of a few kilobytes off a pipe.
_BEGIN_TIMEOUT_S = 10.0
# No descriptor.
ABSENT = -1


class Gifts(NamedTuple):
    """What a waiting process is given: numbers of descriptors in its parent; -1 for none.

    Attributes:
        netns_fd, userns_fd: The netns to enter, and the user namespace to join.
        given_fd: What it keeps as `GIVEN_FD`.
        log_fd: The audit log, kept as `LOG_FD`.
    """

    netns_fd: int = ABSENT
    userns_fd: int = ABSENT
    given_fd: int = ABSENT
    log_fd: int = ABSENT


class Assignment(NamedTuple):
    """What it is told when it has taken them.

    Attributes:
        log_kind: What the audit log is; empty without one.
        is_gate_only: Whether it is a gate from the beginning.
        title: What the process list shows behind the role.
        variables: The parameters of the call.
    """

    log_kind: str
    is_gate_only: bool
    title: str
    variables: dict[str, str]


# Makes what the process does when it is told to be a gate.
GateOf = Callable[[Environment, Assignment], service.BecomeGate | None]
# Gets a process ready to wait: one that has the role.
Settle = Callable[[str], None]


class Waiting:
    """A worker that was forked ahead, seen from its parent.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, pid: int, channel: Channel, wanted: Confinement, own_namespaces: dict[str, int]) -> None:
        self.pid = pid
        self._channel = channel
        self._wanted = wanted
        self._own_namespaces = own_namespaces
        self._gifts = Gifts()

    def give(self, gifts: Gifts) -> None:
        """Wake it: it takes copies of the descriptors."""
        with stage("channel", self._wanted.role):
            self._channel.send(gifts, _BEGIN_TIMEOUT_S)
        self._gifts = gifts

    def begin(self, assignment: Assignment, netns: namespaces.Netns | None = None) -> Worker:
        """Tell it what it is for, when it has taken what it was given; it then confines itself while we go on.

        Args:
            assignment: What it is told.
            netns: The netns that it will be in, when that is not ours.

        Returns:
            The worker; what it was given may be closed here.

        Raises:
            IsolationError: it cannot have the descriptors.
        """
        match self._channel.receive(_BEGIN_TIMEOUT_S):
            case True:
                pass
            case [int(), *rest]:
                raise service.rebuild_error(rest)
            case _:
                raise BoundaryViolation(f"begin {self._wanted.role}: the answer has no known shape")
        with stage("channel", self._wanted.role):
            self._channel.send(assignment, _BEGIN_TIMEOUT_S)
        given = [(GIVEN_FD, self._gifts.given_fd), (LOG_FD, self._gifts.log_fd)]
        expected = expectation(
            _refined(self._wanted, self._gifts)._replace(userns_fd=netns.userns_fd if netns else None),
            self._own_namespaces,
            netns.inode if netns else None,
            os.getpid(),
            given=tuple(number for number, fd in given if fd != ABSENT),
            has_own_pid_namespace=True,
        )
        return Worker(self.pid, self._channel, expected)


def fork_ahead(
    wanted: Confinement,
    own_namespaces: dict[str, int],
    pid_namespaces: namespaces.NewPidNamespaces,
    gate_of: GateOf,
    settle: Settle,
) -> Waiting:
    """Fork a worker that waits.

    Args:
        wanted: What it becomes, as far as that is known; at a level that has namespaces.
        own_namespaces: Inode numbers of our own namespaces.
        pid_namespaces: Where pid namespaces come from.
        gate_of: Makes what it does when it is told to be a gate.
        settle: What it does last before it waits.

    Raises:
        PrivilegeNotDropped: the stages "channel" or "fork" failed.
    """
    with stage("channel", wanted.role):
        ours, theirs = channel_pair(wanted.role, "engine")
    with stage("fork", wanted.role):
        parent_fd = checked(lib.native_pidfd_open(os.getpid()), "pidfd_open")
        try:
            pid = fork_into(pid_namespaces)
            if pid == 0:
                _wait(wanted, theirs, parent_fd, gate_of, settle)
        except OSError:
            ours.close()
            raise
        finally:
            os.close(parent_fd)
            theirs.close()
    return Waiting(pid, ours, wanted, own_namespaces)


def _wait(wanted: Confinement, channel: Channel, parent_fd: int, gate_of: GateOf, settle: Settle) -> None:
    """Live as a worker that waits first."""
    # The pidfd goes through the arrangement in the place of the netns, which is not known yet; and it keeps the numbers
    # of what the process may be given from being taken meanwhile.
    pidfd = ABSENT
    reserved = {GIVEN_FD: parent_fd, LOG_FD: parent_fd}

    def arrange() -> Channel:
        nonlocal pidfd
        own, lifted, _ = arrange_descriptors(wanted._replace(netns_fd=parent_fd), channel, reserved)
        pidfd = ABSENT if lifted is None else lifted
        return own

    def become() -> Becoming:
        own = Channel(*CHANNEL_FDS[:2], "engine")
        ground = prepare(wanted)
        settle(wanted.role)
        return _become(wanted, own, pidfd, gate_of, ground)

    live(wanted.role, "[waiting]", channel, arrange, become)


def _become(wanted: Confinement, channel: Channel, parent_fd: int, gate_of: GateOf, ground: Ground) -> Becoming:
    # No time limit: it waits for a call, for as long as its parent lives.
    gifts: Gifts = check(channel.receive(), Gifts, "gifts")
    given = {}
    with stage("fork", wanted.role):
        for number, fd in ((GIVEN_FD, gifts.given_fd), (LOG_FD, gifts.log_fd)):
            if fd != ABSENT:
                given[number] = number
                _fetch(parent_fd, fd, number)
        netns_fd, userns_fd = (
            None if fd == ABSENT else _fetch(parent_fd, fd) for fd in (gifts.netns_fd, gifts.userns_fd)
        )
    channel.send(True)
    assignment: Assignment = check(channel.receive(_BEGIN_TIMEOUT_S), Assignment, "assignment")
    set_title(f"cnisandbox: {wanted.role} {assignment.title}")
    refined = _refined(wanted, gifts)._replace(netns_fd=netns_fd, userns_fd=userns_fd)
    attestation = complete(refined, {*CHANNEL_FDS, *given}, ground)
    become_gate = gate_of(read_environment(assignment.variables), assignment)
    return Becoming(attestation, become_gate, assignment.is_gate_only)


def _refined(wanted: Confinement, gifts: Gifts) -> Confinement:
    """Add what the call says to a confinement: what is done, and what is expected."""
    return wanted if gifts.log_fd == ABSENT else wanted._replace(file_bytes=LOG_FILE_BYTES)


def _fetch(parent_fd: int, fd: int, number: int | None = None) -> int:
    """Take a copy of a descriptor of the parent's; it cannot be passed through a pipe."""
    # TRUST: parent and child are root alike, and descend from each other; ptrace access is what the kernel asks for.
    copy = checked(lib.native_pidfd_getfd(parent_fd, fd), "pidfd_getfd")
    if number is None or number == copy:
        return copy
    os.dup2(copy, number, inheritable=False)
    os.close(copy)
    return number

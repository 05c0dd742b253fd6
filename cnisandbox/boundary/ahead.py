"""Workers forked ahead of the call that they are for: confined as far as no call has an influence on it, they wait.

    the host's       waits confined to the end, and has attested that
                     one message, and perhaps a descriptor: it attests which it has now
    the container's  waits as the service user, bounding set empty, no privilege to be gained, in its view, under its
                     limits and in its Landlock domain, with CAP_NET_ADMIN and CAP_SYS_ADMIN; it has attested that
                     one message, and descriptors: it enters the netns, then goes through every stage of the drop
                     again, which takes the rest, loads the filter, and attests what is different now

Nothing of a call is known when they are forked, and each serves one and ends: nothing of one call can reach another.

Privilege: everything, until it waits; then what is said above, until the message comes. It comes over a socket,
because of its descriptors: a pipe carries none, and to fetch them would take a capability over the parent. The other
end is the parent's, who is root and has read nothing of anybody else's; it is closed before the netns is entered, out
of which no way may lead back, and before anything is asked.
"""

import _socket
import os
import struct
from collections.abc import Callable

from cnisandbox.boundary import limits, namespaces, service
from cnisandbox.boundary.attestation import Attestation, Expectation
from cnisandbox.boundary.confinement import (
    Confinement,
    Ground,
    complete,
    confine,
    descend,
    expected_limits,
    prepare,
    stage,
)
from cnisandbox.boundary.credentials import CAP_SYS_ADMIN
from cnisandbox.boundary.processors import keep_off_ours
from cnisandbox.boundary.sandbox import (
    CALL_TIMEOUT_S,
    CHANNEL_FDS,
    GIVEN_FD,
    LOG_FD,
    LOG_FILE_BYTES,
    Becoming,
    Unborn,
    Worker,
    arrange_descriptors,
    expectation,
    live,
)
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.wire import Channel, channel_pair, check, decode, encode_body
from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import NamedTuple

# LIMIT: of the message; a container id is some 64 bytes, and an environment is at most 128 KiB.
_MESSAGE_BYTES = 1 << 18


class Gifts(NamedTuple):
    """Descriptors that a waiting process is given copies of; None for none.

    Attributes:
        netns_fd: The netns to enter, one of our own user namespace.
        given_fd: What it keeps as `GIVEN_FD`.
        log_fd: The audit log, kept as `LOG_FD`.
    """

    netns_fd: int | None = None
    given_fd: int | None = None
    log_fd: int | None = None


class Subject(NamedTuple):
    """What a gate has to know of a call.

    Attributes:
        container_id, ifname: As in the environment.
        is_gate_only: Whether it is a gate from the beginning.
    """

    container_id: str
    ifname: str
    is_gate_only: bool


class Assignment(NamedTuple):
    """What it is told.

    Attributes:
        gifts: Which of `Gifts` come with it, in that order.
        log_kind: What the audit log is; empty without one.
        title: What the process list shows behind the role.
        subject: What it has to know as a gate.
    """

    gifts: list[bool]
    log_kind: str
    title: str
    subject: Subject


# Makes what the process does when it is told to be a gate.
GateOf = Callable[[Assignment], service.BecomeGate | None]
# Gets a process ready to wait: one that has the role.
Settle = Callable[[str], None]


class Waiting:
    """A worker that was forked ahead, seen from its parent.

    Attributes:
        pid: Its process id.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        socket: _socket.socket,
        wanted: Confinement,
        expected: Expectation,
    ) -> None:
        self.pid = pid
        self._channel = channel
        self._socket = socket
        self._wanted = wanted
        self._expected = expected
        self._before: Attestation | None = None

    def hear(self) -> None:
        """Wait until it waits.

        Raises:
            IsolationError: it could not be confined so far.
        """
        self._before = service.receive_attestation(self._channel, self._wanted.role, CALL_TIMEOUT_S)

    def begin(self, assignment: Assignment, gifts: Gifts, netns_inode: int | None = None) -> Worker:
        """Tell it what it is for; it then gets ready, confined to the end, while we go on.

        Args:
            assignment: What it is told.
            gifts: What it is given; it may be closed here as soon as this returns.
            netns_inode: The netns that it will be in, when that is not ours.

        Raises:
            PrivilegeNotDropped: it has ended.
        """
        fds = [fd for fd in gifts if fd is not None]
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        message = encode_body(assignment._replace(gifts=[fd is not None for fd in gifts]))
        keep_off_ours(self.pid)
        with stage("channel", self._wanted.role):
            self._socket.sendmsg([message], rights, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
            self._socket.close()
        expected = self._expected
        if netns_inode is not None:
            expected = expected._replace(netns_inode=netns_inode)
        given = tuple(number for number, fd in _numbered(gifts) if fd is not None)
        if given:
            expected = expected._replace(descriptors=(*CHANNEL_FDS, *given))
        if gifts.log_fd is not None:
            expected = expected._replace(limits=expected_limits(_refined(self._wanted, gifts)))
        return Worker(self.pid, self._channel, expected, self._before)


def unborn_waiting(
    wanted: Confinement, mounts_fd: int, gate_of: GateOf, settle: Settle, *, enters_netns: bool
) -> Unborn:
    """Describe a worker that waits.

    Args:
        wanted: What it becomes, as far as that is known; at a level that has all protections.
        mounts_fd: The mount namespace that its view is made in a copy of.
        gate_of: Makes what it does when it is told to be a gate.
        settle: What it does first.
        enters_netns: Whether it will be given a netns to enter, and perhaps a log; else it waits confined to the end.

    Raises:
        PrivilegeNotDropped: the stage "channel" failed.
    """
    with stage("channel", wanted.role):
        ours, theirs = channel_pair(wanted.role, "engine", reads_ahead=True)
        socket, its_socket = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def live() -> None:
        _wait(wanted, theirs, its_socket, mounts_fd, gate_of, settle, enters_netns=enters_netns)

    def adopt(pid: int, own_namespaces: dict[str, int], has_own_pid_namespace: bool) -> Waiting:
        theirs.close()
        its_socket.close()
        expected = expectation(
            wanted, own_namespaces, None, os.getpid(), given=(), has_own_pid_namespace=has_own_pid_namespace
        )
        return Waiting(pid, ours, socket, wanted, expected)

    def let_go() -> None:
        for end in (ours, theirs, socket, its_socket):
            end.close()

    return Unborn(wanted.role, live, adopt, let_go)


def _wait(
    wanted: Confinement,
    channel: Channel,
    socket: _socket.socket,
    mounts_fd: int,
    gate_of: GateOf,
    settle: Settle,
    *,
    enters_netns: bool,
) -> None:
    """Live as a worker that waits first."""
    # One that is going to write a log may write one; `complete` takes that away where there is none.
    waiting = wanted._replace(file_bytes=LOG_FILE_BYTES) if enters_netns else wanted

    def arrange() -> Channel:
        nonlocal socket
        settle(wanted.role)
        with stage("namespaces", wanted.role):
            namespaces.enter_mounts(mounts_fd)
        # It also keeps the numbers of what the process may be given from being taken meanwhile.
        reserved = dict.fromkeys((GIVEN_FD, LOG_FD) if enters_netns else (), socket.fileno())
        own, (lifted,) = arrange_descriptors(waiting, channel, reserved, socket.fileno())
        socket = _socket.socket(fileno=lifted)
        return own

    def become_later(own: Channel) -> Becoming:
        ground = descend(waiting, prepare(waiting), (CAP_SYS_ADMIN,))
        with stage("attest", wanted.role):
            before = ground.witness.look(wanted.role, wanted.level, ground.landlock_abi or 0)
        service.send_attestation(own, before)
        return _become(wanted, socket, gate_of, ground)._replace(before=before)

    def become_now(own: Channel) -> Becoming:
        before = confine(wanted, {*CHANNEL_FDS, socket.fileno()})
        service.send_attestation(own, before)
        return _be_told(before, socket, gate_of)

    live(wanted.role, "[waiting]", channel, arrange, become_later if enters_netns else become_now)


def _become(wanted: Confinement, socket: _socket.socket, gate_of: GateOf, ground: Ground) -> Becoming:
    """Wait for the message, and become what is left to become."""
    with stage("channel", wanted.role):
        assignment, gifts = _receive(socket)
    given = _numbered(gifts)
    with stage("fork", wanted.role):
        for number, fd in given:
            os.close(number)
            if fd is not None:
                os.dup2(fd, number, inheritable=False)
                os.close(fd)
    set_title(f"cnisandbox: {wanted.role} {assignment.title}")
    refined = _refined(wanted, gifts)._replace(netns_fd=gifts.netns_fd)
    kept = {*CHANNEL_FDS, *(number for number, fd in given if fd is not None)}
    attestation = complete(refined, kept, ground)
    return Becoming(attestation, gate_of(assignment), assignment.subject.is_gate_only)


def _be_told(before: Attestation, socket: _socket.socket, gate_of: GateOf) -> Becoming:
    """Wait for the message, with nothing left to become; of what was attested, only the descriptors can differ then."""
    with stage("channel", before.role):
        # KERNEL: a descriptor gets the lowest number that is free, which is `GIVEN_FD`; the attestation has it.
        assignment, _ = _receive(socket)
    set_title(f"cnisandbox: {before.role} {assignment.title}")
    attestation = before._replace(descriptors=limits.open_descriptors(before.limits["nofile"]))
    return Becoming(attestation, gate_of(assignment), assignment.subject.is_gate_only, before)


def _receive(socket: _socket.socket) -> tuple[Assignment, Gifts]:
    """Wait for the message, and receive the descriptors that it names; the socket is closed then."""
    # No time limit: it waits for a call, for as long as its parent lives.
    space = _socket.CMSG_SPACE(4 * len(Gifts._fields))
    message, ancillary, flags, _ = socket.recvmsg(_MESSAGE_BYTES, space, _socket.MSG_CMSG_CLOEXEC)
    socket.close()
    assignment: Assignment = check(decode(message), Assignment, "assignment")
    named = assignment.gifts
    fds = [fd for _, _, content in ancillary for (fd,) in struct.iter_unpack("i", content)]
    if len(named) != len(Gifts._fields) or sum(named) != len(fds) or flags & _socket.MSG_CTRUNC:
        raise BoundaryViolation("receive descriptors: they are not those that the message names")
    left = iter(fds)
    return assignment, Gifts(*(next(left) if is_given else None for is_given in named))


def _numbered(gifts: Gifts) -> list[tuple[int, int | None]]:
    """Say which numbers the gifts get that a worker keeps."""
    return [(GIVEN_FD, gifts.given_fd), (LOG_FD, gifts.log_fd)]


def _refined(wanted: Confinement, gifts: Gifts) -> Confinement:
    """Add what the call says to a confinement: what is done, and what is expected."""
    return wanted if gifts.log_fd is None else wanted._replace(file_bytes=LOG_FILE_BYTES)

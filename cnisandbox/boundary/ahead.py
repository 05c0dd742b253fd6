"""Workers forked ahead of the call that they are for: confined as far as no call has an influence on it, they wait.

    waiting    the service user, bounding set empty, no privilege to be gained, in its view, under its limits and in its
               Landlock domain; CAP_NET_ADMIN, and CAP_SYS_ADMIN where there is a netns to enter
    told       one message, and descriptors: it enters the netns, then goes through every stage of the drop again, which
               takes the rest, loads the filter, and attests

Nothing of a call is known when they are forked, and each serves one and ends: nothing of one call can reach another.

Privilege: everything, until it waits; then what is said above, until the message comes. The descriptors come over a
socket: a pipe carries none, and to fetch them would take a capability over the parent. Its other end is the parent's,
who is root and has read nothing of anybody else's; it is closed before the netns is entered, out of which no way may
lead back.
"""

import _socket
import os
import struct
from collections.abc import Callable

from cnisandbox.boundary import namespaces, service
from cnisandbox.boundary.confinement import Confinement, Ground, complete, descend, prepare, stage
from cnisandbox.boundary.credentials import CAP_SYS_ADMIN
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
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.wire import Channel, channel_pair, check
from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import NamedTuple

# LIMIT: seconds to take a message of a few kilobytes off a pipe.
_BEGIN_TIMEOUT_S = 10.0


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


class Assignment(NamedTuple):
    """What it is told.

    Attributes:
        gifts: Which of `Gifts` come with it, in that order.
        log_kind: What the audit log is; empty without one.
        is_gate_only: Whether it is a gate from the beginning.
        title: What the process list shows behind the role.
        variables: The parameters of the call.
    """

    gifts: list[bool]
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

    def __init__(
        self,
        pid: int,
        channel: Channel,
        socket: _socket.socket,
        wanted: Confinement,
        own_namespaces: dict[str, int],
    ) -> None:
        self.pid = pid
        self._channel = channel
        self._socket = socket
        self._wanted = wanted
        self._own_namespaces = own_namespaces

    def begin(self, assignment: Assignment, gifts: Gifts, netns_inode: int | None = None) -> Worker:
        """Tell it what it is for; it then confines itself to the end, while we go on.

        Args:
            assignment: What it is told.
            gifts: What it is given; it may be closed here as soon as this returns.
            netns_inode: The netns that it will be in, when that is not ours.

        Raises:
            PrivilegeNotDropped: it has ended.
        """
        fds = [fd for fd in gifts if fd is not None]
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        with stage("channel", self._wanted.role):
            # ORDER: the message wakes it, and then nothing has to be waited for.
            self._socket.sendmsg([b"\0"], rights, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
            self._socket.close()
            self._channel.send(assignment._replace(gifts=[fd is not None for fd in gifts]), _BEGIN_TIMEOUT_S)
        given = [(GIVEN_FD, gifts.given_fd), (LOG_FD, gifts.log_fd)]
        expected = expectation(
            _refined(self._wanted, gifts),
            self._own_namespaces,
            netns_inode,
            os.getpid(),
            given=tuple(number for number, fd in given if fd is not None),
            has_own_pid_namespace=True,
        )
        return Worker(self.pid, self._channel, expected)


def fork_ahead(
    wanted: Confinement,
    own_namespaces: dict[str, int],
    pid_namespaces: namespaces.NewPidNamespaces,
    gate_of: GateOf,
    settle: Settle,
    *,
    enters_netns: bool,
) -> Waiting:
    """Fork a worker that waits.

    Args:
        wanted: What it becomes, as far as that is known; at a level that has all protections.
        own_namespaces: Inode numbers of our own namespaces.
        pid_namespaces: Where pid namespaces come from.
        gate_of: Makes what it does when it is told to be a gate.
        settle: What it does before it confines itself and waits.
        enters_netns: Whether it will be given a netns to enter.

    Raises:
        PrivilegeNotDropped: the stages "channel" or "fork" failed.
    """
    with stage("channel", wanted.role):
        ours, theirs = channel_pair(wanted.role, "engine")
        socket, its_socket = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    with stage("fork", wanted.role):
        try:
            pid = fork_into(pid_namespaces)
            if pid == 0:
                _wait(wanted, theirs, its_socket, gate_of, settle, enters_netns=enters_netns)
        except OSError:
            ours.close()
            socket.close()
            raise
        finally:
            theirs.close()
            its_socket.close()
    return Waiting(pid, ours, socket, wanted, own_namespaces)


def _wait(
    wanted: Confinement,
    channel: Channel,
    socket: _socket.socket,
    gate_of: GateOf,
    settle: Settle,
    *,
    enters_netns: bool,
) -> None:
    """Live as a worker that waits first."""
    # One that is going to write a log may write one; `complete` takes that away where there is none.
    waiting = wanted._replace(file_bytes=LOG_FILE_BYTES)

    def arrange() -> Channel:
        nonlocal socket
        # It also keeps the numbers of what the process may be given from being taken meanwhile.
        reserved = dict.fromkeys((GIVEN_FD, LOG_FD), socket.fileno())
        own, (lifted,) = arrange_descriptors(waiting, channel, reserved, socket.fileno())
        socket = _socket.socket(fileno=lifted)
        return own

    def become(own: Channel) -> Becoming:
        ground = prepare(waiting)
        settle(wanted.role)
        ground = descend(waiting, ground, (CAP_SYS_ADMIN,) if enters_netns else ())
        return _become(wanted, own, socket, gate_of, ground)

    live(wanted.role, "[waiting]", channel, arrange, become)


def _become(wanted: Confinement, channel: Channel, socket: _socket.socket, gate_of: GateOf, ground: Ground) -> Becoming:
    # No time limit: it waits for a call, for as long as its parent lives.
    assignment: Assignment = check(channel.receive(), Assignment, "assignment")
    with stage("channel", wanted.role):
        gifts = _receive(socket, assignment.gifts)
    given = [(GIVEN_FD, gifts.given_fd), (LOG_FD, gifts.log_fd)]
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
    become_gate = gate_of(read_environment(assignment.variables), assignment)
    return Becoming(attestation, become_gate, assignment.is_gate_only)


def _receive(socket: _socket.socket, named: list[bool]) -> Gifts:
    """Receive the descriptors that the message names; the socket is closed then."""
    space = _socket.CMSG_SPACE(4 * len(Gifts._fields))
    _, ancillary, flags, _ = socket.recvmsg(1, space, _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT)
    socket.close()
    fds = [fd for _, _, content in ancillary for (fd,) in struct.iter_unpack("i", content)]
    if len(named) != len(Gifts._fields) or sum(named) != len(fds) or flags & _socket.MSG_CTRUNC:
        raise BoundaryViolation("receive descriptors: they are not those that the message names")
    left = iter(fds)
    return Gifts(*(next(left) if is_given else None for is_given in named))


def _refined(wanted: Confinement, gifts: Gifts) -> Confinement:
    """Add what the call says to a confinement: what is done, and what is expected."""
    return wanted if gifts.log_fd is None else wanted._replace(file_bytes=LOG_FILE_BYTES)

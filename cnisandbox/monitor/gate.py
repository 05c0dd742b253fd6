"""The front end for our own plugins: a worker that has become a gate.

It was confined as a worker at level hardened is: CAP_NET_ADMIN in one netns, the service user, a system call filter, a
Landlock domain, a pid namespace. Now it runs no function of a plugin any more. It sends netlink messages that its peer
has written, if the judge lets them pass, opens sysctls for which there is a permit, and executes nf_tables commands for
tables and chains that are the plugins' own.

Its peer, the engine, may be hostile. What the gate takes from it without a permit are names of links that the netconf
gives, once, at the beginning; which plugin and which attachment it serves it knows from the entry.

Privilege: CAP_NET_ADMIN in its netns.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import errno
import os
import struct

from cnisandbox.audit.log import AuditLog
from cnisandbox.boundary.credentials import CAP_NET_ADMIN
from cnisandbox.boundary.wire import Channel
from cnisandbox.errors import BoundaryViolation, KernelRefused
from cnisandbox.hints import NoReturn
from cnisandbox.light import suppress
from cnisandbox.monitor.client import CHANGE_SYSCTL, NFTABLES, OPEN, READ_SYSCTL, RECEIVE, SEND, WRITE_SYSCTL
from cnisandbox.monitor.sender import deliver
from cnisandbox.monitor.world import KernelWorld
from cnisandbox.netlink.codec import CodecError
from cnisandbox.netlink.datagram import NETLINK_ROUTE
from cnisandbox.netlink.message import NLMSG_ERROR, split_messages
from cnisandbox.nft.connection import rules_of, run_text
from cnisandbox.policy.judge import Judge, LinkFacts, Record, Session, Verdict
from cnisandbox.policy.own import complaint_about_commands, permits_of, sysctls_of
from cnisandbox.sysctl import change_raw, read_raw, write_raw

# What the worker was given: the container's netns, in the host's worker.
_CONTAINER_FD = 3
# LIMIT: a dump's datagram is at most 32 KiB; for 128 KiB the C library would map memory anew at each call.
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 10
# LIMIT: messages whose answers always have room: a dump's takes 36 KiB, and the smallest default buffer has 208.
_FEW = 4
# LIMIT: names of links for one key; the bridge plugin gives four.
_NAMES = 16
_SOL_NETLINK = 270
_OPTIONS = (10, 11, 12)  # NETLINK_CAP_ACK, EXT_ACK, GET_STRICT_CHK


class _GateWorld(KernelWorld):
    """The kernel's state, as far as it can be seen from one netns."""

    def __init__(self, netns: str, attachment: str) -> None:
        super().__init__(_open_socket, {netns: -1, "container": _CONTAINER_FD}, attachment, _netns_of)
        self._own = netns
        with suppress(OSError, KernelRefused):  # now, while nobody waits; if that fails, again when it is needed
            self._asker(netns, NETLINK_ROUTE)

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        """Look at a link of our netns; nothing is known of the other one."""
        return super().link(netns, ifindex, ifname) if netns == self._own else None


def _open_socket(_netns: str, protocol: int) -> int:
    return _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol).detach()


def _netns_of(descriptor: int) -> str | None:
    return "container" if descriptor == _CONTAINER_FD else None


def _rule_at(family: str, table: str, chain: str, handle: int) -> object:
    """Look at what stands in a rule.

    Raises:
        OSError: ENOENT: it is not there (any more).
    """
    for rule in rules_of(family, table, chain) or []:
        if rule["handle"] == handle:
            return rule["expr"]
    # ORDER: refused here, or a number that is given to a rule only from now on would pass.
    raise OSError(errno.ENOENT, f"Error: Could not process rule: {os.strerror(errno.ENOENT)}")


class Gatekeeper:
    """What a worker is that has become a gate: judges what it is asked for, and does what passes.

    Args:
        role, plugin, ifname, names, log: As for `serve`.
    """

    def __init__(self, role: str, plugin: str, ifname: str, names: dict[str, list[str]], log: AuditLog) -> None:
        self._log = log
        self._netns = "container" if role == "container worker" else "host"
        self._may_use_nftables = self._netns == "host" and plugin == "bridge"
        # TRUST: below /proc/sys/net these two stand for every link; the kernel gives no link such a name.
        variables = {
            key: tuple(name for name in values[:_NAMES] if name not in ("all", "default"))
            for key, values in names.items()
        }
        session = Session(plugin, ifname, variables)
        world = _GateWorld(self._netns, ifname)
        self._judge = Judge(permits_of(plugin), sysctls_of(plugin), session, world)
        self._sockets: dict[int, _socket.socket] = {}
        self._unlearned: Verdict | None = None

    def take(self, request: object) -> list[object]:
        """Take the steps of a request, in order, and stop at the first that fails.

        Args:
            request: Of each step: operation, what it is done with, data, tolerated errno.

        Returns:
            What came of each: 0 and its answer; or an errno and a text, in the last or if the step tolerates it.

        Raises:
            BoundaryViolation: it has no known shape.
        """
        if not isinstance(request, list) or len(request) % 4:
            raise BoundaryViolation("ask gate: the request has no known shape")
        outcomes: list[object] = []
        for at in range(0, len(request), 4):
            operation, where, data, tolerated = request[at : at + 4]
            try:
                outcomes += (0, self.answer(operation, where, data))
            except (OSError, KernelRefused) as error:
                number = error.errno or errno.EIO
                outcomes += (number, str(error.strerror if isinstance(error, OSError) else error))
                if number != tolerated:
                    break
        return outcomes

    def answer(self, operation: object, where: object, data: object) -> object:
        """Do what one step of a request says.

        Raises:
            OSError: it was refused, by the judge or by the kernel.
            BoundaryViolation: it has no known shape.
        """
        if self._unlearned is not None:
            self.learn()
        if isinstance(data, bytes):
            if operation == SEND and isinstance(where, int):
                return self._send(where, data)
            if operation in (WRITE_SYSCTL, CHANGE_SYSCTL) and isinstance(where, str):
                self._require_sysctl(where, is_write=True)
                return write_raw(where, data) if operation == WRITE_SYSCTL else change_raw(where, data)
        elif data is None and isinstance(where, int):
            if operation == OPEN:
                return self._open(where)
            if operation == RECEIVE:
                return _receive(self._endpoint(where))
        elif data is None and isinstance(where, str):
            if operation == READ_SYSCTL:
                self._require_sysctl(where, is_write=False)
                return read_raw(where)
            if operation == NFTABLES and self._may_use_nftables:
                return self._run_nftables(where)
        raise BoundaryViolation("ask gate: the request has no known shape")

    def _open(self, protocol: int) -> int:
        if protocol != NETLINK_ROUTE:
            raise OSError(errno.EPERM, f"netlink protocol {protocol}")
        # A new one each time: who opens one again has left answers to the one before.
        endpoint = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        for option in _OPTIONS:
            endpoint.setsockopt(_SOL_NETLINK, option, 1)
        endpoint.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("=qq", _TIMEOUT_S, 0))
        endpoint.bind((0, 0))
        self._sockets[protocol] = endpoint
        return int(endpoint.getsockname()[0])

    def _endpoint(self, protocol: int) -> _socket.socket:
        if protocol not in self._sockets:
            raise BoundaryViolation("ask gate: it has not opened that socket")
        return self._sockets[protocol]

    def _send(self, protocol: int, data: bytes) -> bytes:
        """Send a datagram, if the judge lets it pass.

        Returns:
            What the kernel has answered by then, which is all of it but for a refusal that comes later: its datagrams
            one behind the other, as if they were one.
        """
        verdict = self._judge.judge(self._netns, protocol, data)
        for record in verdict.records:
            self._log.write(record)
        endpoint = self._endpoint(protocol)
        is_making = verdict.is_permitted and self._judge.is_making
        if is_making:
            _require_empty(endpoint)
        deliver(endpoint.fileno(), verdict, 1 << CAP_NET_ADMIN)
        # A lost answer, which the peer cannot bring about with so few, counts as no failure: what may have been made
        # has to be taken back.
        self._unlearned = verdict if len(verdict.records) <= _FEW else None
        answers, is_whole = b"", False
        # Behind a message that is not padded there can be no other.
        while len(answers) < _RECEIVE_BYTES and not len(answers) % 4:
            try:
                answers += _receive(endpoint, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                is_whole = True
                break
        # TRUST: the peer may ask for what the kernel refuses, in order that the link of somebody else, who makes one of
        # that name at the same time, is taken for its own.
        if is_making and not (is_whole and _is_all_done(answers)):
            self._unlearned = None
        return answers

    def learn(self) -> None:
        """Have the judge look at what the last datagram has made, before it judges anything else.

        Raises:
            OSError, KernelRefused: it cannot be seen; the next call looks once more.
        """
        if self._unlearned is not None:
            self._judge.after_send(self._unlearned)
            self._unlearned = None

    def _require_sysctl(self, path: str, *, is_write: bool) -> None:
        record = self._judge.judge_sysctl(self._netns, f"net/{path}", is_write)
        self._log.write(record)
        if not record.permit:
            raise OSError(errno.EACCES, f"net/{path}: {record.reason}")

    def _run_nftables(self, text: str) -> str:
        found = complaint_about_commands(text, _rule_at)
        permit = "" if found else "nf_tables: own tables and chains"
        self._log.write(Record(self._netns, {"type": "nf_tables", "commands": text}, permit, found))
        if found:
            raise OSError(errno.EPERM, f"nf_tables: {found}")
        # What was understood, encoded again: a key that stands twice must not mean another thing to libnftables.
        import json  # noqa: PLC0415 - see cnisandbox/late.py

        return run_text(json.dumps(json.loads(text)))


def _require_empty(endpoint: _socket.socket) -> None:
    """Insist that no answer is waiting, which could be taken for one to what is sent next.

    KERNEL: who has no room for an answer gets none from then on, until all that waits has been read; so none is lost
    in front of one that is there.

    Raises:
        OSError: EBUSY: there is one.
    """
    with suppress(BlockingIOError):
        _receive(endpoint, _socket.MSG_DONTWAIT)
        raise OSError(errno.EBUSY, "answers have not been read")


def _is_all_done(answers: bytes) -> bool:
    """Say whether there are answers, none of which is a failure; the kernel answers each failure, asked to or not."""
    try:
        failures = [type_ == NLMSG_ERROR and any(body[:4]) for (type_, _, _, _), body in split_messages(answers)]
    except CodecError:
        return False
    return bool(failures) and not any(failures)


def _receive(endpoint: _socket.socket, flags: int = 0) -> bytes:
    while True:
        data, _, received, sender = endpoint.recvmsg(_RECEIVE_BYTES, 0, flags)
        if received & _socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "the kernel's answer is too long")
        if sender[0] == 0:  # TRUST: any process of the netns may send to our port; the kernel's port is 0
            return data


def serve(
    channel: Channel, role: str, plugin: str, ifname: str, names: dict[str, list[str]], log: AuditLog | None = None
) -> NoReturn:
    """Be a gate until the peer has gone, or breaks the protocol.

    Args:
        channel: Our end of its pipes.
        role: "host worker" or "container worker".
        plugin: Which plugin is served.
        ifname: CNI_IFNAME.
        names: Netconf key to names of links, as the peer says.
        log: Where judgements are written; None for nowhere.
    """
    gate = Gatekeeper(role, plugin, ifname, names, log or AuditLog(-1, plugin, "", ifname))
    while True:
        try:
            outcomes = gate.take(channel.receive())
        except BoundaryViolation:
            os._exit(2)
        channel.send(outcomes)
        # Now, while the peer is busy; in any case before anything else is judged.
        with suppress(OSError, KernelRefused):
            gate.learn()

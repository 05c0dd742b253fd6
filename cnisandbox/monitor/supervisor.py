"""The front end for foreign programs: answers their system calls, and sends what the judge lets through.

    setns    only noted, per thread; answered with success when the descriptor is one of the two tokens
    socket   made in the netns that the thread believes to be in, and given to the program at number 1000 or above
    openat   of a sysctl: opened in that netns, if a permit says so
    sendto, sendmsg, write, bind   on such a descriptor: copied once, judged, and carried out by us with the copy

Privilege: CAP_NET_ADMIN in the host's netns; the opener has it in the container's.

A number from 1000 on that is none of ours gets EBADF: letting such a call go on would let the program put one of ours
there before the kernel looks.

What the program controls is every argument and all memory that one points to. Nothing of it is read twice, and a call
is never let go on (CONTINUE) when the kernel would judge it by anything but the program's own, empty, credentials.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import errno
import os
import struct

from cnisandbox.audit import AuditLog
from cnisandbox.boundary.seccomp import MEDIATED_FD
from cnisandbox.boundary.syscalls import CLONE_NEWNET, lib
from cnisandbox.hints import NamedTuple
from cnisandbox.monitor import notify
from cnisandbox.monitor.notify import Gone, Listener, Question
from cnisandbox.monitor.opener import SYSCTL_PREFIX, Opener
from cnisandbox.monitor.sender import bind, deliver, netns_inode_of, protocol_of
from cnisandbox.monitor.threads import CONTAINER, HOST, Threads
from cnisandbox.policy.judge import Judge

# Files of the kernel's constants that stand in no view: the clock by which traffic control counts.
READABLE_FILES = ("/proc/net/psched",)
# LIMIT: descriptors of ours that a program has at a time; select(2) takes no number above 1023.
LAST_MEDIATED_FD = 1023

_OPEN_PROCESSES = 8  # LIMIT: a plugin and what it executes; who makes more pays with a system call more

_AF_NETLINK, _AF_PACKET = 16, 17
_KIND_FLAGS = _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
_DATAGRAM_BYTES = 1 << 20  # LIMIT: nft sends its largest batches in pieces that fit a socket's buffer
_PIECES = 64  # LIMIT: of a scattered datagram; libmnl sends one per rule of a transaction
_SYSCTL_BYTES = 4096  # LIMIT: one page, what proc_dostring takes at once
_MSGHDR = struct.Struct("=QIxxxxQQQQi")
_IOVEC = struct.Struct("=QQ")
_SOCKADDR_NL = struct.Struct("=HHII")


class Situation(NamedTuple):
    """What the supervisor works with.

    Attributes:
        openers: By "host" and, where there is one, "container".
        tokens: Inode of a namespace file that the program can open, to the netns that it means.
        inodes: Inode of the real netns, to its name.
        protocols: Netlink protocols that the program may have sockets of.
        is_mediated: Whether what it sends is judged; else it has a capability of its own and sends it itself.
        sysctl_device: Device number of the procfs through which we and the opener open sysctls, and nobody else.
        effective: Mask of our effective capabilities.
    """

    openers: dict[str, Opener]
    tokens: dict[int, str]
    inodes: dict[int, str]
    protocols: frozenset[int]
    is_mediated: bool
    sysctl_device: int
    effective: int


class Supervisor:
    """Answers one foreign program.

    Args:
        listener: Where its calls arrive.
        threads: Where its threads believe to be.
        situation: What there is to work with.
        audit: Where every judgement is written down.
    """

    def __init__(self, listener: Listener, threads: Threads, situation: Situation, audit: AuditLog) -> None:
        self._listener = listener
        self._threads = threads
        self._situation = situation
        self._audit = audit
        self._judge: Judge | None = None
        self._processes: dict[int, int] = {}
        self._asking: Question | None = None
        self._next = 0
        names = {
            "setns": self._setns,
            "socket": self._make_socket,
            "open": self._open,
            "openat": self._open,
            "write": self._write,
            "sendto": self._send,
            "sendmsg": self._send_scattered,
            "bind": self._bind,
        }
        self._handlers = {lib.seccomp_syscall_resolve_name(name.encode()): handler for name, handler in names.items()}
        self._open_number = lib.seccomp_syscall_resolve_name(b"open")

    def judge_by(self, judge: Judge) -> None:
        """Set who decides; until then everything is refused."""
        self._judge = judge

    def answer_until(self, *others: int) -> None:
        """Answer every call, until one of these descriptors has something to say.

        Raises:
            BrokenPipeError: the program has ended.
        """
        self._listener.watch(*others)
        while (question := self._listener.next()) is not None:
            self._asking = question
            try:
                self._handlers[question.number](question)
            except Gone:
                continue
            except OSError as error:
                self._listener.answer(question, error=error.errno or errno.EIO)

    # The netns of the caller.

    def netns_of(self, descriptor: int) -> str | None:
        """Say which netns a descriptor of the program that is asking means."""
        if self._asking is None:
            return None
        try:
            fd = self._copy(self._asking, descriptor)
        except OSError:
            return None
        try:
            return self._situation.tokens.get(os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    def _setns(self, question: Question) -> None:
        kind = question.integer(1)
        netns = self.netns_of(question.integer(0))
        self._listener.require_valid(question)
        if netns is None or kind not in (0, CLONE_NEWNET):
            raise OSError(errno.EPERM, "setns")
        self._threads.enter(question.tid, netns)
        self._listener.answer(question)

    # Descriptors of the program.

    def _copy(self, question: Question, fd: int) -> int:
        """Copy one of the program's descriptors; the process is the one that asks, checked by its question."""
        tgid = self._threads.process_of(question.tid)
        for is_last_try in (False, True):
            if tgid not in self._processes:
                if len(self._processes) == _OPEN_PROCESSES:
                    os.close(self._processes.pop(next(iter(self._processes))))
                self._processes[tgid] = notify.open_process(tgid)
            try:
                copied = notify.copy_descriptor(self._processes[tgid], fd)
            except ProcessLookupError:  # an earlier process of that number
                os.close(self._processes.pop(tgid))
                if is_last_try:
                    raise
            else:
                self._listener.require_valid(question)
                return copied
        raise Gone

    def _free_number(self, question: Question) -> int:
        """Find a number for a gift.

        The program can use the number itself before we do; then it loses its own descriptor.
        """
        count = LAST_MEDIATED_FD + 1 - MEDIATED_FD
        for _ in range(count):
            # Round and round: the next one is free, most of the time, and each that is not costs a look.
            number, self._next = MEDIATED_FD + self._next, (self._next + 1) % count
            try:
                os.close(self._copy(question, number))
            except OSError as error:
                if error.errno == errno.EBADF:
                    return number
                raise
        raise OSError(errno.EMFILE, "descriptors")

    def _give(self, question: Question, fd: int, number: int, *, is_inherited: bool) -> None:
        try:
            self._listener.require_valid(question)
            self._listener.give(question, fd, number, is_inherited=is_inherited)
        finally:
            os.close(fd)

    # Making things.

    def _make_socket(self, question: Question) -> None:
        domain, kind, protocol = question.integer(0), question.integer(1), question.integer(2)
        netns = self._threads.netns_of(question.tid)
        if domain == _AF_NETLINK:
            if not self._situation.is_mediated and netns == HOST:
                # The kernel judges by the program's own capability, in the netns that it really stands in.
                self._listener.go_on(question)
                return
            if protocol not in self._situation.protocols:
                raise OSError(errno.EPERM, "socket")
        elif domain != _AF_PACKET or netns != CONTAINER:
            raise OSError(errno.EPERM, "socket")
        fd = self._opener(netns).open_socket(domain, kind & ~_socket.SOCK_CLOEXEC, protocol)
        is_judged = self._situation.is_mediated and domain == _AF_NETLINK
        number = self._free_number(question) if is_judged else 0
        self._give(question, fd, number, is_inherited=not kind & _socket.SOCK_CLOEXEC)

    def _opener(self, netns: str) -> Opener:
        opener = self._situation.openers.get(netns)
        if opener is None:
            raise OSError(errno.EPERM, netns)
        return opener

    def _open(self, question: Question) -> None:
        first = 0 if question.number == self._open_number else 1
        path, flags = notify.read_path(question, question.args[first]), question.integer(first + 1)
        netns = self._threads.netns_of(question.tid)
        if path in READABLE_FILES and flags & os.O_ACCMODE == os.O_RDONLY:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._give(question, fd, 0, is_inherited=not flags & os.O_CLOEXEC)
            return
        if not path.startswith(SYSCTL_PREFIX):
            # The kernel judges by the program's own credentials, in the view that it really has.
            self._listener.go_on(question)
            return
        is_write = flags & os.O_ACCMODE != os.O_RDONLY
        if self._situation.is_mediated:
            self._require_sysctl(netns, path, is_write)
        fd = self._opener(netns).open_sysctl(path, flags & os.O_ACCMODE)
        number = self._free_number(question) if is_write and self._situation.is_mediated else 0
        self._give(question, fd, number, is_inherited=not flags & os.O_CLOEXEC)

    def _require_sysctl(self, netns: str, path: str, is_write: bool) -> None:
        if self._judge is None:
            raise OSError(errno.EACCES, path)
        record = self._judge.judge_sysctl(netns, path.removeprefix("/proc/sys/"), is_write)
        self._audit.write(record)
        if not record.permit:
            raise OSError(errno.EACCES, path)

    # Sending.

    def _write(self, question: Question) -> None:
        fd = self._copy(question, question.integer(0))
        try:
            if (protocol := protocol_of(fd)) is not None:
                self._judge_and_send(question, fd, protocol, notify.read_memory(question, *self._extent(question, 1)))
            elif os.fstat(fd).st_dev == self._situation.sysctl_device:
                # Nobody but us opens files of that procfs for it, and for writing only sysctls that a permit names.
                data = notify.read_memory(question, question.args[1], min(question.args[2], _SYSCTL_BYTES))
                self._listener.require_valid(question)
                self._listener.answer(question, os.write(fd, data))
            else:
                raise OSError(errno.EBADF, "descriptor")
        finally:
            os.close(fd)

    def _send(self, question: Question) -> None:
        fd = self._copy(question, question.integer(0))
        try:
            protocol = self._protocol_of(fd)
            self._require_kernel(question, question.args[4], question.args[5])
            self._judge_and_send(question, fd, protocol, notify.read_memory(question, *self._extent(question, 1)))
        finally:
            os.close(fd)

    def _send_scattered(self, question: Question) -> None:
        fd = self._copy(question, question.integer(0))
        try:
            protocol = self._protocol_of(fd)
            header = notify.read_memory(question, question.args[1], _MSGHDR.size)
            name, name_length, pieces_at, count, _, control_length, _ = _MSGHDR.unpack(header)
            if control_length or count > _PIECES:
                raise OSError(errno.EPERM, "sendmsg")
            self._require_kernel(question, name, name_length)
            extents = list(_IOVEC.iter_unpack(notify.read_memory(question, pieces_at, count * _IOVEC.size)))
            if sum(size for _, size in extents) > _DATAGRAM_BYTES:
                raise OSError(errno.EMSGSIZE, "sendmsg")
            data = b"".join(notify.read_memory(question, address, size) for address, size in extents)
            self._judge_and_send(question, fd, protocol, data)
        finally:
            os.close(fd)

    def _protocol_of(self, fd: int) -> int:
        protocol = protocol_of(fd)
        if protocol is None:
            raise OSError(errno.EBADF, "descriptor")
        return protocol

    def _extent(self, question: Question, first: int) -> tuple[int, int]:
        address, size = question.args[first], question.args[first + 1]
        if size > _DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, "datagram")
        return address, size

    def _require_kernel(self, question: Question, address: int, length: int) -> None:
        """Insist that a message is for the kernel: another address is a process, which may be anybody's."""
        if not address or not length:
            return
        if length < _SOCKADDR_NL.size:
            raise OSError(errno.EINVAL, "address")
        family, _, port, groups = _SOCKADDR_NL.unpack(notify.read_memory(question, address, _SOCKADDR_NL.size))
        if family != _AF_NETLINK or port or groups:
            raise OSError(errno.EPERM, "address")

    def _judge_and_send(self, question: Question, fd: int, protocol: int, data: bytes) -> None:
        netns = self._situation.inodes.get(netns_inode_of(fd))
        if netns is None or self._judge is None:
            raise OSError(errno.EPERM, "send")
        verdict = self._judge.judge(netns, protocol, data)
        for record in verdict.records:
            self._audit.write(record)
        self._listener.require_valid(question)
        deliver(fd, verdict, self._situation.effective)
        if verdict.is_permitted:
            self._judge.after_send(verdict)
        self._listener.answer(question, len(data))

    def _bind(self, question: Question) -> None:
        fd = self._copy(question, question.integer(0))
        try:
            self._protocol_of(fd)
            length = question.integer(2)
            if length < _SOCKADDR_NL.size:
                raise OSError(errno.EINVAL, "bind")
            address = notify.read_memory(question, question.args[1], _SOCKADDR_NL.size)
            family, _, port, groups = _SOCKADDR_NL.unpack(address)
            if family != _AF_NETLINK or groups:  # a group of the host's netns tells what happens there
                raise OSError(errno.EPERM, "bind")
            self._listener.require_valid(question)
            bind(fd, port)
            self._listener.answer(question)
        finally:
            os.close(fd)

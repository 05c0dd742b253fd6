"""A route netlink socket: requests out, answers matched and checked, the kernel's refusals as errors.

Several requests may go out in one send. The kernel works through them in order and within the send, goes on after one
that failed, and answers every failure, whether an acknowledgement was asked for or not, before it turns to the next
request (netlink_rcv_skb). So only the last one asks: when its answer is there, no answer to another one is missing. A
request to get an object does not ask, since its answer is the object or the failure.

Answers do not get lost unnoticed: one that the kernel had no memory or no room for makes the next recvmsg fail with
ENOBUFS, before that hands out any other (netlink_ack, netlink_overrun, __skb_try_recv_datagram). EINTR alone has no
answer, asked for or not: the kernel means a dump by it. Other handlers wait for their locks whatever signal comes, or
until one comes that ends the process; a driver that lets itself be interrupted is beyond what can be seen here.

System calls: socket, setsockopt, bind, getsockname, sendto, recvmsg, getpid. No ioctl (a Python socket with a timeout
would use FIONBIO), so the timeout is SO_RCVTIMEO.

Source: netlink(7), rtnetlink(7); net/netlink/af_netlink.c, net/core/rtnetlink.c, Linux 6.1.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import errno
import os
import struct
from collections.abc import Mapping, Sequence

from cnisandbox.errors import KernelRefused
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.monitor.client import GateSocket, current
from cnisandbox.netlink.codec import Attributes, CodecError, Table
from cnisandbox.netlink.message import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_NOOP,
    Message,
    decode_messages,
    encode_request,
)
from cnisandbox.netlink.tables import ROUTE_ANSWERS, ROUTE_TABLES

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12

# LIMIT: a dump's datagram is at most 32 KiB, a link with many VFs may take more; for 128 KiB the C library would map
# memory anew at each call, which takes longer than most answers.
RECEIVE_BYTES = 1 << 16
MAX_BATCH = 32  # LIMIT: so many answers fit into the smallest default receive buffer (208 KiB)
MAX_DUMP_TRIES = 16  # LIMIT: NLM_F_DUMP_INTR again and again means churn that more tries will not outrun
DEFAULT_TIMEOUT_S = 10  # LIMIT: the kernel answers within send(); more means that the answer was lost

_GET = 2  # rtnetlink: the last two bits of a type


class Request(NamedTuple):
    """One thing that is asked of the kernel.

    Attributes:
        operation: Verb and kind for an error's text, such as "create link".
        target: What it is about, for the same.
        type: Such as RTM_NEWLINK.
        header: Every field of the family's header.
        attributes: By name.
        flags: Besides NLM_F_REQUEST, NLM_F_ACK and NLM_F_DUMP.
        tolerated: Errnos that are an answer and not a failure.
    """

    operation: str
    target: str
    type: int
    header: dict[str, int]
    attributes: Attributes
    flags: int = 0
    tolerated: tuple[int, ...] = ()


class Answer(NamedTuple):
    """What came of one request.

    Attributes:
        errno: 0, or a positive errno.
        details: The kernel's own explanation (extended acknowledgement), or "".
        messages: The objects that it sent.
    """

    errno: int
    details: str
    messages: list[Message]


class NetlinkSocket:
    """A NETLINK_ROUTE socket in the netns that the calling thread stands in.

    It is not for several threads. After a failure that leaves answers in doubt (timeout, overrun, malformed) it is
    closed, and every later use fails with EBADF.

    Args:
        timeout_s: Longest wait for one datagram.

    Raises:
        KernelRefused: The kernel gives no such socket.
    """

    def __init__(self, timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        gate = current()
        try:
            self._socket = _kernel_socket(timeout_s) if gate is None else GateSocket(gate, NETLINK_ROUTE)
            self._port = self._socket.getsockname()[0]
        except OSError as error:
            raise KernelRefused("open socket", "netlink route", error.errno or 0) from None
        self._sequence = 0

    @property
    def is_closed(self) -> bool:
        return self._socket.fileno() < 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def let_go(self) -> None:
        """Forget the socket, in a fork: its number may stand for something else there, which is not to be closed."""
        self._socket.detach()

    def exchange(self, requests: Sequence[Request], tables: Mapping[int, Table] = ROUTE_ANSWERS) -> list[Answer]:
        """Send requests and collect the answer of each; dumps cannot be among them.

        Args:
            requests: In the order in which the kernel is to work through them.
            tables: How much is read of the messages that it answers with, by their types.

        Returns:
            One answer per request, in order; failed ones are answers too.

        Raises:
            KernelRefused: A request could not be sent, or the answers did not arrive whole.
        """
        answers: list[Answer] = []
        for start in range(0, len(requests), MAX_BATCH):
            answers += self._exchange_batch(requests[start : start + MAX_BATCH], tables)
        return answers

    def execute(self, requests: Sequence[Request], tables: Mapping[int, Table] = ROUTE_ANSWERS) -> list[Answer]:
        """Send requests, as `exchange` does, and insist that each succeeds, or fails with an errno that it tolerates.

        The kernel has carried out the others also when this raises.

        Raises:
            KernelRefused: The first failure, in the order of the requests.
        """
        answers = self.exchange(requests, tables)
        for request, answer in zip(requests, answers, strict=True):
            if answer.errno and answer.errno not in request.tolerated:
                raise refusal(request, answer)
        return answers

    def dump(self, request: Request) -> list[Message]:
        """Ask for all objects that match; again, when they changed meanwhile.

        Returns:
            One message per object; none if it failed with an errno that the request tolerates.

        Raises:
            KernelRefused: The kernel refused, or was interrupted 16 times in a row (EINTR).
        """
        for _ in range(MAX_DUMP_TRIES):
            messages, is_interrupted = self._dump_once(request)
            if not is_interrupted:
                return messages
        raise KernelRefused(
            request.operation, request.target, errno.EINTR, "the objects change faster than they are read"
        )

    def _exchange_batch(self, requests: Sequence[Request], tables: Mapping[int, Table]) -> list[Answer]:
        count, is_get = len(requests), requests[-1].type & 3 == _GET
        first = self._send(requests, 0 if is_get else NLM_F_ACK)
        failures: dict[int, tuple[int, str]] = {}
        found: dict[int, list[Message]] = {}
        at = 0  # the first request that may still be answered
        while at < count:
            for message in self._receive(requests[0], tables):
                index = (message.sequence - first) & 0xFFFFFFFF
                if not at <= index < count:
                    self._fail(requests[0], errno.EBADMSG, f"an answer to request {message.sequence} was not awaited")
                at = index
                if message.type == NLMSG_ERROR:
                    failures[index] = -message.header["error"], _details(message)
                    at += 1
                else:
                    found.setdefault(index, []).append(message)
                    at += is_get and at == count - 1
        for index, request in enumerate(requests):
            if request.type & 3 == _GET and index not in found and index not in failures:
                self._fail(request, errno.EBADMSG, "the kernel did not answer")
        return [Answer(*failures.get(index, (0, "")), found.get(index, [])) for index in range(count)]

    def _dump_once(self, request: Request) -> tuple[list[Message], bool]:
        sequence = self._send([request], NLM_F_DUMP)
        messages: list[Message] = []
        is_interrupted = False
        while True:
            for message in self._receive(request, ROUTE_ANSWERS):
                if message.sequence != sequence:
                    self._fail(request, errno.EBADMSG, f"an answer to request {message.sequence} was not awaited")
                is_interrupted = is_interrupted or bool(message.flags & NLM_F_DUMP_INTR)
                if message.type not in (NLMSG_ERROR, NLMSG_DONE):
                    messages.append(message)
                    continue
                error = -message.header["error"]
                if error and error not in request.tolerated:
                    raise refusal(request, Answer(error, _details(message), []))
                return ([] if error else messages), is_interrupted

    def _send(self, requests: Sequence[Request], flags: int) -> int:
        """Send requests in one datagram, the last one with these flags; returns the sequence number of the first."""
        sequence = first = (self._sequence + 1) & 0xFFFFFFFF
        data = b""
        for request in requests[:-1]:
            data += _encode(request, 0, sequence)
            sequence = (sequence + 1) & 0xFFFFFFFF
        data += _encode(requests[-1], flags, sequence)
        try:
            self._socket.sendto(data, (0, 0))
        except OSError as error:
            self._fail(requests[0], error.errno or 0, "netlink send")
        # ORDER: behind a send that has succeeded, for what is sent to a gate ahead is sent once more, with its number.
        self._sequence = sequence
        self._port = self._port or self._socket.getsockname()[0]  # a gate's is known from now on
        return first

    def _receive(self, request: Request, tables: Mapping[int, Table]) -> list[Message]:
        """Receive one datagram; what did not come from the kernel is dropped."""
        try:
            data, _, flags, sender = self._socket.recvmsg(RECEIVE_BYTES)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                self._fail(request, errno.ETIMEDOUT, "the kernel did not answer")
            self._fail(request, error.errno or 0, "netlink receive")
        if sender[0] != 0:  # TRUST: any process of the netns may send to our port; the kernel's port is 0
            return []
        if flags & _socket.MSG_TRUNC:
            self._fail(request, errno.EMSGSIZE, "the answer is too long")
        try:
            messages = decode_messages(data, tables)
        except CodecError as error:
            self._fail(request, errno.EBADMSG, f"the kernel's answer: {error}")
        found = []
        for message in messages:
            if message.port != self._port:
                self._fail(request, errno.EBADMSG, f"an answer for port {message.port}")
            if message.type != NLMSG_NOOP:
                found.append(message)
        return found

    def _fail(self, request: Request, number: int, details: str) -> NoReturn:
        self.close()  # ORDER: what is still on its way must not be taken for the answer to a later request
        raise KernelRefused(request.operation, request.target, number, details)


def _kernel_socket(timeout_s: int) -> _socket.socket:
    endpoint = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
        endpoint.setsockopt(SOL_NETLINK, option, 1)
    endpoint.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("=qq", timeout_s, 0))
    endpoint.bind((0, 0))
    return endpoint


class _Opened(NamedTuple):
    pid: int
    socket: NetlinkSocket


_opened: dict[int, _Opened] = {}  # by the gate that it goes through; 0 for none


def route_socket() -> NetlinkSocket:
    """Give this process its socket, opened on first use.

    A forked child gets one of its own: sharing the parent's would mix their answers.

    Order: a worker must have entered its netns before, since the socket belongs to the one in which it was opened.
    """
    key = _key()
    opened = _opened.get(key)
    if opened is None or opened.pid != os.getpid() or opened.socket.is_closed:
        close_route_socket()
        _opened[key] = opened = _Opened(os.getpid(), NetlinkSocket())
    return opened.socket


def close_route_socket() -> None:
    """Close this process's socket, or forget the parent's; the next use opens a new one."""
    opened = _opened.pop(_key(), None)
    if opened is not None and opened.pid != os.getpid():
        opened.socket.let_go()
    elif opened is not None:
        opened.socket.close()


def _key() -> int:
    gate = current()
    return 0 if gate is None else id(gate)


def refusal(request: Request, answer: Answer) -> KernelRefused:
    """Make the error that says which request the kernel refused."""
    return KernelRefused(request.operation, request.target, answer.errno, answer.details)


def _encode(request: Request, flags: int, sequence: int) -> bytes:
    operation, target, type_, header, attributes, own, _ = request
    try:
        return encode_request(type_, NLM_F_REQUEST | flags | own, sequence, header, attributes, ROUTE_TABLES)
    except CodecError as error:
        raise KernelRefused(operation, target, errno.EINVAL, f"not sent: {error}") from None


def _details(message: Message) -> str:
    text = message.attributes.get("message", "")
    return f"kernel: {text}" if text else ""

"""The netlink socket against a kernel that misbehaves, played by a script."""

import _socket
import errno
import os
import struct
from unittest.mock import ANY

import pytest

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink import transport
from cnisandbox.netlink.message import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    decode_messages,
    encode_message,
)
from cnisandbox.netlink.tables import ROUTE_TABLES
from cnisandbox.netlink.tables.link import LINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK
from cnisandbox.netlink.transport import MAX_BATCH, NetlinkSocket, Request

HEADER = dict.fromkeys(LINK.header.fields, 0)
PORT = 4242


class Kernel:
    """Plays the socket: takes what is sent, and answers with what `answer` makes of each request."""

    def __init__(self, answer):
        self.answer = answer
        self.sent = []
        self.waiting = []
        self.is_open = True

    def sendto(self, data, address):
        assert address == (0, 0)
        requests = decode_messages(data, ROUTE_TABLES)
        self.sent.append(requests)
        for request in requests:
            self.waiting += self.answer(request)

    def recvmsg(self, size):
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        item = self.waiting.pop(0)
        if isinstance(item, OSError):
            raise item
        return item if isinstance(item, tuple) else (item, [], 0, (0, 0))

    def fileno(self):
        return 3 if self.is_open else -1

    def close(self):
        self.is_open = False


def socket_of(answer):
    made = NetlinkSocket.__new__(NetlinkSocket)
    made._socket = Kernel(answer)
    made._port = PORT
    made._sequence = 0
    return made, made._socket


def ask(target="x", tolerated=()):
    return Request("get link", target, RTM_GETLINK, HEADER, {"ifname": target}, 0, tolerated)


def link(request, flags=0, **changes):
    message = Message(RTM_NEWLINK, flags, request.sequence, PORT, HEADER, {"ifname": "x"})
    return encode_message(message._replace(**changes), ROUTE_TABLES)


def ack(request, number=0, text="", **changes):
    flags = NLM_F_CAPPED | (NLM_F_ACK_TLVS if text else 0)
    header = {"error": -number, "length": 16, "type": 18, "flags": 5, "sequence": request.sequence, "port": 0}
    message = Message(NLMSG_ERROR, flags, request.sequence, PORT, header, {"message": text} if text else {})
    return encode_message(message._replace(**changes), ROUTE_TABLES)


def change(target="x"):
    return Request("change link", target, RTM_SETLINK, HEADER, {"ifname": target})


def asked(sequence):
    return Message(RTM_GETLINK, NLM_F_REQUEST, sequence, 0, HEADER, {})


def quiet(request, number=0):
    """Answer as the kernel does: with the object, with a failure, or when it is asked to acknowledge."""
    found = [link(request)] if request.type == RTM_GETLINK and not number else []
    return [*found, ack(request, number)] if number or request.flags & NLM_F_ACK else found


def done(request, number=0, flags=NLM_F_MULTI):
    return encode_message(Message(NLMSG_DONE, flags, request.sequence, PORT, {"error": -number}, {}), ROUTE_TABLES)


def test_answers_are_matched_by_sequence():
    made, kernel = socket_of(lambda request: [link(request)])
    answers = made.exchange([ask("a"), ask("b"), ask("c")])
    assert [(answer.errno, len(answer.messages)) for answer in answers] == [(0, 1)] * 3
    assert [request.sequence for request in kernel.sent[0]] == [1, 2, 3]


def test_acknowledgement_is_asked_for_by_the_last_request_unless_it_is_to_get_an_object():
    made, kernel = socket_of(quiet)
    changed, found = (0, "", []), (0, "", [ANY])
    assert made.exchange([change(), ask(), change(), change()]) == [changed, found, changed, changed]
    assert made.exchange([change(), ask()]) == [changed, found]
    assert [request.flags for request in kernel.sent[0]] == [NLM_F_REQUEST] * 3 + [NLM_F_REQUEST | NLM_F_ACK]
    assert [request.flags for request in kernel.sent[1]] == [NLM_F_REQUEST] * 2
    assert kernel.waiting == []


@pytest.mark.parametrize("place", range(4))
def test_failure_of_any_request_in_a_batch_is_its_own(place):
    requests = [change("a"), ask("b"), change("c"), change("d")]
    made, _ = socket_of(lambda request: quiet(request, errno.EBUSY if request.sequence == place + 1 else 0))
    answers = made.exchange(requests)
    assert [answer.errno for answer in answers] == [errno.EBUSY if at == place else 0 for at in range(4)]
    made, _ = socket_of(lambda request: quiet(request, errno.EBUSY if request.sequence == place + 1 else 0))
    with pytest.raises(KernelRefused, match=f" {'abcd'[place]}: "):
        made.execute(requests)


def test_get_that_is_not_answered_before_the_last_request_is_in_doubt():
    made, _ = socket_of(lambda request: quiet(request) if request.sequence == 3 else [])
    with pytest.raises(KernelRefused, match="get link b: bad message") as caught:
        made.exchange([change("a"), ask("b"), change("c")])
    assert caught.value.details == "the kernel did not answer"
    assert made.is_closed


@pytest.mark.parametrize("late", [1, 2])
def test_answer_behind_that_of_a_later_request_is_in_doubt(late):
    made, kernel = socket_of(lambda request: [])
    kernel.waiting = [ack(asked(3)) + ack(asked(late), errno.EPERM)]
    with pytest.raises(KernelRefused, match="bad message") as caught:
        made.exchange([change(), change(), change()])
    assert caught.value.details == f"an answer to request {late} was not awaited"
    assert made.is_closed


def test_sequence_numbers_wrap_around():
    made, kernel = socket_of(lambda request: [link(request)])
    made._sequence = 2**32 - 2
    assert [answer.errno for answer in made.exchange([ask(), ask(), ask()])] == [0, 0, 0]
    assert [request.sequence for request in kernel.sent[0]] == [2**32 - 1, 0, 1]


def test_batch_is_cut_so_that_its_answers_fit():
    made, kernel = socket_of(lambda request: [link(request)])
    assert len(made.exchange([ask()] * (2 * MAX_BATCH + 1))) == 2 * MAX_BATCH + 1
    assert [len(requests) for requests in kernel.sent] == [MAX_BATCH, MAX_BATCH, 1]


def test_first_refusal_is_raised_with_the_kernels_words():
    numbers = {"a": 0, "b": errno.EEXIST, "c": errno.EINVAL, "d": errno.ENODEV}

    def answer(request):
        number = numbers[request.attributes["ifname"]]
        return [ack(request, number, "because") if number else link(request)]

    made, _ = socket_of(answer)
    with pytest.raises(KernelRefused, match="get link c: invalid argument") as caught:
        made.execute([ask("a"), ask("b", (errno.EEXIST,)), ask("c"), ask("d")])
    assert (caught.value.errno, caught.value.details) == (errno.EINVAL, "kernel: because")
    assert [answer.errno for answer in made.exchange([ask("a"), ask("b")])] == [0, errno.EEXIST]


def test_acknowledgement_that_repeats_the_request_is_read():
    request = encode_message(Message(RTM_GETLINK, 5, 1, 0, HEADER, {"ifname": "abcdefg"}), ROUTE_TABLES)

    def answer(_):
        text = b"words\0"
        attribute = struct.pack("=HH", 4 + len(text), 1) + text + b"\0\0"
        body = struct.pack("=i", -errno.EPERM) + request + attribute
        return [struct.pack("=IHHII", 16 + len(body), NLMSG_ERROR, NLM_F_ACK_TLVS, 1, PORT) + body]

    made, _ = socket_of(answer)
    (found,) = made.exchange([ask()])
    assert (found.errno, found.details) == (errno.EPERM, "kernel: words")


def test_what_another_process_sends_is_dropped():
    made, _ = socket_of(lambda request: [(ack(request, errno.EPERM), [], 0, (77, 0)), ack(request)])
    assert made.exchange([ask()])[0].errno == 0


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (lambda request: [], errno.ETIMEDOUT),
        (lambda request: [OSError(errno.ENOBUFS, "overrun")], errno.ENOBUFS),
        (lambda request: [(ack(request), [], _socket.MSG_TRUNC, (0, 0))], errno.EMSGSIZE),
        (lambda request: [ack(request)[:-1]], errno.EBADMSG),
        (lambda request: [ack(request, port=PORT + 1)], errno.EBADMSG),
        (lambda request: [ack(request, sequence=request.sequence + 1)], errno.EBADMSG),
        (lambda request: [link(request, sequence=0)], errno.EBADMSG),
        (lambda request: [b"\x10\0\0\0\x0f\x27\0\0" + b"\0" * 8], errno.EBADMSG),
    ],
)
def test_answer_in_doubt_ends_the_socket(answer, number):
    made, kernel = socket_of(answer)
    with pytest.raises(KernelRefused) as caught:
        made.exchange([ask()])
    assert caught.value.errno == number
    assert made.is_closed
    made, kernel = socket_of(answer)
    with pytest.raises(KernelRefused):
        made.dump(ask())
    assert not kernel.is_open


def test_request_that_cannot_be_encoded_is_not_sent():
    made, kernel = socket_of(lambda request: [])
    with pytest.raises(KernelRefused, match="invalid argument") as caught:
        made.exchange([ask(), ask()._replace(attributes={"mtu": -1})])
    assert "not sent: mtu" in caught.value.details
    assert kernel.sent == []


def test_dump_collects_over_datagrams():
    made, kernel = socket_of(lambda request: [link(request) + link(request), link(request), done(request)])
    assert len(made.dump(ask())) == 3
    assert kernel.sent[0][0].flags & NLM_F_DUMP == NLM_F_DUMP


def test_interrupted_dump_is_read_to_its_end_and_repeated():
    tries = []

    def answer(request):
        tries.append(request.sequence)
        flags = NLM_F_DUMP_INTR if len(tries) < 3 else 0
        return [link(request, flags), link(request), done(request)]

    made, kernel = socket_of(answer)
    assert len(made.dump(ask())) == 2
    assert tries == [1, 2, 3]
    assert kernel.waiting == []


def test_dump_that_is_always_interrupted_gives_up():
    made, kernel = socket_of(lambda request: [done(request, flags=NLM_F_DUMP_INTR)])
    with pytest.raises(KernelRefused) as caught:
        made.dump(ask())
    assert caught.value.errno == errno.EINTR
    assert len(kernel.sent) == transport.MAX_DUMP_TRIES


@pytest.mark.parametrize("end", [ack, done])
def test_refused_dump_is_an_error_or_empty(end):
    made, _ = socket_of(lambda request: [end(request, errno.ENOENT)])
    with pytest.raises(KernelRefused, match="no such file"):
        made.dump(ask())
    assert made.dump(ask(tolerated=(errno.ENOENT,))) == []


def test_forked_child_opens_a_socket_of_its_own(world):
    def ports():
        mine = transport.route_socket()
        again = transport.route_socket()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, str(transport.route_socket()._port).encode())
            os._exit(0)
        os.waitpid(child, 0)
        theirs = int(os.read(reader, 20))
        transport.close_route_socket()
        return mine is again, mine._port, theirs, mine.is_closed

    is_same, mine, theirs, is_closed = world.call(ports)
    assert is_same
    assert mine != theirs
    assert is_closed


def test_forked_child_closes_nothing_that_has_the_number_of_its_parents_socket(world):
    def answers():
        inherited = transport.route_socket()._socket.fileno()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open("/dev/null", os.O_WRONLY), inherited)  # as who closes all that is not kept
            transport.route_socket()
            os.write(writer, os.readlink(f"/proc/self/fd/{inherited}").encode())
            os._exit(0)
        os.waitpid(child, 0)
        return os.read(reader, 20).decode()

    assert world.call(answers) == "/dev/null"


def test_forked_child_without_its_parents_socket_opens_one(world):
    def status():
        inherited = transport.route_socket()._socket.fileno()
        child = os.fork()
        if child == 0:
            os.close(inherited)
            transport.route_socket()
            os._exit(0)
        return os.waitpid(child, 0)[1]

    assert world.call(status) == 0


def test_forged_answer_of_a_neighbour_is_ignored(world):
    def attack():
        made = NetlinkSocket()
        attacker = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
        header = dict.fromkeys(("length", "type", "flags", "sequence", "port"), 0)
        header["error"] = -errno.EPERM
        forged = encode_message(Message(NLMSG_ERROR, NLM_F_CAPPED, 1, made._port, header, {}), ROUTE_TABLES)
        attacker.sendto(forged, (made._port, 0))
        (answer,) = made.exchange([ask("lo")])
        return answer.errno, answer.messages[0].attributes["ifname"]

    assert world.call(attack) == (0, "lo")

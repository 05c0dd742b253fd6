"""What the monitor sends in place of a program's datagrams does to the kernel what the datagrams themselves do.

    tools.txt ──┬── as recorded ────────────────── world 1 ── answers, state ──┐
                └── decoded and encoded again ──── world 2 ── answers, state ──┴── equal, after every datagram

The state is read by netlink and decoded with the same tables, which tests them with the kernel's own messages too.
"""

import socket
import struct
from typing import Any

from cnisandbox.netlink.datagram import (
    MESSAGE_NAMES,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
    message_name,
)
from cnisandbox.netlink.message import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    decode_messages,
)
from cnisandbox.netlink.tables import address, link, neighbour, netfilter, route, rule, traffic
from cnisandbox.netlink.tables.monitored import NETFILTER_TABLES, ROUTE_TABLES
from tests.unit.netlink_corpus import recorded
from tests.world import World, new_world

AF_UNSPEC, AF_INET, AF_INET6, AF_BRIDGE = 0, 2, 10, 7
NFT = 10 << 8
GETTABLE, GETCHAIN, GETRULE, GETSET, GETSETELEM, GETGEN, GETOBJ = (NFT + at for at in (1, 4, 7, 10, 13, 16, 19))
BATCH_WITH_GENERATION = struct.pack("=IH", 28, netfilter.NFNL_MSG_BATCH_BEGIN)
CHOSEN_ADDRESSES = "02:00:00:00:00:"  # of the commands that were recorded
DUMPS = [
    (NETLINK_ROUTE, link.RTM_GETLINK, AF_UNSPEC),
    (NETLINK_ROUTE, address.RTM_GETADDR, AF_INET),
    (NETLINK_ROUTE, route.RTM_GETROUTE, AF_INET),
    (NETLINK_ROUTE, rule.RTM_GETRULE, AF_INET),
    (NETLINK_ROUTE, rule.RTM_GETRULE, AF_INET6),
    (NETLINK_ROUTE, traffic.RTM_GETQDISC, AF_UNSPEC),
    (NETLINK_ROUTE, neighbour.RTM_GETNEIGH, AF_BRIDGE),
    *((NETLINK_NETFILTER, type_, AF_UNSPEC) for type_ in (GETTABLE, GETCHAIN, GETRULE, GETSET, GETOBJ)),
]
TABLES = {NETLINK_ROUTE: ROUTE_TABLES, NETLINK_NETFILTER: NETFILTER_TABLES}
# Differs between two runs of the same: random, counted, timed, or settled a moment later.
VOLATILE = {
    *("address", "perm_address", "lladdr", "root_id", "bridge_id", "group_address"),
    *("stats", "stats2", "xstats", "cacheinfo", "carrier", "carrier_changes", "carrier_up_count", "carrier_down_count"),
    *("operstate", "gc_timer", "hello_timer", "tcn_timer", "topology_change_timer", "topology_change", "af_spec"),
    *("message_age_timer", "forward_delay_timer", "hold_timer", "state", "config_pending", "unknown", "expiration"),
    *("topology_change_detected", "root_port", "bytes", "packets", "pcnt"),
}
STABLE_FLAGS = {link.RTM_NEWLINK: link.IFF_UP | link.IFF_PROMISC | link.IFF_ALLMULTI | 0x80 | 0x1000}


class Replay:
    """Sends datagrams in one netns and says what came of each."""

    def __init__(self) -> None:
        self.sockets = {}
        for protocol in (NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC):
            self.sockets[protocol] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
            self.sockets[protocol].bind((0, 0))
        self.query = {}
        for protocol in (NETLINK_ROUTE, NETLINK_NETFILTER):
            self.query[protocol] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
            self.query[protocol].bind((0, 0))

    def answers(self, sender: socket.socket, data: bytes) -> list[bytes]:
        """Send and read all that comes; the kernel answers before send returns, a dump goes on at each recv."""
        try:
            sender.send(data)
        except OSError as error:
            return [b"errno %d" % error.errno]
        received = []
        while True:
            try:
                received.append(sender.recv(1 << 18, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return received

    def errors(self, protocol: int, data: bytes) -> list[tuple[int, int]]:
        """Send and list (sequence, errno) of what the kernel says about it."""
        found = []
        if protocol == NETLINK_NETFILTER and data.startswith(BATCH_WITH_GENERATION):
            data = data[:24] + self.generation() + data[28:]
        for answer in self.answers(self.sockets[protocol], data):
            if answer.startswith(b"errno"):
                return [(0, int(answer[6:]))]
            for length, type_, sequence, at in split(answer):
                if type_ in (NLMSG_ERROR, NLMSG_DONE) and length >= 20:
                    found.append((sequence, -struct.unpack_from("=i", answer, at + 16)[0]))
        return found

    def generation(self) -> bytes:
        """Read the number of the rule set, which a batch may name and which is another one in every run."""
        request = Message(GETGEN, NLM_F_REQUEST, 1, 0, dict.fromkeys(("family", "version", "res_id"), 0), {})
        data = encode_datagram(NETLINK_NETFILTER, [request])
        (answer,) = self.answers(self.query[NETLINK_NETFILTER], data)
        return decode_messages(answer, NETFILTER_TABLES)[0].attributes["id"].to_bytes(4, "big")

    def state(self) -> list[Any]:
        """Read links, addresses, routes, rules, qdiscs and the rule set."""
        found = []
        for protocol, type_, family in DUMPS:
            messages = self.dump(protocol, type_, {"family": family}, {})
            if type_ == neighbour.RTM_GETNEIGH:  # the others are the kernel's own, of random addresses
                chosen = (one for one in messages if one.attributes["lladdr"].startswith(CHOSEN_ADDRESSES))
                messages = sorted(chosen, key=lambda one: repr(stable(one)))
            found += [(type_, stable(message)) for message in messages]
            if type_ == traffic.RTM_GETQDISC:
                for one in messages:
                    if one.attributes["kind"] == "ingress":
                        selector = {"ifindex": one.header["ifindex"], "parent": one.header["handle"]}
                        filters = self.dump(protocol, traffic.RTM_GETTFILTER, selector, {})
                        found += [(traffic.RTM_GETTFILTER, stable(message)) for message in filters]
            if type_ == GETSET:
                for one in messages:
                    selector = {"table": one.attributes["table"], "set": one.attributes["name"]}
                    elements = self.dump(protocol, GETSETELEM, {"family": one.header["family"]}, selector)
                    found += sorted(((GETSETELEM, stable(message)) for message in elements), key=repr)
        return found

    def dump(self, protocol: int, type_: int, header: dict[str, int], attributes: dict[str, Any]) -> list[Message]:
        fields = dict.fromkeys(TABLES[protocol][type_].header.fields, 0) | header
        request = Message(type_, NLM_F_REQUEST | NLM_F_DUMP, 1, 0, fields, attributes)
        answers = self.answers(self.query[protocol], encode_datagram(protocol, [request]))
        messages = [message for answer in answers for message in decode_messages(answer, TABLES[protocol])]
        assert messages[-1].type == NLMSG_DONE, messages[-1]
        return messages[:-1]


def split(data: bytes) -> list[tuple[int, int, int, int]]:
    """List (length, type, sequence, offset) of the messages, with nothing of the package."""
    found = []
    offset = 0
    while offset < len(data):
        length, type_, _, sequence = struct.unpack_from("=IHHI", data, offset)
        found.append((length, type_, sequence, offset))
        offset += (length + 3) & ~3
    return found


def stable(message: Message) -> Any:
    flags = message.header.get("flags", 0) & STABLE_FLAGS.get(message.type, 0)
    # Of a qdisc the kernel chooses the handle, and in a rule set's messages "res_id" is its generation.
    header = {**message.header, "flags": flags, "handle": 0, "res_id": 0}
    return pruned({"header": header, **message.attributes})


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        # A set has its elements in an order of its own.
        return {
            name: sorted(pruned(item), key=repr) if name == "elements" else pruned(item)
            for name, item in value.items()
            if name not in VOLATILE
        }
    return [pruned(item) for item in value] if isinstance(value, list) else value


def replay(datagrams: list[tuple[int, bytes]]) -> list[tuple[Any, str]]:
    """Send datagrams; after each, (its errors, the state as text)."""
    kernel = Replay()
    return [(kernel.errors(protocol, data), repr(kernel.state())) for protocol, data in datagrams]


def encoded_again(protocol: int, data: bytes) -> bytes:
    return encode_datagram(protocol, decode_datagram(protocol, data))


def test_the_kernel_takes_what_is_encoded_again_as_it_takes_the_original(world: World) -> None:
    corpus = [(one.protocol, one.data) for one in recorded("tools")]
    again = [(protocol, encoded_again(protocol, data)) for protocol, data in corpus]
    assert sum(data != original for (_, data), (_, original) in zip(again, corpus, strict=True)) > 100
    originals = world.call(replay, corpus, timeout=60)
    with new_world() as other:
        results = other.call(replay, again, timeout=60)
    accepted = set()
    for (protocol, data), original, result in zip(corpus, originals, results, strict=True):
        messages = decode_datagram(protocol, data)
        names = [message_name(protocol, message) for message in messages]
        assert result == original, (names, messages)
        if all(error == 0 for _, error in original[0]):
            accepted.update(names)
    assert {"RTM_NEWLINK", "RTM_SETLINK", "RTM_NEWROUTE", "RTM_NEWRULE", "RTM_NEWQDISC", "RTM_NEWTFILTER"} <= accepted
    assert {"NFT_MSG_NEWRULE", "NFT_MSG_NEWSETELEM", "NFT_MSG_NEWOBJ", "NFT_MSG_DELRULE"} <= accepted
    assert accepted <= MESSAGE_NAMES


def test_the_kernel_undoes_a_batch_without_an_end(world: World) -> None:
    """So it may pass when its messages may: `nft --check` tries a batch like this."""
    header = {"family": AF_UNSPEC, "version": 0, "res_id": 10}
    marks = (netfilter.NFNL_MSG_BATCH_BEGIN, netfilter.NFNL_MSG_BATCH_END)
    begin, end = (Message(type_, NLM_F_REQUEST, 1, 0, header, {}) for type_ in marks)
    of_ip = {"family": AF_INET, "version": 0, "res_id": 0}
    table = Message(NFT, NLM_F_REQUEST | NLM_F_ACK, 2, 0, of_ip, {"name": "tried"})

    def tables_after(*messages: Message) -> list[str]:
        kernel = Replay()
        errors = kernel.errors(NETLINK_NETFILTER, encode_datagram(NETLINK_NETFILTER, messages))
        assert {number for _, number in errors} <= {0}
        tables = kernel.dump(NETLINK_NETFILTER, GETTABLE, {"family": AF_UNSPEC}, {})
        return [message.attributes["name"] for message in tables]

    assert world.call(tables_after, begin, table) == []
    assert world.call(tables_after, begin, table, end) == ["tried"]

"""What CAP_NET_ADMIN is for in netfilter: firewall, masquerading, accounting. Each with its judge."""

import errno
import json
import os
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import observe, raw
from cnisandbox.laboratory.attacker.capabilities import missing
from cnisandbox.laboratory.attacker.knowledge import Facts
from cnisandbox.laboratory.attacker.netadmin import in_fresh_netns

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 16, 17
_NF_TABLES, _ACCT = 10 << 8, 7 << 8
_NEWTABLE, _NEWCHAIN, _NEWRULE, _GETRULE = (_NF_TABLES | number for number in (0, 3, 6, 7))
_NEW = raw.NLM_F_CREATE | raw.NLM_F_ACK
_NESTED = 0x8000
_NFPROTO_INET, _TABLE, _CHAIN = 1, "cni_plugins_masquerade", "escape"
_COUNTER, _COUNTED = "escape", 909
_DROP, _MASQUERADE = "immediate", "masq"
_ACCT_NEW, _ACCT_GET, _ACCT_GET_CTRZERO = _ACCT, _ACCT | 1, _ACCT | 2
_ACCT_NAME, _ACCT_PKTS, _ACCT_BYTES = 1, 2, 3
_IPT_TABLE, _IPT_SO_SET_REPLACE, _IPT_SO_GET_INFO, _IPT_SO_GET_ENTRIES = b"filter".ljust(32, b"\0"), 64, 64, 65
_IPT_VERDICT_OFFSET, _IPT_DROP = 112 + 32, -1

# A subsystem of nfnetlink, a family, an expression or table, a range of socket options that the kernel does not have.
_ABSENT = (errno.EINVAL, errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT)

# What is given in place of what an attacker knows.
_NO_FACTS = Facts({})


def _header(family: int = socket.AF_INET, resource: int = 0) -> bytes:
    return struct.pack(">BBH", family, 0, resource)


def _big(kind: int, value: int) -> bytes:
    return raw.attribute(kind, struct.pack(">I", value))


def _nested(kind: int, *parts: bytes) -> bytes:
    return raw.attribute(kind | _NESTED, b"".join(parts))


def _transact(*messages: tuple[int, bytes]) -> None:
    """Send messages of nf_tables as one transaction, and read what each came to."""
    channel = raw.Netlink(_NETLINK_NETFILTER)
    begin, end = ((kind, _header(0, 10), 0) for kind in (_BATCH_BEGIN, _BATCH_END))
    batch = (begin, *((*message, _NEW) for message in messages), end)
    data = b""
    for sequence, (kind, body, flags) in enumerate(batch):
        data += struct.pack("=IHHII", 16 + len(body), kind, flags | raw.NLM_F_REQUEST, sequence, 0) + body
    channel.socket.send(data)
    for _ in messages:
        (number,) = struct.unpack_from("=i", channel.socket.recv(1 << 16), 16)
        if number:
            raise OSError(-number, os.strerror(-number))


def _add_table(expression: bytes, chain_type: str, hook: int) -> None:
    """Make a table with one chain and one rule: the table that a profile is the likeliest to let a plugin make."""
    header, table = _header(_NFPROTO_INET), raw.attribute(1, _TABLE)
    hooked = _nested(4, _big(1, hook), _big(2, 0))
    chain = table + raw.attribute(3, _CHAIN) + hooked + raw.attribute(7, chain_type)
    rule = table + raw.attribute(2, _CHAIN) + _nested(4, _nested(1, expression))
    _transact((_NEWTABLE, header + table), (_NEWCHAIN, header + chain), (_NEWRULE, header + rule))


def drop_packets(facts: Facts) -> None:
    """Have every packet dropped that comes in."""
    drop = _nested(2, _nested(2, _big(1, 0)))
    _add_table(raw.attribute(1, _DROP) + _nested(2, _big(1, 0), drop), "filter", 1)


def masquerade(facts: Facts) -> None:
    """Have every packet leave with another source address."""
    _add_table(raw.attribute(1, _MASQUERADE) + _nested(2), "nat", 4)


def drop_packets_of_host(facts: Facts) -> None:
    """Have the host drop every packet; by commands for its bridges' table where nobody takes messages."""
    place = {"family": "bridge", "table": "nat"}
    own = "cni-br-iface-escape"
    base = {"name": "PREROUTING", "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept"}
    _by_messages_or_commands(
        drop_packets,
        {"table": {"family": "bridge", "name": "nat"}},
        {"chain": {**place, **base}},
        {"chain": {**place, "name": own}},
        {"rule": {**place, "chain": own, "expr": [{"drop": None}]}},
        {"rule": {**place, "chain": base["name"], "expr": [{"jump": {"target": own}}]}},
    )


def masquerade_host(facts: Facts) -> None:
    """Have every packet leave the host with another source address; by commands where nobody takes messages."""
    name = "cnisandbox_masquerade"
    place = {"family": "inet", "table": name}
    base = {"name": "postrouting", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    _by_messages_or_commands(
        masquerade,
        {"table": {"family": "inet", "name": name}},
        {"chain": {**place, **base}},
        {"rule": {**place, "chain": base["name"], "expr": [{"masquerade": None}]}},
    )


def _by_messages_or_commands(send_messages: Callable[[Facts], None], *commands: dict[str, object]) -> None:
    try:
        send_messages(_NO_FACTS)
    except OSError as refusal:
        text = json.dumps({"nftables": [{"add": command} for command in commands]})
        try:
            raw.run_nftables(text)
        except OSError as error:
            raise (refusal if error.errno == errno.ENOSYS else error) from None


def _has_rule(netns: str, expression: str, arena: "Arena") -> bool:
    """Say whether a rule of a netns, which had none, holds an expression."""
    bodies = observe.dump(arena, _GETRULE, _header(0), netns, _NETLINK_NETFILTER)
    return any(expression.encode() + b"\0" in body for body in bodies)


def drops_packets(netns: str, arena: "Arena") -> bool:
    return _has_rule(netns, _DROP, arena)


def masquerades(netns: str, arena: "Arena") -> bool:
    return _has_rule(netns, _MASQUERADE, arena)


def lacks_nftables() -> str:
    """Name the option without which there is no nf_tables."""
    return missing("CONFIG_NF_TABLES_INET", lambda: in_fresh_netns(lambda: drop_packets(_NO_FACTS)), *_ABSENT)


def lacks_masquerading() -> str:
    """Name the option without which nf_tables masquerades nothing."""
    return missing("CONFIG_NFT_MASQ", lambda: in_fresh_netns(lambda: masquerade(_NO_FACTS)), *_ABSENT)


# iptables, as it was before nf_tables


def _iptables_state(channel: socket.socket) -> tuple[bytes, bytes]:
    """Read the table `filter`: struct ipt_getinfo, and its entries."""
    info = _ask_iptables(channel, _IPT_SO_GET_INFO, _IPT_TABLE + bytes(52))
    (size,) = struct.unpack_from("=I", info, 80)
    return info, _ask_iptables(channel, _IPT_SO_GET_ENTRIES, _IPT_TABLE + struct.pack("=I4x", size) + bytes(size))[40:]


def _ask_iptables(channel: socket.socket, option: int, request: bytes) -> bytes:
    """Ask for what getsockopt() writes over the request."""
    memory, length = raw.buffer(request), raw.buffer(struct.pack("=I", len(request)))
    raw.syscall("getsockopt", channel.fileno(), socket.SOL_IP, option, memory, length)
    return memory.raw


def replace_iptables(facts: Facts) -> None:
    """Have the policy of INPUT be DROP. An ordinary UDP socket will do: no CAP_NET_RAW."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    info, entries = _iptables_state(channel)
    hooks, input_policy, number = info[32:76], struct.unpack_from("=I", info, 60)[0], info[76:80]
    changed = bytearray(entries)
    struct.pack_into("=i", changed, input_policy + _IPT_VERDICT_OFFSET, _IPT_DROP)
    counters = raw.buffer(16 * struct.unpack("=I", number)[0])
    replacement = _IPT_TABLE + hooks[:4] + number + struct.pack("=I", len(entries)) + hooks[4:] + number
    replacement += struct.pack("=Q", raw.address(counters)) + bytes(changed)
    channel.setsockopt(socket.SOL_IP, _IPT_SO_SET_REPLACE, replacement)


def has_iptables_policy(netns: str, arena: "Arena") -> bool:
    def verdict() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            info, entries = _iptables_state(channel)
        (input_policy,) = struct.unpack_from("=I", info, 60)
        return int(struct.unpack_from("=i", entries, input_policy + _IPT_VERDICT_OFFSET)[0])

    return observe.within(arena, netns, verdict) == _IPT_DROP


def lacks_iptables() -> str:
    """Name the option without which there is no iptables but that of nf_tables."""
    return missing("CONFIG_IP_NF_FILTER", lambda: in_fresh_netns(lambda: replace_iptables(_NO_FACTS)), *_ABSENT)


# Accounting


def count_packets(netns: str, arena: "Arena") -> None:
    """Scene: a netns has a counter of the accounting subsystem, and it has counted."""
    observe.within(arena, netns, _add_counter)


def _add_counter() -> None:
    counted = raw.attribute(_ACCT_PKTS, struct.pack(">Q", _COUNTED)) + raw.attribute(_ACCT_BYTES, bytes(8))
    channel = raw.Netlink(_NETLINK_NETFILTER)
    channel.request(_ACCT_NEW, _header(0) + raw.attribute(_ACCT_NAME, _COUNTER) + counted, _NEW | raw.NLM_F_EXCL)
    channel.close()


def clear_counters(facts: Facts) -> None:
    """Read every counter, and have it begin at nothing."""
    raw.Netlink(_NETLINK_NETFILTER).request(_ACCT_GET_CTRZERO, _header(0), raw.NLM_F_DUMP)


def has_cleared_counters(netns: str, arena: "Arena") -> bool:
    (body,) = observe.dump(arena, _ACCT_GET, _header(0), netns, _NETLINK_NETFILTER)
    return raw.attributes(body[4:])[_ACCT_PKTS] == bytes(8)


def lacks_counters() -> str:
    """Name the option without which nothing is accounted."""
    return missing("CONFIG_NETFILTER_NETLINK_ACCT", lambda: in_fresh_netns(_add_counter), *_ABSENT)

"""What foreign programs send: recorded datagrams, and made ones that two readers could understand differently."""

import struct
from functools import cache

import pyroute2.netlink.rtnl as rtnl_constants
import pytest
from pyroute2.netlink.generic import ethtool
from pyroute2.netlink.nfnetlink import nfctsocket, nftsocket
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from cnisandbox.netlink.codec import HEADER, UNKNOWN, CodecError
from cnisandbox.netlink.datagram import (
    MAX_DATAGRAM,
    MAX_MESSAGES,
    MESSAGE_NAMES,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
    has_path,
    message_name,
    protocol_of,
    unknown_paths,
)
from cnisandbox.netlink.message import split_messages
from cnisandbox.netlink.tables import generic
from cnisandbox.netlink.tables.monitored import NETFILTER_NAMES, NETFILTER_TABLES, ROUTE_NAMES, ROUTE_TABLES
from tests.unit.netlink_corpus import recorded

NESTED, NET_BYTEORDER = 0x8000, 0x4000
REQUEST, DUMP = 1, 0x300
NEWLINK, GETLINK, SETLINK, GETADDR, NEWTFILTER = 16, 18, 19, 22, 44
NFT, CONNTRACK = 10 << 8, 1 << 8
NEWRULE, NEWSET, NEWSETELEM = NFT + 6, NFT + 9, NFT + 12
BATCH_BEGIN, BATCH_END = 16, 17
FAMILIES = {22: "ethtool"}
CORPUS = [one for name in ("plugins", "tools") for one in recorded(name)]


def attribute(type_, payload):
    """An attribute, made with nothing of the package."""
    return struct.pack("=HH", 4 + len(payload), type_) + payload + b"\0" * (-len(payload) % 4)


def nest(*types):
    """Attributes within each other, the innermost empty."""
    data = b""
    for type_ in reversed(types):
        data = attribute(type_, data)
    return data


def message(type_, body, flags=REQUEST):
    return struct.pack("=IHHII", 16 + len(body), type_, flags, 7, 0) + body


def ifinfomsg(family=0, ifindex=0):
    return struct.pack("=BBHiII", family, 0, 0, ifindex, 0, 0)


def nfgenmsg(family=2, res_id=0):
    return struct.pack(">BBH", family, 0, res_id)


def decode_one(protocol, data):
    (decoded,) = decode_datagram(protocol, data, FAMILIES)
    return decoded


# --- recorded ---


@pytest.mark.parametrize("name", ["plugins", "tools"])
def test_every_recorded_datagram_is_understood(name):
    for one in recorded(name):
        decoded = decode_datagram(one.protocol, one.data)
        assert [unknown_paths(message) for message in decoded] == [[]] * len(decoded), one
        again = encode_datagram(one.protocol, decoded)
        assert decode_datagram(one.protocol, again) == decoded
        assert encode_datagram(one.protocol, decode_datagram(one.protocol, again)) == again


def test_what_is_recorded_is_what_plugins_need():
    seen = {message_name(one.protocol, part) for one in CORPUS for part in decode_datagram(one.protocol, one.data)}
    assert seen >= {
        f"RTM_{verb}{what}" for verb in ("NEW", "DEL", "GET") for what in ("LINK", "ROUTE", "RULE", "QDISC")
    }
    assert seen >= {"RTM_SETLINK", "RTM_NEWADDR", "RTM_NEWTFILTER", "IPCTNL_MSG_CT_GET", "IPCTNL_MSG_CT_DELETE"}
    assert seen >= {"NFT_MSG_NEWRULE", "NFT_MSG_DELRULE", "NFNL_MSG_COMPAT_GET", "NFNL_MSG_BATCH_BEGIN"}
    origins = {one.origin.partition("-")[0] for one in recorded("plugins")}
    assert origins >= {"bridge", "ptp", "macvlan", "portmap", "firewall", "bandwidth", "tuning", "sbr", "loopback"}


@cache
def oracle(protocol, type_):
    """pyroute2's class for a message; None where it has none, or one that cannot read it."""
    if protocol == NETLINK_ROUTE:
        return MarshalRtnl.msg_map.get(type_)
    if protocol == NETLINK_NETFILTER and type_ >> 8 == 1:
        return nfctsocket.nfct_msg
    by_object = {
        "TABLE": nftsocket.nft_table_msg,
        "CHAIN": nftsocket.nft_chain_msg,
        "RULE": nftsocket.nft_rule_msg,
        "SETELEM": nftsocket.nft_set_elem_list_msg,
        "FLOWTABLE": nftsocket.nft_flowtable_msg,
    }
    name = NETFILTER_NAMES.get(type_, "") if protocol == NETLINK_NETFILTER else ""
    return by_object.get(name.removeprefix("NFT_MSG_")[3:])


def as_pyroute2_reads(cls, data):
    theirs = cls(data)
    theirs.decode()
    return plain(theirs)


NOT_COMPARED = {"attrs", "header", "res1", "res2"}  # the kernel does not look at what is reserved in fib_rule_hdr
GIVEN_UP = {"TCA_OPTIONS"}  # it leaves bytes where it has no class for a kind, or one that expects more


def is_raw(item):
    return isinstance(item, bytes | str)


def plain(value):
    """Values and names only: no lengths, no flag bits, nothing of where it stood."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        fields = {name: plain(item) for name, item in value.items() if name not in NOT_COMPARED}
        cells = [(cell[0], plain(cell[1])) for cell in value.get("attrs", ())]
        return fields, sorted((name, repr(item)) for name, item in cells if not (name in GIVEN_UP and is_raw(item)))
    return value


def test_pyroute2_reads_the_same_from_what_is_encoded_again():
    compared = set()
    for one in CORPUS:
        decoded = decode_datagram(one.protocol, one.data)
        again = encode_datagram(one.protocol, decoded)
        offset = 0
        for part, (_, body) in zip(decoded, split_messages(again), strict=True):
            original = one.data[offset:]
            length = int.from_bytes(original[:4], "little")
            offset += (length + 3) & ~3
            cls = oracle(one.protocol, part.type)
            if cls is None or not part.attributes:
                continue
            ours = message(part.type, body, part.flags)
            assert as_pyroute2_reads(cls, ours) == as_pyroute2_reads(cls, original[:length]), part
            compared.add(message_name(one.protocol, part))
    assert len(compared) > 30


# --- names ---


def test_names_are_those_of_the_kernels_headers():
    for type_, name in ROUTE_NAMES.items():
        assert getattr(rtnl_constants, name, type_) == type_, name
    for type_, name in NETFILTER_NAMES.items():
        module = nftsocket if name.startswith("NFT_MSG_") else nfctsocket
        assert getattr(module, name, type_ & 0xFF) == type_ & 0xFF, name
    for command, (name, _) in generic.FAMILIES["ethtool"].items():
        assert getattr(ethtool, name, command) == command, name


def test_every_message_has_one_name_and_one_protocol():
    names = [*ROUTE_NAMES.values(), *NETFILTER_NAMES.values()]
    names += [name for commands in generic.FAMILIES.values() for name, _ in commands.values()]
    assert sorted(names) == sorted(MESSAGE_NAMES)
    assert ROUTE_NAMES.keys() == ROUTE_TABLES.keys()
    assert NETFILTER_NAMES.keys() == NETFILTER_TABLES.keys()
    assert protocol_of("RTM_NEWLINK") == NETLINK_ROUTE
    assert protocol_of("IPCTNL_MSG_CT_DELETE") == NETLINK_NETFILTER
    assert protocol_of("ETHTOOL_MSG_STRSET_GET") == NETLINK_GENERIC
    with pytest.raises(KeyError):
        protocol_of("RTM_NEWNOTHING")


def test_no_attribute_is_called_as_what_is_not_one():
    tables = [*ROUTE_TABLES.values(), *NETFILTER_TABLES.values()]
    tables += [table for commands in generic.FAMILIES.values() for _, table in commands.values()]
    for table in tables:
        assert not {HEADER, UNKNOWN} & table.by_name.keys()
        assert len(table.by_name) == len(table.by_number)


@pytest.mark.parametrize(
    ("name", "path", "is_there"),
    [
        ("RTM_NEWLINK", "ifname", True),
        ("RTM_NEWLINK", "linkinfo.data.peer.net_ns_fd", True),
        ("RTM_NEWLINK", "linkinfo.data.peer.linkinfo.data.mode", True),
        ("RTM_NEWLINK", "linkinfo.data.*", True),
        ("RTM_NEWLINK", "ifname.*", False),
        ("RTM_NEWLINK", "linkinfo.data.pear", False),
        ("RTM_NEWLINK", "linkinfo.pear.mode", False),
        ("RTM_NEWLINK", "af_spec.vlan_info", False),
        ("RTM_SETLINK", "af_spec.vlan_info.vid", True),
        ("RTM_NEWROUTE", "multipath.gateway", True),
        ("RTM_NEWTFILTER", "options.actions.options.parms.ifindex", True),
        ("RTM_NEWTFILTER", "options.sel.keys", True),
        ("NFT_MSG_NEWRULE", "expressions.data.data.verdict.chain", True),
        ("NFT_MSG_NEWRULE", "expressions.data.expressions.data.**", True),
        ("NFT_MSG_NEWSETELEM", "elements.data.verdict.chain", True),
        ("IPCTNL_MSG_CT_DELETE", "tuple_orig.ip.v4_src", True),
        ("ETHTOOL_MSG_STRSET_GET", "link.dev_name", True),
        ("ETHTOOL_MSG_WOL_SET", "modes", False),
    ],
)
def test_paths_of_permits_are_looked_up(name, path, is_there):
    assert has_path(name, path) is is_there


# --- strictness ---

IFNAME = attribute(3, b"eth0\0")
MALFORMED = {
    "empty": (0, b""),
    "too-large": (0, message(NEWLINK, ifinfomsg() + attribute(200, b"")) + bytes(MAX_DATAGRAM)),
    "too-many": (0, message(NEWLINK, ifinfomsg()) * (MAX_MESSAGES + 1)),
    "unknown-protocol": (4, message(20, bytes(64))),
    "unknown-type": (0, message(9999, bytes(16))),
    "noop": (0, message(1, b"")),
    "error": (0, message(2, bytes(20))),
    "done": (0, message(3, bytes(4))),
    "length-too-small": (0, struct.pack("=IHHII", 15, NEWLINK, 1, 7, 0) + ifinfomsg()),
    "length-too-large": (0, struct.pack("=IHHII", 33, NEWLINK, 1, 7, 0) + ifinfomsg()),
    "header-too-short": (0, message(NEWLINK, ifinfomsg()[:12])),
    "bytes-behind": (0, message(NEWLINK, ifinfomsg()) + b"\1\0\0\0"),
    "zeros-then-a-message": (0, message(NEWLINK, ifinfomsg()) + bytes(16) + message(17, ifinfomsg())),
    "bytes-behind-the-attributes": (0, message(NEWLINK, ifinfomsg() + IFNAME + b"\0\0")),
    "attribute-too-long": (0, message(NEWLINK, ifinfomsg() + struct.pack("=HH", 9, 3) + b"eth0")),
    "attribute-twice": (0, message(NEWLINK, ifinfomsg() + IFNAME + attribute(3, b"lo\0"))),
    "attribute-twice-with-flag": (0, message(NEWLINK, ifinfomsg() + attribute(18, b"") + attribute(18 | NESTED, b""))),
    "net-byteorder": (0, message(NEWLINK, ifinfomsg() + attribute(4 | NET_BYTEORDER, bytes(4)))),
    "net-byteorder-nested": (0, message(NEWLINK, ifinfomsg() + attribute(18 | NESTED | NET_BYTEORDER, b""))),
    "nested-leaf": (0, message(NEWLINK, ifinfomsg() + attribute(4 | NESTED, bytes(4)))),
    "nul-within": (0, message(NEWLINK, ifinfomsg() + attribute(3, b"a\0b\0"))),
    "two-nuls": (0, message(NEWLINK, ifinfomsg() + attribute(3, b"eth0\0\0"))),
    "too-long-a-name": (0, message(NEWLINK, ifinfomsg() + attribute(3, b"a" * 16))),
    "too-wide-a-number": (0, message(NEWLINK, ifinfomsg() + attribute(4, bytes(8)))),
    "ematch-of-another-number": (
        0,
        message(NEWTFILTER, bytes(20) + attribute(1, b"basic\0") + nest(2, 2, 2, 2)),
    ),
    "action-numbers-with-a-gap": (
        0,
        message(NEWTFILTER, bytes(20) + attribute(1, b"u32\0") + attribute(2, attribute(7, attribute(2, b"")))),
    ),
    "fewer-keys-than-counted": (
        0,
        message(
            NEWTFILTER,
            bytes(20) + attribute(1, b"u32\0") + attribute(2, attribute(5, b"\0\0\2" + bytes(13) + bytes(16))),
        ),
    ),
    "33-actions": (
        0,
        message(
            NEWTFILTER,
            bytes(20)
            + attribute(1, b"u32\0")
            + attribute(2, attribute(7, b"".join(attribute(number, b"") for number in range(1, 34)))),
        ),
    ),
    "expression-of-another-number": (12, message(NEWRULE, nfgenmsg() + nest(4, 2, 1))),
    "end-alone": (12, message(BATCH_END, nfgenmsg(0, 10))),
    "end-then-more": (
        12,
        message(BATCH_BEGIN, nfgenmsg(0, 10)) + message(BATCH_END, nfgenmsg(0, 10)) + message(NEWRULE, nfgenmsg()),
    ),
    "more-then-begin": (
        12,
        message(NEWRULE, nfgenmsg()) + message(BATCH_BEGIN, nfgenmsg(0, 10)) + message(BATCH_END, nfgenmsg(0, 10)),
    ),
    "two-batches": (12, (message(BATCH_BEGIN, nfgenmsg(0, 10)) + message(BATCH_END, nfgenmsg(0, 10))) * 2),
    "batch-of-another-subsystem": (12, message(BATCH_BEGIN, nfgenmsg(0, 1)) + message(BATCH_END, nfgenmsg(0, 1))),
    "other-subsystem-in-a-batch": (
        12,
        message(BATCH_BEGIN, nfgenmsg(0, 10)) + message(CONNTRACK, nfgenmsg()) + message(BATCH_END, nfgenmsg(0, 10)),
    ),
    "unknown-family": (16, message(23, b"\1\1\0\0")),
    "unknown-command": (16, message(16, b"\x63\1\0\0")),
    "no-command": (16, message(16, b"")),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_could_be_understood_differently_is_malformed(name):
    with pytest.raises(CodecError):
        decode_datagram(*MALFORMED[name], FAMILIES)


def test_nested_attributes_are_understood_with_and_without_the_flag():
    info = attribute(1, b"veth")
    plain_ = decode_one(0, message(NEWLINK, ifinfomsg() + attribute(18, info)))
    flagged = decode_one(0, message(NEWLINK, ifinfomsg() + attribute(18 | NESTED, info)))
    assert plain_ == flagged
    written = encode_datagram(0, [plain_])
    assert written == message(NEWLINK, ifinfomsg() + attribute(18 | NESTED, attribute(1, b"veth\0")))


def test_what_is_between_fields_and_attributes_is_written_as_zeros():
    dirty = struct.pack("=BBHiII", 0, 0xFF, 0, 0, 0, 0) + attribute(3, b"lo\0").replace(b"lo\0\0", b"lo\0\xff")
    decoded = decode_one(0, message(NEWLINK, dirty))
    assert encode_datagram(0, [decoded]) == message(NEWLINK, ifinfomsg() + attribute(3, b"lo\0"))


def test_zeros_behind_the_last_message_are_no_message():
    alone = message(GETLINK, ifinfomsg())
    for tail in (bytes(3), bytes(16), bytes(128)):
        assert decode_datagram(0, alone + tail) == decode_datagram(0, alone)


@pytest.mark.parametrize("body", [b"\2", b"\2\0\0\0", b"\2" + bytes(15)], ids=["rtgenmsg", "padded", "ifinfomsg"])
def test_a_dump_of_a_family_gets_the_header_of_its_type(body):
    decoded = decode_one(0, message(GETADDR, body, REQUEST | DUMP))
    assert decoded.header == {"family": 2, "prefixlen": 0, "flags": 0, "scope": 0, "ifindex": 0}
    assert encode_datagram(0, [decoded]) == message(GETADDR, b"\2" + bytes(7), REQUEST | DUMP)


@pytest.mark.parametrize(("body", "flags"), [(b"\2", REQUEST), (b"\2\1\0\0", REQUEST | DUMP)])
def test_only_a_dump_of_a_family_may_have_another_header(body, flags):
    with pytest.raises(CodecError, match="bytes where 8 belong"):
        decode_one(0, message(GETADDR, body, flags))


# --- what decides how something is read ---


def test_data_of_an_unknown_kind_is_unknown():
    info = attribute(1, b"wireguard\0") + attribute(2, attribute(1, bytes(4)))
    decoded = decode_one(0, message(NEWLINK, ifinfomsg() + attribute(18, info) + attribute(200, b"x")))
    assert decoded.attributes["linkinfo"] == {"kind": "wireguard", "data": {"unknown": [(1, bytes(4))]}}
    assert unknown_paths(decoded) == ["linkinfo.data.unknown.1", "unknown.200"]


def test_unknown_attributes_are_found_in_lists():
    action = attribute(1, attribute(1, b"mirred\0") + attribute(2, attribute(9 | NESTED, b"")))
    options = attribute(1, b"u32\0") + attribute(2, attribute(7, action))
    decoded = decode_one(0, message(NEWTFILTER, bytes(20) + options))
    assert unknown_paths(decoded) == ["options.actions.options.unknown.9"]


@pytest.mark.parametrize("type_", [NEWLINK, SETLINK])
def test_the_family_decides_only_where_it_does_for_the_kernel(type_):
    spec = attribute(26, attribute(2, struct.pack("=HH", 4, 1)))
    decoded = decode_one(0, message(type_, ifinfomsg(family=7) + spec))
    of_bridge = {"vlan_info": [{"flags": 4, "vid": 1}]}
    assert decoded.attributes["af_spec"] == (of_bridge if type_ == SETLINK else {"inet": {"conf": b""}})


def test_what_stands_further_out_selects_nothing():
    expression = attribute(2 | NESTED, attribute(1, bytes(8)))  # data without the name of an expression
    decoded = decode_one(12, message(NEWSET, nfgenmsg() + attribute(2, b"counter\0") + attribute(17, expression)))
    assert decoded.attributes == {"name": "counter", "expr": {"data": {"unknown": [(1, bytes(8))]}}}
    assert decode_datagram(12, encode_datagram(12, [decoded])) == [decoded]
    inner = attribute(1, b"dynset\0") + attribute(2, attribute(7, expression))
    rule = decode_one(12, message(NEWRULE, nfgenmsg() + attribute(4, attribute(1, inner))))
    assert unknown_paths(rule) == ["expressions.data.expr.data.unknown.1"]
    assert decode_datagram(12, encode_datagram(12, [rule])) == [rule]


def test_elements_of_a_set_are_numbered_by_some_and_written_with_one_number():
    elements = b"".join(attribute(number, attribute(3, bytes(4))) for number in (1, 2, 3))
    decoded = decode_one(12, message(NEWSETELEM, nfgenmsg() + attribute(3, elements)))
    assert decoded.attributes == {"elements": [{"flags": 0}] * 3}
    one = attribute(1 | NESTED, attribute(3, bytes(4)))
    assert encode_datagram(12, [decoded]) == message(NEWSETELEM, nfgenmsg() + attribute(3 | NESTED, one * 3))


def test_an_alias_is_written_without_nul():
    for alias in (b"", b"old name"):
        data = message(SETLINK, ifinfomsg() + attribute(20, alias))
        assert encode_datagram(0, [decode_one(0, data)]) == data


# --- what permits look at, byte by byte ---


def test_a_batch_that_is_only_tried_has_no_end():
    """The kernel undoes it; tests/netns/test_netlink_reencoding.py shows that it does."""
    begin, table = message(BATCH_BEGIN, nfgenmsg(0, 10)), message(10 << 8, nfgenmsg(2) + attribute(1, b"tried\0"))
    assert [one.type for one in decode_datagram(12, begin + table)] == [BATCH_BEGIN, 10 << 8]
    for wrong in (table + begin, begin + table + begin, begin + message(BATCH_END, nfgenmsg(0, 10)) + table):
        with pytest.raises(CodecError, match="not one of nf_tables"):
            decode_datagram(12, wrong)


def test_the_jump_of_a_rule_is_read():
    verdict = attribute(1, struct.pack(">i", -3)) + attribute(2, b"CNI-1\0")
    data = attribute(1, struct.pack(">I", 0)) + attribute(2, attribute(2, verdict))
    expression = attribute(1, attribute(1, b"immediate\0") + attribute(2, data))
    body = nfgenmsg() + attribute(1, b"nat\0") + attribute(2, b"POSTROUTING\0") + attribute(4, expression)
    batch = message(BATCH_BEGIN, nfgenmsg(0, 10)) + message(NEWRULE, body) + message(BATCH_END, nfgenmsg(0, 10))
    begin, rule, end = decode_datagram(12, batch)
    assert (begin.header["res_id"], end.header["res_id"]) == (10, 10)
    assert rule.attributes == {
        "table": "nat",
        "chain": "POSTROUTING",
        "expressions": [
            {"name": "immediate", "data": {"dreg": 0, "data": {"verdict": {"code": -3, "chain": "CNI-1"}}}}
        ],
    }


def test_a_filter_and_its_target_are_read():
    selector = struct.pack("=BBBx", 1, 0, 1) + bytes(12) + struct.pack(">II", 0xFF, 6) + struct.pack("=ii", 8, 0)
    parms = struct.pack("=IIiiiiI", 0, 0, 4, 0, 0, 1, 17)
    action = attribute(1, attribute(1, b"mirred\0") + attribute(2, attribute(2, parms)))
    options = attribute(5, selector) + attribute(7, action)
    decoded = decode_one(0, message(NEWTFILTER, bytes(20) + attribute(1, b"u32\0") + attribute(2, options)))
    assert decoded.attributes["options"]["sel"] == {
        "flags": 1,
        "offshift": 0,
        "offmask": 0,
        "off": 0,
        "offoff": 0,
        "hoff": 0,
        "hmask": 0,
        "keys": [{"mask": 0xFF, "val": 6, "off": 8, "offmask": 0}],
    }
    fields = {"index": 0, "capab": 0, "action": 4, "refcnt": 0, "bindcnt": 0, "eaction": 1, "ifindex": 17}
    assert decoded.attributes["options"]["actions"] == [{"kind": "mirred", "options": {"parms": fields}}]


def test_a_connection_is_read():
    ip = attribute(1 | NESTED, attribute(1, bytes([10, 0, 0, 1])) + attribute(2, bytes([10, 0, 0, 2])))
    proto = attribute(2 | NESTED, attribute(1, b"\x11") + attribute(3, struct.pack(">H", 53)))
    decoded = decode_one(12, message(CONNTRACK + 2, nfgenmsg() + attribute(1 | NESTED, ip + proto)))
    assert message_name(12, decoded) == "IPCTNL_MSG_CT_DELETE"
    assert decoded.attributes["tuple_orig"] == {
        "ip": {"v4_src": "10.0.0.1", "v4_dst": "10.0.0.2"},
        "proto": {"num": 17, "dst_port": 53},
    }


def test_ethtool_is_read_as_pyroute2_writes_it():
    theirs = ethtool.ethtool_strset_msg()
    theirs["cmd"] = ethtool.ETHTOOL_MSG_STRSET_GET
    theirs["version"] = 1
    theirs["attrs"] = [("ETHTOOL_A_STRSET_HEADER", {"attrs": [("ETHTOOL_A_HEADER_DEV_NAME", "eth0")]})]
    theirs["header"]["type"] = 22
    theirs.encode()
    decoded = decode_one(16, bytes(theirs.data))
    assert message_name(16, decoded, FAMILIES) == "ETHTOOL_MSG_STRSET_GET"
    assert decoded.attributes == {"link": {"dev_name": "eth0"}}
    assert unknown_paths(decoded) == []


def test_what_ethtool_sets_is_named_but_not_understood():
    link = attribute(1 | NESTED, attribute(2, b"eth0\0"))
    decoded = decode_one(16, message(22, b"\x0a\1\0\0" + link + attribute(2, b"x")))
    assert message_name(16, decoded, FAMILIES) == "ETHTOOL_MSG_WOL_SET"
    assert unknown_paths(decoded) == ["unknown.2"]


def test_the_answer_of_the_controller_is_read():
    operations = attribute(1, attribute(1, bytes(4)) + attribute(2, bytes(4)))
    body = b"\1\2\0\0" + attribute(1, struct.pack("=H", 22)) + attribute(2, b"ethtool\0") + attribute(6, operations)
    decoded = decode_one(16, message(16, body))
    assert (decoded.attributes["family_id"], decoded.attributes["family_name"]) == (22, "ethtool")

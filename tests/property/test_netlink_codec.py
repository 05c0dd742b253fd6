"""The netlink codec against itself, against mutated bytes, and against pyroute2's reading and writing."""

import contextlib
import functools
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from cnisandbox.netlink import codec
from cnisandbox.netlink.codec import (
    HEADER,
    UNKNOWN,
    CodecError,
    Scalar,
    Text,
)
from cnisandbox.netlink.message import (
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    decode_messages,
    encode_message,
)
from cnisandbox.netlink.tables import ROUTE_TABLES, address, generic, link, monitored, nsid, route, rule
from tests.property.netlink_values import IPV4, IPV6, bodies, fields, values

U32 = st.integers(0, 2**32 - 1)


@st.composite
def messages(draw, types=tuple(ROUTE_TABLES)):
    type_ = draw(st.sampled_from(types))
    body = draw(bodies(ROUTE_TABLES[type_]))
    header = body.pop(HEADER)
    return Message(type_, draw(st.integers(0, 0xFFFF)), draw(U32), draw(U32), header, body)


@given(st.lists(messages(), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_what_was_encoded_is_decoded(sent):
    data = b"".join(encode_message(message, ROUTE_TABLES) for message in sent)
    assert len(data) % 4 == 0
    assert decode_messages(data, ROUTE_TABLES) == sent


def seen_of(table, body):
    """What a table for answers of the kernel has of a body."""
    seen = {name: value for name, value in body.items() if name == HEADER or name in table.by_name}
    for name in ("linkinfo", "data", "slave_data"):
        kind = table.by_name.get(name, (0, None))[1]
        beside = {"data": "kind", "slave_data": "slave_kind"}.get(name)
        inner = kind.tables.get(seen.get(beside)) if isinstance(kind, codec.NestedBy) else getattr(kind, "table", None)
        if name in seen and inner is not None:
            seen[name] = seen_of(inner, seen[name])
    return seen


@given(messages((link.RTM_NEWLINK,)), st.sampled_from([link.SEEN, link.SEEN_AS_PORT, link.SEEN_STATE]))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_of_an_answer_nothing_else_is_read_than_of_the_whole(sent, table):
    info = sent.attributes.get("linkinfo", {})
    for data, kind in (("data", "kind"), ("slave_data", "slave_kind")):
        if info.get(kind) not in ("bridge", None):
            info.pop(data, None)  # bytes, where the whole has a table
    (seen,) = decode_messages(encode_message(sent, ROUTE_TABLES), {link.RTM_NEWLINK: table})
    wanted = seen_of(table, {HEADER: sent.header, **sent.attributes})
    assert {HEADER: seen.header, **seen.attributes} == wanted


def test_lengths_of_what_is_passed_over_are_checked():
    body = bytes(16) + b"\x08\0\x0e\0\0\0\0\0"  # IFLA_MAP, which no plugin looks at
    assert codec.decode_parts(link.SEEN, body, 0)[1] == {}
    for length in (0, 3, 9):
        with pytest.raises(CodecError, match="attributes that do not fit"):
            codec.decode_parts(link.SEEN, body[:16] + bytes([length]) + body[17:], 0)


def test_what_is_behind_all_that_is_read_is_checked_too():
    body = bytes(16) + b"\x05\0\x10\0\6\0\0\0"  # IFLA_OPERSTATE
    assert codec.decode_parts(link.SEEN_STATE, body + b"\x04\0\x0e\0", 0)[1] == {"operstate": 6}
    for behind in (b"\1\0", body[16:], body[16:19] + b"\x80" + body[20:]):
        with pytest.raises(CodecError, match="do not fit, or occur twice"):
            codec.decode_parts(link.SEEN_STATE, body + behind, 0)


@pytest.mark.parametrize("flags", [0x40, 0x80, 0xC0])
def test_flag_bits_that_do_not_belong_are_seen_where_little_is_read(flags):
    body = bytes(16) + bytes([6, 0, 3, flags]) + b"a\0\0\0"  # IFLA_IFNAME
    with pytest.raises(CodecError, match="ifname: NLA_F_NE"):
        codec.decode_parts(link.SEEN, body, 0)


def test_what_goes_on_to_the_kernel_is_never_read_in_part():
    def tables_of(kind):
        inner = [getattr(kind, "table", None), *getattr(kind, "tables", {}).values(), getattr(kind, "default", None)]
        return [table for table in inner if table is not None] + (tables_of(kind.kind) if hasattr(kind, "kind") else [])

    pending = [*ROUTE_TABLES.values(), *monitored.ROUTE_TABLES.values(), *monitored.NETFILTER_TABLES.values()]
    pending += [table for commands in generic.FAMILIES.values() for _, table in commands.values()]
    reached = []
    while pending:
        table = pending.pop()
        if not any(table is other for other in reached):
            reached.append(table)
            pending += [inner for _, kind in table.by_name.values() for inner in tables_of(kind)]
    assert len(reached) > 50
    assert not [table for table in reached if table.is_partial]


@given(st.sampled_from([NLMSG_ERROR, NLMSG_DONE]), st.data())
def test_control_messages_are_decoded(type_, data):
    fields_ = ("error", "length", "type", "flags", "sequence", "port") if type_ == NLMSG_ERROR else ("error",)
    header = {name: data.draw(st.integers(0, 0xFFFF)) for name in fields_}
    message = Message(
        type_, NLM_F_CAPPED | NLM_F_ACK_TLVS, 1, 2, header, {"message": data.draw(values(codec.TEXT, {}, 0))}
    )
    assert decode_messages(encode_message(message, {}), {}) == [message]


@given(messages(), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_mutated_bytes_give_a_message_or_the_documented_error(message, data):
    encoded = bytearray(encode_message(message, ROUTE_TABLES))
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(encoded)))
    for attempt in (bytes(encoded), bytes(encoded[:cut])):
        try:
            decoded = decode_messages(attempt, ROUTE_TABLES)
        except CodecError:
            continue
        assert_canonical(decoded)


@given(st.binary(max_size=300), st.sampled_from([*ROUTE_TABLES, NLMSG_ERROR, NLMSG_DONE, 9999]), U32)
@settings(max_examples=200)
def test_any_bytes_give_a_message_or_the_documented_error(body, type_, sequence):
    head = (
        (16 + len(body)).to_bytes(4, "little") + type_.to_bytes(2, "little") + b"\0\0" + sequence.to_bytes(4, "little")
    )
    for attempt in (body, head + b"\0\0\0\0" + body):
        with contextlib.suppress(CodecError):
            decode_messages(attempt, ROUTE_TABLES)


def assert_canonical(decoded):
    """What was understood can be said again, and is understood the same."""
    decoded = [message for message in decoded if message.type in ROUTE_TABLES]
    again = b"".join(encode_message(message, ROUTE_TABLES) for message in decoded)
    assert decode_messages(again, ROUTE_TABLES) == decoded


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=5,
)


@given(st.sampled_from(list(ROUTE_TABLES)), st.data())
def test_any_value_is_encoded_or_gives_the_documented_error(type_, data):
    table = ROUTE_TABLES[type_]
    names = st.sampled_from([*table.by_name, UNKNOWN, HEADER]) | st.text()
    attributes = data.draw(st.dictionaries(names, JUNK, max_size=3))
    body = data.draw(bodies(table))
    header = data.draw(st.just(body[HEADER]) | JUNK)
    message = Message(type_, 0, data.draw(st.integers()), 0, header, attributes)
    with contextlib.suppress(CodecError):
        encode_message(message, ROUTE_TABLES)


@pytest.mark.parametrize("levels", [1, 2, 3, 500])
def test_nesting_is_bounded_both_ways(levels):
    header = dict.fromkeys(link.LINK.header.fields, 0)
    attributes = {"ifname": "x"}
    deep = b"\x06\0\x03\0x\0\0\0"
    for _ in range(levels):
        attributes = {"linkinfo": {"kind": "veth", "data": {"peer": {HEADER: header, **attributes}}}}
        peer = bytes(16) + deep
        peer = (4 + len(peer)).to_bytes(2, "little") + b"\1\0" + peer
        info = b"\x09\0\1\0veth\0\0\0\0" + (4 + len(peer)).to_bytes(2, "little") + b"\2\0" + peer
        deep = (4 + len(info)).to_bytes(2, "little") + b"\x12\0" + info
    message = Message(link.RTM_NEWLINK, 0, 1, 2, header, attributes)
    body = bytes(16) + deep
    data = (16 + len(body)).to_bytes(4, "little") + b"\x10\0\0\0\1\0\0\0\2\0\0\0" + body
    if 3 * levels <= codec.MAX_DEPTH:
        assert decode_messages(data, ROUTE_TABLES) == [message]
        assert decode_messages(encode_message(message, ROUTE_TABLES), ROUTE_TABLES) == [message]
        return
    with pytest.raises(CodecError, match="nested deeper"):
        decode_messages(data, ROUTE_TABLES)
    with pytest.raises(CodecError, match="nested deeper"):
        encode_message(message, ROUTE_TABLES)


def test_names_of_a_table_are_unique():
    for table in {id(table): table for table in ROUTE_TABLES.values()}.values():
        assert len(table.by_name) == len(table.by_number)


# pyroute2 as the oracle: same names with a prefix, but where it says otherwise below.
ORACLES = {
    link.RTM_NEWLINK: (ifinfmsg, "IFLA_", {}),
    address.RTM_NEWADDR: (ifaddrmsg, "IFA_", {}),
    route.RTM_NEWROUTE: (rtmsg, "RTA_", {}),
    rule.RTM_NEWRULE: (fibmsg, "FRA_", {}),
    nsid.RTM_NEWNSID: (nsidmsg, "NETNSA_", {}),
}
# Kinds that both sides present in the same way.
PLAIN = (Scalar, Text, codec.Address, codec.LinkLayerAddress)
# pyroute2 has no such attribute, has it as another type, or wants other values of it.
DIFFERENT = {
    link.RTM_NEWLINK: {
        "operstate",
        "net_ns_pid",
        "net_ns_fd",
        "alt_ifname",
        "perm_address",
        "new_netnsid",
        "new_ifindex",
    },
    address.RTM_NEWADDR: {"target_netnsid"},
    route.RTM_NEWROUTE: {"encap_type", "newdst", "via"},
}
# Fields of the header that pyroute2 calls otherwise.
HEADER_NAMES = {
    link.RTM_NEWLINK: {"type": "ifi_type", "ifindex": "index"},
    address.RTM_NEWADDR: {"ifindex": "index"},
    route.RTM_NEWROUTE: {"protocol": "proto"},
    nsid.RTM_NEWNSID: {"family": "rtgen_family"},
}
ASCII = st.text(string.ascii_letters + string.digits, min_size=1, max_size=15)


def oracle_name(type_, name):
    _, prefix, names = ORACLES[type_]
    return names.get(name, prefix + name.upper())


def header_name(type_, name):
    return HEADER_NAMES.get(type_, {}).get(name, name)


@functools.cache
def comparable(type_):
    """Names of the attributes that pyroute2 has too and reads as the same type of value."""
    cls = ORACLES[type_][0]
    known = {entry[-2]: entry[-1] for entry in cls.nla_map}
    table = ROUTE_TABLES[type_]
    return sorted(
        name
        for name, (_, kind) in table.by_name.items()
        if isinstance(kind, PLAIN)
        and name not in DIFFERENT.get(type_, set())
        and known.get(oracle_name(type_, name), "hex") not in {"hex", "none", "cdata"}
    )


def family_value(kind, family):
    if isinstance(kind, codec.Address):
        return IPV4 if family == 2 else IPV6
    if isinstance(kind, codec.LinkLayerAddress):
        return st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
    if isinstance(kind, Text):
        return ASCII
    if kind is codec.S32:
        return st.integers(0, 2**31 - 1)  # pyroute2 reads some of them without sign
    return values(kind, {}, 0)


@st.composite
def comparable_messages(draw):
    type_ = draw(st.sampled_from(sorted(ORACLES)))
    table = ROUTE_TABLES[type_]
    header = draw(fields(table.header))
    header["family"] = draw(st.sampled_from([2, 10])) if type_ != link.RTM_NEWLINK else 0
    names = draw(st.lists(st.sampled_from(comparable(type_)), unique=True, max_size=8))
    attributes = {name: draw(family_value(table.by_name[name][1], header["family"])) for name in names}
    return Message(type_, 0, 7, 8, header, attributes)


def test_most_attributes_can_be_compared():
    counts = {type_: len(comparable(type_)) for type_ in ORACLES}
    assert counts[link.RTM_NEWLINK] >= 25
    assert counts[address.RTM_NEWADDR] >= 6
    assert counts[route.RTM_NEWROUTE] >= 8
    assert counts[rule.RTM_NEWRULE] >= 8


@given(comparable_messages())
def test_pyroute2_reads_what_is_written(message):
    cls = ORACLES[message.type][0]
    theirs = cls(encode_message(message, ROUTE_TABLES))
    theirs.decode()
    assert (theirs["header"]["type"], theirs["header"]["sequence_number"]) == (message.type, message.sequence)
    for name, value in message.header.items():
        assert theirs[header_name(message.type, name)] == value
    for name, value in message.attributes.items():
        assert theirs.get_attr(oracle_name(message.type, name)) == value, name


@given(comparable_messages())
def test_what_pyroute2_writes_is_read(message):
    theirs = ORACLES[message.type][0]()
    for name, value in message.header.items():
        theirs[header_name(message.type, name)] = value
    theirs["attrs"] = [(oracle_name(message.type, name), value) for name, value in message.attributes.items()]
    theirs["header"]["type"] = message.type
    theirs["header"]["sequence_number"] = message.sequence
    theirs.encode()
    (decoded,) = decode_messages(bytes(theirs.data), ROUTE_TABLES)
    assert (decoded.header, decoded.attributes) == (message.header, message.attributes)
    assert decoded.sequence == message.sequence


def nested_link(theirs):
    return ["IFLA_LINKINFO", {"attrs": theirs}]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"kind": "bridge", "data": {"vlan_filtering": 1, "vlan_default_pvid": 5, "nf_call_iptables": 1}},
         [["IFLA_INFO_KIND", "bridge"], ["IFLA_INFO_DATA", {"attrs": [
             ["IFLA_BR_VLAN_FILTERING", 1], ["IFLA_BR_VLAN_DEFAULT_PVID", 5], ["IFLA_BR_NF_CALL_IPTABLES", 1]]}]]),
        ({"slave_kind": "bridge", "slave_data": {"hairpin": 1, "isolated": 1, "mcast_flood": 0, "neigh_suppress": 1}},
         [["IFLA_INFO_SLAVE_KIND", "bridge"], ["IFLA_INFO_SLAVE_DATA", {"attrs": [
             ["IFLA_BRPORT_MODE", 1], ["IFLA_BRPORT_ISOLATED", 1], ["IFLA_BRPORT_MCAST_FLOOD", 0],
             ["IFLA_BRPORT_NEIGH_SUPPRESS", 1]]}]]),
        ({"kind": "macvlan", "data": {"mode": 4}},
         [["IFLA_INFO_KIND", "macvlan"], ["IFLA_INFO_DATA", {"attrs": [["IFLA_MACVLAN_MODE", "bridge"]]}]]),
        ({"kind": "vlan", "data": {"id": 100, "protocol": 0x8100}},
         [["IFLA_INFO_KIND", "vlan"], ["IFLA_INFO_DATA", {"attrs": [
             ["IFLA_VLAN_ID", 100], ["IFLA_VLAN_PROTOCOL", 0x8100]]}]]),
        ({"kind": "vrf", "data": {"table": 77}},
         [["IFLA_INFO_KIND", "vrf"], ["IFLA_INFO_DATA", {"attrs": [["IFLA_VRF_TABLE", 77]]}]]),
    ],
)  # fmt: skip
def test_pyroute2_writes_linkinfo_in_the_same_way(ours, theirs):
    message = ifinfmsg()
    message["attrs"] = [nested_link(theirs)]
    message["header"]["type"] = link.RTM_NEWLINK
    message.encode()
    (decoded,) = decode_messages(bytes(message.data), ROUTE_TABLES)
    assert decoded.attributes == {"linkinfo": ours}
    again = ifinfmsg(encode_message(decoded, ROUTE_TABLES))
    again.decode()
    info = again.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == ours.get("kind")
    data = info.get_attr("IFLA_INFO_DATA") or info.get_attr("IFLA_INFO_SLAVE_DATA")
    theirs_data = theirs[1][1]["attrs"]
    assert [[name, value] for name, value in data["attrs"]] == theirs_data or theirs_data[0][0] == "IFLA_MACVLAN_MODE"


def test_pyroute2_reads_the_peer_of_a_veth():
    peer = {
        HEADER: dict.fromkeys(link.LINK.header.fields, 0),
        "ifname": "eth0",
        "address": "02:00:00:00:00:01",
        "net_ns_fd": 5,
    }
    attributes = {"ifname": "vethtest", "linkinfo": {"kind": "veth", "data": {"peer": peer}}}
    header = dict.fromkeys(link.LINK.header.fields, 0)
    theirs = ifinfmsg(encode_message(Message(link.RTM_NEWLINK, 0, 1, 0, header, attributes), ROUTE_TABLES))
    theirs.decode()
    found = theirs.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (found.get_attr("IFLA_IFNAME"), found.get_attr("IFLA_ADDRESS")) == ("eth0", "02:00:00:00:00:01")


def test_pyroute2_reads_metrics_and_next_hops():
    header = {**dict.fromkeys(route.ROUTE.header.fields, 0), "family": 2, "dst_len": 8}
    attributes = {
        "dst": "10.0.0.0",
        "metrics": {"mtu": 1300, "advmss": 1200},
        "multipath": [
            {HEADER: {"flags": 0, "hops": 3, "ifindex": 4}, "gateway": "10.1.1.1"},
            {HEADER: {"flags": 0, "hops": 0, "ifindex": 5}, "gateway": "10.1.1.2"},
        ],
    }
    theirs = rtmsg(encode_message(Message(route.RTM_NEWROUTE, 0, 1, 0, header, attributes), ROUTE_TABLES))
    theirs.decode()
    metrics = theirs.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU"), metrics.get_attr("RTAX_ADVMSS")) == (1300, 1200)
    hops = theirs.get_attr("RTA_MULTIPATH")
    assert [(hop["oif"], hop["hops"], hop.get_attr("RTA_GATEWAY")) for hop in hops] == [
        (4, 3, "10.1.1.1"),
        (5, 0, "10.1.1.2"),
    ]


def test_pyroute2_reads_the_vlans_of_a_port():
    header = {**dict.fromkeys(link.LINK.header.fields, 0), "family": 7, "ifindex": 3}
    infos = [{"flags": 6, "vid": 100}, {"flags": 8, "vid": 200}, {"flags": 16, "vid": 210}]
    message = Message(link.RTM_SETLINK, 0, 1, 0, header, {"af_spec": {"vlan_info": infos}})
    theirs = ifinfmsg(encode_message(message, ROUTE_TABLES))
    theirs.decode()
    found = [attr[1] for attr in theirs.get_attr("IFLA_AF_SPEC")["attrs"] if attr[0] == "IFLA_BRIDGE_VLAN_INFO"]
    assert [{"flags": info["flags"], "vid": info["vid"]} for info in found] == infos


def test_oracle_is_the_real_pyroute2():
    assert all(issubclass(cls, nlmsg) for cls, _, _ in ORACLES.values())

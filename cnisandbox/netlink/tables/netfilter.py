"""NETLINK_NETFILTER but for nf_tables: the ends of a batch, the extensions of iptables, connection tracking.

Every message begins with `struct nfgenmsg`, and every integer is in network byte order where nothing else is said.

Source: include/uapi/linux/netfilter/nfnetlink.h, nf_tables_compat.h, nfnetlink_conntrack.h,
net/netfilter/nf_conntrack_netlink.c, Linux 6.1.
"""

from cnisandbox.netlink.codec import ADDRESS, BE16, BE32, RAW, U8, U32, Header, Nested, Scalar, Table, Text

NFNL_SUBSYS_CTNETLINK = 1
NFNL_SUBSYS_NFTABLES = 10
NFNL_SUBSYS_NFT_COMPAT = 11

NFNL_MSG_BATCH_BEGIN = 16
NFNL_MSG_BATCH_END = 17
NFNL_MSG_COMPAT_GET = NFNL_SUBSYS_NFT_COMPAT << 8

# By number within the subsystem; the rest are answers or statistics.
CONNTRACK_NAMES = {
    (NFNL_SUBSYS_CTNETLINK << 8) + 0: "IPCTNL_MSG_CT_NEW",
    (NFNL_SUBSYS_CTNETLINK << 8) + 1: "IPCTNL_MSG_CT_GET",
    (NFNL_SUBSYS_CTNETLINK << 8) + 2: "IPCTNL_MSG_CT_DELETE",
    (NFNL_SUBSYS_CTNETLINK << 8) + 3: "IPCTNL_MSG_CT_GET_CTRZERO",
}

NFGENMSG = Header(">BBH", ("family", "version", "res_id"))
BE64 = Scalar(">Q")
BES32 = Scalar(">i")

BATCH = Table({1: ("genid", BE32)}, NFGENMSG)
COMPAT = Table({1: ("name", Text(31)), 2: ("rev", BE32), 3: ("type", BE32)}, NFGENMSG)

_IP = Table({1: ("v4_src", ADDRESS), 2: ("v4_dst", ADDRESS), 3: ("v6_src", ADDRESS), 4: ("v6_dst", ADDRESS)})
_PROTO = Table(
    {
        1: ("num", U8),
        2: ("src_port", BE16),
        3: ("dst_port", BE16),
        4: ("icmp_id", BE16),
        5: ("icmp_type", U8),
        6: ("icmp_code", U8),
        7: ("icmpv6_id", BE16),
        8: ("icmpv6_type", U8),
        9: ("icmpv6_code", U8),
    }
)
_TUPLE = Nested(Table({1: ("ip", Nested(_IP)), 2: ("proto", Nested(_PROTO)), 3: ("zone", BE16)}))
_TCP_FLAGS = Header("=BB", ("flags", "mask"))
_PROTOINFO = Table(
    {
        1: (
            "tcp",
            Nested(
                Table(
                    {
                        1: ("state", U8),
                        2: ("wscale_original", U8),
                        3: ("wscale_reply", U8),
                        4: ("flags_original", _TCP_FLAGS),
                        5: ("flags_reply", _TCP_FLAGS),
                    }
                )
            ),
        ),
        2: ("dccp", Nested(Table({1: ("state", U8), 2: ("role", U8), 3: ("handshake_seq", BE64), 4: ("pad", RAW)}))),
        3: ("sctp", Nested(Table({1: ("state", U8), 2: ("vtag_original", BE32), 3: ("vtag_reply", BE32)}))),
    }
)
_COUNTERS = Nested(
    Table({1: ("packets", BE64), 2: ("bytes", BE64), 3: ("packets32", BE32), 4: ("bytes32", BE32), 5: ("pad", RAW)})
)
_SEQ_ADJ = Nested(Table({1: ("correction_pos", BE32), 2: ("offset_before", BE32), 3: ("offset_after", BE32)}))
_PORTS = Nested(Table({1: ("port_min", BE16), 2: ("port_max", BE16)}))
_NAT = Nested(
    Table(
        {
            1: ("v4_minip", ADDRESS),
            2: ("v4_maxip", ADDRESS),
            3: ("proto", _PORTS),
            4: ("v6_minip", ADDRESS),
            5: ("v6_maxip", ADDRESS),
        }
    )
)
CONNTRACK = Table(
    {
        1: ("tuple_orig", _TUPLE),
        2: ("tuple_reply", _TUPLE),
        3: ("status", BE32),
        4: ("protoinfo", Nested(_PROTOINFO)),
        5: ("help", Nested(Table({1: ("name", Text(15)), 2: ("info", RAW)}))),
        6: ("nat_src", _NAT),
        7: ("timeout", BE32),
        8: ("mark", BE32),
        9: ("counters_orig", _COUNTERS),
        10: ("counters_reply", _COUNTERS),
        11: ("use", BE32),
        12: ("id", BE32),
        13: ("nat_dst", _NAT),
        14: ("tuple_master", _TUPLE),
        15: ("seq_adj_orig", _SEQ_ADJ),
        16: ("seq_adj_reply", _SEQ_ADJ),
        17: ("secmark", BE32),
        18: ("zone", BE16),
        19: ("secctx", Nested(Table({1: ("name", Text())}))),
        20: ("timestamp", Nested(Table({1: ("start", BE64), 2: ("stop", BE64), 3: ("pad", RAW)}))),
        21: ("mark_mask", BE32),
        22: ("labels", RAW),
        23: ("labels_mask", RAW),
        24: ("synproxy", Nested(Table({1: ("isn", BE32), 2: ("its", BE32), 3: ("tsoff", BE32)}))),
        25: ("filter", Nested(Table({1: ("orig_flags", U32), 2: ("reply_flags", U32)}))),  # native byte order
        26: ("status_mask", BE32),
        27: ("timestamp_event", BE64),
    },
    NFGENMSG,
)

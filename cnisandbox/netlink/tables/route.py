"""RTM_*ROUTE: routes, with their metrics and next hops.

Source: include/uapi/linux/rtnetlink.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import ADDRESS, RAW, TEXT, U8, U16, U32, Header, Nested, Sequence, Table

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
TYPES = (RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE)

RT_TABLE_UNSPEC = 0
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTPROT_BOOT = 3
RTN_UNICAST = 1

METRICS = Table(
    {
        1: ("lock", U32),
        2: ("mtu", U32),
        3: ("window", U32),
        4: ("rtt", U32),
        5: ("rttvar", U32),
        6: ("ssthresh", U32),
        7: ("cwnd", U32),
        8: ("advmss", U32),
        9: ("reordering", U32),
        10: ("hoplimit", U32),
        11: ("initcwnd", U32),
        12: ("features", U32),
        13: ("rto_min", U32),
        14: ("initrwnd", U32),
        15: ("quickack", U32),
        16: ("cc_algo", TEXT),
    }
)
NEXT_HOP = Table(
    {5: ("gateway", ADDRESS), 18: ("via", RAW), 21: ("encap_type", U16), 22: ("encap", RAW)},
    Header("=HBBi", ("length", "flags", "hops", "ifindex")),
)
ROUTE = Table(
    {
        1: ("dst", ADDRESS),
        2: ("src", ADDRESS),
        3: ("iif", U32),
        4: ("oif", U32),
        5: ("gateway", ADDRESS),
        6: ("priority", U32),
        7: ("prefsrc", ADDRESS),
        8: ("metrics", Nested(METRICS)),
        9: ("multipath", Sequence(NEXT_HOP, "length")),
        11: ("flow", U32),
        12: ("cacheinfo", RAW),
        15: ("table", U32),
        16: ("mark", U32),
        18: ("via", RAW),
        19: ("newdst", RAW),
        20: ("pref", U8),
        21: ("encap_type", U16),
        22: ("encap", RAW),
        23: ("expires", U32),
        25: ("uid", U32),
        26: ("ttl_propagate", U8),
        27: ("ip_proto", U8),
        30: ("nh_id", U32),
    },
    Header("=BBBBBBBBI", ("family", "dst_len", "src_len", "tos", "table", "protocol", "scope", "type", "flags")),
)

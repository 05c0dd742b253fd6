"""RTM_*NEIGH: neighbour entries, and below AF_BRIDGE the forwarding database of bridges.

Source: include/uapi/linux/neighbour.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import ADDRESS, BE16, FLAG, LLADDR, S32, U8, U16, U32, Header, Nested, Table

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
TYPES = (RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH)

NEIGHBOUR = Table(
    {
        1: ("dst", ADDRESS),
        2: ("lladdr", LLADDR),
        3: ("cacheinfo", Header("=IIII", ("confirmed", "used", "updated", "refcnt"))),
        4: ("probes", U32),
        5: ("vlan", U16),
        6: ("port", BE16),
        7: ("vni", U32),
        8: ("ifindex", U32),
        9: ("master", U32),
        10: ("link_netnsid", S32),
        11: ("src_vni", U32),
        12: ("protocol", U8),
        13: ("nh_id", U32),
        14: ("fdb_ext_attrs", Nested(Table({1: ("activity_notify", U8), 2: ("dont_refresh", FLAG)}))),
        15: ("flags_ext", U32),
        16: ("state_mask", U16),
        17: ("flags_mask", U8),
    },
    Header("=BxxxiHBB", ("family", "ifindex", "state", "flags", "type")),
)

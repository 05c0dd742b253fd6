"""RTM_*RULE: policy routing rules.

Source: include/uapi/linux/fib_rules.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import ADDRESS, IFNAME, RAW, U8, U32, Header, Table

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
TYPES = (RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE)

RULE = Table(
    {
        1: ("dst", ADDRESS),
        2: ("src", ADDRESS),
        3: ("iifname", IFNAME),
        4: ("goto", U32),
        6: ("priority", U32),
        10: ("fwmark", U32),
        11: ("flow", U32),
        12: ("tun_id", RAW),
        13: ("suppress_ifgroup", U32),
        14: ("suppress_prefixlen", U32),
        15: ("table", U32),
        16: ("fwmask", U32),
        17: ("oifname", IFNAME),
        19: ("l3mdev", U8),
        20: ("uid_range", Header("=II", ("start", "end"))),
        21: ("protocol", U8),
        22: ("ip_proto", U8),
        23: ("sport_range", Header("=HH", ("start", "end"))),
        24: ("dport_range", Header("=HH", ("start", "end"))),
    },
    Header("=BBBBBxxBI", ("family", "dst_len", "src_len", "tos", "table", "action", "flags")),
)

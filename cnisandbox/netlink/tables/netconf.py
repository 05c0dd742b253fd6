"""RTM_*NETCONF: forwarding and the like of one link, to be read.

Source: include/uapi/linux/netconf.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import S32, Header, Table

RTM_NEWNETCONF = 80
RTM_DELNETCONF = 81
RTM_GETNETCONF = 82
TYPES = (RTM_NEWNETCONF, RTM_DELNETCONF, RTM_GETNETCONF)

NETCONF = Table(
    {
        1: ("ifindex", S32),
        2: ("forwarding", S32),
        3: ("rp_filter", S32),
        4: ("mc_forwarding", S32),
        5: ("proxy_neigh", S32),
        6: ("ignore_routes_with_linkdown", S32),
        7: ("input", S32),
        8: ("bc_forwarding", S32),
    },
    Header("=B", ("family",)),
)

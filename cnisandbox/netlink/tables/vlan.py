"""RTM_*VLAN: the VLANs of bridge ports, one port at a time (Linux 5.6 and later).

Source: include/uapi/linux/if_bridge.h, net/bridge/br_vlan.c, Linux 6.1.
"""

from cnisandbox.netlink.codec import RAW, U8, U16, U32, Header, Many, Nested, Table
from cnisandbox.netlink.tables.link import VLAN_INFO

RTM_NEWVLAN = 112
RTM_DELVLAN = 113
RTM_GETVLAN = 114
TYPES = (RTM_NEWVLAN, RTM_DELVLAN, RTM_GETVLAN)

_ENTRY = Table(
    {1: ("info", VLAN_INFO), 2: ("range_end", U16), 3: ("state", U8), 4: ("tunnel_info", RAW), 5: ("stats", RAW)}
)
VLAN = Table(
    {1: ("entry", Many(Nested(_ENTRY))), 2: ("global_options", Many(RAW))},
    Header("=BxxxI", ("family", "ifindex")),
)
# The attribute with number 1 is something else in a request than in an answer.
DUMP_REQUEST = Table({1: ("dump_flags", U32)}, Header("=BxxxI", ("family", "ifindex")))

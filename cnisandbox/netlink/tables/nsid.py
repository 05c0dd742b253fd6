"""RTM_*NSID: the numbers under which a netns knows others.

Source: include/uapi/linux/net_namespace.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import S32, U32, Header, Table

RTM_NEWNSID = 88
RTM_DELNSID = 89
RTM_GETNSID = 90
TYPES = (RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID)

NSID = Table(
    {1: ("nsid", S32), 2: ("pid", U32), 3: ("fd", U32), 4: ("target_nsid", S32), 5: ("current_nsid", S32)},
    Header("=Bxxx", ("family",)),
)

"""RTM_*ADDR: addresses of links.

Source: include/uapi/linux/if_addr.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import ADDRESS, RAW, S32, TEXT, U8, U32, Header, Table

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
TYPES = (RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR)

IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40

ADDRESSES = Table(
    {
        1: ("address", ADDRESS),
        2: ("local", ADDRESS),
        3: ("label", TEXT),
        4: ("broadcast", ADDRESS),
        5: ("anycast", ADDRESS),
        6: ("cacheinfo", RAW),
        7: ("multicast", ADDRESS),
        8: ("flags", U32),
        9: ("rt_priority", U32),
        10: ("target_netnsid", S32),
        11: ("proto", U8),
    },
    Header("=BBBBI", ("family", "prefixlen", "flags", "scope", "ifindex")),
)

# What our plugins read of those that there are.
SEEN = Table({number: ADDRESSES.by_number[number] for number in (1, 2, 8)}, ADDRESSES.header, is_partial=True)

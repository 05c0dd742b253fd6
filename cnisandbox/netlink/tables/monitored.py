"""What messages of foreign programs the monitor knows: type to table, and to the name that the kernel's headers have.

More than cnisandbox.netlink.tables, which the package's own plugins load; no type below 16 (NLMSG_ERROR and the like),
which no program sends to the kernel.

Source: include/uapi/linux/rtnetlink.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import BE16, BE32, RAW, U8, U16, U32, Nested, Sequence, Table
from cnisandbox.netlink.tables import (
    address,
    foreign_link,
    link,
    neighbour,
    netconf,
    netfilter,
    nf_tables,
    nsid,
    route,
    rule,
    traffic,
    vlan,
)

_METRICS = Table({**route.METRICS.by_number, 17: ("fastopen_no_cookie", U32)})
_ROUTE = Table(
    {
        **route.ROUTE.by_number,
        8: ("metrics", Nested(_METRICS)),
        9: (
            "multipath",
            Sequence(Table({**route.NEXT_HOP.by_number, 19: ("newdst", RAW)}, route.NEXT_HOP.header), "length"),
        ),
        24: ("pad", RAW),
        28: ("sport", BE16),
        29: ("dport", BE16),
    },
    route.ROUTE.header,
)
_RULE = Table(
    {
        **rule.RULE.by_number,
        18: ("pad", RAW),
        25: ("dscp", U8),
        26: ("flowlabel", BE32),
        27: ("flowlabel_mask", BE32),
        28: ("sport_mask", U16),
        29: ("dport_mask", U16),
        30: ("dscp_mask", U8),
    },
    rule.RULE.header,
)

ROUTE_TABLES: dict[int, Table] = {
    **dict.fromkeys(link.TYPES, foreign_link.LINK),
    link.RTM_NEWLINK: foreign_link.NEW_LINK,
    **dict.fromkeys(foreign_link.PROPERTY_TYPES, foreign_link.NEW_LINK),
    **dict.fromkeys(address.TYPES, address.ADDRESSES),
    **dict.fromkeys(route.TYPES, _ROUTE),
    **dict.fromkeys(neighbour.TYPES, neighbour.NEIGHBOUR),
    **dict.fromkeys(rule.TYPES, _RULE),
    **dict.fromkeys(traffic.QDISC_TYPES, traffic.QDISC),
    **dict.fromkeys(traffic.CLASS_TYPES, traffic.CLASS),
    **dict.fromkeys(traffic.FILTER_TYPES, traffic.FILTER),
    **dict.fromkeys(netconf.TYPES, netconf.NETCONF),
    **dict.fromkeys(nsid.TYPES, nsid.NSID),
    **dict.fromkeys(vlan.TYPES, vlan.VLAN),
    vlan.RTM_GETVLAN: vlan.DUMP_REQUEST,
}

NETFILTER_TABLES: dict[int, Table] = {
    netfilter.NFNL_MSG_BATCH_BEGIN: netfilter.BATCH,
    netfilter.NFNL_MSG_BATCH_END: netfilter.BATCH,
    netfilter.NFNL_MSG_COMPAT_GET: netfilter.COMPAT,
    **dict.fromkeys(netfilter.CONNTRACK_NAMES, netfilter.CONNTRACK),
    **nf_tables.TABLES,
}

_ROUTE_MODULES = (link, foreign_link, address, route, neighbour, rule, traffic, netconf, nsid, vlan)

ROUTE_NAMES: dict[int, str] = {
    type_: name
    for module in _ROUTE_MODULES
    for name, type_ in vars(module).items()
    if name.startswith(("RTM_NEW", "RTM_DEL", "RTM_GET", "RTM_SET"))
}
NETFILTER_NAMES: dict[int, str] = {
    netfilter.NFNL_MSG_BATCH_BEGIN: "NFNL_MSG_BATCH_BEGIN",
    netfilter.NFNL_MSG_BATCH_END: "NFNL_MSG_BATCH_END",
    netfilter.NFNL_MSG_COMPAT_GET: "NFNL_MSG_COMPAT_GET",
    **netfilter.CONNTRACK_NAMES,
    **nf_tables.NAMES,
}

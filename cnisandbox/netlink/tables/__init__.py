"""What messages exist: message type to table. A new family is a new file here and a line below.

Source: include/uapi/linux/rtnetlink.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import Table
from cnisandbox.netlink.tables import address, link, nsid, route, rule, vlan

ROUTE_TABLES: dict[int, Table] = {
    **dict.fromkeys(link.TYPES, link.LINK),
    **dict.fromkeys(address.TYPES, address.ADDRESSES),
    **dict.fromkeys(route.TYPES, route.ROUTE),
    **dict.fromkeys(rule.TYPES, rule.RULE),
    **dict.fromkeys(nsid.TYPES, nsid.NSID),
    **dict.fromkeys(vlan.TYPES, vlan.VLAN),
    vlan.RTM_GETVLAN: vlan.DUMP_REQUEST,
}

ROUTE_ANSWERS: dict[int, Table] = {
    **ROUTE_TABLES,
    link.RTM_NEWLINK: link.SEEN,
    address.RTM_NEWADDR: address.SEEN,
}

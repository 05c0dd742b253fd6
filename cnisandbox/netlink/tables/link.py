"""RTM_*LINK: network devices, and below AF_BRIDGE their bridge ports.

Source: include/uapi/linux/if_link.h, if_bridge.h, veth.h, Linux 6.1 (numbers above 60: 6.18).
"""

from cnisandbox.netlink.codec import (
    BE16,
    FLAG,
    IFNAME,
    LLADDR,
    RAW,
    S32,
    TEXT,
    U8,
    U16,
    U32,
    Header,
    Kind,
    Many,
    Nested,
    NestedBy,
    Table,
    Text,
)

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
TYPES = (RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK)

AF_UNSPEC = 0
AF_BRIDGE = 7

IFF_UP = 0x1
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200

RTEXT_FILTER_SKIP_STATS = 1 << 3

BRIDGE_FLAGS_MASTER = 1
BRIDGE_FLAGS_SELF = 2
BRIDGE_VLAN_INFO_PVID = 1 << 1
BRIDGE_VLAN_INFO_UNTAGGED = 1 << 2
BRIDGE_VLAN_INFO_RANGE_BEGIN = 1 << 3
BRIDGE_VLAN_INFO_RANGE_END = 1 << 4

OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")

VLAN_INFO = Header("=HH", ("flags", "vid"))

_BRIDGE = Table(
    {
        1: ("forward_delay", U32),
        2: ("hello_time", U32),
        3: ("max_age", U32),
        4: ("ageing_time", U32),
        5: ("stp_state", U32),
        6: ("priority", U16),
        7: ("vlan_filtering", U8),
        8: ("vlan_protocol", BE16),
        9: ("group_fwd_mask", U16),
        20: ("group_address", LLADDR),
        22: ("mcast_router", U8),
        23: ("mcast_snooping", U8),
        25: ("mcast_querier", U8),
        36: ("nf_call_iptables", U8),
        37: ("nf_call_ip6tables", U8),
        38: ("nf_call_arptables", U8),
        39: ("vlan_default_pvid", U16),
        41: ("vlan_stats_enabled", U8),
        45: ("vlan_stats_per_port", U8),
    }
)
BRIDGE_PORT = Table(
    {
        1: ("state", U8),
        2: ("priority", U16),
        3: ("cost", U32),
        4: ("hairpin", U8),
        5: ("guard", U8),
        6: ("protect", U8),
        7: ("fast_leave", U8),
        8: ("learning", U8),
        9: ("unicast_flood", U8),
        10: ("proxyarp", U8),
        11: ("learning_sync", U8),
        12: ("proxyarp_wifi", U8),
        24: ("flush", FLAG),
        25: ("multicast_router", U8),
        27: ("mcast_flood", U8),
        28: ("mcast_to_ucast", U8),
        29: ("vlan_tunnel", U8),
        30: ("bcast_flood", U8),
        31: ("group_fwd_mask", U16),
        32: ("neigh_suppress", U8),
        33: ("isolated", U8),
        34: ("backup_port", U32),
        39: ("locked", U8),
    }
)
_BRIDGE_AF_SPEC = Table({0: ("flags", U16), 1: ("mode", U16), 2: ("vlan_info", Many(VLAN_INFO))})
_INET6_AF_SPEC = Table({1: ("flags", U32), 7: ("token", RAW), 8: ("addr_gen_mode", U8)})
_AF_SPEC = Table({2: ("inet", RAW), 10: ("inet6", Nested(_INET6_AF_SPEC))})
_MACVLAN = Table({1: ("mode", U32), 2: ("flags", U16)})
_IPVLAN = Table({1: ("mode", U16), 2: ("flags", U16)})
_VLAN = Table({1: ("id", U16), 2: ("flags", Header("=II", ("flags", "mask"))), 5: ("protocol", BE16)})
_VRF = Table({1: ("table", U32)})
_VETH = Table({})  # filled below: its peer is a link

# Kind to what it has in "data"; a kind that is not here keeps bytes.
LINK_KINDS = {
    "bridge": _BRIDGE,
    "ipvlan": _IPVLAN,
    "macvlan": _MACVLAN,
    "macvtap": _MACVLAN,
    "veth": _VETH,
    "vlan": _VLAN,
    "vrf": _VRF,
}
SLAVE_KINDS = {"bridge": BRIDGE_PORT, "vrf": _VRF}

_LINKINFO = Table(
    {
        1: ("kind", Text(63)),
        2: ("data", NestedBy("kind", LINK_KINDS)),
        3: ("xstats", RAW),
        4: ("slave_kind", Text(63)),
        5: ("slave_data", NestedBy("slave_kind", SLAVE_KINDS)),
    }
)

LINK = Table(
    {
        1: ("address", LLADDR),
        2: ("broadcast", LLADDR),
        3: ("ifname", IFNAME),
        4: ("mtu", U32),
        5: ("link", U32),
        6: ("qdisc", TEXT),
        10: ("master", U32),
        12: ("protinfo", NestedBy(".family", {AF_BRIDGE: BRIDGE_PORT})),
        13: ("txqlen", U32),
        16: ("operstate", U8),
        17: ("linkmode", U8),
        18: ("linkinfo", Nested(_LINKINFO)),
        19: ("net_ns_pid", U32),
        20: ("ifalias", Text(255)),
        21: ("num_vf", U32),
        26: ("af_spec", NestedBy(".family", {AF_UNSPEC: _AF_SPEC, AF_BRIDGE: _BRIDGE_AF_SPEC})),
        27: ("group", U32),
        28: ("net_ns_fd", U32),
        29: ("ext_mask", U32),
        30: ("promiscuity", U32),
        31: ("num_tx_queues", U32),
        32: ("num_rx_queues", U32),
        33: ("carrier", U8),
        35: ("carrier_changes", U32),
        37: ("link_netnsid", S32),
        38: ("phys_port_name", TEXT),
        39: ("proto_down", U8),
        40: ("gso_max_segs", U32),
        41: ("gso_max_size", U32),
        45: ("new_netnsid", S32),
        46: ("target_netnsid", S32),
        47: ("carrier_up_count", U32),
        48: ("carrier_down_count", U32),
        49: ("new_ifindex", S32),
        50: ("min_mtu", U32),
        51: ("max_mtu", U32),
        52: ("prop_list", Nested(Table({53: ("alt_ifname", Many(Text(127)))}))),
        53: ("alt_ifname", Text(127)),
        54: ("perm_address", LLADDR),
        56: ("parent_dev_name", TEXT),
        57: ("parent_dev_bus_name", TEXT),
        58: ("gro_max_size", U32),
        59: ("tso_max_size", U32),
        60: ("tso_max_segs", U32),
        61: ("allmulti", U32),
        63: ("gso_ipv4_max_size", U32),
        64: ("gro_ipv4_max_size", U32),
    },
    Header("=BxHiII", ("family", "type", "ifindex", "flags", "change")),
)
_VETH.by_number[1] = ("peer", Nested(LINK))
_VETH.by_name["peer"] = (1, Nested(LINK))


def _part(table: Table, *names: str, **others: tuple[int, Kind]) -> Table:
    """Make a table for answers of the kernel: some of the attributes of another one, and others in place of its own."""
    kept = {number: entry for number, entry in table.by_number.items() if entry[0] in names}
    kept |= {number: (name, kind) for name, (number, kind) in others.items()}
    return Table(kept, table.header, is_partial=True)


# What our plugins read; the rest is three quarters of 1 KiB.
SEEN = _part(
    LINK,
    *("address", "ifname", "mtu", "link", "master", "txqlen", "operstate", "ifalias", "promiscuity", "link_netnsid"),
    linkinfo=(
        18,
        Nested(_part(_LINKINFO, "kind", data=(2, NestedBy("kind", {"bridge": _part(_BRIDGE, "vlan_filtering")})))),
    ),
)

# The same of a link as a bridge's port.
SEEN_AS_PORT = _part(
    LINK,
    "master",
    linkinfo=(
        18,
        Nested(
            _part(
                _LINKINFO,
                "slave_kind",
                slave_data=(5, NestedBy("slave_kind", {"bridge": _part(BRIDGE_PORT, "hairpin", "isolated")})),
            )
        ),
    ),
)

# What is looked at again and again, until it is "up"; it stands in front.
SEEN_STATE = _part(LINK, "operstate")

"""RTM_*LINK as foreign programs send them: every kind of link that a CNI plugin makes, every attribute of it.

What belongs to a kind without a table here comes out below "unknown".

Source: include/uapi/linux/if_link.h, if_bridge.h, net/core/rtnetlink.c (rtnl_bridge_setlink), Linux 6.1.
"""

from cnisandbox.netlink.codec import (
    ADDRESS,
    BE16,
    FLAG,
    LLADDR,
    RAW,
    S32,
    U8,
    U16,
    U32,
    U64,
    Header,
    Many,
    Nested,
    NestedBy,
    Table,
    Text,
)
from cnisandbox.netlink.structures import List, Unterminated
from cnisandbox.netlink.tables import link

RTM_NEWLINKPROP = 108
RTM_DELLINKPROP = 109
RTM_GETLINKPROP = 110
PROPERTY_TYPES = (RTM_NEWLINKPROP, RTM_DELLINKPROP, RTM_GETLINKPROP)

NOTHING = Table({})
"""Whatever stands in it is unknown."""

_BRIDGE = Table(
    {
        **link.LINK_KINDS["bridge"].by_number,
        10: ("root_id", RAW),
        11: ("bridge_id", RAW),
        12: ("root_port", U16),
        13: ("root_path_cost", U32),
        14: ("topology_change", U8),
        15: ("topology_change_detected", U8),
        16: ("hello_timer", U64),
        17: ("tcn_timer", U64),
        18: ("topology_change_timer", U64),
        19: ("gc_timer", U64),
        21: ("fdb_flush", RAW),
        24: ("mcast_query_use_ifaddr", U8),
        26: ("mcast_hash_elasticity", U32),
        27: ("mcast_hash_max", U32),
        28: ("mcast_last_member_cnt", U32),
        29: ("mcast_startup_query_cnt", U32),
        30: ("mcast_last_member_intvl", U64),
        31: ("mcast_membership_intvl", U64),
        32: ("mcast_querier_intvl", U64),
        33: ("mcast_query_intvl", U64),
        34: ("mcast_query_response_intvl", U64),
        35: ("mcast_startup_query_intvl", U64),
        42: ("mcast_stats_enabled", U8),
        43: ("mcast_igmp_version", U8),
        44: ("mcast_mld_version", U8),
        46: ("multi_boolopt", Header("=II", ("optval", "optmask"))),
        48: ("fdb_n_learned", U32),
        49: ("fdb_max_learned", U32),
    }
)
_BRIDGE_PORT = Table(
    {
        **link.BRIDGE_PORT.by_number,
        13: ("root_id", RAW),
        14: ("bridge_id", RAW),
        15: ("designated_port", U16),
        16: ("designated_cost", U16),
        17: ("id", U16),
        18: ("no", U16),
        19: ("topology_change_ack", U8),
        20: ("config_pending", U8),
        21: ("message_age_timer", U64),
        22: ("forward_delay_timer", U64),
        23: ("hold_timer", U64),
        35: ("mrp_ring_open", U8),
        36: ("mrp_in_open", U8),
        37: ("mcast_eht_hosts_limit", U32),
        38: ("mcast_eht_hosts_cnt", U32),
        40: ("mab", U8),
        41: ("mcast_n_groups", U32),
        42: ("mcast_max_groups", U32),
        43: ("neigh_vlan_suppress", U8),
        44: ("backup_nhid", U32),
    }
)
_TUNNEL_INFO = Table({1: ("id", U32), 2: ("vid", U16), 3: ("flags", U16)})
_BRIDGE_AF_SPEC = Table(
    {
        0: ("flags", U16),
        1: ("mode", U16),
        2: ("vlan_info", Many(link.VLAN_INFO)),
        3: ("vlan_tunnel_info", Many(Nested(_TUNNEL_INFO))),
    }
)
_AF_SPEC = Table(
    {
        2: ("inet", Nested(Table({1: ("conf", RAW)}))),
        10: (
            "inet6",
            Nested(Table({1: ("flags", U32), 2: ("conf", RAW), 7: ("token", ADDRESS), 8: ("addr_gen_mode", U8)})),
        ),
    }
)
_MACVLAN = Table(
    {
        1: ("mode", U32),
        2: ("flags", U16),
        3: ("macaddr_mode", U32),
        4: ("macaddr", LLADDR),
        5: ("macaddr_data", List(LLADDR, 4)),
        6: ("macaddr_count", U32),
        7: ("bc_queue_len", U32),
        8: ("bc_queue_len_used", U32),
        9: ("bc_cutoff", S32),
    }
)
_QOS = List(Header("=II", ("from", "to")))
_VLAN = Table({**link.LINK_KINDS["vlan"].by_number, 3: ("egress_qos", _QOS), 4: ("ingress_qos", _QOS)})
_VXLAN = Table(
    {
        1: ("id", U32),
        2: ("group", ADDRESS),
        3: ("link", U32),
        4: ("local", ADDRESS),
        5: ("ttl", U8),
        6: ("tos", U8),
        7: ("learning", U8),
        8: ("ageing", U32),
        9: ("limit", U32),
        10: ("port_range", Header(">HH", ("low", "high"))),
        11: ("proxy", U8),
        12: ("rsc", U8),
        13: ("l2miss", U8),
        14: ("l3miss", U8),
        15: ("port", BE16),
        16: ("group6", ADDRESS),
        17: ("local6", ADDRESS),
        18: ("udp_csum", U8),
        19: ("udp_zero_csum6_tx", U8),
        20: ("udp_zero_csum6_rx", U8),
        21: ("remcsum_tx", U8),
        22: ("remcsum_rx", U8),
        23: ("gbp", FLAG),
        24: ("remcsum_nopartial", FLAG),
        25: ("collect_metadata", U8),
        26: ("label", U32),
        27: ("gpe", FLAG),
        28: ("ttl_inherit", U8),
        29: ("df", U8),
        30: ("vnifilter", U8),
    }
)
_TUN = Table(
    {
        1: ("owner", U32),
        2: ("group", U32),
        3: ("type", U8),
        4: ("pi", U8),
        5: ("vnet_hdr", U8),
        6: ("persist", U8),
        7: ("multi_queue", U8),
        8: ("num_queues", U32),
        9: ("num_disabled_queues", U32),
    }
)
_XDP = Table(
    {
        1: ("fd", S32),
        2: ("attached", U8),
        3: ("flags", U32),
        4: ("prog_id", U32),
        5: ("drv_prog_id", U32),
        6: ("skb_prog_id", U32),
        7: ("hw_prog_id", U32),
        8: ("expected_fd", S32),
    }
)
_VETH = Table({})  # filled below: its peer is a link

LINK_KINDS = {
    "bridge": _BRIDGE,
    "dummy": NOTHING,
    "ifb": NOTHING,
    "ipvlan": link.LINK_KINDS["ipvlan"],
    "ipvtap": link.LINK_KINDS["ipvlan"],
    "macvlan": _MACVLAN,
    "macvtap": _MACVLAN,
    "tun": _TUN,
    "veth": _VETH,
    "vlan": _VLAN,
    "vrf": link.LINK_KINDS["vrf"],
    "vxlan": _VXLAN,
}
_SLAVE_KINDS = {None: _BRIDGE_PORT, "bridge": _BRIDGE_PORT, "vrf": link.SLAVE_KINDS["vrf"]}
_LINKINFO = Table(
    {
        1: ("kind", Text(63)),
        2: ("data", NestedBy("kind", LINK_KINDS, NOTHING)),
        4: ("slave_kind", Text(63)),
        # KERNEL: whose attributes these are follows from the master that the link has. iproute2 names no slave kind.
        5: ("slave_data", NestedBy("slave_kind", _SLAVE_KINDS, NOTHING)),
    }
)
_COMMON = {
    **link.LINK.by_number,
    9: ("priority", S32),
    14: ("map", Header("=QQQHBBxxxx", ("mem_start", "mem_end", "base_addr", "irq", "dma", "port"))),
    15: ("weight", U32),
    18: ("linkinfo", Nested(_LINKINFO)),
    20: ("ifalias", Unterminated(255)),
    26: ("af_spec", Nested(_AF_SPEC)),
    34: ("phys_port_id", RAW),
    36: ("phys_switch_id", RAW),
    43: ("xdp", Nested(_XDP)),
    44: ("event", U32),
    55: ("proto_down_reason", Nested(Table({1: ("mask", U32), 2: ("value", U32)}))),
}
# KERNEL: RTM_NEWLINK is read in the same way for every family; the others are the bridge's own below AF_BRIDGE, and
# like AF_UNSPEC below any other family (rtnetlink_rcv_msg falls back to PF_UNSPEC).
NEW_LINK = Table({**_COMMON, 12: ("protinfo", NestedBy(".family", {}, NOTHING))}, link.LINK.header)
LINK = Table(
    {
        **_COMMON,
        12: ("protinfo", NestedBy(".family", {link.AF_BRIDGE: _BRIDGE_PORT}, NOTHING)),
        26: ("af_spec", NestedBy(".family", {link.AF_BRIDGE: _BRIDGE_AF_SPEC}, _AF_SPEC)),
    },
    link.LINK.header,
)
_VETH.by_number[1] = ("peer", Nested(NEW_LINK))
_VETH.by_name["peer"] = (1, Nested(NEW_LINK))

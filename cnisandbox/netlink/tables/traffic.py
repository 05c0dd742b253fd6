"""RTM_*QDISC, RTM_*TCLASS, RTM_*TFILTER, RTM_*CHAIN: traffic control.

The options of a kind without a table here come out below "unknown".

Source: include/uapi/linux/pkt_sched.h, pkt_cls.h, tc_act/*.h, net/sched/cls_u32.c, act_api.c, Linux 6.1.
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
    U64,
    Header,
    Nested,
    NestedBy,
    Table,
    Text,
)
from cnisandbox.netlink.structures import BIT_FIELD, Consecutive, Counted, Mixed
from cnisandbox.netlink.tables.foreign_link import NOTHING

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
QDISC_TYPES = (RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC)
RTM_NEWTCLASS = 40
RTM_DELTCLASS = 41
RTM_GETTCLASS = 42
CLASS_TYPES = (RTM_NEWTCLASS, RTM_DELTCLASS, RTM_GETTCLASS)
RTM_NEWTFILTER = 44
RTM_DELTFILTER = 45
RTM_GETTFILTER = 46
RTM_NEWCHAIN = 100
RTM_DELCHAIN = 101
RTM_GETCHAIN = 102
FILTER_TYPES = (RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWCHAIN, RTM_DELCHAIN, RTM_GETCHAIN)

MAX_ACTIONS = 32  # LIMIT: TCA_ACT_MAX_PRIO
MAX_MATCHES = 255  # LIMIT: one byte of a filter's tree says which

_KIND = Text(15)  # LIMIT: IFNAMSIZ with its NUL
_HEADER = Header("=BxxxiIII", ("family", "ifindex", "handle", "parent", "info"))
_RATE = "BBHhHI"


def _rate(name: str) -> tuple[str, ...]:
    """Name the fields of a `struct tc_ratespec`."""
    return (*(f"{name}_{field}" for field in ("cell_log", "linklayer", "overhead", "cell_align", "mpu")), name)


_TBF = Table(
    {
        1: ("parms", Header(f"={_RATE}{_RATE}III", (*_rate("rate"), *_rate("peakrate"), "limit", "buffer", "mtu"))),
        2: ("rtab", RAW),
        3: ("ptab", RAW),
        4: ("rate64", U64),
        5: ("prate64", U64),
        6: ("burst", U32),
        7: ("pburst", U32),
    }
)
_HTB = Table(
    {
        1: (
            "parms",
            Header(
                f"={_RATE}{_RATE}IIIII",
                (*_rate("rate"), *_rate("ceil"), "buffer", "cbuffer", "quantum", "level", "prio"),
            ),
        ),
        2: ("init", Header("=IIIII", ("version", "rate2quantum", "defcls", "debug", "direct_pkts"))),
        3: ("ctab", RAW),
        4: ("rtab", RAW),
        5: ("direct_qlen", U32),
        6: ("rate64", U64),
        7: ("ceil64", U64),
        9: ("offload", FLAG),
    }
)
_CODEL = Table({1: ("target", U32), 2: ("limit", U32), 3: ("interval", U32), 4: ("ecn", U32), 5: ("ce_threshold", U32)})
_FQ_CODEL = Table(
    {
        **_CODEL.by_number,
        5: ("flows", U32),
        6: ("quantum", U32),
        7: ("ce_threshold", U32),
        8: ("drop_batch_size", U32),
        9: ("memory_limit", U32),
        10: ("ce_threshold_selector", U8),
        11: ("ce_threshold_mask", U8),
    }
)
_FQ = Table(
    {
        1: ("plimit", U32),
        2: ("flow_plimit", U32),
        3: ("quantum", U32),
        4: ("initial_quantum", U32),
        5: ("rate_enable", U32),
        6: ("flow_default_rate", U32),
        7: ("flow_max_rate", U32),
        8: ("buckets_log", U32),
        9: ("flow_refill_delay", U32),
        10: ("orphan_mask", U32),
        11: ("low_rate_threshold", U32),
        12: ("ce_threshold", U32),
        13: ("timer_slack", U32),
        14: ("horizon", U32),
        15: ("horizon_drop", U8),
    }
)
_FIFO = Table({}, Header("=I", ("limit",)))
_PRIO = Table({2: ("compat", FLAG)}, Header("=i16B", ("bands", *(f"priomap_{index}" for index in range(16)))))
_SFQ = Table(
    {},
    Header(
        "=IiIIIIIIIIBBBBI6I",
        (
            *("quantum", "perturb_period", "limit", "divisor", "flows", "depth", "headdrop", "byte_limit", "qth_min"),
            *("qth_max", "wlog", "plog", "scell_log", "flags", "max_p", "prob_drop", "forced_drop", "prob_mark"),
            *("forced_mark", "prob_mark_head", "forced_mark_head"),
        ),
    ),
)
_NETEM = Table(
    {
        1: ("corr", Header("=III", ("delay", "loss", "duplicate"))),
        3: ("reorder", Header("=II", ("probability", "correlation"))),
        4: ("corrupt", Header("=II", ("probability", "correlation"))),
        6: ("rate", Header("=IiIi", ("rate", "packet_overhead", "cell_size", "cell_overhead"))),
        7: ("ecn", U32),
        8: ("rate64", U64),
        10: ("latency64", U64),
        11: ("jitter64", U64),
    },
    Header("=IIIIII", ("latency", "limit", "loss", "gap", "duplicate", "jitter")),
)

_QDISC_KINDS = {
    "bfifo": _FIFO,
    "clsact": NOTHING,
    "codel": _CODEL,
    "fq": _FQ,
    "fq_codel": _FQ_CODEL,
    "htb": _HTB,
    "ingress": NOTHING,
    "mq": NOTHING,
    "netem": _NETEM,
    "noqueue": NOTHING,
    "pfifo": _FIFO,
    "pfifo_fast": _PRIO,
    "prio": _PRIO,
    "sfq": _SFQ,
    "tbf": _TBF,
}

_GENERIC_ACTION = ("index", "capab", "action", "refcnt", "bindcnt")
_ACTION_KINDS = {
    "gact": Table(
        {2: ("parms", Header("=IIiii", _GENERIC_ACTION)), 3: ("prob", Header("=HHi", ("type", "val", "action")))}
    ),
    "mirred": Table({2: ("parms", Header("=IIiiiiI", (*_GENERIC_ACTION, "eaction", "ifindex"))), 4: ("blockid", U32)}),
    "skbedit": Table(
        {
            2: ("parms", Header("=IIiii", _GENERIC_ACTION)),
            3: ("priority", U32),
            4: ("queue_mapping", U16),
            5: ("mark", U32),
            7: ("ptype", U16),
            8: ("mask", U32),
            9: ("flags", U64),
            10: ("queue_mapping_max", U16),
        }
    ),
    "vlan": Table(
        {
            2: ("parms", Header("=IIiiii", (*_GENERIC_ACTION, "v_action"))),
            3: ("push_vlan_id", U16),
            4: ("push_vlan_protocol", BE16),
            6: ("push_vlan_priority", U8),
            7: ("push_eth_dst", LLADDR),
            8: ("push_eth_src", LLADDR),
        }
    ),
}
_POLICE = Table(
    {
        1: (
            "tbf",
            Header(
                f"=IiIII{_RATE}{_RATE}iiI",
                (
                    *("index", "action", "limit", "burst", "mtu"),
                    *(*_rate("rate"), *_rate("peakrate"), "refcnt", "bindcnt", "capab"),
                ),
            ),
        ),
        2: ("rate", RAW),
        3: ("peakrate", RAW),
        4: ("avrate", U32),
        5: ("result", S32),
        8: ("rate64", U64),
        9: ("peakrate64", U64),
        10: ("pktrate64", U64),
        11: ("pktburst64", U64),
    }
)
_ACTION_KINDS["police"] = _POLICE
_ACTION = Table(
    {
        1: ("kind", _KIND),
        2: ("options", NestedBy("kind", _ACTION_KINDS, NOTHING)),
        3: ("index", U32),
        6: ("cookie", RAW),
        7: ("flags", BIT_FIELD),
        8: ("hw_stats", BIT_FIELD),
    }
)
_ACTIONS = Consecutive(Nested(_ACTION), MAX_ACTIONS)
_SELECTOR = Counted(
    Mixed(
        ("=BBBx", ("flags", "offshift", "nkeys")),
        (">H", ("offmask",)),
        ("=Hhh", ("off", "offoff", "hoff")),
        (">I", ("hmask",)),
    ),
    Mixed((">II", ("mask", "val")), ("=ii", ("off", "offmask"))),
    "nkeys",
    "keys",
)
_MATCHES = Table(
    {1: ("tree_header", Header("=HH", ("nmatches", "progid"))), 2: ("tree_list", Consecutive(RAW, MAX_MATCHES))}
)
_FILTER_KINDS = {
    "basic": Table(
        {
            1: ("classid", U32),
            2: ("ematches", Nested(_MATCHES)),
            3: ("actions", _ACTIONS),
            4: ("police", Nested(_POLICE)),
            5: ("pcnt", RAW),
        }
    ),
    "fw": Table(
        {
            1: ("classid", U32),
            2: ("police", Nested(_POLICE)),
            3: ("indev", IFNAME),
            4: ("actions", _ACTIONS),
            5: ("mask", U32),
        }
    ),
    "matchall": Table({1: ("classid", U32), 2: ("actions", _ACTIONS), 3: ("flags", U32), 4: ("pcnt", RAW)}),
    "u32": Table(
        {
            1: ("classid", U32),
            2: ("hash", U32),
            3: ("link", U32),
            4: ("divisor", U32),
            5: ("sel", _SELECTOR),
            6: ("police", Nested(_POLICE)),
            7: ("actions", _ACTIONS),
            8: ("indev", IFNAME),
            9: ("pcnt", RAW),
            10: ("mark", Header("=III", ("val", "mask", "success"))),
            11: ("flags", U32),
        }
    ),
}


def _traffic(kinds: dict[str, Table]) -> Table:
    size = Header("=BBhiIIII", ("cell_log", "size_log", "cell_align", "overhead", "linklayer", "mpu", "mtu", "tsize"))
    return Table(
        {
            1: ("kind", _KIND),
            2: ("options", NestedBy("kind", kinds, NOTHING)),
            3: ("stats", RAW),
            4: ("xstats", RAW),
            5: ("rate", Header("=bB", ("interval", "ewma_log"))),
            7: ("stats2", RAW),
            8: ("stab", Nested(Table({1: ("base", size), 2: ("data", RAW)}))),
            10: ("dump_invisible", FLAG),
            11: ("chain", U32),
            12: ("hw_offload", U8),
            13: ("ingress_block", U32),
            14: ("egress_block", U32),
            15: ("dump_flags", BIT_FIELD),
            16: ("ext_warn_msg", TEXT),
        },
        _HEADER,
    )


QDISC = _traffic(_QDISC_KINDS)
CLASS = _traffic({"htb": _HTB})
FILTER = _traffic(_FILTER_KINDS)

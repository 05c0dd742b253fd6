"""NFT_MSG_*: nf_tables. Every integer is in network byte order.

The data of an expression without a table here comes out below "unknown".

Source: include/uapi/linux/netfilter/nf_tables.h, Linux 6.1 (messages from DESTROYTABLE on: 6.3).
"""

from cnisandbox.netlink.codec import BE16, BE32, RAW, U8, U32, Nested, NestedBy, Table, Text
from cnisandbox.netlink.structures import List
from cnisandbox.netlink.tables.foreign_link import NOTHING
from cnisandbox.netlink.tables.netfilter import BE64, BES32, NFGENMSG, NFNL_SUBSYS_NFTABLES

_MESSAGES = (
    *("NEWTABLE", "GETTABLE", "DELTABLE", "NEWCHAIN", "GETCHAIN", "DELCHAIN", "NEWRULE", "GETRULE", "DELRULE"),
    *("NEWSET", "GETSET", "DELSET", "NEWSETELEM", "GETSETELEM", "DELSETELEM", "NEWGEN", "GETGEN", "TRACE"),
    *("NEWOBJ", "GETOBJ", "DELOBJ", "GETOBJ_RESET", "NEWFLOWTABLE", "GETFLOWTABLE", "DELFLOWTABLE", "GETRULE_RESET"),
    *("DESTROYTABLE", "DESTROYCHAIN", "DESTROYRULE", "DESTROYSET", "DESTROYSETELEM", "DESTROYOBJ", "DESTROYFLOWTABLE"),
    "GETSETELEM_RESET",
)
NAMES = {
    (NFNL_SUBSYS_NFTABLES << 8) + number: f"NFT_MSG_{name}" for number, name in enumerate(_MESSAGES) if name != "TRACE"
}

_NAME = Text(255)  # LIMIT: NFT_NAME_MAXLEN with its NUL
_DEVICES = List(Text(15))
_VERDICT = Table({1: ("code", BES32), 2: ("chain", _NAME), 3: ("chain_id", BE32)})
_DATA = Nested(Table({1: ("value", RAW), 2: ("verdict", Nested(_VERDICT))}))

_EXPRESSION_KINDS: dict[str, Table] = {}  # filled below: some hold expressions
_EXPRESSION = Nested(Table({1: ("name", _NAME), 2: ("data", NestedBy("name", _EXPRESSION_KINDS, NOTHING))}))
_EXPRESSIONS = List(_EXPRESSION)

_COUNTER = Table({1: ("bytes", BE64), 2: ("packets", BE64), 3: ("pad", RAW)})
_LIMIT = Table(
    {1: ("rate", BE64), 2: ("unit", BE64), 3: ("burst", BE32), 4: ("type", BE32), 5: ("flags", BE32), 6: ("pad", RAW)}
)
_QUOTA = Table({1: ("bytes", BE64), 2: ("flags", BE32), 3: ("pad", RAW), 4: ("consumed", BE64)})
_CONNLIMIT = Table({1: ("count", BE32), 2: ("flags", BE32)})
_SYNPROXY = Table({1: ("mss", BE16), 2: ("wscale", U8), 3: ("flags", BE32)})
_EXTENSION = Table({1: ("name", Text(31)), 2: ("rev", BE32), 3: ("info", RAW)})

_EXPRESSION_KINDS |= {
    "bitwise": Table(
        {
            1: ("sreg", BE32),
            2: ("dreg", BE32),
            3: ("len", BE32),
            4: ("mask", _DATA),
            5: ("xor", _DATA),
            6: ("op", BE32),
            7: ("data", _DATA),
            8: ("sreg2", BE32),
        }
    ),
    "byteorder": Table({1: ("sreg", BE32), 2: ("dreg", BE32), 3: ("op", BE32), 4: ("len", BE32), 5: ("size", BE32)}),
    "cmp": Table({1: ("sreg", BE32), 2: ("op", BE32), 3: ("data", _DATA)}),
    "connlimit": _CONNLIMIT,
    "counter": _COUNTER,
    "ct": Table({1: ("dreg", BE32), 2: ("key", BE32), 3: ("direction", U8), 4: ("sreg", BE32)}),
    "dup": Table({1: ("sreg_addr", BE32), 2: ("sreg_dev", BE32)}),
    "dynset": Table(
        {
            1: ("set_name", _NAME),
            2: ("set_id", BE32),
            3: ("op", BE32),
            4: ("sreg_key", BE32),
            5: ("sreg_data", BE32),
            6: ("timeout", BE64),
            7: ("expr", _EXPRESSION),
            8: ("pad", RAW),
            9: ("flags", BE32),
            10: ("expressions", _EXPRESSIONS),
        }
    ),
    "exthdr": Table(
        {
            1: ("dreg", BE32),
            2: ("type", U8),
            3: ("offset", BE32),
            4: ("len", BE32),
            5: ("flags", BE32),
            6: ("op", BE32),
            7: ("sreg", BE32),
        }
    ),
    "fib": Table({1: ("dreg", BE32), 2: ("result", BE32), 3: ("flags", BE32)}),
    "flow_offload": Table({1: ("table_name", _NAME)}),
    "fwd": Table({1: ("sreg_dev", BE32), 2: ("sreg_addr", BE32), 3: ("nfproto", BE32)}),
    "hash": Table(
        {
            1: ("sreg", BE32),
            2: ("dreg", BE32),
            3: ("len", BE32),
            4: ("modulus", BE32),
            5: ("seed", BE32),
            6: ("offset", BE32),
            7: ("type", BE32),
            8: ("set_name", _NAME),
            9: ("set_id", BE32),
        }
    ),
    "immediate": Table({1: ("dreg", BE32), 2: ("data", _DATA)}),
    "last": Table({1: ("set", BE32), 2: ("msecs", BE64), 3: ("pad", RAW)}),
    "limit": _LIMIT,
    "log": Table(
        {
            1: ("group", BE16),
            2: ("prefix", Text(127)),
            3: ("snaplen", BE32),
            4: ("qthreshold", BE16),
            5: ("level", BE32),
            6: ("flags", BE32),
        }
    ),
    "lookup": Table({1: ("set", _NAME), 2: ("sreg", BE32), 3: ("dreg", BE32), 4: ("set_id", BE32), 5: ("flags", BE32)}),
    "masq": Table({1: ("flags", BE32), 2: ("reg_proto_min", BE32), 3: ("reg_proto_max", BE32)}),
    "match": _EXTENSION,
    "meta": Table({1: ("dreg", BE32), 2: ("key", BE32), 3: ("sreg", BE32)}),
    "nat": Table(
        {
            1: ("type", BE32),
            2: ("family", BE32),
            3: ("reg_addr_min", BE32),
            4: ("reg_addr_max", BE32),
            5: ("reg_proto_min", BE32),
            6: ("reg_proto_max", BE32),
            7: ("flags", BE32),
        }
    ),
    "notrack": NOTHING,
    "numgen": Table(
        {
            1: ("dreg", BE32),
            2: ("modulus", BE32),
            3: ("type", BE32),
            4: ("offset", BE32),
            5: ("set_name", _NAME),
            6: ("set_id", BE32),
        }
    ),
    "objref": Table(
        {
            1: ("imm_type", BE32),
            2: ("imm_name", _NAME),
            3: ("set_sreg", BE32),
            4: ("set_name", _NAME),
            5: ("set_id", BE32),
        }
    ),
    "osf": Table({1: ("dreg", BE32), 2: ("ttl", U8), 3: ("flags", BE32)}),
    "payload": Table(
        {
            1: ("dreg", BE32),
            2: ("base", BE32),
            3: ("offset", BE32),
            4: ("len", BE32),
            5: ("sreg", BE32),
            6: ("csum_type", BE32),
            7: ("csum_offset", BE32),
            8: ("csum_flags", BE32),
        }
    ),
    "queue": Table({1: ("num", BE16), 2: ("total", BE16), 3: ("flags", BE16), 4: ("sreg_qnum", BE32)}),
    "quota": _QUOTA,
    "range": Table({1: ("sreg", BE32), 2: ("op", BE32), 3: ("from_data", _DATA), 4: ("to_data", _DATA)}),
    "redir": Table({1: ("reg_proto_min", BE32), 2: ("reg_proto_max", BE32), 3: ("flags", BE32)}),
    "reject": Table({1: ("type", BE32), 2: ("icmp_code", U8)}),
    "rt": Table({1: ("dreg", BE32), 2: ("key", BE32)}),
    "socket": Table({1: ("key", BE32), 2: ("dreg", BE32), 3: ("level", BE32)}),
    "synproxy": _SYNPROXY,
    "target": _EXTENSION,
    "tproxy": Table({1: ("family", BE32), 2: ("reg_addr", BE32), 3: ("reg_port", BE32)}),
    "xfrm": Table({1: ("dreg", BE32), 2: ("key", BE32), 3: ("dir", U8), 4: ("spnum", BE32)}),
}

# The numbers are the states of the protocol, of which TCP has the most.
_TIMEOUTS = Table({number: (f"timeout_{number}", BE32) for number in range(1, 15)})

# By NFT_OBJECT_*.
_OBJECT_KINDS = {
    1: _COUNTER,
    2: _QUOTA,
    3: Table({1: ("name", Text(15)), 2: ("l3proto", BE16), 3: ("l4proto", U8)}),
    4: _LIMIT,
    5: _CONNLIMIT,
    7: Table({1: ("l3proto", BE16), 2: ("l4proto", U8), 3: ("data", Nested(_TIMEOUTS))}),
    8: Table({1: ("ctx", Text())}),
    9: Table({1: ("l3proto", BE16), 2: ("l4proto", U8), 3: ("dport", BE16), 4: ("timeout", U32), 5: ("size", U8)}),
    10: _SYNPROXY,
}

_TABLE = Table(
    {
        1: ("name", _NAME),
        2: ("flags", BE32),
        3: ("use", BE32),
        4: ("handle", BE64),
        5: ("pad", RAW),
        6: ("userdata", RAW),
        7: ("owner", BE32),
    },
    NFGENMSG,
)
_HOOK = Table({1: ("hooknum", BE32), 2: ("priority", BES32), 3: ("dev", Text(15)), 4: ("devs", _DEVICES)})
_CHAIN = Table(
    {
        1: ("table", _NAME),
        2: ("handle", BE64),
        3: ("name", _NAME),
        4: ("hook", Nested(_HOOK)),
        5: ("policy", BE32),
        6: ("use", BE32),
        7: ("type", _NAME),
        8: ("counters", Nested(_COUNTER)),
        9: ("pad", RAW),
        10: ("flags", BE32),
        11: ("id", BE32),
        12: ("userdata", RAW),
    },
    NFGENMSG,
)
_RULE = Table(
    {
        1: ("table", _NAME),
        2: ("chain", _NAME),
        3: ("handle", BE64),
        4: ("expressions", _EXPRESSIONS),
        5: ("compat", Nested(Table({1: ("proto", BE32), 2: ("flags", BE32)}))),
        6: ("position", BE64),
        7: ("userdata", RAW),
        8: ("pad", RAW),
        9: ("id", BE32),
        10: ("position_id", BE32),
        11: ("chain_id", BE32),
    },
    NFGENMSG,
)
_DESCRIPTION = Table({1: ("size", BE32), 2: ("concat", List(Nested(Table({1: ("len", BE32)}))))})
_SET = Table(
    {
        1: ("table", _NAME),
        2: ("name", _NAME),
        3: ("flags", BE32),
        4: ("key_type", BE32),
        5: ("key_len", BE32),
        6: ("data_type", BE32),
        7: ("data_len", BE32),
        8: ("policy", BE32),
        9: ("desc", Nested(_DESCRIPTION)),
        10: ("id", BE32),
        11: ("timeout", BE64),
        12: ("gc_interval", BE32),
        13: ("userdata", RAW),
        14: ("pad", RAW),
        15: ("obj_type", BE32),
        16: ("handle", BE64),
        17: ("expr", _EXPRESSION),
        18: ("expressions", _EXPRESSIONS),
        19: ("type", _NAME),
        20: ("count", BE32),
    },
    NFGENMSG,
)
_ELEMENT = Table(
    {
        1: ("key", _DATA),
        2: ("data", _DATA),
        3: ("flags", BE32),
        4: ("timeout", BE64),
        5: ("expiration", BE64),
        6: ("userdata", RAW),
        7: ("expr", _EXPRESSION),
        8: ("pad", RAW),
        9: ("objref", _NAME),
        10: ("key_end", _DATA),
        11: ("expressions", _EXPRESSIONS),
    }
)
_ELEMENTS = Table(
    {
        1: ("table", _NAME),
        2: ("set", _NAME),
        3: ("elements", List(Nested(_ELEMENT), is_numbered=True)),
        4: ("set_id", BE32),
    },
    NFGENMSG,
)
_GENERATION = Table({1: ("id", BE32), 2: ("proc_pid", BE32), 3: ("proc_name", Text())}, NFGENMSG)
_OBJECT = Table(
    {
        1: ("table", _NAME),
        2: ("name", _NAME),
        3: ("type", BE32),
        4: ("data", NestedBy("type", _OBJECT_KINDS, NOTHING)),
        5: ("use", BE32),
        6: ("handle", BE64),
        7: ("pad", RAW),
        8: ("userdata", RAW),
    },
    NFGENMSG,
)
_FLOWTABLE_HOOK = Table({1: ("num", BE32), 2: ("priority", BES32), 3: ("devs", _DEVICES)})
_FLOWTABLE = Table(
    {
        1: ("table", _NAME),
        2: ("name", _NAME),
        3: ("hook", Nested(_FLOWTABLE_HOOK)),
        4: ("use", BE32),
        5: ("handle", BE64),
        6: ("pad", RAW),
        7: ("flags", BE32),
    },
    NFGENMSG,
)

_OBJECTS = {
    "TABLE": _TABLE,
    "CHAIN": _CHAIN,
    "RULE": _RULE,
    "SET": _SET,
    "SETELEM": _ELEMENTS,
    "GEN": _GENERATION,
    "OBJ": _OBJECT,
    "FLOWTABLE": _FLOWTABLE,
}
_VERBS = ("NEW", "GET", "DEL", "DESTROY")


def _tables() -> dict[int, Table]:
    by_name = {f"NFT_MSG_{verb}{name}": table for verb in _VERBS for name, table in _OBJECTS.items()}
    return {type_: by_name[name.removesuffix("_RESET")] for type_, name in NAMES.items()}


TABLES = _tables()

"""NETLINK_GENERIC: the controller, and what may be asked about links through ethtool.

A message's table depends on its family, whose number is the running kernel's, and its command. Of the messages that
change something only the header is known, so the rest of them is unknown.

Source: include/uapi/linux/genetlink.h, ethtool_netlink.h, Linux 6.1.
"""

from cnisandbox.netlink.codec import FLAG, U16, U32, Header, Nested, Table, Text
from cnisandbox.netlink.structures import Consecutive, List

GENL_ID_CTRL = 16
CONTROLLER = "nlctrl"

_HEADER = Header("=BBxx", ("command", "version"))
_MAX_OPERATIONS = 1024  # LIMIT: commands are one byte; well above what any family has

_CONTROL = Table(
    {
        1: ("family_id", U16),
        2: ("family_name", Text(15)),
        3: ("version", U32),
        4: ("hdrsize", U32),
        5: ("maxattr", U32),
        6: ("ops", Consecutive(Nested(Table({1: ("id", U32), 2: ("flags", U32)})), _MAX_OPERATIONS)),
        7: ("mcast_groups", Consecutive(Nested(Table({1: ("name", Text(15)), 2: ("id", U32)})), _MAX_OPERATIONS)),
        10: ("op", U32),
    },
    _HEADER,
)
# Called "header" in the kernel, which is the name of what stands in front of all attributes here.
_LINK = ("link", Nested(Table({1: ("dev_index", U32), 2: ("dev_name", Text(15)), 3: ("flags", U32)})))
_ETHTOOL = Table({1: _LINK}, _HEADER)
_STRING_SETS = List(Nested(Table({1: ("id", U32)})))
_ETHTOOL_STRINGS = Table({1: _LINK, 2: ("stringsets", _STRING_SETS), 3: ("counts_only", FLAG)}, _HEADER)

_ETHTOOL_MESSAGES = (
    *("STRSET_GET", "LINKINFO_GET", "LINKINFO_SET", "LINKMODES_GET", "LINKMODES_SET", "LINKSTATE_GET", "DEBUG_GET"),
    *("DEBUG_SET", "WOL_GET", "WOL_SET", "FEATURES_GET", "FEATURES_SET", "PRIVFLAGS_GET", "PRIVFLAGS_SET"),
    *("RINGS_GET", "RINGS_SET", "CHANNELS_GET", "CHANNELS_SET", "COALESCE_GET", "COALESCE_SET", "PAUSE_GET"),
    *("PAUSE_SET", "EEE_GET", "EEE_SET", "TSINFO_GET", "CABLE_TEST_ACT", "CABLE_TEST_TDR_ACT", "TUNNEL_INFO_GET"),
    *("FEC_GET", "FEC_SET", "MODULE_EEPROM_GET", "STATS_GET", "PHC_VCLOCKS_GET", "MODULE_GET", "MODULE_SET"),
    *("PSE_GET", "PSE_SET"),
)

# Family to command to name and table.
FAMILIES: dict[str, dict[int, tuple[str, Table]]] = {
    CONTROLLER: {
        1: ("CTRL_CMD_NEWFAMILY", _CONTROL),
        3: ("CTRL_CMD_GETFAMILY", _CONTROL),
        10: ("CTRL_CMD_GETPOLICY", _CONTROL),
    },
    "ethtool": {
        number: (f"ETHTOOL_MSG_{name}", _ETHTOOL_STRINGS if name == "STRSET_GET" else _ETHTOOL)
        for number, name in enumerate(_ETHTOOL_MESSAGES, 1)
    },
}

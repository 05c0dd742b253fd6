"""What CAP_NET_ADMIN is for, by rtnetlink and sysctls: links, addresses, routes. Each with its judge.

Every attempt takes the name of the link that it is about, and every judge where to look: the same is tried on the
container's network and on the host's.
"""

import errno
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import observe, raw
from cnisandbox.laboratory.attacker.capabilities import missing
from cnisandbox.laboratory.attacker.knowledge import Facts

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

IFF_UP, IFF_PROMISC = 0x1, 0x100
IFLA_ADDRESS, IFLA_MTU, IFLA_MASTER, IFLA_PROMISCUITY, IFLA_CARRIER = 1, 4, 10, 30, 33
RTM_GETNEIGH = 30

MTU, MAC = 1280, bytes.fromhex("02005e0000b0")
ADDRESS, GROUP = "10.9.0.77", "239.9.9.9"
HOST_ADDRESS, OWN_ADDRESS = "10.9.0.1", "10.9.0.2"

_NEW = raw.NLM_F_ACK | raw.NLM_F_CREATE | raw.NLM_F_EXCL
_NEW_LINK = "esc0"
_PREFIX, _TABLE, _PRIORITY = "198.51.100.0", 909, 909
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_F_MCAUTOJOIN = 1, 2, 8, 0x400
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_NEWRULE, _RTM_GETRULE = 20, 24, 26, 28, 32, 34
_RTA_DST, _RTA_OIF, _RTA_TABLE, _FRA_PRIORITY = 1, 4, 15, 6
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST, _FR_ACT_TO_TBL = 254, 4, 253, 1, 1
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_AF_INET_DUMP = bytes([socket.AF_INET]) + b"\0" * 11
_FORWARDING = "net/ipv4/ip_forward"
_CLONE_NEWNET = 0x40000000


def _claim(ifname: str) -> None:
    """Have the link taken for the one that the netconf names, by those who believe what the attacker says."""
    raw.name_links("bridge", [ifname])


def change_link(ifname: str, *parts: bytes, flags: int = 0, change: int = 0) -> None:
    """Look a link up and send RTM_SETLINK for it."""
    _claim(ifname)
    channel = raw.Netlink()
    body = raw.link_body(*parts, ifindex=ifindex_of(channel, ifname), flags=flags, change=change)
    channel.request(raw.RTM_SETLINK, body)


def ifindex_of(channel: raw.Netlink, ifname: str) -> int:
    """Look an ifindex up as the attacker can."""
    return raw.integer(channel.links()[ifname][0])


def packed(address: str) -> bytes:
    """Encode an IPv4 address."""
    return socket.inet_aton(address)


def _attribute_of(arena: "Arena", netns: str, ifname: str, kind: int) -> bytes:
    """Read an attribute of a link; empty where there is no such link."""
    found = observe.link(arena, ifname, netns)
    return found.attributes.get(kind, b"") if found else b""


# Links


def set_down(ifname: str, facts: Facts) -> None:
    change_link(ifname, change=IFF_UP)


def is_down(netns: str, ifname: str, arena: "Arena") -> bool:
    found = observe.link(arena, ifname, netns)
    return found is not None and not found.flags & IFF_UP


def set_mtu(ifname: str, facts: Facts) -> None:
    change_link(ifname, raw.attribute(IFLA_MTU, MTU))


def has_mtu(netns: str, ifname: str, arena: "Arena") -> bool:
    return _attribute_of(arena, netns, ifname, IFLA_MTU) == struct.pack("=I", MTU)


def set_mac(ifname: str, facts: Facts) -> None:
    change_link(ifname, raw.attribute(IFLA_ADDRESS, MAC))


def has_mac(netns: str, ifname: str, arena: "Arena") -> bool:
    return _attribute_of(arena, netns, ifname, IFLA_ADDRESS) == MAC


def delete(ifname: str, facts: Facts) -> None:
    _claim(ifname)
    channel = raw.Netlink()
    channel.request(raw.RTM_DELLINK, raw.link_body(ifindex=ifindex_of(channel, ifname)))


def is_gone(netns: str, ifname: str, arena: "Arena") -> bool:
    return observe.link(arena, ifname, netns) is None


def create_bridge(facts: Facts) -> None:
    _claim(_NEW_LINK)
    raw.Netlink().create(raw.attribute(raw.IFLA_IFNAME, _NEW_LINK), raw.link_info("bridge"))


def has_new_link(netns: str, arena: "Arena") -> bool:
    return not is_gone(netns, _NEW_LINK, arena)


def set_promiscuous(ifname: str, facts: Facts) -> None:
    change_link(ifname, flags=IFF_PROMISC, change=IFF_PROMISC)


def is_promiscuous(netns: str, ifname: str, arena: "Arena") -> bool:
    return _attribute_of(arena, netns, ifname, IFLA_PROMISCUITY) not in (b"", bytes(4))


# Addresses


def _add_address(ifname: str, address: str, prefixlen: int, flags: int = 0) -> None:
    _claim(ifname)
    channel = raw.Netlink()
    header = struct.pack("=BBBBi", socket.AF_INET, prefixlen, 0, 0, ifindex_of(channel, ifname))
    attributes = raw.attribute(_IFA_LOCAL, packed(address)) + raw.attribute(_IFA_ADDRESS, packed(address))
    channel.request(_RTM_NEWADDR, header + attributes + raw.attribute(_IFA_FLAGS, flags), _NEW)


def add_address(ifname: str, facts: Facts) -> None:
    _add_address(ifname, ADDRESS, 24)


def has_address(netns: str, arena: "Arena") -> bool:
    bodies = observe.dump(arena, raw.RTM_GETADDR, bytes(8), netns)
    return any(raw.attributes(body[8:]).get(_IFA_ADDRESS) == packed(ADDRESS) for body in bodies)


def join_group(ifname: str, facts: Facts) -> None:
    """Have the kernel join a multicast group, without a socket that could."""
    _add_address(ifname, GROUP, 32, _IFA_F_MCAUTOJOIN)


def has_joined_group(netns: str, arena: "Arena") -> bool:
    return packed(GROUP)[::-1].hex().upper() in observe.read(arena, "/proc/net/igmp", netns)


# Routes, rules, neighbours


def add_route(ifname: str, facts: Facts) -> None:
    """Add a route to a prefix that is on the link."""
    channel = raw.Netlink()
    kinds = (_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST)
    header = struct.pack("=8BI", socket.AF_INET, 24, 0, 0, *kinds, 0)
    destination, link = raw.attribute(_RTA_DST, packed(_PREFIX)), raw.attribute(_RTA_OIF, ifindex_of(channel, ifname))
    channel.request(_RTM_NEWROUTE, header + destination + link, _NEW)


def has_route(netns: str, arena: "Arena") -> bool:
    bodies = observe.dump(arena, _RTM_GETROUTE, _AF_INET_DUMP, netns)
    return any(raw.attributes(body[12:]).get(_RTA_DST) == packed(_PREFIX) for body in bodies)


def add_rule(facts: Facts) -> None:
    """Have a table of the attacker's asked for every route."""
    header = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    attributes = raw.attribute(_FRA_PRIORITY, _PRIORITY) + raw.attribute(_RTA_TABLE, _TABLE)
    raw.Netlink().request(_RTM_NEWRULE, header + attributes, _NEW)


def has_rule(netns: str, arena: "Arena") -> bool:
    bodies = observe.dump(arena, _RTM_GETRULE, _AF_INET_DUMP, netns)
    return any(raw.attributes(body[12:]).get(_FRA_PRIORITY) == struct.pack("=I", _PRIORITY) for body in bodies)


def lacks_rules() -> str:
    """Name the option without which there is one routing table."""

    def list_rules() -> None:
        raw.Netlink().request(_RTM_GETRULE, _AF_INET_DUMP, raw.NLM_F_DUMP)

    return missing("CONFIG_IP_MULTIPLE_TABLES", list_rules, errno.EOPNOTSUPP)


def add_neighbour(ifname: str, facts: Facts) -> None:
    channel = raw.Netlink()
    header = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, ifindex_of(channel, ifname), _NUD_PERMANENT, 0, 0)
    attributes = raw.attribute(_NDA_DST, packed(ADDRESS)) + raw.attribute(_NDA_LLADDR, MAC)
    channel.request(_RTM_NEWNEIGH, header + attributes, _NEW)


def neighbour_mac(arena: "Arena", netns: str) -> bytes:
    """Say which hardware address a netns has noted for ADDRESS; empty when none."""
    for body in observe.dump(arena, RTM_GETNEIGH, _AF_INET_DUMP, netns):
        attributes = raw.attributes(body[12:])
        if attributes.get(_NDA_DST) == packed(ADDRESS):
            return attributes.get(_NDA_LLADDR, b"")
    return b""


def has_neighbour(netns: str, arena: "Arena") -> bool:
    return neighbour_mac(arena, netns) == MAC


# Settings


def forward_packets(facts: Facts) -> None:
    raw.write_setting(_FORWARDING, b"1")


def forwards_packets(netns: str, arena: "Arena") -> bool:
    return observe.read(arena, f"/proc/sys/{_FORWARDING}", netns) == "1\n"


def in_fresh_netns(probe: Callable[[], object]) -> None:
    """Use a feature where it leaves no trace; in a fork that ends afterwards."""
    raw.syscall("unshare", _CLONE_NEWNET)
    probe()

"""Datagrams that programs have sent to the kernel: recorded with strace, one per line: protocol, origin, hex.

    plugins.txt  the reference plugins (containernetworking-plugins 1.1.1) with their iptables (1.8.9); the origin is
                 "<plugin>-<verb>"
    tools.txt    ip, bridge, tc, genl (iproute2 6.1), nft (1.0.6), iptables, ip6tables, ebtables, arptables, in the
                 order in which they were sent in an empty netns, so that they can be sent again

Datagrams that differ only in what every run has otherwise are there once; those that change something are all in
tools.txt, because each depends on the ones before.
"""

from pathlib import Path
from typing import NamedTuple

from cnisandbox.netlink.datagram import NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE

PROTOCOLS = {"route": NETLINK_ROUTE, "netfilter": NETLINK_NETFILTER, "generic": NETLINK_GENERIC}


class Recorded(NamedTuple):
    """One datagram."""

    protocol: int
    origin: str
    data: bytes


def recorded(name: str) -> list[Recorded]:
    """Read a file of this directory."""
    lines = (line.split() for line in Path(__file__).with_name(f"{name}.txt").read_text().splitlines())
    return [Recorded(PROTOCOLS[protocol], origin, bytes.fromhex(data)) for protocol, origin, data in lines]

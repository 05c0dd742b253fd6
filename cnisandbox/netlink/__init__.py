"""Links, addresses, routes, bridge ports: the only module that opens AF_NETLINK sockets.

    codec.py       strict, bounded encoding and decoding of messages, from declarative tables
    tables/        the tables, one file per message family
    transport.py   a socket that sends requests, alone, as a batch or as a dump, and matches the answers
    links.py, veth.py, bridge.py, addresses.py, routes.py, interface.py
                   what plugins ask for: functions that a worker may be asked to run

The codec is our own because a worker loads it cold for every call (pyroute2's message classes cost 30 ms, which pull in
logging), and because what judges a hostile peer's messages has to be strict where a library is obliging.

Privilege: CAP_NET_ADMIN in the user namespace that owns the netns the process stands in; uid does not matter. Nothing
here uses ioctl, /sys, or any file but those below /proc/sys/net.
"""

"""What is sent in place of a refused message, so that the kernel itself refuses it.

It is sent without the capability. The kernel then answers EPERM with the number of the program's message, exactly as it
answers a program that has none: nothing of the program's content is in it.

Source: net/core/rtnetlink.c (rtnetlink_rcv_msg), net/netfilter/nfnetlink.c (nfnetlink_rcv), Linux 6.1.
"""

import struct
from collections.abc import Sequence

from cnisandbox.netlink.codec import Attributes
from cnisandbox.netlink.datagram import NETLINK_NETFILTER, NETLINK_ROUTE, encode_datagram
from cnisandbox.netlink.message import NLM_F_ACK, NLM_F_REQUEST, Message

_NLMSGHDR = struct.Struct("=IHHII")
_RTM_GETLINK = 18
_RTM_SETLINK = 19  # asked of whoever sends it to have the capability, before anything in it is read
_IFINFOMSG = bytes(16)
_NFNL_MSG_BATCH_BEGIN = 0x10
_NFGENMSG = bytes((0, 0, 0, 10))  # res_id: nf_tables


def stand_in(protocol: int, messages: Sequence[Message]) -> bytes:
    """Make the datagram that stands in for a refused one.

    Args:
        protocol: Which netlink protocol.
        messages: What the program sent; at least one.

    Returns:
        One message for each, or one for all where a batch is refused as a whole; empty where there is none that the
        kernel would refuse: then sending has to fail.
    """
    if protocol == NETLINK_ROUTE:
        return b"".join(_bare(_RTM_SETLINK, message, _IFINFOMSG) for message in messages)
    if protocol == NETLINK_NETFILTER:
        return _bare(_NFNL_MSG_BATCH_BEGIN, messages[0], _NFGENMSG)
    return b""


def look_for(ifindex: int, ifname: str, message: Message) -> bytes:
    """Make the datagram that stands in for a message about a link that is not there.

    Links go by themselves, with their peer or their netns, while somebody is about to delete them: he is to be told
    that there is none (ENODEV), not that he may not. The kernel says so when it is asked for the link, which needs no
    capability.

    Args:
        ifindex: The link's number, which is not used again; 0: it is named.
        ifname: The link's name.
        message: What the program sent.
    """
    attributes: Attributes = {} if ifindex else {"ifname": ifname}
    header = {"family": 0, "type": 0, "ifindex": ifindex, "flags": 0, "change": 0}
    flags = NLM_F_REQUEST | NLM_F_ACK
    request = Message(_RTM_GETLINK, flags, message.sequence, message.port, header, attributes)
    return encode_datagram(NETLINK_ROUTE, [request])


def _bare(type_: int, message: Message, body: bytes) -> bytes:
    length = _NLMSGHDR.size + len(body)
    return _NLMSGHDR.pack(length, type_, NLM_F_REQUEST | NLM_F_ACK, message.sequence, message.port) + body

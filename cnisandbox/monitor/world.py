"""What the judge asks about the kernel's state, asked of the kernel at that moment over sockets of our own.

Privilege: none; looking needs no capability.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import errno
import struct
from collections.abc import Callable

from cnisandbox.errors import KernelRefused
from cnisandbox.netlink.codec import (
    S32,
    TEXT,
    U32,
    Attributes,
    CodecError,
    Text,
    find_attributes,
    numbers_of_attributes,
    pack_attribute,
)
from cnisandbox.netlink.datagram import NETLINK_NETFILTER, NETLINK_ROUTE, encode_datagram
from cnisandbox.netlink.message import NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, Message, decode_messages
from cnisandbox.netlink.tables.link import RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_NEWLINK
from cnisandbox.netlink.tables.monitored import NETFILTER_TABLES, ROUTE_TABLES
from cnisandbox.netlink.tables.route import RTM_GETROUTE
from cnisandbox.policy.judge import LinkFacts
from cnisandbox.policy.links import Look

# LIMIT: a dump's datagram is at most 32 KiB; for 128 KiB the C library would map memory anew at each call.
_RECEIVE_BYTES = 1 << 16
_TIMEOUT_S = 5  # LIMIT: the kernel answers within send(); more means that the answer was lost
_LINK_REQUEST = struct.Struct("=IHHIIBxHiIIHHI")  # nlmsghdr, ifinfomsg, IFLA_EXT_MASK
_EXT_MASK_SIZE = 8
_IFLA_IFNAME, _IFLA_EXT_MASK, _IFLA_ALT_IFNAME = 3, 29, 53
_IFNAMSIZ = 16
_NLMSGHDR = struct.Struct("=IHHII")
_IFINDEX, _IFINDEX_AT = struct.Struct("=i"), 20
# IFLA_IFNAME, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_LINK_NETNSID, IFLA_LINK; IFLA_INFO_KIND
_OF_LINK, _OF_LINKINFO = numbers_of_attributes((3, 18, 20, 37, 5)), numbers_of_attributes((1,))
_ALT_IFNAME = Text(127)
_ROUTE_HEADER = dict.fromkeys(("family", "dst_len", "src_len", "tos", "table", "protocol", "scope", "type", "flags"), 0)
_MAIN_TABLE = 254
_NFT_MSG_GETCHAIN, _NFT_MSG_GETRULE = 0x0A04, 0x0A07


def link_request(sequence: int, ifindex: int, ifname: str) -> bytes:
    """Write the request for a link as the codec would: most of what is asked are links, several for one judgement.

    Raises:
        CodecError: No link can have the name.
    """
    name = b""
    if not ifindex:
        # KERNEL: either attribute finds a link by either kind of name; a long one has room in the second only.
        data = _ALT_IFNAME.pack(ifname)
        name = pack_attribute(_IFLA_IFNAME if len(data) <= _IFNAMSIZ else _IFLA_ALT_IFNAME, data)
    head = (_LINK_REQUEST.size + len(name), RTM_GETLINK, NLM_F_REQUEST, sequence, 0)
    mask = (_EXT_MASK_SIZE, _IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return _LINK_REQUEST.pack(*head, 0, 0, ifindex, 0, 0, *mask) + name


class Asker:
    """A netlink socket of our own in one netns.

    Args:
        fd: The socket; it is ours from here on.
        protocol: Which netlink protocol it speaks.
    """

    def __init__(self, fd: int, protocol: int) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol, fd)
        self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, struct.pack("=qq", _TIMEOUT_S, 0))
        self._socket.bind((0, 0))
        self._protocol = protocol
        self._sequence = 0

    def ask(self, message: Message) -> list[Message]:
        """Send a request for objects, and collect them.

        Returns:
            None of them when the kernel knows no such object.
        """
        self._sequence += 1
        request = message._replace(sequence=self._sequence)
        self._socket.sendto(encode_datagram(self._protocol, [request]), (0, 0))
        return self._collect(is_dump=message.flags & NLM_F_DUMP == NLM_F_DUMP)

    def look(self, ifindex: int, ifname: str) -> LinkFacts | None:
        """Look at a link, by index if that is not 0, else by name, which may be an alternative one."""
        self._sequence += 1
        self._socket.sendto(link_request(self._sequence, ifindex, ifname), (0, 0))
        while True:
            data, sender = self._socket.recvfrom(_RECEIVE_BYTES)
            if sender[0] != 0:  # TRUST: any process of the netns may send to our port; the kernel's port is 0
                continue
            length, type_, _, sequence, _ = _NLMSGHDR.unpack_from(data)
            if sequence == self._sequence:  # else of a request whose answer came too late
                return _facts(data, length) if type_ == RTM_NEWLINK else None

    def _collect(self, *, is_dump: bool) -> list[Message]:
        found: list[Message] = []
        while True:
            for answer in self._receive():
                if answer.sequence != self._sequence:
                    continue  # of a request whose answers came too late
                if answer.type in (NLMSG_ERROR, NLMSG_DONE):
                    return found
                found.append(answer)
                if not is_dump:
                    return found

    def _receive(self) -> list[Message]:
        data, _, _, sender = self._socket.recvmsg(_RECEIVE_BYTES)
        if sender[0] != 0:  # TRUST: any process of the netns may send to our port; the kernel's port is 0
            return []
        tables = ROUTE_TABLES if self._protocol == NETLINK_ROUTE else NETFILTER_TABLES
        try:
            return decode_messages(data, tables)
        except CodecError as error:
            raise KernelRefused("look at", "links", errno.EBADMSG, str(error)) from None


class KernelWorld:
    """The kernel's state of the host's and of the container's netns.

    Args:
        open_socket: Makes a netlink socket: netns, protocol.
        descriptors: Our descriptors of the two netns, by "host" and "container".
        attachment: Name of the interface in the container.
        netns_of: Tells which netns a descriptor of the program means.
    """

    def __init__(
        self,
        open_socket: Callable[[str, int], int],
        descriptors: dict[str, int],
        attachment: str,
        netns_of: Callable[[int], str | None],
    ) -> None:
        self._open_socket = open_socket
        self._descriptors = descriptors
        self._attachment = attachment
        self.netns_of = netns_of
        self._askers: dict[tuple[str, int], Asker] = {}

    def _asker(self, netns: str, protocol: int) -> Asker:
        key = (netns, protocol)
        if key not in self._askers:
            self._askers[key] = Asker(self._open_socket(netns, protocol), protocol)
        return self._askers[key]

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        """Look at a link, by index if that is not 0, else by name."""
        if netns not in self._descriptors:
            return None
        return self._asker(netns, NETLINK_ROUTE).look(ifindex, ifname)

    def peer(self, look: Look) -> LinkFacts | None:
        """Find the host's end of the attachment's veth: what its IFLA_LINK names in another netns, whose peer it is."""
        inside = look("container", 0, self._attachment)
        if inside is None or inside.kind != "veth" or not inside.peer or inside.link_netnsid is None:
            return None
        outside = look("host", inside.peer, "")
        is_pair = outside is not None and outside.kind == "veth" and outside.peer == inside.ifindex
        return outside if is_pair and outside is not None and outside.link_netnsid is not None else None

    def default_route_links(self, netns: str) -> tuple[int, ...]:
        """List the links of the default routes of the main table."""
        links: list[int] = []
        for family in (2, 10):
            header = {**_ROUTE_HEADER, "family": family}
            request = Message(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 0, 0, header, {})
            for route in self._asker(netns, NETLINK_ROUTE).ask(request):
                is_default = route.header["dst_len"] == 0 and route.header["table"] == _MAIN_TABLE
                if is_default and "oif" in route.attributes:
                    links.append(route.attributes["oif"])
        return tuple(dict.fromkeys(links))

    def descriptor_of(self, netns: str) -> int:
        """Say which descriptor of ours means a netns."""
        return self._descriptors[netns]

    def chain_handle(self, netns: str, family: int, table: str, chain: str) -> int | None:
        """Say what number a chain of nf_tables has."""
        header = {"family": family, "version": 0, "res_id": 0}
        request = Message(_NFT_MSG_GETCHAIN, NLM_F_REQUEST, 0, 0, header, {"table": table, "name": chain})
        found = self._asker(netns, NETLINK_NETFILTER).ask(request)
        return found[0].attributes.get("handle") if found else None

    def rule(self, netns: str, family: int, table: str, chain: str, handle: int) -> Attributes | None:
        """Look at a rule of nf_tables by its handle."""
        header = {"family": family, "version": 0, "res_id": 0}
        attributes: Attributes = {"table": table, "chain": chain, "handle": handle}
        request = Message(_NFT_MSG_GETRULE, NLM_F_REQUEST, 0, 0, header, attributes)
        found = self._asker(netns, NETLINK_NETFILTER).ask(request)
        return found[0].attributes if found else None


def _facts(answer: bytes, length: int) -> LinkFacts:
    """Read what a judge looks at of a link.

    Args:
        answer: The kernel's, one message of type RTM_NEWLINK.
        length: What it says that its length is.

    Raises:
        KernelRefused: it is malformed.
    """
    try:
        if length != len(answer):
            raise CodecError(f"a message of {length} bytes in {len(answer)}")
        name, name_end, info, info_end, alias, alias_end, netnsid, netnsid_end, link, link_end = find_attributes(
            answer, _LINK_REQUEST.size - _EXT_MASK_SIZE, _OF_LINK
        )
        details = answer[info:info_end]
        kind, kind_end = find_attributes(details, 0, _OF_LINKINFO)
        return LinkFacts(
            _IFINDEX.unpack_from(answer, _IFINDEX_AT)[0],
            TEXT.unpack(answer[name:name_end]),
            TEXT.unpack(details[kind:kind_end]),
            U32.unpack(answer[link:link_end]) if link else 0,
            S32.unpack(answer[netnsid:netnsid_end]) if netnsid else None,
            TEXT.unpack(answer[alias:alias_end]),
        )
    except CodecError as error:
        raise KernelRefused("look at", "links", errno.EBADMSG, str(error)) from None

"""An attacker's tools: any system call by name, and netlink messages made by hand. Loaded before the worker is forked.

Where a process may not make the system calls for netlink and settings itself but has somebody to ask, whoever puts the
attacker in place says so with `take`; what is here goes that way then.

Nothing here is the product's own code, on purpose: an attempt must not depend on what it attacks.
"""

import ctypes  # noqa: TID251 - an attacker is not bound to native/; only this package is written from his side
import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

_LIBC = ctypes.CDLL(None, use_errno=True)
_NUMBERS = ctypes.CDLL("libseccomp.so.2")
_LIBC.syscall.restype = ctypes.c_long

X32_BIT = 0x40000000

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK, RTM_GETADDR = 16, 17, 18, 19, 22
RTM_NEWNSID, RTM_GETNSID = 88, 90
IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_NET_NS_FD = 3, 5, 18, 19, 28
IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_LABEL, IFA_TARGET_NETNSID = 3, 10
NETNSA_NSID, NETNSA_PID, NETNSA_FD = 1, 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_CREATE, NLM_F_EXCL = 0x1, 0x4, 0x300, 0x400, 0x200
SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, NETLINK_GET_STRICT_CHK = 270, 8, 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3


def syscall(name: str, *arguments: "int | bytes | ctypes.Array[ctypes.c_char]") -> int:
    """Make a system call by name; bytes and buffers are passed by address.

    Raises:
        OSError: the kernel, or a filter, refused.
    """
    return syscall_number(_NUMBERS.seccomp_syscall_resolve_name(name.encode()), *arguments)


def syscall_number(number: int, *arguments: "int | bytes | ctypes.Array[ctypes.c_char]") -> int:
    """Make a system call by number, which may be one of another architecture."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = _LIBC.syscall(ctypes.c_long(number), *words)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)


def buffer(size_or_data: int | bytes) -> "ctypes.Array[ctypes.c_char]":
    """Make memory that the kernel may write to."""
    if isinstance(size_or_data, bytes):
        return ctypes.create_string_buffer(size_or_data, len(size_or_data))
    return ctypes.create_string_buffer(size_or_data)


def address(memory: "ctypes.Array[ctypes.c_char]") -> int:
    """Say where memory is."""
    return ctypes.addressof(memory)


class MachineCode:
    """Executable memory with `mov eax, 20; int 0x80; ret`: getpid by the 32-bit numbers. Made before the drop."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(bytes.fromhex("b814000000cd80c3"))
        self._view = ctypes.c_char.from_buffer(self._memory)

    def run(self) -> int:
        """Execute it."""
        return int(ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(self._view))())


def attribute(kind: int, payload: bytes | int | str) -> bytes:
    """Encode one netlink attribute: bytes as they are, an int as 32 bits, text with its NUL."""
    data = struct.pack("=I", payload & 0xFFFFFFFF) if isinstance(payload, int) else payload
    data = data.encode() + b"\0" if isinstance(data, str) else data
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Decode netlink attributes; the last of each kind counts."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def link_body(*parts: bytes, ifindex: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Make a `struct ifinfomsg` with attributes."""
    return struct.pack("=BxHiII", 0, 0, ifindex, flags, change) + b"".join(parts)


def link_info(kind: str, data: bytes = b"") -> bytes:
    """Make IFLA_LINKINFO."""
    inner = attribute(IFLA_INFO_KIND, kind) + (attribute(IFLA_INFO_DATA, data) if data else b"")
    return attribute(IFLA_LINKINFO, inner)


class Roads(NamedTuple):
    """How an attacked process reaches the kernel's network configuration.

    Attributes:
        open_netlink: Makes a netlink socket of a protocol, or what stands in for one.
        write_setting: Writes a sysctl, such as "net/ipv4/ip_forward".
        run_nftables: Executes nf_tables commands, JSON as in libnftables-json(5), and returns what it answers.
        name_links: Says under which key of the netconf which links are named, where somebody believes that.
    """

    open_netlink: Callable[[int], socket.socket]
    write_setting: Callable[[str, bytes], None]
    run_nftables: Callable[[str], str]
    name_links: Callable[[str, list[str]], None]


def _open_netlink(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)


def _write_setting(name: str, value: bytes) -> None:
    fd = os.open(f"/proc/sys/{name}", os.O_WRONLY)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def _run_nftables(_commands: str) -> str:
    raise OSError(errno.ENOSYS, "nobody takes nf_tables commands here: send messages")


_ROADS = [Roads(_open_netlink, _write_setting, _run_nftables, lambda _key, _names: None)]


def take(roads: Roads) -> None:
    """Go other ways from now on."""
    _ROADS[:] = [roads]


def write_setting(name: str, value: bytes) -> None:
    """Write a sysctl of the netns that netlink speaks to, such as "net/ipv4/ip_forward"."""
    _ROADS[0].write_setting(name, value)


def run_nftables(commands: str) -> str:
    """Execute nf_tables commands where there is somebody who takes them; ENOSYS elsewhere."""
    return _ROADS[0].run_nftables(commands)


def name_links(key: str, names: list[str]) -> None:
    """Claim that the netconf names links under a key, where somebody believes that; before anything else is asked."""
    _ROADS[0].name_links(key, names)


class Netlink:
    """A netlink socket, in the netns that the attempt is about; one request at a time."""

    def __init__(self, protocol: int = 0, fd: int | None = None) -> None:
        if fd is None:
            self.socket = _ROADS[0].open_netlink(protocol)
        else:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol, fileno=fd)
        self._sequence = 0

    def request(self, kind: int, body: bytes, flags: int = NLM_F_ACK) -> list[tuple[int, bytes]]:
        """Send a request and read its answers to the end.

        Returns:
            Type and body of each answer.

        Raises:
            OSError: the kernel refused.
        """
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        self.socket.send(header + body)
        answers: list[tuple[int, bytes]] = []
        while True:
            datagram = self.socket.recv(1 << 16)
            while datagram:
                length, answer, _, _, _ = struct.unpack_from("=IHHII", datagram)
                content, datagram = datagram[16:length], datagram[(length + 3) & ~3 :]
                if answer == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", content)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return answers
                if answer == _NLMSG_DONE:
                    return answers
                answers.append((answer, content))

    def links(self, *parts: bytes) -> dict[str, dict[int, bytes]]:
        """List links by name; each has its ifindex as attribute 0."""
        found = {}
        for _, body in self.request(RTM_GETLINK, link_body(*parts), NLM_F_DUMP):
            facts = attributes(body[16:])
            facts[0] = body[4:8]
            found[facts[IFLA_IFNAME].rstrip(b"\0").decode()] = facts
        return found

    def create(self, *parts: bytes) -> None:
        """Create a link."""
        self.request(RTM_NEWLINK, link_body(*parts), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def integer(data: bytes) -> int:
    """Decode 32 signed bits."""
    return int(struct.unpack("=i", data)[0])

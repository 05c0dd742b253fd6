"""Sending what the judge decided: with the capability, or so that the kernel refuses it itself.

Privilege: CAP_NET_ADMIN, given up for the moment in which a refused message is sent.
"""

import errno
import os

from cnisandbox.boundary.syscalls import checked, ffi, lib
from cnisandbox.policy.judge import Verdict


def deliver(fd: int, verdict: Verdict, effective: int) -> None:
    """Send a verdict's datagram to the kernel.

    Args:
        fd: A netlink socket, opened with the capability.
        verdict: What the judge decided.
        effective: Mask of our effective set.

    Raises:
        OSError: the verdict says that sending fails, or the kernel says so.
    """
    if verdict.errno:
        raise OSError(verdict.errno, os.strerror(verdict.errno))
    if verdict.is_permitted:
        _send(fd, verdict.datagram)
    else:
        _send_without_capability(fd, verdict.datagram, effective)


def _send(fd: int, datagram: bytes) -> None:
    checked(lib.native_netlink_send(fd, datagram, len(datagram)), "send")


def _send_without_capability(fd: int, datagram: bytes, effective: int) -> None:
    """Have the kernel give the answer that it gives to whoever has no capability: netlink(7) asks the sender's too."""
    checked(lib.native_set_effective(0), "capset")
    try:
        _send(fd, datagram)
    finally:
        checked(lib.native_set_effective(effective), "capset")


def protocol_of(fd: int) -> int | None:
    """Say which netlink protocol a socket speaks; None for everything else."""
    protocol = lib.native_netlink_protocol(fd)
    if protocol in (-errno.ENOTSOCK, -errno.EPROTOTYPE):
        return None
    return checked(protocol, "socket")


def bind(fd: int, port: int) -> None:
    """Give a netlink socket a port, and no groups."""
    checked(lib.native_netlink_bind(fd, port), "bind")


def netns_inode_of(fd: int) -> int:
    """Say which netns a socket belongs to, by the inode of the netns: the kernel's word, not our book-keeping.

    Privilege: CAP_NET_ADMIN over that netns.
    """
    inode = ffi.new("uint64_t *")
    checked(lib.native_netns_of_socket(fd, inode), "netns")
    return int(inode[0])

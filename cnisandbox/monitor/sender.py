"""Sending what the judge decided: with the capability, or so that the kernel refuses it itself.

Privilege: CAP_NET_ADMIN, given up for the moment in which a refused message is sent.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import fcntl
import os

from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.policy.judge import Verdict

_SIOCGSKNS = 0x894C


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
    # A duplicate, because closing the object must not close what it was made of.
    endpoint = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0, os.dup(fd))
    try:
        if verdict.is_permitted:
            endpoint.sendto(verdict.datagram, (0, 0))
        else:
            _send_without_capability(endpoint, verdict.datagram, effective)
    finally:
        endpoint.close()


def _send_without_capability(endpoint: _socket.socket, datagram: bytes, effective: int) -> None:
    """Have the kernel give the answer that it gives to whoever has no capability: netlink(7) asks the sender's too."""
    checked(lib.native_set_effective(0), "capset")
    try:
        endpoint.sendto(datagram, (0, 0))
    finally:
        checked(lib.native_set_effective(effective), "capset")


def protocol_of(fd: int) -> int | None:
    """Say which netlink protocol a socket speaks; None for everything else."""
    duplicate = os.dup(fd)
    try:
        endpoint = _socket.socket(fileno=duplicate)
    except OSError:  # it is no socket
        os.close(duplicate)
        return None
    try:
        return endpoint.proto if endpoint.family == _socket.AF_NETLINK else None
    finally:
        endpoint.close()


def netns_inode_of(fd: int) -> int:
    """Say which netns a socket belongs to, by the inode of the netns: the kernel's word, not our book-keeping.

    Privilege: CAP_NET_ADMIN over that netns.
    """
    netns_fd = fcntl.ioctl(fd, _SIOCGSKNS)
    try:
        return os.fstat(netns_fd).st_ino
    finally:
        os.close(netns_fd)

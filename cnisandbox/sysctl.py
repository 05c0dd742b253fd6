"""Network settings below /proc/sys/net.

They belong to the netns in which the calling task stands when it opens the file. Whoever has CAP_NET_ADMIN over that
netns may write them, whatever its uid; a few that only the initial netns has are refused to all others.

Only os.open, read and write are used: the built-in open() calls ioctl, which a worker's seccomp filter refuses. Nothing
but /proc/sys/net needs to be in view.

Privilege: CAP_NET_ADMIN over the netns for writing, none for reading.

Source: net/sysctl_net.c (net_ctl_permissions), Linux 6.1.
"""

import errno
import os

from cnisandbox.boundary.calls import declared
from cnisandbox.errors import KernelRefused, quoted
from cnisandbox.monitor.client import CHANGE_SYSCTL, READ_SYSCTL, WRITE_SYSCTL, current

ROOT = "/proc/sys/net"
MAX_COMPONENT = 64  # LIMIT: the longest in Linux 6.18 has 37 characters
_NO_NAMES = frozenset(["", ".", ".."])
MAX_VALUE = 4096  # LIMIT: one page, what proc_dostring and proc_dointvec take at once


@declared
def read_sysctl(key: str) -> str:
    """Read a setting.

    Args:
        key: Path below /proc/sys, such as "net/ipv4/ip_forward"; a dot is part of a name, never a separator.

    Returns:
        Its value, without the newline.

    Raises:
        KernelRefused: EINVAL if it is no such path; ENOENT if there is no such setting, or link.
    """
    return _read(_checked(key, "read sysctl")).decode("utf-8", "replace").strip()


@declared
def write_sysctl(key: str, value: str) -> None:
    """Write a setting, if it has another value.

    Args:
        key: As for `read_sysctl`.
        value: Text; amounts of blanks between words do not count as a difference.

    Raises:
        KernelRefused: EINVAL if it is no such path or the kernel does not take the value; ENOENT if there is no such
            setting, or link; EACCES if it may not be written in this netns.
    """
    _write(CHANGE_SYSCTL, _checked(key, "write sysctl"), value)


def interface_key(family: str, ifname: str, setting: str) -> str:
    """Name a link's setting, such as "net/ipv6/conf/eth0/accept_dad" for ("ipv6", "eth0", "accept_dad").

    Raises:
        KernelRefused: EINVAL if the link's name would lead elsewhere.
    """
    if "/" in ifname or not _are_names([ifname]):
        raise KernelRefused("name sysctl", quoted(ifname), errno.EINVAL, "not a name that a link can have")
    return f"net/{family}/conf/{ifname}/{setting}"


def ignore_router_advertisements(ifname: str) -> None:
    """Keep a link on the host from being configured by what a container sends (accept_ra = 0).

    Raises:
        KernelRefused: Writing failed for another reason than that there is no IPv6.
    """
    write_if_present(interface_key("ipv6", ifname, "accept_ra"), "0")


def set_sysctl(key: str, value: str) -> None:
    """Write a setting, whatever value it has; for one that the kernel gives new links with another value.

    Raises:
        KernelRefused: As `write_sysctl`.
    """
    _write(WRITE_SYSCTL, _checked(key, "write sysctl"), value)


def write_if_present(key: str, value: str) -> None:
    """Write a setting that the kernel may have been built, or booted, without, whatever value it has.

    Raises:
        KernelRefused: It is there, and writing it failed.
    """
    _write(WRITE_SYSCTL, _checked(key, "write sysctl"), value, errno.ENOENT)


def _checked(key: str, operation: str) -> str:
    """Insist on a path that stays below /proc/sys/net.

    Returns:
        The path relative to /proc/sys/net.
    """
    first, *components = key.split("/")
    if first != "net" or not components or not _are_names(components):
        raise KernelRefused(operation, quoted(key), errno.EINVAL, "not a path below net/")
    return "/".join(components)


def _are_names(components: list[str]) -> bool:
    is_short = max(map(len, components)) <= MAX_COMPONENT
    return is_short and _NO_NAMES.isdisjoint(components) and "".join(components).isprintable()


def read_raw(path: str) -> bytes:
    """Read a file below /proc/sys/net, in the netns of this process.

    Raises:
        OSError: The kernel refused.
    """
    fd = _open(path, os.O_RDONLY)
    try:
        return os.read(fd, MAX_VALUE)
    finally:
        os.close(fd)


def write_raw(path: str, data: bytes) -> int:
    """Write a file below /proc/sys/net, in the netns of this process; returns how many bytes the kernel took.

    Raises:
        OSError: The kernel refused.
    """
    fd = _open(path, os.O_WRONLY)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)


def change_raw(path: str, data: bytes) -> int:
    """Write a file below /proc/sys/net, unless its words are these already; returns how many bytes were taken.

    Raises:
        OSError: The kernel refused.
    """
    return len(data) if read_raw(path).split() == data.split() else write_raw(path, data)


def _read(path: str) -> bytes:
    gate = current()
    try:
        answer = read_raw(path) if gate is None else gate.ask(READ_SYSCTL, path)
        return answer if isinstance(answer, bytes) else b""
    except OSError as error:
        raise KernelRefused("read sysctl", f"net/{path}", error.errno or 0) from None


def _write(operation: int, path: str, value: str, tolerated: int = 0) -> None:
    """Write a setting; through a gate, together with what is asked of it next."""
    data = value.encode("utf-8", "replace") + b"\n"

    def settle(number: int, written: object) -> None:
        if number and number != tolerated:
            raise KernelRefused("write sysctl", f"net/{path}", number, f"value {quoted(value)}")
        if not number and written != len(data):
            raise KernelRefused("write sysctl", f"net/{path}", errno.EINVAL, f"value {quoted(value)} is too long")

    gate = current()
    if gate is None:
        try:
            number, written = 0, write_raw(path, data) if operation == WRITE_SYSCTL else change_raw(path, data)
        except OSError as error:
            number, written = error.errno or errno.EIO, 0
        settle(number, written)
    else:
        gate.later(operation, path, data, settle, tolerated)


def _open(path: str, flags: int) -> int:
    return os.open(f"{ROOT}/{path}", flags | os.O_CLOEXEC | os.O_NOFOLLOW)

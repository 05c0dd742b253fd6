"""Sockets and sysctls of the two network namespaces, opened for a program that may open none.

The monitor stands in the host's netns. Of the container's netns it asks the opener, a process that entered that netns
before the drop and answers two fixed requests; the descriptors come back over a socket that no worker ever has.

Privilege: CAP_NET_ADMIN, which whoever opens a netlink socket must have for what is sent on it later; CAP_NET_RAW where
the profile permits packet sockets.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import array
import errno
import os
import struct

from cnisandbox.hints import NoReturn, Protocol

# A request: what is wanted, how many of it, three integers, a path (NUL-padded).
# LIMIT: a sysctl's path is well below 255 bytes.
_REQUEST = struct.Struct("=iiiii256s")
# LIMIT: descriptors of one answer; an ADD of bridge takes eight sockets in the container's netns.
STOCK = 8
_SOCKET, _SYSCTL = 1, 2
_OK = b"\0\0\0\0"

SYSCTL_PREFIX = "/proc/sys/net/"


class Opener(Protocol):
    """Opens things in one netns."""

    def open_socket(self, domain: int, kind: int, protocol: int) -> int:
        """Make a socket; returns its descriptor.

        Raises:
            OSError: the kernel refused.
        """

    def open_sysctl(self, path: str, flags: int) -> int:
        """Open a file below /proc/sys/net; returns its descriptor.

        Raises:
            OSError: the kernel refused.
        """


class LocalOpener:
    """Opens things in the netns that this process stands in."""

    def open_socket(self, domain: int, kind: int, protocol: int) -> int:
        """Make a socket."""
        return _socket.socket(domain, kind | _socket.SOCK_CLOEXEC, protocol).detach()

    def open_sysctl(self, path: str, flags: int) -> int:
        """Open a sysctl; a link, or a path that does not exist, is refused by the kernel."""
        # TRUST: where the plugin has a capability of its own no permit has looked at the path, and this process sees
        # itself below /proc, which is the plugin's to see as little as any other.
        if not path.startswith(SYSCTL_PREFIX) or any(part in ("", ".", "..") for part in path[1:].split("/")):
            raise OSError(errno.EACCES, path)
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)


class RemoteOpener:
    """Opens things in the netns of the opener process at the other end.

    Args:
        end: Our end of a pair of sockets.
    """

    def __init__(self, end: _socket.socket) -> None:
        self._end = end
        self._stock: dict[tuple[int, int, int], list[int]] = {}

    def fileno(self) -> int:
        """Say which descriptor our end is."""
        return self._end.fileno()

    def stock(self, domain: int, kind: int, protocol: int) -> None:
        """Have some sockets made that nobody has asked for yet: to ask the opener takes longer than to make one."""
        made = self._ask(_REQUEST.pack(_SOCKET, STOCK, domain, kind, protocol, b""))
        self._stock.setdefault((domain, kind, protocol), []).extend(made)

    def open_socket(self, domain: int, kind: int, protocol: int) -> int:
        """Make a socket, or take one that nobody has had."""
        stock = self._stock.get((domain, kind, protocol))
        return stock.pop() if stock else self._ask(_REQUEST.pack(_SOCKET, 1, domain, kind, protocol, b""))[0]

    def open_sysctl(self, path: str, flags: int) -> int:
        """Open a sysctl."""
        encoded = os.fsencode(path)
        if len(encoded) > 255:
            raise OSError(errno.ENAMETOOLONG, path)
        return self._ask(_REQUEST.pack(_SYSCTL, 1, flags, 0, 0, encoded))[0]

    def _ask(self, request: bytes) -> list[int]:
        self._end.send(request)
        answer, ancillary, _, _ = self._end.recvmsg(4, _socket.CMSG_SPACE(4 * STOCK), _socket.MSG_CMSG_CLOEXEC)
        if len(answer) != 4:
            raise OSError(errno.EPIPE, "the opener has ended")
        if answer != _OK:
            (number,) = struct.unpack("=i", answer)
            raise OSError(number, os.strerror(number))
        ((_, _, data),) = ancillary
        return list(array.array("i", data))


def serve(end: _socket.socket) -> NoReturn:
    """Answer the monitor until it has gone.

    Args:
        end: The opener's end; whoever is at the other one is trusted, its strings all the same are only paths to open.
    """
    here = LocalOpener()
    while True:
        request = end.recv(_REQUEST.size)
        if len(request) != _REQUEST.size:
            os._exit(0)
        kind, count, first, second, third, path = _REQUEST.unpack(request)
        fds: list[int] = []
        try:
            for _ in range(min(count, STOCK)):
                if kind == _SOCKET:
                    fds.append(here.open_socket(first, second, third))
                else:
                    fds.append(here.open_sysctl(os.fsdecode(path.rstrip(b"\0")), first))
        except OSError as error:
            end.send(struct.pack("=i", error.errno or errno.EIO))
        else:
            end.sendmsg([_OK], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))])
        for fd in fds:
            os.close(fd)

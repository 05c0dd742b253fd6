"""What CAP_NET_ADMIN is for besides rtnetlink: options of sockets, and what drivers are told. Each with its judge."""

import contextlib
import errno
import fcntl
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import observe, raw
from cnisandbox.laboratory.attacker.capabilities import missing
from cnisandbox.laboratory.attacker.knowledge import Facts
from cnisandbox.laboratory.attacker.netadmin import in_fresh_netns
from cnisandbox.laboratory.attacker.network import give_host_an_address

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

FOREIGN_ADDRESS, PORT, TOS = "203.0.113.9", 4712, 0xB8
IP_TRANSPARENT = 19

_SO_DEBUG, _SO_PRIORITY, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_MARK = 1, 12, 32, 33, 36
_MARK, _PRIORITY, _BUFFER = 0x909, 7, 64 << 20
_SIOCETHTOOL, _ETHTOOL_GTSO, _ETHTOOL_STSO, _ETHTOOL_RESET = 0x8946, 0x1E, 0x1F, 0x34

_KEPT: list[socket.socket] = []


def kept_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket that stays open, so that whoever judges finds it as it was left."""
    _KEPT.append(socket.socket(family, kind, protocol))
    return _KEPT[-1]


# Options of sockets


def _set_option(option: int, value: int) -> None:
    """Set an option that every socket has; netlink sockets are what the attacker gets most easily."""
    channel = raw.Netlink()
    _KEPT.append(channel.socket)
    channel.socket.setsockopt(socket.SOL_SOCKET, option, value)


def _has_option(arena: "Arena", netns: str, level: int, option: int, is_wanted: Callable[[int], bool]) -> bool:
    """Say whether the attacked process has a socket of a netns with a wanted option."""
    for taken in observe.sockets(arena, netns):
        with contextlib.suppress(OSError):  # a socket of another family has no such option
            if is_wanted(taken.getsockopt(level, option)):
                return True
    return False


def set_debug(facts: Facts) -> None:
    _set_option(_SO_DEBUG, 1)


def has_debug(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_SOCKET, _SO_DEBUG, lambda value: value == 1)


def set_mark(facts: Facts) -> None:
    """Mark packets, as those are that a firewall lets pass."""
    _set_option(_SO_MARK, _MARK)


def has_mark(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_SOCKET, _SO_MARK, lambda value: value == _MARK)


def set_priority(facts: Facts) -> None:
    _set_option(_SO_PRIORITY, _PRIORITY)


def has_priority(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_SOCKET, _SO_PRIORITY, lambda value: value == _PRIORITY)


def force_receive_buffer(facts: Facts) -> None:
    """Have more of the kernel's memory than net.core.rmem_max allows."""
    _set_option(_SO_RCVBUFFORCE, _BUFFER)


def has_forced_receive_buffer(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_SOCKET, socket.SO_RCVBUF, lambda value: value >= _BUFFER)


def force_send_buffer(facts: Facts) -> None:
    _set_option(_SO_SNDBUFFORCE, _BUFFER)


def has_forced_send_buffer(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_SOCKET, socket.SO_SNDBUF, lambda value: value >= _BUFFER)


def set_type_of_service(facts: Facts) -> None:
    """Set IP_TOS. Linux has asked for no capability since 2.6.39."""
    kept_socket(socket.AF_INET, socket.SOCK_DGRAM).setsockopt(socket.SOL_IP, socket.IP_TOS, TOS)


def has_type_of_service(netns: str, arena: "Arena") -> bool:
    return _has_option(arena, netns, socket.SOL_IP, socket.IP_TOS, lambda value: value == TOS)


def bind_foreign_address(facts: Facts) -> None:
    """Bind to an address that the netns does not have, as a transparent proxy does."""
    channel = kept_socket(socket.AF_INET, socket.SOCK_STREAM)
    channel.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
    channel.bind((FOREIGN_ADDRESS, PORT))


def is_bound_to_foreign_address(netns: str, arena: "Arena") -> bool:
    return any(
        taken.family == socket.AF_INET and taken.getsockname() == (FOREIGN_ADDRESS, PORT)
        for taken in observe.sockets(arena, netns)
    )


# Drivers


def _ethtool(ifname: str, request: bytes) -> bytes:
    """Ask a driver by SIOCETHTOOL; the request is overwritten with the answer."""
    memory = raw.buffer(request)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, _SIOCETHTOOL, struct.pack("=16sQ16x", ifname.encode(), raw.address(memory)))
    return memory.raw


def switch_offload_off(ifname: str, facts: Facts) -> None:
    """Switch segmentation offload off."""
    _ethtool(ifname, struct.pack("=II", _ETHTOOL_STSO, 0))


def has_no_offload(netns: str, ifname: str, arena: "Arena") -> bool:
    request = struct.pack("=II", _ETHTOOL_GTSO, 1)
    answer = observe.within(arena, netns, lambda: _ethtool(ifname, request))
    return int.from_bytes(answer[4:], "little") == 0


def send_frames(arena: "Arena") -> None:
    """Scene: eth0 and the host's uplink have received something."""
    give_host_an_address(arena)
    subprocess.run(["ip", "-batch", "-"], input=b"link set uplink0 up\nlink set uplink1 up\n", check=True, timeout=10)
    for ifname in ("veth0", "uplink1"):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as channel:
            channel.bind((ifname, 0))
            channel.send(b"\xff" * 6 + bytes(54))


def clear_statistics(ifname: str, facts: Facts) -> None:
    """Reset the driver, and its counters with it; there is no request that clears counters alone."""
    _ethtool(ifname, struct.pack("=II", _ETHTOOL_RESET, 0xFFFFFFFF))


def has_cleared_statistics(netns: str, ifname: str, arena: "Arena") -> bool:
    return observe.within(arena, netns, lambda: _received_frames(ifname)) == 0


def _received_frames(ifname: str) -> int:
    with open("/proc/net/dev") as file:
        (counters,) = [line.split(":")[1] for line in file if line.strip().startswith(ifname + ":")]
    return int(counters.split()[1])


def lacks_clearing() -> str:
    """Say that the driver of the arena's links has nothing that clears its statistics."""

    def reset_new_link() -> None:
        channel = raw.Netlink()
        channel.create(raw.attribute(raw.IFLA_IFNAME, "probe0"), raw.link_info("veth"))
        _ethtool("probe0", struct.pack("=II", _ETHTOOL_RESET, 0xFFFFFFFF))

    return missing("ETHTOOL_RESET in the driver veth", lambda: in_fresh_netns(reset_new_link), errno.EOPNOTSUPP)

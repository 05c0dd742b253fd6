"""Attempts on another network namespace, beyond those of network.py: by numbers that are guessed, by paths, by files.

Each stands beside its judge.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import HOST_NETNS_FD, Facts, Said
from cnisandbox.laboratory.attacker.network import (
    CLONE_NEWNET,
    FD_NSFS_ROOT,
    PIDFD_GET_NET_NAMESPACE,
    host_nsid,
    in_host,
    make_veth,
    veth_peer_into,
)

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

VICTIM_PATH = "/run/netns/victim"
# A container whose path is attacked; the judges have to be able to enter the victim afterwards.
OTHER_PATH = "/run/netns/other"

_NETNSA_TARGET_NSID = 4
_NLA_F_NESTED = 0x8000
_IFLA_IFALIAS = 20
_IFLA_VXLAN_ID, _IFLA_VXLAN_GROUP, _IFLA_VXLAN_PORT = 1, 2, 15
_IFF_UP = 1
_NLMSG_ERROR = 2
_MS_BIND, _MNT_DETACH = 0x1000, 2
_VMADDR_CID_LOCAL = 1

_TUNNEL_PORT = 4790
_VSOCK_PORT = 0x636E6973
_ALIAS = "escape"
_GUESSES = range(64)

# What a scene has made up; the attacked process has a copy of it, and no attempt looks.
_MADE_UP = {"nsid": "", "name": ""}


# By the number of a process


def veth_peer_into_victim_by_pid(facts: Facts) -> None:
    make_veth(raw.attribute(raw.IFLA_NET_NS_PID, facts.pids["victim"]))


def victim_has_new_link(arena: "Arena") -> bool:
    return "esc1" in arena.links("victim")


def veth_peer_by_guessed_pid(facts: Facts) -> None:
    """Try low numbers, whoever they are, where the message is judged: process 1 is somebody everywhere."""
    _guess(raw.IFLA_NET_NS_PID)


def veth_peer_by_guessed_descriptor(facts: Facts) -> None:
    """Try low numbers, whatever is open under them where the message is sent: a deputy may hold what we do not."""
    _guess(raw.IFLA_NET_NS_FD)


def _guess(attribute: int) -> None:
    refusal = 0
    link = raw.Netlink()
    for number in _GUESSES:
        try:
            make_veth(raw.attribute(attribute, number))
        except OSError as error:
            refusal = error.errno or errno.EIO
            continue
        if "esc1" not in link.links():
            return
        link.request(raw.RTM_DELLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "esc1")))  # it was our own netns
    raise OSError(refusal, os.strerror(refusal))


def veth_leads_to_host(arena: "Arena") -> bool:
    return "esc1" in arena.links() and "esc0" in arena.links("blue")


# By nsid


def list_host_nsids(facts: Facts) -> Said:
    link = raw.Netlink()
    target = raw.attribute(_NETNSA_TARGET_NSID, host_nsid(link))
    link.socket.setsockopt(raw.SOL_NETLINK, raw.NETLINK_GET_STRICT_CHK, 1)
    answers = link.request(raw.RTM_GETNSID, b"\0\0\0\0" + target, raw.NLM_F_DUMP)
    return Said(0, 0, " ".join(str(raw.integer(raw.attributes(body[4:])[raw.NETNSA_NSID])) for _, body in answers))


def number_victim_in_host(arena: "Arena") -> None:
    """Scene: the host has a number for the victim's netns."""
    _MADE_UP["nsid"] = str(1000 + secrets.randbelow(1 << 20))
    netns_fd = os.open(VICTIM_PATH, os.O_RDONLY)
    number, netns = raw.attribute(raw.NETNSA_NSID, int(_MADE_UP["nsid"])), raw.attribute(raw.NETNSA_FD, netns_fd)
    raw.Netlink().request(raw.RTM_NEWNSID, b"\0\0\0\0" + number + netns)
    os.close(netns_fd)


def said_nsid_of_victim(arena: "Arena") -> bool:
    return _MADE_UP["nsid"] in arena.said.text.split()


def create_host_bridge_by_guessed_nsid(facts: Facts) -> None:
    refusal = 0
    link = raw.Netlink()
    link.links()  # a netns gets its number when a link that leads there is first shown
    for number in _GUESSES:
        try:
            return _create_bridge(link, raw.attribute(raw.IFLA_TARGET_NETNSID, number))
        except OSError as error:
            refusal = refusal or error.errno or errno.EIO
    raise OSError(refusal, os.strerror(refusal))


def create_host_bridge_by_flagged_nsid(facts: Facts) -> None:
    """Set a flag in the attribute's type that the kernel passes over, and a reader of messages may not."""
    link = raw.Netlink()
    _create_bridge(link, raw.attribute(raw.IFLA_TARGET_NETNSID | _NLA_F_NESTED, host_nsid(link)))


def create_host_bridge_by_last_nsid(facts: Facts) -> None:
    """Give the attribute twice: the kernel takes the last, and a reader of messages may take the first."""
    link = raw.Netlink()
    nobody = raw.attribute(raw.IFLA_TARGET_NETNSID, -1)
    _create_bridge(link, nobody, in_host(link))


def _create_bridge(link: raw.Netlink, *attributes: bytes) -> None:
    link.create(*attributes, raw.attribute(raw.IFLA_IFNAME, "esc1"), raw.link_info("bridge"))


def create_host_bridge_in_second_message(facts: Facts) -> None:
    """Hide a message behind a harmless one, in one datagram."""
    link = raw.Netlink()
    harmless = raw.link_body(raw.attribute(raw.IFLA_IFNAME, "eth0"))
    wanted = raw.link_body(in_host(link), raw.attribute(raw.IFLA_IFNAME, "esc1"), raw.link_info("bridge"))
    messages = ((raw.RTM_GETLINK, 0, harmless), (raw.RTM_NEWLINK, raw.NLM_F_CREATE | raw.NLM_F_EXCL, wanted))
    data = b""
    for sequence, (kind, flags, body) in enumerate(messages):
        header = struct.pack("=IHHII", 16 + len(body), kind, flags | raw.NLM_F_REQUEST | raw.NLM_F_ACK, sequence, 0)
        data += header + body + b"\0" * (-len(body) % 4)
    link.socket.send(data)
    _await_acknowledgements(link, len(messages))


def _await_acknowledgements(link: raw.Netlink, count: int) -> None:
    while count:
        datagram = link.socket.recv(1 << 16)
        while datagram:
            length, kind = struct.unpack_from("=IH", datagram)
            if kind == _NLMSG_ERROR:
                (number,) = struct.unpack_from("=i", datagram, 16)
                if number:
                    raise OSError(-number, os.strerror(-number))
                count -= 1
            datagram = datagram[(length + 3) & ~3 :]


def tunnel_through_host(facts: Facts) -> None:
    """Make a tunnel whose outer packets are the host's: its socket is made where IFLA_LINK_NETNSID says."""
    link = raw.Netlink()
    data = (
        raw.attribute(_IFLA_VXLAN_ID, 5)
        + raw.attribute(_IFLA_VXLAN_GROUP, socket.inet_aton("192.0.2.1"))
        + raw.attribute(_IFLA_VXLAN_PORT, struct.pack(">H", _TUNNEL_PORT))
    )
    body = raw.link_body(
        raw.attribute(raw.IFLA_IFNAME, "esc0"),
        raw.attribute(raw.IFLA_LINK_NETNSID, host_nsid(link)),
        raw.link_info("vxlan", data),
        flags=_IFF_UP,
        change=_IFF_UP,
    )
    link.request(raw.RTM_NEWLINK, body, raw.NLM_F_ACK | raw.NLM_F_CREATE | raw.NLM_F_EXCL)


def host_has_tunnel_socket(arena: "Arena") -> bool:
    found = ""
    for path in ("/proc/net/udp", "/proc/net/udp6"):
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            found += file.read()
    return f":{_TUNNEL_PORT:04X} " in found and "esc0" in arena.links("blue")


def lacks_vxlan() -> str:
    """Name the link kind when the kernel lacks it: it is made and taken away again."""
    link = raw.Netlink()
    data = raw.attribute(_IFLA_VXLAN_ID, 5) + raw.attribute(_IFLA_VXLAN_PORT, struct.pack(">H", _TUNNEL_PORT))
    try:
        link.create(raw.attribute(raw.IFLA_IFNAME, "probe0"), raw.link_info("vxlan", data))
    except OSError as error:
        return "CONFIG_VXLAN" if error.errno == errno.EOPNOTSUPP else ""
    link.request(raw.RTM_DELLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "probe0")))
    return ""


# By nsid, out of the host's netns


def _in_container(link: raw.Netlink) -> bytes:
    nsid = raw.integer(link.links()["veth0"][raw.IFLA_LINK_NETNSID])
    return raw.attribute(raw.IFLA_TARGET_NETNSID, nsid)


def create_bridge_in_container(facts: Facts) -> None:
    link = raw.Netlink()
    _create_bridge(link, _in_container(link))


def container_has_new_link(arena: "Arena") -> bool:
    return "esc1" in arena.links("blue")


def move_uplink_into_container(facts: Facts) -> None:
    link = raw.Netlink()
    move = raw.link_body(_in_container(link), raw.attribute(raw.IFLA_IFNAME, "uplink0"))
    link.request(raw.RTM_SETLINK, move)


def uplink_is_in_container(arena: "Arena") -> bool:
    return "uplink0" in arena.links("blue") and "uplink0" not in arena.links()


# By a path


def setns_by_path(facts: Facts) -> None:
    raw.syscall("setns", os.open(VICTIM_PATH, os.O_RDONLY), CLONE_NEWNET)


def setns_by_pidfd(facts: Facts) -> None:
    raw.syscall("setns", raw.syscall("pidfd_open", facts.pids["victim"], 0), CLONE_NEWNET)


def is_in_netns_of_victim(arena: "Arena") -> bool:
    return arena.namespace("net") == arena.namespace("net", arena.facts.pids["victim"])


def veth_peer_by_path_of_process(facts: Facts) -> None:
    veth_peer_into(os.open(f"/proc/{facts.pids['bystander']}/root{VICTIM_PATH}", os.O_RDONLY))


def move_eth0_by_path(facts: Facts) -> None:
    netns = raw.attribute(raw.IFLA_NET_NS_FD, os.open(VICTIM_PATH, os.O_RDONLY))
    raw.Netlink().request(raw.RTM_SETLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "eth0"), netns))


def eth0_is_in_victim(arena: "Arena") -> bool:
    return "eth0" in arena.links("victim") and "eth0" not in arena.links("blue")


def name_victim_by_path(facts: Facts) -> None:
    number = raw.attribute(raw.NETNSA_NSID, 77)
    netns = raw.attribute(raw.NETNSA_FD, os.open(VICTIM_PATH, os.O_RDONLY))
    raw.Netlink().request(raw.RTM_NEWNSID, b"\0\0\0\0" + number + netns)


def list_netns_paths(facts: Facts) -> Said:
    return Said(0, 0, " ".join(os.listdir("/run/netns")))


def add_netns_with_made_up_name(arena: "Arena") -> None:
    """Scene: there is a container whose name nobody can know."""
    _MADE_UP["name"] = "c" + secrets.token_hex(8)
    _add_netns(_MADE_UP["name"])


def said_made_up_name(arena: "Arena") -> bool:
    return _MADE_UP["name"] in arena.said.text.split()


def add_other_netns(arena: "Arena") -> None:
    """Scene: there is one more container."""
    _add_netns(os.path.basename(OTHER_PATH))


def _add_netns(name: str) -> None:
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)


def unmount_netns(facts: Facts) -> None:
    raw.syscall("umount2", OTHER_PATH.encode() + b"\0", _MNT_DETACH)


def path_leads_to_no_netns(arena: "Arena") -> bool:
    return os.stat(OTHER_PATH).st_dev != os.fstat(HOST_NETNS_FD).st_dev


def mount_host_netns_over_other(facts: Facts) -> None:
    """Have the next plugin that is called for the other container configure the host."""
    own = f"/proc/{facts.pids['bystander']}/ns/net\0".encode()
    raw.syscall("mount", own, OTHER_PATH.encode() + b"\0", b"none\0", _MS_BIND, 0)


def path_leads_to_host(arena: "Arena") -> bool:
    return os.path.samestat(os.stat(OTHER_PATH), os.fstat(HOST_NETNS_FD))


# By files that show a netns


def read_links_in_proc(facts: Facts) -> Said:
    """Read the links of the netns of process 1."""
    fd = os.open("/proc/1/net/dev", os.O_RDONLY)
    lines = os.read(fd, 1 << 16).decode().splitlines()
    return Said(0, 0, " ".join(line.partition(":")[0].strip() for line in lines if ":" in line))


def mount_sysfs(arena: "Arena") -> None:
    """Scene: /sys shows the links of the host, as everywhere; it belongs to the netns in which it was mounted."""
    raw.syscall("mount", b"sysfs\0", b"/sys\0", b"sysfs\0", 0, b"\0")


def read_links_in_sysfs(facts: Facts) -> Said:
    return Said(0, 0, " ".join(os.listdir("/sys/class/net")))


def write_link_in_sysfs(facts: Facts) -> None:
    fd = os.open("/sys/class/net/hostbr0/ifalias", os.O_WRONLY)
    os.write(fd, _ALIAS.encode())


def host_bridge_has_alias(arena: "Arena") -> bool:
    return arena.links()["hostbr0"].get(_IFLA_IFALIAS, b"").rstrip(b"\0") == _ALIAS.encode()


# By a socket that belongs to no netns


def connect_vsock(facts: Facts) -> None:
    client = socket.socket(socket.AF_VSOCK)
    client.connect((_VMADDR_CID_LOCAL, _VSOCK_PORT))
    client.detach()


def listen_on_vsock(arena: "Arena") -> None:
    """Scene: a service of the host listens for its own guests and itself."""
    arena.listener = socket.socket(socket.AF_VSOCK)
    arena.listener.bind((_VMADDR_CID_LOCAL, _VSOCK_PORT))
    arena.listener.listen()


def lacks_vsock_loopback() -> str:
    """Name what takes a connection back to the same machine when the kernel lacks it."""
    try:
        with socket.socket(socket.AF_VSOCK) as probe:
            probe.bind((_VMADDR_CID_LOCAL, _VSOCK_PORT))
    except OSError as error:
        return "" if error.errno == errno.EADDRINUSE else "CONFIG_VSOCKETS_LOOPBACK"
    return ""


# What the kernel lacks


def lacks_netns_of_pidfd() -> str:
    """Name the ioctl when the kernel lacks it."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        os.close(fcntl.ioctl(pidfd, PIDFD_GET_NET_NAMESPACE, 0))
    except OSError:
        return "PIDFD_GET_NET_NAMESPACE"
    finally:
        os.close(pidfd)
    return ""


def lacks_netns_handles() -> str:
    """Say that a netns cannot be opened by a file handle, when it cannot."""
    no_handle = raw.buffer(bytes(8))
    try:
        raw.syscall("open_by_handle_at", FD_NSFS_ROOT, no_handle, os.O_RDONLY)
    except OSError as error:
        return "file handles of nsfs" if error.errno == errno.EBADF else ""  # EBADF: it knows no such root
    return ""

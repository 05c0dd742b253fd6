"""Attempts on the network of the host and of other containers: netlink, descriptors, sockets; each with its judge."""

import contextlib
import fcntl
import os
import socket
import struct
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import (
    HOST_DIRECTORY_FD,
    HOST_NETLINK_FD,
    HOST_NETNS_FD,
    HOST_SYSCTL_FD,
    Facts,
    Said,
)

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

SIOCGSKNS = 0x894C
PIDFD_GET_NET_NAMESPACE = 0xFF04
CLONE_NEWNET = 0x40000000
FD_NSFS_ROOT = -10003

_HOST_ADDRESS = "10.9.0.1"
_PORT = 4711
_ABSTRACT_NAME = "\0cnisandbox-escape"
_IFF_UP = 1
_SO_ATTACH_FILTER = 26
_NFNL_MSG_BATCH_BEGIN, _NFNL_MSG_BATCH_END, _NFT_MSG_NEWTABLE = 16, 17, 10 << 8
_TABLE = "escape"
_NETLINK_NETFILTER, _NETLINK_GENERIC = 12, 16


# Through the pid of a process of the host


def make_veth(netns_of_peer: bytes) -> None:
    """Make a veth whose peer is in the netns that an attribute names."""
    peer = raw.link_body(raw.attribute(raw.IFLA_IFNAME, "esc1"), netns_of_peer)
    raw.Netlink().create(
        raw.attribute(raw.IFLA_IFNAME, "esc0"), raw.link_info("veth", raw.attribute(raw.VETH_INFO_PEER, peer))
    )


def veth_peer_into(netns_fd: int) -> None:
    """Make a veth whose peer is in the netns of a descriptor."""
    make_veth(raw.attribute(raw.IFLA_NET_NS_FD, netns_fd))


def veth_peer_by_pid(facts: Facts) -> None:
    make_veth(raw.attribute(raw.IFLA_NET_NS_PID, facts.pids["bystander"]))


def move_eth0_to_pid_1(facts: Facts) -> None:
    move = raw.link_body(raw.attribute(raw.IFLA_IFNAME, "eth0"), raw.attribute(raw.IFLA_NET_NS_PID, 1))
    raw.Netlink().request(raw.RTM_SETLINK, move)


def eth0_is_in_host(arena: "Arena") -> bool:
    return "eth0" in arena.links() and "eth0" not in arena.links("blue")


def name_victim_by_pid(facts: Facts) -> None:
    number, pid = raw.attribute(raw.NETNSA_NSID, 77), raw.attribute(raw.NETNSA_PID, facts.pids["victim"])
    raw.Netlink().request(raw.RTM_NEWNSID, b"\0\0\0\0" + number + pid)


def victim_has_nsid(arena: "Arena") -> bool:
    fd = os.open("/run/netns/victim", os.O_RDONLY)
    return arena.nsid_in_container(fd) == 77


# Through the nsid that stands beside eth0: nothing but the content of a message


def host_nsid(link: raw.Netlink) -> int:
    """Find the number that the host's netns has in the container's."""
    return raw.integer(link.links()["eth0"][raw.IFLA_LINK_NETNSID])


def in_host(link: raw.Netlink) -> bytes:
    """Make the attribute by which a message is for the host's netns."""
    return raw.attribute(raw.IFLA_TARGET_NETNSID, host_nsid(link))


def read_host_nsid(facts: Facts) -> Said:
    return Said(0, host_nsid(raw.Netlink()))


def said_host_nsid(arena: "Arena") -> bool:
    return arena.said == Said(0, arena.nsid_in_container(HOST_NETNS_FD))


def list_host_links(facts: Facts) -> Said:
    link = raw.Netlink()
    return Said(0, 0, " ".join(link.links(in_host(link))))


def said_hidden_link(arena: "Arena") -> bool:
    return arena.hidden in arena.said.text.split()


def list_host_addresses(facts: Facts) -> Said:
    link = raw.Netlink()
    target = raw.attribute(raw.IFA_TARGET_NETNSID, host_nsid(link))
    link.socket.setsockopt(raw.SOL_NETLINK, raw.NETLINK_GET_STRICT_CHK, 1)
    answers = link.request(raw.RTM_GETADDR, struct.pack("=BBBBi", socket.AF_INET, 0, 0, 0, 0) + target, raw.NLM_F_DUMP)
    labels = [raw.attributes(body[8:])[raw.IFA_LABEL].rstrip(b"\0").decode() for _, body in answers]
    return Said(0, 0, " ".join(labels))


def give_host_an_address(arena: "Arena") -> None:
    """Scene: the host has an address on veth0, the container one on eth0."""
    _configure("veth0", _HOST_ADDRESS)
    arena.inside("blue", lambda: _configure("eth0", "10.9.0.2"))


def said_host_address(arena: "Arena") -> bool:
    return "veth0" in arena.said.text.split()


def _configure(ifname: str, address: str) -> None:
    """Set an IPv4 address and bring a link up, with the ioctls of old."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as helper:
        name = ifname.encode().ljust(16, b"\0")
        for request, value in ((0x8916, address), (0x891C, "255.255.255.0")):
            fcntl.ioctl(helper, request, name + struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value)))
        fcntl.ioctl(helper, 0x8914, name + struct.pack("=H14x", _IFF_UP))


def delete_host_link(facts: Facts) -> None:
    link = raw.Netlink()
    link.request(raw.RTM_DELLINK, raw.link_body(in_host(link), raw.attribute(raw.IFLA_IFNAME, "hostbr0")))


def host_bridge_is_gone(arena: "Arena") -> bool:
    return "hostbr0" not in arena.links()


def create_host_bridge(facts: Facts) -> None:
    link = raw.Netlink()
    link.create(in_host(link), raw.attribute(raw.IFLA_IFNAME, "esc1"), raw.link_info("bridge"))


def host_has_new_link(arena: "Arena") -> bool:
    return "esc1" in arena.links()


def macvlan_on_host_uplink(facts: Facts) -> None:
    link = raw.Netlink()
    nsid = host_nsid(link)
    uplink = raw.integer(link.links(in_host(link))["uplink0"][0])
    link.create(
        raw.attribute(raw.IFLA_IFNAME, "esc0"),
        raw.attribute(raw.IFLA_LINK, uplink),
        raw.attribute(raw.IFLA_LINK_NETNSID, nsid),
        raw.link_info("macvlan"),
    )


def container_has_macvlan_on_uplink(arena: "Arena") -> bool:
    link = arena.links("blue").get("esc0")
    return link is not None and link[raw.IFLA_LINK] == arena.links()["uplink0"][0]


def move_eth0_to_host_nsid(facts: Facts) -> None:
    link = raw.Netlink()
    link.request(raw.RTM_SETLINK, raw.link_body(in_host(link), raw.attribute(raw.IFLA_IFNAME, "eth0")))


def hear_every_netns(facts: Facts) -> Said:
    link = raw.Netlink()
    link.socket.setsockopt(raw.SOL_NETLINK, raw.NETLINK_LISTEN_ALL_NSID, 1)
    link.socket.bind((0, 1))  # RTMGRP_LINK
    # Something happens on the host: the attacker makes it happen himself, where he can; it is the hearing that counts.
    asking = raw.Netlink()
    asking.create(in_host(asking), raw.attribute(raw.IFLA_IFNAME, "esc1"), raw.link_info("bridge"))
    body = link.socket.recv(1 << 16)[16:]
    return Said(0, 0, raw.attributes(body[16:])[raw.IFLA_IFNAME].rstrip(b"\0").decode())


def said_new_host_link(arena: "Arena") -> bool:
    return arena.said.text == "esc1" and "esc1" in arena.links()


# Through descriptors that were left open, and paths


def setns_by_proc(facts: Facts) -> None:
    fd = os.open(f"/proc/{facts.pids['bystander']}/ns/net", os.O_RDONLY)
    raw.syscall("setns", fd, CLONE_NEWNET)


def has_entered_host_netns(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.namespace("net") == arena.namespace("net", 1)


def setns_by_kept_descriptor(facts: Facts) -> None:
    raw.syscall("setns", HOST_NETNS_FD, CLONE_NEWNET)


def veth_peer_by_kept_descriptor(facts: Facts) -> None:
    veth_peer_into(HOST_NETNS_FD)


def ask_descriptors_for_netns(facts: Facts) -> Said:
    """Ask each descriptor for the netns that its socket was made in, the channel's first."""
    answers: list[int] = []
    for fd in range(64):
        try:
            return Said(0, fcntl.ioctl(fd, SIOCGSKNS))
        except OSError as error:
            answers.append(error.errno or 0)
    raise OSError(answers[0], "what the channel answered")


def holds_host_netns(arena: "Arena") -> bool:
    return arena.descriptors().get(arena.said.value) == arena.namespace("net", 1)


def veth_peer_by_socket(facts: Facts) -> None:
    veth_peer_into(ask_descriptors_for_netns(facts).value)


def delete_by_kept_netlink_socket(facts: Facts) -> None:
    link = raw.Netlink(fd=HOST_NETLINK_FD)
    link.request(raw.RTM_DELLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "hostbr0")))


def veth_peer_by_netns_path(facts: Facts) -> None:
    veth_peer_into(os.open("/run/netns/victim", os.O_RDONLY))


def victim_has_new_link(arena: "Arena") -> bool:
    return "esc1" in arena.links("victim")


def walk_up_from_kept_directory(facts: Facts) -> Said:
    fd = os.open("../private/secret", os.O_RDONLY, dir_fd=HOST_DIRECTORY_FD)
    return Said(0, 0, os.read(fd, 64).decode())


def said_secret(arena: "Arena") -> bool:
    return bool(arena.secret) and arena.said.text == arena.secret


def write_kept_sysctl(facts: Facts) -> None:
    os.write(HOST_SYSCTL_FD, b"1")


def host_forwards(arena: "Arena") -> bool:
    with open("/proc/sys/net/ipv4/conf/veth0/forwarding") as file:
        return file.read() == "1\n"


def netns_of_pidfd(facts: Facts) -> None:
    pidfd = raw.syscall("pidfd_open", facts.pids["bystander"], 0)
    veth_peer_into(fcntl.ioctl(pidfd, PIDFD_GET_NET_NAMESPACE, 0))


def take_descriptor_of_process(facts: Facts) -> None:
    pidfd = raw.syscall("pidfd_open", facts.pids["bystander"], 0)
    veth_peer_into(raw.syscall("pidfd_getfd", pidfd, HOST_NETNS_FD, 0))


def netns_by_handle(facts: Facts) -> None:
    veth_peer_into(raw.syscall("open_by_handle_at", FD_NSFS_ROOT, raw.buffer(facts.netns_handle), os.O_RDONLY))


# Sockets that are not netlink


def packet_socket(facts: Facts) -> Said:
    return Said(0, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).detach())


def raw_ip_socket(facts: Facts) -> Said:
    return Said(0, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).detach())


def unix_socket_pair(facts: Facts) -> Said:
    first, second = socket.socketpair()
    second.detach()
    return Said(0, first.detach())


def generic_netlink_socket(facts: Facts) -> Said:
    return Said(0, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC).detach())


def holds_socket(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.descriptors()[arena.said.value].startswith("socket:")


def listen_on_host(arena: "Arena") -> None:
    """Scene: a service of the host that the container's network reaches."""
    give_host_an_address(arena)
    _configure("lo", "127.0.0.1")  # by which the host reaches itself
    arena.listener = socket.create_server((_HOST_ADDRESS, _PORT))


def listen_on_abstract_name(arena: "Arena") -> None:
    """Scene: a process of the host listens on an abstract name in the container's netns, as containerd-shim did."""
    arena.inside("blue", lambda: listen_on_abstract_name_of_host(arena))


def listen_on_abstract_name_of_host(arena: "Arena") -> None:
    """Scene: the same, in the host's netns."""
    arena.listener = socket.socket(socket.AF_UNIX)
    arena.listener.bind(_ABSTRACT_NAME)
    arena.listener.listen()


def connect_tcp(facts: Facts) -> None:
    client = socket.socket(socket.AF_INET)
    client.connect((_HOST_ADDRESS, _PORT))
    client.detach()


def connect_abstract(facts: Facts) -> None:
    client = socket.socket(socket.AF_UNIX)
    client.connect(_ABSTRACT_NAME)
    client.detach()


def listener_was_reached(arena: "Arena") -> bool:
    assert arena.listener is not None
    arena.listener.settimeout(1 if arena.said.errno == 0 else 0)
    with contextlib.suppress(OSError):
        arena.listener.accept()
        return True
    return False


def attach_socket_filter(facts: Facts) -> Said:
    link = raw.Netlink()
    instructions = raw.buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))  # accept everything
    program = struct.pack("=H6xQ", 1, raw.address(instructions))
    link.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return Said(0, len(link.socket.getsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, 8)))


def socket_has_filter(arena: "Arena") -> bool:
    return arena.said.value > 0


# Kernel surface behind netlink


def make_nft_table(facts: Facts) -> None:
    link = raw.Netlink(_NETLINK_NETFILTER)
    header = struct.pack(">BBH", socket.AF_INET, 0, 10)
    messages = (
        (_NFNL_MSG_BATCH_BEGIN, 0, struct.pack(">BBH", 0, 0, 10)),
        (_NFT_MSG_NEWTABLE, raw.NLM_F_CREATE | raw.NLM_F_ACK, header + raw.attribute(1, _TABLE)),
        (_NFNL_MSG_BATCH_END, 0, struct.pack(">BBH", 0, 0, 10)),
    )
    data = b""
    for sequence, (kind, flags, body) in enumerate(messages):
        data += struct.pack("=IHHII", 16 + len(body), kind, flags | raw.NLM_F_REQUEST, sequence, 0) + body
    link.socket.send(data)
    answer = link.socket.recv(1 << 16)
    (number,) = struct.unpack_from("=i", answer, 16)
    if number:
        raise OSError(-number, os.strerror(-number))


def container_has_nft_table(arena: "Arena") -> bool:
    def tables() -> bool:
        link = raw.Netlink(_NETLINK_NETFILTER)
        get_table = (10 << 8) + 1
        answers = link.request(get_table, struct.pack(">BBH", 0, 0, 0), raw.NLM_F_DUMP)
        return any(raw.attributes(body[4:]).get(1, b"").rstrip(b"\0") == _TABLE.encode() for _, body in answers)

    return bool(arena.inside("blue", tables))


def create_unknown_link_kind(facts: Facts) -> None:
    raw.Netlink().create(raw.attribute(raw.IFLA_IFNAME, "esc0"), raw.link_info("escapekind"))


# The host worker's own netns


def delete_any_host_link(facts: Facts) -> None:
    raw.Netlink().request(raw.RTM_DELLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "hostbr0")))


def delete_container_link_by_nsid(facts: Facts) -> None:
    link = raw.Netlink()
    nsid = raw.integer(link.links()["veth0"][raw.IFLA_LINK_NETNSID])
    target = raw.attribute(raw.IFLA_TARGET_NETNSID, nsid)
    link.request(raw.RTM_DELLINK, raw.link_body(target, raw.attribute(raw.IFLA_IFNAME, "eth0")))


def container_has_no_eth0(arena: "Arena") -> bool:
    return "eth0" not in arena.links("blue")

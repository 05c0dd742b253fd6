"""What strace writes, as system calls, and what they did (cnisandbox.laboratory.learning)."""

import struct

from cnisandbox.laboratory.learning import activity, trace
from cnisandbox.laboratory.learning.activity import Activity

# Thread 9 starts thread 10 in the container's netns and goes back; process 11 is started by thread 10.
FILES = {
    "9": """\
1795248504.573615382 execve("/usr/lib/cni/bridge", 0x7fffdd7d4688, 0x7fffdd7d4698) = 0
1795248504.573700000 umask(077)             = 022
1795248504.573800000 chdir("/var")          = 0
1795248504.573900000 mkdir("lib/x", 0755)   = 0
1795248504.574000000 openat(AT_FDCWD</var>, "/run/netns/blue", O_RDONLY|O_CLOEXEC) = 3</run/netns/blue>
1795248504.575000000 setns(3</run/netns/blue>, CLONE_NEWNET) = 0
1795248504.576000000 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88) = 10
1795248504.577000000 openat(AT_FDCWD</var>, "/proc/sys/net/ipv4/ip_forward", O_WRONLY|O_CREAT, 0644) = 4</proc/x>
1795248504.578000000 openat(AT_FDCWD</var>, "/etc/missing", O_RDONLY) = -1 ENOENT (No such file or directory)
1795248504.579000000 nanosleep({tv_sec=0, tv_nsec=5120000},  <unfinished ...>) = ?
1795248504.580000000 +++ exited with 0 +++
""",
    "10": """\
1795248504.576500000 socket(AF_NETLINK, SOCK_RAW|SOCK_CLOEXEC, NETLINK_ROUTE) = 5<socket:[77]>
1795248504.577500000 sendto(5<socket:[77]>, ""..., 20, 0, 0xc00001c190, 12) = 20
 | 00000  14 00 00 00 12 00 05 00  07 00 00 00 00 00 00 00  ................ |
 | 00010  00 00 00 00                                       ....             |
1795248504.577600000 recvfrom(5<socket:[77]>, ""..., 65536, 0, 0xc00001c190, [112 => 12]) = 20
 | 00000  14 00 00 00 02 00 00 00  07 00 00 00 00 00 00 00  ................ |
 | 00010  ed ff ff ff                                       ....             |
1795248504.578500000 clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD) = 11
""",
    "11": """\
1795248504.579500000 execve("/usr/sbin/iptables", 0xc0000124f8, 0xc00014a840) = 0
1795248504.579600000 socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ARP)) = 3<socket:[78]>
1795248504.579700000 connect(4<socket:[79]>, {sa_family=AF_UNIX, sun_path="/run/cni/dhcp.sock"}, 110) = 0
1795248504.579800000 ioctl(6</dev/net/tun>, TUNSETIFF, 0x7ffd) = 0
1795248504.579900000 unshare(CLONE_NEWNET)   = 0
""",
}


def read() -> Activity:
    return activity.read(
        "ADD", 0, trace.parse(FILES), {"4026532178": "host", "4026533025": "container"}, "/run/netns/blue"
    )


def test_calls_are_in_the_order_of_time_with_their_bytes() -> None:
    calls = trace.parse(FILES)
    assert [call.time_ns for call in calls] == sorted(call.time_ns for call in calls)
    sent = next(call for call in calls if call.name == "sendto")
    assert sent.data == struct.pack("=IHHII", 20, 18, 5, 7, 0) + bytes(4)
    assert sent.descriptor() == (5, "socket:[77]")
    missing = next(call for call in calls if call.error)
    assert (missing.result, missing.error, missing.paths("/")) == (-1, "ENOENT", ["/etc/missing"])


def test_a_string_is_read_as_c_writes_it() -> None:
    assert trace.unescaped(r"a\"b\\c\n\101\x42") == 'a"b\\c\nAB'


def test_a_socket_belongs_to_the_netns_in_which_its_thread_stood() -> None:
    (sent,) = read().sent
    assert (sent.netns, sent.protocol, sent.errors) == ("container", 0, {7: 19})
    assert sent.netns_of_fds == {3: "container"}


def test_files_programs_and_sockets_are_found() -> None:
    found = read()
    assert found.made == ["/var/lib/x"]
    assert [(item.path, item.is_write, item.netns) for item in found.opened] == [
        ("/var/lib/x", True, "host"),
        ("/proc/sys/net/ipv4/ip_forward", True, "container"),
    ]
    assert found.programs == ["/usr/sbin/iptables"]
    assert found.connected == ["/run/cni/dhcp.sock"]
    assert found.raw_sockets == ["arp"]
    assert found.capabilities == {"CAP_NET_ADMIN": "ioctl TUNSETIFF, which no message can replace"}
    assert found.unspeakable == ["unshare: enters a network namespace that is neither the host's nor the container's"]

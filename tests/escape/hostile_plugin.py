#!/usr/bin/python3
"""A plugin that tries to get out: each attempt in a process of its own, one JSON document with what came of each.

    hostile_plugin.py VICTIM_IFINDEX UPLINK_IFINDEX

It imports nothing of the project: it stands in a directory of its own, and is executed as any plugin is. An attempt's
outcome is 0, an errno, or minus the signal that ended it. What happened in the kernel is for the test to look at.
"""

import array
import ctypes  # noqa: TID251 - no part of the project: it attacks it
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
NEWLINK, DELLINK, GETLINK, SETLINK, NEWNSID = 16, 17, 18, 19, 88
REQUEST, ACK, DUMP, CREATE, EXCL = 1, 4, 0x300, 0x400, 0x200
IFNAME, MTU, LINK, LINKINFO, NET_NS_PID, NET_NS_FD, LINK_NETNSID, TARGET_NETNSID = 3, 4, 5, 18, 19, 28, 37, 46
VICTIM, UPLINK = (int(word) for word in (sys.argv[1:3] if __name__ == "__main__" else ("0", "0")))

ATTEMPTS: dict[str, Callable[[], int]] = {}
_KEPT: list[socket.socket] = []  # so that they are not closed while their numbers are used


def attempt(function: Callable[[], int]) -> Callable[[], int]:
    """Put an attempt on the list."""
    ATTEMPTS[function.__name__.replace("_", "-")] = function
    return function


def checked(result: int) -> int:
    """Raise what a function of the C library has left in errno."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def call(number: int, *args: object) -> int:
    """Make a system call."""
    return checked(LIBC.syscall(ctypes.c_long(number), *args))


def pointer(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


# Netlink.


def enter_container() -> None:
    """Enter the container's netns, as every plugin does."""
    fd = os.open(os.environ["CNI_NETNS"], os.O_RDONLY)
    checked(LIBC.setns(fd, CLONE_NEWNET))
    os.close(fd)


def route_socket(*, is_inside: bool = True) -> socket.socket:
    if is_inside:
        enter_container()
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    endpoint.bind((0, 0))
    endpoint.settimeout(5)
    _KEPT.append(endpoint)
    return endpoint


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def number(value: int) -> bytes:
    return struct.pack("=i", value)


def link(kind: int, *attributes: bytes, ifindex: int = 0, flags: int = 0) -> bytes:
    body = struct.pack("=BxHiII", 0, 0, ifindex, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK | flags, 7, 0) + body


def info(kind: str, data: bytes = b"") -> bytes:
    return attribute(LINKINFO, attribute(1, text(kind)) + (attribute(2, data) if data else b""))


def peer(*attributes: bytes) -> bytes:
    return attribute(1, bytes(16) + b"".join(attributes))


def answer_to(endpoint: socket.socket, message: bytes) -> int:
    """Send, and return the errno of the acknowledgement."""
    endpoint.send(message)
    while True:
        data = endpoint.recv(1 << 16)
        _, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
        if sequence == 7 and kind == 2:
            return -int(struct.unpack_from("=i", data, 16)[0])
        if kind == 3:
            return 0


def inside(message: bytes) -> int:
    return answer_to(route_socket(), message)


def host_nsid() -> int:
    """Find the number that the host's netns has in the container's: the attachment's IFLA_LINK_NETNSID."""
    endpoint = route_socket()
    endpoint.send(link(GETLINK, attribute(IFNAME, text("eth0"))))
    data = endpoint.recv(1 << 16)
    at = 32
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        if kind == LINK_NETNSID:
            return int(struct.unpack_from("=i", data, at + 4)[0])
        at += (length + 3) & ~3
    raise OSError(errno.ENODATA, "no nsid")


@attempt
def make_a_link_of_the_host_by_its_nsid() -> int:
    target = attribute(TARGET_NETNSID, number(host_nsid()))
    return inside(link(NEWLINK, target, attribute(IFNAME, text("xbr9")), info("bridge"), flags=CREATE | EXCL))


@attempt
def look_at_a_link_of_the_host_by_its_nsid() -> int:
    return inside(link(GETLINK, attribute(TARGET_NETNSID, number(host_nsid())), ifindex=VICTIM))


@attempt
def set_a_link_of_the_host_by_its_nsid() -> int:
    target = attribute(TARGET_NETNSID, number(host_nsid()))
    return inside(link(SETLINK, target, attribute(MTU, number(1300)), ifindex=VICTIM))


@attempt
def move_the_attachment_by_a_pid() -> int:
    return inside(link(SETLINK, attribute(NET_NS_PID, number(os.getppid())), ifindex=2))


@attempt
def make_a_peer_by_a_pid() -> int:
    other = peer(attribute(IFNAME, text("xpeer1")), attribute(NET_NS_PID, number(os.getppid())))
    return inside(link(NEWLINK, attribute(IFNAME, text("xown1")), info("veth", other), flags=CREATE | EXCL))


@attempt
def stack_a_macvlan_on_the_uplink() -> int:
    nsid = host_nsid()
    lower = attribute(LINK, number(UPLINK)) + attribute(LINK_NETNSID, number(nsid))
    return inside(link(NEWLINK, attribute(IFNAME, text("xmac1")), lower, info("macvlan"), flags=CREATE | EXCL))


@attempt
def give_a_netns_a_number() -> int:
    body = (
        struct.pack("=Bxxx", 0)
        + attribute(1, number(77))
        + attribute(3, number(os.open("/proc/self/ns/net", os.O_RDONLY)))
    )
    result = inside(struct.pack("=IHHII", 16 + len(body), NEWNSID, REQUEST | ACK, 7, 0) + body)
    return 0 if result == errno.EEXIST else result  # it has one already


@attempt
def have_a_module_loaded_for_a_kind() -> int:
    result = inside(link(NEWLINK, attribute(IFNAME, text("xkind")), info("bareudp"), flags=CREATE | EXCL))
    return 0 if result in (errno.EOPNOTSUPP, errno.EINVAL) else result  # the kernel has looked for the module


@attempt
def make_a_link_of_a_chosen_number() -> int:
    """Of a kind that the profile does not name."""
    return inside(link(NEWLINK, attribute(IFNAME, text("xnum1")), info("ifb"), ifindex=500, flags=CREATE))


@attempt
def delete_a_link_of_the_host() -> int:
    return answer_to(route_socket(is_inside=False), link(DELLINK, ifindex=VICTIM))


@attempt
def delete_a_link_of_the_host_by_name() -> int:
    return answer_to(route_socket(is_inside=False), link(DELLINK, attribute(IFNAME, text("victim2"))))


@attempt
def list_the_links_of_the_host() -> int:
    return answer_to(route_socket(is_inside=False), link(GETLINK, flags=DUMP))


@attempt
def hide_a_message_behind_a_permitted_one() -> int:
    endpoint = route_socket()
    first = link(SETLINK, attribute(MTU, number(1280)), ifindex=2)
    second = link(SETLINK, attribute(TARGET_NETNSID, number(host_nsid())), attribute(MTU, number(1301)), ifindex=VICTIM)
    endpoint.send(first + second)
    errors = [-int(struct.unpack_from("=i", endpoint.recv(1 << 16), 16)[0]) for _ in range(2)]
    return errors[1]


@attempt
def send_to_a_process() -> int:
    """Not to the kernel: to whoever has that port, such as a daemon of the host."""
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    listener.bind((0, 0))
    sender = route_socket(is_inside=False)
    sender.sendto(link(GETLINK), (listener.getsockname()[0], 0))
    return 0


@attempt
def listen_to_a_group() -> int:
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    endpoint.bind((0, 1))
    return 0


@attempt
def become_a_member_of_a_group() -> int:
    route_socket(is_inside=False).setsockopt(270, 1, 1)
    return 0


@attempt
def duplicate_a_socket() -> int:
    os.dup(route_socket(is_inside=False).fileno())
    return 0


@attempt
def duplicate_a_socket_to_a_number() -> int:
    os.dup2(route_socket(is_inside=False).fileno(), 50)
    return 0


@attempt
def duplicate_a_socket_by_fcntl() -> int:
    fcntl.fcntl(route_socket(is_inside=False).fileno(), fcntl.F_DUPFD, 50)
    return 0


@attempt
def send_by_writev() -> int:
    os.writev(route_socket(is_inside=False).fileno(), [link(GETLINK, flags=DUMP)])
    return 0


@attempt
def send_by_sendmmsg() -> int:
    data = link(GETLINK, flags=DUMP)
    buffer = ctypes.create_string_buffer(data)
    vector = struct.pack("=QQ", ctypes.addressof(buffer), len(data))
    pieces = ctypes.create_string_buffer(vector)
    header = ctypes.create_string_buffer(
        struct.pack("=QIxxxxQQQQixxxxIxxxx", 0, 0, ctypes.addressof(pieces), 1, 0, 0, 0, 0)
    )
    checked(LIBC.sendmmsg(route_socket(is_inside=False).fileno(), header, 1, 0))
    return 0


@attempt
def send_by_splice() -> int:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, link(GETLINK, flags=DUMP))
    os.splice(read_fd, route_socket(is_inside=False).fileno(), 4096) if hasattr(os, "splice") else None
    return 0


@attempt
def send_by_sendfile() -> int:
    fd = os.open("/usr/bin/env", os.O_RDONLY)
    os.sendfile(route_socket(is_inside=False).fileno(), fd, 0, 16)
    return 0


@attempt
def send_by_io_submit() -> int:
    context = ctypes.c_ulong(0)
    return call(206, 1, ctypes.byref(context)) and 0


@attempt
def pass_a_socket_to_oneself() -> int:
    one, other = socket.socketpair()
    endpoint = route_socket(is_inside=False)
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [endpoint.fileno()]))])
    _, ancillary, _, _ = other.recvmsg(1, 64)
    return 0 if ancillary else errno.ENODATA


@attempt
def find_the_netns_of_a_socket() -> int:
    os.close(fcntl.ioctl(route_socket(is_inside=False).fileno(), 0x894C))
    return 0


@attempt
def race_on_the_message() -> int:
    """Exchange a message while it is being judged; whether the victim is left tells."""
    endpoint = route_socket(is_inside=False)
    endpoint.settimeout(0.2)
    allowed, wanted = (
        link(GETLINK, attribute(IFNAME, text("ownlink0"))),
        link(DELLINK, attribute(IFNAME, text("victim3"))),
    )
    size = max(len(allowed), len(wanted))
    buffer = ctypes.create_string_buffer(allowed, size)
    is_over = threading.Event()

    def flip() -> None:
        while not is_over.is_set():
            ctypes.memmove(buffer, wanted, len(wanted))
            ctypes.memmove(buffer, allowed, len(allowed))

    thread = threading.Thread(target=flip)
    thread.start()
    answers = set()
    for _ in range(300):
        LIBC.send(endpoint.fileno(), buffer, len(allowed), 0)
        try:
            data = endpoint.recv(1 << 16)
            if struct.unpack_from("=H", data, 4)[0] == 2:
                answers.add(-struct.unpack_from("=i", data, 16)[0])
        except TimeoutError:
            pass
    is_over.set()
    thread.join()
    return 0 if answers <= {0, errno.ENODEV} and not answers & {errno.EPERM} else errno.EPERM


@attempt
def send_too_much() -> int:
    LIBC.send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    checked(LIBC.send(route_socket(is_inside=False).fileno(), b"\0" * (2 << 20), 2 << 20, 0))
    return 0


@attempt
def send_what_is_cut_off() -> int:
    route_socket(is_inside=False).send(link(GETLINK)[:10])
    return 0


@attempt
def send_what_is_nested_to_death() -> int:
    inner = b""
    for _ in range(400):
        inner = attribute(LINKINFO | 0x8000, inner)
    result = answer_to(route_socket(is_inside=False), link(NEWLINK, inner, ifindex=VICTIM))
    return result if result == errno.EPERM else 0  # whatever else the kernel says, it has read it


# Other sockets.


def make_socket(domain: int, kind: int, protocol: int) -> int:
    socket.socket(domain, kind, protocol).close()
    return 0


ATTEMPTS["make-a-packet-socket"] = lambda: make_socket(17, socket.SOCK_RAW, 0x0300)
ATTEMPTS["make-a-raw-socket"] = lambda: make_socket(socket.AF_INET, socket.SOCK_RAW, 1)
ATTEMPTS["make-an-internet-socket"] = lambda: make_socket(socket.AF_INET, socket.SOCK_DGRAM, 0)
ATTEMPTS["make-an-xfrm-socket"] = lambda: make_socket(16, socket.SOCK_RAW, 6)
ATTEMPTS["make-a-uevent-socket"] = lambda: make_socket(16, socket.SOCK_RAW, 15)
ATTEMPTS["make-a-unix-socket"] = lambda: make_socket(socket.AF_UNIX, socket.SOCK_STREAM, 0)


# System calls.


@attempt
def use_the_system_calls_of_32_bits() -> int:
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # getpid by int 0x80
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return 0 if function() == os.getpid() else errno.EINVAL


@attempt
def use_the_system_calls_of_x32() -> int:
    result = LIBC.syscall(ctypes.c_long(0x40000000 | 39))
    return 0 if result > 0 or ctypes.get_errno() == errno.ENOSYS else ctypes.get_errno()


def simple(name: str, number_: int, *args: object, harmless: tuple[int, ...] = ()) -> None:
    """Put a system call on the list.

    Args:
        name: Of the attempt.
        number_: On x86-64.
        args: Its arguments.
        harmless: Errnos by which the kernel says that it would have done it.
    """

    def function() -> int:
        try:
            call(number_, *args)
        except OSError as error:
            return 0 if error.errno in harmless else error.errno or errno.EIO
        return 0

    ATTEMPTS[name] = function


_BUFFER = ctypes.create_string_buffer(256)
simple("make-an-io-uring", 425, 8, _BUFFER)
simple("load-a-bpf-program", 321, 0, _BUFFER, 72, harmless=(errno.EINVAL,))
simple(
    "open-a-performance-event",
    298,
    _BUFFER,
    0,
    -1,
    -1,
    0,
    harmless=(errno.EINVAL, errno.ENOENT, errno.E2BIG, errno.EOPNOTSUPP),
)
simple("make-a-userfaultfd", 323, 0)
simple("make-a-keyring", 250, 1, pointer(0), harmless=())
simple("let-oneself-be-traced", 101, 0, 0, 0, 0)
simple("write-memory-by-process-number", 311, 1, _BUFFER, 0, _BUFFER, 0, 0, harmless=(errno.EINVAL, errno.EFAULT))
simple("take-a-descriptor-of-another", 438, 0, 0, 0, harmless=(errno.EBADF,))
simple("make-a-user-namespace", 272, CLONE_NEWUSER)
simple("make-a-network-namespace", 272, CLONE_NEWNET)
simple("mount-something", 165, b"none", b"/tmp", b"tmpfs", 0, 0)
simple("unmount-something", 166, b"/proc/sys", 0, harmless=(errno.EINVAL, errno.ENOENT))
simple("change-the-root", 161, b"/tmp")
simple("load-a-module", 175, _BUFFER, 0, b"", harmless=(errno.ENOEXEC, errno.ENOSYS))
simple("open-by-handle", 304, -100, _BUFFER, 0, harmless=(errno.EINVAL, errno.EBADF, errno.ESTALE))
simple("set-the-hostname", 170, os.uname().nodename.encode(), len(os.uname().nodename))
simple("make-a-memory-file", 319, b"x", 0)


@attempt
def make_a_user_namespace_by_clone() -> int:
    pid = call(56, CLONE_NEWUSER | signal.SIGCHLD, pointer(0), pointer(0), pointer(0), pointer(0))
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return 0


@attempt
def make_a_user_namespace_by_clone3() -> int:
    args = ctypes.create_string_buffer(struct.pack("=11Q", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, 0))
    pid = call(435, args, 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return 0


@attempt
def enter_a_mount_namespace() -> int:
    return checked(LIBC.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0))


@attempt
def push_input_into_the_terminal() -> int:
    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return 0  # the kernel has looked: there is no terminal here
        raise
    return 0


# Files.


def open_file(path: str, flags: int) -> int:
    os.close(os.open(path, flags, 0o644))
    return 0


ATTEMPTS["read-the-shadow-file"] = lambda: open_file("/etc/shadow", os.O_RDONLY)
ATTEMPTS["list-the-home-of-root"] = lambda: open_file("/root", os.O_RDONLY | os.O_DIRECTORY)
ATTEMPTS["write-core-pattern"] = lambda: open_file("/proc/sys/kernel/core_pattern", os.O_WRONLY)
ATTEMPTS["write-a-program"] = lambda: open_file("/usr/bin/env", os.O_WRONLY)
ATTEMPTS["write-a-sysctl-of-the-host"] = lambda: open_file("/proc/sys/net/ipv4/ip_forward", os.O_WRONLY)
ATTEMPTS["write-a-sysctl-by-another-path"] = lambda: open_file("/proc/self/../sys/net/ipv4/ip_forward", os.O_WRONLY)
ATTEMPTS["read-a-sysctl-of-the-host"] = lambda: open_file("/proc/sys/net/ipv4/ip_forward", os.O_RDONLY)
ATTEMPTS["open-the-memory-of-the-first-process"] = lambda: open_file("/proc/1/mem", os.O_RDWR)


@attempt
def make_a_file_in_etc() -> int:
    open_file("/etc/xhostile", os.O_WRONLY | os.O_CREAT)
    os.unlink("/etc/xhostile")
    return 0


@attempt
def leave_a_set_uid_file() -> int:
    path = "/var/lib/cni/networks/xsetuid"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)
    return 0


@attempt
def make_a_set_uid_file() -> int:
    path = "/var/lib/cni/networks/xsetuid"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o4755))
    os.unlink(path)
    return 0


@attempt
def let_everybody_write() -> int:
    path = "/var/lib/cni/networks/xopen"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    try:
        os.chmod(path, 0o666)
    finally:
        os.unlink(path)
    return 0


@attempt
def make_what_everybody_may_write() -> int:
    path = "/var/lib/cni/networks/xumask"
    os.umask(0)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
    try:
        if not os.stat(path).st_mode & 0o022:
            raise PermissionError(errno.EPERM, "the umask")
    finally:
        os.unlink(path)
    return 0


@attempt
def leave_a_symbolic_link() -> int:
    os.symlink("/etc/passwd", "/var/lib/cni/networks/xlink")
    os.unlink("/var/lib/cni/networks/xlink")
    return 0


@attempt
def make_a_device() -> int:
    os.mknod("/var/lib/cni/networks/xdevice", 0o600 | 0o020000, os.makedev(1, 1))
    os.unlink("/var/lib/cni/networks/xdevice")
    return 0


@attempt
def execute_what_is_not_named() -> int:
    os.execv("/usr/bin/id", ["id"])


@attempt
def become_root_again() -> int:
    os.setuid(0)
    return 0


@attempt
def signal_everybody() -> int:
    """Whoever else could be reached would be: signal 0 reaches nobody, and says whether there is somebody."""
    os.kill(-1, 0)
    return 0


def outcome_of(function: Callable[[], int]) -> int:
    """Run an attempt in a process of its own."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        signal.alarm(60)
        try:
            result = function()
        except OSError as error:
            result = error.errno or errno.EIO
        os.write(write_fd, str(result).encode())
        os._exit(0)
    os.close(write_fd)
    said = os.read(read_fd, 16)
    os.close(read_fd)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    return int(said) if said else 0  # it has executed something else


if __name__ == "__main__":
    # What takes the attachment away, where it works, comes last.
    wanted = sorted(sys.argv[3:] or ATTEMPTS, key=lambda name: name == "move-the-attachment-by-a-pid")
    print(json.dumps({name: outcome_of(ATTEMPTS[name]) for name in wanted}))

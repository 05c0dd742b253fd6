"""Attempts to reach more of the kernel: calls, loaders, sockets, devices, keys, machine code. Each with its judge."""

import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import capabilities, observe, processes, raw
from cnisandbox.laboratory.attacker.knowledge import Facts, Said

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

NETLINK_SOCK_DIAG, NETLINK_XFRM, NETLINK_NETFILTER, NETLINK_GENERIC = 4, 6, 12, 16
AF_ALG, AF_VSOCK = 38, 40

_UNKNOWN_FAMILY, _UNKNOWN_PROTOCOL, _UNKNOWN_NAME = 19, 31, "escape"  # family 19 was ECONET, which is gone
_NFT_MSG_GETTABLE = (10 << 8) + 1
_RTM_NEWQDISC, _TCA_KIND, _ROOT_OF_LINK = 36, 1, 0xFFFFFFFF
_SIOCGIFFLAGS = 0x8913
_TRACING = "/run/tracing"
_PERF_TYPE_TRACEPOINT, _PERF_ATTRIBUTES_BYTES, _PERF_FLAG_FD_CLOEXEC = 2, 128, 8
_PERF_EVENT_IOC_SET_FILTER = 0x40082406
_COUNTERS: list[int] = []

_ADDR_NO_RANDOMIZE = 0x0040000
_SO_ATTACH_FILTER = 26
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_NEW_LISTENER, _SECCOMP_RET_ALLOW = 1, 8, 0x7FFF0000
_KEYCTL_JOIN_SESSION_KEYRING, _KEYCTL_SEARCH, _KEYCTL_READ, _SESSION_KEYRING = 1, 10, 11, -3
_KEYCTL_SET_TIMEOUT, _KEY_LIFE_S = 15, 60
_TOKEN = [""]
_KEYS_BEFORE = [""]

_CLONE_NEWUSER = 0x10000000
_PROT_READ_WRITE_EXEC = 7
_MAP_PRIVATE_ANONYMOUS = 0x22
_MACHINE_CODE: list[raw.MachineCode] = []


# Calls that have had their bugs


def load_bpf(facts: Facts) -> Said:
    instructions = raw.buffer(bytes.fromhex("b7000000000000009500000000000000"))  # r0 = 0; exit
    text = raw.buffer(b"GPL\0")
    attributes = struct.pack("=IIQQIIQII", 1, 2, raw.address(instructions), raw.address(text), 0, 0, 0, 0, 0)
    bpf_prog_load = 5
    return Said(0, raw.syscall("bpf", bpf_prog_load, raw.buffer(attributes), len(attributes)))


def set_up_io_uring(facts: Facts) -> Said:
    return Said(0, raw.syscall("io_uring_setup", 4, raw.buffer(120)))


def make_userfaultfd(facts: Facts) -> Said:
    user_mode_only = 1
    return Said(0, raw.syscall("userfaultfd", user_mode_only))


def open_perf_event(facts: Facts) -> Said:
    return Said(0, raw.syscall("perf_event_open", processes.software_event(), 0, -1, -1, 0))


def mount_tmpfs(facts: Facts) -> None:
    raw.syscall("mount", b"tmpfs\0", b"/mnt\0", b"tmpfs\0", 0, b"\0")


def has_mounted(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/mounts") as file:
        return "tmpfs /mnt tmpfs" in file.read()


# User namespaces


def unshare_userns(facts: Facts) -> None:
    raw.syscall("unshare", _CLONE_NEWUSER)


def has_own_userns(arena: "Arena") -> bool:
    return arena.namespace("user") != arena.namespace("user", 1)


def clone_userns(facts: Facts) -> Said:
    child = raw.syscall("clone", _CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        signal.pause()
    return Said(0, child)


def clone3_userns(facts: Facts) -> Said:
    arguments = struct.pack("=QQQQQQQQ", _CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    child = raw.syscall("clone3", raw.buffer(arguments), len(arguments))
    if child == 0:
        signal.pause()
    return Said(0, child)


def child_has_own_userns(arena: "Arena") -> bool:
    return any(arena.namespace("user", child) != arena.namespace("user", 1) for child in processes.children(arena))


# What the kernel asks modprobe for


def count_module_requests(module: str, arena: "Arena") -> None:
    """Scene: the kernel counts how often it is asked to load a module, on each processor."""
    _COUNTERS[:] = count_events("module/module_request", f'name == "{module}"')


def count_events(tracepoint: str, condition: str) -> list[int]:
    """Have a tracepoint counted, whoever comes by.

    Args:
        tracepoint: System and name.
        condition: Which events count, as Documentation/trace/events.rst has it.

    Returns:
        Descriptors; the number is read from each of them, and the counting ends when they are closed.
    """
    os.makedirs(_TRACING, exist_ok=True)
    raw.syscall("mount", b"tracefs\0", _TRACING.encode() + b"\0", b"tracefs\0", 0, b"\0")
    with open(f"{_TRACING}/events/{tracepoint}/id") as file:
        attributes = struct.pack("=IIQ", _PERF_TYPE_TRACEPOINT, _PERF_ATTRIBUTES_BYTES, int(file.read()))
    memory = raw.buffer(attributes.ljust(_PERF_ATTRIBUTES_BYTES, b"\0"))
    counters = []
    for processor in os.sched_getaffinity(0):
        counter = raw.syscall("perf_event_open", memory, -1, processor, -1, _PERF_FLAG_FD_CLOEXEC)
        fcntl.ioctl(counter, _PERF_EVENT_IOC_SET_FILTER, condition.encode() + b"\0")
        counters.append(counter)
    return counters


def kernel_was_asked(arena: "Arena") -> bool:
    """Say whether the kernel was asked for the module that the scene named."""
    return any(int.from_bytes(os.read(counter, 8), sys.byteorder) for counter in _COUNTERS)


def lacks_modules() -> str:
    return "" if os.path.exists("/proc/sys/kernel/modprobe") else "CONFIG_MODULES"


def use_unknown_socket_family(facts: Facts) -> None:
    socket.socket(_UNKNOWN_FAMILY, socket.SOCK_STREAM)


def use_unknown_netlink_protocol(facts: Facts) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _UNKNOWN_PROTOCOL)


def mount_unknown_file_system(facts: Facts) -> None:
    name = _UNKNOWN_NAME.encode() + b"\0"
    raw.syscall("mount", name, b"/mnt\0", name, 0, b"\0")


def add_unknown_qdisc(facts: Facts) -> None:
    link = raw.Netlink()
    ifindex = raw.integer(link.links()["lo"][0])
    body = struct.pack("=BxHiIII", 0, 0, ifindex, 0, _ROOT_OF_LINK, 0)
    body += raw.attribute(_TCA_KIND, _UNKNOWN_NAME)
    link.request(_RTM_NEWQDISC, body, raw.NLM_F_ACK | raw.NLM_F_CREATE | raw.NLM_F_EXCL)


def name_unknown_link(facts: Facts) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("=16s24x", _UNKNOWN_NAME.encode()))


# Sockets of families and protocols that take a parser of the kernel with them


def open_netlink_socket(protocol: int, facts: Facts) -> Said:
    return Said(0, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).detach())


def open_socket(family: int, kind: int, facts: Facts) -> Said:
    return Said(0, socket.socket(family, kind).detach())


def holds_socket_of(family: int, protocol: int, arena: "Arena") -> bool:
    """Say whether the attacked process holds a socket of a family, as the kernel tells whoever takes it."""
    taken = _taken(arena)
    if taken is None:
        return False
    with taken:
        return (taken.family, taken.proto) == (family, protocol)


def lacks_socket_family(family: int, kind: int, feature: str) -> str:
    return capabilities.missing(feature, lambda: socket.socket(family, kind).close(), errno.EAFNOSUPPORT)


def _taken(arena: "Arena") -> socket.socket | None:
    """Take the socket that the attacked process says it has, by pidfd_getfd()."""
    try:
        pidfd = os.pidfd_open(arena.pid)
    except OSError:
        return None
    try:
        return socket.socket(fileno=raw.syscall("pidfd_getfd", pidfd, arena.said.value, 0))
    except OSError:  # he has no such descriptor, or it is none of a socket
        return None
    finally:
        os.close(pidfd)


def lacks_netlink_protocol(protocol: int, feature: str) -> str:
    def probe() -> None:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()

    return capabilities.missing(feature, probe, errno.EPROTONOSUPPORT)


def attach_socket_filter(facts: Facts) -> Said:
    link = raw.Netlink()
    instructions = raw.buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))  # accept everything
    program = struct.pack("=H6xQ", 1, raw.address(instructions))
    link.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    return Said(0, link.socket.detach())


def has_filter(arena: "Arena") -> bool:
    taken = _taken(arena)
    if taken is None:
        return False
    with taken:
        so_get_filter = _SO_ATTACH_FILTER
        return len(taken.getsockopt(socket.SOL_SOCKET, so_get_filter, 8)) > 0


def has_nft_table(arena: "Arena") -> bool:
    """Say whether the container or the host has a table of the name that network.make_nft_table gives it."""
    return any(
        raw.attributes(body[4:]).get(1) == _UNKNOWN_NAME.encode() + b"\0"
        for netns in (observe.CONTAINER, observe.HOST)
        for body in observe.dump(arena, _NFT_MSG_GETTABLE, struct.pack(">BBH", 0, 0, 0), netns, NETLINK_NETFILTER)
    )


# Descriptors of other kinds


def listen_to_own_calls(facts: Facts) -> Said:
    """Load a filter of our own, and have its questions delivered to ourselves."""
    raw.syscall("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    instructions = raw.buffer(struct.pack("=HBBI", 0x06, 0, 0, _SECCOMP_RET_ALLOW))
    program = raw.buffer(struct.pack("=H6xQ", 1, raw.address(instructions)))
    return Said(0, raw.syscall("seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_NEW_LISTENER, program))


def open_file_system(facts: Facts) -> Said:
    return Said(0, raw.syscall("fsopen", b"tmpfs\0", 0))


def make_secret_memory(facts: Facts) -> Said:
    return Said(0, raw.syscall("memfd_secret", 0))


def lacks_secret_memory() -> str:
    return capabilities.missing("CONFIG_SECRETMEM", lambda: raw.syscall("memfd_secret", 0), errno.ENOSYS)


def open_message_queue(facts: Facts) -> Said:
    return Said(0, raw.syscall("mq_open", _UNKNOWN_NAME.encode() + b"\0", os.O_RDWR | os.O_CREAT, 0o600, 0))


def lacks_message_queues() -> str:
    name = b"probe\0"
    feature = capabilities.missing(
        "CONFIG_POSIX_MQUEUE", lambda: raw.syscall("mq_open", name, os.O_RDWR | os.O_CREAT, 0o600, 0), errno.ENOSYS
    )
    if not feature:
        raw.syscall("mq_unlink", name)
    return feature


def holds_descriptor_of(kind: str, arena: "Arena") -> bool:
    """Say whether the attacked process holds the descriptor that it says, of a kind that /proc shows."""
    return arena.said.errno == 0 and processes.descriptors(arena).get(arena.said.value, "").startswith(kind)


def set_up_aio(facts: Facts) -> None:
    raw.syscall("io_setup", 1, raw.buffer(bytes(8)))


def has_aio(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/maps") as file:
        return "/[aio]" in file.read()


def lacks_aio() -> str:
    return capabilities.missing("CONFIG_AIO", lambda: raw.syscall("io_setup", 1, raw.buffer(bytes(8))), errno.ENOSYS)


# Devices


def open_device(path: str, facts: Facts) -> Said:
    return Said(0, os.open(path, os.O_RDWR | os.O_NOCTTY))


def holds_device(path: str, arena: "Arena") -> bool:
    try:
        held = os.stat(f"/proc/{arena.pid}/fd/{arena.said.value}")
    except OSError:
        return False
    return stat.S_ISCHR(held.st_mode) and held.st_rdev == os.stat(path).st_rdev


def lacks_device(path: str) -> str:
    return capabilities.missing(
        path, lambda: os.open(path, os.O_RDWR | os.O_NOCTTY), errno.ENOENT, errno.ENXIO, errno.ENODEV
    )


# Keys


def count_keys(arena: "Arena") -> None:
    """Scene: note how many keys the users have."""
    _KEYS_BEFORE[:] = [_keys()]


def _keys() -> str:
    with open("/proc/key-users") as file:
        return file.read()


def has_more_keys(arena: "Arena") -> bool:
    return arena.said.errno == 0 and _keys() != _KEYS_BEFORE[0]


def add_key(facts: Facts) -> None:
    key_spec_process_keyring = -2
    raw.syscall("add_key", b"user\0", b"escape\0", b"payload", 7, key_spec_process_keyring)


def join_session_keyring(facts: Facts) -> None:
    keyctl_join_session_keyring = 1
    raw.syscall("keyctl", keyctl_join_session_keyring, b"escape\0", 0, 0, 0)


def leave_key_in_session(arena: "Arena") -> None:
    """Scene: the runtime was started in a session that has a key, as a login leaves one; who it starts has it too."""
    _TOKEN[:] = [os.urandom(8).hex()]
    raw.syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    payload = _TOKEN[0].encode()
    key = raw.syscall("add_key", b"user\0", b"runtime\0", payload, len(payload), _SESSION_KEYRING)
    raw.syscall("keyctl", _KEYCTL_SET_TIMEOUT, key, _KEY_LIFE_S, 0, 0)


def read_key_of_session(facts: Facts) -> Said:
    key = raw.syscall("keyctl", _KEYCTL_SEARCH, _SESSION_KEYRING, b"user\0", b"runtime\0", 0)
    payload = raw.buffer(64)
    size = raw.syscall("keyctl", _KEYCTL_READ, key, payload, len(payload), 0)
    return Said(0, 0, payload.raw[:size].decode())


def said_key(arena: "Arena") -> bool:
    return arena.said.text == _TOKEN[0]


def lacks_keys() -> str:
    return capabilities.missing(
        "CONFIG_KEYS", lambda: raw.syscall("keyctl", 0, _SESSION_KEYRING, 0, 0, 0), errno.ENOSYS
    )


# How programs are executed


def switch_off_randomization(facts: Facts) -> None:
    raw.syscall("personality", _ADDR_NO_RANDOMIZE)


def has_no_randomization(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/personality") as file:
        return bool(int(file.read(), 16) & _ADDR_NO_RANDOMIZE)


def execute_anonymous_file(facts: Facts) -> None:
    """Execute a program that is in no file system."""
    fd = os.memfd_create(_UNKNOWN_NAME)
    with open(processes.OTHER_PROGRAM, "rb") as program, open(fd, "wb", closefd=False) as copy:
        copy.write(program.read())
    path = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # nothing open for writing is executed
    os.close(fd)
    processes.execute(path, "escape", "60", is_awaited=False)


def executes_anonymous_file(arena: "Arena") -> bool:
    wanted = f"/memfd:{_UNKNOWN_NAME} (deleted)"
    return any(os.readlink(f"/proc/{pid}/exe") == wanted for pid in (arena.pid, *processes.children(arena)))


# Machine code, and system calls of other architectures


def map_executable(facts: Facts) -> Said:
    return Said(0, raw.syscall("mmap", 0, mmap.PAGESIZE, _PROT_READ_WRITE_EXEC, _MAP_PRIVATE_ANONYMOUS, -1, 0))


def make_executable(facts: Facts) -> Said:
    where = raw.syscall("mmap", 0, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    raw.syscall("mprotect", where, mmap.PAGESIZE, _PROT_READ_WRITE_EXEC)
    return Said(0, where)


def has_executable_page(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/maps") as file:
        pages = [line.split()[:2] for line in file]
    return any(
        rights == "rwxp" and int(span.split("-")[0], 16) <= arena.said.value < int(span.split("-")[1], 16)
        for span, rights in pages
    )


def load_machine_code(arena: "Arena") -> None:
    """Scene: code with `int 0x80` is in memory already."""
    _MACHINE_CODE[:] = [raw.MachineCode()]


def call_32_bit(facts: Facts) -> Said:
    code = _MACHINE_CODE[0] if _MACHINE_CODE else raw.MachineCode()  # a program of his own makes it himself
    return Said(0, code.run())


def call_x32(facts: Facts) -> Said:
    return Said(0, raw.syscall_number(raw.X32_BIT | 39))


def said_own_pid(arena: "Arena") -> bool:
    """Say whether the call was answered: with its number in the innermost of the pid namespaces that it is in."""
    return arena.said.errno == 0 and str(arena.said.value) == arena.status("NSpid").split()[-1]


# What the kernel lacks


def lacks_call(name: str, feature: str, *arguments: int | bytes) -> str:
    """Name a feature if the kernel has no such system call."""
    return capabilities.missing(feature, lambda: raw.syscall(name, *arguments), errno.ENOSYS)


def lacks_io_uring() -> str:
    """Find out whether there is any, and whether root may use it."""
    try:
        os.close(raw.syscall("io_uring_setup", 4, raw.buffer(120)))
    except OSError as error:
        return {errno.ENOSYS: "CONFIG_IO_URING", errno.EPERM: "kernel.io_uring_disabled below 2"}.get(
            error.errno or 0, ""
        )
    return ""


def lacks_user_namespaces() -> str:
    return "" if os.path.exists("/proc/self/ns/user") else "CONFIG_USER_NS"


def lacks_32_bit_calls() -> str:
    """Find out whether a fork survives one."""
    if os.uname().machine != "x86_64":
        return "x86-64"
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if raw.MachineCode().run() > 0 else 1)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return "CONFIG_IA32_EMULATION" if status else ""


def lacks_x32_calls() -> str:
    if os.uname().machine != "x86_64":
        return "x86-64"
    x32_getpid = raw.X32_BIT | 39
    return capabilities.missing("CONFIG_X86_X32_ABI", lambda: raw.syscall_number(x32_getpid), errno.ENOSYS)

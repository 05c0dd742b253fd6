"""Attempts that a capability decides about, on files, identities, processes and the network. Each with its judge.

What is of a stranger belongs to a user who is neither root nor the service user: root without the capability that an
attempt is about is refused like everybody else. What the kernel lacks for an attempt is found by a probe beside it.
"""

import contextlib
import errno
import fcntl
import os
import resource
import secrets
import signal
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import files, raw
from cnisandbox.laboratory.attacker.knowledge import STATE_DIRECTORY, Facts, Said

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

STRANGER = 65533

_THEIR_FILE = f"{STATE_DIRECTORY}/theirs"
_THEIR_DIRECTORY = f"{STATE_DIRECTORY}/directory"
_OWN_FILE = f"{STATE_DIRECTORY}/escape"
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10
_IFF_PROMISC, _IFLA_PROMISCUITY = 0x100, 30
_CAP_SYS_RESOURCE, _CAP_AUDIT_READ = 24, 37
_MIB = 1 << 20

# Memory that an attempt has the kernel keep for it, as long as the process lives.
_KEPT: list[object] = []

_SECRET_OF_STRANGER, _SECRET_BYTES = [""], 16


def missing(feature: str, probe: Callable[[], object], *absent: int) -> str:
    """Name a feature if the kernel answers that it does not have it.

    Args:
        feature: Its name.
        probe: Uses it; made in a fork.
        absent: The errnos that say so; without them, any.
    """
    child = os.fork()
    if child == 0:
        number = errno.EIO
        try:
            probe()
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            os._exit(number)
    _, status = os.waitpid(child, 0)
    number = abs(os.waitstatus_to_exitcode(status))
    return feature if number and (number in absent or not absent) else ""


def setting(name: str) -> int:
    """Read a setting of the kernel, such as "vm/mmap_min_addr"; -1 where it has none of that name."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}") as file:
        return int(file.read())
    return -1


def stay(arena: "Arena", name: str, prepare: Callable[[], None]) -> None:
    """Add a process of the host that prepares itself and stays to the end of the arena."""
    arena.facts.pids[name] = arena.fork(prepare)


def add_stranger(arena: "Arena") -> None:
    """Scene: a process of a stranger."""
    stay(arena, "stranger", _become_stranger)


def _become_stranger() -> None:
    os.setresgid(STRANGER, STRANGER, STRANGER)
    os.setresuid(STRANGER, STRANGER, STRANGER)


# Files


def leave_file_of_stranger(arena: "Arena") -> None:
    """Scene: a private file of a stranger among the state files."""
    _SECRET_OF_STRANGER[:] = [secrets.token_hex(8)]
    with open(_THEIR_FILE, "w") as file:
        file.write(_SECRET_OF_STRANGER[0])
    os.chmod(_THEIR_FILE, 0o600)
    os.chown(_THEIR_FILE, STRANGER, STRANGER)


def leave_readable_file_of_stranger(arena: "Arena") -> None:
    """Scene: a file of a stranger that everybody may read."""
    leave_file_of_stranger(arena)
    os.chmod(_THEIR_FILE, 0o644)


def leave_program_in_group_of_stranger(arena: "Arena") -> None:
    """Scene: a program of root in a stranger's group."""
    with open(_THEIR_FILE, "w"):
        pass
    os.chown(_THEIR_FILE, 0, STRANGER)
    os.chmod(_THEIR_FILE, 0o755)


def _their_file(facts: Facts, flags: int) -> int:
    return os.open("theirs", flags, dir_fd=files._state(facts))


def overwrite_file_of_stranger(facts: Facts) -> None:
    os.write(_their_file(facts, os.O_WRONLY), b"changed")


def file_of_stranger_was_changed(arena: "Arena") -> bool:
    with open(_THEIR_FILE) as file:
        return file.read().startswith("changed")


def read_file_of_stranger(facts: Facts) -> Said:
    return Said(0, 0, os.read(_their_file(facts, os.O_RDONLY), 64).decode())


def said_secret_of_stranger(arena: "Arena") -> bool:
    return arena.said.text == _SECRET_OF_STRANGER[0]


def open_file_of_stranger_to_everybody(facts: Facts) -> None:
    os.chmod("theirs", 0o666, dir_fd=files._state(facts))


def file_of_stranger_is_open_to_everybody(arena: "Arena") -> bool:
    return os.stat(_THEIR_FILE).st_mode & 0o777 == 0o666


def leave_directory_of_stranger(arena: "Arena") -> None:
    """Scene: a private directory of a stranger among the state files."""
    _make_directory_of_stranger(0o700)


def leave_sticky_directory_of_stranger(arena: "Arena") -> None:
    """Scene: a directory of a stranger where everybody may write, and nobody may remove what is somebody else's."""
    _make_directory_of_stranger(0o1777)


def _make_directory_of_stranger(mode: int) -> None:
    os.mkdir(_THEIR_DIRECTORY)
    os.close(os.open(f"{_THEIR_DIRECTORY}/theirs", os.O_WRONLY | os.O_CREAT, 0o600))
    os.chown(f"{_THEIR_DIRECTORY}/theirs", STRANGER, STRANGER)
    os.chmod(_THEIR_DIRECTORY, mode)
    os.chown(_THEIR_DIRECTORY, STRANGER, STRANGER)


def delete_file_of_stranger(facts: Facts) -> None:
    os.unlink("directory/theirs", dir_fd=files._state(facts))


def file_of_stranger_is_gone(arena: "Arena") -> bool:
    return os.path.isdir(_THEIR_DIRECTORY) and not os.listdir(_THEIR_DIRECTORY)


def make_program_in_group_of_stranger_setgid(facts: Facts) -> None:
    os.chmod("theirs", 0o2755, dir_fd=files._state(facts))


def program_in_group_of_stranger_is_setgid(arena: "Arena") -> bool:
    return os.stat(_THEIR_FILE).st_mode & 0o7777 == 0o2755


def make_file_immutable(facts: Facts) -> None:
    with files._new_file(facts, 0o644) as fd:
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("=Q", _FS_IMMUTABLE_FL))


def file_is_immutable(arena: "Arena") -> bool:
    """Look at the flag, and take it away again."""
    if not os.path.exists(_OWN_FILE):
        return False
    fd = os.open(_OWN_FILE, os.O_RDONLY)
    (flags,) = struct.unpack("=Q", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, b"\0" * 8))
    if flags & _FS_IMMUTABLE_FL:
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, b"\0" * 8)
    return bool(flags & _FS_IMMUTABLE_FL)


def needs_flags_of_files() -> str:
    def probe() -> None:
        fcntl.ioctl(os.open(STATE_DIRECTORY, os.O_RDONLY), _FS_IOC_GETFLAGS, b"\0" * 8)

    return missing("immutable files on tmpfs", probe)


def lease_file_of_stranger(facts: Facts) -> None:
    fcntl.fcntl(_their_file(facts, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)


def file_of_stranger_is_leased(arena: "Arena") -> bool:
    inode = os.stat(_THEIR_FILE).st_ino
    with open("/proc/locks") as file:
        return any(" LEASE " in line and f":{inode} " in line for line in file)


# The attribute by which Smack labels a file; a process that nobody has labelled may read files of its own label only.
_SMACK, _LABEL = "security.SMACK64", b"cnisandbox"


def label_file_of_stranger(arena: "Arena") -> None:
    """Scene: a file that everybody may read, but for its Smack label."""
    leave_readable_file_of_stranger(arena)
    os.setxattr(_THEIR_FILE, _SMACK, _LABEL)


def label_file(facts: Facts) -> None:
    with files._new_file(facts, 0o644) as fd:
        os.setxattr(fd, _SMACK, _LABEL)


def file_has_label(arena: "Arena") -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(_OWN_FILE, _SMACK) == _LABEL
    return False


def needs_smack() -> str:
    with open("/proc/filesystems") as file:
        return "" if "\tsmackfs\n" in file.read() else "CONFIG_SECURITY_SMACK"


# The attacker's own identity


def join_group_of_stranger(facts: Facts) -> None:
    os.setresgid(STRANGER, STRANGER, STRANGER)


def is_in_group_of_stranger(arena: "Arena") -> bool:
    return arena.status("Gid").split() == [str(STRANGER)] * 4


def become_stranger(facts: Facts) -> None:
    os.setresuid(STRANGER, STRANGER, STRANGER)


def is_stranger(arena: "Arena") -> bool:
    return arena.status("Uid").split() == [str(STRANGER)] * 4


def change_bounding_set(facts: Facts) -> None:
    pr_capbset_drop = 24
    raw.syscall("prctl", pr_capbset_drop, _CAP_AUDIT_READ, 0, 0, 0)


def bounding_set_was_changed(arena: "Arena") -> bool:
    own, others = (int(arena.status("CapBnd", pid), 16) for pid in (0, arena.facts.pids["bystander"]))
    return arena.said.errno == 0 and others & ~own == 1 << _CAP_AUDIT_READ


def keep_capabilities_as_stranger(facts: Facts) -> None:
    pr_set_securebits, no_setuid_fixup = 28, 1 << 2
    raw.syscall("prctl", pr_set_securebits, no_setuid_fixup, 0, 0, 0)
    os.setresuid(STRANGER, STRANGER, STRANGER)


def has_capabilities_as_stranger(arena: "Arena") -> bool:
    return is_stranger(arena) and int(arena.status("CapEff"), 16) != 0


def change_root(facts: Facts) -> None:
    raw.syscall("chroot", b"/proc/sys/net\0")


def has_other_root(arena: "Arena") -> bool:
    return os.readlink(f"/proc/{arena.pid}/root") == "/proc/sys/net"


def slow_stranger_down(facts: Facts) -> None:
    os.setpriority(os.PRIO_PROCESS, facts.pids["stranger"], 19)


def stranger_is_slow(arena: "Arena") -> bool:
    return os.getpriority(os.PRIO_PROCESS, arena.facts.pids["stranger"]) == 19


def run_before_everybody(facts: Facts) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def runs_before_everybody(arena: "Arena") -> bool:
    return os.sched_getscheduler(arena.pid) == os.SCHED_FIFO


def needs_real_time() -> str:
    return missing("real-time run time in this control group", lambda: run_before_everybody(_NO_FACTS))


def lower_hard_limit(arena: "Arena") -> None:
    """Scene: there is a hard limit that root could raise again."""
    resource.setrlimit(_RLIMIT_MSGQUEUE, (1000, 1000))


def raise_hard_limit(facts: Facts) -> None:
    raw.syscall("prlimit64", 0, _RLIMIT_MSGQUEUE, raw.buffer(struct.pack("=QQ", 2000, 2000)), 0)


def has_raised_hard_limit(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/limits") as file:
        (words,) = [line.split() for line in file if line.startswith("Max msgqueue size")]
    return words[4] == "2000"


_RLIMIT_MSGQUEUE = 12


def needs_sys_resource() -> str:
    with open("/proc/self/status") as file:
        (bounding,) = [int(line.split()[1], 16) for line in file if line.startswith("CapBnd:")]
    return "" if bounding >> _CAP_SYS_RESOURCE & 1 else "CAP_SYS_RESOURCE in the bounding set"


# Memory


def lower_limit_of_locked_memory(arena: "Arena") -> None:
    """Scene: a process may lock a single page, as far as limits go."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))


def lock_memory(facts: Facts) -> None:
    memory = raw.buffer(_MIB)
    _KEPT.append(memory)
    raw.syscall("mlock", raw.address(memory), _MIB)


def has_locked_memory(arena: "Arena") -> bool:
    return int(arena.status("VmLck").split()[0]) >= _MIB // 1024


def map_page_zero(facts: Facts) -> None:
    read_write, private_fixed_anonymous = 3, 0x32
    raw.syscall("mmap", 0, 4096, read_write, private_fixed_anonymous, -1, 0)


def has_page_zero(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/maps") as file:
        return int(file.read().split("-", 1)[0] or "1", 16) == 0


def needs_protected_page_zero() -> str:
    return "" if setting("vm/mmap_min_addr") > 0 else "vm.mmap_min_addr above 0"


def share_memory_of_stranger(arena: "Arena") -> None:
    """Scene: a private shared memory segment of a stranger; it is the first of the host and has the id 0."""
    _SECRET_OF_STRANGER[:] = [secrets.token_hex(8)]
    stay(arena, "stranger", _share_memory)


def _share_memory() -> None:
    _become_stranger()
    ipc_private, ipc_creat = 0, 0o1000
    segment = raw.syscall("shmget", ipc_private, 4096, ipc_creat | 0o600)
    local = raw.buffer(_SECRET_OF_STRANGER[0].encode())
    shared = raw.syscall("shmat", segment, 0, 0)
    raw.syscall("process_vm_writev", os.getpid(), _span(raw.address(local)), 1, _span(shared), 1, 0)


def _span(where: int) -> bytes:
    """Make the `struct iovec` of a secret at an address."""
    return struct.pack("=QQ", where, _SECRET_BYTES)


def read_memory_of_stranger(facts: Facts) -> Said:
    shm_rdonly = 0o10000
    local = raw.buffer(_SECRET_BYTES)
    shared = raw.syscall("shmat", 0, 0, shm_rdonly)
    raw.syscall("process_vm_readv", os.getpid(), _span(raw.address(local)), 1, _span(shared), 1, 0)
    return Said(0, 0, local.raw.decode())


def needs_shared_memory() -> str:
    return "" if os.path.exists("/proc/sysvipc/shm") else "CONFIG_SYSVIPC"


# Other processes


def kill_stranger(facts: Facts) -> None:
    os.kill(facts.pids["stranger"], signal.SIGKILL)


def stranger_is_gone(arena: "Arena") -> bool:
    return arena.has_ended("stranger")


_CHOSEN_PID = 31337


def choose_pid(facts: Facts) -> None:
    """Have a child born with a certain pid, such as that of somebody who has ended and is still trusted."""
    wanted = raw.buffer(struct.pack("=i", _CHOSEN_PID))
    arguments = struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, raw.address(wanted), 1, 0)
    if raw.syscall("clone3", raw.buffer(arguments), len(arguments)) == 0:
        signal.pause()


def child_has_chosen_pid(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    return any(arena.status("NSpid", child).split()[-1] == str(_CHOSEN_PID) for child in children)


# The network


def bind_privileged_port(facts: Facts) -> None:
    listener = socket.socket(socket.AF_INET)
    listener.bind(("0.0.0.0", 80))
    listener.listen()
    listener.detach()


def listens_on_privileged_port(arena: "Arena") -> bool:
    listening = "0A"
    with open(f"/proc/{arena.pid}/net/tcp") as file:
        sockets = [line.split() for line in file.readlines()[1:]]
    return any(words[1].endswith(":0050") and words[3] == listening for words in sockets)


def needs_privileged_ports() -> str:
    is_privileged = setting("net/ipv4/ip_unprivileged_port_start") > 80
    return "" if is_privileged else "net.ipv4.ip_unprivileged_port_start above 80"


def listen_to_everything(facts: Facts) -> None:
    change = {"flags": _IFF_PROMISC, "change": _IFF_PROMISC}
    raw.Netlink().request(raw.RTM_SETLINK, raw.link_body(raw.attribute(raw.IFLA_IFNAME, "eth0"), **change))


def eth0_listens_to_everything(arena: "Arena") -> bool:
    return raw.integer(arena.links("blue")["eth0"][_IFLA_PROMISCUITY]) > 0


# Timers and performance


def make_waking_timer(facts: Facts) -> Said:
    clock_boottime_alarm = 9
    return Said(0, raw.syscall("timerfd_create", clock_boottime_alarm, 0))


def holds_waking_timer(arena: "Arena") -> bool:
    return arena.said.errno == 0 and "clockid: 9" in _descriptor_info(arena)


def _descriptor_info(arena: "Arena") -> str:
    """Read what the kernel says about the descriptor that the attempt brought back; nothing if there is none."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{arena.pid}/fdinfo/{arena.said.value}") as file:
        return file.read()
    return ""


def needs_waking_timers() -> str:
    return missing("alarm clocks for timerfd", lambda: make_waking_timer(_NO_FACTS))


_NO_FACTS = Facts({})
_EPOLLWAKEUP = 1 << 29


def keep_machine_awake(facts: Facts) -> Said:
    """Wait for an event in the way that keeps the machine from being suspended while it is dealt with."""
    epoll_ctl_add, epollin = 1, 1
    reader, _ = os.pipe()
    epoll = raw.syscall("epoll_create1", 0)
    raw.syscall("epoll_ctl", epoll, epoll_ctl_add, reader, raw.buffer(struct.pack("=IQ", epollin | _EPOLLWAKEUP, 0)))
    return Said(0, epoll)


def keeps_machine_awake(arena: "Arena") -> bool:
    return arena.said.errno == 0 and _has_wakeup_event(_descriptor_info(arena))


def _has_wakeup_event(info: str) -> bool:
    events = [int(line.split()[3], 16) for line in info.splitlines() if line.startswith("tfd:")]
    return any(event & _EPOLLWAKEUP for event in events)


def needs_suspend() -> str:
    with open(f"/proc/self/fdinfo/{keep_machine_awake(_NO_FACTS).value}") as file:
        return "" if _has_wakeup_event(file.read()) else "CONFIG_PM_SLEEP"


def measure_whole_processor(facts: Facts) -> Said:
    software, size, cpu_clock, every_process, first_cpu = 1, 128, 0, -1, 0
    attributes = struct.pack("=IIQ", software, size, cpu_clock).ljust(size, b"\0")
    return Said(0, raw.syscall("perf_event_open", raw.buffer(attributes), every_process, first_cpu, -1, 0))


def needs_performance_events() -> str:
    if setting("kernel/perf_event_paranoid") <= 0:
        return "CONFIG_PERF_EVENTS, and kernel.perf_event_paranoid above 0"
    return missing("CONFIG_PERF_EVENTS", lambda: measure_whole_processor(_NO_FACTS), errno.ENOSYS, errno.ENOENT)


def make_bpf_map(facts: Facts) -> Said:
    bpf_map_create, lpm_trie, key_bytes, value_bytes, entries, no_prealloc = 0, 11, 8, 8, 1, 1
    attributes = struct.pack("=IIIII", lpm_trie, key_bytes, value_bytes, entries, no_prealloc).ljust(72, b"\0")
    return Said(0, raw.syscall("bpf", bpf_map_create, raw.buffer(attributes), len(attributes)))


def holds_bpf_map(arena: "Arena") -> bool:
    return arena.said.errno == 0 and "map_type:\t11" in _descriptor_info(arena)


def needs_bpf() -> str:
    return missing("CONFIG_BPF_SYSCALL", lambda: make_bpf_map(_NO_FACTS), errno.ENOSYS)

"""Attempts on other processes, on the kernel, and on the attacked process's own confinement. Each with its judge."""

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import struct
import subprocess
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import OPEN_DIRECTORY, PLUGIN_DIRECTORY, Facts, Said

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

CLONE_NEWUSER = 0x10000000
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
PROT_READ_WRITE_EXEC = 7
MAP_PRIVATE_ANONYMOUS = 0x22

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_GET_DUMPABLE = 4, 8, 47, 3
_PTRACE_SEIZE = 0x4206
_SOFT_LIMIT = 200

MACHINE_CODE: list[raw.MachineCode] = []


# Other processes


def kill_bystander(facts: Facts) -> None:
    os.kill(facts.pids["bystander"], signal.SIGKILL)


def bystander_is_gone(arena: "Arena") -> bool:
    return arena.has_ended("bystander")


def kill_neighbour(facts: Facts) -> None:
    os.kill(facts.pids["neighbour"], signal.SIGKILL)


def tgkill_neighbour(facts: Facts) -> None:
    raw.syscall("tgkill", facts.pids["neighbour"], facts.pids["neighbour"], signal.SIGKILL)


def signal_neighbour_through_pipe(facts: Facts) -> None:
    """Have the kernel send the signal: somebody else owns our end of the pipe, and he hears when there is something."""
    fcntl.fcntl(facts.input_fd, fcntl.F_SETOWN, facts.pids["neighbour"])
    fcntl.fcntl(facts.input_fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(facts.input_fd, fcntl.F_SETFL, os.O_ASYNC)


def neighbour_is_gone_when_poked(arena: "Arena") -> bool:
    arena.poke()
    return arena.has_ended("neighbour")


def neighbour_is_gone(arena: "Arena") -> bool:
    return arena.has_ended("neighbour")


def ptrace_bystander(facts: Facts) -> None:
    raw.syscall("ptrace", _PTRACE_SEIZE, facts.pids["bystander"], 0, 0)


def ptrace_neighbour(facts: Facts) -> None:
    raw.syscall("ptrace", _PTRACE_SEIZE, facts.pids["neighbour"], 0, 0)


def bystander_is_traced(arena: "Arena") -> bool:
    return arena.status("TracerPid", arena.facts.pids["bystander"]) == str(arena.pid)


def neighbour_is_traced(arena: "Arena") -> bool:
    return arena.status("TracerPid", arena.facts.pids["neighbour"]) == str(arena.pid)


def read_memory(facts: Facts) -> Said:
    memory = raw.buffer(16)
    local = raw.buffer(struct.pack("=QQ", raw.address(memory), 16))
    remote = raw.buffer(struct.pack("=QQ", facts.address, 16))
    raw.syscall("process_vm_readv", facts.pids["bystander"], local, 1, remote, 1, 0)
    return Said(0, 0, memory.raw.decode())


def read_memory_file(facts: Facts) -> Said:
    fd = os.open(f"/proc/{facts.pids['bystander']}/mem", os.O_RDONLY)
    return Said(0, 0, os.pread(fd, 16, facts.address).decode())


def said_bystander_secret(arena: "Arena") -> bool:
    return bool(arena.secret) and arena.said.text == arena.secret


# New processes and programs


def fork_child(facts: Facts) -> None:
    if os.fork() == 0:
        signal.pause()


def has_child(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
        return bool(file.read())


def child_outlives_worker(arena: "Arena") -> bool:
    """End the process as a call does, and see whether what it left goes with it."""
    with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
        children = file.read().split()
    os.kill(arena.pid, signal.SIGKILL)
    os.waitid(os.P_PID, arena.pid, os.WEXITED | os.WNOWAIT)
    left = [int(child) for child in children if os.path.exists(f"/proc/{child}")]
    return any(arena.status("State", child)[0] not in "ZX" for child in left)


def execute_program(facts: Facts) -> None:
    if _fork_where_that_is_allowed() == 0:
        os.execve("/bin/sh", ["sh", "-c", f"echo > {OPEN_DIRECTORY}/executed"], {})


def _fork_where_that_is_allowed() -> int:
    """Fork, so that the attacked process lives on; without a child the attempt is made in the process itself."""
    try:
        child = os.fork()
    except PermissionError:
        return 0
    if child:
        os.waitpid(child, 0)
    return child


def program_was_executed(arena: "Arena") -> bool:
    return os.path.exists(f"{OPEN_DIRECTORY}/executed")


def plant_setuid_program(arena: "Arena") -> None:
    """Scene: there is a set-uid program of root, where even the delegate worker may execute."""
    subprocess.run(["install", "-m", "4755", "/usr/bin/touch", f"{PLUGIN_DIRECTORY}/touch"], check=True, timeout=10)


def execute_setuid_program(facts: Facts) -> None:
    if _fork_where_that_is_allowed() == 0:
        os.execve(f"{PLUGIN_DIRECTORY}/touch", ["touch", f"{OPEN_DIRECTORY}/touched"], {})


def root_touched_file(arena: "Arena") -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(f"{OPEN_DIRECTORY}/touched").st_uid == 0
    return False


# Kernel surface


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
    software, size, exclude_kernel_and_hypervisor = 1, 128, (1 << 5) | (1 << 6)
    attributes = struct.pack("=IIQQQQQ", software, size, 0, 0, 0, 0, exclude_kernel_and_hypervisor).ljust(size, b"\0")
    return Said(0, raw.syscall("perf_event_open", raw.buffer(attributes), 0, -1, -1, 0))


def holds_anonymous_inode(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.descriptors()[arena.said.value].startswith("anon_inode:")


def add_key(facts: Facts) -> None:
    key_spec_process_keyring = -2
    raw.syscall("add_key", b"user\0", b"escape\0", b"payload", 7, key_spec_process_keyring)


def join_session_keyring(facts: Facts) -> None:
    keyctl_join_session_keyring = 1
    raw.syscall("keyctl", keyctl_join_session_keyring, b"escape\0", 0, 0, 0)


def count_keys(arena: "Arena") -> None:
    """Scene: note how many keys the users have."""
    _KEYS_BEFORE[:] = [_keys()]


_KEYS_BEFORE = [""]


def _keys() -> str:
    with open("/proc/key-users") as file:
        return file.read()


def has_more_keys(arena: "Arena") -> bool:
    return arena.said.errno == 0 and _keys() != _KEYS_BEFORE[0]


def unshare_userns(facts: Facts) -> None:
    raw.syscall("unshare", CLONE_NEWUSER)


def has_own_userns(arena: "Arena") -> bool:
    return arena.namespace("user") != arena.namespace("user", 1)


def clone_userns(facts: Facts) -> Said:
    child = raw.syscall("clone", CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        signal.pause()
    return Said(0, child)


def clone3_userns(facts: Facts) -> Said:
    arguments = struct.pack("=QQQQQQQQ", CLONE_NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    child = raw.syscall("clone3", raw.buffer(arguments), len(arguments))
    if child == 0:
        signal.pause()
    return Said(0, child)


def child_has_own_userns(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
        children = [int(word) for word in file.read().split()]
    return any(arena.namespace("user", child) != arena.namespace("user", 1) for child in children)


def open_core_pattern(facts: Facts) -> Said:
    return Said(0, os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


def open_core_pattern_beside(facts: Facts) -> Said:
    return Said(0, os.open("/proc/sys/net/../kernel/core_pattern", os.O_WRONLY))


def may_write_core_pattern(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.descriptors()[arena.said.value] == "/proc/sys/kernel/core_pattern"


def mount_tmpfs(facts: Facts) -> None:
    raw.syscall("mount", b"tmpfs\0", b"/mnt\0", b"tmpfs\0", 0, b"\0")


def has_mounted(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/mounts") as file:
        return "tmpfs /mnt tmpfs" in file.read()


# Machine code, and system calls of other architectures


def map_executable(facts: Facts) -> Said:
    return Said(0, raw.syscall("mmap", 0, mmap.PAGESIZE, PROT_READ_WRITE_EXEC, MAP_PRIVATE_ANONYMOUS, -1, 0))


def make_executable(facts: Facts) -> Said:
    where = raw.syscall("mmap", 0, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0)
    raw.syscall("mprotect", where, mmap.PAGESIZE, PROT_READ_WRITE_EXEC)
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
    MACHINE_CODE[:] = [raw.MachineCode()]


def call_32_bit(facts: Facts) -> Said:
    return Said(0, MACHINE_CODE[0].run())


def call_x32(facts: Facts) -> Said:
    return Said(0, raw.syscall_number(raw.X32_BIT | 39))


def said_own_pid(arena: "Arena") -> bool:
    return arena.said == Said(0, arena.pid)


# The process's own confinement


def become_root(facts: Facts) -> None:
    raw.syscall("setresuid", 0, 0, 0)


def is_root(arena: "Arena") -> bool:
    return arena.status("Uid").split() == ["0"] * 4


def raise_capability(facts: Facts) -> None:
    version_3 = 0x20080522
    header = raw.buffer(struct.pack("=Ii", version_3, 0))
    now = raw.buffer(24)
    raw.syscall("capget", header, now)
    permitted = struct.unpack_from("=I", now.raw, 4)[0] | 1 << CAP_SYS_ADMIN
    raw.syscall("capset", header, raw.buffer(struct.pack("=IIIIII", permitted, permitted, 0, 0, 0, 0)))


def has_sys_admin(arena: "Arena") -> bool:
    return bool(int(arena.status("CapEff"), 16) >> CAP_SYS_ADMIN & 1)


def keep_capabilities(facts: Facts) -> None:
    raw.syscall("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)


def has_capabilities_as_nobody(arena: "Arena") -> bool:
    return arena.status("Uid").split()[0] == "65534" and has_sys_permitted(arena)


def has_sys_permitted(arena: "Arena") -> bool:
    return bool(int(arena.status("CapPrm"), 16) >> CAP_SYS_ADMIN & 1)


def raise_ambient(facts: Facts) -> None:
    version_3 = 0x20080522
    header = raw.buffer(struct.pack("=Ii", version_3, 0))
    now = raw.buffer(24)
    raw.syscall("capget", header, now)
    words = list(struct.unpack("=IIIIII", now.raw))
    words[2] |= 1 << CAP_NET_ADMIN
    with contextlib.suppress(OSError):  # it may be inheritable already; the next call says what counts
        raw.syscall("capset", header, raw.buffer(struct.pack("=IIIIII", *words)))
    raw.syscall("prctl", _PR_CAP_AMBIENT, 2, CAP_NET_ADMIN, 0, 0)


def has_ambient(arena: "Arena") -> bool:
    return int(arena.status("CapAmb"), 16) != 0


def become_dumpable(facts: Facts) -> Said:
    raw.syscall("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    raw.syscall("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)
    return Said(0, raw.syscall("prctl", _PR_GET_DUMPABLE, 0, 0, 0, 0))


def is_dumpable(arena: "Arena") -> bool:
    """The kernel gives the files of a process that is not dumpable to root."""
    uid = int(arena.status("Uid").split()[0])
    return os.stat(f"/proc/{arena.pid}/mem").st_uid == uid and (uid != 0 or arena.said.value == 1)


def leave_room_below_limit(arena: "Arena") -> None:
    """Scene: the soft limit of descriptors is lower than the hard one, as it is on every host."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_SOFT_LIMIT, hard))


def raise_limit(facts: Facts) -> None:
    limit = raw.buffer(struct.pack("=QQ", _SOFT_LIMIT + 1, _SOFT_LIMIT + 1))
    raw.syscall("prlimit64", 0, resource.RLIMIT_NOFILE, limit, 0)


def has_raised_limit(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/limits") as file:
        (words,) = [line.split() for line in file if line.startswith("Max open files")]
    return words[3] == str(_SOFT_LIMIT + 1)

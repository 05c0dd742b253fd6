"""Attempts on other processes, and on the attacked process's own confinement. Each with its judge."""

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import OPEN_DIRECTORY, PLUGIN_DIRECTORY, SECRET_FILE, Facts, Said

if TYPE_CHECKING:
    import ctypes  # noqa: TID251 - to name a type of raw.py

    from cnisandbox.laboratory.arena import Arena

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21

_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_GET_DUMPABLE = 4, 8, 47, 3
_PTRACE_SEIZE = 0x4206
_SOFT_LIMIT = 200
OTHER_PROGRAM = "/bin/sleep"
_END_OF_CALL_S = 1.0
_SI_QUEUE, _SIGINFO_BYTES, _FIOSETOWN = -1, 128, 0x8901
_HIGHEST_PID = 64
_WRITTEN = b"the attacker's.."
_KEPT_FD, _QUEUE_KEY, _IPC_CREAT = 70, 0x4711, 0o1000
_NICE, _DESCRIPTORS, _OOM_SCORE = 7, 77, 777

# What a scene made up for the attacker to find.
_TOKEN = [""]


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


def kill_bystander_by_pidfd(facts: Facts) -> None:
    pidfd = os.pidfd_open(facts.pids["bystander"])
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def queue_signal_to_neighbour(facts: Facts) -> None:
    information = struct.pack("=iiiiii", signal.SIGKILL, 0, _SI_QUEUE, 0, os.getpid(), os.getuid())
    memory = raw.buffer(information.ljust(_SIGINFO_BYTES, b"\0"))
    raw.syscall("rt_sigqueueinfo", facts.pids["neighbour"], signal.SIGKILL, memory)


def signal_neighbour_through_socket(facts: Facts) -> None:
    """The same through a socket that we write to ourselves: its owner hears when there is something."""
    ours, other = socket.socketpair()
    with ours, other:
        fcntl.ioctl(ours, _FIOSETOWN, struct.pack("=i", facts.pids["neighbour"]))
        fcntl.fcntl(ours, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC)
        other.send(b"x")


def kill_process_group(facts: Facts) -> None:
    """Signal the group that a runtime starts all its plugins in; nobody has to see a member to reach it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.kill(0, signal.SIGTERM)


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


def ptrace_anybody(facts: Facts) -> Said:
    """Try one after the other, those of the same call among them, whose numbers nobody has told us."""
    refused = OSError(errno.ESRCH, "nobody is there")
    for pid in range(_HIGHEST_PID, 0, -1):
        try:
            raw.syscall("ptrace", _PTRACE_SEIZE, pid, 0, 0)
        except OSError as error:
            if error.errno != errno.ESRCH and pid != os.getpid():
                refused = error
        else:
            return Said(0, pid)
    raise refused


def somebody_is_traced(arena: "Arena") -> bool:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return any(arena.status("TracerPid", pid) == str(arena.pid) for pid in pids if _lives(pid))


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


def write_memory(facts: Facts) -> None:
    memory = raw.buffer(_WRITTEN)
    local = raw.buffer(struct.pack("=QQ", raw.address(memory), len(_WRITTEN)))
    remote = raw.buffer(struct.pack("=QQ", facts.address, len(_WRITTEN)))
    raw.syscall("process_vm_writev", facts.pids["bystander"], local, 1, remote, 1, 0)


def write_memory_file(facts: Facts) -> None:
    fd = os.open(f"/proc/{facts.pids['bystander']}/mem", os.O_RDWR)
    try:
        os.pwrite(fd, _WRITTEN, facts.address)
    finally:
        os.close(fd)


def memory_was_written(arena: "Arena") -> bool:
    with open(f"/proc/{arena.facts.pids['bystander']}/mem", "rb", buffering=0) as memory:
        memory.seek(arena.facts.address)
        return memory.read(len(_WRITTEN)) == _WRITTEN


def read_memory_map(facts: Facts) -> Said:
    with open(f"/proc/{facts.pids['bystander']}/maps") as file:
        return Said(0, 0, file.readline())


def said_memory_map(arena: "Arena") -> bool:
    with open(f"/proc/{arena.facts.pids['bystander']}/maps") as file:
        return arena.said.text == file.readline()


# What other processes have: files, descriptors, messages


def read_through_root_of_process(facts: Facts) -> Said:
    return _read_secret(f"/proc/{facts.pids['bystander']}/root{SECRET_FILE}")


def read_through_directory_of_process(facts: Facts) -> Said:
    return _read_secret(f"/proc/{facts.pids['bystander']}/cwd{'/..' * 16}{SECRET_FILE}")


def _read_secret(path: str) -> Said:
    with open(path) as file:
        return Said(0, 0, file.read(64))


def add_keeper(arena: "Arena") -> None:
    """Scene: a process of root has a file open that has no path."""
    _TOKEN[:] = [os.urandom(8).hex()]
    fd = os.memfd_create("kept")
    os.write(fd, _TOKEN[0].encode())
    os.dup2(fd, _KEPT_FD)
    keeper = os.fork()
    if keeper == 0:
        while True:
            signal.pause()
    os.close(fd)
    os.close(_KEPT_FD)
    arena.facts.pids["keeper"] = keeper


def take_descriptor(facts: Facts) -> Said:
    fd = raw.syscall("pidfd_getfd", os.pidfd_open(facts.pids["keeper"]), _KEPT_FD, 0)
    return Said(0, fd, os.pread(fd, 64, 0).decode())


def open_descriptor_of_process(facts: Facts) -> Said:
    fd = os.open(f"/proc/{facts.pids['keeper']}/fd/{_KEPT_FD}", os.O_RDONLY)
    return Said(0, fd, os.pread(fd, 64, 0).decode())


def add_process_with_secret_argument(arena: "Arena") -> None:
    """Scene: somebody has given a program of root a password on its command line."""
    _TOKEN[:] = [os.urandom(8).hex()]
    arena.facts.pids["indiscreet"] = os.posix_spawn(OTHER_PROGRAM, [_TOKEN[0], "60"], {})


def read_command_line(facts: Facts) -> Said:
    with open(f"/proc/{facts.pids['indiscreet']}/cmdline") as file:
        return Said(0, 0, file.read().split("\0")[0])


def leave_message(arena: "Arena") -> None:
    """Scene: a message of root waits in a queue of System V that everybody may read."""
    _TOKEN[:] = [os.urandom(8).hex()]
    queue = raw.syscall("msgget", _QUEUE_KEY, _IPC_CREAT | 0o666)
    message = struct.pack("=q", 1) + _TOKEN[0].encode()
    raw.syscall("msgsnd", queue, raw.buffer(message), len(message) - 8, 0)


def receive_message(facts: Facts) -> Said:
    message = raw.buffer(8 + 64)
    size = raw.syscall("msgrcv", raw.syscall("msgget", _QUEUE_KEY, 0), message, 64, 0, 0)
    return Said(0, 0, message.raw[8 : 8 + size].decode())


def lacks_message_queues() -> str:
    try:
        raw.syscall("msgget", _QUEUE_KEY, 0)
    except OSError as error:
        return "CONFIG_SYSVIPC" if error.errno == errno.ENOSYS else ""
    return ""


def said_token(arena: "Arena") -> bool:
    return arena.said.text == _TOKEN[0]


# How much other processes get


def slow_down_neighbour(facts: Facts) -> None:
    os.setpriority(os.PRIO_PROCESS, facts.pids["neighbour"], _NICE)


def slow_down_process_group(facts: Facts) -> None:
    os.setpriority(os.PRIO_PGRP, 0, _NICE)


def neighbour_is_slowed_down(arena: "Arena") -> bool:
    return os.getpriority(os.PRIO_PROCESS, arena.facts.pids["neighbour"]) == _NICE


def make_neighbour_idle(facts: Facts) -> None:
    os.sched_setscheduler(facts.pids["neighbour"], os.SCHED_IDLE, os.sched_param(0))


def neighbour_is_idle(arena: "Arena") -> bool:
    return os.sched_getscheduler(arena.facts.pids["neighbour"]) == os.SCHED_IDLE


def pin_neighbour(facts: Facts) -> None:
    os.sched_setaffinity(facts.pids["neighbour"], {min(os.sched_getaffinity(0))})


def neighbour_is_pinned(arena: "Arena") -> bool:
    return len(os.sched_getaffinity(arena.facts.pids["neighbour"])) == 1


def lacks_processors() -> str:
    return "" if len(os.sched_getaffinity(0)) > 1 else "a second processor"


def limit_others(facts: Facts) -> None:
    """Limit whoever is of the same user: nobody else may be, without CAP_SYS_RESOURCE."""
    limit = raw.buffer(struct.pack("=QQ", _DESCRIPTORS, _DESCRIPTORS))
    try:
        raw.syscall("prlimit64", facts.pids["bystander"], resource.RLIMIT_NOFILE, limit, 0)
    except OSError:
        raw.syscall("prlimit64", facts.pids["neighbour"], resource.RLIMIT_NOFILE, limit, 0)


def others_are_limited(arena: "Arena") -> bool:
    return any(_descriptor_limits(arena.facts.pids[name])[1] == _DESCRIPTORS for name in ("bystander", "neighbour"))


def _descriptor_limits(pid: int) -> tuple[int, int]:
    with open(f"/proc/{pid}/limits") as file:
        (words,) = [line.split() for line in file if line.startswith("Max open files")]
    return int(words[3]), int(words[4])


def sacrifice_neighbour(facts: Facts) -> None:
    """Have the kernel kill him first when memory runs out."""
    fd = os.open(f"/proc/{facts.pids['neighbour']}/oom_score_adj", os.O_WRONLY)
    try:
        os.write(fd, str(_OOM_SCORE).encode())
    finally:
        os.close(fd)


def neighbour_is_sacrificed(arena: "Arena") -> bool:
    with open(f"/proc/{arena.facts.pids['neighbour']}/oom_score_adj") as file:
        return int(file.read()) == _OOM_SCORE


def watch_neighbour(facts: Facts) -> Said:
    return Said(0, raw.syscall("perf_event_open", software_event(), facts.pids["neighbour"], -1, -1, 0))


# New processes and programs


def fork_child(facts: Facts) -> None:
    if os.fork() == 0:
        signal.pause()


def has_child(arena: "Arena") -> bool:
    return bool(children(arena))


def child_outlives_worker(arena: "Arena") -> bool:
    """End the process as a call does, and see whether what it left goes with it."""
    left = children(arena)
    end(arena)
    return not _are_gone(left)


def end(arena: "Arena") -> None:
    """End the attacked process, and wait until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(arena.pid, signal.SIGKILL)
    _are_gone([arena.pid])


def _are_gone(pids: list[int]) -> bool:
    """Wait a moment for the end of processes; False when some go on."""
    deadline = time.monotonic() + _END_OF_CALL_S
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def execute(path: str | int, *arguments: str, is_awaited: bool = True) -> None:
    """Execute a program in a child where there may be one, so that the attacked process lives on.

    Raises:
        OSError: no child, or no program: what execve said.
    """
    try:
        reader, writer = os.pipe()
        child = os.fork()
    except PermissionError:
        os.execve(path, arguments, {})
    if child == 0:
        try:
            os.execve(path, arguments, {})
        except OSError as error:
            os.write(writer, str(error.errno).encode())
        finally:
            os._exit(1)
    os.close(writer)
    said = os.read(reader, 16)
    os.close(reader)
    if said or is_awaited:
        os.waitpid(child, 0)
    if said:
        raise OSError(int(said), os.strerror(int(said)))


def execute_program(facts: Facts) -> None:
    execute("/bin/sh", "sh", "-c", f"echo > {OPEN_DIRECTORY}/executed")


def program_was_executed(arena: "Arena") -> bool:
    return os.path.exists(f"{OPEN_DIRECTORY}/executed")


def execute_other_program(facts: Facts) -> None:
    execute(OTHER_PROGRAM, "escape", "60", is_awaited=False)


def child_is_other_program(arena: "Arena") -> bool:
    wanted = os.path.realpath(OTHER_PROGRAM)
    return any(os.readlink(f"/proc/{pid}/exe") == wanted for pid in (arena.pid, *children(arena)))


def children(arena: "Arena") -> list[int]:
    """List the children of the attacked process."""
    with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
        return [pid for pid in map(int, file.read().split()) if pid not in arena.company]


def plant_setuid_program(arena: "Arena") -> None:
    """Scene: there is a set-uid program of root, where even the delegate worker may execute."""
    subprocess.run(["install", "-m", "4755", "/usr/bin/touch", f"{PLUGIN_DIRECTORY}/touch"], check=True, timeout=10)


def execute_setuid_program(facts: Facts) -> None:
    execute(f"{PLUGIN_DIRECTORY}/touch", "touch", f"{OPEN_DIRECTORY}/touched")


def root_touched_file(arena: "Arena") -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(f"{OPEN_DIRECTORY}/touched").st_uid == 0
    return False


# Descriptors that show what an attempt has got


def software_event() -> "ctypes.Array[ctypes.c_char]":
    software, size, exclude_kernel_and_hypervisor = 1, 128, (1 << 5) | (1 << 6)
    attributes = struct.pack("=IIQQQQQ", software, size, 0, 0, 0, 0, exclude_kernel_and_hypervisor)
    return raw.buffer(attributes.ljust(size, b"\0"))


def holds_anonymous_inode(arena: "Arena") -> bool:
    return arena.said.errno == 0 and descriptors(arena).get(arena.said.value, "").startswith("anon_inode:")


def descriptors(arena: "Arena") -> dict[int, str]:
    """Say what the attacked process has open; nothing when it was killed."""
    try:
        return arena.descriptors()
    except (FileNotFoundError, PermissionError):
        return {}


def open_core_pattern(facts: Facts) -> Said:
    return Said(0, os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))


def open_core_pattern_beside(facts: Facts) -> Said:
    return Said(0, os.open("/proc/sys/net/../kernel/core_pattern", os.O_WRONLY))


def may_write_core_pattern(arena: "Arena") -> bool:
    return holds_file(arena, "/proc/sys/kernel/core_pattern", is_for_writing=True)


def holds_file(arena: "Arena", path: str, *, is_for_writing: bool) -> bool:
    """Say whether the attacked process has opened the file that it says, as the kernel shows it from outside."""
    if arena.said.errno or descriptors(arena).get(arena.said.value) != path:
        return False
    with open(f"/proc/{arena.pid}/fdinfo/{arena.said.value}") as file:
        (flags,) = [int(line.split()[1], 8) for line in file if line.startswith("flags:")]
    return bool(flags & (os.O_WRONLY | os.O_RDWR)) or not is_for_writing


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


def raise_limit(facts: Facts) -> Said:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    raw.syscall("prlimit64", 0, resource.RLIMIT_NOFILE, raw.buffer(struct.pack("=QQ", soft + 1, soft + 1)), 0)
    return Said(0, soft + 1)


def has_raised_limit(arena: "Arena") -> bool:
    return arena.said.errno == 0 and _descriptor_limits(arena.pid)[0] == arena.said.value

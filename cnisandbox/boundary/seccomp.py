"""System call allow-lists, one per role, compiled by libseccomp and loaded with seccomp(2).

Privilege: none; no_new_privs must be set.

A call that is not listed fails with EPERM; a call of another architecture (32-bit, x32) ends the process, because its
numbers mean something else. What is left out on purpose: ptrace, bpf, io_uring, userfaultfd, mount, keyctl, module
loading, clone and unshare of namespaces, setns, perf, open_by_handle_at, process_vm_*, pidfd_getfd, ioctl.

Source: seccomp(2), seccomp_rule_add(3) of libseccomp 2.5.
"""

from __future__ import annotations  # a ParamSpec of ours is no argument for Callable at run time

import _socket  # the C module: `socket` takes 3 ms to make its enums
import fcntl
import os
from collections.abc import Callable

from cnisandbox.boundary.compiled import PROGRAMS
from cnisandbox.boundary.syscalls import checked, ffi, lib
from cnisandbox.hints import Any, NamedTuple, ParamSpec

Parameters = ParamSpec("Parameters")

_ACT_ERRNO = 0x00050000
_EPERM = 1
_ENOSYS = 38
_PROT_EXEC = 4
_INSTRUCTION_BYTES = 8

# Every namespace that clone(2) can make.
_CLONE_NAMESPACES = 0x7E020080


class Condition(NamedTuple):
    """A comparison of one argument, by value: what a pointer points to is never judged here.

    Attributes:
        argument: Its index, 0 to 5.
        mask: Which bits count.
        value: What they must be.
    """

    argument: int
    mask: int
    value: int

    def as_comparison(self) -> tuple[int, int, int, int]:
        """What struct scmp_arg_cmp holds."""
        return self.argument, int(lib.SCMP_CMP_MASKED_EQ), self.mask, self.value


class Below(NamedTuple):
    """An argument, all 64 bits of it, that is smaller than a value: garbage above the 32 bits of an int is not."""

    argument: int
    value: int

    def as_comparison(self) -> tuple[int, int, int, int]:
        """What struct scmp_arg_cmp holds."""
        return self.argument, int(lib.SCMP_CMP_LT), self.value, 0


class NotBelow(NamedTuple):
    """The opposite of `Below`."""

    argument: int
    value: int

    def as_comparison(self) -> tuple[int, int, int, int]:
        """What struct scmp_arg_cmp holds."""
        return self.argument, int(lib.SCMP_CMP_GE), self.value, 0


# What the interpreter itself, its allocator and its signal handling use once everything is imported.
_RUNTIME = [
    "read",
    "readv",
    "pread64",
    "write",
    "writev",
    "pwrite64",
    "close",
    "lseek",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "dup",
    "fstat",
    "newfstatat",
    "statx",
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "capget",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "getrandom",
    "sched_yield",
    "sched_getaffinity",
    "exit",
    "exit_group",
    "rseq",
    "set_robust_list",
    "set_tid_address",
    "getrlimit",
    "uname",
    "membarrier",
]

_FILES_FOR_READING = ["readlink", "readlinkat", "getdents64", "access", "faccessat", "faccessat2"]

_NETLINK_CALLS = ["bind", "getsockname", "getsockopt", "sendto", "sendmsg", "recvfrom", "recvmsg"]

_EVENT_LOOP_CALLS = ["epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"]
_FIONBIO = 0x5421

# Level and name of what may be set on a socket: netlink's own options, buffers, time limits. SO_ATTACH_FILTER is not
# among them: it hands the kernel code to compile.
_SOL_SOCKET, _SOL_NETLINK = 1, 270
_SO_SNDBUF, _SO_RCVBUF, _SO_RCVTIMEO, _SO_SNDTIMEO, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 7, 8, 20, 21, 32, 33
_SOCKET_OPTIONS = (_SO_SNDBUF, _SO_RCVBUF, _SO_RCVTIMEO, _SO_SNDTIMEO, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE)

_STATE_CALLS = ["linkat", "unlinkat", "renameat", "renameat2", "flock", "utimensat"]

# Duplicating, and the close-on-exec flag. F_SETFL would let the engine clear O_APPEND of the file that keeps the
# attestations and overwrite earlier ones; F_SETOWN has the kernel send signals in a process's name.
_FCNTL_COMMANDS = (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL)

# Calls that give a file its mode, and which argument the mode is. In an idmapped state directory a new file is root's
# on disk: with the set-uid bit it would be a root shell for whoever on the host executes it.
_S_ISUID_S_ISGID = 0o6000
_OPEN_CALLS = {"openat": 3}
_MODE_CALLS = {"mkdirat": 2}
_PROGRAM_MODE_CALLS = {"open": 2, "creat": 1, "mkdir": 1}
# Those that change it: nor may everybody be let in to write; what is created so is cut by the umask (credentials.py).
_CHMOD_CALLS = {"fchmod": 1, "chmod": 1, "fchmodat": 2}
_S_IWGRP_S_IWOTH = 0o022

# What a foreign program (Go, Rust, shell) uses that is executed for its files and its output alone: no sockets.
_PROGRAM_CALLS = [
    "access",
    "alarm",
    "arch_prctl",
    "chdir",
    "clock_nanosleep",
    "close_range",
    "copy_file_range",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "execve",
    "execveat",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fgetxattr",
    "flock",
    "fork",
    "fstatfs",
    "getcwd",
    "getitimer",
    "getpgid",
    "getpgrp",
    "getpriority",
    "getrusage",
    "getsid",
    "getxattr",
    "kill",
    "lgetxattr",
    "link",
    "lstat",
    "mincore",
    "mlock",
    "mmap",
    "mprotect",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    "pipe",
    "pipe2",
    "prctl",
    "prlimit64",
    "rename",
    "rmdir",
    "sched_getparam",
    "sched_getscheduler",
    "sched_setaffinity",
    "sendfile",
    "set_tid_address",
    "setitimer",
    "setpgid",
    "setrlimit",
    "setsid",
    "splice",
    "stat",
    "statfs",
    "sync_file_range",
    "sysinfo",
    "tee",
    "timer_create",
    "timer_delete",
    "timer_settime",
    "timerfd_create",
    "timerfd_settime",
    "times",
    "truncate",
    "unlink",
    "utime",
    "utimes",
    "vfork",
    "wait4",
    "waitid",
]


# What a foreign program may do besides, that is at level mediated: sockets of the empty netns it stands in, and what it
# does with those that the monitor gave it.
_FOREIGN_CALLS = [
    "getsockname",
    "getpeername",
    "capset",  # without capabilities it can only be called in vain, and `ip` ends when it is refused
    "getsockopt",
    "recvfrom",
    "recvmsg",
    "shutdown",
    "sysinfo",
    "getrusage",
    "symlink",
    "symlinkat",
    "inotify_init1",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "get_mempolicy",
    "getpgid",
]
_INERT_IOCTLS = (0x5401, 0x5413, 0x541B, _FIONBIO, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIO[N]CLEX
# Calls that send, and which act on a descriptor of the monitor's only through it.
_SENDING_CALLS = ["write", "sendto", "sendmsg", "bind"]
_OTHER_SENDING_CALLS = ["writev", "pwrite64", "pwritev", "pwritev2", "connect"]
# A copy at a lower number would be sent on unseen. The kernel refuses changes then, for want of a capability, but it
# would tell whoever asks what links the host has.
_DUPLICATING_CALLS = ["dup", "dup2", "dup3", "fcntl"]
_DESCRIPTOR_CALLS = frozenset([*_SENDING_CALLS, *_OTHER_SENDING_CALLS, *_DUPLICATING_CALLS])
_HARMLESS_FCNTL_COMMANDS = (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)
# Calls that move bytes between descriptors, and which argument is the one that is written to.
_COPYING_CALLS = {"splice": 2, "tee": 1, "sendfile": 0, "copy_file_range": 2}
_NETLINK_OPTIONS = (10, 11, 12)  # NETLINK_CAP_ACK, EXT_ACK, GET_STRICT_CHK: no membership of a multicast group
_AF_PACKET = 17
_SIOCGSKNS = 0x894C
_NOTIFY_IOCTLS = (0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104)  # RECV, SEND, ID_VALID, ADDFD, SET_FLAGS

MEDIATED_FD = 1000
"""Descriptors from here on are the monitor's gifts: what is sent on them is judged."""


class _Filter:
    """A libseccomp filter under construction."""

    def __init__(self) -> None:
        self._context = lib.seccomp_init(_ACT_ERRNO | _EPERM)
        self._set(lib.SCMP_FLTATR_ACT_BADARCH, lib.SCMP_ACT_KILL_PROCESS)
        self._set(lib.SCMP_FLTATR_CTL_OPTIMIZE, 2)  # a binary tree: a dozen comparisons for any call

    def _set(self, attribute: Any, value: int) -> None:
        checked(lib.seccomp_attr_set(self._context, attribute, value), "seccomp attribute")

    def allow(self, names: list[str], *conditions: Condition | Below | NotBelow, action: int | None = None) -> None:
        """Allow calls by name; with conditions, only where all of them hold."""
        array = ffi.new("struct scmp_arg_cmp[]", len(conditions))
        for slot, condition in zip(array, conditions, strict=True):
            slot.arg, slot.op, slot.datum_a, slot.datum_b = condition.as_comparison()
        wanted = lib.SCMP_ACT_ALLOW if action is None else action
        for name in names:
            number = lib.seccomp_syscall_resolve_name(name.encode())
            # A name that this libseccomp or architecture does not have stays refused, like every call not listed.
            if number >= 0:
                checked(
                    lib.seccomp_rule_add_array(self._context, wanted, number, len(conditions), array),
                    f"seccomp rule {name}",
                )

    def allow_modes(self, calls: dict[str, int], action: int | None = None) -> None:
        """Allow calls that give a file a mode, as long as that has neither set-uid nor set-gid bit."""
        for name, argument in calls.items():
            self.allow([name], Condition(argument, _S_ISUID_S_ISGID, 0), action=action)

    def allow_chmod(self) -> None:
        """Allow to change modes, but not so that others may write; and a umask only that takes this away as well."""
        for name, argument in _CHMOD_CALLS.items():
            self.allow([name], Condition(argument, _S_ISUID_S_ISGID | _S_IWGRP_S_IWOTH, 0))
        self.allow(["umask"], Condition(0, _S_IWGRP_S_IWOTH, _S_IWGRP_S_IWOTH))
        # Any other umask is answered with 0, as from a process that had none, and nothing is changed: `mkdir -p` and
        # others set it to 0 for a moment, and go on with what they are told.
        for bits in (0, 0o020, 0o002):
            self.allow(["umask"], Condition(0, _S_IWGRP_S_IWOTH, bits), action=_ACT_ERRNO)

    def export(self) -> bytes:
        """Compile.

        Returns:
            An array of struct sock_filter, native byte order.
        """
        fd = os.memfd_create("filter", os.MFD_CLOEXEC)
        try:
            checked(lib.seccomp_export_bpf(self._context, fd), "seccomp export")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)
            lib.seccomp_release(self._context)


def _compiled_once(compile_: Callable[Parameters, bytes]) -> Callable[Parameters, bytes]:
    """Compile a filter once, whoever forks; not at all where it was compiled before."""

    def compiled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> bytes:
        key = f"{compile_.__name__} {args} {sorted(kwargs.items())}"
        if key not in PROGRAMS:
            PROGRAMS[key] = compile_(*args, **kwargs)
        return PROGRAMS[key]

    return compiled


def _interpreter_filter() -> _Filter:
    program = _Filter()
    program.allow(_RUNTIME)
    for command in _FCNTL_COMMANDS:
        program.allow(["fcntl"], Condition(1, 0xFFFFFFFF, command))
    # Memory may be mapped, never made executable: all code is loaded.
    program.allow(["mmap", "mprotect"], Condition(2, _PROT_EXEC, 0))
    # prlimit64 of ourselves, to read; a second argument would set, a first one would be somebody else.
    program.allow(["prlimit64"], Condition(0, 0xFFFFFFFF, 0), Condition(2, 0xFFFFFFFFFFFFFFFF, 0))
    program.allow(["prctl"], Condition(0, 0xFFFFFFFF, 27))  # PR_GET_SECUREBITS, for the attestation
    program.allow(["prctl"], Condition(0, 0xFFFFFFFF, 3))  # PR_GET_DUMPABLE
    program.allow(["prctl"], Condition(0, 0xFFFFFFFF, 2))  # PR_GET_PDEATHSIG
    return program


@_compiled_once
def worker_filter(netlink_protocols: tuple[int, ...], *, has_event_loop: bool = False) -> bytes:
    """Compile the filter of a worker: the interpreter, reading and writing sysctls, and netlink of some protocols.

    Args:
        netlink_protocols: Protocol numbers that socket(AF_NETLINK, ...) may name. Without NETLINK_NETFILTER the whole
            of nf_tables, and with it many a kernel bug of the past, is out of reach.
        has_event_loop: Whether asyncio may run, for pyroute2: epoll, and a pair of sockets to wake itself. The pair is
            made in the netns that the worker is in already, so there is no other one that it could lead to.
    """
    program = _interpreter_filter()
    program.allow(_FILES_FOR_READING)
    program.allow_modes(_OPEN_CALLS)
    program.allow(_NETLINK_CALLS)
    program.allow(["capset"])  # a gate lowers its effective set while it sends what is to be refused
    if has_event_loop:
        program.allow(_EVENT_LOOP_CALLS)
        program.allow(["socketpair"], Condition(0, 0xFFFFFFFF, _socket.AF_UNIX))
        program.allow(["ioctl"], Condition(1, 0xFFFFFFFF, _FIONBIO))
    program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_NETLINK))
    for option in _SOCKET_OPTIONS:
        program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_SOCKET), Condition(2, 0xFFFFFFFF, option))
    program.allow(["fcntl"], Condition(1, 0xFFFFFFFF, fcntl.F_SETFL))  # libnftables makes its socket non-blocking
    for protocol in netlink_protocols:
        program.allow(["socket"], Condition(0, 0xFFFFFFFF, _socket.AF_NETLINK), Condition(2, 0xFFFFFFFF, protocol))
    return program.export()


@_compiled_once
def engine_filter() -> bytes:
    """Compile the filter of the engine: the interpreter and the state directories; no socket of any kind."""
    program = _interpreter_filter()
    program.allow(_FILES_FOR_READING)
    program.allow(_STATE_CALLS)
    program.allow_modes(_OPEN_CALLS | _MODE_CALLS)
    return program.export()


@_compiled_once
def delegate_filter() -> bytes:
    """Compile the filter of the delegate worker: what a program needs that reads and writes files; no socket."""
    program = _Filter()
    program.allow(_RUNTIME)
    program.allow(["fcntl", "tgkill"])  # the threads of a Go program interrupt each other
    program.allow(_FILES_FOR_READING)
    program.allow(_STATE_CALLS)
    program.allow(_PROGRAM_CALLS)
    program.allow_modes(_OPEN_CALLS | _MODE_CALLS | _PROGRAM_MODE_CALLS)
    program.allow_chmod()
    program.allow(["clone"], Condition(0, _CLONE_NAMESPACES, 0))
    # clone3 hides its flags behind a pointer; ENOSYS makes the C library and Go fall back to clone.
    program.allow(["clone3"], action=_ACT_ERRNO | _ENOSYS)
    program.allow(["ioctl"], Condition(1, 0xFFFFFFFF, 0x5401))  # TCGETS: is it a terminal?
    return program.export()


def _program_filter() -> _Filter:
    """Begin the filter of a program that is not ours: what needs no socket."""
    program = _Filter()
    program.allow([name for name in _RUNTIME if name not in _DESCRIPTOR_CALLS])
    program.allow(["tgkill"])  # the threads of a Go program interrupt each other
    program.allow(_FILES_FOR_READING)
    program.allow(_STATE_CALLS)
    program.allow([name for name in _PROGRAM_CALLS if name not in {*_DESCRIPTOR_CALLS, *_COPYING_CALLS}])
    for name, target in _COPYING_CALLS.items():
        program.allow([name], Below(target, MEDIATED_FD))
    program.allow_modes(_MODE_CALLS | {name: at for name, at in _PROGRAM_MODE_CALLS.items() if name != "open"})
    program.allow_chmod()
    program.allow(["clone"], Condition(0, _CLONE_NAMESPACES, 0))
    # clone3 hides its flags behind a pointer; ENOSYS makes the C library and Go fall back to clone.
    program.allow(["clone3"], action=_ACT_ERRNO | _ENOSYS)
    return program


@_compiled_once
def foreign_filter(packet_protocols: tuple[int, ...] = (), *, is_mediated: bool, has_unix_sockets: bool) -> bytes:
    """Compile the filter of an unmodified plugin: files, programs, and sockets that the monitor makes for it.

    Args:
        packet_protocols: What socket(AF_PACKET, ...) may be asked for, in network order as the call has it.
        is_mediated: Whether what is sent on the monitor's descriptors is judged; else the plugin sends it itself.
        has_unix_sockets: Whether it may make AF_UNIX sockets, which belong to the netns it stands in.

    setns, socket, and opening a file ask the monitor. io_uring, sendmmsg, vmsplice and what else could carry a message
    past it are not listed; what moves bytes between descriptors cannot have one of the monitor's as its target.
    """
    program = _program_filter()
    ask = int(lib.SCMP_ACT_NOTIFY)
    program.allow(_FOREIGN_CALLS)
    program.allow(["setns"], action=ask)
    program.allow_modes({"openat": 3, "open": 2}, action=ask)
    for request in _INERT_IOCTLS:
        program.allow(["ioctl"], Condition(1, 0xFFFFFFFF, request))
    program.allow(["socket"], Condition(0, 0xFFFFFFFF, _socket.AF_NETLINK), action=ask)
    for protocol in packet_protocols:
        program.allow(["socket"], Condition(0, 0xFFFFFFFF, _AF_PACKET), Condition(2, 0xFFFFFFFF, protocol), action=ask)
    if has_unix_sockets:
        program.allow(["socket"], Condition(0, 0xFFFFFFFF, _socket.AF_UNIX))
    for option in _SOCKET_OPTIONS:
        program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_SOCKET), Condition(2, 0xFFFFFFFF, option))
    for option in _NETLINK_OPTIONS:
        program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_NETLINK), Condition(2, 0xFFFFFFFF, option))
    if is_mediated:
        program.allow(sorted(_DESCRIPTOR_CALLS), Below(0, MEDIATED_FD))
        program.allow(_SENDING_CALLS, NotBelow(0, MEDIATED_FD), action=ask)
        for command in _HARMLESS_FCNTL_COMMANDS:
            program.allow(["fcntl"], NotBelow(0, MEDIATED_FD), Condition(1, 0xFFFFFFFF, command))
    else:
        program.allow(sorted(_DESCRIPTOR_CALLS))
    return program.export()


@_compiled_once
def monitor_filter(packet_protocols: tuple[int, ...] = ()) -> bytes:
    """Compile the filter of the monitor and of its opener: the interpreter, netlink, sysctls, the worker's calls."""
    program = _interpreter_filter()
    program.allow(_FILES_FOR_READING)
    program.allow_modes(_OPEN_CALLS)
    program.allow(_NETLINK_CALLS)
    program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_NETLINK))
    for option in _SOCKET_OPTIONS:
        program.allow(["setsockopt"], Condition(1, 0xFFFFFFFF, _SOL_SOCKET), Condition(2, 0xFFFFFFFF, option))
    program.allow(["socket"], Condition(0, 0xFFFFFFFF, _socket.AF_NETLINK))
    for protocol in packet_protocols:
        program.allow(["socket"], Condition(0, 0xFFFFFFFF, _AF_PACKET), Condition(2, 0xFFFFFFFF, protocol))
    for request in (*_NOTIFY_IOCTLS, _SIOCGSKNS):
        program.allow(["ioctl"], Condition(1, 0xFFFFFFFF, request))
    program.allow(["process_vm_readv", "pidfd_open", "pidfd_getfd", "capset", "wait4", "waitid", "fcntl"])
    return program.export()


@_compiled_once
def keeper_filter() -> bytes:
    """Compile the filter of the keeper: the interpreter, its pipes, and signals to whom it has a pidfd of."""
    program = _interpreter_filter()
    program.allow(["wait4", "pidfd_send_signal"])
    return program.export()


def load_and_listen(program: bytes) -> int:
    """Put this process under a filter that asks somebody, for good.

    Returns:
        The descriptor from which the questions are read.
    """
    buffer = ffi.from_buffer(program)
    return checked(lib.native_seccomp_listen(buffer, len(program) // _INSTRUCTION_BYTES), "seccomp")


def load(program: bytes) -> None:
    """Put this process under a filter, for good."""
    buffer = ffi.from_buffer(program)
    checked(lib.native_seccomp_load(buffer, len(program) // _INSTRUCTION_BYTES, 0), "seccomp")

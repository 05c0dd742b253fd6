"""What the kernel offers for confining a process."""

import os
import signal
import struct
from pathlib import Path

import prctl

from cnisandbox.boundary import syscalls
from cnisandbox.boundary.syscalls import checked, ffi, lib
from cnisandbox.cli.probes import DEGRADED, MISSING, OK, Probe, Seen, attempt, words

_STATE_DIRECTORY = Path("/var/lib/cni")

_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_EMPTY_PATH = 0x1000
_MOUNT_ATTR_IDMAP = 0x00100000
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_SECCOMP_ACTIONS = {
    "kill_process": 0x80000000,
    "errno": 0x00050000,
    "user_notif": 0x7FC00000,
    "log": 0x7FFC0000,
    "allow": 0x7FFF0000,
}
_ALLOW_EVERYTHING = struct.pack("=HBBI", 0x06, 0, 0, _SECCOMP_ACTIONS["allow"])  # BPF_RET | BPF_K
_LANDLOCK_WITH_SCOPES = 6  # abstract sockets and signals; earlier ones: files (1), TCP (4), device ioctls (5)
# What the entry, which is root, does before it drops everything.
_NEEDED_CAPABILITIES = {
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_NET_ADMIN",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
}

_CONFIG = "use a kernel with {}; every distribution's has it, so look for a container or a hardening that hides it"


def _namespace(kind: str, flag: int) -> Probe:
    return Probe(
        f"{kind} namespace",
        "the worker's own view of the machine",
        _CONFIG.format(f"CONFIG_{'NET' if kind == 'network' else kind.upper()}_NS"),
        lambda: attempt(flag, lambda: None),
        is_required=True,
    )


def _user_namespace() -> Seen:
    return attempt(0, lambda: os.close(checked(lib.native_userns_for_idmap(0, 0, 0, 0))))


def _new_mounts() -> Seen:
    def mount_tmpfs() -> None:
        context = checked(lib.native_fsopen(b"tmpfs", _FSOPEN_CLOEXEC))
        checked(lib.native_fsconfig_create(context))
        tree = checked(lib.native_fsmount(context, _FSMOUNT_CLOEXEC, 0))
        checked(lib.native_open_tree(tree, b"", _AT_EMPTY_PATH | _OPEN_TREE_CLOEXEC))

    return attempt(syscalls.CLONE_NEWNS, mount_tmpfs)


def _idmapped_mounts() -> Seen:
    directory = next(path for path in (_STATE_DIRECTORY, *_STATE_DIRECTORY.parents) if path.is_dir())

    def map_directory() -> str:
        userns = checked(lib.native_userns_for_idmap(0, 1, 0, 1))
        tree = checked(lib.native_open_tree(-1, bytes(directory), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC))
        checked(lib.native_mount_setattr(tree, b"", _AT_EMPTY_PATH, _MOUNT_ATTR_IDMAP, 0, 0, userns))
        return f"on the file system of {directory}"

    seen = attempt(syscalls.CLONE_NEWNS, map_directory)
    return seen if seen.state == OK else Seen(MISSING, f"{seen.detail}, on the file system of {directory}")


def _landlock() -> Seen:
    abi = lib.native_landlock_abi()
    if abi < 1:
        return Seen(MISSING, words(OSError(-abi, "")))
    if abi < _LANDLOCK_WITH_SCOPES:
        return Seen(DEGRADED, f"ABI {abi}: does not confine abstract sockets and signals")
    return Seen(OK, f"ABI {abi}")


def _load_filter(flags: int) -> int:
    prctl.set_no_new_privs(1)
    return checked(lib.native_seccomp_load(ffi.from_buffer(_ALLOW_EVERYTHING), 1, flags))


def _seccomp_filter() -> Seen:
    seen = attempt(0, lambda: _load_filter(0) and None)
    if seen.state != OK:
        return seen
    available = [name for name, action in _SECCOMP_ACTIONS.items() if lib.native_seccomp_action_available(action) == 0]
    lacking = [name for name in ("kill_process", "errno", "allow") if name not in available]
    return Seen(MISSING, f"no action {', '.join(lacking)}") if lacking else Seen(OK, f"actions {', '.join(available)}")


def _no_new_privs() -> Seen:
    def set_and_read_back() -> None:
        prctl.set_no_new_privs(1)
        if not prctl.get_no_new_privs():
            raise OSError("was set, and is not")

    return attempt(0, set_and_read_back)


def _close_range() -> Seen:
    def close_one() -> None:
        fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
        checked(lib.native_close_range(fd, fd, 0))

    return attempt(0, close_one)


def _pidfd() -> Seen:
    def signal_ourselves() -> None:
        pidfd = checked(lib.native_pidfd_open(os.getpid()))
        checked(lib.native_pidfd_send_signal(pidfd, signal.SIGCONT))

    return attempt(0, signal_ourselves)


def _securebits() -> Seen:
    def lock() -> None:
        wanted = (1 << prctl.SECURE_NOROOT) | (1 << prctl.SECURE_NOROOT_LOCKED)
        prctl.set_securebits(wanted)
        if prctl.get_securebits() & wanted != wanted:
            raise OSError("were set, and are not")

    return attempt(0, lock)


def _bounding_set() -> Seen:
    status = Path("/proc/self/status").read_text()
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    names = {getattr(prctl, name): name for name in dir(prctl) if name.startswith("CAP_")}
    absent = [names.get(number, str(number)) for number in range(last + 1) if not bounding >> number & 1]
    lacking = sorted(_NEEDED_CAPABILITIES & set(absent))
    if lacking:
        return Seen(MISSING, f"without {', '.join(lacking)}")
    return Seen(OK, f"all but {', '.join(absent)}" if absent else "all capabilities")


def _trace_events() -> Seen:
    def open_events() -> None:
        # a detached mount: nothing of the machine's own /sys is touched
        context = checked(lib.native_fsopen(b"tracefs", _FSOPEN_CLOEXEC))
        checked(lib.native_fsconfig_create(context))
        root = checked(lib.native_fsmount(context, _FSMOUNT_CLOEXEC, 0))
        for event in ("capability/cap_capable", "raw_syscalls/sys_enter"):
            os.close(os.open(f"events/{event}/enable", os.O_RDONLY, dir_fd=root))

    return attempt(syscalls.CLONE_NEWNS, open_events)


PROBES = (
    Probe(
        "user namespace",
        "pods with hostUsers: false; idmapped mounts",
        "sysctl user.max_user_namespaces must not be 0",
        _user_namespace,
    ),
    _namespace("network", syscalls.CLONE_NEWNET),
    _namespace("mount", syscalls.CLONE_NEWNS),
    _namespace("pid", syscalls.CLONE_NEWPID),
    _namespace("ipc", syscalls.CLONE_NEWIPC),
    _namespace("uts", syscalls.CLONE_NEWUTS),
    _namespace("cgroup", syscalls.CLONE_NEWCGROUP),
    Probe("new mount API", "the worker's file system view", "Linux 5.2 or later", _new_mounts, is_required=True),
    Probe(
        "idmapped mounts",
        "state directories whose files stay root's; without it they become the service user's",
        "put /var/lib/cni on ext4, xfs, btrfs or (Linux 6.3) tmpfs",
        _idmapped_mounts,
    ),
    Probe(
        "Landlock",
        "level hardened: files, sockets and signals",
        "CONFIG_SECURITY_LANDLOCK, and `landlock` in the kernel parameter lsm=",
        _landlock,
        is_required=True,
    ),
    Probe(
        "seccomp filter",
        "level hardened: the system call allow-list",
        _CONFIG.format("CONFIG_SECCOMP_FILTER"),
        _seccomp_filter,
        is_required=True,
    ),
    Probe("no_new_privs", "every level but root", _CONFIG.format("prctl(2)"), _no_new_privs, is_required=True),
    Probe("close_range", "no inherited descriptor in a worker", "Linux 5.9 or later", _close_range, is_required=True),
    Probe("pidfd", "ending exactly the worker that was started", "Linux 5.3 or later", _pidfd, is_required=True),
    Probe("securebits", "uid 0 without power", "keep CAP_SETPCAP in the bounding set", _securebits, is_required=True),
    Probe(
        "bounding set",
        "what the entry does before it drops everything",
        "give the runtime's service these capabilities (CapabilityBoundingSet=)",
        _bounding_set,
        is_required=True,
    ),
    Probe(
        "trace events",
        "measuring which capabilities are used",
        "CONFIG_FTRACE_SYSCALLS and Linux 6.14 (capability:cap_capable)",
        _trace_events,
    ),
)

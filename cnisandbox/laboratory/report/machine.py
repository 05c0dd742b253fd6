"""What the machine is, as far as it bears on what was measured.

Privilege: none; reads /proc, /sys, /boot and dpkg's status file.
"""

import gzip
import hashlib
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.report.schema import Machine

PACKAGES = ("containernetworking-plugins", "podman", "containerd", "runc", "crun", "nftables", "iptables", "python3")

# What decides whether an attempt applies, or whether a protection exists.
OPTIONS = (
    "AUDIT",
    "BPF_SYSCALL",
    "BPF_UNPRIV_DEFAULT_OFF",
    "BRIDGE",
    "CGROUPS",
    "CGROUP_PIDS",
    "CHECKPOINT_RESTORE",
    "DEVMEM",
    "FTRACE_SYSCALLS",
    "IO_URING",
    "IPVLAN",
    "KEXEC",
    "KEYS",
    "KPROBES",
    "MACVLAN",
    "MEMCG",
    "MODULES",
    "NETFILTER",
    "NET_NS",
    "NF_TABLES",
    "PERF_EVENTS",
    "PID_NS",
    "SECCOMP",
    "SECCOMP_FILTER",
    "SECURITY_LANDLOCK",
    "SECURITY_SELINUX",
    "SECURITY_APPARMOR",
    "SECURITY_YAMA",
    "STRICT_DEVMEM",
    "SYSVIPC",
    "TUN",
    "USERFAULTFD",
    "USER_NS",
    "VETH",
    "VLAN_8021Q",
    "XFRM_USER",
)
SYSCTLS = (
    "fs.protected_hardlinks",
    "fs.protected_symlinks",
    "kernel.dmesg_restrict",
    "kernel.io_uring_disabled",
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled",
    "kernel.unprivileged_userns_clone",
    "kernel.yama.ptrace_scope",
    "user.max_net_namespaces",
    "user.max_user_namespaces",
    "vm.unprivileged_userfaultfd",
)

# KERNEL: lsm_list_modules() is system call 461 on every architecture, 6.8 and later; LSM_ID_* of uapi/linux/lsm.h
_LSM_LIST_MODULES = 461
_LSM_NAMES = {
    100: "capability",
    101: "selinux",
    102: "smack",
    103: "tomoyo",
    104: "apparmor",
    105: "yama",
    106: "loadpin",
    107: "safesetid",
    108: "lockdown",
    109: "bpf",
    110: "landlock",
    111: "ima",
    112: "evm",
    113: "ipe",
}

DPKG_STATUS = "/var/lib/dpkg/status"


def describe() -> Machine:
    """Describe the machine; what cannot be read is left empty."""
    release = platform.release()
    config = _kernel_config(release)
    return {
        "kernel": release,
        "architecture": platform.machine(),
        "config_sha256": hashlib.sha256(config.encode()).hexdigest() if config else "",
        "config": chosen_options(config),
        "sysctls": _sysctls(),
        "lsm": _security_modules(),
        "packages": package_versions(_text(DPKG_STATUS)),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def chosen_options(config: str) -> dict[str, str]:
    """Pick the options that matter out of a kernel configuration.

    Args:
        config: As in /proc/config.gz; may be empty.

    Returns:
        "y", "m", "n" or the value by name (CONFIG_...); none where there is no configuration.
    """
    if not config:
        return {}
    pairs = (line.split("=", 1) for line in config.splitlines() if line.startswith("CONFIG_") and "=" in line)
    given: Mapping[str, str] = {name: value.strip('"') for name, value in pairs}
    return {f"CONFIG_{name}": given.get(f"CONFIG_{name}", "n") for name in OPTIONS}


def package_versions(status: str, names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Pick versions of installed packages out of dpkg's status file.

    Returns:
        The version by name; "" for a package that is not installed.
    """
    installed = {}
    for stanza in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[:1].isalpha())
        if fields.get("Status", "").endswith(" installed"):
            installed[fields.get("Package", "")] = fields.get("Version", "")
    return {name: installed.get(name, "") for name in names}


def _kernel_config(release: str) -> str:
    try:
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode("utf-8", "replace")
    except (OSError, EOFError):
        return _text(f"/boot/config-{release}")


def _security_modules() -> list[str]:
    """List the security modules that are active, in their order; empty where the kernel does not say."""
    ids, size = raw.buffer(64 * 8), raw.buffer(struct.pack("=I", 64 * 8))
    try:
        count = raw.syscall_number(_LSM_LIST_MODULES, ids, size, 0)
    except OSError:
        return [name for name in _text("/sys/kernel/security/lsm").strip().split(",") if name]
    return [_LSM_NAMES.get(number, str(number)) for number in struct.unpack_from(f"={count}Q", ids)]


def _sysctls() -> dict[str, str]:
    values = {name: _text(f"/proc/sys/{name.replace('.', '/')}").strip() for name in SYSCTLS}
    return {name: value for name, value in values.items() if value}


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""

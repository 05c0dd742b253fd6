"""Attempts on what belongs to the whole machine: mounts, names, clocks, logs, modules. Each with its judge.

Where an effect reaches beyond the arena's namespaces the judge takes it back as soon as he has seen it.
"""

import contextlib
import errno
import fcntl
import glob
import os
import signal
import struct
import threading
import time
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.capabilities import STRANGER, missing, setting, stay
from cnisandbox.laboratory.attacker.knowledge import OPEN_DIRECTORY, SECRET_FILE, STATE_DIRECTORY, Facts, Said

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWPID = 0x00020000, 0x04000000, 0x20000000
_MS_BIND = 0x1000
_NETLINK_AUDIT = 9
_MOMENT_S = 0.5


def _text(path: str) -> bytes:
    return path.encode() + b"\0"


# Mounts and namespaces


_FORGED = f"{OPEN_DIRECTORY}/forged"


def leave_forged_file(arena: "Arena") -> None:
    """Scene: a file of the attacker's."""
    with open(_FORGED, "w") as file:
        file.write("forged")


def mount_over_secret(facts: Facts) -> None:
    raw.syscall("mount", _text(_FORGED), _text(SECRET_FILE), b"\0", _MS_BIND, b"\0")


def host_reads_forged_file(arena: "Arena") -> bool:
    with open(SECRET_FILE) as file:
        return file.read() == "forged"


def unshare_mounts(facts: Facts) -> None:
    raw.syscall("unshare", _CLONE_NEWNS)


def has_own_mounts(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.namespace("mnt") != arena.namespace("mnt", 1)


_UTS_FILE = f"{OPEN_DIRECTORY}/uts"


def add_container_with_own_names(arena: "Arena") -> None:
    """Scene: a container with a uts namespace of its own, which a file in an open directory leads to."""
    stay(arena, "named", _unshare_names)
    with open(_UTS_FILE, "w"):
        pass
    raw.syscall("mount", _text(f"/proc/{arena.facts.pids['named']}/ns/uts"), _text(_UTS_FILE), b"\0", _MS_BIND, b"\0")


def _unshare_names() -> None:
    raw.syscall("unshare", _CLONE_NEWUTS)


def enter_container_names(facts: Facts) -> None:
    try:
        fd = os.open(_UTS_FILE, os.O_RDONLY)
    except OSError:  # not in his view: by the process's number
        fd = raw.syscall("pidfd_open", facts.pids["named"], 0)
    raw.syscall("setns", fd, _CLONE_NEWUTS)


def has_container_names(arena: "Arena") -> bool:
    return arena.namespace("uts") == arena.namespace("uts", arena.facts.pids["named"])


_HOSTNAME = "escape.example"


def set_hostname(facts: Facts) -> None:
    raw.syscall("sethostname", _HOSTNAME.encode(), len(_HOSTNAME))


def host_has_other_name(arena: "Arena") -> bool:
    return os.uname().nodename == _HOSTNAME


# Files that are opened, and terminals


def watch_every_file(facts: Facts) -> Said:
    fan_mark_add_mount, fan_open, at_fdcwd = 0x1 | 0x10, 0x20, -100
    fd = raw.syscall("fanotify_init", 0, 0)
    raw.syscall("fanotify_mark", fd, fan_mark_add_mount, fan_open, at_fdcwd, b"/run\0")
    return Said(0, fd)


def every_file_is_watched(arena: "Arena") -> bool:
    if arena.said.errno:
        return False
    with open(f"/proc/{arena.pid}/fdinfo/{arena.said.value}") as file:
        return "fanotify mnt_id:" in file.read()


def needs_fanotify() -> str:
    return missing("CONFIG_FANOTIFY", lambda: raw.syscall("fanotify_init", 0, 0), errno.ENOSYS)


_TERMINAL: list[int] = []
_TERMINAL_PATH = "/dev/pts/0"


def open_terminal(arena: "Arena") -> None:
    """Scene: somebody sits at a terminal; it is the only one here."""
    raw.syscall("mount", b"devpts\0", b"/dev/pts\0", b"devpts\0", 0, b"mode=666,ptmxmode=666\0")
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    tiocsptlck = 0x40045431
    fcntl.ioctl(master, tiocsptlck, b"\0\0\0\0")
    user = os.open(_TERMINAL_PATH, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    _TERMINAL[:] = [master, user]


def type_command(facts: Facts) -> None:
    tiocsti = 0x5412
    fd = os.open(_TERMINAL_PATH, os.O_RDWR | os.O_NOCTTY)
    for letter in b"id\n":
        fcntl.ioctl(fd, tiocsti, bytes([letter]))


def command_was_typed(arena: "Arena") -> bool:
    with contextlib.suppress(BlockingIOError):
        return os.read(_TERMINAL[1], 64) == b"id\n"
    return False


def hang_up_terminal(facts: Facts) -> None:
    """Make the terminal one's own, then take it away from everybody."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        if os.waitstatus_to_exitcode(status) > 0:
            raise OSError(os.waitstatus_to_exitcode(status), "what the fork was told")
        return
    number = 0
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.setsid()
        os.open(_TERMINAL_PATH, os.O_RDWR)
        raw.syscall("vhangup")
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        os._exit(number)


def terminal_was_hung_up(arena: "Arena") -> bool:
    try:
        os.write(_TERMINAL[1], b"x")
    except OSError as error:
        return error.errno == errno.EIO
    return False


# The kernel itself


def _module_file() -> str:
    found = glob.glob(f"/lib/modules/{os.uname().release}/kernel/drivers/net/dummy.ko*")
    return found[0] if found else ""


def load_module(facts: Facts) -> None:
    """Load a module of the machine's own; where its file is not in sight, something that only looks like one."""
    path, no_links = _module_file(), b"numdummies=0\0"
    if path:
        is_compressed = not path.endswith(".ko")
        module_init_compressed_file = 4
        fd = os.open(path, os.O_RDONLY)
        raw.syscall("finit_module", fd, no_links, module_init_compressed_file if is_compressed else 0)
    else:
        raw.syscall("init_module", b"\x7fELF", 4, no_links)


def module_was_loaded(arena: "Arena") -> bool:
    """Look for it, and unload it."""
    is_loaded = _is_loaded()
    if is_loaded:
        raw.syscall("delete_module", b"dummy\0", os.O_NONBLOCK)
    return is_loaded


def _is_loaded() -> bool:
    with open("/proc/modules") as file:
        return any(line.startswith("dummy ") for line in file)


def needs_modules() -> str:
    if not os.path.exists("/proc/modules"):
        return "CONFIG_MODULES"
    if not _module_file():
        return "CONFIG_DUMMY=m"
    return "the module dummy, not loaded yet" if _is_loaded() else ""


def restart_pid_namespace(facts: Facts) -> None:
    """Restart the machine, in a pid namespace made for it: there the kernel ends process 1 and all that it has."""
    magic_1, magic_2, ctrl_alt_del_off, restart = 0xFEE1DEAD, 672274793, 0, 0x01234567
    try:
        raw.syscall("reboot", magic_1, magic_2, ctrl_alt_del_off, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is what it says, in a pid namespace, to those who may
            raise
    raw.syscall("unshare", _CLONE_NEWPID)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        if os.fork() == 0:
            try:
                raw.syscall("reboot", magic_1, magic_2, restart, 0)
            except OSError as error:
                os.write(writer, bytes([error.errno or errno.EIO]))
        while True:
            signal.pause()
    os.close(writer)
    answer = os.read(reader, 1)
    if answer:
        raise OSError(answer[0], "reboot")


def process_1_has_ended(arena: "Arena") -> bool:
    """Look for it among the attacked process's children; the kernel takes a moment to end it."""
    deadline = time.monotonic() + (_MOMENT_S if arena.said.errno == 0 else 0)
    while True:
        with open(f"/proc/{arena.pid}/task/{arena.pid}/children") as file:
            children = [int(word) for word in file.read().split()]
        if any(arena.status("State", child).startswith("Z") for child in children):
            return True
        if time.monotonic() > deadline:
            return False
        os.sched_yield()


_ACCOUNTS = f"{STATE_DIRECTORY}/accounts"


def leave_accounts(arena: "Arena") -> None:
    """Scene: a file of the attacker's."""
    with open(_ACCOUNTS, "w"):
        pass
    os.chmod(_ACCOUNTS, 0o666)


def keep_accounts(facts: Facts) -> None:
    raw.syscall("acct", _text(_ACCOUNTS))


def processes_are_accounted(arena: "Arena") -> bool:
    """End a process of the host, look whether it was written down, and stop that."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    is_written = os.stat(_ACCOUNTS).st_size > 0
    if is_written:
        raw.syscall("acct", 0)
    return is_written


def needs_accounting() -> str:
    # A directory: nothing is switched on, and nothing that is on is switched off.
    return missing("CONFIG_BSD_PROCESS_ACCT", lambda: raw.syscall("acct", b"/\0"), errno.ENOSYS)


_TIMEX_BYTES, _ESTERROR_AT, _ADJ_ESTERROR = 208, 32, 0x0008
_ESTERROR: list[int] = []


def _clock_error(wanted: int | None = None) -> int:
    """Read, or set, the machine's estimate of how wrong its clock is, in microseconds; no clock is changed by it."""
    timex = raw.buffer(_TIMEX_BYTES)
    if wanted is not None:
        struct.pack_into("=I", timex, 0, _ADJ_ESTERROR)
        struct.pack_into("=q", timex, _ESTERROR_AT, wanted)
    raw.syscall("adjtimex", timex)
    return int(struct.unpack_from("=q", timex, _ESTERROR_AT)[0])


def note_clock_error(arena: "Arena") -> None:
    """Scene: keep what has to be restored."""
    _ESTERROR[:] = [_clock_error()]


def adjust_clock(facts: Facts) -> Said:
    wanted = 1 + time.time_ns() // 1000 % 10_000_000
    return Said(0, _clock_error(wanted))


def clock_was_adjusted(arena: "Arena") -> bool:
    is_adjusted = arena.said.errno == 0 and _clock_error() == arena.said.value != _ESTERROR[0]
    if is_adjusted:
        _clock_error(_ESTERROR[0])
    return is_adjusted


# Logs, and what the kernel says about itself


_LOG_BYTES = 1 << 18


def _kernel_log() -> str:
    syslog_action_read_all = 3
    memory = raw.buffer(_LOG_BYTES)
    length = raw.syscall("syslog", syslog_action_read_all, memory, _LOG_BYTES)
    return memory.raw[:length].decode("ascii", "replace")


def read_kernel_log(facts: Facts) -> Said:
    return Said(0, 0, _kernel_log()[-200:])


def said_kernel_log(arena: "Arena") -> bool:
    return bool(arena.said.text) and arena.said.text in _kernel_log()


def needs_restricted_log() -> str:
    return "" if setting("kernel/dmesg_restrict") > 0 else "kernel.dmesg_restrict, without which everybody reads it"


def read_kernel_address(facts: Facts) -> Said:
    """Find out where the kernel is in memory, which is different after each start of the machine."""
    return Said(0, 0, _kernel_address())


def _kernel_address() -> str:
    """Read it, in hexadecimal digits; nothing where there are only zeros to be read."""
    with open("/proc/kallsyms") as file:
        return next((line.split()[0].strip("0") and line.split()[0] for line in file if line.split()[2] == "_text"), "")


def said_kernel_address(arena: "Arena") -> bool:
    return bool(arena.said.text) and arena.said.text == _kernel_address()


def needs_hidden_kernel_addresses() -> str:
    if not os.path.exists("/proc/kallsyms"):
        return "CONFIG_KALLSYMS"
    return "" if _kernel_address() else "kernel.kptr_restrict below 2"


def listen_to_audit_log(facts: Facts) -> Said:
    audit_nlgrp_readlog = 1
    link = raw.Netlink(_NETLINK_AUDIT)
    link.socket.bind((0, audit_nlgrp_readlog))
    return Said(0, link.socket.detach())


def listens_to_audit_log(arena: "Arena") -> bool:
    """Look for the socket's group among the netlink sockets of the netns that it may be in."""
    if arena.said.errno:
        return False
    inode = arena.descriptors()[arena.said.value].removeprefix("socket:[").removesuffix("]")
    lines: list[list[str]] = []
    for netns in (None, "blue"):
        lines += _netlink_sockets() if netns is None else arena.inside(netns, _netlink_sockets)
    return any(words[-1] == inode and int(words[3], 16) == 1 for words in lines)


def _netlink_sockets() -> list[list[str]]:
    with open("/proc/thread-self/net/netlink") as file:
        return [line.split() for line in file.readlines()[1:]]


# KERNEL: without auditd the messages go to the kernel's log, whose rate limit drops what exceeds ten in five seconds.
_LOG_LIMIT_S, _LOG_INTERVAL_S = 6.0, 0.2


def forge_audit_message(facts: Facts) -> Said:
    """Send a message, and again and again where the first has been taken, until one has passed the log's rate limit."""
    text = f"cnisandbox laboratory {time.time_ns()}"
    link = raw.Netlink(_NETLINK_AUDIT)
    _send_audit_message(link, text)
    threading.Thread(target=_repeat_audit_message, args=(link, text), daemon=True).start()
    return Said(0, 0, text)


def _send_audit_message(link: raw.Netlink, text: str) -> None:
    audit_user_avc = 1107
    link.request(audit_user_avc, _text(text))


def _repeat_audit_message(link: raw.Netlink, text: str) -> None:
    for _ in range(int(_LOG_LIMIT_S / _LOG_INTERVAL_S)):
        time.sleep(_LOG_INTERVAL_S)
        _send_audit_message(link, text)


def audit_message_was_logged(arena: "Arena") -> bool:
    return arena.said.errno == 0 and _is_logged(arena.said.text)


def _is_logged(text: str) -> bool:
    deadline = time.monotonic() + _LOG_LIMIT_S
    while f"msg='{text}" not in _kernel_log():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOG_INTERVAL_S / 10)
    return True


def needs_audit() -> str:
    return missing("CONFIG_AUDIT", lambda: raw.Netlink(_NETLINK_AUDIT))


def needs_audit_in_kernel_log() -> str:
    return needs_audit() or missing("audit messages in the kernel's log: auditd takes them", _await_own_message)


def _await_own_message() -> None:
    if not _is_logged(forge_audit_message(Facts({})).text):
        raise TimeoutError


_LOGIN_UID = "/proc/self/loginuid"


def log_in(arena: "Arena") -> None:
    """Scene: the audit log knows who started all this."""
    with open(_LOGIN_UID, "w") as file:
        file.write("0")


def log_in_as_stranger(facts: Facts) -> None:
    with open(_LOGIN_UID, "w") as file:
        file.write(str(STRANGER))


def is_logged_in_as_stranger(arena: "Arena") -> bool:
    with open(f"/proc/{arena.pid}/loginuid") as file:
        return file.read() == str(STRANGER)


def needs_login_uid() -> str:
    if not os.path.exists(_LOGIN_UID):
        return "CONFIG_AUDIT"
    return missing("login uids that may change: they are immutable", _log_in_twice)


def _log_in_twice() -> None:
    for uid in ("0", str(STRANGER)):
        with open(_LOGIN_UID, "w") as file:
            file.write(uid)


# Raw devices


def open_physical_memory(facts: Facts) -> Said:
    return Said(0, os.open(f"{OPEN_DIRECTORY}/mem", os.O_RDONLY))


def leave_memory_device(arena: "Arena") -> None:
    """Scene: the device of the machine's memory, open to everybody as far as its mode goes."""
    os.mknod(f"{OPEN_DIRECTORY}/mem", 0o666 | 0o020000, os.makedev(1, 1))
    os.chmod(f"{OPEN_DIRECTORY}/mem", 0o666)


def holds_physical_memory(arena: "Arena") -> bool:
    return arena.said.errno == 0 and arena.descriptors().get(arena.said.value) == f"{OPEN_DIRECTORY}/mem"


def needs_physical_memory() -> str:
    return "" if os.path.exists("/dev/mem") else "CONFIG_DEVMEM"

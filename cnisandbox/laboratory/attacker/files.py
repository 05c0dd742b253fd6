"""Attempts on files: secrets, what makes an attacker's code run again, the runtime's sockets, the state directories.

Each stands beside its judge. A scene that prepares a directory of the machine covers it first: what is written there
stays in the arena. What a refused attempt has made on its way it removes again, so that what is left is its effect.
"""

import contextlib
import errno
import fcntl
import functools
import glob
import os
import secrets
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.attacker.knowledge import (
    ATTEST_FILE,
    OPEN_DIRECTORY,
    PLUGIN_DIRECTORY,
    SECRET_FILE,
    STATE_DIRECTORY,
    Facts,
    Said,
)
from cnisandbox.laboratory.attacker.processes import execute, holds_file

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

SHADOW_FILE = "/etc/shadow"
# The runtime's copy of a pod's root file system, with the token of its service account.
TOKEN_FILE = (
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/pod/rootfs/run/secrets/kubernetes.io/serviceaccount/token"
)
AUTHORIZED_KEYS = "/root/.ssh/authorized_keys"
ABSTRACT_NAME = "\0cnisandbox-escape-everywhere"
MINOR_OF_MEM = os.makedev(1, 1)

_DISKS = ("vda", "sda", "nvme0n1", "xvda", "mmcblk0", "dm-0", "loop0")
# virtio and device mapper, which take what is free; SCSI, NVMe, Xen, MMC, loop
_DISK_MAJORS = (254, 253, 8, 259, 202, 179, 7)
_FCHMODAT2 = 452
# A comment in every file that it is planted in; the dynamic linker passes over it as well.
_PLANTED = b"# planted by an attacker\n"
_LISTENERS: list[socket.socket] = []

# What a set-uid program does: say whose rights it has. Read before the drop, as an attacker brings his own.
_PROGRAM_FILE = "/usr/bin/id"
_PROGRAM = b""
if os.path.isfile(_PROGRAM_FILE):
    with open(_PROGRAM_FILE, "rb") as _file:
        _PROGRAM = _file.read()


# Files of the host


def read_secret(facts: Facts) -> Said:
    return _read(SECRET_FILE)


def _read(path: str, directory: int | None = None) -> Said:
    fd = os.open(path, os.O_RDONLY, dir_fd=directory)
    return Said(0, 0, os.read(fd, 64).decode("ascii", "replace"))


def said_secret(arena: "Arena") -> bool:
    return bool(arena.secret) and arena.said.text == arena.secret


def read_secret_by_handle(facts: Facts) -> Said:
    directory = os.open("/run" if os.path.isdir("/run") else "/", os.O_RDONLY if os.path.isdir("/run") else os.O_PATH)
    fd = raw.syscall("open_by_handle_at", directory, raw.buffer(facts.handle), os.O_RDONLY)
    return Said(0, 0, os.read(fd, 64).decode())


def read_shadow(facts: Facts) -> Said:
    return _read(SHADOW_FILE)


def said_shadow(arena: "Arena") -> bool:
    with open(SHADOW_FILE) as file:
        return bool(arena.said.text) and file.read().startswith(arena.said.text)


def read_public_file(facts: Facts) -> Said:
    return _read("/etc/passwd")


def said_passwd(arena: "Arena") -> bool:
    with open("/etc/passwd") as file:
        return bool(arena.said.text) and file.read().startswith(arena.said.text)


def read_environment(facts: Facts) -> Said:
    return _read(f"/proc/{facts.pids['bystander']}/environ")


def said_environment(arena: "Arena") -> bool:
    return said_what_is_in(f"/proc/{arena.facts.pids['bystander']}/environ", arena)


def read_secret_through_process(facts: Facts) -> Said:
    return _read(f"/proc/{facts.pids['bystander']}/root{SECRET_FILE}")


def walk_up_from_root(facts: Facts) -> Said:
    return _read("/../../../../run/private/secret")


def write_private_file(facts: Facts) -> None:
    os.close(os.open("/run/private/written", os.O_WRONLY | os.O_CREAT, 0o600))


def private_file_was_written(arena: "Arena") -> bool:
    return os.path.exists("/run/private/written")


def write_open_directory(facts: Facts) -> None:
    os.close(os.open(f"{OPEN_DIRECTORY}/written", os.O_WRONLY | os.O_CREAT, 0o600))


def open_directory_was_written(arena: "Arena") -> bool:
    return os.path.exists(f"{OPEN_DIRECTORY}/written")


def replace_plugin(facts: Facts) -> None:
    os.close(os.open(f"{PLUGIN_DIRECTORY}/host-local", os.O_WRONLY | os.O_CREAT, 0o755))


def plugin_was_replaced(arena: "Arena") -> bool:
    return os.path.exists(f"{PLUGIN_DIRECTORY}/host-local")


# State directories: what is written there is root's on disk. "at" is the descriptor, or for a program the path.


def _state(facts: Facts) -> int:
    return facts.state_fd if facts.state_fd >= 0 else os.open(STATE_DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)


@contextlib.contextmanager
def _new_file(facts: Facts, mode: int, content: bytes = b"") -> Iterator[int]:
    """Make a file in a state directory; removed again when what it was made for is refused."""
    at = _state(facts)
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, mode, dir_fd=at)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        yield fd
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink("escape", dir_fd=at)
        raise
    finally:
        os.close(fd)


def make_setuid_by_descriptor(facts: Facts) -> None:
    with _new_file(facts, 0o755, _PROGRAM) as fd:
        os.fchmod(fd, 0o4755)


def make_setuid_by_path(facts: Facts) -> None:
    with _new_file(facts, 0o755, _PROGRAM):
        raw.syscall("fchmodat", _state(facts), b"escape\0", 0o4755)


def make_setuid_by_chmod(facts: Facts) -> None:
    with _new_file(facts, 0o755, _PROGRAM):
        raw.syscall("chmod", f"{STATE_DIRECTORY}/escape\0".encode(), 0o4755)


def make_setuid_by_fchmodat2(facts: Facts) -> None:
    with _new_file(facts, 0o755, _PROGRAM):
        raw.syscall_number(_FCHMODAT2, _state(facts), b"escape\0", 0o4755, 0)


def lacks_fchmodat2() -> str:
    """Name the call when the kernel lacks it."""
    try:
        raw.syscall_number(_FCHMODAT2, -1, b"escape\0", 0, 0)
    except OSError as error:
        return "fchmodat2" if error.errno == errno.ENOSYS else ""
    return ""


def make_setuid_by_openat2(facts: Facts) -> None:
    how = struct.pack("=QQQ", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o4755, 0)
    raw.syscall("openat2", _state(facts), b"escape\0", raw.buffer(how), len(how))


def make_setuid_by_mknod(facts: Facts) -> None:
    os.mknod("escape", stat.S_IFREG | 0o4755, dir_fd=_state(facts))


def give_file_capabilities(facts: Facts) -> None:
    revision_2_effective, every = 0x02000001, 0xFFFFFFFF
    with _new_file(facts, 0o755, _PROGRAM) as fd:
        os.setxattr(fd, "security.capability", struct.pack("<IIIII", revision_2_effective, every, 0, 0x1FF, 0))


def state_has_file_with_capabilities(arena: "Arena") -> bool:
    try:
        return bool(os.getxattr(f"{STATE_DIRECTORY}/escape", "security.capability"))
    except OSError:
        return False


def host_has_setuid_program(arena: "Arena") -> bool:
    return _is_setuid_root(f"{STATE_DIRECTORY}/escape")


def host_has_setuid_file(arena: "Arena") -> bool:
    path = f"{STATE_DIRECTORY}/escape"
    return os.path.exists(path) and bool(os.stat(path).st_mode & stat.S_ISUID)


def make_empty_setuid_file(facts: Facts) -> None:
    os.close(os.open("escape", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o4755, dir_fd=_state(facts)))


def make_device(facts: Facts) -> None:
    os.mknod("escape", stat.S_IFCHR | 0o666, MINOR_OF_MEM, dir_fd=_state(facts))


def make_fifo(facts: Facts) -> None:
    os.mknod("escape", stat.S_IFIFO | 0o666, dir_fd=_state(facts))


def state_has_device(arena: "Arena") -> bool:
    return os.path.exists(f"{STATE_DIRECTORY}/escape") and stat.S_ISCHR(os.stat(f"{STATE_DIRECTORY}/escape").st_mode)


def state_has_fifo(arena: "Arena") -> bool:
    return os.path.exists(f"{STATE_DIRECTORY}/escape") and stat.S_ISFIFO(os.stat(f"{STATE_DIRECTORY}/escape").st_mode)


def give_file_away(facts: Facts) -> None:
    with _new_file(facts, 0o600) as fd:
        os.fchown(fd, 65534, 65534)


def state_has_file_of_nobody(arena: "Arena") -> bool:
    path = f"{STATE_DIRECTORY}/escape"
    return os.path.exists(path) and os.stat(path).st_uid == 65534


def read_through_link(facts: Facts) -> Said:
    return _read("escape", _state(facts))


def make_link_to_secret(arena: "Arena") -> None:
    """Scene: somebody has made a link in the state directory that leads out of it."""
    os.symlink(SECRET_FILE, f"{STATE_DIRECTORY}/escape")


def plant_link(facts: Facts) -> None:
    """Make a link that leads out, for somebody else to write through: a reference plugin, which is root."""
    os.symlink("/run/private/written", "last_reserved_ip.0", dir_fd=_state(facts))


def plant_link_by_path(facts: Facts) -> None:
    os.symlink("/run/private/written", f"{STATE_DIRECTORY}/last_reserved_ip.0")


def reference_plugin_writes_outside(arena: "Arena") -> bool:
    """Do what host-local does as root: write the last address, creating the file when it is missing."""
    with open(f"{STATE_DIRECTORY}/last_reserved_ip.0", "w") as file:
        file.write("10.1.2.3")
    return os.path.exists("/run/private/written")


def walk_up_from_state(facts: Facts) -> Said:
    return _read("../../../../run/private/secret", _state(facts))


def own_state_directory(arena: "Arena") -> None:
    """Scene: the directory is the service user's already, as where the file system cannot be idmapped."""
    os.chown(STATE_DIRECTORY, arena.service.uid, arena.service.gid)


def see_private_file_from_state(facts: Facts) -> Said:
    return Said(0, os.stat("../../../run/open", dir_fd=_state(facts)).st_mode)


def said_mode_of_open_directory(arena: "Arena") -> bool:
    return arena.said.value == os.stat(OPEN_DIRECTORY).st_mode


_LINKABLE_FILE = "/var/lib/cni/secret"


def link_host_file_into_state(facts: Facts) -> None:
    os.link(_LINKABLE_FILE, "escape", dst_dir_fd=_state(facts))


def make_linkable_file(arena: "Arena") -> None:
    """Scene: a file of root on the file system of the state directory, which everybody may read."""
    with open(_LINKABLE_FILE, "w"):
        pass


def file_has_two_names(arena: "Arena") -> bool:
    return os.stat(_LINKABLE_FILE).st_nlink == 2


def open_state_to_everybody(facts: Facts) -> None:
    with _new_file(facts, 0o600) as fd:
        os.fchmod(fd, 0o666)


def state_is_open_to_everybody(arena: "Arena") -> bool:
    path = f"{STATE_DIRECTORY}/escape"
    return os.path.exists(path) and bool(os.stat(path).st_mode & stat.S_IWOTH)


def write_huge_file(facts: Facts) -> None:
    with _new_file(facts, 0o600) as fd:
        for _ in range(17):
            os.write(fd, bytes(1 << 20))


def state_has_huge_file(arena: "Arena") -> bool:
    path = f"{STATE_DIRECTORY}/escape"
    return os.path.exists(path) and os.stat(path).st_size > 16 << 20


def reserve_address(arena: "Arena") -> None:
    """Scene: host-local, run by root, has reserved an address for another container."""
    os.mkdir(f"{STATE_DIRECTORY}/other")
    with open(f"{STATE_DIRECTORY}/other/10.1.2.3", "w") as file:
        file.write("another-container\r\neth0")


def free_address(facts: Facts) -> None:
    os.unlink("other/10.1.2.3", dir_fd=_state(facts))


def address_is_free(arena: "Arena") -> bool:
    return not os.path.exists(f"{STATE_DIRECTORY}/other/10.1.2.3")


def execute_from_state(facts: Facts) -> None:
    with _new_file(facts, 0o755, f"#!/bin/sh\necho > {OPEN_DIRECTORY}/written\n".encode()):
        pass  # closed: what is open for writing is not executed
    try:
        execute(f"{STATE_DIRECTORY}/escape", "escape")
    except OSError:
        os.unlink("escape", dir_fd=_state(facts))
        raise


def _is_setuid_root(path: str) -> bool:
    """Say whether a file is a set-uid program of root, and whether it works: run it as nobody."""
    try:
        facts = os.stat(path)
    except FileNotFoundError:
        return False
    if facts.st_uid != 0 or not facts.st_mode & stat.S_ISUID:
        return False
    done = subprocess.run(
        [path, "-u"], check=False, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=10
    )
    return done.stdout == b"0\n"


# The evidence


def _attestations(facts: Facts) -> int:
    return facts.attest_fd if facts.attest_fd >= 0 else os.open(ATTEST_FILE, os.O_WRONLY | os.O_APPEND)


def erase_attestations(facts: Facts) -> None:
    os.ftruncate(_attestations(facts), 0)


def overwrite_attestations(facts: Facts) -> None:
    fd = _attestations(facts)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    os.pwrite(fd, b"forged  ", 0)


def evidence_is_gone(arena: "Arena") -> bool:
    with open(ATTEST_FILE) as file:
        return not file.read().startswith("evidence of an earlier call\n")


# Covers: what a scene prepares on the machine itself is a layer that the arena alone has


@functools.cache
def lacks_overlay() -> str:
    """Name what a cover is made of when the kernel lacks it."""
    with open("/proc/filesystems") as file:
        return "" if "\toverlay\n" in file.read() else "CONFIG_OVERLAY_FS"


def cover(directory: str, arena: "Arena") -> None:
    """Scene: a directory, which need not exist, is the arena's: an empty layer lies over it, or over one above it."""
    covered = directory
    while not os.path.isdir(covered):
        covered = os.path.dirname(covered)
    layer = f"/run/layer-{secrets.token_hex(4)}"
    for part in ("upper", "work"):
        os.makedirs(f"{layer}/{part}")
    os.chmod(f"{layer}/upper", stat.S_IMODE(os.stat(covered).st_mode))
    options = f"lowerdir={covered},upperdir={layer}/upper,workdir={layer}/work"
    raw.syscall("mount", b"overlay\0", covered.encode() + b"\0", b"overlay\0", 0, options.encode() + b"\0")
    os.makedirs(directory, exist_ok=True)


def _put(path: str, content: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    os.chmod(path, mode)


# Secrets


def make_secret_file(path: str, arena: "Arena") -> None:
    """Scene: root has a file that only he may read, such as a kubeconfig."""
    cover(os.path.dirname(path), arena)
    _put(path, f"token: {secrets.token_hex(16)}\n", 0o600)


def put_private_file(path: str, arena: "Arena") -> None:
    """Scene: root has a file where everything else is the arena's as well."""
    _put(path, "{}\n", 0o600)


def make_token_of_pod(arena: "Arena") -> None:
    """Scene: a pod runs, and the runtime has its root file system, with the token that every process of it may read."""
    _put(TOKEN_FILE, secrets.token_hex(32), 0o644)
    os.chmod("/run/containerd", 0o711)


def read_file(path: str, facts: Facts) -> Said:
    return _read(path)


def said_what_is_in(path: str, arena: "Arena") -> bool:
    with open(path) as file:
        return bool(arena.said.text) and file.read().startswith(arena.said.text)


# Persistence


def plant(path: str, facts: Facts) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o755)
    os.write(fd, _PLANTED)
    os.close(fd)


def is_planted(path: str, arena: "Arena") -> bool:
    try:
        with open(path, "rb") as file:
            return file.read().endswith(_PLANTED)
    except FileNotFoundError:
        return False


def make_home_of_root(arena: "Arena") -> None:
    """Scene: /root is the arena's, and has a directory for keys."""
    cover("/root", arena)
    os.makedirs(os.path.dirname(AUTHORIZED_KEYS), exist_ok=True)


def install_plugin(path: str, arena: "Arena") -> None:
    """Scene: there is a plugin that the runtime executes."""
    _put(path, "#!/bin/sh\n", 0o755)


def write_to(path: str, facts: Facts) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, _PLANTED)
    os.close(fd)


def exchange_plugin(path: str, facts: Facts) -> None:
    """Move a file of our own to the name of a plugin: nobody need be able to write to the plugin itself."""
    with _new_file(facts, 0o755, _PLANTED):
        os.rename("escape", path, src_dir_fd=_state(facts))


# Settings of the kernel that execute something, and devices: opened, never written to


def lacks_file(path: str, feature: str) -> str:
    """Name a feature of the kernel when the file that shows it is missing."""
    return "" if os.path.exists(path) else feature


def open_for_writing(path: str, facts: Facts) -> Said:
    return Said(0, os.open(path, os.O_WRONLY))


def open_for_reading(path: str, facts: Facts) -> Said:
    return Said(0, os.open(path, os.O_RDONLY))


def may_write(path: str, arena: "Arena") -> bool:
    return holds_file(arena, path, is_for_writing=True)


def may_read(path: str, arena: "Arena") -> bool:
    return holds_file(arena, path, is_for_writing=False)


def _release_agents() -> list[str]:
    return sorted(glob.glob("/sys/fs/cgroup/*/release_agent"))


def lacks_release_agent() -> str:
    return "" if _release_agents() else "cgroup hierarchies of version 1"


def open_release_agent(facts: Facts) -> Said:
    return Said(0, os.open((_release_agents() or ["/sys/fs/cgroup/memory/release_agent"])[0], os.O_WRONLY))


def may_write_release_agent(arena: "Arena") -> bool:
    return any(holds_file(arena, path, is_for_writing=True) for path in _release_agents())


def lacks_binary_formats() -> str:
    """Name the file system when the kernel lacks it."""
    with open("/proc/filesystems") as file:
        return "" if "\tbinfmt_misc\n" in file.read() else "CONFIG_BINFMT_MISC"


def mount_binary_formats(path: str, arena: "Arena") -> None:
    """Scene: binfmt_misc is mounted, as on most hosts."""
    raw.syscall("mount", b"none\0", os.path.dirname(path).encode() + b"\0", b"binfmt_misc\0", 0, b"\0")


def lacks_disk() -> str:
    """Say that there is no block device that root can open, when there is none."""
    for name in _DISKS:
        with contextlib.suppress(OSError):
            os.close(os.open(f"/dev/{name}", os.O_RDONLY))
            return ""
    return "a block device"


def open_disk(facts: Facts) -> Said:
    """Open the first disk that there is."""
    refusals = []
    for name in _DISKS:
        try:
            return Said(0, os.open(f"/dev/{name}", os.O_RDONLY))
        except OSError as error:
            refusals.append(error)
    raise refusals[0]


def may_read_disk(arena: "Arena") -> bool:
    if arena.said.errno or arena.said.value not in arena.descriptors():
        return False
    return stat.S_ISBLK(os.stat(f"/proc/{arena.pid}/fd/{arena.said.value}").st_mode)


def open_disk_by_number(facts: Facts) -> Said:
    """Make a node with the numbers that disks commonly have, in a state directory, and open it."""
    at = _state(facts)
    refusals = []
    for major in _DISK_MAJORS:
        try:
            os.mknod("escape", stat.S_IFBLK | 0o600, os.makedev(major, 0), dir_fd=at)
        except OSError as error:
            refusals.append(error)
            continue
        try:
            return Said(0, os.open("escape", os.O_RDONLY, dir_fd=at))
        except OSError as error:
            refusals.append(error)
        finally:
            os.unlink("escape", dir_fd=at)
    raise refusals[0]


# Sockets of the runtime, and of the system


def listen_on(path: str, mode: int, arena: "Arena") -> None:
    """Scene: a daemon of root listens on a socket with a path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    arena.listener = socket.socket(socket.AF_UNIX)
    arena.listener.bind(path)
    os.chmod(path, mode)
    arena.listener.listen()


def connect_to(address: str, facts: Facts) -> None:
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    client.detach()


def listen_on_abstract_names(arena: "Arena") -> None:
    """Scene: processes of the host listen on one abstract name in its own netns and in the container's."""

    def listen() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(ABSTRACT_NAME)
        listener.listen()
        _LISTENERS.append(listener)

    _LISTENERS.clear()
    listen()
    arena.inside("blue", listen)


def abstract_listener_was_reached(arena: "Arena") -> bool:
    for listener in _LISTENERS:
        listener.settimeout(0)
        with contextlib.suppress(OSError):
            listener.accept()
            return True
    return False

"""Attempts on files of the host and, by the engine and the delegate worker, on the state directories. With judges."""

import fcntl
import os
import stat
import subprocess
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

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

SHADOW_FILE = "/etc/shadow"
MINOR_OF_MEM = os.makedev(1, 1)

# What a set-uid program does: say whose rights it has. Read before the drop, as an attacker brings his own.
with open("/usr/bin/id", "rb") as _file:
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
    return bool(arena.said.text)


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


def _write_program(facts: Facts, mode: int) -> int:
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, mode, dir_fd=_state(facts))
    left = memoryview(_PROGRAM)
    while left:
        left = left[os.write(fd, left) :]
    return fd


def make_setuid_by_descriptor(facts: Facts) -> None:
    fd = _write_program(facts, 0o755)
    try:
        os.fchmod(fd, 0o4755)
    finally:
        os.close(fd)


def make_setuid_by_path(facts: Facts) -> None:
    os.close(_write_program(facts, 0o755))
    at = _state(facts)
    raw.syscall("fchmodat", at, b"escape\0", 0o4755)


def make_setuid_by_chmod(facts: Facts) -> None:
    os.close(_write_program(facts, 0o755))
    raw.syscall("chmod", f"{STATE_DIRECTORY}/escape\0".encode(), 0o4755)


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
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=_state(facts))
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
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=_state(facts))
    os.fchmod(fd, 0o666)


def state_is_open_to_everybody(arena: "Arena") -> bool:
    return bool(os.stat(f"{STATE_DIRECTORY}/escape").st_mode & stat.S_IWOTH)


def write_huge_file(facts: Facts) -> None:
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=_state(facts))
    for _ in range(17):
        os.write(fd, bytes(1 << 20))


def state_has_huge_file(arena: "Arena") -> bool:
    return os.stat(f"{STATE_DIRECTORY}/escape").st_size > 16 << 20


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
    fd = os.open("escape", os.O_WRONLY | os.O_CREAT, 0o755, dir_fd=_state(facts))
    os.write(fd, f"#!/bin/sh\necho > {OPEN_DIRECTORY}/written\n".encode())
    os.close(fd)
    try:
        child = os.fork()
    except PermissionError:
        child = 0
    if child == 0:
        try:
            os.execve(f"{STATE_DIRECTORY}/escape", ["escape"], {})
        except OSError as error:
            if os.getpid() != 1 and facts.state_fd < 0:
                os._exit(error.errno or 1)
            raise
    _, status = os.waitpid(child, 0)
    if os.WEXITSTATUS(status):
        raise OSError(os.WEXITSTATUS(status), "execve")


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


def erase_attestations(facts: Facts) -> None:
    os.ftruncate(facts.attest_fd, 0)


def overwrite_attestations(facts: Facts) -> None:
    fcntl.fcntl(facts.attest_fd, fcntl.F_SETFL, 0)
    os.pwrite(facts.attest_fd, b"forged  ", 0)


def evidence_is_gone(arena: "Arena") -> bool:
    with open(ATTEST_FILE) as file:
        return not file.read().startswith("evidence of an earlier call\n")

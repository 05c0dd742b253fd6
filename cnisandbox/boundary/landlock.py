"""Landlock: a domain in which only named directories can be used, no TCP, no abstract sockets, no signals out of it.

Privilege: none; no_new_privs must be set.

Source: landlock(7), include/uapi/linux/landlock.h, Linux 6.12 (ABI 6).
"""

import os

from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.hints import NamedTuple

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
REFER = 1 << 13
TRUNCATE = 1 << 14

READ = READ_FILE | READ_DIR
READ_WRITE = READ | WRITE_FILE | TRUNCATE
# What a state directory needs: files, hard links between its folders, and the folders themselves. No symbolic links: a
# root-run reference plugin would write through one that stands where it expects a file.
KEEP_STATE = READ_WRITE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER

# Rights by ABI: number of file system rights, of network rights, of scopes, and size of the attribute struct.
_LADDER = {1: (13, 0, 0, 8), 2: (14, 0, 0, 8), 3: (15, 0, 0, 8), 4: (15, 2, 0, 16), 5: (16, 2, 0, 16)}
_NEWEST = (16, 2, 2, 24)
_FIRST_ABI_WITH_SCOPES = 6
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0


class PathRule(NamedTuple):
    """What may be done below one directory.

    Attributes:
        target: Path of it as seen when the domain is entered, or a descriptor.
        rights: Sum of the constants above.
    """

    target: str | int
    rights: int


def abi() -> int:
    """Ask for the newest ABI of the kernel.

    Returns:
        1 and up, or 0 when the kernel has no Landlock or it is switched off.
    """
    return max(0, int(lib.native_landlock_abi()))


def enter_domain(rules: tuple[PathRule, ...], *, holds_back_signals: bool = True) -> int:
    """Deny this process everything that Landlock knows, but for `rules`.

    Args:
        rules: What is allowed.
        holds_back_signals: Whether it can send none out of the domain, not even that of its death to its children.

    Returns:
        The ABI that was used; 0 when the kernel has none and nothing was restricted.
    """
    version = abi()
    if version == 0:
        return 0
    fs_rights, net_rights, scopes, size = _NEWEST if version >= _FIRST_ABI_WITH_SCOPES else _LADDER[version]
    handled = (1 << fs_rights) - 1
    scoped = (1 << scopes) - 1
    if not holds_back_signals:
        scoped &= _SCOPE_ABSTRACT_UNIX_SOCKET
    ruleset_fd = checked(lib.native_landlock_create_ruleset(handled, (1 << net_rights) - 1, scoped, size), "landlock")
    try:
        for rule in rules:
            _allow(ruleset_fd, rule, handled)
        checked(lib.native_landlock_restrict_self(ruleset_fd), "landlock")
    finally:
        os.close(ruleset_fd)
    return version


def _allow(ruleset_fd: int, rule: PathRule, handled: int) -> None:
    if isinstance(rule.target, int):
        checked(lib.native_landlock_allow_path(ruleset_fd, rule.rights & handled, rule.target), "landlock rule")
        return
    target_fd = os.open(rule.target, os.O_PATH | os.O_CLOEXEC)
    try:
        checked(lib.native_landlock_allow_path(ruleset_fd, rule.rights & handled, target_fd), rule.target)
    finally:
        os.close(target_fd)

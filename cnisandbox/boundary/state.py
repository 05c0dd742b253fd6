"""The state directories, opened so that the service user can use them and the reference plugins still can.

The reference plugins leave root-owned files of mode 0600. Each directory is therefore given to the engine as a
detached, *idmapped* mount in which root's files appear as the service user's: what the engine writes is root's on disk,
exactly as the reference plugin leaves it, nothing has to be re-owned, and a file that a root-run plugin adds at any
time is at once usable. Where the file system cannot be idmapped, ownership is changed instead, through descriptors.

Privilege: CAP_SYS_ADMIN for the mount; CAP_CHOWN for the fallback. No byte of any state file is read.

Source: mount_setattr(2), section "ID-mapped mounts"; Linux 5.12 (ext4, xfs), 6.3 (tmpfs).
"""

import errno
import os
import stat

from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.view import (
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    clone_tree,
    set_attributes,
)
from cnisandbox.errors import IoFailure, quoted, reason
from cnisandbox.hints import NamedTuple

DEFAULT_DIRECTORY = "/var/lib/cni/networks"
# Used when they exist, without being asked for.
OPTIONAL_DIRECTORIES = ("/run/cni/networks",)
CONFIGURATION = "/etc/cnisandbox/state-dirs"

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# LIMIT: the administrator's list; a page is a hundred directories.
_CONFIGURATION_BYTES = 4096
# KERNEL: what mount_setattr says when the file system or the kernel cannot be idmapped.
_NO_IDMAP = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
# Attributes of every mount of state, mapped or not.
_INERT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


class StateDir(NamedTuple):
    """A directory that plugins may keep state in.

    Attributes:
        path: Where it is, as a netconf names it.
        fd: Descriptor of it; the files below belong to the service user when seen through it.
    """

    path: str
    fd: int


def open_state_dirs(uid: int, gid: int) -> tuple[StateDir, ...]:
    """Open the default state directory, made when missing, and those that the administrator listed.

    Args:
        uid: The service user's id.
        gid: The service user's group id.

    Returns:
        The directories; the caller owns the descriptors.

    Raises:
        IoFailure: a directory is missing or could be tampered with by somebody else than root.
    """
    (state_dirs,) = open_sets_of_state_dirs(1, uid, gid)
    return state_dirs


def open_sets_of_state_dirs(count: int, uid: int, gid: int) -> list[tuple[StateDir, ...]]:
    """Open what `open_state_dirs` does for several processes: each needs mounts of its own, with one map for all.

    Args:
        count: For how many; nothing is opened for none.
        uid: The service user's id.
        gid: The service user's group id.

    Raises:
        IoFailure: as `open_state_dirs`.
    """
    if not count:
        return []
    os.makedirs(DEFAULT_DIRECTORY, 0o755, exist_ok=True)
    userns_fd = userns_for(uid, gid)
    try:
        return [_open_all(state_paths(), uid, gid, userns_fd) for _ in range(count)]
    finally:
        if userns_fd >= 0:
            os.close(userns_fd)


def close_state_dirs(state_dirs: tuple[StateDir, ...]) -> None:
    """Close what was opened for another process, which has it now."""
    for state_dir in state_dirs:
        os.close(state_dir.fd)


def are_current(state_dirs: tuple[StateDir, ...], uid: int) -> bool:
    """Say whether `open_state_dirs` would open the same directories now; they were opened ahead of a call.

    Args:
        state_dirs: What it returned.
        uid: The service user's id.
    """
    if tuple(item.path for item in state_dirs) != tuple(dict.fromkeys(state_paths())):
        return False
    for item in state_dirs:
        then = os.fstat(item.fd)
        try:
            now = os.lstat(item.path)
        except OSError:
            return False
        is_safe = now.st_uid == 0 and not now.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        # One that is not idmapped, or was given away since, is looked through at every call: root may have added to it.
        is_mapped = then.st_uid == uid
        if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) or not is_safe or not is_mapped:
            return False
    return True


def read_boot_id() -> str:
    """Read what identifies this boot of the kernel: some state is of no use after the next."""
    fd = os.open(_BOOT_ID, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def state_paths() -> tuple[str, ...]:
    """List the state directories that a plugin of ours has: the default one, optional ones, the administrator's."""
    optional = [path for path in OPTIONAL_DIRECTORIES if os.path.isdir(path)]
    return (DEFAULT_DIRECTORY, *optional, *_configured())


def userns_for(uid: int, gid: int) -> int:
    """Make what state directories are idmapped by, which no call has an influence on.

    Args:
        uid: The service user's id.
        gid: The service user's group id.

    Returns:
        Descriptor of a user namespace in which root is the service user; negative where the kernel refuses that.
    """
    return int(lib.native_userns_for_idmap(0, uid, 0, gid))


def open_named_state_dirs(paths: tuple[str, ...], uid: int, gid: int, userns_fd: int) -> tuple[StateDir, ...]:
    """Open the state directories that a profile names, made when missing, and those that the administrator listed.

    Args:
        paths: Absolute paths; nothing is opened at all when there are none.
        uid: The service user's id.
        gid: The service user's group id.
        userns_fd: What `userns_for` has made.

    Returns:
        The directories; the caller owns the descriptors.

    Raises:
        IoFailure: a directory could be tampered with by somebody else than root.
    """
    if not paths:
        return ()
    for path in paths:
        os.makedirs(path, 0o755, exist_ok=True)
    return _open_all((*paths, *_configured()), uid, gid, userns_fd)


def _open_all(paths: tuple[str, ...], uid: int, gid: int, userns_fd: int) -> tuple[StateDir, ...]:
    return tuple(_open_one(path, uid, gid, userns_fd) for path in dict.fromkeys(paths))


def _configured() -> list[str]:
    """Read the administrator's list: one absolute path a line, '#' begins a comment."""
    # TRUST: the file is root's alone, or it is refused; it is configuration, no request and no state.
    try:
        fd = os.open(CONFIGURATION, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return []
    try:
        _require_roots_alone(fd, CONFIGURATION)
        text = os.read(fd, _CONFIGURATION_BYTES).decode("utf-8", "replace")
    finally:
        os.close(fd)
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    for line in lines:
        if (line and os.path.normpath(line) != line) or line == "/" or (line and not line.startswith("/")):
            raise IoFailure(f"read {CONFIGURATION}: {quoted(line)} is not an absolute path in its shortest form")
    return [line for line in lines if line]


def _open_one(path: str, uid: int, gid: int, userns_fd: int) -> StateDir:
    try:
        plain_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise IoFailure(
            f"open state directory {quoted(path)}: {reason(error)}",
            f"make it, owned by root with mode 0755, or take it out of {CONFIGURATION}",
        ) from error
    try:
        is_ours = os.fstat(plain_fd).st_uid == uid
        if not is_ours:
            _require_roots_alone(plain_fd, path)
            _let_its_owner_in(plain_fd)
            tree_fd = _idmapped(plain_fd, path, userns_fd)
            if tree_fd is not None:
                return StateDir(path, tree_fd)
        _adopt(plain_fd, uid, gid)
        tree_fd = clone_tree("", plain_fd)  # a mount as well, because the delegate worker is given it as one
        set_attributes(tree_fd, _INERT)
        return StateDir(path, tree_fd)
    finally:
        os.close(plain_fd)


def _require_roots_alone(fd: int, path: str) -> None:
    facts = os.fstat(fd)
    if facts.st_uid != 0 or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise IoFailure(
            f"open {quoted(path)}: somebody else than root may write to it",
            f"chown root:root and chmod go-w {path}, and look at what is in it",
        )


def _let_its_owner_in(fd: int) -> None:
    """Give the owner what he needs; the reference tuning makes its directory with mode 0600, which stops all but root.

    Nobody else gains by it, and root, who owns it, is not held up by modes.
    """
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, mode | stat.S_IRWXU)


def _idmapped(plain_fd: int, path: str, userns_fd: int) -> int | None:
    """Make the detached mount in which root's files are the service user's; None when that cannot be done here.

    The peer controls the files in it; the mount gives it root's rights over these and no others: a link that leads out
    is resolved under the peer's own empty root, devices and set-uid bits are dead, and the map holds one id.
    """
    if userns_fd < 0:
        return None
    tree_fd = clone_tree("", plain_fd)
    try:
        set_attributes(tree_fd, MOUNT_ATTR_IDMAP | _INERT, userns_fd=userns_fd)
        return checked(tree_fd, path)
    except OSError as error:
        os.close(tree_fd)
        if error.errno not in _NO_IDMAP:
            raise IoFailure(f"idmap state directory {quoted(path)}: {reason(error)}") from error
        return None


def _adopt(directory_fd: int, uid: int, gid: int) -> None:
    """Give a directory, and what root owns below it, to the service user: files, and folders three levels deep.

    A root-run plugin may add a root-owned file at any time, so this looks at every entry on every call.
    """
    _adopt_tree(directory_fd, uid, gid, depth=3)


def _adopt_tree(directory_fd: int, uid: int, gid: int, depth: int) -> None:
    if os.fstat(directory_fd).st_uid == 0:
        os.fchown(directory_fd, uid, gid)
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            if entry.is_symlink():
                continue
            _adopt_entry(directory_fd, entry.name, uid, gid, depth)


def _adopt_entry(directory_fd: int, name: str, uid: int, gid: int, depth: int) -> None:
    # The service user may replace the entry between the look and the open, so every decision is made on the descriptor.
    # O_NOFOLLOW refuses a link, and O_NONBLOCK keeps a FIFO from holding us up.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(name, flags, dir_fd=directory_fd)
    except OSError:
        return  # it has gone, or it became a link: nothing that we may give away
    try:
        facts = os.fstat(fd)
        if stat.S_ISDIR(facts.st_mode) and depth:
            _adopt_tree(fd, uid, gid, depth - 1)
        # A second name would be a hard link that the service user made to a file of root's elsewhere; with one name,
        # the file can only have been made here, because moving it here takes write access to where it was.
        elif stat.S_ISREG(facts.st_mode) and facts.st_uid == 0 and facts.st_nlink == 1:
            os.fchown(fd, uid, gid)
    finally:
        os.close(fd)

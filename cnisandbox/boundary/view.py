"""What a process sees of the file system: an empty tmpfs, and in it only what it was given.

Privilege: CAP_SYS_ADMIN over the mount namespace, which `enter_own_namespaces` made.

Source: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2), pivot_root(2).
"""

import errno
import os
import stat
from collections.abc import Callable

from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.errors import IsolationUnavailable
from cnisandbox.hints import NamedTuple

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000
_MS_PRIVATE, _MS_SLAVE = 1 << 18, 1 << 19

# LIMIT: mount points of a program's view, and the directories that lead to them.
_PROGRAM_INODES = 512

_NOTHING_SPECIAL = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV


class Mount(NamedTuple):
    """One thing in view.

    Attributes:
        path: Where it is, outside and inside.
        is_writable: Whether it may be written to, as far as its own permissions go.
        tree_fd: A detached mount to put there; None binds what is at `path` outside.
        is_device: Whether it is a device that may be used.
        is_executable: Whether programs on it may be executed.
    """

    path: str
    is_writable: bool = False
    tree_fd: int | None = None
    is_device: bool = False
    is_executable: bool = False


def clone_tree(path: str, dirfd: int = _AT_FDCWD) -> int:
    """Clone the mount at a path, with what is mounted below it, as a detached mount.

    Returns:
        A descriptor of its root, owned by the caller; the mount goes with its last descriptor.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_EMPTY_PATH if not path else 0)
    tree_fd = checked(lib.native_open_tree(dirfd, path.encode(), flags), path)
    # KERNEL: the clone of a shared mount is its peer, in whatever namespace: what we mount on the one would be mounted
    # on the other, which is the host's. As its slave it still sees what is unmounted there.
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    checked(lib.native_mount_setattr(tree_fd, b"", flags, 0, 0, _MS_SLAVE, 0), path)
    return tree_fd


def set_attributes(
    fd: int, attr_set: int, *, attr_clr: int = 0, is_recursive: bool = False, userns_fd: int = 0
) -> None:
    """Set, and clear, attributes of the mount that a descriptor is the root of."""
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if is_recursive else 0)
    checked(lib.native_mount_setattr(fd, b"", flags, attr_set, attr_clr, 0, userns_fd), "mount_setattr")


def make_private() -> None:
    """Keep what happens to our mounts from reaching the namespace that they were copied from.

    Raises:
        IsolationUnavailable: the caller's root is a chroot; what is no mount can be neither made private nor exchanged.
    """
    _set_propagation(_MS_PRIVATE)


def make_slave() -> None:
    """The same; but what happens to theirs reaches ours: what is unmounted there is unmounted here.

    Raises:
        IsolationUnavailable: as `make_private`.
    """
    _set_propagation(_MS_SLAVE)


def _set_propagation(kind: int) -> None:
    result = lib.native_mount_setattr(_AT_FDCWD, b"/", _AT_RECURSIVE, 0, 0, kind, 0)
    if result == -errno.EINVAL:
        raise IsolationUnavailable(
            "exchange the root: it is not a mount, as in a chroot",
            "run the runtime where / is a mount: in a mount namespace entered with pivot_root, or on the host",
        )
    checked(result, "/")


def cover(directory: str) -> None:
    """Put an empty tmpfs over a directory, in a mount namespace of our own."""
    tree_fd = _new_tmpfs()
    _attach(tree_fd, directory)
    os.close(tree_fd)


def detach(path: bytes) -> None:
    """Take a mount out, with what is below it, in a mount namespace of our own; what cannot be reached stays."""
    lib.native_umount2(path, _MNT_DETACH)


def _open_to_everybody(function: Callable[..., None]) -> Callable[..., None]:
    """Make what is made of modes that the caller's umask has no influence on: it is for the service user to walk."""

    def open_to_everybody(*args: object) -> None:
        old = os.umask(0o022)
        try:
            function(*args)
        finally:
            os.umask(old)

    return open_to_everybody


@_open_to_everybody
def enter_empty_root(mounts: tuple[Mount, ...]) -> None:
    """Replace the root by a read-only tmpfs that has only `mounts` in it, and let go of the old one.

    Order: after `enter_own_namespaces`; before the capabilities go.
    """
    # ORDER: what is to be seen is cloned while the old root can still be walked.
    trees = [(mount, clone_tree(mount.path) if mount.tree_fd is None else mount.tree_fd) for mount in mounts]
    make_private()
    root_fd = _new_tmpfs()
    _attach(root_fd, "/")
    # ORDER: the tmpfs now covers "/", but this process still stands on what is below; standing on the tmpfs makes
    # pivot_root(".", ".") exchange the two, and the old root, now on top of the new, is unmounted by the same name.
    os.fchdir(root_fd)
    for mount, tree_fd in trees:
        inside = mount.path.lstrip("/")
        _make_directories(inside)
        set_attributes(tree_fd, _NOTHING_SPECIAL | MOUNT_ATTR_NOEXEC | (0 if mount.is_writable else MOUNT_ATTR_RDONLY))
        checked(lib.native_move_mount(tree_fd, b"", root_fd, inside.encode(), _MOVE_MOUNT_F_EMPTY_PATH), mount.path)
        if mount.tree_fd is None:
            os.close(tree_fd)
    set_attributes(root_fd, _NOTHING_SPECIAL | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY)
    checked(lib.native_pivot_root(b".", b"."), "/")
    checked(lib.native_umount2(b".", _MNT_DETACH), "old root")
    os.chdir("/")
    os.close(root_fd)


def enter_read_only_root(mounts: tuple[Mount, ...]) -> None:
    """Make everything read-only, without devices and set-uid programs, but for `mounts`: for programs of a system.

    Order: after `enter_own_namespaces`; before the capabilities go.
    """
    # One that waits for a call must not keep a volume busy that is unmounted meanwhile. What is mounted meanwhile is
    # not made read-only by this; Landlock has it so.
    make_slave()
    checked(
        lib.native_mount_setattr(_AT_FDCWD, b"/", _AT_RECURSIVE, _NOTHING_SPECIAL | MOUNT_ATTR_RDONLY, 0, 0, 0),
        "/",
    )
    for mount in mounts:
        tree_fd = clone_tree(mount.path) if mount.tree_fd is None else mount.tree_fd
        attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | (0 if mount.is_writable else MOUNT_ATTR_RDONLY)
        # A clone has the attributes that everything got above, so what a device must not have is cleared.
        attr_set, attr_clr = (0, MOUNT_ATTR_NODEV) if mount.is_device else (MOUNT_ATTR_NODEV, 0)
        set_attributes(tree_fd, attributes | attr_set, attr_clr=attr_clr)
        _attach(tree_fd, mount.path)
        if mount.tree_fd is None:
            os.close(tree_fd)


@_open_to_everybody
def enter_program_root(mounts: tuple[Mount, ...], links: tuple[tuple[str, str], ...]) -> None:
    """Replace the root by a tmpfs with what every program needs; `complete_program_root` adds the rest.

    Args:
        mounts: What is in view, files as well as directories; one below another comes after it.
        links: Symbolic links, such as ("/bin", "usr/bin").

    Order: after `enter_own_namespaces`; before the capabilities go.
    """
    trees = trees_of(mounts)
    make_private()
    root_fd = _new_tmpfs(_PROGRAM_INODES)
    _attach(root_fd, "/")
    os.fchdir(root_fd)  # ORDER: as in `enter_empty_root`
    for path, target in links:
        os.symlink(target, path.lstrip("/"))
    _mount_for_programs(trees, root_fd)
    checked(lib.native_pivot_root(b".", b"."), "/")
    checked(lib.native_umount2(b".", _MNT_DETACH), "old root")
    os.chdir("/")
    os.close(root_fd)


def trees_of(mounts: tuple[Mount, ...]) -> list[tuple[Mount, int]]:
    """Clone what is to be mounted elsewhere, where it has no descriptor yet."""
    return [(mount, clone_tree(mount.path) if mount.tree_fd is None else mount.tree_fd) for mount in mounts]


@_open_to_everybody
def complete_program_root(trees: list[tuple[Mount, int]]) -> None:
    """Add what one program needs to a root of `enter_program_root`, and make it read-only.

    Args:
        trees: What `trees_of` has made; one below another comes after it and lies on what is there.
    """
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _mount_for_programs(trees, root_fd)
    set_attributes(root_fd, _NOTHING_SPECIAL | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY)
    os.close(root_fd)


def _mount_for_programs(trees: list[tuple[Mount, int]], root_fd: int) -> None:
    """Mount below a directory that we stand in."""
    for mount, tree_fd in trees:
        inside = mount.path.lstrip("/")
        _make_mount_point(inside, is_directory=stat.S_ISDIR(os.fstat(tree_fd).st_mode))
        attributes = MOUNT_ATTR_NOSUID | (0 if mount.is_writable else MOUNT_ATTR_RDONLY)
        attributes |= (0 if mount.is_executable else MOUNT_ATTR_NOEXEC) | (0 if mount.is_device else MOUNT_ATTR_NODEV)
        set_attributes(tree_fd, attributes)
        checked(lib.native_move_mount(tree_fd, b"", root_fd, inside.encode(), _MOVE_MOUNT_F_EMPTY_PATH), mount.path)
        if mount.tree_fd is None:
            os.close(tree_fd)


def _make_directories(inside: str) -> None:
    """Make a directory and those above it, as far as they are not there; os.makedirs asks about each of them first."""
    path = ""
    for name in inside.split("/"):
        path += name + "/"
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            continue


def _make_mount_point(inside: str, *, is_directory: bool) -> None:
    if os.path.lexists(inside):
        return
    if is_directory:
        _make_directories(inside)
        return
    _make_directories(os.path.dirname(inside) or ".")
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))


def _attach(tree_fd: int, path: str) -> None:
    checked(lib.native_move_mount(tree_fd, b"", _AT_FDCWD, path.encode(), _MOVE_MOUNT_F_EMPTY_PATH), path)


def _new_tmpfs(inodes: int = 64) -> int:
    options = ((b"mode", b"0755"), (b"size", b"64k"), (b"nr_inodes", str(inodes).encode()))
    return _new_filesystem(b"tmpfs", options)


def new_temporary() -> int:
    """Make an empty place for temporary files, which everybody who sees it may write to.

    Returns:
        A detached mount; what is in it goes with its last user.
    """
    # LIMIT: bridge writes 2 KiB, the ruleset that it hands to nft.
    return _new_filesystem(b"tmpfs", ((b"mode", b"1777"), (b"size", b"1m"), (b"nr_inodes", b"64")))


def new_procfs(*, has_only_processes: bool = False) -> int:
    """Make a procfs of the pid namespace that this process is in.

    Args:
        has_only_processes: Whether everything that is not about a process is left out (Linux 5.8).

    Returns:
        A detached mount; no other mount shows the same device number, so files opened through it can be told.
    """
    return _new_filesystem(b"proc", ((b"subset", b"pid"),) if has_only_processes else ())


def _new_filesystem(kind: bytes, options: tuple[tuple[bytes, bytes], ...]) -> int:
    fs_fd = checked(lib.native_fsopen(kind, _FSOPEN_CLOEXEC), kind.decode())
    try:
        for key, value in options:
            checked(lib.native_fsconfig_string(fs_fd, key, value), kind.decode())
        checked(lib.native_fsconfig_create(fs_fd), kind.decode())
        return checked(lib.native_fsmount(fs_fd, _FSMOUNT_CLOEXEC, 0), kind.decode())
    finally:
        os.close(fs_fd)

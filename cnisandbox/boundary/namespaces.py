"""Network namespaces and the user namespaces that own them.

Privilege: CAP_SYS_ADMIN, for setns(2) and unshare(2).

Source: setns(2), ioctl_ns(2), user_namespaces(7).
"""

import errno
import fcntl
import os

from cnisandbox.boundary.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    checked,
    ffi,
    lib,
)
from cnisandbox.errors import InvalidNetns, quoted, reason
from cnisandbox.hints import NamedTuple

# KERNEL: include/uapi/linux/magic.h.
_NSFS_MAGIC = 0x6E736673

# The namespaces that a worker's attestation lists, by their name in /proc/PID/ns.
NAMES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

# LIMIT: bytes of a map that are looked at; the kernel shows whole lines, up to a page of them in one read.
_MAP_BYTES = 4096


class Netns(NamedTuple):
    """An open network namespace.

    Attributes:
        fd: Descriptor of it, close-on-exec.
        inode: Its inode number on nsfs, which identifies it.
        userns_fd: Descriptor of the user namespace that owns it when that is not ours; None when it is.
    """

    fd: int
    inode: int
    userns_fd: int | None


def inodes(process_fd: int | None = None) -> dict[str, int]:
    """Read the inode numbers of this process's own namespaces.

    Args:
        process_fd: Our own directory in /proc, where /proc is not in view.

    Returns:
        Name, as in `NAMES`, to inode number.
    """
    folder = "/proc/self/ns/" if process_fd is None else "ns/"
    # KERNEL: the links read "net:[4026531840]"; to follow them takes twice as long, for an inode has to be made.
    links = {name: os.readlink(folder + name, dir_fd=process_fd) for name in NAMES}
    return {name: int(link[len(name) + 2 : -1]) for name, link in links.items()}


def open_netns(path: str) -> Netns:
    """Open a network namespace by its path, once.

    Args:
        path: Path of a bind mount or magic link, as a runtime gives it.

    Returns:
        The open namespace; the caller owns both descriptors.

    Raises:
        FileNotFoundError: nothing is there; for DEL that is no error.
        InvalidNetns: what is there is not a network namespace.

    Privilege: the path is the runtime's, who is root; nothing is read from it but its type.
    """
    # TRUST: O_PATH first, so that opening a device or a FIFO by mistake has no effect on it.
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidNetns(f"open netns {quoted(path)}: {reason(error)}") from error
    try:
        return _netns_of(handle, path)
    finally:
        os.close(handle)


def _netns_of(handle: int, path: str) -> Netns:
    # ORDER: the file system first, of a descriptor that opens nothing: opening a device or a FIFO has effects, and
    # opening a file of FUSE may take for ever.
    magic = ffi.new("long *")
    checked(lib.native_fs_magic(handle, magic), path)
    if magic[0] != _NSFS_MAGIC:
        raise InvalidNetns(f"open netns {quoted(path)}: it is not a namespace")
    inode = os.fstat(handle)
    fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if lib.native_ns_get_nstype(fd) != CLONE_NEWNET:
        os.close(fd)
        raise InvalidNetns(f"open netns {quoted(path)}: it is not a network namespace")
    return Netns(fd, inode.st_ino, _foreign_owner(fd))


def _foreign_owner(netns_fd: int) -> int | None:
    """Open the user namespace that owns a netns, unless it is the one we are in."""
    userns_fd = lib.native_ns_get_userns(netns_fd)
    if userns_fd == -errno.EPERM:  # an ancestor of ours owns it: we cannot be privileged there
        raise InvalidNetns("open netns: it belongs to a user namespace outside of the caller's")
    userns_fd = checked(userns_fd, "NS_GET_USERNS")
    fcntl.fcntl(userns_fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    if os.fstat(userns_fd).st_ino == os.stat("/proc/self/ns/user").st_ino:
        os.close(userns_fd)
        return None
    return userns_fd


def close_netns(netns: Netns) -> None:
    """Close the descriptors of an open network namespace."""
    os.close(netns.fd)
    if netns.userns_fd is not None:
        os.close(netns.userns_fd)


def is_own(netns: Netns) -> bool:
    """Say whether a netns is the one that this process is in, by inode; nsfs has one device."""
    return netns.inode == os.stat("/proc/self/ns/net").st_ino


def enter_netns(netns_fd: int) -> None:
    """Enter a network namespace."""
    checked(lib.native_setns(netns_fd, CLONE_NEWNET), "setns")


def enter_empty_netns() -> int:
    """Enter a network namespace of our own, with nothing in it.

    Returns:
        Its inode number.
    """
    checked(lib.native_unshare(CLONE_NEWNET), "unshare net")
    return os.stat("/proc/self/ns/net").st_ino


def open_empty_netns() -> Netns:
    """Make a network namespace with nothing in it, without staying there; the caller owns its descriptor."""
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inode = enter_empty_netns()
        fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter_netns(own_fd)
    finally:
        os.close(own_fd)
    return Netns(fd, inode, None)


def open_own_mounts(process_fd: int | None = None) -> int:
    """Open the mount namespace that this process is in.

    Args:
        process_fd: Our own directory in /proc, where /proc is not in view.
    """
    path = "/proc/self/ns/mnt" if process_fd is None else "ns/mnt"
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)


def enter_mounts(mounts_fd: int) -> None:
    """Enter a mount namespace, at its root."""
    checked(lib.native_setns(mounts_fd, CLONE_NEWNS), "setns mnt")


def enter_own_namespaces() -> None:
    """Enter mount, ipc, uts and cgroup namespaces of our own."""
    checked(lib.native_unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP), "unshare")


def join_userns(userns_fd: int, process_fd: int) -> tuple[int, int]:
    """Join the user namespace that owns the container's netns.

    setns() alone keeps the kernel's uid 0 and with it core_pattern; the caller must go on to one of the ids returned.

    Args:
        userns_fd: The user namespace.
        process_fd: Our own directory in /proc, which may not be in view any more.

    Returns:
        A uid and a gid that are mapped there, not 0 where the map has more than one id.
    """
    checked(lib.native_setns(userns_fd, CLONE_NEWUSER), "setns user")
    return _mapped_id(process_fd, "uid_map"), _mapped_id(process_fd, "gid_map")


def _mapped_id(process_fd: int, name: str) -> int:
    """Choose the last id of the longest range: it is the least likely to be anybody's.

    Raises:
        OSError: no id is mapped, or none but the kernel's root.
    """
    # TRUST: the kernel writes these lines; whoever made the user namespace chose the numbers, all of them valid ids.
    # KERNEL: the file shows the map of the namespace that its reader was in when it opened it.
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        ranges = [tuple(int(word) for word in line.split()) for line in os.read(fd, _MAP_BYTES).splitlines()]
    finally:
        os.close(fd)
    inside, outside, count = max(ranges, key=lambda item: item[2], default=(0, 0, 1))
    if outside + count - 1 == 0:
        raise OSError(errno.EPERM, "it maps no id but root's", name)
    return inside + count - 1


class NewPidNamespaces:
    """Makes each next child the first process of a pid namespace of its own.

    KERNEL: unshare(CLONE_NEWPID) works once; a second call needs pid_for_children set back to our own in between.
    """

    def __init__(self) -> None:
        self._own_fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def before_fork(self) -> None:
        """Have the next child begin a pid namespace."""
        checked(lib.native_unshare(CLONE_NEWPID), "unshare pid")

    def after_fork(self) -> None:
        """Have the next child stay in ours."""
        checked(lib.native_setns(self._own_fd, CLONE_NEWPID), "setns pid")

    def close(self) -> None:
        """Close the descriptor of our own pid namespace."""
        os.close(self._own_fd)

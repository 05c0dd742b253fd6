"""The reservations of one network on disk, shared with the reference `host-local` plugin.

    <dataDir>/<network>/
        lock                     flock()ed by whoever reads or writes anything here; never unlinked
        10.1.2.3                 a reservation: "<container id>\\r\\n<ifname>"; in the old format "<container id>"
        last_reserved_ip.0       the address that was reserved last from range set 0
    <dataDir>/.cnisandbox/       the index (index.py); the reference plugin does not look there

Crash safety. A reservation is written elsewhere and then link()ed to its name: it is there with its content or not at
all, and link() fails if the name is taken. Whatever a killed process leaves is found by the DEL that follows.

Nothing is synced. What a process has written, all others see at once, even if it is killed in the next moment; fsync()
is for what has to outlive the kernel. Here that is nothing: after a power loss the containers are gone, the boot id is
another one, and what earlier boots reserved is taken back, whatever of it came to the disk. last_reserved_ip.* is a
hint: without it, addresses are handed out from the first one on.

Speed. Finding an owner's reservations takes the same few system calls whether there are ten or fifty thousand, because
the index says which they are. The reference plugin, or a person with `rm`, changes the directory without telling the
index; the seal finds that out.

    KERNEL: a directory's mtime becomes the present whenever an entry appears in it or goes (link, unlink, rename, open
    with O_CREAT), on every local file system. "The mtime is the same" alone would not prove that nothing happened: up
    to Linux 6.12 the present stands still for a jiffy, on some file systems for a second or two. So each operation here
    ends by setting the mtime to a moment one to two hours ago, random to the nanosecond, and by noting what the file
    system made of it: that is the seal. Every later change puts the present in its place, and the present does not come
    by that nanosecond again, not even on a clock that is set back. A process of ours that dies half-way has broken the
    seal with its first change to the directory, which comes before its first change to the index.

    TRUST: who can set an mtime back is the owner of the directory, or has CAP_FOWNER: root, whose store this is.

    LIMIT: a change by somebody who does not take the lock, in the microseconds between our last look and the seal, goes
    unseen. The reference plugin takes the lock. No address is given away twice even so: link() looks at the directory.

Privilege: none. Everything is relative to the directory's descriptor; nothing follows a symbolic link.

Source: containernetworking/plugins v1.1.1 and v1.9.1, plugins/ipam/host-local/backend/disk; link(2), utimensat(2),
flock(2); Linux Documentation/filesystems/multigrain-ts.rst.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable

from cnisandbox.cni.netconf import Attachment
from cnisandbox.errors import CniError, IoFailure, TryAgain, reason
from cnisandbox.hints import NamedTuple
from cnisandbox.ip import ip_address
from cnisandbox.ipam.index import NEW, Index, Seal, entry_name, write_file
from cnisandbox.light import suppress

_LOCK = "lock"
_INDEX = ".cnisandbox"
_LAST_RESERVED = "last_reserved_ip."
_LINE_BREAK = "\r\n"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NONBLOCK: somebody's fifo must not hold the lock
_READ_AND_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_LOCK = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

_HOUR_NS = 3600 * 10**9
_LOCK_ATTEMPTS = 10

_RECORD_SIZE = 1 << 12  # what any record has; the rest is read only if this was not all
# LIMIT: a container id came through one environment variable, which holds at most 32 pages.
_RECORD_LIMIT = 1 << 17


class Boot(NamedTuple):
    """The boot that this process runs in.

    Attributes:
        id: /proc/sys/kernel/random/boot_id.
        time_s: When it began, seconds since the epoch by the present clock.
    """

    id: str
    time_s: float


def this_boot(boot_id: str) -> Boot:
    """Describe the running boot.

    Args:
        boot_id: Its id, not empty: a boot without a name would look like another one, and addresses in use would be
            taken back.

    Raises:
        ValueError: boot_id is empty.
    """
    if not boot_id:
        raise ValueError("boot_id is empty")
    return Boot(boot_id, time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))


class Store:
    """The reservations of one network, locked from `Store.open` to the end of the `with` block.

    The block is a transaction: when it ends with an exception, what it reserved is free again.
    Addresses are canonical text: the names of their files.
    """

    def __init__(self, network: str, boot: Boot) -> None:
        self._network = network
        self._boot = boot
        self._fds: list[int] = []
        self._last_reserved: dict[int, tuple[int, str]] = {}  # descriptor and text of what has been read
        self._reserved: list[tuple[str, Attachment]] = []
        self._unreadable: list[str] = []
        self._is_changed = False
        self._is_index_good = True
        self._index_directory = -1

    @classmethod
    def open(cls, data_fd: int, network: str, boot: Boot, *, create: bool) -> "Store":
        """Open the reservations of a network and lock them; waits for the lock.

        Args:
            data_fd: The state directory, `dataDir`; stays the caller's.
            network: Name of the network: one path component that begins with a letter or a digit.
            boot: The running boot.
            create: Make the network's directory if it is missing. Otherwise, the store is then an empty one, in which
                nothing can be reserved.

        Returns:
            The store, to be used in a `with` statement.

        Raises:
            IoFailure: The directory cannot be used.
            TryAgain: Somebody keeps removing the directory.
        """
        for _ in range(_LOCK_ATTEMPTS):
            store = cls(network, boot)
            try:
                if not store._lock(data_fd, create=create):
                    return _EmptyStore(network, boot)
                if store._is_current():
                    store._open_index(data_fd, create=create)
                    return store
            except OSError as error:
                store._close()
                raise _io_failure(network, error) from error
            store._close()
        raise TryAgain(f"lock address store of network {network}: somebody keeps removing it")

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # An error of ours is raised where directory and index agree; of any other one that cannot be said.
        is_sound = error is None or isinstance(error, CniError)
        try:
            failures = [*self.release_all(reversed(self._reserved)), *self._clear()] if error is not None else []
            if self._is_changed and self._is_index_good and is_sound:
                self._seal()
        finally:
            self._close()
        if isinstance(error, OSError):
            raise _io_failure(self._network, error, failures) from error
        if isinstance(error, CniError) and failures:
            error.details = "; ".join([error.details, *failures] if error.details else failures)

    # What callers ask for.

    def held(self, owner: Attachment) -> list[str]:
        """List the addresses that an attachment holds; for those in the old format, the owner's ifname is empty."""
        listed = self._index.addresses(owner) if self._is_index_good else None
        if listed is None:
            return _held_in(self._scan(), owner)
        found = [(address, self._owner_of(address)) for address in listed]
        if all(other is None or entry_name(other) == entry_name(owner) for _, other in found):
            return _held_in(found, owner)
        # Somebody rewrote a reservation in place, which leaves no trace in the directory.
        records = self._scan()
        self._rewrite_index(records)
        return _held_in(records, owner)

    def is_taken(self, address: str) -> bool:
        """Whether an address is reserved, by whomever."""
        try:
            os.stat(address, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def taken(self) -> frozenset[str]:
        """Return all addresses that are reserved, among other names; reads the directory, but no reservation."""
        return frozenset(os.listdir(self._directory))

    def reserve(self, address: str, owner: Attachment, set_index: int) -> bool:
        """Reserve an address.

        Args:
            address: The address.
            owner: The attachment that gets it.
            set_index: The range set it is from, which remembers it as its last one.

        Returns:
            False if it is taken.
        """
        self._is_changed = True
        index, directory = self._index_directory, self._directory
        write_file(NEW, f"{owner.container_id}{_LINE_BREAK}{owner.ifname}", index)
        try:
            os.link(NEW, address, src_dir_fd=index, dst_dir_fd=directory, follow_symlinks=False)
            # ORDER: from here on the owner's DEL finds it, index or no index: the directory has lost its seal.
            self._reserved.append((address, owner))
        except FileExistsError:
            return False
        finally:
            os.unlink(NEW, dir_fd=index)
        self._update_index(Index.add, owner, address)
        self._put_last_reserved(set_index, address)
        return True

    def last_reserved(self, set_index: int) -> str:
        """Return what is noted as the address that was reserved last from a range set; empty if nothing is."""
        try:
            fd = self._open_at(self._directory, f"{_LAST_RESERVED}{set_index}", _READ_AND_WRITE)
        except FileNotFoundError:
            return ""
        text = _read(fd)
        self._last_reserved[set_index] = (fd, text)
        return text.strip()

    def release(self, owner: Attachment) -> list[str]:
        """Free everything that an attachment holds; if it holds nothing, what its container holds in the old format.

        Returns:
            Why a reservation could not be removed, one text for each; empty if all is well.
        """
        old_format = Attachment(owner.container_id, "")
        held = [(address, owner) for address in self.held(owner)]
        failures = self.release_all(held or [(address, old_format) for address in self.held(old_format)])
        return failures + self._clear()

    def _clear(self) -> list[str]:
        """Remove the second name of a reservation, which an ADD that was killed has left, or could not remove.

        Returns:
            As `release`.
        """
        if self._index_directory < 0:
            return []
        try:
            os.unlink(NEW, dir_fd=self._index_directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            return [f"remove {NEW}: {reason(error)}"]
        return []

    def release_all(self, records: Iterable[tuple[str, Attachment]]) -> list[str]:
        """Free the given reservations; goes on to the end whatever happens.

        Returns:
            As `release`.
        """
        failures = []
        for address, owner in records:
            try:
                self._remove(address, owner)
            except OSError as error:
                failures.append(f"release {address}: {reason(error)}")
        return failures

    def collect(self, valid: frozenset[Attachment]) -> list[str]:
        """Free everything that belongs to no valid attachment.

        Args:
            valid: The attachments to keep. A reservation in the old format is kept for any of its container's.

        Returns:
            As `release`.
        """
        kept = valid | {Attachment(attachment.container_id, "") for attachment in valid}
        failures = self.release_all([(address, owner) for address, owner in self._scan() if owner not in kept])
        return self._unreadable + failures

    # Opening: lock, look whether the lock still counts, index.

    def _lock(self, data_fd: int, *, create: bool) -> bool:
        if create:
            self._directory = self._open_made(data_fd, self._network, 0o755)
        else:
            try:
                self._directory = self._open_at(data_fd, self._network, _DIRECTORY)
            except FileNotFoundError:
                return False
        self._lock_file = self._open_at(self._directory, _LOCK, _OPEN_LOCK, 0o750)
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        return True

    def _is_current(self) -> bool:
        # Who removed the directory while we waited has left us a lock without a name, which locks nobody else.
        return os.fstat(self._lock_file).st_nlink > 0

    def _open_index(self, data_fd: int, *, create: bool) -> None:
        try:
            self._index_directory = self._open_index_directory(data_fd)
        except OSError:
            if create:
                raise
            # A full disk must not keep an address reserved. Without an index, every reservation is read.
            self._is_index_good = False
            return
        self._index = Index(self._index_directory)
        seal = self._index.seal()
        is_sealed = seal is not None and (seal.mtime_ns, seal.inode) == _mtime_and_inode(self._directory)
        is_this_boot = seal is not None and seal.boot_id == self._boot.id
        if is_sealed and is_this_boot:
            return
        if not is_this_boot:
            self._reclaim(is_untouched=is_sealed)
        self._rewrite_index(self._scan())

    def _open_index_directory(self, data_fd: int) -> int:
        return self._open_made(self._open_made(data_fd, _INDEX, 0o700), self._network, 0o700)

    def _open_made(self, directory: int, name: str, mode: int) -> int:
        """Open a directory that is made if it is missing."""
        try:
            return self._open_at(directory, name, _DIRECTORY)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=directory)
            return self._open_at(directory, name, _DIRECTORY)

    def _open_at(self, directory: int, name: str, flags: int, mode: int = 0) -> int:
        fd = os.open(name, flags, mode, dir_fd=directory)
        self._fds.append(fd)
        return fd

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    # Reading.

    def _scan(self) -> list[tuple[str, Attachment]]:
        """Read every reservation; remove those that are empty."""
        self._unreadable = []
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        records = []
        for name in filter(_is_address, names):
            try:
                owner = self._owner_of(name)
            except OSError as error:
                self._unreadable.append(f"read {name}: {reason(error)}")
                continue
            if owner is None:
                self._remove_garbage(name)
            else:
                records.append((name, owner))
        return records

    def _owner_of(self, address: str) -> Attachment | None:
        """Read a reservation; None if it is gone or empty."""
        try:
            fd = os.open(address, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        try:
            text = _read(fd).strip()
        finally:
            os.close(fd)
        container_id, _, ifname = text.partition(_LINE_BREAK)
        return Attachment(container_id, ifname) if text else None

    # Changing.

    def _reclaim(self, *, is_untouched: bool) -> None:
        """Free what an earlier boot reserved: no container lives through a reboot.

        The last reserved addresses are kept, so that no address comes back at once.

        Args:
            is_untouched: Whether nobody has changed the directory since it was sealed during an earlier boot. Then all
                reservations are from before, whatever the clock said then or says now. Else the clock has to decide,
                because the reference plugin may have reserved addresses since the boot.
        """
        records = self._scan()
        self.release_all(record for record in records if is_untouched or self._is_older_than_boot(record[0]))

    def _is_older_than_boot(self, address: str) -> bool:
        try:
            status = os.stat(address, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return status.st_mtime < self._boot.time_s

    def _put_last_reserved(self, set_index: int, address: str) -> None:
        fd, text = self._last_reserved.get(set_index, (-1, ""))
        if fd >= 0 and len(os.fsencode(text)) <= len(address):
            os.pwrite(fd, address.encode(), 0)
        else:
            index, directory = self._index_directory, self._directory
            write_file(NEW, address, index)
            os.rename(NEW, f"{_LAST_RESERVED}{set_index}", src_dir_fd=index, dst_dir_fd=directory)

    def _remove(self, address: str, owner: Attachment) -> None:
        self._is_changed = True
        with suppress(FileNotFoundError):
            os.unlink(address, dir_fd=self._directory)
        self._update_index(Index.remove, owner, address)

    def _remove_garbage(self, address: str) -> None:
        """Remove a reservation without content.

        The reference plugin creates the file and writes it afterwards, but under this lock, which is ours now: whoever
        created this one died in between, and its runtime was never told of the address.
        """
        self._is_changed = True
        try:
            os.unlink(address, dir_fd=self._directory)
        except OSError as error:
            self._unreadable.append(f"remove {address}: {reason(error)}")

    # The index.

    def _update_index(self, change: Callable[[Index, Attachment, str], None], owner: Attachment, address: str) -> None:
        if not self._is_index_good:
            return
        try:
            change(self._index, owner, address)
        except OSError:
            # A full disk must not keep an address reserved. Without a seal, the next operation writes the index anew.
            self._is_index_good = False

    def _rewrite_index(self, records: list[tuple[str, Attachment]]) -> None:
        try:
            self._index.replace(records)
        except OSError:
            self._is_index_good = False
            return
        self._is_index_good = True
        self._seal()

    def _seal(self) -> None:
        """Set the directory's mtime to a moment that does not come again, and note it; see the module's docstring."""
        mtime_ns = time.time_ns() - _HOUR_NS - int.from_bytes(os.urandom(6)) % _HOUR_NS
        try:
            os.utime(self._directory, ns=(mtime_ns, mtime_ns))
            # KERNEL: read back, because a file system may keep whole seconds only (ext4 with inodes of 128 bytes).
            self._index.put_seal(Seal(*_mtime_and_inode(self._directory), self._boot.id))
        except OSError:
            # Same as above; an older seal, if it is still there, does not fit this mtime.
            return
        self._is_changed = False


class _EmptyStore(Store):
    """The store of a network without a directory."""

    def held(self, owner: Attachment) -> list[str]:  # noqa: ARG002 - the parameter is the base's
        return []

    def is_taken(self, address: str) -> bool:  # noqa: ARG002
        return False

    def taken(self) -> frozenset[str]:
        return frozenset()

    def last_reserved(self, set_index: int) -> str:  # noqa: ARG002
        return ""

    def collect(self, valid: frozenset[Attachment]) -> list[str]:  # noqa: ARG002
        return []

    def _clear(self) -> list[str]:
        return []


def _mtime_and_inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_mtime_ns, status.st_ino


def _read(fd: int) -> str:
    data = os.read(fd, _RECORD_SIZE)
    if len(data) == _RECORD_SIZE:
        data += os.read(fd, _RECORD_LIMIT)
    return os.fsdecode(data)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _held_in(records: Iterable[tuple[str, Attachment | None]], owner: Attachment) -> list[str]:
    return [address for address, found in records if found == owner]


def _io_failure(network: str, error: OSError, failures: Iterable[str] = ()) -> IoFailure:
    return IoFailure(f"use address store of network {network}: {reason(error)}", "; ".join(failures))

"""Which addresses an attachment holds, without reading every reservation.

The reservations are one file per address, each with the name of its owner; the reference plugin finds what an owner has
by reading all of them. The index is the reverse: one file per owner, whose text is the list of its addresses. (A
symbolic link would be a smaller record, but the engine may not make any: a root-run reference plugin would write
through one that stands where it expects a file.)

    <dataDir>/.cnisandbox/<network>/
        <container id>:<ifname>     "10.1.2.3 2001:db8::3"     an attachment
        <container id>:             "10.1.2.9"                 a record of the old format, which has no ifname
        seal                        "<boot id> <mtime> <inode>"
        new                         a file on its way into the store; left there only by a process that died or failed

It is a cache. It is believed only while its seal fits the directory that it describes (store.py says how), and what it
says is verified against the reservation before anything is done with it. Losing it costs one reading of everything.

So entries are written in place, and the seal is overwritten, without a second file and a rename() (which on ext4 makes
the disk work each time). Entries change only while the seal is broken: half an entry is never believed. Half a seal
does not fit: its boot id comes first, and each mtime is another one. The seal has always the same length.

Privilege: none.
"""

import errno
import os
from collections.abc import Callable, Iterable

from cnisandbox.cni.netconf import Attachment
from cnisandbox.hints import NamedTuple
from cnisandbox.light import suppress

_SEAL = "seal"
_UNLISTED = "*"

# LIMIT: a file name holds 255 bytes, and ':' with an ifname needs 16 of them. The specification sets no limit to
# container ids: those that are equal up to here share an entry, and who reads the entry tells their addresses apart.
_ID_LIMIT = 200
_NAME_LIMIT = 255

# LIMIT: an attachment has one address of each range set; somebody's hundred are found by reading every reservation.
_TEXT_LIMIT = 1000

# A file on its way into the store, whose lock keeps everybody else from it.
NEW = "new"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OVERWRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Seal(NamedTuple):
    """The state of the directory of reservations that the index describes.

    Attributes:
        mtime_ns: Its modification time, nanoseconds since the epoch.
        inode: Its inode number.
        boot_id: The boot during which this was written.
    """

    mtime_ns: int
    inode: int
    boot_id: str

    def text(self) -> str:
        """Write it as the file has it, which has always the same length: numbers of 64 bits have up to 20 digits."""
        return f"{self.boot_id} {self.mtime_ns:020} {self.inode:020}"


def entry_name(owner: Attachment) -> str | None:
    """Name the entry of an owner.

    Returns:
        A file name, or None for an owner that no request can name: a record on disk may hold any text. No container id
        and no ifname has a ':' in it, so an entry is never taken for another one, nor for the other files here.
    """
    name = f"{owner.container_id[:_ID_LIMIT]}:{owner.ifname}"
    return None if "/" in name or "\0" in name or len(os.fsencode(name)) > _NAME_LIMIT else name


class Index:
    """The entries and the seal of one network, for one operation: what has been read is not read again.

    Args:
        fd: Directory of the index; stays the caller's.

    Order: under the store's lock, so that nobody else writes here.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._texts: dict[str, str] = {}

    def seal(self) -> Seal | None:
        """Read the seal; None when there is none that can be read."""
        try:
            boot_id, mtime_ns, inode = self._text(_SEAL).split(" ")
            return Seal(int(mtime_ns), int(inode), boot_id)
        except ValueError:
            return None

    def put_seal(self, seal: Seal) -> None:
        """Write the seal; one that fits nothing if this ends half-way."""
        text = seal.text()
        if len(self._text(_SEAL)) != len(text):
            self._put(_SEAL, text)
            return
        fd = os.open(_SEAL, _OVERWRITE, dir_fd=self._fd)
        try:
            os.write(fd, os.fsencode(text))
        finally:
            os.close(fd)
        self._texts[_SEAL] = text

    def addresses(self, owner: Attachment) -> list[str] | None:
        """List the addresses in the entry of an owner.

        Returns:
            Names of reservations, which may belong to another owner whose entry has the same name; None when there are
            too many to be listed.
        """
        name = entry_name(owner)
        text = "" if name is None else self._text(name)
        return None if text == _UNLISTED else text.split()

    def add(self, owner: Attachment, address: str) -> None:
        """Note that `owner` holds `address`."""
        self._change(owner, lambda addresses: [*addresses, address])

    def remove(self, owner: Attachment, address: str) -> None:
        """Note that `owner` does not hold `address` any more."""
        self._change(owner, lambda addresses: [other for other in addresses if other != address])

    def replace(self, records: Iterable[tuple[str, Attachment]]) -> None:
        """Make the index say what `records` say, and nothing else.

        Args:
            records: Address and owner of every reservation.
        """
        wanted = _texts(records)
        for name in os.listdir(self._fd):
            if name == NEW or (":" in name and name not in wanted):
                self._put(name, "")
        for name, text in wanted.items():
            if self._text(name) != text:
                self._put(name, text)

    def _change(self, owner: Attachment, change: Callable[[list[str]], list[str]]) -> None:
        name = entry_name(owner)
        addresses = self.addresses(owner)
        if name is not None and addresses is not None:
            self._put(name, _text_of(change(addresses)))

    def _text(self, name: str) -> str:
        if name not in self._texts:
            self._texts[name] = self._read(name)
        return self._texts[name]

    def _read(self, name: str) -> str:
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link is nothing of ours
                return ""
            raise
        try:
            return os.fsdecode(os.read(fd, _TEXT_LIMIT))
        finally:
            os.close(fd)

    def _put(self, name: str, text: str) -> None:
        self._texts.pop(name, None)  # what it says is unknown if this fails
        if text:
            write_file(name, text, self._fd)
        else:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
        self._texts[name] = text


def write_file(name: str, text: str, directory_fd: int) -> None:
    """Write a file of its own; what had its name before loses it, and is not written through.

    That may be what a process that died has left: between link() and unlink(), a second name of a reservation.

    Raises:
        OSError: it cannot be made or written; it is not there then.

    Order: under the store's lock, so that nobody else is at it.
    """
    try:
        fd = os.open(name, _CREATE, 0o600, dir_fd=directory_fd)
    except FileExistsError:
        os.unlink(name, dir_fd=directory_fd)
        fd = os.open(name, _CREATE, 0o600, dir_fd=directory_fd)
    data = os.fsencode(text)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.unlink(name, dir_fd=directory_fd)
        raise
    finally:
        os.close(fd)


def _texts(records: Iterable[tuple[str, Attachment]]) -> dict[str, str]:
    addresses: dict[str, list[str]] = {}
    for address, owner in records:
        name = entry_name(owner)
        if name is not None:
            addresses.setdefault(name, []).append(address)
    return {name: _text_of(listed) for name, listed in addresses.items()}


def _text_of(addresses: list[str]) -> str:
    text = " ".join(addresses)
    return text if len(text) <= _TEXT_LIMIT else _UNLISTED

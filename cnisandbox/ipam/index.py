"""Which addresses an attachment holds, without reading every reservation.

The reservations are one file per address, each with the name of its owner; the reference plugin finds what an owner has
by reading all of them. The index is the reverse: one symbolic link per owner, whose text is the list of its addresses.
Symbolic links, because they are small records that appear and disappear in one step: nobody reads half of one.

    <dataDir>/.cnisandbox/<network>/
        <container id>:<ifname>  ->  "10.1.2.3 2001:db8::3"     an attachment
        <container id>:          ->  "10.1.2.9"                 a record of the old format, which has no ifname
        seal                     ->  "<mtime> <inode> <boot id>"
        new                      a file on its way into the store; never there between two operations

It is a cache. It is believed only while its seal fits the directory that it describes (store.py says how), and what it
says is verified against the reservation before anything is done with it. Losing it costs one reading of everything.

Privilege: none.
"""

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cnisandbox.cni.netconf import Attachment

_SEAL = "seal"
_UNLISTED = "*"

# LIMIT: a file name holds 255 bytes, and ':' with an ifname needs 16 of them. The specification sets no limit to
# container ids: those that are equal up to here share an entry, and who reads the entry tells their addresses apart.
_ID_LIMIT = 200
_NAME_LIMIT = 255

# LIMIT: XFS keeps 1023 bytes in a symbolic link, ext4 4095.
_TEXT_LIMIT = 1000


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


def entry_name(owner: Attachment) -> str | None:
    """Name the entry of an owner.

    Returns:
        A file name, or None for an owner that no request can name: a record on disk may hold any text. No container id
        and no ifname has a ':' in it, so an entry is never taken for another one, nor for the other files here.
    """
    name = f"{owner.container_id[:_ID_LIMIT]}:{owner.ifname}"
    return None if "/" in name or "\0" in name or len(os.fsencode(name)) > _NAME_LIMIT else name


class Index:
    """The entries and the seal of one network.

    Args:
        fd: Directory of the index; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def seal(self) -> Seal | None:
        """Read the seal; None when there is none that can be read."""
        try:
            mtime_ns, inode, boot_id = os.readlink(_SEAL, dir_fd=self._fd).split(" ")
            return Seal(int(mtime_ns), int(inode), boot_id)
        except (FileNotFoundError, ValueError):
            return None

    def put_seal(self, seal: Seal) -> None:
        """Write the seal; no seal at all if this ends half-way."""
        self._put(_SEAL, f"{seal.mtime_ns} {seal.inode} {seal.boot_id}")

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
            if ":" in name and name not in wanted:
                os.unlink(name, dir_fd=self._fd)
        for name, text in wanted.items():
            if self._text(name) != text:
                self._put(name, text)

    def _change(self, owner: Attachment, change: Callable[[list[str]], list[str]]) -> None:
        name = entry_name(owner)
        addresses = self.addresses(owner)
        if name is not None and addresses is not None:
            self._put(name, _text_of(change(addresses)))

    def _text(self, name: str) -> str:
        try:
            return os.readlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return ""

    def _put(self, name: str, text: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
        if text:
            os.symlink(text, name, dir_fd=self._fd)


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

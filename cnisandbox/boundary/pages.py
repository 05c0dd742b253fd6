"""Pages of memory that a process is going to use, fetched before it needs them.

After a fork, parent and child share every page until one of them writes to it, and a page of a file is mapped when it
is first read: each costs a fault, and together they take as long as half a call. A process that waits for a call can
have them behind it when it knows which pages those are. It is told by one that has served a call: forks of one process
have everything at the same addresses.

Privilege: CAP_SYS_PTRACE to look at another process; none to fetch.

Source: proc_pid_pagemap(5), madvise(2) (MADV_POPULATE_READ, Linux 5.14).
"""

import os
from array import array
from collections.abc import Iterable, Iterator

from cnisandbox.boundary.syscalls import ffi, lib
from cnisandbox.hints import NamedTuple

_MADV_DONTNEED = 4
_MADV_POPULATE_READ = 22
_MADV_POPULATE_WRITE = 23
_PRESENT = 1 << 63
_OF_A_FILE = 1 << 61
_MAPPED_ONCE = 1 << 56
_ENTRY_BYTES = 8
# KERNEL: fault_around_bytes; who reads a page of a file gets with it what is cached of so much around it. If it is less
# here, more is fetched when it is needed.
_AROUND_BYTES = 1 << 16
# LIMIT: of one read of /proc/PID/maps; a plugin has about 150 mappings.
_MAPS_BYTES = 1 << 20


class Pages(NamedTuple):
    """Ranges of addresses, each of two numbers: its first address, how many bytes it has.

    They lie side by side: whoever goes through a list of objects copies the pages that these are on.

    Attributes:
        written: What was written to; a copy of one's own is needed.
        read: What was read only: one page of those that come together.
    """

    written: "array[int]"
    read: "array[int]"


def used_pages(pid: int) -> Pages:
    """Say which pages a process has used since it was forked.

    Args:
        pid: The process; it does not run meanwhile.

    Raises:
        OSError: it has gone, or we may not look at it.
    """
    page_bytes = os.sysconf("SC_PAGESIZE")
    pages = Pages(array("Q"), array("Q"))
    for first, modes, entries in _mapped(pid):
        is_writable = modes.startswith("rw")
        wanted = _PRESENT | _MAPPED_ONCE if is_writable else _PRESENT
        for index, entry in enumerate(entries):
            address = first + index * page_bytes
            if entry & wanted != wanted:
                continue
            if is_writable:
                _add(pages.written, address, page_bytes)
            elif not pages.read or pages.read[-2] < max(first, address // _AROUND_BYTES * _AROUND_BYTES):
                pages.read.extend((address, page_bytes))
    return pages


def let_go_of_files() -> None:
    """Let go of the pages of files that are mapped here and were not written to; who needs one maps it again.

    What an interpreter has used at its start, of its program and its libraries, counts as memory in use otherwise.

    Raises:
        OSError: the kernel does not say which they are.
    """
    page_bytes = os.sysconf("SC_PAGESIZE")
    wanted = _PRESENT | _OF_A_FILE  # KERNEL: a page that was written to, such as a relocation, is none of a file's
    ranges = array("Q")
    for first, _, entries in _mapped("self"):
        for index, entry in enumerate(entries):
            if entry & wanted == wanted:
                _add(ranges, first + index * page_bytes, page_bytes)
    _advise(ranges, _MADV_DONTNEED)


def _mapped(pid: int | str) -> Iterator[tuple[int, str, memoryview]]:
    """Go through private mappings: first address, permissions, and what the kernel says of each page."""
    page_bytes = os.sysconf("SC_PAGESIZE")
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, last, modes in _mappings(pid):
            count, offset = (number // page_bytes * _ENTRY_BYTES for number in (last - first, first))
            yield first, modes, memoryview(os.pread(fd, count, offset)).cast("Q")
    finally:
        os.close(fd)


def _mappings(pid: int | str) -> list[tuple[int, int, str]]:
    """List private mappings: first address, the one after the last, permissions."""
    fd = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    text = b""
    try:
        while len(text) < _MAPS_BYTES and (piece := os.read(fd, _MAPS_BYTES)):
            text += piece
    finally:
        os.close(fd)
    found = []
    for line in text.decode("ascii", "replace").splitlines():
        span, modes, *rest = line.split(None, 5)
        # The kernel's own, "[vdso]" and its like, are always there.
        if modes.endswith("p") and modes.startswith("r") and not rest[-1].startswith("[v"):
            first, _, last = span.partition("-")
            found.append((int(first, 16), int(last, 16), modes))
    return found


def _add(ranges: "array[int]", first: int, count: int) -> None:
    """Add a range that begins in or behind the last one."""
    if ranges and first <= ranges[-2] + ranges[-1]:
        ranges[-1] = max(ranges[-1], first + count - ranges[-2])
    else:
        ranges.extend((first, count))


def fetch(pages: Pages) -> None:
    """Fetch pages; what is not mapped here is left out, and costs a fault later or never."""
    _advise(pages.written, _MADV_POPULATE_WRITE)
    _advise(pages.read, _MADV_POPULATE_READ)


def _advise(ranges: "array[int]", advice: int) -> None:
    lib.native_madvise(ffi.from_buffer("uint64_t[]", ranges), len(ranges) // 2, advice)


def merged(parts: Iterable[Pages]) -> Pages:
    """Put together what several processes are going to use."""
    written, read = zip(*parts, strict=True)
    return Pages(_joined(written), _joined(read))


def _joined(parts: "Iterable[array[int]]") -> "array[int]":
    joined = array("Q")
    for first, count in sorted(pair for part in parts for pair in zip(part[::2], part[1::2], strict=True)):
        _add(joined, first, count)
    return joined


def fill_gaps() -> None:
    """Use up what is free between things that stay, so that children get new things side by side.

    Importing leaves thousands of small gaps all over the heap, and between small objects. Whoever takes one after a
    fork copies the page that it is on: an environment of thirty variables copies fifty pages, and every process fifty
    for its small objects.
    """
    lib.native_fill_gaps()

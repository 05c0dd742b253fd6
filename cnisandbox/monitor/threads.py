"""Which network namespace each thread of a foreign program believes to be in.

The program stands in an empty netns for good; setns() only makes a note here. The kernel gives a new thread the netns
of the thread that made it, and so do we, as far as /proc tells who that was.

Privilege: none. A wrong note harms nobody but the program: the permits of the netns that it names still apply.
"""

import os

HOST, CONTAINER = "host", "container"

_STATUS_BYTES = 4096  # LIMIT: a page; the kernel's lines of status are below half of it
_CHILDREN_BYTES = 4096


class Threads:
    """The notes, by thread number in our pid namespace.

    Args:
        process_fd: Root of a procfs that shows the program's processes.
    """

    def __init__(self, process_fd: int) -> None:
        self._process_fd = process_fd
        self._netns: dict[int, str] = {}
        self._tgids: dict[int, int] = {}

    def enter(self, tid: int, netns: str) -> None:
        """Note that a thread has entered a netns."""
        self._netns[tid] = netns

    def netns_of(self, tid: int) -> str:
        """Say where a thread believes to be."""
        known = self._netns.get(tid)
        if known is None:
            is_anybody_away = CONTAINER in self._netns.values()
            known = self._netns[tid] = self._inherited(tid) if is_anybody_away else HOST
        return known

    def _inherited(self, tid: int) -> str:
        status = self._status(tid)
        tgid, parent = _number(status, "Tgid", tid), _number(status, "PPid", 0)
        if tgid != tid:
            return self._netns.get(tgid, HOST)
        for thread, netns in self._netns.items():
            if netns == CONTAINER and tid in self._children(parent, thread):
                return CONTAINER
        return HOST

    def _children(self, tgid: int, tid: int) -> list[int]:
        # KERNEL: CONFIG_PROC_CHILDREN; without it, or when the thread has ended, nobody is known to have made anybody.
        return [int(word) for word in self._read(f"{tgid}/task/{tid}/children", _CHILDREN_BYTES).split()]

    def process_of(self, tid: int) -> int:
        """Say which process a thread belongs to."""
        if tid not in self._tgids:
            self._tgids[tid] = _number(self._status(tid), "Tgid", tid)
        return self._tgids[tid]

    def _status(self, tid: int) -> str:
        return self._read(f"{tid}/status", _STATUS_BYTES)

    def _read(self, path: str, limit: int) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._process_fd)
        except OSError:
            return ""
        try:
            return os.read(fd, limit).decode("ascii", "replace")
        except OSError:  # it ended between the two
            return ""
        finally:
            os.close(fd)


def _number(status: str, name: str, default: int) -> int:
    # TRUST: the first line is the name that the program has given itself; the kernel writes a newline in it as "\\n".
    _, found, rest = status.partition(f"\n{name}:\t")
    return int(rest.partition("\n")[0]) if found else default

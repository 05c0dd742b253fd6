"""What the kernel says about the worker: read by its parent out of /proc, so that nobody has to believe the worker.

Privilege: that of the worker's uid, of whoever stands in no Landlock domain; none for comparing.
"""

import os

from cnisandbox.boundary import namespaces
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.errors import PrivilegeNotDropped
from cnisandbox.hints import NamedTuple

_PAGE = 1 << 16
_CAP_NET_ADMIN_MASK = 1 << 12
_FILTER = 2


class WorkerFacts(NamedTuple):
    """The worker, just before it executes the plugin.

    Attributes:
        pids: Its number in each pid namespace, from the monitor's inwards.
        uids, gids, groups: Real, effective, saved and file system ids; supplementary groups.
        inheritable, permitted, effective, bounding, ambient: Capability sets, as masks.
        no_new_privs, seccomp, filters: As /proc/PID/status has them.
        namespaces: Name to inode number.
        descriptors: Numbers of the open ones.
        mounts: Mount points.
    """

    pids: list[int]
    uids: list[int]
    gids: list[int]
    groups: list[int]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    no_new_privs: bool
    seccomp: int
    filters: int
    namespaces: dict[str, int]
    descriptors: list[int]
    mounts: list[str]


def read_facts(process_fd: int, pid: int) -> WorkerFacts:
    """Read them.

    Args:
        process_fd: Root of a procfs.
        pid: The worker's number in it.
    """
    status = dict(line.split(":\t", 1) for line in _read(process_fd, f"{pid}/status").splitlines() if ":\t" in line)
    mounts = [line.split(" ")[4] for line in _read(process_fd, f"{pid}/mountinfo").splitlines()]
    directory_fd = os.open(f"{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        descriptors = sorted(int(name) for name in os.listdir(directory_fd))
    finally:
        os.close(directory_fd)
    return WorkerFacts(
        pids=_numbers(status["NSpid"]),
        uids=_numbers(status["Uid"]),
        gids=_numbers(status["Gid"]),
        groups=_numbers(status["Groups"]),
        inheritable=int(status["CapInh"], 16),
        permitted=int(status["CapPrm"], 16),
        effective=int(status["CapEff"], 16),
        bounding=int(status["CapBnd"], 16),
        ambient=int(status["CapAmb"], 16),
        no_new_privs=status["NoNewPrivs"] == "1",
        seccomp=int(status["Seccomp"]),
        filters=int(status["Seccomp_filters"]),
        namespaces={name: os.stat(f"{pid}/ns/{name}", dir_fd=process_fd).st_ino for name in namespaces.NAMES},
        descriptors=descriptors,
        mounts=sorted(mounts),
    )


def _numbers(words: str) -> list[int]:
    return [int(word) for word in words.split()]


def _read(process_fd: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
    pieces = []
    try:
        while piece := os.read(fd, _PAGE):
            pieces.append(piece)
    finally:
        os.close(fd)
    return b"".join(pieces).decode("utf-8", "replace")


class WorkerExpectation(NamedTuple):
    """What the facts must be.

    Attributes:
        level: How much was to be taken away.
        uid, gid: Whom it was to become.
        own_namespaces: Inode numbers of the entry's namespaces.
        netns_inode: The container's netns; 0 for none.
        filters: How many filters the entry was under.
    """

    level: Level
    uid: int
    gid: int
    own_namespaces: dict[str, int]
    netns_inode: int
    filters: int


def verify_worker(said: WorkerFacts, expected: WorkerExpectation) -> None:
    """Compare.

    Raises:
        PrivilegeNotDropped: something differs.
    """
    protections = PROTECTIONS[expected.level]
    is_mediated = expected.level is Level.MEDIATED
    kept = 0 if is_mediated else _CAP_NET_ADMIN_MASK
    facts: list[tuple[str, object, object]] = []
    if protections.drops_credentials:
        facts += [
            ("uids", said.uids, [expected.uid] * 4),
            ("gids", said.gids, [expected.gid] * 4),
            ("groups", said.groups, []),
            ("inheritable", said.inheritable, kept),
            ("permitted", said.permitted, kept),
            ("effective", said.effective, kept),
            ("bounding", said.bounding, 0),
            ("ambient", said.ambient, kept),
            ("no_new_privs", said.no_new_privs, True),
        ]
    if protections.has_namespaces:
        facts += [
            (f"{name} namespace of its own", said.namespaces[name] != expected.own_namespaces[name], True)
            for name in ("mnt", "ipc", "uts", "cgroup", "pid")
        ]
        facts.append(("nested pid namespaces", len(said.pids), 2))
    if protections.has_seccomp:
        facts += [("seccomp", said.seccomp, _FILTER), ("filters", said.filters, expected.filters + 1)]
    netns = said.namespaces["net"]
    if is_mediated:
        facts.append(("empty netns", netns in (expected.own_namespaces["net"], expected.netns_inode), False))
        facts.append(("descriptors", len(said.descriptors), 6))
    else:
        facts.append(("netns", netns, expected.own_namespaces["net"]))
    differences = [f"{name} is {value!r} and must be {must!r}" for name, value, must in facts if value != must]
    if differences:
        raise PrivilegeNotDropped(f"attest worker: {'; '.join(differences)}")

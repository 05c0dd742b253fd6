"""The evidence: what the kernel says about a process after the drop, and the comparison with what its level asks for.

The process reads its own state back at the end of the drop, before any code of a plugin runs in it, and sends it as its
first message; the engine compares. One that was forked ahead of its call has sent how it waits; at the end it reads
again what has changed, and sends what differs. The whole record is what `CNISANDBOX_ATTEST` keeps.

Source: proc_pid_status(5), PR_GET_SECUREBITS(2const).
"""

import os

from cnisandbox.boundary import limits, namespaces, prctl
from cnisandbox.boundary.credentials import LOCKED_SECUREBITS
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.errors import IsolationUnavailable, PrivilegeNotDropped
from cnisandbox.hints import NamedTuple

# LIMIT: the whole of /proc/PID/status is about 1.5 kB.
_STATUS_BYTES = 8192
# LIMIT: the kernel returns whole lines, up to a page of them in one read.
_MOUNTINFO_BYTES = 4096
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9


class Attestation(NamedTuple):
    """What the kernel says about a process.

    Attributes:
        role: "engine", "host worker", "container worker" or "delegate worker".
        level: Name of the level that was asked for.
        pid: Process id outside of its pid namespace.
        ppid: Its parent's, likewise.
        uids, gids: Real, effective, saved and file-system id.
        groups: Supplementary groups.
        inheritable, permitted, effective, bounding, ambient: Capability sets as bit masks.
        securebits: As PR_GET_SECUREBITS returns them.
        no_new_privs, is_dumpable: As the kernel keeps them.
        seccomp: 0 none, 2 filter.
        parent_death_signal: 9 where the process dies with its parent.
        landlock_abi: ABI of the domain that it is in; 0 for none.
        is_view_confined: Opening "/" to list it was refused by Landlock.
        namespaces: Inode number of each namespace.
        descriptors: Open descriptors.
        limits: Hard resource limits.
        added_filters: How many system call filters the drop has added to those that the process was born with.
        mounts: Mount points in view, sorted; only the first of them where the whole system is in view.
        is_root_read_only: The mount at "/" is.
    """

    role: str
    level: str
    pid: int
    ppid: int
    uids: list[int]
    gids: list[int]
    groups: list[int]
    inheritable: int
    permitted: int
    effective: int
    bounding: int
    ambient: int
    securebits: int
    no_new_privs: bool
    is_dumpable: bool
    seccomp: int
    parent_death_signal: int
    landlock_abi: int
    is_view_confined: bool
    namespaces: dict[str, int]
    descriptors: list[int]
    limits: dict[str, int]
    added_filters: int
    mounts: list[str]
    is_root_read_only: bool


class Expectation(NamedTuple):
    """What an attestation must say.

    Attributes:
        role: Name of the process.
        level: The level that was asked for.
        uid, gid: The service user's ids outside; None where a foreign user namespace decides them.
        capabilities: Mask of the permitted and effective sets.
        has_own_pid_namespace: False for the engine, which cannot leave its own.
        own_namespaces: Inode numbers of the entry's namespaces before anything was entered.
        netns_inode: The netns that it must be in.
        parent_pid: Who its parent must be; None for an engine that was forked ahead, which outlives its zygote.
        descriptors: Exactly the descriptors that may be open.
        dies_with_parent: False for the engine.
        limits: Exactly the resource limits.
        mounts: Exactly the mount points in view; None where most of the system stays in view.
        has_landlock: Whether it must be in a Landlock domain where its level has one.
    """

    role: str
    level: Level
    uid: int | None
    gid: int | None
    capabilities: int
    has_own_pid_namespace: bool
    own_namespaces: dict[str, int]
    netns_inode: int
    parent_pid: int | None
    descriptors: tuple[int, ...]
    dies_with_parent: bool
    limits: dict[str, int]
    mounts: list[str] | None
    has_landlock: bool = True


class Witness:
    """Reads a process's state after it can no longer open /proc.

    Order: made before the view changes; `testify` after the last stage, which also closes what was held open.

    Attributes:
        status_fd: Descriptor of our own /proc/PID/status, which shows the state of the moment at each read.
        process_fd: Our own directory in /proc, until `see_namespaces`.
    """

    def __init__(self) -> None:
        self.status_fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        self.process_fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._namespaces: dict[str, int] = {}
        self._mounts: list[str] = []
        self._is_root_read_only = False
        self._filters = int(status_field(self._status(), b"Seccomp_filters"))

    def see_view(self) -> None:
        """Note what is mounted.

        Order: in the view, before Landlock.
        """
        self._mounts = sorted(_mount_points(self.process_fd))
        self._is_root_read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)

    def see_namespaces(self) -> None:
        """Note namespaces, and let go of /proc: from its descriptor "../1" would lead to every process.

        Order: after the last namespace was entered.
        """
        self._namespaces = namespaces.inodes(self.process_fd)
        os.close(self.process_fd)

    def _status(self) -> bytes:
        return os.pread(self.status_fd, _STATUS_BYTES, 0)

    def look(self, role: str, level: Level, landlock_abi: int) -> Attestation:
        """Read what a process is that will change, and make the record."""
        self._namespaces = namespaces.inodes(self.process_fd)
        return self._record(self._status(), role, level, landlock_abi)

    def testify(self, role: str, level: Level, landlock_abi: int) -> Attestation:
        """Read the rest and make the record."""
        status = self._status()
        os.close(self.status_fd)
        return self._record(status, role, level, landlock_abi)

    def _record(self, status: bytes, role: str, level: Level, landlock_abi: int) -> Attestation:
        now = limits.current_limits()
        return Attestation(
            role=role,
            level=level.value,
            pid=int(status_field(status, b"Pid")),
            ppid=int(status_field(status, b"PPid")),
            uids=[int(word) for word in status_field(status, b"Uid").split()],
            gids=[int(word) for word in status_field(status, b"Gid").split()],
            groups=[int(word) for word in status_field(status, b"Groups").split()],
            inheritable=int(status_field(status, b"CapInh"), 16),
            permitted=int(status_field(status, b"CapPrm"), 16),
            effective=int(status_field(status, b"CapEff"), 16),
            bounding=int(status_field(status, b"CapBnd"), 16),
            ambient=int(status_field(status, b"CapAmb"), 16),
            securebits=prctl.get_securebits(),
            no_new_privs=status_field(status, b"NoNewPrivs") == b"1",
            is_dumpable=prctl.get_dumpable(),
            seccomp=int(status_field(status, b"Seccomp")),
            parent_death_signal=prctl.get_pdeathsig(),
            landlock_abi=landlock_abi,
            is_view_confined=_is_root_refused(),
            namespaces=self._namespaces,
            descriptors=limits.open_descriptors(now["nofile"]),
            limits=now,
            added_filters=int(status_field(status, b"Seccomp_filters")) - self._filters,
            mounts=self._mounts,
            is_root_read_only=self._is_root_read_only,
        )


def status_field(status: bytes, name: bytes) -> bytes:
    """Find a field of what /proc/PID/status says.

    Args:
        status: All of it.
        name: Of the field.

    Raises:
        ValueError: it is not there.
    """
    # The first of the name: a process has an influence on its own name only, which comes before, and in which the
    # kernel escapes what ends a line.
    _, found, rest = status.partition(b"\n" + name + b":\t")
    if not found:
        raise ValueError(f"/proc/PID/status has no {name.decode()}")
    return rest.partition(b"\n")[0]


def _mount_points(process_fd: int) -> list[str]:
    """List mount points, as far as a page of mountinfo goes: a confined view is two lines of it."""
    fd = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        lines = os.read(fd, _MOUNTINFO_BYTES).decode("utf-8", "replace").splitlines()
    finally:
        os.close(fd)
    return [line.split(" ")[4] for line in lines]


def _is_root_refused() -> bool:
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except PermissionError:
        return True
    return False


def verify(attestation: Attestation, expected: Expectation, *, allows_degraded: bool) -> tuple[str, ...]:
    """Compare an attestation with what the level asks for.

    Args:
        attestation: What the process said.
        expected: What it had to say.
        allows_degraded: Whether a facility that the kernel lacks may be missing.

    Returns:
        Names of the facilities that are missing, empty unless `allows_degraded`.

    Raises:
        PrivilegeNotDropped: something differs that no kernel version excuses.
        IsolationUnavailable: the kernel lacks a facility and `allows_degraded` is False.
    """
    differences = _differences(attestation, expected)
    if differences:
        raise PrivilegeNotDropped(f"attest {expected.role}: {'; '.join(differences)}")
    missing: tuple[str, ...] = ()
    if PROTECTIONS[expected.level].has_landlock and expected.has_landlock and not attestation.landlock_abi:
        missing = ("landlock",)
    if not allows_degraded:
        require_all(expected.role, missing)
    return missing


def require_all(role: str, missing: tuple[str, ...]) -> None:
    """Insist that no facility is missing.

    Args:
        role: Of the process.
        missing: What `verify` says that was told that some may be.

    Raises:
        IsolationUnavailable: one is.
    """
    if missing:
        raise IsolationUnavailable(
            f"confine {role}: the kernel lacks {', '.join(missing)}",
            'enable it (lsm=landlock,...), or accept the loss with "sandbox": {"allowDegraded": true}',
        )


def _differences(said: Attestation, expected: Expectation) -> list[str]:
    protections = PROTECTIONS[expected.level]
    # TRUST: of a namespace that it does not tell of it has none but ours.
    namespaces = expected.own_namespaces | said.namespaces
    facts: list[tuple[str, object, object]] = [
        ("role", said.role, expected.role),
        ("level", said.level, expected.level.value),
        ("netns", said.namespaces.get("net"), expected.netns_inode),
    ]
    if expected.parent_pid is not None:
        facts.append(("parent", said.ppid, expected.parent_pid))
    if protections.drops_credentials:
        facts += [
            ("groups", said.groups, []),
            ("inheritable", said.inheritable, 0),
            ("permitted", said.permitted, expected.capabilities),
            ("effective", said.effective, expected.capabilities),
            ("bounding", said.bounding, 0),
            ("ambient", said.ambient, 0),
            ("securebits", said.securebits, LOCKED_SECUREBITS),
        ]
        if expected.uid is not None:
            facts += [("uids", said.uids, [expected.uid] * 4), ("gids", said.gids, [expected.gid] * 4)]
        else:
            # The witness opened its status file in our user namespace, so the ids are those that we know them by.
            facts.append(("root among ids", 0 in said.uids + said.gids, False))
            facts.append(("user namespace is ours", namespaces["user"] == expected.own_namespaces["user"], False))
    if protections.binds_lifetime:
        facts += [
            ("no_new_privs", said.no_new_privs, True),
            ("dumpable", said.is_dumpable, False),
            ("parent-death signal", said.parent_death_signal, _SIGKILL if expected.dies_with_parent else 0),
            ("descriptors", said.descriptors, sorted(expected.descriptors)),
        ]
    if protections.has_namespaces:
        facts += [
            (f"{name} namespace of its own", namespaces[name] != expected.own_namespaces[name], True)
            for name in ("mnt", "ipc", "uts", "cgroup", *(("pid",) if expected.has_own_pid_namespace else ()))
        ]
        facts.append(("root read-only", said.is_root_read_only, True))
        if expected.mounts is not None:
            facts.append(("mounts in view", said.mounts, expected.mounts))
    if protections.has_limits:
        facts.append(("limits", said.limits, expected.limits))
    if protections.has_seccomp:
        # A runtime in a container is under a filter already, which says nothing about ours.
        facts += [("seccomp", said.seccomp, _SECCOMP_MODE_FILTER), ("filters added", said.added_filters, 1)]
    if protections.has_landlock and said.landlock_abi:
        facts.append(("view confined by landlock", said.is_view_confined, True))
    _, all_now, all_wanted = zip(*facts, strict=True)
    if all_now == all_wanted:
        return []
    return [f"{name} is {is_now!r} and must be {must_be!r}" for name, is_now, must_be in facts if is_now != must_be]

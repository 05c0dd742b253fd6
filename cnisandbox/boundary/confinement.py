"""The drop: what a process becomes, described as data, and the one ordered list of stages that makes it so.

Privilege: starts with everything the entry has; ends with what the description says.

The order is the design; docs/security-model.md has the same list, and a test compares the two.
"""

import os

from cnisandbox.boundary import credentials, landlock, limits, namespaces, seccomp, view
from cnisandbox.boundary.attestation import Attestation, Witness
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.errors import PrivilegeNotDropped, reason
from cnisandbox.hints import NamedTuple

# Name of each stage and what it does; a failure carries the name.
STAGES = {
    "open": "open the netns once, and the state directories; refuse our own netns",
    "load": "have all code in memory: after the drop no file can be read",
    "channel": "make the channels: pipes, because a socket would lead back to the host's netns",
    "fork": "fork into a pid namespace and close every descriptor that is not on the keep-list",
    "namespaces": "enter own mount, ipc, uts, cgroup namespaces; exchange the root for an empty one; enter the netns",
    "userns": "join the user namespace that owns the netns, when that is not ours",
    "credentials": "empty the bounding set, lock the securebits, leave the groups, change gid and uid, cut the sets",
    "lifetime": "die with the parent, be not dumpable, gain no privileges, lower the limits",
    "filters": "enter a Landlock domain, then load the system call filter",
    "attest": "read all of it back; whoever waits for the answer refuses to go on when anything differs",
}


class Confinement(NamedTuple):
    """What a process becomes.

    Attributes:
        role: Its name in messages, attestations and the process list.
        level: How much is taken away.
        uid, gid: Whom it becomes, in our user namespace.
        capabilities: Capabilities that it keeps.
        netns_fd: The netns to enter; None to stay.
        userns_fd: The user namespace to join, whose ids then replace `uid` and `gid`; None to stay.
        mounts: What it sees of the file system.
        has_system_in_view: Whether the rest of the file system stays in view, read-only, for programs that need it.
        rules: What Landlock lets it do.
        filter_program: Compiled seccomp filter.
        file_bytes: How long a file it may write.
        processes: How many processes its user may have while it makes another.
        address_space_bytes: How much memory it may map.
        dies_with_parent: Whether its parent's death ends it.
        has_dependents: Whether its death ends its children, who are in other domains. KERNEL: the parent-death signal
            is sent with the rights of the parent, and Landlock's scope for signals (Linux 6.12) would hold it back; the
            filter of such a process knows what else it may send.
        has_landlock: Whether it enters a Landlock domain where its level has one; not so for the monitor of a foreign
            program, whose memory it has to read: Landlock lets nobody look out of a domain.
    """

    role: str
    level: Level
    uid: int
    gid: int
    capabilities: tuple[int, ...]
    netns_fd: int | None
    userns_fd: int | None
    mounts: tuple[view.Mount, ...]
    has_system_in_view: bool
    rules: tuple[landlock.PathRule, ...]
    filter_program: bytes
    file_bytes: int
    processes: int
    address_space_bytes: int
    dies_with_parent: bool
    has_dependents: bool = False
    has_landlock: bool = True


def expected_limits(wanted: Confinement) -> dict[str, int]:
    """Say what the resource limits of a process will be, from what they are here before it is made."""
    return limits.lowered_limits(
        file_bytes=wanted.file_bytes,
        processes=wanted.processes,
        address_space_bytes=wanted.address_space_bytes,
    )


def expected_mounts(wanted: Confinement) -> list[str] | None:
    """Say what a process will have mounted; None where most of the system stays in view."""
    return None if wanted.has_system_in_view else sorted(["/", *(mount.path for mount in wanted.mounts)])


class stage:  # noqa: N801 - it is used as a function is; a generator would take three times as long
    """Give a failure inside a `with` block the name of the stage that it happened in.

    Args:
        name: The stage.
        role: Who goes through it.

    Raises:
        PrivilegeNotDropped: the kernel refused something inside.
    """

    __slots__ = ("_name", "_role")

    def __init__(self, name: str, role: str) -> None:
        self._name, self._role = name, role

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Name the stage, if it failed."""
        if isinstance(error, OSError):
            subject = f" {error.filename}" if error.filename else ""
            raise PrivilegeNotDropped(f"{self._name} {self._role}:{subject} {reason(error)}") from error


class Ground(NamedTuple):
    """What a process has made for itself before it was known for what: it may have been forked ahead of a call.

    Attributes:
        witness: What reads its state back at the end.
        view_fd: The mount namespace with its view, when it has gone back to the host's for now; None when it is there.
        is_locked: Whether its credentials are locked.
        landlock_abi: Of the domain that it has entered; None when it has not yet.
    """

    witness: Witness
    view_fd: int | None = None
    is_locked: bool = False
    landlock_abi: int | None = None


def confine(wanted: Confinement, kept: set[int]) -> Attestation:
    """Become what a description says, for good: the stages from "namespaces" on.

    Args:
        wanted: The description.
        kept: Descriptors that stay open; everything else is closed.

    Returns:
        The attestation.

    Raises:
        PrivilegeNotDropped: a stage failed. The process is then in no defined state and must end.
    """
    return complete(wanted, kept, prepare(wanted))


def prepare(wanted: Confinement, *, comes_back: bool = False) -> Ground:
    """Make the part of a confinement that no call has an influence on: namespaces of one's own, and the view.

    Args:
        wanted: The description; which netns is meant need not be known yet.
        comes_back: Whether to return to the mount namespace that we are in, until `complete`, to open paths there.

    Raises:
        PrivilegeNotDropped: as `confine`.
    """
    with stage("attest", wanted.role):
        witness = Witness()
    if not PROTECTIONS[wanted.level].has_namespaces:
        return Ground(witness)
    if wanted.dies_with_parent:
        # KERNEL: a session takes the scheduler 25 us to make, and `bind_lifetime` finds it made.
        credentials.leave_process_group()
    # ORDER: everything that takes CAP_SYS_ADMIN over our own namespaces comes before the foreign user namespace, in
    # which the copied mounts would be locked.
    with stage("namespaces", wanted.role):
        outside_fd = namespaces.open_own_mounts() if comes_back else -1
        namespaces.enter_own_namespaces()
        (view.enter_read_only_root if wanted.has_system_in_view else view.enter_empty_root)(wanted.mounts)
        if not comes_back:
            return Ground(witness)
        view_fd = namespaces.open_own_mounts(witness.process_fd)
        namespaces.enter_mounts(outside_fd)
        os.close(outside_fd)
        return Ground(witness, view_fd)


def lock(wanted: Confinement, ground: Ground) -> Ground:
    """Give up ahead of a call what no privilege of the present depends on.

    Raises:
        PrivilegeNotDropped: as `confine`.
    """
    with stage("credentials", wanted.role):
        credentials.lock_credentials()
    return ground._replace(is_locked=True)


def descend(wanted: Confinement, ground: Ground, needed: tuple[int, ...]) -> Ground:
    """Go ahead of a call through the stages up to Landlock; `complete` goes through them again, and takes the rest.

    Args:
        wanted: The description, of a process that stays in our user namespace; at a level that has all protections.
        ground: What it stands on, with its view.
        needed: Capabilities that what is left asks for.

    Raises:
        PrivilegeNotDropped: as `confine`.
    """
    ground = lock(wanted, ground)
    with stage("credentials", wanted.role):
        credentials.drop_credentials(wanted.uid, wanted.gid, (*wanted.capabilities, *needed), is_locked=True)
    with stage("lifetime", wanted.role):
        credentials.bind_lifetime(wanted.dies_with_parent)
        limits.lower_limits(expected_limits(wanted))
    with stage("filters", wanted.role):
        return ground._replace(landlock_abi=_enter_domain(wanted, ground.witness))


def _enter_domain(wanted: Confinement, witness: Witness) -> int:
    witness.see_view()
    has_landlock = PROTECTIONS[wanted.level].has_landlock and wanted.has_landlock
    if not has_landlock:
        return 0
    return landlock.enter_domain(wanted.rules, holds_back_signals=not wanted.has_dependents)


def complete(wanted: Confinement, kept: set[int], ground: Ground) -> Attestation:
    """Become what a description says, on ground that was prepared: the netns, and everything that is taken away.

    Raises:
        PrivilegeNotDropped: as `confine`.
    """
    protections = PROTECTIONS[wanted.level]
    role, witness = wanted.role, ground.witness
    uid, gid, is_locked = wanted.uid, wanted.gid, ground.is_locked
    with stage("namespaces", role):
        if ground.view_fd is not None:
            namespaces.enter_mounts(ground.view_fd)
        if wanted.netns_fd is not None:
            namespaces.enter_netns(wanted.netns_fd)
    with stage("userns", role):
        if wanted.userns_fd is not None and protections.drops_credentials:
            # ORDER: whoever made the foreign user namespace may have denied setgroups in it.
            credentials.leave_groups()
            credentials.save_uid(wanted.uid)
            uid, gid = namespaces.join_userns(wanted.userns_fd, witness.process_fd)
            is_locked = False  # KERNEL: who joins has every capability there, and a bounding set that is full
    with stage("credentials", role):
        if protections.drops_credentials:
            is_foreign = wanted.userns_fd is not None
            credentials.drop_credentials(uid, gid, wanted.capabilities, is_locked=is_locked, has_saved_uid=is_foreign)
    with stage("lifetime", role):
        # ORDER: after the change of uid, which clears the parent-death signal.
        if protections.binds_lifetime:
            credentials.bind_lifetime(wanted.dies_with_parent)
        if protections.has_limits:
            limits.lower_limits(expected_limits(wanted))
    with stage("filters", role):
        landlock_abi = _enter_domain(wanted, witness) if ground.landlock_abi is None else ground.landlock_abi
        # KERNEL: Landlock judges what is opened; the links that are read here are not.
        witness.see_namespaces()
        if protections.binds_lifetime:
            limits.close_all_but(kept | {witness.status_fd})
        # ORDER: last, because the filter refuses what the stages above have used.
        if protections.has_seccomp:
            seccomp.load(wanted.filter_program)
    with stage("attest", role):
        return witness.testify(role, wanted.level, landlock_abi)

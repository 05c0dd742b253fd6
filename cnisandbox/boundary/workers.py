"""The workers of a call: which a plugin needs, and how they are made, now or ahead of the call.

Privilege: everything; who asks is the entry, or what waits to become one.
"""

import os
from collections.abc import Callable

from cnisandbox.boundary import landlock, limits, namespaces, seccomp
from cnisandbox.boundary.ahead import Assignment, Gifts, Settle, Subject, Waiting, unborn_waiting
from cnisandbox.boundary.attestation import Expectation
from cnisandbox.boundary.confinement import (
    Confinement,
    Ground,
    expected_limits,
    expected_mounts,
    lock,
    prepare,
    stage,
)
from cnisandbox.boundary.delegate import Place, delegate_worker, executable_places, is_below
from cnisandbox.boundary.environment import Environment
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.boundary.sandbox import (
    CONTAINER_ROLE,
    DELEGATE_ROLE,
    HOST_ROLE,
    LOG_FD,
    LOG_FILE_BYTES,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    ServiceUser,
    Unborn,
    Worker,
    fork_each,
    network_worker,
    service_user,
    unborn,
)
from cnisandbox.boundary.service import BecomeGate
from cnisandbox.boundary.state import StateDir, close_state_dirs, open_sets_of_state_dirs, open_state_dirs, read_boot_id
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.light import signal

# LIMIT: an answer may go to a file; state files are a few bytes.
_ENGINE_FILE_BYTES = 16 << 20


class Log(NamedTuple):
    """The audit log of gates.

    Attributes:
        fd: Its descriptor.
        kind: What it is, in the words of whoever opened it.
    """

    fd: int
    kind: str


GateMaker = Callable[[str, Subject, "Log | None"], BecomeGate]


class Needs(NamedTuple):
    """Which helpers a plugin needs; those that it does not need are not made.

    Attributes:
        host: A worker in the host's netns.
        container: A worker in the container's netns.
        delegate: A worker that executes other plugins and reads files of the host.
        state: State directories.
        is_nft_user: Whether the host worker may speak to nf_tables.
        gate: Makes what a network worker does when it becomes a gate: for its role, the call, and the audit log.
        open_log: Opens the audit log that CNISANDBOX_LOG names.
        load: Loads libraries that a network worker needs, in its process: for its role. Later it can open none.
    """

    host: bool = False
    container: bool = False
    delegate: bool = False
    state: bool = False
    is_nft_user: bool = False
    gate: "GateMaker | None" = None
    open_log: "Callable[[str], Log | None] | None" = None
    load: Callable[[str], None] = lambda _role: None

    @property
    def host_protocols(self) -> tuple[int, ...]:
        """What the host worker may speak."""
        return (NETLINK_ROUTE, NETLINK_NETFILTER) if self.is_nft_user else (NETLINK_ROUTE,)


class EnginePlan(NamedTuple):
    """What the engine becomes, and what it must attest then."""

    wanted: Confinement
    expected: Expectation


class Ahead(NamedTuple):
    """What was made before the call was known, for a call at hardened or mediated.

    Attributes:
        user: Whom everybody becomes.
        own_namespaces: Inode numbers of the namespaces that this process was made in.
        host, container: Workers that wait; None where there is none.
        delegate: The delegate worker, which is confined already: no call has an influence on what it is.
        places: Where it can execute plugins.
        state_dirs: State directories, as they were.
        boot_id: Identifies this boot of the kernel.
        plan: What the engine becomes, at hardened.
        ground: What it stands on.
        empty_netns: Where the engine goes at mediated; open in every process that may become one.
    """

    user: ServiceUser
    own_namespaces: dict[str, int]
    host: Waiting | None
    container: Waiting | None
    delegate: Worker | None
    places: frozenset[Place]
    state_dirs: tuple[StateDir, ...]
    boot_id: str
    plan: EnginePlan
    ground: Ground
    empty_netns: namespaces.Netns


class Workers(NamedTuple):
    """The workers of a call; None where there is none."""

    host: Worker | None = None
    container: Worker | None = None
    delegate: Worker | None = None

    @property
    def descriptors(self) -> set[int]:
        """Our ends of their channels."""
        return {fd for worker in self if worker is not None for fd in worker.descriptors}


def compile_filters() -> None:
    """Compile the filters of a call's processes, for all calls that this process, or what it writes, will serve."""
    seccomp.engine_filter()
    seccomp.delegate_filter()
    for protocols in ((NETLINK_ROUTE,), (NETLINK_ROUTE, NETLINK_NETFILTER)):
        seccomp.worker_filter(protocols, has_event_loop=False)


def plan_engine(level: Level, user: ServiceUser, own_namespaces: dict[str, int], parent_pid: int | None) -> EnginePlan:
    """Describe the engine, but for its state directories, its descriptors, and a netns that is not ours.

    Args:
        level: How much is taken away.
        user: Whom it becomes.
        own_namespaces: Inode numbers of our own namespaces.
        parent_pid: Who its parent must be; None where that one may end first.
    """
    wanted = Confinement(
        role="engine",
        level=level,
        uid=user.uid,
        gid=user.gid,
        capabilities=(),
        netns_fd=None,
        userns_fd=None,
        mounts=(),
        has_system_in_view=False,
        rules=(),
        filter_program=seccomp.engine_filter() if PROTECTIONS[level].has_seccomp else b"",
        file_bytes=_ENGINE_FILE_BYTES,
        processes=0,
        address_space_bytes=limits.ADDRESS_SPACE_BYTES,
        dies_with_parent=False,
        has_dependents=True,
    )
    expected = Expectation(
        role=wanted.role,
        level=level,
        uid=user.uid,
        gid=user.gid,
        capabilities=0,
        has_own_pid_namespace=False,
        own_namespaces=own_namespaces,
        netns_inode=own_namespaces["net"],
        parent_pid=parent_pid,
        descriptors=(),
        dies_with_parent=False,
        limits=expected_limits(wanted),
        mounts=expected_mounts(wanted),
    )
    return EnginePlan(wanted, expected)


def make_ahead(
    name: str,
    needs: Needs,
    plugin_dirs: tuple[str, ...],
    settle: Settle,
    mounts_fd: int,
    empty_netns: namespaces.Netns,
) -> Ahead:
    """Make everything that no call has an influence on, for one call.

    Args:
        name: Of the plugin.
        needs: What it needs.
        plugin_dirs: Directories of plugins that calls are expected to name, besides those of the system.
        settle: What each process does last before it waits, for its role.
        mounts_fd: A mount namespace like ours with less in it, which is copied where a view is made of nearly nothing.
        empty_netns: For engines at mediated, one for all calls.

    Raises:
        CniError: something cannot be made; a call should then be served without it, and say why if it fails as well.
    """
    user = service_user()
    pid_namespaces = namespaces.NewPidNamespaces()

    def network(role: str, protocols: tuple[int, ...]) -> Unborn:
        wanted = network_worker(role, Level.HARDENED, user, None, protocols)

        def gate_of(assignment: Assignment) -> BecomeGate | None:
            log = Log(LOG_FD, assignment.log_kind) if assignment.log_kind else None
            return needs.gate(role, assignment.subject, log) if needs.gate else None

        return unborn_waiting(wanted, mounts_fd, gate_of, settle, enters_netns=role == CONTAINER_ROLE)

    # ORDER: before the delegate worker says which directories Landlock lets it use: if one is exchanged in between,
    # the call makes another worker.
    places = executable_places(plugin_dirs)
    # Everything that has paths of ours opened is done here; what is forked next lets go of what it does not need.
    sets_of_state_dirs = open_sets_of_state_dirs(needs.delegate + needs.state, *user)
    its_state_dirs = sets_of_state_dirs.pop() if needs.delegate else ()
    described = []
    if needs.delegate:
        wanted = delegate_worker(Level.HARDENED, user, its_state_dirs, plugin_dirs)
        described.append(unborn(wanted, f"[{name}]", first=lambda: settle(DELEGATE_ROLE)))
    if needs.container:
        described.append(network(CONTAINER_ROLE, (NETLINK_ROUTE,)))
    if needs.host:
        described.append(network(HOST_ROLE, needs.host_protocols))
    own_namespaces = namespaces.inodes()
    host, container, delegate = _born(described, pid_namespaces, own_namespaces)
    # ORDER: what is fetched before a fork is copied again after it.
    settle("engine")
    pid_namespaces.close()
    close_state_dirs(its_state_dirs)
    outside_fd = namespaces.open_own_mounts()
    namespaces.enter_mounts(mounts_fd)
    # It outlives its zygote.
    plan = plan_engine(Level.HARDENED, user, own_namespaces, None)
    ground = lock(plan.wanted, prepare(plan.wanted, comes_back=True))
    namespaces.enter_mounts(outside_fd)
    os.close(outside_fd)
    for worker in (host, container, delegate):
        if worker is not None:
            worker.hear()
    return Ahead(
        user,
        own_namespaces,
        host,
        container,
        delegate,
        places,
        sets_of_state_dirs.pop() if needs.state else (),
        read_boot_id(),
        plan,
        ground,
        empty_netns,
    )


def _born(
    described: list[Unborn], pid_namespaces: namespaces.NewPidNamespaces, own_namespaces: dict[str, int]
) -> tuple[Any, Any, Any]:
    """Fork what is described; returns the host, the container and the delegate worker, or None for who is not."""
    roles = [one.role for one in described]
    born = dict(zip(roles, fork_each(described, pid_namespaces, own_namespaces), strict=True))
    return born.get(HOST_ROLE), born.get(CONTAINER_ROLE), born.get(DELEGATE_ROLE)


def begin_workers(
    name: str,
    needs: Needs,
    environment: Environment,
    netns: namespaces.Netns | None,
    log: Log | None,
    ahead: Ahead,
    state_dirs: tuple[StateDir, ...],
) -> Workers:
    """Tell the workers that wait what they are for; those that the call does not need, or that do not fit it, end.

    Args:
        name: Of the plugin.
        needs: What it needs.
        environment: The parameters of the call.
        netns: The container's netns, if there is one.
        log: The audit log of gates.
        ahead: What was made.
        state_dirs: The call's; what was made, if that is what would be made now.

    Returns:
        The workers; what they were given may be closed here.
    """
    title = _title(name, environment)
    assignment = Assignment([], log.kind if log else "", title, _subject(environment))
    log_fd = log.fd if log else None
    host = container = None
    # Who waits is the service user of our own user namespace, and has no capability over another one.
    is_foreign = netns is not None and netns.userns_fd is not None
    if ahead.container is not None and netns is not None and not is_foreign:
        container = ahead.container.begin(assignment, Gifts(netns_fd=netns.fd, log_fd=log_fd), netns.inode)
    elif ahead.container is not None:
        _end(ahead.container.pid)
    if ahead.host is not None and log is None:
        host = ahead.host.begin(assignment, Gifts(given_fd=netns.fd if netns else None))
    elif ahead.host is not None:  # who waits confined to the end may write no log
        _end(ahead.host.pid)
    is_logger = ahead.host is not None and host is None
    delegate = ahead.delegate
    is_stale = delegate is not None and not _is_delegate_current(ahead, delegate, environment, state_dirs)
    if is_foreign or is_logger or is_stale:
        pid_namespaces = namespaces.NewPidNamespaces()
        making = _Making(needs, environment, ahead.user, title, log)
        described = []
        its_state_dirs: tuple[StateDir, ...] = ()
        if is_foreign and netns is not None and needs.container:
            described.append(_unborn_container(making, netns))
        if is_logger:
            described.append(_unborn_host(making, netns))
        if is_stale and delegate is not None:
            _end(delegate.pid)
            delegate, its_state_dirs = None, open_state_dirs(*ahead.user)
            described.append(_unborn_delegate(making, its_state_dirs))
        logger, foreign, fresh = _born(described, pid_namespaces, ahead.own_namespaces)
        host, container, delegate = logger or host, foreign or container, fresh or delegate
        pid_namespaces.close()
        close_state_dirs(its_state_dirs)
    return Workers(host, container, delegate)


def _subject(environment: Environment) -> Subject:
    return Subject(environment.container_id, environment.ifname, environment.level is Level.MEDIATED)


def _title(name: str, environment: Environment) -> str:
    """What the process list shows behind a role."""
    return f"[{name} {environment.ifname}]"


def _is_delegate_current(
    ahead: Ahead, delegate: Worker, environment: Environment, state_dirs: tuple[StateDir, ...]
) -> bool:
    """Say whether the delegate worker may use what it would if it was made now, and has in view what is there now."""
    # Without Landlock what has been mounted since could be written to.
    if not landlock.abi() or not state_dirs or state_dirs is not ahead.state_dirs:
        return False
    for path in environment.plugin_dirs:
        try:
            then, now = os.stat(f"/proc/{delegate.pid}/root/{path}"), os.stat(path)
            is_executable = is_below(path, ahead.places)
        except OSError:
            return False
        if not is_executable:
            return False
        if (then.st_dev, then.st_ino) != (now.st_dev, now.st_ino):
            return False
    return True


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def fork_workers(
    name: str,
    needs: Needs,
    environment: Environment,
    user: ServiceUser,
    netns: namespaces.Netns | None,
    own_namespaces: dict[str, int],
    log: Log | None,
    delegate_dirs: tuple[StateDir, ...],
) -> Workers:
    """Fork the workers that are needed; they confine themselves side by side.

    Args:
        name: Of the plugin.
        needs: Which workers it needs.
        environment: The parameters of the call.
        user: Whom they become.
        netns: The container's netns, if there is one.
        own_namespaces: Inode numbers of our own namespaces.
        log: The audit log of gates.
        delegate_dirs: State directories for the delegate worker, if there is one; may be closed as soon as this
            returns.
    """
    with stage("fork", "entry"):
        pid_namespaces = namespaces.NewPidNamespaces()
    making = _Making(needs, environment, user, _title(name, environment), log)
    described = []
    # ORDER: the one that takes longest to confine first.
    if needs.delegate:
        described.append(_unborn_delegate(making, delegate_dirs))
    if needs.container and netns is not None:
        described.append(_unborn_container(making, netns))
    if needs.host:
        described.append(_unborn_host(making, netns))
    host, container, delegate = _born(described, pid_namespaces, own_namespaces)
    pid_namespaces.close()
    return Workers(host, container, delegate)


class _Making(NamedTuple):
    """What the workers of a call have in common."""

    needs: Needs
    environment: Environment
    user: ServiceUser
    title: str
    log: Log | None

    @property
    def level(self) -> Level:
        """Their level: at mediated they become gates, which are what a worker at hardened is."""
        return Level.HARDENED if self.environment.level is Level.MEDIATED else self.environment.level


def _unborn_container(making: _Making, netns: namespaces.Netns) -> Unborn:
    return _unborn_network(making, network_worker(CONTAINER_ROLE, making.level, making.user, netns), None, netns.inode)


def _unborn_host(making: _Making, netns: namespaces.Netns | None) -> Unborn:
    wanted = network_worker(HOST_ROLE, making.level, making.user, None, making.needs.host_protocols)
    # The host worker has CAP_NET_ADMIN where all links of the host are; the container's netns is no more.
    return _unborn_network(making, wanted, netns.fd if netns else None, None)


def _unborn_network(making: _Making, wanted: Confinement, given_fd: int | None, netns_inode: int | None) -> Unborn:
    needs, environment, log = making.needs, making.environment, making.log
    return unborn(
        wanted if log is None else wanted._replace(file_bytes=LOG_FILE_BYTES),
        making.title,
        given_fd,
        netns_inode,
        needs.gate(wanted.role, _subject(environment), log) if needs.gate else None,
        is_gate_only=environment.level is Level.MEDIATED,
        log_fd=None if log is None else log.fd,
        first=lambda: needs.load(wanted.role),
    )


def _unborn_delegate(making: _Making, state_dirs: tuple[StateDir, ...]) -> Unborn:
    level = Level.ROOT if making.level is Level.ROOT else Level.HARDENED
    return unborn(delegate_worker(level, making.user, state_dirs, making.environment.plugin_dirs), making.title)

"""A worker, seen from outside: fork it, confine it, ask it to run declared functions, end it.

Privilege: the caller's, which has to be root to confine a worker; the worker ends up with what its level says.

Order: make sandboxes before making threads; a fork copies only the thread that calls it.
"""

from __future__ import annotations  # a ParamSpec of ours is no argument for Callable at run time

import fcntl
import os
import pwd
from collections.abc import Callable, Mapping, Sequence

from cnisandbox.boundary import landlock, limits, namespaces, prctl, seccomp, service
from cnisandbox.boundary.attestation import Attestation, Expectation, verify
from cnisandbox.boundary.confinement import Confinement, confine, expected_limits, expected_mounts, stage
from cnisandbox.boundary.credentials import CAP_NET_ADMIN, mask_of
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.view import Mount
from cnisandbox.boundary.wire import Channel, channel_pair
from cnisandbox.errors import (
    BoundaryViolation,
    CniError,
    InvalidNetns,
    IsolationUnavailable,
    PrivilegeNotDropped,
    quoted,
)
from cnisandbox.hints import Any, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar
from cnisandbox.light import signal

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

SERVICE_USER = "cnisandbox"
HOST_ROLE, CONTAINER_ROLE, DELEGATE_ROLE = "host worker", "container worker", "delegate worker"
# LIMIT: seconds for one call; enabledad waits 5 s for duplicate address detection, everything else takes milliseconds.
CALL_TIMEOUT_S = 60.0

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

# What a worker finds open: its channel, nothing on standard error, what it was given; a gate: the audit log.
_REQUESTS_FD, _ANSWERS_FD, _NULL_FD, GIVEN_FD, LOG_FD = 0, 1, 2, 3, 4
# LIMIT: more than the audit log ever is (cnisandbox/audit/log.py).
LOG_FILE_BYTES = 128 << 20
CHANNEL_FDS = (_REQUESTS_FD, _ANSWERS_FD, _NULL_FD)

_SYSCTL_DIRECTORY = "/proc/sys/net"


class ServiceUser(NamedTuple):
    """The user that workers become."""

    uid: int
    gid: int


def service_user() -> ServiceUser:
    """Look the service user up.

    Raises:
        IsolationUnavailable: it does not exist.
    """
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError as error:
        raise IsolationUnavailable(
            f"look up user {SERVICE_USER}: it does not exist", "make it: cnisandbox install, or useradd --system"
        ) from error
    if entry.pw_uid == 0 or entry.pw_gid == 0:
        raise IsolationUnavailable(f"look up user {SERVICE_USER}: it is root", "give it ids of its own")
    return ServiceUser(entry.pw_uid, entry.pw_gid)


class Through(Protocol):
    """Runs declared functions here, behind a gate."""

    def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Run a function."""

    def start(self, function: Callable[..., Any], *args: object) -> Callable[[], Any]:
        """Run a function until it needs an answer; returns what runs it to the end."""

    def begin(self, function: Callable[..., Any], *args: object) -> None:
        """Run a function until it needs an answer, and leave it there."""


class Worker:
    """A confined process at the other end of a channel.

    Args:
        pid: Its process id.
        channel: Our end.
        expected: What its attestation must say.
        before: What it has attested while it waited; None when it did not wait.

    Attributes:
        pid: Its process id; 0 once it has been closed.
        missing: Facilities that it goes without because the kernel lacks them; known after `attest`.
    """

    def __init__(self, pid: int, channel: Channel, expected: Expectation, before: Attestation | None = None) -> None:
        self.pid = pid
        self._channel = channel
        self._expected = expected
        self._before = before
        self._heard: Attestation | None = None
        self._attestation: Attestation | None = None
        self.missing: tuple[str, ...] = ()
        self._is_over = False
        self._through: Through | None = None

    @property
    def descriptors(self) -> tuple[int, int]:
        """Our ends of its pipes."""
        return self._channel.read_fd, self._channel.write_fd

    @property
    def is_gate(self) -> bool:
        """Whether functions run in this process, one after the other, and reach the kernel through it."""
        return self._through is not None

    def attest(self, *, allows_degraded: bool = False) -> Attestation:
        """Receive the worker's attestation and compare it with its level.

        Raises:
            IsolationError: it could not be confined, or its state is not what the level asks for.
        """
        if self._attestation is None:
            self._require_session()
            self._is_over = True  # unless what it says is what the level asks for
            said = self._heard or self._hear()
            self.missing = verify(said, self._expected, allows_degraded=allows_degraded)
            self._attestation, self._is_over = said, False
        return self._attestation

    def hear(self) -> None:
        """Wait for what the worker attests, ahead of a call; it is compared by `attest`.

        Raises:
            IsolationError: it could not be confined.
        """
        self._heard = self._hear()

    def _hear(self) -> Attestation:
        if self._before is not None:
            return service.receive_changes(self._channel, self._before, CALL_TIMEOUT_S)
        return service.receive_attestation(self._channel, self._expected.role, CALL_TIMEOUT_S)

    def _require_session(self) -> None:
        if self._is_over:
            raise BoundaryViolation(f"call {self._expected.role}: the session is over")

    def become_gate(self, names: dict[str, list[str]], connect: Callable[[Channel], Through]) -> None:
        """Have the worker be a gate from now on: level mediated.

        It runs no function any more. `call` runs them here, in this process, which has no capability; what they do with
        netlink, sysctls and nf_tables goes through the gate.

        Args:
            names: Netconf key to names of links.
            connect: Makes what runs a function through the gate at the other end of a channel.

        Raises:
            IsolationError: the worker's state is not what its level asks for, or it has ended.
        """
        self._require_session()
        self.attest()
        service.ask_for_gate(self._channel, names, CALL_TIMEOUT_S)
        self._through = connect(self._channel)

    def call(
        self, function: Callable[Parameters, Returned], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Returned:
        """Have the worker run a declared function.

        Args:
            function: A function marked with `declared`.
            args: Its arguments; all of them, by position.
            kwargs: None are allowed: names do not cross the boundary.

        Returns:
            Its result, checked against its annotation.

        Raises:
            CniError: what it raised.
            IsolationError: the worker's state or its answer is not what was agreed; it is over then.
        """
        through = self._ready(kwargs)
        if through is not None:
            result: Returned = self._finish(lambda: through.call(function, *args))
            return result
        return self.start(function, *args, **kwargs)()

    def start(
        self, function: Callable[Parameters, Returned], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Callable[[], Returned]:
        """Have the worker run a declared function as `call` does, while the caller goes on.

        Behind a gate, where functions run in this process, it is run until it needs an answer, and once more, from the
        beginning, when the result is waited for.

        Returns:
            What waits for the result, or raises, as `call` does; to be called once, and before the worker is asked
            anything else.
        """
        through = self._ready(kwargs)
        # A late answer would be taken for the answer to the next call, which may be one that undoes.
        self._is_over = True
        if through is not None:
            collect: Callable[[], Returned] = through.start(function, *args)
            return lambda: self._finish(collect)
        service.post(self._channel, function, args, CALL_TIMEOUT_S)
        return lambda: self._finish(lambda: service.collect(self._channel, function, CALL_TIMEOUT_S))

    def _ready(self, kwargs: Mapping[str, object]) -> Through | None:
        """Insist on a worker that may be asked; returns what runs functions if it is a gate."""
        if kwargs:
            raise TypeError("arguments cross the boundary by position")
        self._require_session()
        self.attest()
        return self._through

    def _finish(self, collect: Callable[[], Returned]) -> Returned:
        """Wait for a result; the session is over if there is none that was agreed."""
        self._is_over = False
        try:
            return collect()
        except BoundaryViolation:
            self._is_over = True
            raise

    def begin(
        self, function: Callable[Parameters, object], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> None:
        """Have the worker run a declared function as `call` does, and do not wait for it; nothing is asked of it after.

        For what the kernel has done long before it says so: whoever asks finds out in another way.
        """
        through = self._ready(kwargs)
        self._is_over = True
        if through is not None:
            through.begin(function, *args)
        else:
            service.post(self._channel, function, args, CALL_TIMEOUT_S)

    def has_answered(self) -> bool:
        """Say whether the function that was begun is over, however it went."""
        return self._channel.has_message()

    def close(self) -> None:
        """End the worker, whatever it is doing, and wait for it; may be called more than once."""
        if self.pid:
            self._channel.close()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def spawn(
    wanted: Confinement,
    own_namespaces: dict[str, int],
    given_fd: int | None = None,
    netns_inode: int | None = None,
    pid_namespaces: namespaces.NewPidNamespaces | None = None,
    title: str = "",
    become_gate: service.BecomeGate | None = None,
    *,
    is_gate_only: bool = False,
) -> Worker:
    """Fork a worker, which then confines itself while we go on.

    Args:
        wanted: What it becomes.
        own_namespaces: Inode numbers of our own namespaces.
        given_fd: A descriptor that it keeps, as number `GIVEN_FD`.
        netns_inode: The netns that it will be in, when that is not ours.
        pid_namespaces: Where pid namespaces come from; None leaves the worker in ours.
        title: What the process list shows behind the role.
        become_gate: What it does when it is told to be a gate.
        is_gate_only: Whether it does nothing else.

    Returns:
        The worker; whether it was confined shows in `Worker.attest`.

    Raises:
        PrivilegeNotDropped: the stages "channel" or "fork" failed.
    """
    described = unborn(wanted, title, given_fd, netns_inode, become_gate, is_gate_only=is_gate_only)
    worker: Worker
    (worker,) = fork_each([described], pid_namespaces, own_namespaces)
    return worker


class Unborn(NamedTuple):
    """A process that is to be forked.

    Attributes:
        role: Its name.
        live: What it does; never returns.
        adopt: What its parent does then, with its process id, inode numbers of our own namespaces, and whether it was
            born in a pid namespace of its own; returns what it is to the parent.
        let_go: What its parent does instead when it could not be forked.
        has_namespaces: Whether it has namespaces of its own at its level.
    """

    role: str
    live: Callable[[], None]
    adopt: Callable[[int, dict[str, int], bool], Any]
    let_go: Callable[[], None]
    has_namespaces: bool = True


def unborn(
    wanted: Confinement,
    title: str,
    given_fd: int | None = None,
    netns_inode: int | None = None,
    become_gate: service.BecomeGate | None = None,
    *,
    is_gate_only: bool = False,
    log_fd: int | None = None,
    first: Callable[[], None] = lambda: None,
) -> Unborn:
    """Describe a worker that confines itself as soon as it is forked.

    Args:
        wanted: As for `spawn`.
        title: As for `spawn`.
        given_fd: As for `spawn`.
        netns_inode: As for `spawn`.
        become_gate: As for `spawn`.
        is_gate_only: As for `spawn`.
        log_fd: An audit log that it keeps, as number `LOG_FD`; for a gate only, which runs no code of a plugin.
        first: What it does before it confines itself.

    Raises:
        PrivilegeNotDropped: the stage "channel" failed.
    """
    given = {number: fd for number, fd in ((GIVEN_FD, given_fd), (LOG_FD, log_fd)) if fd is not None}
    with stage("channel", wanted.role):
        ours, theirs = channel_pair(wanted.role, "engine", reads_ahead=True)

    def be_worker() -> None:
        _be_worker(wanted, theirs, given, title, become_gate, first, is_gate_only=is_gate_only)

    def adopt(pid: int, own_namespaces: dict[str, int], has_own_pid_namespace: bool) -> Worker:
        theirs.close()
        expected = expectation(
            wanted,
            own_namespaces,
            netns_inode,
            os.getpid(),
            given=tuple(given),
            has_own_pid_namespace=has_own_pid_namespace,
        )
        return Worker(pid, ours, expected)

    def let_go() -> None:
        ours.close()
        theirs.close()

    return Unborn(wanted.role, be_worker, adopt, let_go, PROTECTIONS[wanted.level].has_namespaces)


def fork_each(
    unborn: Sequence[Unborn],
    pid_namespaces: namespaces.NewPidNamespaces | None,
    own_namespaces: dict[str, int],
) -> list[Any]:
    """Fork processes, with as little as can be between one fork and the next.

    After a fork each page that we write to is copied: what is done between two is paid for again after the second.

    Args:
        unborn: They.
        pid_namespaces: Where pid namespaces come from; None leaves them in ours.
        own_namespaces: Inode numbers of our own namespaces.

    Returns:
        What each is to us, in the same order.

    Raises:
        PrivilegeNotDropped: the stage "fork" failed; those that were forked find their channels closed, and end.
    """
    pids = []
    try:
        for one in unborn:
            with stage("fork", one.role):
                pid = fork_into(pid_namespaces if one.has_namespaces else None)
            if pid == 0:
                one.live()
            pids.append(pid)
    except PrivilegeNotDropped:
        for one in unborn:
            one.let_go()
        raise
    is_in_ours = pid_namespaces is None
    return [
        one.adopt(pid, own_namespaces, one.has_namespaces and not is_in_ours)
        for one, pid in zip(unborn, pids, strict=True)
    ]


def expectation(
    wanted: Confinement,
    own_namespaces: dict[str, int],
    netns_inode: int | None,
    parent_pid: int,
    *,
    given: tuple[int, ...],
    has_own_pid_namespace: bool,
) -> Expectation:
    """Say what a worker must attest.

    Args:
        wanted: What it was to become.
        own_namespaces: Inode numbers of our own namespaces.
        netns_inode: The netns that it must be in, when that is not ours.
        parent_pid: Who made it.
        given: Numbers of the descriptors that it was given.
        has_own_pid_namespace: Whether it must have one.
    """
    is_foreign = wanted.userns_fd is not None
    return Expectation(
        role=wanted.role,
        level=wanted.level,
        uid=None if is_foreign else wanted.uid,
        gid=None if is_foreign else wanted.gid,
        capabilities=mask_of(wanted.capabilities),
        has_own_pid_namespace=has_own_pid_namespace,
        own_namespaces=own_namespaces,
        netns_inode=netns_inode if netns_inode is not None else own_namespaces["net"],
        parent_pid=parent_pid,
        descriptors=(*CHANNEL_FDS, *sorted(given)),
        dies_with_parent=True,
        limits=expected_limits(wanted),
        mounts=expected_mounts(wanted),
    )


def fork_into(pid_namespaces: namespaces.NewPidNamespaces | None) -> int:
    """Fork, into a pid namespace where there is one to be made; whatever happens, later children are born in ours."""
    if pid_namespaces is None:
        return os.fork()
    pid_namespaces.before_fork()
    try:
        pid = os.fork()
    except OSError:
        pid_namespaces.after_fork()
        raise
    if pid:
        pid_namespaces.after_fork()
    return pid


def _be_worker(
    wanted: Confinement,
    channel: Channel,
    given: Mapping[int, int],
    title: str,
    become_gate: service.BecomeGate | None,
    first: Callable[[], None],
    *,
    is_gate_only: bool,
) -> NoReturn:
    """Live as a worker; never returns, and never lets an exception out into the parent's code."""

    entered: tuple[int | None, int | None] = (None, None)

    def arrange() -> Channel:
        nonlocal entered
        first()
        own, (netns_fd, userns_fd) = arrange_descriptors(wanted, channel, given, wanted.netns_fd, wanted.userns_fd)
        entered = netns_fd, userns_fd
        return own

    def become(_channel: Channel) -> Becoming:
        netns_fd, userns_fd = entered
        refined = wanted._replace(netns_fd=netns_fd, userns_fd=userns_fd)
        return Becoming(confine(refined, {*CHANNEL_FDS, *given}), become_gate, is_gate_only)

    live(wanted.role, title, channel, arrange, become)


class Becoming(NamedTuple):
    """What a worker has become.

    Attributes:
        attestation: What the kernel says about it.
        become_gate: What it does when it is told to be a gate.
        is_gate_only: Whether it does nothing else.
        before: What it has attested already, while it waited.
    """

    attestation: Attestation
    become_gate: service.BecomeGate | None
    is_gate_only: bool
    before: Attestation | None = None


def live(
    role: str, title: str, channel: Channel, arrange: Callable[[], Channel], become: Callable[[Channel], Becoming]
) -> NoReturn:
    """Be a worker, from the fork to the end; whoever made it learns from its first message whether it is one.

    Args:
        role: Its name.
        title: What the process list shows behind it.
        channel: Its end of the channel.
        arrange: Puts the descriptors in order; says where the channel is then.
        become: Confines the process, which has the channel.
    """
    try:
        # The interpreter's own handlers are the parent's; a worker is ended by its parent or by the kernel.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        set_title(f"cnisandbox: {role} {title}".rstrip())
        try:
            with stage("fork", role):
                # From here on, at every level; the change of uid clears it, and the stage "lifetime" sets it again.
                prctl.set_pdeathsig(signal.SIGKILL)
                channel = arrange()
            attestation, become_gate, is_gate_only, before = become(channel)
        except CniError as error:
            _report(channel, error)
        except Exception as error:  # noqa: BLE001 - a defect of ours: said once, then the process ends
            _report(channel, PrivilegeNotDropped(f"confine {role}: {type(error).__name__}: {error}"))
        if before is None:
            service.send_attestation(channel, attestation)
        else:
            service.send_changes(channel, before, attestation)
        is_delegate = role == DELEGATE_ROLE
        service.serve(channel, is_delegate=is_delegate, become_gate=become_gate, is_gate_only=is_gate_only)
    finally:
        # Reached only by an exception that is a defect of ours: the parent sees the channel end.
        os._exit(1)


def _report(channel: Channel, error: CniError) -> NoReturn:
    channel.send(service.describe_error(error))
    os._exit(1)


def arrange_descriptors(
    wanted: Confinement, channel: Channel, given: Mapping[int, int], *needed: int | None
) -> tuple[Channel, list[int | None]]:
    """Put the channel and what was given at their numbers, and close everything else but what is still needed.

    Returns:
        The channel, and where that is now which is needed until the drop is over.
    """
    # ORDER: copies above all fixed numbers first, so that no dup2 overwrites a source that is still needed.
    first_free = 10
    requests, answers = _duplicate_above(channel.read_fd, first_free), _duplicate_above(channel.write_fd, first_free)
    null = _duplicate_above(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), first_free)
    sources = [(_duplicate_above(fd, first_free), number) for number, fd in given.items()]
    lifted = [None if fd is None else _duplicate_above(fd, first_free) for fd in needed]
    for source, number in ((requests, _REQUESTS_FD), (answers, _ANSWERS_FD), (null, _NULL_FD), *sources):
        os.dup2(source, number)
    tree_fds = {mount.tree_fd for mount in wanted.mounts if mount.tree_fd is not None}
    kept = {*CHANNEL_FDS, *tree_fds, *given, *(fd for fd in lifted if fd is not None)}
    if PROTECTIONS[wanted.level].binds_lifetime:
        limits.close_all_but(kept)
    return Channel(_REQUESTS_FD, _ANSWERS_FD, "engine", reads_ahead=True), lifted


def _duplicate_above(fd: int, lowest: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def network_worker(
    role: str,
    level: Level,
    user: ServiceUser,
    netns: namespaces.Netns | None = None,
    netlink_protocols: tuple[int, ...] = (NETLINK_ROUTE,),
    *,
    has_event_loop: bool = False,
) -> Confinement:
    """Describe a worker that configures a network: CAP_NET_ADMIN, netlink, and the sysctls of its netns.

    Args:
        role: "host worker" or "container worker".
        level: How much is taken away.
        user: Whom it becomes.
        netns: The netns to enter; None for our own.
        netlink_protocols: What it may speak.
        has_event_loop: Whether asyncio may run in it.
    """
    has_seccomp = PROTECTIONS[level].has_seccomp
    return Confinement(
        role=role,
        level=level,
        uid=user.uid,
        gid=user.gid,
        capabilities=(CAP_NET_ADMIN,),
        netns_fd=netns.fd if netns else None,
        userns_fd=netns.userns_fd if netns else None,
        # The view holds no process and no other sysctl; which netns the files are about follows from who opens them.
        mounts=(Mount(_SYSCTL_DIRECTORY, is_writable=True),),
        has_system_in_view=False,
        rules=(landlock.PathRule(_SYSCTL_DIRECTORY, landlock.READ_WRITE),),
        filter_program=seccomp.worker_filter(netlink_protocols, has_event_loop=has_event_loop) if has_seccomp else b"",
        file_bytes=0,
        processes=0,
        address_space_bytes=limits.ADDRESS_SPACE_BYTES,
        dies_with_parent=True,
    )


class Sandbox:
    """A worker in a network namespace, for use as a library.

        with Sandbox(netns="/run/netns/blue") as box:
            mac = box.call(configure, "eth0", "10.1.2.3/24")

    Describe, then enter: the worker begins when the `with` block does, and every failure of the drop is final.

    Args:
        netns: Path of the network namespace; None for the caller's own.
        level: How much is taken away from the worker.
        allows_degraded: Whether to go on when the kernel lacks a facility of the level; `attestation` says which.

    Raises:
        InvalidNetns: nothing is at the path, or something that is not a network namespace.
        IsolationError: the worker could not be confined.

    Privilege: the caller must be root; the worker keeps CAP_NET_ADMIN.

    Order: functions are declared, and whatever they use is imported, before the `with` block.
    """

    def __init__(
        self, netns: str | None = None, level: Level = Level.HARDENED, *, allows_degraded: bool = False
    ) -> None:
        self._netns_path = netns
        self._level = level
        self._allows_degraded = allows_degraded
        self._worker: Worker | None = None

    def __enter__(self) -> Sandbox:
        if self._level is Level.MEDIATED:
            raise IsolationUnavailable(
                "enter sandbox: at level mediated there are no permits for functions of others",
                "use Level.HARDENED, or make a plugin of them and a profile, and run it with cnisandbox exec",
            )
        user = service_user()
        own_namespaces = namespaces.inodes()
        netns = None if self._netns_path is None else _open_for_library(self._netns_path)
        pid_namespaces = namespaces.NewPidNamespaces()
        try:
            role = HOST_ROLE if netns is None else CONTAINER_ROLE
            protocols = (NETLINK_ROUTE, NETLINK_NETFILTER)
            wanted = network_worker(role, self._level, user, netns, protocols, has_event_loop=True)
            inode = None if netns is None else netns.inode
            self._worker = spawn(wanted, own_namespaces, netns_inode=inode, pid_namespaces=pid_namespaces)
        finally:
            pid_namespaces.close()
            if netns is not None:
                namespaces.close_netns(netns)
        try:
            self._worker.attest(allows_degraded=self._allows_degraded)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: object) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None  # its descriptors' numbers may soon be somebody else's

    @property
    def attestation(self) -> Attestation:
        """What the kernel says about the worker."""
        return self._entered().attest()

    def call(
        self, function: Callable[Parameters, Returned], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Returned:
        """Have the worker run a declared function; see `Worker.call`."""
        return self._entered().call(function, *args, **kwargs)

    def _entered(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("a sandbox is used inside its `with` block")
        return self._worker


def _open_for_library(path: str) -> namespaces.Netns:
    try:
        return namespaces.open_netns(path)
    except FileNotFoundError as error:
        raise InvalidNetns(f"open netns {quoted(path)}: nothing is there", "ip netns add makes one") from error

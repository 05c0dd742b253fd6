"""The monitor's process: forks the opener and the worker, drops to CAP_NET_ADMIN, and answers until the worker ends.

All three are forked before their call is known, and wait; each serves one call and ends. Monitor and opener wait
confined, as far as no call has an influence on it: without filter, and the opener with what it takes to enter a netns.

    entry -> monitor       first process of a pid namespace: whatever ends it ends everybody below
               |- opener   the container's netns
               '- worker   a pid namespace within ours: it cannot name us, nor the opener

Privilege: everything the entry has, until the two others are forked; CAP_NET_ADMIN after that, all the time.

The monitor shares the service user's uid with the worker, because only so may it read the worker's memory without
CAP_SYS_PTRACE. The worker gains nothing by that: it sees no process outside of its pid namespace, Landlock keeps its
signals and its traces inside its domain, ptrace and process_vm_writev are not in its filter, and the monitor is not
dumpable. The monitor is in no Landlock domain itself: nobody may look out of one, and it has to look at its child.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress

from cnisandbox.audit.log import FILE_BYTES, SESSION_BYTES, AuditLog
from cnisandbox.boundary import limits, namespaces, prctl, seccomp, service
from cnisandbox.boundary.attestation import Attestation
from cnisandbox.boundary.confinement import Confinement, complete, descend, prepare, stage
from cnisandbox.boundary.credentials import CAP_NET_ADMIN, CAP_SYS_ADMIN
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import ServiceUser, fork_into
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.view import Mount, clone_tree, new_procfs
from cnisandbox.boundary.wire import Channel, channel_pair, check
from cnisandbox.errors import BoundaryViolation, CniError, PrivilegeNotDropped
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.monitor import notify, opener
from cnisandbox.monitor.notify import Listener
from cnisandbox.monitor.opener import SYSCTL_PREFIX, LocalOpener, Opener, RemoteOpener
from cnisandbox.monitor.supervisor import READABLE_FILES, Situation, Supervisor
from cnisandbox.monitor.threads import CONTAINER, HOST, Threads
from cnisandbox.monitor.world import KernelWorld
from cnisandbox.netlink.datagram import NETLINK_ROUTE, protocol_of
from cnisandbox.policy.judge import Judge, Session
from cnisandbox.runner.facts import read_facts
from cnisandbox.runner.plan import Plan
from cnisandbox.runner.waiting import Settle, wait
from cnisandbox.runner.worker import PACKET_PROTOCOLS, be_worker
from cnisandbox.runner.worker import Ends as WorkerEnds

_CAP_NET_RAW = 13
_SAID_BYTES = 4096
# LIMIT: seconds; the opener confines itself in a few milliseconds.
_START_S = 30.0
_DEFAULT_ROUTE = "@default-route"


class Testimony(NamedTuple):
    """What the monitor says first; what the kernel says about the worker comes next.

    Attributes:
        monitor, opener: What the kernel says about these two; no opener where there is no container's netns.
    """

    monitor: Attestation
    opener: Attestation | None


class Ended(NamedTuple):
    """What the monitor says last.

    Attributes:
        status: As waitpid(2) has it.
        notice: What a person should know about the audit log; empty for nothing.
    """

    status: int
    notice: str


class Released(NamedTuple):
    """What the monitor waits for: leave to let the plugin begin, and later the netconf's values.

    Attributes:
        variables: Netconf key to names of links; "@default-route" stands for the links of the host's default routes.
    """

    variables: dict[str, list[str]]


class Ends(NamedTuple):
    """Sockets on which the entry tells each what it is for (waiting.py); the entry has one of each pair as well."""

    monitor: _socket.socket
    opener: _socket.socket
    worker: _socket.socket


def be_monitor(user: ServiceUser, channel: Channel, ends: Ends, settle: Settle) -> NoReturn:
    """Live as the monitor; never returns.

    Args:
        user: Whom everybody becomes.
        channel: To the keeper.
        ends: Where we and the two others are told what we are for.
        settle: What each does last before it waits.
    """
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        set_title("cnisandbox: monitor [waiting]")
        try:
            prctl.set_pdeathsig(signal.SIGKILL)
            _Monitor(user, channel, ends, settle).run()
        except CniError as error:
            channel.send(service.describe_error(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours: said once, then everybody below is killed
            defect = PrivilegeNotDropped(f"monitor: {type(error).__name__}: {error}")
            channel.send(service.describe_error(defect))
    finally:
        os._exit(1)


class _Monitor:
    def __init__(self, user: ServiceUser, channel: Channel, ends: Ends, settle: Settle) -> None:
        self._user = user
        self._channel = channel
        self._end = ends.monitor
        with stage("namespaces", "monitor"):
            _let_go_of_standard()
            limits.close_all_but({0, 1, 2, channel.read_fd, channel.write_fd, *(end.fileno() for end in ends)})
            self._proc_fd = new_procfs()
            # For looking at processes: what is opened on a mount outlives the mount's own descriptor.
            self._process_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc_fd)
            self._netns_fds = {HOST: os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)}
        self._openers: dict[str, Opener] = {HOST: LocalOpener()}
        # ORDER: all of them at once, the one that takes longest first; each confines itself while the others do.
        self._worker, self._go_fd, self._said_fd = self._fork_worker(ends.worker, settle)
        self._opener, self._opener_channel = self._fork_opener(ends.opener, settle)
        wanted = confinement("monitor", user, proc_fd=self._proc_fd)
        ground = prepare(wanted)
        settle("monitor")
        self._ground = descend(wanted, ground, ())

    def run(self) -> NoReturn:
        plan, log_kind, log_fds = wait(self._end)
        set_title(f"cnisandbox: monitor [{plan.name}]")
        if plan.netns is not None:
            self._netns_fds[CONTAINER] = plan.netns.fd
            self._openers[CONTAINER] = self._opener
        audit = _audit(plan, log_kind.decode(), *log_fds)
        # ORDER: all of this while the worker confines itself, which takes longer.
        worker_fd = notify.open_process(self._worker)
        said_by_us = self._drop({self._go_fd, self._said_fd, worker_fd, *log_fds})
        opener_said = self._heard_from_opener() if plan.netns else None
        self._channel.send([0, Testimony(said_by_us, opener_said)])
        if plan.netns is not None and plan.level is Level.MEDIATED:
            # It is the kind of socket that a plugin, and our world, ask for.
            self._opener.stock(_socket.AF_NETLINK, _socket.SOCK_RAW, NETLINK_ROUTE)
        listener_fd, tokens = _fetch_listener(worker_fd, _heard(self._said_fd))
        self._channel.send([0, read_facts(self._process_fd, self._worker)])
        # ORDER: while the keeper compares.
        supervisor = self._prepare(plan, audit, listener_fd, tokens)
        self._hold_view()
        self._await_release()
        os.write(self._go_fd, b"G")
        os.close(self._go_fd)
        self._serve(plan, supervisor, worker_fd)
        _, status = os.waitpid(self._worker, 0)
        self._channel.send([0, Ended(status, audit.close())])
        # ORDER: not before the keeper has passed the result on. To take us apart, with two pid namespaces, takes the
        # kernel a millisecond of a processor on which somebody waits for that result.
        with suppress(BoundaryViolation):
            self._channel.receive()
        os._exit(0)

    # The children.

    def _fork_opener(self, told: _socket.socket, settle: Settle) -> tuple[RemoteOpener, Channel]:
        with stage("channel", "opener"):
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            channel, reply = channel_pair("opener", "monitor")
            tree_fd = clone_tree("", self._proc_fd)
        with stage("fork", "opener"):
            pid = os.fork()
        if pid == 0:
            _be_opener(self._user, tree_fd, _OpenerEnds(told, theirs, reply), settle)
        os.close(tree_fd)
        for end in (told, theirs, reply):
            end.close()
        return RemoteOpener(ours), channel

    def _heard_from_opener(self) -> Attestation:
        said = service.receive_attestation(self._opener_channel, "opener", _START_S)
        os.close(self._opener_channel.read_fd)  # it has nothing more to say
        return said

    def _fork_worker(self, told: _socket.socket, settle: Settle) -> tuple[int, int, int]:
        with stage("channel", "worker"):
            said_fd, says_fd = os.pipe2(os.O_CLOEXEC)
            learns_fd, go_fd = os.pipe2(os.O_CLOEXEC)
        with stage("fork", "worker"):
            pid_namespaces = namespaces.NewPidNamespaces()
            worker = fork_into(pid_namespaces)
        if worker == 0:
            be_worker(WorkerEnds(told, says_fd, learns_fd), settle)
        pid_namespaces.close()
        os.close(says_fd)
        os.close(learns_fd)
        told.close()
        return worker, go_fd, said_fd

    def _hold_view(self) -> None:
        """Keep the worker's mount namespace until we end, which we do when nobody waits any more.

        KERNEL: who ends as the last one in a mount namespace takes it apart before its parent learns of the end, and
        waits for all processors while it does. To enter it, or to look into it, takes CAP_SYS_ADMIN.
        """
        os.open(f"{self._worker}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._process_fd)

    # Ourselves.

    def _prepare(self, plan: Plan, audit: AuditLog, listener_fd: int, tokens: dict[int, str]) -> Supervisor | None:
        if listener_fd < 0:
            return None
        protocols = frozenset(protocol_of(name) for permit in plan.profile.permits for name in permit.messages)
        is_mediated = plan.level is Level.MEDIATED
        situation = Situation(
            openers=self._openers,
            tokens=tokens,
            inodes={os.fstat(fd).st_ino: netns for netns, fd in self._netns_fds.items()},
            protocols=protocols if is_mediated else frozenset((0, 12, 16)),
            is_mediated=is_mediated,
            sysctl_device=os.fstat(self._process_fd).st_dev,
            effective=1 << CAP_NET_ADMIN,
        )
        listener = Listener(listener_fd, (SYSCTL_PREFIX, *READABLE_FILES))
        return Supervisor(listener, Threads(self._process_fd), situation, audit)

    def _drop(self, held: set[int]) -> Attestation:
        kept = {0, 1, 2, self._channel.read_fd, self._channel.write_fd, self._process_fd, *self._netns_fds.values()}
        if CONTAINER in self._openers:
            kept |= {self._opener.fileno(), self._opener_channel.read_fd}
        return complete(confinement("monitor", self._user, proc_fd=self._proc_fd), kept | held, self._ground)

    def _await_release(self) -> None:
        self._released(self._channel.receive())

    def _released(self, message: object) -> dict[str, tuple[str, ...]]:
        released: Released = check(message, Released, "release")
        return {key: tuple(names) for key, names in released.variables.items()}

    def _serve(self, plan: Plan, supervisor: Supervisor | None, worker_fd: int) -> None:
        """Answer until the worker has ended, whatever it is doing."""
        channel_fd = self._channel.read_fd
        watched = [worker_fd, channel_fd]
        if supervisor is not None:
            supervisor.judge_by(self._judge(plan, {}, supervisor))
        is_asking = supervisor is not None
        while True:
            if supervisor is not None and is_asking:
                try:
                    supervisor.answer_until(*watched)
                except BrokenPipeError:
                    is_asking = False
            ready = _ready(watched)
            if channel_fd in ready:
                # ORDER: what the netconf says comes before the plugin has read it, and is judged by from then on.
                variables = self._released(self._channel.receive())
                watched.remove(channel_fd)
                if supervisor is not None:
                    supervisor.judge_by(self._judge(plan, variables, supervisor))
            if worker_fd in ready:
                return

    def _judge(self, plan: Plan, variables: dict[str, tuple[str, ...]], supervisor: Supervisor) -> Judge:
        ifname = plan.environment.ifname if plan.environment else ""

        def open_socket(netns: str, protocol: int) -> int:
            if netns not in self._openers:
                raise BoundaryViolation(f"look at netns {netns}: there is none")
            return self._openers[netns].open_socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)

        world = KernelWorld(open_socket, self._netns_fds, ifname, supervisor.netns_of)
        resolved = {key: tuple(_resolved(names, world)) for key, names in variables.items()}
        return Judge(plan.profile.permits, plan.profile.sysctls, Session(plan.name, ifname, resolved), world)


def _audit(plan: Plan, kind: str, fd: int = -1) -> AuditLog:
    environment = plan.environment
    container_id, ifname = (environment.container_id, environment.ifname) if environment else ("", "")
    return AuditLog(fd, plan.name, container_id, ifname, kind)


def _ready(fds: list[int]) -> list[int]:
    """Wait until some have something to say."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return [fd for fd, _ in poll.poll()]


def _let_go_of_standard() -> None:
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    os.close(null_fd)


def _fetch_listener(worker_fd: int, said: bytes) -> tuple[int, dict[int, str]]:
    """Take the listener out of the worker: nothing is sent, so no socket leads from one to the other.

    Args:
        worker_fd: A pidfd of it.
        said: What it has said.

    Privilege: that of its uid: it lets itself be looked at from the moment at which it has dropped everything.
    """
    number, host, container = (int(word) for word in said.split())
    tokens = {host: HOST, **({container: CONTAINER} if container else {})}
    if number < 0:
        return -1, tokens
    with stage("filters", "worker"):
        return notify.copy_descriptor(worker_fd, number), tokens


def _heard(said_fd: int) -> bytes:
    """Hear what the worker says once it is confined.

    Raises:
        PrivilegeNotDropped: it could not be.
    """
    said = os.read(said_fd, _SAID_BYTES)
    os.close(said_fd)
    if not said.startswith(b"R"):
        raise PrivilegeNotDropped(said[1:].decode("utf-8", "replace") or "confine worker: it has ended")
    return said[1:]


def _resolved(names: tuple[str, ...], world: KernelWorld) -> Iterator[str]:
    for name in names:
        if name != _DEFAULT_ROUTE:
            yield name
            continue
        for ifindex in world.default_route_links(HOST):
            link = world.link(HOST, ifindex, "")
            if link is not None:
                yield link.ifname


class _OpenerEnds(NamedTuple):
    """What an opener has.

    Attributes:
        told: Where it is told what it is for.
        requests: Where it answers the monitor.
        channel: Where it says that it is confined.
    """

    told: _socket.socket
    requests: _socket.socket
    channel: Channel


def _be_opener(user: ServiceUser, tree_fd: int, ends: _OpenerEnds, settle: Settle) -> NoReturn:
    try:
        set_title("cnisandbox: opener [waiting]")
        prctl.set_pdeathsig(signal.SIGKILL)
        kept = {0, 1, 2, ends.requests.fileno(), ends.channel.read_fd, ends.channel.write_fd}
        try:
            with stage("fork", "opener"):
                limits.close_all_but(kept | {ends.told.fileno(), tree_fd})
            # One that is going to open packet sockets keeps CAP_NET_RAW; `complete` takes it away from all others.
            wanted = confinement("opener", user, proc_fd=tree_fd)
            ground = prepare(wanted)
            settle("opener")
            ground = descend(wanted, ground, (CAP_SYS_ADMIN, _CAP_NET_RAW))
            plan = wait(ends.told).plan
            set_title(f"cnisandbox: opener [{plan.name}]")
            said = complete(confinement("opener", user, plan, tree_fd), kept, ground)
        except CniError as error:
            ends.channel.send(service.describe_error(error))
            os._exit(1)
        service.send_attestation(ends.channel, said)
        opener.serve(ends.requests)
    finally:
        os._exit(1)


def confinement(role: str, user: ServiceUser, plan: Plan | None = None, proc_fd: int | None = None) -> Confinement:
    """Describe a process that acts for the worker.

    Args:
        role: "monitor" or "opener".
        user: Whom it becomes.
        plan: The run, where it has an influence: on the opener.
        proc_fd: The procfs that it sees; None when only its expectation is asked for.
    """
    packet = plan.profile.raw_sockets if plan else ()
    protocols = tuple(PACKET_PROTOCOLS[name] for name in packet)
    return Confinement(
        role=role,
        level=Level.HARDENED,
        uid=user.uid,
        gid=user.gid,
        capabilities=(CAP_NET_ADMIN, *((_CAP_NET_RAW,) if packet else ())),
        netns_fd=plan.netns.fd if plan and plan.netns else None,
        userns_fd=None,
        mounts=(Mount("/proc", is_writable=True, tree_fd=proc_fd),),
        has_system_in_view=False,
        rules=(),
        filter_program=b"" if proc_fd is None else seccomp.monitor_filter(protocols),
        file_bytes=FILE_BYTES + SESSION_BYTES if role == "monitor" else 0,
        processes=0,
        address_space_bytes=limits.ADDRESS_SPACE_BYTES,
        dies_with_parent=True,
        has_landlock=False,
    )

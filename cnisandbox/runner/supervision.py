"""The monitor's process: forks the opener and the worker, drops to CAP_NET_ADMIN, and answers until the worker ends.

    entry -> monitor       first process of a pid namespace: whatever ends it ends everybody below
               |- opener   the container's netns
               '- worker   a pid namespace within ours: it cannot name us, nor the opener

Privilege: everything the entry has, until `confine`; CAP_NET_ADMIN after that.

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

from cnisandbox.audit.log import FILE_BYTES, SESSION_BYTES, AuditLog
from cnisandbox.boundary import limits, namespaces, prctl, seccomp, service
from cnisandbox.boundary.attestation import Attestation
from cnisandbox.boundary.confinement import Confinement, Ground, complete, confine, prepare, stage
from cnisandbox.boundary.credentials import CAP_NET_ADMIN
from cnisandbox.boundary.levels import PROTECTIONS, Level
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
from cnisandbox.netlink.datagram import protocol_of
from cnisandbox.policy.judge import Judge, Session
from cnisandbox.runner.facts import WorkerFacts, read_facts
from cnisandbox.runner.plan import Plan
from cnisandbox.runner.worker import PACKET_PROTOCOLS, Ends, be_worker

_CAP_NET_RAW = 13
_SAID_BYTES = 4096
# LIMIT: seconds; the opener confines itself in a few milliseconds.
_START_S = 30.0
_DEFAULT_ROUTE = "@default-route"


class Testimony(NamedTuple):
    """What the monitor says first.

    Attributes:
        monitor, opener: What the kernel says about these two; no opener where there is no container's netns.
        worker: What the kernel says about the worker.
    """

    monitor: Attestation
    opener: Attestation | None
    worker: WorkerFacts


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


class Tools(NamedTuple):
    """What the monitor is given.

    Attributes:
        channel: To the keeper.
        standard: The worker's standard descriptors.
        log_fd: The audit log; -1 for none.
        log_kind: "file" or "journald".
        environment: The plugin's environment.
    """

    channel: Channel
    standard: tuple[int, int, int]
    log_fd: int
    log_kind: str
    environment: dict[str, str]


def be_monitor(plan: Plan, tools: Tools) -> NoReturn:
    """Live as the monitor; never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        set_title(f"cnisandbox: monitor [{plan.name}]")
        try:
            prctl.set_pdeathsig(signal.SIGKILL)
            _Monitor(plan, tools).run()
        except CniError as error:
            tools.channel.send(service.describe_error(error))
        except Exception as error:  # noqa: BLE001 - a defect of ours: said once, then everybody below is killed
            defect = PrivilegeNotDropped(f"monitor {plan.name}: {type(error).__name__}: {error}")
            tools.channel.send(service.describe_error(defect))
    finally:
        os._exit(1)


class _Monitor:
    def __init__(self, plan: Plan, tools: Tools) -> None:
        self._plan = plan
        self._tools = tools
        self._netns_fds: dict[str, int] = {}
        self._openers: dict[str, Opener] = {HOST: LocalOpener()}
        self._audit = AuditLog(-1, plan.name, "", "")
        with stage("namespaces", "monitor"):
            self._proc_fd = new_procfs()
            # For looking at processes: what is opened on a mount outlives the mount's own descriptor.
            self._process_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc_fd)
            self._netns_fds[HOST] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if plan.netns is not None:
            self._netns_fds[CONTAINER] = plan.netns.fd

    def run(self) -> NoReturn:
        # ORDER: all of them at once, the one that takes longest first; each confines itself while the others do.
        worker, go_fd, said_fd = self._fork_worker()
        opener_channel = self._fork_opener()
        _let_go_of_standard()
        wanted = confinement(self._plan, "monitor", self._proc_fd)
        ground = prepare(wanted)
        said = _heard(said_fd)
        opener_said = service.receive_attestation(opener_channel, "opener", _START_S) if opener_channel else None
        listener_fd, tokens = self._fetch_listener(worker, said)
        facts = read_facts(self._process_fd, worker)
        supervisor = self._prepare(listener_fd, tokens)
        worker_fd = notify.open_process(worker)
        said_by_us = self._drop(wanted, ground, {go_fd, worker_fd, listener_fd})
        testimony = Testimony(said_by_us, opener_said, facts)
        self._tools.channel.send([0, testimony])
        self._await_release()
        os.write(go_fd, b"G")
        os.close(go_fd)
        self._serve(supervisor, listener_fd, worker_fd)
        _, status = os.waitpid(worker, 0)
        self._tools.channel.send([0, Ended(status, self._audit.close())])
        os._exit(0)

    # The children.

    def _fork_opener(self) -> Channel | None:
        plan = self._plan
        if plan.netns is None:
            return None
        with stage("channel", "opener"):
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            channel, reply = channel_pair("opener", "monitor")
            tree_fd = clone_tree("", self._proc_fd)
        with stage("fork", "opener"):
            pid = os.fork()
        if pid == 0:
            _be_opener(plan, tree_fd, theirs, reply)
        os.close(tree_fd)
        theirs.close()
        reply.close()
        self._openers[CONTAINER] = RemoteOpener(ours)
        return channel

    def _fork_worker(self) -> tuple[int, int, int]:
        with stage("channel", "worker"):
            said_fd, says_fd = os.pipe2(os.O_CLOEXEC)
            learns_fd, go_fd = os.pipe2(os.O_CLOEXEC)
        pid_namespaces = namespaces.NewPidNamespaces() if PROTECTIONS[self._plan.level].has_namespaces else None
        with stage("fork", "worker"):
            if pid_namespaces is not None:
                pid_namespaces.before_fork()
            worker = os.fork()
        if worker == 0:
            be_worker(self._plan, Ends(self._tools.standard, says_fd, learns_fd), self._tools.environment)
        if pid_namespaces is not None:
            pid_namespaces.after_fork()
            pid_namespaces.close()
        os.close(says_fd)
        os.close(learns_fd)
        for fd in self._tools.standard:
            os.close(fd)
        return worker, go_fd, said_fd

    def _fetch_listener(self, worker: int, said: bytes) -> tuple[int, dict[int, str]]:
        """Take the listener out of the worker: nothing is sent, so no socket leads from one to the other.

        Order: while we are root, because the worker is not dumpable before it has executed the plugin.
        """
        number, host, container = (int(word) for word in said.split())
        tokens = {host: HOST, **({container: CONTAINER} if container else {})}
        if number < 0:
            return -1, tokens
        with stage("filters", "worker"):
            worker_fd = notify.open_process(worker)
            try:
                return notify.copy_descriptor(worker_fd, number), tokens
            finally:
                os.close(worker_fd)

    # Ourselves.

    def _prepare(self, listener_fd: int, tokens: dict[int, str]) -> Supervisor | None:
        if listener_fd < 0:
            return None
        plan, tools = self._plan, self._tools
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
        environment = plan.environment
        container_id, ifname = (environment.container_id, environment.ifname) if environment else ("", "")
        self._audit = AuditLog(tools.log_fd, plan.name, container_id, ifname, tools.log_kind)
        listener = Listener(listener_fd, (SYSCTL_PREFIX, *READABLE_FILES))
        return Supervisor(listener, Threads(self._process_fd), situation, self._audit)

    def _drop(self, wanted: Confinement, ground: Ground, held: set[int]) -> Attestation:
        tools = self._tools
        kept = {0, 1, 2, tools.channel.read_fd, tools.channel.write_fd, self._process_fd, *self._netns_fds.values()}
        kept |= {fd for fd in (*held, tools.log_fd) if fd >= 0}
        remote = self._openers.get(CONTAINER)
        if isinstance(remote, RemoteOpener):
            kept.add(remote.fileno())
        return complete(wanted, kept, ground)

    def _await_release(self) -> None:
        self._released(self._tools.channel.receive())

    def _released(self, message: object) -> dict[str, tuple[str, ...]]:
        released: Released = check(message, Released, "release")
        return {key: tuple(names) for key, names in released.variables.items()}

    def _serve(self, supervisor: Supervisor | None, listener_fd: int, worker_fd: int) -> None:
        """Answer until the worker has ended, whatever it is doing."""
        channel_fd = self._tools.channel.read_fd
        poll = select.poll()
        for fd in (worker_fd, channel_fd, *((listener_fd,) if supervisor else ())):
            poll.register(fd, select.POLLIN)
        if supervisor is not None:
            supervisor.judge_by(self._judge({}, supervisor))
        while True:
            events = dict(poll.poll())
            if channel_fd in events:
                # ORDER: what the netconf says comes before the plugin has read it, and is judged by from then on.
                variables = self._released(self._tools.channel.receive())
                poll.unregister(channel_fd)
                if supervisor is not None:
                    supervisor.judge_by(self._judge(variables, supervisor))
            if supervisor is not None and listener_fd in events:
                try:
                    supervisor.answer_all()
                except BrokenPipeError:
                    poll.unregister(listener_fd)
            if worker_fd in events:
                return

    def _judge(self, variables: dict[str, tuple[str, ...]], supervisor: Supervisor) -> Judge:
        plan = self._plan
        ifname = plan.environment.ifname if plan.environment else ""

        def open_socket(netns: str, protocol: int) -> int:
            if netns not in self._openers:
                raise BoundaryViolation(f"look at netns {netns}: there is none")
            return self._openers[netns].open_socket(_socket.AF_NETLINK, _socket.SOCK_RAW, protocol)

        world = KernelWorld(open_socket, self._netns_fds, ifname, supervisor.netns_of)
        resolved = {key: tuple(_resolved(names, world)) for key, names in variables.items()}
        return Judge(plan.profile.permits, plan.profile.sysctls, Session(plan.name, ifname, resolved), world)


def _let_go_of_standard() -> None:
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    os.close(null_fd)


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


def _be_opener(plan: Plan, tree_fd: int, end: _socket.socket, channel: Channel) -> NoReturn:
    try:
        set_title(f"cnisandbox: opener [{plan.name}]")
        prctl.set_pdeathsig(signal.SIGKILL)
        wanted = confinement(plan, "opener", tree_fd)
        try:
            _let_go_of_standard()
            said = confine(wanted, {0, 1, 2, end.fileno(), channel.read_fd, channel.write_fd})
        except CniError as error:
            channel.send(service.describe_error(error))
            os._exit(1)
        service.send_attestation(channel, said)
        opener.serve(end)
    finally:
        os._exit(1)


def confinement(plan: Plan, role: str, proc_fd: int | None = None) -> Confinement:
    """Describe a process that acts for the worker.

    Args:
        plan: The run.
        role: "monitor" or "opener".
        proc_fd: The procfs that it sees; None when only its expectation is asked for.
    """
    packet = plan.profile.raw_sockets if role == "opener" else ()
    protocols = tuple(PACKET_PROTOCOLS[name] for name in packet)
    return Confinement(
        role=role,
        level=Level.HARDENED,
        uid=plan.user.uid,
        gid=plan.user.gid,
        capabilities=(CAP_NET_ADMIN, *((_CAP_NET_RAW,) if packet else ())),
        netns_fd=plan.netns.fd if plan.netns and role == "opener" else None,
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

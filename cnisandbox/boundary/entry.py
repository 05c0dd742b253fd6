"""The entry: what the runtime executes, root with every capability, for as short a time as possible.

    runtime ── exec ──▶ entry            validates the CNI_* variables, opens the netns and the state directories
                          ├─ fork ▶ host worker        the host's netns, CAP_NET_ADMIN only
                          ├─ fork ▶ container worker   the container's netns, CAP_NET_ADMIN only
                          ├─ fork ▶ delegate worker    no capability
                          └─ drops everything itself = the engine: no capability; reads the netconf

Privilege: everything the runtime has, until `_drop`. Nothing of standard input, of a netconf, of CNI_ARGS or of a state
file is read before.
"""

import gc
import os
from collections.abc import Callable

from cnisandbox.boundary import landlock, limits, namespaces, seccomp
from cnisandbox.boundary.attestation import Attestation, Expectation
from cnisandbox.boundary.confinement import Confinement, confine, expected_limits, expected_mounts, stage
from cnisandbox.boundary.delegate import delegate_worker
from cnisandbox.boundary.environment import VERBS_OF_AN_ATTACHMENT, Environment, read_environment
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.boundary.sandbox import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    ServiceUser,
    Worker,
    network_worker,
    service_user,
    spawn,
)
from cnisandbox.boundary.service import BecomeGate
from cnisandbox.boundary.state import StateDir, open_state_dirs
from cnisandbox.boundary.title import set_title
from cnisandbox.errors import CniError, InvalidNetns, IoFailure, PrivilegeNotDropped, quoted, reason
from cnisandbox.hints import NamedTuple, NoReturn, Protocol

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_STANDARD_DESCRIPTORS = (0, 1, 2)
# LIMIT: an answer may go to a file; state files are a few bytes.
_ENGINE_FILE_BYTES = 16 << 20
# LIMIT: more than the audit log ever is (cnisandbox/audit/log.py).
_LOG_FILE_BYTES = 128 << 20


class Log(NamedTuple):
    """The audit log of gates.

    Attributes:
        fd: Its descriptor.
        kind: What it is, in the words of whoever opened it.
    """

    fd: int
    kind: str


GateMaker = Callable[[str, Environment, "Log | None"], BecomeGate]


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
    """

    host: bool = False
    container: bool = False
    delegate: bool = False
    state: bool = False
    is_nft_user: bool = False
    gate: "GateMaker | None" = None
    open_log: "Callable[[str], Log | None] | None" = None


class Session(NamedTuple):
    """What the engine has when everything else is gone.

    Attributes:
        environment: The parameters of the call.
        host, container, delegate: The workers; None where there is none.
        state_dirs: The state directories.
        boot_id: Identifies this boot of the kernel.
        attest_fd: File that keeps the attestations; None when nobody asked.
        attestation, expectation: What the kernel says about the engine, and what it must say.
    """

    environment: Environment
    host: Worker | None
    container: Worker | None
    delegate: Worker | None
    state_dirs: tuple[StateDir, ...]
    boot_id: str
    attest_fd: int | None
    attestation: Attestation
    expectation: Expectation


class Engine(Protocol):
    """What goes on after the drop; it never returns to the entry's code."""

    def run(self, session: Session) -> NoReturn:
        """Serve the call."""

    def fail(self, error: CniError) -> NoReturn:
        """Report an error that prevented the call."""

    def describe(self) -> NoReturn:
        """Answer a call by hand, without CNI_COMMAND."""

    def answer_version(self) -> NoReturn:
        """Answer VERSION."""


def main(name: str, needs: Needs, engine: Engine) -> NoReturn:
    """Run a plugin.

    Args:
        name: Its name, for the process list.
        needs: Which helpers it needs.
        engine: What goes on after the drop.

    Order: everything is imported.
    """
    gc.disable()  # a call is over before garbage matters
    fill_standard_descriptors()
    if not os.environ.get("CNI_COMMAND"):
        engine.describe()
    try:
        environment = read_environment(os.environ)
        if environment.verb == "VERSION":
            engine.answer_version()
        session = _prepare(name, needs, environment)
    except CniError as error:
        # ORDER: an error is printed after the drop too. Where even that is refused there is no privilege to lose.
        drop_for_error()
        engine.fail(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the call without privilege and without traceback
        drop_for_error()
        engine.fail(PrivilegeNotDropped(f"confine {name}: {type(error).__name__}: {error}"))
    engine.run(session)


def fill_standard_descriptors() -> None:
    """Open what the runtime has left closed of the three standard descriptors.

    What is opened next would get the number otherwise: a netns would be kept as standard error. Nothing can be read
    from the stand-ins; writing a result fails, as it would without.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        if not limits.is_open(fd):
            os.open("/dev/null", flags)


def _prepare(name: str, needs: Needs, environment: Environment) -> Session:
    """Open what is needed, fork the workers, and drop everything."""
    if os.geteuid() != 0:
        raise PrivilegeNotDropped("confine plugin: only root can", "have the runtime, or sudo, execute it")
    with stage("open", "entry"):
        # At level root everybody stays root, for whom state directories that are mapped to the service user are no use.
        user = ServiceUser(0, 0) if environment.level is Level.ROOT else service_user()
        own_namespaces = namespaces.inodes()
        netns = open_container_netns(environment)
        attest_fd = open_attest_file(environment.attest_path)
        state_dirs = open_state_dirs(*user) if needs.state else ()
        # ORDER: only where the workers are gates from the beginning; one that runs code of a plugin gets no log.
        has_log = environment.level is Level.MEDIATED and needs.open_log is not None
        log = needs.open_log(environment.log_target) if has_log and needs.open_log else None
        boot_id = _read_boot_id()
    workers = _fork_workers(name, needs, environment, user, netns, own_namespaces, log)
    kept = {*_STANDARD_DESCRIPTORS, *(state_dir.fd for state_dir in state_dirs)}
    kept |= {fd for worker in workers if worker is not None for fd in worker.descriptors}
    kept |= set() if attest_fd is None else {attest_fd}
    set_title(f"cnisandbox: engine [{name} {environment.ifname}]")
    engine_said, expected = _drop(environment.level, user, state_dirs, kept, own_namespaces)
    host, container, delegate = workers
    return Session(environment, host, container, delegate, state_dirs, boot_id, attest_fd, engine_said, expected)


def open_container_netns(environment: Environment) -> namespaces.Netns | None:
    """Open the container's netns; for DEL, one that is gone is no error, and nor is what somebody left at its path."""
    path = environment.netns_path
    if environment.verb not in VERBS_OF_AN_ATTACHMENT or not path:
        return None
    try:
        netns = namespaces.open_netns(path)
    except FileNotFoundError as error:
        if environment.verb == "DEL":
            return None
        raise InvalidNetns(f"open netns {quoted(path)}: nothing is there") from error
    except InvalidNetns:
        if environment.verb == "DEL":
            return None
        raise
    # ORDER: before any work; the reference plugins look after it, when it is too late.
    if namespaces.is_own(netns) and not environment.may_share_netns:
        raise InvalidNetns(
            f"open netns {quoted(path)}: it is the plugin's own netns",
            "CNI_NETNS must be the container's; CNI_NETNS_OVERRIDE=1 says that the host's is meant",
        )
    return netns


def open_attest_file(path: str) -> int | None:
    """Open the file that attestations are appended to; None when nobody named one."""
    # TRUST: the path is the caller's, who is root; O_NOFOLLOW keeps a link in a shared directory from choosing.
    if not path:
        return None
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise IoFailure(f"open attestation file {quoted(path)}: {reason(error)}") from error


def _read_boot_id() -> str:
    fd = os.open(_BOOT_ID, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _fork_workers(
    name: str,
    needs: Needs,
    environment: Environment,
    user: ServiceUser,
    netns: namespaces.Netns | None,
    own_namespaces: dict[str, int],
    log: Log | None,
) -> tuple[Worker | None, Worker | None, Worker | None]:
    """Fork the workers that are needed; they confine themselves side by side.

    Returns:
        Host, container and delegate worker. The descriptors of the netns are closed here afterwards.
    """
    level, title = environment.level, f"[{name} {environment.ifname}]"
    # At mediated they become gates, which are what a worker at hardened is.
    is_gate_only = level is Level.MEDIATED
    network_level = Level.HARDENED if is_gate_only else level
    host = container = delegate = None
    with stage("fork", "entry"):
        pid_namespaces = namespaces.NewPidNamespaces()
    # ORDER: the one that takes longest to confine first.
    if needs.delegate:
        own_state_dirs = open_state_dirs(*user)
        wanted = delegate_worker(
            Level.ROOT if level is Level.ROOT else Level.HARDENED, user, own_state_dirs, environment.plugin_dirs
        )
        delegate = spawn(wanted, own_namespaces, None, None, pid_namespaces, title)
        for state_dir in own_state_dirs:
            os.close(state_dir.fd)
    log_fd, file_bytes = (None, 0) if log is None else (log.fd, _LOG_FILE_BYTES)
    if needs.container and netns is not None:
        wanted = network_worker("container worker", network_level, user, netns, file_bytes=file_bytes)
        container = spawn(
            wanted,
            own_namespaces,
            None,
            netns.inode,
            pid_namespaces,
            title,
            needs.gate("container worker", environment, log) if needs.gate else None,
            is_gate_only=is_gate_only,
            log_fd=log_fd,
        )
    if needs.host:
        protocols = (NETLINK_ROUTE, NETLINK_NETFILTER) if needs.is_nft_user else (NETLINK_ROUTE,)
        wanted = network_worker("host worker", network_level, user, None, protocols, file_bytes=file_bytes)
        host = spawn(
            wanted,
            own_namespaces,
            # The host worker has CAP_NET_ADMIN where all links of the host are; the container's netns is no more.
            netns.fd if netns else None,
            None,
            pid_namespaces,
            title,
            needs.gate("host worker", environment, log) if needs.gate else None,
            is_gate_only=is_gate_only,
            log_fd=log_fd,
        )
    if log is not None:
        os.close(log.fd)
    pid_namespaces.close()
    if netns is not None:
        namespaces.close_netns(netns)
    return host, container, delegate


def _level_without_network(level: Level) -> Level:
    """The level of a process that needs no CAP_NET_ADMIN: hardened at least, but where all is root for measuring."""
    return level if level in (Level.ROOT, Level.MEDIATED) else Level.HARDENED


def _drop(
    level: Level,
    user: ServiceUser,
    state_dirs: tuple[StateDir, ...],
    kept: set[int],
    own_namespaces: dict[str, int],
) -> tuple[Attestation, Expectation]:
    """Become the engine.

    Returns:
        What the kernel says about it, and what it must say.
    """
    own_level = _level_without_network(level)
    netns_inode = own_namespaces["net"]
    if level is Level.MEDIATED:
        with stage("namespaces", "engine"):
            netns_inode = namespaces.enter_empty_netns()
    wanted = Confinement(
        role="engine",
        level=own_level,
        uid=user.uid,
        gid=user.gid,
        capabilities=(),
        netns_fd=None,
        userns_fd=None,
        mounts=(),
        has_system_in_view=False,
        rules=tuple(landlock.PathRule(state_dir.fd, landlock.KEEP_STATE) for state_dir in state_dirs),
        filter_program=seccomp.engine_filter() if PROTECTIONS[own_level].has_seccomp else b"",
        file_bytes=_ENGINE_FILE_BYTES,
        processes=0,
        address_space_bytes=limits.ADDRESS_SPACE_BYTES,
        dies_with_parent=False,
    )
    expected = Expectation(
        role="engine",
        level=own_level,
        uid=user.uid,
        gid=user.gid,
        capabilities=0,
        has_own_pid_namespace=False,
        own_namespaces=own_namespaces,
        netns_inode=netns_inode,
        parent_pid=os.getppid(),
        descriptors=tuple(sorted(kept)),
        dies_with_parent=False,
        limits=expected_limits(wanted),
        mounts=expected_mounts(wanted),
    )
    return confine(wanted, kept), expected


def drop_for_error() -> None:
    """Drop as far as that is possible, so that an error is not printed by a process of root."""
    if os.geteuid() != 0:
        return
    try:
        kept = set(_STANDARD_DESCRIPTORS)
        _drop(Level.HARDENED, service_user(), (), kept, namespaces.inodes())
    except Exception:  # noqa: BLE001
        # What failed is reported by the error that brought us here; from here on only a constant JSON shape is written.
        return

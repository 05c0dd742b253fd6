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
from collections.abc import Collection

from cnisandbox.boundary import landlock, limits, namespaces
from cnisandbox.boundary.attestation import Attestation, Expectation
from cnisandbox.boundary.confinement import complete, prepare, stage
from cnisandbox.boundary.environment import VERBS_OF_AN_ATTACHMENT, Environment, read_environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import ServiceUser, Worker, service_user
from cnisandbox.boundary.state import (
    StateDir,
    are_current,
    close_state_dirs,
    open_sets_of_state_dirs,
    open_state_dirs,
    read_boot_id,
)
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.workers import Ahead, Needs, begin_workers, fork_workers, plan_engine
from cnisandbox.errors import CniError, InvalidNetns, IoFailure, PrivilegeNotDropped, quoted, reason
from cnisandbox.hints import NamedTuple, NoReturn, Protocol

_STANDARD_DESCRIPTORS = (0, 1, 2)


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
    """What goes on after the drop; it never returns to the entry's code.

    Attributes:
        descriptors: What it keeps besides the standard ones.
    """

    descriptors: set[int]

    def run(self, session: Session) -> NoReturn:
        """Serve the call."""

    def fail(self, error: CniError) -> NoReturn:
        """Report an error that prevented the call."""

    def describe(self) -> NoReturn:
        """Answer a call by hand, without CNI_COMMAND."""

    def answer_version(self) -> NoReturn:
        """Answer VERSION."""


def main(name: str, needs: Needs, engine: Engine, ahead: Ahead | None = None) -> NoReturn:
    """Run a plugin.

    Args:
        name: Its name, for the process list.
        needs: Which helpers it needs.
        engine: What goes on after the drop.
        ahead: What was made ahead of this call, if anything was; for levels hardened and mediated.

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
        session = _prepare(name, needs, environment, ahead, engine.descriptors)
    except CniError as error:
        # ORDER: an error is printed after the drop too. Where even that is refused there is no privilege to lose.
        drop_for_error(engine.descriptors)
        engine.fail(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the call without privilege and without traceback
        drop_for_error(engine.descriptors)
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


def _prepare(
    name: str, needs: Needs, environment: Environment, ahead: Ahead | None = None, held: Collection[int] = ()
) -> Session:
    """Open what is needed, make the workers, and drop everything."""
    if os.geteuid() != 0:
        raise PrivilegeNotDropped("confine plugin: only root can", "have the runtime, or sudo, execute it")
    with stage("open", "entry"):
        user, own_namespaces = _whose(environment, ahead)
        netns = open_container_netns(environment)
        attest_fd = open_attest_file(environment.attest_path)
        state_dirs, delegate_dirs = _state_dirs(needs, user, ahead)
        # ORDER: only where the workers are gates from the beginning; one that runs code of a plugin gets no log.
        has_log = environment.level is Level.MEDIATED and needs.open_log is not None
        log = needs.open_log(environment.log_target) if has_log and needs.open_log else None
        boot_id = read_boot_id() if ahead is None else ahead.boot_id
    if ahead is None:
        workers = fork_workers(name, needs, environment, user, netns, own_namespaces, log, delegate_dirs)
        close_state_dirs(delegate_dirs)
    else:
        workers = begin_workers(name, needs, environment, netns, log, ahead, state_dirs)
    if log is not None:
        os.close(log.fd)
    if netns is not None:
        namespaces.close_netns(netns)
    kept = {*_STANDARD_DESCRIPTORS, *held, *(state_dir.fd for state_dir in state_dirs), *workers.descriptors}
    kept |= set() if attest_fd is None else {attest_fd}
    set_title(f"cnisandbox: engine [{name} {environment.ifname}]")
    engine_said, expected = _drop(environment.level, user, state_dirs, kept, own_namespaces, ahead)
    return Session(environment, *workers, state_dirs, boot_id, attest_fd, engine_said, expected)


def _whose(environment: Environment, ahead: Ahead | None) -> tuple[ServiceUser, dict[str, int]]:
    """Say whom everybody becomes, and in which namespaces we began."""
    if ahead is not None:
        return ahead.user, ahead.own_namespaces
    # At level root everybody stays root, for whom state directories that are mapped to the service user are no use.
    user = ServiceUser(0, 0) if environment.level is Level.ROOT else service_user()
    return user, namespaces.inodes()


def _state_dirs(
    needs: Needs, user: ServiceUser, ahead: Ahead | None
) -> tuple[tuple[StateDir, ...], tuple[StateDir, ...]]:
    """Open state directories for the engine, and for a delegate worker that was not made ahead."""
    if ahead is not None:
        is_fit = not needs.state or are_current(ahead.state_dirs, user.uid)
        return ahead.state_dirs if is_fit else open_state_dirs(*user), ()
    opened = open_sets_of_state_dirs(needs.state + needs.delegate, *user)
    delegate_dirs = opened.pop() if needs.delegate else ()
    return opened.pop() if needs.state else (), delegate_dirs


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


def _level_without_network(level: Level) -> Level:
    """The level of a process that needs no CAP_NET_ADMIN: hardened at least, but where all is root for measuring."""
    return level if level in (Level.ROOT, Level.MEDIATED) else Level.HARDENED


def _drop(
    level: Level,
    user: ServiceUser,
    state_dirs: tuple[StateDir, ...],
    kept: set[int],
    own_namespaces: dict[str, int],
    ahead: Ahead | None = None,
) -> tuple[Attestation, Expectation]:
    """Become the engine.

    Returns:
        What the kernel says about it, and what it must say.
    """
    own_level = _level_without_network(level)
    wanted, expected = plan_engine(own_level, user, own_namespaces, os.getppid()) if ahead is None else ahead.plan
    rules = tuple(landlock.PathRule(state_dir.fd, landlock.KEEP_STATE) for state_dir in state_dirs)
    wanted = wanted._replace(level=own_level, rules=rules)
    expected = expected._replace(level=own_level, descriptors=tuple(sorted(kept)))
    if level is Level.MEDIATED:
        with stage("namespaces", "engine"):
            expected = expected._replace(netns_inode=_enter_empty_netns(ahead))
    return complete(wanted, kept, prepare(wanted) if ahead is None else ahead.ground), expected


def _enter_empty_netns(ahead: Ahead | None) -> int:
    if ahead is None:
        return namespaces.enter_empty_netns()
    # TRUST: engines of all calls share it. None can make a socket there, or has a capability over it; without their
    # filter they could speak to each other, as at hardened, and to nothing else.
    namespaces.enter_netns(ahead.empty_netns.fd)
    return ahead.empty_netns.inode


def drop_for_error(held: Collection[int] = ()) -> None:
    """Drop as far as that is possible, so that an error is not printed by a process of root.

    Args:
        held: Descriptors to keep besides the standard ones.
    """
    if os.geteuid() != 0:
        return
    try:
        kept = {*_STANDARD_DESCRIPTORS, *held}
        _drop(Level.HARDENED, service_user(), (), kept, namespaces.inodes())
    except Exception:  # noqa: BLE001
        # What failed is reported by the error that brought us here; from here on only a constant JSON shape is written.
        return

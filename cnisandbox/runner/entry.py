"""The entry of a run: what `cnisandbox exec` and the shims begin with, root for as short a time as possible.

    runtime -> entry    validates the CNI_* variables, opens netns, state directories and log, loads the profile
                 |- monitor, and below it opener and worker (supervision.py): they wait, and are told what was found
                 '- drops everything itself = the keeper: reads standard input, and passes on what goes in and out

Privilege: everything the runtime has, until `_drop`. Nothing of standard input, of CNI_ARGS or of a state file is read
before; a profile is configuration of root's alone.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import gc
import os
import signal

from cnisandbox.audit.log import LogTarget, open_log
from cnisandbox.boundary import limits, namespaces, seccomp
from cnisandbox.boundary.attestation import Attestation, Expectation
from cnisandbox.boundary.confinement import (
    Confinement,
    Ground,
    complete,
    expected_limits,
    expected_mounts,
    prepare,
    stage,
)
from cnisandbox.boundary.credentials import mask_of
from cnisandbox.boundary.entry import (
    drop_for_error,
    fill_standard_descriptors,
    open_attest_file,
    open_container_netns,
)
from cnisandbox.boundary.environment import read_environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import ServiceUser, fork_into, service_user
from cnisandbox.boundary.state import open_named_state_dirs, userns_for
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.wire import Channel, channel_pair
from cnisandbox.cni.output import error_document
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.errors import CniError, InvalidConfig, PrivilegeNotDropped, quoted
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.profile.load import load_profile, profile_for
from cnisandbox.runner.facts import WorkerExpectation
from cnisandbox.runner.keeper import Keeper, Processes, Streams, keep, say
from cnisandbox.runner.plan import Plan, find_plugin, process_of_path, write_plan
from cnisandbox.runner.supervision import Ends, be_monitor, confinement
from cnisandbox.runner.waiting import Settle, tell

_ORDER = (Level.ROOT, Level.NETADMIN, Level.HARDENED, Level.MEDIATED)


class Options(NamedTuple):
    """How a plugin is to be run.

    Attributes:
        plugin: Path of the plugin.
        arguments: What follows it on its command line.
        level: How much is taken away; None for what its profile says.
        profile: Name or file of the profile; empty for the one of the plugin's name.
        attest_path: File to append the attestations to; may be empty.
        log: Path of the audit log, "journald", or empty.
        overlays: (path of a plugin in view, file that stands there instead).
    """

    plugin: str
    arguments: tuple[str, ...] = ()
    level: Level | None = None
    profile: str = ""
    attest_path: str = ""
    log: str = ""
    overlays: tuple[tuple[str, str], ...] = ()


class Slot(NamedTuple):
    """A process that was forked ahead of the call, and is its by now: the entry's, when the run begins.

    Attributes:
        status_fd: Where the exit status goes as well, for who waits for it and is not our parent.
        ahead: What was made ahead.
    """

    status_fd: int
    ahead: "Ahead"


class Ahead(NamedTuple):
    """What no call has an influence on, made for one call.

    Attributes:
        user: Whom everybody becomes.
        own_namespaces: Inode numbers of the namespaces that this process was made in.
        filters: How many filters it is under.
        monitor_pid, monitor_fd: The monitor, which waits, as do opener and worker below it; and a pidfd of it.
        own_fd: A pidfd of this process, the keeper to be.
        channel: To the monitor.
        ends: Where the three are told what they are for.
        state_userns_fd: What state directories are idmapped by; negative where they cannot be.
        ground: What the keeper stands on.
    """

    user: ServiceUser
    own_namespaces: dict[str, int]
    filters: int
    monitor_pid: int
    monitor_fd: int
    own_fd: int
    channel: Channel
    ends: Ends
    state_userns_fd: int
    ground: Ground


def make_ahead(settle: Settle) -> Ahead:
    """Make everything that no call has an influence on, for one call.

    Args:
        settle: What each process does last before it waits, for its role.

    Raises:
        CniError: something cannot be made.
    """
    user = service_user()
    own_namespaces = namespaces.inodes()
    filters = _own_filters()
    with stage("channel", "entry"):
        ours, theirs = channel_pair("monitor", "keeper")
        pairs = [_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC) for _ in Ends._fields]
    with stage("fork", "entry"):
        pid_namespaces = namespaces.NewPidNamespaces()
        monitor_pid = fork_into(pid_namespaces)
    if monitor_pid == 0:
        be_monitor(user, theirs, Ends(*(end for _, end in pairs)), settle)
    pid_namespaces.close()
    theirs.close()
    for _, end in pairs:
        end.close()
    ends = Ends(*(end for end, _ in pairs))
    with stage("open", "entry"):
        monitor_fd, own_fd = (checked(lib.native_pidfd_open(pid), "pidfd_open") for pid in (monitor_pid, os.getpid()))
        state_userns_fd = userns_for(*user)
    ground = prepare(_keeper_confinement(user), comes_back=True)
    settle("keeper")
    return Ahead(user, own_namespaces, filters, monitor_pid, monitor_fd, own_fd, ours, ends, state_userns_fd, ground)


def run(options: Options, slot: Slot | None = None) -> NoReturn:
    """Run a plugin as the options say, with our environment and standard descriptors; never returns.

    Args:
        options: How.
        slot: The process that we are, if it was forked ahead of the call.

    What goes wrong on our side is reported as a CNI error on standard output, with exit status 1.
    """
    gc.disable()  # a call is over before garbage matters
    fill_standard_descriptors()
    try:
        _run(options, slot)
    except CniError as error:
        _fail(error, slot)
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends the call without traceback
        _fail(PrivilegeNotDropped(f"confine {options.plugin}: {type(error).__name__}: {error}"), slot)


def _run(options: Options, slot: Slot | None) -> NoReturn:
    environment = read_environment(os.environ) if os.environ.get("CNI_COMMAND") else None
    profile = load_profile(options.profile) if options.profile else profile_for(os.path.basename(options.plugin))
    level = _level(options, profile.level)
    plugin = find_plugin(options.plugin)
    if level is Level.ROOT:
        # In front of the plugin stands a shim of ours, perhaps, which would begin again.
        program = dict(options.overlays).get(plugin, plugin)
        if slot:  # who waits for the status then learns it from our parent, when the plugin has ended
            os.set_inheritable(slot.status_fd, True)
            os.kill(slot.ahead.monitor_pid, signal.SIGKILL)
            os.waitpid(slot.ahead.monitor_pid, 0)
        os.execve(program, [plugin, *options.arguments], os.environ)  # noqa: S606 - no shell is wanted
    if os.geteuid() != 0:
        raise PrivilegeNotDropped("confine plugin: only root can", "have the runtime, or sudo, execute it")
    ahead = slot.ahead if slot else make_ahead(lambda _: None)
    with stage("open", "entry"):
        netns = open_container_netns(environment) if environment else None
        attest_fd = open_attest_file(options.attest_path or os.environ.get("CNISANDBOX_ATTEST", ""))
        log = open_log(options.log or os.environ.get("CNISANDBOX_LOG", ""))
        state_dirs = open_named_state_dirs(profile.state, *ahead.user, ahead.state_userns_fd)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    holder = process_of_path(environment.netns_path) if environment and netns else 0
    plan = Plan(
        plugin, options.arguments, options.overlays, profile, level, ahead.user, environment, netns, state_dirs, holder
    )
    streams = Streams(pipes[0][1], pipes[1][0], pipes[2][0])
    with stage("channel", "entry"):
        _tell(plan, ahead.ends, log, (pipes[0][0], pipes[1][1], pipes[2][1]))
    expectations = _expectations(plan, ahead)
    keeper_said, expected = _drop(plan, ahead, streams, attest_fd, slot)
    status_fd = slot.status_fd if slot else None
    processes = Processes(ahead.monitor_pid, ahead.monitor_fd, ahead.own_fd)
    keep(Keeper(plan, ahead.channel, streams, processes, attest_fd, status_fd, keeper_said, expected, *expectations))


def _tell(plan: Plan, ends: Ends, log: LogTarget | None, standard: tuple[int, int, int]) -> None:
    """Tell everybody what they are for; who has the longest way to go comes first."""
    variables = os.fsencode("\0".join(map("=".join, os.environ.items())))
    written = write_plan(plan)
    tell(ends.worker, written, variables, standard)
    if plan.netns is not None:
        tell(ends.opener, written)
    tell(ends.monitor, written, (log.kind if log else "file").encode(), (log.fd,) if log else ())
    ends.opener.close()  # where there is no container's netns, it has been told nothing, and ends


def _level(options: Options, highest: Level) -> Level:
    """Choose the level: what the caller, who is root, asks for, or what the profile is made for."""
    asked = os.environ.get("CNISANDBOX_LEVEL", "")
    try:
        wanted = options.level or (Level(asked) if asked else highest)
    except ValueError as error:
        names = ", ".join(level.value for level in Level)
        raise InvalidConfig(f"CNISANDBOX_LEVEL: {quoted(asked)} is not one of {names}") from error
    if wanted is Level.NETADMIN:
        raise InvalidConfig(
            "level netadmin: an unmodified plugin has to enter the container's netns, which takes CAP_SYS_ADMIN",
            "choose root, hardened or mediated; the levels above netadmin have somebody enter it for the plugin",
        )
    if _ORDER.index(wanted) > _ORDER.index(highest):
        raise InvalidConfig(
            f"level {wanted.value}: the profile is made for {highest.value}",
            "write a profile with permits for this plugin (docs/profiles.md)",
        )
    return wanted


def _own_filters() -> int:
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, 1 << 14).decode("ascii", "replace").splitlines()
    finally:
        os.close(fd)
    return next(int(line.split()[1]) for line in lines if line.startswith("Seccomp_filters:"))


def _keeper_confinement(user: ServiceUser) -> Confinement:
    return Confinement(
        role="keeper",
        level=Level.HARDENED,
        uid=user.uid,
        gid=user.gid,
        capabilities=(),
        netns_fd=None,
        userns_fd=None,
        mounts=(),
        has_system_in_view=False,
        rules=(),
        filter_program=seccomp.keeper_filter(),
        file_bytes=limits.ADDRESS_SPACE_BYTES,
        processes=0,
        address_space_bytes=limits.ADDRESS_SPACE_BYTES,
        dies_with_parent=False,
        has_dependents=True,
    )


def _drop(
    plan: Plan, ahead: Ahead, streams: Streams, attest_fd: int | None, slot: Slot | None
) -> tuple[Attestation, Expectation]:
    """Become the keeper."""
    set_title(f"cnisandbox: keeper [{plan.name}]")
    channel = ahead.channel
    kept = {0, 1, 2, channel.read_fd, channel.write_fd, *streams, ahead.monitor_fd, ahead.own_fd}
    kept |= set() if attest_fd is None else {attest_fd}
    kept |= {slot.status_fd} if slot else set()
    parent = None if slot else os.getppid()  # a slot outlives its zygote
    wanted = _keeper_confinement(ahead.user)
    expected = _expectation(wanted, ahead.own_namespaces, parent, ahead.own_namespaces["net"])
    said = complete(wanted, kept, ahead.ground)
    return said, expected._replace(descriptors=tuple(sorted(kept)), has_own_pid_namespace=False)


def _expectation(
    wanted: Confinement, own_namespaces: dict[str, int], parent: int | None, netns_inode: int
) -> Expectation:
    return Expectation(
        role=wanted.role,
        level=wanted.level,
        uid=wanted.uid,
        gid=wanted.gid,
        capabilities=mask_of(wanted.capabilities),
        has_own_pid_namespace=True,
        own_namespaces=own_namespaces,
        netns_inode=netns_inode,
        parent_pid=parent,
        descriptors=(),
        dies_with_parent=wanted.dies_with_parent,
        limits=expected_limits(wanted),
        mounts=expected_mounts(wanted),
        has_landlock=wanted.has_landlock,
    )


def _expectations(plan: Plan, ahead: Ahead) -> tuple[Expectation, Expectation | None, WorkerExpectation]:
    """Say what the monitor, the opener and the worker must be."""
    own = ahead.own_namespaces
    monitor = _expectation(confinement("monitor", ahead.user), own, os.getpid(), own["net"])
    opener = None
    if plan.netns is not None:
        opener = _expectation(confinement("opener", ahead.user, plan), own, ahead.monitor_pid, plan.netns.inode)
    netns_inode = plan.netns.inode if plan.netns else 0
    worker = WorkerExpectation(plan.level, *plan.user, own, netns_inode, ahead.filters)
    return monitor, opener, worker


def _fail(error: CniError, slot: Slot | None) -> NoReturn:
    """Report an error that came before the keeper; where that is possible without privilege."""
    document = error_document(error, SUPPORTED[-1])
    if os.geteuid() == 0:
        drop_for_error([slot.status_fd] if slot else [])
    os.write(1, document)
    say(1, slot.status_fd if slot else None)
    os._exit(1)

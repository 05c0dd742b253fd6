"""The worker: waits, becomes what the plan says, then executes the plugin.

Privilege: everything the entry has, until the credentials are dropped; the program that is executed has no capability
at level mediated, and CAP_NET_ADMIN at the levels below it.

The order is that of `boundary.confinement.STAGES`, with two differences. The Landlock domain is entered before the
credentials go, so that the holder of a netns path below /proc is born within it; and the filter is loaded with a
listener, which the monitor fetches for itself.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import os
import signal
import time
from contextlib import suppress

from cnisandbox.boundary import credentials, landlock, limits, namespaces, prctl, seccomp
from cnisandbox.boundary.confinement import stage
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.boundary.syscalls import CLONE_NEWNET, checked, lib
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.view import (
    Mount,
    clone_tree,
    complete_program_root,
    enter_program_root,
    new_procfs,
    trees_of,
)
from cnisandbox.errors import CniError, PrivilegeNotDropped
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.runner.plan import (
    Plan,
    common_mounts,
    dynamic_linkers,
    links_of_view,
    mounts_of_view,
    rules_of_landlock,
)
from cnisandbox.runner.waiting import Settle, wait

ROLE = "worker"

# LIMIT: a Go program reserves much more address space than it uses.
ADDRESS_SPACE_BYTES = 16 << 30
# LIMIT: processes of the service user on the whole machine, of all calls under way together.
PROCESSES = 2048
FILE_BYTES = 16 << 20
# LIMIT: the monitor's gifts end here, and nothing has a number above.
DESCRIPTORS = 1024

PACKET_PROTOCOLS = {"arp": 0x0608, "dhcp": 0x0008}  # ETH_P_ARP, ETH_P_IP as socket(2) takes them: in network order

_READY, _FAILED = b"R", b"F"


class Ends(NamedTuple):
    """The descriptors of a worker.

    Attributes:
        told: Where it is told what it is for.
        said_fd: Where it says that it is ready, or what failed.
        go_fd: From which it learns that it may execute the plugin.
    """

    told: _socket.socket
    said_fd: int
    go_fd: int


class _Ahead(NamedTuple):
    """What a worker has made before it is told what it is for.

    Attributes:
        host_fd: The host's netns, which it has left.
        token_fd: An empty netns that means the container's to the plugin; the worker stands in another one.
        view_fd: A mount namespace of its own, with what every plugin sees; the worker stands in the host's, to find
            there what its own plugin sees besides.
        mounts: What is mounted there.
        linkers: The dynamic linkers.
    """

    host_fd: int
    token_fd: int
    view_fd: int
    mounts: tuple[Mount, ...]
    linkers: list[str]


def worker_limits() -> dict[str, int]:
    """Say what the resource limits of a worker are."""
    return limits.lowered_limits(
        file_bytes=FILE_BYTES,
        processes=PROCESSES,
        address_space_bytes=ADDRESS_SPACE_BYTES,
        descriptors=DESCRIPTORS,
    )


def be_worker(ends: Ends, settle: Settle) -> NoReturn:
    """Live as the worker; never returns.

    Args:
        ends: Its descriptors.
        settle: What it does last before it waits.
    """
    plugin = "plugin"
    try:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            set_title(f"cnisandbox: {ROLE} [waiting]")
            prctl.set_pdeathsig(signal.SIGKILL)
            with stage("namespaces", ROLE):
                limits.close_all_but({0, 1, 2, ends.told.fileno(), ends.said_fd, ends.go_fd})
                ahead = _make_ahead()
            settle(ROLE)
            plan, variables, standard = wait(ends.told)
            plugin = plan.plugin
            listener_fd, tokens = _confine(plan, ends, standard, ahead)
        except CniError as error:
            os.write(ends.said_fd, _FAILED + str(error).encode("utf-8", "replace")[:2000])
            os._exit(1)
        os.write(ends.said_fd, _READY + b"%d %d %d" % (listener_fd, *tokens))
        if os.read(ends.go_fd, 1) != b"G":
            os._exit(1)
        os.close(ends.said_fd)
        os.close(ends.go_fd)
        if listener_fd >= 0:
            os.close(listener_fd)
        environment = dict(entry.split(b"=", 1) for entry in variables.split(b"\0") if entry)
        os.execve(plugin, [plugin, *plan.arguments], environment)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"cnisandbox: execute {plugin}: {error.strerror}\n".encode("utf-8", "replace"))
        os._exit(127)
    finally:
        os._exit(1)


def _make_ahead() -> _Ahead:
    """Make the namespaces: of the network those of level mediated; another level goes back."""
    host_fd = _own_netns()
    namespaces.enter_empty_netns()
    token_fd = _own_netns()
    namespaces.enter_empty_netns()
    outside_fd = namespaces.open_own_mounts()
    mounts, links, linkers = common_mounts(new_procfs(has_only_processes=True)), links_of_view(), dynamic_linkers()
    namespaces.enter_own_namespaces()
    enter_program_root(mounts, links)
    view_fd = namespaces.open_own_mounts()
    namespaces.enter_mounts(outside_fd)
    os.close(outside_fd)
    return _Ahead(host_fd, token_fd, view_fd, mounts, linkers)


def _own_netns() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _confine(plan: Plan, ends: Ends, standard: tuple[int, ...], ahead: _Ahead) -> tuple[int, tuple[int, int]]:
    """Go through the stages.

    Returns:
        The listener's descriptor, or -1 without one; the inodes of the tokens of host and container.
    """
    protections = PROTECTIONS[plan.level]
    is_mediated = plan.level is Level.MEDIATED
    with stage("namespaces", ROLE):
        if not is_mediated:
            namespaces.enter_netns(ahead.host_fd)
        container_fd = _container_token(plan, ahead)
        tokens = (os.stat("/proc/self/ns/net").st_ino, 0 if container_fd is None else os.fstat(container_fd).st_ino)
        token_fd = None if plan.holder or container_fd is None else clone_tree(f"/proc/self/fd/{container_fd}")
        trees = trees_of(mounts_of_view(plan, ahead.mounts, token_fd))
        namespaces.enter_mounts(ahead.view_fd)
        complete_program_root(trees)
    with stage("filters", ROLE):
        if protections.has_landlock:
            landlock.enter_domain(rules_of_landlock(plan, ahead.linkers))
    with stage("namespaces", ROLE):
        if plan.holder and container_fd is not None:
            _fork_holder(plan, container_fd)
    with stage("credentials", ROLE):
        if not is_mediated:
            checked(lib.native_keep_over_exec(credentials.CAP_NET_ADMIN), "ambient set")
        capabilities = () if is_mediated else (credentials.CAP_NET_ADMIN,)
        credentials.drop_credentials(*plan.user, capabilities, is_kept_over_exec=bool(capabilities))
    with stage("lifetime", ROLE):
        credentials.bind_lifetime(dies_with_parent=True)
        if protections.has_limits:
            limits.lower_limits(worker_limits())
        # The monitor, which is the same user and has no other right to it, reads what we are and fetches the listener.
        # We are by now what the plugin will be, which is dumpable as every program: it has our uid, capabilities, pid
        # namespace and Landlock domain, and what keeps others of that user off it keeps them off us.
        prctl.set_dumpable(True)
    with stage("filters", ROLE):
        for target, fd in enumerate(standard):
            os.dup2(fd, target)
        _make_room_for_gifts(ends.said_fd)
        limits.close_all_but({0, 1, 2, ends.said_fd, ends.go_fd})
        return _load_filter(plan), tokens


def _make_room_for_gifts(fd: int) -> None:
    """Have the kernel make room for the highest number that the monitor gives; the copy is closed with the others."""
    # KERNEL: a process with threads whose table of descriptors grows waits until no processor can be looking at the old
    # one (synchronize_rcu in expand_fdtable), 10 to 25 ms; with one thread it does not, and a program that is executed
    # keeps the table.
    with suppress(OSError):  # the runtime allows fewer; the gift will fail, and nothing else
        os.dup2(fd, DESCRIPTORS - 1, inheritable=False)


def _container_token(plan: Plan, ahead: _Ahead) -> int | None:
    """Say what means the container's netns to the plugin: at mediated a netns that is nobody's."""
    if plan.netns is None:
        return None
    return ahead.token_fd if plan.level is Level.MEDIATED else plan.netns.fd


def _fork_holder(plan: Plan, container_fd: int) -> None:
    """Make a process of the number that CNI_NETNS names; it stands in the container's token and does nothing else."""
    ready_fd, says_ready_fd = os.pipe2(os.O_CLOEXEC)
    pid = checked(lib.native_fork_as(plan.holder), f"process {plan.holder}")
    if pid:
        os.close(says_ready_fd)
        # ORDER: the plugin may look for it with its first step. If it has failed, the plugin finds nobody.
        os.read(ready_fd, 1)
        os.close(ready_fd)
        return
    try:
        set_title("cnisandbox: holder of CNI_NETNS")
        checked(lib.native_setns(container_fd, CLONE_NEWNET), "setns")
        program = seccomp.engine_filter()
        limits.close_all_but({says_ready_fd})
        credentials.drop_credentials(*plan.user, ())
        credentials.bind_lifetime(dies_with_parent=True)
        prctl.set_dumpable(True)  # so that the plugin may open its netns; there is nothing else to be seen in it
        os.close(says_ready_fd)
        seccomp.load(program)
        while True:
            time.sleep(3600)
    finally:
        os._exit(1)


def _load_filter(plan: Plan) -> int:
    protections = PROTECTIONS[plan.level]
    if not protections.has_seccomp:
        return -1
    program = seccomp.foreign_filter(
        tuple(PACKET_PROTOCOLS[name] for name in plan.profile.raw_sockets),
        is_mediated=plan.level is Level.MEDIATED,
        has_unix_sockets=bool(plan.profile.unix_sockets),
    )
    try:
        return seccomp.load_and_listen(program)
    except OSError as error:
        raise PrivilegeNotDropped(f"filters {ROLE}: load the filter with a listener: {error.strerror}") from error

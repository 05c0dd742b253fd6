"""A slot: a child of the zygote that makes everything ahead, waits for one call, and becomes its entry.

Who is it? A call is served for a process that could as well have executed the plugin itself, to the same effect:

    uid 0, and no capability less than ours              it is no weaker than what it would get
    our mount, net, pid and user namespace, our root     paths and ids mean the same, and it is in no container
    no system call filter, no no_new_privs               it is not confined in another way
    our LSM label                                        likewise

The kernel says who made the connection (SO_PEERCRED) and who sends the request (SCM_CREDENTIALS, which only
CAP_SYS_ADMIN can forge); a pidfd from before the nonce was sent tells that the number was not given to another process
in between. Whoever fails is not answered; his launcher starts the interpreter, which has the rights that he has.

His descriptors are not sent but fetched, of that pidfd, when there is nothing left to judge. So who is refused, or
turns away from a slot that hangs, has lent it nothing, and no pipe of a runtime stays open behind his back.

Privilege: everything the runtime has, until it has become the engine. Of the request it reads a header of fixed size;
the rest is the environment, which goes where the kernel would have put it.
"""

import _socket
import array
import os
import select
from collections.abc import Callable

from cnisandbox.boundary import limits, prctl, processors
from cnisandbox.boundary.ahead import Settle
from cnisandbox.boundary.attestation import status_field
from cnisandbox.boundary.namespaces import Netns
from cnisandbox.boundary.pages import Pages, fetch
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.title import set_title
from cnisandbox.boundary.workers import Ahead, make_ahead
from cnisandbox.errors import CniError
from cnisandbox.hints import Any, NamedTuple, NoReturn
from cnisandbox.light import signal
from cnisandbox.plugin import Plugin, needs_of, run
from cnisandbox.zygote import protocol

# LIMIT: seconds for a launcher to send its request; it does so at once. Less than the patience of those behind it.
_REQUEST_TIMEOUT_S = 0.5
_STATUS_BYTES = 8192
_SAME = ("mnt", "net", "pid", "user")
_OOM_SCORE_MAX = 1000
# The levels that a slot is prepared for; the others are for measuring.
_LEVELS = ("", "hardened", "mediated")


class Self(NamedTuple):
    """What a launcher's process must have in common with ours.

    Attributes:
        place: Its namespaces, and the path of its root; nothing that is looked at there can hold us up.
        facts: What else has to be the same.
        capabilities: What must not be fewer.
    """

    place: tuple[str, ...]
    facts: tuple[object, ...]
    capabilities: int


class Ends(NamedTuple):
    """What a slot has of its zygote.

    Attributes:
        listener: Where launchers connect.
        control: Where the slot tells its zygote that it has taken a call.
        build_id: What is loaded.
        zygote: Its process id.
        processors: Where it may run.
        own: What it is, and a slot like it.
        mounts_fd: A mount namespace like ours with little in it.
    """

    listener: _socket.socket
    control: _socket.socket
    build_id: bytes
    zygote: int
    processors: set[int]
    own: Self
    mounts_fd: int


class Taken(NamedTuple):
    """A call that was taken.

    Attributes:
        subject: What the launcher says of itself; empty but for the runner's.
        variables: Its environment.
        standard: Standard input, output, error.
        status_fd: The end of the pipe for its status.
    """

    subject: str
    variables: dict[str, str]
    standard: list[int]
    status_fd: int


# Has a call of whom it is told served, with the parameters of it and `Ends.mounts_fd`; says what each role has used.
Play = Callable[["Served", dict[str, str], int], dict[str, Pages]]

# Serves calls that nobody has asked for, in the zygote itself; told what to do with a warning.
Practice = Callable[[Callable[[str], None]], None]


class Served(NamedTuple):
    """Whose calls a slot serves.

    Attributes:
        name: Of the plugin, or the runner's.
        prepare: Makes what can be made ahead of a call, with `Ends.mounts_fd`; has each process settle, that has the
            role named, before it waits.
        begin: Is the entry of a call, with what was made.
        play: The rehearsal; None where there is nothing to be rehearsed.
        practise: What the zygote does before it forks; None for nothing.
        has_subject: Whether launchers say something before the environment.
        held: Descriptors of the zygote that it needs.
    """

    name: str
    prepare: Callable[[Settle, int], Any]
    begin: Callable[[Any, Taken], NoReturn]
    play: Play | None = None
    practise: Practice | None = None
    has_subject: bool = False
    held: tuple[int, ...] = ()


def of_plugin(
    plugin: type[Plugin],
    plugin_dirs: tuple[str, ...],
    empty_netns: Netns,
    play: Play | None,
    practise: Practice | None,
) -> Served:
    """Serve the calls of a plugin of ours.

    Args:
        plugin: The plugin.
        plugin_dirs: Directories of plugins that calls are expected to name.
        empty_netns: For engines at mediated.
        play: The rehearsal, if there is one.
        practise: The practice, likewise.
    """

    def prepare(settle: Settle, mounts_fd: int) -> Ahead:
        return make_ahead(plugin.name, needs_of(plugin), plugin_dirs, settle, mounts_fd, empty_netns)

    return Served(
        plugin.name,
        prepare,
        lambda ahead, taken: run(plugin, ahead, taken.status_fd),
        play,
        practise,
        held=(empty_netns.fd,),
    )


def live(served: Served, ends: Ends, pages: dict[str, Pages]) -> NoReturn:
    """Be a slot, in a process that was just forked.

    Args:
        served: Whose calls it serves.
        ends: What it has of the zygote; everything else is closed.
        pages: What processes of each role are going to use.
    """
    set_title(f"cnisandbox: slot [{served.name}]")
    limits.close_all_but({0, 1, 2, ends.listener.fileno(), ends.control.fileno(), ends.mounts_fd, *served.held})

    def settle(role: str) -> None:
        if role in pages:
            fetch(pages[role])

    try:
        _end_with_the_zygote(ends.zygote)
        _end_before_the_zygote()
        # Another slot may just have kept the zygote off a processor.
        processors.allow(ends.processors)
        ahead = served.prepare(settle, ends.mounts_fd)
        os.close(ends.mounts_fd)
        taken = _take(ends, served.has_subject)
        _adopt(taken)
    except CniError as error:
        os.write(2, f"cnisandbox: {error.msg}\n".encode("utf-8", "replace"))
        os._exit(3)
    except Exception as error:  # noqa: BLE001 - a slot that cannot be one; its zygote says so
        os.write(2, f"cnisandbox: slot: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(3)
    served.begin(ahead, taken)


def _end_with_the_zygote(zygote: int) -> None:
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != zygote:  # it has ended before it could matter
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # ORDER: after the handlers, which are the zygote's; it has blocked their signals while it forked.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end_before_the_zygote() -> None:
    """Be chosen before the zygote when memory is used up: it maps more than any of us, and calls end with the service.

    KERNEL: the unit's score, -1000, keeps the zygote from being chosen at all; one more is like any other.
    """
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % min(int(os.read(fd, 16)) + 1, _OOM_SCORE_MAX))
    finally:
        os.close(fd)


def _take(ends: Ends, has_subject: bool) -> Taken:
    while True:
        connection_fd, _ = ends.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - of socket.socket
        connection = _socket.socket(fileno=connection_fd)
        taken = None
        try:
            taken = _converse(connection, ends, has_subject)
        except OSError:
            pass  # it has gone, or it is no launcher
        finally:
            connection.close()
        if taken is not None:
            ends.listener.close()
            ends.control.close()
            return taken


def _converse(connection: _socket.socket, ends: Ends, has_subject: bool) -> Taken | None:
    pid, uid, _ = protocol.CREDENTIALS.unpack(
        connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, protocol.CREDENTIALS.size)
    )
    if uid != 0:
        return None
    pidfd = checked(lib.native_pidfd_open(pid), "pidfd_open")
    try:
        nonce = os.urandom(protocol.NONCE_BYTES)
        connection.send(protocol.HELLO.pack(protocol.PROTOCOL, ends.build_id, nonce), _socket.MSG_NOSIGNAL)
        # The launcher writes while we look at it.
        is_fit = _is_fit(pid, ends.own)
        received = _receive(connection, nonce, pid)
        if received is None:
            return None
        environment, number = received
        # ORDER: what came is looked at when it is known whom it came from.
        subject, _, environment = environment.partition(b"\0") if has_subject else (b"", b"", environment)
        variables = _variables(environment) if is_fit and not _has_ended(pidfd) else {}
        is_ours = variables and variables.get("CNISANDBOX_LEVEL", "") in _LEVELS
        lent = _borrow(pid, pidfd, number) if is_ours else None
        if lent is None:
            connection.send(protocol.COLD, _socket.MSG_NOSIGNAL)
            return None
        status_fd, directory_fd = lent
        standard = _take_over(connection, ends, pidfd, directory_fd)
        return Taken(os.fsdecode(subject), variables, standard, status_fd)
    finally:
        os.close(pidfd)


def _borrow(pid: int, pidfd: int, number: int) -> tuple[int, int] | None:
    """Fetch what nobody waits for: the end of the launcher's own pipe, and its working directory; None when we may not.

    A kernel whose security module lets nobody have another's descriptors says so here, when the slot can still go on.
    """
    try:
        status_fd = _fetch(pidfd, number)
    except OSError:
        return None
    try:
        return status_fd, os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        os.close(status_fd)
        return None


def _fetch(pidfd: int, number: int) -> int:
    # A copy of what it has open, as with SCM_RIGHTS, and closed on exec. KERNEL: as for ptrace(2), PTRACE_MODE_ATTACH;
    # we have its uid, its user namespace and no capability less, or we would not be here (Linux 5.6).
    return checked(lib.native_pidfd_getfd(pidfd, number), "pidfd_getfd")


def _take_over(connection: _socket.socket, ends: Ends, pidfd: int, directory_fd: int) -> list[int]:
    """Take the call: from here on it is served, whatever happens to the zygote.

    Args:
        connection: To the launcher.
        ends: To the zygote.
        pidfd: The launcher.
        directory_fd: Its working directory, which becomes ours.

    Returns:
        Standard input, output and error of the launcher.
    """
    # ORDER: first the zygote knows; then we are where the launcher is, which somebody else's file system may refuse, or
    # never answer; then we have what a runtime may wait for; then the zygote's death does not end us any more; then the
    # launcher knows. Whom the zygote kills as one that waits has told no launcher anything. If the launcher turns away
    # before it knows, its connection ends: the zygote then kills us, stopped or not, which closes what we have. If the
    # zygote ends, that kills us. Only when the zygote hangs, and we hang between the first fetch and the word, does a
    # pipe stay open: five system calls, one after the other, none of which waits.
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))]
        processors.keep_off_ours(ends.zygote)  # its number is nobody else's: its end would have been ours
        ends.control.sendmsg([protocol.STATUS.pack(os.getpid())], rights, _socket.MSG_NOSIGNAL)
        os.fchdir(directory_fd)
        os.close(directory_fd)
        standard = [_fetch(pidfd, number) for number in range(3)]
        prctl.set_pdeathsig(0)
        # It succeeds when the launcher has not turned away: so what was fetched is of the launcher, and not of the
        # interpreter that it has become since.
        connection.send(protocol.TAKEN, _socket.MSG_NOSIGNAL)
    except OSError:  # the zygote has ended, or the launcher has turned away, or is where we may not be
        os._exit(0)
    return standard


def _receive(connection: _socket.socket, nonce: bytes, pid: int) -> tuple[bytes, int] | None:
    """Receive the request; None for what is none, or comes from somebody else than who has connected."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(_REQUEST_TIMEOUT_S * 1000):
        return None
    # No place for descriptors: the kernel closes those that somebody sends, and says that the message was cut.
    data, ancillary, flags, _ = connection.recvmsg(
        protocol.REQUEST.size + protocol.MAX_ENVIRONMENT_BYTES, _socket.CMSG_SPACE(protocol.CREDENTIALS.size)
    )
    senders = [
        protocol.CREDENTIALS.unpack(content)[0]
        for level, kind, content in ancillary
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS)
    ]
    is_whole = not flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC)
    if senders != [pid] or not is_whole or len(data) < protocol.REQUEST.size:
        return None
    head, environment = data[: protocol.REQUEST.size], data[protocol.REQUEST.size :]
    name, told, number, length = protocol.REQUEST.unpack(head)
    if (name, told, length) != (protocol.PROTOCOL, nonce, len(environment)):
        return None
    return environment, number


def own_facts() -> Self:
    """What a launcher's process is compared with: ours; a slot has it of its zygote, as a fork does."""
    directory = "/proc/self"
    return Self(_place(directory), *_facts(directory))


def _place(directory: str) -> tuple[str, ...]:
    """Say which namespaces a process is in, and where its root is.

    Raises:
        OSError: it has gone.
    """
    return (*(os.readlink(f"{directory}/ns/{name}") for name in _SAME), os.readlink(f"{directory}/root"))


def _facts(directory: str) -> tuple[tuple[object, ...], int]:
    """What else has to be the same in a launcher's process, and the capabilities that must not be fewer.

    Raises:
        OSError: it has gone.
        ValueError: the kernel does not say.
    """
    root = os.stat(f"{directory}/root")
    fd = os.open(f"{directory}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.read(fd, _STATUS_BYTES)
    finally:
        os.close(fd)
    facts = (
        # By number, and by path in its place: a directory that it is mounted at again has the same number.
        (root.st_dev, root.st_ino),
        status_field(status, b"NoNewPrivs"),
        status_field(status, b"Seccomp"),
        _label(directory),
    )
    return facts, int(status_field(status, b"CapEff"), 16)


def _label(directory: str) -> bytes:
    try:
        fd = os.open(f"{directory}/attr/current", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.read(fd, _STATUS_BYTES)
    except OSError:  # no module has labels
        return b""
    finally:
        os.close(fd)


def _is_fit(pid: int, own: Self) -> bool:
    directory = f"/proc/{pid}"
    try:
        # ORDER: the place first: a root that is elsewhere may be of a file system that never answers, such as FUSE.
        if _place(directory) != own.place:
            return False
        facts, capabilities = _facts(directory)
    except (OSError, ValueError):
        return False
    return facts == own.facts and capabilities & own.capabilities == own.capabilities


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _variables(environment: bytes) -> dict[str, str]:
    """Read the environment as an interpreter does: of two with one name the first; but none without a name."""
    # There are dozens, so loops of the interpreter go over them, and make columns of names, of "=" and of values.
    entries = os.fsdecode(environment).removesuffix("\0").split("\0")
    if not all(map(str.__contains__, entries, "=" * len(entries))):
        entries = [entry for entry in entries if "=" in entry]
    entries.reverse()  # of a dictionary's names the last counts
    columns = list(zip(*map(str.partition, entries, "=" * len(entries)), strict=True))
    variables: dict[str, str] = dict(zip(*columns[::2], strict=True))
    variables.pop("", None)
    return variables


def _adopt(taken: Taken) -> None:
    """Make the call's environment and descriptors ours, as an exec would have."""
    for target, fd in enumerate(taken.standard):
        os.dup2(fd, target)
        os.close(fd)
    # The C library has none, as in the zygote: whoever executes something says with which variables.
    os.environ = taken.variables  # type: ignore[assignment]  # noqa: B003

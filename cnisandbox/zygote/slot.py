"""A slot: a child of the zygote that makes everything ahead, waits for one call, and becomes its entry.

Who is it? A call is served for a process that could as well have executed the plugin itself, to the same effect:

    uid 0, and no capability less than ours              it is no weaker than what it would get
    our mount, net, pid and user namespace, our root     paths and ids mean the same, and it is in no container
    no system call filter, no no_new_privs               it is not confined in another way
    our LSM label                                        likewise

The kernel says who made the connection (SO_PEERCRED) and who sends the request (SCM_CREDENTIALS, which only
CAP_SYS_ADMIN can forge); a pidfd from before the nonce was sent tells that the number was not given to another process
in between. Whoever fails is not answered; his launcher starts the interpreter, which has the rights that he has.

Privilege: everything the runtime has, until it has become the engine. Of the request it reads a header of fixed size;
the rest is the environment, which goes where the kernel would have put it.
"""

import _socket
import array
import os
import select
import signal
from collections.abc import Callable

import prctl

from cnisandbox.boundary import limits
from cnisandbox.boundary.pages import Pages, fetch
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.workers import Ahead, make_ahead
from cnisandbox.errors import CniError
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.plugin import Plugin, needs_of, run
from cnisandbox.zygote import protocol

# LIMIT: seconds for a launcher to send its request; it does so at once.
_REQUEST_TIMEOUT_S = 1.0
_DESCRIPTORS = 4
_STATUS_BYTES = 8192
_SAME = ("mnt", "net", "pid", "user")
# The levels that a slot is prepared for; the others are for measuring.
_LEVELS = ("", "hardened", "mediated")


class Ends(NamedTuple):
    """What a slot has of its zygote.

    Attributes:
        listener: Where launchers connect.
        control: Where the slot tells its zygote that it has taken a call.
        build_id: What is loaded.
        zygote: Its process id.
    """

    listener: _socket.socket
    control: _socket.socket
    build_id: bytes
    zygote: int


class Taken(NamedTuple):
    """A call that was taken.

    Attributes:
        variables: Its environment.
        standard: Standard input, output, error.
        status_fd: The end of the pipe for its status.
        directory_fd: The launcher's working directory.
    """

    variables: dict[str, str]
    standard: list[int]
    status_fd: int
    directory_fd: int


class Self(NamedTuple):
    """What a launcher's process must have in common with ours."""

    facts: tuple[object, ...]
    capabilities: int


def serve(plugin: type[Plugin], ends: Ends, prepare: Callable[[], Ahead]) -> NoReturn:
    """Be a slot.

    Args:
        plugin: Whose calls it serves.
        ends: What it has of the zygote.
        prepare: Makes what can be made ahead.
    """
    try:
        _end_with_the_zygote(ends.zygote)
        own = _facts("self")
        ahead = prepare()
        taken = _take(ends, own)
        _adopt(taken)
    except CniError as error:
        os.write(2, f"cnisandbox: {error.msg}\n".encode("utf-8", "replace"))
        os._exit(3)
    except Exception as error:  # noqa: BLE001 - a slot that cannot be one; its zygote says so
        os.write(2, f"cnisandbox: slot: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(3)
    run(plugin, ahead, taken.status_fd)


def make(plugin: type[Plugin], plugin_dirs: tuple[str, ...], pages: dict[str, Pages]) -> Ahead:
    """Make what the calls of a plugin need.

    Args:
        plugin: The plugin.
        plugin_dirs: Directories of plugins that calls are expected to name.
        pages: What processes of each role are going to use.
    """

    def settle(role: str) -> None:
        if role in pages:
            fetch(pages[role])

    return make_ahead(plugin.name, needs_of(plugin), plugin_dirs, settle)


def _end_with_the_zygote(zygote: int) -> None:
    prctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != zygote:  # it has ended before it could matter
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    # ORDER: after the handlers, which are the zygote's; it has blocked their signals while it forked.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take(ends: Ends, own: Self) -> Taken:
    while True:
        connection_fd, _ = ends.listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - of socket.socket
        connection = _socket.socket(fileno=connection_fd)
        taken = None
        try:
            taken = _converse(connection, ends, own)
        except OSError:
            pass  # it has gone, or it is no launcher
        finally:
            connection.close()
        if taken is not None:
            ends.listener.close()
            ends.control.close()
            return taken


def _converse(connection: _socket.socket, ends: Ends, own: Self) -> Taken | None:
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
        is_fit = _is_fit(pid, own)
        received = _receive(connection, nonce, pid)
        if received is None:
            return None
        environment, descriptors = received
        directory_fd = _working_directory(pid) if is_fit else None
        if directory_fd is not None:
            descriptors.append(directory_fd)
        # ORDER: what came is looked at when it is known whom it came from.
        variables = {} if directory_fd is None or _has_ended(pidfd) else _variables(environment)
        if directory_fd is None or not variables or variables.get("CNISANDBOX_LEVEL", "") not in _LEVELS:
            _close(descriptors)
            connection.send(protocol.COLD, _socket.MSG_NOSIGNAL)
            return None
        _take_over(connection, ends.control)
        return Taken(variables, descriptors[:3], descriptors[3], directory_fd)
    finally:
        os.close(pidfd)


def _take_over(connection: _socket.socket, control: _socket.socket) -> None:
    """Take the call: from here on it is served, whatever happens to the zygote."""
    # ORDER: first the zygote's death does not end us any more, then the zygote knows, then the launcher. So whom the
    # zygote kills as one that waits has told no launcher anything.
    prctl.set_pdeathsig(0)
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))]
        control.sendmsg([protocol.STATUS.pack(os.getpid())], rights, _socket.MSG_NOSIGNAL)
        connection.send(protocol.TAKEN, _socket.MSG_NOSIGNAL)
    except OSError:  # the zygote has ended, or the launcher has turned away
        os._exit(0)


def _receive(connection: _socket.socket, nonce: bytes, pid: int) -> tuple[bytes, list[int]] | None:
    """Receive the request; None for what is none, or comes from somebody else than who has connected."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(_REQUEST_TIMEOUT_S * 1000):
        return None
    space = _socket.CMSG_SPACE(_DESCRIPTORS * 4) + _socket.CMSG_SPACE(protocol.CREDENTIALS.size)
    data, ancillary, flags, _ = connection.recvmsg(
        protocol.REQUEST.size + protocol.MAX_ENVIRONMENT_BYTES, space, _socket.MSG_CMSG_CLOEXEC
    )
    descriptors, sender = array.array("i"), -1
    for level, kind, content in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
        elif (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS):
            sender, _, _ = protocol.CREDENTIALS.unpack(content)
    fds = list(descriptors)
    if sender == pid and len(fds) == _DESCRIPTORS and not flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        head, environment = data[: protocol.REQUEST.size], data[protocol.REQUEST.size :]
        if head == protocol.REQUEST.pack(protocol.PROTOCOL, nonce, len(environment)):
            return environment, fds
    _close(fds)
    return None


def _facts(process: str) -> Self:
    """What has to be the same in a launcher's process, and the capabilities that must not be fewer.

    Raises:
        OSError: it has gone.
    """
    directory = f"/proc/{process}"
    namespaces = tuple(os.stat(f"{directory}/ns/{name}").st_ino for name in _SAME)
    root = os.stat(f"{directory}/root")
    fd = os.open(f"{directory}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lines = os.read(fd, _STATUS_BYTES).decode("ascii", "replace").splitlines()
    finally:
        os.close(fd)
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    # The root by number and by path: a directory that it is mounted at again has the same number.
    place = (root.st_dev, root.st_ino, os.readlink(f"{directory}/root"))
    facts = (namespaces, place, status["NoNewPrivs"], status["Seccomp"], _label(directory))
    return Self(facts, int(status["CapEff"], 16))


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
    try:
        peer = _facts(str(pid))
    except (OSError, KeyError, ValueError):
        return False
    return peer.facts == own.facts and peer.capabilities & own.capabilities == own.capabilities


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _working_directory(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None


def _variables(environment: bytes) -> dict[str, str]:
    """Read the environment as an interpreter does: of two with one name the first; but none without a name."""
    variables: dict[str, str] = {}
    for entry in environment.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if name and equals:
            variables.setdefault(os.fsdecode(name), os.fsdecode(value))
    return variables


def _adopt(taken: Taken) -> None:
    """Make the call's environment, descriptors and working directory ours, as an exec would have."""
    os.fchdir(taken.directory_fd)
    os.close(taken.directory_fd)
    for target, fd in enumerate(taken.standard):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.clear()
    os.environ.update(taken.variables)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def close_all_but(ends: Ends) -> None:
    """Let go of what belongs to other slots, in the child."""
    limits.close_all_but({0, 1, 2, ends.listener.fileno(), ends.control.fileno()})

"""The delegate worker: executes plugins that are not ours, and reads files of the host, with no privilege at all.

Privilege: none. It became the service user, with no capability and an empty bounding set, before the netconf was read;
so nothing has to stay privileged in order to start a plugin whose name is known only afterwards, and what it executes
is confined by what it is itself: no_new_privs, a pid namespace, a read-only view, Landlock, a system call filter.
"""

import fcntl
import os
import select
import stat
import time

from cnisandbox.boundary import landlock, seccomp
from cnisandbox.boundary.calls import declared_for_delegate
from cnisandbox.boundary.confinement import Confinement
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.boundary.sandbox import DELEGATE_ROLE, ServiceUser
from cnisandbox.boundary.state import StateDir
from cnisandbox.boundary.view import Mount
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.light import signal

# LIMIT: bytes of both outputs, which have to fit into one message; libcni has no limit, but no honest result is longer
# than the longest netconf.
_OUTPUT_BYTES = 1 << 20
# LIMIT: seconds; the reference dhcp plugin may try for minutes, but a runtime does not wait for so long.
_TIME_LIMIT_S = 50.0
# LIMIT: a Go program reserves much more address space than it uses.
_ADDRESS_SPACE_BYTES = 16 << 30
# LIMIT: processes of the service user on the whole machine, of all calls under way together.
_PROCESSES = 2048
_FILE_BYTES = 16 << 20
_READ_FILE_BYTES = 64 << 10
_TAIL_BYTES = 256

_SYSTEM_DIRECTORIES = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt")
_READABLE_DIRECTORIES = ("/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")


class Found(NamedTuple):
    """A plugin that was found.

    Attributes:
        path: Where; empty when it was not found.
        tail: The last 256 bytes of the file; empty when it cannot be read.
    """

    path: str
    tail: bytes


class Finished(NamedTuple):
    """A plugin that has run.

    Attributes:
        status: Exit status; minus the signal that ended it.
        stdout: What it wrote.
        stderr: What it wrote.
    """

    status: int
    stdout: bytes
    stderr: bytes


def delegate_worker(
    level: Level, user: ServiceUser, state_dirs: tuple[StateDir, ...], plugin_dirs: tuple[str, ...]
) -> Confinement:
    """Describe the delegate worker.

    Args:
        level: How much is taken away.
        user: Whom it becomes.
        state_dirs: What it may write to: mounts of its own, which appear at their paths.
        plugin_dirs: Directories of plugins, as CNI_PATH lists them.
    """
    return Confinement(
        role=DELEGATE_ROLE,
        level=level,
        uid=user.uid,
        gid=user.gid,
        capabilities=(),
        netns_fd=None,
        userns_fd=None,
        mounts=(
            *(Mount(state_dir.path, is_writable=True, tree_fd=state_dir.fd) for state_dir in state_dirs),
            Mount("/dev/null", is_device=True),
        ),
        has_system_in_view=True,
        rules=rules_of_delegate(state_dirs, plugin_dirs),
        filter_program=seccomp.delegate_filter() if PROTECTIONS[level].has_seccomp else b"",
        file_bytes=_FILE_BYTES,
        processes=_PROCESSES,
        address_space_bytes=_ADDRESS_SPACE_BYTES,
        dies_with_parent=True,
    )


def rules_of_delegate(state_dirs: tuple[StateDir, ...], plugin_dirs: tuple[str, ...]) -> tuple[landlock.PathRule, ...]:
    """Say what Landlock lets the delegate worker do; what is no directory is left out.

    Args:
        state_dirs: What it may write to.
        plugin_dirs: Directories of plugins.
    """
    # TRUST: CNI_PATH is the runtime's. What is in these directories is executed, as the service user, whoever wrote it.
    executable = [path for path in (*_SYSTEM_DIRECTORIES, *plugin_dirs) if os.path.isdir(path)]
    readable = [path for path in _READABLE_DIRECTORIES if os.path.isdir(path)]
    rules = [landlock.PathRule(path, landlock.READ | landlock.EXECUTE) for path in executable]
    rules += [landlock.PathRule(path, landlock.READ) for path in readable]
    rules += [landlock.PathRule(state_dir.path, landlock.KEEP_STATE) for state_dir in state_dirs]
    return (*rules, landlock.PathRule("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE))


class Place(NamedTuple):
    """A directory, with links resolved, and which one it was: another may have its name later."""

    path: str
    device: int
    inode: int


def executable_places(plugin_dirs: tuple[str, ...]) -> frozenset[Place]:
    """Say below which directories `rules_of_delegate` lets plugins be executed.

    Args:
        plugin_dirs: What the rules are made for.
    """
    paths = {os.path.realpath(path) for path in (*_SYSTEM_DIRECTORIES, *plugin_dirs) if os.path.isdir(path)}
    return frozenset(map(_place, paths))


def is_below(directory: str, places: frozenset[Place]) -> bool:
    """Say whether a directory is one of the places, or below one, and that is still the same.

    Args:
        directory: Any path.
        places: What `executable_places` returned.

    Raises:
        OSError: a place has gone.
    """
    real = os.path.realpath(directory)
    above = [place for place in places if real == place.path or real.startswith(f"{place.path}/")]
    return any(_place(place.path) == place for place in above)


def _place(path: str) -> Place:
    status = os.stat(path)
    return Place(path, status.st_dev, status.st_ino)


@declared_for_delegate
def read_host_file(path: str) -> bytes:
    """Read a file as the service user can: at most 64 KiB, below /etc or where resolvers keep theirs.

    Raises:
        IoFailure: it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise IoFailure(f"read file {quoted(path)}: it is not a regular file")
            return os.read(fd, _READ_FILE_BYTES)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        places = ", ".join(_READABLE_DIRECTORIES)
        raise IoFailure(
            f"read file {quoted(path)}: {why}", f"it must be readable for everybody and below one of {places}"
        ) from error


@declared_for_delegate
def find_plugin(directories: list[str], name: str) -> Found:
    """Look a plugin up: the first regular file of its name, links followed.

    Args:
        directories: Where to look, in this order.
        name: Name of the plugin, without any '/'.
    """
    if not is_plugin_name(name):
        raise InvalidConfig(f"find plugin {quoted(name)}: that cannot be the name of a plugin")
    for directory in directories:
        path = os.path.join(directory, name)
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                return Found(path, _tail(path))
        except (OSError, ValueError):
            continue
    return Found("", b"")


def is_plugin_name(name: str) -> bool:
    """Say whether a name can be a plugin's: what a file may be called, and nothing that leads elsewhere."""
    return 0 < len(name) < 256 and "/" not in name and "\0" not in name and name not in (".", "..")


def _tail(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # it may be executable and not readable
        return b""
    try:
        return os.pread(fd, _TAIL_BYTES, max(0, os.fstat(fd).st_size - _TAIL_BYTES))
    finally:
        os.close(fd)


@declared_for_delegate
def run_plugin(path: str, variables: dict[str, str], netconf: bytes) -> Finished:
    """Execute a plugin.

    Args:
        path: What `find_plugin` found.
        variables: Its environment. Whoever asks chooses it as freely as the path: neither says what it may do.
        netconf: What it gets on standard input.

    Raises:
        IoFailure: it could not be started, took too long or wrote too much.
    """
    stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    stderr_read, stderr_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _execute(path, variables, (stdin_read, stdout_write, stderr_write))
    for fd in (stdin_read, stdout_write, stderr_write):
        os.close(fd)
    try:
        outputs = _exchange(stdin_write, netconf, (stdout_read, stderr_read), path)
    except IoFailure:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _, status = os.waitpid(pid, 0)
    return Finished(os.waitstatus_to_exitcode(status), outputs[stdout_read], outputs[stderr_read])


def _execute(path: str, variables: dict[str, str], descriptors: tuple[int, int, int]) -> NoReturn:
    try:
        for target, fd in enumerate(descriptors):
            os.dup2(fd, target)
        os.execve(path, [path], variables)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"execute {path}: {error.strerror}".encode())
    finally:
        os._exit(127)


def _exchange(stdin_fd: int, data: bytes, output_fds: tuple[int, int], path: str) -> dict[int, bytes]:
    """Feed a child and collect what it says, until it has closed both outputs; closes all three descriptors."""
    deadline = time.monotonic() + _TIME_LIMIT_S
    outputs = dict.fromkeys(output_fds, b"")
    poll = select.poll()
    poll.register(stdin_fd, select.POLLOUT)
    for fd in output_fds:
        poll.register(fd, select.POLLIN)
    fcntl.fcntl(stdin_fd, fcntl.F_SETFL, os.O_NONBLOCK)  # os.set_blocking would use ioctl, which the filter refuses
    left = memoryview(data)
    remaining = {stdin_fd, *output_fds}
    try:
        while remaining - {stdin_fd}:
            events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not events:
                raise IoFailure(f"run plugin {quoted(path)}: it took longer than {_TIME_LIMIT_S:.0f} s")
            for fd, _ in events:
                if fd == stdin_fd:
                    left = _feed(fd, left)
                    is_over = not left
                else:
                    piece = os.read(fd, 1 << 16)
                    outputs[fd] += piece
                    is_over = not piece
                if sum(map(len, outputs.values())) > _OUTPUT_BYTES:
                    raise IoFailure(f"run plugin {quoted(path)}: it wrote more than {_OUTPUT_BYTES} bytes")
                if is_over:
                    poll.unregister(fd)
                    remaining.discard(fd)
                    os.close(fd)
    finally:
        for fd in remaining:
            os.close(fd)
    return outputs


def _feed(fd: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(fd, left) :] if left else left
    except BrokenPipeError:  # a plugin need not read what it does not use
        return left[:0]

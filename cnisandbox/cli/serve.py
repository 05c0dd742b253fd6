"""Keep a process with everything imported, which serves calls of our own plugins and of wrapped ones: the warm path.

What `cnisandbox install` and `wrap` have put into a plugin directory finds it by itself, and starts the interpreter
when it is not there. With systemd, `cnisandbox install --systemd` has it started by the first call. SIGTERM lets calls
under way finish and ends; SIGHUP does the same and starts anew, after an upgrade.
"""

import argparse
import fcntl
import os
import socket
import sys
import time

from cnisandbox.cli import build, launcher
from cnisandbox.cli.install import require_root
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure, quoted, reason
from cnisandbox.zygote import code, protocol

_FIRST_INHERITED_FD = 3
_BACKLOG = 256
# LIMIT: seconds in which the slots of a zygote that was killed are gone.
_GONE_S = 3.0
# Without what a plugin never loads: this interpreter's modules are those of every call that it serves.
_SCRIPT = """\
import sys

sys.path += {directories!r}
from cnisandbox.zygote.server import main

main()
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--pool", metavar="N", type=int, default=0, help="slots that wait, for each plugin")
    parser.add_argument("--idle-exit", metavar="S", type=int, default=0, help="end after S seconds without a call")
    parser.add_argument(
        "--plugin-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="a directory of plugins that is not below /usr or /opt, as CNI_PATH names it",
    )
    parser.add_argument("--directory", metavar="DIR", default=protocol.DIRECTORY, help="where the sockets are")


def run(arguments: argparse.Namespace) -> int:
    """Open the sockets, and become the zygote."""
    require_root("serve")
    if arguments.pool < 0 or arguments.idle_exit < 0:
        raise InvalidConfig("serve: --pool and --idle-exit cannot be negative")
    for path in arguments.plugin_dir:
        if not os.path.isabs(path) or ":" in path:
            raise InvalidConfig(f"serve: --plugin-dir {quoted(path)}: not an absolute path without a colon")
    listeners = _inherited() or _made(arguments.directory)
    package = str(launcher.package_directory())
    # ORDER: before the code is read, which is before it is imported: the zygote looks once more after that.
    last_change = code.last_change(package)
    script = _SCRIPT.format(directories=launcher.import_directories())
    sockets = [f"{name}={fd}" for name, fd in listeners.items()]
    identity = [package, build.build_id(package).hex(), last_change]
    settings = [f"{arguments.pool}", f"{arguments.idle_exit}", *identity, ":".join(arguments.plugin_dir), *sockets]
    again = [sys.executable, "-I", "-m", "cnisandbox.cli.main", *sys.argv[1:]]
    for fd in listeners.values():
        os.set_inheritable(fd, True)
    os.execv(sys.executable, [sys.executable, "-IS", "-c", script, *settings, "--", *again])  # noqa: S606 - no shell
    return 1


def _made(directory: str) -> dict[str, int]:
    try:
        os.makedirs(os.path.dirname(directory), 0o755, exist_ok=True)
        os.makedirs(directory, 0o700, exist_ok=True)
        os.chmod(directory, 0o700)
    except OSError as error:
        raise IoFailure(f"make directory {quoted(directory)}: {reason(error)}") from error
    launcher.require_safe_directory(directory)
    paths = {name: protocol.socket_path(name, directory) for name in launcher.served_names()}
    # Two that start at once do so one after the other; the second one then finds the first.
    with launcher.opened(directory) as directory_fd:
        fcntl.flock(directory_fd, fcntl.LOCK_EX)
        for path in paths.values():
            _require_free(path)
        return {name: _listen(path) for name, path in paths.items()}


def _require_free(path: str) -> None:
    """Refuse a socket that somebody listens at, be it a zygote, or systemd for one; what is left of a dead one may go.

    Raises:
        IoFailure: Somebody does.
    """
    deadline = time.monotonic() + _GONE_S
    while not _is_free(path):
        if time.monotonic() > deadline:
            raise IoFailure(
                f"listen at {quoted(path)}: there is a zygote already",
                "end it first, or systemctl stop cnisandbox-zygote.socket cnisandbox-zygote.service",
            )
        time.sleep(0.1)


def _is_free(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.setblocking(False)  # a zygote that hangs has a full queue, and is there
        try:
            peer.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return True
        except OSError:  # BlockingIOError among others
            return False
    return False


def _listen(path: str) -> int:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise IoFailure(f"listen at {quoted(path)}: {reason(error)}") from error
    return listener.detach()


def _inherited() -> dict[str, int]:
    """Take over the sockets that systemd, or the zygote before us, has opened; each is named by its path."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return {}
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    found = {}
    for fd in range(_FIRST_INHERITED_FD, _FIRST_INHERITED_FD + count):
        listener = socket.socket(fileno=fd)
        name = os.path.basename(str(listener.getsockname()))
        found[name] = listener.detach()
    unknown = set(found) - set(launcher.served_names())
    if unknown:
        raise InvalidEnvironment(
            f"serve: {', '.join(sorted(unknown))}: there is no such plugin", "mend the socket unit"
        )
    return found

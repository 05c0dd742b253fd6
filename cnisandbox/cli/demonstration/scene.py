"""A machine of its own for the demonstration: network, mount and pid namespaces that go with their first process.

machine ── unshare ──▶ this program again   first process of a pid namespace: what it starts ends with it
                         netns:  nothing but lo
                         mounts: private tmpfs over /run, /var/lib/cni, /etc/cni, /etc/cnisandbox
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import prctl

from cnisandbox.errors import IoFailure, quoted, reason

PRIVATE_DIRECTORIES = ("/run", "/var/lib/cni", "/etc/cni", "/etc/cnisandbox")
PLUGIN_DIRECTORY = "/run/cnisandbox-demo/bin"
COMMAND_TIME_LIMIT_S = 20.0
STATUS_OF_TIME_LIMIT = 124

_INSIDE = "CNISANDBOX_DEMO_INSIDE"


def is_inside() -> bool:
    """Whether this process is the first one of the scene."""
    return os.getpid() == 1 and os.environ.get(_INSIDE) == "1"


def run_again_inside(arguments: Sequence[str], time_limit_s: float) -> int:
    """Run this command again in namespaces of its own, to its end or to the time limit.

    Args:
        arguments: Of `cnisandbox demo`.
        time_limit_s: Seconds after which it is killed, with everything that it has started.

    Returns:
        Its status; STATUS_OF_TIME_LIMIT if it was killed.

    Raises:
        IoFailure: The namespaces cannot be made.
    """
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["--propagation", "private", sys.executable, "-m", "cnisandbox.cli.main", "demo", *arguments]
    with _mount_points():
        try:
            return subprocess.run(  # noqa: S603 - this program itself
                command,
                check=False,
                timeout=time_limit_s,
                env={**os.environ, _INSIDE: "1"},
                preexec_fn=_die_with_parent,
            ).returncode
        except subprocess.TimeoutExpired:
            return STATUS_OF_TIME_LIMIT
        except OSError as error:
            raise IoFailure(f"execute unshare: {reason(error)}", "install the package util-linux") from error


def _die_with_parent() -> None:
    """Have unshare killed when this process is; the scene, all of its processes, goes with it."""
    prctl.set_pdeathsig(signal.SIGKILL)


@contextlib.contextmanager
def _mount_points() -> Iterator[None]:
    """Make the directories that will be covered, where they are missing, and take away those again afterwards."""
    made: list[str] = []
    try:
        for directory in PRIVATE_DIRECTORIES:
            parts = [directory]
            while not os.path.isdir(parts[-1]):
                parts.append(os.path.dirname(parts[-1]))
            for part in reversed(parts[:-1]):
                os.mkdir(part, 0o755)
                made.append(part)
        yield
    finally:
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # something was put there meanwhile
                os.rmdir(directory)


def prepare() -> None:
    """Cover the directories, set lo up, and install our plugins.

    Raises:
        IoFailure: A program is missing or fails.
    """
    for directory in PRIVATE_DIRECTORIES:
        run("mount", "-t", "tmpfs", "-o", "mode=0755", "cnisandbox-demo", directory)
    run("ip", "link", "set", "lo", "up")
    for directory in ("/run/netns", "/etc/cni/net.d"):
        os.makedirs(directory, 0o755)
    run(sys.executable, "-m", "cnisandbox.cli.main", "install", "--bin-dir", PLUGIN_DIRECTORY)


def run(*argv: str, netns: str | None = None, accepted: Sequence[int] = (0,)) -> str:
    """Run a program of the system to its end.

    Args:
        argv: Its name and arguments.
        netns: Name of the netns to run it in; None for the host's.
        accepted: Statuses that are no failure.

    Returns:
        Its standard output.

    Raises:
        IoFailure: It is missing, fails, or takes too long.
    """
    entering = ["nsenter", f"--net=/run/netns/{netns}", "--"] if netns else []
    try:
        done = subprocess.run(  # noqa: S603 - programs of the system, arguments of ours
            [*entering, *argv], check=False, capture_output=True, text=True, timeout=COMMAND_TIME_LIMIT_S
        )
    except FileNotFoundError as error:
        remedy = "`./bootstrap demo` installs iproute2, iputils-ping and nftables"
        raise IoFailure(f"execute {quoted(argv[0])}: not found", remedy) from error
    except subprocess.TimeoutExpired as error:
        raise IoFailure(f"execute {quoted(' '.join(argv))}: not done after {COMMAND_TIME_LIMIT_S:g} s") from error
    if done.returncode not in accepted:
        raise IoFailure(f"execute {quoted(' '.join(argv))}: status {done.returncode}", done.stderr or done.stdout)
    return done.stdout


def reap() -> None:
    """Wait until nothing of a call is left: its orphans are ours, as we are the first process of the pid namespace."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)

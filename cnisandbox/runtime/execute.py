"""Run one plugin binary: find it, give it environment and standard input, read its result or its error.

CNI spec 1.1.0 section 2 and 5 ("Error"); libcni's pkg/invoke, version 1.3, where the specification is silent. The
plugin runs as it runs under any runtime, with the caller's privileges; confining it is not this module's business.
"""

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import sleep

from cnisandbox.cni.output import error_from
from cnisandbox.errors import DelegateFailed, InvalidConfig, InvalidEnvironment, IoFailure, quoted, reason

DEFAULT_TIME_LIMIT_S = 120.0

# LIMIT: together five seconds, as libcni waits; a file is busy while somebody copies a new version over it in place.
_BUSY_DELAYS_S = (0.05, 0.1, 0.25, 0.6, 1.0, 1.5, 1.5)
_AFTER_KILL_S = 1.0
_UNSPECIFIED_CODE = 999


@dataclass(frozen=True)
class Call:
    """What goes into the environment of a plugin; a verb that has no use for a variable gets it empty.

    Attributes:
        verb: ADD, DEL, CHECK, GC, STATUS or VERSION.
        plugin_dirs: Where this plugin and its delegates are looked up, in this order.
        container_id: CNI_CONTAINERID.
        netns: CNI_NETNS, a path.
        ifname: CNI_IFNAME.
        args: CNI_ARGS, "K=V;K2=V2".
    """

    verb: str
    plugin_dirs: tuple[str, ...]
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""

    def environment(self) -> dict[str, str]:
        """The caller's whole environment with the CNI variables set; plugins expect PATH and such to be there."""
        return os.environ | {
            "CNI_COMMAND": self.verb,
            "CNI_CONTAINERID": self.container_id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.args,
            "CNI_PATH": ":".join(self.plugin_dirs),
        }


def find_plugin(name: str, plugin_dirs: tuple[str, ...]) -> str:
    """Look a plugin up.

    Args:
        name: The `type` of a plugin object.
        plugin_dirs: Directories, the first that has it wins.

    Returns:
        The path of a regular file. Whether it may be executed is found out by executing it.

    Raises:
        InvalidConfig: The name is empty or a path.
        InvalidEnvironment: There is no directory to look in, or none of them has it.
    """
    if not name or "/" in name or "\0" in name or name in {".", ".."}:
        raise InvalidConfig(f"find plugin {quoted(name)}: must be a file name without a directory")
    if not plugin_dirs:
        raise InvalidEnvironment(f"find plugin {quoted(name)}: no plugin directory is given", "set CNI_PATH")
    for directory in plugin_dirs:
        path = os.path.join(directory, name)
        with suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode):
                return path
    raise InvalidEnvironment(
        f"find plugin {quoted(name)}: not in {', '.join(plugin_dirs)}",
        "install it there (`cnisandbox install` for ours), or name its directory with --plugin-dir or CNI_PATH",
    )


def run_plugin(path: str, call: Call, netconf: bytes, time_limit_s: float = DEFAULT_TIME_LIMIT_S) -> bytes:
    """Run a plugin to its end; what it writes to standard error goes to ours.

    Args:
        path: As `find_plugin` gives it.
        call: The environment.
        netconf: Standard input.
        time_limit_s: Seconds after which the plugin and the rest of its process group are killed.

    Returns:
        Its standard output.

    Raises:
        DelegateFailed: It ended with an error; code, msg and details are the plugin's own where it gave them.
        IoFailure: It could not be started.
    """
    name = os.path.basename(path)
    child = _start(path, call)
    try:
        stdout, stderr = child.communicate(netconf, timeout=time_limit_s)
    except subprocess.TimeoutExpired:
        _, stderr = _kill(child)
        _pass_through(stderr)
        raise DelegateFailed(
            _UNSPECIFIED_CODE,
            f"run plugin {quoted(name)}: killed, because it was not done after {time_limit_s:g} s",
            "its work may be half done: run DEL; --timeout sets another limit",
        ) from None
    except BaseException:
        _kill(child)
        raise
    if child.returncode != 0:
        raise _failure(name, child.returncode, stdout, stderr)
    _pass_through(stderr)
    return stdout


def _start(path: str, call: Call) -> subprocess.Popen[bytes]:
    for delay_s in (*_BUSY_DELAYS_S, None):
        try:
            return subprocess.Popen(  # noqa: S603 - running what the administrator configured is what a runtime is for
                [path],
                env=call.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,  # so that a time limit ends what the plugin has started, too
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or delay_s is None:
                raise IoFailure(
                    f"execute plugin {quoted(path)}: {reason(error)}",
                    "is it a program for this machine, and executable?",
                ) from error
        except ValueError as error:
            raise InvalidEnvironment(f"execute plugin {quoted(path)}: {error}") from error
        sleep(delay_s)
    raise AssertionError("unreachable")


def _kill(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Kill a plugin's process group and take what it had written.

    A grandchild that left the group may hold the pipes open for ever, so this waits a bounded time for their end.
    """
    if child.returncode is None:  # not yet reaped, so the pid is still its own
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    try:
        return child.communicate(timeout=_AFTER_KILL_S)
    except subprocess.TimeoutExpired as unfinished:
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        return unfinished.stdout or b"", unfinished.stderr or b""


def _failure(name: str, status: int, stdout: bytes, stderr: bytes) -> DelegateFailed:
    """Build the error of a plugin that ended with a status other than 0 (libcni: pkg/invoke/raw_exec.go)."""
    how = f"ended by {_signal_name(-status)}" if status < 0 else f"exit status {status}"
    if not stdout.strip():
        why = _text(stderr).strip()
        return DelegateFailed(
            _UNSPECIFIED_CODE,
            f"run plugin {quoted(name)}: {how} without an error object" + (f": {quoted(why)}" if why else ""),
            "is it a CNI plugin? run it by hand to see",
        )
    _pass_through(stderr)
    return error_from(stdout) or DelegateFailed(
        _UNSPECIFIED_CODE, f"run plugin {quoted(name)}: {how}, and no error object: {quoted(_text(stdout))}"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pass_through(stderr: bytes) -> None:
    if stderr:
        sys.stderr.write(_text(stderr))
        sys.stderr.flush()


def _text(output: bytes) -> str:
    return output.decode(errors="replace")

"""The keeper: what the entry becomes. Compares everybody with their level, passes input and output on, keeps the time.

Privilege: none: no capability, the service user, no file, no socket. It is the only process that reads standard input;
what it finds there for the profile, names of links, it checks before the monitor judges by them.

Standard input, output and error of the plugin are pipes of ours: what the runtime has may be sockets of the host's
netns, or a terminal.
"""

import json
import os
import select
import signal
import time
from contextlib import suppress

from cnisandbox.boundary import service
from cnisandbox.boundary.attestation import Attestation, Expectation, verify
from cnisandbox.boundary.wire import Channel, check
from cnisandbox.cni.output import error_document
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.errors import BoundaryViolation, CniError, IoFailure, TryAgain
from cnisandbox.hints import Any, NamedTuple, NoReturn
from cnisandbox.runner.facts import WorkerExpectation, WorkerFacts, verify_worker
from cnisandbox.runner.plan import Plan
from cnisandbox.runner.supervision import Ended, Testimony

# LIMIT: bytes of a netconf that is looked at for the profile's variables; what is longer is passed on unread.
_NETCONF_BYTES = 1 << 20
_PIECE = 1 << 16
# LIMIT: bytes of a result, which is kept until the plugin has ended; no honest one is longer than the longest netconf.
_RESULT_BYTES = 4 << 20
# LIMIT: milliseconds that a launcher takes to end, when it knows its status.
_LAUNCHER_ENDS_MS = 20
# LIMIT: names that one key of the netconf may give, and IFNAMSIZ with its NUL.
_NAMES, _IFNAME_BYTES = 16, 15
_START_TIMEOUT_S = 30.0


class Streams(NamedTuple):
    """Our ends of the plugin's standard streams."""

    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


class Processes(NamedTuple):
    """Whom the keeper may send a signal: pidfds, for it can name nobody else's.

    Attributes:
        monitor_pid, monitor_fd: The monitor, its child.
        own_fd: Itself.
    """

    monitor_pid: int
    monitor_fd: int
    own_fd: int


class Keeper(NamedTuple):
    """What the keeper has.

    Attributes:
        plan: The run.
        channel: To the monitor.
        streams: To the plugin.
        processes: Whom it may send a signal.
        attest_fd: File that keeps the attestations; None when nobody asked.
        status_fd: Where our exit status goes as well; None for nowhere.
        attestation, expectation: What the kernel says about us, and what it must say.
        monitor, opener, worker: What it must say about the others; no opener where there is no container's netns.
    """

    plan: Plan
    channel: Channel
    streams: Streams
    processes: Processes
    attest_fd: int | None
    status_fd: int | None
    attestation: Attestation
    expectation: Expectation
    monitor: Expectation
    opener: Expectation | None
    worker: WorkerExpectation


def keep(keeper: Keeper) -> NoReturn:
    """See the run through, and exit as the plugin did; never returns."""
    try:
        _compare(keeper)
        keeper.channel.send([{}])
        status = _pump(keeper)
    except CniError as error:
        _fail(keeper, error)
    except Exception as error:  # noqa: BLE001 - a defect of ours must not become a traceback on a runtime's log
        what = f"keep {keeper.plan.name}: {type(error).__name__}: {error}"
        _fail(keeper, CniError(what, "this is a defect of cnisandbox"))
    if os.WIFEXITED(status):
        # ORDER: who reads it need not wait until the kernel has taken the namespaces apart. The plugin has ended and
        # closed its output; whatever it has left behind is answered by nobody any more, and killed with the monitor.
        say(os.WEXITSTATUS(status), keeper.status_fd)
        _let_the_launcher_end(keeper.status_fd)
    keeper.channel.close()
    os.waitpid(keeper.processes.monitor_pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
        signal.pidfd_send_signal(keeper.processes.own_fd, number)
    os._exit(os.waitstatus_to_exitcode(status))


def say(status: int, status_fd: int | None) -> None:
    """Say what the exit status is, to who does not wait for the end of this process; None for nobody."""
    if status_fd is not None:
        _write(status_fd, bytes([status]))


def _let_the_launcher_end(status_fd: int | None) -> None:
    """Leave the processors to it: somebody waits for its end, and nobody for ours and the monitor's."""
    if status_fd is not None:
        poll = select.poll()
        poll.register(status_fd, 0)  # POLLERR: nobody is left who could read
        poll.poll(_LAUNCHER_ENDS_MS)


def _fail(keeper: Keeper, error: CniError) -> NoReturn:
    _end_monitor(keeper)
    _write(1, error_document(error, SUPPORTED[-1]))
    say(1, keeper.status_fd)
    os._exit(1)


def _compare(keeper: Keeper) -> None:
    """Insist that everybody is what was asked for, before the plugin begins.

    Raises:
        IsolationError: somebody is not.
    """
    verify(keeper.attestation, keeper.expectation, allows_degraded=True)
    testimony: Testimony = _received(keeper, Testimony, _START_TIMEOUT_S)
    opener = testimony.opener
    pairs = [(testimony.monitor, keeper.monitor)]
    if opener is not None and keeper.opener is not None:
        pairs.append((opener, keeper.opener._replace(parent_pid=testimony.monitor.pid)))
    for said, expected in pairs:
        verify(said, expected._replace(descriptors=tuple(said.descriptors)), allows_degraded=False)
    facts: WorkerFacts = _received(keeper, WorkerFacts, _START_TIMEOUT_S)
    verify_worker(facts, keeper.worker)
    if keeper.attest_fd is not None:
        records = [said._asdict() for said, _ in [*pairs, (keeper.attestation, None)]]
        worker = {"role": "worker", "level": keeper.plan.level.value, **facts._asdict()}
        lines = [json.dumps(record, sort_keys=True) + "\n" for record in [*records, worker]]
        _write(keeper.attest_fd, "".join(lines).encode())


def _received(keeper: Keeper, kind: Any, timeout_s: float | None) -> Any:
    match keeper.channel.receive(timeout_s):
        case [0, value]:
            return check(value, kind, "answer of the monitor")
        case [1, *rest]:
            raise service.rebuild_error(rest)
    raise BoundaryViolation("receive from monitor: the message has no known shape")


def _end_monitor(keeper: Keeper) -> None:
    """Kill the monitor, and with it everybody in its pid namespace."""
    try:
        signal.pidfd_send_signal(keeper.processes.monitor_fd, signal.SIGKILL)
    except PermissionError:  # it is root still; our end is what kills it then
        return
    os.waitpid(keeper.processes.monitor_pid, 0)


def _pump(keeper: Keeper) -> int:
    """Pass everything on until the plugin has ended; its result at the end.

    Returns:
        Its status, as waitpid(2) has it.

    Raises:
        TryAgain: it took longer than its profile allows.
        IoFailure: it wrote too much.
    """
    deadline = time.monotonic() + keeper.plan.profile.time_limit_s
    poll = select.poll()
    for fd in (keeper.streams.stdout_fd, keeper.streams.stderr_fd, keeper.channel.read_fd, 0):
        poll.register(fd, select.POLLIN)
    stdin, outputs = _Input(keeper, poll), _Outputs(keeper, poll)
    status: int | None = None
    while outputs.are_open() or status is None:
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            limit_s = keeper.plan.profile.time_limit_s
            raise TryAgain(f"run plugin {keeper.plan.name}: it took longer than {limit_s:.0f} s")
        for fd, _ in events:
            if fd == 0:
                stdin.take()
            elif fd == keeper.streams.stdin_fd:
                stdin.give()
            elif fd == keeper.channel.read_fd:
                ended = _received(keeper, Ended, _START_TIMEOUT_S)
                status = ended.status
                if ended.notice:
                    _write(2, f"cnisandbox: {ended.notice}\n".encode("utf-8", "replace"))
                poll.unregister(fd)
            else:
                outputs.take(fd)
    # ORDER: at the end, so that what we have to report is never a second document behind half of the plugin's.
    _write(1, bytes(outputs.result))
    return status


def _write(fd: int, data: bytes) -> None:
    """Write all of it; who has closed their end does not want it."""
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except BrokenPipeError:
        return


class _Outputs:
    """What the plugin writes: its messages to people are passed on at once, its result is kept."""

    def __init__(self, keeper: Keeper, poll: select.poll) -> None:
        self.result = bytearray()
        self._keeper = keeper
        self._poll = poll
        self._open = {keeper.streams.stdout_fd, keeper.streams.stderr_fd}

    def are_open(self) -> bool:
        """Say whether the plugin, or what it has executed, can still write."""
        return bool(self._open)

    def take(self, fd: int) -> None:
        """Read a piece.

        Raises:
            IoFailure: the result is too long.
        """
        piece = os.read(fd, _PIECE)
        if fd == self._keeper.streams.stderr_fd:
            _write(2, piece)
        else:
            self.result += piece
        if not piece:
            self._poll.unregister(fd)
            self._open.remove(fd)
        if len(self.result) > _RESULT_BYTES:
            raise IoFailure(f"run plugin {self._keeper.plan.name}: it wrote more than {_RESULT_BYTES} bytes")


class _Input:
    """Standard input: read to its end, looked at, then given to the plugin.

    The plugin gets its first byte after the monitor knows what the netconf says.
    """

    def __init__(self, keeper: Keeper, poll: select.poll) -> None:
        self._keeper = keeper
        self._poll = poll
        self._pieces: list[bytes] = []
        self._left = memoryview(b"")

    def take(self) -> None:
        """Read a piece; after the last one, say to the monitor what it says, and begin to give."""
        try:
            piece = os.read(0, _PIECE)
        except OSError:
            piece = b""
        if piece:
            self._pieces.append(piece)
            return
        self._poll.unregister(0)
        data = b"".join(self._pieces)
        variables = self._keeper.plan.profile.variables
        if variables:
            found = variables_of(data, {variable.key: variable.default for variable in variables})
            # A plugin that needs no netconf may have ended, and the monitor with it; what it said of that is read next,
            # and it is an error if it said nothing.
            with suppress(BoundaryViolation):
                self._keeper.channel.send([found], _START_TIMEOUT_S)
        self._left = memoryview(data)
        if data:
            self._poll.register(self._keeper.streams.stdin_fd, select.POLLOUT)
        else:
            os.close(self._keeper.streams.stdin_fd)

    def give(self) -> None:
        """Give the plugin a piece."""
        fd = self._keeper.streams.stdin_fd
        try:
            self._left = self._left[os.write(fd, self._left[: select.PIPE_BUF]) :]
        except BrokenPipeError:  # a plugin need not read what it does not use
            self._left = self._left[:0]
        if not self._left:
            self._poll.unregister(fd)
            os.close(fd)


def variables_of(data: bytes, defaults: dict[str, str]) -> dict[str, list[str]]:
    """Find the names of links that a netconf gives for some keys.

    Args:
        data: The netconf; whatever is no JSON object gives no names.
        defaults: Dotted path of each key, to what stands in for it when it is missing or empty.

    Returns:
        Key to names, each of which a link can have.
    """
    try:
        document = json.loads(data) if len(data) <= _NETCONF_BYTES else {}
    except (ValueError, RecursionError):
        document = {}
    found: dict[str, list[str]] = {}
    for key, default in defaults.items():
        names = _values_at(document, key.split("."))
        valid = [name for name in names[:_NAMES] if isinstance(name, str) and _is_ifname(name)]
        found[key] = valid or ([default] if default else [])
    return found


def _values_at(value: object, path: list[str]) -> list[object]:
    """List what stands at a path, which goes through lists."""
    if isinstance(value, list):
        # What stands in a result with a sandbox is a link of the container's, whatever the host calls so.
        items = [item for item in value if not (isinstance(item, dict) and item.get("sandbox"))]
        return [found for item in items[:_NAMES] for found in _values_at(item, path)]
    if not path:
        return [value]
    return _values_at(value.get(path[0]), path[1:]) if isinstance(value, dict) else []


def _is_ifname(name: str) -> bool:
    is_short = 0 < len(name.encode("utf-8", "surrogatepass")) <= _IFNAME_BYTES
    return is_short and name not in (".", "..") and name.isprintable() and not any(c in "/:% " for c in name)

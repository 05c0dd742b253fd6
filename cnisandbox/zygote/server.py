"""The zygote's parent: keeps slots ready, ends those whose launcher has gone, says how they ended.

    idle      forked, waits for a connection                  one control message ──▶ busy
    busy      serves a call; the server has a copy of its connection
                the launcher has gone (the connection ends)   killed
                it takes too long                             killed
                it ends                                       the wait status goes to the launcher, who needs it
                                                              when the engine has not written its own

Privilege: everything the runtime has. It reads nothing of any request: a launcher's bytes reach a slot only.
"""

import _socket
import array
import fcntl
import gc
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from cnisandbox.boundary import namespaces, processors, workers
from cnisandbox.boundary.pages import Pages, fill_gaps, let_go_of_files
from cnisandbox.boundary.syscalls import lib
from cnisandbox.boundary.title import set_title
from cnisandbox.errors import reason
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.light import signal
from cnisandbox.plugin import Plugin
from cnisandbox.zygote import code, mounts, protocol, runner, slot
from cnisandbox.zygote.practice import practice_of
from cnisandbox.zygote.rehearsal import play_of, rehearse
from cnisandbox.zygote.slot import Ends, Served

# LIMIT: seconds of a call; a runtime gives up after minutes at the latest.
_CALL_S = 300.0
# LIMIT: calls under way at a time; more wait, or start an interpreter.
_BUSY = 256
# LIMIT: seconds to wait after a slot that could not be made, before the next one.
_RECOVERY_S = 1.0
# LIMIT: seconds for calls under way when the zygote ends.
_DRAIN_S = 30.0


# How many slots wait, unless told otherwise; one takes about 13 MiB.
_SLOTS = {"bridge": 2}


class Busy(NamedTuple):
    """A slot that serves a call.

    Attributes:
        connection: The launcher's other end.
        deadline: When it is killed.
    """

    connection: _socket.socket
    deadline: float


class Pool:
    """The slots of one plugin.

    Args:
        served: Whose calls they serve.
        listener: Where launchers connect.
        size: How many wait.
    """

    def __init__(self, served: Served, listener: _socket.socket, size: int) -> None:
        self.served = served
        self.listener = listener
        self.size = size
        self.idle: set[int] = set()
        self.pages: dict[str, Pages] = {}

    def is_waited_for(self) -> bool:
        """Say whether a launcher has connected that no slot has accepted."""
        poll = select.poll()
        poll.register(self.listener.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def show_progress(self) -> None:
        """Tell the launchers that wait that one of them has been served: they go on waiting (native/launcher.c)."""
        with suppress(OSError):  # somebody has removed the socket; who is connected does without
            os.utime(self.listener.getsockname())


class Server:
    """The zygote.

    Args:
        pools: What it serves.
        build_id: What is loaded.
        mounts_fd: A mount namespace like ours with little in it.
        warn: Says something to a person.
    """

    def __init__(self, pools: list[Pool], build_id: bytes, mounts_fd: int, warn: Callable[[str], None]) -> None:
        self._pools = pools
        self._build_id = build_id
        self._warn = warn
        self._busy: dict[int, Busy] = {}
        self._killed: set[int] = set()
        self._told, self._control = _control_pair()
        self._wake_fd, self._alarm_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._asked: set[int] = set()
        self._own = slot.own_facts()
        self._processors = processors.own_processors()
        self._mounts_fd = mounts_fd
        self._not_before = 0.0
        self.last_call = time.monotonic()

    def run(self, idle_exit_s: float | None = None) -> int:
        """Serve until a signal says otherwise.

        Args:
            idle_exit_s: End after so many seconds without a call.

        Returns:
            The signal that ended it: SIGTERM or SIGINT to end, SIGHUP to start anew; 0 when it was idle for too long.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda which, _frame: self._asked.add(which))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm_fd, warn_on_full_buffer=False)
        self._serve_at_once()
        for pool in self._pools:
            if pool.served.practise is not None:
                pool.served.practise(self._warn)
        # Who looks an attribute up notes its name in the place of another one, and writes to the pages of both. With
        # nothing noted, a call and its slot take 110 of 4080 faults less.
        sys._clear_type_cache()  # noqa: SLF001 - documented; each look-up takes longer once
        gc.collect()
        fill_gaps()
        gc.freeze()
        gc.disable()
        for pool in self._pools:
            if pool.served.play is not None:
                pool.pages = rehearse(pool.served, pool.served.play, self._mounts_fd)
                if not pool.pages:
                    self._warn(f"rehearse {pool.served.name}: it has failed; calls will take longer")
        with suppress(OSError):  # a kernel without CONFIG_PROC_PAGE_MONITOR: then it takes more memory
            let_go_of_files()
        self.last_call = time.monotonic()  # what was done until here is not idling
        while not self._asked:
            self._fill()
            self._wait(self._timeout(idle_exit_s))
            is_idle = not self._busy and idle_exit_s is not None
            if is_idle and time.monotonic() - self.last_call > (idle_exit_s or 0):
                break
        self._drain()
        # Whoever is executed next in this process looks where it may run.
        processors.allow(self._processors)
        return max(self._asked, default=0)

    def _serve_at_once(self) -> None:
        """Make slots for launchers that have connected already, as they do by whom systemd has us started.

        They wait for a second at most, and what comes before other slots takes longer.
        """
        with suppress(OSError):  # as in `_fill`, which tries again
            for pool in self._pools:
                if pool.is_waited_for():
                    pool.idle.add(self._fork(pool))

    def _timeout(self, idle_exit_s: float | None) -> float:
        now = time.monotonic()
        ends = [busy.deadline for busy in self._living().values()]
        if idle_exit_s is not None:
            ends.append(self.last_call + idle_exit_s)
        if any(self._is_wanted(pool) for pool in self._pools):
            ends.append(self._not_before)
        return max(0.0, min(ends, default=now + 3600.0) - now) + 0.001

    def _fill(self) -> None:
        """Make slots until each pool is full; those that wait are not counted among calls under way."""
        if time.monotonic() < self._not_before:
            return
        try:
            for pool in self._pools:
                while self._is_wanted(pool):
                    pool.idle.add(self._fork(pool))
        except OSError as error:  # TasksMax, or no memory: calls under way end, and then there is room again
            self._not_before = time.monotonic() + _RECOVERY_S
            self._warn(f"fork slot: {reason(error)}")

    def _is_wanted(self, pool: Pool) -> bool:
        """Say whether another slot is to be made now.

        While a call is under way only for another one that has come: making a slot takes as long as a call, on a
        processor that the call could have.
        """
        if len(pool.idle) >= pool.size or len(self._busy) >= _BUSY:
            return False
        return not self._busy or (not pool.idle and pool.is_waited_for())

    def _fork(self, pool: Pool) -> int:
        # A signal between the fork and its new disposition would be handled by our code in the child.
        blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        zygote = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    signal.set_wakeup_fd(-1)
                    ends = Ends(
                        pool.listener,
                        self._control,
                        self._build_id,
                        zygote,
                        self._processors,
                        self._own,
                        self._mounts_fd,
                    )
                    slot.live(pool.served, ends, pool.pages)
                finally:
                    os._exit(3)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        return pid

    def _wait(self, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        poll.register(self._told.fileno(), select.POLLIN)
        gone = {busy.connection.fileno(): pid for pid, busy in self._living().items()}
        for fd in gone:
            poll.register(fd, 0)  # only its end
        for pool in self._pools:
            may_grow = pool.size and len(self._busy) < _BUSY and time.monotonic() >= self._not_before
            if may_grow and not pool.idle:
                poll.register(pool.listener.fileno(), select.POLLIN)
        events = poll.poll(timeout_s * 1000)
        processors.allow(self._processors)
        with suppress(BlockingIOError):
            while os.read(self._wake_fd, 512):
                pass
        self._hear()
        self._reap()
        now = time.monotonic()
        late = {pid for pid, busy in self._living().items() if busy.deadline < now}
        for pid in late:
            self._warn(f"call served by process {pid}: longer than {_CALL_S:.0f} s; it is killed")
        for pid in late | {gone[fd] for fd, _ in events if fd in gone}:
            if pid in self._busy:
                self._kill(pid)

    def _living(self) -> dict[int, Busy]:
        """The calls under way but those that were killed; these take a while to end, and nothing is left to be done."""
        return {pid: busy for pid, busy in self._busy.items() if pid not in self._killed}

    def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)

    def _hear(self) -> None:
        """Note which slots have taken a call."""
        space = _socket.CMSG_SPACE(4)
        while True:
            try:
                data, ancillary, _, _ = self._told.recvmsg(protocol.STATUS.size, space, _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            (pid,) = protocol.STATUS.unpack(data)
            fds = array.array("i")
            for _, _, content in ancillary:
                fds.frombytes(content)
            for pool in self._pools:
                if pid in pool.idle:
                    pool.idle.discard(pid)
                    pool.show_progress()
            self.last_call = time.monotonic()
            if fds:
                self._busy[pid] = Busy(_socket.socket(fileno=fds[0]), self.last_call + _CALL_S)
            else:
                self._warn(f"call served by process {pid}: it is not watched, no descriptor is left; raise LimitNOFILE")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._hear()  # what it has said before it ended
            self._bury(pid, status)

    def _bury(self, pid: int, status: int) -> None:
        busy = self._busy.pop(pid, None)
        self._killed.discard(pid)
        if busy is not None:
            with suppress(OSError):  # the launcher has gone, or knows already
                busy.connection.send(protocol.STATUS.pack(status), _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)
            busy.connection.close()
            return
        for pool in self._pools:
            if pid in pool.idle:
                pool.idle.discard(pid)
                self._not_before = time.monotonic() + _RECOVERY_S
                if pool.size:
                    self._warn(f"slot for {pool.served.name}: ended with status {os.waitstatus_to_exitcode(status)}")

    def _dismiss(self) -> None:
        """End the slots that wait, and make no others."""
        waiting, stopped = self._idle(), []
        for pool in self._pools:
            pool.size = 0
        # ORDER: stopped, then heard, then killed: a slot tells us that it takes a call before it tells the launcher, so
        # no launcher relies on whom we kill.
        for pid in waiting:
            os.kill(pid, signal.SIGSTOP)
            _, status = os.waitpid(pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                stopped.append(pid)
            else:
                self._hear()
                self._bury(pid, status)
        self._hear()
        idle = self._idle()
        for pid in stopped:
            # Whoever has taken a call goes on, whether or not there was a descriptor left to watch it with.
            os.kill(pid, signal.SIGKILL if pid in idle else signal.SIGCONT)

    def _idle(self) -> set[int]:
        return {pid for pool in self._pools for pid in pool.idle}

    def _drain(self) -> None:
        """End: no slot takes another call; those under way go on, for a time."""
        self._dismiss()
        deadline = time.monotonic() + _DRAIN_S
        while True:
            self._wait(0.05)
            if not self._busy and not self._idle():
                break
            if time.monotonic() > deadline:
                for pid in self._living():
                    self._kill(pid)
        self._told.close()
        self._control.close()


def _control_pair() -> tuple[_socket.socket, _socket.socket]:
    told, control = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    told.setblocking(False)
    return told, control


def main() -> NoReturn:
    """Be the zygote.

    Arguments, from `cnisandbox serve`: slots of each pool, or 0; seconds after which to end when idle, or 0; directory
    of the package, its build id, and its last change before that was computed; directories of plugins, as in CNI_PATH;
    PLUGIN=DESCRIPTOR for each listening socket; after "--" the command that starts a zygote anew.
    """
    split = sys.argv.index("--")
    pool, idle_exit, package, build_id, last_change, plugin_path, *sockets = sys.argv[1:split]
    again = sys.argv[split + 1 :]
    # ORDER: before the environment changes, on which setting the title depends.
    set_title("cnisandbox: zygote")
    # A slot gets that of its call; what we have need not be taken away in each.
    own_variables = dict(os.environ)
    os.environ.clear()
    os.umask(0o022)
    _do_once()
    plugin_dirs = tuple(path for path in plugin_path.split(":") if path)
    empty_netns = namespaces.open_empty_netns()
    pools = []
    for word in sockets:
        name, _, fd = word.partition("=")
        served = _served(name, plugin_dirs, empty_netns)
        pools.append(Pool(served, _listener(int(fd)), int(pool) or _SLOTS.get(name, 1)))
    # ORDER: after everything was imported.
    if code.last_change(package) != last_change:
        _warn("serve: the code was changed while it was loaded: starting anew")
        _start_anew(again, own_variables, pools)
    try:
        mounts_fd = mounts.open_small_namespace()
    except ChildProcessError:  # it has said why
        os._exit(1)
    if Server(pools, bytes.fromhex(build_id), mounts_fd, _warn).run(float(idle_exit) or None) == signal.SIGHUP:
        _start_anew(again, own_variables, pools)
    os._exit(0)


def _served(name: str, plugin_dirs: tuple[str, ...], empty_netns: namespaces.Netns) -> Served:
    if name == protocol.RUNNER:
        return runner.SERVED
    plugin = _plugin(name)
    return slot.of_plugin(plugin, plugin_dirs, empty_netns, play_of(name), practice_of(plugin))


def _plugin(name: str) -> type[Plugin]:
    module = import_module(f"cnisandbox.plugins.{name.replace('-', '_')}")
    import_module("cnisandbox.engine")
    import_module("cnisandbox.late")
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Plugin)]
    return next(value for value in found if value.__module__ == module.__name__)


def _listener(fd: int) -> _socket.socket:
    listener = _socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    return listener


def _do_once() -> None:
    """Do what every child would do."""
    for name in dir(lib):
        getattr(lib, name)  # it is made when it is asked for
    workers.compile_filters()
    runner.compile_filters()


def _start_anew(command: list[str], variables: dict[str, str], pools: list[Pool]) -> NoReturn:
    """Become a new zygote, of the code that is installed now; launchers that connect meanwhile wait."""
    # Who asks again while that goes on has been heard already; the new one has a handler of its own.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # ORDER: copies above the numbers that they get, so that none is overwritten.
    lifted = [fcntl.fcntl(pool.listener.fileno(), fcntl.F_DUPFD_CLOEXEC, 64) for pool in pools]
    for number, fd in enumerate(lifted, start=3):
        os.dup2(fd, number, inheritable=True)
    variables |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(lifted))}
    os.execve(command[0], command, variables)  # noqa: S606 - no shell is wanted


def _warn(text: str) -> None:
    with suppress(OSError):  # whoever has read it has gone
        os.write(2, f"cnisandbox: {text}\n".encode("utf-8", "replace"))

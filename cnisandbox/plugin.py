"""What a plugin author uses: a class with one method per CNI verb, and a call that brings everything it may use.

Privilege: none. A plugin's methods run in the engine; what takes CAP_NET_ADMIN is asked of `call.host` and
`call.container`, which run declared functions.
"""

import fcntl
import os
from collections.abc import Callable, Iterator

from cnisandbox.boundary import entry
from cnisandbox.boundary.ahead import Subject
from cnisandbox.boundary.delegate import read_host_file
from cnisandbox.boundary.entry import Session
from cnisandbox.boundary.sandbox import HOST_ROLE, LOG_FD, Worker
from cnisandbox.boundary.service import BecomeGate
from cnisandbox.boundary.state import CONFIGURATION
from cnisandbox.boundary.wire import Channel
from cnisandbox.boundary.workers import Ahead, Log, Needs
from cnisandbox.cni.netconf import Attachment, NetConf
from cnisandbox.cni.result import Result
from cnisandbox.cni.value import Value
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.delegation import Ipam
from cnisandbox.errors import CniError, InvalidConfig, InvalidNetns, IoFailure, quoted, reason
from cnisandbox.hints import ClassVar, NamedTuple, NoReturn
from cnisandbox.light import contextmanager, suppress

# Below the first state directory, beside the indexes of host-local: a name that no network can have.
_LOCKS = ".cnisandbox/.locks"

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != ord("\t")}


class Request(NamedTuple):
    """What the runtime asks for, validated.

    Attributes:
        verb: "ADD", "DEL", "CHECK", "GC" or "STATUS".
        container_id: Empty for GC and STATUS, like the next two.
        ifname: Name of the interface in the container.
        netns_path: CNI_NETNS as it was given; may be empty for DEL.
        args: CNI_ARGS as it was given.
        plugin_dirs: Directories of CNI_PATH.
        netconf: The network configuration.
    """

    verb: str
    container_id: str
    ifname: str
    netns_path: str
    args: str
    plugin_dirs: tuple[str, ...]
    netconf: NetConf

    @property
    def attachment(self) -> Attachment:
        """What the call is about."""
        return Attachment(self.container_id, self.ifname)


class UndoStack:
    """What to take back when an ADD fails: newest first, to the end, whatever fails on the way."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def push(self, function: Callable[..., object], *args: object) -> None:
        """Remember how to take back what was just done."""
        self._steps.append((function, args))

    def unwind(self) -> list[str]:
        """Take everything back.

        Returns:
            Messages of what could not be taken back.
        """
        failures = []
        while self._steps:
            function, args = self._steps.pop()
            try:
                function(*args)
            except CniError as error:
                failures.append(error.msg)
        return failures


class Call:
    """One call of a plugin: the request, and everything that may be used to serve it.

    Attributes:
        request: What the runtime asks for.
        config: The network configuration, for reading fields.
        container: The worker in the container's netns; None when the plugin does not need it, and for a DEL whose netns
            has gone.
        undo: Steps to take back when an ADD fails.
        boot_id: Identifies this boot of the kernel.
        ipam: The address plugin that the netconf names.
    """

    def __init__(self, plugin: "type[Plugin]", session: Session, request: Request, undo: UndoStack) -> None:
        self.request = request
        self.config: Value = request.netconf.config
        self.container: Worker | None = session.container
        self.undo = undo
        self.boot_id = session.boot_id
        self._session = session
        self._unfinished: list[Callable[[], object]] = []
        self.ipam = Ipam(self, plugin.delegates, session.delegate)

    @property
    def host(self) -> Worker:
        """The worker in the host's netns.

        Raises:
            RuntimeError: the plugin did not say that it needs one.
        """
        return _needed(self._session.host, "host")

    @property
    def inside(self) -> Worker:
        """The worker in the container's netns, where there must be one.

        Raises:
            InvalidNetns: the netns has gone.
        """
        if self.container is None:
            raise InvalidNetns(f"enter netns {quoted(self.request.netns_path)}: it has gone")
        return self.container

    def finish_before_result(self, finish: Callable[[], object]) -> None:
        """Let the result of an ADD be put together while a worker does the last of it; what fails then fails the ADD.

        Args:
            finish: Of `Worker.start`; nothing else is asked of that worker.
        """
        self._unfinished.append(finish)

    def finish(self) -> None:
        """Wait for what was to be finished before the result."""
        while self._unfinished:
            self._unfinished.pop(0)()

    def for_delegate(self, plugin: "type[Plugin]") -> "Call":
        """The same call for a plugin of ours that this one delegates to."""
        return Call(plugin, self._session, self.request, self.undo)

    def state_dir(self, path: str, config_path: str) -> int:
        """Open a directory for state, and make it when it is missing.

        Args:
            path: Absolute path, in or below one of the state directories that the entry opened.
            config_path: Path of the field that names it, for the message.

        Returns:
            A descriptor, which the caller owns.

        Raises:
            InvalidConfig: it is not below a state directory.
            IoFailure: it cannot be opened.
        """
        normal = os.path.normpath(path)
        for root in self._session.state_dirs:
            if normal == root.path or normal.startswith(root.path + "/"):
                return _open_below(root.fd, normal[len(root.path) :].strip("/"), normal)
        places = ", ".join(root.path for root in self._session.state_dirs)
        raise InvalidConfig(
            f"{config_path}: {quoted(path)} is not below {places}",
            f"add a line with it to {CONFIGURATION}, or: cnisandbox install --state-dir {normal}",
        )

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other calls of this host out of the same lock; the kernel opens it when the process ends.

        Args:
            name: Of the lock, such as "bridge-cni0"; without '/'.

        Raises:
            IoFailure: the lock's file cannot be opened or locked.
        """
        directory_fd = _open_below(self._session.state_dirs[0].fd, _LOCKS, _LOCKS)
        try:
            lock_fd = _take_lock(directory_fd, name)
        finally:
            os.close(directory_fd)
        try:
            yield
        finally:
            os.close(lock_fd)

    def read_file(self, path: str) -> bytes:
        """Read a small file of the host that everybody may read, such as resolv.conf.

        Raises:
            IoFailure: it cannot be read.
        """
        self.ipam.settle()
        return _needed(self._session.delegate, "delegate").call(read_host_file, path)

    @staticmethod
    def warn(text: str) -> None:
        """Tell a person something, in one line on standard error; control characters but tabs are escaped."""
        # TRUST: a delegate's words may be in it, and whoever watches the log does so on a terminal.
        os.write(2, f"cnisandbox: {text.translate(_ESCAPES)}\n".encode("utf-8", "replace"))


def _needed(worker: Worker | None, which: str) -> Worker:
    if worker is None:
        raise RuntimeError(f"the plugin uses the {which} worker without saying so in `needs`")
    return worker


def _take_lock(directory_fd: int, name: str) -> int:
    lock_fd = -1
    try:
        lock_fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory_fd)
        fcntl.flock(lock_fd, fcntl.LOCK_EX)
    except OSError as error:
        if lock_fd >= 0:
            os.close(lock_fd)
        raise IoFailure(f"take lock {quoted(name)}: {reason(error)}") from error
    return lock_fd


def _open_below(root_fd: int, relative: str, path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = -1
    try:
        fd = os.open(".", flags, dir_fd=root_fd)
        for part in relative.split("/") if relative else ():
            outer_fd = fd
            try:
                fd = os.open(part, flags, dir_fd=outer_fd)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=outer_fd)
                fd = os.open(part, flags, dir_fd=outer_fd)
            os.close(outer_fd)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise IoFailure(f"open state directory {quoted(path)}: {reason(error)}") from error
    return fd


class Plugin:
    """A CNI plugin; subclasses override what they do.

    Class attributes:
        name: Name of the plugin, as a netconf's `type` has it.
        versions: CNI versions that it does.
        needs: Helpers that it needs.
        delegates: Address plugins of ours that need not be executed to be used.
    """

    name: ClassVar[str]
    versions: ClassVar[tuple[str, ...]] = SUPPORTED
    needs: ClassVar[Needs] = Needs()
    delegates: "ClassVar[tuple[type[Plugin], ...]]" = ()

    @classmethod
    def link_names(cls, _netconf: NetConf, _verb: str, _attachment: Attachment) -> dict[str, list[str]]:
        """Name the links that the permits of level mediated take from the netconf; none for most plugins.

        Returns:
            Key, as in cnisandbox/policy/own.py, to names.
        """
        return {}

    def inquire(self, call: Call) -> None:
        """Ask ahead of an ADD, while the host worker gets ready, what changes nothing.

        Order: the other processes are attested; `call.host` is not to be used.
        """

    def add(self, call: Call) -> Result:
        """Attach the container; what was done before a failure is pushed to `call.undo`."""
        raise NotImplementedError

    def delete(self, call: Call) -> None:
        """Detach the container; succeeds whatever is gone already."""

    def check(self, call: Call) -> None:
        """Raise CheckFailed when the kernel does not show what prevResult says; changes nothing."""

    def gc(self, call: Call) -> None:
        """Remove what belongs to no valid attachment of this network."""

    def status(self, call: Call) -> None:
        """Raise NotAvailable when an ADD could not be served."""


def run(plugin: type[Plugin], ahead: Ahead | None = None, status_fd: int | None = None) -> NoReturn:
    """Be a plugin's executable.

    Args:
        plugin: The plugin.
        ahead: What was made ahead of this call.
        status_fd: Where the exit status goes as well; who waits for it then need not wait for the process to end.
    """
    from cnisandbox.engine import PluginEngine  # noqa: PLC0415 - it is the engine that knows plugins, not the reverse

    if not getattr(__spec__.loader, "is_in_memory", False):
        from cnisandbox import late  # noqa: F401, PLC0415 - see there
    entry.main(plugin.name, needs_of(plugin), PluginEngine(plugin, status_fd), ahead)


def needs_of(plugin: type[Plugin]) -> Needs:
    """Say what a plugin needs, with what makes its network workers gates."""
    needs = plugin.needs
    if needs.host or needs.container:
        load = _load_nftables if needs.is_nft_user else needs.load
        return needs._replace(gate=lambda *call: _gate(plugin.name, *call), open_log=_open_log, load=load)
    return needs


def _load_nftables(role: str) -> None:
    if role == HOST_ROLE:
        from cnisandbox import _nftables  # noqa: F401, PLC0415 - see cnisandbox/late.py


def _gate(plugin: str, role: str, subject: Subject, log: Log | None) -> BecomeGate:
    """Make what a network worker of a plugin does when it becomes a gate."""
    if subject.is_gate_only:  # before the fork, so that workers have it in common
        from cnisandbox.monitor import gate  # noqa: F401, PLC0415 - most calls have no gate (cnisandbox/late.py)

    def become(channel: Channel, names: dict[str, list[str]]) -> NoReturn:
        from cnisandbox.audit.log import AuditLog  # noqa: PLC0415
        from cnisandbox.monitor import gate  # noqa: PLC0415

        fd, kind = (-1, "") if log is None else (LOG_FD, log.kind)
        records = AuditLog(fd, plugin, subject.container_id, subject.ifname, kind)
        gate.serve(channel, role, plugin, subject.ifname, names, records)

    return become


def _open_log(target: str) -> Log | None:
    from cnisandbox.audit.log import open_log  # noqa: PLC0415

    opened = open_log(target)
    return Log(*opened) if opened else None

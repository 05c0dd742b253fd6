"""The engine: reads the netconf, has the plugin serve the call, and writes one JSON document.

Privilege: none: no capability, the service user, no file system but the state directories, no socket.
"""

import os

from cnisandbox.boundary.attestation import Attestation, require_all, verify
from cnisandbox.boundary.entry import Session
from cnisandbox.boundary.environment import Environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import Worker
from cnisandbox.cni.netconf import NetConf, parse_netconf, sniff_version
from cnisandbox.cni.output import error_document, result_document, version_document
from cnisandbox.cni.value import MAX_DOCUMENT_BYTES
from cnisandbox.cni.versions import SUPPORTED
from cnisandbox.errors import CniError, InvalidConfig, IoFailure, quoted, reason
from cnisandbox.hints import NoReturn
from cnisandbox.light import signal, suppress
from cnisandbox.monitor.client import Gate
from cnisandbox.plugin import Call, Plugin, Request, UndoStack

# The version that an error is reported in before the netconf said which.
_NEWEST = SUPPORTED[-1]
_STDIN, _STDOUT, _STDERR = 0, 1, 2


class PluginEngine:
    """Serves calls of one plugin.

    Args:
        plugin: Its class.
        status_fd: A pipe that the exit status is written to as well.
    """

    def __init__(self, plugin: type[Plugin], status_fd: int | None = None) -> None:
        self._plugin = plugin
        self._status_fd = status_fd
        self.descriptors = set() if status_fd is None else {status_fd}
        # An interrupt ends the process; it is nothing that Python code should be asked about.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def describe(self) -> NoReturn:
        """Say what this is, to a person who started it by hand."""
        versions = ", ".join(self._plugin.versions)
        _write(_STDERR, f"CNI {self._plugin.name} plugin (cnisandbox)\nCNI protocol versions supported: {versions}\n")
        self._exit(0)

    def answer_version(self) -> NoReturn:
        """Answer VERSION; standard input is not read."""
        self._finish(version_document(_NEWEST, self._plugin.versions), 0)

    def fail(self, error: CniError) -> NoReturn:
        """Report an error that came before the netconf was read."""
        self._finish(error_document(error, _NEWEST), 1)

    def run(self, session: Session) -> NoReturn:
        """Serve the call."""
        version = _NEWEST
        try:
            # ORDER: nothing is parsed by a process that has kept a privilege; what the kernel lacks is judged after the
            # netconf, which may allow that.
            missing = verify(session.attestation, session.expectation, allows_degraded=True)
            data = _read_stdin()
            try:
                netconf = parse_netconf(data, session.environment.verb, self._plugin.versions)
            except Exception:
                version = sniff_version(data)
                raise
            version = netconf.version
            undo = UndoStack()
            call = Call(self._plugin, session, request_of(session.environment, netconf), undo)
            plugin = self._plugin()
            _attest(call, session, plugin, missing)
            _serve(plugin, call, undo)
        except CniError as error:
            self._finish(error_document(error, version), 1)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not become a traceback on a runtime's log
            defect = CniError(f"{self._plugin.name}: {type(error).__name__}: {error}", "this is a defect of cnisandbox")
            self._finish(error_document(defect, version), 1)
        self._exit(0)

    def _finish(self, document: bytes, status: int) -> NoReturn:
        """Write the document and end; the workers end with us, because that is how they were made."""
        try:
            _write_bytes(_STDOUT, document)
        except OSError as error:
            Call.warn(f"write standard output: {reason(error)}")
            status = 1
        self._exit(status)

    def _exit(self, status: int) -> NoReturn:
        # Taking an interpreter's memory apart takes 2 ms, which nobody needs to wait for.
        if self._status_fd is not None:
            with suppress(OSError):  # nobody waits any more
                os.write(self._status_fd, bytes([status]))
        os._exit(status)


def request_of(environment: Environment, netconf: NetConf) -> Request:
    """Put together what the runtime asks for."""
    return Request(
        verb=environment.verb,
        container_id=environment.container_id,
        ifname=environment.ifname,
        netns_path=environment.netns_path,
        args=os.environ.get("CNI_ARGS", ""),
        plugin_dirs=environment.plugin_dirs,
        netconf=netconf,
    )


def _serve(plugin: Plugin, call: Call, undo: UndoStack) -> None:
    """Have the plugin do what the verb says, and write the result of an ADD; nothing is written for other verbs."""
    match call.request.verb:
        case "ADD":
            _add(plugin, call, undo)
        case "DEL":
            plugin.delete(call)
        case "CHECK":
            _require_prev_result(call.request.netconf)
            plugin.check(call)
        case "GC":
            _require_valid_attachments(call.request.netconf)
            plugin.gc(call)
        case "STATUS":
            plugin.status(call)


def _add(plugin: Plugin, call: Call, undo: UndoStack) -> None:
    """Run ADD: all of it, or nothing. A result that nobody can receive is a failure, too."""
    try:
        document = result_document(plugin.add(call), call.request.netconf.version)
        call.finish()
        _deliver(document)
    except CniError as error:
        _unwind(undo, error)
        raise
    except Exception as error:
        defect = CniError(f"{plugin.name}: {type(error).__name__}: {error}", "this is a defect of cnisandbox")
        _unwind(undo, defect)
        raise defect from error


def _deliver(document: bytes) -> None:
    try:
        _write_bytes(_STDOUT, document)
    except OSError as error:
        raise IoFailure(f"write standard output: {reason(error)}") from error


def _unwind(undo: UndoStack, error: CniError) -> None:
    failures = undo.unwind()
    if failures:
        error.details = "; ".join([*([error.details] if error.details else []), "left behind: " + ", ".join(failures)])


def _require_prev_result(netconf: NetConf) -> None:
    if netconf.prev_result is None:
        raise InvalidConfig("prevResult: CHECK needs it", "the runtime passes the result of the last ADD")


def _require_valid_attachments(netconf: NetConf) -> None:
    if netconf.valid_attachments is None:
        raise InvalidConfig(
            "cni.dev/valid-attachments: GC needs it", "an empty list says that no attachment of the network is valid"
        )


def _attest(call: Call, session: Session, plugin: Plugin, missing_here: tuple[str, ...]) -> None:
    """Compare every process of the call with its level, and keep the evidence; at mediated, network workers are gates.

    An ADD asks meanwhile what changes nothing.

    Args:
        call: The call.
        session: Its processes.
        plugin: The plugin.
        missing_here: What the kernel lacks of the engine's own protections, which was compared already.

    Raises:
        IsolationError: one of them is not what the level asks for.
    """
    request = call.request
    is_mediated, allows_degraded = _protection(request.netconf, session.environment.level)
    names = plugin.link_names(request.netconf, request.verb, request.attachment) if is_mediated else {}
    if not allows_degraded:
        require_all(session.expectation.role, missing_here)
    missing = list(missing_here)

    def attest(worker: Worker | None) -> None:
        if worker is not None:
            worker.attest(allows_degraded=allows_degraded)
            missing.extend(worker.missing)

    def attest_network(worker: Worker | None) -> None:
        attest(worker)
        # From here on what needs CAP_NET_ADMIN is judged, message by message.
        if worker is not None and is_mediated:
            worker.become_gate(names, Gate)

    # ORDER: who is ready first is first asked; meanwhile we go on with the others.
    attest(session.delegate)
    if request.verb == "ADD":
        call.ipam.inquire()
    attest_network(session.container)
    if request.verb == "ADD":
        plugin.inquire(call)
    attest_network(session.host)
    for facility in dict.fromkeys(missing):
        Call.warn(f"the kernel lacks {facility}; going on without it, because sandbox.allowDegraded says so")
    if session.attest_fd is not None:
        workers = [worker for worker in (session.host, session.container, session.delegate) if worker is not None]
        _keep([session.attestation, *(worker.attest() for worker in workers)], session.attest_fd)


def _protection(netconf: NetConf, level: Level) -> tuple[bool, bool]:
    """Read what the netconf says of the protection.

    Returns:
        Whether the level is mediated: the caller said so, or the netconf asks for more than the caller did. Whether it
        may be done without what the kernel lacks.
    """
    options = netconf.config["sandbox"]
    wanted = options["level"].string(level.value)
    is_mediated = wanted == Level.MEDIATED.value and level in (Level.HARDENED, Level.MEDIATED)
    if not is_mediated and wanted != level.value:
        raise InvalidConfig(
            f"sandbox.level: {quoted(wanted)} differs from {level.value}, at which this call runs",
            "a weaker level is for measuring and is chosen by the caller, with CNISANDBOX_LEVEL",
        )
    return is_mediated, options["allowDegraded"].boolean()


def _keep(attestations: list[Attestation], fd: int) -> None:
    import json  # noqa: PLC0415 - see cnisandbox/late.py

    lines = [json.dumps(attestation._asdict(), sort_keys=True) + "\n" for attestation in attestations]
    _write(fd, "".join(lines))


def _read_stdin() -> bytes:
    """Read the netconf, at most one byte more than may be."""
    pieces, left = [], MAX_DOCUMENT_BYTES + 1
    try:
        while left and (piece := os.read(_STDIN, min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
    except OSError as error:
        raise IoFailure(f"read standard input: {reason(error)}") from error
    return b"".join(pieces)


def _write(fd: int, text: str) -> None:
    _write_bytes(fd, text.encode("utf-8", "replace"))


def _write_bytes(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]

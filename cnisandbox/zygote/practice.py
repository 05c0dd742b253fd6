"""Calls that nobody has asked for, which the zygote serves by itself at its start.

The interpreter rewrites a function that is called often: instructions that look everything up become ones for the types
and names that they have met (PEP 659). A call ends before that has happened, and what it has learned ends with it; what
the zygote has learned, each fork has.

    engine's part ── channel ──▶ worker's part       both in this process: whoever waits for an answer has the others
                                                     give theirs

Privilege: everything the runtime has, which a plugin's code has nowhere else. Nothing of a call is there yet: the
netconf is a constant of ours, and what else is read are the kernel's answers in two network namespaces that nobody else
is in. What is changed are links there, settings of theirs, and files in a tmpfs that is mounted nowhere. The delegate
worker's part does nothing at all, so no program is looked for, or executed. What stays is what the interpreter has made
of the code, and memory.
"""

import fcntl
import gc
import os
import select
from collections.abc import Callable

from cnisandbox.audit.log import AuditLog
from cnisandbox.boundary import limits, namespaces, service, view
from cnisandbox.boundary.attestation import Attestation, Expectation, Witness, verify
from cnisandbox.boundary.calls import TABLE
from cnisandbox.boundary.delegate import Found
from cnisandbox.boundary.entry import Session
from cnisandbox.boundary.environment import Environment, read_environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import (
    CALL_TIMEOUT_S,
    CONTAINER_ROLE,
    DELEGATE_ROLE,
    GIVEN_FD,
    HOST_ROLE,
    ServiceUser,
    Worker,
)
from cnisandbox.boundary.state import StateDir, read_boot_id, state_paths
from cnisandbox.boundary.syscalls import checked, lib
from cnisandbox.boundary.wire import channel_pair
from cnisandbox.boundary.workers import plan_engine
from cnisandbox.cni.netconf import parse_netconf
from cnisandbox.cni.output import result_document
from cnisandbox.engine import request_of
from cnisandbox.errors import PrivilegeNotDropped, reason
from cnisandbox.hints import NamedTuple
from cnisandbox.light import signal, suppress
from cnisandbox.monitor.client import Gate, through
from cnisandbox.monitor.gate import Gatekeeper
from cnisandbox.netlink.transport import close_route_socket
from cnisandbox.nft import connection
from cnisandbox.plugin import Call, Plugin, UndoStack
from cnisandbox.zygote.rehearsal import NETCONFS, leave_the_server, read_to_end
from cnisandbox.zygote.slot import Practice, own_facts

# The interpreter begins to adapt a function with its eighth call, and an ADD calls most of them once.
_ROUNDS = 5
_LEVELS = (Level.HARDENED, Level.MEDIATED)
_IFNAME = "eth0"
_DONE = "done"


class _Evidence(NamedTuple):
    """An attestation, and what it would have to say."""

    said: Attestation
    expected: Expectation


def practice_of(plugin: type[Plugin]) -> Practice | None:
    """Make a practice of a plugin of ours; None where none was written."""
    netconfs = NETCONFS.get(plugin.name)
    return None if netconfs is None else lambda warn: practise(plugin, netconfs, warn)


def practise(plugin: type[Plugin], netconfs: tuple[str, ...], warn: Callable[[str], None]) -> None:
    """Serve an ADD, its CHECK and its DEL several times, at each level.

    Args:
        plugin: Whose.
        netconfs: Of a network whose host and container are empty. The second and those behind it are for kernels that
            refuse the ones before.
        warn: Told when all have failed; calls then take longer. And when this process cannot go back to where it was;
            it ends then.
    """
    failures = []
    for netconf in netconfs:
        # ORDER: tried by a fork, which may end, or hang, as libraries do; then done here, where neither must be.
        failure = _failure_of_fork(plugin, netconf)
        if not failure:
            _serve_here(plugin, netconf, warn)
            return
        failures.append(failure)
    warn(f"practise {plugin.name}: {'; '.join(failures)}; calls will take longer")


def _failure_of_fork(plugin: type[Plugin], netconf: str) -> str:
    """Have a fork serve the calls once; returns why that has failed."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        said = ""
        try:
            leave_the_server()
            _serve_calls(plugin, netconf.encode(), 1)
            said = _DONE
        except Exception as error:  # noqa: BLE001 - whatever it is, calls are served without what could be learned
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(write_fd, said.encode("utf-8", "replace"))
            os._exit(0)
    os.close(write_fd)
    said = read_to_end(read_fd).decode("utf-8", "replace")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "" if said == _DONE else said or "a try has ended, or takes too long"


def _serve_here(plugin: type[Plugin], netconf: str, warn: Callable[[str], None]) -> None:
    """Serve the calls in this process, and go back to where it was."""
    capabilities, before = own_facts().capabilities, _descriptors()
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    # A worker finds the container's netns at this number, under which we have something of our own.
    lifted_fd = fcntl.fcntl(GIVEN_FD, fcntl.F_DUPFD_CLOEXEC, GIVEN_FD + 1)
    try:
        _serve_calls(plugin, netconf.encode(), _ROUNDS)
    except Exception as error:  # noqa: BLE001 - as above
        warn(f"practise {plugin.name}: {type(error).__name__}: {error}; calls will take longer")
    finally:
        # ORDER: whoever closes its descriptors when it is forgotten does so before their numbers are somebody else's.
        gc.collect()
        try:
            # A gate that has refused something has left the others off.
            checked(lib.native_set_effective(capabilities), "capset")
            namespaces.enter_netns(own_fd)
            os.dup2(lifted_fd, GIVEN_FD, inheritable=False)
        except OSError as error:
            # TRUST: in another netns than the launchers' no call may be served.
            warn(f"practise {plugin.name}: go back to the netns of before: {reason(error)}; no call will be served")
            os._exit(1)
        for fd in _descriptors() - before:
            os.close(fd)


def _descriptors() -> set[int]:
    # The one that they are listed with has been closed.
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if limits.is_open(fd)}


def _serve_calls(plugin: type[Plugin], netconf: bytes, rounds: int) -> None:
    host, container = namespaces.open_empty_netns(), namespaces.open_empty_netns()
    os.dup2(container.fd, GIVEN_FD, inheritable=False)
    state_dir = StateDir(state_paths()[0], view.new_temporary())
    # ORDER: as they answer. At a DEL the host's looks whether the link is gone, which the container's deletes.
    netns_fds = {CONTAINER_ROLE: container.fd, HOST_ROLE: host.fd, DELEGATE_ROLE: host.fd}
    try:
        for level in _LEVELS:
            for _ in range(rounds):
                evidence = _attest()
                document = _serve(plugin, _environment("ADD", level), netconf, netns_fds, state_dir, evidence)
                attached = netconf.removesuffix(b"}") + b', "prevResult": ' + document + b"}"
                for verb in ("CHECK", "DEL"):
                    _serve(plugin, _environment(verb, level), attached, netns_fds, state_dir, evidence)
    finally:
        connection.close()


def _attest() -> _Evidence:
    """Do what is done with an attestation, with one of ours; we are not confined, and it says so."""
    witness = Witness()
    before = witness.look("engine", Level.HARDENED, 0)
    witness.see_namespaces()
    said = witness.testify("engine", Level.HARDENED, 0)
    ours, theirs = channel_pair("engine", "engine")
    service.send_changes(theirs, before._replace(pid=0, limits={}), said)
    heard = service.receive_changes(ours, before, CALL_TIMEOUT_S)
    ours.close()
    theirs.close()
    expected = plan_engine(Level.HARDENED, ServiceUser(1, 1), namespaces.inodes(), None).expected
    with suppress(PrivilegeNotDropped):
        verify(heard, expected, allows_degraded=False)
    return _Evidence(heard, expected)


def _environment(verb: str, level: Level) -> Environment:
    return read_environment(
        {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "x",
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_IFNAME": _IFNAME,
            "CNI_PATH": "/usr/bin",
            "CNISANDBOX_LEVEL": level.value,
        }
    )


def _serve(
    plugin: type[Plugin],
    environment: Environment,
    text: bytes,
    netns_fds: dict[str, int],
    state_dir: StateDir,
    evidence: _Evidence,
) -> bytes:
    """Serve a call as the engine does, with workers that are parts of this process; returns the result of an ADD."""
    netconf = parse_netconf(text, environment.verb, plugin.versions)
    request = request_of(environment, netconf)
    names = plugin.link_names(netconf, request.verb, request.attachment)
    parts: list[_Part] = []
    for role, netns_fd in netns_fds.items():
        namespaces.enter_netns(netns_fd)
        is_gate = environment.level is Level.MEDIATED and role != DELEGATE_ROLE
        log = AuditLog(-1, plugin.name, "", _IFNAME)
        keeper = Gatekeeper(role, plugin.name, _IFNAME, names, log) if is_gate else None
        parts.append(_Part(role, netns_fd, keeper, parts, evidence))
    container, host, delegate = (part.worker for part in parts)
    session = Session(environment, host, container, delegate, (state_dir,), read_boot_id(), None, *evidence)
    call = Call(plugin, session, request, UndoStack())
    served = plugin()
    document = b""
    try:
        match environment.verb:
            case "ADD":
                call.ipam.inquire()
                served.inquire(call)
                document = result_document(served.add(call), netconf.version)
                call.finish()
            case "CHECK":
                served.check(call)
            case "DEL":
                served.delete(call)
    finally:
        for part in parts:
            part.close()
    return document


class _Answers:
    """What an engine's part polls where it would wait for an answer: everybody has answered before.

    Args:
        parts: They.
        readable: What would be polled.
    """

    def __init__(self, parts: "list[_Part]", readable: select.poll) -> None:
        self._parts = parts
        self._readable = readable

    def poll(self, _timeout_ms: float) -> list[tuple[int, int]]:
        """Have all that were asked something answer; who has not by then never will."""
        for part in self._parts:
            part.answer()
        return self._readable.poll(0)


class _Part:
    """A worker of a call, both ends of whose channel are in this process.

    Args:
        role: Its role.
        netns_fd: The netns that it would be in.
        keeper: What it is at mediated.
        parts: All workers of the call.
        evidence: Of whoever; nothing is confined here, so nothing is compared.

    Attributes:
        worker: What the engine has of it.
    """

    def __init__(
        self, role: str, netns_fd: int, keeper: Gatekeeper | None, parts: "list[_Part]", evidence: _Evidence
    ) -> None:
        self._channel, self._its_channel = channel_pair(role, "engine", reads_ahead=True)
        self._role = role
        self._netns_fd = netns_fd
        self._keeper = keeper
        readable = self._channel._readable  # noqa: SLF001 - see `_Answers`
        self._channel._readable = _Answers(parts, readable)  # type: ignore[assignment]  # noqa: SLF001 - likewise
        self.worker = Worker(0, self._channel, evidence.expected)
        self.worker._attestation = evidence.said  # noqa: SLF001 - see above
        self._gate = None if keeper is None else Gate(self._channel)
        self.worker._through = self._gate  # noqa: SLF001 - as `become_gate` does

    def answer(self) -> None:
        """Answer what was asked, as a worker does, or a gate."""
        if not self._its_channel.has_message():
            return
        # The engine's part may be within a function that goes through this very gate.
        with through(None):
            namespaces.enter_netns(self._netns_fd)
            try:
                self._answer(self._its_channel.receive())
            finally:
                close_route_socket()  # it belongs to this netns

    def _answer(self, request: object) -> None:
        if self._role == DELEGATE_ROLE:
            # TRUST: nothing that a delegate worker does is done here, least of all to execute what it has found.
            self._its_channel.send(service.answer_of(Found, ["", b""]))
        elif self._keeper is None:
            index, arguments = service.checked_request(request, is_delegate=False)
            self._its_channel.send(service.answer_of(TABLE[index], arguments))
        else:
            self._its_channel.send(self._keeper.take(request))
            self._keeper.learn()

    def close(self) -> None:
        with through(self._gate):
            close_route_socket()
        self._channel.close()
        self._its_channel.close()

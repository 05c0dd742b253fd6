"""Cases about the kernel's settings, sockets without a file, and the surface of its bugs."""

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from cnisandbox.boundary import namespaces
from cnisandbox.boundary.calls import declared
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, Worker, network_worker, service_user, spawn
from cnisandbox.boundary.wire import Channel
from cnisandbox.errors import CniError
from cnisandbox.hints import Any
from cnisandbox.laboratory.replays import vulnerable
from cnisandbox.laboratory.replays.case import OURS, Case, Effect, Outcome
from cnisandbox.laboratory.replays.host import BLUE, REFERENCE_DIR, Host
from cnisandbox.monitor import gate
from cnisandbox.monitor.client import NFTABLES, OPEN, WRITE_SYSCTL, Gate
from cnisandbox.sysctl import write_sysctl

# Next to core_pattern, of the whole machine as well, and harmless: whether the name of a core file has the pid in it.
_SETTING = "kernel/core_uses_pid"
_SOCKET = "containerd-shim-replayed"
_CONTAINER_WORKER, _HOST_WORKER = "container worker", "host worker"
_PEER = struct.Struct("=iII")  # struct ucred


def sysctl_injection(host: Host) -> Outcome:
    """Have more settings written than the one that is allowed."""
    with open(f"/proc/sys/{_SETTING}", "r+") as file:
        file.write("0")
    outcome = _inject_into_ours(host, "1") if host.column == OURS else _inject_into_plugins(host, "1")
    with open(f"/proc/sys/{_SETTING}") as file:
        after = file.read().strip()
    what = f"/proc/sys/{_SETTING} was 0, is {after}"
    return outcome._replace(effects=(Effect("a setting of the whole machine is written", after != "0", what),))


def _inject_into_plugins(host: Host, other: str) -> Outcome:
    """Try the reference tuning, then the vulnerable writer."""
    dotted = _SETTING.replace("/", ".")
    network = {"cniVersion": "1.0.0", "name": "net"}
    prev_result = {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": BLUE}], "ips": []}
    host.run("ip", "-n", "blue", "link", "add", "eth0", "type", "veth", "peer", "name", "eth9")
    repaired = []
    for key in (dotted, f"net.ipv4/../../{_SETTING}", f"net.ipv4.conf.all.arp_filter=1+{dotted}"):
        netconf = {**network, "type": "tuning", "sysctl": {key: other}, "prevResult": prev_result}
        repaired.append(host.call(f"{REFERENCE_DIR}/tuning", netconf).said)
    said = []
    for text in (f"net.ipv4.conf.all.arp_filter=1+{dotted}={other}", f"net/../{_SETTING}={other}"):
        said.append(host.call_vulnerable("tuning", "write-sysctls", {"sysctls": text}).said)
    reason = f"the reference tuning refuses: {repaired[0]}" if all(repaired) else "the reference tuning writes it"
    return Outcome(f"reference tuning, then {host.vulnerable_subject}", (), next(filter(None, said), ""), reason)


@declared
def write_as_pinns(text: str) -> str:
    """Be the vulnerable writer, in a worker; returns what it was told."""
    return _refusal(lambda: vulnerable.write_sysctls({"replay": {"sysctls": text}}))


@declared
def make_table() -> str:
    """Speak to nf_tables, in a worker, with messages of our own; returns what it was told."""
    return _refusal(vulnerable.send_table)


def _inject_into_ours(host: Host, other: str) -> Outcome:
    """Have both network workers of our bridge write, by the product's function and by the vulnerable one."""
    said = []
    for role in (_CONTAINER_WORKER, _HOST_WORKER):
        if host.level is Level.MEDIATED:
            with _gate(role) as there:
                for path in (f"../{_SETTING}", f"ipv4/../../{_SETTING}", f"ipv4/ip_forward+../{_SETTING}"):
                    said.append(_refusal(partial(there.ask, WRITE_SYSCTL, path, f"{other}\n".encode())))
        else:
            with _worker(role) as worker:
                for key in (_SETTING, f"net/../{_SETTING}", f"net/ipv4/ip_forward=1+{_SETTING}"):
                    said.append(_refusal(partial(worker.call, write_sysctl, key, other)))
                for text in (f"net.ipv4.ip_forward=1+{_SETTING}={other}", f"net/../{_SETTING}={other}"):
                    said.append(worker.call(write_as_pinns, text))
    where = "gates" if host.level is Level.MEDIATED else "network workers"
    return Outcome(f"the {where} of our bridge", (), next(filter(None, said), ""))


def _refusal(ask: Callable[[], object]) -> str:
    try:
        ask()
    except (CniError, OSError) as error:
        return str(error)
    return ""


@contextmanager
def _worker(role: str) -> Iterator[Worker]:
    """Fork a network worker as our bridge does."""
    with _forked(role) as worker:
        worker.attest()
        yield worker


@contextmanager
def _gate(role: str) -> Iterator[Gate]:
    """Fork one and have it be a gate."""
    found: list[Gate] = []

    def connect(channel: Channel) -> Gate:
        found.append(Gate(channel))
        return found[-1]

    with _forked(role) as worker:
        worker.become_gate({"bridge": ["cni0"], "host": ["veth11111111"]}, connect)
        yield found[0]


@contextmanager
def _forked(role: str) -> Iterator[Worker]:
    def become(channel: Channel, names: dict[str, list[str]]) -> Any:
        gate.serve(channel, role, "bridge", "eth0", names)

    netns = namespaces.open_netns(BLUE)
    is_inside = role == _CONTAINER_WORKER
    protocols = (NETLINK_ROUTE,) if is_inside else (NETLINK_ROUTE, NETLINK_NETFILTER)
    wanted = network_worker(role, Level.HARDENED, service_user(), netns if is_inside else None, protocols)
    given_fd, inode = (None, netns.inode) if is_inside else (netns.fd, None)
    worker = spawn(wanted, namespaces.inodes(), given_fd, inode, namespaces.NewPidNamespaces(), "", become)
    try:
        yield worker
    finally:
        worker.close()
        namespaces.close_netns(netns)


def abstract_socket(host: Host) -> Outcome:
    """Reach a socket of the runtime that has no file."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + _SOCKET)
        listener.listen(8)
        listener.setblocking(False)
        answer = host.call_vulnerable("bridge", "connect-to-abstract-socket", {"socket": _SOCKET})
        uids = list(_peers(listener))
    effects = (
        Effect("a socket of the runtime is reached", bool(uids), f"connections that the runtime accepted: {len(uids)}"),
        Effect("the runtime takes it for root", 0 in uids, f"SO_PEERCRED: uid {uids}" if uids else "nobody came"),
    )
    return Outcome(host.vulnerable_subject, effects, answer.said)


def _peers(listener: socket.socket) -> Iterator[int]:
    with suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            with connection:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
                yield _PEER.unpack(credentials)[1]


def kernel_surface(host: Host) -> Outcome:
    """Reach the parts of the kernel in which the bugs of nf_tables are found."""
    own = os.readlink("/proc/self/ns/user")
    found: set[str] = set()

    def look() -> bool:
        for pid in host.vulnerable_processes():
            with suppress(OSError):
                namespace = os.readlink(f"/proc/{pid}/ns/user")
                found.update({namespace} - {own})
        return bool(found)

    said = [
        host.call_vulnerable("bridge", "make-user-namespace", during=look).said,
        host.call_vulnerable("bridge", "make-table").said,
    ]
    subject = host.vulnerable_subject
    if host.column == OURS:
        subject += f"; the {'gates' if host.level is Level.MEDIATED else 'network workers'} of our bridge"
        for role in (_CONTAINER_WORKER, _HOST_WORKER):
            said.append(_make_table_in_ours(host, role))
    netns_of_tables = [
        name
        for name, place in (("host", []), ("blue", ["ip", "netns", "exec", "blue"]))
        if f"table ip {vulnerable.TABLE}" in host.run(*place, "nft", "list", "tables")
    ]
    where = ", ".join(netns_of_tables)
    effects = (
        Effect("a user namespace is made", bool(found), f"processes in one: {'seen' if found else 'none'}"),
        Effect("nf_tables takes a table of the attacker's", bool(where), f"the table is there: {where or 'nowhere'}"),
    )
    return Outcome(subject, effects, next(filter(None, said), ""))


def _make_table_in_ours(host: Host, role: str) -> str:
    if host.level is not Level.MEDIATED:
        with _worker(role) as worker:
            return worker.call(make_table)
    command = {"add": {"table": {"family": "ip", "name": vulnerable.TABLE}}}
    with _gate(role) as there:
        refused = _refusal(lambda: there.ask(OPEN, NETLINK_NETFILTER))
    with _gate(role) as there:
        return refused or _refusal(lambda: there.ask(NFTABLES, json.dumps({"nftables": [command]})))


CASES = (
    Case(
        "sysctl-injection",
        "CVE-2022-0811",
        "CRI-O before 1.19.6, cr8escape: a setting's value brings further settings with it",
        "the value has '+' and a second setting in it, or the key leads out of net/ with '..'",
        sysctl_injection,
        "Whoever writes settings is the service user, with nothing in view but /proc/sys/net of one netns; keys with"
        " '..' are refused before. Under the runner each setting needs a permit of the profile.",
        setting=_SETTING,
    ),
    Case(
        "abstract-socket",
        "CVE-2020-15257",
        "containerd before 1.3.9: the shim's socket is open to everybody in the host's netns",
        "the plugin connects to an abstract socket of a process in the host's netns",
        abstract_socket,
        "Such a socket is found in the netns that one stands in. A program of others that our plugins execute may make"
        " no socket; under the runner a plugin stands in a netns of its own, in which nobody listens.",
    ),
    Case(
        "kernel-surface",
        "CVE-2024-1086",
        "Linux, nf_tables and its family: bugs that any process finds that may make a user namespace or a table",
        "the plugin makes a user namespace, and a table of its own in nf_tables with messages of its own",
        kernel_surface,
        "Reachability, not the bug. No user namespace is made by anybody. Of our own plugins the host worker of bridge"
        " speaks to nf_tables at level hardened; a gate, and the runner's monitor, send only what names a profile's"
        " tables, encoded again. A bug behind what is permitted stays in reach.",
    ),
)

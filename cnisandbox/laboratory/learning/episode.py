"""ADD, CHECK, DEL and DEL again of one plugin in a world of its own.

The plugins that stand before it in a chain run as root first, and are not watched.

Privilege: root, in a world.
"""

import errno
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cnisandbox.errors import InvalidConfig, IsolationUnavailable, quoted
from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.learning import state
from cnisandbox.laboratory.learning.world import CONTAINER, HOST, World, in_world

VERBS = ("ADD", "CHECK", "DEL", "DEL")

PROFILE_PATH = "/run/cnisandbox-learn.toml"
_LOG_PATH = "/run/cnisandbox-learn.log"
_CALL_TIMEOUT_S = 60
_EPISODE_TIMEOUT_S = 300
_RTMGRP_LINK = 1
_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_IFLA_IFNAME, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 18, 37
_IFLA_INFO_KIND = 1
_NLMSGHDR = struct.Struct("=IHHII")
_IFINFOMSG = struct.Struct("=BxHiII")
_EVENT_BUFFER_BYTES = 8 << 20

# Strings of a call are not needed, their bytes follow; what is behind pointers is needed of addresses only.
_STRACE = (
    "-ff",
    "-y",
    "-q",
    "--absolute-timestamps=format:unix,precision:ns",
    "--string-limit=0",
    "--write=all",
    "--read=all",
    "--verbose=connect,bind,clone3,newfstatat",
)


class Subject(NamedTuple):
    """Who is watched, and with what.

    Attributes:
        plugin: Path of the plugin.
        cni_path: CNI_PATH.
        netconf: What it gets.
        before: Netconfs of the plugins that run before it in the chain.
        setup: Shell commands that prepare the world.
        container_id, ifname: The attachment.
    """

    plugin: str
    cni_path: str
    netconf: dict[str, Any]
    before: tuple[dict[str, Any], ...]
    setup: tuple[str, ...]
    container_id: str
    ifname: str


class LinkEvent(NamedTuple):
    """What the kernel said about a link when it changed.

    Attributes:
        netns: "host" or "container".
        call: Index of the call during which; -1 for before the first.
        is_there: False when it has gone.
        ifindex, ifname, kind: Its number, name and kind.
        peer: ifindex of what it is connected to or stands on.
        is_peer_elsewhere: Whether that is in another netns.
    """

    netns: str
    call: int
    is_there: bool
    ifindex: int
    ifname: str
    kind: str
    peer: int
    is_peer_elsewhere: bool


class Call(NamedTuple):
    """One call and what came of it.

    Attributes:
        verb: CNI_COMMAND.
        status: Exit status.
        stdout, stderr: Its output.
        state: What it left behind.
        trace: What strace wrote, by thread; empty when it was not watched.
        default_route: Numbers of the links that the host's default routes lead over, before the call.
        refused: Lines of the audit log about what was refused.
    """

    verb: str
    status: int
    stdout: str
    stderr: str
    state: state.State
    trace: dict[str, str]
    default_route: list[int]
    refused: list[dict[str, Any]]


class Episode(NamedTuple):
    """All calls of one run.

    Attributes:
        subject: Who.
        calls: In order.
        links: What happened to links.
        inodes: Inode number of each netns, as text, to "host" or "container".
        netns_path: CNI_NETNS.
        prev_result: What stood in the netconf's prevResult at the first call.
    """

    subject: Subject
    calls: list[Call]
    links: list[LinkEvent]
    inodes: dict[str, str]
    netns_path: str
    prev_result: Any


def run(subject: Subject, *, is_watched: bool = False, profile: str = "", statuses: Sequence[int] = ()) -> Episode:
    """Run an episode.

    Args:
        subject: Who, with what.
        is_watched: Whether strace looks on.
        profile: Text of the profile that confines the plugin; empty: it runs as root.
        statuses: What the calls are to end with; after one that does not, the others are left out.

    Raises:
        InvalidConfig: a plugin before it in the chain, or a command of the setup, failed.
        IsolationUnavailable: no world can be made here, or strace is missing.
    """
    strace = shutil.which("strace") if is_watched else ""
    if strace is None:
        raise IsolationUnavailable("watch plugin: strace is not installed", "install it: `apt-get install strace`")

    def work(world: World) -> object:
        return _Run(world, subject, strace or "", profile).all_calls(statuses)

    answer = in_world(f"learn-{subject.container_id}", work, _EPISODE_TIMEOUT_S)
    if "failed" in answer:
        raise InvalidConfig(*answer["failed"])
    return Episode(
        subject,
        [Call(**call) for call in answer["calls"]],
        [LinkEvent(*event) for event in answer["links"]],
        answer["inodes"],
        answer["netns_path"],
        answer["prev_result"],
    )


class _FailedError(Exception):
    """Something before the first call did not work: what, and what it said."""


class _Run:
    def __init__(self, world: World, subject: Subject, strace: str, profile: str) -> None:
        self._world = world
        self._subject = subject
        self._strace = strace
        self._profile = profile
        self._events: list[LinkEvent] = []
        self._monitors = {}
        for netns in (HOST, CONTAINER):
            with world.inside(netns):
                self._monitors[netns] = _monitor()

    def all_calls(self, statuses: Sequence[int]) -> dict[str, Any]:
        """Make the calls, as far as they end as they are to end."""
        try:
            prev_result = self._prepare()
        except _FailedError as error:
            return {"failed": error.args}
        self._collect(-1)
        first_prev_result = prev_result
        calls = []
        for number, verb in enumerate(VERBS):
            netconf = self._subject.netconf | ({} if prev_result is None else {"prevResult": prev_result})
            call = self._call(verb, netconf)
            self._collect(number)
            if verb == "ADD" and call.status == 0:
                prev_result = _document(call.stdout) or prev_result
            calls.append(call._asdict())
            if statuses and call.status != statuses[number]:
                break
        return {
            "calls": calls,
            "links": [list(event) for event in self._events],
            "inodes": {str(inode): netns for inode, netns in self._world.inodes.items()},
            "netns_path": self._world.netns_path,
            "prev_result": first_prev_result,
        }

    def _prepare(self) -> Any:
        """Set the scene; returns the prevResult of the first call, None for none."""
        for command in ("ip link set lo up", *self._subject.setup):
            done = self._run(["sh", "-c", command], {}, b"")
            if done.returncode:
                said = (done.stdout + done.stderr).decode("utf-8", "replace")
                raise _FailedError(f"run setup {quoted(command)}: status {done.returncode}", said)
        result = self._subject.netconf.get("prevResult")
        for netconf in self._subject.before:
            name = str(netconf.get("type"))
            path = shutil.which(name, path=self._subject.cni_path)
            if path is None:
                raise _FailedError(f"run plugin {quoted(name)}: it is not in {self._subject.cni_path}", "")
            given = netconf | ({} if result is None else {"prevResult": result})
            done = self._run([path], self._variables("ADD"), json.dumps(given).encode())
            if done.returncode:
                raise _FailedError(
                    f"run plugin {quoted(name)}, which comes before it: status {done.returncode}", done.stdout.decode()
                )
            result = _document(done.stdout.decode()) or result
        with open(PROFILE_PATH, "w") as file:
            file.write(self._profile)
        return result

    def _call(self, verb: str, netconf: Mapping[str, Any]) -> Call:
        command = [self._subject.plugin]
        variables = self._variables(verb)
        directory = tempfile.mkdtemp(dir="/tmp") if self._strace else ""
        if self._strace:
            command = [self._strace, *_STRACE, f"--output={directory}/t", *command]
        if self._profile:
            # Not our own interpreter's path alone: what it was started as knows where the package is.
            variables["PYTHONDONTWRITEBYTECODE"] = "1"
            runner = [
                sys.executable,
                "-m",
                "cnisandbox.cli.main",
                "exec",
                "--profile",
                PROFILE_PATH,
                "--log",
                _LOG_PATH,
            ]
            command = [*runner, "--", *command]
        default_route = _default_route_links()
        try:
            done = self._run(command, variables, json.dumps(netconf).encode())
            trace = _read_trace(directory) if directory else {}
        finally:
            if directory:
                shutil.rmtree(directory)
        refused = self._refusals()
        return Call(
            verb,
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
            {key: value for key, value in state.observe(self._world).items() if "/run/cnisandbox" not in key},
            trace,
            default_route,
            refused,
        )

    def _refusals(self) -> list[dict[str, Any]]:
        """Take what the audit log says was refused, and the log away."""
        if not os.path.exists(_LOG_PATH):
            return []
        with open(_LOG_PATH) as file:
            lines = [json.loads(line) for line in file]
        os.unlink(_LOG_PATH)
        return [line for line in lines if "refused" in line]

    def _variables(self, verb: str) -> dict[str, str]:
        return {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self._subject.container_id,
            "CNI_IFNAME": self._subject.ifname,
            "CNI_NETNS": self._world.netns_path,
            "CNI_PATH": self._subject.cni_path,
        }

    def _run(
        self, command: list[str], variables: Mapping[str, str], stdin: bytes
    ) -> "subprocess.CompletedProcess[bytes]":
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CNI_", "CNISANDBOX_"))}
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env={**kept, **variables},
            check=False,
            timeout=_CALL_TIMEOUT_S,
        )

    def _collect(self, call: int) -> None:
        """Take what the kernel has said about links since the last time."""
        for netns, monitor in self._monitors.items():
            while True:
                try:
                    data = monitor.recv(1 << 16, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno != errno.ENOBUFS:
                        raise
                    continue
                self._events += _events(netns, call, data)


def _monitor() -> socket.socket:
    monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    monitor.setsockopt(socket.SOL_SOCKET, 33, _EVENT_BUFFER_BYTES)  # SO_RCVBUFFORCE
    monitor.bind((0, _RTMGRP_LINK))
    return monitor


def _events(netns: str, call: int, data: bytes) -> list[LinkEvent]:
    found = []
    while len(data) >= _NLMSGHDR.size + _IFINFOMSG.size:
        length, kind, *_ = _NLMSGHDR.unpack_from(data)
        if length < _NLMSGHDR.size:
            break
        family, _, ifindex, _, _ = _IFINFOMSG.unpack_from(data, _NLMSGHDR.size)
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and family == 0:  # others are about the ports of a bridge
            attributes = raw.attributes(data[_NLMSGHDR.size + _IFINFOMSG.size : length])
            info = raw.attributes(attributes.get(_IFLA_LINKINFO, b""))
            ifname = attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            link_kind = info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
            peer = int.from_bytes(attributes.get(_IFLA_LINK, b""), sys.byteorder)
            is_elsewhere = _IFLA_LINK_NETNSID in attributes
            found.append(LinkEvent(netns, call, kind == _RTM_NEWLINK, ifindex, ifname, link_kind, peer, is_elsewhere))
        data = data[(length + 3) & ~3 :]
    return found


def _default_route_links() -> list[int]:
    found: list[int] = []
    for family in ("-4", "-6"):
        done = subprocess.run(
            ["ip", "-json", family, "route", "show", "default"], capture_output=True, check=False, timeout=20
        )
        for route in json.loads(done.stdout or b"[]"):
            if "dev" in route:
                found.append(socket.if_nametoindex(route["dev"]))
    return found


def _read_trace(directory: str) -> dict[str, str]:
    found = {}
    for name in os.listdir(directory):
        with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
            found[name.rpartition(".")[2]] = file.read()
    return found


def _document(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        return None

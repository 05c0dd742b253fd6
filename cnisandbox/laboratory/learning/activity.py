"""What the system calls of one call of a plugin did.

Each thread stands in a network namespace, which it enters with setns and hands on to what it starts; a socket belongs
to the one in which it was made, and a setting to the one in which it was opened.

Privilege: none.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cnisandbox.laboratory.learning.trace import SystemCall
from cnisandbox.laboratory.learning.world import HOST

ELSEWHERE = "elsewhere"
"""A netns that is neither the host's nor the container's."""

SETTINGS = "/proc/sys/"

_NLMSGHDR = struct.Struct("=IHHII")
_NLMSG_ERROR = 2
_PROTOCOLS = {"NETLINK_ROUTE": 0, "NETLINK_NETFILTER": 12, "NETLINK_GENERIC": 16}
_OPENING = ("open", "openat", "openat2", "creat")
_WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
_CHANGING = (
    *(
        "mkdir",
        "mkdirat",
        "mknod",
        "mknodat",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
    ),
    *("unlink", "unlinkat", "rmdir", "chmod", "fchmodat", "chown", "lchown", "fchownat", "truncate", "utimensat"),
)
_FORKING = ("clone", "clone3", "fork", "vfork")
_SENDING = ("sendto", "sendmsg", "sendmmsg", "write", "writev")
_RECEIVING = ("recvfrom", "recvmsg", "recvmmsg", "read")
_SOCKET = re.compile(r"socket:\[(?P<inode>\d+)\]")
_NETNS = re.compile(r"net:\[(?P<inode>\d+)\]")
_FAMILY = re.compile(r"sa_family=(?P<family>AF_\w+)")
_UNIX_PATH = re.compile(r'sun_path="(?P<path>[^"]+)"')
_PORT = re.compile(r"sin6?_port=htons\((?P<port>\d+)\)")
_PRIVILEGED_PORTS = 1024
_ETHERTYPE = re.compile(r"htons\((?P<name>ETH_P_\w+)\)")
_PACKET_PROTOCOLS = {"ETH_P_ARP": "arp", "ETH_P_IP": "dhcp"}
# ioctls on a socket that only ask.
_ASKING = re.compile(r"SIOCG\w+|FION\w+|FIOCLEX|FIONCLEX|TCGETS|SIOCETHTOOL|SIOCINQ|SIOCOUTQ|0x[0-9a-f]+")


class Sent(NamedTuple):
    """A datagram to the kernel.

    Attributes:
        netns: "host", "container" or ELSEWHERE.
        protocol: Which netlink protocol.
        data: All of it.
        errors: Sequence number of a message to the errno that the kernel answered.
        netns_of_fds: Descriptor to the netns that it meant in the sender.
    """

    netns: str
    protocol: int
    data: bytes
    errors: Mapping[int, int]
    netns_of_fds: Mapping[int, str]


class Opened(NamedTuple):
    """A file that was opened, or changed by its path; `netns` counts for settings."""

    path: str
    is_write: bool
    netns: str


class Activity(NamedTuple):
    """All of it.

    Attributes:
        verb: CNI_COMMAND.
        number: Index of the call.
        sent: Netlink datagrams, in order.
        opened: Files, in order, each once.
        made: Directories that were made.
        programs: Paths that were executed, without the plugin's own.
        connected: Paths of unix sockets.
        raw_sockets: "arp", "dhcp".
        capabilities: Name to what for, of those that show in system calls.
        unspeakable: What no profile can permit.
        system_calls: Names of those that were used.
    """

    verb: str
    number: int
    sent: list[Sent]
    opened: list[Opened]
    made: list[str]
    programs: list[str]
    connected: list[str]
    raw_sockets: list[str]
    capabilities: dict[str, str]
    unspeakable: list[str]
    system_calls: set[str]


def read(verb: str, number: int, calls: Sequence[SystemCall], inodes: Mapping[str, str], netns_path: str) -> Activity:
    """Work out what system calls did.

    Args:
        verb: CNI_COMMAND.
        number: Index of the call.
        calls: In the order of time; the first one executes the plugin.
        inodes: Inode number of a netns, as text, to "host" or "container".
        netns_path: CNI_NETNS, which means the container's.
    """
    reader = _Reader(Activity(verb, number, [], [], [], [], [], [], {}, [], set()), inodes, netns_path)
    answers = _answers(calls)
    for call in calls:
        reader.read(call, answers)
    return reader.activity


def _answers(calls: Sequence[SystemCall]) -> dict[str, dict[int, int]]:
    """Collect the errors that the kernel answered: socket to sequence number to errno."""
    found: dict[str, dict[int, int]] = {}
    for call in calls:
        if call.name in _RECEIVING and call.data:
            errors = found.setdefault(call.descriptor()[1], {})
            data = call.data
            while len(data) >= _NLMSGHDR.size + 4:
                length, kind, _, sequence, _ = _NLMSGHDR.unpack_from(data)
                if length < _NLMSGHDR.size:
                    break
                if kind == _NLMSG_ERROR:
                    (error,) = struct.unpack_from("=i", data, _NLMSGHDR.size)
                    errors[sequence] = -error
                data = data[(length + 3) & ~3 :]
    return found


class _Reader:
    def __init__(self, activity: Activity, inodes: Mapping[str, str], netns_path: str) -> None:
        self.activity = activity
        self._inodes = inodes
        self._netns_path = netns_path
        self._netns: dict[int, str] = {}
        self._processes: dict[int, int] = {}
        self._sockets: dict[str, tuple[str, int]] = {}
        self._netns_of_fds: dict[int, dict[int, str]] = {}
        self._directories: dict[int, str] = {}
        self._has_begun = False

    def read(self, call: SystemCall, answers: Mapping[str, Mapping[int, int]]) -> None:
        self.activity.system_calls.add(call.name)
        if call.name in _SENDING and call.data:
            self._read_sending(call, answers)
        elif call.name in _FORKING:
            self._read_fork(call)
        elif call.result < 0:
            return
        elif call.name in _OPENING:
            self._read_opening(call)
        elif call.name in ("chdir", "fchdir"):
            self._read_chdir(call)
        elif call.name in _CHANGING:
            self._read_change(call)
        elif call.name in ("execve", "execveat"):
            self._read_execution(call)
        elif call.name == "socket":
            self._read_socket(call)
        elif call.name in ("setns", "unshare"):
            self._read_netns(call)
        elif call.name in ("bind", "connect"):
            self._read_address(call)
        elif call.name == "ioctl":
            self._read_ioctl(call)

    def _where(self, thread: int) -> str:
        return self._netns.get(thread, HOST)

    def _directory(self, thread: int) -> str:
        return self._directories.get(self._processes.get(thread, thread), "/")

    def _read_chdir(self, call: SystemCall) -> None:
        _, described = call.descriptor()
        for path in [described] if call.name == "fchdir" else call.paths(self._directory(call.thread)):
            self._directories[self._processes.get(call.thread, call.thread)] = path

    def _fds_of(self, thread: int) -> dict[int, str]:
        return self._netns_of_fds.setdefault(self._processes.get(thread, thread), {})

    def _meaning(self, described: str) -> str:
        """Say which netns what strace calls a descriptor is; "" if it is none."""
        if described == self._netns_path:
            return self._inodes_name("container")
        match = _NETNS.fullmatch(described)
        return self._inodes.get(match["inode"], ELSEWHERE) if match else ""

    def _inodes_name(self, name: str) -> str:
        return name if name in self._inodes.values() else ELSEWHERE

    def _read_fork(self, call: SystemCall) -> None:
        if call.result <= 0:
            return
        self._netns[call.result] = self._where(call.thread)
        own = self._processes.get(call.thread, call.thread)
        is_thread = "CLONE_THREAD" in call.arguments
        self._processes[call.result] = own if is_thread else call.result
        if not is_thread:
            self._netns_of_fds[call.result] = dict(self._fds_of(call.thread))
            self._directories[call.result] = self._directory(call.thread)

    def _read_netns(self, call: SystemCall) -> None:
        if call.name == "setns":
            _, described = call.descriptor()
            self._netns[call.thread] = self._meaning(described) or ELSEWHERE
        elif "CLONE_NEWNET" in call.arguments:
            self._netns[call.thread] = ELSEWHERE
        if self._where(call.thread) == ELSEWHERE:
            self._cannot(f"{call.name}: enters a network namespace that is neither the host's nor the container's")

    def _read_opening(self, call: SystemCall) -> None:
        paths = call.paths(self._directory(call.thread))
        if not paths:
            return
        meaning = self._meaning(call.object)
        self._fds_of(call.thread).pop(call.result, None)
        if meaning:
            self._fds_of(call.thread)[call.result] = meaning
            return
        is_write = call.name == "creat" or bool(_WRITING.search(call.arguments.rpartition('"')[2]))
        self._note(paths[0], is_write, call.thread)

    def _read_change(self, call: SystemCall) -> None:
        for path in call.paths(self._directory(call.thread)):
            if call.name.startswith("mkdir"):
                self.activity.made.append(path)
            self._note(path, True, call.thread)

    def _note(self, path: str, is_write: bool, thread: int) -> None:
        opened = Opened(path, is_write, self._where(thread))
        if opened not in self.activity.opened:
            self.activity.opened.append(opened)

    def _read_execution(self, call: SystemCall) -> None:
        if not self._has_begun:
            self._has_begun = True
            return
        for path in call.paths(self._directory(call.thread))[:1]:
            if path not in self.activity.programs:
                self.activity.programs.append(path)

    def _read_socket(self, call: SystemCall) -> None:
        family, kind, protocol = (part.strip() for part in call.arguments.split(",", 2))
        netns = self._where(call.thread)
        if family == "AF_NETLINK":
            number = _PROTOCOLS.get(protocol, -1)
            if number < 0:
                self._cannot(f"socket: netlink protocol {protocol}")
            self._sockets[call.object] = (netns, number)
        elif family == "AF_PACKET":
            match = _ETHERTYPE.search(protocol)
            word = _PACKET_PROTOCOLS.get(match["name"] if match else "")
            if word is None or netns == HOST:
                self._cannot(f"socket: packets of {protocol} in the {netns}'s netns")
            elif word not in self.activity.raw_sockets:
                self.activity.raw_sockets.append(word)
        elif "SOCK_RAW" in kind:
            self.activity.capabilities["CAP_NET_RAW"] = f"a raw socket of {protocol}"

    def _read_sending(self, call: SystemCall, answers: Mapping[str, Mapping[int, int]]) -> None:
        _, described = call.descriptor()
        if described not in self._sockets:
            return
        netns, protocol = self._sockets[described]
        fds = dict(self._fds_of(call.thread))
        self.activity.sent.append(Sent(netns, protocol, call.data, answers.get(described, {}), fds))

    def _read_address(self, call: SystemCall) -> None:
        match = _FAMILY.search(call.arguments)
        family = match["family"] if match else ""
        if call.name == "connect" and family == "AF_UNIX":
            path = _UNIX_PATH.search(call.arguments)
            if path and path["path"] not in self.activity.connected:
                self.activity.connected.append(path["path"])
        port = _PORT.search(call.arguments)
        if call.name == "bind" and port and 0 < int(port["port"]) < _PRIVILEGED_PORTS:
            self.activity.capabilities["CAP_NET_BIND_SERVICE"] = f"binds port {port['port']}"

    def _read_ioctl(self, call: SystemCall) -> None:
        _, described = call.descriptor()
        request = call.arguments.split(",")[1].strip()
        is_of_network = bool(_SOCKET.match(described)) or described.startswith("/dev/net/")
        if is_of_network and not _ASKING.fullmatch(request):
            self.activity.capabilities["CAP_NET_ADMIN"] = f"ioctl {request}, which no message can replace"

    def _cannot(self, what: str) -> None:
        if what not in self.activity.unspeakable:
            self.activity.unspeakable.append(what)

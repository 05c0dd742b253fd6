"""What of the host can be seen to change: its state before and after an attempt, and the difference in words.

"Outside" is everything but the container's network namespace and the attacked process with what belongs to its call.
What an arena has of its own is told from what the whole machine shares, such as /proc/sys/kernel: there somebody else
may have changed something at the same time.

A value that changes by itself (counters, timers, dynamic neighbours) is not looked at.

Privilege: everything, in the arena's first process.

Source: rtnetlink(7), proc(5); include/uapi/linux/{if_link,rtnetlink,neighbour,netfilter/nf_tables}.h of Linux 6.1.
"""

import contextlib
import functools
import hashlib
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from cnisandbox.laboratory.attacker import raw

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

# Name of an object to its properties; name of a property to its value.
Objects = dict[str, dict[str, str]]
# Kind of objects to the objects.
State = dict[str, Objects]

# In front of a value that is compared and not told: it is long, or made up.
_UNTOLD = "\0"


class Snapshot(NamedTuple):
    """The host at one time.

    Attributes:
        own: What the arena has of its own.
        shared: What the machine has, and other arenas see.
    """

    own: State
    shared: State


def prepare() -> None:
    """Look at the machine's files, so that those who are forked from here need not describe them again."""
    _files()


def take(arena: "Arena") -> Snapshot:
    """Look at the host; takes some milliseconds."""
    own_files, shared_files = _files()
    own: State = {
        "": {"host": dict(zip(("name", "domain name"), _names_of_host(), strict=True))},
        **_network(),
        **{f"victim's {kind}": found for kind, found in arena.inside("victim", _small_network).items()},
        "setting": _settings("/proc/sys/net", _PER_LINK),
        "process": _processes(arena),
        "file": own_files,
        "mount": _mounts(),
    }
    shared: State = {
        "setting": {name: value for part in _SHARED_SETTINGS for name, value in _settings(part).items()},
        "machine's file": shared_files,
        "module": _lines("/proc/modules"),
        "swap": _lines("/proc/swaps"),
        "binary format": {name: {} for name in _entries("/proc/sys/fs/binfmt_misc")},
        "machine's": {"clock": {"time": _clock()}},
    }
    return Snapshot(own, shared)


def difference(before: Snapshot, after: Snapshot, hidden: str) -> tuple[list[str], list[str]]:
    """Say what has changed, of the arena's own and of what is shared.

    Args:
        before: The host.
        after: The host, later.
        hidden: A name that was made up for the arena; it stands as "hidden" in the texts.

    Returns:
        One text for each change; none when nothing has.
    """
    own, shared = (
        [text.replace(hidden, "hidden") for text in changes(*pair)] for pair in zip(before, after, strict=True)
    )
    return own, shared


def changes(before: State, after: State) -> tuple[str, ...]:
    """Say what has changed in a part of a snapshot."""
    found: list[str] = []
    for kind in before:
        for name in sorted(before[kind].keys() | after[kind].keys()):
            label = f"{kind} {name}".strip()
            if name not in after[kind]:
                found.append(f"{label} is gone")
            elif name not in before[kind]:
                found.append(f"{label} is new")
            else:
                found += (f"{label}: {text}" for text in _changed(before[kind][name], after[kind][name]))
    return tuple(found)


def _changed(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, ""), after.get(key, "")
        if old == new:
            continue
        if old.startswith(_UNTOLD) or new.startswith(_UNTOLD):
            yield f"{key} has changed".strip()
        else:
            yield f"{key} {old or 'nothing'} -> {new or 'nothing'}".strip()


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


# The network

_RTM_GETROUTE, _RTM_GETNEIGH, _RTM_GETRULE, _RTM_GETQDISC = 26, 30, 34, 38
_ADMINISTRATIVE_FLAGS = {0x1: "up", 0x80: "noarp", 0x100: "promiscuous", 0x200: "allmulti", 0x1000: "multicast"}
_LINK_NUMBERS = {4: "mtu", 10: "master", 13: "txqlen", 27: "group", 30: "promiscuity", 37: "nsid", 61: "allmulti"}
_LINK_BYTES = {1: "hardware address", 2: "broadcast", 6: "qdisc", 20: "alias", 39: "proto_down", 43: "xdp", 52: "names"}
_IFLA_ADDRESS, _IFLA_AF_SPEC, _IFLA_INFO_SLAVE_DATA = 1, 26, 5
# Of a bridge everything but its timers and what follows from them; of a port what somebody has set.
_BRIDGE_DATA = (*range(1, 10), 20, *range(22, 40))
_PORT_DATA = (4, 5, 6, 7, 8, 9, 33)
_IPV4_SETTINGS = _words(
    "forwarding mc_forwarding proxy_arp accept_redirects secure_redirects send_redirects shared_media rp_filter",
    "accept_source_route bootp_relay log_martians tag arp_filter medium_id disable_xfrm disable_policy",
    "force_igmp_version arp_announce arp_ignore promote_secondaries arp_accept arp_notify accept_local src_valid_mark",
    "proxy_arp_pvlan route_localnet",
)
_IPV6_SETTINGS = _words(
    "forwarding hop_limit mtu accept_ra accept_redirects autoconf dad_transmits router_solicitations",
)
# Family of addresses: where its settings stand in IFLA_AF_SPEC, their names, and its name.
_FAMILIES: dict[int, tuple[int, list[str], str]] = {
    socket.AF_INET: (1, _IPV4_SETTINGS, "ipv4"),
    socket.AF_INET6: (2, _IPV6_SETTINGS, "ipv6"),
}
_NUD_PERMANENT, _IS_GROUP_ADDRESS = 0x80, 0x01
_RT_TABLE_LOCAL, _RT_TABLE_MAIN, _RTPROT_KERNEL, _RTM_F_CLONED = 255, 254, 2, 0x200
_NETLINK_XFRM, _NETLINK_NETFILTER, _NFNL_SUBSYS_NFTABLES = 6, 12, 10
# Type of the request, which attributes are the name, and which are counters.
_NFT_OBJECTS = {
    "nft table": (1, (1,), (3, 4)),
    "nft chain": (4, (1, 3), (2, 6, 8)),
    "nft rule": (7, (1, 2, 3), ()),
    "nft set": (10, (1, 2), ()),
}
_XFRM_OBJECTS = {"states": 0x12, "policies": 0x15}

_Described = tuple[str, dict[str, str]]


def _network() -> State:
    """Look at the netns that we are in."""
    channel = raw.Netlink()
    try:
        links = channel.links()
        names = {raw.integer(facts[0]): name for name, facts in links.items()}
        macs = frozenset(facts.get(_IFLA_ADDRESS, b"") for facts in links.values())
        return {
            **_small_network(),
            "rule": _listed(channel, _RTM_GETRULE, bytes(12), _rule),
            "neighbour": _listed(channel, _RTM_GETNEIGH, bytes(12), lambda body: _neighbour(body, names, macs)),
            "forwarding entry": _listed(
                channel,
                _RTM_GETNEIGH,
                bytes([socket.AF_BRIDGE]) + bytes(11),
                lambda body: _neighbour(body, names, macs),
            ),
            "qdisc": _listed(channel, _RTM_GETQDISC, bytes(20), lambda body: _qdisc(body, names)),
            # ORDER: after the links; listing a link gives the netns of its peer a number.
            "nsid": _listed(channel, raw.RTM_GETNSID, bytes(4), _nsid),
            **_nftables(),
            "iptables table": {**_lines("/proc/net/ip_tables_names"), **_lines("/proc/net/ip6_tables_names")},
            "xfrm": {name: {"number": _count(_NETLINK_XFRM, kind)} for name, kind in _XFRM_OBJECTS.items()},
        }
    finally:
        channel.close()


def _small_network() -> State:
    channel = raw.Netlink()
    try:
        names = _names(channel)
        return {
            "link": _listed(channel, raw.RTM_GETLINK, raw.link_body(), _link),
            "address": _listed(channel, raw.RTM_GETADDR, bytes(8), lambda body: _address(body, names)),
            "route": _listed(channel, _RTM_GETROUTE, bytes(12), lambda body: _route(body, names)),
        }
    finally:
        channel.close()


def _names(channel: raw.Netlink) -> dict[int, str]:
    return {raw.integer(facts[0]): name for name, facts in channel.links().items()}


def _listed(channel: raw.Netlink, kind: int, body: bytes, describe: Callable[[bytes], _Described | None]) -> Objects:
    """Dump objects; what the kernel does not have, there is none of. Of two of a name the second gets a number."""
    found: Objects = {}
    with contextlib.suppress(OSError):
        for _, answer in channel.request(kind, body, raw.NLM_F_DUMP):
            described = describe(answer)
            if described is not None:
                _add(found, *described)
    return found


def _add(found: Objects, name: str, properties: dict[str, str]) -> None:
    number = 1
    label = name
    while label in found:
        number += 1
        label = f"{name} ({number})"
    found[label] = properties


def _link(body: bytes) -> _Described:
    (flags,) = struct.unpack_from("=I", body, 8)
    facts = raw.attributes(body[16:])
    info = raw.attributes(facts.get(raw.IFLA_LINKINFO, b""))
    data, port = raw.attributes(info.get(raw.IFLA_INFO_DATA, b"")), raw.attributes(info.get(_IFLA_INFO_SLAVE_DATA, b""))
    properties = {
        "kind": _text(info.get(raw.IFLA_INFO_KIND, b"")),
        "flags": " ".join(name for bit, name in _ADMINISTRATIVE_FLAGS.items() if flags & bit),
        **{name: str(raw.integer(facts[kind])) for kind, name in _LINK_NUMBERS.items() if kind in facts},
        **{name: _shown(facts[kind]) for kind, name in _LINK_BYTES.items() if kind in facts},
        **{f"setting {kind}": data[kind].hex() for kind in _BRIDGE_DATA if kind in data},
        **{f"port setting {kind}": port[kind].hex() for kind in _PORT_DATA if kind in port},
    }
    families = raw.attributes(facts.get(_IFLA_AF_SPEC, b""))
    for family, (kind, names, label) in _FAMILIES.items():
        values = raw.attributes(families.get(family, b"")).get(kind, b"")
        for index, (value,) in enumerate(struct.iter_unpack("=i", values)):
            properties[f"{label} {names[index] if index < len(names) else f'setting {index + 1}'}"] = str(value)
    return _text(facts[raw.IFLA_IFNAME]), properties


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _shown(data: bytes) -> str:
    text = data.rstrip(b"\0")
    return text.decode() if text and text.isascii() and text.decode().isprintable() else data.hex(":")


def _address_text(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)


def _address(body: bytes, names: dict[int, str]) -> _Described | None:
    family, length, _, scope, ifindex = struct.unpack_from("=BBBBi", body)
    facts = raw.attributes(body[8:])
    if family == socket.AF_INET6 and scope:  # the kernel gives a link its own address, in its own time
        return None
    address = facts.get(2) or facts[1]
    return f"{_address_text(address)}/{length} of {names.get(ifindex, '?')}", {}


def _route(body: bytes, names: dict[int, str]) -> _Described | None:
    family, length, _, tos, table, protocol, _, kind, flags = struct.unpack_from("=8BI", body)
    if flags & _RTM_F_CLONED or family not in _FAMILIES:
        return None
    facts = raw.attributes(body[12:])
    table = raw.integer(facts[15]) if 15 in facts else table
    if family == socket.AF_INET6 and (table == _RT_TABLE_LOCAL or protocol == _RTPROT_KERNEL):
        return None  # the kernel's own, in its own time
    destination = _address_text(facts[1]) if 1 in facts else "default"
    name = f"{destination}/{length}" if 1 in facts else destination
    name += f" by {names.get(raw.integer(facts[4]), '?')}" if 4 in facts else ""
    name += f" in table {table}" if table != _RT_TABLE_MAIN else ""
    gateway = _address_text(facts[5]) if 5 in facts else ""
    priority = str(raw.integer(facts[6])) if 6 in facts else ""
    return name, {"gateway": gateway, "priority": priority, "type": str(kind), "tos": str(tos)}


def _rule(body: bytes) -> _Described:
    facts = raw.attributes(body[12:])
    priority = raw.integer(facts[6]) if 6 in facts else 0
    label = _FAMILIES[body[0]][2] if body[0] in _FAMILIES else str(body[0])
    return f"{priority} of {label}", {"": _untold(body)}


def _neighbour(body: bytes, names: dict[int, str], own_macs: frozenset[bytes]) -> _Described | None:
    _, ifindex, state, flags, kind = struct.unpack_from("=B3xiHBB", body)
    facts = raw.attributes(body[12:])
    mac = facts.get(2, b"\0")
    destination = _address_text(facts[1]) if len(facts.get(1, b"")) in (4, 16) else mac.hex(":")
    is_the_kernels = 1 not in facts and (mac[0] & _IS_GROUP_ADDRESS or mac in own_macs)
    if not state & _NUD_PERMANENT or is_the_kernels:
        return None
    return f"{destination} on {names.get(ifindex, '?')}", {"mac": mac.hex(":"), "flags": f"{flags:x} {kind}"}


def _qdisc(body: bytes, names: dict[int, str]) -> _Described:
    _, ifindex, handle, parent = struct.unpack_from("=B3xiII", body)
    kind = _text(raw.attributes(body[20:]).get(1, b""))
    return f"{kind} of {names.get(ifindex, '?')}", {"handle": f"{handle:x}", "parent": f"{parent:x}"}


def _nsid(body: bytes) -> _Described:
    return str(raw.integer(raw.attributes(body[4:])[raw.NETNSA_NSID])), {}


def _nftables() -> State:
    channel = raw.Netlink(_NETLINK_NETFILTER)
    try:
        return {
            label: _listed(
                channel,
                (_NFNL_SUBSYS_NFTABLES << 8) | kind,
                bytes(4),
                lambda body, naming=naming, counters=counters: _nft_object(body, naming, counters),  # type: ignore[misc]
            )
            for label, (kind, naming, counters) in _NFT_OBJECTS.items()
        }
    finally:
        channel.close()


def _nft_object(body: bytes, naming: tuple[int, ...], counters: tuple[int, ...]) -> _Described:
    facts = raw.attributes(body[4:])
    words = [_text(facts[kind]) if len(facts[kind]) != 8 else str(int.from_bytes(facts[kind])) for kind in naming]
    rest = b"".join(bytes([kind]) + value for kind, value in facts.items() if kind not in counters)
    return " ".join(words), {"": _untold(rest)}


def _count(protocol: int, kind: int) -> str:
    try:
        channel = raw.Netlink(protocol)
    except OSError:
        return "0"
    try:
        return str(len(channel.request(kind, b"", raw.NLM_F_DUMP)))
    except OSError:
        return "0"
    finally:
        channel.close()


# Settings, and the rest of the kernel

_SHARED_SETTINGS = ("/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/fs", "/proc/sys/user", "/proc/sys/debug")
# Counters, and what the kernel or anybody changes all the time.
_CHANGING_SETTINGS = frozenset(
    f"/proc/sys/{name}"
    for name in _words(
        "kernel/random kernel/ns_last_pid kernel/pty kernel/perf_event_max_sample_rate kernel/hostname",
        "kernel/domainname fs/file-nr fs/inode-nr fs/inode-state fs/dentry-state fs/aio-nr fs/quota fs/binfmt_misc",
        "net/netfilter/nf_conntrack_count",
    )
)
# What there is of each link stands in what netlink says about it.
_PER_LINK = frozenset(f"/proc/sys/net/{family}/{part}" for family in ("ipv4", "ipv6") for part in ("conf", "neigh"))
_OF_ALL_LINKS = ("all", "default")
_SETTING_BYTES = 4096
_CLOCK_BEFORE = time.time() - time.monotonic()


def _settings(top: str, per_link: frozenset[str] = frozenset()) -> Objects:
    """Read settings; those that can only be written are left out."""
    found: Objects = {}
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        for name in _entries(directory):
            path = f"{directory}/{name}"
            if path in _CHANGING_SETTINGS or (directory in per_link and name not in _OF_ALL_LINKS):
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                value = os.read(fd, _SETTING_BYTES).decode("utf-8", "replace").strip()
                found[path.removeprefix("/proc/sys/")] = {"": value.replace("\t", " ")}
            except IsADirectoryError:
                waiting.append(path)
            except OSError:
                continue
            finally:
                os.close(fd)
    return found


def _clock() -> str:
    """Say by how much the clock has been set; what it is corrected by itself is less than half a second."""
    return f"{round(time.time() - time.monotonic() - _CLOCK_BEFORE)} s"


def _names_of_host() -> tuple[str, str]:
    with open("/proc/sys/kernel/domainname") as file:
        return socket.gethostname(), file.read().strip()


def _lines(path: str) -> Objects:
    """List the first word of each line."""
    try:
        with open(path) as file:
            return {line.split()[0]: {} for line in file if line.strip()}
    except OSError:
        return {}


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


# Processes, mounts, files

_PROCESS_FIELDS = {"Uid": "uids", "Groups": "groups", "TracerPid": "tracer", "Cpus_allowed_list": "processors"}
_STAT_FLAGS, _PF_EXITING = 6, 0x4  # the ninth field of proc(5)'s stat, counted from behind the name; linux/sched.h
# Where scenes and attempts put things, with how many directories below are looked at.
_ARENA_DIRECTORIES = {"/run": 9, "/var/lib/cni": 9}
_MACHINE_DIRECTORIES = {
    "/etc": 9,
    "/root": 1,
    "/usr/local/bin": 1,
    "/usr/local/sbin": 1,
    "/usr/lib/cni": 1,
    "/opt/cni/bin": 1,
}
_MACHINE_DEVICES = frozenset(os.stat(path).st_dev for path in _MACHINE_DIRECTORIES if os.path.isdir(path))
_HASHED_BYTES = 1 << 16


def _untold(data: bytes) -> str:
    return _UNTOLD + hashlib.sha256(data).hexdigest()


def _processes(arena: "Arena") -> Objects:
    """Look at those that are there from the beginning; who belongs to the attacked call is not outside."""
    found: Objects = {}
    for name, pid in arena.facts.pids.items():
        try:
            process = _process(pid)
            if not _is_ending(pid):
                found[name] = process
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _is_ending(pid: int) -> bool:
    """Whether a process is on its way out. To be asked last: it leaves its control groups before it is a zombie."""
    flags = int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[_STAT_FLAGS])
    return bool(flags & _PF_EXITING)


def _process(pid: int) -> dict[str, str]:
    status = dict(line.split(":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if ":" in line)
    properties = {label: status[field].strip().replace("\t", " ") for field, label in _PROCESS_FIELDS.items()}
    return {
        **properties,
        "tracer": "none" if properties["tracer"] == "0" else "somebody",
        "stopped": str(status["State"].strip()[0] in "Tt"),
        "nice": str(os.getpriority(os.PRIO_PROCESS, pid)),
        "scheduler": str(os.sched_getscheduler(pid)),
        "oom_score_adj": _read(f"/proc/{pid}/oom_score_adj").strip(),
        **_cgroups(pid),
        "limits": _untold(_read(f"/proc/{pid}/limits").encode()),
        "netns": _untold(os.readlink(f"/proc/{pid}/ns/net").encode()),
    }


def _cgroups(pid: int) -> dict[str, str]:
    """Say where a process is in each hierarchy of control groups; anybody may mount another one."""
    lines = [line.split(":", 2) for line in _read(f"/proc/{pid}/cgroup").splitlines()]
    return {f"cgroup {name}".strip(): path for _, name, path in lines if path != "/"}


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def _mounts() -> Objects:
    found: Objects = {}
    for line in _read("/proc/self/mountinfo").splitlines():
        front, _, back = line.partition(" - ")
        _, _, _, root, target, options, *_ = front.split(" ")
        kind, _, *rest = back.split(" ")
        _add(found, f"{kind} on {target}", {"root": root, "options": options, "own options": "".join(rest)})
    return found


def _files() -> tuple[Objects, Objects]:
    """Look at files.

    Returns:
        Those on file systems of the arena's own, and those on the machine's.
    """
    seen = _Files(_layers())
    for top, depth in (_ARENA_DIRECTORIES | _MACHINE_DIRECTORIES).items():
        seen.look_below(top, depth)
    return seen.own, seen.shared


def _layers() -> frozenset[str]:
    """List the directories that overlays keep changes in: what is there is seen where the overlay is mounted."""
    layers = re.findall("(?:upperdir|workdir)=([^,\\s]+)", _read("/proc/self/mountinfo"))
    return frozenset(layers)


class _Files:
    """Files, as found so far.

    Args:
        hidden: Directories that are left out.
    """

    def __init__(self, hidden: frozenset[str]) -> None:
        self.own: Objects = {}
        self.shared: Objects = {}
        self._hidden = hidden

    def look_below(self, directory: str, depth: int) -> None:
        try:
            is_shared = os.stat(directory).st_dev in _MACHINE_DEVICES
            entries = [*os.scandir(directory)]
        except OSError:
            return
        found = self.shared if is_shared else self.own
        for entry in entries:
            if entry.path in self._hidden:
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            found[entry.path] = _file(entry.path, status, has_content=not is_shared)
            if stat.S_ISDIR(status.st_mode) and depth > 1:
                self.look_below(entry.path, depth - 1)


def _file(path: str, status: os.stat_result, *, has_content: bool) -> dict[str, str]:
    properties = _described(
        status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, status.st_mtime_ns
    )
    if has_content and stat.S_ISLNK(status.st_mode):
        return {**properties, "content": os.readlink(path)}
    if has_content and stat.S_ISREG(status.st_mode) and status.st_size <= _HASHED_BYTES:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return {**properties, "content": _untold(file.read())}
    return properties


@functools.cache
def _described(mode: int, uid: int, gid: int, names: int, size: int, mtime_ns: int) -> dict[str, str]:
    properties = {"mode": stat.filemode(mode), "owner": f"{uid}:{gid}"}
    if not stat.S_ISDIR(mode):
        properties["names"] = str(names)
        properties |= {"size": str(size), "content": f"{_UNTOLD}{mtime_ns}"}
    return properties

"""Everything about a machine that a plugin call could leave behind, as text that can be compared."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import Any

from cnisandbox.cli.demonstration.scene import PRIVATE_DIRECTORIES, run

Snapshot = dict[str, frozenset[str]]
"""Lines by kind: "links", "addresses", ..., those of pods with the pod's name before."""
Difference = dict[str, list[str]]
"""By kind, what differs: "+ line" for what has come, "- line" for what has gone."""

KINDS = ("links", "addresses", "routes", "nft rules", "sysctls", "files", "processes", "netns references")
# Changed by the kernel itself, whatever plugins do.
_RESTLESS_SYSCTLS = ("/proc/sys/net/netfilter/nf_conntrack_count",)
# Whose turn it is next in each range, and the index's note of the directory's mtime: they change with every attachment.
_TURNS = ("last_reserved_ip.", "seal")
_SETTLING_TIME_S = 5.0


def of_host() -> Snapshot:
    """Take a snapshot of the host."""
    return {
        **_of_network(None),
        "nft rules": frozenset(line.strip() for line in run("nft", "list", "ruleset").splitlines() if line.strip()),
        "files": frozenset(line for directory in PRIVATE_DIRECTORIES for line in _files(directory)),
        "processes": frozenset(_processes()),
        "netns references": frozenset(_netns_references()),
    }


def of_pod(name: str) -> Snapshot:
    """Take a snapshot of a pod's netns."""
    return {f"{kind} of {name}": lines for kind, lines in _of_network(name).items()}


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """Compare two snapshots of the same thing; kinds that are the same are not in the result."""
    found = {}
    for kind in before:
        lines = [f"- {line}" for line in sorted(before[kind] - after[kind])]
        lines += [f"+ {line}" for line in sorted(after[kind] - before[kind])]
        if lines:
            found[kind] = lines
    return found


def settled_difference(
    before: Snapshot, take: Callable[[], Snapshot], is_expected: Callable[[str], bool]
) -> Difference:
    """Compare, and again for a while as long as something unexpected differs: the kernel takes down some things later.

    Args:
        before: The first snapshot.
        take: Takes the second.
        is_expected: Says of a line whether it may differ.
    """
    deadline = time.monotonic() + _SETTLING_TIME_S
    while True:
        found = difference(before, take())
        if all(is_expected(line) for lines in found.values() for line in lines) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def settled(take: Callable[[], Snapshot]) -> Snapshot:
    """Take a snapshot when two in a row are the same."""
    before = take()
    deadline = time.monotonic() + _SETTLING_TIME_S
    while time.monotonic() < deadline:
        time.sleep(0.1)
        after = take()
        if after == before:
            break
        before = after
    return before


def _of_network(netns: str | None) -> Snapshot:
    def listed(*argv: str) -> list[dict[str, Any]]:
        objects: list[dict[str, Any]] = json.loads(run("ip", "-json", *argv, netns=netns) or "[]")
        return objects

    links = listed("-details", "link")
    addresses = listed("address")
    routes = [
        f"{family} {_words(route)}"
        for family in ("-4", "-6")
        for route in listed(family, "route", "show", "table", "all")
    ]
    rules = [f"rule {family} {_words(rule)}" for family in ("-4", "-6") for rule in listed(family, "rule")]
    return {
        "links": frozenset(map(_link, links)),
        "addresses": frozenset(_address(link, item) for link in addresses for item in link.get("addr_info", ())),
        "routes": frozenset(routes + rules),
        "sysctls": frozenset(_sysctls(netns)),
    }


def _link(link: Mapping[str, Any]) -> str:
    kind = link.get("linkinfo", {}).get("info_kind", "link")
    names = ("address", "mtu", "master", "operstate", "ifalias")
    words = [f"{name} {link[name]}" for name in names if name in link]
    return " ".join([kind, link["ifname"], *words, *sorted(link["flags"])])


def _address(link: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    return f"{link['ifname']} {item['local']}/{item['prefixlen']} {item['scope']}"


def _words(members: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in members.items() if name not in ("expires", "used", "age"))


def _sysctls(netns: str | None) -> list[str]:
    """Read every setting below /proc/sys/net: "path:value". grep, because it is the opener's netns that they show."""
    # status 2: some may only be written, or not in every netns
    lines = run("grep", "-rs", "", "/proc/sys/net", netns=netns, accepted=(0, 2)).splitlines()
    return [line for line in lines if not line.startswith(_RESTLESS_SYSCTLS)]


def _files(directory: str) -> list[str]:
    found = []
    for path, directories, files in os.walk(directory):
        for name in [*directories, *files]:
            found.append(_file(os.path.join(path, name)))
    return found


def _file(path: str) -> str:
    facts = os.lstat(path)
    content = ""
    if stat.S_ISLNK(facts.st_mode):
        content = f" -> {os.readlink(path)}"
    elif stat.S_ISREG(facts.st_mode) and facts.st_size and not os.path.basename(path).startswith(_TURNS):
        with open(path, "rb") as file:
            content = " " + hashlib.sha256(file.read()).hexdigest()[:12]
    return f"{path} {stat.filemode(facts.st_mode)} {facts.st_uid}:{facts.st_gid}{content}"


def _processes() -> list[str]:
    """List the processes of the demonstration, but for itself."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                    found.append(f"{name} {file.read()!r}")
            except OSError:
                continue  # it has ended
    return found


def _netns_references() -> list[str]:
    """List what keeps a netns alive or knows one: names, mounts, numbers, processes and their descriptors."""
    found = [f"name {name}" for name in os.listdir("/run/netns")]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found += [f"mount {line.split()[4]}" for line in file if " - nsfs " in line]
    found += [f"number {line.strip()}" for line in run("ip", "netns", "list-id").splitlines()]
    own = os.stat("/proc/self/ns/net").st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino != own:
                found.append(f"process {pid}")
            descriptors = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # it has ended, or a descriptor was closed
        found += [f"descriptor of process {pid}" for target in descriptors if target.startswith("net:")]
    return found

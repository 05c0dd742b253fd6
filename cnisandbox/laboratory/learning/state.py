"""What a call left behind in a world, as one flat table that can be compared with that of another run.

Names of links and addresses that are made up anew in each run become words. What the kernel changes by itself is left
out as far as it is known; the rest shows in two runs as root, and is left out then (trial.py).

Privilege: root, in a world.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cnisandbox.laboratory.learning.world import CONTAINER, EMPTY_DIRECTORIES, HOST, World

State = dict[str, str]

_MAC = re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE)
_TIME = re.compile(r"\b\d{4}[/-]\d\d[/-]\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?\b")
# Go prints addresses of its memory.
_POINTER = re.compile(r"\b0x[0-9a-f]{6,}\b")
_FLAGS = ("UP", "PROMISC", "ALLMULTI", "MULTICAST", "NOARP")
_LINK_KEYS = ("mtu", "txqlen", "master", "ifalias", "address", "altnames", "link", "num_tx_queues")
_KEYS_OF_KIND = ("vlan_filtering", "vlan_default_pvid", "mode", "id", "table", "ageing_time")
_ROUTE_KEYS = ("dst", "gateway", "dev", "prefsrc", "table", "scope", "metric", "metrics")
# Settings that the kernel changes by itself, or that differ from netns to netns.
_UNSTEADY = {"stable_secret", "base_reachable_time", "mc_forwarding", "nf_conntrack_count", "random", "neigh"}
_SETTING_BYTES = 4096


def observe(world: World) -> State:
    """Look at both network namespaces and at the files."""
    state: State = {}
    for netns in (HOST, CONTAINER):
        with world.inside(netns):
            for key, value in (*_network(), *_settings("/proc/sys/net", "setting net")):
                state[f"{netns} {key}"] = value
    state.update(_files([*EMPTY_DIRECTORIES, world.changed_files], world.changed_files))
    return state


def normalised(text: str, names: Mapping[str, str], macs: Iterable[str]) -> str:
    """Put words in place of what is made up in each run.

    Args:
        text: Anything.
        names: Name of a link to the word for it.
        macs: Hardware addresses that somebody has chosen, and which stay.
    """
    kept = {mac.lower() for mac in macs}
    text = _MAC.sub(lambda found: found[0] if found[0].lower() in kept else "MAC", text)
    text = _POINTER.sub("POINTER", _TIME.sub("TIME", text))
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", names[name], text)
    return text


def _network() -> Iterator[tuple[str, str]]:
    for link in _json("ip", "-details", "link"):
        values = [(key, link.get(key)) for key in _LINK_KEYS]
        values.append(("flags", sorted(set(_FLAGS) & set(link["flags"]))))
        info = link.get("linkinfo", {})
        values.append(("kind", info.get("info_kind")))
        for part in ("info_data", "info_slave_data"):
            details = info.get(part, {})
            values += [(key, details[key]) for key in details if key in _KEYS_OF_KIND or isinstance(details[key], bool)]
        yield f"link {link['ifname']}", json.dumps(dict(values))
    for link in _json("ip", "address"):
        for item in link.get("addr_info", []):
            if item["scope"] != "link":
                yield f"address {item['local']}/{item['prefixlen']} of {link['ifname']}", item["scope"]
    for family in ("-4", "-6"):
        for route in _json("ip", family, "route", "show", "table", "all"):
            if route.get("type", "unicast") == "unicast" and not route["dst"].startswith(("fe80", "ff00")):
                yield f"route {[route.get(key) for key in _ROUTE_KEYS]}", "there"
        for rule in _json("ip", family, "rule"):
            yield f"rule {json.dumps(rule)}", "there"
    for queue in _json("tc", "qdisc"):
        if queue.get("kind") not in ("noqueue", "fq_codel", "pfifo_fast", "mq"):
            yield f"queue {queue.get('kind')} of {queue.get('dev')}", json.dumps(queue.get("options"))
    for port in _json("bridge", "vlan"):
        yield f"vlans of {port.get('ifname')}", json.dumps(port.get("vlans"))
    for table in re.split(r"(?m)^(?=table )", _run("nft", "--stateless", "list", "ruleset")):
        if table.strip():
            yield f"nf_tables {table.splitlines()[0]}", table


def _json(program: str, *arguments: str) -> Any:
    return json.loads(_run(program, "-json", *arguments) or "[]")


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=20).stdout.decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _settings(directory: str, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in os.scandir(directory):
        if entry.name in _UNSTEADY:
            continue
        if entry.is_dir():
            yield from _settings(entry.path, f"{prefix}/{entry.name}")
            continue
        with contextlib.suppress(OSError):  # what may only be written, or has no value
            fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                value = os.read(fd, _SETTING_BYTES)
            finally:
                os.close(fd)
            yield f"{prefix}/{entry.name}", value.decode("utf-8", "replace").strip()


def _files(directories: Iterable[str], overlay: str) -> Iterator[tuple[str, str]]:
    for directory in directories:
        for place, below, names in os.walk(directory):
            below[:] = [name for name in below if f"{place}/{name}" != "/run/netns"]
            shown = place.removeprefix(overlay) or "/"
            yield f"directory {shown}", "there"
            for name in names:
                yield f"file {shown.rstrip('/')}/{name}", _content(f"{place}/{name}")


def _content(path: str) -> str:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return f"link to {os.readlink(path)}"
    if not stat.S_ISREG(facts.st_mode):
        return "special"
    with open(path, "rb") as file:
        data = file.read()
    return data.decode("utf-8", "replace") if len(data) < _SETTING_BYTES else hashlib.sha256(data).hexdigest()

"""What a call has left: the network of host and container, and files of state; as texts that can be compared.

Names that a plugin makes up are left out, and what the kernel counts. Two calls that did the same have left the same,
but for values that are different each time.

Privilege: CAP_NET_ADMIN, for the packet filter's rules.
"""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.exposure.station import NETNS_PATH, PATH, STATE_DIRECTORIES

_MADE_UP = re.compile(r"\b(veth|tmp|ifb|bwp)[0-9a-f]{6,}\b")
_SETTINGS_DIRECTORY = "/proc/sys/net"
_SETTINGS = ("ipv4", "ipv6", "core")
_SETTING_BYTES = 4096
_CLONE_NEWNET = 0x40000000
_NFT_NOISE = frozenset({"handle", "packets", "bytes", "index"})
_TIME_LIMIT_S = 20.0
_SHOWN = 3


Facts = Iterator[tuple[str, str]]


def look() -> dict[str, str]:
    """Describe everything, thing by thing; to be called on the host."""
    found = {f"file {name}": value for name, value in _files()}
    found |= {f"host's {name}": value for name, value in _network()}
    fd = os.open(NETNS_PATH, os.O_RDONLY | os.O_CLOEXEC)
    raw.syscall("setns", fd, _CLONE_NEWNET)
    os.close(fd)
    return found | {f"container's {name}": value for name, value in _network()}


def _files() -> Facts:
    for top in STATE_DIRECTORIES:
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        yield path, f"file with digest {hashlib.sha256(file.read()).hexdigest()[:16]}"


def _network() -> Facts:
    yield from _links()
    for family in ("-4", "-6"):
        for route in _json("ip", "-json", family, "route", "show", "table", "all"):
            if not route["dst"].startswith(("fe80:", "ff00:", "multicast")):
                keys = [key for key in ("gateway", "dev", "scope", "table") if key in route]
                facts = [f"{key} {stable(str(route[key]))}" for key in keys]
                yield f"route {route.get('type', 'unicast')} {route['dst']} {' '.join(facts)}", ""
        for rule in _json("ip", "-json", family, "rule"):
            yield f"rule {json.dumps(rule, sort_keys=True)}", ""
    for qdisc in _json("tc", "-json", "qdisc", "show"):
        yield f"qdisc {qdisc['kind']} of {stable(qdisc.get('dev', ''))}", ""
    for item in _json("nft", "-json", "list", "ruleset"):
        if "metainfo" not in item:
            yield f"nft {stable(json.dumps(_quiet(item), sort_keys=True))}", ""
    yield from _settings()


def _links() -> Facts:
    for link in _json("ip", "-json", "-details", "address"):
        name = stable(link["ifname"])
        info, slave = link.get("linkinfo", {}), link.get("linkinfo", {}).get("info_slave_data", {})
        flags = [flag for flag in ("UP", "PROMISC", "ALLMULTI") if flag in link["flags"]]
        facts = [info.get("info_kind", ""), *flags, f"mtu {link['mtu']}", f"master {stable(link.get('master', '-'))}"]
        facts += [f"{key} {slave[key]}" for key in ("hairpin", "isolated", "guard") if key in slave]
        facts += [f"{key} {link[key]}" for key in ("txqlen", "ifalias") if key in link]
        yield f"link {name}", " ".join(facts)
        for address in link["addr_info"]:
            if not address["local"].startswith("fe80:"):
                yield f"address {address['local']}/{address['prefixlen']} of {name}", ""


def _settings() -> Facts:
    for part in _SETTINGS:
        for directory, _, files in os.walk(f"{_SETTINGS_DIRECTORY}/{part}"):
            for name in files:
                path = os.path.join(directory, name)
                try:
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        value = os.read(fd, _SETTING_BYTES)
                    finally:
                        os.close(fd)
                except OSError:  # some can only be written, some only be read with IPv6
                    continue
                short = stable(path.removeprefix(f"{_SETTINGS_DIRECTORY}/"))
                yield f"setting {short}", value.decode(errors="replace").strip()


def _json(*argv: str) -> Any:
    """Ask a program for JSON; one that is not there, or cannot say, has nothing to say."""
    try:
        done = subprocess.run(
            argv, check=False, capture_output=True, timeout=_TIME_LIMIT_S, env={"PATH": PATH}, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return []
    document = json.loads(done.stdout or b"[]")
    return document["nftables"] if isinstance(document, dict) else document


def stable(text: str) -> str:
    """Leave out of names what plugins make up."""
    return _MADE_UP.sub(r"\1*", text)


def _quiet(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quiet(inner) for key, inner in value.items() if key not in _NFT_NOISE}
    return [_quiet(inner) for inner in value] if isinstance(value, list) else value


class Expected:
    """What the complete call leaves, from a few times of it: things that each time are there, and their values.

    Args:
        samples: What `look` said after each of them; at least one.
    """

    def __init__(self, samples: Sequence[Mapping[str, str]]) -> None:
        self._ever = {name for sample in samples for name in sample}
        self._always = {name for name in self._ever if all(name in sample for sample in samples)}
        first = samples[0]
        self._values = {
            name: first[name] for name in self._always if all(sample[name] == first[name] for sample in samples)
        }

    def difference(self, state: Mapping[str, str]) -> str:
        """Say what is different in another state; empty if nothing is."""
        texts = [f"{name} is missing" for name in sorted(self._always - state.keys())]
        texts += [f"{name} is there as well" for name in sorted(state.keys() - self._ever)]
        texts += [
            f"{name} is {state[name]!r} and not {value!r}"
            for name, value in sorted(self._values.items())
            if state.get(name, value) != value
        ]
        return "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")

"""What a sequence of calls leaves in the kernel and on disk, in a form in which two implementations can be compared.

Names and addresses that are made at random become words: the host's end of the pair is PORT wherever it is named, a
MAC address is the name of the link that has it. What iptables and nftables say about masquerading becomes one kind of
fact: who is masqueraded, and towards what not.
"""

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.world import World

PORT = "PORT"
STORES = ("/var/lib/cni", "/run/cni")

_IGNORED_ROUTE_KEYS = {"protocol", "flags", "pref", "prefsrc"}
_PORT_SETTINGS = (
    "hairpin",
    "isolated",
    "guard",
    "root_block",
    "fastleave",
    "learning",
    "flood",
    "mcast_flood",
    "bcast_flood",
    "neigh_suppress",
    "state",
)
_BRIDGE_SETTINGS = ("vlan_filtering", "stp_state", "vlan_default_pvid", "mcast_snooping", "ageing_time")
# set by the kernel to something else for every link, or changing by itself
_IGNORED_SYSCTLS = {"stable_secret", "base_reachable_time", "mc_forwarding"}


class Observation(NamedTuple):
    """What was seen, and the words that stand in it for what is made at random.

    Attributes:
        state: container, host, masquerade, spoofcheck, store.
        names: Name of a link -> word.
        macs: MAC address -> word.
    """

    state: dict[str, Any]
    names: dict[str, str]
    macs: dict[str, str]

    def translated(self, value: Any) -> Any:
        """Put the same words into something else, such as a result."""
        return _translated(value, self.names, self.macs)


def observe(world: World, netns: str, ifname: str = "eth0", fixed: str = "") -> Observation:
    """Look at everything.

    Args:
        world: Where.
        netns: Name of the container's netns.
        ifname: The container's interface, whose other end becomes PORT.
        fixed: Text that holds the MAC addresses which were asked for; they stay as they are.
    """
    container, host = world.call(_look, netns=netns), world.call(_look)
    ports = [name for name, link in host["links"].items() if link.get("kind") == "veth"]
    names = dict.fromkeys(ports, PORT) if len(ports) == 1 else {name: f"{PORT}{n}" for n, name in enumerate(ports)}
    macs = _mac_words(container, host, ifname, names, fixed)
    state = {
        "container": container,
        "host": host,
        "masquerade": masquerade_facts(world),
        "spoofcheck": spoofcheck_facts(world),
        "store": store(world),
    }
    return Observation(_translated(state, names, macs), names, macs)


def _mac_words(container: Any, host: Any, ifname: str, words: dict[str, str], fixed: str) -> dict[str, str]:
    macs: dict[str, str] = {}
    if ifname in container["links"]:
        macs[container["links"][ifname]["address"]] = "mac of container"
    bridges_first = sorted(host["links"].items(), key=lambda item: item[1].get("kind") != "bridge")
    for name, link in bridges_first:
        macs.setdefault(link["address"], f"mac of {words.get(name, name)}")
    return {mac: word for mac, word in macs.items() if mac not in fixed.lower() and mac != "00:00:00:00:00:00"}


def _translated(value: Any, names: dict[str, str], macs: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {_translated(key, names, macs): _translated(item, names, macs) for key, item in value.items()}
    if isinstance(value, list):
        return [_translated(item, names, macs) for item in value]
    if isinstance(value, str):
        for original, word in {**names, **macs}.items():
            value = value.replace(original, word)
    return value


def _look() -> dict[str, Any]:
    """Describe the netns that this process is in."""
    shown = _json("ip", "-j", "-d", "addr")
    routes = [route for family in "46" for route in _json("ip", "-j", f"-{family}", "route", "show", "table", "all")]
    return {
        "links": {link["ifname"]: _link(link) for link in shown},
        "addresses": {
            link["ifname"]: [_address(item) for item in link["addr_info"] if not _is_link_local(item)] for link in shown
        },
        "routes": sorted((_route(route) for route in routes if _is_of_interest(route)), key=json.dumps),
        "sysctl": dict(_sysctls()),
    }


def _json(*argv: str) -> Any:
    return json.loads(subprocess.run(argv, check=True, capture_output=True, timeout=5).stdout or b"[]")


def _link(link: Any) -> dict[str, Any]:
    info = link.get("linkinfo", {})
    described = {
        "address": link["address"],
        "mtu": link["mtu"],
        "is_up": "UP" in link["flags"],
        "is_promisc": "PROMISC" in link["flags"],
        "is_multicast": "MULTICAST" in link["flags"],
        # of a bridge, linkwatch says it some time later
        "operstate": "" if info.get("info_kind") == "bridge" else link["operstate"],
        "master": link.get("master", ""),
        "alias": link.get("ifalias", ""),
        "txqlen": link.get("txqlen", 0),
        "kind": info.get("info_kind", ""),
    }
    if info.get("info_kind") == "bridge":
        described["bridge"] = {key: info["info_data"][key] for key in _BRIDGE_SETTINGS if key in info["info_data"]}
    if info.get("info_slave_kind") == "bridge":
        described["port"] = {
            key: info["info_slave_data"][key] for key in _PORT_SETTINGS if key in info["info_slave_data"]
        }
    return described


def _is_link_local(address: Any) -> bool:
    return bool(address["local"].startswith("fe80:"))


def _address(address: Any) -> dict[str, Any]:
    return {
        "address": f"{address['local']}/{address['prefixlen']}",
        "broadcast": address.get("broadcast", ""),
        "scope": address["scope"],
        "peer": address.get("address", ""),
        "is_tentative": bool(address.get("tentative")),
        "is_nodad": bool(address.get("nodad")),
    }


def _route(route: Any) -> dict[str, Any]:
    return {key: value for key, value in route.items() if key not in _IGNORED_ROUTE_KEYS}


def _is_of_interest(route: Any) -> bool:
    """Leave out what the kernel derives by itself from addresses and links."""
    return (
        route.get("table") != "local" and not route["dst"].startswith(("fe80:", "ff00:")) and route.get("dev") != "lo"
    )


def _sysctls() -> Iterator[tuple[str, str]]:
    for setting in ("ipv4/ip_forward", "ipv6/bindv6only"):
        yield setting, _read(f"/proc/sys/net/{setting}")
    for family in ("ipv4", "ipv6"):
        root = f"/proc/sys/net/{family}/conf"
        for link in os.listdir(root):
            for setting in os.listdir(f"{root}/{link}"):
                if setting not in _IGNORED_SYSCTLS:
                    yield f"{family}/conf/{link}/{setting}", _read(f"{root}/{link}/{setting}")


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError as error:  # write-only triggers, and what only the initial netns shows
        return f"errno {error.errno}"


# --- firewall --------------------------------------------------------------------------------------------------------


def masquerade_facts(world: World) -> list[str]:
    """Say who is masqueraded towards what, whichever tool wrote the rules.

    Returns:
        Sorted "SOURCE -> not SUBNET, not MULTICAST"; "?" in place of what is not as expected.
    """
    return sorted([*_iptables_facts(world, "iptables"), *_iptables_facts(world, "ip6tables"), *_nft_facts(world)])


def _iptables_facts(world: World, tool: str) -> Iterator[str]:
    rules = [line.split(" ") for line in _iptables(world, tool)]
    chains: dict[str, list[list[str]]] = {}
    for rule in rules:
        if rule[0] == "-A":
            chains.setdefault(rule[1], []).append(_without_comment(rule[2:]))
    for rule in chains.get("POSTROUTING", []):
        match rule:
            case ["-s", source, "-j", chain] if chain.startswith("CNI-"):
                yield f"{_bare(source)} -> {_iptables_targets(chains.get(chain, []))}"
            case _:
                yield f"? {' '.join(rule)}"


def _iptables(world: World, tool: str) -> list[str]:
    # listing with iptables makes the tables; asking nft first leaves them as they are
    if not re.search(rb"^table ip6? nat", world.run(["nft", "list", "tables"]).stdout, re.MULTILINE):
        return []
    return world.run([tool, "-w", "-t", "nat", "-S"]).stdout.decode().splitlines()


def _without_comment(words: list[str]) -> list[str]:
    text = re.sub(r' -m comment --comment "(\\.|[^"\\])*"', "", " " + " ".join(words))
    return text.strip().split(" ")


def _iptables_targets(rules: list[list[str]]) -> str:
    match rules:
        case [["-d", subnet, "-j", "ACCEPT"], ["!", "-d", multicast, "-j", "MASQUERADE"]]:
            return f"not {subnet}, not {multicast}"
    return f"? {rules}"


def _bare(prefix: str) -> str:
    return prefix.removesuffix("/32").removesuffix("/128")


def _nft_facts(world: World) -> Iterator[str]:
    """Read our own table back, through the map that packets go through."""
    objects = world.nft_ruleset()
    chains: dict[str, list[Any]] = {}
    targets: dict[str, str] = {}
    for item in objects:
        rule, mapping = item.get("rule", {}), item.get("map", {})
        if rule.get("table") == "cnisandbox_masquerade":
            chains.setdefault(rule["chain"], []).append(rule["expr"])
        if mapping.get("table") == "cnisandbox_masquerade":
            targets |= {key: verdict["goto"]["target"] for key, verdict in mapping.get("elem", [])}
    multicast = {_right(rule[0]) for rule in chains.get("postrouting", []) if rule[-1] == {"return": None}}
    for source, chain in targets.items():
        for rule in chains.get(chain, []):
            if _right(rule[0]) == source:
                spared = next(net for net in sorted(multicast) if (":" in net) == (":" in source))
                yield f"{source} -> not {_right(rule[1])}, not {spared}"


def _right(expression: Any) -> str:
    right = expression["match"]["right"]
    return f"{right['prefix']['addr']}/{right['prefix']['len']}" if isinstance(right, dict) else str(right)


def spoofcheck_facts(world: World) -> list[str]:
    """List the rules of `table bridge nat` in nft's words, without handles."""
    done = world.run(["nft", "list", "table", "bridge", "nat"], expect=None)
    found, chain = [], ""
    for line in map(str.strip, done.stdout.decode().splitlines()):
        if line.startswith("chain "):
            chain = line.split()[1]
        elif "comment" in line:
            found.append(f"{chain}: {line}")
    return sorted(found, key=lambda rule: rule.partition(":")[0])  # of a chain, in the order of the rules


# --- disk ------------------------------------------------------------------------------------------------------------


def store(world: World) -> dict[str, dict[str, Any]]:
    """List the files below the state directories, with type, mode, owner and content.

    What our host-local keeps beside, in .cnisandbox, is left out: it is an index that can be lost at any time.
    """
    found = {}
    for root in STORES:
        outside = world.outside_path(root)
        for path in outside.rglob("*"):
            if ".cnisandbox" in path.parts:
                continue
            status = path.lstat()
            kind = stat.filemode(status.st_mode)
            entry = {"mode": kind, "owner": f"{status.st_uid}:{status.st_gid}"}
            if stat.S_ISREG(status.st_mode):
                entry["content"] = path.read_bytes().decode(errors="backslashreplace")
            found[f"{root}/{path.relative_to(outside)}"] = entry
    return found


# --- comparing -------------------------------------------------------------------------------------------------------


def flattened(value: Any, path: str = "") -> dict[str, Any]:
    """Turn nested objects into one, keyed by paths; an empty object or list is as good as none."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = {str(index): item for index, item in enumerate(value)}.items()
    else:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= flattened(item, f"{path}|{key}" if path else str(key))
    return flat


def differences(reference: Any, ours: Any) -> dict[str, tuple[Any, Any]]:
    """Compare two records.

    Returns:
        path -> (the reference's value, ours); None where there is none.
    """
    left, right = flattened(reference), flattened(ours)
    return {
        path: (left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    }

"""What a call left behind, for comparing a plugin as root with the same plugin confined."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from tests.world import Completed, World


class Step(NamedTuple):
    """What a call left behind, with what is different each time made equal."""

    verb: str
    returncode: int
    output: str
    links: list[str]
    rulesets: str
    settings: list[bytes]


def _equal(text: str) -> str:
    text = re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
    return re.sub(r"veth[0-9a-f]{8}", "veth", text)


def _links(world: World, netns: str | None) -> list[str]:
    """Links, addresses, routes, rules and queues; without what the kernel does by itself, and when it likes."""
    shown = []
    for link in world.ip("link", netns=netns):
        flags = sorted({"UP", "PROMISC", "ALLMULTI"} & set(link["flags"]))
        values = [link.get(key) for key in ("ifname", "mtu", "txqlen", "master", "ifalias", "address")]
        shown.append(f"link {values} {flags} {link.get('linkinfo', {}).get('info_kind')}")
    for link in world.ip("address", netns=netns):
        addresses = [item for item in link.get("addr_info", []) if item["scope"] != "link"]
        shown += [f"address {link['ifname']} {item['local']}/{item['prefixlen']} {item['scope']}" for item in addresses]
    for family in ("-4", "-6"):
        for route in world.ip(family, "route", "show", "table", "all", netns=netns):
            if route.get("type", "unicast") == "unicast" and not route["dst"].startswith(("fe80", "ff00")):
                keys = ("dst", "gateway", "dev", "prefsrc", "table", "scope", "metric")
                shown.append(f"route {[route.get(key) for key in keys]}")
        shown += [f"rule {rule}" for rule in world.ip(family, "rule", netns=netns)]
    queues = world.run(["tc", "qdisc"], netns=netns).stdout.decode().splitlines()
    shown += [line for line in queues if "tbf" in line or "ingress" in line]
    return sorted(_equal(line) for line in shown)


def _settings(world: World) -> list[bytes]:
    keys = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/lab0/route_localnet")
    return [world.run(["cat", f"/proc/sys/{key}"], expect=None).stdout for key in keys]


def look(world: World, verb: str, done: Completed) -> Step:
    """Take down what a call has left in the host's netns and in "blue"."""
    rulesets = world.run(["nft", "-s", "list", "ruleset"]).stdout.decode()
    tables = sorted(re.split(r"(?m)^(?=table )", rulesets))  # which family comes first is left to chance
    found = [*_links(world, None), *_links(world, "blue")]
    return Step(verb, done.returncode, _equal(done.stdout.decode()), found, _equal("".join(tables)), _settings(world))


def require_no_refusal(log: Path, call: str) -> None:
    """Insist that a log has no refusal; a call that asked for nothing has written none."""
    lines = log.read_text().splitlines() if log.exists() else []
    assert [line for line in lines if "refused" in json.loads(line)] == [], call

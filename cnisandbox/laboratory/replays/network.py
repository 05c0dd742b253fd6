"""Cases about networks: whose link, whose netns, whose packets."""

import os
import socket
import struct
import time
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any

import cnisandbox.profile
from cnisandbox.cni.netconf import Attachment
from cnisandbox.errors import IoFailure
from cnisandbox.laboratory.replays.case import OURS, ROOT, RUNNER, Case, Effect, Outcome
from cnisandbox.laboratory.replays.host import BLUE, OUR_DIR, REFERENCE_DIR, VICTIM, Host
from cnisandbox.names import host_ifname

_NETWORK = {"cniVersion": "1.0.0", "name": "net"}
_BRIDGE: dict[str, Any] = {
    **_NETWORK,
    "type": "bridge",
    "bridge": "cni0",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}
_PROFILES = os.path.join(os.path.dirname(cnisandbox.profile.__file__), "data", "profiles")
_ADVERTISED_S, _CONNECT_S = 2.0, 1.0
_ICMPV6_HOPS = 255
_NOT_OURS = "no plugin of ours does that; the reference plugin runs beside them, which is what the other columns show"


def _bridge(host: Host) -> tuple[str, str]:
    """Say where the bridge plugin of this column is, and what it is called."""
    directory = OUR_DIR if host.column == OURS else REFERENCE_DIR
    subject = {ROOT: "reference bridge, as root", OURS: "our bridge"}
    return f"{directory}/bridge", subject.get(host.column, "reference bridge, under `cnisandbox exec`")


def ordinary_call(host: Host) -> Outcome:
    """Attach a container and detach it.

    Raises:
        IoFailure: It fails, so nothing follows from what is refused here.
    """
    program, subject = _bridge(host)
    for verb in ("ADD", "DEL"):
        answer = host.call(program, _BRIDGE, verb)
        if answer.status != 0:
            raise IoFailure(f"call {subject}: it does not work here: {answer.said}")
    return Outcome(subject)


def router_advertisement(host: Host) -> Outcome:
    """Have a container tell the host that it is a router."""
    host.run("sysctl", "-q", "-w", "net.ipv6.conf.default.accept_ra=1", "net.ipv6.conf.default.forwarding=0")
    program, subject = _bridge(host)
    if host.column == ROOT:
        # Without its write of accept_ra, which it does not insist on, it is what it was before 0.8.6.
        freeze = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$0" "$@"'
        answer = host.call(program, _BRIDGE, wrapper=("unshare", "-m", "sh", "-c", freeze))
        subject = "reference bridge, as root, that may not write settings, as if before 0.8.6"
    elif host.column == RUNNER:
        answer = host.call(program, _BRIDGE, profile=_profile_without_accept_ra())
        subject += " with no permit for accept_ra, as if before 0.8.6"
    else:
        answer = host.call(program, _BRIDGE)
    host.run("ip", "-n", "blue", "address", "add", "fe80::66/64", "dev", "eth0", "nodad")
    routes = _advertise(host)
    with open("/proc/sys/net/ipv6/conf/cni0/accept_ra") as file:
        accepted = file.read().strip()
    seen = f"accept_ra of cni0: {accepted}; routes by advertisement: {', '.join(routes) or 'none'}"
    effects = (Effect("the host sends its IPv6 traffic through the container", bool(routes), seen),)
    return Outcome(subject, effects, answer.said)


def _profile_without_accept_ra() -> str:
    with open(f"{_PROFILES}/bridge.toml") as file:
        parts = file.read().split("\n[[")
    path = "/run/replay/bridge.toml"
    with open(path, "w") as file:
        file.write("\n[[".join(part for part in parts if "accept_ra" not in part))
    return path


def _advertise(host: Host) -> list[str]:
    """Send router advertisements out of the container until the host believes them, or for two seconds."""
    advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    endpoint = host.inside(BLUE, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    ifindex = next(link["ifindex"] for link in host.ip("-n", "blue", "link") if link["ifname"] == "eth0")
    endpoint.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _ICMPV6_HOPS)
    endpoint.bind(("fe80::66", 0, 0, ifindex))
    deadline = time.monotonic() + _ADVERTISED_S
    with endpoint:
        while True:
            endpoint.sendto(advertisement, ("ff02::1", 0, 0, ifindex))
            time.sleep(0.1)  # between two of them, as a router does
            routes = host.ip("-6", "route", "show", "default", "proto", "ra")
            if routes or time.monotonic() > deadline:
                return [f"default via {route['gateway']} dev {route['dev']}" for route in routes]


def rule_order(host: Host) -> Outcome:
    """Have port mappings come before the services of the node."""
    if host.column == OURS:
        return Outcome("", reason=_NOT_OURS)
    for rule in ("-N KUBE-SERVICES", "-A PREROUTING -j KUBE-SERVICES"):
        host.run("iptables", "-w", "-t", "nat", *rule.split())
    answer = host.call_vulnerable("portmap", "insert-at-head")
    rules = host.run("iptables", "-w", "-t", "nat", "-S", "PREROUTING").splitlines()
    jumps = [rule.rpartition(" ")[2] for rule in rules if " -j " in rule]
    is_first = jumps[:1] == ["CNI-HOSTPORT-DNAT"]
    effects = (Effect("port mappings take packets of the node's services", is_first, f"PREROUTING: {jumps}"),)
    return Outcome(host.vulnerable_subject, effects, answer.said)


def any_destination(host: Host) -> Outcome:
    """Have a port mapping take connections that only pass through the host."""
    if host.column == OURS:
        return Outcome("", reason=_NOT_OURS)
    host.run("ip", "netns", "add", "server")
    for number, name in enumerate(("blue", "victim", "server"), 1):
        host.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
        host.run("ip", "address", "add", f"10.{number}.0.1/24", "dev", f"to-{name}")
        host.run("ip", "link", "set", f"to-{name}", "up")
        host.run("ip", "-n", name, "address", "add", f"10.{number}.0.2/24", "dev", "eth0")
        host.run("ip", "-n", name, "link", "set", "eth0", "up")
        host.run("ip", "-n", name, "route", "add", "default", "via", f"10.{number}.0.1")
    host.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    answer = host.call_vulnerable("portmap", "map-any-address")
    listeners = {
        name: host.inside(f"/run/netns/{name}", partial(socket.create_server, ("", port)))
        for name, port in (("blue", 80), ("server", 8080))
    }
    reached = _who_answers(host, listeners)
    what = f"the connection to 10.3.0.2, port 8080, came to: {reached or 'nobody'}"
    effects = (Effect("a container gets a connection that is for another machine", reached == "blue", what),)
    return Outcome(host.vulnerable_subject, effects, answer.said)


def _who_answers(host: Host, listeners: dict[str, socket.socket]) -> str:
    client = host.inside(VICTIM, lambda: socket.socket(socket.AF_INET))
    with client:
        client.settimeout(_CONNECT_S)
        with suppress(OSError):
            client.connect(("10.3.0.2", 8080))
        for name, listener in listeners.items():
            listener.setblocking(False)
            with listener, suppress(BlockingIOError):
                listener.accept()
                return name
    return ""


def wrong_netns(host: Host) -> Outcome:
    """Name a process whose number has been given to another one since: of the host, then of somebody else."""
    program, subject = _bridge(host)
    said = [host.call(program, _BRIDGE, netns="/proc/1/ns/net", container="c1").said]
    said.append(host.call(program, _BRIDGE, netns=f"/proc/{host.victim_pid}/ns/net", container="c2").said)
    of_host, of_victim = host.links(), host.links("victim")
    effects = (
        Effect("the attachment is made in the host's netns", "eth0" in of_host, _presence("eth0", "the host", of_host)),
        Effect("it is made in another container's", "eth0" in of_victim, _presence("eth0", "the other one", of_victim)),
    )
    return Outcome(subject, effects, next(filter(None, said), ""))


def _presence(ifname: str, owner: str, links: Collection[str]) -> str:
    return f"{ifname} is {'among' if ifname in links else 'not among'} the links of {owner}"


def settings_of_the_host(host: Host) -> Outcome:
    """Set a container's settings where the container shares the network of the host."""
    if host.column == OURS:
        return Outcome("", reason=_NOT_OURS)
    prev_result = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": "/proc/1/ns/net"}], "ips": []}
    netconf = {**_NETWORK, "type": "tuning", "sysctl": {"net.ipv4.conf.all.arp_filter": "1"}, "prevResult": prev_result}
    answer = host.call(f"{REFERENCE_DIR}/tuning", netconf, netns="/proc/1/ns/net")
    with open("/proc/sys/net/ipv4/conf/all/arp_filter") as file:
        value = file.read().strip()
    effects = (Effect("a setting of the host's network is written", value == "1", f"arp_filter of the host: {value}"),)
    subject = "reference tuning" + (", under `cnisandbox exec`" if host.column == RUNNER else ", as root")
    return Outcome(subject, effects, answer.said)


def delete_by_name(host: Host) -> Outcome:
    """Delete links by names that are somebody else's by now."""
    program, subject = _bridge(host)
    said = [_late_delete(host, program)]
    of_blue = host.links("blue")
    if host.column == OURS:
        ifname = host_ifname(str(_NETWORK["name"]), Attachment("c3", "eth0"), 0)
        host.run("ip", "link", "add", ifname, "type", "veth", "peer", "name", "eth1", "netns", "victim")
        said.append(host.call(program, _BRIDGE, "DEL", container="c3", netns="").said)
    else:
        ifname = "veth0therone"
        host.run("ip", "link", "add", ifname, "type", "veth", "peer", "name", "eth1", "netns", "victim")
        said.append(host.call_vulnerable("bridge", "delete-link-by-name", {"ifname": ifname}).said)
        subject += f"; {host.vulnerable_subject}"
    of_host = host.links()
    effects = (
        Effect(
            "a link of the host that is another container's is deleted",
            ifname not in of_host,
            _presence(ifname, "the host", of_host),
        ),
        Effect(
            "a late DEL takes the interface of who has the netns path now",
            "eth0" not in of_blue,
            _presence("eth0", "the container that came later", of_blue),
        ),
    )
    return Outcome(subject, effects, next(filter(None, said), ""))


def _late_delete(host: Host, program: str) -> str:
    """Attach c1; its netns goes without a DEL, and c2 gets one of the same path; then comes the DEL of c1."""
    host.call(program, _BRIDGE, container="c1")
    host.run("ip", "netns", "delete", "blue")
    host.run("ip", "netns", "add", "blue")
    host.call(program, _BRIDGE, container="c2")
    return host.call(program, _BRIDGE, "DEL", container="c1").said


def netns_of_another(host: Host) -> Outcome:
    """Have a helper work in a netns that is not the caller's."""
    host.run("ip", "link", "add", "to-victim", "type", "veth", "peer", "name", "eth0", "netns", "victim")
    ifindex = next(link["ifindex"] for link in host.ip("-n", "victim", "link") if link["ifname"] == "eth0")
    said = []
    for netns in (VICTIM, f"/proc/{host.victim_pid}/ns/net"):
        said.append(host.call_vulnerable("bridge", "work-in-named-netns", {"netns": netns, "ifindex": ifindex}).said)
    links = host.links("victim")
    effects = (Effect("a link of another container is renamed", "eth0" not in links, f"its links: {sorted(links)}"),)
    return Outcome(host.vulnerable_subject, effects, next(filter(None, said), ""))


CASES = (
    Case(
        "router-advertisement",
        "CVE-2020-10749",
        "containernetworking/plugins before 0.8.6: the host believes a container's router advertisements"
        " (also CVE-2020-13401, CVE-2020-13597)",
        "a container advertises itself as a router; the host has IPv6 and no accept_ra=0 on the bridge",
        router_advertisement,
        "Ours write accept_ra=0. A plugin that leaves it out makes a network that the host trusts, with privileges or"
        " without: no confinement supplies what a plugin forgets.",
    ),
    Case(
        "rule-order",
        "CVE-2019-9946",
        "portmap before 0.7.5: its rules come before the node's services",
        "the plugin inserts its jump at the head of PREROUTING, before KUBE-SERVICES",
        rule_order,
        "The profile permits the jump, and the place in a chain is not judged. What the rules of the host mean together"
        " is the plugin's to get right.",
    ),
    Case(
        "any-destination",
        "CVE-2025-67499",
        "portmap before 1.9.0, backend nftables: the destination address is not compared",
        "a connection through the host to another machine's port 8080, which is mapped on the host",
        any_destination,
        "The rule stands in the plugin's own table, which its profile permits; what it matches is not judged.",
    ),
    Case(
        "wrong-netns",
        "containerd#10607",
        "containerd: the number of a process that has ended names the netns of another one",
        "CNI_NETNS is /proc/PID/ns/net of a process of the host, then of another container",
        wrong_netns,
        "The host's own netns is refused before anything is done. Nothing tells one container's netns from another's:"
        " which is meant is the runtime's word.",
    ),
    Case(
        "settings-of-the-host",
        "CVE-2022-0532",
        "CRI-O before 1.23.1: settings of a pod in the host's network are written on the host",
        "tuning is called with the host's own netns as CNI_NETNS",
        settings_of_the_host,
        "A netns that is the host's own is refused before the plugin begins.",
    ),
    Case(
        "delete-by-name",
        "CVE-2026-39402",
        "lxc-user-nic before 7.0.0: a link is deleted because its name is right, whoever's it is",
        "the name of a host's link that is another container's; and a DEL that comes when the path of the netns is"
        " another container's",
        delete_by_name,
        "Ours delete by the mark that ADD has left on the link. The runner's monitor deletes no link of the host that"
        " is not the attachment's; but inside the netns that CNI_NETNS names, CNI_IFNAME is the plugin's.",
    ),
    Case(
        "netns-of-another",
        "CVE-2017-5985",
        "lxc-user-nic before 2.0.8: works in any netns that the caller names",
        "the plugin enters the netns of another container, by its path and by a process in it, and renames a link",
        netns_of_another,
        "Other netns are not in view, and setns() is refused, or under the runner only noted, and that for the two"
        " netns of the call.",
    ),
)

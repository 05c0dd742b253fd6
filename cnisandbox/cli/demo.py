"""Give two pods their network with our own plugins, and show who holds which privilege while that happens.

It makes a machine of its own: network, mount and pid namespaces in which nothing of this machine's network can be
touched, and which end with the demonstration. There it installs bridge, host-local and loopback, and does what a
runtime does: ADD, CHECK, STATUS, DEL and GC, by executing the plugins. What it prints about processes is what the
kernel says in /proc while a call is under way. In the end it compares the machine with what it was before.

Status 0: everything was as it has to be. Status 1: it says what was not.
"""

import argparse
import json
import os
import pwd
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cnisandbox.boundary.sandbox import SERVICE_USER
from cnisandbox.cli import output
from cnisandbox.cli.demonstration import processes, scene, snapshot
from cnisandbox.cli.install import require_root
from cnisandbox.errors import CniError, DelegateFailed, InvalidEnvironment, IoFailure
from cnisandbox.runtime import conflist, execute

PODS = ("blue", "red")
WARM_UP = "warm-up"
NETWORK = "demo"
IFNAME = "eth0"
TIME_LIMIT_S = 120.0

_CONFIGURATION = "/etc/cni/net.d"
_VERSION = "1.1.0"
_BRIDGE_IFNAME = "demo0"
_DAD_TIME_LIMIT_S = 10.0
_SHOWN_LINES = 10
_BRIDGE = {
    "cniVersion": _VERSION,
    "name": NETWORK,
    "plugins": [
        {
            "type": "bridge",
            "bridge": _BRIDGE_IFNAME,
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd00:99::/64"}]]},
        }
    ],
}
_LOOPBACK = {"cniVersion": _VERSION, "name": "demo-lo", "plugins": [{"type": "loopback"}]}
_PING = ("ping", "-q", "-c", "3", "-i", "0.2", "-w", "5")
_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) received")

# What stays after GC, by intention: forwarding was switched on for the host, and a store remembers whose turn it is.
# KERNEL: ip_forward switches the next two with it; a module that is loaded for nat brings settings of its own.
_STAYING_SYSCTLS = re.compile(
    r"[-+] /proc/sys/net/(ipv4/ip_forward|ipv[46]/conf/[^/]+/forwarding|ipv4/conf/all/accept_redirects):"
    r"|\+ /proc/sys/net/(netfilter/|nf_conntrack_max|bridge/)"
)
_STAYING_FILES = re.compile(rf"\+ /var/lib/cni/networks(/({NETWORK}|\.cnisandbox|\.locks)\b[^ ]*)? ")
# The kernel gives lo its address when it is set up, with routes, and leaves both there when it is set down.
_STAYING_IN_POD = re.compile(
    r"\+ (lo 127\.0\.0\.1/8 host|-4 type local dst 127\.0\.0\.[01](/8)? dev lo table local .*)$"
)
_NOTHING = re.compile(r"(?!)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--json", action="store_true", help="print one document for programs")


def run(arguments: argparse.Namespace) -> int:
    """Demonstrate; outside of the scene that means to make the scene and to run there again."""
    require_root("demo")
    if not scene.is_inside():
        status = scene.run_again_inside(["--json"] if arguments.json else [], TIME_LIMIT_S)
        if status == scene.STATUS_OF_TIME_LIMIT:
            raise InvalidEnvironment(f"demo: it was not done after {TIME_LIMIT_S:g} s, and was killed")
        return status
    report = Report(is_json=arguments.json)
    try:
        _demonstrate(report)
    except CniError as error:
        report.problem(f"{error.msg}: {error.details}" if error.details else error.msg)
    report.finish()
    return 1 if report.problems else 0


@dataclass
class Report:
    """What was found: printed as it comes, or as one document at the end.

    Attributes:
        is_json: Print the document and nothing else.
        document: Everything that was found.
        problems: What was not as it has to be.
    """

    is_json: bool
    document: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def title(self, text: str) -> None:
        """Begin a part."""
        self.say("\n" + output.paint(text, "bold"))

    def say(self, text: str) -> None:
        """Print something for a person."""
        if not self.is_json:
            print(text, flush=True)

    def outcome(self, text: str, *, is_good: bool, problem: str = "") -> None:
        """Print whether something is as it has to be, and remember when it is not."""
        self.say(f"{output.paint('ok', 'green') if is_good else output.paint('WRONG', 'red')}  {text}")
        if not is_good:
            self.problem(problem or text)

    def problem(self, text: str) -> None:
        """Remember what was not as it has to be."""
        self.problems.append(text)

    def finish(self) -> None:
        """Print the document, or the sum."""
        if self.is_json:
            output.print_json({**self.document, "problems": self.problems})
            return
        if not self.problems:
            self.say("\n" + output.paint("everything was as it has to be", "green"))
            return
        print("\n" + output.paint("not as it has to be:", "red", sys.stderr), file=sys.stderr)
        for problem in self.problems:
            print(f"  {output.printable(problem)}", file=sys.stderr)


def _demonstrate(report: Report) -> None:
    scene.prepare()
    bridge, loopback = _networks(report)
    untouched = snapshot.settled(snapshot.of_host)
    _warm_up(report, bridge, loopback)
    before = snapshot.settled(snapshot.of_host)
    for pod in PODS:
        scene.run("ip", "netns", "add", pod)
    pods_before = {pod: snapshot.settled(partial(snapshot.of_pod, pod)) for pod in PODS}
    report.document["processes"] = {}
    results = {pod: _add(report, bridge, loopback, pod, is_shown=pod == PODS[0]) for pod in PODS}
    _show_addresses(report, results)
    _ping_everybody(report, results)
    _check(report, bridge, loopback, results)
    _status(report, bridge)
    _delete(report, bridge, loopback, results, pods_before)
    _compare_with_before(report, before)
    _gc(report, bridge, untouched)


def _networks(report: Report) -> tuple[conflist.NetworkList, conflist.NetworkList]:
    """Write the two networks where a runtime looks, and load them as a runtime does."""
    for number, network in ((10, _BRIDGE), (99, _LOOPBACK)):
        with open(f"{_CONFIGURATION}/{number}-{network['name']}.conflist", "w", encoding="ascii") as file:
            json.dump(network, file, indent=2)
    user = pwd.getpwnam(SERVICE_USER)
    report.title(f"Two pods on network {NETWORK!r}: bridge + host-local, masqueraded, IPv4 and IPv6; and loopback")
    report.say(
        f"plugins in {scene.PLUGIN_DIRECTORY}; service user {SERVICE_USER}, uid {user.pw_uid}, gid {user.pw_gid}"
    )
    report.say("everything in network, mount and pid namespaces of its own")
    return conflist.load_network(_CONFIGURATION, NETWORK), conflist.load_network(_CONFIGURATION, "demo-lo")


# --- calls -------------------------------------------------------------------------------------------------------


def _parameters(verb: str, pod: str, ifname: str) -> execute.Call:
    directories = (scene.PLUGIN_DIRECTORY,)
    return (
        execute.Call(verb, directories, f"pod-{pod}", f"/run/netns/{pod}", ifname)
        if pod
        else execute.Call(verb, directories)
    )


def _netconf(network: conflist.NetworkList, extra: dict[str, Any] | None = None) -> bytes:
    config = {**network.plugins[0].config, "name": network.name, "cniVersion": network.version}
    return json.dumps(config | (extra or {})).encode()


def _plugin(network: conflist.NetworkList) -> str:
    return os.path.join(scene.PLUGIN_DIRECTORY, network.plugins[0].type)


def _call(
    network: conflist.NetworkList, verb: str, pod: str = "", ifname: str = IFNAME, extra: dict[str, Any] | None = None
) -> bytes:
    """Execute a network's plugin, and wait until nothing of the call is left."""
    try:
        return execute.run_plugin(
            _plugin(network), _parameters(verb, pod, ifname), _netconf(network, extra), scene.COMMAND_TIME_LIMIT_S
        )
    finally:
        scene.reap()


def _held_call(report: Report, network: conflist.NetworkList, pod: str, ifname: str) -> bytes:
    """Execute ADD, but show its processes before it gets its netconf."""
    held = processes.HeldCall(_plugin(network), _parameters("ADD", pod, ifname))
    found = held.processes()
    _show_processes(report, network, found)
    status, stdout, stderr = held.finish(_netconf(network))
    if status != 0:
        raise DelegateFailed(
            999, f"ADD {network.name} {pod}: status {status}", (stdout or stderr).decode(errors="replace")
        )
    return stdout


# --- ADD ---------------------------------------------------------------------------------------------------------


def _warm_up(report: Report, bridge: conflist.NetworkList, loopback: conflist.NetworkList) -> None:
    """Let a pod come and go, so that what a network has in common is there before anything is compared."""
    scene.run("ip", "netns", "add", WARM_UP)
    _call(loopback, "ADD", WARM_UP, "lo")
    _call(bridge, "ADD", WARM_UP)
    _await_link_local_address()
    _call(bridge, "DEL", WARM_UP)
    _call(loopback, "DEL", WARM_UP, "lo")
    scene.run("ip", "netns", "delete", WARM_UP)
    report.say("a first pod has come and gone; the network's bridge stays, as with the reference plugin")


def _await_link_local_address() -> None:
    """Wait until the bridge may use its link-local address, a second or two: routes come with it."""
    deadline = time.monotonic() + _DAD_TIME_LIMIT_S
    while "tentative" in scene.run("ip", "-6", "address", "show", "dev", _BRIDGE_IFNAME):
        if time.monotonic() > deadline:
            raise IoFailure(f"wait for link {_BRIDGE_IFNAME}: its link-local address stays tentative")
        time.sleep(0.05)


def _add(
    report: Report, bridge: conflist.NetworkList, loopback: conflist.NetworkList, pod: str, *, is_shown: bool
) -> dict[str, Any]:
    """Attach a pod, and show the processes of both calls for the first one."""
    results = {}
    for network, ifname in ((loopback, "lo"), (bridge, IFNAME)):
        stdout = _held_call(report, network, pod, ifname) if is_shown else _call(network, "ADD", pod, ifname)
        results[ifname] = json.loads(stdout)
    return results


def _show_processes(report: Report, network: conflist.NetworkList, found: Sequence[processes.Process]) -> None:
    plugin = network.plugins[0].type
    user = pwd.getpwnam(SERVICE_USER)
    report.title(f"Processes of a call: ADD of {plugin}, stopped before it gets its netconf; from /proc/PID/status")
    rows = [("pid", *(str(process.pid) for process in found)), ("netns", *(process.netns for process in found))]
    rows += [(name, *(process.status[name] or "-" for process in found)) for name in processes.FIELDS]
    report.say(output.table(("", *(process.role for process in found)), rows))
    masks = sorted({process.status[name] for process in found for name in ("CapPrm", "CapEff", "CapBnd")})
    report.say("; ".join(f"{mask} = {processes.capability_names(mask)}" for mask in masks) + "; Seccomp 2 = filter")
    faults = [fault for process in found for fault in process.faults(user.pw_uid, user.pw_gid)]
    report.outcome(
        "no process above CAP_NET_ADMIN, none of root, none that could gain a privilege",
        is_good=not faults,
        problem=f"processes of {plugin}: {'; '.join(faults)}",
    )
    report.document["processes"][plugin] = [
        {**process._asdict(), "capabilities": processes.capability_names(process.status["CapEff"])} for process in found
    ]


def _show_addresses(report: Report, results: dict[str, dict[str, Any]]) -> None:
    report.title("Addresses of the pods")
    rows = []
    for pod, of_pod in results.items():
        for ip in of_pod[IFNAME]["ips"]:
            rows.append((pod, IFNAME, ip["address"], ip.get("gateway", "")))
        wanted = {ip["address"] for ip in of_pod[IFNAME]["ips"]}
        shown = json.loads(scene.run("ip", "-json", "address", "show", "dev", IFNAME, netns=pod))[0]["addr_info"]
        has = {f"{item['local']}/{item['prefixlen']}" for item in shown if item["scope"] == "global"}
        if has != wanted:
            report.problem(f"pod {pod} has {sorted(has)}, and its result says {sorted(wanted)}")
    report.say(output.table(("pod", "interface", "address", "gateway"), rows))
    report.document["pods"] = {pod: of_pod[IFNAME] for pod, of_pod in results.items()}


def _ping_everybody(report: Report, results: dict[str, dict[str, Any]]) -> None:
    """Ping from each pod to the other and to the host, and from the host to each, both families."""
    report.title("Pings")
    report.document["pings"] = []
    addresses = {
        pod: [ip["address"].partition("/")[0] for ip in of_pod[IFNAME]["ips"]] for pod, of_pod in results.items()
    }
    gateways = [ip["gateway"] for ip in results[PODS[0]][IFNAME]["ips"]]
    blue, red = PODS
    ways = [(blue, red, addresses[red]), (red, blue, addresses[blue])]
    ways += [(pod, "host", gateways) for pod in PODS] + [("host", pod, addresses[pod]) for pod in PODS]
    for source, target, targets in ways:
        for address in targets:
            said = scene.run(*_PING, address, netns=None if source == "host" else source, accepted=(0, 1))
            counts = _LOSS.search(said)
            sent, received = (int(counts[1]), int(counts[2])) if counts else (0, 0)
            report.document["pings"].append(
                {"from": source, "to": target, "address": address, "sent": sent, "received": received}
            )
            report.outcome(
                f"{source} to {target} ({address}): {received} of {sent} came back", is_good=sent == received > 0
            )


# --- CHECK, STATUS, DEL, GC --------------------------------------------------------------------------------------


def _check(
    report: Report,
    bridge: conflist.NetworkList,
    loopback: conflist.NetworkList,
    results: dict[str, dict[str, Any]],
) -> None:
    report.title("CHECK and STATUS")
    for pod, of_pod in results.items():
        for network, ifname in ((loopback, "lo"), (bridge, IFNAME)):
            _ask(
                report,
                f"CHECK {network.plugins[0].type} {pod}",
                network,
                "CHECK",
                pod,
                ifname,
                {"prevResult": of_pod[ifname]},
            )
    pod = PODS[0]
    scene.run("ip", "link", "set", IFNAME, "down", netns=pod)
    try:
        _call(bridge, "CHECK", pod, extra={"prevResult": results[pod][IFNAME]})
    except DelegateFailed as error:
        report.outcome(f"CHECK bridge {pod}, its link set down: {error.msg}", is_good=True)
    else:
        report.outcome(f"CHECK bridge {pod}: it did not see that the link is down", is_good=False)
    scene.run("ip", "link", "set", IFNAME, "up", netns=pod)


def _status(report: Report, bridge: conflist.NetworkList) -> None:
    _ask(report, "STATUS bridge", bridge, "STATUS", "", "", None)


def _ask(
    report: Report,
    words: str,
    network: conflist.NetworkList,
    verb: str,
    pod: str,
    ifname: str,
    extra: dict[str, Any] | None,
) -> None:
    try:
        _call(network, verb, pod, ifname, extra)
        answer = "ok"
    except DelegateFailed as error:
        answer = f"code {error.code}: {error.msg}"
    report.document.setdefault("answers", {})[words] = answer
    report.outcome(f"{words}: {answer}", is_good=answer == "ok")


def _delete(
    report: Report,
    bridge: conflist.NetworkList,
    loopback: conflist.NetworkList,
    results: dict[str, dict[str, Any]],
    before: dict[str, snapshot.Snapshot],
) -> None:
    report.title("After DEL of both pods, compared with before their ADD")
    for pod, of_pod in results.items():
        _call(bridge, "DEL", pod, IFNAME, {"prevResult": of_pod[IFNAME]})
        _call(loopback, "DEL", pod, "lo", {"prevResult": of_pod["lo"]})
    report.document["after_del"] = {}
    for pod in PODS:
        take, is_expected = partial(snapshot.of_pod, pod), lambda line: bool(_STAYING_IN_POD.match(line))
        found = snapshot.settled_difference(before[pod], take, is_expected)
        _compare(report, "after_del", found, before[pod], _STAYING_IN_POD)
        scene.run("ip", "netns", "delete", pod)
    report.say("   (stays: 127.0.0.1 of lo, which the kernel gave it when it was set up)")


def _compare_with_before(report: Report, before: snapshot.Snapshot) -> None:
    found = snapshot.settled_difference(before, snapshot.of_host, lambda _: False)
    _compare(report, "after_del", found, before, _NOTHING)
    report.say("   (last_reserved_ip.* and the index's seal are compared by name: whose turn it is has moved on)")


def _gc(report: Report, bridge: conflist.NetworkList, untouched: snapshot.Snapshot) -> None:
    report.title("After GC with no valid attachment, compared with the untouched host")
    _call(bridge, "GC", extra={"cni.dev/valid-attachments": []})
    staying = re.compile(f"{_STAYING_SYSCTLS.pattern}|{_STAYING_FILES.pattern}")
    found = snapshot.settled_difference(untouched, snapshot.of_host, lambda line: bool(staying.match(line)))
    report.document["after_gc"] = {}
    _compare(report, "after_gc", found, untouched, staying)
    forwarding = sorted(
        {line.split(":")[0].removeprefix("+ ") for line in found.get("sysctls", ()) if line.startswith("+")}
    )
    report.say(
        f"   (stays: forwarding, {len(forwarding)} settings from net/ipv4/ip_forward and net/ipv6/conf/all/forwarding;"
    )
    report.say("   and what host-local remembers: its lock, its index, and whose turn it is)")


def _compare(
    report: Report, part: str, found: snapshot.Difference, compared: snapshot.Snapshot, staying: "re.Pattern[str]"
) -> None:
    """Print the difference, kind by kind."""
    report.document[part] |= {kind: found.get(kind, []) for kind in compared}
    for kind in compared:
        lines = [line for line in found.get(kind, ()) if not staying.match(line)]
        is_partly_staying = bool(found.get(kind)) and not lines
        verdict = "no difference" + (" but what stays" if is_partly_staying else "")
        if lines:
            verdict = "; ".join(lines[:_SHOWN_LINES])
        report.outcome(f"{kind}: {verdict}", is_good=not lines, problem=f"{part}: {kind} differ: {verdict}")

"""Fault injection: hold a plugin call where nothing has been asked of it yet, trace one of its processes, let it go on.

    entry = engine ──┬── container worker      all four wait in read(0) for what comes first: the netconf, a request
                     ├── host worker
                     └── delegate worker

A call whose standard input is held open comes to rest when every process of it has dropped what it drops. Then one of
them gets a tracer that makes its Nth call of one kind fail, or kills it there; only then the netconf is written. So
each process is hit by itself, and N counts from the beginning of the work. In the warm mode (tests/warm.py) the entry
is a slot, and what is started its launcher.
"""

import itertools
import json
import os
import re
import select
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from tests import warm
from tests.netns.zygotes import children, is_reading, title_of
from tests.world import Completed, World, wait_until

ENGINE, HOST, CONTAINER, DELEGATE = "engine", "host worker", "container worker", "delegate worker"
NETWORK = "faulty"
CONTAINER_ID = "pod1"
IFNAME = "eth0"
IPAM: dict[str, Any] = {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]}
NETCONF: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": NETWORK,
    "type": "bridge",
    "bridge": "cni0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "macspoofchk": False,
    "ipam": IPAM,
}

_STATE = """
echo links; cut -d: -f1 /proc/net/dev | sort
echo addresses; ip -o address show scope global | sort
echo routes; ip route show table all proto static; ip -6 route show table all proto static
echo rules; nft list ruleset
echo files; find /var/lib/cni /run/cni -printf '%p %y\\n' 2>/dev/null | sort
echo netns; ls /run/netns; findmnt --list --noheadings --output TARGET --types nsfs
for pod in /run/netns/*; do
    echo "$pod"; nsenter --net="$pod" sh -c 'cut -d: -f1 /proc/net/dev; ip -o address; ip route show table all'
done
"""


class Fault(NamedTuple):
    """What happens to which process.

    Attributes:
        role: The process.
        syscall: Name of the system call.
        action: As strace's inject takes it: "signal=KILL", "error=EIO".
        when: Which call of that name it is that is hit, from 1.
    """

    role: str
    syscall: str
    action: str
    when: int

    def __str__(self) -> str:
        return f"{self.action} at {self.syscall} number {self.when} of the {self.role}"


class Outcome(NamedTuple):
    """How a call with a fault ended.

    Attributes:
        was_hit: Whether the fault came to pass; a process may make fewer such calls.
        status: Exit status; minus the signal that ended the entry.
        stdout, stderr: What it wrote.
    """

    was_hit: bool
    status: int
    stdout: bytes
    stderr: bytes

    def document(self) -> dict[str, Any]:
        """What standard output holds."""
        decoded: dict[str, Any] = json.loads(self.stdout)
        return decoded


def environment(verb: str, plugin_dir: str, container_id: str = CONTAINER_ID, netns: str = "blue") -> dict[str, str]:
    """The variables of a call."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": f"/run/netns/{netns}",
        "CNI_IFNAME": IFNAME,
        "CNI_PATH": plugin_dir,
    }


def call(world: World, plugin_dir: str, verb: str, netconf: dict[str, Any] = NETCONF, **which: str) -> Completed:
    """Make a call without a fault, which has to succeed."""
    argv = [f"{plugin_dir}/{netconf['type']}"]
    variables = environment(verb, plugin_dir, **which)
    return world.run(argv, stdin=json.dumps(netconf).encode(), env=variables, timeout=20)


def call_with(world: World, plugin_dir: str, verb: str, fault: Fault, netconf: dict[str, Any] = NETCONF) -> Outcome:
    """Make a call with a fault."""
    child, parked = park(world, plugin_dir, verb, netconf["type"])
    target = parked[fault.role]
    inject = f"inject={fault.syscall}:{fault.action}:when={fault.when}"
    argv = ["strace", "-p", str(target), "-e", f"trace={fault.syscall}", "-e", inject]
    tracer = subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        assert tracer.stderr is not None
        ready, _, _ = select.select([tracer.stderr], [], [], 10)
        first = tracer.stderr.readline() if ready else b""
        assert b"attached" in first, first
        stdout, stderr = child.communicate(json.dumps(netconf).encode(), timeout=20)
        trace = tracer.communicate(timeout=10)[1]
    finally:
        if tracer.poll() is None:
            tracer.kill()
            tracer.communicate()
    # How it ended says nothing: who has served is killed by the zygote, a worker by its engine's end.
    made = sum(line.startswith(f"{fault.syscall}(".encode()) for line in trace.splitlines())
    return Outcome(made >= fault.when, child.returncode, stdout, stderr)


def park(
    world: World, plugin_dir: str, verb: str, plugin: str = "bridge"
) -> tuple["subprocess.Popen[bytes]", dict[str, int]]:
    """Begin a call that waits for its netconf.

    Returns:
        What was started, and the processes of the call by role.
    """
    child = world.popen([f"{plugin_dir}/{plugin}"], env=environment(verb, plugin_dir))
    return child, wait_until(lambda: _parked(child), timeout=20)


def call_from_the_start_with(world: World, plugin_dir: str, verb: str, inject: str) -> Outcome:
    """Make a call with a fault that is counted in each process by itself, from its beginning, while it confines itself.

    It is one without a zygote; what dies in a slot has tests of its own (test_zygote.py).

    Args:
        world: The world.
        plugin_dir: Where the plugin is.
        verb: The CNI verb.
        inject: As strace takes it, such as "setns:signal=KILL:when=1".
    """
    syscall, when = inject.partition(":")[0], int(inject.rpartition("=")[2])
    trace = f"/run/trace-{os.urandom(4).hex()}"
    argv = ["strace", "-f", "-o", trace, "-e", f"trace={syscall}", "-e", f"inject={inject}"]
    variables = {**environment(verb, plugin_dir), "CNISANDBOX_COLD": "1"}
    argv.append(f"{plugin_dir}/{NETCONF['type']}")
    ended = world.run(argv, stdin=json.dumps(NETCONF).encode(), env=variables, expect=None, timeout=20)
    written = world.read(trace)
    world.outside_path(trace).unlink()
    # As above; each line begins with the process that it is of.
    made = Counter(re.findall(rf"^(\d+) +{syscall}\(", written.decode(errors="replace"), re.MULTILINE))
    return Outcome(max(made.values(), default=0) >= when, ended.returncode, ended.stdout, ended.stderr)


def faults(role: str, syscall: str, action: str, stride: int = 1) -> Iterator[Fault]:
    """Every Nth call of a kind, without end: who iterates stops when a fault was not hit."""
    return (Fault(role, syscall, action, when) for when in itertools.count(1, stride))


def _parked(child: "subprocess.Popen[bytes]") -> dict[str, int]:
    """The processes of a call by role, when all of them are at rest; before that, nothing."""
    engine = _engine_of(child)
    if engine is None:
        return {}
    try:
        titles = {pid: title_of(pid) for pid in (engine, *(worker.pid for worker in children(engine)))}
    except (FileNotFoundError, ProcessLookupError):
        return {}
    if not all(map(is_reading, titles)) or not titles[engine].startswith("cnisandbox: engine"):
        return {}
    return {title.removeprefix("cnisandbox: ").partition(" [")[0]: pid for pid, title in titles.items()}


def _engine_of(child: "subprocess.Popen[bytes]") -> int | None:
    """Who serves a call: what was started; in the warm mode a slot, when it has taken the same standard input."""
    if not warm.is_wanted():
        return child.pid
    pipe = os.stat(f"/proc/{child.pid}/fd/0")
    for entry in os.listdir("/proc"):
        with suppress(OSError):  # it has ended, or is the kernel's
            if entry.isdigit() and os.path.samestat(os.stat(f"/proc/{entry}/fd/0"), pipe):
                pid = int(entry)
                if pid not in (child.pid, os.getpid()):
                    return pid
    return child.pid  # it was served cold


def state(world: World) -> str:
    """Everything that a call may leave behind: of the host, of the pods, on disk; as text that can be compared."""
    text = world.run(["sh", "-c", _STATE]).stdout.decode()
    return text + "processes\n" + "\n".join(str(pid) for pid in world.pids() if not _is_zygotes(pid))


def _is_zygotes(pid: int) -> bool:
    """Whether a process is of the zygote, or waits for a call: those are others after each call."""
    try:
        title = title_of(pid)
        is_slots = title_of(_parent(pid)).startswith("cnisandbox: slot [")
    except (FileNotFoundError, ProcessLookupError):
        return False
    is_waiting = title.endswith("[waiting]")
    return is_slots or is_waiting or title.startswith(("cnisandbox: zygote", "cnisandbox: slot ["))


def _parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def require_state(world: World, wanted: str, context: object) -> None:
    """Insist on a state; what ends by itself (a link that is being deleted, a worker that is ending) gets its time."""
    seen: list[str] = []

    def is_wanted() -> bool:
        seen[:] = [state(world)]
        return seen[0] == wanted

    try:
        wait_until(is_wanted, timeout=5)
    except AssertionError:
        missing = set(wanted.splitlines()) - set(seen[0].splitlines())
        left = set(seen[0].splitlines()) - set(wanted.splitlines())
        raise AssertionError(f"{context}: left behind {sorted(left)}, gone {sorted(missing)}") from None


def require_one_error_object(outcome: Outcome, context: object) -> dict[str, Any]:
    """Insist on status 1, one JSON error object on standard output, and nothing like a traceback."""
    assert outcome.status == 1, (str(context), outcome)
    document: dict[str, Any] = json.loads(outcome.stdout)
    assert isinstance(document["code"], int), (str(context), document)
    assert isinstance(document["msg"], str), (str(context), document)
    assert document["cniVersion"] == "1.1.0", (str(context), document)
    assert b"Traceback" not in outcome.stderr, (str(context), outcome.stderr)
    return document


def kill_group(child: "subprocess.Popen[bytes]") -> None:
    """Kill the entry of a call, as the kernel does when memory runs out."""
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)

"""Where the time of our cold ADD goes: imports by module, and the phases of a call between its system calls.

The phases are read off strace's clock, with only those calls traced that mark them (--seccomp-bpf), so that the rest
runs at its own speed; still everything takes longer than without a tracer, and forks most of all.
"""

import os
import re
import subprocess
import sys
from typing import NamedTuple

from measuring import median
from subjects import netns

from cnisandbox.cli import launcher

RUNS = 9
MODULES_SHOWN = 30
_TRACED = "execve,clone,clone3,unshare,seccomp,setresuid,sendto,sendmsg,write,exit_group"
_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| *(\S+)")
_CALL = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
_SET_FILTER = re.compile(r"seccomp\(SECCOMP_SET_MODE_FILTER, 0, \{len=")
_FORK = re.compile(r"clone\(child_stack=NULL.*|<\.\.\. clone resumed>, child_tidptr")


class Event(NamedTuple):
    """A traced call: who, when (ms since the exec), and what strace prints."""

    pid: int
    at_ms: float
    text: str


def print_profile(bin_dir: str) -> None:
    """Print both tables.

    Args:
        bin_dir: Where our launchers are.
    """
    _print_imports()
    with netns(["pod"]):
        _print_phases(bin_dir)


def _print_imports() -> None:
    program = launcher.script("bridge").rpartition("main()")[0]
    runs = [_import_times(program) for _ in range(RUNS)]
    best = {module: min(times.get(module, 1 << 30) for times in runs) for module in runs[0]}
    groups = {"standard library": 0, "cnisandbox": 0, "extensions": 0}
    for module, microseconds in best.items():
        groups[_group(module)] += microseconds
    words = ", ".join(f"{group} {microseconds / 1000:.1f}" for group, microseconds in groups.items())
    print(f"imports of the bridge plugin, ms, least of {RUNS} runs with -X importtime: {words}")
    for module, microseconds in sorted(best.items(), key=lambda item: -item[1])[:MODULES_SHOWN]:
        print(f"  {microseconds / 1000:6.2f}  {module}")


def _import_times(program: str) -> dict[str, int]:
    argv = [sys.executable, "-IS", "-X", "importtime", "-c", program]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30)
    return {match[2]: int(match[1]) for match in _IMPORT.finditer(done.stderr)}


def _group(module: str) -> str:
    if module in ("_cffi_backend", "prctl", "_prctl", "cnisandbox._native", "cnisandbox._nftables"):
        return "extensions"
    return "cnisandbox" if module.startswith("cnisandbox") else "standard library"


def _print_phases(bin_dir: str) -> None:
    netconf = (
        b'{"cniVersion": "1.0.0", "name": "profile", "type": "bridge", "bridge": "profile0", "isDefaultGateway": true,'
        b' "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.60.0.0/16"}]]}}'
    )
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_CONTAINERID": "pod",
        "CNI_NETNS": "/run/netns/pod",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": bin_dir,
        "CNISANDBOX_COLD": "1",
    }

    def call(verb: str, *before: str) -> None:
        argv = [*before, os.path.join(bin_dir, "bridge")]
        variables = {**environment, "CNI_COMMAND": verb}
        subprocess.run(argv, check=True, input=netconf, capture_output=True, env=variables, timeout=30)

    trace = "/run/bench/trace"
    durations: dict[str, list[float]] = {}
    for _ in range(RUNS):
        call("ADD", "strace", "-f", "--seccomp-bpf", "-ttt", "-o", trace, "-e", f"trace={_TRACED}")
        call("DEL")
        with open(trace, encoding="utf-8", errors="replace") as file:
            for name, milliseconds in _phases(_events(file.read())):
                durations.setdefault(name, []).append(milliseconds)
    print(f"\nphases of a cold bridge + host-local ADD, medians of {RUNS}, under strace")
    for name, values in durations.items():
        print(f"  {median(values):6.2f}  {name}")


def _events(text: str) -> list[Event]:
    matches = [match for match in map(_CALL.match, text.splitlines()) if match]
    began = float(matches[0][2])
    return [Event(int(match[1]), (float(match[2]) - began) * 1000, match[3]) for match in matches]


def _phases(events: list[Event]) -> list[tuple[str, float]]:
    """Cut a call into phases at the calls that mark their ends."""
    entry = events[0].pid
    own = [event for event in events if event.pid == entry]
    first = next(event.at_ms for event in own if event.text.startswith(("clone", "unshare")))
    forks = [event.at_ms for event in own if _FORK.match(event.text)]
    confined = next(event.at_ms for event in own if _SET_FILTER.match(event.text))
    writes = [event.at_ms for event in own if event.text.startswith("write(") and event.at_ms > confined]
    ended = next(event.at_ms for event in own if event.text.startswith("+++"))
    sends = sum(event.text.startswith(("sendto(", "sendmsg(")) for event in events)
    phases = [
        ("interpreter and imports", first),
        ("open state directories, fork workers", forks[-1] - first),
        ("the engine confines itself", confined - forks[-1]),
        ("it waits for the last attestation", writes[0] - confined),
        ("the work: requests to workers, and theirs to the kernel", writes[-1] - writes[0]),
        ("its end", ended - writes[-1]),
    ]
    workers = [
        ("in parallel: a worker from its first call to its attestation", length) for length in _drops(events, entry)
    ]
    counts = [
        ("number of writes of the engine: requests, files, the result", len(writes)),
        ("number of sends to the kernel", sends),
    ]
    return phases + workers + counts


def _drops(events: list[Event], entry: int) -> list[float]:
    """How long each worker took to confine itself."""
    lengths = []
    for pid in dict.fromkeys(event.pid for event in events if event.pid != entry):
        own = [event for event in events if event.pid == pid]
        attested = [event.at_ms for event in own if event.text.startswith("write(1")]
        if attested:
            lengths.append(attested[0] - own[0].at_ms)
    return lengths

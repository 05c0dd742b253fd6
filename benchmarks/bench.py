"""Compare our plugins with the reference plugins: `make bench`, or `python benchmarks/bench.py`.

Everybody is measured in one run, in turn, in network, mount and pid namespaces of their own. docs/performance.md says
how, and what came of it. The table of targets goes to standard output, everything to benchmarks/results/: bench.json,
bench.txt (all figures), bench.svg (a plot).

Status 0: measured, and a cold bridge + host-local ADD is below its regression limit. A target that is missed makes the
status 1 with --strict only.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import document as documents
import report
from accounting import Cgroup, NoCgroup
from answering import Answerer
from measuring import Meter
from profiling import print_profile
from resident import Zygote
from scenarios import PROFILED, Sizes, Stage, crowd_pods, scenarios
from subjects import BIN_DIR, NOTIFIED, WRAPPED_DIR, Subjects, compile_notified, netns
from targets import COLD_ADD, REGRESSION, verdicts
from timeline import print_timelines
from tracer import NoTracer, tracer
from turns import Rounds

_INSIDE = "CNISANDBOX_BENCH_INSIDE"
_PRIVATE_DIRECTORIES = ("/run", "/var/lib/cni", "/etc/cni", "/etc/cnisandbox")
_WATCHED = 3
_QUICK = Sizes(Rounds(1, 6, 1), pods=32, reservations=(10, 1_000))


def main() -> int:
    """Measure, profile, or write down what was measured."""
    arguments = _arguments()
    if arguments.document:
        report.write_document()
        return 0
    if _INSIDE not in os.environ:
        return _enter_namespaces(arguments.reference)
    group = Cgroup.make(os.environ[_INSIDE])
    group.enter()
    for directory in _PRIVATE_DIRECTORIES:
        _run("mount", "-t", "tmpfs", "-o", "mode=755,size=75%,nr_inodes=0", "bench", directory)
    _run("ip", "link", "set", "lo", "up")
    for made in ("/run/netns", "/run/bench/calls"):
        os.makedirs(made)
    _cnisandbox("install", "--bin-dir", BIN_DIR)
    compile_notified(NOTIFIED)
    if arguments.profile:
        return _profile(arguments, group)
    return _measure(arguments, group)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DIR", default="/usr/lib/cni", help="reference plugins (/usr/lib/cni)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="measured rounds (30)")
    parser.add_argument("--warm-up", type=int, default=3, metavar="N", help="rounds before them (3)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only scenarios whose title has TEXT")
    parser.add_argument("--quick", action="store_true", help="few rounds and pods: to see that it works")
    parser.add_argument("--strict", action="store_true", help="status 1 if a target is missed, or was not measured")
    parser.add_argument("--profile", action="store_true", help="say where the time of our ADDs goes, and end")
    parser.add_argument("--document", action="store_true", help="put the last run into docs/performance.md, and end")
    return parser.parse_args()


def _enter_namespaces(reference: str) -> int:
    """Run this program again, as the first process of namespaces that go with it, and in a cgroup."""
    if os.geteuid() != 0:
        sys.exit("bench: run it as root: it makes network namespaces")
    if not os.access(os.path.join(reference, "bridge"), os.X_OK):
        sys.exit(
            f"bench: no reference plugins in {reference}: install containernetworking-plugins (./bootstrap bench does),"
            " or name their directory with --reference"
        )
    for directory in _PRIVATE_DIRECTORIES:
        os.makedirs(directory, exist_ok=True)
    entered = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    child = [*entered, "--propagation", "private", sys.executable, *sys.argv]
    name = f"cnisandbox-bench-{os.getpid()}"
    try:
        group = Cgroup.make(name)
    except NoCgroup as error:
        sys.exit(f"bench: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing of it is left
    try:
        return subprocess.run(child, check=False, env={**os.environ, _INSIDE: name}).returncode
    finally:
        group.remove()


def _profile(arguments: argparse.Namespace, group: Cgroup) -> int:
    print_profile(BIN_DIR)
    zygote = _serve(arguments.reference, group)
    try:
        with _stage(arguments.reference, _QUICK, group, zygote) as stage, tracer() as traced:
            prepared = {scenario.title: scenario.prepare for scenario in scenarios(stage, _QUICK)}
            for title, subjects in PROFILED.items():
                print_timelines(title, prepared[title](), subjects, traced, zygote.pids)
    except NoTracer as error:
        sys.exit(f"bench: {error}")
    return 0


def _measure(arguments: argparse.Namespace, group: Cgroup) -> int:
    sizes = _QUICK if arguments.quick else Sizes(Rounds(arguments.warm_up, arguments.rounds, _WATCHED))
    document = documents.heading(["benchmarks/bench.py", *sys.argv[1:]], arguments.reference)
    started = time.monotonic()
    zygote = _serve(arguments.reference, group)
    idle = zygote.memory()
    with _stage(arguments.reference, sizes, group, zygote) as stage:
        document["scenarios"] = {}
        for scenario in scenarios(stage, sizes):
            if arguments.only in scenario.title:
                print(f"{scenario.title} ...", file=sys.stderr)
                results = scenario.turns(scenario.prepare(), scenario.verbs, scenario.rounds, group)
                document["scenarios"][scenario.title] = documents.scenario(results)
        # Before the first call or after the last one: it may have grown.
        idle = max(idle, zygote.memory())
    document["zygote"] = idle._asdict()
    document["seconds"] = round(time.monotonic() - started)
    report.write_results(document)
    return _judge(document, is_strict=arguments.strict)


def _serve(reference: str, group: Cgroup) -> Zygote:
    """Start the zygote, for our plugins and for those of the reference behind the runner."""
    _run("cp", "-a", reference, WRAPPED_DIR)
    _cnisandbox("wrap", "--bin-dir", WRAPPED_DIR)
    return Zygote(group.inside("zygote"), "/run/bench/zygote.log", BIN_DIR)


@contextmanager
def _stage(reference: str, sizes: Sizes, group: Cgroup, zygote: Zygote) -> Iterator[Stage]:
    subjects = Subjects.make(reference)
    with netns([*(subject.pod for subject in subjects), "floor", "library", *crowd_pods(sizes)]):
        floor = Answerer("floor.py", *(f"/run/netns/{pod}" for pod in ("floor", *crowd_pods(sizes))))
        starting = Answerer("starting.py", "/run/netns/library")
        meter = Meter("/run/bench/calls", group, zygote, {zygote.pid, floor.pid, starting.pid})
        yield Stage(meter, subjects, floor, starting)


def _judge(document: dict[str, Any], *, is_strict: bool) -> int:
    found = verdicts(document)
    print(report.target_table(found), end="")
    is_missed = any(verdict.text != "met" for verdict in found)
    cold = next(verdict.value for verdict in found if verdict.target.title == COLD_ADD)
    is_worse = cold is not None and cold >= REGRESSION
    if is_worse:
        print(f"\n{COLD_ADD}: {cold:.2f} times the reference, NOT below {REGRESSION:g}")
    return int(is_worse or (is_strict and is_missed))


def _cnisandbox(*arguments: str) -> None:
    _run(sys.executable, "-m", "cnisandbox.cli.main", *arguments, stdout=subprocess.DEVNULL)


def _run(*argv: str, stdout: int | None = None) -> None:
    subprocess.run(argv, check=True, timeout=60, stdout=stdout)


if __name__ == "__main__":
    sys.exit(main())

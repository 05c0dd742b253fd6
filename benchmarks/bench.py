"""Compare the time of cold plugin calls with the reference plugins: `make bench`, or `python benchmarks/bench.py`.

Both are measured in one run, in turn, in network, mount and pid namespaces of their own (see measuring.py and
scenarios.py). Every figure is a median; a ratio is that of the medians, and its spread is the middle half of the ratios
of neighbouring calls. The table goes to standard output, everything to benchmarks/results/bench.json.

Status 0: measured, and a cold bridge + host-local ADD takes less than LIMIT times what the reference takes.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measuring import Launcher, Sample, median, percentile
from profiling import print_profile
from scenarios import COLD_ADD, RUNNER_SCENARIOS, SCENARIOS, Bench, Scenario, Subject, interleaved, pods

# LIMIT: times the reference; issue 2 of the project sets it, a resident zygote is to bring it far lower.
LIMIT = 6.0
RESULTS = Path(__file__).parent / "results"
BIN_DIR = "/run/bench/bin"
# The reference plugins again, put behind the runner by `cnisandbox wrap`.
WRAPPED_DIR = "/run/bench/wrapped"
_INSIDE = "CNISANDBOX_BENCH_INSIDE"
_PRIVATE_DIRECTORIES = ("/run", "/var/lib/cni", "/etc/cni", "/etc/cnisandbox")

Samples = dict[str, tuple[list[Sample], list[Sample]]]


def main() -> int:
    """Measure, or profile, in namespaces of our own."""
    arguments = _arguments()
    if _INSIDE not in os.environ:
        return _enter_namespaces()
    for directory in _PRIVATE_DIRECTORIES:
        _run(["mount", "-t", "tmpfs", "-o", "mode=755,size=75%,nr_inodes=0", "bench", directory])
    _run(["ip", "link", "set", "lo", "up"])
    os.makedirs("/run/netns")
    _install()
    if arguments.profile:
        print_profile(BIN_DIR, _run)
        return 0
    return _measure(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", metavar="DIR", default="/usr/lib/cni", help="reference plugins (/usr/lib/cni)")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="measured rounds (60)")
    parser.add_argument("--warm-up", type=int, default=5, metavar="N", help="rounds before them (5)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only scenarios with a step whose title has TEXT")
    parser.add_argument("--profile", action="store_true", help="say where the time of our cold ADD goes, and end")
    return parser.parse_args()


def _enter_namespaces() -> int:
    """Run this program again, as the first process of namespaces that go with it."""
    if os.geteuid() != 0:
        sys.exit("bench: run it as root: it makes network namespaces")
    for directory in _PRIVATE_DIRECTORIES:
        os.makedirs(directory, exist_ok=True)
    entered = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    child = [*entered, "--propagation", "private", sys.executable, *sys.argv]
    return subprocess.run(child, check=False, env={**os.environ, _INSIDE: "1"}).returncode


def _run(argv: list[str], stdout: int | None = None) -> None:
    subprocess.run(argv, check=True, timeout=60, stdout=stdout)


def _wrap(reference: str) -> None:
    shutil.copytree(reference, WRAPPED_DIR)
    _run([sys.executable, "-m", "cnisandbox.cli.main", "wrap", "--bin-dir", WRAPPED_DIR], stdout=subprocess.DEVNULL)


def _install() -> None:
    _run([sys.executable, "-m", "cnisandbox.cli.main", "install", "--bin-dir", BIN_DIR], stdout=subprocess.DEVNULL)


def _interpreter() -> str:
    """The interpreter that our launchers start."""
    with open(os.path.join(BIN_DIR, "bridge"), encoding="utf-8") as file:
        return file.readline().removeprefix("#!").split()[0]


def _measure(arguments: argparse.Namespace) -> int:
    runner = Launcher("/run/bench")
    _wrap(arguments.reference)
    subjects = (
        Subject("reference", arguments.reference, 20),
        Subject("cnisandbox", BIN_DIR, 40),
        Subject("confined", WRAPPED_DIR, 60),
    )
    reference, ours, confined = (Bench(subject, runner) for subject in subjects)
    plans: list[tuple[Scenario, tuple[Bench, Bench]]] = [(scenario, (reference, ours)) for scenario in SCENARIOS]
    plans += [(scenario, (reference, confined)) for scenario in RUNNER_SCENARIOS]
    started = time.monotonic()
    samples: Samples = {}
    with pods(subjects, _run):
        for scenario, benches in plans:
            if any(arguments.only in step.title for step in scenario.steps):
                rounds = max(1, round(arguments.rounds * scenario.share_of_rounds))
                warm_up = max(1, round(arguments.warm_up * scenario.share_of_rounds))
                samples |= interleaved(scenario, benches, rounds, warm_up)
    interpreter = _interpreter()
    floor = [runner.run([interpreter, "-I", "-S", "-c", "pass"], {}).sample for _ in range(arguments.rounds)]
    document = _document(arguments, samples, floor, time.monotonic() - started)
    table = _table(document)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "bench.txt").write_text(table)
    print(table, end="")
    if COLD_ADD not in samples:
        return 0
    ratio = document["steps"][COLD_ADD]["ratio"]
    verdict = "below" if ratio < LIMIT else "NOT below"
    print(f"\n{COLD_ADD}: {ratio:.2f} times the reference, {verdict} {LIMIT:g}")
    return 0 if ratio < LIMIT else 1


def _document(arguments: argparse.Namespace, samples: Samples, floor: list[Sample], seconds: float) -> dict:
    return {
        "command": " ".join(["benchmarks/bench.py", *sys.argv[1:]]),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "machine": {
            "kernel": platform.release(),
            "processors": os.cpu_count(),
            "model": _model(),
            "python": f"{platform.python_version()} ({os.path.realpath(_interpreter())})",
            "load_before": round(os.getloadavg()[2], 2),
        },
        "reference": arguments.reference,
        "reference_version": _version(arguments.reference),
        "floor": _figures(floor),
        "steps": {title: _step(reference, ours) for title, (reference, ours) in samples.items()},
    }


def _step(reference: list[Sample], ours: list[Sample]) -> dict:
    ratios = [mine.wall_ms / theirs.wall_ms for theirs, mine in zip(reference, ours, strict=True)]
    medians = [median([sample.wall_ms for sample in side]) for side in (reference, ours)]
    return {
        "ratio": round(medians[1] / medians[0], 2),
        "ratio_of_pairs": [round(percentile(ratios, percent), 2) for percent in (25, 75)],
        "reference": _figures(reference),
        "cnisandbox": _figures(ours),
    }


def _figures(samples: list[Sample]) -> dict:
    walls = [sample.wall_ms for sample in samples]
    return {
        "median_ms": round(median(walls), 2),
        "p95_ms": round(percentile(walls, 95), 2),
        "settled_ms": round(median([sample.settled_ms for sample in samples]), 2),
        "cpu_ms": round(median([sample.cpu_ms for sample in samples]), 2),
        "samples_ms": [round(wall, 2) for wall in walls],
    }


def _table(document: dict) -> str:
    machine = document["machine"]
    width = max(len(title) for title in document["steps"])
    heads = ("reference", "p95", "cnisandbox", "p95", "ratio", "middle half")
    lines = [
        f"{document['command']} at {document['measured_at']}, {document['seconds']:.0f} s",
        f"{machine['processors']} processors ({machine['model']}), Linux {machine['kernel']}, "
        f"Python {machine['python']}; reference {document['reference_version']} in {document['reference']}",
        "",
        f"{'ms, median of cold calls'.ljust(width)}  " + "  ".join(head.rjust(11) for head in heads),
    ]
    for title, step in document["steps"].items():
        theirs, ours = step["reference"], step["cnisandbox"]
        low, high = step["ratio_of_pairs"]
        cells = [f"{side[key]:.1f}" for side in (theirs, ours) for key in ("median_ms", "p95_ms")]
        cells += [f"{step['ratio']:.2f}", f"{low:.2f}-{high:.2f}"]
        lines.append(f"{title.ljust(width)}  " + "  ".join(cell.rjust(11) for cell in cells))
    floor = document["floor"]
    lines.append("")
    lines.append(f"floor, python -I -S -c pass: {floor['median_ms']:.1f} (p95 {floor['p95_ms']:.1f})")
    return "\n".join(lines) + "\n"


def _version(directory: str) -> str:
    """What the reference calls itself without CNI_COMMAND, or the version of the package where that says nothing."""
    done = subprocess.run([os.path.join(directory, "bridge")], check=False, capture_output=True, text=True, timeout=10)
    said = (done.stderr or done.stdout).splitlines()[0].removeprefix("CNI bridge plugin ")
    package = shutil.which("dpkg-query") and subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${Version}", "containernetworking-plugins"],
        check=False,
        capture_output=True,
        text=True,
        timeout=10,
    )
    return package.stdout if "unknown" in said and package and package.stdout else said


def _model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())

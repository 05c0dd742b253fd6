"""The document of a run: figures instead of samples, so that it stays small."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import machine
from measuring import Sample, median, percentile
from turns import Measured, Results


def scenario(results: Results) -> dict[str, Any]:
    """Make figures of what was measured in a scenario.

    Returns:
        By verb and subject; ratios are those to the first subject, `growth` is that to the subject's own first verb.
    """
    first_verb = next(iter(results))
    return {
        verb: {
            name: {
                **_figures(measured),
                **_ratio(next(iter(subjects.values())).samples, measured.samples),
                "growth": _ratio(results[first_verb][name].samples, measured.samples)["ratio"],
            }
            for name, measured in subjects.items()
        }
        for verb, subjects in results.items()
    }


def _figures(measured: Measured) -> dict[str, Any]:
    walls = [sample.wall_ms for sample in measured.samples]
    figures = {"rounds": len(walls), "median_ms": round(median(walls), 2), "p95_ms": round(percentile(walls, 95), 2)}
    figures["cpu_ms"] = round(median([sample.cpu_ms for sample in measured.samples]), 2)
    if measured.peaks_mib:
        figures["peak_mib"] = round(median(measured.peaks_mib), 1)
    return figures


def _ratio(theirs: Sequence[Sample], ours: Sequence[Sample]) -> dict[str, Any]:
    pairs = [mine.wall_ms / other.wall_ms for other, mine in zip(theirs, ours, strict=True)]
    medians = [median([sample.wall_ms for sample in side]) for side in (theirs, ours)]
    spread = [round(percentile(pairs, percent), 3) for percent in (25, 75)]
    return {"ratio": round(medians[1] / medians[0], 3), "middle_half": spread}


def heading(command: Sequence[str], reference: str) -> dict[str, Any]:
    """Say what is measured where, before it is."""
    return {
        "command": " ".join(command),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(),
        "reference": reference,
        "reference_version": _version(reference),
    }


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

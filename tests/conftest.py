"""Fixtures and rules for every test.

Rule: with CNISANDBOX_MUST_RUN=1 a test may be skipped only because the kernel lacks something that the test names
(`requires_link_kind`, `requires_feature`); any other skip is a failure.

Rule: with CNISANDBOX_WARM=1 most worlds must have had a call that a zygote has served (tests/warm.py).
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests import warm
from tests.world import World, kernel_has, new_world

KERNEL_GAP = "kernel lacks "


@pytest.fixture
def world() -> Iterator[World]:
    """Give a test network and mount namespaces of its own (tests/world.py)."""
    if os.geteuid() != 0:
        pytest.skip("making namespaces needs root")
    with new_world() as made:
        yield made


@pytest.fixture(scope="session")
def plugin_dir() -> Iterator[str]:
    """Install the launchers of every plugin, as a user does, into a directory that is root's alone all the way up.

    It is not below a directory that `World` covers, so the same path works in every world.
    """
    if os.geteuid() != 0:
        pytest.skip("installing plugins needs root")
    directory = tempfile.mkdtemp(prefix="cnisandbox-test-", dir="/usr/local/lib")
    try:
        os.chmod(directory, 0o755)
        command = [sys.executable, "-m", "cnisandbox.cli.main", "install", "--bin-dir", directory]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        yield directory
    finally:
        shutil.rmtree(directory)


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it puts into the background ignore SIGINT, nohup SIGHUP; and all that tests start would do so.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "requires_kernel(category, name): skipped when the kernel lacks it; use tests.world.requires_*"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires_kernel"):
        category, name = marker.args
        if not kernel_has(category, name):
            pytest.skip(f"{KERNEL_GAP}{name}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if warm.is_wanted() and warm.Counts.served < warm.Counts.worlds * 0.6:
        print(
            f"\n{warm.VARIABLE}=1: {warm.Counts.served} of {warm.Counts.worlds} worlds had a call that was served warm"
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: Any) -> None:
    """Turn a skip into a failure when everything must run, except xfail and named kernel gaps."""
    if os.environ.get("CNISANDBOX_MUST_RUN") != "1" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(KERNEL_GAP):
        report.outcome = "failed"
        report.longrepr = f"must run (CNISANDBOX_MUST_RUN=1), but was skipped: {reason}"

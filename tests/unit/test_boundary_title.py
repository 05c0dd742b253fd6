"""Titles: shown where there is room, and never looked for where the environment was."""

import signal
import subprocess
import sys

import pytest

SHOW = "print(open('/proc/self/cmdline').read().rstrip('\\0'))"


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import os, prctl\nfrom cnisandbox.boundary.title import set_title\n{program}"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=30)


def test_title_is_shown() -> None:
    assert run(f"set_title('a title'); {SHOW}", FIRST="1").stdout == "a title\n"


def test_later_titles_are_shown_whatever_became_of_the_environment() -> None:
    assert run(f"set_title('one'); os.environ.clear(); set_title('two'); {SHOW}", FIRST="1").stdout == "two\n"


@pytest.mark.parametrize("change", ["os.environ.clear()", "os.environ['FIRST'] = '2'", "del os.environ['FIRST']"])
def test_no_title_is_shown_when_the_environment_has_changed(change: str) -> None:
    done = run(f"{change}; set_title('a title'); {SHOW}", FIRST="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(sys.executable)


def test_no_title_is_shown_without_an_environment() -> None:
    assert run("set_title('a title'); print('alive')").stdout == "alive\n"


def test_without_the_look_it_would_crash() -> None:
    assert run("os.environ.clear(); prctl.set_proctitle('a title')", FIRST="1").returncode == -signal.SIGSEGV

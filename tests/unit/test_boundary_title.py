"""Titles: shown where the command line was, as far as there is room."""

import subprocess
import sys

import pytest

IMPORT = "from cnisandbox.boundary.title import set_title"
SHOW = "print(open('/proc/self/cmdline').read().rstrip('\\0'))"


def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import os, sys\n{program}"]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=30)


def test_title_is_shown() -> None:
    assert run(f"{IMPORT}; set_title('a title'); {SHOW}", FIRST="1").stdout == "a title\n"


def test_later_titles_are_shown_whatever_became_of_the_environment() -> None:
    assert run(f"{IMPORT}; set_title('one'); os.environ.clear(); set_title('two'); {SHOW}", FIRST="1").stdout == "two\n"


@pytest.mark.parametrize("change", ["os.environ.clear()", "os.environ['FIRST'] = '2'", "del os.environ['FIRST']"])
def test_title_is_shown_whatever_becomes_of_the_environment(change: str) -> None:
    assert run(f"{IMPORT}; {change}; set_title('a title'); {SHOW}", FIRST="1").stdout == "a title\n"


def test_title_is_shown_without_an_environment() -> None:
    assert run(f"{IMPORT}; set_title('a title'); {SHOW}").stdout == "a title\n"


def test_title_is_cut_to_the_room_there_is_and_the_environment_stays_as_it_was() -> None:
    look = "print(open('/proc/self/environ').read())"
    shown, environment = run(f"{IMPORT}; set_title('x' * 5000); {SHOW}; {look}", FIRST="1").stdout.splitlines()
    assert set(shown) == {"x"}
    assert len(shown) < 5000
    assert environment == "FIRST=1\0"


def test_nothing_is_written_where_something_else_stands_than_the_command_line() -> None:
    done = run(f"sys.orig_argv[0] += 'x'; {IMPORT}; set_title('a title'); {SHOW}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(sys.executable)

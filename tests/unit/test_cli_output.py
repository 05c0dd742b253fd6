"""What is printed is easy to read, and cannot drive the terminal."""

import io
import sys

import pytest

from cnisandbox.cli import output
from cnisandbox.errors import DelegateFailed, InvalidConfig


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    rows = [("lab", "", "1.0.0"), ("longer", "", "0.4.0")]
    assert output.table(("name", "nothing", "version"), rows) == "NAME    VERSION\nlab     1.0.0\nlonger  0.4.0"


def test_colour_is_for_terminals_only(terminal: Terminal) -> None:
    assert output.paint("x", "red", terminal) == "\033[31mx\033[0m"
    assert output.paint("x", "red", io.StringIO()) == "x"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_can_be_refused(terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert output.paint("x", "red", terminal) == "x"


def test_colour_does_not_disturb_the_columns(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    body = output.table(("a", "b"), [("x", "1"), ("longer", "2")], ["red", "green"]).splitlines()[1:]
    assert body == ["\033[31mx     \033[0m  1", "\033[32mlonger\033[0m  2"]


@pytest.mark.parametrize("hostile", ["\033]0;title\007", "\r", "\x9b31m", "a\x7fb"])
def test_control_characters_are_escaped(hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(DelegateFailed(999, f"said {hostile}", f"more {hostile}"))
    shown = capsys.readouterr().err + output.table(("a",), [(hostile,)])
    assert shown.replace("\n", "").isprintable()


def test_code_is_shown_if_it_is_one_of_the_specification(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error(InvalidConfig("a"))
    output.print_error(DelegateFailed(999, "b"))
    assert capsys.readouterr().err == "cnisandbox: a (code 7)\ncnisandbox: b\n"


def test_progress_is_gone_when_it_is_done(terminal: Terminal) -> None:
    progress = output.Progress(terminal)
    progress.show("ADD bridge (1 of 2)")
    progress.clear()
    assert terminal.getvalue() == "\r\033[K\033[2mADD bridge (1 of 2)\033[0m\r\033[K"


def test_progress_is_silent_when_nobody_looks() -> None:
    stream = io.StringIO()
    progress = output.Progress(stream)
    progress.show("x")
    progress.clear()
    assert stream.getvalue() == ""


def test_json_can_hold_anything(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"ü": "\ud800"})
    assert capsys.readouterr().out == '{\n    "ü": "?"\n}\n'

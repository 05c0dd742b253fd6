"""The command line as a whole: subcommands, statuses, and never a traceback."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnisandbox.cli import main as cli
from cnisandbox.cli import net
from cnisandbox.errors import InvalidConfig

WITHOUT_MODULE = {"demo"} if importlib.util.find_spec("cnisandbox.cli.demo") is None else set()


@pytest.mark.parametrize("command", [command for command in cli.COMMANDS if command.name not in WITHOUT_MODULE])
def test_every_command_has_a_module_with_help(command: cli.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command.name, "--help"])
    assert ended.value.code == 0
    assert f"usage: cnisandbox {command.name}" in capsys.readouterr().out


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr().err
    assert all(command.name in shown for command in cli.COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [
        ["nope"],
        ["--nope"],
        ["net"],
        ["net", "nope"],
        ["net", "add"],
        ["net", "add", "lab"],
        ["net", "add", "lab", "blue", "red"],
        ["net", "del", "--timeout", "0", "lab", "blue"],
        ["net", "del", "--timeout", "nan", "lab", "blue"],
        ["net", "gc", "lab", "--all", "--keep", "c1/eth0"],
        ["net", "add", "--conf", "x", "lab", "blue"],
        ["install"],
        ["uninstall"],
        ["doctor", "x"],
        ["wrap"],
        ["unwrap"],
        ["log", "a", "b"],
        ["net", "add\nfoo"],
    ],
)
def test_wrong_usage_ends_with_status_2_and_says_where_the_help_is(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--help` shows what it takes" in captured.err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("cnisandbox ")


def run_raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail(_arguments: object) -> int:
        raise error

    monkeypatch.setattr(net, "run", fail)
    return cli.main(["net", "list"])


def test_expected_error_is_two_lines_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(monkeypatch, InvalidConfig("load 'x': it is broken", "mend it")) == 1
    assert capsys.readouterr().err == "cnisandbox: load 'x': it is broken (code 7)\n  mend it\n"


def test_unexpected_error_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CNISANDBOX_TRACEBACK", raising=False)
    assert run_raising(monkeypatch, ZeroDivisionError("division by zero")) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert shown.startswith("cnisandbox: ZeroDivisionError: division by zero\n  this is a defect")


def test_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNISANDBOX_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        run_raising(monkeypatch, ZeroDivisionError())


def test_missing_part_of_the_installation_says_how_to_complete_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(monkeypatch, ImportError("No module named 'prctl'", name="prctl")) == 1
    assert "make setup" in capsys.readouterr().err


def test_interruption_has_the_shells_status(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_raising(monkeypatch, KeyboardInterrupt()) == 130


def test_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    for number in range(2000):
        name = f"{number:04}.conflist"
        (tmp_path / name).write_text(f'{{"name": "network{number}", "plugins": [{{"type": "x"}}]}}')
    command = [sys.executable, "-m", "cnisandbox.cli.main", "net", "list", "--conf-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()


@pytest.mark.parametrize("arguments", [["profile", "list"], ["--help"], ["net", "--help"], ["exec", "--help"]])
def test_output_that_cannot_be_written_is_no_defect(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "cnisandbox.cli.main", *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.endswith("write standard output: no space left on device\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_defect(closed: str) -> None:
    script = f'exec "$0" -m cnisandbox.cli.main profile list {closed}'
    done = subprocess.run(["sh", "-c", script, sys.executable], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_net_does_not_import_the_other_commands() -> None:
    unwanted = {"cnisandbox.cli.doctor", "cnisandbox.cli.install", "pyroute2", "asyncio"}
    code = (
        "import sys; from cnisandbox.cli.main import main; main(['net', 'list', '--conf-dir', '/nonexistent']);"
        f"print(*sorted(set(sys.modules) & {unwanted}))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ""

"""What the environment and the working directory of a runtime can change in an interpreter that a launcher starts.

Each attack is made on a plain interpreter first, where it must work, or the test would show nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cnisandbox.cli import launcher

PYTHON = os.path.realpath(sys.executable)
TAKEN_OVER = "taken over\n"
PAYLOAD = f"import os\nos.write(1, {TAKEN_OVER.encode()!r})\nos._exit(0)\n"
USUAL = "as usual\n"
# What a launcher's script does, with a module that is easily mistaken for another in the place of the plugin.
SHOWN = "import json, sys; sys.stdout.write('as usual\\n')"
USER_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/usercustomize.py"

# Name: file of the attacker's, environment ({place} is his directory).
CODE = {
    "module in PYTHONPATH": ("json.py", {"PYTHONPATH": "{place}"}),
    "sitecustomize in PYTHONPATH": ("sitecustomize.py", {"PYTHONPATH": "{place}"}),
    "module in the working directory": ("json.py", {}),
    "usercustomize below PYTHONUSERBASE": (USER_SITE, {"PYTHONUSERBASE": "{place}"}),
    "usercustomize below HOME": (f".local/{USER_SITE}", {"HOME": "{place}"}),
    "warning category of a module in PYTHONPATH": (
        "evil.py",
        {"PYTHONPATH": "{place}", "PYTHONWARNINGS": "error::evil.Warning"},
    ),
}
FLAGS = {
    "PYTHONDEBUG": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONINSPECT": "1",
    "PYTHONINTMAXSTRDIGITS": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONUTF8": "0",
}


def run(command: list[str], environment: Mapping[str, str], cwd: Path) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        timeout=30,
        check=False,
    )
    return done.stdout


def launched(script: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write a launcher with everything of a plugin's script but the plugin; give the command that starts it."""
    text = launcher.script("bridge").replace("from cnisandbox.plugins.bridge import main\n\nmain()\n", script)
    assert text.endswith(script)
    monkeypatch.setattr(launcher, "script", lambda _plugin: text)
    path = directory / "bridge"
    path.write_bytes(launcher.render("bridge"))
    path.chmod(0o755)
    return [str(path)]


@pytest.mark.parametrize("attack", CODE)
def test_no_code_of_others_runs(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, variables = CODE[attack]
    place = tmp_path / "place"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text(PAYLOAD)
    environment = {key: value.format(place=place) for key, value in variables.items()}
    assert TAKEN_OVER in run([PYTHON, "-c", SHOWN], environment, place), "the attack does not work anywhere"
    assert run(launched(SHOWN, tmp_path, monkeypatch), environment, place) == USUAL


@pytest.mark.parametrize("variable", FLAGS)
def test_no_variable_changes_how_code_runs(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "import sys; print(sys.flags)"
    plain, ours = [PYTHON, "-c", shown], launched(shown, tmp_path, monkeypatch)
    attack = {"LC_ALL": "C", variable: FLAGS[variable]}
    usual = {"LC_ALL": "C"}
    assert run(plain, attack, tmp_path) != run(plain, usual, tmp_path), "the variable changes nothing anywhere"
    assert run(ours, attack, tmp_path) == run(ours, usual, tmp_path) != ""


def test_no_variable_says_where_the_standard_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "import sys; print(sys.path)"
    ours = launched(shown, tmp_path, monkeypatch)
    for attack in ({"PYTHONHOME": str(tmp_path)}, {"PYTHONPLATLIBDIR": "evil"}):
        assert run([PYTHON, "-c", shown], attack, tmp_path) != run([PYTHON, "-c", shown], {}, tmp_path)
        assert run(ours, attack, tmp_path) == run(ours, {}, tmp_path) != ""


def test_an_interpreter_that_has_gone_is_told_to_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "interpreter", lambda: str(tmp_path / "python"))
    error = json.loads(run(launched(SHOWN, tmp_path, monkeypatch), {}, tmp_path))
    assert (error["code"], error["msg"]) == (5, "start the interpreter: it has gone, or cannot be executed")


def test_a_directory_as_standard_input_is_told_to_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter says "<stdin> is a directory" on standard error, and ends."""
    command = launched(SHOWN, tmp_path, monkeypatch)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        plain, ours = (
            subprocess.run(words, stdin=fd, capture_output=True, text=True, timeout=30, check=False)
            for words in ([PYTHON, "-c", SHOWN], command)
        )
    finally:
        os.close(fd)
    assert (plain.returncode, plain.stdout) == (1, "")
    error = json.loads(ours.stdout)
    assert (ours.returncode, error["code"], error["msg"]) == (1, 5, "read netconf: standard input is a directory")

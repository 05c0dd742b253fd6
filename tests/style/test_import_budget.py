"""How much code each entry point loads: a module more is an argument to be had, a module less is taken off the list.

A call without a zygote starts an interpreter; loading code is half of its time.
"""

import marshal  # noqa: TID251 - only its size is of interest
import subprocess
import sys
from pathlib import Path

import pytest

from cnisandbox.cli.launcher import import_directories

# A module in each line, then the entry points that load it.
RECORDED = Path(__file__).parent / "import_budget.txt"
ENTRIES = {
    "bridge": "import cnisandbox.plugins.bridge, cnisandbox.engine",
    "host-local": "import cnisandbox.plugins.host_local, cnisandbox.engine",
    "loopback": "import cnisandbox.plugins.loopback, cnisandbox.engine",
    "shim": "import cnisandbox.cli.shim, cnisandbox.runner.entry",
    "help": "import cnisandbox.cli.main as main, sys; main.main(['--help'])",
    "doctor-help": "import cnisandbox.cli.main as main, sys; main.main(['doctor', '--help'])",
}
# LIMIT: thousands of bytes of byte code, a fiftieth more than it is; the command line loads no more than it needs.
KILOBYTES = {"bridge": 1055, "host-local": 705, "loopback": 740, "shim": 1420, "help": 2460, "doctor-help": 6485}
_PROGRAM = """
import atexit, sys
before = set(sys.modules)
sys.path += {directories!r}
def show():
    for name, module in list(sys.modules.items()):
        if name not in before and name != "__main__":
            spec = getattr(module, "__spec__", None)
            print(name, getattr(spec, "origin", None), sep="\\t", file=sys.stderr)
atexit.register(show)
{imports}
"""


def loaded(entry: str) -> dict[str, str]:
    """The modules that an entry point loads beyond what the interpreter starts with, and the file of each.

    Those with an underscore are how the interpreter's library is made, which is another matter in each version.
    """
    program = _PROGRAM.format(directories=import_directories(), imports=ENTRIES[entry])
    command = [sys.executable, "-IS", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    pairs = (line.split("\t") for line in done.stderr.splitlines())
    return {name: path for name, path in pairs if not name.startswith("_")}


def recorded(entry: str) -> set[str]:
    lines = (line.split() for line in RECORDED.read_text().splitlines())
    return {module for module, *entries in lines if entry in entries}


def byte_code(path: str) -> int:
    """Without the name of the file, which byte code has in it: the sum is the same wherever the tree lies."""
    return len(marshal.dumps(compile(Path(path).read_bytes(), "", "exec", dont_inherit=True, optimize=0)))


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_point_loads_what_is_recorded_and_not_more_code_than_that(entry: str) -> None:
    files, expected = loaded(entry), recorded(entry)
    assert len(expected) > 40
    assert sorted(files.keys() - expected) == [], f"{entry} loads these as well; if it must, add them to {RECORDED}"
    assert sum(byte_code(path) for path in files.values() if path.endswith(".py")) < KILOBYTES[entry] * 1000


def test_a_module_more_is_found() -> None:
    """The control."""
    assert "cnisandbox.plugins.loopback" in loaded("loopback").keys() - recorded("host-local")

"""Run a plugin without the privileges that the runtime has, as a runtime runs it.

The CNI_* variables, standard input and output and the exit status are the plugin's, unchanged. What goes wrong before
the plugin runs is a CNI error object on standard output.

  --level LEVEL            how much is taken away; by default what the plugin's profile says
  --profile NAME|FILE      the profile; by default the one with the plugin's name, or `generic`
  --attest FILE            append to this file what the kernel says about each process of the call
  --log FILE|journald      write each message that the plugin sends to the kernel, and whether it passed, to this log

CNISANDBOX_LEVEL, CNISANDBOX_ATTEST and CNISANDBOX_LOG are used where an option is not given. Several plugins of a
directory are confined for good with `cnisandbox wrap`.
"""

import os
import sys
from collections.abc import Sequence

from cnisandbox.cli import shim
from cnisandbox.errors import InvalidEnvironment, quoted, reason
from cnisandbox.hints import NoReturn

_USAGE = (
    "usage: cnisandbox exec [--level LEVEL] [--profile NAME|FILE] [--attest FILE] [--log FILE|journald]\n"
    "                       -- PLUGIN [ARG...]"
)
# Each option, and the variable that stands for it where it is not given.
_OPTIONS = {
    "--level": "CNISANDBOX_LEVEL",
    "--profile": "",
    "--attest": "CNISANDBOX_ATTEST",
    "--log": "CNISANDBOX_LOG",
}


class _UsageError(Exception):
    """It was called wrongly."""


class _HelpWantedError(Exception):
    """The help was asked for."""


def main(argv: Sequence[str]) -> NoReturn:
    """Run a plugin; does not come back.

    Args:
        argv: The arguments after `exec`.
    """
    try:
        request = parse(argv, os.environ)
    except _HelpWantedError:
        sys.exit(_help())
    except _UsageError as error:
        _refuse(str(error))
    shim.start(request)


def _help() -> int:
    try:
        print(f"{_USAGE}\n\n{__doc__}", end="", flush=True)
    except OSError as error:
        print(f"cnisandbox exec: write standard output: {reason(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered fails once more at the end
        return 1
    return 0


def parse(argv: Sequence[str], variables: "os._Environ[str] | dict[str, str]") -> shim.Request:
    """Read the command line, by hand: `argparse` takes as long to load as the interpreter to start.

    Args:
        argv: The arguments after `exec`.
        variables: The environment.

    Raises:
        _UsageError: It is not what the usage says.
        _HelpWantedError: It asks for help.
    """
    given = {option: variables.get(variable, "") if variable else "" for option, variable in _OPTIONS.items()}
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        option, has_value, value = rest.pop(0).partition("=")
        if option == "--" and not has_value:
            break
        if option in ("-h", "--help"):
            raise _HelpWantedError
        if option not in given:
            raise _UsageError(f"there is no option {quoted(option)}")
        if not has_value and rest:
            value = rest.pop(0)
        if not value:
            raise _UsageError(f"{option} needs a value")
        given[option] = value
    if not rest:
        raise _UsageError("no plugin is named")
    if "/" not in rest[0]:
        raise _UsageError(f"{quoted(rest[0])} is no path; such as /usr/lib/cni/{rest[0]}")
    return shim.Request(
        plugin=os.path.abspath(rest[0]),
        arguments=tuple(rest[1:]),
        level=given["--level"],
        profile=given["--profile"],
        attest_path=given["--attest"],
        log=given["--log"],
    )


def _refuse(what: str) -> NoReturn:
    """Say to whoever called that it was wrong: to a runtime with an error object, to a person with the usage."""
    is_for_runtime = bool(os.environ.get("CNI_COMMAND"))
    if not is_for_runtime or sys.stderr.isatty():
        print(f"cnisandbox exec: {what}\n{_USAGE}\n  `cnisandbox exec --help` shows what it takes", file=sys.stderr)
    if is_for_runtime:
        shim.fail(InvalidEnvironment(f"exec: {what}", "cnisandbox exec [OPTION...] -- PLUGIN [ARG...]"))
    sys.exit(2)

"""`cnisandbox`: finds the subcommand, imports nothing but its module, and turns every failure into a line and a status.

Status 0: done. 1: it failed, the reason is on standard error. 2: it was called wrongly. 130: interrupted.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn, Protocol, cast

from cnisandbox.cli import output
from cnisandbox.errors import CniError

_TRACEBACK_VARIABLE = "CNISANDBOX_TRACEBACK"


class Command(NamedTuple):
    """One subcommand: its name, the module that is it, and one line for --help."""

    name: str
    module: str
    summary: str


class CommandModule(Protocol):
    """What the module of a subcommand has; its docstring is the text of its --help."""

    __doc__: str | None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommand's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit status, raises CniError."""


COMMANDS = (
    Command("net", "cnisandbox.cli.net", "attach containers to networks and detach them, as a runtime does"),
    Command("install", "cnisandbox.cli.install", "put the plugins where a runtime looks"),
    Command("uninstall", "cnisandbox.cli.uninstall", "take them away, and put back what was there before"),
    Command("doctor", "cnisandbox.cli.doctor", "say what this machine can do, and what to do about the rest"),
    Command("demo", "cnisandbox.cli.demo", "give two pods their network and show who holds which privilege"),
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with the way to the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {output.printable(message)}\n  `{self.prog} --help` shows what it takes\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except CniError as error:
        output.print_error(error)
        return 1
    except KeyboardInterrupt as interruption:
        print("\ncnisandbox: interrupted", file=sys.stderr)
        for note in getattr(interruption, "__notes__", ()):
            print(f"  {output.printable(note)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # KERNEL: what is still buffered would raise again when the interpreter flushes it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ImportError as error:
        print(f"cnisandbox: load {error.name or 'module'}: {output.printable(str(error))}", file=sys.stderr)
        print("  the installation is not complete: run `make setup` again", file=sys.stderr)
        return 1
    except Exception as error:  # the last line of defence: nobody sees a traceback who did not ask for it
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        print(f"cnisandbox: {type(error).__name__}: {output.printable(str(error))}", file=sys.stderr)
        print(f"  this is a defect: please report it with what {_TRACEBACK_VARIABLE}=1 shows", file=sys.stderr)
        return 1


def _run(arguments: list[str]) -> int:
    command = next((command for command in COMMANDS if arguments and command.name == arguments[0]), None)
    if command is None:
        return _without_command(arguments)
    module = cast(CommandModule, importlib.import_module(command.module))
    parser = _Parser(
        prog=f"cnisandbox {command.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return module.run(parser.parse_args(arguments[1:]))


def _without_command(arguments: list[str]) -> int:
    width = max(len(command.name) for command in COMMANDS)
    listed = "\n".join(f"  {command.name.ljust(width)}  {command.summary}" for command in COMMANDS)
    parser = _Parser(
        prog="cnisandbox",
        usage="cnisandbox COMMAND [ARGUMENT...]",
        description="CNI plugins, and a sandbox for them, that never run with more than CAP_NET_ADMIN.",
        epilog=f"commands:\n{listed}\n\n`cnisandbox COMMAND --help` says more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cnisandbox {_version()}")
    _, unknown = parser.parse_known_args(arguments)
    if arguments:
        parser.error(f"there is no command {unknown[0]!r}; there are {', '.join(command.name for command in COMMANDS)}")
    parser.print_help(sys.stderr)
    return 2


def _version() -> str:
    metadata = importlib.import_module("importlib.metadata")  # 20 ms that only --version needs
    try:
        return str(metadata.version("cnisandbox"))
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())

"""Parses the command line of a subcommand and runs it; shows the list of them where none is named."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from cnisandbox.cli import output

if TYPE_CHECKING:
    from cnisandbox.cli.main import Command

_DESCRIPTION = "CNI plugins, and a sandbox for them, that never run with more than CAP_NET_ADMIN."


class CommandModule(Protocol):
    """What the module of a subcommand has; its docstring is the text of its --help."""

    __doc__: str | None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommand's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; returns the exit status, raises CniError."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with the way to the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {output.printable(message)}\n  `{self.prog} --help` shows what it takes\n")


def run(
    commands: "Sequence[Command]", arguments: list[str], prog: str = "cnisandbox", description: str = _DESCRIPTION
) -> int:
    """Run the subcommand that the first argument names.

    Args:
        commands: All there are.
        arguments: The command line, without the program's name.
        prog: The words in front of it.
        description: What the help says where no subcommand is named.

    Returns:
        The exit status.
    """
    command = next((command for command in commands if arguments and command.name == arguments[0]), None)
    if command is None:
        return _without_command(commands, arguments, prog, description)
    module = cast(CommandModule, importlib.import_module(command.module))
    parser = _Parser(
        prog=f"{prog} {command.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(parser)
    return module.run(parser.parse_args(arguments[1:]))


def _without_command(commands: "Sequence[Command]", arguments: list[str], prog: str, description: str) -> int:
    width = max(len(command.name) for command in commands)
    listed = "\n".join(f"  {command.name.ljust(width)}  {command.summary}" for command in commands)
    parser = _Parser(
        prog=prog,
        usage=f"{prog} COMMAND [ARGUMENT...]",
        description=description,
        epilog=f"commands:\n{listed}\n\n`{prog} COMMAND --help` says more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cnisandbox {_version()}")
    _, unknown = parser.parse_known_args(arguments)
    if arguments:
        parser.error(f"there is no command {unknown[0]!r}; there are {', '.join(command.name for command in commands)}")
    parser.print_help(sys.stderr)
    return 2


def _version() -> str:
    metadata = importlib.import_module("importlib.metadata")  # 20 ms that only --version needs
    try:
        return str(metadata.version("cnisandbox"))
    except metadata.PackageNotFoundError:
        return "(not installed)"

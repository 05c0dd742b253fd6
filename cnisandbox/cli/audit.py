"""Measure what a hostile plugin could do on this machine: as root, and confined."""

import argparse

from cnisandbox.cli import subcommand
from cnisandbox.cli.main import Command

COMMANDS = (
    Command("report", "cnisandbox.cli.audit_report", "measure everything, and write a report"),
    Command(
        "vectors", "cnisandbox.cli.audit_vectors", "make the attempts of an attacker in every column of the matrix"
    ),
    Command("plugin", "cnisandbox.cli.audit_plugin", "trace a plugin: capabilities, system calls, files, processes"),
    Command("compare", "cnisandbox.cli.audit_compare", "say what is different in two reports"),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Leave everything to the subcommand, its --help as well."""
    parser.add_help = False
    parser.prefix_chars = " "  # no argument begins with it
    parser.add_argument("words", nargs="*")


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    return subcommand.run(COMMANDS, arguments.words, "cnisandbox audit", __doc__ or "")

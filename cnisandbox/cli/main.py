"""`cnisandbox`: finds the subcommand, imports nothing but its module, and turns every failure into a line and a status.

Status 0: done. 1: it failed, the reason is on standard error. 2: it was called wrongly. 130: interrupted.

`exec` is apart: a runtime calls it, for which standard output, status and errors are a plugin's, and time counts.
"""

import os
import sys
from collections.abc import Sequence

from cnisandbox.errors import CniError, reason
from cnisandbox.hints import NamedTuple

_STDERR = 2
_TRACEBACK_VARIABLE = "CNISANDBOX_TRACEBACK"


class Command(NamedTuple):
    """One subcommand: its name, the module that is it, and one line for --help."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("exec", "cnisandbox.cli.execute", "run a plugin without the runtime's privileges"),
    Command("wrap", "cnisandbox.cli.wrap", "have the plugins of a directory run so, whoever calls them"),
    Command("unwrap", "cnisandbox.cli.unwrap", "undo it: put the plugins back as they were"),
    Command("log", "cnisandbox.cli.log", "show what confined plugins have asked of the kernel"),
    Command("net", "cnisandbox.cli.net", "attach containers to networks and detach them, as a runtime does"),
    Command("install", "cnisandbox.cli.install", "put the plugins where a runtime looks"),
    Command("serve", "cnisandbox.cli.serve", "keep a process that serves the plugins' calls faster"),
    Command("uninstall", "cnisandbox.cli.uninstall", "take them away, and put back what was there before"),
    Command("profile", "cnisandbox.cli.profile", "show and check what plugins may have and do"),
    Command("learn", "cnisandbox.cli.learn", "write the profile of a plugin from what it does"),
    Command("doctor", "cnisandbox.cli.doctor", "say what this machine can do, and what to do about the rest"),
    Command("audit", "cnisandbox.cli.audit", "measure what a hostile plugin could do, as root and confined"),
    Command("demo", "cnisandbox.cli.demo", "give two pods their network and show who holds which privilege"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["exec"]:
        from cnisandbox.cli import execute  # noqa: PLC0415 - before anything else is imported

        execute.main(arguments[1:])
    from cnisandbox.cli import output, subcommand  # noqa: PLC0415

    _open_closed_streams()
    try:
        try:
            return subcommand.run(COMMANDS, arguments)
        finally:
            sys.stdout.flush()  # also when argparse ends it, after --help
    except CniError as error:
        output.print_error(error)
        return 1
    except KeyboardInterrupt as interruption:
        print("\ncnisandbox: interrupted", file=sys.stderr)
        for note in getattr(interruption, "__notes__", ()):
            print(f"  {output.printable(note)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 1
    except ImportError as error:
        print(f"cnisandbox: load {error.name or 'module'}: {output.printable(str(error))}", file=sys.stderr)
        print("  the installation is not complete: run `make setup` again", file=sys.stderr)
        return 1
    except Exception as error:  # the last line of defence: nobody sees a traceback who did not ask for it
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        if isinstance(error, OSError) and _drop_output():
            print(f"cnisandbox: write standard output: {reason(error)}", file=sys.stderr)
            return 1
        print(f"cnisandbox: {type(error).__name__}: {output.printable(str(error))}", file=sys.stderr)
        print(f"  this is a defect: please report it with what {_TRACEBACK_VARIABLE}=1 shows", file=sys.stderr)
        return 1


def _open_closed_streams() -> None:
    """Have standard streams that are closed lead nowhere; else the next file that is opened would be one of them."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _drop_output() -> bool:
    """Give up what standard output has not taken.

    Returns:
        Whether it still takes nothing.
    """
    try:
        sys.stdout.flush()
    except OSError:
        # KERNEL: what is still buffered would raise again when the interpreter flushes it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())

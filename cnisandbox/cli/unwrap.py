"""Put the plugins back that `cnisandbox wrap` has moved aside: the same files, with mode, owner and times.

What a package manager has put over a shim is newer, and stays; the older one that had been wrapped is dropped. Anything
else that stands where a shim was is left alone, with the plugin beside it, and the status is 1.
"""

import argparse

from cnisandbox.cli import output, wrapping
from cnisandbox.cli.install import require_root

_STYLES = {"restored": "green", "left": "green", "kept": "red", "unchanged": "dim", "not wrapped": "dim"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="plugins; all that are wrapped by default")
    parser.add_argument("--bin-dir", metavar="DIR", required=True, help="the directory of the wrap")


def run(arguments: argparse.Namespace) -> int:
    """Unwrap; nothing to do is no failure."""
    require_root("unwrap")
    with wrapping.opened(arguments.bin_dir) as directory:
        names = list(dict.fromkeys(arguments.names)) or directory.wrapped()
        changes = [directory.unwrap(name) for name in names]
        directory.clear()
    if not changes:
        print(f"nothing is wrapped in {arguments.bin_dir}")
        return 0
    rows = [(change.what, change.name, change.note) for change in changes]
    print(output.table(("what", "plugin", "note"), rows, [_STYLES[change.what] for change in changes]))
    return 1 if any(change.what == "kept" for change in changes) else 0

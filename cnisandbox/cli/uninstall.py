"""Take the plugins away that `cnisandbox install` put into a directory, and put back what was there before.

Only files that install made are touched. The service user and /etc/cnisandbox stay: state on disk belongs to that user.
--systemd takes the units away that `cnisandbox install --systemd` made; calls under way are finished first.
"""

import argparse
import os

from cnisandbox.cli import launcher, output, systemd
from cnisandbox.cli.install import require_root
from cnisandbox.cli.launcher import Change

_STYLES = {"removed": "green", "restored": "green", "kept": "yellow", "absent": "dim"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="plugins; all that install put there by default")
    parser.add_argument("--bin-dir", metavar="DIR", default="", help="the directory of the install")
    parser.add_argument("--prefix", metavar="P", default="", help="the prefix of the install; only with NAME")
    parser.add_argument("--systemd", action="store_true", help="take the units away; plugins only with --bin-dir")
    parser.set_defaults(refuse=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Uninstall; nothing to do is no failure."""
    if not arguments.bin_dir and not arguments.systemd:
        arguments.refuse("one of the arguments --bin-dir --systemd is required")
    require_root("uninstall")
    launcher.check_prefix(arguments.prefix)
    # ORDER: a zygote without launchers serves nobody; launchers without a zygote do.
    changes = systemd.uninstall() if arguments.systemd else []
    if arguments.bin_dir:
        changes += _uninstall_launchers(arguments)
    if changes:
        rows = [(change.what, change.name, change.note) for change in changes]
        print(output.table(("what", "file", "note"), rows, [_STYLES[change.what] for change in changes]))
    else:
        print(f"no plugins of cnisandbox in {arguments.bin_dir}")
    return 0


def _uninstall_launchers(arguments: argparse.Namespace) -> list[Change]:
    with launcher.opened(os.path.realpath(arguments.bin_dir)) as directory_fd:
        names = [arguments.prefix + name for name in arguments.names] or launcher.launchers(directory_fd)
        return [launcher.uninstall(directory_fd, name) for name in names]

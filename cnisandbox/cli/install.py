"""Put the plugins where a runtime looks.

What is installed is a small program for each plugin that starts this installation. Besides, it makes the service user
`cnisandbox` and /etc/cnisandbox, if they are missing. A file that is in the way is left alone, unless --force is given:
then it is kept beside as NAME.cnisandbox-saved, and `cnisandbox uninstall` puts it back. --systemd has calls served by
a process that has everything loaded (`cnisandbox serve`), which systemd starts with the first of them.
"""

import argparse
import json
import os

from cnisandbox.cli import bytecode, host, launcher, output, systemd
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure, quoted, reason

_STYLES = {
    "replaced": "yellow",
    "not compiled": "yellow",
    "not bundled": "yellow",
    "not started": "yellow",
    "unchanged": "dim",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="plugins; all of them by default")
    parser.add_argument("--bin-dir", metavar="DIR", required=True, help="such as /opt/cni/bin; made if it is missing")
    parser.add_argument(
        "--prefix", metavar="P", default="", help="begin each file name with this, beside other plugins"
    )
    parser.add_argument("--force", action="store_true", help="keep files aside that are in the way")
    parser.add_argument(
        "--systemd", action="store_true", help="have systemd start `cnisandbox serve` when it is needed"
    )
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        action="append",
        default=[],
        help=f"let host-local keep state there; repeatable (goes to {host.STATE_DIRS_FILE})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Install; every refusal comes before the first change, as far as it can be foreseen."""
    require_root("install")
    names = chosen_plugins(arguments.names)
    launcher.check_prefix(arguments.prefix)
    directory = os.path.realpath(arguments.bin_dir)
    if arguments.systemd:
        systemd.require_installable(directory)
    changes = _make_directory(directory)
    launcher.require_safe_directory(directory)
    with launcher.opened(directory) as directory_fd:
        for name in names:
            launcher.require_installable(directory_fd, arguments.prefix + name, force=arguments.force)
        changes += [host.ensure_service_user(), host.ensure_config_directory()]
        changes += host.add_state_dirs(arguments.state_dir)
        changes += [host.compile_package(), bytecode.write_bundles()]
        launchers = [launcher.install(directory_fd, arguments.prefix + name, name) for name in names]
    has_new_code = any(change.what != "unchanged" for change in launchers)
    changes += launchers
    # ORDER: after the launchers, which do not use a zygote of another build.
    if arguments.systemd:
        changes += systemd.install(directory, is_update=has_new_code)
    rows = [(change.what, change.name, change.note) for change in changes]
    print(output.table(("what", "object", "note"), rows, [_STYLES.get(change.what, "green") for change in changes]))
    for path in host.writable_by_others():
        output.print_warning(f"others than root may change {path}, and what they put there runs as root")
    if has_new_code and not arguments.systemd and systemd.is_installed():
        output.print_warning(f"a zygote of another build serves no call of these: systemctl reload {systemd.SERVICE}")
    _print_hint(directory, arguments.prefix, names)
    return 0


def require_root(operation: str) -> None:
    """Refuse to go on without root's rights, or with rights that a setuid bit has lent.

    Raises:
        InvalidEnvironment: The real or the effective uid is not 0.
    """
    if os.getuid() != os.geteuid() or os.getgid() != os.getegid():
        raise InvalidEnvironment(f"{operation}: started through a setuid program", "log in as root, or use sudo")
    if os.geteuid() != 0:
        raise InvalidEnvironment(
            f"{operation}: not root", "use sudo: a runtime executes plugins as root, so root owns them"
        )


def chosen_plugins(names: list[str]) -> list[str]:
    """The plugins of these names, all of them for none.

    Raises:
        InvalidConfig: There is no plugin of a name.
    """
    known = launcher.plugin_names()
    for name in names:
        if name not in known:
            raise InvalidConfig(f"choose plugin {quoted(name)}: there is none", f"there are: {', '.join(known)}")
    return list(dict.fromkeys(names)) or known


def _make_directory(path: str) -> list[launcher.Change]:
    if os.path.isdir(path):
        return []
    try:
        os.makedirs(path, mode=0o755)
        os.chmod(path, 0o755)  # noqa: S103 - a directory of programs; umask would make it unreadable to diagnostics
    except OSError as error:
        raise IoFailure(f"make directory {quoted(path)}: {reason(error)}") from error
    return [launcher.Change("made", path)]


def _print_hint(directory: str, prefix: str, names: list[str]) -> None:
    if not {"bridge", "host-local"} <= set(names):
        return
    ipam = {"type": f"{prefix}host-local", "ranges": [[{"subnet": "10.89.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": f"{prefix}bridge", "bridge": "cnisandbox0", "isGateway": True, "ipMasq": True, "ipam": ipam}
    conflist = {"cniVersion": "1.0.0", "name": "sandboxed", "plugins": [bridge]}
    print("\nA network to begin with, for instance as /etc/cni/net.d/10-sandboxed.conflist:\n")
    print(json.dumps(conflist, indent=2))
    print(f"\nThen: ip netns add blue; cnisandbox net add sandboxed blue --plugin-dir {directory}")

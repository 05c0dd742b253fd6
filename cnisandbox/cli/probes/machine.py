"""What stands on the machine besides its kernel: the service user, libraries, state directories, plugins."""

import os
import platform
import pwd
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from cnisandbox.boundary import state
from cnisandbox.boundary.sandbox import SERVICE_USER
from cnisandbox.cli import bytecode, host, launcher, shim
from cnisandbox.cli.probes import DEGRADED, MISSING, OK, Probe, Seen
from cnisandbox.errors import CniError

_OLDEST_PYTHON = (3, 11)
_REFERENCE_WORDS = b"github.com/containernetworking/plugins"
_PLUGIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni")


def _service_user() -> Seen:
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return Seen(MISSING, f"there is no user {SERVICE_USER}")
    if user.pw_uid == 0 or user.pw_gid == 0:
        return Seen(MISSING, "its uid or gid is 0")
    return Seen(OK, f"{user.pw_name}, uid {user.pw_uid}, gid {user.pw_gid}")


def _python() -> Seen:
    detail = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    return Seen(OK if sys.version_info[:2] >= _OLDEST_PYTHON else MISSING, detail)


def _library(module: str) -> Seen:
    try:
        __import__(module)
    except ImportError as error:
        return Seen(MISSING, str(error))
    return Seen(OK)


def _installation() -> Seen:
    changeable = host.writable_by_others()
    if changeable:
        return Seen(DEGRADED, f"others than root may change {', '.join(changeable[:3])}")
    return Seen(OK, str(launcher.package_directory()))


def _byte_code() -> Seen:
    unused = bytecode.unused_bundles()
    if unused:
        return Seen(DEGRADED, "; ".join(f"{plugin}: {why}" for plugin, why in unused.items()))
    return Seen(OK, "fresh")


def _state_directories() -> Seen:
    try:
        configured = host.read_state_dirs()
    except CniError as error:
        return Seen(MISSING, error.msg)
    present = [path for path in (state.DEFAULT_DIRECTORY, *state.OPTIONAL_DIRECTORIES) if os.path.lexists(path)]
    unusable = [path for path in (*present, *configured) if not _is_roots_alone(path)]
    if unusable:
        return Seen(MISSING, f"not a directory of root's alone: {', '.join(unusable)}")
    return Seen(OK, ", ".join(dict.fromkeys((state.DEFAULT_DIRECTORY, *present, *configured))))


def _is_roots_alone(path: str) -> bool:
    """Whether it is a directory that nobody but root, or the service user, may write to."""
    try:
        status = os.lstat(path)
        owners = {0, pwd.getpwnam(SERVICE_USER).pw_uid}
    except (OSError, KeyError):
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in owners and not status.st_mode & 0o022


def _iptables() -> Seen:
    program = shutil.which("iptables")
    if program is None:
        return Seen(OK, "not installed, and not needed")
    done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)  # noqa: S603
    said = done.stdout.strip()
    if "nf_tables" in said:
        return Seen(OK, said)
    return Seen(DEGRADED, f"{said or 'does not run'}; the legacy one needs CAP_NET_RAW")


def _plugins() -> Seen:
    found = [_kinds_in(directory) for directory in plugin_dirs() if os.path.isdir(directory)]
    if not any("ours" in text or "wrapped" in text for text in found):
        return Seen(DEGRADED, "; ".join(["ours are not installed, and none is wrapped", *found]))
    return Seen(OK, "; ".join(found))


def plugin_dirs() -> tuple[str, ...]:
    """Where runtimes look for plugins here: CNI_PATH, or else the usual directories."""
    from_environment = [directory for directory in os.environ.get("CNI_PATH", "").split(":") if directory]
    return tuple(from_environment) or _PLUGIN_DIRS


def _kinds_in(directory: str) -> str:
    kinds: dict[str, list[str]] = {"ours": [], "wrapped": [], "reference": [], "other": []}
    with launcher.opened(directory) as directory_fd:
        for name in sorted(os.listdir(directory)):
            path = Path(directory, name)
            if path.is_file() and os.access(path, os.X_OK) and not name.endswith(launcher.SAVED_SUFFIX):
                is_ours = launcher.plugin_of(directory_fd, name) is not None
                kinds["ours" if is_ours else _kind_of(path)].append(name)
    listed = [f"{kind}: {' '.join(names)}" for kind, names in kinds.items() if names]
    return f"{directory}: {', '.join(listed) or 'empty'}"


def _kind_of(path: Path) -> str:
    if shim.is_shim(str(path)):
        return "wrapped"
    return "reference" if _REFERENCE_WORDS in path.read_bytes() else "other"


PROBES = (
    Probe(
        "Python",
        "everything",
        "install Python 3.11 or later and make .venv again",
        _python,
        is_required=True,
    ),
    Probe(
        "native calls",
        "every level",
        "`make setup` builds it",
        lambda: _library("cnisandbox._native"),
        is_required=True,
    ),
    Probe(
        "libnftables",
        "ipMasq, macspoofchk",
        "install libnftables1 (and libnftables-dev for `make setup`)",
        lambda: _library("cnisandbox._nftables"),
    ),
    Probe("python-prctl", "every level", "`make setup` installs it", lambda: _library("prctl"), is_required=True),
    Probe(
        "service user",
        "workers that are not root",
        "`cnisandbox install` makes it; or useradd --system cnisandbox",
        _service_user,
        is_required=True,
    ),
    Probe(
        "installation",
        "that nobody but root decides what runs as root",
        "move it to a place such as /opt where only root may write",
        _installation,
    ),
    Probe(
        "byte code bundles",
        "quick calls: without them a plugin takes a fifth longer to start",
        "cnisandbox install makes them anew",
        _byte_code,
    ),
    Probe(
        "state directories",
        "plugin host-local",
        "make it, chown root:root, chmod 755; or take it out of /etc/cnisandbox/state-dirs",
        _state_directories,
        is_required=True,
    ),
    Probe("iptables", "rules that reference plugins left; chained reference plugins", "install the nft one", _iptables),
    Probe(
        "plugins",
        "a runtime that shall use ours, or others without privileges",
        "cnisandbox install --bin-dir DIR, or cnisandbox wrap --bin-dir DIR",
        _plugins,
    ),
)

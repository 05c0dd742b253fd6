"""What the plugins need of the machine besides their launchers: the service user, /etc/cnisandbox, byte code."""

import compileall
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cnisandbox.boundary import state
from cnisandbox.boundary.sandbox import SERVICE_USER
from cnisandbox.cli.launcher import Change, package_directory
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason

STATE_DIRS_FILE = Path(state.CONFIGURATION)
CONFIG_DIRECTORY = STATE_DIRS_FILE.parent

_USERADD = (
    "useradd",
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir=/nonexistent",
    "--shell=/usr/sbin/nologin",
    "--comment=CNI plugins without privileges",
)
# LIMIT: what the entry reads of the file
_STATE_DIRS_BYTES = 4096
_STATE_DIRS_HEAD = """\
# Directories in which host-local may keep its state (the dataDir of a netconf), besides /var/lib/cni/networks: one
# absolute path on a line. Each must exist and be root's alone. `cnisandbox install --state-dir DIR` adds one.
"""


def ensure_service_user() -> Change:
    """Make the user that workers run as, unless there is one.

    Raises:
        InvalidConfig: There is one, and it is root by another name.
        IoFailure: useradd is missing or fails.
    """
    try:
        existing = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        pass
    else:
        if existing.pw_uid == 0 or existing.pw_gid == 0:
            raise InvalidConfig(f"use service user {SERVICE_USER}: its uid or gid is 0", "remove it and install again")
        return Change("unchanged", f"user {SERVICE_USER}", f"uid {existing.pw_uid}")
    program = shutil.which("useradd")
    if program is None:
        raise IoFailure(
            f"make user {SERVICE_USER}: there is no useradd", "install the package passwd, or make a system user"
        )
    done = subprocess.run([program, *_USERADD[1:], SERVICE_USER], check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode != 0:
        raise IoFailure(f"make user {SERVICE_USER}: {done.stderr.strip() or f'status {done.returncode}'}")
    return Change(
        "made", f"user {SERVICE_USER}", f"uid {pwd.getpwnam(SERVICE_USER).pw_uid}, a system user without login"
    )


def ensure_config_directory() -> Change:
    """Make /etc/cnisandbox, which every user may read, unless it is there."""
    try:
        CONFIG_DIRECTORY.mkdir(mode=0o755)
    except FileExistsError:
        return Change("unchanged", str(CONFIG_DIRECTORY))
    except OSError as error:
        raise IoFailure(f"make directory {CONFIG_DIRECTORY}: {reason(error)}") from error
    CONFIG_DIRECTORY.chmod(0o755)  # whatever the umask is
    return Change("made", str(CONFIG_DIRECTORY))


def read_state_dirs() -> list[str]:
    """The directories that stand in the file.

    Raises:
        IoFailure: The file is there and cannot be read.
    """
    try:
        lines = STATE_DIRS_FILE.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IoFailure(f"read {STATE_DIRS_FILE}: {reason(error)}") from error
    stripped = [line.partition("#")[0].strip() for line in lines]
    return [line for line in stripped if line]


def add_state_dirs(directories: Sequence[str]) -> list[Change]:
    """Add directories to the file, those that are not in it yet, and make them; its other lines stay as they are.

    Raises:
        InvalidConfig: One cannot be allowed, or there are too many.
        IoFailure: A directory cannot be made, or the file cannot be written.
    """
    for directory in directories:
        _require_state_dir(directory)
    known = read_state_dirs()
    new = [directory for directory in dict.fromkeys(directories) if directory not in known]
    if new:
        try:
            for directory in new:
                os.makedirs(directory, mode=0o755, exist_ok=True)  # the entry refuses to go on without it
            text = STATE_DIRS_FILE.read_text(errors="surrogateescape") if STATE_DIRS_FILE.exists() else _STATE_DIRS_HEAD
            _replace(STATE_DIRS_FILE, text.rstrip("\n") + "\n" + "\n".join(new) + "\n")
        except OSError as error:
            raise IoFailure(f"write {STATE_DIRS_FILE}: {reason(error)}") from error
    note = f"state directory, in {STATE_DIRS_FILE}"
    return [Change("allowed" if path in new else "unchanged", path, note) for path in dict.fromkeys(directories)]


def compile_package() -> Change:
    """Compile the package to byte code now, so that no plugin call has to."""
    package = package_directory()
    # compileall does not follow cnisandbox/plugins where that is a link
    done = all(
        compileall.compile_dir(str(directory), quiet=2) for directory in (package, (package / "plugins").resolve())
    )
    if not done:
        return Change("not compiled", str(package), "calls will take longer; can root write there?")
    return Change("compiled", str(package))


def writable_by_others() -> list[str]:
    """What root executes when it executes a plugin, and others than root may change: files and directories.

    Returns:
        Paths, the interpreter's and the package's, or the directories above them.
    """
    found = []
    for path in (Path(sys.executable), Path(sys.executable).resolve(), package_directory() / "__init__.py"):
        for part in (path, *path.parents):
            status = part.stat()
            shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or shared:
                found.append(str(part))
    return list(dict.fromkeys(found))


def _require_state_dir(path: str) -> None:
    if not os.path.isabs(path) or os.path.normpath(path) != path or path in {"/", "//"}:
        raise InvalidConfig(
            f"allow state directory {quoted(path)}: not an absolute, plain path", "such as /srv/cni/networks"
        )
    if "#" in path or path != path.strip() or not path.isprintable():
        raise InvalidConfig(
            f"allow state directory {quoted(path)}: a path with such characters cannot stand in the file"
        )


def _replace(path: Path, text: str) -> None:
    if len(text.encode("utf-8", "surrogateescape")) > _STATE_DIRS_BYTES:
        raise InvalidConfig(f"write {path}: it would be longer than {_STATE_DIRS_BYTES} bytes", "allow a common parent")
    replace_file(str(path), text.encode("utf-8", "surrogateescape"))


def replace_file(path: str, content: bytes) -> None:
    """Write a file that everybody may read; at each moment either the old one or the new one is there, complete."""
    temporary = Path(path).with_name(f".{Path(path).name}.new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(fd, 0o644)
        os.fsync(fd)
    temporary.rename(path)

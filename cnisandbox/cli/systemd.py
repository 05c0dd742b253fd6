"""The units by which systemd starts the zygote with the first call, and what is done with them.

Their texts are made here, for the interpreter and the plugins of this installation; deploy/systemd/ has copies to read.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cnisandbox.boundary.delegate import executable_places, is_below
from cnisandbox.cli import host, launcher
from cnisandbox.cli.launcher import Change
from cnisandbox.errors import InvalidEnvironment, IoFailure, quoted, reason
from cnisandbox.zygote import protocol

DIRECTORY = Path("/etc/systemd/system")
SOCKET = "cnisandbox-zygote.socket"
SERVICE = "cnisandbox-zygote.service"

# As sd_booted(3) finds out.
_RUNNING = Path("/run/systemd/system")
_MARK = "# Made by `cnisandbox install --systemd`; `cnisandbox uninstall --systemd` takes it away.\n"
# LIMIT: longer than a zygote takes to end (cnisandbox/zygote/server.py).
_TIMEOUT_S = 90
# What a path in a unit file may have without being quoted.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+-]+")

_SOCKET_TEXT = """\
{mark}[Unit]
Description=Sockets of the cnisandbox zygote, which launchers of its plugins connect to
Documentation=man:systemd.socket(5)

[Socket]
{listen}
SocketMode=0600
DirectoryMode=0700
Backlog=256
# A launcher that finds no socket starts the interpreter at once; one that nobody listens at would cost it time.
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""
_SERVICE_TEXT = """\
{mark}[Unit]
Description=cnisandbox zygote: serves the calls of its plugins with everything loaded
Documentation=man:systemd.service(5)
Requires={socket}
After={socket}

[Service]
Type=exec
ExecStart={interpreter} -I -m cnisandbox.cli.main serve --idle-exit {idle_s}{plugin_dirs}
# Calls under way finish with the code that they began with; the sockets stay open meanwhile.
ExecReload=kill -HUP $MAINPID
# SIGTERM for the zygote alone, which lets calls under way finish; what is left after the time is killed.
KillMode=mixed
TimeoutStopSec=45
# A call is root's work for a runtime, which such units protect in the same way; one that is killed is an error of that
# call, and no reason to end the others. This is the zygote's, which is never chosen; its calls have -999.
OOMScoreAdjust=-1000
OOMPolicy=continue
TasksMax=2048
MemoryMax=2G

# No PrivateTmp=, ProtectSystem=, ReadOnlyPaths=, PrivateDevices= or anything else that gives a mount namespace of its
# own, no PrivateNetwork=, PrivateUsers= or RootDirectory=, no NoNewPrivileges=, SystemCallFilter= or
# CapabilityBoundingSet=: a call is served only for who has the namespaces, the root and the privileges of the zygote,
# so that CNI_NETNS and other paths mean here what they mean to the runtime. Each process confines itself, and further.
"""
_IDLE_S = 600


def units(interpreter: str, plugins: list[str], plugin_dirs: tuple[str, ...] = ()) -> dict[str, str]:
    """Write the units.

    Args:
        interpreter: Its path.
        plugins: Whose calls are served.
        plugin_dirs: Directories of plugins that calls will name, besides those of the system.

    Returns:
        Text of each, by its name.
    """
    listen = "\n".join(f"ListenSequentialPacket={protocol.socket_path(plugin)}" for plugin in plugins)
    return {
        SOCKET: _SOCKET_TEXT.format(mark=_MARK, listen=listen),
        SERVICE: _SERVICE_TEXT.format(
            mark=_MARK,
            socket=SOCKET,
            interpreter=interpreter,
            idle_s=_IDLE_S,
            plugin_dirs="".join(f" --plugin-dir {path}" for path in plugin_dirs),
        ),
    }


def is_running() -> bool:
    """Whether this machine was started by systemd."""
    return _RUNNING.is_dir() and shutil.which("systemctl") is not None


def is_installed() -> bool:
    """Whether the units are there."""
    return (DIRECTORY / SERVICE).exists()


def require_installable(bin_dir: str) -> None:
    """Refuse what the units cannot be written for, or over; to be asked before the first change.

    Args:
        bin_dir: Where the launchers will be.

    Raises:
        InvalidEnvironment: There are units of that name which are not ours, the interpreter would find another
            cnisandbox, or a path is of a form that no unit can have.
    """
    for name in (SOCKET, SERVICE):
        path = DIRECTORY / name
        if os.path.lexists(path) and not _is_ours(path):
            raise InvalidEnvironment(
                f"install unit {name}: {path} is there, and cnisandbox did not make it",
                f"take it away: systemctl unmask {name}; rm {path}",
            )
    _require_plain_path(sys.executable, "install cnisandbox")
    _require_plain_path(bin_dir, "install the plugins")
    _require_interpreter()


def install(bin_dir: str, *, is_update: bool) -> list[Change]:
    """Write the units, and have systemd use them if it is running.

    Args:
        bin_dir: Where the launchers are.
        is_update: Whether a zygote that is running has to start anew, for the code has changed.

    Raises:
        IoFailure: They cannot be written, or systemd refuses them.
    """
    is_systems = is_below(bin_dir, executable_places(()))
    try:
        DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        launcher.require_safe_directory(str(DIRECTORY))
        plugin_dirs = dict.fromkeys([*_plugin_dirs_before(), *([] if is_systems else [bin_dir])])
        texts = units(sys.executable, launcher.served_names(), tuple(plugin_dirs))
        changes = [_write(DIRECTORY / name, text) for name, text in texts.items()]
    except OSError as error:
        raise IoFailure(f"write units in {DIRECTORY}: {reason(error)}") from error
    if not is_running():
        note = "systemd is not running here; once it is: systemctl enable --now " + SOCKET
        return [*changes, Change("not started", SOCKET, note)]
    socket, service = (change.what for change in changes)
    if (socket, service) != ("unchanged", "unchanged"):
        _systemctl("daemon-reload")
    if socket == "updated":
        # systemd does not listen anew while the service that has the sockets is running.
        _systemctl("stop", SERVICE, SOCKET)
    elif service == "updated":
        _systemctl("stop", SERVICE)
    elif is_update:
        _systemctl("try-reload-or-restart", SERVICE)
    _systemctl("enable", "--now", SOCKET)
    return [*changes, Change("enabled", SOCKET, "systemd starts the zygote with the first call")]


def uninstall() -> list[Change]:
    """Take the units away; those that are not ours stay.

    Raises:
        IoFailure: systemd refuses to stop them, or they cannot be removed.
    """
    ours = [name for name in (SOCKET, SERVICE) if _is_ours(DIRECTORY / name)]
    foreign = [name for name in (SOCKET, SERVICE) if os.path.lexists(DIRECTORY / name) and name not in ours]
    if ours and is_running():
        # ORDER: the socket first, or a call that comes now would start the service again.
        if SOCKET in ours:
            _systemctl("disable", "--now", SOCKET)
        _systemctl("stop", *ours)
    try:
        for name in ours:
            (DIRECTORY / name).unlink()
        if SOCKET in ours:
            # What `systemctl enable` has made, where systemd is not running to take it away.
            (DIRECTORY / "sockets.target.wants" / SOCKET).unlink(missing_ok=True)
    except OSError as error:
        raise IoFailure(f"remove units from {DIRECTORY}: {reason(error)}") from error
    if ours and is_running():
        _systemctl("daemon-reload")
    changes = [Change("removed", str(DIRECTORY / name)) for name in ours]
    changes += [Change("kept", str(DIRECTORY / name), "not made by cnisandbox install") for name in foreign]
    return changes or [Change("absent", SOCKET)]


def _write(path: Path, text: str) -> Change:
    if _is_ours(path):
        if path.read_text() == text:
            return Change("unchanged", str(path))
        host.replace_file(str(path), text.encode())
        return Change("updated", str(path))
    host.replace_file(str(path), text.encode())
    return Change("installed", str(path))


def _plugin_dirs_before() -> list[str]:
    """The directories that an earlier install was called for; but none that has been taken away since."""
    path = DIRECTORY / SERVICE
    text = path.read_text() if _is_ours(path) else ""
    return [found for found in re.findall(rf" --plugin-dir ({_PLAIN_PATH.pattern})", text) if os.path.isdir(found)]


def _is_ours(path: Path) -> bool:
    """Whether `install` has made a unit; a link, such as that of a masked unit, is not ours."""
    if path.is_symlink() or not path.is_file():
        return False
    return path.read_bytes().startswith(_MARK.encode())


def _require_plain_path(path: str, advice: str) -> None:
    if not _PLAIN_PATH.fullmatch(path):
        raise InvalidEnvironment(
            f"install unit {SERVICE}: {quoted(path)} cannot stand in a unit",
            f"{advice} under a path of letters, digits and / . _ + -",
        )


def _require_interpreter() -> None:
    command = [sys.executable, "-I", "-c", "import cnisandbox; print(cnisandbox.__file__)"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    found = os.path.dirname(os.path.realpath(done.stdout.strip() or "/nowhere/"))
    if found != str(launcher.package_directory()):
        raise InvalidEnvironment(
            f"install unit {SERVICE}: {sys.executable} does not find the package in {launcher.package_directory()}",
            "call the cnisandbox that `make setup` has installed",
        )


def _systemctl(*words: str) -> None:
    command = ["systemctl", *words]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IoFailure(f"run {' '.join(command)}: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or f"status {done.returncode}"
        raise IoFailure(f"run {' '.join(command)}: {said}", f"systemctl status {SOCKET} says more")

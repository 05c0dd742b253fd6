"""What stands in front of a plugin that is wrapped: how it is told from a plugin, and what it does.

    /opt/cni/bin/bridge                 the shim: a small program, by which the runtime starts the runner, or finds it
                                        waiting (native/launcher.c)
    /opt/cni/bin/.cnisandbox/bridge     the plugin itself, as it was: the same file, moved

Inside the confinement the plugin stands at /opt/cni/bin/bridge again, and so does every other wrapped plugin at its own
name (`overlays`): a plugin that executes another one, such as bridge its host-local, finds the plugin and no shim.

This is on the way of every call of a wrapped plugin, and imports little.

Privilege: everything the runtime has. What it reads is the caller's environment and directories that are root's alone.
"""

import os
import sys

from cnisandbox import marks
from cnisandbox.errors import (
    CniError,
    InvalidConfig,
    InvalidEnvironment,
    IoFailure,
    IsolationUnavailable,
    quoted,
    reason,
)
from cnisandbox.hints import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from cnisandbox.runner.entry import Slot

# Beside the shims: one file system, so that a rename moves; no runtime looks into it, for a plugin's name has no slash.
ORIGINALS = ".cnisandbox"

# The level at which nothing is taken away.
ROOT = "root"
# Between the parts of a subject; no path that can be wrapped has it.
_SEPARATOR = "\x1f"
# LIMIT: links that lead from one to the next, as in the kernel.
_MAX_LINKS = 40


class Request(NamedTuple):
    """What to run confined, and how; empty text: not said.

    Attributes:
        plugin: Path of the program, or of a shim in front of it.
        arguments: Its arguments; a runtime gives none.
        level: Name of the level.
        profile: Name or path of the profile.
        attest_path: File to append the attestations to.
        log: File for the audit log, or "journald".
    """

    plugin: str
    arguments: tuple[str, ...] = ()
    level: str = ""
    profile: str = ""
    attest_path: str = ""
    log: str = ""


def main(path: str, level: str, profile: str, log: str) -> NoReturn:
    """Be a shim.

    Args:
        path: Where it stands.
        level: What it was wrapped with; empty: what the profile says. CNISANDBOX_LEVEL comes first.
        profile: The name of its profile.
        log: What it was wrapped with; CNISANDBOX_LOG comes first.
    """
    arguments = tuple(sys.argv[1:])
    # A runtime gives no arguments. A service or a person does: `dhcp daemon` serves the whole node, so it stays root.
    is_confined = not arguments or bool(os.environ.get("CNI_COMMAND"))
    start(_request(path, level, profile, log, arguments), is_confined=is_confined)


def subject_of(path: str, level: str, profile: str, log: str) -> str:
    """Write down what a shim says to the zygote about itself, for `serve`.

    Raises:
        InvalidConfig: A path cannot stand in it.
    """
    parts = (path, level, profile, log)
    if any(_SEPARATOR in part or "\0" in part for part in parts):
        raise InvalidConfig(f"wrap {quoted(path)}: a path has a control character in it")
    return _SEPARATOR.join(parts)


def serve(subject: str, slot: "Slot") -> NoReturn:
    """Be a shim that has found the runner waiting.

    Args:
        subject: What `subject_of` has written.
        slot: The process that we are, which is the call's by now: environment, descriptors, working directory.
    """
    try:
        path, level, profile, log = subject.split(_SEPARATOR)
        start(_request(path, level, profile, log, ()), slot=slot)
    except SystemExit:  # what `fail` ends with
        os.write(slot.status_fd, b"\1")
    finally:  # a process of the zygote's goes back to nobody's code
        os._exit(1)


def _request(path: str, level: str, profile: str, log: str, arguments: tuple[str, ...]) -> Request:
    variables = os.environ
    return Request(
        plugin=path,
        arguments=arguments,
        level=variables.get("CNISANDBOX_LEVEL") or level,
        profile=profile,
        attest_path=variables.get("CNISANDBOX_ATTEST", ""),
        log=variables.get("CNISANDBOX_LOG") or log,
    )


def start(request: Request, *, is_confined: bool = True, slot: "Slot | None" = None) -> NoReturn:
    """Run a plugin; what goes wrong before it runs is reported as a plugin reports it.

    Args:
        request: What to run.
        is_confined: False to run it as it is.
        slot: The process that we are, if it was forked ahead of the call.
    """
    try:
        if is_confined and request.level != ROOT:
            _hand_over(request, slot)
        _execute(program_of(request.plugin), (request.plugin, *request.arguments))
    except CniError as error:
        fail(error)
    except ImportError as error:
        advice = "the installation of cnisandbox is not complete: run `make setup` again"
        fail(IsolationUnavailable(f"load {error.name or 'module'}: {error}", advice))
    except Exception as error:  # noqa: BLE001 - a defect of ours must not become a traceback on a runtime's log
        fail(
            CniError(f"run {quoted(request.plugin)}: {type(error).__name__}: {error}", "this is a defect of cnisandbox")
        )


def _hand_over(request: Request, slot: "Slot | None") -> NoReturn:
    place = place_of(request.plugin)
    program_of(place)  # that there is one, and none that confines itself
    # Here, because a plugin that is executed as it is needs none of it.
    from cnisandbox.boundary.levels import Level  # noqa: PLC0415
    from cnisandbox.runner.entry import Options, run  # noqa: PLC0415

    try:
        level = Level(request.level) if request.level else None
    except ValueError as error:
        names = ", ".join(level.value for level in Level)
        raise InvalidEnvironment(f"level: {quoted(request.level)} is not one of {names}") from error
    plugin_dirs = [part for part in os.environ.get("CNI_PATH", "").split(":") if part]
    run(
        Options(
            plugin=place,
            arguments=request.arguments,
            level=level,
            profile=request.profile,
            attest_path=request.attest_path,
            log=request.log,
            overlays=overlays([os.path.dirname(place), *plugin_dirs]),
        ),
        slot,
    )


def _execute(program: str, argv: tuple[str, ...]) -> NoReturn:
    """Become a program, with the rights that we have."""
    try:
        os.execve(program, argv, os.environ)  # noqa: S606 - no shell is what we want
    except OSError as error:
        raise IoFailure(f"execute {quoted(program)}: {reason(error)}") from error


def fail(error: CniError) -> NoReturn:
    """Report an error as a plugin does: an error object for the runtime."""
    from cnisandbox.cni.output import error_document  # noqa: PLC0415 - what it imports is not needed to succeed
    from cnisandbox.cni.versions import SUPPORTED  # noqa: PLC0415

    os.write(1, error_document(error, SUPPORTED[-1]))
    sys.exit(1)


def _ends_of(path: str) -> marks.Ends | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return marks.Ends(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def is_shim(path: str) -> bool:
    """Say whether a file is a shim."""
    ends = _ends_of(path)
    return ends is not None and ends.is_shim


def original_of(directory: str, name: str) -> str:
    """Where the plugin is that stood at this name before it was wrapped."""
    return f"{directory}/{ORIGINALS}/{name}"


def place_of(path: str) -> str:
    """Where a file stands: its directory without links, and its own name."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def program_of(path: str) -> str:
    """Find the program that somebody means who names a plugin: links are followed, and shims looked behind.

    Args:
        path: Of a plugin, of a link to one, or of a shim.

    Returns:
        An absolute path that is no link and no shim, as far as its last part goes.

    Raises:
        IoFailure: A shim has lost its plugin.
        InvalidConfig: It leads to a plugin of ours, which confines itself, or in circles.
    """
    for _ in range(_MAX_LINKS):
        path = place_of(path)
        directory, name = os.path.split(path)
        ends = _ends_of(path)
        if ends is not None and ends.plugin:
            raise InvalidConfig(
                f"run {quoted(path)}: it is a plugin of cnisandbox, which confines itself", "execute it as it is"
            )
        found = original_of(directory, name) if ends is not None and ends.is_shim else path
        if not os.path.lexists(found) and found != path:
            raise IoFailure(
                f"run {quoted(path)}: the plugin behind this shim is gone ({found})",
                "install the plugin again, then: cnisandbox wrap",
            )
        if not os.path.islink(found):
            return found
        # A link was made to be read where it stood, not where it was moved to.
        path = os.path.join(directory, os.readlink(found))
    raise InvalidConfig(f"run {quoted(path)}: links that lead in circles")


def overlays(directories: list[str]) -> tuple[tuple[str, str], ...]:
    """List the plugins that must stand at their names inside the confinement.

    Args:
        directories: Where plugins are looked for; those in which nothing is wrapped add nothing.

    Returns:
        For each wrapped plugin where its shim stands, by the directory's path as it is given and without links, and the
        plugin itself. A shim that lost its plugin is left out.
    """
    found = []
    for path in dict.fromkeys(directories):
        directory = os.path.realpath(path)
        for name in wrapped_names(directory):
            try:
                program = program_of(f"{directory}/{name}")
            except CniError:
                continue
            found += [(f"{directory}/{name}", program), (f"{os.path.normpath(path)}/{name}", program)]
    return tuple(dict.fromkeys(found))


def wrapped_names(directory: str) -> list[str]:
    """Names of the shims in a directory whose plugins were moved aside, sorted; a plugin put over a shim is not one."""
    try:
        names = os.listdir(f"{directory}/{ORIGINALS}")
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and is_shim(f"{directory}/{name}"))

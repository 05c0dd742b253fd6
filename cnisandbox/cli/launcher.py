"""The small program that a runtime executes as a plugin: what stands in it, how it gets into a directory and out again.

A launcher is a copy of native/launcher.c with settings of its own: it hands the call to the zygote, or starts the
interpreter of this installation, isolated and without `site`, with a few lines of Python that are among the settings.
Its last line says which plugin it is; by that, and by nothing else, a launcher is told from other people's files.
"""

import importlib
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import cnisandbox
from cnisandbox import marks
from cnisandbox.cli import build
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, IoFailure, quoted, reason
from cnisandbox.zygote import protocol

SAVED_SUFFIX = ".cnisandbox-saved"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# As native/launcher.c has it: mark, plugin, build id, socket, interpreter, script, subject.
_SETTINGS = struct.Struct("=32s64s32s104s512s4096s1024s")
_SPACES = (64, 104, 512, 4096, 1024)
_SETTINGS_MARK = b"cnisandbox launcher settings:"
# LIMIT: more than a launcher has.
_MAX_BYTES = 16 << 20
_SCRIPT = """\
import gc
import sys
from _frozen_importlib_external import SourceFileLoader

gc.disable()  # a call is over before garbage matters, and looking for it while modules load takes 3 ms
sys.path += {directories!r}
bundle = type(sys)("cnisandbox.bundle")  # not imported: the package, which would come with it, is in the bundle
SourceFileLoader(bundle.__name__, {loader!r}).exec_module(bundle)
bundle.use({bundle!r})
from cnisandbox.plugins.{module} import main

main()
"""


class Settings(NamedTuple):
    """What a launcher was given when it was installed.

    Attributes:
        plugin: Which plugin it is.
        build_id: Of the code that it was made for; a zygote of another build does not serve it.
        socket: Where it looks for the zygote.
    """

    plugin: str
    build_id: bytes
    socket: str


class Change(NamedTuple):
    """What happened to one file of the directory: a word, the file's name, and what a person should know about it."""

    what: str
    name: str
    note: str = ""


def plugin_names() -> list[str]:
    """List the plugins of this package: one for each file of `cnisandbox/plugins`, with hyphens for underscores."""
    directory = package_directory() / "plugins"
    return sorted(path.stem.replace("_", "-") for path in directory.glob("*.py") if not path.stem.startswith("_"))


def served_names() -> list[str]:
    """List what a zygote serves: the plugins of this package, and the runner."""
    return [*plugin_names(), protocol.RUNNER]


def package_directory() -> Path:
    """The directory of the package."""
    return Path(cnisandbox.__file__).resolve().parent


def import_directories() -> list[str]:
    """The directories that a plugin's sys.path needs besides the standard library's."""
    extension = Path(str(importlib.import_module("_cffi_backend").__file__)).parent
    return list(dict.fromkeys((str(package_directory().parent), str(extension))))


def interpreter() -> str:
    """The interpreter that a launcher starts, by its own name.

    To follow the links of a virtual environment, and to read what it is, would take half a millisecond; what is needed
    of it is in the module path.
    """
    return os.path.realpath(sys.executable)


def bundle_path(plugin: str) -> str:
    """The file with the byte code of a plugin (cnisandbox/bundle.py)."""
    return str(package_directory() / "__pycache__" / f"{plugin}.{sys.implementation.cache_tag}.bundle")


def script(plugin: str) -> str:
    """Write what a launcher has the interpreter execute."""
    return _SCRIPT.format(
        directories=import_directories(),
        loader=str(package_directory() / "bundle.py"),
        bundle=bundle_path(plugin),
        module=plugin.replace("-", "_"),
    )


def render(plugin: str) -> bytes:
    """Write the launcher of a plugin of ours.

    Raises:
        InvalidEnvironment: The program was not built, or the paths of this installation are too long for it.
    """
    return render_program(plugin, protocol.socket_path(plugin), script(plugin), marks.PLUGIN)


def render_program(name: str, socket: str, code: str, mark: bytes, subject: str = "") -> bytes:
    """Write a launcher.

    Args:
        name: Of the plugin.
        socket: Where the zygote listens; empty for calls that no zygote serves.
        code: What the interpreter executes where no zygote does.
        mark: What its last line begins with.
        subject: What the zygote is told before the environment.

    Raises:
        InvalidEnvironment: The program was not built, or something is too long for it.
    """
    # TRUST: root executes it, from whatever directory the runtime stands in.
    if not os.path.isabs(sys.executable) or "\0" in sys.executable:
        raise InvalidEnvironment(
            f"write launcher {quoted(name)}: {quoted(sys.executable)} is no absolute path of an interpreter",
            "start cnisandbox by its full path",
        )
    program_path = package_directory() / "launcher"
    try:
        program = program_path.read_bytes()
    except OSError as error:
        raise InvalidEnvironment(
            f"write launcher {quoted(name)}: {program_path}: {reason(error)}",
            "run `make setup` again, which builds it",
        ) from error
    texts = [text.encode("utf-8", "surrogateescape") for text in (name, socket, interpreter(), code, subject)]
    for text, space in zip(texts, _SPACES, strict=True):
        if len(text) >= space or b"\0" in text:
            raise InvalidEnvironment(
                f"write launcher {quoted(name)}: {quoted(os.fsdecode(text)[:80])} does not fit into {space} bytes",
                "install cnisandbox under a shorter path",
            )
    build_id = build.build_id(str(package_directory()))
    settings = _SETTINGS.pack(_SETTINGS_MARK, texts[0], build_id, *texts[1:])
    start = program.index(_SETTINGS_MARK)
    return program[:start] + settings + program[start + len(settings) :] + b"\n" + mark + texts[0] + b"\n"


def settings_of(directory_fd: int, name: str) -> Settings | None:
    """Read the settings of a launcher; None for a file that has none."""
    if plugin_of(directory_fd, name) is None:
        return None
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd), "rb") as file:
        program = file.read(_MAX_BYTES)
    start = program.find(_SETTINGS_MARK)
    if start < 0 or len(program) < start + _SETTINGS.size:
        return None
    _, plugin, build_id, socket, *_ = _SETTINGS.unpack_from(program, start)
    return Settings(os.fsdecode(plugin.rstrip(b"\0")), build_id, os.fsdecode(socket.rstrip(b"\0")))


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that would not give a plugin's name.

    Raises:
        InvalidConfig: It has other characters than a plugin type of ours may have.
    """
    if prefix and not _NAME.fullmatch(prefix):
        raise InvalidConfig(
            f"use prefix {quoted(prefix)}: not the beginning of a plugin's name", 'such as "sandboxed-"'
        )


def require_safe_directory(path: str) -> None:
    """Refuse a directory in which others than root could put a program of theirs, or exchange ours.

    Raises:
        InvalidEnvironment: The directory, or one above it, belongs to somebody else or may be written by others.
    """
    for directory in (Path(path), *Path(path).parents):
        status = directory.stat()
        is_the_one = directory == Path(path)
        if status.st_uid != 0 or (status.st_mode & 0o022 and (is_the_one or not status.st_mode & stat.S_ISVTX)):
            raise InvalidEnvironment(
                f"use directory {quoted(str(directory))}: others than root may write to it",
                f"a runtime executes as root what lies there; chown root {directory}; chmod go-w {directory}",
            )


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a directory; what is done to its files is then done in this directory, wherever its path leads later."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise IoFailure(f"open directory {quoted(path)}: {reason(error)}") from error
    try:
        yield fd
    except OSError as error:
        raise IoFailure(f"change directory {quoted(path)}: {reason(error)}") from error
    finally:
        os.close(fd)


def plugin_of(directory_fd: int, name: str) -> str | None:
    """Say which plugin's launcher a file is.

    Returns:
        The plugin's name; None for a file that is not a launcher, or not there.
    """
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory_fd)
    except OSError:
        return None
    try:
        return (marks.Ends(fd).plugin or None) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def require_installable(directory_fd: int, name: str, *, force: bool) -> None:
    """Refuse a file name that somebody else has; to be asked for every launcher before the first is installed.

    Args:
        directory_fd: The directory.
        name: File name of the launcher.
        force: Accept somebody else's file, which `install` will keep aside; but not one with a setuid bit.

    Raises:
        InvalidEnvironment: There is something that cannot be replaced.
    """
    status = status_of(directory_fd, name)
    if status is None or plugin_of(directory_fd, name) is not None:
        return
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise InvalidEnvironment(
            f"install {quoted(name)}: there is a setuid file of that name",
            "take it away yourself, if you know why it is there",
        )
    if stat.S_ISDIR(status.st_mode):
        raise InvalidEnvironment(
            f"install {quoted(name)}: there is a directory of that name", "choose another --prefix"
        )
    if not force:
        raise InvalidEnvironment(
            f"install {quoted(name)}: there is a file of that name which cnisandbox did not make",
            "--force keeps it aside for uninstall; --prefix P gives ours another name; --bin-dir another place",
        )


def install(directory_fd: int, name: str, plugin: str) -> Change:
    """Put a launcher into a directory; at each moment either the old file or the new one is there, complete.

    Args:
        directory_fd: The directory.
        name: File name.
        plugin: The plugin that it starts.

    Raises:
        InvalidEnvironment: This installation cannot be started by a launcher.

    Order: `require_installable` has been asked.
    """
    content = render(plugin)
    status = status_of(directory_fd, name)
    if status is None:
        write_script(directory_fd, name, content)
        return Change("installed", name)
    if plugin_of(directory_fd, name) is not None:
        if is_current(directory_fd, name, content, status):
            return Change("unchanged", name)
        write_script(directory_fd, name, content)
        return Change("updated", name)
    _keep_aside(directory_fd, name)
    write_script(directory_fd, name, content)
    return Change("replaced", name, f"the old file is {name}{SAVED_SUFFIX}; uninstall puts it back")


def uninstall(directory_fd: int, name: str) -> Change:
    """Take a launcher away, and put back what was there before it.

    Returns:
        What was done; "kept" for a file that is not ours.
    """
    saved = name + SAVED_SUFFIX
    has_saved = status_of(directory_fd, saved) is not None
    if status_of(directory_fd, name) is not None and plugin_of(directory_fd, name) is None:
        note = (
            f"not made by cnisandbox install; {saved} is left beside it"
            if has_saved
            else "not made by cnisandbox install"
        )
        return Change("kept", name, note)
    if has_saved:
        os.rename(saved, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        return Change("restored", name, "what was there before")
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return Change("absent", name)
    return Change("removed", name)


def launchers(directory_fd: int) -> list[str]:
    """Names of the launchers in a directory, sorted; also of those that are gone but left a saved file."""
    names = os.listdir(directory_fd)
    orphans = [name.removesuffix(SAVED_SUFFIX) for name in names if name.endswith(SAVED_SUFFIX)]
    ours = {name for name in names if plugin_of(directory_fd, name) is not None}
    return sorted(ours | {name for name in orphans if name not in names})


def _keep_aside(directory_fd: int, name: str) -> None:
    """Give the file the second name by which uninstall finds it.

    An older saved file is replaced: what a package manager has put in place since is the newer version of the same.
    """
    temporary = temporary_name(name)
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    os.link(name, temporary, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
    os.rename(temporary, name + SAVED_SUFFIX, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def write_script(directory_fd: int, name: str, content: bytes) -> None:
    """Write an executable file of root's; at each moment either the old one or the new one is there, complete."""
    temporary = temporary_name(name)
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory_fd)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o755)
        os.fsync(fd)
    # ORDER: the file is closed before it gets its name, or an exec at once would find it busy (ETXTBSY)
    os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)


def temporary_name(name: str) -> str:
    """The name under which a file is written before it gets its own; what a crash has left there is of no use."""
    return f".{name}.cnisandbox-new"


def is_current(directory_fd: int, name: str, content: bytes, status: os.stat_result) -> bool:
    """Whether a script of ours is as `write_script` would write it."""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=directory_fd)
    with open(fd, "rb") as file:
        return file.read() == content and stat.S_IMODE(status.st_mode) == 0o755 and status.st_uid == 0


def status_of(directory_fd: int, name: str) -> os.stat_result | None:
    """The state of a file, or of a link itself; None if there is none of that name."""
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None

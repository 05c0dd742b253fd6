"""Puts shims in front of plugins and takes them away; what a directory's files say is the truth, at every moment.

    wrap      link the plugin to .cnisandbox/NAME (one file, two names), then rename the shim over NAME
    unwrap    rename .cnisandbox/NAME over NAME

So there is never a moment without a plugin, and a crash leaves the plugin or the shim. The plugin is moved and not
copied: whatever its mode, owner, times and attributes are, they stay. A package manager that puts a newer plugin over a
shim is noticed by the shim's mark, which is no longer there. The manifest (.cnisandbox/.manifest.json) says what was
there and what was put there; nothing is decided by it.
"""

import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from cnisandbox import marks
from cnisandbox.cli import bytecode, launcher, shim
from cnisandbox.cli.launcher import Change
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, TryAgain, quoted
from cnisandbox.zygote import protocol

MANIFEST = ".manifest.json"

_MANIFEST_VERSION = 1
# LIMIT: of a manifest: a hundred plugins take 40 KiB.
_MANIFEST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")
# What package managers and we ourselves leave beside a file for a while.
_PASSING = (launcher.SAVED_SUFFIX, ".dpkg-new", ".dpkg-old", ".dpkg-tmp", ".dpkg-dist", ".rpmnew", ".rpmsave", ".bak")
# What a shim has the interpreter execute where no zygote serves the call.
_TEMPLATE = """\
# Made by `cnisandbox wrap`: runs the plugin, which is {original}, without the runtime's privileges.
# `cnisandbox unwrap --bin-dir {directory}` puts the plugin back in this place.
import gc
import posix
import sys

gc.disable()  # a call is over before garbage matters, and looking for it while modules load takes 3 ms
try:
    if posix.geteuid():  # who is not root has nothing that could be taken away
        posix.execv({program!r}, [{path!r}, *sys.argv[1:]])
    from _frozen_importlib_external import SourceFileLoader

    sys.path += {directories!r}
    bundle = type(sys)("cnisandbox.bundle")  # not imported: the package, which would come with it, is in the bundle
    SourceFileLoader(bundle.__name__, {loader!r}).exec_module(bundle)
    bundle.use({bundle!r})
    from cnisandbox.cli.shim import main
except (ImportError, OSError) as error:
    what = "".join(each if each.isalnum() or each in " ._-/" else "?" for each in str(error))
    print('{{"cniVersion": "1.0.0", "code": 103, "msg": "run {name}: ' + what + '",')
    print({details!r} + "}}")
    sys.exit(1)

main({path!r}, {level!r}, {profile!r}, {log!r})
"""

WRAPPED = "wrapped"
OVERWRITTEN = "overwritten"
INTERRUPTED = "interrupted"
LOST = "lost"
REMOVED = "removed"


class How(NamedTuple):
    """How a shim runs its plugin.

    Attributes:
        level: Name of the level; empty: what the profile says.
        profile: Name or path of the profile.
        log: File for the audit log, or "journald"; empty for none.
    """

    level: str
    profile: str
    log: str


class Wrapped(NamedTuple):
    """What is to be known about one plugin of a wrapped directory.

    Attributes:
        name: Its name.
        state: WRAPPED; OVERWRITTEN: a newer plugin stands where the shim was, and runs as it is; INTERRUPTED: a wrap or
            an unwrap was, and the plugin runs as it is; LOST: the shim has no plugin; REMOVED: the plugin has no shim.
        how: How it is run, as the manifest has it.
        is_changed: Whether the plugin that was moved aside is not the one that was wrapped.
    """

    name: str
    state: str
    how: How
    is_changed: bool


class Directory:
    """A directory of plugins, for whoever holds its lock (`opened`).

    Attributes:
        path: Where it is, without links.
        fd: Its descriptor.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def candidates(self) -> list[str]:
        """Names of the executables that are somebody else's, wrapped or not; links last, since they lead to others."""
        names = [name for name in os.listdir(self.fd) if self._is_candidate(name)]
        return sorted(names, key=lambda name: (os.path.islink(f"{self.path}/{name}"), name))

    def _is_candidate(self, name: str) -> bool:
        if not _NAME.fullmatch(name) or name.endswith(_PASSING) or launcher.plugin_of(self.fd, name) is not None:
            return False
        try:
            status = os.stat(name, dir_fd=self.fd)
        except OSError:
            return False  # a link that leads nowhere
        return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)

    def require_wrappable(self, name: str) -> None:
        """Refuse what cannot be wrapped; to be asked for every plugin before the first is.

        Raises:
            InvalidConfig: There is no plugin of that name.
            InvalidEnvironment: There is something of that name which cannot have a shim.
        """
        if launcher.plugin_of(self.fd, name) is not None:
            raise InvalidConfig(f"wrap {quoted(name)}: it is a plugin of cnisandbox, which confines itself")
        if not self._is_candidate(name):
            raise InvalidConfig(
                f"wrap {quoted(name)}: there is no plugin of that name in {self.path}",
                "a plugin is an executable file; its name has letters, digits and . _ + -",
            )
        if shim.is_shim(f"{self.path}/{name}"):
            if not os.path.lexists(shim.original_of(self.path, name)):
                raise InvalidEnvironment(
                    f"wrap {quoted(name)}: its shim stands there, but the plugin is gone", "install the plugin again"
                )
        elif os.stat(name, dir_fd=self.fd).st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise InvalidEnvironment(
                f"wrap {quoted(name)}: it is a setuid file", "chmod ug-s: a runtime executes plugins as root anyway"
            )

    def wrap(self, name: str, how: How) -> Change:
        """Put a shim in front of a plugin, or bring the one that is there up to date.

        Order: `require_wrappable` has been asked.
        """
        with _originals(self, is_to_be_made=True) as originals_fd:
            assert originals_fd is not None
            _sweep(self, originals_fd, name)
            if shim.is_shim(f"{self.path}/{name}"):
                return self._update(originals_fd, name, how)
            is_upgrade = _move_aside(self, originals_fd, name)
            content = render(self.path, name, how)
            _remember(originals_fd, name, how, content)
            # ORDER: the plugin's second name is on the disk before its first is given away.
            os.fsync(originals_fd)
            _require_same(self, originals_fd, name)
            launcher.write_script(self.fd, name, content)
        return Change("wrapped", name, "anew: a newer plugin had been put over the shim" if is_upgrade else "")

    def _update(self, originals_fd: int, name: str, how: How) -> Change:
        content = render(self.path, name, how)
        _remember(originals_fd, name, how, content, is_known=True)
        status = launcher.status_of(self.fd, name)
        if status is not None and launcher.is_current(self.fd, name, content, status):
            return Change("unchanged", name)
        launcher.write_script(self.fd, name, content)
        return Change("updated", name)

    def unwrap(self, name: str) -> Change:
        """Put a plugin back; "kept" for what is not ours to touch."""
        with _originals(self) as originals_fd:
            if originals_fd is None:
                is_ours = shim.is_shim(f"{self.path}/{name}")
                return Change("kept", name, _LOST_NOTE) if is_ours else Change("not wrapped", name)
            _sweep(self, originals_fd, name)
            change = self._put_back(originals_fd, name)
            if change.what != "kept":
                _forget(originals_fd, name)
        return change

    def _put_back(self, originals_fd: int, name: str) -> Change:
        place, aside = launcher.status_of(self.fd, name), launcher.status_of(originals_fd, name)
        is_ours = shim.is_shim(f"{self.path}/{name}")
        if aside is None:
            return Change("kept", name, _LOST_NOTE) if is_ours else Change("not wrapped", name)
        if place is not None and os.path.samestat(place, aside):
            # KERNEL: a rename of one name of a file over its other name does nothing at all.
            os.unlink(name, dir_fd=originals_fd)
            return Change("unchanged", name, "a wrap or an unwrap of it had been interrupted")
        if place is not None and not is_ours:
            if not self._is_upgrade(name):
                return Change("kept", name, f"what stands there is no shim; the plugin is {ORIGINAL.format(name)}")
            os.unlink(name, dir_fd=originals_fd)
            return Change("left", name, "a newer plugin had been put over the shim; the older one is gone")
        entry = read_manifest(originals_fd).get(name)
        note = "" if entry is None or not _is_changed(originals_fd, name, entry) else "it is not as it was when wrapped"
        os.rename(name, name, src_dir_fd=originals_fd, dst_dir_fd=self.fd)
        return Change("restored", name, note or ("" if place is not None else "the shim was gone"))

    def _is_upgrade(self, name: str) -> bool:
        """Whether it can be what a package manager has put there: an executable of root's that is not one of ours."""
        if not self._is_candidate(name):
            return False
        status = os.stat(name, dir_fd=self.fd)
        return status.st_uid == 0 and not status.st_mode & 0o022

    def wrapped(self) -> list[str]:
        """Names of all plugins that unwrap has something to do for, sorted."""
        with _originals(self) as originals_fd:
            return _known(self, originals_fd)

    def clear(self) -> None:
        """Remove the place of the originals, if there are none in it any more."""
        with _originals(self) as originals_fd:
            if originals_fd is None:
                return
            names = os.listdir(originals_fd)
            if any(not name.startswith(".") for name in names):
                return
            for name in names:  # the manifest, and what an interrupted wrap has left
                os.unlink(name, dir_fd=originals_fd)
        os.rmdir(shim.ORIGINALS, dir_fd=self.fd)


ORIGINAL = shim.ORIGINALS + "/{}"
_LOST_NOTE = "the plugin behind the shim is gone; install it again, over the shim"


@contextmanager
def opened(path: str) -> Iterator[Directory]:
    """Open a directory of plugins and lock it.

    Raises:
        TryAgain: Somebody else has the lock.
        InvalidConfig: The path cannot stand in a script.
    """
    path = os.path.realpath(path)
    if not path.isprintable():
        raise InvalidConfig(f"use directory {quoted(path)}: a path with such characters cannot stand in a script")
    with launcher.opened(path) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryAgain(f"lock directory {quoted(path)}: a wrap or an unwrap is at work in it") from error
        yield Directory(path, fd)


def inspect(path: str) -> list[Wrapped]:
    """Look at what is wrapped in a directory, without a lock.

    Returns:
        One item for each plugin that was wrapped and not unwrapped, by name.
    """
    path = os.path.realpath(path)
    with launcher.opened(path) as fd:
        directory = Directory(path, fd)
        with _originals(directory) as originals_fd:
            manifest = {} if originals_fd is None else read_manifest(originals_fd)
            names = _known(directory, originals_fd)
            return [_look(directory, originals_fd, name, manifest.get(name)) for name in names]


def _look(directory: Directory, originals_fd: int | None, name: str, entry: "Entry | None") -> Wrapped:
    place = launcher.status_of(directory.fd, name)
    aside = None if originals_fd is None else launcher.status_of(originals_fd, name)
    if shim.is_shim(f"{directory.path}/{name}"):
        state = LOST if aside is None else WRAPPED
    elif place is None:
        state = REMOVED
    else:
        state = INTERRUPTED if aside is None or os.path.samestat(place, aside) else OVERWRITTEN
    is_changed = aside is not None and entry is not None and _is_changed(originals_fd, name, entry)
    return Wrapped(name, state, How("", "", "") if entry is None else entry.how, is_changed)


def _known(directory: Directory, originals_fd: int | None) -> list[str]:
    """Names of shims, of plugins moved aside, and of what the manifest has and still stands in its place."""
    known = {name for name in os.listdir(directory.fd) if shim.is_shim(f"{directory.path}/{name}")}
    if originals_fd is not None:
        known |= {name for name in os.listdir(originals_fd) if not name.startswith(".")}
        known |= {name for name in read_manifest(originals_fd) if launcher.status_of(directory.fd, name) is not None}
    return sorted(known)


@contextmanager
def _originals(directory: Directory, *, is_to_be_made: bool = False) -> Iterator[int | None]:
    """Open the place of the originals; None if there is none.

    Raises:
        InvalidEnvironment: It is not root's alone.
    """
    if is_to_be_made:
        with suppress(FileExistsError):
            os.mkdir(shim.ORIGINALS, 0o755, dir_fd=directory.fd)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(shim.ORIGINALS, flags, dir_fd=directory.fd)
    except FileNotFoundError:
        yield None
        return
    try:
        status = os.fstat(fd)
        if status.st_uid != 0 or status.st_mode & 0o022:
            raise InvalidEnvironment(
                f"use directory {quoted(f'{directory.path}/{shim.ORIGINALS}')}: others than root may write to it",
                "look at what is in it: a runtime executes as root what lies there",
            )
        if is_to_be_made:
            os.fchmod(fd, 0o755)  # whatever the umask is
        yield fd
    finally:
        os.close(fd)


def render(directory: str, name: str, how: How) -> bytes:
    """Write a shim.

    Args:
        directory: Where it stands.
        name: Of the plugin, which has been moved aside.
        how: How the plugin is run.

    Raises:
        InvalidEnvironment: The program was not built, or a path is too long for it.
    """
    original = shim.original_of(directory, name)
    is_link = os.path.islink(original)
    advice = f"install cnisandbox again; or put the plugins back: mv {directory}/{shim.ORIGINALS}/* {directory}/"
    path = f"{directory}/{name}"
    code = _TEMPLATE.format(
        name=name,
        original=original,
        directory=directory,
        program=shim.program_of(os.path.join(directory, os.readlink(original))) if is_link else original,
        path=path,
        directories=launcher.import_directories(),
        loader=str(launcher.package_directory() / "bundle.py"),
        bundle=launcher.bundle_path(bytecode.SHIM),
        details=f'"details": {json.dumps(advice)}',
        **how._asdict(),
    )
    # At level root nothing is taken away, and the plugin takes the place of whoever is there: not of a zygote's child.
    socket = "" if how.level == shim.ROOT else protocol.socket_path(protocol.RUNNER)
    return launcher.render_program(name, socket, code, marks.SHIM, shim.subject_of(path, *how))


def _move_aside(directory: Directory, originals_fd: int, name: str) -> bool:
    """Give the plugin its second name.

    Returns:
        Whether another plugin had that name, one that was wrapped and then replaced.
    """
    place, aside = launcher.status_of(directory.fd, name), launcher.status_of(originals_fd, name)
    if place is not None and aside is not None and os.path.samestat(place, aside):
        return False  # the wrap before this one was interrupted here
    temporary = launcher.temporary_name(name)
    os.link(name, temporary, src_dir_fd=directory.fd, dst_dir_fd=originals_fd, follow_symlinks=False)
    os.rename(temporary, name, src_dir_fd=originals_fd, dst_dir_fd=originals_fd)
    return aside is not None


def _require_same(directory: Directory, originals_fd: int, name: str) -> None:
    """Refuse to put a shim over a file that is not the one moved aside: a package manager may be at work just now."""
    place, aside = launcher.status_of(directory.fd, name), launcher.status_of(originals_fd, name)
    if place is None or aside is None or not os.path.samestat(place, aside):
        raise TryAgain(f"wrap {quoted(name)}: somebody else has changed it at this moment", "wrap it again")


def _sweep(directory: Directory, originals_fd: int, name: str) -> None:
    """Remove what an interrupted wrap may have left under a temporary name."""
    for fd in (directory.fd, originals_fd):
        with suppress(FileNotFoundError):
            os.unlink(launcher.temporary_name(name), dir_fd=fd)


class Entry(NamedTuple):
    """What the manifest has about a plugin.

    Attributes:
        original: State and hash of the plugin.
        shim: SHA-256 of its shim.
        how: How it is run.
    """

    original: dict[str, Any]
    shim: str
    how: How


def read_manifest(originals_fd: int) -> dict[str, Entry]:
    """Read the manifest; one that is missing or damaged is empty, because nothing depends on it."""
    try:
        fd = os.open(MANIFEST, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=originals_fd)
    except OSError:
        return {}
    with open(fd, "rb") as file:
        data = file.read(_MANIFEST_BYTES)
    try:
        plugins = json.loads(data)["plugins"]
        return {
            str(name): Entry(dict(each["original"]), str(each["shim"]), How(**each["how"]))
            for name, each in plugins.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_manifest(originals_fd: int, entries: dict[str, Entry]) -> None:
    plugins = {name: {**entry._asdict(), "how": entry.how._asdict()} for name, entry in sorted(entries.items())}
    text = json.dumps({"version": _MANIFEST_VERSION, "plugins": plugins}, indent=1)
    temporary = launcher.temporary_name(MANIFEST.lstrip("."))
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=originals_fd)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o644, dir_fd=originals_fd)
    with open(fd, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(fd)
    os.rename(temporary, MANIFEST, src_dir_fd=originals_fd, dst_dir_fd=originals_fd)


def _remember(originals_fd: int, name: str, how: How, content: bytes, *, is_known: bool = False) -> None:
    """Note a plugin in the manifest; one that is known is the one that was wrapped, whatever it has become since."""
    entries = read_manifest(originals_fd)
    known = entries[name].original if is_known and name in entries else _facts(originals_fd, name)
    entry = Entry(known, hashlib.sha256(content).hexdigest(), how)
    if entries.get(name) != entry:
        _write_manifest(originals_fd, {**entries, name: entry})


def _forget(originals_fd: int, name: str) -> None:
    entries = read_manifest(originals_fd)
    if entries.pop(name, None) is not None:
        _write_manifest(originals_fd, entries)


def _is_changed(originals_fd: int | None, name: str, entry: Entry) -> bool:
    return originals_fd is not None and _facts(originals_fd, name) != entry.original


def _facts(originals_fd: int, name: str) -> dict[str, Any]:
    """What makes a file, or a link, the one that it is."""
    status = os.stat(name, dir_fd=originals_fd, follow_symlinks=False)
    facts: dict[str, Any] = {
        "mode": f"{status.st_mode:o}",
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
    }
    if stat.S_ISLNK(status.st_mode):
        return {**facts, "link": os.readlink(name, dir_fd=originals_fd)}
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=originals_fd)
    with open(fd, "rb") as file:
        return {**facts, "size": status.st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}

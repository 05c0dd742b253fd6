"""Finds the profile of a plugin: the administrator's if there is one, else the package's.

    /etc/cnisandbox/profiles.d/NAME.toml    replaces the package's profile of that name, wholly
    cnisandbox/profile/packaged.py          the package's, compiled
    /run/cnisandbox/profiles/DIGEST         an administrator's, compiled: a copy that may be deleted at any time

Reading TOML and checking what it says takes longer than starting a plugin, so it is done once for each text. Whatever
is wrong with the copy, the text is read again.

Privilege: reads and writes files as root. A file that somebody else could have written is refused, never skipped: who
can write a profile decides what is confined.
"""

import os
import stat

from cnisandbox.digest import sha512_hex
from cnisandbox.errors import ProfileError, quoted, reason
from cnisandbox.hints import NamedTuple
from cnisandbox.profile import packaged
from cnisandbox.profile.schema import Profile, from_plain, to_plain

DIRECTORY = "/etc/cnisandbox/profiles.d"
GENERIC = "generic"
SUFFIX = ".toml"

_CACHE = "/run/cnisandbox/profiles"
# LIMIT: the largest of the package has 10 KiB.
_TEXT_BYTES = 256 * 1024
_CACHE_BYTES = 4 * _TEXT_BYTES
_CACHE_FILES = 256
_PACKAGE = "package"


class ProfileName(NamedTuple):
    """A profile that can be loaded by its name.

    Attributes:
        name: The plugin's name.
        path: The administrator's file; "" if it is the package's.
        is_replaced: Whether the package has one of that name as well, which is not used.
    """

    name: str
    path: str
    is_replaced: bool


def load_profile(name_or_path: str) -> Profile:
    """Load a profile.

    Args:
        name_or_path: With a slash: a file. Without: a name, looked up with the administrator first.

    Raises:
        ProfileError: There is none, it is not root's alone, or it has mistakes.
    """
    if "/" in name_or_path:
        return load_file(name_or_path)
    if _is_name(name_or_path):
        path = _override(name_or_path)
        if path:
            return load_file(path)
        if name_or_path in packaged.PROFILES:
            return from_plain(packaged.PROFILES[name_or_path])
    raise ProfileError(
        f"load profile {quoted(name_or_path)}: there is no profile of that name",
        f"`cnisandbox profile list` shows those that there are; a file needs a slash, as in ./{name_or_path}{SUFFIX}",
    )


def profile_for(plugin_name: str) -> Profile:
    """Load the profile of a plugin; GENERIC if nobody has written one.

    Args:
        plugin_name: Its file name, or the path of it.

    Raises:
        ProfileError: There is one which cannot be used.
    """
    name = os.path.basename(plugin_name)
    has_profile = _is_name(name) and (name in packaged.PROFILES or _override(name))
    return load_profile(name if has_profile else GENERIC)


def profile_names() -> list[ProfileName]:
    """List the profiles that can be loaded by name, sorted.

    Raises:
        ProfileError: The administrator's directory is not root's alone.
    """
    paths = {name: path for name in _names_in_directory() if (path := _override(name))}
    names = sorted({*packaged.PROFILES, *paths})
    return [ProfileName(name, paths.get(name, ""), name in paths and name in packaged.PROFILES) for name in names]


def load_file(path: str) -> Profile:
    """Load the profile that a file holds; its name is the file's.

    Raises:
        ProfileError: The file is missing, is not root's alone, or has mistakes.
    """
    text = read_roots_file(path)
    name = os.path.basename(path).removesuffix(SUFFIX)
    digest = sha512_hex("\0".join((packaged.STAMP, os.path.abspath(path), text)).encode())[:64]
    return _cached(digest) or _read(text, name, path, digest)


def read_roots_file(path: str) -> str:
    """Read a file, and refuse it if somebody else than root could have written it.

    Raises:
        ProfileError: See above; or it cannot be read.
    """
    try:
        _require_roots_alone(os.stat(os.path.dirname(path) or "."), os.path.dirname(path) or ".")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            facts = os.fstat(fd)
            _require_roots_alone(facts, path)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > _TEXT_BYTES:
                raise ProfileError(f"load profile {quoted(path)}: not a file of at most {_TEXT_BYTES} bytes")
            data = os.read(fd, _TEXT_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise ProfileError(f"load profile {quoted(path)}: {reason(error)}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"read profile {path}: line {line}: not UTF-8") from None


def _require_roots_alone(facts: os.stat_result, path: str) -> None:
    # TRUST: who can write this decides what a plugin may do; a sticky directory such as /tmp is everybody's as well.
    if facts.st_uid != 0 or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ProfileError(
            f"load profile {quoted(path)}: somebody else than root may write to it",
            f"chown root:root and chmod go-w {path}, and look at what is in it",
        )


def _override(name: str) -> str:
    """Say where the administrator's profile is; "" if there is none.

    A dangling link, or one to somewhere, counts: it is then refused, not passed over.
    """
    path = f"{DIRECTORY}/{name}{SUFFIX}"
    return path if os.path.lexists(path) else ""


def _names_in_directory() -> list[str]:
    try:
        _require_roots_alone(os.stat(DIRECTORY), DIRECTORY)
        files = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ProfileError(f"list profiles in {DIRECTORY}: {reason(error)}") from error
    return [name for file in files if file.endswith(SUFFIX) and _is_name(name := file.removesuffix(SUFFIX))]


def _is_name(name: str) -> bool:
    return name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii() and name[0].isalnum()


def _read(text: str, name: str, path: str, digest: str) -> Profile:
    from cnisandbox.profile.source import read_profile  # noqa: PLC0415 - 40 ms, for a text that is new

    profile = read_profile(text, name, path, path)
    _keep(digest, profile)
    return profile


def _cached(digest: str) -> Profile | None:
    """Take the compiled copy of a text, if there is one that is root's alone."""
    try:
        _require_roots_alone(os.stat(_CACHE), _CACHE)
        fd = os.open(f"{_CACHE}/{digest}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ProfileError):
        return None
    try:
        _require_roots_alone(os.fstat(fd), digest)
        import json  # noqa: PLC0415 - the entry has it already; other users of this module need it only here

        return from_plain(json.loads(os.read(fd, _CACHE_BYTES)))
    except (OSError, ProfileError, ValueError, TypeError, RecursionError):
        return None
    finally:
        os.close(fd)


def _keep(digest: str, profile: Profile) -> None:
    """Keep the compiled copy, if that can be done; without it the text is read again next time."""
    import json  # noqa: PLC0415 - as above

    temporary = f"{_CACHE}/.{digest}.{os.getpid()}"
    try:
        os.makedirs(_CACHE, 0o755, exist_ok=True)
        _require_roots_alone(os.stat(_CACHE), _CACHE)
        if len(os.listdir(_CACHE)) >= _CACHE_FILES:
            return
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (OSError, ProfileError):
        return
    try:
        os.write(fd, json.dumps(to_plain(profile), separators=(",", ":")).encode())
        os.rename(temporary, f"{_CACHE}/{digest}")
    except OSError:
        os.unlink(temporary)
    finally:
        os.close(fd)

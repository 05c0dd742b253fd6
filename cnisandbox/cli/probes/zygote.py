"""Whether a zygote answers for the launchers that are installed, and is of their build."""

import os
import socket
import time

from cnisandbox.cli import build, launcher
from cnisandbox.cli.launcher import Settings
from cnisandbox.cli.probes import DEGRADED, OK, Probe, Seen
from cnisandbox.errors import CniError
from cnisandbox.zygote import protocol

# LIMIT: systemd starts a zygote when one connects, which takes a second; a launcher waits for less.
_TIMEOUT_S = 5.0

_SAME, _OTHER, _ABSENT, _SILENT, _NONE = "same", "other", "absent", "silent", "none"
# What each answer means for who asks, in the order in which it is told.
_WORDS = {
    _OTHER: "a zygote of another build answers, which serves no call of these",
    _ABSENT: "no zygote; each call starts an interpreter",
    _SILENT: "a zygote does not answer, and every call waits for it first",
    _NONE: "something else than a zygote answers",
}


def probes(directories: list[str], chosen: list[str]) -> tuple[Probe, ...]:
    """Make a probe for each directory of plugins in which there are launchers.

    Args:
        directories: Where runtimes look.
        chosen: Those that were named.
    """
    unique = dict.fromkeys(os.path.realpath(path) for path in (*directories, *chosen))
    return tuple(_probe(path, found) for path in unique if (found := _launchers(path)))


def _launchers(path: str) -> dict[str, Settings]:
    try:
        with launcher.opened(path) as directory_fd:
            found = {name: launcher.settings_of(directory_fd, name) for name in launcher.launchers(directory_fd)}
    except CniError:
        return {}
    return {name: settings for name, settings in found.items() if settings is not None}


def _probe(path: str, found: dict[str, Settings]) -> Probe:
    return Probe(
        f"{path}, warm",
        "calls that take less time than those of the reference plugins; without it they work as well",
        f"cnisandbox install --bin-dir {path} --systemd; once more after each upgrade, or where systemd is not running:"
        " cnisandbox serve",
        lambda: _look(found),
    )


def _look(found: dict[str, Settings]) -> Seen:
    current = build.build_id(str(launcher.package_directory()))
    stale = [name for name, settings in found.items() if settings.build_id != current]
    answers = {name: ask(settings) for name, settings in found.items()}
    texts = [f"installed with another build than this: {' '.join(stale)}"] if stale else []
    for answer, words in _WORDS.items():
        names = [name for name in found if answers[name] == answer]
        texts += [f"{words}: {' '.join(names)}"] if names else []
    if texts:
        return Seen(DEGRADED, "; ".join(texts))
    return Seen(OK, f"a zygote of the same build answers for {' '.join(found)}")


def ask(settings: Settings) -> str:
    """Connect as a launcher does, and listen to what the zygote says of itself; nothing is sent."""
    deadline = time.monotonic() + _TIMEOUT_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(settings.socket)
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            hello = connection.recv(protocol.HELLO.size + 1)
        except (TimeoutError, BlockingIOError):  # the latter when more wait already than there may
            return _SILENT
        except OSError:
            return _ABSENT
    if len(hello) != protocol.HELLO.size:
        return _NONE
    spoken, build_id, _ = protocol.HELLO.unpack(hello)
    if spoken != protocol.PROTOCOL:
        return _NONE
    return _SAME if build_id == settings.build_id else _OTHER

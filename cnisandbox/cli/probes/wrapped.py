"""Whether the plugins that were wrapped are still run without the runtime's privileges."""

import os

from cnisandbox.cli import launcher, shim, wrapping
from cnisandbox.cli.probes import DEGRADED, MISSING, OK, Probe, Seen
from cnisandbox.cli.wrapping import INTERRUPTED, LOST, OVERWRITTEN, REMOVED, WRAPPED, Wrapped
from cnisandbox.errors import CniError
from cnisandbox.profile.load import GENERIC

# What each state means for who asks.
_WORDS = {
    OVERWRITTEN: "overwritten by something newer, which runs as root",
    INTERRUPTED: "not wrapped to the end, and run as root",
    REMOVED: "gone, with the plugin kept aside",
    LOST: "shims whose plugin is gone",
}


def probes(directories: list[str], chosen: list[str]) -> tuple[Probe, ...]:
    """Make a probe for each directory of plugins.

    Args:
        directories: Those that are looked at if something is wrapped in them.
        chosen: Those that are looked at in any case, unless it is plugins of ours that they have.
    """
    wanted = [path for path in directories if os.path.isdir(f"{path}/{shim.ORIGINALS}")]
    wanted += [path for path in chosen if os.path.isdir(f"{path}/{shim.ORIGINALS}") or not _has_launchers(path)]
    unique = dict.fromkeys(os.path.realpath(path) for path in wanted)
    return tuple(_probe(path) for path in unique)


def _has_launchers(path: str) -> bool:
    try:
        with launcher.opened(path) as directory_fd:
            return bool(launcher.launchers(directory_fd))
    except CniError:
        return False


def _probe(path: str) -> Probe:
    return Probe(
        path,
        "plugins that nobody but the runner executes",
        f"cnisandbox wrap --bin-dir {path}, once more after each upgrade; or unwrap",
        lambda: _look(path),
    )


def _look(path: str) -> Seen:
    try:
        found = wrapping.inspect(path)
    except CniError as error:
        return Seen(MISSING, error.msg)
    if not found:
        return Seen(DEGRADED, "nothing is wrapped there")
    texts = [_text(found, state, words) for state, words in _WORDS.items()]
    changed = [each.name for each in found if each.is_changed]
    texts += [f"not the plugins that were wrapped: {' '.join(changed)}"] if changed else []
    faults = [text for text in texts if text]
    if faults:
        return Seen(MISSING if any(each.state == LOST for each in found) else DEGRADED, "; ".join(faults))
    generic = [each.name for each in found if each.how.profile == GENERIC]
    note = f"; with the profile {GENERIC}: {' '.join(generic)}" if generic else ""
    return Seen(OK, f"{sum(each.state == WRAPPED for each in found)} plugins are wrapped{note}")


def _text(found: list[Wrapped], state: str, words: str) -> str:
    names = [each.name for each in found if each.state == state]
    return f"{words}: {' '.join(names)}" if names else ""

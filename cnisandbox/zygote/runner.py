"""Slots for plugins that are not ours: each becomes the entry of one run (cnisandbox/runner/entry.py).

Which plugin is meant, and how it is run, is what its shim was given when the plugin was wrapped; the shim says it
before the environment. The profile is read when the call has come, so that what changed on the disk counts.

Privilege: everything the runtime has, until the run drops it.
"""

from cnisandbox.boundary import seccomp
from cnisandbox.cli import shim
from cnisandbox.hints import NoReturn
from cnisandbox.profile import source  # noqa: F401 - for a profile that nobody has read yet: nothing is imported in a call
from cnisandbox.runner.entry import Ahead, Slot, make_ahead
from cnisandbox.zygote import protocol
from cnisandbox.zygote.slot import Served, Taken


def compile_filters() -> None:
    """Do once what every run would do."""
    seccomp.keeper_filter()
    seccomp.monitor_filter(())
    for has_unix_sockets in (False, True):
        seccomp.foreign_filter((), is_mediated=True, has_unix_sockets=has_unix_sockets)


def _begin(ahead: Ahead, taken: Taken) -> NoReturn:
    shim.serve(taken.subject, Slot(taken.status_fd, ahead))


SERVED = Served(protocol.RUNNER, lambda settle, _mounts_fd: make_ahead(settle), _begin, has_subject=True)

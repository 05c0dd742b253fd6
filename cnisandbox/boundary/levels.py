"""How much is taken away from a worker: the levels, as data.

Each level contains all of the one before it. At mediated no process that runs a plugin's code has a capability; who
acts for it, a gate or a monitor, is confined as a worker at hardened is.

Source: docs/design.md, section "Levels".
"""

from cnisandbox.hints import NamedTuple
from cnisandbox.light import Enum


class Level(Enum):
    """How much is taken away from a worker."""

    ROOT = "root"
    NETADMIN = "netadmin"
    HARDENED = "hardened"
    MEDIATED = "mediated"


class Protections(NamedTuple):
    """What a level takes away.

    Attributes:
        drops_credentials: Service user, no groups, capability sets cut, bounding set emptied, securebits locked.
        binds_lifetime: no_new_privs, not dumpable, dies with its parent.
        has_namespaces: pid, mount, ipc, uts and cgroup namespaces of its own; in view only what it was given.
        has_limits: Resource limits.
        has_landlock: A Landlock domain of the newest ABI that the kernel has.
        has_seccomp: A system call allow-list.
    """

    drops_credentials: bool
    binds_lifetime: bool
    has_namespaces: bool
    has_limits: bool
    has_landlock: bool
    has_seccomp: bool


PROTECTIONS = {
    Level.ROOT: Protections(False, False, False, False, False, False),
    Level.NETADMIN: Protections(True, True, False, False, False, False),
    Level.HARDENED: Protections(True, True, True, True, True, True),
    Level.MEDIATED: Protections(True, True, True, True, True, True),
}

"""A profile: everything that a confined plugin may have and do.

A profile exists in three forms. An administrator reads and writes TOML (docs/profiles.md). Code uses the records below.
Between the two stands plain data, tuples of strings and numbers, which is what the compiled form consists of.

Privilege: none.
"""

from cnisandbox.boundary.levels import Level
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.policy.permit import Permit, SysctlPermit

# LIMIT: a runtime waits for minutes at most; what hangs longer hangs for good.
DEFAULT_TIME_LIMIT_S = 120.0


class Variable(NamedTuple):
    """A name of a link that the netconf gives.

    Attributes:
        key: Where it stands in the netconf: a dotted path. Its value is one name, or a list of names.
        default: The name when the netconf does not have the key; "" for none, DEFAULT_ROUTE for the link of the first
            default route.
    """

    key: str
    default: str


DEFAULT_ROUTE = "@default-route"


class ExtraCapability(NamedTuple):
    """A capability that the plugin keeps, and why."""

    name: str
    reason: str


class Profile(NamedTuple):
    """What a plugin may have and do.

    Attributes:
        name: The plugin's name.
        summary: What the plugin does, in one line.
        source: The file that it was read from; "package" for one of the package's.
        level: The highest level that the plugin works at, at which it runs.
        variables: Names of links that the netconf gives.
        permits: Netlink messages that the monitor sends for it.
        sysctls: Settings that the monitor opens for it.
        readable: Paths that it sees; one that does not exist is skipped.
        writable: Paths that it sees and may write to.
        state: State directories: writable, made when missing, and root's on disk.
        programs: What it may execute: absolute paths with * and ?, "cni:NAME" for a plugin in CNI_PATH.
        raw_sockets: Protocols that it may speak on AF_PACKET sockets in the container's netns: "arp", "dhcp".
        devices: Character devices that it may open.
        unix_sockets: Sockets of daemons that it may connect to.
        capabilities: Capabilities that it keeps.
        time_limit_s: Seconds after which it is killed.
    """

    name: str
    summary: str
    source: str
    level: Level
    variables: tuple[Variable, ...]
    permits: tuple[Permit, ...]
    sysctls: tuple[SysctlPermit, ...]
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    state: tuple[str, ...]
    programs: tuple[str, ...]
    raw_sockets: tuple[str, ...]
    devices: tuple[str, ...]
    unix_sockets: tuple[str, ...]
    capabilities: tuple[ExtraCapability, ...]
    time_limit_s: float


def to_plain(profile: Profile) -> tuple[Any, ...]:
    """Write a profile as nested tuples of strings and numbers."""
    return tuple(_plain(item) for item in profile._replace(level=profile.level.value))  # type: ignore[arg-type]


def _plain(item: Any) -> Any:
    return tuple(_plain(part) for part in item) if isinstance(item, tuple) else item


def from_plain(plain: Any) -> Profile:
    """Read what `to_plain` wrote; lists may stand for tuples.

    Raises:
        TypeError, ValueError: It is nothing that `to_plain` wrote.
    """
    name, summary, source, level, variables, permits, sysctls, *lists, capabilities, time_limit_s = plain
    fields = (
        name,
        summary,
        source,
        Level(level),
        tuple(Variable(*item) for item in variables),
        tuple(Permit(*_tuples(item)) for item in permits),
        tuple(SysctlPermit(*_tuples(item)) for item in sysctls),
        *_tuples(lists),
        tuple(ExtraCapability(*item) for item in capabilities),
        time_limit_s,
    )
    if len(fields) != len(Profile._fields):
        raise ValueError("not the fields of a profile")
    return Profile._make(fields)


def _tuples(items: Any) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in items)

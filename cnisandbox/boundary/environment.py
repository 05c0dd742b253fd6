"""The CNI_* variables: the only input that the entry looks at while it is root.

CNI_ARGS is not among what is looked at; the engine parses it after the drop.

Source: CNI specification 1.1.0, section 2, "Parameters".
"""

from collections.abc import Mapping

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import InvalidEnvironment, quoted
from cnisandbox.hints import NamedTuple

_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME_CHARACTERS = _ALPHANUMERIC | frozenset("_.-")

# LIMIT: IFNAMSIZ is 16 with its terminating NUL.
_IFNAME_BYTES = 15
_FORBIDDEN_IN_IFNAME = frozenset("/:% ")  # of all whitespace, only the space can be printed

VERBS_OF_AN_ATTACHMENT = ("ADD", "DEL", "CHECK")
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
    "VERSION": (),
}


class Environment(NamedTuple):
    """The parameters of a call.

    Attributes:
        verb: "ADD", "DEL", "CHECK", "GC", "STATUS" or "VERSION".
        container_id: Empty for verbs that do not concern an attachment, like the next two.
        netns_path: May be empty for DEL.
        ifname: Name of the interface in the container.
        plugin_dirs: The directories of CNI_PATH.
        may_share_netns: CNI_NETNS_OVERRIDE: CNI_NETNS may be our own netns.
        level: CNISANDBOX_LEVEL; hardened unless the caller, who is root, says otherwise.
        attest_path: CNISANDBOX_ATTEST: file to append the attestations to; may be empty.
        log_target: CNISANDBOX_LOG: what keeps the audit log, a path or journald; may be empty.
    """

    verb: str
    container_id: str
    netns_path: str
    ifname: str
    plugin_dirs: tuple[str, ...]
    may_share_netns: bool
    level: Level
    attest_path: str
    log_target: str = ""


def read_environment(variables: Mapping[str, str]) -> Environment:
    """Validate the CNI_* variables.

    Raises:
        InvalidEnvironment: a variable is missing or malformed; all missing ones are named at once.
    """
    verb = variables.get("CNI_COMMAND", "")
    if verb not in _REQUIRED:
        raise InvalidEnvironment(f"unknown CNI_COMMAND: {quoted(verb)}")
    concerns_attachment = verb in VERBS_OF_AN_ATTACHMENT
    container_id = variables.get("CNI_CONTAINERID", "") if concerns_attachment else ""
    ifname = variables.get("CNI_IFNAME", "") if concerns_attachment else ""
    if container_id:
        _check_container_id(container_id)
    if ifname:
        _check_ifname(ifname)
    missing = [name for name in _REQUIRED[verb] if not variables.get(name)]
    if missing:
        raise InvalidEnvironment(f"required env variables [{','.join(missing)}] missing")
    return Environment(
        verb=verb,
        container_id=container_id,
        netns_path=variables.get("CNI_NETNS", "") if concerns_attachment else "",
        ifname=ifname,
        plugin_dirs=tuple(part for part in variables.get("CNI_PATH", "").split(":") if part),
        may_share_netns=variables.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true"),
        level=_level(variables.get("CNISANDBOX_LEVEL", "")),
        attest_path=variables.get("CNISANDBOX_ATTEST", ""),
        log_target=variables.get("CNISANDBOX_LOG", ""),
    )


def _check_container_id(container_id: str) -> None:
    if container_id[0] not in _ALPHANUMERIC or not _NAME_CHARACTERS.issuperset(container_id):
        raise InvalidEnvironment("invalid characters in containerID", quoted(container_id))


def _check_ifname(ifname: str) -> None:
    if len(ifname.encode("utf-8", "surrogateescape")) > _IFNAME_BYTES:
        raise InvalidEnvironment("interface name is too long", f"{quoted(ifname)}: at most {_IFNAME_BYTES} bytes")
    if ifname in (".", ".."):
        raise InvalidEnvironment("interface name is . or ..")
    # The kernel takes a '%' for a template: "eth%d" would become another name. What cannot be printed misleads people.
    if not (ifname.isprintable() and _FORBIDDEN_IN_IFNAME.isdisjoint(ifname)):
        raise InvalidEnvironment("interface name contains / or : or whitespace characters", quoted(ifname))


def _level(text: str) -> Level:
    try:
        return Level(text or Level.HARDENED.value)
    except ValueError as error:
        names = ", ".join(level.value for level in Level)
        raise InvalidEnvironment(f"CNISANDBOX_LEVEL: {quoted(text)} is not one of {names}") from error

"""The network configuration that a plugin gets on stdin.

Checked in the order of the reference's skeleton: JSON, name, version; then the fields that are the same for every
plugin. A plugin reads its own fields itself, through `NetConf.config`.

Privilege: none.

Source: CNI specification 1.1.0, sections 1 and 4; libcni pkg/skel/skel.go and pkg/utils/utils.go, v1.3.0.
"""

from cnisandbox.cni.result import Result, dns_from, result_from
from cnisandbox.cni.value import Value, decode
from cnisandbox.cni.versions import SUPPORTED, parse_version, require
from cnisandbox.errors import InvalidConfig, UndecodableInput, quoted
from cnisandbox.hints import NamedTuple

_LATEST = SUPPORTED[-1]
_UNSPECIFIED = SUPPORTED[0]

_VALID_ATTACHMENTS = "cni.dev/valid-attachments"
_VALID_ATTACHMENTS_BEFORE_1_1 = "cni.dev/attachments"  # its name when specification 1.1.0 was tagged

_ALPHANUMERIC = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_IDENTIFIER = _ALPHANUMERIC | frozenset("_.-")


class Attachment(NamedTuple):
    """One interface of one container, as a network knows it."""

    container_id: str
    ifname: str


class NetConf(NamedTuple):
    """A network configuration.

    Attributes:
        version: cniVersion; "0.1.0" when it has none.
        name: The network's name, valid as `is_identifier` says.
        type: The plugin's name; empty when missing.
        config: The whole object.
        prev_result: What the plugins before did, or None; for DEL also None when it cannot be read.
        valid_attachments: GC: the attachments of this network that are still valid. None when the key is missing, which
            is not the same as an empty set.
        raw: The bytes as they came, for delegates.
    """

    version: str
    name: str
    type: str
    config: Value
    prev_result: Result | None
    valid_attachments: frozenset[Attachment] | None
    raw: bytes


def is_identifier(text: str) -> bool:
    """Whether a text can be the name of a network or the id of a container.

    Returns:
        True for one or more ASCII letters, digits, "_", "." and "-", of which the first is a letter or digit.

    Source: CNI specification 1.1.0, "Parameters": `^[a-zA-Z0-9][a-zA-Z0-9_.\\-]*$`, matched to the end of the text.
    """
    return text[:1] in _ALPHANUMERIC and _IDENTIFIER.issuperset(text)


def parse_netconf(data: bytes, verb: str = "ADD", supported: tuple[str, ...] = SUPPORTED) -> NetConf:
    """Read and check a network configuration.

    Args:
        data: The whole of stdin; any bytes.
        verb: CNI_COMMAND; some verbs need a version.
        supported: The versions that the plugin does, all of them in `versions.SUPPORTED`.

    Returns:
        The configuration.

    Raises:
        UndecodableInput: data is not one JSON object, or its cniVersion is not a version (see `versions.require`).
        InvalidConfig: A field that every plugin has is missing or has a value that it cannot have. For DEL, only what
            it cannot do without is looked at.
        IncompatibleVersion: The plugin does not do that version, or the version does not have the verb.
    """
    config = _object(data)
    name = _name(config["name"])
    version = _version(config)
    require(verb, version, supported)
    if verb != "DEL":  # which clears up after an ADD that was refused for one of them
        _require_well_known(config)
    return NetConf(
        version=version,
        name=name,
        type=config["type"].string(),
        config=config,
        prev_result=_prev_result(config["prevResult"], version, verb),
        valid_attachments=_valid_attachments(config),
        raw=data,
    )


def sniff_version(data: bytes) -> str:
    """Find the version to report an error in, whatever is wrong with the configuration.

    Returns:
        Its cniVersion if that is a version, "0.1.0" if it has none, and "1.1.0" if it cannot be said.
    """
    try:
        version = _version(_object(data))
        parse_version(version)
    except UndecodableInput:
        return _LATEST
    return version


def _object(data: bytes) -> Value:
    config = decode(data)
    if config.is_present and not isinstance(config.raw, dict):
        raise UndecodableInput(f"decode netconf: expected an object, got {quoted(config.raw)}")
    return config


def _name(value: Value) -> str:
    name = value.string()
    if not name:
        raise value.error("missing network name")
    if not is_identifier(name):
        raise value.error("invalid characters found in network name", quoted(name))
    return name


def _version(config: Value) -> str:
    try:
        return config["cniVersion"].string() or _UNSPECIFIED
    except InvalidConfig as error:  # code 6, not 7: without a version, nothing else in it has a meaning
        raise UndecodableInput(f"decode netconf: {error.msg}") from error


def _require_well_known(config: Value) -> None:
    """Check the types of the fields that mean the same for all plugins.

    Source: CNI specification 1.1.0, "Plugin configuration objects", well-known keys.
    """
    config["ipMasq"].boolean()
    config["ipam"]["type"].string()
    dns_from(config["dns"])


def _prev_result(value: Value, version: str, verb: str) -> Result | None:
    try:
        return result_from(value, version) if value.is_present else None
    except InvalidConfig:
        if verb != "DEL":
            raise
        # DEL has to do without one anyway; what somebody made of the result must not keep it from clearing up.
        return None


def _valid_attachments(config: Value) -> frozenset[Attachment] | None:
    for key in (_VALID_ATTACHMENTS, _VALID_ATTACHMENTS_BEFORE_1_1):
        if key in config:
            return frozenset(_attachment(element) for element in config[key])
    return None


def _attachment(value: Value) -> Attachment:
    # An entry that names nothing would make GC remove what it was meant to protect.
    for field in (value["containerID"], value["ifname"]):
        if not field.string():
            raise field.error("is missing")
    return Attachment(value["containerID"].string(), value["ifname"].string())

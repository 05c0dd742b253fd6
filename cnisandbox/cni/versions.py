"""The published CNI versions: how they are written, which belong together, which verb needs which.

Privilege: none.

Source: CNI specification 1.1.0, "Version considerations"; libcni pkg/version and pkg/skel, v1.3.0.
"""

from cnisandbox.errors import IncompatibleVersion, UndecodableInput, quoted

SUPPORTED: tuple[str, ...] = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

# Versions whose results have one shape. A netconf and its prevResult have to be of one family.
ONE_ADDRESS_PER_FAMILY = ("0.1.0", "0.2.0")
NUMBERED_ADDRESSES = ("0.3.0", "0.3.1", "0.4.0")
CURRENT = ("1.0.0", "1.1.0")
_FAMILIES = (ONE_ADDRESS_PER_FAMILY, NUMBERED_ADDRESSES, CURRENT)

_UNSPECIFIED = "0.1.0"
_MAX_PARTS = 3
_MAX_DIGITS = 18  # LIMIT: what fits a signed 64-bit integer with certainty, as the reference's parser has it
_VERBS_SINCE = {"CHECK": (0, 4, 0), "GC": (1, 1, 0), "STATUS": (1, 1, 0)}


def parse_version(text: str) -> tuple[int, int, int]:
    """Read a version.

    Args:
        text: One to three decimal numbers with dots between them; missing ones count as 0. The empty text is "0.1.0".

    Returns:
        Major, minor and micro number.

    Raises:
        UndecodableInput: text is none of these.

    Source: libcni pkg/version/plugin.go, ParseVersion.
    """
    parts = (text or _UNSPECIFIED).split(".")
    if len(parts) > _MAX_PARTS or not all(_is_number(part) for part in parts):
        raise UndecodableInput(f"decode cniVersion {quoted(text)}: not a version", "write it as MAJOR.MINOR.MICRO")
    major, minor, micro = (*map(int, parts), 0, 0)[:_MAX_PARTS]
    return major, minor, micro


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def family(version: str) -> tuple[str, ...]:
    """Say which versions have results of the same shape as a version's.

    Args:
        version: One of SUPPORTED.

    Returns:
        ONE_ADDRESS_PER_FAMILY, NUMBERED_ADDRESSES or CURRENT.

    Raises:
        IncompatibleVersion: version is not in SUPPORTED.
    """
    for versions in _FAMILIES:
        if version in versions:
            return versions
    raise _incompatible(version, SUPPORTED)


def require(verb: str, version: str, supported: tuple[str, ...] = SUPPORTED) -> None:
    """Refuse a call whose netconf has a version that the verb or the plugin does not do.

    The verb's own minimum comes first, then the plugin's list, which is compared by exact text: "1.0" is not "1.0.0".

    Args:
        verb: ADD, DEL, CHECK, GC or STATUS; other verbs have no minimum.
        version: The netconf's cniVersion, "0.1.0" when it has none.
        supported: The versions that the plugin does.

    Raises:
        IncompatibleVersion: The verb does not exist in that version, or the plugin does not do it.
        UndecodableInput: The verb has a minimum, and version cannot be compared with it.

    Source: libcni pkg/skel/skel.go, pluginMain and checkVersionAndCall.
    """
    if verb in _VERBS_SINCE:
        _require_verb(verb, version, supported)
    if version not in supported:
        raise _incompatible(version, supported)


def _require_verb(verb: str, version: str, supported: tuple[str, ...]) -> None:
    wanted = parse_version(version)
    if wanted < _VERBS_SINCE[verb]:
        since = ".".join(map(str, _VERBS_SINCE[verb]))
        raise IncompatibleVersion(
            f"config version does not allow {verb}", f"config is {quoted(version)}, {verb} exists since {since}"
        )
    if all(parse_version(known) < wanted for known in supported):
        raise IncompatibleVersion(f"plugin version does not allow {verb}", _both_sides(version, supported))


def _incompatible(version: str, supported: tuple[str, ...]) -> IncompatibleVersion:
    return IncompatibleVersion("incompatible CNI versions", _both_sides(version, supported))


def _both_sides(version: str, supported: tuple[str, ...]) -> str:
    return f"config is {quoted(version)}, plugin supports {', '.join(supported)}"

"""CNI_ARGS: `KEY=VALUE;KEY2=VALUE2`, deprecated and everywhere.

Only a plugin that uses it may validate it; callers of other plugins put into it what they like.

Privilege: none.

Source: CNI CONVENTIONS.md; libcni pkg/types/args.go, v1.3.0, LoadArgs.
"""

from cnisandbox.errors import InvalidEnvironment, quoted

_IGNORE_UNKNOWN = "IgnoreUnknown"
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}


def parse_args(text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Read CNI_ARGS.

    Args:
        text: The variable's value; empty when it is not set.
        known: The keys that the plugin uses; matched with regard to case.

    Returns:
        Those of the known keys that are there, each with its last value.

    Raises:
        InvalidEnvironment: A piece is not exactly one key, "=" and one value; or a key is unknown and `IgnoreUnknown`
            is not true; or `IgnoreUnknown` is no boolean.
    """
    if not text:
        return {}
    pairs = [_pair(piece) for piece in text.split(";")]
    ignored = dict(pairs).get(_IGNORE_UNKNOWN, "0")
    if ignored.lower() not in _BOOLEANS:
        raise InvalidEnvironment(f"parse CNI_ARGS: {_IGNORE_UNKNOWN} is {quoted(ignored)}, expected true or false")
    unknown = [f"{key}={value}" for key, value in pairs if key not in known and key != _IGNORE_UNKNOWN]
    if unknown and not _BOOLEANS[ignored.lower()]:
        raise InvalidEnvironment(f"parse CNI_ARGS: unknown args {quoted(unknown)}", f"add {_IGNORE_UNKNOWN}=1")
    return {key: value for key, value in pairs if key in known}


def _pair(piece: str) -> tuple[str, str]:
    key, *values = piece.split("=")
    if len(values) != 1:
        raise InvalidEnvironment(f"parse CNI_ARGS: invalid pair {quoted(piece)}", "write it as KEY=VALUE;KEY2=VALUE2")
    return key, values[0]

"""JSON for a line of the log: any value, one line of ASCII, never an exception.

Loading `json` takes 6 ms, as long as starting the interpreter; its encoder of strings is C, and loads nothing.

Privilege: none.

Source: RFC 8259.
"""

from _json import encode_basestring_ascii  # the C module: `json` takes 6 ms, for its decoder

from cnisandbox.hints import Any

# LIMIT: the codec goes 8 attributes deep; an nf_tables rule, with its expressions, a few lists more.
_MAX_DEPTH = 24


def encode(value: Any, depth: int = 0) -> str:
    """Write a value.

    Args:
        value: What JSON knows, and what a decoded message may have besides: bytes become hexadecimal digits, tuples
            lists, keys text, and anything else the text that it prints as.
        depth: How many values are around it.

    Returns:
        JSON in printable ASCII.
    """
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if depth >= _MAX_DEPTH:
        return '"..."'
    if isinstance(value, dict):
        return f"{{{','.join([f'{encode(str(key))}:{encode(value[key], depth + 1)}' for key in value])}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([encode(element, depth + 1) for element in value])}]"
    return encode(value.hex() if isinstance(value, bytes) else str(value))

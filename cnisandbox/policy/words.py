"""A message in rtnetlink's words, for the audit log.

Privilege: none.
"""

from cnisandbox.hints import Any
from cnisandbox.netlink.message import Message

_FLAGS = ((0x1, "request"), (0x2, "multi"), (0x4, "ack"), (0x8, "echo"))
_GET_FLAGS = ((0x100, "root"), (0x200, "match"))
_NEW_FLAGS = ((0x100, "replace"), (0x200, "excl"), (0x400, "create"), (0x800, "append"))
# LIMIT: bytes of an opaque payload that are shown.
_SHOWN_BYTES = 64


def described(name: str, message: Message) -> dict[str, Any]:
    """Describe a message with values that JSON has.

    Args:
        name: Of its type.
        message: The message.

    Returns:
        "type", "flags", "header", and "attributes" by name; bytes as hexadecimal digits.
    """
    further = _GET_FLAGS if "_GET" in name else _NEW_FLAGS
    flags = [word for bit, word in (*_FLAGS, *further) if message.flags & bit]
    return {"type": name, "flags": flags, "header": message.header, "attributes": _plain(message.attributes)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value[:_SHOWN_BYTES].hex() + ("..." if len(value) > _SHOWN_BYTES else "")
    return value

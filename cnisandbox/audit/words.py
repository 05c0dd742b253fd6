"""A message in a line for people: its type, then each attribute with its value, in rtnetlink's words.

    RTM_NEWLINK flags=request,ack ifindex=3 ifname=veth0 linkinfo.kind=veth linkinfo.data.peer.ifname=eth0

Fields of a message's header stand beside its attributes; those that are 0 are left out.

Privilege: none.
"""

from collections.abc import Iterator, Mapping

from cnisandbox.hints import Any

# LIMIT: a line of a terminal or two; the log itself has all of it.
LINE_CHARACTERS = 400
_MAX_DEPTH = 24
# The parts of a message whose names are no part of a path.
_GROUPS = ("header", "attributes")
_HEADER = "header"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:/+@%*")


def line_of(message: Mapping[str, Any]) -> str:
    """Say what a message is, in one line; cut if it is long."""
    heads = ["type", "key"] if message.get("type") == "sysctl" else ["type"]
    parts = [_text(message[head]) for head in heads if head in message]
    length = sum(map(len, parts))
    for path, value in _leaves({key: message[key] for key in message if key not in heads}, "", 0):
        parts.append(f"{path}={_text(value)}")
        length += len(parts[-1]) + 1
        if length > LINE_CHARACTERS:
            return " ".join(parts)[:LINE_CHARACTERS] + "..."
    return " ".join(parts)[:LINE_CHARACTERS]


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """List what is not made of parts itself, each with its dotted path; a list's elements have the path of the list."""
    if isinstance(value, dict):
        for key in value if depth < _MAX_DEPTH else ():
            part = value[key]
            if key in _GROUPS and isinstance(part, dict):
                shown = {name: field for name, field in part.items() if field != 0} if key == _HEADER else part
                yield from _leaves(shown, path, depth + 1)
            else:
                yield from _leaves(part, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list | tuple) and any(isinstance(part, dict | list | tuple) for part in value):
        for part in value if depth < _MAX_DEPTH else ():
            yield from _leaves(part, path, depth + 1)
    else:
        yield path, value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_text(part) for part in value)
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else repr(text)

"""Reads the lines of the log back, for people: what is no record is said to be none.

Privilege: none.
"""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One line of the log.

    Attributes:
        time: When it was written.
        plugin: Name of the plugin.
        container: The attachment's container; may be empty, like the next one.
        ifname: The attachment's interface.
        netns: "host" or "container"; empty for a line about dropped messages.
        message: The decoded message.
        permit: The permit that matched; empty for a refusal.
        refused: Why the message was refused; empty for a permitted one.
        dropped: How many messages of the session are missing from the log; 0 for a line that is a message.
    """

    time: datetime
    plugin: str
    container: str
    ifname: str
    netns: str
    message: dict[str, Any]
    permit: str
    refused: str
    dropped: int


def parse_line(text: str | bytes) -> Line:
    """Read a line.

    Raises:
        ValueError: It is no line of the log; the message says why.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("not an object")
    is_about_dropped = "dropped" in document
    permit = "" if is_about_dropped else _text(document, "permit", "")
    refused = _text(document, "reason" if is_about_dropped else "refused", "")
    if not permit and not refused:
        raise ValueError("neither permitted nor refused")
    return Line(
        time=_time(_text(document, "time")),
        plugin=_text(document, "plugin"),
        container=_text(document, "container"),
        ifname=_text(document, "ifname"),
        netns=_text(document, "netns", "" if is_about_dropped else None),
        message=_typed(document, "message", dict, {} if is_about_dropped else None),
        permit=permit,
        refused=refused,
        dropped=_typed(document, "dropped", int, 0),
    )


def _text(document: dict[str, Any], key: str, default: str | None = None) -> str:
    text: str = _typed(document, key, str, default)
    return text


def _typed(document: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = document.get(key, default)
    if not isinstance(value, kind):
        raise ValueError(f"no {key!r}" if key not in document else f"{key!r} is no {kind.__name__}")
    return value


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("'time' is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

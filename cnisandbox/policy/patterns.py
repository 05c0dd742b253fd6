"""Patterns of names, and paths of attributes.

Privilege: none.
"""

from collections.abc import Iterator

from cnisandbox.hints import Any
from cnisandbox.netlink.codec import HEADER


def matches(name: str, pattern: str) -> bool:
    """Say whether a name has the form of a pattern: "*" for any characters, "?" for one; nothing else is special."""
    at, mark, star, resume = 0, 0, -1, 0
    while at < len(name):
        if mark < len(pattern) and pattern[mark] == "*":
            star, resume = mark, at
            mark += 1
        elif mark < len(pattern) and pattern[mark] in ("?", name[at]):
            at, mark = at + 1, mark + 1
        elif star >= 0:
            resume += 1
            at, mark = resume, star + 1
        else:
            return False
    return all(character == "*" for character in pattern[mark:])


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a name has the form of one of the patterns."""
    return any(matches(name, pattern) for pattern in patterns)


def paths_of(attributes: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """List the dotted paths of all that stands in a message.

    A list takes no part in a path. What is nested and empty counts itself, with a dot at its end. The header of a
    veth's peer is left out: the judge looks at it by itself.
    """
    for name, value in attributes.items():
        if name != HEADER:
            yield from _paths_of_value(value, prefix + name)


def _paths_of_value(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        found = False
        for inner in paths_of(value, path + "."):
            found = True
            yield inner
        if not found:
            yield path + "."
    elif isinstance(value, list):
        for item in value:
            yield from _paths_of_value(item, path)
    else:
        yield path


def is_path_in(path: str, permitted: tuple[str, ...]) -> bool:
    """Say whether a list of permitted attributes covers a path."""
    return path in permitted or any(_covers(pattern, path) for pattern in permitted)


def _covers(pattern: str, path: str) -> bool:
    if path.endswith(".") and pattern.startswith(path):
        return True
    above, _, last = pattern.rpartition(".")
    if last == "**":
        return path.startswith(above + ".")
    return last == "*" and path.rpartition(".")[0] == above

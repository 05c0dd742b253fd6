"""Patterns of names, and paths of attributes.

Privilege: none.
"""

from cnisandbox.hints import Any
from cnisandbox.netlink.codec import HEADER


def matches(name: str, pattern: str) -> bool:
    """Say whether a name has the form of a pattern: "*" for any characters, "?" for one; nothing else is special."""
    if "?" not in pattern:
        front, wildcard, back = pattern.partition("*")
        if not wildcard:
            return name == pattern
        if "*" not in back:
            return len(name) >= len(front) + len(back) and name.startswith(front) and name.endswith(back)
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


def paths_of(attributes: dict[str, Any], prefix: str = "") -> list[str]:
    """List the dotted paths of all that stands in a message.

    A list takes no part in a path. What is nested and empty counts itself, with a dot at its end. The header of a
    veth's peer is left out: the judge looks at it by itself.
    """
    paths: list[str] = []
    for name, value in attributes.items():
        if isinstance(value, dict | list):
            if name != HEADER:
                paths += _paths_of_value(value, prefix + name)
        elif name != HEADER:
            paths.append(prefix + name)
    return paths


def _paths_of_value(value: Any, path: str) -> list[str]:
    if isinstance(value, dict):
        return paths_of(value, path + ".") or [path + "."]
    if isinstance(value, list):
        return [inner for item in value for inner in _paths_of_value(item, path)]
    return [path]


def is_path_in(path: str, permitted: tuple[str, ...]) -> bool:
    """Say whether a list of permitted attributes covers a path."""
    if path in permitted:
        return True
    above, dot, last = path.rpartition(".")
    if f"{above}{dot}*" in permitted:
        return True
    if dot and not last and any(pattern.startswith(path) for pattern in permitted):
        return True  # something empty, of which a part may be there
    while above:
        if f"{above}.**" in permitted:
            return True
        above = above.rpartition(".")[0]
    return False


def surplus_of(paths: list[str], permitted: tuple[str, ...]) -> str:
    """Find the first path that a list of permitted attributes does not cover; "" for none."""
    for path in paths:
        if path not in permitted and not is_path_in(path, permitted):
            return path
    return ""

"""Compiles the package's profiles: `python -m cnisandbox.profile.compile` writes packaged.py.

The result is checked in, and a test fails when it is not what the files of data/ say. It is Python so that it comes out
of a plugin's byte code, where data is loaded faster than from any other file.

Privilege: none.
"""

import os
import sys
from collections.abc import Iterator

from cnisandbox.digest import sha512_hex
from cnisandbox.errors import ProfileError
from cnisandbox.hints import Any
from cnisandbox.profile import source
from cnisandbox.profile.schema import to_plain

TARGET = os.path.join(os.path.dirname(__file__), "packaged.py")

_HEAD = '''\
# ruff: noqa: E501
# fmt: off
"""The package's profiles, compiled from data/ by compile.py: do not edit.

Privilege: none.
"""

from cnisandbox.hints import Any

# Changes with what a profile can include, and with what is understood of it.
STAMP = "{stamp}"

'''
_UNDERSTOOD_BY = ("schema.py", "source.py", "words.py")


def main() -> None:
    """Write packaged.py."""
    try:
        text = render()
    except ProfileError as error:
        sys.exit("\n".join(filter(None, (error.msg, error.details))))
    with open(TARGET, "w", encoding="utf-8") as file:
        file.write(text)


def render() -> str:
    """Return the text of packaged.py.

    Raises:
        ProfileError: A profile of the package has mistakes.
    """
    names = sorted(file.removesuffix(source.SUFFIX) for file in os.listdir(source.PROFILES))
    profiles = {name: _compiled(name) for name in names}
    shared = _Shared()
    body = "".join(f"    {name!r}: (\n{shared.lines(plain)}    ),\n" for name, plain in profiles.items())
    return f"{_HEAD.format(stamp=_stamp())}{shared.definitions()}\nPROFILES: dict[str, Any] = {{\n{body}}}\n"


def _compiled(name: str) -> tuple[Any, ...]:
    path = os.path.join(source.PROFILES, name + source.SUFFIX)
    return to_plain(source.read_profile(source.read_text(path), name, path, "package"))


def _stamp() -> str:
    directory = os.path.dirname(__file__)
    files = [os.path.join(directory, file) for file in _UNDERSTOOD_BY]
    for folder in (source.FRAGMENTS, source.PROFILES):
        files += [os.path.join(folder, file) for file in sorted(os.listdir(folder))]
    return sha512_hex("\0".join(source.read_text(file) for file in files).encode())[:32]


class _Shared:
    """Names each permit once: profiles have most of theirs in common."""

    def __init__(self) -> None:
        self._names: dict[tuple[Any, ...], str] = {}

    def lines(self, plain: tuple[Any, ...]) -> str:
        return "".join(f"        {self._expression(item)},\n" for item in plain)

    def _expression(self, item: Any) -> str:
        if isinstance(item, tuple) and item and isinstance(item[0], tuple):
            return f"({', '.join(self._name(part) for part in item)},)"
        return repr(item)

    def _name(self, part: tuple[Any, ...]) -> str:
        return self._names.setdefault(part, f"_{len(self._names)}")

    def definitions(self) -> str:
        return "\n".join(self._definitions()) + "\n"

    def _definitions(self) -> Iterator[str]:
        return (f"{name} = {part!r}" for part, name in self._names.items())


if __name__ == "__main__":
    main()

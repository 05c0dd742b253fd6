"""Finds the line in which each key and each element of a TOML text stands; `tomllib` does not say.

The text has been read by `tomllib` already, so it is valid: what follows looks at it just closely enough to tell keys
from strings and comments. Strings are taken apart by `tomllib` too, so an escape means the same to both.

Source: https://toml.io/en/v1.0.0
"""

import tomllib

# The names and indices that lead to a value: ("permit", 0, "links", 1).
Path = tuple[str | int, ...]

_SPACE = " \t"
_ENDS_BARE_KEY = _SPACE + ".=]"
_ENDS_SCALAR = ",]}#\n"


def find_lines(text: str) -> dict[Path, int]:
    """Map each path to the line, counted from 1, in which its key stands (a table: its header; an element: itself).

    Args:
        text: What `tomllib.loads` has accepted.
    """
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """Walks over the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, int] = {(): 1}
        self._lengths: dict[Path, int] = {}  # how many elements each array of tables has so far

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_blank():
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
        return self._found

    def _header(self) -> Path:
        line = self._line()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path: Path = ()
        keys = self._key()
        for key in keys[:-1]:  # on the way, the name of an array of tables means its last element
            path = self._last_element((*path, key))
        path = (*path, keys[-1])
        if is_array:
            index = self._lengths.get(path, 0)
            self._lengths[path] = index + 1
            self._found.setdefault(path, line)
            path = (*path, index)
        self._found.setdefault(path, line)
        self._at += 2 if is_array else 1
        return path

    def _last_element(self, path: Path) -> Path:
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _pair(self, table: Path) -> None:
        line = self._line()
        path = table
        for key in self._key():
            path = (*path, key)
            self._found.setdefault(path, line)
        self._at += 1  # "="
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip_spaces()
        character = self._peek()
        if character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        elif character in "\"'":
            self._string()
        else:
            while self._peek() and self._peek() not in _ENDS_SCALAR:
                self._at += 1

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            if self._peek() == ",":
                self._at += 1
                continue
            self._found[(*path, index)] = self._line()
            self._value((*path, index))
            index += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip_blank() and self._peek() != "}":
            if self._peek() == ",":
                self._at += 1
                continue
            self._pair(path)
        self._at += 1

    def _key(self) -> list[str]:
        """Read a dotted key, up to what ends it."""
        keys = []
        while True:
            self._skip_spaces()
            keys.append(self._quoted_key() if self._peek() in "\"'" else self._bare_key())
            self._skip_spaces()
            if self._peek() != ".":
                return keys
            self._at += 1

    def _bare_key(self) -> str:
        start = self._at
        while self._peek() not in _ENDS_BARE_KEY:
            self._at += 1
        return self._text[start : self._at]

    def _quoted_key(self) -> str:
        start = self._at
        self._string()
        return str(tomllib.loads(f"key = {self._text[start : self._at]}")["key"])

    def _string(self) -> None:
        quote = self._peek()
        is_long = self._text.startswith(quote * 3, self._at)
        end = quote * 3 if is_long else quote
        self._at += len(end)
        while not self._text.startswith(end, self._at):
            self._at += 2 if quote == '"' and self._peek() == "\\" else 1
        self._at += len(end)
        while is_long and self._peek() == quote:  # up to two quotes may stand before the three that end it
            self._at += 1

    def _skip_spaces(self) -> None:
        while self._peek() and self._peek() in _SPACE:
            self._at += 1

    def _skip_blank(self) -> bool:
        """Go over spaces, line ends and comments; False at the end of the text."""
        while self._peek() and self._peek() in " \t\n#":
            if self._peek() == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                self._at += 1
        return bool(self._peek())

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

"""One JSON document from outside, read strictly, and typed access to its fields.

What is read is what Go programs read too, with fewer liberties. A document is refused with UndecodableInput if it

- is longer than MAX_DOCUMENT_BYTES or nested deeper than MAX_DEPTH,
- is not UTF-8 from the first byte to the last, begins with a byte order mark, or has an escape that is half of a
  surrogate pair (encoding/json replaces these by U+FFFD; no Go program writes them, and no UTF-8 file can hold them),
- has NaN, Infinity, a number beyond the range of a double, or anything else that RFC 8259 does not have,
- has something behind its end.

Keys are matched without regard to case, and the last of several equal keys wins, as in encoding/json; where it would
merge two objects under one key, here the last is taken whole. Integers beyond 64 bits become doubles, as in libcni on
their way through a runtime: harmless in a field that nobody reads, refused in one that has to be an integer.

Privilege: none.

Source: RFC 8259; RFC 7493; Go encoding/json, "Unmarshal".
"""

import _json  # the C module: `json` takes 2 ms, for regular expressions that a document in order needs none of
from collections.abc import Callable, Iterator

from cnisandbox.errors import InvalidConfig, UndecodableInput, quoted
from cnisandbox.ip import Address, Interface, ip_address

MAX_DOCUMENT_BYTES = 1 << 20  # LIMIT: of one message of the boundary; a netconf with prevResult has a few kilobytes
MAX_DEPTH = 64  # LIMIT: far above any netconf, far below where `repr` and `json` run out of stack

_INT64_MIN = -(2**63)
_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1
_UINT64_DIGITS = 20
_PREFIX_DIGITS = 3

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_MAC_DIGITS = 12
_MAC_NOTATIONS = ((":", 2), ("-", 2), (".", 4))  # separator, digits of a group
_PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class Value:
    """One JSON value and where it stands; a field that is missing or null is a value too.

    Args:
        raw: What the decoder made of it: None, bool, int, float, str, list or dict. Not to be changed.
        path: Where it stands, such as "ipam.ranges[0][1].subnet"; empty for the whole document.
    """

    __slots__ = ("_folded", "path", "raw")

    def __init__(self, raw: object, path: str) -> None:
        self.raw = raw
        self.path = path
        self._folded: dict[str, object] | None = None

    def __repr__(self) -> str:
        return f"Value({quoted(self.raw)}, {self.path!r})"

    @property
    def is_present(self) -> bool:
        """Whether the field is there and not null."""
        return self.raw is not None

    def error(self, why: str, details: str = "") -> InvalidConfig:
        """Make the error that says what is wrong with this value: "<path>: <why>"."""
        return InvalidConfig(f"{self.path or 'netconf'}: {why}", details)

    def __getitem__(self, key: str) -> "Value":
        """Return a member of an object.

        Args:
            key: ASCII, as the specification writes it; matched without regard to case.

        Returns:
            The last member with that key, or an absent value.

        Raises:
            InvalidConfig: This is there, and not an object.
        """
        path = self.path
        members = self._folded
        if members is None:
            members = self._fold_keys()
        return Value(members.get(key.lower()), f"{path}.{key}" if path else key)

    def __contains__(self, key: str) -> bool:
        """Whether this object has a member with that key, be it null.

        Raises:
            InvalidConfig: This is there, and not an object.
        """
        return key.lower() in (self._fold_keys() if self._folded is None else self._folded)

    def __iter__(self) -> Iterator["Value"]:
        """Iterate over the elements of an array; none if it is absent.

        Raises:
            InvalidConfig: This is there, and not an array.
        """
        if self.raw is None:
            return iter(())
        if not isinstance(self.raw, list):
            raise self._expected("an array")
        return iter([Value(element, f"{self.path}[{index}]") for index, element in enumerate(self.raw)])

    def members(self) -> list[tuple[str, "Value"]]:
        """Return the members of an object with their keys as written, none if it is absent.

        Returns:
            Pairs of key and value, in the order of the document; keys that differ only in case are all there.

        Raises:
            InvalidConfig: This is there, and not an object.
        """
        return [(key, Value(raw, self._path_of(key))) for key, raw in self._members().items()]

    def _fold_keys(self) -> dict[str, object]:
        # Of those that become the same the last one stays, as it should.
        self._folded = {_fold(key): raw for key, raw in self._members().items()}
        return self._folded

    def _members(self) -> dict[str, object]:
        if self.raw is None:
            return {}
        if not isinstance(self.raw, dict):
            raise self._expected("an object")
        return self.raw

    def _path_of(self, key: str) -> str:
        if key and _PLAIN_KEY.issuperset(key):
            return f"{self.path}.{key}" if self.path else key
        return f"{self.path}[{quoted(key)}]"

    def _expected(self, what: str) -> InvalidConfig:
        return self.error(f"expected {what}, got {quoted(self.raw)}")

    def string(self, default: str = "") -> str:
        """Return a string, or the default if it is absent.

        Raises:
            InvalidConfig: This is there, and not a string.
        """
        if self.raw is None:
            return default
        if not isinstance(self.raw, str):
            raise self._expected("a string")
        return self.raw

    def strings(self) -> list[str]:
        """Return an array of strings, empty if it is absent.

        Raises:
            InvalidConfig: This is there, and not an array of strings.
        """
        return [element.string() for element in self]

    def boolean(self, default: bool = False) -> bool:
        """Return a boolean, or the default if it is absent.

        Raises:
            InvalidConfig: This is there, and neither true nor false.
        """
        if self.raw is None:
            return default
        if not isinstance(self.raw, bool):
            raise self._expected("true or false")
        return self.raw

    def integer(self, default: int = 0, *, minimum: int = _INT64_MIN, maximum: int = _INT64_MAX) -> int:
        """Return an integer, or the default if it is absent.

        Args:
            default: Returned as it is, also when it lies outside the bounds.
            minimum: Least allowed value.
            maximum: Greatest allowed value.

        Raises:
            InvalidConfig: This is there, and not an integer (1500.0 is none, as in Go), or out of bounds.
        """
        if self.raw is None:
            return default
        if not isinstance(self.raw, int) or isinstance(self.raw, bool):
            raise self._expected("an integer")
        if not minimum <= self.raw <= maximum:
            raise self.error(f"{self.raw} is not in {minimum}..{maximum}")
        return self.raw

    def address(self) -> Address:
        """Return an IP address.

        Raises:
            InvalidConfig: This is absent, or not an IP address in text form; one with a zone is not, nor is an IPv4 one
                mapped into IPv6.
        """
        text = self._required_string()
        address = _address(text)
        if address is None:
            raise self.error(f"{quoted(text)} is not an IP address")
        return address

    def interface(self) -> Interface:
        """Return what `network` returns, as one object.

        Raises:
            InvalidConfig: As `network`.
        """
        return Interface(*self.network())

    def network(self) -> tuple[Address, int]:
        """Return an IP address and its prefix length; bits behind the prefix are kept.

        Raises:
            InvalidConfig: This is absent, or not an address, "/" and a prefix length in decimal.
        """
        text = self._required_string()
        host, _, prefixlen = text.partition("/")
        address = _address(host)
        if address is None or not (prefixlen.isascii() and prefixlen.isdigit() and len(prefixlen) <= _PREFIX_DIGITS):
            raise self.error(f"{quoted(text)} is not an IP address with a prefix length", "write it like 10.1.2.3/24")
        if int(prefixlen) > address.max_prefixlen:
            raise self.error(f"{quoted(text)} has a prefix longer than {address.max_prefixlen} bits")
        return address, int(prefixlen)

    def mac(self) -> str:
        """Return an Ethernet address.

        Returns:
            Six bytes in lower case with colons, whichever of Go's notations was used (colons, hyphens or dots).

        Raises:
            InvalidConfig: This is absent, or not an Ethernet address.
        """
        text = self._required_string()
        for separator, size in _MAC_NOTATIONS:
            groups = text.split(separator)
            digits = "".join(groups)
            if len(digits) == _MAC_DIGITS and all(len(group) == size for group in groups):
                if not _HEXADECIMAL.issuperset(digits):
                    break
                return bytes.fromhex(digits).hex(":")
        raise self.error(f"{quoted(text)} is not an Ethernet address", "write it like 02:00:5e:10:00:01")

    def _required_string(self) -> str:
        if self.raw is None:
            raise self.error("is missing")
        return self.string()


def decode(data: bytes, what: str = "netconf", path: str = "") -> Value:
    """Read one JSON document.

    Args:
        data: The whole document.
        what: What it is, for messages.
        path: Path of the document's top, with which the paths of its fields begin.

    Returns:
        The document; of any JSON type.

    Raises:
        UndecodableInput: The module's docstring says when.
    """
    # TRUST: whoever may call the plugin wrote these bytes; nothing has looked at them before.
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UndecodableInput(f"decode {what}: longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        raw = _read(text)
        if text.count("{") + text.count("[") > MAX_DEPTH:  # what opens no more of them is nested no deeper
            _require_shallow(raw)
        if "\\u" in text:
            _require_encodable(raw)
    except UnicodeDecodeError as error:
        raise UndecodableInput(f"decode {what}: not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise UndecodableInput(f"decode {what}: a string has half of a surrogate pair") from error
    except RecursionError as error:
        raise UndecodableInput(f"decode {what}: nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise UndecodableInput(f"decode {what}: {_why(data, error)}") from error
    return Value(raw, path)


def _why(data: bytes, error: ValueError) -> str:
    from json import JSONDecodeError  # noqa: PLC0415 - see cnisandbox/late.py

    if not isinstance(error, JSONDecodeError):
        return str(error)
    if not data.strip():
        return "empty input"
    if data.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark"
    return f"{error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno} column {error.colno}"


def _require_encodable(raw: object) -> None:
    import json  # noqa: PLC0415 - see cnisandbox/late.py

    json.dumps(raw, ensure_ascii=False).encode("utf-8")


def _require_shallow(raw: object) -> None:
    containers = _containers([raw])
    for _ in range(MAX_DEPTH):
        containers = [inner for outer in containers for inner in _containers(outer)]
        if not containers:
            return
    raise RecursionError


def _containers(outer: list[object] | dict[str, object]) -> list[list[object] | dict[str, object]]:
    elements = outer.values() if isinstance(outer, dict) else outer
    return [element for element in elements if isinstance(element, (dict, list))]


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        members = {}
        for key, value in pairs:
            members.pop(key, None)  # so that the order is that of the last occurrences: `Value[...]` needs the last one
            members[key] = value
    return members


def _integer(text: str) -> int | float:
    if len(text) <= _UINT64_DIGITS and _INT64_MIN <= (number := int(text)) <= _UINT64_MAX:
        return number
    return _float(text)


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return number


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Rules:
    """What the scanner of `json.JSONDecoder` is told by it."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_object)
    parse_int = staticmethod(_integer)
    parse_float = staticmethod(_float)
    parse_constant = staticmethod(_constant)


_scan: Callable[[str, int], tuple[object, int]] = _json.make_scanner(_Rules())  # type: ignore[arg-type]
_WHITESPACE = " \t\n\r"


def _read(text: str) -> object:
    """Read a document as `json.JSONDecoder` does, by its scanner; what is not in order is left to it."""
    stripped = text.strip(_WHITESPACE)
    try:
        raw, end = _scan(stripped, 0)
        if end == len(stripped):
            return raw
    # While json.decoder is not loaded, the scanner of Python 3.11 has no error to raise: a SystemError for its caller.
    except (ValueError, StopIteration, SystemError):
        pass
    from json import JSONDecoder  # noqa: PLC0415 - see cnisandbox/late.py

    decoder = JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    return decoder.decode(text)


def _fold(key: str) -> str:
    """Fold a key so that it equals a folded ASCII key exactly if encoding/json holds the two to be equal.

    Source: Go encoding/json/fold.go. Of all letters outside ASCII, only U+212A and U+017F have simple folds inside it;
    `str.casefold` would also turn sharp s into "ss".
    """
    return key.lower().replace("\u017f", "s")


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if address.is_mapped else address

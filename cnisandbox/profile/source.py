"""Reads the file of a profile: TOML to a part of a profile, or everything that is wrong with it at once.

    data/profiles/NAME.toml     a profile of the package
    data/fragments/NAME.toml    what several of them have in common; only to be included

Privilege: none of its own; the text comes from a file that is root's alone (load.py).
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import ProfileError, quoted
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.netlink.datagram import MESSAGE_NAMES, NETLINK_NETFILTER, has_path, protocol_of
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile import words
from cnisandbox.profile.lines import Path, find_lines
from cnisandbox.profile.schema import DEFAULT_TIME_LIMIT_S, ExtraCapability, Profile, Variable

_DATA = os.path.join(os.path.dirname(__file__), "data")
PROFILES = os.path.join(_DATA, "profiles")
FRAGMENTS = os.path.join(_DATA, "fragments")
SUFFIX = ".toml"

# Not what reads and resets, such as NFT_MSG_GETRULE_RESET.
_READING = re.compile(r".*_GET[A-Z]*")
_LINE_OF_TOML_ERROR = re.compile(r"(?P<what>.*?) \(at (?:line (?P<line>\d+), column \d+|end of document)\)")


class Problem(NamedTuple):
    """One thing that is wrong in a file.

    Attributes:
        path: The file.
        line: Counted from 1; 0 when the file could not be read, and the text says of which.
        key: Where in it: "permit[0].links[1]"; "" for the file as a whole.
        text: What is wrong.
    """

    path: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        if not self.line:
            return self.text
        return f"{self.path}: line {self.line}: {self.key}{': ' if self.key else ''}{self.text}"


class Part(NamedTuple):
    """What one file says, with what it includes.

    Attributes:
        level: Empty in a fragment.
        time_limit_s: 0 when the file does not say.
        rest: The fields of Profile from `variables` to `capabilities`, each a tuple.
    """

    summary: str
    level: str
    time_limit_s: float
    rest: dict[str, tuple[Any, ...]]


_LIST_KEYS: dict[str, words.Check] = {
    "readable": words.path,
    "writable": words.writable_path,
    "state": words.writable_path,
    "programs": words.program,
    "raw_sockets": words.one_of(words.RAW_SOCKETS),
    "devices": words.device,
    "unix_sockets": words.path,
}
# Array of tables in the file -> field of Profile.
_TABLE_KEYS = {"permit": "permits", "sysctl": "sysctls", "capability": "capabilities"}
_TOP_KEYS = {"summary", "level", "include", "time_limit_s", "netconf", *_LIST_KEYS, *_TABLE_KEYS}
_PERMIT_LISTS: dict[str, words.Check] = {
    "netns": words.one_of(words.NETNS),
    "messages": words.message,
    "links": words.link,
    "kinds": words.kind,
    "related": words.link,
    "attributes": words.attribute,
    "tables": words.nft_table,
    "chains": words.nft_name,
    "jumps": words.nft_name,
    "hooks": words.nft_hook,
    "verdicts": words.one_of(words.NFT_VERDICTS),
}
_FIELDS = ("variables", "permits", "sysctls", *_LIST_KEYS, "capabilities")


def read_profile(text: str, name: str, path: str, origin: str) -> Profile:
    """Read a profile.

    Args:
        text: The content of its file.
        name: The plugin's name.
        path: The file, for messages.
        origin: What the profile's `source` becomes.

    Raises:
        ProfileError: There are mistakes; the first one is the message, the others stand in its details.
    """
    profile, problems = examine_profile(text, name, path, origin)
    if profile is None:
        raise as_error(problems)
    return profile


def as_error(problems: list[Problem]) -> ProfileError:
    """Make one error of all problems."""
    return ProfileError(f"read profile {problems[0]}", "\n".join(map(str, problems[1:])))


def examine_profile(text: str, name: str, path: str, origin: str) -> tuple[Profile | None, list[Problem]]:
    """Read a profile as `read_profile` does.

    Returns:
        The profile, or None and what is wrong with it, in the order of the file.
    """
    reader = _Reader(text, name, path, is_fragment=False)
    part = reader.read()
    if reader.problems:
        return None, sorted(reader.problems, key=lambda problem: problem.line)
    limit = part.time_limit_s or DEFAULT_TIME_LIMIT_S
    return Profile._make((name, part.summary, origin, Level(part.level), *part.rest.values(), limit)), []


class _Reader:
    """Reads one file; what is wrong with it gathers in `problems`."""

    def __init__(self, text: str, name: str, path: str, *, is_fragment: bool, inside: tuple[str, ...] = ()) -> None:
        self.problems: list[Problem] = []
        self._name = name
        self._path = path
        self._is_fragment = is_fragment
        self._inside = (*inside, path)
        self._lines: dict[Path, int] = {(): 1}
        self._document: dict[str, Any] = self._parse(text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            found = _LINE_OF_TOML_ERROR.fullmatch(str(error))
            line = int(found["line"]) if found and found["line"] else text.count("\n") + 1
            what = found["what"] if found else str(error)
            self.problems.append(Problem(self._path, line, "", f"not TOML: {what[:1].lower()}{what[1:]}"))
            return {}
        except RecursionError:
            self.problems.append(Problem(self._path, 1, "", "not TOML that can be read: nested too deep"))
            return {}
        self._lines = find_lines(text)
        return document

    def read(self) -> Part:
        if self.problems:
            return Part("", "", 0, {})
        self._require_known((), self._document, _TOP_KEYS)
        included = [
            part for index, word in self._list((), "include", words.include) for part in self._include(index, word)
        ]
        summary = self._text((), "summary", words.text)
        level = "" if self._is_fragment else self._text((), "level", words.level)
        own = self._own_fields(level)
        rest = {key: _merged([*(part.rest[key] for part in included), own[key]]) for key in _FIELDS}
        rest["variables"] = _last_of_each_key(rest["variables"])
        self._require_declared_variables({variable.key for variable in rest["variables"]})
        return Part(summary, level, self._time_limit(), rest)

    def _own_fields(self, level: str) -> dict[str, tuple[Any, ...]]:
        own: dict[str, tuple[Any, ...]] = {"variables": tuple(self._variables())}
        own["permits"] = tuple(self._each("permit", self._permit))
        own["sysctls"] = tuple(self._each("sysctl", self._sysctl))
        for key, check in _LIST_KEYS.items():
            own[key] = tuple(word for _, word in self._list((), key, check))
        own["capabilities"] = tuple(self._each("capability", lambda path, table: self._capability(path, table, level)))
        return own

    # One table each.

    def _permit(self, path: Path, table: dict[str, Any]) -> Permit | None:
        self._require_known(path, table, {"reason", *_PERMIT_LISTS})
        lists = {
            key: tuple(word for _, word in self._list(path, key, check, is_required=key in ("netns", "messages")))
            for key, check in _PERMIT_LISTS.items()
        }
        reason = self._text(path, "reason", words.text)
        permit = Permit(f"{self._name}:{int(path[-1]) + 1}", reason=reason, **lists)
        self._require_sense(path, permit)
        return permit

    def _sysctl(self, path: Path, table: dict[str, Any]) -> SysctlPermit:
        self._require_known(path, table, {"netns", "key", "access", "reason"})
        return SysctlPermit(
            f"{self._name}:sysctl:{int(path[-1]) + 1}",
            tuple(word for _, word in self._list(path, "netns", words.one_of(words.NETNS), is_required=True)),
            self._text(path, "key", words.sysctl_key),
            self._text(path, "access", words.one_of(words.ACCESS)),
            self._text(path, "reason", words.text),
        )

    def _capability(self, path: Path, table: dict[str, Any], level: str) -> ExtraCapability:
        self._require_known(path, table, {"name", "reason"})
        name = self._text(path, "name", words.capability)
        if level == "mediated" and name in words.CAPABILITIES_BELOW_MEDIATED:
            self._complain((*path, "name"), f"{name} cannot be kept at level mediated: the monitor has it instead")
        return ExtraCapability(name, self._text(path, "reason", words.text))

    def _variables(self) -> Iterable[Variable]:
        for path, value in self._flattened(("netconf",), self._document.get("netconf", {})):
            key = ".".join(str(part) for part in path[1:])
            complaint = words.netconf_key(key) or (
                "is not a text" if not isinstance(value, str) else words.ifname(value)
            )
            if complaint:
                self._complain(path, complaint)
            else:
                yield Variable(key, value)

    def _flattened(self, path: Path, value: Any) -> Iterable[tuple[Path, Any]]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from self._flattened((*path, key), item)
        else:
            yield path, value

    # What a permit says as a whole.

    def _require_sense(self, path: Path, permit: Permit) -> None:
        self._require_known_attributes(path, permit)
        writes = [message for message in permit.messages if message in MESSAGE_NAMES and not _is_reading(message)]
        for key, links in (("links", permit.links), ("related", permit.related)):
            if "any" in links and "host" in permit.netns and writes:
                self._complain((*path, key), f"any link of the host, for {writes[0]}: only what reads may be about any")
        if permit.kinds and "RTM_NEWLINK" not in permit.messages:
            self._complain((*path, "kinds"), "only RTM_NEWLINK has a kind of link")
        if (permit.chains or permit.jumps or permit.hooks or permit.verdicts) and not permit.tables:
            self._complain(path, "chains, jumps, hooks and verdicts are those of tables, and there is no tables")
        if permit.tables and not any(_protocol(message) == NETLINK_NETFILTER for message in permit.messages):
            self._complain((*path, "tables"), "no message of this permit is about nf_tables")

    def _require_known_attributes(self, path: Path, permit: Permit) -> None:
        messages = [message for message in permit.messages if message in MESSAGE_NAMES]
        for index, attribute in enumerate(permit.attributes):
            is_known = any(has_path(message, attribute) for message in messages)
            if messages and not words.attribute(attribute) and not is_known:
                place = (*path, "attributes", index)
                self._complain(place, f"{quoted(attribute)} is no attribute of {' or '.join(messages)}")

    def _require_declared_variables(self, declared: set[str]) -> None:
        for table, keys in (("permit", ("links", "related")), ("sysctl", ("key",))):
            for index, entry in enumerate(_tables(self._document.get(table))):
                for key in keys:
                    for place, word in _words_below((table, index, key), entry.get(key)):
                        for variable in words.netconf_keys_of(word):
                            if variable not in declared:
                                self._complain(place, f"{quoted(variable)} is not declared in [netconf]")

    # Includes.

    def _include(self, index: int, name: str) -> Iterable[Part]:
        place = ("include", index)
        if words.include(name):
            return
        path = package_file(name)
        if path is None:
            self._complain(place, f"{quoted(name)} is neither a fragment nor a profile of the package")
        elif path in self._inside:
            self._complain(place, f"{quoted(name)} includes itself")
        else:
            is_fragment = os.path.dirname(path) == FRAGMENTS
            reader = _Reader(read_text(path), name, path, is_fragment=is_fragment, inside=self._inside)
            part = reader.read()
            if reader.problems:
                self.problems += reader.problems
            else:
                yield part

    # Values.

    def _text(self, path: Path, key: str, check: words.Check) -> str:
        value = self._table_at(path).get(key)
        if value is None:
            self._complain(path, f"there is no {key}")
            return ""
        if not isinstance(value, str):
            self._complain((*path, key), "is not a text")
            return ""
        if complaint := check(value):
            self._complain((*path, key), complaint)
        return value

    def _list(self, path: Path, key: str, check: words.Check, *, is_required: bool = False) -> list[tuple[int, str]]:
        value = self._table_at(path).get(key, [])
        if not isinstance(value, list):
            self._complain((*path, key), "is not a list")
            return []
        if is_required and not value:
            self._complain((*path, key) if key in self._table_at(path) else path, f"there is no {key}")
        good = []
        for index, word in enumerate(value):
            complaint = check(word) if isinstance(word, str) else "is not a text"
            if not complaint and word in value[:index]:
                complaint = f"{quoted(word)} stands here twice"
            if complaint:
                self._complain((*path, key, index), complaint)
            if isinstance(word, str):
                good.append((index, word))
        return good

    def _time_limit(self) -> float:
        value = self._document.get("time_limit_s", 0)
        if "time_limit_s" not in self._document:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._complain(("time_limit_s",), "is not a number")
            return 0
        if complaint := words.time_limit(value):
            self._complain(("time_limit_s",), complaint)
        return float(value)

    def _each(self, key: str, read: Callable[[Path, dict[str, Any]], Any]) -> Iterable[Any]:
        value = self._document.get(key, [])
        if not isinstance(value, list) or len(_tables(value)) < len(value):
            self._complain((key,), f"is not a table [[{key}]]")
            return
        for index, table in enumerate(value):
            yield read((key, index), table)

    def _table_at(self, path: Path) -> dict[str, Any]:
        value: Any = self._document
        for part in path:
            value = value[part]
        found: dict[str, Any] = value
        return found

    def _require_known(self, path: Path, table: dict[str, Any], known: set[str]) -> None:
        for key in table:
            if key not in known:
                self._complain((*path, key), f"there is no such key; there are {', '.join(sorted(known))}")
            elif self._is_fragment and not path and key in ("level", "time_limit_s"):
                self._complain((key,), "a fragment has none")

    def _complain(self, path: Path, text: str) -> None:
        line = next(self._lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self._lines)
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
        self.problems.append(Problem(self._path, line, key, text))


def package_file(name: str) -> str | None:
    """Find what `include` names: a fragment, else a profile of the package."""
    paths = (os.path.join(directory, name + SUFFIX) for directory in (FRAGMENTS, PROFILES))
    return next((path for path in paths if os.path.exists(path)), None)


def read_text(path: str) -> str:
    """Read a file of the package."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def _is_reading(message: str) -> bool:
    return _READING.fullmatch(message) is not None


def _protocol(message: str) -> int:
    return protocol_of(message) if message in MESSAGE_NAMES else -1


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _words_below(path: Path, value: Any) -> Iterable[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        yield from (((*path, index), word) for index, word in enumerate(value) if isinstance(word, str))


def _merged(lists: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(item for items in lists for item in items))


def _last_of_each_key(variables: tuple[Variable, ...]) -> tuple[Variable, ...]:
    """What a file says itself is later than what it includes."""
    return tuple({variable.key: variable for variable in variables}.values())

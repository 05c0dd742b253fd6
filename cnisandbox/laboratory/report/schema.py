"""What stands in an audit document, and the check that it does. docs/audit-schema.md describes the same.

The types below are the schema: mypy holds those who write a document to them, `check` holds documents to them.

Privilege: none.
"""

import json
import math
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from cnisandbox.errors import IoFailure, UndecodableInput, quoted, reason

SCHEMA: Final = "cnisandbox-audit/1"

# LIMIT: ten times what the largest document of ours has; what a figure or a table is made of must end somewhere
MAX_DOCUMENT_BYTES = 64 << 20
MAX_DEPTH = 32
MAX_VECTORS = 2_000
MAX_COLUMNS = 16
MAX_EXPOSURES = 500
MAX_PROCESSES = 1_000
MAX_ENTRIES = 100_000
MAX_TEXT = 16_384
_MAX_NUMBER = 2**53


class Limit(NamedTuple):
    """How many elements a list or an object, or characters a text, may have at most."""

    most: int


class Between(NamedTuple):
    """Between what a number lies."""

    least: float
    most: float


Text = Annotated[str, Limit(MAX_TEXT)]
Texts = Annotated[list[Text], Limit(MAX_ENTRIES)]
Name = Annotated[str, Limit(200)]
Names = Annotated[list[Name], Limit(MAX_ENTRIES)]
Capabilities = Annotated[list[Name], Limit(64)]
Count = Annotated[int, Between(0, _MAX_NUMBER)]
Milliseconds = Annotated[float, Between(-1e9, 1e9)]
Share = Annotated[float, Between(0, 1.001)]

Verdict = Literal["worked", "refused", "no effect", "not applicable", "untested"]
Contained = Literal["yes", "partly", "no"]


class Report(TypedDict):
    """How the document came about: the command line, when (UTC, ISO 8601), how long it took, and by which version."""

    command: Texts
    date: Name
    duration_s: Annotated[float, Between(0, 1e9)]
    cnisandbox: Name


class Machine(TypedDict):
    """Where it was measured."""

    kernel: Name
    architecture: Name
    config_sha256: Name
    config: Annotated[dict[Name, Name], Limit(1_000)]
    sysctls: Annotated[dict[Name, Name], Limit(1_000)]
    lsm: Annotated[list[Name], Limit(64)]
    packages: Annotated[dict[Name, Name], Limit(1_000)]
    python: Name
    cpus: Count


class VectorRow(TypedDict):
    """One attempt."""

    id: Name
    category: Literal["a", "b", "c", "d", "e", "f", "g"]
    tries: Text
    source: Text
    capability: Name
    advice: Text
    where: Name


class VectorList(TypedDict):
    """The attempts that were made: the version and the digest of the published list, and its rows that have cells."""

    version: Name
    sha256: Name
    list: Annotated[list[VectorRow], Limit(MAX_VECTORS)]


class CellMembers(TypedDict):
    """What came of an attempt in a column."""

    verdict: Verdict
    errno: Name
    signal: Name
    process: Name
    outside: Texts
    reason: Text


class Matrix(TypedDict):
    """A cell for each attempt and each column, by the attempt's id and the column's name."""

    columns: Annotated[list[Name], Limit(MAX_COLUMNS)]
    cells: Annotated[dict[Name, Annotated[dict[Name, CellMembers], Limit(MAX_COLUMNS)]], Limit(MAX_VECTORS)]


class Duration(TypedDict):
    """Milliseconds of the rounds: median, quartiles, and each."""

    median: Milliseconds
    q1: Milliseconds
    q3: Milliseconds
    values: Annotated[list[Milliseconds], Limit(MAX_ENTRIES)]


class Credentials(TypedDict):
    """What a process held from a moment on."""

    at_ms: Milliseconds
    event: Text
    uid: Annotated[int, Between(0, 2**32)]
    effective: Capabilities
    bounding_count: Count


class Process(TypedDict):
    """One process of the median round."""

    name: Text
    role: Text
    parent: Count | None
    program: Text
    lived_ms: Annotated[list[Milliseconds], Limit(2)]
    credentials: Annotated[list[Credentials], Limit(10_000)]


class Ablation(TypedDict):
    """What the plugin did without a capability."""

    works: bool
    says: Text


class CapabilitySets(TypedDict):
    """The capabilities of a call: held at some time; checked by the kernel, how often; without which it fails."""

    held: Capabilities
    exercised: Annotated[dict[Name, Count], Limit(64)]
    needed: Capabilities
    ablation: Annotated[dict[Name, Ablation], Limit(64)]


class HeldTime(TypedDict):
    """How long some process held a capability effectively, and which share of the call that is."""

    median: Milliseconds
    q1: Milliseconds
    q3: Milliseconds
    share: Share


class SystemCalls(TypedDict):
    """System calls: those that were made; how many the filter allows (null: there is none), of how many."""

    used: Names
    allowed: Count | None
    total: Count


class Files(TypedDict):
    """Paths that were opened, and those opened for writing."""

    opened: Texts
    written: Texts


class Verb(TypedDict):
    """What a call of one verb exposes."""

    duration_ms: Duration
    processes: Annotated[list[Process], Limit(MAX_PROCESSES)]
    capabilities: CapabilitySets
    held_ms: Annotated[dict[Name, HeldTime], Limit(64)]
    untrusted_bytes: Annotated[dict[Name, Count], Limit(64)]
    syscalls: SystemCalls
    files: Files
    netns_handles: Texts


class Exposure(TypedDict):
    """What the calls of a plugin expose in a column."""

    plugin: Name
    path: Text
    sha256: Name
    column: Name
    netconf: dict[str, Any]
    rounds: Count
    verbs: Annotated[dict[Name, Verb], Limit(16)]
    cannot_see: Texts


class Effect(TypedDict):
    """One thing that the attacker of a replay wants, whether he has got it, and by what that was seen."""

    effect: Text
    happened: bool
    seen: Text


class ReplayOutcome(TypedDict):
    """What came of a replay: what was run, what it led to, what it was told, and why it does not apply."""

    verdict: Literal["worked", "partly worked", "refused", "no effect", "not applicable", "untested", "not run"]
    subject: Text
    effects: Annotated[list[Effect], Limit(1_000)]
    said: Text
    reason: Text


class ReplayCell(ReplayOutcome):
    """The same for a column; for our plugins that is level hardened, and `mediated` is there where it differs."""

    mediated: NotRequired[ReplayOutcome]


class Replay(TypedDict):
    """A defect of the past, brought back: what came of it in each column, and whether that contains it."""

    id: Name
    cve: Name
    title: Text
    tries: Text
    columns: Annotated[dict[Name, ReplayCell], Limit(MAX_COLUMNS)]
    contained: Contained
    why: Text


class Gap(TypedDict):
    """What was meant to be measured and could not be."""

    what: Text
    why: Text


class Document(TypedDict):
    """The audit document."""

    schema: Literal["cnisandbox-audit/1"]
    report: Report
    machine: Machine
    vectors: VectorList
    matrix: Matrix
    plugins: Annotated[list[Exposure], Limit(MAX_EXPOSURES)]
    replays: Annotated[list[Replay], Limit(1_000)]
    gaps: Annotated[list[Gap], Limit(1_000)]


class _Wrong(Exception):
    """Something is not as the schema has it: where, and what it should be."""


def read(path: str) -> Document:
    """Read a document and check it.

    Raises:
        IoFailure: The file cannot be read.
        UndecodableInput: It is not an audit document; the message says where it differs from one.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise IoFailure(f"read audit document {quoted(path)}: {reason(error)}") from error
    except ValueError as error:  # a null byte
        raise IoFailure(f"read audit document {quoted(path)}: {error}") from error
    return decode(data, path)


def decode(data: bytes, name: str) -> Document:
    """Read a document from bytes and check it; members that the schema does not have are left out.

    Args:
        data: The whole document.
        name: What it is called, for messages.

    Raises:
        UndecodableInput: It is not an audit document.
    """
    # TRUST: whoever sent the file wrote it.
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UndecodableInput(f"read audit document {quoted(name)}: longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        raw = json.loads(data.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_members)
    except UnicodeDecodeError as error:
        raise UndecodableInput(f"read audit document {quoted(name)}: not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise UndecodableInput(
            f"read audit document {quoted(name)}: not JSON at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise UndecodableInput(f"read audit document {quoted(name)}: nested too deeply") from error
    except ValueError as error:
        raise UndecodableInput(f"read audit document {quoted(name)}: {error}") from error
    return check(raw, name)


def check(raw: object, name: str, *, is_closed: bool = False) -> Document:
    """Hold a document to the schema.

    Args:
        raw: The document, as `json` reads it.
        name: What it is called, for messages.
        is_closed: Whether a member that the schema does not have is an error.

    Returns:
        A copy without members that the schema does not have.

    Raises:
        UndecodableInput: It differs from the schema.
    """
    try:
        schema = raw.get("schema") if isinstance(raw, dict) else None
        if schema != SCHEMA:
            raise _Wrong("schema", f"expected {SCHEMA!r}, got {_shown(schema)}")
        document = cast(Document, _checked(raw, Document, "", is_closed))
        for path, expected in _contradictions(document):
            raise _Wrong(path, expected)
    except _Wrong as wrong:
        path, what = wrong.args
        raise UndecodableInput(
            f"read audit document {quoted(name)}: {path}: {what}",
            "`cnisandbox audit report` writes such documents; docs/audit-schema.md describes them",
        ) from None
    return document


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has two members of one name")
    return members


def _checked(raw: object, kind: Any, path: str, is_closed: bool) -> object:
    limits: tuple[object, ...] = ()
    if get_origin(kind) is NotRequired:
        (kind,) = get_args(kind)
    if get_origin(kind) is Annotated:
        kind, *rest = get_args(kind)
        limits = tuple(rest)
    origin = get_origin(kind)
    if is_typeddict(kind):
        return _checked_members(raw, kind, path, is_closed)
    if origin is dict:
        return _checked_dict(raw, get_args(kind), limits, path, is_closed)
    if origin is list:
        entries = _sized(raw, list, "an array", limits, path)
        (inner,) = get_args(kind)
        return [_checked(entry, inner, f"{path}[{index}]", is_closed) for index, entry in enumerate(entries)]
    if origin in (UnionType, Union):
        present = next(option for option in get_args(kind) if option is not NoneType)
        return None if raw is None else _checked(raw, present, path, is_closed)
    if origin is Literal:
        if not isinstance(raw, str) or raw not in get_args(kind):
            raise _Wrong(path, f"expected one of {', '.join(map(repr, get_args(kind)))}, got {_shown(raw)}")
        return raw
    if kind is Any:
        return _checked_any(raw, path, MAX_DEPTH)
    return _checked_scalar(raw, kind, limits, path)


def _checked_members(raw: object, kind: Any, path: str, is_closed: bool) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise _Wrong(path, f"expected an object, got {_shown(raw)}")
    hints = _hints(kind)
    missing = [key for key, hint in hints.items() if key not in raw and get_origin(hint) is not NotRequired]
    if missing:
        raise _Wrong(_below(path, missing[0]), "is missing")
    unknown = sorted(set(raw) - set(hints))
    if unknown and is_closed:
        raise _Wrong(_below(path, unknown[0]), f"is no member that {SCHEMA} has")
    return {key: _checked(raw[key], hint, _below(path, key), is_closed) for key, hint in hints.items() if key in raw}


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    if kind not in _HINTS:
        _HINTS[kind] = get_type_hints(kind, include_extras=True)
    return _HINTS[kind]


def _checked_dict(
    raw: object, kinds: tuple[Any, ...], limits: tuple[object, ...], path: str, is_closed: bool
) -> dict[str, object]:
    key_kind, value_kind = kinds
    members = _sized(raw, dict, "an object", limits, path)
    return {
        str(_checked(key, key_kind, f"{path}: name of a member", is_closed)): _checked(
            value, value_kind, _below(path, key), is_closed
        )
        for key, value in members.items()
    }


def _sized(raw: object, kind: type, what: str, limits: tuple[object, ...], path: str) -> Any:
    if not isinstance(raw, kind):
        raise _Wrong(path, f"expected {what}, got {_shown(raw)}")
    most = next((limit.most for limit in limits if isinstance(limit, Limit)), MAX_ENTRIES)
    if len(cast(list[object], raw)) > most:
        raise _Wrong(path, f"has more than {most} entries")
    return raw


def _checked_scalar(raw: object, kind: type, limits: tuple[object, ...], path: str) -> object:
    if kind is str:
        most = next((limit.most for limit in limits if isinstance(limit, Limit)), MAX_TEXT)
        return _checked_text(raw, most, path)
    if kind is bool:
        if not isinstance(raw, bool):
            raise _Wrong(path, f"expected true or false, got {_shown(raw)}")
        return raw
    allowed = (int,) if kind is int else (int, float)
    if not isinstance(raw, allowed) or isinstance(raw, bool):
        raise _Wrong(path, f"expected {'an integer' if kind is int else 'a number'}, got {_shown(raw)}")
    bounds = next((limit for limit in limits if isinstance(limit, Between)), Between(-_MAX_NUMBER, _MAX_NUMBER))
    if not bounds.least <= raw <= bounds.most:
        raise _Wrong(path, f"{quoted(raw)} is not in {bounds.least}..{bounds.most}")
    return raw


def _checked_text(raw: object, most: int, path: str) -> str:
    if not isinstance(raw, str):
        raise _Wrong(path, f"expected a text, got {_shown(raw)}")
    if len(raw) > most:
        raise _Wrong(path, f"is longer than {most} characters")
    if any("\ud800" <= character <= "\udfff" for character in raw):
        raise _Wrong(path, "has half of a surrogate pair")
    return raw


def _checked_any(raw: object, path: str, depth: int) -> object:
    if depth == 0:
        raise _Wrong(path, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(raw, dict):
        _sized(raw, dict, "an object", (), path)
        return {
            _checked_text(key, MAX_TEXT, path): _checked_any(value, _below(path, key), depth - 1)
            for key, value in raw.items()
        }
    if isinstance(raw, list):
        _sized(raw, list, "an array", (), path)
        return [_checked_any(value, f"{path}[{index}]", depth - 1) for index, value in enumerate(raw)]
    if isinstance(raw, str):
        return _checked_text(raw, MAX_TEXT, path)
    if raw is None or isinstance(raw, bool) or (isinstance(raw, (int, float)) and abs(raw) <= 2**64):
        return raw
    raise _Wrong(path, f"{quoted(raw)} is out of range" if isinstance(raw, (int, float)) else "is not JSON")


def _shown(raw: object) -> str:
    if isinstance(raw, (dict, list)):
        return "an object" if isinstance(raw, dict) else "an array"
    return "null" if raw is None else quoted(raw)


def _below(path: str, key: object) -> str:
    plain = isinstance(key, str) and key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    if plain and len(str(key)) <= 80:
        return f"{path}.{key}" if path else str(key)
    return f"{path}[{quoted(key)}]"


def _contradictions(document: Document) -> Iterator[tuple[str, str]]:
    """Find what each member allows for itself and the others do not."""
    ids = [row["id"] for row in document["vectors"]["list"]]
    columns = document["matrix"]["columns"]
    if len(set(ids)) < len(ids):
        yield "vectors.list", "an id is there twice"
    replays = [replay["id"] for replay in document["replays"]]
    if len(set(replays)) < len(replays):
        yield "replays", "an id is there twice"
    if len(set(columns)) < len(columns):
        yield "matrix.columns", "a column is there twice"
    if set(document["matrix"]["cells"]) != set(ids):
        yield "matrix.cells", "expected one row for each id of vectors.list, and no others"
    for id_, row in document["matrix"]["cells"].items():
        if set(row) != set(columns):
            yield _below("matrix.cells", id_), "expected one cell for each of matrix.columns, and no others"
    for number, exposure in enumerate(document["plugins"]):
        for name, verb in exposure["verbs"].items():
            yield from _contradictions_of_verb(verb, f"{_below(f'plugins[{number}].verbs', name)}.processes")


def _contradictions_of_verb(verb: Verb, path: str) -> Iterator[tuple[str, str]]:
    processes = verb["processes"]
    for index, process in enumerate(processes):
        if process["parent"] is not None and process["parent"] >= len(processes):
            yield f"{path}[{index}].parent", "there is no such process"
        if len(process["lived_ms"]) != 2 or not math.isfinite(sum(process["lived_ms"])):
            yield f"{path}[{index}].lived_ms", "expected when it began and when it ended"

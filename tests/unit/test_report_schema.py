"""An audit document is what docs/audit-schema.md says, and whatever else is in the file is refused with its place."""

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import pytest

from cnisandbox.errors import IoFailure, UndecodableInput
from cnisandbox.laboratory.report import schema
from tests.unit.report_documents import document

PAGE = Path(__file__).parents[2] / "docs" / "audit-schema.md"
HOSTILE = (None, True, -1, 2**70, 1.5, 1e308, "", "x" * 20_000, "\ud800", [], [[]], [None], {}, {"": None}, {"x": {}})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document that holds something."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def refusal(raw: object, **options: bool) -> str:
    with pytest.raises(UndecodableInput) as raised:
        schema.check(raw, "a.json", **options)
    return raised.value.msg


def test_a_document_passes_unchanged() -> None:
    assert schema.check(document(), "a.json", is_closed=True) == document()


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(document()))
    assert schema.read(str(path)) == document()


def test_members_of_later_versions_are_left_out() -> None:
    raw: Any = document()
    raw["machine"]["later"] = raw["later"] = 1
    assert schema.check(raw, "a.json") == document()
    assert "later: is no member" in refusal(raw, is_closed=True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON at line 1 column 1"),
        (b"{", "not JSON at line 1 column 2"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "two members of one name"),
        (b'{"schema": "cnisandbox-audit/2"}', "schema: expected 'cnisandbox-audit/1', got 'cnisandbox-audit/2'"),
        (b"[]", "schema: expected 'cnisandbox-audit/1', got null"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 10_000, "a.json"),
        (b" " * (schema.MAX_DOCUMENT_BYTES + 1), "longer than"),
    ],
    ids=["empty", "cut", "latin", "nan", "twice", "later", "array", "deep", "digits", "long"],
)
def test_what_is_no_document_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(UndecodableInput, match=re.escape(said)):
        schema.decode(data, "a.json")


@pytest.mark.parametrize("path", ["missing.json", ".", "a\0b"])
def test_what_cannot_be_read_is_said(tmp_path: Path, path: str) -> None:
    with pytest.raises(IoFailure, match="read audit document"):
        schema.read(f"{tmp_path}/{path}")


def test_every_missing_member_is_named() -> None:
    whole = document()
    for path in places(whole):
        if not isinstance(path[-1], str) or _is_free(path):
            continue
        raw = copy.deepcopy(whole)
        del at(raw, path[:-1])[path[-1]]
        assert f"{path[-1]}: " in refusal(raw) or path == ("schema",), path


def _is_free(path: tuple[Any, ...]) -> bool:
    """Whether the member is a name that is chosen freely, or one that need not be there."""
    free = ("config", "sysctls", "packages", "cells", "exercised", "ablation", "held_ms", "untrusted_bytes", "verbs")
    return (
        (len(path) > 1 and path[-2] in (*free, "netconf", "columns")) or path[-1] == "mediated" or "cells" in path[:-1]
    )


def test_whatever_stands_in_a_place_is_kept_or_refused() -> None:
    raw: Any = document()
    raw["plugins"] = raw["plugins"][2:3]
    raw["plugins"][0]["verbs"].pop("DEL")
    raw["vectors"]["list"] = raw["vectors"]["list"][:1]
    raw["matrix"]["cells"] = {row["id"]: raw["matrix"]["cells"][row["id"]] for row in raw["vectors"]["list"]}
    for path in list(places(raw)):
        kept = at(raw, path)
        for value in HOSTILE:
            at(raw, path[:-1])[path[-1]] = value
            with contextlib.suppress(UndecodableInput):
                schema.check(raw, "a.json")
        at(raw, path[:-1])[path[-1]] = kept


def test_the_place_of_what_is_wrong_is_told() -> None:
    raw: Any = document()
    raw["plugins"][1]["verbs"]["ADD"]["processes"][0]["credentials"][0]["uid"] = "root"
    said = "plugins[1].verbs.ADD.processes[0].credentials[0].uid: expected an integer, got 'root'"
    assert refusal(raw) == f"read audit document 'a.json': {said}"


def _row_twice(raw: Any) -> None:
    raw["vectors"]["list"].append(raw["vectors"]["list"][0])


def _row_without_cells(raw: Any) -> None:
    del raw["matrix"]["cells"]["b-mtu"]


def _cell_too_few(raw: Any) -> None:
    del raw["matrix"]["cells"]["b-mtu"]["root"]


def _column_twice(raw: Any) -> None:
    raw["matrix"]["columns"].append("root")


def _no_such_parent(raw: Any) -> None:
    raw["plugins"][0]["verbs"]["ADD"]["processes"][1]["parent"] = 2


def _no_end(raw: Any) -> None:
    raw["plugins"][0]["verbs"]["ADD"]["processes"][1]["lived_ms"] = [1.0]


def _replay_twice(raw: Any) -> None:
    raw["replays"].append(raw["replays"][0])


@pytest.mark.parametrize(
    "contradict",
    [_row_twice, _row_without_cells, _cell_too_few, _column_twice, _no_such_parent, _no_end, _replay_twice],
)
def test_a_document_that_contradicts_itself_is_refused(contradict: Any) -> None:
    raw: Any = document()
    contradict(raw)
    assert refusal(raw)


def _types(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    if is_typeddict(kind) and kind.__name__ not in found:
        found[kind.__name__] = kind
        for hint in get_type_hints(kind).values():
            _types(hint, found)
    for inner in getattr(kind, "__args__", ()):
        _types(inner, found)
    return found


def test_every_member_is_documented_and_every_documented_member_exists() -> None:
    existing = {key for kind in _types(schema.Document, {}).values() for key in get_type_hints(kind)}
    documented = set(re.findall(r"^\| `([a-z0-9_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert documented == existing


def test_every_verdict_is_documented() -> None:
    text = PAGE.read_text()
    for verdict in ("worked", "refused", "no effect", "not applicable", "untested", "partly worked", "not run"):
        assert f'`"{verdict}"`' in text

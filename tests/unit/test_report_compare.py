"""What gets worse between two reports is found, and ends with status 1; nothing else does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cli import audit_compare, subcommand
from cnisandbox.cli.main import Command
from cnisandbox.laboratory.report.compare import BETTER, CHANGED, LOST, NEW, WORSE, Finding, compare
from cnisandbox.laboratory.report.comparison import members, render
from tests.unit.report_documents import cell, document, hostile, replayed, vector

Change = Callable[[Any], object]


def found(change: Change, *, backwards: bool = False) -> list[tuple[str, tuple[str, ...]]]:
    """The findings of a document against one in which something has changed."""
    before, after = document(), document()
    change(after)
    findings = compare(after, before) if backwards else compare(before, after)
    return [(finding.kind, finding.where) for finding in findings]


def put(id_: str, column: str, *made: Any, **members: Any) -> Change:
    def change(raw: Any) -> None:
        raw["matrix"]["cells"][id_][column] = cell(*made, **members)

    return change


def verb_of(raw: Any, number: int = 1) -> Any:
    return raw["plugins"][number]["verbs"]["ADD"]


def test_a_document_is_not_different_from_itself() -> None:
    assert compare(document(), document()) == []


@pytest.mark.parametrize("column", ["netadmin", "hardened", "mediated", "runner"])
def test_an_attempt_that_was_refused_and_works_is_worse(column: str) -> None:
    before, after = document(), document()
    put("c-delete-host-link", column, "refused", "EPERM")(before)
    put("c-delete-host-link", column, "worked")(after)
    (finding,) = compare(before, after)
    assert finding == Finding(
        WORSE, "matrix", ("c-delete-host-link", column), "refused (EPERM)", "worked, in the engine"
    )
    assert [each.kind for each in compare(after, before)] == [BETTER]


@pytest.mark.parametrize(
    ("change", "kinds", "backwards"),
    [
        (put("b-mtu", "mediated", "worked"), [WORSE], [BETTER]),
        (put("a-sys-module-load", "mediated", "worked"), [WORSE], [LOST]),
        (put("a-sys-module-load", "mediated", "refused", "EPERM"), [NEW], [LOST]),
        (put("b-mtu", "runner", "refused", "EACCES"), [CHANGED], [CHANGED]),
        (put("b-mtu", "runner", "no effect"), [CHANGED], [CHANGED]),
        (put("b-mtu", "runner", "refused", "EPERM", outside=["link x"]), [WORSE], [BETTER]),
        (
            put("d-core-pattern", "netadmin", "refused", "EACCES", outside=["another"]),
            [WORSE, CHANGED],
            [WORSE, CHANGED],
        ),
        (put("c-delete-host-link", "root", "untested"), [LOST, CHANGED], [CHANGED, CHANGED]),
        (put("c-delete-host-link", "root", "refused", "EPERM"), [CHANGED, CHANGED], [CHANGED, CHANGED]),
        (put("g-fork", "root", "worked", outside=["processes"]), [CHANGED, CHANGED], [LOST, CHANGED]),
    ],
)
def test_cells(change: Change, kinds: list[str], backwards: list[str]) -> None:
    assert [kind for kind, _ in found(change)] == kinds
    assert [kind for kind, _ in found(change, backwards=True)] == backwards


def test_a_column_or_an_attempt_that_is_gone_is_no_longer_known() -> None:
    def change(raw: Any) -> None:
        raw["matrix"]["columns"].remove("runner")
        for row in raw["matrix"]["cells"].values():
            del row["runner"]

    assert {kind for kind, _ in found(change)} == {LOST}
    assert {kind for kind, _ in found(change, backwards=True)} == {NEW}


def test_a_new_attempt_that_works_is_new() -> None:
    def change(raw: Any) -> None:
        raw["vectors"]["list"].append(vector("f-bpf", "load a program"))
        raw["matrix"]["cells"]["f-bpf"] = {column: cell("worked") for column in raw["matrix"]["columns"]}

    assert {kind for kind, _ in found(change)} == {NEW}


def _hold_more(raw: Any) -> None:
    verb_of(raw)["capabilities"]["held"] = ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]


def _read_more(raw: Any) -> None:
    verb_of(raw, 2)["untrusted_bytes"] = {"CAP_NET_ADMIN": 1}


def _allow_more(raw: Any) -> None:
    verb_of(raw)["syscalls"]["allowed"] = 58


def _allow_all(raw: Any) -> None:
    verb_of(raw)["syscalls"]["allowed"] = None


def _reach_more(raw: Any) -> None:
    verb_of(raw)["netns_handles"].append("another")


def _replay_works(raw: Any) -> None:
    raw["replays"][0]["columns"]["runner"] = replayed("worked")


def _replay_works_in_part_when_mediated(raw: Any) -> None:
    raw["replays"][0]["columns"]["cnisandbox"]["mediated"] = replayed("partly worked")


def _contained_less(raw: Any) -> None:
    raw["replays"][0]["contained"] = "partly"


@pytest.mark.parametrize(
    "change",
    [
        _hold_more,
        _read_more,
        _allow_more,
        _allow_all,
        _reach_more,
        _replay_works,
        _replay_works_in_part_when_mediated,
        _contained_less,
    ],
)
def test_what_is_worse_is_better_the_other_way_round(change: Change) -> None:
    assert [kind for kind, _ in found(change)] == [WORSE]
    assert [kind for kind, _ in found(change, backwards=True)] == [BETTER]


def _need_more(raw: Any) -> None:
    verb_of(raw)["capabilities"]["needed"].append("CAP_SYS_ADMIN")


def _take_longer(raw: Any) -> None:
    verb_of(raw)["duration_ms"] = {"median": 500.0, "q1": 490.0, "q3": 510.0, "values": [500.0]}


def _be_held_shorter(raw: Any) -> None:
    verb_of(raw)["held_ms"]["CAP_NET_ADMIN"]["share"] = 0.5


def _read_longer(raw: Any) -> None:
    verb_of(raw)["untrusted_bytes"] = {"CAP_NET_ADMIN": 1024}


def _other_program(raw: Any) -> None:
    raw["plugins"][1]["sha256"] = "6" * 64


def _other_machine(raw: Any) -> None:
    raw["machine"]["kernel"] = "6.19.0"


def _other_package(raw: Any) -> None:
    raw["machine"]["packages"]["crun"] = "1.8"


def _other_list(raw: Any) -> None:
    raw["vectors"]["sha256"] = "b" * 64


def _hold_less_as_root(raw: Any) -> None:
    verb_of(raw, 0)["capabilities"]["held"] = ["CAP_NET_ADMIN"]


@pytest.mark.parametrize(
    "change",
    [
        _need_more,
        _take_longer,
        _be_held_shorter,
        _read_longer,
        _other_program,
        _other_machine,
        _other_package,
        _other_list,
        _hold_less_as_root,
    ],
)
def test_what_is_merely_different_is_told(change: Change) -> None:
    assert [kind for kind, _ in found(change)] == [CHANGED]
    assert [kind for kind, _ in found(change, backwards=True)] == [CHANGED]


def test_durations_that_overlap_are_not_told() -> None:
    def change(raw: Any) -> None:
        verb_of(raw)["duration_ms"]["median"] *= 1.05

    assert found(change) == []


def test_what_many_capabilities_have_in_common_is_told_once() -> None:
    def change(raw: Any) -> None:
        verb_of(raw, 0)["untrusted_bytes"] = {}

    assert found(change) == [
        (CHANGED, ("bridge", "root", "ADD", "untrusted bytes", "CAP_CHOWN, CAP_NET_ADMIN, CAP_NET_RAW and 38 more"))
    ]


def test_a_plugin_that_was_not_measured_again_is_no_longer_known() -> None:
    def change(raw: Any) -> None:
        del raw["plugins"][1]
        del raw["replays"][0]

    assert found(change) == [(LOST, ("bridge", "hardened", "ADD")), (LOST, ("path-traversal",))]


def test_the_worse_comes_first_and_the_sum_last() -> None:
    before, after = document(), document()
    put("b-mtu", "mediated", "worked")(after)
    _other_machine(after)
    put("b-mtu", "hardened", "refused", "EPERM")(after)
    assert render(compare(before, after)).splitlines() == [
        "worse",
        "  b-mtu mediated  no effect -> worked, in the engine",
        "",
        "better",
        "  b-mtu hardened  worked, in the engine -> refused (EPERM)",
        "",
        "changed",
        "  kernel  6.18.0 -> 6.19.0",
        "",
        "1 worse, 1 better, 1 changed",
    ]


def test_no_difference_is_said() -> None:
    assert render([]) == "no difference\n"


def test_nothing_drives_the_terminal() -> None:
    shown = render(compare(document(), hostile("\033]0;x\007\r\x9b31m\n")))
    assert shown.replace("\n", "").isprintable()


def test_findings_are_for_programs_as_well() -> None:
    before, after = document(), document()
    put("b-mtu", "mediated", "worked")(after)
    made: Any = json.loads(json.dumps(members(compare(before, after), True)))
    assert made["worse"] is True
    assert made["counts"] == {"worse": 1, "no longer known": 0, "better": 0, "new": 0, "changed": 0}
    assert made["findings"][0]["where"] == ["b-mtu", "mediated"]


COMMANDS = (Command("compare", audit_compare.__name__, ""),)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    before, after = document(), document()
    put("b-mtu", "mediated", "worked")(after)
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, made in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(made))
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["A", "B"], 1),
        (["B", "A"], 0),
        (["A", "A"], 0),
        (["--json", "A", "B"], 1),
        (["A", "no"], 2),
        (["/etc", "A"], 2),
    ],
)
def test_the_status_says_it(files: tuple[str, str], words: list[str], status: int) -> None:
    named = [{"A": files[0], "B": files[1]}.get(word, word) for word in words]
    assert subcommand.run(COMMANDS, ["compare", *named], "cnisandbox audit") == status


@pytest.mark.parametrize("words", [[], ["A"], ["A", "B", "C"], ["--no", "A", "B"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        subcommand.run(COMMANDS, ["compare", *words], "cnisandbox audit")
    assert ended.value.code == 2


def test_what_is_no_longer_known_can_count_as_worse(files: tuple[str, str], tmp_path: Path) -> None:
    made: Any = document()
    put("b-mtu", "mediated", "untested")(made)
    lost = tmp_path / "lost.json"
    lost.write_text(json.dumps(made))
    assert subcommand.run(COMMANDS, ["compare", files[0], str(lost)], "cnisandbox audit") == 0
    assert subcommand.run(COMMANDS, ["compare", "--strict", files[0], str(lost)], "cnisandbox audit") == 1

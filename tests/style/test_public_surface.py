"""What the documentation says is public, and in which order privileges are dropped, is what the code says."""

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import cnisandbox
from cnisandbox.boundary import confinement

DOCS = Path(__file__).parents[2] / "docs"


def between(document: str, marker: str) -> str:
    """Return what stands in a document between <!-- marker --> and <!-- /marker -->."""
    text = (DOCS / document).read_text()
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    assert text.count(begin) == text.count(end) == 1, f"docs/{document}: no single pair of markers {begin}"
    return text.partition(begin)[2].partition(end)[0]


def documented_names() -> list[str]:
    """Take the first `name` of each line of a list or table."""
    lines = re.findall(r"^ *[-*|][ |]*`([A-Za-z_]\w*)", between("library.md", "public-api"), re.MULTILINE)
    assert lines
    return lines


def test_the_public_names_are_those_that_the_documentation_lists() -> None:
    assert sorted(documented_names()) == sorted(cnisandbox.__all__)


def test_each_public_name_exists_and_is_explained() -> None:
    for name in cnisandbox.__all__:
        public = getattr(cnisandbox, name)
        assert inspect.getdoc(public), name
        assert public.__module__.startswith("cnisandbox."), name


def test_nothing_else_that_is_defined_here_is_exported_by_accident() -> None:
    visible = {name for name in vars(cnisandbox) if not name.startswith("_")}
    modules = {name for name in visible if inspect.ismodule(getattr(cnisandbox, name))}
    assert visible - modules == set(cnisandbox.__all__)


def test_the_all_list_is_sorted_and_has_no_name_twice() -> None:
    assert list(cnisandbox.__all__) == sorted(set(cnisandbox.__all__))


def documented_stages() -> list[tuple[int, str, str]]:
    rows = re.findall(
        r"^(\d+)\. \*\*(\w+)\*\*: (.+?)(?=^\d+\. |\Z)", between("security-model.md", "drop-stages"), re.M | re.S
    )
    return [(int(number), name, " ".join(text.split())) for number, name, text in rows]


def test_the_stages_of_the_drop_are_those_that_the_documentation_lists() -> None:
    wanted = [(number, *stage) for number, stage in enumerate(confinement.STAGES.items(), start=1)]
    assert documented_stages() == wanted


def named_stages(function: Callable[..., object]) -> list[str]:
    """Name the stages of a function in the order of its lines."""
    return [
        str(node.args[0].value)
        for node in ast.walk(ast.parse(inspect.getsource(function)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "stage"
        and isinstance(node.args[0], ast.Constant)
    ]


def called(function: Callable[..., object]) -> list[str]:
    """Name the functions that a function calls, in the order of its lines."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Call)]
    calls.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func) for node in calls]


def test_the_code_goes_through_the_stages_in_that_order() -> None:
    """What can be made ahead, after the witness was called; then the rest, of which "namespaces" has the netns."""
    order = list(confinement.STAGES)
    assert named_stages(confinement.prepare) == ["attest", "namespaces"]
    assert named_stages(confinement.complete) == order[order.index("namespaces") :]
    assert named_stages(confinement.confine) == []
    assert ast.unparse(ast.parse(inspect.getsource(confinement.confine)).body[0]).endswith(
        "return complete(wanted, kept, prepare(wanted))"
    )


def test_the_netns_is_entered_after_the_root_was_exchanged() -> None:
    """As the stage says: each process has namespaces of its own and a view before it knows which netns is meant."""
    ahead, rest = called(confinement.prepare), called(confinement.complete)
    views = [index for index, name in enumerate(ahead) if "enter_empty_root" in name]
    assert len(views) == 1
    assert ahead.index("enter_own_namespaces") < views[0]
    assert "enter_netns" not in ahead
    assert rest.index("enter_mounts") < rest.index("enter_netns") < rest.index("join_userns")


def test_every_stage_that_is_named_anywhere_is_on_the_list() -> None:
    folder = Path(confinement.__file__).parent
    used = {
        node.args[0].value
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "stage"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used == set(confinement.STAGES) - {"load"}

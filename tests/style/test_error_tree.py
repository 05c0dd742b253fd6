"""The tree in the docstring of errors.py is the tree of the classes."""

import ast
import inspect
import re
from pathlib import Path

from cnisandbox import errors
from cnisandbox.errors import CniError, quoted

_ROW = re.compile(r"^    (?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: (?P<code>\d+))?(?:  +.*)?$", re.MULTILINE)


def documented() -> dict[str, tuple[str | None, int | None]]:
    """Parse the docstring: name of each class to its parent and code."""
    assert errors.__doc__ is not None
    found: dict[str, tuple[str | None, int | None]] = {}
    path: list[str] = []
    for row in _ROW.finditer(errors.__doc__):
        depth = len(row["branch"]) // 4
        del path[depth:]
        found[row["name"]] = (path[-1] if path else None, int(row["code"]) if row["code"] else None)
        path.append(row["name"])
    return found


def defined() -> dict[str, type[CniError]]:
    classes = {name: item for name, item in vars(errors).items() if inspect.isclass(item)}
    assert all(issubclass(item, CniError) for item in classes.values())
    return classes


def test_the_documented_tree_is_the_tree_of_the_classes() -> None:
    tree = {name: None if cls is CniError else cls.__bases__[0].__name__ for name, cls in defined().items()}
    assert {name: parent for name, (parent, _) in documented().items()} == tree


def test_the_documented_codes_are_the_codes_of_the_classes() -> None:
    for name, (_, code) in documented().items():
        cls = defined()[name]
        is_inner = bool(cls.__subclasses__())
        assert (code is None) == is_inner, name
        if code is not None:
            assert cls.code == code, name


def test_no_code_stands_for_two_errors() -> None:
    codes = [cls.code for cls in defined().values() if not cls.__subclasses__()]
    assert len(codes) == len(set(codes))


def test_codes_are_the_specifications_or_above_a_hundred() -> None:
    of_the_specification = {1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51}
    assert {cls.code for cls in defined().values() if cls.code < 100} == of_the_specification


def test_the_families_are_not_raised_themselves() -> None:
    """Their code would be 999, which says nothing; EnvironmentFailure is raised where no code of its own fits."""
    for path in Path(errors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                assert node.exc.func.id not in ("RequestError", "IsolationError"), f"{path}:{node.lineno}"


def test_every_class_says_what_it_means() -> None:
    for name, cls in defined().items():
        assert inspect.getdoc(cls), name


def test_a_value_from_outside_is_cut_and_never_breaks_the_line() -> None:
    text = quoted("x\n" * 500)
    assert len(text) <= 123
    assert "\n" not in text
    assert quoted("\udcff\x00") == repr("\udcff\x00")

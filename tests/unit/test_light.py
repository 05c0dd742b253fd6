"""The small ones behave like those of the standard library, as far as they are used."""

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

import pytest

from cnisandbox import light

ENUMS: list[Any] = [enum.Enum, light.Enum]
SUPPRESS: list[Any] = [contextlib.suppress, light.suppress]
MANAGERS: list[Any] = [contextlib.contextmanager, light.contextmanager]


def test_they_are_not_those_of_the_standard_library() -> None:
    """The control."""
    assert light.Enum is not enum.Enum
    assert light.suppress is not contextlib.suppress
    assert light.contextmanager is not contextlib.contextmanager


@pytest.mark.parametrize("base", ENUMS)
class TestEnum:
    @pytest.fixture
    def colour(self, base: Any) -> Any:
        class Colour(base):  # type: ignore[misc]
            RED = "red"
            BLUE = "blue"

            @property
            def title(self) -> str:
                return str(self.value).title()

        return Colour

    def test_members_have_names_and_values_and_an_order(self, colour: Any) -> None:
        assert [(member.name, member.value) for member in colour] == [("RED", "red"), ("BLUE", "blue")]
        assert colour.RED.title == "Red"
        assert repr(colour.RED) == "<Colour.RED: 'red'>"

    def test_members_are_single_and_found_by_value(self, colour: Any) -> None:
        assert colour("blue") is colour.BLUE
        assert colour.BLUE is not colour.RED
        assert {colour.RED: 1}[colour("red")] == 1
        assert isinstance(colour.RED, colour)

    def test_what_is_no_value_is_refused(self, colour: Any) -> None:
        with pytest.raises(ValueError, match=r"'green' is not a valid .*Colour"):
            colour("green")


@pytest.mark.parametrize("suppress", SUPPRESS)
def test_only_the_errors_named_are_forgotten(suppress: Any) -> None:
    with suppress(LookupError, OSError):
        raise KeyError
    with suppress(OSError):
        pass
    with pytest.raises(ValueError, match="other"), suppress(OSError):
        raise ValueError("other")


@pytest.mark.parametrize("manager", MANAGERS)
class TestContextManager:
    def test_what_stands_behind_the_yield_runs_at_the_end(self, manager: Any) -> None:
        said = []

        @manager
        def block(name: str) -> Iterator[str]:
            said.append(f"begin {name}")
            try:
                yield name
            finally:
                said.append(f"end {name}")

        with block("a") as given:
            said.append(given)
        with pytest.raises(OSError, match="x"), block("b"):
            raise OSError("x")
        assert said == ["begin a", "a", "end a", "begin b", "end b"]

    def test_an_error_of_the_block_can_become_another(self, manager: Any) -> None:
        @manager
        def block() -> Iterator[None]:
            try:
                yield
            except OSError as error:
                raise ValueError("another") from error

        with pytest.raises(ValueError, match="another"), block():
            raise OSError

"""The functions that a worker may be asked to run: one table, filled while modules are imported, closed by the fork.

A request names a function by its index in this table, so nothing that crosses the boundary is a name, a path or code.
Parent and worker agree on the table because the worker is a fork of the parent.
"""

from collections.abc import Callable

from cnisandbox.hints import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

TABLE: list[Callable[..., Any]] = []

# Positions of what only the delegate worker may be asked; it may be asked nothing else.
_FOR_DELEGATE: set[int] = set()


def declared(function: Function) -> Function:
    """Declare that a worker may be asked to run `function`.

    Every parameter and the result must be annotated with None, bool, int, str, bytes, list[T], dict[str, T], T | None
    or a NamedTuple of those; `cnisandbox.boundary.wire` checks values against the annotations on both sides.

    Returns:
        The function itself: it stays an ordinary function.
    """
    TABLE.append(function)
    return function


def declared_for_delegate(function: Function) -> Function:
    """Declare that the delegate worker, and no other, may be asked to run `function`."""
    _FOR_DELEGATE.add(len(TABLE))
    return declared(function)


def is_permitted(index: int, *, is_delegate: bool) -> bool:
    """Say whether a worker may be asked to run what stands at a position of the table.

    Args:
        index: The position; any integer.
        is_delegate: Whether the worker is the delegate worker.
    """
    return 0 <= index < len(TABLE) and (index in _FOR_DELEGATE) == is_delegate

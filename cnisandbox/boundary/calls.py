"""The functions that a worker may be asked to run: one table, filled while modules are imported, closed by the fork.

A request names a function by its index in this table, so nothing that crosses the boundary is a name, a path or code.
Parent and worker agree on the table because the worker is a fork of the parent.
"""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

TABLE: list[Callable[..., Any]] = []


def declared(function: Function) -> Function:
    """Declare that a worker may be asked to run `function`.

    Every parameter and the result must be annotated with None, bool, int, str, bytes, list[T], dict[str, T], T | None
    or a NamedTuple of those; `cnisandbox.boundary.wire` checks values against the annotations on both sides.

    Returns:
        The function itself: it stays an ordinary function.
    """
    TABLE.append(function)
    return function

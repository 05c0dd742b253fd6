"""The names of `typing` that modules on a plugin's path use, without what importing `typing` costs.

A plugin is a new process for every call. `typing` and the classes that its NamedTuple makes take 7 of the 32
milliseconds that importing a plugin takes; type checkers need them, running code does not. So type checkers are shown
the real names, and at run time `NamedTuple` is the small one below and the rest are placeholders.

From Python 3.14 on annotations are evaluated late and `typing` is cheap: there the real names are used.

Privilege: none; the boundary imports it.
"""

import sys
from collections.abc import Iterable

TYPE_CHECKING = False

if TYPE_CHECKING or sys.version_info >= (3, 14):
    from typing import Any, ClassVar, NamedTuple, NoReturn, ParamSpec, Protocol, TypeVar, cast
else:
    from _collections import _tuplegetter
    from itertools import count, repeat

    _new_tuple = tuple.__new__
    Any = NoReturn = object

    class ClassVar:
        """Marks a variable of the class."""

        def __class_getitem__(cls, item):
            return cls

    class Protocol:
        """Base of classes that only describe."""

    def cast(_type, value):
        """Return the value."""
        return value

    class TypeVar:
        """A variable that only type checkers fill."""

        def __init__(self, name, **_options):
            self.__name__ = name

    class ParamSpec(TypeVar):
        """The parameters of a function, for type checkers."""

        args = kwargs = object

    def _completed(cls, values, named):
        missing = cls._fields[len(values) :]
        if len(values) > len(cls._fields) or not named.keys() <= {*missing}:
            raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}, each once")
        try:
            return *values, *map((cls._field_defaults | named).__getitem__, missing)
        except KeyError as error:
            raise TypeError(f"{cls.__name__} needs {error}") from None

    class _RecordType(type):
        """Makes a class of records from its annotations, as `typing.NamedTuple` does."""

        def __new__(mcs, name, bases, namespace):
            fields = tuple(namespace.get("__annotations__", ()))
            defaults = {field: namespace.pop(field) for field in fields if field in namespace}
            namespace.update(zip(fields, map(_tuplegetter, count(), repeat(None)), strict=False))
            namespace.update(__slots__=(), _fields=fields, __match_args__=fields, _field_defaults=defaults)
            return super().__new__(mcs, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_RecordType):
        """A record: an immutable tuple whose elements have names."""

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values = _completed(cls, values, named)
            return _new_tuple(cls, values)

        @classmethod
        def _make(cls, values: Iterable):
            return cls(*values)

        def _replace(self, **changes):
            record = _new_tuple(type(self), map(changes.pop, self._fields, self))
            if changes:
                raise TypeError(f"no such field: {', '.join(changes)}")
            return record

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)


__all__ = ["Any", "ClassVar", "NamedTuple", "NoReturn", "ParamSpec", "Protocol", "TypeVar", "cast"]

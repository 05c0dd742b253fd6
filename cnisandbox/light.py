"""Small parts of the standard library that modules on a plugin's path use, without what importing them costs.

A plugin is a new process for every call. `enum`, `signal`, `contextlib` and what they load take 2 of its milliseconds,
and nothing here needs more of them than this. Type checkers are shown the real ones.

Privilege: none; the boundary imports it.
"""

from cnisandbox.hints import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from contextlib import contextmanager, suppress
    from enum import Enum
else:
    import _signal as signal  # the C module: the other one makes enums of its numbers

    class _EnumType(type):
        """Makes a member of each name in capital letters."""

        def __new__(mcs, name, bases, namespace):
            made = super().__new__(mcs, name, bases, namespace)
            made._members = tuple(made._make(key, value) for key, value in namespace.items() if key.isupper())
            return made

        def _make(cls, name, value):
            member = cls.__new__(cls)
            member.name, member.value = name, value
            setattr(cls, name, member)
            return member

        def __iter__(cls):
            return iter(cls._members)

        def __call__(cls, value):
            for member in cls:
                if member.value == value:
                    return member
            raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")

    class Enum(metaclass=_EnumType):
        """Base of classes with a fixed number of members: constants with a name and a value."""

        __slots__ = ("name", "value")

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

    class suppress:  # noqa: N801 - as it is called in contextlib
        """Leave a block without an error when it ends with one of these."""

        __slots__ = ("_errors",)

        def __init__(self, *errors):
            self._errors = errors

        def __enter__(self):
            """Begin."""

        def __exit__(self, kind, _error, _traceback):
            """Say whether the error is to be forgotten."""
            return kind is not None and issubclass(kind, self._errors)

    class _Block:
        """The block around which a generator runs."""

        __slots__ = ("_generator",)

        def __init__(self, generator):
            self._generator = generator

        def __enter__(self):
            """Run the generator up to its `yield`."""
            return next(self._generator)

        def __exit__(self, _kind, error, _traceback):
            """Run the rest of it; an error of the block is raised where it yields."""
            if error is None:
                next(self._generator, None)
                return
            try:
                self._generator.throw(error)
            except BaseException as raised:
                if raised is not error:
                    raise

    def contextmanager(function):
        """Make what is for a `with` of a generator that yields once, and keeps no error of the block to itself."""
        return lambda *args: _Block(function(*args))


__all__ = ["Enum", "contextmanager", "signal", "suppress"]

"""Errors as they cross the boundary: a number for the class, and fields; never a name or code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnisandbox import errors
from cnisandbox.boundary import service, wire
from cnisandbox.errors import BoundaryViolation, CniError, DelegateFailed, IoFailure, KernelRefused


def leaf_classes(base: type[CniError] = CniError) -> list[type[CniError]]:
    below = base.__subclasses__()
    return [leaf for cls in below for leaf in leaf_classes(cls)] if below else [base]


PLAIN = [cls for cls in leaf_classes() if cls not in (KernelRefused, DelegateFailed)]
# What only the engine raises, from bytes that only it reads, or the entry, from a profile.
OF_THE_ENGINE = {errors.IncompatibleVersion, errors.UndecodableInput, errors.ProfileError}


def crossed(error: CniError) -> CniError:
    kind, *fields = wire.decode(wire.encode(service.describe_error(error))[4:])  # type: ignore[misc]
    assert kind == 1
    return service.rebuild_error(fields)


@pytest.mark.parametrize("cls", [cls for cls in PLAIN if cls not in OF_THE_ENGINE])
def test_an_error_arrives_as_what_it_was(cls: type[CniError]) -> None:
    arrived = crossed(cls("open it: no", "try again"))
    assert type(arrived) is cls
    assert (arrived.msg, arrived.details, arrived.code) == ("open it: no", "try again", cls.code)


@pytest.mark.parametrize("cls", sorted(OF_THE_ENGINE, key=lambda cls: cls.__name__))
def test_an_error_that_no_worker_has_arrives_as_an_io_failure(cls: type[CniError]) -> None:
    arrived = crossed(cls("m"))
    assert (type(arrived), arrived.msg) == (IoFailure, "m")


def test_fields_of_their_own_arrive_too() -> None:
    refused = crossed(KernelRefused("create link", "eth0", 17, "d"))
    assert vars(refused) == vars(KernelRefused("create link", "eth0", 17, "d"))
    failed = crossed(DelegateFailed(123, "m", "d"))
    assert (type(failed), failed.code, failed.msg, failed.details) == (DelegateFailed, 123, "m", "d")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(values, max_size=8))
def test_any_fields_give_an_error_of_the_tree(fields: list[object]) -> None:
    rebuilt = service.rebuild_error(fields)
    assert isinstance(rebuilt, CniError)
    assert type(rebuilt) in (*leaf_classes(), BoundaryViolation)


@given(st.integers(), st.text(), st.text(), st.text(), st.text(), st.integers())
def test_any_well_formed_fields_give_an_error_of_the_tree(
    index: int, msg: str, details: str, operation: str, target: str, number: int
) -> None:
    rebuilt = service.rebuild_error([index, msg, details, operation, target, number])
    assert isinstance(rebuilt, CniError)

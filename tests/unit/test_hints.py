"""The small NamedTuple behaves as `typing.NamedTuple` does, for everything that it is used for."""

import json
from typing import NamedTuple as Reference

import pytest

from cnisandbox.hints import NamedTuple


class Small(NamedTuple):
    """A record."""

    name: str
    mtu: int = 0
    alias: str | None = None

    @property
    def is_named(self) -> bool:
        return bool(self.name)


class Real(Reference):
    """A record."""

    name: str
    mtu: int = 0
    alias: str | None = None


@pytest.mark.parametrize("kind", [Small, Real])
def test_fields_come_by_position_by_name_and_by_default(kind):
    record = kind("eth0", alias="a")
    assert record == ("eth0", 0, "a")
    assert (record.name, record.mtu, record.alias) == ("eth0", 0, "a")
    assert kind._fields == ("name", "mtu", "alias")
    assert kind._field_defaults == {"mtu": 0, "alias": None}


@pytest.mark.parametrize("kind", [Small, Real])
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("a", 1, None, 2), {}), (("a",), {"name": "b"}), (("a",), {"colour": "red"})],
    ids=["missing", "too-many", "twice", "unknown"],
)
def test_what_does_not_fit_the_fields_is_refused(kind, values, named):
    with pytest.raises(TypeError):
        kind(*values, **named)


@pytest.mark.parametrize("kind", [Small, Real])
def test_replace_changes_one_field_of_a_copy(kind):
    record = kind("eth0")
    assert record._replace(mtu=1500) == ("eth0", 1500, None)
    assert record.mtu == 0
    with pytest.raises((TypeError, ValueError)):
        record._replace(colour="red")


@pytest.mark.parametrize("kind", [Small, Real])
def test_records_are_immutable_and_hashable(kind):
    record = kind("eth0")
    with pytest.raises(AttributeError):
        record.mtu = 1
    with pytest.raises(AttributeError):
        record.colour = "red"
    assert {record: 1}[kind("eth0")] == 1


@pytest.mark.parametrize("kind", [Small, Real])
def test_records_match_patterns_and_become_dictionaries(kind):
    match kind("eth0", 9000):
        case kind(name, mtu):
            assert (name, mtu) == ("eth0", 9000)
    assert kind("eth0")._asdict() == {"name": "eth0", "mtu": 0, "alias": None}
    assert json.dumps(kind("eth0")) == '["eth0", 0, null]'
    assert repr(kind("eth0")) == f"{kind.__name__}(name='eth0', mtu=0, alias=None)"


def test_a_record_may_have_properties():
    assert Small("eth0").is_named
    assert not Small("").is_named

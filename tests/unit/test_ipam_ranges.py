"""What ranges are accepted, what they default to, and in which order their addresses are tried."""

from itertools import islice
from typing import Any

import pytest

from cnisandbox.cni.value import Value
from cnisandbox.errors import InvalidConfig
from cnisandbox.ipam.ranges import candidates, parse_range, parse_range_set, range_set_text


def parsed(raw: Any) -> str:
    part = parse_range(Value(raw, "ipam.ranges[0][0]"))
    return f"{part} gw {part.text(part.gateway)} /{part.prefixlen}"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"subnet": "10.1.2.0/24"}, "10.1.2.1-10.1.2.254 gw 10.1.2.1 /24"),
        ({"subnet": "10.1.2.0/30"}, "10.1.2.1-10.1.2.2 gw 10.1.2.1 /30"),
        ({"subnet": "10.1.2.0/24", "gateway": ""}, "10.1.2.1-10.1.2.254 gw 10.1.2.1 /24"),
        ({"subnet": "10.1.2.0/24", "gateway": "10.1.2.99"}, "10.1.2.1-10.1.2.254 gw 10.1.2.99 /24"),
        ({"subnet": "10.1.2.0/24", "gateway": "10.9.9.9"}, "10.1.2.1-10.1.2.254 gw 10.9.9.9 /24"),
        ({"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.0"}, "10.1.2.0-10.1.2.254 gw 10.1.2.1 /24"),
        ({"subnet": "10.1.2.0/24", "rangeEnd": "10.1.2.255"}, "10.1.2.1-10.1.2.255 gw 10.1.2.1 /24"),
        (
            {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.9"},
            "10.1.2.9-10.1.2.9 gw 10.1.2.1 /24",
        ),
        ({"SUBNET": "2001:DB8::/64"}, "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff gw 2001:db8::1 /64"),
        ({"subnet": "2001:db8::/126"}, "2001:db8::1-2001:db8::3 gw 2001:db8::1 /126"),
        ({"subnet": "64:ff9b::10.1.2.0/120"}, "64:ff9b::a01:201-64:ff9b::a01:2ff gw 64:ff9b::a01:201 /120"),
    ],
)
def test_range_defaults(raw: Any, expected: str) -> None:
    assert parsed(raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "ipam.ranges[0][0].subnet: is missing"),
        ({"subnet": 7}, "ipam.ranges[0][0].subnet: expected a string, got 7"),
        ({"subnet": "10.1.2.0"}, "ipam.ranges[0][0].subnet: '10.1.2.0' is not an IP address with a prefix length"),
        ({"subnet": "10.1.2.1/24"}, "ipam.ranges[0][0].subnet: 10.1.2.1/24 has host bits set"),
        ({"subnet": "10.1.2.0/31"}, "ipam.ranges[0][0].subnet: network 10.1.2.0/31 is too small to allocate from"),
        ({"subnet": "10.1.2.3/32"}, "ipam.ranges[0][0].subnet: network 10.1.2.3/32 is too small to allocate from"),
        ({"subnet": "fd00::/127"}, "ipam.ranges[0][0].subnet: network fd00::/127 is too small to allocate from"),
        (
            {"subnet": "10.1.2.0/24", "gateway": "2001:db8::1"},
            "ipam.ranges[0][0].gateway: 2001:db8::1 is not of the same IP version as network 10.1.2.0/24",
        ),
        (
            {"subnet": "10.1.2.0/24", "rangeStart": "2001:db8::1"},
            "ipam.ranges[0][0].rangeStart: 2001:db8::1 is not of the same IP version as network 10.1.2.0/24",
        ),
        (
            {"subnet": "10.1.2.0/24", "rangeEnd": "10.1.3.0"},
            "ipam.ranges[0][0].rangeEnd: 10.1.3.0 is not in network 10.1.2.0/24",
        ),
        (
            {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8"},
            "ipam.ranges[0][0].rangeEnd: 10.1.2.8 comes before the first address 10.1.2.9",
        ),
        ({"subnet": "10.1.2.0/24", "rangeEnd": "nine"}, "ipam.ranges[0][0].rangeEnd: 'nine' is not an IP address"),
        ([], "ipam.ranges[0][0]: expected an object, got []"),
    ],
)
def test_wrong_range_is_refused_with_the_path_of_the_field(raw: Any, message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_range(Value(raw, "ipam.ranges[0][0]"))
    assert caught.value.msg == message
    assert caught.value.code == 7


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "ipam.ranges[1]: empty range set"),
        (None, "ipam.ranges[1]: empty range set"),
        (
            [{"subnet": "10.1.2.0/24"}, {"subnet": "2001:db8::/64"}],
            "ipam.ranges[1][1]: mixed address families in one range set",
        ),
        (
            [{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.0.0/16"}],
            "ipam.ranges[1][0]: 10.1.2.1-10.1.2.254 overlaps with 10.1.0.1-10.1.255.254 of ipam.ranges[1][1]",
        ),
    ],
)
def test_wrong_range_set_is_refused(raw: Any, message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_range_set(Value(raw, "ipam.ranges[1]"))
    assert caught.value.msg == message


TWO_PARTS = [
    {"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.1", "rangeEnd": "10.1.2.3"},
    {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.7", "gateway": "10.9.0.6"},
]
THREE_PARTS = [*TWO_PARTS, {"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.5", "rangeEnd": "10.5.0.5"}]


@pytest.mark.parametrize(
    ("last_reserved", "expected"),
    [
        ("", ["10.1.2.2", "10.1.2.3", "10.9.0.5", "10.9.0.7"]),
        ("garbage", ["10.1.2.2", "10.1.2.3", "10.9.0.5", "10.9.0.7"]),
        ("10.7.7.7", ["10.1.2.2", "10.1.2.3", "10.9.0.5", "10.9.0.7"]),
        ("2001:db8::2", ["10.1.2.2", "10.1.2.3", "10.9.0.5", "10.9.0.7"]),
        ("10.1.2.2", ["10.1.2.3", "10.9.0.5", "10.9.0.7", "10.1.2.2"]),
        ("10.1.2.3", ["10.9.0.5", "10.9.0.7", "10.1.2.2", "10.1.2.3"]),
        ("10.9.0.5", ["10.9.0.7", "10.1.2.2", "10.1.2.3", "10.9.0.5"]),
        ("10.9.0.7", ["10.1.2.2", "10.1.2.3", "10.9.0.5", "10.9.0.7"]),
    ],
)
def test_addresses_are_tried_once_around_from_the_last_reserved(last_reserved: str, expected: list[str]) -> None:
    range_set = parse_range_set(Value(TWO_PARTS, "r"))
    assert [part.text(number) for part, number in candidates(range_set, last_reserved)] == expected


def test_parts_are_tried_in_their_own_order_and_from_the_middle() -> None:
    tried = [part.text(number) for part, number in candidates(parse_range_set(Value(THREE_PARTS, "r")), "10.9.0.5")]
    assert tried == ["10.9.0.7", "10.5.0.5", "10.1.2.2", "10.1.2.3", "10.9.0.5"]


def test_huge_range_is_not_enumerated() -> None:
    range_set = parse_range_set(Value([{"subnet": "2001:db8::/32"}], "r"))
    first = [part.text(number) for part, number in islice(candidates(range_set, "2001:db8:ffff::"), 2)]
    assert first == ["2001:db8:ffff::1", "2001:db8:ffff::2"]


def test_range_set_is_written_as_the_reference_does() -> None:
    assert range_set_text(parse_range_set(Value(TWO_PARTS, "r"))) == "10.1.2.1-10.1.2.3,10.9.0.5-10.9.0.7"

"""A message is told in a line of rtnetlink's words, however it is made."""

from typing import Any

import pytest

from cnisandbox.audit.words import LINE_CHARACTERS, line_of


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ({"type": "RTM_GETLINK"}, "RTM_GETLINK"),
        ({"ifname": "eth0", "type": "RTM_NEWLINK"}, "RTM_NEWLINK ifname=eth0"),
        (
            {"type": "sysctl", "key": "net/ipv4/ip_forward", "access": "write"},
            "sysctl net/ipv4/ip_forward access=write",
        ),
        (
            {"type": "x", "header": {"family": 0, "ifindex": 3}, "peer": {"header": {"flags": 1}, "mtu": 0}},
            "x ifindex=3 peer.flags=1 peer.mtu=0",
        ),
        ({"type": "x", "attributes": {"type": 1, "key": 2, "a": {"b": 0}}}, "x type=1 key=2 a.b=0"),
        (
            {"type": "RTM_NEWLINK", "linkinfo": {"kind": "veth", "data": {"peer": {"ifname": "eth0"}}}},
            "RTM_NEWLINK linkinfo.kind=veth linkinfo.data.peer.ifname=eth0",
        ),
        ({"type": "x", "flags": ["request", "ack"]}, "x flags=request,ack"),
        ({"type": "x", "rules": [{"a": 1}, {"a": 2}]}, "x rules.a=1 rules.a=2"),
        ({"type": "x", "on": True, "off": False, "none": None}, "x on=yes off=no none=-"),
        ({"type": "x", "raw": b"\x01\xff", "empty": "", "nothing": {}}, "x raw=01ff empty=''"),
        ({"type": "x", "dst": "10.0.0.0/8", "mac": "fe:00::1"}, "x dst=10.0.0.0/8 mac=fe:00::1"),
        ({"type": "x", "ifalias": "two words\n"}, "x ifalias='two words\\n'"),
    ],
)
def test_message_is_its_type_and_its_leaves(message: dict[str, Any], line: str) -> None:
    assert line_of(message) == line


@pytest.mark.parametrize("message", [{"type": "x", "y": "z" * 9999}, {"type": "x", "y": [{"z": "w"}] * 9999}])
def test_long_line_is_cut(message: dict[str, Any]) -> None:
    assert LINE_CHARACTERS <= len(line_of(message)) <= LINE_CHARACTERS + len("...")


def test_deep_message_ends() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": [deep]}
    assert line_of({"type": "x", "deep": deep}).startswith("x")

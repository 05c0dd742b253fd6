"""resolv.conf as the result's dns."""

import pytest

from cnisandbox.cni.result import Dns
from cnisandbox.errors import IoFailure
from cnisandbox.ipam.resolvconf import parse_resolv_conf


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Dns()),
        (b"# nameserver 192.0.2.1\n; search example.com\n\n", Dns()),
        (b"nameserver 192.0.2.1\nnameserver 2001:db8::53 # two\n", Dns(("192.0.2.1", "2001:db8::53"))),
        (b"domain a.example\ndomain b.example junk\n", Dns(domain="b.example")),
        (b"search a.example b.example\r\nsearch\tc.example\n", Dns(search=("a.example", "b.example", "c.example"))),
        (b"  options ndots:5 rotate\noptions edns0", Dns(options=("ndots:5", "rotate", "edns0"))),
        (b"nameserver\ndomain\nsearch\noptions\nsortlist 10.0.0.0\n", Dns()),
        (b"NAMESERVER 192.0.2.1\n", Dns()),
        (b"nameserver \xff\n", Dns(("\N{REPLACEMENT CHARACTER}",))),
    ],
)
def test_resolv_conf(data: bytes, expected: Dns) -> None:
    assert parse_resolv_conf(data) == expected


def test_overlong_file_is_refused() -> None:
    assert parse_resolv_conf(b"#" * 65536) == Dns()
    with pytest.raises(IoFailure, match="longer than 65536 bytes"):
        parse_resolv_conf(b"#" * 65537)

"""Ranges: whatever a netconf says, it is refused with a path, or every address that comes out of it is allowed."""

import ipaddress
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.cni.value import Value
from cnisandbox.errors import InvalidConfig
from cnisandbox.ipam.ranges import RangeSet, candidates, parse_range_set
from cnisandbox.ipam.resolvconf import parse_resolv_conf

ipv4 = st.ip_addresses(v=4, network="10.1.2.0/27").map(str)
ipv6 = st.ip_addresses(v=6, network="2001:db8::/123").map(str)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | ipv4 | ipv6,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["subnet", "rangeStart", "rangeEnd", "gateway", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def ranges(address: st.SearchStrategy[str], subnets: list[str]) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {"subnet": st.sampled_from(subnets)},
        optional={"rangeStart": address, "rangeEnd": address, "gateway": address},
    )


IPV4_SUBNETS = ["10.1.2.0/27", "10.1.2.0/28", "10.1.2.16/28", "10.9.0.0/30"]
IPV6_SUBNETS = ["2001:db8::/123", "2001:db8::/124", "2001:db8::10/124"]
range_sets = st.lists(ranges(ipv4, IPV4_SUBNETS) | ranges(ipv6, IPV6_SUBNETS), max_size=3)


def parsed_or_refused(raw: object) -> RangeSet:
    """Parse; what is refused must be refused with a path, and counts as empty."""
    try:
        return parse_range_set(Value(raw, "ipam.ranges[0]"))
    except InvalidConfig as error:
        if not error.msg.startswith("ipam.ranges[0]"):
            raise
        return ()


@given(range_sets, ipv4 | ipv6 | st.text())
def test_one_turn_gives_each_address_once_and_no_gateway(raw: list[dict[str, str]], last_reserved: str) -> None:
    range_set = parsed_or_refused(raw)
    tried = list(candidates(range_set, last_reserved))
    expected = {
        (part, number) for part in range_set for number in range(part.first, part.last + 1) if number != part.gateway
    }
    assert set(tried) == expected
    assert len(tried) == len(expected)
    texts = [part.text(number) for part, number in tried]
    if last_reserved in texts:
        assert texts[-1] == last_reserved
    for part, number in tried:
        subnet = ipaddress.ip_interface(f"{part.text(part.first)}/{part.prefixlen}").network
        assert ipaddress.ip_address(part.text(number)) in subnet


@given(json_values)
def test_any_json_is_a_range_set_or_refused(raw: object) -> None:
    for part, number in islice(candidates(parsed_or_refused(raw), ""), 2):
        assert part.first <= number <= part.last


resolv_conf_words = st.sampled_from([b"nameserver ", b"domain ", b"search ", b"options ", b"\n", b" ", b"x", b"#"])


@given(st.binary(max_size=2000) | st.lists(resolv_conf_words).map(b"".join))
def test_any_bytes_are_a_resolv_conf(data: bytes) -> None:
    dns = parse_resolv_conf(data)
    for word in (*dns.nameservers, dns.domain, *dns.search, *dns.options):
        assert word.split() == ([word] if word else [])
        word.encode()

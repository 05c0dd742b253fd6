"""Addresses are read, written and calculated with as by `ipaddress`."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cnisandbox import ip

IPV4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
# Half of them with zeros in places where text is shortened.
GROUPS = st.lists(st.one_of(st.just(0), st.integers(0, 0xFFFF)), min_size=8, max_size=8)
IPV6 = GROUPS.map(lambda groups: ipaddress.IPv6Address(int("".join(f"{group:04x}" for group in groups), 16)))
ADDRESSES = st.one_of(IPV4, IPV6)
TEXTS = st.one_of(
    ADDRESSES.map(str),
    ADDRESSES.map(lambda address: address.exploded),
    st.text("0123456789abcdefABCDEF:./% \0ü", max_size=45),
    st.tuples(
        st.lists(st.sampled_from(["", "0", "1", "00", "ffff", "12345", "1.2.3.4", "01.2.3.4", "256"]), max_size=9)
    ).map(lambda parts: ":".join(parts[0])),
)


@given(TEXTS)
@example("::1.2.3.4")
@example("::ffff:1.2.3.4")
@example("::ffff:0:0")
@example("::1:0")
@example("::")
@example("1::")
@example("1:2:3:4:5:6:7::")
@example("::2:3:4:5:6:7:8")
@example("1:2:3:4:5:6:7::8")
@example("fe80::1%eth0")
@example("010.0.0.1")
@example("1.2.3.4\0")
def test_texts_are_the_same_addresses(text: str) -> None:
    try:
        expected = ipaddress.ip_address(text)
    except ValueError:
        expected = None
    if expected is None or "%" in text:
        with pytest.raises(ValueError, match="does not appear to be"):
            ip.ip_address(text)
        return
    address = ip.ip_address(text)
    assert (address.version, int(address), str(address)) == (expected.version, int(expected), str(expected))
    assert (address.packed, address.max_prefixlen) == (expected.packed, expected.max_prefixlen)
    assert address.is_loopback == expected.is_loopback
    assert address.is_mapped == (getattr(expected, "ipv4_mapped", None) is not None)


@given(ADDRESSES, st.integers(0, 140), st.sampled_from(["/{}", "/0{}", ""]))
def test_prefixes_are_the_same_networks(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int, form: str
) -> None:
    text = f"{address}{form.format(length)}"
    if form and length > address.max_prefixlen:
        with pytest.raises(ValueError, match="does not appear to be"):
            ip.ip_interface(text)
        return
    expected, interface = ipaddress.ip_interface(text), ip.ip_interface(text)
    assert (str(interface), str(interface.ip), interface.version) == (str(expected), str(expected.ip), expected.version)
    network, wanted = interface.network, expected.network
    assert (str(network), network.prefixlen, network.max_prefixlen) == (
        str(wanted),
        wanted.prefixlen,
        wanted.max_prefixlen,
    )
    assert network.num_addresses == wanted.num_addresses
    assert int(network.network_address) == int(wanted.network_address)
    assert int(network.broadcast_address) == int(wanted.broadcast_address)


@pytest.mark.parametrize(
    "text", ["", "/24", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/٣", "1.2.3.4/24/24", "1.2.3.4/255.255.255.0"]
)
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        ip.ip_interface(text)


@given(st.lists(ADDRESSES, max_size=5))
def test_addresses_are_in_order_and_the_same_when_they_are_equal(
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
) -> None:
    expected = sorted(addresses, key=lambda address: (address.version, int(address)))
    assert [str(address) for address in sorted(ip.ip_address(str(address)) for address in addresses)] == [
        str(address) for address in expected
    ]
    assert len({ip.ip_address(str(address)) for address in addresses}) == len(set(addresses))

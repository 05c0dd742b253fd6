"""The policy engine against arbitrary and mutated datagrams: whatever is written, what is sent was understood."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnisandbox.netlink.codec import CodecError
from cnisandbox.netlink.datagram import (
    MESSAGE_NAMES,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
)
from cnisandbox.policy.judge import Judge, Session
from cnisandbox.policy.permit import Permit
from tests.unit.netlink_corpus import recorded
from tests.unit.test_policy_judge import Kernel

PROTOCOLS = (NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC)
NEVER = {"net_ns_pid", "target_netnsid", "link_netnsid", "new_netnsid"}


DATAGRAMS = [(item.protocol, item.data) for name in ("plugins", "tools") for item in recorded(name)]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[int, bytes]:
    """A captured datagram with a few bytes exchanged, cut or repeated."""
    protocol, data = draw(st.sampled_from(DATAGRAMS))
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(changed)))
    return protocol, bytes(changed[:cut] if draw(st.booleans()) else changed)


ANY = st.one_of(mutated(), st.tuples(st.sampled_from((*PROTOCOLS, 6, 9)), st.binary(max_size=300)))
GENEROUS = Permit(
    name="generous",
    netns=("host", "container"),
    messages=tuple(sorted(MESSAGE_NAMES)),
    links=("any", "name:*"),
    related=("any", "name:*"),
    kinds=("veth", "bridge", "macvlan", "ifb"),
    attributes=(
        *("linkinfo.**", "options.**", "expressions.**", "af_spec.**", "protinfo.**", "compat.**", "hook.**"),
        *("ifname", "mtu", "master", "link", "address", "local", "dst", "oif", "gateway", "kind", "table", "chain"),
        *("name", "flags", "handle", "type", "policy", "userdata", "ext_mask", "net_ns_fd", *sorted(NEVER)),
    ),
    tables=("* *",),
    chains=("*",),
)
FEWER = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def judge(*permits: Permit) -> Judge:
    """An engine over the small kernel of the unit tests."""
    return Judge(permits, (), Session("test", "eth0", {"bridge": ("cni0",)}), Kernel())


def test_the_corpus_is_there() -> None:
    assert len(DATAGRAMS) > 50


@FEWER
@given(ANY, st.sampled_from(("host", "container")))
def test_what_is_sent_is_the_encoding_of_what_was_understood(case: tuple[int, bytes], netns: str) -> None:
    protocol, data = case
    verdict = judge(GENEROUS).judge(netns, protocol, data)
    json.dumps([record.message for record in verdict.records])
    if verdict.is_permitted:
        messages = decode_datagram(protocol, data)
        assert len(decode_datagram(protocol, verdict.datagram)) == len(messages)
        if "net_ns_fd" not in json.dumps([record.message for record in verdict.records]):
            assert verdict.datagram == encode_datagram(protocol, messages)
            assert decode_datagram(protocol, verdict.datagram) == messages


@FEWER
@given(ANY, st.sampled_from(("host", "container")))
def test_without_permits_nothing_is_sent_with_the_capability(case: tuple[int, bytes], netns: str) -> None:
    protocol, data = case
    verdict = judge().judge(netns, protocol, data)
    assert not verdict.is_permitted
    assert verdict.errno or len(verdict.datagram) % 4 == 0


@FEWER
@given(mutated(), st.sampled_from(("host", "container")))
def test_a_further_permit_never_takes_anything_away(case: tuple[int, bytes], netns: str) -> None:
    protocol, data = case
    few = Permit(
        "few", ("host", "container"), ("RTM_GETLINK", "RTM_GETADDR"), links=("any",), attributes=("ifname", "ext_mask")
    )
    if judge(few).judge(netns, protocol, data).is_permitted:
        assert judge(GENEROUS, few).judge(netns, protocol, data).is_permitted
        assert judge(few, GENEROUS).judge(netns, protocol, data).is_permitted


@FEWER
@given(mutated())
def test_no_permit_lets_another_netns_be_named(case: tuple[int, bytes]) -> None:
    protocol, data = case
    verdict = judge(GENEROUS).judge("container", protocol, data)
    if verdict.is_permitted and protocol == NETLINK_ROUTE:
        words = json.dumps([record.message for record in verdict.records])
        assert not [name for name in NEVER if f'"{name}"' in words]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_engine_and_the_decoder_agree_about_what_is_malformed(protocol: int) -> None:
    for _, data in DATAGRAMS:
        truncated = data[:-4]
        try:
            decode_datagram(protocol, truncated)
        except CodecError:
            assert not judge(GENEROUS).judge("host", protocol, truncated).is_permitted

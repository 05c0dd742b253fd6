"""The policy engine: what a permit lets through, beside what it does not.

host        eth9 (the uplink, default route) · cni0 (bridge) · vethaaaaaaaa (peer of the container's eth0) · victim (bridge)
container   lo · eth0 (the attachment, a veth)
"""
# ruff: noqa: E501 - one permit, one line

import errno
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cnisandbox.netlink.codec import HEADER, Attributes
from cnisandbox.netlink.datagram import (
    MAX_DATAGRAM,
    NETLINK_GENERIC,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    decode_datagram,
    encode_datagram,
)
from cnisandbox.netlink.message import Message
from cnisandbox.policy.judge import Judge, LinkFacts, Session, Verdict
from cnisandbox.policy.links import Look
from cnisandbox.policy.permit import Permit, SysctlPermit

REQUEST, ACK, DUMP, CREATE, EXCL = 0x1, 0x4, 0x300, 0x400, 0x200
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, GETADDR, NEWROUTE, NEWQDISC, NEWFILTER, NEWNSID = 20, 22, 24, 36, 44, 88
HOST_FD, CONTAINER_FD = 91, 92


class Kernel:
    """A kernel of which the engine is told what stands above."""

    def __init__(self) -> None:
        self.links = {
            ("host", 2): LinkFacts(2, "eth9", "", 0, None),
            ("host", 3): LinkFacts(3, "cni0", "bridge", 0, None),
            ("host", 4): LinkFacts(4, "vethaaaaaaaa", "veth", 2, 0),
            ("host", 5): LinkFacts(5, "victim", "bridge", 0, None),
            ("container", 1): LinkFacts(1, "lo", "", 0, None),
            ("container", 2): LinkFacts(2, "eth0", "veth", 4, 0),
        }
        self.rules: dict[int, Attributes] = {}
        self.chains = {"CNI-1": 8}

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        if ifindex:
            return self.links.get((netns, ifindex))
        return next(
            (facts for (place, _), facts in self.links.items() if (place, facts.ifname) == (netns, ifname)), None
        )

    def peer(self, _look: Look) -> LinkFacts | None:
        return self.links.get(("host", 4))

    def default_route_links(self, netns: str) -> tuple[int, ...]:
        return (2,) if netns == "host" else ()

    def netns_of(self, descriptor: int) -> str | None:
        return {7: "host", 8: "container"}.get(descriptor)

    def descriptor_of(self, netns: str) -> int:
        return {"host": HOST_FD, "container": CONTAINER_FD}[netns]

    def chain_handle(self, netns: str, family: int, table: str, chain: str) -> int | None:
        return self.chains.get(chain)

    def rule(self, netns: str, family: int, table: str, chain: str, handle: int) -> Attributes | None:
        return self.rules.get(handle)


def permit(**fields: Any) -> Permit:
    return Permit(**{"name": "p", "netns": ("host", "container"), **fields})


def judge(*permits: Permit, kernel: Kernel | None = None, sysctls: Sequence[SysctlPermit] = ()) -> Judge:
    variables: Mapping[str, tuple[str, ...]] = {"bridge": ("cni0",)}
    return Judge(permits, sysctls, Session("test", "eth0", variables), kernel or Kernel())


def message(type_: int, header: dict[str, int], attributes: Attributes, flags: int = REQUEST | ACK) -> Message:
    return Message(type_, flags, 7, 0, header, attributes)


def link(type_: int, ifindex: int = 0, flags: int = REQUEST | ACK, **attributes: Any) -> Message:
    return message(type_, {"family": 0, "type": 0, "ifindex": ifindex, "flags": 0, "change": 0}, attributes, flags)


def sent(engine: Judge, *messages: Message, netns: str = "host", protocol: int = NETLINK_ROUTE) -> Verdict:
    return engine.judge(netns, protocol, encode_datagram(protocol, messages))


def reason(verdict: Verdict) -> str:
    assert not verdict.is_permitted
    return next(record.reason for record in verdict.records if record.reason)


def veth(name: str = "eth0", peer: str = "vethbbbbbbbb", netns_fd: int = 7, **more: Any) -> Message:
    inner = {
        HEADER: {"family": 0, "type": 0, "ifindex": 0, "flags": 0, "change": 0},
        "ifname": peer,
        "net_ns_fd": netns_fd,
    }
    info = {"kind": "veth", "data": {"peer": inner}}
    return link(NEWLINK, 0, REQUEST | ACK | CREATE | EXCL, ifname=name, linkinfo=info, **more)


VETH = permit(
    messages=("RTM_NEWLINK",),
    netns=("container",),
    links=("attachment",),
    kinds=("veth",),
    related=("name:veth????????",),
    attributes=("ifname", "mtu", "linkinfo.kind", "linkinfo.data.peer.ifname", "linkinfo.data.peer.net_ns_fd"),
)


def without_eth0() -> Kernel:
    kernel = Kernel()
    del kernel.links["container", 2]
    return kernel


def test_without_permits_nothing_passes() -> None:
    verdict = sent(judge(), link(GETLINK, ifname="eth0"))
    assert not verdict.is_permitted
    assert reason(verdict) == "no permit for RTM_GETLINK in the host's netns"


def test_a_permit_names_its_message_and_its_netns() -> None:
    engine = judge(permit(netns=("container",), messages=("RTM_GETLINK",), links=("any",), attributes=("ifname",)))
    assert sent(engine, link(GETLINK, ifname="eth0"), netns="container").is_permitted
    assert not sent(engine, link(GETLINK, ifname="eth0"), netns="host").is_permitted
    assert not sent(engine, link(SETLINK, 2), netns="container").is_permitted


def test_a_veth_is_born_with_its_ends_in_the_two_netns_and_descriptors_of_ours() -> None:
    verdict = sent(judge(VETH, kernel=without_eth0()), veth(), netns="container")
    assert verdict.is_permitted
    (decoded,) = decode_datagram(NETLINK_ROUTE, verdict.datagram)
    assert decoded.attributes["linkinfo"]["data"]["peer"]["net_ns_fd"] == HOST_FD


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "eth1"}, "a new link eth1"),
        ({"peer": "docker0"}, "a new peer docker0"),
        ({"peer": "veth%d%d%d%d"}, "a new peer"),
        ({"netns_fd": 9}, "a netns that may not be named"),
        ({"address": "02:00:00:00:00:01"}, "attribute address"),
    ],
)
def test_a_veth_cannot_be_born_otherwise(change: dict[str, Any], why: str) -> None:
    assert why in reason(sent(judge(VETH, kernel=without_eth0()), veth(**change), netns="container"))


def test_a_kind_that_the_permit_does_not_name_is_refused() -> None:
    engine = judge(
        permit(
            messages=("RTM_NEWLINK",), links=("name:x",), kinds=("bridge",), attributes=("**", "ifname", "linkinfo.**")
        )
    )
    flags = REQUEST | ACK | CREATE | EXCL
    assert sent(engine, link(NEWLINK, 0, flags, ifname="x", linkinfo={"kind": "bridge"})).is_permitted
    assert "kind gretap" in reason(sent(engine, link(NEWLINK, 0, flags, ifname="x", linkinfo={"kind": "gretap"})))


@pytest.mark.parametrize(
    ("words", "ifindex", "netns"),
    [
        (("netconf:bridge",), 3, "host"),
        (("peer",), 4, "host"),
        (("default-route",), 2, "host"),
        (("name:cni*",), 3, "host"),
        (("attachment",), 2, "container"),
        (("loopback",), 1, "container"),
        (("any",), 5, "host"),
    ],
)
def test_each_word_means_its_link_and_no_other(words: tuple[str, ...], ifindex: int, netns: str) -> None:
    engine = judge(permit(messages=("RTM_SETLINK",), links=words))
    kernel = Kernel()
    covered = {
        (place, index) for place, index in kernel.links if sent(engine, link(SETLINK, index), netns=place).is_permitted
    }
    assert covered == ({(netns, ifindex)} if words != ("any",) else set(kernel.links))


def test_a_rename_needs_both_names() -> None:
    engine = judge(permit(messages=("RTM_SETLINK",), links=("name:cni*",), attributes=("ifname",)))
    assert sent(engine, link(SETLINK, 3, ifname="cni7")).is_permitted
    assert "new name eth7" in reason(sent(engine, link(SETLINK, 3, ifname="eth7")))
    assert "link victim" in reason(sent(engine, link(SETLINK, 5, ifname="cni7")))


def test_a_link_made_in_this_session_is_known_by_its_number() -> None:
    kernel = Kernel()
    engine = judge(
        permit(
            messages=("RTM_NEWLINK",), links=("name:new?",), kinds=("bridge",), attributes=("ifname", "linkinfo.kind")
        ),
        permit(messages=("RTM_DELLINK",), links=("created",)),
        kernel=kernel,
    )
    verdict = sent(engine, link(NEWLINK, 0, REQUEST | CREATE | EXCL, ifname="new1", linkinfo={"kind": "bridge"}))
    kernel.links["host", 9] = LinkFacts(9, "new1", "bridge", 0, None)
    engine.after_send(verdict)
    assert sent(engine, link(DELLINK, 9)).is_permitted
    assert not sent(engine, link(DELLINK, 5)).is_permitted


def test_both_ends_of_a_pair_that_was_made_are_of_this_session_and_nothing_else_is() -> None:
    """Also where the same datagram has asked for them before: what was not there then is looked at again."""
    kernel = without_eth0()
    look = permit(messages=("RTM_GETLINK",), links=("any",), attributes=("ifname",))
    delete = permit(messages=("RTM_DELLINK",), links=("created",))
    engine = judge(VETH, look, delete, kernel=kernel)
    verdict = sent(engine, link(GETLINK, ifname="eth0"), veth(), link(GETLINK, ifname="eth0"), netns="container")
    assert verdict.is_permitted
    kernel.links["container", 7] = LinkFacts(7, "eth0", "veth", 8, 0)
    kernel.links["host", 8] = LinkFacts(8, "vethbbbbbbbb", "veth", 7, 0)
    engine.after_send(verdict)
    covered = {
        (place, index) for place, index in kernel.links if sent(engine, link(DELLINK, index), netns=place).is_permitted
    }
    assert covered == {("container", 7), ("host", 8)}


class Counting(Kernel):
    """A kernel that notes which links it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[tuple[str, int | str]] = []

    def link(self, netns: str, ifindex: int, ifname: str) -> LinkFacts | None:
        self.looks.append((netns, ifindex or ifname))
        return super().link(netns, ifindex, ifname)


SETTING = permit(messages=("RTM_SETLINK",), links=("name:cni?",), attributes=("ifname", "address", "mtu"))


def test_a_datagram_is_judged_by_one_look_at_each_link_and_the_next_by_another() -> None:
    kernel = Counting()
    engine = judge(SETTING, kernel=kernel)
    messages = [link(SETLINK, 3, mtu=1400), link(SETLINK, 3, mtu=1500), link(SETLINK, ifname="cni0", mtu=1400)]
    for times in (1, 2):
        assert sent(engine, *messages).is_permitted
        assert kernel.looks == [("host", 3)] * times
    assert not sent(engine, link(SETLINK, ifname="cni1"), link(SETLINK, ifname="cni1")).is_permitted
    assert kernel.looks[2:] == [("host", "cni1")]


@pytest.mark.parametrize("now", [LinkFacts(3, "victim", "bridge", 0, None), None], ids=["renamed", "deleted"])
def test_what_has_become_of_a_link_since_the_last_datagram_is_seen(now: LinkFacts | None) -> None:
    kernel = Kernel()
    engine = judge(SETTING, kernel=kernel)
    assert sent(engine, link(SETLINK, 3, mtu=1400)).is_permitted
    if now is None:
        del kernel.links["host", 3]
    else:
        kernel.links["host", 3] = now
    assert not sent(engine, link(SETLINK, 3, mtu=1400)).is_permitted


def test_what_has_become_of_the_peer_and_of_the_default_route_is_seen() -> None:
    class Moving(Kernel):
        at = 4

        def peer(self, _look: Look) -> LinkFacts | None:
            return self.links["host", self.at]

        def default_route_links(self, netns: str) -> tuple[int, ...]:
            return (self.at,)

    setting = SysctlPermit("s", ("host",), "net/ipv6/conf/{peer}/accept_ra", "write")
    for word in ("peer", "default-route"):
        kernel = Moving()
        engine = judge(permit(messages=("RTM_SETLINK",), links=(word,)), kernel=kernel, sysctls=[setting])
        assert sent(engine, link(SETLINK, 4)).is_permitted
        kernel.at = 5
        assert not sent(engine, link(SETLINK, 4)).is_permitted
        assert sent(engine, link(SETLINK, 5)).is_permitted
        kernel.at = 2
        assert engine.judge_sysctl("host", "net/ipv6/conf/eth9/accept_ra", is_write=True).permit == "s"
        kernel.at = 4
        assert not engine.judge_sysctl("host", "net/ipv6/conf/eth9/accept_ra", is_write=True).permit


def test_the_peer_is_found_by_what_was_looked_at_already() -> None:
    class Paired(Counting):
        def peer(self, look: Look) -> LinkFacts | None:
            inside = look("container", 0, "eth0")
            return look("host", inside.peer, "") if inside else None

    kernel = Paired()
    engine = judge(permit(messages=("RTM_SETLINK",), links=("peer",)), kernel=kernel)
    assert sent(engine, link(SETLINK, 4)).is_permitted
    assert kernel.looks == [("host", 4), ("container", "eth0")]


def test_nothing_is_asked_about_a_link_that_may_be_looked_at_whichever_it_is() -> None:
    """It may be seen, too, that it is not there, which the kernel says itself."""
    kernel = Counting()
    messages = ("RTM_GETLINK", "RTM_GETADDR", "RTM_SETLINK")
    engine = judge(permit(messages=messages, links=("any",), attributes=("ifname",)), kernel=kernel)
    of_addresses = {"family": 0, "prefixlen": 0, "flags": 0, "scope": 0}
    for ifindex in (5, 77):
        assert sent(engine, link(GETLINK, ifindex)).is_permitted
        assert sent(engine, message(GETADDR, {**of_addresses, "ifindex": ifindex}, {}, REQUEST | DUMP)).is_permitted
    assert sent(engine, link(GETLINK, ifname="nobody")).is_permitted
    assert kernel.looks == []
    assert not sent(engine, link(GETLINK, -1)).is_permitted
    beyond = message(GETADDR, {**of_addresses, "ifindex": 1 << 31}, {}, REQUEST | DUMP)
    assert not sent(engine, beyond).is_permitted
    assert not sent(engine, link(SETLINK, 77)).is_permitted


def test_a_link_that_was_there_before_is_never_of_this_session() -> None:
    kernel = Kernel()
    kernel.links["host", 9] = LinkFacts(9, "new1", "bridge", 0, None)
    engine = judge(
        permit(
            messages=("RTM_NEWLINK",), links=("name:new?",), kinds=("bridge",), attributes=("ifname", "linkinfo.kind")
        ),
        permit(messages=("RTM_DELLINK",), links=("created",)),
        kernel=kernel,
    )
    engine.after_send(sent(engine, link(NEWLINK, 0, REQUEST | CREATE, ifname="new1", linkinfo={"kind": "bridge"})))
    assert not sent(engine, link(DELLINK, 9)).is_permitted


@pytest.mark.parametrize("change", [link(SETLINK, 3, ifname="new1"), link(SETLINK, 3, net_ns_fd=8)])
def test_a_link_that_may_have_got_the_name_of_one_to_be_made_is_not_of_this_session(change: Message) -> None:
    kernel = Kernel()
    engine = judge(
        permit(
            messages=("RTM_NEWLINK", "RTM_SETLINK"),
            links=("name:new?", "name:cni?"),
            kinds=("bridge",),
            attributes=("ifname", "net_ns_fd", "linkinfo.kind"),
        ),
        permit(messages=("RTM_DELLINK",), links=("created",)),
        kernel=kernel,
    )
    make = link(NEWLINK, 0, REQUEST | CREATE | EXCL, ifname="new1", linkinfo={"kind": "bridge"})
    verdict = sent(engine, change, make)
    assert verdict.is_permitted
    kernel.links["host", 3] = LinkFacts(3, "new1", "bridge", 0, None)
    engine.after_send(verdict)
    assert not sent(engine, link(DELLINK, 3)).is_permitted


def test_a_datagram_that_becomes_too_long_when_it_is_encoded_is_refused() -> None:
    """A name is taken without its NUL, and sent with it."""
    engine = judge(permit(messages=("RTM_GETLINK",), links=("any",), attributes=("ifname", "master", "ext_mask")))
    attributes = struct.pack("=HH12sHHiHHi", 16, 3, b"twelve_bytes", 8, 10, 3, 8, 29, 0)
    get = struct.pack("=IHHII16x", 64, GETLINK, REQUEST, 7, 0) + attributes
    assert len(engine.judge("host", NETLINK_ROUTE, get).datagram) == len(get) + 4
    verdict = engine.judge("host", NETLINK_ROUTE, get * (MAX_DATAGRAM // len(get)))
    assert (verdict.datagram, verdict.errno) == (b"", errno.EPERM)
    assert "malformed" in reason(verdict)


def test_who_knows_of_a_link_is_told_that_it_is_gone() -> None:
    """It goes by itself, with its peer, between the moment at which it is found and the one at which it is deleted."""
    kernel = Kernel()
    engine = judge(permit(messages=("RTM_GETLINK", "RTM_DELLINK"), links=("name:victim",)), kernel=kernel)
    assert sent(engine, link(GETLINK, 5)).is_permitted
    del kernel.links["host", 5]
    for ifindex, instead in ((5, GETLINK), (6, SETLINK)):
        verdict = sent(engine, link(DELLINK, ifindex))
        assert not verdict.is_permitted
        (message_sent,) = decode_datagram(NETLINK_ROUTE, verdict.datagram)
        assert (message_sent.type, message_sent.sequence) == (instead, 7)
        assert message_sent.header["ifindex"] == (5 if instead == GETLINK else 0)


def test_a_netns_is_the_one_that_was_judged() -> None:
    """The sender has threads: what its descriptor means may be another netns at every look."""

    class Changing(Kernel):
        def netns_of(self, descriptor: int) -> str | None:
            self.looks = getattr(self, "looks", 0) + 1
            return ("host", "container")[self.looks % 2]

    into_container = permit(
        messages=("RTM_NEWLINK",),
        netns=("host",),
        links=("name:vethbbbbbbbb",),
        kinds=("veth",),
        related=("attachment",),
        attributes=("ifname", "linkinfo.kind", "linkinfo.data.peer.ifname", "linkinfo.data.peer.net_ns_fd"),
    )
    kernel = Changing()
    del kernel.links["container", 2]
    for _ in range(2):
        verdict = sent(judge(into_container, kernel=kernel), veth("vethbbbbbbbb", peer="eth0"))
        if verdict.is_permitted:
            (message_sent,) = decode_datagram(NETLINK_ROUTE, verdict.datagram)
            assert message_sent.attributes["linkinfo"]["data"]["peer"]["net_ns_fd"] == CONTAINER_FD
        else:
            assert reason(verdict) == "p does not cover a new peer eth0 in the host's netns"
    assert kernel.looks == 2


def test_a_link_of_a_chosen_number_is_not_born() -> None:
    """The kernel would make it, of whatever kind and upon whatever link the message says."""
    may_make = permit(
        messages=("RTM_NEWLINK", "RTM_SETLINK"),
        links=("name:x*",),
        kinds=("veth",),
        attributes=("ifname", "link", "linkinfo.*"),
    )
    made = link(NEWLINK, 500, REQUEST | ACK | CREATE, ifname="x1", link=5, linkinfo={"kind": "macvlan"})
    assert "which is not there" in reason(sent(judge(may_make), made))
    assert "kind macvlan" in reason(sent(judge(may_make), made._replace(header={**made.header, "ifindex": 0})))


@pytest.mark.parametrize("type_", [NEWLINK, SETLINK, DELLINK])
def test_a_link_that_is_not_there_is_not_changed(type_: int) -> None:
    """What comes into being before the message arrives may be of another kind than the permit names."""
    engine = judge(
        permit(messages=("RTM_NEWLINK", "RTM_SETLINK", "RTM_DELLINK"), links=("name:x*",), attributes=("ifname", "mtu"))
    )
    verdict = sent(engine, link(type_, ifname="x1"))
    assert not verdict.is_permitted
    (message_sent,) = decode_datagram(NETLINK_ROUTE, verdict.datagram)
    assert (message_sent.type, message_sent.attributes) == (GETLINK, {"ifname": "x1"})


def test_a_master_is_a_related_link() -> None:
    engine = judge(
        permit(messages=("RTM_SETLINK",), links=("peer",), related=("netconf:bridge",), attributes=("master",))
    )
    assert sent(engine, link(SETLINK, 4, master=3)).is_permitted
    assert "master 5" in reason(sent(engine, link(SETLINK, 4, master=5)))


EVERYTHING = permit(
    messages=("RTM_NEWLINK", "RTM_SETLINK", "RTM_DELLINK", "RTM_GETLINK", "RTM_NEWADDR", "RTM_NEWNSID"),
    links=("any", "name:*", "attachment"),
    kinds=("veth", "bridge", "macvlan"),
    related=("any", "name:*"),
    attributes=("**", "ifname", "link", "address", "local", "linkinfo.**", "net_ns_pid", "target_netnsid", "link_netnsid", "new_netnsid", "net_ns_fd", "fd", "nsid", "pid"),
)  # fmt: skip


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({"net_ns_pid": 1}, id="b01-move-by-pid"),
        pytest.param({"target_netnsid": 0, "ifname": "br9", "linkinfo": {"kind": "bridge"}}, id="b08-create-by-nsid"),
        pytest.param({"ifname": "m0", "link": 2, "link_netnsid": 0, "linkinfo": {"kind": "macvlan"}}, id="b09-macvlan"),
        pytest.param({"new_netnsid": 0}, id="new-nsid"),
        pytest.param({"ifname": "v0", "linkinfo": {"kind": "veth", "data": {"peer": {HEADER: {"family": 0, "type": 0, "ifindex": 0, "flags": 0, "change": 0}, "ifname": "p0", "net_ns_pid": 1}}}}, id="b02-peer-by-pid"),
        pytest.param({"net_ns_fd": 3}, id="c03-foreign-descriptor"),
    ],
)  # fmt: skip
def test_numbers_of_other_netns_pass_under_no_permit(attributes: Attributes) -> None:
    flags = REQUEST | ACK | CREATE | EXCL
    engine = judge(EVERYTHING)
    ifindex = 0 if "ifname" in attributes else 2
    assert not sent(engine, link(NEWLINK, ifindex, flags, **attributes), netns="container").is_permitted
    control = sent(engine, link(NEWLINK, 2, flags), netns="container")
    assert control.is_permitted


def test_get_and_delete_by_nsid_are_refused() -> None:
    engine = judge(EVERYTHING)
    for type_ in (GETLINK, DELLINK, SETLINK):
        assert "never permitted" in reason(sent(engine, link(type_, 2, target_netnsid=0), netns="container"))


def test_one_refused_message_refuses_its_datagram() -> None:
    engine = judge(permit(messages=("RTM_SETLINK",), links=("attachment",)))
    verdict = sent(engine, link(SETLINK, 2), link(DELLINK, 2), netns="container")
    assert not verdict.is_permitted
    assert [record.permit for record in verdict.records] == ["p", ""]
    # What is sent instead: one message for each, with its number, that the kernel refuses without the capability.
    assert [struct.unpack_from("=IHHI", verdict.datagram, at) for at in (0, 32)] == [(32, 19, 5, 7)] * 2


def test_routes_and_addresses_name_their_link() -> None:
    header = {
        "family": 2,
        "dst_len": 0,
        "src_len": 0,
        "tos": 0,
        "table": 254,
        "protocol": 3,
        "scope": 0,
        "type": 1,
        "flags": 0,
    }
    engine = judge(
        permit(
            netns=("container",),
            messages=("RTM_NEWROUTE", "RTM_NEWADDR"),
            links=("attachment",),
            attributes=("oif", "gateway", "local", "multipath.gateway"),
        )
    )
    route = message(NEWROUTE, header, {"gateway": "10.0.0.1", "oif": 2})
    assert sent(engine, route, netns="container").is_permitted
    assert "names no link" in reason(
        sent(engine, route._replace(attributes={"gateway": "10.0.0.1"}), netns="container")
    )
    assert "link 1" in reason(sent(engine, route._replace(attributes={"oif": 1}), netns="container"))
    hops = [{HEADER: {"flags": 0, "hops": 0, "ifindex": index}, "gateway": "10.0.0.1"} for index in (2, 1)]
    assert not sent(engine, route._replace(attributes={"multipath": hops}), netns="container").is_permitted
    address = {"family": 2, "prefixlen": 24, "flags": 0, "scope": 0, "ifindex": 1}
    assert "link 1" in reason(sent(engine, message(NEWADDR, address, {"local": "10.0.0.2"}), netns="container"))


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        (NETLINK_ROUTE, b""),
        (NETLINK_ROUTE, b"\x10\0\0\0"),
        (NETLINK_ROUTE, struct.pack("=IHHII", 400, 16, 5, 1, 0)),
        (NETLINK_ROUTE, struct.pack("=IHHII", 16, 999, 5, 1, 0)),
        (NETLINK_ROUTE, b"\xff" * 64),
        (NETLINK_ROUTE, struct.pack("=IHHII", 40, 16, 5, 1, 0) + bytes(16) + struct.pack("=HHHH", 8, 18, 200, 1)),
        (NETLINK_GENERIC, struct.pack("=IHHIIBBH", 20, 99, 5, 1, 0, 1, 1, 0)),
        (6, struct.pack("=IHHII", 16, 16, 5, 1, 0)),  # NETLINK_XFRM
        (NETLINK_ROUTE, bytes((1 << 20) + 4)),
    ],
)
def test_what_is_not_understood_is_not_sent(protocol: int, data: bytes) -> None:
    verdict = judge(EVERYTHING).judge("container", protocol, data)
    assert (verdict.is_permitted, verdict.datagram, verdict.errno) == (False, b"", errno.EPERM)


def test_what_is_nested_to_death_is_refused() -> None:
    inner = b""
    for _ in range(200):
        inner = struct.pack("=HH", 4 + len(inner), 18 | 0x8000) + inner
    data = struct.pack("=IHHII", 32 + len(inner), 16, 5, 1, 0) + bytes(16) + inner
    assert not judge(EVERYTHING).judge("container", NETLINK_ROUTE, data).is_permitted


def test_an_attribute_that_no_table_knows_is_refused() -> None:
    data = encode_datagram(NETLINK_ROUTE, [link(SETLINK, 2)])
    data = struct.pack("=I", len(data) + 8) + data[4:] + struct.pack("=HHI", 8, 0x3F00, 1)
    assert "is not known" in reason(judge(EVERYTHING).judge("container", NETLINK_ROUTE, data))


# nf_tables.


def nft(type_: int, attributes: Attributes, family: int = 2, flags: int = REQUEST | CREATE) -> Message:
    return message(0x0A00 | type_, {"family": family, "version": 0, "res_id": 0}, attributes, flags)


def batch(engine: Judge, *messages: Message) -> Verdict:
    begin, end = (message(t, {"family": 0, "version": 0, "res_id": 10}, {}, REQUEST) for t in (0x10, 0x11))
    return sent(engine, begin, *messages, end, protocol=NETLINK_NETFILTER)


def jump(chain: str) -> list[Attributes]:
    verdict = {"code": -3, "chain": chain}
    return [{"name": "immediate", "data": {"dreg": 0, "data": {"verdict": verdict}}}]


def target(name: str) -> Attributes:
    return {"name": "target", "data": {"name": name, "rev": 0, "info": b""}}


def verdict(code: int) -> list[Attributes]:
    return [{"name": "immediate", "data": {"dreg": 0, "data": {"verdict": {"code": code}}}}]


ACCEPT, DROP, QUEUE = verdict(1), verdict(0), verdict(3)

NFT = (
    permit(messages=("NFNL_MSG_BATCH_BEGIN", "NFNL_MSG_BATCH_END"), attributes=("genid",)),
    permit(messages=("NFT_MSG_NEWTABLE",), tables=("ip nat",), attributes=("name", "flags")),
    permit(messages=("NFT_MSG_NEWCHAIN", "NFT_MSG_DELCHAIN"), tables=("ip nat",), chains=("CNI-*",), hooks=("nat postrouting",), attributes=("table", "name", "policy", "handle", "type", "hook.hooknum")),
    permit(messages=("NFT_MSG_NEWRULE", "NFT_MSG_DELRULE"), tables=("ip nat",), chains=("CNI-*",), jumps=("CNI-*",), attributes=("table", "chain", "handle", "expressions.**")),
)  # fmt: skip
NEWTABLE, NEWCHAIN, DELCHAIN, NEWRULE, DELRULE = 0, 3, 5, 6, 8


@pytest.mark.parametrize(
    "change",
    [
        nft(NEWTABLE, {"name": "nat"}),
        nft(NEWCHAIN, {"table": "nat", "name": "CNI-1"}),
        nft(NEWCHAIN, {"table": "nat", "name": "CNI-1", "type": "nat", "hook": {"hooknum": 4}}),
        nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": ACCEPT}),
        nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": [{"name": "masq", "data": {}}]}),
        nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": [target("DNAT")]}),
        nft(NEWRULE, {"table": "nat", "chain": "POSTROUTING", "expressions": jump("CNI-1")}),
        nft(DELRULE, {"table": "nat", "chain": "CNI-1"}),
        nft(DELRULE, {"table": "nat", "chain": "POSTROUTING", "handle": 4}),
        nft(DELCHAIN, {"table": "nat", "name": "CNI-1"}),
        nft(DELCHAIN, {"table": "nat", "name": "CNI-1", "handle": 8}),
    ],
)
def test_what_a_plugin_needs_of_nf_tables_passes(change: Message) -> None:
    kernel = Kernel()
    kernel.rules[4] = {"expressions": jump("CNI-1")}
    assert batch(judge(*NFT, kernel=kernel), change).is_permitted


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (nft(NEWTABLE, {"name": "filter"}), "table ip filter"),
        (nft(NEWTABLE, {"name": "nat"}, family=10), "table ip6 nat"),
        (nft(NEWTABLE, {"name": "nat", "flags": 1}), "switched off"),
        (nft(NEWCHAIN, {"table": "nat", "name": "POSTROUTING"}), "chain POSTROUTING"),
        (nft(NEWCHAIN, {"table": "nat", "name": "CNI-1", "policy": 0}), "policy 0"),
        (
            nft(NEWCHAIN, {"table": "nat", "name": "CNI-1", "type": "nat", "hook": {"hooknum": 1}}),
            "enters at nat input",
        ),
        (
            nft(NEWCHAIN, {"table": "nat", "name": "CNI-1", "type": "filter", "hook": {"hooknum": 4}}),
            "enters at filter",
        ),
        (nft(NEWCHAIN, {"table": "nat", "name": "CNI-1", "hook": {"hooknum": 4}}), "enters at None postrouting"),
        (nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": DROP}), "decides to drop"),
        (nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": QUEUE}), "decides to do something unknown"),
        (
            nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": [{"name": "reject", "data": {}}]}),
            "with reject",
        ),
        (nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": [target("REJECT")]}), "target REJECT"),
        (
            nft(NEWRULE, {"table": "nat", "chain": "CNI-1", "expressions": [{"name": "payload", "data": {"sreg": 1}}]}),
            "with payload",
        ),
        (nft(DELCHAIN, {"table": "nat"}), "names no chain"),
        (nft(DELCHAIN, {"table": "nat", "name": "CNI-1", "handle": 3}), "chain 3, which is not CNI-1"),
        (nft(NEWCHAIN, {"table": "nat", "name": "CNI-2", "handle": 3}), "chain 3, which is not CNI-2"),
        (nft(NEWRULE, {"table": "nat", "chain": "POSTROUTING", "expressions": ACCEPT}), "does more than jump"),
        (nft(NEWRULE, {"table": "nat", "chain": "POSTROUTING", "expressions": jump("OTHER")}), "does more than jump"),
        (nft(NEWRULE, {"table": "nat", "chain": "POSTROUTING", "expressions": jump("CNI-1") + ACCEPT}), "does more"),
        (nft(NEWRULE, {"table": "nat", "chain": "POSTROUTING", "handle": 5, "expressions": jump("CNI-1")}), "rule 5"),
        (nft(DELRULE, {"table": "nat", "chain": "POSTROUTING"}), "without a handle"),
        (nft(DELRULE, {"table": "nat", "chain": "POSTROUTING", "handle": 5}), "not the plugin's"),
        (nft(DELRULE, {"table": "nat"}), "names no chain"),
        (nft(2, {}), "no permit"),
    ],
)
def test_what_belongs_to_others_in_nf_tables_is_refused(change: Message, why: str) -> None:
    kernel = Kernel()
    kernel.rules[5] = {"expressions": ACCEPT}
    verdict = batch(judge(*NFT, kernel=kernel), nft(NEWCHAIN, {"table": "nat", "name": "CNI-1"}), change)
    assert why in reason(verdict)
    assert len(verdict.datagram) == 20  # the beginning of a batch, alone


def test_connections_are_deleted_one_by_one() -> None:
    """Without a tuple the kernel deletes all of the netns."""
    engine = judge(permit(messages=("IPCTNL_MSG_CT_DELETE",), attributes=("tuple_orig.**", "zone")))
    header = {"family": 2, "version": 0, "res_id": 0}
    everything = message(0x0102, header, {})
    assert "which means all" in reason(sent(engine, everything, protocol=NETLINK_NETFILTER))


@pytest.mark.parametrize("ifindex", [-1, 0x7FFFFFFF, -(1 << 31)])
def test_a_number_that_is_no_links_is_refused(ifindex: int) -> None:
    engine = judge(permit(messages=("RTM_NEWQDISC",), links=("any",), attributes=("kind",)))
    header = {"family": 0, "ifindex": ifindex, "handle": 0, "parent": 0, "info": 0}
    assert not sent(engine, message(NEWQDISC, header, {"kind": "tbf"})).is_permitted


def test_a_queue_for_which_the_kernel_would_load_a_module_is_refused() -> None:
    engine = judge(permit(messages=("RTM_NEWQDISC",), links=("peer",), attributes=("kind",)))
    header = {"family": 0, "ifindex": 4, "handle": 0, "parent": 0, "info": 0}
    assert sent(engine, message(NEWQDISC, header, {"kind": "tbf"})).is_permitted
    assert "kind teql0" in reason(sent(engine, message(NEWQDISC, header, {"kind": "teql0"})))


# Settings.

SYSCTLS = (
    SysctlPermit("s1", ("container",), "net/ipv4/conf/{attachment}/arp_notify", "write"),
    SysctlPermit("s2", ("host",), "net/ipv4/ip_forward", "write"),
    SysctlPermit("s3", ("host",), "net/ipv6/conf/{peer}/accept_ra", "write"),
    SysctlPermit("s4", ("container",), "net/core/*", "read"),
)


@pytest.mark.parametrize(
    ("netns", "key", "is_write", "name"),
    [
        ("container", "net/ipv4/conf/eth0/arp_notify", True, "s1"),
        ("container", "net/ipv4/conf/eth0/arp_notify", False, "s1"),
        ("host", "net/ipv4/conf/eth0/arp_notify", True, ""),
        ("container", "net/ipv4/conf/all/arp_notify", True, ""),
        ("host", "net/ipv4/ip_forward", True, "s2"),
        ("host", "net/ipv6/conf/vethaaaaaaaa/accept_ra", True, "s3"),
        ("host", "net/ipv6/conf/eth9/accept_ra", True, ""),
        ("container", "net/core/somaxconn", False, "s4"),
        ("container", "net/core/somaxconn", True, ""),
        ("container", "net/core/../core/somaxconn", False, ""),
        ("container", "net/core//somaxconn", False, ""),
        ("container", "kernel/core_pattern", True, ""),
        ("host", "net/ipv4/ip_forward/", True, ""),
    ],
)
def test_a_setting_is_covered_or_not(netns: str, key: str, is_write: bool, name: str) -> None:
    assert judge(sysctls=SYSCTLS).judge_sysctl(netns, key, is_write).permit == name

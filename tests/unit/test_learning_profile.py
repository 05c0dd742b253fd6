"""How a profile is made of what was seen, and written (cnisandbox.laboratory.learning)."""

import pytest

from cnisandbox.laboratory.learning import draft, toml
from cnisandbox.laboratory.learning.activity import Activity, Opened
from cnisandbox.laboratory.learning.compare import compare
from cnisandbox.laboratory.learning.draft import Watched
from cnisandbox.laboratory.learning.episode import Subject
from cnisandbox.laboratory.learning.observed import Observations, Observed, ObservedSetting
from cnisandbox.laboratory.learning.patterns import patterns_of
from cnisandbox.profile import load
from cnisandbox.profile.packaged import PROFILES
from cnisandbox.profile.schema import Profile, from_plain
from cnisandbox.profile.source import read_profile


def unnamed(profile: Profile) -> Profile:
    """A profile without what is not in its text: names of permits, and where it is from."""
    return profile._replace(
        source="",
        permits=tuple(permit._replace(name="") for permit in profile.permits),
        sysctls=tuple(permit._replace(name="") for permit in profile.sysctls),
    )


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_what_is_written_is_read_as_the_same_profile(name: str) -> None:
    profile = from_plain(PROFILES[name])
    assert unnamed(read_profile(toml.to_toml(profile, ["a comment", ""]), name, "x", "x")) == unnamed(profile)


def test_names_that_differ_from_run_to_run_become_patterns() -> None:
    chains = [
        {"POSTROUTING", "CNI-7938659e68193485ee23da4c", "CNI-DN-0a1b2", "cni-iface-one-eth0"},
        {"POSTROUTING", "CNI-3cd5e8ccdc14919a16590624", "CNI-DN-0c1b2", "cni-iface-two-eth0"},
    ]
    assert patterns_of(chains, ["one", "two"]) == {
        "POSTROUTING": "POSTROUTING",
        "CNI-7938659e68193485ee23da4c": "CNI-" + 24 * "?",
        "CNI-3cd5e8ccdc14919a16590624": "CNI-" + 24 * "?",
        "CNI-DN-0a1b2": "CNI-DN-?????",
        "CNI-DN-0c1b2": "CNI-DN-?????",
        "cni-iface-one-eth0": "cni-iface-*-eth0",
        "cni-iface-two-eth0": "cni-iface-*-eth0",
    }


def test_names_of_two_lengths_become_a_pattern_of_any_length() -> None:
    assert patterns_of([{"veth12345"}, {"veth1234567"}]) == {"veth12345": "veth*", "veth1234567": "veth*"}


@pytest.mark.parametrize(
    ("message", "path", "word"),
    [
        ("RTM_NEWLINK", "linkinfo.data.peer.mtu", "linkinfo.data.peer.mtu"),
        ("RTM_NEWLINK", "linkinfo.data.", "linkinfo.data.*"),
        ("NFT_MSG_NEWRULE", "expressions.data.data.verdict.code", "expressions.**"),
        ("RTM_NEWTFILTER", "options.sel.keys.mask", "options.sel.**"),
    ],
)
def test_an_attribute_becomes_a_word_that_profiles_know(message: str, path: str, word: str) -> None:
    assert draft.attribute_word(path, message) == word


def watched(
    messages: list[Observed], settings: list[ObservedSetting] | None = None, opened: list[Opened] | None = None
) -> Watched:
    subject = Subject("/opt/cni/x", "/opt/cni", {"type": "x"}, (), (), "c1", "eth0")
    activity = Activity(
        "ADD", 0, [], opened or [], ["/var/lib/x"], ["/opt/cni/y", "/usr/sbin/nft"], [], [], {}, [], set()
    )
    return Watched(subject, [activity], [Observations(messages, settings or [], [])])


def drafted(one: Watched) -> Profile:
    return draft.draft([one], draft.names_of([one]))


UP = Observed("ADD", "container", "RTM_NEWLINK", links=(("attachment", "name:eth0"),))
LOOK = Observed("ADD", "container", "RTM_GETLINK", links=(("attachment", "name:eth0"),), attributes=("ifname",))


def test_permits_are_joined_when_they_differ_in_one_list_and_never_reading_with_changing() -> None:
    host = LOOK._replace(netns="host", links=(("peer", "name:veth0"),))
    profile = drafted(watched([UP, UP._replace(message="RTM_DELLINK", verb="DEL"), LOOK, host]))
    assert [(one.netns, one.messages, one.links, one.reason) for one in profile.permits] == [
        (
            ("container",),
            ("RTM_NEWLINK", "RTM_DELLINK"),
            ("attachment",),
            "makes or changes links, takes away links (ADD, DEL)",
        ),
        (("container",), ("RTM_GETLINK",), ("attachment",), "asks for links (ADD)"),
        (("host",), ("RTM_GETLINK",), ("peer",), "asks for links (ADD)"),
    ]


def test_a_rule_of_a_chain_that_everybody_enters_may_only_jump() -> None:
    rule = Observed("ADD", "host", "NFT_MSG_NEWRULE", table="ip nat", chain="POSTROUTING", jumps=("MINE",))
    own = Observed("ADD", "host", "NFT_MSG_NEWRULE", table="ip nat", chain="MINE", does_more=True)
    chain = Observed("ADD", "host", "NFT_MSG_NEWCHAIN", table="ip nat", chain="MINE")
    profile = drafted(watched([chain, own, rule]))
    assert [(one.messages, one.chains, one.jumps) for one in profile.permits] == [
        (("NFT_MSG_NEWCHAIN",), ("MINE",), ()),
        (("NFT_MSG_NEWRULE",), ("MINE",), ()),
        (("NFT_MSG_NEWRULE",), (), ("MINE",)),
    ]


def test_files_become_state_directories_and_paths_to_read() -> None:
    opened = [
        Opened("/var/lib/x/c1/lease", True, "host"),
        Opened("/etc/services", False, "host"),
        Opened("/usr/lib/libc.so.6", False, "host"),
        Opened("/dev/net/tun", True, "host"),
        Opened("/etc/oops", True, "host"),
    ]
    one = watched([], opened=opened)
    profile = drafted(one)
    assert (profile.state, profile.readable, profile.devices) == (
        ("/var/lib/x",),
        ("/etc/services",),
        ("/dev/net/tun",),
    )
    assert profile.programs == ("/usr/sbin/nft", "cni:y")
    assert draft.cannot_keep([one]) == ["writes /etc/oops: it needs a directory of its own"]


def test_the_comparison_has_both_directions_and_their_reasons() -> None:
    setting = ObservedSetting("ADD", "container", ("net/ipv4/conf/{attachment}/arp_filter",), is_write=True)
    address = Observed("ADD", "container", "RTM_NEWADDR", links=(("attachment",),), attributes=("local",))
    one = watched([UP._replace(attributes=("mtu",)), address], [setting])
    found = compare([one], draft.names_of([one]), drafted(one), load.from_plain(PROFILES["tuning"]))
    assert [tuple(item) for item in found.learned_only if "RTM" in item.what] == [
        ("RTM_NEWADDR of attachment in the container's netns", "no permit for it")
    ]
    unused = {item.what: item.why for item in found.written_only}
    assert unused["tuning:1: messages RTM_SETLINK; attributes address, txqlen"].startswith("seen without: promisc")
    assert unused["tuning:sysctl:3: setting net/*/*/*/* (write)"].endswith("net/ipv4/conf/{attachment}/arp_filter")
    assert unused["state /run/cni/tuning"]

"""Every mistake in a profile is found, with its line and its key, all of them at once, and never with a traceback."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import ProfileError
from cnisandbox.policy.permit import Permit, SysctlPermit
from cnisandbox.profile import source
from cnisandbox.profile.schema import ExtraCapability, Profile, Variable, from_plain, to_plain

HEAD = 'summary = "A plugin"\nlevel = "mediated"\n'
FULL = """\
summary = "Does it all"
level = "hardened"
time_limit_s = 7.5
readable = ["/etc/protocols"]
writable = ["/var/tmp/x"]
state = ["/var/lib/x"]
programs = ["/usr/sbin/iptables*", "cni:host-local", "cni:*"]
raw_sockets = ["arp", "dhcp"]
devices = ["/dev/net/tun"]
unix_sockets = ["/run/x.sock"]

[netconf]
bridge = "cni0"
master = "@default-route"
ipam.link = ""

[[permit]]
reason = "creates it"
netns = ["host", "container"]
messages = ["RTM_NEWLINK"]
links = ["attachment", "peer", "netconf:bridge", "name:bwp*", "default-route", "created", "loopback"]
kinds = ["veth"]
related = ["netconf:master"]
attributes = ["ifname", "linkinfo.data.peer.mtu", "linkinfo.**"]

[[permit]]
reason = "rules"
netns = ["host"]
messages = ["NFT_MSG_NEWRULE"]
tables = ["ip nat", "inet cni_*"]
chains = ["CNI-*"]
jumps = ["CNI-*"]

[[sysctl]]
reason = "forwards"
netns = ["host"]
key = "net/ipv4/conf/{netconf:bridge}/*"
access = "read"

[[capability]]
name = "CAP_NET_RAW"
reason = "sends ARP"
"""


def problems_of(text: str) -> list[tuple[int, str, str]]:
    """What is wrong with a text: line, key, complaint."""
    profile, problems = source.examine_profile(text, "mine", "/x/mine.toml", "/x/mine.toml")
    assert (profile is None) == bool(problems)
    assert all(problem.path == "/x/mine.toml" for problem in problems)
    return [(problem.line, problem.key, problem.text) for problem in problems]


def permit(**changes: Any) -> str:
    """A profile with one permit, in lines 3 to 8: HEAD, and what is given as TOML values."""
    lines = {"reason": '"r"', "netns": '["host"]', "messages": '["RTM_GETLINK"]'} | changes
    return HEAD + "[[permit]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())


def test_everything_that_a_profile_can_say_is_read() -> None:
    assert source.read_profile(FULL, "mine", "/x", "/x") == Profile(
        name="mine",
        summary="Does it all",
        source="/x",
        level=Level.HARDENED,
        variables=(Variable("bridge", "cni0"), Variable("master", "@default-route"), Variable("ipam.link", "")),
        permits=(
            Permit(
                "mine:1",
                ("host", "container"),
                ("RTM_NEWLINK",),
                ("attachment", "peer", "netconf:bridge", "name:bwp*", "default-route", "created", "loopback"),
                ("veth",),
                ("netconf:master",),
                ("ifname", "linkinfo.data.peer.mtu", "linkinfo.**"),
                reason="creates it",
            ),
            Permit(
                "mine:2",
                ("host",),
                ("NFT_MSG_NEWRULE",),
                tables=("ip nat", "inet cni_*"),
                chains=("CNI-*",),
                jumps=("CNI-*",),
                reason="rules",
            ),
        ),
        sysctls=(SysctlPermit("mine:sysctl:1", ("host",), "net/ipv4/conf/{netconf:bridge}/*", "read", "forwards"),),
        readable=("/etc/protocols",),
        writable=("/var/tmp/x",),
        state=("/var/lib/x",),
        programs=("/usr/sbin/iptables*", "cni:host-local", "cni:*"),
        raw_sockets=("arp", "dhcp"),
        devices=("/dev/net/tun",),
        unix_sockets=("/run/x.sock",),
        capabilities=(ExtraCapability("CAP_NET_RAW", "sends ARP"),),
        time_limit_s=7.5,
    )


def test_plain_data_is_the_profile_again() -> None:
    profile = source.read_profile(FULL, "mine", "/x", "/x")
    assert from_plain(to_plain(profile)) == profile


def test_a_profile_may_be_two_lines() -> None:
    profile = source.read_profile(HEAD, "mine", "/x", "/x")
    assert (profile.permits, profile.programs, profile.time_limit_s) == ((), (), 120.0)


def test_include_brings_what_the_other_has_and_own_values_come_last() -> None:
    text = HEAD + 'include = ["bridge"]\nprograms = ["/usr/bin/x", "cni:static"]\n[netconf]\nbridge = "mine0"\n'
    profile = source.read_profile(text, "mine", "/x", "/x")
    bridge = source.read_text(os.path.join(source.PROFILES, "bridge.toml"))
    included = source.read_profile(bridge, "bridge", "/x", "/x")
    assert profile.permits == included.permits
    assert profile.variables == (Variable("bridge", "mine0"),)
    assert profile.programs == (*included.programs, "/usr/bin/x")
    assert profile.summary == "A plugin"


def test_what_several_includes_have_in_common_is_there_once() -> None:
    text = HEAD + 'include = ["bridge", "ptp", "ipam"]\n'
    permits = source.read_profile(text, "mine", "/x", "/x").permits
    assert len(permits) == len(set(permits))


def test_the_error_names_file_line_and_key_and_the_others_stand_below() -> None:
    with pytest.raises(ProfileError) as raised:
        source.read_profile(HEAD + "a = 1\nb = 2\n", "mine", "/x/mine.toml", "/x")
    assert raised.value.msg.startswith("read profile /x/mine.toml: line 3: a: there is no such key; there are ")
    assert raised.value.details.startswith("/x/mine.toml: line 4: b: ")
    assert raised.value.code == 106


MISTAKES = {
    "no-toml": ("summary = \n", 1, "", "not TOML: "),
    "no-toml-in-line-3": (HEAD + 'readable = ["a"\nx = 1\n', 4, "", "not TOML: "),
    "no-toml-at-the-end": (HEAD + 'readable = ["a"\n', 4, "", "not TOML: "),
    "key-twice": (HEAD + "level = 1\n", 3, "", "not TOML: "),
    "nested-too-deep": ("a = " + "[" * 5000, 1, "", "not TOML that can be read: nested too deep"),
    "no-summary": ('level = "mediated"\n', 1, "", "there is no summary"),
    "no-level": ('summary = "x"\n', 1, "", "there is no level"),
    "summary-is-empty": ('summary = " "\nlevel = "mediated"\n', 1, "summary", "is empty"),
    "summary-is-no-text": ('summary = 1\nlevel = "mediated"\n', 1, "summary", "is not a text"),
    "level": ('summary = "x"\nlevel = "median"\n', 2, "level", "'median' is none of root, netadmin"),
    "unknown-key": (HEAD + "sumary = 1\n", 3, "sumary", "there is no such key; there are "),
    "unknown-table": (HEAD + "[permits]\n", 3, "permits", "there is no such key"),
    "permit-is-no-array": (HEAD + "[permit]\nx = 1\n", 3, "permit", "is not a table [[permit]]"),
    "permit-is-text": (HEAD + 'permit = ["x"]\n', 3, "permit", "is not a table [[permit]]"),
    "unknown-key-of-permit": (permit(link="[]"), 7, "permit[0].link", "there is no such key; there are attributes, "),
    "list-is-text": (permit(links='"any"'), 7, "permit[0].links", "is not a list"),
    "element-is-number": (permit(links='["any", 1]'), 7, "permit[0].links[1]", "is not a text"),
    "element-twice": (permit(links='["any",\n"any"]'), 8, "permit[0].links[1]", "'any' stands here twice"),
    "no-reason": (permit(reason='""'), 4, "permit[0].reason", "is empty"),
    "no-netns": (permit(netns="[]"), 5, "permit[0].netns", "there is no netns"),
    "no-messages": (HEAD + '[[permit]]\nreason = "r"\nnetns = ["host"]\n', 3, "permit[0]", "there is no messages"),
    "netns": (permit(netns='["hosts"]'), 5, "permit[0].netns[0]", "'hosts' is none of host, container"),
    "message": (permit(messages='["RTM_GETLINKS"]'), 6, "permit[0].messages[0]", "'RTM_GETLINKS' is not a message"),
    "message-never": (permit(messages='["RTM_NEWNSID"]'), 6, "permit[0].messages[0]", "RTM_NEWNSID can never be "),
    "link": (permit(links='["attachments"]'), 7, "permit[0].links[0]", "'attachments' is none of attachment, peer"),
    "link-pattern": (permit(links='["name:a b"]'), 7, "permit[0].links[0]", "'a b' is not a pattern"),
    "link-pattern-long": (
        permit(links='["name:abcdefghijklmnop"]'),
        7,
        "permit[0].links[0]",
        "'abcdefghijklmnop' matc",
    ),
    "link-pattern-all": (permit(links='["name:*"]'), 7, "permit[0].links[0]", "'*' matches every name"),
    "link-undeclared": (permit(links='["netconf:x"]'), 7, "permit[0].links[0]", "'x' is not declared in [netconf]"),
    "link-any-of-host": (
        permit(messages='["RTM_GETLINK", "RTM_SETLINK"]', links='["any"]'),
        7,
        "permit[0].links",
        "any link of the host, for RTM_SETLINK: only what reads",
    ),
    "related-any-of-host": (
        permit(messages='["RTM_NEWLINK"]', related='["any"]'),
        7,
        "permit[0].related",
        "any link of the host, for RTM_NEWLINK",
    ),
    "kind": (permit(messages='["RTM_NEWLINK"]', kinds='[""]'), 7, "permit[0].kinds[0]", "'' is not a kind of link"),
    "kind-without-newlink": (permit(kinds='["veth"]'), 7, "permit[0].kinds", "only RTM_NEWLINK has a kind"),
    "attribute": (
        permit(attributes='["ifnames"]'),
        7,
        "permit[0].attributes[0]",
        "'ifnames' is no attribute of RTM_GET",
    ),
    "attribute-syntax": (permit(attributes='["a..b"]'), 7, "permit[0].attributes[0]", "'a..b' is not a path of attr"),
    "attribute-star-inside": (permit(attributes='["a.*.b"]'), 7, "permit[0].attributes[0]", "'a.*.b' is not a path"),
    "attribute-never": (permit(attributes='["net_ns_pid"]'), 7, "permit[0].attributes[0]", "net_ns_pid can never be "),
    "table": (permit(messages='["NFT_MSG_NEWRULE"]', tables='["nat"]'), 7, "permit[0].tables[0]", "'nat' is not \"FAM"),
    "table-name": (
        permit(messages='["NFT_MSG_NEWRULE"]', tables='["ip a{b"]'),
        7,
        "permit[0].tables[0]",
        "'a{b' is not a pattern of nf_tables names",
    ),
    "table-without-nft": (permit(tables='["ip nat"]'), 7, "permit[0].tables", "no message of this permit is about nf_"),
    "chain-without-table": (permit(messages='["NFT_MSG_NEWRULE"]', chains='["a"]'), 3, "permit[0]", "chains, jumps"),
    "sysctl-key": (
        HEAD + '[[sysctl]]\nreason = "r"\nnetns = ["host"]\nkey = "kernel/core_pattern"\naccess = "write"\n',
        6,
        "sysctl[0].key",
        "'kernel/core_pattern' is not a path below net/",
    ),
    "sysctl-dots": (
        HEAD + '[[sysctl]]\nreason = "r"\nnetns = ["host"]\nkey = "net/ipv4/../../kernel/x"\naccess = "write"\n',
        6,
        "sysctl[0].key",
        "'..' is neither a name",
    ),
    "sysctl-link": (
        HEAD + '[[sysctl]]\nreason = "r"\nnetns = ["host"]\nkey = "net/ipv4/conf/{bridge}/x"\naccess = "write"\n',
        6,
        "sysctl[0].key",
        "'{bridge}' is none of {attachment}, ",
    ),
    "sysctl-undeclared": (
        HEAD + '[[sysctl]]\nreason = "r"\nnetns = ["host"]\nkey = "net/ipv4/conf/{netconf:x}/x"\naccess = "write"\n',
        6,
        "sysctl[0].key",
        "'x' is not declared in [netconf]",
    ),
    "sysctl-access": (
        HEAD + '[[sysctl]]\nreason = "r"\nnetns = ["host"]\nkey = "net/core/x"\naccess = "rw"\n',
        7,
        "sysctl[0].access",
        "'rw' is none of read, write",
    ),
    "path-relative": (HEAD + 'readable = ["etc"]\n', 3, "readable[0]", "'etc' is not an absolute path"),
    "path-dots": (HEAD + 'readable = ["/etc/../root"]\n', 3, "readable[0]", "'/etc/../root' is not an absolute path"),
    "path-all": (HEAD + 'readable = ["/"]\n', 3, "readable[0]", "/ cannot be made visible as a whole"),
    "path-netns": (HEAD + 'readable = ["/run/netns"]\n', 3, "readable[0]", "/run/netns cannot be made visible"),
    "writable-proc": (HEAD + 'writable = ["/proc/sys/net"]\n', 3, "writable[0]", "/proc/sys/net cannot be made writ"),
    "state-sys": (HEAD + 'state = ["/sys/x"]\n', 3, "state[0]", "/sys/x cannot be made writable"),
    "program": (HEAD + 'programs = ["iptables"]\n', 3, "programs[0]", "'iptables' is neither an absolute path"),
    "program-pattern": (HEAD + 'programs = ["/usr/*/nft"]\n', 3, "programs[0]", "'/usr/*/nft' is a pattern in another"),
    "program-plugin": (HEAD + 'programs = ["cni:../x"]\n', 3, "programs[0]", "'../x' is not the name of a plugin"),
    "raw-socket": (HEAD + 'raw_sockets = ["icmp"]\n', 3, "raw_sockets[0]", "'icmp' is none of arp, dhcp"),
    "device": (HEAD + 'devices = ["/etc/tun"]\n', 3, "devices[0]", "'/etc/tun' is not below /dev"),
    "capability": (
        HEAD + '[[capability]]\nname = "CAP_SYS_ADMIN"\nreason = "r"\n',
        4,
        "capability[0].name",
        "'CAP_SYS_ADMIN' is none of CAP_NET_BIND_SERVICE, CAP_NET_RAW",
    ),
    "capability-at-mediated": (
        HEAD + '[[capability]]\nname = "CAP_NET_ADMIN"\nreason = "r"\n',
        4,
        "capability[0].name",
        "CAP_NET_ADMIN cannot be kept at level mediated",
    ),
    "capability-without-reason": (
        HEAD + '[[capability]]\nname = "CAP_NET_RAW"\n',
        3,
        "capability[0]",
        "there is no reason",
    ),
    "time-limit": (HEAD + "time_limit_s = 0\n", 3, "time_limit_s", "0 is not between 0 and 3600 seconds"),
    "time-limit-nan": (HEAD + "time_limit_s = nan\n", 3, "time_limit_s", "nan is not between"),
    "time-limit-text": (HEAD + 'time_limit_s = "1"\n', 3, "time_limit_s", "is not a number"),
    "time-limit-bool": (HEAD + "time_limit_s = true\n", 3, "time_limit_s", "is not a number"),
    "variable": (HEAD + '[netconf]\nbridge = "a/b"\n', 4, "netconf.bridge", "'a/b' is not a name that a link can"),
    "variable-no-text": (HEAD + "[netconf]\nipam.link = 1\n", 4, "netconf.ipam.link", "is not a text"),
    "variable-key": (HEAD + '[netconf]\n"a b" = ""\n', 4, "netconf.a b", "'a b' is not a path of keys"),
    "netconf-is-text": (HEAD + 'netconf = "x"\n', 3, "netconf", "'' is not a path of keys"),
    "include": (HEAD + 'include = ["ipam",\n"nothing"]\n', 4, "include[1]", "'nothing' is neither a fragment nor"),
    "include-path": (HEAD + 'include = ["../x"]\n', 3, "include[0]", "'../x' is not a name"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_in_its_line(name: str) -> None:
    text, line, key, complaint = MISTAKES[name]
    found = problems_of(text)
    assert len(found) == 1, found
    assert found[0][:2] == (line, key)
    assert found[0][2].startswith(complaint), found


def test_all_mistakes_are_found_at_once_in_the_order_of_the_file() -> None:
    text = 'level = "x"\nreadable = ["a", "/b", "c"]\n[[permit]]\nnetns = ["moon"]\nmessages = ["X"]\n'
    assert [(line, key) for line, key, _ in problems_of(text)] == [
        (1, ""),
        (1, "level"),
        (2, "readable[0]"),
        (2, "readable[2]"),
        (3, "permit[0]"),
        (4, "permit[0].netns[0]"),
        (5, "permit[0].messages[0]"),
    ]


def test_a_profile_of_the_package_cannot_include_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(source, "PROFILES", str(tmp_path))
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.toml").write_text(HEAD + f'include = ["{other}"]\n')
    _, problems = source.examine_profile(HEAD + 'include = ["a"]\n', "c", "/x", "/x")
    assert [(problem.path, problem.line, problem.text) for problem in problems] == [
        (str(tmp_path / "b.toml"), 3, "'a' includes itself")
    ]


def test_a_fragment_has_no_level(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(source, "FRAGMENTS", str(tmp_path))
    (tmp_path / "f.toml").write_text(HEAD)
    _, problems = source.examine_profile(HEAD + 'include = ["f"]\n', "c", "/x", "/x")
    assert [(problem.line, problem.key, problem.text) for problem in problems] == [(2, "level", "a fragment has none")]


_WORDS = st.sampled_from(
    ["summary", "level", "permit", "netns", "links", "[[permit]]", "[netconf]", "=", "[", "]", '"x"']
)


@given(st.one_of(st.text(max_size=60), st.lists(_WORDS, max_size=20).map(" ".join)))
def test_no_text_makes_it_fall_over(text: str) -> None:
    profile, problems = source.examine_profile(text, "mine", "/x", "/x")
    assert profile is None
    assert problems


@given(st.integers(0, len(FULL) - 1), st.sampled_from(list("\"[]{}=.#\n'\\ax*/")))
def test_no_changed_character_makes_it_fall_over(place: int, character: str) -> None:
    text = FULL[:place] + character + FULL[place + 1 :]
    profile, problems = source.examine_profile(text, "mine", "/x", "/x")
    assert (profile is None) == bool(problems)
    assert all(1 <= problem.line <= text.count("\n") + 1 for problem in problems)

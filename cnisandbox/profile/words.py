"""What may stand in a profile: one function for each kind of word, which says what is wrong with it.

Each takes what stands in the file and returns the complaint, or "" when there is nothing to complain about.

Privilege: none.
"""

import re
from collections.abc import Callable
from posixpath import normpath

from cnisandbox.boundary.levels import Level
from cnisandbox.errors import quoted
from cnisandbox.netlink.datagram import MESSAGE_NAMES
from cnisandbox.profile.schema import DEFAULT_ROUTE

Check = Callable[[str], str]

NETNS = ("host", "container")
ACCESS = ("read", "write")
NFT_VERDICTS = ("drop",)
_NFT_CHAIN_TYPES = ("filter", "nat", "route")
_NFT_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
RAW_SOCKETS = ("arp", "dhcp")
FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
LINK_WORDS = ("attachment", "peer", "created", "default-route", "loopback", "any")
SYSCTL_LINKS = ("attachment", "peer", "created", "lo")
# What a plugin may keep. Everything else leads out of the confinement, or is not needed for networks.
CAPABILITIES = ("CAP_NET_BIND_SERVICE", "CAP_NET_RAW")
# Only below level mediated: there the monitor has it, and reads what it is used for.
CAPABILITIES_BELOW_MEDIATED = ("CAP_NET_ADMIN",)

# Numbers of other network namespaces, and messages that make them: no permit passes them (cnisandbox/policy).
NEVER_MESSAGES = ("RTM_NEWNSID", "RTM_DELNSID")
NEVER_ATTRIBUTES = ("net_ns_pid", "target_netnsid", "link_netnsid", "new_netnsid")

# LIMIT: IFNAMSIZ and NFT_NAME_MAXLEN of include/uapi/linux, each with its NUL.
_IFNAME_CHARACTERS = 15
_NFT_NAME_CHARACTERS = 255
_MAX_TIME_LIMIT_S = 3600

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_IFNAME_PATTERN = re.compile(r"[^\s/:\x00-\x1f]+")
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ATTRIBUTE = re.compile(r"(?:[a-z0-9_]+\.)*(?:[a-z0-9_]+|\*\*?)")
_NFT_PATTERN = re.compile(r"[A-Za-z0-9_.*?/-]+")
_NETCONF_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_SYSCTL_COMPONENT = re.compile(r"[A-Za-z0-9_-]+")
_PLACEHOLDER = re.compile(r"\{(?P<word>[^{}]*)\}")
# Not mounted into anybody's view whole, or not a place for files at all.
_NOT_TO_BE_SEEN = ("/", "/dev", "/proc", "/sys", "/run/netns", "/var/run/netns")


def one_of(words: tuple[str, ...]) -> Check:
    """Make the check for a word out of a list."""
    return lambda word: "" if word in words else f"{quoted(word)} is none of {', '.join(words)}"


def is_name(word: str) -> bool:
    """Say whether a profile can have this name."""
    return _NAME.fullmatch(word) is not None


def text(word: str) -> str:
    """Check a sentence for people."""
    return "" if word.strip() else "is empty"


def level(word: str) -> str:
    """Check the name of a level."""
    return one_of(tuple(one.value for one in Level))(word)


def capability(word: str) -> str:
    """Check the name of a capability that a plugin may keep at some level."""
    return one_of((*CAPABILITIES, *CAPABILITIES_BELOW_MEDIATED))(word)


def include(word: str) -> str:
    """Check the name of something to include; whether it exists is seen when it is read."""
    return "" if is_name(word) else f"{quoted(word)} is not a name"


def message(word: str) -> str:
    """Check the name of a message type."""
    if word in NEVER_MESSAGES:
        return f"{word} can never be permitted: it gives a network namespace a number"
    return "" if word in MESSAGE_NAMES else f"{quoted(word)} is not a message that can be permitted"


def link(word: str) -> str:
    """Check a word that says which link."""
    prefix, _, rest = word.partition(":")
    if prefix == "netconf" and rest:
        return netconf_key(rest)
    if prefix == "name" and rest:
        return _ifname_pattern(rest)
    expected = f"{', '.join(LINK_WORDS)}, netconf:KEY, name:PATTERN"
    return "" if word in LINK_WORDS else f"{quoted(word)} is none of {expected}"


def _ifname_pattern(pattern: str) -> str:
    if not _IFNAME_PATTERN.fullmatch(pattern):
        return f"{quoted(pattern)} is not a pattern of names that links can have"
    if len(pattern.replace("*", "")) > _IFNAME_CHARACTERS:
        return f"{quoted(pattern)} matches nothing: a link's name has at most {_IFNAME_CHARACTERS} characters"
    if not pattern.strip("*?"):
        return f"{quoted(pattern)} matches every name: say so with the word any"
    return ""


def ifname(word: str) -> str:
    """Check the default of a variable: the name of a link, or a word for one, or nothing."""
    if word in ("", DEFAULT_ROUTE):
        return ""
    is_ifname = _IFNAME_PATTERN.fullmatch(word) and len(word) <= _IFNAME_CHARACTERS and word not in (".", "..")
    return "" if is_ifname else f"{quoted(word)} is not a name that a link can have"


def netconf_key(word: str) -> str:
    """Check a path into the netconf."""
    return "" if _NETCONF_KEY.fullmatch(word) else f"{quoted(word)} is not a path of keys, such as ipam.type"


def kind(word: str) -> str:
    """Check a kind of link."""
    return "" if _KIND.fullmatch(word) else f"{quoted(word)} is not a kind of link"


def attribute(word: str) -> str:
    """Check the path of an attribute; whether a message has it depends on the permit's messages."""
    if not _ATTRIBUTE.fullmatch(word):
        return f"{quoted(word)} is not a path of attributes, such as linkinfo.data.*"
    if word.rpartition(".")[2] in NEVER_ATTRIBUTES:
        return f"{word} can never be permitted: it names a network namespace by its number"
    return ""


def nft_table(word: str) -> str:
    """Check the pattern of an nf_tables table: family and name."""
    family, _, name = word.partition(" ")
    if family not in FAMILIES or not name:
        return f'{quoted(word)} is not "FAMILY NAME" with a family out of {", ".join(FAMILIES)}'
    return nft_name(name)


def nft_name(word: str) -> str:
    """Check the pattern of a chain's name."""
    if not _NFT_PATTERN.fullmatch(word) or len(word) > _NFT_NAME_CHARACTERS:
        return f"{quoted(word)} is not a pattern of nf_tables names"
    return ""


def nft_hook(word: str) -> str:
    """Check where the kernel enters a chain."""
    kind, _, hook = word.partition(" ")
    if kind not in _NFT_CHAIN_TYPES or hook not in _NFT_HOOKS:
        return f"{quoted(word)} is not a type and a hook, such as 'nat postrouting'"
    return ""


def sysctl_key(word: str) -> str:
    """Check the path of a setting."""
    components = word.split("/")
    if components[0] != "net" or len(components) < 3:
        return f"{quoted(word)} is not a path below net/, such as net/ipv4/ip_forward"
    for component in components:
        placeholder = _PLACEHOLDER.fullmatch(component)
        complaint = _sysctl_link(placeholder["word"]) if placeholder else _sysctl_component(component)
        if complaint:
            return complaint
    return ""


def _sysctl_component(component: str) -> str:
    if component == "*" or _SYSCTL_COMPONENT.fullmatch(component):
        return ""
    return f"{quoted(component)} is neither a name, nor *, nor a link such as {{attachment}}"


def _sysctl_link(word: str) -> str:
    prefix, _, key = word.partition(":")
    if prefix == "netconf" and key:
        return netconf_key(key)
    expected = ", ".join(f"{{{one}}}" for one in SYSCTL_LINKS)
    return "" if word in SYSCTL_LINKS else f"{quoted(f'{{{word}}}')} is none of {expected}, {{netconf:KEY}}"


def netconf_keys_of(word: str) -> list[str]:
    """The variables that a link word or the path of a setting names."""
    inside = [found["word"] for found in _PLACEHOLDER.finditer(word)] or [word]
    return [one.removeprefix("netconf:") for one in inside if one.startswith("netconf:")]


def path(word: str) -> str:
    """Check a path that the plugin sees."""
    complaint = _shortest_absolute(word)
    if not complaint and word in _NOT_TO_BE_SEEN:
        return f"{word} cannot be made visible as a whole"
    return complaint


def writable_path(word: str) -> str:
    """Check a path that the plugin may write to."""
    complaint = path(word)
    if not complaint and word.startswith(("/proc/", "/sys/", "/dev/")):
        return f"{word} cannot be made writable: settings are permitted by [[sysctl]], devices by devices"
    return complaint


def device(word: str) -> str:
    """Check the path of a device."""
    complaint = _shortest_absolute(word)
    return complaint or ("" if word.startswith("/dev/") else f"{quoted(word)} is not below /dev")


def program(word: str) -> str:
    """Check what may be executed: a path, of which the last component may be a pattern, or a plugin."""
    prefix, _, name = word.partition(":")
    if prefix == "cni" and name:
        return "" if name == "*" or is_name(name) else f"{quoted(name)} is not the name of a plugin"
    if _shortest_absolute(word):
        return f"{quoted(word)} is neither an absolute path in its shortest form nor cni:NAME"
    has_pattern_above = "*" in word.rpartition("/")[0] or "?" in word.rpartition("/")[0]
    return f"{quoted(word)} is a pattern in another place than the last" if has_pattern_above else ""


def _shortest_absolute(word: str) -> str:
    # normpath keeps two slashes at the start
    if not word.startswith("/") or word.startswith("//") or normpath(word) != word or "\0" in word:
        return f"{quoted(word)} is not an absolute path in its shortest form"
    return ""


def time_limit(value: float) -> str:
    """Check a number of seconds."""
    return "" if 0 < value <= _MAX_TIME_LIMIT_S else f"{value} is not between 0 and {_MAX_TIME_LIMIT_S} seconds"

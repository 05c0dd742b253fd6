"""Hypothesis strategies for CNI documents: valid ones, nearly valid ones, and bytes that only look like one."""

import json
from ipaddress import ip_interface

from hypothesis import settings
from hypothesis import strategies as st

from cnisandbox.cni.result import Address, Dns, Interface, Result, Route
from cnisandbox.cni.versions import SUPPORTED

# Examples take milliseconds, but the machine may be busy with something else.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")

UINT32 = st.integers(0, 2**32 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)

VERSIONS = st.sampled_from(SUPPORTED)
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,20}", fullmatch=True)
ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates as well
TEXT = st.text(max_size=20)
FILLED_TEXT = st.text(min_size=1, max_size=20)

SCALARS = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=6
)

MACS = st.binary(min_size=6, max_size=6).map(lambda mac: mac.hex(":"))
# Mapped addresses are refused on purpose, so they are no part of a valid document.
IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6).filter(lambda address: not address.ipv4_mapped)
ADDRESSES = IPV4 | IPV6


def outcome(function, *args, errors):
    """Call a function and return what it returned, or the error if it is one of those."""
    try:
        return function(*args)
    except errors as error:
        return error


@st.composite
def cidrs(draw, addresses=ADDRESSES):
    """Canonical text of an address with a prefix length, bits behind the prefix kept."""
    address = draw(addresses)
    return str(ip_interface(f"{address}/{draw(st.integers(0, address.max_prefixlen))}"))


INTERFACES = st.builds(
    Interface, name=TEXT, mac=MACS | st.just(""), mtu=UINT32, sandbox=TEXT, socket_path=TEXT, pci_id=TEXT
)
RESULT_ADDRESSES = st.builds(
    Address,
    address=cidrs(),
    gateway=ADDRESSES.map(str) | st.just(""),
    interface=st.none() | st.integers(0, 2**31 - 1),
)
ROUTES = st.builds(
    Route,
    dst=cidrs(),
    gw=ADDRESSES.map(str) | st.just(""),
    mtu=UINT32,
    advmss=UINT32,
    priority=UINT32,
    table=st.none() | UINT32,
    scope=st.none() | st.integers(0, 255),
)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
DNS = st.builds(Dns, nameservers=TEXTS, domain=TEXT, search=TEXTS, options=TEXTS)


def _tuples(elements, min_size=0):
    return st.lists(elements, min_size=min_size, max_size=3).map(tuple)


RESULTS = st.builds(
    Result, interfaces=_tuples(INTERFACES), ips=_tuples(RESULT_ADDRESSES), routes=_tuples(ROUTES), dns=DNS
)
RESULTS_WITH_ADDRESS = st.builds(
    Result, interfaces=_tuples(INTERFACES), ips=_tuples(RESULT_ADDRESSES, 1), routes=_tuples(ROUTES), dns=DNS
)

ATTACHMENTS = st.lists(st.fixed_dictionaries({"containerID": FILLED_TEXT, "ifname": FILLED_TEXT}), max_size=3)

WELL_KNOWN = {
    "ipMasq": st.booleans() | st.none(),
    "ipam": st.fixed_dictionaries({"type": TEXT}, optional={"subnet": cidrs(), "routes": st.just([])}) | st.none(),
    "dns": st.fixed_dictionaries({}, optional={"nameservers": st.lists(TEXT), "domain": TEXT, "search": st.none()}),
    "args": JSON,
    "runtimeConfig": JSON,
    "capabilities": st.dictionaries(TEXT, st.booleans(), max_size=2),
    "cni.dev/valid-attachments": ATTACHMENTS | st.none(),
    "cni.dev/attachments": ATTACHMENTS | st.none(),
    "prevResult": st.just({}) | st.none(),
}
NETCONFS = st.fixed_dictionaries({"cniVersion": VERSIONS, "name": NAMES, "type": TEXT}, optional=WELL_KNOWN)


SPOILERS = st.integers(0, 255) | st.sampled_from(b'{}[]",:0eE-\\')


@st.composite
def mutated_netconfs(draw):
    """A netconf of which some members, at any depth, were replaced by arbitrary JSON."""
    netconf = draw(NETCONFS)
    for key in draw(st.sets(st.sampled_from(sorted({"cniVersion", "name", "type", *WELL_KNOWN})), max_size=2)):
        netconf[key] = draw(JSON | st.just([[]]) | st.just([{"address": 1}]) | st.just({"type": []}))
    if draw(st.booleans()):
        netconf["prevResult"] = {
            draw(st.sampled_from(["cniVersion", "ips", "interfaces", "routes", "dns", "ip4", "ip6"])): draw(
                JSON
                | st.lists(st.dictionaries(st.sampled_from(["address", "gateway", "dst", "name"]), JSON), max_size=2)
            )
        }
    return netconf


CORPUS = [
    b'{"cniVersion":"1.1.0","name":"net","type":"bridge","ipMasq":true,"ipam":{"type":"host-local","ranges":[[{"subnet":'
    b'"10.1.0.0/16"}]]},"dns":{"nameservers":["10.1.0.1"]},"cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}',
    b'{"cniVersion":"1.0.0","name":"net","type":"x","prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":'
    b'"02:00:00:00:00:01","sandbox":"/run/netns/a","mtu":1500}],"ips":[{"address":"fd00::2/64","gateway":"fd00::1","interface":'
    b'0}],"routes":[{"dst":"::/0","gw":"fd00::1","table":1,"scope":0}],"dns":{"search":["a"]}}}',
    b'{"cniVersion":"0.4.0","name":"net","type":"x","prevResult":{"ips":[{"version":"4","address":"10.1.0.2/16"}]}}',
    b'{"cniVersion":"0.2.0","name":"net","type":"x","prevResult":{"ip4":{"ip":"10.1.0.2/16","routes":[{"dst":"0.0.0.0/0"}]},'
    b'"ip6":{"ip":"fd00::2/64"},"dns":{}}}',
    b'{"name":"net","NAME":null,"name":"\\u006eet"}',
]


@st.composite
def spoiled_bytes(draw):
    """The bytes of a netconf, cut, continued, or with some of them overwritten."""
    data = bytearray(draw(st.sampled_from(CORPUS)))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), SPOILERS), max_size=4)):
        data[place] = byte
    end = draw(st.just(len(data)) | st.integers(0, len(data)))
    return bytes(data[:end]) + draw(st.sampled_from([b"", b"\n", b"{}", bytes(data)]))


@st.composite
def raw_json(draw):
    """Text put together from the pieces of JSON, with a weakness for what parsers get wrong."""
    pieces = st.sampled_from(
        [
            b"{", b"}", b"[", b"]", b",", b":", b'"', b'"name"', b'"cniVersion"', b'"1.1.0"', b'"n"', b"null", b"true",
            b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-0", b"0.1", b"01", b"\xef\xbb\xbf", b"\xff", b"\x00",
            b"\\ud800", b'"\\ud83d\\ude00"', b'"\\udc00"', b"[" * 70, b'{"a":' * 70, b" ", b"\n", b'{"name":"n"}',
        ]
    )  # fmt: skip
    return b"".join(draw(st.lists(pieces, max_size=12)))


HOSTILE_BYTES = st.one_of(
    st.binary(max_size=60),
    raw_json(),
    spoiled_bytes(),
    spoiled_bytes(),
    mutated_netconfs().map(lambda netconf: json.dumps(netconf).encode()),
)


@st.composite
def with_other_case(draw, document):
    """The same JSON document with the case of its keys changed at random, `runtimeConfig` and `args` as well."""
    if isinstance(document, list):
        return [draw(with_other_case(element)) for element in document]
    if not isinstance(document, dict):
        return document
    return {draw(_other_case(key)): draw(with_other_case(value)) for key, value in document.items()}


def _other_case(key):
    return st.sampled_from(
        [key, key.upper(), key.lower(), key.swapcase(), key.replace("s", "\u017f").replace("k", "\u212a")]
    )

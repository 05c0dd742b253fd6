"""What is JSON and what is not, and typed access to it."""

import json
import subprocess
import sys

import pytest

from cnisandbox.cni.value import MAX_DEPTH, MAX_DOCUMENT_BYTES, Value, decode
from cnisandbox.errors import InvalidConfig, UndecodableInput


def value(document):
    return decode(json.dumps(document).encode())


def nested(depth, opening="[", closing="]", core=""):
    return (opening * depth + core + closing * depth).encode()


UNDECODABLE = {
    "empty": (b"", "empty input"),
    "blank": (b" \n\t\r", "empty input"),
    "garbage": (b"garbage", "expecting value at line 1 column 1"),
    "cut-off": (b'{"a":', "expecting value"),
    "trailing-garbage": (b"{} x", "extra data at line 1 column 4"),
    "two-documents": (b"{}{}", "extra data"),
    "nul-behind-the-end": (b"{}\0", "extra data"),
    "byte-order-mark": (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
    "utf-16": ("{}".encode("utf-16"), "not UTF-8 at byte 0"),
    "latin-1": ('{"a":"\xe4"}'.encode("latin-1"), "not UTF-8 at byte 6"),
    "overlong-utf-8": (b'"\xc0\xaf"', "not UTF-8"),
    "utf-8-surrogate": (b'"\xed\xa0\x80"', "not UTF-8"),
    "lone-high-surrogate": (rb'{"a":["\ud800"]}', "half of a surrogate pair"),
    "lone-low-surrogate-in-key": (rb'{"\uDC00":1}', "half of a surrogate pair"),
    "nan": (b'{"a":NaN}', "NaN is not JSON"),
    "infinity": (b"[Infinity]", "Infinity is not JSON"),
    "negative-infinity": (b"-Infinity", "-Infinity is not JSON"),
    "huge-exponent": (b'{"a":1e400}', "a number is out of range"),
    "huge-integer": (b"1" + b"0" * 400, "a number is out of range"),
    "more-digits-than-int-takes": (b"[-" + b"9" * 5000 + b"]", "a number is out of range"),
    "leading-zero": (b"[01]", "expecting ',' delimiter"),
    "single-quotes": (b"{'a':1}", "expecting property name"),
    "trailing-comma": (b'{"a":1,}', ""),
    "comment": (b"{} // why", "extra data"),
    "control-character-in-string": (b'"a\nb"', "invalid control character"),
    "nested-one-too-deep": (nested(MAX_DEPTH + 1), f"nested deeper than {MAX_DEPTH} levels"),
    "objects-nested-one-too-deep": (nested(MAX_DEPTH + 1, '{"a":', "}", "1"), "nested deeper"),
    "nested-beyond-the-stack": (nested(100_000), "nested deeper"),
    "open-brackets-only": (b"[" * MAX_DOCUMENT_BYTES, "nested deeper"),
    "objects-beyond-the-stack": (b'{"a":' * 100_000, "nested deeper"),
    "one-byte-too-long": (b" " * (MAX_DOCUMENT_BYTES - 1) + b"{}", f"longer than {MAX_DOCUMENT_BYTES} bytes"),
}


@pytest.mark.parametrize(("data", "why"), UNDECODABLE.values(), ids=UNDECODABLE)
def test_refuses(data, why):
    with pytest.raises(UndecodableInput) as error:
        decode(data)
    assert error.value.msg.startswith("decode netconf: ")
    assert why in error.value.msg


DECODABLE = {
    "longest": (b" " * (MAX_DOCUMENT_BYTES - 2) + b"{}", {}),
    "surrogate-pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "escaped-nul": (rb'"\u0000"', "\0"),
    "escaped-backslash-before-u": (rb'"\\ud800"', "\\ud800"),
    "largest-64-bit-integers": (b"[-9223372036854775808, 18446744073709551615]", [-(2**63), 2**64 - 1]),
    "white-space-around": (b"\r\n\t {} \n", {}),
    "null": (b"null", None),
}


@pytest.mark.parametrize(("data", "expected"), DECODABLE.values(), ids=DECODABLE)
def test_reads(data, expected):
    assert decode(data).raw == expected


@pytest.mark.parametrize("core", ["", "1", '"x"', "null"])
def test_reads_what_is_nested_as_deep_as_allowed(core):
    assert decode(nested(MAX_DEPTH, core=core))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**300])
def test_an_integer_beyond_64_bits_becomes_a_double_that_no_integer_field_takes(number):
    config = value({"mtu": number})
    assert config["mtu"].raw == float(number)
    with pytest.raises(InvalidConfig, match=r"^mtu: expected an integer, got "):
        config["mtu"].integer()


class TestKeys:
    @pytest.mark.parametrize("key", ["subnet", "SUBNET", "SubNet", "\u017fubnet"])
    def test_match_in_any_case(self, key):
        assert value({key: "x"})["subnet"].raw == "x"

    def test_match_the_kelvin_sign_as_go_does(self):
        assert value({"net\u212aey": 1})["netkey"].raw == 1

    @pytest.mark.parametrize(
        ("written", "asked"), [("addre\xdf", "address"), ("\ufb01eld", "field"), ("na\u0307me", "name")]
    )
    def test_match_no_more_than_go_does(self, written, asked):
        assert not value({written: 1})[asked].is_present

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"a":1,"a":2}', 2),
            ('{"a":1,"A":2}', 2),
            ('{"A":1,"a":2}', 2),
            ('{"a":1,"A":2,"a":3}', 3),
            ('{"a":1,"b":0,"A":2,"a":3,"A":4}', 4),
        ],
    )
    def test_the_last_of_equal_ones_wins(self, text, expected):
        assert decode(text.encode())["a"].raw == expected

    def test_that_are_null_hide_earlier_ones(self):
        assert not decode(b'{"a":1,"A":null}')["a"].is_present

    def test_in_has_no_regard_to_case_and_sees_null(self):
        config = value({"IPAM": None})
        assert "ipam" in config
        assert "ipa" not in config
        assert "ipam" not in Value(None, "x")


class TestPaths:
    def test_name_each_step(self):
        config = value({"ipam": {"ranges": [[{}, {"subnet": 5}]]}})
        ranges = list(config["ipam"]["ranges"])
        subnet = list(ranges[0])[1]["subnet"]
        assert subnet.path == "ipam.ranges[0][1].subnet"
        with pytest.raises(InvalidConfig) as error:
            subnet.interface()
        assert error.value.msg == "ipam.ranges[0][1].subnet: expected a string, got 5"

    def test_use_the_specifications_spelling(self):
        assert value({"IPMASQ": 1})["ipMasq"].path == "ipMasq"

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("plain-key_1", "sysctl.plain-key_1"),
            ("net.ipv4.ip_forward", "sysctl['net.ipv4.ip_forward']"),
            ("", "sysctl['']"),
            ("a\nb", "sysctl['a\\nb']"),
            ("x" * 200 + ".", f"sysctl['{'x' * 119}...]"),
        ],
    )
    def test_quote_keys_that_come_from_outside(self, key, path):
        assert value({"sysctl": {key: 1}})["sysctl"].members()[0][1].path == path

    def test_name_the_document_when_it_is_all_wrong(self):
        assert value([]).error("is odd").msg == "netconf: is odd"

    def test_go_through_what_is_missing(self):
        assert value({})["args"]["cni"]["ips"].path == "args.cni.ips"


ACCESSORS = {
    "string": (Value.string, ""),
    "boolean": (Value.boolean, False),
    "integer": (Value.integer, 0),
    "strings": (Value.strings, []),
    "members": (Value.members, []),
    "elements": (list, []),
}


@pytest.mark.parametrize(("accessor", "zero"), ACCESSORS.values(), ids=ACCESSORS)
@pytest.mark.parametrize("document", [{}, {"a": None}], ids=["missing", "null"])
def test_what_is_missing_or_null_is_the_zero_value(accessor, zero, document):
    absent = value(document)["a"]
    assert not absent.is_present
    assert accessor(absent) == zero


def test_what_is_missing_is_the_default_if_there_is_one():
    absent = Value(None, "a")
    assert (absent.string("x"), absent.boolean(True), absent.integer(9, minimum=0, maximum=1)) == ("x", True, 9)


def test_an_empty_string_is_not_missing():
    assert value({"a": ""})["a"].string("default") == ""


WRONG_TYPES = [
    (Value.string, [1, True, [], {}, 1.5], "a string"),
    (Value.boolean, [0, 1, "true", [], {}], "true or false"),
    (Value.integer, ["1", True, 1.0, 1e3, [], {}], "an integer"),
    (Value.strings, ["x", 1, {}], "an array"),
    (Value.members, ["x", 1, []], "an object"),
    (lambda wrong: wrong["key"], ["x", 1, []], "an object"),
    (lambda wrong: "key" in wrong, ["x", 1, []], "an object"),
    (iter, ["x", 1, {}], "an array"),
]


@pytest.mark.parametrize(
    ("accessor", "raw", "what"), [(accessor, raw, what) for accessor, raws, what in WRONG_TYPES for raw in raws]
)
def test_another_type_is_refused_with_what_was_expected(accessor, raw, what):
    with pytest.raises(InvalidConfig) as error:
        accessor(Value(raw, "a.b"))
    assert error.value.msg == f"a.b: expected {what}, got {raw!r}"


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(InvalidConfig) as error:
        value({"a": ["x" * 1000]})["a"].string()
    assert len(error.value.msg) < 200


def test_strings_takes_null_as_empty_and_names_the_element_that_is_wrong():
    assert value(["a", None]).strings() == ["a", ""]
    with pytest.raises(InvalidConfig, match=r"^a\[1\]: expected a string, got 2$"):
        value({"a": ["x", 2]})["a"].strings()


def test_members_keep_their_order_and_spelling():
    assert [key for key, _ in decode(b'{"b":1,"A":2,"a":3}').members()] == ["b", "A", "a"]


@pytest.mark.parametrize("number", [68, 1500, 65535])
def test_an_integer_in_its_bounds_is_taken(number):
    assert value({"mtu": number})["mtu"].integer(minimum=68, maximum=65535) == number


@pytest.mark.parametrize("number", [-1, 67, 65536])
def test_an_integer_out_of_bounds_is_refused_with_them(number):
    with pytest.raises(InvalidConfig) as error:
        value({"mtu": number})["mtu"].integer(minimum=68, maximum=65535)
    assert error.value.msg == f"mtu: {number} is not in 68..65535"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("10.0.0.1", "10.0.0.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::", "::"), ("0.0.0.0", "0.0.0.0")],
)
def test_an_address_is_read(text, canonical):
    assert str(Value(text, "gw").address()) == canonical


NO_ADDRESS = [
    "",
    "10.0.0",
    "10.0.0.256",
    "010.0.0.1",
    "10.0.0.1/24",
    " 10.0.0.1",
    "fe80::1%eth0",
    "::ffff:10.0.0.1",
    "1",
    "x",
]


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidConfig) as error:
        Value(text, "gw").address()
    assert error.value.msg == f"gw: {text!r} is not an IP address"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("10.1.2.3/24", "10.1.2.3/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1/064", "2001:db8::1/64"),
        ("::1/128", "::1/128"),
    ],
)
def test_a_network_keeps_the_bits_behind_its_prefix(text, canonical):
    interface = Value(text, "dst").interface()
    assert str(interface) == canonical
    assert Value(text, "dst").network() == (interface.ip, interface.network.prefixlen)


NO_NETWORK = [
    "10.0.0.1", "10.0.0.1/", "10.0.0.1/255.255.255.0", "10.0.0.1/0.0.0.255", "10.0.0.1/+8", "10.0.0.1/-1",
    "10.0.0.1/ 8", "10.0.0.1/33", "::/129", "10.0.0.1/8/8", "10.0.0.1/\u0668", "/8", "fe80::1%1/64",
    "::ffff:10.0.0.1/120", "10.0.0.1/0024",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NETWORK)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(InvalidConfig, match=r"^dst: ") as error:
        Value(text, "dst").interface()
    assert repr(text) in error.value.msg


@pytest.mark.parametrize("text", ["02:00:5E:10:00:01", "02-00-5e-10-00-01", "0200.5e10.0001", "02:00:5e:10:00:01"])
def test_an_ethernet_address_is_read_in_each_notation(text):
    assert Value(text, "mac").mac() == "02:00:5e:10:00:01"


NO_MAC = [
    "", "02:00:5e:10:00", "02:00:5e:10:00:01:02:03", "2:0:5e:10:0:1", "02:00:5e:10:00:0g", "02005e100001",
    "02:00-5e:10-00:01", "02:00:5e:10:00:01 ", "0 :00:5e:10:00:01", "\u0660\u0662:00:5e:10:00:01", "0200:5e10:0001",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_MAC)
def test_what_is_no_ethernet_address_is_refused(text):
    with pytest.raises(InvalidConfig) as error:
        Value(text, "mac").mac()
    assert error.value.msg == f"mac: {text!r} is not an Ethernet address"


@pytest.mark.parametrize("accessor", [Value.address, Value.interface, Value.network, Value.mac])
def test_an_address_that_is_missing_is_refused(accessor):
    with pytest.raises(InvalidConfig, match=r"^ipam\.gateway: is missing$"):
        accessor(Value(None, "ipam.gateway"))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1,]", b'{"a" 1}', b'"\\x"', b'"\n"', b"{} {}", b"nope", b"[1e999]", b"[NaN]", b'"\\ud800"']
)
def test_what_is_wrong_is_said_also_where_json_was_not_loaded(data: bytes) -> None:
    """A plugin does not load it for a document in order."""
    program = """
import sys
from cnisandbox.cni.value import decode
from cnisandbox.errors import UndecodableInput
assert "json" not in sys.modules
try:
    decode(sys.stdin.buffer.read())
except UndecodableInput as error:
    print(error.msg, end="")
"""
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True, timeout=30)
    with pytest.raises(UndecodableInput) as caught:
        decode(data)
    assert done.stdout.decode() == caught.value.msg

"""R-2 to R-4, T-1 to T-8, A-2: results in every published version."""

import json

import pytest

from cnisandbox.cni.output import result_document
from cnisandbox.cni.result import (
    Address,
    Dns,
    Interface,
    Result,
    Route,
    parse_result,
    require_expressible,
    result_from,
    result_to,
)
from cnisandbox.cni.value import Value
from cnisandbox.cni.versions import CURRENT, NUMBERED_ADDRESSES, ONE_ADDRESS_PER_FAMILY, SUPPORTED
from cnisandbox.errors import IncompatibleVersion, InvalidConfig, UndecodableInput

FULL = Result(
    interfaces=(
        Interface("cni0", "02:00:00:00:00:01"),
        Interface("eth0", "02:00:00:00:00:02", 1500, "/run/netns/a", "/run/sock", "0000:01:00.0"),
    ),
    ips=(
        Address("10.1.0.5/16", "10.1.0.1", 1),
        Address("10.2.0.5/16", "10.2.0.1", 1),
        Address("fd00::5/64", "fd00::1", 1),
    ),
    routes=(
        Route("0.0.0.0/0"),
        Route("10.9.0.0/16", "10.1.0.254", mtu=1400, advmss=1360, priority=10, table=0, scope=0),
        Route("::/0", "fd00::1"),
    ),
    dns=Dns(("10.1.0.1",), "local", ("a.local",), ("ndots:2",)),
)

DNS = {"nameservers": ["10.1.0.1"], "domain": "local", "search": ["a.local"], "options": ["ndots:2"]}
INTERFACES = [
    {"name": "cni0", "mac": "02:00:00:00:00:01"},
    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
]
IPS = [
    {"interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"},
    {"interface": 1, "address": "10.2.0.5/16", "gateway": "10.2.0.1"},
    {"interface": 1, "address": "fd00::5/64", "gateway": "fd00::1"},
]
ROUTES = [
    {"dst": "0.0.0.0/0"},
    {"dst": "10.9.0.0/16", "gw": "10.1.0.254", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 0, "scope": 0},
    {"dst": "::/0", "gw": "fd00::1"},
]


def read(document, version="1.1.0"):
    return result_from(Value(document, "prevResult"), version)


@pytest.mark.parametrize("version", CURRENT)
def test_the_current_shape(version):
    assert result_to(FULL, version) == {
        "cniVersion": version,
        "interfaces": [
            INTERFACES[0],
            {**INTERFACES[1], "mtu": 1500, "socketPath": "/run/sock", "pciID": "0000:01:00.0"},
        ],
        "ips": IPS,
        "routes": ROUTES,
        "dns": DNS,
    }


@pytest.mark.parametrize("version", NUMBERED_ADDRESSES)
def test_t2_the_shape_with_numbered_addresses(version):
    assert result_to(FULL, version) == {
        "cniVersion": version,
        "interfaces": INTERFACES,
        "ips": [{"version": number, **ip} for number, ip in zip("446", IPS, strict=True)],
        "routes": ROUTES,
        "dns": DNS,
    }


@pytest.mark.parametrize("version", ONE_ADDRESS_PER_FAMILY)
def test_t1_the_shape_with_one_address_of_each_family(version):
    assert result_to(FULL, version) == {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.0.5/16",
            "gateway": "10.1.0.1",
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.254"}],
        },
        "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
        "dns": DNS,
    }


def test_t1_routes_of_a_family_without_address_are_dropped():
    result = Result(ips=(Address("10.0.0.1/8"),), routes=(Route("::/0", "fd00::1"),))
    assert result_to(result, "0.2.0") == {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/8"}, "dns": {}}


@pytest.mark.parametrize("version", ONE_ADDRESS_PER_FAMILY)
def test_t1_a_result_without_address_cannot_be_expressed(version):
    layer2 = FULL._replace(ips=())
    with pytest.raises(InvalidConfig, match=r"^cniVersion: .* cannot express a result without addresses$") as error:
        result_to(layer2, version)
    assert error.value.details.startswith("cannot convert: no valid IP addresses")


@pytest.mark.parametrize("version", SUPPORTED)
def test_t1_is_known_before_anything_is_done(version):
    require_expressible(version, has_addresses=True)
    if version not in ONE_ADDRESS_PER_FAMILY:
        require_expressible(version, has_addresses=False)
        return
    with pytest.raises(InvalidConfig):
        require_expressible(version, has_addresses=False)


@pytest.mark.parametrize("version", ["1.2.0", "", "1.0"])
def test_a_version_that_is_not_published_has_no_results(version):
    for function in (lambda: result_to(FULL, version), lambda: read({}, version)):
        with pytest.raises(IncompatibleVersion):
            function()


@pytest.mark.parametrize("version", ONE_ADDRESS_PER_FAMILY)
def test_t3_an_old_result_becomes_addresses_and_routes(version):
    assert read(result_to(FULL, version), version) == Result(
        ips=(Address("10.1.0.5/16", "10.1.0.1"), Address("fd00::5/64", "fd00::1")),
        routes=(Route("0.0.0.0/0"), Route("10.9.0.0/16", "10.1.0.254"), Route("::/0", "fd00::1")),
        dns=FULL.dns,
    )


@pytest.mark.parametrize(("version", "has_dns"), [(version, version not in CURRENT) for version in SUPPORTED])
def test_t4_an_empty_dns_is_printed_only_by_old_versions(version, has_dns):
    document = result_to(Result(ips=(Address("10.0.0.1/8"),)), version)
    assert ("dns" in document) == has_dns
    assert document.get("dns", {}) == {}


@pytest.mark.parametrize("version", [*NUMBERED_ADDRESSES, *CURRENT])
def test_t4_what_is_empty_is_left_out(version):
    document = result_to(Result(interfaces=(Interface("eth0"),)), version)
    assert {key: document[key] for key in document if key != "dns"} == {
        "cniVersion": version,
        "interfaces": [{"name": "eth0"}],
    }


@pytest.mark.parametrize("version", CURRENT)
def test_a2_prev_result_is_passed_through(version):
    document = result_to(FULL, version)
    assert read(document, version) == FULL
    assert json.loads(result_document(read(document, version), version)) == document


@pytest.mark.parametrize("version", NUMBERED_ADDRESSES)
@pytest.mark.parametrize("ips", [[{"address": "10.0.0.1/8"}], [{"address": "10.0.0.1/8", "version": "4"}]])
def test_the_number_of_the_ip_version_is_not_needed_to_read(version, ips):
    assert read({"ips": ips}, version).ips == (Address("10.0.0.1/8"),)


@pytest.mark.parametrize(("index", "expected"), [(0, 0), (1, 1), (99, 99), (-1, None), (None, None)])
def test_r2_an_interface_index_may_be_missing_or_minus_one(index, expected):
    assert read({"ips": [{"address": "10.0.0.1/8", "interface": index}]}).ips[0].interface == expected


def test_r2_index_zero_is_printed():
    document = result_to(Result(ips=(Address("10.0.0.1/8", interface=0),)), "1.1.0")
    assert document["ips"] == [{"interface": 0, "address": "10.0.0.1/8"}]


@pytest.mark.parametrize(
    ("route", "gateway"),
    [
        (Route("0.0.0.0/0"), "10.1.0.1"),
        (Route("::/0"), "fd00::1"),
        (Route("0.0.0.0/0", "10.1.0.9"), "10.1.0.9"),
    ],
)
def test_r3_a_route_without_gateway_uses_that_of_an_address_of_its_family(route, gateway):
    assert FULL.gateway_of(route) == gateway


def test_r3_there_may_be_no_gateway():
    assert Result(ips=(Address("fd00::2/64", "fd00::1"), Address("10.0.0.1/8"))).gateway_of(Route("0.0.0.0/0")) == ""


@pytest.mark.parametrize("document", [{}, None, {"ips": None, "routes": None, "dns": None}, {"ips": []}, {"dns": {}}])
@pytest.mark.parametrize("version", SUPPORTED)
def test_r4_sections_may_be_missing(document, version):
    assert read(document, version) == Result()


@pytest.mark.parametrize("text", ["10.1.2.3/24", "2001:db8::5/64"])
def test_t8_bits_behind_the_prefix_are_kept(text):
    result = read({"ips": [{"address": text}], "routes": [{"dst": text}]})
    assert (result.ips[0].address, result.routes[0].dst) == (text, text)


def test_addresses_become_canonical():
    ips = [{"address": "2001:DB8:0:0::5/064", "gateway": "2001:DB8::0:1"}]
    assert read({"ips": ips}).ips == (Address("2001:db8::5/64", "2001:db8::1"),)


def test_t7_keys_in_any_case_and_unknown_ones():
    document = {
        "CNIVersion": "1.1.0",
        "IPs": [{"Address": "10.0.0.1/8", "x": 1}],
        "Routes": [{"DST": "0.0.0.0/0"}],
        "y": [],
    }
    assert read(document) == Result(ips=(Address("10.0.0.1/8"),), routes=(Route("0.0.0.0/0"),))


WRONG = [
    ({"interfaces": {}}, "1.1.0", "prevResult.interfaces: expected an array, got {}"),
    ({"interfaces": [5]}, "1.1.0", "prevResult.interfaces[0]: expected an object, got 5"),
    ({"interfaces": [{"name": 5}]}, "1.1.0", "prevResult.interfaces[0].name: expected a string, got 5"),
    ({"interfaces": [{"mtu": -1}]}, "1.1.0", "prevResult.interfaces[0].mtu: -1 is not in 0..4294967295"),
    ({"ips": [{"address": "x"}]}, "0.4.0", "prevResult.ips[0].address: 'x' is not an IP address with a prefix length"),
    (
        {"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]},
        "0.4.0",
        "prevResult.ips[0].gateway: 'x' is not an IP address",
    ),
    (
        {"ips": [{"address": "10.0.0.1/8", "interface": -2}]},
        "1.1.0",
        "prevResult.ips[0].interface: -2 is not in -1..2147483647",
    ),
    ({"routes": [{"gw": "10.0.0.1"}]}, "1.1.0", "prevResult.routes[0].dst: is missing"),
    ({"routes": [{"dst": "0.0.0.0/0", "scope": 256}]}, "1.1.0", "prevResult.routes[0].scope: 256 is not in 0..255"),
    (
        {"routes": [{"dst": "0.0.0.0/0", "table": "main"}]},
        "1.1.0",
        "prevResult.routes[0].table: expected an integer, got 'main'",
    ),
    ({"dns": {"search": [1]}}, "1.1.0", "prevResult.dns.search[0]: expected a string, got 1"),
    ({"ip4": {}}, "0.2.0", "prevResult.ip4.ip: is missing"),
    ({"ip4": {"ip": "fd00::1/64"}}, "0.2.0", "prevResult.ip4.ip: 'fd00::1/64' is of the other IP version"),
    ({"ip6": {"ip": "10.0.0.1/8"}}, "0.1.0", "prevResult.ip6.ip: '10.0.0.1/8' is of the other IP version"),
    (
        {"ip6": {"ip": "::1/8", "routes": [{"dst": 1}]}},
        "0.1.0",
        "prevResult.ip6.routes[0].dst: expected a string, got 1",
    ),
    ({"cniVersion": 5}, "1.1.0", "prevResult.cniVersion: expected a string, got 5"),
]


@pytest.mark.parametrize(("document", "version", "msg"), WRONG)
def test_a_wrong_field_is_named_by_its_path(document, version, msg):
    with pytest.raises(InvalidConfig) as error:
        read(document, version)
    assert error.value.msg == msg


class TestDelegateOutput:
    @pytest.mark.parametrize("data", [b"{}", b"null", b'{"cniVersion":""}', b'{"cniVersion":null}'])
    def test_t6_without_version_has_the_configs(self, data):
        assert parse_result(data, "0.2.0") == Result()

    def test_is_read_in_the_version_that_it_names(self):
        data = b'{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8"}}'
        assert parse_result(data, "1.1.0").ips == (Address("10.0.0.1/8"),)

    def test_of_a_version_that_is_not_published_is_refused(self):
        with pytest.raises(InvalidConfig, match=r"^result\.cniVersion: .* is '9.9.9'$"):
            parse_result(b'{"cniVersion":"9.9.9"}', "1.1.0")

    @pytest.mark.parametrize("data", [b"", b"allocated 10.0.0.1", b"[]", b"{}{}"])
    def test_t6_that_is_no_json_object_is_refused(self, data):
        with pytest.raises(UndecodableInput, match=r"^decode result: "):
            parse_result(data, "1.1.0")

    def test_with_a_wrong_field_is_refused_with_its_path(self):
        with pytest.raises(InvalidConfig, match=r"^result\.ips\[0\]\.address: "):
            parse_result(b'{"ips":[{"address":"x"}]}', "1.1.0")

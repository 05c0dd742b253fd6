"""The `ipam` section: every key, every source of ranges and of requested addresses, every way to get them wrong."""

import json
from typing import Any

import pytest

from cnisandbox.cni.netconf import NetConf, parse_netconf
from cnisandbox.cni.result import Route
from cnisandbox.errors import CniError
from cnisandbox.ipam.config import DEFAULT_DATA_DIR, IpamConfig, parse_config, parse_data_dir
from cnisandbox.ipam.ranges import range_set_text

SUBNET = {"subnet": "10.1.2.0/24"}
RANGES = {"ranges": [[SUBNET]]}


def netconf(ipam: Any = None, **fields: Any) -> NetConf:
    config = {"cniVersion": "1.1.0", "name": "net", "type": "bridge"}
    if ipam is not None:
        config["ipam"] = ipam
    return parse_netconf(json.dumps(config | fields).encode())


def parsed(ipam: Any, cni_args: str = "", **fields: Any) -> IpamConfig:
    return parse_config(netconf(ipam, **fields), cni_args)


def texts(config: IpamConfig) -> list[str]:
    return [range_set_text(range_set) for range_set in config.range_sets]


def test_ranges_of_the_runtime_come_before_the_old_style_before_the_new() -> None:
    config = parsed(
        {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.9", "ranges": [[{"subnet": "10.3.0.0/24"}]]},
        runtimeConfig={"ipRanges": [[{"subnet": "10.1.0.0/24"}]]},
    )
    assert texts(config) == ["10.1.0.1-10.1.0.254", "10.2.0.9-10.2.0.254", "10.3.0.1-10.3.0.254"]


def test_old_style_keys_without_a_subnet_are_ignored_as_by_the_reference() -> None:
    assert texts(parsed({"rangeStart": "10.2.0.9", "gateway": "10.2.0.1", **RANGES})) == ["10.1.2.1-10.1.2.254"]


def test_routes_are_read_with_every_field() -> None:
    route = {"dst": "0.0.0.0/0", "gw": "10.1.2.1", "mtu": 1, "advmss": 2, "priority": 3, "table": 4, "scope": 253}
    config = parsed({**RANGES, "routes": [route, {"dst": "2001:DB8::/32"}]})
    assert config.routes == (Route("0.0.0.0/0", "10.1.2.1", 1, 2, 3, 4, 253), Route("2001:db8::/32"))


def test_requested_addresses_are_collected_from_all_three_places_in_order() -> None:
    config = parsed(
        RANGES,
        "IgnoreUnknown=1;K8S_POD_NAME=pod;IP=10.1.2.3/24",
        args={"cni": {"ips": ["10.1.2.4", "2001:db8::4/64"]}},
        runtimeConfig={"ips": ["10.1.2.5/16"]},
    )
    assert [(str(requested.address), requested.source) for requested in config.requested] == [
        ("10.1.2.3", "CNI_ARGS: IP"),
        ("10.1.2.4", "args.cni.ips[0]"),
        ("2001:db8::4", "args.cni.ips[1]"),
        ("10.1.2.5", "runtimeConfig.ips[0]"),
    ]


def test_cni_args_may_hold_the_mac_of_the_delegating_plugin() -> None:
    assert parsed(RANGES, "MAC=02:00:00:00:00:01").requested == ()


def test_null_is_absent_everywhere() -> None:
    config = parsed(
        {**RANGES, "routes": None, "resolvConf": None, "subnet": None, "dataDir": None},
        args=None,
        runtimeConfig={"ipRanges": None, "ips": None},
    )
    assert (texts(config), config.routes, config.resolv_conf) == (["10.1.2.1-10.1.2.254"], (), "")


@pytest.mark.parametrize(
    ("ipam", "fields", "message"),
    [
        (None, {}, "ipam: is missing"),
        ({}, {}, "ipam.ranges: no IP ranges specified"),
        ({"ranges": []}, {}, "ipam.ranges: no IP ranges specified"),
        ({"ranges": {}}, {}, "ipam.ranges: expected an array, got {}"),
        ({"ranges": [[]]}, {}, "ipam.ranges[0]: empty range set"),
        ({"ranges": [[SUBNET], [{"subnet": "x"}]]}, {}, "ipam.ranges[1][0].subnet: 'x' is not an IP address with"),
        ({"subnet": "10.1.2.0/33"}, {}, "ipam.subnet: '10.1.2.0/33' has a prefix longer than 32 bits"),
        (
            {"subnet": "10.1.2.0/25", **RANGES},
            {},
            "ipam.ranges[0]: 10.1.2.1-10.1.2.254 overlaps with 10.1.2.1-10.1.2.126 of ipam",
        ),
        (
            RANGES,
            {"runtimeConfig": {"ipRanges": [[{"subnet": "10.1.0.0/16"}]]}},
            "ipam.ranges[0]: 10.1.2.1-10.1.2.254 overlaps with 10.1.0.1-10.1.255.254 of runtimeConfig.ipRanges[0]",
        ),
        (
            {"ranges": [[SUBNET], [{"subnet": "10.9.0.0/24"}]]},
            {"cniVersion": "0.2.0"},
            "ipam.ranges[1]: CNI version 0.2.0 does not support more than 1 address per family",
        ),
        ({**RANGES, "routes": [{}]}, {}, "ipam.routes[0].dst: is missing"),
        ({**RANGES, "routes": [{"dst": "10.0.0.0/8", "scope": 256}]}, {}, "ipam.routes[0].scope: 256 is not in 0..255"),
        ({**RANGES, "resolvConf": 1}, {}, "ipam.resolvConf: expected a string, got 1"),
        (RANGES, {"args": {"cni": {"ips": ["x"]}}}, "args.cni.ips[0]: 'x' is not an IP address"),
        (RANGES, {"runtimeConfig": {"ips": ["10.1.2.3/99"]}}, "runtimeConfig.ips[0]: '10.1.2.3/99' has a prefix"),
    ],
)
def test_wrong_config_is_refused_with_the_path_of_the_field(ipam: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        parse_config(netconf(ipam, **fields), "")
    assert caught.value.msg.startswith(message)
    assert caught.value.code == 7


def test_one_address_of_each_family_suits_the_oldest_version() -> None:
    config = parsed({"ranges": [[SUBNET], [{"subnet": "2001:db8::/64"}]]}, cniVersion="0.1.0")
    assert len(config.range_sets) == 2


@pytest.mark.parametrize("args", ["IP=nine", "IP=10.1.2.3/x", "IP", "UNKNOWN=1"])
def test_wrong_cni_args_are_the_environments_fault(args: str) -> None:
    with pytest.raises(CniError) as caught:
        parsed(RANGES, args)
    assert caught.value.code == 4
    assert "CNI_ARGS" in caught.value.msg


def test_status_does_without_ranges_that_only_the_runtime_knows() -> None:
    announced = netconf({}, capabilities={"ipRanges": True})
    assert parse_config(announced, "", needs_ranges=False).range_sets == ()
    with pytest.raises(CniError, match="no IP ranges specified"):
        parse_config(announced, "")
    with pytest.raises(CniError, match="no IP ranges specified"):
        parse_config(netconf({}), "", needs_ranges=False)


def test_data_dir_needs_no_valid_ranges() -> None:
    assert parse_data_dir(netconf({"ranges": "nonsense"})) == DEFAULT_DATA_DIR
    assert parse_data_dir(netconf({"dataDir": "/srv/ipam"})) == "/srv/ipam"

"""What the bridge plugin refuses of its netconf: the message names the key and the value."""

import json
from typing import Any

import pytest

from cnisandbox.bridge_config import BridgeConfig, parse_config
from cnisandbox.cni.netconf import parse_netconf
from cnisandbox.errors import InvalidConfig


def parse(cni_args: str = "", **changes: Any) -> BridgeConfig:
    return parse_config(parse_netconf(json.dumps({"cniVersion": "1.0.0", "name": "lab", **changes}).encode()), cni_args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bridge": "a" * 16}, f"bridge: '{'a' * 16}' is not a name that a link can have"),
        ({"bridge": "br%d"}, "bridge: 'br%d' is not a name that a link can have"),
        ({"ipMasqBackend": "ebpf"}, 'ipMasqBackend: \'ebpf\' is neither "iptables" nor "nftables"'),
        (
            {"runtimeConfig": {"mac": "01:00:5e:00:00:01"}},
            "runtimeConfig.mac: '01:00:5e:00:00:01' is not the address of one interface",
        ),
        (
            {"args": {"cni": {"mac": "00-00-00-00-00-00"}}},
            "args.cni.mac: '00:00:00:00:00:00' is not the address of one interface",
        ),
    ],
)
def test_message_names_key_and_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse(**changes)
    assert refused.value.msg == message


def test_address_of_a_group_is_refused_from_the_environment() -> None:
    with pytest.raises(InvalidConfig, match=r"CNI_ARGS\.MAC: 'ff:ff:ff:ff:ff:ff' is not the address of one interface"):
        parse("MAC=FF:FF:FF:FF:FF:FF")


@pytest.mark.parametrize("mac", ["02:00:00:00:00:01", "00:00:00:00:00:01", "AC:DE:48:00:11:22"])
def test_address_of_one_interface_is_taken(mac: str) -> None:
    assert parse(f"MAC={mac}").mac == mac.lower()

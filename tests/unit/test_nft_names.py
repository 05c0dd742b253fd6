"""Names and comments of attachments in nftables: the reference plugins' where they have to be found by."""

import pytest

from cnisandbox.errors import InvalidConfig
from cnisandbox.nft import masquerade, reference, spoofcheck


def test_iptables_chain_is_the_one_the_reference_makes() -> None:
    # As made by /usr/lib/cni/bridge 1.1.1 for network "testnet" and container "cid1".
    assert reference.iptables_chain("testnet", "cid1") == "CNI-e1a60f34a56891e16a1a4402"


def test_key_differs_by_network_container_and_ifname() -> None:
    keys = {masquerade._key(n, c, i) for n in ("a", "b") for c in ("a", "b") for i in ("a", "b")}
    assert len(keys) == 8
    assert {len(key) for key in keys} == {33}


def test_comment_begins_with_the_key_and_names_the_attachment() -> None:
    key = masquerade._key("net", "id", "eth0")
    assert masquerade._comment(key, "net", "id", "eth0") == f"{key}, net: net, if: eth0, id: id"


@pytest.mark.parametrize("container_id", ["x" * 500, "é" * 500, "x" + "é" * 500])
def test_comment_is_cut_to_what_nft_reads_back(container_id: str) -> None:
    comment = masquerade._comment("0" * 33, 'n"e"t', container_id, "eth0")
    assert 127 <= len(comment.encode()) <= 128
    assert '"' not in comment
    assert comment.startswith("0" * 33 + ", net: net, if: eth0, id: ")


@pytest.mark.parametrize("address", ["", "10.1.2.3/33", "10.1.2/24", "fd00::/129", "eth0", "10.1.2.3/24/24"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfig, match="masquerade"):
        masquerade._parsed(["10.1.2.3/24", address])


def test_an_address_whose_subnet_is_everything_needs_no_masquerade() -> None:
    assert masquerade._parsed(["10.1.2.3/0", "fd00::1/0"]) == {}


@pytest.mark.parametrize("host_ifname", ["", "veth*", "@set", "a\\*"])
def test_spoof_check_refuses_a_link_that_nftables_would_not_take_by_its_name(host_ifname: str) -> None:
    with pytest.raises(InvalidConfig, match="spoof check"):
        spoofcheck.add_spoofcheck("id", "eth0", host_ifname, "02:00:00:00:00:01")

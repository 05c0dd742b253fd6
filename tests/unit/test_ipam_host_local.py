"""The plugin host-local, verb by verb, on a directory of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cni.output import result_document
from cnisandbox.cni.result import Address, Dns, Result, Route
from cnisandbox.errors import CheckFailed, CniError, InvalidConfig, IoFailure, NotAvailable
from plugins.host_local import HostLocal
from tests.ipam import PluginHost

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "2001:db8::/64"}]]}
GIVEN = ["10.1.2.2", "2001:db8::2"]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PluginHost]:
    made = PluginHost(tmp_path, IPAM)
    before = len(os.listdir("/proc/self/fd"))
    yield made
    assert len(os.listdir("/proc/self/fd")) == before
    made.state.close()


class TestAdd:
    def test_result_has_addresses_routes_and_dns_and_no_interfaces(self, host: PluginHost) -> None:
        host.files["/etc/resolv.conf"] = b"nameserver 192.0.2.53\nsearch example.com\n"
        ipam = IPAM | {"routes": [{"dst": "0.0.0.0/0"}], "resolvConf": "/etc/resolv.conf"}
        assert host.add(ipam=ipam) == Result(
            ips=(Address("10.1.2.2/29", "10.1.2.1"), Address("2001:db8::2/64", "2001:db8::1")),
            routes=(Route("0.0.0.0/0"),),
            dns=Dns(("192.0.2.53",), search=("example.com",)),
        )

    @pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    def test_result_can_be_said_in_every_version(self, host: PluginHost, version: str) -> None:
        assert result_document(host.add(cniVersion=version), version)

    def test_nothing_is_reserved_when_resolv_conf_cannot_be_read(self, host: PluginHost) -> None:
        with pytest.raises(IoFailure, match="no such file"):
            host.add(ipam=IPAM | {"resolvConf": "/missing"})
        assert host.state.reservations() == {}

    def test_undo_frees_what_this_call_reserved_and_nothing_else(self, host: PluginHost) -> None:
        host.add(ipam={"subnet": "10.9.0.0/24"})
        call = host.call("ADD")
        HostLocal().add(call)
        assert call.undo.unwind() == []
        assert list(host.state.reservations()) == ["10.9.0.2"]

    def test_refused_second_add_leaves_the_first_alone(self, host: PluginHost) -> None:
        host.add()
        call = host.call("ADD")
        with pytest.raises(CniError, match="duplicate allocation is not allowed"):
            HostLocal().add(call)
        assert call.undo.unwind() == []
        assert sorted(host.state.reservations()) == GIVEN

    def test_requested_addresses_from_cni_args_and_capabilities(self, host: PluginHost) -> None:
        result = host.add(cni_args="IP=10.1.2.5", runtimeConfig={"ips": ["2001:db8::9/64"]})
        assert [ip.address for ip in result.ips] == ["10.1.2.5/29", "2001:db8::9/64"]


class TestDelete:
    def test_frees_both_families(self, host: PluginHost) -> None:
        host.add()
        HostLocal().delete(host.call("DEL"))
        assert host.state.reservations() == {}

    def test_needs_no_ranges_and_no_valid_cni_args(self, host: PluginHost) -> None:
        host.add()
        HostLocal().delete(host.call("DEL", cni_args="nonsense", ipam={"type": "host-local", "ranges": 7}))
        assert host.state.reservations() == {}

    def test_unknown_attachment_and_unknown_network_succeed(self, host: PluginHost) -> None:
        HostLocal().delete(host.call("DEL"))
        assert list(host.path.iterdir()) == []
        host.add()
        HostLocal().delete(host.call("DEL", "c2"))
        assert sorted(host.state.reservations()) == GIVEN

    def test_what_cannot_be_removed_is_reported(self, host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
        host.add()
        unlink = os.unlink

        def failing(name: str, **options: Any) -> None:
            if name == "10.1.2.2":
                raise OSError(30, "Read-only file system")
            unlink(name, **options)

        monkeypatch.setattr(os, "unlink", failing)
        with pytest.raises(IoFailure) as caught:
            HostLocal().delete(host.call("DEL"))
        assert caught.value.msg == "free addresses of network net: release 10.1.2.2: read-only file system"
        assert list(host.state.reservations()) == ["10.1.2.2"]


class TestCheck:
    def check(self, host: PluginHost, *addresses: str, container_id: str = "c1") -> None:
        prev_result = {"cniVersion": "1.1.0", "ips": [{"address": address} for address in addresses]}
        HostLocal().check(host.call("CHECK", container_id, prevResult=prev_result))

    def test_succeeds_when_prev_result_lists_the_addresses(self, host: PluginHost) -> None:
        host.add()
        self.check(host, "10.1.2.2/29", "2001:DB8::2/64", "192.0.2.1/24")

    def test_succeeds_without_addresses_in_prev_result(self, host: PluginHost) -> None:
        host.add()
        self.check(host)

    def test_fails_when_a_reserved_address_is_not_in_prev_result(self, host: PluginHost) -> None:
        host.add()
        with pytest.raises(CheckFailed, match="reserved address 2001:db8::2 is not in prevResult"):
            self.check(host, "10.1.2.2/29")

    def test_fails_when_nothing_is_reserved(self, host: PluginHost) -> None:
        with pytest.raises(CheckFailed, match="failed to find address added by container c1"):
            self.check(host, "10.1.2.2/29")
        assert list(host.path.iterdir()) == []

    def test_old_format_is_good_enough(self, host: PluginHost) -> None:
        host.state.foreign_add("10.1.2.2", b"c1")
        self.check(host, "10.1.2.2/29")


class TestGc:
    def collect(self, host: PluginHost, *valid: str) -> None:
        attachments = [{"containerID": container_id, "ifname": "eth0"} for container_id in valid]
        HostLocal().gc(host.call("GC", **{"cni.dev/valid-attachments": attachments}))

    def test_keeps_what_is_valid(self, host: PluginHost) -> None:
        host.add("c1")
        host.add("c2")
        self.collect(host, "c2", "c3")
        assert set(host.state.reservations().values()) == {b"c2\r\neth0"}

    def test_empty_list_frees_everything(self, host: PluginHost) -> None:
        host.add()
        self.collect(host)
        assert host.state.reservations() == {}

    def test_unknown_network_succeeds(self, host: PluginHost) -> None:
        self.collect(host)

    def test_missing_list_is_refused(self, host: PluginHost) -> None:
        host.add()
        with pytest.raises(InvalidConfig, match=r"cni\.dev/valid-attachments: is missing"):
            HostLocal().gc(host.call("GC"))
        assert sorted(host.state.reservations()) == GIVEN


class TestStatus:
    def test_is_well_when_there_is_room(self, host: PluginHost) -> None:
        HostLocal().status(host.call("STATUS"))
        assert list(host.path.iterdir()) == []
        host.add()
        HostLocal().status(host.call("STATUS"))

    def test_says_which_range_set_is_full(self, host: PluginHost) -> None:
        for number in range(5):
            host.add(f"c{number}")
        with pytest.raises(NotAvailable, match=r"range set: 10\.1\.2\.1-10\.1\.2\.6") as caught:
            HostLocal().status(host.call("STATUS"))
        assert caught.value.code == 50

    def test_unreadable_resolv_conf_is_not_available(self, host: PluginHost) -> None:
        with pytest.raises(NotAvailable, match="no such file"):
            HostLocal().status(host.call("STATUS", ipam=IPAM | {"resolvConf": "/missing"}))

    def test_wrong_config_has_its_own_code(self, host: PluginHost) -> None:
        with pytest.raises(InvalidConfig) as caught:
            HostLocal().status(host.call("STATUS", ipam={"ranges": [[{"subnet": "10.1.2.0/31"}]]}))
        assert caught.value.code == 7

    def test_ranges_that_come_with_add_are_not_missed(self, host: PluginHost) -> None:
        HostLocal().status(host.call("STATUS", ipam={"type": "host-local"}, capabilities={"ipRanges": True}))

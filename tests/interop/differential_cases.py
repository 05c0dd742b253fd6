"""The netconfs of the differential test: each key of bridge and of host-local, one by one and together."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.interop.plugin_calls import JsonObject, changed

BRIDGE: JsonObject = {
    "cniVersion": "1.0.0",
    "name": "lab",
    "type": "bridge",
    "bridge": "lab0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
}
LAYER2 = changed(BRIDGE, isGateway=None, ipam=None)
DUAL = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]
MAC_1, MAC_2, MAC_3 = "c2:b0:57:49:47:01", "c2:b0:57:49:47:02", "c2:b0:57:49:47:03"
RESOLV_CONF = (
    b"# the host's\nnameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch a.example b.example\noptions ndots:2\n"
)
STATIC = {
    "type": "static",
    "addresses": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["192.0.2.53"]},
}


class Case(NamedTuple):
    """One sequence: ADD, CHECK, DEL.

    Attributes:
        netconf: The netconf.
        args: CNI_ARGS.
        setup: Shell commands in the world before.
        files: Files of the world: path -> content.
        adds: Whether ADD succeeds.
        deviations: Names of deviations that must show here, besides the general ones; see test_differential.
        containers: 2: another container is attached before.
        reference_netconf: What the reference plugin gets instead, when it has a defect with this netconf.
    """

    netconf: JsonObject
    args: str = ""
    setup: str = ""
    files: Mapping[str, bytes] = MappingProxyType({})
    adds: bool = True
    deviations: tuple[str, ...] = ()
    containers: int = 1
    reference_netconf: JsonObject | None = None


def _with(**changes: Any) -> JsonObject:
    return changed(BRIDGE, **changes)


def _ranges(*sets: Any, **changes: Any) -> JsonObject:
    return _with(ipam__ranges=list(sets), **changes)


CASES: dict[str, Case] = {
    # gateways
    "no-gateway": Case(_with(isGateway=None), deviations=("mac-of-bridge",)),
    "gateway": Case(BRIDGE),
    "default-gateway": Case(_with(isGateway=None, isDefaultGateway=True)),
    "default-gateway-and-gateway": Case(_with(isDefaultGateway=True)),
    "default-gateway-has-route": Case(
        _with(isDefaultGateway=True, ipam__routes=[{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}])
    ),
    "default-gateway-has-route-without-gw": Case(
        _with(isDefaultGateway=True, ipam__routes=[{"dst": "0.0.0.0/0"}]),
        deviations=("default-route-twice",),
        reference_netconf=_with(isDefaultGateway=True),
    ),
    "default-gateway-dual": Case(_with(isDefaultGateway=True, ipam__ranges=DUAL)),
    "gateway-of-range": Case(_ranges([{"subnet": "10.9.0.0/24", "gateway": "10.9.0.254"}])),
    "gateway-ipv6": Case(_ranges([{"subnet": "fd09::/64"}])),
    "gateway-two-subnets-ipv6": Case(_ranges([{"subnet": "fd09::/64"}], [{"subnet": "fd0a::/64"}])),
    "existing-bridge": Case(BRIDGE, setup="ip link add lab0 address 02:00:00:00:00:77 type bridge"),
    "existing-bridge-same-address": Case(
        BRIDGE, setup="ip link add lab0 address 02:00:00:00:00:77 type bridge; ip addr add 10.9.0.1/24 dev lab0"
    ),
    "existing-bridge-other-address": Case(
        BRIDGE, setup="ip link add lab0 up type bridge; ip addr add 10.77.0.1/24 dev lab0", adds=False
    ),
    "force-address": Case(
        _with(forceAddress=True), setup="ip link add lab0 up type bridge; ip addr add 10.77.0.1/24 dev lab0"
    ),
    "force-address-overlap-ipv6": Case(
        _ranges([{"subnet": "fd09::/64"}], forceAddress=True),
        setup="ip link add lab0 up type bridge; ip addr add fd09::77/64 dev lab0",
    ),
    "overlap-ipv6": Case(
        _ranges([{"subnet": "fd09::/64"}]),
        setup="ip link add lab0 up type bridge; ip addr add fd09::77/64 dev lab0",
        adds=False,
    ),
    "other-address-ipv6": Case(
        _ranges([{"subnet": "fd09::/64"}]), setup="ip link add lab0 up type bridge; ip addr add fd0a::77/64 dev lab0"
    ),
    "bridge-is-something-else": Case(BRIDGE, setup="ip link add lab0 type veth peer name other", adds=False),
    # the bridge and its port
    "name-by-default": Case(_with(bridge=None)),
    "mtu": Case(_with(mtu=1400)),
    "mtu-existing-bridge": Case(_with(mtu=1400), setup="ip link add lab0 mtu 1450 type bridge"),
    "hairpin": Case(_with(hairpinMode=True)),
    "promisc": Case(_with(promiscMode=True)),
    "hairpin-and-promisc": Case(_with(hairpinMode=True, promiscMode=True), adds=False),
    "layer2": Case(LAYER2, deviations=("mac-of-bridge", "check-of-layer2")),
    "layer2-mtu-hairpin": Case(
        changed(LAYER2, mtu=1300, hairpinMode=True), deviations=("mac-of-bridge", "check-of-layer2")
    ),
    "layer2-empty-ipam": Case(changed(LAYER2, ipam={}), deviations=("mac-of-bridge", "check-of-layer2")),
    # rules
    "masquerade": Case(_with(ipMasq=True)),
    "masquerade-dual": Case(_with(ipMasq=True, ipam__ranges=DUAL)),
    "masquerade-no-gateway": Case(_with(ipMasq=True, isGateway=False), deviations=("mac-of-bridge",)),
    "spoofcheck": Case(_with(macspoofchk=True)),
    "spoofcheck-layer2": Case(changed(LAYER2, macspoofchk=True), deviations=("mac-of-bridge", "check-of-layer2")),
    "spoofcheck-mac-masquerade": Case(_with(macspoofchk=True, ipMasq=True, runtimeConfig={"mac": MAC_1})),
    # IPv6
    "dad": Case(_ranges([{"subnet": "fd09::/64"}], enabledad=True)),
    "dad-off": Case(_ranges([{"subnet": "fd09::/64"}], enabledad=False)),
    # MAC addresses
    "mac-by-environment": Case(BRIDGE, args=f"IgnoreUnknown=1;MAC={MAC_1.upper()}"),
    "mac-by-args": Case(_with(args={"cni": {"mac": MAC_2}}), args=f"IgnoreUnknown=1;MAC={MAC_1}"),
    "mac-by-runtime": Case(
        _with(args={"cni": {"mac": MAC_2}}, runtimeConfig={"mac": MAC_3}, capabilities={"mac": True}),
        args=f"IgnoreUnknown=1;MAC={MAC_1}",
    ),
    "mac-invalid": Case(_with(runtimeConfig={"mac": "02:00:00"}), adds=False),
    # requested addresses
    "ip-by-environment": Case(BRIDGE, args="IgnoreUnknown=true;IP=10.9.0.77"),
    "ip-by-environment-with-prefix": Case(BRIDGE, args="IgnoreUnknown=true;IP=10.9.0.77/24"),
    "ip-by-args": Case(_with(args={"cni": {"ips": ["10.9.0.78"]}})),
    "ip-by-runtime": Case(_with(runtimeConfig={"ips": ["10.9.0.79/24"]}, capabilities={"ips": True})),
    "ip-by-all-three": Case(
        _ranges(
            [{"subnet": "10.9.0.0/24"}],
            [{"subnet": "10.10.0.0/24"}],
            [{"subnet": "fd09::/64"}],
            isGateway=None,
            args={"cni": {"ips": ["10.10.0.78"]}},
            runtimeConfig={"ips": ["fd09::79"]},
        ),
        args="IgnoreUnknown=true;IP=10.9.0.77",
        deviations=("mac-of-bridge",),
    ),
    "ip-out-of-range": Case(BRIDGE, args="IgnoreUnknown=true;IP=192.0.2.1", adds=False),
    "ip-is-gateway": Case(BRIDGE, args="IgnoreUnknown=true;IP=10.9.0.1", adds=False),
    "ip-taken": Case(
        BRIDGE,
        args="IgnoreUnknown=true;IP=10.9.0.9",
        adds=False,
        files={"/var/lib/cni/networks/lab/10.9.0.9": b"other\r\neth0"},
    ),
    "ip-without-ignore-unknown": Case(BRIDGE, args="IP=10.9.0.77", adds=False, deviations=("delete-is-lenient",)),
    # ranges
    "range-old-style": Case(_with(ipam={"type": "host-local", "subnet": "10.9.0.0/24"})),
    "range-old-style-bounds": Case(
        _with(
            ipam={
                "type": "host-local",
                "subnet": "10.9.0.0/24",
                "rangeStart": "10.9.0.30",
                "rangeEnd": "10.9.0.40",
                "gateway": "10.9.0.33",
            }
        )
    ),
    "range-both-styles": Case(
        _with(
            isGateway=None, ipam={"type": "host-local", "subnet": "10.9.0.0/24", "ranges": [[{"subnet": "fd09::/64"}]]}
        ),
        deviations=("mac-of-bridge",),
    ),
    "range-by-runtime": Case(
        _with(
            capabilities={"ipRanges": True},
            ipam={"type": "host-local"},
            runtimeConfig={"ipRanges": [[{"subnet": "10.9.0.0/24"}]]},
        )
    ),
    "range-bounds": Case(_ranges([{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.200", "rangeEnd": "10.9.0.201"}])),
    "range-two-in-one-set": Case(
        _ranges(
            [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.9", "rangeEnd": "10.9.0.9"}, {"subnet": "10.10.0.0/24"}],
            isGateway=None,
        ),
        containers=2,
        deviations=("mac-of-bridge",),
    ),
    "range-next-one": Case(_ranges([{"subnet": "10.9.0.0/24"}]), containers=2),
    "range-after-last": Case(BRIDGE, files={"/var/lib/cni/networks/lab/last_reserved_ip.0": b"10.9.0.99"}),
    "range-wraps": Case(BRIDGE, files={"/var/lib/cni/networks/lab/last_reserved_ip.0": b"10.9.0.254"}),
    "range-full": Case(_ranges([{"subnet": "10.9.0.0/30"}]), containers=2, adds=False),
    "range-second-set-full": Case(
        _ranges([{"subnet": "10.9.0.0/24"}], [{"subnet": "10.10.0.0/30"}], isGateway=None),
        files={"/var/lib/cni/networks/lab/10.10.0.2": b"other\r\neth0"},
        adds=False,
    ),
    "range-too-small": Case(_ranges([{"subnet": "10.9.0.0/31"}]), adds=False, deviations=("delete-is-lenient",)),
    "range-host-bits": Case(_ranges([{"subnet": "10.9.0.7/24"}]), adds=False, deviations=("delete-is-lenient",)),
    "range-overlap": Case(
        _ranges([{"subnet": "10.9.0.0/24"}], [{"subnet": "10.9.0.0/25"}]),
        adds=False,
        deviations=("delete-is-lenient",),
    ),
    "range-mixed-families": Case(
        _ranges([{"subnet": "10.9.0.0/24"}, {"subnet": "fd09::/64"}]), adds=False, deviations=("delete-is-lenient",)
    ),
    "range-start-outside": Case(
        _ranges([{"subnet": "10.9.0.0/24", "rangeStart": "10.10.0.1"}]), adds=False, deviations=("delete-is-lenient",)
    ),
    "range-none": Case(_with(ipam={"type": "host-local"}), adds=False, deviations=("delete-is-lenient",)),
    "range-old-release-format": Case(BRIDGE, files={"/var/lib/cni/networks/lab/10.9.0.2": b"other\n"}),
    # routes and DNS
    "routes": Case(
        _with(
            ipam__routes=[{"dst": "192.0.2.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.9.0.9"}, {"dst": "0.0.0.0/0"}]
        ),
        deviations=("check-of-routes-without-gw",),
    ),
    "routes-dual": Case(
        _with(
            ipam__ranges=DUAL,
            ipam__routes=[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "2001:db8::/32", "gw": "fd09::9"}],
        )
    ),
    "routes-without-gateway-of-family": Case(_with(ipam__routes=[{"dst": "2001:db8::/32"}])),
    "routes-unreachable": Case(_with(ipam__routes=[{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]), adds=False),
    "routes-two-next-hops": Case(
        _with(ipam__routes=[{"dst": "192.0.2.0/24", "gw": "10.9.0.8"}, {"dst": "2001:db8::/32"}], ipam__ranges=DUAL),
        deviations=("check-of-routes-without-gw",),
    ),
    "resolv-conf": Case(
        _with(ipam__resolvConf="/etc/cni/resolv.conf"),
        files={"/etc/cni/resolv.conf": RESOLV_CONF},
        deviations=("dns-of-address-plugin",),
    ),
    "resolv-conf-missing": Case(_with(ipam__resolvConf="/etc/cni/none"), adds=False),
    "dns": Case(
        _with(
            dns={"nameservers": ["192.0.2.99"], "domain": "c.example", "search": ["d.example"], "options": ["rotate"]},
            ipam__resolvConf="/etc/cni/resolv.conf",
        ),
        files={"/etc/cni/resolv.conf": RESOLV_CONF},
    ),
    "dns-partly": Case(
        _with(dns={"domain": "c.example"}, ipam__resolvConf="/etc/cni/resolv.conf"),
        files={"/etc/cni/resolv.conf": RESOLV_CONF},
    ),
    # versions
    "version-none": Case(_with(cniVersion=None)),
    "version-0.1.0": Case(_with(cniVersion="0.1.0")),
    "version-0.2.0": Case(_with(cniVersion="0.2.0", ipam__ranges=DUAL, ipam__routes=[{"dst": "::/0"}])),
    "version-0.2.0-two-of-a-family": Case(
        _ranges([{"subnet": "10.9.0.0/24"}], [{"subnet": "10.10.0.0/24"}], cniVersion="0.2.0"),
        adds=False,
        deviations=("delete-is-lenient",),
    ),
    "version-0.3.0": Case(_with(cniVersion="0.3.0", ipMasq=True)),
    "version-0.3.1": Case(_with(cniVersion="0.3.1", ipam__ranges=DUAL, dns={"nameservers": ["192.0.2.1"]})),
    "version-0.4.0": Case(_with(cniVersion="0.4.0", ipam__ranges=DUAL, isDefaultGateway=True)),
    "version-unknown": Case(_with(cniVersion="9.9.9"), adds=False),
    # the rest of the protocol
    "keys-in-other-case": Case(
        {
            "CNIVERSION": "1.0.0",
            "Name": "lab",
            "TYPE": "bridge",
            "BRIDGE": "lab0",
            "isdefaultgateway": True,
            "HAIRPINMODE": True,
            "IPAM": {"Type": "host-local", "RANGES": [[{"SubNet": "10.9.0.0/24", "rangestart": "10.9.0.50"}]]},
            "RuntimeConfig": {"MAC": MAC_1},
        }
    ),
    "keys-unknown": Case(_with(colour="blue", ipam__colour=["red"], args={"labels": {"a": "b"}})),
    "args-of-kubernetes": Case(
        BRIDGE,
        args="K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=1-2;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0",
    ),
    "args-unknown": Case(BRIDGE, args="COLOUR=blue", adds=False, deviations=("delete-is-lenient",)),
    "data-dir": Case(
        _with(ipam__dataDir="/run/cni/networks"),
        setup="mkdir -p /run/cni/networks",
    ),
    "data-dir-listed": Case(
        _with(ipam__dataDir="/run/cni/elsewhere/deep"),
        setup="mkdir -p /run/cni/elsewhere; echo /run/cni/elsewhere > /etc/cnisandbox/state-dirs",
    ),
    "ifname-taken": Case(BRIDGE, setup="ip -n blue link add eth0 type bridge", adds=False),
    # another address plugin
    "static": Case(_with(ipam=STATIC), deviations=("dns-of-address-plugin",)),
    "static-masquerade-default-gateway": Case(
        _with(isDefaultGateway=True, ipMasq=True, ipam=changed(STATIC, routes=None)),
        deviations=("dns-of-address-plugin",),
    ),
    "static-host-prefix": Case(
        _with(isGateway=None, ipam={"type": "static", "addresses": [{"address": "10.9.0.5/32"}]}),
        deviations=("mac-of-bridge", "check-of-host-prefix"),
    ),
    "static-by-environment": Case(
        _with(ipam=STATIC),
        args="IgnoreUnknown=true;IP=10.9.0.6/24;GATEWAY=10.9.0.1",
        deviations=("dns-of-address-plugin",),
    ),
    "static-invalid": Case(_with(ipam={"type": "static", "addresses": [{"address": "10.9.0.5"}]}), adds=False),
    "plugin-missing": Case(_with(ipam={"type": "nowhere"}), adds=False),
}

#!/usr/bin/env python3
"""bridge: connect the container to a bridge on the host, with addresses from an address plugin.

    container netns          host netns
    ┌──────────────┐        ┌───────────────────────────────┐
    │ eth0 ════════╪════════╪══ veth1a2b3c4d ── cni0        │
    │ 10.1.2.3/24  │        │                   10.1.2.1/24 │── masquerade ── outside
    └──────────────┘        └───────────────────────────────┘

Privilege: CAP_NET_ADMIN in the host worker and in the container worker; none here.
"""

import errno
import os
import time
from collections.abc import Callable

from cnisandbox.boundary.sandbox import GIVEN_FD
from cnisandbox.boundary.workers import Needs
from cnisandbox.bridge_config import BridgeConfig, parse_config
from cnisandbox.bridge_host import Gateway, Masquerade, Port, connect, serve_port
from cnisandbox.cni.netconf import Attachment, NetConf
from cnisandbox.cni.result import Address, Interface, Result, Route, require_expressible
from cnisandbox.errors import CheckFailed, CniError, EnvironmentFailure, KernelRefused, NotAvailable, quoted
from cnisandbox.hints import NamedTuple, NoReturn
from cnisandbox.ip import ip_address, ip_interface
from cnisandbox.names import attachment_alias, host_ifname, is_attachments, is_of_network, network_alias
from cnisandbox.netlink import routes
from cnisandbox.netlink.addresses import list_addresses
from cnisandbox.netlink.bridge import BridgeSetup, get_port, list_vlans, set_vlans
from cnisandbox.netlink.interface import (
    InterfaceAddress,
    InterfaceSetup,
    announce_addresses,
    check_interface,
    configure_new_interface,
)
from cnisandbox.netlink.links import (
    Link,
    delete_link_by_index,
    get_link,
    get_link_by_index,
    get_links,
    list_ports,
    wait_for_operstate_up,
    wait_until_gone,
)
from cnisandbox.netlink.veth import VethSetup
from cnisandbox.netlink.vlan_gateway import VlanGatewaySetup, ensure_vlan_gateway
from cnisandbox.nft.masquerade import Owner, delete_masquerade, gc_masquerade, has_masquerade
from cnisandbox.nft.spoofcheck import (
    add_spoofcheck,
    delete_spoofcheck,
    delete_spoofcheck_jumps,
    has_spoofcheck,
    list_spoofcheck_jumps,
)
from cnisandbox.plugin import Call, Plugin, run
from cnisandbox.plugins.host_local import HostLocal

# Where the container's end stands among the interfaces of the result.
_CONTAINER = 2
# LIMIT: how long the host worker looks whether a link is gone, which takes 0.7 ms, before somebody looks for an answer.
_LOOK_AGAIN_MS = 20
# LIMIT: seconds until it must be gone.
_PATIENCE_S = 5.0
_NAME_ATTEMPTS = 4
_OPERSTATE_TIMEOUT_MS = 2500
# LIMIT: as long as an ADD may wait that fails meanwhile; a port is up 0.5 ms after its other end has been asked to.
_PATIENCE_MS = 20
_DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


class Bridge(Plugin):
    """The plugin."""

    name = "bridge"
    needs = Needs(host=True, container=True, delegate=True, state=True, is_nft_user=True)
    delegates = (HostLocal,)

    @classmethod
    def link_names(cls, netconf: NetConf, verb: str, attachment: Attachment) -> dict[str, list[str]]:
        """Name the bridge with its VLAN's gateway, and the host's end of the pair."""
        bridge = netconf.config["bridge"].string("cni0") or "cni0"
        vlan = netconf.config["vlan"].integer(0)
        host = [host_ifname(netconf.name, attachment, attempt) for attempt in range(_NAME_ATTEMPTS)]
        return {
            "bridge": [bridge, *([f"{bridge}.{vlan}"] if vlan else [])],
            "host": host if verb != "GC" else [],
        }

    def __init__(self) -> None:
        self._find_link: Callable[[], Link | None] | None = None

    def inquire(self, call: Call) -> None:
        """Ask for the container's interface, which must not be there."""
        self._find_link = call.inside.start(get_link, call.request.ifname)

    def add(self, call: Call) -> Result:
        """Connect the container; addresses first, because undoing goes backwards and gives them back last."""
        find_link = self._find_link or call.inside.start(get_link, call.request.ifname)
        config = parse_config(call.request.netconf, call.request.args)
        require_expressible(call.request.netconf.version, has_addresses=call.ipam.is_configured)
        is_ipam_ours = call.ipam.is_in_process
        _require_free_ifname(call, find_link())
        # Chosen here, so that nothing which the container's worker says is used on the host.
        mac = config.mac or _random_mac()
        layer3, port = _connect(call, config, mac, is_ipam_ours=is_ipam_ours)
        wants_vlan_gateway = config.vlan and config.is_gateway and layer3.result.ips
        gateway = _ensure_vlan_gateway(call, config, port) if wants_vlan_gateway else None
        if config.wants_spoofcheck:
            _guard_against_spoofing(call, port.ifname, mac)
        holder = (gateway.ifindex, gateway.ifname) if gateway is not None else (port.bridge, port.bridge_ifname)
        _configure(call, config, holder, port, layer3)
        if layer3.result.ips and not config.is_left_down:
            call.finish_before_result(call.inside.start(announce_addresses, port.peer, mac))
        interfaces = (
            Interface(port.bridge_ifname, port.bridge_mac),
            Interface(port.ifname, port.mac),
            Interface(call.request.ifname, mac, sandbox=call.request.netns_path),
            *((Interface(gateway.ifname, gateway.mac),) if gateway is not None else ()),
        )
        return layer3.result._replace(interfaces=interfaces, dns=config.dns or layer3.result.dns)

    def delete(self, call: Call) -> None:
        """Disconnect the container: its link first, so that its addresses are free only when nobody has them.

        A netconf that ADD has refused must not keep a runtime from clearing up, so only what DEL needs is read of it.
        """
        _delete_links(call)
        _to_the_end(lambda: _delete_rules(call), lambda: _release_addresses(call))

    def check(self, call: Call) -> None:
        """Check what ADD made, link by link."""
        config = parse_config(call.request.netconf, call.request.args)
        if call.ipam.is_configured:
            call.ipam.check()
        bridge = _checked_bridge(call, config)
        container_end = _checked_container(call, config)
        host_end = _checked_port(call, config, bridge, container_end)
        if config.is_gateway:
            _check_gateways(call, config, bridge)
        _check_rules(call, config, host_end, container_end)

    def gc(self, call: Call) -> None:
        """Remove the links, rules and addresses of attachments that are not valid any more."""
        config = parse_config(call.request.netconf, "")
        valid = call.request.netconf.valid_attachments or frozenset()
        network = call.request.netconf.name
        owners = [Owner(*attachment) for attachment in sorted(valid)]
        _to_the_end(
            lambda: call.host.call(gc_masquerade, network, owners),
            lambda: _collect_links(call, config, {attachment_alias(network, attachment) for attachment in valid}),
            lambda: _collect_spoofchecks(call) if config.wants_spoofcheck else None,
            lambda: call.ipam.gc() if call.ipam.is_configured else None,
        )

    def status(self, call: Call) -> None:
        """Ask the address plugin; the kernel answers for the rest when it is asked."""
        config = parse_config(call.request.netconf, "")
        link = call.host.call(get_link, config.bridge)
        if link is not None and link.kind != "bridge":
            raise NotAvailable(f"use link {config.bridge}: it is not a bridge")
        if call.ipam.is_configured:
            call.ipam.status()


def _to_the_end(*steps: Callable[[], object]) -> None:
    """Take every step, whatever becomes of the others.

    Raises:
        CniError: the first that failed; its details hold what else did.
    """
    failures = []
    for step in steps:
        try:
            step()
        except CniError as error:
            failures.append(error)
    if failures:
        failures[0].details = "; ".join([failures[0].details, *(error.msg for error in failures[1:])]).strip("; ")
        raise failures[0]


# --- ADD ---------------------------------------------------------------------------------------------------------


def _require_free_ifname(call: Call, found: Link | None) -> None:
    """Refuse an ADD for an interface that is there, before anything of that attachment could be taken away."""
    ifname = call.request.ifname
    if found is not None:
        raise KernelRefused("create link", ifname, errno.EEXIST, f"container veth name ({ifname!r}) already exists")


def _addresses(call: Call, config: BridgeConfig) -> Result:
    """Get addresses, and complete them with what the bridge's gateway follows from."""
    if not call.ipam.is_configured:
        return Result()
    result = call.ipam.add()
    if not result.ips:
        raise EnvironmentFailure("get addresses: the address plugin gave none")
    ips = tuple(_with_gateway(ip, config)._replace(interface=_CONTAINER) for ip in result.ips)
    added = tuple(
        Route(_DEFAULT_ROUTE[version], gw=gateway)
        for version, gateway in _first_gateways(ips).items()
        if config.is_default_gateway and not _has_default(result.routes, version)
    )
    return Result(ips=ips, routes=result.routes + added, dns=result.dns)


def _with_gateway(ip: Address, config: BridgeConfig) -> Address:
    if ip.gateway or not config.is_gateway:
        return ip
    network = ip_interface(ip.address).network
    if network.num_addresses <= 2:  # a prefix without room for two hosts has no address that could be the gateway's
        return ip
    return ip._replace(gateway=str(network.network_address._replace(number=network.network_address.number + 1)))


def _first_gateways(ips: tuple[Address, ...]) -> dict[int, str]:
    gateways: dict[int, str] = {}
    for ip in ips:
        if ip.gateway:
            gateways.setdefault(ip_address(ip.gateway).version, ip.gateway)
    return gateways


def _has_default(given: tuple[Route, ...], version: int) -> bool:
    """Whether there is a default route; without a next hop of its own it leads to the gateway all the same."""
    return any(str(ip_interface(route.dst).network) == _DEFAULT_ROUTE[version] for route in given)


class _Layer3(NamedTuple):
    """The addresses of an attachment.

    Attributes:
        result: As the result has them.
        setup: Of the container's interface.
        gateways: What the host is to have, with prefix lengths.
    """

    result: Result
    setup: InterfaceSetup
    gateways: list[str]


def _layer3(call: Call, config: BridgeConfig) -> _Layer3:
    """Get addresses, and work out what follows from them."""
    result = _addresses(call, config)
    gateways = [f"{ip.gateway}/{ip.address.rpartition('/')[2]}" for ip in result.ips if ip.gateway]
    return _Layer3(result, _interface_setup(call, config, result), gateways if config.is_gateway else [])


def _connect(call: Call, config: BridgeConfig, mac: str, *, is_ipam_ours: bool) -> tuple[_Layer3, Port]:
    """Get addresses, and make a port of the bridge whose other end is the container's interface; also the bridge."""
    network, attachment = call.request.netconf.name, call.request.attachment
    bridge = BridgeSetup(
        ifname=config.bridge,
        mac=_random_mac(),
        mtu=config.mtu,
        alias=network_alias(network),
        is_promisc=config.is_promisc,
        wants_vlan_filtering=bool(config.vlans),
    )
    pair = VethSetup(
        ifname="",
        peer_ifname=call.request.ifname,
        peer_netns_fd=GIVEN_FD,  # the container's netns, in the host worker
        mtu=config.mtu,
        mac=_random_mac(),
        peer_mac=mac,
        is_hairpin=config.is_hairpin or None,
        is_isolated=config.is_isolated or None,
        alias=attachment_alias(network, attachment),
    )
    ifnames = [host_ifname(network, attachment, attempt) for attempt in range(_NAME_ATTEMPTS)]
    # One that is executed may wait for a server, and others wait for the lock.
    layer3 = None if is_ipam_ours else _layer3(call, config)
    # Only a failing ADD and GC remove bridges, and they do it under the same lock and only without ports.
    with call.locked(f"bridge-{config.bridge}"):
        finish = call.host.start(connect, bridge, pair, ifnames)
        try:
            if layer3 is None:
                layer3 = _layer3(call, config)
        finally:
            # ORDER: also when there are no addresses; and behind them, so that they are given back last.
            port = finish()
            if port.is_bridge_created:
                call.undo.push(_remove_bridge, call, config.bridge)
            call.undo.push(call.host.call, delete_link_by_index, port.ifindex)
    if config.vlans:
        call.host.call(set_vlans, port.ifindex, config.vlans, not config.keeps_default_vlan)
    return layer3, port


def _random_mac() -> str:
    """Make an address: locally administered, unicast. One that is given at birth never changes with the ports."""
    octets = bytearray(os.urandom(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def _ensure_vlan_gateway(call: Call, config: BridgeConfig, port: Port) -> Link:
    """Make the VLAN's interface, when it is not there."""
    network = call.request.netconf.name
    port_ifname = host_ifname(network, call.request.attachment, _NAME_ATTEMPTS)
    setup = VlanGatewaySetup(config.vlan, port_ifname, _random_mac(), config.mtu, network_alias(network))
    with call.locked(f"bridge-{config.bridge}"):
        ensured = call.host.call(ensure_vlan_gateway, port.bridge, port.bridge_ifname, setup)
    if ensured.is_created:
        call.undo.push(_remove_vlan_gateway, call, config.bridge, port, ensured.link.ifname)
    return ensured.link


def _configure(call: Call, config: BridgeConfig, holder: tuple[int, str], port: Port, layer3: _Layer3) -> None:
    """Configure the container's end; and, at the same time, have the host do what it has to for packets to pass.

    Raises:
        EnvironmentFailure: none pass.
    """
    ips = layer3.result.ips
    gateway = None
    if config.is_gateway and ips:
        gateway = Gateway(*holder, layer3.gateways, config.is_forced)
    masquerade = None
    if config.wants_masquerade and ips:
        owner = (call.request.netconf.name, *call.request.attachment)
        call.undo.push(call.host.call, delete_masquerade, *owner)
        masquerade = Masquerade(*owner, [ip.address for ip in ips])
    # It comes up when the other end does; behind gates it is we who have that done, and only after this.
    patience_ms = -1 if config.is_left_down or call.host.is_gate else _PATIENCE_MS
    configure = call.inside.start(configure_new_interface, port.peer, layer3.setup)
    state = call.host.call(serve_port, port.ifindex, gateway, masquerade, patience_ms)
    configure()
    if state != "up" and not config.is_left_down:
        state = call.host.call(wait_for_operstate_up, port.ifindex, _OPERSTATE_TIMEOUT_MS)
        if state != "up":
            raise EnvironmentFailure(f"wait for link {port.ifname}: bridge port in error state: {state}")


def _interface_setup(call: Call, config: BridgeConfig, layer3: Result) -> InterfaceSetup:
    return InterfaceSetup(
        ifname=call.request.ifname,
        addresses=[InterfaceAddress(ip.address, ip.gateway) for ip in layer3.ips],
        routes=[routes.Route(*route) for route in layer3.routes],
        wants_dad=config.wants_dad,
        is_up=not config.is_left_down,
    )


def _guard_against_spoofing(call: Call, ifname: str, mac: str) -> None:
    attachment = call.request.attachment
    call.undo.push(call.host.call, delete_spoofcheck, *attachment)
    call.host.call(add_spoofcheck, *attachment, ifname, mac)


# --- DEL and GC --------------------------------------------------------------------------------------------------


def _delete_links(call: Call) -> None:
    """Delete the pair by whichever end can be reached: by the name in the container; ours by name and mark as well."""
    network, attachment = call.request.netconf.name, call.request.attachment
    finish = call.host.start(get_links, [host_ifname(network, attachment, n) for n in range(_NAME_ATTEMPTS)], [])
    inside: list[Link] = []
    # Neither depends on the other: who has the container worker cannot keep our end of the pair on the host.
    _to_the_end(lambda: inside.extend(_look_inside(call)), lambda: _delete_ends(call, inside, finish()))


def _look_inside(call: Call) -> list[Link]:
    link = call.container.call(get_link, call.request.ifname) if call.container is not None else None
    return [] if link is None else [link]


def _delete_ends(call: Call, inside: list[Link], named: list[Link | None]) -> None:
    """Delete the container's link, and those of the host that have the names and the mark of ours.

    Args:
        call: The call.
        inside: The container's link, if there is one.
        named: The links of the host that have the names.
    """
    alias = attachment_alias(call.request.netconf.name, call.request.attachment)
    left = {link.ifindex: link for link in named if link is not None and link.alias == alias}
    _to_the_end(
        *(lambda link=link: _delete_from_inside(call, link, left, alias) for link in inside),
        lambda: _delete_from_outside(call, left),
    )


def _delete_from_outside(call: Call, left: dict[int, Link]) -> None:
    for ifindex in left:
        call.host.call(delete_link_by_index, ifindex)


def _delete_from_inside(call: Call, link: Link, left: dict[int, Link], alias: str) -> None:
    """Delete the container's link, and with it the host's; not one that is marked as another attachment's."""
    peer = left.get(link.peer) or (call.host.call(get_link_by_index, link.peer) if link.peer else None)
    # An index means something in its own netns only: the link that has it here must point back.
    if peer is None or peer.kind != "veth" or peer.peer != link.ifindex:
        call.inside.call(delete_link_by_index, link.ifindex)
    elif not is_attachments(peer.alias) or peer.alias == alias:
        _delete_pair(call, link.ifindex, peer.ifindex, is_own=peer.alias == alias)
        left.pop(peer.ifindex, None)


def _delete_pair(call: Call, ifindex: int, peer_ifindex: int, *, is_own: bool) -> None:
    """Delete a pair; it is gone long before the kernel says so to who has asked for it, who waits in rcu_barrier()."""
    call.inside.begin(delete_link_by_index, ifindex)
    deadline = time.monotonic() + _PATIENCE_S
    is_over = False
    while not call.host.call(wait_until_gone, peer_ifindex, 0 if is_over else _LOOK_AGAIN_MS):
        if is_over:
            break
        # ORDER: asked before the last look; after an answer, what that sees is what came of it.
        is_over = call.inside.has_answered() or time.monotonic() > deadline
    else:
        return
    if not is_own:
        raise KernelRefused("delete link", call.request.ifname, errno.EBUSY, "it is still there")
    call.host.call(delete_link_by_index, peer_ifindex)


def _delete_rules(call: Call) -> None:
    attachment = call.request.attachment
    if call.config["macspoofchk"].boolean():
        call.host.call(delete_spoofcheck, *attachment)
    if call.config["ipMasq"].boolean():
        call.host.call(delete_masquerade, call.request.netconf.name, *attachment)


def _release_addresses(call: Call) -> None:
    if call.ipam.is_configured:
        call.ipam.delete()


def _remove_bridge(call: Call, ifname: str) -> None:
    with call.locked(f"bridge-{ifname}"):
        _remove_unused_bridge(call, ifname)


def _remove_unused_bridge(call: Call, ifname: str) -> None:
    """Remove a bridge that this network made, unless it has ports.

    Order: under the bridge's lock, without which a port could be added between the look and the deletion.
    """
    bridge = call.host.call(get_link, ifname)
    is_ours = bridge is not None and bridge.alias == network_alias(call.request.netconf.name)
    if bridge is not None and is_ours and not call.host.call(list_ports, bridge.ifindex):
        call.host.call(delete_link_by_index, bridge.ifindex)


def _remove_vlan_gateway(call: Call, bridge_ifname: str, own: Port, ifname: str) -> None:
    """Remove a VLAN's interface that this network made, unless the bridge has other ports than the pair's and our own.

    Order: before our own port goes, so that the bridge has none when it is its turn.
    """
    with call.locked(f"bridge-{bridge_ifname}"):
        link = call.host.call(get_link, ifname)
        if link is None or link.alias != network_alias(call.request.netconf.name):
            return
        if {port.ifindex for port in call.host.call(list_ports, own.bridge)} <= {link.peer, own.ifindex}:
            call.host.call(delete_link_by_index, link.ifindex)


def _collect_links(call: Call, config: BridgeConfig, valid_aliases: set[str]) -> None:
    with call.locked(f"bridge-{config.bridge}"):
        bridge = call.host.call(get_link, config.bridge)
        if bridge is None:
            return
        ports = call.host.call(list_ports, bridge.ifindex)
        network = call.request.netconf.name
        garbage = [port for port in ports if is_of_network(port.alias, network) and port.alias not in valid_aliases]
        if not valid_aliases:
            garbage += _vlan_gateways(call, ports)
        for link in garbage:
            call.host.call(delete_link_by_index, link.ifindex)
        if not valid_aliases:
            _remove_unused_bridge(call, config.bridge)


def _vlan_gateways(call: Call, ports: list[Link]) -> list[Link]:
    """Find the VLANs' interfaces of this network behind ports, each a veth whose other end is here, too.

    They are what bears the network's mark, by which a gate lets them be deleted; their ports have none.
    """
    indexes = [port.peer for port in ports if port.peer and port.link_netnsid is None]
    alias = network_alias(call.request.netconf.name)
    ends = call.host.call(get_links, [], indexes) if indexes else []
    return [end for end in ends if end is not None and end.kind == "veth" and end.alias == alias]


def _collect_spoofchecks(call: Call) -> None:
    """Remove the spoof checks whose link has gone, of any network: their names do not say of which."""
    # ORDER: rules before links. Whoever adds a spoof check has made its link before, so the link of each rule listed
    # here has been there, and one that is missing now has gone. Were links listed first, an ADD between the two would
    # show a rule whose link was not there yet, and a living container would lose its filter.
    jumps = call.host.call(list_spoofcheck_jumps)
    garbage = [jump for jump in jumps if call.host.call(get_link, jump.host_ifname) is None]
    # When such a link comes back only now, that ADD has still to replace the rule, or has: by one of another handle.
    if garbage:
        call.host.call(delete_spoofcheck_jumps, garbage)


# --- CHECK -------------------------------------------------------------------------------------------------------


def _prev_interfaces(call: Call) -> tuple[Interface, ...]:
    prev_result = call.request.netconf.prev_result
    return prev_result.interfaces if prev_result is not None else ()


def _own_addresses(call: Call) -> tuple[Address, ...]:
    """List the addresses of prevResult that are the container's interface's; later plugins may have added others."""
    prev_result = call.request.netconf.prev_result or Result()
    numbered = enumerate(prev_result.interfaces)
    own = {None, *(index for index, item in numbered if item.name == call.request.ifname and item.sandbox)}
    return tuple(ip for ip in prev_result.ips if ip.interface in own)


def _checked_bridge(call: Call, config: BridgeConfig) -> Link:
    link = call.host.call(get_link, config.bridge)
    if link is None or link.kind != "bridge":
        raise CheckFailed(f"check bridge {config.bridge}: {'it is not a bridge' if link else 'it does not exist'}")
    for interface in _prev_interfaces(call):
        is_it = interface.name == config.bridge and not interface.sandbox
        if is_it and interface.mac and interface.mac.lower() != link.mac:
            raise CheckFailed(f"check bridge {config.bridge}: its address is {link.mac}, not {interface.mac}")
    if config.is_promisc and not link.is_promisc:
        raise CheckFailed(f"check bridge {config.bridge}: it is not promiscuous")
    _require_up("bridge", link)
    return link


def _require_up(what: str, link: Link) -> None:
    """Refuse a link that is down: ADD has set it up, and without it nobody reaches the container."""
    if not link.is_up:
        raise CheckFailed(f"check {what} {link.ifname}: it is down")


def _check_gateways(call: Call, config: BridgeConfig, bridge: Link) -> None:
    """Check that the host is still the gateway: of the first address of each family, others may be later plugins'."""
    holder = call.host.call(get_link, f"{bridge.ifname}.{config.vlan}") if config.vlan else bridge
    listed = call.host.call(list_addresses, holder.ifindex) if holder is not None else []
    present = {ip_interface(item.address).ip for item in listed}
    for gateway in _first_gateways(_own_addresses(call)).values():
        if ip_address(gateway) not in present:
            raise CheckFailed(f"check bridge {bridge.ifname}: gateway {gateway} is missing")


def _checked_container(call: Call, config: BridgeConfig) -> Link:
    """Check the container's end: the link, and those addresses and routes of prevResult that are its own."""
    request = call.request
    listed = [item for item in _prev_interfaces(call) if item.name == request.ifname and item.sandbox]
    if not listed:
        raise CheckFailed(f"check link {request.ifname}: prevResult does not list it")
    interface = listed[0]
    if interface.sandbox != request.netns_path:
        raise CheckFailed(f"check link {request.ifname}: prevResult has it in {quoted(interface.sandbox)}")
    prev_result = request.netconf.prev_result or Result()
    expected = prev_result._replace(ips=_own_addresses(call))
    state = call.inside.call(check_interface, _interface_setup(call, config, expected))
    if state is None or state.link.kind != "veth":
        raise CheckFailed(f"check link {request.ifname}: {'it is not a veth' if state else 'it does not exist'}")
    if interface.mac and interface.mac.lower() != state.link.mac:
        raise CheckFailed(f"check link {request.ifname}: its address is {state.link.mac}, not {interface.mac}")
    if not config.is_left_down:
        _require_up("link", state.link)
    if state.missing_addresses:
        raise CheckFailed(f"check link {request.ifname}: address {state.missing_addresses[0]} is missing")
    if state.missing_routes and not config.is_left_down:
        raise CheckFailed(f"check link {request.ifname}: route to {state.missing_routes[0].dst} is missing")
    return state.link


def _checked_port(call: Call, config: BridgeConfig, bridge: Link, container_end: Link) -> Link:
    """Check that the host's end is the container's peer, is listed, and is a port as the netconf wants it."""
    for interface in _prev_interfaces(call):
        link = None if interface.sandbox else call.host.call(get_link, interface.name)
        if link is not None and link.kind == "veth" and link.ifindex == container_end.peer:
            break
    else:
        raise CheckFailed(f"check link {call.request.ifname}: its other end is not among the links of prevResult")
    port = call.host.call(get_port, link.ifindex)
    if port is None or port.master != bridge.ifindex:
        raise CheckFailed(f"check link {link.ifname}: it is not a port of {bridge.ifname}")
    _require_up("link", link)
    if port.is_hairpin != config.is_hairpin or port.is_isolated != config.is_isolated:
        raise CheckFailed(f"check link {link.ifname}: hairpin or isolation of the port differ from the netconf")
    if config.vlans:
        present = {tag for vlan in call.host.call(list_vlans, link.ifindex) for tag in range(vlan.first, vlan.last + 1)}
        for vlan in config.vlans:
            if vlan.first not in present:
                raise CheckFailed(f"check link {link.ifname}: it is not in VLAN {vlan.first}")
    return link


def _check_rules(call: Call, config: BridgeConfig, host_end: Link, container_end: Link) -> None:
    attachment = call.request.attachment
    addresses = [ip.address for ip in _own_addresses(call)]
    owner = (call.request.netconf.name, *attachment)
    if config.wants_masquerade and addresses and not call.host.call(has_masquerade, *owner, addresses):
        raise CheckFailed(f"check masquerading of {', '.join(addresses)}: a rule is missing")
    if config.wants_spoofcheck and not call.host.call(has_spoofcheck, *attachment, host_end.ifname, container_end.mac):
        raise CheckFailed(f"check link {host_end.ifname}: the rules of macspoofchk are missing")


def main() -> NoReturn:
    """Be the plugin's executable."""
    run(Bridge)


if __name__ == "__main__":
    main()

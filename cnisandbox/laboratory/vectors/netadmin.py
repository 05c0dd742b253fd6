"""Category b: every operation that CAP_NET_ADMIN allows, each asked twice.

The first question is whether it works in the container's own network namespace; that it does is what the capability is
given for. The second has "-outside" at the end of its id: what changes on the host, either because the container's own
configuration reaches that far, or because the same operation is tried on the host's network.
"""

# ruff: noqa: E501 - one row, one line: it is a table

from functools import partial

from cnisandbox.laboratory.attacker import netadmin as _n
from cnisandbox.laboratory.attacker import netadmin_firewall as _f
from cnisandbox.laboratory.attacker import netadmin_outside as _o
from cnisandbox.laboratory.attacker import netadmin_sockets as _s
from cnisandbox.laboratory.attacker.network import give_host_an_address
from cnisandbox.laboratory.attacker.observe import CONTAINER, HOST
from cnisandbox.laboratory.vector import Vector

_OWN, _UPLINK, _HOST_END, _BRIDGE = "eth0", "uplink0", "veth0", "hostbr0"
_MANUAL = "capabilities(7), CAP_NET_ADMIN: {}".format
_GIESE = "Giese 2021 (NET_ADMIN): {}".format
_INTERFACES, _FIREWALL, _ROUTING, _PROXY, _TOS, _STATISTICS, _PROMISCUOUS, _MULTICAST, _OPTIONS = (
    _MANUAL(operation)
    for operation in (
        "interface configuration",
        "administration of IP firewall, masquerading, and accounting",
        "modify routing tables",
        "bind to any address for transparent proxying",
        "set type-of-service (TOS)",
        "clear driver statistics",
        "set promiscuous mode",
        "enabling multicasting",
        "socket options",
    )
)

# fmt: off
VECTORS: tuple[Vector, ...] = (
    # Interface configuration
    Vector("b-link-down", "b", "set eth0 down", partial(_n.set_down, _OWN), partial(_n.is_down, CONTAINER, _OWN), _INTERFACES, scene=give_host_an_address),
    Vector("b-link-down-outside", "b", "take the carrier from the host's end of the pair", partial(_n.set_down, _OWN), _o.host_end_has_no_carrier, _INTERFACES, scene=give_host_an_address),
    Vector("b-mtu", "b", "set eth0's MTU", partial(_n.set_mtu, _OWN), partial(_n.has_mtu, CONTAINER, _OWN), _GIESE("interface configuration")),
    Vector("b-mtu-outside", "b", "set the MTU of a bridge of the host", partial(_n.set_mtu, _BRIDGE), partial(_n.has_mtu, HOST, _BRIDGE), _GIESE("interface configuration"), where="host"),
    Vector("b-mac", "b", "set eth0's hardware address", partial(_n.set_mac, _OWN), partial(_n.has_mac, CONTAINER, _OWN), _INTERFACES),
    Vector("b-mac-outside", "b", "take the hardware address of another container, so that the host's bridge sends its frames here", _o.take_victims_mac, _o.victims_frames_go_to_container, _INTERFACES, scene=_o.connect_by_bridge),
    Vector("b-delete-link", "b", "delete eth0", partial(_n.delete, _OWN), partial(_n.is_gone, CONTAINER, _OWN), _INTERFACES),
    Vector("b-delete-link-outside", "b", "delete the host's end of the pair with eth0", partial(_n.delete, _OWN), partial(_n.is_gone, HOST, _HOST_END), _INTERFACES),
    Vector("b-delete-bridge-outside", "b", "delete a bridge of the host", partial(_n.delete, _BRIDGE), partial(_n.is_gone, HOST, _BRIDGE), _INTERFACES, where="host"),
    Vector("b-create-link", "b", "create a bridge", _n.create_bridge, partial(_n.has_new_link, CONTAINER), _INTERFACES),
    Vector("b-create-link-outside", "b", "create a bridge on the host", _n.create_bridge, partial(_n.has_new_link, HOST), _INTERFACES, where="host"),
    Vector("b-address", "b", "add an address to eth0", partial(_n.add_address, _OWN), partial(_n.has_address, CONTAINER), _INTERFACES),
    Vector("b-address-outside", "b", "add an address to a bridge of the host", partial(_n.add_address, _BRIDGE), partial(_n.has_address, HOST), _INTERFACES, where="host"),
    Vector("b-arp-outside", "b", "add an address of somebody else to eth0, so that the host takes the container for its owner", partial(_n.add_address, _OWN), _o.host_takes_container_for_owner, _INTERFACES, scene=_o.connect_by_bridge),
    Vector("b-sysctl", "b", "have the container forward packets", _n.forward_packets, partial(_n.forwards_packets, CONTAINER), _INTERFACES),
    Vector("b-sysctl-outside", "b", "have the host forward packets", _n.forward_packets, partial(_n.forwards_packets, HOST), _INTERFACES, where="host"),
    Vector("b-global-sysctl-outside", "b", "open a setting that every netns shows and that is the whole machine's", _o.open_global_sysctl, _o.may_write_global_sysctl, _INTERFACES, needs=_o.lacks_global_sysctl),
    Vector("b-offload", "b", "switch eth0's segmentation offload off", partial(_s.switch_offload_off, _OWN), partial(_s.has_no_offload, CONTAINER, _OWN), "ethtool(8)"),
    Vector("b-offload-outside", "b", "switch the segmentation offload of the host's uplink off", partial(_s.switch_offload_off, _UPLINK), partial(_s.has_no_offload, HOST, _UPLINK), "ethtool(8)", where="host"),
    Vector("b-clear-statistics", "b", "clear the statistics of eth0's driver", partial(_s.clear_statistics, _OWN), partial(_s.has_cleared_statistics, CONTAINER, _OWN), _STATISTICS, scene=_s.send_frames, needs=_s.lacks_clearing),
    Vector("b-clear-statistics-outside", "b", "clear the statistics of the host's uplink", partial(_s.clear_statistics, _UPLINK), partial(_s.has_cleared_statistics, HOST, _UPLINK), _STATISTICS, where="host", scene=_s.send_frames, needs=_s.lacks_clearing),
    Vector("b-promiscuous", "b", "set eth0 promiscuous", partial(_n.set_promiscuous, _OWN), partial(_n.is_promiscuous, CONTAINER, _OWN), _PROMISCUOUS),
    Vector("b-promiscuous-outside", "b", "set a bridge of the host promiscuous", partial(_n.set_promiscuous, _BRIDGE), partial(_n.is_promiscuous, HOST, _BRIDGE), _PROMISCUOUS, where="host"),
    Vector("b-sniff-outside", "b", "read a frame that the host's bridge sends to somebody else", _o.read_frame_of_other, _o.said_secret_of_other, _GIESE("set promiscuous mode"), scene=_o.send_to_silent_neighbour),
    Vector("b-kernel-log-outside", "b", "write a word into the kernel's log, by a link of that name", _o.write_to_kernel_log, _o.kernel_log_has_word, _PROMISCUOUS, scene=_o.listen_to_kernel_log),
    Vector("b-forge-frame-outside", "b", "send a frame from any hardware address without CAP_NET_RAW, through a tap", _o.forge_frame_by_tap, _o.forged_frame_has_left, _INTERFACES, scene=_o.capture_forged_frames, needs=_o.lacks_tun),
    Vector("b-multicast", "b", "have the kernel join a multicast group on eth0", partial(_n.join_group, _OWN), partial(_n.has_joined_group, CONTAINER), _MULTICAST, scene=give_host_an_address),
    Vector("b-multicast-outside", "b", "have the host's bridge send a group to the container", partial(_n.join_group, _OWN), _o.bridge_has_learned_group, _MULTICAST, scene=_o.connect_by_bridge),
    # Routing
    Vector("b-route", "b", "add a route", partial(_n.add_route, _OWN), partial(_n.has_route, CONTAINER), _ROUTING, scene=give_host_an_address),
    Vector("b-route-outside", "b", "add a route to the host's table", partial(_n.add_route, _HOST_END), partial(_n.has_route, HOST), _ROUTING, scene=give_host_an_address, where="host"),
    Vector("b-rule", "b", "have another table asked for routes", _n.add_rule, partial(_n.has_rule, CONTAINER), _ROUTING, needs=_n.lacks_rules),
    Vector("b-rule-outside", "b", "have the host ask another table for routes", _n.add_rule, partial(_n.has_rule, HOST), _ROUTING, where="host", needs=_n.lacks_rules),
    Vector("b-neighbour", "b", "say which hardware address a neighbour has", partial(_n.add_neighbour, _OWN), partial(_n.has_neighbour, CONTAINER), _ROUTING),
    Vector("b-neighbour-outside", "b", "tell the host which hardware address a neighbour has", partial(_n.add_neighbour, _UPLINK), partial(_n.has_neighbour, HOST), _ROUTING, where="host"),
    # Firewall, masquerading, accounting
    Vector("b-firewall", "b", "drop every packet that comes in, by nf_tables", _f.drop_packets, partial(_f.drops_packets, CONTAINER), _FIREWALL, needs=_f.lacks_nftables),
    Vector("b-firewall-outside", "b", "have the host drop every packet that comes in, by nf_tables", _f.drop_packets_of_host, partial(_f.drops_packets, HOST), _FIREWALL, where="host", needs=_f.lacks_nftables),
    Vector("b-iptables", "b", "drop every packet that comes in, by iptables", _f.replace_iptables, partial(_f.has_iptables_policy, CONTAINER), _FIREWALL, needs=_f.lacks_iptables),
    Vector("b-iptables-outside", "b", "have the host drop every packet that comes in, by iptables", _f.replace_iptables, partial(_f.has_iptables_policy, HOST), _FIREWALL, where="host", needs=_f.lacks_iptables),
    Vector("b-masquerade", "b", "change the source address of what leaves", _f.masquerade, partial(_f.masquerades, CONTAINER), _FIREWALL, needs=_f.lacks_masquerading),
    Vector("b-masquerade-outside", "b", "change the source address of what leaves the host", _f.masquerade_host, partial(_f.masquerades, HOST), _FIREWALL, where="host", needs=_f.lacks_masquerading),
    Vector("b-accounting", "b", "clear what has been accounted", _f.clear_counters, partial(_f.has_cleared_counters, CONTAINER), _FIREWALL, scene=partial(_f.count_packets, CONTAINER), needs=_f.lacks_counters),
    Vector("b-accounting-outside", "b", "clear what the host has accounted", _f.clear_counters, partial(_f.has_cleared_counters, HOST), _FIREWALL, scene=partial(_f.count_packets, HOST), where="host", needs=_f.lacks_counters),
    # Sockets
    Vector("b-transparent-bind", "b", "bind to an address that is not the container's", _s.bind_foreign_address, partial(_s.is_bound_to_foreign_address, CONTAINER), _PROXY),
    Vector("b-transparent-bind-outside", "b", "send to the host from an address that is not the container's", _o.send_from_foreign_address, _o.packet_of_foreign_address_has_left, _GIESE("bind to any address for transparent proxying"), scene=_o.capture_packets),
    Vector("b-tos", "b", "set a socket's type of service", _s.set_type_of_service, partial(_s.has_type_of_service, CONTAINER), _TOS),
    Vector("b-tos-outside", "b", "send to the host with a type of service", _o.send_with_type_of_service, _o.packet_with_type_of_service_has_left, _TOS, scene=_o.capture_packets),
    Vector("b-so-debug", "b", "SO_DEBUG", _s.set_debug, partial(_s.has_debug, CONTAINER), _OPTIONS),
    Vector("b-so-debug-outside", "b", "SO_DEBUG on a socket of the host's netns", _s.set_debug, partial(_s.has_debug, HOST), _OPTIONS, where="host"),
    Vector("b-so-mark", "b", "SO_MARK", _s.set_mark, partial(_s.has_mark, CONTAINER), _OPTIONS),
    Vector("b-so-mark-outside", "b", "SO_MARK on a socket of the host's netns", _s.set_mark, partial(_s.has_mark, HOST), _OPTIONS, where="host"),
    Vector("b-so-priority", "b", "SO_PRIORITY above 6", _s.set_priority, partial(_s.has_priority, CONTAINER), _OPTIONS),
    Vector("b-so-priority-outside", "b", "SO_PRIORITY above 6 on a socket of the host's netns", _s.set_priority, partial(_s.has_priority, HOST), _OPTIONS, where="host"),
    Vector("b-so-rcvbufforce", "b", "SO_RCVBUFFORCE", _s.force_receive_buffer, partial(_s.has_forced_receive_buffer, CONTAINER), _OPTIONS),
    Vector("b-so-rcvbufforce-outside", "b", "SO_RCVBUFFORCE on a socket of the host's netns", _s.force_receive_buffer, partial(_s.has_forced_receive_buffer, HOST), _OPTIONS, where="host"),
    Vector("b-so-sndbufforce", "b", "SO_SNDBUFFORCE", _s.force_send_buffer, partial(_s.has_forced_send_buffer, CONTAINER), _OPTIONS),
    Vector("b-so-sndbufforce-outside", "b", "SO_SNDBUFFORCE on a socket of the host's netns", _s.force_send_buffer, partial(_s.has_forced_send_buffer, HOST), _OPTIONS, where="host"),
)
# fmt: on

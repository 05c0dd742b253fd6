"""Category c: reaching another network namespace, by a pid, an nsid, a descriptor, a path or a file that shows one."""

# ruff: noqa: E501 - one row, one line: it is a table

from cnisandbox.laboratory.attacker import netns as _o
from cnisandbox.laboratory.attacker import network as _n
from cnisandbox.laboratory.vector import Vector

_ESCAPE = "escape matrix {}".format
_DEPUTY = "confused deputy: a number that another process looks up"
_READER = "two readers of one message"

# fmt: off
VECTORS: tuple[Vector, ...] = (
    # By a pid
    Vector("c-veth-peer-by-pid", "c", "make a veth whose peer is in the host, IFLA_NET_NS_PID", _n.veth_peer_by_pid, _o.veth_leads_to_host, _ESCAPE("b01")),
    Vector("c-veth-peer-into-other-container-by-pid", "c", "make one whose peer is in another container", _o.veth_peer_into_victim_by_pid, _o.victim_has_new_link, _ESCAPE("b01")),
    Vector("c-veth-peer-by-guessed-pid", "c", "try low numbers as IFLA_NET_NS_PID", _o.veth_peer_by_guessed_pid, _o.veth_leads_to_host, _DEPUTY),
    Vector("c-move-eth0-by-pid", "c", "move eth0 into the host, IFLA_NET_NS_PID=1", _n.move_eth0_to_pid_1, _n.eth0_is_in_host, _ESCAPE("b02")),
    Vector("c-name-other-container-by-pid", "c", "have another container numbered by a pid, RTM_NEWNSID", _n.name_victim_by_pid, _n.victim_has_nsid, _ESCAPE("b03")),
    # By an nsid: nothing but the content of a message
    Vector("c-read-nsid", "c", "read the number of the host's netns beside eth0", _n.read_host_nsid, _n.said_host_nsid, _ESCAPE("b05")),
    Vector("c-list-links-by-nsid", "c", "list the host's links", _n.list_host_links, _n.said_hidden_link, _ESCAPE("b06")),
    Vector("c-list-addresses-by-nsid", "c", "list the host's addresses", _n.list_host_addresses, _n.said_host_address, _ESCAPE("b11"), scene=_n.give_host_an_address),
    Vector("c-list-nsids-by-nsid", "c", "list the numbers that other containers have in the host, NETNSA_TARGET_NSID", _o.list_host_nsids, _o.said_nsid_of_victim, "ip-netns(8), list-id target-nsid", scene=_o.number_victim_in_host),
    Vector("c-delete-link-by-nsid", "c", "delete a link of the host", _n.delete_host_link, _n.host_bridge_is_gone, _ESCAPE("b07")),
    Vector("c-create-link-by-nsid", "c", "create a bridge in the host, IFLA_TARGET_NETNSID", _n.create_host_bridge, _n.host_has_new_link, _ESCAPE("b08")),
    Vector("c-create-link-by-guessed-nsid", "c", "the same with low numbers, unread", _o.create_host_bridge_by_guessed_nsid, _n.host_has_new_link, _DEPUTY),
    Vector("c-create-link-by-flagged-nsid", "c", "the same with NLA_F_NESTED in the attribute's type", _o.create_host_bridge_by_flagged_nsid, _n.host_has_new_link, _READER),
    Vector("c-create-link-by-last-nsid", "c", "the same with the attribute twice", _o.create_host_bridge_by_last_nsid, _n.host_has_new_link, _READER),
    Vector("c-create-link-in-second-message", "c", "the same behind a harmless message, in one datagram", _o.create_host_bridge_in_second_message, _n.host_has_new_link, _READER),
    Vector("c-move-eth0-by-nsid", "c", "move eth0 into the host", _n.move_eth0_to_host_nsid, _n.eth0_is_in_host, _ESCAPE("b12")),
    Vector("c-macvlan-on-uplink-by-nsid", "c", "stack a macvlan on the host's uplink, IFLA_LINK_NETNSID", _n.macvlan_on_host_uplink, _n.container_has_macvlan_on_uplink, _ESCAPE("b09")),
    Vector("c-tunnel-through-host-by-nsid", "c", "make a VXLAN whose socket is the host's, IFLA_LINK_NETNSID", _o.tunnel_through_host, _o.host_has_tunnel_socket, "ip-link(8), link-netnsid", needs=_o.lacks_vxlan),
    Vector("c-hear-every-netns", "c", "hear of changes in every netns, NETLINK_LISTEN_ALL_NSID", _n.hear_every_netns, _n.said_new_host_link, _ESCAPE("b10")),
    Vector("c-create-link-in-container-by-nsid", "c", "out of the host's netns: create a bridge in the container", _o.create_bridge_in_container, _o.container_has_new_link, _ESCAPE("h02"), where="host"),
    Vector("c-delete-link-of-container-by-nsid", "c", "out of the host's netns: delete the container's link", _n.delete_container_link_by_nsid, _n.container_has_no_eth0, _ESCAPE("h02"), where="host"),
    Vector("c-move-uplink-into-container-by-nsid", "c", "out of the host's netns: move the host's uplink into the container", _o.move_uplink_into_container, _o.uplink_is_in_container, _ESCAPE("b12"), where="host"),
    # By a descriptor, or what one leads to
    Vector("c-setns-by-left-descriptor", "c", "setns() to a descriptor left open", _n.setns_by_kept_descriptor, _n.has_entered_host_netns, _ESCAPE("c02")),
    Vector("c-veth-peer-by-left-descriptor", "c", "make a veth whose peer is there, IFLA_NET_NS_FD", _n.veth_peer_by_kept_descriptor, _o.veth_leads_to_host, _ESCAPE("c03")),
    Vector("c-veth-peer-by-guessed-descriptor", "c", "try low numbers as IFLA_NET_NS_FD", _o.veth_peer_by_guessed_descriptor, _o.veth_leads_to_host, _DEPUTY),
    Vector("c-delete-link-by-left-netlink-socket", "c", "delete a link of the host through a netlink socket left open", _n.delete_by_kept_netlink_socket, _n.host_bridge_is_gone, _ESCAPE("c06")),
    Vector("c-write-left-sysctl", "c", "write a sysctl of the host through a file left open", _n.write_kept_sysctl, _n.host_forwards, _ESCAPE("c09")),
    Vector("c-netns-of-descriptors", "c", "ask each descriptor for its netns, SIOCGSKNS", _n.ask_descriptors_for_netns, _n.holds_host_netns, _ESCAPE("c04")),
    Vector("c-veth-peer-by-netns-of-socket", "c", "make a veth whose peer is where that leads", _n.veth_peer_by_socket, _o.veth_leads_to_host, _ESCAPE("c05")),
    Vector("c-veth-peer-by-netns-of-pidfd", "c", "the same with PIDFD_GET_NET_NAMESPACE of a process of the host", _n.netns_of_pidfd, _o.veth_leads_to_host, _ESCAPE("c10"), needs=_o.lacks_netns_of_pidfd),
    Vector("c-setns-by-pidfd", "c", "setns() to the netns of another container's process, by a pidfd", _o.setns_by_pidfd, _o.is_in_netns_of_victim, "setns(2), Linux 5.8"),
    Vector("c-take-descriptor-of-process", "c", "pidfd_getfd() of a process of the host, which has its netns open", _n.take_descriptor_of_process, _o.veth_leads_to_host, _ESCAPE("c11")),
    Vector("c-netns-by-file-handle", "c", "open_by_handle_at() of the host's netns", _n.netns_by_handle, _o.veth_leads_to_host, _ESCAPE("c12"), needs=_o.lacks_netns_handles),
    # By a path
    Vector("c-setns-by-proc", "c", "setns() to /proc/PID/ns/net of a process of the host", _n.setns_by_proc, _n.has_entered_host_netns, _ESCAPE("a01")),
    Vector("c-setns-by-path", "c", "setns() to /run/netns/NAME of another container", _o.setns_by_path, _o.is_in_netns_of_victim, _ESCAPE("c07")),
    Vector("c-veth-peer-by-path", "c", "the same path as IFLA_NET_NS_FD", _n.veth_peer_by_netns_path, _o.victim_has_new_link, _ESCAPE("c07")),
    Vector("c-veth-peer-by-path-of-process", "c", "the same through /proc/PID/root", _o.veth_peer_by_path_of_process, _o.victim_has_new_link, _ESCAPE("c07")),
    Vector("c-veth-peer-by-path-from-host", "c", "out of the host's netns: connect it to another container", _n.veth_peer_by_netns_path, _o.victim_has_new_link, _ESCAPE("c07"), where="host"),
    Vector("c-move-eth0-by-path", "c", "move eth0 into another container", _o.move_eth0_by_path, _o.eth0_is_in_victim, _ESCAPE("c07")),
    Vector("c-name-other-container-by-path", "c", "have another container numbered by its path, RTM_NEWNSID", _o.name_victim_by_path, _n.victim_has_nsid, _ESCAPE("b03, c07")),
    Vector("c-list-netns-paths", "c", "list the names of other containers in /run/netns", _o.list_netns_paths, _o.said_made_up_name, _ESCAPE("c07"), scene=_o.add_netns_with_made_up_name),
    Vector("c-unmount-netns", "c", "unmount /run/netns/NAME of another container", _o.unmount_netns, _o.path_leads_to_no_netns, "ip-netns(8)", scene=_o.add_other_netns),
    Vector("c-mount-host-netns-over-other", "c", "mount the host's netns there: the next plugin configures the host", _o.mount_host_netns_over_other, _o.path_leads_to_host, "containerd issue 10607 (plugins in the wrong netns)", scene=_o.add_other_netns),
    # By a file that shows a netns
    Vector("c-read-links-in-proc", "c", "read the host's links in /proc/1/net/dev", _o.read_links_in_proc, _n.said_hidden_link, "proc(5)"),
    Vector("c-read-links-in-sysfs", "c", "read the host's links in /sys/class/net, which shows where it was mounted", _o.read_links_in_sysfs, _n.said_hidden_link, "ip-netns(8)", scene=_o.mount_sysfs),
    Vector("c-write-link-in-sysfs", "c", "set the alias of a link of the host there", _o.write_link_in_sysfs, _o.host_bridge_has_alias, "ip-netns(8)", scene=_o.mount_sysfs),
    # By a socket that belongs to no netns
    Vector("c-connect-vsock", "c", "connect to a service of the host by AF_VSOCK", _o.connect_vsock, _n.listener_was_reached, "vsock(7)", scene=_o.listen_on_vsock, needs=_o.lacks_vsock_loopback),
)
# fmt: on

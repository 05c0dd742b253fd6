# ruff: noqa: E501
# fmt: off
"""The package's profiles, compiled from data/ by compile.py: do not edit.

Privilege: none.
"""

from cnisandbox.hints import Any

# Changes with what a profile can include, and with what is understood of it.
STAMP = "f2f1f785c62699363b5b20fbd1115239"

_0 = ('container:1', ('container',), ('RTM_GETLINK',), ('any',), (), (), ('ifname', 'alt_ifname', 'ext_mask'), (), (), (), (), (), 'finds links of the container, by name or all of them')
_1 = ('container:2', ('container',), ('RTM_GETLINK', 'RTM_GETADDR', 'RTM_GETROUTE', 'RTM_GETRULE'), (), (), (), ('ext_mask',), (), (), (), (), (), 'lists links, addresses, routes and rules of the container')
_2 = ('bandwidth:1', ('host',), ('RTM_GETLINK',), ('peer', 'created', 'name:bwp*'), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), "finds the host's end of the pair, and the link that delays what the container sends")
_3 = ('bandwidth:2', ('host',), ('RTM_NEWLINK',), ('name:bwp*',), ('ifb',), (), ('ifname', 'mtu', 'txqlen', 'linkinfo.kind'), (), (), (), (), (), 'creates the link that delays what the container sends')
_4 = ('bandwidth:3', ('host',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('name:bwp*',), (), (), (), (), (), (), (), (), 'sets it up')
_5 = ('bandwidth:4', ('host',), ('RTM_DELLINK',), ('name:bwp*',), (), (), (), (), (), (), (), (), 'DEL takes it away')
_6 = ('bandwidth:5', ('host',), ('RTM_GETADDR',), (), (), (), (), (), (), (), (), (), 'lists addresses before it takes the link away')
_7 = ('bandwidth:6', ('host',), ('RTM_NEWQDISC', 'RTM_GETQDISC'), ('peer', 'name:bwp*'), (), (), ('kind', 'options', 'options.**'), (), (), (), (), (), 'the queues that limit')
_8 = ('bandwidth:7', ('host',), ('RTM_NEWTFILTER',), ('peer',), (), ('name:bwp*',), ('kind', 'options', 'options.**'), (), (), (), (), (), 'sends what comes out of the container through that link')
_9 = ('bridge', 'cni0')
_10 = ('interface:1', ('container',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('attachment',), (), (), (), (), (), (), (), (), 'sets the interface up or down')
_11 = ('interface:2', ('container',), ('RTM_DELLINK',), ('attachment',), (), (), (), (), (), (), (), (), 'DEL, and ADD that fails, take the interface away')
_12 = ('interface:3', ('container',), ('RTM_NEWADDR', 'RTM_DELADDR'), ('attachment',), (), (), ('local', 'address', 'broadcast', 'label', 'flags'), (), (), (), (), (), 'gives the interface its addresses')
_13 = ('interface:4', ('container',), ('RTM_NEWROUTE', 'RTM_DELROUTE'), ('attachment',), (), (), ('dst', 'gateway', 'oif', 'prefsrc', 'priority', 'table', 'metrics.mtu', 'metrics.advmss'), (), (), (), (), (), 'adds the routes of the result, and takes away those that the kernel added')
_14 = ('veth:1', ('container',), ('RTM_NEWLINK',), ('attachment',), ('veth',), ('name:veth????????',), ('ifname', 'mtu', 'txqlen', 'address', 'linkinfo.kind', 'linkinfo.data.peer.ifname', 'linkinfo.data.peer.mtu', 'linkinfo.data.peer.txqlen', 'linkinfo.data.peer.address', 'linkinfo.data.peer.net_ns_fd'), (), (), (), (), (), 'creates the pair, one end in each netns')
_15 = ('veth:2', ('host',), ('RTM_GETLINK',), ('peer', 'created', 'name:veth????????'), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), "finds the host's end, and whether a name for it is free")
_16 = ('veth:3', ('host',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('peer',), (), (), (), (), (), (), (), (), "sets the host's end up")
_17 = ('iptables:1', ('host',), ('NFT_MSG_GETGEN', 'NFT_MSG_GETTABLE', 'NFT_MSG_GETCHAIN', 'NFT_MSG_GETRULE', 'NFT_MSG_GETSET', 'NFT_MSG_GETSETELEM', 'NFT_MSG_GETOBJ', 'NFT_MSG_GETFLOWTABLE'), (), (), (), ('table', 'chain', 'name', 'set', 'handle', 'type'), (), (), (), (), (), 'reads the ruleset before changing it')
_18 = ('iptables:2', ('host',), ('NFNL_MSG_COMPAT_GET',), (), (), (), ('name', 'rev', 'type'), (), (), (), (), (), 'asks which revisions of matches and targets the kernel has')
_19 = ('iptables:3', ('host',), ('NFNL_MSG_BATCH_BEGIN', 'NFNL_MSG_BATCH_END'), (), (), (), ('genid',), (), (), (), (), (), 'begins and ends a transaction; what stands in between is judged by itself')
_20 = ('iptables:4', ('host',), ('RTM_GETADDR',), (), (), (), (), (), (), (), (), (), 'the C library lists addresses when it translates one of a rule')
_21 = ('masquerade:1', ('host',), ('NFT_MSG_NEWTABLE',), (), (), (), ('name',), ('ip nat', 'ip6 nat'), (), (), (), (), 'has the tables that iptables keeps its rules in')
_22 = ('masquerade:2', ('host',), ('NFT_MSG_NEWCHAIN',), (), (), (), ('table', 'name', 'type', 'hook.hooknum', 'hook.priority', 'policy'), ('ip nat', 'ip6 nat'), ('POSTROUTING',), (), ('nat postrouting',), (), 'has the chain that the kernel enters, as iptables makes it when it is not there')
_23 = ('masquerade:3', ('host',), ('NFT_MSG_NEWCHAIN', 'NFT_MSG_DELCHAIN'), (), (), (), ('table', 'name', 'handle', 'use'), ('ip nat', 'ip6 nat'), ('CNI-????????????????????????',), (), (), (), "keeps the attachment's own chain")
_24 = ('masquerade:4', ('host',), ('NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'handle', 'position', 'compat.*', 'expressions.**', 'userdata'), ('ip nat', 'ip6 nat'), ('CNI-????????????????????????',), ('CNI-????????????????????????',), (), (), "rules of the attachment's own chain, and the jump to it")
_25 = ('masquerade:5', ('host',), ('NFT_MSG_NEWTABLE', 'NFT_MSG_NEWCHAIN', 'NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'name', 'flags', 'type', 'hook.hooknum', 'hook.priority', 'policy', 'handle', 'position', 'expressions.**', 'userdata', 'id', 'position_id'), ('inet cni_plugins_masquerade',), ('*',), (), ('nat postrouting',), (), "ipMasqBackend nftables: the plugins' own table")
_26 = ('bridge:1', ('host',), ('RTM_NEWLINK',), ('netconf:bridge',), ('bridge',), (), ('ifname', 'mtu', 'txqlen', 'linkinfo.kind', 'linkinfo.data.vlan_filtering', 'linkinfo.data.vlan_default_pvid'), (), (), (), (), (), 'creates the bridge when there is none')
_27 = ('bridge:2', ('host',), ('RTM_GETLINK',), ('netconf:bridge',), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), 'finds the bridge')
_28 = ('bridge:3', ('host',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('netconf:bridge',), (), (), ('address',), (), (), (), (), (), 'sets the bridge up, makes it promiscuous, and pins its hardware address so that it does not change with the ports')
_29 = ('bridge:4', ('host',), ('RTM_GETADDR',), (), (), (), (), (), (), (), (), (), 'looks which addresses the bridge has')
_30 = ('bridge:5', ('host',), ('RTM_NEWADDR', 'RTM_DELADDR'), ('netconf:bridge',), (), (), ('local', 'address', 'broadcast', 'label', 'flags'), (), (), (), (), (), "isGateway, forceAddress: gives the bridge the gateway's address")
_31 = ('bridge:6', ('host',), ('RTM_SETLINK',), ('peer',), (), ('netconf:bridge',), ('master',), (), (), (), (), (), "makes the host's end of the pair a port of the bridge")
_32 = ('bridge:7', ('host',), ('RTM_SETLINK',), ('peer',), (), (), ('protinfo.hairpin', 'protinfo.isolated'), (), (), (), (), (), 'hairpinMode, portIsolation')
_33 = ('bridge:8', ('host',), ('RTM_SETLINK', 'RTM_DELLINK'), ('peer',), (), (), ('af_spec.flags', 'af_spec.vlan_info', 'af_spec.vlan_info.*'), (), (), (), (), (), 'vlan, vlanTrunk: the VLANs of the port')
_34 = ('bridge:9', ('host',), ('RTM_GETLINK',), (), (), (), ('ext_mask',), (), (), (), (), (), 'vlan: lists the VLANs of all ports, to take the default one off')
_35 = ('bridge:10', ('host',), ('NFT_MSG_NEWTABLE', 'NFT_MSG_NEWCHAIN'), (), (), (), ('table', 'name', 'flags', 'type', 'hook.hooknum', 'hook.priority', 'policy'), ('bridge nat',), ('PREROUTING',), (), ('filter prerouting',), (), 'macspoofchk: has the table and the chain that the kernel enters')
_36 = ('bridge:11', ('host',), ('NFT_MSG_NEWCHAIN', 'NFT_MSG_DELCHAIN', 'NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'name', 'handle', 'position', 'expressions.**', 'userdata', 'id', 'position_id'), ('bridge nat',), ('cni-br-iface-*',), ('cni-br-iface-*',), (), ('drop',), "macspoofchk: keeps the attachment's chains, and the jump to them")
_37 = ('interface:sysctl:1', ('container',), 'net/ipv4/conf/{attachment}/arp_notify', 'write', 'has the kernel announce the address when the interface comes up')
_38 = ('interface:sysctl:2', ('container',), 'net/ipv6/conf/{attachment}/ndisc_notify', 'write', 'has the kernel announce the address when the interface comes up')
_39 = ('interface:sysctl:3', ('container',), 'net/ipv6/conf/{attachment}/disable_ipv6', 'write', 'turns IPv6 on, when there is an address of it')
_40 = ('interface:sysctl:4', ('container',), 'net/ipv6/conf/{lo}/disable_ipv6', 'write', 'turns IPv6 on, when there is an address of it')
_41 = ('interface:sysctl:5', ('container',), 'net/ipv6/conf/{attachment}/keep_addr_on_down', 'write', 'keeps the addresses when the interface goes down')
_42 = ('interface:sysctl:6', ('container',), 'net/ipv6/conf/{attachment}/accept_dad', 'write', 'does without duplicate address detection, or with it')
_43 = ('interface:sysctl:7', ('container',), 'net/ipv6/conf/{attachment}/enhanced_dad', 'write', 'recognises its own packets in duplicate address detection')
_44 = ('veth:sysctl:1', ('host',), 'net/ipv6/conf/{peer}/accept_ra', 'write', 'lets no router in the container configure the host')
_45 = ('veth:sysctl:2', ('host',), 'net/ipv4/ip_forward', 'write', 'has the host forward packets of the container')
_46 = ('veth:sysctl:3', ('host',), 'net/ipv6/conf/all/forwarding', 'write', 'has the host forward packets of the container')
_47 = ('bridge:sysctl:1', ('host',), 'net/ipv6/conf/{netconf:bridge}/accept_ra', 'write', 'lets no router in a container configure the host')
_48 = ('dummy:1', ('host',), ('RTM_NEWLINK',), ('attachment',), ('dummy',), (), ('ifname', 'mtu', 'txqlen', 'address', 'net_ns_fd', 'linkinfo.kind', 'linkinfo.data'), (), (), (), (), (), 'creates the interface in the container')
_49 = ('firewall:1', ('host',), ('NFT_MSG_NEWTABLE',), (), (), (), ('name',), ('ip filter', 'ip6 filter'), (), (), (), (), 'has the tables that iptables keeps its rules in')
_50 = ('firewall:2', ('host',), ('NFT_MSG_NEWCHAIN',), (), (), (), ('table', 'name', 'type', 'hook.hooknum', 'hook.priority', 'policy'), ('ip filter', 'ip6 filter'), ('INPUT', 'FORWARD', 'OUTPUT'), (), ('filter input', 'filter forward', 'filter output'), (), 'has the chains that the kernel enters, as iptables makes them when they are not there')
_51 = ('firewall:3', ('host',), ('NFT_MSG_NEWCHAIN',), (), (), (), ('table', 'name'), ('ip filter', 'ip6 filter'), ('CNI-*',), (), (), (), 'makes the chains of the plugins, which stay: CNI-FORWARD, CNI-ADMIN, CNI-ISOLATION-STAGE-1 and -2')
_52 = ('firewall:4', ('host',), ('NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'handle', 'position', 'compat.*', 'expressions.**', 'userdata'), ('ip filter', 'ip6 filter'), ('CNI-*',), ('CNI-*',), (), ('drop',), 'rules of these chains, and the jumps to them')
_53 = ('CAP_NET_ADMIN', 'configures networks itself; there are no permits by which a monitor could do it instead')
_54 = ('device', '')
_55 = ('host-device:1', ('host',), ('RTM_GETLINK',), ('netconf:device',), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), "lists the host's links and finds the device")
_56 = ('host-device:2', ('host',), ('RTM_GETLINK',), (), (), (), ('ext_mask',), (), (), (), (), (), "lists the host's links")
_57 = ('host-device:3', ('host',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('netconf:device',), (), (), ('net_ns_fd',), (), (), (), (), (), 'sets the device down, and moves it into the container')
_58 = ('host-device:4', ('container',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('netconf:device', 'attachment'), (), (), ('ifname', 'ifalias', 'net_ns_fd'), (), (), (), (), (), 'names it as the container knows it, with its old name as the alias; DEL: the reverse, and back to the host')
_59 = ('master', '@default-route')
_60 = ('stacked:1', ('host',), ('RTM_GETLINK',), ('netconf:master',), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), "finds the link to stand on, which is the default route's if the netconf names none")
_61 = ('stacked:2', ('host',), ('RTM_GETROUTE',), (), (), (), (), (), (), (), (), (), 'looks for the default route')
_62 = ('stacked:3', ('host', 'container'), ('RTM_GETLINK',), ('created', 'name:veth????????'), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), 'looks whether the temporary name is still there')
_63 = ('stacked:4', ('container',), ('RTM_SETLINK',), ('created',), (), (), ('ifname',), (), (), (), (), (), 'gives it the name that the container knows it by')
_64 = ('stacked:5', ('container',), ('RTM_DELLINK',), ('created',), (), (), (), (), (), (), (), (), 'takes it away when the rest fails')
_65 = ('ipvlan:1', ('host',), ('RTM_NEWLINK',), ('name:veth????????',), ('ipvlan',), ('netconf:master',), ('link', 'ifname', 'mtu', 'txqlen', 'net_ns_fd', 'linkinfo.kind', 'linkinfo.data.mode', 'linkinfo.data.flags'), (), (), (), (), (), 'creates it on the link that the netconf names, in the container')
_66 = ('loopback:1', ('container',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('loopback',), (), (), (), (), (), (), (), (), 'sets lo up, and down again')
_67 = ('macvlan:1', ('host',), ('RTM_NEWLINK',), ('name:veth????????',), ('macvlan',), ('netconf:master',), ('link', 'ifname', 'mtu', 'txqlen', 'address', 'net_ns_fd', 'linkinfo.kind', 'linkinfo.data.mode', 'linkinfo.data.bc_queue_len'), (), (), (), (), (), 'creates it on the link that the netconf names, in the container')
_68 = ('prevResult.interfaces.name', '')
_69 = ('portmap:1', ('host',), ('NFT_MSG_NEWTABLE',), (), (), (), ('name',), ('ip nat', 'ip6 nat'), (), (), (), (), 'has the tables that iptables keeps its rules in')
_70 = ('portmap:2', ('host',), ('NFT_MSG_NEWCHAIN',), (), (), (), ('table', 'name', 'type', 'hook.hooknum', 'hook.priority', 'policy'), ('ip nat', 'ip6 nat'), ('PREROUTING', 'INPUT', 'OUTPUT', 'POSTROUTING'), (), ('nat prerouting', 'nat input', 'nat output', 'nat postrouting'), (), 'has the chains that the kernel enters, as iptables makes them when they are not there')
_71 = ('portmap:3', ('host',), ('NFT_MSG_NEWCHAIN', 'NFT_MSG_DELCHAIN'), (), (), (), ('table', 'name', 'handle', 'use'), ('ip nat', 'ip6 nat'), ('CNI-HOSTPORT-*', 'CNI-DN-*', 'CNI-SN-*'), (), (), (), 'keeps the chains of port mappings')
_72 = ('portmap:4', ('host',), ('NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'handle', 'position', 'compat.*', 'expressions.**', 'userdata'), ('ip nat', 'ip6 nat'), ('CNI-HOSTPORT-*', 'CNI-DN-*', 'CNI-SN-*'), ('CNI-HOSTPORT-*', 'CNI-DN-*', 'CNI-SN-*'), (), (), 'rules of these chains, and the jumps to them')
_73 = ('portmap:5', ('host',), ('NFT_MSG_NEWTABLE', 'NFT_MSG_NEWCHAIN', 'NFT_MSG_NEWRULE', 'NFT_MSG_DELRULE'), (), (), (), ('table', 'chain', 'name', 'flags', 'type', 'hook.hooknum', 'hook.priority', 'policy', 'handle', 'position', 'expressions.**', 'userdata', 'id', 'position_id'), ('ip cni_hostport', 'ip6 cni_hostport'), ('*',), (), ('nat prerouting', 'nat output', 'nat postrouting'), (), "backend nftables: the plugins' own table")
_74 = ('portmap:6', ('host',), ('RTM_GETROUTE',), (), (), (), ('dst', 'src', 'table'), (), (), (), (), (), 'snat: asks which link leads to the container')
_75 = ('portmap:7', ('host',), ('RTM_GETLINK',), ('any',), (), (), ('ifname', 'ext_mask'), (), (), (), (), (), 'snat: asks for the name of that link, whichever it is')
_76 = ('portmap:8', ('host',), ('IPCTNL_MSG_CT_GET',), (), (), (), (), (), (), (), (), (), 'finds stale connections of the UDP ports, which would go to the container that had them before')
_77 = ('portmap:9', ('host',), ('IPCTNL_MSG_CT_DELETE',), (), (), (), ('tuple_orig.**', 'tuple_reply.**', 'tuple_master.**', 'status', 'protoinfo.**', 'help.*', 'timeout', 'mark', 'secmark', 'secctx.*', 'counters_orig.*', 'counters_reply.*', 'use', 'id', 'zone', 'timestamp.*', 'labels', 'seq_adj_orig.*', 'seq_adj_reply.*', 'synproxy.*'), (), (), (), (), (), 'ends these connections')
_78 = ('portmap:sysctl:1', ('host',), 'net/ipv4/conf/{peer}/route_localnet', 'write', 'snat: lets 127.0.0.1 of the host reach the container')
_79 = ('portmap:sysctl:2', ('host',), 'net/ipv4/conf/{netconf:prevResult.interfaces.name}/route_localnet', 'write', 'snat: lets 127.0.0.1 of the host reach the container, over the bridge that the plugin before has named')
_80 = ('ptp:1', ('host',), ('RTM_NEWADDR',), ('peer',), (), (), ('local', 'address', 'broadcast', 'label', 'flags'), (), (), (), (), (), "gives the host's end the gateway's address")
_81 = ('ptp:2', ('host',), ('RTM_NEWROUTE',), ('peer',), (), (), ('dst', 'oif', 'table'), (), (), (), (), (), "routes the container's addresses to it")
_82 = ('sbr:1', ('container',), ('RTM_NEWRULE', 'RTM_DELRULE'), (), (), (), ('src', 'table', 'priority'), (), (), (), (), (), 'has packets from an address looked up in a table of its own')
_83 = ('sbr:2', ('container',), ('RTM_NEWROUTE', 'RTM_DELROUTE'), ('attachment',), (), (), ('dst', 'src', 'gateway', 'oif', 'prefsrc', 'priority', 'table', 'metrics.*', 'pref', 'cacheinfo'), (), (), (), (), (), 'moves the routes of the interface into these tables')
_84 = ('CAP_NET_ADMIN', 'makes the tap device by an ioctl, and configures it')
_85 = ('tuning:1', ('container',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('attachment',), (), (), ('address', 'mtu', 'txqlen'), (), (), (), (), (), 'promisc, allmulti, mac, mtu, txQLen of the interface')
_86 = ('tuning:sysctl:1', ('container',), 'net/*/*', 'write', 'settings of the container, such as net.core.somaxconn')
_87 = ('tuning:sysctl:2', ('container',), 'net/*/*/*', 'write', 'settings of the container, such as net.ipv4.route.min_adv_mss')
_88 = ('tuning:sysctl:3', ('container',), 'net/*/*/*/*', 'write', "settings of the container's links, such as net.ipv4.conf.eth0.arp_filter")
_89 = ('master', '')
_90 = ('vlan:1', ('host',), ('RTM_NEWLINK',), ('name:veth????????',), ('vlan',), ('netconf:master',), ('link', 'ifname', 'mtu', 'txqlen', 'net_ns_fd', 'linkinfo.kind', 'linkinfo.data.id', 'linkinfo.data.protocol'), (), (), (), (), (), 'creates it on the link that the netconf names, in the container')
_91 = ('vrfname', '')
_92 = ('vrf:1', ('container',), ('RTM_NEWLINK',), ('netconf:vrfname',), ('vrf',), (), ('ifname', 'mtu', 'txqlen', 'linkinfo.kind', 'linkinfo.data.table'), (), (), (), (), (), 'creates the VRF when there is none')
_93 = ('vrf:2', ('container',), ('RTM_NEWLINK', 'RTM_SETLINK'), ('netconf:vrfname',), (), (), (), (), (), (), (), (), 'sets the VRF up')
_94 = ('vrf:3', ('container',), ('RTM_DELLINK',), ('netconf:vrfname',), (), (), (), (), (), (), (), (), 'DEL takes the VRF away with its last port')
_95 = ('vrf:4', ('container',), ('RTM_SETLINK',), ('attachment',), (), ('netconf:vrfname',), ('master',), (), (), (), (), (), 'puts the interface into the VRF, and out of it')
_96 = ('vrf:5', ('container',), ('RTM_NEWADDR',), ('attachment',), (), (), ('local', 'address', 'broadcast', 'label', 'flags', 'cacheinfo'), (), (), (), (), (), 'adds addresses again that the kernel took away with the change')
_97 = ('vrf:6', ('container',), ('RTM_NEWROUTE',), ('attachment',), (), (), ('dst', 'src', 'gateway', 'oif', 'prefsrc', 'priority', 'table', 'metrics.*', 'pref'), (), (), (), (), (), 'adds routes again, in the table of the VRF')

PROFILES: dict[str, Any] = {
    'bandwidth': (
        'bandwidth',
        'Limits how much the container sends and receives',
        'package',
        'mediated',
        (),
        (_0, _1, _2, _3, _4, _5, _6, _7, _8,),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'bridge': (
        'bridge',
        'Connects the container to a bridge of the host by a veth pair',
        'package',
        'mediated',
        (_9,),
        (_0, _1, _10, _11, _12, _13, _14, _15, _16, _17, _18, _19, _20, _21, _22, _23, _24, _25, _26, _27, _28, _29, _30, _31, _32, _33, _34, _35, _36,),
        (_37, _38, _39, _40, _41, _42, _43, _44, _45, _46, _47,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf', '/etc/alternatives', '/etc/protocols', '/etc/services', '/etc/ethertypes', '/etc/iproute2', '/etc/gai.conf', '/etc/nsswitch.conf', '/etc/hosts', '/etc/xtables', '/etc/nftables'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp', '/usr/sbin/iptables*', '/usr/sbin/ip6tables*', '/usr/sbin/xtables-*', '/usr/sbin/nft', '/sbin/iptables*', '/sbin/ip6tables*', '/sbin/nft', '/usr/bin/nft'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'dhcp': (
        'dhcp',
        'Has the DHCP daemon get an address',
        'package',
        'mediated',
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        300.0,
    ),
    'dummy': (
        'dummy',
        'Gives the container an interface that leads nowhere',
        'package',
        'mediated',
        (),
        (_0, _1, _10, _11, _12, _13, _48,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'firewall': (
        'firewall',
        "Lets packets of the container pass the host's firewall",
        'package',
        'mediated',
        (),
        (_17, _18, _19, _20, _49, _50, _51, _52,),
        (),
        ('/etc/alternatives', '/etc/protocols', '/etc/services', '/etc/ethertypes', '/etc/iproute2', '/etc/gai.conf', '/etc/nsswitch.conf', '/etc/hosts', '/etc/xtables', '/etc/nftables'),
        (),
        (),
        ('/usr/sbin/iptables*', '/usr/sbin/ip6tables*', '/usr/sbin/xtables-*', '/usr/sbin/nft', '/sbin/iptables*', '/sbin/ip6tables*', '/sbin/nft', '/usr/bin/nft'),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'generic': (
        'generic',
        'A plugin that nobody has written a profile for',
        'package',
        'hardened',
        (),
        (),
        (),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf', '/etc/alternatives', '/etc/protocols', '/etc/services', '/etc/ethertypes', '/etc/iproute2', '/etc/nsswitch.conf', '/etc/hosts', '/etc/cni'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp', 'cni:*', '/usr/sbin/*', '/usr/bin/*', '/sbin/*', '/bin/*'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (_53,),
        120.0,
    ),
    'host-device': (
        'host-device',
        'Moves a link of the host into the container',
        'package',
        'mediated',
        (_54,),
        (_0, _1, _10, _11, _12, _13, _55, _56, _57, _58,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'host-local': (
        'host-local',
        'Allocates addresses out of ranges, and keeps the reservations in files',
        'package',
        'mediated',
        (),
        (),
        (),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'ipvlan': (
        'ipvlan',
        'Gives the container IP addresses on a link of the host',
        'package',
        'mediated',
        (_59,),
        (_0, _1, _10, _11, _12, _13, _60, _61, _62, _63, _64, _65,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'loopback': (
        'loopback',
        "Sets the container's loopback link up",
        'package',
        'mediated',
        (),
        (_0, _1, _66,),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'macvlan': (
        'macvlan',
        'Gives the container a MAC address of its own on a link of the host',
        'package',
        'mediated',
        (_59,),
        (_0, _1, _10, _11, _12, _13, _60, _61, _62, _63, _64, _67,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'portmap': (
        'portmap',
        'Forwards ports of the host to the container',
        'package',
        'mediated',
        (_68,),
        (_17, _18, _19, _20, _69, _70, _71, _72, _73, _74, _75, _76, _77,),
        (_78, _79,),
        ('/etc/alternatives', '/etc/protocols', '/etc/services', '/etc/ethertypes', '/etc/iproute2', '/etc/gai.conf', '/etc/nsswitch.conf', '/etc/hosts', '/etc/xtables', '/etc/nftables'),
        (),
        (),
        ('/usr/sbin/iptables*', '/usr/sbin/ip6tables*', '/usr/sbin/xtables-*', '/usr/sbin/nft', '/sbin/iptables*', '/sbin/ip6tables*', '/sbin/nft', '/usr/bin/nft'),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'ptp': (
        'ptp',
        'Connects the container to the host by a veth pair and routes',
        'package',
        'mediated',
        (),
        (_0, _1, _10, _11, _12, _13, _14, _15, _16, _17, _18, _19, _20, _21, _22, _23, _24, _25, _80, _81,),
        (_37, _38, _39, _40, _41, _42, _43, _44, _45, _46,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf', '/etc/alternatives', '/etc/protocols', '/etc/services', '/etc/ethertypes', '/etc/iproute2', '/etc/gai.conf', '/etc/nsswitch.conf', '/etc/hosts', '/etc/xtables', '/etc/nftables'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp', '/usr/sbin/iptables*', '/usr/sbin/ip6tables*', '/usr/sbin/xtables-*', '/usr/sbin/nft', '/sbin/iptables*', '/sbin/ip6tables*', '/sbin/nft', '/usr/bin/nft'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'sbr': (
        'sbr',
        'Routes what the container sends by the address it sends from',
        'package',
        'mediated',
        (),
        (_0, _1, _82, _83,),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'static': (
        'static',
        'Returns the addresses that the netconf names',
        'package',
        'mediated',
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'tap': (
        'tap',
        'Gives the container a tap device',
        'package',
        'hardened',
        (),
        (_0, _1, _10, _11, _12, _13,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp', '/usr/sbin/ip', '/usr/bin/ip', '/sbin/ip'),
        (),
        ('/dev/net/tun',),
        ('/run/cni/dhcp.sock',),
        (_84,),
        120.0,
    ),
    'tuning': (
        'tuning',
        "Changes settings of the container's network and of its interface",
        'package',
        'mediated',
        (),
        (_0, _1, _85,),
        (_86, _87, _88,),
        ('/etc/cni/tuning',),
        (),
        ('/run/cni/tuning',),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
    'vlan': (
        'vlan',
        'Gives the container a VLAN of a link of the host',
        'package',
        'mediated',
        (_89,),
        (_0, _1, _10, _11, _12, _13, _60, _61, _62, _63, _64, _90,),
        (_37, _38, _39, _40, _41, _42, _43,),
        ('/etc/resolv.conf', '/run/systemd/resolve', '/run/resolvconf'),
        (),
        ('/var/lib/cni/networks',),
        ('cni:host-local', 'cni:static', 'cni:dhcp'),
        (),
        (),
        ('/run/cni/dhcp.sock',),
        (),
        120.0,
    ),
    'vrf': (
        'vrf',
        "Puts the container's interface into a VRF",
        'package',
        'mediated',
        (_91,),
        (_0, _1, _92, _93, _94, _95, _96, _97,),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        120.0,
    ),
}

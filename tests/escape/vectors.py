"""The escape matrix: what somebody tries who owns a process of ours, and what must come of it at each level.

`python -m tests.escape.vectors` prints it as the table that docs/security-model.md has.

Ids b, c and d are those of the literature on this design (netlink, descriptors, kernel surface); the others are ours:
a what was always refused, f files, k the process's own confinement, m machine code, p processes, s sockets; and by who is
attacked: e the engine, g the delegate worker, h the host worker, l the library's sandbox. Where no letter says
otherwise the attacked process is the container worker.
"""

# ruff: noqa: E501 - one row, one line: it is a table

import errno
import signal
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from cnisandbox.boundary.levels import Level
from cnisandbox.laboratory.arena import (
    ATTEMPTS,
    CONTAINER_WORKER,
    DELEGATE_WORKER,
    ENGINE,
    HOST_WORKER,
    LIBRARY,
    Arena,
    Outcome,
)
from cnisandbox.laboratory.attacker import files, kernel, network, processes
from cnisandbox.laboratory.attacker.knowledge import Facts, Said

WORKS = Outcome(True, 0, 0)
NO_EFFECT = Outcome(False, 0, 0)
KILLED = Outcome(False, 0, signal.SIGSYS)


def refused(number: int) -> Outcome:
    """The kernel, or the filter, answered with this errno, and nothing happened outside."""
    return Outcome(False, number, 0)


EPERM, EACCES, ENOENT, ESRCH, EBADF = map(
    refused, (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ESRCH, errno.EBADF)
)
ENOTTY, ENOSYS, EROFS, EXDEV, ESTALE, EFBIG = map(
    refused, (errno.ENOTTY, errno.ENOSYS, errno.EROFS, errno.EXDEV, errno.ESTALE, errno.EFBIG)
)

# The levels of workers that hold the capability. At mediated no process has both it and code of a plugin: what an attack
# comes to there is in test_gate.py for our own plugins, and in test_foreign_plugin.py for those of others.
LEVELS = (Level.ROOT, Level.NETADMIN, Level.HARDENED)


class Vector(NamedTuple):
    """One row.

    Attributes:
        id: Letter and number.
        name: The test's name.
        tries: What the attacker wants, for the document.
        attempt: What he does, in the attacked process.
        judge: Whether he has got it, seen from outside.
        netadmin, hardened: What must come of it.
        reason: Why it is not contained at hardened; empty where it is.
        root: What must come of it as plugins run today: it works, or the attempt proves nothing.
        subject: Whom he owns.
        scene: Prepares the host.
        needs: What the kernel must have for it, as tests/world.py names it; empty for nothing.
    """

    id: str
    name: str
    tries: str
    attempt: Callable[[Facts], Said | None]
    judge: Callable[[Arena], bool]
    netadmin: Outcome
    hardened: Outcome
    reason: str = ""
    root: Outcome = WORKS
    subject: str = CONTAINER_WORKER
    scene: Callable[[Arena], None] | None = None
    needs: str = ""

    def expected(self, level: Level) -> Outcome:
        """What must come of it at a level."""
        return {Level.ROOT: self.root, Level.NETADMIN: self.netadmin, Level.HARDENED: self.hardened}[level]

    @property
    def is_contained(self) -> bool:
        """Whether it fails at the level that plugins run at."""
        return not self.hardened.has_effect


_NSID = "CAP_NET_ADMIN belongs to a user namespace; no filter reads the content of a message (level mediated will)"
_HOST = "it is the host worker's task; the engine asks it for declared functions only"

# The kernel does not know the kind, whoever asks; what counts is that it asked for a module of that name.
_MODULE = Outcome(True, errno.EOPNOTSUPP, 0)

_n, _p, _f, _k = network, processes, files, kernel

VECTORS = (
    Vector("a01", "enter-host-netns-by-proc", "setns() to /proc/PID/ns/net", _n.setns_by_proc, _n.has_entered_host_netns, EACCES, ENOENT),
    Vector("a02", "open-packet-socket", "AF_PACKET socket", _n.packet_socket, _n.holds_socket, EPERM, EPERM),
    Vector("a03", "open-raw-ip-socket", "raw IP socket", _n.raw_ip_socket, _n.holds_socket, EPERM, EPERM),
    Vector("a04", "mount", "mount a tmpfs", _k.mount_tmpfs, _k.has_mounted, EPERM, EPERM),
    Vector("a05", "kill-process-of-root", "SIGKILL to a process of root", _p.kill_bystander, _p.bystander_is_gone, EPERM, EPERM),
    Vector("a06", "read-shadow", "read /etc/shadow", _f.read_shadow, _f.said_shadow, EACCES, ENOENT),
    Vector("b01", "veth-peer-into-host-by-pid", "make a veth whose peer is in the host, IFLA_NET_NS_PID", _n.veth_peer_by_pid, _n.host_has_new_link, WORKS, ESRCH),
    Vector("b02", "move-eth0-to-host-by-pid-1", "move eth0 into the host, IFLA_NET_NS_PID=1", _n.move_eth0_to_pid_1, _n.eth0_is_in_host, WORKS, NO_EFFECT),
    Vector("b03", "name-other-container-by-pid", "RTM_NEWNSID for another container by a pid", _n.name_victim_by_pid, _n.victim_has_nsid, WORKS, ESRCH),
    Vector("b05", "read-host-nsid", "read the host's nsid beside eth0", _n.read_host_nsid, _n.said_host_nsid, WORKS, WORKS, _NSID),
    Vector("b06", "list-host-links-by-nsid", "list the host's links", _n.list_host_links, _n.said_hidden_link, WORKS, WORKS, _NSID),
    Vector("b07", "delete-host-link-by-nsid", "delete a link of the host", _n.delete_host_link, _n.host_bridge_is_gone, WORKS, WORKS, _NSID),
    Vector("b08", "create-host-bridge-by-nsid", "create a bridge in the host, IFLA_TARGET_NETNSID", _n.create_host_bridge, _n.host_has_new_link, WORKS, WORKS, _NSID),
    Vector("b09", "macvlan-on-host-uplink-by-nsid", "stack a macvlan on the host's uplink, IFLA_LINK_NETNSID", _n.macvlan_on_host_uplink, _n.container_has_macvlan_on_uplink, WORKS, WORKS, _NSID),
    Vector("b10", "hear-every-netns", "hear of changes in every netns, NETLINK_LISTEN_ALL_NSID", _n.hear_every_netns, _n.said_new_host_link, EPERM, EPERM),
    Vector("b11", "list-host-addresses-by-nsid", "list the host's addresses", _n.list_host_addresses, _n.said_host_address, WORKS, WORKS, _NSID, scene=_n.give_host_an_address),
    Vector("b12", "move-eth0-to-host-by-nsid", "move eth0 into the host", _n.move_eth0_to_host_nsid, _n.eth0_is_in_host, WORKS, WORKS, _NSID),
    Vector("c02", "enter-host-netns-by-descriptor", "setns() to a descriptor left open", _n.setns_by_kept_descriptor, _n.has_entered_host_netns, EBADF, EPERM),
    Vector("c03", "veth-peer-into-host-by-descriptor", "the same descriptor as IFLA_NET_NS_FD", _n.veth_peer_by_kept_descriptor, _n.host_has_new_link, EBADF, EBADF),
    Vector("c04", "ask-channel-for-netns", "ask each descriptor for its netns, SIOCGSKNS", _n.ask_descriptors_for_netns, _n.holds_host_netns, ENOTTY, EPERM),
    Vector("c05", "veth-peer-into-host-by-socket", "what SIOCGSKNS gave as IFLA_NET_NS_FD", _n.veth_peer_by_socket, _n.host_has_new_link, ENOTTY, EPERM),
    Vector("c06", "use-host-netlink-socket", "delete a host link through a netlink socket left open", _n.delete_by_kept_netlink_socket, _n.host_bridge_is_gone, EBADF, EBADF),
    Vector("c07", "veth-peer-into-other-container-by-path", "open another /run/netns/NAME as IFLA_NET_NS_FD", _n.veth_peer_by_netns_path, _n.victim_has_new_link, WORKS, ENOENT),
    Vector("c08", "walk-up-from-left-directory", "FD/../secret from a directory left open", _n.walk_up_from_kept_directory, _n.said_secret, EBADF, EBADF),
    Vector("c09", "write-host-sysctl-by-descriptor", "write a sysctl of the host through a file left open", _n.write_kept_sysctl, _n.host_forwards, EBADF, EBADF),
    Vector("c10", "netns-of-pidfd", "PIDFD_GET_NET_NAMESPACE of a host process", _n.netns_of_pidfd, _n.host_has_new_link, EACCES, EPERM),
    Vector("c11", "take-descriptor-of-process", "pidfd_getfd() of a host process's netns", _n.take_descriptor_of_process, _n.host_has_new_link, EPERM, EPERM),
    Vector("c12", "netns-by-file-handle", "open_by_handle_at() of the host's netns", _n.netns_by_handle, _n.host_has_new_link, ESTALE, EPERM),
    Vector("d01", "write-core-pattern", "open core_pattern for writing", _p.open_core_pattern, _p.may_write_core_pattern, EACCES, ENOENT),
    Vector("d02", "load-bpf", "load a BPF program", _k.load_bpf, _p.holds_anonymous_inode, EPERM, EPERM),
    Vector("d03", "unshare-user-namespace", "unshare(CLONE_NEWUSER): every capability in a new one", _k.unshare_userns, _k.has_own_userns, WORKS, EPERM),
    Vector("d04", "make-nft-table", "nf_tables in the container's netns", _n.make_nft_table, _n.container_has_nft_table, WORKS, EPERM),
    Vector("d05", "clone-user-namespace", "clone(CLONE_NEWUSER)", _k.clone_userns, _k.child_has_own_userns, WORKS, EPERM),
    Vector("d06", "clone3-user-namespace", "clone3(CLONE_NEWUSER)", _k.clone3_userns, _k.child_has_own_userns, WORKS, EPERM),
    Vector("d07", "set-up-io-uring", "io_uring_setup()", _k.set_up_io_uring, _p.holds_anonymous_inode, WORKS, EPERM),
    Vector("d08", "make-userfaultfd", "userfaultfd()", _k.make_userfaultfd, _p.holds_anonymous_inode, WORKS, EPERM),
    Vector("d09", "open-perf-event", "perf_event_open() of itself", _k.open_perf_event, _p.holds_anonymous_inode, WORKS, EPERM),
    Vector("d10", "join-session-keyring", "keyctl(KEYCTL_JOIN_SESSION_KEYRING)", _k.join_session_keyring, _k.has_more_keys, WORKS, EPERM, scene=_k.count_keys),
    Vector("d11", "add-key", "add_key()", _k.add_key, _k.has_more_keys, WORKS, EPERM, scene=_k.count_keys),
    Vector("d12", "open-file-by-handle", "open_by_handle_at() of a file of root", _f.read_secret_by_handle, _f.said_secret, EPERM, EPERM),
    Vector("d13", "write-core-pattern-beside-sysctls", "/proc/sys/net/../kernel/core_pattern", _p.open_core_pattern_beside, _p.may_write_core_pattern, EACCES, ENOENT),
    Vector("d14", "load-module-by-link-kind", "have a module loaded by its name: RTM_NEWLINK of an unknown kind", _n.create_unknown_link_kind, _k.kernel_was_asked, _MODULE, _MODULE, "the kernel asks modprobe by itself; blacklist modules on the host", root=_MODULE, scene=partial(_k.count_module_requests, "rtnl-link-escapekind"), needs="modules"),
    Vector("d15", "attach-socket-filter", "SO_ATTACH_FILTER: code for the kernel's compiler", _n.attach_socket_filter, _n.socket_has_filter, WORKS, EPERM),
    Vector("f01", "write-open-directory", "write to a directory that is open to everybody", _f.write_open_directory, _f.open_directory_was_written, WORKS, ENOENT),
    Vector("f02", "write-directory-of-root", "write to a directory of root", _f.write_private_file, _f.private_file_was_written, EACCES, ENOENT),
    Vector("f03", "read-public-file", "read /etc/passwd", _f.read_public_file, _f.said_passwd, WORKS, ENOENT),
    Vector("f04", "read-environment-of-process", "read /proc/PID/environ of a process of root", _f.read_environment, _f.said_environment, EACCES, ENOENT),
    Vector("f05", "walk-up-from-root", "../../.. from the root directory", _f.walk_up_from_root, _f.said_secret, EACCES, ENOENT),
    Vector("k01", "become-root", "setresuid(0, 0, 0)", _p.become_root, _p.is_root, EPERM, EPERM),
    Vector("k02", "raise-capability", "capset() with CAP_SYS_ADMIN", _p.raise_capability, _p.has_sys_admin, EPERM, EPERM),
    Vector("k03", "keep-capabilities", "PR_SET_KEEPCAPS", _p.keep_capabilities, _p.has_capabilities_as_nobody, EPERM, EPERM),
    Vector("k04", "raise-ambient", "PR_CAP_AMBIENT_RAISE of CAP_NET_ADMIN", _p.raise_ambient, _p.has_ambient, EPERM, EPERM),
    Vector("k05", "become-dumpable", "PR_SET_DUMPABLE back to 1", _p.become_dumpable, _p.is_dumpable, WORKS, EPERM),
    Vector("k06", "raise-limit", "raise its own limit of descriptors", _p.raise_limit, _p.has_raised_limit, WORKS, EPERM, scene=_p.leave_room_below_limit),
    Vector("m01", "map-executable-memory", "mmap(PROT_EXEC)", _k.map_executable, _k.has_executable_page, WORKS, EPERM),
    Vector("m02", "make-memory-executable", "mprotect(PROT_EXEC)", _k.make_executable, _k.has_executable_page, WORKS, EPERM),
    Vector("m03", "call-32-bit", "a system call by its 32-bit number, int 0x80", _k.call_32_bit, _k.said_own_pid, WORKS, KILLED, scene=_k.load_machine_code),
    Vector("m04", "call-x32", "a system call by its x32 number", _k.call_x32, _k.said_own_pid, ENOSYS, KILLED, root=ENOSYS),
    Vector("p01", "ptrace-process-of-root", "ptrace() a process of root", _p.ptrace_bystander, _p.bystander_is_traced, EPERM, EPERM),
    Vector("p02", "ptrace-other-call", "ptrace() another process of the service user", _p.ptrace_neighbour, _p.neighbour_is_traced, EPERM, EPERM),
    Vector("p03", "read-memory", "process_vm_readv() of a process of root", _p.read_memory, _p.said_bystander_secret, EPERM, EPERM),
    Vector("p04", "read-memory-file", "/proc/PID/mem of a process of root", _p.read_memory_file, _p.said_bystander_secret, EACCES, ENOENT),
    Vector("p05", "kill-other-call", "SIGKILL to another process of the service user", _p.kill_neighbour, _p.neighbour_is_gone, WORKS, EPERM),
    Vector("p06", "tgkill-other-call", "the same with tgkill()", _p.tgkill_neighbour, _p.neighbour_is_gone, WORKS, EPERM),
    Vector("p07", "signal-other-call-through-pipe", "the same with F_SETOWN and F_SETSIG of a pipe", _p.signal_neighbour_through_pipe, _p.neighbour_is_gone_when_poked, WORKS, EPERM),
    Vector("p08", "fork", "fork()", _p.fork_child, _p.has_child, WORKS, EPERM),
    Vector("p09", "execute-program", "execve() of a shell", _p.execute_program, _p.program_was_executed, WORKS, EPERM),
    Vector("p10", "execute-set-uid-program", "execve() of a set-uid program of root", _p.execute_setuid_program, _p.root_touched_file, NO_EFFECT, EPERM, scene=_p.plant_setuid_program),
    Vector("p11", "outlive-the-call", "leave a process behind when the call ends", _p.fork_child, _p.child_outlives_worker, WORKS, EPERM),
    Vector("s01", "connect-tcp-to-host", "TCP connection to a service of the host", _n.connect_tcp, _n.listener_was_reached, WORKS, EPERM, scene=_n.listen_on_host),
    Vector("s02", "connect-abstract-socket", "abstract unix socket of a host process in the netns", _n.connect_abstract, _n.listener_was_reached, WORKS, EPERM, scene=_n.listen_on_abstract_name),
    Vector("s03", "make-socket-pair", "socketpair(AF_UNIX)", _n.unix_socket_pair, _n.holds_socket, WORKS, EPERM),
    Vector("s04", "open-generic-netlink-socket", "generic netlink", _n.generic_netlink_socket, _n.holds_socket, WORKS, EPERM),
    Vector("e01", "engine-opens-netlink-socket", "netlink socket of generic netlink", _n.generic_netlink_socket, _n.holds_socket, EPERM, EPERM, subject=ENGINE),
    Vector("e02", "engine-makes-socket-pair", "socketpair(AF_UNIX)", _n.unix_socket_pair, _n.holds_socket, EPERM, EPERM, subject=ENGINE),
    Vector("e03", "engine-deletes-host-link", "delete a link of the host", _n.delete_any_host_link, _n.host_bridge_is_gone, EPERM, EPERM, subject=ENGINE),
    Vector("e04", "engine-reads-public-file", "read /etc/passwd", _f.read_public_file, _f.said_passwd, ENOENT, ENOENT, subject=ENGINE),
    Vector("e05", "engine-walks-up-from-root", "../../.. from the root directory", _f.walk_up_from_root, _f.said_secret, ENOENT, ENOENT, subject=ENGINE),
    Vector("e06", "engine-walks-up-from-state", "../../.. from a state directory", _f.walk_up_from_state, _f.said_secret, ENOENT, ENOENT, subject=ENGINE),
    Vector("e07", "engine-walks-up-from-own-state", "the same where it owns the directory", _f.see_private_file_from_state, _f.said_mode_of_open_directory, ENOENT, ENOENT, subject=ENGINE, scene=_f.own_state_directory),
    Vector("e08", "engine-reads-through-link", "read through a symbolic link in a state directory", _f.read_through_link, _f.said_secret, ENOENT, ENOENT, subject=ENGINE, scene=_f.make_link_to_secret),
    Vector("e09", "engine-plants-link", "leave a symbolic link that a root-run reference plugin writes through", _f.plant_link, _f.reference_plugin_writes_outside, EPERM, EPERM, subject=ENGINE),
    Vector("e10", "engine-makes-set-uid-program", "fchmod(04755) of a program in a state directory, root's on disk", _f.make_setuid_by_descriptor, _f.host_has_setuid_program, EPERM, EPERM, subject=ENGINE),
    Vector("e11", "engine-makes-set-uid-file", "open(O_CREAT, 04755) in a state directory", _f.make_empty_setuid_file, _f.host_has_setuid_file, EPERM, EPERM, subject=ENGINE),
    Vector("e12", "engine-makes-device", "mknod() of /dev/mem in a state directory", _f.make_device, _f.state_has_device, EPERM, EPERM, subject=ENGINE),
    Vector("e13", "engine-gives-file-away", "fchown() in a state directory", _f.give_file_away, _f.state_has_file_of_nobody, EPERM, EPERM, subject=ENGINE),
    Vector("e14", "engine-executes-from-state", "execve() of a program in a state directory", _f.execute_from_state, _f.open_directory_was_written, EPERM, EPERM, subject=ENGINE),
    Vector("e15", "engine-erases-evidence", "ftruncate() of the file with the attestations", _f.erase_attestations, _f.evidence_is_gone, EPERM, EPERM, subject=ENGINE),
    Vector("e16", "engine-overwrites-evidence", "clear O_APPEND of it and overwrite", _f.overwrite_attestations, _f.evidence_is_gone, EPERM, EPERM, subject=ENGINE),
    Vector("e17", "engine-kills-other-call", "tgkill() another process of the service user", _p.tgkill_neighbour, _p.neighbour_is_gone, EPERM, EPERM, subject=ENGINE),
    Vector("e18", "engine-kills-other-call-through-pipe", "F_SETOWN and F_SETSIG", _p.signal_neighbour_through_pipe, _p.neighbour_is_gone_when_poked, EPERM, EPERM, subject=ENGINE),
    Vector("e19", "engine-forks", "fork()", _p.fork_child, _p.has_child, EPERM, EPERM, subject=ENGINE),
    Vector("e20", "engine-opens-state-to-everybody", "fchmod(0666) of a file in a state directory", _f.open_state_to_everybody, _f.state_is_open_to_everybody, EPERM, EPERM, subject=ENGINE),
    Vector("e21", "engine-writes-huge-file", "write a file of 17 MiB to a state directory", _f.write_huge_file, _f.state_has_huge_file, EFBIG, EFBIG, subject=ENGINE),
    Vector("e22", "engine-frees-address-of-other-container", "delete another container's reservation", _f.free_address, _f.address_is_free, WORKS, WORKS, "to reserve and free addresses is the engine's task", subject=ENGINE, scene=_f.reserve_address),
    Vector("g01", "delegate-opens-socket", "netlink socket", _n.generic_netlink_socket, _n.holds_socket, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g02", "delegate-reads-shadow", "read /etc/shadow", _f.read_shadow, _f.said_shadow, EACCES, EACCES, subject=DELEGATE_WORKER),
    Vector("g03", "delegate-reads-environment", "read /proc/PID/environ", _f.read_environment, _f.said_environment, EACCES, EACCES, subject=DELEGATE_WORKER),
    Vector("g04", "delegate-writes-open-directory", "write to a directory that is open to everybody", _f.write_open_directory, _f.open_directory_was_written, EROFS, EROFS, subject=DELEGATE_WORKER),
    Vector("g05", "delegate-replaces-plugin", "write to a directory of CNI_PATH", _f.replace_plugin, _f.plugin_was_replaced, EROFS, EROFS, subject=DELEGATE_WORKER),
    Vector("g06", "delegate-makes-set-uid-program", "fchmod(04755) in a state directory", _f.make_setuid_by_descriptor, _f.host_has_setuid_program, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g07", "delegate-makes-set-uid-program-by-fchmodat", "the same with fchmodat()", _f.make_setuid_by_path, _f.host_has_setuid_program, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g08", "delegate-makes-set-uid-program-by-chmod", "the same with chmod()", _f.make_setuid_by_chmod, _f.host_has_setuid_program, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g09", "delegate-makes-device", "mknod() in a state directory", _f.make_device, _f.state_has_device, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g10", "delegate-gives-file-away", "fchown() in a state directory", _f.give_file_away, _f.state_has_file_of_nobody, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g11", "delegate-executes-from-state", "execve() of a program in a state directory", _f.execute_from_state, _f.open_directory_was_written, EACCES, EACCES, subject=DELEGATE_WORKER),
    Vector("g12", "delegate-links-host-file", "hard link of a file of root in a state directory", _f.link_host_file_into_state, _f.file_has_two_names, EXDEV, EXDEV, subject=DELEGATE_WORKER, scene=_f.make_linkable_file),
    Vector("g13", "delegate-kills-other-call", "SIGKILL to another process of the service user", _p.kill_neighbour, _p.neighbour_is_gone, ESRCH, ESRCH, subject=DELEGATE_WORKER),
    Vector("g14", "delegate-ptraces", "ptrace() another process", _p.ptrace_neighbour, _p.neighbour_is_traced, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g15", "delegate-clones-user-namespace", "clone(CLONE_NEWUSER)", _k.clone_userns, _k.child_has_own_userns, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g16", "delegate-clones3-user-namespace", "clone3(CLONE_NEWUSER)", _k.clone3_userns, _k.child_has_own_userns, ENOSYS, ENOSYS, subject=DELEGATE_WORKER),
    Vector("g17", "delegate-executes-set-uid-program", "execve() of a set-uid program of root", _p.execute_setuid_program, _p.root_touched_file, NO_EFFECT, NO_EFFECT, subject=DELEGATE_WORKER, scene=_p.plant_setuid_program),
    Vector("g18", "delegate-mounts", "mount a tmpfs", _k.mount_tmpfs, _k.has_mounted, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g19", "delegate-plants-link", "leave a symbolic link that a root-run reference plugin writes through", _f.plant_link, _f.reference_plugin_writes_outside, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g20", "delegate-plants-link-by-path", "the same with symlink()", _f.plant_link_by_path, _f.reference_plugin_writes_outside, EPERM, EPERM, subject=DELEGATE_WORKER),
    Vector("g21", "delegate-outlives-the-call", "leave a process behind when the call ends", _p.fork_child, _p.child_outlives_worker, NO_EFFECT, NO_EFFECT, subject=DELEGATE_WORKER),
    Vector("h01", "host-worker-deletes-host-link", "delete any link of the host", _n.delete_any_host_link, _n.host_bridge_is_gone, WORKS, WORKS, _HOST, subject=HOST_WORKER),
    Vector("h02", "host-worker-deletes-container-link", "delete a container's link by its nsid", _n.delete_container_link_by_nsid, _n.container_has_no_eth0, WORKS, WORKS, _NSID, subject=HOST_WORKER),
    Vector("h03", "host-worker-reads-public-file", "read /etc/passwd", _f.read_public_file, _f.said_passwd, WORKS, ENOENT, subject=HOST_WORKER),
    Vector("h04", "host-worker-opens-packet-socket", "AF_PACKET socket", _n.packet_socket, _n.holds_socket, EPERM, EPERM, subject=HOST_WORKER),
    Vector("h05", "host-worker-connects-abstract-socket", "abstract unix socket of a host process", _n.connect_abstract, _n.listener_was_reached, WORKS, EPERM, subject=HOST_WORKER, scene=_n.listen_on_abstract_name_of_host),
    Vector("h06", "host-worker-kills-other-call", "SIGKILL to another process of the service user", _p.kill_neighbour, _p.neighbour_is_gone, WORKS, EPERM, subject=HOST_WORKER),
    Vector("h07", "host-worker-executes-program", "execve() of a shell", _p.execute_program, _p.program_was_executed, WORKS, EPERM, subject=HOST_WORKER),
    Vector("l01", "library-sandbox-makes-nft-table", "nf_tables from the library's sandbox", _n.make_nft_table, _n.container_has_nft_table, WORKS, WORKS, "a sandbox of the library may speak to nf_tables", subject=LIBRARY),
)

ATTEMPTS.update({vector.id: vector.attempt for vector in VECTORS})


def describe(outcome: Outcome) -> str:
    """Say in a word what came of an attempt."""
    if outcome.signal:
        return f"killed ({signal.Signals(outcome.signal).name})"
    if outcome.has_effect:
        return "**works**"
    return errno.errorcode[outcome.errno] if outcome.errno else "no effect"


def markdown(measured: Mapping[str, Mapping[Level, Outcome]] | None = None) -> str:
    """Make the table of docs/security-model.md.

    Args:
        measured: Outcomes by id and level; what is missing, and without it everything, is what must come of it.
    """
    lines = ["| id | attempt | root | netadmin | hardened |", "| --- | --- | --- | --- | --- |"]
    for vector in VECTORS:
        outcomes = {level: vector.expected(level) for level in LEVELS} | dict((measured or {}).get(vector.id, {}))
        who = "" if vector.subject == CONTAINER_WORKER else f"{vector.subject}: "
        words = " | ".join(describe(outcomes[level]) for level in LEVELS)
        lines.append(f"| {vector.id} | {who}{vector.tries} | {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())

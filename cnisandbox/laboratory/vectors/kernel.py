"""Category f: kernel surface: calls, sockets, devices and loaders that a plugin does not need and that had their bugs."""

# ruff: noqa: E501 - one row, one line: it is a table

import socket
from functools import partial

from cnisandbox.laboratory.attacker import kernel as _k
from cnisandbox.laboratory.attacker import network as _n
from cnisandbox.laboratory.attacker import processes as _p
from cnisandbox.laboratory.vector import Vector

_ESCAPE = "escape matrix {}".format
_AUTOLOAD = "request_module(), net/socket.c and others"

# fmt: off
VECTORS: tuple[Vector, ...] = (
    # Programs for the kernel
    Vector("f-load-bpf", "f", "load a BPF program", _k.load_bpf, _p.holds_anonymous_inode, _ESCAPE("d02"), needs=partial(_k.lacks_call, "bpf", "CONFIG_BPF_SYSCALL", 99, 0, 0)),
    Vector("f-attach-socket-filter", "f", "SO_ATTACH_FILTER: code for the kernel's compiler", _k.attach_socket_filter, _k.has_filter, _ESCAPE("d15")),
    Vector("f-listen-to-own-calls", "f", "seccomp(): a filter of one's own, SECCOMP_FILTER_FLAG_NEW_LISTENER", _k.listen_to_own_calls, partial(_k.holds_descriptor_of, "anon_inode:seccomp"), "seccomp(2)"),
    Vector("f-make-nft-table", "f", "a table of nf_tables, in the container's netns or the host's", _n.make_nft_table, _k.has_nft_table, _ESCAPE("d04, l01"), needs=partial(_k.lacks_netlink_protocol, _k.NETLINK_NETFILTER, "CONFIG_NF_TABLES")),
    # User namespaces: every capability in a new one
    Vector("f-unshare-user-namespace", "f", "unshare(CLONE_NEWUSER): every capability in a new one", _k.unshare_userns, _k.has_own_userns, _ESCAPE("d03"), needs=_k.lacks_user_namespaces),
    Vector("f-clone-user-namespace", "f", "clone(CLONE_NEWUSER)", _k.clone_userns, _k.child_has_own_userns, _ESCAPE("d05, g15"), needs=_k.lacks_user_namespaces),
    Vector("f-clone3-user-namespace", "f", "clone3(CLONE_NEWUSER)", _k.clone3_userns, _k.child_has_own_userns, _ESCAPE("d06, g16"), needs=_k.lacks_user_namespaces),
    # Calls with a history
    Vector("f-set-up-io-uring", "f", "io_uring_setup(): calls that no filter sees", _k.set_up_io_uring, _p.holds_anonymous_inode, _ESCAPE("d07"), needs=_k.lacks_io_uring),
    Vector("f-set-up-aio", "f", "io_setup()", _k.set_up_aio, _k.has_aio, "io_setup(2)", needs=_k.lacks_aio),
    Vector("f-make-userfaultfd", "f", "userfaultfd(): have the kernel wait in the middle of a copy", _k.make_userfaultfd, _p.holds_anonymous_inode, _ESCAPE("d08"), needs=partial(_k.lacks_call, "userfaultfd", "CONFIG_USERFAULTFD", -1)),
    Vector("f-open-perf-event", "f", "perf_event_open() of itself", _k.open_perf_event, _p.holds_anonymous_inode, _ESCAPE("d09"), needs=partial(_k.lacks_call, "perf_event_open", "CONFIG_PERF_EVENTS", 0, 0, -1, -1, 0)),
    Vector("f-open-file-system", "f", "fsopen(): options of a file system that is not mounted", _k.open_file_system, partial(_k.holds_descriptor_of, "anon_inode:[fscontext]"), "CVE-2022-0185"),
    Vector("f-mount", "f", "mount a tmpfs", _k.mount_tmpfs, _k.has_mounted, _ESCAPE("a04, g18")),
    Vector("f-make-secret-memory", "f", "memfd_secret(): memory that the kernel itself does not see", _k.make_secret_memory, partial(_k.holds_descriptor_of, "/secretmem"), "memfd_secret(2)", needs=_k.lacks_secret_memory),
    Vector("f-open-message-queue", "f", "mq_open()", _k.open_message_queue, partial(_k.holds_descriptor_of, "/escape"), "CVE-2017-11176", needs=_k.lacks_message_queues),
    # Keys
    Vector("f-join-session-keyring", "f", "keyctl(KEYCTL_JOIN_SESSION_KEYRING)", _k.join_session_keyring, _k.has_more_keys, _ESCAPE("d10"), scene=_k.count_keys, needs=_k.lacks_keys),
    Vector("f-add-key", "f", "add_key()", _k.add_key, _k.has_more_keys, _ESCAPE("d11"), scene=_k.count_keys, needs=_k.lacks_keys),
    Vector("f-read-key-of-session", "f", "read a key of the session that the runtime was started in", _k.read_key_of_session, _k.said_key, "keyrings(7)", scene=_k.leave_key_in_session, needs=_k.lacks_keys),
    # Sockets
    Vector("f-open-generic-netlink-socket", "f", "generic netlink: every family that drivers register", partial(_k.open_netlink_socket, _k.NETLINK_GENERIC), partial(_k.holds_socket_of, socket.AF_NETLINK, _k.NETLINK_GENERIC), _ESCAPE("s04, e01, g01")),
    Vector("f-open-xfrm-socket", "f", "netlink of IPsec", partial(_k.open_netlink_socket, _k.NETLINK_XFRM), partial(_k.holds_socket_of, socket.AF_NETLINK, _k.NETLINK_XFRM), "CVE-2017-7184", needs=partial(_k.lacks_netlink_protocol, _k.NETLINK_XFRM, "CONFIG_XFRM_USER")),
    Vector("f-open-socket-diagnosis", "f", "netlink that lists sockets, NETLINK_SOCK_DIAG", partial(_k.open_netlink_socket, _k.NETLINK_SOCK_DIAG), partial(_k.holds_socket_of, socket.AF_NETLINK, _k.NETLINK_SOCK_DIAG), "CVE-2013-1763"),
    Vector("f-open-vsock", "f", "socket to the hypervisor, AF_VSOCK", partial(_k.open_socket, _k.AF_VSOCK, socket.SOCK_STREAM), partial(_k.holds_socket_of, _k.AF_VSOCK, 0), "CVE-2021-26708", needs=partial(_k.lacks_socket_family, _k.AF_VSOCK, socket.SOCK_STREAM, "CONFIG_VSOCKETS")),
    Vector("f-open-crypto-socket", "f", "socket of the kernel's cryptography, AF_ALG", partial(_k.open_socket, _k.AF_ALG, socket.SOCK_SEQPACKET), partial(_k.holds_socket_of, _k.AF_ALG, 0), "AF_ALG, Documentation/crypto/userspace-if.rst", needs=partial(_k.lacks_socket_family, _k.AF_ALG, socket.SOCK_SEQPACKET, "CONFIG_CRYPTO_USER_API")),
    # Devices
    Vector("f-open-kvm", "f", "open /dev/kvm", partial(_k.open_device, "/dev/kvm"), partial(_k.holds_device, "/dev/kvm"), "Documentation/virt/kvm/api.rst", needs=partial(_k.lacks_device, "/dev/kvm")),
    Vector("f-open-fuse", "f", "open /dev/fuse: a file system whose every answer is made up", partial(_k.open_device, "/dev/fuse"), partial(_k.holds_device, "/dev/fuse"), "fuse(4)", needs=partial(_k.lacks_device, "/dev/fuse")),
    Vector("f-open-loop-control", "f", "open /dev/loop-control: block devices out of files", partial(_k.open_device, "/dev/loop-control"), partial(_k.holds_device, "/dev/loop-control"), "loop(4)", needs=partial(_k.lacks_device, "/dev/loop-control")),
    Vector("f-open-terminal", "f", "open /dev/ptmx: line disciplines", partial(_k.open_device, "/dev/ptmx"), partial(_k.holds_device, "/dev/ptmx"), "CVE-2014-0196", needs=partial(_k.lacks_device, "/dev/ptmx")),
    # Code that is not the program's
    Vector("f-map-executable-memory", "f", "mmap(PROT_EXEC)", _k.map_executable, _k.has_executable_page, _ESCAPE("m01")),
    Vector("f-make-memory-executable", "f", "mprotect(PROT_EXEC)", _k.make_executable, _k.has_executable_page, _ESCAPE("m02")),
    Vector("f-call-32-bit", "f", "a system call by its 32-bit number, int 0x80", _k.call_32_bit, _k.said_own_pid, _ESCAPE("m03"), scene=_k.load_machine_code, needs=_k.lacks_32_bit_calls),
    Vector("f-call-x32", "f", "a system call by its x32 number", _k.call_x32, _k.said_own_pid, _ESCAPE("m04"), needs=_k.lacks_x32_calls),
    Vector("f-execute-other-program", "f", "execve() of a program of the machine that is no plugin", _p.execute_other_program, _p.child_is_other_program, "execve(2)"),
    Vector("f-execute-anonymous-file", "f", "execve() of a program that is in no file system, memfd_create()", _k.execute_anonymous_file, _k.executes_anonymous_file, "memfd_create(2)"),
    Vector("f-become-dumpable", "f", "PR_SET_DUMPABLE back to 1: others of the same user may read its memory", _p.become_dumpable, _p.is_dumpable, _ESCAPE("k05")),
    Vector("f-switch-off-randomization", "f", "personality(ADDR_NO_RANDOMIZE)", _k.switch_off_randomization, _k.has_no_randomization, "personality(2)"),
    # Modules that the kernel asks modprobe for by itself
    Vector("f-load-module-by-link-kind", "f", "have a module loaded by its name: RTM_NEWLINK of an unknown kind", _n.create_unknown_link_kind, _k.kernel_was_asked, _ESCAPE("d14"), scene=partial(_k.count_module_requests, "rtnl-link-escapekind"), needs=_k.lacks_modules),
    Vector("f-load-module-by-qdisc", "f", "the same with a queueing discipline", _k.add_unknown_qdisc, _k.kernel_was_asked, _AUTOLOAD, scene=partial(_k.count_module_requests, "net-sch-escape"), needs=_k.lacks_modules),
    Vector("f-load-module-by-link-name", "f", "the same with SIOCGIFFLAGS of an unknown link", _k.name_unknown_link, _k.kernel_was_asked, _AUTOLOAD, scene=partial(_k.count_module_requests, "netdev-escape"), needs=_k.lacks_modules),
    Vector("f-load-module-by-socket-family", "f", "the same with a socket of an unknown family", _k.use_unknown_socket_family, _k.kernel_was_asked, _AUTOLOAD, scene=partial(_k.count_module_requests, "net-pf-19"), needs=_k.lacks_modules),
    Vector("f-load-module-by-netlink-protocol", "f", "the same with a netlink socket of an unknown protocol", _k.use_unknown_netlink_protocol, _k.kernel_was_asked, _AUTOLOAD, scene=partial(_k.count_module_requests, "net-pf-16-proto-31"), needs=_k.lacks_modules),
    Vector("f-load-module-by-file-system", "f", "the same with mount() of an unknown file system", _k.mount_unknown_file_system, _k.kernel_was_asked, _AUTOLOAD, scene=partial(_k.count_module_requests, "fs-escape"), needs=_k.lacks_modules),
)
# fmt: on

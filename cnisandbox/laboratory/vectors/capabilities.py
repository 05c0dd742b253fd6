"""Category a: every capability of capabilities(7), each by attempts that are refused to root without it.

The advice is that of the catalogue of capabilities for containers, in short: "drop", "keep", or "drop unless needed"
where it wants the programs looked at first; it has no entry for the youngest capability.
"""

# ruff: noqa: E501 - one row, one line: it is a table

from collections.abc import Callable
from typing import TYPE_CHECKING

from cnisandbox.laboratory.attacker import administration, capabilities, files, network, processes
from cnisandbox.laboratory.attacker.knowledge import Facts, Said
from cnisandbox.laboratory.vector import Vector, always

if TYPE_CHECKING:
    from cnisandbox.laboratory.arena import Arena

_DROP, _KEEP, _DROP_UNLESS_NEEDED, _NO_ADVICE = "drop", "keep", "drop unless needed", "not in the catalogue"

# In the order of capabilities(7)'s numbers.
ADVICE = {
    "CAP_CHOWN": _DROP_UNLESS_NEEDED,
    "CAP_DAC_OVERRIDE": _DROP_UNLESS_NEEDED,
    "CAP_DAC_READ_SEARCH": _DROP_UNLESS_NEEDED,
    "CAP_FOWNER": _DROP,
    "CAP_FSETID": _DROP,
    "CAP_KILL": _DROP,
    "CAP_SETGID": _DROP,
    "CAP_SETUID": _DROP,
    "CAP_SETPCAP": _DROP,
    "CAP_LINUX_IMMUTABLE": _KEEP,
    "CAP_NET_BIND_SERVICE": _KEEP,
    "CAP_NET_BROADCAST": _KEEP,
    "CAP_NET_ADMIN": _DROP,
    "CAP_NET_RAW": "drop; keep for diagnosis in development only",
    "CAP_IPC_LOCK": _KEEP,
    "CAP_IPC_OWNER": _DROP,
    "CAP_SYS_MODULE": _DROP,
    "CAP_SYS_RAWIO": _DROP,
    "CAP_SYS_CHROOT": _DROP,
    "CAP_SYS_PTRACE": _DROP,
    "CAP_SYS_PACCT": _DROP,
    "CAP_SYS_ADMIN": _DROP,
    "CAP_SYS_BOOT": _DROP,
    "CAP_SYS_NICE": _DROP,
    "CAP_SYS_RESOURCE": _DROP,
    "CAP_SYS_TIME": _DROP,
    "CAP_SYS_TTY_CONFIG": _DROP,
    "CAP_MKNOD": _DROP,
    "CAP_LEASE": _KEEP,
    "CAP_AUDIT_WRITE": _DROP,  # described there under the name of CAP_AUDIT_READ, a second time
    "CAP_AUDIT_CONTROL": _DROP,
    "CAP_SETFCAP": _DROP,
    "CAP_MAC_OVERRIDE": _DROP,
    "CAP_MAC_ADMIN": _DROP,
    "CAP_SYSLOG": _DROP,
    "CAP_WAKE_ALARM": _DROP,
    "CAP_BLOCK_SUSPEND": _DROP,
    "CAP_AUDIT_READ": "keep unless nothing reads the audit log",
    "CAP_PERFMON": _DROP,
    "CAP_BPF": _DROP,
    "CAP_CHECKPOINT_RESTORE": _NO_ADVICE,
}

_CATALOGUE = "Kubernetes container security: Linux capabilities, rev. 2"
_MANUAL = "capabilities(7)"
_MATRIX = "escape matrix"


def _row(
    capability: str,
    name: str,
    tries: str,
    attempt: Callable[[Facts], Said | None],
    judge: "Callable[[Arena], bool]",
    source: str = f"{_MANUAL}; {_CATALOGUE}",
    scene: "Callable[[Arena], None] | None" = None,
    needs: Callable[[], str] = always,
) -> Vector:
    prefix = capability.removeprefix("CAP_").lower().replace("_", "-")
    return Vector(
        f"a-{prefix}-{name}",
        "a",
        tries,
        attempt,
        judge,
        source,
        scene=scene,
        needs=needs,
        capability=capability,
        advice=ADVICE[capability],
    )


_a, _c, _f, _n, _p = administration, capabilities, files, network, processes

VECTORS: tuple[Vector, ...] = (
    _row("CAP_CHOWN", "give-file-away", "give a file to somebody else, fchown()", _f.give_file_away, _f.state_has_file_of_nobody),
    _row("CAP_DAC_OVERRIDE", "write-file", "write a private file of another user", _c.overwrite_file_of_stranger, _c.file_of_stranger_was_changed, scene=_c.leave_file_of_stranger),
    _row("CAP_DAC_OVERRIDE", "delete-file", "delete a file in a private directory of another user", _c.delete_file_of_stranger, _c.file_of_stranger_is_gone, scene=_c.leave_directory_of_stranger),
    _row("CAP_DAC_READ_SEARCH", "read-file", "read a private file of another user", _c.read_file_of_stranger, _c.said_secret_of_stranger, scene=_c.leave_file_of_stranger),
    _row("CAP_DAC_READ_SEARCH", "open-by-handle", "read a private file of root by its number, open_by_handle_at()", _f.read_secret_by_handle, _f.said_secret, f"{_MANUAL}; {_MATRIX} d12"),
    _row("CAP_FOWNER", "change-mode", "open a file of another user to everybody, chmod()", _c.open_file_of_stranger_to_everybody, _c.file_of_stranger_is_open_to_everybody, scene=_c.leave_file_of_stranger),
    _row("CAP_FOWNER", "delete-from-sticky-directory", "delete another user's file from his sticky directory", _c.delete_file_of_stranger, _c.file_of_stranger_is_gone, scene=_c.leave_sticky_directory_of_stranger),
    _row("CAP_FSETID", "make-program-set-gid", "make a program set-gid of a group that one is not in", _c.make_program_in_group_of_stranger_setgid, _c.program_in_group_of_stranger_is_setgid, scene=_c.leave_program_in_group_of_stranger),
    _row("CAP_KILL", "kill-process", "SIGKILL to a process of another user", _c.kill_stranger, _c.stranger_is_gone, scene=_c.add_stranger),
    _row("CAP_SETGID", "join-group", "join another user's group", _c.join_group_of_stranger, _c.is_in_group_of_stranger),
    _row("CAP_SETUID", "become-user", "become another user", _c.become_stranger, _c.is_stranger),
    _row("CAP_SETPCAP", "change-bounding-set", "change the bounding set", _c.change_bounding_set, _c.bounding_set_was_changed),
    _row("CAP_SETPCAP", "keep-capabilities", "change the securebits and keep every capability as another user", _c.keep_capabilities_as_stranger, _c.has_capabilities_as_stranger),
    _row("CAP_LINUX_IMMUTABLE", "make-file-immutable", "make a state file that nobody can change any more", _c.make_file_immutable, _c.file_is_immutable, needs=_c.needs_flags_of_files),
    _row("CAP_NET_BIND_SERVICE", "bind-port", "listen on TCP port 80 of the container", _c.bind_privileged_port, _c.listens_on_privileged_port, needs=_c.needs_privileged_ports),
    _row("CAP_NET_BROADCAST", "hear-every-netns", "hear of changes in every netns, NETLINK_LISTEN_ALL_NSID", _n.hear_every_netns, _n.said_new_host_link, f"{_MANUAL}; {_MATRIX} b10"),
    _row("CAP_NET_ADMIN", "listen-to-everything", "switch the container's eth0 to promiscuous mode", _c.listen_to_everything, _c.eth0_listens_to_everything, f"{_MANUAL}; Giese 2021 (NET_ADMIN)"),
    _row("CAP_NET_RAW", "open-packet-socket", "hear every packet of the netns, AF_PACKET", _n.packet_socket, _n.holds_socket, f"{_MANUAL}; {_MATRIX} a02"),
    _row("CAP_NET_RAW", "open-raw-ip-socket", "forge IP packets, SOCK_RAW", _n.raw_ip_socket, _n.holds_socket, f"{_MANUAL}; {_MATRIX} a03"),
    _row("CAP_IPC_LOCK", "lock-memory", "lock more memory than the limit allows", _c.lock_memory, _c.has_locked_memory, scene=_c.lower_limit_of_locked_memory),
    _row("CAP_IPC_OWNER", "read-shared-memory", "read another user's System V shared memory", _c.read_memory_of_stranger, _c.said_secret_of_stranger, scene=_c.share_memory_of_stranger, needs=_c.needs_shared_memory),
    _row("CAP_SYS_MODULE", "load-module", "load a kernel module", _a.load_module, _a.module_was_loaded, needs=_a.needs_modules),
    _row("CAP_SYS_RAWIO", "map-page-zero", "map page zero, where the kernel's null pointers lead", _c.map_page_zero, _c.has_page_zero, _MANUAL, needs=_c.needs_protected_page_zero),
    _row("CAP_SYS_RAWIO", "open-physical-memory", "open the machine's memory, /dev/mem", _a.open_physical_memory, _a.holds_physical_memory, scene=_a.leave_memory_device, needs=_a.needs_physical_memory),
    _row("CAP_SYS_CHROOT", "change-root", "chroot()", _c.change_root, _c.has_other_root),
    _row("CAP_SYS_PTRACE", "trace-process", "ptrace() a process that has more capabilities", _p.ptrace_bystander, _p.bystander_is_traced, f"{_MANUAL}; {_MATRIX} p01"),
    _row("CAP_SYS_PACCT", "account-processes", "have every process that ends written to a file, acct()", _a.keep_accounts, _a.processes_are_accounted, scene=_a.leave_accounts, needs=_a.needs_accounting),
    _row("CAP_SYS_ADMIN", "mount-over-file", "cover a file of the host with a forged one, mount()", _a.mount_over_secret, _a.host_reads_forged_file, scene=_a.leave_forged_file),
    _row("CAP_SYS_ADMIN", "unshare-mounts", "leave for a mount namespace of one's own, unshare()", _a.unshare_mounts, _a.has_own_mounts),
    _row("CAP_SYS_ADMIN", "enter-namespace", "enter another container's uts namespace, setns()", _a.enter_container_names, _a.has_container_names, scene=_a.add_container_with_own_names),
    _row("CAP_SYS_ADMIN", "set-hostname", "change the host's name", _a.set_hostname, _a.host_has_other_name, _MANUAL),
    _row("CAP_SYS_ADMIN", "watch-files", "hear of every file that is opened on a mount, fanotify", _a.watch_every_file, _a.every_file_is_watched, _MANUAL, needs=_a.needs_fanotify),
    _row("CAP_SYS_ADMIN", "type-command", "type a command into somebody's terminal, TIOCSTI", _a.type_command, _a.command_was_typed, f"{_MANUAL}; CVE-2017-5226", scene=_a.open_terminal),
    _row("CAP_SYS_BOOT", "restart", "restart the machine, in a pid namespace that stands for it", _a.restart_pid_namespace, _a.process_1_has_ended),
    _row("CAP_SYS_NICE", "slow-process-down", "have another user's process run after all others", _c.slow_stranger_down, _c.stranger_is_slow, scene=_c.add_stranger),
    _row("CAP_SYS_NICE", "run-in-real-time", "run before everybody, SCHED_FIFO", _c.run_before_everybody, _c.runs_before_everybody, needs=_c.needs_real_time),
    _row("CAP_SYS_RESOURCE", "raise-hard-limit", "raise a hard limit", _c.raise_hard_limit, _c.has_raised_hard_limit, scene=_c.lower_hard_limit, needs=_c.needs_sys_resource),
    _row("CAP_SYS_TIME", "adjust-clock", "tell the machine's clock how wrong it is, adjtimex()", _a.adjust_clock, _a.clock_was_adjusted, scene=_a.note_clock_error),
    _row("CAP_SYS_TTY_CONFIG", "hang-up-terminal", "take a terminal away from everybody, vhangup()", _a.hang_up_terminal, _a.terminal_was_hung_up, scene=_a.open_terminal),
    _row("CAP_MKNOD", "make-device", "make a device file of the machine's memory", _f.make_device, _f.state_has_device),
    _row("CAP_LEASE", "lease-file", "have whoever opens another user's file for writing wait, F_SETLEASE", _c.lease_file_of_stranger, _c.file_of_stranger_is_leased, scene=_c.leave_readable_file_of_stranger),
    _row("CAP_AUDIT_WRITE", "forge-message", "write a message to the audit log", _a.forge_audit_message, _a.audit_message_was_logged, needs=_a.needs_audit_in_kernel_log),
    _row("CAP_AUDIT_CONTROL", "log-in-as-other", "have what follows audited as another user's, loginuid", _a.log_in_as_stranger, _a.is_logged_in_as_stranger, scene=_a.log_in, needs=_a.needs_login_uid),
    _row("CAP_SETFCAP", "give-capabilities", "give a program every capability", _f.give_file_capabilities, _f.state_has_file_with_capabilities),
    _row("CAP_MAC_OVERRIDE", "read-labelled-file", "read a file that its Smack label keeps from everybody", _c.read_file_of_stranger, _c.said_secret_of_stranger, scene=_c.label_file_of_stranger, needs=_c.needs_smack),
    _row("CAP_MAC_ADMIN", "label-file", "change a file's Smack label", _c.label_file, _c.file_has_label, needs=_c.needs_smack),
    _row("CAP_SYSLOG", "read-kernel-log", "read the kernel's log, syslog()", _a.read_kernel_log, _a.said_kernel_log, needs=_a.needs_restricted_log),
    _row("CAP_SYSLOG", "read-kernel-address", "learn where the kernel is in memory, /proc/kallsyms", _a.read_kernel_address, _a.said_kernel_address, needs=_a.needs_hidden_kernel_addresses),
    _row("CAP_WAKE_ALARM", "make-timer", "have a timer wake the machine up, CLOCK_BOOTTIME_ALARM", _c.make_waking_timer, _c.holds_waking_timer, needs=_c.needs_waking_timers),
    _row("CAP_BLOCK_SUSPEND", "keep-awake", "keep the machine from being suspended, EPOLLWAKEUP", _c.keep_machine_awake, _c.keeps_machine_awake, needs=_c.needs_suspend),
    _row("CAP_AUDIT_READ", "hear-audit-log", "hear what is written to the audit log", _a.listen_to_audit_log, _a.listens_to_audit_log, needs=_a.needs_audit),
    _row("CAP_PERFMON", "measure-processor", "measure all that a processor does, perf_event_open()", _c.measure_whole_processor, _p.holds_anonymous_inode, needs=_c.needs_performance_events),
    _row("CAP_BPF", "make-map", "make a BPF map of a kind for the privileged", _c.make_bpf_map, _c.holds_bpf_map, needs=_c.needs_bpf),
    _row("CAP_CHECKPOINT_RESTORE", "choose-pid", "have a child born with a certain pid, clone3()", _c.choose_pid, _c.child_has_chosen_pid, _MANUAL),
)  # fmt: skip

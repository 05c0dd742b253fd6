"""Category e: other processes, and becoming more than one is."""

# ruff: noqa: E501 - one row, one line: it is a table

from cnisandbox.laboratory.attacker import files as _f
from cnisandbox.laboratory.attacker import processes as _p
from cnisandbox.laboratory.vector import Vector

_ESCAPE = "escape matrix {}".format

# fmt: off
VECTORS: tuple[Vector, ...] = (
    # Signals
    Vector("e-kill-process-of-root", "e", "SIGKILL to a process of root", _p.kill_bystander, _p.bystander_is_gone, _ESCAPE("a05")),
    Vector("e-kill-process-of-root-by-pidfd", "e", "the same with pidfd_send_signal()", _p.kill_bystander_by_pidfd, _p.bystander_is_gone, "pidfd_send_signal(2)"),
    Vector("e-kill-other-call", "e", "SIGKILL to another process of the service user", _p.kill_neighbour, _p.neighbour_is_gone, _ESCAPE("p05, g13, h06")),
    Vector("e-kill-other-call-by-tgkill", "e", "the same with tgkill()", _p.tgkill_neighbour, _p.neighbour_is_gone, _ESCAPE("p06, e17")),
    Vector("e-kill-other-call-by-sigqueue", "e", "the same with rt_sigqueueinfo()", _p.queue_signal_to_neighbour, _p.neighbour_is_gone, "rt_sigqueueinfo(2)"),
    Vector("e-kill-other-call-through-pipe", "e", "the same with F_SETOWN and F_SETSIG of a pipe", _p.signal_neighbour_through_pipe, _p.neighbour_is_gone_when_poked, _ESCAPE("p07, e18")),
    Vector("e-kill-other-call-through-socket", "e", "the same with FIOSETOWN of a socket", _p.signal_neighbour_through_socket, _p.neighbour_is_gone, "socket(7)"),
    Vector("e-kill-process-group", "e", "SIGTERM to the process group that the runtime starts all its plugins in, kill(0)", _p.kill_process_group, _p.neighbour_is_gone, "kill(2)"),
    # Memory
    Vector("e-ptrace-process-of-root", "e", "ptrace() a process of root", _p.ptrace_bystander, _p.bystander_is_traced, _ESCAPE("p01")),
    Vector("e-ptrace-other-call", "e", "ptrace() another process of the service user", _p.ptrace_neighbour, _p.neighbour_is_traced, _ESCAPE("p02, g14")),
    Vector("e-ptrace-anybody", "e", "ptrace() whoever lets it happen, processes of the same call included", _p.ptrace_anybody, _p.somebody_is_traced, "ptrace(2)"),
    Vector("e-read-memory", "e", "process_vm_readv() of a process of root", _p.read_memory, _p.said_bystander_secret, _ESCAPE("p03")),
    Vector("e-read-memory-file", "e", "/proc/PID/mem of a process of root", _p.read_memory_file, _p.said_bystander_secret, _ESCAPE("p04")),
    Vector("e-write-memory", "e", "process_vm_writev() to a process of root", _p.write_memory, _p.memory_was_written, "process_vm_readv(2)"),
    Vector("e-write-memory-file", "e", "write /proc/PID/mem of a process of root", _p.write_memory_file, _p.memory_was_written, "proc(5)"),
    Vector("e-read-memory-map", "e", "/proc/PID/maps of a process of root: where everything is", _p.read_memory_map, _p.said_memory_map, "proc(5)"),
    Vector("e-watch-other-call", "e", "perf_event_open() of another process", _p.watch_neighbour, _p.holds_anonymous_inode, "perf_event_open(2)"),
    # What they have
    Vector("e-read-command-line", "e", "/proc/PID/cmdline of a process of root that was given a password", _p.read_command_line, _p.said_token, "proc(5)", scene=_p.add_process_with_secret_argument),
    Vector("e-take-descriptor", "e", "pidfd_getfd() of an open file of a process of root", _p.take_descriptor, _p.said_token, "pidfd_getfd(2)", scene=_p.add_keeper),
    Vector("e-open-descriptor-of-process", "e", "the same file through /proc/PID/fd", _p.open_descriptor_of_process, _p.said_token, "proc(5)", scene=_p.add_keeper),
    Vector("e-files-through-root-of-process", "e", "a file of root through /proc/PID/root", _p.read_through_root_of_process, _f.said_secret, "CVE-2019-5736 (the runtime through /proc)"),
    Vector("e-files-through-directory-of-process", "e", "the same through /proc/PID/cwd", _p.read_through_directory_of_process, _f.said_secret, "CVE-2024-21626"),
    Vector("e-receive-message", "e", "take a message out of another process's queue, System V", _p.receive_message, _p.said_token, "sysvipc(7)", scene=_p.leave_message, needs=_p.lacks_message_queues),
    # How much they get
    Vector("e-slow-down-other-call", "e", "setpriority() of another process", _p.slow_down_neighbour, _p.neighbour_is_slowed_down, "setpriority(2)"),
    Vector("e-slow-down-process-group", "e", "the same for the process group that the runtime starts all its plugins in", _p.slow_down_process_group, _p.neighbour_is_slowed_down, "setpriority(2)"),
    Vector("e-make-other-call-idle", "e", "sched_setscheduler(SCHED_IDLE) of another process", _p.make_neighbour_idle, _p.neighbour_is_idle, "sched_setscheduler(2)"),
    Vector("e-pin-other-call", "e", "sched_setaffinity() of another process", _p.pin_neighbour, _p.neighbour_is_pinned, "sched_setaffinity(2)", needs=_p.lacks_processors),
    Vector("e-limit-other-call", "e", "prlimit() of another process", _p.limit_others, _p.others_are_limited, "prlimit(2)"),
    Vector("e-sacrifice-other-call", "e", "oom_score_adj of another process: the first to be killed when memory runs out", _p.sacrifice_neighbour, _p.neighbour_is_sacrificed, "proc(5)"),
    # New ones
    Vector("e-execute-shell", "e", "execve() of a shell, which leaves a file in the host", _p.execute_program, _p.program_was_executed, _ESCAPE("p09, h07")),
    Vector("e-execute-set-uid-program", "e", "execve() of a set-uid program of root", _p.execute_setuid_program, _p.root_touched_file, _ESCAPE("p10, g17"), scene=_p.plant_setuid_program),
    Vector("e-outlive-the-call", "e", "leave a process behind when the call ends", _p.fork_child, _p.child_outlives_worker, _ESCAPE("p11, g21")),
    # Becoming more
    Vector("e-become-root", "e", "setresuid(0, 0, 0)", _p.become_root, _p.is_root, _ESCAPE("k01")),
    Vector("e-raise-capability", "e", "capset() with CAP_SYS_ADMIN", _p.raise_capability, _p.has_sys_admin, _ESCAPE("k02")),
    Vector("e-keep-capabilities", "e", "PR_SET_KEEPCAPS, then another user", _p.keep_capabilities, _p.has_capabilities_as_nobody, _ESCAPE("k03")),
    Vector("e-raise-ambient", "e", "PR_CAP_AMBIENT_RAISE of CAP_NET_ADMIN: programs that it executes have it", _p.raise_ambient, _p.has_ambient, _ESCAPE("k04")),
)
# fmt: on

"""Category g: resources. Each attempt has a bound, stated in attacker/resources.py; beyond it, it has worked."""

# ruff: noqa: E501 - one row, one line: it is a table

from cnisandbox.laboratory.attacker import files as _f
from cnisandbox.laboratory.attacker import processes as _p
from cnisandbox.laboratory.attacker import resources as _r
from cnisandbox.laboratory.vector import Vector

_ESCAPE = "escape matrix {}".format
_LIMIT = "getrlimit(2)"

# fmt: off
VECTORS: tuple[Vector, ...] = (
    Vector("g-fork", "g", "fork() at all", _p.fork_child, _p.has_child, _ESCAPE("p08, e19")),
    Vector("g-many-processes", "g", "more than 128 processes at once", _r.fork_many, _r.has_many_processes, _LIMIT),
    Vector("g-many-threads", "g", "more than 128 threads at once", _r.start_many_threads, _r.has_many_threads, _LIMIT),
    Vector("g-processor-without-end", "g", "processor time without a limit", _r.use_processor_without_end, _r.has_no_end_of_processor_time, _LIMIT),
    Vector("g-much-memory", "g", "more than 1 GiB resident", _r.fill_memory, _r.has_much_memory, _LIMIT, needs=_r.lacks_memory),
    Vector("g-hidden-memory", "g", "more than 64 MiB in files without a name, memfd_create()", _r.fill_hidden_memory, _r.has_much_hidden_memory, "memfd_create(2)"),
    Vector("g-shared-memory-that-stays", "g", "shared memory of the host that is there after the call", _r.leave_shared_memory, _r.shared_memory_stays, "shmget(2)", needs=_r.lacks_shared_memory),
    Vector("g-many-descriptors", "g", "more than 1024 descriptors", _r.open_many_descriptors, _r.has_many_descriptors, _LIMIT),
    Vector("g-raise-limit", "g", "raise its own limit of descriptors", _p.raise_limit, _p.has_raised_limit, _ESCAPE("k06"), scene=_p.leave_room_below_limit),
    Vector("g-many-inotify-instances", "g", "more than 64 inotify instances, of 128 that all processes of a user have", _r.watch_much, _r.watches_much, "inotify(7)", needs=_r.lacks_inotify),
    Vector("g-huge-file", "g", "a file of more than 16 MiB in a state directory", _f.write_huge_file, _f.state_has_huge_file, _ESCAPE("e21")),
    Vector("g-fill-disk", "g", "more than 64 MiB in a state directory, in several files", _r.fill_state_directory, _r.state_directory_is_full, "MITRE ATT&CK T1499"),
    Vector("g-hold-lock", "g", "keep the lock that host-local waits for in calls of another network", _r.hold_lock, _r.lock_is_held, "flock(2)", scene=_r.leave_lock),
    Vector("g-many-links", "g", "more than 16 links in a netns, the container's or the host's", _r.make_many_links, _r.netns_has_many_links, "rtnetlink(7)"),
)
# fmt: on

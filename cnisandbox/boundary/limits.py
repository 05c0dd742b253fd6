"""Resource limits and descriptors.

Privilege: none; limits are only lowered.
"""

import os

from cnisandbox.boundary.syscalls import checked, ffi, lib

# LIMIT: bytes of address space; an interpreter with everything loaded maps under 100 MiB, Go programs reserve more.
ADDRESS_SPACE_BYTES = 1 << 30
# LIMIT: seconds of processor time; the slowest ADD seen needs a tenth of one.
PROCESSOR_S = 60
# LIMIT: descriptors; a call needs about ten.
DESCRIPTORS = 64

# Not by the module `resource`, which is a library of its own: to load it takes 0.2 ms.
_KINDS: dict[str, int] = {
    "as": lib.RLIMIT_AS,
    "core": lib.RLIMIT_CORE,
    "cpu": lib.RLIMIT_CPU,
    "fsize": lib.RLIMIT_FSIZE,
    "nofile": lib.RLIMIT_NOFILE,
    "nproc": lib.RLIMIT_NPROC,
}
_NUMBERS = ffi.new("int[]", list(_KINDS.values()))
_INFINITY = -1
_HIGHEST_DESCRIPTOR = 0xFFFFFFFF
# LIMIT: how far to look where no limit was lowered; nothing of ours opens as many.
_MOST_DESCRIPTORS = 1024


def lowered_limits(
    *,
    file_bytes: int,
    processes: int,
    address_space_bytes: int = ADDRESS_SPACE_BYTES,
    descriptors: int = DESCRIPTORS,
) -> dict[str, int]:
    """Say what the limits of this process, or of a child, will be once they are lowered.

    Args:
        file_bytes: How long a file it may write.
        processes: How many processes its user may have while it makes another; 0 for none.
        address_space_bytes: How much memory it may map.
        descriptors: How many descriptors it may have.

    Returns:
        Name to value, as `current_limits` has them.
    """
    wanted = {
        "as": address_space_bytes,
        "core": 0,
        "cpu": PROCESSOR_S,
        "fsize": file_bytes,
        "nofile": descriptors,
        "nproc": processes,
    }
    now = current_limits()
    return {name: value if now[name] == _INFINITY else min(value, now[name]) for name, value in wanted.items()}


def lower_limits(wanted: dict[str, int]) -> None:
    """Lower the limits of this process, soft and hard.

    Args:
        wanted: What `lowered_limits` says.
    """
    for name, value in wanted.items():
        checked(lib.native_set_limit(_KINDS[name], value), name)


def current_limits() -> dict[str, int]:
    """Read the hard limits back.

    Returns:
        Name to value; -1 is infinity.
    """
    values = ffi.new("int64_t[]", len(_KINDS))
    checked(lib.native_hard_limits(_NUMBERS, len(_KINDS), values), "limits")
    return dict(zip(_KINDS, values, strict=True))


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not on the list."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            checked(lib.native_close_range(first, fd - 1, 0), "close_range")
        first = fd + 1
    checked(lib.native_close_range(first, _HIGHEST_DESCRIPTOR, 0), "close_range")


def open_descriptors(most: int) -> list[int]:
    """List the open descriptors of this process, by asking the kernel for each number that the limit allows.

    Args:
        most: The hard limit.

    Returns:
        Descriptor numbers, ascending.
    """
    end = min(most, _MOST_DESCRIPTORS)
    numbers = ffi.new("int[]", end)
    return list(numbers[0 : lib.native_open_descriptors(numbers, end)])


def is_open(fd: int) -> bool:
    """Say whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

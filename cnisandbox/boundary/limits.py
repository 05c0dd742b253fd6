"""Resource limits and descriptors.

Privilege: none; limits are only lowered.
"""

import os
import resource

from cnisandbox.boundary.syscalls import checked, lib

# LIMIT: bytes of address space; an interpreter with everything loaded maps under 100 MiB, Go programs reserve more.
ADDRESS_SPACE_BYTES = 1 << 30
# LIMIT: seconds of processor time; the slowest ADD seen needs a tenth of one.
PROCESSOR_S = 60
# LIMIT: descriptors; a call needs about ten.
DESCRIPTORS = 64

_HIGHEST_DESCRIPTOR = 0xFFFFFFFF
# LIMIT: how far to look where no limit was lowered; nothing of ours opens as many.
_MOST_DESCRIPTORS = 1024


def lower_limits(*, file_bytes: int, processes: int, address_space_bytes: int = ADDRESS_SPACE_BYTES) -> None:
    """Lower the limits of this process, soft and hard.

    Args:
        file_bytes: How long a file it may write.
        processes: How many processes its user may have while it makes another; 0 for none.
        address_space_bytes: How much memory it may map.
    """
    for kind, value in (
        (resource.RLIMIT_AS, address_space_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, PROCESSOR_S),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_NPROC, processes),
    ):
        hard = resource.getrlimit(kind)[1]
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lowest, lowest))


def current_limits() -> dict[str, int]:
    """Read the hard limits back.

    Returns:
        Name to value; -1 is infinity.
    """
    kinds = ("AS", "CORE", "CPU", "FSIZE", "NOFILE", "NPROC")
    return {kind.lower(): resource.getrlimit(getattr(resource, "RLIMIT_" + kind))[1] for kind in kinds}


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor that is not on the list."""
    first = 0
    for fd in sorted(keep):
        if fd > first:
            checked(lib.native_close_range(first, fd - 1, 0), "close_range")
        first = fd + 1
    checked(lib.native_close_range(first, _HIGHEST_DESCRIPTOR, 0), "close_range")


def open_descriptors() -> list[int]:
    """List the open descriptors of this process, by asking the kernel for each number that the limit allows.

    Returns:
        Descriptor numbers, ascending.
    """
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return [fd for fd in range(min(highest, _MOST_DESCRIPTORS)) if is_open(fd)]


def is_open(fd: int) -> bool:
    """Say whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

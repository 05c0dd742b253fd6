"""Capabilities by name, and the credentials of a task as /proc shows them.

Source: capabilities(7), proc_pid_status(5).
"""

from typing import NamedTuple

from cnisandbox.cli.demonstration.processes import CAPABILITIES

NAMES = tuple(f"CAP_{name.upper()}" for name in CAPABILITIES)


def names_of(mask: int) -> list[str]:
    """Name the capabilities of a set, in the kernel's order; one that is newer than the list gets its number."""
    return [NAMES[bit] if bit < len(NAMES) else f"CAP_{bit}" for bit in range(mask.bit_length()) if mask >> bit & 1]


def name_of(number: int) -> str:
    """Name a capability."""
    return names_of(1 << number)[0]


class Credential(NamedTuple):
    """What a task may do.

    Attributes:
        uid: The effective one.
        effective, permitted, bounding: Capability sets as bit masks.
        has_own_userns: Whether it is in another user namespace than the machine's, where its capabilities count.
    """

    uid: int
    effective: int
    permitted: int
    bounding: int
    has_own_userns: bool = False


def parse_status(text: str) -> Credential:
    """Read the credential out of a task's status.

    Args:
        text: The content of /proc/PID/task/TID/status.
    """
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    effective, permitted, bounding = (int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapBnd"))
    return Credential(int(lines["Uid"].split()[1]), effective, permitted, bounding)

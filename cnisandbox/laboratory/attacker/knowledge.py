"""What an attacker knows when he begins, and what he says afterwards."""

import errno
import struct
from collections.abc import Callable
from typing import NamedTuple

STATE_DIRECTORY = "/var/lib/cni/networks"
ATTEST_FILE = "/run/attestations"
SECRET_FILE = "/run/private/secret"
OPEN_DIRECTORY = "/run/open"
PLUGIN_DIRECTORY = "/run/plugins"

# Numbers at which the arena keeps descriptors open when it forks the worker, as a careless runtime might.
HOST_NETNS_FD, HOST_SOCKET_FD, HOST_NETLINK_FD, HOST_DIRECTORY_FD, HOST_SYSCTL_FD = 40, 41, 42, 43, 44


# What stands in place of an errno when an attempt has failed by a mistake of its own.
DEFECT = -1


class Facts(NamedTuple):
    """What an attacker knows or can guess.

    Attributes:
        pids: Process ids on the host, by name.
        address: Where the secret is in the bystander's memory.
        handle: Kernel file handle of SECRET_FILE.
        netns_handle: Kernel file handle of the host's netns.
        input_fd: The pipe through which the attacked process is spoken to.
        state_fd: The engine's descriptor of STATE_DIRECTORY; -1 where that is opened by its path.
        attest_fd: The engine's descriptor of ATTEST_FILE; -1 elsewhere.
    """

    pids: dict[str, int]
    address: int = 0
    handle: bytes = b""
    netns_handle: bytes = b""
    input_fd: int = 0
    state_fd: int = -1
    attest_fd: int = -1


class Said(NamedTuple):
    """What an attempt says came of it; never taken for the outcome.

    Attributes:
        errno: What the kernel answered, 0 when nothing was refused; DEFECT: the attempt is wrong, see the text.
        value: A number that the attempt brought back.
        text: A text that it brought back.
    """

    errno: int
    value: int = 0
    text: str = ""


def make(attempt: Callable[[Facts], Said | None], facts: Facts) -> Said:
    """Make an attempt, and put into words what came of it.

    Returns:
        What it says. An attempt that does not find what it counts on, such as a link of the container in the host's
        netns, is refused with ENODATA.
    """
    try:
        return attempt(facts) or Said(0)
    except TimeoutError as error:
        return Said(error.errno or errno.ETIMEDOUT)
    except OSError as error:
        return Said(error.errno or errno.EIO)
    except MemoryError:
        return Said(errno.ENOMEM)
    except (LookupError, ValueError, struct.error):
        return Said(errno.ENODATA)
    except Exception as error:
        return Said(DEFECT, 0, f"{type(error).__name__}: {error}")

"""What the processes of a run are told, when the call has come for which they were forked ahead.

    entry ── socket of its own for each ──▶ monitor, opener, worker
             the plan, and copies of the descriptors that it names

Both sides are forks of one process; the sockets are closed before a netns is entered or a filter loaded. A plan is
written by the entry alone, of what it has validated: it holds nothing of standard input and nothing of CNI_ARGS, which
is a part of the environment and goes to the worker as the bytes that it came as.

Privilege: everything in the entry and in the worker; monitor and opener are confined as far as they can be ahead.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import array
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from cnisandbox.errors import BoundaryViolation
from cnisandbox.hints import NamedTuple
from cnisandbox.runner.plan import Plan, read_plan

# Gets a process ready to wait: one that has the role.
Settle = Callable[[str], None]

_HEAD = struct.Struct("=II")
# LIMIT: state directories of a profile, with a netns, a log and three standard descriptors; the kernel takes 253.
_DESCRIPTORS = 128


class Told(NamedTuple):
    """What one process is told.

    Attributes:
        plan: The run.
        more: What only this process is told.
        descriptors: What only this process is given.
    """

    plan: Plan
    more: bytes
    descriptors: tuple[int, ...]


def tell(
    end: _socket.socket, written: tuple[bytes, list[int]], more: bytes = b"", descriptors: Sequence[int] = ()
) -> None:
    """Tell a process that waits what it is for, and let go of the socket.

    Args:
        end: The socket.
        written: The plan, as `write_plan` writes it.
        more: What only this process is told.
        descriptors: What only this process is given.
    """
    text, shared = written
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [*shared, *descriptors]))
    # One that has ended says why to whoever waits for it to be confined; or it has not, and that is an error too.
    with suppress(BrokenPipeError):
        # ORDER: all at once; after the head alone it would wake up, and wait again.
        data = _HEAD.pack(len(text), len(more)) + text + more
        sent = end.sendmsg([data], [rights], _socket.MSG_NOSIGNAL)
        end.sendall(data[sent:], _socket.MSG_NOSIGNAL)
    end.close()


def wait(end: _socket.socket) -> Told:
    """Wait to be told; whom nobody tells anything ends.

    Raises:
        BoundaryViolation: what came is cut off.
    """
    head, ancillary, flags, _ = end.recvmsg(
        _HEAD.size, _socket.CMSG_SPACE(4 * _DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC | _socket.MSG_WAITALL
    )
    if not head:
        os._exit(0)
    if len(head) != _HEAD.size or flags & _socket.MSG_CTRUNC:
        raise BoundaryViolation("receive plan: it is cut off")
    text_length, more_length = _HEAD.unpack(head)
    data = end.recv(text_length + more_length, _socket.MSG_WAITALL)
    if len(data) != text_length + more_length:
        raise BoundaryViolation("receive plan: it is cut off")
    end.close()
    fds = array.array("i")
    for _, _, content in ancillary:
        fds.frombytes(content)
    plan, rest = read_plan(data[:text_length], list(fds))
    return Told(plan, data[text_length:], tuple(rest))

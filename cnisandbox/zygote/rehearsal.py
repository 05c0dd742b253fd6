"""A call that nobody has asked for, by which the zygote learns which pages of memory calls use.

    zygote ── fork ▶ stage         in namespaces of its own, with empty state directories; is the launcher
                       ├─ fork ▶ container    has a netns
                       └─ fork ▶ slot ─▶ engine, with its workers; stops where it would write its result
                                 or keeper, with its own; stops where it would write what everybody attests, and
                                 where the plugin waits

What is learned is used by `boundary/pages.py`, and by nothing else: without it calls take longer.

Privilege: everything the runtime has, as a slot; the plugin's own code is confined as in every call. Nothing that
others see is changed: links are those of network namespaces that end with the rehearsal, state is in a tmpfs.
"""

import _socket
import os
import select
import signal
import time
from array import array
from collections.abc import Callable
from contextlib import suppress

from cnisandbox.boundary import namespaces, prctl, processors, view
from cnisandbox.boundary.pages import Pages, merged, used_pages
from cnisandbox.boundary.state import state_paths
from cnisandbox.boundary.syscalls import lib
from cnisandbox.zygote import protocol
from cnisandbox.zygote.slot import Ends, Play, Served, live, own_facts

# LIMIT: seconds; it takes a tenth of one.
_TIME_LIMIT_S = 10.0
_LOOK_AGAIN_S = 0.001
_PIPE_BYTES = 4096
_BUILD_ID = bytes(32)
_IPAM = '{"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}'
_BRIDGE = f'"cniVersion": "1.0.0", "name": "x", "type": "bridge", "isDefaultGateway": true, "ipam": {_IPAM}'
# What most calls ask for, and what is asked for where the kernel refuses that: here, where it has no nf_tables. None of
# loopback, and none of host-local, which is called by itself only for plugins of others: each takes some 2 MiB, and the
# zygote has 60.
NETCONFS = {"bridge": (f'{{{_BRIDGE}, "ipMasq": true}}', f"{{{_BRIDGE}}}")}
_LEVELS = ("mediated", "hardened")


def rehearse(served: Served, play: Play, mounts_fd: int) -> dict[str, Pages]:
    """Have calls served, and look at what they have used.

    Args:
        served: Whose calls.
        play: Has them served, where they have no influence on anything, with the parameters of ADDs.
        mounts_fd: What is made ahead of them is made with that.

    Returns:
        Role of a process to its pages; empty when the rehearsal has failed.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            leave_the_server()
            os.write(write_fd, _format(play(served, _enter_stage(), mounts_fd)))
        except Exception as error:  # noqa: BLE001 - whatever it is, calls are served without what could be learned
            os.write(2, f"cnisandbox: rehearse: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(1)
    os.close(write_fd)
    said = read_to_end(read_fd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return _parse(said)


def leave_the_server() -> None:
    """Have a fork end with us, and tell the server nothing."""
    # The server's handler writes to a pipe, which its descendants close.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _die_with_parent()


def _die_with_parent() -> None:
    prctl.set_pdeathsig(signal.SIGKILL)


def read_to_end(fd: int) -> bytes:
    """Read what a child says until it has ended, or takes too long: then nothing; closes the descriptor."""
    deadline = time.monotonic() + _TIME_LIMIT_S
    pieces: list[bytes] = []
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    try:
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            piece = os.read(fd, 1 << 16)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    finally:
        os.close(fd)
    return b""


def _enter_stage() -> dict[str, str]:
    """Leave everything that others see; returns the parameters of all calls."""
    namespaces.enter_own_namespaces()
    view.make_private()
    for path in state_paths():
        os.makedirs(path, 0o755, exist_ok=True)
        view.cover(path)
    namespaces.enter_empty_netns()
    return {
        "CNI_COMMAND": "ADD",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/bin",
    }


def play_of(name: str) -> Play | None:
    """Make a play of a plugin of ours, of ADDs; None where none was written."""
    if name not in NETCONFS:
        return None
    wanted, instead = NETCONFS[name]

    def play(served: Served, variables: dict[str, str], mounts_fd: int) -> dict[str, Pages]:
        try:
            return _play_at_each_level(served, wanted, variables, mounts_fd)
        except ChildProcessError:
            return _play_at_each_level(served, instead, variables, mounts_fd)

    return play


def _play_at_each_level(served: Served, netconf: str, variables: dict[str, str], mounts_fd: int) -> dict[str, Pages]:
    found = [
        _play(served, netconf, in_new_container(variables) | {"CNISANDBOX_LEVEL": level}, mounts_fd)
        for level in _LEVELS
    ]
    return {role: merged(pages[role] for pages in found) for role in found[0]}


def _play(served: Served, netconf: str, variables: dict[str, str], mounts_fd: int) -> dict[str, Pages]:
    result_fd, full_fd = os.pipe2(os.O_CLOEXEC)
    fill(full_fd)
    pid = begin(served, variables, (pipe_with(netconf.encode()), full_fd, 2), mounts_fd)
    os.close(full_fd)
    wait_until_it_writes(pid, lambda: 1)
    pages = pages_of(pid)
    pages.pop("", None)  # one that has just ended
    empty(result_fd)
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(os.read(result_fd, _PIPE_BYTES).decode("utf-8", "replace"))
    return pages


def in_new_container(variables: dict[str, str]) -> dict[str, str]:
    """Complete the parameters of a call: it is for another container than those before."""
    pid = _fork_container()
    return variables | {"CNI_CONTAINERID": f"x{pid}", "CNI_NETNS": f"/proc/{pid}/ns/net"}


def _fork_container() -> int:
    """Make a process with a netns of its own; it ends with us."""
    ready_fd, tell_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _die_with_parent()
        namespaces.enter_empty_netns()
        os.write(tell_fd, b".")
        while True:
            signal.pause()
    os.read(ready_fd, 1)
    return pid


def begin(served: Served, variables: dict[str, str], standard: tuple[int, int, int], mounts_fd: int) -> int:
    """Fork a slot, and have it take a call as of a launcher, which we are.

    Args:
        served: Whose call it is.
        variables: The call's environment.
        standard: Its standard input, output and error.
        mounts_fd: See `Ends`.

    Returns:
        Its process id.

    Raises:
        ChildProcessError: it has not taken it.
    """
    listener, told, control = _ends()
    anywhere = processors.own_processors()
    ends = Ends(listener, control, _BUILD_ID, os.getpid(), anywhere, own_facts(), mounts_fd)
    pid = os.fork()
    if pid == 0:
        try:
            live(served, ends, {})
        finally:
            os._exit(1)
    launcher = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    launcher.connect(listener.getsockname())
    # Closed here: its end is to end the conversation.
    listener.close()
    control.close()
    # It fetches what we have at these numbers.
    own = [os.dup(number) for number in range(3)]
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
    status_fd = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        words = [f"{name}={value}" for name, value in variables.items()]
        _converse(launcher, ["", *words] if served.has_subject else words, status_fd)
        processors.allow(anywhere)  # the slot has kept us off its processor, as a zygote
    finally:
        for number, fd in enumerate(own):
            os.dup2(fd, number)
        for fd in (*own, status_fd):
            os.close(fd)
        launcher.close()
        told.close()
    return pid


def _ends() -> tuple[_socket.socket, _socket.socket, _socket.socket]:
    """Make what a slot has of its zygote: where launchers connect, and two ends of a connection."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    listener.bind("")  # the kernel chooses a name, which counts in our netns: nobody else is there
    listener.listen(1)
    return (listener, *_socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET))


def _converse(launcher: _socket.socket, words: list[str], status_fd: int) -> None:
    _, _, nonce = protocol.HELLO.unpack(launcher.recv(protocol.HELLO.size))
    environment = "\0".join(words).encode()
    launcher.send(protocol.REQUEST.pack(protocol.PROTOCOL, nonce, status_fd, len(environment)) + environment)
    if launcher.recv(1) != protocol.TAKEN:
        raise ChildProcessError("the slot has not taken the call")


def pipe_with(data: bytes) -> int:
    """Make a pipe in which something stands; returns the end that it is read from."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.write(write_fd, data)
    os.close(write_fd)
    return read_fd


def fill(fd: int) -> None:
    """Fill a pipe up: who writes to it waits."""
    os.set_blocking(fd, False)
    with suppress(BlockingIOError):
        while os.write(fd, bytes(_PIPE_BYTES)):
            pass
    os.set_blocking(fd, True)


def empty(fd: int) -> bytes:
    """Take everything out of a pipe; returns what came last."""
    os.set_blocking(fd, False)
    data = b""
    with suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 16):
            data = piece
    os.set_blocking(fd, True)
    return data


def wait_until_it_writes(pid: int, descriptor: Callable[[], int]) -> None:
    """Wait until a process stands in write() to a descriptor.

    Raises:
        ChildProcessError: it has ended.
    """
    number = lib.seccomp_syscall_resolve_name(b"write")
    while not _read(f"/proc/{pid}/syscall").startswith(f"{number} {descriptor():#x} "):
        require_alive(pid)
        time.sleep(_LOOK_AGAIN_S)


def require_alive(pid: int) -> None:
    """Insist that a child has not ended.

    Raises:
        ChildProcessError: it has.
    """
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        raise ChildProcessError(f"process {pid} has ended")


def pages_of(pid: int) -> dict[str, Pages]:
    """Say what a process has used, and those below it; by their roles."""
    found = {_role(pid): used_pages(pid)}
    for child in _children(pid):
        with suppress(ProcessLookupError):  # it has ended
            found |= pages_of(child)
    return found


def _children(pid: int) -> list[int]:
    return [int(word) for word in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _role(pid: int) -> str:
    """Say what a process calls itself: "cnisandbox: host worker [bridge eth0]"."""
    return _read(f"/proc/{pid}/cmdline").partition(": ")[2].partition(" [")[0]


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _PIPE_BYTES).decode("ascii", "replace")
    finally:
        os.close(fd)


def _format(pages: dict[str, Pages]) -> bytes:
    lines = [":".join([role, *(ranges.tobytes().hex() for ranges in of_role)]) for role, of_role in pages.items()]
    return "\n".join(lines).encode()


def _parse(text: bytes) -> dict[str, Pages]:
    pages = {}
    for line in text.decode().splitlines():
        role, *of_role = line.split(":")
        pages[role] = Pages(*(array("Q", bytes.fromhex(ranges)) for ranges in of_role))
    return pages

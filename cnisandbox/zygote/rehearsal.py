"""A call that nobody has asked for, by which the zygote learns which pages of memory calls use.

    zygote ── fork ▶ stage         in namespaces of its own, with empty state directories
                       ├─ fork ▶ container    has a netns
                       └─ fork ▶ slot ─▶ engine, with its workers; stops where it would write its result

What is learned is used by `boundary/pages.py`, and by nothing else: without it calls take longer.

Privilege: everything the runtime has, as a slot; the plugin's own code is confined as in every call. Nothing that
others see is changed: links are those of network namespaces that end with the rehearsal, state is in a tmpfs.
"""

import fcntl
import os
import select
import signal
import time
from collections.abc import Callable

from cnisandbox.boundary import namespaces, prctl, view
from cnisandbox.boundary.ahead import Settle
from cnisandbox.boundary.pages import Pages, used_pages
from cnisandbox.boundary.state import state_paths
from cnisandbox.boundary.syscalls import lib
from cnisandbox.boundary.workers import Ahead
from cnisandbox.plugin import Plugin, run

# LIMIT: seconds; it takes a tenth of one.
_TIME_LIMIT_S = 10.0
_LOOK_AGAIN_S = 0.001
_PIPE_BYTES = 4096
# What most calls ask for.
_ADDRESSES = '"ipam": {"type": "host-local", "ranges": [[{"subnet": "192.0.2.0/24"}]]}'
_NETCONFS = {
    "bridge": f'{{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "isDefaultGateway": true, {_ADDRESSES}}}',
    "host-local": f'{{"cniVersion": "1.0.0", "name": "x", "type": "x", {_ADDRESSES}}}',
    "loopback": '{"cniVersion": "1.0.0", "name": "x", "type": "loopback"}',
}


def rehearse(plugin: type[Plugin], prepare: Callable[[Settle, int], Ahead], mounts_fd: int) -> dict[str, Pages]:
    """Have a plugin serve an ADD, and look at what it has used.

    Args:
        plugin: The plugin.
        prepare: Makes what can be made ahead.
        mounts_fd: What it makes that with.

    Returns:
        Role of a process to its pages; empty when the rehearsal has failed.
    """
    if plugin.name not in _NETCONFS:
        return {}
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            # The server's handler writes to a pipe, which its descendants close.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with_parent()
            _stage(plugin, prepare, mounts_fd, write_fd)
        except Exception as error:  # noqa: BLE001 - whatever it is, calls are served without what could be learned
            os.write(2, f"cnisandbox: rehearse: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(1)
    os.close(write_fd)
    said = _read_to_end(read_fd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return _parse(said)


def _die_with_parent() -> None:
    prctl.set_pdeathsig(signal.SIGKILL)


def _read_to_end(fd: int) -> bytes:
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


def _stage(plugin: type[Plugin], prepare: Callable[[Settle, int], Ahead], mounts_fd: int, write_fd: int) -> None:
    """Have a slot serve the call here, and write down what its processes have used."""
    namespaces.enter_own_namespaces()
    view.make_private()
    for path in state_paths():
        os.makedirs(path, 0o755, exist_ok=True)
        view.cover(path)
    namespaces.enter_empty_netns()
    variables = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "x",
        "CNI_IFNAME": "eth0",
        "CNI_NETNS": f"/proc/{_fork_container()}/ns/net",
        "CNI_PATH": "/usr/bin",
    }
    netconf_fd, result_fd, full_fd = _standard(_NETCONFS[plugin.name].encode())
    pid = os.fork()
    if pid == 0:
        _die_with_parent()
        for target, fd in enumerate((netconf_fd, full_fd)):
            os.dup2(fd, target)
        os.environ.clear()
        os.environ.update(variables)
        run(plugin, prepare(lambda _: None, mounts_fd))
    os.close(full_fd)
    _wait_until_it_writes(pid)
    processes = {_role(process): process for process in (pid, *_children(pid))}
    processes.pop("", None)  # one that has ended
    pages = {role: used_pages(process) for role, process in processes.items()}
    os.read(result_fd, _PIPE_BYTES)
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(os.read(result_fd, _PIPE_BYTES).decode("utf-8", "replace"))
    os.write(write_fd, _format(pages))


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


def _standard(netconf: bytes) -> tuple[int, int, int]:
    """Make a netconf's standard input, and a standard output that is full: who writes to it waits."""
    netconf_fd, fd = os.pipe2(os.O_CLOEXEC)
    os.write(fd, netconf)
    os.close(fd)
    result_fd, full_fd = os.pipe2(os.O_CLOEXEC)
    capacity = fcntl.fcntl(full_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.write(full_fd, bytes(capacity))
    return netconf_fd, result_fd, full_fd


def _wait_until_it_writes(pid: int) -> None:
    """Wait until a process stands in write() to its standard output."""
    wanted = f"{lib.seccomp_syscall_resolve_name(b'write')} 0x1 "
    while not _read(f"/proc/{pid}/syscall").startswith(wanted):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise ChildProcessError(f"process {pid} has ended")
        time.sleep(_LOOK_AGAIN_S)


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
    lines = [
        f"{first} {count} {kind} {role}\n"
        for role, of_role in pages.items()
        for kind, ranges in of_role._asdict().items()
        for first, count in ranges
    ]
    return "".join(lines).encode()


def _parse(text: bytes) -> dict[str, Pages]:
    pages: dict[str, Pages] = {}
    for line in text.decode().splitlines():
        first, count, kind, role = line.split(" ", 3)
        of_role = pages.setdefault(role, Pages([], []))
        (of_role.written if kind == "written" else of_role.read).append((int(first), int(count)))
    return pages

"""Slots for plugins that are not ours: each becomes the entry of one run (cnisandbox/runner/entry.py).

Which plugin is meant, and how it is run, is what its shim was given when the plugin was wrapped; the shim says it
before the environment. The profile is read when the call has come, so that what changed on the disk counts.

Privilege: everything the runtime has, until the run drops it.
"""

import os
import signal
import sys
from contextlib import suppress

from cnisandbox.boundary import seccomp
from cnisandbox.boundary.pages import Pages
from cnisandbox.boundary.state import state_paths
from cnisandbox.cli import shim
from cnisandbox.hints import NoReturn
from cnisandbox.netlink.datagram import NETLINK_ROUTE, encode_datagram
from cnisandbox.netlink.message import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Message
from cnisandbox.netlink.tables.link import RTM_GETLINK, RTM_NEWLINK
from cnisandbox.profile import source  # noqa: F401 - for a profile that nobody has read yet: nothing is imported in a call
from cnisandbox.runner.entry import Ahead, Options, Slot, make_ahead, run
from cnisandbox.zygote import protocol, rehearsal
from cnisandbox.zygote.slot import Served, Taken

# A plugin that every machine has: asks what bridge asks, says so, and waits.
_PROGRAM = """
import _socket, os, sys, time
os.read(0, 4096)
for word in sys.argv[1:]:
    end = _socket.socket(16, 3, 0)
    end.bind((0, 0))
    end.sendto(bytes.fromhex(word), (0, 0))
    end.recv(1 << 16)
os.write(os.open("/proc/sys/net/ipv4/ip_forward", 1), b"1")
os.write(2, b".")
time.sleep(60)
"""
_LINK = {"family": 0, "type": 0, "ifindex": 0, "flags": 0, "change": 0}
_NAMED = {**_LINK, "ifindex": 2}  # the first link that is made in a netns
_MAKES = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
_MESSAGES = (
    Message(RTM_GETLINK, NLM_F_REQUEST, 0, 0, _LINK, {"ifname": "cni0"}),
    Message(RTM_NEWLINK, _MAKES, 0, 0, _LINK, {"ifname": "cni0", "linkinfo": {"kind": "bridge"}}),
    Message(RTM_GETLINK, NLM_F_REQUEST, 0, 0, _NAMED, {}),
    Message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0, {**_NAMED, "flags": 1, "change": 1}, {}),
)
_NETCONF = b'{"cniVersion": "1.0.0", "name": "x", "type": "bridge", "bridge": "cni0"}'


def compile_filters() -> None:
    """Do once what every run would do."""
    seccomp.keeper_filter()
    seccomp.monitor_filter(())
    for has_unix_sockets in (False, True):
        seccomp.foreign_filter((), is_mediated=True, has_unix_sockets=has_unix_sockets)


def play(served: Served, variables: dict[str, str], mounts_fd: int) -> dict[str, Pages]:
    """Have the runner serve a call, and say what its processes have used."""
    attest_path = f"{state_paths()[0]}/attest"
    os.mkfifo(attest_path, 0o600)
    attest_fd = os.open(attest_path, os.O_RDWR | os.O_CLOEXEC)
    rehearsal.fill(attest_fd)
    said_fd, says_fd = os.pipe2(os.O_CLOEXEC)
    messages = [encode_datagram(NETLINK_ROUTE, [message]).hex() for message in _MESSAGES]
    arguments = ("-IS", "-c", _PROGRAM, *messages)
    options = Options(os.path.realpath(sys.executable), arguments, profile="bridge", attest_path=attest_path)
    standard = (rehearsal.pipe_with(_NETCONF), says_fd, says_fd)
    # A shim gives no arguments to what it stands before.
    served = served._replace(begin=lambda ahead, taken: run(options, Slot(taken.status_fd, ahead)))
    pid = rehearsal.begin(served, rehearsal.in_new_container(variables), standard, mounts_fd)
    try:
        # The worker, before it is the plugin, waits for the keeper, who waits for us.
        rehearsal.wait_until_it_writes(pid, lambda: _number_of(pid, attest_path))
        pages = {"worker": rehearsal.pages_of(pid)["worker"]}
        rehearsal.empty(attest_fd)
        said = os.read(said_fd, 4096)
        if said != b".":
            raise ChildProcessError(said.decode("utf-8", "replace"))
        later = rehearsal.pages_of(pid)
    finally:
        os.kill(pid, signal.SIGKILL)  # everybody goes with the keeper, who does not go with us
        os.waitpid(pid, 0)
    return pages | {role: later[role] for role in ("keeper", "monitor")}


def _number_of(pid: int, path: str) -> int:
    """Say which descriptor of a process is a file; -1 for none."""
    directory = f"/proc/{pid}/fd"
    facts = os.stat(path)
    for name in os.listdir(directory):
        with suppress(OSError):  # it was closed meanwhile
            if os.path.samestat(os.stat(f"{directory}/{name}"), facts):
                return int(name)
    return -1


def _begin(ahead: Ahead, taken: Taken) -> NoReturn:
    shim.serve(taken.subject, Slot(taken.status_fd, ahead))


SERVED = Served(protocol.RUNNER, lambda settle, _mounts_fd: make_ahead(settle), _begin, play, has_subject=True)

"""The processes of a plugin call, as /proc shows them while the call waits for its netconf.

A runtime that does not close a plugin's standard input makes the engine wait. By then everybody has dropped what they
drop, and nothing has been parsed: a moment that lasts as long as one likes to look.
"""

import contextlib
import os
import subprocess
import time
from typing import NamedTuple

from cnisandbox.cli.demonstration import scene
from cnisandbox.errors import IoFailure
from cnisandbox.runtime.execute import Call

# As the kernel spells them in /proc/PID/status (proc_pid_status(5)); in this order they are shown.
FIELDS = (
    "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp",
)  # fmt: skip
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip

_TITLE = "cnisandbox: "
_NONE = "0000000000000000"
_NET_ADMIN = f"{1 << CAPABILITIES.index('net_admin'):016x}"
# Who may hold CAP_NET_ADMIN; nobody may hold anything else.
_NETWORK_WORKERS = ("host worker", "container worker")
_PARKED = "0 0x0 "  # /proc/PID/syscall of a process that waits in read(0)
_PARKING_TIME_LIMIT_S = 20.0


class Process(NamedTuple):
    """One process of a call.

    Attributes:
        role: "engine", "host worker", ...
        pid: In the pid namespace of the demonstration.
        netns: "host", "pod" or "another".
        status: The lines of FIELDS in /proc/PID/status, each as the kernel writes it.
    """

    role: str
    pid: int
    netns: str
    status: dict[str, str]

    def faults(self, uid: int, gid: int) -> list[str]:
        """Say what is not as it should be.

        Args:
            uid: The service user's.
            gid: The service user's group.
        """
        capabilities = _NET_ADMIN if self.role in _NETWORK_WORKERS else _NONE
        wanted = {
            "Uid": " ".join([str(uid)] * 4),
            "Gid": " ".join([str(gid)] * 4),
            "Groups": "",
            "CapInh": _NONE,
            "CapPrm": capabilities,
            "CapEff": capabilities,
            "CapBnd": _NONE,
            "CapAmb": _NONE,
            "NoNewPrivs": "1",
            "Seccomp": "2",
        }
        differing = [name for name in FIELDS if self.status[name] != wanted[name]]
        faults = [f"{self.role}: {name} is {self.status[name]!r}, not {wanted[name]!r}" for name in differing]
        netns = "pod" if self.role == "container worker" else "host"
        if self.netns != netns:
            faults.append(f"{self.role}: it is in the netns of {self.netns}, not of {netns}")
        return faults


def capability_names(mask: str) -> str:
    """Name the capabilities of a set as /proc shows it; "none" for the empty one."""
    number = int(mask, 16)
    names = [f"cap_{name}" for bit, name in enumerate(CAPABILITIES) if number >> bit & 1]
    unknown = number >> len(CAPABILITIES)
    return " ".join([*names, *([f"unknown {unknown:x}"] if unknown else [])]) or "none"


class HeldCall:
    """A plugin call that waits for its netconf.

    Args:
        path: The plugin.
        call: Its environment.
    """

    def __init__(self, path: str, call: Call) -> None:
        self._netns = call.netns
        self._child = subprocess.Popen(  # noqa: S603 - a plugin of ours
            [path], env=call.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def processes(self) -> list[Process]:
        """Wait until every process of the call is at rest, and read what the kernel says about each.

        Raises:
            IoFailure: They do not come to rest.
        """
        deadline = time.monotonic() + _PARKING_TIME_LIMIT_S
        while time.monotonic() < deadline and self._child.poll() is None:
            # a process ends, or has no title yet, while it is looked at
            with contextlib.suppress(OSError, KeyError):
                pids = [self._child.pid, *_children(self._child.pid)]
                if all(_read(pid, "syscall").startswith(_PARKED) for pid in pids):
                    return [self._process(pid) for pid in pids]
            time.sleep(0.01)
        self.kill()
        raise IoFailure("look at the processes of a call: they did not come to rest", self._said())

    def _process(self, pid: int) -> Process:
        title = _read(pid, "cmdline").replace("\0", " ").strip()
        if not title.startswith(_TITLE):
            raise KeyError(title)
        lines = dict(line.split(":", 1) for line in _read(pid, "status").splitlines())
        status = {name: " ".join(lines[name].split()) for name in FIELDS}
        netns = os.stat(f"/proc/{pid}/ns/net").st_ino
        known = {os.stat("/proc/self/ns/net").st_ino: "host", os.stat(self._netns).st_ino: "pod"}
        return Process(title.removeprefix(_TITLE).partition(" [")[0], pid, known.get(netns, "another"), status)

    def finish(self, netconf: bytes) -> tuple[int, bytes, bytes]:
        """Let the call go on to its end.

        Returns:
            Exit status, standard output, standard error.

        Raises:
            IoFailure: It takes too long.
        """
        try:
            stdout, stderr = self._child.communicate(netconf, timeout=scene.COMMAND_TIME_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise IoFailure("wait for a call: it is not done in time") from error
        scene.reap()
        return self._child.returncode, stdout, stderr

    def kill(self) -> None:
        """End it; its workers end with it."""
        self._child.kill()

    def _said(self) -> str:
        stdout, stderr = self._child.communicate()
        return (stderr or stdout).decode(errors="replace")


def _children(pid: int) -> list[int]:
    """The children of a process by asking each process for its parent: not every kernel lists them."""
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and int(name) != pid and f"\nPPid:\t{pid}\n" in _read(int(name), "status")
    ]


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()

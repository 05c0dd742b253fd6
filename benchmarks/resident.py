"""The zygote whose warm calls are measured, in a cgroup of its own by which it is counted."""

import os
import sys
import time
from contextlib import suppress
from typing import NamedTuple

from accounting import Cgroup
from measuring import CallFailed

# LIMIT: seconds until the zygote is ready; it makes a slot again after one second when that has failed.
_PATIENCE_S = 20.0
# Nothing has run for so long: longer than it lets a call go before it fills its pool.
_STILL_S = 0.03
# At the beginning nobody knows how many children there will be.
_STILL_AT_FIRST_S = 0.5
_LOOK_AGAIN_S = 0.003


class Idle(NamedTuple):
    """A zygote that has nothing to do.

    Attributes:
        pss_mib: Proportional set sizes: a page that n processes share counts one nth for each.
        processes: How many they are.
    """

    pss_mib: float
    processes: int


class Zygote:
    """`cnisandbox serve`, with its default pool, in the namespaces of this process.

    Args:
        group: The cgroup that it is started in, and nothing else.
        log: Path of what it says.
        plugin_dir: What CNI_PATH will name.
    """

    def __init__(self, group: Cgroup, log: str, plugin_dir: str) -> None:
        self._group = group
        self._processes = 1
        enter = " ".join(f"echo $$ > '{directory}/cgroup.procs';" for directory in sorted(set(group)))
        serve = f'{enter} exec "$0" -I -m cnisandbox.cli.main serve --plugin-dir {plugin_dir}'
        opened = [(os.POSIX_SPAWN_OPEN, fd, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for fd in (1, 2)]
        self.pid = os.posix_spawn("/bin/sh", ("sh", "-c", serve, sys.executable), os.environ, file_actions=opened)
        while not os.path.exists("/run/cnisandbox/zygote/bridge"):
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise CallFailed(f"start the zygote: it has ended; see {log}")
            time.sleep(_LOOK_AGAIN_S)
        self.wait_until_ready(_STILL_AT_FIRST_S)
        self._processes = len(group.pids())

    def pids(self) -> list[int]:
        """List it and its children."""
        return self._group.pids()

    def cpu_s(self) -> float:
        """Processor time of it and of all of its children."""
        return self._group.cpu_s()

    def wait_until_ready(self, still_s: float = _STILL_S) -> None:
        """Wait until it has as many children as at the beginning, and none of them does anything.

        Args:
            still_s: For how long.

        Raises:
            CallFailed: That does not come about.
        """
        deadline = time.monotonic() + _PATIENCE_S
        seen, since = self.cpu_s(), time.monotonic()
        while time.monotonic() - since < still_s:
            time.sleep(_LOOK_AGAIN_S)
            now = self.cpu_s()
            if now != seen or len(self._group.pids()) < self._processes:
                seen, since = now, time.monotonic()
            if since > deadline:
                raise CallFailed(f"wait for the zygote: {len(self._group.pids())} of {self._processes} processes")

    def memory(self) -> Idle:
        """Add up what it and its children take while they wait."""
        pids = self._group.pids()
        return Idle(round(sum(_pss_kib(pid) for pid in pids) / 1024, 1), len(pids))


def _pss_kib(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return 0

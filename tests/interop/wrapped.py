"""The reference plugins in a directory of their own, wrapped; and a watch over every execution of one.

/usr/local/lib/cnisandbox-test-…/          shims
/usr/local/lib/cnisandbox-test-…/.cnisandbox/   copies of /usr/lib/cni/*, byte for byte
"""

import contextlib
import importlib
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.interop.plugin_calls import REFERENCE_DIR

# From include/uapi/linux/fanotify.h; see fanotify(7).
_FAN_CLOEXEC, _FAN_CLASS_CONTENT = 0x1, 0x4
_FAN_MARK_ADD, _FAN_OPEN_EXEC_PERM, _FAN_ALLOW = 0x1, 0x40000, 0x1
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")
# Whoever is started while a watch goes on inherits this variable, and so do plugins from their runtime.
_MARK = "CNISANDBOX_TEST_MARK"
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@contextlib.contextmanager
def reference_plugins() -> Iterator[str]:
    """Copy the reference plugins to a directory that is root's alone all the way up, and at one path in every world."""
    if os.geteuid() != 0:
        pytest.skip("wrapping plugins needs root")
    directory = tempfile.mkdtemp(prefix="cnisandbox-test-", dir="/usr/local/lib")
    try:
        os.chmod(directory, 0o755)
        for name in os.listdir(REFERENCE_DIR):
            shutil.copy2(f"{REFERENCE_DIR}/{name}", directory)
        yield directory
    finally:
        shutil.rmtree(directory)


def cnisandbox(*arguments: str, expect: int = 0) -> str:
    """Run the command; what it printed."""
    command = [sys.executable, "-m", "cnisandbox.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=100)
    assert done.returncode == expect, f"{arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Execution(NamedTuple):
    """An execution of a program, seen before it begins: what the process is then, it is after.

    Attributes:
        program: Name of the file.
        verb: CNI_COMMAND.
        uids: Real, effective, saved and file system uid.
        capabilities: The sets by name, those that are not empty.
        no_new_privs: Whether it can gain any.
        seccomp: Mode.
    """

    program: str
    verb: str
    uids: tuple[int, ...]
    capabilities: dict[str, int]
    no_new_privs: int
    seccomp: int


class Watch:
    """Sees every execution of some files, whoever executes them, from wherever, under whatever name.

    The kernel holds each execution until it has been looked at (fanotify, FAN_OPEN_EXEC_PERM), so none is missed.

    Args:
        files: Files of the test's own.
        shared: Files of the machine: of these, executions below plugins that the test has had called.
    """

    def __init__(self, files: Sequence[str], shared: Sequence[str] = ()) -> None:
        self._shared = {os.path.basename(file) for file in shared}
        self._mark_of_test = f"{_MARK}={os.urandom(8).hex()}".encode()
        os.environ[_MARK] = self._mark_of_test.decode().partition("=")[2]
        self.executions: list[Execution] = []
        self.failures: list[str] = []
        self._libc: Any = importlib.import_module("ctypes").CDLL(None, use_errno=True)
        self._fd = self._libc.fanotify_init(_FAN_CLOEXEC | _FAN_CLASS_CONTENT, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd < 0:
            pytest.skip("kernel lacks fanotify")
        self._names = {}
        for file in (*files, *shared):
            self._mark(file)
            status = os.stat(file)
            self._names[status.st_dev, status.st_ino] = os.path.basename(file)
        self._end_reader, self._end_writer = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _mark(self, file: str) -> None:
        ctypes = importlib.import_module("ctypes")
        mask = ctypes.c_uint64(_FAN_OPEN_EXEC_PERM)
        if self._libc.fanotify_mark(self._fd, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(file)) != 0:
            os.close(self._fd)
            pytest.skip("kernel lacks fanotify permission events")

    def close(self) -> None:
        """End it; executions go on unseen from now on."""
        del os.environ[_MARK]
        os.write(self._end_writer, b"x")
        self._thread.join()
        for fd in (self._fd, self._end_reader, self._end_writer):
            os.close(fd)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._end_reader], [], [])
            if self._fd not in ready:
                return
            for *_, fd, pid in _EVENT.iter_unpack(os.read(self._fd, 4096)):
                try:
                    self._look(fd, pid)
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                finally:
                    os.write(self._fd, struct.pack("=iI", fd, _FAN_ALLOW))
                    os.close(fd)

    def _look(self, fd: int, pid: int) -> None:
        opened = os.fstat(fd)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        program = self._names[opened.st_dev, opened.st_ino]
        verbs = [text.partition(b"=")[2].decode() for text in environment if text.startswith(b"CNI_COMMAND=")]
        if program in self._shared and not (verbs and self._mark_of_test in environment):
            return
        self.executions.append(
            Execution(
                program=program,
                verb=verbs[0] if verbs else "",
                uids=tuple(map(int, status["Uid"].split())),
                capabilities={name: int(status[name], 16) for name in _SETS if int(status[name], 16)},
                no_new_privs=int(status["NoNewPrivs"]),
                seccomp=int(status["Seccomp"]),
            )
        )


@contextlib.contextmanager
def watched(*files: str, shared: Sequence[str] = ()) -> Iterator[Watch]:
    """Watch the executions of files (`Watch`); every one of them must have been seen."""
    watch = Watch(files, shared)
    try:
        yield watch
    finally:
        watch.close()
    assert watch.failures == []


def require_unprivileged(watch: Watch, uid: int) -> None:
    """Insist that nothing was executed with a privilege, or could have gained one."""
    assert watch.executions
    for seen in watch.executions:
        assert seen._replace(program="", verb="") == Execution("", "", (uid,) * 4, {}, 1, 2), seen

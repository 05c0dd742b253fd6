"""A kernel world of its own for a test: fresh network and mount namespaces, gone when the test is.

    machine ──┬── world ("host")      own netns: nothing but lo (up); own mount namespace: empty tmpfs on
              │                       /run, /var/lib/cni, /etc/cni and /etc/cnisandbox
              ├── world.netns("blue") a container netns, /run/netns/blue inside the world only
              └── world.netns("red")  another one

A holder process keeps the two namespaces. It ends when its standard input does, so a test run that is killed leaves
nothing behind: the namespaces go with their last process. Whatever was started from inside the world is found by its
namespaces and killed at the end.
"""

import builtins
import contextlib
import functools
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cnisandbox.errors import CniError

PRIVATE_DIRECTORIES = ("/run", "/var/lib/cni", "/etc/cni", "/etc/cnisandbox")
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
NETNS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# What a kernel may lack: name -> commands that succeed in an empty netns if the kernel has it.
FEATURES: dict[str, tuple[str, ...]] = {
    "bridge-vlan-filtering": ("ip link add br0 type bridge vlan_filtering 1",),
    "bridge-netfilter": ("test -e /proc/sys/net/bridge/bridge-nf-call-iptables",),
    "nft-bridge": ("nft add table bridge probe",),
    "nft-inet-nat": (
        "nft add table inet probe",
        "nft add chain inet probe c '{ type nat hook postrouting priority 100; }'",
    ),
    "iptables-nft": ("iptables-nft -w -t nat -S",),
    "ip6tables-nft": ("ip6tables-nft -w -t nat -S",),
    "iptables-legacy": ("iptables-legacy -w -t nat -S",),
    "modules": ("test -e /proc/sys/kernel/modprobe",),
    "ipv6": ("test -e /proc/sys/net/ipv6/conf/all/disable_ipv6",),
    "overlay": (
        "mount -t tmpfs probe /mnt",
        "cd /mnt && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w probe m",
    ),
}
_LINK_KINDS_ON_A_PARENT = {"ipvlan", "ipvtap", "macsec", "macvlan", "macvtap", "vlan"}
_LINK_KIND_OPTIONS = {"vlan": "id 5", "vrf": "table 10", "vxlan": "id 5 dstport 4789", "gre": "local 192.0.2.1"}


class Completed(NamedTuple):
    """What a command that has ended left behind."""

    stdout: bytes
    stderr: bytes
    returncode: int


class World:
    """Network and mount namespaces of their own; use the fixture `world`.

    Attributes:
        pid: The holder process, whose /proc entries name the namespaces.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []
        for directory in PRIVATE_DIRECTORIES:  # mount points only: what is written lands in the tmpfs
            os.makedirs(directory, exist_ok=True)
        mounts = " && ".join(f"mount -t tmpfs -o mode=755 world {directory}" for directory in PRIVATE_DIRECTORIES)
        script = f"{mounts} && mkdir -p /run/netns /run/lock && ip link set lo up && echo ready && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._holder.pid
        try:
            self._await_holder(deadline_s=10)
            self._mnt_fd = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            self._net_fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self._end_holder()
            raise

    def _await_holder(self, deadline_s: float) -> None:
        stdout, stderr = self._holder.stdout, self._holder.stderr
        assert stdout is not None
        assert stderr is not None
        ready, _, _ = select.select([stdout], [], [], deadline_s)
        if not ready or stdout.readline() != b"ready\n":
            self._holder.kill()
            raise RuntimeError(f"create world: {stderr.read().decode(errors='replace').strip() or 'no answer'}")

    def run(
        self,
        argv: Sequence[str],
        *,
        netns: str | None = None,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        expect: int | None = 0,
        timeout: float = 10,
    ) -> Completed:
        """Run a command in the world to its end.

        Args:
            argv: Program and arguments; a relative path is relative to the test's directory.
            netns: Name of a netns of this world instead of its own.
            stdin: What it reads.
            env: Variables added to the environment.
            expect: The status it has to end with; None: any.
            timeout: Seconds, after which it is killed with its process group.

        Raises:
            AssertionError: It ended otherwise than expected, or ran out of time.
        """
        child = self.popen(argv, netns=netns, env=env)
        try:
            stdout, stderr = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_group(child)
            stdout, stderr = child.communicate()
            raise AssertionError(f"{argv}: not done after {timeout} s\n{_text(stdout)}\n{_text(stderr)}") from None
        except BaseException:
            _kill_group(child)
            raise
        finally:
            if child.returncode is not None:
                self._started.remove(child)
        if expect is not None and child.returncode != expect:
            raise AssertionError(f"{argv}: status {child.returncode}, not {expect}\n{_text(stdout)}\n{_text(stderr)}")
        return Completed(stdout, stderr, child.returncode)

    def popen(
        self,
        argv: Sequence[str],
        *,
        netns: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a command in the world, in a session of its own; it is killed at the end at the latest."""
        child = subprocess.Popen(
            [
                "nsenter",
                f"--mount=/proc/{self.pid}/ns/mnt",
                f"--net={self._netns_from_outside(netns)}",
                f"--wdns={os.getcwd()}",
                "--",
                *argv,
            ],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self._started.append(child)
        return child

    def netns(self, name: str) -> str:
        """Make a fresh container netns; its lo is down, as a runtime leaves it.

        Returns:
            Its path as seen from inside the world, "/run/netns/<name>".
        """
        assert NETNS_NAME.fullmatch(name), name
        self.run(["ip", "netns", "add", name])
        return f"/run/netns/{name}"

    def delete_netns(self, name: str) -> None:
        """Remove what `netns` made."""
        self.run(["ip", "netns", "delete", name])

    def open_netns(self, name: str | None = None) -> int:
        """Open a netns of the world, its own by default, from outside; the caller closes the descriptor."""
        return os.open(self._netns_from_outside(name), os.O_RDONLY | os.O_CLOEXEC)

    def outside_path(self, path: str) -> Path:
        """Say where a file of the world, such as "/run/cni/x", is found from outside it."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def call(self, function: Callable[..., Any], *args: Any, netns: str | None = None, timeout: float = 10) -> Any:
        """Run a Python function in a fork of the test, inside the world.

        Modules come from the test's own process: what is imported is there before the namespaces are entered.

        Args:
            function: Anything callable, also a closure.
            *args: Passed on; they are not copied but inherited.
            netns: Name of a netns of this world instead of its own.
            timeout: Seconds, after which the child is killed.

        Returns:
            Its value: what JSON knows, and bytes, tuples and NamedTuples, each as itself.

        Raises:
            CniError: The one that the function raised, with class and fields.
            AssertionError: It raised something else than an exception of this package or of Python, or died.
        """
        net_fd = self.open_netns(netns)
        reader, writer = os.pipe()
        try:
            child = os.fork()
            if child == 0:
                _answer_and_exit(writer, lambda: self._enter_and_call(net_fd, function, args))
            os.close(writer)
            answer = _read_all(reader, child, timeout)
        finally:
            os.close(net_fd)
            os.close(reader)
        return _result_of(function, answer)

    def _enter_and_call(self, net_fd: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        directory = os.getcwd()
        setns(self._mnt_fd, CLONE_NEWNS)
        setns(net_fd, CLONE_NEWNET)
        os.chdir(directory)
        return function(*args)

    def ip(self, *args: str, netns: str | None = None) -> Any:
        """Run `ip -json -details ARGS`, for instance `world.ip("link", "show", "dev", "eth0")`.

        Returns:
            Its parsed output; an empty list if it printed nothing.
        """
        return json.loads(self.run(["ip", "-json", "-details", *args], netns=netns).stdout or b"[]")

    def bridge(self, *args: str, netns: str | None = None) -> Any:
        """Run `bridge -json -details ARGS` and parse what it prints."""
        return json.loads(self.run(["bridge", "-json", "-details", *args], netns=netns).stdout or b"[]")

    def ifnames(self, netns: str | None = None) -> set[str]:
        """Name the links that exist."""
        return {link["ifname"] for link in self.ip("link", netns=netns)}

    def link(self, ifname: str, netns: str | None = None) -> Any:
        """Show one link as `ip -json -details link` does."""
        return self.ip("link", "show", "dev", ifname, netns=netns)[0]

    def nft_ruleset(self) -> Any:
        """List every nftables object of the world's own netns: the parsed list below "nftables"."""
        return json.loads(self.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]

    def read(self, path: str) -> bytes:
        """Read a file of the world."""
        return self.outside_path(path).read_bytes()

    def pids(self) -> list[int]:
        """List the processes whose mount namespace or network namespace is the world's, but for the holder."""
        mine = {_identity(os.fstat(self._mnt_fd)), _identity(os.fstat(self._net_fd))}
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in (self.pid, os.getpid()):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    if mine & {_identity(os.stat(f"/proc/{entry}/ns/{kind}")) for kind in ("mnt", "net")}:
                        found.append(int(entry))
        return found

    def close(self) -> None:
        """End every process of the world, and with the last one its namespaces."""
        for child in self._started:
            _kill_group(child)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            child.wait(timeout=10)
        self._started.clear()
        wait_until(self._kill_strays, timeout=10)
        os.close(self._mnt_fd)
        os.close(self._net_fd)
        self._end_holder()

    def _kill_strays(self) -> bool:
        """Kill what left the process group it was started in; True when nothing is left."""
        strays = self.pids()
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not strays

    def _end_holder(self) -> None:
        self._holder.kill()
        self._holder.wait(timeout=10)
        for pipe in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if pipe is not None:
                pipe.close()

    def _netns_from_outside(self, name: str | None) -> str:
        return f"/proc/{self.pid}/ns/net" if name is None else f"/proc/{self.pid}/root/run/netns/{name}"


def wait_until(condition: Callable[[], Any], timeout: float = 5, interval: float = 0.01) -> Any:
    """Wait for a condition.

    Returns:
        The first true value of `condition()`.

    Raises:
        AssertionError: There was none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{condition}: not true after {timeout} s")
        time.sleep(interval)


def requires_link_kind(kind: str) -> pytest.MarkDecorator:
    """Skip a test when the kernel cannot make links of this kind ("kernel lacks <kind>")."""
    return pytest.mark.requires_kernel("link-kind", kind)


def requires_feature(name: str) -> pytest.MarkDecorator:
    """Skip a test when the kernel lacks a feature of the table FEATURES ("kernel lacks <name>")."""
    assert name in FEATURES, name
    return pytest.mark.requires_kernel("feature", name)


@functools.cache
def kernel_has(category: str, name: str) -> bool:
    """Probe the kernel in throw-away network and mount namespaces.

    Args:
        category: "link-kind" or "feature".
        name: The kind as `ip link add type` spells it, or a key of FEATURES.
    """
    commands = FEATURES[name] if category == "feature" else _link_kind_probe(name)
    script = "mount -t proc proc /proc; " + " && ".join(f"( {command} )" for command in commands)
    probe = ["unshare", "--mount", "--net", "--fork", "--pid", "--kill-child", "sh", "-c", script]
    return subprocess.run(probe, check=False, capture_output=True, timeout=10).returncode == 0


def _link_kind_probe(kind: str) -> tuple[str, ...]:
    parent = "link parent0 " if kind in _LINK_KINDS_ON_A_PARENT else ""
    add = f"ip link add {parent}name probe0 type {kind} {_LINK_KIND_OPTIONS.get(kind, '')}"
    return ("ip link add parent0 type veth peer name parent1", add) if parent else (add,)


def setns(fd: int, nstype: int) -> None:
    """Enter a namespace: os.setns where Python has it (3.12), else the C library's function."""
    if sys.version_info >= (3, 12):
        os.setns(fd, nstype)
    elif _libc().setns(fd, nstype) != 0:
        raise OSError(_ctypes().get_errno(), "setns")


@functools.cache
def _ctypes() -> Any:
    return importlib.import_module("ctypes")  # tests only: the package's own way in, native/, is what tests are about


@functools.cache
def _libc() -> Any:
    return _ctypes().CDLL(None, use_errno=True)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _answer_and_exit(writer: int, work: Callable[[], Any]) -> None:
    """Do the work in a forked child, write what came of it, and end without any of the parent's clean-up."""
    status = 1
    try:
        try:
            answer = {"value": _encoded(work())}
        except BaseException as error:
            answer = {"error": _encoded_error(error)}
        _write_all(writer, json.dumps(answer).encode())
        status = 0
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read_all(fd: int, child: int, timeout: float) -> bytes:
    """Read a child's answer to its end and reap it; kill it when it takes too long."""
    deadline = time.monotonic() + timeout
    chunks: list[bytes] = []
    try:
        while True:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"world.call: no answer after {timeout} s")
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it is a zombie, or it hangs; not yet reaped, so the pid is still its own
        os.waitpid(child, 0)


def _result_of(function: Callable[..., Any], answer: bytes) -> Any:
    if not answer:
        raise AssertionError(f"world.call {function}: the child died without an answer")
    decoded = json.loads(answer)
    if "error" in decoded:
        raise _decoded_error(decoded["error"])
    return _decoded(decoded["value"])


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"record": [type(value).__module__, type(value).__qualname__], "items": [_encoded(v) for v in value]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encoded(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_encoded(key), _encoded(item)] for key, item in value.items()]}
    raise TypeError(f"world.call cannot return {value!r}")


def _decoded(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "record" in value:
        return _named(*value["record"])(*(_decoded(item) for item in value["items"]))
    if "tuple" in value:
        return tuple(_decoded(item) for item in value["tuple"])
    if "list" in value:
        return [_decoded(item) for item in value["list"]]
    return {_decoded(key): _decoded(item) for key, item in value["dict"]}


def _encoded_error(error: BaseException) -> Any:
    trace = "".join(traceback.format_exception(error))
    try:
        fields = _encoded(vars(error))
        args = _encoded(error.args)
    except TypeError:
        fields, args = _encoded({}), _encoded((str(error),))
    return {"class": [type(error).__module__, type(error).__qualname__], "fields": fields, "args": args, "trace": trace}


def _decoded_error(encoded: Any) -> BaseException:
    try:
        cls = _named(*encoded["class"])
    except (AttributeError, ImportError, KeyError):
        cls = None
    if not isinstance(cls, type) or not issubclass(cls, CniError | Exception):
        return AssertionError(encoded["trace"])
    args = _decoded(encoded["args"])
    error = cls.__new__(cls, *args)  # not cls(*args): what __init__ made of them is in the fields
    error.args = args
    error.__dict__.update({key: item for key, item in _decoded(encoded["fields"]).items() if key != "__notes__"})
    error.add_note("in world.call:\n" + encoded["trace"])
    return error


def _named(module: str, qualname: str) -> Any:
    found: Any = builtins if module == "builtins" else sys.modules[module]
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def new_world() -> Iterator[World]:
    """Make a world and end it; in the warm mode, one with a zygote."""
    from tests import warm  # late: it is made of parts of this module

    world = World()
    try:
        with warm.zygote_in(world) if warm.is_wanted() else contextlib.nullcontext():
            yield world
    finally:
        world.close()

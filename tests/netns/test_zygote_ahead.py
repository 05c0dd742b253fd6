"""What is done before a call comes: a rehearsal, pages, the delegate worker, and new slots when nobody needs the time.

rehearsal ──▶ which pages calls use ──▶ slot and workers fetch them, and wait
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import pytest

from cnisandbox.boundary import namespaces
from cnisandbox.boundary.syscalls import lib
from cnisandbox.zygote import mounts
from tests.boundary.observe import SERVICE_UID
from tests.boundary.test_user_namespace import Pod
from tests.interop.plugin_calls import changed
from tests.netns.zygotes import NETCONF, Zygote, children, status_of, title_of
from tests.world import World, wait_until

pytestmark = pytest.mark.timeout(120)

# strace as a grandchild: what is started stays our child.
STRACE = ("strace", "-D", "-f", "-qq", "-o", "/dev/null")
# The zygote alone: a fifth of a second for each fork.
SLOW_TO_FORK = ("strace", "-D", "-qq", "-o", "/dev/null", "-e", "trace=clone", "-e", "inject=clone:delay_enter=200000")
WITHOUT_PAGES = (*STRACE, "-e", "trace=madvise", "-e", "inject=madvise:error=EINVAL")
# The zygote alone, and of itself alone: as a kernel without CONFIG_PROC_PAGE_MONITOR answers.
WITHOUT_OWN_PAGEMAP = (
    *("strace", "-D", "-qq", "-o", "/dev/null", "-P", "/proc/self/pagemap"),
    *("-e", "trace=openat", "-e", "inject=openat:error=ENOENT"),
)
# Nobody else in a zygote uses waitid().
WITHOUT_REHEARSAL = (*STRACE, "-e", "trace=waitid", "-e", "inject=waitid:error=ECHILD")
# As a kernel without nf_tables answers: socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) is refused.
WITHOUT_NETFILTER = (
    sys.executable,
    "-c",
    """
import errno, os, struct, sys
from cnisandbox.boundary import seccomp
from cnisandbox.boundary.syscalls import lib

LOAD, IS_EQUAL, RETURN, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
NUMBER, THIRD_ARGUMENT, NETFILTER = 0, 32, 12
socket = lib.seccomp_syscall_resolve_name(b"socket")
steps = [
    (LOAD, 0, 0, NUMBER),
    (IS_EQUAL, 0, 3, socket),
    (LOAD, 0, 0, THIRD_ARGUMENT),
    (IS_EQUAL, 0, 1, NETFILTER),
    (RETURN, 0, 0, REFUSE | errno.EPROTONOSUPPORT),
    (RETURN, 0, 0, ALLOW),
]
seccomp.load(b"".join(struct.pack("HBBI", *step) for step in steps))
os.execv(sys.argv[1], sys.argv[1:])
""",
)


def started(world: World, plugin_dir: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Zygote:
    """A zygote with one slot for each plugin."""
    zygote = Zygote(world, plugin_dir, "--pool", "1", *arguments, start=False)
    zygote.start(prefix=prefix)
    return zygote


def minor_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def are_quiet(pids: list[int]) -> bool:
    """Say whether processes use no page for a while."""
    before = [minor_faults(pid) for pid in pids]
    time.sleep(0.2)
    return before == [minor_faults(pid) for pid in pids]


def descendants(pid: int) -> list[int]:
    return [pid, *(found for child in children(pid) for found in descendants(child.pid))]


def faults_of_a_call(zygote: Zygote) -> int:
    """Count the faults of a call's processes, from when they waited until they wait for the netconf."""
    (slot,) = zygote.slots()
    processes = descendants(slot)
    assert len(processes) == 4
    # The workers get ready beside the slot, which waits for nobody.
    wait_until(lambda: all(status_of(pid)["State"].startswith("S") for pid in processes) and are_quiet(processes))
    before = {pid: minor_faults(pid) for pid in processes}
    call = zygote.begin("ADD")
    assert call.engine == slot
    count = sum(minor_faults(pid) - faults for pid, faults in before.items())
    call.finish()
    zygote.delete()
    return count


class TestPages:
    def test_a_call_finds_the_pages_that_it_uses(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        count = faults_of_a_call(zygote)
        zygote.kill()
        zygote.start(prefix=WITHOUT_PAGES)
        control = faults_of_a_call(zygote)
        assert control > 150
        assert count < control / 3

    def test_the_zygote_lets_go_of_files_where_the_kernel_says_what_it_has_of_them(
        self, world: World, plugin_dir: str
    ) -> None:
        zygote = started(world, plugin_dir)
        of_files = int(status_of(zygote.pid)["RssFile"].split()[0])
        zygote.kill()
        zygote.start(prefix=WITHOUT_OWN_PAGEMAP)
        assert int(status_of(zygote.pid)["RssFile"].split()[0]) > of_files + 1024
        zygote.warm("ADD")
        zygote.warm("DEL")

    def test_the_idle_zygote_keeps_to_its_memory(self, world: World, plugin_dir: str) -> None:
        """The pool that it has unless told otherwise: 60 MiB of PSS, all children together."""
        zygote = Zygote(world, plugin_dir, start=False)
        zygote.start(slots={"bridge": 2, "host-local": 1, "loopback": 1, "runner": 1})
        assert sum(map(proportional_bytes, descendants(zygote.pid))) < 60 << 20


def proportional_bytes(pid: int) -> int:
    return bytes_of(pid, "Pss")


def private_bytes(pid: int) -> int:
    """What it has copied."""
    return bytes_of(pid, "Private_Dirty")


def bytes_of(pid: int, kind: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{kind}:"))


class TestRehearsal:
    def test_nothing_is_left_of_it(self, world: World, plugin_dir: str) -> None:
        before = world.ifnames()
        zygote = started(world, plugin_dir)
        assert world.ifnames() == before
        assert [path for path in world.outside_path("/var/lib/cni").rglob("*") if path.is_file()] == []
        own = set(descendants(zygote.pid))
        others = (pid for pid in world.pids() if pid not in own)
        assert [title for pid in others if "cnisandbox" in (title := title_of(pid))] == []
        roles = sorted(title_of(pid).partition(" [")[0].removeprefix("cnisandbox: ") for pid in descendants(zygote.pid))
        workers = ["container worker"] * 2 + ["delegate worker"] * 2 + ["host worker"]
        assert roles == sorted(["zygote", *["slot"] * 4, *workers, "monitor", "opener", "worker"])
        assert zygote.log == ""

    def test_calls_are_served_without_one(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir, prefix=WITHOUT_REHEARSAL)
        assert zygote.log.count("cnisandbox: rehearse: ChildProcessError: ") == 2  # bridge, and the runner
        zygote.warm("ADD")
        zygote.warm("DEL")

    def test_without_nf_tables_the_rest_is_rehearsed(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir, prefix=WITHOUT_NETFILTER)
        (slot,) = zygote.slots()
        assert "Seccomp:\t2" in Path(f"/proc/{zygote.pid}/status").read_text()
        assert zygote.log == ""
        wait_until(lambda: are_quiet([slot]))
        fetched = private_bytes(slot)
        zygote.kill()
        zygote.start(prefix=WITHOUT_PAGES)
        (slot,) = zygote.slots()
        wait_until(lambda: are_quiet([slot]))
        assert fetched > private_bytes(slot) * 1.5


# CAP_NET_ADMIN, and what it takes besides to enter a netns: CAP_SYS_ADMIN.
NET_ADMIN, SYS_ADMIN = 1 << 12, 1 << 21
HELD = {"host worker": NET_ADMIN, "container worker": NET_ADMIN | SYS_ADMIN}


class TestNetworkWorkers:
    @pytest.mark.parametrize("role", HELD)
    def test_it_waits_without_what_it_does_not_need(self, world: World, plugin_dir: str, role: str) -> None:
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if role in title_of(pid))
        status = wait_until(lambda: lowered(waiting))
        assert status["Uid"].split() == [str(SERVICE_UID)] * 4
        assert status["Groups"].strip() == ""
        held = f"{HELD[role]:016x}"
        assert [status[f"Cap{name}"] for name in ("Prm", "Eff", "Inh", "Bnd", "Amb")] == [held, held, *["0" * 16] * 3]
        assert status["NoNewPrivs"] == "1"
        assert Path(f"/proc/{waiting}/mem").stat().st_uid == 0  # not dumpable: nobody of its uid looks in
        soft = Path(f"/proc/{waiting}/limits").read_text()
        assert re.search(r"Max processes +0 +0 ", soft)
        assert sorted(os.listdir(f"/proc/{waiting}/root")) == ["proc"]
        attested = zygote.warm("ADD").attestations[role]
        assert (attested["pid"], attested["effective"]) == (waiting, NET_ADMIN)
        zygote.warm("DEL")

    def test_the_hosts_waits_confined_to_the_end(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if "host worker" in title_of(pid))
        status = wait_until(lambda: confined(waiting))
        assert int(status["CapPrm"], 16) == NET_ADMIN
        assert re.search(r"Max file size +0 +0 ", Path(f"/proc/{waiting}/limits").read_text())
        assert descriptors_of(waiting)[:3] == [0, 1, 2]
        assert len(descriptors_of(waiting)) == 4
        assert len(sockets_of(waiting)) == 1
        attested = zygote.warm("ADD").attestations["host worker"]
        assert (attested["pid"], attested["descriptors"]) == (waiting, [0, 1, 2, 3])
        without_netns = zygote.warm("DEL", env={"CNI_NETNS": ""})
        assert without_netns.attestations["host worker"]["descriptors"] == [0, 1, 2]

    def test_a_log_gets_another_host_worker(self, world: World, plugin_dir: str) -> None:
        """Who waits confined to the end may write no file."""
        zygote = started(world, plugin_dir)
        for level, is_logged in (("hardened", False), ("mediated", True)):
            zygote.wait_until_ready()
            (slot,) = zygote.slots()
            waiting = {pid for pid in descendants(slot) if "[waiting]" in title_of(pid)}
            env = {"CNISANDBOX_LEVEL": level, "CNISANDBOX_LOG": "/run/audit.log"}
            attested = zygote.warm("ADD", env=env).attestations
            assert attested["container worker"]["pid"] in waiting
            assert (attested["host worker"]["pid"] in waiting) is not is_logged
            assert (world.outside_path("/run/audit.log")).exists() is is_logged
            without_netns = zygote.warm("DEL", env=env | {"CNI_NETNS": ""})
            assert without_netns.attestations["host worker"]["descriptors"] == [0, 1, 2, *([4] if is_logged else [])]
        netns = {json.loads(line)["netns"] for line in world.read("/run/audit.log").splitlines()}
        assert netns == {"host", "container"}

    def test_it_has_no_socket_in_the_call(self, world: World, plugin_dir: str) -> None:
        """The one over which it is given its descriptors leads to the host's netns."""
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()
        workers = {title_of(pid).partition(" [")[0].removeprefix("cnisandbox: "): pid for pid in descendants(slot)}
        assert sockets_of(workers["container worker"]) != set()
        call = zygote.begin("ADD")
        assert call.engine == slot
        for role, inherited in {"container worker": [], "host worker": [3]}.items():
            wait_until(lambda pid=workers[role]: "waiting" not in title_of(pid) and sockets_of(pid) == set())
            assert descriptors_of(workers[role]) == [0, 1, 2, *inherited]
        call.finish()
        zygote.delete()

    def test_what_is_executed_for_a_call_does_not_reach_those_that_wait(self, world: World, plugin_dir: str) -> None:
        """They have one uid; but its pid namespace has no number for them, and they are not dumpable."""
        world.run(["mkdir", "/run/plugins"])
        hostile = world.outside_path("/run/plugins") / "hostile"
        hostile.write_text(
            """#!/bin/sh
            for pid in $WAITING; do
                kill -0 "$pid" 2>/dev/null && echo "reached $pid" >&2
                for what in environ mem maps fd/0 root/proc ns/net; do
                    cat "/proc/$pid/$what" >/dev/null 2>&1 && echo "opened $what of $pid" >&2
                done
            done
            echo tried >&2
            [ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}'
            """
        )
        hostile.chmod(0o755)
        zygote = Zygote(world, plugin_dir, "--pool", "2", "--plugin-dir", "/run/plugins")
        waiting = [pid for slot in zygote.slots() for pid in descendants(slot) if "[waiting]" in title_of(pid)]
        assert len(waiting) == 4
        numbers = " ".join(map(str, waiting))
        for pid in waiting:
            world.run(["setpriv", f"--reuid={SERVICE_UID}", "--clear-groups", "sh", "-c", f"kill -0 {pid}"])
        netconf = changed(NETCONF, ipam={"type": "hostile"})
        call = zygote.warm("ADD", netconf, env={"CNI_PATH": "/run/plugins", "WAITING": numbers})
        assert call.answer.stderr.decode().splitlines() == ["cnisandbox: hostile: tried"]
        zygote.warm("DEL", netconf, env={"CNI_PATH": "/run/plugins", "WAITING": numbers})

    @pytest.mark.parametrize("env", [{}, {"CNISANDBOX_LEVEL": "mediated", "CNISANDBOX_LOG": "/run/audit.log"}])
    def test_a_netns_of_another_user_namespace_gets_another_one(
        self, world: World, plugin_dir: str, env: dict[str, str]
    ) -> None:
        """Who waits has no capability there, and an id that may not be mapped."""
        pod = Pod(world, "0 1000000 65536")
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if "container worker" in title_of(pid))
        attested = zygote.warm("ADD", env=env | {"CNI_NETNS": pod.path}).attestations["container worker"]
        assert attested["pid"] != waiting
        assert attested["namespaces"]["user"] == pod.inode("user")
        assert "eth0" in pod.links(world)
        zygote.warm("DEL", env=env | {"CNI_NETNS": pod.path})
        assert "eth0" not in pod.links(world)


def descriptors_of(pid: int) -> list[int]:
    return sorted(int(number) for number in os.listdir(f"/proc/{pid}/fd"))


def sockets_of(pid: int) -> set[int]:
    links = {number: os.readlink(f"/proc/{pid}/fd/{number}") for number in descriptors_of(pid)}
    return {number for number, link in links.items() if link.startswith("socket:")}


class TestEmptyNetns:
    def test_it_is_one_for_all_calls_at_mediated(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        engines, others = set(), set()
        for verb in ("ADD", "DEL"):
            said = zygote.warm(verb, env={"CNISANDBOX_LEVEL": "mediated"}).attestations
            engines.add(said["engine"]["namespaces"]["net"])
            others |= {said[role]["namespaces"]["net"] for role in ("host worker", "container worker")}
        assert len(engines) == 1
        assert len(others) == 2
        assert not engines & others


class TestDelegateWorker:
    def test_it_is_confined_before_the_call_comes(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if "delegate worker" in title_of(pid))
        status = wait_until(lambda: confined(waiting))
        assert (status["CapPrm"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        assert zygote.warm("ADD").attestations["delegate worker"]["pid"] == waiting
        zygote.warm("DEL")

    def test_it_keeps_no_volume_busy_that_is_unmounted(self, world: World, plugin_dir: str) -> None:
        world.run(["mkdir", "/run/volume"])
        world.run(["mount", "--make-rshared", "/"])
        world.run(["mount", "-t", "tmpfs", "none", "/run/volume"])
        zygote = started(world, plugin_dir)
        having = [pid for pid in descendants(zygote.pid) if has_mounted(pid, "/run/volume")]
        assert any("delegate worker" in title_of(pid) for pid in having)
        world.run(["umount", "/run/volume"])
        assert [title_of(pid) for pid in having if has_mounted(pid, "/run/volume")] == []

    def test_what_was_mounted_since_can_be_read_only(self, world: World, plugin_dir: str) -> None:
        world.run(["mkdir", "--parents", "/run/plugins/volume"])
        scripted = world.outside_path("/run/plugins") / "scripted"
        scripted.write_text(
            """#!/bin/sh
            cat /run/plugins/volume/file >&2
            touch /run/plugins/volume/mine 2>/dev/null && echo written >&2
            [ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}'
            """
        )
        scripted.chmod(0o755)
        world.run(["mount", "--make-rshared", "/"])
        zygote = started(world, plugin_dir, "--plugin-dir", "/run/plugins")
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if "delegate worker" in title_of(pid))
        world.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "none", "/run/plugins/volume"])
        world.run(["sh", "-c", "echo text > /run/plugins/volume/file"])
        world.run(["setpriv", f"--reuid={SERVICE_UID}", "--clear-groups", "touch", "/run/plugins/volume/control"])
        netconf = changed(NETCONF, ipam={"type": "scripted"})
        call = zygote.warm("ADD", netconf, env={"CNI_PATH": "/run/plugins"})
        assert call.attestations["delegate worker"]["pid"] == waiting
        assert call.answer.stderr.decode().splitlines() == ["cnisandbox: scripted: text"]
        assert "mine" not in world.run(["ls", "/run/plugins/volume"]).stdout.decode()
        zygote.warm("DEL", netconf, env={"CNI_PATH": "/run/plugins"})

    @pytest.mark.parametrize("is_named", [False, True], ids=["not named to serve", "named to serve"])
    def test_a_directory_that_it_was_not_made_for_gets_another(
        self, world: World, plugin_dir: str, is_named: bool
    ) -> None:
        """Or Landlock would not let the plugins there be executed."""
        world.run(["mkdir", "/run/plugins"])
        scripted = world.outside_path("/run/plugins") / "scripted"
        scripted.write_text(
            """#!/bin/sh\n[ "$CNI_COMMAND" != ADD ] || printf '%s' '{}'\n""".format(
                '{"cniVersion": "1.1.0", "ips": [{"address": "10.9.0.5/24"}]}'
            )
        )
        scripted.chmod(0o755)
        zygote = started(world, plugin_dir, *(["--plugin-dir", "/run/plugins"] if is_named else []))
        (slot,) = zygote.slots()
        (waiting,) = (pid for pid in descendants(slot) if "delegate worker" in title_of(pid))
        netconf = changed(NETCONF, ipam={"type": "scripted"})
        call = zygote.warm("ADD", netconf, env={"CNI_PATH": "/run/plugins"})
        assert b"10.9.0.5/24" in call.answer.stdout
        assert (call.attestations["delegate worker"]["pid"] == waiting) is is_named
        zygote.warm("DEL", netconf, env={"CNI_PATH": "/run/plugins"})


def lowered(pid: int) -> dict[str, str]:
    """What the kernel says of a process that gives up what it had, when it is through with that."""
    status = status_of(pid)
    return status if status["NoNewPrivs"] == "1" else {}


def has_mounted(pid: int, path: str) -> bool:
    return any(line.split()[4] == path for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())


def confined(pid: int) -> dict[str, str]:
    status = status_of(pid)
    return status if status["Uid"].split()[0] == str(SERVICE_UID) and status["Seccomp"] == "2" else {}


class TestProcessors:
    """Who is woken to work beside somebody does not take his processor from him."""

    def test_workers_are_kept_off_the_processor_of_the_slot(self, world: World, plugin_dir: str) -> None:
        every = os.sched_getaffinity(0)
        zygote = started(world, plugin_dir)
        call = zygote.begin("ADD")
        workers = [pid for pid in descendants(call.engine) if re.search("(host|container) worker", title_of(pid))]
        assert len(workers) == 2
        for pid in workers:
            assert len(every - os.sched_getaffinity(pid)) == (len(every) > 1)
        call.finish()
        zygote.delete()

    def test_nobody_else_is_kept_off_one(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        for _ in range(3):
            zygote.warm("ADD")
            zygote.warm("DEL")
        zygote.wait_until_ready()
        for pid in descendants(zygote.pid):
            assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)

    def test_a_slot_that_is_forked_while_another_one_takes_a_call_is_not(self, world: World, plugin_dir: str) -> None:
        zygote = Zygote(world, plugin_dir, "--pool", "2", start=False)
        zygote.start(prefix=SLOW_TO_FORK)
        before = set(zygote.slots())
        zygote.warm("ADD")
        clone = lib.seccomp_syscall_resolve_name(b"clone")
        wait_until(lambda: Path(f"/proc/{zygote.pid}/syscall").read_text().startswith(f"{clone} "))
        second = zygote.begin("DEL")
        assert second.engine in before
        second.finish()
        zygote.wait_until_ready()
        for slot in zygote.slots():
            assert os.sched_getaffinity(slot) == os.sched_getaffinity(0)

    def test_one_processor_is_enough(self, world: World, plugin_dir: str) -> None:
        one = max(os.sched_getaffinity(0))
        zygote = started(world, plugin_dir, prefix=("taskset", "--cpu-list", str(one)))
        zygote.warm("ADD")
        zygote.warm("DEL")
        zygote.wait_until_ready()
        for pid in descendants(zygote.pid):
            assert os.sched_getaffinity(pid) == {one}


class TestRefill:
    def test_a_slot_is_made_when_no_call_needs_the_processor(self, world: World, plugin_dir: str) -> None:
        zygote = Zygote(world, plugin_dir, "--pool", "2")
        world.netns("green")
        world.netns("red")
        before = set(zygote.slots())
        first = zygote.begin("ADD")
        assert first.engine in before
        made = {pid for pid, title in zygote.children() if title == "cnisandbox: slot [bridge]"}
        assert made == before - {first.engine}
        second = zygote.begin("ADD", container_id="c2", netns="green")
        time.sleep(0.3)  # in which one is made, if one is
        assert zygote.slots() == []
        third = zygote.begin("ADD", container_id="c3", netns="red")  # finds none, and gets one
        for call in (first, second, third):
            assert call.finish().engine_parent == zygote.pid
        zygote.wait_until_ready()


class TestMounts:
    """What slots copy to make views of; that the views are the same as in a cold call is with the attestations."""

    def test_what_no_view_needs_is_left_out(self, world: World) -> None:
        script = """mkdir "/run/a b" /run/c; mount -t tmpfs none "/run/a b"; mkdir "/run/a b/d"
            mount -t tmpfs none "/run/a b/d"; mount -t tmpfs none /run/c
            mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"""
        world.run(["sh", "-ec", script])

        def points() -> list[str]:
            return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]

        def look() -> tuple[list[str], list[str], list[str]]:
            before = points()
            mounts_fd = mounts.open_small_namespace()
            after = points()
            namespaces.enter_mounts(mounts_fd)
            return before, after, points()

        before, after, small = world.call(look)
        assert before == after
        assert {"/run/a\\040b/d", "/proc/sys"} < set(before)
        assert set(small) == {path for path in before if path in ("/", "/dev") or path.startswith("/proc")}

    def test_a_slot_is_where_it_was(self, world: World, plugin_dir: str) -> None:
        zygote = started(world, plugin_dir)
        (slot,) = zygote.slots()

        def namespaces_of_all() -> set[int]:
            return {os.stat(f"/proc/{pid}/ns/mnt").st_ino for pid in descendants(zygote.pid)}

        # Those that wait for a call of ours or of the runner, each in one of its own; they get ready beside the slot.
        wait_until(lambda: len(namespaces_of_all()) == 8)
        assert os.stat(f"/proc/{slot}/ns/mnt").st_ino == os.stat(f"/proc/{zygote.pid}/ns/mnt").st_ino
        assert not [fd for fd in Path(f"/proc/{slot}/fd").iterdir() if "mnt:" in str(fd.readlink())][1:]

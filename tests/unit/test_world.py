"""The test world itself: what it promises to the tests that stand on it."""

import os
import signal
import subprocess
import sys

import pytest

from cnisandbox.errors import InvalidConfig, KernelRefused
from tests.world import Completed, kernel_has, new_world, requires_feature, wait_until


def test_world_has_only_lo_and_lo_is_up(world):
    assert world.ifnames() == {"lo"}
    assert "UP" in world.link("lo")["flags"]


def test_files_written_in_private_directories_stay_inside(world):
    world.run(["sh", "-c", "mkdir -p /run/cni && echo secret > /run/cni/world-probe"])
    assert world.read("/run/cni/world-probe") == b"secret\n"
    assert not os.path.exists("/run/cni/world-probe")


def test_container_netns_is_fresh_and_visible_in_the_world_only(world):
    assert world.netns("blue") == "/run/netns/blue"
    world.run(["ip", "link", "add", "eth0", "type", "bridge"], netns="blue")
    assert world.ifnames("blue") == {"lo", "eth0"}
    assert world.ifnames() == {"lo"}
    assert not os.path.exists("/run/netns/blue")
    world.delete_netns("blue")


def test_run_gives_output_status_stdin_environment_and_directory(world):
    script = "cat; echo $WORD >&2; pwd; exit 3"
    done = world.run(["sh", "-c", script], stdin=b"in\n", env={"WORD": "out"}, expect=3)
    assert done == Completed(f"in\n{os.getcwd()}\n".encode(), b"out\n", 3)


def test_run_fails_on_an_unexpected_status(world):
    with pytest.raises(AssertionError, match="status 1, not 0"):
        world.run(["false"])


def test_run_kills_a_command_that_takes_too_long(world):
    with pytest.raises(AssertionError, match=r"not done after 0\.2 s"):
        world.run(["sh", "-c", "sleep 60 & sleep 60"], timeout=0.2)
    wait_until(lambda: world.pids() == [])


def test_call_runs_in_the_namespaces_and_keeps_the_directory(world):
    world.netns("blue")

    def look():
        return os.readlink("/proc/self/ns/net"), os.path.exists("/run/netns/blue"), os.getcwd()

    host_net, host_sees, directory = world.call(look)
    container_net, container_sees, _ = world.call(look, netns="blue")
    assert len({host_net, container_net, os.readlink("/proc/self/ns/net")}) == 3
    assert host_sees
    assert container_sees
    assert directory == os.getcwd()


def test_call_keeps_the_types_of_a_value(world):
    value = {"a": [1, (b"\xff", None)], "c": Completed(b"", b"x", 0), "d": 1.5}
    again = world.call(lambda: value)
    assert again == value
    assert isinstance(again["c"], Completed)
    assert isinstance(again["a"][1], tuple)


def test_call_raises_the_same_error_with_its_fields(world):
    def refuse():
        raise KernelRefused("create link", "eth0", 17, "the peer exists")

    with pytest.raises(KernelRefused, match="create link eth0: file exists") as caught:
        world.call(refuse)
    assert (caught.value.operation, caught.value.target, caught.value.errno) == ("create link", "eth0", 17)
    assert caught.value.details == "the peer exists"


@pytest.mark.parametrize("error", [InvalidConfig("mtu: negative"), ValueError("x"), OSError(2, "gone"), KeyError("k")])
def test_call_raises_the_class_that_was_raised(world, error):
    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        world.call(fail)
    assert caught.value.args == error.args


def test_call_reports_a_child_that_dies(world):
    with pytest.raises(AssertionError, match="died without an answer"):
        world.call(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_call_kills_a_function_that_hangs(world):
    with pytest.raises(AssertionError, match="no answer after"):
        world.call(signal.pause, timeout=0.2)


def test_end_kills_processes_that_left_their_session():
    with new_world() as world:
        world.run(["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 </dev/null &"])
        (stray,) = wait_until(world.pids)
        running = world.popen(["sleep", "60"])
        wait_until(lambda: len(world.pids()) == 2)
    wait_until(lambda: not os.path.exists(f"/proc/{stray}") or _is_zombie(stray))
    assert running.returncode == -signal.SIGKILL


def _is_zombie(pid):
    with open(f"/proc/{pid}/stat") as status:
        return status.read().rpartition(")")[2].split()[0] == "Z"


def test_holder_ends_with_the_test_run():
    script = "from tests.world import World; import os; w = World(); print(w.pid, flush=True); os._exit(9)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=30, check=False)
    assert run.returncode == 9, run.stderr
    pid = int(run.stdout)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or _is_zombie(pid))


def test_probe_knows_what_this_kernel_has_and_what_no_kernel_has():
    assert kernel_has("link-kind", "veth")
    assert not kernel_has("link-kind", "nosuchkind")


@requires_feature("ipv6")
def test_feature_that_is_there_is_not_skipped():
    assert kernel_has("feature", "ipv6")


SKIPPING_TESTS = """
import pytest
from tests.world import requires_link_kind

@pytest.mark.skip(reason="lazy")
def test_lazy(): pass

@pytest.mark.xfail(strict=True)
def test_expected_failure(): assert False

@requires_link_kind("nosuchkind")
def test_gap(): pass
"""


@pytest.mark.parametrize(
    ("must_run", "summary"), [("0", "3 skipped, 1 xfailed"), ("1", "1 skipped, 1 xfailed, 2 errors")]
)
def test_only_kernel_gaps_may_skip_when_everything_must_run(tmp_path, must_run, summary):
    (tmp_path / "test_skipping.py").write_text(SKIPPING_TESTS)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.skip('whole file', allow_module_level=True)\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    options = ["-q", "-ra", "-p", "no:cacheprovider", "-c", "/dev/null", "--continue-on-collection-errors"]
    # pytest repeats the reasons in its summary when it believes to be in CI.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**environment, "CNISANDBOX_MUST_RUN": must_run, "PYTHONPATH": os.getcwd()},
    )
    assert summary in run.stdout
    assert "kernel lacks nosuchkind" in run.stdout
    assert run.stdout.count("must run (CNISANDBOX_MUST_RUN=1), but was skipped") == (2 if must_run == "1" else 0)

"""The zygote as systemd starts it: sockets that somebody else has opened, handed over with LISTEN_FDS.

    systemd-socket-activate ── listens at /run/cnisandbox/zygote/*, executes with the first call ──▶ cnisandbox serve

What it executes is what stands in the unit.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnisandbox.cli import build, launcher, systemd
from tests.world import World, wait_until

NETCONF = {"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}


def cnisandbox(world: World, *arguments: str) -> str:
    command = [sys.executable, "-m", "cnisandbox.cli.main", *arguments]
    return world.run(command, expect=None, timeout=60).stdout.decode()


def seen(world: World) -> tuple[str, str]:
    """What doctor says about the zygote."""
    features = json.loads(cnisandbox(world, "doctor", "--json", "--bin-dir", "/run/bin"))["features"]
    (found,) = [feature for feature in features if feature["group"] == "warm" and "/run/bin" in feature["feature"]]
    return found["state"], found["detail"]


@pytest.fixture
def activated(world: World) -> Iterator["subprocess.Popen[bytes]"]:
    """Listens for the launchers in /run/bin, and starts the service with the first of them; yields its process."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("there is no systemd-socket-activate")
    cnisandbox(world, "install", "--bin-dir", "/run/bin")
    texts = systemd.units(sys.executable, launcher.served_names())
    paths = re.findall(r"^ListenSequentialPacket=(.*)$", texts[systemd.SOCKET], re.MULTILINE)
    (service,) = re.findall(r"^ExecStart=(.*)$", texts[systemd.SERVICE], re.MULTILINE)
    world.outside_path(os.path.dirname(paths[0])).mkdir(mode=0o700, parents=True)
    listened = [word for path in paths for word in ("-l", path)]
    with world.popen([program, "--seqpacket", *listened, *service.split()]) as process:
        try:
            wait_until(lambda: all(world.outside_path(path).exists() for path in paths))
            yield process
        finally:
            process.terminate()
            process.wait(40)


def test_code_that_changes_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    """The zygote is told of an older change than there is; what starts it anew gets the same sockets."""
    package = launcher.package_directory()
    program = (
        f"import sys; sys.path += {launcher.import_directories()!r}; from cnisandbox.zygote.server import main; main()"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "loopback"))
        fd = listener.fileno()
        identity = [str(package), build.build_id(str(package)).hex(), "1@1", ""]
        again = ["/bin/sh", "-c", 'test "$LISTEN_PID" = $$ && readlink /proc/self/fd/3']
        command = [sys.executable, "-IS", "-c", program, "1", "0", *identity, f"loopback={fd}", "--", *again]
        done = subprocess.run(command, pass_fds=[fd], capture_output=True, text=True, check=True, timeout=30)
        assert done.stdout.strip() == os.readlink(f"/proc/self/fd/{fd}")
        assert done.stderr == "cnisandbox: serve: the code was changed while it was loaded: starting anew\n"


def add(world: World) -> object:
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "lo", "CNI_NETNS": "/run/netns/blue"}
    done = world.run(
        ["/run/bin/loopback"], env={**environment, "CNI_PATH": "/run/bin"}, stdin=json.dumps(NETCONF).encode()
    )
    return json.loads(done.stdout)


def service_of(process: "subprocess.Popen[bytes]", text: str) -> bool:
    """Whether the process list shows a text for what was started."""
    return text in Path(f"/proc/{process.pid}/cmdline").read_bytes().decode()


def test_first_call_starts_it_and_doctor_finds_it(world: World, activated: "subprocess.Popen[bytes]") -> None:
    world.netns("blue")
    cold = add(world)  # it may be served by an interpreter, while the zygote is starting
    expected = ("ok", f"a zygote of the same build answers for {' '.join(launcher.plugin_names())}")
    assert seen(world) == expected
    assert service_of(activated, "cnisandbox: zygote")
    assert add(world) == cold
    # As the unit does for a reload: it starts anew in the same process, with the same sockets.
    activated.send_signal(signal.SIGHUP)
    wait_until(lambda: not service_of(activated, "cnisandbox: zygote"))
    wait_until(lambda: service_of(activated, "cnisandbox: zygote"))
    assert seen(world) == expected
    assert add(world) == cold


def test_end_is_that_of_success_and_calls_go_on_without_it(world: World, activated: "subprocess.Popen[bytes]") -> None:
    world.netns("blue")
    warm = add(world)
    wait_until(lambda: service_of(activated, "cnisandbox: zygote"))
    activated.terminate()
    assert activated.wait(40) == 0
    assert seen(world)[0] == "degraded"
    assert seen(world)[1].startswith("no zygote; each call starts an interpreter: ")
    assert add(world) == warm

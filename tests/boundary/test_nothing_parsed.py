"""Invariant 1: nothing is parsed with privilege; and nothing is imported without it. Seen by strace.

    strace ── records every read and open of ──▶ entry ─┬─ host worker
                                                        ├─ container worker
                                                        ├─ delegate worker
                                                        └─ engine: standard input is /run/netconf.json

Before a process has changed its uid, cut its capabilities and loaded its filter, it must not touch standard input, nor
any file of the network's state. The control is level root, where the very same check has to find such reads.
"""

import json
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from cnisandbox.cli import launcher
from tests.boundary.observe import NETCONF, variables
from tests.boundary.trace import NETCONF_PATH, SystemCall, trace
from tests.world import World, new_world

_PYTHON_CODE = re.compile(r'\.(py|pyc|so)(\.[0-9]+)*[">]')
_STATE = "/var/lib/cni/networks"


class Traced(NamedTuple):
    """What a call did, and what it answered."""

    calls: list[SystemCall]
    answer: bytes


class Scene:
    """A world in which a network exists, with one container attached, so that its state files have contents."""

    def __init__(self, world: World, plugin_dir: str) -> None:
        self.world = world
        self._plugin_dir = plugin_dir
        for name in ("first", "second"):
            world.netns(name)
        world.run(
            [f"{plugin_dir}/bridge"], env=self._variables("ADD", "first", "hardened"), stdin=_netconf({}), timeout=20
        )

    def trace(self, verb: str, level: str, more: dict[str, object], *, plugin: str = "bridge") -> Traced:
        """Trace a call about the second container."""
        env = self._variables(verb, "second", level)
        return Traced(*trace(self.world, [f"{self._plugin_dir}/{plugin}"], env, _netconf({"type": plugin, **more})))

    def _variables(self, verb: str, name: str, level: str) -> dict[str, str]:
        env = variables(self._plugin_dir, verb, f"/run/netns/{name}", CNISANDBOX_LEVEL=level)
        return {**env, "CNI_CONTAINERID": name, "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p"}


def _netconf(more: dict[str, object]) -> bytes:
    return json.dumps({**NETCONF, "type": "bridge", **more}).encode()


@pytest.fixture(scope="module")
def scene(plugin_dir: str) -> Iterator[Scene]:
    with new_world() as world:
        yield Scene(world, plugin_dir)


@pytest.fixture(scope="module")
def hardened(scene: Scene) -> dict[str, Traced]:
    """One call of each kind at level hardened, in the order of a container's life."""
    added = scene.trace("ADD", "hardened", {})
    result = json.loads(added.answer)
    return {
        "ADD": added,
        "CHECK": scene.trace("CHECK", "hardened", {"prevResult": result}),
        "STATUS": scene.trace("STATUS", "hardened", {}),
        "DEL": scene.trace("DEL", "hardened", {"prevResult": result}),
        "GC": scene.trace("GC", "hardened", {}),
        "refused ADD": scene.trace("ADD", "hardened", {"mtu": "wrong"}),
    }


def _reads_of_netconf(calls: list[SystemCall]) -> list[SystemCall]:
    return [call for call in calls if f"<{NETCONF_PATH}>" in call.text and call.name not in ("close", "execve")]


def _uses_of_state(calls: list[SystemCall]) -> list[SystemCall]:
    """Everything that names the network's directory, by its path or through the descriptor of a state directory."""
    name = re.compile(rf'"({_STATE}/)?observed|/observed[/>"]')
    return [call for call in calls if name.search(call.text) and NETCONF_PATH not in call.text]


KINDS = ("ADD", "CHECK", "STATUS", "DEL", "GC", "refused ADD")


@pytest.mark.parametrize("kind", KINDS)
def test_standard_input_is_read_only_by_a_process_that_has_dropped_everything(
    hardened: dict[str, Traced], kind: str
) -> None:
    reads = [call for call in _reads_of_netconf(hardened[kind].calls) if call.name in ("read", "readv", "pread64")]
    assert reads
    assert len({call.pid for call in reads}) == 1
    assert [call for call in reads if call.is_privileged] == []


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_drop_standard_input_is_not_even_mapped_or_copied(hardened: dict[str, Traced], kind: str) -> None:
    """What is done to it before the drop is to look whether it is open, and to keep it open."""
    # strace takes the unused field userns_fd of struct mount_attr, which is 0, for a descriptor.
    harmless = {"fstat", "newfstatat", "fcntl", "dup2", "dup3", "lseek", "ioctl", "mount_setattr"}
    early = {call.name for call in _reads_of_netconf(hardened[kind].calls) if call.is_privileged}
    assert early <= harmless


@pytest.mark.parametrize("kind", KINDS)
def test_state_files_are_touched_only_by_a_process_that_has_dropped_everything(
    hardened: dict[str, Traced], kind: str
) -> None:
    uses = _uses_of_state(hardened[kind].calls)
    assert [call for call in uses if call.is_privileged] == []
    assert bool(uses) == (kind != "refused ADD")


def test_the_same_check_finds_the_privileged_reads_of_level_root(scene: Scene) -> None:
    calls = scene.trace("STATUS", "root", {}).calls
    assert [call for call in _reads_of_netconf(calls) if call.is_privileged and call.name == "read"]
    assert [call for call in _uses_of_state(calls) if call.is_privileged and call.name in ("openat", "read")]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_imported_after_the_drop(hardened: dict[str, Traced], kind: str) -> None:
    calls = hardened[kind].calls
    assert [call for call in calls if call.is_privileged and _PYTHON_CODE.search(call.text)]
    late = [call for call in calls if "seccomp" in call.dropped and _PYTHON_CODE.search(call.text)]
    assert late == []


def test_every_process_of_a_call_drops(hardened: dict[str, Traced]) -> None:
    calls = hardened["ADD"].calls
    dropped = {call.pid for call in calls if call.name == "seccomp"}
    # Four processes, and the child that lends its user namespace to the map of the state directories does nothing.
    assert len(dropped) == 4


def test_no_program_is_executed_but_the_plugin_itself_and_its_interpreter(hardened: dict[str, Traced]) -> None:
    for kind in KINDS:
        calls = [call for call in hardened[kind].calls if call.name in ("execve", "execveat")]
        programs = [call.text.split('"')[1] for call in calls]
        assert [os.path.basename(programs[0]), *programs[1:]] == ["bridge", launcher.interpreter()], kind
        assert len({call.pid for call in calls}) == 1, kind

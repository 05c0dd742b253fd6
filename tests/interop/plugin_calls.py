"""Calls of plugin executables, as a runtime makes them: the reference's in /usr/lib/cni, and ours."""

import copy
import json
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.world import World

REFERENCE_DIR = "/usr/lib/cni"
JsonObject = dict[str, Any]


class Answer(NamedTuple):
    """What a call answered.

    Attributes:
        document: The JSON document on standard output; None for nothing.
        stderr: Text of standard error.
        returncode: Exit status.
    """

    document: Any
    stderr: str
    returncode: int


class Plugins:
    """The plugins of one directory, called from the host side of a world.

    Args:
        world: Where they run.
        directory: Where the executables are.
        path: CNI_PATH; the directory itself by default.
    """

    def __init__(self, world: World, directory: str, path: str = "") -> None:
        self.world = world
        self.directory = directory
        self.path = path or directory

    def environment(
        self, verb: str, container_id: str = "c1", ifname: str = "eth0", netns: str = "blue", args: str = ""
    ) -> dict[str, str]:
        """Make the CNI_* variables; `netns` is the name of one of the world's, a path, or empty."""
        is_name = netns and "/" not in netns
        variables = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container_id,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": f"/run/netns/{netns}" if is_name else netns,
            "CNI_PATH": self.path,
        }
        return {**variables, "CNI_ARGS": args} if args else variables

    def call(
        self,
        verb: str,
        netconf: JsonObject | bytes,
        *,
        plugin: str = "",
        env: Mapping[str, str] | None = None,
        expect: int | None = 0,
        timeout: float = 20,
        **attachment: Any,
    ) -> Answer:
        """Call a plugin.

        Args:
            verb: Value of CNI_COMMAND.
            netconf: What it gets on standard input.
            plugin: Its name; by default the netconf's `type`.
            env: Variables besides the CNI_* ones, or instead of them.
            expect: The status it has to end with; None: any.
            timeout: Seconds.
            **attachment: `container_id`, `ifname`, `netns` and `args`, if they are not the usual ones.
        """
        name = plugin or (netconf["type"] if isinstance(netconf, dict) else "bridge")
        done = self.world.run(
            [f"{self.directory}/{name}"],
            stdin=netconf if isinstance(netconf, bytes) else json.dumps(netconf).encode(),
            env={**self.environment(verb, **attachment), **(env or {})},
            expect=expect,
            timeout=timeout,
        )
        return Answer(json.loads(done.stdout) if done.stdout else None, done.stderr.decode(), done.returncode)

    def start(self, verb: str, netconf: JsonObject, **attachment: Any) -> "subprocess.Popen[bytes]":
        """Start a call without waiting for it; the netconf is given at once."""
        # a file would have to be in the world, and a pipe would need somebody who writes while others run
        script = f"printf %s {shlex.quote(json.dumps(netconf))} | exec {self.directory}/{netconf['type']}"
        child = self.world.popen(["sh", "-c", script], env=self.environment(verb, **attachment))
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
        return child

    def add(self, netconf: JsonObject, **attachment: Any) -> Any:
        """Have it ADD; the result."""
        return self.call("ADD", netconf, **attachment).document

    def fail(self, verb: str, netconf: JsonObject | bytes, **attachment: Any) -> Any:
        """Make a call that must fail; the error document."""
        answer = self.call(verb, netconf, expect=1, **attachment)
        assert {"cniVersion", "code", "msg"} <= answer.document.keys() <= {"cniVersion", "code", "msg", "details"}
        return answer.document

    def check(self, netconf: JsonObject, result: Any, **attachment: Any) -> None:
        """Have it CHECK, with the result of ADD."""
        answer = self.call("CHECK", with_prev_result(netconf, result), **attachment)
        assert answer.document is None

    def delete(self, netconf: JsonObject, result: Any = None, **attachment: Any) -> None:
        """Have it DEL, with the result of ADD if the runtime has it."""
        answer = self.call("DEL", with_prev_result(netconf, result), **attachment)
        assert answer.document is None


def with_prev_result(netconf: JsonObject, result: Any) -> JsonObject:
    """Add the result of ADD, as a runtime does from 0.4.0 on."""
    return netconf if result is None else {**netconf, "prevResult": result}


def changed(netconf: JsonObject, **changes: Any) -> JsonObject:
    """Copy a netconf with some keys set anew; a key that becomes None is taken out.

    A key with two underscores leads into an object: `ipam__routes`.
    """
    copied = copy.deepcopy(netconf)
    for key, value in changes.items():
        *parents, last = key.split("__")
        place = copied
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return copied

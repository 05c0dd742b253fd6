"""How long it takes until something confined has run and its end is known: the sandbox library and two others.

Argument: path of a netns, for the library. Words on standard input: keys of `COMMANDS`, `LIBRARY`, and `FLOOR`.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

from answering import answer
from floor import Place
from subjects import FLOOR

from cnisandbox import Sandbox
from cnisandbox.netlink.links import get_link

LIBRARY = "library"
# As near to a worker as they can be told to: own namespaces, nobody's uid, no capability.
COMMANDS = {
    "bubblewrap": (
        *("/usr/bin/bwrap", "--unshare-all", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/", "--die-with-parent", "/bin/true"),
    ),
    "unshare + setpriv": (
        *("/usr/bin/unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"),
        *("/usr/bin/setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"),
        *("--bounding-set", "-all", "--inh-caps", "-all", "/bin/true"),
    ),
}


def call_function(netns: str) -> None:
    """Call a function in a worker that has CAP_NET_ADMIN in one netns and nothing else."""
    with Sandbox(netns) as box:
        assert box.call(get_link, "lo") is not None


def call_unconfined(inside: Place, outside: Place) -> None:
    """Call the same function here, in the netns."""
    inside.enter()
    assert get_link("lo") is not None
    outside.enter()


def run_command(name: str) -> None:
    """Run a program that does nothing."""
    argv = COMMANDS[name]
    _, status = os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)
    if status:
        sys.exit(f"{' '.join(argv)}: wait status {status}")


def main() -> None:
    """Answer."""
    actions: dict[str, Callable[[], None]] = {name: partial(run_command, name) for name in COMMANDS}
    actions[LIBRARY] = partial(call_function, sys.argv[1])
    actions[FLOOR] = partial(call_unconfined, Place(sys.argv[1]), Place("/proc/self/ns/net"))
    answer(actions)


if __name__ == "__main__":
    main()

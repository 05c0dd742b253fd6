"""The attacker as a plugin of its own, for the runner: makes the one attempt that standard input names, and stays.

Standard input is a netconf with one more key:

    "attack": {"module": "network", "function": "delete_host_link", "arguments": [], "where": "container",
               "facts": [...]}

Standard error is where it speaks, one line each: READY when it waits for the netconf, SAID when it has tried. There is
no file involved, so what is found in the state directories afterwards is the attempt's doing.
"""

import functools
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable

from cnisandbox.laboratory.attacker import knowledge, raw
from cnisandbox.laboratory.attacker.knowledge import Facts, Said

READY, SAID = "attacker: ready", "attacker: said "

_PACKAGE = "cnisandbox.laboratory.attacker"
_CLONE_NEWNET = 0x40000000


def address_of(attempt: Callable[[Facts], Said | None]) -> dict[str, object]:
    """Say where an attempt is found: a function of a module of this package, perhaps with some arguments given.

    Raises:
        ValueError: it is somewhere else, or has no name.
    """
    function: Callable[..., object] = attempt
    arguments: tuple[object, ...] = ()
    if isinstance(attempt, functools.partial):
        if attempt.keywords:
            raise ValueError(f"attempt {attempt}: arguments are given by position")
        function, arguments = attempt.func, attempt.args
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module.startswith(_PACKAGE + ".") or not name.isidentifier():
        raise ValueError(f"attempt {name or function}: it must be a function of a module of {_PACKAGE}")
    return {"module": module.removeprefix(_PACKAGE + "."), "function": name, "arguments": list(arguments)}


def facts_as_values(facts: Facts) -> list[object]:
    """Make what JSON can carry."""
    return [value.hex() if isinstance(value, bytes) else value for value in facts]


def _facts_of(values: list[object]) -> Facts:
    kinds = Facts.__annotations__.values()
    return Facts(
        *(
            bytes.fromhex(str(value)) if kind is bytes else value  # type: ignore[arg-type]
            for value, kind in zip(values, kinds, strict=True)
        )
    )


def main() -> None:
    """Wait for the netconf, try, say what came of it, and wait for the end."""
    os.write(2, (READY + "\n").encode())
    request = json.load(sys.stdin)["attack"]
    module = importlib.import_module(f"{_PACKAGE}.{request['module']}")
    attempt = functools.partial(getattr(module, request["function"]), *request["arguments"])
    if request["where"] == "container":
        fd = os.open(os.environ["CNI_NETNS"], os.O_RDONLY)
        raw.syscall("setns", fd, _CLONE_NEWNET)  # as every plugin does
        os.close(fd)
    said = knowledge.make(attempt, _facts_of(request["facts"]))
    os.write(2, (SAID + json.dumps(said) + "\n").encode())
    while True:
        signal.pause()


if __name__ == "__main__":
    main()

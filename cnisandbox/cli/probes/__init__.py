"""What `cnisandbox doctor` looks at: each probe tries the thing itself, in a child or a namespace that is thrown away.

A version number says what a kernel could do, and a configuration, a security module or a container around us may say
otherwise; so nothing here compares versions.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from cnisandbox.boundary.syscalls import checked, lib

OK = "ok"
DEGRADED = "degraded"
MISSING = "missing"


class Seen(NamedTuple):
    """What a probe saw: a state, and a few words."""

    state: str
    detail: str = ""


class Probe(NamedTuple):
    """One feature.

    Attributes:
        feature: Its name.
        needed_for: What does not work without it.
        remedy: What to do about it.
        look: Tries it.
        is_required: Whether level hardened needs it, and with it level mediated.
        is_for_mediated: Whether level mediated, and the runner, need it besides.
    """

    feature: str
    needed_for: str
    remedy: str
    look: Callable[[], Seen]
    is_required: bool = False
    is_for_mediated: bool = False


def attempt(flags: int, work: Callable[[], object]) -> Seen:
    """Try something in a child, inside namespaces of its own.

    Args:
        flags: CLONE_NEW* of the namespaces; 0 for none.
        work: What is tried; it has worked if it raises nothing. What it returns becomes the detail.

    Returns:
        OK, or MISSING with what went wrong.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _answer(writer, flags, work)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        return Seen(MISSING, f"the probe died with status {os.waitstatus_to_exitcode(status)}")
    state, detail = json.loads(answer)
    return Seen(state, detail)


def _answer(writer: int, flags: int, work: Callable[[], object]) -> None:
    """Do the work in the child and end it, without any of the parent's clean-up."""
    try:
        if flags:
            checked(lib.native_unshare(flags))
        answer = [OK, str(work() or "")]
    except Exception as error:  # noqa: BLE001 - whatever a probe meets is what it has found out
        answer = [MISSING, words(error)]
    os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def words(error: Exception) -> str:
    """Say in a few words what an error is."""
    code = getattr(error, "errno", None) or getattr(error, "code", None)
    return os.strerror(code).lower() if isinstance(code, int) and code > 0 else str(error)

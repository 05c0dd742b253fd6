"""Cases about programs and files: what is executed, what is left behind, what is read."""

import os
import stat
import subprocess
from contextlib import suppress
from typing import Any

from cnisandbox.laboratory.attacker import raw
from cnisandbox.laboratory.replays.case import OURS, ROOT, RUNNER, Case, Effect, Outcome
from cnisandbox.laboratory.replays.host import (
    OPEN_DIR,
    OUR_DIR,
    OUTSIDE_DIR,
    PRIVATE_DIR,
    REFERENCE_DIR,
    SECRET_FILE,
    VULNERABLE_DIR,
    Answer,
    Host,
)

_EVIL = f"{OUTSIDE_DIR}/evil"
# Of the system, and in view everywhere; it waits for its standard input to end.
_OF_THE_SYSTEM = "/usr/bin/cat"
_LEAKED_FD = 77
_NOBODY = 65534
_SET_UID_PLACES = (VULNERABLE_DIR, "/var/lib/cni/networks", OPEN_DIR)
_IN_OPEN = 0x20


def path_traversal(host: Host) -> Outcome:
    """Name a program that is no plugin as address plugin."""
    with open(_EVIL, "w") as file:
        file.write("#!/bin/sh\nsleep 1\n")
    os.chmod(_EVIL, 0o755)
    if host.column == OURS:
        return _executed(host, f"{OUR_DIR}/bridge", "our bridge")
    outcome = _executed(host, f"{REFERENCE_DIR}/bridge", _subject(host, "bridge"))
    if host.column == ROOT and all(effect.happened for effect in outcome.effects):
        return outcome
    repaired = f"the reference bridge refuses: {outcome.said}" if host.column == ROOT else ""
    return _executed(host, f"{VULNERABLE_DIR}/bridge", host.vulnerable_subject)._replace(reason=repaired)


def _executed(host: Host, program: str, subject: str) -> Outcome:
    said, processes = [], {}
    for executed in (_EVIL, _OF_THE_SYSTEM):
        answer, processes[executed] = _execute(host, program, executed)
        said.append(answer)
    of_outside, of_system = processes[_EVIL], processes[_OF_THE_SYSTEM]
    credentials = [f"uid {uid}, CapEff {effective:x}" for uid, effective in (*of_outside, *of_system)]
    is_root = any(uid == 0 and effective for uid, effective in (*of_outside, *of_system))
    effects = (
        Effect("a program that somebody has left is executed", bool(of_outside), f"{_EVIL}: {_count(of_outside)}"),
        Effect("a program of the system is executed", bool(of_system), f"{_OF_THE_SYSTEM}: {_count(of_system)}"),
        Effect("one is executed as root", is_root, "; ".join(dict.fromkeys(credentials)) or "no process"),
    )
    return Outcome(subject, effects, next(filter(None, said), ""))


def _count(processes: list[tuple[int, int]]) -> str:
    return f"{len(processes)} process" if len(processes) == 1 else f"{len(processes) or 'no'} processes"


def _execute(host: Host, program: str, executed: str) -> tuple[str, list[tuple[int, int]]]:
    """Have a plugin execute a program; what it said, and uid and effective capabilities of who executed it."""
    netconf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "cni0"}
    netconf |= {"ipam": {"type": f"../../..{executed}"}, "replay": {"defect": "execute-by-type"}}
    found: dict[int, tuple[int, int]] = {}

    def look() -> bool:
        for pid, line in host.processes():
            if line.split()[-1:] == [f"{os.path.dirname(program)}/../../..{executed}"]:
                with suppress(OSError):
                    found[pid] = int(host.status(pid, "Uid").split()[1]), int(host.status(pid, "CapEff"), 16)
        return bool(found)

    answer = host.call(program, netconf, during=look)
    return answer.said, list(found.values())


def set_uid_leftover(host: Host) -> Outcome:
    """Leave a set-uid program where a local user can execute it."""
    answer = host.call_vulnerable("bridge", "leave-set-uid-program", {"directories": list(_SET_UID_PLACES)})
    found = [path for place in ("/run", "/var/lib/cni") for path in _set_uid_programs(place)]
    became_root = [path for path in found if _is_root_for_nobody(host, path)]
    effects = (
        Effect("a set-uid program of root is left behind", bool(found), ", ".join(found) or "none found"),
        Effect("it makes a local user root", bool(became_root), ", ".join(became_root) or "nobody became root"),
    )
    return Outcome(host.vulnerable_subject, effects, answer.said)


def _set_uid_programs(place: str) -> list[str]:
    found = []
    for directory, _, names in os.walk(place):
        for name in names:
            status = os.lstat(f"{directory}/{name}")
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_ISUID and status.st_uid == 0:
                found.append(f"{directory}/{name}")
    return sorted(found)


def _is_root_for_nobody(host: Host, path: str) -> bool:
    try:
        with subprocess.Popen([path, "5"], user=_NOBODY, group=_NOBODY, extra_groups=()) as child:
            uids = host.status(child.pid, "Uid")
            child.kill()
    except OSError:
        return False
    return uids.split()[1] == "0"


def leaked_descriptor(host: Host) -> Outcome:
    """Start the plugin with a descriptor of the host's root directory left open."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.dup2(fd, _LEAKED_FD, inheritable=True)
    where = {"descriptor": _LEAKED_FD, "path": PRIVATE_DIR.lstrip("/")}
    answer = host.call_vulnerable("bridge", "use-leaked-descriptor", where, kept_fds=(_LEAKED_FD,))
    is_planted = os.path.exists(f"{PRIVATE_DIR}/planted")
    is_told = host.secret in answer.stdout + answer.said
    effects = (
        Effect("a file of root's is made through it", is_planted, f"{PRIVATE_DIR}: {sorted(os.listdir(PRIVATE_DIR))}"),
        Effect("a secret of root's is read through it", is_told, f"it was {'told' if is_told else 'not told'}"),
    )
    return Outcome(host.vulnerable_subject, effects, "" if is_told else answer.said)


def file_of_root(host: Host) -> Outcome:
    """Name a file of root's alone as the one that host-local reads the name servers from."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]], "resolvConf": SECRET_FILE}
    netconf: dict[str, Any] = {"cniVersion": "1.0.0", "name": "net", "type": "host-local", "ipam": ipam}
    watch_fd = raw.syscall("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
    raw.syscall("inotify_add_watch", watch_fd, SECRET_FILE.encode() + b"\0", _IN_OPEN)
    directory = OUR_DIR if host.column == OURS else REFERENCE_DIR
    answer = host.call(f"{directory}/host-local", netconf)
    is_opened = _has_events(watch_fd)
    is_told = host.secret in answer.stdout
    effects = (
        Effect("a file that only root may read is opened", is_opened, f"inotify of {SECRET_FILE}: {is_opened}"),
        Effect("its content is told", is_told, "it stands in the result" if is_told else "it is not in the output"),
    )
    return Outcome(_subject(host, "host-local"), effects, _without(answer, host.secret))


def _has_events(watch_fd: int) -> bool:
    try:
        return bool(os.read(watch_fd, 4096))
    except BlockingIOError:
        return False


def _without(answer: Answer, secret: str) -> str:
    return answer.said.replace(secret, "...")


def _subject(host: Host, plugin: str) -> str:
    return {
        ROOT: f"reference {plugin}, as root",
        OURS: f"our {plugin}",
        RUNNER: f"reference {plugin}, under `cnisandbox exec`",
    }[host.column]


CASES = (
    Case(
        "path-traversal",
        "CVE-2021-20206",
        "containernetworking/cni before 0.8.1: the type of a plugin may be a path",
        "ipam.type leads out of CNI_PATH, to a program of the host",
        path_traversal,
        "Ours refuse a type that is no file name. Under the runner nothing can be executed but the plugins of CNI_PATH,"
        " the interpreter of one that is a script, and what the profile names; all of that as the service user, without"
        " a capability.",
    ),
    Case(
        "set-uid-leftover",
        "CVE-2024-33522",
        "calico before 3.27.3: the installer is set-uid root",
        "the plugin leaves a set-uid program wherever it can write; a local user executes it",
        set_uid_leftover,
        "What a plugin writes in a state directory is root's on disk, but no mode with a set-uid bit passes the filter"
        " of system calls; the other places are read-only or not in view.",
    ),
    Case(
        "leaked-descriptor",
        "CVE-2024-21626",
        "runc before 1.1.12: a directory of the host is left open in the process that is started",
        "the runtime leaves a descriptor of / open; the plugin makes and reads files of root's through it",
        leaked_descriptor,
        "Each process closes every descriptor but its own before it drops its privileges.",
    ),
    Case(
        "file-of-root",
        "CVE-2018-6556",
        "lxc-user-nic before 3.0.2: opens a path that the caller gives, as root (also CVE-2022-47952)",
        "the netconf names a file that only root may read as resolvConf",
        file_of_root,
        "Who opens the file is the service user, to whom the kernel refuses it; under the runner it is not in view.",
    ),
)

"""Have the plugins of a directory run without the runtime's privileges, whoever calls them.

Each plugin is moved to .cnisandbox/ in the same directory, as it is, and a shim takes its place: a small program that
runs it as `cnisandbox exec` does. Runtimes need no other configuration. `cnisandbox unwrap` puts everything back.

Called again, it brings shims up to date, and wraps anew what a package manager has put over a shim (`cnisandbox doctor`
names such plugins). A plugin is wrapped only if it answers when it is run confined.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import NamedTuple

from cnisandbox.boundary.levels import Level
from cnisandbox.cli import bytecode, host, launcher, output, wrapping
from cnisandbox.cli.install import require_root
from cnisandbox.cli.launcher import Change
from cnisandbox.cli.wrapping import Directory, How
from cnisandbox.errors import CniError, InvalidConfig, IsolationUnavailable
from cnisandbox.profile.load import GENERIC, load_profile, profile_for
from cnisandbox.profile.schema import Profile

# LIMIT: an answer to VERSION takes a tenth of a second.
_TRIAL_TIMEOUT_S = 60
# As a shim finds the package: not by the working directory, in which anything may lie.
_PROGRAM = "import sys; sys.path += {directories!r}; from cnisandbox.cli.main import main; main()"
_STYLES = {"skipped": "yellow", "unchanged": "dim", "not bundled": "yellow", "not compiled": "yellow"}


class Planned(NamedTuple):
    """A plugin that is going to be wrapped."""

    name: str
    how: How
    note: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="plugins; all that are not ours by default")
    parser.add_argument("--bin-dir", metavar="DIR", required=True, help="such as /opt/cni/bin")
    parser.add_argument("--level", metavar="L", default="", help="by default what each plugin's profile says")
    parser.add_argument(
        "--profile", metavar="P", default="", help="a name or a file; by default the one of the plugin's name"
    )
    parser.add_argument("--log", metavar="FILE", default="", help="where to write the audit log, or journald")


def run(arguments: argparse.Namespace) -> int:
    """Wrap; every refusal comes before the first change, as far as it can be foreseen."""
    require_root("wrap")
    path = os.path.realpath(arguments.bin_dir)
    with wrapping.opened(path) as directory:
        launcher.require_safe_directory(path)
        changes = [host.ensure_service_user(), host.ensure_config_directory()]
        changes += [host.compile_package(), bytecode.write_bundles([bytecode.SHIM])]
        planned, skipped = _plan(directory, arguments)
        wrapped = [(directory.wrap(each.name, each.how), each) for each in planned]
    rows = [(change.what, change.name, "", change.note) for change in changes]
    rows += [(change.what, change.name, each.how.profile, _note(change, each)) for change, each in wrapped]
    rows += [("skipped", change.name, "", change.note) for change in skipped]
    print(output.table(("what", "object", "profile", "note"), rows, [_STYLES.get(row[0], "green") for row in rows]))
    for other in host.writable_by_others():
        output.print_warning(f"others than root may change {other}, and what they put there runs as root")
    return 0


def _note(change: Change, planned: Planned) -> str:
    return "; ".join(note for note in (change.note, planned.note) if note)


def _plan(directory: Directory, arguments: argparse.Namespace) -> tuple[list[Planned], list[Change]]:
    """Choose the plugins, and try each.

    Returns:
        Those that can be wrapped; those that cannot, unless they were named.

    Raises:
        CniError: A plugin that was named cannot be wrapped.
    """
    names = list(dict.fromkeys(arguments.names))
    for name in names:
        directory.require_wrappable(name)
    planned, skipped = [], []
    for name in names or directory.candidates():
        try:
            directory.require_wrappable(name)
            planned.append(_prepare(directory, name, arguments))
        except CniError as error:
            if names:
                raise
            skipped.append(Change("skipped", name, error.msg))
    if not planned:
        raise InvalidConfig(
            f"wrap plugins of {directory.path}: there is none that can be wrapped",
            "; ".join(change.note for change in skipped),
        )
    return planned, skipped


def _prepare(directory: Directory, name: str, arguments: argparse.Namespace) -> Planned:
    wanted = os.path.abspath(arguments.profile) if "/" in arguments.profile else arguments.profile
    profile = load_profile(wanted) if wanted else profile_for(name)
    how = How(level=arguments.level, profile=wanted or profile.name, log=_log_target(arguments.log))
    _try(directory, name, how)
    return Planned(name, how, _note_on(profile, arguments.level))


def _note_on(profile: Profile, level: str) -> str:
    """Say what a person should know about how a plugin is going to run."""
    notes = ["no profile of its own"] if profile.name == GENERIC else []
    if level == Level.ROOT.value:
        notes.append("keeps everything")
    elif (level or profile.level.value) != Level.MEDIATED.value:
        notes.append("keeps CAP_NET_ADMIN")
    return ", ".join(notes)


def _log_target(text: str) -> str:
    return text if text in ("", "journald") else os.path.abspath(text)


def _try(directory: Directory, name: str, how: How) -> None:
    """Run a plugin confined, for its version: the smallest thing that one can do.

    Raises:
        IsolationUnavailable: It does not answer.
    """
    options = [f"--{key}={value}" for key, value in how._asdict().items() if value]
    program = _PROGRAM.format(directories=launcher.import_directories())
    command = [sys.executable, "-IS", "-c", program, "exec", *options, "--", f"{directory.path}/{name}"]
    environment = {"PATH": os.defpath, "CNI_COMMAND": "VERSION", "CNI_PATH": directory.path}
    question = b'{"cniVersion":"1.0.0"}'
    try:
        done = subprocess.run(  # noqa: S603
            command, env=environment, input=question, capture_output=True, check=False, timeout=_TRIAL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise IsolationUnavailable(f"try {name}, confined: no answer within {_TRIAL_TIMEOUT_S} s") from error
    try:
        answer = json.loads(done.stdout)
        is_answer = bool(answer["supportedVersions"])
        said = "" if is_answer else str(answer)
    except (ValueError, TypeError, KeyError):
        is_answer = False
        said = _said(done.stdout, done.stderr, done.returncode)
    if not is_answer:
        raise IsolationUnavailable(
            f"try {name}, confined: {said}", "`cnisandbox doctor` says what this machine lacks; is it a CNI plugin?"
        )


def _said(stdout: bytes, stderr: bytes, status: int) -> str:
    """Say what a plugin has answered in place of its version."""
    try:
        answer = json.loads(stdout)
        return f"{answer['msg']}{': ' if answer.get('details') else ''}{answer.get('details', '')}"
    except (ValueError, TypeError, KeyError, AttributeError):
        lines = stderr.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it answers nothing, status {status}"

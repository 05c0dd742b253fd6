"""What a run of a foreign plugin is to be, described before anything irreversible happens.

Privilege: none; paths are only looked at.
"""

import json
import os
import stat
from contextlib import suppress

from cnisandbox.boundary import landlock
from cnisandbox.boundary.environment import Environment
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.namespaces import Netns
from cnisandbox.boundary.sandbox import ServiceUser
from cnisandbox.boundary.state import StateDir
from cnisandbox.boundary.view import Mount, clone_tree, new_temporary
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason
from cnisandbox.hints import Any, NamedTuple
from cnisandbox.profile.schema import Profile, from_plain

# Libraries and interpreters; what may be executed of them is another question, which Landlock answers.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_DYNAMIC_LINKER = ("/etc/ld.so.cache", "/etc/alternatives")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_SHEBANG_BYTES = 256
# Its own, and empty: bridge hands nft a ruleset in a file there.
_TEMPORARY = "/tmp"  # noqa: S108 - not the host's


class Plan(NamedTuple):
    """A run.

    Attributes:
        plugin: Path of the plugin, as it is in view.
        arguments: What follows it on its command line.
        overlays: (path in view, file that stands there instead).
        profile: What it may do.
        level: How much is taken away.
        user: Whom it becomes.
        environment: The parameters of the call; None when there is no CNI_COMMAND.
        netns: The container's; None when the call has none.
        state_dirs: State directories, as mounts that belong to the user.
        holder: Process number of which CNI_NETNS names the netns below /proc; 0 when it is elsewhere.
    """

    plugin: str
    arguments: tuple[str, ...]
    overlays: tuple[tuple[str, str], ...]
    profile: Profile
    level: Level
    user: ServiceUser
    environment: Environment | None
    netns: Netns | None
    state_dirs: tuple[StateDir, ...]
    holder: int

    @property
    def name(self) -> str:
        """The plugin's name."""
        return os.path.basename(self.plugin)

    @property
    def plugin_dirs(self) -> tuple[str, ...]:
        """Where plugins are: next to this one, and where CNI_PATH says."""
        named = self.environment.plugin_dirs if self.environment else ()
        here = os.path.dirname(os.path.abspath(self.plugin))
        return tuple(dict.fromkeys([here, *(path for path in named if os.path.isabs(path) and os.path.isdir(path))]))


def write_plan(plan: Plan) -> tuple[bytes, list[int]]:
    """Write a plan down, for a process that was forked before there was one.

    Returns:
        The text, and the descriptors that go with it.
    """
    environment, netns = plan.environment, plan.netns
    fields = plan._asdict() | {
        "profile": plan.profile._replace(level=plan.profile.level.value),  # type: ignore[arg-type]
        "level": plan.level.value,
        "environment": environment and environment._replace(level=environment.level.value),  # type: ignore[arg-type]
        "netns": netns and netns.inode,
        "state_dirs": [item.path for item in plan.state_dirs],
    }
    return json.dumps(fields).encode(), [*(item.fd for item in plan.state_dirs), *((netns.fd,) if netns else ())]


def read_plan(text: bytes, descriptors: list[int]) -> tuple[Plan, list[int]]:
    """Read what `write_plan` wrote.

    Args:
        text: The text.
        descriptors: Those that came with it, and perhaps others behind them.

    Returns:
        The plan, and the others.
    """
    # TRUST: the entry wrote it, of whom we are a fork; it has checked what is in it.
    fields = json.loads(text)
    rest = iter(descriptors)
    environment = fields["environment"]
    state_dirs = tuple(StateDir(path, next(rest)) for path in fields["state_dirs"])
    plan = Plan(
        plugin=fields["plugin"],
        arguments=tuple(fields["arguments"]),
        overlays=tuple((path, original) for path, original in fields["overlays"]),
        profile=from_plain(fields["profile"]),
        level=Level(fields["level"]),
        user=ServiceUser(*fields["user"]),
        environment=_environment(environment) if environment else None,
        netns=Netns(next(rest), fields["netns"], None) if fields["netns"] else None,
        state_dirs=state_dirs,
        holder=fields["holder"],
    )
    return plan, list(rest)


def _environment(fields: list[Any]) -> Environment:
    environment = Environment(*fields)
    return environment._replace(level=Level(environment.level), plugin_dirs=tuple(environment.plugin_dirs))


def process_of_path(path: str) -> int:
    """Say which process a netns path such as "/proc/1234/ns/net" names; 0 if it is no such path."""
    parts = path.split("/")
    is_of_process = len(parts) >= 5 and parts[:2] == ["", "proc"] and parts[2].isdecimal() and parts[2].isascii()
    return int(parts[2]) if is_of_process and len(parts[2]) < 8 else 0


def links_of_view() -> tuple[tuple[str, str], ...]:
    """List the system directories that are symbolic links, such as ("/bin", "usr/bin")."""
    return tuple((path, os.readlink(path)) for path in _SYSTEM if os.path.islink(path))


def common_mounts(proc_fd: int) -> tuple[Mount, ...]:
    """List what every plugin sees, and no call has an influence on.

    Args:
        proc_fd: A procfs of its pid namespace.
    """
    systems = [path for path in _SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    mounts = [Mount(path, is_executable=True) for path in systems]
    mounts += [Mount(path, is_writable=True, is_device=True) for path in _DEVICES if os.path.exists(path)]
    mounts.append(Mount("/proc", tree_fd=proc_fd))
    mounts.append(Mount(_TEMPORARY, is_writable=True, tree_fd=new_temporary()))
    return tuple(mounts)


def mounts_of_view(plan: Plan, common: tuple[Mount, ...], token_fd: int | None) -> tuple[Mount, ...]:
    """List what the plugin sees besides what is in view by now.

    Args:
        plan: The run.
        common: What is in view.
        token_fd: What stands at CNI_NETNS; None when it is found below /proc, or there is none.
    """
    profile = plan.profile
    mounts = [Mount(path, is_executable=True) for path in plan.plugin_dirs if os.path.isdir(path)]
    mounts += [Mount(path) for path in (*_DYNAMIC_LINKER, *profile.readable) if os.path.exists(path)]
    mounts += [Mount(path, is_writable=True) for path in (*profile.writable, *_sockets(profile))]
    mounts += [Mount(item.path, is_writable=True, tree_fd=item.fd) for item in plan.state_dirs]
    systems = [mount for mount in common if mount.is_executable]
    others = [mount for mount in common if not mount.is_executable]
    mounts = _not_in_view(_outermost_first([*systems, *mounts, *others]), common)
    for path, original in plan.overlays:
        mounts.append(Mount(path, tree_fd=clone_tree(original), is_executable=True))
    if token_fd is not None and plan.environment is not None:
        mounts.append(Mount(os.path.normpath(plan.environment.netns_path), tree_fd=token_fd))
    return tuple(mounts)


def _sockets(profile: Profile) -> tuple[str, ...]:
    return tuple(path for path in profile.unix_sockets if os.path.exists(path))


def _not_in_view(mounts: list[Mount], common: tuple[Mount, ...]) -> list[Mount]:
    """Leave out what is in view, and will not be covered."""
    added: list[Mount] = []
    for mount in mounts:
        if mount not in common or any(_is_below(mount.path, other.path) for other in added):
            added.append(mount)
    return added


def _outermost_first(mounts: list[Mount]) -> list[Mount]:
    """Sort, and leave out what stands twice, or below something that shows it already in the same way."""
    unique: dict[str, Mount] = {}
    for mount in mounts:
        path = os.path.normpath(mount.path)
        unique.setdefault(path, mount._replace(path=path))
    kept: list[Mount] = []
    for path in sorted(unique):
        mount = unique[path]
        is_shown = any(_is_below(path, other.path) and _is_alike(mount, other) for other in kept)
        if not is_shown:
            kept.append(mount)
    return kept


def _is_below(path: str, other: str) -> bool:
    return path.startswith(other.rstrip("/") + "/")


def _is_alike(mount: Mount, other: Mount) -> bool:
    is_plain = mount.tree_fd is None and other.tree_fd is None
    return is_plain and not mount.is_writable and not other.is_writable and mount.is_executable <= other.is_executable


def rules_of_landlock(plan: Plan, linkers: list[str]) -> tuple[landlock.PathRule, ...]:
    """List what Landlock lets the plugin do, in its view.

    Args:
        plan: The run.
        linkers: What `dynamic_linkers` has found.
    """
    profile = plan.profile
    rules = [landlock.PathRule("/", landlock.READ)]
    rules += [landlock.PathRule(path, landlock.READ_FILE | landlock.EXECUTE) for path in executables(plan, linkers)]
    rules += [landlock.PathRule(path, landlock.READ_FILE | landlock.WRITE_FILE) for path in _existing(_DEVICES)]
    rules += [landlock.PathRule(item.path, landlock.KEEP_STATE) for item in plan.state_dirs]
    rules.append(landlock.PathRule(_TEMPORARY, landlock.KEEP_STATE))
    for path in _existing(profile.writable):
        rights = landlock.KEEP_STATE if os.path.isdir(path) else landlock.READ_FILE | landlock.WRITE_FILE
        rules.append(landlock.PathRule(path, rights))
    return tuple(rules)


def _existing(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


def executables(plan: Plan, linkers: list[str]) -> list[str]:
    """List the files that may be executed: the plugin, what its profile names, and their interpreters.

    Each is there once, by one of its names: which file is meant, the kernel says.
    """
    names: dict[str, list[str]] = {}
    found = [plan.plugin]
    for program in plan.profile.programs:
        kind, _, name = program.partition("cni:")
        if not kind:
            found += [path for place in plan.plugin_dirs for path in _matching(place, name, names)]
        else:
            # /sbin is /usr/sbin by now, and a profile names both.
            found += _matching(os.path.realpath(os.path.dirname(program)), os.path.basename(program), names)
    files = _each_once(found)
    return _each_once([*files, *(interpreter for path in files for interpreter in _interpreters(path)), *linkers])


def _each_once(paths: list[str]) -> list[str]:
    """Leave out what is no file, and further names of one."""
    files: dict[tuple[int, int], str] = {}
    for path in dict.fromkeys(paths):
        with suppress(OSError):  # nothing is there
            facts = os.stat(path)
            if stat.S_ISREG(facts.st_mode):
                files.setdefault((facts.st_dev, facts.st_ino), path)
    return list(files.values())


def _matching(directory: str, pattern: str, names: dict[str, list[str]]) -> list[str]:
    """List the files of a directory that match; `names` keeps what was listed."""
    before, star, after = pattern.partition("*")
    if not star:
        return [os.path.join(directory, pattern)]
    if directory not in names:
        names[directory] = os.listdir(directory) if os.path.isdir(directory) else []
    return [f"{directory}/{name}" for name in names[directory] if name.startswith(before) and name.endswith(after)]


def _interpreters(path: str) -> list[str]:
    """Name what the kernel executes in place of a file that is a script."""
    # TRUST: a program that root has installed; only a path is taken from it, of something executed without privilege.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        head = os.read(fd, _SHEBANG_BYTES)
    finally:
        os.close(fd)
    if not head.startswith(b"#!"):
        return []
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split()
    return [word for word in words[:2] if word.startswith("/")]


def dynamic_linkers() -> list[str]:
    """Name what the kernel executes along with a program; no call has an influence on it."""
    found = []
    for directory in ("/lib64", "/lib"):
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            if name.startswith(("ld-linux", "ld-musl")):
                found.append(os.path.join(directory, name))
    return found


def find_plugin(path: str) -> str:
    """Insist on a plugin that can be executed.

    Raises:
        InvalidConfig: it is no absolute path in its shortest form.
        IoFailure: nothing is there, or no program.
    """
    full = os.path.abspath(path)
    try:
        facts = os.stat(full)
    except OSError as error:
        raise IoFailure(f"execute plugin {quoted(path)}: {reason(error)}", "name the file of a CNI plugin") from error
    if not stat.S_ISREG(facts.st_mode) or not facts.st_mode & 0o111:
        raise InvalidConfig(f"execute plugin {quoted(path)}: it is not a program", "name the file of a CNI plugin")
    return full

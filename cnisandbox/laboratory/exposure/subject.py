"""What is executed: a plugin in a column, with the netconf of each verb.

    root                         the plugin as it is; one of ours at level root
    netadmin hardened mediated   one of our plugins at that level
    runner                       somebody else's plugin behind a shim, as `cnisandbox wrap` would put it there

Privilege: none here; what is described is executed as root, as a runtime does it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cnisandbox.cli import bytecode, launcher, shim, wrapping
from cnisandbox.cni.versions import parse_version
from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason
from cnisandbox.laboratory.exposure.station import NETNS_PATH, OWN_DIRECTORY, PATH, Command, require_program
from cnisandbox.runtime.conflist import PluginEntry, parse_list

ROOT, RUNNER = "root", "runner"
OURS = ("netadmin", "hardened", "mediated")
COLUMNS = (ROOT, *OURS, RUNNER)
VERBS = ("ADD", "CHECK", "DEL")
CONTAINER_ID = "laboratory"

_CHECK_SINCE = (0, 4, 0)

_OUR_DIRECTORY = f"{OWN_DIRECTORY}/bin"
_WRAPPED_DIRECTORY = f"{OWN_DIRECTORY}/wrapped"
_REFERENCE_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
PLUGIN_DIRECTORIES = (_OUR_DIRECTORY, _WRAPPED_DIRECTORY, *_REFERENCE_DIRECTORIES)
# Members of reference netconfs that name a link of the host which has to be there.
_LINK_MEMBERS = ("master", "device", "hostDevice", "ifName")
# LIMIT: IFNAMSIZ is 16 with its terminating NUL
_IFNAME_BYTES = 15


class Subject(NamedTuple):
    """A plugin in a column.

    Attributes:
        name: Of the plugin.
        path: Of the program that is measured.
        column: One of COLUMNS.
        is_ours: Whether it is one of our plugins.
        sha256: Of the program.
        version: cniVersion of the netconf.
        network: Its name.
        before: Plugins that run before it, unmeasured; for one that is part of a list.
        config: Its own plugin object.
        plugin_dirs: CNI_PATH.
    """

    name: str
    path: str
    column: str
    is_ours: bool
    sha256: str
    version: str
    network: str
    before: tuple[PluginEntry, ...]
    config: dict[str, Any]
    plugin_dirs: tuple[str, ...]

    def verbs(self, wanted: Sequence[str]) -> list[str]:
        """Choose the verbs that the netconf's version has, in the order of a container's life.

        Raises:
            InvalidConfig: there is no such verb.
        """
        unknown = sorted(set(wanted) - set(VERBS))
        if unknown:
            raise InvalidConfig(f"measure verb {quoted(unknown[0])}: not one of {', '.join(VERBS)}")
        has_check = parse_version(self.version) >= _CHECK_SINCE
        return [verb for verb in VERBS if verb in wanted and (verb != "CHECK" or has_check)]

    @property
    def ifname(self) -> str:
        """CNI_IFNAME."""
        return "lo" if self.name == "loopback" else "eth0"

    @property
    def links(self) -> list[str]:
        """Names of links of the host that the netconf says are there."""
        entries = [*(entry.config for entry in self.before), self.config]
        names = [entry.get(member) for entry in entries for member in _LINK_MEMBERS]
        return list(dict.fromkeys(name for name in names if isinstance(name, str) and _is_ifname(name)))

    def furnish(self) -> None:
        """Put into the station's own directory what has to be executed there."""
        if self.is_ours:
            os.mkdir(_OUR_DIRECTORY)
            with launcher.opened(_OUR_DIRECTORY) as directory_fd:
                for name in launcher.plugin_names():
                    launcher.install(directory_fd, name, name)
        if self.column == RUNNER:
            os.makedirs(f"{_WRAPPED_DIRECTORY}/{shim.ORIGINALS}")
            os.symlink(self.path, f"{_WRAPPED_DIRECTORY}/{shim.ORIGINALS}/{self.name}")
            content = wrapping.render(_WRAPPED_DIRECTORY, self.name, wrapping.How("mediated", "", ""))
            with launcher.opened(_WRAPPED_DIRECTORY) as directory_fd:
                launcher.write_script(directory_fd, self.name, content)

    def command(self, verb: str, prev_result: object) -> Command:
        """Describe a call of the plugin that is measured."""
        program = self.path
        if self.is_ours:
            program = f"{_OUR_DIRECTORY}/{self.name}"
        elif self.column == RUNNER:
            program = f"{_WRAPPED_DIRECTORY}/{self.name}"
        return self._command(program, self.config, verb, prev_result)

    def command_before(self, entry: PluginEntry, verb: str, prev_result: object) -> Command:
        """Describe a call of a plugin that runs before it."""
        program = _found(entry.type, self.plugin_dirs)
        return self._command(program, entry.config, verb, prev_result)

    def _command(self, program: str, config: Mapping[str, Any], verb: str, prev_result: object) -> Command:
        members = {key: value for key, value in config.items() if key != "capabilities"}
        members |= {"cniVersion": self.version, "name": self.network}
        if prev_result is not None:
            members["prevResult"] = prev_result
        directories = (_OUR_DIRECTORY, *self.plugin_dirs) if self.is_ours else self.plugin_dirs
        directories = (_WRAPPED_DIRECTORY, *directories) if self.column == RUNNER else directories
        environment = {
            "PATH": PATH,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": CONTAINER_ID,
            "CNI_NETNS": NETNS_PATH,
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": ":".join(directories),
        }
        if self.is_ours:
            environment["CNISANDBOX_LEVEL"] = self.column
        return Command((program,), environment, json.dumps(members).encode())


def subject(plugin: str, netconf: Mapping[str, Any], column: str) -> Subject:
    """Find out what is to be measured.

    Args:
        plugin: Path of a plugin; or its name: one of ours at one of our levels, else one in a usual directory.
        netconf: What the plugin is given; or a list of plugins that has it, of which those before it run as well.
        column: One of COLUMNS.

    Raises:
        InvalidConfig: that does not go together.
        IoFailure: there is no such plugin.
    """
    if column not in COLUMNS:
        raise InvalidConfig(f"measure column {quoted(column)}: not one of {', '.join(COLUMNS)}")
    name = os.path.basename(plugin)
    if name.endswith(".py"):
        name = name.removesuffix(".py").replace("_", "-")
    is_named = "/" not in plugin
    is_ours = (column in OURS or name not in _installed()) if is_named else _is_launcher(plugin)
    if column in OURS and not is_ours:
        raise InvalidConfig(
            f"measure {quoted(plugin)} as {column}: it is not a plugin of cnisandbox",
            "--column runner confines other people's plugins",
        )
    if is_ours and column == RUNNER:
        raise InvalidConfig(
            f"measure {quoted(plugin)} under the runner: it is a plugin of cnisandbox, which confines itself",
            f"choose one of {', '.join(OURS)}",
        )
    if is_ours and name not in launcher.plugin_names():
        raise IoFailure(
            f"measure plugin {quoted(plugin)}: there is none of that name",
            f"name a plugin by its path, or one of ours: {', '.join(launcher.plugin_names())}",
        )
    path = _path_of_ours(name) if is_ours else _installed()[name] if is_named else _behind_shim(os.path.abspath(plugin))
    if not is_ours:
        require_program(path)
    members = dict(netconf)
    if "plugins" in members:
        network = parse_list(json.dumps(members).encode(), "netconf")
        types = [entry.type for entry in network.plugins]
        if name not in types:
            raise InvalidConfig(f"measure {quoted(name)}: it is not among the plugins of the list")
        at = types.index(name)
        before, config = network.plugins[:at], network.plugins[at].config
        version, network_name = network.version, network.name
    else:
        before, config = (), members
        version, network_name = str(members.get("cniVersion", "0.1.0")), str(members.get("name", "laboratory"))
    directories = dict.fromkeys(() if is_ours else (os.path.dirname(path),))
    plugin_dirs = (*directories, *(each for each in _REFERENCE_DIRECTORIES if each not in directories))
    return Subject(
        name, path, column, is_ours, _digest(path), version, network_name, tuple(before), dict(config), plugin_dirs
    )


def prepare(wanted: Subject) -> str:
    """See to it that our own code starts as fast as it does where it was installed.

    Returns:
        What a reader of the figures should know; mostly nothing.
    """
    if wanted.is_ours:
        names = [wanted.name, *(name for name in launcher.plugin_names() if name != wanted.name)]
    elif wanted.column == RUNNER:
        names = [bytecode.SHIM]
    else:
        return ""
    change = bytecode.write_bundles(names)
    return change.note if change.what == "not bundled" else ""


def _is_launcher(path: str) -> bool:
    """Say whether a path is one of our plugins: a launcher, or its source."""
    if path.endswith(".py") and os.path.dirname(os.path.realpath(path)) == os.path.dirname(_path_of_ours("")):
        return True
    directory, name = os.path.split(os.path.abspath(path))
    try:
        with launcher.opened(directory) as directory_fd:
            return launcher.plugin_of(directory_fd, name) is not None
    except IoFailure:
        return False


def _behind_shim(path: str) -> str:
    return shim.program_of(path) if shim.is_shim(path) else path


def _path_of_ours(name: str) -> str:
    return os.path.realpath(launcher.package_directory() / "plugins" / f"{name.replace('-', '_')}.py")


def _installed() -> dict[str, str]:
    """List the plugins in the usual directories: name to path. Ours, and shims, are looked behind or left out."""
    return dict(_programs())


def _programs() -> Iterator[tuple[str, str]]:
    for directory in reversed(_REFERENCE_DIRECTORIES):
        if os.path.isdir(directory):
            for name in sorted(os.listdir(directory)):
                path = f"{directory}/{name}"
                if os.path.isfile(path) and not name.startswith(".") and not _is_launcher(path):
                    yield name, _behind_shim(path)


def _found(name: str, directories: Sequence[str]) -> str:
    for directory in directories:
        if os.path.isfile(f"{directory}/{name}"):
            return f"{directory}/{name}"
    raise IoFailure(f"find plugin {quoted(name)} of the list: not in {', '.join(directories)}")


def _is_ifname(text: str) -> bool:
    return (
        0 < len(text.encode()) <= _IFNAME_BYTES and text.isprintable() and not set(text) & set(" /:%") and text != "lo"
    )


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IoFailure(f"read plugin {quoted(path)}: {reason(error)}") from error

"""Network configuration files: which file is the network, and what stands in it.

The rules are libcni's (CNI spec 1.1.0 section 1; libcni/conf.go, version 1.3): a directory holds `*.conflist` files,
and for old networks `*.conf` and `*.json` files with one plugin each; the name inside the file decides, not the file's
name. Keys of the list are matched exactly and keys of a plugin object in any case, because that is what libcni does.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from cnisandbox.cni.value import MAX_DOCUMENT_BYTES, Value, decode
from cnisandbox.cni.versions import SUPPORTED, parse_version
from cnisandbox.errors import CniError, InvalidConfig, IoFailure, UndecodableInput, quoted, reason

T = TypeVar("T")

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")

_LIST_SUFFIXES = (".conflist",)
_SINGLE_SUFFIXES = (".conf", ".json")
_NEWEST = parse_version(SUPPORTED[-1])


@dataclass(frozen=True)
class PluginEntry:
    """One plugin of a list.

    Attributes:
        type: Name of the binary.
        config: The plugin object as it was written, unknown fields included.
        capabilities: Names of the capabilities that the object switches on.
    """

    type: str
    config: dict[str, object]
    capabilities: frozenset[str]


@dataclass(frozen=True)
class NetworkList:
    """One network: a name, a version, and the plugins in the order of ADD.

    Attributes:
        name: As written; only `check_name` says whether it may be used.
        version: The highest of cniVersion and cniVersions that we speak; "0.1.0" when the list names none.
        plugins: At least one.
        disable_check: CHECK must not be called.
        disable_gc: GC must not be called.
        source: Where it came from, for messages: a path, or "result cache".
        raw: A conflist that says all of this; the bytes of the file where there is one.
    """

    name: str
    version: str
    plugins: tuple[PluginEntry, ...]
    disable_check: bool
    disable_gc: bool
    source: str
    raw: bytes

    def check_name(self) -> None:
        """Refuse a name that cannot be part of a file name or of a firewall rule.

        Raises:
            InvalidConfig: The name breaks the specification's pattern.
        """
        if not NAME.fullmatch(self.name):
            raise InvalidConfig(
                f"use network {quoted(self.name)}: the name has characters that CNI does not allow",
                f"rename it in {self.source}: letters and digits, then also '_', '.' and '-'",
            )


def load_network(directory: str, name: str) -> NetworkList:
    """Find the network called `name`.

    Args:
        directory: The directory of configurations; it is not searched recursively.
        name: Value of the key `name` inside a file.

    Raises:
        InvalidConfig: There is no such network, or a file that comes before it in order is malformed. Going on past a
            malformed file could silently choose another network of the same name, so libcni stops there, and so do we.
        IoFailure: The directory or a file cannot be read.
    """
    lists = _files(directory, _LIST_SUFFIXES)
    singles = _files(directory, _SINGLE_SUFFIXES)
    seen = []
    for path, load in [(path, load_file) for path in lists] + [(path, load_single_file) for path in singles]:
        network = load(path)
        if network.name == name:
            return network
        seen.append(network.name)
    raise _not_found(directory, name, seen)


def load_directory(directory: str) -> list[tuple[str, NetworkList | CniError]]:
    """Load every configuration file of a directory, in the order in which `load_network` looks at them.

    Returns:
        Pairs of the file's path and either the network or the error that its loading gave.
    """
    found: list[tuple[str, NetworkList | CniError]] = []
    for suffixes, load in ((_LIST_SUFFIXES, load_file), (_SINGLE_SUFFIXES, load_single_file)):
        found += [(path, _network_or_error(load, path)) for path in _files(directory, suffixes)]
    return found


def load_file(path: str) -> NetworkList:
    """Load a `.conflist` file, and the plugins that lie beside it in `<network name>/*.conf`."""
    raw = _read(path)
    members = _decode(raw, path)
    inlined_only = _switch(members, "loadOnlyInlinedPlugins", path)
    name = _name(members, path)
    beside = [] if inlined_only else _plugins_beside(path, name)
    return _network(members, beside, path, raw)


def load_single_file(path: str) -> NetworkList:
    """Load a `.conf` or `.json` file of the time before lists, as a list of one plugin."""
    config = _decode(_read(path), path)
    if "plugins" in config:
        _refuse(path, "plugins: this is a list of plugins in a file for a single one", "rename it to end in .conflist")
    value = Value(config, "")
    wrapped: dict[str, object] = {
        "cniVersion": _reading(path, value["cniVersion"].string),
        "name": _reading(path, value["name"].string),
        "plugins": [config],
    }
    return _network(wrapped, [], path, json.dumps(wrapped).encode())


def parse_list(raw: bytes, source: str) -> NetworkList:
    """Parse a conflist that is not a file, such as the configuration in the result cache.

    Raises:
        InvalidConfig: It is not a network configuration list; the message names `source`.
    """
    return _network(_decode(raw, source), [], source, raw)


def _network(members: dict[str, object], beside: list[PluginEntry], source: str, raw: bytes) -> NetworkList:
    _switch(members, "loadOnlyInlinedPlugins", source)
    plugins = _inlined_plugins(members, source)
    if beside:
        merged = members | {
            "loadOnlyInlinedPlugins": True,
            "plugins": [entry.config for entry in plugins + beside],
        }
        raw = json.dumps(merged).encode()
    if not plugins and not beside:
        _refuse(source, "plugins: none in the file and none in the directory beside it", 'add a "plugins" list')
    return NetworkList(
        name=_name(members, source),
        version=_version(members, source),
        plugins=(*plugins, *beside),
        disable_check=_switch(members, "disableCheck", source),
        disable_gc=_switch(members, "disableGC", source),
        source=source,
        raw=raw,
    )


def _inlined_plugins(members: dict[str, object], source: str) -> list[PluginEntry]:
    if "plugins" not in members:
        if _switch(members, "loadOnlyInlinedPlugins", source):
            _refuse(source, "loadOnlyInlinedPlugins: true, but there is no key plugins", "add one, or remove this key")
        return []
    listed = members["plugins"]
    if not isinstance(listed, list):
        _refuse(source, f"plugins: expected an array, got {quoted(listed)}")
    if not listed:
        _refuse(source, "plugins: the array is empty", "name at least one plugin")
    return [_plugin(config, f"plugins[{index}]", source) for index, config in enumerate(listed)]


def _plugins_beside(path: str, name: str) -> list[PluginEntry]:
    if not NAME.fullmatch(name):
        return []  # TRUST: the name comes from the file; one with a slash would leave the directory
    directory = os.path.join(os.path.dirname(path), name)
    return [_plugin(_decode(_read(conf), conf), "", conf) for conf in _files(directory, (".conf",))]


def _plugin(config: object, path: str, source: str) -> PluginEntry:
    if not isinstance(config, dict):
        _refuse(source, f"{path}: expected an object, got {quoted(config)}")
    value = Value(config, path)
    plugin_type = _reading(source, value["type"].string)
    if not plugin_type:
        _refuse(source, f"{path + '.' if path else ''}type: missing", "it is the name of the plugin's binary")
    if "/" in plugin_type or "\0" in plugin_type or plugin_type in {".", ".."}:
        _refuse(source, f"{path + '.' if path else ''}type: {quoted(plugin_type)} is a path", "write only a file name")
    capabilities = _reading(source, value["capabilities"].members) if value["capabilities"].is_present else []
    enabled = frozenset(name for name, wanted in capabilities if _reading(source, wanted.boolean))
    return PluginEntry(plugin_type, config, enabled)


def _name(members: dict[str, object], source: str) -> str:
    name = members.get("name")
    if not isinstance(name, str):
        _refuse(source, f"name: {'missing' if name is None else f'expected a string, got {quoted(name)}'}")
    return name


def _version(members: dict[str, object], source: str) -> str:
    written = members.get("cniVersion")
    if written is not None and not isinstance(written, str):
        _refuse(source, f"cniVersion: expected a string, got {quoted(written)}")
    written = written or ""
    candidates = _versions_we_speak(members, written, source)
    return max(candidates, key=parse_version) if candidates else written or "0.1.0"


def _versions_we_speak(members: dict[str, object], written: str, source: str) -> list[str]:
    listed = members.get("cniVersions", [])
    if not isinstance(listed, list):
        _refuse(source, f"cniVersions: expected an array of strings, got {quoted(listed)}")
    if not listed:
        return []
    for index, version in enumerate(listed):
        if not isinstance(version, str):
            _refuse(source, f"cniVersions[{index}]: expected a string, got {quoted(version)}")
    every = [*listed, *([written] if written else [])]
    return [version for version in every if _key_or_refuse(version, source) <= _NEWEST]


def _key_or_refuse(version: str, source: str) -> tuple[int, int, int]:
    try:
        return parse_version(version)
    except UndecodableInput:
        _refuse(source, f"cniVersions: {quoted(version)} is not a version", 'versions look like "1.0.0"')


def _switch(members: dict[str, object], key: str, source: str) -> bool:
    written = members.get(key, False)
    if isinstance(written, bool):
        return written
    if not (isinstance(written, str) and written.lower() in {"true", "false"}):
        _refuse(source, f"{key}: expected true or false, got {quoted(written)}")
    return written.lower() == "true"


def _decode(raw: bytes, source: str) -> dict[str, object]:
    """Decode one JSON object; any bytes give an object or InvalidConfig."""
    try:
        decoded = decode(raw).raw
    except UndecodableInput as error:
        _refuse(source, f"not JSON: {error.msg.removeprefix('decode netconf: ')}")
    if not isinstance(decoded, dict):
        _refuse(source, f"expected a JSON object, got {quoted(decoded)}")
    return decoded


def _reading(source: str, read: Callable[[], T]) -> T:
    """Read a field, and name the file in the error that comes of it."""
    try:
        return read()
    except InvalidConfig as error:
        _refuse(source, error.msg, error.details)


def _refuse(source: str, why: str, remedy: str = "") -> NoReturn:
    raise InvalidConfig(f"load {quoted(source)}: {why}", remedy or "correct the file, or move it out of the directory")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_DOCUMENT_BYTES + 1)  # one more than `decode` takes, so that it refuses a longer file
    except OSError as error:
        raise IoFailure(f"read {quoted(path)}: {reason(error)}") from error


def _files(directory: str, suffixes: tuple[str, ...]) -> list[str]:
    """List the files whose part from the last dot on is one of `suffixes`, sorted; none if there is no directory."""
    try:
        entries = [entry for entry in os.scandir(directory) if not entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise IoFailure(f"list {quoted(directory)}: {reason(error)}") from error
    return sorted(entry.path for entry in entries if "." + entry.name.rpartition(".")[2] in suffixes)


def _network_or_error(load: Callable[[str], NetworkList], path: str) -> NetworkList | CniError:
    try:
        return load(path)
    except CniError as error:
        return error


def _not_found(directory: str, name: str, seen: list[str]) -> InvalidConfig:
    if not seen:
        return InvalidConfig(
            f"find network {quoted(name)}: there is no network configuration in {quoted(directory)}",
            "put a .conflist file there, or choose another directory with --conf-dir",
        )
    return InvalidConfig(
        f"find network {quoted(name)}: not in {quoted(directory)}",
        f'networks there: {", ".join(sorted(set(seen)))}; the key "name" inside the file counts, not the file\'s name',
    )

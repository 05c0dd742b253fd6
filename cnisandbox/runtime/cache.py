"""The result cache: what ADD gave, kept for CHECK, DEL and GC in the files that libcni keeps.

One file per attachment, `<cache dir>/results/<network>-<container id>-<ifname>`, of the kind "cniCacheV1"
(libcni/api.go, version 1.3). Podman, containerd, CRI-O and cnitool read what is written here, and the other way round.
One thing is better than libcni: a file appears complete or not at all.
"""

import base64
import binascii
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from cnisandbox.errors import InvalidConfig, IoFailure, quoted, reason

T = TypeVar("T")

DEFAULT_DIRECTORY = "/var/lib/cni"
KIND = "cniCacheV1"

# Go's encoding/json writes these escaped, so that JSON may stand inside HTML.
_GO_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_TEMPORARY_PREFIX = ".cnisandbox-"


@dataclass(frozen=True)
class CachedAttachment:
    """What ADD left behind for one attachment.

    Attributes:
        network: Name of the network.
        container_id: Container of the attachment.
        ifname: Interface of the attachment.
        netns: Path of the network namespace at the time of ADD, "" if the file does not say.
        args: CNI_ARGS of the ADD, as pairs in their order.
        capability_args: Capability arguments of the ADD, by capability.
        config: The conflist that ADD ran with, b"" if the file does not say.
        result: The result of the whole chain as JSON, with its own cniVersion.
    """

    network: str
    container_id: str
    ifname: str
    result: dict[str, object]
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, object] = field(default_factory=dict)
    config: bytes = b""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from other attachments."""
        return self.network, self.container_id, self.ifname

    def sandbox(self) -> str:
        """Path of the netns as the result has it, "" if it has none; libcni before 1.2 wrote it nowhere else."""
        interfaces = self.result.get("interfaces")
        for interface in interfaces if isinstance(interfaces, list) else []:
            sandbox = interface.get("sandbox") if isinstance(interface, dict) else None
            if isinstance(sandbox, str) and sandbox.startswith("/"):
                return sandbox
        return ""

    def encode(self) -> bytes:
        """Encode as libcni does: members in the order of its struct, those of maps sorted, empty ones left out."""
        document: dict[str, object] = {
            "kind": KIND,
            "containerId": self.container_id,
            "config": base64.b64encode(self.config).decode(),
            "ifName": self.ifname,
            "networkName": self.network,
        }
        optional = {
            "netns": self.netns,
            "cniArgs": [list(pair) for pair in self.args],
            "capabilityArgs": {key: self.capability_args[key] for key in sorted(self.capability_args)},
            "result": _sorted(self.result),
        }
        document |= {key: value for key, value in optional.items() if value}
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        for character, escape in _GO_ESCAPES.items():
            text = text.replace(character, escape)
        return text.encode("utf-8", "replace")


class ResultCache:
    """The cache in one directory.

    Args:
        directory: libcni's cache directory, absolute; made when the first result is stored.
    """

    def __init__(self, directory: str = DEFAULT_DIRECTORY) -> None:
        self.directory = directory
        self.results = os.path.join(directory, "results")

    def path(self, network: str, container_id: str, ifname: str) -> str:
        """Path of an attachment's file. None of the three may hold a slash; whoever made them has checked that."""
        return os.path.join(self.results, f"{network}-{container_id}-{ifname}")

    def store(self, attachment: CachedAttachment) -> None:
        """Write an attachment's file, complete or not at all.

        Raises:
            IoFailure: It could not be written; a file that was there before is untouched.
            InvalidConfig: The file is another attachment's: "a-b" + "c" and "a" + "b-c" give the same name.
        """
        path = self.path(*attachment.key)
        if self._is_foreign(path, attachment.key):
            raise InvalidConfig(
                f"store result {quoted(path)}: another attachment has a file of this name",
                "network, container id and interface are joined with '-'; choose another container id",
            )
        # The name is the same each time, so that a crash leaves at most one such file, which the next store removes.
        # libcni skips what does not parse, so a half-written one does it no harm.
        temporary = os.path.join(self.results, _TEMPORARY_PREFIX + hashlib.sha256(os.fsencode(path)).hexdigest()[:16])
        try:
            os.makedirs(self.results, mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            _write_new(temporary, attachment.encode())
            os.rename(temporary, path)
        except (OSError, ValueError) as error:
            with suppress(OSError, ValueError):
                os.unlink(temporary)
            raise _failure("store result", path, error) from error

    def load(self, network: str, container_id: str, ifname: str) -> CachedAttachment | None:
        """Read an attachment's file; one of before libcni 0.8, which holds nothing but the result, is read too.

        Returns:
            None if there is no such file, or if the members inside say that it is another attachment's.

        Raises:
            IoFailure: The file cannot be read.
            InvalidConfig: It is neither kind of file.
        """
        path = self.path(network, container_id, ifname)
        document = _read_document(path)
        if document is None:
            return None
        if _member(document, "kind") != KIND:
            return CachedAttachment(network, container_id, ifname, result=document)
        attachment = _attachment(document, path)
        return attachment if attachment.key == (network, container_id, ifname) else None

    def remove(self, network: str, container_id: str, ifname: str) -> None:
        """Remove an attachment's file, if there is one; damaged or not, but not another attachment's.

        Raises:
            IoFailure: It is there and cannot be removed.
        """
        path = self.path(network, container_id, ifname)
        if self._is_foreign(path, (network, container_id, ifname)):
            return
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise _failure("remove cached result", path, error) from error

    def _is_foreign(self, path: str, key: tuple[str, str, str]) -> bool:
        with suppress(IoFailure, InvalidConfig):
            document = _read_document(path)
            if document is not None and _member(document, "kind") == KIND:
                return _attachment(document, path).key != key
        return False

    def attachments(self, network: str | None = None) -> list[CachedAttachment]:
        """List attachments by file name, of one network or of all; what is not a readable cache file is skipped.

        Raises:
            IoFailure: The directory is there and cannot be listed. (libcni takes that for an empty cache; for GC that
                would mean that nothing is valid.)
        """
        try:
            names = sorted(os.listdir(self.results))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failure("list cached results", self.results, error) from error
        found = []
        for name in names:
            with suppress(IoFailure, InvalidConfig):
                path = os.path.join(self.results, name)
                document = None if name.startswith(_TEMPORARY_PREFIX) else _read_document(path)
                if document is not None and _member(document, "kind") == KIND:
                    found.append(_attachment(document, path))
        return [attachment for attachment in found if network in {None, attachment.network}]


def _write_new(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)  # ORDER: before the rename, or a power cut leaves a complete name with an empty file


def _read_document(path: str) -> dict[str, object] | None:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _failure("read cached result", path, error) from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"read cached result {quoted(path)}: not JSON", "remove the file") from error
    if not isinstance(document, dict):
        raise InvalidConfig(f"read cached result {quoted(path)}: not a JSON object", "remove the file")
    return document


def _attachment(document: dict[str, object], path: str) -> CachedAttachment:
    """Build the record from a document of our kind; InvalidConfig if a member has another type than libcni gives it."""
    try:
        return CachedAttachment(
            network=_typed(document, "networkName", str) or _missing("networkName"),
            container_id=_typed(document, "containerId", str),
            ifname=_typed(document, "ifName", str) or _missing("ifName"),
            result=_typed(document, "result", dict),
            netns=_typed(document, "netns", str),
            args=tuple(_pair(pair) for pair in _typed(document, "cniArgs", list)),
            capability_args=_typed(document, "capabilityArgs", dict),
            config=base64.b64decode(_typed(document, "config", str), validate=True),
        )
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidConfig(f"read cached result {quoted(path)}: {error}", "remove the file") from error


def _typed(document: dict[str, object], key: str, kind: type[T]) -> T:
    """The member called `key`; the empty value of its type if it is missing or null."""
    value = _member(document, key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(f"{key}: must be a {kind.__name__}")
    return value


def _member(document: dict[str, object], key: str) -> object:
    """The member called `key`, in any case, as Go's decoder finds it."""
    matching = [value for name, value in document.items() if name.lower() == key.lower()]
    return matching[-1] if matching else None


def _pair(value: object) -> tuple[str, str]:
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)):
        raise TypeError("cniArgs: must be pairs of strings")
    return value[0], value[1]


def _missing(key: str) -> str:
    raise ValueError(f"{key}: missing")


def _sorted(value: object) -> object:
    """Sort members of objects by name, all the way down, as Go writes maps."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _failure(operation: str, path: str, error: OSError | ValueError) -> IoFailure:
    why = reason(error) if isinstance(error, OSError) else str(error)
    return IoFailure(f"{operation} {quoted(path)}: {why.lower()}", "check the cache directory (--cache-dir)")

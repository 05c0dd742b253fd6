"""Execute a network: the plugins of a list in order, the result from one to the next, the cache (CNI spec, section 3).

As libcni does it (version 1.3), with these differences, because this is the runtime and not only its library:

- what can be checked beforehand is checked before the first plugin runs: names, the netns, that every binary exists;
- an ADD that fails is followed by DEL of the whole list, unless the caller says otherwise; if the interface had been
  there before, DEL gets no netns, because it would take away what somebody else made;
- a second ADD for an attachment that the cache knows is refused;
- DEL can go on past a plugin that fails, and GC says which attachments it took away;
- verbs hold the locks of locks.py.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import Result, parse_result, result_from, result_to
from cnisandbox.cni.value import Value
from cnisandbox.cni.versions import parse_version, require
from cnisandbox.errors import CniError, DelegateFailed, InvalidConfig, InvalidEnvironment, RequestError, quoted
from cnisandbox.runtime import execute, locks, netns
from cnisandbox.runtime.cache import CachedAttachment, ResultCache
from cnisandbox.runtime.conflist import NAME, NetworkList, PluginEntry

DEFAULT_PLUGIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni")
LOCK_FILE = "cnisandbox.lock"

_FIRST_WITH_CHECK = (0, 4, 0)
_FIRST_WITH_GC_AND_STATUS = (1, 1, 0)
_IFNAME_BYTES = 15
_RESERVED_KEYS = ("cni.dev/valid-attachments", "cni.dev/attachments")
_REMEDIES = {
    1: "set cniVersion in {source} to one that the plugin supports",
    2: "remove the field from {source}",
    7: "correct {source}",
    11: "try again in a moment",
}
_REMEDY_OF_CHECK = "if the container is still there, DEL and then ADD attach it anew"

ChooseValid = Callable[[list[CachedAttachment]], Iterable[Attachment]]
"""Gets the cached attachments of a network, and says which attachments of it are to stay."""


@dataclass(frozen=True)
class Target:
    """One interface of one container: what a runtime says about an attachment.

    Attributes:
        container_id: Chosen by the runtime, unique on this host.
        ifname: Name of the interface inside the container.
        netns: Path of the network namespace; "" when it is gone (DEL).
        args: CNI_ARGS as pairs.
        capability_args: Values by capability; a plugin gets those that it switches on.
    """

    container_id: str
    ifname: str
    netns: str = ""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, object] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what a plugin would refuse (CNI spec, section 2, "Parameters"), and "%", the kernel's wildcard.

        Raises:
            InvalidEnvironment: A name is not one.
        """
        if not NAME.fullmatch(self.container_id):
            raise InvalidEnvironment(
                f"use container id {quoted(self.container_id)}: not one that CNI allows",
                "letters and digits, then also '_', '.' and '-'",
            )
        if why := _fault_of_ifname(self.ifname):
            raise InvalidEnvironment(f"use interface name {quoted(self.ifname)}: {why}", "such as eth0")


@dataclass(frozen=True)
class Step:
    """One plugin call, for who watches: told when it begins and when it ends.

    Attributes:
        verb: ADD, DEL, CHECK, GC or STATUS.
        plugin: The plugin's type.
        number: Which one it is, from 1, in the order of execution.
        total: Out of how many.
        seconds: How long it took; None at its beginning.
    """

    verb: str
    plugin: str
    number: int
    total: int
    seconds: float | None = None


@dataclass(frozen=True)
class Collected:
    """What a GC did.

    Attributes:
        kept: Attachments that the caller called valid.
        deleted: Cached attachments that were not, and whose DEL succeeded.
        asked: Whether the plugins were sent GC; the network's cniVersion may be too old for it.
    """

    kept: tuple[Attachment, ...]
    deleted: tuple[Attachment, ...]
    asked: bool


class Runtime:
    """Executes networks.

    Args:
        plugin_dirs: Where plugins are looked up.
        cache: Where results are kept.
        time_limit_s: How long one plugin may take.
        watch: Called at the beginning and at the end of each plugin call.
    """

    def __init__(
        self,
        plugin_dirs: Sequence[str] = DEFAULT_PLUGIN_DIRS,
        cache: ResultCache | None = None,
        time_limit_s: float = execute.DEFAULT_TIME_LIMIT_S,
        watch: Callable[[Step], None] = lambda _step: None,
    ) -> None:
        self._plugin_dirs = tuple(plugin_dirs)
        self.cache = cache or ResultCache()
        self._time_limit_s = time_limit_s
        self._watch = watch
        self._lock_path = os.path.join(self.cache.directory, LOCK_FILE)

    def add(self, network: NetworkList, target: Target, *, undo: bool = True) -> Result:
        """Attach a container to a network.

        Args:
            network: The network.
            target: The attachment; its netns must exist.
            undo: Run DEL for the whole list when ADD fails.

        Returns:
            The last plugin's result; it is in the cache.

        Raises:
            RequestError: Something was wrong before the first plugin ran; nothing was changed.
            DelegateFailed: A plugin failed; the code is its own, the details say what became of the undoing.
            IoFailure: A plugin could not be started, or the result could not be stored.
        """
        network.check_name()
        target.check()
        with locks.container_locked(self._lock_path, target.container_id):
            self._require_binaries(network)
            self._refuse_second_add(network, target)
            had_link = target.ifname != "lo" and netns.has_link(target.netns, target.ifname)
            try:
                result = self._add_chain(network, target)
                self._store(network, target, result)
            except BaseException as error:
                if undo:
                    self._undo_add(network, target, error, had_link=had_link)
                raise
            return result

    def check(self, network: NetworkList, target: Target) -> bool:
        """Ask every plugin whether the attachment is as its ADD left it; stops at the first that says no.

        Returns:
            False if the network forbids CHECK (disableCheck), and nothing was asked.

        Raises:
            IncompatibleVersion: The network's cniVersion has no CHECK.
            InvalidConfig: The cached result is damaged.
            DelegateFailed: A plugin says no.
        """
        network.check_name()
        target.check()
        require("CHECK", network.version)
        if network.disable_check:
            return False
        with locks.container_locked(self._lock_path, target.container_id):
            cached = self.cache.load(network.name, target.container_id, target.ifname)
            prev_result = _converted(cached, network) if cached else None
            for number, entry in enumerate(network.plugins, 1):
                netconf = _netconf(network, entry, target, prev_result)
                self._run(network, entry, "CHECK", netconf, number=number, target=target)
        return True

    def delete(self, network: NetworkList, target: Target, *, keep_going: bool = False) -> None:
        """Detach a container: every plugin's DEL, last plugin first, then the cached result.

        Args:
            network: The network, best as it was at the time of ADD (`CachedAttachment.config`).
            target: The attachment; its netns may be gone.
            keep_going: Go on past a plugin that fails. The first error is raised at the end, with the others in its
                details. Without it the first failure ends the DEL, as the specification has it, and the plugins
                before it in the list have not been called.

        Raises:
            DelegateFailed: A plugin failed. The cached result stays, so that DEL can be repeated.
        """
        network.check_name()
        target.check()
        with locks.container_locked(self._lock_path, target.container_id):
            self._delete(network, target, keep_going=keep_going)

    def gc(self, network: NetworkList, choose_valid: ChooseValid) -> Collected | None:
        """Take away what a network has left of attachments that are no longer valid.

        DEL for each cached attachment of the network that is not valid, with the parameters of its ADD; then GC to
        each plugin, in the order of ADD, with the valid ones under the specification's key and under the older key of
        libcni. A failure does not end it.

        Args:
            network: The network.
            choose_valid: Says which attachments of the network are to stay, also those of other runtimes.

        Returns:
            None if the network forbids GC (disableGC), and nothing was done.

        Raises:
            DelegateFailed: At least one call failed; the first error, with the others in its details. Or what
                `choose_valid` raises; nothing was done then.
        """
        network.check_name()
        if network.disable_gc:
            return None
        errors: list[CniError] = []
        deleted = []
        with locks.everything_locked(self._lock_path):
            known = self.cache.attachments(network.name)
            # ORDER: under the lock, or an ADD that ends while we wait for it would not be among those that stay.
            kept = tuple(sorted(set(choose_valid(known))))
            for cached in known:
                attachment = Attachment(cached.container_id, cached.ifname)
                if attachment in kept:
                    continue
                try:
                    self._delete(network, target_of(cached), keep_going=False)
                    deleted.append(attachment)
                except CniError as error:
                    errors.append(error)
            asked = parse_version(network.version) >= _FIRST_WITH_GC_AND_STATUS
            if asked:
                self._send_gc(network, kept, errors)
        _raise_first(errors)
        return Collected(kept, tuple(deleted), asked)

    def status(self, network: NetworkList) -> bool:
        """Ask every plugin whether it could serve an ADD now; stops at the first that says no.

        Returns:
            False if the network's cniVersion has no STATUS, and nothing was asked.

        Raises:
            DelegateFailed: A plugin says no; code 50 or 51 as the plugin gave it.
        """
        network.check_name()
        if parse_version(network.version) < _FIRST_WITH_GC_AND_STATUS:
            return False
        for number, entry in enumerate(network.plugins, 1):
            self._run(network, entry, "STATUS", _netconf(network, entry), number=number)
        return True

    def _add_chain(self, network: NetworkList, target: Target) -> Result:
        prev_result: dict[str, object] | None = None
        result = Result((), (), ())
        for number, entry in enumerate(network.plugins, 1):
            netconf = _netconf(network, entry, target, prev_result)
            stdout = self._run(network, entry, "ADD", netconf, number=number, target=target)
            result = _printed(stdout, network, entry)
            prev_result = result_to(result, network.version)
        return result

    def _delete(self, network: NetworkList, target: Target, *, keep_going: bool) -> None:
        prev_result = None
        if parse_version(network.version) >= _FIRST_WITH_CHECK:  # prevResult on DEL came with the same version
            prev_result = self._result_for_delete(network, target)
        errors: list[CniError] = []
        for number, entry in enumerate(reversed(network.plugins), 1):
            try:
                netconf = _netconf(network, entry, target, prev_result)
                self._run(network, entry, "DEL", netconf, number=number, target=target)
            except CniError as error:
                errors.append(error)
                if not keep_going:
                    break
        _raise_first(errors)
        self.cache.remove(network.name, target.container_id, target.ifname)

    def _result_for_delete(self, network: NetworkList, target: Target) -> dict[str, object] | None:
        """The cached result; one that cannot be used is thrown away, because it must not stand in the way of DEL."""
        try:
            cached = self.cache.load(network.name, target.container_id, target.ifname)
            return _converted(cached, network) if cached else None
        except CniError:
            with suppress(CniError):
                self.cache.remove(network.name, target.container_id, target.ifname)
            return None

    def _send_gc(self, network: NetworkList, kept: tuple[Attachment, ...], errors: list[CniError]) -> None:
        listed = [{"containerID": attachment.container_id, "ifname": attachment.ifname} for attachment in kept]
        keys: dict[str, object] = dict.fromkeys(_RESERVED_KEYS, listed)
        for number, entry in enumerate(network.plugins, 1):
            try:
                self._run(network, entry, "GC", _netconf(network, entry, extra=keys), number=number)
            except CniError as error:
                errors.append(error)

    def _undo_add(self, network: NetworkList, target: Target, error: BaseException, *, had_link: bool) -> None:
        """Run DEL after a failed ADD, and add to the error's details what became of it."""
        if had_link:
            # without a netns a plugin releases what it holds on the host, and cannot touch the container
            target = replace(target, netns="")
        try:
            self._delete(network, target, keep_going=True)
            outcome = "undone with DEL"
        except CniError as second:
            why = f"{second.msg} ({second.details})" if second.details else second.msg
            outcome = f"undoing it with DEL failed as well: {why}"
        if had_link:
            outcome += f", outside the netns only, because {quoted(target.ifname)} had been there before"
        if isinstance(error, CniError):
            error.details = f"{error.details}; {outcome}" if error.details else outcome
        else:
            error.add_note(outcome)

    def _run(
        self,
        network: NetworkList,
        entry: PluginEntry,
        verb: str,
        netconf: bytes,
        *,
        number: int,
        target: Target | None = None,
    ) -> bytes:
        total = len(network.plugins)
        started = time.monotonic()
        self._watch(Step(verb, entry.type, number, total))
        try:
            path = execute.find_plugin(entry.type, self._plugin_dirs)
            return execute.run_plugin(path, self._call(verb, target), netconf, self._time_limit_s)
        except DelegateFailed as error:
            remedy = _REMEDIES.get(error.code, _REMEDY_OF_CHECK if verb == "CHECK" else "")
            raise DelegateFailed(
                error.code,
                f"{verb} network {quoted(network.name)}: plugin {quoted(entry.type)} ({number} of {total}): "
                f"{error.msg}",
                "; ".join(part for part in (error.details, remedy.format(source=network.source)) if part),
            ) from error
        finally:
            self._watch(Step(verb, entry.type, number, total, time.monotonic() - started))

    def _call(self, verb: str, target: Target | None) -> execute.Call:
        if target is None:
            return execute.Call(verb, self._plugin_dirs)
        args = ";".join(f"{key}={value}" for key, value in target.args)
        return execute.Call(verb, self._plugin_dirs, target.container_id, target.netns, target.ifname, args)

    def _store(self, network: NetworkList, target: Target, result: Result) -> None:
        self.cache.store(
            CachedAttachment(
                network=network.name,
                container_id=target.container_id,
                ifname=target.ifname,
                result=result_to(result, network.version),
                netns=target.netns,
                args=target.args,
                capability_args=target.capability_args,
                config=network.raw,
            )
        )

    def _require_binaries(self, network: NetworkList) -> None:
        for entry in network.plugins:
            execute.find_plugin(entry.type, self._plugin_dirs)

    def _refuse_second_add(self, network: NetworkList, target: Target) -> None:
        cached = None
        with suppress(InvalidConfig):  # a damaged file says nothing about an attachment; this ADD replaces it
            cached = self.cache.load(network.name, target.container_id, target.ifname)
        if cached is not None:
            raise InvalidEnvironment(
                f"add network {quoted(network.name)}: container {quoted(target.container_id)} is attached as "
                f"{quoted(target.ifname)} already",
                "run DEL first, or use another --ifname",
            )


def target_of(cached: CachedAttachment) -> Target:
    """The target that an attachment had at the time of its ADD."""
    path = cached.netns or cached.sandbox()
    return Target(cached.container_id, cached.ifname, path, cached.args, cached.capability_args)


def _netconf(
    network: NetworkList,
    entry: PluginEntry,
    target: Target | None = None,
    prev_result: dict[str, object] | None = None,
    extra: dict[str, object] | None = None,
) -> bytes:
    """Build what a plugin reads: its object as written, and what only the runtime may say."""
    config = {key: value for key, value in entry.config.items() if key not in _RESERVED_KEYS}
    config |= {"name": network.name, "cniVersion": network.version}
    if target is not None:
        wanted = {key: target.capability_args[key] for key in entry.capabilities if key in target.capability_args}
        if wanted:  # else one that was written by hand stays, as with libcni
            config["runtimeConfig"] = wanted
    if prev_result is not None:
        config["prevResult"] = prev_result
    return json.dumps(config | (extra or {}), sort_keys=True).encode()


def _printed(stdout: bytes, network: NetworkList, entry: PluginEntry) -> Result:
    try:
        return parse_result(stdout, network.version)
    except RequestError as error:
        raise DelegateFailed(
            error.code,
            f"ADD network {quoted(network.name)}: plugin {quoted(entry.type)} ended well, but its result is not one: "
            f"{error.msg}",
            error.details,
        ) from error


def _converted(cached: CachedAttachment, network: NetworkList) -> dict[str, object]:
    """The cached result in the network's version, which may have changed since ADD."""
    value = Value(cached.result, "result")
    result = result_from(value, value["cniVersion"].string() or network.version)
    return result_to(result, network.version)


def _raise_first(errors: Sequence[CniError]) -> None:
    if not errors:
        return
    first, *others = errors
    if others:
        story = "; ".join(f"and {error.msg}" for error in others)
        first.details = f"{first.details}; {story}" if first.details else story
    raise first


def _fault_of_ifname(ifname: str) -> str:
    """What is wrong with an interface name, "" if nothing is (libcni: pkg/utils/utils.go; "%" by the kernel)."""
    if not ifname:
        return "it is empty"
    if len(os.fsencode(ifname)) > _IFNAME_BYTES:
        return f"longer than {_IFNAME_BYTES} bytes"
    if ifname in {".", ".."}:
        return "it is . or .."
    if any(character in "/:%\0" or character.isspace() for character in ifname):
        return "it holds a slash, a colon, a percent sign or white space"
    return ""

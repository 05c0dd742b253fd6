"""How `cnisandbox net` says what it did: tables for people, JSON members for programs."""

from collections.abc import Iterable, Sequence

from cnisandbox.cli import output
from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import Result, result_from
from cnisandbox.cni.value import Value
from cnisandbox.errors import CniError
from cnisandbox.runtime import cache, conflist, netns, network


class Watch:
    """Shows the plugin that is running, and keeps how long each took."""

    def __init__(self) -> None:
        self._progress = output.Progress()
        self._done: list[network.Step] = []

    def __call__(self, step: network.Step) -> None:
        """Take note of a plugin's beginning or end."""
        if step.seconds is None:
            self._progress.show(f"{step.verb} {step.plugin} ({step.number} of {step.total})")
        else:
            self._done.append(step)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.clear()

    def times(self) -> str:
        """How long it took, such as " in 58 ms (bridge 41, portmap 17)"."""
        if not self._done:
            return ""
        each = ", ".join(f"{step.plugin} {_milliseconds(step.seconds)}" for step in self._done)
        total = _milliseconds(sum(step.seconds or 0 for step in self._done))
        return output.paint(f" in {total} ms" + (f" ({each})" if len(self._done) > 1 else ""), "dim")


def _milliseconds(seconds: float | None) -> str:
    return f"{(seconds or 0) * 1000:.0f}"


def result_tables(result: Result) -> list[str]:
    """Lay out a result: interfaces with their addresses, routes, DNS; what is empty is left out."""
    interfaces = [
        (interface.name, interface.mac, interface.sandbox or "host", *_addresses_on(result, index))
        for index, interface in enumerate(result.interfaces)
    ]
    unbound = [ip for ip in result.ips if ip.interface is None or ip.interface >= len(result.interfaces)]
    interfaces += [("", "", "", ip.address, ip.gateway) for ip in unbound]
    routes = [(route.dst, result.gateway_of(route)) for route in result.routes]
    dns = [
        ("nameservers", " ".join(result.dns.nameservers)),
        ("search", " ".join((result.dns.domain, *result.dns.search)).strip()),
        ("options", " ".join(result.dns.options)),
    ]
    tables: list[tuple[tuple[str, ...], Sequence[tuple[str, ...]]]] = [
        (("interface", "mac", "where", "address", "gateway"), interfaces),
        (("route", "via"), routes),
        (("dns", ""), [row for row in dns if row[1]]),
    ]
    return [output.table(headers, rows) for headers, rows in tables if rows]


def _addresses_on(result: Result, index: int) -> tuple[str, str]:
    ips = [ip for ip in result.ips if ip.interface == index]
    return " ".join(ip.address for ip in ips), " ".join(ip.gateway for ip in ips)


def attachment_row(attachment: cache.CachedAttachment) -> tuple[str, ...]:
    """One row of the list of attachments: container, interface, addresses, netns, state."""
    where = " ".join(_cached_addresses(attachment))
    target = network.target_of(attachment)
    return target.container_id, target.ifname, where, target.netns, _netns_state(target)


def _cached_addresses(attachment: cache.CachedAttachment) -> list[str]:
    value = Value(attachment.result, "result")
    try:
        return [ip.address for ip in result_from(value, value["cniVersion"].string()).ips]
    except CniError:
        return ["?"]


def _netns_state(target: network.Target) -> str:
    if not target.netns:
        return "unknown"
    return "alive" if netns.is_alive(target.netns) else "netns gone"


def network_row(entry: conflist.NetworkList, attached: Iterable[cache.CachedAttachment]) -> tuple[str, ...]:
    """One row of the list of networks: name, version, plugins, number of attachments, file."""
    count = sum(attachment.network == entry.name for attachment in attached)
    return entry.name, entry.version, " ".join(plugin.type for plugin in entry.plugins), str(count), entry.source


def network_members(entry: conflist.NetworkList, attached: Iterable[cache.CachedAttachment]) -> dict[str, object]:
    """Describe a network for programs."""
    return {
        "name": entry.name,
        "cniVersion": entry.version,
        "plugins": [plugin.type for plugin in entry.plugins],
        "file": entry.source,
        "attachments": [attachment_members(found) for found in attached if found.network == entry.name],
    }


def attachment_members(attachment: cache.CachedAttachment) -> dict[str, object]:
    """Describe an attachment for programs."""
    target = network.target_of(attachment)
    return {
        "containerID": target.container_id,
        "ifname": target.ifname,
        "netns": target.netns,
        "state": _netns_state(target),
        "result": attachment.result,
    }


def target_members(chosen: conflist.NetworkList, target: network.Target) -> dict[str, object]:
    """Name an attachment for programs."""
    return {"network": chosen.name, "containerID": target.container_id, "ifname": target.ifname}


def collected_members(chosen: conflist.NetworkList, collected: network.Collected, *, is_dry: bool) -> dict[str, object]:
    """Say what a GC did, or would do, for programs."""
    return {
        "network": chosen.name,
        "collected": not is_dry,
        "kept": [_pair(attachment) for attachment in collected.kept],
        "deleted": [_pair(attachment) for attachment in collected.deleted],
    }


def collected_table(chosen: conflist.NetworkList, collected: network.Collected, *, is_dry: bool) -> str:
    """Say what a GC did, or would do."""
    gone = "would go" if is_dry else "deleted"
    rows = [("kept", *attachment) for attachment in collected.kept]
    rows += [(gone, *attachment) for attachment in collected.deleted]
    lines = [f"nothing is attached to {chosen.name}"]
    if rows:
        lines = [output.table(("what", "container", "interface"), rows, ["green"] * len(collected.kept))]
    if not collected.asked and not is_dry:
        lines.append(f"the plugins were not sent GC: cniVersion {chosen.version} does not have it")
    return "\n".join(lines)


def _pair(attachment: Attachment) -> dict[str, object]:
    return {"containerID": attachment.container_id, "ifname": attachment.ifname}


def status_table(states: Sequence[tuple[conflist.NetworkList, bool | CniError]]) -> str:
    """Say of each network whether it is ready: True, False for one that has no STATUS, or the error it gave."""
    rows = [(word, entry.name, why) for entry, state in states for word, why in [_status_words(state)]]
    styles = ["red" if isinstance(state, CniError) else "green" if state else "yellow" for _, state in states]
    return output.table(("state", "network", ""), rows, styles)


def _status_words(state: bool | CniError) -> tuple[str, str]:
    if isinstance(state, CniError):
        return "not ready", f"code {state.code}"
    return ("ready", "") if state else ("not asked", "its cniVersion has no STATUS")


def status_members(chosen: conflist.NetworkList, state: bool | CniError) -> dict[str, object]:
    """Say for programs whether a network is ready; see `status_table`."""
    if isinstance(state, CniError):
        return {"network": chosen.name, "ready": False, "error": output.error_members(state)}
    return {"network": chosen.name, "ready": True, "asked": state}

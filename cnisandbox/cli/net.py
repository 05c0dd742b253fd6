"""Attach containers to networks and detach them, as a container runtime does.

Reads network configurations from --conf-dir, runs the plugins of --plugin-dir, and keeps results where podman,
containerd and cnitool keep theirs. The environment variables are those of cnitool: NETCONFPATH, CNI_PATH, CNI_IFNAME,
CNI_ARGS, CAP_ARGS. NETNS is a path, or a name that `ip netns` knows.
"""

import argparse
import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cnisandbox.cli import net_report, output
from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import result_to
from cnisandbox.cni.value import decode
from cnisandbox.errors import CniError, InvalidConfig, InvalidEnvironment, UndecodableInput, quoted
from cnisandbox.runtime import cache, conflist, execute, netns, network

_DEFAULT_CONF_DIR = "/etc/cni/net.d"
_ID_HEX_DIGITS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their arguments."""
    common = _common_options()
    target = _target_options()
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB", parser_class=type(parser))

    def add_verb(
        name: str,
        run_verb: Callable[[argparse.Namespace], int],
        summary: str,
        parents: Sequence[argparse.ArgumentParser],
    ) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=summary, description=summary, parents=parents, allow_abbrev=False)
        verb.set_defaults(run_verb=run_verb)
        return verb

    verb = add_verb("list", _list, "list the networks, or the attachments of one", [common])
    verb.add_argument("network", nargs="?", metavar="NETWORK")

    verb = add_verb("add", _add, "attach a container; print the result", [common, target])
    verb.add_argument("network", metavar="NETWORK")
    verb.add_argument("netns", metavar="NETNS")
    verb.add_argument("--no-undo", action="store_true", help="do not run DEL when ADD fails")

    verb = add_verb("check", _check, "ask whether an attachment is as ADD left it", [common, target])
    verb.add_argument("network", metavar="NETWORK")
    verb.add_argument("netns", nargs="?", metavar="NETNS", help="that of the ADD, if --container-id is given")
    _add_current_config(verb)

    verb = add_verb("del", _del, "detach a container; succeeds when nothing is left to do", [common, target])
    verb.add_argument("network", metavar="NETWORK")
    verb.add_argument("netns", nargs="?", metavar="NETNS", help="that of the ADD, if --container-id is given")
    verb.add_argument("--keep-going", action="store_true", help="run the other plugins when one fails")
    _add_current_config(verb)

    verb = add_verb("gc", _gc, "take away what stale attachments of a network have left", [common])
    verb.description = (
        "Take away what stale attachments of a network have left. Attachments in the cache whose netns exists are "
        "kept; whatever else the plugins hold for this network goes."
    )
    verb.add_argument("network", metavar="NETWORK")
    kept = verb.add_mutually_exclusive_group()
    kept.add_argument("--keep", action="append", metavar="ID/IFNAME", help="keep this one and no others; repeatable")
    kept.add_argument("--all", action="store_true", help="keep none")
    verb.add_argument("--dry-run", action="store_true", help="only say what would be kept and what would go")

    verb = add_verb("status", _status, "ask whether networks could serve an ADD now", [common])
    verb.add_argument("network", nargs="?", metavar="NETWORK", help="all of them by default")
    verb.add_argument("netns", nargs="?", help=argparse.SUPPRESS)  # cnitool demands one and does not use it


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; an error becomes a JSON object on standard output if --json was given.

    SIGTERM interrupts as Ctrl-C does: the plugin that runs is killed, and an ADD is undone.
    """
    verb: Callable[[argparse.Namespace], int] = arguments.run_verb
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return verb(arguments)
    except CniError as error:
        if not arguments.json:
            raise
        output.print_json(output.error_members(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _common_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--conf-dir",
        metavar="DIR",
        default=os.environ.get("NETCONFPATH") or _DEFAULT_CONF_DIR,
        help=f"network configurations (NETCONFPATH, else {_DEFAULT_CONF_DIR})",
    )
    parser.add_argument(
        "--plugin-dir",
        metavar="DIR",
        action="append",
        help=f"plugins; repeatable (CNI_PATH, else {':'.join(network.DEFAULT_PLUGIN_DIRS)})",
    )
    parser.add_argument(
        "--cache-dir", metavar="DIR", default=cache.DEFAULT_DIRECTORY, help=f"results ({cache.DEFAULT_DIRECTORY})"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=execute.DEFAULT_TIME_LIMIT_S,
        help=f"how long one plugin may take ({execute.DEFAULT_TIME_LIMIT_S:g})",
    )
    parser.add_argument("--json", action="store_true", help="print for programs")
    return parser


def _target_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--ifname", default=os.environ.get("CNI_IFNAME") or "eth0", help="interface in the container (CNI_IFNAME, eth0)"
    )
    parser.add_argument("--container-id", metavar="ID", help="cnitool- and a hash of the netns path by default")
    parser.add_argument("--args", metavar="K=V;K=V", default=os.environ.get("CNI_ARGS", ""), help="(CNI_ARGS)")
    parser.add_argument(
        "--capabilities",
        metavar="JSON",
        default=os.environ.get("CAP_ARGS", ""),
        help='such as {"portMappings": [...]} (CAP_ARGS)',
    )
    return parser


def _add_current_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--current-config", action="store_true", help="use the file in --conf-dir, not the configuration of the ADD"
    )


# --- verbs ---------------------------------------------------------------------------------------------------------


def _list(arguments: argparse.Namespace) -> int:
    results = cache.ResultCache(os.path.abspath(arguments.cache_dir))
    if arguments.network is not None:
        return _list_attachments(arguments, results.attachments(arguments.network))
    attached = results.attachments()
    loaded = conflist.load_directory(arguments.conf_dir)
    networks = [entry for _, entry in loaded if isinstance(entry, conflist.NetworkList)]
    errors = [(path, entry) for path, entry in loaded if isinstance(entry, CniError)]
    if arguments.json:
        members = [net_report.network_members(entry, attached) for entry in networks]
        refused = [{"file": path} | output.error_members(error) for path, error in errors]
        output.print_json({"networks": members, "errors": refused})
        return 1 if errors else 0
    if networks:
        rows = [net_report.network_row(entry, attached) for entry in networks]
        print(output.table(("network", "version", "plugins", "attached", "file"), rows, ["bold"] * len(rows)))
    elif not errors:
        print(f"no networks in {arguments.conf_dir}")
    for _, error in errors:
        output.print_error(error)
    return 1 if errors else 0


def _list_attachments(arguments: argparse.Namespace, attached: list[cache.CachedAttachment]) -> int:
    if not attached:
        conflist.load_network(arguments.conf_dir, arguments.network)  # an error for a network that does not exist
    if arguments.json:
        members = [net_report.attachment_members(entry) for entry in attached]
        output.print_json({"network": arguments.network, "attachments": members})
    elif attached:
        rows = [net_report.attachment_row(entry) for entry in attached]
        print(output.table(("container", "interface", "addresses", "netns", "state"), rows))
    else:
        print(f"nothing is attached to {arguments.network}")
    return 0


def _add(arguments: argparse.Namespace) -> int:
    chosen = conflist.load_network(arguments.conf_dir, arguments.network)
    target = _target(arguments)
    with net_report.Watch() as watch:
        result = _runtime(arguments, watch).add(chosen, target, undo=not arguments.no_undo)
    if arguments.json:
        output.print_json(result_to(result, chosen.version))
        return 0
    print(f"{output.paint('attached', 'green')} {_words(target)} to {chosen.name}{watch.times()}")
    for part in net_report.result_tables(result):
        print("\n" + part)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    chosen, target = _network_and_target(arguments)
    with net_report.Watch() as watch:
        was_asked = _runtime(arguments, watch).check(chosen, target)
    if arguments.json:
        output.print_json({**net_report.target_members(chosen, target), "checked": was_asked})
    elif was_asked:
        print(f"{output.paint('ok', 'green')} {_words(target)} on {chosen.name}{watch.times()}")
    else:
        print(f"not checked: disableCheck is set in {chosen.source}")
    return 0


def _del(arguments: argparse.Namespace) -> int:
    chosen, target = _network_and_target(arguments)
    with net_report.Watch() as watch:
        _runtime(arguments, watch).delete(chosen, target, keep_going=arguments.keep_going)
    if arguments.json:
        output.print_json({**net_report.target_members(chosen, target), "deleted": True})
    else:
        print(f"{output.paint('detached', 'green')} {_words(target)} from {chosen.name}{watch.times()}")
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    chosen = conflist.load_network(arguments.conf_dir, arguments.network)
    with net_report.Watch() as watch:
        runtime = _runtime(arguments, watch)
        if arguments.dry_run:
            cached = runtime.cache.attachments(chosen.name)
            valid = _valid_attachments(arguments, cached)
            known = [Attachment(entry.container_id, entry.ifname) for entry in cached]
            collected = network.Collected(valid, tuple(entry for entry in known if entry not in valid), asked=False)
        else:
            done = runtime.gc(chosen, lambda cached: _valid_attachments(arguments, cached))
            if done is None:
                raise InvalidConfig(f"GC network {quoted(chosen.name)}: disableGC is set", f"in {chosen.source}")
            collected = done
    if arguments.json:
        output.print_json(net_report.collected_members(chosen, collected, is_dry=arguments.dry_run))
    else:
        print(net_report.collected_table(chosen, collected, is_dry=arguments.dry_run))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    if arguments.network is not None:
        networks = [conflist.load_network(arguments.conf_dir, arguments.network)]
    else:
        networks = _every_network(arguments.conf_dir)
    with net_report.Watch() as watch:
        runtime = _runtime(arguments, watch)
        states = [(entry, _ready(runtime, entry)) for entry in networks]
    errors = [state for _, state in states if isinstance(state, CniError)]
    if arguments.json:
        output.print_json({"networks": [net_report.status_members(entry, state) for entry, state in states]})
        return 1 if errors else 0
    print(net_report.status_table(states) if states else f"no networks in {arguments.conf_dir}")
    for error in errors:
        output.print_error(error)
    return 1 if errors else 0


# --- what the arguments mean ---------------------------------------------------------------------------------------


def _runtime(arguments: argparse.Namespace, watch: net_report.Watch) -> network.Runtime:
    from_environment = [directory for directory in os.environ.get("CNI_PATH", "").split(":") if directory]
    plugin_dirs = arguments.plugin_dir or from_environment or network.DEFAULT_PLUGIN_DIRS
    results = cache.ResultCache(os.path.abspath(arguments.cache_dir))
    return network.Runtime([os.path.abspath(path) for path in plugin_dirs], results, arguments.timeout, watch)


def _network_and_target(arguments: argparse.Namespace) -> tuple[conflist.NetworkList, network.Target]:
    """The network and the target of an attachment: as they were at its ADD, unless the caller says otherwise."""
    target = _target(arguments)
    target.check()
    try:
        results = cache.ResultCache(os.path.abspath(arguments.cache_dir))
        cached = results.load(arguments.network, target.container_id, target.ifname)
    except InvalidConfig:
        cached = None  # damaged: DEL goes on without it, CHECK fails on it when it reads it again
    if cached is None or not cached.config or arguments.current_config:
        chosen = conflist.load_network(arguments.conf_dir, arguments.network)
    else:
        chosen = conflist.parse_list(cached.config, "the result cache")
    if cached is not None:
        was = network.target_of(cached)
        target = replace(
            target,
            netns=target.netns or was.netns,
            args=target.args or was.args,
            capability_args=target.capability_args or was.capability_args,
        )
    return chosen, target


def _target(arguments: argparse.Namespace) -> network.Target:
    path = _netns_path(arguments.netns) if arguments.netns else ""
    if not path and not arguments.container_id:
        raise InvalidEnvironment(
            "choose container: neither NETNS nor --container-id is given",
            f"`cnisandbox net list {arguments.network}` shows what is attached",
        )
    return network.Target(
        container_id=arguments.container_id or _default_container_id(path),
        ifname=arguments.ifname,
        netns=path,
        args=_cni_args(arguments.args),
        capability_args=_capability_args(arguments.capabilities),
    )


def _words(target: network.Target) -> str:
    return f"{target.ifname} of {target.container_id}"


def _netns_path(text: str) -> str:
    return os.path.abspath(text) if "/" in text else os.path.join("/run/netns", text)


def _default_container_id(netns_path: str) -> str:
    """The id that cnitool makes up, so that the two can be mixed."""
    return "cnitool-" + hashlib.sha512(os.fsencode(netns_path)).hexdigest()[:_ID_HEX_DIGITS]


def _cni_args(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for piece in text.split(";") if text else []:
        key, equals, value = piece.partition("=")
        if not (key and equals and value):
            raise InvalidEnvironment(
                f"parse CNI_ARGS: {quoted(piece)} is not a pair", "write it as KEY=VALUE;KEY2=VALUE2"
            )
        pairs.append((key, value))
    return tuple(pairs)


def _capability_args(text: str) -> dict[str, object]:
    if not text:
        return {}
    try:
        decoded = decode(os.fsencode(text), "CAP_ARGS").raw
    except UndecodableInput as error:
        raise InvalidEnvironment(error.msg, 'write it as {"portMappings": [...]}') from error
    if not isinstance(decoded, dict):
        raise InvalidEnvironment("decode CAP_ARGS: expected an object", 'write it as {"portMappings": [...]}')
    return decoded


def _valid_attachments(
    arguments: argparse.Namespace, cached: Iterable[cache.CachedAttachment]
) -> tuple[Attachment, ...]:
    if arguments.all:
        return ()
    if arguments.keep:
        return tuple(_attachment(text) for text in arguments.keep)
    # an attachment whose netns is not known cannot be told to be stale
    targets = [network.target_of(entry) for entry in cached]
    alive = [target for target in targets if not target.netns or netns.is_alive(target.netns)]
    return tuple(Attachment(target.container_id, target.ifname) for target in alive)


def _attachment(text: str) -> Attachment:
    container_id, slash, ifname = text.partition("/")
    if not slash:
        raise InvalidEnvironment(f"parse --keep: {quoted(text)} is not an attachment", "write it as ID/IFNAME")
    network.Target(container_id, ifname).check()
    return Attachment(container_id, ifname)


def _every_network(conf_dir: str) -> list[conflist.NetworkList]:
    found = []
    for _, entry in conflist.load_directory(conf_dir):
        if isinstance(entry, CniError):
            raise entry
        found.append(entry)
    return found


def _ready(runtime: network.Runtime, chosen: conflist.NetworkList) -> bool | CniError:
    try:
        return runtime.status(chosen)
    except CniError as error:
        return error


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds

"""One nftables transaction or one listing, through libnftables' JSON interface, inside this process.

Privilege: CAP_NET_ADMIN in the network namespace of the process. No file is needed: libnftables looks for four under
/etc (names of marks, realms, groups and connection labels), its JSON library for /dev/urandom, and both go on without.
System calls: socket (AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), setsockopt, getsockopt, fcntl, sendto, sendmsg, recvmsg,
pselect6, getpid, close, and what allocates memory. It writes to stderr when the capability is missing.

Source: libnftables(3), libnftables-json(5), nftables 1.0.6; net/netfilter/nf_tables_api.c, Linux 6.18.
"""

import _socket  # the C module: `socket` takes 3 ms to make its enums
import errno
import os
from collections.abc import Callable

from cnisandbox.errors import KernelRefused, quoted
from cnisandbox.hints import Any
from cnisandbox.monitor.client import NFTABLES, Gate, current

Command = dict[str, Any]
"""One command or one listed object as libnftables-json(5) writes them, such as {"add": {"table": {...}}}."""

# LIMIT: a transaction that lost a race is prepared afresh this often; each refusal has cost an RCU grace period (8 ms
# or more), so that 16 processes that all want the same thing are through long before.
ATTEMPTS = 20

_DETAILS_LIMIT = 500
_SOCKET_FAILED = b"netlink: "  # how errors begin that are not about an object that a command names
_NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h
_LOST_RACES = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.EAGAIN, errno.EINTR})
_ERRNO_BY_TEXT = {os.strerror(number): number for number in sorted(errno.errorcode, reverse=True)}

_contexts: dict[int, Any] = {}
"""The libnftables context of this process, by process id: a fork must not write to its parent's socket."""


def run(commands: list[Command], operation: str = "change", target: str = "nftables rules") -> list[Command]:
    """Hand commands to the kernel: changes as one transaction, all or nothing.

    Args:
        commands: What to do, in order; changes or listings, not both (libnftables reads before it writes).
        operation: Verb for the message of a refusal, such as "add masquerade of".
        target: Object for the message of a refusal.

    Returns:
        The objects that were listed, without the header; empty for changes.

    Raises:
        KernelRefused: With the errno of the first refusal if libnftables' text tells it, else 0; the text is in
        details.

    Order: the first call makes the socket, so it comes after the process has entered its network namespace.
    """
    import json  # noqa: PLC0415 - see cnisandbox/late.py

    text = json.dumps({"nftables": commands})
    gate = current()
    output = _run_through(gate, text, operation, target) if gate else run_text(text, operation, target)
    if not output:
        return []
    return [entry for entry in json.loads(output)["nftables"] if "metainfo" not in entry]


def _run_through(gate: Gate, text: str, operation: str, target: str) -> str:
    try:
        answer = gate.ask(NFTABLES, text)
    except OSError as error:
        raise KernelRefused(operation, target, error.errno or 0, error.strerror or "") from None
    return answer if isinstance(answer, str) else ""


def run_text(text: str, operation: str = "change", target: str = "nftables rules") -> str:
    """Hand commands to the kernel by libnftables in this process.

    Args:
        text: The commands, as JSON.
        operation: Verb for the message of a refusal.
        target: Object for the message of a refusal.

    Returns:
        What was listed, as JSON; empty for changes.

    Raises:
        KernelRefused: As `run`.
    """
    from cnisandbox._nftables import ffi, lib  # noqa: PLC0415 - see cnisandbox/late.py

    context = _connected(operation, target)
    status = lib.nft_run_cmd_from_buffer(context, text.encode())
    # ORDER: reading a buffer rewinds it, so both are read every time, or the next call would answer for this one.
    output: bytes = ffi.string(lib.nft_ctx_get_output_buffer(context))
    error: bytes = ffi.string(lib.nft_ctx_get_error_buffer(context))
    if status != 0:
        if error.startswith(_SOCKET_FAILED):
            # ORDER: before the next call: answers that are still on their way would make libnftables end the process.
            close()
        raise _refusal(error.decode(errors="replace"), operation, target)
    # TRUST: others write names and comments into their rules; one that is not UTF-8 must not hide ours.
    return output.decode(errors="replace")


def listed(kind: str, selector: dict[str, str]) -> list[Command] | None:
    """List one object, or all objects of a kind.

    Never ask for "ruleset": a node may carry tens of thousands of rules of others. A chain or a map by its name costs
    what its own table holds; "chains" of a family costs what that family holds.

    Args:
        kind: As libnftables-json(5) names it: "chain", "map", "chains", ...
        selector: family, table and name, as far as the kind has them.

    Returns:
        The objects, or None when the one that was asked for does not exist.

    Raises:
        KernelRefused: For any other reason.
    """
    try:
        return run([{"list": {kind: selector}}], f"list {kind}", quoted("/".join(selector.values())))
    except KernelRefused as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def rules_of(family: str, table: str, chain: str) -> list[Command] | None:
    """List the rules of one chain, each with "handle", "expr" and, if it has one, "comment"; None without the chain."""
    objects = listed("chain", {"family": family, "table": table, "name": chain})
    return None if objects is None else [entry["rule"] for entry in objects if "rule" in entry]


def chains_of(family: str, table: str) -> dict[str, Command]:
    """List the chains of one table by name, base chains with type, hook and prio; none without the table."""
    objects = listed("chains", {"family": family}) or []
    chains = [entry["chain"] for entry in objects if "chain" in entry]
    return {chain["name"]: chain for chain in chains if chain["table"] == table}


def close() -> None:
    """Close this process' socket, if there is one; the next call makes another.

    KERNEL: after a transaction that deleted something this waits for RCU (4 to 16 ms, Linux 6.18).
    """
    context = _contexts.pop(os.getpid(), None)
    if context is not None:
        from cnisandbox._nftables import lib  # noqa: PLC0415 - see cnisandbox/late.py

        lib.nft_ctx_free(context)


def transact(prepare: Callable[[int], list[Command]], operation: str, target: str) -> None:
    """Read, decide and change, again from the start when somebody else was faster.

    The kernel applies a transaction to the rules of that moment, not to those that `prepare` has read, and libnftables
    does not send the generation that it has read (NFNL_BATCH_GENID). So `prepare` must write commands that the kernel
    refuses when what it read is no longer so: "create" (EEXIST), "delete" by handle (ENOENT), "delete" of what is
    still referred to (EBUSY).

    Args:
        prepare: Gets the number of the attempt, from 0; reads what it needs and returns the commands; none: nothing to
            do.
        operation: Verb for the message of a refusal.
        target: Object for the message of a refusal.

    Raises:
        KernelRefused: For a reason that is no lost race, or ATTEMPTS times for one.
    """
    for attempt in range(ATTEMPTS):
        try:
            commands = prepare(attempt)
            if commands:
                run(commands, operation, target)
        except KernelRefused as error:
            if error.errno not in _LOST_RACES or attempt == ATTEMPTS - 1:
                raise
        else:
            return


def _connected(operation: str, target: str) -> Any:
    """Return this process' context, made at the first call.

    It is kept for as long as the process lives: then the wait that `close` has is part of the exit.
    """
    from cnisandbox._nftables import ffi, lib  # noqa: PLC0415 - see cnisandbox/late.py

    pid = os.getpid()
    if pid not in _contexts:
        _require_netfilter(operation, target)
        context = lib.nft_ctx_new(lib.NFT_CTX_DEFAULT)
        if context == ffi.NULL:
            raise KernelRefused(operation, target, errno.ENOMEM, "libnftables: no context")
        # Numeric: no look-up in /etc/protocols.
        lib.nft_ctx_output_set_flags(context, lib.NFT_CTX_OUTPUT_JSON | lib.NFT_CTX_OUTPUT_NUMERIC_ALL)
        lib.nft_ctx_buffer_output(context)
        lib.nft_ctx_buffer_error(context)
        _contexts.clear()  # a parent's, which is not freed: that would answer for a socket that is not ours
        _contexts[pid] = context
    return _contexts[pid]


def _require_netfilter(operation: str, target: str) -> None:
    """Fail where libnftables would not: it ends the whole process when it cannot open its socket."""
    try:
        _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _NETLINK_NETFILTER).close()
    except OSError as error:
        raise KernelRefused(operation, target, error.errno or 0, "cannot open a netfilter netlink socket") from error


def _refusal(text: str, operation: str, target: str) -> KernelRefused:
    """Make an error of what libnftables wrote."""
    return KernelRefused(operation, target, errno_of(text), " ".join(text.split())[:_DETAILS_LIMIT])


def errno_of(text: str) -> int:
    """Find the errno in libnftables' error text.

    Args:
        text: Such as "internal:0:0-0: Error: Could not process rule: File exists", several of them, one per line; a
            hint may follow after a semicolon, or in parentheses.

    Returns:
        The errno of the first error that names one, or 0.
    """
    for line in text.splitlines():
        _, found, reason = line.partition("Error: ")
        words = reason.partition(";")[0].partition(" (")[0].rpartition(": ")[2].strip()
        if found and words in _ERRNO_BY_TEXT:
            return _ERRNO_BY_TEXT[words]
    return 0

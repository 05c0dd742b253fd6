"""resolv.conf as the `dns` of a result.

Privilege: none.

Source: resolv.conf(5); containernetworking/plugins v1.9.1, plugins/ipam/host-local/dns.go.
"""

from cnisandbox.cni.result import Dns
from cnisandbox.errors import IoFailure

# LIMIT: of what a result carries from a file that anybody on the host may have written; resolvers read far less.
_SIZE_LIMIT = 1 << 16


def parse_resolv_conf(data: bytes) -> Dns:
    """Read a resolv.conf.

    Args:
        data: The file. What is not UTF-8 becomes U+FFFD: the result is JSON.

    Returns:
        Every `nameserver`, `search` and `options` in the order of the file, added up over its lines, and the last
        `domain`. Lines that begin with `#` or `;`, unknown keywords, and keywords without a value are passed over.

    Raises:
        IoFailure: The file is longer than 64 KiB.
    """
    if len(data) > _SIZE_LIMIT:
        raise IoFailure(f"read resolvConf: longer than {_SIZE_LIMIT} bytes")
    values: dict[str, list[str]] = {"nameserver": [], "domain": [], "search": [], "options": []}
    for line in data.decode("utf-8", "replace").split("\n"):
        keyword, *words = line.split() or [""]
        if keyword in ("nameserver", "domain"):
            words = words[:1]
        if keyword in values:
            values[keyword] += words
    return Dns(
        nameservers=tuple(values["nameserver"]),
        domain=values["domain"][-1] if values["domain"] else "",
        search=tuple(values["search"]),
        options=tuple(values["options"]),
    )

"""Names by which an attachment's things in the kernel are found again, without anything written down.

Privilege: none.
"""

from cnisandbox.cni.netconf import Attachment
from cnisandbox.digest import sha512_hex

# LIMIT: IFALIASZ of include/uapi/linux/if_link.h is 256 with the terminating NUL.
_ALIAS_BYTES = 255
_DIGITS = 16
_ATTACHMENT = "cnisandbox attachment "


def host_ifname(network: str, attachment: Attachment, attempt: int = 0) -> str:
    """Name the host's end of an attachment's veth pair: the shape of the reference's names, but always the same one.

    Args:
        network: Name of the network.
        attachment: What the pair is for.
        attempt: Counts up when the name is taken, by somebody else or by 32 equal bits.

    Returns:
        "veth" and 8 hexadecimal digits.
    """
    return "veth" + _digest(network, *attachment, str(attempt))[:8]


def network_alias(network: str) -> str:
    """Mark a link that belongs to a network as a whole, such as its bridge."""
    return _cut(f"cnisandbox network {_digest(network)} {network}")


def attachment_alias(network: str, attachment: Attachment) -> str:
    """Mark a link that belongs to one attachment; a name can be taken by anybody, this says whose it is.

    Returns:
        A digest of the network, a digest of the attachment, and the same in words as far as they fit.
    """
    words = f"{network} {attachment.container_id} {attachment.ifname}"
    return _cut(f"{_ATTACHMENT}{_digest(network)} {_digest(*attachment)} {words}")


def is_attachments(alias: str) -> bool:
    """Say whether an alias marks a link of an attachment, of whatever network."""
    return alias.startswith(_ATTACHMENT)


def is_of_network(alias: str, network: str) -> bool:
    """Say whether an alias marks a link of one of the network's attachments."""
    return alias.startswith(f"{_ATTACHMENT}{_digest(network)} ")


def _cut(alias: str) -> str:
    return alias.encode("utf-8", "replace")[:_ALIAS_BYTES].decode("utf-8", "ignore")


def _digest(*parts: str) -> str:
    return sha512_hex("\0".join(parts).encode("utf-8", "surrogateescape"))[:_DIGITS]

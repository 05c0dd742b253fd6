"""Names by which an attachment's things in the kernel are found again, without anything written down.

Privilege: none.
"""

from cnisandbox.cni.netconf import Attachment
from cnisandbox.digest import sha512_hex

# LIMIT: IFALIASZ of include/uapi/linux/if_link.h is 256 with the terminating NUL.
_ALIAS_BYTES = 255
_DIGITS = 16


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
    return f"cnisandbox {_digest(network)} network {network}"[:_ALIAS_BYTES]


def attachment_alias(network: str, attachment: Attachment) -> str:
    """Mark a link that belongs to one attachment; a name can be taken by anybody, this says whose it is.

    Returns:
        "cnisandbox", a digest of the network, a digest of the attachment, and the same in words as far as they fit.
    """
    words = f"{network} {attachment.container_id} {attachment.ifname}"
    return f"{_attachments_mark(network)}{_digest(*attachment)} {words}"[:_ALIAS_BYTES]


def is_of_network(alias: str, network: str) -> bool:
    """Say whether an alias marks a link of one of the network's attachments."""
    return alias.startswith(_attachments_mark(network))


def _attachments_mark(network: str) -> str:
    return f"cnisandbox {_digest(network)} "


def _digest(*parts: str) -> str:
    return sha512_hex("\0".join(parts).encode("utf-8", "surrogateescape"))[:_DIGITS]

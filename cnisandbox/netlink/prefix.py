"""Addresses with a prefix length, as netlink wants them: family, bytes, length.

The `ipaddress` module knows more, but its objects cannot cross the boundary, and a worker needs no more than this.
"""

import errno
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from cnisandbox.errors import KernelRefused, quoted
from cnisandbox.hints import NamedTuple


class Prefix(NamedTuple):
    """An address with the length of its prefix; host bits are kept.

    Attributes:
        family: AF_INET or AF_INET6.
        packed: 4 or 16 bytes, network order.
        length: 0 to 32 or 128.
    """

    family: int
    packed: bytes
    length: int

    @property
    def bits(self) -> int:
        """32 or 128."""
        return len(self.packed) * 8

    @property
    def address(self) -> str:
        """The address without its prefix length, in canonical form."""
        return inet_ntop(self.family, self.packed)

    @property
    def host_mask(self) -> int:
        """A number with ones where the prefix ends."""
        return (1 << (self.bits - self.length)) - 1

    @property
    def network(self) -> "Prefix":
        """The same prefix with host bits zero."""
        number = int.from_bytes(self.packed, "big") & ~self.host_mask
        return self._replace(packed=number.to_bytes(len(self.packed), "big"))

    @property
    def broadcast(self) -> str | None:
        """The broadcast address, or None for IPv6 and for /31 and /32, which have none (RFC 3021)."""
        if self.family != AF_INET or self.length > 30:
            return None
        number = int.from_bytes(self.packed, "big") | self.host_mask
        return inet_ntop(self.family, number.to_bytes(4, "big"))

    def contains(self, other: "Prefix") -> bool:
        """Whether the other's address lies in this prefix."""
        return other.family == self.family and other._replace(length=self.length).network.packed == self.network.packed

    def overlaps(self, other: "Prefix") -> bool:
        """Whether an address lies in both."""
        return self.contains(other) or other.contains(self)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


def parse_prefix(text: str, operation: str) -> Prefix:
    """Read "10.1.2.3/24" or "fd00::3/64".

    Args:
        text: Address, slash, prefix length; all of it has to be there.
        operation: For the message.

    Raises:
        KernelRefused: EINVAL.
    """
    address, _, digits = text.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    try:
        packed = inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: it holds a NUL
        packed = b""
    length = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 3 else 999
    if not packed or length > len(packed) * 8:
        raise KernelRefused(operation, quoted(text), errno.EINVAL, "not an address with a prefix length")
    return Prefix(family, packed, length)


def parse_address(text: str, operation: str) -> Prefix:
    """Read an address without prefix length, as a prefix of all its bits.

    Raises:
        KernelRefused: EINVAL.
    """
    return parse_prefix(f"{text}/{128 if ':' in text else 32}", operation)

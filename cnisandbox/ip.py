"""IP addresses that plugins calculate with: what they need of `ipaddress`, which takes 2 ms of a call to import.

Same names, same text, same order as there, but for what no netconf may have: an address with a zone is none here.

Privilege: none.
"""

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from cnisandbox.hints import NamedTuple

_BITS = {4: 32, 6: 128}
_FAMILIES = {4: AF_INET, 6: AF_INET6}
_MAPPED = 0xFFFF  # what stands above the lower 32 bits of an IPv4 address mapped into IPv6


class Address(NamedTuple):
    """An address.

    Attributes:
        version: 4 or 6.
        number: Its bits.
    """

    version: int
    number: int

    @property
    def max_prefixlen(self) -> int:
        """How many bits there are."""
        return _BITS[self.version]

    @property
    def packed(self) -> bytes:
        """4 or 16 bytes, network order."""
        return self.number.to_bytes(_BITS[self.version] // 8)

    @property
    def is_mapped(self) -> bool:
        """Whether it is an IPv4 address mapped into IPv6."""
        return self.version == 6 and self.number >> 32 == _MAPPED

    @property
    def is_loopback(self) -> bool:
        """Whether it is one of 127.0.0.0/8, or ::1."""
        return self.number >> 24 == 127 if self.version == 4 else self.number == 1

    def __int__(self) -> int:
        return self.number

    def __str__(self) -> str:
        text = inet_ntop(_FAMILIES[self.version], self.packed)
        if self.version == 6 and "." in text:  # the C library writes the end of some as IPv4
            return f"{text.rpartition(':')[0]}:{self.number >> 16 & 0xFFFF:x}:{self.number & 0xFFFF:x}"
        return text


class Network(NamedTuple):
    """A network.

    Attributes:
        network_address: Its first address.
        prefixlen: Bits that all of its addresses have in common.
    """

    network_address: Address
    prefixlen: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.network_address.version

    @property
    def max_prefixlen(self) -> int:
        """How many bits an address has."""
        return self.network_address.max_prefixlen

    @property
    def num_addresses(self) -> int:
        """How many addresses it has."""
        return 1 << self.max_prefixlen - self.prefixlen

    @property
    def broadcast_address(self) -> Address:
        """Its last address."""
        return Address(self.version, self.network_address.number + self.num_addresses - 1)

    def __str__(self) -> str:
        return f"{self.network_address}/{self.prefixlen}"


class Interface(NamedTuple):
    """An address with a prefix length; bits behind the prefix are kept.

    Attributes:
        ip: The address.
        prefixlen: The length.
    """

    ip: Address
    prefixlen: int

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ip.version

    @property
    def network(self) -> Network:
        """The network that it lies in."""
        host_bits = self.ip.max_prefixlen - self.prefixlen
        return Network(Address(self.version, self.ip.number >> host_bits << host_bits), self.prefixlen)

    def __str__(self) -> str:
        return f"{self.ip}/{self.prefixlen}"


def ip_address(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: It is none, or has a zone.
    """
    version = 6 if ":" in text else 4
    try:
        return Address(version, int.from_bytes(inet_pton(_FAMILIES[version], text)))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 address") from None


def ip_interface(text: str) -> Interface:
    """Read an address with a prefix length in decimal; without one it has all bits.

    Raises:
        ValueError: It is none.
    """
    host, slash, length = text.partition("/")
    address = ip_address(host)
    if not slash:
        return Interface(address, address.max_prefixlen)
    if not (length.isascii() and length.isdigit() and int(length) <= address.max_prefixlen):
        raise ValueError(f"{text!r} does not appear to be an IPv4 or IPv6 interface")
    return Interface(address, int(length))

"""Ranges and range sets: which addresses may be handed out, and in which order they are tried.

Addresses are numbers here; nothing ever lists a range, since one of IPv6 has more addresses than there is memory.

Privilege: none.

Source: containernetworking/plugins v1.9.1, plugins/ipam/host-local/backend/allocator.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from cnisandbox.cni.value import Value
from cnisandbox.hints import NamedTuple
from cnisandbox.ip import Address, Network, ip_address

_IPV4 = 4
_SMALLEST_HOST_BITS = 2


class Range(NamedTuple):
    """A part of a subnet; sorts by IP version and first address.

    Attributes:
        version: IP version, 4 or 6.
        first: First address.
        last: Last address; it belongs to the range.
        prefixlen: Of the subnet.
        gateway: Gateway of the subnet, in it or not; never handed out, also where it lies in the range.
    """

    version: int
    first: int
    last: int
    prefixlen: int
    gateway: int

    def __str__(self) -> str:
        return f"{self.text(self.first)}-{self.text(self.last)}"

    def text(self, number: int) -> str:
        """Write an address of this range's version in canonical text (RFC 5952)."""
        if self.version == _IPV4:
            return ".".join(map(str, number.to_bytes(4)))
        return str(Address(6, number))

    def has(self, address: Address) -> bool:
        """Whether an address lies in the range, which the gateway may do."""
        return address.version == self.version and self.first <= int(address) <= self.last

    def overlaps(self, other: "Range") -> bool:
        """Whether the two have an address in common."""
        return self.version == other.version and self.first <= other.last and other.first <= self.last


RangeSet = tuple[Range, ...]


def range_set_text(range_set: RangeSet) -> str:
    """Write a range set for a message."""
    return ",".join(map(str, range_set))


def range_of(range_set: RangeSet, address: Address) -> Range | None:
    """Return the range of a set in which an address lies."""
    return next((part for part in range_set if part.has(address)), None)


def candidates(range_set: RangeSet, last_reserved: str) -> Iterator[tuple[Range, int]]:
    """Iterate over all addresses of a set in the order in which they are to be tried: once around.

    Args:
        range_set: The set.
        last_reserved: The address after which to begin, and with which to end. Anything else than an address of the set
            begins with its first one.

    Returns:
        Pairs of an address and its range, without the range's gateway.
    """
    for part, first, last in _turn(range_set, last_reserved):
        for number in range(first, last + 1):
            if number != part.gateway:
                yield part, number


def _turn(range_set: RangeSet, last_reserved: str) -> list[tuple[Range, int, int]]:
    whole = [(part, part.first, part.last) for part in range_set]
    try:
        address = ip_address(last_reserved)
    except ValueError:
        return whole
    begin = range_of(range_set, address)
    if begin is None:
        return whole
    index = range_set.index(begin)
    rest = (begin, int(address) + 1, begin.last)
    return [rest, *whole[index + 1 :], *whole[:index], (begin, begin.first, int(address))]


def parse_range_set(value: Value) -> RangeSet:
    """Read one element of `ranges`: a list of ranges of one IP version.

    Raises:
        InvalidConfig: It is empty, mixes IP versions, has ranges that overlap, or one of them is wrong.
    """
    parts = [(element, parse_range(element)) for element in value]
    if not parts:
        raise value.error("empty range set")
    for element, part in parts:
        if part.version != parts[0][1].version:
            raise element.error("mixed address families in one range set")
    require_disjoint(parts)
    return tuple(part for _, part in parts)


def require_disjoint(parts: Sequence[tuple[Value, Range]]) -> None:
    """Check that no two ranges overlap.

    Args:
        parts: The ranges, and where each of them stands.

    Raises:
        InvalidConfig: Two of them do.
    """
    in_order = sorted(parts, key=lambda part: part[1])
    for (value, part), (other_value, other) in pairwise(in_order):
        if part.overlaps(other):
            raise other_value.error(f"{other} overlaps with {part} of {value.path}")


def parse_range(value: Value) -> Range:
    """Read the keys subnet, rangeStart, rangeEnd and gateway.

    Defaults: the gateway and the first address are the one after the network's; the last is the one before the
    broadcast address for IPv4, and the very last for IPv6.

    Raises:
        InvalidConfig: A key has a value that it cannot have.
    """
    subnet = value["subnet"].interface()
    network = subnet.network
    if subnet.ip != network.network_address:
        raise value["subnet"].error(f"{subnet} has host bits set", f"the network is {network}")
    if network.prefixlen > network.max_prefixlen - _SMALLEST_HOST_BITS:
        raise value["subnet"].error(f"network {network} is too small to allocate from")
    default_first = int(network.network_address) + 1
    default_last = int(network.broadcast_address) - (1 if network.version == _IPV4 else 0)
    part = Range(
        version=network.version,
        first=_address_in(network, value["rangeStart"], default_first),
        last=_address_in(network, value["rangeEnd"], default_last),
        prefixlen=network.prefixlen,
        gateway=_address_like(network, value["gateway"], default_first),
    )
    if part.first > part.last:
        raise value["rangeEnd"].error(f"{part.text(part.last)} comes before the first address {part.text(part.first)}")
    return part


def _address_in(network: Network, value: Value, default: int) -> int:
    number = _address_like(network, value, default)
    if not int(network.network_address) <= number <= int(network.broadcast_address):
        raise value.error(f"{value.string()} is not in network {network}")
    return number


def _address_like(network: Network, value: Value, default: int) -> int:
    if not value.string():
        return default
    address = value.address()
    if address.version != network.version:
        raise value.error(f"{address} is not of the same IP version as network {network}")
    return int(address)

"""Which addresses an attachment gets.

Choosing changes nothing; reserving comes when everything has been chosen. Both happen under the store's lock, so what
was free then is free still.

Privilege: none.

Source: containernetworking/plugins v1.9.1, plugins/ipam/host-local/main.go and backend/allocator/allocator.go.
"""

from itertools import islice

from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import Address
from cnisandbox.errors import InvalidConfig, InvalidEnvironment, NotAvailable, TryAgain
from cnisandbox.hints import NamedTuple
from cnisandbox.ip import ip_address
from cnisandbox.ipam.config import Requested
from cnisandbox.ipam.ranges import Range, RangeSet, candidates, range_of, range_set_text
from cnisandbox.ipam.store import Store

# Free addresses are mostly found at once. After so many that are not, reading the whole directory is cheaper.
_PROBES = 16


class Lease(NamedTuple):
    """An address that has been chosen.

    Attributes:
        address: In canonical text.
        part: The range it is from.
    """

    address: str
    part: Range

    def result(self) -> Address:
        """Return it as a result says it."""
        return Address(f"{self.address}/{self.part.prefixlen}", self.part.text(self.part.gateway))


def allocate(
    store: Store, owner: Attachment, range_sets: tuple[RangeSet, ...], requested: tuple[Requested, ...]
) -> tuple[Address, ...]:
    """Reserve one address from each range set.

    Args:
        store: The network's store; its `with` block gives everything back if this fails.
        owner: Who gets them.
        range_sets: The range sets.
        requested: Addresses to be among them; the others are found in turn.

    Returns:
        The addresses, in the order of the range sets.

    Raises:
        TryAgain: A range set has no free address, or a requested one is taken.
        InvalidConfig: A requested address can never be had.
        InvalidEnvironment: The attachment has an address of such a range set.
    """
    leases = _choose(store, owner, range_sets, list(dict.fromkeys(requested)))
    for index, lease in enumerate(leases):
        if not store.reserve(lease.address, owner, index):
            raise TryAgain(f"failed to allocate for range {index}: somebody who does not lock took {lease.address}")
    return tuple(lease.result() for lease in leases)


def require_free(store: Store, range_sets: tuple[RangeSet, ...]) -> None:
    """Check that each range set has a free address.

    Args:
        store: The network's store.
        range_sets: The range sets.

    Raises:
        NotAvailable: One has none.
    """
    for index, range_set in enumerate(range_sets):
        if _first_free(store, range_set, index) is None:
            raise NotAvailable(f"no IP addresses available in range set: {range_set_text(range_set)}")


def _choose(
    store: Store, owner: Attachment, range_sets: tuple[RangeSet, ...], requested: list[Requested]
) -> list[Lease]:
    leases = []
    for index, range_set in enumerate(range_sets):
        wanted = next((request for request in requested if range_of(range_set, request.address)), None)
        if wanted is None:
            leases.append(_choose_next(store, owner, range_set, index))
        else:
            leases.append(_choose_requested(store, range_set, index, wanted))
            requested = [request for request in requested if request.address != wanted.address]
    if requested:
        texts = " ".join(str(request.address) for request in requested)
        raise InvalidConfig(f"failed to allocate all requested IPs: {texts}", _sources(requested))
    return leases


def _choose_requested(store: Store, range_set: RangeSet, index: int, wanted: Requested) -> Lease:
    part = range_of(range_set, wanted.address)
    address = str(wanted.address)
    if part is None or int(wanted.address) == part.gateway:
        raise InvalidConfig(
            f"failed to allocate for range {index}: requested ip {address} is subnet's gateway", _sources([wanted])
        )
    if store.is_taken(address):
        raise TryAgain(
            f"failed to allocate for range {index}: requested IP address {address} is not available in range set "
            f"{range_set_text(range_set)}",
            _sources([wanted]),
        )
    return Lease(address, part)


def _choose_next(store: Store, owner: Attachment, range_set: RangeSet, index: int) -> Lease:
    held = [*store.held(owner), *store.held(Attachment(owner.container_id, ""))]
    for address in held:
        if range_of(range_set, ip_address(address)):
            raise InvalidEnvironment(
                f"failed to allocate for range {index}: {address} has been allocated to {owner.container_id}, "
                "duplicate allocation is not allowed",
                "CNI_CONTAINERID and CNI_IFNAME name an attachment that has been added and not deleted",
            )
    lease = _first_free(store, range_set, index)
    if lease is None:
        raise TryAgain(
            f"failed to allocate for range {index}: no IP addresses available in range set: {range_set_text(range_set)}"
        )
    return lease


def _first_free(store: Store, range_set: RangeSet, index: int) -> Lease | None:
    """Find the address whose turn it is.

    Every candidate that is passed over is a reservation that exists, so this takes no more steps than there are
    reservations, however large the range.
    """
    turn = candidates(range_set, store.last_reserved(index))
    for part, number in islice(turn, _PROBES):
        address = part.text(number)
        if not store.is_taken(address):
            return Lease(address, part)
    taken = store.taken()
    rest = (Lease(part.text(number), part) for part, number in turn)
    return next((lease for lease in rest if lease.address not in taken), None)


def _sources(requested: list[Requested]) -> str:
    return "requested by " + ", ".join(request.source for request in requested)

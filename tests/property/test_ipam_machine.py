"""The store and the allocator against a model: any order of our verbs, crashes, reboots, and a second writer.

The model is the reference's: a dictionary of addresses, and a cursor that steps through a range set one address at a
time. After every step the files are the model's, and every attachment finds its own through the index.
"""

import ipaddress
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.value import Value
from cnisandbox.errors import CniError, InvalidConfig, InvalidEnvironment, NotAvailable, TryAgain
from cnisandbox.ipam.allocator import require_free
from cnisandbox.ipam.config import Requested
from cnisandbox.ipam.ranges import RangeSet, parse_range_set, range_of
from tests.ipam import StateDirectory, content_of

IPV4 = parse_range_set(
    Value(
        [
            {"subnet": "10.1.2.0/29"},
            {"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.7", "gateway": "10.9.0.6"},
            {"subnet": "10.5.0.0/30"},
        ],
        "r",
    )
)
IPV6 = parse_range_set(Value([{"subnet": "2001:db8::/126"}], "r"))
CONFIGS = [(IPV4,), (IPV6,), (IPV4, IPV6), (IPV6, IPV4)]
ADDRESSES = [part.text(number) for part in (*IPV4, *IPV6) for number in range(part.first, part.last + 1)]
CONTAINER_IDS = ["a", "b", "c", "x" * 210 + "1", "x" * 210 + "2"]  # the last two share an entry of the index
OWNERS = [Attachment(container_id, ifname) for container_id in CONTAINER_IDS for ifname in ("e0", "e1")]
OLD_FORMAT = [Attachment(cid, "") for cid in ("a", "b")]
CRASH_CALLS = ("open", "write", "link", "unlink", "rename", "pwrite", "utime")

configs = st.sampled_from(CONFIGS)
owners = st.sampled_from(OWNERS)
addresses = st.sampled_from(ADDRESSES)


def turn(range_set: RangeSet, last: str | None) -> Iterator[str]:
    """Step through a range set as the reference's RangeIter does."""
    index, current = 0, None
    for position, part in enumerate(range_set):
        if last is not None and part.has(ipaddress.ip_address(last)):
            index, current = position, int(ipaddress.ip_address(last))
            break
    start = None
    while True:
        part = range_set[index]
        if current is None:
            current = part.first
        elif current == part.last:
            index = (index + 1) % len(range_set)
            part = range_set[index]
            current = part.first
        else:
            current += 1
        if start is None:
            start = current
        elif current == start:
            return
        if current != part.gateway:
            yield part.text(current)


class Model:
    """What is reserved, and what was reserved last."""

    def __init__(self) -> None:
        self.reserved: dict[str, Attachment] = {}
        self.last: dict[int, str] = {}

    def held(self, owner: Attachment) -> set[str]:
        return {address for address, other in self.reserved.items() if other == owner}

    def choose(self, owner: Attachment, sets: tuple[RangeSet, ...], requested: list[str]) -> list[str] | type[CniError]:
        chosen: list[str] = []
        wanted = list(dict.fromkeys(requested))
        for index, range_set in enumerate(sets):
            mine = next((text for text in wanted if range_of(range_set, ipaddress.ip_address(text))), None)
            if mine is not None:
                wanted.remove(mine)
                part = range_of(range_set, ipaddress.ip_address(mine))
                if part is not None and mine == part.text(part.gateway):
                    return InvalidConfig
                if mine in self.reserved:
                    return TryAgain
                chosen.append(mine)
                continue
            held = self.held(owner) | self.held(Attachment(owner.container_id, ""))
            if any(range_of(range_set, ipaddress.ip_address(text)) for text in held):
                return InvalidEnvironment
            free = next((text for text in turn(range_set, self.last.get(index)) if text not in self.reserved), None)
            if free is None:
                return TryAgain
            chosen.append(free)
        return InvalidConfig if wanted else chosen

    def reserve(self, owner: Attachment, chosen: list[str]) -> None:
        for index, address in enumerate(chosen):
            self.reserved[address] = owner
            self.last[index] = address

    def release(self, owner: Attachment) -> None:
        gone = self.held(owner) or self.held(Attachment(owner.container_id, ""))
        for address in gone:
            del self.reserved[address]


class HostLocalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.state = StateDirectory(Path(self.directory.name))
        self.model = Model()
        self.boots = 0

    def teardown(self) -> None:
        self.state.close()
        self.directory.cleanup()

    @rule(owner=owners, sets=configs, requested=st.lists(addresses, max_size=2))
    def add(self, owner: Attachment, sets: tuple[RangeSet, ...], requested: list[str]) -> None:
        self.add_and_compare(owner, sets, requested)

    @rule(owner=owners, sets=configs)
    def add_in_turn(self, owner: Attachment, sets: tuple[RangeSet, ...]) -> None:
        self.add_and_compare(owner, sets, [])

    def add_and_compare(self, owner: Attachment, sets: tuple[RangeSet, ...], requested: list[str]) -> None:
        expected = self.model.choose(owner, sets, requested)
        try:
            got: Any = self.state.add(owner, sets, tuple(Requested(ipaddress.ip_address(r), "r") for r in requested))
        except CniError as error:
            got = type(error)
        assert got == expected
        if isinstance(expected, list):
            self.model.reserve(owner, expected)

    @rule(owner=owners)
    def delete(self, owner: Attachment) -> None:
        assert self.state.delete(owner) == []
        self.model.release(owner)

    @rule(valid=st.frozensets(owners))
    def collect(self, valid: frozenset[Attachment]) -> None:
        with self.state.open(create=False) as store:
            assert store.collect(valid) == []
        ids = {owner.container_id for owner in valid}
        self.model.reserved = {
            address: owner
            for address, owner in self.model.reserved.items()
            if owner in valid or (not owner.ifname and owner.container_id in ids)
        }

    @rule(sets=configs)
    def status(self, sets: tuple[RangeSet, ...]) -> None:
        has_room = all(any(text not in self.model.reserved for text in turn(range_set, None)) for range_set in sets)
        try:
            with self.state.open(create=False) as store:
                require_free(store, sets)
        except NotAvailable:
            assert not has_room
        else:
            assert has_room

    @rule(owner=owners, sets=configs, step=st.integers(0, 30))
    def add_that_is_killed(self, owner: Attachment, sets: tuple[RangeSet, ...], step: int) -> None:
        before = dict(self.model.reserved)
        chosen = self.model.choose(owner, sets, [])
        in_child_killed_at(step, lambda: self.state.add(owner, sets))
        found = {address: content for address, content in self.state.reservations().items() if address not in before}
        assert set(found) <= set(chosen if isinstance(chosen, list) else [])
        assert set(found.values()) <= {content_of(owner)}
        self.model.reserved |= dict.fromkeys(found, owner)
        self.read_last_reserved()

    @rule(owner=owners, step=st.integers(0, 20))
    def delete_that_is_killed(self, owner: Attachment, step: int) -> None:
        may_go = self.model.held(owner) or self.model.held(Attachment(owner.container_id, ""))
        in_child_killed_at(step, lambda: self.state.delete(owner))
        gone = set(self.model.reserved) - set(self.state.reservations())
        assert gone <= may_go
        for address in gone:
            del self.model.reserved[address]

    @rule(address=addresses, owner=st.sampled_from(OWNERS + OLD_FORMAT))
    def foreign_add(self, address: str, owner: Attachment) -> None:
        if address not in self.model.reserved:
            self.state.foreign_add(address, content_of(owner))
            self.model.reserved[address] = owner

    @precondition(lambda self: self.model.reserved)
    @rule(data=st.data())
    def foreign_delete(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.model.reserved)))
        self.state.foreign_delete(address)
        del self.model.reserved[address]

    @rule(address=addresses)
    def foreign_crash(self, address: str) -> None:
        """The reference plugin dies between creating a file and writing it."""
        if address not in self.model.reserved:
            self.state.foreign_add(address, b"")
            self.state.held(OWNERS[0])

    @rule(address=st.none() | addresses)
    def reboot(self, address: str | None) -> None:
        """A boot; perhaps the reference plugin reserves an address before we do anything."""
        for name in self.state.reservations():
            os.utime(self.state.network_path / name, (1_000_000, 1_000_000))
        if address is not None and address not in self.model.reserved:
            self.state.foreign_add(address, content_of(OWNERS[0]))
            self.model.reserved = {address: OWNERS[0]}
        else:
            self.model.reserved = {}
        self.boots += 1
        self.state.reboot(f"boot-{self.boots}", time_s=time.time() - 100)
        self.state.held(OWNERS[0])

    @invariant()
    def files_are_those_of_the_model(self) -> None:
        expected = {address: content_of(owner) for address, owner in self.model.reserved.items()}
        assert self.state.reservations() == expected

    @invariant()
    def everybody_finds_their_own(self) -> None:
        for owner in OWNERS + OLD_FORMAT:
            assert set(self.state.held(owner)) == self.model.held(owner)

    def read_last_reserved(self) -> None:
        for path in self.state.network_path.glob("last_reserved_ip.*"):
            self.model.last[int(path.suffix[1:])] = path.read_text()


def in_child_killed_at(step: int, work: Callable[[], object]) -> None:
    """Run something in a child that is killed instead of its nth system call that changes something."""
    child = os.fork()
    if child == 0:
        remaining = iter(range(step))

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                if next(remaining, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapper

        for name in CRASH_CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


TestHostLocal = HostLocalMachine.TestCase
TestHostLocal.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

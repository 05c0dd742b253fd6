"""The store: its form on disk, what it notices, what it survives, what it costs."""

import errno
import ipaddress
import os
import signal
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.value import Value
from cnisandbox.errors import CniError, InvalidConfig, InvalidEnvironment, IoFailure, NotAvailable, TryAgain
from cnisandbox.ipam.allocator import require_free
from cnisandbox.ipam.config import Requested
from cnisandbox.ipam.index import Index, entry_name
from cnisandbox.ipam.ranges import parse_range_set
from cnisandbox.ipam.store import Store, this_boot
from tests.ipam import FIRST_BOOT, NETWORK, StateDirectory, content_of, range_sets

SETS = range_sets("10.1.2.0/29")  # five addresses, .2 to .6
ETH0 = Attachment("c1", "eth0")
ETH1 = Attachment("c1", "eth1")
OTHER = Attachment("c2", "eth0")
LEGACY = Attachment("c1", "")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    directory = StateDirectory(tmp_path)
    yield directory
    directory.close()


def requested(*addresses: str) -> tuple[Requested, ...]:
    return tuple(Requested(ipaddress.ip_address(text), f"ips[{index}]") for index, text in enumerate(addresses))


class TestForm:
    def test_files_are_those_of_the_reference(self, state: StateDirectory) -> None:
        assert state.add(ETH0, range_sets("10.1.2.0/29", "2001:db8::/64")) == ["10.1.2.2", "2001:db8::2"]
        files = {path.name: path.read_bytes() for path in state.network_path.iterdir()}
        assert files == {
            "lock": b"",
            "10.1.2.2": b"c1\r\neth0",
            "2001:db8::2": b"c1\r\neth0",
            "last_reserved_ip.0": b"10.1.2.2",
            "last_reserved_ip.1": b"2001:db8::2",
        }

    def test_modes(self, state: StateDirectory) -> None:
        umask = os.umask(0o022)
        try:
            state.add(ETH0, SETS)
        finally:
            os.umask(umask)
        assert stat.S_IMODE(state.network_path.stat().st_mode) == 0o755
        assert stat.S_IMODE((state.network_path / "10.1.2.2").stat().st_mode) == 0o600
        assert stat.S_IMODE((state.network_path / "lock").stat().st_mode) == 0o750

    def test_index_can_be_read_by_people(self, state: StateDirectory) -> None:
        state.add(ETH0, range_sets("10.1.2.0/29", "2001:db8::/64"))
        assert state.index_entries() == {"c1:eth0": "10.1.2.2 2001:db8::2"}

    def test_nothing_but_lock_and_last_reserved_is_left_after_delete(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        assert state.delete(ETH0) == []
        assert sorted(path.name for path in state.network_path.iterdir()) == ["last_reserved_ip.0", "lock"]
        assert sorted(path.name for path in state.index_path.iterdir()) == ["seal"]

    def test_no_descriptor_is_left(self, state: StateDirectory) -> None:
        before = set(os.listdir("/proc/self/fd"))
        state.add(ETH0, SETS)
        with pytest.raises(InvalidEnvironment):
            state.add(ETH0, SETS)
        state.delete(ETH0)
        assert set(os.listdir("/proc/self/fd")) == before

    def test_reading_verbs_make_no_directory(self, state: StateDirectory) -> None:
        with state.open(create=False) as store:
            assert (store.held(ETH0), store.release(ETH0), store.collect(frozenset())) == ([], [], [])
            require_free(store, SETS)
        assert list(state.path.iterdir()) == []


class TestAllocation:
    def test_round_robin_goes_on_after_a_release_and_wraps(self, state: StateDirectory) -> None:
        seen = []
        for _ in range(7):
            seen += state.add(ETH0, SETS)
            state.delete(ETH0)
        assert seen == [f"10.1.2.{last}" for last in (2, 3, 4, 5, 6, 2, 3)]

    def test_last_reserved_address_may_have_any_length(self, state: StateDirectory) -> None:
        for wanted in ("10.1.2.254", "10.1.2.2", "10.1.2.31"):
            sets = (parse_range_set(Value([{"subnet": "10.1.2.0/24", "rangeStart": wanted}], "r")),)
            assert state.add(ETH0, sets) == [wanted]
            assert state.delete(ETH0) == []
            assert (state.network_path / "last_reserved_ip.0").read_text() == wanted

    def test_each_interface_has_its_own_address(self, state: StateDirectory) -> None:
        assert state.add(ETH0, SETS) == ["10.1.2.2"]
        assert state.add(ETH1, SETS) == ["10.1.2.3"]
        state.delete(ETH0)
        assert state.reservations() == {"10.1.2.3": b"c1\r\neth1"}

    def test_second_add_of_an_attachment_is_refused(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        with pytest.raises(InvalidEnvironment) as caught:
            state.add(ETH0, SETS)
        assert caught.value.msg == (
            "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation is not allowed"
        )
        assert state.held(ETH0) == ["10.1.2.2"]

    def test_an_address_of_another_set_is_no_duplicate(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        assert state.add(ETH0, range_sets("10.9.0.0/24")) == ["10.9.0.2"]

    def test_full_set_is_an_error_with_the_ranges_and_status_says_so(self, state: StateDirectory) -> None:
        for number in range(5):
            state.add(Attachment(f"c{number}", "eth0"), SETS)
        with pytest.raises(TryAgain) as caught:
            state.add(Attachment("c9", "eth0"), SETS)
        assert caught.value.msg == (
            "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6"
        )
        with state.open() as store, pytest.raises(NotAvailable) as status:
            require_free(store, SETS)
        assert (status.value.code, status.value.msg) == (
            50,
            "no IP addresses available in range set: 10.1.2.1-10.1.2.6",
        )

    def test_nothing_is_reserved_when_a_later_set_is_full(self, state: StateDirectory) -> None:
        only = (parse_range_set(Value([{"subnet": "10.9.0.0/30", "rangeEnd": "10.9.0.2"}], "r")),)
        state.add(OTHER, only)
        with pytest.raises(TryAgain, match="failed to allocate for range 1"):
            state.add(ETH0, SETS + only)
        assert state.reservations() == {"10.9.0.2": b"c2\r\neth0"}

    def test_address_behind_many_reservations_is_found(self, state: StateDirectory) -> None:
        sets = range_sets("10.1.0.0/24")
        for number in range(2, 200):
            state.foreign_add(f"10.1.0.{number}", b"x\r\neth0")
        assert state.add(ETH0, sets) == ["10.1.0.200"]

    @pytest.mark.parametrize(("wanted", "got"), [(("10.1.2.5",), "10.1.2.5"), (("10.1.2.5", "10.1.2.5"), "10.1.2.5")])
    def test_requested_address_is_given(self, state: StateDirectory, wanted: tuple[str, ...], got: str) -> None:
        assert state.add(ETH0, SETS, requested(*wanted)) == [got]

    def test_one_requested_address_is_used_for_each_set(self, state: StateDirectory) -> None:
        sets = range_sets("10.1.2.0/29", "2001:db8::/64", "10.9.0.0/24")
        assert state.add(ETH0, sets, requested("10.9.0.7", "2001:db8::7")) == ["10.1.2.2", "2001:db8::7", "10.9.0.7"]

    @pytest.mark.parametrize(
        ("wanted", "kind", "message"),
        [
            (("192.0.2.1",), InvalidConfig, "failed to allocate all requested IPs: 192.0.2.1"),
            (("10.1.2.4", "10.1.2.5"), InvalidConfig, "failed to allocate all requested IPs: 10.1.2.5"),
            (
                ("10.1.2.1",),
                InvalidConfig,
                "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway",
            ),
            (
                ("10.1.2.6",),
                TryAgain,
                "failed to allocate for range 0: requested IP address 10.1.2.6 is not available in range set "
                "10.1.2.1-10.1.2.6",
            ),
        ],
    )
    def test_requested_address_that_cannot_be_had(
        self, state: StateDirectory, wanted: tuple[str, ...], kind: type[CniError], message: str
    ) -> None:
        state.add(OTHER, SETS, requested("10.1.2.6"))
        with pytest.raises(kind) as caught:
            state.add(ETH0, SETS, requested(*wanted))
        assert caught.value.msg == message
        assert caught.value.details.startswith("requested by ips[")
        assert state.held(ETH0) == []


class TestForeignWriters:
    def test_reservation_of_the_reference_is_found_and_released(self, state: StateDirectory) -> None:
        state.add(OTHER, SETS)
        state.foreign_add("10.1.2.5", b"c1\r\neth0")
        assert state.held(ETH0) == ["10.1.2.5"]
        assert state.delete(ETH0) == []
        assert state.reservations() == {"10.1.2.2": b"c2\r\neth0"}

    def test_change_right_after_our_own_is_noticed(self, state: StateDirectory) -> None:
        # Many times, because without the seal it would go unseen only within one tick of the kernel's clock.
        for number in range(50):
            owner = Attachment(f"f{number}", "eth0")
            assert state.add(ETH0, SETS) != []
            state.foreign_add("10.9.9.9", content_of(owner))
            assert state.held(owner) == ["10.9.9.9"]
            state.foreign_delete("10.9.9.9")
            assert state.held(owner) == []
            assert state.delete(ETH0) == []

    def test_mtime_stands_in_the_past_and_never_twice_the_same(self, state: StateDirectory) -> None:
        seen = set()
        for number in range(20):
            state.add(Attachment(f"c{number}", "eth0"), range_sets("10.1.0.0/24"))
            mtime_ns = state.network_path.stat().st_mtime_ns
            assert 3600 <= time.time() - mtime_ns / 1e9 <= 7200
            seen.add(mtime_ns)
        assert len(seen) == 20

    @pytest.mark.parametrize("content", [b"c1", b" c1\n", b"c1\r\n"])
    def test_old_format_is_honoured(self, state: StateDirectory, content: bytes) -> None:
        state.foreign_add("10.1.2.3", content)
        assert state.held(LEGACY) == ["10.1.2.3"]
        with pytest.raises(InvalidEnvironment, match=r"10\.1\.2\.3 has been allocated to c1"):
            state.add(ETH0, SETS)
        assert state.delete(ETH0) == []
        assert state.reservations() == {}

    def test_old_format_is_released_only_if_nothing_else_is(self, state: StateDirectory) -> None:
        state.foreign_add("10.9.0.9", b"c1")
        state.add(ETH0, SETS)
        state.delete(ETH0)
        assert state.reservations() == {"10.9.0.9": b"c1"}
        state.delete(ETH0)
        assert state.reservations() == {}

    def test_white_space_around_the_content_does_not_matter(self, state: StateDirectory) -> None:
        state.foreign_add("10.1.2.3", b"\n c1\r\neth0\n")
        assert state.held(ETH0) == ["10.1.2.3"]

    def test_empty_reservation_is_free_at_once(self, state: StateDirectory) -> None:
        state.foreign_add("10.1.2.2", b"")
        state.foreign_add("10.1.2.3", b" \n")
        assert state.add(ETH0, SETS) == ["10.1.2.2"]
        assert state.add(ETH1, SETS) == ["10.1.2.3"]

    def test_reservation_rewritten_in_place_changes_its_owner(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        (state.network_path / "10.1.2.2").write_bytes(b"c2\r\neth0")
        assert state.delete(ETH0) == []
        assert state.reservations() == {"10.1.2.2": b"c2\r\neth0"}
        assert state.held(OTHER) == ["10.1.2.2"]

    def test_directory_that_was_replaced_is_read_anew(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        status = state.network_path.stat()
        state.network_path.rename(state.path / "old")
        state.network_path.mkdir()
        (state.network_path / "10.1.2.4").write_bytes(b"c1\r\neth0")
        (state.network_path / "lock").touch()
        os.utime(state.network_path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert state.held(ETH0) == ["10.1.2.4"]

    def test_lock_that_was_removed_while_we_waited_is_not_trusted(self, state: StateDirectory) -> None:
        state.add(OTHER, SETS)
        # The child is forked first: a lock that it inherited would be its own.
        reader, writer = os.pipe()
        child = fork(lambda: (os.read(reader, 1), state.add(ETH0, SETS)))
        with state.foreign_lock():
            os.write(writer, b"go")
            wait_for_lock(child)
            for path in state.network_path.iterdir():
                path.unlink()
            state.network_path.rmdir()
        assert os.waitpid(child, 0)[1] == 0
        os.close(reader)
        os.close(writer)
        assert state.reservations() == {"10.1.2.2": b"c1\r\neth0"}

    def test_what_is_no_reservation_is_left_alone(self, state: StateDirectory) -> None:
        state.add(OTHER, SETS)
        directory = state.network_path
        (directory / "notes").write_bytes(b"c1\r\neth0")
        (directory / "10.1.2.3").symlink_to("notes")
        (directory / "10.1.2.4").mkdir()
        os.mkfifo(directory / "10.1.2.5")
        assert state.held(ETH0) == []
        assert state.add(ETH0, SETS) == ["10.1.2.6"]
        with state.open() as store:
            assert store.collect(frozenset()) == []
        assert sorted(path.name for path in directory.iterdir()) == [
            "10.1.2.3", "10.1.2.4", "10.1.2.5", "last_reserved_ip.0", "lock", "notes",
        ]  # fmt: skip

    def test_symbolic_links_are_not_followed_to_other_directories(self, state: StateDirectory) -> None:
        (state.path / "elsewhere").mkdir()
        state.network_path.symlink_to("elsewhere")
        with pytest.raises(IoFailure):
            state.add(ETH0, SETS)
        assert list((state.path / "elsewhere").iterdir()) == []


class TestReboot:
    def test_everything_from_before_is_free_if_nobody_was_there_since(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        state.reboot(time_s=0)  # the clock says that all files are younger than the boot: it is not asked
        assert state.held(ETH0) == []
        assert state.reservations() == {}

    def test_last_reserved_address_does_not_come_back_at_once(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        state.reboot()
        assert state.add(ETH0, SETS) == ["10.1.2.3"]

    def test_what_the_reference_reserved_since_the_boot_stays(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        os.utime(state.network_path / "10.1.2.2", (1_000_000, 1_000_000))
        state.foreign_add("10.1.2.5", b"c2\r\neth0")
        state.reboot(time_s=time.time() - 60)
        assert state.held(OTHER) == ["10.1.2.5"]
        assert state.reservations() == {"10.1.2.5": b"c2\r\neth0"}

    def test_store_that_only_the_reference_used_is_reclaimed_by_age(self, state: StateDirectory) -> None:
        state.foreign_add("10.1.2.4", b"c1\r\neth0")
        state.foreign_add("10.1.2.5", b"c2\r\neth0")
        os.utime(state.network_path / "10.1.2.4", (1_000_000, 1_000_000))
        state.held(ETH0)
        assert state.reservations() == {"10.1.2.5": b"c2\r\neth0"}

    def test_within_one_boot_nothing_is_reclaimed(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        os.utime(state.network_path / "10.1.2.2", (1_000_000, 1_000_000))
        state.foreign_add("10.1.2.5", b"c2\r\neth0")
        assert state.held(ETH0) == ["10.1.2.2"]

    def test_boot_without_an_id_is_refused(self) -> None:
        with pytest.raises(ValueError, match="boot_id is empty"):
            this_boot("")

    def test_boot_began_before_this_process(self) -> None:
        assert 0 < this_boot(FIRST_BOOT).time_s <= time.time()


class TestCollection:
    def test_only_what_is_valid_stays(self, state: StateDirectory) -> None:
        for owner in (ETH0, ETH1, OTHER):
            state.add(owner, SETS)
        with state.open() as store:
            assert store.collect(frozenset({ETH1})) == []
        assert state.reservations() == {"10.1.2.3": b"c1\r\neth1"}
        assert state.held(ETH1) == ["10.1.2.3"]

    def test_old_format_stays_for_any_attachment_of_its_container(self, state: StateDirectory) -> None:
        state.foreign_add("10.1.2.3", b"c1")
        state.foreign_add("10.1.2.4", b"c2")
        with state.open() as store:
            store.collect(frozenset({Attachment("c1", "net7")}))
        assert state.reservations() == {"10.1.2.3": b"c1"}

    def test_empty_list_frees_everything_and_keeps_lock_and_last_reserved(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        state.foreign_add("10.1.2.4", b"a/b\0\r\n\xff")
        with state.open() as store:
            assert store.collect(frozenset()) == []
        assert sorted(path.name for path in state.network_path.iterdir()) == ["last_reserved_ip.0", "lock"]

    def test_other_networks_are_not_touched(self, tmp_path: Path, state: StateDirectory) -> None:
        neighbour = StateDirectory(tmp_path, "net-2")
        neighbour.add(ETH0, SETS)
        state.add(ETH0, SETS)
        with state.open() as store:
            store.collect(frozenset())
        assert neighbour.held(ETH0) == ["10.1.2.2"]
        neighbour.close()

    def test_failures_are_reported_at_the_end(self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner in (ETH0, ETH1, OTHER):
            state.add(owner, SETS)
        fail(monkeypatch, "unlink", errno.EIO, lambda name, **_: name == "10.1.2.3")
        with state.open() as store:
            assert store.collect(frozenset()) == ["release 10.1.2.3: input/output error"]
        monkeypatch.undo()
        assert list(state.reservations()) == ["10.1.2.3"]
        assert state.held(ETH1) == ["10.1.2.3"]

    def test_unreadable_reservation_is_kept_and_reported(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.add(ETH0, SETS)
        state.add(OTHER, SETS)
        fail(monkeypatch, "open", errno.EACCES, lambda name, *_, **__: name == "10.1.2.2")
        with state.open() as store:
            assert store.collect(frozenset()) == ["read 10.1.2.2: permission denied"]
        assert list(state.reservations()) == ["10.1.2.2"]


class TestFailure:
    @pytest.mark.parametrize("call", ["write", "link", "pwrite"])
    def test_full_disk_leaves_nothing(self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        state.add(OTHER, SETS)
        fail(monkeypatch, call, errno.ENOSPC)
        with pytest.raises(IoFailure, match="use address store of network net: no space left on device"):
            state.add(ETH0, SETS)
        monkeypatch.undo()
        assert state.reservations() == {"10.1.2.2": b"c2\r\neth0"}
        assert state.add(ETH0, SETS) == ["10.1.2.3"]

    def test_failure_right_after_the_link_frees_the_address(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.add(OTHER, SETS)
        fail(monkeypatch, "unlink", errno.EIO, lambda name, **_: name == "new")
        with pytest.raises(IoFailure):
            state.add(ETH0, SETS)
        monkeypatch.undo()
        assert state.reservations() == {"10.1.2.2": b"c2\r\neth0"}
        assert state.add(ETH0, SETS) == ["10.1.2.3"]

    @pytest.mark.parametrize(("call", "name"), [("link", "2001:db8::2"), ("rename", "last_reserved_ip.1")])
    def test_what_could_not_be_taken_back_is_told_and_found_by_delete(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch, call: str, name: str
    ) -> None:
        sets = range_sets("10.1.2.0/29", "2001:db8::/64")
        fail(monkeypatch, call, errno.EIO, lambda *arguments, **_: is_creating(name, *arguments))
        fail(monkeypatch, "unlink", errno.EROFS, lambda name, **_: name == "10.1.2.2")
        with pytest.raises(IoFailure) as caught:
            state.add(ETH0, sets)
        assert caught.value.details == "release 10.1.2.2: read-only file system"
        monkeypatch.undo()
        assert state.reservations() == {"10.1.2.2": b"c1\r\neth0"}
        assert state.delete(ETH0) == []
        assert state.reservations() == {}

    def test_later_set_that_fails_frees_the_earlier(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail(monkeypatch, "link", errno.EIO, lambda _, name, **__: name == "2001:db8::2")
        with pytest.raises(IoFailure):
            state.add(ETH0, range_sets("10.1.2.0/29", "2001:db8::/64"))
        assert state.reservations() == {}

    def test_release_works_when_the_index_cannot_be_written(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.add(ETH0, SETS)
        state.foreign_add("10.1.2.5", b"c1\r\neth0")
        fail(monkeypatch, "open", errno.ENOSPC, lambda *arguments, **_: is_creating("c1:eth0", *arguments))
        assert state.delete(ETH0) == []
        assert state.reservations() == {}

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_release_works_when_there_is_no_index_and_none_can_be_made(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        state.network_path.mkdir()
        state.foreign_add("10.1.2.2", b"c1\r\neth0")
        state.foreign_add("10.1.2.3", b"c2\r\neth0")
        fail(monkeypatch, "mkdir", number)
        assert state.held(ETH0) == ["10.1.2.2"]
        assert state.delete(ETH0) == []
        assert state.reservations() == {"10.1.2.3": b"c2\r\neth0"}
        with pytest.raises(IoFailure, match="use address store of network net: "):
            state.add(ETH0, SETS)
        monkeypatch.undo()
        assert state.held(OTHER) == ["10.1.2.3"]

    def test_entry_that_could_not_be_written_is_not_missed_later(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state.add(OTHER, SETS)
        fail(monkeypatch, "open", errno.ENOSPC, lambda *arguments, **_: is_creating("c1:eth0", *arguments))
        assert state.add(ETH0, SETS) == ["10.1.2.3"]
        monkeypatch.undo()
        assert state.held(ETH0) == ["10.1.2.3"]

    def test_directory_whose_mtime_cannot_be_set_only_costs_time(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fail(monkeypatch, "utime", errno.EPERM)
        state.add(ETH0, SETS)
        assert state.held(ETH0) == ["10.1.2.2"]
        state.delete(ETH0)
        assert state.reservations() == {}

    def test_address_taken_by_somebody_without_a_lock_is_an_error(
        self, state: StateDirectory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Store, "is_taken", lambda *_: False)
        state.foreign_add("10.1.2.2", b"c2\r\neth0")
        with pytest.raises(TryAgain, match=r"somebody who does not lock took 10\.1\.2\.2"):
            state.add(ETH0, SETS)
        assert state.reservations() == {"10.1.2.2": b"c2\r\neth0"}


class TestIndex:
    def test_long_container_ids_share_an_entry_and_are_told_apart(self, state: StateDirectory) -> None:
        one, two = (Attachment("x" * 230 + tail, "eth0") for tail in "ab")
        assert entry_name(one) == entry_name(two)
        state.add(one, SETS)
        state.add(two, SETS)
        assert (state.held(one), state.held(two)) == (["10.1.2.2"], ["10.1.2.3"])
        state.delete(one)
        assert state.reservations() == {"10.1.2.3": content_of(two)}

    def test_container_id_of_any_length_is_stored_whole(self, state: StateDirectory) -> None:
        owner = Attachment("x" * 100_000, "eth0")
        state.add(owner, SETS)
        state.reboot(FIRST_BOOT)
        state.foreign_delete("10.9.9.9")
        assert state.held(owner) == ["10.1.2.2"]

    def test_more_addresses_than_an_entry_holds_are_all_released(self, state: StateDirectory) -> None:
        for number in range(300):
            state.foreign_add(f"2001:db8:0:0:1111:1111:1111:{number:x}", b"c1")
        assert len(state.held(LEGACY)) == 300
        assert state.index_entries() == {"c1:": "*"}
        state.delete(ETH0)
        assert state.reservations() == {}

    @pytest.mark.parametrize("owner", [Attachment("a/b", "eth0"), Attachment("a", "b/c"), Attachment("a", "x" * 300)])
    def test_owner_that_no_request_can_name_has_no_entry(self, tmp_path: Path, owner: Attachment) -> None:
        assert entry_name(owner) is None
        fd = os.open(tmp_path, os.O_RDONLY)
        index = Index(fd)
        index.add(owner, "10.0.0.1")
        index.replace([("10.0.0.1", owner)])
        assert index.addresses(owner) == []
        assert list(tmp_path.iterdir()) == []
        os.close(fd)

    def test_left_over_temporary_file_is_not_written_through(self, state: StateDirectory) -> None:
        # As after a SIGKILL between link() and unlink(): two names of one file.
        state.add(ETH0, SETS)
        os.link(state.network_path / "10.1.2.2", state.index_path / "new")
        state.add(OTHER, SETS)
        assert state.reservations() == {"10.1.2.2": b"c1\r\neth0", "10.1.2.3": b"c2\r\neth0"}

    @pytest.mark.parametrize("written", [1, 20, 36, 37, 45, 50])
    def test_half_a_seal_fits_nothing(self, state: StateDirectory, written: int) -> None:
        """As after a SIGKILL in the middle of the last write, which follows setting the mtime."""
        state.add(ETH0, SETS)
        state.reboot()
        before = (state.index_path / "seal").read_text()
        state.add(OTHER, SETS)
        after = (state.index_path / "seal").read_text()
        assert len(before) == len(after) == 78
        (state.index_path / "seal").write_text(after[:written] + before[written:])
        (state.index_path / "c2:eth0").unlink()
        assert state.held(OTHER) == ["10.1.2.3"]

    def test_seal_that_is_no_seal_is_replaced(self, state: StateDirectory) -> None:
        state.add(ETH0, SETS)
        (state.index_path / "seal").unlink()
        (state.index_path / "seal").write_text("nonsense")
        assert state.held(ETH0) == ["10.1.2.2"]
        assert len((state.index_path / "seal").read_text().split()) == 3


class TestCrash:
    """SIGKILL instead of each system call that changes something, in turn."""

    CALLS = ("mkdir", "open", "write", "pwrite", "link", "unlink", "rename", "utime")

    def test_add_killed_anywhere_leaves_what_delete_frees(self, tmp_path: Path) -> None:
        steps = self.run_all(tmp_path, lambda state: state.add(ETH0, range_sets("10.1.2.0/29", "2001:db8::/64")))
        assert steps > 20

    def test_very_first_add_killed_anywhere_leaves_what_delete_frees(self, tmp_path: Path) -> None:
        for step in range(200):
            (tmp_path / str(step)).mkdir()
            state = StateDirectory(tmp_path / str(step))
            child = fork(lambda state=state, step=step: self.killed_at(step, lambda own: own.add(ETH0, SETS), state))
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            assert set(state.reservations().values()) <= {content_of(ETH0)}
            assert state.delete(ETH0) == []
            assert state.reservations() == {}
            state.close()
            if not killed:
                break
        assert 20 < step < 199

    def test_delete_killed_anywhere_can_be_repeated(self, tmp_path: Path) -> None:
        def prepare(state: StateDirectory) -> None:
            state.add(ETH0, range_sets("10.1.2.0/29", "2001:db8::/64"))

        assert self.run_all(tmp_path, lambda state: state.delete(ETH0), prepare) > 10

    def test_rebuild_killed_anywhere_is_done_again(self, tmp_path: Path) -> None:
        def prepare(state: StateDirectory) -> None:
            state.add(ETH0, SETS, requested("10.1.2.2"))
            state.foreign_add("10.1.2.5", b"c1\r\neth0")
            state.foreign_add("10.1.2.6", b"")

        assert self.run_all(tmp_path, lambda state: state.held(ETH0), prepare) > 5

    def run_all(
        self,
        tmp_path: Path,
        work: Callable[[StateDirectory], Any],
        prepare: Callable[[StateDirectory], Any] = lambda _: None,
    ) -> int:
        for step in range(200):
            path = tmp_path / str(step)
            path.mkdir()
            state = StateDirectory(path)
            state.add(OTHER, SETS, requested("10.1.2.6"))
            state.delete(OTHER)
            state.add(OTHER, SETS, requested("10.1.2.4"))
            prepare(state)
            child = fork(lambda state=state, step=step: self.killed_at(step, work, state))
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            self.assert_sound(state)
            state.close()
            if not killed:
                return step
        raise AssertionError("never ends")

    def killed_at(self, step: int, work: Callable[[StateDirectory], Any], state: StateDirectory) -> None:
        remaining = step

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                nonlocal remaining
                if remaining == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining -= 1
                return call(*args, **kwargs)

            return wrapper

        for name in self.CALLS:
            setattr(os, name, counted(getattr(os, name)))
        work(state)

    def assert_sound(self, state: StateDirectory) -> None:
        foreign = {"10.1.2.5", "10.1.2.6"}
        for address, content in state.reservations().items():
            expected = OTHER if address == "10.1.2.4" else ETH0
            assert content == content_of(expected) or address in foreign
        assert state.delete(ETH0) == []
        assert state.reservations() == {"10.1.2.4": content_of(OTHER)}
        assert state.index_entries() == {"c2:eth0": "10.1.2.4"}
        assert state.held(OTHER) == ["10.1.2.4"]


def test_sixteen_processes_at_once_get_distinct_addresses_and_none_is_lost(state: StateDirectory) -> None:
    sets = range_sets("10.1.0.0/22")

    def work(worker: int) -> None:
        for number in range(20):
            owner = Attachment(f"w{worker}-{number}", "eth0")
            state.add(owner, sets)
            if number % 2:
                state.delete(owner)

    children = [fork(lambda worker=worker: work(worker)) for worker in range(16)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 16
    expected = {Attachment(f"w{worker}-{number}", "eth0") for worker in range(16) for number in range(0, 20, 2)}
    assert sorted(state.reservations().values()) == sorted(map(content_of, expected))
    assert all(state.held(owner) for owner in expected)


def test_no_reader_ever_sees_an_empty_reservation(state: StateDirectory) -> None:
    """Writers are killed at random moments while this process looks without the lock."""
    sets = range_sets("10.1.0.0/22")

    def work(seed: int) -> None:
        for number in range(10_000):
            state.add(Attachment(f"w{seed}-{number}", "eth0"), sets)
            state.delete(Attachment(f"w{seed}-{number}", "eth0"))

    looks = 0
    for seed in range(30):
        child = fork(lambda seed=seed: work(seed))
        deadline = time.monotonic() + 0.005 + seed * 0.001
        while time.monotonic() < deadline:
            for name in os.listdir(state.path):
                looks += look_for_empty(state.path / name) if name == NETWORK else 0
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert looks > 0
    with state.open() as store:
        assert store.collect(frozenset()) == []
    assert state.reservations() == {}


def test_fifty_thousand_reservations_cost_what_ten_do(tmp_path: Path) -> None:
    """Rounds with few and with many alternate, so that a busy machine slows down both."""
    few, many = (state_with_reservations(tmp_path / str(count), count) for count in (10, 50_000))
    assert many.held(Attachment("other49999", "eth0")) == ["10.1.195.79"]
    durations: dict[StateDirectory, list[float]] = {few: [], many: []}
    for number in range(201):
        for state in (few, many):
            begin = time.perf_counter()
            one_round(state, Attachment(f"timed{number}", "eth0"))
            durations[state].append(time.perf_counter() - begin)
    calls = {}
    for state in (few, many):
        with counted_audit_events() as events:
            one_round(state, ETH0)
            calls[state] = Counter(events)
        state.close()
    assert calls[few] == calls[many]
    assert sorted(durations[many])[100] <= 1.5 * sorted(durations[few])[100]


def one_round(state: StateDirectory, owner: Attachment) -> None:
    assert state.add(owner, range_sets("10.0.0.0/15")) != []
    assert state.held(owner) != []
    assert state.delete(owner) == []


def state_with_reservations(path: Path, count: int) -> StateDirectory:
    """A directory in which somebody else reserved `count` addresses from 10.1.0.0 on; its index has been written."""
    path.mkdir()
    state = StateDirectory(path)
    base = int(ipaddress.ip_address("10.1.0.0"))
    with state.foreign_lock():
        for number in range(count):
            name = str(ipaddress.ip_address(base + number))
            fd = os.open(state.network_path / name, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, b"other%d\r\neth0" % number)
            os.close(fd)
    assert state.held(ETH0) == []
    return state


class counted_audit_events:  # noqa: N801 - reads as a function
    """What this process asks the file system for; an audit hook cannot be taken back, so it is only switched off."""

    is_installed = False
    current: list[str] | None = None

    def __enter__(self) -> list[str]:
        if not counted_audit_events.is_installed:
            sys.addaudithook(self.hook)
            counted_audit_events.is_installed = True
        counted_audit_events.current = []
        return counted_audit_events.current

    def __exit__(self, *_: object) -> None:
        counted_audit_events.current = None

    @staticmethod
    def hook(event: str, _: tuple[object, ...]) -> None:
        if counted_audit_events.current is not None and (event == "open" or event.startswith("os.")):
            counted_audit_events.current.append(event)


def look_for_empty(directory: Path) -> int:
    looks = 0
    for name in os.listdir(directory):
        if name.startswith("10."):
            try:
                content = (directory / name).read_bytes()
            except FileNotFoundError:
                continue
            assert content.startswith(b"w"), name
            assert content.endswith(b"\r\neth0"), name
            looks += 1
    return looks


def is_creating(wanted: str, *arguments: Any) -> bool:
    """Whether the arguments of open(), link() or rename() make a file of that name."""
    return wanted in arguments and (arguments[0] != wanted or bool(arguments[1] & os.O_CREAT))


def fork(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def wait_for_lock(child: int) -> None:
    """Wait until a process sleeps in flock()."""
    deadline = time.monotonic() + 5
    while "lock" not in Path(f"/proc/{child}/wchan").read_text():
        assert time.monotonic() < deadline


def fail(
    monkeypatch: pytest.MonkeyPatch, call: str, number: int, when: Callable[..., bool] = lambda *_, **__: True
) -> None:
    """Let a function of `os` fail with an errno."""
    original = getattr(os, call)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            raise OSError(number, os.strerror(number))
        return original(*args, **kwargs)

    monkeypatch.setattr(os, call, failing)

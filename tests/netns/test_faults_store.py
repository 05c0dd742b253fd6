"""host-local killed at every step: its store stays one that it, the reference plugin and a person can use.

world: no links at all, only /var/lib/cni/networks/faulty with the reservations of three attachments
"""

import fcntl
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.netns import faults
from tests.netns.faults import ENGINE, IPAM, NETWORK
from tests.world import World

pytestmark = pytest.mark.timeout(240)

NETCONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": NETWORK, "type": "host-local", "ipam": IPAM}
OTHERS = ("other1", "other2")
STEPS = ["openat", "write", "unlinkat", "utimensat", "flock", "close"]


def reservations(world: World) -> dict[str, str]:
    """Who holds which address, from the files; an empty file is a finding."""
    directory = world.outside_path(f"/var/lib/cni/networks/{NETWORK}")
    files = [path for path in directory.iterdir() if path.name != "lock" and not path.name.startswith("last_reserved")]
    found = {path.name: path.read_bytes() for path in files}
    assert all(found.values()), f"an empty reservation: {found}"
    return {address: text.split(b"\r\n")[0].decode() for address, text in found.items()}


def is_locked(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def addresses(stdout: bytes) -> set[str]:
    return {ip["address"].partition("/")[0] for ip in json.loads(stdout)["ips"]}


@pytest.mark.parametrize(("syscall", "verb"), [("linkat", "ADD"), ("pwrite64", "ADD"), *product(STEPS, ("ADD", "DEL"))])
def test_a_killed_call_leaves_a_store_that_everybody_can_use(
    world: World, plugin_dir: str, syscall: str, verb: str
) -> None:
    world.netns("blue")
    held: dict[str, str] = {}
    for other in OTHERS:
        added = faults.call(world, plugin_dir, "ADD", NETCONF, container_id=other)
        held |= dict.fromkeys(addresses(added.stdout), other)
    lock = world.outside_path(f"/var/lib/cni/networks/{NETWORK}/lock")
    hits = 0
    for fault in faults.faults(ENGINE, syscall, "signal=KILL", stride=3 if syscall in ("openat", "close") else 1):
        if verb == "DEL":
            faults.call(world, plugin_dir, "ADD", NETCONF)
        outcome = faults.call_with(world, plugin_dir, verb, fault, NETCONF)
        owners = reservations(world)
        assert set(owners.values()) <= {*OTHERS, faults.CONTAINER_ID}, str(fault)
        assert not is_locked(lock), str(fault)
        faults.call(world, plugin_dir, "DEL", NETCONF)
        assert reservations(world) == held, str(fault)
        if not outcome.was_hit:
            break
        hits += 1
    assert hits > 0, "the call was never made: the test tests nothing"
    last = addresses(faults.call(world, plugin_dir, "ADD", NETCONF).stdout)
    assert not last & set(held), "an address was given away twice"

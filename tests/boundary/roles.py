"""One worker, made as the entry makes it, in a world, under a filter that a test has planted."""

import os

from cnisandbox import _native
from cnisandbox.boundary import namespaces
from cnisandbox.boundary.attestation import Attestation
from cnisandbox.boundary.confinement import Confinement
from cnisandbox.boundary.delegate import delegate_worker
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import NETLINK_NETFILTER, NETLINK_ROUTE, network_worker, service_user, spawn
from cnisandbox.boundary.state import open_state_dirs
from tests.boundary.planted import Filter
from tests.world import CLONE_NEWNS, World

_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MS_PRIVATE = 1 << 18

ROLES = ("host worker", "container worker", "delegate worker")


def attest(world: World, role: str, level: Level, *planted: Filter) -> Attestation:
    """Make a worker in a world that has a netns "blue", and return what its parent accepts as its attestation.

    Raises:
        CniError: What the parent refuses it with.
    """
    result: Attestation = world.call(_attest, role, level, planted)
    return result


def _attest(role: str, level: Level, planted: tuple[Filter, ...]) -> Attestation:
    # A weakness may be that the worker stays in our mount namespace; so that is one that nobody else needs.
    assert _native.lib.native_unshare(CLONE_NEWNS) == 0
    assert _native.lib.native_mount_setattr(_AT_FDCWD, b"/", _AT_RECURSIVE, 0, 0, _MS_PRIVATE, 0) == 0
    os.setgroups([4, 24])
    os.dup2(os.open("/", os.O_RDONLY), 40)  # a descriptor that it must not keep
    for weakness in planted:
        weakness.load()
    own_namespaces = namespaces.inodes()
    pid_namespaces = namespaces.NewPidNamespaces()
    wanted, netns = _describe(role, level)
    worker = spawn(wanted, own_namespaces, None, netns.inode if netns else None, pid_namespaces)
    try:
        return worker.attest()
    finally:
        worker.close()


def _describe(role: str, level: Level) -> tuple[Confinement, namespaces.Netns | None]:
    user = service_user()
    if role == "delegate worker":
        return delegate_worker(level, user, open_state_dirs(*user), ("/usr/lib/cni",)), None
    netns = namespaces.open_netns("/run/netns/blue") if role == "container worker" else None
    return network_worker(role, level, user, netns, (NETLINK_ROUTE, NETLINK_NETFILTER)), netns

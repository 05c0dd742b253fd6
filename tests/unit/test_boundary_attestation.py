"""The comparison of an attestation with what a level asks for: every single fact counts."""

import itertools
from typing import Any

import pytest

from cnisandbox.boundary.attestation import Attestation, Expectation, verify
from cnisandbox.boundary.credentials import LOCKED_SECUREBITS
from cnisandbox.boundary.levels import PROTECTIONS, Level
from cnisandbox.errors import IsolationUnavailable, PrivilegeNotDropped

OWN = {"cgroup": 1, "ipc": 2, "mnt": 3, "net": 4, "pid": 5, "user": 6, "uts": 7}
NET_ADMIN = 1 << 12

EXPECTED = Expectation(
    role="container worker",
    level=Level.HARDENED,
    uid=999,
    gid=998,
    capabilities=NET_ADMIN,
    has_own_pid_namespace=True,
    own_namespaces=OWN,
    netns_inode=40,
    parent_pid=100,
    descriptors=(0, 1, 2),
    dies_with_parent=True,
    limits={"as": 1 << 30, "core": 0, "cpu": 60, "fsize": 0, "nofile": 64, "nproc": 0},
    mounts=["/", "/proc/sys/net"],
)

GOOD = Attestation(
    role="container worker",
    level="hardened",
    pid=101,
    ppid=100,
    uids=[999] * 4,
    gids=[998] * 4,
    groups=[],
    inheritable=0,
    permitted=NET_ADMIN,
    effective=NET_ADMIN,
    bounding=0,
    ambient=0,
    securebits=LOCKED_SECUREBITS,
    no_new_privs=True,
    is_dumpable=False,
    seccomp=2,
    parent_death_signal=9,
    landlock_abi=7,
    is_view_confined=True,
    namespaces={"cgroup": 10, "ipc": 20, "mnt": 30, "net": 40, "pid": 50, "user": 6, "uts": 70},
    descriptors=[0, 1, 2],
    limits={"as": 1 << 30, "core": 0, "cpu": 60, "fsize": 0, "nofile": 64, "nproc": 0},
    added_filters=1,
    mounts=["/", "/proc/sys/net"],
    is_root_read_only=True,
)

# One change each; every one has to be refused at level hardened.
BAD: dict[str, dict[str, Any]] = {
    "role": {"role": "host worker"},
    "level": {"level": "netadmin"},
    "parent": {"ppid": 1},
    "real uid": {"uids": [0, 999, 999, 999]},
    "effective uid": {"uids": [999, 0, 999, 999]},
    "saved uid": {"uids": [999, 999, 0, 999]},
    "file-system uid": {"uids": [999, 999, 999, 0]},
    "another uid": {"uids": [1000] * 4},
    "saved gid": {"gids": [998, 998, 0, 998]},
    "a group": {"groups": [0]},
    "inheritable": {"inheritable": NET_ADMIN},
    "permitted": {"permitted": NET_ADMIN | 1},
    "permitted lacks": {"permitted": 0},
    "effective": {"effective": NET_ADMIN | 1 << 21},
    "bounding": {"bounding": 1 << 40},
    "ambient": {"ambient": NET_ADMIN},
    "securebits": {"securebits": LOCKED_SECUREBITS & ~2},
    "no_new_privs": {"no_new_privs": False},
    "dumpable": {"is_dumpable": True},
    "seccomp": {"seccomp": 0},
    "strict seccomp": {"seccomp": 1},
    "parent-death signal": {"parent_death_signal": 0},
    "another signal": {"parent_death_signal": 15},
    "view": {"is_view_confined": False},
    "netns": {"namespaces": {**GOOD.namespaces, "net": 4}},
    **{f"{name} namespace": {"namespaces": {**GOOD.namespaces, name: OWN[name]}} for name in OWN if name != "user"},
    **{
        f"no word of {name} namespace": {
            "namespaces": {key: GOOD.namespaces[key] for key in GOOD.namespaces if key != name}
        }
        for name in OWN
        if name != "user"
    },
    "descriptor more": {"descriptors": [0, 1, 2, 3]},
    "descriptor less": {"descriptors": [0, 1]},
    **{f"{name} limit": {"limits": {**GOOD.limits, name: -1}} for name in GOOD.limits},
    "another's filter": {"added_filters": 0},
    "old root in view": {"mounts": ["/", "/", "/proc/sys/net"]},
    "all of /proc in view": {"mounts": ["/", "/proc"]},
    "writable root": {"is_root_read_only": False},
}


def test_what_is_as_it_should_be_passes() -> None:
    assert verify(GOOD, EXPECTED, allows_degraded=False) == ()


@pytest.mark.parametrize("allows_degraded", [False, True])
@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_each_difference_is_refused(changes: dict[str, Any], allows_degraded: bool) -> None:
    with pytest.raises(PrivilegeNotDropped) as raised:
        verify(GOOD._replace(**changes), EXPECTED, allows_degraded=allows_degraded)
    assert raised.value.msg.startswith("attest container worker: ")


def test_every_difference_is_named() -> None:
    with pytest.raises(PrivilegeNotDropped) as raised:
        verify(GOOD._replace(uids=[0] * 4, seccomp=0), EXPECTED, allows_degraded=False)
    assert "uids is [0, 0, 0, 0] and must be [999, 999, 999, 999]" in raised.value.msg
    assert "seccomp is 0 and must be 2" in raised.value.msg


def test_a_missing_facility_is_refused_unless_it_may_be_missing() -> None:
    said = GOOD._replace(landlock_abi=0, is_view_confined=False)
    with pytest.raises(IsolationUnavailable, match="the kernel lacks landlock"):
        verify(said, EXPECTED, allows_degraded=False)
    assert verify(said, EXPECTED, allows_degraded=True) == ("landlock",)


@pytest.mark.parametrize(
    "changes",
    [
        {"uids": [0] * 4},
        {"uids": [1000000, 1000000, 0, 1000000]},
        {"gids": [0] * 4},
        {"namespaces": {**GOOD.namespaces, "user": OWN["user"]}},
        {"namespaces": {name: inode for name, inode in GOOD.namespaces.items() if name != "user"}},
        {"permitted": 0},
    ],
)
def test_in_a_foreign_user_namespace_any_id_will_do_but_roots(changes: dict[str, Any]) -> None:
    expected = EXPECTED._replace(uid=None, gid=None)
    good = GOOD._replace(uids=[1065535] * 4, gids=[1065535] * 4, namespaces={**GOOD.namespaces, "user": 60})
    assert verify(good, expected, allows_degraded=False) == ()
    with pytest.raises(PrivilegeNotDropped):
        verify(good._replace(**changes), expected, allows_degraded=False)


def test_each_level_contains_all_of_the_one_before_it() -> None:
    levels = [PROTECTIONS[level] for level in Level]
    for weaker, stronger in itertools.pairwise(levels):
        assert all(has_more or not has for has, has_more in zip(weaker, stronger, strict=True))
    assert all(PROTECTIONS[Level.HARDENED])
    assert not any(PROTECTIONS[Level.ROOT])

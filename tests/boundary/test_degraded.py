"""A kernel that lacks a facility: an error that names it, unless the netconf accepts the loss; no other way down."""

import errno
from typing import Any

import pytest

from cnisandbox import IsolationUnavailable, Level
from tests.boundary.observe import document, error_of, run, variables
from tests.boundary.planted import Filter
from tests.boundary.roles import ROLES, attest
from tests.world import Completed, World

# What a kernel without Landlock says, and one on which it is switched off at boot.
NO_LANDLOCK = {
    "not built in": Filter("landlock_create_ruleset", errno.ENOSYS),
    "switched off": Filter("landlock_create_ruleset", errno.EOPNOTSUPP),
}
DEGRADED = {"sandbox": {"allowDegraded": True}}


def add_loopback(
    world: World, plugin_dir: str, more: dict[str, object], planted: Filter | None = None, **env: str
) -> Completed:
    return run(
        world,
        [f"{plugin_dir}/loopback"],
        variables(plugin_dir, "ADD", CNI_IFNAME="lo", **env),
        document("loopback", **more),
        planted=planted,
    )


def is_up(world: World) -> bool:
    return "UP" in world.link("lo", "blue")["flags"]


@pytest.fixture
def blue(world: World) -> World:
    world.netns("blue")
    return world


@pytest.mark.parametrize("planted", NO_LANDLOCK.values(), ids=NO_LANDLOCK)
def test_a_missing_facility_is_an_error_that_names_it(blue: World, plugin_dir: str, planted: Filter) -> None:
    error = error_of(add_loopback(blue, plugin_dir, {}, planted))
    assert error["code"] == 103
    assert error["msg"] == "confine engine: the kernel lacks landlock"
    assert "allowDegraded" in error["details"]
    assert not is_up(blue)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_misses_it(shared_world: World, role: str) -> None:
    with pytest.raises(IsolationUnavailable, match=f"confine {role}: the kernel lacks landlock"):
        attest(shared_world, role, Level.HARDENED, NO_LANDLOCK["not built in"])


@pytest.mark.parametrize("planted", NO_LANDLOCK.values(), ids=NO_LANDLOCK)
def test_a_loss_that_the_netconf_accepts_is_said_once(blue: World, plugin_dir: str, planted: Filter) -> None:
    done = add_loopback(blue, plugin_dir, DEGRADED, planted)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        b"cnisandbox: the kernel lacks landlock; going on without it, because sandbox.allowDegraded says so"
    ]
    assert is_up(blue)


def test_accepting_losses_says_nothing_where_nothing_is_lost(blue: World, plugin_dir: str) -> None:
    done = add_loopback(blue, plugin_dir, DEGRADED)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("name", ["setresuid", "capset", "landlock_restrict_self"])
def test_accepting_losses_excuses_no_failure(blue: World, plugin_dir: str, name: str) -> None:
    assert error_of(add_loopback(blue, plugin_dir, DEGRADED, Filter(name)))["code"] == 102
    assert error_of(add_loopback(blue, plugin_dir, DEGRADED, Filter(name, errno.EPERM)))["code"] == 102
    assert not is_up(blue)


@pytest.mark.parametrize(
    ("sandbox", "code", "begins"),
    [
        ({"level": "netadmin"}, 7, "sandbox.level: 'netadmin'"),
        ({"level": "root"}, 7, "sandbox.level: 'root'"),
        ({"level": "Hardened"}, 7, "sandbox.level: 'Hardened'"),
        ({"level": 3}, 7, "sandbox.level: "),
        ({"allowDegraded": "yes"}, 7, "sandbox.allowDegraded: "),
        ("hardened", 7, "sandbox"),
    ],
)
def test_a_netconf_cannot_choose_a_weaker_level(
    blue: World, plugin_dir: str, sandbox: Any, code: int, begins: str
) -> None:
    error = error_of(add_loopback(blue, plugin_dir, {"sandbox": sandbox}))
    assert error["code"] == code
    assert error["msg"].startswith(begins)
    assert not is_up(blue)


def test_a_netconf_may_ask_for_more_than_the_call_has(blue: World, plugin_dir: str) -> None:
    done = add_loopback(blue, plugin_dir, {"sandbox": {"level": "mediated"}})
    assert (done.returncode, done.stderr) == (0, b"")
    assert is_up(blue)


@pytest.mark.parametrize("level", ["root", "netadmin"])
def test_a_netconf_cannot_ask_for_mediated_where_the_call_measures(blue: World, plugin_dir: str, level: str) -> None:
    done = add_loopback(blue, plugin_dir, {"sandbox": {"level": "mediated"}}, CNISANDBOX_LEVEL=level)
    assert error_of(done)["code"] == 7


@pytest.mark.parametrize("level", ["root", "netadmin", "hardened", "mediated"])
def test_a_netconf_may_insist_on_the_level_of_the_call(blue: World, plugin_dir: str, level: str) -> None:
    done = add_loopback(blue, plugin_dir, {"sandbox": {"level": level}}, CNISANDBOX_LEVEL=level)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_netconf_that_insists_on_hardened_is_not_served_by_less(blue: World, plugin_dir: str) -> None:
    done = add_loopback(blue, plugin_dir, {"sandbox": {"level": "hardened"}}, CNISANDBOX_LEVEL="netadmin")
    assert error_of(done)["code"] == 7


def test_an_unknown_level_of_the_call_is_refused(blue: World, plugin_dir: str) -> None:
    error = error_of(add_loopback(blue, plugin_dir, {}, CNISANDBOX_LEVEL="none"))
    assert (error["code"], error["msg"]) == (
        4,
        "CNISANDBOX_LEVEL: 'none' is not one of root, netadmin, hardened, mediated",
    )

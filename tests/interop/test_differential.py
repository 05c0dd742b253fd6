"""The same netconf and the same sequence of calls against the reference plugins and ours.

Each run has a world of its own. What it answers, what is in the kernel and what is on disk are recorded after ADD and
after DEL; the two records are equal but for the deviations that are listed here, with their reasons.
"""

import json
import re
from typing import Any, NamedTuple

import pytest

from tests.interop.differential_cases import CASES, Case
from tests.interop.observe import differences, observe
from tests.interop.plugin_calls import REFERENCE_DIR, JsonObject, Plugins, with_prev_result
from tests.world import World, new_world

Differences = dict[str, tuple[Any, Any]]


class Deviation(NamedTuple):
    """A difference that is meant.

    Attributes:
        path: Regular expression of the whole path.
        reference: Regular expression of the reference's value, as Python shows it.
        ours: The same of ours.
        reason: Why.
    """

    path: str
    reference: str
    ours: str
    reason: str

    def explains(self, path: str, values: tuple[Any, Any]) -> bool:
        patterns = (self.path, self.reference, self.ours)
        return all(
            re.fullmatch(pattern, text) for pattern, text in zip(patterns, (path, *map(repr, values)), strict=True)
        )


ANY = r"(?s:.*)"
AFTER = r"(?:before|after ADD|after DEL)"
LINKS = rf"{AFTER}\|(?:host|container)\|links"
SYSCTLS = rf"{AFTER}\|container\|sysctl"

# May show in any case.
GENERAL = [
    Deviation(rf"{LINKS}\|[^|]+\|alias", "''", "'cnisandbox .*'", "DEL and GC find links by it, without a netns"),
    Deviation(rf"{LINKS}\|[^|]+\|txqlen", "0", "1000", "the kernel's default; the reference sets 0 by accident"),
    Deviation(rf"{AFTER}\|(?:host|container)\|addresses\|[^|]+\|\d+\|is_nodad", "False", "True", "usable at once"),
    Deviation(
        rf"{AFTER}\|host\|addresses\|lab0\|\d+\|is_tentative", "True", "False", "the bridge's address is usable at once"
    ),
    Deviation(rf"{SYSCTLS}\|ipv6/conf/eth0/ndisc_notify", "'0'", "'1'", "neighbours learn at once who has the address"),
    Deviation(rf"{SYSCTLS}\|ipv6/conf/eth0/keep_addr_on_down", "'0'", "'1'", "as newer versions of the reference do"),
    Deviation(rf"{AFTER}\|store\|.*\|mode", "'-rw-r--r--'", "'-rw-------'", "as newer versions of the reference do"),
    Deviation(rf"{AFTER}\|store\|/var/lib/cni/networks\|(?:mode|owner)", "None", ANY, "our locks are there"),
]
# Must show in the cases that name them, and in no others.
NAMED = {
    "mac-of-bridge": [
        Deviation(
            r".*\|(?:mac|address)",
            "'mac of lab0'|'00:00:00:00:00:00'",
            r"'mac of PORT\d*'|'mac of lab0'",
            "the address of the bridge is fixed; the reference's is that of a port unless the bridge is a gateway",
        ),
    ],
    "check-of-layer2": [
        Deviation(r"CHECK\|status", "1", "0", "the reference asks an address plugin that there is not"),
    ],
    "check-of-host-prefix": [
        Deviation(r"CHECK\|status", "1", "0", "the reference looks for a connected route that a /32 does not have"),
    ],
    "check-of-routes-without-gw": [
        Deviation(r"CHECK\|status", "1", "0", "the reference forgets that it gave the route the gateway"),
    ],
    "default-route-twice": [
        Deviation(
            r".*\|routes\|0\|gw",
            "'10.9.0.1'",
            "None",
            "the reference adds a second default route and fails (EEXIST); the route of the address plugin is enough",
        ),
    ],
    "dns-of-address-plugin": [
        Deviation(r"ADD\|result\|dns\|.*", "None", ANY, "kept unless the netconf has dns, as newer versions do"),
    ],
    "delete-is-lenient": [
        Deviation(r"DEL\|status", "1", "0", "what ADD has refused must not keep a runtime from clearing up"),
    ],
}

# Of an ADD that failed: the directory and where to go on, as with the reference; and the host goes on forwarding.
MAY_REMAIN = (
    r"store\|/var/lib/cni/networks(?:/lab(?:/lock|/last_reserved_ip\.\d)?)?\|.*"
    r"|host\|sysctl\|ipv4/(?:ip_forward|conf/[^/]+/(?:forwarding|accept_redirects))"
    r"|host\|sysctl\|ipv6/conf/(?:[^/]+/forwarding|lab0/accept_ra)"
)


def record(world: World, plugins: Plugins, case: Case, netconf: JsonObject) -> dict[str, Any]:
    """Run the sequence and describe everything after each step."""
    _prepare(world, plugins, case, netconf)
    fixed = json.dumps(netconf) + case.args + case.setup
    said: dict[str, Any] = {"before": observe(world, "blue").state}
    added = plugins.call("ADD", netconf, plugin="bridge", args=case.args, expect=None)
    said["ADD"] = {"status": added.returncode, "stderr": added.stderr}
    seen = observe(world, "blue", fixed=fixed)
    said["after ADD"] = seen.state
    if added.returncode == 0:
        said["ADD"]["result"] = seen.translated(added.document)
        if _can_check(netconf):
            netconf = with_prev_result(netconf, added.document)
            checked = plugins.call("CHECK", netconf, plugin="bridge", args=case.args, expect=None)
            said["CHECK"] = {"status": checked.returncode, "stderr": checked.stderr}
    deleted = plugins.call("DEL", netconf, plugin="bridge", args=case.args, expect=None)
    said["DEL"] = {"status": deleted.returncode, "stderr": deleted.stderr}
    said["after DEL"] = observe(world, "blue", fixed=fixed).state
    return said


def _prepare(world: World, plugins: Plugins, case: Case, netconf: JsonObject) -> None:
    for path, content in case.files.items():
        outside = world.outside_path(path)
        outside.parent.mkdir(parents=True, exist_ok=True)
        outside.write_bytes(content)
    world.netns("blue")
    world.netns("red")
    if case.setup:
        world.run(["sh", "-ec", case.setup])
    if case.containers == 2:
        plugins.call("ADD", netconf, plugin="bridge", container_id="c0", netns="red")


def _can_check(netconf: JsonObject) -> bool:
    """Tell whether the version has CHECK."""
    return {key.lower(): value for key, value in netconf.items()}.get("cniversion") in {"0.4.0", "1.0.0"}


def reference_record(case: Case) -> dict[str, Any]:
    with new_world() as world:
        return record(world, Plugins(world, REFERENCE_DIR), case, case.reference_netconf or case.netconf)


def our_record(plugin_dir: str, case: Case) -> dict[str, Any]:
    with new_world() as world:
        # the reference's directory comes after ours, for static
        plugins = Plugins(world, plugin_dir, path=f"{plugin_dir}:{REFERENCE_DIR}")
        return record(world, plugins, case, case.netconf)


@pytest.mark.parametrize("name", ["layer2", "default-gateway-dual", "masquerade-dual", "range-next-one"])
def test_reference_does_the_same_every_time(name: str) -> None:
    assert differences(reference_record(CASES[name]), reference_record(CASES[name])) == {}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.adds])
def test_ours_does_what_the_reference_does(plugin_dir: str, name: str) -> None:
    case = CASES[name]
    reference = reference_record(case)
    assert (reference["ADD"], reference["DEL"]["status"]) == (reference["ADD"] | {"status": 0, "stderr": ""}, 0)
    ours = our_record(plugin_dir, case)
    assert [ours[verb] for verb in ("CHECK", "DEL") if verb in ours and ours[verb] != {"status": 0, "stderr": ""}] == []
    found = differences(reference, ours)
    assert unexplained(found, case) == {}
    assert [name for name in case.deviations if not any(_shows(name, *item) for item in found.items())] == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.adds])
def test_ours_refuses_what_the_reference_refuses_and_leaves_nothing(plugin_dir: str, name: str) -> None:
    case = CASES[name]
    reference = reference_record(case)
    ours = our_record(plugin_dir, case)
    assert (reference["ADD"]["status"], ours["ADD"]["status"]) == (1, 1)
    statuses = ({"DEL": {"status": said["DEL"]["status"]}} for said in (reference, ours))
    assert unexplained(differences(*statuses), case) == {}
    changed_by_add = differences(ours["before"], ours["after ADD"])
    assert [path for path in changed_by_add if not re.fullmatch(MAY_REMAIN, path)] == []


def _shows(name: str, path: str, values: tuple[Any, Any]) -> bool:
    return any(deviation.explains(path, values) for deviation in NAMED[name])


def unexplained(found: Differences, case: Case) -> Differences:
    meant = GENERAL + [deviation for name in case.deviations for deviation in NAMED[name]]
    return {
        path: values
        for path, values in found.items()
        if not any(deviation.explains(path, values) for deviation in meant)
    }

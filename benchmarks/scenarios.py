"""What is measured: the calls, and how each is put back so that the next round begins where this one did."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from measuring import Ended, Launcher, Sample

FEW_RESERVATIONS = 10
MANY_RESERVATIONS = 50_000
_NETWORKS = "/var/lib/cni/networks"


class Subject(NamedTuple):
    """Whose plugins are measured.

    Attributes:
        name: "reference" or "cnisandbox"; also the name of its pod's netns.
        bin_dir: Where its plugins are.
        octet: Second octet of its subnets, so that the two never meet.
    """

    name: str
    bin_dir: str
    octet: int


class CallFailed(Exception):
    """A measured call did not end well, so its time means nothing."""


class Bench:
    """The calls of one subject.

    Args:
        subject: Whose plugins.
        launcher: What runs them.
    """

    def __init__(self, subject: Subject, launcher: Launcher) -> None:
        self.subject = subject
        self._launcher = launcher

    def call(self, verb: str, netconf: dict[str, object], container: str = "pod", ifname: str = "eth0") -> Ended:
        """Run one call of the plugin that the netconf names; it has to succeed."""
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"{container}-{self.subject.name}",
            "CNI_NETNS": f"/run/netns/{self.subject.name}",
            "CNI_IFNAME": ifname,
            "CNI_PATH": self.subject.bin_dir,
        }
        program = os.path.join(self.subject.bin_dir, str(netconf["type"]))
        ended = self._launcher.run([program], environment, json.dumps(netconf).encode())
        if ended.status != 0:
            raise CallFailed(f"{verb} of {program}: status {ended.status}: {ended.stdout.decode(errors='replace')}")
        return ended

    def bridge(self, *, is_masqueraded: bool) -> dict[str, object]:
        """The netconf of a bridge; IPv4 only, because the reference waits seconds for IPv6 addresses."""
        kind = "masq" if is_masqueraded else "plain"
        return {
            "cniVersion": "1.0.0",
            "name": f"bench-{kind}-{self.subject.name}",
            "type": "bridge",
            "bridge": f"{kind}{self.subject.octet}",
            "isDefaultGateway": True,
            "ipMasq": is_masqueraded,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": f"10.{self.subject.octet + is_masqueraded}.0.0/16"}]],
            },
        }

    def loopback(self) -> dict[str, object]:
        """The netconf of a loopback."""
        return {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}

    def host_local(self, reservations: int) -> dict[str, object]:
        """The netconf of a host-local by itself."""
        subnet = f"10.{self.subject.octet + 2}.0.0/15" if reservations == FEW_RESERVATIONS else "172.16.0.0/15"
        return {
            "cniVersion": "1.0.0",
            "name": f"bench-{reservations}-{self.subject.name}",
            "type": "host-local",
            "ipam": {"type": "host-local", "ranges": [[{"subnet": subnet}]]},
        }

    def reserve(self, reservations: int) -> None:
        """Make reservations as the reference plugin writes them, without calling a plugin so often."""
        netconf = self.host_local(reservations)
        directory = os.path.join(_NETWORKS, str(netconf["name"]))
        os.makedirs(directory)
        ranges = netconf["ipam"]["ranges"]  # type: ignore[index]
        first, second = ranges[0][0]["subnet"].split(".")[:2]
        for number in range(2, reservations + 2):
            address = f"{first}.{int(second) + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            with open(os.path.join(directory, address), "w", encoding="ascii", newline="") as file:
                file.write(f"other{number}\r\neth0")
        with open(os.path.join(directory, "last_reserved_ip.0"), "w", encoding="ascii") as file:
            file.write(address)


class Step(NamedTuple):
    """One figure of a scenario: its title, and the call to be measured."""

    title: str
    run: Callable[[Bench], Ended]


class Scenario(NamedTuple):
    """Steps that are run in this order, each by both subjects before the next one; the last ones undo the first.

    Attributes:
        steps: What is done and measured.
        prepare: Done once for each subject, not measured.
        share_of_rounds: Part of the rounds that the caller asked for; for what takes long.
    """

    steps: tuple[Step, ...]
    prepare: Callable[[Bench], None] | None = None
    share_of_rounds: float = 1.0


def _bridge(title: str, *, is_masqueraded: bool) -> Scenario:
    return Scenario(
        (
            Step(f"{title} ADD", lambda bench: bench.call("ADD", bench.bridge(is_masqueraded=is_masqueraded))),
            Step(f"{title} DEL", lambda bench: bench.call("DEL", bench.bridge(is_masqueraded=is_masqueraded))),
        )
    )


def _host_local(reservations: int, share_of_rounds: float = 1.0) -> Scenario:
    words = f"host-local, {reservations:,} reservations"
    return Scenario(
        (
            Step(f"{words}: ADD", lambda bench: bench.call("ADD", bench.host_local(reservations))),
            Step(f"{words}: DEL", lambda bench: bench.call("DEL", bench.host_local(reservations))),
        ),
        lambda bench: bench.reserve(reservations),
        share_of_rounds,
    )


COLD_ADD = "bridge + host-local ADD"
SCENARIOS = (
    Scenario((Step("VERSION", lambda bench: bench.call("VERSION", bench.loopback())),)),
    Scenario(
        (
            Step("loopback ADD", lambda bench: bench.call("ADD", bench.loopback(), ifname="lo")),
            Step("loopback DEL", lambda bench: bench.call("DEL", bench.loopback(), ifname="lo")),
        )
    ),
    _bridge("bridge + host-local", is_masqueraded=False),
    _bridge("the same with ipMasq:", is_masqueraded=True),
    _host_local(FEW_RESERVATIONS),
    _host_local(MANY_RESERVATIONS, share_of_rounds=0.1),
)
# The reference plugin under the runner at mediated, against itself as root. VERSION does nothing, so its difference is
# the time that starting the confinement takes.
RUNNER_SCENARIOS = (
    Scenario((Step("runner: VERSION (start)", lambda bench: bench.call("VERSION", bench.loopback())),)),
    _bridge("runner: bridge + host-local", is_masqueraded=False),
    _bridge("runner: with ipMasq:", is_masqueraded=True),
)


def interleaved(
    scenario: Scenario, benches: tuple[Bench, Bench], rounds: int, warm_up: int
) -> dict[str, tuple[list[Sample], list[Sample]]]:
    """Run a scenario: A B, then B A, then A B ...: each step by both before the next step.

    Returns:
        For each step's title the samples of both subjects; those of the warm-up are not among them.
    """
    if scenario.prepare is not None:
        for bench in benches:
            scenario.prepare(bench)
    samples: dict[str, tuple[list[Sample], list[Sample]]] = {step.title: ([], []) for step in scenario.steps}
    for number in range(warm_up + rounds):
        for step in scenario.steps:
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                ended = step.run(benches[which])
                if number >= warm_up:
                    samples[step.title][which].append(ended.sample)
    return samples


@contextmanager
def pods(subjects: tuple[Subject, ...], run: Callable[[list[str]], None]) -> Iterator[None]:
    """Make a netns for each subject's pod."""
    for subject in subjects:
        run(["ip", "netns", "add", subject.name])
    try:
        yield
    finally:
        for subject in subjects:
            run(["ip", "netns", "delete", subject.name])

"""Whose plugins are measured, and attachments that are made, checked and taken away with them."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from answering import Answerer
from measuring import Call, Meter, Sample

BIN_DIR = "/run/bench/bin"
# The reference plugins again, put behind the runner by `cnisandbox wrap`.
WRAPPED_DIR = "/run/bench/wrapped"
# notified.c, compiled.
NOTIFIED = "/run/bench/notified"
# What the column is called of the least that can be needed.
FLOOR = "floor"
_COLD = ("CNISANDBOX_COLD", "1")
_MEDIATED = ("CNISANDBOX_LEVEL", "mediated")

NetConf = dict[str, Any]


class Subject(NamedTuple):
    """A set of plugins, and how they are called.

    Attributes:
        name: What its column is called.
        number: Of its pod, its bridges and its subnets, so that no two meet; the next ten are its own as well.
        bin_dir: Where its plugins are.
        chained_dir: Where those are that come after the first one of a chain.
        settings: Variables besides those of CNI.
        through: A program that executes its plugins, if they are not executed by themselves.
    """

    name: str
    number: int
    bin_dir: str
    chained_dir: str
    settings: tuple[tuple[str, str], ...] = ()
    through: str = ""

    @property
    def pod(self) -> str:
        """The netns of its single pod."""
        return f"pod{self.number}"


class Subjects(NamedTuple):
    """Everybody."""

    reference: Subject
    warm: Subject
    warm_mediated: Subject
    cold: Subject
    cold_mediated: Subject
    chained: Subject
    chained_confined: Subject
    chained_confined_cold: Subject
    runner_warm: Subject
    runner_cold: Subject
    runner_floor: Subject

    @classmethod
    def make(cls, reference: str) -> "Subjects":
        """Number them.

        Args:
            reference: Directory of the reference plugins.
        """
        return cls(
            Subject("reference", 20, reference, reference),
            Subject("warm", 30, BIN_DIR, reference),
            Subject("warm, mediated", 40, BIN_DIR, reference, (_MEDIATED,)),
            Subject("cold", 50, BIN_DIR, reference, (_COLD,)),
            Subject("cold, mediated", 60, BIN_DIR, reference, (_COLD, _MEDIATED)),
            Subject("bridge warm, others root", 70, BIN_DIR, reference),
            Subject("bridge warm, others confined", 80, BIN_DIR, WRAPPED_DIR),
            Subject("the same, cold", 90, BIN_DIR, WRAPPED_DIR, (_COLD,)),
            Subject("confined, warm", 100, WRAPPED_DIR, WRAPPED_DIR),
            Subject("confined, cold", 110, WRAPPED_DIR, WRAPPED_DIR, (_COLD,)),
            Subject(FLOOR, 120, reference, reference, through=NOTIFIED),
        )


class Workload(Protocol):
    """What one subject does in a scenario."""

    def run(self, verb: str) -> Sample:
        """Do it once."""


class Attachments:
    """Attachments of some pods by a chain of plugins: plugin after plugin, each for all pods.

    Args:
        meter: What runs them.
        subject: Whose plugins.
        chain: Netconfs of the plugins, in the order of ADD.
        pods: Names of their netns.
        ifname: Value of CNI_IFNAME.
        at_a_time: How many calls are under way.
    """

    def __init__(
        self,
        meter: Meter,
        subject: Subject,
        chain: Sequence[NetConf],
        pods: Sequence[str],
        ifname: str = "eth0",
        at_a_time: int = 1,
    ) -> None:
        self._meter = meter
        self._subject = subject
        self._chain = chain
        self._pods = pods
        self._ifname = ifname
        self._at_a_time = at_a_time
        self._results: dict[str, Any] = {}

    def run(self, verb: str) -> Sample:
        """Call each plugin once for each pod, as a runtime does."""
        return self._meter.sample(lambda: self._run(verb))

    def _run(self, verb: str) -> None:
        if verb == "ADD":
            self._results = {}
        order = range(len(self._chain))
        for position in reversed(order) if verb == "DEL" else order:
            outputs = self._meter.run([self._call(verb, position, pod) for pod in self._pods], self._at_a_time)
            if verb == "ADD":
                self._results = dict(zip(self._pods, map(json.loads, outputs), strict=True))

    def _call(self, verb: str, position: int, pod: str) -> Call:
        netconf = dict(self._chain[position])
        if pod in self._results:
            netconf["prevResult"] = self._results[pod]
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"{pod}-{self._subject.number}",
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": self._ifname,
            "CNI_PATH": self._subject.bin_dir,
            **dict(self._subject.settings),
        }
        directory = self._subject.chained_dir if position else self._subject.bin_dir
        program = os.path.join(directory, netconf["type"])
        stdin = json.dumps(netconf).encode()
        through = self._subject.through
        return Call(through, environment, stdin, (program,)) if through else Call(program, environment, stdin)


class Refilled:
    """An ADD into each of several networks, which is undone outside of the clock.

    Args:
        networks: An attachment to each, by what the network is called.
    """

    def __init__(self, networks: dict[str, Attachments]) -> None:
        self._networks = networks

    def run(self, verb: str) -> Sample:
        """Measure an ADD; the verb says to which network."""
        sample = self._networks[verb].run("ADD")
        self._networks[verb].run("DEL")
        return sample


class Program:
    """A program that is no plugin.

    Args:
        meter: What runs it.
        call: The program.
    """

    def __init__(self, meter: Meter, call: Call) -> None:
        self._meter = meter
        self._call = call

    def run(self, verb: str) -> Sample:  # noqa: ARG002 - it does one thing
        """Run it."""
        return self._meter.sample(lambda: self._meter.run([self._call]))


class Asked:
    """What a program of this directory measures by itself.

    Args:
        answerer: The program.
        word: What it is asked for; "{}" stands for the verb.
    """

    def __init__(self, answerer: Answerer, word: str) -> None:
        self._answerer = answerer
        self._word = word

    def run(self, verb: str) -> Sample:
        """Ask."""
        return self._answerer.ask(self._word.format(verb))


def compile_notified(path: str) -> None:
    """Make the program through which the floor of the runner is called."""
    here = Path(__file__).parent
    native = here.parent / "native"
    sources = (str(here / "notified.c"), str(native / "notify.c"))
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", f"-I{native}", "-o", path, *sources], check=True, timeout=60)


@contextmanager
def netns(names: Sequence[str]) -> Iterator[None]:
    """Make named netns, for as long as they are needed."""
    _batch("add", names)
    try:
        yield
    finally:
        _batch("delete", names)


def _batch(verb: str, names: Sequence[str]) -> None:
    lines = "".join(f"netns {verb} {name}\n" for name in names)
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True, timeout=120)

"""`cnisandbox doctor` tries things, reports each, and decides by what level hardened needs."""

import json
import os

import pytest

from cnisandbox.cli import doctor, install
from cnisandbox.cli.main import main
from cnisandbox.cli.probes import DEGRADED, MISSING, OK, Probe, Seen, attempt


def probe(state: str, *, is_required: bool = False, feature: str = "thing") -> Probe:
    return Probe(feature, "some plugin", "mend it", lambda: Seen(state, "a detail"), is_required)


def run(monkeypatch: pytest.MonkeyPatch, *probes: Probe, options: tuple[str, ...] = ()) -> int:
    monkeypatch.setattr(doctor, "_GROUPS", (("group", probes),))
    monkeypatch.setattr(doctor, "require_root", lambda _operation: None)
    return main(["doctor", *options])


@pytest.mark.parametrize(
    ("state", "is_required", "status"),
    [(OK, True, 0), (DEGRADED, True, 0), (MISSING, True, 1), (MISSING, False, 0), (DEGRADED, False, 0)],
)
def test_status_goes_by_what_level_hardened_needs(
    monkeypatch: pytest.MonkeyPatch, state: str, is_required: bool, status: int
) -> None:
    assert run(monkeypatch, probe(state, is_required=is_required)) == status


def test_what_is_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, probe(OK))
    assert capsys.readouterr().out.splitlines() == [
        "group",
        "  ok        thing  a detail",
        "",
        "level hardened is available: everything it needs is there",
    ]


def test_what_is_missing_says_what_needs_it_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, probe(OK, feature="other"), probe(MISSING, is_required=True))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  missing   thing  a detail",
        "            needed for some plugin",
        "            to do: mend it",
        "",
        "level hardened is not available: missing thing",
    ]


def test_json_has_every_feature(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, probe(OK), probe(MISSING, is_required=True), options=("--json",))
    assert json.loads(capsys.readouterr().out) == {
        "hardened": False,
        "features": [
            {
                "group": "group",
                "feature": "thing",
                "state": "ok",
                "detail": "a detail",
                "neededFor": "some plugin",
                "requiredForHardened": False,
                "remedy": "",
            },
            {
                "group": "group",
                "feature": "thing",
                "state": "missing",
                "detail": "a detail",
                "neededFor": "some plugin",
                "requiredForHardened": True,
                "remedy": "mend it",
            },
        ],
    }


def test_probe_that_fails_in_itself_is_a_missing_feature(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look() -> Seen:
        raise PermissionError(13, "Permission denied")

    assert run(monkeypatch, Probe("thing", "x", "y", look, is_required=True)) == 1
    assert "missing   thing  permission denied" in capsys.readouterr().out


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert main(["doctor"]) == 1
    assert "doctor: not root" in capsys.readouterr().err


class TestAttempt:
    def test_what_the_child_returns_is_the_detail(self) -> None:
        assert attempt(0, lambda: f"pid is ours: {os.getpid() == PARENT}") == (OK, "pid is ours: False")

    def test_error_of_the_kernel_is_told_in_its_words(self) -> None:
        def fail() -> None:
            raise OSError(95, "whatever")

        assert attempt(0, fail) == (MISSING, "operation not supported")

    def test_flags_that_the_kernel_refuses_are_a_missing_feature(self) -> None:
        assert attempt(1, lambda: None) == (MISSING, "invalid argument")

    def test_death_of_the_child_is_a_missing_feature(self) -> None:
        assert attempt(0, lambda: os._exit(3)) == (MISSING, "the probe died with status 3")


PARENT = os.getpid()


def test_every_probe_says_what_it_is_for_and_what_to_do() -> None:
    probes = [probe for _, group in doctor._GROUPS for probe in group]
    assert all(probe.needed_for and probe.remedy for probe in probes)
    assert len({probe.feature for probe in probes}) == len(probes)
    assert install.require_root is doctor.require_root

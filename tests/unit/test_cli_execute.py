"""`cnisandbox exec` reads its command line, and answers a runtime as a plugin does whatever goes wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cli import execute, shim
from cnisandbox.cli.main import main
from cnisandbox.runner import entry


@pytest.fixture(autouse=True)
def _outside_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith(("CNI_", "CNISANDBOX_"))]:
        monkeypatch.delenv(variable)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[entry.Options]:
    """What the runner would be asked for."""
    asked: list[entry.Options] = []

    def run(wanted: entry.Options, _slot: entry.Slot | None) -> None:
        asked.append(wanted)
        raise SystemExit(7)

    monkeypatch.setattr(entry, "run", run)
    return asked


def call(*argv: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(["exec", *argv])
    return ended.value.code


class TestCommandLine:
    def test_plugin_alone_is_enough(self) -> None:
        assert execute.parse(["/usr/lib/cni/bridge"], {}) == shim.Request("/usr/lib/cni/bridge")

    @pytest.mark.parametrize(
        "argv",
        [
            ["--level", "hardened", "--profile", "p", "--attest", "a", "--log", "l", "--", "/x/bridge"],
            ["--level=hardened", "--profile=p", "--attest=a", "--log=l", "/x/bridge"],
        ],
    )
    def test_every_option_is_handed_on(self, argv: list[str]) -> None:
        request = execute.parse(argv, {})
        assert request == shim.Request("/x/bridge", (), "hardened", "p", "a", "l")

    def test_what_follows_the_plugin_is_the_plugins(self) -> None:
        request = execute.parse(["--level", "root", "/x/dhcp", "daemon", "--help", "--log", "x", "--"], {})
        assert request.arguments == ("daemon", "--help", "--log", "x", "--")
        assert (request.level, request.log) == ("root", "")

    def test_plugin_may_begin_with_a_hyphen_after_the_two(self) -> None:
        assert execute.parse(["--", "-x/bridge"], {}).plugin == f"{Path.cwd()}/-x/bridge"

    def test_variables_stand_for_options_that_are_not_given(self) -> None:
        variables = {"CNISANDBOX_LEVEL": "hardened", "CNISANDBOX_ATTEST": "a", "CNISANDBOX_LOG": "journald"}
        assert execute.parse(["/x/y"], variables) == shim.Request("/x/y", (), "hardened", "", "a", "journald")
        assert execute.parse(["--level=root", "--log=/l", "/x/y"], variables).level == "root"
        assert execute.parse(["--level=root", "--log=/l", "/x/y"], variables).log == "/l"

    @pytest.mark.parametrize(
        ("argv", "what"),
        [
            ([], "no plugin is named"),
            (["--"], "no plugin is named"),
            (["--level", "root"], "no plugin is named"),
            (["--level"], "--level needs a value"),
            (["--level=", "/x/y"], "--level needs a value"),
            (["--lev", "root", "/x/y"], "there is no option '--lev'"),
            (["-v", "/x/y"], "there is no option '-v'"),
            (["bridge"], "'bridge' is no path; such as /usr/lib/cni/bridge"),
        ],
    )
    def test_wrong_usage_is_told_to_a_person(
        self, argv: list[str], what: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert call(*argv) == 2
        captured = capfd.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"cnisandbox exec: {what}\nusage: cnisandbox exec [--level LEVEL]")
        assert "--help` shows what it takes" in captured.err

    def test_wrong_usage_is_an_error_object_for_a_runtime(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("CNI_COMMAND", "ADD")
        assert call("--level") == 1
        captured = capfd.readouterr()
        document = json.loads(captured.out)
        assert (document["code"], document["msg"]) == (4, "exec: --level needs a value")
        assert captured.err == ""

    @pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--level", "root", "--help", "/x/y"]])
    def test_help_names_every_option(self, argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
        assert call(*argv) == 0
        shown = capfd.readouterr().out
        assert all(f"  {option} " in shown for option in execute._OPTIONS)


class TestHandingOver:
    def test_runner_is_asked_for_what_was_said(self, options: list[entry.Options], tmp_path: Path) -> None:
        plugin = tmp_path / "bridge"
        plugin.touch(mode=0o755)
        assert call("--level=hardened", "--profile=p", "--attest=a", "--log=l", "--", str(plugin), "x") == 7
        (asked,) = options
        assert asked.level is not None
        assert asked._replace(level=None) == entry.Options(str(plugin), ("x",), None, "p", "a", "l", ())
        assert asked.level.value == "hardened"

    def test_level_that_is_not_said_is_the_profiles(self, options: list[entry.Options], tmp_path: Path) -> None:
        assert call("--", f"{tmp_path}/bridge") == 7
        assert options[0].level is None

    def test_level_root_is_the_plugin_as_it_is(self, tmp_path: Path) -> None:
        plugin = tmp_path / "plugin"
        plugin.write_text('#!/bin/sh\necho "$0 $* $CNI_IFNAME"; cat; exit 3')
        plugin.chmod(0o755)
        command = [sys.executable, "-m", "cnisandbox.cli.main", "exec", "--level", "root", "--", str(plugin), "a", "b"]
        done = subprocess.run(
            command, input=b"netconf", env={"CNI_IFNAME": "eth0"}, capture_output=True, check=False, timeout=30
        )
        assert (done.stdout, done.returncode) == (f"{plugin} a b eth0\nnetconf".encode(), 3)

    def error(self, capfd: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
        assert call(*argv) == 1
        document: dict[str, Any] = json.loads(capfd.readouterr().out)
        assert document.keys() <= {"cniVersion", "code", "msg", "details"}
        return document

    def test_level_that_is_none_is_an_error_object(self, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        document = self.error(capfd, "--level", "safe", "--", f"{tmp_path}/bridge")
        assert document["code"] == 4
        assert document["msg"].startswith("level: 'safe' is not one of root, netadmin, hardened")

    def test_plugin_of_ours_confines_itself(self, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        plugin = tmp_path / "bridge"
        plugin.write_text("#!/usr/bin/python3 -IS\n# cnisandbox plugin: bridge\n")
        document = self.error(capfd, "--", str(plugin))
        assert document["code"] == 7
        assert "confines itself" in document["msg"]

    def test_links_in_circles_are_an_error_object(self, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "bridge").symlink_to("bridge")
        assert "in circles" in self.error(capfd, "--", f"{tmp_path}/bridge")["msg"]

    def test_missing_part_of_the_installation_is_an_error_object(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(sys.modules, "cnisandbox.runner.entry", None)
        document = self.error(capfd, "--", f"{tmp_path}/bridge")
        assert document["code"] == 103
        assert "make setup" in document["details"]

    def test_defect_is_an_error_object(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError("division by zero")

        monkeypatch.setattr(entry, "run", fail)
        document = self.error(capfd, "--", f"{tmp_path}/bridge")
        assert document["code"] == 999
        assert document["msg"].endswith("ZeroDivisionError: division by zero")


def test_exec_does_not_load_what_takes_time() -> None:
    """What the runner itself imports is its own affair (tests/style/test_imports.py)."""
    program = (
        "import sys; sys.modules['cnisandbox.runner.entry'] = None\n"
        "from cnisandbox.cli.main import main\n"
        "try: main(['exec', '--', '/x/y'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=30)
    loaded = set(done.stderr.split())
    assert "cnisandbox.cli.execute" in loaded
    assert not {"argparse", "subprocess", "cnisandbox.cli.output", "cnisandbox.cli.subcommand"} & loaded

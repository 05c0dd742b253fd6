"""One plugin binary is found, run and understood (X-8 to X-14, E-3)."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from cnisandbox.errors import DelegateFailed, InvalidConfig, InvalidEnvironment, IoFailure
from cnisandbox.runtime import execute
from cnisandbox.runtime.execute import Call, find_plugin, run_plugin

ADD = Call("ADD", ("/a", "/b"), "c1", "/run/netns/blue", "eth0", "K=V;L=W")


def script(directory: Path, body: str, name: str = "plugin") -> str:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


class TestFind:
    def test_first_directory_wins(self, tmp_path: Path) -> None:
        first = script(tmp_path / "a", "")
        script(tmp_path / "b", "")
        assert find_plugin("plugin", (str(tmp_path / "a"), str(tmp_path / "b"))) == first

    def test_missing_directories_and_directories_of_that_name_are_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "plugin").mkdir(parents=True)
        second = script(tmp_path / "b", "")
        assert find_plugin("plugin", (str(tmp_path / "none"), str(tmp_path / "a"), str(tmp_path / "b"))) == second

    def test_links_are_followed_and_dangling_ones_passed_over(self, tmp_path: Path) -> None:
        real = script(tmp_path / "real", "")
        for name, target in (("a", "/nonexistent"), ("b", real)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "plugin").symlink_to(target)
        assert find_plugin("plugin", (str(tmp_path / "a"), str(tmp_path / "b"))) == str(tmp_path / "b" / "plugin")

    def test_missing_plugin_says_where_it_was_looked_for(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidEnvironment, match=f"find plugin 'nope': not in {tmp_path}") as caught:
            find_plugin("nope", (str(tmp_path),))
        assert "--plugin-dir" in caught.value.details

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/bin/sh", "a\0b"])
    def test_name_cannot_be_a_path(self, name: str) -> None:
        with pytest.raises(InvalidConfig, match="must be a file name"):
            find_plugin(name, ("/bin",))

    def test_without_directories_there_is_nothing_to_find(self) -> None:
        with pytest.raises(InvalidEnvironment, match="no plugin directory"):
            find_plugin("plugin", ())


class TestRun:
    def test_environment_is_the_callers_with_the_cni_variables_set(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CNI_ARGS", "of=theparent")
        monkeypatch.setenv("MARKER", "kept")
        output = run_plugin(script(tmp_path, "env"), ADD, b"").decode().splitlines()
        assert {line for line in output if line.startswith(("CNI_", "MARKER="))} == {
            "CNI_COMMAND=ADD",
            "CNI_CONTAINERID=c1",
            "CNI_NETNS=/run/netns/blue",
            "CNI_IFNAME=eth0",
            "CNI_ARGS=K=V;L=W",
            "CNI_PATH=/a:/b",
            "MARKER=kept",
        }

    def test_variables_that_a_verb_does_not_use_are_there_and_empty(self, tmp_path: Path) -> None:
        output = run_plugin(script(tmp_path, "env"), Call("STATUS", ("/a",)), b"").decode().splitlines()
        assert {"CNI_CONTAINERID=", "CNI_NETNS=", "CNI_IFNAME=", "CNI_ARGS="} <= set(output)

    def test_netconf_is_its_standard_input(self, tmp_path: Path) -> None:
        netconf = b'{"big": "' + b"x" * 500_000 + b'"}'
        assert run_plugin(script(tmp_path, "cat"), ADD, netconf) == netconf

    def test_plugin_that_does_not_read_its_input_is_no_failure(self, tmp_path: Path) -> None:
        assert run_plugin(script(tmp_path, "echo '{}'"), ADD, b"x" * 500_000) == b"{}\n"

    def test_standard_error_is_passed_through(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run_plugin(script(tmp_path, "echo working >&2; echo '{}'"), ADD, b"")
        assert capsys.readouterr().err == "working\n"

    def test_error_object_is_raised_with_its_own_code(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        body = """echo log >&2; echo '{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"later"}'; exit 1"""
        with pytest.raises(DelegateFailed) as caught:
            run_plugin(script(tmp_path, body), ADD, b"")
        assert (caught.value.code, caught.value.msg, caught.value.details) == (11, "busy", "later")
        assert capsys.readouterr().err == "log\n"

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("exit 3", "exit status 3 without an error object"),
            ("echo it broke >&2; exit 1", "exit status 1 without an error object: 'it broke'"),
            ("echo garbage; exit 1", r"exit status 1, and no error object: 'garbage\\n'"),
            ("echo '{}'; exit 1", "exit status 1, and no error object"),
            ("""echo '{"code":"7","msg":"x"}'; exit 1""", "exit status 1, and no error object"),
            ("kill -9 $$", "ended by SIGKILL without an error object"),
            ("kill -34 $$", "ended by .*34 without an error object|ended by SIGRTMIN without an error object"),
        ],
    )
    def test_failure_without_an_error_object_is_told_as_it_was(self, tmp_path: Path, body: str, message: str) -> None:
        with pytest.raises(DelegateFailed, match=f"run plugin 'plugin': {message}") as caught:
            run_plugin(script(tmp_path, body), ADD, b"")
        assert caught.value.code == 999

    def test_time_limit_kills_the_plugin_and_what_it_started(self, tmp_path: Path) -> None:
        pidfile = tmp_path / "pid"
        path = script(tmp_path, f"sleep 1000 & echo $! >{pidfile}.new; mv {pidfile}.new {pidfile}; wait")
        with pytest.raises(DelegateFailed, match=r"killed, because it was not done after 0\.5 s"):
            run_plugin(path, ADD, b"", time_limit_s=0.5)
        assert not is_running(int(pidfile.read_text()))

    def test_interruption_kills_the_plugin(self, tmp_path: Path) -> None:
        pidfile = tmp_path / "pid"
        path = script(tmp_path, f"echo $$ >{pidfile}.new; mv {pidfile}.new {pidfile}; exec sleep 1000")
        main = threading.get_ident()

        def interrupt() -> None:
            wait_for(pidfile.exists)
            signal.pthread_kill(main, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_plugin(path, ADD, b"")
        thread.join()
        assert not is_running(int(pidfile.read_text()))

    def test_file_that_is_still_being_written_is_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = script(tmp_path, "echo '{}'")
        delays: list[float] = []
        writer = open(path, "r+b")  # noqa: SIM115 - closed in the middle of the call

        def close_at_the_third(seconds: float) -> None:
            delays.append(seconds)
            if len(delays) == 3:
                writer.close()

        monkeypatch.setattr(execute, "sleep", close_at_the_third)
        assert run_plugin(path, ADD, b"") == b"{}\n"
        assert len(delays) == 3

    def test_file_that_stays_busy_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = script(tmp_path, "")
        monkeypatch.setattr(execute, "sleep", lambda _seconds: None)
        with open(path, "r+b"), pytest.raises(IoFailure, match="text file busy"):
            run_plugin(path, ADD, b"")

    def test_waiting_for_a_busy_file_is_bounded(self) -> None:
        assert sum(execute._BUSY_DELAYS_S) == pytest.approx(5)

    def test_file_that_is_no_program_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "plugin"
        path.write_bytes(b"\x7fELF garbage")
        path.chmod(0o755)
        with pytest.raises(IoFailure, match=f"execute plugin '{path}': exec format error"):
            run_plugin(str(path), ADD, b"")

    def test_file_without_execute_bit_is_an_error(self, tmp_path: Path) -> None:
        path = script(tmp_path, "")
        os.chmod(path, 0o644)
        with pytest.raises(IoFailure, match="permission denied"):
            run_plugin(path, ADD, b"")

    def test_null_byte_in_the_environment_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidEnvironment, match="embedded null byte"):
            run_plugin(script(tmp_path, ""), Call("ADD", ("/a",), args="a\0b"), b"")


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], check=False, capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_for(condition: object, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""`cnisandbox net` takes what cnitool takes, and says what it did."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cli.main import main
from cnisandbox.runtime import locks, netns
from cnisandbox.runtime.cache import ResultCache

PLUGIN = """#!/bin/sh
cat >{record}/stdin
env >{record}/env
if [ "$CNI_COMMAND" = ADD ]; then echo '{result}'; fi
"""
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "br0"}, {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/blue"}],
    "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1}, {"address": "fd00::2/64"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.0.1"]},
}
BLUE_ID = "cnitool-df26705e2e4ffd095eb1"  # cnitool's for /run/netns/blue


class Command:
    """Calls `cnisandbox net` on directories of the test's own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys
        self.cache = ResultCache(str(directory / "cni"))
        for name in ("net.d", "bin"):
            (directory / name).mkdir()
        self.plugin("fake", json.dumps(RESULT))
        self.network("10.conflist")

    def plugin(self, name: str, result: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(PLUGIN.format(record=self.directory, result=result))
        path.chmod(0o755)

    def network(self, file: str, **members: Any) -> None:
        plugins = [{"type": "fake", "capabilities": {"ips": True}}]
        document = {"cniVersion": "1.0.0", "name": "lab", "plugins": plugins} | members
        (self.directory / "net.d" / file).write_text(json.dumps(document))

    def __call__(self, *arguments: str, expect: int = 0) -> str:
        directory = self.directory
        status = main(
            [
                "net",
                arguments[0],
                f"--conf-dir={directory / 'net.d'}",
                f"--plugin-dir={directory / 'bin'}",
                f"--cache-dir={directory / 'cni'}",
                *arguments[1:],
            ]
        )
        captured = self.capsys.readouterr()
        assert status == expect, captured
        assert "Traceback" not in captured.err
        return captured.out + captured.err

    def env(self) -> dict[str, str]:
        lines = (self.directory / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if line.startswith("CNI_"))

    def stdin(self) -> Any:
        return json.loads((self.directory / "stdin").read_text())


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    for name in ("NETCONFPATH", "CNI_PATH", "CNI_IFNAME", "CNI_ARGS", "CAP_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(netns, "has_link", lambda _path, _ifname: False)
    return Command(tmp_path, capsys)


def test_add_prints_the_result_as_tables(command: Command) -> None:
    shown = command("add", "lab", "/run/netns/blue")
    assert shown.startswith(f"attached eth0 of {BLUE_ID} to lab in ")
    body = shown.partition("\n\n")[2]
    assert body == (
        "INTERFACE  MAC                WHERE            ADDRESS      GATEWAY\n"
        "br0                           host\n"
        "eth0       02:00:00:00:00:01  /run/netns/blue  10.1.0.2/24  10.1.0.1\n"
        "                                               fd00::2/64\n"
        "\n"
        "ROUTE      VIA\n"
        "0.0.0.0/0  10.1.0.1\n"
        "\n"
        "DNS\n"
        "nameservers  10.1.0.1\n"
    )


def test_add_prints_the_result_as_json(command: Command) -> None:
    assert json.loads(command("add", "lab", "blue", "--json")) == RESULT


def test_container_id_is_that_of_cnitool(command: Command) -> None:
    command("add", "lab", "/run/netns/blue")
    assert command.env()["CNI_CONTAINERID"] == BLUE_ID


def test_bare_name_is_one_of_ip_netns(command: Command) -> None:
    command("add", "lab", "blue")
    assert (command.env()["CNI_NETNS"], command.env()["CNI_CONTAINERID"]) == ("/run/netns/blue", BLUE_ID)


def test_relative_path_becomes_absolute(command: Command) -> None:
    command("add", "lab", "./blue")
    assert command.env()["CNI_NETNS"] == os.path.abspath("blue")


def test_options_reach_the_plugin(command: Command) -> None:
    capabilities = '{"ips": ["10.1.0.9/24"], "mac": "unused"}'
    options = ["--ifname", "net1", "--container-id", "c1", "--args", "K=V;L=a=b", "--capabilities", capabilities]
    command("add", "lab", "blue", *options)
    env = command.env()
    assert (env["CNI_IFNAME"], env["CNI_CONTAINERID"], env["CNI_ARGS"]) == ("net1", "c1", "K=V;L=a=b")
    assert command.stdin()["runtimeConfig"] == {"ips": ["10.1.0.9/24"]}


def test_environment_variables_of_cnitool_reach_the_plugin(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETCONFPATH", str(tmp_path / "net.d"))
    monkeypatch.setenv("CNI_PATH", f"/nonexistent::{tmp_path / 'bin'}")
    monkeypatch.setenv("CNI_IFNAME", "net1")
    monkeypatch.setenv("CNI_ARGS", "K=V")
    monkeypatch.setenv("CAP_ARGS", '{"ips": []}')
    assert main(["net", "add", "lab", "blue", f"--cache-dir={tmp_path / 'cni'}"]) == 0
    env = command.env()
    assert env["CNI_PATH"] == f"/nonexistent:{tmp_path / 'bin'}"
    assert (env["CNI_IFNAME"], env["CNI_ARGS"]) == ("net1", "K=V")
    assert command.stdin()["runtimeConfig"] == {"ips": []}


def test_del_uses_what_the_add_was_called_with(command: Command) -> None:
    command("add", "lab", "blue", "--container-id", "c1", "--args", "K=V", "--capabilities", '{"ips": [1]}')
    command("del", "lab", "--container-id", "c1")
    env = command.env()
    assert (env["CNI_COMMAND"], env["CNI_NETNS"], env["CNI_ARGS"]) == ("DEL", "/run/netns/blue", "K=V")
    assert command.stdin()["runtimeConfig"] == {"ips": [1]}
    assert command.stdin()["prevResult"]["ips"][0]["address"] == "10.1.0.2/24"
    assert command.cache.attachments() == []


def test_del_runs_with_the_configuration_of_the_add(command: Command) -> None:
    command("add", "lab", "blue")
    command.network("10.conflist", plugins=[{"type": "fake", "mtu": 9000}])
    command("check", "lab", "blue")
    assert "mtu" not in command.stdin()
    command("check", "lab", "blue", "--current-config")
    assert command.stdin()["mtu"] == 9000
    (command.directory / "net.d" / "10.conflist").unlink()
    command("del", "lab", "blue")


def test_del_of_what_is_not_attached_still_calls_the_plugins(command: Command) -> None:
    assert command("del", "lab", "blue").startswith(f"detached eth0 of {BLUE_ID} from lab")
    assert command.env()["CNI_COMMAND"] == "DEL"


def test_del_goes_on_with_a_damaged_result(command: Command) -> None:
    path = Path(command.cache.path("lab", BLUE_ID, "eth0"))
    path.parent.mkdir(parents=True)
    path.write_text("garbage")
    command("del", "lab", "blue")
    assert not path.exists()


def test_check_says_ok_or_that_it_was_not_asked(command: Command) -> None:
    command("add", "lab", "blue")
    assert command("check", "lab", "blue").startswith(f"ok eth0 of {BLUE_ID} on lab")
    command.network("10.conflist", disableCheck=True)
    assert command("check", "lab", "blue", "--current-config").startswith("not checked: disableCheck is set in /")


@pytest.mark.parametrize("verb", ["del", "check"])
def test_without_netns_and_container_nothing_is_guessed(command: Command, verb: str) -> None:
    shown = command(verb, "lab", expect=1)
    assert "neither NETNS nor --container-id is given" in shown
    assert "`cnisandbox net list lab` shows" in shown


def test_list_shows_networks_and_what_is_wrong_with_files(command: Command) -> None:
    command("add", "lab", "blue")
    path = command.directory / "net.d" / "20.conflist"
    path.write_text("{")
    shown = command("list", expect=1)
    assert f"NETWORK  VERSION  PLUGINS  ATTACHED  FILE\nlab      1.0.0    fake     1         {path.parent}/10" in shown
    assert f"load '{path}': not JSON" in shown
    as_json = json.loads(command("list", "--json", expect=1))
    assert [entry["name"] for entry in as_json["networks"]] == ["lab"]
    assert as_json["networks"][0]["attachments"][0]["containerID"] == BLUE_ID
    assert as_json["errors"][0] | {"msg": "", "details": ""} == {"file": str(path), "code": 7, "msg": "", "details": ""}


def test_list_of_one_network_shows_attachments(command: Command) -> None:
    assert command("list", "lab") == "nothing is attached to lab\n"
    command("add", "lab", "blue")
    header, row = command("list", "lab").splitlines()
    assert header.split() == ["CONTAINER", "INTERFACE", "ADDRESSES", "NETNS", "STATE"]
    assert row.split() == [BLUE_ID, "eth0", "10.1.0.2/24", "fd00::2/64", "/run/netns/blue", "netns", "gone"]
    assert "not in" in command("list", "nope", expect=1)


def test_list_of_an_empty_directory_says_so(command: Command) -> None:
    (command.directory / "net.d" / "10.conflist").unlink()
    assert command("list") == f"no networks in {command.directory / 'net.d'}\n"
    assert command("status") == f"no networks in {command.directory / 'net.d'}\n"


class TestGc:
    @pytest.fixture(autouse=True)
    def attached(self, command: Command) -> None:
        for container_id, path in (("gone", "/run/netns/gone"), ("alive", "/proc/self/ns/net")):
            command("add", "lab", path, "--container-id", container_id)

    def left(self, command: Command) -> list[str]:
        return [found.container_id for found in command.cache.attachments()]

    def test_attachments_without_a_netns_go_and_others_stay(self, command: Command) -> None:
        shown = command("gc", "lab")
        assert shown.splitlines()[1:3] == ["kept     alive      eth0", "deleted  gone       eth0"]
        assert "cniVersion 1.0.0 does not have it" in shown
        assert self.left(command) == ["alive"]

    def test_dry_run_changes_nothing(self, command: Command) -> None:
        assert "would go  gone" in command("gc", "lab", "--dry-run")
        assert self.left(command) == ["alive", "gone"]

    def test_only_what_is_named_stays(self, command: Command) -> None:
        command("gc", "lab", "--keep", "gone/eth0")
        assert self.left(command) == ["gone"]

    def test_all_keeps_none(self, command: Command) -> None:
        as_json = json.loads(command("gc", "lab", "--all", "--json"))
        assert [entry["containerID"] for entry in as_json["deleted"]] == ["alive", "gone"]
        assert self.left(command) == []

    def test_attachment_that_is_made_while_others_are_waited_for_stays(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        everything_locked = locks.everything_locked

        @contextmanager
        def locked_after_an_add(path: str) -> Iterator[None]:
            command("add", "lab", "/proc/self/ns/net", "--container-id", "late")
            with everything_locked(path):
                yield

        monkeypatch.setattr(locks, "everything_locked", locked_after_an_add)
        command("gc", "lab")
        assert self.left(command) == ["alive", "late"]

    def test_malformed_attachment_is_refused(self, command: Command) -> None:
        assert "write it as ID/IFNAME" in command("gc", "lab", "--keep", "gone", expect=1)
        assert "use interface name" in command("gc", "lab", "--keep", "gone/", expect=1)
        assert self.left(command) == ["alive", "gone"]

    def test_disable_gc_is_said(self, command: Command) -> None:
        command.network("10.conflist", disableGC=True)
        assert "disableGC is set" in command("gc", "lab", expect=1)
        assert self.left(command) == ["alive", "gone"]


def test_status_asks_every_network(command: Command) -> None:
    command.network("10.conflist", cniVersion="1.1.0")
    command.network("20.conflist", name="old")
    command.network("30.conflist", name="full", cniVersion="1.1.0", plugins=[{"type": "full"}])
    path = command.directory / "bin" / "full"
    path.write_text("""#!/bin/sh\necho '{"code": 50, "msg": "no addresses left"}'; exit 1\n""")
    path.chmod(0o755)
    shown = command("status", expect=1)
    assert shown.splitlines()[:4] == [
        "STATE      NETWORK",
        "ready      lab",
        "not asked  old      its cniVersion has no STATUS",
        "not ready  full     code 50",
    ]
    assert "STATUS network 'full': plugin 'full' (1 of 1): no addresses left (code 50)" in shown
    states = json.loads(command("status", "full", "--json", expect=1))["networks"]
    assert (states[0]["ready"], states[0]["error"]["code"]) == (False, 50)


def test_gc_and_status_tolerate_the_netns_that_cnitool_demands(command: Command) -> None:
    command("status", "lab", "/run/netns/blue")


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (["add", "nope", "blue"], "find network 'nope': not in", "networks there: lab"),
        (["add", "lab", "blue", "--args", "K"], "'K' is not a pair", "KEY=VALUE"),
        (["add", "lab", "blue", "--args", "K=V;"], "'' is not a pair", "KEY=VALUE"),
        (["add", "lab", "blue", "--args", "=V"], "'=V' is not a pair", "KEY=VALUE"),
        (["add", "lab", "blue", "--capabilities", "x"], "decode CAP_ARGS", "portMappings"),
        (["add", "lab", "blue", "--capabilities", "[]"], "expected an object", "portMappings"),
        (["add", "lab", "blue", "--ifname", "a/b"], "use interface name 'a/b'", "eth0"),
        (["add", "lab", "blue", "--container-id", "../x"], "use container id '../x'", "letters and digits"),
        (["del", "lab", "--container-id", "../x"], "use container id '../x'", "letters and digits"),
        (["add", "lab", "blue", "--cache-dir", "/dev/null/x"], "open lock", "--cache-dir"),
    ],
)
def test_error_says_what_and_what_to_do(command: Command, arguments: list[str], message: str, remedy: str) -> None:
    shown = command(*arguments, expect=1)
    assert shown.startswith("cnisandbox: ")
    assert message in shown
    assert remedy in shown


def test_error_is_json_when_json_is_asked_for(command: Command) -> None:
    error = json.loads(command("add", "nope", "blue", "--json", expect=1))
    assert error["code"] == 7
    assert error["msg"].startswith("find network 'nope'")
    assert error["details"].startswith("networks there: lab")

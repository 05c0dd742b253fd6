"""A network is executed plugin by plugin as the specification orders it (X-3 to X-9, L-3 to L-5, G-7, S-5).

The plugins are shell scripts that write down what they were given.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import Address
from cnisandbox.errors import (
    CniError,
    DelegateFailed,
    IncompatibleVersion,
    InvalidConfig,
    InvalidEnvironment,
    InvalidNetns,
    IoFailure,
)
from cnisandbox.runtime import conflist, locks, netns
from cnisandbox.runtime.cache import CachedAttachment, ResultCache
from cnisandbox.runtime.network import Runtime, Step, Target

PLUGIN = """#!/bin/sh
n=$(ls {record} | wc -l)
cat > {record}/$(printf %03d $n).in
env | grep ^CNI_ > {record}/$(printf %03d $n).env
case "$CNI_COMMAND" in {cases}
esac
"""
TARGET = Target("c1", "eth0", "/run/netns/blue", (("K", "V"), ("L", "W")), {"ips": ["10.1.0.9/24"], "mac": "x"})


class Recorder:
    """Makes plugins that write down their calls, and reads what they wrote."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.record = directory / "record"
        self.bin.mkdir()
        self.record.mkdir()
        self.cache = ResultCache(str(directory / "cni"))
        self.steps: list[Step] = []
        self.runtime = Runtime([str(self.bin)], self.cache, watch=self.steps.append)

    def plugin(self, name: str, **outputs: str) -> None:
        """Make a plugin; `ADD="..."` is shell code for that verb."""
        cases = "\n".join(f"{verb}) {code} ;;" for verb, code in outputs.items())
        path = self.bin / name
        path.write_text(PLUGIN.format(record=self.record, cases=cases or "*) ;;"))
        path.chmod(0o755)

    def calls(self) -> list[dict[str, Any]]:
        """The calls in their order: verb, plugin type, standard input and environment."""
        found = []
        for path in sorted(self.record.glob("*.in")):
            netconf = json.loads(path.read_text())
            env = dict(line.split("=", 1) for line in path.with_suffix(".env").read_text().splitlines())
            found.append({"verb": env["CNI_COMMAND"], "type": netconf["type"], "netconf": netconf, "env": env})
        return found

    def order(self) -> list[str]:
        return [f"{call['verb']} {call['type']}" for call in self.calls()]

    def forget(self) -> None:
        for path in self.record.iterdir():
            path.unlink()


def prints(document: object) -> str:
    return f"echo '{json.dumps(document)}'"


def fails(code: int = 999, msg: str = "broken", details: str = "") -> str:
    return prints({"code": code, "msg": msg, "details": details}) + "; exit 1"


def result(address: str, version: str = "1.1.0") -> dict[str, object]:
    return {"cniVersion": version, "ips": [{"address": address}]}


def network(
    version: str = "1.1.0", types: tuple[str, ...] = ("first", "second", "third"), **more: Any
) -> conflist.NetworkList:
    plugins = [{"type": name, "unknown": {"kept": [1]}} for name in types]
    members = {"cniVersion": version, "name": "lab", "plugins": plugins} | more
    return conflist.parse_list(json.dumps(members).encode(), "lab.conflist")


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(netns, "has_link", lambda _path, _ifname: False)
    made = Recorder(tmp_path)
    for number, name in enumerate(("first", "second", "third"), 1):
        made.plugin(name, ADD=prints(result(f"10.0.0.{number}/24")))
    return made


class TestAdd:
    def test_results_go_from_one_plugin_to_the_next(self, recorder: Recorder) -> None:
        added = recorder.runtime.add(network(), TARGET)
        assert recorder.order() == ["ADD first", "ADD second", "ADD third"]
        prev_results = [call["netconf"].get("prevResult") for call in recorder.calls()]
        assert prev_results == [None, result("10.0.0.1/24"), result("10.0.0.2/24")]
        assert "prevResult" not in recorder.calls()[0]["netconf"]
        assert added.ips == (Address("10.0.0.3/24"),)

    def test_environment_is_that_of_the_target(self, recorder: Recorder) -> None:
        recorder.runtime.add(network(), TARGET)
        for call in recorder.calls():
            assert call["env"] == {
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": "c1",
                "CNI_NETNS": "/run/netns/blue",
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": "K=V;L=W",
                "CNI_PATH": str(recorder.bin),
            }

    def test_netconf_has_name_and_version_of_the_list_and_everything_of_the_plugin(self, recorder: Recorder) -> None:
        own = {"type": "first", "name": "wrong", "cniVersion": "0.1.0", "unknown": {"kept": [1, None]}, "cni.dev/x": 1}
        recorder.runtime.add(network(plugins=[own]), TARGET)
        assert recorder.calls()[0]["netconf"] == own | {"name": "lab", "cniVersion": "1.1.0"}

    def test_runtime_config_has_what_is_both_declared_and_given(self, recorder: Recorder) -> None:
        capabilities = {"ips": True, "mac": False, "portMappings": True}
        plugins = [
            {"type": "first", "capabilities": capabilities, "runtimeConfig": {"by": "hand"}},
            {"type": "second", "capabilities": {"bandwidth": True}, "runtimeConfig": {"by": "hand"}},
            {"type": "third"},
        ]
        recorder.runtime.add(network(plugins=plugins), TARGET)
        given = [call["netconf"].get("runtimeConfig") for call in recorder.calls()]
        assert given == [{"ips": ["10.1.0.9/24"]}, {"by": "hand"}, None]

    def test_result_is_cached_with_everything_that_a_later_del_needs(self, recorder: Recorder) -> None:
        chosen = network()
        recorder.runtime.add(chosen, TARGET)
        assert recorder.cache.load("lab", "c1", "eth0") == CachedAttachment(
            network="lab",
            container_id="c1",
            ifname="eth0",
            result=result("10.0.0.3/24"),
            netns="/run/netns/blue",
            args=TARGET.args,
            capability_args=TARGET.capability_args,
            config=chosen.raw,
        )

    def test_result_without_a_version_has_the_networks(self, recorder: Recorder) -> None:
        recorder.plugin("first", ADD=prints({"ips": [{"address": "10.0.0.1/24"}]}))
        recorder.runtime.add(network(types=("first", "second")), TARGET)
        assert recorder.calls()[1]["netconf"]["prevResult"] == result("10.0.0.1/24")

    def test_null_result_is_an_empty_one(self, recorder: Recorder) -> None:
        recorder.plugin("first", ADD="echo null")
        assert recorder.runtime.add(network(types=("first",)), TARGET).ips == ()

    def test_result_of_another_version_is_converted(self, recorder: Recorder) -> None:
        recorder.plugin("first", ADD=prints({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/24"}}))
        recorder.runtime.add(network(types=("first", "second")), TARGET)
        assert recorder.calls()[1]["netconf"]["prevResult"] == result("10.0.0.1/24")

    def test_failure_ends_the_chain_and_undoes_it_backwards(self, recorder: Recorder) -> None:
        recorder.plugin("second", ADD=fails(11, "busy", "a lock"))
        with pytest.raises(DelegateFailed) as caught:
            recorder.runtime.add(network(), TARGET)
        assert recorder.order() == ["ADD first", "ADD second", "DEL third", "DEL second", "DEL first"]
        assert caught.value.code == 11
        assert caught.value.msg == "ADD network 'lab': plugin 'second' (2 of 3): busy"
        assert caught.value.details == "a lock; try again in a moment; undone with DEL"
        assert recorder.cache.attachments() == []

    def test_undoing_has_no_prev_result_and_the_targets_environment(self, recorder: Recorder) -> None:
        recorder.plugin("second", ADD=fails())
        with pytest.raises(DelegateFailed):
            recorder.runtime.add(network(), TARGET)
        for call in recorder.calls()[2:]:
            assert "prevResult" not in call["netconf"]
            assert call["env"]["CNI_NETNS"] == "/run/netns/blue"

    def test_undoing_goes_on_to_the_end_and_reports_everything(self, recorder: Recorder) -> None:
        recorder.plugin("second", ADD=fails(msg="first trouble"), DEL=fails(msg="second trouble"))
        recorder.plugin("third", DEL=fails(msg="third trouble"))
        with pytest.raises(DelegateFailed, match="first trouble") as caught:
            recorder.runtime.add(network(), TARGET)
        assert recorder.order()[2:] == ["DEL third", "DEL second", "DEL first"]
        assert "third trouble" in caught.value.details
        assert "second trouble" in caught.value.details

    def test_undoing_can_be_left_to_the_caller(self, recorder: Recorder) -> None:
        recorder.plugin("second", ADD=fails())
        with pytest.raises(DelegateFailed):
            recorder.runtime.add(network(), TARGET, undo=False)
        assert recorder.order() == ["ADD first", "ADD second"]

    def test_undoing_leaves_an_interface_alone_that_was_there_before(
        self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(netns, "has_link", lambda _path, _ifname: True)
        recorder.plugin("second", ADD=fails())
        with pytest.raises(DelegateFailed) as caught:
            recorder.runtime.add(network(), TARGET)
        assert [call["env"]["CNI_NETNS"] for call in recorder.calls() if call["verb"] == "DEL"] == ["", "", ""]
        assert "'eth0' had been there before" in caught.value.details

    def test_interruption_undoes_too(self, recorder: Recorder) -> None:
        def interrupt(step: Step) -> None:
            if (step.verb, step.number, step.seconds) == ("ADD", 2, None):
                raise KeyboardInterrupt

        runtime = Runtime([str(recorder.bin)], recorder.cache, watch=interrupt)
        with pytest.raises(KeyboardInterrupt) as caught:
            runtime.add(network(), TARGET)
        assert recorder.order() == ["ADD first", "DEL third", "DEL second", "DEL first"]
        assert caught.value.__notes__ == ["undone with DEL"]

    @pytest.mark.parametrize("printed", ["echo garbage", "echo '[]'", "true", prints({"cniVersion": "9.0.0"})])
    def test_result_that_is_not_one_is_a_failure(self, recorder: Recorder, printed: str) -> None:
        recorder.plugin("second", ADD=printed)
        with pytest.raises(DelegateFailed, match="plugin 'second' ended well, but its result is not one"):
            recorder.runtime.add(network(), TARGET)
        assert recorder.order()[-1] == "DEL first"

    def test_result_that_cannot_be_stored_is_a_failure(
        self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_attachment: CachedAttachment) -> None:
            raise IoFailure("store result: no space left on device")

        monkeypatch.setattr(recorder.cache, "store", fail)
        with pytest.raises(IoFailure, match="no space left"):
            recorder.runtime.add(network(), TARGET)
        assert recorder.order()[3:] == ["DEL third", "DEL second", "DEL first"]

    def test_missing_binary_is_found_out_before_anything_runs(self, recorder: Recorder) -> None:
        (recorder.bin / "third").unlink()
        with pytest.raises(InvalidEnvironment, match="find plugin 'third'"):
            recorder.runtime.add(network(), TARGET)
        assert recorder.order() == []

    def test_second_add_is_refused(self, recorder: Recorder) -> None:
        recorder.runtime.add(network(), TARGET)
        recorder.forget()
        with pytest.raises(InvalidEnvironment, match="is attached as 'eth0' already"):
            recorder.runtime.add(network(), TARGET)
        assert recorder.order() == []
        assert recorder.cache.load("lab", "c1", "eth0") is not None

    def test_damaged_result_of_a_crash_is_replaced(self, recorder: Recorder) -> None:
        path = Path(recorder.cache.path("lab", "c1", "eth0"))
        path.parent.mkdir(parents=True)
        path.write_text('{"kind":"cniCac')
        recorder.runtime.add(network(), TARGET)
        assert recorder.cache.load("lab", "c1", "eth0") is not None

    def test_other_interfaces_and_containers_have_their_own_result(self, recorder: Recorder) -> None:
        for container_id, ifname in (("c1", "eth0"), ("c1", "eth1"), ("c2", "eth0")):
            recorder.runtime.add(network(), Target(container_id, ifname, "/run/netns/blue"))
        assert len(recorder.cache.attachments("lab")) == 3

    @pytest.mark.parametrize("container_id", ["", "-c", "a b", "a/b", "c1\n", "ü"])
    def test_bad_container_id_is_refused(self, recorder: Recorder, container_id: str) -> None:
        with pytest.raises(InvalidEnvironment, match="use container id"):
            recorder.runtime.add(network(), Target(container_id, "eth0", "/run/netns/blue"))
        assert recorder.order() == []

    @pytest.mark.parametrize("ifname", ["", ".", "..", "a/b", "a:b", "a b", "a\u2003b", "e" * 16, "ü" * 8, "veth%d"])
    def test_bad_ifname_is_refused(self, recorder: Recorder, ifname: str) -> None:
        with pytest.raises(InvalidEnvironment, match="use interface name"):
            recorder.runtime.add(network(), Target("c1", ifname, "/run/netns/blue"))
        assert recorder.order() == []

    def test_bad_network_name_is_refused(self, recorder: Recorder) -> None:
        with pytest.raises(InvalidConfig, match="use network"):
            recorder.runtime.add(network(name="a/b"), TARGET)

    def test_missing_netns_is_refused(self, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        with pytest.raises(InvalidNetns, match="no such file or directory"):
            recorder.runtime.add(network(), TARGET)
        assert recorder.order() == []

    def test_steps_are_reported(self, recorder: Recorder) -> None:
        recorder.runtime.add(network(types=("first", "second")), TARGET)
        told = [(step.verb, step.plugin, step.number, step.total, step.seconds is None) for step in recorder.steps]
        assert told == [
            ("ADD", "first", 1, 2, True),
            ("ADD", "first", 1, 2, False),
            ("ADD", "second", 2, 2, True),
            ("ADD", "second", 2, 2, False),
        ]


class TestDelete:
    @pytest.fixture(autouse=True)
    def added(self, recorder: Recorder) -> None:
        recorder.runtime.add(network(), TARGET)
        recorder.forget()

    def test_order_is_reversed_and_everybody_gets_the_final_result(self, recorder: Recorder) -> None:
        recorder.runtime.delete(network(), TARGET)
        assert recorder.order() == ["DEL third", "DEL second", "DEL first"]
        assert all(call["netconf"]["prevResult"] == result("10.0.0.3/24") for call in recorder.calls())
        assert recorder.cache.attachments() == []

    def test_first_failure_ends_it_and_keeps_the_result(self, recorder: Recorder) -> None:
        recorder.plugin("second", DEL=fails(7, "bad field"))
        with pytest.raises(DelegateFailed) as caught:
            recorder.runtime.delete(network(), TARGET)
        assert recorder.order() == ["DEL third", "DEL second"]
        assert caught.value.code == 7
        assert caught.value.details == "correct lab.conflist"
        assert recorder.cache.load("lab", "c1", "eth0") is not None

    def test_can_be_repeated_until_it_succeeds(self, recorder: Recorder) -> None:
        recorder.plugin("second", DEL=fails())
        with pytest.raises(DelegateFailed):
            recorder.runtime.delete(network(), TARGET)
        recorder.plugin("second")
        recorder.forget()
        recorder.runtime.delete(network(), TARGET)
        assert recorder.order() == ["DEL third", "DEL second", "DEL first"]
        assert recorder.calls()[0]["netconf"]["prevResult"] == result("10.0.0.3/24")

    def test_keep_going_runs_every_plugin_and_reports_every_failure(self, recorder: Recorder) -> None:
        recorder.plugin("second", DEL=fails(11, "second trouble"))
        recorder.plugin("third", DEL=fails(7, "third trouble"))
        with pytest.raises(DelegateFailed, match="third trouble") as caught:
            recorder.runtime.delete(network(), TARGET, keep_going=True)
        assert recorder.order() == ["DEL third", "DEL second", "DEL first"]
        assert caught.value.code == 7
        assert "second trouble" in caught.value.details
        assert recorder.cache.load("lab", "c1", "eth0") is not None

    def test_second_del_still_calls_the_plugins(self, recorder: Recorder) -> None:
        recorder.runtime.delete(network(), TARGET)
        recorder.forget()
        recorder.runtime.delete(network(), TARGET)
        assert recorder.order() == ["DEL third", "DEL second", "DEL first"]
        assert all("prevResult" not in call["netconf"] for call in recorder.calls())

    def test_empty_netns_is_passed_on(self, recorder: Recorder) -> None:
        recorder.runtime.delete(network(), Target("c1", "eth0"))
        assert {call["env"]["CNI_NETNS"] for call in recorder.calls()} == {""}

    def test_old_version_has_no_prev_result_and_the_file_goes_nevertheless(self, recorder: Recorder) -> None:
        recorder.runtime.delete(network("0.3.1"), TARGET)
        assert all("prevResult" not in call["netconf"] for call in recorder.calls())
        assert recorder.cache.attachments() == []

    def test_result_is_converted_to_the_current_version(self, recorder: Recorder) -> None:
        recorder.runtime.delete(network("0.4.0"), TARGET)
        prev_result = recorder.calls()[0]["netconf"]["prevResult"]
        assert prev_result["ips"] == [{"version": "4", "address": "10.0.0.3/24"}]

    @pytest.mark.parametrize("content", ["garbage", '{"cniVersion": "9.0.0"}', '{"ips": 5, "cniVersion": "1.0.0"}'])
    def test_damaged_result_does_not_stand_in_the_way(self, recorder: Recorder, content: str) -> None:
        path = Path(recorder.cache.path("lab", "c1", "eth0"))
        path.write_text(content)
        recorder.plugin("first", DEL=fails())
        with pytest.raises(DelegateFailed):
            recorder.runtime.delete(network(), TARGET)
        assert not path.exists(), "thrown away, although a plugin failed"
        assert all("prevResult" not in call["netconf"] for call in recorder.calls())


class TestCheck:
    @pytest.fixture(autouse=True)
    def added(self, recorder: Recorder) -> None:
        recorder.runtime.add(network(), TARGET)
        recorder.forget()

    def test_order_is_that_of_add_and_everybody_gets_the_final_result(self, recorder: Recorder) -> None:
        assert recorder.runtime.check(network(), TARGET)
        assert recorder.order() == ["CHECK first", "CHECK second", "CHECK third"]
        assert all(call["netconf"]["prevResult"] == result("10.0.0.3/24") for call in recorder.calls())

    def test_first_failure_ends_it(self, recorder: Recorder) -> None:
        recorder.plugin("second", CHECK=fails(105, "no route"))
        with pytest.raises(DelegateFailed, match="no route") as caught:
            recorder.runtime.check(network(), TARGET)
        assert recorder.order() == ["CHECK first", "CHECK second"]
        assert caught.value.code == 105

    def test_disable_check_calls_nobody(self, recorder: Recorder) -> None:
        assert not recorder.runtime.check(network(disableCheck=True), TARGET)
        assert recorder.order() == []

    def test_version_without_check_is_refused(self, recorder: Recorder) -> None:
        with pytest.raises(IncompatibleVersion):
            recorder.runtime.check(network("0.3.1"), TARGET)
        assert recorder.order() == []

    def test_damaged_result_is_an_error(self, recorder: Recorder) -> None:
        Path(recorder.cache.path("lab", "c1", "eth0")).write_text("garbage")
        with pytest.raises(InvalidConfig):
            recorder.runtime.check(network(), TARGET)
        assert recorder.order() == []

    def test_without_a_cached_result_the_plugins_judge(self, recorder: Recorder) -> None:
        recorder.cache.remove("lab", "c1", "eth0")
        recorder.runtime.check(network(), TARGET)
        assert all("prevResult" not in call["netconf"] for call in recorder.calls())


class TestGc:
    VALID = Attachment("c1", "eth0")

    @pytest.fixture(autouse=True)
    def added(self, recorder: Recorder) -> None:
        for container_id in ("c1", "c2"):
            recorder.runtime.add(
                network(types=("first", "second")), Target(container_id, "eth0", f"/run/netns/{container_id}")
            )
        recorder.runtime.add(network(types=("first",), name="other"), Target("c3", "eth0", "/run/netns/c3"))
        recorder.forget()

    def test_stale_attachments_get_del_then_every_plugin_gets_gc(self, recorder: Recorder) -> None:
        collected = recorder.runtime.gc(network(types=("first", "second")), lambda _: [self.VALID])
        assert recorder.order() == ["DEL second", "DEL first", "GC first", "GC second"]
        assert {call["env"]["CNI_NETNS"] for call in recorder.calls()[:2]} == {"/run/netns/c2"}
        assert collected is not None
        assert collected.deleted == (Attachment("c2", "eth0"),)
        assert [found.container_id for found in recorder.cache.attachments()] == ["c1", "c3"]

    def test_valid_list_is_sent_under_both_keys(self, recorder: Recorder) -> None:
        recorder.runtime.gc(network(types=("first", "second")), lambda _: [self.VALID])
        listed = [{"containerID": "c1", "ifname": "eth0"}]
        for call in recorder.calls()[2:]:
            assert call["netconf"]["cni.dev/valid-attachments"] == listed
            assert call["netconf"]["cni.dev/attachments"] == listed
            assert (call["netconf"]["name"], call["netconf"]["cniVersion"]) == ("lab", "1.1.0")
            assert "prevResult" not in call["netconf"]
            assert call["env"]["CNI_CONTAINERID"] == call["env"]["CNI_NETNS"] == call["env"]["CNI_IFNAME"] == ""

    def test_empty_list_is_sent_as_an_empty_list(self, recorder: Recorder) -> None:
        recorder.runtime.gc(network(types=("first",)), lambda _: [])
        assert recorder.calls()[-1]["netconf"]["cni.dev/valid-attachments"] == []
        assert [found.network for found in recorder.cache.attachments()] == ["other"]

    def test_valid_list_in_the_configuration_is_not_believed(self, recorder: Recorder) -> None:
        plugins = [{"type": "first", "cni.dev/valid-attachments": [], "cni.dev/attachments": []}]
        recorder.runtime.gc(network(plugins=plugins), lambda _: [self.VALID])
        assert len(recorder.calls()[-1]["netconf"]["cni.dev/valid-attachments"]) == 1
        recorder.forget()
        recorder.runtime.status(network(plugins=plugins))
        assert not any(key.startswith("cni.dev/") for key in recorder.calls()[0]["netconf"])

    def test_failures_do_not_end_it_and_are_all_reported(self, recorder: Recorder) -> None:
        recorder.plugin("second", DEL=fails(msg="del trouble"))
        recorder.plugin("first", GC=fails(msg="gc trouble"))
        with pytest.raises(DelegateFailed, match="del trouble") as caught:
            recorder.runtime.gc(network(types=("first", "second")), lambda _: [self.VALID])
        assert recorder.order() == ["DEL second", "GC first", "GC second"]
        assert "gc trouble" in caught.value.details

    def test_version_without_gc_still_deletes(self, recorder: Recorder) -> None:
        collected = recorder.runtime.gc(network("1.0.0", types=("first",)), lambda _: [self.VALID])
        assert recorder.order() == ["DEL first"]
        assert collected is not None
        assert not collected.asked

    def test_disable_gc_calls_nobody(self, recorder: Recorder) -> None:
        assert recorder.runtime.gc(network(disableGC="true"), lambda _: []) is None
        assert recorder.order() == []


class TestStatus:
    def test_plugins_are_asked_in_order_with_nothing_but_name_and_version(self, recorder: Recorder) -> None:
        assert recorder.runtime.status(network(types=("first", "second")))
        assert recorder.order() == ["STATUS first", "STATUS second"]
        expected = {"type": "first", "unknown": {"kept": [1]}, "name": "lab", "cniVersion": "1.1.0"}
        assert recorder.calls()[0]["netconf"] == expected

    @pytest.mark.parametrize("code", [50, 51])
    def test_code_survives(self, recorder: Recorder, code: int) -> None:
        recorder.plugin("first", STATUS=fails(code, "no addresses left"))
        with pytest.raises(DelegateFailed, match="no addresses left") as caught:
            recorder.runtime.status(network())
        assert caught.value.code == code
        assert recorder.order() == ["STATUS first"]

    def test_version_without_status_asks_nobody(self, recorder: Recorder) -> None:
        assert not recorder.runtime.status(network("1.0.0"))
        assert recorder.order() == []


class TestLocks:
    def test_one_container_is_worked_on_by_one_at_a_time(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        with locks.container_locked(path, "c1"):
            assert not enters(lambda: locks.container_locked(path, "c1"))
            assert enters(lambda: locks.container_locked(path, "c2"))
        assert enters(lambda: locks.container_locked(path, "c1"))

    def test_gc_is_alone(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        with locks.container_locked(path, "c1"):
            assert not enters(lambda: locks.everything_locked(path))
        with locks.everything_locked(path):
            assert not enters(lambda: locks.container_locked(path, "c1"))
            assert not enters(lambda: locks.everything_locked(path))

    def test_lock_that_cannot_be_made_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(CniError, match="open lock"), locks.container_locked(str(tmp_path / "file" / "lock"), "c1"):
            pass


def enters(make_lock: Callable[[], Any], within_s: float = 0.1) -> bool:
    """Whether another thread gets the lock soon; it gets it at the latest when the caller gives up its own."""
    entered = threading.Event()

    def work() -> None:
        with make_lock():
            entered.set()

    threading.Thread(target=work, daemon=True).start()
    return entered.wait(within_s)

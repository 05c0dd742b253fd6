"""The result cache is libcni's, byte for byte, and better only where nobody can tell (L-1 to L-7)."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from cnisandbox.errors import InvalidConfig, IoFailure
from cnisandbox.runtime.cache import CachedAttachment, ResultCache

CONFIG = b'{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"bridge"}]}\n'
# Written by podman 4.3.1 (libcni 1.1.2); the config is shortened.
FROM_PODMAN = (
    '{"kind":"cniCacheV1","containerId":"de10d2daf5aa","config":"' + base64.b64encode(CONFIG).decode() + '",'
    '"ifName":"eth0","networkName":"lab","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAME","web"]],'
    '"capabilityArgs":{"aliases":{"lab":["de10d2daf5aa"]},'
    '"portMappings":[{"hostPort":18080,"containerPort":80,"protocol":"tcp"}]},'
    '"result":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"mac":"0a:e9:10:06:8b:87","name":"lab0"},'
    '{"mac":"4a:dd:49:47:d0:79","name":"eth0","sandbox":"/run/netns/netns-aa3b7bc6"}],'
    '"ips":[{"address":"10.88.0.2/16","gateway":"10.88.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}}'
)
# As libcni 1.3 writes it, with the netns; the characters that Go escapes are in it.
FROM_LIBCNI = (
    '{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"lab",'
    '"netns":"/run/netns/a\\u0026b","cniArgs":[["K","\\u003cv\\u003e"]],"result":{"cniVersion":"1.1.0"}}'
)
RESULT = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.2/24"}]}


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(str(tmp_path / "cni"))


def put(cache: ResultCache, name: str, content: str | bytes) -> Path:
    path = Path(cache.results, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def attachment(network: str = "lab", container_id: str = "c1", ifname: str = "eth0", **more: Any) -> CachedAttachment:
    return CachedAttachment(network, container_id, ifname, **({"result": RESULT} | more))


def test_path_is_network_container_and_interface(cache: ResultCache) -> None:
    cache.store(attachment())
    assert os.listdir(cache.results) == ["lab-c1-eth0"]
    assert cache.path("lab", "c1", "eth0") == os.path.join(cache.directory, "results", "lab-c1-eth0")


@pytest.mark.parametrize(("name", "text"), [("lab-de10d2daf5aa-eth0", FROM_PODMAN), ("lab-c1-eth0", FROM_LIBCNI)])
def test_file_of_libcni_is_read_and_written_back_byte_for_byte(cache: ResultCache, name: str, text: str) -> None:
    path = put(cache, name, text)
    loaded = cache.load(*name.split("-"))
    assert loaded is not None
    path.unlink()
    cache.store(loaded)
    assert path.read_text() == text


def test_members_of_a_file_of_podman(cache: ResultCache) -> None:
    put(cache, "lab-de10d2daf5aa-eth0", FROM_PODMAN)
    loaded = cache.load("lab", "de10d2daf5aa", "eth0")
    assert loaded is not None
    assert loaded.config == CONFIG
    assert loaded.args == (("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web"))
    assert loaded.capability_args["portMappings"] == [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]
    assert loaded.netns == ""
    assert loaded.sandbox() == "/run/netns/netns-aa3b7bc6"


def test_file_and_directory_are_for_root_only(cache: ResultCache) -> None:
    cache.store(attachment())
    assert stat.S_IMODE(os.stat(cache.results).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(cache.path("lab", "c1", "eth0")).st_mode) == 0o600


def test_storing_again_replaces_and_leaves_no_temporary_file(cache: ResultCache) -> None:
    cache.store(attachment())
    cache.store(attachment(netns="/run/netns/blue"))
    loaded = cache.load("lab", "c1", "eth0")
    assert loaded is not None
    assert loaded.netns == "/run/netns/blue"
    assert os.listdir(cache.results) == ["lab-c1-eth0"]


def test_failed_write_leaves_the_old_file(cache: ResultCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(attachment())
    before = Path(cache.path("lab", "c1", "eth0")).read_bytes()

    def fail(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IoFailure, match="no space left on device"):
        cache.store(attachment(netns="/run/netns/blue"))
    assert Path(cache.path("lab", "c1", "eth0")).read_bytes() == before
    assert os.listdir(cache.results) == ["lab-c1-eth0"]


def test_what_a_crash_left_is_not_listed_and_goes_with_the_next_store(
    cache: ResultCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            cache.store(attachment())
    assert len(os.listdir(cache.results)) == 1
    assert cache.attachments() == []
    cache.store(attachment())
    assert os.listdir(cache.results) == ["lab-c1-eth0"]


def test_file_name_too_long_is_an_error(cache: ResultCache) -> None:
    with pytest.raises(IoFailure, match="file name too long"):
        cache.store(attachment(container_id="c" * 300))


def test_legacy_file_is_a_bare_result(cache: ResultCache) -> None:
    put(cache, "lab-c1-eth0", json.dumps(RESULT))
    loaded = cache.load("lab", "c1", "eth0")
    assert loaded is not None
    assert (loaded.result, loaded.config, loaded.netns) == (RESULT, b"", "")
    assert cache.attachments() == [], "it does not say whose it is"


def test_keys_are_matched_in_any_case(cache: ResultCache) -> None:
    put(cache, "lab-c1-eth0", FROM_LIBCNI.replace("containerId", "CONTAINERID").replace("ifName", "ifname"))
    assert cache.load("lab", "c1", "eth0") is not None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe",
        '{"kind":"cniCacheV1"}',
        FROM_LIBCNI.replace('"e30="', '"&"'),
        FROM_LIBCNI.replace('"e30="', "5"),
        FROM_LIBCNI.replace('[["K"', '[[5,"K"'),
        FROM_LIBCNI.replace('"result":{', '"result":5,"x":{'),
        "[" * 100_000,
    ],
)
def test_damaged_file_is_an_error_to_load_and_skipped_in_the_list(cache: ResultCache, content: str | bytes) -> None:
    path = put(cache, "lab-c1-eth0", content)
    cache.store(attachment("other"))
    with pytest.raises(InvalidConfig, match="read cached result"):
        cache.load("lab", "c1", "eth0")
    assert [found.network for found in cache.attachments()] == ["other"]
    cache.remove("lab", "c1", "eth0")
    assert not path.exists()


class TestNamesWithHyphens:
    """ "a-b" + "c" and "a" + "b-c" give one file name; the members inside decide whose it is."""

    def test_other_attachment_is_not_found(self, cache: ResultCache) -> None:
        cache.store(attachment("a-b", "c"))
        assert cache.load("a", "b-c", "eth0") is None
        assert cache.load("a-b", "c", "eth0") is not None

    def test_other_attachment_is_not_overwritten(self, cache: ResultCache) -> None:
        cache.store(attachment("a-b", "c"))
        with pytest.raises(InvalidConfig, match="another attachment"):
            cache.store(attachment("a", "b-c"))
        assert [found.network for found in cache.attachments()] == ["a-b"]

    def test_other_attachment_is_not_removed(self, cache: ResultCache) -> None:
        cache.store(attachment("a-b", "c"))
        cache.remove("a", "b-c", "eth0")
        assert cache.load("a-b", "c", "eth0") is not None

    def test_list_of_a_network_goes_by_the_members(self, cache: ResultCache) -> None:
        cache.store(attachment("a-b", "c"))
        cache.store(attachment("a", "d"))
        assert [found.key for found in cache.attachments("a")] == [("a", "d", "eth0")]


def test_list_is_sorted_by_file_name(cache: ResultCache) -> None:
    for container_id in ("c3", "c1", "c2"):
        cache.store(attachment(container_id=container_id))
    assert [found.container_id for found in cache.attachments()] == ["c1", "c2", "c3"]


def test_missing_directory_is_an_empty_cache(cache: ResultCache) -> None:
    assert cache.attachments() == []
    assert cache.load("lab", "c1", "eth0") is None
    cache.remove("lab", "c1", "eth0")


def test_directory_that_cannot_be_listed_is_no_empty_cache(cache: ResultCache) -> None:
    Path(cache.directory).mkdir()
    Path(cache.results).write_text("a file")
    with pytest.raises(IoFailure, match="list cached results"):
        cache.attachments()

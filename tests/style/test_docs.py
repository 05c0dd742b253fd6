"""What the documents say is so: links lead somewhere, commands parse, examples run, tables agree with the code."""

import ast
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cnisandbox
from cnisandbox.boundary.confinement import STAGES
from cnisandbox.cli import launcher
from cnisandbox.cli import main as cli
from cnisandbox.runtime.conflist import NetworkList, load_network
from cnisandbox.runtime.network import Runtime, Target
from tests.escape.vectors import markdown
from tests.interop.plugin_calls import Plugins
from tests.world import World

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("deploy/*.md"))]
LIBRARY = ROOT / "docs" / "library.md"
BRIDGE = ROOT / "docs" / "plugins" / "bridge.md"

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
# A name in a document is that of the reader's machine, not of one that somebody wrote it on.
FORBIDDEN = re.compile(r"/root/|/home/|TODO|FIXME", re.IGNORECASE)
NOT_KEYS = {"args", "cni", "runtimeConfig"}


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _between(document: Path, name: str) -> str:
    text = document.read_text()
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- /{re.escape(name.split(':')[0])} -->", text, re.DOTALL)
    assert found, f"{_ids(document)} has no section {name!r}"
    return found[1]


def _example(document: Path, name: str) -> str:
    found = re.fullmatch(r"```\w+\n(.*?)```\n", _between(document, f"example: {name}"), re.DOTALL)
    assert found, f"example {name!r} is not one code block"
    return found[1]


def test_the_results_are_those_of_the_measurement() -> None:
    """The tables of blast-radius.md are those that `audit report` has written, as they stand beside its figures."""
    document = ROOT / "docs" / "blast-radius.md"
    measured = (document.with_suffix("") / "audit.md").read_text()
    tables = dict(re.findall(r"^## (.*)\n\n((?:\|.*\n)+)", measured, re.MULTILINE))
    quoted = re.findall(r"<!-- blast-radius: (.*) -->\n((?:\|.*\n)*)<!-- /blast-radius -->", document.read_text())
    assert dict(quoted) == tables


def _blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{_ids(document)}: {target}"
        assert not anchor or anchor in _anchors(file), f"{_ids(document)}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_nothing_of_the_writers_machine_is_named(document: Path) -> None:
    assert FORBIDDEN.findall(document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_every_json_block_is_json(document: Path) -> None:
    for block in _blocks(document, "json"):
        json.loads(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_every_python_block_compiles(document: Path) -> None:
    for block in _blocks(document, "python"):
        compile(block, _ids(document), "exec")


def _commands(document: Path) -> Iterator[list[str]]:
    for block in _blocks(document, "console"):
        for line in block.splitlines():
            prompt, _, command = line.partition(" ")
            if prompt in {"$", "#"}:
                words = shlex.split(command, comments=True)
                yield words[1:] if words and words[0] == "sudo" else words


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_every_command_of_ours_exists(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = set(re.findall(r"^([a-z]+(?: [a-z]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for target in targets for word in target.split()}
    for words in _commands(document):
        if words[:1] in (["./bootstrap"], ["make"]):
            assert words[1] in known, words
        if words[:1] == ["cnisandbox"]:
            assert words[1] in {command.name for command in cli.COMMANDS}, words
            _require_parsable(words[1:], capsys)


def _require_parsable(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = words[: words.index("--")] if "--" in words else words  # what follows is another program's
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in shown, words


def test_public_names_are_documented() -> None:
    lines = _between(LIBRARY, "public-api").splitlines()
    listed = [re.fullmatch(r"- `(\w+)` — .+", line) for line in lines]
    assert [found[1] for found in listed if found] == sorted(cnisandbox.__all__)
    assert all(listed)


def test_stages_of_the_drop_are_documented() -> None:
    lines = _between(ROOT / "docs" / "security-model.md", "drop-stages").splitlines()
    assert lines == [f"{number}. **{name}**: {text}" for number, (name, text) in enumerate(STAGES.items(), 1)]


def test_keys_of_bridge_are_documented() -> None:
    rows = [line for line in _between(BRIDGE, "keys").splitlines() if line.startswith("| `")]
    listed = {word for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1]) for word in _words(key)}
    tree = ast.parse((ROOT / "cnisandbox" / "bridge_config.py").read_text())
    subscripts = (node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript))
    read = {node.value for node in subscripts if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert listed - NOT_KEYS == read - NOT_KEYS


def _words(key: str) -> list[str]:
    return key.replace("[]", "").split(".")


def test_every_plugin_has_a_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "plugins").glob("*.md")}
    assert pages == set(launcher.plugin_names())


def test_table_of_plugins_in_the_readme_is_complete() -> None:
    linked = re.findall(r"\(docs/plugins/([\w-]+)\.md\)", (ROOT / "README.md").read_text())
    assert sorted(set(linked)) == launcher.plugin_names()


@pytest.mark.parametrize("document", [ROOT / "README.md", LIBRARY], ids=_ids)
def test_sandbox_example_runs(
    world: World, document: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.netns("blue")
    world.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "blue"])
    module = tmp_path / "example.py"
    module.write_text(_example(document, "sandbox"))

    world.call(lambda: exec(compile(module.read_text(), str(module), "exec"), {"__name__": "example"}))

    mac, state = capfd.readouterr().out.splitlines()
    assert mac == world.link("eth0", netns="blue")["address"]
    assert state.endswith("0x1000")
    addresses = world.ip("-4", "address", "show", "dev", "eth0", netns="blue")[0]["addr_info"]
    assert [address["local"] for address in addresses] == ["10.1.2.3"]


@pytest.fixture
def example_plugin(plugin_dir: str) -> Iterator[str]:
    """Install the plugin of docs/library.md as the page says; yields the directory."""
    path = Path(plugin_dir) / "wire"
    head = f"#!{sys.executable} -IS\nimport sys\n\nsys.path += {launcher.import_directories()!r}\n"
    path.write_text(f"{head}\n{_example(LIBRARY, 'plugin')}\n\nmain()\n")
    path.chmod(0o755)
    yield plugin_dir
    path.unlink()


def test_plugin_example_serves_every_verb(world: World, example_plugin: str) -> None:
    netconf: dict[str, Any] = json.loads(_example(LIBRARY, "netconf"))
    world.netns("blue")
    plugins = Plugins(world, example_plugin)

    result = plugins.call("ADD", netconf).document

    host_end, container_end = result["interfaces"]
    assert result["ips"] == [{"interface": 1, "address": "10.1.2.3/24"}]
    assert world.link("eth0", netns="blue")["address"] == container_end["mac"]
    assert world.link(host_end["name"])["address"] == host_end["mac"]
    plugins.call("CHECK", {**netconf, "prevResult": result})
    assert plugins.call("ADD", netconf, expect=1).document["code"] == 101
    assert world.ifnames("blue") == {"lo", "eth0"}
    for netns in ("blue", ""):
        plugins.call("DEL", netconf, netns=netns)
    assert world.ifnames() == {"lo"}
    assert world.ifnames("blue") == {"lo"}


def test_plugin_example_refuses_a_wrong_field_before_it_changes_anything(world: World, example_plugin: str) -> None:
    netconf: dict[str, Any] = json.loads(_example(LIBRARY, "netconf"))
    world.netns("blue")

    error = Plugins(world, example_plugin).call("ADD", {**netconf, "address": "nowhere"}, expect=1).document

    assert error["code"] == 7
    assert error["msg"].startswith("address: ")
    assert world.ifnames() == {"lo"}


def test_conflist_of_the_readme_gives_two_pods_their_network(world: World, plugin_dir: str, tmp_path: Path) -> None:
    (tmp_path / "10-sandboxed.conflist").write_text(_example(ROOT / "README.md", "conflist"))
    network = load_network(str(tmp_path), "sandboxed")
    for name in ("blue", "red"):
        world.netns(name)

    runtime = Runtime([plugin_dir])
    targets = [Target(f"c-{name}", "eth0", f"/run/netns/{name}") for name in ("blue", "red")]

    _, (address,) = world.call(lambda: [_attached(runtime, network, target) for target in targets], timeout=60)

    world.run(["ping", "-c1", "-W2", address.partition("/")[0]], netns="blue")
    world.call(lambda: [runtime.delete(network, target) for target in targets], timeout=60)
    assert world.ifnames() == {"lo", "cnisandbox0"}


def _attached(runtime: Runtime, network: NetworkList, target: Target) -> list[str]:
    return [ip.address for ip in runtime.add(network, target).ips]


def test_summary_of_the_escape_matrix_is_its_sum() -> None:
    rows = [line.strip("| ").split(" | ") for line in markdown().splitlines()[2:]]
    sums = [sum(row[column] == "**works**" for row in rows) for column in (2, 3, 4)]
    summary = _between(ROOT / "README.md", "escape-summary")
    assert f"| attempts that work, of {len(rows)} | {' | '.join(map(str, sums))} |\n" in summary


def test_readme_has_no_gap_left() -> None:
    if os.environ.get("CNISANDBOX_MUST_RUN") == "1":
        assert "(gap:" not in (ROOT / "README.md").read_text()

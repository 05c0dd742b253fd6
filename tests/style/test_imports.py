"""What may be imported where: by the code that may hold a capability, and by a plugin while it runs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from cnisandbox.cli.launcher import import_directories, package_directory, plugin_names

PACKAGE = package_directory()
LABORATORY = PACKAGE / "laboratory"
BOUNDARY = sorted((PACKAGE / "boundary").glob("*.py"))

# Everything that the boundary imports. Each line is an argument to be had when it grows.
ALLOWED_IN_BOUNDARY = {
    # the interpreter's own, all of it C or nearly
    "_socket",  # AF_NETLINK, a number; no socket is made in the boundary
    "array",  # numbers side by side
    "collections.abc",
    "errno",
    "fcntl",
    "gc",
    "itertools",  # which fields of a record are to be looked at, without a step of the interpreter for each
    "operator",
    "os",
    "pwd",  # the service user
    "select",
    "stat",
    "struct",
    "sys",  # its command line, for the title
    "time",
    "__future__",
    "cnisandbox.hints",
    "cnisandbox.light",
    # ours: the extension, the errors, itself
    "cnisandbox",
    "cnisandbox.errors",
}

# The same for who acts for a worker that has nothing, and for what executes a plugin that is not ours.
ALLOWED_IN_MONITOR = {
    "_socket",  # netlink sockets, made for a worker
    "array",  # descriptors that the opener passes on
    "collections.abc",
    "errno",
    "json",  # a gate: what it has understood of the nftables commands is what runs, encoded again
    "os",
    "struct",
}
ALLOWED_IN_RUNNER = {
    "_socket",  # the pair between monitor and opener, and those on which the entry tells them what they are for
    "array",  # descriptors that the entry passes on
    "collections.abc",
    "contextlib",
    "gc",
    "json",  # the keeper's, which has no privilege, for the netconf; and a plan, from the entry to its own forks
    "os",
    "select",
    "signal",
    "stat",
    "struct",
    "time",
}
# The zygote: everything that the runtime has, from its start to the drop of each of its children.
ALLOWED_IN_ZYGOTE = {
    "_socket",  # where launchers connect
    "array",  # descriptors that they pass on
    "collections.abc",
    "contextlib",
    "fcntl",
    "gc",
    "importlib",  # the plugins, by the names of the sockets: before the first connection
    "os",
    "select",
    "signal",
    "struct",
    "sys",
    "time",
}
PARTS_OF_THE_PACKAGE = {
    "monitor": {"audit", "boundary", "errors", "hints", "light", "monitor", "netlink", "nft", "policy", "sysctl"},
    "runner": {"audit", "boundary", "cni", "errors", "hints", "monitor", "netlink", "policy", "profile", "runner"},
    "zygote": {"boundary", "cli", "errors", "hints", "light", "netlink", "plugin", "profile", "runner", "zygote"},
}
# What serves calls that nobody has asked for has in it what engines and workers have; it reads netconfs of ours.
PRACTICE = "practice.py"
PARTS_OF_PRACTICE = {"audit", "cni", "engine", "monitor", "nft"}
LISTS = [("monitor", ALLOWED_IN_MONITOR), ("runner", ALLOWED_IN_RUNNER), ("zygote", ALLOWED_IN_ZYGOTE)]

# What a plugin never loads: parsers and starters that an attacker would love, and what costs milliseconds.
FORBIDDEN_IN_PLUGINS = {
    "_posixsubprocess",
    "argparse",
    "ast",
    "asyncio",
    "cffi",
    "click",
    "concurrent",
    "ctypes",
    "dataclasses",
    "email",
    "http",
    "importlib.metadata",
    "inspect",
    "logging",
    "multiprocessing",
    "optparse",
    "pathlib",
    "pickle",
    "pkg_resources",
    "pyroute2",
    "random",
    "rich",
    "runpy",
    "shutil",
    "site",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "traceback",
    "unittest",
    "urllib",
    "xml",
}

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", "input", "open"}


def imported(path: Path) -> Iterator[str]:
    """Name the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", BOUNDARY, ids=lambda path: path.name)
def test_the_boundary_imports_only_what_is_on_its_list(path: Path) -> None:
    surplus = {
        name
        for name in imported(path)
        if name not in ALLOWED_IN_BOUNDARY and not name.startswith("cnisandbox.boundary")
    }
    assert surplus == set()


def test_the_list_of_the_boundary_has_nothing_that_is_not_used() -> None:
    used = {name for path in BOUNDARY for name in imported(path)}
    assert ALLOWED_IN_BOUNDARY - used == set()


@pytest.mark.parametrize(("folder", "allowed"), LISTS)
def test_monitor_runner_and_zygote_import_what_is_on_their_lists_and_all_of_it(folder: str, allowed: set[str]) -> None:
    used = {path: set(imported(path)) for path in (PACKAGE / folder).glob("*.py")}
    assert {name for names in used.values() for name in names if not name.startswith("cnisandbox")} == allowed
    for path, names in used.items():
        parts = {name.split(".")[1] for name in names if name.startswith("cnisandbox.")}
        assert parts <= PARTS_OF_THE_PACKAGE[folder] | (PARTS_OF_PRACTICE if path.name == PRACTICE else set())


@pytest.mark.parametrize("path", BOUNDARY, ids=lambda path: path.name)
def test_the_boundary_imports_nothing_late_and_runs_no_text(path: Path) -> None:
    tree = ast.parse(path.read_text())
    top_level = {node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert node in top_level, f"{path.name}:{node.lineno}: import in a function"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{path.name}:{node.lineno}: {node.func.id}()"


def test_sockets_of_the_zygote_are_of_one_kind() -> None:
    """Local ones: a launcher cannot be somewhere else, and no netns is reached through them."""
    families = {
        node.attr
        for path in (PACKAGE / "zygote").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("AF_")
    }
    assert families == {"AF_UNIX"}


def test_the_errors_import_nothing_but_os() -> None:
    """They cross the boundary, so they are as trusted as it."""
    assert set(imported(PACKAGE / "errors.py")) == {"os"}


def loaded_with(module: str) -> set[str]:
    """Name every module that is loaded after one was imported, in an interpreter started as a launcher starts it."""
    program = f"import sys; sys.path += {import_directories()!r}; import {module}; print(*sys.modules)"
    command = [sys.executable, "-IS", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


@pytest.mark.parametrize("plugin", plugin_names())
def test_a_plugin_loads_nothing_that_it_should_not_have(plugin: str) -> None:
    module = f"cnisandbox.plugins.{plugin.replace('-', '_')}"
    loaded = loaded_with(module)
    assert module in loaded
    assert {name for name in FORBIDDEN_IN_PLUGINS if name in loaded} == set()


def test_a_zygote_loads_every_plugin_and_nothing_that_it_should_not_have() -> None:
    plugins = [f"cnisandbox.plugins.{plugin.replace('-', '_')}" for plugin in plugin_names()]
    loaded = loaded_with(", ".join(["cnisandbox.zygote.server", "cnisandbox.engine", *plugins]))
    assert loaded >= {*plugins, "cnisandbox.zygote.slot"}
    # `_hashlib` has OpenSSL with it, for each of a zygote's processes.
    assert {name for name in {*FORBIDDEN_IN_PLUGINS, "_hashlib"} if name in loaded} == set()


def test_a_zygote_imports_by_name_only_before_it_serves() -> None:
    """`import_module` stands in what `main` calls before a socket is listened at, and takes a name of ours."""
    tree = ast.parse((PACKAGE / "zygote" / "server.py").read_text())
    users = {
        function.name: [ast.unparse(node.args[0]) for node in ast.walk(function) if is_call_of(node, "import_module")]
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
    }
    assert {name: arguments for name, arguments in users.items() if arguments}.keys() == {"_plugin"}
    assert all(argument.lstrip("f")[1:].startswith("cnisandbox.") for argument in users["_plugin"])


def is_call_of(node: ast.AST, name: str) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


@pytest.mark.parametrize("path", sorted((PACKAGE / "zygote").glob("*.py")), ids=lambda path: path.name)
def test_the_zygote_imports_nothing_late_and_runs_no_text(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Import | ast.ImportFrom) or node in tree.body, f"{path.name}:{node.lineno}"
        for name in FORBIDDEN_CALLS:
            assert not is_call_of(node, name), f"{path.name}: {name}()"


@pytest.mark.parametrize("plugin", plugin_names())
def test_what_a_plugin_imports_late_is_loaded_at_once_where_it_is_not_in_memory(plugin: str) -> None:
    """After the drop no file can be opened."""
    module = f"cnisandbox.plugins.{plugin.replace('-', '_')}"
    loaded = loaded_with(f"{module}, cnisandbox.engine, cnisandbox.late")
    late = {
        node.module
        for name in loaded
        if name.startswith("cnisandbox.") and (path := PACKAGE.parent / f"{name.replace('.', '/')}.py").exists()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom)
    }
    assert "cnisandbox.monitor" in late
    assert {name for name in late if name not in loaded} == set()


def test_a_shim_loads_nothing_that_it_should_not_have() -> None:
    loaded = loaded_with("cnisandbox.cli.shim, cnisandbox.runner.entry")
    assert "cnisandbox.runner.entry" in loaded
    assert {name for name in FORBIDDEN_IN_PLUGINS if name in loaded} == set()


def test_nothing_that_serves_a_call_imports_the_laboratory() -> None:
    may = ("laboratory", "cli")
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in may
        and any(name.startswith("cnisandbox.laboratory") for name in imported(path))
    }
    assert importers == set()


@pytest.mark.parametrize("path", sorted((LABORATORY / "attacker").glob("*.py")), ids=lambda path: path.name)
def test_the_attacker_brings_his_own_tools(path: Path) -> None:
    """He is executed under the runner, where nothing of the project can be read; types are for the reader."""
    names = {name for name in imported(path) if name.startswith("cnisandbox.")}
    assert {name for name in names if not name.startswith("cnisandbox.laboratory.")} == set()


def test_the_check_of_loaded_modules_finds_what_is_there() -> None:
    """The control: the command line, which may load what it likes."""
    assert loaded_with("cnisandbox.cli.net") & FORBIDDEN_IN_PLUGINS >= {"argparse"}


def test_netlink_sockets_are_made_in_their_two_modules_only() -> None:
    """`seccomp` names the family too, to allow it; it makes no socket."""
    makers = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if "AF_NETLINK" in names and not path.is_relative_to(LABORATORY):
            makers.add(path.relative_to(PACKAGE).as_posix())
    assert {maker.split("/")[0] for maker in makers} <= {"netlink", "nft", "boundary", "monitor", "runner"}
    assert {maker for maker in makers if maker.startswith("boundary/")} == {"boundary/seccomp.py"}


def test_sockets_are_made_nowhere_else_on_the_way_of_a_plugin() -> None:
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        # of audit it is journald's, of the zygote the launchers'
        if folder in ("netlink", "nft", "cli", "runtime", "monitor", "runner", "audit", "laboratory", "zygote"):
            continue
        # What waits is given its descriptors over one, which is gone in the call: tests/netns/test_zygote_ahead.py.
        if path.relative_to(PACKAGE).as_posix() == "boundary/ahead.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("socket", "socketpair", "create_connection"), f"{path}:{node.lineno}"

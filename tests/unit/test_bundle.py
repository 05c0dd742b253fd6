"""A bundle of byte code is used when it is exactly what importing would give, and ignored otherwise."""

import ast
import importlib
import importlib.util
import marshal  # noqa: TID251 - what a bundle is made of
import os
import resource
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from cnisandbox import bundle
from cnisandbox.boundary import compiled
from cnisandbox.cli import bytecode, host, launcher
from cnisandbox.cli.probes import DEGRADED, OK, machine

SOURCES = {
    "bundled/__init__.py": "WHERE = 'source'\n",
    "bundled/inner.py": "def fail():\n    raise LookupError('as it should')\n",
}
PACKAGE, INNER = "bundled", "bundled.inner"
ATTRIBUTES = ("__file__", "__cached__", "__path__", "__package__", "__name__")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a package that can be imported; what the test imports of it is forgotten afterwards."""
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    importlib.invalidate_caches()
    yield tmp_path
    for name in (PACKAGE, INNER):
        sys.modules.pop(name, None)


@pytest.fixture
def path(place: Path) -> Path:
    """A bundle of the package. To tell from where a module comes, the bundle has another value than the source."""
    return make(place, "WHERE = 'bundle'\n", is_needed=False)


def make(place: Path, text: str, *, is_needed: bool) -> Path:
    directory = place / "cache"
    directory.mkdir(mode=0o755)
    package, inner = (place / name for name in SOURCES)
    modules: list[bundle.Module] = [
        (INNER, str(inner), importlib.util.cache_from_source(str(inner)), None, is_needed),
        (PACKAGE, str(package), importlib.util.cache_from_source(str(package)), [str(package.parent)], is_needed),
    ]
    codes: list[CodeType | None] = [code_of(inner.read_text(), inner), code_of(text, package)]
    sources = [(str(source), source.stat().st_mtime_ns, source.stat().st_size) for source in (package, inner)]
    made = directory / "a.bundle"
    made.write_bytes(bundle.pack(sys.path, sources, modules, codes))
    made.chmod(0o644)
    return made


def code_of(text: str, path: Path) -> CodeType:
    return compile(text, path, "exec", dont_inherit=True)


def imported(name: str = PACKAGE) -> ModuleType:
    return importlib.import_module(name)


def came_from() -> Any:
    return imported().WHERE  # type: ignore[attr-defined]


class TestUse:
    def test_modules_come_from_the_bundle(self, path: Path) -> None:
        assert bundle.use(str(path))
        assert came_from() == "bundle"

    def test_modules_look_as_if_imported_from_their_files(self, path: Path) -> None:
        def look() -> list[object]:
            modules = [imported(name) for name in (PACKAGE, INNER)]
            return [getattr(module, name, None) for module in modules for name in ATTRIBUTES]

        usual = look()
        for name in (PACKAGE, INNER):
            del sys.modules[name]
        assert bundle.use(str(path))
        assert look() == usual
        assert came_from() == "bundle"

    def test_modules_can_be_imported_when_no_file_can_be_opened(self, path: Path, place: Path) -> None:
        assert bundle.use(str(path))
        for file in (path, *(place / name for name in SOURCES)):
            file.unlink()
        assert came_from() == "bundle"
        assert imported(INNER).__spec__.loader.is_in_memory  # type: ignore[union-attr]

    def test_traceback_shows_the_line_of_the_source(self, path: Path, place: Path) -> None:
        assert bundle.use(str(path))
        with pytest.raises(LookupError) as caught:
            imported(INNER).fail()
        frame = traceback.extract_tb(caught.value.__traceback__)[-1]
        assert (frame.filename, frame.line) == (f"{place}/bundled/inner.py", "raise LookupError('as it should')")

    def test_what_every_call_needs_is_imported_at_once(self, place: Path) -> None:
        usual = [vars(imported(name)) for name in (PACKAGE, INNER)]
        for name in (PACKAGE, INNER):
            del sys.modules[name]
        path = make(place, "from bundled import inner\nWHERE = inner.__name__\n", is_needed=True)
        assert bundle.use(str(path))
        at_once = [sys.modules[name] for name in (PACKAGE, INNER)]
        assert at_once == [imported(name) for name in (PACKAGE, INNER)]
        assert came_from() == INNER
        for then, now in zip(usual, map(vars, at_once), strict=True):
            assert then.keys() == now.keys()
            assert [then.get(name) for name in ATTRIBUTES] == [now.get(name) for name in ATTRIBUTES]
            assert now["__loader__"] is now["__spec__"].loader

    def test_what_has_been_imported_before_is_kept(self, place: Path) -> None:
        before = imported()
        assert bundle.use(str(make(place, "raise LookupError\n", is_needed=True)))
        assert sys.modules[PACKAGE] is before

    def test_other_modules_are_imported_as_usual(self, path: Path, place: Path) -> None:
        (place / "bundled" / "later.py").write_text("WHERE = 'source'\n")
        assert bundle.use(str(path))
        assert imported("bundled.later").WHERE == "source"
        del sys.modules["bundled.later"]


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[Path, Path], None]:
    return lambda path, _: path.write_bytes(change(path.read_bytes())) and None


def touch(_path: Path, place: Path) -> None:
    source = place / "bundled" / "inner.py"
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def grow(_path: Path, place: Path) -> None:
    source = place / "bundled" / "inner.py"
    status = source.stat()
    source.write_text(source.read_text() + "#\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_pipe(path: Path, _place: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def replace_by_link(path: Path, _place: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


SPOILED: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda path, _: path.unlink(),
    "empty": rewrite(lambda _: b""),
    "garbage": rewrite(lambda data: bytes(reversed(data))),
    "garbage after the magic number": rewrite(lambda data: data[:4] + b"\xff" * 100),
    "longer": rewrite(lambda data: data + b"N"),
    "text": rewrite(lambda _: b"#!/bin/sh\nexit 1\n"),
    "another magic number": rewrite(lambda data: bytes([data[0] ^ 1]) + data[1:]),
    "bit flipped in the code": rewrite(lambda data: data[:-20] + bytes([data[-20] ^ 4]) + data[-19:]),
    "another module path": lambda _path, _place: sys.path.append("/nonexistent"),
    "source touched": touch,
    "source of another size": grow,
    "source gone": lambda _, place: (place / "bundled" / "inner.py").unlink(),
    "a directory": lambda path, _: (path.unlink(), path.mkdir()),
    "a pipe": replace_by_pipe,
    "a link": replace_by_link,
    "writable by the group": lambda path, _: path.chmod(0o664),
    "writable by others": lambda path, _: path.chmod(0o646),
    "in a directory that the group may write": lambda path, _: path.parent.chmod(0o775),
    "in a directory that others may write": lambda path, _: path.parent.chmod(0o1777),
    "owned by another": lambda path, _: os.chown(path, 65534, 65534),
    "in a directory of another's": lambda path, _: os.chown(path.parent, 65534, 65534),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_bundle_that_is_not_in_order_is_ignored(path: Path, place: Path, spoil: Callable[[Path, Path], object]) -> None:
    spoil(path, place)
    finders = list(sys.meta_path)
    assert not bundle.use(str(path))
    assert sys.meta_path == finders
    assert came_from() == "source"


def test_bundle_that_is_cut_off_anywhere_is_ignored(path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert not bundle.use(str(path)), length


def test_bundle_without_the_library_that_maps_it_is_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cnisandbox._native")
    assert not bundle.use(str(path))


def test_bundle_that_cannot_be_mapped_is_ignored(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    path.write_bytes(path.read_bytes() + bytes(1 << 26))
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 25), hard))
    try:
        with pytest.raises(ValueError, match="cannot be mapped"):
            bundle.load(str(path), sys.path)
        assert not bundle.use(str(path))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("content", [(), (1, 2), (["x"], [], 3), None, ([], [("x",)], [])])
def test_bundle_of_another_format_is_ignored(path: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    dumps = bundle.marshal.dumps
    monkeypatch.setattr(bundle.marshal, "dumps", lambda _value: dumps(content))
    path.write_bytes(bundle.pack(sys.path, [], [], []))
    assert not bundle.use(str(path))


class TestWriting:
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where this test's bundles are."""
        monkeypatch.setattr(launcher, "bundle_path", lambda plugin: str(tmp_path / f"{plugin}.bundle"))
        return tmp_path

    def test_bundles_are_written_once(self, directory: Path) -> None:
        old = os.umask(0o077)
        try:
            assert bytecode.write_bundles().what == "bundled"
        finally:
            os.umask(old)
        written = {path.name: path.stat() for path in directory.iterdir()}
        assert set(written) == {f"{plugin}.bundle" for plugin in launcher.plugin_names()}
        assert {stat.S_IMODE(status.st_mode) for status in written.values()} == {0o644}
        assert bytecode.write_bundles().what == "unchanged"
        assert {path.name: path.stat() for path in directory.iterdir()} == written

    def test_bundle_has_what_the_plugin_imports_and_nothing_that_is_there_before(self, directory: Path) -> None:
        bytecode.write_bundles()
        search_path, _ = bytecode._list_modules("", "")
        names = bundle.load(str(directory / "loopback.bundle"), search_path).keys()
        assert names >= {
            "cnisandbox",
            "cnisandbox.engine",
            "cnisandbox.plugins.loopback",
            "cnisandbox.monitor.gate",
            "json",
        }
        assert not names & {"encodings", "os", "__main__", "cnisandbox.plugins.bridge"}

    def test_modules_are_in_an_order_in_which_each_can_be_executed(self, directory: Path) -> None:
        bytecode.write_bundles()
        search_path, _ = bytecode._list_modules("", "")
        found = bundle.load(str(directory / "bridge.bundle"), search_path)
        names = list(found)
        assert names.index("cnisandbox.errors") < names.index("cnisandbox.boundary.sandbox") < names.index("cnisandbox")
        needed = {name for name, (module, _) in found.items() if module[-1]}
        assert needed >= {"cnisandbox", "cnisandbox.engine", "cnisandbox.plugins.bridge"}
        assert not needed & {"json", "collections", "cnisandbox.late", "cnisandbox.monitor.gate", "cnisandbox._native"}

    def test_what_is_in_no_bundle_finds_the_standard_library_as_it_is(self, directory: Path) -> None:
        """A profile that nobody has read yet takes `tomllib`, and that `typing`."""
        bytecode.write_bundles([bytecode.SHIM])
        script = f"""
import sys
from _frozen_importlib_external import SourceFileLoader

sys.path += {launcher.import_directories()!r}
bundle = type(sys)("cnisandbox.bundle")
SourceFileLoader(bundle.__name__, {bundle.__file__!r}).exec_module(bundle)
assert bundle.use({str(directory / "shim.bundle")!r})
import tomllib, collections.abc
assert tomllib.loads("a = 1") == {{"a": 1}}
assert collections.abc is sys.modules["_collections_abc"]
"""
        done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, check=False, timeout=20)
        assert (done.returncode, done.stderr) == (0, b"")

    def test_extensions_are_found_where_they_are(self, directory: Path) -> None:
        bytecode.write_bundles()
        search_path, _ = bytecode._list_modules("", "")
        finder = bundle._Finder(bundle.load(str(directory / "bridge.bundle"), search_path))
        for name in ("cnisandbox._native", "cnisandbox._nftables", "_cffi_backend"):
            spec, usual = finder.find_spec(name), importlib.util.find_spec(name)
            assert spec is not None
            assert usual is not None
            assert type(spec.loader) is type(usual.loader)
            assert (spec.origin, spec.cached, spec.has_location) == (usual.origin, usual.cached, usual.has_location)

    def test_filters_of_a_bundle_are_what_would_be_compiled(self, directory: Path) -> None:
        bytecode.write_bundles()
        search_path, _ = bytecode._list_modules("", "")
        _, code = bundle.load(str(directory / "bridge.bundle"), search_path)[compiled.__name__]
        names: dict[str, Any] = {}
        exec(marshal.loads(code), names)
        asked = "from cnisandbox.boundary import compiled, seccomp; from cnisandbox.zygote import runner, server"
        fresh = f"import sys; sys.path = {search_path!r}; {asked}; server._do_once(); print(compiled.PROGRAMS)"
        done = subprocess.run([sys.executable, "-c", fresh], check=True, capture_output=True, text=True, timeout=60)
        assert names["PROGRAMS"] == ast.literal_eval(done.stdout)
        assert {name.partition(" ")[0] for name in names["PROGRAMS"]} >= {
            "engine_filter",
            "delegate_filter",
            "worker_filter",
            "keeper_filter",
        }

    def test_a_bundle_is_no_fresher_than_what_makes_filters(self) -> None:
        sources = [os.path.basename(path) for path in bytecode._filter_makers()]
        assert sources[0].startswith("_native.")
        assert sources[1].startswith("libseccomp.so")
        assert len(sources) == 2

    def test_what_cannot_be_written_is_no_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_path: str, _content: bytes) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(host, "replace_file", fail)
        note = "calls will take longer; bridge: read-only file system"
        assert bytecode.write_bundles() == ("not bundled", "byte code", note)

    def test_plugin_that_cannot_be_imported_does_not_keep_others_from_being_bundled(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launcher, "plugin_names", lambda: ["broken", "loopback"])
        change = bytecode.write_bundles()
        note = "calls will take longer; broken: ModuleNotFoundError: No module named 'cnisandbox.plugins.broken'"
        assert change == ("not bundled", "byte code", note)
        assert [path.name for path in directory.iterdir()] == ["loopback.bundle"]

    def test_what_launchers_would_not_use_is_said_so(self, directory: Path) -> None:
        directory.chmod(0o777)
        change = bytecode.write_bundles()
        assert change.what == "not bundled"
        assert "others than root may write to it" in change.note

    def test_doctor_says_which_are_missing_or_stale(self, directory: Path) -> None:
        assert machine._byte_code().state == DEGRADED
        bytecode.write_bundles()
        assert machine._byte_code().state == OK
        path = directory / "loopback.bundle"
        path.write_bytes(path.read_bytes()[:-1])
        assert machine._byte_code() == (DEGRADED, "loopback: damaged")
        path.unlink()
        assert machine._byte_code() == (DEGRADED, f"loopback: {path}: no such file or directory")


class TestWhatIsLeftOut:
    TEXT = """
'M.'
class A:
    'C.'
    x: int

def f(x: absent, *y: absent, z: absent = 2, **w: absent) -> absent:
    'D.'
    assert x
    return x

def g():
    'E.'

declared = declared_for_delegate = lambda function: function

@declared
def h(x: int) -> str: ...

@declared_for_delegate
def i(x: int) -> str: ...
"""

    @pytest.fixture
    def code(self, tmp_path: Path) -> CodeType:
        (tmp_path / "a.py").write_text(self.TEXT)
        return bytecode._compiled(str(tmp_path / "a.py"))

    def test_what_only_a_reader_uses_is_not_in_a_bundle(self, code: CodeType) -> None:
        names: dict[str, Any] = {"__name__": "a"}
        exec(code, names)
        assert [names["A"].__doc__, names["f"].__doc__, names["g"].__doc__, names.get("__doc__")] == [None] * 4
        assert names["f"].__annotations__ == {}

    def test_what_values_are_checked_against_is_there(self, code: CodeType) -> None:
        names: dict[str, Any] = {"__name__": "a"}
        exec(code, names)
        assert names["A"].__annotations__ == {"x": int}
        assert names["h"].__annotations__ == names["i"].__annotations__ == {"x": int, "return": str}

    def test_what_runs_is_as_it_was(self, code: CodeType) -> None:
        names: dict[str, Any] = {"__name__": "a"}
        exec(code, names)
        assert (names["f"](1), names["g"]()) == (1, None)
        with pytest.raises(AssertionError) as caught:
            names["f"](0)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].lineno == 9

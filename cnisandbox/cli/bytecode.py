"""Writes the bundles of byte code that launchers use, and says which of them are of no use (cnisandbox/bundle.py)."""

import ast
import os
import subprocess
from types import CodeType
from typing import TYPE_CHECKING

from cnisandbox import _native, bundle
from cnisandbox.boundary import calls, compiled
from cnisandbox.cli import host, launcher
from cnisandbox.errors import reason

if TYPE_CHECKING:
    from cnisandbox.bundle import Module, Source

# As a launcher does it, without the bundle, but with the stand-in that `bundle.use` sets: what that spares is needed by
# no call. What the interpreter starts with is loaded before a bundle can be used.
_LIST_MODULES = """\
import _collections_abc, sys
from _frozen_importlib_external import ExtensionFileLoader, SourceFileLoader
sys.path += {directories!r}
sys.modules["collections.abc"] = _collections_abc
executed, execute = [], SourceFileLoader.exec_module
def exec_module(loader, module):
    execute(loader, module)
    executed.append(module)
SourceFileLoader.exec_module = exec_module
{imports}
needed = set(executed)
{late_imports}
specs = [(module.__spec__, module in needed) for module in executed]
loaded = [getattr(module, "__spec__", None) for module in sys.modules.values()]
specs += [(spec, False) for spec in loaded if isinstance(getattr(spec, "loader", None), ExtensionFileLoader)]
print((sys.path, [
    (spec.name, spec.origin, spec.cached, spec.submodule_search_locations, is_needed) for spec, is_needed in specs
]))
"""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What may begin with a docstring.
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)
# Marks of functions whose annotations are looked at when they are called.
_DECLARING = (calls.declared.__name__, calls.declared_for_delegate.__name__)

# The bundle that all shims in front of wrapped plugins use (cnisandbox/cli/shim.py).
SHIM = "shim"
# The runner is not for those that run at level root.
_SHIM_IMPORTS = ("import cnisandbox.cli.shim", "import cnisandbox.runner.entry")


def write_bundles(names: list[str] | None = None) -> launcher.Change:
    """Write bundles, unless all of them are in order; a plugin works without one.

    Args:
        names: Of plugins, or SHIM; by default all plugins, and SHIM if there is one.
    """
    names = _bundles() if names is None else names
    if not unused_bundles(names):
        return launcher.Change("unchanged", "byte code", "in one file for each plugin")
    failures = [f"{plugin}: {why}" for plugin in names if (why := _write_bundle(plugin))]
    if not failures:
        failures = [f"{plugin}: {why}" for plugin, why in unused_bundles(names).items()]
    if failures:
        return launcher.Change("not bundled", "byte code", f"calls will take longer; {failures[0]}")
    return launcher.Change("bundled", "byte code", "in one file for each plugin")


def unused_bundles(names: list[str] | None = None) -> dict[str, str]:
    """Say which bundles a launcher would ignore.

    Args:
        names: Of plugins, or SHIM; by default all plugins, and SHIM if there is one.

    Returns:
        Those names, each with the reason; nothing if all are in order.
    """
    names = _bundles() if names is None else names
    search_path, _ = _list_modules("", "")
    reasons = {name: _why_unused(launcher.bundle_path(name), search_path) for name in names}
    return {plugin: why for plugin, why in reasons.items() if why}


def _bundles() -> list[str]:
    return [*launcher.plugin_names(), *([SHIM] if os.path.exists(launcher.bundle_path(SHIM)) else [])]


def _write_bundle(plugin: str) -> str:
    """Write a bundle.

    Returns:
        Why that is impossible; nothing if it is written.
    """
    try:
        host.replace_file(launcher.bundle_path(plugin), _content(plugin))
    except OSError as error:
        return reason(error)
    except subprocess.CalledProcessError as error:  # a library that only this plugin needs may be missing
        return str(error.stderr).strip().rpartition("\n")[2]
    return ""


def _why_unused(path: str, search_path: list[str]) -> str:
    try:
        bundle.load(path, search_path)
    except OSError as error:
        return f"{error.filename}: {reason(error)}"
    except (ValueError, EOFError, TypeError) as error:
        return str(error)
    return ""


def _content(plugin: str) -> bytes:
    """Compile every module that a plugin imports."""
    always = f"import cnisandbox.plugins.{plugin.replace('-', '_')}, cnisandbox.engine"
    imports = _SHIM_IMPORTS if plugin == SHIM else (always, "import cnisandbox.late")
    search_path, modules = _list_modules(*imports)
    # Its format is what bundle.py makes of it, and its filters what their makers do: it is no fresher than those.
    sources = [_source(path) for path in (bundle.__file__, *_filter_makers())]
    codes: list[CodeType | None] = []
    for name, path, cached, *_ in modules:
        # ORDER: the state first; a change between the two then makes the bundle stale
        sources.append(_source(path))
        if cached is None:
            codes.append(None)
        else:
            codes.append(_filters(path) if name == compiled.__name__ else _compiled(path))
    return bundle.pack(search_path, sources, modules, codes)


def _filter_makers() -> list[str]:
    """The libraries that make filters, as this process has them: ours, and libseccomp."""
    with open("/proc/self/maps", encoding="utf-8") as file:
        mapped = {fields[5].rstrip("\n") for line in file if len(fields := line.split(None, 5)) == 6}
    found = sorted(path for path in mapped if os.path.basename(path).startswith("libseccomp.so"))
    return [str(_native.__file__), *found]


def _filters(path: str) -> CodeType:
    """Compile the filters of all processes that a call is likely to need, into a module of the same shape."""
    from cnisandbox.boundary import workers  # noqa: PLC0415 - they load much, and most commands write no bundle
    from cnisandbox.zygote import runner  # noqa: PLC0415

    workers.compile_filters()
    runner.compile_filters()
    return _code(f"PROGRAMS = {compiled.PROGRAMS!r}", path)


def _source(path: str) -> "Source":
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


def _compiled(path: str) -> CodeType:
    """Compile a module without what is only there to be read; lines stay, for tracebacks."""
    with open(path, "rb") as file:
        tree = ast.parse(file.read(), path)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
        if isinstance(node, _FUNCTIONS) and not _is_declared(node):
            _take_annotations(node)
        place = vars(node)
        if "lineno" in place:  # without the columns, a tenth of the byte code
            place.update(end_lineno=place["lineno"], col_offset=-1, end_col_offset=-1)
    return _code(tree, path)


def _is_declared(function: "ast.FunctionDef | ast.AsyncFunctionDef") -> bool:
    """Whether values are checked against its annotations (cnisandbox/boundary/calls.py)."""
    return any(isinstance(mark, ast.Name) and mark.id in _DECLARING for mark in function.decorator_list)


def _take_annotations(function: "ast.FunctionDef | ast.AsyncFunctionDef") -> None:
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    function.returns = None


def _code(source: ast.Module | str, path: str) -> CodeType:
    code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    assert isinstance(code, CodeType)
    return code


def _list_modules(imports: str, late_imports: str) -> "tuple[list[str], list[Module]]":
    """Ask the interpreter that a launcher starts for its module path, and for what these imports load.

    Args:
        imports: What every call imports.
        late_imports: What some calls import.
    """
    program = _LIST_MODULES.format(
        directories=launcher.import_directories(), imports=imports, late_imports=late_imports
    )
    argv = [launcher.interpreter(), "-IS", "-c", program]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)  # noqa: S603
    search_path, modules = ast.literal_eval(done.stdout)
    return search_path, modules

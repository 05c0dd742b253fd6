"""The byte code of a plugin, all of it out of one file: what a launcher executes before it imports the plugin.

A plugin is a new process for every call, and imports some ninety modules. The import system searches the path for each
of them, asks for its state, opens and reads it. A bundle, which `cnisandbox install` writes, has the code of them all.

    __pycache__/bridge.cpython-311.bundle
      head      magic number of the interpreter's byte code · hashes of the index and of the code · length of the index
      index     the module path that it was made with · path, mtime and size of each source · the modules, each with the
                place of its code, in an order in which none comes before what it imports
      code      a code object for each module; none for an extension, of which the bundle knows where it is

It is used if everything in it is as it was: the interpreter's version, the module path, each source. Otherwise it is
ignored, whatever is wrong with it, and modules are imported from their own files.

What every call needs is executed at once, one module after the other, and the import system is not asked for it: for
each module it would do a tenth of a millisecond's work to find what is known here.

It is mapped as a whole, and stays in memory: a module of it may be imported when no file can be opened any more. So
what few calls need is imported by those that do (cnisandbox/late.py); without a bundle it is imported before the drop.
To read it would take a millisecond, for memory that is there in the page cache. Python's `mmap` is one library more to
be loaded; ours is needed by every call anyway, and so it is loaded first.

A launcher executes this file, and does not import it: `cnisandbox/__init__` imports most of what is in a bundle.

Privilege: everything the runtime has.
"""

import _collections_abc
import _imp
import marshal  # noqa: TID251 - byte code, of which the interpreter's own files are made too; never data from outside
import os
import stat
import sys

# What importlib.machinery and importlib.util export, which are not loaded at this time and take a millisecond.
from _frozen_importlib import ModuleSpec, _load  # type: ignore[attr-defined]
from _frozen_importlib_external import MAGIC_NUMBER, ExtensionFileLoader, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType

    # name, file, file of its byte code if it can have one, where its submodules are if it is a package, and whether
    # every call needs it
    Module = tuple[str, str, str | None, list[str] | None, bool]
    Found = dict[str, tuple[Module, memoryview]]
    Source = tuple[str, int, int]

_INDEX_HASH, _CODE_HASH, _LENGTH = (slice(end - size, end) for size, end in ((8, 12), (8, 20), (4, 24)))
_HEAD_BYTES = 24
_HASH_KEY = int.from_bytes(MAGIC_NUMBER, "little")
# In the order in which they need each other.
_NATIVE = ("_cffi_backend", "cnisandbox._native")


def use(path: str) -> bool:
    """Import what every call needs from a bundle, and have its other modules imported from it from now on.

    Returns:
        Whether the bundle is used; False if it cannot be.
    """
    try:
        finder = _Finder(load(path, sys.path))
    except (OSError, ValueError, EOFError, TypeError, ImportError):
        return False
    sys.meta_path.insert(0, finder)
    # As newer interpreters do: `os` has loaded it, and the package that stands in front of it takes a millisecond.
    sys.modules.setdefault("collections.abc", _collections_abc)
    finder.import_needed()
    return True


def load(path: str, search_path: list[str]) -> "Found":
    """Read a bundle.

    Args:
        path: The file.
        search_path: Where modules are searched for without it.

    Returns:
        Name of each module to what it is, and its byte code.

    Raises:
        ValueError: It must not be used; the message says why.
        OSError: It is not there, or a source of it is not.
        EOFError, TypeError: It is none.
        ImportError: What maps it cannot be loaded.
    """
    fd = _open(path)
    try:
        head = os.read(fd, _HEAD_BYTES)
        if head[: len(MAGIC_NUMBER)] != MAGIC_NUMBER:
            raise ValueError("made by another version of Python")
        index = os.read(fd, int.from_bytes(head[_LENGTH], "little"))
        if head[_INDEX_HASH] != _imp.source_hash(_HASH_KEY, index):
            raise ValueError("damaged")
        searched, sources, modules = marshal.loads(index)  # noqa: S302 - see _open
        if searched != search_path:
            raise ValueError("made with another module path")
        for source, mtime_ns, size in sources:
            status = os.stat(source)
            if status.st_mtime_ns != mtime_ns or status.st_size != size:
                raise ValueError(f"{source} has changed")
        code = _map(fd, [module for module, *_ in modules])[_HEAD_BYTES + len(index) :]
    finally:
        os.close(fd)
    if head[_CODE_HASH] != _imp.source_hash(_HASH_KEY, code):
        raise ValueError("damaged")
    return {module[0]: (module, code[start:end]) for module, start, end in modules}


def pack(
    search_path: list[str], sources: "list[Source]", modules: "list[Module]", codes: "list[CodeType | None]"
) -> bytes:
    """Make the content of a bundle."""
    places, pieces, end = [], [], 0
    for module, code in zip(modules, codes, strict=True):
        piece = marshal.dumps(code) if code else b""
        pieces.append(piece)
        places.append((module, end, end := end + len(piece)))
    index = marshal.dumps((search_path, sources, places))
    rest = b"".join(pieces)
    hashes = _imp.source_hash(_HASH_KEY, index) + _imp.source_hash(_HASH_KEY, rest)
    return MAGIC_NUMBER + hashes + len(index).to_bytes(4, "little") + index + rest


def _open(path: str) -> int:
    """Open the file, if nobody but root can have written it.

    It is code that root is going to execute: as are the files of byte code beside it, which the same command wrote into
    the same directory, and which the interpreter executes without asking whose they are. Who may exchange this one may
    exchange those, so it adds nothing to what is trusted; but where others can write, it is not used.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a file")
        for one in (status, os.stat(os.path.dirname(path))):
            if one.st_uid != 0 or one.st_mode & 0o022:
                raise ValueError("others than root may write to it, or to its directory")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _map(fd: int, modules: "list[Module]") -> memoryview:
    """Map a file, with the library of ours that is among modules."""
    for name in _NATIVE:
        for module in modules:
            if module[0] == name and name not in sys.modules:
                _load(_spec_of(module, None))
    native = sys.modules.get(_NATIVE[-1])
    if native is None:
        raise ValueError("without the library that maps it")
    size = os.fstat(fd).st_size
    content = native.lib.native_map_file(fd, size)
    if not content:
        raise ValueError("cannot be mapped")
    return memoryview(native.ffi.buffer(content, size)).toreadonly()


class _Loader(SourceFileLoader):
    """Differs from the usual one in where the code comes from.

    Attributes:
        is_in_memory: That all code of the bundle is, for as long as the process lives.
    """

    is_in_memory = True

    def __init__(self, name: str, path: str, code: memoryview) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> "CodeType":  # noqa: ARG002 - a loader is of one module
        code: CodeType = marshal.loads(self._code)  # noqa: S302 - see _open
        return code

    def exec_module(self, module: "ModuleType") -> None:
        super().exec_module(module)
        # What `use` has put in the place of its submodule; `typing` asks for it in this way.
        if module.__name__ == "collections":
            module.abc = _collections_abc  # type: ignore[attr-defined]


class _Finder:
    """Finds the modules of a bundle."""

    def __init__(self, found: "Found") -> None:
        self._found = found

    def import_needed(self) -> None:
        """Import what every call needs; what it imports that is no byte code is found as usual."""
        made = []
        for (name, origin, cached, locations, is_needed), code in self._found.values():
            spec = self.find_spec(name) if is_needed and name not in sys.modules else None
            if spec is not None:
                module = sys.modules[name] = type(sys)(name)
                names = module.__dict__
                names.update(__spec__=spec, __loader__=spec.loader, __file__=origin, __cached__=cached)
                names["__package__"] = spec.parent
                if locations is not None:
                    names["__path__"] = locations
                made.append((module, code))
        # ORDER: all of them are there before the first is executed: it may import from a package that comes last.
        for module, code in made:
            exec(marshal.loads(code), module.__dict__)  # noqa: S102, S302 - see _open
            package, _, name = module.__name__.rpartition(".")
            if package:
                setattr(sys.modules[package], name, module)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Say where a module comes from; None if it is not in the bundle."""
        if name not in self._found:
            return None
        return _spec_of(*self._found[name])


def _spec_of(module: "Module", code: memoryview | None) -> ModuleSpec:
    name, origin, cached, locations, _ = module
    loader = _Loader(name, origin, code) if code else ExtensionFileLoader(name, origin)
    spec = ModuleSpec(name, loader, origin=origin, is_package=locations is not None)
    spec.submodule_search_locations = locations
    spec.has_location = True
    spec.cached = cached
    return spec

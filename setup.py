"""Builds the C parts; everything else stands in pyproject.toml.

cnisandbox._native, cnisandbox._nftables    extension modules, by cffi
cnisandbox/launcher                         a static program, a copy of which stands in front of each plugin
"""

import os
import shutil

from setuptools import setup
from setuptools.command.build_ext import build_ext

_FLAGS = ["-O2", "-Wall", "-Wextra", "-Wno-unused-but-set-variable", "-fstack-protector-strong"]


class BuildNative(build_ext):
    """Builds the launcher beside the extension modules."""

    def run(self) -> None:
        super().run()
        is_in_place = self.inplace or getattr(self, "editable_mode", False)
        directory = "cnisandbox" if is_in_place else os.path.join(self.build_lib, "cnisandbox")
        # A static glibc asks the processor what it can do before main(), a third of a millisecond where that traps to a
        # hypervisor; musl does not. Without musl-gcc the launcher is slower to start, and else the same.
        compiler = shutil.which("musl-gcc") or self.compiler.compiler[0]
        self.mkpath(directory)
        path = os.path.join(directory, "launcher")
        self.spawn([compiler, *_FLAGS, "-static", "-s", "-o", path, "native/launcher.c"])


setup(
    cmdclass={"build_ext": BuildNative},
    cffi_modules=["native/build_native.py:ffibuilder", "native/build_nftables.py:ffibuilder"],
)

"""Builds the C parts; everything else stands in pyproject.toml.

cnisandbox._native, cnisandbox._nftables    extension modules, by cffi
cnisandbox/launcher                         a static program, a copy of which stands in front of each plugin
"""

import os

from setuptools import setup
from setuptools.command.build_ext import build_ext

_FLAGS = ["-O2", "-Wall", "-Wextra", "-Wno-unused-but-set-variable", "-fstack-protector-strong"]


class BuildNative(build_ext):
    """Builds the launcher beside the extension modules."""

    def run(self) -> None:
        super().run()
        is_in_place = self.inplace or getattr(self, "editable_mode", False)
        directory = "cnisandbox" if is_in_place else os.path.join(self.build_lib, "cnisandbox")
        objects = self.compiler.compile(["native/launcher.c"], output_dir=self.build_temp, extra_postargs=_FLAGS)
        self.compiler.link_executable(objects, "launcher", output_dir=directory, extra_postargs=["-static", "-s"])


setup(
    cmdclass={"build_ext": BuildNative},
    cffi_modules=["native/build_native.py:ffibuilder", "native/build_nftables.py:ffibuilder"],
)

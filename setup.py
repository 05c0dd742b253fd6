"""Names the C extensions; everything else stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["native/build_native.py:ffibuilder", "native/build_nftables.py:ffibuilder"])

"""Which build the code is of, for launchers and the zygote to compare.

Computed here and not in the zygote: hashlib has OpenSSL with it, which none of its processes needs.
"""

import hashlib
import os
import sys

from cnisandbox.zygote import code


def build_id(package: str) -> bytes:
    """Identify what a zygote has loaded, and what a launcher was installed with: interpreter and every file of code.

    Args:
        package: Directory of the package.

    Returns:
        32 bytes.
    """
    # `python` and `python3` of one environment are one interpreter; those of two environments are not.
    interpreter = (os.path.dirname(sys.executable), os.path.realpath(sys.executable))
    digest = hashlib.sha256("\0".join((sys.version, *interpreter)).encode("utf-8", "surrogateescape"))
    for path in code.files(package):
        digest.update(f"{os.path.relpath(path, package)}\0".encode())
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.digest()

"""The files that the package consists of, by which two builds are told apart."""

import os
from collections.abc import Iterator


def files(package: str) -> Iterator[str]:
    """Name every file of code, in an order that depends on their names only.

    Args:
        package: Directory of the package.
    """
    for directory, subdirectories, names in os.walk(package):
        subdirectories[:] = sorted(name for name in subdirectories if name != "__pycache__")
        yield from (os.path.join(directory, name) for name in sorted(names) if name.endswith((".py", ".so")))


def last_change(package: str) -> str:
    """Say how many files there are, and when the last of them was changed; nothing that is done to one leaves it alone.

    Source: inode(7), ctime: what nobody can set, and what renaming a file sets, too.
    """
    times = [os.stat(path).st_ctime_ns for path in files(package)]
    return f"{len(times)}@{max(times)}"

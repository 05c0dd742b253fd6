"""SHA-512, by which names of attachments are made as the reference plugins make them.

It comes from the interpreter's own module, where there is one (Fedora builds Python without). `hashlib` would load
OpenSSL for it: 2 ms and 4 MB in every plugin call, and the memory is copied into every worker.

Privilege: none.
"""

import sys

try:
    # Not the one after the other: to find out that a module is not there takes a third of a millisecond.
    if sys.version_info >= (3, 12):
        from _sha2 import sha512  # type: ignore[import-not-found]
    else:
        from _sha512 import sha512  # type: ignore[import-not-found]
except ImportError:
    from hashlib import sha512


def sha512_hex(data: bytes) -> str:
    """Return the digest as 128 hexadecimal digits, in lower case."""
    return str(sha512(data).hexdigest())

"""System call filters that need not be compiled in a call, by what made them and of what: none.

A bundle has others in the place of these lines (cnisandbox/cli/bytecode.py): compiled by the same code and the same
libseccomp, for the same machine. When one of these has changed, the bundle is not used.

Privilege: none.
"""

PROGRAMS: dict[str, bytes] = {}

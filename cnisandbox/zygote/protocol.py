"""What launcher and slot say to each other; native/launcher.c has the same shapes.

    hello      slot to launcher     protocol, build id, nonce
    request    launcher to slot     protocol, nonce, number of a descriptor, length; then the
                                    environment, which the slot does not look into; to a slot of the
                                    runner's, a string before it says which plugin is to be run and how
    b"T"       slot to launcher     taken
    b"C"       slot to launcher     not for a zygote: start the interpreter
    status     server to launcher   a wait status, when the engine has ended without writing its own into the pipe

One datagram each (SOCK_SEQPACKET), so nothing has to be put together, and what is too long or too short is refused.
"""

import struct

PROTOCOL = b"cnisandbox zygote 2\0"
NONCE_BYTES = 16
# LIMIT: as in native/launcher.c.
MAX_ENVIRONMENT_BYTES = 128 << 10
TAKEN, COLD = b"T", b"C"

HELLO = struct.Struct(f"={len(PROTOCOL)}s32s{NONCE_BYTES}s")
REQUEST = struct.Struct(f"={len(PROTOCOL)}s{NONCE_BYTES}siI")
STATUS = struct.Struct("=i")
CREDENTIALS = struct.Struct("=3i")

# Where calls of wrapped plugins go, whichever plugin it is; no plugin of ours has the name.
RUNNER = "runner"
DIRECTORY = "/run/cnisandbox/zygote"


def socket_path(plugin: str, directory: str = DIRECTORY) -> str:
    """Say where the zygote listens for calls of a plugin."""
    return f"{directory}/{plugin}"

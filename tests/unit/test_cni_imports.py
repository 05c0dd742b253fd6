"""What the protocol costs a plugin before it has read a byte."""

import subprocess
import sys

BANNED = {
    "argparse", "asyncio", "click", "ctypes", "dataclasses", "hashlib", "inspect", "logging", "pathlib", "pyroute2",
    "random", "rich", "shutil", "socket", "subprocess", "tempfile",
}  # fmt: skip
NEW_MODULES = """
import sys
before = set(sys.modules)
import cnisandbox.cni.args, cnisandbox.cni.netconf, cnisandbox.cni.output
print(*set(sys.modules) - before)
"""


def test_the_protocol_imports_nothing_that_is_slow():
    output = subprocess.run(
        [sys.executable, "-c", NEW_MODULES], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    new_modules = set(output.split())
    assert "cnisandbox.cni.netconf" in new_modules
    assert not new_modules & BANNED

"""What cnisandbox/ipam costs at the start of a plugin: nothing that the rest of a plugin does not import anyway."""

import subprocess
import sys

ALLOWED = {"contextlib", "errno", "fcntl", "itertools", "time", "types"}


def test_only_cheap_modules_are_imported() -> None:
    program = (
        "import sys, json, typing, ipaddress, cnisandbox\n"
        "before = set(sys.modules)\n"
        "import cnisandbox.ipam.allocator, cnisandbox.ipam.resolvconf\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(process.stdout.split()) - {"cnisandbox"} <= ALLOWED

#!/usr/bin/python3
"""A plugin that has the defects of the replayed CVEs: small re-enactments, each of what the vulnerable program did.

It is executed as a plugin, also where nothing of the project can be read, and imports nothing of it. The netconf's key
`replay` says which defect and with what. It always answers an error, which says what was refused: whoever calls it
goes no further then, and undoes what he did.
"""

import ctypes  # noqa: TID251 - no part of the product: it is what the product is to contain
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
RTM_NEWLINK, RTM_DELLINK = 16, 17
IFLA_IFNAME = 3
TABLE = "replayed"
# How long a process stays as it is, so that it can be looked at from outside.
SHOWN_S = 1.0
# How the message begins that says what came of a defect, and how it ends when nothing was refused.
SAYS, DONE = "replayed: ", "done"

_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_BATCH_BEGIN, _BATCH_END, _NEWTABLE, _NFTABLES = 16, 17, 0x0A00, 10


def execute_by_type(netconf: dict[str, Any]) -> None:
    """Look the address plugin up as libcni before 0.8.1 did: CNI_PATH and the type, put together."""
    path = os.path.join(os.environ["CNI_PATH"].split(":")[0], netconf["ipam"]["type"])
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        time.sleep(SHOWN_S)
        child.kill()


def leave_set_uid_program(netconf: dict[str, Any]) -> None:
    """Install a program with the set-uid bit, as calico's `install` was; wherever it can."""
    refusals = []
    for directory in netconf["replay"]["directories"]:
        for install in (_install_at_once, _install_in_steps):
            try:
                install(directory)
            except OSError as error:
                refusals.append(error.strerror or str(error))
    if refusals:
        raise OSError(0, "; ".join(dict.fromkeys(refusals)))


def _install_in_steps(directory: str) -> None:
    path = f"{directory}/in-steps"
    shutil.copyfile("/bin/sleep", path)
    os.chmod(path, 0o4755)


def _install_at_once(directory: str) -> None:
    os.umask(0)
    with open("/bin/sleep", "rb") as program:
        fd = os.open(f"{directory}/at-once", os.O_WRONLY | os.O_CREAT, 0o4755)
        while piece := program.read(1 << 16):
            os.write(fd, piece)
        os.close(fd)


def use_leaked_descriptor(netconf: dict[str, Any]) -> None:
    """Reach the host's files through the descriptor of a directory that was left open, as in runc's CVE-2024-21626."""
    number, name = netconf["replay"]["descriptor"], netconf["replay"]["path"]
    with open(os.open(f"{name}/planted", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=number), "w") as file:
        file.write("through the descriptor")
    with open(os.open(f"{name}/secret", os.O_RDONLY, dir_fd=number)) as file:
        raise OSError(0, file.read())


def write_sysctls(netconf: dict[str, Any]) -> None:
    """Write "a=1+b=2" below /proc/sys, as CRI-O's pinns did: what follows the plus was never looked at."""
    refusals = []
    for setting in netconf["replay"]["sysctls"].split("+"):
        key, _, value = setting.partition("=")
        try:
            fd = os.open(f"/proc/sys/{key if '/' in key else key.replace('.', '/')}", os.O_WRONLY)
            os.write(fd, value.encode())
            os.close(fd)
        except OSError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def connect_to_abstract_socket(netconf: dict[str, Any]) -> None:
    """Connect to a socket that has no file, whose only lock is the network namespace."""
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.connect("\0" + netconf["replay"]["socket"])


def delete_link_by_name(netconf: dict[str, Any]) -> None:
    """Delete the link of a name that the caller gave, as lxc-user-nic did: nobody asks whose it is."""
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, _text(netconf["replay"]["ifname"]))
    _send(NETLINK_ROUTE, [_message(RTM_DELLINK, body)])


def work_in_named_netns(netconf: dict[str, Any]) -> None:
    """Enter the netns that the caller names, as lxc-user-nic did, and rename a link: nobody asks whose it is."""
    fd = os.open(netconf["replay"]["netns"], os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
    body = struct.pack("=BxHiII", 0, 0, netconf["replay"]["ifindex"], 0, 0)
    _send(NETLINK_ROUTE, [_message(RTM_NEWLINK, body + _attribute(IFLA_IFNAME, _text("taken")))])


def insert_at_head(_: dict[str, Any]) -> None:
    """Put the jump to the port mappings at the head of PREROUTING, as portmap before 0.7.5 did."""
    for rule in (
        "-N CNI-HOSTPORT-DNAT",
        "-A CNI-HOSTPORT-DNAT -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80",
        "-I PREROUTING 1 -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
    ):
        _execute(["iptables", "-w", "-t", "nat", *rule.split()])


def map_any_address(_: dict[str, Any]) -> None:
    """Map a port whatever the address, as portmap's backend for nftables before 1.9.0 did."""
    ruleset = """
        table ip cni_hostport {
            chain hostports { tcp dport 8080 dnat to 10.1.0.2:80; }
            chain prerouting { type nat hook prerouting priority dstnat; jump hostports; }
        }
    """
    _execute(["nft", "-f", "-"], ruleset.encode())


def make_user_namespace(_: dict[str, Any]) -> None:
    """Make a user namespace, in which one has every capability: how most bugs of nf_tables are reached."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    time.sleep(SHOWN_S)


def make_table(_: dict[str, Any]) -> None:
    """Have nf_tables take a table of one's own, where the bugs are in rules, sets and verdicts."""
    send_table()


def send_table() -> None:
    """Make the table with messages of our own."""
    batch = struct.pack("=BB", 0, 0) + struct.pack(">H", _NFTABLES)
    body = struct.pack("=BB", 2, 0) + struct.pack(">H", 0) + _attribute(1, _text(TABLE))
    messages = [
        _message(_BATCH_BEGIN, batch, flags=_REQUEST),
        _message(_NEWTABLE, body, flags=_REQUEST | _ACK | _CREATE),
        _message(_BATCH_END, batch, flags=_REQUEST),
    ]
    _send(NETLINK_NETFILTER, messages)


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _message(kind: int, body: bytes, flags: int = _REQUEST | _ACK) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 7, 0) + body


def _send(protocol: int, messages: list[bytes]) -> None:
    """Send, and raise what the kernel answers."""
    endpoint = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    endpoint.bind((0, 0))
    endpoint.send(b"".join(messages))
    (number,) = struct.unpack_from("=i", endpoint.recv(1 << 16), 16)
    endpoint.close()
    if number:
        raise OSError(-number, os.strerror(-number))


def _execute(argv: list[str], data: bytes = b"") -> None:
    done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=10)
    if done.returncode != 0:
        raise OSError(0, f"{argv[0]}: {done.stderr.decode(errors='replace').strip()[:300]}")


DEFECTS: dict[str, Callable[[dict[str, Any]], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        execute_by_type,
        leave_set_uid_program,
        use_leaked_descriptor,
        write_sysctls,
        connect_to_abstract_socket,
        delete_link_by_name,
        work_in_named_netns,
        insert_at_head,
        map_any_address,
        make_user_namespace,
        make_table,
    )
}


def main() -> int:
    """Be the plugin."""
    netconf = json.load(sys.stdin)
    said = DONE
    try:
        DEFECTS[netconf["replay"]["defect"]](netconf)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "strerror", None) or str(error)
    json.dump({"cniVersion": "1.0.0", "code": 999, "msg": SAYS + said}, sys.stdout)
    return 1


if __name__ == "__main__":
    sys.exit(main())

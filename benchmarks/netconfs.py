"""The netconfs of what is measured; IPv4 only, because the reference waits seconds for IPv6 addresses."""

import os
from pathlib import Path

from subjects import NetConf, Subject

LOOPBACK: NetConf = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}
_NETWORKS = Path("/var/lib/cni/networks")
_SUBNETS = {"plain": 0, "masq": 1, "chain": 2, "crowd": 3}
_RESERVED_FROM = (172, 16)


def bridge(subject: Subject, kind: str) -> NetConf:
    """A bridge with host-local.

    Args:
        subject: Whose.
        kind: "plain", "masq" (with ipMasq), "chain" or "crowd": each has a bridge and a subnet of its own.
    """
    return {
        "cniVersion": "1.0.0",
        "name": f"{kind}{subject.number}",
        "type": "bridge",
        "bridge": f"{kind}{subject.number}",
        "isDefaultGateway": True,
        "ipMasq": kind == "masq",
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": f"10.{subject.number + _SUBNETS[kind]}.0.0/16"}]],
        },
    }


def chain(subject: Subject) -> list[NetConf]:
    """A bridge, and what is often called after it."""
    first = bridge(subject, "chain")
    others: list[NetConf] = [
        {
            "type": "portmap",
            "capabilities": {"portMappings": True},
            "runtimeConfig": {
                "portMappings": [{"hostPort": 8000 + subject.number, "containerPort": 80, "protocol": "tcp"}]
            },
        },
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
        {"type": "bandwidth", "ingressRate": 10**9, "ingressBurst": 10**6, "egressRate": 10**9, "egressBurst": 10**6},
    ]
    return [first, *({"cniVersion": first["cniVersion"], "name": first["name"], **other} for other in others)]


def host_local(subject: Subject, reservations: int) -> NetConf:
    """host-local by itself, in a network that has some reservations."""
    first, second = _RESERVED_FROM
    return {
        "cniVersion": "1.0.0",
        "name": f"reserved{reservations}-{subject.number}",
        "type": "host-local",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": f"{first}.{second}.0.0/15"}]]},
    }


def reserve(subject: Subject, reservations: int) -> None:
    """Make the reservations of a network as the reference plugin writes them, without calling a plugin so often."""
    first, second = _RESERVED_FROM
    directory = _NETWORKS / str(host_local(subject, reservations)["name"])
    os.makedirs(directory)
    address = ""
    for number in range(2, reservations + 2):
        address = f"{first}.{second + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        (directory / address).write_bytes(f"other{number}\r\neth0".encode())
    (directory / "last_reserved_ip.0").write_text(address)

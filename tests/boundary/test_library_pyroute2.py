"""pyroute2 works in a sandbox as it does outside, at each level; what it needs for that opens nothing else.

world ("host")               blue
  v0 ─────────────────────── eth0
"""

import socket

import pytest
from pyroute2 import IPRoute

from cnisandbox import BoundaryViolation, Level, Sandbox, declared
from tests.world import World


@declared
def configure_with_pyroute2(ifname: str, address: str, prefixlen: int) -> str:
    with IPRoute() as route:
        (index,) = route.link_lookup(ifname=ifname)
        route.addr("add", index=index, address=address, prefixlen=prefixlen)
        route.link("set", index=index, state="up")
        (link,) = route.get_links(index)
        return str(link.get("address"))


@declared
def send_a_datagram() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.connect("\0somebody")


@pytest.mark.parametrize("level", [level for level in Level if level is not Level.MEDIATED])
def test_pyroute2_configures_a_link(world: World, level: Level) -> None:
    world.netns("blue")
    world.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "blue"])

    def configure() -> str:
        with Sandbox(netns="/run/netns/blue", level=level) as box:
            return box.call(configure_with_pyroute2, "eth0", "10.1.2.3", 24)

    mac = world.call(configure)
    link = world.link("eth0", "blue")
    assert link["address"] == mac
    assert "UP" in link["flags"]
    (entry,) = world.ip("-4", "address", "show", "dev", "eth0", netns="blue")
    assert [(item["local"], item["prefixlen"]) for item in entry["addr_info"]] == [("10.1.2.3", 24)]


def test_the_event_loop_needs_no_socket_that_can_be_connected(world: World) -> None:
    world.netns("blue")

    def attempt() -> None:
        with Sandbox(netns="/run/netns/blue") as box:
            box.call(send_a_datagram)

    with pytest.raises(BoundaryViolation, match="Operation not permitted"):
        world.call(attempt)

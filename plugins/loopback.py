#!/usr/bin/env python3
"""loopback: set the container's `lo` up.

Privilege: CAP_NET_ADMIN in the container's netns, in the container worker.
"""

from cnisandbox.boundary.workers import Needs
from cnisandbox.cni.result import Address, Interface, Result
from cnisandbox.errors import CheckFailed, EnvironmentFailure
from cnisandbox.hints import NoReturn
from cnisandbox.ip import ip_interface
from cnisandbox.netlink.addresses import list_addresses
from cnisandbox.netlink.links import NO_MAC, get_link, set_up
from cnisandbox.plugin import Call, Plugin, run

LOOPBACK = "lo"


class Loopback(Plugin):
    """The plugin. CNI_IFNAME is ignored: there is one `lo`, and it is there already."""

    name = "loopback"
    needs = Needs(container=True)

    def add(self, call: Call) -> Result:
        """Set lo up, and say what addresses it has."""
        lo = call.inside.call(set_up, LOOPBACK, True)
        addresses = call.inside.call(list_addresses, lo.ifindex)
        for item in addresses:
            if not ip_interface(item.address).ip.is_loopback:
                raise EnvironmentFailure(f"configure link lo: it has an address that is not local: {item.address}")
        if call.request.netconf.prev_result is not None:
            return call.request.netconf.prev_result
        first_of_family = {ip_interface(item.address).version: item.address for item in reversed(addresses)}
        return Result(
            interfaces=(Interface(LOOPBACK, NO_MAC, sandbox=call.request.netns_path),),
            ips=tuple(Address(first_of_family[version], interface=0) for version in sorted(first_of_family)),
        )

    def delete(self, call: Call) -> None:
        """Set lo down, while there is one."""
        if call.container is not None:
            call.container.call(set_up, LOOPBACK, False)

    def check(self, call: Call) -> None:
        """Check that lo is up."""
        lo = call.inside.call(get_link, LOOPBACK)
        if lo is None or not lo.is_up:
            raise CheckFailed("check link lo: it is not up")


def main() -> NoReturn:
    """Be the plugin's executable."""
    run(Loopback)


if __name__ == "__main__":
    main()

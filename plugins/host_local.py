#!/usr/bin/env python3
"""host-local: addresses from this host's own pools, without a daemon.

ADD reserves one address from each range set, in turn, and DEL frees them. The reservations are files that the reference
`host-local` reads and writes too: a node can change from one to the other, in either direction, while containers run.

Privilege: none. Everything happens in the engine, on the descriptor of the state directory.
"""

import os

from cnisandbox.boundary.workers import Needs
from cnisandbox.cni.netconf import Attachment
from cnisandbox.cni.result import Address, Dns, Result
from cnisandbox.errors import CheckFailed, InvalidConfig, IoFailure, NotAvailable
from cnisandbox.hints import NoReturn
from cnisandbox.ipam.allocator import allocate, require_free
from cnisandbox.ipam.config import IpamConfig, parse_config, parse_data_dir
from cnisandbox.ipam.resolvconf import parse_resolv_conf
from cnisandbox.ipam.store import Store, this_boot
from cnisandbox.plugin import Call, Plugin, run


class HostLocal(Plugin):
    """The plugin, for itself and for a main plugin that delegates to it."""

    name = "host-local"
    needs = Needs(delegate=True, state=True)

    def add(self, call: Call) -> Result:
        """Reserve one address from each range set."""
        config = parse_config(call.request.netconf, call.request.args)
        dns = _dns(call, config)
        with _store(call, create=True) as store:
            ips = allocate(store, call.request.attachment, config.range_sets, config.requested)
        call.undo.push(_give_back, call, ips)
        return Result(ips=ips, routes=config.routes, dns=dns)

    def delete(self, call: Call) -> None:
        """Free what the attachment holds, whatever has become of the ranges that it is from."""
        with _store(call) as store:
            _report(call, store.release(call.request.attachment))

    def check(self, call: Call) -> None:
        """Check that the attachment holds addresses, and none that prevResult does not list."""
        attachment, prev_result = call.request.attachment, call.request.netconf.prev_result
        with _store(call) as store:
            held = store.held(attachment)
            is_known = held or store.held(Attachment(attachment.container_id, ""))
        if not is_known:
            raise CheckFailed(f"host-local: failed to find address added by container {attachment.container_id}")
        listed = {ip.address.partition("/")[0] for ip in prev_result.ips} if prev_result else set()
        for address in held:
            if listed and address not in listed:
                raise CheckFailed(f"host-local: reserved address {address} is not in prevResult")

    def gc(self, call: Call) -> None:
        """Free what belongs to no valid attachment of this network."""
        valid = call.request.netconf.valid_attachments
        if valid is None:
            raise InvalidConfig("cni.dev/valid-attachments: is missing", "an empty list says that none is valid")
        with _store(call) as store:
            _report(call, store.collect(valid))

    def status(self, call: Call) -> None:
        """Check that ADD would work: the configuration is right, and every range set has a free address."""
        config = parse_config(call.request.netconf, "", needs_ranges=False)
        try:
            _dns(call, config)
        except IoFailure as error:
            raise NotAvailable(error.msg, error.details) from error
        with _store(call) as store:
            require_free(store, config.range_sets)


def _store(call: Call, *, create: bool = False) -> Store:
    data_fd = call.state_dir(parse_data_dir(call.request.netconf), "ipam.dataDir")
    try:
        return Store.open(data_fd, call.request.netconf.name, this_boot(call.boot_id), create=create)
    finally:
        os.close(data_fd)


def _dns(call: Call, config: IpamConfig) -> Dns:
    return parse_resolv_conf(call.read_file(config.resolv_conf)) if config.resolv_conf else Dns()


def _give_back(call: Call, ips: tuple[Address, ...]) -> None:
    """Undo `add`: free what it reserved, and nothing else that the attachment may hold."""
    owner = call.request.attachment
    addresses = {ip.address.partition("/")[0] for ip in ips}
    with _store(call) as store:
        _report(call, store.release_all([(address, owner) for address in store.held(owner) if address in addresses]))


def _report(call: Call, failures: list[str]) -> None:
    if failures:
        network = call.request.netconf.name
        raise IoFailure(f"free addresses of network {network}: {failures[0]}", "; ".join(failures[1:]))


def main() -> NoReturn:
    """Be the plugin's executable."""
    run(HostLocal)


if __name__ == "__main__":
    main()

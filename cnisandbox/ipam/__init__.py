"""Addresses from this host's own pools: the state and the rules of the `host-local` IPAM plugin.

    config.py       the netconf's `ipam` section as one immutable record
    ranges.py       ranges and range sets: what may be handed out, in which order
    allocator.py    which addresses an attachment gets
    store.py        what is reserved, on disk, shared with the reference plugin
    index.py        which reservation belongs to which attachment, without reading them all
    resolvconf.py   resolv.conf as the result's `dns`

Privilege: none. Everything runs in the engine, after the drop, on the descriptor of a state directory.
"""

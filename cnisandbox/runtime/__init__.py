"""The runtime side of CNI: what podman, containerd and cnitool do, as a library and for `cnisandbox net`.

conflist.py reads network configurations, execute.py runs one plugin, cache.py keeps results in libcni's format,
network.py strings them together. Nothing in here is imported while a plugin of ours runs.
"""

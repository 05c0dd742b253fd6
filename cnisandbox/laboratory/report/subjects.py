"""The calls that a report measures: plugins with a netconf each, as the reference has them and as ours.

Privilege: none.
"""

from typing import Any, NamedTuple

from cnisandbox.laboratory.exposure.subject import OURS, ROOT, RUNNER

_VERSION = "1.0.0"
_IPAM = {"type": "host-local", "subnet": "10.89.7.0/24"}
_BRIDGE = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipam": _IPAM}
_PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


class Subject(NamedTuple):
    """A plugin and what it is given.

    Attributes:
        name: Of the network; it begins with that of the plugin.
        plugin: The plugin that is measured.
        plugins: What the network list has, in order.
        columns: Those in which it can be measured.
    """

    name: str
    plugin: str
    plugins: tuple[dict[str, Any], ...]
    columns: tuple[str, ...]

    @property
    def netconf(self) -> dict[str, Any]:
        """The netconf, or the list where other plugins run before it."""
        head = {"cniVersion": _VERSION, "name": self.name}
        if len(self.plugins) == 1:
            return {**head, **self.plugins[0]}
        return {**head, "plugins": list(self.plugins)}


_REFERENCE = (ROOT, RUNNER)
_EVERYWHERE = (ROOT, *OURS, RUNNER)

SUBJECTS = (
    Subject("bridge", "bridge", (_BRIDGE,), _EVERYWHERE),
    Subject("bridge-masquerade", "bridge", ({**_BRIDGE, "ipMasq": True},), _EVERYWHERE),
    Subject("host-local", "host-local", ({"type": "host-local", "ipam": _IPAM},), _EVERYWHERE),
    Subject("loopback", "loopback", ({"type": "loopback"},), _EVERYWHERE),
    Subject("ptp", "ptp", ({"type": "ptp", "ipMasq": False, "ipam": _IPAM},), _REFERENCE),
    Subject("macvlan", "macvlan", ({"type": "macvlan", "master": "wan0", "ipam": _IPAM},), _REFERENCE),
    Subject(
        "portmap",
        "portmap",
        (_BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}, "runtimeConfig": _PORTS}),
        _REFERENCE,
    ),
    Subject(
        "tuning",
        "tuning",
        (_BRIDGE, {"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}}),
        _REFERENCE,
    ),
)
QUICK = ("bridge", "host-local", "loopback")

"""CNI plugins, and a sandbox for them, that never run with more than CAP_NET_ADMIN.

The public API of the sandbox library:

    from cnisandbox import Level, Sandbox, declared

    @declared
    def configure(ifname: str, address: str) -> str: ...

    with Sandbox(netns="/run/netns/blue", level=Level.HARDENED) as box:
        mac = box.call(configure, "eth0", "10.1.2.3/24")
"""

from cnisandbox.boundary.attestation import Attestation
from cnisandbox.boundary.calls import declared
from cnisandbox.boundary.levels import Level
from cnisandbox.boundary.sandbox import Sandbox
from cnisandbox.errors import (
    BoundaryViolation,
    CheckFailed,
    CniError,
    DelegateFailed,
    EnvironmentFailure,
    IncompatibleVersion,
    InvalidConfig,
    InvalidEnvironment,
    InvalidNetns,
    IoFailure,
    IsolationError,
    IsolationUnavailable,
    KernelRefused,
    LimitedConnectivity,
    NotAvailable,
    PrivilegeNotDropped,
    RequestError,
    TryAgain,
    UndecodableInput,
    UnknownContainer,
    UnsupportedField,
)

__all__ = [
    "Attestation",
    "BoundaryViolation",
    "CheckFailed",
    "CniError",
    "DelegateFailed",
    "EnvironmentFailure",
    "IncompatibleVersion",
    "InvalidConfig",
    "InvalidEnvironment",
    "InvalidNetns",
    "IoFailure",
    "IsolationError",
    "IsolationUnavailable",
    "KernelRefused",
    "Level",
    "LimitedConnectivity",
    "NotAvailable",
    "PrivilegeNotDropped",
    "RequestError",
    "Sandbox",
    "TryAgain",
    "UndecodableInput",
    "UnknownContainer",
    "UnsupportedField",
    "declared",
]

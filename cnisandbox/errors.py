"""Everything that can go wrong, as one tree of exceptions with the CNI code beside each.

    CniError                            code, msg, details; itself only for a defect of ours, 999
    ├── RequestError                    the caller is wrong; nothing was changed
    │   ├── IncompatibleVersion 1
    │   ├── UnsupportedField 2          key and value
    │   ├── InvalidEnvironment 4
    │   ├── UndecodableInput 6
    │   ├── InvalidConfig 7             path of the field: "ipam.ranges[0][1].subnet"
    │   └── InvalidNetns 8
    ├── EnvironmentFailure              the host is wrong or busy; the request may be fine
    │   ├── UnknownContainer 3
    │   ├── IoFailure 5
    │   ├── TryAgain 11
    │   ├── NotAvailable 50             STATUS: cannot serve ADD
    │   ├── LimitedConnectivity 51      STATUS: cannot serve ADD, and running containers may suffer
    │   ├── KernelRefused 101           operation, object and errno
    │   ├── CheckFailed 105             CHECK: the kernel does not show what prevResult says
    │   ├── ProfileError 106            file, line and key
    │   └── DelegateFailed 999          what a delegated plugin reported; carries the delegate's own code
    └── IsolationError                  a protection is missing: fail closed, never retried, never downgraded
        ├── PrivilegeNotDropped 102     the stage that failed
        ├── IsolationUnavailable 103    the kernel facility that is missing
        └── BoundaryViolation 104       the peer broke the protocol

Codes 1 to 99 are the CNI specification's, 100 and above are ours (CNI spec 1.1.0, section 5, "Error").

A message reads `<operation> <object>: <what happened>`, in lower case, with no full stop; values that came from
outside are quoted by `quoted()`.
"""

import os

_QUOTED_LIMIT = 120


def quoted(value: object) -> str:
    """Quote a value from outside for a message: `repr`, cut to 120 characters."""
    text = repr(value)
    return text if len(text) <= _QUOTED_LIMIT else text[:_QUOTED_LIMIT] + "..."


def reason(error: OSError) -> str:
    """Say in lower case why a system call failed."""
    return (error.strerror or str(error)).lower()


class CniError(Exception):
    """Base of the tree.

    Args:
        msg: One line: operation, object, what happened.
        details: What to do about it, or the longer story; may be empty.

    Attributes:
        code: The CNI error code of the class.
    """

    code = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details


class RequestError(CniError):
    """The caller is wrong; nothing was changed."""


class IncompatibleVersion(RequestError):
    """The plugin does not speak the netconf's cniVersion, or that version does not have the verb."""

    code = 1


class UnsupportedField(RequestError):
    """A field asks for something that this plugin does not do; the message holds key and value."""

    code = 2


class InvalidEnvironment(RequestError):
    """A CNI_* variable is missing or malformed."""

    code = 4


class UndecodableInput(RequestError):
    """Standard input is not the JSON object that it has to be."""

    code = 6


class InvalidConfig(RequestError):
    """A field of the netconf has a value that it cannot have; the message begins with the path of the field."""

    code = 7


class InvalidNetns(RequestError):
    """CNI_NETNS is not a network namespace, or it is the plugin's own."""

    code = 8


class EnvironmentFailure(CniError):
    """The host is wrong or busy; the request may be fine."""


class UnknownContainer(EnvironmentFailure):
    """The container does not exist (any more); the runtime need not call DEL."""

    code = 3


class IoFailure(EnvironmentFailure):
    """Reading or writing a file, a pipe or a descriptor failed."""

    code = 5


class TryAgain(EnvironmentFailure):
    """A transient condition; the runtime should repeat the call later."""

    code = 11


class NotAvailable(EnvironmentFailure):
    """STATUS: the plugin cannot serve ADD."""

    code = 50


class LimitedConnectivity(EnvironmentFailure):
    """STATUS: the plugin cannot serve ADD, and running containers may have limited connectivity."""

    code = 51


class KernelRefused(EnvironmentFailure):
    """The kernel refused an operation.

    Args:
        operation: Verb of what was tried, such as "create link".
        target: What it was tried on, such as "veth1234abcd".
        errno: The positive errno that the kernel answered, or 0 when there is none.
        details: What to do about it; may be empty.
    """

    code = 101

    def __init__(self, operation: str, target: str, errno: int, details: str = "") -> None:
        super().__init__(f"{operation} {target}: {os.strerror(errno).lower() if errno else 'refused'}", details)
        self.operation = operation
        self.target = target
        self.errno = errno


class CheckFailed(EnvironmentFailure):
    """CHECK: the kernel does not show what prevResult says."""

    code = 105


class ProfileError(EnvironmentFailure):
    """A profile is missing, is not root's alone, or has a mistake; the message names file, line and key."""

    code = 106


class DelegateFailed(EnvironmentFailure):
    """A delegated plugin failed.

    Args:
        code: The code that the delegate reported, passed on as it is (CNI spec, section 4).
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code


class IsolationError(CniError):
    """A protection is missing: fail closed, never retried, never downgraded."""


class PrivilegeNotDropped(IsolationError):
    """A stage of the drop failed, or its effect could not be read back."""

    code = 102


class IsolationUnavailable(IsolationError):
    """The kernel lacks a facility that the level asks for."""

    code = 103


class BoundaryViolation(IsolationError):
    """The peer on the other side of the boundary broke the protocol."""

    code = 104

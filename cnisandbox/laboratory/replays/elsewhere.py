"""Cases that cannot be replayed here: the defect is in a program that takes no part in a plugin's call."""

from cnisandbox.laboratory.replays.case import Case

CASES = (
    Case(
        "calico-floating-ip",
        "CVE-2022-28224",
        "calico before 3.22.2: a pod's floating address is not checked",
        "a pod takes over an address by an annotation",
        None,
        "The API server admits the annotation and calico's daemon acts on it; no plugin decides.",
        "needs a cluster with calico's daemon; the decision is made in its API, not in a plugin",
    ),
    Case(
        "cilium-socket",
        "CVE-2022-29178",
        "cilium before 1.9.16: the socket of its daemon may be used by its group (also CVE-2022-29179)",
        "a user of the socket's group, or of a pod, has the daemon act for him",
        None,
        "The daemon serves the whole node and is not confined by either.",
        "needs cilium's daemon, which is in no package here; the runner does not confine daemons",
    ),
)

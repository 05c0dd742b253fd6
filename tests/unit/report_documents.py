"""A small audit document made by hand, with every kind of cell, for the tests of what is made of one."""

from typing import Any, cast

from cnisandbox.laboratory.report.schema import CellMembers, Document, Exposure, VectorRow, Verb

COLUMNS = ["root", "netadmin", "hardened", "mediated", "runner"]
CAPABILITIES = [f"CAP_{name}" for name in ("CHOWN", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE")]
ROOT = CAPABILITIES + [f"CAP_NUMBER_{number}" for number in range(5, 41)]


def cell(verdict: str, errno: str = "", *, outside: list[str] | None = None, reason: str = "") -> CellMembers:
    members = {
        "verdict": verdict,
        "errno": errno,
        "signal": "",
        "process": "" if verdict in {"not applicable", "untested"} else "engine",
        "outside": outside or [],
        "reason": reason,
    }
    return cast(CellMembers, members)


def vector(id_: str, tries: str, **members: str) -> VectorRow:
    row = {"id": id_, "category": id_[0], "tries": tries, "source": "by hand", "capability": "", "advice": ""}
    return cast(VectorRow, row | {"where": "container"} | members)


def verb(median: float, held: list[str], exercised: dict[str, int], needed: list[str], allowed: int | None) -> Verb:
    spread = {"median": median, "q1": median * 0.9, "q3": median * 1.1}
    members = {
        "duration_ms": {**spread, "values": [median * 0.9, median, median * 1.1]},
        "processes": [
            {
                "name": "bridge",
                "role": "plugin",
                "parent": None,
                "program": "/usr/lib/cni/bridge",
                "lived_ms": [0.0, median],
                "credentials": [
                    {"at_ms": 0.0, "event": "start", "uid": 0, "effective": held, "bounding_count": len(held)},
                    {"at_ms": median / 2, "event": "capset", "uid": 990, "effective": held[:1], "bounding_count": 0},
                ],
            },
            {
                "name": "host-local",
                "role": "delegate",
                "parent": 0,
                "program": "/usr/lib/cni/host-local",
                "lived_ms": [median / 3, median / 2],
                "credentials": [{"at_ms": median / 3, "event": "exec", "uid": 0, "effective": [], "bounding_count": 0}],
            },
        ],
        "capabilities": {
            "held": held,
            "exercised": exercised,
            "needed": needed,
            "ablation": {name: {"works": name not in needed, "says": ""} for name in exercised},
        },
        "held_ms": {name: {**spread, "share": 1.0} for name in held},
        "untrusted_bytes": dict.fromkeys(held, 512),
        "syscalls": {"used": ["read", "sendto", "write"], "allowed": allowed, "total": 463},
        "files": {"opened": ["/etc/ld.so.cache"], "written": ["/var/lib/cni/networks/bridge/10.1.2.3"]},
        "netns_handles": ["3 -> net:[4026532000]"],
    }
    return cast(Verb, members)


def exposure(plugin: str, column: str, **verbs: Verb) -> Exposure:
    return {
        "plugin": plugin,
        "path": f"/usr/lib/cni/{plugin}",
        "sha256": "5" * 64,
        "column": column,
        "netconf": {"cniVersion": "1.0.0", "name": plugin, "type": plugin},
        "rounds": 3,
        "verbs": verbs,
        "cannot_see": ["what happens in the kernel on nobody's behalf"],
    }


def replayed(verdict: str) -> Any:
    effects = [{"effect": "his program ran", "happened": verdict == "worked", "seen": "a file of his"}]
    return {"verdict": verdict, "subject": "bridge", "effects": effects, "said": "", "reason": ""}


def document() -> Document:
    """Make a document of its own for each test."""
    refused, worked = cell("refused", "EPERM"), cell("worked")
    outside = cell("worked", outside=["link vethx of the host is gone"])
    rows = {
        "a-sys-module-load": ["not applicable"] * 5,
        "a-net-admin-address": [worked, worked, worked, refused, refused],
        "b-mtu": [worked, worked, worked, cell("no effect"), refused],
        "c-delete-host-link": [outside, outside, refused, refused, refused],
        "d-core-pattern": [outside, cell("refused", "EACCES", outside=["file /run/open/x"]), *[refused] * 3],
        "g-fork": [cell("untested", reason="did not work as root")] * 5,
    }
    titles = {
        "a-sys-module-load": "load a kernel module",
        "a-net-admin-address": "give the container's link another address",
        "b-mtu": "set the MTU of the container's link",
        "c-delete-host-link": "delete a link of the host through the number of its netns",
        "d-core-pattern": "have the kernel execute a program of his at the next crash",
        "g-fork": "fork until nobody else can",
    }
    cells: dict[str, dict[str, CellMembers]] = {}
    for id_, row in rows.items():
        members = [
            cell("not applicable", reason="CONFIG_MODULES") if each == "not applicable" else cast(CellMembers, each)
            for each in row
        ]
        cells[id_] = {column: cast(CellMembers, dict(each)) for column, each in zip(COLUMNS, members, strict=True)}
    return {
        "schema": "cnisandbox-audit/1",
        "report": {
            "command": ["cnisandbox", "audit", "report", "--out", "blast"],
            "date": "2026-01-31T12:00:00Z",
            "duration_s": 321.5,
            "cnisandbox": "0.1.0",
        },
        "machine": {
            "kernel": "6.18.0",
            "architecture": "x86_64",
            "config_sha256": "1" * 64,
            "config": {"CONFIG_MODULES": "n", "CONFIG_SECCOMP_FILTER": "y"},
            "sysctls": {"kernel.unprivileged_bpf_disabled": "2"},
            "lsm": ["capability", "landlock"],
            "packages": {"containernetworking-plugins": "1.1.1", "crun": ""},
            "python": "3.11.2",
            "cpus": 2,
        },
        "vectors": {
            "version": "1",
            "sha256": "a" * 64,
            "list": [
                vector("a-sys-module-load", titles["a-sys-module-load"], capability="CAP_SYS_MODULE", advice="drop"),
                *(vector(id_, title) for id_, title in titles.items() if id_ != "a-sys-module-load"),
            ],
        },
        "matrix": {"columns": list(COLUMNS), "cells": cells},
        "plugins": [
            exposure(
                "bridge",
                "root",
                ADD=verb(20.0, ROOT, {"CAP_NET_ADMIN": 40, "CAP_SYS_ADMIN": 3}, ["CAP_NET_ADMIN"], None),
            ),
            exposure(
                "bridge", "hardened", ADD=verb(120.0, ["CAP_NET_ADMIN"], {"CAP_NET_ADMIN": 31}, ["CAP_NET_ADMIN"], 57)
            ),
            exposure("bridge", "runner", ADD=verb(160.0, [], {}, [], 90), DEL=verb(90.0, [], {}, [], 90)),
            exposure("ptp", "root", ADD=verb(25.0, ROOT, {"CAP_NET_ADMIN": 30}, ["CAP_NET_ADMIN"], None)),
        ],
        "replays": [
            {
                "id": "path-traversal",
                "cve": "CVE-2021-20206",
                "title": "path traversal in type",
                "tries": "execute a program outside of CNI_PATH",
                "columns": {
                    "root": replayed("worked"),
                    "cnisandbox": {**replayed("refused"), "mediated": replayed("no effect")},
                    "runner": replayed("refused"),
                },
                "contained": "yes",
                "why": "a type is a name, and names have no slash",
            }
        ],
        "gaps": [{"what": "macvlan at runner", "why": "no parent link"}],
    }


def hostile(text: str) -> Document:
    """A document in which every text that anybody could have chosen is the given one."""
    made: Any = document()
    made["report"] |= {"command": [text], "date": text, "cnisandbox": text}
    made["machine"] |= {"kernel": text, "lsm": [text], "packages": {text: text}, "config": {text: text}, "python": text}
    made["machine"] |= {"sysctls": {text: text}, "architecture": text, "config_sha256": text}
    made["vectors"]["version"] = made["vectors"]["sha256"] = text
    (first, *_) = made["vectors"]["list"]
    made["matrix"]["cells"][text] = made["matrix"]["cells"].pop(first["id"])
    first |= {"id": text, "tries": text, "source": text, "capability": text, "advice": text, "where": text}
    made["matrix"]["columns"] = ["root", text]
    for row in made["matrix"]["cells"].values():
        (old, *_) = list(row.values())
        each = dict(old, errno=text, signal="", process=text, outside=[text], reason=text)
        row.clear()
        row |= {"root": each, text: each}
    for each in made["plugins"]:
        each |= {"plugin": text, "path": text, "sha256": text, "column": text, "cannot_see": [text]}
        each["netconf"] = {"name": text, text: text}
        each["verbs"] = {text: each["verbs"]["ADD"]}
        for process in each["verbs"][text]["processes"]:
            process |= {"name": text, "role": text, "program": text}
            process["credentials"][0] |= {"event": text, "effective": [text]}
        each["verbs"][text]["capabilities"] |= {"held": [text], "exercised": {text: 1}, "needed": [text]}
        each["verbs"][text]["files"] = {"opened": [text], "written": [text]}
    made["replays"][0] |= {"cve": text, "title": text, "tries": text, "why": text, "id": text}
    outcome = {"verdict": "worked", "subject": text, "said": text, "reason": text}
    effects = [{"effect": text, "happened": True, "seen": text}]
    made["replays"][0]["columns"] = {text: {**outcome, "effects": effects}}
    made["gaps"] = [{"what": text, "why": text}]
    return cast(Document, made)

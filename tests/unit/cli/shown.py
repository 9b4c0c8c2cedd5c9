"""An agent of which there is nothing to say, and a line of a journal."""

from typing import Any

QUIET: dict[str, Any] = {
    "tgid": 7,
    "up_s": 60,
    "version": "1.2",
    "policy": "r1",
    "events": 200,
    "events_per_s": 1.5,
    "lost": 0,
    "missed": 0,
    "evicted": 0,
    "remembered": 50,
    "probes": [{"name": "p.a", "state": "alive", "by": "lsm"}],
    "degraded": {},
    "engine": None,
    "services": {"bundle": "", "status": ""},
    "modes": {"p": "enforce"},
    "guard": True,
    "guarded_operations": {"refused": 18, "of": 18},
    "poisoned": [],
    "poisoned_count": 0,
    "poison_left_out": 0,
    "kernel_tier": {"generation": 3, "rules": {"a.b": ["SYSCTL001"]}},
    "bound_count": 0,
    "host": None,
    "breakers": [],
}


def entry(**changes: Any) -> dict[str, Any]:
    parent = {"tgid": 1, "exe": "/bin/sh", "exe_known": True, "comm": "sh"}
    process = {"tgid": 7, "uid": 0, "exe": "/bin/x", "exe_known": True, "comm": "x", "parent": parent}
    rule = {"id": "R1", "action": "log", "severity": "low", "title": "T", "technique": "T1"}
    decision = {"action": "log", "rules": [rule]}
    made = {"time": "2026-11-23T16:41:48.577973794Z", "kind": "a.b", "process": process, "decision": decision}
    return {**made, "event": {"name": "n", "names": ["n"], "other": process}, "would": [], "done": [], **changes}

"""Writes the sample journal of `examples/ci`: what an agent there would have written of a few events.

python -m tests.sample_journal examples/ci/krie.toml > examples/ci/journal/sample.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from krie import Decision, Event
from krie.agent.bus import Bus
from krie.agent.selection import Selection
from krie.config import load_config
from krie.decision import Action, Mode
from krie.enforce.enforcer import Effect, would
from krie.events.identity import Identity
from krie.kernel.cgroups import Cgroups
from krie.plugin.offline import event_types, load_plugins
from krie.plugins.runtime_integrity.ptrace import Ptrace
from krie.plugins.runtime_integrity.sysctl_write import SysctlWrite
from krie.policy.policy import Policy
from krie.processes.enrich import Enricher
from krie.processes.process import NOTHING
from krie.processes.sensor import ProcessExec
from krie.processes.table import ProcessTable
from krie.testing.events import build
from krie.tier.tried import tried_engine

_PROGRAMS = {
    "/usr/lib/systemd/systemd-sysctl": Identity(1, 1, 0),
    "/usr/bin/bash": Identity(1, 2, 0),
    "/usr/bin/strace": Identity(1, 3, 0),
}
HOST = {
    "name": "web1",
    "release": "6.12.57+deb13-amd64",
    "machine": "x86_64",
    "machine_id": "0123456789abcdef0123456789abcdef",
    "boot_id": "01234567-89ab-4cde-8f01-23456789abcd",
}
_SECOND = 10**9


def lines(config_file: Path) -> Iterator[str]:
    """Line by line, decided by the configuration's policy."""
    config = load_config(config_file)
    loaded, _ = load_plugins(config, str(config_file))
    types = event_types(loaded)
    table = ProcessTable(16, lambda _: NOTHING)
    enricher = Enricher(types, table, Cgroups(None), loaded.enrichers())
    enricher.programs = {_PROGRAMS[path]: name for name, path in config.executables.items() if path in _PROGRAMS}
    policy = Policy(tried_engine(config, loaded), on_error=Action.LOG, memo=0)
    found: list[str] = []

    def keep(line: str) -> bool:
        found.append(line)
        return True

    def observe(_: Event, decision: Decision) -> Effect:
        return Effect(Mode.OBSERVE, would=would(decision))

    bus = Bus(types, table, enricher, policy, [keep], [], observe, Selection(Action.ALLOW, []))
    bus.host = dict(HOST)
    bus.health = {"lost": 0, "missed": 0, "probes_not_alive": [], "degraded": [], "policy_failures": 0}
    for event in _events():
        (table.feed if event.kind == ProcessExec.KIND else bus.handle)(event)
        yield from found
        found.clear()


def _events() -> Iterator[Event]:
    for tgid, path in enumerate(_PROGRAMS, 500):
        raw = b"".join(name.encode() + b"\0" for name in reversed(path.strip("/").split("/")))
        yield build(ProcessExec, components=raw.ljust(768, b"\0"), length=len(raw), **_process(tgid, 0))
    pattern = {"change": "unread", "name": "kernel/core_pattern", "old": "core\n"}
    relaxed = {"name": "kernel/kptr_restrict", "old": "2\n", "new": "0\n", "old_int": 2, "new_parsed": True}
    traced = {"operation": "attach", "target_tgid": 501, "target_start_time": 501 * _SECOND}
    happened: list[tuple[int, int, type[Event], dict[str, Any]]] = [
        (500, 0, SysctlWrite, {**pattern, "new": "|/usr/lib/systemd/systemd-coredump %P %u\n"}),
        (501, 0, SysctlWrite, {**pattern, "new": "|/tmp/x\n"}),
        (501, 0, SysctlWrite, {**relaxed, "old_parsed": True, "change": "lower"}),
        (501, 1000, Ptrace, traced),
        (502, 33, Ptrace, traced),
        (502, 107, Ptrace, traced),
    ]
    for number, (tgid, uid, event, fields) in enumerate(happened):
        yield build(event, **_process(tgid, uid), **fields, time=(600 + number) * _SECOND)


def _process(tgid: int, uid: int) -> dict[str, Any]:
    """The header's fields of the process that runs a program: by their order."""
    path, identity = list(_PROGRAMS.items())[tgid - 500]
    exe = {"exe_dev": identity.dev, "exe_ino": identity.ino, "exe_generation": identity.generation}
    ids = {"tgid": tgid, "tid": tgid, "start_time": tgid * _SECOND, "uid": uid, "euid": uid, "gid": uid}
    return {**exe, **ids, "comm": path.rpartition("/")[2][:15]}


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in lines(Path(sys.argv[1])))

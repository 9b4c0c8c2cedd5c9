"""What policies and the journal see of an event: its fields, its plugin's facts, and the process it happened in."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ..events.event import CONTAINER, INFLUENCE, INFLUENCED, KERNEL_THREAD, Event, EventType, EventTypes
from ..events.identity import Identity, Key
from ..events.wire import Json
from ..kernel.cgroups import Cgroups
from ..kernel_files import boot_id
from .process import UNKNOWN, Process
from .table import MOST_ANCESTORS, ProcessTable

Facts = Callable[[Event], Mapping[str, Json]]
_MACHINE_ID = re.compile("[0-9a-f]{32}")
_NAMESPACES = ("mnt", "pid", "net", "user", "uts", "ipc", "cgroup")


class Enricher:
    """Builds documents. `programs` may be replaced at any time; everything else is fixed."""

    def __init__(self, types: EventTypes, table: ProcessTable, cgroups: Cgroups, facts: Mapping[str, Facts]) -> None:
        """`facts`: the enriching function by event name, for kinds whose plugin has one."""
        self._table = table
        self._cgroups = cgroups
        self._by_kind = {each.kind: (each, facts.get(each.name)) for each in types}
        self.programs: Mapping[Identity, str] = {}

    def event(self, event: Event) -> dict[str, Json]:
        """`input.event`."""
        event_type, facts = self._by_kind[event.kind]
        answer: dict[str, Json] = {"kind": event_type.name, **event_type.json(event)}
        for name, (tgid, start_time) in event_type.event.PROCESSES.items():
            answer[name] = self._other(Key(getattr(event, tgid), getattr(event, start_time)))
        if facts is not None:
            answer.update(facts(event))
        return answer

    def process(self, event: Event) -> dict[str, Json]:
        """`input.process` without its ancestors, which the journal leaves out."""
        process = self._table.actor(event)
        parent = Key(event.parent_tgid, event.parent_start_time)
        return {
            "tgid": event.tgid,
            "tid": event.tid,
            "start_time": event.start_time,
            "comm": event.comm,
            "exe": process.exe,
            "exe_known": process.exe_known,
            "program": "" if event.context & INFLUENCED else self.programs.get(process.identity, ""),
            "influence": _words(event.context),
            "uid": event.uid,
            "euid": event.euid,
            "gid": event.gid,
            "kernel_thread": bool(event.context & KERNEL_THREAD),
            "container": bool(event.context & CONTAINER),
            "parent": self._above(parent, self._table.find(parent), process.made),
            "cgroup": {"id": event.cgroup, "path": self._cgroups.path(event.cgroup)},
            "namespaces": {
                "mnt": event.mnt_ns,
                "pid": event.pid_ns,
                "net": event.net_ns,
                "user": event.user_ns,
                "uts": event.uts_ns,
                "ipc": event.ipc_ns,
                "cgroup": event.cgroup_ns,
            },
        }

    def ancestors(self, event: Event) -> list[Json]:
        """`input.process.ancestors`: parent first, as far as known."""
        below, found = self._table.actor(event), list[Json]()
        for each in self._table.ancestors(below):
            found.append(self._above(each.key, each, below.made))
            below = each
        return found

    def _above(self, key: Key, process: Process | None, made: int) -> dict[str, Json]:
        """One from which another descends. `made`: `Process.made` of that one, which takes the name away."""
        brief = self._brief(key, process)
        return {**brief, "program": "" if made else brief["program"], "influence": _words(made)}

    def _brief(self, key: Key, process: Process | None) -> dict[str, Json]:
        if process is None:
            unknown: dict[str, Json] = {"comm": "", "exe": UNKNOWN, "exe_known": False, "program": ""}
            return {"tgid": key.tgid, "start_time": key.start_time, **unknown}
        return {
            "tgid": key.tgid,
            "start_time": key.start_time,
            "comm": process.comm,
            "exe": process.exe,
            "exe_known": process.exe_known,
            "program": self.programs.get(process.identity, ""),
        }

    def _other(self, key: Key) -> dict[str, Json]:
        process = self._table.find(key)
        ids: dict[str, Json] = {"known": process is not None, "uid": process.uid if process is not None else 0}
        return {**self._brief(key, process), **ids}


def _words(influence: int) -> list[Json]:
    return [word for bit, word in INFLUENCE.items() if influence & bit]


def document_schema(event_type: EventType, facts: Mapping[str, Json]) -> dict[str, Json]:
    """JSON Schema of `input.event` for one kind."""
    schema = event_type.schema()
    properties = schema["properties"]
    assert isinstance(properties, dict)
    for name in event_type.event.PROCESSES:
        properties[name] = OTHER_PROCESS
    properties.update(facts)
    schema["required"] = list(properties)
    return schema


_BRIEF: dict[str, Json] = {
    "tgid": {"type": "integer", "minimum": 0},
    "start_time": {
        "type": "integer",
        "minimum": 0,
        "description": "ns since boot; to 10 ms for some older than the agent",
    },
    "comm": {"type": "string"},
    "exe": {"type": "string", "description": "path of the executable, `?` when not known, empty for kernel threads"},
    "exe_known": {"type": "boolean"},
    "program": {"type": "string", "description": "its name in data.executables, or empty"},
}
_INFLUENCE: dict[str, Json] = {
    "type": "array",
    "items": {"enum": list(INFLUENCE.values())},
    "description": "what has influenced the process from outside since it executed that: then it has no name. The "
    "environment is looked at only where the executable has one",
}
_INFLUENCE_BELOW: Json = {
    **_INFLUENCE,
    "description": "what had influenced it when it made the next one, or the next one before it executed what it runs: "
    "then it has no name",
}


def _closed(properties: dict[str, Json]) -> dict[str, Json]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


OTHER_PROCESS: Json = _closed({**_BRIEF, "known": {"type": "boolean"}, "uid": {"type": "integer", "minimum": 0}})
"""JSON Schema of a process that an event is about."""
_ABOVE = _closed({**_BRIEF, "influence": _INFLUENCE_BELOW})
_NUMBER: Json = {"type": "integer", "minimum": 0}
_PROCESS: dict[str, Json] = {
    "tgid": _NUMBER,
    "tid": _NUMBER,
    **{name: _BRIEF[name] for name in ("start_time", "comm", "exe", "exe_known", "program")},
    "influence": _INFLUENCE,
    "uid": _NUMBER,
    "euid": _NUMBER,
    "gid": _NUMBER,
    "kernel_thread": {"type": "boolean"},
    "container": {"type": "boolean", "description": "in a PID namespace other than the machine's"},
    "parent": _ABOVE,
    "cgroup": _closed({"id": _NUMBER, "path": {"type": "string"}}),
    "namespaces": _closed(dict.fromkeys(_NAMESPACES, _NUMBER)),
    "ancestors": {
        "type": "array",
        "items": _ABOVE,
        "maxItems": MOST_ANCESTORS,
        "description": f"parent first, at most {MOST_ANCESTORS}",
    },
}
PROCESS_NAMES = frozenset(_PROCESS)
"""What `input.process` has."""
PROCESS_SCHEMA: Json = _closed(_PROCESS)
"""JSON Schema of `input.process`; the journal leaves `ancestors` out."""


def host() -> dict[str, Json]:
    """`input.host`, which is also the journal's: which machine this is, and since which boot."""
    system = os.uname()
    return {
        "name": system.nodename,
        "release": system.release,
        "machine": system.machine,
        "machine_id": machine_id(),
        "boot_id": boot_id(),
    }


def machine_id(file: Path = Path("/etc/machine-id")) -> str:
    """The machine's own id, 32 hexadecimal digits; empty where it has none, as in an image that never booted."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        text = os.read(descriptor, 64).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return text if _MACHINE_ID.fullmatch(text) else ""

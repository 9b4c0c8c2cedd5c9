"""What every event has, and how bytes from the ring buffer become one.

The header is filled in BPF (`bpf/header.h`) when a record is sent, so it is true for the moment of the event even if
the process is gone when the record arrives. An event type is a subclass of `Event` with a `KIND`, a `NAME` and fields
of its own; see `krie.events.layout` for how fields are declared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Self

from ..errors import DecodeError, LayoutError
from .core_maps import By, Context, Done, Lost
from .layout import Doc, Inline, layout_of
from .wire import U16, U32, U64, Choice, Comm, FlagSet, Json

DONE = {
    int(Done.REFUSED): "refused",
    int(Done.POISONED): "poisoned",
    int(Done.KILLED): "killed",
    int(Done.KILL_FAILED): "killing failed",
    int(Done.POISON_FAILED): "poisoning failed",
}
"""What people read of the bits of `Event.done`."""
DECIDED_BY = {int(each): each.name.lower() for each in By}
"""Names of the values of `Event.decided_by`."""
BY_TABLE = int(By.TABLE)
KERNEL_THREAD, CONTAINER = int(Context.KERNEL_THREAD), int(Context.CONTAINER)
INFLUENCE = {
    int(Lost.TRACED): "traced",
    int(Lost.WRITTEN): "memory_written",
    int(Lost.ENVIRONMENT): "environment",
    int(Lost.EXECUTABLE): "executable_changed",
    int(Lost.NAMESPACE): "namespace",
    int(Lost.SHARED): "memory_shared",
    int(Lost.UNBOUND): "unknown",
    int(Lost.SUPERVISED): "supervised",
}
"""Names of the bits of `Event.context` that say why a process has no name although its executable has one."""
INFLUENCED = sum(INFLUENCE)
UNBOUND = int(Lost.UNBOUND)
"""The one of these that says that nobody saw what there was."""
RESERVED_KINDS = range(0x0001, 0x8000)
"""Numbers for KRIe's own event types; plugins from outside take theirs from 0x8000 on."""


@dataclass(frozen=True, slots=True)
class Event:
    """The header that every record starts with. `struct krie_header` in C."""

    KIND: ClassVar[int] = 0
    """The number of the event type: explicit, never reused, never derived from an order."""
    NAME: ClassVar[str] = ""
    """`<plugin>.<event>`"""
    VERSION: ClassVar[int] = 1
    """Raised by one whenever the fields change."""
    BACKGROUND: ClassVar[bool] = False
    """Nobody sees it but the process table: its header says nothing of cgroup and namespaces, and the agent takes it
    when many have come, or another record, or a second is over."""
    PROCESSES: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Other processes that the event is about: a name, and the fields with tgid and start time. Policies and the
    journal see what is known of each of them under that name in the event."""
    ALIKE: ClassVar[tuple[str, ...]] = ()
    """Those of `PROCESSES` which programs compare where they find two attempts alike: they do
    `answer.digest = krie_digest_with(answer.digest, task)`. Where rules that matter read of another one, no two
    attempts are alike."""

    kind: Annotated[U16, Doc("number of the event type")]
    version: Annotated[U16, Doc("version of its layout")]
    size: Annotated[U32, Doc("bytes of the whole record")]
    seq: Annotated[
        U64, Doc("number of this record among those of its kind and CPU, from 0; a lost record takes one too")
    ]
    time: Annotated[U64, Doc("ns since boot, suspend included (CLOCK_BOOTTIME)")]
    cpu: Annotated[U32, Doc("CPU on which the record was written")]
    tid: Annotated[U32, Doc("thread, as numbered in the initial PID namespace")]
    start_time: Annotated[U64, Doc("start of the process (its group leader), ns on the same clock")]
    tgid: Annotated[U32, Doc("process, likewise")]
    uid: Annotated[U32, Inline(), Doc("real user, as numbered in the initial user namespace")]
    euid: Annotated[U32, Inline(), Doc("effective user, likewise")]
    gid: Annotated[U32, Inline(), Doc("real group, likewise")]
    cgroup: Annotated[U64, Doc("id of the process's cgroup in the v2 hierarchy")]
    exe_ino: Annotated[
        U64, Doc("inode number of what it executed, on overlayfs of the file below; 0: a kernel thread, or unknown")
    ]
    exe_dev: Annotated[
        U32, Doc("device of the executable's file system, as the kernel numbers it (major << 20 | minor)")
    ]
    exe_generation: Annotated[U32, Doc("generation of that inode, which tells a reused number apart")]
    parent_start_time: Annotated[U64, Doc("start of the parent process, ns on the same clock")]
    parent_tgid: Annotated[U32, Doc("parent process at that moment")]
    mnt_ns: Annotated[U32, Doc("mount namespace, the number that /proc/TGID/ns/mnt shows")]
    pid_ns: Annotated[U32, Doc("PID namespace of the process")]
    net_ns: Annotated[U32, Doc("network namespace")]
    user_ns: Annotated[U32, Doc("user namespace")]
    uts_ns: Annotated[U32, Doc("host name namespace")]
    ipc_ns: Annotated[U32, Doc("IPC namespace")]
    cgroup_ns: Annotated[U32, Doc("cgroup namespace")]
    done: Annotated[U16, Doc("what the program itself did about it: bits of `DONE`")]
    errno: Annotated[U16, Doc("the error that it gave the caller, or why its signal was not taken")]
    verdict: Annotated[U32, Doc("the agent's number of the rule behind it; 0: none")]
    decided_by: Annotated[U32, Doc("what stood behind it: one of `DECIDED_BY`; 0: nothing was decided in the kernel")]
    context: Annotated[
        U32, Doc("bits: 1 a kernel thread, 2 in a PID namespace other than the initial one, others of `INFLUENCE`")
    ]
    generation: Annotated[U32, Doc("generation of the policy's table that decided; 0: no table did")]
    container_ns: Annotated[
        U32, Doc("the outermost PID namespace in which it lives, below the initial one; 0: none, or a user namespace's")
    ]
    comm: Annotated[Comm, Doc("name of the thread; anyone can set it")]

    @classmethod
    def without_header(cls, **own: object) -> Self:
        """An event that no probe sent, of these own fields: the agent fills the header with its own process."""
        header: dict[str, Any] = {each.name: "" if each.name == "comm" else 0 for each in fields(Event)}
        return cls(**{**header, **own})


HEADER_FIELDS = tuple(each.name for each in fields(Event))


def own_fields(event: type[Event]) -> frozenset[str]:
    """Names of the fields that an event type adds to the header."""
    return frozenset(each.name for each in layout_of(event).data_fields) - frozenset(HEADER_FIELDS)


_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


class EventType:
    """An event class with what was derived from it once: layout, C names, JSON, schema."""

    def __init__(self, event: type[Event]) -> None:
        """Raise `LayoutError` when the class breaks a rule of this module or of `krie.events.layout`."""
        name = event.__name__
        if not _NAME.fullmatch(event.NAME):
            raise LayoutError(name, "NAME", f"{event.NAME!r} is not of the form plugin.event in lower case")
        for constant, value in (("KIND", event.KIND), ("VERSION", event.VERSION)):
            if not 0 < value < 1 << 16:
                raise LayoutError(name, constant, f"{value} is not between 1 and 65535")
        declared = {
            each for base in event.__mro__ if base is not Event for each in vars(base).get("__annotations__", ())
        }
        if taken := declared.intersection(HEADER_FIELDS):
            raise LayoutError(name, min(taken), "is a field of every event's header; give it another name")
        self.event, self.kind, self.name, self.version = event, event.KIND, event.NAME, event.VERSION
        self.layout = layout_of(event)
        known = {each.name for each in self.layout.data_fields}
        for process, parts in event.PROCESSES.items():
            if process in known:
                raise LayoutError(name, "PROCESSES", f"{process!r} is a field already; give the process another name")
            if missing := sorted(set(parts) - known):
                raise LayoutError(name, "PROCESSES", f"{process!r} names {missing[0]!r}, which is not a field")
        if unknown := sorted(set(event.ALIKE) - set(event.PROCESSES)):
            raise LayoutError(name, "ALIKE", f"{unknown[0]!r} is none of PROCESSES")
        self.own_fields = self.layout.data_fields[len(HEADER_FIELDS) :]
        self._json = tuple((each.name, each.wire.to_json()) for each in self.own_fields)

    @property
    def c_name(self) -> str:
        """The tag of the C struct: the event's name with an underscore for the dot."""
        return self.name.replace(".", "_")

    @property
    def c_kind(self) -> str:
        """The C constant of the kind."""
        return f"KRIE_KIND_{self.c_name.upper()}"

    def c_declaration(self) -> str:
        """The kind's constants, those of its enumerations and flag sets, and the struct, for the translation unit."""
        constants = {self.c_kind: self.kind, f"KRIE_VERSION_{self.c_name.upper()}": self.version, **self._c_names()}
        return "".join(f"#define {name} {value:#x}\n" for name, value in constants.items()) + self._c_struct()

    def _c_names(self) -> dict[str, int]:
        """`PLUGIN_EVENT_FIELD_NAME` for each name that a number of a field has."""
        return {
            re.sub(r"\W", "_", f"{self.c_name}_{each.name}_{name}").upper(): number
            for each in self.own_fields
            if isinstance(each.wire, Choice | FlagSet)
            for number, name in each.wire.names.items()
        }

    def _c_struct(self) -> str:
        flat = self.layout.c_struct(self.c_name)
        header = layout_of(Event).c_struct("krie_header")
        body = flat.split("{\n", 1)[1]
        members = header.split("{\n", 1)[1].split("};", 1)[0]
        body = body.replace(members, "    struct krie_header header;\n", 1)
        for each in HEADER_FIELDS:
            body = body.replace(
                f"offsetof(struct {self.c_name}, {each})", f"offsetof(struct {self.c_name}, header.{each})"
            )
        return f"struct {self.c_name} {{\n{body}"

    def json(self, event: Event) -> dict[str, Json]:
        """The event's own fields as JSON, in order of declaration, as journal and policies see them."""
        return {
            name: getattr(event, name) if convert is None else convert(getattr(event, name))
            for name, convert in self._json
        }

    def schema(self) -> dict[str, Json]:
        """JSON Schema of `json`'s answer with the `kind` that policies compare."""
        properties: dict[str, Json] = {"kind": {"const": self.name}}
        for each in self.own_fields:
            properties[each.name] = {**each.wire.schema(), **({"description": each.doc} if each.doc else {})}
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": self.name,
            "description": (self.event.__doc__ or "").strip(),
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


class EventTypes:
    """The event types of one agent by kind. Built once from all sensors; decoding never trusts the bytes."""

    def __init__(self, events: Iterable[type[Event]]) -> None:
        """Raise `LayoutError` for a kind or a name that two classes claim."""
        self._types: dict[int, EventType] = {}
        self._by_name: dict[str, EventType] = {}
        for each in events:
            new = EventType(each)
            if (old := self._types.get(new.kind)) is not None:
                raise LayoutError(
                    each.__name__, "KIND", f"{new.kind:#06x} is taken by {old.event.__name__} ({old.name})"
                )
            if (old := self._by_name.get(new.name)) is not None:
                raise LayoutError(each.__name__, "NAME", f"{new.name!r} is taken by {old.event.__name__}")
            self._types[new.kind] = self._by_name[new.name] = new
        self._decoders: dict[int, tuple[EventType, Callable[[bytes], list[Any]]]] = {
            kind: (each, each.layout.values) for kind, each in self._types.items()
        }

    def __iter__(self) -> Iterator[EventType]:
        """The event types in order of their kinds."""
        return iter(sorted(self._types.values(), key=lambda each: each.kind))

    def __getitem__(self, kind: int) -> EventType:
        """The type of a kind; raises `KeyError`."""
        return self._types[kind]

    def named(self, name: str) -> EventType:
        """The type with this name; raises `KeyError`."""
        return self._by_name[name]

    def decode(self, raw: bytes) -> Event:
        """Turn the bytes of one record into an event; raises `DecodeError` when they are not exactly one."""
        kind = int.from_bytes(raw[:2], "little")
        try:
            event_type, values_of = self._decoders[kind]
        except KeyError:
            raise DecodeError(f"no event type has kind {kind:#06x}", raw) from None
        values = values_of(raw)
        if values[1] != event_type.version:
            raise DecodeError(f"{event_type.name} has version {event_type.version}, not {values[1]}", raw)
        if values[2] != len(raw):
            raise DecodeError(f"the header says {values[2]} bytes", raw)
        return event_type.event(*values)

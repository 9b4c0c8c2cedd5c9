"""What agent and loader child tell each other, as values that survive JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from ..errors import CompileError, KernelError, SwitchedOffError
from ..exhaustion import exhausted
from ..kernel.program import AttachType, Program
from ..privileges import REFUSALS, why_refused
from .alternatives import Option
from .record_source import RecordSource
from .source import CFile, SensorSource


class Purpose(StrEnum):
    """What is wanted of the loader child."""

    ATTACH = "attach"
    CHECK = "check"
    """Only compile, with the compiler's warnings, and look at the offsets."""
    TRIAL = "trial"
    """Load the programs that `krie policy verify` runs, and attach nothing."""


@dataclass(frozen=True, slots=True)
class AlternativeRequest:
    """One alternative of a probe, in order of preference."""

    name: str
    programs: tuple[Program, ...]
    every_syscall: bool


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One probe of a sensor."""

    name: str
    alternatives: tuple[AlternativeRequest, ...]
    has_canary: bool


@dataclass(frozen=True, slots=True)
class SensorRequest:
    """One sensor, as far as the kernel side is concerned."""

    name: str
    sources: tuple[CFile, ...]
    probes: tuple[ProbeRequest, ...]
    events: tuple[RecordSource, ...]
    types: tuple[str, ...]
    defines: tuple[tuple[str, int], ...]
    shared: str
    """The C of its structs that are not records."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the child is to load."""

    requests: tuple[SensorRequest, ...]
    ring_pages: int
    allow_every_syscall: bool
    cache_dir: str = ""
    """Folder of what was compiled before; empty: compile."""
    purpose: Purpose = Purpose.ATTACH
    compiled_dir: str = ""
    """Folder of what was compiled elsewhere; empty: none."""
    secret: int = 0
    """What the agent says when it runs its own programs: a number of 64 bits that nobody can guess."""
    switches: tuple[int, ...] = ()
    """Where the kernel keeps what is looked at before something is attached: `krie.kernel.switches.Addresses`."""

    @property
    def sensors(self) -> Mapping[str, SensorRequest]:
        """The sensors by name."""
        return {each.name: each for each in self.requests}

    @property
    def options(self) -> Mapping[str, tuple[Option, ...]]:
        """All alternatives by `<plugin>.<probe>`."""
        return {
            f"{sensor.name}.{probe.name}": tuple(
                Option(f"{sensor.name}.{probe.name}", each.name, each.programs, each.every_syscall, probe.has_canary)
                for each in probe.alternatives
            )
            for sensor in self.requests
            for probe in sensor.probes
        }

    def source(self, name: str) -> SensorSource:
        """What of a sensor is compiled: the programs of all of its alternatives."""
        sensor = self.sensors[name]
        programs = tuple(
            program for probe in sensor.probes for alternative in probe.alternatives for program in alternative.programs
        )
        return SensorSource(
            name,
            sensor.sources,
            sensor.events,
            tuple(dict.fromkeys(each.label for each in programs)),
            sensor.types,
            sensor.defines,
            sensor.shared,
        )

    def to_json(self) -> dict[str, Any]:
        """The message as the channel carries it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Request:
        """The inverse of `to_json`."""
        return cls(
            tuple(_sensor(each) for each in data["requests"]),
            data["ring_pages"],
            data["allow_every_syscall"],
            data["cache_dir"],
            Purpose(data["purpose"]),
            data["compiled_dir"],
            data["secret"],
            tuple(data["switches"]),
        )


def _sensor(data: Mapping[str, Any]) -> SensorRequest:
    return SensorRequest(
        data["name"],
        tuple(CFile(**each) for each in data["sources"]),
        tuple(
            ProbeRequest(
                probe["name"],
                tuple(
                    AlternativeRequest(each["name"], _programs(each["programs"]), each["every_syscall"])
                    for each in probe["alternatives"]
                ),
                probe["has_canary"],
            )
            for probe in data["probes"]
        ),
        tuple(
            RecordSource(**{**each, "inline": tuple((name, shape) for name, shape in each["inline"])})
            for each in data["events"]
        ),
        tuple(data["types"]),
        tuple((name, value) for name, value in data["defines"]),
        data["shared"],
    )


def _programs(data: Iterable[Mapping[str, Any]]) -> tuple[Program, ...]:
    return tuple(Program(**{**each, "attach": AttachType(each["attach"])}) for each in data)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the child could not serve the request: a `KernelError` or, without an operation, what the compiler says."""

    operation: str
    errno: int = 0
    hint: str = ""
    details: str = ""
    switched_off: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Of what was raised. Raises it again where nobody raised it on purpose, and nothing is used up."""
        number = exhausted(error)
        if not isinstance(error, KernelError):
            if not number:
                raise error
            return cls("compiling and attaching", number)
        if error.errno in REFUSALS and not error.hint:
            return cls(error.operation, error.errno, why_refused(), error.details)
        off = isinstance(error, SwitchedOffError)
        return cls(error.operation, error.errno or number, error.hint, error.details, off)

    def to_json(self) -> dict[str, Any]:
        """The message as the channel carries it."""
        return asdict(self)

    def error(self, sensors: Iterable[str]) -> KernelError | CompileError:
        """As it was raised, or is to be for these sensors."""
        if not self.operation:
            return CompileError(", ".join(sensors), self.details)
        kind = SwitchedOffError if self.switched_off else KernelError
        return kind(self.operation, self.errno, self.hint, self.details)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the child hands over, beside the descriptors."""

    names: tuple[str, ...]
    """What each descriptor is: `map:NAME`, `program:LABEL`, `link:LABEL`."""
    programs: tuple[str, ...]
    """Labels of programs in order of their index in the map `krie_alive`."""
    kinds: tuple[int, ...]
    """Kinds in order of their slot in the map `krie_counts`."""
    sensors: tuple[str, ...]
    """Sensors in order of their index in the map `krie_enforcing`."""
    chosen: Mapping[str, str]
    """Alternative by `<plugin>.<probe>`."""
    reasons: Mapping[str, Mapping[str, str]]
    """For each probe and alternative why it was taken or not."""
    attached: tuple[str, ...]
    """Labels of the programs that are in use, those of earlier messages too."""
    wrong_offsets: tuple[str, ...]
    """Fields that the compiled code reads at the wrong place."""
    warnings: tuple[str, ...] = ()
    """What the compiler said, where `check` asked for it."""
    origin: str = ""
    """Where the programs come from: see `krie.loader.unit_cache.Origin`."""
    cache_problem: str = ""
    """Why `compiled_dir` or `cache_dir` was of no use; empty where all is well."""

    def to_json(self) -> dict[str, Any]:
        """The message as the channel carries it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Loaded:
        """The inverse of `to_json`."""
        return cls(
            tuple(data["names"]),
            tuple(data["programs"]),
            tuple(data["kinds"]),
            tuple(data["sensors"]),
            data["chosen"],
            data["reasons"],
            tuple(data["attached"]),
            tuple(data["wrong_offsets"]),
            tuple(data["warnings"]),
            data["origin"],
            data["cache_problem"],
        )

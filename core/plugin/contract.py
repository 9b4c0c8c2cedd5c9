"""What a plugin's sensors must be; everything that breaks the contract is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from itertools import chain
from typing import Any

from ..errors import PluginError
from ..events.event import RESERVED_KINDS, Event, EventType
from ..kernel.program import AttachType
from .probe import Sensor

OF_THE_CORE = frozenset({"agent", "containment", "decision", "guard", "krie", "process"})
"""Names of its sensors, and prefixes of its events and C functions."""


def sensor_of(entry: EntryPoint, answer: Any) -> Sensor | None:
    """What `krie_sensor` returned, as the one sensor that the agent knows of a plugin; None where there is nothing.

    Raises `PluginError`, `LayoutError` for what breaks the contract of `krie.plugin.probe`.
    """
    parts = tuple(answer) if isinstance(answer, list | tuple) else () if answer is None else (answer,)
    for each in parts:
        if not isinstance(each, Sensor):
            raise PluginError(entry.name, f"krie_sensor returned {each!r}, not a krie.Sensor")
        if each.name != entry.name:
            problem = f"its sensor is named {each.name!r}; it must have the name of the entry point"
            raise PluginError(entry.name, problem)
    if not parts:
        return None
    sensor = joined(parts)
    check_sensor(entry, sensor)
    return sensor


def joined(parts: Sequence[Sensor]) -> Sensor:
    """Sensors of one plugin, put together: what two of them name is there once. Raises `PluginError`."""
    if len(parts) == 1:
        return parts[0]
    first, defines = parts[0], dict(parts[0].defines)
    for each in parts[1:]:
        if each.version != first.version:
            raise PluginError(first.name, f"its sensors have versions {first.version} and {each.version}; use one")
        for name, value in each.defines.items():
            if (other := defines.setdefault(name, value)) != value:
                raise PluginError(first.name, f"constant {name} is {other} in one of its sensors, {value} in another")
    policies = list(dict.fromkeys(each.policies for each in parts if each.policies is not None))
    if len(policies) > 1:
        raise PluginError(first.name, f"its sensors have policies in {policies[0]} and {policies[1]}; use one folder")
    return Sensor(
        first.name,
        first.version,
        probes=tuple(probe for each in parts for probe in each.probes),
        events=tuple(dict.fromkeys(chain.from_iterable(each.events for each in parts))),
        sources=tuple(dict.fromkeys(chain.from_iterable(each.sources for each in parts))),
        policies=policies[0] if policies else None,
        types=tuple(dict.fromkeys(chain.from_iterable(each.types for each in parts))),
        defines=defines,
        shared=tuple(dict.fromkeys(chain.from_iterable(each.shared for each in parts))),
    )


def check_sensor(entry: EntryPoint, sensor: Sensor) -> None:
    """Refuse a sensor that breaks the contract of `krie.plugin.probe`. Raises `PluginError`, `LayoutError`."""

    def refuse(problem: str) -> None:
        raise PluginError(entry.name, problem)

    if sensor.name in OF_THE_CORE:
        refuse(f"{sensor.name!r} is a name of the core's own; give the entry point another one")
    built_in = entry.dist is not None and entry.dist.name == "krie"
    fields: dict[type[Event] | None, set[str]] = {}
    for event in sensor.events:
        event_type = EventType(event)
        fields[event] = {each.name for each in event_type.own_fields}
        if not event_type.name.startswith(f"{sensor.name}."):
            refuse(f"event {event_type.name} must be named {sensor.name}.<event>")
        if event_type.kind in RESERVED_KINDS and not built_in:
            refuse(f"event {event_type.name} has kind {event_type.kind:#06x}; numbers below 0x8000 are KRIe's own")
    names = [probe.name for probe in sensor.probes]
    for probe in sensor.probes:
        if names.count(probe.name) > 1 or not probe.name.isidentifier() or probe.name != probe.name.lower():
            refuse(f"probe {probe.name!r} must have a name of its own, in lower case")
        if probe.event is not None and probe.event not in fields:
            refuse(f"probe {probe.name} emits {probe.event.__name__}, which is not among the sensor's events")
        for alternative in probe.alternatives:
            if unknown := alternative.fields - fields.get(probe.event, set()):
                refuse(f"{probe.name}/{alternative.name} fills {sorted(unknown)}, which its event does not have")
            for program in alternative.programs:
                if not program.function.startswith(f"{sensor.name}_"):
                    refuse(f"C function {program.function} must be named {sensor.name}_<something>")
                if program.roaming and (program.attach is not AttachType.KPROBE or probe.canary is not None):
                    refuse(f"{probe.name}/{alternative.name} roams: it must be a kprobe, of a probe without a canary")
                if program.through and program.proven:
                    refuse(
                        f"{probe.name}/{alternative.name}: {program.function} is not attached; no canary can prove it"
                    )
    for define in sensor.defines:
        if not define.startswith(f"{sensor.name.upper()}_"):
            refuse(f"constant {define} must be named {sensor.name.upper()}_<something>")
    for struct in sensor.shared:
        struct.layout()
        if not struct.C_NAME.startswith(f"{sensor.name}_"):
            refuse(f"struct {struct.C_NAME} of {struct.__name__} must be named {sensor.name}_<something>")
    if sensor.probes and not sensor.sources:
        refuse("has probes, but no C source")

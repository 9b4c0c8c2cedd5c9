"""What a plugin's sensor must be; everything that breaks the contract is refused by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from ..errors import PluginError
from ..events.event import RESERVED_KINDS, EventType
from ..kernel.program import AttachType
from .probe import Sensor

OF_THE_CORE = frozenset({"agent", "containment", "decision", "guard", "krie", "process"})
"""Names of its sensors, and prefixes of its events and C functions."""


def check_sensor(entry: EntryPoint, sensor: Any) -> None:
    """Refuse a sensor that breaks the contract of `krie.plugin.probe`. Raises `PluginError`, `LayoutError`."""

    def refuse(problem: str) -> None:
        raise PluginError(entry.name, problem)

    if not isinstance(sensor, Sensor):
        refuse(f"krie_sensor returned {sensor!r}, not a krie.Sensor")
    if sensor.name != entry.name:
        refuse(f"its sensor is named {sensor.name!r}; it must have the name of the entry point")
    if sensor.name in OF_THE_CORE:
        refuse(f"{sensor.name!r} is a name of the core's own; give the entry point another one")
    built_in = entry.dist is not None and entry.dist.name == "krie"
    fields = {}
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

"""What the loader is asked for."""

from __future__ import annotations

from ..events.event import EventType
from ..events.inline import shape_of
from ..events.shared import declarations
from ..plugin.probe import Sensor
from .messages import AlternativeRequest, ProbeRequest, SensorRequest
from .record_source import RecordSource
from .source import CFile


def sensor_request(sensor: Sensor) -> SensorRequest:
    """What the loader needs to know of a sensor that has C source."""
    return SensorRequest(
        sensor.name,
        tuple(CFile(str(each), each.read_text()) for each in sensor.sources),
        tuple(
            ProbeRequest(
                probe.name,
                tuple(AlternativeRequest(each.name, each.programs, each.every_syscall) for each in probe.alternatives),
                probe.canary is not None,
            )
            for probe in sensor.probes
        ),
        tuple(
            RecordSource(
                each.c_name,
                each.kind,
                each.version,
                each.c_declaration(),
                tuple((field.name, shape_of(field.wire)) for field in each.own_fields if field.inline),
                each.event.BACKGROUND,
            )
            for each in map(EventType, sensor.events)
        ),
        sensor.types,
        tuple(sensor.defines.items()),
        declarations(sensor.shared),
    )

"""Which rules the probes of a kind can carry out in the kernel, by all alternatives or by those attached here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..decision import Action
from ..events.event import EventType, EventTypes
from ..plugin.probe import Alternative, Enforcement, Sensor
from ..plugin.report import ProbeReport
from ..policy.engine import Rule

Ways = Mapping[str, Mapping[str, Sequence[Alternative]]]
"""By kind and probe: the alternatives that may be the attached one."""


def ways_here(reports: Iterable[ProbeReport]) -> Ways:
    """Those that are attached on this machine."""
    found: dict[str, dict[str, Sequence[Alternative]]] = {}
    for each in reports:
        if each.probe.event is not None:
            ways = [] if each.alternative is None else [each.alternative]
            found.setdefault(each.probe.event.NAME, {})[each.name] = ways
    return found


def ways_anywhere(sensors: Iterable[Sensor]) -> Ways:
    """All that the sensors offer."""
    found: dict[str, dict[str, Sequence[Alternative]]] = {}
    for sensor in sensors:
        for probe in sensor.probes:
            if probe.event is not None:
                found.setdefault(probe.event.NAME, {})[f"{sensor.name}.{probe.name}"] = probe.alternatives
    return found


def sent_kinds(ways: Ways, types: EventTypes) -> list[EventType]:
    """The kinds that programs send."""
    return [each for each in types if each.name in ways]


def needed(rule: Rule) -> Enforcement:
    """What a program must be able to do for the rule."""
    return Enforcement.KILL if rule.fired.action is Action.KILL else Enforcement.REFUSE


def cannot(ways: Ways, kind: str, rule: Rule) -> str:
    """Why the probes of a kind cannot carry out what a rule asks for; empty where all can that should."""
    probes = {name: alternatives for name, alternatives in ways.get(kind, {}).items() if alternatives}
    if not probes:
        return f"no probe of {kind} is attached"
    probes = {name: each for name, each in probes.items() if not all(way.bystander for way in each)} or probes
    unable = [
        f"{name} ({', '.join(each.name for each in alternatives)})"
        for name, alternatives in probes.items()
        if not any(needed(rule) in each.can for each in alternatives)
    ]
    return f"{', '.join(unable)} cannot {needed(rule)}" if unable else ""

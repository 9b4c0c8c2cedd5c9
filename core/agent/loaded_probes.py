"""What is loaded while a start looks for what is alive, and what of it roams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..enforce.verdicts import Verdicts
from ..kernel.maps import Maps
from ..kernel.program import Program
from ..loader.launcher import LoadedSet
from ..plugin.probe import Sensor
from .health import Canaries, ProbeHealth
from .missed import MissedRuns


@dataclass(slots=True)
class LoadedProbes:
    """What is loaded at the moment; leaving it detaches that."""

    loaded: LoadedSet

    def __enter__(self) -> LoadedProbes:
        return self

    def __exit__(self, *_: object) -> None:
        self.loaded.close()


def probe_health(
    sensors: tuple[Sensor, ...],
    loaded: LoadedSet,
    stuck: Mapping[str, str],
    maps: Maps,
    canaries: Canaries,
    verdicts: Verdicts,
) -> ProbeHealth:
    """`stuck`: why roaming programs could not be attached, by probe."""
    chosen = {probe: name for probe, name in loaded.loaded.chosen.items() if probe not in stuck}
    reasons: Mapping[str, Mapping[str, str]] = {
        probe: {**why, **({loaded.loaded.chosen[probe]: stuck[probe]} if probe in stuck else {})}
        for probe, why in loaded.loaded.reasons.items()
    }
    left_out = {
        f"{sensor.name}.{probe.name}": {each.name: str(loaded.dropped[sensor.name]) for each in probe.alternatives}
        for sensor in sensors
        if sensor.name in loaded.dropped
        for probe in sensor.probes
    }
    descriptors = {label: loaded.descriptors.get(f"program:{label}", ()) for label in loaded.loaded.programs}
    missed = MissedRuns({label: group[0] for label, group in descriptors.items() if group})
    return ProbeHealth(
        sensors,
        chosen,
        {**reasons, **left_out},
        loaded.loaded.programs,
        maps["krie_alive"],
        canaries,
        verdicts.watched,
        loaded.loaded.attached,
        missed.now,
    )


def roaming_programs(sensors: Iterable[Sensor], loaded: LoadedSet) -> Iterator[tuple[str, Program]]:
    """Those of the alternatives that were taken."""
    for sensor in sensors:
        for probe in sensor.probes:
            name = f"{sensor.name}.{probe.name}"
            for each in probe.alternatives:
                if each.name == loaded.loaded.chosen.get(name):
                    yield from ((name, program) for program in each.programs if program.roaming)

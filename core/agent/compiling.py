"""Compiles what agents with a configuration will ask for, for a kernel that need not run here: `krie compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..enforce.guard_sensor import enforcing_sensors
from ..errors import CompileError, KernelError, LoaderError, PluginError
from ..kernel.btf import Btf
from ..kernel.features import Features
from ..loader.compiler import FLAGS, QUIET
from ..loader.isolated import compile_isolated
from ..loader.messages import Request
from ..loader.object import Object
from ..loader.request import sensor_request
from ..loader.source import SensorSource, Unit, assemble
from ..loader.unit_cache import Store
from ..plugin.isolation import PluginFault
from ..plugin.manager import Plugins
from ..plugin.probe import Sensor
from ..processes.sensor import process_sensor

_FLAGS = (*FLAGS, *QUIET)


@dataclass(frozen=True, slots=True)
class Entry:
    """One compiled unit in a folder."""

    key: str
    """Its file's name."""
    purpose: str
    """Which commands ask for it."""
    sensors: tuple[str, ...]
    made: Object
    new: bool
    """It was not there before."""


def plugin_sensors(config: Config, place: str) -> tuple[Sensor, ...]:
    """What the configured plugins bring to a kernel of which nothing was tried. Raises `KrieError`."""

    def refuse(fault: PluginFault) -> None:
        raise PluginError(fault.plugin, fault.error)

    return Plugins.load(config, place, Features(), refuse).sensors


def sources_of(sensors: Iterable[Sensor]) -> tuple[SensorSource, ...]:
    """The share in a unit of those sensors that have C source."""
    request = Request(tuple(sensor_request(each) for each in sensors if each.sources), 1, allow_every_syscall=False)
    return tuple(map(request.source, request.sensors))


def units(plugins: tuple[Sensor, ...], btf: Btf) -> Mapping[str, Unit]:
    """The units that an agent with these plugins, and the commands with its configuration, ask for, by purpose."""
    every = {
        "run, doctor": assemble(sources_of((process_sensor(), *enforcing_sensors(), *plugins)), btf),
        "policy verify": assemble(sources_of(plugins), btf, trial=True),
    }
    return {purpose: unit for purpose, unit in every.items() if unit.sensors}


def compile_into_folder(
    wanted: Mapping[str, Unit],
    btf: Btf,
    folder: Path,
    compile_: Callable[[Unit, Btf, tuple[str, ...]], Object] = compile_isolated,
) -> Iterator[Entry]:
    """Have the units in the folder, and compile those that it lacks.

    Raises `CompileError`, `LoaderError`, and `KernelError` where there is no compiler or the folder cannot be written.
    """
    store = Store(folder)
    for purpose, unit in wanted.items():
        key = unit.key(btf, _FLAGS)
        before = store.find(key)
        made = before if before is not None else compile_(unit, btf, _FLAGS)
        if before is None:
            store.problem = ""
            store.keep(key, made)
            if store.problem:
                raise KernelError(f"keeping what was compiled: {store.problem}")
        yield Entry(key, purpose, unit.sensors, made, before is None)


def compile_configuration(config: Config, place: str, btf: Btf, folder: Path) -> Iterator[Entry]:
    """The same for what a configuration names. Where a sensor is at fault, the error is about it alone."""
    plugins = plugin_sensors(config, place)
    try:
        yield from compile_into_folder(units(plugins, btf), btf, folder)
    except (CompileError, LoaderError):
        for sensor in plugins if len(plugins) > 1 else ():
            _compile_alone(sensor, btf)
        raise


def _compile_alone(sensor: Sensor, btf: Btf) -> None:
    """Raises `CompileError`, `LoaderError` about this sensor."""
    unit = assemble(sources_of((process_sensor(), *enforcing_sensors(), sensor)), btf)
    try:
        compile_isolated(unit, btf, _FLAGS)
    except CompileError as error:
        raise CompileError(sensor.name, error.diagnostics) from error
    except LoaderError as error:
        headline = f"sensor {sensor.name} brings the compiler down: {error.headline}"
        raise LoaderError(headline, error.details) from error

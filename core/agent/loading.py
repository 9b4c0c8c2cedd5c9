"""Everything between "configured" and "armed": load the sensors, choose what is alive, learn about the machine.

Used by the agent, and by `krie doctor`, which looks at the result and goes.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol

from ..config import Config
from ..enforce.containment import NAME as CONTAINMENT
from ..enforce.guard_sensor import BEAT, enforcing_sensors
from ..enforce.guard_sensor import NAME as GUARD
from ..enforce.holders import Holder, Holders
from ..enforce.self_defence import Held
from ..enforce.verdicts import Verdicts
from ..errors import KernelError, PluginError, SwitchedOffError
from ..events.agent import AGENT_EVENTS
from ..events.enforcement import ENFORCEMENT_EVENTS
from ..events.event import Event, EventTypes
from ..kernel import bpf
from ..kernel.attach import attach_somewhere
from ..kernel.dispatch import FUNCTION as DISPATCHER
from ..kernel.inspection import Inspector
from ..kernel.maps import Maps
from ..kernel.memory import KernelMemory, open_memories
from ..kernel.ring import ring_pages
from ..kernel.standing import Standing, standing
from ..kernel.static_keys import StaticKeys, key_addresses, symbols_of
from ..kernel.symbols import addresses, functions, read_once
from ..loader.launcher import LoadedSet, LoaderProcess, load
from ..loader.messages import Request, SensorRequest
from ..loader.origin import Origin
from ..loader.request import sensor_request
from ..plugin.isolation import PluginFault
from ..plugin.manager import Plugins
from ..plugin.probe import Sensor
from ..processes.binding import PROGRAM as RUNNING
from ..processes.binding import Bindings
from ..processes.sensor import process_sensor
from ..timings import Timings, since_exec
from .ground import SYMBOLS, Ground, new_ground, open_switches, programs_of, standing_probes
from .health import Canaries, ProbeHealth
from .levers import Levers
from .load_facts import LoadFacts
from .loaded_probes import LoadedProbes, probe_health, roaming_programs
from .roaming import Roaming
from .sending import Sending

_log = logging.getLogger("krie")
_WAIT = "wait for the loader"
_WRITTEN = (
    "its static key was written in memory and says another thing than the text does: the kernel would stop with a BUG "
    "when the text changes; restart this machine"
)


@dataclass(frozen=True, slots=True)
class Attached:
    """The kernel side, loaded and attached. Nothing is sent before `arm`."""

    facts: LoadFacts
    plugins: Plugins
    types: EventTypes
    loaded: LoadedSet
    maps: Maps
    inspector: Inspector
    bindings: Bindings
    memory: KernelMemory
    agent: Event
    """A header that the kernel filled for the agent."""
    probes: ProbeHealth
    sensors: tuple[Sensor, ...]
    """The core's and the plugins', also those that were left out."""
    verdicts: Verdicts
    roaming: Roaming
    ground: Ground
    sending: Sending
    beat: Callable[[], object]
    """Tells the guard's timer that the agent lives."""
    holders: Callable[[Iterable[Held]], Iterable[Holder]]
    """Who has which of the agent's BPF objects, since the last look."""

    def programs(self) -> dict[str, int]:
        """Descriptors of the probes' programs and of the dispatchers', by label."""
        return {
            label: group[0]
            for name, group in self.loaded.descriptors.items()
            for label in (name.removeprefix("program:"),)
            if label in self.loaded.loaded.programs or name.startswith(f"program:{DISPATCHER}")
        }

    def levers(self) -> Levers:
        """By what enforcement acts."""
        order = self.loaded.loaded
        return Levers(
            self.verdicts,
            self.bindings,
            self.maps,
            order.kinds,
            order.sensors,
            self.inspector,
            self.beat,
            self.holders,
        )

    def arm(self) -> None:
        """Begin to send records."""
        self.sending.start()


class LoadSensors(Protocol):
    """Whoever loads what the configuration names: see `load_sensors`."""

    def __call__(
        self, config: Config, place: str, report: Callable[[PluginFault], None], stack: ExitStack, /, *, contain: bool
    ) -> Attached:
        """Load; `stack` detaches it. Raises `KrieError`."""


@read_once()
def load_sensors(
    config: Config, place: str, report: Callable[[PluginFault], None], stack: ExitStack, *, contain: bool
) -> Attached:
    """Load everything that the configuration names; `stack` detaches it. Raises `KrieError`.

    `contain`: with the containment sensor, which sits on paths that every process takes.

    Sensors that do not work are left out and reported as degraded plugins, unless they are required. The canaries have
    run: a probe whose first alternative was silent has fallen back to one that was not, if there is one.
    """
    timings = Timings("agent", since_exec())
    with ExitStack() as children:
        start = partial(LoaderProcess, config.agent.loader_timeout_s)
        child = children.enter_context(start())
        with timings.phase(_WAIT):
            features = child.features()
        with timings.phase("plugins"):
            plugins = Plugins.load(config, place, features, report)
        core = process_sensor()
        own = enforcing_sensors()
        sensors = (core, *(own if contain else ()), *plugins.sensors)
        secret = int.from_bytes(os.urandom(8), "little")
        types = EventTypes(
            (*AGENT_EVENTS, *ENFORCEMENT_EVENTS, *(event for sensor in sensors for event in sensor.events))
        )
        request = Request(
            unit_requests(sensors),
            ring_pages(config.agent.ring_mib),
            config.agent.allow_syscall_tracepoints,
            config.agent.cache_dir,
            compiled_dir=config.agent.compiled_dir,
            secret=secret,
        )
        essential = frozenset(each.name for each in (core, *own))
        memory, windows = open_memories(stack)
        with timings.phase("static keys"):
            programs = tuple(programs_of(sensors))
            found = addresses(SYMBOLS | symbols_of(programs))
            keys = key_addresses(programs, found)
            if lying := StaticKeys(memory.read).lying(set(keys.values())):
                place = next(each.target or str(each.attach) for each, key in keys.items() if key == lying)
                raise KernelError(f"attaching to {place}", errno.EBUSY, _WRITTEN)
        with timings.phase("switches"):
            seen = open_switches(memory, found, stack)
            if why := seen.switches.why_not_attach():
                raise SwitchedOffError("attaching probes", hint=why)
            request = replace(request, switches=tuple(seen.addresses))

        @cache
        def changed() -> Standing:
            return standing(programs, keys)

        with timings.phase(_WAIT):
            child, request, loaded = load(child, request, essential, start, children, changed)
        loaded_maps = {
            name.removeprefix("map:"): each[0] for name, each in loaded.descriptors.items() if name[:4] == "map:"
        }
        maps = Maps({**loaded_maps, "krie_window": windows[0], "krie_spare_window": windows[1]})
        run = partial(bpf.test_run, secret=secret)
        inspector = Inspector(loaded.descriptors["program:krie_inspect"][0], maps["krie_inspected"], run)
        agent = inspector.agent()
        ground, traps = new_ground(loaded, maps, memory, seen, agent.tgid, secret)
        stack.callback(ground.end)
        held = stack.enter_context(LoadedProbes(loaded))
        if loaded.loaded.cache_problem:
            _log.warning("programs were %s: %s", Origin(loaded.loaded.origin).text, loaded.loaded.cache_problem)
        for name, error in loaded.dropped.items():
            plugins.degrade(name, str(error))
        for problem in loaded.loaded.wrong_offsets:
            _degrade_readers(plugins, sensors, problem)
        bindings = Bindings(loaded.descriptors[f"program:{RUNNING}"][0], maps, run)
        verdicts = Verdicts(maps, loaded.descriptors["program:krie_change"][0], run)
        attach = partial(attach_somewhere, traps)
        roaming = Roaming(list(roaming_programs(sensors, loaded)), loaded.descriptors, functions, ground, attach)
        stack.callback(roaming.close)
        stack.callback(ground.settle)

        def keep() -> None:
            """From here on what the loader attached survives a SIGKILL of this process."""
            with timings.phase("keeper"):
                for link, address, kind in standing_probes(sensors, held.loaded, changed()):
                    ground.hold(link, address, kind)
                ground.start()
                child.kept()

        keep()
        with timings.phase("traps"):
            stuck = roaming.move()
            ground.start()  # where nothing but traps is to be kept
        canaries = Canaries(sensors, lambda probe, error: report(PluginFault(probe, "canary", str(error), "", False)))
        sending = Sending(maps, agent.tgid)
        sending.stop()

        def prove() -> ProbeHealth:
            probes = probe_health(sensors, held.loaded, stuck, maps, canaries, verdicts)
            with timings.phase("canaries"):
                probes.check()
                if probes.silent():
                    probes.check()  # the kernel leaves out a run now and then; falling back would be for good
            return probes

        probes = prove()
        while silent := probes.silent():
            off = seen.switches.any_off()
            obstacle = ground.obstacle()
            if off:  # which silenced them; falling back would be for good
                if why := seen.switches.why_not_attach():
                    raise SwitchedOffError("attaching probes", hint=why)
            elif obstacle:
                break
            else:
                with timings.phase(_WAIT):
                    held.loaded = child.fall_back(request, held.loaded, silent, ground.release)
                keep()
            probes = prove()
    timings.merge(held.loaded.timings)
    where = held.loaded.loaded
    return Attached(
        LoadFacts(features, Origin(where.origin), where.cache_problem, timings),
        plugins,
        types,
        held.loaded,
        maps,
        inspector,
        bindings,
        memory,
        agent,
        probes,
        sensors,
        verdicts,
        roaming,
        ground,
        sending,
        partial(run, loaded.descriptors[f"program:{BEAT}"][0], ()),
        Holders(inspector.holders).look,
    )


def unit_requests(sensors: Iterable[Sensor]) -> tuple[SensorRequest, ...]:
    """Those of an agent with these sensors. What is compiled is the same whether it contains anybody or not."""
    asked = {each.name: sensor_request(each) for each in sensors if each.sources}
    own = (sensor_request(replace(each, probes=())) for each in enforcing_sensors())
    return tuple({**{each.name: each for each in own}, **asked}.values())


def _degrade_readers(plugins: Plugins, sensors: tuple[Sensor, ...], problem: str) -> None:
    """A field is read at the wrong place: every plugin whose C names its type is not to be believed."""
    type_ = problem.partition(".")[0]
    readers = [each.name for each in sensors if any(type_ in source.read_text() for source in each.sources)]
    if not readers or {sensors[0].name, CONTAINMENT, GUARD} & set(readers):
        raise PluginError(sensors[0].name, f"{problem}; every record would be wrong on this kernel")
    for name in readers:
        plugins.degrade(name, problem)

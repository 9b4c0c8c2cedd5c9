"""Plugins: found by entry point, imported only when `krie.toml` names them, checked, and called without being trusted.

Each hook of `krie.hookspecs` has one typed method here. A plugin that raises is reported, counted and, after repeated
failures, no longer called; it never keeps an event from others. A `required` one ends the agent by `PluginError`.
"""

from __future__ import annotations

import difflib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from . import hookspecs
from .config import Config, PluginConfig, plugin_config
from .decision import Decision
from .errors import ConfigError, KrieError, PluginError
from .event import RESERVED_KINDS, Event, EventType
from .layout import Json
from .probe import Sensor

if TYPE_CHECKING:
    from .kernel.features import Features
    from .kernel.maps import Maps

FAILURES_UNTIL_DEGRADED = 5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PluginFault:
    """One failure of a plugin, for the log and the journal."""

    plugin: str
    hook: str
    error: str
    traceback: str
    degraded: bool
    """This was one too many: the hook is no longer called."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One plugin that is in use."""

    name: str
    config: PluginConfig
    sensor: Sensor | None


def available() -> dict[str, EntryPoint]:
    """Installed plugins by name, none of them imported. Raises `PluginError` for a name that is announced twice."""
    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=hookspecs.GROUP):
        if (other := found.setdefault(each.name, each)).value != each.value:
            raise PluginError(each.name, f"is announced twice: as {other.value} and as {each.value}; uninstall one")
    return found


class Plugins:
    """The plugins of one agent."""

    def __init__(self, report: Callable[[PluginFault], None]) -> None:
        """`report` gets every failure once per hook, and again when the plugin degrades."""
        self._report = report
        self._manager = pluggy.PluginManager(hookspecs.GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._degraded: dict[str, str] = {}
        self.loaded: tuple[LoadedPlugin, ...] = ()

    @classmethod
    def load(cls, config: Config, place: str, features: Features, report: Callable[[PluginFault], None]) -> Plugins:
        """Import the plugins that the configuration names and ask for their sensors.

        `place` is the configuration's file, for messages. Raises `ConfigError` for what the user wrote wrong, and
        `PluginError` for a required plugin that breaks the contract; others are reported and left out.
        """
        plugins = cls(report)
        installed = available()
        loaded = []
        for name, raw in config.plugins.items():
            if name not in installed:
                near = difflib.get_close_matches(name, installed, 1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else f"installed are: {', '.join(sorted(installed)) or 'none'}"
                )
                raise PluginError(name, f"[plugins.{name}] in {place} names no installed plugin; {hint}")
            try:
                loaded.append(plugins._load_one(installed[name], raw, place, features))
            except ConfigError:
                raise
            except KrieError as error:
                if raw.get("required"):
                    raise
                plugins.degrade(name, str(error))
            except Exception as error:
                fault = _fault(name, "import", error, degraded=True)
                if raw.get("required"):
                    raise PluginError(name, fault.error) from error
                plugins._degraded[name] = fault.error
                report(fault)
        plugins.loaded = tuple(loaded)
        return plugins

    @property
    def degraded(self) -> Mapping[str, str]:
        """Plugins that do not work as they should, with the reason."""
        return self._degraded

    def degrade(self, name: str, reason: str) -> None:
        """Note that a plugin does not work. Raises `PluginError` if it is required."""
        self._degraded[name] = reason
        if any(each.name == name and each.config.required for each in self.loaded):
            raise PluginError(name, f"{reason} (and it is required)")
        self._report(PluginFault(name, "", reason, "", degraded=True))

    def attached(self, maps_of: Callable[[str], Maps]) -> None:
        """`krie_attached` of each plugin, with its own maps."""
        for each in self.loaded:
            self._call(each.name, "krie_attached", None, maps=maps_of(each.name))

    def detaching(self) -> None:
        """`krie_detaching` of each plugin."""
        for each in self.loaded:
            self._call(each.name, "krie_detaching", None)

    def facts(self, kind: str) -> Mapping[str, Json]:
        """JSON Schemas of the facts that a plugin adds to events of this kind."""
        owner = kind.partition(".")[0]
        declared: Mapping[str, Json] | None = self._call(owner, "krie_facts", None, kind=kind)
        return declared or {}

    def enrichers(self) -> dict[str, Callable[[Event], Mapping[str, Json]]]:
        """For each kind whose plugin declares facts, a function that adds them: always all of them or none."""
        return {
            event.NAME: self._enricher(each.name, frozenset(declared))
            for each in self.loaded
            if each.sensor is not None
            for event in each.sensor.events
            if (declared := self.facts(event.NAME))
        }

    def observers(self) -> tuple[Callable[[Event, Decision], None], ...]:
        """`krie_decided` of each plugin that has it, guarded."""
        return tuple(
            self._observer(each.name)
            for each in self.loaded
            if hasattr(self._manager.get_plugin(each.name), "krie_decided")
        )

    def scan(self) -> Iterator[tuple[str, Event]]:
        """`krie_scan` of each plugin: its name and each event that it yields."""
        for each in self.loaded:
            found: list[Event] | None = self._call(each.name, "krie_scan", None, then=_all_events)
            yield from ((each.name, event) for event in found or ())

    def _load_one(self, entry: EntryPoint, raw: Mapping[str, Any], place: str, features: Features) -> LoadedPlugin:
        module = entry.load()
        self._manager.register(module, entry.name)
        for hook in vars(module):
            if hook.startswith("krie_") and not hasattr(hookspecs, hook):
                known = [each for each in vars(hookspecs) if each.startswith("krie_")]
                near = difflib.get_close_matches(hook, known, 1)
                raise PluginError(
                    entry.name, f"has no such hook: {hook}" + (f"; did you mean {near[0]}?" if near else "")
                )
        model = self._ask(entry.name, "krie_config") or PluginConfig
        if not (isinstance(model, type) and issubclass(model, PluginConfig)):
            raise PluginError(entry.name, f"krie_config returned {model!r}, not a subclass of krie.PluginConfig")
        config = plugin_config(entry.name, raw, model, place)
        sensor = self._ask(entry.name, "krie_sensor", config=config, features=features)
        if sensor is not None:
            check_sensor(entry, sensor)
        return LoadedPlugin(entry.name, config, sensor)

    def _ask(self, plugin: str, hook: str, **arguments: object) -> Any:
        """Call one hook of one plugin; what it raises goes through."""
        others = [each for name, each in self._manager.list_name_plugin() if name != plugin]
        return self._manager.subset_hook_caller(hook, others)(**arguments)

    def _call(
        self, plugin: str, hook: str, failed: _T, then: Callable[[Any], Any] | None = None, **arguments: object
    ) -> Any:
        """Call one hook of one plugin, guarded; `failed` stands for its answer when it raised or is degraded."""
        if self._failures[plugin, hook] >= FAILURES_UNTIL_DEGRADED or not self._manager.has_plugin(plugin):
            return failed
        try:
            answer = self._ask(plugin, hook, **arguments)
            answer = then(answer) if then is not None else answer
        except Exception as error:
            self._failed(plugin, hook, error)
            return failed
        self._failures[plugin, hook] = 0
        return answer

    def _failed(self, plugin: str, hook: str, error: Exception) -> None:
        self._failures[plugin, hook] += 1
        count = self._failures[plugin, hook]
        degraded = count >= FAILURES_UNTIL_DEGRADED
        if count == 1 or degraded:
            self._report(_fault(plugin, hook, error, degraded=degraded))
        if degraded:
            self._degraded[plugin] = f"{hook} failed {count} times: {error}"
            if any(each.name == plugin and each.config.required for each in self.loaded):
                raise PluginError(plugin, f"{self._degraded[plugin]} (and it is required)") from error

    def _enricher(self, plugin: str, declared: frozenset[str]) -> Callable[[Event], Mapping[str, Json]]:
        implementation = self._bound(plugin, "krie_enrich")
        key = (plugin, "krie_enrich")
        failures = self._failures

        def enrich(event: Event) -> Mapping[str, Json]:
            if failures[key] >= FAILURES_UNTIL_DEGRADED:
                return {}
            try:
                facts: Mapping[str, Json] = implementation(event) or {}
                if facts and facts.keys() != declared:
                    raise PluginError(
                        plugin, f"krie_enrich added {sorted(facts)}, krie_facts declares {sorted(declared)}"
                    )
            except Exception as error:
                self._failed(plugin, "krie_enrich", error)
                return {}
            failures[key] = 0
            return facts

        return enrich

    def _observer(self, plugin: str) -> Callable[[Event, Decision], None]:
        implementation = self._bound(plugin, "krie_decided")
        key = (plugin, "krie_decided")

        def observe(event: Event, decision: Decision) -> None:
            if self._failures[key] >= FAILURES_UNTIL_DEGRADED:
                return
            try:
                implementation(event, decision)
            except Exception as error:
                self._failed(plugin, "krie_decided", error)
            else:
                self._failures[key] = 0

        return observe

    def _bound(self, plugin: str, hook: str) -> Callable[..., Any]:
        """The plugin's own function: pluggy's machinery is left out where every event passes."""
        module = self._manager.get_plugin(plugin)
        implementation = getattr(module, hook, None)
        if implementation is None:
            raise PluginError(plugin, f"declares facts, but has no {hook}")
        caller: Callable[..., Any] = implementation
        wanted = {
            name
            for impl in getattr(self._manager.hook, hook).get_hookimpls()
            if impl.plugin is module
            for name in impl.argnames
        }
        names = ("event",) if hook == "krie_enrich" else ("event", "decision")
        if wanted == set(names):
            return caller
        return lambda *values: caller(
            **{name: value for name, value in zip(names, values, strict=True) if name in wanted}
        )


def _all_events(answers: Any) -> list[Event]:
    events: list[Event] = []
    for answer in answers:
        for event in answer or ():
            if not isinstance(event, Event):
                raise TypeError(f"krie_scan yielded {event!r}, which is no Event")
            events.append(event)
    return events


def _fault(plugin: str, hook: str, error: Exception, *, degraded: bool) -> PluginFault:
    text = f"{type(error).__name__}: {error}"
    return PluginFault(plugin, hook, text, "".join(traceback.format_exception(error)), degraded)


def check_sensor(entry: EntryPoint, sensor: Any) -> None:
    """Refuse a sensor that breaks the contract of `krie.probe`. Raises `PluginError`, `LayoutError`."""

    def refuse(problem: str) -> None:
        raise PluginError(entry.name, problem)

    if not isinstance(sensor, Sensor):
        refuse(f"krie_sensor returned {sensor!r}, not a krie.Sensor")
    if sensor.name != entry.name:
        refuse(f"its sensor is named {sensor.name!r}; it must have the name of the entry point")
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
    for define in sensor.defines:
        if not define.startswith(f"{sensor.name.upper()}_"):
            refuse(f"constant {define} must be named {sensor.name.upper()}_<something>")
    if sensor.probes and sensor.source is None:
        refuse("has probes, but no C source")

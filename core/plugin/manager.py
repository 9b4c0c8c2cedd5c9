"""Plugins: found by entry point, imported only when `krie.toml` names them; each hook is one typed method here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from ..config import Config, PluginConfig, plugin_config
from ..decision import Decision, Mode
from ..errors import ConfigError, KernelError, KrieError, PluginError
from ..events.event import Event
from ..events.wire import Json
from ..exhaustion import exhausted
from ..trusted_code import only_trusted_imports, require_own_code_trusted, require_package_trusted
from . import hookspecs
from .answers import added_facts, declared_facts, own_event
from .contract import sensor_of
from .installed import GROUP, available, require_installed
from .isolation import RAISED, Isolation, PluginFault, fault_of, reraise_interruption
from .making import check_hooks, made
from .probe import Sensor

if TYPE_CHECKING:
    from ..kernel.features import Features
    from ..kernel.maps import Maps
    from ..kernel.memory import KernelMemory
    from ..kernel.program import Trap
    from .report import ProbeReport

_T = TypeVar("_T")
_MOST_FOUND = 10_000
"""Events of one scan: a plugin that yields for ever would be waited for so long."""
_LONGEST_TEXT = 1000


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """One plugin that is in use."""

    name: str
    config: PluginConfig
    sensor: Sensor | None
    """Its sensors, put together."""


class Plugins:
    """The plugins of one agent."""

    def __init__(self, isolation: Isolation) -> None:
        """`isolation` calls them."""
        self._isolation = isolation
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._kinds: dict[int, str] = {}
        self.loaded: tuple[LoadedPlugin, ...] = ()

    @classmethod
    def load(cls, config: Config, place: str, features: Features, report: Callable[[PluginFault], None]) -> Plugins:
        """Import the plugins that the configuration names and ask for their sensors.

        `place` is the configuration's file, for messages; `report` gets what goes wrong with plugins that are not
        required: they are left out. Raises `ConfigError` for what the user wrote wrong and for code that others
        could change, and `PluginError` for a required plugin that breaks the contract.
        """
        isolation = Isolation(report)
        plugins = cls(isolation)
        require_own_code_trusted()
        with only_trusted_imports():
            installed = available()
            loaded = [
                plugins._load_or_leave_out(name, installed, raw, place, features)
                for name, raw in config.plugins.items()
            ]
        plugins.loaded = tuple(each for each in loaded if each is not None)
        return plugins

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """What the loaded plugins contribute."""
        return tuple(each.sensor for each in self.loaded if each.sensor is not None)

    @property
    def modes(self) -> dict[str, Mode]:
        """The mode of each plugin, by its name."""
        return {each.name: Mode[each.config.mode.upper()] for each in self.loaded}

    @property
    def degraded(self) -> Mapping[str, str]:
        """Plugins that do not work as they should, with the reason."""
        return self._isolation.degraded

    @property
    def required(self) -> frozenset[str]:
        """Plugins without which the agent must not go on."""
        return frozenset(self._isolation.required)

    def watch(self) -> None:
        """From now on interrupt what takes too long, and keep signals handled as they are now. In the main thread."""
        self._isolation.watch.start()

    def degrade(self, name: str, reason: str) -> None:
        """Note that a plugin does not work. Raises `PluginError` if it is required."""
        self._isolation.degrade(name, reason)

    def attached(
        self, maps_of: Callable[[str], Maps], memory: KernelMemory, traps_of: Callable[[str], Sequence[Trap]]
    ) -> None:
        """`krie_attached` of each plugin, with its own maps, traps and configuration."""
        for each in self.loaded:
            maps, traps = maps_of(each.name), partial(traps_of, each.name)
            self._call(each.name, "krie_attached", maps=maps, memory=memory, traps=traps, config=each.config)

    def detaching(self) -> None:
        """`krie_detaching` of each plugin."""
        for each in self.loaded:
            self._call(each.name, "krie_detaching")

    def facts(self, kind: str) -> Mapping[str, Json]:
        """JSON Schemas of the facts that a plugin adds to events of this kind."""
        owner = kind.partition(".")[0]
        return self._call(owner, "krie_facts", declared_facts, kind=kind) or {}

    def enrichers(self) -> dict[str, Callable[[Event], Mapping[str, Json]]]:
        """For each kind of a plugin with `krie_enrich`, a function that adds the declared facts: all of them or none.

        Kinds without facts have one, too: a plugin may follow in its events what it needs to know of others.
        """
        found = {}
        for each in self.loaded:
            declared = {event.NAME: self.facts(event.NAME) for event in each.sensor.events} if each.sensor else {}
            if self._has(each.name, "krie_enrich"):
                found.update({kind: self._enricher(each.name, frozenset(facts)) for kind, facts in declared.items()})
            elif any(declared.values()):
                self.degrade(each.name, "declares facts, but has no krie_enrich")
        return found

    def observers(self) -> tuple[Callable[[Event, Decision], None], ...]:
        """`krie_decided` of each plugin that has it, isolated."""
        return tuple(self._observer(each.name) for each in self.loaded if self._has(each.name, "krie_decided"))

    def scan(self, complete: Callable[[Event], Event]) -> Iterator[Event]:
        """`krie_scan` of each plugin: each event that it yields, after `complete` filled its header."""
        for each in self.loaded:
            yield from self._found(each, "krie_scan", complete)

    def poll(self, complete: Callable[[Event], Event]) -> Iterator[Event]:
        """The same for `krie_poll`, of each plugin that has it."""
        for each in self.loaded:
            if self._has(each.name, "krie_poll"):
                yield from self._found(each, "krie_poll", complete)

    def checked(self, reports: Iterable[ProbeReport], missed: Mapping[str, int]) -> None:
        """`krie_checked` of each plugin that has it. `missed`: how many runs were left out, by labels of programs."""
        silent = [(each.plugin, each.probe.name) for each in reports if each.state == "silent"]
        for each in self.loaded:
            if self._has(each.name, "krie_checked"):
                own = frozenset(probe for plugin, probe in silent if plugin == each.name)
                left_out = {label: runs for label, runs in missed.items() if label.startswith(f"{each.name}_")}
                self._call(each.name, "krie_checked", silent=own, missed=left_out)

    def restorer(self, plugin: str) -> Callable[[Event], str | None] | None:
        """`krie_restore` of a plugin that has it: None says that it is done, a text why not."""
        if not self._manager.has_plugin(plugin) or not self._has(plugin, "krie_restore"):
            return None
        function = self._bound(plugin, "krie_restore", ("event",))

        def restore(event: Event) -> str | None:
            answer = function(event)
            if not (answer is None or isinstance(answer, str)):
                raise TypeError(f"krie_restore returned {type(answer).__name__}, neither a text nor None")
            return answer if answer is None else answer[:_LONGEST_TEXT]

        failed: str | None = "the plugin failed; see its event"
        return lambda event: self._isolation.call(plugin, "krie_restore", failed, restore, event)

    def _load_or_leave_out(
        self, name: str, installed: Mapping[str, EntryPoint], raw: Mapping[str, Any], place: str, features: Features
    ) -> LoadedPlugin | None:
        require_installed(name, installed, place)
        if raw.get("required") is True:
            self._isolation.required.add(name)
        try:
            return self._load_one(installed[name], raw, place, features)
        except ConfigError:
            raise
        except KrieError as error:
            if name in self._isolation.required or exhausted(error):
                raise
            self._isolation.degrade(name, str(error))
        except RAISED as error:
            reraise_interruption(error)
            if not isinstance(error, MemoryError) and (number := exhausted(error)):  # that may be its own
                raise KernelError(f"importing plugin {name}", number) from error
            fault = fault_of(name, "import", error, degraded=True)
            if name in self._isolation.required:
                raise PluginError(name, fault.error) from error
            self._isolation.degrade(name, fault.error, fault)
        return None

    def _load_one(self, entry: EntryPoint, raw: Mapping[str, Any], place: str, features: Features) -> LoadedPlugin:
        require_package_trusted(entry.module)
        plugin = made(entry)
        check_hooks(entry, plugin)
        self._manager.register(plugin, entry.name)
        model = self._ask(entry.name, "krie_config") or PluginConfig
        if not (isinstance(model, type) and issubclass(model, PluginConfig)):
            raise PluginError(entry.name, f"krie_config returned {model!r}, not a subclass of krie.PluginConfig")
        config = plugin_config(entry.name, raw, model, place)
        sensor = sensor_of(entry, self._ask(entry.name, "krie_sensor", config=config, features=features))
        if sensor is not None:
            self._require_own_kinds(sensor)
        return LoadedPlugin(entry.name, config, sensor)

    def _require_own_kinds(self, sensor: Sensor) -> None:
        """The plugin that `krie.toml` names first keeps the number."""
        for event in sensor.events:
            owner = self._kinds.setdefault(event.KIND, event.NAME)
            if owner != event.NAME:
                taken = f"event {event.NAME} has kind {event.KIND:#06x}, which {owner} has too"
                raise PluginError(sensor.name, f"{taken}; one of them must take another number")

    def _has(self, plugin: str, hook: str) -> bool:
        return hasattr(self._manager.get_plugin(plugin), hook)

    def _ask(self, plugin: str, hook: str, **arguments: object) -> Any:
        """Call one hook of one plugin; what it raises goes through."""
        others = [each for name, each in self._manager.list_name_plugin() if name != plugin]
        return self._manager.subset_hook_caller(hook, others)(**arguments)

    def _call(self, plugin: str, hook: str, then: Callable[[Any], _T] | None = None, **arguments: object) -> _T | None:
        """Call one hook of one plugin, isolated, and `then` check its answer; None when it failed."""
        if not self._manager.has_plugin(plugin):
            return None

        def ask() -> _T | None:
            answer = self._ask(plugin, hook, **arguments)
            return then(answer) if then is not None else None

        return self._isolation.call(plugin, hook, None, ask)

    def _found(self, each: LoadedPlugin, hook: str, complete: Callable[[Event], Event]) -> list[Event]:
        own = frozenset(each.sensor.events if each.sensor is not None else ())

        def completed(answers: Any) -> list[Event]:
            found = islice((event for answer in answers for event in answer or ()), _MOST_FOUND + 1)
            events = [complete(own_event(event, own, hook)) for event in found]
            if len(events) > _MOST_FOUND:
                raise ValueError(f"{hook} yielded more than {_MOST_FOUND} events")
            return events

        return self._call(each.name, hook, completed) or []

    def _enricher(self, plugin: str, declared: frozenset[str]) -> Callable[[Event], Mapping[str, Json]]:
        function = self._bound(plugin, "krie_enrich", ("event",))

        def enrich(event: Event) -> Mapping[str, Json]:
            return added_facts(function(event) or {}, declared)

        return lambda event: self._isolation.call(plugin, "krie_enrich", {}, enrich, event)

    def _observer(self, plugin: str) -> Callable[[Event, Decision], None]:
        function = self._bound(plugin, "krie_decided", ("event", "decision"))
        # Nobody can change a decision, but a frozen event has ways around it: others shall not see what one does to it.
        return lambda event, decision: self._isolation.call(
            plugin, "krie_decided", None, function, copy(event), decision
        )

    def _bound(self, plugin: str, hook: str, names: tuple[str, ...]) -> Callable[..., Any]:
        """The plugin's own function: pluggy's machinery is left out where every event passes."""
        itself = self._manager.get_plugin(plugin)
        function: Callable[..., Any] = getattr(itself, hook)
        implementations = getattr(self._manager.hook, hook).get_hookimpls()
        wanted = next(frozenset(each.argnames) for each in implementations if each.plugin is itself)
        if wanted == frozenset(names):
            return function
        return lambda *values: function(
            **{name: value for name, value in zip(names, values, strict=True) if name in wanted}
        )

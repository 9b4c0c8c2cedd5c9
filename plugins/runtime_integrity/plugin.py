"""What runtime_integrity gives to KRIe: its topics, each with a sensor. Each has a module of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files

from krie import Event, Features, Json, KernelMemory, Maps, PluginConfig, Sensor, hookimpl

from . import (
    bpf_call,
    cred_tamper,
    hidden_module,
    kernel_parameter,
    module_load,
    module_unload,
    parameter_look,
    perf_event_open,
    probe_register,
    ptrace,
    settings,
    socket_filter,
    sysctl_write,
    usermode_helper,
)
from .code_owner import ModuleRanges
from .config import RuntimeIntegrityConfig
from .topic import PREFIX, VERSION, Topic

_SHARED = "settings.bpf.c"
"""In front of the topics' own files."""


class RuntimeIntegrity:
    """What KRIe calls, see `krie.plugin.hookspecs`: one object an agent."""

    api = 1

    def __init__(self) -> None:
        self._topics = _topics()

    @hookimpl
    def krie_config(self) -> type[PluginConfig]:
        """See `krie.plugin.hookspecs`."""
        return RuntimeIntegrityConfig

    @hookimpl
    def krie_sensor(self, config: RuntimeIntegrityConfig, features: Features) -> Sequence[Sensor]:
        """See `krie.plugin.hookspecs`."""
        common = Sensor(
            name=PREFIX,
            version=VERSION,
            sources=(files(__package__).joinpath(_SHARED),),
            policies=files("krie.policies").joinpath(PREFIX),
            shared=(settings.Settings,),
        )
        return (common, *(topic.sensor(config, features) for topic in self._topics.values()))

    @hookimpl
    def krie_facts(self, kind: str) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        topic = self._topics.get(kind)
        return topic.facts or None if topic else None

    @hookimpl
    def krie_enrich(self, event: Event) -> Mapping[str, Json] | None:
        """See `krie.plugin.hookspecs`."""
        topic = self._topics.get(event.NAME)
        return topic.enrich(event) if topic else None

    @hookimpl
    def krie_attached(self, maps: Maps, memory: KernelMemory, config: RuntimeIntegrityConfig) -> None:
        """See `krie.plugin.hookspecs`."""
        settings.tell(maps, config)
        for topic in self._topics.values():
            topic.attach(maps, memory, config)

    @hookimpl
    def krie_scan(self) -> Iterator[Event]:
        """See `krie.plugin.hookspecs`."""
        for topic in self._topics.values():
            yield from topic.scan()

    @hookimpl
    def krie_checked(self, silent: Collection[str], missed: Mapping[str, int]) -> None:
        """See `krie.plugin.hookspecs`."""
        for topic in self._topics.values():
            topic.checked(silent, missed)

    @hookimpl
    def krie_restore(self, event: Event) -> str | None:
        """See `krie.plugin.hookspecs`."""
        return self._topics[event.NAME].restore(event)


def _topics() -> Mapping[str, Topic]:
    """The topics by the name of their event."""
    modules, comparison = ModuleRanges(), kernel_parameter.WatchedParameters()
    made = (
        ptrace.topic(),
        bpf_call.topic(),
        sysctl_write.topic(),
        module_load.topic(modules),
        module_unload.topic(modules),
        socket_filter.topic(),
        perf_event_open.topic(),
        probe_register.topic(modules),
        hidden_module.topic(),
        cred_tamper.topic(),
        usermode_helper.topic(),
        # In this order: a look compares what the comparison found to be there.
        kernel_parameter.topic(comparison),
        parameter_look.topic(comparison.watched),
    )
    return {topic.event.NAME: topic for topic in made}

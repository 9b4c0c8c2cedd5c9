"""The plugin contract: every hook that KRIe calls, when, with what, and what its answer or its failure means.

A plugin is a class, announced under the entry-point group `krie`. KRIe calls it once, without arguments, for each
agent: the hooks are methods of that object, decorated with `krie.hookimpl`, and what they keep is its attributes. Only
plugins that `krie.toml` names are imported, since everything here runs as root. pluggy matches arguments by name: an
implementation may leave out those that it does not need.

    [project.entry-points.krie]
    my_plugin = "my_package.plugin:MyPlugin"

in `pyproject.toml` names this class of `my_package/plugin.py`:

    class MyPlugin:
        api = 1

        @hookimpl
        def krie_sensor(self, config: MyConfig) -> Sensor: ...

`api` is the version of this contract that the plugin is written for: a number written out, not `krie.API_VERSION`,
which is that of the KRIe that runs. Where the two differ the plugin is left out, and no hook of it is called.

`krie plugin new NAME` writes a working plugin to start from; docs/tutorial/first-plugin.md goes on to an enforced rule.

A plugin that raises is reported once with its traceback and counted; after repeated failures in a row the hook of that
plugin is no longer called, the journal says so and `input.health.degraded` names it. It never hides an event from
others. Where the configuration says `required = true`, a plugin that degrades stops the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

from ..events.wire import Json

if TYPE_CHECKING:
    from ..config import PluginConfig
    from ..decision import Decision
    from ..events.event import Event
    from ..kernel.features import Features
    from ..kernel.maps import Maps
    from ..kernel.memory import KernelMemory
    from ..kernel.program import Trap
    from .integrity import Check
    from .probe import Sensor

API_VERSION = 1
"""Raised when a hook changes in a way that breaks plugins. A plugin's `api` must be the same."""

hookspec = pluggy.HookspecMarker("krie")
hookimpl = pluggy.HookimplMarker("krie")


@hookspec(firstresult=True)
def krie_config() -> type[PluginConfig] | None:
    """Return the pydantic model of the plugin's own keys in `[plugins.<name>]`, a subclass of `krie.PluginConfig`.

    Called once, before any other hook. Without it (or with None) only the keys that every plugin has are allowed.
    Raising makes the plugin unusable.
    """


@hookspec(firstresult=True)
def krie_sensor(config: PluginConfig, features: Features) -> Sensor | Sequence[Sensor] | None:
    """Declare probes, event types, C source and policies for this machine. Return None to sit out (log why).

    A plugin about several things may return several sensors, in a list or a tuple, such as one of each of its modules.
    All have the plugin's name, and they are put together in their order: the C is compiled as one, probes need names
    of their own, and of `version` and `policies` there is one.

    Called once per start, without any probe attached, and by commands that need no root (`krie plugins --load`, `krie
    events`, `krie policy`, `krie compile`): it must only return data. Raising makes the plugin unusable.

    Probes may differ by configuration and by what the kernel offers. Sources, events, types and constants should not:
    what was compiled for one configuration, maybe on another machine, serves the others only then. Let the agent put
    what is configured into a map, in `krie_attached`.
    """


@hookspec
def krie_attached(maps: Maps, memory: KernelMemory, traps: Callable[[], Sequence[Trap]], config: PluginConfig) -> None:
    """The sensor's probes are attached; take baselines and fill own maps.

    `maps` gives the maps of this sensor's C source by name. `memory` reads the kernel's memory by address, here and in
    every later `krie_scan`; `traps` says, whenever it is asked, where the sensor's roaming programs are attached;
    `config` is what `krie_sensor` got. Raising degrades the plugin.
    """


@hookspec(firstresult=True)
def krie_enrich(event: Event) -> Mapping[str, Json] | None:
    """Add facts to an event of the plugin's own kinds before it is judged, such as the name behind an address.

    Called for every event, of kinds without declared facts too, so: no I/O, a few microseconds. Policies and the
    journal see the facts beside the event's fields; a fact with a field's name replaces it. The answer holds exactly
    the facts that `krie_facts` declares, as JSON; None adds nothing, and so does raising: the event goes on without.
    """


@hookspec(firstresult=True)
def krie_facts(kind: str) -> Mapping[str, Json] | None:
    """Return the JSON Schema of each fact that `krie_enrich` adds to events of this kind; None where there are none.

    Called once at start; the schema of the event is extended with them.
    """


@hookspec
def krie_scan() -> Iterable[Event]:
    """Compare the live kernel with the baseline; called every `scan_interval_s` seconds. Yields events to be judged.

    They are of the sensor's own types, made by `MyEvent.without_header(field=...)`: the agent fills the header, and is
    the process that they are journaled for. Raising loses what this scan found.
    """
    return ()


@hookspec
def krie_poll() -> Iterable[Event]:
    """Yield what was found in the background: called about once a second.

    For what takes too long for `krie_scan`, during which the agent decides nothing: a plugin has it done by a process
    of its own (`krie.forked`), and asks here whether there is an answer. Events and raising are as in `krie_scan`.
    """
    return ()


@hookspec
def krie_checked(silent: Collection[str], missed: Mapping[str, int]) -> None:
    """What works was looked at: called every `canary_interval_s` seconds.

    `silent` names the sensor's probes whose canary did not arrive, on whichever CPU it ran, and was not left out by the
    kernel either. `missed` says how many runs of its programs, by their labels, the kernel left out since the last
    look. What a plugin keeps of what these saw may be out of date. Raising counts as a failure of the plugin.
    """


@hookspec(firstresult=True)
def krie_integrity(memory: KernelMemory, progress: Callable[[str], None]) -> Iterable[Check] | None:
    """Take one full look now, for `krie integrity`: compare with what is known of the kernel without a baseline.

    Called without an agent, of plugins of KRIe's own only: no probe is attached, and no other hook was called.
    `progress` says what takes time. Raising ends the command.
    """


@hookspec(firstresult=True)
def krie_restore(event: Event) -> str | None:
    """Put back what an event of `krie_scan` found changed, by the interface that the kernel has for it.

    That is what action `override` means for such an event, where no operation is left to be refused. Called in mode
    `enforce` only, after the decision and before the journal, whose `done` says `restored` when the answer is None. A
    text says why that could not be done. Raising says so too, and counts as a failure of the plugin.
    """


@hookspec
def krie_decided(event: Event, decision: Decision) -> None:
    """Observe an event of any kind and its decision, after the journal. Nothing done here changes the outcome."""


@hookspec
def krie_detaching() -> None:
    """The agent is about to detach all probes; release what `krie_attached` took. Called in every orderly end."""

"""A policy for commands: compiled and tried in a process with limits before this one touches it."""

from __future__ import annotations

from functools import partial

from ..child import Child, forked
from ..config import Config
from ..events.event import EventTypes
from ..events.identity import Identity
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.bundle_file import configured_bundle, read_bundle_file, sources_of_bundle
from ..policy.embedded import EmbeddedEngine
from ..policy.folders import policy_data, policy_folders
from ..policy.sources import PolicySources
from .ability import ways_anywhere
from .compiled import Compiled, Job, compile_and_serve, read_policy
from .domain import Numbers
from .evaluator import Compiling, Evaluator


def sources_of(config: Config, plugins: Plugins) -> PolicySources:
    """What decides by the configuration: its bundle, or its folders. Raises `PolicyError`, `ConfigError`."""
    bundle = configured_bundle(config)
    if bundle is not None:
        return sources_of_bundle(read_bundle_file(bundle), policy_data(config))
    return read_policy(policy_folders(config, plugins), policy_data(config))


def tried_engine(config: Config, plugins: Plugins, sources: PolicySources | None = None) -> EmbeddedEngine:
    """An engine in this process. Raises `PolicyError`, `ConfigError`, also for what takes too much time or memory.

    `sources`: the policy; None: what the configuration has in force.
    """
    compiled, child = _tried(config, plugins, event_types(plugins), sources)
    child.end()
    return EmbeddedEngine(compiled.sources)


def evaluator(config: Config, plugins: Plugins, sources: PolicySources | None = None) -> Evaluator:
    """As an agent has it. Raises as `tried_engine` does."""
    types = event_types(plugins)
    compiled, child = _tried(config, plugins, types, sources)
    return Evaluator(compiled, child, partial(forked, partial(compile_and_serve, types)), config.policy)


def _tried(
    config: Config, plugins: Plugins, types: EventTypes, sources: PolicySources | None
) -> tuple[Compiled, Child]:
    bundle = configured_bundle(config) if sources is None else None
    names = {**(bundle.executables if bundle is not None else {}), **config.executables}
    numbers = Numbers().following({Identity(1, at, 0): name for at, name in enumerate(names, 1)})
    job = Job(
        config.policy,
        policy_folders(config, plugins),
        policy_data(config),
        bundle,
        sources,
        ways=ways_anywhere(plugins.sensors),
        numbers=numbers,
    )
    return Compiling(partial(forked, partial(compile_and_serve, types)), job).wait()

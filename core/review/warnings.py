"""All warnings of a policy with the plugins and executables of one configuration."""

from __future__ import annotations

from ..config import Config
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.embedded import EmbeddedEngine
from ..policy.mistakes import Mistake, Surroundings, degraded_plugins, mistakes
from ..processes.enrich import document_schema
from ..tier.never import never_fires


def warnings(engine: EmbeddedEngine, config: Config, loaded: Plugins) -> list[Mistake]:
    """By place."""
    types = event_types(loaded)
    around = Surroundings(
        {each.name: document_schema(each, loaded.facts(each.name)) for each in types},
        {each.name: tuple(each.event.PROCESSES) for each in types},
        tuple(config.executables),
    )
    found = mistakes(engine.analysis, engine.sources.data, around)
    return [*degraded_plugins(loaded.degraded), *sorted([*found, *never_fires(engine, types)])]

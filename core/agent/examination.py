"""Tries what the configuration names, once: for `krie doctor` where no agent runs, and for `krie policy explain`.

Everything is attached for a moment and tried, as the agent would; nothing is sent and nothing stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from ..config import Config
from ..events.event import EventTypes
from ..plugin.manager import Plugins
from ..plugin.probe import Sensor
from ..policy.engine import Rule
from ..processes.executables import resolve
from ..tier.ability import Ways, cannot, sent_kinds, ways_here
from ..tier.domain import Numbers
from ..tier.explain import Explained, explain, modes_by_kind
from ..tier.placement import Tiers, find_tiers
from ..tier.tried import tried_engine
from .diagnosis import Report, diagnose
from .health import ProbeHealth
from .load_facts import LoadFacts
from .loading import load_sensors
from .policy_files import problems_of


@dataclass(frozen=True, slots=True)
class _Tried:
    facts: LoadFacts
    plugins: Plugins
    sensors: tuple[Sensor, ...]
    types: EventTypes
    probes: ProbeHealth
    rules: tuple[Rule, ...]
    ways: Ways
    tiers: Tiers
    problems: tuple[str, ...]
    revision: str


def examine(config: Config, place: str) -> Report:
    """What `krie doctor` tells. Raises `KrieError` where an agent would not start."""
    with _tried(config, place) as tried:
        return diagnose(
            tried.facts,
            tried.plugins,
            tried.probes,
            tried.types,
            tried.rules,
            tried.problems,
            agent=None,
            revision=tried.revision,
        )


def explain_here(config: Config, place: str) -> list[Explained]:
    """Where each rule is decided on this machine. Raises `KrieError` where an agent would not start."""
    with _tried(config, place) as tried:
        return explain(tried.tiers, tried.ways, tried.rules, modes_by_kind(tried.sensors, tried.plugins.modes))


@contextmanager
def _tried(config: Config, place: str) -> Iterator[_Tried]:
    with ExitStack() as stack:
        armed = load_sensors(config, place, lambda _: None, stack, contain=True)  # the report has what matters
        with armed.facts.timings.phase("policy"):
            engine = tried_engine(config, armed.plugins)
        executables = resolve(config.executables, armed.inspector.identify)
        stack.callback(executables.close)
        ways = ways_here(armed.probes.reports)
        with armed.facts.timings.phase("policy"):
            tiers = find_tiers(
                engine,
                sent_kinds(ways, armed.types),
                Numbers().following(executables.names),
                partial(cannot, ways),
            )
        problems = problems_of(engine.rules, armed.types, armed.plugins.facts, executables.unresolved)
        yield _Tried(
            armed.facts,
            armed.plugins,
            armed.sensors,
            armed.types,
            armed.probes,
            engine.rules,
            ways,
            tiers,
            problems,
            engine.revision,
        )

"""The policy files in force: loads them together with the names of executables, and notices when they change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config
from ..decision import Action
from ..errors import KrieError
from ..event import EventTypes
from ..executables import Executables, resolve
from ..plugin_manager import Plugins
from ..process_sensor import process_sensor
from ..trust import read_trusted
from ..wire import Json
from .ability import cannot, sent_kinds, ways_here
from .analysis import unknown_names
from .domain import Numbers
from .embedded import EmbeddedEngine
from .engine import Rule
from .opa_check import ask_opa
from .policy import Policy
from .snapshot import Stamp, read_unchanged, stamp_of
from .sources import PolicySources, read_sources
from .tier import Tiers, find_tiers

if TYPE_CHECKING:
    from ..armed import Armed
    from ..enrich import Enricher

_log = logging.getLogger("krie")


def policy_folders(config: Config, plugins: Plugins) -> list[Traversable]:
    """Folders of the core and the loaded plugins, then those of the configuration."""
    sensors = (process_sensor(), *plugins.sensors)
    own: list[Traversable] = [sensor.policies for sensor in sensors if sensor.policies is not None]
    return [*own, *(Path(each) for each in config.policy.paths)]


def read_policy(config: Config, folders: list[Traversable]) -> PolicySources:
    """Read everything that decides. Raises `PolicyError`, `ConfigError`, `UntrustedFileError`."""
    data: dict[str, Json] = {"executables": dict(config.executables)}
    return read_unchanged(folders, lambda: read_sources(folders, data, lambda file: read_trusted(Path(str(file)))))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that is ready to come into force."""

    policy: Policy
    tiers: Tiers
    numbers: Numbers
    executables: Executables
    problems: tuple[str, ...]
    """Names in it that nothing has, and executables that are not there."""

    def close(self) -> None:
        """It will not come into force, or no longer is."""
        self.executables.close()


class PolicyFiles:
    """Loads policies for one agent; a load that fails leaves everything as it was."""

    def __init__(
        self, config: Config, armed: Armed, enricher: Enricher, numbers_in_force: Callable[[], Numbers]
    ) -> None:
        """Nothing is read before `load`."""
        self._config, self._armed, self._enricher = config, armed, enricher
        self._numbers_in_force = numbers_in_force
        self._folders = policy_folders(config, armed.plugins)
        self._executables: Executables | None = None
        self.problems: tuple[str, ...] = ()
        """Those of the policy in force."""
        self._stamp: Stamp = frozenset()

    def close(self) -> None:
        """Let go of the executables."""
        if self._executables is not None:
            self._executables.close()

    def load(self) -> Candidate:
        """Read and compile everything anew. Raises `PolicyError`, `ConfigError`, `KernelError`."""
        self._stamp = stamp_of(self._folders)
        sources = read_policy(self._config, self._folders)
        engine = EmbeddedEngine(sources)
        unchecked = unchecked_by_opa(self._config, sources)
        executables = resolve(self._config.executables, self._armed.inspector.identify)
        try:
            numbers = self._numbers_in_force().following(executables.names)
            ways = ways_here(self._armed.probes.reports)
            kinds = sent_kinds(ways, self._armed.types)
            tiers = find_tiers(
                engine, kinds, numbers, partial(cannot, ways), programs_differ=programs_differ(executables.overlaid)
            )
        except KrieError:
            executables.close()
            raise
        problems = problems_of(engine.rules, self._armed.types, self._armed.plugins.facts, executables.unresolved)
        problems = (*problems, *unchecked)
        for problem in problems:
            _log.warning("policy: %s", problem)
        policy = self._config.policy
        made = Policy(engine, on_error=Action[policy.on_error.upper()], memo=policy.memo)
        return Candidate(made, tiers, numbers, executables, problems)

    def adopt(self, candidate: Candidate) -> None:
        """It is in force: bring its names of executables into force too, and let go of those before."""
        previous, self._executables = self._executables, candidate.executables
        self._enricher.programs = candidate.executables.names
        self.problems = candidate.problems
        if previous is not None:
            previous.close()

    def changed(self) -> bool:
        """Whether any file is another than at the last load, which may have been refused."""
        return stamp_of(self._folders) != self._stamp


def unchecked_by_opa(config: Config, sources: PolicySources) -> tuple[str, ...]:
    """Why OPA's checker, where the configuration wants it, could not look at a policy. Raises `PolicyError`."""
    asked = ask_opa(config.policy.opa, sources)
    return (f"policy.opa: OPA's checker was {asked}",) if config.policy.opa and asked.why else ()


def programs_differ(overlaid: Iterable[str]) -> str:
    """Why the kernel cannot tell named executables apart as user space does; empty where it can."""
    names = ", ".join(overlaid)
    return f"data.executables names files on an overlayfs: {names}" if names else ""


def problems_of(
    rules: tuple[Rule, ...],
    types: EventTypes,
    facts: Callable[[str], Mapping[str, Json]],
    unresolved: Mapping[str, str],
) -> tuple[str, ...]:
    """What is wrong with a policy that decides nevertheless; `facts` by kind, `unresolved` executables by name."""
    missing = (f"executables.{name}: {why}; no process gets this name" for name, why in unresolved.items())
    return (*unknown_names(rules, event_fields(types, facts)), *missing)


def event_fields(types: EventTypes, facts: Callable[[str], Mapping[str, Json]]) -> dict[str, frozenset[str]]:
    """Names that `input.event` has, by kind."""
    return {
        each.name: frozenset((*(field.name for field in each.own_fields), *each.event.PROCESSES, *facts(each.name)))
        for each in types
    }

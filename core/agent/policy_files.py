"""The policy files in force: loads them together with the names of executables, and notices when they change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Config
from ..decision import Action
from ..errors import KrieError
from ..events.event import EventTypes
from ..events.identity import Identity
from ..events.wire import Json
from ..fork_server import ForkServer
from ..opa.server import OpaServer
from ..policy.bundle_file import BundleFile
from ..policy.delegated import Delegated
from ..policy.engine import Rule
from ..policy.folders import policy_data, policy_folders
from ..policy.lookout import Lookout
from ..policy.policy import Policy
from ..policy.snapshot import Stamp
from ..policy.unknown_names import unknown_names
from ..processes.executables import Executables, resolve
from ..services_config import is_url
from ..tier.ability import ways_here
from ..tier.candidate import Candidate
from ..tier.compiled import Job, compile_and_serve
from ..tier.domain import Numbers
from ..tier.evaluator import Compiling, Evaluator

if TYPE_CHECKING:
    from ..plugin.manager import Plugins
    from ..processes.enrich import Enricher
    from .health import ProbeHealth

_log = logging.getLogger("krie")


def watched(config: Config, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """What a changed policy shows at: the folders, or the file of a bundle. One from a URL is offered when it is there,
    so that nothing is looked at."""
    if not config.policy.bundle:
        return folders
    return () if is_url(config.policy.bundle) else (Path(config.policy.bundle),)


@dataclass(frozen=True, slots=True)
class _Loading:
    compiling: Compiling
    executables: Executables


class PolicyFiles:
    """Loads policies for one agent; a load that fails leaves everything as it was."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        types: EventTypes,
        probes: ProbeHealth,
        identify: Callable[[int], Identity],
        enricher: Enricher,
        numbers_in_force: Callable[[], Numbers],
        meanwhile: Callable[[], object] = list,
        bundle: Callable[[], BundleFile | None] = lambda: None,
    ) -> None:
        """Nothing is read before `load`. To be made before this process has threads, since it forks one that forks.

        `identify`: which file a descriptor is of; `meanwhile` is called again and again while a decision is late.
        `bundle`: what is to be read by a load instead of the folders.
        """
        self._config, self._enricher = config, enricher
        self._plugins, self._types, self._probes, self._identify = plugins, types, probes, identify
        self._numbers_in_force = numbers_in_force
        self._folders = policy_folders(config, plugins)
        self._bundle = bundle
        self._server = ForkServer(partial(compile_and_serve, types))
        self._meanwhile = meanwhile
        self.opa = OpaServer(config.opa, meanwhile) if config.policy.engine == "opa" else None
        """The server that decides; None: the embedded engine does."""
        self._loading: _Loading | None = None
        self._in_force: Candidate | None = None
        self._lookout = Lookout(watched(config, self._folders))
        self._stamp: Stamp | None = frozenset()

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the policy in force."""
        return self._in_force.problems if self._in_force is not None else ()

    @property
    def evaluator(self) -> Evaluator | None:
        """The evaluator of the policy in force; None where none is."""
        return self._in_force.evaluator if self._in_force is not None else None

    @property
    def loading(self) -> bool:
        """Whether `begin` was called, and `take` has not answered."""
        return self._loading is not None

    def close(self) -> None:
        """End all processes, and let go of the executables."""
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.compiling.cancel()
            loading.executables.close()
        in_force, self._in_force = self._in_force, None
        if in_force is not None:
            in_force.close()
        if self.opa is not None:
            self.opa.close()
        self._server.close()

    def load(self) -> Candidate:
        """Read and compile everything again, and wait for that. Raises `PolicyError`, `ConfigError`, `KernelError`."""
        self.begin()
        while (candidate := self.take(None)) is None:
            pass
        return candidate

    def begin(self) -> None:
        """Begin to read and compile everything again, in another process. Raises `PolicyError`, `KernelError`."""
        self._stamp = self._lookout.look()
        bundle = self._bundle()
        named = {**(bundle.executables if bundle is not None else {}), **self._config.executables}
        executables = resolve(named, self._identify)
        job = Job(
            self._config.policy,
            self._folders,
            policy_data(self._config),
            bundle,
            None,
            ways_here(self._probes.reports),
            self._numbers_in_force().following(executables.names),
        )
        try:
            self._loading = _Loading(Compiling(self._server.fork, job), executables)
        except KrieError:
            executables.close()
            raise

    def take(self, timeout_s: float | None = 0.0) -> Candidate | None:
        """What came of it; None where that is not known yet, after `timeout_s`. None: as long as it may take.

        Raises `PolicyError`, `ConfigError`, `KernelError`.
        """
        loading = self._loading
        if loading is None:
            return None
        try:
            found = loading.compiling.answer(timeout_s)
            if found is None:
                return None
            compiled, keeper = found
            evaluator = Evaluator(compiled, keeper, self._server.fork, self._config.policy, self._meanwhile)
        except KrieError:
            self._loading = None
            loading.compiling.cancel()
            loading.executables.close()
            raise
        self._loading = None
        executables = loading.executables
        rules = evaluator.rules
        problems = problems_of(rules, self._types, self._plugins.facts, executables.unresolved)
        problems = (*problems, *compiled.unchecked)
        for problem in problems:
            _log.warning("policy: %s", problem)
        policy = self._config.policy
        many = Delegated(self.opa, evaluator) if self.opa is not None else None
        made = Policy(evaluator, on_error=Action[policy.on_error.upper()], memo=policy.memo, many=many)
        return Candidate(made, compiled.tiers, compiled.numbers, executables, problems, evaluator)

    def adopt(self, candidate: Candidate) -> None:
        """It is in force: bring its names of executables into force too, and let go of the policy before it."""
        previous, self._in_force = self._in_force, candidate
        self._enricher.programs = candidate.executables.names
        if previous is not None:
            previous.close()

    def changed(self) -> bool:
        """Whether any file has changed since the last load, which may have been refused."""
        found = self._lookout.look()
        if self._stamp is None:  # the folders gave no answer then
            self._stamp = found
        return found is not None and found != self._stamp


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

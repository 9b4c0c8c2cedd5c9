"""The embedded engine: Rego inside the agent's process, by regorus."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property

import regorus

from ..errors import DecisionError, PolicyError
from .alone import RulesAlone
from .analysis import Analysis
from .engine import Answer, Package, Partly, Rule, fired_rules
from .regorus_errors import as_policy_error
from .sources import PolicySources

_ALONE_S = 10.0


class EmbeddedEngine:
    """A compiled policy. Raises `PolicyError`, which starts with FILE:LINE:COLUMN, for what does not compile."""

    def __init__(
        self, sources: PolicySources, note: Callable[[str], object] = str, *, alone_s: float = _ALONE_S
    ) -> None:
        """Compile everything; regorus finds some errors only by evaluating, so each package is evaluated once.

        `note` is told what comes next: a policy can bring the process down. `alone_s`: after so long no further rule
        of a package that failed is evaluated by itself.
        """
        self._engine, self._alone_s = regorus.Engine(), alone_s
        for file in sources.files:
            note(f"at {file.place}")
            as_policy_error(lambda file=file: self._engine.add_policy(file.place, file.text))  # type: ignore[misc]
        note("at the data")
        as_policy_error(lambda: self._engine.add_data_json(json.dumps(sources.data)))
        note("at the rules")
        self.analysis = Analysis(as_policy_error(self._engine.get_ast_as_json), sources)
        self.packages = self.analysis.packages
        self.sources = sources
        self.revision = sources.revision
        self.tried_s: dict[str, float] = {}
        """By package the CPU time that this took, s."""
        for package in self.packages:
            note(f"at {package.name}")
            start = time.process_time()
            as_policy_error(lambda package=package: self._evaluate(package, "{}"))  # type: ignore[misc]
            self.tried_s[package.name] = time.process_time() - start

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules of all packages."""
        return tuple(rule for package in self.packages for rule in package.rules)

    @cached_property
    def alone(self) -> RulesAlone:
        """Its rules one by one. Raises `PolicyError`."""
        return RulesAlone(self.sources, self.analysis)

    def evaluate(self, packages: Sequence[Package], document: str) -> list[Answer]:
        """See `Engine`."""
        return [self._fired(package, document) for package in packages]

    def _fired(self, package: Package, document: str) -> Answer:
        try:
            answer = self.decided(package, document)
            return answer.answer if isinstance(answer, Partly) else fired_rules(answer)
        except (PolicyError, DecisionError) as error:
            return f"{package.name}: {error}"

    def answer(self, package: Package, document: str) -> str:
        """The set `rules` of a package for an input, as JSON. Raises `PolicyError` where any cannot be evaluated."""
        return as_policy_error(lambda: self._evaluate(package, document))

    def decided(self, package: Package, document: str) -> str | Partly:
        """The same, or what can be said of it. Raises `PolicyError` where nothing can."""
        until = time.monotonic() + self._alone_s
        try:
            return self.answer(package, document)
        except PolicyError:
            return self._one_by_one(package, document, until)

    def _one_by_one(self, package: Package, document: str, until: float) -> Partly:
        """What each rule says by itself: an error, which whoever acts may be able to cause, costs one rule only.

        The strongest come first. Those of other kinds cannot fire; they are asked where none of this kind failed, so
        that it is told which did.
        """
        kind = _kind_of(document)
        strongest = sorted(package.rules, key=lambda rule: rule.fired.action, reverse=True)
        found = Partly()
        for concerned in (True, False):
            for rule in (each for each in strongest if each.concerns(kind) is concerned):
                if time.monotonic() > until:
                    found.errors[rule.id] = "not evaluated: those before it took too long"
                    continue
                try:
                    if self.alone.fires(rule, document):
                        found.fired.append(rule.fired)
                except PolicyError as error:
                    found.errors[rule.id] = str(error)
            if found.errors:
                break
        return found

    def _evaluate(self, package: Package, document: str) -> str:
        self._engine.set_input_json(document)
        answer: str = self._engine.eval_rule_as_json(f"{package.name}.rules")
        return answer


def _kind_of(document: str) -> str:
    """The kind of an event; empty where no rule reads it, and so none names one."""
    event = json.loads(document).get("event")
    return str(event.get("kind", "")) if isinstance(event, dict) else ""

"""The embedded engine: Rego inside the agent's process, by regorus."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import regorus

from ..decision import FiredRule
from ..errors import DecisionError, PolicyError
from .analysis import Analysis
from .engine import Package, Rule, fired_rules
from .sources import PolicySources

_WHERE = re.compile(r"^--> (?P<file>.*):(?P<line>\d+):(?P<column>\d+)$", re.MULTILINE)
_WHAT = re.compile(r"^error: (?P<what>.*?)(?:\n\nStack backtrace|\Z)", re.MULTILINE | re.DOTALL)
_T = TypeVar("_T")


class EmbeddedEngine:
    """A compiled policy. Raises `PolicyError`, which starts with FILE:LINE:COLUMN, for what does not compile."""

    def __init__(self, sources: PolicySources, note: Callable[[str], object] = str) -> None:
        """Compile everything; regorus finds some errors only by evaluating, so each package is evaluated once.

        `note` is told what comes next: a policy can bring the process down.
        """
        self._engine = regorus.Engine()
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
        for package in self.packages:
            note(f"at {package.name}")
            as_policy_error(lambda package=package: self._evaluate(package, "{}"))  # type: ignore[misc]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules of all packages."""
        return tuple(rule for package in self.packages for rule in package.rules)

    def evaluate(self, packages: Sequence[Package], document: str) -> list[tuple[FiredRule, ...] | str]:
        """See `Engine`."""
        return [self._fired(package, document) for package in packages]

    def _fired(self, package: Package, document: str) -> tuple[FiredRule, ...] | str:
        try:
            return fired_rules(self.answer(package, document))
        except (PolicyError, DecisionError) as error:
            return f"{package.name}: {error}"

    def answer(self, package: Package, document: str) -> str:
        """The set `rules` of a package for an input, as JSON. Raises `PolicyError`."""
        return as_policy_error(lambda: self._evaluate(package, document))

    def _evaluate(self, package: Package, document: str) -> str:
        self._engine.set_input_json(document)
        answer: str = self._engine.eval_rule_as_json(f"{package.name}.rules")
        return answer


def as_policy_error(action: Callable[[], _T]) -> _T:
    """Turn whatever regorus raises into `PolicyError`; a panic in it is not an `Exception`."""
    try:
        return action()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise PolicyError(message_of(str(error))) from None


def message_of(text: str) -> str:
    """One line out of regorus's report: FILE:LINE:COLUMN: what is wrong."""
    where, what = _WHERE.search(text), _WHAT.search(text)
    message = " ".join((what["what"] if what is not None else text.partition("\n\nStack backtrace")[0]).split())
    return f"{where['file']}:{where['line']}:{where['column']}: {message}" if where is not None else message


class RulesAlone:
    """Evaluates rules one by one: the same text, in which each definition of `rules` has a name of its own.

    For packages in which nothing else refers to `rules`.
    """

    def __init__(self, engine: EmbeddedEngine, rules: Iterable[Rule]) -> None:
        """Compile once for all rules."""
        self._engine = regorus.Engine()
        self._names = {rule.id: f"krie_rule_{number}" for number, rule in enumerate(rules)}
        heads: dict[str, list[tuple[int, int, str]]] = {}
        for rule in (rule for package in engine.packages for rule in package.rules if rule.id in self._names):
            definition = engine.analysis.definition(rule)
            span = definition.tree["head"]["Set"]["refr"]["Var"]["span"]
            heads.setdefault(definition.place, []).append((span["start"], span["end"], self._names[rule.id]))
        for file in engine.sources.files:
            text = file.text.encode()
            for start, end, name in sorted(heads.get(file.place, ()), reverse=True):
                text = text[:start] + name.encode() + text[end:]
            as_policy_error(lambda file=file, text=text: self._engine.add_policy(file.place, text.decode()))  # type: ignore[misc]
        as_policy_error(lambda: self._engine.add_data_json(json.dumps(engine.sources.data)))

    def fires(self, rule: Rule, document: str) -> bool:
        """Whether the rule fires for the input. Raises `PolicyError` where it cannot be evaluated."""
        self._engine.set_input_json(document)
        answer = as_policy_error(lambda: self._engine.eval_rule_as_json(f"{rule.package}.{self._names[rule.id]}"))
        return bool(json.loads(answer))

"""Two policies, made ready to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..decision import Action, Decision
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Rule
from ..policy.policy import Policy
from .functions import Functions, program_numbers
from .near import constants


@dataclass(slots=True)
class Side:
    """One of the two policies that are compared."""

    engine: EmbeddedEngine
    functions: Functions
    on_error: Action

    def decide(self, document: dict[str, Any]) -> Decision:
        """What it decides, all rules together."""
        return Policy(self.engine, on_error=self.on_error, memo=0).decide(document["event"]["kind"], document)

    def rule(self, name: str) -> Rule | None:
        """The rule with this id."""
        return next((rule for rule in self.engine.rules if rule.id == name), None)


def sides(old: EmbeddedEngine, new: EmbeddedEngine, on_error: Action) -> tuple[Side, Side]:
    """Two policies, to be compared. Programs have the names that either knows or compares with: hosts may name more."""
    names: set[str] = set()
    for engine in (old, new):
        known = engine.sources.data.get("executables")
        names.update(known if isinstance(known, dict) else ())
        for rule in engine.rules:
            if any(path[-1:] == ("program",) for path in rule.reads):
                found = constants(engine.analysis, engine.sources.data, rule)
                names.update(each for each in found if isinstance(each, str) and each)
    numbers = program_numbers(names)
    made = [Side(engine, Functions(engine, numbers), on_error) for engine in (old, new)]
    return made[0], made[1]

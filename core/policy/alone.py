"""Each rule of a policy by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count

import regorus

from .analysis import Analysis
from .engine import Rule
from .regorus_errors import as_policy_error
from .sources import PolicySources


class RulesAlone:
    """Evaluates rules one by one: the same text, in which each definition of `rules` has a name of its own.

    The set `rules` is made of them again, for whatever else refers to it. The names are as long as `rules`, so that
    errors lead to the same places.
    """

    def __init__(self, sources: PolicySources, analysis: Analysis) -> None:
        """Compile once for all rules. Raises `PolicyError`."""
        rules = [rule for package in analysis.packages for rule in package.rules]
        names = _unused([file.text for file in sources.files])
        each_rule = next(names)
        self._engine = regorus.Engine()
        self._names = {rule.id: next(names) for rule in rules}
        self._input = ""
        heads: dict[str, list[tuple[int, int, str]]] = {}
        for rule in rules:
            definition = analysis.definition(rule)
            span = definition.tree["head"]["Set"]["refr"]["Var"]["span"]
            heads.setdefault(definition.place, []).append((span["start"], span["end"], self._names[rule.id]))
        for file in sources.files:
            text = file.text.encode()
            here = sorted(heads.get(file.place, ()), reverse=True)
            for start, end, name in here:
                text = text[:start] + name.encode() + text[end:]
            again = (f"\nrules contains {each_rule} if some {each_rule} in {name}" for *_, name in here)
            text += "".join(again).encode()
            as_policy_error(lambda file=file, text=text: self._engine.add_policy(file.place, text.decode()))  # type: ignore[misc]
        as_policy_error(lambda: self._engine.add_data_json(json.dumps(sources.data)))
        if rules:
            as_policy_error(lambda: self._engine.set_input_json("{}"))
            self._evaluate(rules[0])  # so that the first decision need not prepare all

    def fires(self, rule: Rule, document: str) -> bool:
        """Whether the rule fires for the input. Raises `PolicyError` where it cannot be evaluated."""
        if document != self._input:
            self._input = ""
            as_policy_error(lambda: self._engine.set_input_json(document))
            self._input = document
        return self._evaluate(rule)

    def _evaluate(self, rule: Rule) -> bool:
        answer = as_policy_error(lambda: self._engine.eval_rule_as_json(f"{rule.package}.{self._names[rule.id]}"))
        return bool(json.loads(answer))


def _unused(texts: Sequence[str]) -> Iterator[str]:
    """Names that no text contains."""
    together = "\n".join(texts)
    return (name for name in map("k{:04d}".format, count()) if name not in together)

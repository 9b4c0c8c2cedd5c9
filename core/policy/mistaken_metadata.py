"""METADATA that contradict their rule, say what means nothing, or belong to none."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from .analysis import Analysis
from .annotations import Annotations, Text
from .engine import Rule
from .mistake import Mistake, similar

SEVERITIES = ("low", "medium", "high", "critical")
_METADATA = frozenset(
    "scope title description related_resources authors organizations schemas entrypoint compile custom".split()
)
_CUSTOM = frozenset("id severity action technique seen enforce".split())


def mistaken_metadata(analysis: Analysis) -> Iterator[Mistake]:
    """Those of rules, and what is said of a rule where there is none."""
    rules = {rule.place: rule for package in analysis.packages for rule in package.rules}
    for place, read in analysis.annotations.items():
        if place in rules:
            yield from _annotation(rules[place], read)
        of_none = read.others if place in rules else (read, *read.others)
        for each in of_none:
            yield from _of_no_rule(each)


def _of_no_rule(annotations: Annotations) -> Iterator[Mistake]:
    custom = annotations.values.get("custom")
    for key, value in custom.items() if isinstance(custom, dict) else ():
        if key in _CUSTOM:
            place = value.place if isinstance(value, Text) else annotations.place
            what = f"custom.{key} belongs to no rule, and means nothing here"
            yield Mistake(place, "metadata", "", what, "put it right above its rule, or drop it")


def _annotation(rule: Rule, annotations: Annotations) -> Iterator[Mistake]:
    def mistake(text: Text, what: str, fix: str) -> Mistake:
        return Mistake(text.place, "metadata", rule.id, what, fix)

    for name, real in (("id", rule.id), ("action", rule.action)):
        text = annotations.text("custom", name)
        if text is not None and text.value != real:
            yield mistake(text, f"its METADATA say {name} {text.value}, and the rule {real}", "make both the same")
    severity = annotations.text("custom", "severity")
    if severity is not None and severity.value not in SEVERITIES:
        yield mistake(severity, f"{severity.value or 'nothing'} is not a severity", similar(severity.value, SEVERITIES))
    enforce = annotations.text("custom", "enforce")
    if enforce is not None and enforce.value != "inline":
        yield mistake(
            enforce, f"enforce is {enforce.value or 'empty'}, which means nothing", "write inline, or drop it"
        )
    custom = annotations.values.get("custom")
    for names, values, where in (
        (_METADATA, annotations.values, "METADATA"),
        (_CUSTOM, custom if isinstance(custom, dict) else {}, "custom"),
    ):
        for key in values.keys() - names:
            close = get_close_matches(key, names, 1, 0.75)
            if close or where == "METADATA":
                fix = f"did you mean {close[0]}?" if close else "put keys of your own below custom"
                yield Mistake(annotations.place, "metadata", rule.id, f"{where} has no key {key}", fix)
    for key, value in custom.items() if isinstance(custom, dict) else ():
        if key in _CUSTOM and not isinstance(value, Text):
            yield Mistake(annotations.place, "metadata", rule.id, f"custom.{key} is not text", "write one text")

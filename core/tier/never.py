"""Rules that no event can make fire, told by trying: every combination of what a rule tells apart.

As for the kernel's tables (see `classify`), but for all fields of an event rather than the inline ones, and until the
rule fires once. A rule that cannot be tried so is not told of.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from ..errors import PolicyError
from ..events.event import EventType
from ..events.identity import Identity
from ..events.inline import PROCESS_FIELDS, InlineField, NamePath
from ..events.wire import Boolean, Chars, Integer, Json, WireType
from ..policy.causes import NEVER
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Rule
from ..policy.mistake import Mistake
from .classify import Classifier
from .domain import NotDecidable, Numbers, Use, all_constants, cells
from .failing import fails

_MOST = 4096
"""Evaluations for one rule and kind."""
_LONGEST_S = 20.0
"""For all rules; those that are left then are not tried."""
_ANY_PROGRAM = "any program"
_TEXT, _NUMBER = Chars(4096), Integer("Q")
_AROUND: dict[NamePath, WireType | None] = {
    **{("process", name): wire for name, wire in PROCESS_FIELDS.items()},
    **{("process", name): _NUMBER for name in ("tgid", "tid", "start_time")},
    **{("process", name): _TEXT for name in ("comm", "exe")},
    ("process", "exe_known"): Boolean(),
    **{("host", name): _TEXT for name in ("name", "release", "machine", "machine_id", "boot_id")},
    **{("health", name): _NUMBER for name in ("lost", "missed")},
}
"""What rules see beside the event, as far as it has one value."""


def never_fires(engine: EmbeddedEngine, types: Iterable[EventType]) -> Iterator[Mistake]:
    """Rules that were tried for all of their kinds, and fired for none; `types`: all kinds."""
    kinds = list(types)
    rules = [rule for package in engine.packages for rule in package.rules]
    until = time.monotonic() + _LONGEST_S
    for rule in rules:
        if _reads_emptiness(engine, rule):
            continue
        if time.monotonic() > until:
            return
        tried = 0
        for kind in (each for each in kinds if rule.concerns(each.name)):
            try:
                count = _tried(engine, rule, kind, until)
            except PolicyError as error:
                yield fails(rule, f"some event of {kind.name}", error)
                break
            if count is None:
                break
            tried += count
        else:
            if tried:
                data = "with the data as they are, " if engine.analysis.documents(rule) else ""
                every = "every event" if tried == 1 else f"all {tried:,} combinations of the values that it compares"
                what = f"it never fires: {data}it is false for {every}"
                yield Mistake(rule.place, NEVER, rule.id, what, "look for conditions that exclude each other")


def _tried(engine: EmbeddedEngine, rule: Rule, kind: EventType, until: float) -> int | None:
    """Combinations for which it does not fire; None where it does for one, or cannot be tried.

    Raises `PolicyError` where it cannot be evaluated for one.
    """
    event: dict[NamePath, WireType | None] = {("event", each.name): each.wire for each in kind.own_fields}
    fields = {path: InlineField(path, index, wire) for index, (path, wire) in enumerate({**event, **_AROUND}.items())}
    classifier = Classifier(engine.analysis, engine.sources.data, kind.name, fields)
    try:
        uses = classifier.rule(rule.package, engine.analysis.definition(rule))
        numbers = _with_any_program(uses, engine.sources.data.get("executables"))
        domains = [cells(each, use, numbers)[1] for each, use in uses.items()]
    except NotDecidable:
        return None
    if prod(map(len, domains)) > _MOST:
        return None
    combinations = list(product(*domains))
    for combination in combinations:
        document = _document(kind.name, uses, [cell.value for cell in combination])
        if engine.alone.fires(rule, document) or time.monotonic() > until:
            return None
    return len(combinations)


def _with_any_program(uses: Mapping[InlineField, Use], executables: Json) -> Numbers:
    """As if all programs that the rule names were configured: that they are not is told elsewhere."""
    names = {name for each, use in uses.items() if each.path[-1] == "program" for name in all_constants([use])}
    names |= set(executables if isinstance(executables, dict) else ())
    programs = {Identity(1, at, 0): str(name) for at, name in enumerate(sorted({*names, _ANY_PROGRAM} - {""}), 1)}
    return Numbers().following(programs)


def _document(kind: str, fields: Iterable[InlineField], values: Iterable[Json]) -> str:
    document: dict[str, dict[str, Any]] = {"event": {"kind": kind}, "process": {}, "host": {}, "health": {}}
    for each, value in zip(fields, values, strict=True):
        part, name = each.path
        document[part][name] = value
    return json.dumps(document)


def _reads_emptiness(engine: EmbeddedEngine, rule: Rule) -> bool:
    """Whether it looks into data that are empty, by which an administrator may switch it off."""
    for path in engine.analysis.documents(rule):
        found: Json | Mapping[str, Json] = engine.sources.data
        for name in path:
            if not isinstance(found, dict) or name not in found:
                break
            found = found[name]
            if found in ({}, []):
                return True
    return False

"""Inputs near to whatever two rules compare with: for rules that are not functions of single fields, which can only be
tried. That none of them differs is not proof."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..events.event import EventType
from ..events.inline import NamePath
from ..events.wire import Json
from ..policy.analysis import Analysis
from ..policy.definition import Node
from ..policy.engine import Rule
from ..policy.mistakes import HEALTH_SCHEMA, HOST_SCHEMA
from ..processes.enrich import PROCESS_SCHEMA, document_schema

_MOST_CONSTANTS = 400
_MOST_ITEMS = 3
_KEPT = 64


def input_schema(event_type: EventType, facts: Mapping[str, Json]) -> dict[str, Any]:
    """JSON Schema of the input for one kind."""
    properties = {
        "event": document_schema(event_type, facts),
        "process": PROCESS_SCHEMA,
        "host": HOST_SCHEMA,
        "health": HEALTH_SCHEMA,
    }
    return {"type": "object", "properties": properties}


def plain(schema: Any) -> Any:
    """The plainest value of a schema: 0, false, empty, the first of an enumeration."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: plain(each) for name, each in schema.get("properties", {}).items()}
    if kind == "string":
        return "0x0000000000000000" if str(schema.get("pattern", "")).startswith("^0x") else ""
    return {"array": [], "boolean": False, "integer": 0, "number": 0}.get(str(kind))


def constants(analysis: Analysis, data: Mapping[str, Json], rule: Rule) -> list[Any]:
    """Texts and numbers that a rule names, and those of the data that it reads."""
    found: dict[str, Any] = {}

    def note(value: object) -> None:
        if isinstance(value, str | int | float) and not isinstance(value, bool) and len(found) < _MOST_CONSTANTS:
            found.setdefault(json.dumps(value), value)

    for _, each in analysis.reached(rule.package, [analysis.definition(rule)]):
        for node in _nodes(each.tree.get("bodies") or each.tree):
            for name in ("String", "RawString", "Number"):
                if isinstance(node, dict) and isinstance(node.get(name), dict):
                    note(node[name].get("value"))
    for path in sorted(analysis.documents(rule)):
        for value in _leaves(_below(data, path)):
            note(value)
    return list(found.values())


def _nodes(tree: Node) -> Iterator[Node]:
    yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(each)


def _below(data: Any, path: NamePath) -> Any:
    for name in path:
        if not isinstance(data, dict) or name not in data:
            return None
        data = data[name]
    return data


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


@dataclass(slots=True)
class Draw:
    """Draws inputs of one kind of which only what rules read varies."""

    schema: Mapping[str, Any]
    paths: Iterable[NamePath]
    near: list[Any]
    """Constants of the rules."""
    random: Random
    _places: list[tuple[NamePath, Any]] = field(default_factory=list)
    _kept: list[dict[str, Any]] = field(default_factory=list)
    base: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find the places of the schema that are varied."""
        self.base = plain(self.schema)
        found: dict[NamePath, Any] = {}
        for path in self.paths:
            at, known = self.schema, True
            for place, name in enumerate(path):
                if name not in at.get("properties", {}):
                    known = place > 0 and "properties" not in at  # into a list: all of that
                    path = path[:place]  # noqa: PLW2901
                    break
                at = at["properties"][name]
            if known:
                found.update(_scalars(path, at))
        self._places = sorted((path, each) for path, each in found.items() if "const" not in each)

    def keep(self, document: dict[str, Any]) -> None:
        """For this one a rule fired: others are made of it."""
        if len(self._kept) < _KEPT:
            self._kept.append(document)
        else:
            self._kept[self.random.randrange(_KEPT)] = document

    def one(self) -> dict[str, Any]:
        """Make one input."""
        random = self.random
        made: dict[str, Any] = json.loads(
            json.dumps(random.choice(self._kept) if self._kept and random.random() < 0.6 else self.base)
        )
        if not self._places:
            return made
        count = random.randint(1, len(self._places)) if random.random() < 0.5 else 1
        for path, schema in random.sample(self._places, count):
            put(made, path, self._value(schema))
        return made

    def shrunk(self, document: dict[str, Any], shows: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The same with as little as possible unlike the plainest input, as long as it `shows` what it did."""
        for path, schema in self._places:
            simpler = json.loads(json.dumps(document))
            put(simpler, path, plain(schema))
            if simpler != document and shows(simpler):
                document = simpler
        for path, schema in self._places:
            if schema.get("type") == "array":
                document = _shorter(document, path, schema["items"], shows)
        return document

    def _value(self, schema: Any) -> Any:
        random = self.random
        if "enum" in schema:
            return random.choice(schema["enum"])
        kind = schema.get("type", "string")
        if kind == "boolean":
            return random.random() < 0.5
        if kind == "array":
            return [self._value(schema["items"]) for _ in range(random.randint(0, _MOST_ITEMS))]
        if kind == "object":
            return {name: self._value(each) for name, each in schema.get("properties", {}).items()}
        return self._number(schema) if kind in ("integer", "number") else self._text()

    def _number(self, schema: Any) -> int:
        least, most = int(schema.get("minimum", 0)), int(schema.get("maximum", (1 << 64) - 1))
        numbers = [int(each) for each in self.near if not isinstance(each, str)]
        chosen = self.random.choice([*numbers, *numbers, 0, 1, least, most, self.random.randint(least, most)])
        return max(least, min(most, chosen + self.random.choice([0, 0, -1, 1])))

    def _text(self) -> str:
        random = self.random
        text = random.choice([each for each in self.near if isinstance(each, str)] or [""])
        if random.random() < 0.6:
            return text
        other = random.choice([str(each) for each in self.near] or [""])
        return str(
            random.choice(
                [
                    text + "x",
                    "x" + text,
                    text[:-1],
                    text[1:],
                    text.upper(),
                    text + other,
                    f"{text}/{other}",
                    "",
                    "other",
                ]
            )
        )


def _scalars(path: NamePath, schema: Any) -> Iterator[tuple[NamePath, Any]]:
    if schema.get("type") == "object" and schema.get("properties"):
        for name, each in schema["properties"].items():
            yield from _scalars((*path, name), each)
    else:
        yield path, schema


def _shorter(
    document: dict[str, Any], path: NamePath, schema: Any, shows: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The same with no more elements in this list than it takes, and those as plain as possible."""

    def tried(items: list[Any]) -> bool:
        nonlocal document
        simpler = json.loads(json.dumps(document))
        put(simpler, path, items)
        if good := simpler != document and shows(simpler):
            document = simpler
        return good

    for at in reversed(range(len(_at(document, path)))):
        items = _at(document, path)
        if not tried([*items[:at], *items[at + 1 :]]):
            for name, each in schema.get("properties", {}).items():
                items = _at(document, path)
                tried([*items[:at], {**items[at], name: plain(each)}, *items[at + 1 :]])
    return document


def _at(document: Any, path: NamePath) -> list[Any]:
    for name in path:
        document = document[name]
    assert isinstance(document, list)
    return document


def put(document: dict[str, Any], path: NamePath, value: Any) -> None:
    """Set what is at a path."""
    for name in path[:-1]:
        document = document.setdefault(name, {})
    document[path[-1]] = value

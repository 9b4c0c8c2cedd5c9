"""Silent mistakes: what compiles, and cannot have been meant. `krie policy check` tells them.

Everything here is told from the parsed policy, its data and the events' schemas; `never_fires` also asks the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..decision import Action
from ..events.wire import Json
from ..processes.enrich import PROCESS_SCHEMA
from ..processes.process import COMM_BYTES
from .analysis import Analysis
from .checks.asked import Asked
from .checks.expressions import Report, World
from .checks.inference import Inference
from .checks.limits import Limits
from .checks.types import ANY, OBJECT, TEXT, Type, of_data, of_schema, union
from .definition import Definition, Node
from .mistake import Mistake
from .mistaken_metadata import mistaken_metadata
from .module import LOG_PACKAGE

_MOST_WALKS = 30
"""Functions that call each other need one more each at most."""
HOST_SCHEMA: Json = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("name", "release", "machine", "machine_id", "boot_id")},
    "additionalProperties": False,
}
"""JSON Schema of `input.host`."""
HEALTH_SCHEMA: Json = {
    "type": "object",
    "properties": {
        **{name: {"type": "integer"} for name in ("lost", "missed", "policy_failures")},
        **{
            name: {"type": "array", "items": {"type": "string"}}
            for name in ("probes_not_alive", "degraded", "services")
        },
        "engine_stands_in": {"type": "boolean"},
    },
    "additionalProperties": False,
}
"""JSON Schema of `input.health`."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the rules are about."""

    events: Mapping[str, Mapping[str, Json]]
    """JSON Schemas of `input.event` by kind."""
    processes: Mapping[str, Iterable[str]]
    """By kind: names in the event that are other processes."""
    executables: Iterable[str]
    """Names that the configuration defines."""
    sizes: Mapping[str, Mapping[str, int]]
    """By kind and name: the most bytes that texts of the event come from."""


def mistakes(analysis: Analysis, data: Mapping[str, Json], around: Surroundings) -> list[Mistake]:
    """All that can be told without an engine, by place."""
    found = {*mistaken_metadata(analysis), *_names_like_rules(analysis), *_meanings(analysis, data, around)}
    return sorted(found)


def degraded_plugins(degraded: Mapping[str, str]) -> list[Mistake]:
    """Plugins that were left out, and so are their rules: nobody checked them."""
    return [
        Mistake(f"plugin {name}", "degraded", "", f"is left out with its rules: {why}", "fix it, or drop its section")
        for name, why in sorted(degraded.items())
    ]


# Rules that nobody asks for


def _names_like_rules(analysis: Analysis) -> Iterator[Mistake]:
    """Objects with an id and an action of rules by another name than `rules`, which alone is asked for."""
    for module in analysis.modules:
        for each in module.definitions:
            if each.name == "rules" or each.is_function or not any(map(_looks_like_a_rule, _answers(each))):
                continue
            verb = "contains" if "Set" in (each.tree.get("head") or {}) else "is"
            what = f"{each.name} {verb} what looks like rules, and nobody asks for it"
            fix = "write `rules contains ...`" if verb == "is" else "name it rules"
            yield Mistake(f"{each.place}:{each.line}", "rules", _named(module.package, each), what, fix)


def _answers(definition: Definition) -> Iterator[Node]:
    """What a definition's values are, also by variables."""
    shapes = [*(definition.tree.get("head") or {}).values()]
    values = [*(shape["key"] for shape in shapes if shape.get("key"))]
    values += [shape["assign"]["value"] for shape in shapes if shape.get("assign")]
    values += [definition.tree["value"]] if definition.is_default else []
    for each in values:
        yield each
        yield from (each.get("Set") or {}).get("items", ())
        yield from [each["SetCompr"]["term"]] if "SetCompr" in each else []
    names = {str(each["Var"]["value"]) for each in values if "Var" in each}
    for body in definition.tree.get("bodies") or ():
        for statement in body["query"]["stmts"]:
            some = statement["literal"].get("SomeIn")
            if some and "Var" in some["value"] and str(some["value"]["Var"]["value"]) in names:
                collection = some["collection"].get("Set") or some["collection"].get("Array") or {}
                yield from collection.get("items", ())
            assigned = statement["literal"].get("Expr", {}).get("expr", {}).get("AssignExpr")
            if assigned and "Var" in assigned["lhs"] and str(assigned["lhs"]["Var"]["value"]) in names:
                yield assigned["rhs"]


def _looks_like_a_rule(node: Node) -> bool:
    fields = (node.get("Object") or {}).get("fields", ())
    found = {str(key["String"]["value"]): value for _, key, value in fields if "String" in key}
    action = found.get("action", {}).get("String", {}).get("value")
    return "id" in found and str(action).upper() in Action.__members__


def _named(package: str, definition: Definition) -> str:
    return f"{definition.name} of {package.removeprefix('data.')}"


# What the rules compare and look up


def _meanings(analysis: Analysis, data: Mapping[str, Json], around: Surroundings) -> list[Mistake]:
    known = frozenset(around.events)
    kinds: dict[int, frozenset[str]] = {}
    rules: dict[int, set[str]] = {}
    for rule in (rule for package in analysis.packages for rule in package.rules):
        for _, used in analysis.reached(rule.package, [analysis.definition(rule)]):
            kinds[id(used)] = kinds.get(id(used), frozenset()) | ((rule.kinds & known) or known)
            rules.setdefault(id(used), set()).add(rule.id)
    types = _Types(around, data)
    passed: dict[tuple[str, ...], list[Type]] = {}
    asked = Asked()
    found: list[Mistake] = []

    def found_by(name: str) -> Report:
        return lambda place, what, fix: found.append(Mistake(place, "meaning", name, what, fix))

    def walk() -> None:
        found.clear()
        inferences: dict[frozenset[str], Inference] = {}
        for walked in (each for group in analysis.scoped.values() for each in group):
            package, definition, _ = walked
            if package == LOG_PACKAGE:  # its input is what a decision log says, not an event
                continue
            concerned = kinds.get(id(definition), known)
            if concerned not in inferences:
                world = World(types.input(concerned), types.data, types.always(concerned))
                inferences[concerned] = Inference(analysis.scoped, world, found_by(""), passed, asked)
            users = sorted(rules.get(id(definition), ()))
            name = users[0] if len(users) == 1 else _named(package, definition)
            inferences[concerned].report = found_by(name)
            inferences[concerned].definition(walked)

    for _ in range(_MOST_WALKS):
        before = dict(passed)
        walk()
        # Nothing is told before it is known what calls pass on, and what sets are asked for.
        if not asked.again() and passed == before:
            return found
    return []


class _Types:
    """Types of `input` by kinds, and that of `data`."""

    def __init__(self, around: Surroundings, data: Mapping[str, Json]) -> None:
        self._around = around
        programs = Type(
            TEXT.kinds,
            frozenset({"", *around.executables}),
            "a program that [executables] of krie.toml names",
            remedy="give it this name there, or check the name",
        )
        self._programs = programs
        self._process = self._with_programs(of_schema(PROCESS_SCHEMA, "input.process"))
        self._kind = replace(
            TEXT, texts=frozenset(around.events), domain="a kind of event of any loaded plugin", name="input.event.kind"
        )
        self._events = {kind: self._event(kind, schema) for kind, schema in around.events.items()}
        # The packages are looked up by the rules' own paths.
        self.data = replace(of_data(dict(data), "data"), items=None)

    def _event(self, kind: str, schema: Mapping[str, Json]) -> Type:
        found = of_schema(schema, "input.event")
        members = {**(found.members or {}), "kind": self._kind}
        for name, size in self._around.sizes.get(kind, {}).items():
            members[name] = replace(members[name], limits=Limits(size=size))
        for name in self._around.processes.get(kind, ()):
            if name in members:
                members[name] = self._with_programs(members[name])
        return replace(found, members=members)

    def _with_programs(self, type_: Type) -> Type:
        """Names of programs are those that the configuration gives, and those of threads the kernel cuts."""
        members = {name: self._with_programs(each) for name, each in (type_.members or {}).items()}
        if "comm" in members:
            members["comm"] = replace(members["comm"], limits=Limits(size=COMM_BYTES))
        if "program" in members:
            members["program"] = replace(self._programs, name=members["program"].name)
        items = self._with_programs(type_.items) if type_.items is not None else None
        return replace(type_, members=members if type_.members is not None else None, items=items)

    def always(self, kinds: frozenset[str]) -> frozenset[str]:
        """Names that events of all of these kinds have."""
        names = [frozenset(self._events[kind].members or ()) for kind in kinds]
        return frozenset.intersection(*names) if names else frozenset()

    def input(self, kinds: frozenset[str]) -> Type:
        """For events of any of these kinds."""
        members = {
            "event": union(self._events[kind] for kind in sorted(kinds)) if kinds else ANY,
            "process": self._process,
            "host": of_schema(HOST_SCHEMA, "input.host"),
            "health": of_schema(HEALTH_SCHEMA, "input.health"),
        }
        return Type(OBJECT.kinds, members=members, name="input")

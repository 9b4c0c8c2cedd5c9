"""What a value can be, as far as a policy's text, its data and the events' schemas tell. Where in doubt: anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from ...events.wire import Json
from .limits import FREE, Limits, limits_of_constant, limits_of_schema

KINDS = frozenset(("array", "boolean", "null", "number", "object", "set", "string"))
WORDS = {
    "array": "an array",
    "boolean": "a boolean",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "set": "a set",
    "string": "text",
}
_DEEPEST = 4
"""Collections in each other of whose elements more than the kind is known."""
_JSON_KINDS = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}


@dataclass(frozen=True, slots=True)
class Type:
    """A set of values."""

    kinds: frozenset[str] = KINDS
    texts: frozenset[str] | None = None
    """All texts that it can be; None: any."""
    domain: str = ""
    """What to call a text that is not among them: `a value of input.event.state`. Empty where they are literals."""
    members: Mapping[str, Type] | None = None
    """All keys of the object; None: any."""
    items: Type | None = None
    """Elements of the array or set, values of the object; None: anything."""
    name: str = ""
    """As policies write it, where it is an input's or a document's."""
    shared: bool = False
    """Its texts are written elsewhere, by a rule or a call: other places may be about some of them."""
    remedy: str = "check its name"
    """What to do about a text that is not in the domain."""
    others: bool = False
    """Others than these members and texts may come: they are what the data have today."""
    places: tuple[Type, ...] | None = None
    """Elements of an array that is written out, in their order."""
    limits: Limits = FREE
    depth: int = 0
    """How many collections that the policy writes out lie in each other here."""

    @property
    def known(self) -> bool:
        """Whether anything is known of it."""
        return self.kinds != KINDS

    @property
    def shown(self) -> str:
        """The type as messages name it."""
        kinds = " or ".join(WORDS[each] for each in sorted(self.kinds))
        return f"{self.name} ({kinds})" if self.name else kinds

    def member(self, name: str) -> Type | None:
        """The value of a key; None where the object has no such key."""
        if self.members is not None and "object" in self.kinds:
            return self.members.get(name, ANY if self.others else None)
        return self.element() if self.items is not None else ANY

    def place(self, number: int) -> Type:
        """The element there; literals that may be at other places are none of its texts."""
        if self.places is not None:
            return self.places[number] if number < len(self.places) else ANY
        found = self.element() if self.kinds == ARRAY.kinds else ANY
        return found if found.domain or found.texts is None else replace(found, texts=None)

    def element(self) -> Type:
        """What iterating over it gives."""
        if self.items is not None:
            return self.items
        if self.kinds != OBJECT.kinds:
            return ANY
        return union(self.members.values()) if self.members and not self.others else ANY

    @property
    def is_literal(self) -> bool:
        """Whether it is an object that the policy writes out."""
        return self.kinds == {"object"} and bool(self.members) and self.items is None and not self.name

    def key(self) -> Type:
        """What iterating over its keys gives."""
        if self.is_literal:
            return replace(TEXT, texts=frozenset(self.members or ()), shared=self.shared)
        if self.kinds == {"array"}:
            return NUMBER
        if self.kinds == {"set"}:
            return self.element()
        return TEXT if self.kinds == {"object"} and self.members is not None else ANY


ANY, NUMBER, TEXT = Type(), Type(frozenset({"number"})), Type(frozenset({"string"}))
BOOLEAN, NULL, SET, ARRAY, OBJECT = (Type(frozenset({each})) for each in ("boolean", "null", "set", "array", "object"))


def union(types: Iterable[Type]) -> Type:
    """Any of these; nothing is known of none."""
    found = list(types)
    return reduce(_either, found) if found else ANY


def _either(one: Type, other: Type) -> Type:
    if one == other:
        return one
    if not (one.known and other.known):
        return ANY
    texts = _texts(one, other)
    members = items = None
    objects = [each for each in (one, other) if "object" in each.kinds]
    if objects and all(each.members is not None for each in objects):
        names = dict.fromkeys(name for each in objects for name in each.members or ())
        members = {
            name: union(each.members[name] for each in objects if each.members and name in each.members)
            for name in names
        }
    collections = [each for each in (one, other) if each.kinds & {"array", "set", "object"}]
    if collections and all(each.items is not None for each in collections):
        items = union(each.items for each in collections if each.items is not None)
    domain = one.domain if one.domain == other.domain else ""
    name = one.name if one.name == other.name else ""
    if (one.domain or other.domain) and not domain:
        texts = None  # a literal beside an enumeration: what is wrong cannot be told any more
    remedy = one.remedy if one.domain else other.remedy
    shared_, others = one.shared or other.shared, one.others or other.others
    kinds, limits = one.kinds | other.kinds, one.limits.either(other.limits) if one.kinds == other.kinds else FREE
    places, depth = _places(one.places, other.places), max(one.depth, other.depth)
    return Type(kinds, texts, domain, members, items, name, shared_, remedy, others, places, limits, depth)


def _places(one: tuple[Type, ...] | None, other: tuple[Type, ...] | None) -> tuple[Type, ...] | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(union(pair) for pair in zip(one, other, strict=True))


def _texts(one: Type, other: Type) -> frozenset[str] | None:
    both = [each for each in (one, other) if "string" in each.kinds]
    if not both or any(each.texts is None for each in both):
        return None
    return frozenset().union(*(each.texts or () for each in both))


def shared(type_: Type) -> Type:
    """The same, written elsewhere. A number may be there to be changed: a limit that switches off what it bounds."""
    if type_.kinds == NUMBER.kinds and not type_.name:
        return NUMBER
    if type_.texts is None and type_.items is None and not type_.is_literal:
        return type_
    items = shared(type_.items) if type_.items is not None else None
    places = tuple(map(shared, type_.places)) if type_.places is not None else None
    members = (
        {name: shared(each) for name, each in (type_.members or {}).items()} if type_.is_literal else type_.members
    )
    return replace(type_, shared=True, items=items, places=places, members=members)


def of_constant(value: Json) -> Type:
    """The type of a literal."""
    if isinstance(value, str):
        return Type(TEXT.kinds, frozenset({value}), limits=limits_of_constant(value))
    kind = BOOLEAN if isinstance(value, bool) else NULL if value is None else NUMBER
    return replace(kind, limits=limits_of_constant(value))


def of_array(items: Collection[Type]) -> Type:
    """One that is written out."""
    held, depth = _held(items)
    return Type(ARRAY.kinds, items=union(held) if held else None, places=tuple(held), depth=depth)


def of_elements(kind: Type, items: Collection[Type]) -> Type:
    """A set, or what a comprehension makes, of such elements (of an object: values)."""
    held, depth = _held(items)
    return Type(kind.kinds, items=union(held) if held else None, depth=depth)


def of_object(members: Mapping[str, Type]) -> Type:
    """One that is written out, with all of its keys."""
    held, depth = _held(members.values())
    return Type(OBJECT.kinds, members=dict(zip(members, held, strict=True)), depth=depth)


def _held(types: Iterable[Type]) -> tuple[list[Type], int]:
    """What is known of the elements of a collection, and how deep that is.

    Types are walked as trees: without an end, rules that use one another twice would double it with each rule.
    """
    held = [each if each.depth < _DEEPEST else Type(each.kinds) for each in types]
    return held, 1 + max((each.depth for each in held), default=0)


def of_data(value: Json, name: str) -> Type:
    """A document: its keys are known, what its elements look like is not, since others may come."""
    if isinstance(value, dict):
        members = {key: of_data(each, f"{name}.{key}") for key, each in value.items()}
        return Type(frozenset({"object"}), members=members, items=_loose(value.values(), f"{name}[_]"), name=name)
    if isinstance(value, list):
        return Type(frozenset({"array"}), items=_loose(value, f"{name}[_]"), name=name)
    return replace(of_constant(value), texts=None, name=name, limits=FREE)


def _loose(values: Collection[Json], name: str) -> Type:
    """Of elements that differ, and to which others may come."""
    if values and all(isinstance(each, dict) for each in values):
        names = sorted({key for each in values if isinstance(each, dict) for key in each})
        return Type(OBJECT.kinds, members=dict.fromkeys(names, ANY), name=name, others=True)
    if values and all(isinstance(each, str) for each in values):
        return Type(TEXT.kinds, frozenset(map(str, values)), shared=True, others=True)
    kinds = frozenset(
        "object"
        if isinstance(each, dict)
        else "array"
        if isinstance(each, list)
        else next(iter(of_constant(each).kinds))
        for each in values
    )
    return Type(kinds) if kinds else ANY


def of_schema(schema: Any, name: str) -> Type:
    """What a JSON Schema of the project's lets through; what it does not use is anything."""
    if not isinstance(schema, dict):
        return ANY
    kind = schema.get("type")
    if "enum" in schema and all(isinstance(each, str) for each in schema["enum"]):
        return Type(frozenset({"string"}), frozenset(schema["enum"]), f"a value of {name}", name=name)
    if "const" in schema and isinstance(schema["const"], str):
        return Type(frozenset({"string"}), frozenset({schema["const"]}), f"a value of {name}", name=name)
    if kind == "object":
        closed = schema.get("additionalProperties") is False
        properties = schema.get("properties", {})
        members = {key: of_schema(each, f"{name}.{key}") for key, each in properties.items()} if closed else None
        return Type(frozenset({"object"}), members=members, name=name)
    if kind == "array":
        items = of_schema(schema.get("items"), f"{name}[_]")
        return Type(ARRAY.kinds, items=items, name=name, limits=limits_of_schema(schema))
    kinds = frozenset({_JSON_KINDS[kind]}) if kind in _JSON_KINDS else KINDS
    return Type(kinds, name=name, limits=limits_of_schema(schema)) if kinds != KINDS else ANY


def of_builtin(declared: Any) -> Type:
    """A type of `builtins.json`."""
    if isinstance(declared, list):
        return union(of_builtin(each) for each in declared)
    if isinstance(declared, dict):
        if "object" in declared:
            return OBJECT
        ((kind, items),) = declared.items()
        if kind == "tuple":
            return Type(ARRAY.kinds, items=union(map(of_builtin, items)))
        return Type(frozenset({kind}), items=None if items == "any" else of_builtin(items))
    return ANY if declared == "any" else Type(frozenset({declared}))


def overlap(one: Type, other: Type) -> bool:
    """Whether a value can be both, by their kinds and those of their elements."""
    kinds = one.kinds & other.kinds
    if kinds - {"array", "set"} or not kinds:
        return bool(kinds)
    return one.items is None or other.items is None or overlap(one.items, other.items)

"""What OPA's type checker takes a value for, and when it says that two values can never be the same.

`None` stands for a value that nothing is known of yet (a variable before its first use); `ANY` for one that may be
anything. Arrays and objects that are written out are closed: they have these elements, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any, Union

Key = tuple[str, Any]
"""A constant as a key: its kind and its value, so that 1 and true differ."""
MOST_PARTS = 2000
NULL, BOOLEAN, NUMBER, TEXT = "null", "boolean", "number", "string"


@dataclass(frozen=True, slots=True)
class Array:
    """`items` written out, then any number of `rest`, or none where that is None."""

    items: tuple[Kind | None, ...] = ()
    rest: Kind | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """`fields` written out, then any number of keys and values of `rest`, or none where that is None."""

    fields: tuple[tuple[Key, Kind | None], ...] = ()
    rest: tuple[Kind | None, Kind | None] | None = None


@dataclass(frozen=True, slots=True)
class Set:
    """`of` is None for the empty set."""

    of: Kind | None = None


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several; none are named for what may be anything."""

    kinds: frozenset[Kind] = frozenset()


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the policy's."""

    arguments: tuple[Kind | None, ...]
    result: Kind | None


Kind = Union[str, Array, Object, Set, OneOf, Function]  # noqa: UP007 - the classes refer to it
ANY = OneOf()


def unknown(kind: Kind | None) -> bool:
    """Whether something of it is not known yet."""
    if isinstance(kind, Array):
        return any(map(unknown, kind.items)) or (kind.rest is not None and unknown(kind.rest))
    if isinstance(kind, Object):
        return any(unknown(each) for _, each in kind.fields) or (kind.rest is not None and any(map(unknown, kind.rest)))
    if isinstance(kind, Set):
        return unknown(kind.of)
    if isinstance(kind, Function):
        return any(map(unknown, (*kind.arguments, kind.result)))
    return kind is None


def small(kind: Kind) -> Kind:
    """The same, or anything where it has very many parts: each level of nested variables could double them."""
    left = [MOST_PARTS]
    return kind if _counted(kind, left) else ANY


def _counted(kind: Kind | None, left: list[int]) -> bool:
    left[0] -= 1
    parts: Iterable[Kind | None] = ()
    if isinstance(kind, Array):
        parts = (*kind.items, kind.rest)
    elif isinstance(kind, Object):
        parts = (*(each for _, each in kind.fields), *(kind.rest or ()))
    elif isinstance(kind, Set):
        parts = (kind.of,)
    elif isinstance(kind, OneOf):
        parts = kind.kinds
    return left[0] > 0 and all(_counted(each, left) for each in parts)


def filled(kind: Kind | None) -> Kind:
    """What is not known of it is anything."""
    if isinstance(kind, Array):
        return Array(tuple(map(filled, kind.items)), filled(kind.rest) if kind.rest is not None else None)
    if isinstance(kind, Object):
        fields = tuple((key, filled(each)) for key, each in kind.fields)
        return Object(fields, (filled(kind.rest[0]), filled(kind.rest[1])) if kind.rest is not None else None)
    return kind if kind is not None else ANY


def either(one: Kind | None, other: Kind | None) -> Kind | None:
    """Any of both."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if isinstance(one, Function) or isinstance(other, Function):
        return _either_function(one, other)
    parts = [each.kinds if isinstance(each, OneOf) else frozenset({each}) for each in (one, other)]
    return OneOf(parts[0] | parts[1]) if all(parts) else ANY


def _either_function(one: Kind, other: Kind) -> Kind | None:
    if not isinstance(one, Function) or not isinstance(other, Function):
        return None
    if len(one.arguments) != len(other.arguments):
        return None
    arguments = tuple(either(*pair) for pair in zip(one.arguments, other.arguments, strict=True))
    return Function(arguments, either(one.result, other.result))


def any_of(kinds: Iterable[Kind | None]) -> Kind | None:
    """Any of these; None of none."""
    found: list[Kind] = list(dict.fromkeys(each for each in kinds if each is not None))
    if len(found) > 2 and not any(isinstance(each, Function) for each in found):
        parts = [each.kinds if isinstance(each, OneOf) else frozenset({each}) for each in found]
        return OneOf(frozenset().union(*parts)) if all(parts) else ANY
    return reduce(either, found, None)


def keys(kind: Kind | None) -> Kind | None:
    """What iterating over its keys gives; None for what has none."""
    if isinstance(kind, Array):
        return NUMBER
    if isinstance(kind, Object):
        return any_of((*(key[0] for key, _ in kind.fields), *(kind.rest[:1] if kind.rest else ())))
    if isinstance(kind, Set):
        return kind.of
    if isinstance(kind, OneOf):
        return any_of(map(keys, kind.kinds)) if kind.kinds else ANY
    return None


def values(kind: Kind | None) -> Kind | None:
    """What iterating over it gives; None for what has none."""
    if isinstance(kind, Array):
        return any_of((*kind.items, kind.rest))
    if isinstance(kind, Object):
        return any_of((*(each for _, each in kind.fields), *(kind.rest[1:] if kind.rest else ())))
    if isinstance(kind, Set):
        return kind.of
    if isinstance(kind, OneOf):
        return any_of(map(values, kind.kinds)) if kind.kinds else ANY
    return None


def at(kind: Kind | None, key: Key) -> Kind | None:
    """What is at a constant key; None where nothing can be."""
    if isinstance(kind, Array):
        position = key[1]
        if key[0] != NUMBER or position != int(position) or position < 0:
            return None
        return kind.items[int(position)] if position < len(kind.items) else kind.rest
    if isinstance(kind, Object):
        for name, value in kind.fields:
            if name == key:
                return value
        return kind.rest[1] if kind.rest is not None and _covers(kind.rest[0], key[0]) else None
    if isinstance(kind, Set):
        return key[0] if _covers(kind.of, key[0]) else None
    if isinstance(kind, OneOf):
        return any_of(at(each, key) for each in kind.kinds) if kind.kinds else ANY
    return None


def _covers(kind: Kind | None, name: str) -> bool:
    return kind == name or (isinstance(kind, OneOf) and (not kind.kinds or name in kind.kinds))


def is_empty(kind: Kind | None) -> bool:
    """Whether it is a collection that has nothing in it."""
    return (
        (isinstance(kind, Object) and not kind.fields and kind.rest is None)
        or (isinstance(kind, Array) and not kind.items and kind.rest is None)
        or (isinstance(kind, Set) and kind.of is None)
    )


def can_equal(one: Kind | None, other: Kind | None) -> bool:
    """Whether a value can be both."""
    if one is None or other is None:
        return False
    for each, against in ((one, other), (other, one)):
        if not isinstance(each, OneOf) or isinstance(against, Function):
            continue
        if not each.kinds or any(can_equal(kind, against) for kind in each.kinds):
            return True
    if isinstance(one, OneOf) or isinstance(other, OneOf) or type(one) is not type(other):
        return False
    if isinstance(one, Array) and isinstance(other, Array):
        return _arrays(one, other)
    if isinstance(one, Object) and isinstance(other, Object):
        return _objects(one, other)
    if isinstance(one, Set) and isinstance(other, Set):
        return one.of is None or other.of is None or can_equal(one.of, other.of)
    if isinstance(one, Function) and isinstance(other, Function):
        return len(one.arguments) == len(other.arguments) and all(map(can_equal, one.arguments, other.arguments))
    return one == other


def _arrays(one: Array, other: Array) -> bool:
    for position in range(max(len(one.items), len(other.items))):
        pair = [each.items[position] if position < len(each.items) else each.rest for each in (one, other)]
        if not can_equal(*pair):
            return False
    return one.rest is None or other.rest is None or can_equal(one.rest, other.rest)


def _objects(one: Object, other: Object) -> bool:
    for each, against in ((one, other), (other, one)):
        for key, value in each.fields:
            found = at(against, key)
            if found is None:
                if each.rest is None and against.rest is None:
                    return False
            elif not can_equal(value, found):
                return False
    pair = [each.rest[1] if each.rest is not None else None for each in (one, other)]
    return pair[0] is None or pair[1] is None or can_equal(*pair)


def of_description(declared: Any) -> Kind:
    """A type of `builtins.json`."""
    if isinstance(declared, list):
        return any_of(map(of_description, declared)) or ANY
    if not isinstance(declared, dict):
        if declared == "object":
            return Object((), (ANY, ANY))
        return ANY if declared == "any" else str(declared)
    if "set" in declared:
        return Set(of_description(declared["set"]))
    if "array" in declared:
        return Array((), of_description(declared["array"]))
    if "tuple" in declared:
        return Array(tuple(map(of_description, declared["tuple"])))
    fields = tuple(sorted(((TEXT, key), of_description(each)) for key, each in declared["object"].items()))
    rest = tuple(map(of_description, declared["others"])) if "others" in declared else None
    return Object(fields, rest)  # type: ignore[arg-type]


_WORDS = {NULL: "null", BOOLEAN: "a boolean", NUMBER: "a number", TEXT: "text"}


def words(kind: Kind | None) -> str:
    """The kinds as messages name them."""
    if isinstance(kind, OneOf):
        return " or ".join(sorted(map(words, kind.kinds))) or "anything"
    if isinstance(kind, Array):
        return f"an array of {len(kind.items)}" if kind.rest is None else f"an array{_of(kind.rest)}"
    if isinstance(kind, Set):
        return f"a set{_of(kind.of)}" if kind.of is not None else "an empty set"
    if isinstance(kind, Object):
        return "an object" if kind.fields or kind.rest else "an empty object"
    return _WORDS[kind] if isinstance(kind, str) else "anything"


def _of(kind: Kind | None) -> str:
    shown = sorted(names(kind))
    return f" of {' or '.join(shown)}" if shown else ""


def names(kind: Kind | None) -> Iterator[str]:
    """Plurals, such as `numbers`."""
    for each in kind.kinds if isinstance(kind, OneOf) else (kind,):
        if isinstance(each, str):
            yield _WORDS[each].split()[-1] + "s"
        elif isinstance(each, Array | Object | Set):
            yield type(each).__name__.lower() + "s"

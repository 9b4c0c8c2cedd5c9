"""What an expression of a policy can be, as far as the classifier follows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..events.inline import InlineField, NamePath
from .domain import NotDecidable

_MOST_CONSTANTS = 4096


@dataclass(frozen=True, slots=True)
class Ground:
    """Depends on no input. `values`: all constants that it can be; None where they were not worked out.

    Arrays are lists, sets are tuples.
    """

    values: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """`input`, or an object in it, on the way to a field."""

    path: NamePath


@dataclass(frozen=True, slots=True)
class Data:
    """`data`, or a package in it, on the way to a rule or to data."""

    path: NamePath


class Derived:
    """Depends on the input through atoms, or through fields with few values."""


class Unbound:
    """A variable without a value yet."""


DERIVED, UNBOUND = Derived(), Unbound()
Value = Ground | Part | Data | InlineField | Derived | Unbound
Variables = dict[str, Value]


def shown(value: Part | Data) -> str:
    """As policies write it."""
    return ".".join(("input" if isinstance(value, Part) else "data", *value.path))


def keys(collection: Ground) -> tuple[Any, ...]:
    """All keys that iterating over it can give."""
    return _bounded(
        key
        for each in collection.values or ()
        for key in (range(len(each)) if isinstance(each, list) else each if isinstance(each, dict | tuple) else ())
    )


def items(collection: Ground) -> tuple[Any, ...]:
    """All elements that iterating over it can give."""
    return _bounded(
        item
        for each in collection.values or ()
        for item in (each.values() if isinstance(each, dict) else each if isinstance(each, list | tuple) else ())
    )


def looked_up(base: Ground, key: Ground) -> tuple[Any, ...] | None:
    """All that can be found; None where engines may differ, such as for a number as the key of an object."""
    if base.values is None or key.values is None:
        return None
    found = []
    for each in base.values:
        for name in key.values:
            if isinstance(each, dict) and isinstance(name, str):
                found += [each[name]] if name in each else []
            elif isinstance(each, list) and type(name) is int:
                found += [each[name]] if 0 <= name < len(each) else []
            elif isinstance(each, dict | list | tuple):
                return None
    return _bounded(iter(found))


def _bounded(values: Iterator[Any]) -> tuple[Any, ...]:
    found: list[Any] = []
    for each in values:
        found.append(each)
        if len(found) > _MOST_CONSTANTS:
            raise NotDecidable(f"it compares with more than {_MOST_CONSTANTS} constants")
    return tuple(found)

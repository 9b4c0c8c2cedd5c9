"""Collects how a rule uses inline fields: by atoms, or in a way that only fields with few values may be used."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..events.inline import InlineField
from ..events.wire import FlagSet
from .domain import Atom, NotDecidable, Use, comparable, is_finite
from .values import DERIVED, Data, Ground, Part, Unbound, Value, items, shown

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(slots=True)
class Uses:
    """What was found so far. Raises `NotDecidable` for a use that a table cannot hold."""

    by_field: dict[InlineField, Use] = field(default_factory=dict)
    place: str = ""
    """FILE:LINE of what is being walked."""

    def compare(self, operator: str, left: Value, right: Value) -> Value:
        """`left OPERATOR right`; `==` stands for `!=` too, which learns the same."""
        for one, other, by in ((left, right, operator), (right, left, _TURNED.get(operator, operator))):
            if isinstance(one, InlineField) and isinstance(other, Ground) and other.values is not None:
                self._compare_with(one, by, other.values)
                return DERIVED
        self.absorb(left, "is compared with something that is not a constant")
        self.absorb(right, "is compared with something that is not a constant")
        return DERIVED

    def _compare_with(self, one: InlineField, operator: str, constants: tuple[object, ...]) -> None:
        alike = [each for each in constants if comparable(one, each)]
        if is_finite(one) and (operator != "==" or len(alike) < len(constants)):
            self.absorb(one, "")
            return
        if operator != "==" and any(isinstance(each, str) for each in alike):
            raise NotDecidable(f"{one} is text, and text has no order in the kernel")
        self._add(one, Use(frozenset(Atom(operator, (each,)) for each in alike)))

    def member(self, value: Value, collection: Value) -> Value:
        """`value in collection`."""
        if isinstance(value, InlineField) and isinstance(collection, Ground) and collection.values is not None:
            for each in collection.values:
                members = items(Ground((each,)))
                alike = tuple(member for member in members if comparable(value, member))
                if is_finite(value) and len(alike) < len(members):
                    self.absorb(value, "")
                self._add(value, Use(frozenset({Atom("in", alike)})))
            return DERIVED
        if isinstance(collection, InlineField) and isinstance(collection.wire, FlagSet) and isinstance(value, Ground):
            texts = [each for each in value.values or () if isinstance(each, str)]
            if value.values is not None and len(texts) == len(value.values):
                self._add(collection, Use(frozenset(Atom("has", (each,)) for each in texts)))
                return DERIVED
        self.absorb(value, "is looked for in something that is not a constant")
        self.absorb(collection, "is searched")
        return DERIVED

    def truth(self, value: Value) -> None:
        """A statement by itself: true unless it is false or undefined."""
        if isinstance(value, InlineField) and not is_finite(value):
            return  # numbers and text are never absent, and never false
        self.absorb(value, "stands by itself")

    def absorb(self, value: Value, how: str) -> None:
        """The value is used in a way that is not followed."""
        if isinstance(value, InlineField):
            if not is_finite(value):
                raise NotDecidable(f"{value} {how}")
            self._add(value, Use(whole=self.place))
        elif isinstance(value, Part | Data):
            raise NotDecidable(f"{shown(value)} is used as a whole")
        elif isinstance(value, Unbound):
            raise NotDecidable("a variable is used before it gets its value; write it further down")

    def _add(self, one: InlineField, use: Use) -> None:
        self.by_field[one] = self.by_field.get(one, Use()) | use

"""What bounds the values of a type: how large a number gets, how long a text, and how a text is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from ...events.wire import Json, bytes_of

_SHOWN_OF_A_BYTE = len(r"\xff")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of numbers, texts and collections at once: what a type has none of is not asked."""

    least: float = -inf
    most: float = inf
    size: float = inf
    """The most bytes that a text is decoded from, or elements of an array."""
    form: str = ""
    """A regular expression that each text matches."""

    @property
    def closed(self) -> bool:
        """Whether a number has a bound on both sides."""
        return -inf < self.least and self.most < inf

    def either(self, other: Limits) -> Limits:
        """Of what is one or the other."""
        form = self.form if self.form == other.form else ""
        return Limits(min(self.least, other.least), max(self.most, other.most), max(self.size, other.size), form)

    def excludes(self, text: str) -> str:
        """Why a text can never be this; empty where it can."""
        if bytes_in(text) > self.size:
            return f"holds at most {self.size} bytes"
        return f"has the form {self.form}" if self.form and not re.search(self.form, text) else ""

    def never(self, operator: str, other: Limits) -> bool:
        """Whether numbers of these limits never compare so."""
        apart = self.most < other.least or other.most < self.least
        outcomes = {
            "<": self.least >= other.most,
            "<=": self.least > other.most,
            ">": self.most <= other.least,
            ">=": self.most < other.least,
        }
        return outcomes.get(operator, apart)

    def told(self) -> Iterator[str]:
        """Of numbers, in words."""
        if self.least > -inf:
            yield f"at least {self.least}"
        if self.most < inf:
            yield f"at most {self.most}"


FREE = Limits()


def bytes_in(text: str) -> int:
    r"""How many bytes a field needs for it at least.

    Texts that came out of a record are decoded by `text_of`, where `\\` and `\xNN` are one byte; the agent's own are
    as they are.
    """
    raw = bytes_of(text)
    return len(raw if raw is not None else text.encode("utf-8", "replace"))


def bytes_of_a_part(text: str, *, begins: bool) -> int:
    r"""The same of a part of a text, which a `\xNN` may reach into, unless the text begins with it, and out of."""
    if "\\" in text:
        return -(-len(text) // _SHOWN_OF_A_BYTE)
    return len(text.encode("utf-8", "replace")) - (0 if begins else _SHOWN_OF_A_BYTE - 2)


def limits_of_constant(value: Json) -> Limits:
    """Of a literal."""
    if isinstance(value, str):
        return Limits(size=bytes_in(value))
    return Limits(value, value) if isinstance(value, int | float) and not isinstance(value, bool) else FREE


def limits_of_schema(schema: Mapping[str, Any]) -> Limits:
    """What a JSON Schema says of a number, a text or an array."""
    names = schema["items"].get("enum") if schema.get("uniqueItems") and "items" in schema else None
    size = min(schema.get("maxItems", inf), len(names) if names is not None else inf)
    return Limits(schema.get("minimum", -inf), schema.get("maximum", inf), size, _form(schema.get("pattern")))


def _form(pattern: object) -> str:
    """A plugin's may be none to Python."""
    try:
        return re.compile(str(pattern or "")).pattern
    except re.error:
        return ""


def counted(kinds: frozenset[str], limits: Limits) -> Limits:
    """Of what `count` answers, which is characters of a text."""
    size = limits.size * (_SHOWN_OF_A_BYTE if kinds == {"string"} else 1)
    return Limits(0, size if kinds in ({"string"}, {"array"}) else inf)

"""What is looked up other than by a reference, or in what may grow: names that are near those that are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches

from ...events.inline import NamePath
from ..definition import Node, reference
from .scope import LexicalScope
from .types import ANY, ARRAY, NUMBER, SET, TEXT, Type, union

MISSPELT = 0.75
"""How like a name that is there one must be to be taken for it."""
_LISTED: dict[NamePath, str] = {
    ("json", "filter"): "/",
    ("json", "remove"): "/",
    ("object", "filter"): "",
    ("object", "remove"): "",
}
"""Functions whose second argument lists keys or paths, and what is between the names of one that is a text."""


def written_path(node: Node) -> list[str] | None:
    """The key or path of `object.get`, where it is written out."""
    keys = node["Array"]["items"] if "Array" in node else [node]
    texts = [next(iter(each.values())) for each in keys if "String" in each or "RawString" in each]
    return [str(each["value"]) for each in texts] if len(texts) == len(keys) else None


def listed_paths(function: NamePath, keys: Node) -> Iterator[list[str]]:
    """What such a function is asked for, as far as it is written out."""
    if (between := _LISTED.get(function)) is not None:
        for each in (keys.get("Array") or keys.get("Set") or {}).get("items", ()):
            path = written_path(each) or []
            yield path[0].strip(between).split(between) if path and between and "Array" not in each else path


def walked_to(pattern: Node) -> tuple[list[Node], Node] | None:
    """The path that `walk` shall lead to, where it is written out, and what the value there is matched with."""
    parts = pattern["Array"]["items"] if "Array" in pattern else []
    steps = parts[0]["Array"]["items"] if len(parts) == 2 and "Array" in parts[0] else []
    return (steps, parts[1]) if steps and all("String" in each for each in steps) else None


def got(whole: Type, path: Sequence[str], otherwise: Type) -> tuple[Type, tuple[str, str, str] | None]:
    """What `object.get` gives; and of a misspelt key whose it is, it, and the right one.

    It is asked for what may be missing, so that another key than those that are known is no mistake.
    """
    value = whole
    for name in path:
        member = value.member(name)
        if member is None or (value.others and name not in (value.members or {})):
            right = near(name, value)
            return ANY, (value.name or "the object", name, right) if right else None
        value = member
    if not value.domain or otherwise.texts is None:
        return (value if not path else union([value, otherwise])), None
    texts = (value.texts or frozenset()) | otherwise.texts
    return replace(value, kinds=value.kinds | otherwise.kinds, texts=texts), None


def walked(whole: Type) -> Type:
    """What `walk` gives: a path, and what is there."""
    names, steps = _names_within(whole), TEXT.kinds | NUMBER.kinds
    known = names is not None and whole.name
    name = Type(steps, names, f"a name in {whole.name}", name=f"a path's step in {whole.name}") if known else ANY
    return Type(ARRAY.kinds, places=(replace(ARRAY, items=name), ANY))


def _names_within(whole: Type) -> frozenset[str] | None:
    """All keys of an object and of what is in it; None where others may be."""
    if not whole.known or whole.others or "set" in whole.kinds:
        return None
    found: set[str] = set()
    parts = [whole.items] if "array" in whole.kinds else []
    if "object" in whole.kinds:
        if whole.members is None or whole.items is not None:
            return None
        found.update(whole.members)
        parts += whole.members.values()
    for each in parts:
        names = _names_within(each) if each is not None else None
        if names is None:
            return None
        found |= names
    return frozenset(found)


def element_at(step: Node, value: Type) -> Type:
    """What of a collection an index names that is no key of its own."""
    if "Number" in step and value.places is not None:
        number = step["Number"]["value"]
        return value.place(number) if isinstance(number, int) and number >= 0 else ANY
    return value.element() if value.kinds != SET.kinds or value.items is not None else ANY


def near(name: str, value: Type) -> str:
    """The key of an object that a name is a misspelling of; empty where there is none, or the name is one."""
    close = get_close_matches(name, value.members or (), 1, MISSPELT)
    return close[0] if close and close[0] != name else ""


def same_on_both_sides(node: Node, scope: LexicalScope) -> str:
    """The text of the reference that a comparison has on both sides; empty where they differ."""
    sides = [scope.text(next(iter(node[side].values()))["span"]) for side in ("lhs", "rhs") if reference(node[side])]
    return sides[0] if len(sides) == 2 and sides[0] == sides[1] and not _wildcards(node["lhs"]) else ""


def _wildcards(node: Node) -> bool:
    """Whether a reference has any, each of which is a variable of its own."""
    while "RefDot" in node or "RefBrack" in node:
        index = node["RefBrack"]["index"] if "RefBrack" in node else {}
        if "Var" in index and index["Var"]["value"] == "_":
            return True
        node = next(iter(node.values()))["refr"]
    return False
